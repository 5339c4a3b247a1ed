/* expand.c — elementary functions as expressions: the driver and the exp family.
 *
 * Everything is built from fma, add, mul, div, sqrt, select, comparisons, shifts
 * and bitcasts, so the interpreter, vector code and tails agree bit for bit. The
 * functions that are hot in models (exp, expm1, log, log1p, tanh, erf, sigmoid)
 * stay within f32; sin and cos reduce their argument in f64; the others compute
 * in f64 and round once. Narrower floats go through f32.
 *
 * No float -> int conversions: adding 1.5 * 2^mant rounds to an integer and leaves
 * it in the low bits, ready to be shifted into an exponent.
 */
#include "ir/expand_internal.h"
#include <string.h>

/* ln 2 in two parts, each rounded: with fma the first product is exact enough. */
static const double ln2_hi64 = 0x1.62e42fefa39efp-1, ln2_lo64 = 0x1.abc9e3b39803fp-56;
static const double ln2_hi32 = 0x1.62e43p-1, ln2_lo32 = -0x1.05c61p-29;

ix x_round_bits(const xp *x, ix a, double scale, int offset, ix *bits) {
  double magic = ldexp(1.5, x->mant) + offset;
  ix t = x_fma(x, a, x_num(x, scale), x_num(x, magic));
  *bits = x_bits(x, t);
  return x_sub(x, t, x_num(x, magic));
}

/* r = a - n ln 2, |r| <= ln(2)/2; n + offset in the low bits of *bits. */
static ix reduce_ln2(const xp *x, ix a, int offset, ix *n, ix *bits) {
  *n = x_round_bits(x, a, 1 / log(2), offset, bits);
  ix r = x_fma(x, *n, x_num(x, x_wide(x) ? -ln2_hi64 : -ln2_hi32), a);
  return x_fma(x, *n, x_num(x, x_wide(x) ? -ln2_lo64 : -ln2_lo32), r);
}

/* e^r - 1 = r + r^2 q(r) on |r| <= ln(2)/2; q minimax in weight r^2:
 * error 3e-9 (f32), 4e-18 (f64) of e^r. */
static const double exp_q32[] = {0.00139505905, 0.00836888973, 0.0416662041, 0.166665188, 0.50000001};
static const double exp_q64[] = {2.5117893222151121e-8,  2.7631280723962853e-7, 2.7557216193028084e-6,
                                 2.4801489941424919e-5,  0.00019841269917509537, 0.0013888888947016198,
                                 0.0083333333333071471,  0.041666666666515421,  0.16666666666666699,
                                 0.50000000000000127};
/* The same with the weight of expm1 itself: 2.4e-10, 2.6e-19. */
static const double expm1_q32[] = {0.000198459367, 0.00139406271, 0.00833338927, 0.0416663609, 0.166666664, 0.500000004};
static const double expm1_q64[] = {2.0875337695251818e-9, 2.5108979789104982e-8,  2.7557402607594464e-7,
                                   2.7557244371451218e-6, 2.4801587172600867e-5,  0.00019841269885968836,
                                   0.0013888888888962319, 0.0083333333333216903,  0.041666666666666509,
                                   0.16666666666666677,   0.5};

/* 2^n (1 + p) with n + 2 bias in the low bits of `bits`: in two steps, so that the
 * result may overflow or be denormal. */
static ix scale_twice(const xp *x, ix one_plus_p, ix bits) {
  ix half = x_shr(x, bits, 1);
  ix s1 = x_real(x, x_shl(x, half, x->mant));
  ix s2 = x_real(x, x_shl(x, x_sub(x, bits, half), x->mant));
  return x_mul(x, x_mul(x, one_plus_p, s1), s2);
}

/* The clamps lie where the result is surely infinite or 0. */
static ix clamp_exp(const xp *x, ix a) { return x_wide(x) ? x_clamp(x, -745.2, a, 710) : x_clamp(x, -104, a, 89); }

static ix exp_of_reduced(const xp *x, ix r, ix bits) {
  ix q = x_wide(x) ? X_POLY(x, r, exp_q64) : X_POLY(x, r, exp_q32);
  ix p = x_fma(x, q, x_mul(x, r, r), r);
  return scale_twice(x, x_add(x, x_num(x, 1), p), bits);
}

