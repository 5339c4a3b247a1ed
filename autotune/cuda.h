/* cuda.h — the fastest schedule of each kernel of a program on a GPU, by trial.
 *
 *   kernel ── candidates: schedules, plans of libraries ── NVRTC, gates ── run, compared ── timed ── trial ──> store ── winners ──> next plan
 *
 * What a candidate does to the device ends with it: after a trap the device is opened anew, memory that is out is a failed
 * trial. A kernel that never ends ends this process: whoever watches it (frontend/cli_tune_cuda.c) starts another, and names
 * the trial that was under way. */
#ifndef AT_CUDA_H
#define AT_CUDA_H
#include "autotune/store.h"
#include "runtime/cuda_cudnn.h"
#include "runtime/cuda_plan.h"

typedef struct at_cuda_stuck { /* a trial that was ended from outside */
  const char *kernel, *choice;
} at_cuda_stuck;

/* What is tried for a kernel: `library` null for a schedule. The usual one first, then libraries' plans and other schedules
 * by turns, so that a budget serves both. Needs no GPU; *why (may be null): why there are no plans of libraries. */
typedef struct at_cuda_candidate {
  const char *choice;
  const rt_cuda_candidate *library;
} at_cuda_candidate;
const at_cuda_candidate *at_cuda_candidates(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, double rtol, int *n, const char **why);

/* Compiles a kernel's candidates into the store, so that whoever tunes it need not: no GPU is needed. How many there are. */
int at_cuda_compile(tn_ctx *ctx, at_store *store, const cu_target *t, const ir_kernel *k, double rtol);

typedef struct at_cuda_options {
  at_store *store;          /* null: nothing is kept */
  int trials;               /* most new ones of a kernel; 0: all candidates */
  double budget_s;          /* no new candidate after that; 0: no limit */
  const volatile int *stop; /* not 0: as if the budget were spent; may be null */
  const char *label;        /* of the run, may be null */
  double rtol;              /* of the largest result of an f32 kernel; below 1e-3 no tensor cores for those: winners with them are apart */
  const at_cuda_stuck *stuck; /* trials that are not to be made again: failed ones */
  int nstuck;
  void (*starts)(void *user, const char *kernel, const char *choice); /* before it goes to the device; both "": it came back; may be null */
  void *user;
} at_cuda_options;

typedef struct at_cuda_kernel { /* by kernel of the program */
  double default_ns, best_ns;   /* one call; 0: not measured */
  const char *choice;           /* the fastest; null: none measured */
  double own_ns, library_ns;    /* the fastest schedule, the fastest plan of a library; 0: none measured */
  const char *own, *library;
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
/* The schedule that the store knows to be the fastest for that accuracy (rtol), if it fits the kernel; null: none. */
const char *at_cuda_lookup(tn_ctx *ctx, at_store *store, const cu_target *t, const ir_kernel *k, double rtol);

/* The key under which whole runs of a graph (before the passes) are kept by their layouts, as at_layout_key does for CPUs;
 * configs are "layout NHWC", "layout NCHW". */
at_key at_cuda_layout_key(tn_ctx *ctx, const ir_graph *g, const cu_target *t, double rtol);
#endif
