/* support_cuda.c — see support_cuda.h. */
#include "support_cuda.h"
#include "ir/interp.h"
#include "ir/text.h"
#include "lower/attend.h"
#include "lower/lower.h"
#include "lower/problem.h"
#include "random_kernel.h"
#include "runtime/cuda_compile.h"
#include "runtime/cuda_emulate.h"
#include "runtime/cuda_lib.h"
#include "runtime/cuda_plan.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the set ---- */

static const char *const floats[] = {"f32", "f16", "bf16"};
static const int gemms[][4] = {{1, 5, 7, 9}, {1, 64, 64, 64}, {1, 33, 70, 45}, {1, 130, 129, 65}, {1, 1, 256, 64}, {3, 20, 24, 40}, {1, 72, 136, 32}, {2, 16, 128, 96}}; /* batch M N K */
static const int convs[][9] = { /* n c h w k r stride pad groups */
    {1, 8, 14, 14, 16, 3, 1, 1, 1}, {2, 3, 17, 15, 8, 5, 2, 2, 1}, {1, 16, 9, 9, 24, 1, 1, 0, 1}, {1, 12, 10, 12, 12, 3, 1, 1, 12}, {1, 8, 11, 11, 16, 3, 2, 0, 2}, {1, 32, 8, 8, 33, 1, 2, 0, 1}};
static const int rows[][2] = {{7, 5}, {33, 64}, {4, 1000}, {130, 96}, {2, 4097}};
static const char *const units[] = {"Relu", "Exp", "Tanh", "Sigmoid", "Erf", "Sqrt", "Neg", "Floor"};
static const char *const binaries[] = {"Add", "Mul", "Sub", "Div"};
static const char *const ints[] = {"i8", "i32", "i64", "u8"};

static const char *gemm(tn_ctx *c, int v) {
  const int *s = gemms[v % IR_COUNT(gemms)];
  const char *t = floats[v / IR_COUNT(gemms) % 3];
  int tail = v / IR_COUNT(gemms) / 3; /* 0: alone, 1: bias and activation, 2: B transposed */
  if (tail == 2) return ir_format(c, "graph g { opset 17 input a: %s[%d, %d] input b: %s[%d, %d] y = Gemm(a, b) {transB = 1} output y }", t, s[0] * s[1], s[3], t, s[2], s[3]);
  return ir_format(c, "graph g { opset 17 input a: %s[%d, %d, %d] input b: %s[%d, %d] input c: %s[%d] y = MatMul(a, b) %s }", t, s[0], s[1], s[3], t, s[3], s[2], t, s[2],
                   tail ? "z = Add(y, c) w = Relu(z) output w" : "output y");
}

static const char *batched(tn_ctx *c, int v) {
  const int *s = gemms[v % IR_COUNT(gemms)];
  const char *t = floats[v / IR_COUNT(gemms) % 3];
  return ir_format(c, "graph g { opset 17 input a: %s[2, 3, %d, %d] input b: %s[2, 3, %d, %d] y = MatMul(a, b) output y }", t, s[1], s[3], t, s[3], s[2]);
}

static const char *conv(tn_ctx *c, int v) {
  const int *s = convs[v % IR_COUNT(convs)];
  const char *t = floats[v / IR_COUNT(convs) % 3];
  return ir_format(c, "graph g { opset 17 input x: %s[%d, %d, %d, %d] input w: %s[%d, %d, %d, %d] input b: %s[%d] y = Conv(x, w, b) {strides = [%d, %d], pads = [%d, %d, %d, %d], group = %d} z = Relu(y) output z }", t,
                   s[0], s[1], s[2], s[3], t, s[4], s[1] / s[8], s[5], s[5], t, s[4], s[6], s[6], s[7], s[7], s[7], s[7], s[8]);
}

static const char *row_op(tn_ctx *c, int v) {
  const int *s = rows[v % IR_COUNT(rows)];
  const char *t = floats[v / IR_COUNT(rows) % 3];
  static const char *const bodies[] = {"y = Softmax(x) {axis = -1}", "y = LayerNormalization(x, s, s) {axis = -1}", "y = ReduceSum(x, one) {keepdims = 0}", "y = ReduceMax(x) {axes = [0], keepdims = 1}",
                                       "y = ArgMax(x) {axis = -1}", "y = LogSoftmax(x) {axis = -1}", "y = ReduceMean(x) {axes = [-1]}"};
  return ir_format(c, "graph g { opset 17 input x: %s[%d, %d] input s: %s[%d] const one: i64[1] = [1] %s output y }", t, s[0], s[1], t, s[1], bodies[v / IR_COUNT(rows) / 3 % IR_COUNT(bodies)]);
}

