#!/usr/bin/env python3
"""Writes the model of tests/corpus/model/qdq_static.onnx: a small network, quantised by ONNX Runtime's static quantiser.

  tests/make_qdq.py OUT.onnx      (needs onnx, onnxruntime and numpy; the file in the corpus was made with onnxruntime 1.32)

Convolutions (plain, strided, depthwise), a residual, pooling and a product; weights by channel, activations u8."""
import sys
import tempfile

import numpy
import onnx
from onnx import TensorProto, helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

RANDOM = numpy.random.default_rng(7)
SHAPE = [1, 3, 12, 10]


def network():
    nodes, weights = [], []

    def weight(name, *dims):
        weights.append(helper.make_tensor(name, TensorProto.FLOAT, dims, (RANDOM.random(dims) - 0.5).astype("f4").ravel()))
        return name

    def conv(x, out, c, k, taps, stride=1, group=1):
        nodes.append(helper.make_node("Conv", [x, weight(out + ".w", k, c // group, taps, taps), weight(out + ".b", k)], [out + ".sum"],
                                      strides=[stride, stride], pads=[taps // 2] * 4, group=group, kernel_shape=[taps, taps]))
        nodes.append(helper.make_node("Relu", [out + ".sum"], [out]))
        return out

    a = conv("x", "a", 3, 8, 3, stride=2)
    b = conv(a, "b", 8, 8, 3, group=8)
    c = conv(b, "c", 8, 8, 1)
    nodes.append(helper.make_node("Add", [c, a], ["d"]))
    nodes.append(helper.make_node("GlobalAveragePool", ["d"], ["e"]))
    nodes.append(helper.make_node("Flatten", ["e"], ["f"]))
    nodes.append(helper.make_node("MatMul", ["f", weight("g.w", 8, 5)], ["y"]))
    graph = helper.make_graph(nodes, "qdq", [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


class Samples(CalibrationDataReader):
    def __init__(self):
        self.left = 16

    def get_next(self):
        self.left -= 1
        return {"x": RANDOM.random(SHAPE).astype("f4") * 2 - 1} if self.left >= 0 else None


def main():
    with tempfile.NamedTemporaryFile(suffix=".onnx") as f:
        onnx.save(network(), f.name)
        quantize_static(f.name, sys.argv[1], Samples(), quant_format=QuantFormat.QDQ, per_channel=True,
                        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)


main()
