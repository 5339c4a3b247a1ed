/* test_cuda_libs.c — libraries as candidates: which kernels are a convolution of cuDNN's or a product of cuBLASLt's, cuDNN's plans
 * without a GPU, cuBLASLt's through a fake of it on the fake driver, and that absence is no error. TENON_CUDA_ALL=1 plans all convolutions of ResNet-50 instead of a sample. */
#include "ir/text.h"
#include "lower/lower.h"
#include "lower/problem.h"
#include "autotune/cuda.h"
#include "runtime/cuda_run.h"
#include "support_cuda_device.h"
#include "runtime/cuda_library.h"
#include "runtime/cuda_lib.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct shape {
  int c, size, k, taps, stride, pad; /* square pictures and windows */
} shape;

static const shape resnet50[] = {
    {3, 224, 64, 7, 2, 3},   {64, 56, 64, 1, 1, 0},    {64, 56, 64, 3, 1, 1},    {64, 56, 256, 1, 1, 0},  {256, 56, 64, 1, 1, 0},   {256, 56, 128, 1, 1, 0},
    {128, 56, 128, 3, 2, 1}, {128, 28, 512, 1, 1, 0},  {256, 56, 512, 1, 2, 0},  {512, 28, 128, 1, 1, 0}, {128, 28, 128, 3, 1, 1},  {512, 28, 256, 1, 1, 0},
    {256, 28, 256, 3, 2, 1}, {256, 14, 1024, 1, 1, 0}, {512, 28, 1024, 1, 2, 0}, {1024, 14, 256, 1, 1, 0}, {256, 14, 256, 3, 1, 1}, {1024, 14, 512, 1, 1, 0},
    {512, 14, 512, 3, 2, 1}, {512, 7, 2048, 1, 1, 0},  {1024, 14, 2048, 1, 2, 0}, {2048, 7, 512, 1, 1, 0}, {512, 7, 512, 3, 1, 1}};

typedef struct job {
  const char *attributes, *tail, *dtype;
  shape s;
  bool channels_last;
  void (*check)(tn_ctx *ctx, const ir_kernel *k, const struct job *j);
  int steps;
} job;

/* The kernel of the graph that multiplies, as a model has it: constant weights, pictures in the layout that is asked for. */
static void run_job(tn_ctx *ctx, void *arg) {
  const job *j = arg;
  const shape *s = &j->s;
  const char *text = ir_format(ctx, "graph g { opset 17 input x: %s[2, %d, %d, %d] input w: %s[%d, %d, %d, %d] input b: %s[%d] y = Conv(x, w, b) {strides = [%d, %d], %s} %s }", j->dtype, s->c,
                               s->size, s->size, j->dtype, s->k, s->c, s->taps, s->taps, j->dtype, s->k, s->stride, s->stride,
                               j->attributes ? j->attributes : ir_format(ctx, "pads = [%d, %d, %d, %d]", s->pad, s->pad, s->pad, s->pad), j->tail);
  ir_graph *g = ir_graph_parse(ctx, text, "test");
  ir_graph_sort(g);
  lw_options o = {.unscheduled = true, .layout = LW_LAYOUT_NCHW};
  const ir_program *p = lw_compile(ctx, g, &o);
  for (int i = 0; i < p->nkernels; i++) {
    const ir_kernel *k = p->kernels[i].kernel;
    if (lw_problem_of(ctx, k).kind != LW_CONTRACTION) continue;
    for (int b = 0; b < k->nbufs; b++) {
      ir_buf *buf = k->bufs[b];
      if (buf->rank != 4) continue;
      if (buf->access == IR_IN && ix_is_int(buf->shape[0], s->k) && ix_is_int(buf->shape[1], s->c)) buf->constant = true;
      else if (j->channels_last) buf->layout = ir_layout_parse(ctx, "perm 0 2 3 1"); /* as between the layers of a model */
    }
    j->check(ctx, k, j);
    return;
  }
  ir_fail(ctx, TN_EINTERNAL, "no product in %s", text);
}

