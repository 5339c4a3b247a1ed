/* Every op of the table that lets gradients pass, against differences; an op without a case here,
 * and without a reason to have none, fails. */
#include "grad_help.h"
#include <stdio.h>

#define A "input a: f64[2, 3] "
#define AB "input a: f64[2, 3] input b: f64[2, 3] "
#define ONE(OP) {.op = OP, .text = A "y = " OP "(a)"}
#define TWO(OP) {.op = OP, .text = AB "y = " OP "(a, b)"}, {.op = OP, .text = "input a: f64[3, 1] input b: f64[2, 1, 2] y = " OP "(a, b)"}

static const grad_case elementwise[] = {
    ONE("Abs"), ONE("Neg"), {.op = "Sqrt", .text = A "y = Sqrt(a)", 0.2, 2}, ONE("Floor"), ONE("Ceil"), ONE("Round"), ONE("Exp"), {.op = "Log", .text = A "y = Log(a)", 0.2, 2},
    ONE("Sin"), ONE("Cos"), ONE("Tan"), {.op = "Asin", .text = A "y = Asin(a)", -0.9, 0.9}, {.op = "Acos", .text = A "y = Acos(a)", -0.9, 0.9}, ONE("Atan"), ONE("Sinh"), ONE("Cosh"),
    ONE("Tanh"), ONE("Asinh"), {.op = "Acosh", .text = A "y = Acosh(a)", 1.2, 3}, {.op = "Atanh", .text = A "y = Atanh(a)", -0.9, 0.9}, ONE("Erf"), ONE("Sigmoid"),
    {.op = "Reciprocal", .text = A "y = Reciprocal(a)", 0.3, 2}, ONE("Sign"), ONE("Relu"), {.op = "LeakyRelu", .text = A "y = LeakyRelu(a) { alpha = 0.2 }"},
    {.op = "ThresholdedRelu", .text = A "y = ThresholdedRelu(a) { alpha = 0.1 }"}, {.op = "Elu", .text = A "y = Elu(a) { alpha = 1.5 }"}, ONE("Selu"), {.op = "Celu", .text = A "y = Celu(a) { alpha = 0.7 }"},
    ONE("Gelu"), {.op = "Gelu", .text = A "y = Gelu(a) { approximate = \"tanh\" }"}, {.op = "HardSigmoid", .text = A "y = HardSigmoid(a) { alpha = 0.6 }", -2, 2}, {.op = "HardSwish", .text = A "y = HardSwish(a)", -4, 4},
    {.op = "Swish", .text = A "y = Swish(a) { alpha = 1.3 }"}, ONE("Mish"), ONE("Softplus"), ONE("Softsign"), {.op = "Shrink", .text = A "y = Shrink(a) { lambd = 0.3, bias = 0.2 }"},
    TWO("Add"), TWO("Sub"), TWO("Mul"), {.op = "Div", .text = AB "y = Div(a, b)", 0.3, 2}, {.op = "Div", .text = "input a: f64[3, 1] input b: f64[2, 1, 2] y = Div(a, b)", 0.3, 2},
    {.op = "Mod", .text = A "input b: f64[3] y = Mod(a, b) { fmod = 1 }", 0.3, 4}, {.op = "Mod", .text = A "input b: f64[3] y = Mod(a, b)", 0.3, 4}, {.op = "PRelu", .text = A "input b: f64[3] y = PRelu(a, b)"},
    TWO("Min"), TWO("Max"), {.op = "Max", .text = AB "input c: f64[3] y = Max(a, b, c)"}, TWO("Sum"), TWO("Mean"),
    {.op = "Where", .text = AB "const c: bool[3] = [true, false, true] y = Where(c, a, b)"}, {.op = "Pow", .text = AB "y = Pow(a, b)", 0.3, 2}, {.op = "Pow", .text = A "const p: f64[] = 3.0 y = Pow(a, p)"},
    {.op = "Pow", .text = A "const p: i64[3] = [2, 3, 0] y = Pow(a, p)", 0.2, 1}, {.op = "Clip", .text = A "input l: f64[] const h: f64[] = 0.5 y = Clip(a, l, h)"},
    {.op = "Clip", .text = A "y = Clip(a) { min = -0.5, max = 0.25 } opset 6"}, {.op = "Cast", .text = A "s = Cast(a) { to = 11 } y = Mul(s, s)"}, {.op = "CastLike", .text = A "const t: f64[] = 1.0 s = CastLike(a, t) y = Mul(s, s)"},
    {.op = "Dropout", .text = A "y = Dropout(a)"}, {.op = "Identity", .text = A "y = Identity(a)"}, {.op = "tenon:Checkpoint", .text = A "s = Sin(a) t = tenon:Checkpoint(s) u = Exp(t) y = Mul(u, s)"},
    {.op = "tenon:Again", .text = AB "y = tenon:Again(a, b)"},
};

