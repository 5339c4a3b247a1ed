#!/usr/bin/env bash
# Real models against ONNX Runtime (compare_ort.py): JIT and object, random and real input. Here the
# text detector, magika's model and two of onnx's light ones; TENON_FULL=1 takes all of them, and
# TENON_MODELS names a folder with more .onnx files. Skipped where the packages cannot be had.
set -u
here=$(cd "$(dirname "$0")" && pwd)
export TENON_BUILD=${TENON_BUILD:-$(dirname "$(dirname "$here")")/build}
. "$here/../python.sh"
[ -z "${TENON_SANITIZE:-}" ] || exit 77 # a sanitizer's runtime does not go with the harness

py=$(python_with numpy=numpy onnx=onnx onnxruntime=onnxruntime magika=magika PIL=pillow) || exit 77
# only the model inside is wanted, not what the package needs to run
"$py" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("rapidocr_onnxruntime") is None)' ||
  "$py" -m pip install -q --disable-pip-version-check --no-deps 'rapidocr-onnxruntime<2' >>"$TENON_BUILD/venv.log" 2>&1 || exit 77

export TENON_DB=none
compare() { "$py" "$here/compare_ort.py" --tenon "$TENON_BUILD/tenon" --exact "$@" 2>/dev/null; }
if [ -n "${TENON_FULL:-}" ]; then
  compare ${TENON_MODELS:+"$TENON_MODELS"} --json "$TENON_BUILD/compare_ort.json"
  exit
fi
rc=0
for model in magika 'det_infer 320x480' 'light_squeezenet randomised' 'light_inception_v1 randomised'; do
  compare --only "$model" || rc=1
done
[ -z "${TENON_MODELS:-}" ] || compare --no-packages "$TENON_MODELS" || rc=1
exit $rc
