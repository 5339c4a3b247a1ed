/* cuda_attend.h — attention in one launch: what cuda_attend.c (mma.sync) and cuda_attend_group.c (wgmma) share, the softmax
 * on accumulators that goes along with the tiles of keys. */
#ifndef CG_CUDA_ATTEND_H
#define CG_CUDA_ATTEND_H
#include "codegen/cuda_product.h"
#include "lower/attend.h"

typedef struct cu_attend {
  tn_ctx *ctx;
  const ir_kernel *k;
  lw_attention_parts p;
  const ir_buf *scores;   /* stands for all rows of scores */
  cu_product qk, pv;      /* rows of queries by keys, by columns; keys are counted in tiles of qk.block_n */
  cu_mma s, o;            /* accumulators: [threads, 1, columns / 8, 4]; o.fa: the weights as fragments of 16 keys */
  ir_buf *m, *l, *f, *top, *near, *other; /* [threads, 2]: rows g and g + 8; l: of the thread's own columns */
  ix row_total;           /* the sum of a row's weights */
  lw_attention_span span;
  ix first, last;         /* queries of the block */
  ix begin, end;          /* tiles of keys that it goes over: at least one */
  ir_var *bounds[2];      /* what holds them, or null: they are numbers; */
  ix limits[2];           /* what they are */
  int64_t bm, bn, tiles;
  int64_t own;            /* threads with rows: the first of the block */
  int names;
} cu_attend;

/* Both products of an attention kernel; false with *reason. */
bool cu_attend_of(cu_attend *x, const char **reason);
/* Accumulators and rows, once blocks, own and the threads of both products are set; blocks of the grid. */
void cu_attend_arrays(cu_attend *x);
/* All of them, and the grid, around s. */
const ir_stmt *cu_attend_around(cu_attend *x, const ir_stmt *s);
/* For each tile of keys, qk.block_n: s; its number from the first one on. */
const ir_stmt *cu_attend_tiles(cu_attend *x, const ir_stmt *s);
ix cu_attend_step(cu_attend *x, ix tile);
/* What the block does, with the bounds of its tiles. */
const ir_stmt *cu_attend_bounded(cu_attend *x, const ir_stmt *s);
/* By all threads that have rows: before the keys; */
const ir_stmt *cu_attend_start(cu_attend *x);
/* after the scores of tile qk.block_n, sums in s.acc: scores, weights as fragments, what was summed before made to fit; */
const ir_stmt *cu_attend_softmax(cu_attend *x);
/* and the results. */
const ir_stmt *cu_attend_end(cu_attend *x);
#endif
