"""Compares Tenon with ONNX Runtime on real models: JIT and AOT object, random and real input.

    python compare_ort.py [MODEL.onnx | FOLDER]... [--tenon build/tenon] [--json FILE]
                          [--bar 1e-4] [--only TEXT] [--cc cc] [--dim NAME=N]...

Without arguments: the text detector of rapidocr-onnxruntime (two sizes), magika's model and onnx's
light_* models, each from its installed package; a folder adds the .onnx files in it. Prints for each
output max|difference| / max|reference|. Where ONNX Runtime itself is further than the bar from a
double precision evaluation (--exact), Tenon may be as far as it is. Exit status 1 above the bar.
"""
import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime as ort

HARNESS = r"""
#include "m.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* main INPUT... OUTPUT...: raw bytes of each */
int main(int argc, char **argv) {
  static const size_t in_bytes[M_NUM_INPUTS + 1] = %(in_bytes)s, out_bytes[M_NUM_OUTPUTS + 1] = %(out_bytes)s;
  const void *in[M_NUM_INPUTS + 1];
  void *out[M_NUM_OUTPUTS + 1];
  if (argc != 1 + M_NUM_INPUTS + M_NUM_OUTPUTS) return 9;
  for (int i = 0; i < M_NUM_INPUTS; i++) {
    void *p = aligned_alloc(64, (in_bytes[i] + 127) / 64 * 64);
    FILE *f = fopen(argv[1 + i], "rb");
    if (!f || fread(p, 1, in_bytes[i], f) != in_bytes[i]) return 8;
    fclose(f);
    in[i] = p;
  }
  for (int i = 0; i < M_NUM_OUTPUTS; i++) out[i] = aligned_alloc(64, (out_bytes[i] + 127) / 64 * 64);
  void *arena = aligned_alloc(64, (M_ARENA_BYTES(1) + 127) / 64 * 64);
  memset(arena, 0xff, M_ARENA_BYTES(1));
  int code = m_run(in, out, NULL, NULL, NULL, NULL, arena, NULL);
  if (code) return fprintf(stderr, "m_run: %%d\n", code), 7;
  for (int i = 0; i < M_NUM_OUTPUTS; i++) {
    FILE *f = fopen(argv[1 + M_NUM_INPUTS + i], "wb");
    if (!f || fwrite(out[i], 1, out_bytes[i], f) != out_bytes[i] || fclose(f)) return 6;
  }
  return 0;
}
"""

SAFE = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


def file_of(name):
    return "".join(c if c in SAFE else "_" for c in name) + ".npy"


def package_file(package, path):
    spec = importlib.util.find_spec(package)
    if not spec or not spec.origin:
        return None
    p = os.path.join(os.path.dirname(spec.origin), path)
    return p if os.path.exists(p) else None


