"""torch on a GPU as a rival of bench/gpu.py: eager (cuBLASLt, cuDNN) and compiled (Triton). A line of JSON in, one out:
{"case": [kind, dtype, sizes...], "seconds": S} -> {"ok": true, "torch_ms": T, "inductor_ms": T}."""
import json
import os
import statistics
import sys

out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print


def reply(**what):
    out.write(json.dumps(what) + "\n")
    out.flush()


def random(torch, dtype, *shape):
    types = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
    return torch.rand(*shape, device="cuda").mul(2).sub(1).to(types[dtype])


def function(torch, case):
    """(f, arguments)"""
    F, kind, sizes = torch.nn.functional, case[0], case[2:]
    r = lambda *shape: random(torch, case[1], *shape)
    if kind == "gemm":
        m, n, k, tail = sizes
        ends = {"Relu": F.relu, "Gelu": F.gelu}
        if tail == "SiLU+r":
            return lambda a, b, c, d: F.silu(F.linear(a, b, c)) + d, (r(m, k), r(n, k), r(n), r(m, n))
        if tail:
            return lambda a, b, c: ends[tail](F.linear(a, b, c)), (r(m, k), r(n, k), r(n))
        return lambda a, b: F.linear(a, b), (r(m, k), r(n, k))
    if kind == "conv":
        n, c, hw, o, k, stride, pad, groups = sizes
        last = torch.channels_last
        return lambda x, w: F.conv2d(x, w, stride=stride, padding=pad, groups=groups), (r(n, c, hw, hw).to(memory_format=last), r(o, c // groups, k, k).to(memory_format=last))
    if kind == "softmax":
        return lambda x: F.softmax(x, -1), (r(*sizes),)
    if kind == "layernorm":
        return lambda x, s: F.layer_norm(x, (sizes[1],), s), (r(*sizes), r(sizes[1]))
    if kind == "attention":
        causal, shape = len(sizes) > 4, sizes[:4]
        how = {"is_causal": True} if causal else {"scale": 1.0}
        return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **how), (r(*shape), r(*shape), r(*shape))
    if kind == "model":
        import torchvision
        t = torch.bfloat16 if case[1].endswith("_bf16") else torch.float32
        net = getattr(torchvision.models, case[1].removesuffix("_bf16"))().eval().cuda().to(t).to(memory_format=torch.channels_last)
        return net, (torch.rand(1, 3, 224, 224, device="cuda", dtype=t).to(memory_format=torch.channels_last),)
    raise ValueError("no case %s" % kind)


def measure(torch, f, args, seconds):
    """Median milliseconds of a call as part of a CUDA graph."""
    for _ in range(3):
        f(*args)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        f(*args)
    def window(n):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        for _ in range(n):
            graph.replay()
        b.record()
        b.synchronize()
        return a.elapsed_time(b)

    window(1)
    n = max(1, int(1 / max(window(1), 0.01)) + 1)  # short ones several in a row, as Tenon is timed
    times, total = [], 0
    while total < seconds * 1e3 or len(times) < 5:
        total += window(n)
        times.append(window(n) / n)
    return statistics.median(times)


def answer(torch, request):
    case, seconds = request["case"], request.get("seconds", 0.3)
    if case[0] == "about":
        try:
            import triton
            about = ", Triton %s" % triton.__version__
        except ImportError:
            about = ""
        return {"about": "torch %s, cuDNN %s, %s%s" % (torch.__version__, torch.backends.cudnn.version(), torch.cuda.get_device_name(), about)}
    f, args = function(torch, case)
    found = {}
    with torch.no_grad():
        if case[0] in ("softmax", "layernorm"):  # rows are held against a copy of the same bytes
            to = torch.empty_like(args[0])
            return {"copy_ms": measure(torch, lambda x: to.copy_(x), args[:1], seconds)}
        found["torch_ms"] = measure(torch, f, args, seconds)
        if case[0] in ("gemm", "attention") and (case[0] == "attention" or not case[-1]) or case[0] == "conv" and case[-1] == 1:
            return found  # the libraries themselves: nothing that a compiler would fuse
        try:
            mode = "default" if case[0] == "model" else "max-autotune-no-cudagraphs"
            found["inductor_ms"] = measure(torch, torch.compile(f, mode=mode), args, seconds)
        except Exception as e:  # no compiler on this machine, or no Triton
            found["error"] = str(e).splitlines()[0][:200]
    return found


def main():
    reply(ready=True)
    try:
        import torch
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    except ImportError as e:
        torch, why = None, str(e)
    for line in sys.stdin:
        if line.strip() == "quit":
            return
        try:
            if torch is None:
                raise ImportError(why)
            reply(ok=True, **answer(torch, json.loads(line)))
        except Exception as e:
            reply(ok=False, error=str(e)[:300])


main()
