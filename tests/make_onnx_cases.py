"""Writes the seed files of the reader tests and fuzzers, a few KB in all:

    python tests/make_onnx_cases.py          (needs the packages onnx and numpy)

tests/corpus/onnx/*.onnx, *.pb, weights.bin; tests/corpus/npy/*.npy;
tests/corpus/safetensors/*.safetensors. Deterministic: the files are in the repository, and
tests/test_*.c checks the values that are written here.
"""
import io
import json
import os
import struct

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")
TYPES = {T.FLOAT: "<f4", T.UINT8: "u1", T.INT8: "i1", T.UINT16: "<u2", T.INT16: "<i2", T.INT32: "<i4",
         T.INT64: "<i8", T.BOOL: "?", T.FLOAT16: "<f2", T.DOUBLE: "<f8", T.UINT32: "<u4", T.UINT64: "<u8"}


def put(folder, name, data):
    os.makedirs(os.path.join(HERE, folder), exist_ok=True)
    with open(os.path.join(HERE, folder, name), "wb") as f:
        f.write(data)


def model(graph, **more):
    m = h.make_model(graph, producer_name="make_onnx_cases", ir_version=10, **more)
    return m


def raw(name, t, values, dims):
    return h.make_tensor(name, t, dims, np.array(values).astype(TYPES[t]).tobytes(), raw=True)


def onnx_cases():
    x = h.make_tensor_value_info("x", T.FLOAT, ["N", 3])
    y = h.make_tensor_value_info("y", T.FLOAT, None)
    opset = [h.make_opsetid("", 21), h.make_opsetid("local", 1)]

    # 1. the ordinary model: Gemm with attributes, named symbols, metadata
    node = h.make_node("Gemm", ["x", "w", "b"], ["y"], name="fc", alpha=0.5, transB=1)
    g = h.make_graph([node], "plain", [x], [y], [raw("w", T.FLOAT, [[1, 2, 3], [4, 5, 6]], [2, 3]),
                                                 raw("b", T.FLOAT, [7, 8], [2])],
                     value_info=[h.make_tensor_value_info("h", T.FLOAT16, [1, 2, "M"])])
    m = model(g, opset_imports=opset)
    h.set_model_props(m, {"author": "nobody", "kind": "test"})
    put("onnx", "plain.onnx", m.SerializeToString(deterministic=True))

    # 2. every element type, raw and typed, with the same values
    init = []
    for t in TYPES:
        v = np.array([0, 1, 0, 1] if t == T.BOOL else [0, 1, 2, 100]).astype(TYPES[t])
        init.append(h.make_tensor(f"raw{t}", t, [2, 2], v.tobytes(), raw=True))
        init.append(h.make_tensor(f"typed{t}", t, [2, 2], v))
    init.append(h.make_tensor("bf16", T.BFLOAT16, [2], [1.0, -2.0]))
    init.append(h.make_tensor("text", T.STRING, [2], [b"one", b"two and more"]))
    init.append(h.make_tensor("c64", T.COMPLEX64, [1], [1 + 2j]))
    init.append(h.make_tensor("i4", T.INT4, [3], [1, -2, 3]))
    init.append(h.make_tensor("f8", T.FLOAT8E5M2, [2], [1.0, 2.0]))
    init.append(h.make_tensor("empty", T.FLOAT, [0, 5], []))
    init.append(h.make_tensor("scalar", T.INT64, [], [-7]))
    g = h.make_graph([h.make_node("Identity", ["x"], ["y"])], "types", [x], [y], init)
    put("onnx", "types.onnx", model(g).SerializeToString(deterministic=True))

    # 3. every kind of attribute, a subgraph, optional inputs left out
    sub = h.make_graph([h.make_node("Identity", ["x"], ["z"])], "then", [],
                       [h.make_tensor_value_info("z", T.FLOAT, None)])
    n = h.make_node("Everything", ["x", "", "w"], ["y", ""], domain="local", overload="v2", f=1.5, i=-3, s="text",
                    t=raw("t", T.INT32, [5, 6], [2]), g=sub, floats=[1.0, 2.0], ints=[1, -1, 1 << 40],
                    strings=["a", "bc"], tensors=[raw("t0", T.INT8, [1], []), raw("t1", T.INT8, [2], [])],
                    graphs=[sub, sub], tp=h.make_tensor_type_proto(T.FLOAT, [1]),
                    type_protos=[h.make_optional_type_proto(h.make_tensor_type_proto(T.INT64, ["K"]))])
    n.attribute.append(h.make_attribute("none", [], attr_type=onnx.AttributeProto.INTS))
    seq = h.make_value_info("s", h.make_sequence_type_proto(h.make_tensor_type_proto(T.FLOAT, None)))
    mp = h.make_value_info("m", h.make_map_type_proto(T.INT64, h.make_tensor_type_proto(T.FLOAT, [2])))
    sp = h.make_value_info("p", h.make_sparse_tensor_type_proto(T.FLOAT, [9, -1]))
    g = h.make_graph([n], "attributes", [x, seq, mp, sp], [y])
    g.sparse_initializer.append(h.make_sparse_tensor(raw("sp", T.FLOAT, [1], [1]), raw("ix", T.INT64, [2], [1]), [4]))
    put("onnx", "attributes.onnx", model(g, opset_imports=opset).SerializeToString(deterministic=True))

    # 4. functions with a required attribute and one with a default
    inner = h.make_node("LeakyRelu", ["a"], ["b"])
    inner.attribute.append(h.make_attribute_ref("alpha", onnx.AttributeProto.FLOAT, ref_attr_name="slope"))
    fn = h.make_function("local", "Bend", ["a"], ["b"], [inner], [h.make_opsetid("", 21)], ["must"],
                         [h.make_attribute("slope", 0.25)])
    g = h.make_graph([h.make_node("Bend", ["x"], ["y"], domain="local", must=1)], "functions", [x], [y])
    put("onnx", "function.onnx", model(g, opset_imports=opset, functions=[fn]).SerializeToString(deterministic=True))

    # 5. external data beside the model
    put("onnx", "weights.bin", bytes(16) + np.arange(4, dtype="<f4").tobytes())
    w = T(name="w", data_type=T.FLOAT, dims=[4], data_location=T.EXTERNAL)
    for key, value in (("location", "weights.bin"), ("offset", "16"), ("length", "16")):
        w.external_data.add(key=key, value=value)
    g = h.make_graph([h.make_node("Add", ["x", "w"], ["y"])], "external", [x], [y], [w])
    put("onnx", "external.onnx", model(g).SerializeToString(deterministic=True))

    # 6. graphs inside graphs, and a bare tensor
    g = sub
    for k in range(4):
        g = h.make_graph([h.make_node("If", ["c"], [f"o{k}"], then_branch=g, else_branch=sub)], f"level{k}", [], [y])
    put("onnx", "nested.onnx", model(g).SerializeToString(deterministic=True))
    put("onnx", "input_0.pb", raw("x", T.FLOAT, [[1.5, -2]], [1, 2]).SerializeToString(deterministic=True))


