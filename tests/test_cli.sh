#!/usr/bin/env bash
# The command line tool: every verb, its files and JSON, its exit codes and messages.
set -u
. "$(dirname "$0")/cli.sh" cli
corpus=$here/corpus/onnx
json() { # the last output is one JSON object, and the Python expression over it (d) holds
  checks=$((checks + 1))
  python3 -c '
import json, sys
d = json.load(open("out"))
assert isinstance(d, dict) and eval(sys.argv[1]), sys.argv[1]' "$1" 2>>err || bad "JSON: $1"
}

# A model with constants, a symbolic dimension, and a name that is no file name.
cat >net.tn <<'END'
graph net {
  dim N
  input "in/x": f32[N, 4]
  const w: f32[4, 3] = [1.0, 0.5, -1.0, 2.0, 0.25, 0.0, 3.0, -0.5, 0.75, -2.0, 1.5, 1.0]
  const b: f32[3] = [0.5, -0.5, 0.0]
  h = MatMul("in/x", w)
  s = Add(h, b)
  y = Relu(s)
  m = ReduceMean(y)
  output y, m
}
END

# ---- usage ----
ok --help
has simulate
ok --version
has ", code generator "
fails 2 "unknown verb" frobnicate
for verb in check compile run verify bench profile tune explain view; do
  ok $verb --help
  has "--dim NAME=N"
done
"$tenon" >out 2>err
[ $? -eq 2 ] || bad "no verb should be status 2"
fails 2 "an argument is missing" run
fails 2 "has no option '--frob'" run net.tn --frob
fails 2 "--dim needs a value" run net.tn --dim
fails 2 "is not NAME=VALUE" run net.tn --dim N
fails 2 "is not a number" run net.tn --dim N=two
fails 2 "N (give --dim NAME=N)" run net.tn
fails 2 "is none of 8" run net.tn --dim N=1,2..4
fails 2 "must ascend" run net.tn --dim N=4,2
fails 2 "ends before it begins" run net.tn --dim N=4..2
fails 2 "begin with 1" run net.tn --dim N=0..2
fails 2 "no batch" run net.tn --dim N=1..4
fails 2 "is none of the sizes" run net.tn --dim N=1,4 --at N=3
fails 2 "shows one size" explain net.tn --dim N=1,4
fails 2 "several sizes are for" simulate net.tn --machine tpu-v1 --dim N=1,4
fails 2 "perhaps --seed" run net.tn --sead 1
fails 2 "perhaps bench" bnch net.tn
fails 2 "no dimension 'M'" run "$corpus/plain.onnx" --dim M=3
fails 2 "--layout" run net.tn --dim N=2 --layout CHWN
fails 2 "z80" run net.tn --dim N=2 --cpu z80
fails 2 "no input 'x'" run net.tn --dim N=2 --input x=a.npy
fails 2 "no value and no node 'q'" run net.tn --dim N=2 --fetch q
fails 2 "dimensions without a size" simulate net.tn --machine tpu-v1
fails 2 "no store" report --db none -o page.html

# ---- bad files ----
fails 5 "missing.onnx" run missing.onnx
printf 'this is no model' >junk.onnx
fails 4 "junk.onnx" run junk.onnx
head -c 100 "$corpus/plain.onnx" >cut.onnx
fails 4 "cut.onnx" run cut.onnx --dim N=2
printf 'graph g {\n  x = Frob(y)\n}\n' >bad.tn
fails 4 "Frob" run bad.tn
printf 'graph g {\n  input x: f32[2]\n  y = Relu(x\n}\n' >bad.tn
fails 4 "bad.tn:4" run bad.tn
fails 5 "out.npy" run net.tn --dim N=2 --input in/x=out.npy
fails 5 "" run net.tn --dim N=2 --output-dir /dev/null/x

# ---- run: files, fetch, engines, JSON ----
ok run net.tn --dim N=2 --output-dir o --save-inputs i --fetch h
[ -f o/y.npy ] && [ -f o/m.npy ] && [ -f o/h.npy ] && [ -f i/in_x.npy ] || bad "files of run"
ok run net.tn --input in/x=i/in_x.npy --output-dir again --engine interp --unscheduled
cmp -s o/y.npy again/y.npy && cmp -s o/m.npy again/m.npy || bad "engines differ"
ok run net.tn --dim N=2 --seed 1 --output-dir other
cmp -s o/y.npy other/y.npy && bad "another seed, the same result"
# of several sizes each gives what a model of that size gives
for n in 1 5; do
  ok run net.tn --dim N=$n --output-dir one --save-inputs j
  ok run net.tn --dim N=1,5 --at N=$n --input in/x=j/in_x.npy --output-dir sev
  cmp -s one/y.npy sev/y.npy || bad "several sizes at $n"
