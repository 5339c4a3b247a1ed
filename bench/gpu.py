"""What bench/gpu.sh runs, in parts that each have a share of the time:

  set        the tests' set of programs on the GPU, against the interpreter (build/tests/run_cuda_set)
  sanitizer  some of it under compute-sanitizer's memcheck, racecheck and synccheck
  families   cases: a small one against the CPU; all candidates timed by the tuner, libraries' plans among them; torch
  models     ONNX files against torch (bench/networks.py writes some in bf16)

A case is a graph's text, what torch does for the same (bench/peers/torch_gpu.py), and the ratio that is asked for: the best
rival's time / that of Tenon's best kernel, or for row operations the share of the bandwidth of a copy. "allowed" is the same
with libraries' plans among Tenon's. Everything is written to the JSON file after each step; the table comes last."""
import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from peer import Peer  # noqa: E402

ALLOWED_BAR = 0.98


def gemm(t, m, n, k, tail=""):
    extra = " input c: %s[%d]" % (t, n) if tail else ""
    extra += " input r: %s[%d, %d]" % (t, m, n) if "r" in tail.split("+")[1:] else ""
    kind = tail.split("+")[0]
    ends = {"": "output y", "Relu": "z = Relu(y) output z", "Gelu": "z = Gelu(y) output z", "SiLU": "s = Sigmoid(y) u = Mul(y, s) z = Add(u, r) output z"}
    call = "Gemm(a, b, c)" if tail else "Gemm(a, b)"
    return "graph g { opset 20 input a: %s[%d, %d] input b: %s[%d, %d]%s y = %s {transB = 1} %s }" % (t, m, k, t, n, k, extra, call, ends[kind])


def integers(m, n, k):
    """Weights that are folded, so that they are packed along the sum as tensor cores want them."""
    return ("graph g { opset 20 input a: i8[%d, %d] const z: i64[] = 0 const e: i64[] = %d const one: i64[] = 1 const sh: i64[2] = [%d, %d] const by: f32[] = 100.0 i = Range(z, e, one) f = Cast(i) {to = 1}"
            " s = Sin(f) v = Mul(s, by) w = Reshape(v, sh) b = Cast(w) {to = 3} y = MatMulInteger(a, b) output y }" % (m, k, k * n, k, n))


def eight_bits(t, m, n, k):
    return "graph g { opset 19 input a: %s[%d, %d] input b: %s[%d, %d] x = Cast(a) {to = 10} w = Cast(b) {to = 10} y = Gemm(x, w) {transB = 1} output y }" % (t, m, k, t, n, k)


