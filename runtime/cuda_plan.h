/* cuda_plan.h — a program as launches on a GPU.
 *
 *   graph ── lw_compile (NHWC, weights laid out for tiles) ── program ── cu_schedule, cu_print, NVRTC ── plan
 *
 * Memory is that of the program: one arena, the packed weights, states, inputs and outputs. Needs no GPU. */
#ifndef RT_CUDA_PLAN_H
#define RT_CUDA_PLAN_H
#include "lower/sizes.h"
#include "runtime/cuda_compile.h"

typedef struct rt_cuda_kernel { /* one distinct kernel of the run section */
  const ir_kernel *kernel;
  const cu_tile *tile;
  const cu_code *code;
  const char *library;          /* the plan of a library that runs in its place, or null; the tile is what it means */
  const rt_cubin *cubin;        /* null: not compiled (rt_cuda_options.no_compile), or a library's */
  const char *left;             /* choices that were tried before and why they were left, a line each; "" for none */
} rt_cuda_kernel;

/* What the link moves in about 20 microseconds (PCIe 5, 16 lanes), several times what another graph takes to begin. */
enum { RT_CUDA_CUT_BYTES = 1 << 20 };

typedef struct rt_cuda_plan {
  const ir_program *program;
  const cu_target *target;
  int nkernels;
  rt_cuda_kernel *kernels;      /* by program kernel; kernel null: packing only, which the host does */
  int nlaunches;                /* of one run; of each place where there is control flow */
  bool walked;                  /* control flow, or dimensions that the program computes: the host walks it, run by run */
  int64_t scratch_bytes;        /* the most that a launch needs */
  int64_t cut_bytes;            /* of inputs and outputs for which a run is cut, so that they are copied beside it: RT_CUDA_CUT_BYTES */
  double compile_s;
  int hits;                     /* cubins from the cache */
} rt_cuda_plan;

typedef struct rt_cuda_options {
  int jobs;                     /* threads that compile */
  const cg_cache *cache;        /* may be null; called by the calling thread only */
  bool no_compile;              /* plans alone */
  /* Compiles instead of NVRTC, in any thread with a context of its own; for tests. */
  const rt_cubin *(*compile)(tn_ctx *ctx, const cu_target *t, const cu_code *code, void *user);
  void *user;
  const char *(*choice)(void *user, const ir_kernel *k); /* schedule asked for; null or returning null: the default */
  bool as_asked;                /* what the gates refuse stays as it is */
  bool own;                     /* no library's plans, whatever the choice: for objects */
} rt_cuda_options;

/* Lowers a graph whose dimensions are numbers. `layout` AUTO: NHWC. */
ir_program *rt_cuda_lower(tn_ctx *ctx, ir_graph *g, lw_layout_choice layout);
lw_options rt_cuda_lowering(tn_ctx *ctx, lw_layout_choice layout); /* that it lowers with */
/* The same for several sizes, as lw_compile_sizes, with options of rt_cuda_lowering: the program has dims. */
ir_program *rt_cuda_lower_sizes(tn_ctx *ctx, const ir_graph *g, int n, const lw_dim *dims, const lw_options *o);
/* Schedules, prints and compiles the kernels of the run section, each distinct one once; a choice that the gates refuse
 * gives way to a plainer one. Kernels of dimensions that the program computes get schedules that take any size. */
rt_cuda_plan *rt_cuda_plan_make(tn_ctx *ctx, const ir_program *p, const cu_target *t, const rt_cuda_options *o);
/* Cubins of a kernel's schedules, several at once, for plans of this kernel alone: into the cache, as far as they are not there. What
 * fails to compile is left out. */
void rt_cuda_compile_ahead(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, int n, const char *const choices[], int jobs, const cg_cache *cache);
/* Runs it in the emulator. in, out as rt_program_interp; dims: of a program that has some. */
void rt_cuda_plan_emulate(tn_ctx *ctx, const rt_cuda_plan *p, const void *const in[], void *const out[], const int64_t dims[], void *state, uint64_t seed);
#endif