done
ok run net.tn --dim=N=2 --json
json 'd["outputs"][0]["name"] == "y" and d["outputs"][0]["dims"] == [2, 3] and d["outputs"][0]["file"] is None'
fails 2 "without a size" run net.tn --json
json 'd["status"] == 2 and "N" in d["error"]'
ok run "$corpus/plain.onnx" --dim N=2 --threads 1 --cpu x86-64 --layout NCHW
fails 4 "input 'in/x' is f32[N,4], given is f32[2,3]" run net.tn --input in/x=o/y.npy

# ---- verify ----
mkdir v
cp i/in_x.npy v/input_0.npy
cp o/y.npy v/output_0.npy
cp o/m.npy v/output_1.npy
ok verify net.tn v
has "ok    y"
ok verify net.tn v --per-node --rtol 0 --atol 1e-6
has "(MatMul)"
ok verify net.tn v --per-node --reference unscheduled --json
json 'd["ok"] and len(d["outputs"]) == 2 and {n["op"] for n in d["nodes"]} == {"MatMul", "Add"}'
cp other/y.npy v/output_0.npy
fails 1 "1 of 2 outputs are wrong" verify net.tn v
has "WRONG y"
fails 1 "" verify net.tn v --json
json 'not d["ok"] and d["outputs"][0]["wrong"] > 0 and d["outputs"][1]["ok"]'
cp o/m.npy v/output_0.npy
fails 1 "outputs are wrong" verify net.tn v
has "should be f32["
mkdir empty
fails 2 "no output_0" verify net.tn empty

# ---- check ----
ok check "$corpus/plain.onnx"
has "dimensions to give with --dim: N"
ok check "$corpus/plain.onnx" --dim N=2 --json
json 'd["problems"] == [] and d["ops"] == {"Gemm": 1} and d["weights_bytes"] > 0 and d["flops"] > 0'

python3 - <<'END'
from math import prod
def varint(n): return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)
def field(k, v): return varint(k << 3) + varint(v) if isinstance(v, int) else varint(k << 3 | 2) + varint(len(v)) + v
def value(name, kind, dims):
    shape = b"".join(field(1, field(1, d)) for d in dims)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, shape)))
def quantised(path, op, x, w, y, attributes=b""):  # a product of integers
    node = field(1, b"x") + field(1, b"w") + field(2, b"y") + field(4, op) + attributes
    weights = b"".join(field(1, d) for d in w) + field(2, 3) + field(8, b"w") + field(9, bytes(i % 5 for i in range(prod(w))))
    graph = field(1, node) + field(2, b"g") + field(5, weights) + field(11, value(b"x", 2, x)) + field(12, value(b"y", 6, y))
    open(path, "wb").write(field(1, 8) + field(7, graph) + field(8, field(2, 13)))
quantised("deep.onnx", b"ConvInteger", [1, 64, 28, 28], [64, 1, 3, 3], [1, 64, 26, 26], field(5, field(1, b"group") + field(3, 64) + field(20, 2)))
quantised("dense.onnx", b"MatMulInteger", [64, 256], [256, 256], [64, 256])
END
ok check deep.onnx --cpu x86-64-v3
has "slower on x86-64-v3 than the same layer in floats"
ok check deep.onnx --cpu x86-64-v3 --json
json 'len(d["slow_int8"]) == 1'
for cpu in x86-64-v3 cascadelake; do
  ok check dense.onnx --cpu $cpu --json
  json 'd["slow_int8"] == []'
done

# ---- compile: an object that a C program runs ----
fails 2 "-o FILE is missing" compile net.tn --dim N=2
fails 2 "--target" compile net.tn --dim N=2 -o x.o --target avr
TENON_CUDA_PATH=/nowhere:- fails 3 "NVRTC" compile net.tn --dim N=2 -o x.o --target cuda:sm_90a
fails 2 "" compile net.tn --dim N=2 -o x.o --prefix 3d
fails 2 "" compile net.tn --dim N=2 -o x.o --weights elsewhere
for weights in embed file pointer; do
  ok compile net.tn --dim N=2 -o net-$weights.o --header net-$weights.h --prefix net --weights $weights
