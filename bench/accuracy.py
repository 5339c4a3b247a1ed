"""Errors of whole models against an fp64 reference: ONNX Runtime, Tenon strict, Tenon as by default.

    python3 bench/accuracy.py --tenon build/tenon --models DIR [--case TEXT] [--inputs N]

The reference is the model with every float made double, run by ONNX's reference evaluator (NumPy). An error is
the largest difference over the largest magnitude of the output. Held: strict at most twice ONNX Runtime's, by
default at most the accuracy that was asked for on top of it. Quantised models (*.int8.onnx) are compared by
rounded layers elsewhere (bench/int8.py), since an error there is a quantum or nothing. Exit code 1 when an error
is larger, 0 also when Python packages or models are missing: it says so.
"""
import argparse
import glob
import os
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "models"))
BUDGET = 1e-4
PIXELS = 64  # along an axis of a picture that the model leaves open: the reference is slow


def inputs_of(model, seed):
    import numpy as np
    random, constants = np.random.default_rng(seed), {t.name for t in model.graph.initializer}
    result = {}
    for v in model.graph.input:
        if v.name in constants:
            continue
        dims = v.type.tensor_type.shape.dim
        shape = [d.dim_value or (PIXELS if len(dims) == 4 and i > 1 else 1) for i, d in enumerate(dims)]
        whole = v.type.tensor_type.elem_type in (6, 7)
        result[v.name] = random.integers(0, 2, shape).astype(np.int64 if v.type.tensor_type.elem_type == 7 else np.int32) if whole else random.uniform(-1, 1, shape).astype(np.float32)
    return result


def tenon(binary, path, feed, names, accuracy, work):
    import compare_ort
    import numpy as np
    argv = [binary, "run", path, "--db", "none", "--output-dir", work] + (["--accuracy", accuracy] if accuracy else [])
    for k, (name, v) in enumerate(feed.items()):
        np.save(os.path.join(work, "in%d.npy" % k), v)
        argv += ["--input", "%s=%s" % (name, os.path.join(work, "in%d.npy" % k))]
    compare_ort.call(argv)
    return [np.load(os.path.join(work, compare_ort.file_of(n))) for n in names]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tenon", required=True)
    p.add_argument("--models", required=True)
    p.add_argument("--case", default="")
    p.add_argument("--inputs", type=int, default=2)
    o = p.parse_args()
    try:
        import compare_ort
        import onnx
        import onnxruntime
    except ImportError as e:
        print("skipped: %s" % e)
        return 0
    paths = [f for f in sorted(glob.glob(os.path.join(o.models, "*.onnx"))) if o.case in os.path.basename(f) and not f.endswith(".int8.onnx")]
    if not paths:
        print("skipped: no models in %s" % o.models)
        return 0
    bad = 0
    print("%-18s %12s %12s %8s %12s %8s" % ("model", "ONNX Runtime", "strict", "ratio", "default", "budget"))
    for path in paths:
        model = onnx.load(path)
        names, worst = [v.name for v in model.graph.output], [0, 0, 0]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        feeds = [inputs_of(model, s) for s in range(o.inputs)]
        with tempfile.TemporaryDirectory() as work:
            reference = compare_ort.Exact(path, work)
        for feed in feeds:
            want = reference.run(names, {k: v.astype("float64") if v.dtype == "float32" else v for k, v in feed.items()})
            with tempfile.TemporaryDirectory() as work:
                got = [session.run(names, feed), tenon(o.tenon, path, feed, names, "strict", work), tenon(o.tenon, path, feed, names, None, work)]
            worst = [max([a] + [compare_ort.error(x, y) for x, y in zip(g, want)]) for a, g in zip(worst, got)]
        held = worst[1] <= 2 * worst[0] and worst[2] <= BUDGET + 2 * worst[0]
        bad += not held
        print("%-18s %12.2e %12.2e %8.2f %12.2e %8.0e%s" % (os.path.basename(path)[:-5], *worst[:2], worst[1] / worst[0] if worst[0] else float(worst[1] > 0), worst[2], BUDGET, "" if held else "  TOO LARGE"), flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
