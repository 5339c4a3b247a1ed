/* ops_matmul.c — matrix products.
 *
 * for b0 b1 .. m n { acc = 0; for k acc = fma(a[.., m, k], b[.., k, n], acc); out = acc } */
#include "lower/attend.h"
#include "lower/grad.h"
#include "lower/window.h"
#include <stdio.h>

/* ---- MatMul, MatMulInteger: numpy's matmul; tenon:MatMul: of operands that may be transposed ---- */

/* Axes of rows and columns of operand k, which may be a vector: without rows (A) or columns (B). */
static bool transposed(const ir_node *n, int k) { return ir_attr_get_int(n, k ? "transB" : "transA", 0) != 0; }
static int row_axis(const ir_node *n, int k) { return n->in[k]->rank - (transposed(n, k) ? 1 : 2); }
static int column_axis(const ir_node *n, int k) { return n->in[k]->rank - (transposed(n, k) ? 2 : 1); }

/* Output extents [batch.., m, n] as if both operands were matrices, the extent of k. */
static int product_shape(tn_ctx *ctx, const ir_node *n, ix *dims, ix *depth) {
  const ir_value *a = n->in[0], *b = n->in[1];
  if (a->rank < 1 || b->rank < 1) lw_bad(ctx, n, "an operand has rank 0");
  ix ka = a->dims[column_axis(n, 0)], kb = b->dims[b->rank > 1 ? row_axis(n, 1) : 0];
  if (ka != kb && ix_is_const(ka) && ix_is_const(kb))
    lw_bad(ctx, n, "'%s' has %s columns, '%s' has %s rows", a->name, ix_print(ctx, ka), b->name, ix_print(ctx, kb));
  *depth = ix_is_const(ka) ? ka : kb;
  int ra = a->rank > 2 ? a->rank - 2 : 0, rb = b->rank > 2 ? b->rank - 2 : 0, batch = ra > rb ? ra : rb;
  for (int i = 0; i < batch; i++) {
    ix da = i - (batch - ra) >= 0 ? a->dims[i - (batch - ra)] : ix_index(ctx, 1);
    ix db = i - (batch - rb) >= 0 ? b->dims[i - (batch - rb)] : ix_index(ctx, 1);
    dims[i] = ix_is_int(da, 1) ? db : da;
    if (dims[i] != db && !ix_is_int(db, 1))
      lw_bad(ctx, n, "batch axis %d has extents %s and %s", i, ix_print(ctx, da), ix_print(ctx, db));
  }
  dims[batch] = a->rank > 1 ? a->dims[row_axis(n, 0)] : ix_index(ctx, 1);
  dims[batch + 1] = b->rank > 1 ? b->dims[column_axis(n, 1)] : ix_index(ctx, 1);
  return batch;
}

void lw_matmul_set(tn_ctx *ctx, ir_node *n, tn_dtype t) {
  ix dims[IR_MAX_RANK], k;
  int rank = product_shape(ctx, n, dims, &k);
  ix m = dims[rank], columns = dims[rank + 1];
  if (n->in[0]->rank > 1) dims[rank++] = m;
  if (n->in[1]->rank > 1) dims[rank++] = columns;
  lw_set(n, 0, t, rank, dims);
}

static void matmul_infer(tn_ctx *ctx, ir_node *n) {
  lw_need_same_type(ctx, n, 0, 1);
  if (n->in[0]->dtype == TN_BOOL) lw_bad(ctx, n, "operands of type bool");
  for (int k = 0; k < 2; k++)
    if (transposed(n, k) && n->in[k]->rank < 2) lw_bad(ctx, n, "a vector cannot be transposed");
  lw_matmul_set(ctx, n, n->in[0]->dtype);
}

static void need_narrow(tn_ctx *ctx, const ir_node *n) {
  tn_dtype t = n->in[0]->dtype;
  lw_need_same_type(ctx, n, 0, 1);
  if (!ir_is_narrow_float(t)) lw_bad(ctx, n, "operands of type %s", ir_dtype_name(t));
}

/* Narrow floats (the second operand of a byte, the first f32), the sums f32; words (the second operand also bytes), the sums i32. */
static void matmul_wide_infer(tn_ctx *ctx, ir_node *n) {
  if (n->in[0]->dtype == TN_I16 && (n->in[1]->dtype == TN_I16 || n->in[1]->dtype == TN_I8)) {
    lw_matmul_set(ctx, n, TN_I32);
    return;
  }
  if ((n->in[0]->dtype != TN_F32 && !ir_is_byte_float(n->in[0]->dtype)) || !ir_is_byte_float(n->in[1]->dtype)) need_narrow(ctx, n);
  lw_matmul_set(ctx, n, TN_F32);
}