static const grad_case movement[] = {
    {.op = "Reshape", .text = A "const s: i64[2] = [3, -1] y = Reshape(a, s)"}, {.op = "Flatten", .text = "input a: f64[2, 3, 2] y = Flatten(a)"}, {.op = "Squeeze", .text = "input a: f64[2, 1, 3] y = Squeeze(a)"},
    {.op = "Unsqueeze", .text = A "const s: i64[1] = [1] y = Unsqueeze(a, s)"}, {.op = "Transpose", .text = "input a: f64[2, 3, 2] y = Transpose(a) { perm = [1, 2, 0] }"}, {.op = "Transpose", .text = A "y = Transpose(a)"},
    {.op = "Concat", .text = A "input b: f64[2, 1] s = Concat(a, b, a) { axis = 1 } y = Mul(s, s)"}, {.op = "Split", .text = "input a: f64[5, 2] u, v = Split(a) { axis = 0, num_outputs = 2 } w = Exp(u) y = Mul(v, v) output w, y"},
    {.op = "Split", .text = "input a: f64[5, 2] u, v = Split(a) { axis = 0, num_outputs = 2 } y = Mul(v, v)"},
    {.op = "Slice", .text = "input a: f64[7, 4] const s: i64[2] = [-2, 1] const e: i64[2] = [-9, 3] const x: i64[2] = [0, 1] const t: i64[2] = [-2, 1] v = Slice(a, s, e, x, t) y = Mul(v, v)"},
    {.op = "Slice", .text = "input a: f64[7] const s: i64[1] = [1] const e: i64[1] = [7] const x: i64[1] = [0] const t: i64[1] = [3] v = Slice(a, s, e, x, t) y = Mul(v, v)"},
    {.op = "tenon:PutSlice", .text = A "v = tenon:PutSlice(a) { starts = [3, 0], steps = [-2, 2], shape = [5, 6] } y = Mul(v, v)"},
    {.op = "Pad", .text = A "input c: f64[] const p: i64[4] = [1, -1, 2, 1] v = Pad(a, p, c) y = Mul(v, v)"}, {.op = "Pad", .text = A "const p: i64[4] = [1, 2, 0, 1] v = Pad(a, p) { mode = \"reflect\" } y = Mul(v, v)"},
    {.op = "Pad", .text = A "const p: i64[4] = [1, 2, 0, 1] v = Pad(a, p) { mode = \"edge\" } y = Mul(v, v)"}, {.op = "Pad", .text = A "const p: i64[4] = [1, 2, 0, 1] v = Pad(a, p) { mode = \"wrap\" } y = Mul(v, v)"},
    {.op = "Expand", .text = "input a: f64[3, 1] const s: i64[3] = [2, 1, 2] v = Expand(a, s) y = Mul(v, v)"}, {.op = "Tile", .text = A "const s: i64[2] = [2, 3] v = Tile(a, s) y = Mul(v, v)"},
    {.op = "Gather", .text = "input a: f64[2, 4, 3] const i: i64[2, 2] = [1, 3, -1, 1] v = Gather(a, i) { axis = 1 } y = Mul(v, v)"},
    {.op = "Gather", .text = "input a: f64[4, 2] const i: i64[3] = [1, 3, 1] v = Gather(a, i) y = Mul(v, v)"}, {.op = "Gather", .text = "input a: f64[2, 3] const i: i64[] = 1 v = Gather(a, i) { axis = 1 } y = Mul(v, v)"},
    {.op = "GatherElements", .text = A "const i: i64[2, 2] = [1, 1, 2, 0] v = GatherElements(a, i) { axis = 1 } y = Mul(v, v)"},
    {.op = "GatherND", .text = "input a: f64[2, 3, 2] const i: i64[3, 2] = [0, 1, 1, 2, 0, 1] v = GatherND(a, i) y = Mul(v, v)"},
    {.op = "GatherND", .text = "input a: f64[2, 3, 2] const i: i64[2, 1] = [1, 2] v = GatherND(a, i) { batch_dims = 1 } y = Mul(v, v)"},
    {.op = "OneHot", .text = "input a: f64[2] const i: i64[3] = [0, 2, -1] const d: i64[] = 4 v = OneHot(i, d, a) y = Mul(v, v)"},
    {.op = "TensorScatter", .text = "input a: f64[2, 4, 3] const u: f64[2, 1, 3] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] const w: i64[2] = [1, 3] v = TensorScatter(a, u, w) y = Mul(v, v)"},
    {.op = "ScatterElements", .text = A "input b: f64[2, 2] const i: i64[2, 2] = [2, 1, 0, 1] v = ScatterElements(a, i, b) { axis = 1 } y = Mul(v, v)"},
    {.op = "ScatterElements", .text = A "input b: f64[2, 2] const i: i64[2, 2] = [1, 1, 0, 1] v = ScatterElements(a, i, b) { axis = 1, reduction = \"add\" } y = Mul(v, v)"},
    {.op = "ScatterElements", .text = A "input b: f64[2, 2] const i: i64[2, 2] = [1, 1, 0, 1] v = ScatterElements(a, i, b) { axis = 1, reduction = \"mul\" } y = Mul(v, v)", 0.5, 2},
    {.op = "ScatterElements", .text = A "input b: f64[2, 2] const i: i64[2, 2] = [1, 1, 0, 1] v = ScatterElements(a, i, b) { axis = 1, reduction = \"max\" } y = Mul(v, v)"},
    {.op = "Scatter", .text = A "input b: f64[1, 3] const i: i64[1, 3] = [1, 0, 1] v = Scatter(a, i, b) y = Mul(v, v)"},
    {.op = "ScatterND", .text = "input a: f64[4, 2] input b: f64[2, 2] const i: i64[2, 1] = [2, 0] v = ScatterND(a, i, b) y = Mul(v, v)"},
    {.op = "ScatterND", .text = "input a: f64[4, 2] input b: f64[3, 2] const i: i64[3, 1] = [2, 0, 2] v = ScatterND(a, i, b) { reduction = \"min\" } y = Mul(v, v)"},
    {.op = "DepthToSpace", .text = "input a: f64[1, 8, 1, 2] v = DepthToSpace(a) { blocksize = 2 } y = Mul(v, v)"}, {.op = "SpaceToDepth", .text = "input a: f64[1, 2, 2, 4] v = SpaceToDepth(a) { blocksize = 2 } y = Mul(v, v)"},
    {.op = "Trilu", .text = "input a: f64[2, 3, 3] v = Trilu(a) { upper = 0 } y = Mul(v, v)"}, {.op = "CenterCropPad", .text = "input a: f64[3, 4] const s: i64[2] = [5, 1] v = CenterCropPad(a, s) y = Mul(v, v)"},
    {.op = "ReverseSequence", .text = "input a: f64[4, 2] const l: i64[2] = [3, 2] v = ReverseSequence(a, l) y = Mul(v, v)"},
    {.op = "TopK", .text = "input a: f64[2, 5] const k: i64[1] = [2] v, i = TopK(a, k) y = Mul(v, v)"},
    {.op = "Compress", .text = A "const c: bool[3] = [true, false, true] v = Compress(a, c) { axis = 1 } y = Mul(v, v)"},
};

