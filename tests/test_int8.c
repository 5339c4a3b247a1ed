/* Quantised graphs as integer kernels: random layers, every target's form of them against the graph as it is
 * written (interpreted, unscheduled). Sums in i32 are equal; what is quantised again is within one quantum. */
#include "codegen/codegen.h"
#include "ir/interp.h"
#include "lower/lower.h"
#include "lower/schedule.h"
#include "runtime/module.h"
#include "runtime/program_interp.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state;
static uint32_t next(void) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(state >> 33);
}
static int64_t between(int64_t lo, int64_t hi) { return lo + (int64_t)(next() % (uint64_t)(hi - lo + 1)); }
static bool coin(void) { return next() & 1; }

static const char *const cpus[] = {"x86-64", "x86-64-v3", "x86-64-v4", "alderlake", "cascadelake", "aarch64", "neoverse-n1"};

static const char *triple_of(const char *cpu) { return strcmp(cpu, "aarch64") && strcmp(cpu, "neoverse-n1") ? "x86_64-unknown-linux-gnu" : "aarch64-linux-gnu"; }

/* ---- constants as text ---- */

static int64_t zero_point(bool u8) {
  int64_t lo = u8 ? 0 : -128;
  return next() % 3 == 0 ? (u8 ? 0 : 0) : next() % 3 == 0 ? lo + 255 * coin() : between(lo, lo + 255);
}

static void put_ints(ir_text *t, const char *name, const char *type, const char *dims, int64_t count, int64_t lo, int64_t hi) {
  ir_put(t, "const %s: %s[%s] = [", name, type, dims);
  for (int64_t i = 0; i < count; i++) ir_put(t, "%s%lld", i ? ", " : "", (long long)(next() % 8 == 0 ? (coin() ? lo : hi) : between(lo, hi)));
  ir_put(t, "] ");
}

static void put_scales(ir_text *t, const char *name, int64_t count) {
  if (count) ir_put(t, "const %s: f32[%lld] = [", name, (long long)count);
  else ir_put(t, "const %s: f32[] = ", name);
  for (int64_t i = 0; i < (count ? count : 1); i++) ir_put(t, "%s%.6f", i ? ", " : "", 0.001 + 0.0001 * (double)(next() % 400));
  ir_put(t, count ? "] " : " ");
}

/* ---- running ---- */

typedef struct trial {
  const char *text;
  double tolerance; /* of the results, in their units */
  uint64_t seed;
} trial;

static void fill(void *p, const ir_slot *s) {
  for (int64_t i = 0; i < s->bytes; i++)
    if (s->dtype != TN_F32) ((uint8_t *)p)[i] = (uint8_t)(next() % 4 ? next() : coin() ? 0 : 255);
    else if (i % 4 == 0) ((float *)p)[i / 4] = (float)((double)next() / 0x7fffffff * 8 - 4);
}

static double element(const ir_slot *s, const void *p, int64_t i) {
  ir_scalar v = ir_scalar_load(s->dtype, (const char *)p + (size_t)i * ir_dtype_bytes(s->dtype));
  return ir_is_float(s->dtype) ? v.f : (double)v.i;
}

static void *memory(tn_ctx *ctx, const ir_slot *s) { return ir_alloc(ctx, (size_t)s->bytes + 64); }

