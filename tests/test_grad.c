/* Gradients through the C API: values by hand, errors, higher order. */
#include "frontend/tenon.h"
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

/* y = f(x) of one number each: value, first and second derivative at x. */
static void derivatives(tn_tensor *(*f)(tn_graph *g, tn_tensor *x), double x, double out[3]) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_graph *g = tn_graph_new(ctx, NULL);
  tn_tensor *in = tn_input(g, "x", TN_F64, 0, NULL), *y = f(g, in), *d = NULL, *dd = NULL;
  tn_gradient(g, y, tn_omit(), 1, &in, &d);
  tn_gradient(g, d, tn_omit(), 1, &in, &dd);
  tn_output(g, "y", y);
  tn_output(g, "d", d);
  tn_output(g, "dd", dd);
  tn_module *m = tn_compile(g, &(tn_options){.db = "none"}, 0, NULL);
  cr_assert(m, "%s", tn_error(ctx));
  tn_binding b[4] = {{in, &x}, {y, &out[0]}, {d, &out[1]}, {dd, &out[2]}};
  cr_assert(tn_run(m, 4, b) == TN_OK, "%s", tn_run_error());
  tn_ctx_free(ctx);
}

static tn_tensor *cubic(tn_graph *g, tn_tensor *x) { return tn_mul(g, x, tn_mul(g, x, x)); }
static tn_tensor *tanh_of_square(tn_graph *g, tn_tensor *x) { return tn_tanh(g, tn_mul(g, x, x)); }

Test(grad, second_order) {
  double v[3];
  derivatives(cubic, 3, v);
  cr_assert(v[0] == 27 && v[1] == 27 && v[2] == 18, "%g %g %g", v[0], v[1], v[2]);
  derivatives(tanh_of_square, 0.7, v);
  double t = tanh(0.49), s = 1 - t * t;
  cr_assert(fabs(v[1] - 1.4 * s) < 1e-12 && fabs(v[2] - (2 * s - 2 * 1.4 * 1.4 * t * s)) < 1e-12, "%g %g", v[1], v[2]);
}

/* ---- stop-gradient, zeros, seeds ---- */

static tn_tensor *half_stopped(tn_graph *g, tn_tensor *x) { return tn_mul(g, x, tn_stop_gradient(g, tn_mul(g, x, x))); }

Test(grad, stop_gradient) {
  double v[3];
  derivatives(half_stopped, 3, v);
  cr_assert(v[0] == 27 && v[1] == 9 && v[2] == 0, "%g %g %g", v[0], v[1], v[2]);
}

Test(grad, seed_and_what_is_not_reached) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_graph *g = tn_graph_new(ctx, NULL);
  float x[2] = {1, 2}, s[2] = {3, 5}, dx[2], dz[2], w[2] = {7, 7};
  tn_tensor *a = tn_input(g, "x", TN_F32, 1, (int64_t[]){2}), *seed = tn_input(g, "seed", TN_F32, 1, (int64_t[]){2});
  tn_tensor *p = tn_param(g, "w", TN_F32, 1, (int64_t[]){2}, w), *d[2], *xs[2] = {a, p};
  cr_assert(tn_gradient(g, tn_mul(g, a, a), seed, 2, xs, d) == TN_OK, "%s", tn_error(ctx));
  tn_output(g, "dx", d[0]);
  tn_output(g, "dw", d[1]);
  tn_module *m = tn_compile(g, &(tn_options){.db = "none"}, 0, NULL);
  cr_assert(m, "%s", tn_error(ctx));
  tn_binding b[4] = {{a, x}, {seed, s}, {d[0], dx}, {d[1], dz}};
  cr_assert(tn_run(m, 4, b) == TN_OK, "%s", tn_run_error());
  cr_assert(dx[0] == 6 && dx[1] == 20 && dz[0] == 0 && dz[1] == 0, "%g %g %g %g", dx[0], dx[1], dz[0], dz[1]);
  tn_ctx_free(ctx);
}

/* A constant that a gradient is taken by is not folded into what depends on it. */
Test(grad, by_a_constant) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_graph *g = tn_graph_new(ctx, NULL);
  double three = 3, got = 0;
  tn_tensor *c = tn_const(g, "c", TN_F64, 0, NULL, &three), *e = tn_mul(g, c, c), *y = tn_mul(g, e, e), *d[2], *xs[2] = {c, e};
  cr_assert(tn_gradient(g, y, tn_omit(), 2, xs, d) == TN_OK, "%s", tn_error(ctx));
  tn_tensor *sum = tn_add(g, d[0], d[1]);
  tn_output(g, "sum", sum);
  tn_module *m = tn_compile(g, &(tn_options){.db = "none"}, 0, NULL);
  cr_assert(m, "%s", tn_error(ctx));
  cr_assert(tn_run(m, 1, &(tn_binding){sum, &got}) == TN_OK, "%s", tn_run_error());
  cr_assert_eq(got, 4 * 27 + 2 * 9, "%g", got);
  tn_ctx_free(ctx);
}

/* ---- errors ---- */

static void refused(tn_ctx *ctx, tn_graph *g, tn_tensor *y, tn_tensor *seed, tn_tensor *x, tn_status status, const char *part) {
  tn_tensor *d;
  tn_status s = tn_gradient(g, y, seed, 1, &x, &d);
  cr_expect(s == status && !d && strstr(tn_error(ctx), part) && strstr(tn_error(ctx), "tn_gradient"), "%d: %s", s, tn_error(ctx));
}

Test(grad, errors) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_graph *g = tn_graph_new(ctx, NULL), *other = tn_graph_new(ctx, NULL);
  tn_tensor *x = tn_input(g, "x", TN_F32, 1, (int64_t[]){2}), *i = tn_input(g, "i", TN_I32, 1, (int64_t[]){2}), *s = tn_input(g, "s", TN_F32, 1, (int64_t[]){3});
  tn_tensor *y = tn_mul(g, x, x), *one = tn_sum(g, y, 0, 0), *foreign = tn_input(other, "x", TN_F32, 0, NULL);
  refused(ctx, g, one, tn_omit(), i, TN_EUSAGE, "with respect to 'i', which is i32");
  refused(ctx, g, tn_sum(g, i, 0, 0), tn_omit(), x, TN_EUSAGE, "which is i32: only floats");
  refused(ctx, g, y, tn_omit(), x, TN_EUSAGE, "has more than one element: give a seed");
  refused(ctx, g, y, s, x, TN_EUSAGE, "the seed 's' does not have the type and shape");
  refused(ctx, g, one, tn_omit(), foreign, TN_EUSAGE, "belongs to another graph");
  tn_tensor *square = tn_input(g, "m", TN_F32, 2, (int64_t[]){2, 2}), *bits = tn_op(g, "BitCast", 1, &square, "to=1");
  tn_tensor *z = tn_sum(g, tn_sum(g, bits, 0, 0), 0, 0);
  refused(ctx, g, z, tn_omit(), square, TN_EUNSUPPORTED, "BitCast is not differentiable: it has no gradient rule");
  tn_tensor *d;
  cr_assert(tn_gradient(g, one, tn_omit(), 1, &x, &d) == TN_OK, "%s", tn_error(ctx)); /* the graph is as it was */
  tn_ctx_free(ctx);
}
