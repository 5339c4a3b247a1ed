"""OpenVINO as a peer, in fp32: python ov.py THREADS"""
import sys

import openvino as ov

from serve import serve

threads = int(sys.argv[1])
core = ov.Core()
print("OpenVINO", ov.__version__, file=sys.stderr)


def load(path, arrays):
    model = core.read_model(path)
    model.reshape({name: list(a.shape) for name, a in arrays.items()})
    compiled = core.compile_model(model, "CPU", {
        "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False})
    request = compiled.create_infer_request()
    keep = {name: ov.Tensor(a) for name, a in arrays.items()}
    for name, t in keep.items():
        request.set_tensor(name, t)

    def outputs(keep=keep):
        return [request.get_tensor(o).data.copy() for o in compiled.outputs]
    return request.infer, outputs


serve(load)
