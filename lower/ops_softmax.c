/* ops_softmax.c — Softmax, LogSoftmax, Hardmax.
 *
 * Since opset 13 a row is one axis (default: the last); before, all axes from `axis` on
 * (default 1). Three passes: the largest, the sum of exp(x - largest), the result. */
#include "lower/grad.h"
#include "lower/rowop.h"
#include <math.h>
#include <string.h>

static void infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  if (!ir_is_float(x->dtype)) lw_bad(ctx, n, "an input of type %s", ir_dtype_name(x->dtype));
  int64_t axis = ir_attr_get_int(n, "axis", n->opset >= 13 ? -1 : 1);
  if (n->opset >= 13 || axis != x->rank) (void)ir_axis(ctx, n, axis, x->rank);
  lw_set_like(n, 0, x->dtype, x);
}

static lw_rows rows_of(lw_build *b, ir_node *n) {
  const ir_value *x = n->in[0];
  lw_rows r = {.b = b, .n = n, .rank = x->rank, .type = lw_compute_type(x->dtype), .dims = x->dims};
  int64_t axis = ir_attr_get_int(n, "axis", n->opset >= 13 ? -1 : 1);
  if (axis == x->rank) return r; /* before opset 13: rows of one element */
  int first = ir_axis(lw_ctx(b), n, axis, x->rank);
  for (int i = first; i < x->rank && (i == first || n->opset < 13); i++) r.in_row[i] = true;
  return r;
}

static ix largest(lw_rows *r) {
  tn_ctx *ctx = lw_ctx(r->b);
  ir_builder *ib = lw_b(r->b);
  ir_buf *max = ib_local(ib, "max", r->type, ix_float(ctx, r->type, -INFINITY));
  lw_rows_pass(r);
  ib_update(ib, max, NULL, IR_MAX, lw_rows_x(r));
  lw_rows_pass_end(r);
  return ib_let(ib, "top", ib_get(ib, max));
}

static void softmax_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *ib = lw_b(b);
  bool log = strcmp(n->op->name, "LogSoftmax") == 0;
  tn_dtype t = n->out[0]->dtype;
  lw_rows r = rows_of(b, n);
  lw_rows_open(&r, !log);
  ix top = largest(&r);
  ir_buf *acc = ib_local(ib, "sum", r.type, lw_zero(ctx, r.type));
  lw_rows_pass(&r);
  ix e = ib_let(ib, "e", ix_unary(ctx, IX_EXP, ix_sub(ctx, lw_rows_x(&r), top)));
  bool kept = !log && lw_rows_put(&r, e);
  ib_update(ib, acc, NULL, IR_ADD, e);
  lw_rows_pass_end(&r);
  ix sum = ib_get(ib, acc), one = ix_float(ctx, r.type, 1);
  sum = log ? ib_let(ib, "shift", ix_unary(ctx, IX_LOG, sum)) : ib_let(ib, "scale", ix_div(ctx, one, sum));
  lw_rows_pass(&r);
  ix x = lw_rows_x(&r); /* exp(x - top) when that was kept */
  if (!kept) x = ix_sub(ctx, x, top);
  if (!log && !kept) x = ix_unary(ctx, IX_EXP, x);
  lw_out(b, n, 0, r.index, ix_cast(ctx, t, log ? ix_sub(ctx, x, sum) : ix_mul(ctx, x, sum)));
  lw_rows_pass_end(&r);
  lw_rows_close(&r);
}

/* 1 at the first of the largest, else 0. */
static void hardmax_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *ib = lw_b(b);
  tn_dtype t = n->out[0]->dtype;
  lw_rows r = rows_of(b, n);
  lw_rows_open(&r, false);
  ir_buf *max = ib_local(ib, "max", r.type, lw_zero(ctx, r.type)), *where = ib_local(ib, "where", TN_INDEX, ix_index(ctx, -1));
  lw_rows_pass(&r);
  ix at = ix_index(ctx, 0);
  for (int i = 0; i < r.rank; i++)
    if (r.in_row[i]) at = ix_add(ctx, ix_mul(ctx, at, r.dims[i]), r.index[i]);
  ix x = ib_let(ib, "x", lw_rows_x(&r));
  ib_if(ib, ix_or(ctx, ix_lt(ctx, ib_get(ib, where), ix_index(ctx, 0)), ix_lt(ctx, ib_get(ib, max), x)));
  ib_set(ib, max, x);
  ib_set(ib, where, at);
  ib_end(ib);
  lw_rows_pass_end(&r);
  ix best = ib_let(ib, "best", ib_get(ib, where));
  lw_rows_pass(&r);
  at = ix_index(ctx, 0);
  for (int i = 0; i < r.rank; i++)
    if (r.in_row[i]) at = ix_add(ctx, ix_mul(ctx, at, r.dims[i]), r.index[i]);
  lw_out(b, n, 0, r.index, ix_select(ctx, ix_eq(ctx, at, best), ix_float(ctx, t, 1), ix_float(ctx, t, 0)));
  lw_rows_pass_end(&r);
  lw_rows_close(&r);
}

#define ROW_OP(NAME, BUILD, GRAD, GRAD_BUILD) {.name = NAME, .kind = IR_OP_REDUCTION, .since = 1, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .attrs = "axis:i", .infer = infer, .build = BUILD, .grad = GRAD, .grad_build = GRAD_BUILD}
const ir_op lw_ops_softmax[] = {
    ROW_OP("Softmax", softmax_build, NULL, lw_grad_softmax),
    ROW_OP("LogSoftmax", softmax_build, NULL, lw_grad_log_softmax),
    ROW_OP("Hardmax", hardmax_build, "", NULL),
    {0}};
