#!/usr/bin/env bash
# run, verify, bench and check on a GPU, through the fake driver and the fake NVRTC; and what is said where they are missing.
set -u
. "$(dirname "$0")/cli.sh" cuda
[ -f "$build/tests/fake_nvrtc/libnvrtc.so" ] && "${CXX:-c++}" --version >/dev/null 2>&1 || { echo "no fake driver, or no C++ compiler"; exit 77; }
export FAKE_CUDA= FAKE_NVRTC_DIR=$work
both=$build/tests/fake:$build/tests/fake_nvrtc:-

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
has '"target": "sm_90a"'
has '"engine": "cuda"'
has 'Fake, sm_90'
ok run net.tn --target cpu
FAKE_CUDA=sm=86 ok bench net.tn --target cuda --seconds 0.01 --json
has '"target": "sm_86"'

# a store keeps the cubins: the second run compiles nothing
ok run net.tn --target cuda --db store.db
before=$(ls ./*.so | wc -l)
ok run net.tn --target cuda --db store.db
checks=$((checks + 1))
[ "$(ls ./*.so | wc -l)" -eq "$before" ] || bad "compiled again"

# the tuner: candidates on the device; one that traps and one that finds no memory are failed trials, not ends
cat >product.tn <<'T'
graph g { opset 17 input a: f32[40, 48] input b: f32[48, 36] y = MatMul(a, b) z = Relu(y) output z }
T
ok tune product.tn --target cuda --db tuned.db --trials 3 --json
has '"trials": 3, "failed": 0'
has '"schedule": "tile '
FAKE_CUDA=trap=3 ok tune product.tn --target cuda --db tuned.db --trials 2
has "the device was opened anew 1 times"
has "CUDA_ERROR_LAUNCH_FAILED"
has "2 timed, 1 of them failed, 3 known"
ok db ls --db tuned.db --json
has '"trials":5,"ok":4'
ok run product.tn --target cuda --db tuned.db
ok bench product.tn --target cuda:sm_90a --db tuned.db --seconds 0.01
FAKE_CUDA=memory=4000 ok tune product.tn --target cuda --db none --trials 1
has "CUDA_ERROR_OUT_OF_MEMORY"
fails 2 "with --trials and --budget alone" tune product.tn --target cuda --check
# a candidate that never ends (of four blocks: split 4) is stopped, and the tuner goes on
FAKE_CUDA=hang=4 ok tune product.tn --target cuda --db hung.db --trials 2 --timeout 5
has "split 4 tile 64 64 16 4 4 4: no end: it is stopped" err
has "1 of them failed"
ok db ls --db hung.db --json
has '"trials":3,"ok":2'

# plans of a library: listed without a device, timed with the schedules, taken where they won
cat >lib.tn <<'T'
graph g { opset 17 input x: f32[1, 4, 9, 8] const w: f32[8, 4, 1, 1] = [WEIGHTS] input b: f32[8] y = Conv(x, w, b) z = Relu(y) output z }
T
sed -i "s|WEIGHTS|$weights|" lib.tn
libraries=$build/tests/fake:$build/tests/fake_nvrtc:$build/tests/fake_cudnn:-
TENON_CUDA_PATH=$libraries ok tune lib.tn --target cuda:sm_90a --candidates
has "cudnn 9.19.0 engine 0: workspace 64 B"
TENON_CUDA_PATH=$libraries ok tune lib.tn --target cuda:sm_90a --candidates --accuracy 1e-2 --json
has '"choice": "cudnn 9.19.0 engine 1"'
has '"notes": "tensor cores"'
ok tune lib.tn --target cuda:sm_90a --candidates
has "libcudnn.so.9: cannot open"
TENON_CUDA_PATH=$libraries ok tune lib.tn --target cuda --db libraries.db --trials 2
has " 0 of them failed"
TENON_CUDA_PATH=$libraries FAKE_CUDNN=fail ok tune lib.tn --target cuda --db none --trials 2
has " 1 of them failed"
TENON_CUDA_PATH=$libraries ok explain lib.tn --target cuda:sm_90a --db libraries.db
has "cudnn 9.19.0 engine 0"
ok run lib.tn --output-dir cpu --save-inputs data2
cp data2/x.npy data2/input_0.npy
cp data2/b.npy data2/input_1.npy
cp cpu/z.npy data2/output_0.npy
TENON_CUDA_PATH=$libraries FAKE_CUDA=nocapture ok verify lib.tn data2 --target cuda --db libraries.db --atol 1e-5
ok verify lib.tn data2 --target cuda --db libraries.db --atol 1e-5 # without the library: the usual schedule

# whole runs decide about the layout (on the fake's clock fewer launches are faster, so it is the one without transposes),
# and every plan made with that store follows
launches() {
  ok explain lib.tn --target cuda:sm_90a --db layouts.db --json "$@"
  grep -o '"launches": [0-9]*' out | head -1 | tr -dc 0-9
}
ok tune lib.tn --target cuda --db layouts.db --trials 1
has "lib.tn, NHWC: "
has "lib.tn, NCHW: "
has "NCHW is taken"
nhwc=$(launches --layout NHWC) nchw=$(launches --layout NCHW) chosen=$(launches)
checks=$((checks + 1))
[ "$chosen" -eq "$nchw" ] && [ "$nchw" -lt "$nhwc" ] || bad "launches: $nhwc in NHWC, $nchw in NCHW, $chosen in the chosen one"
ok tune lib.tn --target cuda --db layouts.db --trials 1 --json
has '"chosen": "NCHW"'
ok verify lib.tn data2 --target cuda --db layouts.db --atol 1e-5
FAKE_CUDA=memory=4000 ok tune lib.tn --target cuda --db small.db --trials 1
has "layouts were not compared"
fails 2 "have NHWC or NCHW" run lib.tn --target cuda --layout NCHWc

cat >attend.tn <<'T'
graph g { opset 23 input q: bf16[1, 4, 24, 32] input k: bf16[1, 2, 24, 32] input v: bf16[1, 2, 24, 32] y = Attention(q, k, v) output y }
T
TENON_CUDA_PATH=$libraries ok tune attend.tn --target cuda:sm_90a --candidates
has "cudnn 9.19.0 engine 0: workspace 64 B"
has "cudnn 9.19.0 sdpa engine 1: workspace 128 B, tensor cores"
TENON_CUDA_PATH=$libraries ok explain attend.tn --target cuda:sm_90a
has "library: 4 plans"

cat >mm.tn <<'T'
graph net { opset 17 input a: f32[12, 24] input b: f32[16, 24] input c: f32[16] y = Gemm(a, b, c) {transB = 1} z = Relu(y) output z }
T
libraries=$libraries:$build/tests/fake_cublaslt:-
libraries=${libraries/:-:/:}
TENON_CUDA_PATH=$libraries FAKE_CUBLASLT=nohandle ok tune mm.tn --target cuda:sm_90a --candidates
has "cuBLASLt: no handle without a device"
TENON_CUDA_PATH=$libraries ok tune mm.tn --target cuda --db products.db --trials 3
has " 0 of them failed"
TENON_CUDA_PATH=$libraries FAKE_CUBLASLT=fail ok tune mm.tn --target cuda --db none --trials 3
has " 1 of them failed"
TENON_CUDA_PATH=$libraries ok explain mm.tn --target cuda:sm_90a --db products.db
has "cublaslt 13.1.0 compute 68 algo 0"
ok run mm.tn --output-dir cpu --save-inputs data3
i=0; for name in a b c; do cp data3/$name.npy data3/input_$i.npy; i=$((i + 1)); done
cp cpu/z.npy data3/output_0.npy
TENON_CUDA_PATH=$libraries ok verify mm.tn data3 --target cuda --db products.db --atol 1e-5
ok verify mm.tn data3 --target cuda --db products.db --atol 1e-5 # without the library: the usual schedule

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

# objects: cubins for two architectures, the driver through getproc
program() { # STATUS OUT [NAME=VALUE...]: of the linked program
  local want=$1 part=$2 rc
  shift 2
  checks=$((checks + 1))
  env "$@" ./app "$build/tests/fake/libcuda.so" x.bin >out 2>err
  rc=$?
  [ $rc -eq "$want" ] || bad "status $rc, not $want: the program with $*"
  has "$part"
}
cc=${CC:-cc}
tail -c $((4 * 9 * 9 * 4)) data/x.npy >x.bin
tail -c $((8 * 9 * 9 * 4)) gpu/p.npy >want.bin
for weights in embed file; do
  ok compile net.tn --target cuda:sm_80,sm_90a -o net.o --weights $weights
  "$cc" -std=c11 -Wall -Wextra -Werror -O1 -I. "$here/aot/cuda.c" net.o -o app -ldl >out 2>err || bad "the program does not compile"
  program 0 "run 0, driver 0"
  checks=$((checks + 1))
  cmp -s p.bin want.bin || bad "the object's output is not that of tenon run"
  program 0 "run 0, driver 0" FAKE_CUDA=sm=86
  program 7 "run 7, driver 0" FAKE_CUDA=sm=100
  program 7 "run 7, driver 100" FAKE_CUDA=nodevice
  program 8 "run 8, driver 2" FAKE_CUDA=memory=3000
  program 9 "run 9, driver 719" FAKE_CUDA=trap=2
  program 6 "run 6, driver 0" MISSING=cuLaunchKernel
  # its launches are a graph, where there are graphs
  program 9 "run 9, driver 999" FAKE_CUDA=fail=cuGraphLaunch
  for without in FAKE_CUDA=nocapture FAKE_CUDA=fail=cuGraphInstantiateWithFlags MISSING=cuGraphLaunch; do
    program 0 "run 0, driver 0" $without
    checks=$((checks + 1))
    cmp -s p.bin want.bin || bad "the output is another with $without"
  done
done
# tensor maps: made by the module and by the launcher
cat >maps.tn <<'T'
graph net { opset 17 input x: f32[72, 128] const s: i64[4] = [1, 1, 72, 72] h = Cast(x) {to = 16} y = Gemm(h, h) {transB = 1} z = Cast(y) {to = 1} p = Reshape(z, s) r = Relu(x) output p, r }
T
ok explain maps.tn --target cuda:sm_90a
has "tma 64 64 4"
ok run maps.tn --target cuda:sm_90a --output-dir gpu --save-inputs data
ok run maps.tn --output-dir cpu
cp data/x.npy data/input_0.npy
cp cpu/p.npy data/output_0.npy
cp cpu/r.npy data/output_1.npy
ok verify maps.tn data --target cuda:sm_90a --rtol 0.02 --atol 0.01
ok compile maps.tn --target cuda:sm_80,sm_90a -o net.o
"$cc" -std=c11 -Wall -Wextra -Werror -O1 -I. "$here/aot/cuda.c" net.o -o app -ldl >out 2>err || bad "the program does not compile"
tail -c $((72 * 128 * 4)) data/x.npy >x.bin
tail -c $((72 * 72 * 4)) gpu/p.npy >want.bin
program 0 "run 0, driver 0"
checks=$((checks + 1))
cmp -s p.bin want.bin || bad "the object's output is not that of tenon run"
program 0 "run 0, driver 0" FAKE_CUDA=sm=86 MISSING=cuTensorMapEncodeTiled
program 6 "run 6, driver 0" MISSING=cuTensorMapEncodeTiled
program 9 "run 9, driver 999" FAKE_CUDA=fail=cuTensorMapEncodeTiled

checks=$((checks + 2))
nm -u net.o | grep -v -x -E ' *U (memcpy|memset|memmove)' >out && bad "the object needs more than memory functions"
[ "$(nm -g --defined-only net.o | awk '{print $3}' | sort | tr '\n' ' ')" = "net_close net_error net_run " ] || bad "other symbols are public"
ls | grep -q 'tmp' && bad "a temporary file stays"
rm net.o net.h
TENON_CUDA_PATH=/nowhere:- fails 3 "NVRTC, which compiles for GPUs, is not there" compile net.tn --target cuda:sm_80 -o net.o
[ -e net.o ] && bad "a part of an object stays"
fails 3 "kind of host" compile net.tn --target cuda:sm_80 -o net.o --triple "$([ "$(uname -m)" = x86_64 ] && echo aarch64-linux-gnu || echo x86_64-linux-gnu)"
fails 2 "there are: sm_80" compile net.tn --target cuda:sm_80,sm_12 -o net.o

ok check "$here/corpus/onnx/plain.onnx"
has "GPU: Fake, code for sm_90a"
has "NVRTC: $build/tests/fake_nvrtc/libnvrtc.so, version 12000"
TENON_CUDA_PATH=/nowhere:- ok check "$here/corpus/onnx/plain.onnx" --json
has '"gpu": null'

done_checking
