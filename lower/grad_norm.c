/* grad_norm.c — gradients of normalisations.
 *
 * With h = (x - mean) * inverse over rows of N elements and g the gradient of h:
 *   dx = inverse * (g - mean(g) - h * mean(g * h))        (Ioffe and Szegedy 2015, sec. 3)
 * Batch and layer normalisation have that as their rule, from the statistics that the forward
 * kernel keeps as further outputs. The others are differentiated through their parts. */
#include "lower/grad.h"
#include <math.h>
#include <string.h>

typedef struct maker { /* nodes in place of n */
  ir_graph *g;
  ir_node *n;
} maker;
static ir_value *op1(maker m, const char *op, ir_value *a) { return lw_op1(m.g, m.n, op, a); }
static ir_value *op2(maker m, const char *op, ir_value *a, ir_value *b) { return lw_op2(m.g, m.n, op, a, b); }
static ir_value *add(maker m, ir_value *a, ir_value *b) { return op2(m, "Add", a, b); }
static ir_value *sub(maker m, ir_value *a, ir_value *b) { return op2(m, "Sub", a, b); }
static ir_value *mul(maker m, ir_value *a, ir_value *b) { return op2(m, "Mul", a, b); }
static ir_value *times(maker m, ir_value *a, double v) { return v == 1 ? a : mul(m, a, lw_number(m.g, a, v)); }

static ir_value *mean_over(maker m, ir_value *v, int count, const int64_t *axes) {
  return lw_op2_int(m.g, m.n, "ReduceMean", v, ir_graph_ints(m.g, NULL, count, axes), "keepdims", 1);
}
static ir_value *epsilon(maker m, const ir_value *like) { return lw_number(m.g, like, (float)ir_attr_get_float(m.n, "epsilon", 1e-5)); }
static ir_value *inverse_of(maker m, ir_value *variance) { return op1(m, "Reciprocal", op1(m, "Sqrt", add(m, variance, epsilon(m, variance)))); }

/* A vector over axis 1 of a value of that rank. */
static ir_value *per_channel(maker m, ir_value *v, int rank) {
  int64_t dims[IR_MAX_RANK];
  for (int i = 0; i < rank; i++) dims[i] = 1;
  dims[rank > 1] = ir_dim(m.g->ctx, v, 0);
  return lw_reshape(m.g, m.n, v, rank, dims);
}

/* (x - mean) / sqrt(variance + epsilon) over the axes, from parts; without the mean if `rms`. */
static ir_value *normalised(maker m, ir_value *x, int count, const int64_t *axes, bool rms) {
  ir_value *c = rms ? x : sub(m, x, mean_over(m, x, count, axes));
  return mul(m, c, inverse_of(m, mean_over(m, mul(m, c, c), count, axes)));
}

/* ---- rules ---- */

/* dx as above, plus what the statistics themselves got (null: nothing). `h`, `inverse`: see the head. */
static ir_value *through_rows(maker m, ir_value *h, ir_value *inverse, ir_value *g, int count, const int64_t *axes, ir_value *dmean, ir_value *dinverse) {
  double rows = 1;
  for (int i = 0; i < count; i++) rows *= (double)ir_dim(m.g->ctx, h, (int)axes[i]);
  ir_value *dx = NULL;
  if (g) {
    ir_value *gh = mean_over(m, mul(m, g, h), count, axes);
    dx = mul(m, inverse, sub(m, sub(m, g, mean_over(m, g, count, axes)), mul(m, h, gh)));
  }
  if (dmean) dmean = times(m, dmean, 1 / rows), dx = dx ? add(m, dx, dmean) : dmean;
  if (dinverse) { /* d inverse / dx = -inverse^2 h / N */
    ir_value *v = times(m, mul(m, mul(m, dinverse, mul(m, inverse, inverse)), h), -1 / rows);
    dx = dx ? add(m, dx, v) : v;
  }
  return dx;
}

static int other_axes(int rank, int64_t *axes) {
  int count = 0;
  for (int i = 0; i < rank; i++)
    if (i != 1) axes[count++] = i;
  return count;
}