#define REDUCED(OP) {.op = OP, .text = "input a: f64[2, 3, 2] const x: i64[1] = [1] v = " OP "(a, x) y = Mul(v, v)"}, {.op = OP, .text = A "v = " OP "(a) { keepdims = 0 } y = Exp(v)"}
#define POSITIVE(OP) {.op = OP, .text = "input a: f64[2, 3, 2] const x: i64[2] = [0, -1] v = " OP "(a, x) { keepdims = 0 } y = Mul(v, v)", .lo = 0.3, .hi = 1.5}
static const grad_case reductions[] = {
    REDUCED("ReduceSum"), REDUCED("ReduceMean"), REDUCED("ReduceMax"), REDUCED("ReduceMin"), REDUCED("ReduceProd"), REDUCED("ReduceL1"), REDUCED("ReduceL2"), REDUCED("ReduceSumSquare"),
    POSITIVE("ReduceLogSum"), REDUCED("ReduceLogSumExp"), {.op = "CumSum", .text = A "const x: i64[] = 1 v = CumSum(a, x) { exclusive = 1 } y = Mul(v, v)"},
    {.op = "CumSum", .text = A "const x: i64[] = 0 v = CumSum(a, x) { reverse = 1 } y = Mul(v, v)"}, {.op = "CumProd", .text = A "const x: i64[] = 1 v = CumProd(a, x) y = Mul(v, v)"},
    {.op = "CumProd", .text = A "const x: i64[] = 1 v = CumProd(a, x) { exclusive = 1, reverse = 1 } y = Mul(v, v)"},
    {.op = "Softmax", .text = "input a: f64[2, 3, 2] y = Softmax(a) { axis = 1 }"}, {.op = "Softmax", .text = "input a: f64[2, 3, 2] y = Softmax(a) { axis = 1 } opset 11"},
    {.op = "LogSoftmax", .text = "input a: f64[2, 3, 2] y = LogSoftmax(a)"}, {.op = "Hardmax", .text = A "y = Hardmax(a)"},
};

