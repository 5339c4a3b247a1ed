/* Image and signal ops: what the ONNX node tests leave out. */
#include "ops_help.h"

Test(ops_image, resize_old_forms) {
  const char *x = "const x: f32[1, 1, 1, 3] = [1.0, 2.0, 4.0] ";
  char text[600];
  snprintf(text, sizeof text, "%sconst s: f32[4] = [1.0, 1.0, 2.0, 2.0] y = Resize(x, s) opset 10 "
           "const want: f32[1, 1, 2, 6] = [1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0] output y, want", x);
  ops_check(text);
  snprintf(text, sizeof text, "%sy = Upsample(x) {mode = \"linear\", scales = [1.0, 1.0, 1.0, 2.0]} opset 7 "
           "const want: f32[1, 1, 1, 6] = [1.0, 1.5, 2.0, 3.0, 4.0, 4.0] output y, want", x);
  ops_check(text);
}

Test(ops_image, resize_types) {
  /* integers round, to even at halves, and saturate */
  ops_check("const x: u8[2] = [1, 2] const s: f32[1] = [2.0] y = Resize(x, _, s) {mode = \"linear\"} const want: u8[4] = [1, 1, 2, 2] output y, want");
  ops_check("const x: u8[4] = [0, 255, 255, 0] const s: f32[1] = [2.0] y = Resize(x, _, s) {mode = \"cubic\"} z = Cast(y) {to = 7} "
            "const want: i64[8] = [0, 58, 197, 255, 255, 197, 58, 0] output z, want");
  ops_refused("input s: f32[1] const x: f32[4] = [0.0, 1.0, 2.0, 3.0] y = Resize(x, _, s) output y", TN_EUNSUPPORTED, "'s' (scales) must be known");
  ops_refused("const s: f32[1] = [-1.0] const x: f32[1] = [0.0] y = Resize(x, _, s) output y", TN_EINPUT, "scale -1");
}

Test(ops_image, crop_and_resize) {
  ops_check("const x: f32[4] = [0.0, 1.0, 2.0, 3.0] const r: f32[2] = [0.5, 1.5] const z: i64[1] = [3] "
            "y = Resize(x, r, _, z) {mode = \"linear\", coordinate_transformation_mode = \"tf_crop_and_resize\", extrapolation_value = 9.0} "
            "const want: f32[3] = [1.5, 3.0, 9.0] output y, want");
}

Test(ops_image, grid_of_nowhere) {
  ops_check("const x: f32[1, 1, 1, 2] = [1.0, 2.0] const g: f32[1, 1, 3, 2] = [nan, 0.0, 1e+30, 0.0, -1.0, 0.0] "
            "y = GridSample(x, g) {mode = \"nearest\", align_corners = 1} const want: f32[1, 1, 1, 3] = [0.0, 0.0, 1.0] output y, want");
}

Test(ops_signal, fourier) {
  ops_check("const x: f32[1, 4, 1] = [1.0, 0.0, -1.0, 0.0] y = DFT(x) {onesided = 1} const want: f32[1, 3, 2] = [0.0, 0.0, 2.0, 0.0, 0.0, 0.0] output y, want");
  ops_check("const x: f64[1, 3, 2] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] y = DFT(x) z = DFT(y) {inverse = 1} output z, x");
  ops_refused("const x: f32[1, 4, 2] = [1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0] y = DFT(x) {onesided = 1} output y", TN_EINPUT, "onesided needs a real input");
}
