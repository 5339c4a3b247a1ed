"""Tenon's tuner against TVM's MetaSchedule: kernels tuned by both with the same number of trials, on one core.

    python3 -m venv tvm-venv && tvm-venv/bin/pip install apache-tvm numpy xgboost psutil cloudpickle tornado
    tvm-venv/bin/python bench/metaschedule.py --tenon build/tenon gemm:f32:256x256x256 conv:f32:n1c64h28w28k64r3s3p1

Both operands of a matrix product come at run time, row-major (Tenon: KERNEL:var). Convolutions read and write
row-major NCHW, with copies into whatever layout they like; Tenon has their weights as constants, TVM reads
them as they are. TVM searches its own space with its own cost model, once with its defaults (batches of 64) and once with batches
of 8. Winners are timed in this process, in turn (ABBA), through functions of shared objects; the fastest of
the medians of five rounds counts. Wall times are those of the tuning alone. One line a case, then the shares
that issue C2 asks for: better final speed, and TVM's speed at the most trials reached in a tenth of its time.
"""
import argparse
import ctypes
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

DEFAULT = ["gemm:f32:256x256x256", "gemm:f32:128x512x512", "gemm:f32:49x512x2048", "gemm:f32:784x128x128", "gemm:f32:8x1024x1024",
           "conv:f32:n1c64h56w56k64r1s1", "conv:f32:n1c256h14w14k256r1s1", "conv:f32:n1c64h56w56k64r3s3p1", "conv:f32:n1c128h28w28k128r3s3p1",
           "conv:f32:n1c256h14w14k256r3s3p1"]


def options():
    p = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    p.add_argument("workloads", nargs="*", help="as for tenon tune; default: ten of them")
    p.add_argument("--trials", default="16,64,256")
    p.add_argument("--batches", default="64,8", help="trials that TVM proposes at a time")
    p.add_argument("--tenon", default="build/tenon")
    p.add_argument("--seconds", type=float, default=0.1, help="of one sample")
    p.add_argument("--accuracy", default="strict", help="of Tenon: strict, or with Winograd 1e-4; TVM's space has no other algorithm")
    p.add_argument("--cpu", type=int, default=max(os.sched_getaffinity(0)), help="where winners are timed")
    p.add_argument("--json")
    return p.parse_args()


# ---- TVM ----

def tvm_module(name):
    """The kernel as TVM would have it, and the shapes of its operands."""
    from tvm import te, topi
    numbers = dict((k, int(v)) for k, v in re.findall(r"([a-z])(\d+)", name.split(":")[2]))
    if name.startswith("gemm"):
        m, n, k = map(int, name.split(":")[2].split("x"))
        a, b = te.placeholder((m, k), name="A"), te.placeholder((k, n), name="B")
        r = te.reduce_axis((0, k), name="k")
        c = te.compute((m, n), lambda i, j: te.sum(a[i, r] * b[r, j], axis=r), name="C")
    else:
        g = numbers.get
        a = te.placeholder((g("n"), g("c"), g("h"), g("w")), name="A")
        b = te.placeholder((g("k"), g("c"), g("r"), g("s")), name="B")
        c = topi.nn.conv2d_nchw(a, b, g("u", 1), g("p", 0), g("d", 1))
    return te.create_prim_func([a, b, c]), [tuple(map(int, x.shape)) for x in (a, b, c)]


def tune_tvm(name, trials, batch, folder):
    """A shared object's function with its operands, and the seconds that tuning took."""
    import tvm
    from tvm.s_tir import meta_schedule as ms
    cpu = subprocess.run(["gcc", "-march=native", "-Q", "--help=target"], capture_output=True, text=True).stdout
    cpu = re.search(r"-march=\s+(\S+)", cpu)
    target = tvm.target.Target({"kind": "llvm", "mcpu": cpu.group(1) if cpu else "x86-64-v3", "num-cores": 1})
    func, shapes = tvm_module(name)
    mod = tvm.IRModule({"main": func.with_attr("global_symbol", "main")})
    start = time.perf_counter()
    database = ms.tune_tir(mod, target, folder, max_trials_global=trials, num_trials_per_iter=min(batch, trials), seed=1)
    seconds = time.perf_counter() - start
    schedule = ms.tir_integration.compile_tir(database, mod, target)
    if schedule is None:
        return None, seconds
    path = os.path.join(folder, "winner.so")
    tvm.compile(schedule.mod, target).export_library(path)
    lib = tvm.runtime.load_module(path)
    rng = np.random.default_rng(1)
    arrays = [tvm.runtime.tensor(rng.uniform(-1, 1, s).astype(np.float32)) for s in shapes]
    main = lib["main"]
    return (lambda: main(*arrays)), seconds


# ---- Tenon ----

def aligned(size):
    raw = np.zeros(size + 64, np.uint8)
    at = -raw.ctypes.data % 64
    return raw[at:at + size]


