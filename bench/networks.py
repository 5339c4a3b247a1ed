#!/usr/bin/env python3
"""Writes networks with random weights as ONNX files: bench/networks.py DIR [NAME...]

Those that models.txt knows, efficientnet_b0 (Tan and Le, "EfficientNet", 2019) and vgg16 (Simonyan and Zisserman, 2014), and
for GPUs resnet50 (He et al., 2015) and mobilenet_v2 (Sandler et al., 2018) in bf16, as exporters leave them: batch normalisation
is part of the convolutions, SiLU is Sigmoid and Mul. Times do not depend on weights. Needs numpy and onnx.
"""
import os
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Network:
    def __init__(self, seed=0, bf16=False):
        self.random, self.bf16 = np.random.default_rng(seed), bf16
        self.nodes, self.weights = [], []

    def add(self, op, inputs, **attributes):
        name = "%s_%d" % (op.lower(), len(self.nodes))
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def weight(self, shape, fan_in, gain=2.0):
        name = "w%d" % len(self.weights)
        values = self.random.standard_normal(shape, dtype=np.float32) * np.float32(np.sqrt(gain / fan_in))
        if self.bf16:
            half = (np.ascontiguousarray(values).view(np.uint32) + 0x8000 >> 16).astype(np.uint16)
            self.weights.append(helper.make_tensor(name, TensorProto.BFLOAT16, shape, half.tobytes(), raw=True))
        else:
            self.weights.append(numpy_helper.from_array(values, name))
        return name

    def conv(self, x, c, k, r, stride=1, groups=1):
        w = self.weight((k, c // groups, r, r), c // groups * r * r)
        return self.add("Conv", [x, w, self.weight((k,), 100)], kernel_shape=[r, r], pads=[r // 2] * 4, strides=[stride] * 2, group=groups)

    def linear(self, x, c, k):
        return self.add("Gemm", [x, self.weight((k, c), c), self.weight((k,), 100)], transB=1)

    def silu(self, x):
        return self.add("Mul", [x, self.add("Sigmoid", [x])])

    def save(self, path, output):
        kind = TensorProto.BFLOAT16 if self.bf16 else TensorProto.FLOAT
        graph = helper.make_graph(self.nodes, os.path.basename(path), [helper.make_tensor_value_info("x", kind, [1, 3, 224, 224])],
                                  [helper.make_tensor_value_info(output, kind, [1, 1000])], self.weights)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22 if self.bf16 else 17)], ir_version=10 if self.bf16 else 8), path)


def efficientnet_b0(path):
    n = Network()
    x, c = n.silu(n.conv("x", 3, 32, 3, 2)), 32
    for expand, k, layers, stride, r in ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3)):
        for layer in range(layers):
            y, wide = x, c * expand
            if expand > 1:
                y = n.silu(n.conv(y, c, wide, 1))
            y = n.silu(n.conv(y, wide, wide, r, stride if layer == 0 else 1, wide))
            s = n.silu(n.conv(n.add("GlobalAveragePool", [y]), wide, c // 4, 1))
            y = n.add("Mul", [y, n.add("Sigmoid", [n.conv(s, c // 4, wide, 1)])])
            y = n.conv(y, wide, k, 1)
            x = n.add("Add", [x, y]) if layer else y
            c = k
    x = n.add("GlobalAveragePool", [n.silu(n.conv(x, c, 1280, 1))])
    n.save(path, n.linear(n.add("Flatten", [x]), 1280, 1000))


def vgg16(path):
    n = Network()
    x, c = "x", 3
    for layers, k in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(layers):
            x, c = n.add("Relu", [n.conv(x, c, k, 3)]), k
        x = n.add("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
    x, c = n.add("Flatten", [x]), 512 * 7 * 7
    for _ in range(2):
        x, c = n.add("Relu", [n.linear(x, c, 4096)]), 4096
    n.save(path, n.linear(x, c, 1000))


def resnet50(path):
    n = Network(bf16=True)
    x, c = n.add("Relu", [n.conv("x", 3, 64, 7, 2)]), 64
    x = n.add("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for stage, layers in enumerate((3, 4, 6, 3)):
        for layer in range(layers):
            width, stride = 64 << stage, 2 if stage and layer == 0 else 1
            y = n.add("Relu", [n.conv(x, c, width, 1)])
            y = n.conv(n.add("Relu", [n.conv(y, width, width, 3, stride)]), width, 4 * width, 1)
            x = n.add("Relu", [n.add("Add", [y, x if layer else n.conv(x, c, 4 * width, 1, stride)])])
            c = 4 * width
    n.save(path, n.linear(n.add("Flatten", [n.add("GlobalAveragePool", [x])]), c, 1000))


def mobilenet_v2(path):
    n = Network(bf16=True)
    n.weights += [helper.make_tensor(name, TensorProto.BFLOAT16, [], np.array([v], np.uint16).tobytes(), raw=True) for name, v in (("zero", 0), ("six", 0x40C0))]
    relu6 = lambda x: n.add("Clip", [x, "zero", "six"])
    x, c = relu6(n.conv("x", 3, 32, 3, 2)), 32
    for expand, k, layers, stride in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)):
        for layer in range(layers):
            y, wide = x, c * expand
            if expand > 1:
                y = relu6(n.conv(y, c, wide, 1))
            y = n.conv(relu6(n.conv(y, wide, wide, 3, 1 if layer else stride, wide)), wide, k, 1)
            x = n.add("Add", [x, y]) if layer else y
            c = k
    x = n.add("GlobalAveragePool", [relu6(n.conv(x, c, 1280, 1))])
    n.save(path, n.linear(n.add("Flatten", [x]), 1280, 1000))


NETWORKS = {"efficientnet_b0": efficientnet_b0, "vgg16": vgg16, "resnet50_bf16": resnet50, "mobilenet_v2_bf16": mobilenet_v2}

if __name__ == "__main__":
    if len(sys.argv) < 2 or any(a not in NETWORKS for a in sys.argv[2:]):
        sys.exit("usage: bench/networks.py DIR [%s]..." % "|".join(NETWORKS))
    for name in sys.argv[2:] or NETWORKS:
        NETWORKS[name](os.path.join(sys.argv[1], name + ".onnx"))
