#!/usr/bin/env bash
# parse(print(x)) is x, over models: the ones of the corpus, the onnx package's node tests once
# tests/test_nodes.sh has made them (or TENON_NODE_TESTS), and those of TENON_MODELS, a folder.
set -u
here=$(cd "$(dirname "$0")" && pwd)
build=${TENON_BUILD:-$(dirname "$here")/build}
shopt -s nullglob
set -- "$here"/corpus/onnx/*.onnx ${TENON_MODELS:+"$TENON_MODELS"/*.onnx}
nodes=${TENON_NODE_TESTS:-$build/node_tests/node}
for dir in "$nodes"/test_*; do
  [ -e "$dir/model.onnx" ] && set -- "$@" "$dir/model.onnx"
done
exec "$build/tests/run_texts" --quiet "$@"
