/* Gather, scatter, sorting and generating ops: what the ONNX node tests leave out. */
#include "ops_help.h"

#define X "const x: f32[2, 3] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] "

Test(ops_index, gather) {
  ops_check(X "const i: i64[] = -1 y = Gather(x, i) {axis = 1} const want: f32[2] = [3.0, 6.0] output y, want");
  ops_check(X "const i: i32[2, 1] = [2, -3] y = Gather(x, i) {axis = 1} const want: f32[2, 2, 1] = [3.0, 1.0, 6.0, 4.0] output y, want");
  ops_refused(X "const i: i64[] = 3 y = Gather(x, i) {axis = 1} output y", TN_EINPUT, "index 3 is outside axis 1 of extent 3");
  ops_refused("const x: f32[0, 3] = [] const i: i64[1] = [0] y = Gather(x, i) output y", TN_EINPUT, "axis 0 of 'x' is empty");
  ops_check(X "const i: i64[1, 2] = [1, -1] y = GatherND(x, i) const want: f32[1] = [6.0] output y, want");
  ops_check(X "const c: bool[2] = [false, true] y = Compress(x, c) {axis = 0} const want: f32[1, 3] = [4.0, 5.0, 6.0] output y, want");
  ops_check("const x: i8[2, 2] = [1, 0, 0, 2] y = NonZero(x) const want: i64[2, 2] = [0, 1, 0, 1] output y, want");
  ops_refused("input x: f32[] y = NonZero(x) output y", TN_EUNSUPPORTED, "'x' is a scalar");
}

Test(ops_index, scatter) {
  ops_check("const x: i32[3] = [1, 1, 1] const i: i64[4] = [0, 2, 0, -1] const u: i32[4] = [5, 6, 7, 8] y = ScatterElements(x, i, u) {reduction = \"add\"} "
            "z = ScatterElements(x, i, u) const p: i32[3] = [13, 1, 15] const q: i32[3] = [7, 1, 8] output y, p, z, q");
  ops_check("const x: bool[2] = [true, false] const i: i64[2, 1] = [0, 1] const u: bool[2] = [false, true] y = ScatterND(x, i, u) {reduction = \"mul\"} "
            "const want: bool[2] = [false, false] output y, want");
  ops_check("const x: i32[1, 4] = [1, 2, 3, 4] const u: i32[1, 2] = [8, 9] const w: i64[1] = [3] y = TensorScatter(x, u, w) {axis = 1, mode = \"circular\"} "
            "const want: i32[1, 4] = [9, 2, 3, 8] output y, want");
}

Test(ops_index, sort) {
  ops_check("const x: f32[6] = [2.0, nan, 3.0, 2.0, -inf, 3.0] const k: i64[1] = [4] v, i = TopK(x, k) "
            "const p: f32[4] = [nan, 3.0, 3.0, 2.0] const q: i64[4] = [1, 2, 5, 0] output v, p, i, q");
  ops_check("const x: f32[6] = [2.0, nan, 3.0, 2.0, -inf, 3.0] const k: i64[1] = [6] v, i = TopK(x, k) {largest = 0} "
            "const q: i64[6] = [4, 0, 3, 2, 5, 1] output i, q");
  /* above 32 the list is sorted as a whole: 37 * j mod 101 takes every value once */
  ops_check("const a: i64[] = 0 const n: i64[] = 101 const s: i64[] = 37 const one: i64[] = 1 r = Range(a, n, one) p = Mul(r, s) x = Mod(p, n) "
            "const k: i64[1] = [101] v, i = TopK(x, k) {largest = 0} back = Gather(x, i) output v, r, back, r");
  /* of the best quarter the worst is on top of a heap: the same as the front of all, with a NaN and five of each number */
  ops_check("const a: i64[] = 0 const n: i64[] = 400 const m: i64[] = 80 const s: i64[] = 37 const one: i64[] = 1 const none: f32[] = nan const ten: i64[] = 10 r = Range(a, n, one) p = Mul(r, s) q = Mod(p, m) e = Equal(r, ten) f = Cast(q) {to = 1}"
            " x = Where(e, none, f) const k: i64[1] = [90] const all: i64[1] = [400] const z: i64[1] = [0] v, i = TopK(x, k) w, j = TopK(x, all) front = Slice(j, z, k) t, l = TopK(x, k) {largest = 0} u, o = TopK(x, all) {largest = 0} back = Slice(o, z, k)"
            " fv = Slice(w, z, k) output i, front, l, back, v, fv");
  ops_refused(X "const k: i64[1] = [4] v, i = TopK(x, k) output v", TN_EINPUT, "k is 4, axis 1 has 3 elements");
  ops_refused("input b: f32[1, 4, 4] input s: i8[1, 2, 4] y = NonMaxSuppression(b, s) output y", TN_EINPUT, "input 1 is i8, not f32");
  ops_check("const x: i64[5] = [3, 1, 3, 2, 1] y, f, r, c = Unique(x) {sorted = 0} const a: i64[3] = [3, 1, 2] const b: i64[3] = [0, 1, 3] "
            "const d: i64[5] = [0, 1, 0, 2, 1] const e: i64[3] = [2, 2, 1] output y, a, f, b, r, d, c, e");
}

Test(ops_index, generate) {
  ops_check("const s: i64[2] = [2, 1] y = ConstantOfShape(s) const want: f32[2, 1] = [0.0, 0.0] output y, want");
  ops_check("const a: i64[] = 5 const b: i64[] = -1 const d: i64[] = -2 y = Range(a, b, d) const want: i64[3] = [5, 3, 1] output y, want");
  ops_refused("const a: i64[] = 5 const b: i64[] = 0 y = Range(a, b, b) output y", TN_EINPUT, "delta is 0");
  ops_check("y = RandomUniform() {shape = [4], seed = 3.0} z = RandomUniform() {shape = [4], seed = 3.0} output y, z");
  ops_refused("const s: i64[1] = [-2] y = ConstantOfShape(s) output y", TN_EINPUT, "extent -2");
}

Test(ops_index, composite_in_a_shape) { /* what replaces Compress is folded before Reshape asks */
  ops_check("const s: i64[3] = [2, 7, 1] const c: bool[3] = [true, false, true] const x: f32[2] = [3.0, 4.0] y = Compress(s, c) z = Reshape(x, y) "
            "const want: f32[2, 1] = [3.0, 4.0] output z, want");
}