#define WINDOW "kernel_shape = [3, 2], strides = [2, 1], pads = [1, 0, 1, 1]"
static const grad_case contractions[] = {
    {.op = "MatMul", .text = "input a: f64[2, 3] input b: f64[3, 4] v = MatMul(a, b) y = Mul(v, v)"}, {.op = "MatMul", .text = "input a: f64[2, 2, 3] input b: f64[3, 4] y = MatMul(a, b)"},
    {.op = "MatMul", .text = "input a: f64[2, 1, 2, 3] input b: f64[3, 3, 2] y = MatMul(a, b)"}, {.op = "MatMul", .text = "input a: f64[3] input b: f64[2, 3, 2] y = MatMul(a, b)"},
    {.op = "MatMul", .text = "input a: f64[2, 2, 3] input b: f64[3] y = MatMul(a, b)"}, {.op = "MatMul", .text = "input a: f64[3] input b: f64[3] y = MatMul(a, b)"},
    {.op = "tenon:MatMul", .text = "input a: f64[2, 3, 2] input b: f64[4, 3] y = tenon:MatMul(a, b) { transA = 1, transB = 1 }"},
    {.op = "Gemm", .text = "input a: f64[3, 2] input b: f64[4, 3] input c: f64[4] y = Gemm(a, b, c) { transA = 1, transB = 1, alpha = 0.5, beta = 2.0 }"},
    {.op = "Gemm", .text = "input a: f64[2, 3] input b: f64[3, 4] input c: f64[2, 1] y = Gemm(a, b, c)"},
    {.op = "Conv", .text = "input x: f64[2, 2, 5, 4] input w: f64[3, 2, 3, 2] input b: f64[3] y = Conv(x, w, b) { strides = [2, 1], pads = [1, 0, 1, 1] }"},
    {.op = "Conv", .text = "input x: f64[1, 4, 6] input w: f64[4, 2, 2] y = Conv(x, w) { group = 2, dilations = [2], strides = [2] }"},
    {.op = "Conv", .text = "input x: f64[1, 2, 3, 3, 2] input w: f64[2, 1, 2, 2, 1] y = Conv(x, w) { group = 2, auto_pad = \"SAME_UPPER\" }"},
    {.op = "ConvTranspose", .text = "input x: f64[1, 2, 3, 2] input w: f64[2, 2, 3, 2] input b: f64[2] y = ConvTranspose(x, w, b) { strides = [2, 1], pads = [1, 0, 1, 0], output_padding = [1, 0] }"},
    {.op = "ConvTranspose", .text = "input x: f64[1, 2, 3] input w: f64[2, 1, 2] y = ConvTranspose(x, w) { group = 2, dilations = [2] }"},
    {.op = "tenon:ConvWeights", .text = "input x: f64[2, 2, 5, 4] input v: f64[2, 3, 3, 4] y = tenon:ConvWeights(x, v) { " WINDOW " }"},
    {.op = "MaxPool", .text = "input a: f64[1, 2, 5, 4] v = MaxPool(a) { " WINDOW " } y = Mul(v, v)"}, {.op = "MaxPool", .text = "input a: f64[1, 2, 4, 4] v = MaxPool(a) { kernel_shape = [2, 2], strides = [2, 2], storage_order = 1 } y = Mul(v, v)"},
    {.op = "MaxPool", .text = "input a: f64[1, 1, 7] v = MaxPool(a) { kernel_shape = [3], dilations = [2], strides = [2], ceil_mode = 1 } y = Mul(v, v)"},
    {.op = "AveragePool", .text = "input a: f64[1, 2, 5, 4] v = AveragePool(a) { " WINDOW " } y = Mul(v, v)"}, {.op = "AveragePool", .text = "input a: f64[1, 1, 5] v = AveragePool(a) { kernel_shape = [3], pads = [1, 1], count_include_pad = 1 } y = Mul(v, v)"},
    {.op = "LpPool", .text = "input a: f64[1, 2, 5, 4] y = LpPool(a) { " WINDOW " }"}, {.op = "LpPool", .text = "input a: f64[1, 1, 6] y = LpPool(a) { kernel_shape = [2], p = 3 }"},
    {.op = "tenon:SumPool", .text = "input a: f64[1, 2, 5, 4] v = tenon:SumPool(a) { " WINDOW " } y = Mul(v, v)"},
    {.op = "tenon:PoolBack", .text = "input a: f64[1, 2, 3, 4] v = tenon:PoolBack(a) { " WINDOW ", shape = [1, 2, 5, 4], average = 1 } y = Mul(v, v)"},
    {.op = "GlobalMaxPool", .text = "input a: f64[2, 2, 2, 3] v = GlobalMaxPool(a) y = Mul(v, v)"}, {.op = "GlobalAveragePool", .text = "input a: f64[2, 2, 2, 3] v = GlobalAveragePool(a) y = Mul(v, v)"},
    {.op = "GlobalLpPool", .text = "input a: f64[2, 2, 2, 3] y = GlobalLpPool(a)"},
    {.op = "MaxUnpool", .text = "input a: f64[1, 1, 2, 2] const i: i64[1, 1, 2, 2] = [5, 2, 8, 15] v = MaxUnpool(a, i) { kernel_shape = [2, 2], strides = [2, 2] } y = Mul(v, v)"},
};