static const char *pointwise(tn_ctx *c, int v) {
  const char *t = floats[v % 3], *u = units[v / 3 % IR_COUNT(units)], *b = binaries[v / 3 % IR_COUNT(binaries)];
  int m = 3 + v * 7 % 50, n = 4 * (1 + v % 9) + v % 3;
  return ir_format(c, "graph g { opset 17 input x: %s[%d, %d] input s: %s[%d] y = %s(x) z = %s(y, s) output z }", t, m, n, t, n, u, b);
}

static const char *integers(tn_ctx *c, int v) {
  const char *t = ints[v % 4], *b = binaries[v / 4 % IR_COUNT(binaries)];
  return ir_format(c, "graph g { opset 17 input x: %s[%d, 9] input s: %s[9] z = %s(x, s) w = Cast(z) {to = 1} output z, w }", t, 5 + v, t, b);
}

static const char *movement(tn_ctx *c, int v) {
  static const char *const bodies[] = {"y = Transpose(x) {perm = [0, 2, 1]}", "y = Transpose(x) {perm = [2, 1, 0]}", "y = Gather(x, i) {axis = 1}", "y = Concat(x, x) {axis = 1}",
                                       "y = Slice(x, one, five, one)", "y = Pad(x, pads)", "y = Expand(x, shape)", "y = Transpose(x) {perm = [1, 0, 2]}"};
  static const char *const types[] = {"f32", "bf16", "i64", "u8"};
  int a = 2 + v % 5, b = 33 + v % 7, d = 17 + v * 5 % 60;
  return ir_format(c, "graph g { opset 17 input x: %s[%d, %d, %d] input i: i64[6] const one: i64[1] = [1] const five: i64[1] = [5] const pads: i64[6] = [0, 1, 2, 0, 0, 1] const shape: i64[4] = [2, %d, %d, %d] %s output y }", types[v % 4],
                   a, b, d, a, b, d, bodies[v / 4 % IR_COUNT(bodies)]);
}

static const char *pool(tn_ctx *c, int v) {
  static const char *const bodies[] = {"y = MaxPool(x) {kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]}", "y = AveragePool(x) {kernel_shape = [2, 2], strides = [2, 2]}", "y = GlobalAveragePool(x)"};
  return ir_format(c, "graph g { opset 17 input x: %s[1, %d, 13, 12] %s output y }", floats[v % 3], 4 + v, bodies[v / 3 % 3]);
}

static const char *attention(tn_ctx *c, int v) {
  int n = 17 + v % 4 * 16, d = 16 + v % 2 * 16;
  const char *t = floats[v / 4 % 3];
  return ir_format(c, "graph g { opset 17 input q: %s[2, 2, %d, %d] input k: %s[2, 2, %d, %d] input v: %s[2, 2, %d, %d] s = MatMul(q, k) p = Softmax(s) y = MatMul(p, v) output y }", t, n, d, t, d, n, t, n, d);
}

static const char *quantised(tn_ctx *c, int v) {
  const int *s = gemms[v % IR_COUNT(gemms)];
  return ir_format(c, "graph g { opset 17 input a: i8[%d, %d] input b: i8[%d, %d] y = MatMulInteger(a, b) output y }", s[1], s[3], s[3], s[2]);
}

/* ---- of graphs as models are lowered: NHWC, weights laid out for tiles ---- */

static const int nhwc[][10] = { /* n c h w k r stride pad dilation groups */
    {1, 16, 9, 9, 24, 3, 1, 1, 1, 1}, {2, 64, 7, 9, 72, 1, 1, 0, 1, 1}, {1, 24, 11, 10, 16, 3, 2, 1, 1, 1}, {1, 16, 12, 12, 40, 3, 1, 2, 2, 1}, {1, 32, 9, 8, 32, 3, 1, 1, 1, 4}, {2, 3, 17, 15, 16, 5, 2, 2, 1, 1}};
static const int depths[][6] = {/* c h w r stride dilation */ {24, 9, 9, 3, 1, 1}, {40, 12, 10, 3, 2, 1}, {16, 13, 11, 5, 1, 1}, {8, 14, 14, 3, 1, 2}};

