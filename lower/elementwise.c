/* elementwise.c — see elementwise.h. */
#include "lower/elementwise.h"
#include <math.h>
#include <string.h>

static tn_dtype type(ix e) { return (tn_dtype)e->dtype; }
static ix num(tn_ctx *c, ix like, double v) { return ix_num(c, type(like), v); }
static ix un(tn_ctx *c, ir_opcode op, ix a) { return ix_unary(c, op, a); }
/* The value of a float attribute as ONNX keeps it: rounded to f32. */
static double attr(const ir_node *n, const char *name, double otherwise) { return (float)ir_attr_get_float(n, name, otherwise); }

ix lw_nan_max(tn_ctx *c, ix a, ix b) {
  ix m = ix_max(c, a, b); /* b when either is NaN */
  return ir_is_float(type(a)) ? ix_select(c, ix_ne(c, a, a), a, m) : m;
}
ix lw_nan_min(tn_ctx *c, ix a, ix b) {
  ix m = ix_min(c, a, b);
  return ir_is_float(type(a)) ? ix_select(c, ix_ne(c, a, a), a, m) : m;
}

/* ---- one operand ---- */

ix lw_f_reciprocal(tn_ctx *c, const ir_node *n, const ix *x) { return ix_div(c, num(c, x[0], 1), x[0]); }

ix lw_f_sign(tn_ctx *c, const ir_node *n, const ix *x) {
  ix zero = num(c, x[0], 0), r = x[0]; /* zeros and NaN are their own sign */
  if (!ir_is_unsigned(type(x[0]))) r = ix_select(c, ix_lt(c, x[0], zero), num(c, x[0], -1), r);
  return ix_select(c, ix_lt(c, zero, x[0]), num(c, x[0], 1), r);
}

ix lw_f_isnan(tn_ctx *c, const ir_node *n, const ix *x) { return ix_ne(c, x[0], x[0]); }

ix lw_f_isinf(tn_ctx *c, const ir_node *n, const ix *x) {
  ix r = ix_bool(c, false);
  if (ir_attr_get_int(n, "detect_positive", 1)) r = ix_or(c, r, ix_eq(c, x[0], num(c, x[0], INFINITY)));
  if (ir_attr_get_int(n, "detect_negative", 1)) r = ix_or(c, r, ix_eq(c, x[0], num(c, x[0], -INFINITY)));
  return r;
}

ix lw_f_relu(tn_ctx *c, const ir_node *n, const ix *x) { return ix_max(c, num(c, x[0], 0), x[0]); }

ix lw_f_leaky_relu(tn_ctx *c, const ir_node *n, const ix *x) {
  ix scaled = ix_mul(c, num(c, x[0], attr(n, "alpha", 0.01)), x[0]);
  return ix_select(c, ix_lt(c, x[0], num(c, x[0], 0)), scaled, x[0]);
}

ix lw_f_thresholded_relu(tn_ctx *c, const ir_node *n, const ix *x) {
  return ix_select(c, ix_lt(c, num(c, x[0], attr(n, "alpha", 1)), x[0]), x[0], num(c, x[0], 0));
}

/* x < 0 ? scale * (exp(x) - 1) : x */
static ix elu(tn_ctx *c, ix x, double scale) {
  ix low = ix_mul(c, num(c, x, scale), un(c, IX_EXPM1, x));
  return ix_select(c, ix_lt(c, x, num(c, x, 0)), low, x);
}
ix lw_f_elu(tn_ctx *c, const ir_node *n, const ix *x) { return elu(c, x[0], attr(n, "alpha", 1)); }
ix lw_f_selu(tn_ctx *c, const ir_node *n, const ix *x) {
  double alpha = attr(n, "alpha", 1.67326319217681884765625), gamma = attr(n, "gamma", 1.05070102214813232421875);
  return ix_mul(c, num(c, x[0], gamma), elu(c, x[0], alpha));
}
ix lw_f_celu(tn_ctx *c, const ir_node *n, const ix *x) {
  ix alpha = num(c, x[0], attr(n, "alpha", 1)), zero = num(c, x[0], 0);
  ix low = ix_mul(c, alpha, un(c, IX_EXPM1, ix_div(c, x[0], alpha)));
  return ix_add(c, ix_max(c, zero, x[0]), ix_min(c, zero, low));
}

