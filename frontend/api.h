/* api.h — what stands behind the public header, shared by api*.c.
 *
 *   public call ── fe_enter ── primitives (ir_protect inside) ── fe_leave
 *
 * The primitives make one input, constant, parameter or node each. Public functions and layers
 * are straight lines of primitives and of each other, since null passes on. The outermost call
 * names itself in messages, and takes everything back when its result is null. */
#ifndef FE_API_H
#define FE_API_H
#include "frontend/tenon.h"
#include "ir/ir.h"
#include "lower/sizes.h"
#include "ir/text.h"

struct tn_tensor {
  tn_graph *graph;
  ir_value *v;
  const void *fixed; /* an input that became a constant: its data */
  void *stored;      /* what tn_module_store made; written again while nothing was compiled from it */
  int stored_for;
  /* of an eager graph, see eager.h */
  struct fe_buffer *buf;   /* contents; null: pending */
  uint64_t trace;          /* in which v stands for it */
  uint32_t serial;         /* another one each time the memory is used again */
  int refs;                /* 0: released */
  bool kept;               /* lives as long as the graph: parameters and states */
  bool held;               /* stays when the call or scope ends */
  struct tn_tensor *next, *prev;
  bool frozen;       /* a parameter that training leaves alone: running statistics */
};

/* How a parameter starts, while nobody has given it data. */
typedef struct fe_init {
  ir_value *v;
  double lo, hi; /* uniform; equal: that number */
} fe_init;

typedef struct fe_dim {
  ir_var *var;
  int64_t size; /* -1: none yet */
  const lw_dim *several; /* null: one */
} fe_dim;

struct tn_graph {
  tn_ctx *ctx;
  ir_graph *g;
  const char *call;   /* the outermost public call that is running */
  const char *file;   /* where it was called from; null: not known */
  int line;
  struct fe_eager *eager; /* null: a graph to be compiled */
  int nlayers;        /* eager: layers without names in this trace */
  tn_status status;   /* of the first call that failed: what a null passes on */
  ir_map names;       /* interned name -> ir_value */
  ir_map tensors;     /* ir_value -> tn_tensor */
  int serial;         /* of names that are made */
  int ncompiled;
  int noutputs;
  tn_tensor **outputs; /* as the user knows them; g->outputs are the values */
  int ndims;
  fe_dim *dims;
  int ninits;
  fe_init *inits;
  bool loaded;        /* from a file: types are inferred on copies */
  bool training;      /* layers take their training form */
  int64_t memory;     /* that gradients may keep; 0: any */
  tn_tensor *step;    /* number of the run, from 1; null: nobody asked */
  int ndropouts;
};

/* ---- calls ---- */

/* The state of a graph to go back to. */
typedef struct fe_mark {
  bool outermost;
  int nnodes, nvalues, nparams, ninputs, ninits, nresults, nupdates;
  tn_tensor *step;
} fe_mark;
fe_mark fe_enter(tn_graph *g, const char *call);
/* Returns `result`; when that is null everything since the mark is taken back. */
tn_tensor *fe_leave(tn_graph *g, const fe_mark *m, tn_tensor *result);
/* Whether g is a graph of a context that exists; if not, tn_run_error says so. frontend/live.c */
bool fe_alive(const tn_graph *g);
void fe_live_add(tn_ctx *ctx, tn_graph *g); /* throws */
/* Sets the calling thread's tn_run_error. */
tn_status fe_run_error(tn_status status, const char *fmt, ...) IR_PRINTF(2, 3);
/* Sets "FILE:LINE: CALL: message" and notes the status. */
tn_status fe_error(tn_graph *g, tn_status status, const char *fmt, ...) IR_PRINTF(3, 4);
/* Runs fn in the graph's context with "CALL" before messages; takes back on failure. */
tn_status fe_protect(tn_graph *g, void (*fn)(tn_ctx *ctx, void *arg), void *arg);
/* A null tensor came in: the status to pass on, with a message if nothing failed before. */
tn_status fe_null(tn_graph *g, const char *what);
/* The same text each time, for one thread at a time: "NAME.weight". */
enum { FE_NAME_MAX = 200, FE_NAME_ROOM = FE_NAME_MAX + 40 };
const char *fe_sub(char room[FE_NAME_ROOM], const char *name, const char *part);
/* `name`, or one that is free: "dense_3". */
const char *fe_layer_name(tn_graph *g, char room[FE_NAME_ROOM], const char *name, const char *kind);

/* ---- primitives; null results as the public header says ---- */

tn_tensor *fe_tensor(tn_graph *g, ir_value *v); /* throws */
/* A node; `name` null: one is made; attrs as tn_op. */
tn_status fe_node(tn_graph *g, const char *name, const char *op, const char *attrs, int nin, tn_tensor *const *in, int nout, tn_tensor **out);
/* The first output of op(in...), n tensors. */
tn_tensor *fe_op(tn_graph *g, const char *name, const char *op, const char *attrs, int n, ...);
tn_tensor *fe_ints(tn_graph *g, int n, const int64_t *v); /* 1-D i64 constant */
/* As tn_state. */
tn_tensor *fe_state(tn_graph *g, const char *name, tn_dtype t, int rank, const int64_t *dims, const void *data);
/* The number of the run, from 1, as i64 []; counts from when it is first asked for. */
tn_tensor *fe_step(tn_graph *g);
tn_tensor *fe_param_init(tn_graph *g, const char *name, tn_dtype t, int rank, const int64_t *dims, double lo, double hi);
/* Extent of an axis; throws nothing: reports and returns -1 when it is symbolic or x is null. */
int64_t fe_extent(tn_graph *g, const tn_tensor *x, int axis, const char *what);

/* frontend/api_attrs.c: attributes from text, by the kinds that the op declares. Throws. */
void fe_attrs(tn_ctx *ctx, ir_node *n, const char *text);

/* ---- data and copies ---- */

/* A node with its results inferred, and computed when that is little; throws. */
ir_node *fe_make_node(tn_ctx *ctx, tn_graph *g, const char *name, const char *op, const char *attrs, int nin, ir_value **in, int nout);
void fe_init_fill(const fe_init *init, const ir_value *v, void *data);
/* Compiles h, which is in ctx, as options say; names of outputs stay. Throws. frontend/api_module.c */
struct rt_module *fe_build(tn_ctx *ctx, ir_graph *h, const tn_options *o);
/* Writes g as ONNX, updates left out; `largest`: bytes from which the data lies beside it (0: 2 GB). Throws. frontend/onnx_write.c */
void fe_onnx_write(tn_ctx *ctx, ir_graph *g, const char *path, int64_t largest);
/* Gives every parameter that nobody set its starting data. Throws. frontend/api_weights.c */
void fe_fill(tn_ctx *ctx, tn_graph *g);
/* Inferred types of a loaded graph, on a copy; quiet when they cannot be had yet. frontend/api_module.c */
void fe_refresh(tn_graph *g);
/* The graph for compilation in ctx, another context than its own: dimensions bound, fixed inputs
 * constant, fetched tensors as further outputs; parameters replaceable, or constants if `freeze`.
 * Throws. *map as ir_graph_clone. */
ir_graph *fe_copy(tn_ctx *ctx, const tn_graph *g, bool freeze, int nfetch, tn_tensor *const *fetch, ir_value ***map);
#endif