#define STATS " input s: f64[3] input b: f64[3] const m: f64[3] = [0.1, -0.2, 0.3] const v: f64[3] = [1.1, 0.7, 0.9] "
static const grad_case norms[] = {
    {.op = "BatchNormalization", .text = "input a: f64[2, 3, 2]" STATS "y = BatchNormalization(a, s, b, m, v)"},
    {.op = "tenon:BatchNormalizationTraining", .text = "input a: f64[2, 3, 2]" STATS "y, p, q = BatchNormalization(a, s, b, m, v) { training_mode = 1, momentum = 0.7 } output y, p, q"},
    {.op = "tenon:BatchNormalizationTraining", .text = "input a: f64[3, 3]" STATS "y = BatchNormalization(a, s, b, m, v) { training_mode = 1 }"},
    {.op = "LayerNormalization", .text = "input a: f64[2, 3, 2] input s: f64[2] input b: f64[2] y = LayerNormalization(a, s, b)", 0, 0, 0},
    {.op = "LayerNormalization", .text = "input a: f64[2, 3, 2] input s: f64[3, 2] y, m, i = LayerNormalization(a, s) { axis = 1, stash_type = 11 } output y, m, i"},
    {.op = "RMSNormalization", .text = "input a: f64[2, 3] input s: f64[3] y = RMSNormalization(a, s)"}, {.op = "InstanceNormalization", .text = "input a: f64[2, 3, 4] input s: f64[3] input b: f64[3] y = InstanceNormalization(a, s, b)"},
    {.op = "GroupNormalization", .text = "input a: f64[2, 4, 3] input s: f64[4] input b: f64[4] y = GroupNormalization(a, s, b) { num_groups = 2 }"},
    {.op = "GroupNormalization", .text = "input a: f64[2, 4, 3] input s: f64[2] input b: f64[2] y = GroupNormalization(a, s, b) { num_groups = 2 } opset 18"},
    {.op = "LpNormalization", .text = A "y = LpNormalization(a)"}, {.op = "LpNormalization", .text = A "y = LpNormalization(a) { p = 1, axis = 0 }"},
    {.op = "MeanVarianceNormalization", .text = "input a: f64[2, 3, 2, 2] y = MeanVarianceNormalization(a)"}, {.op = "LRN", .text = "input a: f64[2, 4, 3] y = LRN(a) { size = 3, alpha = 0.5 }"},
    {.op = "NegativeLogLikelihoodLoss", .text = "input a: f64[3, 4] input w: f64[4] const t: i64[3] = [1, 3, 0] y = NegativeLogLikelihoodLoss(a, t, w)", 0.2, 1},
    {.op = "SoftmaxCrossEntropyLoss", .text = "input a: f64[3, 4] const t: i64[3] = [1, 3, 0] y = SoftmaxCrossEntropyLoss(a, t)"},
    {.op = "SoftmaxCrossEntropyLoss", .text = "input a: f64[2, 3, 2] const t: i64[2, 2] = [1, 2, 0, 1] y, p = SoftmaxCrossEntropyLoss(a, t) { ignore_index = 2, reduction = \"sum\" } output y, p"},
};

