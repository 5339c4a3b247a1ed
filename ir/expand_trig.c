/* expand_trig.c — trigonometric and hyperbolic functions.
 *
 * Argument reduction: n = round(a * 2/pi), r = a - n * pi/2 with pi/2 in parts, in
 * f64 with fma (Cody and Waite, Software Manual for the Elementary Functions, 1980).
 * With n below 2^50 the first step is exact, so r is good to about an ULP up to
 * |a| = 2^49; a finite argument from there on counts as 0. */
#include "ir/expand_internal.h"

/* All parts positive, so that -0 reduces to -0. */
static const double pio2_1 = 0x1.921fb54442d18p+0, pio2_2 = 0x1.1a62633145c06p-54, pio2_3 = 0x1.c1cd129024e09p-107;

/* sin r = r + r^3 S(r^2), cos r = 1 - r^2/2 + r^4 C(r^2): on |r| <= pi/4, a bit beyond,
 * since n is found with a rounded product. Relative errors 4e-9, 1e-10 (f32), 2e-20, 4e-19. */
static const double sin_s32[] = {-0.000195043169, 0.00833208345, -0.166666535};
static const double cos_c32[] = {2.44239014e-5, -0.00138872429, 0.0416666444};
static const double sin_s64[] = {-7.5568264793866733e-13, 1.6057863773542093e-10, -2.5052100389260722e-8,
                                 2.7557319194199127e-6,   -0.0001984126984121049, 0.0083333333333332773,
                                 -0.16666666666666666};
static const double cos_c64[] = {-1.1324067611958984e-11, 2.0874953356339306e-9,  -2.7557307987832399e-7,
                                 2.4801587264677131e-5,   -0.0013888888888829369, 0.041666666666666309};

/* Sine and cosine of the reduced argument, in the width of x, and the quadrant in the low bits. */
static void sin_cos(const xp *x, ix a, ix *sin_r, ix *cos_r, ix *quadrant) {
  tn_ctx *ctx = x->ctx;
  xp wide = xp_of(ctx, TN_F64);
  ix known = x_lt(x, x_abs(x, a), x_num(x, 0x1p49));
  a = x_select(x, known, a, x_sub(x, a, a)); /* 0; NaN for infinities and NaN */
  ix d = ix_cast(ctx, TN_F64, a), bits;
  ix n = x_round_bits(&wide, d, 0x1.45f306dc9c883p-1, 0, &bits);
  ix r = x_fma(&wide, n, x_num(&wide, -pio2_1), d);
  r = x_fma(&wide, n, x_num(&wide, -pio2_2), r);
  if (x_wide(x)) r = x_fma(&wide, n, x_num(&wide, -pio2_3), r);
  r = ix_cast(ctx, x->t, r);
  *quadrant = ix_cast(ctx, x->u, bits);
  ix z = x_mul(x, r, r), one = x_num(x, 1);
  *sin_r = x_mul(x, r, x_fma(x, z, x_wide(x) ? X_POLY(x, z, sin_s64) : X_POLY(x, z, sin_s32), one)); /* keeps -0 */
  ix c = x_wide(x) ? X_POLY(x, z, cos_c64) : X_POLY(x, z, cos_c32);
  *cos_r = x_fma(x, x_mul(x, z, z), c, x_fma(x, z, x_num(x, -0.5), one));
}

static ix is_odd(const xp *x, ix quadrant) { return ix_ne(x->ctx, x_and(x, quadrant, 1), x_int(x, 0)); }

/* Flips the sign where bit 1 of the quadrant is set. */
static ix flip(const xp *x, ix v, ix quadrant) {
  ix sign = x_shl(x, x_and(x, quadrant, 2), ir_dtype_bits(x->t) - 2);
  return x_real(x, ix_binary(x->ctx, IX_XOR, x_bits(x, v), sign));
}

/* <= 2 ULP, both widths, for |a| < 2^49. */
ix x_sin(const xp *x, ix a) {
  ix s, c, q;
  sin_cos(x, a, &s, &c, &q);
  return flip(x, x_select(x, is_odd(x, q), c, s), q);
}

ix x_cos(const xp *x, ix a) {
  ix s, c, q;
  sin_cos(x, a, &s, &c, &q);
  return flip(x, x_select(x, is_odd(x, q), s, c), x_add(x, q, x_int(x, 1)));
}

/* <= 4 ULP: tan r, or -1 / tan r in odd quadrants. */
ix x_tan(const xp *x, ix a) {
  ix s, c, q;
  sin_cos(x, a, &s, &c, &q);
  ix odd = is_odd(x, q);
  ix v = x_div(x, x_select(x, odd, c, s), x_select(x, odd, s, c));
  return x_select(x, odd, x_neg(x, v), v);
}

/* ---- inverse functions, f64: <= 2.5 ULP ---- */

