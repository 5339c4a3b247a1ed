"""The benchmark: rounds over all peers, checks, statistics. Started by bench/run.

A round measures the multiply-add peak of the core, then every program for a fraction of a second,
in an order that rotates. What counts is the fastest run of each sample; a ratio is the median over
the rounds of (peer's time / Tenon's time) of one round, so that a slow spell of the machine hits
both sides. Results are compared before any time is taken.
"""
import argparse
import json
import math
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time

import numpy as np

import cases as lists
import report
from peer import Peer

HERE = os.path.dirname(os.path.abspath(__file__))


def options():
    p = argparse.ArgumentParser(prog="bench/run", formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__,
                                epilog="See bench/README.md. bench/run itself also takes --install LIST and --python PATH.")
    p.add_argument("--quick", action="store_true", help="few cases, few rounds")
    p.add_argument("--only", action="append", choices=["gemm", "conv", "models", "int8"], help="may be repeated")
    p.add_argument("--case", action="append", default=[], help="only cases whose name contains this, or a kernel's full name in the lists or not: 64x64x64, n1c8h9w9k8r3s3u1p1; may be repeated")
    p.add_argument("--again", metavar="FILE", help="only cases of these earlier results (JSON)")
    p.add_argument("--below", type=float, default=0.95, help="with --again: those whose ratio was below (default 0.95)")
    p.add_argument("--rounds", type=int, help="default 7, or 3 with --quick")
    p.add_argument("--seconds", type=float, help="of one sample; default 0.1, models 0.5")
    p.add_argument("--threads", default="1", metavar="N[,N...]", help="of every program (default 1); 1,2 also tells the speed-ups")
    p.add_argument("--cpus", help="such as 1 or 0,1; default: the last ones")
    p.add_argument("--accuracy", default="1e-4", help="of Tenon: strict, or what faster algorithms may lose (default 1e-4)")
    p.add_argument("--isa", choices=["avx2"], help="holds Tenon, oneDNN, MKL and OpenVINO to it")
    p.add_argument("--why", type=float, metavar="R", help="at the end the schedules of kernels whose ratio is below R")
    p.add_argument("--peers", help="comma-separated, of mkl, onednn, onnxruntime, openvino, inductor; default: all that are there")
    p.add_argument("--torch-python", metavar="PATH", help="a Python that has torch and onnx, for inductor (default: the one of the other peers)")
    p.add_argument("--models", default=os.environ.get("TENON_MODELS"), help="folder of ONNX files (default $TENON_MODELS)")
    p.add_argument("--db", default="none", help="tuning store for Tenon (default none: untuned)")
    p.add_argument("--tune", type=float, metavar="S", help="first tunes each model for so many seconds, into --db (default BUILD/bench/tuned.db)")
    p.add_argument("--plain", action="store_true", help="convolutions also from row-major to row-major")
    p.add_argument("--aot", action="store_true", help="models also as linked objects")
    p.add_argument("--compile", action="store_true", help="also time and memory of `tenon compile` (models; always with --only models)")
    p.add_argument("--json", help="where the results go (default: under the build folder)")
    p.add_argument("--html", help="the page with the charts (default: beside the JSON)")
    p.add_argument("--build", required=True, help=argparse.SUPPRESS)
    return p.parse_args()


def say(text=""):
    print(text, flush=True)


# ---- who takes part ----

def library(*names):
    """A shared library beside this Python (lib/ of its environment) or in the usual places."""
    import glob
    for folder in (os.path.join(sys.prefix, "lib"), "/usr/lib/x86_64-linux-gnu", "/usr/local/lib"):
        for n in names:
            found = sorted(glob.glob(os.path.join(folder, n)))
            if found:
                return found[-1]
    return None


def module_there(name):
    import importlib.util
    return importlib.util.find_spec(name) is not None