/* Where the result is 0 the product is one of zeros: rounding a product to 0 takes many times
 * as long on most CPUs, and masked scores (exp of -inf or -10000) come by the million. */
ix x_exp(const xp *x, ix a) {
  ix n, bits, r = reduce_ln2(x, clamp_exp(x, a), 2 * x->bias, &n, &bits);
  ix q = x_wide(x) ? X_POLY(x, r, exp_q64) : X_POLY(x, r, exp_q32);
  ix e = x_add(x, x_num(x, 1), x_fma(x, q, x_mul(x, r, r), r));
  ix gone = x_lt(x, a, x_num(x, x_wide(x) ? -745.2 : -104));
  return scale_twice(x, x_select(x, gone, x_num(x, 0), e), bits);
}

ix x_exp2terms(const xp *x, ix hi, ix lo) {
  ix n, bits, r = reduce_ln2(x, clamp_exp(x, hi), 2 * x->bias, &n, &bits);
  return exp_of_reduced(x, x_add(x, r, lo), bits);
}

/* p = e^r - 1 with a = n ln 2 + r; n + offset in *bits. */
static ix expm1_reduced(const xp *x, ix a, int offset, ix *bits) {
  ix n, r = reduce_ln2(x, a, offset, &n, bits);
  ix q = x_wide(x) ? X_POLY(x, r, expm1_q64) : X_POLY(x, r, expm1_q32);
  return x_fma(x, q, x_mul(x, r, r), r);
}

/* <= 2 ULP. 2^n p + (2^n - 1), halved, since 2^n may be too large. */
ix x_expm1(const xp *x, ix a) {
  ix y = x_wide(x) ? x_clamp(x, -80, a, 710) : x_clamp(x, -40, a, 89), bits;
  ix p = expm1_reduced(x, y, x->bias - 1, &bits);
  ix s = x_real(x, x_shl(x, bits, x->mant)); /* 2^(n-1) */
  ix h = x_fma(x, p, s, x_sub(x, s, x_num(x, 0.5)));
  ix tiny = x_lt(x, x_abs(x, a), x_num(x, ldexp(1, -x->mant - 2)));
  return x_select(x, tiny, a, x_add(x, h, h)); /* tiny: keeps -0 and denormals */
}

/* e^a - 1 for |a| where 2^n is a normal number. */
static ix expm1_plain(const xp *x, ix a) {
  ix bits, p = expm1_reduced(x, a, x->bias, &bits);
  ix s = x_real(x, x_shl(x, bits, x->mant)); /* 2^n */
  return x_fma(x, p, s, x_sub(x, s, x_num(x, 1)));
}

/* tanh(z) of f32 for r = a K - n, K = 2 / ln 2, n whole: h = tanh(r / K) is odd in r: minimax to 4.5e-8 on
 * |r| <= 1/2, then the rounded coefficients next to it that give all of f32 the least error. */
static const double tanh_h32[] = {0.00065470871, -0.0138750095, 0.346573591};

/* <= 3 ULP. f64: with E = e^2a - 1, tanh a = E / (E + 2). f32: e^2a = 2^n (1 + h) / (1 - h), so that tanh a is
 * ((2^n + 1) h + 2^n - 1) / ((2^n - 1) h + 2^n + 1), where n = 0 just h; the rounding of K, n and the difference matters less the
 * nearer to 1 the result is. At the clamps it is 1. */
static ix x_tanh(const xp *x, ix a) {
  double end = x_wide(x) ? 20 : 10;
  ix y = x_clamp(x, -end, a, end);
  if (x_wide(x)) {
    ix e = expm1_plain(x, x_add(x, y, y));
    return x_with_sign(x, x_div(x, e, x_add(x, e, x_num(x, 2))), a); /* for tanh(-0) = -0 */
  }
  double scale = (float)(2 / log(2));
  ix bits, n = x_round_bits(x, y, scale, x->bias, &bits), r = x_fma(x, y, x_num(x, scale), x_neg(x, n));
  ix h = x_mul(x, r, X_POLY(x, x_mul(x, r, r), tanh_h32)), s = x_real(x, x_shl(x, bits, x->mant));
  ix less = x_sub(x, x_num(x, 1), s), more = x_add(x, s, x_num(x, 1)); /* 1 - 2^n is +0, which keeps the sign of -0 */
  return x_div(x, x_fma(x, more, h, x_neg(x, less)), x_fma(x, x_neg(x, less), h, more));
}

