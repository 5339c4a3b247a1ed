/* Graphs of 8-bit floats: as machine code for CPUs, and with products that take them as they are, against the graph as it
 * is written, interpreted; how a product is found, and where none is. */
#include "ir/interp.h"
#include "lower/lower.h"
#include "runtime/module.h"
#include "runtime/program_interp.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct trial {
  const char *text;
  bool found; /* the product takes bytes, where it may */
} trial;

static const char *const cpus[] = {"native", "x86-64", "x86-64-v3"};

static void *filled(tn_ctx *ctx, const ir_slot *s) {
  uint64_t z = 7 + (uint64_t)s->index;
  size_t size = ir_dtype_bytes(s->dtype);
  char *p = ir_alloc(ctx, (size_t)s->bytes + 64);
  for (int64_t i = 0; i < s->bytes / (int64_t)size; i++) {
    z = z * 6364136223846793005u + 1442695040888963407u;
    ir_scalar_store(s->dtype, p + (size_t)i * size, (ir_scalar){.f = (double)(int64_t)(z >> 11) * 0x1p-51 - 2});
  }
  return p;
}

static void check_output(tn_ctx *ctx, const ir_slot *s, const char *want, const char *got, const char *where) {
  size_t size = ir_dtype_bytes(s->dtype);
  double top = 0, tolerance = ir_is_byte_float(s->dtype) ? ldexp(1.05, -ir_byte_format_of(s->dtype)->fraction) : s->dtype == TN_F16 ? 4e-3 : s->dtype == TN_BF16 ? 3e-2 : 1e-5;
  for (int64_t i = 0; i < s->bytes / (int64_t)size; i++) top = fmax(top, fabs(ir_scalar_load(s->dtype, want + (size_t)i * size).f));
  for (int64_t i = 0; i < s->bytes / (int64_t)size; i++) {
    double a = ir_scalar_load(s->dtype, want + (size_t)i * size).f, b = ir_scalar_load(s->dtype, got + (size_t)i * size).f;
    if (!(fabs(a - b) <= tolerance * top) && !(isnan(a) && isnan(b))) ir_fail(ctx, TN_EWRONG, "%s: element %lld is %g, not %g", where, (long long)i, b, a);
  }
}

/* ways: as written; on each CPU; with products of bytes */
static void run(tn_ctx *ctx, void *arg) {
  const trial *t = arg;
  void *in[4] = {NULL}, *want[4], *got[4];
  for (int way = -1; way <= (int)IR_COUNT(cpus); way++) {
    bool bytes = way == (int)IR_COUNT(cpus);
    lw_options o = {.target = cg_target_find(ctx, way < 0 || bytes ? NULL : cpus[way], NULL), .unscheduled = way < 0, .byte_products = bytes, .layout = bytes ? LW_LAYOUT_NHWC : LW_LAYOUT_AUTO};
    ir_program *p = lw_compile(ctx, ir_graph_parse(ctx, t->text, "test"), &o);
    bool found = false;
    for (int k = 0; k < p->nkernels; k++) found |= strstr(p->kernels[k].kernel->name, "wide") != NULL;
    if (found != (bytes && t->found)) ir_fail(ctx, TN_EWRONG, found ? "a product of bytes" : "no product of bytes");
    for (int i = 0; i < p->nslots; i++) {
      const ir_slot *s = &p->slots[i];
      if (s->kind == IR_SLOT_INPUT && way < 0) in[s->index] = filled(ctx, s);
      if (s->kind == IR_SLOT_OUTPUT) (way < 0 ? want : got)[s->index] = ir_alloc(ctx, (size_t)s->bytes + 64);
    }
    void *const *out = way < 0 ? want : got;
    if (way < 0 || bytes || !cg_target_runs_here(ctx, o.target, NULL)) rt_program_interp(ctx, p, (const void *const *)in, out, NULL, NULL, NULL);
    else {
      rt_module *m = rt_module_build(ctx, p, &(rt_options){.target = o.target});
      if (rt_run(m, (const void *const *)in, out, NULL, NULL)) ir_fail(ctx, TN_EWRONG, "the run failed");
      rt_module_free(ctx, m);
    }
    for (int i = 0; i < p->nslots && way >= 0; i++)
      if (p->slots[i].kind == IR_SLOT_OUTPUT) check_output(ctx, &p->slots[i], want[p->slots[i].index], got[p->slots[i].index], bytes ? "bytes" : cpus[way]);
  }
}

static void check(bool found, const char *text) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  trial t = {text, found};
  cr_expect_eq(ir_protect(ctx, run, &t), TN_OK, "%.300s\n%s", tn_error(ctx), text);
  tn_ctx_free(ctx);
}

#define TWO(t) "graph g { opset 19 input a: " t "[9, 40] input b: " t "[40, 24] input s: f32[] input r: f32[24] const zero: " t "[] = 0.0 "

