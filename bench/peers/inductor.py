"""PyTorch's Inductor as a peer: python inductor.py THREADS

An ONNX file becomes a torch.fx graph node by node (the ops that models.txt needs), which is
compiled with its weights frozen. Needs a C++ compiler.
"""
import sys
import time

import numpy as np
import onnx
import torch
import torch._inductor.config as inductor
import torch.nn.functional as F
from onnx import numpy_helper

from serve import serve

torch.set_num_threads(int(sys.argv[1]))
torch.set_grad_enabled(False)
print("PyTorch", torch.__version__, file=sys.stderr)


class Model:
    """The fx graph while it is built: values by ONNX name, constants known as arrays."""

    def __init__(self, model):
        self.root, self.graph = torch.nn.Module(), torch.fx.Graph()
        self.values, self.constants, self.serial = {}, {}, 0
        self.convolves = any(n.op_type == "Conv" for n in model.graph.node)
        constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
        self.constants.update(constants)
        self.inputs = [i.name for i in model.graph.input if i.name not in constants]
        for k, name in enumerate(self.inputs):
            self.values[name] = self.graph.placeholder("x%d" % k)
        for node in model.graph.node:
            self.node(node)
        self.graph.output(tuple(self.value(o.name) for o in model.graph.output))
        self.module = torch.fx.GraphModule(self.root, self.graph)

    def value(self, name):
        if name not in self.values:
            key = "c%d" % self.serial
            self.serial += 1
            self.root.register_buffer(key, torch.from_numpy(np.array(self.constants[name])))
            self.values[name] = self.graph.get_attr(key)
        return self.values[name]

    def known(self, name):
        if name not in self.constants:
            raise NotImplementedError("%s must be a constant" % name)
        return self.constants[name]

    def node(self, node):
        a = {x.name: onnx.helper.get_attribute_value(x) for x in node.attribute}
        if node.op_type == "Constant":
            self.constants[node.output[0]] = numpy_helper.to_array(a["value"])
            return
        if node.op_type == "Identity" and node.input[0] in self.constants:
            self.constants[node.output[0]] = self.constants[node.input[0]]
            return
        if node.op_type not in OPS:
            raise NotImplementedError("op " + node.op_type)
        fn, args, kwargs = OPS[node.op_type](self, node, a)
        self.values[node.output[0]] = self.graph.call_function(fn, tuple(args), kwargs)


def text(a, key, otherwise):
    return a[key].decode() if key in a else otherwise


def simple(fn):
    return lambda m, n, a: (fn, [m.value(i) for i in n.input], {})


def padded(m, n, a):
    """The first input, zero-padded when the pads are not symmetric; and the rest of the padding."""
    x, rank = m.value(n.input[0]), len(a.get("kernel_shape", [1, 1]))
    p = list(a.get("pads", [0] * 2 * rank))
    if text(a, "auto_pad", "NOTSET") != "NOTSET":
        raise NotImplementedError("auto_pad")
    if p[:rank] != p[rank:]:
        both = [v for k in reversed(range(rank)) for v in (p[k], p[k + rank])]
        return m.graph.call_function(F.pad, (x, both)), [0] * rank
    return x, p[:rank]


def conv(m, n, a):
    x, p = padded(m, n, a)
    fn = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[m.known(n.input[1]).ndim - 2]
    rank = len(p)
    return fn, [x, m.value(n.input[1]), m.value(n.input[2]) if len(n.input) > 2 else None, a.get("strides", [1] * rank), p,
                a.get("dilations", [1] * rank), a.get("group", 1)], {}


def conv_transpose(m, n, a):
    p = a.get("pads", [0, 0, 0, 0])
    return F.conv_transpose2d, [m.value(n.input[0]), m.value(n.input[1]), m.value(n.input[2]) if len(n.input) > 2 else None,
                                a.get("strides", [1, 1]), p[:2], a.get("output_padding", [0, 0]), a.get("group", 1), a.get("dilations", [1, 1])], {}


def max_pool(m, n, a):
    return F.max_pool2d, [m.value(n.input[0]), a["kernel_shape"], a.get("strides", [1, 1]), a.get("pads", [0, 0])[:2],
                          a.get("dilations", [1, 1]), bool(a.get("ceil_mode", 0))], {}


def gemm(m, n, a):
    if a.get("transA") or a.get("alpha", 1) != 1 or a.get("beta", 1) != 1 or not a.get("transB"):
        raise NotImplementedError("Gemm of this form")
    return F.linear, [m.value(i) for i in n.input], {}


def clip(m, n, a):
    lo = float(m.known(n.input[1])) if len(n.input) > 1 and n.input[1] else a.get("min")
    hi = float(m.known(n.input[2])) if len(n.input) > 2 and n.input[2] else a.get("max")
    return torch.clamp, [m.value(n.input[0]), lo, hi], {}


def reduce_mean(m, n, a):
    axes = a["axes"] if "axes" in a else m.known(n.input[1]).tolist()
    return torch.mean, [m.value(n.input[0]), list(axes), bool(a.get("keepdims", 1))], {}


