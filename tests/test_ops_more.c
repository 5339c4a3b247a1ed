/* Attention, recurrences, quantised tensors, losses, ops of com.microsoft, control flow.
 * Wanted values are those of ONNX Runtime, or of the reference implementation of ONNX. */
#include "ops_help.h"

Test(ops_more, attention) {
  ops_check("const i0: f32[1, 1, 2, 2] = [0.25, 0.75, 0.5, -0.5]  "
            "const i1: f32[1, 1, 3, 2] = [-0.5, 0.75, -1.0, 0.75, 0.5, -0.0]  "
            "const i2: f32[1, 1, 3, 1] = [-0.5, -0.5, -0.5]  o0 = Attention(i0, i1, i2) opset 23  "
            "const w0: f32[1, 1, 2, 1] = [-0.5, -0.5]  output o0, w0");
  ops_check("const i0: f32[1, 2, 4] = [-0.0, 0.0, 0.0, 1.0, 0.5, 0.25, 1.0, -0.5]  "
            "const i1: f32[1, 2, 2] = [-0.75, 0.25, -1.0, -1.0]  const i2: f32[1, 2, 2] = [0.0, -0.0, 0.75, 0.25]  "
            "o0 = Attention(i0, i1, i2) { q_num_heads = 2, kv_num_heads = 1, is_causal = 1, scale = 1.0 } opset 23  "
            "const w0: f32[1, 2, 4] = [0.0, 0.0, 0.0, 0.0, 0.294253, 0.0980842, 0.4445, 0.148167]  output o0, w0");
  ops_check("const i0: f32[1, 1, 2, 2] = [0.0, -0.0, -0.5, -1.0]  const i1: f32[1, 1, 2, 2] = [-0.5, 0.5, -0.5, -0.25]  "
            "const i2: f32[1, 1, 2, 1] = [-1.0, 0.75]  const i3: bool[2, 2] = [true, false, false, false]  "
            "o0 = Attention(i0, i1, i2, i3) opset 23  const w0: f32[1, 1, 2, 1] = [-1.0, 0.0]  output o0, w0");
  ops_check("const i0: f32[1, 1, 1, 2] = [-0.75, -0.5]  const i1: f32[1, 1, 1, 2] = [0.75, 0.0]  "
            "const i2: f32[1, 1, 1, 1] = [0.75]  const i4: f32[1, 1, 1, 2] = [0.25, 0.5]  "
            "const i5: f32[1, 1, 1, 1] = [-0.75]  "
            "o0, o1, o2 = Attention(i0, i1, i2, _, i4, i5) { softcap = 2.0 } opset 23  "
            "const w0: f32[1, 1, 1, 1] = [-0.0321066]  const w1: f32[1, 1, 2, 2] = [0.25, 0.5, 0.75, 0.0]  "
            "const w2: f32[1, 1, 2, 1] = [-0.75, 0.75]  output o0, w0, o1, w1, o2, w2");
  ops_check("const i0: f32[2, 1, 1, 2] = [0.0, 0.0, 0.75, -0.25]  "
            "const i1: f32[2, 1, 3, 2] = [0.25, -1.0, -0.25, -0.25, -0.75, 0.75, -0.25, 1.0, 0.25, 0.25, 0.25, 0.25]  "
            "const i2: f32[2, 1, 3, 1] = [-0.75, -0.0, -0.5, -0.25, -0.75, 1.0]  const i3: f32[1, 2] = [-0.5, 0.25]  "
            "const i6: i64[2] = [1, 2]  o0 = Attention(i0, i1, i2, i3, _, _, i6) opset 24  "
            "const w0: f32[2, 1, 1, 1] = [-0.75, -0.62955]  output o0, w0");
  ops_check("const i0: f32[1, 1, 1, 4] = [-0.5, 0.75, 0.25, -0.75]  "
            "const i1: f32[3, 2] = [0.75, 1.0, 0.75, 0.25, -0.75, -0.5]  "
            "const i2: f32[3, 2] = [0.75, 0.0, -0.75, 0.75, 0.25, 0.25]  const i3: i64[1, 1] = [2]  "
            "o0 = RotaryEmbedding(i0, i1, i2, i3) opset 23  "
            "const w0: f32[1, 1, 1, 4] = [0.3125, -0.1875, -0.3125, 0.5625]  output o0, w0");
  ops_check("const i0: f32[1, 1, 4] = [-0.25, -0.25, -0.5, -1.0]  const i1: f32[1, 1, 1] = [0.75]  "
            "const i2: f32[1, 1, 1] = [-0.0]  "
            "o0 = RotaryEmbedding(i0, i1, i2) { num_heads = 1, interleaved = 1, rotary_embedding_dim = 2 } opset 23  "
            "const w0: f32[1, 1, 4] = [-0.1875, -0.1875, -0.5, -1.0]  output o0, w0");
}

