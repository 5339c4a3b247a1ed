#!/usr/bin/env bash
# A sweep over a list of 52 small kernels: interrupted twice and resumed, split over two stores that are
# merged, and tuned by several processes (where Tenon is built with MPI), it ends with the rows of a sweep
# that nobody disturbed: so many schedules of each kernel. (Which ones depends on times, and on what was
# good for the kernels before.)
set -u
tenon=${TENON_BUILD:-$(cd "$(dirname "$0")/.." && pwd)/build}/tenon
[ -x "$tenon" ] || { echo "no $tenon"; exit 77; }
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
cd "$tmp" || exit 1
unset TENON_DB TENON_DB_SHARED
failed=0
fail() { echo "FAIL: $*"; failed=1; }
for m in 1 2 3 4; do for n in 8 12 16 24 32; do for k in 4 7; do echo "gemm:f32:${m}x${n}x${k}"; done; done; done >list
for c in 3 4 8; do for k in 8 16; do for h in 4 5; do echo "conv:f32:n1c${c}h${h}w${h}k${k}r1s1"; done; done; done >>list
[ "$(wc -l <list)" = 52 ] || fail "52 kernels"

# pairs STORE: kernels and schedules that were tried; rows STORE: how many of each kernel
pairs() { "$tenon" db export --db "$1" | sed -n 's/^{"table":"trial".*"task":"\([0-9a-f]*\)","config":"\([0-9a-f]*\)".*"stage":[0-8],.*/\1 \2/p' | sort -u; }
rows() { pairs "$1" | cut -d' ' -f1 | uniq -c; }
tried() { [ -e "$1" ] && pairs "$1" | wc -l || echo 0; }
tune() { "$tenon" tune --jobs 2 --trials 6 --json "$@" >/dev/null 2>&1; }

tune --list list --db whole.db || fail "the sweep"
rows whole.db >whole
[ "$(grep -c '^ *6 ' whole)" = 52 ] || fail "not 6 schedules of each of 52 kernels: $(cat whole)"

for part in 40 150; do
  "$tenon" tune --jobs 2 --trials 6 --json --list list --db parts.db >/dev/null 2>&1 & # no function: the signal is for tenon
  pid=$!
  for i in $(seq 600); do
    [ "$(tried parts.db)" -ge $part ] && break
    kill -0 $pid 2>/dev/null || break
    sleep 0.1
  done
  kill -INT $pid 2>/dev/null
  wait $pid || fail "an interrupt is no error"
done
[ "$(tried parts.db)" -lt $((52 * 6)) ] || echo "(the sweep was over before its second interrupt)"
tune --list list --db parts.db || fail "resuming"
rows parts.db | cmp -s - whole || fail "interrupted twice and resumed: other rows"

head -26 list >first
tail -26 list >second
tune --list first --db one.db || fail "the first half"
tune --list second --db two.db || fail "the second half"
"$tenon" db merge one.db two.db --db merged.db >/dev/null || fail "merge"
rows merged.db | cmp -s - whole || fail "two stores merged: other rows"
"$tenon" db verify --db merged.db >/dev/null || fail "the merged store is not sound"
[ $failed = 0 ] && echo "sweep: passed"
exit $failed
