/* ops_reduce.c — reductions over axes, ArgMax and ArgMin, running sums, determinants.
 *
 * Reduce*: for the axes that stay { acc = start; for r r1 .. acc op= term(x); out = finish(acc) }
 * Sums of f16 and bf16 are in f32, those of integers in their own type, wrapping. */
#include "lower/grad.h"
#include "lower/window.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- Reduce* ---- */

typedef enum term { TERM_X, TERM_ABS, TERM_SQUARE } term;
typedef enum finish { FINISH_NONE, FINISH_MEAN, FINISH_SQRT, FINISH_LOG, FINISH_LOG_SUM_EXP } finish;
typedef struct reduction {
  const char *name;
  ir_store_op op;
  term term;
  finish finish;
} reduction;

static const reduction reductions[] = { /* in the order of the table's first rows */
    {"ReduceSum", IR_ADD, TERM_X, FINISH_NONE},           {"ReduceMean", IR_ADD, TERM_X, FINISH_MEAN},
    {"ReduceMax", IR_MAX, TERM_X, FINISH_NONE},           {"ReduceMin", IR_MIN, TERM_X, FINISH_NONE},
    {"ReduceProd", IR_MUL, TERM_X, FINISH_NONE},          {"ReduceL1", IR_ADD, TERM_ABS, FINISH_NONE},
    {"ReduceL2", IR_ADD, TERM_SQUARE, FINISH_SQRT},       {"ReduceSumSquare", IR_ADD, TERM_SQUARE, FINISH_NONE},
    {"ReduceLogSum", IR_ADD, TERM_X, FINISH_LOG},         {"ReduceLogSumExp", IR_ADD, TERM_X, FINISH_LOG_SUM_EXP},
};

static const reduction *reduction_of(const ir_node *n) { return &reductions[n->op - lw_ops_reduce]; }

/* Which axes are reduced. No axes at all means every axis, or none when the node says so. */
void lw_reduced_axes(tn_ctx *ctx, const ir_node *n, bool *reduced) {
  int axes[IR_MAX_RANK], rank = n->in[0]->rank;
  int count = lw_axes(ctx, n, "axes", n->nin > 1 ? 1 : -1, rank, axes);
  bool all = count <= 0 && !ir_attr_get_int(n, "noop_with_empty_axes", 0);
  for (int i = 0; i < rank; i++) reduced[i] = all;
  for (int i = 0; i < count && rank > 0; i++) reduced[axes[i]] = true;
}

static void set_reduced(tn_ctx *ctx, ir_node *n, tn_dtype t, const bool *reduced) {
  const ir_value *x = n->in[0];
  bool keep = ir_attr_get_int(n, "keepdims", 1) != 0;
  ix dims[IR_MAX_RANK];
  int rank = 0;
  for (int i = 0; i < x->rank; i++)
    if (!reduced[i] || keep) dims[rank++] = reduced[i] ? ix_index(ctx, 1) : x->dims[i];
  lw_set(n, 0, t, rank, dims);
}

static void reduce_infer(tn_ctx *ctx, ir_node *n) {
  const reduction *r = reduction_of(n);
  bool reduced[IR_MAX_RANK], order = r->op == IR_MAX || r->op == IR_MIN;
  if (n->in[0]->dtype == TN_BOOL && !order) lw_bad(ctx, n, "an input of type bool");
  lw_reduced_axes(ctx, n, reduced);
  set_reduced(ctx, n, n->in[0]->dtype, reduced);
}

/* Opens the loops over the axes that stay; `o`: the output index (0 on kept reduced axes),
 * `at`: the input index, reduced axes still unset. Returns the number of loops. */
static int open_kept(lw_build *b, ir_node *n, const bool *reduced, ix *o, ix *at) {
  const ir_value *x = n->in[0];
  bool keep = ir_attr_get_int(n, "keepdims", 1) != 0;
  int rank = 0, loops = 0;
  for (int i = 0; i < x->rank; i++) {
    char name[16];
    snprintf(name, sizeof name, "i%d", i);
    if (!reduced[i]) o[rank++] = at[i] = ib_loop(lw_b(b), name, x->dims[i]), loops++;
    else if (keep) o[rank++] = ix_index(lw_ctx(b), 0);
  }
  return loops;
}
static int open_reduced(lw_build *b, ir_node *n, const bool *reduced, ix *at) {
  int loops = 0;
  for (int i = 0; i < n->in[0]->rank; i++)
    if (reduced[i]) at[i] = ib_loop(lw_b(b), "r", n->in[0]->dims[i]), loops++;
  return loops;
}

