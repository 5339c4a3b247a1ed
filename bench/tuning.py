"""What the tuner promises, measured: python3 bench/tuning.py [--tenon build/tenon] WHAT [ARGUMENT]...

  repeat KERNEL...   tunes each ten times with other seeds: how many winners there are, and how far they lie apart: as
                     tuned; as objects timed in turn in one program, constants cold or warm; and ten copies of one
  again KERNEL...    how often a final tells a schedule from itself, in --races races
  budget KERNEL...   how far budgets of 1, 5 and 20 s are overrun, and what of the time, the start of the
                     process included, went into neither compiling nor checking nor timing
  models FILE...     --seconds of tuning (300; 0: as --db has it), then whole runs in fresh processes, default and tuned in
                     turn: no model may become slower
  layouts FILE...    what the store --db holds for each convolution of the models (tuned with --layouts, before or by
                     --tune S): layouts, tiles; then whole runs with each forced layout against the chosen plan
  tables KERNEL...   the best schedule that a replay table (--table) has for each, pinned in a store, against the libraries:
                     `bench/run --peers mkl,onednn` with --python
  agree KERNEL...    times of `tenon bench --aot` against those of a C program that links the kernel's object and has
                     a clock of its own, in turn: how far apart medians and fastest runs are, and standard errors of that
"""
import argparse
import collections
import hashlib
import json
import os
import re
import statistics
import subprocess
import tempfile
import time

import linked


def options():
    p = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    p.add_argument("what", choices=["repeat", "again", "budget", "models", "layouts", "tables", "agree"])
    p.add_argument("args", nargs="+")
    p.add_argument("--tenon", default="build/tenon")
    p.add_argument("--trials", help="of each of the repeated tunings; default: until they end by themselves")
    p.add_argument("--threads", default="1", help="of timed runs")
    p.add_argument("--seconds", type=float, default=300)
    p.add_argument("--rounds", type=int, help="default: 5; agree: 8")
    p.add_argument("--keep", help="a folder: repeat leaves its stores there, and goes on from those it finds")
    p.add_argument("--tune", type=float, help="layouts: first tunes each model for so many seconds more")
    p.add_argument("--table", default="tests/replay/avx2.txt")
    p.add_argument("--python", help="one that has the libraries, for tables")
    p.add_argument("--races", default="100")
    p.add_argument("--db", help="default: a new one")
    o = p.parse_args()
    o.rounds = o.rounds or (8 if o.what == "agree" else 5)
    return o


