#!/usr/bin/env bash
# A tuner whose candidates misbehave is killed at random moments. Small by default;
#
#   bash tests/test_tune_kill.sh --full [BUILD]     200 kills
set -eu
kills=5
if [ "${1:-}" = --full ]; then
  kills=200
  shift
fi
build=${1:-${TENON_BUILD:-build}}
program=$build/tests/run_tune
[ -x "$program" ] || { echo "$program is missing: build first"; exit 77; }
folder=$(mktemp -d "${TMPDIR:-/tmp}/tenon-kill.XXXXXX")
trap 'rm -rf "$folder"' EXIT
"$program" kill "$folder/kill.db" "$kills" "${SEED:-$$}"
