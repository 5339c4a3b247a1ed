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
 *   rows T R               T threads per iteration of the parallel loops, which share its inner loops, R iterations a block
 *   columns X T P V        sums over outer axes: X lanes of V neighbours, T threads share the inner loops of each, P blocks do a piece
 *   window S L X T         depthwise windows: S outputs a thread, T threads a block, L along memory, X strips side by side
 *   transpose              32 x 32 elements through shared memory
 *   tile BM BN BK TM TN S  products: a block of BM x BN, TM x TN a thread, BK steps of S stages in shared memory
 *   tma BM BN S            the same by a producer that copies boxes of tensors and warpgroups of 64 rows, sm_90a
 *     ... store            results leave through shared memory, by the TMA unit
 *     ... persist N R      N blocks (0: one a multiprocessor) that walk over tiles, R blocks of rows together
 *     ... pingpong         two teams of consumers take turns at tiles
 *     ... streamk          of the last turn the blocks share the steps of the sums out, a second launch adds them up
 *     ... cluster R [C]    R x C blocks (C: 1), neighbours by rows and columns, bring A of a row and B of a column together, to all that want it
 *   mma BM BN BK WM WN S   the same on tensor cores, WM x WN a warp
 *   tf32 BM BN BK WM WN S  of f32 on tensor cores, operands rounded to 10 bits: never by default
 *   wgmma BM BN S          the same by warpgroups of 64 rows from swizzled shared memory, sm_90a
 *   split P ...            products: the sum in P pieces, each by the schedule that follows, added up by a second launch
 *   attend BM BN           attention: BM queries a block, keys BN at a time, softmax on the way
 *   attend.simt BM BN TM   the same of f32, TM queries a thread
 *   attend.tf32 BM BN      the same of f32 on tensor cores: never by default
 *   attend.group BM BN S   the same by warpgroups of 64 queries, S stages of keys and values by the TMA unit, sm_90a
 *   serial                 one thread
 *
 * `choice` null: the default one. A choice that does not fit the kernel gives null with *reason. */
typedef struct cu_tile {
  const ir_kernel *kernel; /* body: arrays that launches pass on, then one loop nest of kind grid per launch, in order */
  int threads;             /* of a block */
  int blocks;              /* that a multiprocessor has room for at least: bounds registers; 0: the compiler's choice */
  const char *choice;
  int nmaps;
  const struct cu_map *maps; /* by number: what "tma.load 1" copies from */
  int cluster;             /* blocks of a cluster, over which loops of kind cluster run, in launches that have them; 0 or 1: none */
} cu_tile;

/* A tensor as the TMA unit sees it: what cuTensorMapEncodeTiled takes, or where pixels > 0 cuTensorMapEncodeIm2col. Axes
 * innermost first, strides in elements, the first 1. Boxes lie in shared memory in the 128-byte swizzle. */
enum { CU_MAP_RANK = 5 };
typedef struct cu_map {
  int param;                 /* of the kernel */
  int64_t offset;            /* elements from its start */
  tn_dtype dtype;
  int rank;
  int64_t extent[CU_MAP_RANK], stride[CU_MAP_RANK];
  int box[CU_MAP_RANK];      /* tiled: elements of the box along each axis */
  int step[CU_MAP_RANK];     /* im2col: strides of the base pixels; else 1 */
  int lower[3], upper[3];    /* im2col: base pixels lie between lower and extent - 1 + upper, by axis 1, 2, 3 */
  int channels, pixels;      /* im2col: elements along axis 0, base pixels of a box */
} cu_map;
const cu_tile *cu_schedule(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const char *choice, const char **reason);
/* Whether a launch is one of clusters: there is a loop of kind cluster in it. */
bool cu_clustered(const ir_stmt *launch);
/* Choices worth timing, the likely ones first; most fit a kernel of another class. Null behind the last. */
const char *cu_candidate(int i);

/* ---- CUDA C ---- */

typedef struct cu_launch {
  const char *symbol;
  ix grid;               /* blocks; an expression of the kernel's dims */
  int threads;
  int64_t shared_bytes;  /* dynamic, of a block */
  int64_t scratch_bytes; /* global memory of one block, for private arrays that are too large for a thread's own */
  int64_t passed_bytes;  /* global memory before that, which the launches of a kernel share */
  int nmaps;
  const cu_map *maps;
  int cluster;           /* blocks of a cluster; the grid is a multiple of it */
  int64_t registers;     /* that the roles of a block ask for together; 0: no roles */
} cu_launch;

static inline int64_t cu_launch_scratch(const cu_launch *l, int64_t blocks) { return l->passed_bytes + l->scratch_bytes * blocks; }

/* A global function takes the address of each parameter, then that of the scratch where there is any, then the maps by
 * value (128 bytes each), then the dims as 64-bit integers. */
typedef struct cu_code {
  const char *source, *body; /* body: the end of the source, without the helper functions */
  int nlaunches;
  cu_launch *launches;
} cu_code;
/* Global functions SYMBOL, or SYMBOL_0, SYMBOL_1... Throws TN_EUNSUPPORTED. */
const cu_code *cu_print(tn_ctx *ctx, const cu_target *t, const cu_tile *tile, const char *symbol);

/* Bump when generated source may change its meaning: part of the keys of stores. */
#define CU_VERSION 4
#endif