static const char *conv_text(tn_ctx *c, const char *op, const char *t, const int *s, const char *tail) {
  return ir_format(c, "graph g { opset 17 input x: %s[%d, %d, %d, %d] input w: %s[%d, %d, %d, %d] y = %s(x, w) {strides = [%d, %d], pads = [%d, %d, %d, %d], dilations = [%d, %d], group = %d} %s }", t, s[0], s[1],
                   s[2], s[3], t, op[4] ? s[1] : s[4], op[4] ? s[4] : s[1] / s[9], s[5], s[5], op, s[6], s[6], s[7], s[7], s[7], s[7], s[8], s[8], s[9], tail);
}
static const char *conv_nhwc(tn_ctx *c, int v) { return conv_text(c, "Conv", floats[v / IR_COUNT(nhwc) % 3], nhwc[v % IR_COUNT(nhwc)], "z = Relu(y) output z"); }
static const char *transposed(tn_ctx *c, int v) {
  static const int shapes[][10] = {{1, 8, 6, 7, 12, 3, 2, 1, 1, 1}, {2, 16, 5, 5, 16, 2, 2, 0, 1, 1}, {1, 8, 8, 6, 8, 4, 1, 1, 1, 1}};
  return conv_text(c, "ConvTranspose", floats[v / 3 % 3], shapes[v % 3], "output y");
}
static const char *depthwise(tn_ctx *c, int v) {
  const int *d = depths[v % IR_COUNT(depths)], s[10] = {2, d[0], d[1], d[2], d[0], d[3], d[4], d[3] / 2 * d[5], d[5], d[0]};
  return conv_text(c, "Conv", floats[v / IR_COUNT(depths) % 3], s, "z = Relu(y) output z");
}
/* softmax(q k' / r + mask) v: ragged lengths, a mask, keys as they are or turned, causal */
static const char *attention_of(tn_ctx *c, const int s[4], int kind, const char *t) {
  if (kind == 2) return ir_format(c, "graph g { opset 23 input q: %s[2, %d, %d, %d] input k: %s[2, %d, %d, %d] input v: %s[2, %d, %d, %d] y = Attention(q, k, v) {is_causal = 1} output y }", t, s[0], s[1], s[3], t, s[0], s[2], s[3], t, s[0], s[2], s[3]);
  if (kind == 1) return ir_format(c, "graph g { opset 17 input q: %s[2, %d, %d, %d] input k: %s[2, %d, %d, %d] input v: %s[2, %d, %d, 40] input m: %s[2, 1, 1, %d] const r: %s[] = 5.5 t = Transpose(k) {perm = [0, 1, 3, 2]} s = MatMul(q, t) u = Div(s, r) a = Add(u, m) p = Softmax(a) y = MatMul(p, v) output y }",
                                  t, s[0], s[1], s[3], t, s[0], s[2], s[3], t, s[0], s[2], t, s[2], t);
  return ir_format(c, "graph g { opset 17 input q: %s[%d, %d, %d] input k: %s[%d, %d, %d] input v: %s[%d, %d, %d] s = MatMul(q, k) p = Softmax(s) y = MatMul(p, v) output y }", t, s[0], s[1], s[3], t, s[0], s[3], s[2], t, s[0], s[2], s[3]);
}
static const int heads[][4] = {{2, 40, 40, 32}, {1, 67, 90, 64}, {3, 16, 130, 24}, {1, 130, 33, 72}, {2, 21, 7, 37}, {1, 34, 50, 5}}; /* heads queries keys depth; the last ones of f32 alone */
static const char *transformer(tn_ctx *c, int v) { return attention_of(c, heads[v % 4], v / 8 % 3, v / 4 % 2 ? "f16" : "bf16"); }
static const char *transformer_f32(tn_ctx *c, int v) { return attention_of(c, heads[v % IR_COUNT(heads)], v / (int)IR_COUNT(heads) % 3, "f32"); }

static const char *groups(tn_ctx *c, int v) { /* keys along heads: by warpgroups on sm_90a */
  static const int sizes[][5] = {{2, 70, 300, 64, 64}, {1, 130, 200, 128, 128}, {1, 64, 520, 72, 40}, {3, 66, 64, 32, 136}}; /* heads queries keys depth columns */
  const int *s = sizes[v % IR_COUNT(sizes)];
  const char *t = v / IR_COUNT(sizes) % 2 ? "f16" : "bf16";
  return ir_format(c, "graph g { opset 17 input q: %s[%d, %d, %d] input k: %s[%d, %d, %d] input v: %s[%d, %d, %d] const r: %s[] = 5.5 t = Transpose(k) {perm = [0, 2, 1]} s = MatMul(q, t) u = Div(s, r) p = Softmax(u) y = MatMul(p, v) output y }", t, s[0], s[1], s[3], t, s[0], s[2], s[3], t, s[0], s[2], s[4], t);
}

