/* ops_elementwise.c — ops whose output element depends on one element of each operand.
 *
 * A row of OPS below says everything about an op: its operand types, and either the
 * scalar operation it is or a formula over the operands' elements. A formula computes in
 * the operands' compute type (f32 for f16 and bf16), and its result is cast to the
 * output's type. Operands broadcast as numpy's do. */
#include "lower/elementwise.h"
#include "lower/grad.h"
#include <string.h>

/*    name, since, inputs (-1: any number), attributes, operand types, scalar operation or 0, formula, result, gradient as text, as a function
 * Types: f floats, i signed, u unsigned integers, b bool. Result: S as the first operand, B bool. */
#define OPS(X)                                                                         \
  X("Abs", 1, 1, "", "fiu", IX_ABS, 0, S, "da = dy * Sign(a)", 0) \
  X("Neg", 1, 1, "", "fi", IX_NEG, 0, S, "da = -dy", 0) \
  X("Not", 1, 1, "", "b", IX_NOT, 0, S, 0, 0) \
  X("BitwiseNot", 18, 1, "", "iu", IX_NOT, 0, S, 0, 0) \
  X("Sqrt", 1, 1, "", "f", IX_SQRT, 0, S, "da = dy / (2 * y)", 0) \
  X("Floor", 1, 1, "", "f", IX_FLOOR, 0, S, "", 0) \
  X("Ceil", 1, 1, "", "f", IX_CEIL, 0, S, "", 0) \
  X("Round", 11, 1, "", "f", IX_ROUND, 0, S, "", 0) \
  X("Exp", 1, 1, "", "f", IX_EXP, 0, S, "da = dy * y", 0) \
  X("Log", 1, 1, "", "f", IX_LOG, 0, S, "da = dy / a", 0) \
  X("Sin", 7, 1, "", "f", IX_SIN, 0, S, "da = dy * Cos(a)", 0) \
  X("Cos", 7, 1, "", "f", IX_COS, 0, S, "da = -(dy * Sin(a))", 0) \
  X("Tan", 7, 1, "", "f", IX_TAN, 0, S, "da = dy * (1 + y * y)", 0) \
  X("Asin", 7, 1, "", "f", IX_ASIN, 0, S, "da = dy / Sqrt(1 - a * a)", 0) \
  X("Acos", 7, 1, "", "f", IX_ACOS, 0, S, "da = -(dy / Sqrt(1 - a * a))", 0) \
  X("Atan", 7, 1, "", "f", IX_ATAN, 0, S, "da = dy / (1 + a * a)", 0) \
  X("Sinh", 9, 1, "", "f", IX_SINH, 0, S, "da = dy * Cosh(a)", 0) \
  X("Cosh", 9, 1, "", "f", IX_COSH, 0, S, "da = dy * Sinh(a)", 0) \
  X("Tanh", 1, 1, "", "f", IX_TANH, 0, S, "da = dy * (1 - y * y)", 0) \
  X("Asinh", 9, 1, "", "f", IX_ASINH, 0, S, "da = dy / Sqrt(a * a + 1)", 0) \
  X("Acosh", 9, 1, "", "f", IX_ACOSH, 0, S, "da = dy / Sqrt(a * a - 1)", 0) \
  X("Atanh", 9, 1, "", "f", IX_ATANH, 0, S, "da = dy / (1 - a * a)", 0) \
  X("Erf", 9, 1, "", "f", IX_ERF, 0, S, "da = dy * (1.1283791670955126 * Exp(-(a * a)))", 0) \
  X("Sigmoid", 1, 1, "", "f", IX_SIGMOID, 0, S, "da = dy * (y * (1 - y))", 0) \
  X("Reciprocal", 1, 1, "", "f", 0, lw_f_reciprocal, S, "da = -(dy * (y * y))", 0) \
  X("Sign", 9, 1, "", "fiu", 0, lw_f_sign, S, "", 0) \
  X("IsNaN", 9, 1, "", "f", 0, lw_f_isnan, B, 0, 0) \
  X("IsInf", 10, 1, "detect_negative:i detect_positive:i", "f", 0, lw_f_isinf, B, 0, 0) \
  X("Relu", 1, 1, "", "fiu", 0, lw_f_relu, S, "da = Where(y <= 0, 0, dy)", 0) \
  X("LeakyRelu", 1, 1, "alpha:f", "f", 0, lw_f_leaky_relu, S, "da = Where(a > 0, dy, dy * $alpha=0.01)", 0) \
  X("ThresholdedRelu", 10, 1, "alpha:f", "f", 0, lw_f_thresholded_relu, S, "da = Where(a > $alpha=1, dy, 0)", 0) \
  X("Elu", 1, 1, "alpha:f", "f", 0, lw_f_elu, S, "da = Where(a > 0, dy, dy * ($alpha=1 * Exp(Min(a, 0))))", 0) \
  X("Selu", 1, 1, "alpha:f gamma:f", "f", 0, lw_f_selu, S, "g = dy * $gamma=1.05070102214813232421875; da = Where(a > 0, g, g * ($alpha=1.67326319217681884765625 * Exp(Min(a, 0))))", 0) \
  X("Celu", 12, 1, "alpha:f", "f", 0, lw_f_celu, S, "da = Where(a > 0, dy, dy * Exp(Min(a, 0) / $alpha=1))", 0) \
  X("Gelu", 20, 1, "approximate:s", "f", 0, lw_f_gelu, S, 0, lw_grad_gelu) \
  X("HardSigmoid", 1, 1, "alpha:f beta:f", "f", 0, lw_f_hard_sigmoid, S, "da = Where(y > 0, Where(y < 1, dy * $alpha=0.2, 0), 0)", 0) \
  X("HardSwish", 14, 1, "", "f", 0, lw_f_hard_swish, S, "da = Where(a > -3, Where(a < 3, dy * (a / 3 + 0.5), dy), 0)", 0) \
  X("Swish", 24, 1, "alpha:f", "f", 0, lw_f_swish, S, "s = Sigmoid($alpha=1 * a); da = dy * (s + $alpha=1 * (y * (1 - s)))", 0) \
  X("Mish", 18, 1, "", "f", 0, lw_f_mish, S, "t = Tanh(Softplus(a)); da = dy * (t + a * ((1 - t * t) * Sigmoid(a)))", 0) \
  X("Softplus", 1, 1, "", "f", 0, lw_f_softplus, S, "da = dy * Sigmoid(a)", 0) \
  X("Softsign", 1, 1, "", "f", 0, lw_f_softsign, S, "t = 1 + Abs(a); da = dy / (t * t)", 0) \
  X("Shrink", 9, 1, "bias:f lambd:f", "fiu", 0, lw_f_shrink, S, "da = Where(Abs(a) > $lambd=0.5, dy, 0)", 0) \
  X("Add", 1, 2, "", "fiu", IX_ADD, 0, S, "da = dy; db = dy", 0) \
  X("Sub", 1, 2, "", "fiu", IX_SUB, 0, S, "da = dy; db = -dy", 0) \
  X("Mul", 1, 2, "", "fiu", IX_MUL, 0, S, "da = dy * b; db = dy * a", 0) \
  X("Div", 1, 2, "", "fiu", IX_DIV, 0, S, "da = dy / b; db = -(dy * (y / b))", 0) \
  X("Mod", 10, 2, "fmod:i", "fiu", 0, lw_f_mod, S, "da = dy; db = -(dy * Round((a - y) / b))", 0) \
  X("PRelu", 1, 2, "", "fiu", 0, lw_f_prelu, S, "da = Where(a > 0, dy, dy * b); db = Where(a > 0, 0, dy * a)", 0) \
  X("BitShift", 11, 2, "direction:s", "iu", 0, lw_f_bitshift, S, 0, 0) \
  X("And", 1, 2, "", "b", IX_AND, 0, S, 0, 0) \
  X("Or", 1, 2, "", "b", IX_OR, 0, S, 0, 0) \
  X("Xor", 1, 2, "", "b", IX_XOR, 0, S, 0, 0) \
  X("BitwiseAnd", 18, 2, "", "iu", IX_AND, 0, S, 0, 0) \
  X("BitwiseOr", 18, 2, "", "iu", IX_OR, 0, S, 0, 0) \
  X("BitwiseXor", 18, 2, "", "iu", IX_XOR, 0, S, 0, 0) \
  X("Equal", 1, 2, "", "fiub", IX_EQ, 0, B, 0, 0) \
  X("Less", 1, 2, "", "fiu", IX_LT, 0, B, 0, 0) \
  X("LessOrEqual", 12, 2, "", "fiu", IX_LE, 0, B, 0, 0) \
  X("Greater", 1, 2, "", "fiu", 0, lw_f_greater, B, 0, 0) \
  X("GreaterOrEqual", 12, 2, "", "fiu", 0, lw_f_greater_equal, B, 0, 0) \
  X("Min", 1, -1, "", "fiu", 0, lw_f_min, S, 0, lw_grad_extreme) \
  X("Max", 1, -1, "", "fiu", 0, lw_f_max, S, 0, lw_grad_extreme) \
  X("Sum", 1, -1, "", "f", 0, lw_f_sum, S, 0, lw_grad_each) \
  X("Mean", 1, -1, "", "f", 0, lw_f_mean, S, 0, lw_grad_each)