def npy_cases():
    def save(name, a, version=None, **more):
        f = io.BytesIO()
        np.lib.format.write_array(f, a, version=version, **more)
        put("npy", name, f.getvalue())

    for t in list(TYPES.values()):
        save("t_" + np.dtype(t).name + ".npy", np.array([[0, 1, 1], [1, 0, 1]]).astype(t))
    save("fortran.npy", np.asfortranarray(np.arange(24, dtype="<i4").reshape(2, 3, 4)))
    save("scalar.npy", np.array(2.5))
    save("empty.npy", np.zeros((0, 3), "<f4"))
    save("v2.npy", np.arange(3, dtype="<u2"), (2, 0))
    save("v3.npy", np.arange(3, dtype="<u2"), (3, 0))
    save("bf16.npy", np.array([0x3f80, 0xc000], "<u2").view("V2"))
    save("big.npy", np.arange(2, dtype=">f4"))
    save("record.npy", np.zeros(1, [("a", "<f4")]))


def safetensors_cases():
    def save(name, head, data, pad=0):
        text = json.dumps(head, separators=(",", ":")).encode() + b" " * pad
        put("safetensors", name, struct.pack("<Q", len(text)) + text + data)

    one = np.array([[1, 2, 3], [4, 5, 6]], "<f4").tobytes()
    save("plain.safetensors", {"__metadata__": {"format": "pt", "a\"b": "\u00e4\U0001f600"},
                               "w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
                               "b": {"dtype": "I64", "shape": [], "data_offsets": [24, 32]},
                               "e": {"dtype": "F16", "shape": [0, 7], "data_offsets": [32, 32]}},
         one + struct.pack("<q", -9), 3)
    head, at = {}, 0
    for t, n in (("BOOL", 1), ("U8", 1), ("I8", 1), ("I16", 2), ("U16", 2), ("F16", 2), ("BF16", 2), ("I32", 4), ("U32", 4),
                 ("F32", 4), ("F64", 8), ("I64", 8), ("U64", 8), ("F8_E4M3", 1), ("NEW", 5)):
        head["t." + t] = {"dtype": t, "shape": [2, 1], "data_offsets": [at, at + 2 * n]}
        at += 2 * n
    save("types.safetensors", head, bytes(i % 2 for i in range(at)))
    save("none.safetensors", {}, b"")
    text = b'{"\\u0061\\n\\ud83d\\ude00" : { "shape" : [ 1 ] , "data_offsets":[0,1],"dtype":"U8"} }'
    put("safetensors", "escapes.safetensors", struct.pack("<Q", len(text)) + text + b"\x05")


onnx_cases()
npy_cases()
safetensors_cases()
