/* grad_math.c — gradients of elementwise ops whose rule depends on attributes or operands. */
#include "lower/grad.h"
#include <string.h>

/* Checkpoint; grad.c knows it by this rule. */
void lw_grad_checkpoint(lw_grad *d) { lw_grad_add(d, 0, d->dy[0]); }

/* x^p, exponents of another type cast. The factor of an exponent 0 is 0 also at x = 0, and so is
 * that of the logarithm there, as in PyTorch. */
void lw_grad_pow(lw_grad *d) {
  ir_graph *g = d->g;
  ir_node *n = d->n;
  ir_value *x = n->in[0], *y = n->out[0], *dy = d->dy[0], *p = lw_cast_node(g, n, n->in[1], x->dtype), *zero = lw_number(g, x, 0);
  double known;
  if (d->wanted[0]) {
    ir_value *slope = lw_op2(g, n, "Mul", p, lw_op2(g, n, "Pow", x, lw_op2(g, n, "Sub", p, lw_number(g, x, 1))));
    if (ir_known_float(p, &known)) slope = known == 0 ? zero : known == 1 ? lw_number(g, x, 1) : known == 2 ? lw_op2(g, n, "Mul", p, x) : slope;
    else slope = lw_op3(g, n, "Where", lw_op2(g, n, "Equal", p, zero), zero, slope);
    lw_grad_add(d, 0, lw_op2(g, n, "Mul", dy, slope));
  }
  if (!d->wanted[1]) return;
  ir_value *log = lw_op3(g, n, "Where", lw_op2(g, n, "Equal", x, zero), zero, lw_op1(g, n, "Log", x));
  lw_grad_add(d, 1, lw_op2(g, n, "Mul", dy, lw_op2(g, n, "Mul", y, log)));
}

/* Inside the bounds, or on them, x gets all; else the bound does. */
void lw_grad_clip(lw_grad *d) {
  ir_graph *g = d->g;
  ir_node *n = d->n;
  ir_value *x = n->in[0], *dy = d->dy[0], *zero = lw_number(g, x, 0), *through = dy;
  static const char *const attr[] = {NULL, "min", "max"}, *const beyond[] = {NULL, "Less", "Greater"};
  for (int k = 1; k < 3; k++) {
    bool there = lw_has(n, k);
    if (!there && !ir_attr_find(n, attr[k])) continue;
    ir_value *bound = there ? lw_reshape(g, n, n->in[k], 0, NULL) : lw_number(g, x, ir_attr_get_float(n, attr[k], 0));
    ir_value *cut = lw_op2(g, n, beyond[k], x, bound);
    if (there && d->wanted[k]) lw_grad_add(d, k, lw_reshape(g, n, lw_reduce_all(g, n, "ReduceSum", lw_op3(g, n, "Where", cut, dy, zero)), n->in[k]->rank, (int64_t[IR_MAX_RANK]){1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}));
    through = lw_op3(g, n, "Where", cut, zero, through);
  }
  lw_grad_add(d, 0, through);
}

void lw_grad_gelu(lw_grad *d) {
  if (strcmp(ir_attr_get_string(d->n, "approximate", "none"), "tanh") == 0)
    lw_grad_text(d, "s = a * a; t = Tanh(0.79788456080286535588 * (a + 0.044715 * (a * s)));"
                    "da = dy * (0.5 * (1 + t) + (0.5 * a) * ((1 - t * t) * (0.79788456080286535588 * (1 + 0.134145 * s))))");
  else
    lw_grad_text(d, "da = dy * (0.5 * (1 + Erf(0.70710678118654752440 * a)) + a * (0.39894228040143267794 * Exp(-(0.5 * (a * a)))))");
}

/* Min, Max of several: equal ones share. */
void lw_grad_extreme(lw_grad *d) {
  ir_graph *g = d->g;
  ir_node *n = d->n;
  ir_value *y = n->out[0], *dy = d->dy[0], *zero = lw_number(g, y, 0), **hit = IR_NEW_ARRAY(d->ctx, ir_value *, n->nin), *count = NULL;
  for (int k = 0; k < n->nin; k++) {
    hit[k] = lw_op2(g, n, "Equal", n->in[k], y);
    ir_value *one = lw_cast_node(g, n, hit[k], y->dtype);
    count = count ? lw_op2(g, n, "Add", count, one) : one;
  }
  ir_value *share = lw_op2(g, n, "Div", dy, count);
  for (int k = 0; k < n->nin; k++)
    if (d->wanted[k]) lw_grad_add(d, k, lw_op3(g, n, "Where", hit[k], share, zero));
}

/* Sum, Mean of several. */
void lw_grad_each(lw_grad *d) {
  ir_value *dy = d->dy[0];
  if (strcmp(d->n->op->name, "Mean") == 0) dy = lw_op2(d->g, d->n, "Div", dy, lw_number(d->g, dy, d->n->nin));
  for (int k = 0; k < d->n->nin; k++) lw_grad_add(d, k, dy);
}
