"""Quantised models layer by layer and as a whole, against ONNX Runtime.

    python3 bench/int8.py --tenon build/tenon --models DIR --made FOLDER [--case TEXT] [--inputs 200]

Makes the QDQ models (ONNX Runtime's static quantiser, calibrated on random data) in FOLDER unless they are there.
  layers   each part from quantised tensors to the next, given ONNX Runtime's own values: its result is within one
           quantum of that of the nodes as they are written (ONNX Runtime without optimisations)
  top-1    the largest output of so many random inputs agrees with ONNX Runtime's: as written, and optimised, where
           its AVX2 kernels saturate sums of two products
Exit code 1 when a layer is further off or top-1 agrees (as written) in less than 99 %; 0 also when packages or
models are missing: it says so. Times: bench/run --only int8.
"""
import argparse
import collections
import ctypes
import os
import subprocess
import sys
import tempfile

import cases


def session(model, optimised):
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def parts(model):
    """(inputs, output) of each piece: back from every QuantizeLinear to the quantised tensors before it."""
    made, constants = {o: n for n in model.graph.node for o in n.output}, {t.name for t in model.graph.initializer}
    sources = {v.name for v in model.graph.input}
    for q in model.graph.node:
        if q.op_type != "QuantizeLinear":
            continue
        inputs, todo, known = [], [q.input[0]], set()
        while todo:
            name = todo.pop()
            if name in known or name in constants or not name:
                continue
            known.add(name)
            node = made.get(name)
            if name in sources or node.op_type == "QuantizeLinear":
                inputs.append(name)
            else:
                todo += node.input
        if inputs:
            yield sorted(inputs), q.output[0]


class Object:
    """The model as a linked object."""

    def __init__(self, tenon, path, work):
        subprocess.run([tenon, "compile", path, "-o", work + "/m.o", "--prefix", "m", "--db", "none"], check=True, stdout=subprocess.DEVNULL)
        with open(work + "/m.c", "w") as f:
            f.write('#include "m.h"\n#include <stdlib.h>\nint go(const void *const *in, void *const *out) { void *arena = aligned_alloc(M_ALIGN, (M_ARENA_BYTES(1) + M_ALIGN) / M_ALIGN * M_ALIGN);\n'
                    "int r = m_run(in, out, 0, 0, 0, 0, arena, 0); free(arena); return r; }\n")
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", work + "/m.so", work + "/m.c", work + "/m.o", "-lm"], check=True)
        self.go = ctypes.CDLL(work + "/m.so").go

    def run(self, ins, outs):
        pointers = lambda list: (ctypes.c_void_p * len(list))(*[a.ctypes.data for a in list])
        code = self.go(pointers(ins), pointers(outs))
        if code:
            raise RuntimeError("run gave %d" % code)


def layers(o, model, path, work):
    import numpy as np
    import onnx
    from onnx.utils import Extractor
    every = onnx.ModelProto()
    every.CopyFrom(model)
    pieces = list(parts(model))
    shown = {v.name for v in every.graph.output}
    for _, name in pieces:
        if name not in shown:
            every.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None))
    feed = {v.name: cases.random("layers", [d.dim_value for d in v.type.tensor_type.shape.dim]) for v in model.graph.input}
    s = session(every.SerializeToString(), False)
    names = [v.name for v in s.get_outputs()]
    values = dict(zip(names, s.run(names, feed)), **feed)
    inferred = onnx.shape_inference.infer_shapes(model)
    extractor, counts, worst = Extractor(inferred), collections.Counter(), []
    for inputs, output in pieces:
        part = extractor.extract_model(inputs, [output])
        for v in list(part.graph.input) + list(part.graph.output):
            v.type.tensor_type.shape.CopyFrom(onnx.helper.make_tensor_value_info("x", 1, values[v.name].shape).type.tensor_type.shape)
            v.type.tensor_type.elem_type = onnx.helper.np_dtype_to_tensor_dtype(values[v.name].dtype)
        onnx.save(part, work + "/part.onnx")
        want = session(work + "/part.onnx", False).run(None, {n: values[n] for n in inputs})[0]
        argv = [o.tenon, "run", work + "/part.onnx", "--db", "none", "--output-dir", work]
        for k, n in enumerate(inputs):
            np.save("%s/in%d.npy" % (work, k), values[n])
            argv += ["--input", "%s=%s/in%d.npy" % (n, work, k)]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        got = np.load("%s/%s.npy" % (work, "".join(c if c.isalnum() or c in "._-" else "_" for c in output)))
        d = int(np.abs(got.astype(np.int32) - want.astype(np.int32)).max())
        counts[d] += 1
        if d > 1:
            worst.append("%s: %d quanta" % (output, d))
    print("%s: %d parts; largest difference: %s" % (os.path.basename(path), len(pieces), ", ".join("%d quanta in %d" % (d, n) for d, n in sorted(counts.items()))), flush=True)
    for w in worst:
        print("  WRONG " + w)
    return not worst


def top1(o, path, work):
    import numpy as np
    run = Object(o.tenon, path, work)
    references = [session(path, False), session(path, True)]
    v = references[0].get_inputs()[0]
    agree, both = [0, 0], 0
    for i in range(o.inputs):
        x = cases.random("top1 %d" % i, v.shape)
        wants = [s.run(None, {v.name: x})[0] for s in references]
        got = np.empty_like(wants[0])
        run.run([x], [got])
        # equal logits are one answer: quantised ones often are
        agree = [a + (w.reshape(-1)[int(got.argmax())] == w.max()) for a, w in zip(agree, wants)]
        both += wants[0].reshape(-1)[int(wants[1].argmax())] == wants[0].max()
    print("%s: top-1 of %d inputs: %.1f %% as written, %.1f %% as ONNX Runtime optimises it (which agrees with the first in %.1f %%)" %
          (os.path.basename(path), o.inputs, 100 * agree[0] / o.inputs, 100 * agree[1] / o.inputs, 100 * both / o.inputs), flush=True)
    return agree[0] >= 0.99 * o.inputs


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tenon", required=True)
    p.add_argument("--models", required=True)
    p.add_argument("--made", required=True)
    p.add_argument("--case", default="")
    p.add_argument("--inputs", type=int, default=200)
    o = p.parse_args()
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError as e:
        print("skipped: %s" % e)
        return 0
    good = True
    for name in ("resnet18", "resnet50", "mobilenet_v2"):
        path, made = os.path.join(o.models, name + ".onnx"), os.path.join(o.made, name + ".int8.onnx")
        if o.case not in name:
            continue
        if not os.path.exists(path):
            print("%s: skipped: no %s" % (name, path))
            continue
        error = cases.quantised(path, made)
        if error:
            print("%s: skipped: %s" % (name, error))
            continue
        model = onnx.load(made)
        with tempfile.TemporaryDirectory() as work:
            good &= layers(o, model, made, work)
            good &= top1(o, made, work) if o.inputs else True
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
