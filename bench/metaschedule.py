"""Tenon's tuner against TVM's MetaSchedule: kernels tuned by both with the same number of trials, on one core.

    python3 -m venv tvm-venv && tvm-venv/bin/pip install apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.14.post1 \
        numpy xgboost psutil cloudpickle tornado                                     # 0.1.15 of the ffi crashes
    tvm-venv/bin/python bench/metaschedule.py --tenon build/tenon gemm:f32:256x256x256 conv:f32:n1c64h28w28k64r3s3p1

Both operands of a matrix product come at run time, row-major (Tenon: KERNEL:var). Convolutions read and write
row-major NCHW, with copies into whatever layout they like; Tenon has their weights as constants, TVM reads
them as they are. TVM searches its own space with its own cost model, once with its defaults (batches of 64) and once
with batches of 8. One of its runs, to the most trials, counts for the fewer trials too: by the best after so many and
the time until then (half a batch of the defaults counts what the whole batch took to build). Its own builder starts
processes for each batch that import TVM for 20 s each; here it builds in this process instead, in as many threads as
Tenon has workers, and imports count for nothing: both are in its favour. Winners are timed in this process, in turn
(ABBA), through functions of shared objects; medians of seven rounds. Wall times are those of the tuning alone. One
line a case, then the shares that issue C2 asks for: better final speed, and TVM's speed at the most trials reached in
a tenth of its time. Rows add up in the file that --json names.
"""
import argparse
import concurrent.futures
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
    p.add_argument("--json", help="rows are added to this file, and the report is about all in it")
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


def in_process_builder(jobs):
    from tvm.ir.utils import derived_object
    from tvm.s_tir.meta_schedule.builder import BuilderResult, PyBuilder
    from tvm.s_tir.meta_schedule.builder.local_builder import default_build, default_export

    def one(i):
        try:
            return BuilderResult(default_export(default_build(i.mod, i.target, None)), None)
        except Exception as e:
            return BuilderResult(None, str(e)[:1000])

    @derived_object
    class Builder(PyBuilder):
        def build(self, build_inputs):
            with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
                return list(pool.map(one, build_inputs))
    return Builder()


def between():
    """Called after each batch of TVM's, for those who share a machine; returns the seconds that this took."""
    return 0.0


def best_so_far(looks, found):
    """Fills found[n] with (schedule, seconds on the clock) as n trials are through."""
    from tvm.ir.utils import derived_object
    from tvm.s_tir.meta_schedule.measure_callback import PyMeasureCallback
    state = {"n": 0, "ns": float("inf"), "mod": None, "off": 0.0}

    @derived_object
    class Look(PyMeasureCallback):
        def apply(self, task_scheduler, task_id, measure_candidates, builder_results, runner_results):
            now = time.perf_counter() - state["off"]
            for c, r in zip(measure_candidates, runner_results):
                seconds = statistics.median(float(x) for x in r.run_secs) if r.run_secs else float("inf")
                if seconds < state["ns"]:
                    state["ns"], state["mod"] = seconds, c.sch.mod
                state["n"] += 1
                if state["n"] in looks:
                    found[state["n"]] = state["mod"], now
            state["off"] += between()
    return Look()