/* What a reduction over nothing gives. */
static ix start_of(tn_ctx *ctx, ir_store_op op, tn_dtype t) {
  if (op == IR_ADD) return ix_num(ctx, t, 0);
  if (op == IR_MUL) return ix_num(ctx, t, 1);
  if (t == TN_BOOL) return ix_bool(ctx, op == IR_MIN);
  if (ir_is_float(t)) return ix_float(ctx, t, op == IR_MAX ? -INFINITY : INFINITY);
  int bits = ir_dtype_bits(t);
  if (ir_is_unsigned(t)) return ix_int(ctx, t, op == IR_MAX ? 0 : -1);
  return ix_int(ctx, t, op == IR_MAX ? INT64_MIN >> (64 - bits) : INT64_MAX >> (64 - bits));
}

static void reduce_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *ib = lw_b(b);
  const reduction *r = reduction_of(n);
  const ir_value *x = n->in[0];
  tn_dtype t = x->dtype, ct = lw_compute_type(t);
  bool reduced[IR_MAX_RANK], order = r->op == IR_MAX || r->op == IR_MIN;
  if (order) ct = t;
  /* logarithms of integers are taken in f64 */
  if (r->finish == FINISH_LOG_SUM_EXP && !ir_is_float(t)) ct = TN_F64;
  ix o[IR_MAX_RANK], at[IR_MAX_RANK], top = NULL;
  lw_reduced_axes(ctx, n, reduced);
  int outer = open_kept(b, n, reduced, o, at), inner;
  if (r->finish == FINISH_LOG_SUM_EXP) { /* log sum exp(x) = top + log sum exp(x - top), top the largest finite */
    ir_buf *max = ib_local(ib, "max", ct, ix_float(ctx, ct, -INFINITY));
    inner = open_reduced(b, n, reduced, at);
    ib_update(ib, max, NULL, IR_MAX, ix_cast(ctx, ct, lw_in(b, n, 0, at)));
    ib_end_n(ib, inner);
    top = ib_let(ib, "top", ib_get(ib, max));
    ix finite = ix_lt(ctx, ix_unary(ctx, IX_ABS, top), ix_float(ctx, ct, INFINITY));
    top = ib_let(ib, "shift", ix_select(ctx, finite, top, lw_zero(ctx, ct)));
  }
  ir_buf *acc = ib_local(ib, "acc", ct, start_of(ctx, r->op, ct)), *nan = NULL;
  /* max and min drop a NaN that comes before a number: remember it */
  if (order && ir_is_float(t)) nan = ib_local(ib, "nan", TN_BOOL, ix_bool(ctx, false));
  inner = open_reduced(b, n, reduced, at);
  ix e = ix_cast(ctx, ct, lw_in(b, n, 0, at));
  if (nan || r->term == TERM_SQUARE) e = e->op == IX_LOAD ? e : ib_let(ib, "e", e);
  if (nan) ib_update(ib, nan, NULL, IR_OR, ix_ne(ctx, e, e));
  if (top) e = ix_unary(ctx, IX_EXP, ix_sub(ctx, e, top));
  if (r->term == TERM_ABS) e = ix_unary(ctx, IX_ABS, e);
  if (r->term == TERM_SQUARE) e = ix_mul(ctx, e, e);
  if (t == TN_BOOL) ib_set(ib, acc, r->op == IR_MAX ? ix_or(ctx, ib_get(ib, acc), e) : ix_and(ctx, ib_get(ib, acc), e));
  else ib_update(ib, acc, NULL, r->op, e);
  ib_end_n(ib, inner);
  ix v = ib_get(ib, acc);
  if (nan) v = ix_select(ctx, ib_get(ib, nan), ix_float(ctx, t, NAN), v);
  if ((r->finish == FINISH_SQRT || r->finish == FINISH_LOG) && !ir_is_float(ct)) v = ix_cast(ctx, TN_F64, v);
  switch (r->finish) {
  case FINISH_NONE: break;
  case FINISH_MEAN: {
    ix count = ix_index(ctx, 1);
    for (int i = 0; i < x->rank; i++)
      if (reduced[i]) count = ix_mul(ctx, count, x->dims[i]);
    v = ix_div(ctx, v, ix_cast(ctx, ct, count));
    break;
  }
  case FINISH_SQRT: v = ix_unary(ctx, IX_SQRT, v); break;
  case FINISH_LOG: v = ix_unary(ctx, IX_LOG, v); break;
  case FINISH_LOG_SUM_EXP: v = ix_add(ctx, top, ix_unary(ctx, IX_LOG, v)); break;
  }
  lw_out(b, n, 0, o, ix_cast(ctx, t, v));
  ib_end_n(ib, outer);
}