ix lw_f_gelu(tn_ctx *c, const ir_node *n, const ix *x) {
  const char *how = ir_attr_get_string(n, "approximate", "none");
  ix half = ix_mul(c, num(c, x[0], 0.5), x[0]), one = num(c, x[0], 1);
  if (strcmp(how, "none") == 0) return ix_mul(c, half, ix_add(c, one, un(c, IX_ERF, ix_mul(c, x[0], num(c, x[0], 0.70710678118654752440)))));
  if (strcmp(how, "tanh") != 0) lw_bad(c, n, "approximate '%s'", how);
  ix cube = ix_mul(c, x[0], ix_mul(c, x[0], x[0]));
  ix inner = ix_mul(c, num(c, x[0], 0.79788456080286535588), ix_add(c, x[0], ix_mul(c, num(c, x[0], 0.044715), cube)));
  return ix_mul(c, half, ix_add(c, one, un(c, IX_TANH, inner)));
}

static ix hard_sigmoid(tn_ctx *c, ix x, double alpha, double beta) {
  ix line = ix_add(c, ix_mul(c, num(c, x, alpha), x), num(c, x, beta));
  return ix_max(c, num(c, x, 0), ix_min(c, num(c, x, 1), line));
}
ix lw_f_hard_sigmoid(tn_ctx *c, const ir_node *n, const ix *x) { return hard_sigmoid(c, x[0], attr(n, "alpha", 0.2), attr(n, "beta", 0.5)); }
ix lw_f_hard_swish(tn_ctx *c, const ir_node *n, const ix *x) { return ix_mul(c, x[0], hard_sigmoid(c, x[0], 1.0 / 6, 0.5)); }
ix lw_f_swish(tn_ctx *c, const ir_node *n, const ix *x) {
  return ix_mul(c, x[0], un(c, IX_SIGMOID, ix_mul(c, num(c, x[0], attr(n, "alpha", 1)), x[0])));
}

/* log(1 + exp(x)) without overflow */
ix lw_f_softplus(tn_ctx *c, const ir_node *n, const ix *x) {
  ix tail = un(c, IX_LOG1P, un(c, IX_EXP, un(c, IX_NEG, un(c, IX_ABS, x[0]))));
  return ix_add(c, ix_max(c, num(c, x[0], 0), x[0]), tail);
}
/* x tanh(log(1 + e)) with e = exp(x): tanh is ((1 + e)^2 - 1) / ((1 + e)^2 + 1), and 1 from 20 on. */
ix lw_f_mish(tn_ctx *c, const ir_node *n, const ix *x) {
  ix e = un(c, IX_EXP, ix_min(c, num(c, x[0], 20), x[0])), m = ix_mul(c, e, ix_add(c, e, num(c, e, 2)));
  return ix_mul(c, x[0], ix_div(c, m, ix_add(c, m, num(c, m, 2))));
}
ix lw_f_softsign(tn_ctx *c, const ir_node *n, const ix *x) { return ix_div(c, x[0], ix_add(c, num(c, x[0], 1), un(c, IX_ABS, x[0]))); }

/* Integers are compared and shifted in f64, since lambd and bias need not be whole. */
ix lw_f_shrink(tn_ctx *c, const ir_node *n, const ix *x) {
  ix e = ir_is_float(type(x[0])) ? x[0] : ix_cast(c, TN_F64, x[0]);
  ix lambd = num(c, e, attr(n, "lambd", 0.5)), minus = num(c, e, -attr(n, "lambd", 0.5)), bias = num(c, e, attr(n, "bias", 0));
  ix high = ix_select(c, ix_lt(c, lambd, e), ix_sub(c, e, bias), num(c, e, 0));
  return ix_cast(c, type(x[0]), ix_select(c, ix_lt(c, e, minus), ix_add(c, e, bias), high));
}

/* ---- two operands ---- */

ix lw_f_mod(tn_ctx *c, const ir_node *n, const ix *x) {
  ix r = ix_rem(c, x[0], x[1]), zero = num(c, r, 0);
  if (ir_attr_get_int(n, "fmod", 0) || ir_is_unsigned(type(r))) return r; /* the dividend's sign */
  ix differ = ix_ne(c, ix_lt(c, r, zero), ix_lt(c, x[1], zero)); /* else the divisor's */
  return ix_select(c, ix_and(c, ix_ne(c, r, zero), differ), ix_add(c, r, x[1]), r);
}

