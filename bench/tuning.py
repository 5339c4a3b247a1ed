"""What the tuner promises, measured: python3 bench/tuning.py [--tenon build/tenon] WHAT [ARGUMENT]...

  repeat KERNEL...   tunes each ten times with other seeds: how far the results lie apart, as times of the
                     winner over the default's and as times of the winners against each other in one run
  budget KERNEL...   how far budgets of 1, 5 and 20 s are overrun, and what of the time, the start of the
                     process included, went into neither compiling nor checking nor timing
  models FILE...     --seconds of tuning (300), then whole runs in fresh processes, default and tuned in
                     turn: no model may become slower
  layouts FILE...    what the store holds for each convolution of the models (tuned before with --layouts into
                     --db): layouts, tiles; then whole runs with each forced layout against the chosen plan
"""
import argparse
import collections
import json
import os
import re
import statistics
import subprocess
import tempfile
import time


def options():
    p = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    p.add_argument("what", choices=["repeat", "budget", "models", "layouts"])
    p.add_argument("args", nargs="+")
    p.add_argument("--tenon", default="build/tenon")
    p.add_argument("--trials", default="32")
    p.add_argument("--seconds", type=float, default=300)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--db", help="default: a new one")
    return p.parse_args()


def tenon(o, *words):
    return json.loads(subprocess.run([o.tenon, *words, "--json"], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout)


def bench(o, what, *words, seconds=0.5):
    return tenon(o, "bench", what, "--seconds", str(seconds), *words)["median_ms"]


def repeat(o, folder):
    for kernel in o.args:
        gains, stores = [], []
        for seed in range(1, 11):
            db = os.path.join(folder, "%s-%d.db" % (re.sub(r"\W", "_", kernel), seed))
            k = tenon(o, "tune", kernel, "--trials", o.trials, "--seed", str(seed), "--db", db)["kernels"][0]
            gains.append(k["best_ns"] / k["default_ns"])
            stores.append(db)
        times = [[] for _ in stores]
        for r in range(o.rounds):
            for i in range(len(stores)):
                at = (i + r) % len(stores)
                times[at].append(bench(o, kernel, "--db", stores[at], seconds=0.1))
        medians = [statistics.median(t) for t in times]
        print("%-36s as tuned %.1f %% apart, timed together %.1f %% apart" % (
            kernel, 100 * (max(gains) / min(gains) - 1), 100 * (max(medians) / min(medians) - 1)), flush=True)


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


def models(o, folder):
    db = o.db or os.path.join(folder, "models.db")
    print("%-28s %12s %12s %8s" % ("model", "default ms", "tuned ms", "gain"))
    for path in o.args:
        tenon(o, "tune", path, "--budget", "%gs" % o.seconds, "--db", db)
        a, b = [], []
        for r in range(o.rounds):
            for who in ((a, "none"), (b, db)) if r % 2 else ((b, db), (a, "none")):
                who[0].append(bench(o, path, "--db", who[1]))
        ratio = statistics.median(x / y for x, y in zip(a, b))
        print("%-28s %12.3f %12.3f %+7.1f%%%s" % (os.path.basename(path), statistics.median(a), statistics.median(b), 100 * (ratio - 1), "  SLOWER" if ratio < 0.99 else ""), flush=True)


def layouts(o, folder):
    assert o.db, "--db: the store that the models were tuned into"
    for path in o.args:
        rows = [json.loads(x) for x in subprocess.run([o.tenon, "db", "export", "--db", o.db], check=True, capture_output=True, text=True).stdout.splitlines()]
        of = collections.defaultdict(dict)
        for x in rows:
            of[x["table"]][x.get("uid")] = x
        stem = os.path.basename(path).rsplit(".", 1)[0]
        tiles = collections.defaultdict(set)
        for x in of["trial"].values():
            work = of["workload"][of["task"][x["task"]]["workload"]]
            if work["class"] == "conv" and work["name"].startswith(stem):
                name, _, layout = work["name"].partition(" in ")
                split = re.findall(r"split \w+ (\d+) -> (?:ro|vo|wt)", of["config"][x["config"]]["schedule"])
                tiles[name, layout or "NCHWc"].add(tuple(split))
        for (name, layout), t in sorted(tiles.items()):
            print("%-44s %-6s %3d tiles" % (name, layout, len(t)))
        times = collections.defaultdict(list)
        kinds = [None, "NCHWc", "NHWC", "NCHW"]
        for r in range(o.rounds):
            for k in kinds[r % 4:] + kinds[:r % 4]:
                times[k].append(bench(o, path, "--db", o.db, *(["--layout", k] if k else [])))
        chosen = statistics.median(times[None])
        for k in kinds[1:]:
            print("%s forced to %-6s %.3f ms, chosen %.3f ms (%+.1f %%)" % (stem, k, statistics.median(times[k]), chosen, 100 * (statistics.median(times[k]) / chosen - 1)), flush=True)


def main():
    o = options()
    with tempfile.TemporaryDirectory() as folder:
        globals()[o.what](o, folder)


if __name__ == "__main__":
    main()
