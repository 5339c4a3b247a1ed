/* cuda.h — kernels for NVIDIA GPUs: tile programs and their CUDA C. The design: codegen/GPU.md.
 *
 *   kernel ── cu_schedule ──> tile program (kernel text again) ── cu_print ──> CUDA C ── runtime/cuda_compile.c ──> cubin
 *                                   │
 *                                   └── runtime/cuda_emulate.c: run, with races, late copies and barriers checked
 */
#ifndef CG_CUDA_H
#define CG_CUDA_H
#include "ir/ir.h"

/* ---- machines ---- */

typedef struct cu_target {
  const char *name;      /* "sm_80", "sm_90a": as --target cuda:NAME and as NVRTC's -arch take it */
  int sm;                /* 80, 90 */
  bool hopper;           /* wgmma, TMA, mbarrier transactions: the "a" architectures */
  int64_t shared_bytes;  /* of one block, opted in */
  int registers;         /* of one multiprocessor */
  int multiprocessors;   /* of the usual card: how many blocks fill it */
} cu_target;
/* Throws TN_EUSAGE naming the rows there are. */
const cu_target *cu_target_find(tn_ctx *ctx, const char *name);
const cu_target *cu_target_at(int i); /* null behind the last */

/* ---- tile programs ---- */

/* A kernel that computes the same as k, in loops bound to blocks, warps and threads, and what was chosen, as text:
 *
 *   threads T V            a thread per iteration of the parallel loops, V neighbours each
 *   rows T                 a block of T threads per iteration of the parallel loops, which shares its inner loops
 *   transpose              32 x 32 elements through shared memory
 *   tile BM BN BK TM TN S  products: a block of BM x BN, TM x TN a thread, BK steps of S stages in shared memory
 *   mma BM BN BK WM WN S   the same on tensor cores, WM x WN a warp
 *   wgmma BM BN S          the same by warpgroups of 64 rows from swizzled shared memory, sm_90a
 *   serial                 one thread
 *
 * `choice` null: the default one. A choice that does not fit the kernel gives null with *reason. */
typedef struct cu_tile {
  const ir_kernel *kernel; /* body: one loop nest of kind grid per launch, in order */
  int threads;             /* of a block */
  const char *choice;
} cu_tile;
const cu_tile *cu_schedule(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const char *choice, const char **reason);

/* ---- CUDA C ---- */

typedef struct cu_launch {
  const char *symbol;
  ix grid;               /* blocks; an expression of the kernel's dims */
  int threads;
  int64_t shared_bytes;  /* dynamic, of a block */
  int64_t scratch_bytes; /* global memory of one block, for private arrays that are too large for a thread's own */
} cu_launch;

/* A global function takes the address of each parameter, then that of the scratch where there is any, then the
 * dims as 64-bit integers. */
typedef struct cu_code {
  const char *source, *body; /* body: the end of the source, without the helper functions */
  int nlaunches;
  cu_launch *launches;
} cu_code;
/* Global functions SYMBOL, or SYMBOL_0, SYMBOL_1... Throws TN_EUNSUPPORTED. */
const cu_code *cu_print(tn_ctx *ctx, const cu_target *t, const cu_tile *tile, const char *symbol);

/* Bump when generated source may change its meaning: part of the keys of stores. */
#define CU_VERSION 1
#endif
