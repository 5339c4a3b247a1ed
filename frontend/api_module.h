/* api_module.h — what a compiled graph is; shared by api_module.c, which makes it, and api_run.c,
 * which runs it and gives it new weights. */
#ifndef FE_API_MODULE_H
#define FE_API_MODULE_H
#include "frontend/api.h"
#include "frontend/cuda.h"
#include "runtime/exec.h"
#include "runtime/module.h"
#include <pthread.h>

typedef struct fe_port { /* an input or output of a run */
  const tn_tensor *t;
  const char *name;
  int64_t bytes;
} fe_port;

typedef struct fe_param {
  const tn_tensor *t;
  int64_t bytes;
  char *own; /* what tn_module_set gave; null: the graph's */
} fe_param;

typedef struct fe_raw_slot { /* a tensor that weights are packed from: this parameter */
  int index, param;
} fe_raw_slot;

typedef struct fe_kept { /* a tensor in the state */
  const tn_tensor *t;
  int64_t offset, bytes;
} fe_kept;

struct tn_module {
  tn_ctx *ctx;   /* owns everything here, the module itself too */
  tn_ctx *owner; /* the graph's */
  rt_module *module;
  fe_cuda *cuda; /* instead of the module: on a GPU */
  rt_pool *pool;
  const rt_threads *threads;
  int nin, nout; /* of the program */
  fe_port *in, *out;
  int nparams, nraws;
  fe_param *params;
  fe_raw_slot *raws;
  const void **raw;      /* by number of the raw slot; null: the program's own */
  int nkept;
  fe_kept *kept;         /* what runs update: parameters and states */
  char *state;           /* their memory; null: there are none */
  pthread_rwlock_t lock; /* runs read the weights; those that update, and tn_module_set, write */
};

/* The program's slot of a kind with that number among its kind. */
const ir_slot *fe_find_slot(const ir_program *p, ir_slot_kind kind, int index);
#endif
