/* expand_log.c — logarithms, inverse hyperbolic functions, pow. */
#include "ir/expand_internal.h"

static const double ln2_hi64 = 0x1.62e42fefa39efp-1, ln2_lo64 = 0x1.abc9e3b39803fp-56;
static const double ln2_hi32 = 0x1.62e43p-1, ln2_lo32 = -0x1.05c61p-29;

/* Adding one_bits - sqrt_half_bits moves the border of binades to sqrt(1/2). */
void x_split(const xp *x, ix a, bool denormals, ix *e, ix *f, ix *biased) {
  uint64_t one = (uint64_t)x->bias << x->mant;
  uint64_t sqrt_half = x_wide(x) ? 0x3fe6a09e667f3bcdu : 0x3f3504f3u;
  double origin = ldexp(1, x->mant) + x->bias; /* of a biased exponent put in a mantissa */
  ix zero_at = x_num(x, origin);
  if (denormals) {
    int up = x->mant + 2;
    ix small = x_lt(x, a, x_num(x, ldexp(1, 1 - x->bias)));
    a = x_select(x, small, x_mul(x, a, x_num(x, ldexp(1, up))), a);
    zero_at = x_select(x, small, x_num(x, origin + up), zero_at);
  }
  ix i = x_add(x, x_bits(x, a), x_int(x, one - sqrt_half));
  ix eb = x_shr(x, i, x->mant);
  ix m = x_real(x, x_add(x, x_and(x, i, (1ull << x->mant) - 1), x_int(x, sqrt_half)));
  uint64_t head = (uint64_t)(x->bias + x->mant) << x->mant; /* bits of 2^mant */
  *e = x_sub(x, x_real(x, ix_or(x->ctx, eb, x_int(x, head))), zero_at);
  *f = x_sub(x, m, x_num(x, 1)); /* exact */
  if (biased) *biased = eb;
}

/* log(1+f) = f - f^2/2 + f^3 P(f) on [sqrt(1/2)-1, sqrt(2)-1]: relative error 7e-10. */
static const double log_p32[] = {0.0674662554,   -0.116756316, 0.118881532,  -0.124055898, 0.14219554,
                                 -0.16667996,    0.200021186,  -0.250000096, 0.333333126};
/* With s = f/(2+f): log(1+f) = 2s + s^3 R(s^2), |s| <= 0.1716: relative error 8e-21. */
static const double log_r64[] = {0.13251508659920436, 0.13250098297947401, 0.15387091640797916, 0.18181775645263233,
                                 0.22222222647049067, 0.28571428569084236, 0.40000000000006252, 0.66666666666666661};

/* e ln 2 + log(1 + f). */
static ix log_sum(const xp *x, ix e, ix f) {
  if (!x_wide(x)) {
    ix h = x_fma(x, f, X_POLY(x, f, log_p32), x_num(x, -0.5));
    ix tail = x_fma(x, x_mul(x, f, f), h, x_mul(x, e, x_num(x, ln2_lo32)));
    return x_fma(x, e, x_num(x, ln2_hi32), x_add(x, f, tail));
  }
  /* 2s = f - s f, and f^2/2 is split off so that the rounding of s matters little. */
  ix s = x_div(x, f, x_add(x, x_num(x, 2), f)), z = x_mul(x, s, s);
  ix half = x_mul(x, x_mul(x, f, f), x_num(x, 0.5));
  ix r = x_mul(x, z, X_POLY(x, z, log_r64));
  ix tail = x_fma(x, s, x_add(x, half, r), x_mul(x, e, x_num(x, ln2_lo64)));
  return x_fma(x, e, x_num(x, ln2_hi64), x_sub(x, f, x_sub(x, half, tail)));
}

/* r where a > at; -inf at `at`, NaN below and for NaN, inf at inf. */
static ix log_special(const xp *x, ix a, double at, ix r) {
  ix inside = x_select(x, x_lt(x, a, x_num(x, INFINITY)), r, a);
  ix outside = x_select(x, x_eq(x, a, x_num(x, at)), x_num(x, -INFINITY), x_num(x, NAN));
  return x_select(x, x_gt(x, a, x_num(x, at)), inside, outside);
}

/* <= 1 ULP (f32), 1.5 (f64), denormals included. */
ix x_log(const xp *x, ix a) {
  ix e, f;
  x_split(x, a, true, &e, &f, NULL);
  return log_special(x, a, 0, log_sum(x, e, f));
}

