/* cuda_product.h — contractions in tiles of shared memory: what cuda_gemm.c and cuda_mma.c share.
 *
 *   for batch, m, n: { acc = init; for k: if guard: acc = fma(a(m, k), b(n, k), acc); epilogue(acc) }
 *
 * The loops of one operand alone are its rows, counted together: m, n; those of both are batches; the loops of the
 * sum together are k. So a convolution is a product whose addresses are computed on the way (implicit GEMM). */
#ifndef CG_CUDA_PRODUCT_H
#define CG_CUDA_PRODUCT_H
#include "codegen/cuda_internal.h"

typedef struct cu_axis { /* several loops, counted as one, the last fastest */
  const ir_stmt *loops[LW_MAX_LOOPS];
  int n;
  int64_t extent;       /* at most */
  ix count;             /* what it is by the sizes that the launch tells; null: the extent */
} cu_axis;

typedef struct cu_operand {
  ix value;             /* as the product takes it */
  ix guard;             /* where it is to be zero instead, or null */
  cu_axis rows;
  bool inner_k;         /* memory runs along k, and so do the rows of the tile */
  int vec;              /* elements that one asynchronous copy moves; 0: through registers */
  int64_t block;        /* rows of a tile */
  ir_buf *shared;       /* [stages, block, bk + pad], or [stages, bk, block + pad] when not inner_k */
} cu_operand;

typedef struct cu_product {
  tn_ctx *ctx;
  const ir_kernel *k;
  lw_problem p;
  cu_operand a, b;
  cu_axis batch, sum;
  ir_buf *acc;           /* of the kernel */
  ix init;
  const ir_stmt *const *epilogue;
  int nepilogue;
  tn_dtype dtype;        /* of the operands in shared memory */
  int64_t bk, threads;
  int stages, pad;
  bool along_k;          /* tiles must run along k, however memory runs */
  bool swizzle;          /* tiles in the 128-byte swizzle, for wgmma; bk is then 128 bytes and pad 0 */
  ir_var *block_m, *block_n, *block_b;
  ix at_m, at_n, at_b;   /* of the tile, where it is not the block's number; else null */
  int64_t cluster;       /* blocks that share what they bring: shared memory and private arrays have room for each; else 0 */
  int copies;            /* fresh names */
} cu_product;

/* Reads the product off a kernel; false with *reason. `plain`: shared memory holds elements as they lie in global
 * memory, below the operands' casts. */
bool cu_product_of(tn_ctx *ctx, const ir_kernel *k, bool plain, cu_product *g, const char **reason);
/* The same of a kernel with sizes that the launch tells: of rows and batches, each the first loop of its axis. */
bool cu_product_sized(tn_ctx *ctx, const ir_kernel *k, bool plain, cu_product *g, const char **reason);
/* A block's statements in the loops over all blocks. */
const ir_stmt *cu_product_grid(const cu_product *g, const ir_stmt *s);
/* Operands of f8e4m3fn and f8e5m2, in either order: then g->dtype is that of a, as wide as that of b. */
bool cu_mixed(const cu_product *g);
tn_dtype cu_operand_dtype(const cu_product *g, const cu_operand *o); /* in shared memory */
/* After blocks, bk, stages, threads and pad are set: how copies move, the shared buffers. */
void cu_product_tiles(cu_product *g);
/* Statements of all threads that bring tile number `kt` of both operands into stage `stage`. */
const ir_stmt *cu_product_copy(cu_product *g, ix kt, ix stage);
/* The loop number i of an axis when the axis' count is p. */
ix cu_axis_at(tn_ctx *ctx, const cu_axis *a, int i, ix p);
typedef struct cu_box { /* rows of an operand's tile */
  ix first;              /* of the operand */
  ix to;                 /* where they lie in the tile */
  int64_t rows;
  ix outer, inner;       /* of the sum: count of the outer loops, of the last one */
  ir_var *peer;          /* the blocks of a cluster that all get them, or null */
  ix stage;              /* by peer */
} cu_box;
/* What one copy of that means, in plain loops; zeros where there is nothing. */
const ir_stmt *cu_product_box(cu_product *g, const cu_operand *o, const cu_box *box);
/* The element of an operand's tile. */
ix cu_product_at(const cu_product *g, const cu_operand *o, ix stage, ix row, ix k);
/* The epilogue for the element (m, n) of the block, whose sum is `value`; guarded at the borders. */
const ir_stmt *cu_product_store(cu_product *g, ix m, ix n, ix value);
/* The same, but what `store`, a statement of the epilogue, stores goes to to[at]. */
const ir_stmt *cu_product_stage(cu_product *g, ix m, ix n, ix value, const ir_stmt *store, ir_buf *to, const ix *at);
/* `value`, of the element (m, n) of the block, to where `store` puts it; guarded at the borders. */
const ir_stmt *cu_product_put(cu_product *g, const ir_stmt *store, ix m, ix n, ix value);
/* All around `start` (accumulators), `step` (one tile from stage `stage`, a variable) and `end`. */
const ir_stmt *cu_product_pipeline(cu_product *g, const ir_stmt *start, const ir_stmt *(*step)(cu_product *g, ix stage, void *user), void *user,
                                   const ir_stmt *end);
