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