/* Heads that share keys, causal and windows, queries that are the last of the keys or see nothing, lengths. */
static const char *places_of(tn_ctx *c, int v, const char *t) {
  static const int sizes[][5] = {{1, 4, 2, 70, 150}, {2, 3, 1, 40, 70}, {1, 2, 2, 130, 130}, {1, 4, 4, 33, 90}}; /* batch heads groups queries keys */
  static const int depths[][2] = {{64, 64}, {96, 32}, {80, 80}, {128, 128}};
  const int *s = sizes[v % 4], *d = depths[v / 4 % 4 ^ v % 4];
  const char *in = ir_format(c, "input q: %s[%d, %d, %d, %d] input k: %s[%d, %d, %d, %d] input v: %s[%d, %d, %d, %d]", t, s[0], s[1], s[3], d[0], t, s[0], s[2], s[4], d[0], t, s[0], s[2], s[4], d[1]);
  if (v % 3 == 0) return ir_format(c, "graph g { opset 24 %s y = Attention(q, k, v) {is_causal = 1} output y }", in);
  if (v % 3 == 1) return ir_format(c, "graph g { opset 24 %s input n: i64[%d] y = Attention(q, k, v, _, _, _, n) {is_causal = 1} output y }", in, s[0]);
  return ir_format(c, "graph g { opset 17 input q: %s[2, %d, %d] input k: %s[2, %d, %d] input v: %s[2, %d, %d] t = Transpose(k) {perm = [0, 2, 1]} s = MatMul(q, t) u = tenon:AttentionScores(s) {causal = 1, offset = %d, left = 40} p = Softmax(u) y = MatMul(p, v) output y }",
                   t, s[3], d[0], t, s[4], d[0], t, s[4], d[1], v % 2 ? s[4] - s[3] : -3);
}
static const char *places(tn_ctx *c, int v) { return places_of(c, v, v % 2 ? "f16" : "bf16"); }
static const char *places_f32(tn_ctx *c, int v) { return places_of(c, v, "f32"); }

/* ---- with a schedule asked for ---- */

static const int longs[][3] = {{40, 36, 128}, {5, 70, 256}, {1, 64, 512}, {130, 48, 96}}; /* M N K */
static const char *long_product(tn_ctx *c, int v, const char *t) {
  const int *s = longs[v % IR_COUNT(longs)];
  return ir_format(c, "graph g { opset 17 input a: %s[%d, %d] input b: %s[%d, %d] input c: %s[%d] y = Gemm(a, b, c) {transB = 1} z = Relu(y) output z }", t, s[0], s[2], t, s[1], s[2], t, s[1]);
}
static const char *long_f32(tn_ctx *c, int v) { return long_product(c, v, "f32"); }
static const char *long_half(tn_ctx *c, int v) { return long_product(c, v, v / (int)IR_COUNT(longs) % 2 ? "f16" : "bf16"); }
static const char *strips(tn_ctx *c, int v) { /* windows of each channel: ragged channels and strips */
  static const int shapes[][6] = {{12, 9, 11, 3, 1, 1}, {7, 12, 10, 5, 2, 1}, {16, 8, 33, 3, 1, 2}, {40, 14, 15, 7, 1, 1}}; /* c h w r stride dilation */
  const int *d = shapes[v % IR_COUNT(shapes)], s[10] = {2, d[0], d[1], d[2], d[0], d[3], d[4], d[3] / 2 * d[5], d[5], d[0]};
  return conv_text(c, "Conv", floats[v / IR_COUNT(shapes) % 3], s, "z = Relu(y) output z");
}
static const char *strips_i8(tn_ctx *c, int v) {
  return ir_format(c, "graph g { opset 17 input x: i8[2, %d, 9, 21] input w: i8[%d, 1, 3, 3] y = ConvInteger(x, w) {strides = [%d, %d], pads = [1, 1, 1, 1], group = %d} output y }", 6 + 10 * v, 6 + 10 * v, 1 + v % 2, 1 + v % 2, 6 + 10 * v);
}
static const char *tf32_conv(tn_ctx *c, int v) { return conv_text(c, "Conv", "f32", nhwc[v % IR_COUNT(nhwc)], "output y"); }

