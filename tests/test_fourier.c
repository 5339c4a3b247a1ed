/* Fourier transforms as products with matrices, in steps and as convolutions, against the interpreter on the graph
 * as it is written, where each result is a sum in f64. */
#include "layer_help.h"
#include "lower/sizes.h"
#include <criterion/criterion.h>
#include <string.h>

typedef struct transform {
  const char *text; /* of the graph's nodes; input x, output y of floats */
  int products;     /* calls that multiply matrices; 0: stays a sum for each result */
} transform;

static ir_program *compile(tn_ctx *ctx, const char *text, bool unscheduled, int64_t *in, int64_t *out) {
  ir_graph *g = ir_graph_parse(ctx, ir_format(ctx, "graph g { %s output y }", text), "test");
  *in = ir_value_elements(ctx, g->inputs[0]);
  ir_program *p = lw_compile(ctx, g, &(lw_options){.target = cg_target_find(ctx, "x86-64-v3", NULL), .unscheduled = unscheduled});
  *out = ir_value_elements(ctx, g->outputs[0]);
  return p;
}

static void run_transform(tn_ctx *ctx, void *arg) {
  const transform *t = arg;
  int64_t in, out;
  ir_program *plain = compile(ctx, t->text, true, &in, &out), *p = compile(ctx, t->text, false, &in, &out);
  int products = 0, sums = 0;
  for (int i = 0; i < p->nrun; i++) {
    if (p->run[i].kind != IR_CALL) continue;
    const char *name = p->kernels[p->run[i].kernel].kernel->name;
    products += strncmp(name, "matmul", 6) == 0;
    sums += strncmp(name, "fourier", 7) == 0;
  }
  if (products != t->products || sums != (t->products == 0)) ir_fail(ctx, TN_EWRONG, "%d products, %d sums, not %d products", products, sums, t->products);
  const void *const x[1] = {layer_floats(ctx, in, 7)};
  layer_check(ctx, cg_target_find(ctx, "x86-64-v3", NULL), p, plain, x, out);
}

Test(fourier, transforms) {
  static const transform all[] = {
      {"input x: f32[2, 5, 1] y = DFT(x)", 0},
      {"input x: f32[3, 64, 1] y = DFT(x) {onesided = 1}", 1},
      {"input x: f32[2, 101, 1] y = DFT(x)", 1},                               /* half of it, and its mirror image */
      {"input x: f32[2, 63, 2] y = DFT(x)", 2},
      {"input x: f32[2, 33, 2] const n: i64[] = 65 y = DFT(x, n) {inverse = 1, onesided = 1}", 2},
      {"input x: f32[2, 33, 2] y = DFT(x) {inverse = 1, onesided = 1}", 2},
      {"input x: f32[2, 70, 1] const n: i64[] = 50 y = DFT(x, n) {onesided = 1}", 1},     /* cut off */
      {"input x: f32[2, 40, 2] const n: i64[] = 64 y = DFT(x, n) {inverse = 1}", 2},      /* filled up */
      {"input x: f32[2, 30, 2] y = DFT(x)", 1},
      {"input x: f32[2, 17, 2] y = DFT(x) {inverse = 1, onesided = 1}", 1},
      {"input x: f32[2, 36, 7, 1] const a: i64[] = 1 y = DFT(x, _, a)", 1},               /* from the left */
      {"input x: f32[2, 3, 20, 5, 2] const n: i64[] = 21 const a: i64[] = 2 y = DFT(x, n, a) {inverse = 1}", 1},
      {"input x: f32[2, 400, 1] y = DFT(x) {onesided = 1}", 2},                           /* steps */
      {"input x: f32[2, 405, 1] y = DFT(x)", 2},
      {"input x: f32[2, 300, 2] y = DFT(x)", 2},
      {"input x: f32[2, 333, 1] const n: i64[] = 500 y = DFT(x, n)", 2},
      {"input x: f32[2, 251, 2] const n: i64[] = 500 y = DFT(x, n) {inverse = 1, onesided = 1}", 2},
      {"input x: f32[2, 360, 3, 2] const n: i64[] = 350 const a: i64[] = 1 y = DFT(x, n, a)", 2},
      {"input x: f32[1, 1024, 2] y = DFT(x) {inverse = 1}", 3},
      {"input x: f32[1, 1021, 2] y = DFT(x)", 6},                                         /* a prime: there and back */
      {"input x: f32[1, 2053, 1] y = DFT(x) {onesided = 1}", 6},
      /* part by part, two axes, windows */
      {"input x: f32[2, 40, 2] const i: i64[] = 1 z = DFT(x) y = Gather(z, i) {axis = 2}", 2},
      {"input x: f32[2, 12, 40, 1] const a: i64[] = 1 const i: i64[] = 0 z = DFT(x) w = DFT(z, _, a) y = Gather(w, i) {axis = -1}", 2},
      {"input x: f32[2, 9, 33, 1] const a: i64[] = 1 const n: i64[] = 11 z = DFT(x) y = DFT(z, n, a) {inverse = 1}", 2},
      {"input x: f32[2, 12, 10, 2] const a: i64[] = 1 z = DFT(x) y = DFT(z, _, a)", 2},
      {"input x: f32[1, 500, 1] const s: i64[] = 40 const w: f32[8] = [0.1, 0.2, 0.7, 1.0, 1.5, 0.5, 0.25, 2.0] const n: i64[] = 64 y = STFT(x, s, w, n)", 1},
      {"input x: f32[1, 700, 1] const s: i64[] = 200 const w: f32[8] = [0.1, 0.2, 0.7, 1.0, 1.5, 0.5, 0.25, 2.0] const n: i64[] = 300 y = STFT(x, s, w, n)", 2},
      {"input x: f32[1, 500, 2] const s: i64[] = 40 const n: i64[] = 64 y = STFT(x, s, _, n) {onesided = 0}", 2},
  };
  for (int i = 0; i < IR_COUNT(all); i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    tn_status s = ir_protect(ctx, run_transform, (void *)(uintptr_t)&all[i]);
    cr_expect(s == TN_OK, "%s: %s", all[i].text, ir_error(ctx));
    tn_ctx_free(ctx);
  }
}

/* Signals are computed apart, so that a batch may have any size. */
static void batch(tn_ctx *ctx, void *arg) {
  lw_dim n = lw_dim_range(ctx, "N", 1, 8);
  lw_compile_sizes(ctx, ir_graph_parse(ctx, arg, "test"), 1, &n, &(lw_options){.target = cg_target_find(ctx, "x86-64-v3", NULL)});
}
Test(fourier, batches) {
  static const char *const all[] = {"graph g { dim N input x: f32[N, 300, 1] y = DFT(x) output y }",
                                    "graph g { dim N input x: f32[N, 12, 40, 1] const a: i64[] = 1 z = DFT(x) y = DFT(z, _, a) output y }"};
  for (int i = 0; i < IR_COUNT(all); i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    cr_expect(ir_protect(ctx, batch, (void *)(uintptr_t)all[i]) == TN_OK, "%s", ir_error(ctx));
    tn_ctx_free(ctx);
  }
}
