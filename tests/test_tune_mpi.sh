#!/usr/bin/env bash
# A sweep over processes: mpirun -n 2 leaves in one store what one process would; rank 0 alone writes it.
# Skipped where Tenon is built without MPI.
set -u
build=${TENON_BUILD:-$(cd "$(dirname "$0")/.." && pwd)/build}
tenon=$build/tenon
[ -x "$tenon" ] || { echo "no $tenon"; exit 77; }
grep -q '^TENON_MPI:BOOL=ON' "$build/CMakeCache.txt" 2>/dev/null || { echo "built without MPI (-DTENON_MPI=ON)"; exit 77; }
command -v mpirun >/dev/null || { echo "no mpirun"; exit 77; }
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
cd "$tmp" || exit 1
unset TENON_DB TENON_DB_SHARED
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_btl_vader_single_copy_mechanism=none
failed=0
fail() { echo "FAIL: $*"; failed=1; }
for n in 8 12 16 24 32; do echo "gemm:f32:2x${n}x4"; done >list
rows() { "$tenon" db export --db "$1" | sed -n 's/^{"table":"trial".*"task":"\([0-9a-f]*\)","config":"\([0-9a-f]*\)".*"stage":[0-8],.*/\1 \2/p' | sort -u | cut -d' ' -f1 | uniq -c; }
"$tenon" tune --list list --trials 5 --jobs 1 --db one.db >/dev/null 2>&1 || fail "one process"
mpirun -n 2 --oversubscribe "$tenon" tune --list list --trials 5 --jobs 1 --db two.db >out 2>&1 || fail "two processes: $(cat out)"
[ "$(grep -c '^gemm' out)" = 3 ] || fail "rank 0 alone answers, for its three kernels: $(cat out)"
rows one.db >a; rows two.db >b
[ -s a ] && cmp -s a b || fail "other rows: $(diff a b)"
[ -e two.db.rank1 ] && fail "the file of rank 1 is left"
"$tenon" db verify --db two.db >/dev/null || fail "the store is not sound"
mpirun -n 2 --oversubscribe "$tenon" tune --list list --trials 5 --jobs 1 --db two.db --json >again.json 2>/dev/null || fail "again"
grep -q '"trials": 0' again.json || fail "a second sweep tries again"
mpirun -n 3 --oversubscribe "$tenon" tune gemm:f32:2x8x4 --trials 5 --jobs 1 --db two.db >/dev/null 2>&1 || fail "more processes than kernels"
[ $failed = 0 ] && echo "mpi: passed"
exit $failed