/* <= 3 ULP; results below the least normal number may be 0. With E = e^-a = 2^n (1 + p), 1 / (1 + E): 2^n is a normal number or,
 * as all beyond 1 / E of a normal number, infinite; and it is nothing beside 1 below the clamp. */
static ix x_sigmoid(const xp *x, ix a) {
  ix y = x_wide(x) ? x_clamp(x, -708, x_neg(x, a), 710) : x_clamp(x, -87, x_neg(x, a), 89);
  ix n, bits, r = reduce_ln2(x, y, x->bias, &n, &bits);
  ix q = x_wide(x) ? X_POLY(x, r, exp_q64) : X_POLY(x, r, exp_q32);
  ix p = x_fma(x, q, x_mul(x, r, r), r), s = x_real(x, x_shl(x, bits, x->mant));
  return x_div(x, x_num(x, 1), x_fma(x, x_add(x, x_num(x, 1), p), s, x_num(x, 1)));
}

/* erf a = 1 - erfc a = -expm1(log(erfc a)) for a >= 0, and log(erfc a) = a L(a) is
 * smooth from 0 to where erf is 1. L minimax for the relative error of erf: 5e-18 on [0, 6]
 * (f64). f32: the same to the base of 2, 3.5e-8 on [0, 3.95], so that a rounded a L(a) and what is left of it,
 * both exact, are additions; 2^r - 1 = r Q(r), 1.1e-8 on |r| <= 1/2. Of both, coefficients
 * near the rounded ones were chosen for the least error of all a. <= 3 ULP. */
static const double erf_l32[] = {-5.87292416e-05, 0.00054969074, -0.00180590036, -0.000296765938, 0.0278747696, -0.148329675, -0.918443739, -1.62790692};
static const double exp2m1_q32[] = {0.000154037829, 0.00133911218, 0.00961880106, 0.0555033274, 0.240226433, 0.693147242};
static const double erf_l64[] = {
    -7.8340112255077919e-16, 3.8504385200039448e-14,  -8.8453750974865664e-13, 1.2610728275887582e-11,
    -1.2483852257602435e-10, 9.0820683962058283e-10,  -4.9976293300455597e-9,  2.0962387385478231e-8,
    -6.5732781882279009e-8,  1.4176051325345749e-7,   -1.371798661761482e-7,   -3.3636742024962998e-7,
    1.7415502928981571e-6,   -2.8351426859921815e-6,  -3.4072636520742768e-6,  2.9724045036194739e-5,
    -6.4491860336326521e-5,  -2.5878604447282276e-5,  0.00059012555293122353,  -0.0016962063857504306,
    0.00020919469484292901,  0.019128447005070335,    -0.10277260330178876,    -0.63661977236758361,
    -1.1283791670955126};
static ix x_erf(const xp *x, ix a) {
  ix m = x_clamp(x, -INFINITY, x_abs(x, a), x_wide(x) ? 6 : 3.95);
  if (x_wide(x)) return x_with_sign(x, x_abs(x, expm1_plain(x, x_mul(x, m, X_POLY(x, m, erf_l64)))), a);
  ix l = x_mul(x, m, X_POLY(x, m, erf_l32)), magic = x_num(x, ldexp(1.5, x->mant) + x->bias), t = x_add(x, l, magic);
  ix r = x_sub(x, l, x_sub(x, t, magic)), p = x_mul(x, r, X_POLY(x, r, exp2m1_q32));
  ix s = x_real(x, x_shl(x, x_bits(x, t), x->mant));
  return x_with_sign(x, x_fma(x, x_neg(x, p), s, x_sub(x, x_num(x, 1), s)), a);
}

/* ---- the driver ---- */

