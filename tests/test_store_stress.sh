#!/usr/bin/env bash
# Load on the tuning store: eight processes write at once; a writer is killed at random
# moments. Small by default;
#
#   bash tests/test_store_stress.sh --full [BUILD]     8 x 10,000 rows and 200 kills
set -eu
rows=500 batch=20 kills=20
if [ "${1:-}" = --full ]; then
  rows=10000 batch=100 kills=200
  shift
fi
build=${1:-${TENON_BUILD:-build}}
program=$build/tests/run_store
[ -x "$program" ] || { echo "$program is missing: build first"; exit 77; }
folder=$(mktemp -d "${TMPDIR:-/tmp}/tenon-stress.XXXXXX")
trap 'rm -rf "$folder"' EXIT
"$program" stress "$folder/stress.db" 8 "$rows" "$batch"
"$program" kill "$folder/kill.db" "$kills"
"$program" speed "$folder/speed.db"
