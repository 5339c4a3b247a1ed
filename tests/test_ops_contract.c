/* Matrix products, convolutions and pools: values, faults, and the loops that schedules match. */
#include "ops_help.h"
#include "lower/build_internal.h"

Test(ops_contract, matrix_products) {
  ops_check("const a: f32[2, 2] = [1.0, 2.0, 3.0, 4.0]  const b: f32[2] = [1.0, 10.0]  y = MatMul(a, b)  const w: f32[2] = [21.0, 43.0]"
            "  z = MatMul(b, a)  const v: f32[2] = [31.0, 42.0]  d = MatMul(b, b)  const u: f32[] = 101.0  output y, w, z, v, d, u");
  ops_check("const a: i32[2, 1, 1, 2] = [1, 2, 3, 4]  const b: i32[2, 2, 1] = [1, 1, 2, 0]  y = MatMul(a, b)"
            "  const w: i32[2, 2, 1, 1] = [3, 2, 7, 6]  output y, w");
  ops_check("const a: f32[2, 0] = []  const b: f32[0, 1] = []  y = MatMul(a, b)  const w: f32[2, 1] = [0.0, 0.0]  output y, w");
  ops_check("const a: f32[2, 1] = [1.0, 2.0]  const b: f32[2, 2] = [1.0, 2.0, 3.0, 4.0]  const c: f32[2] = [2.0, 4.0]"
            "  y = Gemm(a, b, c) { transA = 1, transB = 1, alpha = 2.0, beta = 0.5 }  const w: f32[1, 2] = [11.0, 24.0]  output y, w");
  ops_check("const a: u8[1, 2] = [10, 20]  const b: i8[2, 1] = [-1, 3]  const z: u8[] = 10  y = MatMulInteger(a, b, z)  const w: i32[1, 1] = [30]  output y, w");
  ops_check("const a: f32[2, 2] = [1.0, 2.0, 3.0, 4.0]  y = Einsum(a) { equation = \"ii\" }  const w: f32[] = 5.0"
            "  z = Einsum(a, a) { equation = \"i...,j...->ij\" }  const v: f32[2, 2] = [5.0, 11.0, 11.0, 25.0]  output y, w, z, v");
  ops_refused("const a: f32[1, 2] = [1.0, 2.0]  y = MatMul(a, a)  output y", TN_EINPUT, "has 2 columns");
  ops_refused("const a: f32[1, 2] = [1.0, 2.0]  y = Einsum(a) { equation = \"ij->ik\" }  output y", TN_EINPUT, "that no operand has");
}

Test(ops_contract, convolutions) {
  ops_check("const x: f32[1, 1, 3] = [1.0, 2.0, 3.0]  const k: f32[1, 1, 2] = [1.0, 10.0]  const b: f32[1] = [100.0]"
            "  y = Conv(x, k, b) { pads = [1, 0] }  const w: f32[1, 1, 3] = [110.0, 121.0, 132.0]"
            "  z = Conv(x, k) { auto_pad = \"SAME_UPPER\", strides = [2] }  const v: f32[1, 1, 2] = [21.0, 3.0]  output y, w, z, v");
  ops_check("const x: f32[1, 2, 1] = [1.0, 2.0]  const k: f32[4, 1, 1] = [1.0, 2.0, 3.0, 4.0]  y = Conv(x, k) { group = 2 }"
            "  const w: f32[1, 4, 1] = [1.0, 2.0, 6.0, 8.0]  output y, w");
  ops_check("const x: f32[1, 1, 2] = [1.0, 2.0]  const k: f32[1, 1, 3] = [1.0, 10.0, 100.0]  y = ConvTranspose(x, k) { strides = [2], output_padding = [1] }"
            "  const w: f32[1, 1, 6] = [1.0, 10.0, 102.0, 20.0, 200.0, 0.0]"
            "  z = ConvTranspose(x, k) { strides = [2], dilations = [2], pads = [1, 1] }  const v: f32[1, 1, 5] = [0.0, 12.0, 0.0, 120.0, 0.0]  output y, w, z, v");
  ops_check("const x: u8[1, 1, 2] = [3, 5]  const k: u8[1, 1, 1] = [2]  const z: u8[] = 4  y = ConvInteger(x, k, z)  const w: i32[1, 1, 2] = [-2, 2]  output y, w");
  ops_check("const x: f32[1, 1, 2, 2] = [1.0, 2.0, 3.0, 4.0]  const k: f32[1, 1, 1, 1] = [1.0]  const o: f32[1, 2, 2, 2] = [0.5, 0.0, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0]"
            "  y = DeformConv(x, k, o)  const w: f32[1, 1, 2, 2] = [2.0, 1.0, 3.0, 4.0]  output y, w");
  ops_refused("const x: f32[1, 3, 1] = [1.0, 2.0, 3.0]  const k: f32[1, 2, 1] = [1.0, 2.0]  y = Conv(x, k)  output y", TN_EINPUT, "the input has 3 channels");
  ops_refused("const x: f32[1, 1, 1] = [1.0]  const k: f32[1, 1, 2] = [1.0, 2.0]  y = Conv(x, k)  output y", TN_EINPUT, "larger than the padded input");
  ops_refused("const x: f32[1, 1, 1] = [1.0]  const k: f32[1, 1, 1] = [1.0]  y = Conv(x, k) { strides = [0] }  output y", TN_EINPUT, "'strides' holds 0");
}

