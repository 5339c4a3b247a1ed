/* grad_reduce.c — gradients of reductions over axes, running sums and softmaxes. */
#include "lower/grad.h"
#include <string.h>

/* A value of the reduced shape with the reduced axes there again, of extent 1. */
static ir_value *kept(lw_grad *d, ir_value *v, const bool *reduced) {
  int64_t dims[IR_MAX_RANK];
  const ir_value *x = d->n->in[0];
  for (int i = 0; i < x->rank; i++) dims[i] = reduced[i] ? 1 : ir_dim(d->ctx, x, i);
  return lw_reshape(d->g, d->n, v, x->rank, dims);
}

static ir_value *summed(lw_grad *d, ir_value *v, const bool *reduced) {
  int64_t axes[IR_MAX_RANK];
  int count = 0;
  for (int i = 0; i < d->n->in[0]->rank; i++)
    if (reduced[i]) axes[count++] = i;
  return lw_grad_sum(d->g, d->n, v, count, axes, true);
}

static ir_value *op2(lw_grad *d, const char *op, ir_value *a, ir_value *b) { return lw_op2(d->g, d->n, op, a, b); }

/* x, y and dy of a reduction, y and dy with all axes. */
typedef struct parts {
  ir_value *x, *y, *dy;
  bool reduced[IR_MAX_RANK];
} parts;
static parts parts_of(lw_grad *d) {
  parts p = {.x = d->n->in[0]};
  lw_reduced_axes(d->ctx, d->n, p.reduced);
  p.y = kept(d, d->n->out[0], p.reduced);
  p.dy = kept(d, d->dy[0], p.reduced);
  return p;
}

void lw_grad_reduce_sum(lw_grad *d) { lw_grad_add(d, 0, parts_of(d).dy); }

void lw_grad_reduce_mean(lw_grad *d) {
  parts p = parts_of(d);
  double count = 1;
  for (int i = 0; i < p.x->rank; i++)
    if (p.reduced[i]) count *= (double)ir_dim(d->ctx, p.x, i);
  lw_grad_add(d, 0, op2(d, "Mul", p.dy, lw_number(d->g, p.dy, 1 / count)));
}

/* All that equal the extreme share, as PyTorch's amax. */
void lw_grad_reduce_extreme(lw_grad *d) {
  parts p = parts_of(d);
  ir_value *hit = op2(d, "Equal", p.x, p.y), *count = summed(d, lw_cast_node(d->g, d->n, hit, p.x->dtype), p.reduced);
  lw_grad_add(d, 0, lw_op3(d->g, d->n, "Where", hit, op2(d, "Div", p.dy, count), lw_number(d->g, p.x, 0)));
}

/* The product of the others: of all where there is no zero; at the only zero the product of the rest. */
void lw_grad_reduce_prod(lw_grad *d) {
  parts p = parts_of(d);
  ir_value *zero = lw_number(d->g, p.x, 0), *one = lw_number(d->g, p.x, 1);
  ir_value *is_zero = op2(d, "Equal", p.x, zero), *zeros = summed(d, lw_cast_node(d->g, d->n, is_zero, p.x->dtype), p.reduced);
  ir_value *filled = lw_op3(d->g, d->n, "Where", is_zero, one, p.x);
  ir_node *m = lw_node_n(d->g, d->n, "ReduceProd", d->n->nin, d->n->in, 1);
  m->in[0] = filled;
  m->opset = d->n->opset;
  m->nattrs = d->n->nattrs;
  m->attrs = d->n->attrs;
  ir_infer(d->ctx, m);
  ir_value *rest = kept(d, m->out[0], p.reduced);
  ir_value *at_zero = lw_op3(d->g, d->n, "Where", op2(d, "Equal", zeros, one), rest, zero);
  ir_value *elsewhere = lw_op3(d->g, d->n, "Where", op2(d, "Equal", zeros, zero), op2(d, "Div", rest, filled), zero);
  lw_grad_add(d, 0, op2(d, "Mul", p.dy, lw_op3(d->g, d->n, "Where", is_zero, at_zero, elsewhere)));
}