/* 8-bit floats as models have them: cast, or dequantised with a scale for all and one for each column; quantised again. */
static const char *const bytes[] = {"f8e4m3fn", "f8e5m2", "f8e4m3fn"}; /* of A; the next one of B where they are mixed */
static const char *product_bytes(tn_ctx *c, int v, int mixed) {
  const int *s = longs[v % IR_COUNT(longs)];
  const char *t = bytes[v / IR_COUNT(longs) % 2], *u = bytes[v / IR_COUNT(longs) % 2 + mixed];
  int kind = v / (2 * (int)IR_COUNT(longs));
  if (kind == 0) return ir_format(c, "graph g { opset 19 input a: %s[%d, %d] input b: %s[%d, %d] x = Cast(a) {to = 10} w = Cast(b) {to = 10} y = Gemm(x, w) {transB = 1} output y }", t, s[0], s[2], u, s[1], s[2]);
  return ir_format(c, "graph g { opset 19 input a: %s[%d, %d] input b: %s[%d, %d] input sa: f32[] input sb: f32[%d] input c: f32[%d] const so: f32[] = 3.0 const zero: %s[] = 0.0 x = DequantizeLinear(a, sa) w = DequantizeLinear(b, sb) {axis = 0} "
                      "u = Transpose(w) p = MatMul(x, u) q = Add(p, c) y = Relu(q) %s }", t, s[0], s[2], u, s[1], s[2], s[1], s[1], t, kind == 1 ? "output y" : "z = QuantizeLinear(y, so, zero) output z");
}
static const char *product_f8(tn_ctx *c, int v) { return product_bytes(c, v, 0); }
static const char *product_mixed(tn_ctx *c, int v) { return product_bytes(c, v, 1); }
static const char *conv_f8(tn_ctx *c, int v) {
  const int *s = nhwc[v % IR_COUNT(nhwc)];
  const char *t = bytes[v / IR_COUNT(nhwc) % 2];
  return ir_format(c, "graph g { opset 19 input x: %s[%d, %d, %d, %d] input w: %s[%d, %d, %d, %d] input b: f32[%d] input sx: f32[] input sw: f32[%d] d = DequantizeLinear(x, sx) e = DequantizeLinear(w, sw) {axis = 0} "
                      "y = Conv(d, e, b) {strides = [%d, %d], pads = [%d, %d, %d, %d], dilations = [%d, %d], group = %d} z = Relu(y) output z }", t, s[0], s[1], s[2], s[3], t, s[4], s[1] / s[9], s[5], s[5], s[4], s[4], s[6], s[6], s[7], s[7], s[7], s[7], s[8], s[8], s[9]);
}
static const char *plain_f8(tn_ctx *c, int v) { /* conversions, arithmetic, movements of all floats of a byte */
  static const char *const types[] = {"f8e4m3fn", "f8e5m2", "f8e4m3fnuz", "f8e5m2fnuz", "f4e2m1"};
  static const int numbers[] = {17, 19, 18, 20, 23};
  const char *t = types[v % 5];
  int to = numbers[(v + v / 5) % 5];
  return ir_format(c, "graph g { opset 25 input x: f32[%d, 37] input s: %s[37] a = Cast(x) {to = %d} b = Cast(a) {to = 1} d = Mul(s, s) e = Cast(d) {to = %d, saturate = %d} f = Cast(e) {to = 1} y = Add(b, f) z = Cast(y) {to = %d} u = Transpose(z) r = Cast(u) {to = 1} output y, u, r }",
                   7 + v, t, numbers[v % 5], to, v % 2, numbers[v % 5]);
}

/* Sums over outer axes: ragged columns, few and many rows, arrays of a column, statistics of batches. */
static const char *outer_text(tn_ctx *c, int v, const char *body) {
  static const int shapes[][3] = {{1, 130, 96}, {3, 77, 5}, {1, 1300, 24}, {2, 260, 132}, {1, 33, 264}, {1, 600, 3}};
  const int *s = shapes[v % IR_COUNT(shapes)];
  const char *t = floats[v / IR_COUNT(shapes) % 3];
  return ir_format(c, "graph g { opset 17 input x: %s[%d, %d, %d] input z: %s[%d, %d, %d] const ax: i64[1] = [1] %s output y }", t, s[0], s[1], s[2], t, s[0], s[1], s[2], body);
}
static const char *outer_axes(tn_ctx *c, int v) {
  static const char *const bodies[] = {"y = ReduceSum(x, ax) {keepdims = 0}", "y = Softmax(x) {axis = 1}", "y = ReduceMax(x) {axes = [1]}", "y = LpNormalization(x) {axis = 1}", "m = Mul(x, z) y = ReduceSum(m, ax)", "y = ReduceMean(x) {axes = [1]}", "y = LogSoftmax(x) {axis = 1}", "y = ReduceLogSumExp(x) {axes = [1]}"};
  return outer_text(c, v, bodies[(v / 18 + v) % IR_COUNT(bodies)]);
}
static const char *outer_sums(tn_ctx *c, int v) {
  static const char *const bodies[] = {"y = ReduceSum(x, ax)", "y = ReduceMax(x) {axes = [1]}", "y = LpNormalization(x) {axis = 1}", "y = ReduceMean(x) {axes = [1]}"};
  return outer_text(c, v, bodies[(v / 18 + v) % IR_COUNT(bodies)]);
}
static const char *outer_integers(tn_ctx *c, int v) {
  static const char *const bodies[] = {"y = ReduceSum(x, ax)", "y = ReduceMax(x) {axes = [0]}", "y = ReduceMin(x) {axes = [0]}", "y = ReduceProd(x) {axes = [0]}"};
  return ir_format(c, "graph g { opset 17 input x: %s[%d, %d] const ax: i64[1] = [0] %s output y }", v % 4 == 3 && v / 4 % 4 != 1 ? "u32" : ints[v % 4], 40 + 31 * v, 6 + 5 * v, bodies[v / 4 % 4]);
}
static const char *batch_statistics(tn_ctx *c, int v) { /* training: sums, squares, results */
  static const int shapes[][4] = {{4, 16, 9, 7}, {2, 40, 5, 5}, {3, 8, 12, 11}};
  const int *s = shapes[v % IR_COUNT(shapes)];
  const char *t = floats[v / (int)IR_COUNT(shapes) % 3], *of = "f32";
  return ir_format(c, "graph g { opset 17 input x: %s[%d, %d, %d, %d] input w: %s[%d, %d, 1, 1] input s: %s[%d] input b: %s[%d] input m: %s[%d] input v: %s[%d] const i: %s[] = 1.5 e = Mul(v, v) u = Add(e, i) k = Conv(x, w) y, mm, vv = BatchNormalization(k, s, b, m, u) {training_mode = 1} r = Relu(y) "
                      "p = GlobalAveragePool(r) output p, mm, vv }", t, s[0], s[1], s[2], s[3], t, s[1], s[1], t, s[1], t, s[1], of, s[1], of, s[1], of);
}

