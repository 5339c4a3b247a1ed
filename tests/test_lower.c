/* test_lower.c — passes, fusion, memory plan: whole graphs against themselves node by node. */
#include "lower/lower.h"
#include "ops_help.h"
#include "runtime/module.h"
#include "runtime/program_interp.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory plan ---- */

static uint64_t state = 1;
static int draw(int n) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (int)((state >> 33) % (uint64_t)n);
}

Test(lower, memory_plan) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  double worst = 0, sum = 0;
  for (int round = 0; round < 300; round++) {
    int n = 1 + draw(60);
    lw_lifetime b[61];
    for (int i = 0; i < n; i++) {
      int first = draw(40);
      b[i] = (lw_lifetime){first, first + draw(6), 1 + draw(100000), -1};
    }
    int64_t peak, total = lw_plan_memory(ctx, n, b, &peak);
    for (int i = 0; i < n; i++) {
      cr_assert(b[i].offset >= 0 && b[i].offset % 64 == 0 && b[i].offset + b[i].bytes <= total);
      for (int j = 0; j < i; j++)
        cr_assert(b[i].last < b[j].first || b[j].last < b[i].first || b[i].offset + b[i].bytes <= b[j].offset || b[j].offset + b[j].bytes <= b[i].offset,
                  "buffers %d and %d overlap", i, j);
    }
    cr_assert_geq(total, peak);
    double ratio = (double)total / (double)peak;
    sum += ratio;
    if (ratio > worst) worst = ratio;
  }
  cr_assert_lt(sum / 300, 1.1, "mean %g", sum / 300);
  tn_ctx_free(ctx);
}

/* ---- whole graphs ---- */

typedef struct trial {
  const char *text;
  int kernels; /* of the run section; -1: any */
  int steps;   /* the same with schedules */
} trial;

static void fill(void *p, const ir_slot *s) {
  int64_t n = 1;
  for (int i = 0; i < s->rank; i++) n *= s->dims[i];
  for (int64_t i = 0; i < n; i++) ((float *)p)[i] = (float)(draw(2001) - 1000) / 500.0f;
}

static bool always_cut(void *user, tn_ctx *ctx, const lw_group *group) {
  (void)user;
  if (strlen(group->hash) != 16 || !(group->elements > 0)) ir_fail(ctx, TN_EWRONG, "group '%s' of %g elements", group->hash, group->elements);
  return true;
}

/* The graph compiled in several ways: all give what the unscheduled, row-major one gives by the interpreter. */
static void run_trial(tn_ctx *ctx, void *arg) {
  const trial *t = arg;
  void *in[8] = {0}, *want[8] = {0}, *got[8] = {0};
  for (int way = 0; way < 5; way++) {
    ir_graph *g = ir_graph_parse(ctx, t->text, "test");
    lw_options o = {.target = cg_target_find(ctx, NULL, NULL), .unscheduled = way == 0};
    if (way == 2) o.layout = LW_LAYOUT_NCHW;
    if (way == 3) o.layout = LW_LAYOUT_NHWC;
    if (way == 4) o.cut = always_cut, o.cut_user = NULL;
    ir_program *p = lw_compile(ctx, g, &o);
    const char *wrong = ir_program_verify(ctx, p);
    if (wrong) ir_fail(ctx, TN_EWRONG, "way %d: %s", way, wrong);
    for (int i = 0; i < p->nkernels; i++)
      if ((wrong = ir_kernel_verify(ctx, p->kernels[i].lowered))) ir_fail(ctx, TN_EWRONG, "way %d: %s\n%s", way, wrong, p->kernels[i].schedule);
    if (way == 0 && t->kernels >= 0 && p->nrun != t->kernels) ir_fail(ctx, TN_EWRONG, "%d steps, expected %d:\n%s", p->nrun, t->kernels, ir_program_print(ctx, p));
    if (way == 1 && t->steps >= 0 && p->nrun != t->steps) ir_fail(ctx, TN_EWRONG, "%d steps with schedules, expected %d:\n%s", p->nrun, t->steps, ir_program_print(ctx, p));
    int64_t bytes[8] = {0};
    for (int i = 0; i < p->nslots; i++) {
      const ir_slot *s = &p->slots[i];
      if (s->kind == IR_SLOT_INPUT && !in[s->index]) fill(in[s->index] = ir_alloc(ctx, (size_t)s->bytes + 64), s);
      if (s->kind == IR_SLOT_OUTPUT) {
        bytes[s->index] = s->bytes;
        void **to = way == 0 ? want : got;
        to[s->index] = ir_alloc(ctx, (size_t)s->bytes + 64);
      }
    }
    if (way == 0) rt_program_interp(ctx, p, (const void *const *)in, want, NULL, NULL, NULL);
    else {
      rt_module *m = rt_module_build(ctx, p, NULL);
      int r = rt_run(m, (const void *const *)in, got, NULL, NULL);
      if (r) ir_fail(ctx, TN_EWRONG, "way %d: run gave %d", way, r);
      rt_module_free(ctx, m);
      for (int o = 0; o < p->noutputs; o++)
        for (int64_t i = 0; i < bytes[o] / 4; i++) {
          float a = ((float *)got[o])[i], b = ((float *)want[o])[i];
          if (!(fabsf(a - b) <= 1e-4f * (1 + fabsf(b)))) ir_fail(ctx, TN_EWRONG, "way %d: output %d element %lld: %g, should be %g", way, o, (long long)i, a, b);
        }
    }
  }
}