typedef struct row_info {
  const char *types;
  ir_opcode op;
  lw_formula *formula;
  char result;
} row_info;

static const row_info infos[] = {
#define X(name, since, inputs, attrs, types, op, formula, result, grad, grad_build) {types, op, formula, #result[0]},
    OPS(X)
#undef X
};

static const row_info *info_of(const ir_node *n) { return &infos[n->op - lw_ops_elementwise]; }

static bool type_allowed(const char *types, tn_dtype t) {
  char c = ir_is_float(t) ? 'f' : t == TN_BOOL ? 'b' : ir_is_signed(t) ? 'i' : 'u';
  return strchr(types, c) != NULL;
}

static void infer(tn_ctx *ctx, ir_node *n) {
  const row_info *info = info_of(n);
  for (int k = 0; k < n->nin; k++) {
    if (!lw_has(n, k)) lw_bad(ctx, n, "input %d is omitted", k);
    if (!type_allowed(info->types, n->in[k]->dtype)) lw_bad(ctx, n, "input '%s' of type %s", n->in[k]->name, ir_dtype_name(n->in[k]->dtype));
    lw_need_same_type(ctx, n, 0, k);
  }
  ix dims[IR_MAX_RANK];
  int rank = lw_broadcast(ctx, n, 0, n->nin, dims);
  lw_set(n, 0, info->result == 'B' ? TN_BOOL : n->in[0]->dtype, rank, dims);
}

