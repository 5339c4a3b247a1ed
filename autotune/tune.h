/* tune.h — the search: better schedules for a set of kernels within a time budget.
 *
 *   store ── what was tried ──┐
 *   kernels ── space, model ──┴─ propose ── lab: compile, check, race ── record ──┐
 *                  ^                                                             │
 *                  └──────────── residuals of the model, budget ─────────────────┘
 *
 * Anytime: every batch is committed as it ends, the default schedule goes first, and the
 * winner at any moment is what the store derives. Stopping loses at most the batch that runs.
 * A schedule beats the default only after an interleaved final, beyond noise.
 */
#ifndef AT_TUNE_H
#define AT_TUNE_H
#include "autotune/measure.h"
#include "autotune/store.h"

/* How things are timed: the `policy` of keys. Winners are those of so many threads (0 and 1: one). */
const char *at_policy(tn_ctx *ctx, int threads);
/* The version of the code generator, as in keys. */
const char *at_codegen(tn_ctx *ctx);
/* "gemm", "conv2d", "pointwise", ...: from the kernel's loops. */
const char *at_class(tn_ctx *ctx, const ir_kernel *k);
/* The key of a kernel; texts in ctx. */
at_key at_key_of(tn_ctx *ctx, const ir_kernel *k, const cg_target *t, int threads);

typedef struct at_tune_kernel {
  const ir_kernel *kernel; /* unscheduled */
  const char *name;        /* for people */
  double count;            /* calls in one run of the model */
  int aside;               /* 0; or the number of an alternative form of the model that has it: worth less time, in no sum */
} at_tune_kernel;

/* The state of one kernel, for displays and as a result. */
typedef struct at_tune_state {
  const char *name, *klass;
  double count, flops;
  double default_ns, best_ns;  /* one call; NaN: not measured */
  double predicted_ns;         /* of the default */
  const char *schedule;        /* the best; null: none measured */
  int space, tried, ok, failed; /* points; distinct schedules tried ever, of those */
  int trials;                  /* new ones, this time */
  bool proven;                 /* best won a final, or is the default */
  bool converged;              /* nothing more to be expected */
  const char *trouble;         /* why it cannot be tuned; null: it can */
} at_tune_state;

typedef struct at_tune_progress {
  const char *phase;           /* "default", "search", "final" */
  int kernel, nkernels;        /* the one that is worked on */
  const at_tune_state *state;  /* of it */
  double elapsed_s, budget_s;  /* budget 0: none */
  int trials, failed;          /* new ones, all kernels */
  int converged;               /* kernels */
  double before_ns, after_ns;  /* of the model: count x time over the kernels measured */
  double peak_gflops;
} at_tune_progress;

typedef struct at_tune_options {
  const cg_target *target;
  at_store *store;             /* null: nothing is kept, unless: */
  at_store *(*open)(void *open_user); /* opens the store, while the machine is probed: a new file waits for the disk. May be null */
  void *open_user;
  double accuracy;             /* as in lw_options */
  double budget_s;             /* 0: no limit */
  int explore;                 /* > 0: every space grows to so many points, patience never ends, the fastest are timed anew */
  int64_t trials;              /* distinct schedules per kernel, those in the store included; 0: no limit */
  bool survey;                 /* each kernel has a round before any has a second, within two thirds of the budget */
  uint64_t seed;
  int jobs;                    /* compile workers; 0: as many as CPUs */
  int threads;                 /* that schedules are for, and run on; 0 and 1: one */
  const char *label;           /* what was asked for; may be null */
  volatile sig_atomic_t *stop; /* may be null */
  void (*progress)(void *user, const at_tune_progress *p); /* several times a second; may be null */
  void *user;
  /* at the end, for every point of every kernel with a time or a failure; ns: one call on the scale of the
   * default's time, NaN: failed. May be null. */
  void (*each)(void *each_user, int kernel, const char *tunables, const char *schedule, at_status status, double ns);
  void *each_user;
  at_limits limits;
  at_misbehave misbehave;      /* tests */
} at_tune_options;

typedef struct at_tune_result {
  int n;
  const at_tune_state *state;  /* per kernel, in the order given */
  int trials, failed, restarts;
  double seconds;
  at_lab_seconds spent;        /* of them */
  double before_ns, after_ns;
  double peak_gflops, ghz;
  int64_t l3_bytes;
  bool stopped;                /* by the flag */
} at_tune_result;

/* Kernels that are equal (canonical text) share their work; those aside come after the others. */
const at_tune_result *at_tune(tn_ctx *ctx, int n, const at_tune_kernel *kernels, const at_tune_options *o);
#endif
