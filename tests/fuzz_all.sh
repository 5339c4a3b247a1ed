#!/usr/bin/env bash
# Runs every fuzz target for a number of executions under AddressSanitizer and UBSan, one after
# another, and prints the executions of each and their sum. Stops at the first fault, whose input is
# left in BUILD/found.
#
#   bash tests/fuzz_all.sh BUILD [--total N] [--engine libfuzzer|plain] [--seed S] [TARGET...]
#
#   --total N   executions of all targets together (default 60000: some seconds each);
#               10000000 is what a release asks for, some hours
#   --engine    libfuzzer (clang; new inputs are kept in BUILD/corpus) or plain (tests/fuzz_main.c:
#               random mutations, any compiler). Default: libfuzzer where clang has it
#
# Each target gets a share that goes with its speed.
set -u
cd "$(dirname "$0")/.."
build=${1:?usage: fuzz_all.sh BUILD [--total N] [--engine E] [--seed S] [TARGET...]}
shift
total=60000 engine='' seed=1 only=''
while [ $# -gt 0 ]; do
  case $1 in
    --total) total=$2; shift ;;
    --engine) engine=$2; shift ;;
    --seed) seed=$2; shift ;;
    -*) echo "fuzz_all.sh: unknown option $1" >&2; exit 2 ;;
    *) only="$only $1" ;;
  esac
  shift
done
export STEP_LOGS=$build/logs
. tests/step.sh

if [ -z "$engine" ]; then
  engine=plain
  probe=$(mktemp -d)
  echo 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return d && n == 1; }' >"$probe/t.c"
  "${FUZZ_CC:-clang}" -fsanitize=fuzzer,address,undefined "$probe/t.c" -o "$probe/t" 2>/dev/null && engine=libfuzzer
  rm -rf "$probe"
fi
if [ "$engine" = libfuzzer ]; then
  step "configure for fuzzing" env CC="${FUZZ_CC:-clang}" cmake -G Ninja -S . -B "$build" \
    -DTENON_FUZZ=ON -DTENON_SANITIZE=address,undefined || exit 1
else
  step "configure for fuzzing" cmake -G Ninja -S . -B "$build" -DTENON_FUZZ=OFF -DTENON_SANITIZE=address,undefined || exit 1
fi

share() { # of 100, by speed
  case $1 in
    model) echo 2 ;;
    text) echo 18 ;;
    store) echo 5 ;;
    *) echo 25 ;;
  esac
}
targets=''
shares=0
for source in tests/fuzz_*.c; do
  name=$(basename "$source" .c)
  name=${name#fuzz_}
  [ "$name" = main ] && continue
  case "$only " in " ") ;; *" $name "*) ;; *) continue ;; esac
  targets="$targets $name"
  shares=$((shares + $(share "$name")))
done
[ -n "$targets" ] || { echo "no such target:$only" >&2; exit 2; }
step "build the fuzzers" ninja -C "$build" -j "${JOBS:-2}" $(printf 'fuzz_%s ' $targets) || exit 1

sum=0 rc=0
mkdir -p "$build/found"
for name in $targets; do
  runs=$((total * $(share "$name") / shares + 1))
  seeds=tests/corpus/$name
  log=$STEP_LOGS/fuzz_$name.log
  if [ "$engine" = libfuzzer ]; then
    mkdir -p "$build/corpus/$name"
    nice -n 19 "$build/tests/fuzz_$name" "$build/corpus/$name" "$seeds" -runs="$runs" -seed="$seed" -timeout=60 \
      -rss_limit_mb=4096 -print_final_stats=1 -artifact_prefix="$build/found/$name-" >"$log" 2>&1
    status=$?
    done=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1)
  else
    nice -n 19 "$build/tests/fuzz_$name" --random "$runs" --seed "$seed" --timeout 60 --save "$build/found" "$seeds" >"$log" 2>&1
    status=$?
    done=$(sed -n 's/^\([0-9]*\) files replayed, \([0-9]*\) random inputs$/\1 \2/p' "$log" | awk '{ print $1 + $2 }')
  fi
  printf '%-12s %11s executions\n' "$name" "${done:-0}"
  sum=$((sum + ${done:-0}))
  if [ $status -ne 0 ]; then
    rc=1
    echo "$name failed with status $status; the input is in $build/found:"
    tail -n 30 "$log"
    break
  fi
done
printf '%-12s %11s executions, %s\n' all "$sum" "$engine"
exit $rc
