#!/usr/bin/env python3
"""ONNX in and out of training: a network that torch exported trains in Tenon as it does in torch, and what
Tenon writes runs in ONNX Runtime.

    python train_onnx.py RUN_FINETUNE TENON

Convolutions, batch norm in its inference form, pooling, layer norm, linear layers; SGD on one batch. Each
step's loss must be torch's within 1 %; the outputs of the written model in ONNX Runtime those of Tenon
within 1e-5 of the largest."""
import subprocess, sys, tempfile, warnings

import numpy as np
import onnx  # noqa: F401  torch's exporter needs it
import onnxruntime
import torch
import torch.nn as nn

STEPS, BATCH, RATE = 40, 32, 0.05
warnings.simplefilter("ignore")  # the older exporter is the one that leaves weights as they are
torch.manual_seed(3)
torch.set_num_threads(1)
net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, stride=2), nn.GELU(), nn.AvgPool2d(2),
                    nn.Flatten(), nn.Linear(16, 32), nn.LayerNorm(32), nn.Tanh(), nn.Linear(32, 4))
net[1].running_mean.uniform_(-0.2, 0.2)
net[1].running_var.uniform_(0.8, 1.2)
net.eval()
x = torch.randn(BATCH, 1, 12, 12)
t = (x[:, 0, :6, :6].mean((1, 2)) > 0).long() * 2 + (x[:, 0, 6:, 6:].mean((1, 2)) > 0).long()


def call(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr}{done.stdout}")
    return done.stdout


with tempfile.TemporaryDirectory() as d:
    torch.onnx.export(net, x, f"{d}/net.onnx", dynamo=False, input_names=["x"], output_names=["y"], training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False)
    x.numpy().tofile(f"{d}/x.bin")
    t.numpy().tofile(f"{d}/t.bin")
    np.save(f"{d}/x.npy", x.numpy())
    np.save(f"{d}/t.npy", t.numpy())
    ours = [float(v) for v in call(sys.argv[1], f"{d}/net.onnx", f"{d}/x.bin", f"{d}/t.bin", str(STEPS), str(RATE), f"{d}/out.onnx").split()]
    call(sys.argv[2], "run", f"{d}/out.onnx", "--db", "none", "--input", f"x={d}/x.npy", "--input", f"labels={d}/t.npy", "--output-dir", d)
    y = np.load(f"{d}/y.npy")
    runtime = onnxruntime.InferenceSession(f"{d}/out.onnx", providers=["CPUExecutionProvider"]).run(["y"], {"x": x.numpy(), "labels": t.numpy()})[0]

optimizer = torch.optim.SGD(net.parameters(), lr=RATE)
theirs = []
for _ in range(STEPS):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(net(x), t)
    loss.backward()
    optimizer.step()
    theirs.append(loss.item())
worst = max(abs(a - b) / b for a, b in zip(ours, theirs))
exported = np.abs(runtime - y).max() / np.abs(y).max()
print(f"{STEPS} steps, loss {theirs[0]:.4f} to {theirs[-1]:.4f}, ours {ours[0]:.4f} to {ours[-1]:.4f}, at most {100 * worst:.4f} % apart; "
      f"outputs in ONNX Runtime {exported:.2g} from ours")
sys.exit(len(ours) != STEPS or theirs[-1] > 0.9 * theirs[0] or not worst <= 0.01 or not exported <= 1e-5)