/* tenon:BatchNormalizationTraining: outputs y, running mean and variance, mean and inverse of the batch. */
void lw_grad_batch_norm(lw_grad *d) {
  maker m = {d->g, d->n};
  ir_node *n = d->n;
  ir_value *x = n->in[0], *dy[5] = {0};
  for (int k = 0; k < n->nout; k++) dy[k] = d->dy[k];
  int64_t axes[IR_MAX_RANK];
  int rank = x->rank, count = other_axes(rank, axes);
  ir_value *mean = lw_grad_output(d, 3), *inverse = lw_grad_output(d, 4);
  double momentum = (float)ir_attr_get_float(n, "momentum", 0.9);
  ir_value *wide = per_channel(m, inverse, rank), *h = mul(m, sub(m, x, per_channel(m, mean, rank)), wide), *dinverse = dy[4];
  for (int k = 1; k < 3; k++) { /* running' = running * momentum + batch * (1 - momentum) */
    if (!dy[k]) continue;
    lw_grad_add(d, k + 2, times(m, dy[k], momentum));
    ir_value *v = times(m, dy[k], 1 - momentum);
    if (k == 2) { /* variance = inverse^-2 - epsilon */
      v = times(m, op2(m, "Div", v, mul(m, inverse, mul(m, inverse, inverse))), -2);
      dinverse = dinverse ? add(m, dinverse, v) : v;
    } else dy[3] = dy[3] ? add(m, dy[3], v) : v;
  }
  if (dy[0]) {
    if (d->wanted[1]) lw_grad_add(d, 1, lw_grad_sum(d->g, n, mul(m, dy[0], h), count, axes, false));
    if (d->wanted[2]) lw_grad_add(d, 2, lw_grad_sum(d->g, n, dy[0], count, axes, false));
  }
  if (!d->wanted[0]) return;
  /* the scale is one number of a row: it leaves the means */
  ir_value *front = dy[0] ? mul(m, wide, per_channel(m, n->in[1], rank)) : NULL, *dx = NULL;
  if (dy[0]) {
    ir_value *gh = mean_over(m, mul(m, dy[0], h), count, axes);
    dx = mul(m, front, sub(m, sub(m, dy[0], mean_over(m, dy[0], count, axes)), mul(m, h, gh)));
  }
  ir_value *rest = through_rows(m, h, wide, NULL, count, axes, dy[3] ? per_channel(m, dy[3], rank) : NULL, dinverse ? per_channel(m, dinverse, rank) : NULL);
  lw_grad_add(d, 0, dx);
  lw_grad_add(d, 0, rest);
}

/* Outputs y, mean, inverse; the row is all axes from `axis` on. */
void lw_grad_layer_norm(lw_grad *d) {
  maker m = {d->g, d->n};
  ir_node *n = d->n;
  ir_value *x = n->in[0], *dy = d->dy[0], *dmean = n->nout > 1 ? d->dy[1] : NULL, *dinverse = n->nout > 2 ? d->dy[2] : NULL;
  int64_t axes[IR_MAX_RANK];
  int first = ir_axis(d->ctx, n, ir_attr_get_int(n, "axis", -1), x->rank), count = 0;
  for (int i = first; i < x->rank; i++) axes[count++] = i;
  tn_dtype t = lw_compute_type(x->dtype);
  if ((n->nout < 2 || !n->out[1]) && (n->nout < 3 || !n->out[2])) ir_attr_int(n, "stash_type", lw_number_of_type(d->ctx, t));
  ir_value *mean = lw_cast_node(d->g, n, lw_grad_output(d, 1), x->dtype), *inverse = lw_cast_node(d->g, n, lw_grad_output(d, 2), x->dtype);
  ir_value *h = mul(m, sub(m, x, mean), inverse);
  if (dy) {
    if (d->wanted[1]) lw_grad_add(d, 1, mul(m, dy, h));
    if (lw_has(n, 2) && d->wanted[2]) lw_grad_add(d, 2, dy);
  }
  if (!d->wanted[0]) return;
  if (dmean) dmean = lw_cast_node(d->g, n, dmean, x->dtype);
  if (dinverse) dinverse = lw_cast_node(d->g, n, dinverse, x->dtype);
  lw_grad_add(d, 0, through_rows(m, h, inverse, dy ? mul(m, dy, n->in[1]) : NULL, count, axes, dmean, dinverse));
}

/* ---- parts ---- */

void lw_batch_norm_expand(ir_graph *g, ir_node *n) {
  maker m = {g, n};
  int rank = n->in[0]->rank;
  ir_value *scale = op2(m, "Div", n->in[1], op1(m, "Sqrt", add(m, n->in[4], epsilon(m, n->in[4]))));
  ir_value *y = mul(m, sub(m, n->in[0], per_channel(m, n->in[3], rank)), per_channel(m, scale, rank));
  for (int k = 1; k < n->nout; k++)
    if (n->out[k]) lw_replace(g, n, k, n->in[k % 2 ? 3 : 4]);
  if (n->out[0]) lw_replace(g, n, 0, add(m, y, per_channel(m, n->in[2], rank)));
}

void lw_rms_norm_expand(ir_graph *g, ir_node *n) {
  maker m = {g, n};
  ir_value *x = n->in[0];
  int64_t axes[IR_MAX_RANK];
  int count = 0;
  for (int i = ir_axis(g->ctx, n, ir_attr_get_int(n, "axis", -1), x->rank); i < x->rank; i++) axes[count++] = i;
  lw_replace(g, n, 0, mul(m, lw_cast_node(g, n, normalised(m, x, count, axes, true), n->in[1]->dtype), n->in[1]));
}

