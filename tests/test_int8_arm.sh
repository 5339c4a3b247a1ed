#!/bin/bash
# Quantised layers as code for AArch64, with and without dot products, under qemu-user, against this machine's.
set -eu
. "$TENON_SOURCE/tests/cross/tools.sh"
cd "$dir"
numbers() { awk -v n="$1" -v lo="$2" -v hi="$3" -v seed="$4" 'BEGIN { srand(seed); for (i = 0; i < n; i++) printf "%s%d", i ? ", " : "", i % 9 ? lo + int(rand() * (hi - lo + 1)) : lo }'; }
# sums of a 3x3 layer, and the 1x1 layer with the bytes between and behind quantised
cat > g.tn <<END
graph g { opset 13 input x: u8[1, 24, 9, 11]
  const w: i8[40, 24, 3, 3] = [$(numbers 8640 -128 127 1)]
  const v: i8[40, 40, 1, 1] = [$(numbers 1600 -127 127 2)]
  const zx: u8[] = 117 const sx: f32[] = 0.01 const sw: f32[] = 0.002 const sm: f32[] = 0.07 const zm: u8[] = 131 const so: f32[] = 0.09 const zo: u8[] = 3
  y = ConvInteger(x, w, zx) { pads = [1, 1, 1, 1] }
  xf = DequantizeLinear(x, sx, zx) wf = DequantizeLinear(w, sw) vf = DequantizeLinear(v, sw)
  a = Conv(xf, wf) { pads = [1, 1, 1, 1] } m = QuantizeLinear(a, sm, zm) mf = DequantizeLinear(m, sm, zm)
  b = Conv(mf, vf) o = QuantizeLinear(b, so, zo) of = DequantizeLinear(o, so, zo) sum = Add(of, mf) q = QuantizeLinear(sum, sm, zm)
  output y, q }
END
"$TENON_BUILD/tenon" compile g.tn -o m.o --prefix m --db none > /dev/null
"${CC:-cc}" -O1 -I. "$TENON_SOURCE/tests/cross/int8.c" m.o -lm -o here
./here > want
for cpu in aarch64 neoverse-n1; do
  "$TENON_BUILD/tenon" compile g.tn --cpu $cpu --triple aarch64-unknown-linux-gnu -o m.o --prefix m --db none > /dev/null
  "$cc" -O1 -static -I. "$TENON_SOURCE/tests/cross/int8.c" m.o -lm -o there
  "$qemu" -cpu max ./there > got
  # sums are equal; a quantum that the two round differently in goes through the next layer
  paste want got | awk -v cpu=$cpu '
    NF == 2 { n++; if ($1 != $2) bad++ }
    NF == 4 { n++; d = $2 - $4; if (d < -2 || d > 2) bad++ }
    END { if (n != 7920 || bad) { print cpu ": " bad + 0 " of " n " are wrong"; exit 1 } }'
done
echo "layers for AArch64 agree"