static void run_trial(tn_ctx *ctx, void *arg) {
  const trial *t = arg;
  void *in[4] = {NULL}, *want[4], *got[4];
  state = t->seed;
  for (int way = -1; way < (int)IR_COUNT(cpus); way++) {
    lw_options o = {.target = cg_target_find(ctx, way < 0 ? NULL : cpus[way], way < 0 ? NULL : triple_of(cpus[way])), .unscheduled = way < 0};
    ir_program *p = lw_compile(ctx, ir_graph_parse(ctx, t->text, "test"), &o);
    for (int i = 0; i < p->nslots; i++) {
      const ir_slot *s = &p->slots[i];
      if (s->kind == IR_SLOT_INPUT && way < 0) fill(in[s->index] = memory(ctx, s), s);
      if (s->kind == IR_SLOT_OUTPUT) (way < 0 ? want : got)[s->index] = memory(ctx, s);
    }
    void *const *out = way < 0 ? want : got;
    if (way >= 0 && cg_target_runs_here(ctx, o.target, NULL)) {
      rt_module *m = rt_module_build(ctx, p, &(rt_options){.target = o.target});
      if (rt_run(m, (const void *const *)in, out, NULL, NULL)) ir_fail(ctx, TN_EWRONG, "the run failed");
      rt_module_free(ctx, m);
    } else rt_program_interp(ctx, p, (const void *const *)in, out, NULL, NULL, NULL);
    for (int i = 0; i < p->nslots && way >= 0; i++) {
      const ir_slot *s = &p->slots[i];
      if (s->kind != IR_SLOT_OUTPUT) continue;
      for (int64_t k = 0; k < s->bytes / (int64_t)ir_dtype_bytes(s->dtype); k++) {
        double a = element(s, got[s->index], k), b = element(s, want[s->index], k);
        if (!(fabs(a - b) <= t->tolerance)) ir_fail(ctx, TN_EWRONG, "%s: output %d element %lld is %g, not %g", cpus[way], s->index, (long long)k, a, b);
      }
    }
  }
}

static void run(tn_ctx *texts, const ir_text *t, double tolerance) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  trial q = {ir_text_str((ir_text *)(uintptr_t)t), tolerance, state};
  uint64_t keep = state;
  cr_expect_eq(ir_protect(ctx, run_trial, &q), TN_OK, "%.600s\n%.3000s", tn_error(ctx), q.text);
  state = keep;
  tn_ctx_free(ctx);
  (void)texts;
}

static int trials(int n) {
  const char *e = getenv("TENON_SCHEDULES");
  return e ? atoi(e) : n;
}

/* ---- layers ---- */

typedef struct layer {
  int64_t c, h, w, k, r, s, group, stride, pad, dilation;
} layer;

static layer random_layer(void) {
  static const int64_t channels[] = {1, 2, 3, 4, 5, 8, 12, 16, 17, 24, 32, 33, 36};
  layer l = {.c = channels[next() % IR_COUNT(channels)], .h = between(1, 9), .w = between(1, 13), .k = channels[next() % IR_COUNT(channels)], .group = 1};
  l.r = coin() ? 1 : between(1, 3);
  l.s = l.r == 1 && coin() ? 1 : between(1, 3);
  l.stride = between(1, 2);
  l.dilation = next() % 4 ? 1 : 2;
  l.pad = l.r * l.s == 1 ? 0 : between(0, 1);
  if (next() % 4 == 0) l.group = l.k = l.c; /* depthwise */
  else if (next() % 6 == 0 && l.c % 2 == 0 && l.k % 2 == 0) l.group = 2;
  while (l.h + 2 * l.pad < (l.r - 1) * l.dilation + 1) l.h++;
  while (l.w + 2 * l.pad < (l.s - 1) * l.dilation + 1) l.w++;
  return l;
}

static const char *attributes(tn_ctx *ctx, const layer *l) {
  return ir_format(ctx, "{ strides = [%lld, %lld], pads = [%lld, %lld, %lld, %lld], dilations = [%lld, %lld], group = %lld }", (long long)l->stride, (long long)l->stride,
                   (long long)l->pad, (long long)l->pad, (long long)l->pad, (long long)l->pad, (long long)l->dilation, (long long)l->dilation, (long long)l->group);
}

static void put_weights(tn_ctx *ctx, ir_text *t, const layer *l, bool u8) {
  const char *dims = ir_format(ctx, "%lld, %lld, %lld, %lld", (long long)l->k, (long long)(l->c / l->group), (long long)l->r, (long long)l->s);
  put_ints(t, "w", u8 ? "u8" : "i8", dims, l->k * (l->c / l->group) * l->r * l->s, u8 ? 0 : -128, u8 ? 255 : 127);
}

