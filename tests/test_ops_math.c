/* Elementwise ops, reductions, softmax, normalisations. */
#include "ops_help.h"

Test(ops_math, unary) {
  ops_check("const x: f32[4] = [-1.5, 0.0, 2.0, nan]  y = Relu(x)  const w: f32[4] = [0.0, 0.0, 2.0, nan]  output y, w");
  ops_check("const x: i32[3] = [-5, 0, 7]  y = Sign(x)  const w: i32[3] = [-1, 0, 1]  output y, w");
  ops_check("const x: f32[4] = [0.5, 1.5, 2.5, -0.5]  y = Round(x)  const w: f32[4] = [0.0, 2.0, 2.0, 0.0]  output y, w");
  ops_check("const x: f32[3] = [-200.0, 0.0, 200.0]  y = Softplus(x)  const w: f32[3] = [0.0, 0.693147, 200.0]  output y, w");
  ops_check("const x: f32[5] = [-1.0, 0.0, 2.0, 100.0, -100.0]  y = Mish(x)  const w: f32[5] = [-0.303401, 0.0, 1.943959, 100.0, 0.0]  output y, w");
  ops_check("const x: f32[3] = [-1.0, 0.0, 2.0]  y = Gelu(x)  const w: f32[3] = [-0.158655, 0.0, 1.954500]  output y, w");
  ops_check("const x: f32[2] = [-1.0, 2.0]  y = Gelu(x) { approximate = \"tanh\" }  const w: f32[2] = [-0.158808, 1.954598]  output y, w");
  ops_check("const x: f32[3] = [-1.0, 0.0, 2.0]  y = Selu(x)  const w: f32[3] = [-1.111331, 0.0, 2.101402]  output y, w");
  ops_check("const x: f32[3] = [inf, -inf, nan]  y = IsInf(x) { detect_negative = 0 }  const w: bool[3] = [true, false, false]  output y, w");
  ops_check("const x: i32[3] = [-2, 0, 2]  y = Shrink(x) { lambd = 1.5, bias = 1.0 }  const w: i32[3] = [-1, 0, 1]  output y, w");
  ops_check("const x: f16[2] = [1.0, -2.0]  y = Exp(x)  const w: f16[2] = [2.71875, 0.13537598]  output y, w");
  ops_check("const x: u8[2] = [1, 255]  y = BitwiseNot(x)  const w: u8[2] = [254, 0]  output y, w");
  ops_refused("const x: bool[1] = [true]  y = Relu(x)  output y", TN_EINPUT, "of type bool");
}

Test(ops_math, binary) {
  ops_check("const a: f32[2, 1] = [1.0, 2.0]  const b: f32[3] = [10.0, 20.0, 30.0]  y = Add(a, b)"
            "  const w: f32[2, 3] = [11.0, 21.0, 31.0, 12.0, 22.0, 32.0]  output y, w");
  ops_check("const a: i32[4] = [7, -7, 7, -7]  const b: i32[4] = [2, 2, -2, -2]  y = Div(a, b)  const w: i32[4] = [3, -3, -3, 3]  output y, w");
  ops_check("const a: i32[4] = [7, -7, 7, -7]  const b: i32[4] = [3, 3, -3, -3]  y = Mod(a, b)  const w: i32[4] = [1, 2, -2, -1]  output y, w");
  ops_check("const a: i32[4] = [7, -7, 7, -7]  const b: i32[4] = [3, 3, -3, -3]  y = Mod(a, b) { fmod = 1 }  const w: i32[4] = [1, -1, 1, -1]  output y, w");
  ops_check("const a: i64[5] = [2, -1, -1, 3, 0]  const b: i32[5] = [62, 101, -3, -2, 0]  y = Pow(a, b)"
            "  const w: i64[5] = [4611686018427387904, -1, -1, 0, 1]  output y, w");
  ops_check("const a: f32[2] = [2.0, 9.0]  const b: f64[2] = [3.0, 0.5]  y = Pow(a, b)  const w: f32[2] = [8.0, 3.0]  output y, w");
  ops_check("const a: f32[3] = [1.0, nan, 3.0]  const b: f32[3] = [nan, 2.0, 2.0]  y = Max(a, b)  const w: f32[3] = [nan, nan, 3.0]"
            "  z = Min(a, b)  const v: f32[3] = [nan, nan, 2.0]  output y, w, z, v");
  ops_check("const a: u8[2] = [1, 129]  const b: u8[2] = [7, 1]  y = BitShift(a, b) { direction = \"LEFT\" }  const w: u8[2] = [128, 2]  output y, w");
  ops_check("const a: u64[2] = [18446744073709551615, 1]  const b: u64[2] = [1, 2]  y = Greater(a, b)  const w: bool[2] = [true, false]  output y, w");
  ops_check("const a: f32[0, 2] = []  const b: f32[1, 2] = [1.0, 2.0]  y = Mul(a, b)  const w: f32[0, 2] = []  output y, w");
  ops_refused("const a: f32[2] = [1.0, 2.0]  const b: f32[3] = [1.0, 2.0, 3.0]  y = Add(a, b)  output y", TN_EINPUT, "do not broadcast");
  ops_refused("const a: f32[1] = [1.0]  const b: f64[1] = [1.0]  y = Add(a, b)  output y", TN_EINPUT, "must have one type");
}

