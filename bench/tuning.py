"""What the tuner promises, measured: python3 bench/tuning.py [--tenon build/tenon] WHAT [ARGUMENT]...

  repeat KERNEL...   tunes each ten times with other seeds: how far the results lie apart, as times of the
                     winner over the default's and as times of the winners against each other in one run
  budget KERNEL...   how far budgets of 1, 5 and 20 s are overrun, and what of the time, the start of the
                     process included, went into neither compiling nor checking nor timing
  models FILE...     --seconds of tuning (300), then whole runs in fresh processes, default and tuned in
                     turn: no model may become slower
  layouts FILE...    what the store holds for each convolution of the models (tuned before with --layouts into
                     --db): layouts, tiles; then whole runs with each forced layout against the chosen plan
  agree KERNEL...    times of `tenon bench --aot` against those of a C program that links the kernel's object and has
                     a clock of its own, in turn
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
    p.add_argument("what", choices=["repeat", "budget", "models", "layouts", "agree"])
    p.add_argument("args", nargs="+")
    p.add_argument("--tenon", default="build/tenon")
    p.add_argument("--trials", help="of each of the repeated tunings; default: until they end by themselves")
    p.add_argument("--threads", default="1", help="of timed runs")
    p.add_argument("--seconds", type=float, default=300)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--db", help="default: a new one")
    return p.parse_args()


def tenon(o, *words):
    return json.loads(subprocess.run([o.tenon, *words, "--json"], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout)


def bench(o, what, *words, seconds=0.5):
    return tenon(o, "bench", what, "--seconds", str(seconds), "--threads", o.threads, *words)["median_ms"]


def repeat(o, folder):
    for kernel in o.args:
        gains, stores = [], []
        for seed in range(1, 11):
            db = os.path.join(folder, "%s-%d.db" % (re.sub(r"\W", "_", kernel), seed))
            limit = ["--trials", o.trials] if o.trials else []
            k = tenon(o, "tune", kernel, *limit, "--seed", str(seed), "--db", db)["kernels"][0]
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
        for x in (r for r in rows if "table" in r): # the first line is about the file
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


CLOCK = r"""
#define _POSIX_C_SOURCE 200809L
#include "t.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}
static int rising(const void *a, const void *b) { return *(const double *)a < *(const double *)b ? -1 : 1; }
static void *some(size_t n) {
  void *p = aligned_alloc(64, (n + 127) / 64 * 64);
  for (size_t i = 0; i < n / 4; i++) ((float *)p)[i] = (float)(rand() % 2001 - 1000) * 1e-3f;
  return p;
}
int main(int argc, char **argv) {
  enum { MOST = 1 << 16 };
  static const long bytes[] = T_INPUT_BYTES;
  static double times[MOST];
  const void *in[T_NUM_INPUTS + 1];
  int n = 0;
  for (int i = 0; i < T_NUM_INPUTS; i++) in[i] = some((size_t)bytes[i]);
  void *out[] = {some(T_OUTPUT_0_BYTES)}, *arena = some(T_ARENA_BYTES(1));
  double seconds = argc > 1 ? atof(argv[1]) : 0.5;
  for (int i = 0; i < 3; i++)
    if (t_run(in, out, NULL, NULL, NULL, NULL, arena, NULL)) return 1;
  for (double begin = now(), start = begin; n < MOST && start - begin < seconds * 1e3; start = now()) {
    t_run(in, out, NULL, NULL, NULL, NULL, arena, NULL);
    times[n++] = now() - start;
  }
  qsort(times, (size_t)n, sizeof *times, rising);
  printf("%.17g %.17g\n", times[n / 2], times[0]);
}
"""


def agree(o, folder):
    with open(os.path.join(folder, "clock.c"), "w") as f:
        f.write(CLOCK)
    print("%-36s %12s %12s %8s %8s" % ("kernel", "bench ms", "clock ms", "medians", "fastest"))
    for kernel in o.args:
        common = ["--db", o.db or "none"]
        at = lambda name: os.path.join(folder, name)
        subprocess.run([o.tenon, "compile", kernel, "-o", at("t.o"), "--header", at("t.h"), "--prefix", "t", *common], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["cc", "-O2", "-I", folder, "-o", at("clock"), at("clock.c"), at("t.o"), "-lm"], check=True)
        rows = []
        for r in range(o.rounds * 2 + 1):
            asked = lambda: tenon(o, "bench", kernel, "--seconds", "0.2", "--threads", "1", "--aot", *common)
            clocked = lambda: [float(x) for x in subprocess.run([at("clock"), "0.2"], check=True, stdout=subprocess.PIPE, text=True).stdout.split()]
            (mine, theirs) = (asked(), clocked()) if r % 2 else (clocked(), asked())[::-1]
            rows.append((mine["median_ms"], theirs[0], mine["min_ms"], theirs[1]))
        ratio = lambda i: 100 * (statistics.median(x[i] / x[i + 1] for x in rows) - 1)
        print("%-36s %12.4f %12.4f %+7.1f%% %+7.1f%%" % (kernel, statistics.median(x[0] for x in rows), statistics.median(x[1] for x in rows), ratio(0), ratio(2)), flush=True)


def main():
    o = options()
    with tempfile.TemporaryDirectory() as folder:
        globals()[o.what](o, folder)


if __name__ == "__main__":
    main()