static void conv_integer(tn_ctx *ctx, void *arg) {
  (void)arg;
  for (int i = 0; i < trials(8); i++) {
    layer l = random_layer();
    bool ux = coin(), uw = next() % 3 == 0, each = coin();
    int64_t zw = uw && coin() ? 128 : coin() ? 0 : zero_point(uw);
    ir_text t = {.ctx = ctx};
    ir_put(&t, "graph g { opset 10 input x: %s[1, %lld, %lld, %lld] ", ux ? "u8" : "i8", (long long)l.c, (long long)l.h, (long long)l.w);
    put_weights(ctx, &t, &l, uw);
    ir_put(&t, "const zx: %s[] = %lld ", ux ? "u8" : "i8", (long long)zero_point(ux));
    if (each) put_ints(&t, "zw", uw ? "u8" : "i8", ir_format(ctx, "%lld", (long long)l.k), l.k, zw, coin() ? zw : uw ? 255 : 127);
    else ir_put(&t, "const zw: %s[] = %lld ", uw ? "u8" : "i8", (long long)zw);
    ir_put(&t, "y = ConvInteger(x, w, zx, zw) %s output y }", attributes(ctx, &l));
    run(ctx, &t, 0);
  }
}

static void conv_qdq(tn_ctx *ctx, void *arg) {
  (void)arg;
  static const char *const after[] = {"", "a = Relu(a0)", "a = Clip(a0, lo, hi)"};
  for (int i = 0; i < trials(8); i++) {
    layer l = random_layer();
    bool ux = coin(), uy = coin(), each = coin(), two = coin(), bias = coin();
    int act = (int)(next() % IR_COUNT(after));
    ir_text t = {.ctx = ctx};
    ir_put(&t, "graph g { opset 13 input x: %s[1, %lld, %lld, %lld] const sx: f32[] = 0.0625 ", ux ? "u8" : "i8", (long long)l.c, (long long)l.h, (long long)l.w);
    put_weights(ctx, &t, &l, false);
    put_scales(&t, "sw", each ? l.k : 0);
    put_scales(&t, "sb", l.k);
    put_ints(&t, "b", "i32", ir_format(ctx, "%lld", (long long)l.k), l.k, -4000, 4000);
    ir_put(&t, "const zx: %s[] = %lld const lo: f32[] = 0.0 const hi: f32[] = 6.0 ", ux ? "u8" : "i8", (long long)zero_point(ux));
    ir_put(&t, "const zy: %s[] = %lld const sy: f32[] = %g ", uy ? "u8" : "i8", (long long)(coin() ? (uy ? 0 : -128) : zero_point(uy)), 0.02 + 0.01 * (double)(next() % 30));
    if (each) ir_put(&t, "one = Mul(sw, sx) bs = Mul(one, two) const two: f32[] = %s ", coin() ? "1.0" : "1.5");
    else ir_put(&t, "bs = Mul(sb, sx) ");
    ir_put(&t, "xf = DequantizeLinear(x, sx, zx) wf = DequantizeLinear(w, sw) { axis = 0 } bf = DequantizeLinear(b, bs) { axis = 0 } ");
    ir_put(&t, "a%s = Conv(xf, wf%s) %s %s ", act ? "0" : "", bias ? ", bf" : "", attributes(ctx, &l), after[act]);
    ir_put(&t, "y = QuantizeLinear(a, sy, zy) ");
    if (two) { /* a residual: the layer's input or its own result again, other scales */
      bool same = l.k == l.c && l.stride == 1 && l.r == 1 + 2 * l.pad && l.s == 1 + 2 * l.pad && l.dilation == 1;
      ir_put(&t, "const st: f32[] = 0.11 const zt: u8[] = 7 yf = DequantizeLinear(y, sy, zy) sum = Add(yf, %s) t = QuantizeLinear(sum, st, zt) output t }", same ? "xf" : "yf");
    } else ir_put(&t, "output y }");
    /* one quantum of y, seen through the sum: up to 2 * 0.31 / 0.11 quanta of t */
    run(ctx, &t, two ? 7 : 1);
  }
}

