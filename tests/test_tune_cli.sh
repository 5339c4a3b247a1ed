#!/usr/bin/env bash
# tenon tune from end to end: results in the store, resuming, plans, interrupts, kills. Small kernels
# and few trials; times never decide whether it passes.
set -u
tenon=${TENON_BUILD:-$(cd "$(dirname "$0")/.." && pwd)/build}/tenon
[ -x "$tenon" ] || { echo "no $tenon"; exit 77; }
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
cd "$tmp" || exit 1
unset TENON_DB TENON_DB_SHARED
export XDG_CACHE_HOME=$tmp/cache
failed=0
fail() { echo "FAIL: $*"; failed=1; }
# field NAME: a number or true/false from the JSON object on standard input
field() { sed -n "s/.*\"$1\": \([a-z0-9.+-]*\).*/\1/p" | head -n 1; }
first() { grep -o "\"$1\": [a-z0-9.+-]*" | head -n 1 | sed 's/.*: //'; }

gemm=gemm:f32:24x40x64
"$tenon" tune $gemm --db a.db --trials 6 --jobs 1 --json >one.json 2>/dev/null || fail "tune"
[ "$(first trials <one.json)" = 6 ] || fail "six trials, not $(first trials <one.json)"
"$tenon" tune $gemm --db a.db --trials 6 --jobs 1 --json >two.json 2>/dev/null || fail "tune again"
[ "$(first trials <two.json)" = 0 ] || fail "a second run tries again: $(first trials <two.json)"
[ "$(grep -o '"schedule": "[^"]*' one.json)" = "$(grep -o '"schedule": "[^"]*' two.json)" ] || fail "a second run says something else"
"$tenon" tune $gemm --db a.db --trials 8 --jobs 1 --json >three.json 2>/dev/null
[ "$(first trials <three.json)" = 2 ] || fail "two more trials, not $(first trials <three.json)"
"$tenon" db ls --db a.db | grep -q $gemm || fail "the store does not list it"
"$tenon" db verify --db a.db >/dev/null || fail "the store is not sound"

# winners are used, and a plan repeats them byte for byte
"$tenon" bench $gemm --db a.db --seconds 0.01 >/dev/null || fail "bench with winners"
"$tenon" bench $gemm --db a.db --frozen --seconds 0.01 >/dev/null 2>&1 || fail "bench --frozen with winners"
"$tenon" bench gemm:f32:24x40x65 --db a.db --frozen --seconds 0.01 >/dev/null 2>&1
[ $? = 4 ] || fail "--frozen with an unknown kernel must fail"
"$tenon" tune $gemm --db a.db --trials 8 --jobs 1 --plan-out p.plan >/dev/null 2>&1 || fail "--plan-out"
for i in 1 2; do
  "$tenon" compile $gemm -o m$i.o --header m$i.h --prefix m --plan p.plan --frozen >/dev/null 2>&1 || fail "compile with a plan"
done
"$tenon" compile $gemm -o m4.o --header m4.h --prefix m --db a.db --plan-out q.plan >/dev/null 2>&1 || fail "compile --plan-out"
cmp -s p.plan q.plan || fail "tune and compile write different plans"
cmp -s m1.o m4.o || fail "store and plan give different objects"
cmp -s m1.o m2.o || fail "--plan --frozen gives different objects"
"$tenon" compile gemm:f32:24x40x65 -o m3.o --plan p.plan --frozen >/dev/null 2>&1 && fail "--frozen with a kernel that the plan lacks"
echo "kernel nonsense" >bad.plan
"$tenon" bench $gemm --plan bad.plan --seconds 0.01 >/dev/null 2>&1
[ $? = 4 ] || fail "a malformed plan is bad input"

"$tenon" report --db a.db -o page.html >/dev/null || fail "report"
grep -q "<svg" page.html && grep -q "$gemm" page.html || fail "the page shows nothing"
"$tenon" report --db none.db -o x.html >/dev/null 2>&1 && fail "report of a store that does not exist"

# threads: trials of their own, found by compiles for so many; one thread's stand in
"$tenon" tune $gemm --db t.db --trials 6 --jobs 1 --threads 2 --plan-out t.plan --json >t.json 2>/dev/null || fail "tune --threads 2"
[ "$(first trials <t.json)" = 6 ] || fail "six trials on two threads, not $(first trials <t.json)"
"$tenon" tune $gemm --db t.db --trials 6 --jobs 1 --threads 2 --json 2>/dev/null | grep -q '"trials": 0' || fail "a second run on two threads tries again"
"$tenon" db ls --db t.db | grep -q "2 threads" || fail "the store does not say how many threads: $("$tenon" db ls --db t.db)"
"$tenon" bench $gemm --db t.db --frozen --threads 2 --seconds 0.01 >/dev/null 2>&1 || fail "--frozen --threads 2 with winners of two"
"$tenon" bench $gemm --db t.db --frozen --threads 1 --seconds 0.01 >/dev/null 2>&1
[ $? = 4 ] || fail "--frozen --threads 1 must not take winners of two"
"$tenon" bench $gemm --db a.db --frozen --threads 2 --seconds 0.01 >/dev/null 2>&1 || fail "winners of one thread stand in for two"
"$tenon" compile $gemm -o t1.o --header t1.h --prefix t --db t.db --threads 2 --frozen --plan-out u.plan >/dev/null 2>&1 || fail "compile for two threads"
"$tenon" compile $gemm -o t2.o --header t2.h --prefix t --plan t.plan --frozen >/dev/null 2>&1 || fail "compile with a plan for two threads"
cmp -s t.plan u.plan && cmp -s t1.o t2.o || fail "plan and store give different objects for two threads"
"$tenon" db merge --db a.db t.db >/dev/null || fail "merge of stores of one and of two threads"
[ "$("$tenon" db ls --db a.db | grep -c $gemm)" -ge 2 ] || fail "a merge lost winners: $("$tenon" db ls --db a.db)"

# sizes of a batch: a kernel for each, winners by size, one plan for all
printf 'graph sized {\n  dim N\n  input x: f32[N, 24]\n  input w: f32[24, 40]\n  y = MatMul(x, w)\n  output y\n}\n' >sized.tn
"$tenon" tune sized.tn --dim N=1..6:1,4 --db s.db --trials 3 --jobs 1 --plan-out s.plan >sized.txt 2>/dev/null || fail "tuning several sizes"
grep -q "\.N1 " sized.txt && grep -q "\.N4 " sized.txt || fail "no kernel for each size: $(cat sized.txt)"
for i in 1 2; do
  "$tenon" compile sized.tn --dim N=1..6:1,4 -o s$i.o --header s$i.h --prefix s --plan s.plan --frozen >/dev/null 2>&1 || fail "compile several sizes with a plan"
done
"$tenon" compile sized.tn --dim N=1..6:1,4 -o s3.o --header s3.h --prefix s --db s.db --frozen >/dev/null 2>&1 || fail "compile several sizes frozen"
cmp -s s1.o s2.o && cmp -s s1.o s3.o || fail "plan and store give different objects of several sizes"
"$tenon" compile sized.tn --dim N=1..6:1,2 -o s4.o --db s.db --frozen >/dev/null 2>&1
[ $? = 4 ] || fail "--frozen with a size that was not tuned must fail"
"$tenon" bench sized.tn --dim N=1..6:1,4 --at N=5 --db s.db --seconds 0.01 >/dev/null || fail "bench at a size between"

# a list, interrupted and taken up again
printf '# shapes\n%s\n gemm:f32:16x16x16 \n\ngemm:f32:8x32x16:var\nconv:f32:n1c8h8w8k16r3s3p1\n' $gemm >list.txt
"$tenon" tune --list list.txt --db b.db --trials 200 --jobs 1 --json >list.json 2>/dev/null &
pid=$!
sleep 2
kill -INT $pid 2>/dev/null
wait $pid || fail "an interrupt is no error"
[ -s list.json ] || fail "an interrupted run reports"
"$tenon" db verify --db b.db >/dev/null || fail "the store after an interrupt"
"$tenon" tune --list list.txt --db b.db --trials 3 --jobs 1 --json >rest.json 2>/dev/null || fail "taking it up again"
[ "$(grep -o '"default_ns": null' rest.json | wc -l)" = 0 ] || fail "kernels are left without a time"

# a model's layouts: other forms of its kernels are tuned, whole runs decide, and compiles follow
cat >net.tn <<'END'
graph net {
  input x: f32[1, 16, 8, 8]
  const first: f32[] = 0.0
  const end: f32[] = 2304.0
  const step: f32[] = 1.0
  const shape: i64[4] = [16, 16, 3, 3]
  r = Range(first, end, step)
  s = Sin(r)
  w = Reshape(s, shape)
  y = Conv(x, w) { pads = [1, 1, 1, 1] }
  output y
}
END
"$tenon" tune net.tn --db l.db --trials 3 --jobs 1 --layouts >layouts.txt 2>&1 || fail "tune --layouts: $(cat layouts.txt)"
grep -q "in NHWC" layouts.txt && grep -q "in NCHW " layouts.txt || fail "other layouts are not tuned"
[ "$("$tenon" db export --db l.db | grep -o '"layout N[A-Za-z]*' | sort | uniq -c | wc -l)" = 3 ] || fail "whole runs of three layouts are not kept"
# and whether the winners are a gain at all: the verdict is kept and told, and compiles follow it
grep -q "net.tn: whole runs .* -> " layouts.txt || fail "whole runs with and without winners are not told: $(cat layouts.txt)"
"$tenon" compile net.tn -o u0.o --header u0.h --prefix net --db none >/dev/null 2>&1 || fail "compile untuned"
whole=$("$tenon" tune net.tn --db l.db --trials 3 --jobs 1 --json 2>/dev/null | grep -o '"winners_kept": [a-z]*')
"$tenon" compile net.tn -o u1.o --header u1.h --prefix net --db l.db >/dev/null 2>&1 || fail "compile after the verdict"
case $whole in
  *true) ;;
  *false) cmp -s u0.o u1.o || fail "winners that are no gain are used" ;;
  *) fail "no verdict: $whole" ;;