/* <= 1.5 ULP (f32), 2 (f64). With 1 + a ~ 2^e m: f = (1 + a) 2^-e - 1 = a 2^-e + (2^-e - 1)
 * has one rounding, whatever 1 + a lost. */
ix x_log1p(const xp *x, ix a) {
  ix e, m1, biased;
  x_split(x, x_add(x, x_num(x, 1), a), false, &e, &m1, &biased);
  ix s = x_real(x, x_shl(x, x_sub(x, x_int(x, 2 * (uint64_t)x->bias), biased), x->mant));
  ix f = x_fma(x, a, s, x_sub(x, s, x_num(x, 1)));
  ix large = x_gt(x, a, x_num(x, ldexp(1, x->mant + 7))); /* 1 + a is a, and 2^-e may underflow */
  ix r = log_sum(x, e, x_select(x, large, m1, f));
  ix tiny = x_lt(x, x_abs(x, a), x_num(x, ldexp(1, -x->mant - 2)));
  return log_special(x, a, -1, x_select(x, tiny, a, r));
}

/* ---- inverse hyperbolic functions, f64: <= 3 ULP ---- */

/* log(2a) for a large, as log1p(a) + ln 2, without overflow. */
static ix log_or_log2(const xp *x, ix large, ix a, ix arg) {
  ix l = x_log1p(x, x_select(x, large, a, arg));
  return x_add(x, l, x_select(x, large, x_num(x, ln2_hi64), x_num(x, 0)));
}

/* log(a + sqrt(a^2 + 1)) = log1p(a + a^2 / (1 + sqrt(a^2 + 1))) */
ix x_asinh(const xp *x, ix a) {
  ix m = x_abs(x, a), z = x_mul(x, m, m), one = x_num(x, 1);
  ix arg = x_add(x, m, x_div(x, z, x_add(x, one, x_sqrt(x, x_add(x, z, one)))));
  return x_with_sign(x, log_or_log2(x, x_gt(x, m, x_num(x, 0x1p60)), m, arg), a);
}

/* log(a + sqrt(a^2 - 1)) = log1p(t + sqrt(t (t + 2))), t = a - 1; NaN below 1 by the sqrt
 * (t + 2 < 0 below -1: then by the select). */
ix x_acosh(const xp *x, ix a) {
  ix t = x_sub(x, a, x_num(x, 1));
  ix arg = x_add(x, t, x_sqrt(x, x_mul(x, t, x_add(x, t, x_num(x, 2)))));
  ix r = log_or_log2(x, x_gt(x, a, x_num(x, 0x1p60)), a, arg);
  return x_select(x, x_lt(x, a, x_num(x, 1)), x_num(x, NAN), r);
}

/* log((1+a)/(1-a)) / 2 = log1p(2a / (1-a)) / 2 */
ix x_atanh(const xp *x, ix a) {
  ix m = x_abs(x, a), one = x_num(x, 1);
  ix l = x_log1p(x, x_div(x, x_add(x, m, m), x_sub(x, one, m)));
  return x_with_sign(x, x_mul(x, x_num(x, 0.5), l), a);
}

/* ---- pow, f64: <= 2 ULP (f32: correctly rounded but for rare ties) ---- */

/* R(z) = 2/3 + z R1(z), of which 2/3 is kept to twice the precision. */
static const double log_r1[] = {0.13163354482446857, 0.13260659612393294, 0.1538657717475375, 0.18181788691619244,
                                0.22222222464346325, 0.28571428570458083, 0.40000000000001363};

/* a + b exactly as sum + *lo, where |a| >= |b| or a = 0. */
static ix fast_sum(const xp *x, ix a, ix b, ix *lo) {
  ix sum = x_add(x, a, b);
  *lo = x_sub(x, b, x_sub(x, sum, a));
  return sum;
}

/* a * b exactly as product + *lo. */
static ix full_product(const xp *x, ix a, ix b, ix *lo) {
  ix p = x_mul(x, a, b);
  *lo = x_fma(x, a, b, x_neg(x, p));
  return p;
}

/* log(a) as hi + lo, relative error below 2^-65: in b * log(a) up to 745 it is wanted
 * to less than 2^-53. */