/* An op of f32 or f64 within its own width. */
static ix expand_in(const xp *x, ir_opcode op, const ix *a) {
  switch (op) {
    case IX_EXP: return x_exp(x, a[0]);
    case IX_EXPM1: return x_expm1(x, a[0]);
    case IX_LOG: return x_log(x, a[0]);
    case IX_LOG1P: return x_log1p(x, a[0]);
    case IX_SIN: return x_sin(x, a[0]);
    case IX_COS: return x_cos(x, a[0]);
    case IX_TAN: return x_tan(x, a[0]);
    case IX_ASIN: return x_asin(x, a[0]);
    case IX_ACOS: return x_acos(x, a[0]);
    case IX_ATAN: return x_atan(x, a[0]);
    case IX_SINH: return x_sinh(x, a[0]);
    case IX_COSH: return x_cosh(x, a[0]);
    case IX_TANH: return x_tanh(x, a[0]);
    case IX_ASINH: return x_asinh(x, a[0]);
    case IX_ACOSH: return x_acosh(x, a[0]);
    case IX_ATANH: return x_atanh(x, a[0]);
    case IX_ERF: return x_erf(x, a[0]);
    case IX_SIGMOID: return x_sigmoid(x, a[0]);
    case IX_POW: return x_pow(x, a[0], a[1]);
    default: ir_bug(x->ctx, "%s has no expansion", ix_info[op].name);
  }
}

static bool within_f32(ir_opcode op) {
  switch (op) {
    case IX_EXP: case IX_EXPM1: case IX_LOG: case IX_LOG1P: case IX_SIN: case IX_COS:
    case IX_TANH: case IX_ERF: case IX_SIGMOID: return true;
    default: return false;
  }
}

ix ix_expand_op(tn_ctx *ctx, ir_opcode op, const ix *args) {
  tn_dtype t = (tn_dtype)args[0]->dtype, in = t;
  if (ir_is_narrow_float(t)) in = TN_F32;
  tn_dtype of = in == TN_F32 && !within_f32(op) ? TN_F64 : in;
  ix a[2] = {NULL, NULL};
  for (int i = 0; i < ix_info[op].arity; i++) a[i] = ix_cast(ctx, of, args[i]); /* exact */
  xp x = xp_of(ctx, of);
  return ix_cast(ctx, t, ix_cast(ctx, in, expand_in(&x, op, a)));
}

typedef struct expansion {
  tn_ctx *ctx;
  ix *keys, *values; /* open addressing */
  size_t n, cap;
} expansion;

static bool is_expanded_op(ix e) { return ix_info[e->op].traits[0] == 'E'; }

static size_t slot_of(const expansion *m, ix e) {
  size_t i = e->id * 0x9e3779b1u & (m->cap - 1);
  while (m->keys[i] && m->keys[i] != e) i = (i + 1) & (m->cap - 1);
  return i;
}

static ix expand_visit(expansion *m, ix e) {
  if (e->nargs == 0) return e;
  if (m->cap) {
    size_t i = slot_of(m, e);
    if (m->keys[i]) return m->values[i];
  }
  ix args[IR_MAX_RANK], r = e;
  bool same = true;
  for (int i = 0; i < e->nargs; i++) {
    args[i] = expand_visit(m, e->args[i]);
    same = same && args[i] == e->args[i];
  }
  if (is_expanded_op(e)) r = ix_expand_op(m->ctx, (ir_opcode)e->op, args);
  else if (!same && e->op == IX_LOAD) r = ix_load(m->ctx, e->u.buf, args);
  else if (!same) r = ix_make(m->ctx, (ir_opcode)e->op, (tn_dtype)e->dtype, e->nargs, args);
  if (m->n * 2 >= m->cap) {
    expansion old = *m;
    m->cap = old.cap ? old.cap * 2 : 64;
    m->keys = IR_NEW_ARRAY(m->ctx, ix, m->cap);
    m->values = IR_NEW_ARRAY(m->ctx, ix, m->cap);
    for (size_t i = 0; i < old.cap; i++)
      if (old.keys[i]) {
        size_t j = slot_of(m, old.keys[i]);
        m->keys[j] = old.keys[i];
        m->values[j] = old.values[i];
      }
  }
  size_t i = slot_of(m, e);
  m->keys[i] = e;
  m->values[i] = r;
  m->n++;
  return r;
}

static void note_expanded(void *user, ix e) {
  if (is_expanded_op(e)) *(bool *)user = true;
}

ix ix_expand(tn_ctx *ctx, ix e) {
  bool any = false;
  ix_walk(ctx, e, note_expanded, &any);
  if (!any) return e;
  expansion m = {.ctx = ctx};
  return expand_visit(&m, e);
}
