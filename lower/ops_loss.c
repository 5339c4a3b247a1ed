/* ops_loss.c — losses and optimisers, as the nodes they are made of. */
#include "lower/compose.h"
#include <string.h>

/* ---- NegativeLogLikelihoodLoss, SoftmaxCrossEntropyLoss ----
 *
 * Input [N, C, d..], target [N, d..], optional weight [C]. With t the target and w the weight
 * of its class (0 where t is ignore_index): loss = -input[n, t, d..] * w, then "none", "sum",
 * or "mean" = sum(loss) / sum(w). */

static void loss_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0], *t = n->in[1];
  if (!ir_is_float(x->dtype)) lw_bad(ctx, n, "an input of type %s", ir_dtype_name(x->dtype));
  if (t->dtype != TN_I32 && t->dtype != TN_I64) lw_bad(ctx, n, "a target of type %s, not i32 or i64", ir_dtype_name(t->dtype));
  if (x->rank < 2) lw_bad(ctx, n, "the input has rank %d; N and C are needed", x->rank);
  lw_need_rank(ctx, n, 1, x->rank - 1);
  for (int i = 0; i < t->rank; i++) {
    ix d = x->dims[i ? i + 1 : 0];
    if (t->dims[i] != d && ix_is_const(t->dims[i]) && ix_is_const(d))
      lw_bad(ctx, n, "axis %d of the target has extent %s, not %s", i, ix_print(ctx, t->dims[i]), ix_print(ctx, d));
  }
  if (lw_has(n, 2)) {
    lw_need_same_type(ctx, n, 0, 2);
    lw_need_rank(ctx, n, 2, 1);
    ix d = n->in[2]->dims[0];
    if (d != x->dims[1] && ix_is_const(d) && ix_is_const(x->dims[1]))
      lw_bad(ctx, n, "%s weights for %s classes", ix_print(ctx, d), ix_print(ctx, x->dims[1]));
  }
  const char *how = ir_attr_get_string(n, "reduction", "mean");
  if (strcmp(how, "none") == 0) lw_set_like(n, 0, x->dtype, t);
  else if (strcmp(how, "sum") == 0 || strcmp(how, "mean") == 0) lw_set(n, 0, x->dtype, 0, NULL);
  else lw_bad(ctx, n, "reduction '%s' is not none, sum or mean", how);
  lw_set_like(n, 1, x->dtype, x);
}

/* The loss from log probabilities (the negated input of the likelihood loss). */
static ir_value *likelihood(ir_graph *g, ir_node *n, ir_value *log_prob) {
  ir_value *target = n->in[1], *w = NULL, *ignored = NULL, *zero = lw_number(g, log_prob, 0);
  if (lw_has_attr(n, "ignore_index")) {
    int64_t ignore = ir_attr_get_int(n, "ignore_index", 0);
    ir_value *number = lw_cast_node(g, n, lw_reshape(g, n, ir_graph_ints(g, NULL, 1, &ignore), 0, NULL), target->dtype);
    if (target->dtype == TN_I64 || (ignore >= INT32_MIN && ignore <= INT32_MAX)) {
      ignored = lw_op2(g, n, "Equal", target, number);
      target = lw_op3(g, n, "Where", ignored, lw_number(g, target, 0), target); /* any class: it does not count */
    }
  }
  int64_t dims[IR_MAX_RANK];
  for (int i = 0; i < log_prob->rank; i++) dims[i] = i == 1 ? 1 : ir_dim(g->ctx, log_prob, i);
  ir_value *at = lw_reshape(g, n, target, log_prob->rank, dims);
  ir_value *picked = lw_op2_int(g, n, "GatherElements", log_prob, at, "axis", 1);
  for (int i = 1; i < target->rank; i++) dims[i] = ir_dim(g->ctx, target, i);
  ir_value *loss = lw_op1(g, n, "Neg", lw_reshape(g, n, picked, target->rank, dims));
  if (lw_has(n, 2)) {
    w = lw_op2_int(g, n, "Gather", n->in[2], target, "axis", 0);
    loss = lw_op2(g, n, "Mul", loss, w);
  }
  if (ignored) {
    loss = lw_op3(g, n, "Where", ignored, zero, loss);
    w = lw_op3(g, n, "Where", ignored, zero, w ? w : lw_number(g, log_prob, 1));
  }
  const char *how = ir_attr_get_string(n, "reduction", "mean");
  if (strcmp(how, "none") == 0) return loss;
  if (strcmp(how, "sum") == 0) return lw_reduce_all(g, n, "ReduceSum", loss);
  if (!w) return lw_reduce_all(g, n, "ReduceMean", loss);
  return lw_op2(g, n, "Div", lw_reduce_all(g, n, "ReduceSum", loss), lw_reduce_all(g, n, "ReduceSum", w));
}

static void nll_expand(ir_graph *g, ir_node *n) { lw_replace(g, n, 0, likelihood(g, n, n->in[0])); }