Test(narrow, products) {
  check(true, TWO("f8e4m3fn") "x = Cast(a) {to = 1} w = Cast(b) {to = 1} y = MatMul(x, w) output y }");
  check(true, TWO("f8e5m2") "x = Cast(a) {to = 10} w = Cast(b) {to = 10} y = MatMul(x, w) output y }");
  check(true, TWO("f8e4m3fn") "x = DequantizeLinear(a, s, zero) w = DequantizeLinear(b, r) {axis = 1} y = MatMul(x, w) z = Relu(y) q = QuantizeLinear(z, s, zero) output q }");
  check(true, TWO("f8e4m3fn") "x = DequantizeLinear(a, s) w = DequantizeLinear(b, s) y = Gemm(x, w, r) {alpha = 0.5, beta = 2.0} output y }");
  check(true, "graph g { opset 19 input a: f8e4m3fn[2, 9, 40] input b: f8e4m3fn[24, 40] input s: f32[] input r: f32[24] x = DequantizeLinear(a, s) w = DequantizeLinear(b, r) {axis = 0} u = Transpose(w) y = MatMul(x, u) output y }");
  check(true, "graph g { opset 19 input a: f8e5m2[40, 9] input b: f8e5m2[24, 40] input r: f32[9] x = DequantizeLinear(a, r) {axis = 1} w = Cast(b) {to = 1} y = Gemm(x, w) {transA = 1, transB = 1} output y }");
  check(true, "graph g { opset 19 input a: f8e4m3fn[2, 360] input b: f8e4m3fn[2, 40, 24] input s: f16[] const sh: i64[3] = [2, 9, 40] x = DequantizeLinear(a, s) v = Reshape(x, sh) w = DequantizeLinear(b, s) y = MatMul(v, w) output y }");
  /* a constant that is quantised in the graph, and an activation between products */
  check(true, TWO("f8e4m3fn") "const c: f32[24, 3] = [0.5, 1, -2, 0.25, 3, 1, 0.5, 1, -2, 0.25, 3, 1, 0.5, 1, -2, 0.25, 3, 1, 0.5, 1, -2, 0.25, 3, 1, 0.5, 1, -2, 0.25, 3, 1, 0.5, 1, -2, 0.25, 3, 1, 0.5, 1, -2, 0.25, 3, 1, 0.5, 1, -2, 0.25, 3, 1, "
              "0.5, 1, -2, 0.25, 3, 1, 0.5, 1, -2, 0.25, 3, 1, 0.5, 1, -2, 0.25, 3, 1, 0.5, 1, -2, 0.25, 3, 1] const k: f32[] = 0.125 "
              "x = Cast(a) {to = 1} w = Cast(b) {to = 1} y = MatMul(x, w) q = QuantizeLinear(y, k, zero) d = DequantizeLinear(q, k, zero) e = QuantizeLinear(c, k, zero) f = DequantizeLinear(e, k, zero) z = MatMul(d, f) output z }");
}

Test(narrow, convolutions) {
  check(true, "graph g { opset 19 input x: f8e4m3fn[2, 8, 7, 6] input w: f8e4m3fn[12, 8, 3, 3] input s: f32[] input r: f32[12] d = DequantizeLinear(x, s) e = DequantizeLinear(w, r) {axis = 0} y = Conv(d, e, r) {pads = [1, 1, 1, 1], strides = [2, 1]} z = Relu(y) output z }");
  check(true, "graph g { opset 19 input x: f8e5m2[1, 8, 7, 6] input w: f8e5m2[12, 4, 1, 1] d = Cast(x) {to = 1} e = Cast(w) {to = 1} y = Conv(d, e) {group = 2} output y }");
}

Test(narrow, none) {
  check(true, "graph g { opset 19 input a: f8e4m3fn[9, 40] input b: f8e5m2[40, 24] x = Cast(a) {to = 1} w = Cast(b) {to = 1} y = MatMul(x, w) output y }"); /* of two dtypes */
  check(false, TWO("f8e4m3fnuz") "x = Cast(a) {to = 1} w = Cast(b) {to = 1} y = MatMul(x, w) output y }"); /* tensor cores have none */
  check(false, TWO("f8e4m3fn") "x = DequantizeLinear(a, s) w = DequantizeLinear(b, v) {axis = 0} input v: f32[40] y = MatMul(x, w) output y }"); /* scales that the sum runs over */
  check(false, TWO("f8e4m3fn") "const two: f8e4m3fn[] = 2.0 x = DequantizeLinear(a, s, two) w = DequantizeLinear(b, s) y = MatMul(x, w) output y }"); /* not the zero */
  check(false, TWO("f32") "x = Cast(a) {to = 17} u = Cast(x) {to = 1} y = MatMul(u, b) output y }");
}

/* Every float of a byte through every operation that models use on them. */
Test(narrow, elementwise) {
  static const char *const types[] = {"f8e4m3fn", "f8e5m2", "f8e4m3fnuz", "f8e5m2fnuz", "f4e2m1"};
  static const int numbers[] = {17, 19, 18, 20, 23};
  char text[800];
  for (int i = 0; i < (int)IR_COUNT(types); i++) {
    snprintf(text, sizeof text,
             "graph g { opset 25 input x: f32[5, 33] input y: %s[5, 33] const s: f32[] = 0.03125 const z: %s[] = 0.0 a = Mul(x, x) b = Mul(a, a) c = Cast(b) {to = %d, saturate = 0} d = QuantizeLinear(x, s, z) e = Add(y, y) f = Max(y, d) t = Transpose(f) output c, d, e, t }",
             types[i], types[i], numbers[i]);
    check(false, text);
  }
}