esac
for l in NHWC NCHW; do
  "$tenon" compile net.tn -o l$l.o --header l$l.h --prefix net --db l.db --layout $l --plan-out l$l.plan >/dev/null 2>&1 || fail "compile --layout $l"
  grep -q "^layout $l\$" l$l.plan || fail "the plan does not say $l"
  "$tenon" compile net.tn -o p$l.o --header p$l.h --prefix net --plan l$l.plan --frozen >/dev/null 2>&1 || fail "compile with the plan of $l"
  cmp -s l$l.o p$l.o || fail "a plan forgets the layout $l"
done

# groups may be cut: the kernels that come of it are tuned besides; a plan says which, and compiles follow it
cat >cut.tn <<'END'
graph net {
  input x: f32[16, 256]
  input w: f32[256, 64]
  input r: f32[16, 64]
  y = MatMul(x, w)
  a = Add(y, r)
  b = Tanh(a)
  output b
}
END
"$tenon" tune cut.tn --db c.db --trials 2 --jobs 1 --layouts >cuts.txt 2>&1 || fail "tune --layouts of cuts: $(cat cuts.txt)"
grep -q ", cut " cuts.txt || fail "no kernels of cuts are tuned: $(cat cuts.txt)"
"$tenon" db export --db c.db | grep -q '"cut\\n' || fail "whether groups are cut is not kept"
group=$("$tenon" explain cut.tn --db none | sed -n 's/^  group \([0-9a-f]*\) may be cut behind MatMul.*/\1/p')
[ ${#group} = 16 ] || fail "explain names no group: $group"
{ echo "# tenon plan 1"; echo "cut $group"; } >cut0.plan
"$tenon" compile cut.tn -o c0.o --header c0.h --prefix net --plan cut0.plan --plan-out cut1.plan >/dev/null 2>&1 || fail "compile with a cut"
[ "$(grep -c '^kernel' cut1.plan)" = 2 ] && grep -q "^cut $group\$" cut1.plan || fail "a plan forgets the cut"
"$tenon" compile cut.tn -o c1.o --header c1.h --prefix net --plan cut1.plan --frozen >/dev/null 2>&1 || fail "compile --frozen with a cut"
cmp -s c0.o c1.o || fail "other bytes with the plan of a cut"
"$tenon" run cut.tn --db none --output-dir whole >/dev/null 2>&1 && "$tenon" run cut.tn --plan cut1.plan --output-dir parts >/dev/null 2>&1 || fail "run cut"
cmp -s whole/b.npy parts/b.npy || fail "a cut changes results"
{ echo "# tenon plan 1"; echo "cut 12"; } >bad.plan
"$tenon" explain cut.tn --plan bad.plan >bad.txt 2>&1 && fail "a plan with half a hash is taken"
grep -q "16 hexadecimal digits of a group" bad.txt || fail "the message: $(cat bad.txt)"

# killed at some moment: what was committed stays and is not tried again
for ms in 150 400 700; do
  "$tenon" tune $gemm gemm:f32:16x16x16 --db k.db --trials 60 --jobs 1 >/dev/null 2>&1 &
  pid=$!
  sleep 0.$ms
  kill -KILL $pid 2>/dev/null
  wait $pid 2>/dev/null
done
"$tenon" tune $gemm --db k.db --trials 12 --jobs 1 --json >after.json 2>/dev/null || fail "tune after kills"
"$tenon" db verify --db k.db >/dev/null || fail "the store after kills"

# budgets end; without a usable store it works and says so
start=$(date +%s)
"$tenon" tune gemm:f32:64x64x64 --db none --budget 1s --jobs 1 --json >none.json 2>/dev/null || fail "tune without a store"
[ $(($(date +%s) - start)) -le 10 ] || fail "a second of budget took more than ten"
for budget in 0.05s 0.4s; do # too short for a round, perhaps for the default
  "$tenon" tune gemm:f32:64x64x64 --db tiny.db --budget $budget --jobs 1 --json >tiny.json 2>/dev/null || fail "tune within $budget"
done
"$tenon" db verify --db tiny.db >/dev/null || fail "the store after short budgets"
"$tenon" tune $gemm --db /proc/nowhere/x.db --trials 2 --jobs 1 --json >ro.json 2>ro.err || fail "tune with a store that cannot be made"
grep -q . ro.err || fail "no warning about the store"

"$tenon" tune >/dev/null 2>&1
[ $? = 2 ] || fail "tune needs an argument"
"$tenon" tune gemm:f32:1x2 >/dev/null 2>&1
[ $? = 2 ] || fail "tune of a malformed kernel is bad usage"
"$tenon" tune nowhere.onnx >/dev/null 2>&1
[ $? = 5 ] || fail "tune of a missing file"
[ $failed = 0 ] && echo "tune: passed"
exit $failed