static void cross_entropy_expand(ir_graph *g, ir_node *n) {
  ir_value *log_prob = lw_op1_int(g, n, "LogSoftmax", n->in[0], "axis", 1), *loss = likelihood(g, n, log_prob);
  if (n->nout > 1 && n->out[1]) lw_replace(g, n, 1, log_prob);
  if (n->out[0]) lw_replace(g, n, 0, loss);
}

/* ---- ai.onnx.preview.training: one step of an optimiser ----
 *
 * Inputs R (learning rate), T (step number), then for `count` tensors X, their gradients G
 * and their states; outputs the new X, then the new states. */

static int optimised(tn_ctx *ctx, const ir_node *n, int states) {
  int count = (n->nin - 2) / (2 + states);
  if (n->nin < 2 || count * (2 + states) != n->nin - 2 || n->nout != count * (1 + states))
    lw_bad(ctx, n, "%d inputs and %d outputs do not fit together", n->nin, n->nout);
  return count;
}

static void optimiser_infer(tn_ctx *ctx, ir_node *n, int states) {
  int count = optimised(ctx, n, states);
  for (int k = 0; k < n->nin; k++) {
    if (!lw_has(n, k)) lw_bad(ctx, n, "input %d is omitted", k);
    if (k > 1 && !ir_is_float(n->in[k]->dtype)) lw_bad(ctx, n, "input '%s' of type %s", n->in[k]->name, ir_dtype_name(n->in[k]->dtype));
  }
  lw_need_single(ctx, n, 0);
  lw_need_single(ctx, n, 1);
  for (int k = 0; k < n->nout; k++) lw_set_like(n, k, n->in[2 + k % count]->dtype, n->in[2 + k % count]);
}
static void one_state_infer(tn_ctx *ctx, ir_node *n) { optimiser_infer(ctx, n, 1); }
static void two_states_infer(tn_ctx *ctx, ir_node *n) { optimiser_infer(ctx, n, 2); }

static ir_value *scaled(ir_graph *g, ir_node *n, double factor, ir_value *v) { return lw_op2(g, n, "Mul", lw_number(g, v, factor), v); }
static ir_value *scalar(ir_graph *g, ir_node *n, ir_value *v, tn_dtype t) { return lw_reshape(g, n, lw_cast_node(g, n, v, t), 0, NULL); }

/* G' = norm_coefficient * X + G; H' = H + G'^2; X' = X - R / (1 + T decay) * G' / (sqrt(H') + epsilon) */
static void adagrad_expand(ir_graph *g, ir_node *n) {
  int count = optimised(g->ctx, n, 1);
  double norm = ir_attr_get_float(n, "norm_coefficient", 0), eps = ir_attr_get_float(n, "epsilon", 1e-6), decay = ir_attr_get_float(n, "decay_factor", 0);
  for (int i = 0; i < count; i++) {
    ir_value *x = n->in[2 + i], *grad = n->in[2 + count + i], *h = n->in[2 + 2 * count + i];
    ir_value *rate = scalar(g, n, n->in[0], x->dtype), *step = scalar(g, n, n->in[1], x->dtype);
    rate = lw_op2(g, n, "Div", rate, lw_op2(g, n, "Add", scaled(g, n, decay, step), lw_number(g, x, 1)));
    grad = lw_op2(g, n, "Add", scaled(g, n, norm, x), grad);
    h = lw_op2(g, n, "Add", h, lw_op2(g, n, "Mul", grad, grad));
    ir_value *by = lw_op2(g, n, "Div", grad, lw_op2(g, n, "Add", lw_op1(g, n, "Sqrt", h), lw_number(g, x, eps)));
    if (n->out[i]) lw_replace(g, n, i, lw_op2(g, n, "Sub", x, lw_op2(g, n, "Mul", rate, by)));
    if (n->out[count + i]) lw_replace(g, n, count + i, h);
  }
}

/* G' = norm_coefficient * X + G; V' = alpha V + beta G' (beta 1 at step 0);
 * X' = X - R V' ("standard") or X - R (G' + alpha V') ("nesterov") */
static void momentum_expand(ir_graph *g, ir_node *n) {
  int count = optimised(g->ctx, n, 1);
  double norm = ir_attr_get_float(n, "norm_coefficient", 0), alpha = ir_attr_get_float(n, "alpha", 0), beta = ir_attr_get_float(n, "beta", 0);
  const char *mode = ir_attr_get_string(n, "mode", "standard");
  bool nesterov = strcmp(mode, "nesterov") == 0;
  if (!nesterov && strcmp(mode, "standard") != 0) lw_bad(g->ctx, n, "mode '%s' is not standard or nesterov", mode);
  for (int i = 0; i < count; i++) {
    ir_value *x = n->in[2 + i], *grad = n->in[2 + count + i], *v = n->in[2 + 2 * count + i];
    ir_value *rate = scalar(g, n, n->in[0], x->dtype), *step = scalar(g, n, n->in[1], x->dtype);
    ir_value *b = lw_op3(g, n, "Where", lw_op2(g, n, "Greater", step, lw_number(g, x, 0)), lw_number(g, x, beta), lw_number(g, x, 1));
    grad = lw_op2(g, n, "Add", scaled(g, n, norm, x), grad);
    v = lw_op2(g, n, "Add", scaled(g, n, alpha, v), lw_op2(g, n, "Mul", b, grad));
    ir_value *by = nesterov ? lw_op2(g, n, "Add", grad, scaled(g, n, alpha, v)) : v;
    if (n->out[i]) lw_replace(g, n, i, lw_op2(g, n, "Sub", x, lw_op2(g, n, "Mul", rate, by)));
    if (n->out[count + i]) lw_replace(g, n, count + i, v);
  }
}