static void products(tn_ctx *ctx, void *arg) {
  (void)arg;
  static const int64_t sizes[] = {1, 2, 3, 4, 7, 8, 16, 30, 33, 64};
  for (int i = 0; i < trials(8); i++) {
    int64_t m = sizes[next() % IR_COUNT(sizes)], n = sizes[next() % IR_COUNT(sizes)], k = sizes[next() % IR_COUNT(sizes)];
    bool ua = coin(), ub = next() % 3 == 0, dynamic = next() % 4 == 0, turned = coin();
    int kind = (int)(next() % 3);
    ir_text t = {.ctx = ctx};
    ir_put(&t, "graph g { opset 13 input a: %s[%lld, %lld] ", ua ? "u8" : "i8", (long long)m, (long long)k);
    turned &= kind == 2 && !dynamic;
    const char *dims = ir_format(ctx, "%lld, %lld", (long long)(turned ? n : k), (long long)(turned ? k : n));
    if (dynamic) ir_put(&t, "input b: %s[%s] ", ub ? "u8" : "i8", dims);
    else put_ints(&t, "b", ub ? "u8" : "i8", dims, k * n, ub ? 0 : -128, ub ? 255 : 127);
    ir_put(&t, "const za: %s[] = %lld const zb: %s[] = %lld ", ua ? "u8" : "i8", (long long)zero_point(ua), ub ? "u8" : "i8", (long long)(coin() ? ub * 128 : zero_point(ub)));
    if (kind == 0) ir_put(&t, "y = MatMulInteger(a, b, za, zb) output y }");
    else {
      ir_put(&t, "const sa: f32[] = 0.03 const sb: f32[] = 0.007 const sy: f32[] = 0.15 const zy: i8[] = 3 ");
      ir_put(&t, "af = DequantizeLinear(a, sa, za) bf = DequantizeLinear(b, sb, zb) ");
      if (kind == 1) ir_put(&t, "p = MatMul(af, bf) ");
      else {
        put_scales(&t, "c", n);
        ir_put(&t, "p = Gemm(af, bf, c) { transB = %d } ", turned);
      }
      ir_put(&t, "y = QuantizeLinear(p, sy, zy) output y }");
    }
    run(ctx, &t, kind == 0 ? 0 : 1);
  }
}

static void chain(tn_ctx *ctx, void *arg) { /* what stands between layers, and a result in floats */
  (void)arg;
  for (int i = 0; i < trials(3); i++) {
    layer l = {.c = 3, .h = 9, .w = 9, .k = between(1, 40), .r = 3, .s = 3, .group = 1, .stride = 1, .pad = 1, .dilation = 1};
    ir_text t = {.ctx = ctx};
    ir_put(&t, "graph g { opset 13 input x: f32[1, 3, 9, 9] const sx: f32[] = 0.03125 const zx: u8[] = %lld const s0: f32[] = 0.5 const z0: u8[] = 3 ", (long long)between(100, 150));
    put_weights(ctx, &t, &l, false);
    put_scales(&t, "sw", l.k);
    ir_put(&t, "q = QuantizeLinear(x, sx, zx) xf = DequantizeLinear(q, sx, zx) wf = DequantizeLinear(w, sw) { axis = 0 } c = Conv(xf, wf) { pads = [1, 1, 1, 1] } ");
    ir_put(&t, "cq = QuantizeLinear(c, s0, z0) cf = DequantizeLinear(cq, s0, z0) p = MaxPool(cf) { kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1] } ");
    ir_put(&t, "pq = QuantizeLinear(p, s0, z0) pf = DequantizeLinear(pq, s0, z0) m = GlobalAveragePool(pf) d = Flatten(m) output d, pf }");
    run(ctx, &t, 0.51);
  }
}

/* Winograd's algorithm in integers: equal sums, also of the largest operands. */
static void winograd(tn_ctx *ctx, void *arg) {
  (void)arg;
  for (int i = 0; i < trials(2); i++) {
    layer l = {.c = 32 + 8 * (i % 2), .k = 32 + 8 * (i % 2), .h = 10, .w = between(10, 11), .r = 3, .s = 3, .group = 1, .stride = 1, .dilation = 1, .pad = 1 - i % 2};
    ir_text t = {.ctx = ctx};
    ir_put(&t, "graph g { opset 10 input x: u8[1, %lld, %lld, %lld] ", (long long)l.c, (long long)l.h, (long long)l.w);
    const char *dims = ir_format(ctx, "%lld, %lld, 3, 3", (long long)l.k, (long long)l.c);
    put_ints(&t, "w", "i8", dims, l.k * l.c * 9, -128, i ? 127 : -120);
    /* what is read by channels stays in blocks of them; sums below 2^24 are exact as floats */
    ir_put(&t, "y = ConvInteger(x, w) %s f = Cast(y) { to = 1 } m = MaxPool(f) { kernel_shape = [1, 2] } output m }", attributes(ctx, &l));
    lw_options o = {.target = cg_target_find(ctx, "x86-64-v3", NULL)};
    const ir_program *p = lw_compile(ctx, ir_graph_parse(ctx, ir_text_str(&t), "test"), &o);
    bool found = false;
    for (int k = 0; k < p->nkernels; k++) found |= strstr(p->kernels[k].schedule, "algorithm winograd 2") != NULL;
    for (int k = 0; k < p->nkernels; k++)
      if (lw_schedule_error(ctx, p->kernels[k].kernel, p->kernels[k].schedule) != 0) ir_fail(ctx, TN_EWRONG, "integers are said to be inexact");
    cr_expect(found, "no Winograd for %s", dims);
    run(ctx, &t, 0);
  }
}

