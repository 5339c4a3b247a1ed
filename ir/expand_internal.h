/* expand_internal.h — shared by ir/expand.c and ir/expand_*.c.
 *
 * Notation of those files: x_ functions build expressions of one float width,
 * f32 or f64, chosen when the xp is made. Error bounds are in ULP of the result
 * (distance to the exact value in units of the last place), found by dense tests
 * in tests/test_expand.c, for results that are not denormal. Polynomials are
 * minimax fits (Remez exchange at 50 digits) of the named function in the named
 * weight; they were computed for this file. */
#ifndef IR_EXPAND_INTERNAL_H
#define IR_EXPAND_INTERNAL_H
#include "ir/interp.h"
#include <math.h>

typedef struct xp {
  tn_ctx *ctx;
  tn_dtype t; /* f32 or f64 */
  tn_dtype u; /* the unsigned integer of the same width */
  int mant;   /* stored mantissa bits: 23 or 52 */
  int bias;   /* of the exponent: 127 or 1023 */
} xp;

static inline xp xp_of(tn_ctx *ctx, tn_dtype t) {
  return t == TN_F64 ? (xp){ctx, TN_F64, TN_U64, 52, 1023} : (xp){ctx, TN_F32, TN_U32, 23, 127};
}
static inline bool x_wide(const xp *x) { return x->t == TN_F64; }

static inline ix x_num(const xp *x, double v) { return ix_float(x->ctx, x->t, v); }
static inline ix x_int(const xp *x, uint64_t v) { return ix_int(x->ctx, x->u, (int64_t)v); }
static inline ix x_add(const xp *x, ix a, ix b) { return ix_add(x->ctx, a, b); }
static inline ix x_sub(const xp *x, ix a, ix b) { return ix_sub(x->ctx, a, b); }
static inline ix x_mul(const xp *x, ix a, ix b) { return ix_mul(x->ctx, a, b); }
static inline ix x_div(const xp *x, ix a, ix b) { return ix_div(x->ctx, a, b); }
static inline ix x_fma(const xp *x, ix a, ix b, ix c) { return ix_fma(x->ctx, a, b, c); }
static inline ix x_neg(const xp *x, ix a) { return ix_unary(x->ctx, IX_NEG, a); }
static inline ix x_abs(const xp *x, ix a) { return ix_unary(x->ctx, IX_ABS, a); }
static inline ix x_sqrt(const xp *x, ix a) { return ix_unary(x->ctx, IX_SQRT, a); }
static inline ix x_select(const xp *x, ix c, ix a, ix b) { return ix_select(x->ctx, c, a, b); }
static inline ix x_lt(const xp *x, ix a, ix b) { return ix_lt(x->ctx, a, b); }
static inline ix x_gt(const xp *x, ix a, ix b) { return ix_gt(x->ctx, a, b); }
static inline ix x_eq(const xp *x, ix a, ix b) { return ix_eq(x->ctx, a, b); }
static inline ix x_shl(const xp *x, ix a, int n) { return ix_binary(x->ctx, IX_SHL, a, x_int(x, (uint64_t)n)); }
static inline ix x_shr(const xp *x, ix a, int n) { return ix_binary(x->ctx, IX_SHR, a, x_int(x, (uint64_t)n)); }
static inline ix x_and(const xp *x, ix a, uint64_t m) { return ix_and(x->ctx, a, x_int(x, m)); }
static inline ix x_bits(const xp *x, ix a) { return ix_bitcast(x->ctx, x->u, a); }
static inline ix x_real(const xp *x, ix bits) { return ix_bitcast(x->ctx, x->t, bits); }

/* lo <= a <= hi; a NaN stays: min and max give their second operand then. */
static inline ix x_clamp(const xp *x, double lo, ix a, double hi) {
  if (lo > -INFINITY) a = ix_max(x->ctx, x_num(x, lo), a);
  return hi < INFINITY ? ix_min(x->ctx, x_num(x, hi), a) : a;
}
/* c[0] z^(n-1) + ... + c[n-1], by Horner. */
static inline ix x_poly(const xp *x, ix z, int n, const double *c) {
  ix p = x_num(x, c[0]);
  for (int i = 1; i < n; i++) p = x_fma(x, p, z, x_num(x, c[i]));
  return p;
}
#define X_POLY(x, z, c) x_poly((x), (z), IR_COUNT(c), (c))

static inline uint64_t x_sign_mask(const xp *x) { return 1ull << (ir_dtype_bits(x->t) - 1); }
/* a >= 0 (or its sign free to be set) with the sign of s put in. */
static inline ix x_with_sign(const xp *x, ix a, ix s) {
  return x_real(x, ix_or(x->ctx, x_bits(x, a), x_and(x, x_bits(x, s), x_sign_mask(x))));
}

/* t = a * scale + magic rounds a * scale to an integer n and leaves n + offset in the
 * low bits of t: *bits. Returns n as a float. |n| < 2^(mant-2). */
ix x_round_bits(const xp *x, ix a, double scale, int offset, ix *bits);
ix x_exp(const xp *x, ix a);            /* <= 1.1 ULP (f64: 1.1) */
/* exp(hi + lo), |lo| tiny: for pow. */
ix x_exp2terms(const xp *x, ix hi, ix lo);
ix x_expm1(const xp *x, ix a);
ix x_log(const xp *x, ix a);
ix x_log1p(const xp *x, ix a);
ix x_sin(const xp *x, ix a);
ix x_cos(const xp *x, ix a);
ix x_tan(const xp *x, ix a);   /* f64 only, as all below */
ix x_asin(const xp *x, ix a);
ix x_acos(const xp *x, ix a);
ix x_atan(const xp *x, ix a);
ix x_sinh(const xp *x, ix a);
ix x_cosh(const xp *x, ix a);
ix x_asinh(const xp *x, ix a);
ix x_acosh(const xp *x, ix a);
ix x_atanh(const xp *x, ix a);
ix x_pow(const xp *x, ix a, ix b);
/* a > 0 finite = 2^e * (1 + f), 1 + f in [sqrt(1/2), sqrt(2)); for denormals as well. */
void x_split(const xp *x, ix a, bool denormals, ix *e, ix *f, ix *biased);
#endif