def make_peers(o, threads, cpus, work):
    built = os.path.join(o.build, "bench")
    one = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    if o.isa:
        one.update(ONEDNN_MAX_CPU_ISA="AVX2", DNNL_MAX_CPU_ISA="AVX2", MKL_ENABLE_INSTRUCTIONS="AVX2", ATEN_CPU_CAPABILITY="avx2")
    log = lambda name: os.path.join(work, name + ".log")
    cpu = ["--cpu", "x86-64-v3"] if o.isa else []
    tenon = Peer("tenon", [os.path.join(built, "bench_worker"), "--threads", str(threads), "--db", o.db, "--accuracy", o.accuracy, *cpu], log("tenon"), cpus=cpus)
    peers = []
    lib = os.path.join(sys.prefix, "lib")
    mkl, dnnl = library("libmkl_rt.so*"), os.path.join(built, "peer_dnnl")
    if mkl and os.path.exists(os.path.join(built, "peer_mkl")):
        env = {**one, "LD_LIBRARY_PATH": os.path.dirname(mkl), "MKL_THREADING_LAYER": "SEQUENTIAL" if threads == 1 else "INTEL"}
        peers.append(Peer("mkl", [os.path.join(built, "peer_mkl"), mkl, str(threads)], log("mkl"), env, cpus, ("gemm",)))
    if os.path.exists(dnnl):
        env = {**one, "LD_LIBRARY_PATH": lib, "OCL_ICD_FILENAMES": os.path.join(lib, "libintelocl.so")}
        peers.append(Peer("onednn", [dnnl], log("onednn"), env, cpus, ("gemm", "conv")))
    python = lambda file: [sys.executable, os.path.join(HERE, "peers", file), str(threads)]
    conv = ("conv", "model") if not os.path.exists(dnnl) else ("model",)  # else the library itself stands for it
    if module_there("onnxruntime"):
        peers.append(Peer("onnxruntime", python("ort.py"), log("onnxruntime"), one, cpus, conv))
    if module_there("openvino"):
        peers.append(Peer("openvino", python("ov.py"), log("openvino"), one, cpus, ("model",)))
    if o.torch_python or module_there("torch"):
        peers.append(Peer("inductor", [o.torch_python or sys.executable, *python("inductor.py")[1:]], log("inductor"), one, cpus, ("model",)))
    if o.peers is not None:
        wanted = o.peers.split(",") if o.peers else []
        for w in wanted:
            if w not in [p.name for p in peers]:
                say("peer %s is not there (bench/run --install ...)" % w)
        peers = [p for p in peers if p.name in wanted]
    return tenon, peers


# ---- one case ----

def difference(got, want):
    """max |got - want| / max |want| over all outputs; infinite when shapes differ."""
    worst = 0.0
    for g, w in zip(got, want):
        if g.size != w.size:
            return math.inf
        w = np.asarray(w, np.float64).ravel()
        d = np.abs(g.astype(np.float64).ravel() - w)
        worst = max(worst, float(np.max(d, initial=0) / max(float(np.max(np.abs(w), initial=0)), 1e-30)))
        if not np.isfinite(d).all():
            return math.inf
    return worst if len(got) == len(want) else math.inf


def outputs_of(p, case, folder, like):
    answer = p.ask("save", case.name, folder)
    if not answer["ok"]:
        return None, answer["error"], answer.get("again")
    arrays = []
    for k in range(answer["outputs"]):
        dtype = answer["dtypes"][k] if "dtypes" in answer else like[k].dtype if like else np.float32
        arrays.append(np.fromfile(os.path.join(folder, "out_%d.bin" % k), dtype))
    return arrays, None, False