Test(ops_more, recurrent) {
  ops_check("const i0: f32[2, 1, 1] = [0.0, -0.25]  const i1: f32[1, 2, 1] = [0.5, -1.0]  "
            "const i2: f32[1, 2, 2] = [-0.25, -1.0, -0.75, 1.0]  const i3: f32[1, 4] = [0.25, -0.25, 0.0, 0.75]  "
            "o0, o1 = RNN(i0, i1, i2, i3) { hidden_size = 2 } opset 14  "
            "const w0: f32[2, 1, 1, 2] = [0.244919, 0.462117, -0.378534, 0.773277]  "
            "const w1: f32[1, 1, 2] = [-0.378534, 0.773277]  output o0, w0, o1, w1");
  ops_check("const i0: f32[2, 2, 1] = [-0.25, 0.25, 0.25, -0.25]  const i1: f32[1, 1, 1] = [0.0]  "
            "const i2: f32[1, 1, 1] = [0.5]  const i4: i32[2] = [2, 1]  "
            "o0, o1 = RNN(i0, i1, i2, _, i4) { hidden_size = 1, direction = \"reverse\", activations = [\"LeakyRelu\"], activation_alpha = [0.5] } opset 14  "
            "const w0: f32[2, 1, 2, 1] = [0.0, 0.0, 0.0, 0.0]  const w1: f32[1, 2, 1] = [0.0, 0.0]  "
            "output o0, w0, o1, w1");
  ops_check("const i0: f32[2, 1, 1] = [0.75, -0.75]  const i1: f32[1, 3, 1] = [0.75, -1.0, 0.5]  "
            "const i2: f32[1, 3, 1] = [0.5, -0.75, -0.25]  const i3: f32[1, 6] = [0.75, -1.0, 0.25, 0.5, 0.0, 0.5]  "
            "o0, o1 = GRU(i0, i1, i2, i3) { hidden_size = 1 } opset 14  "
            "const w0: f32[2, 1, 1, 1] = [0.113574, 0.189073]  const w1: f32[1, 1, 1] = [0.189073]  "
            "output o0, w0, o1, w1");
  ops_check("const i0: f32[1, 1, 1] = [-0.5]  "
            "const i1: f32[2, 6, 1] = [-0.5, -0.25, -0.75, -0.25, 1.0, 0.25, -0.25, -0.5, 1.0, -0.0, 1.0, 0.0]  "
            "const i2: f32[2, 6, 2] = [0.0, 0.75, 0.5, 0.25, -0.25, 0.75, -0.25, 0.75, -0.75, -0.25, 0.0, 1.0, -0.5, 0.5, 0.25, 0.5, 0.25, 1.0, -0.25, -0.25, -0.5, -1.0, -0.5, 0.75]  "
            "const i3: f32[2, 12] = [0.75, -0.75, 0.25, -0.0, 0.25, 0.25, -0.5, 1.0, -0.0, 0.25, 0.25, -0.75, -1.0, -0.25, 0.5, 0.75, 0.5, -0.75, 0.75, 0.5, 0.75, 0.0, 0.75, -1.0]  "
            "const i5: f32[2, 1, 2] = [-1.0, -1.0, -0.5, -0.5]  "
            "o0, o1 = GRU(i0, i1, i2, i3, _, i5) { hidden_size = 2, direction = \"bidirectional\", linear_before_reset = 1 } opset 14  "
            "const w0: f32[1, 2, 1, 2] = [-0.217521, -0.763781, 0.117399, -0.695679]  "
            "const w1: f32[2, 1, 2] = [-0.217521, -0.763781, 0.117399, -0.695679]  output o0, w0, o1, w1");
  ops_check("const i0: f32[2, 1, 1] = [-0.5, 0.25]  const i1: f32[1, 4, 1] = [-1.0, 0.25, -0.75, 0.25]  "
            "const i2: f32[1, 4, 1] = [-1.0, -0.5, 1.0, 0.0]  "
            "const i3: f32[1, 8] = [0.5, 0.25, 0.25, -0.5, 0.25, -1.0, 0.5, 1.0]  const i5: f32[1, 1, 1] = [0.75]  "
            "const i6: f32[1, 1, 1] = [-1.0]  const i7: f32[1, 3] = [-0.25, -0.25, -0.75]  "
            "o0, o1, o2 = LSTM(i0, i1, i2, i3, _, i5, i6, i7) { hidden_size = 1, clip = 0.5 } opset 14  "
            "const w0: f32[2, 1, 1, 1] = [-0.143251, 0.0147321]  const w1: f32[1, 1, 1] = [0.0147321]  "
            "const w2: f32[1, 1, 1] = [0.0390411]  output o0, w0, o1, w1, o2, w2");
  ops_check("const i0: f32[1, 2, 1] = [0.25, 0.5]  const i1: f32[1, 4, 1] = [-0.25, 0.75, 0.5, -0.75]  "
            "const i2: f32[1, 4, 1] = [0.5, 0.75, -0.5, 0.25]  const i5: f32[1, 2, 1] = [0.25, 0.25]  "
            "_, o1, o2 = LSTM(i0, i1, i2, _, _, i5) { hidden_size = 1, input_forget = 1 } opset 14  "
            "const w0: f32[1, 2, 1] = [-0.0379491, -0.0956881]  const w1: f32[1, 2, 1] = [-0.0641189, -0.151355]  "
            "output o1, w0, o2, w1");
  ops_check("const i0: f32[1, 1, 1] = [-0.75]  "
            "const i1: f32[1, 36, 1] = [0.25, 0.25, 0.75, 0.5, -0.25, 0.5, 0.75, 0.75, -0.75, -1.0, 0.25, -0.5, 0.25, 1.0, -0.25, -0.5, -0.0, 0.25, -0.75, -0.25, -0.75, 0.25, 0.75, -0.25, -0.25, 0.0, -0.5, -0.5, -0.25, -0.0, -0.75, 0.5, 0.25, -0.5, -0.75, 0.5]  "
            "const i2: f32[1, 36, 9] = [-0.75, -0.75, -0.75, -0.75, 0.75, -0.5, -0.5, 0.75, 0.25, -0.75, -0.25, 0.75, -0.25, 0.5, -0.75, 0.5, 0.5, 0.75, 0.25, -0.25, -0.75, 0.0, 0.5, -0.5, -0.5, 0.0, 0.5, 0.75, -0.75, -0.75, 0.5, 0.25, 0.5, 1.0, 1.0, 0.75, 0.5, -0.25, 0.25, -0.75, 0.5, 0.5, 0.5, -0.0, -0.25, -0.25, -1.0, 0.75, 0.0, -0.25, 0.0, 0.5, -0.25, 0.75, 0.75, -0.25, -0.75, 0.5, 1.0, -0.75, 0.5, 0.75, 0.75, -0.75, -0.75, 1.0, -0.75, -0.75, 0.25, -0.0, 0.5, -0.5, 0.75, -0.5, 0.5, -0.75, -0.0, -1.0, -0.25, -0.5, 0.5, -0.0, -1.0, 1.0, 0.75, 0.75, -0.5, -0.25, -0.5, -0.75, -1.0, 0.0, -0.75, -0.75, 0.75, -0.0, -0.75, 0.25, -0.5, 0.0, -0.5, 0.0, 0.25, 0.0, -0.25, 0.5, 0.75, -0.75, -0.75, -0.75, 1.0, 1.0, -0.5, 1.0, -0.5, 0.0, -0.0, 0.75, -1.0, -0.25, 0.25, -0.75, -0.5, -0.0, 0.75, 0.5, 0.75, 0.5, 0.5, 0.75, 0.25, 0.5, -0.5, -0.75, 0.5, -0.75, 0.75, 0.25, -0.25, 0.75, -0.75, 0.0, -0.75, 1.0, 0.25, 0.5, -0.5, 0.5, 0.5, 0.25, 1.0, -0.25, -0.25, 0.5, 0.75, -0.25, 0.25, -0.5, 0.0, 0.5, -0.75, 0.5, -1.0, 1.0, -0.0, -0.25, 0.5, 0.0, 0.5, -0.75, 0.25, 0.0, 0.75, -1.0, -0.0, 0.25, 0.0, -0.75, 0.25, -0.5, -0.5, 0.75, -0.5, -0.0, 0.5, 0.5, 0.0, 0.5, -0.0, 0.25, 0.75, 0.25, 0.25, -0.25, 0.0, -0.25, 0.5, -0.25, -0.0, 0.5, 0.0, -0.25, 0.75, -0.25, 0.75, 0.5, -0.0, 0.5, -1.0, -0.25, 0.75, 0.25, 0.0, 0.25, 0.25, 0.25, -0.25, -0.75, -0.5, -0.5, -0.25, 1.0, -0.25, -0.0, -0.25, 0.25, 1.0, 0.75, -0.25, -0.5, 0.75, -0.0, 0.25, -0.75, 0.75, -0.25, -0.0, -0.5, -0.25, 0.75, 0.75, -0.0, 0.5, -0.0, -0.25, 0.0, -0.5, -0.25, 0.5, 0.5, -1.0, 0.5, 0.75, -0.0, -1.0, 0.25, -0.5, 0.25, -0.25, 0.25, -0.5, -0.0, 0.0, 0.25, -0.5, 1.0, -0.5, -0.5, -0.5, -0.75, -0.25, 0.5, 0.5, -0.5, -0.75, -0.25, 0.5, -0.0, 0.75, 0.25, 0.25, 0.5, 0.5, -0.25, -0.5, -0.0, -0.0, -0.75, -0.0, 0.25, -0.75, -0.75, -0.75, -0.5, 1.0, -1.0, -0.75, -0.75, -0.0, -1.0, -0.0, -0.75, -0.5, 0.5, -0.75, 0.25, -0.25, -0.25, 0.75, -0.75, 0.75, 0.75, 0.25, -1.0, 0.25, 0.25, 0.5, -0.5, 1.0, 0.75, -0.75, -0.25, -1.0, 0.75]  "
            "_, o1 = LSTM(i0, i1, i2) { hidden_size = 9 } opset 14  "
            "const w0: f32[1, 1, 9] = [0.109359, 0.0379867, 0.0, 0.092799, -0.0620656, -0.0411963, 0.0766579, 0.0914844, -0.101712]  "
            "output o1, w0");
}

