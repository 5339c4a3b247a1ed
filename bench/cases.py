"""What is measured: cases from the lists beside this file, their operands and reference results."""
import glob
import json
import os
import re
import shutil
import zlib

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))


class Case:
    """One thing to measure. `words`: the kind and its words of a load command, DIR as '@';
    `by_peer`: the same for peers that need other words; `kind`: the table it belongs to."""

    def __init__(self, name, kind, group, words, flop, tolerance=1e-4):
        self.name, self.kind, self.group = name, kind, group
        self.words, self.flop, self.tolerance = words, flop, tolerance
        self.by_peer = {}
        self.seconds = 0.1   # of one sample
        self.prepare = None  # writes operands into a folder
        self.reference = None  # () -> list of arrays
        self.path = None     # of a model
        self.dims = []
        self.quick = False


def lines(name):
    with open(os.path.join(HERE, name)) as f:
        for line in f:
            words = line.split("#")[0].split()
            if words:
                quick = words[-1] == "q"
                yield (words[:-1] if quick else words), quick


def random(name, shape):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.uniform(-1, 1, shape).astype(np.float32)


# ---- matrix products ----

def with_asked(listed, asked, pattern, words_of):
    """The list, and what was asked for by its full name and is not in it."""
    listed = list(listed)
    there = {"x".join(w[:3]) if len(w) > 3 else w[0] for w, _ in listed}
    return listed + [(words_of(a), False) for a in asked if re.fullmatch(pattern, a) and a not in there]


def gemm_cases(asked=()):
    listed = with_asked(lines("gemm.txt"), asked, r"\d+x\d+x\d+", lambda a: a.split("x") + ["asked"])
    for mode in ("const", "var"):
        for words, quick in listed:
            m, n, k = map(int, words[:3])
            c = Case("%dx%dx%d" % (m, n, k), "gemm " + mode, words[3],
                     ["gemm", str(m), str(n), str(k), mode, "@"], 2.0 * m * n * k)
            c.bytes = 4.0 * (m * k + k * n + m * n)
            c.quick = quick and mode == "const"

            def prepare(folder, m=m, n=n, k=k, c=c):
                a, b = random("a" + c.name, (m, k)), random("b" + c.name, (k, n))
                a.tofile(os.path.join(folder, "a.bin"))
                b.tofile(os.path.join(folder, "b.bin"))
                c.reference = lambda: [a @ b]
            c.prepare = prepare
            yield c


# ---- convolutions ----

def parse_conv(spec):
    v = dict(n=1, r=1, s=1, u=1, p=0, d=1, g=1)
    key, number = None, ""
    for ch in spec + "n":
        if ch.isdigit():
            number += ch
            continue
        if key:
            v[key] = int(number)
        key, number = ch, ""
    v["oh"] = (v["h"] + 2 * v["p"] - (v["r"] - 1) * v["d"] - 1) // v["u"] + 1
    v["ow"] = (v["w"] + 2 * v["p"] - (v["s"] - 1) * v["d"] - 1) // v["u"] + 1
    return v


def convolve(x, w, v):
    """The plain definition: one product per tap."""
    x = np.pad(x, ((0, 0), (0, 0), (v["p"],) * 2, (v["p"],) * 2))
    kg, cg = v["k"] // v["g"], v["c"] // v["g"]
    y = np.zeros((v["n"], v["k"], v["oh"], v["ow"]), np.float32)
    for r in range(v["r"]):
        for s in range(v["s"]):
            part = x[:, :, r * v["d"]:, s * v["d"]:][:, :, ::v["u"], ::v["u"]][:, :, :v["oh"], :v["ow"]]
            if kg == cg == 1:
                y += part * w[:, 0, r, s][None, :, None, None]
                continue
            for g in range(v["g"]):
                y[:, g * kg:(g + 1) * kg] += np.einsum(
                    "kc,nchw->nkhw", w[g * kg:(g + 1) * kg, :, r, s], part[:, g * cg:(g + 1) * cg], optimize=True)
    return y