def conv(t, n, c, hw, o, r, stride, pad, groups=1):
    """Weights that are folded: sines. In and out as NHWC."""
    shape = "%d, %d, %d, %d" % (o, c // groups, r, r)
    weights = ("const lo: i64[] = 0 const hi: i64[] = %d const one: i64[] = 1 const sh: i64[4] = [%s] i = Range(lo, hi, one) f = Cast(i) {to = 1} s = Sin(f) v = Reshape(s, sh) w = Cast(v) {to = %d}"
               % (o * (c // groups) * r * r, shape, {"f32": 1, "f16": 10, "bf16": 16}[t]))
    return ("graph g { opset 20 input x: %s[%d, %d, %d, %d] %s t = Transpose(x) {perm = [0, 3, 1, 2]} y = Conv(t, w) {strides = [%d, %d], pads = [%d, %d, %d, %d], group = %d}"
            " z = Transpose(y) {perm = [0, 2, 3, 1]} output z }" % (t, n, hw, hw, c, weights, stride, stride, pad, pad, pad, pad, groups))


def rows(t, m, n, what):
    return "graph g { opset 20 input x: %s[%d, %d] input s: %s[%d] %s output y }" % (t, m, n, t, n, what)


def attention(t, b, h, n, d, causal=False):
    q = "%s[%d, %d, %d, %d]" % (t, b, h, n, d)
    if causal:
        return "graph g { opset 23 input q: %s input k: %s input v: %s y = Attention(q, k, v) {is_causal = 1} output y }" % (q, q, q)
    return "graph g { opset 20 input q: %s input k: %s input v: %s t = Transpose(k) {perm = [0, 1, 3, 2]} s = MatMul(q, t) p = Softmax(s) y = MatMul(p, v) output y }" % (q, q, q)


class Case:
    """text: full size; small: of the same kind, which is checked; torch: what torch_gpu.py makes; one: the kernel that takes
    longest counts alone, what is around it being there for its layout; copy: a graph that only copies as many bytes."""

    def __init__(self, family, bar, name, text, torch, small, one=False, copy=None):
        self.family, self.bar, self.name, self.text, self.torch, self.small, self.one, self.copy = family, bar, name, text, torch, small, one, copy


def cases():
    def product(family, bar, t, m, n, k, tail=""):
        return Case(family, bar, "%s %dx%dx%d %s" % (t, m, n, k, tail), gemm(t, m, n, k, tail), ["gemm", t, m, n, k, tail], gemm(t, 136, 72, 128, tail))

    def window(family, bar, n, c, hw, o, r, s, p, groups=1):
        small = conv("bf16", 2, 64, 9, 64, r, s, p) if groups == 1 else conv("bf16", 1, 24, 9, 24, r, s, p, 24)
        return Case(family, bar, "bf16 n%dc%dh%dk%dr%du%d" % (n, c, hw, o, r, s), conv("bf16", n, c, hw, o, r, s, p, groups), ["conv", "bf16", n, c, hw, o, r, s, p, groups], small, one=True)

    for size in (8192, 4096, 2048):
        yield product("gemm", 0.95, "bf16", size, size, size)
    yield Case("attention", 0.75, "bf16 16x4096x128", attention("bf16", 1, 16, 4096, 128), ["attention", "bf16", 1, 16, 4096, 128], attention("bf16", 1, 2, 40, 32))
    for n, c, hw, o, r, s, p in ((32, 64, 56, 64, 3, 1, 1), (32, 256, 14, 256, 3, 1, 1), (32, 512, 28, 128, 1, 1, 0), (32, 128, 56, 128, 3, 2, 1)):
        yield window("conv", 0.9, n, c, hw, o, r, s, p)
    for name, what in (("softmax", "y = Softmax(x)"), ("layernorm", "y = LayerNormalization(x, s)")):
        yield Case("rows", 0.85, "bf16 %s 16384x4096" % name, rows("bf16", 16384, 4096, what), [name, "bf16", 16384, 4096], rows("bf16", 9, 260, what), copy=rows("bf16", 16384, 4096, "y = Relu(x)"))
    for c, hw, s in ((144, 56, 1), (384, 14, 1), (96, 112, 2)):
        yield window("depthwise", 1.5, 32, c, hw, c, 3, s, 1, c)
    for m in (1, 16, 64, 128):
        yield product("narrow", 1.0, "bf16", m, 4096, 4096)
    for tail in ("Relu", "Gelu", "SiLU+r"):
        yield product("fused", 1.1, "bf16", 4096, 4096, 1024, tail)
    yield product("f32", 0.95, "f32", 2048, 2048, 2048)
    yield product("f32", 0.95, "f32", 4096, 1024, 1024)
    yield Case("attention", 0.75, "bf16 16x8192x128", attention("bf16", 1, 16, 8192, 128), ["attention", "bf16", 1, 16, 8192, 128], attention("bf16", 1, 2, 70, 128))
    yield Case("attention", 0.75, "bf16 16x4096x128 causal", attention("bf16", 1, 16, 4096, 128, True), ["attention", "bf16", 1, 16, 4096, 128, 1], attention("bf16", 1, 2, 70, 64, True))
    yield product("gemm", 0.95, "f16", 4096, 4096, 4096)
    yield product("gemm", 0.95, "bf16", 16384, 1280, 5120)
    yield Case("i8", 0.95, "i8 4096x4096x4096", integers(4096, 4096, 4096), None, integers(136, 72, 128))
    for size in (4096, 8192):
        yield Case("fp8", 0.95, "f8e4m3fn %dx%dx%d" % (size, size, size), eight_bits("f8e4m3fn", size, size, size), None, eight_bits("f8e4m3fn", 136, 72, 128))
    yield Case("rows", 0.85, "f32 softmax 8192x4096", rows("f32", 8192, 4096, "y = Softmax(x)"), ["softmax", "f32", 8192, 4096], rows("f32", 9, 260, "y = Softmax(x)"), copy=rows("f32", 8192, 4096, "y = Relu(x)"))
    yield Case("attention", 0.75, "f32 16x2048x64", attention("f32", 1, 16, 2048, 64), ["attention", "f32", 1, 16, 2048, 64], attention("f32", 1, 2, 40, 32))


class Stop(Exception):
    pass


class Run:
    def __init__(self, a):
        self.a, self.end = a, a.started + a.minutes * 60
        self.tenon, self.work = os.path.join(a.build, "tenon"), tempfile.mkdtemp(prefix="tenon-gpu-")
        self.db = a.db or os.path.join(self.work, "store.db")
        self.target = "cuda"
        self.torch = None
        self.found = {"gpu": None, "dry": a.dry, "parts": {}, "rows": []}

    def left(self):
        return self.end - time.time()

    def save(self):
        path = os.path.abspath(self.a.json)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path + ".new", "w") as f:
            json.dump(self.found, f, indent=1)
        os.replace(path + ".new", path)

    def call(self, *argv, seconds=120):
        """(status, stdout, last line of stderr); a watchdog ends what hangs."""
        try:
            p = subprocess.run([self.tenon, *argv], capture_output=True, text=True, timeout=max(1, min(seconds, self.left())))
            return p.returncode, p.stdout, (p.stderr.strip().splitlines() or [""])[-1]
        except subprocess.TimeoutExpired:
            return 124, "", "no end after %d s" % seconds
        except OSError as e:
            return 127, "", str(e)

    def file(self, text):
        path = os.path.join(self.work, "case.tn")
        with open(path, "w") as f:
            f.write(text + "\n")
        return path

    # ---- the set ----

    def together(self, commands, seconds):
        """Runs commands side by side: [(status, output)]; what is not done in time is ended."""
        end = time.time() + max(1, min(seconds, self.left()))
        running = []
        for c in commands:
            try:
                running.append(subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
            except OSError as e:
                running.append(str(e))
        results = []
        for p in running:
            if isinstance(p, str):
                results.append((127, p))
                continue
            try:
                out, _ = p.communicate(timeout=max(0.1, end - time.time()))
            except subprocess.TimeoutExpired:
                p.kill()
                out, _ = p.communicate()
                out += "\nno end in time"
            results.append((p.returncode, out))
        return results

    def programs(self, part, prefixes, step, seconds):
        """Runs parts of the set, one per prefix; the first failing lines are shown."""
        tool = os.path.join(self.a.build, "tests", "run_cuda_set")
        if not os.path.exists(tool):
            self.found["parts"][part] = {"why": "build/tests/run_cuda_set is not there"}
        else:
            box = max(1, seconds - 15)  # what was begun ends, too
            if self.a.dry:
                step, box = 211, 20
            commands = [[*prefix, tool, str(i), str(step), "%.0f" % box] for i, prefix in enumerate(prefixes)]
            done, failed, wrong, all_ = 0, 0, [], 0
            for status, out in self.together(commands, seconds + 5):
                lines = out.strip().splitlines()
                last = next((w for w in reversed(lines) if w.startswith("done ")), None)
                if last:
                    words = last.replace(",", "").split()
                    done, all_, failed = done + int(words[1]), all_ + int(words[3]), failed + int(words[4])
                if status:
                    wrong += [w for w in lines if w.startswith("FAIL") or (w.startswith("=========") and any(x in w for x in ("Error", "error", "Invalid", "Uninit", "hazard")))][:5] or ["status %d: %s" % (status, lines[-1] if lines else "")]
            self.found["parts"][part] = {"done": done, "of": all_, "failed": failed, "wrong": wrong}
        print("%-10s %s" % (part, self.found["parts"][part]), flush=True)
        self.save()

    def sanitizer(self, seconds):
        places = [shutil.which("compute-sanitizer"), *(os.path.join(p, "bin", "compute-sanitizer") for p in (os.environ.get("CUDA_HOME", ""), "/usr/local/cuda", "/opt/cuda") if p)]
        tool = next((p for p in places if p and os.path.exists(p)), None)
        if not tool or self.a.dry:
            self.found["parts"]["sanitizer"] = {"why": "compute-sanitizer is not there" if not tool else "compute-sanitizer is not for the fake driver"}
            print("%-10s %s" % ("sanitizer", self.found["parts"]["sanitizer"]), flush=True)
            return
        self.programs("sanitizer", [(tool, "--tool", t, "--error-exitcode", "9") for t in ("memcheck", "racecheck", "synccheck", "initcheck")], 17, seconds)

    # ---- a case ----

    def check(self, text):
        """The GPU's results against the CPU's; None, or what is wrong."""
        path, data = self.file(text), os.path.join(self.work, "data")
        shutil.rmtree(data, ignore_errors=True)
        code, _, why = self.call("run", path, "--db", "none", "--output-dir", os.path.join(data, "cpu"), "--save-inputs", data)
        if code:
            return "on the CPU: " + why
        inputs = [w.split(":")[0] for w in text.split(" input ")[1:]]
        for i, name in enumerate(inputs):
            os.rename(os.path.join(data, name + ".npy"), os.path.join(data, "input_%d.npy" % i))
        output = text.split(" output ")[1].split()[0]
        os.rename(os.path.join(data, "cpu", output + ".npy"), os.path.join(data, "output_0.npy"))
        loose = "0.03" if "bf16" in text or "f8e" in text else "5e-3" if "f16" in text else "1e-3"
        code, _, why = self.call("verify", path, data, "--target", self.target, "--db", self.db, "--rtol", loose, "--atol", loose)
        return (why or "other numbers, status %d" % code) if code else None

    def time_tenon(self, path, seconds):
        code, out, why = self.call("bench", path, "--target", self.target, "--db", self.db, "--seconds", str(seconds), "--json")
        return (json.loads(out)["median_ms"], None) if code == 0 else (None, why)

    def time_torch(self, case, seconds, most):
        if not self.torch or not case:
            return {}
        return self.torch.ask(json.dumps({"case": case, "seconds": seconds}), timeout=max(1, min(most, self.left())))

    def tune(self, row, path, budget, one):
        """Times of all candidates: the best of Tenon's own, the best of the libraries'."""
        limits = ["--trials", "2"] if self.a.dry else ["--budget", "%.0fs" % budget]
        code, out, why = self.call("tune", path, "--target", self.target, "--layout", "NHWC", "--db", self.db, "--timeout", "10", *limits, "--json", seconds=budget + 30)
        if code:
            row["tune_error"] = why
            return
        model = json.loads(out)["models"][0]
        row.update({k: model[k] for k in ("trials", "failed", "stopped", "last_failure")})
        row["kernels"] = model["kernels"]
        counted = model["kernels"]
        if one:
            counted = [max(counted, key=lambda k: k["default_ns"] or k["own_ns"] or 0)] if counted else []
        for name in ("default", "own", "best"):
            times = [k[name + "_ns"] for k in counted]
            if times and all(times):
                row[name + "_ms"] = sum(times) / 1e6
        if counted and all(k["library_ns"] for k in counted):
            row["library_ms"] = sum(k["library_ns"] for k in counted) / 1e6

    def one(self, c, share):
        row = {"family": c.family, "case": c.name, "bar": c.bar}
        start = time.time()
        wrong = self.check(c.small)
        if wrong:
            row["wrong"] = wrong
        path = self.file(c.small if self.a.dry else c.text)
        seconds = 0.02 if self.a.dry else 0.2
        self.tune(row, path, max(2, min(self.a.tune, share * 0.6)), c.one)
        ms, why = self.time_tenon(path, seconds)
        if ms is None:
            row["error"] = why
        else:
            row["graph_ms"] = ms
        rivals = {"library": row["library_ms"]} if "library_ms" in row else {}
        if c.copy:
            ms, _ = self.time_tenon(self.file(c.small if self.a.dry else c.copy), seconds)
            rivals = {"copy": ms} if ms is not None else {}
        answer = self.time_torch(c.torch, seconds, max(5, share * 1.5 - (time.time() - start)))
        rivals.update({k[:-3]: v for k, v in answer.items() if k.endswith("_ms")})
        if answer.get("error"):
            row["torch_error"] = answer["error"]
        row["rivals"], row["seconds"] = rivals, time.time() - start
        ours = row.get("own_ms", None if c.one else row.get("graph_ms"))
        if rivals and ours:
            row["rival"] = min(rivals, key=rivals.get)
            row["ratio"] = rivals[row["rival"]] / ours
            row["ratio_untuned"] = rivals[row["rival"]] / row.get("default_ms", ours)
            row["allowed"] = rivals[row["rival"]] / min(ours, row.get("best_ms", ours))
        self.add(row)

    def add(self, row):
        self.found["rows"].append(row)
        self.save()
        ours = row.get("own_ms", row.get("graph_ms"))
        if "ratio" in row:
            text = "%6.2f of %-9s (untuned %.2f, allowed %.2f)%s" % (row["ratio"], row["rival"], row["ratio_untuned"], row["allowed"], "" if row["ratio"] >= (row["bar"] or 0) else "  below %.2f" % row["bar"])
        else:
            text = row.get("error") or ("no rival" if ours else "not timed")
        for name in ("tune_error", "torch_error"):
            text += "  %s: %s" % (name, row[name]) if name in row else ""
        print("%-10s %-30s %10s ms  %s%s" % (row["family"], row["case"], "%.4f" % ours if ours else "-", text, "  WRONG: " + row["wrong"] if "wrong" in row else ""), flush=True)

    def models(self):
        names = sorted(n for n in os.listdir(self.a.models) if n.endswith(".onnx"))
        for i, name in enumerate(names):
            share = (self.left() - 5) / (len(names) - i)
            if share < 5:
                break
            path, row = os.path.join(self.a.models, name), {"family": "models", "case": name[:-5], "bar": 1.0}
            if share > 30 and not self.a.dry:
                code, _, why = self.call("tune", path, "--target", self.target, "--db", self.db, "--timeout", "10", "--budget", "%.0fs" % (share * 0.5), "--json", seconds=share * 0.7)
                if code:
                    row["tune_error"] = why
            ms, why = self.time_tenon(path, 0.02 if self.a.dry else 0.5)
            row.update({"graph_ms": ms} if ms is not None else {"error": why})
            answer = self.time_torch(["model", name[:-5]], 0.5, share * 0.5)
            row["rivals"] = {k[:-3]: v for k, v in answer.items() if k.endswith("_ms")}
            if answer.get("error"):
                row["torch_error"] = answer["error"]
            if ms is not None and row["rivals"]:
                row["rival"] = min(row["rivals"], key=row["rivals"].get)
                row["ratio"] = row["ratio_untuned"] = row["allowed"] = row["rivals"][row["rival"]] / ms
            self.add(row)

    # ---- all of it ----

    def begin(self):
        """False without a GPU."""
        code, _, why = self.call("run", self.file("graph g { opset 20 input x: f32[8] y = Relu(x) output y }"), "--target", "cuda", "--db", "none")
        if code:
            print("no GPU: %s" % why)
            self.found["why"] = why
            return False
        _, out, _ = self.call("bench", os.path.join(self.work, "case.tn"), "--target", "cuda", "--db", "none", "--seconds", "0.01", "--json")
        self.found["gpu"] = json.loads(out)["device"]
        print("GPU: %s" % self.found["gpu"])
        _, out, _ = self.call("explain", os.path.join(self.work, "case.tn"), "--target", "cuda:sm_90a", "--db", "none")
        self.found["libraries"] = [w.strip() for w in out.splitlines() if w.startswith("  ") and ", version" in w]
        print("libraries: %s" % "; ".join(self.found["libraries"]))
        self.torch = Peer("torch", [sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers", "torch_gpu.py")], os.path.join(self.work, "torch.log"))
        first = {} if self.a.dry else self.torch.ask(json.dumps({"case": ["about"]}), timeout=60)
        if first.get("ok"):
            self.found["torch"] = first["about"]
        else:
            self.torch.stop(kill=True)
            self.torch = None
        print("torch: %s" % self.found.get("torch", first.get("error", "not there")), flush=True)
        return True

    def wanted(self, part):
        return not self.a.only or part in self.a.only.split(",")

    def all(self):
        if not self.begin():
            return
        total = self.left()
        if self.wanted("set"):
            n = min(8, os.cpu_count() or 1)
            self.programs("set", [()] * n, n, total * 0.12)
        if self.wanted("sanitizer"):
            self.sanitizer(total * 0.1)
        todo = [c for c in cases() if self.wanted(c.family)]
        kept = total * 0.15 if self.a.models and self.wanted("models") else 0
        for i, c in enumerate(todo):
            share = (self.left() - kept - 5) / (len(todo) - i)
            if share < 3:
                print("%d cases left out: no time" % (len(todo) - i))
                break
            self.one(c, share)
        if kept:
            self.models()

    def ahead(self):
        """Without a GPU: cubins of all candidates into the store."""
        for c in cases():
            if self.wanted(c.family):
                start = time.time()
                for text in (c.text, c.small) if c.copy is None else (c.text, c.small, c.copy):
                    code, out, why = self.call("tune", self.file(text), "--target", "cuda:sm_90a", "--db", self.db, "--candidates", "--compile", "--json", seconds=3600)
                print("%-10s %-30s %s" % (c.family, c.name, "%d candidates, %.0f s" % (len(json.loads(out)["candidates"]), time.time() - start) if code == 0 else why), flush=True)

    def table(self):
        if not self.found["gpu"]:
            return
        print("\n%-10s cases  wrong   ratio  worst    bar  untuned  allowed, worst (bar %.2f)" % ("family", ALLOWED_BAR))
        for part, r in self.found["parts"].items():
            print("%-10s %5s  %5s   %s" % (part, r.get("done", "-"), r.get("failed", 0) + (1 if r.get("wrong") and not r.get("failed") else 0), r.get("why", "of %s" % r.get("of"))))
        for family in dict.fromkeys(r["family"] for r in self.found["rows"]):
            these = [r for r in self.found["rows"] if r["family"] == family]
            timed = [r for r in these if "ratio" in r]
            mean = lambda name: "%.2f" % statistics.geometric_mean(r[name] for r in timed) if timed else "-"
            least = lambda name: "%.2f" % min(r[name] for r in timed) if timed else "-"
            print("%-10s %5d  %5d  %6s %6s %6s  %7s  %s" % (family, len(these), sum("wrong" in r for r in these), mean("ratio"), least("ratio"), these[0]["bar"] or "-", mean("ratio_untuned"), least("allowed")))

    def wrong(self):
        return any(r.get("failed") or r.get("wrong") for r in self.found["parts"].values()) or any("wrong" in r for r in self.found["rows"])


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--build", required=True)
    p.add_argument("--started", type=float, default=time.time())
    p.add_argument("--minutes", type=float, default=10)
    p.add_argument("--json")
    p.add_argument("--db")
    p.add_argument("--ahead", action="store_true")
    p.add_argument("--models")
    p.add_argument("--only")
    p.add_argument("--tune", type=float, default=15)
    p.add_argument("--dry", action="store_true")
    a = p.parse_args()
    a.json = a.json or os.path.join(a.build, "bench", "gpu.json")
    if a.ahead:
        a.minutes = 1e6
    r = Run(a)
    if a.ahead:
        r.ahead()
        return 0

    def stop(number, frame):
        raise Stop()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        r.all()
    except Stop:
        print("stopped: what was found until now")
    finally:
        if r.torch:
            r.torch.stop(kill=True)
        r.save()
        r.table()
        shutil.rmtree(r.work, ignore_errors=True)
    return 77 if not r.found["gpu"] else 1 if r.wrong() else 0


if __name__ == "__main__":
    sys.exit(main())
