/* test_cuda_models.c — whole networks on GPUs, reduced: the structure of ResNet-50, MobileNetV2, BERT and ViT-B/16, with few
 * channels and small pictures; emulated against the interpreter. (The C front end's example: test_cuda_api.c.)
 *
 * Weights are sines that folding computes, so that they are constants that the program packs, as in a trained model. */
#include "frontend/tenon.h"
#include "ir/interp.h"
#include "runtime/cuda_plan.h"
#include "runtime/program_interp.h"
#include "support_cuda.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct net {
  ir_text head, body; /* declarations; nodes */
  int n;              /* names so far */
} net;

/* The name of a constant of `rank` extents, of numbers about 1 / sqrt(fan). */
static const char *weight(net *g, double fan, int rank, const int *shape) {
  tn_ctx *ctx = g->head.ctx;
  int i = g->n++, n = 1;
  for (int k = 0; k < rank; k++) n *= shape[k];
  ir_put(&g->head, " const w%d_n: i64[] = %d const w%d_k: f32[] = %.6g const w%d_s: i64[%d] = [", i, i + 3 + n, i, 1.5 / sqrt(fan), i, rank);
  for (int k = 0; k < rank; k++) ir_put(&g->head, "%s%d", k ? ", " : "", shape[k]);
  ir_put(&g->head, "] const w%d_0: i64[] = %d", i, i + 3);
  ir_put(&g->body, " w%d_r = Range(w%d_0, w%d_n, one) w%d_f = Cast(w%d_r) {to = 1} w%d_t = Sin(w%d_f) w%d_m = Mul(w%d_t, w%d_k) w%d = Reshape(w%d_m, w%d_s)", i, i, i, i, i, i, i, i, i, i, i, i, i);
  return ir_format(ctx, "w%d", i);
}

#define SHAPE(...) (int)IR_COUNT(((int[]){__VA_ARGS__})), (int[]){__VA_ARGS__}

static const char *node(net *g, const char *fmt, ...) IR_PRINTF(2, 3);
static const char *node(net *g, const char *fmt, ...) {
  char text[512];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  const char *name = ir_format(g->body.ctx, "v%d", g->n++);
  ir_put(&g->body, " %s = %s", name, text);
  return name;
}

static const char *conv(net *g, const char *x, int c, int o, int r, int stride, int groups) {
  const char *w = weight(g, (double)c / groups * r * r, SHAPE(o, c / groups, r, r)), *b = weight(g, 4, SHAPE(o));
  return node(g, "Conv(%s, %s, %s) {strides = [%d, %d], pads = [%d, %d, %d, %d], group = %d}", x, w, b, stride, stride, r / 2, r / 2, r / 2, r / 2, groups);
}

static const char *relu(net *g, const char *x) { return node(g, "Relu(%s)", x); }

static const char *classifier(net *g, const char *x, int c) {
  const char *p = node(g, "GlobalAveragePool(%s)", x), *f = node(g, "Flatten(%s)", p);
  const char *w = weight(g, c, SHAPE(10, c)), *b = weight(g, 4, SHAPE(10));
  return node(g, "Gemm(%s, %s, %s) {transB = 1}", f, w, b);
}

static const char *resnet50(net *g) {
  static const int blocks[] = {3, 4, 6, 3};
  ir_put(&g->head, " input x: f32[1, 3, 33, 33]");
  int c = 4;
  const char *x = relu(g, conv(g, "x", 3, c, 7, 2, 1));
  x = node(g, "MaxPool(%s) {kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]}", x);
  for (int s = 0; s < 4; s++)
    for (int i = 0; i < blocks[s]; i++) {
      int width = 4 << s, stride = s && !i ? 2 : 1;
      const char *a = relu(g, conv(g, x, c, width, 1, 1, 1));
      a = conv(g, relu(g, conv(g, a, width, width, 3, stride, 1)), width, 4 * width, 1, 1, 1);
      const char *shortcut = i ? x : conv(g, x, c, 4 * width, 1, stride, 1);
      c = 4 * width;
      x = relu(g, node(g, "Add(%s, %s)", a, shortcut));
    }
  return classifier(g, x, c);
}

