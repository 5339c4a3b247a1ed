#!/usr/bin/env bash
# Gradients of random graphs against PyTorch. Skipped without it, since it is too large to be fetched for
# this: TENON_PYTHON names a Python that has it.
set -eu
source=${TENON_SOURCE:?} build=${TENON_BUILD:?}
. "$source/tests/python.sh"
for py in ${TENON_PYTHON:-} python3; do
  if python_has "$py" torch=torch numpy=numpy; then
    "$py" "$source/tests/grad_torch.py" "$build/tenon" --graphs "${TENON_GRAPHS:-60}"
    exit 0
  fi
done
echo "skipped: no PyTorch"
exit 77
