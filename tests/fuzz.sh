#!/usr/bin/env bash
# Builds tests/fuzz_*.c with libFuzzer, AddressSanitizer and UBSan and runs each
# for some seconds from its corpus; new inputs land in BUILD/corpus/NAME, failing
# ones in BUILD/found/NAME-*. Longer runs: raise SECONDS, or use AFL++ by
# CC=afl-clang-fast cmake -DTENON_FUZZ=ON.
#
#   bash tests/fuzz.sh BUILD SECONDS
set -u
cd "$(dirname "$0")/.."
build=${1:?usage: fuzz.sh BUILD SECONDS}
seconds=${2:?usage: fuzz.sh BUILD SECONDS}
export STEP_LOGS=$build/logs
. tests/step.sh
step "configure for fuzzing" env CC="${FUZZ_CC:-clang}" cmake -G Ninja -S . -B "$build" \
  -DTENON_FUZZ=ON -DTENON_SANITIZE=address,undefined || exit 1
step "build the fuzzers" ninja -C "$build" -j "${JOBS:-2}" || exit 1

rc=0
for source in tests/fuzz_*.c; do
  name=$(basename "$source" .c)
  [ "$name" = fuzz_main ] && continue
  [ -e "$source" ] || { echo "no fuzz targets"; exit 0; }
  corpus=$build/corpus/${name#fuzz_}
  mkdir -p "$corpus" "$build/found"
  seeds=tests/corpus/${name#fuzz_}
  [ -d "$seeds" ] || seeds=''
  step "$name, $seconds s" "$build/tests/$name" "$corpus" $seeds -max_total_time="$seconds" \
    -timeout=10 -rss_limit_mb=4096 -print_final_stats=1 \
    -artifact_prefix="$build/found/$name-" || rc=1
  sed -n 's/^stat::number_of_executed_units: */        executions: /p' \
    "$STEP_LOGS/${name}__${seconds}_s.log"
done
exit $rc
