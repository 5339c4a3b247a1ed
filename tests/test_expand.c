/* test_expand.c — the expansions of elementary functions against libm, with stated
 * bounds in ULP, through the interpreter: dense samples, random samples, specials. */
#include "ir/interp.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct call {
  ir_opcode op;
  tn_dtype t;
  int64_t n;
  const void *a, *b;
  void *out;
} call;

/* out[i] = op(a[i], b[i]) as a kernel. */
static void run_op(tn_ctx *ctx, void *arg) {
  const call *c = arg;
  ix extent = ix_index(ctx, c->n);
  ir_buf *a = ir_buf_new(ctx, "a", c->t, 1, &extent, NULL, IR_GLOBAL);
  ir_buf *b = ir_buf_new(ctx, "b", c->t, 1, &extent, NULL, IR_GLOBAL);
  ir_buf *out = ir_buf_new(ctx, "out", c->t, 1, &extent, NULL, IR_GLOBAL);
  a->access = b->access = IR_IN;
  out->access = IR_OUT;
  ir_builder *w = ir_builder_new(ctx);
  ix i = ib_loop(w, "i", extent);
  ix args[2] = {ib_load(w, a, &i), ib_load(w, b, &i)};
  ib_store(w, out, &i, ix_make(ctx, c->op, c->t, ix_info[c->op].arity, args));
  ib_end(w);
  ir_buf *bufs[] = {a, b, out};
  ir_kernel k = {.name = "op", .nbufs = 3, .bufs = bufs, .body = ib_finish(w)};
  ir_interp(ctx, &k, (void *[]){(void *)c->a, (void *)(c->b ? c->b : c->a), c->out}, NULL);
}

static void must_run(ir_opcode op, tn_dtype t, int64_t n, const void *a, const void *b, void *out) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  call c = {op, t, n, a, b, out};
  tn_status status = ir_protect(ctx, run_op, &c);
  cr_assert_eq(status, TN_OK, "%s: %s", ix_info[op].name, tn_error(ctx));
  tn_ctx_free(ctx);
}

/* ---- references in long double ---- */

static long double reference(ir_opcode op, long double a, long double b) {
  switch (op) {
    case IX_EXP: return expl(a);
    case IX_EXPM1: return expm1l(a);
    case IX_LOG: return logl(a);
    case IX_LOG1P: return log1pl(a);
    case IX_SIN: return sinl(a);
    case IX_COS: return cosl(a);
    case IX_TAN: return tanl(a);
    case IX_ASIN: return asinl(a);
    case IX_ACOS: return acosl(a);
    case IX_ATAN: return atanl(a);
    case IX_SINH: return sinhl(a);
    case IX_COSH: return coshl(a);
    case IX_TANH: return tanhl(a);
    case IX_ASINH: return asinhl(a);
    case IX_ACOSH: return acoshl(a);
    case IX_ATANH: return atanhl(a);
    case IX_ERF: return erfl(a);
    case IX_SIGMOID: return 1 / (1 + expl(-a));
    case IX_POW: return powl(a, b);
    default: cr_assert_fail("no reference"); return 0;
  }
}

/* Distance in units of the last place of the exact value; 0 for equal specials. */
static double ulps(tn_dtype t, double got, long double want) {
  double rounded = t == TN_F64 ? (double)want : (double)(float)want;
  if (isnan(rounded) || isnan(got)) return isnan(rounded) && isnan(got) ? 0 : 1e30;
  if (isinf(rounded) || isinf(got)) return rounded == got ? 0 : 1e30;
  int e;
  frexpl(want, &e);
  int mant = t == TN_F64 ? 53 : 24, least = t == TN_F64 ? -1074 : -149;
  int unit = e - mant < least ? least : e - mant;
  return (double)(fabsl((long double)got - want) / ldexpl(1, unit));
}

