#!/usr/bin/env bash
# tenon simulate from end to end: topologies, models and programs; CSV, JSON, trace, page; refusals.
set -u
. "$(dirname "$0")/cli.sh" simulate
command -v python3 >/dev/null || { echo "no python3"; exit 77; }
leading=simulate
# holds EXPRESSION: over rows (of out.csv), d (JSON of out), t (trace.json), page (page.html)
holds() {
  checks=$((checks + 1))
  python3 - "$1" 2>>err <<'END' || bad "does not hold: $1"
import csv, json, os, sys
def text(p): return open(p, encoding="utf-8").read() if os.path.exists(p) else ""
rows = list(csv.DictReader(open("out.csv", newline=""))) if os.path.exists("out.csv") else []
try: d = json.loads(text("out"))
except ValueError: d = None
t = json.loads(text("trace.json")) if os.path.exists("trace.json") else None
page = text("page.html")
assert eval(sys.argv[1]), sys.argv[1]
END
}

cat >conv.csv <<'END'
Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,
Conv1, 30, 30, 5, 5, 3, 20, 2,
"odd, name", 14, 14, 1, 1, 20, 40, 1,
DP2, 9, 9, 3, 3, 4, 1, 1,
END
cat >gemm.csv <<'END'
Layer,M,N,K,
qkv,64,96,32,
proj,64,32,96,
END

cat >net.tn <<'END'
graph net {
  input x: f32[40, 64]
  input w: f32[64, 96]
  h = MatMul(x, w)
  y = Relu(h)
  output y
}
END

# ---- by SCALE-Sim's rules ----
# totals by hand: ws, 8x8: ceil(K/8) * ceil(N/8) * (2*8 + 8 + M - 2) - 1
ok conv.csv --machine scalesim-ws-8x8 --csv out.csv
holds '[r["layer"] for r in rows] == ["Conv1", "odd, name", "DP2Channel_0", "DP2Channel_1", "DP2Channel_2", "DP2Channel_3"]'
holds 'list(rows[0])[:6] == ["layer", "M", "N", "K", "total_cycles", "utilization"]'
holds '(rows[0]["M"], rows[0]["N"], rows[0]["K"]) == ("196", "20", "75")' # ceil((30 - 5 + 2) / 2) = 14
holds 'int(rows[0]["total_cycles"]) == 10 * 3 * (16 + 8 + 196 - 2) - 1'
holds 'int(rows[2]["total_cycles"]) == 2 * 1 * (16 + 8 + 49 - 2) - 1'
holds 'abs(float(rows[0]["utilization"]) - 100 * 196 * 20 * 75 / (int(rows[0]["total_cycles"]) * 64)) < 1e-6'
ok conv.csv --machine scalesim-ws-8x8 --csv out.csv --no-faults
holds 'int(rows[0]["total_cycles"]) == 10 * 3 * (16 + 8 + 196 - 2)'
ok gemm.csv --machine scalesim-os-16x4 --csv out.csv --json
holds 'len(rows) == 2 and int(rows[0]["total_cycles"]) == 4 * 24 * (32 + 16 + 4 - 2) - 1'
holds 'd["total_cycles"] == sum(int(r["total_cycles"]) for r in rows) and d["layers"][1]["layer"] == "proj"'
holds 'int(rows[0]["sram_ofmap_writes"]) == 64 * 96 + 4 * 24 * (16 + 4)'
ok gemm.csv --machine scalesim-is-16x4 --csv out.csv
holds 'int(rows[0]["total_cycles"]) == 2 * 16 * (32 + 4 + 96 - 2) - 1'
ok gemm.csv --machine scalesim-is-16x4 --timing scalesim --html page.html
holds '"<script src" not in page and "http://" not in page.replace("http://www.w3.org/2000/svg", "") and "qkv" in page'