static ix value(lw_build *b, ir_node *n, int out, const ix *index) {
  tn_ctx *ctx = lw_ctx(b);
  const row_info *info = info_of(n);
  ix few[3], *x = n->nin <= IR_COUNT(few) ? few : IR_NEW_ARRAY(ctx, ix, n->nin);
  for (int k = 0; k < n->nin; k++) {
    x[k] = lw_in_bcast(b, n, k, n->out[0]->rank, index);
    if (info->formula) x[k] = ix_cast(ctx, lw_compute_type((tn_dtype)x[k]->dtype), x[k]);
  }
  if (!info->formula) return ix_make(ctx, info->op, TN_NONE, n->nin, x);
  return ix_cast(ctx, n->out[0]->dtype, info->formula(ctx, n, x));
}

/* ---- ops with operands or results of their own kind ---- */

static void where_infer(tn_ctx *ctx, ir_node *n) {
  if (n->in[0]->dtype != TN_BOOL) lw_bad(ctx, n, "the condition is %s, not bool", ir_dtype_name(n->in[0]->dtype));
  lw_need_same_type(ctx, n, 1, 2);
  ix dims[IR_MAX_RANK];
  int rank = lw_broadcast(ctx, n, 0, 3, dims);
  lw_set(n, 0, n->in[1]->dtype, rank, dims);
}
static ix where_value(lw_build *b, ir_node *n, int out, const ix *index) {
  ix x[3]; /* in order: parameters are numbered by first use, whatever the C compiler */
  for (int k = 0; k < 3; k++) x[k] = lw_in_bcast(b, n, k, n->out[0]->rank, index);
  return ix_select(lw_ctx(b), x[0], x[1], x[2]);
}