Test(ops_contract, pools) {
  const char *x = "const x: f32[1, 1, 5] = [1.0, 5.0, 2.0, 4.0, 3.0]  ";
  static const char *const rows[] = {
      "y, i = MaxPool(x) { kernel_shape = [2], strides = [2], ceil_mode = 1 }  const w: f32[1, 1, 3] = [5.0, 4.0, 3.0]  const j: i64[1, 1, 3] = [1, 3, 4]  output y, w, i, j",
      "y = AveragePool(x) { kernel_shape = [2], pads = [1, 0] }  const w: f32[1, 1, 5] = [1.0, 3.0, 3.5, 3.0, 3.5]  output y, w",
      "y = AveragePool(x) { kernel_shape = [2], pads = [1, 0], count_include_pad = 1 }  const w: f32[1, 1, 5] = [0.5, 3.0, 3.5, 3.0, 3.5]  output y, w",
      "y = LpPool(x) { kernel_shape = [2], strides = [3], p = 1 }  const w: f32[1, 1, 2] = [6.0, 7.0]  output y, w",
      "y = GlobalAveragePool(x)  const w: f32[1, 1, 1] = [3.0]  z = GlobalMaxPool(x)  const v: f32[1, 1, 1] = [5.0]  output y, w, z, v",
      "const p: i64[1, 1, 2] = [1, 2]  const e: f32[1, 1, 2] = [7.0, 8.0]  y = MaxUnpool(e, p) { kernel_shape = [2], strides = [2] }"
      "  const w: f32[1, 1, 4] = [0.0, 7.0, 8.0, 0.0]  output y, w",
  };
  char text[1024];
  for (int i = 0; i < IR_COUNT(rows); i++) {
    snprintf(text, sizeof text, "%s%s", x, rows[i]);
    ops_check(text);
  }
}

static bool store_all(void *user, const ir_value *v) { return (void)user, (void)v, true; }

typedef struct shape_case {
  const char *graph, *kernel;
} shape_case;

static void check_kernel(tn_ctx *ctx, void *arg) {
  const shape_case *c = arg;
  ir_graph *g = ir_graph_parse(ctx, ir_format(ctx, "graph g { %s  output y }", c->graph), "test");
  ir_graph_sort(g);
  ir_node *n = g->nodes[0];
  ir_infer(ctx, n);
  ir_graph_analyse(g);
  const char *got = ir_kernel_print(ctx, lw_build_group(ctx, "k", n, -1, 1, &n, false, store_all, NULL).kernel);
  const char *want = ir_kernel_print(ctx, ir_kernel_parse(ctx, c->kernel, "want"));
  cr_assert_str_eq(got, want);
}

Test(ops_contract, loops) {
  static const shape_case cases[] = {
      {"input a: f32[2, 4, 8]  input b: f32[8, 6]  y = MatMul(a, b)",
       "kernel k(in in0: f32[2, 4, 8], in in1: f32[8, 6], out out2: f32[2, 4, 6]) {"
       " for b0 in 0 .. 2 { for m in 0 .. 4 { for n in 0 .. 6 { alloc acc: f32[] register  acc[] = 0.0"
       " for k in 0 .. 8 { acc[] = fma(in0[b0, m, k], in1[k, n], acc[]) }  out2[b0, m, n] = acc[] } } } }"},
      {"input a: f16[4, 8]  input b: f16[6, 8]  input c: f16[6]  y = Gemm(a, b, c) { transB = 1 }",
       "kernel k(in in0: f16[4, 8], in in1: f16[6, 8], in in2: f16[6], out out3: f16[4, 6]) {"
       " for m in 0 .. 4 { for n in 0 .. 6 { alloc acc: f32[] register  acc[] = 0.0"
       " for k in 0 .. 8 { acc[] = fma(cast<f32>(in0[m, k]), cast<f32>(in1[n, k]), acc[]) }"
       " out3[m, n] = cast<f16>(acc[] + cast<f32>(in2[n])) } } }"},
      /* no padding: no guard */
      {"input x: f32[1, 4, 8, 8]  input w: f32[6, 2, 3, 3]  y = Conv(x, w) { group = 2, strides = [2, 2] }",
       "kernel k(in in0: f32[1, 4, 8, 8], in in1: f32[6, 2, 3, 3], out out2: f32[1, 6, 3, 3]) {"
       " for n in 0 .. 1 { for g in 0 .. 2 { for k in 0 .. 3 { for y in 0 .. 3 { for x in 0 .. 3 { alloc acc: f32[] register  acc[] = 0.0"
       " for c in 0 .. 2 { for r in 0 .. 3 { for s in 0 .. 3 {"
       " acc[] = fma(in0[n, c + g*2, r + y*2, s + x*2], in1[g*3 + k, c, r, s], acc[]) } } }"
       " out2[n, g*3 + k, y, x] = acc[] } } } } } }"},
      {"input x: f32[2, 3, 9]  input w: f32[4, 3, 3]  input b: f32[4]  y = Conv(x, w, b) { pads = [1, 1] }",
       "kernel k(in in0: f32[2, 3, 9], in in1: f32[4, 3, 3], in in2: f32[4], out out3: f32[2, 4, 9]) {"
       " for n in 0 .. 2 { for k in 0 .. 4 { for x in 0 .. 9 { alloc acc: f32[] register  acc[] = 0.0"
       " for c in 0 .. 3 { for s in 0 .. 3 { if s + x > 0 & s + x < 10 {"
       " acc[] = fma(in0[n, c, s + x - 1], in1[k, c, s], acc[]) } } }"
       " out3[n, k, x] = acc[] + in2[k] } } } }"},
  };
  for (int i = 0; i < IR_COUNT(cases); i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    tn_status s = ir_protect(ctx, check_kernel, (void *)(uintptr_t)&cases[i]);
    cr_assert_eq(s, TN_OK, "%s", tn_error(ctx));
    tn_ctx_free(ctx);
  }
}