def layer_norm(m, n, a):
    shape = list(m.known(n.input[1]).shape)
    return F.layer_norm, [m.value(n.input[0]), shape, *map(m.value, n.input[1:3])], {"eps": a.get("epsilon", 1e-5)}


def batch_norm(m, n, a):
    x, scale, bias, mean, var = map(m.value, n.input)
    return F.batch_norm, [x, mean, var, scale, bias], {"eps": a.get("epsilon", 1e-5)}


def resize(m, n, a):
    if (text(a, "mode", ""), text(a, "coordinate_transformation_mode", ""), text(a, "nearest_mode", "")) != ("nearest", "asymmetric", "floor"):
        raise NotImplementedError("Resize of this form")
    return F.interpolate, [m.value(n.input[0])], {"scale_factor": m.known(n.input[2]).tolist()[2:], "mode": "nearest"}


def gather(m, n, a):
    axis = a.get("axis", 0)
    if n.input[1] in m.constants and m.constants[n.input[1]].ndim == 0:
        return torch.select, [m.value(n.input[0]), axis, int(m.constants[n.input[1]])], {}

    def take(x, i, axis=axis):
        return torch.index_select(x, axis, i.reshape(-1)).reshape(*x.shape[:axis], *i.shape, *x.shape[axis + 1:])
    return take, [m.value(n.input[0]), m.value(n.input[1])], {}


def gather_nd(x, i):
    return x[tuple(i.unbind(-1))]


def reshape(m, n, a):
    return torch.reshape, [m.value(n.input[0]), m.known(n.input[1]).tolist()], {}


def axes(m, n, a):
    v = a["axes"] if "axes" in a else m.known(n.input[1]).tolist()
    if len(v) != 1:
        raise NotImplementedError("several axes")
    return v[0]


def hard_sigmoid(x, alpha, beta):
    return torch.clamp(alpha * x + beta, 0, 1)


TYPES = {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool}
OPS = {
    "Conv": conv, "ConvTranspose": conv_transpose, "MaxPool": max_pool, "Gemm": gemm, "Clip": clip, "ReduceMean": reduce_mean,
    "LayerNormalization": layer_norm, "BatchNormalization": batch_norm, "Resize": resize, "Gather": gather, "Reshape": reshape,
    "GlobalAveragePool": lambda m, n, a: (torch.mean, [m.value(n.input[0]), [2, 3], True], {}),
    "Relu": simple(F.relu), "Add": simple(torch.add), "Sub": simple(torch.sub), "Mul": simple(torch.mul), "Div": simple(torch.div),
    "MatMul": simple(torch.matmul), "Erf": simple(torch.erf), "Sigmoid": simple(torch.sigmoid), "Where": simple(torch.where),
    "And": simple(torch.logical_and), "GatherND": simple(gather_nd),
    "HardSigmoid": lambda m, n, a: (hard_sigmoid, [m.value(n.input[0]), a.get("alpha", 0.2), a.get("beta", 0.5)], {}),
    "Softmax": lambda m, n, a: (torch.softmax, [m.value(n.input[0]), a.get("axis", -1)], {}),
    "Transpose": lambda m, n, a: (torch.permute, [m.value(n.input[0]), a["perm"]], {}),
    "Concat": lambda m, n, a: (torch.cat, [[m.value(i) for i in n.input], a["axis"]], {}),
    "GatherElements": lambda m, n, a: (torch.gather, [m.value(n.input[0]), a.get("axis", 0), m.value(n.input[1])], {}),
    "Cast": lambda m, n, a: (torch.Tensor.to, [m.value(n.input[0]), TYPES[a["to"]]], {}),
    "Unsqueeze": lambda m, n, a: (torch.unsqueeze, [m.value(n.input[0]), axes(m, n, a)], {}),
    "Squeeze": lambda m, n, a: (torch.squeeze, [m.value(n.input[0]), axes(m, n, a)], {}),
}


def load(path, arrays):
    m = Model(onnx.load(path))
    x = [torch.from_numpy(arrays[name]) for name in m.inputs]
    state = {}

    def compiled(frozen, layouts):
        inductor.freezing, inductor.layout_optimization = frozen, layouts
        torch._dynamo.reset()
        fn = torch.compile(m.module.eval(), dynamic=False)
        fn(*x)
        return fn

    def seconds(fn):
        times = []
        for _ in range(4):
            start = time.perf_counter()
            fn(*x)
            times.append(time.perf_counter() - start)
        return min(times)

    # With weights frozen, channels last or not: the faster one. Without where Inductor folds wrongly (an addition
    # into a transposed convolution, for one).
    made = []
    for how in [(True, True), (True, False)] if m.convolves else [(True, True)]:
        try:
            fn = compiled(*how)
            made.append((seconds(fn), fn))
        except Exception as e:
            print("%s: frozen %s, layouts %s: %s" % (path, *how, str(e).splitlines()[0]), file=sys.stderr)
    fn = min(made, key=lambda f: f[0])[1] if made else compiled(False, True)

    def run():
        state["y"] = fn(*x)

    return run, lambda: [y.numpy() for y in state["y"]]


serve(load)
