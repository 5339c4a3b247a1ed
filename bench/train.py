#!/usr/bin/env python3
"""Training steps of bench/train.c against torch, eager and Inductor: one thread, the same weights and batches.

  python bench/train.py BUILD [--only mlp,lenet] [--seconds 3] [--peers eager,inductor]

Losses of the first steps are compared before times count. Each side runs in a process of its own; peak
memory is that of the whole process (with torch, or with LLVM, in it)."""
import argparse, json, os, resource, statistics, subprocess, sys, tempfile, time

LOSSES = 3  # rounding grows from step to step


def models():
    import torch
    from torch import nn
    import torch.nn.functional as F

    class Mlp(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2, self.fc3 = nn.Linear(784, 512), nn.Linear(512, 512), nn.Linear(512, 10)

        def forward(self, x):
            return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))

    class Lenet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
            self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

        def forward(self, x):
            x = F.max_pool2d(F.relu(self.conv1(x)), 2)
            x = F.max_pool2d(F.relu(self.conv2(x)), 2).flatten(1)
            return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))

    class Block(nn.Module):
        def __init__(self, i, o, stride):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
            self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
            self.downsample = nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o)) if stride == 2 else None

        def forward(self, x):
            y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
            return F.relu(y + (self.downsample(x) if self.downsample else x))

    class Resnet18(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
            for l in range(4):
                w = 64 << l
                setattr(self, f"layer{l + 1}", nn.Sequential(Block(w // 2 if l else w, w, 2 if l else 1), Block(w, w, 1)))
            self.fc = nn.Linear(512, 1000)

        def forward(self, x):
            x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
            x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
            return self.fc(x.mean((2, 3)))

    class Attention(nn.Module):
        def __init__(self, e):
            super().__init__()
            self.query, self.key, self.value = nn.Linear(e, e), nn.Linear(e, e), nn.Linear(e, e)

        def forward(self, x):
            n, t, e = x.shape
            q, k, v = (f(x).view(n, t, 6, e // 6).transpose(1, 2) for f in (self.query, self.key, self.value))
            return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(n, t, e)

    class Layer(nn.Module):
        def __init__(self, e):
            super().__init__()
            self.norm1, self.attention, self.out = nn.LayerNorm(e), Attention(e), nn.Linear(e, e)
            self.norm2, self.up, self.down = nn.LayerNorm(e), nn.Linear(e, 4 * e), nn.Linear(4 * e, e)

        def forward(self, x):
            x = x + self.out(self.attention(self.norm1(x)))
            return x + self.down(F.gelu(self.up(self.norm2(x))))

    class Transformer(nn.Module):
        def __init__(self, e=384):
            super().__init__()
            self.tokens, self.positions = nn.Embedding(1000, e), nn.Embedding(128, e)
            self.blocks = nn.ModuleList([Layer(e) for _ in range(6)])
            self.norm, self.head = nn.LayerNorm(e), nn.Linear(e, 1000)

        def forward(self, ids):
            x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
            for b in self.blocks:
                x = b(x)
            return self.head(self.norm(x)).reshape(-1, 1000)

    batch = lambda n, c, *shape: (torch.randn(n, *shape), torch.randint(0, c, (n,)))
    return {
        "mlp": (Mlp, lambda: batch(64, 10, 784)),
        "lenet": (Lenet, lambda: batch(64, 10, 1, 28, 28)),
        "resnet18": (Resnet18, lambda: batch(8, 1000, 3, 224, 224)),
        "transformer": (Transformer, lambda: (torch.randint(0, 1000, (4, 128)), torch.randint(0, 1000, (512,)))),
    }


def prepare(name):
    import torch

    torch.manual_seed(1)
    make, batch = models()[name]
    return make(), *batch()


def save(name, folder):
    """The weights as safetensors and the batch as plain bytes."""
    import struct

    net, x, t = prepare(name)
    head, data = {}, b""
    for key, v in net.state_dict().items():
        if v.is_floating_point():
            raw = v.contiguous().numpy().tobytes()
            head[key] = {"dtype": "F32", "shape": list(v.shape), "data_offsets": [len(data), len(data) + len(raw)]}
            data += raw
    text = json.dumps(head).encode()
    with open(f"{folder}/{name}.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)
    x.numpy().tofile(f"{folder}/{name}.x")
    t.numpy().tofile(f"{folder}/{name}.t")


def torch_side(name, how, seconds):
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(1)
    net, x, t = prepare(name)
    net.train()
    run = torch.compile(net) if how == "inductor" else net
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(run(x), t)
        loss.backward()
        optimizer.step()
        return loss

    losses = [step().item() for _ in range(LOSSES)]
    times, start = [], time.perf_counter()
    while len(times) < 5 or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        step()
        times.append(time.perf_counter() - before)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"losses": losses, "ms": statistics.median(times) * 1e3, "min_ms": min(times) * 1e3, "steps": len(times), "peak_mb": peak}))


def child(command):
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        sys.exit(f"{' '.join(command)}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("build")
    p.add_argument("--only", default="mlp,lenet,resnet18,transformer")
    p.add_argument("--seconds", type=float, default=3)
    p.add_argument("--peers", default="eager,inductor")
    p.add_argument("--side", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.side:
        return torch_side(a.only, a.side, a.seconds)
    product = count = 1.0
    for i, name in enumerate(a.only.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r}); import train; train.save({name!r}, {folder!r})"], check=True)
            ours = child([f"{a.build}/bench/bench_train", name, folder, str(a.seconds), str(LOSSES)])
        best = memory = None
        line = f"{name}: Tenon {ours['ms']:.2f} ms, {ours['peak_mb']} MB, compiled in {ours['compile_s']:.1f} s"
        for how in a.peers.split(","):
            peer = child([sys.executable, os.path.abspath(__file__), a.build, "--only", name, "--side", how, "--seconds", str(a.seconds)])
            worst = max(abs(x - y) / max(1e-3, abs(y)) for x, y in zip(ours["losses"], peer["losses"]))
            line += f"; {how} {peer['ms']:.2f} ms, {peer['peak_mb']} MB"
            if worst > 1e-3:
                line += f" (LOSSES DIFFER by {worst:.2g}: {ours['losses']} and {peer['losses']})"
            best = min(best or peer["ms"], peer["ms"])
            memory = min(memory or peer["peak_mb"], peer["peak_mb"])
        print(f"{line}; ratio {best / ours['ms']:.2f}, memory {memory / ours['peak_mb']:.2f}", flush=True)
        product, count = (product if i else 1) * best / ours["ms"], i + 1
    print(f"geometric mean {product ** (1 / count):.2f}")


main() if __name__ == "__main__" else None
