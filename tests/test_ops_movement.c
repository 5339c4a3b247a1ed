/* Movement ops: the cases that the ONNX node tests leave out. */
#include "ops_help.h"

#define X "const x: f32[2, 3] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] "

Test(ops_movement, reshape) {
  ops_check(X "const s: i64[2] = [3, -1] y = Reshape(x, s) const want: f32[3, 2] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] output y, want");
  ops_check(X "const s: i64[3] = [0, 1, -1] y = Reshape(x, s) const want: f32[2, 1, 3] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] output y, want");
  ops_check("const x: f32[0, 3] = [] const s: i64[2] = [0, -1] y = Reshape(x, s) const want: f32[0, 3] = [] output y, want");
  ops_check("const x: i8[1, 1] = [7] const s: i64[0] = [] y = Reshape(x, s) const want: i8[] = 7 output y, want");
  ops_check(X "y = Reshape(x) {shape = [6]} opset 1 const want: f32[6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] output y, want");
  ops_refused(X "const s: i64[2] = [4, -1] y = Reshape(x, s) output y", TN_EINPUT, "6 elements cannot be split into groups of 4");
  ops_refused(X "const s: i64[2] = [-1, -1] y = Reshape(x, s) output y", TN_EINPUT, "more than one -1");
  ops_refused(X "const s: i64[1] = [5] y = Reshape(x, s) output y", TN_EINPUT, "6 elements do not fit");
  ops_refused("input s: i64[2] " X "y = Reshape(x, s) output y", TN_EUNSUPPORTED, "'s' (shape) must be known");
  ops_refused("const x: f32[0] = [] const s: i64[3] = [9999999999, 9999999999, 0] y = Reshape(x, s) {allowzero = 1} output y", TN_EINPUT, "overflows");
}

Test(ops_movement, axes) {
  ops_check(X "y = Transpose(x) const want: f32[3, 2] = [1.0, 4.0, 2.0, 5.0, 3.0, 6.0] output y, want");
  ops_refused(X "y = Transpose(x) {perm = [0, 0]} output y", TN_EINPUT, "perm names axis 0 twice");
  ops_check(X "y = Unsqueeze(x) {axes = [0, 3]} opset 11 z = Squeeze(y) {axes = [-1, 0]} opset 11 output z, x");
  ops_check(X "const a: i64[2] = [-1, 0] y = Unsqueeze(x, a) z = Squeeze(y) output z, x");
  ops_refused(X "y = Squeeze(x) {axes = [1]} opset 11 output y", TN_EINPUT, "axis 1 has extent 3");
  ops_check(X "y = Flatten(x) {axis = 0} const want: f32[1, 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] output y, want");
}

Test(ops_movement, join_and_split) {
  ops_check(X "const e: f32[2, 0] = [] y = Concat(e, x, e, x) {axis = -1} const want: f32[2, 6] = [1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 4.0, 5.0, 6.0] output y, want");
  ops_refused(X "const e: f32[3, 3] = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0] y = Concat(x, e) {axis = 1} output y", TN_EINPUT, "extent 3 at axis 0");
  ops_check(X "a, b = Split(x) {axis = 1, num_outputs = 2} const p: f32[2, 2] = [1.0, 2.0, 4.0, 5.0] const q: f32[2, 1] = [3.0, 6.0] output a, p, b, q");
  ops_refused(X "a, b = Split(x) {axis = 1} opset 13 output a", TN_EINPUT, "does not split evenly");
}

Test(ops_movement, cut) {
  ops_check(X "const s: i64[2] = [-1, 5] const e: i64[2] = [-9223372036854775807, -100] const a: i64[2] = [0, -1] const t: i64[2] = [-1, -2] "
              "y = Slice(x, s, e, a, t) const want: f32[2, 2] = [6.0, 4.0, 3.0, 1.0] output y, want");
  ops_check(X "y = Slice(x) {starts = [1], ends = [1000], axes = [1]} opset 1 const want: f32[2, 2] = [2.0, 3.0, 5.0, 6.0] output y, want");
  ops_refused(X "const s: i64[1] = [0] y = Slice(x, s, s, s, s) output y", TN_EINPUT, "step 0");
  ops_check(X "const s: i64[2] = [1, 5] y = CenterCropPad(x, s) const want: f32[1, 5] = [0.0, 1.0, 2.0, 3.0, 0.0] output y, want");
  ops_check(X "const k: i64[] = -1 y = Trilu(x, k) {upper = 0} const want: f32[2, 3] = [0.0, 0.0, 0.0, 4.0, 0.0, 0.0] output y, want");
}

Test(ops_movement, pad) {
  ops_check(X "const p: i64[4] = [0, 1, 1, -1] const v: f32[] = 9.0 y = Pad(x, p, v) const want: f32[3, 3] = [9.0, 1.0, 2.0, 9.0, 4.0, 5.0, 9.0, 9.0, 9.0] output y, want");
  ops_check("const x: i64[3] = [1, 2, 3] const p: i64[2] = [5, 4] y = Pad(x, p) {mode = \"reflect\"} const want: i64[12] = [2, 1, 2, 3, 2, 1, 2, 3, 2, 1, 2, 3] output y, want");
  ops_check("const x: i64[3] = [1, 2, 3] const p: i64[2] = [4, 1] y = Pad(x, p) {mode = \"wrap\"} const want: i64[8] = [3, 1, 2, 3, 1, 2, 3, 1] output y, want");
  ops_check("const x: i64[3] = [1, 2, 3] const p: i64[2] = [-1, 2] y = Pad(x, p) {mode = \"edge\"} const want: i64[4] = [2, 3, 3, 3] output y, want");
  ops_refused(X "const p: i64[2] = [0, 1] y = Pad(x, p) output y", TN_EINPUT, "pads has 2 entries for 2 axes");
}

Test(ops_movement, shape_as_data) {
  ops_check("input x: f32[2, 5, 7] y = Shape(x) {start = -2} const want: i64[2] = [5, 7] output y, want");
  ops_check("input x: f32[2, 5, 7] y = Size(x) const want: i64[] = 70 output y, want");
}