#define X4 "input x: f64[3, 2, 2] "
#define STATE "input h: f64[1, 2, 3] "
static const grad_case composites[] = {
    {.op = "Einsum", .text = "input a: f64[2, 3, 2] input b: f64[3, 2, 2] v = Einsum(a, b) { equation = \"bij,ijk->bk\" } y = Mul(v, v)"},
    {.op = "Einsum", .text = "input a: f64[2, 3] input b: f64[3, 3] input c: f64[2, 4] y = Einsum(a, b, c) { equation = \"ij,jj,ik->i\" }"},
    {.op = "Einsum", .text = "input a: f64[2, 1, 3] input b: f64[4, 3] y = Einsum(a, b) { equation = \"...i,...i->...\" }"},
    {.op = "RNN", .text = X4 "input w: f64[1, 3, 2] input r: f64[1, 3, 3] input b: f64[1, 6] " STATE "y, z = RNN(x, w, r, b, _, h) output y, z"},
    {.op = "RNN", .text = X4 "input w: f64[2, 3, 2] input r: f64[2, 3, 3] const l: i32[2] = [3, 2] y = RNN(x, w, r, _, l) { direction = \"bidirectional\", activations = [\"Tanh\", \"Softsign\"], clip = 3.0 }"},
    {.op = "tenon:RNNSteps", .text = "input p: f64[1, 2, 2, 3] input r: f64[1, 3, 3] y = tenon:RNNSteps(p, r) { direction = \"reverse\" }"},
    {.op = "GRU", .text = X4 "input w: f64[1, 9, 2] input r: f64[1, 9, 3] input b: f64[1, 18] " STATE "y, z = GRU(x, w, r, b, _, h) { linear_before_reset = 1 } output y, z"},
    {.op = "GRU", .text = X4 "input w: f64[1, 9, 2] input r: f64[1, 9, 3] y = GRU(x, w, r) { layout = 1, direction = \"reverse\" }"},
    {.op = "tenon:GRUSteps", .text = "input p: f64[1, 2, 2, 9] input r: f64[1, 3, 9] y = tenon:GRUSteps(p, r)"},
    {.op = "LSTM", .text = X4 "input w: f64[1, 12, 2] input r: f64[1, 12, 3] input b: f64[1, 24] " STATE "input c: f64[1, 2, 3] input p: f64[1, 9] y, z, q = LSTM(x, w, r, b, _, h, c, p) output y, z, q"},
    {.op = "LSTM", .text = X4 "input w: f64[2, 12, 2] input r: f64[2, 12, 3] const l: i32[2] = [1, 3] y = LSTM(x, w, r, _, l) { direction = \"bidirectional\", input_forget = 1 }"},
    {.op = "tenon:LSTMSteps", .text = "input p: f64[1, 2, 2, 12] input r: f64[1, 3, 12] y = tenon:LSTMSteps(p, r)"},
    {.op = "Attention", .text = "input q: f64[1, 2, 3, 2] input k: f64[1, 1, 4, 2] input v: f64[1, 1, 4, 3] input m: f64[3, 4] y = Attention(q, k, v, m) { softcap = 2.0 }"},
    {.op = "Attention", .text = "input q: f64[2, 3, 4] input k: f64[2, 3, 4] input v: f64[2, 3, 4] y = Attention(q, k, v) { is_causal = 1, q_num_heads = 2, kv_num_heads = 2 }"},
    {.op = "tenon:AttentionSoftmax", .text = "input s: f64[1, 2, 3, 4] input m: f64[1, 1, 3] y, z = tenon:AttentionSoftmax(s, m) { pads_mask = 1, softcap = 1.5, show = 1 } output y, z"},
    {.op = "RotaryEmbedding", .text = "input x: f64[1, 2, 2, 4] const c: f64[2, 2] = [0.8, 0.6, 0.3, 0.2] const s: f64[2, 2] = [0.6, 0.8, 0.9, 0.7] const p: i64[1, 2] = [1, 0] v = RotaryEmbedding(x, c, s, p) y = Mul(v, v)"},
    {.op = "com.microsoft:RotaryEmbedding", .text = "input x: f64[1, 2, 2, 4] const c: f64[2, 2] = [0.8, 0.6, 0.3, 0.2] const s: f64[2, 2] = [0.6, 0.8, 0.9, 0.7] const p: i64[1, 2] = [1, 0] v = com.microsoft:RotaryEmbedding(x, p, c, s) y = Mul(v, v)"},
    {.op = "Resize", .text = "input a: f64[1, 2, 3, 4] const s: f32[4] = [1.0, 1.0, 2.0, 0.5] v = Resize(a, _, s) { mode = \"linear\" } y = Mul(v, v)"},
    {.op = "Resize", .text = "input a: f64[1, 2, 3, 4] const s: i64[4] = [1, 2, 5, 3] v = Resize(a, _, _, s) { mode = \"cubic\" } y = Mul(v, v)"},
    {.op = "tenon:Resample", .text = "input a: f64[2, 4] const s: i64[2] = [2, 7] const r: f32[4] = [0.0, -0.2, 1.0, 1.3] v = Resize(a, r, _, s) { mode = \"linear\", coordinate_transformation_mode = \"tf_crop_and_resize\", extrapolation_value = 0.5 } y = Mul(v, v)"},
    {.op = "tenon:Stretch", .text = "input a: f64[1, 1, 2, 3] const s: f32[4] = [1.0, 1.0, 2.0, 2.0] v = Resize(a, _, s) y = Mul(v, v)"},
    {.op = "Upsample", .text = "input a: f64[1, 1, 2, 3] const s: f32[4] = [1.0, 1.0, 2.0, 2.0] v = Upsample(a, s) opset 9 y = Mul(v, v)"},
    {.op = "DFT", .text = "input a: f64[1, 6, 2] const x: i64[] = 1 v = DFT(a, _, x) y = Mul(v, v)"}, {.op = "DFT", .text = "input a: f64[1, 5, 1] const x: i64[] = 1 v = DFT(a, _, x) { onesided = 1 } y = Mul(v, v)"},
    {.op = "tenon:Fourier", .text = "input a: f64[2, 4, 2] const x: i64[] = 1 v = DFT(a, _, x) { inverse = 1 } y = Mul(v, v)"},
    {.op = "STFT", .text = "input a: f64[1, 10, 1] const s: i64[] = 2 const n: i64[] = 4 input w: f64[4] v = STFT(a, s, w, n) y = Mul(v, v)"},
    {.op = "com.microsoft:Gelu", .text = A "y = com.microsoft:Gelu(a)"}, {.op = "com.microsoft:BiasGelu", .text = A "input b: f64[3] y = com.microsoft:BiasGelu(a, b)"},
    {.op = "com.microsoft:FastGelu", .text = A "input b: f64[3] y = com.microsoft:FastGelu(a, b)"}, {.op = "com.microsoft:QuickGelu", .text = A "y = com.microsoft:QuickGelu(a) { alpha = 1.5 }"},
    {.op = "SimplifiedLayerNormalization", .text = A "input s: f64[3] y = SimplifiedLayerNormalization(a, s)"},
    {.op = "com.microsoft:SimplifiedLayerNormalization", .text = A "input s: f64[3] y = com.microsoft:SimplifiedLayerNormalization(a, s)"},
    {.op = "com.microsoft:SkipLayerNormalization", .text = "input a: f64[1, 2, 3] input b: f64[1, 2, 3] input s: f64[3] input t: f64[3] y = com.microsoft:SkipLayerNormalization(a, b, s, t)"},
    {.op = "com.microsoft:SkipSimplifiedLayerNormalization", .text = "input a: f64[1, 2, 3] input b: f64[1, 2, 3] input s: f64[3] y = com.microsoft:SkipSimplifiedLayerNormalization(a, b, s)"},
    {.op = "com.microsoft:FusedMatMul", .text = "input a: f64[2, 3, 2] input b: f64[2, 4, 3] y = com.microsoft:FusedMatMul(a, b) { transA = 1, transB = 1, alpha = 0.5 }"},
    {.op = "com.microsoft:TransposeMatMul", .text = "input a: f64[3, 2] input b: f64[3, 4] y = com.microsoft:TransposeMatMul(a, b) { transA = 1 }"},
    {.op = "com.microsoft:FusedConv", .text = "input x: f64[1, 2, 4, 4] input w: f64[2, 2, 3, 3] input b: f64[2] y = com.microsoft:FusedConv(x, w, b) { activation = \"Tanh\" }"},
    {.op = "com.microsoft:FusedGemm", .text = "input a: f64[2, 3] input b: f64[3, 2] y = com.microsoft:FusedGemm(a, b) { activation = \"Tanh\" }"},
    {.op = "com.microsoft:Attention", .text = "input x: f64[1, 3, 4] input w: f64[4, 12] input b: f64[12] y = com.microsoft:Attention(x, w, b) { num_heads = 2 }"},
    {.op = "com.microsoft:MultiHeadAttention", .text = "input q: f64[1, 3, 4] input k: f64[1, 2, 4] input v: f64[1, 2, 4] y = com.microsoft:MultiHeadAttention(q, k, v) { num_heads = 2 }"},
    {.op = "CausalConvWithState", .text = "input x: f64[1, 2, 4] input w: f64[2, 1, 3] y, s = CausalConvWithState(x, w) output y"},
    {.op = "SwiGLU", .text = AB "y = SwiGLU(a, b)"},
    {.op = "If", .text = A "const c: bool[] = true y = If(c) { then_branch = graph t { p = Mul(a, a) output p }, else_branch = graph e { q = Neg(a) output q } } output y"},
    {.op = "Loop", .text = "input a: f64[2] const n: i64[] = 3 y = Loop(n, _, a) { body = graph b { input i: i64[] input k: bool[] input s: f64[2] c = Identity(k) t = Sin(s) output c, t } } output y"},
    {.op = "Det", .text = "input a: f64[2, 3, 3] y = Det(a)"}, {.op = "tenon:Inverse", .text = "input a: f64[3, 3] const e: f64[3, 3] = [3, 0, 0, 0, 3, 0, 0, 0, 3] s = Add(a, e) y = tenon:Inverse(s)"},
    {.op = "LinearAttention", .text = "input q: f64[2, 3, 8] input k: f64[2, 3, 4] input v: f64[2, 3, 6] input p: f64[2, 2, 2, 3] input d: f64[2, 3, 2] input b: f64[2, 3, 1] y, z = LinearAttention(q, k, v, p, d, b) { q_num_heads = 4, kv_num_heads = 2 } output y, z"},
    {.op = "LinearAttention", .text = "input q: f64[1, 3, 4] input k: f64[1, 3, 4] input v: f64[1, 3, 4] input d: f64[1, 3, 4] y = LinearAttention(q, k, v, _, d) { q_num_heads = 2, kv_num_heads = 2, update_rule = \"gated\" }"},
    {.op = "tenon:Frames", .text = "input a: f64[1, 7, 1] v = tenon:Frames(a) { step = 2, length = 3 } y = Mul(v, v)"},
};

