/* cuda_attend.h — attention in one launch: what cuda_attend.c (mma.sync), cuda_attend_f32.c (FMA, TF32) and cuda_attend_group.c
 * (wgmma) share, the softmax on accumulators that goes along with the tiles of keys.
 *
 * A row is in `lanes` lanes beside each other; a thread has `rows` rows, and of each `per` columns of every lanes * per. */
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
  int64_t lanes, per, rows;
  cu_mma s, o;            /* accumulators: [threads, 1, columns / (lanes per), rows per]; o.fa: the weights as fragments of keys */
  ir_buf *m, *l, *f, *top, *near, *other; /* [threads, rows]; l: of the thread's own columns */
  ir_buf *weights;        /* simt: [bm, bn + 4], shared; else null */
  bool f32, simt;         /* dtype of the operands; FMA, and exponentials in full */
  ix row_total;           /* the sum of a row's weights */
  lw_attention_span span;
  ix first, last;         /* queries of the block */
  ix begin, end;          /* tiles of keys that it goes over: at least one */
  ir_var *bounds[2];      /* what holds them, or null: they are numbers; */
  ix limits[2];           /* what they are */
  int64_t bm, bn, tiles;
  int64_t own;            /* threads with rows: the first of the block */
  int names;
  /* Sums of scores, of results, from stage `stage`; */
  const ir_stmt *(*keys)(struct cu_attend *x, ix stage), *(*values)(struct cu_attend *x, ix stage);
  const ir_stmt *(*pack)(struct cu_attend *x, ix t); /* and the weights of thread t to where `values` takes them; null: as mma of 16 bits does */
} cu_attend;

/* Both products of an attention kernel of x->f32; false with *reason. */
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
/* Without roles: all threads copy keys and values, in two stages. */
/* Shared memory and arrays, once blocks and own are set; false: a block has not so much. */
bool cu_attend_stages(cu_attend *x, const cu_target *t);
const ir_stmt *cu_attend_block(cu_attend *x);
const ir_stmt *cu_attend_keys(cu_attend *x, ix stage); /* by mma.sync */
/* A variable with a name of its own; an array of each thread, of one to three axes (0: none). */
ir_var *cu_attend_var(cu_attend *x, const char *name, int64_t n);
ir_buf *cu_attend_array(cu_attend *x, const char *name, tn_dtype t, int64_t a, int64_t b, int64_t c);
/* Where the block's thread t has accumulator (n, e). */
ix cu_attend_row(cu_attend *x, ix t, ix e);
ix cu_attend_column(cu_attend *x, ix t, ix n, ix e);
#endif