static const struct {
  const char *name;
  int n;
  const char *(*make)(tn_ctx *c, int v);
  const char *choice;
  bool lowered;
  double rtol;
} families[] = {{"product", 72, .make = gemm},
                {"batched product", 24, .make = batched},
                {"convolution", 18, .make = conv},
                {"row", 105, .make = row_op},
                {"elementwise", 24, .make = pointwise},
                {"integer", 16, .make = integers},
                {"movement", 32, .make = movement},
                {"pooling", 9, .make = pool},
                {"attention in parts", 12, .make = attention},
                {"product i8", 8, .make = quantised},
                {"convolution NHWC", 18, .make = conv_nhwc, .lowered = true},
                {"convolution transposed", 9, .make = transposed, .lowered = true},
                {"depthwise", 12, .make = depthwise, .lowered = true},
                {"attention", 24, .make = transformer, .lowered = true},
                {"product TF32", 4, .make = long_f32, .choice = "tf32 64 64 32 32 32 3", .rtol = 2e-3},
                {"convolution TF32", 6, .make = tf32_conv, .choice = "tf32 32 64 32 16 32 3", .lowered = true, .rtol = 2e-3},
                {"split sum f32", 4, .make = long_f32, .choice = "split 4 tile 32 32 16 2 2 3"},
                {"split sum", 8, .make = long_half, .choice = "split 4 mma 32 64 32 16 32 3"},
                {"split sum by few", 8, .make = long_half, .choice = "split 8 threads 128 1"},
                {"depthwise by strips", 12, .make = strips, .choice = "window 4 8 2 128", .lowered = true},
                {"depthwise by strips NCHW", 12, .make = strips, .choice = "window 3 16 2 128"},
                {"depthwise i8", 3, .make = strips_i8},
                {"attention by warpgroups", 8, .make = groups, .lowered = true},
                {"product of 8-bit floats", 24, .make = product_f8, .lowered = true},
                {"product of 8-bit floats, split", 4, .make = product_f8, .choice = "split 2 mma 32 64 32 16 32 3", .lowered = true},
                {"convolution of 8-bit floats", 12, .make = conv_f8, .lowered = true},
                {"floats of a byte", 20, .make = plain_f8},
                {"product of two kinds of 8-bit floats", 12, .make = product_mixed, .lowered = true},
                {"sum over outer axes", 36, .make = outer_axes},
                {"sum of integers over outer axes", 16, .make = outer_integers},
                {"statistics of a batch", 9, .make = batch_statistics, .lowered = true},
                {"sum over outer axes in pieces", 12, .make = outer_sums, .choice = "columns 4 16 3"},
                {"sum over outer axes by wide blocks", 6, .make = outer_sums, .choice = "columns 64 4 1 2"},
                {"statistics of a batch in pieces", 3, .make = batch_statistics, .choice = "columns 8 4 5", .lowered = true},
                {"attention of places", 16, .make = places, .lowered = true},
                {"attention f32", 18, .make = transformer_f32, .lowered = true},
                {"attention f32 of places", 16, .make = places_f32, .lowered = true},
                {"attention f32 by small blocks", 6, .make = transformer_f32, .choice = "attend.simt 16 32 1", .lowered = true},
                {"attention TF32", 18, .make = transformer_f32, .choice = "attend.tf32 32 32", .lowered = true, .rtol = 2e-3},
                {"attention TF32 of places", 16, .make = places_f32, .choice = "attend.tf32 64 32", .lowered = true, .rtol = 2e-3}};

bool cuda_case_at(tn_ctx *ctx, int i, cuda_case *c) {
  for (int f = 0; f < IR_COUNT(families); i -= families[f++].n)
    if (i < families[f].n) {
      *c = (cuda_case){families[f].name, families[f].make(ctx, i), families[f].choice, families[f].lowered, families[f].rtol};
      return true;
    }
  return false;
}

const char *cuda_choice_for(tn_ctx *ctx, const char *choice, const ir_kernel *k) {
  bool columns = choice && strncmp(choice, "columns ", 8) == 0;
  lw_attention_parts parts;
  const char *why;
  if (choice && strncmp(choice, "attend", 6) == 0) return lw_attention_of(ctx, k, &parts, &why) ? choice : NULL;
  return choice && lw_problem_of(ctx, k).kind == (columns ? LW_ACCUMULATE : LW_CONTRACTION) ? choice : NULL;
}