static void matmul_integer_infer(tn_ctx *ctx, ir_node *n) {
  for (int k = 0; k < 2; k++) {
    if (n->in[k]->dtype != TN_U8 && n->in[k]->dtype != TN_I8) lw_bad(ctx, n, "input %d is %s, not u8 or i8", k, ir_dtype_name(n->in[k]->dtype));
    if (!lw_has(n, k + 2)) continue;
    lw_need_same_type(ctx, n, k, k + 2);
    if (n->in[k + 2]->rank > n->in[k]->rank) lw_bad(ctx, n, "the zero point of input %d has rank %d", k, n->in[k + 2]->rank);
  }
  lw_matmul_set(ctx, n, TN_I32);
}

/* Operand k of MatMulInteger without its zero point: a scalar, one per row of A or per
 * column of B (1-D), or a tensor that broadcasts against the operand. */
static ix without_zero_point(lw_build *b, ir_node *n, int k, const ix *index, ix row_or_column) {
  tn_ctx *ctx = lw_ctx(b);
  ix e = ix_cast(ctx, TN_I32, lw_in(b, n, k, index));
  if (!lw_has(n, k + 2)) return e;
  const ir_value *z = n->in[k + 2];
  ix zero;
  if (z->rank == 0 || (z->rank == 1 && ix_is_int(z->dims[0], 1))) zero = lw_scalar_in(b, n, k + 2);
  else if (z->rank == 1) zero = lw_in(b, n, k + 2, &row_or_column);
  else zero = lw_in_bcast(b, n, k + 2, n->in[k]->rank, index);
  return ix_sub(ctx, e, ix_cast(ctx, TN_I32, zero));
}

ir_buf *lw_matmul_sum(lw_build *b, ir_node *n, const ix *o) {
  tn_ctx *ctx = lw_ctx(b);
  const ir_value *a = n->in[0], *w = n->in[1];
  ix dims[IR_MAX_RANK], depth, ia[IR_MAX_RANK], iw[IR_MAX_RANK], zero = ix_index(ctx, 0);
  int batch = product_shape(ctx, n, dims, &depth);
  ix m = o[batch], column = o[batch + (a->rank > 1)];
  ir_buf *acc = lw_accumulator(b, n->out[0]->dtype);
  ix k = ib_loop(lw_b(b), "k", depth);
  for (int i = 0; i < a->rank - 2; i++) ia[i] = ix_is_int(a->dims[i], 1) ? zero : o[batch - (a->rank - 2) + i];
  for (int i = 0; i < w->rank - 2; i++) iw[i] = ix_is_int(w->dims[i], 1) ? zero : o[batch - (w->rank - 2) + i];
  if (a->rank > 1) ia[row_axis(n, 0)] = m;
  ia[column_axis(n, 0)] = k;
  iw[w->rank > 1 ? row_axis(n, 1) : 0] = k;
  if (w->rank > 1) iw[column_axis(n, 1)] = column;
  bool integer = n->op->max_in == 4; /* MatMulInteger */
  ix x = integer ? without_zero_point(b, n, 0, ia, m) : lw_in(b, n, 0, ia);
  ix y = integer ? without_zero_point(b, n, 1, iw, column) : lw_in(b, n, 1, iw);
  lw_accumulate(b, acc, x, y);
  ib_end(lw_b(b));
  return acc;
}

static void matmul_build(lw_build *b, ir_node *n) {
  ir_builder *ib = lw_b(b);
  const ir_value *a = n->in[0], *w = n->in[1];
  ix dims[IR_MAX_RANK], o[IR_MAX_RANK + 1], depth;
  int batch = product_shape(lw_ctx(b), n, dims, &depth), rank = batch;
  for (int i = 0; i < batch; i++) {
    char name[16];
    snprintf(name, sizeof name, "b%d", i);
    o[i] = ib_loop(ib, name, dims[i]);
  }
  o[rank] = ix_index(lw_ctx(b), 0);
  if (a->rank > 1) o[rank++] = ib_loop(ib, "m", dims[batch]);
  o[rank] = ix_index(lw_ctx(b), 0);
  if (w->rank > 1) o[rank++] = ib_loop(ib, "n", dims[batch + 1]);
  ir_buf *acc = lw_matmul_sum(b, n, o);
  lw_out(b, n, 0, o, ix_cast(lw_ctx(b), n->out[0]->dtype, ib_get(ib, acc)));
  ib_end_n(ib, rank);
}

/* ---- Gemm: alpha * A' * B' + beta * C ---- */

