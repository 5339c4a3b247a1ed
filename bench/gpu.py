"""What bench/gpu.sh runs: each case is checked against the CPU, timed in rounds that alternate with torch, and given as one
line of the table and one row of the JSON file.

A case is a graph's text, what torch does for the same (bench/peers/torch_gpu.py), and the ratio that is asked for:
rival's time / Tenon's, or for row operations the share of the bandwidth of a copy."""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from peer import Peer  # noqa: E402


def gemm(t, m, n, k, tail=""):
    extra = " input c: %s[%d]" % (t, n) if tail else ""
    end = "y = Gemm(a, b, c) {transB = 1} z = %s(y) output z" % tail if tail else "y = Gemm(a, b) {transB = 1} output y"
    return "graph g { opset 20 input a: %s[%d, %d] input b: %s[%d, %d]%s %s }" % (t, m, k, t, n, k, extra, end)


def conv(t, n, c, hw, o, r, stride, pad, groups=1):
    """Weights that are folded: sines. In and out as NHWC."""
    shape = "%d, %d, %d, %d" % (o, c // groups, r, r)
    weights = ("const lo: i64[] = 0 const hi: i64[] = %d const one: i64[] = 1 const sh: i64[4] = [%s] i = Range(lo, hi, one) f = Cast(i) {to = 1} s = Sin(f) v = Reshape(s, sh) w = Cast(v) {to = %d}"
               % (o * (c // groups) * r * r, shape, {"f32": 1, "f16": 10, "bf16": 16}[t]))
    return ("graph g { opset 20 input x: %s[%d, %d, %d, %d] %s t = Transpose(x) {perm = [0, 3, 1, 2]} y = Conv(t, w) {strides = [%d, %d], pads = [%d, %d, %d, %d], group = %d}"
            " z = Transpose(y) {perm = [0, 2, 3, 1]} output z }" % (t, n, hw, hw, c, weights, stride, stride, pad, pad, pad, pad, groups))


def copy(t, n, c, hw):
    """What such a graph does to its input before the convolution."""
    return "graph g { opset 20 input x: %s[%d, %d, %d, %d] t = Transpose(x) {perm = [0, 1, 2, 3]} r = Relu(t) output r }" % (t, n, hw, hw, c)


def rows(t, m, n, what):
    return "graph g { opset 20 input x: %s[%d, %d] input s: %s[%d] %s output y }" % (t, m, n, t, n, what)


def attention(t, b, h, n, d):
    q = "%s[%d, %d, %d, %d]" % (t, b, h, n, d)
    return "graph g { opset 20 input q: %s input k: %s input v: %s t = Transpose(k) {perm = [0, 1, 3, 2]} s = MatMul(q, t) p = Softmax(s) y = MatMul(p, v) output y }" % (q, q, q)


# family, bar, name, text of a graph, torch's case: full sizes; then a small one of the same kind, which is checked
def cases():
    g = lambda f, bar, t, m, n, k, tail="": (f, bar, "%s %dx%dx%d %s" % (t, m, n, k, tail), gemm(t, m, n, k, tail), ["gemm", t, m, n, k, tail], gemm(t, 136, 72, 128, tail))
    for size in (2048, 4096, 8192):
        yield g("gemm", 0.95, "bf16", size, size, size)
    yield g("gemm", 0.95, "f32", 2048, 2048, 2048)
    for m in (1, 16, 64, 128):
        yield g("narrow", 1.0, "bf16", m, 4096, 4096)
    yield g("fused", 1.1, "bf16", 4096, 4096, 1024, "Relu")
    yield g("fused", 1.1, "bf16", 4096, 4096, 1024, "Gelu")
    for n, c, hw, o, r, s, p in ((32, 64, 56, 64, 3, 1, 1), (32, 256, 14, 256, 3, 1, 1), (32, 512, 28, 128, 1, 1, 0), (32, 128, 56, 128, 3, 2, 1)):
        yield ("conv", 0.9, "bf16 n%dc%dh%dk%dr%du%d" % (n, c, hw, o, r, s), conv("bf16", n, c, hw, o, r, s, p), ["conv", "bf16", n, c, hw, o, r, s, p, 1], conv("bf16", 2, 64, 9, 64, r, s, p),
               copy("bf16", n, c, hw))
    for c, hw, s in ((144, 56, 1), (384, 14, 1)):
        yield ("depthwise", 1.5, "bf16 c%dh%du%d" % (c, hw, s), conv("bf16", 32, c, hw, c, 3, s, 1, c), ["conv", "bf16", 32, c, hw, c, 3, s, 1, c], conv("bf16", 1, 24, 9, 24, 3, s, 1, 24), copy("bf16", 32, c, hw))
    for name, what in (("softmax", "y = Softmax(x)"), ("layernorm", "y = LayerNormalization(x, s)")):
        yield ("rows", 0.85, "bf16 %s 16384x4096" % name, rows("bf16", 16384, 4096, what), [name, "bf16", 16384, 4096], rows("bf16", 9, 260, what))
    yield ("attention", 0.75, "bf16 8x4096x128", attention("bf16", 1, 8, 4096, 128), ["attention", "bf16", 1, 8, 4096, 128], attention("bf16", 1, 2, 40, 32))


class Run:
    def __init__(self, a):
        self.a, self.end = a, a.started + a.minutes * 60
        self.tenon, self.work = os.path.join(a.build, "tenon"), tempfile.mkdtemp(prefix="tenon-gpu-")
        self.db = os.path.join(self.work, "store.db")
        self.target = "cuda"
        self.rows, self.wrong, self.torch = [], 0, None

    def left(self):
        return self.end - time.time()

    def call(self, *argv, seconds=120, prefix=()):
        """(status, stdout, last line of stderr); a watchdog ends what hangs."""
        try:
            p = subprocess.run([*prefix, self.tenon, *argv], capture_output=True, text=True, timeout=max(1, min(seconds, self.left())))
            return p.returncode, p.stdout, (p.stderr.strip().splitlines() or [""])[-1]
        except subprocess.TimeoutExpired:
            return 124, "", "no end after %d s" % seconds

    def file(self, text):
        path = os.path.join(self.work, "case.tn")
        with open(path, "w") as f:
            f.write(text + "\n")
        return path

    def check(self, text):
        """The GPU's results against the CPU's; None, or what is wrong."""
        path, data = self.file(text), os.path.join(self.work, "data")
        shutil.rmtree(data, ignore_errors=True)
        code, _, why = self.call("run", path, "--db", "none", "--output-dir", os.path.join(data, "cpu"), "--save-inputs", data)
        if code:
            return why
        inputs = [w.split(":")[0] for w in text.split(" input ")[1:]]
        for i, name in enumerate(inputs):
            os.rename(os.path.join(data, name + ".npy"), os.path.join(data, "input_%d.npy" % i))
        output = text.split(" output ")[1].split()[0]
        os.rename(os.path.join(data, "cpu", output + ".npy"), os.path.join(data, "output_0.npy"))
        loose = "0.03" if "bf16" in text else "1e-3"
        prefix = ("compute-sanitizer", "--error-exitcode", "9") if shutil.which("compute-sanitizer") and not self.a.dry else ()
        code, _, why = self.call("verify", path, data, "--target", self.target, "--db", self.db, "--rtol", loose, "--atol", loose, prefix=prefix)
        return (why or "other numbers (or what compute-sanitizer found), status %d" % code) if code else None

    def time_tenon(self, path, seconds):
        code, out, why = self.call("bench", path, "--target", self.target, "--db", self.db, "--seconds", str(seconds), "--json")
        return (json.loads(out)["median_ms"], None) if code == 0 else (None, why)

    def time_torch(self, case, seconds):
        if not self.torch:
            return {}
        answer = self.torch.ask(json.dumps({"case": case, "seconds": seconds}), timeout=max(1, min(90, self.left())))
        return answer if answer.get("ok") else {"error": answer.get("error")}

    def one(self, family, bar, name, text, case, small, before=None):
        """`before`: a graph whose time is no part of it."""
        row = {"family": family, "case": name, "bar": bar}
        wrong = self.check(small)
        if wrong:
            self.wrong += 1
            row["wrong"] = wrong
        path = self.file(small if self.a.dry else text)
        seconds, ours, theirs = 0.02 if self.a.dry else 0.3, [], {}
        less = 0.0
        if before and not self.a.dry:
            less = self.time_tenon(self.file(before), seconds)[0] or 0.0
            row["less_ms"] = less
            self.file(text)
        for _ in range(1 if self.a.dry else 3):  # rounds that alternate
            ms, why = self.time_tenon(path, seconds)
            if ms is None:
                row["error"] = why
                break
            ours.append(ms - less if less < ms else ms)
            answer = self.time_torch(case, seconds)
            for key, v in answer.items():
                if key.endswith("_ms"):
                    theirs.setdefault(key[:-3], []).append(v)
                elif key in ("error", "bytes"):
                    row["torch_error" if key == "error" else key] = v
        if ours:
            row["ms"] = statistics.median(ours)
            self.tune(row, path, seconds, less)
            row["rivals"] = {k: statistics.median(v) for k, v in theirs.items()}
            if row["rivals"]:
                best = min(row["rivals"], key=row["rivals"].get)
                row["best"], row["ratio"] = best, row["rivals"][best] / min(row["ms"], row.get("tuned_ms", row["ms"]))
                row["ratio_untuned"] = row["rivals"][best] / row["ms"]
        self.rows.append(row)
        self.say(row)

    def tune(self, row, path, seconds, less):
        """Candidates of the case, libraries' plans with them, then its time by the winner; the store is the case's own."""
        if not self.a.tune or self.left() < self.a.tune + 20:
            return
        budget = ["--trials", "1"] if self.a.dry else ["--budget", "%gs" % self.a.tune]
        code, out, why = self.call("tune", path, "--target", self.target, "--db", self.db, "--timeout", "10", *budget, "--json")
        if code:
            row["tune_error"] = why
            return
        found = json.loads(out)["models"][0]
        row["trials"], row["failed"] = found["trials"], found["failed"]
        row["schedules"] = [k["schedule"] for k in found["kernels"]]
        ms, why = self.time_tenon(path, seconds)
        if ms is not None:
            row["tuned_ms"] = ms - less if less < ms else ms
        else:
            row["tune_error"] = why

    def say(self, row):
        if "ratio" in row:
            text = "%8.2f of %-10s (%.2f untuned) %s" % (row["ratio"], row["best"], row["ratio_untuned"], "" if row["ratio"] >= (row["bar"] or 0) else "below %.2f" % row["bar"])
        else:
            text = row.get("error") or ("no rival" if "ms" in row else "")
        if "tune_error" in row:
            text += "  tuning: " + row["tune_error"]
        print("%-10s %-34s %10s %10s ms  %s%s" % (row["family"], row["case"], "%.4f" % row["ms"] if "ms" in row else "-", "%.4f" % row["tuned_ms"] if "tuned_ms" in row else "-", text, "  WRONG: " + row["wrong"] if "wrong" in row else ""), flush=True)

    def models(self):
        for name in sorted(os.listdir(self.a.models)):
            if not name.endswith(".onnx") or self.left() < 20:
                continue
            ms, why = self.time_tenon(os.path.join(self.a.models, name), 1)
            row = {"family": "models", "case": name[:-5], "bar": None, **({"ms": ms} if ms is not None else {"error": why})}
            answer = self.time_torch(["model", name[:-5]], 1)
            row["rivals"] = {k[:-3]: v for k, v in answer.items() if k.endswith("_ms")}
            if ms is not None and row["rivals"]:
                row["best"] = min(row["rivals"], key=row["rivals"].get)
                row["bar"], row["ratio"] = 1.0, row["rivals"][row["best"]] / ms
                row["ratio_untuned"] = row["ratio"]
            self.rows.append(row)
            self.say(row)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--build", required=True)
    p.add_argument("--started", type=float, default=time.time())
    p.add_argument("--minutes", type=float, default=10)
    p.add_argument("--json")
    p.add_argument("--models")
    p.add_argument("--only")
    p.add_argument("--tune", type=float, default=6)
    p.add_argument("--dry", action="store_true")
    a = p.parse_args()
    a.json = a.json or os.path.join(a.build, "bench", "gpu.json")
    r = Run(a)
    found = {"gpu": None, "dry": a.dry, "rows": r.rows}
    try:
        code, _, why = r.call("run", r.file("graph g { opset 20 input x: f32[8] y = Relu(x) output y }"), "--target", "cuda", "--db", "none")
        if code == 0:
            _, out, _ = r.call("bench", os.path.join(r.work, "case.tn"), "--target", "cuda", "--db", "none", "--seconds", "0.01", "--json")
            found["gpu"] = json.loads(out)["device"]
            print("GPU: %s" % found["gpu"])
            r.torch = Peer("torch", [sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers", "torch_gpu.py")], os.path.join(r.work, "torch.log"))
            first = {} if a.dry else r.torch.ask(json.dumps({"case": ["about"]}), timeout=90)
            if first.get("ok"):
                found["rivals"] = first["about"]
            else:
                r.torch = None
            print("rivals: %s" % (found.get("rivals") or "none"))
            for case in cases():
                if (not a.only or a.only == case[0]) and r.left() > 10:
                    r.one(*case)
            if a.models and (not a.only or a.only == "models"):
                r.models()
            if r.torch:
                r.torch.stop()
        else:
            print("no GPU: %s" % why)
            found["why"] = why
    finally:
        shutil.rmtree(r.work, ignore_errors=True)
    os.makedirs(os.path.dirname(os.path.abspath(a.json)), exist_ok=True)
    with open(a.json, "w") as f:
        json.dump(found, f, indent=1)
    print_table(found)
    return 77 if not found["gpu"] else 1 if r.wrong else 0


def print_table(found):
    if not found["gpu"]:
        return
    print("\nfamily      cases  wrong  ratio (geomean)  worst   bar")
    for family in dict.fromkeys(r["family"] for r in found["rows"]):
        rows_ = [r for r in found["rows"] if r["family"] == family]
        ratios = [r["ratio"] for r in rows_ if "ratio" in r]
        print("%-10s %6d %6d  %15s  %5s  %4s" % (family, len(rows_), sum("wrong" in r for r in rows_), "%.2f" % statistics.geometric_mean(ratios) if ratios else "-",
                                            "%.2f" % min(ratios) if ratios else "-", rows_[0]["bar"] or "-"))


if __name__ == "__main__":
    sys.exit(main())