done
[ -s net-file.weights ] || bad "no weights beside the object"
fails 5 "a/b.o" compile net.tn --dim N=2 -o a/b.o
ok compile net.tn --dim N=2 -o model.o --json
json 'd["object"] == "model.o" and d["header"] == "model.h" and d["prefix"] == "model" and d["object_bytes"] > 0'
ok compile net.tn --input in/x=i/in_x.npy -o fixed.o
has "fixed_run"
grep -q 'FIXED_NUM_INPUTS *0' fixed.h || bad "an input that was given is still there"
cat >main.c <<'END'
#include "model.h"
#include <stdio.h>
#include <stdlib.h>
int main(void) {
  static float x[MODEL_INPUT_0_BYTES / 4], y[MODEL_OUTPUT_0_BYTES / 4], m[MODEL_OUTPUT_1_BYTES / 4];
  FILE *f = fopen("i/in_x.npy", "rb"), *g = fopen("got", "wb");
  if (!f || !g || fseek(f, -(long)sizeof x, SEEK_END) || fread(x, 1, sizeof x, f) != sizeof x) return 2;
  const void *in[] = {x};
  void *out[] = {y, m};
  void *arena = aligned_alloc(MODEL_ALIGN, (MODEL_ARENA_BYTES(1) / MODEL_ALIGN + 1) * MODEL_ALIGN);
  if (model_run(in, out, NULL, NULL, NULL, NULL, arena, NULL) != MODEL_OK) return 3;
  return fwrite(y, 1, sizeof y, g) != sizeof y || fclose(g);
}
END
"${CC:-cc}" -Wall main.c model.o -lm -o main >out 2>err && ./main || bad "a program with the object"
tail -c 24 o/y.npy | cmp -s - got || bad "the object's result differs from the JIT's"

# ---- bench, profile ----
ok bench net.tn --dim N=2 --seconds 50ms --json
json 'all(k in d for k in ("min_ms", "median_ms", "mad_ms", "runs", "gflops")) and d["runs"] >= 3 and d["min_ms"] > 0'
ok bench gemm:f32:32x48x64 --seconds 0.05 --threads 1 --json
json 'd["flop"] >= 2 * 32 * 48 * 64 and d["gflops"] > 0 and d["threads"] == 1 and d["copies"] == 1'
ok bench gemm:f32:32x48x64:var:cold --seconds 0.05 --json
json 'd["copies"] > 1'
ok bench conv:f32:n1c8h14w14k16r3s3u1p1 --seconds 0.05 --aot --json
json 'd["engine"] == "aot" and d["flop"] >= 2 * 16 * 14 * 14 * 8 * 3 * 3 * 0.8'
fails 2 "unknown element type" bench gemm:f33:1x2x3
fails 2 "MxNxK" bench gemm:f32:12x
fails 2 "a size is out of range" bench gemm:f32:0x2x3
fails 2 "a letter stands twice" bench conv:f32:n1n1
ok profile net.tn --dim N=2 --trace trace.json --runs 3 --json
json 'd["runs"] == 3 and len(d["calls"]) >= 2 and "traceEvents" in json.load(open("trace.json"))'
ok profile net.tn --dim N=2
has "sum of"

# ---- explain, view, texts that come back ----
ok explain net.tn --dim N=2 --loops --program p.tn
has "kernel matmul_0"
has "for m in"
ok explain gemm:f32:64x64x64 --json
json 'd["kernels"][0]["problem"].startswith("contraction") and d["kernels"][0]["schedule"]'
fails 2 "there is no kernel 'k'" explain net.tn --dim N=2 --kernel k
ok run p.tn --data net.tn --dim N=2 --input in/x=i/in_x.npy --output-dir p
cmp -s o/y.npy p/y.npy || bad "a program's text gives another result"
fails 2 "--data MODEL" run p.tn
TN_DUMP=after:infer,fuse "$tenon" run net.tn --dim N=2 >out 2>dump || bad "TN_DUMP"
has "# after infer" dump
has "# after fuse" dump
sed -n '/^# after fuse/,$p' dump >fuse.tn
ok run fuse.tn --input in/x=i/in_x.npy --output-dir d
cmp -s o/y.npy d/y.npy || bad "a dumped graph gives another result"
ok view net.tn --dim N=2 -o page.html
has "<svg" page.html
has "scheduled loops" page.html
grep -q 'src=\|href="http' page.html && bad "the page needs something from outside"
ok view net.tn --dim N=2 -o page.html --no-times --cpu x86-64-v4 --json
json 'd["page"] == "page.html" and d["bytes"] > 1000'

# ---- db ----
fails 5 "t.db" db ls --db "$work/t.db"
fails 2 "unknown verb" db frobnicate --db "$work/t.db"

done_checking