static const char *mobilenet_v2(net *g) {
  static const int rows[][4] = {{1, 4, 1, 1}, {6, 6, 2, 2}, {6, 8, 3, 2}, {6, 16, 4, 2}, {6, 24, 3, 1}, {6, 40, 3, 2}, {6, 80, 1, 1}}; /* t c n s, c a quarter */
  ir_put(&g->head, " input x: f32[1, 3, 32, 32] const lo: f32[] = 0.0 const hi: f32[] = 6.0");
  int c = 8;
  const char *x = node(g, "Clip(%s, lo, hi)", conv(g, "x", 3, c, 3, 2, 1));
  for (int r = 0; r < IR_COUNT(rows); r++)
    for (int i = 0; i < rows[r][2]; i++) {
      int wide = c * rows[r][0], stride = i ? 1 : rows[r][3];
      const char *a = x;
      if (rows[r][0] > 1) a = node(g, "Clip(%s, lo, hi)", conv(g, a, c, wide, 1, 1, 1));
      a = node(g, "Clip(%s, lo, hi)", conv(g, a, wide, wide, 3, stride, wide));
      a = conv(g, a, wide, rows[r][1], 1, 1, 1);
      x = stride == 1 && c == rows[r][1] ? node(g, "Add(%s, %s)", a, x) : a;
      c = rows[r][1];
    }
  return classifier(g, node(g, "Clip(%s, lo, hi)", conv(g, x, c, 4 * c, 1, 1, 1)), 4 * c);
}

static const char *dense(net *g, const char *x, int from, int to) {
  const char *w = weight(g, from, SHAPE(from, to)), *b = weight(g, 4, SHAPE(to));
  return node(g, "Add(%s, %s)", node(g, "MatMul(%s, %s)", x, w), b);
}

static const char *norm(net *g, const char *x, int n) {
  const char *s = weight(g, 2, SHAPE(n)), *b = weight(g, 4, SHAPE(n));
  return node(g, "LayerNormalization(%s, %s, %s) {epsilon = 1e-6}", x, s, b);
}

static const char *heads(net *g, const char *x, const char *perm) { return node(g, "Transpose(%s) {perm = [%s]}", node(g, "Reshape(%s, split)", x), perm); }

/* Two heads of 16; `mask`: added to the scores, or null. */
static const char *attend(net *g, const char *x, const char *mask) {
  const char *q = heads(g, dense(g, x, 32, 32), "0, 2, 1, 3"), *k = heads(g, dense(g, x, 32, 32), "0, 2, 3, 1"), *v = heads(g, dense(g, x, 32, 32), "0, 2, 1, 3");
  const char *s = node(g, "Div(%s, root)", node(g, "MatMul(%s, %s)", q, k));
  if (mask) s = node(g, "Add(%s, %s)", s, mask);
  const char *o = node(g, "Transpose(%s) {perm = [0, 2, 1, 3]}", node(g, "MatMul(%s, %s)", node(g, "Softmax(%s)", s), v));
  return dense(g, node(g, "Reshape(%s, join)", o), 32, 32);
}

static const char *feed_forward(net *g, const char *x) {
  const char *h = dense(g, x, 32, 64), *e = node(g, "Erf(%s)", node(g, "Div(%s, two)", h));
  return dense(g, node(g, "Mul(%s, half)", node(g, "Mul(%s, %s)", h, node(g, "Add(%s, unit)", e))), 64, 32);
}

static void transformer(net *g, int tokens) {
  ir_put(&g->head, " const split: i64[4] = [1, %d, 2, 16] const join: i64[3] = [1, %d, 32] const root: f32[] = 4.0 const two: f32[] = 1.4142135 const unit: f32[] = 1.0 const half: f32[] = 0.5", tokens, tokens);
}

static const char *bert(net *g) {
  transformer(g, 12);
  ir_put(&g->head, " input ids: i64[1, 12] input mask: i64[1, 12] input types: i64[1, 12] const shape: i64[4] = [1, 1, 1, 12] const far: f32[] = -10000.0 const zero: i64[] = 0");
  const char *words = weight(g, 1, SHAPE(30, 32)), *places = weight(g, 1, SHAPE(1, 12, 32)), *kinds = weight(g, 1, SHAPE(30, 32));
  const char *x = node(g, "Add(%s, %s)", node(g, "Gather(%s, ids)", words), node(g, "Gather(%s, types)", kinds));
  x = norm(g, node(g, "Add(%s, %s)", x, places), 32);
  const char *m = node(g, "Cast(%s) {to = 1}", node(g, "Reshape(%s, shape)", node(g, "Equal(mask, zero)")));
  m = node(g, "Mul(%s, far)", m);
  for (int l = 0; l < 2; l++) {
    x = norm(g, node(g, "Add(%s, %s)", attend(g, x, m), x), 32);
    x = norm(g, node(g, "Add(%s, %s)", feed_forward(g, x), x), 32);
  }
  ir_put(&g->head, " const first: i64[] = 0");
  return node(g, "Tanh(%s)", dense(g, node(g, "Gather(%s, first) {axis = 1}", x), 32, 32));
}