def tune_tvm(name, looks, batch, folder):
    """Per number of trials: a shared object's function with its operands (None: nothing ran), the seconds until then."""
    import tvm
    import tvm.s_tir.tensor_intrin
    from tvm.s_tir import meta_schedule as ms
    from tvm.s_tir.meta_schedule.builder.local_builder import default_build
    from tvm.s_tir.meta_schedule.measure_callback import MeasureCallback
    cpu = subprocess.run(["gcc", "-march=native", "-Q", "--help=target"], capture_output=True, text=True).stdout
    cpu = re.search(r"-march=\s+(\S+)", cpu)
    target = tvm.target.Target({"kind": "llvm", "mcpu": cpu.group(1) if cpu else "x86-64-v3", "num-cores": 1})
    func, shapes = tvm_module(name)
    mod = tvm.IRModule({"main": func.with_attr("global_symbol", "main")})
    found = {}
    start = time.perf_counter()
    ms.tune_tir(mod, target, folder, max_trials_global=max(looks), num_trials_per_iter=batch, seed=1, builder=in_process_builder(len(os.sched_getaffinity(0))),
                measure_callbacks=[*MeasureCallback.create("default"), best_so_far(looks, found)])
    end = time.perf_counter()
    rng = np.random.default_rng(1)
    arrays = [tvm.runtime.tensor(rng.uniform(-1, 1, s).astype(np.float32)) for s in shapes]
    out = {}
    for n in looks:
        best, then = found.get(n) or found[max(found)] if found else (None, end)
        call = None
        if best is not None:
            path = os.path.join(folder, "winner%d.so" % n)
            default_build(best, target, None).export_library(path)
            main = tvm.runtime.load_module(path)["main"]
            call = lambda main=main: main(*arrays)
        out[n] = call, then - start
    return out


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
    for i in range(7):
        for who in ((0, 1), (1, 0))[i % 2]:
            times[who].append(sample((a, b)[who], seconds))
    return statistics.median(times[0]), statistics.median(times[1])


def report(rows):
    print("\nfaster in %d of %d cases, by %.2f in geometric mean" % (sum(r["tenon_s"] < r["tvm_s"] for r in rows), len(rows),
          statistics.geometric_mean(min(r["tvm_s"] / r["tenon_s"], 1e6) for r in rows)))
    most = max(r["trials"] for r in rows)
    for r in rows:
        if r["trials"] != most:
            continue
        reached = [x["tenon_tuning_s"] for x in rows if x["workload"] == r["workload"] and x["batch"] == r["batch"] and x["tenon_s"] <= r["tvm_s"]]
        print("%s, batches of %d: TVM's result at %d trials reached %s" % (r["workload"], r["batch"], r["trials"],
              "in 1/%.0f of its time" % (r["tvm_tuning_s"] / min(reached)) if reached else "never"))


def main():
    o = options()
    looks = sorted(int(x) for x in o.trials.split(","))
    rows = []
    if o.json and os.path.exists(o.json):
        with open(o.json) as f:
            rows = json.load(f)
    print("%-36s %6s %5s %12s %12s %8s %10s %10s" % ("workload", "trials", "batch", "TVM us", "Tenon us", "faster", "TVM s", "Tenon s"), flush=True)
    for name in o.workloads or DEFAULT:
        with tempfile.TemporaryDirectory() as folder:
            mine = {}
            for n in looks:
                os.mkdir(os.path.join(folder, str(n)))
                mine[n] = tune_tenon(o, name, n, os.path.join(folder, str(n)))
            for batch in [int(x) for x in o.batches.split(",")]:
                os.mkdir(os.path.join(folder, "tvm%d" % batch))
                theirs = tune_tvm(name, looks, batch, os.path.join(folder, "tvm%d" % batch))
                cpus = os.sched_getaffinity(0)
                os.sched_setaffinity(0, {o.cpu})
                for n in looks:
                    t, m = compare(theirs[n][0], mine[n][0], o.seconds) if theirs[n][0] else (float("inf"), sample(mine[n][0], o.seconds))
                    row = {"workload": name, "trials": n, "batch": batch, "tvm_s": t, "tenon_s": m, "tvm_tuning_s": theirs[n][1], "tenon_tuning_s": mine[n][1]}
                    rows = [r for r in rows if (r["workload"], r["trials"], r["batch"]) != (name, n, batch)] + [row]
                    print("%-36s %6d %5d %12.1f %12.1f %8.2f %10.1f %10.1f" % (name, n, batch, t * 1e6, m * 1e6, t / m, theirs[n][1], mine[n][1]), flush=True)
                os.sched_setaffinity(0, cpus)
                if o.json:
                    with open(o.json, "w") as f:
                        json.dump(rows, f, indent=1)
    report(rows)


if __name__ == "__main__":
    sys.exit(main())