/* Calls of a run where all groups are cut whose text begins so. */
static bool cut_here(void *user, tn_ctx *ctx, const lw_group *group) {
  (void)ctx;
  return strncmp(group->text, user, strlen(user)) == 0;
}
static int steps_cut(const char *text, const char *where) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  int n = lw_compile(ctx, ir_graph_parse(ctx, text, "test"), &(lw_options){.target = cg_target_find(ctx, NULL, NULL), .cut = cut_here, .cut_user = (void *)where})->nrun;
  tn_ctx_free(ctx);
  return n;
}

static void try(trial t) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_status s = ir_protect(ctx, run_trial, &t);
  cr_expect_eq(s, TN_OK, "%.1500s\n%s", tn_error(ctx), t.text);
  tn_ctx_free(ctx);
}

static void graph(int kernels, const char *text) { try((trial){text, kernels, -1}); }
static void graph_steps(int steps, const char *text) { try((trial){text, -1, steps}); }

Test(lower, epilogues) {
  /* a chain after a product is one kernel; so is one that meets a residual */
  graph(1, "graph g { input a: f32[5, 8] input b: f32[8, 20] y = MatMul(a, b) z = Relu(y) w = Exp(z) output w }");
  graph(1, "graph g { input a: f32[5, 8] input b: f32[8, 20] input r: f32[5, 20] y = MatMul(a, b) z = Add(y, r) w = Relu(z) output w }");
  /* both the sum and what follows are wanted */
  graph(1, "graph g { input a: f32[5, 8] input b: f32[8, 20] y = MatMul(a, b) s = Sigmoid(y) w = Mul(y, s) output w, y }");
  /* a broadcast operand */
  graph(1, "graph g { input a: f32[5, 8] input b: f32[8, 20] input c: f32[20] y = MatMul(a, b) z = Add(y, c) output z }");
  /* an operand that needs the product itself by another way cannot join it */
  graph(3, "graph g { input a: f32[6, 6] y = MatMul(a, a) z = MatMul(y, a) w = Add(y, z) v = MatMul(w, a) output v }");
}

Test(lower, cuts) {
  const char *product = "graph g { input a: f32[5, 8] input b: f32[8, 20] input r: f32[5, 20] y = MatMul(a, b) z = Add(y, r) w = Relu(z) output w }";
  cr_expect_eq(steps_cut(product, "nowhere"), 1);
  cr_expect_eq(steps_cut(product, "behind MatMul"), 2);
  cr_expect_eq(steps_cut(product, "behind MatMul(f32 5x8,f32 8x20) Add(f32 5x20,f32 5x20) Relu(f32 5x20)"), 2);
  cr_expect_eq(steps_cut(product, "before"), 1);
  const char *sum = "graph g { input a: f32[5, 40] const axes: i64[1] = [1] s = Sigmoid(a) y = ReduceSum(s, axes) z = Exp(y) output z }";
  cr_expect_eq(steps_cut(sum, "nowhere"), 1);
  cr_expect_eq(steps_cut(sum, "before ReduceSum"), 2);
  cr_expect_eq(steps_cut(sum, "behind ReduceSum"), 2);
  cr_expect_eq(steps_cut(sum, "be"), 3);
  graph(1, sum); /* the same results wherever it is cut */
  graph(-1, "graph g { input a: f32[6, 6] y = MatMul(a, a) s = Sigmoid(y) z = MatMul(s, a) w = Add(y, z) v = MatMul(w, a) u = Add(v, s) output u, w }");
  graph(-1, "graph g { input x: f32[1, 16, 6, 6] input w: f32[16, 16, 1, 1] y = Conv(x, w) a = Add(y, x) b = Relu(a) c = Concat(b, x) {axis = 1} p = GlobalAveragePool(c) output c, p }");
}

Test(lower, two_products_that_need_each_other) {
  /* each sum needs the other product: joining both would be a circle */
  graph(-1, "graph g { input a: f32[6, 6] input b: f32[6, 6] p = MatMul(a, b) q = MatMul(b, a) x = Add(p, q) y = Sub(q, p) z = Mul(x, y) output x, y, z }");
}

Test(lower, aliases) {
  graph(1, "graph g { input a: f32[4, 6] y = Flatten(a) z = Relu(y) output z }");
  graph(2, "graph g { input a: f32[2, 3, 4] b = Relu(a) c = Flatten(b) d = Softmax(c) output d }");
  /* an input that goes straight out, twice */
  graph(2, "graph g { input a: f32[7] output a, a }");
  graph(-1, "graph g { input a: f32[2, 12] b = Exp(a) c, d = Split(b) { axis = 1, num_outputs = 2 } e = Sub(c, d) output e, c }");
}

Test(lower, convolutions) {
#define CONV(x, w, attrs, more) "graph g { input x: f32" x " input w: f32" w " y = Conv(x, w) " attrs " " more " }"
  graph(1, CONV("[1, 3, 9, 11]", "[8, 3, 3, 3]", "{ pads = [1, 1, 1, 1] }", "z = Relu(y) output z"));
  graph(-1, CONV("[1, 32, 14, 14]", "[48, 32, 3, 3]", "{ pads = [1, 1, 1, 1], strides = [2, 2] }", "z = Relu(y) u = MaxPool(z) { kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1] } output u"));
  graph(-1, CONV("[1, 32, 7, 7]", "[24, 32, 1, 1]", "", "z = Clip(y) u = GlobalAveragePool(z) output u"));
  graph(-1, CONV("[2, 24, 15, 17]", "[24, 1, 3, 3]", "{ pads = [1, 1, 1, 1], group = 24 }", "z = Sigmoid(y) u = Mul(y, z) output u"));
  graph(-1, CONV("[1, 20, 12, 13]", "[20, 5, 3, 3]", "{ pads = [2, 2, 2, 2], dilations = [2, 2], group = 4 }", "output y"));
  graph(-1, CONV("[1, 16, 29]", "[40, 16, 5]", "{ pads = [2, 2], strides = [2] }", "output y"));
  graph(-1, CONV("[1, 18, 31, 5]", "[33, 18, 5, 1]", "{ pads = [2, 0, 2, 0] }", "z = Relu(y) output z, y"));
  graph(-1, "graph g { input x: f32[1, 24, 10, 9] input w: f32[24, 17, 2, 2] y = ConvTranspose(x, w) { strides = [2, 2] } z = Relu(y) output z }");
  graph(-1, "graph g { input x: f32[1, 16, 6, 6] input w: f32[16, 16, 3, 3] y = ConvTranspose(x, w) { strides = [2, 2], pads = [1, 1, 1, 1], output_padding = [1, 1] } output y }");
  /* a residual block */
  graph(-1, "graph g { input x: f32[1, 32, 8, 8] input w: f32[32, 32, 3, 3] input v: f32[32, 32, 1, 1]"
            " a = Conv(x, w) { pads = [1, 1, 1, 1] } b = Relu(a) c = Conv(b, v) d = Add(c, x) e = Relu(d) f = AveragePool(e) { kernel_shape = [2, 2], strides = [2, 2] } output f }");
}