def measure(case, threads, tenon, peers, probe, o, work):
    """A row of the results. Never throws for what a program does wrong."""
    folder = os.path.join(work, "data")
    lists.clean(folder)
    case.prepare(folder)
    row = {"name": case.name, "kind": case.kind, "group": case.group, "threads": threads, "flop": case.flop, "peers": {}, "errors": {}}
    ready, want = [], case.reference() if case.reference else None
    takes = [p for p in peers if case.kind.split()[0].strip(",") in p.kinds]
    for p in takes + [tenon]:
        words = [w.replace("@", folder) if w.startswith("@") else w for w in case.by_peer.get(p.name, case.words)]
        start = time.perf_counter()
        answer = p.ask("load", case.name, *words, timeout=600)
        took = time.perf_counter() - start
        if not answer["ok"]:
            row["errors"][p.name] = answer["error"]
            continue
        got, error, again = outputs_of(p, case, folder, want)
        if again and p.ask("load", case.name, *words, timeout=600)["ok"]:
            got, error, again = outputs_of(p, case, folder, want)
        if error:
            row["errors"][p.name] = error
            continue
        info = {k: answer[k] for k in ("import_s", "lower_s", "build_s", "calls", "implementation") if k in answer}
        info["load_s"] = took
        if want is None:
            want = got  # the first peer is the reference of models
            info["reference"] = True
        else:
            info["difference"] = difference(got, want)
            if not info["difference"] <= case.tolerance:
                row["errors"][p.name] = "wrong: differs by %.2g of the largest value" % info["difference"]
                if p is not tenon:
                    p.ask("drop", case.name)
                    continue
        if p is tenon and row["errors"].get("tenon"):
            info["wrong"] = True
        row["peers"][p.name] = info
        ready.append(p)
    if tenon in ready and not case.path:
        answer = tenon.ask("schedules", case.name)
        row["schedules"] = {k["kernel"]: k["schedule"] for k in answer.get("kernels", [])}
    samples = {p.name: [] for p in ready}
    medians = {p.name: [] for p in ready}
    peaks = []
    seconds = o.seconds or case.seconds
    if tenon in ready:
        for r in range(o.rounds):
            turn = r % len(ready)
            for p in ready[turn:] + ready[:turn]:
                if threads > 1:
                    time.sleep(0.02)  # spinning threads of the one before go to sleep
                answer = p.ask("run", case.name, seconds)
                if answer["ok"] and answer["min"] <= 0:  # less than what is taken off for the calls around it
                    row["errors"][p.name] = "below what the clock can tell"
                elif answer["ok"]:
                    samples[p.name].append(answer["min"])
                    medians[p.name].append(answer["median"])
                else:
                    row["errors"][p.name] = answer["error"]
            # loops as long as a run, for as long as they were run: both are the fastest of as many chances
            answer = probe.ask("peak", seconds, (samples["tenon"] or [0])[-1])
            peaks.append(answer["flops"] if answer["ok"] else math.nan)
    for p in ready:
        if p.process:
            p.ask("drop", case.name)
    mine = samples.get("tenon") or []
    for p in ready:
        s, info = samples[p.name], row["peers"][p.name]
        if not s:
            continue
        info["min_ms"] = min(s) * 1e3
        info["median_ms"] = statistics.median(medians[p.name]) * 1e3
        info["samples_ms"] = [round(x * 1e3, 6) for x in s]
        if case.flop:
            info["gflops"] = case.flop / min(s) * 1e-9
            info["of_peak"] = statistics.median(case.flop / t / (pk * threads) for t, pk in zip(s, peaks))
        if p is not tenon and len(s) == len(mine):
            info["ratio"] = statistics.median(t / m for t, m in zip(s, mine))
    if peaks:
        row["peak_gflops"] = max(peaks) * 1e-9
    rivals = {n: i["ratio"] for n, i in row["peers"].items() if "ratio" in i}
    if rivals:
        row["best"] = min(rivals, key=rivals.get)
        row["ratio"] = rivals[row["best"]]
    return row


# ---- compile time, memory, objects ----

def timed(argv, o, work):
    """Exit code, standard output and error, wall seconds and largest resident bytes."""
    file = os.path.join(work, "usage.json")
    p = subprocess.run([os.path.join(o.build, "bench", "bench_probe"), "--run", file, *argv], stdin=subprocess.DEVNULL, capture_output=True)
    with open(file) as f:
        used = json.load(f)
    return p.returncode, p.stdout, p.stderr.decode(errors="replace"), used


def compile_times(case, o, work):
    """`tenon compile`, one and two threads: import to object. The object stays for --aot."""
    result = {}
    made = os.path.join(work, "object")
    os.makedirs(made, exist_ok=True)
    for threads in (1, 2):
        argv = [os.path.join(o.build, "tenon"), "compile", case.path, "-o", os.path.join(made, "m.o"), "--prefix", "m", "--json",
                "--threads", str(threads), "--db", o.db, *(["--cpu", "x86-64-v3"] if o.isa else [])]
        for d in case.dims:
            argv += ["--dim", d]
        code, out, err, used = timed(argv, o, work)
        if code:
            result["error"] = (err.strip().splitlines() or ["exit code %d" % code])[-1]
            return result
        j = json.loads(out)
        result["threads_%d" % threads] = {**used, **{k: j[k] for k in ("import_s", "lower_s", "compile_s", "total_s")}}
        result.update({k: j[k] for k in ("object_bytes", "weights_bytes", "arena_bytes", "live_peak_bytes", "kernels")})
    return result