def random_input(shape, dtype, k):
    """The same numbers as `tenon run` draws for input k (frontend/inputs.h)."""
    n = int(np.prod(shape, dtype=np.int64))
    with np.errstate(over="ignore"):
        z = (np.arange(n, dtype=np.uint64) + np.uint64(k << 40) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    if dtype in (np.float32, np.float64):
        v = (z >> np.uint64(40)).astype(np.float64) / 2**23 - 1
    elif dtype == np.float16:
        v = (z >> np.uint64(53)).astype(np.float64) / 2**10 - 1
    else:
        v = z >> np.uint64(63)
    return v.astype(dtype).reshape(shape)


# ---- real input: something with structure, in the form each model expects ----

def photo(h, w):
    """A picture without a file: sky, a disc, stripes; RGB in [0, 1]."""
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    img = np.stack([0.4 + 0.4 * y / h, 0.5 + 0.3 * x / w, 0.9 - 0.5 * y / h])
    disc = (x - w * 0.6) ** 2 + (y - h * 0.4) ** 2 < (h * 0.2) ** 2
    img[:, disc] = np.array([0.9, 0.7, 0.2])[:, None]
    stripes = (y > h * 0.7) & ((x // 12) % 2 == 0)
    img[:, stripes] = np.array([0.1, 0.3, 0.1])[:, None]
    return img


def imagenet(h, w):
    img = photo(h, w)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return ((img - mean[:, None, None]) / std[:, None, None])[None].astype(np.float32)


def page(h, w):
    """A picture with text for the detector, normalised to [-1, 1]."""
    from PIL import Image, ImageDraw

    im = Image.new("RGB", (w, h), "white")
    d = ImageDraw.Draw(im)
    for k, y in enumerate(range(20, h - 30, 40)):
        d.text((15 + 7 * k, y), "Tenon compiles tensor graphs %d" % k, fill="black", font_size=22)
    a = np.asarray(im, dtype=np.float32) / 255
    return ((a - 0.5) / 0.5).transpose(2, 0, 1)[None].astype(np.float32)


def source_bytes(n):
    """magika's input: the first and last bytes of a file; 256 pads."""
    text = open(__file__, "rb").read()
    half = n // 2
    begin, end = text.lstrip()[:half], text.rstrip()[-half:]
    return np.array([list(begin) + [256] * (half - len(begin)) + [256] * (half - len(end)) + list(end)], dtype=np.int32)


def real_inputs(name, inputs):
    """inputs: [(name, shape, dtype)] → arrays, or None where there is nothing sensible."""
    shape, dtype = inputs[0][1], inputs[0][2]
    if "det_infer" in name:
        return [page(shape[2], shape[3])]
    if "magika" in name:
        return [source_bytes(shape[1])]
    if "bert" in name:
        out = []
        rng = np.random.default_rng(1)
        for n, s, t in inputs:
            if "mask" in n:
                v = np.ones(s)
                v[..., s[-1] * 3 // 4:] = 0
            elif "type" in n:
                v = np.zeros(s)
            else:
                v = rng.integers(1000, 25000, s)
            out.append(v.astype(t))
        return out
    if len(shape) == 4 and shape[1] == 3 and dtype == np.float32:
        return [imagenet(shape[2], shape[3])]
    return None


def randomise(path, work):
    """onnx's light models fill their weights with one number, so that every output is the same: here
    they get random ones (He's scale; vectors in [0.5, 1.5], fit for variances)."""
    from onnx import helper, numpy_helper

    m = onnx.load(path)
    known = {t.name: numpy_helper.to_array(t) for t in m.graph.initializer}
    rng = np.random.default_rng(7)
    nodes, drawn = list(m.graph.node), 0
    del m.graph.node[:]
    for n in nodes:
        if n.op_type == "ConstantOfShape" and n.input[0] in known:
            shape = tuple(int(d) for d in known[n.input[0]])
            dtype = helper.tensor_dtype_to_np_dtype(n.attribute[0].t.data_type) if n.attribute else np.float32
            if len(shape) > 1:
                v = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
            else:
                v = rng.uniform(0.5, 1.5, shape)
            m.graph.initializer.append(numpy_helper.from_array(v.astype(dtype), n.output[0]))
            drawn += 1
        else:
            m.graph.node.append(n)
    if not drawn:
        return None
    out = os.path.join(work, "randomised.onnx")
    onnx.save(m, out)
    return out


ORT_TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16, "tensor(int64)": np.int64,
             "tensor(int32)": np.int32, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8, "tensor(bool)": np.bool_}


def to_double(path, work):
    """The model with float32 tensors as float64: ONNX Runtime then evaluates it almost exactly."""
    from onnx import TensorProto, helper, numpy_helper

    m = onnx.load(path)

    def tensor(t):
        if t.data_type == TensorProto.FLOAT:
            t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(t).astype(np.float64), t.name))

    def graph(g):
        for t in g.initializer:
            tensor(t)
        for v in list(g.input) + list(g.output) + list(g.value_info):
            if v.type.tensor_type.elem_type == TensorProto.FLOAT:
                v.type.tensor_type.elem_type = TensorProto.DOUBLE
        for n in g.node:
            for a in n.attribute:
                if a.type == onnx.AttributeProto.TENSOR:
                    tensor(a.t)
                elif a.type == onnx.AttributeProto.GRAPH:
                    graph(a.g)
                elif n.op_type == "Cast" and a.name == "to" and a.i == TensorProto.FLOAT:
                    a.i = TensorProto.DOUBLE

    graph(m.graph)
    # onnx's reference evaluates BatchNormalization before opset 14 as in training: written out instead
    known = {t.name: numpy_helper.to_array(t) for t in m.graph.initializer}
    known.update({n.output[0]: numpy_helper.to_array(n.attribute[0].t) for n in m.graph.node if n.op_type == "Constant" and n.attribute[0].name == "value"})
    nodes = list(m.graph.node)
    del m.graph.node[:]
    for n in nodes:
        if n.op_type == "BatchNormalization" and all(i in known for i in n.input[1:]):
            scale, bias, mean, var = (known[i] for i in n.input[1:])
            eps = next((a.f for a in n.attribute if a.name == "epsilon"), 1e-5)
            a = scale / np.sqrt(var + eps)
            for what, v in (("a", a), ("b", bias - mean * a)):
                m.graph.initializer.append(numpy_helper.from_array(v.reshape(-1, 1, 1), n.output[0] + "." + what))
            m.graph.node.append(helper.make_node("Mul", [n.input[0], n.output[0] + ".a"], [n.output[0] + ".m"]))
            m.graph.node.append(helper.make_node("Add", [n.output[0] + ".m", n.output[0] + ".b"], [n.output[0]]))
        else:
            m.graph.node.append(n)
    out = os.path.join(work, "double.onnx")
    onnx.save(m, out, save_as_external_data=m.ByteSize() > 1 << 30)
    return out


class Exact:
    """Evaluation in double precision by onnx's reference implementation (slow)."""

    def __init__(self, path, work):
        from onnx.reference import ReferenceEvaluator
        from onnx.reference.op_run import OpRun

        class GatherElements(OpRun):
            """onnx's own fails for some sizes."""

            def _run(self, data, indices, axis=None):
                return (np.take_along_axis(data, indices, axis=axis or 0),)

        self.run = ReferenceEvaluator(to_double(path, work), new_ops=[GatherElements]).run


def error(got, want):
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    if got.shape != want.shape:
        return float("inf")
    ref = np.max(np.abs(want), initial=0)
    diff = np.max(np.abs(got - want), initial=0)
    if not np.isfinite(diff):
        return float("inf") if not np.array_equal(np.isnan(got), np.isnan(want)) else 0.0
    return float(diff / ref) if ref else float(diff)


def call(cmd, **kw):
    r = subprocess.run(cmd, capture_output=True, text=True, **kw)
    if r.returncode:
        raise RuntimeError("%s: status %d: %s" % (" ".join(cmd[:3]), r.returncode, (r.stderr or r.stdout).strip()[-600:]))
    return r.stdout


def compare(args, name, path, dims, rows):
    if name.endswith(" randomised"):
        with tempfile.TemporaryDirectory() as work:
            changed = randomise(path, work)
            if changed:
                compare_file(args, name, changed, dims, rows)
    else:
        compare_file(args, name, path, dims, rows)


def compare_file(args, name, path, dims, rows):
    sess_options = ort.SessionOptions()
    sess_options.intra_op_num_threads = args.threads
    sess = ort.InferenceSession(path, sess_options, providers=["CPUExecutionProvider"])
    inputs = []
    for i in sess.get_inputs():
        unknown = [d for d in i.shape if not isinstance(d, int) and d not in dims]
        if unknown:
            raise ValueError("dimensions without a size (--dim NAME=N): %s" % ", ".join(map(str, unknown)))
        shape = [d if isinstance(d, int) else int(dims[d]) for d in i.shape]
        inputs.append((i.name, shape, ORT_TYPES[i.type]))
    outputs = [o.name for o in sess.get_outputs()]
    feeds = [("random", [random_input(s, t, k) for k, (n, s, t) in enumerate(inputs)])]
    real = real_inputs(name, inputs)
    if real:
        feeds.append(("real", real))
    flags = ["--threads", str(args.threads)] + args.tenon_flags.split()
    for d, v in dims.items():
        flags += ["--dim", "%s=%s" % (d, v)]
    with tempfile.TemporaryDirectory() as work:
        # the object, once
        aot = None
        if not args.no_aot:
            start = time.time()
            call([args.tenon, "compile", path, "-o", work + "/m.o", "--prefix", "m"] + flags)
            compile_s = time.time() - start
            text = open(work + "/m.h").read()
            macro = lambda which: next((l.split(None, 2)[2] for l in text.splitlines() if l.startswith("#define M_%s_BYTES " % which)), "{0}")
            with open(work + "/main.c", "w") as f:
                f.write(HARNESS % {"in_bytes": macro("INPUT"), "out_bytes": macro("OUTPUT")})
            call([args.cc, "-O1", "-I", work, work + "/main.c", work + "/m.o", "-lm", "-o", work + "/main"])
            aot = work + "/main"
        exact = None
        for kind, arrays in feeds:
            want = sess.run(outputs, {n: a for (n, _, _), a in zip(inputs, arrays)})
            results = {}
            cmd = [args.tenon, "run", path, "--output-dir", work + "/out"] + flags
            for k, ((n, _, _), a) in enumerate(zip(inputs, arrays)):
                np.save("%s/in%d.npy" % (work, k), a)
                if kind != "random":  # the random ones must be those that tenon draws
                    cmd += ["--input", "%s=%s/in%d.npy" % (n, work, k)]
            call(cmd)
            results["jit"] = [np.load(os.path.join(work, "out", file_of(o))) for o in outputs]
            if aot:
                files = []
                for k, a in enumerate(arrays):
                    a.tofile("%s/in%d.bin" % (work, k))
                    files.append("%s/in%d.bin" % (work, k))
                outs = ["%s/out%d.bin" % (work, k) for k in range(len(outputs))]
                call([aot] + files + outs)
                results["aot"] = [np.fromfile(o, dtype=w.dtype).reshape(w.shape) for o, w in zip(outs, want)]
            for engine, got in results.items():
                for o, g, w in zip(outputs, got, want):
                    row = {"model": name, "input": kind, "engine": engine, "output": o, "shape": list(w.shape), "error": error(g, w)}
                    row["ok"] = row["error"] <= args.bar
                    if not row["ok"] and args.exact:
                        if exact is None:
                            exact = Exact(path, work)
                        truth = exact.run(outputs, {n: a.astype(np.float64) if a.dtype == np.float32 else a for (n, _, _), a in zip(inputs, arrays)})
                        t = truth[outputs.index(o)]
                        row["error_exact"], row["ort_exact"] = error(g, t), error(w, t)
                        row["ok"] = row["ort_exact"] > args.bar and row["error_exact"] <= row["ort_exact"]
                    rows.append(row)
                    more = "  to fp64: %.2e, ONNX Runtime %.2e" % (row["error_exact"], row["ort_exact"]) if "error_exact" in row else ""
                    print("%-34s %-7s %-4s %-24s %.2e %s%s" % (name[-34:], kind, engine, o[-24:], row["error"], "ok" if row["ok"] else "ABOVE THE BAR", more), flush=True)
        if aot:
            rows[-1]["compile_s"] = compile_s


def main():
    p = argparse.ArgumentParser()
    p.add_argument("models", nargs="*")
    p.add_argument("--tenon", default="build/tenon")
    p.add_argument("--tenon-flags", default="")
    p.add_argument("--cc", default=os.environ.get("CC", "cc"))
    p.add_argument("--bar", type=float, default=1e-4)
    p.add_argument("--only", default="")
    p.add_argument("--json")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--no-aot", action="store_true")
    p.add_argument("--no-packages", action="store_true", help="only what is named")
    p.add_argument("--exact", action="store_true", help="above the bar: evaluate in double precision too")
    p.add_argument("--dim", action="append", default=[], help="for the named models")
    args = p.parse_args()
    given = dict(d.rsplit("=", 1) for d in args.dim)
    jobs = []
    for m in args.models:
        if os.path.isdir(m):
            jobs += [(f[:-5], os.path.join(m, f), given) for f in sorted(os.listdir(m)) if f.endswith(".onnx")]
        else:
            jobs.append((os.path.basename(m)[:-5], m, given))
    if not args.no_packages:
        det = package_file("rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx")
        for h, w in ((320, 480), (640, 416)) if det else ():
            names = [d for d in ort.InferenceSession(det, providers=["CPUExecutionProvider"]).get_inputs()[0].shape if isinstance(d, str)]
            jobs.append(("ch_PP-OCRv4_det_infer %dx%d" % (h, w), det, dict(zip(names, (1, h, w)))))
        mag = package_file("magika", "models/standard_v3_3/model.onnx")
        if mag:
            batch = ort.InferenceSession(mag, providers=["CPUExecutionProvider"]).get_inputs()[0].shape[0]
            jobs.append(("magika", mag, {batch: 1} if isinstance(batch, str) else {}))
        light = package_file("onnx", "backend/test/data/light")
        if light:
            for f in sorted(os.listdir(light)):
                if f.endswith(".onnx"):
                    jobs += [(f[:-5], os.path.join(light, f), {}), (f[:-5] + " randomised", os.path.join(light, f), {})]
    rows, failed = [], 0
    for name, path, dims in jobs:
        if args.only and args.only not in name:
            continue
        try:
            compare(args, name, path, dims, rows)
        except Exception as e:  # one model must not hide the others
            rows.append({"model": name, "ok": False, "reason": str(e)})
            print("%-34s FAILED: %s" % (name[-34:], e), flush=True)
    failed = sum(not r["ok"] for r in rows)
    if args.json:
        with open(args.json, "w") as f:
            json.dump({"bar": args.bar, "onnxruntime": ort.__version__, "rows": rows}, f, indent=1)
    print("%d comparisons, %d above the bar of %g or failed" % (len(rows), failed, args.bar))
    return 1 if failed or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