/* ---- ArgMax, ArgMin: the place of the first (or last) extreme; a NaN counts as extreme ---- */

static void arg_axis(tn_ctx *ctx, const ir_node *n, bool *reduced) {
  memset(reduced, 0, IR_MAX_RANK * sizeof *reduced);
  reduced[ir_axis(ctx, n, ir_attr_get_int(n, "axis", 0), n->in[0]->rank)] = true;
}

static void arg_infer(tn_ctx *ctx, ir_node *n) {
  bool reduced[IR_MAX_RANK];
  if (n->in[0]->rank == 0) lw_bad(ctx, n, "the input has rank 0");
  arg_axis(ctx, n, reduced);
  for (int i = 0; i < n->in[0]->rank; i++)
    if (reduced[i] && ix_is_int(n->in[0]->dims[i], 0)) lw_bad(ctx, n, "axis %d is empty", i);
  set_reduced(ctx, n, TN_I64, reduced);
}

static void arg_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *ib = lw_b(b);
  const ir_value *x = n->in[0];
  bool reduced[IR_MAX_RANK], largest = strcmp(n->op->name, "ArgMax") == 0;
  bool last = ir_attr_get_int(n, "select_last_index", 0) != 0;
  arg_axis(ctx, n, reduced);
  ix o[IR_MAX_RANK], at[IR_MAX_RANK];
  int outer = open_kept(b, n, reduced, o, at), axis = 0;
  while (!reduced[axis]) axis++;
  at[axis] = ix_index(ctx, 0);
  ir_buf *best = ib_local(ib, "best", x->dtype, lw_in(b, n, 0, at)), *where = ib_local(ib, "where", TN_INDEX, at[axis]);
  at[axis] = ib_for(ib, "r", ix_index(ctx, 1), x->dims[axis]);
  ix e = ib_let(ib, "e", lw_in(b, n, 0, at)), old = ib_get(ib, best);
  ix better = largest ? ix_lt(ctx, old, e) : ix_lt(ctx, e, old);
  if (last) better = largest ? ix_le(ctx, old, e) : ix_le(ctx, e, old);
  if (ir_is_float(x->dtype)) {
    ix from_nan = last ? ix_bool(ctx, true) : ix_eq(ctx, old, old); /* the first NaN stays */
    better = ix_or(ctx, better, ix_and(ctx, ix_ne(ctx, e, e), from_nan));
  }
  ib_if(ib, better);
  ib_set(ib, best, e);
  ib_set(ib, where, at[axis]);
  ib_end(ib);
  ib_end(ib);
  lw_out(b, n, 0, o, ix_cast(ctx, TN_I64, ib_get(ib, where)));
  ib_end_n(ib, outer);
}

/* ---- CumSum, CumProd: along one axis, `exclusive`: without the element itself ---- */

static void running_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0], *axis = n->in[1];
  if (x->dtype == TN_BOOL) lw_bad(ctx, n, "an input of type bool");
  if (x->rank == 0) lw_bad(ctx, n, "the input has rank 0");
  lw_need_integer(ctx, n, 1);
  for (int i = 0; i < axis->rank; i++)
    if (ix_is_const(axis->dims[i]) && !ix_is_int(axis->dims[i], 1)) lw_bad(ctx, n, "'%s' (axis) is not a scalar", axis->name);
  if (axis->data) (void)ir_axis(ctx, n, lw_need_int(ctx, n, 1, "axis"), x->rank);
  lw_set_like(n, 0, x->dtype, x);
}

