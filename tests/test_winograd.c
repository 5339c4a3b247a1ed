/* test_winograd.c — 3x3 convolutions by Winograd's algorithm: against the direct sum within the
 * stated error, in all sizes and with what follows; which kernels it refuses; when it is chosen. */
#include "ir/interp.h"
#include "lower/lower.h"
#include "lower/schedule.h"
#include "lower/winograd.h"
#include "runtime/module.h"
#include "runtime/program_interp.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct conv {
  int n, c, h, w, k, pad;
} conv;

/* A kernel as ops_conv.c builds it, with a bias, a residual and a clamp behind the sum. */
static const char *conv_text(tn_ctx *ctx, const conv *v, bool blocked) {
  int oh = v->h + 2 * v->pad - 2, ow = v->w + 2 * v->pad - 2;
  const char *layout = blocked ? " layout \"split 1 8; perm 0 1 3 4 2\"" : "", *guard = "", *end = "";
  if (v->pad) {
    guard = ir_format(ctx, "if y + r - %d >= 0 & y + r - %d < %d & (x + s - %d >= 0 & x + s - %d < %d) {", v->pad, v->pad, v->h, v->pad, v->pad, v->w);
    end = "}";
  }
  return ir_format(ctx,
                   "kernel conv(in X: f32[%d, %d, %d, %d]%s, const W: f32[%d, %d, 3, 3], const B: f32[%d], in Z: f32[%d, %d, %d, %d]%s, out Y: f32[%d, %d, %d, %d]%s) {"
                   " for n in 0..%d { for k in 0..%d { for y in 0..%d { for x in 0..%d { alloc acc: f32[] register acc[] = 0.0"
                   " for c in 0..%d { for r in 0..3 { for s in 0..3 { %s acc[] = fma(X[n, c, y + r - %d, x + s - %d], W[k, c, r, s], acc[]) %s } } }"
                   " let r1 = acc[] + B[k] Y[n, k, y, x] = max(r1 + Z[n, k, y, x], -2.0) } } } } }",
                   v->n, v->c, v->h, v->w, layout, v->k, v->c, v->k, v->n, v->k, oh, ow, layout, v->n, v->k, oh, ow, layout, v->n, v->k, oh, ow, v->c, guard,
                   v->pad, v->pad, end);
}

static float *random_floats(tn_ctx *ctx, int64_t n, uint64_t seed) {
  float *p = ir_alloc(ctx, (size_t)n * 4 + 64);
  for (int64_t i = 0; i < n; i++) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    p[i] = (float)(seed >> 40) / (float)(1 << 23) - 1;
  }
  return p;
}

static int64_t elements(tn_ctx *ctx, const ir_buf *b) {
  int64_t n;
  cr_assert(ix_const_value(ir_buf_elements(ctx, b), &n));
  return n;
}

/* Largest difference between the kernel and its scheduled form, over the largest result. */
static double error_of(tn_ctx *ctx, const ir_kernel *k, const ir_kernel *s) {
  void *a[8], *b[8];
  for (int i = 0; i < k->nbufs; i++) {
    a[i] = b[i] = random_floats(ctx, elements(ctx, k->bufs[i]), (uint64_t)i + 1);
    if (k->bufs[i]->access == IR_OUT) b[i] = random_floats(ctx, elements(ctx, k->bufs[i]), (uint64_t)i + 1); /* padding stays alike */
    if (!s->bufs[i]->made) continue;
    b[i] = ir_alloc(ctx, (size_t)elements(ctx, s->bufs[i]) * 4);
    ir_interp(ctx, lw_made_kernel(ctx, s->bufs[i]), (void *[]){a[i], b[i]}, NULL);
  }
  ir_interp(ctx, k, a, NULL);
  ir_interp_opt(ctx, s, b, NULL, &(ir_interp_options){.seed = 5});
  double worst = 0, top = 0;
  const float *x = a[k->nbufs - 1], *y = b[k->nbufs - 1];
  for (int64_t i = 0; i < elements(ctx, k->bufs[k->nbufs - 1]); i++) {
    if (!(fabs(x[i] - y[i]) <= worst)) worst = fabs(x[i] - y[i]);
    if (fabsf(x[i]) > top) top = fabsf(x[i]);
  }
  return worst / top;
}

typedef struct ask {
  conv v;
  bool blocked;
  const char *schedule;
} ask;

static void run_conv(tn_ctx *ctx, void *arg) {
  const ask *q = arg;
  const char *text = conv_text(ctx, &q->v, q->blocked), *reason;
  const ir_kernel *k = ir_kernel_parse(ctx, text, "test"), *s = lw_schedule_apply(ctx, k, q->schedule, &reason);
  if (!s) ir_fail(ctx, TN_EWRONG, "refused: %s", reason);
  const char *wrong = ir_kernel_verify(ctx, s);
  if (wrong) ir_fail(ctx, TN_EWRONG, "%s\n%s", wrong, ir_kernel_print(ctx, s));
  double e = error_of(ctx, k, s), stated = lw_schedule_error(ctx, k, q->schedule);
  if (!(stated > 0 && e <= stated)) ir_fail(ctx, TN_EWRONG, "error %g, stated %g", e, stated);
  if (e == 0) ir_fail(ctx, TN_EWRONG, "the very same sums: was it transformed at all?");
}