/* A weight that sums in 16 bits are to take: small, with a large one in so many; or 128 in all, exactly, in two or four. */
static int64_t picked_weight(int kind) {
  static const int64_t full[] = {64, -64, 32, -32, 127, -128, 1, 0};
  switch (kind) {
  case 0: return between(-32, 32);
  case 1: return next() % 128 == 0 ? (coin() ? -128 : 127) : between(-40, 40);
  case 2: return between(43, 64);
  case 3: return full[next() % 16 < 8 ? 7 : next() % 8];
  default: return between(100, 127);
  }
}

/* Channels put together so that sums of two and of four products fit 16 bits, on AVX2: few large weights, large activations;
 * strides, borders on all sides, zero points. The last kind: all weights are large and of one sign, and none fit. */
static void picked(tn_ctx *ctx, void *arg) {
  enum { KINDS = 5 };
  static const char *const sums[KINDS] = {"eights", "eights", "fours", "eights", ""};
  (void)arg;
  for (int i = 0; i < KINDS + 2; i++) {
    int kind = i % KINDS;
    bool fits = sums[kind][0], wide = i >= KINDS;
    layer l = {.c = 64 + 16 * (i % 3), .k = 16 + 16 * (i == 0), .r = wide ? 3 : 1, .s = wide ? 3 : 1, .group = 1, .stride = 1 + (i % 2 || wide), .dilation = 1, .pad = wide};
    l.h = l.stride == 1 ? 3 : 8, l.w = 7;
    ir_text t = {.ctx = ctx};
    ir_put(&t, "graph g { opset 10 input x: u8[1, %lld, %lld, %lld] const zx: u8[] = %d ", (long long)l.c, (long long)l.h, (long long)l.w, i % 4 == 1 ? 77 : 0);
    ir_put(&t, "const w: i8[%lld, %lld, %lld, %lld] = [", (long long)l.k, (long long)l.c, (long long)l.r, (long long)l.s);
    for (int64_t e = 0; e < l.k * l.c * l.r * l.s; e++) ir_put(&t, "%s%lld", e ? ", " : "", (long long)picked_weight(kind));
    ir_put(&t, "] y = ConvInteger(x, w, zx) %s f = Cast(y) { to = 1 } m = MaxPool(f) { kernel_shape = [1, 2] } output m }", attributes(ctx, &l)); /* blocks of channels, as in winograd */
    lw_options o = {.target = cg_target_find(ctx, "x86-64-v3", triple_of("x86-64-v3"))};
    const ir_program *p = lw_compile(ctx, ir_graph_parse(ctx, ir_text_str(&t), "test"), &o);
    bool found = false, eights = false;
    for (int k = 0; k < p->nkernels; k++) {
      const char *code = cg_kernel_asm(ctx, o.target, p->kernels[k].lowered, "k");
      found |= strstr(code, "vpmaddubsw") != NULL, eights |= strstr(code, "vpaddw") != NULL;
    }
    cr_expect_eq(found, fits, "layer %d: %s", i, found ? "pairs that saturate" : "no vpmaddubsw");
    cr_expect_eq(eights, strcmp(sums[kind], "eights") == 0, "layer %d: %s", i, eights ? "eights" : "no eights");
    run(ctx, &t, 0);
  }
}

typedef struct sums {
  int weight, eights;
} sums;

