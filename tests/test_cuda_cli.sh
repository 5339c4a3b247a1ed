#!/usr/bin/env bash
# run, verify, bench and check on a GPU, through the fake driver and the fake NVRTC; and what is said where they are missing.
set -u
here=$(cd "$(dirname "$0")" && pwd)
build=${TENON_BUILD:-$(dirname "$here")/build}
tenon=$build/tenon
[ -f "$build/tests/fake_nvrtc/libnvrtc.so" ] && "${CXX:-c++}" --version >/dev/null 2>&1 || { echo "no fake driver, or no C++ compiler"; exit 77; }
unset TENON_DB_SHARED TN_DUMP
export TENON_DB=none FAKE_CUDA=
work=$(mktemp -d "${TMPDIR:-/tmp}/tenon-cuda.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
export FAKE_NVRTC_DIR=$work
both=$build/tests/fake:$build/tests/fake_nvrtc:-
failed=0
checks=0
bad() {
  failed=$((failed + 1))
  echo "FAILED: $*"
  sed 's/^/  out: /' out
  sed 's/^/  err: /' err
}
ok() {
  checks=$((checks + 1))
  "$tenon" "$@" >out 2>err || bad "status $?: tenon $*"
}
fails() { # STATUS PART ARGS...
  local want=$1 part=$2 rc
  shift 2
  checks=$((checks + 1))
  "$tenon" "$@" >out 2>err
  rc=$?
  [ $rc -eq "$want" ] || bad "status $rc, not $want: tenon $*"
  grep -qF -- "$part" err || bad "the message lacks '$part': tenon $*"
}
has() {
  checks=$((checks + 1))
  grep -qF -- "$1" out || bad "'$1' is missing"
}

cat >net.tn <<'T'
graph g { opset 17 input x: f32[1, 4, 9, 9] const w: f32[8, 4, 1, 1] = [WEIGHTS] y = Conv(x, w) r = Relu(y) p = Softmax(r) output p output r }
T
weights=$(awk 'BEGIN { for (i = 0; i < 32; i++) printf "%s%g", i ? ", " : "", (i * 7 % 11 - 5) / 8 }')
sed -i "s|WEIGHTS|$weights|" net.tn

export TENON_CUDA_PATH=$both
ok run net.tn --output-dir cpu --save-inputs data
for f in data/x.npy; do cp "$f" data/input_0.npy; done
cp cpu/p.npy data/output_0.npy
cp cpu/r.npy data/output_1.npy
ok run net.tn --target cuda:sm_90a --output-dir gpu
ok verify net.tn data --target cuda
has "ok    p"
ok verify net.tn data --target cuda:sm_90a --per-node --atol 1e-5
ok bench net.tn --target cuda --seconds 0.01 --json
has '"target":"sm_90a"'
has '"engine":"cuda"'
has 'Fake, sm_90'
ok run net.tn --target cpu
FAKE_CUDA=sm=86 ok bench net.tn --target cuda --seconds 0.01 --json
has '"target":"sm_86"'

# a store keeps the cubins: the second run compiles nothing
ok run net.tn --target cuda --db store.db
before=$(ls ./*.so | wc -l)
ok run net.tn --target cuda --db store.db
checks=$((checks + 1))
[ "$(ls ./*.so | wc -l)" -eq "$before" ] || bad "compiled again"

FAKE_CUDA=memory=3000 fails 5 "CUDA_ERROR_OUT_OF_MEMORY" run net.tn --target cuda
FAKE_CUDA=nodevice fails 3 "CUDA_ERROR_NO_DEVICE" run net.tn --target cuda
FAKE_CUDA=sm=80 fails 3 "does not run there" run net.tn --target cuda:sm_90a
FAKE_CUDA=sm=30 fails 3 "no target" run net.tn --target cuda
FAKE_CUDA=version=11080 fails 3 "update the driver" run net.tn --target cuda
FAKE_CUDA=trap=2 fails 70 "context is lost" run net.tn --target cuda
TENON_CUDA_PATH=$build/tests/fake:- fails 3 "NVRTC, which compiles for GPUs, is not there" verify net.tn data --target cuda
TENON_CUDA_PATH=/nowhere:- fails 3 "CUDA driver is not there" bench net.tn --target cuda
fails 2 "there are: sm_80" run net.tn --target cuda:sm_12
fails 2 "none of cpu, cuda" run net.tn --target gpu
fails 2 "exclude each other" run net.tn --target cuda --engine interp
fails 2 "not for a GPU" bench net.tn --target cuda --aot

ok check "$here/corpus/onnx/plain.onnx"
has "GPU: Fake, code for sm_90a"
has "NVRTC: $build/tests/fake_nvrtc/libnvrtc.so, version 12000"
TENON_CUDA_PATH=/nowhere:- ok check "$here/corpus/onnx/plain.onnx" --json
has '"gpu":null'

echo "$checks checks, $failed failed"
[ $failed -eq 0 ]