/* asin s = s + s^3 P(s^2) on |s| <= 1/2: relative error 1e-18. */
static const double asin_p64[] = {0.032676866081436482, -0.021077258433876725, 0.021763477647178371,
                                  0.003683050116985621, 0.010786526988517826,  0.011397776363663826,
                                  0.013980961400287445, 0.017351600097087842,  0.02237221565990691,
                                  0.030381942683637691, 0.044642857175120147,  0.074999999999702632,
                                  0.16666666666666762};
/* atan t = t + t^3 P(t^2) on |t| <= tan(pi/8): relative error 1e-18. */
static const double atan_p64[] = {-0.017919294600161292, 0.038075651064165024, -0.050397427397404649,
                                  0.058479866519442116,  -0.066631174034724839, 0.076920613823445825,
                                  -0.090908978225694264, 0.11111110785671437,  -0.1428571428023952,
                                  0.19999999999953996,   -0.33333333333333199};

/* m = |a|; asin m for m <= 1/2, else asin(sqrt((1-m)/2)), which is (pi/2 - asin m) / 2. */
static ix asin_half(const xp *x, ix m, ix *large) {
  *large = x_gt(x, m, x_num(x, 0.5));
  ix z = x_select(x, *large, x_mul(x, x_sub(x, x_num(x, 1), m), x_num(x, 0.5)), x_mul(x, m, m));
  ix s = x_select(x, *large, x_sqrt(x, z), m);
  return x_fma(x, x_mul(x, s, z), X_POLY(x, z, asin_p64), s);
}

/* pi/2 - v */
static ix pio2_minus(const xp *x, ix v) { return x_sub(x, x_num(x, pio2_1), x_sub(x, v, x_num(x, pio2_2))); }

ix x_asin(const xp *x, ix a) {
  ix large, p = asin_half(x, x_abs(x, a), &large);
  return x_with_sign(x, x_select(x, large, pio2_minus(x, x_add(x, p, p)), p), a);
}

ix x_acos(const xp *x, ix a) {
  ix large, p = asin_half(x, x_abs(x, a), &large), twice = x_add(x, p, p);
  ix negative = x_lt(x, a, x_num(x, 0));
  ix beyond = x_sub(x, x_num(x, 2 * pio2_1), x_sub(x, twice, x_num(x, 2 * pio2_2))); /* pi - 2p */
  ix outer = x_select(x, negative, beyond, twice);
  ix inner = pio2_minus(x, x_select(x, negative, x_neg(x, p), p));
  return x_select(x, large, outer, inner);
}

/* atan m = pi/2 + atan(-1/m) = pi/4 + atan((m-1)/(m+1)) */
ix x_atan(const xp *x, ix a) {
  ix m = x_abs(x, a), one = x_num(x, 1), zero = x_num(x, 0);
  ix large = x_gt(x, m, x_num(x, 2.4142135623730951)), middle = x_gt(x, m, x_num(x, 0.41421356237309503));
  ix num = x_select(x, large, x_num(x, -1), x_select(x, middle, x_sub(x, m, one), m));
  ix den = x_select(x, large, m, x_select(x, middle, x_add(x, m, one), one));
  ix t = x_div(x, num, den), z = x_mul(x, t, t);
  ix p = x_mul(x, x_mul(x, t, z), X_POLY(x, z, atan_p64));
  ix base = x_select(x, large, x_num(x, pio2_1), x_select(x, middle, x_num(x, pio2_1 / 2), zero));
  ix base_lo = x_select(x, large, x_num(x, pio2_2), x_select(x, middle, x_num(x, pio2_2 / 2), zero));
  return x_with_sign(x, x_add(x, base, x_add(x, t, x_add(x, p, base_lo))), a);
}

/* ---- hyperbolic functions, f64: <= 4 ULP ---- */

/* (E + E / (E + 1)) / 2 with E = e^m - 1; e^m / 2 as a product of halves when m is large,
 * so that it overflows where sinh does. */
ix x_sinh(const xp *x, ix a) {
  ix m = x_abs(x, a), half = x_num(x, 0.5);
  ix e = x_expm1(x, m), w = x_exp(x, x_mul(x, m, half));
  ix small = x_mul(x, half, x_add(x, e, x_div(x, e, x_add(x, e, x_num(x, 1)))));
  ix large = x_mul(x, x_mul(x, half, w), w);
  return x_with_sign(x, x_select(x, x_gt(x, m, x_num(x, 22)), large, small), a);
}

ix x_cosh(const xp *x, ix a) {
  ix half = x_num(x, 0.5), w = x_exp(x, x_mul(x, x_abs(x, a), half));
  return x_add(x, x_mul(x, x_mul(x, half, w), w), x_div(x, half, x_mul(x, w, w)));
}