/* Weights that are computed from constants: packed ahead, in the layout that the schedule asks for. */
static void constant_conv(int n, int c, int h, int w, int k, int groups, int r, int q, const char *attrs) {
  int64_t count = (int64_t)k * (c / groups) * r * q;
  char text[900];
  snprintf(text, sizeof text, "graph g { input x: f32[%d, %d, %d, %d] const lo: f32[] = 0.0 const hi: f32[] = %d.0 const by: f32[] = 1.0 const shape: i64[4] = [%d, %d, %d, %d]"
           " a = Range(lo, hi, by) b = Sin(a) v = Reshape(b, shape) y = Conv(x, v) { group = %d, %s } z = Relu(y) output z }",
           n, c, h, w, (int)count, k, c / groups, r, q, groups, attrs);
  graph(-1, text);
}

Test(lower, constant_weights) {
  constant_conv(1, 32, 14, 14, 64, 1, 3, 3, "pads = [1, 1, 1, 1]");
  constant_conv(1, 32, 7, 7, 40, 1, 3, 3, "pads = [1, 1, 1, 1]");
  constant_conv(1, 48, 9, 30, 24, 1, 3, 3, "pads = [1, 1, 1, 1], strides = [2, 2]");
  constant_conv(1, 64, 13, 13, 17, 1, 1, 1, "strides = [1, 1]");
  constant_conv(2, 16, 28, 28, 32, 1, 1, 1, "strides = [2, 2]");
  constant_conv(1, 3, 32, 33, 48, 1, 7, 7, "pads = [3, 3, 3, 3], strides = [2, 2]");
  constant_conv(1, 40, 19, 23, 40, 40, 5, 5, "pads = [2, 2, 2, 2]");
  constant_conv(1, 32, 16, 16, 32, 2, 3, 3, "pads = [1, 1, 1, 1]");
  constant_conv(1, 20, 8, 50, 33, 1, 3, 1, "pads = [2, 0, 0, 0], dilations = [2, 1]");
}

Test(lower, products_of_odd_sizes) {
  static const int m[] = {1, 2, 3, 13, 14, 15, 29, 50}, n[] = {1, 7, 16, 17, 31, 33, 64, 100}, k[] = {1, 3, 8, 33};
  for (int i = 0; i < 24; i++)
    for (int constant = 0; constant < 2; constant++) {
      char text[600];
      int M = m[draw(8)], N = n[draw(8)], K = k[draw(4)];
      if (constant)
        snprintf(text, sizeof text, "graph g { input a: f32[%d, %d] input u: f32[%d] const lo: f32[] = 0.0 const hi: f32[] = %d.0 const by: f32[] = 1.0 const s: i64[2] = [%d, %d] r = Range(lo, hi, by) c = Sin(r) b = Reshape(c, s) y = MatMul(a, b) z = Add(y, u) output z }", M, K, N, K * N, K, N);
      else snprintf(text, sizeof text, "graph g { input a: f32[%d, %d] input b: f32[%d, %d] input u: f32[%d] y = MatMul(a, b) z = Add(y, u) output z }", M, K, K, N, N);
      graph(-1, text);
    }
}

/* Gradients of weights: A lies column by column; parts of the rows as tasks, chunks of the sum, tails of all kinds. */
Test(lower, turned_products) {
  static const int m[] = {7, 61, 390, 577}, n[] = {16, 37, 100}, k[] = {9, 64, 130, 521};
  for (int i = 0; i < 10; i++) {
    char text[200];
    int M = m[draw(4)], N = n[draw(3)], K = k[draw(M > 100 ? 2 : 4)];
    snprintf(text, sizeof text, "graph g { input a: f32[%d, %d] input b: f32[%d, %d] input u: f32[%d, %d] y = Gemm(a, b) { transA = 1 } z = Sub(u, y) output z }", K, M, K, N, M, N);
    graph(-1, text);
  }
}

/* Rows of dot products: odd numbers of them, few, batches, either operand the vector. */
Test(lower, matrix_times_vector) {
  graph(1, "graph g { input a: f32[128, 700] input b: f32[700, 1] input u: f32[128, 1] y = MatMul(a, b) z = Add(y, u) w = Relu(z) output w }");
  graph(1, "graph g { input a: f32[13, 65] input b: f32[65] y = MatMul(a, b) output y }");
  graph(1, "graph g { input a: f32[3, 1030] input b: f32[1030, 1] y = MatMul(a, b) output y }");
  graph(1, "graph g { input a: f32[2, 19, 96] input b: f32[2, 96, 1] y = MatMul(a, b) output y }");
  graph(1, "graph g { input a: f32[4, 9, 48] input b: f32[48] y = MatMul(a, b) output y }");
  graph(1, "graph g { input a: f32[1, 130] input b: f32[41, 130] y = Gemm(a, b) { transB = 1 } output y }");
  graph(-1, "graph g { input a: f32[130, 12] input b: f32[130, 1] y = Gemm(a, b) { transA = 1 } output y }");
  graph(-1, "graph g { input a: f32[1, 500] input b: f32[500, 1] y = MatMul(a, b) output y }");
}