static void log_pair(const xp *x, ix a, ix *hi, ix *lo) {
  ix e, f;
  x_split(x, a, true, &e, &f, NULL);
  /* s + s_lo = f / (f + 2), f + 2 = d + d_lo */
  ix d = x_add(x, f, x_num(x, 2)), d_lo = x_sub(x, f, x_sub(x, d, x_num(x, 2)));
  ix s = x_div(x, f, d);
  ix left = x_fma(x, x_neg(x, s), d_lo, x_fma(x, x_neg(x, s), d, f));
  ix s_lo = x_div(x, left, d);
  /* log(1+f) = 2 (s + s_lo) + 2/3 (s + s_lo)^3 + s^5 R1(s^2) */
  ix z_lo, cube_lo, third_lo;
  ix z = full_product(x, s, s, &z_lo), cube = full_product(x, s, z, &cube_lo);
  cube_lo = x_add(x, cube_lo, x_fma(x, s, z_lo, x_mul(x, x_num(x, 3), x_mul(x, z, s_lo))));
  ix third = full_product(x, cube, x_num(x, 0x1.5555555555555p-1), &third_lo);
  third_lo = x_add(x, third_lo, x_fma(x, cube_lo, x_num(x, 2.0 / 3), x_mul(x, cube, x_num(x, 0x1.5555555555555p-55))));
  ix tail = x_fma(x, x_mul(x, cube, z), X_POLY(x, z, log_r1), x_add(x, third_lo, x_add(x, s_lo, s_lo)));
  /* e ln 2 in two parts: the first product is exact (e has 11 bits, h has 42) */
  const double h = 0x1.62e42fefa38p-1, l = 0x1.ef35793c7673p-45;
  ix lo1, lo2, eh = x_mul(x, e, x_num(x, h)), el = x_mul(x, e, x_num(x, l));
  ix log_m = fast_sum(x, x_add(x, s, s), third, &lo1);
  ix sum = fast_sum(x, eh, log_m, &lo2); /* |eh| >= 0.69 > |log_m|, or eh = 0 */
  *hi = fast_sum(x, sum, x_add(x, x_add(x, lo2, lo1), x_add(x, el, tail)), lo);
}

ix x_pow(const xp *x, ix a, ix b) {
  ix zero = x_num(x, 0), one = x_num(x, 1), inf = x_num(x, INFINITY), m = x_abs(x, a), hi, lo;
  log_pair(x, m, &hi, &lo);
  ix m_zero = x_eq(x, m, zero), m_inf = x_eq(x, m, inf);
  hi = x_select(x, m_zero, x_num(x, -INFINITY), x_select(x, m_inf, inf, hi));
  ix p = x_mul(x, b, hi);
  ix p_lo = x_fma(x, b, lo, x_fma(x, b, hi, x_neg(x, p)));
  ix usual = x_lt(x, x_abs(x, p), x_num(x, 800)); /* beyond it p_lo may be NaN and does not matter */
  ix r = x_exp2terms(x, p, x_select(x, usual, p_lo, zero));
  r = x_select(x, x_eq(x, m, one), one, r); /* also b infinite */
  /* sign and domain for a < 0, by what kind of number b is; |b| >= 2^53 is even */
  ix whole = x_eq(x, ix_unary(x->ctx, IX_TRUNC, b), b);
  ix half = x_mul(x, b, x_num(x, 0.5));
  ix odd = ix_and(x->ctx, whole, ix_ne(x->ctx, ix_unary(x->ctx, IX_TRUNC, half), half));
  ix sign_set = ix_ne(x->ctx, x_and(x, x_bits(x, a), x_sign_mask(x)), x_int(x, 0));
  r = x_select(x, ix_and(x->ctx, odd, sign_set), x_neg(x, r), r);
  ix finite_negative = ix_and(x->ctx, x_lt(x, a, zero), ix_not(x->ctx, m_inf));
  r = x_select(x, ix_and(x->ctx, finite_negative, ix_not(x->ctx, whole)), x_num(x, NAN), r);
  r = x_select(x, ix_ne(x->ctx, a, a), a, r);
  r = x_select(x, ix_ne(x->ctx, b, b), b, r);
  ix is_one = ix_or(x->ctx, x_eq(x, b, zero), x_eq(x, a, one)); /* even for NaN */
  return x_select(x, is_one, one, r);
}
