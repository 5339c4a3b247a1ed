#!/usr/bin/env python3
"""Gradients of random graphs against torch autograd.

    python grad_torch.py TENON [--graphs 2000] [--seed 1] [--second 0.1] [--keep DIR]

Each graph is 3 to 10 random ops over random inputs, written as graph text with a
tenon:Gradient node (or two, one of the other: --second), and computed by torch in f64 from the
same f32 inputs. The error of a tensor is its largest difference over its largest element; 1e-4 is the limit.
Where sums cancel no f32 program keeps that: a tensor beyond it passes if its difference is within 8 times what
torch itself loses, in f32 or by inputs changed in the last place (the larger of both), or within four roundings
of the graph's largest gradient, or if f32 torch overflows there; such tensors are counted.
Many graphs go into one file, so that the process starts seldom. Exit 0, or 1 with the graphs
that differ; 77 when torch or numpy is missing."""
import argparse, os, random, subprocess, sys, tempfile

try:
    import numpy as np
    import torch
    import torch.nn.functional as F
except ImportError:
    sys.exit(77)

torch.set_num_threads(1)


LIMIT = 1e-4
EXACT, SINGLE, SHAKEN = range(3) # torch in f64; in f32; in f64 with inputs changed in their last place


class Graph:
    """Text and torch values of one graph, name by name."""

    def __init__(self, tag, rng, mode=EXACT):
        self.mode = mode
        self.tag, self.rng, self.lines, self.inputs, self.values, self.count = tag, rng, [], {}, [], 0

    def name(self):
        self.count += 1
        return f"{self.tag}_{self.count}"

    def input(self, shape, lo=-1.0, hi=1.0):
        n = self.name()
        x = np.random.default_rng(self.rng.getrandbits(32)).uniform(lo, hi, shape).astype(np.float32)
        self.lines.append(f"input {n}: f32[{', '.join(map(str, shape))}]")
        y = x.astype(np.float64)
        if self.mode == SHAKEN:
            y *= 1 + np.random.default_rng(self.count).uniform(-(2.0**-23), 2.0**-23, shape)
        t = torch.tensor(y, dtype=torch.float32 if self.mode == SINGLE else torch.float64, requires_grad=True)
        self.inputs[n] = (x, t)
        return n, t

    def ints(self, values):
        n = self.name()
        self.lines.append(f"const {n}: i64[{len(values)}] = [{', '.join(map(str, values))}]")
        return n

    def tensor(self, values):
        n = self.name()
        self.lines.append(f"const {n}: i64[{', '.join(map(str, values.shape))}] = [{', '.join(map(str, values.flatten().tolist()))}]")
        return n

    def number(self, v):
        n = self.name()
        self.lines.append(f"const {n}: f32[] = {v!r}")
        return n

    def op(self, text, value, outs=1, pick=0):
        names = [self.name() for _ in range(outs)]
        self.lines.append(f"{', '.join(names)} = {text}")
        return names[pick], value


def positive(g, v):
    s, t = g.op(f"Mul({v[0]}, {v[0]})", v[1] * v[1])
    return g.op(f"Add({s}, {g.number(0.5)})", t + 0.5)


def unary(name, fn, prepare=None, attrs=""):
    def make(g, v):
        if prepare:
            v = prepare(g, v)
        return g.op(f"{name}({v[0]}){attrs}", fn(v[1]))
    return make


def tanh(g, v):
    return g.op(f"Tanh({v[0]})", torch.tanh(v[1]))