static void running_along(lw_build *b, ir_node *n, int axis) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *ib = lw_b(b);
  const ir_value *x = n->in[0];
  bool product = strcmp(n->op->name, "CumProd") == 0, exclusive = ir_attr_get_int(n, "exclusive", 0) != 0;
  tn_dtype t = x->dtype, ct = lw_compute_type(t);
  ix at[IR_MAX_RANK];
  for (int i = 0; i < x->rank; i++)
    if (i != axis) at[i] = ib_loop(ib, "i", x->dims[i]);
  ir_buf *acc = ib_local(ib, "acc", ct, ix_num(ctx, ct, product ? 1 : 0));
  ix r = ib_loop(ib, "r", x->dims[axis]);
  at[axis] = ir_attr_get_int(n, "reverse", 0) ? ix_sub(ctx, ix_addi(ctx, x->dims[axis], -1), r) : r;
  ix e = ib_let(ib, "e", ix_cast(ctx, ct, lw_in(b, n, 0, at)));
  if (exclusive) lw_out(b, n, 0, at, ix_cast(ctx, t, ib_get(ib, acc)));
  ib_update(ib, acc, NULL, product ? IR_MUL : IR_ADD, e);
  if (!exclusive) lw_out(b, n, 0, at, ix_cast(ctx, t, ib_get(ib, acc)));
  ib_end_n(ib, x->rank);
}

static void running_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  int rank = n->in[0]->rank;
  if (n->in[1]->data) {
    running_along(b, n, ir_axis(ctx, n, lw_need_int(ctx, n, 1, "axis"), rank));
    return;
  }
  ix axis = ib_let(lw_b(b), "axis", lw_data_index(ctx, lw_scalar_in(b, n, 1), ix_index(ctx, rank)));
  for (int i = 0; i < rank; i++) { /* chosen at run time: one nest for each */
    ib_if(lw_b(b), ix_eq(ctx, axis, ix_index(ctx, i)));
    running_along(b, n, i);
    ib_end(lw_b(b));
  }
}

/* ---- Det: by elimination with the largest pivot of each column ---- */

static void det_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  if (!ir_is_float(x->dtype)) lw_bad(ctx, n, "an input of type %s", ir_dtype_name(x->dtype));
  if (x->rank < 2) lw_bad(ctx, n, "the input has rank %d; matrices are needed", x->rank);
  if (ir_dim(ctx, x, -1) != ir_dim(ctx, x, -2)) lw_bad(ctx, n, "the matrices are not square");
  int64_t size = ir_dim(ctx, x, -1);
  if (size > 1024) lw_unsupported(ctx, n, "matrices of %lld rows; at most 1024", (long long)size);
  lw_set(n, 0, x->dtype, x->rank - 2, x->dims);
}