static void check(const job *j) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_status s = ir_protect(ctx, run_job, (void *)j);
  cr_assert_eq(s, TN_OK, "%s %d %d %d: %.600s", j->dtype, j->s.c, j->s.size, j->s.k, tn_error(ctx));
  tn_ctx_free(ctx);
}

#define WANT(ctx, cond) \
  if (!(cond)) ir_fail(ctx, TN_EWRONG, "%s", #cond)

static void reads(tn_ctx *ctx, const ir_kernel *k, const job *j) {
  rt_dnn_conv c;
  const char *why = "";
  const shape *s = &j->s;
  if (!rt_dnn_conv_of(ctx, k, &c, &why)) ir_fail(ctx, TN_EWRONG, "%s\n%s", why, ir_kernel_print(ctx, k));
  int64_t out = (s->size + 2 * s->pad - s->taps) / s->stride + 1;
  WANT(ctx, c.x.size[0] == 2 && c.x.size[1] == s->c && c.x.size[2] == s->size && c.x.size[3] == s->size);
  WANT(ctx, c.w.size[0] == s->k && c.w.size[1] == s->c && c.w.size[2] == s->taps && c.w.size[3] == s->taps);
  WANT(ctx, c.y.size[0] == 2 && c.y.size[1] == s->k && c.y.size[2] == out && c.y.size[3] == out);
  bool last = j->channels_last;
  WANT(ctx, c.x.stride[1] == (last ? 1 : s->size * s->size) && c.y.stride[3] == (last ? s->k : 1));
  WANT(ctx, c.w.stride[1] == (last ? 1 : s->taps * s->taps));
  for (int d = 0; d < 2; d++) WANT(ctx, c.stride[d] == s->stride && c.dilation[d] == 1 && c.before[d] == s->pad && c.after[d] == s->pad);
  int bias = j->steps == 3; /* after the whole tensor */
  WANT(ctx, c.nsteps == j->steps && c.steps[bias].op == RT_DNN_ADD && c.steps[bias].other.size[1] == s->k && c.steps[bias].other.size[0] == 1);
  if (bias) WANT(ctx, c.steps[0].op == RT_DNN_ADD && c.steps[0].other.size[0] == 2 && c.steps[0].other.stride[3] == c.y.stride[3]);
  if (j->steps > 1) WANT(ctx, c.steps[j->steps - 1].op == RT_DNN_RELU);
}

Test(cuda_libs, convolutions_are_read_off_their_loops) {
  for (int i = 0; i < IR_COUNT(resnet50); i++)
    for (int v = 0; v < 4; v++) {
      job j = {.dtype = v & 1 ? "bf16" : "f32", .tail = "z = Relu(y) output z", .s = resnet50[i], .channels_last = v & 2, .check = reads, .steps = 2};
      check(&j);
    }
  job residual = {.dtype = "f32", .tail = "input r: f32[2, 64, 56, 56] z = Add(y, r) u = Relu(z) output u", .s = resnet50[2], .check = reads, .steps = 3};
  job plain = {.dtype = "f16", .tail = "output y", .s = resnet50[0], .check = reads, .steps = 1};
  check(&residual);
  check(&plain);
}

static void uneven(tn_ctx *ctx, const ir_kernel *k, const job *j) {
  rt_dnn_conv c;
  const char *why = "";
  (void)j;
  if (!rt_dnn_conv_of(ctx, k, &c, &why)) ir_fail(ctx, TN_EWRONG, "%s", why);
  WANT(ctx, c.before[0] == 0 && c.after[0] == 2 && c.before[1] == 1 && c.after[1] == 3 && c.dilation[0] == 2 && c.dilation[1] == 1);
}

static void refused(tn_ctx *ctx, const ir_kernel *k, const job *j) {
  rt_dnn_conv c;
  const char *why = NULL;
  (void)j;
  WANT(ctx, !rt_dnn_conv_of(ctx, k, &c, &why) && why && *why);
}

Test(cuda_libs, what_is_another_thing_is_refused) {
  shape s = {4, 12, 8, 3, 1, 0};
  job pads = {.dtype = "f32", .attributes = "pads = [0, 1, 2, 3], dilations = [2, 1]", .tail = "output y", .s = s, .check = uneven};
  job tail = {.dtype = "f32", .tail = "z = Exp(y) output z", .s = s, .check = refused};
  job floor = {.dtype = "f32", .tail = "const one: f32[1] = [1.0] z = Max(y, one) output z", .s = s, .check = refused};
  job f64 = {.dtype = "f64", .tail = "output y", .s = s, .check = refused};
  check(&pads);
  check(&tail);
  check(&floor);
  check(&f64);
}

static int listed, planned;

static void plans(tn_ctx *ctx, const ir_kernel *k, const job *j) {
  const cu_target *t = cu_target_find(ctx, "sm_90a");
  bool f32 = strcmp(j->dtype, "f32") == 0;
  rt_cuda_candidate_options o = {0};
  int n, schedules = 0;
  const char *why = NULL;
  const at_cuda_candidate *tuner = at_cuda_candidates(ctx, t, k, 1e-2, &n, &why); /* what it would time: schedules and plans */
  rt_cuda_candidates all = {.list = IR_NEW_ARRAY(ctx, rt_cuda_candidate, n + 1), .why = why};
  for (int i = 0; i < n; i++)
    if (tuner[i].library) all.list[all.n++] = *tuner[i].library;
    else schedules++;
  if (!all.n || schedules < 2) ir_fail(ctx, TN_EWRONG, "no plans: %s", all.why);
  for (int i = 0; i < all.n; i++) {
    WANT(ctx, strncmp(all.list[i].text, "cudnn 9.", 8) == 0 && strstr(all.list[i].text, " engine "));
    WANT(ctx, all.list[i].workspace >= 0);
    for (int e = 0; e < i; e++) WANT(ctx, strcmp(all.list[i].text, all.list[e].text));
  }
  listed++;
  planned += all.n;
  if (!f32) return;
  o.ieee = true;
  rt_cuda_candidates exact = rt_cuda_library_candidates(ctx, t, k, &o);
  WANT(ctx, exact.n && exact.n < all.n && exact.inexact);
  for (int i = 0; i < exact.n; i++) WANT(ctx, !strstr(exact.list[i].notes, "tensor cores") && !strstr(exact.list[i].notes, "rounded"));
  o.workspace = 1;
  rt_cuda_candidates lean = rt_cuda_library_candidates(ctx, t, k, &o);
  for (int i = 0; i < lean.n; i++) WANT(ctx, lean.list[i].workspace <= 1);
  WANT(ctx, lean.n + lean.large == exact.n);
}

static bool have_dnn(void) {
  const rt_cuda_lib *l = rt_cuda_library(RT_CUDA_DNN);
  if (!l->handle) fprintf(stderr, "skipped: no cuDNN: %s\n", l->why);
  else if (l->version < 90800) fprintf(stderr, "skipped: cuDNN %d is older than 9.8\n", l->version);
  return l->handle && l->version >= 90800;
}

Test(cuda_libs, plans_without_a_gpu) {
  if (!have_dnn()) return;
  bool whole = getenv("TENON_CUDA_ALL") != NULL;
  for (int i = 0; i < IR_COUNT(resnet50); i += whole ? 1 : 11)
    for (int v = 0; v < 4; v++) {
      job j = {.dtype = v & 1 ? "bf16" : "f32", .tail = "z = Relu(y) output z", .s = resnet50[i], .channels_last = v & 2, .check = plans};
      check(&j);
    }
  for (int v = 0; v < 4; v++) { /* the end of a block */
    job j = {.dtype = v & 1 ? "bf16" : "f32", .s = resnet50[3], .channels_last = v & 2, .check = plans};
    j.tail = v & 1 ? "input r: bf16[2, 256, 56, 56] z = Add(y, r) u = Relu(z) output u" : "input r: f32[2, 256, 56, 56] z = Add(y, r) u = Relu(z) output u";
    check(&j);
  }
  fprintf(stderr, "%d convolutions, %d plans\n", listed, planned);
}

static void absent(tn_ctx *ctx, const ir_kernel *k, const job *j) {
  rt_cuda_candidate_options o = {.ieee = true};
  rt_cuda_candidates r = rt_cuda_library_candidates(ctx, cu_target_find(ctx, "sm_80"), k, &o);
  (void)j;
  WANT(ctx, r.n == 0 && r.why && *r.why);
  WANT(ctx, strstr(r.why, "cuBLASLt: "));
}

Test(cuda_libs, absence_is_no_error) {
  setenv("TENON_CUDA_PATH", "/nowhere:-", 1);
  rt_cuda_forget();
  job j = {.dtype = "f32", .tail = "output y", .s = resnet50[1], .check = absent};
  check(&j);
}

/* ---- cuBLASLt ---- */

typedef struct product {
  const char *text;    /* a graph that becomes one kernel */
  const char *refused; /* part of the reason; null: a product */
  const char *notes;   /* part of the second plan's */
  const char *layout;  /* of parameter `which` of the kernel */
  int which;
  bool gpu;            /* lowered as for a GPU */
  int plans, exact;    /* of the fake: asked for with any accuracy, and for f32 with its own */
} product;

#define G "graph g { opset 20 "
/* Dequantised operands of 40 x 64 and 56 x 64, with scales of these shapes. */
#define EIGHT(A, B, SA, SB) "input a: " A "[40, 64] input b: " B "[56, 64] input sa: f32[" SA "] input sb: f32[" SB "] x = DequantizeLinear(a, sa) {axis = 0} w = DequantizeLinear(b, sb) {axis = 0} t = Transpose(w) p = MatMul(x, t) "
static const product products[] = {
    {G "input a: f32[40, 24] input b: f32[24, 56] y = MatMul(a, b) output y }", .notes = "tensor cores, inputs rounded, sum in 2 pieces", .plans = 4, .exact = 1},
    {G "input a: f32[40, 24] input b: f32[56, 24] input c: f32[56] y = Gemm(a, b, c) {transB = 1} z = Relu(y) output z }", .plans = 4, .exact = 1},
    {G "input a: f32[24, 40] input b: f32[24, 56] y = Gemm(a, b) {transA = 1, alpha = 0.37} output y }", .plans = 4, .exact = 1},
    {G "input a: f32[40, 24] input b: f32[56, 24] input c: f32[56] y = Gemm(a, b, c) {transB = 1} z = Gelu(y) {approximate = \"tanh\"} output z }", .plans = 4, .exact = 1},
    {G "input a: bf16[40, 24] input b: bf16[56, 24] input c: bf16[56] y = Gemm(a, b, c) {transB = 1} z = Gelu(y) {approximate = \"tanh\"} output z }", .plans = 2, .exact = 2},
    {G "input a: bf16[40, 24] input b: bf16[56, 24] y = Gemm(a, b) {transB = 1} z = Gelu(y) output z }", .plans = 2, .exact = 2},
    {G "input a: f16[24, 40] input b: f16[24, 56] y = Gemm(a, b) {transA = 1} z = Relu(y) output z }", .plans = 2, .exact = 2},
    {G "input a: f32[2, 3, 40, 24] input b: f32[2, 3, 24, 56] y = MatMul(a, b) output y }", .plans = 4, .exact = 1},
    {G "input a: f32[2, 3, 40, 24] input b: f32[24, 56] input c: f32[56] input r: f32[2, 3, 40, 56] y = MatMul(a, b) u = Add(y, c) v = Add(r, u) z = Relu(v) output z }", .plans = 4, .exact = 1},
    {G "input a: f64[11, 24] input b: f64[24, 7] y = MatMul(a, b) output y }", .plans = 2, .exact = 2},
    {G "input a: i8[40, 24] input b: i8[24, 56] y = MatMulInteger(a, b) output y }", .layout = "perm 1 0", .which = 1, .plans = 2, .exact = 2},
    {G "input a: i8[40, 24] input b: i8[24, 56] y = MatMulInteger(a, b) output y }", .plans = 0, .exact = 0},
    {G "input a: f8e4m3fn[40, 24] input b: f8e4m3fn[56, 24] x = Cast(a) {to = 10} w = Cast(b) {to = 10} y = Gemm(x, w) {transB = 1} output y }", .plans = 4, .exact = 4, .gpu = true},
    {G EIGHT("f8e4m3fn", "f8e4m3fn", "", "") "output p }", .plans = 4, .exact = 4, .gpu = true, .notes = "tensor cores, inputs rounded, sum in 2 pieces"},
    {G EIGHT("f8e4m3fn", "f8e5m2", "40", "56") "z = Relu(p) output z }", .plans = 4, .exact = 4, .gpu = true},
    {G EIGHT("f8e5m2", "f8e4m3fn", "", "") "input c: bf16[56] d = Cast(c) {to = 1} u = Add(p, d) z = Relu(u) output z }", .plans = 4, .exact = 4, .gpu = true},
    {G EIGHT("f8e4m3fn", "f8e4m3fn", "", "") "q = Cast(p) {to = 16} input c: bf16[40, 56] u = Add(q, c) output u }", .plans = 4, .exact = 4, .gpu = true},
    {G EIGHT("f8e4m3fn", "f8e4m3fn", "", "") "r = Relu(p) const so: f32[] = 3.0 const zero: f8e4m3fn[] = 0.0 z = QuantizeLinear(r, so, zero) output z }", .plans = 4, .exact = 4, .gpu = true},
    {G EIGHT("f8e4m3fn", "f8e5m2", "", "") "const so: f32[] = 0.7 const zero: f8e5m2[] = 0.0 z = QuantizeLinear(p, so, zero) output z }", .plans = 4, .exact = 4, .gpu = true},
    {G EIGHT("f8e4m3fn", "f8e4m3fn", "", "") "input so: f32[] const zero: f8e4m3fn[] = 0.0 z = QuantizeLinear(p, so, zero) output z }", .refused = "epilogue", .gpu = true},
    {G EIGHT("f8e4m3fn", "f8e4m3fn", "", "56") "output p }", .refused = "epilogue", .gpu = true},
    {G EIGHT("f8e4m3fn", "f8e4m3fn", "", "") "input c: f32[56] u = Add(p, c) output u }", .refused = "epilogue", .gpu = true},
    {G EIGHT("f8e5m2", "f8e5m2", "", "") "output p }", .refused = "types", .gpu = true},
    {G "input a: f32[1, 64] input b: f32[64, 48] y = MatMul(a, b) output y }", .plans = 4, .exact = 1},
    {G "input a: f32[48, 64] input b: f32[64, 1] y = MatMul(a, b) output y }", .plans = 4, .exact = 1},
    {G "input a: f32[40, 24] input b: f32[24, 56] input c: f32[40, 1] y = MatMul(a, b) u = Add(y, c) output u }", .layout = "perm 1 0", .which = 3, .plans = 4, .exact = 1},
    {G "input x: f32[2, 24, 5, 7] input w: f32[16, 24, 1, 1] y = Conv(x, w) output y }", .plans = 4, .exact = 1},
    {G "input a: f32[40, 24] input b: f32[24, 56] input c: f32[40, 1] y = MatMul(a, b) u = Add(y, c) output u }", .refused = "epilogue"},
    {G "input a: f32[40, 24] input b: f32[24, 56] y = MatMul(a, b) z = Exp(y) output z }", .refused = "epilogue"},
    {G "input a: f32[40, 24] input b: f32[24, 56] y = MatMul(a, b) z = Gelu(y) input c: f32[56] u = Add(z, c) output u }", .refused = "epilogue"},
    {G "input a: bf16[40, 24] input b: bf16[24, 56] y = MatMul(a, b) s = Sigmoid(y) z = Mul(y, s) output z }", .refused = "epilogue"},
    {G "input a: i8[40, 24] input b: i8[24, 56] const z: i8[] = 3 y = MatMulInteger(a, b, z) output y }", .refused = "more than a sum"},
    {G "input x: f32[2, 24, 5, 7] input w: f32[16, 24, 3, 3] y = Conv(x, w) {pads = [1, 1, 1, 1]} output y }", .refused = "borders"},
    {G "input x: f32[40, 24] y = ReduceSum(x) output y }", .refused = "not a product"},
    {G "input a: f32[5, 40, 24] input b: f32[5, 24, 56] y = MatMul(a, b) output y }", .layout = "perm 1 0 2", .which = 0, .plans = 4, .exact = 1},
};

static const char *named(void *user, const ir_kernel *k) {
  (void)k;
  return user;
}

static const ir_program *lowered(tn_ctx *ctx, ir_graph *g, const product *x) {
  if (x->gpu) return rt_cuda_lower(ctx, g, LW_LAYOUT_AUTO);
  return lw_compile(ctx, g, &(lw_options){.unscheduled = true, .layout = strstr(x->text, "Conv") ? LW_LAYOUT_NHWC : LW_LAYOUT_AUTO});
}

/* A plan of the library's against the interpreter. */
static void run_product(tn_ctx *ctx, rt_cuda_device *d, const cu_target *t, const ir_program *p, const char *text) {
  const rt_cuda_plan *plan = rt_cuda_plan_make(ctx, p, t, &(rt_cuda_options){.choice = named, .user = (void *)text});
  cuda_on_device(ctx, d, p, plan, 0);
}

static void run_products(tn_ctx *ctx, void *arg) {
  const product *x = arg;
  const cu_target *t = cu_target_find(ctx, "sm_90a");
  ir_graph *g = ir_graph_parse(ctx, x->text, "test");
  ir_graph_sort(g);
  const ir_program *p = lowered(ctx, g, x);
  const ir_kernel *k = p->kernels[p->nkernels - 1].lowered ? p->kernels[p->nkernels - 1].lowered : p->kernels[p->nkernels - 1].kernel;
  if (x->layout) k->bufs[x->which]->layout = ir_layout_parse(ctx, x->layout);
  rt_lt_product product;
  const char *why = NULL;
  bool is = rt_lt_product_of(ctx, k, &product, &why);
  if (x->refused ? is || !strstr(why, x->refused) : !is) ir_fail(ctx, TN_EWRONG, "%s\n%s", is ? "taken" : why, ir_kernel_print(ctx, k));
  if (x->refused) return;
  rt_cuda_device *d = rt_cuda_device_open(ctx, t, 0);
  rt_cuda_candidates all = rt_lt_candidates(ctx, &product, &(rt_cuda_candidate_options){0}), exact = rt_lt_candidates(ctx, &product, &(rt_cuda_candidate_options){.ieee = true});
  rt_cuda_candidates lean = rt_lt_candidates(ctx, &product, &(rt_cuda_candidate_options){.workspace = 100});
  if (all.n != x->plans || exact.n != x->exact) ir_fail(ctx, TN_EWRONG, "%d and %d plans: %s", all.n, exact.n, all.why ? all.why : "");
  if (lean.n * 2 != all.n) ir_fail(ctx, TN_EWRONG, "%d plans with less workspace", lean.n);
  if (!all.n && (!all.why || !strstr(all.why, "refused"))) ir_fail(ctx, TN_EWRONG, "why: %s", all.why);
  if (x->notes && strcmp(all.list[1].notes, x->notes)) ir_fail(ctx, TN_EWRONG, "notes '%s'", all.list[1].notes);
  if (all.n && !strstr(all.list[1].text, " algo 1 tile 20 splitk 2 reduction 2 swizzle 0 custom 0 stages 7 inner 0 cluster 0")) ir_fail(ctx, TN_EWRONG, "'%s'", all.list[1].text);
  for (int i = 0; i < all.n; i++) {
    WANT(ctx, all.list[i].workspace == (i % 2 ? 1024 : 0) && rt_cuda_is_library(all.list[i].text) && rt_cuda_library_fits(ctx, k, all.list[i].text));
    if (p->nkernels == 1) run_product(ctx, d, t, p, all.list[i].text);
  }
}

static void with_fakes(const char *fake) {
  char path[1200];
  snprintf(path, sizeof path, "%s/tests/fake:%s/tests/fake_cublaslt:-", TN_BUILD_DIR, TN_BUILD_DIR);
  setenv("TENON_CUDA_PATH", path, 1);
  setenv("FAKE_CUBLASLT", fake, 1);
  rt_cuda_forget();
}

Test(cuda_libs, products_by_cublaslt) {
  with_fakes("");
  for (int i = 0; i < IR_COUNT(products); i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    tn_status s = ir_protect(ctx, run_products, (void *)&products[i]);
    cr_assert_eq(s, TN_OK, "%s: %.900s", products[i].text, tn_error(ctx));
    tn_ctx_free(ctx);
  }
}

/* A plan that cannot be made again, or run, says so. */
static void fail_product(tn_ctx *ctx, void *arg) {
  ir_graph *g = ir_graph_parse(ctx, products[0].text, "test");
  ir_graph_sort(g);
  const ir_program *p = lw_compile(ctx, g, &(lw_options){.unscheduled = true});
  const cu_target *t = cu_target_find(ctx, "sm_90a");
  run_product(ctx, rt_cuda_device_open(ctx, t, 0), t, p, arg);
}

Test(cuda_libs, products_that_fail) {
  static const struct { const char *fake, *text, *error; } rows[] = {
      {"nohandle", "cublaslt 13.1.0 compute 68 algo 0 tile 20 splitk 1 reduction 0 swizzle 0 custom 0 stages 7 inner 0 cluster 0", "no handle"},
      {"fail", "cublaslt 13.1.0 compute 68 algo 0 tile 20 splitk 1 reduction 0 swizzle 0 custom 0 stages 7 inner 0 cluster 0", "GPU: y: "},
      {"", "cublaslt 13.1.0 compute 68 algo 5 tile 20 splitk 1 reduction 0 swizzle 0 custom 0 stages 7 inner 0 cluster 0", "no such algorithm"},
      {"", "cublaslt 13.1.0 compute 68 algo 0 tile 21 splitk 1 reduction 0 swizzle 0 custom 0 stages 7 inner 0 cluster 0", "checking it: status 15"},
      {"", "cublaslt 13.1.0 compute 68 algo 0 tile", "no such algorithm"},
      {"", "cublaslt 12.9.0 compute 68 algo 0 tile 20 splitk 1 reduction 0 swizzle 0 custom 0 stages 7 inner 0 cluster 0", "another version"}};
  for (int i = 0; i < IR_COUNT(rows); i++) {
    with_fakes(rows[i].fake);
    tn_ctx *ctx = tn_ctx_new(NULL);
    tn_status s = ir_protect(ctx, fail_product, (void *)rows[i].text);
    cr_assert(s != TN_OK && strstr(tn_error(ctx), rows[i].error), "%d: %s", i, tn_error(ctx));
    tn_ctx_free(ctx);
  }
}

/* The library itself, as far as it goes without a device: all functions are there, descriptors take the problems. */
static void described(tn_ctx *ctx, void *arg) {
  const product *x = arg;
  ir_graph *g = ir_graph_parse(ctx, x->text, "test");
  ir_graph_sort(g);
  const ir_program *p = lowered(ctx, g, x);
  rt_lt_product product;
  const char *why = NULL;
  if (!rt_lt_product_of(ctx, p->kernels[p->nkernels - 1].kernel, &product, &why)) return;
  rt_cuda_candidates r = rt_lt_candidates(ctx, &product, &(rt_cuda_candidate_options){0});
  if (!r.n && !strstr(r.why, "no handle without a device")) ir_fail(ctx, TN_EWRONG, "%s", r.why);
}

Test(cuda_libs, descriptors_of_the_real_cublaslt) {
  unsetenv("TENON_CUDA_PATH");
  rt_cuda_forget();
  if (!rt_cuda_library(RT_CUDA_BLASLT)->handle) {
    fprintf(stderr, "skipped: no cuBLASLt: %s\n", rt_cuda_library(RT_CUDA_BLASLT)->why);
    return;
  }
  for (int i = 0; i < IR_COUNT(products); i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    tn_status s = ir_protect(ctx, described, (void *)&products[i]);
    cr_assert_eq(s, TN_OK, "%s: %.900s", products[i].text, tn_error(ctx));
    tn_ctx_free(ctx);
  }
}