UNARY = [
    unary("Tanh", torch.tanh), unary("Sigmoid", torch.sigmoid), unary("Sin", torch.sin), unary("Cos", torch.cos), unary("Softplus", F.softplus),
    unary("Gelu", F.gelu), unary("Gelu", lambda x: F.gelu(x, approximate="tanh"), attrs=' { approximate = "tanh" }'), unary("Erf", torch.erf), unary("Elu", F.elu), unary("Selu", F.selu),
    unary("Celu", lambda x: F.celu(x, 0.7), attrs=" { alpha = 0.7 }"), unary("Mish", F.mish), unary("Relu", F.relu), unary("LeakyRelu", lambda x: F.leaky_relu(x, 0.125), attrs=" { alpha = 0.125 }"),
    unary("Abs", torch.abs), unary("HardSwish", F.hardswish), unary("Softsign", F.softsign), unary("Neg", torch.neg), unary("Atan", torch.atan), unary("Asinh", torch.asinh),
    unary("Exp", torch.exp, tanh), unary("Sinh", torch.sinh, tanh), unary("Cosh", torch.cosh, tanh), unary("Log", torch.log, positive), unary("Sqrt", torch.sqrt, positive),
    unary("Reciprocal", torch.reciprocal, positive), unary("Swish", F.silu), unary("Clip", lambda x: x.clamp(-0.5, 0.25), attrs=" { min = -0.5, max = 0.25 } opset 6"),
    unary("Floor", torch.floor), unary("Sign", torch.sign), unary("Identity", lambda x: x * 1),
]


def binary(g, v):
    shape = [d if g.rng.random() < 0.7 else 1 for d in v[1].shape]
    while shape and g.rng.random() < 0.3:
        shape.pop(0)
    w = g.rng.choice([x for x in g.values if list(x[1].shape) == list(v[1].shape)] or [v]) if g.rng.random() < 0.4 else g.input(shape)
    name, fn = g.rng.choice([("Add", torch.add), ("Sub", torch.sub), ("Mul", torch.mul), ("Div", torch.div), ("Max", torch.maximum), ("Min", torch.minimum), ("Pow", torch.pow), ("Where", None)])
    if g.rng.random() < 0.5:
        v, w = w, v
    if name == "Div":
        w = positive(g, w)
    if name == "Pow":
        v = positive(g, v)
    if name == "Where":
        c = g.op(f"Less({v[0]}, {w[0]})", v[1] < w[1])
        return g.op(f"Where({c[0]}, {v[0]}, {w[0]})", torch.where(c[1], v[1], w[1]))
    return g.op(f"{name}({v[0]}, {w[0]})", fn(v[1], w[1]))


def reduce(g, v):
    if not v[1].dim():
        return None
    axes = sorted(g.rng.sample(range(v[1].dim()), g.rng.randint(1, v[1].dim())))
    keep = g.rng.random() < 0.5
    name, fn = g.rng.choice([("ReduceSum", torch.sum), ("ReduceMean", torch.mean), ("ReduceMax", torch.amax), ("ReduceMin", torch.amin),
        ("ReduceL1", lambda x, d, keepdim: x.abs().sum(d, keepdim=keepdim)), ("ReduceL2", lambda x, d, keepdim: torch.linalg.vector_norm(x, 2, d, keepdim)),
        ("ReduceLogSumExp", torch.logsumexp), ("ReduceSumSquare", lambda x, d, keepdim: (x * x).sum(d, keepdim=keepdim)), ("ReduceProd", None)])
    if name == "ReduceProd":
        axes = axes[:1]
        fn = lambda x, d, keepdim: torch.prod(x, d[0], keepdim)
    return g.op(f"{name}({v[0]}, {g.ints(axes)}) {{ keepdims = {int(keep)} }}", fn(v[1], axes, keepdim=keep))