Test(ops_math, others) {
  ops_check("const x: f32[3] = [-5.0, 0.5, nan]  const h: f32[] = 1.0  y = Clip(x, _, h)  const w: f32[3] = [-5.0, 0.5, nan]  output y, w");
  ops_check("const x: f32[3] = [-5.0, 0.5, 9.0]  y = Clip(x) { min = 0.0, max = 6.0 } opset 6  const w: f32[3] = [0.0, 0.5, 6.0]  output y, w");
  ops_check("const x: f32[4] = [-1.7, 2.7, nan, 300.0]  y = Cast(x) { to = 6 }  const w: i32[4] = [-1, 2, 0, 300]  output y, w");
  ops_check("const x: i32[2] = [300, -1]  y = Cast(x) { to = 2 }  const w: u8[2] = [44, 255]  output y, w");
  ops_check("const x: f32[1] = [1.0]  y = BitCast(x) { to = 6 }  const w: i32[1] = [1065353216]  output y, w");
  ops_check("const x: f32[2] = [1.0, 2.0]  y, m = Dropout(x)  const w: bool[2] = [true, true]  output y, x, m, w");
  ops_refused("const x: f32[1] = [1.0]  y = Cast(x) { to = 8 }  output y", TN_EUNSUPPORTED, "the element type string");
  ops_refused("const x: f32[1] = [1.0]  const r: f32[] = 0.5  const t: bool[] = true  y = Dropout(x, r, t)  output y", TN_EUNSUPPORTED, "only inference");
}

Test(ops_math, reductions) {
  const char *x = "const x: f32[2, 3] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]  const one: i64[1] = [1]  const none: i64[0] = []  ";
  char text[1024];
  static const char *const rows[] = {
      "y = ReduceSum(x, one)  const w: f32[2, 1] = [6.0, 15.0]",
      "y = ReduceMean(x) { axes = [0], keepdims = 0 } opset 13  const w: f32[3] = [2.5, 3.5, 4.5]",
      "y = ReduceMax(x) { keepdims = 0 }  const w: f32[] = 6.0",
      "y = ReduceMin(x, one) { keepdims = 0 }  const w: f32[2] = [1.0, 4.0]",
      "y = ReduceProd(x, one) { keepdims = 0 }  const w: f32[2] = [6.0, 120.0]",
      "y = ReduceL2(x, one) { keepdims = 0 }  const w: f32[2] = [3.741657, 8.774964]",
      "y = ReduceLogSum(x, one) { keepdims = 0 }  const w: f32[2] = [1.791759, 2.708050]",
      "y = ReduceLogSumExp(x, one) { keepdims = 0 }  const w: f32[2] = [3.407606, 6.407606]",
      "y = ReduceSumSquare(x, none) { noop_with_empty_axes = 1 }  const w: f32[2, 3] = [1.0, 4.0, 9.0, 16.0, 25.0, 36.0]",
      "y = ArgMax(x) { axis = -1, keepdims = 0 }  const w: i64[2] = [2, 2]",
      "const a: i64[] = 1  y = CumSum(x, a) { exclusive = 1, reverse = 1 }  const w: f32[2, 3] = [5.0, 3.0, 0.0, 11.0, 6.0, 0.0]",
      "const a: i64[] = 0  y = CumProd(x, a)  const w: f32[2, 3] = [1.0, 2.0, 3.0, 4.0, 10.0, 18.0]",
  };
  for (int i = 0; i < IR_COUNT(rows); i++) {
    snprintf(text, sizeof text, "%s%s  output y, w", x, rows[i]);
    ops_check(text);
  }
  ops_check("const x: f32[2, 0] = []  const a: i64[1] = [1]  y = ReduceMax(x, a)  const w: f32[2, 1] = [-inf, -inf]"
            "  z = ReduceProd(x, a)  const v: f32[2, 1] = [1.0, 1.0]  output y, w, z, v");
  ops_check("const x: f32[3] = [1.0, nan, 3.0]  y = ReduceMax(x) { keepdims = 0 }  const w: f32[] = nan"
            "  z = ArgMax(x) { keepdims = 0 }  const v: i64[] = 1  output y, w, z, v");
  ops_check("const x: i32[4] = [2, 5, 5, 1]  y = ArgMax(x) { keepdims = 0, select_last_index = 1 }  const w: i64[] = 2  output y, w");
  ops_check("const x: bool[2, 2] = [true, false, true, true]  const a: i64[1] = [1]  y = ReduceMin(x, a)  const w: bool[2, 1] = [false, true]  output y, w");
  /* sums of f16 do not stop at 2048 */
  ops_check("const x: f16[4] = [2048.0, 1.0, 1.0, 2.0]  y = ReduceSum(x) { keepdims = 0 }  const w: f16[] = 2052.0  output y, w");
  ops_check("const x: f32[3, 3] = [0.0, 2.0, 1.0, 3.0, 0.0, 1.0, 1.0, 1.0, 1.0]  y = Det(x)  const w: f32[] = -1.0  output y, w");
  ops_refused("const x: f32[2] = [1.0, 2.0]  const a: i64[1] = [2]  y = ReduceSum(x, a)  output y", TN_EINPUT, "axis 2 is outside");
}

