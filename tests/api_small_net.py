"""Compares what frontend/examples/small_net wrote with ONNX Runtime.

    api_small_net.py DIR [OBJECT_OUTPUT]

Builds the same network with onnx.helper from DIR/weights.safetensors, runs it on DIR/x.bin, and
compares the output, the fetched activation, the output after the bias was replaced by 0..9, and,
if given, the output of a program that was linked with the saved object. Tolerance: 1e-4 of the
largest reference value.
"""
import json
import struct
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper


def safetensors(path):
    raw = Path(path).read_bytes()
    (n,) = struct.unpack("<Q", raw[:8])
    out = {}
    for name, t in json.loads(raw[8:8 + n]).items():
        if name != "__metadata__":
            assert t["dtype"] == "F32", name
            a, b = t["data_offsets"]
            out[name] = np.frombuffer(raw[8 + n + a:8 + n + b], np.float32).reshape(t["shape"])
    return out


def model(w):
    def node(op, inputs, output, **attrs):
        return helper.make_node(op, inputs, [output], **attrs)

    nodes = [
        node("Conv", ["x", "conv1.weight", "conv1.bias"], "c1", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], "r1"),
        node("Conv", ["r1", "conv2.weight", "conv2.bias"], "c2", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", ["c2"], "r2"),
        node("Flatten", ["r2"], "f"),
        node("Gemm", ["f", "fc.weight", "fc.bias"], "y", transB=1),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "small_net", [info("x", TensorProto.FLOAT, [2, 3, 16, 16])],
        [info("y", TensorProto.FLOAT, [2, 10]), info("r2", TensorProto.FLOAT, [2, 16, 8, 8])],
        [numpy_helper.from_array(v, k) for k, v in w.items()])
    m = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(m)
    return m.SerializeToString()


def main():
    folder = Path(sys.argv[1])
    w = safetensors(folder / "weights.safetensors")
    assert sorted(w) == ["conv1.bias", "conv1.weight", "conv2.bias", "conv2.weight", "fc.bias", "fc.weight"], sorted(w)

    def read(name):
        return np.fromfile(folder / name, np.float32)

    def run(weights):
        s = ort.InferenceSession(model(weights), providers=["CPUExecutionProvider"])
        return s.run(None, {"x": read("x.bin").reshape(2, 3, 16, 16)})

    y, r2 = run(w)
    y1, _ = run({**w, "fc.bias": np.arange(10, dtype=np.float32)})
    checks = [("y0.bin", y), ("relu2.bin", r2), ("y1.bin", y1)]
    if len(sys.argv) > 2:
        checks.append((sys.argv[2], y))
    bad = 0
    for name, want in checks:
        got = read(name)
        ok = got.size == want.size
        error = np.abs(got - want.ravel()).max() / np.abs(want).max() if ok else np.inf
        ok = bool(error <= 1e-4)
        bad += not ok
        print(f"{'ok   ' if ok else 'WRONG'} {name}: largest difference {error:.2e} of the largest value")
    sys.exit(1 if bad else 0)


main()