def move(g, v):
    x, t, r = v[0], v[1], g.rng
    n = t.dim()
    if not n:
        return None
    a = r.randrange(n)
    kind = r.choice(["transpose", "flatten", "slice", "concat", "pad", "expand", "tile", "gather", "gather_elements", "scatter", "split", "flip", "cumsum", "trilu", "topk", "reflect"])
    if kind == "transpose":
        p = r.sample(range(n), n)
        return g.op(f"Transpose({x}) {{ perm = {p} }}", t.permute(p))
    if kind == "flatten":
        return g.op(f"Flatten({x}) {{ axis = {a} }}", t.reshape(int(np.prod(t.shape[:a])), -1))
    if kind == "slice" and t.shape[a] > 1:
        lo, step = r.randrange(t.shape[a]), r.choice([1, 1, 2])
        return g.op(f"Slice({x}, {g.ints([lo])}, {g.ints([t.shape[a]])}, {g.ints([a])}, {g.ints([step])})", t.narrow(a, lo, t.shape[a] - lo).index_select(a, torch.arange(0, t.shape[a] - lo, step)))
    if kind == "flip":
        return g.op(f"Slice({x}, {g.ints([-1])}, {g.ints([-99])}, {g.ints([a])}, {g.ints([-1])})", t.flip(a))
    if kind == "concat":
        w = g.input(list(t.shape))
        return g.op(f"Concat({x}, {w[0]}, {x}) {{ axis = {a} }}", torch.cat([t, w[1], t], a))
    if kind == "pad":
        b, e = [r.randint(0, 2) for _ in range(n)], [r.randint(0, 2) for _ in range(n)]
        return g.op(f"Pad({x}, {g.ints(b + e)})", F.pad(t, [p for i in reversed(range(n)) for p in (b[i], e[i])]))
    if kind == "reflect" and n in (3, 4) and min(t.shape[2:]) > 1:
        k = n - 2
        b, e = [r.randint(0, 1) for _ in range(k)], [r.randint(0, 1) for _ in range(k)]
        mode = r.choice([("reflect", "reflect"), ("edge", "replicate"), ("wrap", "circular")])
        return g.op(f'Pad({x}, {g.ints([0, 0] + b + [0, 0] + e)}) {{ mode = "{mode[0]}" }}', F.pad(t, [p for i in reversed(range(k)) for p in (b[i], e[i])], mode=mode[1]))
    if kind == "expand" and n < 4:
        return g.op(f"Expand({x}, {g.ints([2] + list(t.shape))})", t.expand(2, *t.shape))
    if kind == "tile":
        k = [r.randint(1, 2) for _ in range(n)]
        return g.op(f"Tile({x}, {g.ints(k)})", t.repeat(k))
    if kind == "gather":
        i = [r.randrange(t.shape[a]) for _ in range(3)]
        return g.op(f"Gather({x}, {g.ints(i)}) {{ axis = {a} }}", t.index_select(a, torch.tensor(i)))
    if kind == "gather_elements":
        i = np.array([r.randrange(t.shape[a]) for _ in range(t.numel())]).reshape(t.shape)
        return g.op(f"GatherElements({x}, {g.tensor(i)}) {{ axis = {a} }}", t.gather(a, torch.tensor(i)))
    if kind == "scatter":
        w = g.input(list(t.shape))
        i = np.array([r.randrange(t.shape[a]) for _ in range(t.numel())]).reshape(t.shape)
        return g.op(f'ScatterElements({x}, {g.tensor(i)}, {w[0]}) {{ axis = {a}, reduction = "add" }}', t.scatter_add(a, torch.tensor(i), w[1]))
    if kind == "split" and t.shape[a] > 1:
        k = r.randrange(2)
        h = (t.shape[a] + 1) // 2
        return g.op(f"Split({x}) {{ axis = {a}, num_outputs = 2 }}", t.split([h, t.shape[a] - h], a)[k], 2, k)
    if kind == "cumsum":
        c = g.name()
        g.lines.append(f"const {c}: i64[] = {a}")
        return g.op(f"CumSum({x}, {c})", t.cumsum(a))
    if kind == "trilu" and n >= 2:
        return g.op(f"Trilu({x}) {{ upper = 0 }}", t.tril())
    if kind == "topk":
        k = r.randint(1, t.shape[a])
        return g.op(f"TopK({x}, {g.ints([k])}) {{ axis = {a} }}", t.topk(k, a)[0], 2, 0)
    return None