Test(ops_math, softmax) {
  ops_check("const x: f32[2, 2] = [0.0, 0.0, 1000.0, 0.0]  y = Softmax(x)  const w: f32[2, 2] = [0.5, 0.5, 1.0, 0.0]  output y, w");
  ops_check("const x: f32[2, 2] = [1.0, 2.0, 1.0, 2.0]  y = Softmax(x) { axis = 0 }  const w: f32[2, 2] = [0.5, 0.5, 0.5, 0.5]  output y, w");
  /* before opset 13 a row is everything from the axis on */
  ops_check("const x: f32[1, 2, 2] = [1.0, 1.0, 1.0, 1.0]  y = Softmax(x) opset 11  const w: f32[1, 2, 2] = [0.25, 0.25, 0.25, 0.25]  output y, w");
  ops_check("const x: f32[2] = [0.0, 1.0]  y = LogSoftmax(x)  const w: f32[2] = [-1.313262, -0.313262]  output y, w");
  ops_check("const x: f32[2, 3] = [1.0, 3.0, 3.0, -inf, -inf, -inf]  y = Hardmax(x)  const w: f32[2, 3] = [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]  output y, w");
}

Test(ops_math, normalisations) {
  ops_check("const x: f32[1, 2, 2] = [1.0, 2.0, 3.0, 4.0]  const s: f32[2] = [1.0, 2.0]  const b: f32[2] = [0.0, 1.0]  const m: f32[2] = [1.0, 3.0]"
            "  const v: f32[2] = [1.0, 4.0]  y = BatchNormalization(x, s, b, m, v) { epsilon = 0.0 }  const w: f32[1, 2, 2] = [0.0, 1.0, 1.0, 2.0]  output y, w");
  ops_check("const x: f32[2, 1] = [1.0, 3.0]  const s: f32[1] = [2.0]  const b: f32[1] = [1.0]  const m: f32[1] = [10.0]  const v: f32[1] = [4.0]"
            "  y, n, u = BatchNormalization(x, s, b, m, v) { epsilon = 0.0, training_mode = 1, momentum = 0.5 }"
            "  const w: f32[2, 1] = [-1.0, 3.0]  const wn: f32[1] = [6.0]  const wu: f32[1] = [2.5]  output y, w, n, wn, u, wu");
  ops_check("const x: f32[2, 2] = [1.0, 3.0, 2.0, 6.0]  const s: f32[2] = [1.0, 2.0]  y, m, i = LayerNormalization(x, s) { epsilon = 0.0 }"
            "  const w: f32[2, 2] = [-1.0, 2.0, -1.0, 2.0]  const wm: f32[2, 1] = [2.0, 4.0]  const wi: f32[2, 1] = [1.0, 0.5]  output y, w, m, wm, i, wi");
  ops_check("const x: f32[1, 2] = [3.0, 4.0]  const s: f32[2] = [1.0, 1.0]  y = RMSNormalization(x, s) { epsilon = 0.0 }"
            "  const w: f32[1, 2] = [0.848528, 1.131371]  output y, w");
  ops_check("const x: f32[1, 2, 2] = [1.0, 3.0, 2.0, 6.0]  const s: f32[2] = [1.0, 2.0]  const b: f32[2] = [0.0, 1.0]"
            "  y = InstanceNormalization(x, s, b) { epsilon = 0.0 }  const w: f32[1, 2, 2] = [-1.0, 1.0, -1.0, 3.0]  output y, w");
  ops_check("const x: f32[1, 4, 1] = [1.0, 3.0, 2.0, 6.0]  const s: f32[4] = [1.0, 1.0, 1.0, 2.0]  const b: f32[4] = [0.0, 0.0, 0.0, 1.0]"
            "  y = GroupNormalization(x, s, b) { epsilon = 0.0, num_groups = 2 }  const w: f32[1, 4, 1] = [-1.0, 1.0, -1.0, 3.0]  output y, w");
  ops_check("const x: f32[2, 2] = [3.0, 4.0, 0.0, 0.0]  y = LpNormalization(x)  const w: f32[2, 2] = [0.6, 0.8, 0.0, 0.0]  output y, w");
  ops_check("const x: f32[1, 3, 1] = [1.0, 2.0, 3.0]  y = LRN(x) { size = 3, alpha = 3.0, beta = 1.0 }"
            "  const w: f32[1, 3, 1] = [0.1666667, 0.1333333, 0.2142857]  output y, w");
  ops_refused("const x: f32[1, 2] = [1.0, 2.0]  const s: f32[3] = [1.0, 1.0, 1.0]  const b: f32[2] = [0.0, 0.0]"
              "  y = BatchNormalization(x, s, b, b, b)  output y", TN_EINPUT, "has 3 elements, not 2");
}