void lw_instance_norm_expand(ir_graph *g, ir_node *n) {
  maker m = {g, n};
  ir_value *x = n->in[0];
  int64_t axes[IR_MAX_RANK];
  for (int i = 2; i < x->rank; i++) axes[i - 2] = i;
  ir_value *y = mul(m, normalised(m, x, x->rank - 2, axes, false), per_channel(m, n->in[1], x->rank));
  lw_replace(g, n, 0, add(m, y, per_channel(m, n->in[2], x->rank)));
}

/* As [N, groups, rest]; scale and bias are per group before opset 21, per channel since. */
void lw_group_norm_expand(ir_graph *g, ir_node *n) {
  maker m = {g, n};
  ir_value *x = n->in[0];
  int64_t dims[IR_MAX_RANK], groups = ir_attr_get_int(n, "num_groups", 1), rows[3] = {0, groups, 1}, axis = 2;
  lw_grad_dims(g->ctx, x, dims);
  rows[0] = dims[0];
  for (int i = 1; i < x->rank; i++) rows[2] *= dims[i];
  rows[2] /= groups;
  bool each = n->opset >= 21; /* per channel */
  ir_value *y = normalised(m, lw_reshape(g, n, x, 3, rows), 1, &axis, false);
  if (each) y = lw_reshape(g, n, y, x->rank, dims);
  y = add(m, mul(m, y, per_channel(m, n->in[1], y->rank)), per_channel(m, n->in[2], y->rank));
  lw_replace(g, n, 0, lw_reshape(g, n, y, x->rank, dims));
}

void lw_lp_norm_expand(ir_graph *g, ir_node *n) {
  maker m = {g, n};
  ir_value *x = n->in[0];
  int64_t axis = ir_axis(g->ctx, n, ir_attr_get_int(n, "axis", -1), x->rank);
  const char *how = ir_attr_get_int(n, "p", 2) == 2 ? "ReduceL2" : "ReduceL1";
  ir_value *norm = lw_op2_int(g, n, how, x, ir_graph_ints(g, NULL, 1, &axis), "keepdims", 1);
  ir_value *none = op2(m, "Equal", norm, lw_number(g, x, 0));
  lw_replace(g, n, 0, op2(m, "Div", x, lw_op3(g, n, "Where", none, lw_number(g, x, 1), norm)));
}

void lw_mvn_expand(ir_graph *g, ir_node *n) {
  maker m = {g, n};
  static const int64_t usual[] = {0, 2, 3};
  const int64_t *axes = usual;
  int count = ir_attr_get_ints(n, "axes", &axes);
  if (count < 0) count = 3;
  ir_value *c = sub(m, n->in[0], mean_over(m, n->in[0], count, axes));
  ir_value *deviation = op1(m, "Sqrt", mean_over(m, mul(m, c, c), count, axes));
  lw_replace(g, n, 0, op2(m, "Div", c, add(m, deviation, lw_number(g, c, 1e-9))));
}

/* x / (bias + alpha / size * sum of squares over nearby channels)^beta: the sums by a window over channels. */
void lw_lrn_expand(ir_graph *g, ir_node *n) {
  maker m = {g, n};
  ir_value *x = n->in[0];
  int64_t dims[IR_MAX_RANK], rows[4] = {1, 1, 0, 1}, size = ir_attr_get_int(n, "size", 1), kernel[2] = {size, 1};
  int64_t pads[4] = {(size - 1) / 2, 0, size - 1 - (size - 1) / 2, 0};
  lw_grad_dims(g->ctx, x, dims);
  rows[0] = dims[0];
  rows[2] = dims[1];
  for (int i = 2; i < x->rank; i++) rows[3] *= dims[i];
  ir_value *flat = lw_reshape(g, n, x, 4, rows), *squares = mul(m, flat, flat);
  ir_node *pool = lw_node_n(g, n, "tenon:SumPool", 1, &squares, 1);
  ir_attr_ints(pool, "kernel_shape", 2, kernel);
  ir_attr_ints(pool, "pads", 4, pads);
  ir_infer(g->ctx, pool);
  ir_value *base = times(m, pool->out[0], (float)ir_attr_get_float(n, "alpha", 1e-4) / (double)size);
  base = add(m, base, lw_number(g, x, (float)ir_attr_get_float(n, "bias", 1)));
  ir_value *y = mul(m, flat, op2(m, "Pow", base, lw_number(g, x, -(float)ir_attr_get_float(n, "beta", 0.75))));
  lw_replace(g, n, 0, lw_reshape(g, n, y, x->rank, dims));
}