typedef struct row {
  ir_opcode op;
  double lo, hi; /* dense range */
  double f32, f64; /* bounds in ULP */
} row;
static const row rows[] = {
    {IX_EXP, -87.3, 88.7, 1.1, 1.1},   {IX_EXP, -1, 1, 1.1, 1.1},        {IX_EXPM1, -20, 88, 2, 2},
    {IX_EXPM1, -1, 1, 2, 2},       {IX_LOG, 0, 10, 1.0, 1.5},        {IX_LOG, 0.9, 1.1, 1.0, 1.5},
    {IX_LOG, 1, 1e30, 1.0, 1.5},       {IX_LOG1P, -1, 10, 1.5, 2},       {IX_LOG1P, -0.01, 0.01, 1.5, 2},
    {IX_LOG1P, 1, 1e30, 1.5, 2},       {IX_SIN, -7, 7, 2, 2},            {IX_SIN, -1e5, 1e5, 2, 2},
    {IX_SIN, -1e12, 1e12, 2, 2},       {IX_COS, -7, 7, 2, 2},            {IX_COS, -1e5, 1e5, 2, 2},
    {IX_COS, -1e12, 1e12, 2, 2},       {IX_TAN, -7, 7, 1, 4},            {IX_TAN, -1e5, 1e5, 1, 4},
    {IX_ASIN, -1, 1, 1, 2.5},            {IX_ACOS, -1, 1, 1, 2},           {IX_ATAN, -5, 5, 1, 2},
    {IX_ATAN, -1e6, 1e6, 1, 2},        {IX_SINH, -89, 89, 1, 4},         {IX_SINH, -1, 1, 1, 4},
    {IX_COSH, -89, 89, 1, 4},          {IX_COSH, -1, 1, 1, 4},           {IX_TANH, -12, 12, 3, 3},
    {IX_TANH, -0.5, 0.5, 3, 3},    {IX_ASINH, -10, 10, 1, 3},        {IX_ASINH, -1e20, 1e20, 1, 3},
    {IX_ACOSH, 1, 10, 1, 3},           {IX_ACOSH, 1, 1e20, 1, 3},        {IX_ATANH, -1, 1, 1, 3},
    {IX_ERF, -5, 5, 3, 3},         {IX_ERF, -0.5, 0.5, 3, 3},    {IX_SIGMOID, -87, 30, 3, 3},
};

static double uniform(uint64_t *s) { /* [0, 1) */
  *s = *s * 6364136223846793005u + 1442695040888963407u;
  return (double)(*s >> 11) * 0x1p-53;
}

static void check_dense(tn_dtype t) {
  enum { N = 60000 };
  size_t w = t == TN_F64 ? 8 : 4;
  char *a = malloc(N * w), *out = malloc(N * w);
  uint64_t seed = 1;
  for (int k = 0; k < IR_COUNT(rows); k++) {
    const row *r = &rows[k];
    for (int i = 0; i < N; i++) {
      double v = i % 2 ? r->lo + (r->hi - r->lo) * i / (N - 1) : r->lo + (r->hi - r->lo) * uniform(&seed);
      if (t == TN_F64) ((double *)a)[i] = v;
      else ((float *)a)[i] = (float)v;
    }
    must_run(r->op, t, N, a, NULL, out);
    double worst = 0, at = 0;
    for (int i = 0; i < N; i++) {
      double x = t == TN_F64 ? ((double *)a)[i] : ((float *)a)[i];
      double y = t == TN_F64 ? ((double *)out)[i] : ((float *)out)[i];
      double u = ulps(t, y, reference(r->op, x, 0));
      if (u > worst) worst = u, at = x;
    }
    if (getenv("TN_VERBOSE")) printf("%-4s %-8s [%g, %g]: %.3f ULP at %.17g\n", ir_dtype_name(t), ix_info[r->op].name, r->lo, r->hi, worst, at);
    double bound = t == TN_F64 ? r->f64 : r->f32;
    cr_expect(worst <= bound, "%s %s on [%g, %g]: %g ULP at %.17g, bound %g", ir_dtype_name(t), ix_info[r->op].name,
              r->lo, r->hi, worst, at, bound);
  }
  free(a);
  free(out);
}

