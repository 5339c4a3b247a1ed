/* ops_train.c — one step of an optimiser over all parameters, as the nodes it is made of.
 *
 * tenon Optimize: the rate [], the number of the step [] (from 1; omitted for sgd), then parameters
 * X.., their gradients G.. and for each further kind of state as many tensors: sgd with momentum
 * has V.., adam and adamw M.. and V... Outputs: the new X.., then the new states.
 * Formulas and defaults are PyTorch's:
 *   clip    G scaled by min(1, clip / (|all G| + 1e-6))
 *   sgd     G += decay X; V' = momentum V + G; X' = X - rate V' (nesterov: X - rate (G + momentum V'))
 *   adam    G += decay X; Kingma and Ba, "Adam", 2015, algorithm 1
 *   adamw   X (1 - rate decay) first; Loshchilov and Hutter, "Decoupled weight decay", 2019 */
#include "lower/compose.h"
#include <string.h>

typedef struct step {
  ir_graph *g;
  ir_node *n;
  int count, states;
  double decay;
  bool adam, decoupled;
} step;

static int states_of(tn_ctx *ctx, const ir_node *n) {
  const char *kind = ir_attr_get_string(n, "kind", "sgd");
  if (strcmp(kind, "adam") == 0 || strcmp(kind, "adamw") == 0) return 2;
  if (strcmp(kind, "sgd") != 0) lw_bad(ctx, n, "kind '%s' is not sgd, adam or adamw", kind);
  return ir_attr_get_float(n, "momentum", 0) != 0;
}

static void optimize_infer(tn_ctx *ctx, ir_node *n) {
  int states = states_of(ctx, n), each = 2 + states, count = (n->nin - 2) / each;
  if (n->nin - 2 != count * each || count < 1 || n->nout != count * (1 + states)) lw_bad(ctx, n, "%d operands and %d results", n->nin, n->nout);
  for (int k = 2; k < n->nin; k++) {
    const ir_value *x = n->in[2 + (k - 2) % count], *v = n->in[k];
    if (!v) lw_bad(ctx, n, "operand %d is omitted", k);
    if (!ir_is_float(x->dtype)) lw_bad(ctx, n, "'%s' of type %s cannot be trained", x->name, ir_dtype_name(x->dtype));
    bool same = v->dtype == x->dtype && v->rank == x->rank;
    for (int a = 0; same && a < x->rank; a++) same = v->dims[a] == x->dims[a];
    if (!same) lw_bad(ctx, n, "'%s' has another type or shape than '%s'", v->name, x->name);
  }
  lw_need_single(ctx, n, 0);
  for (int k = 0; k < n->nout; k++) lw_set_like(n, k, n->in[2 + k % count]->dtype, n->in[2 + k % count]);
}

#define OP1(op, a) lw_op1(s->g, s->n, op, a)
#define OP2(op, a, b) lw_op2(s->g, s->n, op, a, b)
static ir_value *times(step *s, double factor, ir_value *v) { return factor == 1 ? v : OP2("Mul", v, lw_number(s->g, v, factor)); }
static ir_value *plus(step *s, ir_value *v, double term) { return OP2("Add", v, lw_number(s->g, v, term)); }

/* What all gradients are multiplied by, in f32. */
static ir_value *clip_factor(step *s, double clip) {
  ir_value *sum = NULL;
  for (int i = 0; i < s->count; i++) {
    ir_value *square = lw_cast_node(s->g, s->n, lw_reduce_all(s->g, s->n, "ReduceSumSquare", s->n->in[2 + s->count + i]), TN_F32);
    sum = sum ? OP2("Add", sum, square) : square;
  }
  ir_value *norm = plus(s, OP1("Sqrt", sum), 1e-6);
  return OP2("Min", OP2("Div", lw_number(s->g, norm, clip), norm), lw_number(s->g, norm, 1));
}

/* 1 - beta^t, in f64: it cancels. */
static ir_value *bias(step *s, double beta) {
  ir_value *t = lw_cast_node(s->g, s->n, s->n->in[1], TN_F64);
  return OP2("Sub", lw_number(s->g, t, 1), OP2("Pow", lw_number(s->g, t, beta), t));
}