static void check(conv v, bool blocked, const char *schedule) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_status st = ir_protect(ctx, run_conv, &(ask){v, blocked, schedule});
  cr_expect_eq(st, TN_OK, "n%d c%d h%d w%d k%d pad %d, %s: %.1200s", v.n, v.c, v.h, v.w, v.k, v.pad, schedule, tn_error(ctx));
  tn_ctx_free(ctx);
}

Test(winograd, sizes) {
  static const char *const schedules[] = {"algorithm winograd 2 3 8 8 1", "algorithm winograd 4 4 16 8 2", "algorithm winograd 6 1 8 4 1\nparallel task",
                                          "algorithm winograd 4 5 16 8 1\nsplit wt 3 -> wt ri\nsplit wk 8 -> vb vv\ndistribute ri vb vv\nunroll ri\nunroll ri.i0\nunroll ri.i1\n"
                                          "unroll vb\nunroll vb.i0\nunroll vb.i1\nvectorize vv\nvectorize vv.i0\nvectorize vv.i1\npeel wt 0 1\nparallel task"};
  static const conv convs[] = {{1, 8, 8, 8, 16, 1}, {2, 5, 7, 9, 11, 1}, {1, 17, 3, 4, 20, 0}, {3, 8, 1, 1, 8, 1}, {1, 3, 6, 13, 9, 2}};
  for (int i = 0; i < IR_COUNT(schedules); i++)
    for (int j = 0; j < IR_COUNT(convs); j++) check(convs[j], (i + j) % 2, schedules[i]);
}

/* ---- refusals ---- */

typedef struct refusal {
  const char *kernel, *schedule, *why;
} refusal;

static void run_refusal(tn_ctx *ctx, void *arg) {
  const refusal *q = arg;
  const char *reason = NULL;
  if (lw_schedule_apply(ctx, ir_kernel_parse(ctx, q->kernel, "test"), q->schedule, &reason)) ir_fail(ctx, TN_EWRONG, "not refused");
  if (!strstr(reason, q->why)) ir_fail(ctx, TN_EWRONG, "refused with \"%s\"", reason);
}

#define LOOPS "for n in 0..1 { for k in 0..8 { for y in 0..6 { for x in 0..6 { alloc acc: f32[] register acc[] = 0.0 for c in 0..4 { for r in 0..3 { for s in 0..3 { "
#define TAIL " } } } Y[n, k, y, x] = acc[] } } } } }"
#define HEAD "kernel conv(in X: f32[1, 4, 8, 8], const W: f32[8, 4, 3, 3], out Y: f32[1, 8, 6, 6]) { "
#define PLAIN HEAD LOOPS "acc[] = fma(X[n, c, y + r, x + s], W[k, c, r, s], acc[])" TAIL

Test(winograd, refused) {
  static const refusal all[] = {
      {PLAIN, "algorithm winograd 3 4 8 8 1", "2, 4 and 6 are known"},
      {PLAIN, "algorithm winograd 4 4 8 8", "five numbers"},
      {PLAIN, "algorithm winograd 4 4 12 8 1", "out of range"},
      {PLAIN, "algorithm winograd 4 0 8 8 1", "out of range"},
      {PLAIN, "algorithm strassen 2", "no algorithm 'strassen'"},
      {PLAIN, "split x 3 -> x xi\nalgorithm winograd 4 4 8 8 1", "no convolution"},
      {PLAIN, "parallel n\nalgorithm winograd 4 4 8 8 1", "scheduled already"},
      {PLAIN, "layout W \"perm 1 0 2 3\"\nalgorithm winograd 4 4 8 8 1", "own layout"},
      {"kernel conv(in X: f32[1, 4, 8, 8], in W: f32[8, 4, 3, 3], out Y: f32[1, 8, 6, 6]) { " LOOPS "acc[] = fma(X[n, c, y + r, x + s], W[k, c, r, s], acc[])" TAIL,
       "algorithm winograd 4 4 8 8 1", "not a constant operand"},
      {HEAD LOOPS "acc[] = fma(X[n, c, y + s, x + r], W[k, c, r, s], acc[])" TAIL, "algorithm winograd 4 4 8 8 1", "does not read"},
      {HEAD LOOPS "if x + s < 5 { acc[] = fma(X[n, c, y + r, x + s], W[k, c, r, s], acc[]) }" TAIL, "algorithm winograd 4 4 8 8 1", "guard"},
      {"kernel conv(in X: f32[1, 4, 14, 14], const W: f32[8, 4, 3, 3], out Y: f32[1, 8, 6, 6]) { " LOOPS
       "acc[] = fma(X[n, c, 2*y + r, 2*x + s], W[k, c, r, s], acc[])" TAIL, "algorithm winograd 4 4 8 8 1", "does not read"},
      {"kernel m(in A: f32[4, 4], out B: f32[4, 4]) { for i in 0..4 { for j in 0..4 { B[i, j] = A[i, j] } } }", "algorithm winograd 4 4 8 8 1", "no convolution"},
  };
  for (int i = 0; i < IR_COUNT(all); i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    refusal q = all[i];
    cr_expect_eq(ir_protect(ctx, run_refusal, &q), TN_OK, "%d: %s: %.900s", i, q.schedule, tn_error(ctx));
    tn_ctx_free(ctx);
  }
}