Test(lower, rows) {
  graph(1, "graph g { input x: f32[5, 37] y = Softmax(x) output y }");
  graph(-1, "graph g { input x: f32[3, 130] input s: f32[130] input b: f32[130] y = LayerNormalization(x, s, b) z = Relu(y) output z }");
  graph(-1, "graph g { input x: f32[4, 9, 50] y = ReduceMax(x) { keepdims = 1 } z = Sub(x, y) e = Exp(z) output e }");
  graph(-1, "graph g { input x: f32[2, 5, 3, 4] y = Transpose(x) { perm = [0, 2, 3, 1] } z = Softmax(y) w = Transpose(z) { perm = [0, 3, 1, 2] } output w }");
}

/* Expressions whose trees double with each node: the fused ones are cut, and nobody looks at weights path by path. */
Test(lower, chains) {
  static const char *const ops[] = {"Add", "HardSwish", "Softplus", "Mul"};
  for (int op = 0; op < 4; op++)
    for (int weights = 0; weights < 2; weights++) {
      char text[8192], *t = text, *end = text + sizeof text;
      t += snprintf(t, (size_t)(end - t), "graph g { input x: f32[1, 16, 5, 5] const w: f32[16, 16, 1, 1] = [");
      for (int i = 0; i < 256; i++) t += snprintf(t, (size_t)(end - t), "%s%d.25", i ? ", " : "", i * 7 % 3 - 1);
      t += snprintf(t, (size_t)(end - t), "] v0 = Clip(%s, a, b) ", weights ? "w" : "x");
      for (int i = 0; i < 60; i++) t += snprintf(t, (size_t)(end - t), op % 3 ? "v%d = %s(v%d) " : "v%d = %s(v%d, v%d) ", i + 1, ops[op], i, i);
      snprintf(t, (size_t)(end - t), "%s output y }", weights ? "y = Conv(x, v60)" : "y = Conv(v60, w)");
      char *bounds = strstr(text, "] v0");
      cr_assert(bounds);
      char whole[8400];
      snprintf(whole, sizeof whole, "%.*s] const a: f32[] = -0.75 const b: f32[] = 0.75%s", (int)(bounds - text), text, bounds + 1);
      graph(-1, whole);
    }
}

/* Signals and volumes have blocks of channels as pictures do: convolutions of all kinds, pooling, concatenation between them. */
Test(lower, signals_and_volumes) {
  static const char *const layers[] = {"pads = [%s], strides = [%s]", "pads = [%s], group = %d", "dilations = [%s], pads = [%s]"};
  for (int rank = 1; rank <= 3; rank += 2)
    for (int kind = 0; kind < 9; kind++) {
      bool volume = rank == 3, known = kind % 3 < 2;
      int c = kind < 3 ? 32 : 20, k = kind < 6 ? 32 : 24, group = kind % 3 == 1 ? (kind < 3 ? 32 : 4) : 1;
      const char *window = volume ? "3, 2, 3" : "3", *size = volume ? "5, 6, 9" : "61", *pads = volume ? "1, 0, 1, 1, 1, 1" : "1, 1",
                 *two = volume ? "2, 1, 2" : "2";
      char attrs[200], *text = malloc(1 << 18), *t = text, *end = text + (1 << 18);
      if (kind % 3 == 1) snprintf(attrs, sizeof attrs, layers[1], pads, group);
      else snprintf(attrs, sizeof attrs, layers[kind % 3], kind % 3 ? two : pads, kind % 3 ? pads : two);
      t += snprintf(t, (size_t)(end - t), "graph g { input x: f32[2, %d, %s] ", c, size);
      int taps = volume ? 18 : 3;
      if (known) {
        t += snprintf(t, (size_t)(end - t), "const w: f32[%d, %d, %s] = [", k, c / group, window);
        for (int i = 0; i < k * (c / group) * taps; i++) t += snprintf(t, (size_t)(end - t), "%s%g", i ? ", " : "", (draw(129) - 64) / 512.0);
        t += snprintf(t, (size_t)(end - t), "] ");
      } else t += snprintf(t, (size_t)(end - t), "input w: f32[%d, %d, %s] ", k, c / group, window);
      snprintf(t, (size_t)(end - t),
               "y = Conv(x, w) { %s } r = Relu(y) p = MaxPool(r) { kernel_shape = [%s], pads = [%s] } c = Concat(p, p) { axis = 1 } s = Sigmoid(c)"
               " m = GlobalAveragePool(s) z = Mul(s, m) output z }", attrs, volume ? "2, 2, 3" : "3", volume ? "0, 0, 1, 1, 1, 1" : "1, 1");
      graph(-1, text);
      free(text);
    }
}

