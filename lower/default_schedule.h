/* default_schedule.h — what the parts of the default schedule share: a kernel with the steps so
 * far, and steps that are left out where they are refused. Private to default_*.c. */
#ifndef LW_DEFAULT_SCHEDULE_H
#define LW_DEFAULT_SCHEDULE_H
#include "lower/lower.h"
#include "lower/problem.h"
#include "lower/schedule.h"

typedef struct lw_plan {
  tn_ctx *ctx;
  const ir_kernel *start, *k; /* k: after the steps so far */
  const cg_target *t;
  lw_tunables u, got;
  int axis;                   /* the loop that was brought outside, as in the tunables; 0: none */
  ir_text text;
  lw_problem p;               /* of the start */
} lw_plan;

/* Appends a step if it is legal; false (and nothing changed) otherwise. */
bool lw_step(lw_plan *p, const char *fmt, ...) IR_PRINTF(2, 3);
/* Shortens the text to `length`, after p->k went back to what it was then. */
void lw_cut(lw_plan *p, size_t length);
bool lw_has_loop(const lw_plan *p, const char *name);
/* A kind for all loops that came from one: NAME, NAME.i0, NAME.b, ... */
void lw_kind(lw_plan *p, const char *what, const char *name);
/* The outermost loops become tasks when there is enough work: enough of them to share out,
 * not so many that each is small. With the tunable `axis` that loop first, where it is legal. */
void lw_parallel_outside(lw_plan *p);
/* The output store's buffer is walked by v with stride 1 within blocks of `lanes`: v splits
 * by it and the inner part is contiguous. */
bool lw_contiguous_out(lw_plan *p, const ir_var *v, int64_t lanes);

typedef struct lw_tile { /* MR rows of NR vectors */
  int64_t mr, nr;
  double cost; /* cycles per reduction step, summed over all tiles of an M x N plane */
} lw_tile;
/* The register tile for m rows and n elements, of at most max_nr vectors. */
lw_tile lw_best_tile(int64_t m, int64_t n, int64_t lanes, int64_t regs, int64_t max_nr);
/* The same for convolutions over a window, whose weights stay near: also with fewer rows than vectors (of 16
 * registers 3 x 4 leaves little of narrow rows), the rows being what a step holds then. `taps`: of a row of the window. */
lw_tile lw_window_tile(int64_t m, int64_t n, int64_t lanes, int64_t regs, int64_t max_nr, bool padded, int64_t taps);

/* How a convolution goes over its operands: `rows` pixels (1x1) or rows of the picture at a time, all panels of
 * weights over them (`panels` of a group, where chunks of the sum pass between), `kc` channels at a time. */
typedef struct lw_blocking {
  int64_t rows, panels, kc; /* panels, kc: 0 all */
  lw_tile tile;
  double cycles;
} lw_blocking;
/* Of a 1x1 convolution of m pixels to n channels; `block` channels lie together. */
lw_blocking lw_pixel_blocking(const lw_plan *p, int64_t m, int64_t n, int64_t lanes, int64_t block);
/* Of a convolution over a window, vectors along output loop v, rows along r; false: of another form. */
bool lw_window_blocking(const lw_plan *p, int v, int r, int64_t block, bool padded, lw_blocking *best);

/* What so few or so uneven tasks cost, as a factor of the time: a part of what they lose on two threads, as it is
 * not known how many will run. */
static inline double lw_task_cost(int64_t tasks) {
  return 1 + 0.25 * (double)(tasks % 2) / (double)tasks + (tasks < 8 ? 0.05 : 0);
}

/* Steps of a sum that a tile takes at once: more save the loop's own work, until its code is too long. */
static inline int64_t lw_steps_at_once(int64_t mr, int64_t nr) { return mr * nr * 8 <= 160 ? 8 : 4; }

/* A sum's outermost loop with more than one step; in parts (default_sums.c) also what is left over of it. */
typedef struct lw_sums {
  bool parts;
  int n;
  const char *name[3], *part[3]; /* loops of the steps, and around each of them of its parts */
} lw_sums;
/* Where accuracy is strict and the sum long: cut in parts, the accumulators distributed over the loops `tile`. Steps are kept
 * in blocks of `block`, what is left of a last one apart. False, and nothing changed: a step was refused. */
bool lw_sums_in_parts(lw_plan *p, int64_t block, const char *tile, lw_sums *sums);

/* acc = fma(a, b, acc): a register tile over an axis of `a` (rows) and one of `b` (vectors).
 * False: no such schedule (what was stepped so far is to be dropped). */
bool lw_default_contraction(lw_plan *p);
/* A 3x3 convolution by Winograd's algorithm, where the tunables ask for it or where it should be
 * faster and loses no more than u.accuracy allows. */
bool lw_default_winograd(lw_plan *p);

/* Attention (attend.h) by blocks of queries and keys. */
bool lw_default_attention(lw_plan *p);
/* The same for the gradient of its weights. */
bool lw_default_winograd_weights(lw_plan *p);

/* Pooling: { acc; taps: acc max= or += x; store } with channels that lie together. */
bool lw_default_pool(lw_plan *p);

/* The same for products of bytes and words with sums in i32. */
bool lw_default_int8(lw_plan *p);
/* The same for matrix products: one reduction, operands row by row. */
bool lw_default_gemm(lw_plan *p);
/* The same for matrix times vector, row by row: dot products. */
bool lw_default_dots(lw_plan *p);

/* The same for products whose sums are cut in parts, u.parts or by the rule for a kernel that has so many tasks without. */
bool lw_default_splitk(lw_plan *p, int64_t tasks);

/* Which logical axis of a load moves with v alone, with coefficient 1; -1: none. */
int lw_axis_of(ix load, const ir_var *v);
/* Packs constant operand b: blocks of `block` along its vector axis innermost, the rest in
 * the order of the loops. */
void lw_pack_constant(lw_plan *p, ix b, const ir_var *v, int64_t block, const char *const *order, int norder);
/* Output loops around loop r, up to v, that continue its rows in memory join it (r: -1 for none).
 * Returns the number of rows. */
int64_t lw_join_rows(lw_plan *p, int r, int v);
/* Whether the guard of a product (a border) depends on the loop of that name. */
bool lw_guard_uses(const lw_problem *p, const char *name);
/* Whether the joined row loop still walks its operand and the output by one stride each. */
bool lw_rows_linear(lw_plan *p, const char *row);

static inline int64_t lw_min(int64_t a, int64_t b) { return a < b ? a : b; }
#endif