#define GRID "input x: f64[2, 2, 3, 4] input g: f64[2, 2, 3, 2] y = GridSample(x, g) "
#define ROIS "input x: f64[2, 2, 5, 6] const i: i64[2] = [1, 0] "
static const grad_case images[] = {
    {.op = "GridSample", .text = GRID}, {.op = "GridSample", .text = GRID "{ mode = \"cubic\", align_corners = 1 }"}, {.op = "GridSample", .text = GRID "{ padding_mode = \"border\" }", .lo = -1.3, .hi = 1.3},
    {.op = "GridSample", .text = GRID "{ padding_mode = \"reflection\" }", .lo = -2.3, .hi = 2.3}, {.op = "GridSample", .text = GRID "{ padding_mode = \"reflection\", mode = \"cubic\", align_corners = 1 }", .lo = -2, .hi = 2},
    {.op = "GridSample", .text = GRID "{ mode = \"nearest\" }"}, {.op = "GridSample", .text = "input x: f64[1, 2, 3, 2, 3] input g: f64[1, 2, 1, 2, 3] y = GridSample(x, g)"},
    {.op = "AffineGrid", .text = "input a: f64[2, 2, 3] const s: i64[4] = [2, 1, 3, 4] v = AffineGrid(a, s) y = Mul(v, v)"}, {.op = "AffineGrid", .text = "input a: f64[1, 3, 4] const s: i64[5] = [1, 1, 2, 3, 2] v = AffineGrid(a, s) { align_corners = 1 } y = Mul(v, v)"},
    {.op = "Col2Im", .text = "input a: f64[1, 12, 6] const s: i64[2] = [5, 4] const b: i64[2] = [3, 2] v = Col2Im(a, s, b) { strides = [2, 1], pads = [1, 0, 0, 0], dilations = [1, 1] } y = Mul(v, v)"},
    {.op = "Col2Im", .text = "input a: f64[2, 4, 5] const s: i64[1] = [9] const b: i64[1] = [2] v = Col2Im(a, s, b) { dilations = [2], pads = [1, 1], strides = [2] } y = Mul(v, v)"},
    {.op = "RoiAlign", .text = ROIS "input r: f64[2, 4] const o: f64[2, 4] = [0.3, 0.4, 4.1, 3.7, 1.2, 0.1, 3.3, 4.2] s = Add(r, o) y = RoiAlign(x, s, i) { output_height = 2, output_width = 3, sampling_ratio = 2 }", .lo = 0.01, .hi = 0.2},
    {.op = "RoiAlign", .text = ROIS "const r: f64[2, 4] = [0.3, 0.4, 4.1, 3.7, 1.2, 0.1, 3.3, 4.2] y = RoiAlign(x, r, i) { mode = \"max\", output_height = 2, output_width = 2, sampling_ratio = 1, spatial_scale = 0.8, coordinate_transformation_mode = \"output_half_pixel\" }"},
    {.op = "MaxRoiPool", .text = "input x: f64[2, 2, 5, 6] const r: f64[3, 5] = [1, 0, 0, 4, 3, 0, 2, 1, 5, 4, 1, 5, 4, 9, 9] v = MaxRoiPool(x, r) { pooled_shape = [2, 3] } y = Mul(v, v)"},
    {.op = "tenon:DeformSamples", .text = "input x: f64[2, 4, 4, 5] input o: f64[2, 24, 2, 3] input m: f64[2, 12, 2, 3] y = tenon:DeformSamples(x, o, m) { kernel_shape = [2, 3], offset_group = 2, pads = [1, 1, 0, 1], strides = [2, 2] }", .lo = 0.1, .hi = 0.4},
    {.op = "DeformConv", .text = "input x: f64[1, 4, 4, 5] input w: f64[2, 2, 2, 3] input o: f64[1, 24, 2, 3] input b: f64[2] input m: f64[1, 12, 2, 3] y = DeformConv(x, w, o, b, m) { group = 2, offset_group = 2, pads = [1, 1, 0, 1], strides = [2, 2] }", .lo = 0.1, .hi = 0.4},
};