/* Weights that are all alike, as one eight and two fours, or four fours. */
static void picked_sums(tn_ctx *ctx, void *arg) {
  const sums *s = arg;
  ir_text t = {.ctx = ctx};
  ir_put(&t, "graph g { input x: u8[1, 16, 4, 4] const w: i8[16, 16, 1, 1] = [");
  for (int i = 0; i < 256; i++) ir_put(&t, "%s%d", i ? ", " : "", s->weight);
  ir_put(&t, "] const by: u16[1, 1, %d] = [0", 4 - s->eights);
  for (int i = 1; i < 4 - s->eights; i++) ir_put(&t, ", 0");
  ir_put(&t, "] const pick: u8[1, 1, 4, 32] = [0");
  for (int i = 1; i < 128; i++) ir_put(&t, ", %d", i / 32 * 4 + i % 4);
  ir_put(&t, "] y = tenon:ConvPicked(x, w, by, pick) output y }");
  lw_compile(ctx, ir_graph_parse(ctx, ir_text_str(&t), "test"), &(lw_options){.target = cg_target_find(ctx, "x86-64-v3", triple_of("x86-64-v3"))});
}

/* Sums that might leave 16 bits are refused: of four weights in an eight, of two in a four. */
Test(int8, picked_refusals) {
  static const struct {
    sums s;
    const char *why;
  } cases[] = {{{32, 1}, NULL}, {{33, 1}, "add up to 132"}, {{-33, 1}, "add up to -132"}, {{33, 0}, NULL}, {{-64, 0}, NULL}, {{65, 0}, "add up to 130"}};
  for (int i = 0; i < (int)IR_COUNT(cases); i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    sums s = cases[i].s;
    tn_status got = ir_protect(ctx, picked_sums, &s);
    cr_expect(cases[i].why ? got != TN_OK && strstr(tn_error(ctx), cases[i].why) : got == TN_OK, "case %d: %s", i, got ? tn_error(ctx) : "taken");
    tn_ctx_free(ctx);
  }
}

static void start(void (*fn)(tn_ctx *, void *), uint64_t seed) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  state = seed;
  cr_expect_eq(ir_protect(ctx, fn, NULL), TN_OK, "%s", tn_error(ctx));
  tn_ctx_free(ctx);
}

Test(int8, conv_integer) { start(conv_integer, 1); }
Test(int8, conv_qdq) { start(conv_qdq, 2); }
Test(int8, products) { start(products, 3); }
Test(int8, chain) { start(chain, 4); }
Test(int8, winograd) { start(winograd, 5); }
Test(int8, picked) { start(picked, 6); }

/* The instruction that a machine has for it is the one that is used. */
static void instructions(tn_ctx *ctx, void *arg) {
  (void)arg;
  static const struct {
    const char *cpu, *instruction;
  } cases[] = {{"x86-64", "pmaddwd"}, {"x86-64-v3", "vpmaddwd"}, {"x86-64-v4", "vpmaddwd"}, {"alderlake", "vpdpbusd"}, {"cascadelake", "vpdpbusd"}, {"sapphirerapids", "vpdpbusd"}, {"neoverse-n1", "sdot"}};
  for (int i = 0; i < IR_COUNT(cases); i++) {
    state = 5;
    layer l = {.c = 32, .h = 7, .w = 14, .k = 32, .r = 3, .s = 3, .group = 1, .stride = 1, .pad = 1, .dilation = 1};
    ir_text t = {.ctx = ctx};
    ir_put(&t, "graph g { opset 10 input x: u8[1, 32, 7, 14] ");
    put_weights(ctx, &t, &l, false);
    ir_put(&t, "const s: f32[] = 9.5 const z: u8[] = 0 y = ConvInteger(x, w) %s f = Cast(y) { to = 1 } q = QuantizeLinear(f, s, z) r = ConvInteger(q, w) %s output r }", attributes(ctx, &l), attributes(ctx, &l));
    lw_options o = {.target = cg_target_find(ctx, cases[i].cpu, triple_of(cases[i].cpu))};
    ir_program *p = lw_compile(ctx, ir_graph_parse(ctx, ir_text_str(&t), "test"), &o);
    bool found = false;
    for (int k = 0; k < p->nkernels; k++) found |= strstr(cg_kernel_asm(ctx, o.target, p->kernels[k].lowered, "k"), cases[i].instruction) != NULL;
    if (!found) ir_fail(ctx, TN_EWRONG, "no %s for %s", cases[i].instruction, cases[i].cpu);
  }
}
Test(int8, instructions) { start(instructions, 5); }