def tenon(o, *words):
    return json.loads(subprocess.run([o.tenon, *words, "--json"], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout)


def bench(o, what, *words, seconds=0.5):
    return tenon(o, "bench", what, "--seconds", str(seconds), "--threads", o.threads, *words)["median_ms"]


def winner_of(o, kernel, db, folder):
    """The schedules that a store has for the kernels of a workload, as text."""
    plan = os.path.join(folder, "w.plan")
    subprocess.run([o.tenon, "compile", kernel, "-o", os.path.join(folder, "w.o"), "--db", db, "--plan-out", plan], check=True, stdout=subprocess.DEVNULL)
    with open(plan) as f:
        return f.read()


def apart(values):
    return 100 * (max(values) / min(values) - 1)


def repeat(o, folder):
    print("%-36s %9s %9s %9s %9s %9s" % ("kernel", "winners", "as tuned", "together", "warm", "floor"))
    for kernel in o.args:
        gains, stores = [], []
        keep = os.path.join(o.keep or folder, re.sub(r"\W", "_", kernel))
        for seed in range(1, 11):
            db = "%s-%d.db" % (keep, seed)
            limit = ["--trials", o.trials] if o.trials else []
            k = tenon(o, "tune", kernel, *limit, "--seed", str(seed), "--db", db)["kernels"][0]
            gains.append(k["best_ns"] / k["default_ns"])
            stores.append(db)
        different = len({winner_of(o, kernel, db, folder) for db in stores})
        each = linked.Linked(o.tenon, folder, [(kernel, ["--db", db]) for db in stores])
        spread = [apart(each.relative(o.rounds, cold)) for cold in (True, False)]
        same = linked.Linked(o.tenon, folder, [(kernel, ["--db", stores[0]])] * len(stores))
        floor = apart(same.relative(o.rounds))
        print("%-36s %9d %8.1f%% %8.1f%% %8.1f%% %8.1f%%" % (kernel, different, apart(gains), *spread, floor), flush=True)


def rows_of(o, db):
    """The tables of a store: rows by uid."""
    of = collections.defaultdict(dict)
    for line in subprocess.run([o.tenon, "db", "export", "--db", db], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines():
        x = json.loads(line)
        if "table" in x:  # the first line is about the file
            of[x["table"]][x.get("uid")] = x
    return of


def again(o, folder):
    for kernel in o.args:
        db, text = os.path.join(folder, "a.db"), os.path.join(folder, "a.kernel")
        tenon(o, "tune", kernel, "--trials", "1", "--db", db)
        work = [x for x in rows_of(o, db)["workload"].values() if x["class"] in ("gemm", "conv")][0]
        with open(text, "w") as f:
            f.write(work["kernel"])
        os.remove(db)
        out = subprocess.run([os.path.join(os.path.dirname(o.tenon), "bench", "bench_again"), o.races, text], check=True, stdout=subprocess.PIPE, text=True).stdout
        print(out.replace(text, kernel), end="", flush=True)


def budget(o, folder):
    print("%-36s %8s %8s %9s %10s %8s" % ("kernel", "budget", "took", "overrun", "overhead", "trials"))
    for kernel in o.args:
        for seconds in (1, 5, 20):
            db = os.path.join(folder, "b%d.db" % seconds)
            start = time.monotonic()
            r = tenon(o, "tune", kernel, "--budget", "%ds" % seconds, "--db", db)
            took = time.monotonic() - start
            spent = r["compiling_s"] + r["checking_s"] + r["timing_s"]
            print("%-36s %7ds %7.2fs %8.2fs %9.1f%% %8d" % (kernel, seconds, took, max(0, took - seconds), 100 * (1 - spent / took), r["trials"]), flush=True)
            os.remove(db)


def spread(ratios):
    """Median of ratios - 1, and its standard error."""
    return statistics.median(ratios) - 1, 1.25 * statistics.stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else float("nan")


def models(o, folder):
    db = o.db or os.path.join(folder, "models.db")
    print("%-28s %12s %12s %8s" % ("model", "default ms", "tuned ms", "gain"))
    for path in o.args:
        if o.seconds:
            tenon(o, "tune", path, "--budget", "%gs" % o.seconds, "--db", db)
        a, b = [], []
        for r in range(o.rounds):
            for who in ((a, "none"), (b, db)) if r % 2 else ((b, db), (a, "none")):
                who[0].append(bench(o, path, "--db", who[1]))
        (gain, error) = spread([x / y for x, y in zip(a, b)])
        print("%-28s %12.3f %12.3f %+7.1f%% within %.1f%s" % (os.path.basename(path), statistics.median(a), statistics.median(b), 100 * gain, 100 * error,
                                                            "" if gain >= -0.01 else "  SLOWER" if gain < -2 * error else "  slower, within the noise"), flush=True)


LAYOUTS = ("NCHWc", "NHWC", "NCHW")


def kernel_hash(text):
    """As at_kernel_hash: of the length and the bytes."""
    data = text.encode()
    return hashlib.blake2b(len(data).to_bytes(8, "little") + data, digest_size=16).hexdigest()


def tiles_of(o, path):
    """Distinct tiles (algorithm, loops split and by how much) in the store for each convolution of a model, by layout:
    {node: {layout: {tile}}}. A kernel is known
    by its hash: layouts may share one, and one may serve many nodes."""
    of, tiles = rows_of(o, o.db), collections.defaultdict(set)
    for x in of["trial"].values():
        schedule = of["config"][x["config"]]["schedule"]
        tile = tuple(re.findall(r"^(?:algorithm .*|split \S+ \d+)", schedule, re.M))
        tiles[kernel_hash(of["workload"][of["task"][x["task"]]["workload"]]["kernel"])].add(tile)
    nodes = collections.defaultdict(dict)
    for layout in LAYOUTS:
        for k in tenon(o, "explain", path, "--layout", layout, "--db", "none")["kernels"]:
            for call in k["calls"] if re.match("conv|winograd", k["name"]) else []:
                nodes[call.split("+")[0]][layout] = tiles[k["hash"]]
    return nodes


def layouts(o, folder):
    assert o.db, "--db: the store that the models were tuned into; with --tune it is tuned first"
    for path in o.args:
        stem = os.path.basename(path).rsplit(".", 1)[0]
        if o.tune:
            tenon(o, "tune", path, "--layouts", "--budget", "%gs" % o.tune, "--db", o.db)
        nodes = tiles_of(o, path)
        for name, t in nodes.items():
            print("%-32s %s; %d tiles" % (name, ", ".join("%s: %d" % (k, len(t.get(k, ()))) for k in LAYOUTS), len(set().union(*t.values()))))
        few = sum(len(set().union(*t.values())) < 10 for t in nodes.values())
        missing = sum(not all(t.get(k) for k in LAYOUTS) for t in nodes.values())
        print("%s: %d convolutions, %d with fewer than 10 tiles, %d without trials in one of the layouts" % (stem, len(nodes), few, missing))
        times = []
        kinds = [None, *LAYOUTS]
        for r in range(o.rounds):
            times.append({k: bench(o, path, "--db", o.db, *(["--layout", k] if k else []), seconds=0.3) for k in kinds[r % 4:] + kinds[:r % 4]})
        for k in kinds[1:]:
            (off, error) = spread([t[k] / t[None] for t in times])
            print("%s forced to %-6s %.3f ms, chosen %.3f ms (%+.1f %%, within %.1f)%s" % (
                stem, k, statistics.median(t[k] for t in times), statistics.median(t[None] for t in times), 100 * off, 100 * error,
                "  FASTER" if off < -0.02 else ""), flush=True)


def best_of_table(path, kernel):
    """The schedule of the least time that a replay table has for a workload, as text (the format: tests/README.md)."""
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+-"
    steps, here, best = [], False, (float("inf"), "")
    with open(path) as f:
        for line in f:
            if line.startswith("step "):
                steps.append(line[5:])
            elif line.startswith("workload "):
                here = line.split()[1] == kernel
            elif here and re.match(r"[\d.e+]+ [^{}]*: \S*$", line):
                ns, code = float(line.split()[0]), line.rsplit(": ", 1)[1].strip()
                numbers = [64 * digits.index(code[i]) + digits.index(code[i + 1]) for i in range(0, len(code), 2)]
                best = min(best, (ns, "".join(steps[i] for i in numbers)))
    assert best[1], "%s is not in %s" % (kernel, path)
    return best[1]


def tables(o, folder):
    db, text, results = (os.path.join(folder, x) for x in ("best.db", "best.schedule", "out.json"))
    for kernel in o.args:
        tenon(o, "tune", kernel, "--trials", "1", "--db", db)
        with open(text, "w") as f:
            f.write(best_of_table(o.table, kernel))
        subprocess.run([o.tenon, "db", "pin", kernel, "--schedule", text, "--db", db], check=True, stdout=subprocess.DEVNULL)
    for kind in ("gemm", "conv"):
        names = [kernel.split(":")[2] for kernel in o.args if kernel.startswith(kind)]
        if not names:
            continue
        subprocess.run(["bench/run", "--no-build", *(["--python", o.python] if o.python else []), "--only", kind, "--peers", "mkl,onednn", "--db", db,
                        *(x for name in names for x in ("--case", name)), "--rounds", str(o.rounds), "--seconds", "0.05", "--json", results], check=True, stdout=subprocess.DEVNULL)
        with open(results) as f:
            rows = json.load(f)["rows"]
        for row in rows:
            if any(row["name"].startswith(name) for name in names) and "var" not in row["kind"]:
                print("%-36s best of its table against the better library: %.2f" % (row["name"], row.get("ratio", float("nan"))), flush=True)


def agree(o, folder):
    print("%-36s %12s %12s %17s %17s" % ("kernel", "bench ms", "clock ms", "medians", "fastest"))
    for kernel in o.args:
        common = ["--db", o.db or "none"]
        other = linked.Linked(o.tenon, folder, [(kernel, common)], separate=False)
        rows = []
        for r in range(o.rounds * 2 + 1):
            asked = lambda: tenon(o, "bench", kernel, "--seconds", "0.2", "--threads", "1", "--aot", *common)
            clocked = lambda: [x[0] * 1e-6 for x in other.rounds(200, False, 0)]
            (mine, theirs) = (asked(), clocked()) if r % 2 else (clocked(), asked())[::-1]
            rows.append((mine["median_ms"], statistics.median(theirs), mine["min_ms"], min(theirs)))
        apart = [[100 * (x[i] / x[i + 1] - 1) for x in rows] for i in (0, 2)]
        ratios = ["%+7.1f%% +- %4.1f%%" % (statistics.median(x), 1.25 * statistics.stdev(x) / len(x) ** 0.5) for x in apart]  # the error of a median
        print("%-36s %12.4f %12.4f %17s %17s" % (kernel, statistics.median(x[0] for x in rows), statistics.median(x[1] for x in rows), *ratios), flush=True)


def main():
    o = options()
    with tempfile.TemporaryDirectory() as folder:
        globals()[o.what](o, folder)


if __name__ == "__main__":
    main()