Test(expand, dense_f32) { check_dense(TN_F32); }
Test(expand, dense_f64) { check_dense(TN_F64); }

/* Every exponent, both signs, a few mantissas: absolute agreement where the result is
 * denormal, the bound elsewhere. */
static void check_exponents(tn_dtype t) {
  enum { MAX = 2100 * 2 * 4 };
  double *x = malloc(MAX * sizeof *x);
  size_t w = t == TN_F64 ? 8 : 4;
  char *a = malloc(MAX * w), *out = malloc(MAX * w);
  int n = 0, from = t == TN_F64 ? -1074 : -149, to = t == TN_F64 ? 1023 : 127;
  static const double mantissas[] = {1, 1.2345678901234567, 1.5, 1.99};
  for (int e = from; e <= to; e++)
    for (int s = 0; s < 2; s++)
      for (int m = 0; m < 4; m++) x[n++] = ldexp(s ? -mantissas[m] : mantissas[m], e);
  for (int i = 0; i < n; i++) {
    if (t == TN_F64) ((double *)a)[i] = x[i];
    else x[i] = ((float *)a)[i] = (float)x[i];
  }
  for (ir_opcode op = IX_EXP; op <= IX_SIGMOID; op++) {
    must_run(op, t, n, a, NULL, out);
    for (int i = 0; i < n; i++) {
      double y = t == TN_F64 ? ((double *)out)[i] : ((float *)out)[i];
      if ((op == IX_SIN || op == IX_COS || op == IX_TAN) && fabs(x[i]) >= 0x1p49) continue;
      long double want = reference(op, x[i], 0);
      double least = t == TN_F64 ? 0x1p-1022 : 0x1p-126;
      double u = fabsl(want) < least && op == IX_SIGMOID ? 0 : ulps(t, y, want);
      cr_expect(u <= 4, "%s %s(%.17g) = %.17g, want %.17Lg: %g ULP", ir_dtype_name(t), ix_info[op].name, x[i], y, want, u);
    }
  }
  free(x);
  free(a);
  free(out);
}

Test(expand, exponents_f32) { check_exponents(TN_F32); }
Test(expand, exponents_f64) { check_exponents(TN_F64); }

Test(expand, specials) {
  static const double x[] = {0.0, -0.0, INFINITY, -INFINITY, NAN, 1, -1, 0x1p-149, -0x1p-149, 3e38, -3e38, 2, -2, 88.8, 88.72, -104.5};
  enum { N = IR_COUNT(x) };
  for (int wide = 0; wide < 2; wide++) {
    tn_dtype t = wide ? TN_F64 : TN_F32;
    float a32[N], o32[N];
    double a64[N], o64[N];
    for (int i = 0; i < N; i++) a64[i] = x[i], a32[i] = (float)x[i];
    for (ir_opcode op = IX_EXP; op <= IX_SIGMOID; op++) {
      must_run(op, t, N, wide ? (void *)a64 : a32, NULL, wide ? (void *)o64 : o32);
      for (int i = 0; i < N; i++) {
        double v = wide ? a64[i] : a32[i], got = wide ? o64[i] : o32[i];
        long double want = reference(op, v, 0);
        if ((op == IX_SIN || op == IX_COS || op == IX_TAN) && fabs(v) > 1e30 && !isinf(v)) continue;
        if (op == IX_SIGMOID && want < 0x1p-126L) want = 0;
        cr_expect(ulps(t, got, want) <= 4, "%s %s(%g) = %g, want %Lg", ir_dtype_name(t), ix_info[op].name, v, got, want);
        if (want == 0 && !isnan(got)) cr_expect_eq(!!signbit(got), !!signbit(want), "%s %s(%g): sign of zero", ir_dtype_name(t), ix_info[op].name, v);
      }
    }
  }
}

