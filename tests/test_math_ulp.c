/* The polynomials of ir/expand*.c as machine code over the bit patterns of f32, against libm in f64: the bounds
 * that ir/README.md states. Every 4999th pattern; TENON_ULP_STEP=1 takes all 2^32 (minutes). */
#include "codegen/target.h"
#include "ir/interp.h"
#include "lower/lower.h"
#include "runtime/module.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

typedef struct row {
  const char *op;
  double (*exact)(double);
  double bound; /* ULP */
} row;
static const row rows[] = {
    {"Exp", exp, 1.1},   {"Log", log, 1},     {"Sin", sin, 2},     {"Cos", cos, 2},     {"Tan", tan, 1},     {"Asin", asin, 1},
    {"Acos", acos, 1},   {"Atan", atan, 1},   {"Sinh", sinh, 1},   {"Cosh", cosh, 1},   {"Tanh", tanh, 3},   {"Asinh", asinh, 1},
    {"Acosh", acosh, 1}, {"Atanh", atanh, 1}, {"Erf", erf, 3},     {"Sigmoid", sigmoid, 3}};

static float of_bits(uint32_t b) {
  float f;
  memcpy(&f, &b, 4);
  return f;
}

static double ulps(float got, double want) {
  float nearest = (float)want;
  if (isnan(nearest) || isnan(got)) return isnan(nearest) && isnan(got) ? 0 : INFINITY;
  if (isinf(nearest) || isinf(got)) return nearest == got ? 0 : INFINITY;
  int e;
  frexp(want, &e);
  return fabs((double)got - want) / ldexp(1, e - 24 < -149 ? -149 : e - 24);
}

enum { N = 1 << 16 };

typedef struct measure {
  const row *r;
  uint64_t step;
  double worst;
  float at, got;
} measure;

static void run(tn_ctx *ctx, void *arg) {
  measure *m = arg;
  ir_graph *g = ir_graph_parse(ctx, ir_format(ctx, "graph g { opset 13 input x: f32[%d] y = %s(x) output y }", N, m->r->op), "test");
  lw_options o = {.target = cg_target_find(ctx, NULL, NULL)};
  rt_module *module = rt_module_build(ctx, lw_compile(ctx, g, &o), NULL);
  float *x = ir_alloc(ctx, N * 4 + 64), *y = ir_alloc(ctx, N * 4 + 64);
  bool trig = m->r->exact == sin || m->r->exact == cos || m->r->exact == tan;
  for (uint64_t bits = 0; bits <= UINT32_MAX;) {
    int n = 0;
    for (; n < N && bits <= UINT32_MAX; bits += m->step) x[n++] = of_bits((uint32_t)bits);
    for (int i = n; i < N; i++) x[i] = 1;
    if (rt_run(module, (const void *const[]){x}, (void *const[]){y}, NULL, NULL)) ir_fail(ctx, TN_EWRONG, "the run failed");
    for (int i = 0; i < n; i++) {
      if (trig && fabsf(x[i]) >= 0x1p49f) continue; /* scalar_ops.h */
      double want = m->r->exact(x[i]), u = ulps(y[i], want);
      if (m->r->exact == sigmoid && want < 0x1p-126) u = y[i] == 0 || u <= m->r->bound ? 0 : u;
      if (u > m->worst) m->worst = u, m->at = x[i], m->got = y[i];
    }
  }
  rt_module_free(ctx, module);
}

Test(math_ulp, bounds) {
  const char *step = getenv("TENON_ULP_STEP");
  for (int i = 0; i < IR_COUNT(rows); i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    measure m = {.r = &rows[i], .step = step && atoi(step) > 0 ? (uint64_t)atoi(step) : 4999};
    cr_expect_eq(ir_protect(ctx, run, &m), TN_OK, "%s: %s", rows[i].op, tn_error(ctx));
    if (getenv("TN_VERBOSE")) printf("%-8s %.3f ULP at %.9g\n", rows[i].op, m.worst, m.at);
    cr_expect(m.worst <= rows[i].bound, "%s(%.9g) = %.9g: %.3f ULP, the bound is %g", rows[i].op, m.at, m.got, m.worst, rows[i].bound);
    tn_ctx_free(ctx);
  }
}