ir_program *cuda_program(tn_ctx *ctx, const char *text) {
  ir_graph *g = ir_graph_parse(ctx, text, "set");
  ir_graph_sort(g);
  lw_options o = {.unscheduled = true, .layout = LW_LAYOUT_NCHW};
  return lw_compile(ctx, g, &o);
}

static const void *small_numbers(void *user, const char *name, int64_t bytes, uint64_t hash) {
  static uint16_t all[1 << 19]; /* bf16 and f16 of either sign below one, in no order */
  (void)user, (void)name, (void)hash;
  for (int i = all[1] ? IR_COUNT(all) : 0; i < IR_COUNT(all); i++) all[i] = (uint16_t)(0x3800 + (i * 40503 & 0x83ff));
  return bytes <= (int64_t)sizeof all ? all : NULL;
}

ir_program *cuda_program_nhwc(tn_ctx *ctx, const char *text) {
  const ir_data_source source = {NULL, small_numbers};
  const char *at = strstr(text, "HASH"), *data = strstr(text, "data ");
  if (at) {
    int64_t bytes = atoll(data + 5);
    text = ir_format(ctx, "%.*s%llu%s", (int)(at - text), text, (unsigned long long)ir_data_hash(small_numbers(NULL, "", bytes, 0), bytes), at + 4);
  }
  ir_graph *g = ir_graph_parse_with(ctx, text, "set", &source);
  ir_graph_sort(g);
  return rt_cuda_lower(ctx, g, LW_LAYOUT_AUTO);
}

/* ---- the check ---- */

bool cuda_have_nvrtc(void) { return rt_cuda_library(RT_CUDA_NVRTC)->handle != NULL; }

double cuda_tolerance(tn_dtype t) { return t == TN_F16 ? 4e-3 : t == TN_BF16 ? 3e-2 : t == TN_F64 ? 1e-12 : ir_is_byte_float(t) ? ldexp(1.05, -ir_byte_format_of(t)->fraction) /* one step */ : 1e-4; }

static const char *differ(tn_ctx *ctx, const ir_buf *b, const char *want, const char *have, double rtol) {
  int64_t n;
  size_t size = ir_dtype_bytes(b->dtype);
  if (!ix_const_value(ir_buf_elements(ctx, b), &n)) return "a parameter of unknown size";
  double top = 0;
  bool real = ir_is_float(b->dtype);
  for (int64_t i = 0; real && i < n; i++) {
    double f = fabs(ir_scalar_load(b->dtype, want + (size_t)i * size).f);
    if (isfinite(f) && f > top) top = f;
  }
  for (int64_t i = 0; i < n; i++) {
    ir_scalar x = ir_scalar_load(b->dtype, want + (size_t)i * size), y = ir_scalar_load(b->dtype, have + (size_t)i * size);
    if (!real && x.i == y.i) continue;
    if (real && (x.f == y.f || (isnan(x.f) && isnan(y.f)) || fabs(x.f - y.f) <= (rtol > 0 ? rtol : cuda_tolerance(b->dtype)) * top)) continue;
    return real ? ir_format(ctx, "%s[%lld]: %.9g, should be %.9g", b->name, (long long)i, y.f, x.f) : ir_format(ctx, "%s[%lld]: %lld, should be %lld", b->name, (long long)i, (long long)y.i, (long long)x.i);
  }
  return NULL;
}

static void fill(const ir_kernel *k, int i, char *p, int64_t n, uint64_t *s) {
  enum { KEYS = 43 }; /* integers of attention are lengths: of no tile, one and several, and more than there are keys */
  const ir_buf *b = k->bufs[i];
  int64_t scale = strncmp(k->name, "attend", 6) == 0 ? KEYS : 1;
  for (int64_t e = 0; e < n; e++) {
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    ir_scalar v = {0};
    if (ir_is_float(b->dtype)) v.f = ir_round_float(b->dtype, (double)(int64_t)(*s >> 11) * 0x1p-52 - 1);
    else v.i = ir_wrap_int(b->dtype, ((int64_t)(*s >> 40) % 7 - (ir_is_signed(b->dtype) ? 3 : 0)) * scale);
    ir_scalar_store(b->dtype, p + (size_t)e * ir_dtype_bytes(b->dtype), v);
  }
}

typedef struct trial {
  const ir_kernel *k;
  const cu_tile *tile;
  void **args;
  uint64_t seed;
} trial;

static void emulate(tn_ctx *ctx, void *arg) {
  trial *t = arg;
  rt_cuda_emulate(ctx, t->tile, t->args, NULL, t->seed);
}

