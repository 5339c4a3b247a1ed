"""The protocol of bench/serve.h for peers in Python: load, run, save, drop.

A peer gives a class with load(path, arrays, dims) that returns a runner: run() once, and
outputs() as arrays. Inputs come as raw files, described by DIR/meta.json:
[{"name", "dtype", "dims"}, ...] in the order of the model's inputs.
"""
import json
import os
import sys
import time

import numpy as np


def read_inputs(folder):
    with open(os.path.join(folder, "meta.json")) as f:
        meta = json.load(f)
    arrays = {}
    for k, m in enumerate(meta):
        path = os.path.join(folder, "in_%d.bin" % k)
        arrays[m["name"]] = np.fromfile(path, dtype=m["dtype"]).reshape(m["dims"])
    return arrays


def measure(run, seconds):
    """Times of single runs for so long, at least three after a warm one."""
    run()
    times = []
    begin = now = time.perf_counter()
    while len(times) < 3 or now - begin < seconds:
        start = time.perf_counter()
        run()
        now = time.perf_counter()
        times.append(now - start)
    times.sort()
    return {"min": times[0], "median": times[len(times) // 2], "runs": len(times)}


def serve(load):
    """load(path, arrays) -> (run, outputs)."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print
    items = {}

    def handle(words):
        command, key = words[0], words[1]
        if command == "load":
            if words[2] != "model":
                raise ValueError("load: only models")
            items[key] = load(words[3], read_inputs(words[4]))
            return {}
        if command == "run":
            return measure(items[key][0], float(words[2]))
        if command == "save":
            items[key][0]()
            arrays = items[key][1]()
            for k, a in enumerate(arrays):
                np.ascontiguousarray(a).tofile(os.path.join(words[2], "out_%d.bin" % k))
            return {"outputs": len(arrays), "dtypes": [str(a.dtype) for a in arrays], "dims": [list(a.shape) for a in arrays]}
        if command == "drop":
            del items[key]
            return {}
        raise ValueError("unknown command " + command)

    def answer(d):
        out.write(json.dumps(d) + "\n")
        out.flush()

    answer({"ok": True, "ready": True})
    for line in sys.stdin:
        words = line.rstrip("\n").split("\t")
        if words[0] == "quit":
            break
        try:
            answer({"ok": True, **handle(words)})
        except Exception as e:  # the benchmark goes on without this case
            answer({"ok": False, "error": "%s: %s" % (type(e).__name__, str(e).splitlines()[0] if str(e) else "")})