static const char *vit(net *g) {
  transformer(g, 17);
  ir_put(&g->head, " input x: f32[1, 3, 32, 32] const flat: i64[3] = [1, 32, 16] const first: i64[] = 0");
  const char *w = weight(g, 192, SHAPE(32, 3, 8, 8)), *b = weight(g, 4, SHAPE(32)), *cls = weight(g, 1, SHAPE(1, 1, 32)), *places = weight(g, 1, SHAPE(1, 17, 32));
  const char *x = node(g, "Reshape(%s, flat)", node(g, "Conv(x, %s, %s) {strides = [8, 8]}", w, b));
  x = node(g, "Concat(%s, %s) {axis = 1}", cls, node(g, "Transpose(%s) {perm = [0, 2, 1]}", x));
  x = node(g, "Add(%s, %s)", x, places);
  for (int l = 0; l < 2; l++) {
    x = node(g, "Add(%s, %s)", attend(g, norm(g, x, 32), NULL), x);
    x = node(g, "Add(%s, %s)", feed_forward(g, norm(g, x, 32)), x);
  }
  return dense(g, node(g, "Gather(%s, first) {axis = 1}", norm(g, x, 32)), 32, 10);
}

/* ---- the check ---- */

static void check(tn_ctx *ctx, ir_graph *g, double tolerance) {
  ir_program *p = rt_cuda_lower(ctx, g, LW_LAYOUT_AUTO);
  for (int sm = 0; sm < 2; sm++) {
    const rt_cuda_plan *plan = rt_cuda_plan_make(ctx, p, cu_target_find(ctx, sm ? "sm_90a" : "sm_80"), &(rt_cuda_options){.no_compile = true});
    const void **in = IR_NEW_ARRAY(ctx, const void *, p->ninputs + 1);
    void **want = IR_NEW_ARRAY(ctx, void *, p->noutputs + 1), **have = IR_NEW_ARRAY(ctx, void *, p->noutputs + 1);
    int64_t n = 0;
    for (int s = 0; s < p->nslots; s++) {
      if (p->slots[s].kind == IR_SLOT_INPUT) in[p->slots[s].index] = cuda_random(ctx, &p->slots[s], &(uint64_t){(uint64_t)s + 7}, 1, 2);
      if (p->slots[s].kind != IR_SLOT_OUTPUT) continue;
      want[p->slots[s].index] = ir_alloc(ctx, (size_t)p->slots[s].bytes + 1);
      have[p->slots[s].index] = ir_alloc(ctx, (size_t)p->slots[s].bytes + 1);
      if (!p->slots[s].index) n = p->slots[s].bytes / 4;
    }
    rt_program_interp(ctx, p, in, want, NULL, NULL, NULL);
    rt_cuda_plan_emulate(ctx, plan, in, have, NULL, NULL, 5);
    double top = 0, off = 0;
    for (int64_t e = 0; e < n; e++) {
      double a = ((float *)want[0])[e], b = ((float *)have[0])[e];
      if (fabs(a) > top) top = fabs(a);
      if (!(fabs(a - b) <= off)) off = fabs(a - b);
    }
    fprintf(stderr, "%s %s: %d launches, off by %.2g of %.2g\n", p->name, plan->target->name, plan->nlaunches, off, top);
    if (!(top > 1e-6 && off <= tolerance * top)) ir_fail(ctx, TN_EWRONG, "%s: off by %g of %g", p->name, off, top);
  }
}

typedef struct job {
  const char *name;
  const char *(*make)(net *g);
} job;

static void run_job(tn_ctx *ctx, void *arg) {
  const job *j = arg;
  net g = {.head = {.ctx = ctx}, .body = {.ctx = ctx}};
  const char *y = j->make(&g);
  ir_graph *graph = ir_graph_parse(ctx, ir_format(ctx, "graph %s { opset 17%s const one: i64[] = 1%s output %s }", j->name, ir_text_str(&g.head), ir_text_str(&g.body), y), j->name);
  ir_graph_sort(graph);
  check(ctx, graph, 1e-4);
}

static void in_context(void (*run)(tn_ctx *ctx, void *arg), void *arg) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_status s = ir_protect(ctx, run, arg);
  cr_assert_eq(s, TN_OK, "%.600s", tn_error(ctx));
  tn_ctx_free(ctx);
}

Test(cuda_models, resnet50) { in_context(run_job, &(job){"resnet50", resnet50}); }
Test(cuda_models, mobilenet_v2) { in_context(run_job, &(job){"mobilenet_v2", mobilenet_v2}); }
Test(cuda_models, bert) { in_context(run_job, &(job){"bert", bert}); }
Test(cuda_models, vit) { in_context(run_job, &(job){"vit", vit}); }