Test(ops_more, quantised) {
  ops_check("const i0: f32[6] = [-1e+09, -0.5, 0.5, 1.5, 2.5, 1e+09]  const i1: f32[] = 1.0  const i2: i8[] = 3  "
            "o0 = QuantizeLinear(i0, i1, i2) opset 21  const w0: i8[6] = [-128, 3, 3, 5, 5, 127]  output o0, w0");
  ops_check("const i0: f32[2, 2] = [7.5, 8.75, 2.0, 3.0]  const i1: f32[2] = [0.5, 2.0]  const i2: u8[2] = [1, 128]  "
            "o0 = QuantizeLinear(i0, i1, i2) { axis = 0 } opset 21  const w0: u8[2, 2] = [16, 19, 129, 130]  "
            "output o0, w0");
  ops_check("const i0: u8[1, 4] = [0, 1, 2, 255]  const i1: f32[1, 2] = [1.0, 0.5]  const i2: u8[1, 2] = [1, 2]  "
            "o0 = DequantizeLinear(i0, i1, i2) { axis = 1, block_size = 2 } opset 21  "
            "const w0: f32[1, 4] = [-1.0, 0.0, 0.0, 126.5]  output o0, w0");
  ops_check("const i0: f32[4] = [-1.0, 0.0, 2.5, 4.0]  o0, o1, o2 = DynamicQuantizeLinear(i0) opset 11  "
            "const w0: u8[4] = [0, 51, 178, 255]  const w1: f32[] = 0.0196078  const w2: u8[] = 51  "
            "output o0, w0, o1, w1, o2, w2");
  ops_check("const i0: u8[2, 3] = [202, 173, 99, 145, 50, 243]  const i1: f32[] = 0.5  const i2: u8[] = 100  "
            "const i3: u8[3, 2] = [229, 155, 196, 85, 97, 131]  const i4: f32[2] = [0.25, 0.5]  "
            "const i5: u8[2] = [128, 100]  const i6: f32[] = 60.0  const i7: u8[] = 9  "
            "o0 = QLinearMatMul(i0, i1, i2, i3, i4, i5, i6, i7) opset 21  const w0: u8[2, 2] = [41, 28, 2, 41]  "
            "output o0, w0");
  ops_check("const i0: u8[1, 1, 3, 3] = [67, 4, 101, 185, 66, 177, 153, 107, 185]  const i1: f32[] = 0.5  "
            "const i2: u8[] = 100  const i3: u8[2, 1, 2, 2] = [217, 243, 193, 23, 86, 135, 19, 107]  "
            "const i4: f32[] = 0.25  const i5: u8[] = 128  const i6: f32[] = 60.0  const i7: u8[] = 9  "
            "const i8: i32[2] = [100, -100]  o0 = QLinearConv(i0, i1, i2, i3, i4, i5, i6, i7, i8) opset 10  "
            "const w0: u8[1, 2, 2, 2] = [0, 0, 22, 4, 0, 22, 0, 8]  output o0, w0");
  ops_check("const i0: u8[2, 2] = [33, 141, 47, 69]  const i1: f32[] = 0.5  const i2: u8[] = 100  "
            "const i3: u8[2] = [77, 249]  const i4: f32[] = 0.25  const i5: u8[] = 128  const i6: f32[] = 1.3  "
            "const i7: u8[] = 9  o0 = com.microsoft:QLinearAdd(i0, i1, i2, i3, i4, i5, i6, i7)  "
            "const w0: u8[2, 2] = [0, 48, 0, 20]  output o0, w0");
}