/* Channels that are no whole blocks, taps that meet only padding, one by one and together. */
Test(lower, ragged_channels_and_dead_taps) {
  static const char *const attrs[] = {"pads = [1, 1, 1, 1]", "pads = [6, 6, 6, 6], dilations = [6, 6]", "pads = [3, 7, 3, 7], dilations = [3, 7], strides = [1, 2]",
                                      "pads = [9, 2, 8, 3], dilations = [8, 2], strides = [3, 1]", "auto_pad = \"SAME_LOWER\", dilations = [5, 6]"};
  static const int size[][2] = {{6, 6}, {5, 11}, {1, 1}, {13, 4}};
  for (int a = 0; a < IR_COUNT(attrs); a++)
    for (int i = 0; i < IR_COUNT(size); i++) {
      char text[700];
      int c = draw(3) * 7 + 13, k = draw(2) * 11 + 24;
      snprintf(text, sizeof text,
               "graph g { input x: f32[2, %d, %d, %d] input w: f32[%d, %d, 3, 3] input b: f32[%d] input v: f32[20, %d, 1, 1] r = Relu(x) y = Conv(r, w, b) { %s } z = Relu(y)"
               " u = Conv(z, v) t = Sigmoid(u) output t }", c, size[i][0], size[i][1], k, c, k, k, attrs[a]);
      graph(-1, text);
    }
}

/* Pooling in blocks of channels: windows that overlap or not, borders wider than a tile, rows of one tile and of several. */
Test(lower, pooling) {
  static const char *const attrs[] = {"kernel_shape = [3, 3], pads = [1, 1, 1, 1]", "kernel_shape = [2, 2], strides = [2, 2]",
                                      "kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1", "kernel_shape = [5, 4], pads = [2, 1, 2, 2], dilations = [1, 2]"};
  static const char *const ops[] = {"MaxPool", "AveragePool"};
  static const int size[][2] = {{7, 9}, {12, 31}, {9, 56}};
  for (int o = 0; o < IR_COUNT(ops); o++)
    for (int a = 0; a < IR_COUNT(attrs); a++)
      for (int i = 0; i < IR_COUNT(size); i++) {
        char text[500];
        int c = (draw(2) + 2) * 16;
        snprintf(text, sizeof text,
                 "graph g { input x: f32[2, 16, %d, %d] input w: f32[%d, 16, 1, 1] y = Conv(x, w) p = %s(y) { %s } z = Relu(p) output z }", size[i][0], size[i][1], c,
                 ops[o], attrs[a]);
        graph(-1, text);
      }
}

/* Concatenation: its parts are stored in it where they lie there whole, by those who compute them anyway. */
#define PARTS "graph g { input a: f32[1, 8] input b: f32[8, 20] input c: f32[8, 12] input v: f32[12, 8] y = MatMul(a, b) z = MatMul(a, c) "
Test(lower, concatenation_in_place) {
  graph_steps(2, PARTS "d = Concat(y, z) { axis = 1 } output d }");
  graph_steps(3, PARTS "d = Concat(y, z) { axis = 1 } output d, y }"); /* y is copied out */
  graph_steps(3, PARTS "r = Relu(y) d = Concat(r, z) { axis = 1 } e = Exp(d) f = Mul(y, y) output e, f }");
  graph_steps(3, PARTS "d = Concat(y, z, y) { axis = 1 } output d }"); /* one value, two places */
  graph_steps(3, PARTS "d = Concat(y, a, z) { axis = 1 } output d }"); /* an input lies where it lies */
  graph_steps(4, PARTS "d = Concat(y, z) { axis = 1 } e = Concat(d, z) { axis = 1 } f = Exp(d) output e, f }");
  graph_steps(4, PARTS "w = MatMul(z, v) d = Concat(y, z) { axis = 1 } e = Concat(y, z, w) { axis = 1 } f = Exp(d) g = Neg(w) output e, f, g }"); /* d is how e begins */
  graph_steps(-1, PARTS "w = MatMul(z, v) d = Concat(y, z) { axis = 1 } e = Concat(d, w) { axis = 1 } f = Concat(y, z, w) { axis = 1 } g = Concat(z, w) { axis = 1 } output e, f, g }");
  graph_steps(4, PARTS "d = Concat(y, z) { axis = 1 } e = Concat(z, y) { axis = 1 } f = Sub(d, e) output f, d }");
  /* narrow rows: 3 elements are no place where a kernel may begin */
  graph_steps(3, "graph g { input a: f32[1, 8] input b: f32[8, 3] input c: f32[8, 12] y = MatMul(a, b) z = MatMul(a, c) d = Concat(y, z) { axis = 1 } output d }");
  graph_steps(2, "graph g { input a: f32[1, 8] input b: f32[8, 3] input c: f32[8, 12] y = MatMul(a, b) z = MatMul(a, c) d = Concat(z, y) { axis = 1 } output d }");
  graph_steps(3, "graph g { input a: f32[2, 8] input b: f32[8, 8] y = MatMul(a, b) z = MatMul(y, b) d = Concat(y, z) { axis = 1 } output d }"); /* rows of two */
  /* halves of a rotation are computed where they are read, not stored */
  graph_steps(1, "graph g { input x: f32[1, 16] input c: f32[1, 16] u, v = Split(x) { axis = 1, num_outputs = 2 } n = Neg(v) d = Concat(n, u) { axis = 1 } y = Mul(d, c) output y }");
}

/* What few of the elements use, and takes long, is not computed for all of them. */
Test(lower, concatenation_of_dear_parts) {
  graph(1, "graph g { input x: f32[6, 40] input y: f32[6, 40] e = Exp(x) d = Concat(e, y) { axis = 1 } z = Neg(d) output z }");
  graph(2, "graph g { input x: f32[6, 8] input y: f32[6, 40] e = Exp(x) d = Concat(e, y) { axis = 1 } z = Neg(d) output z }");
  graph(1, "graph g { input x: f32[6, 8] input y: f32[6, 40] e = Abs(x) d = Concat(e, y) { axis = 1 } z = Neg(d) output z }");
  graph(2, "graph g { input x: f32[6, 8] input y: f32[6, 40] input s: f32[8] e = Tanh(x) f = Mul(e, s) t = Sigmoid(y) d = Concat(f, t) { axis = 1 } z = Transpose(d) output z }");
}

