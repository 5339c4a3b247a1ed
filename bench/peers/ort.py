"""ONNX Runtime as a peer: python ort.py THREADS"""
import sys

import onnxruntime as ort

from serve import serve

threads = int(sys.argv[1])
ort.set_default_logger_severity(3)
print("ONNX Runtime", ort.__version__, file=sys.stderr)


def load(path, arrays):
    o = ort.SessionOptions()
    o.intra_op_num_threads = threads
    o.inter_op_num_threads = 1
    session = ort.InferenceSession(path, o, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for i in session.get_inputs():
        binding.bind_cpu_input(i.name, arrays[i.name])
    for i in session.get_outputs():
        binding.bind_output(i.name, "cpu")
    return (lambda: session.run_with_iobinding(binding), binding.copy_outputs_to_cpu)


serve(load)
