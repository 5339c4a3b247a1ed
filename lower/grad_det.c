/* grad_det.c — gradients of determinants, det A^-T, by an op that inverts matrices:
 * d A^-1 = -A^-1 dA A^-1. A singular matrix has no finite one. */
#include "lower/grad.h"

static ir_value *turned_matrix(lw_grad *d, ir_value *v) {
  int64_t perm[IR_MAX_RANK];
  for (int i = 0; i < v->rank; i++) perm[i] = i < v->rank - 2 ? i : 2 * v->rank - 3 - i;
  return lw_transpose(d->g, d->n, v, perm);
}

void lw_grad_det(lw_grad *d) {
  int64_t dims[IR_MAX_RANK] = {0};
  lw_grad_dims(d->ctx, d->n->out[0], dims);
  dims[d->n->in[0]->rank - 2] = dims[d->n->in[0]->rank - 1] = 1;
  ir_value *v = lw_reshape(d->g, d->n, lw_op2(d->g, d->n, "Mul", d->dy[0], d->n->out[0]), d->n->in[0]->rank, dims);
  lw_grad_add(d, 0, lw_op2(d->g, d->n, "Mul", v, turned_matrix(d, lw_op1(d->g, d->n, "tenon:Inverse", d->n->in[0]))));
}

void lw_grad_inverse(lw_grad *d) {
  ir_value *t = turned_matrix(d, d->n->out[0]), *v = lw_op2(d->g, d->n, "MatMul", lw_op2(d->g, d->n, "MatMul", t, d->dy[0]), t);
  lw_grad_add(d, 0, lw_op1(d->g, d->n, "Neg", v));
}

/* ---- Inverse(A) of the last two axes: Gauss and Jordan, with the largest pivot of a column ---- */

void lw_inverse_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  if (!ir_is_float(x->dtype)) lw_bad(ctx, n, "an input of type %s", ir_dtype_name(x->dtype));
  if (x->rank < 2 || x->dims[x->rank - 1] != x->dims[x->rank - 2]) lw_bad(ctx, n, "the last two axes must be square");
  lw_set_like(n, 0, x->dtype, x);
}

void lw_inverse_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *s = lw_b(b);
  const ir_value *x = n->in[0];
  tn_dtype t = lw_compute_type(x->dtype);
  int batch = x->rank - 2;
  ix o[IR_MAX_RANK], size = x->dims[batch], one = ix_index(ctx, 1), wide = ix_muli(ctx, size, 2), shape[2] = {size, wide};
  lw_loops(b, NULL, batch, x->dims, o);
  ir_buf *m = ib_alloc(s, "m", t, 2, shape, IR_LOCAL); /* A beside what becomes its inverse */
  ix y = o[batch] = ib_loop(s, "y", size), c = o[batch + 1] = ib_loop(s, "x", size);
  ib_store(s, m, (ix[]){y, c}, ix_cast(ctx, t, lw_in(b, n, 0, o)));
  ib_store(s, m, (ix[]){y, ix_add(ctx, size, c)}, ix_select(ctx, ix_eq(ctx, y, c), ix_float(ctx, t, 1), lw_zero(ctx, t)));
  ib_end_n(s, 2);
  ix k = ib_loop(s, "k", size);
  ir_buf *row = ib_local(s, "row", TN_INDEX, k), *high = ib_local(s, "high", t, ix_unary(ctx, IX_ABS, ib_load(s, m, (ix[]){k, k})));
  y = ib_for(s, "p", ix_add(ctx, k, one), size);
  ix a = ib_let(s, "a", ix_unary(ctx, IX_ABS, ib_load(s, m, (ix[]){y, k})));
  ib_if(s, ix_lt(ctx, ib_get(s, high), a));
  ib_set(s, high, a);
  ib_set(s, row, y);
  ib_end_n(s, 2);
  ix pivot = lw_clamp(ctx, ib_let(s, "pivot", ib_get(s, row)), ix_index(ctx, 0), ix_addi(ctx, size, -1));
  ix head = ib_let(s, "head", ib_load(s, m, (ix[]){pivot, k}));
  c = ib_loop(s, "c", wide); /* the rows change places, and the pivot becomes 1 */
  ix held = ib_let(s, "held", ib_load(s, m, (ix[]){pivot, c}));
  ib_store(s, m, (ix[]){pivot, c}, ib_load(s, m, (ix[]){k, c}));
  ib_store(s, m, (ix[]){k, c}, ix_div(ctx, held, head));
  ib_end(s);
  y = ib_loop(s, "y", size);
  ib_if(s, ix_ne(ctx, y, k));
  ix factor = ib_let(s, "factor", ib_load(s, m, (ix[]){y, k}));
  c = ib_loop(s, "c", wide);
  ib_store(s, m, (ix[]){y, c}, ix_sub(ctx, ib_load(s, m, (ix[]){y, c}), ix_mul(ctx, factor, ib_load(s, m, (ix[]){k, c}))));
  ib_end_n(s, 4);
  y = o[batch] = ib_loop(s, "y", size), c = o[batch + 1] = ib_loop(s, "x", size);
  lw_out(b, n, 0, o, ix_cast(ctx, x->dtype, ib_load(s, m, (ix[]){y, ix_add(ctx, size, c)})));
  ib_end_n(s, 2 + batch);
}