/* Some hundred parts are several kernels: each element picks among those of one. */
Test(lower, concatenation_of_many) {
  char text[4000] = "graph g { input x: f32[2, 5] input y: f32[2, 1] input z: f32[2, 0] input w: f32[2, 3] u = Exp(x) d = Concat(";
  static const char *const parts[] = {"u", "y", "z", "w", "x", "w"};
  for (int i = 0; i < 300; i++) snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", i ? ", " : "", parts[(i + i / 7) % IR_COUNT(parts)]);
  snprintf(text + strlen(text), sizeof text - strlen(text), ") { axis = 1 } e = Neg(d) output e }");
  graph_steps(4, text); /* the exponential, twice 128 parts, what is left with these */
}

/* The same for blocks of channels: whole ones, a last one that is not full, one in the middle, a batch of two. */
Test(lower, concatenation_of_channels) {
  static const int size[][4] = {{1, 16, 24, 32}, {1, 16, 24, 20}, {1, 20, 16, 24}, {2, 16, 24, 32}, {1, 16, 18, 17}};
  for (int i = 0; i < IR_COUNT(size); i++) {
    char text[900];
    int n = size[i][0], a = size[i][1], b = size[i][2], c = size[i][3];
    snprintf(text, sizeof text,
             "graph g { input x: f32[%d, 16, 9, 7] input u: f32[%d, 16, 1, 1] input v: f32[%d, %d, 3, 3] input w: f32[%d, %d, 1, 1] input z: f32[24, %d, 1, 1]"
             " p = Conv(x, u) q = Conv(p, v) { pads = [1, 1, 1, 1] } r = Relu(q) m = MaxPool(p) { kernel_shape = [3, 3], pads = [1, 1, 1, 1] } d = Concat(p, r) { axis = 1 }"
             " s = Conv(d, w) e = Concat(p, r, s) { axis = 1 } f = Sigmoid(e) k = Conv(f, z) h = Concat(k, m) { axis = 1 } g = GlobalAveragePool(h) output g, k }",
             n, a, b, a, c, a + b, a + b + c);
    graph(-1, text);
  }
}

/* A depthwise convolution between tokens: channels last on both sides, or on one alone. */
Test(lower, depthwise_between_tokens) {
  static const int size[][4] = {{5, 7, 16, 1}, {9, 23, 48, 1}, {12, 12, 20, 1}, {8, 10, 32, 2}};
  for (int i = 0; i < IR_COUNT(size); i++)
    for (int kind = 0; kind < 4; kind++) {
      int h = size[i][0], w = size[i][1], c = size[i][2], stride = size[i][3], oh = (h + stride - 1) / stride, ow = (w + stride - 1) / stride;
      char *text = malloc(20000), *t = text, *end = text + 20000;
      t += snprintf(t, (size_t)(end - t), "graph g { input x: f32[2, %d, %d] const k: f32[%d, 1, 3, 3] = [", h * w, c, c);
      for (int j = 0; j < 9 * c; j++) t += snprintf(t, (size_t)(end - t), "%s%g", j ? ", " : "", (draw(129) - 64) / 64.0);
      t += snprintf(t, (size_t)(end - t), "] input b: f32[%d] r = Sin(x) ", c);
      if (kind < 3) t += snprintf(t, (size_t)(end - t), "const s: i64[4] = [2, %d, %d, %d] p = Transpose(r) { perm = [0, 2, 1] } q = Reshape(p, s) ", c, h, w);
      else t += snprintf(t, (size_t)(end - t), "const s: i64[4] = [2, %d, %d, %d] p = Reshape(r, s) q = Transpose(p) { perm = [0, 3, 1, 2] } ", h, w, c);
      t += snprintf(t, (size_t)(end - t), "y = Conv(q, k, b) { pads = [1, 1, 1, 1], strides = [%d, %d], group = %d } ", stride, stride, c);
      if (kind == 2) t += snprintf(t, (size_t)(end - t), "z = Relu(y) output z }");
      else if (kind == 1) t += snprintf(t, (size_t)(end - t), "z = Transpose(y) { perm = [0, 2, 3, 1] } e = Gelu(z) output e }");
      else t += snprintf(t, (size_t)(end - t), "const f: i64[3] = [2, %d, %d] u = Reshape(y, f) z = Transpose(u) { perm = [0, 2, 1] } e = Gelu(z) output e%s }", c, oh * ow, kind ? ", y" : "");
      graph(-1, text);
      free(text);
    }
}

/* Normalisations over pixels between convolutions: by channel, by group, with blocks that are not full, one group for all,
 * scales of groups (opset 18), as exporters write them; what is far from 0; the result alone, or beside what follows. */
