#!/usr/bin/env bash
# Tests and times Tenon on this machine's GPU in at most ten minutes; a short table comes last.
#
#   bench/gpu.sh [--minutes M] [--json FILE] [--models DIR] [--only FAMILY] [--no-build] [--dry] [--python PATH]
#
#   --minutes M     when it stops, whatever is left (default 10)
#   --json FILE     everything that was found (default BUILD/bench/gpu.json)
#   --models DIR    ONNX files to time too
#   --only FAMILY   of gemm, narrow, fused, conv, depthwise, rows, attention, models
#   --tune S        seconds of tuning a case before it is timed again (default 6; 0: none)
#   --no-build      takes what is built already
#   --dry           small sizes through the fake driver of the tests: proves the script, measures nothing
#   --python PATH   a Python, with torch and triton where they are to be compared (default python3)
#
# Rivals are those of torch: cuBLASLt, cuDNN and, through its compiler, Triton. Without torch Tenon is timed alone.
# Exit status: 0 done, 1 a wrong result, 77 no GPU.
set -u
cd "$(dirname "$0")/.."
. tests/step.sh
build=${TENON_BUILD:-$PWD/${BUILD:-build}} python=python3 build_it=yes dry='' pass=()
while [ $# -gt 0 ]; do
  case $1 in
    --python) python=$2; shift ;;
    --no-build) build_it=no ;;
    --dry) dry=yes ;;
    --minutes | --json | --models | --only | --tune) pass+=("$1" "$2"); shift ;;
    -h | --help) sed -n '2,/^set -u/{s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) echo "gpu.sh: no option '$1'" >&2; exit 2 ;;
  esac
  shift
done
started=$(date +%s)
if [ $build_it = yes ]; then
  [ -f "$build/build.ninja" ] || step configure cmake -G Ninja -S . -B "$build" || exit 1
  targets=(tenon)
  [ -z "$dry" ] || targets+=(fake_cuda fake_nvrtc)
  step build ninja -C "$build" "${targets[@]}" || exit 1
fi
if [ -n "$dry" ]; then
  pass+=(--dry)
  export FAKE_CUDA= FAKE_NVRTC_DIR=$(mktemp -d "${TMPDIR:-/tmp}/tenon-gpu.XXXXXX") TENON_CUDA_PATH=$build/tests/fake:$build/tests/fake_nvrtc:-
  trap 'rm -rf "$FAKE_NVRTC_DIR"' EXIT
fi
"$python" bench/gpu.py --build "$build" --started "$started" "${pass[@]}"