def rows(g, v):
    x, t, r = v[0], v[1], g.rng
    n = t.dim()
    if not n:
        return None
    a = r.randrange(n)
    kind = r.choice(["softmax", "log_softmax", "layer", "rms", "batch", "group", "instance", "lrn", "lp", "loss"])
    if kind == "softmax":
        return g.op(f"Softmax({x}) {{ axis = {a} }}", t.softmax(a))
    if kind == "log_softmax":
        return g.op(f"LogSoftmax({x}) {{ axis = {a} }}", t.log_softmax(a))
    if kind == "layer" and t.shape[-1] > 1:
        s, b = g.input([t.shape[-1]]), g.input([t.shape[-1]])
        return g.op(f"LayerNormalization({x}, {s[0]}, {b[0]}) {{ epsilon = 0.01 }}", F.layer_norm(t, [t.shape[-1]], s[1], b[1], float(np.float32(0.01))))
    if kind == "rms":
        s = g.input([t.shape[-1]])
        return g.op(f"RMSNormalization({x}, {s[0]}) {{ epsilon = 0.01 }}", F.rms_norm(t, [t.shape[-1]], s[1], float(np.float32(0.01))))
    if kind == "lp":
        return g.op(f"LpNormalization({x}) {{ axis = {a} }}", t / torch.linalg.vector_norm(t, 2, a, True))
    if n < 3:
        return None
    c = t.shape[1]
    s, b = g.input([c]), g.input([c])
    if kind == "batch" and t.numel() // c > 1:
        m, w = g.input([c]), g.input([c], 0.5, 1.5)
        return g.op(f"BatchNormalization({x}, {s[0]}, {b[0]}, {m[0]}, {w[0]}) {{ training_mode = 1, epsilon = 0.01 }}", F.batch_norm(t, None, None, s[1], b[1], True, 0.1, float(np.float32(0.01))))
    if kind == "group" and c % 2 == 0 and t.numel() // c > 1:
        return g.op(f"GroupNormalization({x}, {s[0]}, {b[0]}) {{ num_groups = 2, epsilon = 0.01 }}", F.group_norm(t, 2, s[1], b[1], float(np.float32(0.01))))
    if kind == "instance" and t.numel() // (c * t.shape[0]) > 1:
        return g.op(f"InstanceNormalization({x}, {s[0]}, {b[0]}) {{ epsilon = 0.01 }}", F.instance_norm(t, None, None, s[1], b[1], eps=float(np.float32(0.01))))
    if kind == "lrn":
        return g.op(f"LRN({x}) {{ size = 3, alpha = 0.5 }}", F.local_response_norm(t, 3, 0.5))
    if kind == "loss":
        i = np.array([g.rng.randrange(c) for _ in range(t.numel() // c)]).reshape([t.shape[0]] + list(t.shape[2:]))
        return g.op(f"SoftmaxCrossEntropyLoss({x}, {g.tensor(i)})", F.cross_entropy(t, torch.tensor(i)))
    return None


def attention(q, k, v): # from parts: torch's own kernel has no second derivative
    s = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    return s.masked_fill(torch.ones_like(s).triu(1) > 0, float("-inf")).softmax(-1) @ v


def contract(g, v):
    x, t, r = v[0], v[1], g.rng
    n = t.dim()
    kind = r.choice(["matmul", "gemm", "batched", "conv", "transposed", "max_pool", "average_pool", "einsum", "attention", "global"])
    if kind in ("matmul", "batched") and n >= 2:
        shape = [t.shape[-1], r.randint(1, 5)]
        if kind == "batched" and n > 2:
            shape = list(t.shape[:-2]) + shape
        w = g.input(shape)
        return g.op(f"MatMul({x}, {w[0]})", t @ w[1])
    if kind == "gemm" and n == 2:
        w, b = g.input([r.randint(1, 5), t.shape[1]]), g.input([1])
        return g.op(f"Gemm({x}, {w[0]}, {b[0]}) {{ transB = 1, alpha = 0.5 }}", 0.5 * (t @ w[1].T) + b[1])
    if kind == "einsum" and n == 3:
        w = g.input([t.shape[0], r.randint(1, 4), t.shape[2]])
        e = r.choice(["abc,adc->abd", "abc,adc->dba", "abc,adc->cd", "abc,adc->ac"])
        return g.op(f'Einsum({x}, {w[0]}) {{ equation = "{e}" }}', torch.einsum(e, t, w[1]))
    if kind == "attention" and n == 4:
        k, w = g.input(list(t.shape)), g.input(list(t.shape))
        return g.op(f"Attention({x}, {k[0]}, {w[0]}) {{ is_causal = 1 }}", attention(t, k[1], w[1]))
    if n not in (3, 4) or min(t.shape[2:]) < 3:
        return None
    d = n - 2
    if kind == "conv":
        group = r.choice([1, t.shape[1]])
        w, b = g.input([2 * t.shape[1], t.shape[1] // group] + [r.randint(1, 3) for _ in range(d)]), g.input([2 * t.shape[1]])
        s, p, l = [r.randint(1, 2) for _ in range(d)], [r.randint(0, 2) for _ in range(d)], [1 if k == 3 and e < 5 else r.randint(1, 2) for k, e in zip(w[1].shape[2:], t.shape[2:])]
        f = F.conv1d if d == 1 else F.conv2d
        return g.op(f"Conv({x}, {w[0]}, {b[0]}) {{ strides = {s}, pads = {p + p}, dilations = {l}, group = {group} }}", f(t, w[1], b[1], s, p, l, group))
    if kind == "transposed":
        w = g.input([t.shape[1], 2] + [r.randint(2, 3) for _ in range(d)])
        s, p = [r.randint(1, 2) for _ in range(d)], [r.randint(0, 1) for _ in range(d)]
        o = [r.randint(0, k - 1) for k in s]
        f = F.conv_transpose1d if d == 1 else F.conv_transpose2d
        return g.op(f"ConvTranspose({x}, {w[0]}) {{ strides = {s}, pads = {p + p}, output_padding = {o} }}", f(t, w[1], None, s, p, o))
    if kind == "max_pool":
        f = F.max_pool1d if d == 1 else F.max_pool2d
        return g.op(f"MaxPool({x}) {{ kernel_shape = {[3] * d}, strides = {[2] * d}, pads = {[1] * 2 * d} }}", f(t, 3, 2, 1))
    if kind == "average_pool":
        f = F.avg_pool1d if d == 1 else F.avg_pool2d
        return g.op(f"AveragePool({x}) {{ kernel_shape = {[2] * d}, strides = {[1] * d}, pads = {[1] * 2 * d} }}", f(t, 2, 1, 1, count_include_pad=False))
    if kind == "global":
        return g.op(f"GlobalAveragePool({x})", t.mean(tuple(range(2, n)), keepdim=True))
    return None


def make(tag, seed, second, mode=EXACT):
    rng = random.Random(seed)
    g = Graph(tag, rng, mode)
    g.again = lambda other: make(tag, seed, second, other)
    shape = rng.choice([[3], [4, 3], [2, 3, 4], [2, 2, 5], [1, 2, 4, 5], [2, 2, 3, 4], []])
    g.values.append(g.input(shape))
    want = rng.randint(3, 10)
    while len(g.values) <= want:
        v = g.values[-1] if rng.random() < 0.8 else rng.choice(g.values)
        k = rng.random()
        w = rng.choice(UNARY)(g, v) if k < 0.3 else binary(g, v) if k < 0.5 else reduce(g, v) if k < 0.58 else move(g, v) if k < 0.75 else rows(g, v) if k < 0.85 else contract(g, v)
        if w is None:
            continue
        if w[1].numel() > 4000 or not torch.isfinite(w[1]).all() or w[1].abs().max() > 50:
            w = g.op(f"Tanh({w[0]})", torch.tanh(w[1])) if w[1].numel() <= 4000 else tanh(g, g.input([3]))
        g.values.append(w)
    y = g.values[-1]
    weights = g.input(list(y[1].shape))
    loss = g.op(f"Mul({y[0]}, {weights[0]})", y[1] * weights[1])
    loss = g.op(f"ReduceSum({loss[0]}) {{ keepdims = 0 }}", loss[1].sum())
    names, tensors = list(g.inputs), [g.inputs[n][1] for n in g.inputs]
    smooth = rng.random() < second
    grads = torch.autograd.grad(loss[1], tensors, allow_unused=True, create_graph=smooth)
    outs = [g.name() for _ in names]
    g.lines.append(f"{', '.join(outs)} = tenon:Gradient({loss[0]}, _, {', '.join(names)})")
    g.wants = []
    for n, t, d in zip(outs, tensors, grads):
        g.wants.append((n, torch.zeros_like(t) if d is None else d.detach()))
    if smooth: # the sum of the squares of the gradients, differentiated again
        total, text = 0, None
        for n, d in zip(outs, grads):
            if d is None or not d.requires_grad:
                continue
            s = g.op(f"ReduceSumSquare({n}) {{ keepdims = 0 }}", None)[0]
            text = s if text is None else g.op(f"Add({text}, {s})", None)[0]
            total = total + (d * d).sum()
        if text is not None:
            more = [g.name() for _ in names]
            g.lines.append(f"{', '.join(more)} = tenon:Gradient({text}, _, {', '.join(names)})")
            for n, t, d in zip(more, tensors, torch.autograd.grad(total, tensors, allow_unused=True)):
                g.wants.append((n, torch.zeros_like(t) if d is None else d.detach()))
    return g


def run(tenon, graphs, where):
    lines, args = [], []
    for g in graphs:
        lines += g.lines
        for n, (x, _) in g.inputs.items():
            np.save(f"{where}/{n}.npy", x)
            args += ["--input", f"{n}={where}/{n}.npy"]
        lines.append("output " + ", ".join(n for n, _ in g.wants))
    with open(f"{where}/g.tn", "w") as f:
        f.write("graph g {\n" + "\n".join(lines) + "\n}\n")
    p = subprocess.run([tenon, "run", f"{where}/g.tn", "--db", "none", "--output-dir", where] + args, capture_output=True, text=True)
    return p.stderr if p.returncode else None


def losses_of_torch(g):
    """By tensor, what torch loses by f32 or by the last place of the inputs; None where it took another way."""
    lost = [0.0] * len(g.wants)
    for mode in (SINGLE, SHAKEN):
        h = g.again(mode)
        if len(h.wants) != len(g.wants):
            return None
        for k, ((_, want), (_, got)) in enumerate(zip(g.wants, h.wants)):
            if want.shape != got.shape:
                return None
            if not torch.isfinite(got).all(): # beyond the range of f32
                lost[k] = float("inf")
            elif want.numel():
                lost[k] = max(lost[k], float((want - got.to(want.dtype)).abs().max()))
    return lost


def differences(g, where):
    """The largest error, and how many tensors are beyond the limit by rounding alone."""
    worst, cancelled, lost = 0.0, 0, None
    largest = max([float(w.abs().max()) for _, w in g.wants if w.numel() and torch.isfinite(w).all()], default=0.0)
    for k, (n, want) in enumerate(g.wants):
        got = np.load(f"{where}/{n}.npy").astype(np.float64)
        want = want.numpy()
        if got.shape != want.shape:
            return float("inf"), 0
        if not want.size or not np.isfinite(want).all(): # torch itself is at a singular point
            continue
        off, scale = np.abs(got - want).max(), np.abs(want).max()
        e = 0.0 if off == 0 else off / scale if scale > 0 else float("inf")
        if not e <= LIMIT:
            lost = lost or losses_of_torch(g)
            if off <= 4 * 2.0**-24 * largest or (lost and (off <= 8 * lost[k] or lost[k] == float("inf"))):
                cancelled += 1
                continue
        worst = max(worst, e if np.isfinite(e) else float("inf"))
    return worst, cancelled


def main():
    p = argparse.ArgumentParser()
    p.add_argument("tenon")
    p.add_argument("--graphs", type=int, default=2000)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--second", type=float, default=0.1)
    p.add_argument("--batch", type=int, default=20)
    p.add_argument("--only", type=int)
    p.add_argument("--keep")
    a = p.parse_args()
    bad, worst, seconds, cancelled = [], 0.0, 0, 0
    first = a.only if a.only is not None else 0
    last = first + 1 if a.only is not None else a.graphs
    for start in range(first, last, a.batch):
        graphs = [make(f"g{i}", a.seed * 1000003 + i, a.second) for i in range(start, min(start + a.batch, last))]
        with tempfile.TemporaryDirectory() as own:
            where = a.keep or own
            error = run(a.tenon, graphs, where)
            for g in graphs:
                alone = run(a.tenon, [g], where) if error and len(graphs) > 1 else error
                e, by_rounding = (float("inf"), 0) if alone else differences(g, where)
                worst = max(worst, e if e <= LIMIT else 0)
                cancelled += by_rounding
                if not e <= LIMIT:
                    bad.append(g.tag)
                    print(f"{g.tag}: {alone.strip() if alone else f'error {e:.3g}'}", flush=True)
                seconds += len(g.wants) > len(g.inputs)
    print(f"{last - first} graphs, {seconds} with second derivatives: {len(bad)} differ; largest error of the others {worst:.2g}; {cancelled} tensors cancel, and differ as torch in f32 does")
    return 1 if bad else 0


sys.exit(main())