static void sgd(step *s, int i, ir_value *grad, ir_value *rate) {
  double momentum = ir_attr_get_float(s->n, "momentum", 0);
  ir_value *x = s->n->in[2 + i];
  if (momentum != 0) {
    ir_value *v = OP2("Add", times(s, momentum, s->n->in[2 + 2 * s->count + i]), grad);
    lw_replace(s->g, s->n, s->count + i, v);
    grad = ir_attr_get_int(s->n, "nesterov", 0) ? OP2("Add", grad, times(s, momentum, v)) : v;
  }
  lw_replace(s->g, s->n, i, OP2("Sub", x, OP2("Mul", rate, grad)));
}

/* size: rate / (1 - beta1^t); root: 1 / sqrt(1 - beta2^t). */
static void adam(step *s, int i, ir_value *grad, ir_value *rate, ir_value *size, ir_value *root) {
  double beta1 = ir_attr_get_float(s->n, "beta1", 0.9), beta2 = ir_attr_get_float(s->n, "beta2", 0.999);
  ir_value *x = s->n->in[2 + i], *m = s->n->in[2 + 2 * s->count + i], *v = s->n->in[2 + 3 * s->count + i];
  m = OP2("Add", times(s, beta1, m), times(s, 1 - beta1, grad));
  v = OP2("Add", times(s, beta2, v), times(s, 1 - beta2, OP2("Mul", grad, grad)));
  if (s->decoupled && s->decay != 0) x = OP2("Mul", x, OP2("Sub", lw_number(s->g, x, 1), times(s, s->decay, rate)));
  ir_value *by = plus(s, OP2("Mul", OP1("Sqrt", v), root), ir_attr_get_float(s->n, "epsilon", 1e-8));
  lw_replace(s->g, s->n, s->count + i, m);
  lw_replace(s->g, s->n, 2 * s->count + i, v);
  lw_replace(s->g, s->n, i, OP2("Sub", x, OP2("Mul", size, OP2("Div", m, by))));
}

static void optimize_expand(ir_graph *g, ir_node *n) {
  const char *kind = ir_attr_get_string(n, "kind", "sgd");
  step room = {.g = g, .n = n, .states = states_of(g->ctx, n), .decay = ir_attr_get_float(n, "decay", 0)}, *s = &room;
  s->count = (n->nin - 2) / (2 + s->states);
  s->adam = s->states == 2;
  s->decoupled = strcmp(kind, "adamw") == 0;
  double clip = ir_attr_get_float(n, "clip", 0);
  ir_value *scale = clip > 0 ? clip_factor(s, clip) : NULL, *rate = lw_reshape(g, n, n->in[0], 0, NULL), *size = NULL, *root = NULL;
  if (s->adam) {
    if (!n->in[1]) lw_bad(g->ctx, n, "the step is omitted");
    size = OP2("Div", lw_cast_node(g, n, rate, TN_F64), bias(s, ir_attr_get_float(n, "beta1", 0.9)));
    root = bias(s, ir_attr_get_float(n, "beta2", 0.999));
    root = OP2("Div", lw_number(g, root, 1), OP1("Sqrt", root));
  }
  for (int i = 0; i < s->count; i++) {
    ir_value *x = n->in[2 + i], *grad = n->in[2 + s->count + i];
    if (scale) grad = OP2("Mul", grad, lw_cast_node(g, n, scale, x->dtype));
    if (s->decay != 0 && !s->decoupled) grad = OP2("Add", grad, times(s, s->decay, x));
    ir_value *r = lw_cast_node(g, n, rate, x->dtype);
    if (s->adam) adam(s, i, grad, r, lw_cast_node(g, n, size, x->dtype), lw_cast_node(g, n, root, x->dtype));
    else sgd(s, i, grad, r);
  }
}

const ir_op lw_ops_train[] = {
    {.name = "Optimize", .domain = "tenon", .kind = IR_OP_COMPOSITE, .since = 1, .min_in = 1, .max_in = -1, .min_out = 1, .max_out = -1,
     .attrs = "kind:s momentum:f nesterov:i beta1:f beta2:f epsilon:f decay:f clip:f", .infer = optimize_infer, .expand = optimize_expand},
    {0}};