/* Pow: base and exponent may differ in type; the result has the base's. */
static void pow_infer(tn_ctx *ctx, ir_node *n) {
  for (int k = 0; k < 2; k++)
    if (n->in[k]->dtype == TN_BOOL) lw_bad(ctx, n, "input '%s' of type bool", n->in[k]->name);
  ix dims[IR_MAX_RANK];
  int rank = lw_broadcast(ctx, n, 0, 2, dims);
  lw_set(n, 0, n->in[0]->dtype, rank, dims);
}
static ix pow_value(lw_build *b, ir_node *n, int out, const ix *index) {
  int rank = n->out[0]->rank;
  ix x = lw_in_bcast(b, n, 0, rank, index), y = lw_in_bcast(b, n, 1, rank, index);
  return ix_cast(lw_ctx(b), n->out[0]->dtype, lw_f_pow(lw_ctx(b), x, y));
}

/* Clip: bounds are attributes before opset 11, then optional scalar inputs. */
static void clip_infer(tn_ctx *ctx, ir_node *n) {
  if (n->in[0]->dtype == TN_BOOL) lw_bad(ctx, n, "an input of type bool");
  for (int k = 1; k < n->nin; k++) {
    if (!lw_has(n, k)) continue;
    lw_need_same_type(ctx, n, 0, k);
    for (int a = 0; a < n->in[k]->rank; a++)
      if (ix_is_const(n->in[k]->dims[a]) && !ix_is_int(n->in[k]->dims[a], 1)) lw_bad(ctx, n, "bound '%s' is not a scalar", n->in[k]->name);
  }
  lw_set_like(n, 0, n->in[0]->dtype, n->in[0]);
}
static ix clip_value(lw_build *b, ir_node *n, int out, const ix *index) {
  tn_ctx *ctx = lw_ctx(b);
  tn_dtype t = n->out[0]->dtype;
  ix x = lw_in(b, n, 0, index), lo = NULL, hi = NULL;
  if (lw_has(n, 1)) lo = lw_scalar_in(b, n, 1);
  else if (lw_has_attr(n, "min")) lo = ix_num(ctx, t, ir_attr_get_float(n, "min", 0));
  if (lw_has(n, 2)) hi = lw_scalar_in(b, n, 2);
  else if (lw_has_attr(n, "max")) hi = ix_num(ctx, t, ir_attr_get_float(n, "max", 0));
  if (lo) x = ix_max(ctx, lo, x); /* a NaN stays: min and max give their second operand */
  if (hi) x = ix_min(ctx, hi, x);
  return x;
}

static void cast_infer(tn_ctx *ctx, ir_node *n) {
  if (!lw_has_attr(n, "to")) lw_bad(ctx, n, "'to' is missing");
  lw_set_like(n, 0, lw_type_attr(ctx, n, "to", TN_NONE), n->in[0]);
}
static void cast_like_infer(tn_ctx *ctx, ir_node *n) { lw_set_like(n, 0, n->in[1]->dtype, n->in[0]); }
static ix cast_value(lw_build *b, ir_node *n, int out, const ix *index) {
  return lw_cast_value(lw_ctx(b), n, lw_in(b, n, 0, index));
}

