#!/usr/bin/env bash
# The main job, on a real model: the ONNX file that the PyPI package magika carries (it names the type
# of a file) becomes an object, is linked into a C program of one page, and names some files.
#
#   make demo          or: bash frontend/examples/demo.sh, after a build
#
# TENON_MAGIKA=FOLDER takes model.onnx and config.min.json from there instead of from the package.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${TENON_BUILD:-$root/build}
tenon=$build/tenon
work=$build/demo
model=$work/model.onnx
. "$root/tests/step.sh"
mkdir -p "$work"
export TENON_DB=${TENON_DB:-$work/tenon.db} # what tuning finds stays with the build

fetch() {
  if [ -n "${TENON_MAGIKA:-}" ]; then
    cp "$TENON_MAGIKA/model.onnx" "$TENON_MAGIKA/config.min.json" "$work/"
    return
  fi
  rm -rf "$work/wheel" "$work/package"
  [ -x "$build/venv/bin/pip" ] || python3 -m venv "$build/venv" || return 1
  "$build/venv/bin/pip" download -q --disable-pip-version-check --no-deps --only-binary :all: -d "$work/wheel" 'magika>=1.0,<2' || return 1
  python3 -m zipfile -e "$work"/wheel/magika-*.whl "$work/package" || return 1
  cp "$work/package/magika/models/standard_v3_3/config.min.json" "$work/" &&
    cp "$work/package/magika/models/standard_v3_3/model.onnx" "$model"
}
if [ ! -e "$model" ] || [ ! -e "$work/config.min.json" ]; then
  step "magika's model from its PyPI package" fetch || exit 1
fi

run() { # shows the command, then runs it
  echo
  echo "\$ ${*//$build\//}"
  "$@"
}

# The model's one symbolic dimension is the batch; its name differs between versions.
batch=$("$tenon" check "$model" --json 2>/dev/null | sed -n 's/.*"dims": \["\([^"]*\)"\].*/\1/p')
dim=(${batch:+--dim "$batch=1"})

run "$tenon" check "$model" "${dim[@]}" || exit 1

budget=${TENON_DEMO_TUNE:-10s}
if [ "$budget" != 0 ]; then
  run "$tenon" tune "$model" "${dim[@]}" --budget "$budget"
  rc=$?
  [ $rc -eq 0 ] || [ $rc -eq 3 ] || exit 1 # 3: this build does not tune
fi

run "$tenon" compile "$model" "${dim[@]}" -o "$work/magika.o" --header "$work/magika.h" --prefix magika || exit 1
run "$tenon" view "$model" "${dim[@]}" -o "$work/magika.html" || exit 1

labels=$(sed -n 's/.*"target_labels_space": *\[\([^]]*\)\].*/\1/p' "$work/config.min.json")
[ -n "$labels" ] || { echo "config.min.json: no labels"; exit 1; }
{
  echo "/* Names of the model's outputs, from config.min.json. */"
  echo "static const char *const labels[] = {$labels};"
  echo "enum { NUM_LABELS = sizeof labels / sizeof labels[0] };"
} >"$work/labels.h"
run "${CC:-cc}" -std=c11 -O2 -Wall -I "$work" "$root/frontend/examples/magika/magika_demo.c" "$work/magika.o" -lm -o "$work/magika_demo" || exit 1

# A picture, to have one at hand.
base64 -d >"$work/picture.png" <<'PNG'
iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAALUlEQVR42mOQVTcmCTHQXcODagY0hE8DpmpMPQwEVaPpGeEaSA5W
ciJucCQ+AI5SxWFVoe02AAAAAElFTkSuQmCC
PNG
echo
answers=$("$work/magika_demo" "$root/frontend/compare.c" "$root/tests/node_tests.py" "$root/CMakeLists.txt" "$root/tests/step.sh" \
  "$root/README.md" "$work/picture.png" "$work/magika.html" "$tenon" "$model" "$work/config.min.json") || exit 1
echo "$answers"

# The answers must make sense.
echo "$answers" | awk '
  BEGIN { want["compare.c"] = "c"; want["node_tests.py"] = "python"; want["step.sh"] = "shell"; want["picture.png"] = "png"; want["magika.html"] = "html"; want["tenon"] = "elf" }
  $1 in want { n++; if ($2 != want[$1]) { bad = 1; print $1 " should be " want[$1] } }
  END { exit bad || n < 6 }' || { echo "demo: wrong answers"; exit 1; }
echo
echo "demo: all is well"
