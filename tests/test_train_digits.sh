#!/usr/bin/env bash
# frontend/examples/digits.c in all its styles: the same losses to the bit, at least 97 % of the test images
# read, each within 10 seconds; the trained objects need nothing of Tenon.
set -eu
source=${TENON_SOURCE:?} build=${TENON_BUILD:?} cc=${CC:-cc}
if [ -n "${TENON_SANITIZE:-}" ]; then
  echo "skipped: times under a sanitizer say nothing"
  exit 77
fi
. "$source/tests/python.sh"
work=$(mktemp -d "${TMPDIR:-/tmp}/tenon-digits.XXXXXX")
trap 'rm -rf "$work"' EXIT
export TENON_DB=none
if [ -n "${TENON_DIGITS:-}" ]; then py=python3
else py=$(python_with sklearn=scikit-learn) || { echo "skipped: the package scikit-learn cannot be had"; exit 77; }
fi
"$py" "$source/frontend/examples/digits.py" "$work/digits.bin"
for net in mlp lenet; do
  for style in module eager compiled; do
    "$build/examples/digits" "$work/digits.bin" $net $style >"$work/$net.$style"
    cmp "$work/$net.module" "$work/$net.$style"
  done
  mkdir "$work/$net"
  "$build/examples/digits" "$work/digits.bin" $net object "$work/$net"
  "$cc" -std=c11 -O1 -Wall -Wextra -Werror -I"$work/$net" "$source/frontend/examples/digits/digits_object.c" "$work/$net"/*.o -o "$work/$net/run" -lm
  "$work/$net/run" "$work/digits.bin" >"$work/$net.object"
  cmp "$work/$net.module" "$work/$net.object"
  tail -n 1 "$work/$net.module"
  awk '/^accuracy/ { if ($2 < 0.97) exit 1; found = 1 } END { exit !found }' "$work/$net.module"
done