ix lw_f_prelu(tn_ctx *c, const ir_node *n, const ix *x) {
  return ix_select(c, ix_lt(c, x[0], num(c, x[0], 0)), ix_mul(c, x[0], x[1]), x[0]);
}

ix lw_f_bitshift(tn_ctx *c, const ir_node *n, const ix *x) {
  const char *way = ir_attr_get_string(n, "direction", "");
  bool left = strcmp(way, "LEFT") == 0;
  if (!left && strcmp(way, "RIGHT") != 0) lw_bad(c, n, "direction '%s'", way);
  return ix_binary(c, left ? IX_SHL : IX_SHR, x[0], x[1]);
}

ix lw_f_greater(tn_ctx *c, const ir_node *n, const ix *x) { return ix_gt(c, x[0], x[1]); }
ix lw_f_greater_equal(tn_ctx *c, const ir_node *n, const ix *x) { return ix_ge(c, x[0], x[1]); }

/* x^y of integers, wrapping; y < 0 gives the truncated quotient 1 / x^-y (x = 0: 0). */
static ix integer_power(tn_ctx *c, ix x, ix y) {
  tn_dtype t = type(x), u = type(y);
  ix one = ix_int(c, t, 1), odd = ix_ne(c, ix_and(c, y, ix_int(c, u, 1)), ix_int(c, u, 0)), r = one, square = x;
  /* beyond 63 only 0 and 1 and -1 do not wrap, and those see the parity alone */
  ix count = ix_select(c, ix_lt(c, ix_int(c, u, 63), y), ix_select(c, odd, ix_int(c, u, 63), ix_int(c, u, 62)), y);
  for (int bit = 0; bit < 6; bit++) {
    ix has = ix_ne(c, ix_and(c, count, ix_int(c, u, 1 << bit)), ix_int(c, u, 0));
    r = ix_select(c, has, ix_mul(c, r, square), r);
    square = ix_mul(c, square, square);
  }
  if (ir_is_unsigned(u)) return r;
  ix inverse = ix_select(c, ix_eq(c, x, one), one, ix_int(c, t, 0));
  if (ir_is_signed(t)) {
    ix minus = ix_int(c, t, -1);
    inverse = ix_select(c, ix_eq(c, x, minus), ix_select(c, odd, minus, one), inverse);
  }
  return ix_select(c, ix_lt(c, y, ix_int(c, u, 0)), inverse, r);
}

ix lw_f_pow(tn_ctx *c, ix x, ix y) {
  tn_dtype t = lw_compute_type(type(x)), u = lw_compute_type(type(y));
  if (!ir_is_float(t) && !ir_is_float(u)) return integer_power(c, x, y);
  tn_dtype w = t == TN_F32 && u == TN_F32 ? TN_F32 : ir_is_float(t) && !ir_is_float(u) ? t : TN_F64;
  x = ix_cast(c, w, x);
  y = ix_cast(c, w, y);
  if (ix_is_const(y)) { /* the powers that models use */
    double p = y->u.f;
    if (p == 0) return ix_float(c, w, 1);
    if (p == 1) return x;
    if (p == 2) return ix_mul(c, x, x);
    if (p == 3) return ix_mul(c, x, ix_mul(c, x, x));
    if (p == -1) return ix_div(c, ix_float(c, w, 1), x);
  }
  return ix_binary(c, IX_POW, x, y);
}

/* ---- any number ---- */

ix lw_f_min(tn_ctx *c, const ir_node *n, const ix *x) {
  ix r = x[0];
  for (int k = 1; k < n->nin; k++) r = lw_nan_min(c, r, x[k]);
  return r;
}
ix lw_f_max(tn_ctx *c, const ir_node *n, const ix *x) {
  ix r = x[0];
  for (int k = 1; k < n->nin; k++) r = lw_nan_max(c, r, x[k]);
  return r;
}
ix lw_f_sum(tn_ctx *c, const ir_node *n, const ix *x) {
  ix r = x[0];
  for (int k = 1; k < n->nin; k++) r = ix_add(c, r, x[k]);
  return r;
}
ix lw_f_mean(tn_ctx *c, const ir_node *n, const ix *x) { return ix_div(c, lw_f_sum(c, n, x), num(c, x[0], n->nin)); }