Test(lower, normalisation_of_channels) {
  static const struct {
    int n, c, groups, rank;
    const char *form;
  } cases[] = {{1, 16, 16, 4, "instance"}, {2, 20, 20, 4, "instance"}, {1, 24, 24, 3, "instance"}, {1, 16, 16, 5, "instance"}, {1, 24, 4, 4, "group"}, {2, 20, 10, 4, "group"},
               {1, 16, 1, 4, "group"}, {2, 18, 3, 4, "old"}, {1, 16, 8, 3, "old"}, {2, 24, 3, 4, "exported"}, {1, 20, 1, 4, "exported"}, {1, 16, 16, 4, "exported"}};
  static const char *const pixels[] = {[3] = "33", [4] = "9, 7", [5] = "3, 5, 4"};
  for (int i = 0; i < IR_COUNT(cases); i++) {
    char text[1200], *t = text, *end = text + sizeof text;
    int n = cases[i].n, c = cases[i].c, each = cases[i].form[0] == 'o' || cases[i].form[0] == 'e' ? cases[i].groups : c;
    const char *at = pixels[cases[i].rank], *one = "1, 1, 1" + 3 * (5 - cases[i].rank);
    t += snprintf(t, (size_t)(end - t), "graph g { input x: f32[%d, 16, %s] input u: f32[%d, 16, %s] input v: f32[8, %d, %s] input s: f32[%d] input b: f32[%d] const o: f32[] = 50.0 ", n, at, c, one, c, one, each, each);
    t += snprintf(t, (size_t)(end - t), "p = Conv(x, u) q = Add(p, o) ");
    if (cases[i].form[0] == 'i') t += snprintf(t, (size_t)(end - t), "y = InstanceNormalization(q, s, b) ");
    else if (cases[i].form[0] == 'e') t += snprintf(t, (size_t)(end - t), "const f: i64[3] = [%d, %d, -1] const h: i64[%d] = [%d, %d, %s] r = Reshape(q, f) m = InstanceNormalization(r, s, b) y = Reshape(m, h) ", n, each, cases[i].rank, n, c, at);
    else t += snprintf(t, (size_t)(end - t), "y = GroupNormalization(q, s, b) { num_groups = %d } %s", cases[i].groups, cases[i].form[0] == 'o' ? "opset 18 " : "");
    snprintf(t, (size_t)(end - t), "z = Relu(y) w = Conv(z, v) output w%s }", i % 2 ? ", y" : "");
    graph(-1, text);
  }
  /* what is given in blocks, weights packed, a convolution, two sums, all that follows them, a convolution, its result in rows */
  graph_steps(8, "graph g { input x: f32[1, 16, 9, 7] input u: f32[16, 16, 1, 1] input s: f32[16] input b: f32[16] p = Conv(x, u) y = InstanceNormalization(p, s, b) z = Relu(y)"
                 " w = Conv(z, u) output w }");
}

/* Results of convolutions are made in blocks and turned: for the caller alone, used again, given twice, with fewer channels than a block. */
Test(lower, results_in_rows) {
#define CONVS "graph g { input x: f32[2, 16, 5, 7] input u: f32[16, 16, 3, 3] input v: f32[5, 16, 1, 1] p = Conv(x, u) { pads = [1, 1, 1, 1] } "
  graph_steps(4, CONVS "output p }"); /* weights, picture, convolution, turned */
  graph_steps(6, CONVS "q = Conv(p, u) output p, q }");
  graph(-1, CONVS "q = Relu(p) output p, q, p }");
  graph(-1, CONVS "q = Conv(p, v) r = Sigmoid(p) output q, p, r }");
  graph(-1, "graph g { input x: f32[2, 12, 9] input u: f32[9, 12, 3] input w: f32[1, 12, 3, 4, 3] input v: f32[20, 12, 1, 2, 1] p = Conv(x, u) q = Conv(w, v) output p, q }");
#undef CONVS
}

Test(lower, dead_and_equal_nodes) {
  graph(1, "graph g { input x: f32[9] a = Exp(x) b = Exp(x) c = Add(a, b) d = Log(x) output c }");
}

/* Outputs in pairs, of which either should be the other. */
static void run_pairs(tn_ctx *ctx, void *text) {
  ir_program *p = lw_compile(ctx, ir_graph_parse(ctx, text, "test"), &(lw_options){.target = cg_target_find(ctx, NULL, NULL)});
  enum { MOST = 1 << 14 };
  float *in[8], *out[8];
  int64_t bytes[8] = {0};
  for (int k = 0; k < 8; k++) {
    in[k] = ir_alloc(ctx, MOST * sizeof(float)), out[k] = ir_alloc(ctx, MOST * sizeof(float));
    for (int i = 0; i < MOST; i++) in[k][i] = (float)(draw(2001) - 1000) / 1000.0f;
  }
  for (int i = 0; i < p->nslots; i++) { /* of an output there may be parts, too */
    const ir_slot *s = &p->slots[i];
    cr_assert_leq(s->bytes, MOST * (int64_t)sizeof(float));
    if (s->kind == IR_SLOT_OUTPUT && s->bytes > bytes[s->index]) bytes[s->index] = s->bytes;
  }
  rt_module *m = rt_module_build(ctx, p, NULL);
  if (rt_run(m, (const void *const *)in, (void *const *)out, NULL, NULL)) ir_fail(ctx, TN_EWRONG, "the run failed");
  rt_module_free(ctx, m);
  for (int o = 0; o < p->noutputs; o += 2)
    for (int64_t i = 0; i < bytes[o] / 4; i++) {
      float a = out[o][i], b = out[o + 1][i];
      if (!(fabsf(a - b) <= 1e-5f)) ir_fail(ctx, TN_EWRONG, "output %d element %lld: %g, not %g", o, (long long)i, (double)a, (double)b);
    }
}

