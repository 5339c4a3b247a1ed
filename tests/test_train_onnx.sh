#!/usr/bin/env bash
# Fine-tuning of a model that PyTorch exported, and ONNX Runtime on what training wrote. Skipped without them,
# since PyTorch is too large to be fetched for this: TENON_PYTHON names a Python that has both.
set -eu
source=${TENON_SOURCE:?} build=${TENON_BUILD:?}
. "$source/tests/python.sh"
for py in ${TENON_PYTHON:-} python3; do
  if python_has "$py" torch=torch onnx=onnx onnxruntime=onnxruntime numpy=numpy; then
    "$py" "$source/tests/train_onnx.py" "$build/tests/run_finetune" "$build/tenon"
    exit 0
  fi
done
echo "skipped: no PyTorch, onnx and ONNX Runtime"
exit 77