# ---- as a TPU ----
cat >wide.csv <<'END'
Layer,M,N,K,
qkv,256,768,512,
proj,300,520,777,
END
for machine in tpu-v1 tpu-v4 tpu-v4-core tpu-v6e; do
  ok wide.csv --machine $machine --csv out.csv --trace trace.json --html page.html --roofline roof.svg --json
  holds 'len(rows) == 2 and all(int(r["total_cycles"]) > 0 for r in rows)'
  holds 'all(int(r["macs"]) == int(r["M"]) * int(r["N"]) * int(r["K"]) for r in rows)'
  holds 'sum(d[k] for k in ("active", "weight_stall", "weight_shift", "raw_stall", "input_stall", "other_stall")) == d["total_cycles"]'
  holds 'all(0 < float(r["utilization"]) <= 100 for r in rows)'
  holds 'isinstance(t["traceEvents"], list) and {e["ph"] for e in t["traceEvents"]} == {"M", "X", "C"}'
  holds 'all(e["dur"] >= 0 and e["ts"] >= 0 and isinstance(e["name"], str) for e in t["traceEvents"] if e["ph"] == "X")'
  holds 'all(isinstance(v, (int, float)) for e in t["traceEvents"] if e["ph"] == "C" for v in e["args"].values())'
  holds '{"matrix", "weights", "load", "store", "layers"} <= {e["args"]["name"] for e in t["traceEvents"] if e["name"] == "thread_name"}'
  holds '"Roofline" in page and "<canvas" in page'
  checks=$((checks + 1))
  python3 -c 'import xml.dom.minidom as x; x.parse("roof.svg")' 2>err || bad "roof.svg is no XML"
done
ok conv.csv --machine tpu-v4 --csv out.csv
holds 'len(rows) == 6 and rows[2]["total_cycles"] == rows[5]["total_cycles"]'
ok net.tn --machine tpu-v4 --csv out.csv --compare --output-dir values
holds 'os.path.exists("values/y.npy")'
checks=$((checks + 1))
grep -q 'the bits of the CPU' out || bad "values differ from the CPU's"
ok net.tn --machine scalesim-ws-8x8 --csv out.csv
holds '(rows[0]["M"], rows[0]["N"], rows[0]["K"]) == ("40", "96", "64")'

# a program file: the same cycles as the model, on its own machine
ok net.tn --machine tpu-v4 --json --csv out.csv
cycles=$(python3 -c 'import json; print(json.load(open("out"))["total_cycles"])')
"$tenon" compile net.tn -o net.tpu --target tpu:tpu-v4 >out 2>err || bad "compile --target tpu:tpu-v4"
ok net.tpu --json --html page.html
holds "d['total_cycles'] == $cycles and d['machine'] == 'tpu-v4'"
head -c 200 net.tpu >cut.tpu
fails 4 "cut.tpu" cut.tpu

# ---- what is refused, and that nothing is left behind ----
rm -f out.csv
fails 2 "--machine NAME is missing" conv.csv
fails 2 "tpu-v4" conv.csv --machine tpu-v99
fails 2 "neither tpu nor scalesim" conv.csv --machine tpu-v1 --timing fast
fails 2 "--cores" conv.csv --machine tpu-v1 --cores 3
fails 2 "--dtype" gemm.csv --machine tpu-v4 --dtype i4
fails 3 "does not take f32" gemm.csv --machine tpu-v1 --dtype f32
fails 5 "none.csv" none.csv --machine tpu-v1
printf 'Layer, M, N, K\nx, 1, 2\n' >short.csv
fails 4 "short.csv:2: column 'K' is missing" short.csv --machine scalesim-ws-8x8 --csv out.csv
[ ! -e out.csv ] || bad "a failed run leaves out.csv"
printf 'Layer, M, N, K\nx, 1, -2, 3\n' >negative.csv
fails 4 "negative.csv:2" negative.csv --machine scalesim-ws-8x8
printf 'Layer, M, N, K\nx, 2147483647, 2147483647, 2147483647\n' >huge.csv
fails 4 "huge.csv:2" huge.csv --machine scalesim-ws-8x8
printf 'Layer, M, N, K\nx, 1000000, 1000000, 2000\n' >large.csv # 2.5 * 10^11 folds: at once
ok large.csv --machine scalesim-os-2x2 --csv out.csv
holds 'int(rows[0]["total_cycles"]) == 25 * 10**10 * (2000 + 2 + 2 - 2) - 1'
printf 'Layer, M, N, K\nx, 2000000, 2000000, 2\n' >large.csv
fails 5 "layer 'x'" large.csv --machine scalesim-os-2x2
holds 'True'
fails 5 "no/such/folder" gemm.csv --machine scalesim-ws-8x8 --csv no/such/folder/out.csv

done_checking