Test(ops_more, losses) {
  ops_check("const i0: f32[3, 2] = [0.75, -0.5, 0.75, 0.25, 0.75, -0.25]  const i1: i64[3] = [0, 1, 1]  "
            "const i2: f32[2] = [1.0, 0.5]  o0 = NegativeLogLikelihoodLoss(i0, i1, i2) opset 13  "
            "const w0: f32[] = -0.375  output o0, w0");
  ops_check("const i0: f32[1, 2, 2] = [-1.0, 0.5, -0.5, -0.75]  const i1: i64[1, 2] = [7, 1]  "
            "o0 = NegativeLogLikelihoodLoss(i0, i1) { reduction = \"none\", ignore_index = 7 } opset 13  "
            "const w0: f32[1, 2] = [-0.0, 0.75]  output o0, w0");
  ops_check("const i0: f32[2, 3] = [0.5, 0.25, -0.5, -0.5, 1.0, -0.5]  const i1: i64[2] = [2, 0]  "
            "o0, o1 = SoftmaxCrossEntropyLoss(i0, i1) { reduction = \"sum\" } opset 13  const w0: f32[] = 3.6329  "
            "const w1: f32[2, 3] = [-0.763923, -1.01392, -1.76392, -1.86898, -0.368981, -1.86898]  "
            "output o0, w0, o1, w1");
}