/* Sequences go through time in blocks: a batch gives what its sequences give one by one. */
Test(lower, recurrent_batches) {
  static const struct {
    const char *op, *more;
    int batch, gates, directions, lengths;
  } all[] = {
      {"GRU", "direction = \"bidirectional\"", 7, 3, 2, 1},     {"GRU", "linear_before_reset = 1", 4, 3, 1, 0},
      {"LSTM", "direction = \"reverse\"", 6, 4, 1, 1},          {"LSTM", "layout = 1, direction = \"bidirectional\"", 5, 4, 2, 1},
      {"RNN", "activations = [\"Tanh\", \"Relu\"], direction = \"bidirectional\"", 9, 1, 2, 0},
      {"RNN", "layout = 1", 2, 1, 1, 1},
  };
  for (int i = 0; i < IR_COUNT(all); i++) {
    enum { S = 4, I = 3, H = 11 };
    int n = all[i].batch, g = all[i].gates * H, d = all[i].directions;
    bool first = strncmp(all[i].more, "layout", 6) == 0;
    char text[8192], *t = text, *end = text + sizeof text;
    t += snprintf(t, (size_t)(end - t), "graph g { input x: f32[%d, %d, %d] input w: f32[%d, %d, %d] input r: f32[%d, %d, %d] input b: f32[%d, %d] input h: f32[%d, %d, %d] const l: i32[%d] = [", first ? n : S, first ? S : n, I, d, g, I, d, g, H, d, 2 * g, first ? n : d, first ? d : n, H, n);
    for (int k = 0; k < n; k++) t += snprintf(t, (size_t)(end - t), "%s%d", k ? ", " : "", all[i].lengths ? k * 3 % (S + 1) : S);
    t += snprintf(t, (size_t)(end - t), "] y, z = %s(x, w, r, b, l, h) { hidden_size = %d, %s } ", all[i].op, H, all[i].more);
    const char *split[3] = {"x", "l", "h"};
    for (int k = 0; k < 3; k++) {
      for (int j = 0; j < n; j++) t += snprintf(t, (size_t)(end - t), "%s%s%d", j ? ", " : "", split[k], j);
      t += snprintf(t, (size_t)(end - t), " = Split(%s) { axis = %d, num_outputs = %d } ", split[k], k == 1 || first ? 0 : 1, n);
    }
    for (int j = 0; j < n; j++) t += snprintf(t, (size_t)(end - t), "y%d, z%d = %s(x%d, w, r, b, l%d, h%d) { hidden_size = %d, %s } ", j, j, all[i].op, j, j, j, H, all[i].more);
    for (int k = 0; k < 2; k++) {
      t += snprintf(t, (size_t)(end - t), "%c = Concat(", 'u' + k);
      for (int j = 0; j < n; j++) t += snprintf(t, (size_t)(end - t), "%s%c%d", j ? ", " : "", 'y' + k, j);
      t += snprintf(t, (size_t)(end - t), ") { axis = %d } ", first ? 0 : 2 - k);
    }
    t += snprintf(t, (size_t)(end - t), "output y, u, z, v }");
    tn_ctx *ctx = tn_ctx_new(NULL);
    cr_expect_eq(ir_protect(ctx, run_pairs, text), TN_OK, "%s, %d sequences: %s", all[i].op, n, tn_error(ctx));
    tn_ctx_free(ctx);
  }
}

/* Whether the one kernel of a run is named after the activation. */
static bool is_activation(const char *text, const char *name) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  ir_program *p = lw_compile(ctx, ir_graph_parse(ctx, text, "test"), &(lw_options){.target = cg_target_find(ctx, NULL, NULL)});
  bool is = p->nkernels == 1 && strncmp(p->kernels[0].kernel->name, name, strlen(name)) == 0;
  tn_ctx_free(ctx);
  return is;
}

Test(lower, activations_as_chains) {
#define NUMBERS "const r: f32[] = 1.41421356 const t: f32[1] = [0.70710678] const h: f32[1] = [0.5] const o: f32[] = 1.0 "
  static const struct {
    const char *text, *name; /* null: stays what it is */
  } all[] = {
      {"graph g { input x: f32[3, 37] " NUMBERS "a = Div(x, r) e = Erf(a) s = Add(e, o) m = Mul(x, s) y = Mul(m, h) output y }", "gelu"},
      {"graph g { input x: f32[3, 37] " NUMBERS "a = Mul(t, x) e = Erf(a) s = Add(o, e) m = Mul(h, x) y = Mul(m, s) output y }", "gelu"},
      {"graph g { input x: f32[3, 37] " NUMBERS "a = Mul(t, x) e = Erf(a) s = Add(o, e) m = Mul(s, h) y = Mul(x, m) output y }", "gelu"},
      {"graph g { input x: f32[3, 37] s = Softplus(x) t = Tanh(s) y = Mul(t, x) output y }", "mish"},
      {"graph g { input x: f32[3, 37] " NUMBERS "a = Div(x, r) e = Erf(a) s = Add(e, o) m = Mul(x, s) y = Mul(m, h) output y, e }", NULL},
      {"graph g { input x: f32[3, 37] " NUMBERS "a = Div(x, o) e = Erf(a) s = Add(e, o) m = Mul(x, s) y = Mul(m, h) output y }", NULL},
      {"graph g { input x: f32[3, 37] " NUMBERS "a = Div(r, x) e = Erf(a) s = Add(e, o) m = Mul(x, s) y = Mul(m, h) output y }", NULL},
      {"graph g { input x: f32[3, 37] " NUMBERS "a = Div(x, r) e = Erf(a) s = Add(e, o) m = Mul(x, s) y = Mul(m, t) output y }", NULL},
      {"graph g { input x: f32[3, 37] input z: f32[3, 37] " NUMBERS "a = Div(z, r) e = Erf(a) s = Add(e, o) m = Mul(x, s) y = Mul(m, h) output y }", NULL},
      {"graph g { input x: f32[3] const h: f32[1, 1] = [0.5] const r: f32[] = 1.41421356 const o: f32[] = 1.0 a = Div(x, r) e = Erf(a) s = Add(e, o) m = Mul(x, s) y = Mul(m, h) output y }", NULL},
      {"graph g { input x: f32[3, 37] input z: f32[3, 37] s = Softplus(x) t = Tanh(s) y = Mul(t, z) output y }", NULL},
  };
#undef NUMBERS
  for (int i = 0; i < IR_COUNT(all); i++) {
    graph(-1, all[i].text);
    if (all[i].name) cr_expect(is_activation(all[i].text, all[i].name), "%s", all[i].text);
    else cr_expect(!is_activation(all[i].text, "gelu") && !is_activation(all[i].text, "mish"), "%s", all[i].text);
  }
}
