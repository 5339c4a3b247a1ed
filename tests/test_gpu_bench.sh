#!/usr/bin/env bash
# bench/gpu.sh without a GPU: what it says, and through the fake driver.
set -u
. "$(dirname "$0")/cli.sh" gpu_bench
[ -f "$build/tests/fake_nvrtc/libnvrtc.so" ] && "${CXX:-c++}" --version >/dev/null 2>&1 && python3 -c '' 2>/dev/null || { echo "no fake driver, no C++ compiler or no Python"; exit 77; }
root=$(cd "$here/.." && pwd)

bench() { # STATUS OPTION...
  local want=$1 rc
  shift
  checks=$((checks + 1))
  TENON_BUILD=$build bash "$root/bench/gpu.sh" --no-build --json "$work/gpu.json" "$@" >out 2>err
  rc=$?
  [ $rc -eq "$want" ] || bad "status $rc, not $want: gpu.sh $*"
}
TENON_CUDA_PATH=/nowhere:- bench 77
has "no GPU: "
bench 0 --dry --only set,fused
has "bf16 4096x4096x1024 Gelu"
has "GPU: Fake"
checks=$((checks + 1))
python3 -c 'import json, sys; r = json.load(open(sys.argv[1])); assert len(r["rows"]) == 3 and all("graph_ms" in x and "own_ms" in x and "wrong" not in x for x in r["rows"]); s = r["parts"]["set"]; assert s["done"] and not s["failed"], s' "$work/gpu.json" || bad "other rows"
has "family "
bench 0 --dry --only depthwise
bench 0 --dry --only sanitizer
has "compute-sanitizer"
bench 2 --frobnicate

done_checking
