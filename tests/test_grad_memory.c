/* Checkpoints: the same gradients in less memory. */
#include "lower/lower.h"
#include "runtime/program_interp.h"
#include <criterion/criterion.h>
#include <math.h>

typedef struct trial {
  int step;         /* a mark behind every so many of the twelve layers; 0: none */
  int memory;       /* what the gradient may keep, in bytes; 0: any */
  int64_t peak;     /* result: most bytes alive at once */
  double dw[8 * 8]; /* result: the gradient of the first weights */
} trial;

static void run(tn_ctx *ctx, void *arg) {
  trial *t = arg;
  enum { LAYERS = 12, ROWS = 32, WIDE = 8 };
  ir_text s = {.ctx = ctx};
  ir_put(&s, "graph g { input h0: f64[%d, %d] input w: f64[%d, %d] const m: f64[] = 0.9 ", ROWS, WIDE, WIDE, WIDE);
  for (int i = 0; i < LAYERS; i++) {
    ir_put(&s, "a%d = MatMul(h%d, w) b%d = Gelu(a%d) c%d = Softmax(b%d) d%d = Add(b%d, c%d) ", i, i, i, i, i, i, i, i, i);
    ir_put(&s, t->step && i % t->step == t->step - 1 ? "h%d = tenon:Checkpoint(d%d) " : "h%d = Identity(d%d) ", i + 1, i);
  }
  ir_put(&s, "q = Mul(h%d, h%d) loss = ReduceSum(q) { keepdims = 0 } dw = tenon:Gradient(loss, _, w) { memory = %d } output dw }", LAYERS, LAYERS, t->memory);
  ir_program *p = lw_compile(ctx, ir_graph_parse(ctx, ir_text_str(&s), "test"), &(lw_options){.unscheduled = true});
  double x[ROWS * WIDE], w[WIDE * WIDE];
  for (int i = 0; i < ROWS * WIDE; i++) x[i] = (i * 7 % 17 - 8) / 8.0;
  for (int i = 0; i < WIDE * WIDE; i++) w[i] = (i * 5 % 13 - 6) / 10.0;
  rt_program_interp(ctx, p, (const void *const[]){x, w}, (void *const[]){t->dw}, NULL, NULL, NULL);
  t->peak = p->live_peak_bytes;
}

Test(grad_memory, checkpoints) {
  trial t[2] = {{.step = 0}, {.step = 3}};
  for (int i = 0; i < 2; i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    cr_assert(ir_protect(ctx, run, &t[i]) == TN_OK, "%s", tn_error(ctx));
    tn_ctx_free(ctx);
  }
  for (int k = 0; k < 64; k++) cr_assert(fabs(t[0].dw[k] - t[1].dw[k]) <= 1e-12 * (1 + fabs(t[0].dw[k])), "%d: %g, not %g", k, t[1].dw[k], t[0].dw[k]);
  cr_assert(t[1].peak * 3 < t[0].peak * 2, "%lld bytes with checkpoints, %lld without", (long long)t[1].peak, (long long)t[0].peak);
}

/* Within a budget: all, all but what is cheap, or segments. A layer's results are 2048 bytes each. */
Test(grad_memory, budgets) {
  enum { ALL = 1 << 20, PRODUCTS = 26 << 10, SEGMENTS = 12 << 10, NOTHING = 1 };
  trial t[] = {{.memory = 0}, {.memory = ALL}, {.memory = PRODUCTS}, {.memory = SEGMENTS}, {.memory = NOTHING}};
  for (int i = 0; i < IR_COUNT(t); i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    cr_assert(ir_protect(ctx, run, &t[i]) == TN_OK, "%s", tn_error(ctx));
    tn_ctx_free(ctx);
    for (int k = 0; k < 64; k++) cr_assert(fabs(t[0].dw[k] - t[i].dw[k]) <= 1e-12 * (1 + fabs(t[0].dw[k])), "budget %d, %d: %g, not %g", t[i].memory, k, t[i].dw[k], t[0].dw[k]);
  }
  cr_assert_eq(t[1].peak, t[0].peak);
  for (int i = 2; i < IR_COUNT(t); i++) cr_assert(t[i].peak * 3 < t[0].peak * 2, "%lld bytes with a budget of %d, %lld without", (long long)t[i].peak, t[i].memory, (long long)t[0].peak);
}
