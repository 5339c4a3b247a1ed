/* cuda_share.h — loops of a row or of a column that threads of a block share: what cuda_rows.c and cuda_columns.c have in common.
 *
 *   for i: { acc = 0; for r: acc += e(i, r); let m = f(acc); for r: out[i, r] = g(m, i, r) }
 *     -> for i grid: { acc[T]; part[T]; for t: part[t] = 0
 *                      for t: for c: for v: { r = (c*T + t)*V + v; if r < N: part[t] += e }
 *                      warps: part[t] += part of the lane 16, 8, 4, 2, 1 further on; one of each warp to shared memory
 *                      barrier; for t: acc[t] += all of them;  for t: m[t] = f(acc[t])
 *                      for t: for c: for v: { r = ..; if r < N: out[i, r] = g(m[t], i, r) } }
 *
 * Scalars outside the inner loops are kept by every thread alike; arrays of a row lie in shared memory, or in registers where
 * each element has one thread. What several loops load of a row is loaded by the first and kept in registers. Rows of a
 * warp need no barriers: a block has several.
 *
 * With columns a block has `lanes` threads beside each other, each with `each` neighbours of the loop `column`, and `threads` of
 * those lanes share the inner loops: v runs along the column, and scalars are arrays [block, each]. */
#ifndef CG_CUDA_SHARE_H
#define CG_CUDA_SHARE_H
#include "codegen/cuda_product.h"

enum { CU_SCALARS = 64, CU_SUMS = 8 /* of one loop; and loops of sums that may be cut into pieces */ };

typedef struct cu_kept { /* what several loops of `extent` iterations load */
  ix load;              /* at the variable `at` */
  ir_var *at;
  int64_t extent;
  int loops;            /* that load it */
  ir_buf *own;          /* [threads, elements]; null: not yet */
} cu_kept;

typedef struct cu_reduced { /* a scalar that a loop updates */
  const ir_buf *acc;
  ir_store_op op;
  ir_buf *part;         /* of each thread */
} cu_reduced;

typedef struct cu_columns {
  const ir_stmt *loop;      /* along which memory runs */
  int64_t extent, lanes, each;
  ix group;                 /* the block's number along it */
  ir_var *near;             /* 0 .. each, in what is being rewritten */
  /* pieces: each loop of sums is a launch whose blocks leave sums of their iterations, which the launches after it join */
  const ir_stmt *const *loops; /* the nest, all of them */
  int nloops;
  int64_t pieces;           /* 1: none */
  ix piece;                 /* the block's */
  int stage;                /* number of the loop of sums that this launch does */
  bool last;                /* it does the loops that store results instead */
  ir_buf *parts[CU_SUMS][CU_SUMS]; /* by loop and scalar: [pieces, nest] */
  int sums;                 /* loops of sums so far */
  bool done, stored;        /* the launch's own loop was met; there was a loop that stores */
} cu_columns;

typedef struct cu_rows {
  tn_ctx *ctx;
  const ir_kernel *k;   /* whose dims loops may run to */
  int64_t threads;      /* of a row, or of a column */
  int64_t block;        /* of the block: a warp a row, or one row, or its columns */
  ix warp;              /* the row's number in the block, null: one row */
  int64_t v;            /* neighbours of a thread in inner loops, at most */
  cu_columns *columns;  /* null: rows */
  cu_kept kept[16];
  int nkept;
  const ir_var *loop;   /* the one whose body is being rewritten, of `loop_extent` iterations; null: several */
  int64_t loop_extent;
  struct {
    const ir_buf *buf;  /* a scalar of the kernel, or */
    const ir_var *var;  /* a let */
    ir_buf *own;        /* [threads], or [threads, each] */
  } scalars[CU_SCALARS];
  int nscalars;
  const ir_buf *arrays[16]; /* of the kernel → shared */
  ir_buf *shared[16];
  bool own[16];         /* each element is touched by one thread: [threads, turns], private */
  int narrays;
  ix turn;              /* the number of a thread's element in the loop that is being shared out */
  ir_buf *allocs[2 * CU_SCALARS + 32]; /* all that the block declares */
  int nallocs;
  int64_t shared_bytes;
  int names;
  const ir_stmt *out[512]; /* statements of the block, in order */
  int n;
  bool dirty;           /* a shared array was touched since the last barrier */
  const char *why;      /* refused */
  ix me[2];             /* in what is being rewritten: the thread's number in the block; of columns the neighbour */
} cu_rows;

/* What several loops of s load: before cu_share_row. */
void cu_share_repeated(cu_rows *x, const ir_stmt *s);
/* Appends s to out; false with why. */
bool cu_share_row(cu_rows *x, const ir_stmt *s);
bool cu_share_refuse(cu_rows *x, const char *why);
void cu_share_put(cu_rows *x, const ir_stmt *s);
ir_buf *cu_share_declare(cu_rows *x, const char *name, tn_dtype t, int64_t n, ir_space space);
ir_buf *cu_share_scalar(const cu_rows *x, const ir_buf *b); /* the threads' own, or null */
void cu_share_barrier(cu_rows *x);
/* What is rewritten next is of thread t: sets `me` and the neighbour. */
void cu_share_enter(cu_rows *x, const ir_var *t);
/* v[t] op= v of the lane `by` further on, for all lanes of all warps. */
void cu_share_shuffle(cu_rows *x, ir_buf *v, ir_buf *other, ir_store_op op, int by);
/* Whether a load or store of global memory in s runs along v. */
bool cu_runs_along(tn_ctx *ctx, const ir_stmt *s, const ir_var *v);
/* The same of any loop in s and what is within. */
bool cu_runs_along_inner(tn_ctx *ctx, const ir_stmt *s);
/* Iterations of the longest nest; where they are not known, the most there may be, up to 65536 a loop. */
int64_t cu_longest(const ir_stmt *s);
/* Whether a value is known when the kernel is launched. */
bool cu_by_dims(const ir_kernel *k, ix e);
/* exp(a - b) by the special function unit where all results are of 8 or 11 bits: 22 are enough. */
const ir_stmt *cu_exponentials(tn_ctx *ctx, const ir_kernel *k, const ir_stmt *s);
/* Elements of 16 bytes, of the narrowest tensor. */
int64_t cu_widest(const ir_kernel *k);
/* cuda_columns.c: s for all columns of thread t; acc op= the parts of all sharers. */
const ir_stmt *cu_columns_each(cu_rows *x, const ir_var *t, const ir_stmt *s);
void cu_columns_combine(cu_rows *x, const cu_reduced *r);
/* acc op= the pieces of all blocks, as a loop; what the block has summed to its piece, which ends the launch. */
const ir_stmt *cu_columns_join(cu_rows *x, const cu_reduced *r, int n);
void cu_columns_leave(cu_rows *x, const cu_reduced *r, int n);
#endif