Test(ops_more, contrib) {
  ops_check("const i0: f32[2, 2] = [0.5, -0.75, 0.75, -0.75]  const i1: f32[2] = [0.0, -1.0]  "
            "o0 = com.microsoft:BiasGelu(i0, i1)  const w0: f32[2, 2] = [0.345731, -0.0701035, 0.580029, -0.0701035]  "
            "output o0, w0");
  ops_check("const i0: f32[3] = [0.0, 0.75, -0.75]  o0 = com.microsoft:FastGelu(i0)  "
            "const w0: f32[3] = [0.0, 0.579961, -0.170039]  output o0, w0");
  ops_check("const i0: f32[3] = [-0.5, 0.5, 0.25]  o0 = com.microsoft:QuickGelu(i0)  "
            "const w0: f32[3] = [-0.149612, 0.350388, 0.1512]  output o0, w0");
  ops_check("const i0: f32[1, 2, 2] = [-0.25, 0.25, -0.0, 0.75]  const i1: f32[1, 2, 2] = [-0.5, 0.5, 0.25, 0.5]  "
            "const i2: f32[2] = [-0.25, 0.5]  const i3: f32[2] = [0.5, -0.25]  const i4: f32[2] = [-1.0, 1.0]  "
            "o0, _, _, o3 = com.microsoft:SkipLayerNormalization(i0, i1, i2, i3, i4)  "
            "const w0: f32[1, 2, 2] = [0.75, 0.25, 0.75, 0.25]  const w1: f32[1, 2, 2] = [-1.75, 1.75, -0.75, 2.25]  "
            "output o0, w0, o3, w1");
  ops_check("const i0: f32[1, 1, 2] = [0.5, -0.5]  const i1: f32[1, 1, 2] = [0.5, -0.5]  "
            "const i2: f32[2] = [-0.0, 0.75]  o0 = com.microsoft:SkipSimplifiedLayerNormalization(i0, i1, i2)  "
            "const w0: f32[1, 1, 2] = [-0.0, -0.75]  output o0, w0");
  ops_check("const i0: f32[3, 2] = [-0.0, -0.5, -0.5, -0.75, -0.5, -0.5]  const i1: f32[3, 1] = [-0.75, -0.75, -0.0]  "
            "o0 = com.microsoft:FusedMatMul(i0, i1) { transA = 1, alpha = 0.5 }  "
            "const w0: f32[2, 1] = [0.1875, 0.46875]  output o0, w0");
  ops_check("const i0: f32[1, 1, 2, 2] = [-0.5, 0.5, 0.75, -0.5]  const i1: f32[1, 1, 1, 1] = [0.25]  "
            "const i2: f32[1] = [0.0]  o0 = com.microsoft:FusedConv(i0, i1, i2) { activation = \"Relu\" }  "
            "const w0: f32[1, 1, 2, 2] = [0.0, 0.125, 0.1875, 0.0]  output o0, w0");
  ops_check("const i0: f32[1, 16] = [-0.75, -0.75, 0.75, -0.0, 0.5, -0.75, 0.25, 0.75, 0.75, -1.0, 0.0, -0.25, 0.5, -0.75, -0.5, 0.75]  "
            "const i1: u8[1, 1, 8] = [114, 109, 120, 250, 116, 192, 247, 249]  const i2: f32[1] = [0.5]  "
            "o0 = com.microsoft:MatMulNBits(i0, i1, i2) { K = 16, N = 1, bits = 4, block_size = 16 }  "
            "const w0: f32[1, 1] = [5.75]  output o0, w0");
  ops_check("const i0: f32[1, 2, 2] = [-1.0, -0.25, -0.75, -0.75]  "
            "const i1: f32[2, 6] = [0.25, 1.0, 0.25, 0.25, -0.25, 0.25, 0.5, 0.25, 0.5, 0.0, -0.5, 0.25]  "
            "const i2: f32[6] = [-0.0, -0.75, 0.25, 0.75, -0.75, 0.0]  const i3: i32[1, 2] = [1, 0]  "
            "o0 = com.microsoft:Attention(i0, i1, i2, i3) { num_heads = 1 }  "
            "const w0: f32[1, 2, 2] = [-0.375, -0.3125, -0.375, -0.3125]  output o0, w0");
  ops_check("const i0: f32[1, 1, 2] = [0.5, -0.25]  const i1: f32[1, 2, 2] = [-0.5, -0.25, 0.0, 0.25]  "
            "const i2: f32[1, 2, 2] = [0.0, -0.75, 0.75, 0.75]  "
            "o0 = com.microsoft:MultiHeadAttention(i0, i1, i2) { num_heads = 2 }  "
            "const w0: f32[1, 1, 2] = [0.421632, -0.0468141]  output o0, w0");

  ops_check("const i0: f32[2, 1, 8] = [-0.75, -0.75, -0.5, -1.0, -0.5, -0.75, -0.0, -0.25, 0.25, -0.5, -1.0, -0.25, 0.5, -0.5, -0.25, 0.5]  "
            "const i1: f32[2, 1, 8] = [-0.25, 0.75, 0.75, -0.5, 0.5, -0.5, -0.75, -0.0, 0.25, 0.75, -0.75, 0.5, -0.0, -0.75, 1.0, 0.5]  "
            "const i2: f32[2, 1, 8] = [-0.75, 0.75, -0.75, -0.75, -0.25, 1.0, -1.0, 0.75, 0.25, -0.75, 0.25, -0.0, 0.25, 0.5, 0.25, 1.0]  "
            "const i3: f32[2, 1, 2, 8] = [-0.75, 0.75, -0.25, 0.5, 0.75, 1.0, -0.5, -0.0, 1.0, 1.0, -0.25, 1.0, -0.25, -0.25, 0.5, -0.0, -0.0, -0.25, -0.25, -0.75, -1.0, 0.5, 0.25, 0.25, 0.5, -0.5, -0.5, -0.5, -0.5, 0.5, -0.25, -0.25]  "
            "const i4: f32[2, 1, 2, 8] = [0.25, -0.75, -0.75, 0.5, 0.5, -0.5, 0.25, -1.0, -0.25, 0.25, -0.5, -0.25, 0.25, 0.25, -0.75, 0.5, -0.75, 1.0, -0.5, -0.5, -0.5, 1.0, -0.5, 0.25, 1.0, 1.0, -1.0, 0.0, 0.25, 0.5, -0.25, -0.25]  "
            "const i5: i32[2] = [2, 1]  const i6: i32[] = 3  "
            "o0, o1, o2 = com.microsoft:GroupQueryAttention(i0, i1, i2, i3, i4, i5, i6) { num_heads = 1, kv_num_heads = 1 }  "
            "const w0: f32[2, 1, 8] = [-0.340842, 0.195732, -0.69053, -0.268287, 0.0866037, 0.386262, -0.577757, 0.182647, -0.178674, 0.000180008, -0.0715057, -0.214337, -0.0715057, 0.714337, -0.0715057, 0.678494]  "
            "const w1: f32[2, 1, 3, 8] = [-0.75, 0.75, -0.25, 0.5, 0.75, 1.0, -0.5, -0.0, 1.0, 1.0, -0.25, 1.0, -0.25, -0.25, 0.5, -0.0, -0.25, 0.75, 0.75, -0.5, 0.5, -0.5, -0.75, -0.0, -0.0, -0.25, -0.25, -0.75, -1.0, 0.5, 0.25, 0.25, 0.25, 0.75, -0.75, 0.5, -0.0, -0.75, 1.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]  "
            "const w2: f32[2, 1, 3, 8] = [0.25, -0.75, -0.75, 0.5, 0.5, -0.5, 0.25, -1.0, -0.25, 0.25, -0.5, -0.25, 0.25, 0.25, -0.75, 0.5, -0.75, 0.75, -0.75, -0.75, -0.25, 1.0, -1.0, 0.75, -0.75, 1.0, -0.5, -0.5, -0.5, 1.0, -0.5, 0.25, 0.25, -0.75, 0.25, -0.0, 0.25, 0.5, 0.25, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]  "
            "output o0, w0, o1, w1, o2, w2");
}

