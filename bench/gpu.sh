#!/usr/bin/env bash
# Tests and times Tenon on this machine's GPU in at most ten minutes; a short table comes last.
#
#   bench/gpu.sh [--minutes M] [--json FILE] [--db FILE] [--models DIR] [--only PART,...] [--tune S] [--no-build] [--dry] [--python PATH]
#
#   --minutes M     when it stops, whatever is left (default 10)
#   --json FILE     everything that was found, as far as it is (default BUILD/bench/gpu.json)
#   --db FILE       the store of the tuner's trials; cubins that it has need not be compiled: fill it before, without a GPU, by
#                   bench/gpu.sh --ahead --db FILE (default: one that is thrown away)
#   --ahead         compiles what the cases will need into the store, and ends
#   --models DIR    ONNX files to time too
#   --only PART     of set, sanitizer, gemm, attention, conv, rows, depthwise, narrow, fused, f32, i8, fp8, models
#   --tune S        the most seconds of tuning a case (default 15)
#   --no-build      takes what is built already; so does a machine where it cannot be built
#   --dry           small sizes through the fake driver of the tests: proves the script, measures nothing
#   --python PATH   a Python, with torch and triton where they are to be compared (default python3)
#
# Rivals are the plans of cuBLASLt and cuDNN (convolutions; attention of f16 and bf16) that the tuner times, where those
# libraries are, and torch, also through its compiler and Triton, where that is. Each part has a share of the time; what is
# stopped shows what it has.
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
    --ahead) pass+=("$1") ;;
    --minutes | --json | --db | --models | --only | --tune) pass+=("$1" "$2"); shift ;;
    -h | --help) sed -n '2,/^set -u/{s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) echo "gpu.sh: no option '$1'" >&2; exit 2 ;;
  esac
  shift
done
started=$(date +%s)
if [ $build_it = yes ]; then
  targets=(tenon run_cuda_set)
  [ -z "$dry" ] || targets+=(fake_cuda fake_nvrtc)
  { [ -f "$build/build.ninja" ] || step configure cmake -G Ninja -S . -B "$build"; } && step build ninja -C "$build" "${targets[@]}" || [ -x "$build/tenon" ] || exit 1
fi
if [ -n "$dry" ]; then
  pass+=(--dry)
  export FAKE_CUDA= FAKE_NVRTC_DIR=$(mktemp -d "${TMPDIR:-/tmp}/tenon-gpu.XXXXXX") TENON_CUDA_PATH=$build/tests/fake:$build/tests/fake_nvrtc:-
  trap 'rm -rf "$FAKE_NVRTC_DIR"' EXIT
fi
"$python" bench/gpu.py --build "$build" --started "$started" "${pass[@]}"
