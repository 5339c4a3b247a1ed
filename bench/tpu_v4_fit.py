#!/usr/bin/env python3
"""Fits what the preset tpu-v4 does not take from publications to measured matrix products, and judges it on others.

  bench/tpu_v4_fit.py MEASURED.csv [--tenon build/tenon] [--splits 6] [--seed 1] [--iterations 60] [--all] [--judge]

MEASURED.csv has columns range, M, N, K, fusion_us_avg: kernel times on a TPU v4 in microseconds, f16 operands. Rows of
the range 1024-4096 are split at random in halves; the constants are fitted on one half (least mean relative error,
Nelder and Mead, 1965) by running the compiled programs through `tenon simulate`, and judged on the other. Beside it a
straight line with four constants (a + b MNK + c MN + d (MK + KN), least squares) gets the same halves. --all fits
the constants to all rows: these go into the preset. --judge fits nothing: the preset as it is."""
import argparse
import csv
import os
import random
import subprocess
import tempfile

# what is fitted, and where the search begins; the rest is the preset's
START = {"join_cycles": 18500.0, "f16": 1.8, "window_cycles": 0.18, "near_gbps": 4500.0}


def simulated(tenon, rows, constants, folder):
    """Microseconds of each row on the preset with these constants in place of its own."""
    topology, machine, out = (os.path.join(folder, n) for n in ("rows.csv", "v4.machine", "out.csv"))
    with open(topology, "w") as f:
        f.write("Layer,M,N,K,\n" + "".join("r%d,%d,%d,%d,\n" % (i, *r[:3]) for i, r in enumerate(rows)))
    with open(machine, "w") as f:
        f.write("like tpu-v4\nname fitted\n" + "".join("%s %.9g\n" % kv for kv in constants.items()))
    subprocess.run([tenon, "simulate", topology, "--machine", machine, "--timing", "tpu", "--dtype", "f16", "--csv", out],
                   check=True, stdout=subprocess.DEVNULL)
    with open(out, newline="") as f:
        return [float(x["microseconds"]) for x in csv.DictReader(f)]


def mape(predicted, rows):
    return 100 * sum(abs(p - r[3]) / r[3] for p, r in zip(predicted, rows)) / len(rows)


def minimum(f, x, iterations):
    """Nelder and Mead's simplex from x, for positive arguments."""
    n = len(x)
    simplex = [(f(p), p) for p in [x] + [[v * (1.2 if i == j else 1) for i, v in enumerate(x)] for j in range(n)]]
    for _ in range(iterations):
        simplex.sort(key=lambda s: s[0])
        worst, centre = simplex[-1][1], [sum(s[1][i] for s in simplex[:-1]) / n for i in range(n)]
        def at(t):
            p = [c + t * (w - c) for c, w in zip(centre, worst)]
            return (f(p) if min(p) > 0 else 1e9, p)
        trial = at(-1.0)
        if trial[0] < simplex[0][0]:
            trial = min(trial, at(-2.0), key=lambda s: s[0])
        elif trial[0] >= simplex[-2][0]:
            trial = at(0.5)
            if trial[0] >= simplex[-1][0]:
                best = simplex[0][1]
                simplex = [simplex[0]] + [(f(p), p) for p in ([(a + b) / 2 for a, b in zip(best, s[1])] for s in simplex[1:])]
                continue
        simplex[-1] = trial
    return min(simplex, key=lambda s: s[0])[1]


def fitted(tenon, rows, folder, iterations):
    names = list(START)
    error = lambda x: mape(simulated(tenon, rows, dict(zip(names, x)), folder), rows)
    return dict(zip(names, minimum(error, list(START.values()), iterations)))


def line(train, test):
    """Least squares of a + b MNK + c MN + d (MK + KN), by the normal equations."""
    terms = lambda r: [1.0, r[0] * r[1] * r[2] / 1e9, r[0] * r[1] / 1e6, (r[0] * r[2] + r[2] * r[1]) / 1e6]
    n, x = 4, [terms(r) for r in train]
    a = [[sum(t[i] * t[j] for t in x) for j in range(n)] + [sum(t[i] * r[3] for t, r in zip(x, train))] for i in range(n)]
    for i in range(n):
        k = max(range(i, n), key=lambda r: abs(a[r][i]))
        a[i], a[k] = a[k], a[i]
        for r in range(n):
            if r != i:
                a[r] = [u - a[r][i] / a[i][i] * v for u, v in zip(a[r], a[i])]
    c = [a[i][n] / a[i][i] for i in range(n)]
    return mape([sum(u * v for u, v in zip(c, terms(r))) for r in test], test)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("measured")
    p.add_argument("--tenon", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "build", "tenon"))
    p.add_argument("--splits", type=int, default=6)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--iterations", type=int, default=60)
    p.add_argument("--all", action="store_true")
    p.add_argument("--judge", action="store_true")
    a = p.parse_args()
    with open(a.measured, newline="") as f:
        rows = [(int(r["M"]), int(r["N"]), int(r["K"]), float(r["fusion_us_avg"])) for r in csv.DictReader(f) if r["range"] == "1024-4096"]
    with tempfile.TemporaryDirectory() as folder:
        if a.judge:
            print("preset as it is, all %d rows: %.2f %%" % (len(rows), mape(simulated(a.tenon, rows, {}, folder), rows)))
            return
        if a.all:
            c = fitted(a.tenon, rows, folder, a.iterations)
            print("%.2f %% with %s" % (mape(simulated(a.tenon, rows, c, folder), rows), c))
            return
        ours, theirs = [], []
        for split in range(a.splits):
            order = rows[:]
            random.Random(a.seed + split).shuffle(order)
            train, test = order[: len(order) // 2], order[len(order) // 2:]
            c = fitted(a.tenon, train, folder, a.iterations)
            ours.append(mape(simulated(a.tenon, test, c, folder), test))
            theirs.append(line(train, test))
            print("split %d: rows not fitted %.2f %%, line %.2f %%  %s" % (split, ours[-1], theirs[-1], {k: round(v, 3) for k, v in c.items()}), flush=True)
        print("mean: %.2f %%, line %.2f %%" % (sum(ours) / len(ours), sum(theirs) / len(theirs)))


main()