Test(ops_more, sequences) {
  ops_check("const i0: f32[1, 2, 2] = [-0.75, -0.5, -0.75, 0.75]  const i1: f32[1, 2, 2] = [0.75, -1.0, -0.25, -0.5]  "
            "const i2: f32[1, 2, 1] = [-0.0, 0.75]  const i3: f32[1, 1, 2, 1] = [-0.75, -0.75]  "
            "const i4: f32[1, 2, 1] = [-0.0, 0.0]  const i5: f32[1, 2, 1] = [0.5, -0.0]  "
            "o0, o1 = LinearAttention(i0, i1, i2, i3, i4, i5) { q_num_heads = 1, kv_num_heads = 1 } opset 27  "
            "const w0: f32[1, 2, 1] = [0.667056, 0.0870073]  const w1: f32[1, 1, 2, 1] = [-0.820312, -0.65625]  "
            "output o0, w0, o1, w1");
  ops_check("const i0: f32[1, 1, 2] = [-0.75, -0.25]  const i1: f32[1, 1, 3] = [1.0, 0.5, -0.75]  "
            "const i2: f32[1] = [0.5]  const i3: f32[1, 1, 2] = [-0.5, 0.5]  "
            "o0, o1 = CausalConvWithState(i0, i1, i2, i3) { activation = \"silu\" } opset 27  "
            "const w0: f32[1, 1, 2] = [0.562772, 0.562772]  const w1: f32[1, 1, 2] = [-0.75, -0.25]  "
            "output o0, w0, o1, w1");
  ops_check("const i0: f32[3] = [-1.0, 0.75, -0.75]  const i1: f32[3] = [-0.0, 0.25, 0.0]  "
            "o0 = SwiGLU(i0, i1) { alpha = 0.5 } opset 28  const w0: f32[3] = [0.0, 0.111125, -0.0]  output o0, w0");
}