static void bitcast_infer(tn_ctx *ctx, ir_node *n) {
  tn_dtype from = n->in[0]->dtype, to = lw_type_attr(ctx, n, "to", TN_NONE);
  if (to == TN_NONE) lw_bad(ctx, n, "'to' is missing");
  if (ir_dtype_bytes(from) != ir_dtype_bytes(to))
    lw_unsupported(ctx, n, "%s cannot be read as %s", ir_dtype_name(from), ir_dtype_name(to));
  lw_set_like(n, 0, to, n->in[0]);
}
static ix bitcast_value(lw_build *b, ir_node *n, int out, const ix *index) {
  tn_ctx *ctx = lw_ctx(b);
  ix e = lw_in(b, n, 0, index);
  tn_dtype t = n->out[0]->dtype;
  if (e->dtype == TN_BOOL) e = ix_cast(ctx, TN_U8, e); /* a byte that is 0 or 1 */
  return t == TN_BOOL ? ix_cast(ctx, t, e) : ix_bitcast(ctx, t, e);
}

/* Dropout without training: the input; the mask is all ones (bool since opset 10). */
static void dropout_infer(tn_ctx *ctx, ir_node *n) {
  if (lw_has(n, 2)) {
    double training, ratio = 0.5;
    if (!ir_known_float(n->in[2], &training)) lw_unsupported(ctx, n, "training_mode must be known when compiling");
    if (lw_has(n, 1) && !ir_known_float(n->in[1], &ratio)) ratio = 0.5;
    if (training && ratio != 0) lw_unsupported(ctx, n, "training_mode with ratio %g: only inference is supported", ratio);
  }
  lw_set_like(n, 0, n->in[0]->dtype, n->in[0]);
  lw_set_like(n, 1, n->opset >= 10 ? TN_BOOL : n->in[0]->dtype, n->in[0]);
}
static ix dropout_value(lw_build *b, ir_node *n, int out, const ix *index) {
  return out ? ix_num(lw_ctx(b), n->out[1]->dtype, 1) : lw_in(b, n, 0, index);
}

#define ELEMENTWISE(NAME, SINCE, LEAST, MOST, ATTRS, INFER, VALUE, GRAD, GRAD_BUILD) \
  {.name = NAME, .kind = IR_OP_ELEMENTWISE, .since = SINCE, .min_in = LEAST, .max_in = MOST, .min_out = 1, .max_out = 1, .attrs = ATTRS, .infer = INFER, .value = VALUE, .grad = GRAD, .grad_build = GRAD_BUILD}
const ir_op lw_ops_elementwise[] = {
#define X(name, since, inputs, attrs, types, op, formula, result, grad, grad_build) ELEMENTWISE(name, since, inputs < 0 ? 1 : inputs, inputs, attrs, infer, value, grad, grad_build),
    OPS(X) /* first: info_of counts on it */
#undef X
    ELEMENTWISE("Where", 9, 3, 3, "", where_infer, where_value, "db = Where(a, dy, 0); dc = Where(a, 0, dy)", 0),
    ELEMENTWISE("Pow", 1, 2, 2, "", pow_infer, pow_value, 0, lw_grad_pow),
    ELEMENTWISE("Clip", 1, 1, 3, "min:f max:f", clip_infer, clip_value, 0, lw_grad_clip),
    ELEMENTWISE("Cast", 1, 1, 1, "to:i saturate:i round_mode:s", cast_infer, cast_value, "da = dy", 0),
    ELEMENTWISE("CastLike", 15, 2, 2, "saturate:i round_mode:s", cast_like_infer, cast_value, "da = dy", 0),
    ELEMENTWISE("BitCast", 26, 1, 1, "to:i", bitcast_infer, bitcast_value, 0, 0),
    {.name = "Dropout", .kind = IR_OP_ELEMENTWISE, .since = 1, .min_in = 1, .max_in = 3, .min_out = 1, .max_out = 2, .attrs = "ratio:f seed:i", .infer = dropout_infer, .value = dropout_value, .grad = "da = dy"},
    {0}};