def link_object(work):
    """The object as a library that the worker opens; returns its path, or None."""
    made = os.path.join(work, "object")
    so = os.path.join(made, "m.so")
    cc = os.environ.get("CC") or "cc"
    done = subprocess.run([cc, "-O1", "-shared", "-fPIC", "-std=gnu11", "-I", os.path.dirname(HERE), "-include", os.path.join(made, "m.h"),
                           os.path.join(HERE, "peers", "object.c"), os.path.join(made, "m.o"), "-o", so, "-lm"],
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if done.returncode:
        say("  the object does not link: %s" % done.stderr.decode(errors="replace")[-300:])
        return None
    return so


class Aot:
    """The worker once more, with the linked object instead of the JIT."""

    def __init__(self, tenon, so):
        self.name, self.kinds, self.tenon, self.so = "tenon aot", ("model",), tenon, so

    process = property(lambda self: self.tenon.process)

    def ask(self, command, key, *words, timeout=300):
        if command == "load":
            words = ("object", self.so, words[2])
        return self.tenon.ask(command, key + " aot", *words, timeout=timeout)


def tune(todo, o, cpus):
    """Models only: the store keeps what was found, so that a second call goes on from there."""
    for case in todo:
        if not case.path:
            continue
        argv = [os.path.join(o.build, "tenon"), "tune", case.path, "--budget", "%gs" % o.tune, "--db", o.db, "--threads", "1"]
        for d in case.dims:
            argv += ["--dim", d]
        start = time.perf_counter()
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, preexec_fn=lambda: os.sched_setaffinity(0, cpus[-1:]))
        last = (done.stdout if done.returncode == 0 else done.stderr).decode(errors="replace").strip().splitlines()[-1:]
        say("tuned %s in %.0f s: %s" % (case.name, time.perf_counter() - start, last[0] if last else "exit code %d" % done.returncode))


def one_case(case, threads, first, tenon, peers, probe, o, only, work):
    """measure(), and for models what compiling them takes, and their linked objects."""
    extra, made = [], None
    if case.path and first and (o.compile or o.aot or only == {"models"}):
        made = compile_times(case, o, work)
        so = link_object(work) if o.aot and "error" not in made else None
        if so:
            extra = [Aot(tenon, so)]
    row = measure(case, threads, tenon, peers + extra, probe, o, work)
    if made is not None:
        row["compile"] = made
    object_ratio = row["peers"].get("tenon aot", {}).pop("ratio", None)
    if object_ratio:  # object's time / JIT's
        row["aot_ratio"] = object_ratio
        rivals = {n: i["ratio"] for n, i in row["peers"].items() if "ratio" in i}
        row["best"] = min(rivals, key=rivals.get) if rivals else None
        row["ratio"] = rivals.get(row["best"])
    return row