Test(ops_more, optimisers) {
  ops_check("const r: f32[] = 0.5  const t: i64[] = 0  const x: f32[2] = [1.0, 2.0]  const d: f32[2] = [-1.0, 3.0]  const v: f32[2] = [2.0, 1.0]"
            "  y, z = ai.onnx.preview.training:Momentum(r, t, x, d, v) { norm_coefficient = 0.0, alpha = 0.5, beta = 0.25, mode = \"standard\" }"
            "  const w: f32[2] = [1.0, 0.25]  const u: f32[2] = [0.0, 3.5]  output y, w, z, u");
  ops_check("const r: f32[] = 0.5  const t: i64[] = 1  const x: f32[1] = [1.0]  const d: f32[1] = [3.0]  const h: f32[1] = [7.0]"
            "  y, z = ai.onnx.preview.training:Adagrad(r, t, x, d, h) { epsilon = 0.0 }  const w: f32[1] = [0.625]  const u: f32[1] = [16.0]  output y, w, z, u");
}

Test(ops_more, control_flow) {
  const char *x = "const x: f32[2] = [1.0, 2.0]  ";
  static const char *const rows[] = {
      "const c: bool[] = false  y = If(c) { then_branch = graph t { a = Neg(x) output a }, else_branch = graph e { b = Add(x, x) output b } }"
      "  const w: f32[2] = [2.0, 4.0]  output y, w",
      "const n: i64[] = 3  y, z = Loop(n, _, x) { body = graph b { input i: i64[] input c: bool[] input v: f32[2] s = Add(v, x) d = Identity(c) output d, s, v } }"
      "  const w: f32[2] = [4.0, 8.0]  const u: f32[3, 2] = [1.0, 2.0, 2.0, 4.0, 3.0, 6.0]  output y, w, z, u",
      "const n: i64[] = 0  y, z = Loop(n, _, x) { body = graph b { input i: i64[] input c: bool[] input v: f32[2] s = Add(v, x) d = Identity(c) output d, s, v } }"
      "  const u: f32[0, 2] = []  output y, x, z, u",
      "const h: f32[] = 9.0  const o: f32[] = 1.0  const yes: bool[] = true  y, z = Loop(_, yes, o, x) {"
      "  body = graph b { input i: i64[] input c: bool[] input k: f32[] input v: f32[2] m = Add(k, k) d = Less(m, h) s = Mul(v, m) output d, m, s } }"
      "  const u: f32[] = 16.0  const w: f32[2] = [1024.0, 2048.0]  output y, u, z, w",
      "const s: f32[] = 0.0  y, z = Scan(s, x) { num_scan_inputs = 1, scan_input_directions = [1],"
      "  body = graph b { input p: f32[] input e: f32[] t = Sub(e, p) output t, t } }  const u: f32[] = -1.0  const w: f32[2] = [2.0, -1.0]  output y, u, z, w",
  };
  char text[1024];
  for (int i = 0; i < IR_COUNT(rows); i++) {
    snprintf(text, sizeof text, "%s%s", x, rows[i]);
    ops_check(text);
  }
}