void lw_grad_reduce_l1(lw_grad *d) {
  parts p = parts_of(d);
  lw_grad_add(d, 0, op2(d, "Mul", p.dy, lw_op1(d->g, d->n, "Sign", p.x)));
}
void lw_grad_reduce_l2(lw_grad *d) { /* 0 at the origin, as PyTorch */
  parts p = parts_of(d);
  ir_value *zero = lw_number(d->g, p.x, 0), *none = op2(d, "Equal", p.y, zero);
  ir_value *norm = lw_op3(d->g, d->n, "Where", none, lw_number(d->g, p.x, 1), p.y);
  lw_grad_add(d, 0, lw_op3(d->g, d->n, "Where", none, zero, op2(d, "Mul", p.x, op2(d, "Div", p.dy, norm))));
}
void lw_grad_reduce_sum_square(lw_grad *d) {
  parts p = parts_of(d);
  lw_grad_add(d, 0, op2(d, "Mul", p.x, op2(d, "Mul", p.dy, lw_number(d->g, p.x, 2))));
}
void lw_grad_reduce_log_sum(lw_grad *d) {
  parts p = parts_of(d);
  lw_grad_add(d, 0, op2(d, "Div", p.dy, summed(d, p.x, p.reduced)));
}
void lw_grad_reduce_log_sum_exp(lw_grad *d) {
  parts p = parts_of(d);
  lw_grad_add(d, 0, op2(d, "Mul", p.dy, lw_op1(d->g, d->n, "Exp", op2(d, "Sub", p.x, p.y))));
}

/* ---- Softmax, LogSoftmax ---- */

static void row_axes(lw_grad *d, bool *in_row) {
  const ir_node *n = d->n;
  int rank = n->in[0]->rank;
  int64_t axis = ir_attr_get_int(n, "axis", n->opset >= 13 ? -1 : 1);
  for (int i = 0; i < rank; i++) in_row[i] = false;
  if (axis == rank) return; /* before opset 13: rows of one element */
  int first = ir_axis(d->ctx, n, axis, rank);
  for (int i = first; i < rank && (i == first || n->opset < 13); i++) in_row[i] = true;
}

void lw_grad_softmax(lw_grad *d) {
  bool in_row[IR_MAX_RANK];
  ir_value *y = d->n->out[0], *dy = d->dy[0];
  row_axes(d, in_row);
  lw_grad_add(d, 0, op2(d, "Mul", y, op2(d, "Sub", dy, summed(d, op2(d, "Mul", dy, y), in_row))));
}
void lw_grad_log_softmax(lw_grad *d) {
  bool in_row[IR_MAX_RANK];
  ir_value *y = d->n->out[0], *dy = d->dy[0];
  row_axes(d, in_row);
  lw_grad_add(d, 0, op2(d, "Sub", dy, op2(d, "Mul", lw_op1(d->g, d->n, "Exp", y), summed(d, dy, in_row))));
}

/* ---- CumSum, CumProd: sums along one axis, the other way ---- */

static ir_value *running(lw_grad *d, const char *op, ir_value *v, bool reverse, bool exclusive) {
  ir_node *m = lw_node_n(d->g, d->n, op, 2, (ir_value *[]){v, d->n->in[1]}, 1);
  ir_attr_int(m, "reverse", reverse);
  ir_attr_int(m, "exclusive", exclusive);
  ir_infer(d->ctx, m);
  return m->out[0];
}

void lw_grad_cum_sum(lw_grad *d) {
  bool reverse = ir_attr_get_int(d->n, "reverse", 0) != 0, exclusive = ir_attr_get_int(d->n, "exclusive", 0) != 0;
  lw_grad_add(d, 0, running(d, "CumSum", d->dy[0], !reverse, exclusive));
}

/* dx_i = sum over k after i of dy_k y_k / x_i. At the first zero: the same with 1 in its place. Behind it: 0. */
void lw_grad_cum_prod(lw_grad *d) {
  ir_graph *g = d->g;
  ir_node *n = d->n;
  ir_value *x = n->in[0], *zero = lw_number(g, x, 0), *one = lw_number(g, x, 1);
  bool reverse = ir_attr_get_int(n, "reverse", 0) != 0, exclusive = ir_attr_get_int(n, "exclusive", 0) != 0;
  ir_value *is_zero = op2(d, "Equal", x, zero), *seen = running(d, "CumSum", lw_cast_node(g, n, is_zero, x->dtype), reverse, true);
  ir_value *before = op2(d, "Equal", seen, zero), *first = op2(d, "And", is_zero, before);
  ir_value *filled = lw_op3(g, n, "Where", first, one, x);
  ir_value *at_first = running(d, "CumSum", op2(d, "Mul", d->dy[0], running(d, "CumProd", filled, reverse, exclusive)), !reverse, exclusive);
  ir_value *sums = running(d, "CumSum", op2(d, "Mul", d->dy[0], n->out[0]), !reverse, exclusive);
  ir_value *ahead = op2(d, "Div", sums, lw_op3(g, n, "Where", is_zero, one, x));
  lw_grad_add(d, 0, lw_op3(g, n, "Where", first, at_first, lw_op3(g, n, "Where", before, ahead, zero)));
}