def main():
    o = options()
    o.rounds = o.rounds or (3 if o.quick else 7)
    available = sorted(os.sched_getaffinity(0))
    thread_counts = [int(t) for t in o.threads.split(",")]
    cpus = [int(c) for c in o.cpus.split(",")] if o.cpus else available[-max(thread_counts):]
    if len(cpus) < max(thread_counts):
        sys.exit("bench/run: %d threads on %d CPUs" % (max(thread_counts), len(cpus)))
    folder = os.path.join(o.build, "bench", "out")
    work = os.path.join(o.build, "bench", "work-%d" % os.getpid())  # of this run alone: two may go on beside each other
    os.makedirs(folder, exist_ok=True)
    os.makedirs(work, exist_ok=True)
    if o.tune and o.db == "none":
        o.db = os.path.join(o.build, "bench", "tuned.db")
    tenon, peers = make_peers(o, thread_counts[0], cpus, work)
    probe = Peer("probe", [os.path.join(o.build, "bench", "bench_probe"), *([o.isa] if o.isa else [])], os.path.join(work, "probe.log"), cpus=cpus[-1:])
    only = set(o.only or ["gemm", "conv", "models"])
    todo = []
    if "gemm" in only:
        todo += lists.gemm_cases(o.case)
    if "conv" in only:
        fallback = [p.name for p in peers if "conv" in p.kinds and "gemm" not in p.kinds]
        todo += lists.conv_cases(bool(fallback), fallback, o.case)
        if o.plain and not fallback:
            todo += lists.conv_cases(True, [], o.case)
    if "models" in only:
        todo += lists.model_cases(o.models, say)
    if "int8" in only:
        todo += lists.int8_cases(o.models, os.path.join(o.build, "bench", "int8"), say)
    if o.again:
        with open(o.again) as f:
            wanted = {(r["kind"], r["name"]) for r in json.load(f)["rows"] if r.get("ratio", 0) < o.below}
        todo = [c for c in todo if (c.kind, c.name) in wanted]
    if o.case:
        todo = [c for c in todo if any(w in c.name for w in o.case)]
    elif o.quick and not o.again:
        todo = [c for c in todo if c.quick]

    if o.tune:
        tune(todo, o, cpus)
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    peak, band = probe.ask("peak", 0.5), probe.ask("bandwidth", 0.5)
    if not peak["ok"]:
        sys.exit("bench/run: the probe does not run: %s" % peak["error"])
    machine = {"cpu": cpu_name(), "cpus_used": cpus, "peak_gflops": peak["flops"] * 1e-9, "lanes": peak["lanes"],
               "read_gbytes_s": band.get("bytes", math.nan) * 1e-9, "load_average": os.getloadavg()[0], "system": platform.platform()}
    say("%s, CPU %s; threads: %s; multiply-add peak %.1f GFLOP/s per core, reading %.1f GB/s; load average %.1f" % (
        machine["cpu"], ",".join(map(str, cpus)), o.threads, machine["peak_gflops"], machine["read_gbytes_s"], machine["load_average"]))
    if machine["load_average"] > 0.5 * len(available):
        say("the machine is busy: take these figures as rough")
    say("%d cases, %d rounds; peers: %s" % (len(todo), o.rounds, ", ".join(p.name for p in peers) or "none"))
    rows = []
    results = {"started": started, "command": [a for a in sys.argv[1:] if a != "--build" and a != o.build], "threads": o.threads, "rounds": o.rounds,
               "db": o.db, "isa": o.isa, "machine": machine, "peers": [p.name for p in peers], "rows": rows}
    path = o.json or os.path.join(folder, time.strftime("%Y%m%d-%H%M%S.json"))
    page = o.html or os.path.splitext(path)[0] + ".html"
    for turn, threads in enumerate(thread_counts):
        last = None
        if turn:
            tenon, peers = make_peers(o, threads, cpus, work)
        for p in [tenon, *peers]:
            p.cpus = cpus[-threads:]
        try:
            for case in todo:
                if len(thread_counts) > 1:
                    case.kind = case.kind.split(", ")[0] + ", %d thread%s" % (threads, "" if threads == 1 else "s")
                if case.kind != last:
                    say("\n" + report.header(case.kind))
                    last = case.kind
                row = one_case(case, threads, not turn, tenon, peers, probe, o, only, work)
                rows.append(row)
                say(report.line(row))
                write(path, results)
        except KeyboardInterrupt:
            say("\ninterrupted: what was measured so far")
            break
        finally:
            for p in [tenon, *peers]:
                p.stop()
    probe.stop()
    results["summary"] = report.summary(rows)
    write(path, results)
    with open(page, "w") as f:
        f.write(report.page(results))
    with open(os.path.splitext(page)[0] + ".md", "w") as f:
        f.write(report.markdown(results))
    say("\n" + report.summary_text(rows))
    if o.why:
        say(report.why(rows, o.why))
    say("\n%s\n%s" % (path, page))
    shutil.rmtree(work, ignore_errors=True)  # kept where something went wrong before: the peers' logs are there


def write(path, results):
    with open(path + ".part", "w") as f:
        json.dump(results, f, indent=1)
    os.replace(path + ".part", path)


def cpu_name():
    try:
        with open("/proc/cpuinfo") as f:
            for line in f:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