const char *cuda_check_tile(tn_ctx *ctx, const ir_kernel *k, const cu_tile *tile, const cu_target *t, const cuda_check *how) {
  uint64_t s = how->seed * 77 + 5;
  void **want = IR_NEW_ARRAY(ctx, void *, k->nbufs + 1), **have = IR_NEW_ARRAY(ctx, void *, k->nbufs + 1);
  for (int i = 0; i < k->nbufs; i++) {
    int64_t n;
    if (!ix_const_value(ir_buf_elements(ctx, k->bufs[i]), &n)) return "a parameter of unknown size";
    size_t bytes = (size_t)n * ir_dtype_bytes(k->bufs[i]->dtype);
    want[i] = ir_alloc(ctx, bytes + 16);
    have[i] = ir_alloc(ctx, bytes + 16);
    if (k->bufs[i]->access != IR_OUT) fill(k, i, want[i], n, &s);
    else memset(want[i], 0xff, bytes);
    memcpy(have[i], want[i], bytes);
  }
  ir_interp(ctx, k, want, NULL);
  trial tr = {k, tile, have, how->seed};
  if (ir_protect(ctx, emulate, &tr)) return ir_strdup(ctx, ir_error(ctx));
  for (int i = 0; i < k->nbufs; i++) {
    const char *d = differ(ctx, k->bufs[i], want[i], have[i], how->rtol);
    if (d) return d;
  }
  if (!how->compile || !cuda_have_nvrtc()) return NULL;
  const cu_code *code = cu_print(ctx, t, tile, "kernel_under_test");
  return rt_cubin_gate(ctx, t, rt_cuda_compile(ctx, t, code->source, NULL), code);
}

/* ---- mutants ---- */

typedef struct mutation {
  int left;
  bool weaker;
  const char *what;
} mutation;

static bool is_sync(const char *atom, bool weaker) {
  static const char *const all[] = {"barrier", "warp.sync", "cp.commit", "cp.wait", "wg.", "mbar.", "fence", "group.sync", "cluster.", "bulk.", NULL}, *const weak[] = {"cp.wait", "bulk.wait", "wg.wait", "mbar.wait", "mbar.init", "mbar.expect", NULL};
  for (const char *const *p = weaker ? weak : all; *p; p++)
    if (strncmp(atom, *p, strlen(*p)) == 0) return true;
  return false;
}

/* A wait for one group more, for one arrival more or fewer bytes; for the other parity. */
static const ir_stmt *weaker(tn_ctx *ctx, const ir_stmt *s) {
  const char *number = strchr(s->atom, ' ');
  int less = strncmp(s->atom, "mbar.expect", 11) == 0 ? -128 : 1;
  if (number) return ir_tile(ctx, ir_format(ctx, "%.*s %d", (int)(number - s->atom), s->atom, atoi(number) + less), s->body);
  const ir_stmt *ops = s->body, *items[2] = {ops->body->items[0], ops->body->items[1]};
  items[1] = ir_store(ctx, items[1]->buf, items[1]->index, IR_SET, ix_sub(ctx, ix_int(ctx, TN_I64, 1), items[1]->value));
  return ir_tile(ctx, s->atom, ir_alloc_stmt(ctx, ops->buf, ir_seq(ctx, 2, items)));
}

static const ir_stmt *mutate(ir_rewriter *r, const ir_stmt *s) {
  mutation *m = r->user;
  if (s->kind != IR_TILE || !is_sync(s->atom, m->weaker) || m->left-- != 0) return s;
  m->what = s->atom;
  return m->weaker ? weaker(r->ctx, s) : NULL;
}

const cu_tile *cuda_mutant(tn_ctx *ctx, const cu_tile *tile, int which, bool weaker, const char **what) {
  mutation m = {.left = which, .weaker = weaker};
  ir_rewriter r = {.ctx = ctx, .user = &m, .stmt = mutate};
  ir_kernel *k = IR_NEW(ctx, ir_kernel);
  *k = *tile->kernel;
  k->body = ir_rewrite(&r, k->body);
  cu_tile *t = IR_NEW(ctx, cu_tile);
  *t = *tile;
  t->kernel = k;
  *what = m.what;
  return m.what ? t : NULL;
}

void *cuda_random(tn_ctx *ctx, const ir_slot *s, uint64_t *seed, double range, int most) {
  char *p = ir_alloc(ctx, (size_t)s->bytes + 1);
  size_t size = ir_dtype_bytes(s->dtype);
  for (int64_t e = 0; e < s->bytes / (int64_t)size; e++) {
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    ir_scalar v = {0};
    if (ir_is_float(s->dtype)) v.f = ir_round_float(s->dtype, ((double)(int64_t)(*seed >> 11) * 0x1p-52 - 1) * range);
    else v.i = (int64_t)(*seed >> 40) % most;
    ir_scalar_store(s->dtype, p + (size_t)e * size, v);
  }
  return p;
}