/* ---- chosen, packed and compiled ---- */

typedef struct whole {
  const char *cpu;
  double accuracy;
  bool expected; /* that some kernel goes by Winograd */
} whole;

static void run_whole(tn_ctx *ctx, void *arg) {
  const whole *q = arg;
  const int64_t w1[4] = {40, 24, 3, 3}, w2[4] = {32, 40, 3, 3}, b1[1] = {40};
  float *want = ir_alloc(ctx, 32 * 13 * 18 * 4 + 64), *got = ir_alloc(ctx, 32 * 13 * 18 * 4 + 64), *x = random_floats(ctx, 24 * 13 * 18, 3);
  for (int way = 0; way < 2; way++) {
    ir_graph *g = ir_graph_new(ctx, "g");
    ix dims[4] = {ix_index(ctx, 1), ix_index(ctx, 24), ix_index(ctx, 13), ix_index(ctx, 18)};
    ir_value *in[3] = {ir_graph_input(g, "x", TN_F32, 4, dims), ir_graph_const(g, "w1", TN_F32, 4, w1, random_floats(ctx, 40 * 24 * 9, 4), false),
                       ir_graph_const(g, "b1", TN_F32, 1, b1, random_floats(ctx, 40, 5), false)};
    ir_node *n = ir_node_new(g, "Conv", "c1", 3, in, 1);
    ir_attr_ints(n, "pads", 4, (int64_t[]){1, 1, 1, 1});
    in[0] = ir_node_new(g, "Relu", "r", 1, n->out, 1)->out[0];
    in[1] = ir_graph_const(g, "w2", TN_F32, 4, w2, random_floats(ctx, 32 * 40 * 9, 6), false);
    n = ir_node_new(g, "Conv", "c2", 2, in, 1);
    ir_attr_ints(n, "pads", 4, (int64_t[]){1, 1, 1, 1});
    ir_graph_output(g, n->out[0]);
    lw_options o = {.target = cg_target_find(ctx, q->cpu, NULL), .unscheduled = way == 0, .accuracy = q->accuracy};
    ir_program *p = lw_compile(ctx, g, &o);
    double error = 0;
    for (int i = 0; i < p->nkernels; i++) error = fmax(error, lw_schedule_error(ctx, p->kernels[i].kernel, p->kernels[i].schedule));
    if (way && (error > 0) != q->expected) ir_fail(ctx, TN_EWRONG, "stated error %g", error);
    /* the program's text says the same */
    ir_program *again = ir_program_parse(ctx, ir_program_print(ctx, p), "again");
    lw_apply_schedules(ctx, again);
    const void *in_memory[1] = {x};
    void *out[1] = {way ? got : want};
    if (way == 0) rt_program_interp(ctx, p, in_memory, out, NULL, NULL, NULL);
    else if (cg_target_runs_here(ctx, o.target, NULL)) {
      rt_module *m = rt_module_build(ctx, p, &(rt_options){.target = o.target});
      if (rt_run(m, in_memory, out, NULL, NULL)) ir_fail(ctx, TN_EWRONG, "the run failed");
      rt_module_free(ctx, m);
    } else rt_program_interp(ctx, p, in_memory, out, NULL, NULL, NULL);
  }
  double top = 0, worst = 0;
  for (int i = 0; i < 32 * 13 * 18; i++) {
    top = fmax(top, fabsf(want[i]));
    if (!(fabsf(want[i] - got[i]) <= worst)) worst = fabsf(want[i] - got[i]);
  }
  if (!(worst <= fmax(q->accuracy, 1e-6) * top)) ir_fail(ctx, TN_EWRONG, "error %g of %g", worst, top);
}

Test(winograd, in_a_graph) {
  static const whole all[] = {{"x86-64-v3", 1e-4, true}, {"x86-64-v3", 0, false}, {"x86-64-v4", 1e-4, true}, {"x86-64-v2", 1e-3, true}, {"x86-64-v3", 1e-6, false}};
  for (int i = 0; i < IR_COUNT(all); i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    whole q = all[i];
    cr_expect_eq(ir_protect(ctx, run_whole, &q), TN_OK, "%s, accuracy %g: %.900s", q.cpu, q.accuracy, tn_error(ctx));
    tn_ctx_free(ctx);
  }
}