static void gemm_infer(tn_ctx *ctx, ir_node *n) {
  bool ta = ir_attr_get_int(n, "transA", 0) != 0, tb = ir_attr_get_int(n, "transB", 0) != 0;
  lw_need_rank(ctx, n, 0, 2);
  lw_need_rank(ctx, n, 1, 2);
  lw_need_same_type(ctx, n, 0, 1);
  const ir_value *a = n->in[0], *b = n->in[1];
  if (a->dtype == TN_BOOL) lw_bad(ctx, n, "operands of type bool");
  ix ka = a->dims[ta ? 0 : 1], kb = b->dims[tb ? 1 : 0];
  if (ka != kb && ix_is_const(ka) && ix_is_const(kb))
    lw_bad(ctx, n, "the inner extents are %s and %s", ix_print(ctx, ka), ix_print(ctx, kb));
  ix dims[2] = {a->dims[ta ? 1 : 0], b->dims[tb ? 0 : 1]};
  if (lw_has(n, 2)) {
    const ir_value *c = n->in[2];
    lw_need_same_type(ctx, n, 0, 2);
    if (c->rank > 2) lw_bad(ctx, n, "C has rank %d", c->rank);
    for (int i = 0; i < c->rank; i++) {
      ix d = c->dims[i], e = dims[2 - c->rank + i];
      if (!ix_is_int(d, 1) && d != e && ix_is_const(d) && ix_is_const(e))
        lw_bad(ctx, n, "C has extent %s where the product has %s", ix_print(ctx, d), ix_print(ctx, e));
    }
  }
  lw_set(n, 0, a->dtype, 2, dims);
}

/* scale * e; integers are scaled in f64 and cut, as numpy does. */
static ix scaled(tn_ctx *ctx, double scale, ix e) {
  tn_dtype t = (tn_dtype)e->dtype;
  if (scale == 1) return e;
  if (ir_is_float(t)) return ix_mul(ctx, ix_float(ctx, t, scale), e);
  return ix_cast(ctx, t, ix_mul(ctx, ix_float(ctx, TN_F64, scale), ix_cast(ctx, TN_F64, e)));
}

static void gemm_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *ib = lw_b(b);
  bool ta = ir_attr_get_int(n, "transA", 0) != 0, tb = ir_attr_get_int(n, "transB", 0) != 0;
  double alpha = ir_attr_get_float(n, "alpha", 1), beta = ir_attr_get_float(n, "beta", 1);
  const ir_value *v = n->out[0];
  ix o[2], k;
  o[0] = ib_loop(ib, "m", v->dims[0]);
  o[1] = ib_loop(ib, "n", v->dims[1]);
  ir_buf *acc = lw_accumulator(b, v->dtype);
  ix depth = n->in[0]->dims[ta ? 0 : 1];
  k = ib_loop(ib, "k", ix_is_const(depth) ? depth : n->in[1]->dims[tb ? 1 : 0]);
  ix x = lw_in(b, n, 0, ta ? (ix[]){k, o[0]} : (ix[]){o[0], k});
  ix w = lw_in(b, n, 1, tb ? (ix[]){o[1], k} : (ix[]){k, o[1]});
  lw_accumulate(b, acc, x, w);
  ib_end(ib);
  ix r = scaled(ctx, alpha, ib_get(ib, acc));
  if (lw_has(n, 2) && beta != 0)
    r = ix_add(ctx, r, scaled(ctx, beta, ix_cast(ctx, acc->dtype, lw_in_bcast(b, n, 2, 2, o))));
  lw_out(b, n, 0, o, ix_cast(ctx, v->dtype, r));
  ib_end_n(ib, 2);
}

const ir_op lw_ops_matmul[] = {
    {.name = "MatMul", .kind = IR_OP_CONTRACTION, .since = 1, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1, .infer = matmul_infer, .build = matmul_build, .grad_build = lw_grad_matmul},
    {.name = "MatMul", .domain = "tenon", .kind = IR_OP_CONTRACTION, .since = 1, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1, .attrs = "transA:i transB:i", .infer = matmul_infer, .build = matmul_build, .grad_build = lw_grad_matmul},
    {.name = "MatMulInteger", .kind = IR_OP_CONTRACTION, .since = 10, .min_in = 2, .max_in = 4, .min_out = 1, .max_out = 1, .infer = matmul_integer_infer, .build = matmul_build},
    {.name = "MatMulWide", .domain = "tenon", .kind = IR_OP_CONTRACTION, .since = 1, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1, .attrs = "transA:i transB:i", .infer = matmul_wide_infer, .build = matmul_build},
    {.name = "Gemm", .kind = IR_OP_CONTRACTION, .since = 1, .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 1, .attrs = "alpha:f beta:f transA:i transB:i", .infer = gemm_infer, .build = gemm_build, .grad_build = lw_grad_gemm},
    {0}};
