/* cuda_tma.h — shared by cuda_tma.c, the pipeline, cuda_tma_map.c, what it copies, and cuda_tma_store.c, how results leave. */
#ifndef CG_CUDA_TMA_H
#define CG_CUDA_TMA_H
#include "codegen/cuda_product.h"

typedef struct cu_side { /* a tensor, its map, and where the copy of a box starts */
  cu_map map;
  ix at[CU_MAP_RANK];     /* coordinates by axis */
  ix shift[3];            /* im2col: of the window, by axis 1, 2, 3 */
} cu_side;

typedef struct cu_place { /* of a box: counts along the axes of the product, rows of it */
  ix rows, outer, inner, batch;
  int64_t box;
} cu_place;

/* The map of an operand, as boxes of rows or as pixels of images; false with *reason where it has none. */
bool cu_tma_operand(cu_product *g, const cu_operand *o, cu_side *s, const cu_place *p, const char **reason);
/* That of what `store` stores by the kernel's loops, in boxes of rows x columns from row m, column n of the product on. */
bool cu_tma_result(cu_product *g, const ir_stmt *store, cu_side *s, ix m, ix n, int64_t rows, int64_t columns, const char **reason);

/* An mbarrier's or a copy's statement: what it takes, the barrier (null: none) before all, then what it means. */
const ir_stmt *cu_operation(tn_ctx *ctx, const char *atom, ix barrier, int n, const ix *takes, const ir_stmt *meaning);
/* Of the `many` blocks of a cluster that are `apart` from each other, those to which block `rank` belongs: the first. */
ix cu_first_peer(tn_ctx *ctx, ix rank, int64_t many, int64_t apart);
/* One thread of a warpgroup. */
const ir_stmt *cu_elected(tn_ctx *ctx, const ir_stmt *s);

/* ---- results through shared memory ---- */

typedef struct cu_leave {
  const ir_stmt *store;   /* the one of the kernel's end */
  cu_side side;
  ir_buf *shared;         /* [groups, buffers, 64, 64] */
  ir_buf *own;            /* [threads, 8]: what a thread has of 16 columns, as results are kept */
  int64_t groups, pieces; /* of 64 columns, of a tile */
  int buffers;
  bool again;             /* they are written more than once */
} cu_leave;
/* Whether tiles of g may leave by the TMA unit, from `groups` warpgroups of a block, so many each; false with *reason. g->at_m, ... are set. */
bool cu_leave_of(cu_product *g, int64_t groups, int64_t tiles, cu_leave *l, const char **reason);
int64_t cu_leave_bytes(const cu_leave *l);
/* The kernel's end for the sums of warpgroup `group` of block `rank` of the cluster, its turn-th tile: by map `number`. */
const ir_stmt *cu_leave_tile(cu_product *g, const cu_groups *x, const cu_leave *l, ix rank, ix group, ix turn, int number);
/* What each warpgroup does before its block may end. */
const ir_stmt *cu_leave_last(cu_product *g);
#endif