Test(ops_more, faults) {
  static const struct {
    const char *text;
    tn_status status;
    const char *part;
  } rows[] = {
      {"const q: f32[1, 2, 4] = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]  y = Attention(q, q, q) opset 23  output y", TN_EINPUT, "need q_num_heads"},
      {"const q: f32[1, 3, 1, 1] = [1.0, 1.0, 1.0]  const k: f32[1, 2, 1, 1] = [1.0, 1.0]  y = Attention(q, k, k) opset 23  output y", TN_EINPUT, "3 heads of queries, 2 of keys"},
      {"const x: f32[1, 1, 1] = [1.0]  const w: f32[1, 3, 1] = [1.0, 1.0, 1.0]  y = LSTM(x, w, w) opset 14  output y", TN_EINPUT, "has extent 3, not 4"},
      {"const x: f32[1, 1, 1] = [1.0]  const w: f32[1, 1, 1] = [1.0]  y = RNN(x, w, w) { activations = [\"Cube\"] } opset 14  output y", TN_EUNSUPPORTED, "activation 'Cube'"},
      {"const x: f32[1] = [1.0]  const s: f32[] = 1.0  y = QuantizeLinear(x, s) { output_dtype = 21 } opset 21  output y", TN_EUNSUPPORTED, "the element type uint4"},
      {"const x: f32[2, 2] = [1.0, 1.0, 1.0, 1.0]  const s: f32[3] = [1.0, 1.0, 1.0]  y = QuantizeLinear(x, s) opset 13  output y", TN_EINPUT, "3 scales for extent 2"},
      {"const x: f32[1, 2] = [1.0, 1.0]  const t: i64[2] = [0, 0]  y = NegativeLogLikelihoodLoss(x, t) opset 13  output y", TN_EINPUT, "has extent 2, not 1"},
      {"input c: bool[]  const x: f32[2] = [1.0, 2.0]  const z: f32[1] = [1.0]  y = If(c) { then_branch = graph t { a = Neg(x) output a }, else_branch = graph e { b = Neg(z) output b } }  output y",
       TN_EUNSUPPORTED, "branches of an If differ"},
      {"input n: i64[]  const x: f32[1] = [1.0]  y, z = Loop(n, _, x) { body = graph b { input i: i64[] input c: bool[] input v: f32[1] d = Identity(c) s = Neg(v) output d, s, v } }  output y, z",
       TN_EUNSUPPORTED, "nothing says how many turns there are at most"},
      {"input n: i64[]  const x: f32[1] = [1.0]  y = Loop(n, _, x) { body = graph b { input i: i64[] input c: bool[] input v: f32[1] d = Identity(c) s = Concat(v, v) {axis = 0} output d, s } }  output y",
       TN_EUNSUPPORTED, "changes the type or shape of"},
      {"const x: f32[1] = [1.0]  y = Loop(_, _, x) { body = graph b { input i: i64[] input c: bool[] input v: f32[1] d = Identity(c) s = Neg(v) output d, s } }  output y", TN_EUNSUPPORTED, "grows beyond"},
  };
  for (int i = 0; i < IR_COUNT(rows); i++) ops_refused(rows[i].text, rows[i].status, rows[i].part);
}