def tune_tenon(o, name, trials, folder):
    db = os.path.join(folder, "tenon.db")
    common = ["--db", db, "--accuracy", o.accuracy]
    if name.startswith("gemm") and not name.endswith(":var"):
        name += ":var"
    start = time.perf_counter()
    subprocess.run([o.tenon, "tune", name, "--trials", str(trials), *common], check=True, capture_output=True)
    seconds = time.perf_counter() - start
    obj, header, lib = (os.path.join(folder, x) for x in ("t.o", "t.h", "t.so"))
    subprocess.run([o.tenon, "compile", name, "-o", obj, "--header", header, "--prefix", "t", *common], check=True, capture_output=True)
    with open(os.path.join(folder, "size.c"), "w") as f:
        f.write('#include "t.h"\nlong arena(void) { return T_ARENA_BYTES(1); }\nlong outputs(void) { return T_OUTPUT_0_BYTES; }\n'
                'long inputs(int i) { static const long bytes[] = T_INPUT_BYTES; return i < T_NUM_INPUTS ? bytes[i] : 0; }\n')
    subprocess.run(["cc", "-shared", "-fPIC", "-o", lib, os.path.join(folder, "size.c"), obj, "-lm"], check=True)
    t = ctypes.CDLL(lib)
    for f in (t.arena, t.outputs, t.inputs):
        f.restype = ctypes.c_long
    x, y, arena = [aligned(t.inputs(i)) for i in range(2) if t.inputs(i)], aligned(t.outputs()), aligned(t.arena() + 64)
    for a in x:
        a.view(np.float32)[:] = np.random.default_rng(1).uniform(-1, 1, a.size // 4)
    pointers = lambda arrays: (ctypes.c_void_p * len(arrays))(*[a.ctypes.data for a in arrays])
    args = [pointers(x), pointers([y]), None, None, None, None, ctypes.c_void_p(arena.ctypes.data), None]
    keep = (t, x, y, arena)

    def call(run=t.t_run, args=args, keep=keep):
        run(*args)
    if t.t_run(*args) != 0:
        raise RuntimeError("t_run fails")
    return call, seconds


# ---- the harness ----

def sample(call, seconds):
    """Seconds of one call, over as many as fill the time."""
    n, start = 1, time.perf_counter()
    call()
    n = max(1, int(seconds / max(time.perf_counter() - start, 1e-7)))
    start = time.perf_counter()
    for _ in range(n):
        call()
    return (time.perf_counter() - start) / n


def compare(a, b, seconds):
    """Medians of both, in turn."""
    times = ([], [])
    for i in range(5):
        for who in ((0, 1), (1, 0))[i % 2]:
            times[who].append(sample((a, b)[who], seconds))
    return statistics.median(times[0]), statistics.median(times[1])


def main():
    o = options()
    trials = [int(x) for x in o.trials.split(",")]
    rows = []
    print("%-36s %6s %5s %12s %12s %8s %10s %10s" % ("workload", "trials", "batch", "TVM us", "Tenon us", "faster", "TVM s", "Tenon s"), flush=True)
    for name in o.workloads or DEFAULT:
        for n in trials:
            with tempfile.TemporaryDirectory() as folder:
                mine, my_seconds = tune_tenon(o, name, n, folder)
                for batch in [int(x) for x in o.batches.split(",")]:
                    with tempfile.TemporaryDirectory() as theirs_folder:
                        theirs, seconds = tune_tvm(name, n, batch, theirs_folder)
                        cpus = os.sched_getaffinity(0)
                        os.sched_setaffinity(0, {o.cpu})
                        t, m = compare(theirs, mine, o.seconds) if theirs else (float("inf"), sample(mine, o.seconds))
                        os.sched_setaffinity(0, cpus)
                    rows.append({"workload": name, "trials": n, "batch": batch, "tvm_s": t, "tenon_s": m, "tvm_tuning_s": seconds, "tenon_tuning_s": my_seconds})
                    print("%-36s %6d %5d %12.1f %12.1f %8.2f %10.1f %10.1f" % (name, n, batch, t * 1e6, m * 1e6, t / m, seconds, my_seconds), flush=True)
    print("\nfaster in %d of %d cases" % (sum(r["tenon_s"] < r["tvm_s"] for r in rows), len(rows)))
    for r in rows:
        if r["trials"] != max(trials):
            continue
        reached = [x["tenon_tuning_s"] for x in rows if x["workload"] == r["workload"] and x["batch"] == r["batch"] and x["tenon_s"] <= r["tvm_s"]]
        print("%s, batches of %d: TVM's result at %d trials reached %s" % (r["workload"], r["batch"], r["trials"],
              "in 1/%.0f of its time" % (r["tvm_tuning_s"] / min(reached)) if reached else "never"))
    if o.json:
        with open(o.json, "w") as f:
            json.dump(rows, f, indent=1)


if __name__ == "__main__":
    sys.exit(main())
