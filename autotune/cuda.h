/* cuda.h — the fastest schedule of each kernel of a program on a GPU, by trial.
 *
 *   kernel ── candidates of its class ── NVRTC, gates ── run, compared ── timed ── trial ──> store ── winners ──> next plan
 *
 * What a candidate does to the device ends with it: after a trap the device is opened anew, memory that is out is a failed
 * trial. All is done in this process: a kernel that never ends is not stopped. */
#ifndef AT_CUDA_H
#define AT_CUDA_H
#include "autotune/store.h"
#include "runtime/cuda_plan.h"

typedef struct at_cuda_options {
  at_store *store;          /* null: nothing is kept */
  int trials;               /* most new ones of a kernel; 0: all candidates */
  double budget_s;          /* no new candidate after that; 0: no limit */
  const volatile int *stop; /* not 0: as if the budget were spent; may be null */
  const char *label;        /* of the run, may be null */
} at_cuda_options;

typedef struct at_cuda_kernel { /* by kernel of the program */
  double default_ns, best_ns;   /* one call; 0: not measured */
  const char *choice;           /* the fastest; null: none measured */
} at_cuda_kernel;

typedef struct at_cuda_result {
  at_cuda_kernel *kernels;
  int trials, failed, known;    /* new ones; of those; candidates that the store knew */
  int reopened;                 /* devices lost on the way */
  const char *trouble;          /* of the last failure; null: there was none */
  bool stopped;                 /* by budget or stop */
} at_cuda_result;

/* `p`: of rt_cuda_lower. Device 0. Throws what rt_cuda_device_open throws, at the start and after a loss. */
at_cuda_result at_cuda_tune(tn_ctx *ctx, const ir_program *p, const cu_target *t, const at_cuda_options *o);
/* The schedule that the store knows to be the fastest, if it fits the kernel; null: none. */
const char *at_cuda_lookup(tn_ctx *ctx, at_store *store, const cu_target *t, const ir_kernel *k);
#endif