#define TABLE(t) {t, IR_COUNT(t)}
static const struct {
  const grad_case *cases;
  int count;
} tables[] = {TABLE(elementwise), TABLE(movement), TABLE(reductions), TABLE(contractions), TABLE(norms), TABLE(composites), TABLE(images)};

static void run(int t) {
  for (int i = 0; i < tables[t].count; i++) grad_check(&tables[t].cases[i]);
}
Test(grad_ops, elementwise) { run(0); }
Test(grad_ops, movement) { run(1); }
Test(grad_ops, reductions) { run(2); }
Test(grad_ops, contractions) { run(3); }
Test(grad_ops, norms) { run(4); }
Test(grad_ops, composites) { run(5); }
Test(grad_ops, images) { run(6); }

/* ---- every row ---- */

/* Rows through which gradients might pass by the look of them, but whose float results, if any, depend on
 * no float operand, or whose nodes are always replaced by others that have cases. */
static const char *const without[] = {"Constant", "ConstantOfShape", "Range", "EyeLike", "RandomUniform", "RandomUniformLike", "RandomNormal", "RandomNormalLike",
    "Bernoulli", "tenon:Uniform", "HannWindow", "HammingWindow", "BlackmanWindow", "MelWeightMatrix", "Unique", "NonZero", "NonMaxSuppression", "tenon:Gradient", "tenon:StopGradient",
    "QLinearMatMul", "QLinearConv", "DynamicQuantizeLinear", "com.microsoft:QGemm", "com.microsoft:QLinearAdd", "com.microsoft:QLinearMul", "com.microsoft:QLinearSigmoid",
    "com.microsoft:QLinearLeakyRelu", "com.microsoft:QLinearGlobalAveragePool", "com.microsoft:MatMulIntegerToFloat", "com.microsoft:DynamicQuantizeMatMul", "TfIdfVectorizer",
    /* lists, which are gone before gradients are taken */
    "SequenceEmpty", "SequenceInsert", "SequenceErase", "SequenceAt", "SequenceLength", "ConcatFromSequence", "SplitToSequence", "SequenceMap", "OptionalGetElement", "OptionalHasElement",
    /* what is made of ops that have cases, and cannot be said with f64 operands alone */
    "com.microsoft:EmbedLayerNormalization", "com.microsoft:GroupQueryAttention", "com.microsoft:MatMulNBits", "ai.onnx.preview:FlexAttention", "Scan",
    "ai.onnx.preview.training:Adagrad", "ai.onnx.preview.training:Momentum", "ai.onnx.preview.training:Adam", "tenon:Optimize", "ai.onnx.ml:Scaler", "ai.onnx.ml:ArrayFeatureExtractor"};

static bool claims(const ir_op *op) { return op->grad || op->grad_build || op->expand; }

Test(grad_ops, no_row_is_left_out) {
  const ir_op *op;
  for (int r = 0; (op = ir_op_at(r)); r++) {
    char name[128];
    bool plain = !op->domain || !*op->domain;
    snprintf(name, sizeof name, "%s%s%s", plain ? "" : op->domain, plain ? "" : ":", op->name);
    bool covered = !claims(op);
    for (int i = 0; i < IR_COUNT(without); i++) covered |= strcmp(without[i], name) == 0;
    for (int t = 0; t < IR_COUNT(tables); t++)
      for (int i = 0; i < tables[t].count; i++) covered |= strcmp(tables[t].cases[i].op, name) == 0;
    cr_expect(covered, "%s has a gradient, and no case", name);
  }
}