Test(expand, pow) {
  static const double special[] = {0.0, -0.0, 1, -1, 2, -2, 0.5, -0.5, 3, -3, 1.5, -1.5, 0x1p53, 0x1p-1074, 1e300, -1e300,
                                   INFINITY, -INFINITY, NAN, 1e15 + 1, 0.9999999, 1023, -1074};
  enum { S = IR_COUNT(special), N = 40000 };
  double *a = malloc(N * 8), *b = malloc(N * 8), *out = malloc(N * 8);
  float *fa = malloc(N * 4), *fb = malloc(N * 4), *fo = malloc(N * 4);
  uint64_t seed = 7;
  int n = 0;
  for (int i = 0; i < S; i++)
    for (int j = 0; j < S; j++, n++) a[n] = special[i], b[n] = special[j];
  for (; n < N; n++) {
    a[n] = n % 3 == 0 ? uniform(&seed) * 10 : n % 3 == 1 ? exp2((uniform(&seed) - 0.5) * 2000) : 1 + (uniform(&seed) - 0.5) * 0.01;
    double range = 700 / fmax(fabs(log(a[n])), 1e-3);
    b[n] = (uniform(&seed) * 2 - 1) * range;
  }
  must_run(IX_POW, TN_F64, N, a, b, out);
  double worst = 0;
  for (int i = 0; i < N; i++) {
    double u = ulps(TN_F64, out[i], powl(a[i], b[i]));
    if (u > worst) worst = u;
    cr_expect(u <= 2, "pow(%.17g, %.17g) = %.17g, want %.17Lg: %g ULP", a[i], b[i], out[i], powl(a[i], b[i]), u);
  }
  if (getenv("TN_VERBOSE")) printf("f64 pow: %.3f ULP\n", worst);
  for (int i = 0; i < N; i++) {
    fa[i] = (float)a[i], fb[i] = (float)b[i];
    if (i >= S * S) {
      fa[i] = (float)exp2((uniform(&seed) - 0.5) * 200);
      fb[i] = (float)((uniform(&seed) * 2 - 1) * 88 / fmax(fabs(log(fa[i])), 1e-3));
    }
  }
  must_run(IX_POW, TN_F32, N, fa, fb, fo);
  for (int i = 0; i < N; i++) {
    double u = ulps(TN_F32, fo[i], powl(fa[i], fb[i]));
    cr_expect(u <= 1, "powf(%.9g, %.9g) = %.9g: %g ULP", fa[i], fb[i], fo[i], u);
  }
  free(a), free(b), free(out), free(fa), free(fb), free(fo);
}

/* f16: every value; the f32 result rounded, so within half a ULP and a bit. */
Test(expand, half) {
  enum { N = 65536 };
  uint16_t *a = malloc(N * 2), *out = malloc(N * 2);
  for (int i = 0; i < N; i++) a[i] = (uint16_t)i;
  for (ir_opcode op = IX_EXP; op <= IX_SIGMOID; op++) {
    must_run(op, TN_F16, N, a, NULL, out);
    for (int i = 0; i < N; i++) {
      double x = ir_f16_to_f32(a[i]), y = ir_f16_to_f32(out[i]);
      double want = (double)reference(op, x, 0), nearest = ir_f16_to_f32(ir_f64_to_f16(want));
      bool same = isnan(y) ? isnan(nearest) : y == nearest;
      double unit = !isfinite(nearest) ? 0 : ldexp(1, (nearest == 0 || fabs(nearest) < 0x1p-14 ? -14 : ilogb(nearest)) - 10);
      cr_expect(same || fabs(y - want) <= 0.51 * unit, "f16 %s(%g) = %g, want %g", ix_info[op].name, x, y, want);
    }
  }
  free(a);
  free(out);
}