static void det_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *ib = lw_b(b);
  const ir_value *x = n->in[0];
  tn_dtype t = lw_compute_type(x->dtype);
  int batch = x->rank - 2;
  ix o[IR_MAX_RANK], size = x->dims[batch], one = ix_index(ctx, 1), shape[2] = {size, size};
  lw_loops(b, NULL, batch, x->dims, o);
  ir_buf *det = ib_local(ib, "det", t, ix_float(ctx, t, 1));
  ir_buf *m = ib_alloc(ib, "m", t, 2, shape, IR_LOCAL);
  o[batch] = ib_loop(ib, "y", size);
  o[batch + 1] = ib_loop(ib, "x", size);
  ib_store(ib, m, o + batch, ix_cast(ctx, t, lw_in(b, n, 0, o)));
  ib_end_n(ib, 2);
  ix k = ib_loop(ib, "k", size), kk[2] = {k, k};
  ir_buf *row = ib_local(ib, "row", TN_INDEX, k), *high = ib_local(ib, "high", t, ix_unary(ctx, IX_ABS, ib_load(ib, m, kk)));
  ix y = ib_for(ib, "p", ix_add(ctx, k, one), size);
  ix a = ib_let(ib, "a", ix_unary(ctx, IX_ABS, ib_load(ib, m, (ix[]){y, k})));
  ib_if(ib, ix_lt(ctx, ib_get(ib, high), a));
  ib_set(ib, high, a);
  ib_set(ib, row, y);
  ib_end(ib);
  ib_end(ib);
  ix pivot = ib_let(ib, "pivot", ib_get(ib, row));
  ib_if(ib, ix_lt(ctx, k, pivot)); /* swap the rows k and pivot */
  ib_set(ib, det, ix_unary(ctx, IX_NEG, ib_get(ib, det)));
  ix c = ib_loop(ib, "c", size), from[2] = {lw_clamp(ctx, pivot, ix_index(ctx, 0), ix_addi(ctx, size, -1)), c};
  ix held = ib_let(ib, "held", ib_load(ib, m, (ix[]){k, c}));
  ib_store(ib, m, (ix[]){k, c}, ib_load(ib, m, from));
  ib_store(ib, m, from, held);
  ib_end(ib);
  ib_end(ib);
  ix head = ib_let(ib, "head", ib_load(ib, m, kk));
  ib_set(ib, det, ix_mul(ctx, ib_get(ib, det), head));
  ib_if(ib, ix_ne(ctx, head, lw_zero(ctx, t))); /* else the determinant is 0 already */
  y = ib_for(ib, "y", ix_add(ctx, k, one), size);
  ix factor = ib_let(ib, "factor", ix_div(ctx, ib_load(ib, m, (ix[]){y, k}), head));
  c = ib_for(ib, "c", ix_add(ctx, k, one), size);
  ib_store(ib, m, (ix[]){y, c}, ix_sub(ctx, ib_load(ib, m, (ix[]){y, c}), ix_mul(ctx, factor, ib_load(ib, m, (ix[]){k, c}))));
  ib_end_n(ib, 2);
  ib_end(ib);
  ib_end(ib);
  lw_out(b, n, 0, o, ix_cast(ctx, x->dtype, ib_get(ib, det)));
  ib_end_n(ib, batch);
}

#define REDUCE(NAME, GRAD) \
  {.name = NAME, .kind = IR_OP_REDUCTION, .since = 1, .min_in = 1, .max_in = 2, .min_out = 1, .max_out = 1, .attrs = "axes:I keepdims:i noop_with_empty_axes:i", .infer = reduce_infer, .build = reduce_build, .grad_build = GRAD}
#define ARG(NAME) \
  {.name = NAME, .kind = IR_OP_REDUCTION, .since = 1, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .attrs = "axis:i keepdims:i select_last_index:i", .infer = arg_infer, .build = arg_build}
#define RUNNING(NAME, SINCE, GRAD) \
  {.name = NAME, .kind = IR_OP_KERNEL, .since = SINCE, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1, .attrs = "exclusive:i reverse:i", .infer = running_infer, .build = running_build, .grad_build = GRAD}
const ir_op lw_ops_reduce[] = {
    /* first and in the order of `reductions` */
    REDUCE("ReduceSum", lw_grad_reduce_sum), REDUCE("ReduceMean", lw_grad_reduce_mean), REDUCE("ReduceMax", lw_grad_reduce_extreme),
    REDUCE("ReduceMin", lw_grad_reduce_extreme), REDUCE("ReduceProd", lw_grad_reduce_prod), REDUCE("ReduceL1", lw_grad_reduce_l1),
    REDUCE("ReduceL2", lw_grad_reduce_l2), REDUCE("ReduceSumSquare", lw_grad_reduce_sum_square), REDUCE("ReduceLogSum", lw_grad_reduce_log_sum),
    REDUCE("ReduceLogSumExp", lw_grad_reduce_log_sum_exp),
    ARG("ArgMax"), ARG("ArgMin"),
    RUNNING("CumSum", 11, lw_grad_cum_sum), RUNNING("CumProd", 26, lw_grad_cum_prod),
    {.name = "Det", .kind = IR_OP_KERNEL, .since = 11, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .infer = det_infer, .build = det_build, .grad_build = lw_grad_det},
    {0}};