def conv_class(v):
    if v["h"] == 1 and v["w"] == 1:
        return "on one pixel"
    if v["g"] > 1:
        return "depthwise" if v["g"] == v["c"] else "grouped"
    if v["c"] <= 4:
        return "first layer"
    if v["r"] == v["s"] == 1:
        return "1x1" if v["u"] == 1 else "1x1 strided"
    return "%dx%d" % (v["r"], v["s"]) + ("" if v["u"] == 1 else " strided")


def one_node_model(path, spec, w):
    """The convolution as an ONNX file, for peers that take only models."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    v = parse_conv(spec)
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[v["u"]] * 2, pads=[v["p"]] * 4,
                            dilations=[v["d"]] * 2, group=v["g"])
    graph = helper.make_graph(
        [node], "conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [v["n"], v["c"], v["h"], v["w"]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [v["n"], v["k"], v["oh"], v["ow"]])],
        [numpy_helper.from_array(w, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def conv_cases(plain, model_peers, asked=()):
    for words, quick in with_asked(lines("conv.txt"), asked, r"(n\d+)?c\d+h\d+w\d+k\d+([rsupdg]\d+)*", lambda a: [a, "asked"]):
        spec = words[0]
        v = parse_conv(spec)
        flop = 2.0 * v["n"] * v["k"] * v["oh"] * v["ow"] * v["c"] // v["g"] * v["r"] * v["s"]
        c = Case(spec, "conv plain" if plain else "conv", conv_class(v),
                 ["conv-plain" if plain else "conv", spec, "@"], flop)
        c.bytes = 4.0 * (v["n"] * v["c"] * v["h"] * v["w"] + v["n"] * v["k"] * v["oh"] * v["ow"] + v["k"] * v["c"] // v["g"] * v["r"] * v["s"])
        c.quick = quick
        for peer in model_peers:
            c.by_peer[peer] = ["model", "@/conv.onnx", "@"]

        def prepare(folder, spec=spec, v=v, c=c):
            x = random("x" + spec, (v["n"], v["c"], v["h"], v["w"]))
            w = random("w" + spec, (v["k"], v["c"] // v["g"], v["r"], v["s"]))
            x.tofile(os.path.join(folder, "x.bin"))
            w.tofile(os.path.join(folder, "w.bin"))
            if c.by_peer:
                x.tofile(os.path.join(folder, "in_0.bin"))
                with open(os.path.join(folder, "meta.json"), "w") as f:
                    json.dump([{"name": "x", "dtype": "float32", "dims": list(x.shape)}], f)
                one_node_model(os.path.join(folder, "conv.onnx"), spec, w)
            c.reference = lambda: [convolve(x, w, v)]
        c.prepare = prepare
        yield c


# ---- models ----

def find_model(folder, name):
    for place in [folder] if folder else []:
        path = os.path.join(place, name)
        if os.path.exists(path):
            return path
    try:  # the detector comes inside a package
        import importlib.util
        spec = importlib.util.find_spec("rapidocr_onnxruntime")
        if spec:
            found = glob.glob(os.path.join(os.path.dirname(spec.origin), "models", name))
            if found:
                return found[0]
    except ImportError:
        pass
    return None


def model_flop(path, dims):
    """Multiply-adds of convolutions and matrix products, times two; None where shapes stay open."""
    import onnx
    m = onnx.load(path)
    for i, shape in zip(m.graph.input, dims):
        for d, size in zip(i.type.tensor_type.shape.dim, shape):
            d.dim_value = size
    inferred = onnx.shape_inference.infer_shapes(m)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
              for v in [*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output]}
    shapes.update({i.name: list(i.dims) for i in m.graph.initializer})
    total = 0.0
    for n in m.graph.node:
        try:
            if n.op_type == "Conv":
                total += 2.0 * np.prod(shapes[n.output[0]]) * np.prod(shapes[n.input[1]][1:])
            elif n.op_type == "ConvTranspose":
                total += 2.0 * np.prod(shapes[n.input[0]]) * np.prod(shapes[n.input[1]][1:])
            elif n.op_type == "MatMul":
                total += 2.0 * np.prod(shapes[n.output[0]]) * shapes[n.input[0]][-1]
            elif n.op_type == "Gemm":
                trans = any(a.name == "transA" and a.i for a in n.attribute)
                total += 2.0 * np.prod(shapes[n.output[0]]) * shapes[n.input[0]][-2 if trans else -1]
        except (KeyError, IndexError):
            return None
    return float(total) or None


def model_cases(folder, note):
    dtypes = {1: "float32", 6: "int32", 7: "int64", 9: "bool", 11: "float64"}
    for words, quick in lines("models.txt"):
        name, file = words[:2]
        path = find_model(folder, file)
        if not path:
            note("%s: %s is not there (--models DIR or TENON_MODELS): skipped" % (name, file))
            continue
        import onnx
        m = onnx.load(path, load_external_data=False)
        constants = {i.name for i in m.graph.initializer}
        inputs = [i for i in m.graph.input if i.name not in constants]
        sizes = [list(map(int, w.split("=")[1].split(","))) for w in words[2:]]
        symbols, meta = {}, []
        for k, i in enumerate(inputs):
            t = i.type.tensor_type
            dims = sizes[k] if k < len(sizes) else [d.dim_value for d in t.shape.dim]
            for d, size in zip(t.shape.dim, dims):
                if d.dim_param:
                    symbols[d.dim_param] = size
            meta.append({"name": i.name, "dtype": dtypes[t.elem_type], "dims": dims})
        del m
        c = Case(name, "model", "model", ["model", path, "@", *("%s=%d" % s for s in symbols.items())], None)
        c.path, c.dims, c.quick, c.seconds = path, ["%s=%d" % s for s in symbols.items()], quick, 0.5
        c.flop = model_flop(path, [x["dims"] for x in meta])

        def prepare(folder, meta=meta, c=c):
            for k, x in enumerate(meta):
                a = random("%s %d" % (c.name, k), x["dims"])
                if not x["dtype"].startswith("float"):
                    a = a > 0  # ids, masks
                a.astype(x["dtype"]).tofile(os.path.join(folder, "in_%d.bin" % k))
            with open(os.path.join(folder, "meta.json"), "w") as f:
                json.dump(meta, f)
        c.prepare = prepare
        yield c


# ---- quantised models: QDQ by ONNX Runtime's static quantiser, u8 activations, s8 weights per channel ----

def quantised(path, made):
    """Makes the file unless it is there; returns an error text or None."""
    if os.path.exists(made):
        return None
    try:
        import logging
        import onnx
        logging.disable(logging.WARNING)
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    except ImportError as e:
        return str(e)
    m = onnx.load(path, load_external_data=False)
    constants = {i.name for i in m.graph.initializer}
    inputs = [(i.name, [d.dim_value for d in i.type.tensor_type.shape.dim]) for i in m.graph.input if i.name not in constants]

    class Random(CalibrationDataReader):
        def __init__(self):
            self.left = 8

        def get_next(self):
            self.left -= 1
            return {n: random("%s %d" % (n, self.left), s) for n, s in inputs} if self.left >= 0 else None

    try:
        os.makedirs(os.path.dirname(made), exist_ok=True)
        quantize_static(path, made + ".part", Random(), quant_format=QuantFormat.QDQ, per_channel=True,
                        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
        os.replace(made + ".part", made)
    except Exception as e:
        return "%s: %s" % (type(e).__name__, e)
    return None


def int8_cases(folder, made, note):
    for c in model_cases(folder, note):
        if c.name not in ("resnet50", "mobilenet_v2", "resnet18"):
            continue
        path = os.path.join(made, c.name + ".int8.onnx")
        error = quantised(c.path, path)
        if error:
            note("%s: cannot be quantised: %s" % (c.name, error))
            continue
        c.path = c.words[1] = path
        c.name += " int8"
        c.kind, c.group, c.seconds = "model int8", "int8", 0.3
        c.tolerance = 0.1  # of the largest value: one rounding the other way early on is a quantum in many places later
        yield c


def clean(folder):
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