/* G' = norm_coefficient * X + G; V' = alpha V + (1 - alpha) G'; H' = beta H + (1 - beta) G'^2;
 * X' = (1 - norm_coefficient_post) (X - R' V' / (sqrt(H') + epsilon)) with
 * R' = R sqrt(1 - beta^T) / (1 - alpha^T), or R at step 0 */
static void adam_expand(ir_graph *g, ir_node *n) {
  int count = optimised(g->ctx, n, 2);
  double norm = ir_attr_get_float(n, "norm_coefficient", 0), post = ir_attr_get_float(n, "norm_coefficient_post", 0);
  double alpha = ir_attr_get_float(n, "alpha", 0.9), beta = ir_attr_get_float(n, "beta", 0.999), eps = ir_attr_get_float(n, "epsilon", 1e-6);
  for (int i = 0; i < count; i++) {
    ir_value *x = n->in[2 + i], *grad = n->in[2 + count + i], *v = n->in[2 + 2 * count + i], *h = n->in[2 + 3 * count + i];
    ir_value *rate = scalar(g, n, n->in[0], x->dtype), *step = scalar(g, n, n->in[1], x->dtype), *one = lw_number(g, x, 1);
    grad = lw_op2(g, n, "Add", scaled(g, n, norm, x), grad);
    v = lw_op2(g, n, "Add", scaled(g, n, alpha, v), scaled(g, n, 1 - alpha, grad));
    h = lw_op2(g, n, "Add", scaled(g, n, beta, h), scaled(g, n, 1 - beta, lw_op2(g, n, "Mul", grad, grad)));
    ir_value *left_v = lw_op2(g, n, "Sub", one, lw_op2(g, n, "Pow", lw_number(g, x, alpha), step));
    ir_value *left_h = lw_op1(g, n, "Sqrt", lw_op2(g, n, "Sub", one, lw_op2(g, n, "Pow", lw_number(g, x, beta), step)));
    ir_value *later = lw_op2(g, n, "Div", lw_op2(g, n, "Mul", rate, left_h), left_v);
    rate = lw_op3(g, n, "Where", lw_op2(g, n, "Greater", step, lw_number(g, x, 0)), later, rate);
    ir_value *by = lw_op2(g, n, "Div", lw_op2(g, n, "Mul", rate, v), lw_op2(g, n, "Add", lw_op1(g, n, "Sqrt", h), lw_number(g, x, eps)));
    if (n->out[i]) lw_replace(g, n, i, scaled(g, n, 1 - post, lw_op2(g, n, "Sub", x, by)));
    if (n->out[count + i]) lw_replace(g, n, count + i, v);
    if (n->out[2 * count + i]) lw_replace(g, n, 2 * count + i, h);
  }
}

#define LOSS(NAME, SINCE, MOST, EXPAND) \
  {.name = NAME, .kind = IR_OP_COMPOSITE, .since = SINCE, .min_in = 2, .max_in = 3, .min_out = 1, .max_out = MOST, .attrs = "ignore_index:i reduction:s", .infer = loss_infer, .expand = EXPAND}
#define OPTIMISER(NAME, ATTRS, INFER, EXPAND) \
  {.name = NAME, .domain = "ai.onnx.preview.training", .kind = IR_OP_COMPOSITE, .since = 1, .min_in = 3, .max_in = -1, .min_out = 1, .max_out = -1, .attrs = ATTRS, .infer = INFER, .expand = EXPAND}
const ir_op lw_ops_loss[] = {
    LOSS("NegativeLogLikelihoodLoss", 12, 1, nll_expand),
    LOSS("SoftmaxCrossEntropyLoss", 12, 2, cross_entropy_expand),
    OPTIMISER("Adagrad", "decay_factor:f epsilon:f norm_coefficient:f", one_state_infer, adagrad_expand),
    OPTIMISER("Momentum", "alpha:f beta:f mode:s norm_coefficient:f", one_state_infer, momentum_expand),
    OPTIMISER("Adam", "alpha:f beta:f epsilon:f norm_coefficient:f norm_coefficient_post:f", two_states_infer, adam_expand),
    {0}};
