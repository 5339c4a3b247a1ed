#!/usr/bin/env bash
# The onnx package's node tests, run by tests/run_nodes.c: at least TENON_NODE_PERCENT (65) percent
# must pass and none may crash or hang.
#
#   bash tests/test_nodes.sh [options of run_nodes]
#
# The data is generated once into the build folder, or taken from TENON_NODE_TESTS (a folder of
# test_NAME folders). Without Python or the onnx package it is skipped.
set -u
here=$(cd "$(dirname "$0")" && pwd)
export TENON_BUILD=${TENON_BUILD:-$(dirname "$here")/build}
. "$here/python.sh"

data=${TENON_NODE_TESTS:-$TENON_BUILD/node_tests/node}
if [ ! -d "$data" ]; then
  py=$(python_with onnx=onnx) || exit 77
  new=$TENON_BUILD/node_tests.new
  rm -rf "$new"
  "$py" "$here/node_tests.py" "$new" >"$TENON_BUILD/node_tests.log" 2>&1 || {
    tail -n 20 "$TENON_BUILD/node_tests.log"
    exit 1
  }
  mkdir -p "$(dirname "$data")"
  mv "$new/node" "$data" && rm -rf "$new"
fi
[ -z "${TENON_SANITIZE:-}" ] || set -- --seconds 60 "$@"
exec "$TENON_BUILD/tests/run_nodes" "$data" --threshold "${TENON_NODE_PERCENT:-65}" --jobs "${JOBS:-$(nproc)}" "$@"