int64_t cu_product_shared_bytes(const cu_product *g);
/* Statements of all threads that bring tile (block, kt) of one operand into stage `stage`. */
const ir_stmt *cu_product_copy_one(cu_product *g, const cu_operand *o, const ir_var *block, ix kt, ix stage);
/* Products of fragments (cuda_mma.c); arrays by thread, piece of 16 rows or columns, element. */
typedef struct cu_mma {
  int64_t wm, wn, warps_n, warps;
  int64_t pack;    /* elements of k in 32 bits: 2, or 4 of bytes, 1 of f32 */
  int64_t depth;   /* k of one instruction: 8 pack */
  ir_buf *fa, *fb; /* [threads, pieces of A, 4 pack], [threads, pieces of B, 4 pack]: two column tiles together */
  ir_buf *acc;     /* [threads, wm / 16, wn / 8, 4] */
  bool tf32;       /* f32 operands, rounded to 10 bits of fraction */
  const char *atom;
} cu_mma;
/* By warp w: 16 rows from row0 on, x->depth elements of k from k0 on, of a tile in shared memory. */
const ir_stmt *cu_mma_load(cu_product *g, const cu_mma *x, const cu_operand *o, ir_buf *to, ix w, ix piece, ix row0, ix k0, ix stage);
/* By warp w: sums (mi, nj) += piece of A * column tile nj, one half of the piece of B. */
const ir_stmt *cu_mma_multiply(tn_ctx *ctx, const cu_mma *x, ix w, ix a_piece, ix b_piece, ix mi, ix nj);
/* What atoms call the floats that tensor cores multiply into f32: PTX's name, of two kinds both ("e4m3e5m2"); null: none. */
const char *cu_tensor_core_type(const cu_product *g);
enum { CU_TILE_BYTES = 128 }; /* along k, of a tile in the 128-byte swizzle */
/* Products by warpgroups of 64 rows (cuda_wgmma.c): accumulators of their threads, products of a tile in shared memory. */
typedef struct cu_groups {
  int64_t n;           /* warpgroups of a tile, */
  int64_t first;       /* from this one on */
  ix base;             /* the number of the block's first thread in the cluster, or null */
  int64_t threads;     /* of the block: those behind the warpgroups have accumulators that nobody uses */
  ir_buf *acc;         /* [threads, BN / 2] */
  const char *atom;
} cu_groups;
/* Sets up tiles for blocks a.block x b.block; false with *reason where the kernel is none for warpgroups. */
bool cu_groups_of(cu_product *g, const cu_target *t, cu_groups *x, int64_t extra_threads, const char **reason);
ir_var *cu_groups_var(tn_ctx *ctx, const cu_groups *x, const char *name);
/* The products of the tile in `stage` by warpgroup `group`, issued and not waited for. */
const ir_stmt *cu_groups_multiply(cu_product *g, const cu_groups *x, ix group, ix stage);
/* Row and column, within 64 rows, of element e of the n-th 8 columns that thread t of a warpgroup holds. */
void cu_groups_element(tn_ctx *ctx, ix t, ix n, ix e, ix at[2]);
const ir_stmt *cu_groups_start(cu_product *g, const cu_groups *x);
const ir_stmt *cu_groups_end(cu_product *g, const cu_groups *x);
/* BM BN STAGES by default, for at least 64 rows of each. */
cu_choice cu_groups_choice(const cu_target *t, const cu_product *g);
/* for v from 0: body, with what lies side by side in global memory along v moved 16 bytes at a time (cuda_vector.c). */
const ir_stmt *cu_vectors(tn_ctx *ctx, ir_var *v, const ir_stmt *body);
/* Loop and tile statements, short. */
const ir_stmt *cu_loop(tn_ctx *ctx, ir_var *v, ir_loop_kind kind, const ir_stmt *body);
ir_var *cu_var(tn_ctx *ctx, const char *name, int64_t extent);
const ir_stmt *cu_sync(tn_ctx *ctx, const char *atom);
#endif
