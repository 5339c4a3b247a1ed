#!/usr/bin/env bash
# frontend/examples/small_net.c, at most 40 lines, built against an installed Tenon by pkg-config:
# its results, the saved object linked into a program of its own, all against ONNX Runtime.
set -eu
source=${TENON_SOURCE:?} build=${TENON_BUILD:?} cc=${CC:-cc}
if [ -n "${TENON_SANITIZE:-}" ]; then
  echo "skipped: an outside program would need the sanitizers too"
  exit 77
fi
command -v pkg-config >/dev/null || { echo "skipped: no pkg-config"; exit 77; }
example=$source/frontend/examples/small_net.c
lines=$(wc -l <"$example")
[ "$lines" -le 40 ] || { echo "small_net.c has $lines lines"; exit 1; }
work=$(mktemp -d "${TMPDIR:-/tmp}/tenon-small-net.XXXXXX")
trap 'rm -rf "$work"' EXIT

cmake --install "$build" --prefix "$work/tree" >"$work/install.log"
lib=$(dirname "$(find "$work/tree" -name libtenon.a)")
export PKG_CONFIG_PATH=$lib/pkgconfig LD_LIBRARY_PATH=$lib
"$cc" -std=c99 -Wall -Wextra "$example" $(pkg-config --cflags --libs tenon) -o "$work/small_net"
for other in "$source"/frontend/examples/*.c; do # the others use nothing but the installed header either
  "$cc" -std=c99 -D_POSIX_C_SOURCE=200809L -Wall -Wextra $(pkg-config --cflags tenon) -fsyntax-only "$other"
done
mkdir "$work/out"
"$work/small_net" "$work/out"

# The object needs its header and libc alone.
cat >"$work/use.c" <<'C'
#include "net.h"
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv) {
  static float x[2 * 3 * 16 * 16], y[2 * 10];
  FILE *f = fopen(argv[1], "rb");
  if (argc < 3 || !f || fread(x, 1, sizeof x, f) != sizeof x) return 1;
  fclose(f);
  const void *in[1] = {x};
  void *out[1] = {y}, *arena = aligned_alloc(64, (NET_ARENA_BYTES(1) + 63) / 64 * 64 + 64);
  int code = net_run(in, out, NULL, NULL, NULL, NULL, arena, NULL);
  free(arena);
  f = fopen(argv[2], "wb");
  if (code || !f || fwrite(y, 1, sizeof y, f) != sizeof y || fclose(f)) return 2;
  return 0;
}
C
"$cc" -I"$work/out" "$work/use.c" "$work/out/net.o" -lm -o "$work/use"
"$work/use" "$work/out/x.bin" "$work/out/object.bin"

. "$source/tests/python.sh"
py=$(python_with numpy=numpy onnx=onnx onnxruntime=onnxruntime) || exit 77
"$py" "$source/tests/api_small_net.py" "$work/out" object.bin
