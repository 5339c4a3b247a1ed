#!/usr/bin/env bash
# Models that are wrong: tenon compile ends with the right status and one line that names the file, the
# place and the reason, and leaves no file behind; so do failed writes.
set -u
here=$(cd "$(dirname "$0")" && pwd)
build=${TENON_BUILD:-$(dirname "$here")/build}
tenon=$build/tenon
unset TENON_DB_SHARED TN_DUMP
export TENON_DB=none
work=$(mktemp -d "${TMPDIR:-/tmp}/tenon-bad.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/in" "$work/out"
cd "$work" || exit 1
failed=0
checks=0

bad() {
  failed=$((failed + 1))
  echo "FAILED: $*"
  sed 's/^/  err: /' err | head -n 5
}
run() { # compiles $1, further options behind it; the status is left in rc
  local model=$1
  shift
  rm -rf out/* out/.[!.]*
  timeout 60 "$tenon" compile "$model" -o out/model.o "$@" >stdout 2>err
  rc=$?
  checks=$((checks + 1))
}
nothing_left() {
  [ -z "$(ls -A out)" ] || bad "$1 left $(ls -A out | tr '\n' ' ')behind"
}

"$build/tests/run_bad_models" in >table || exit 1
while IFS=$'\t' read -r name status where why; do
  run "in/$name.onnx"
  [ $rc -eq "$status" ] || bad "$name: status $rc, not $status"
  [ "$status" -eq 0 ] && continue
  nothing_left "$name"
  [ "$(grep -c '^tenon: error: ' err)" -eq 1 ] || bad "$name: not one error line"
  grep -qF "$name.onnx" err || bad "$name: the message does not name the file"
  grep -qF -- "$where" err || bad "$name: the message does not name $where"
  grep -qF -- "$why" err || bad "$name: the message lacks '$why'"
done <table

# ---- every 37th truncation, and bits flipped here and there: no crash, nothing left ----
seed=$here/corpus/model/small_cnn.onnx
size=$(wc -c <"$seed")
for ((n = 1; n < size; n += 37)); do
  head -c "$n" "$seed" >in/cut.onnx
  run in/cut.onnx --dim N=1
  [ $rc -eq 4 ] || bad "$n bytes of the model: status $rc"
  nothing_left "$n bytes"
  grep -qF cut.onnx err || bad "$n bytes: the message does not name the file"
done
for ((i = 1; i <= 60; i++)); do
  at=$((i * 7919 % size))
  cp "$seed" in/flip.onnx
  byte=$(tail -c +$((at + 1)) "$seed" | head -c 1 | od -An -tu1)
  printf "\\x$(printf %x $((byte ^ (1 << (i % 8)))))" | dd of=in/flip.onnx bs=1 seek="$at" conv=notrunc 2>/dev/null
  run in/flip.onnx --dim N=1
  case $rc in
    0) ;;
    2 | 3 | 4 | 5) nothing_left "flipped bit of byte $at" ;;
    *) bad "flipped bit of byte $at: status $rc" ;;
  esac
done

# ---- writing fails: no half of a file ----
# A limit of 8 blocks on the size of files, its signal ignored: writing says EFBIG.
rm -rf out/*
(
  trap '' XFSZ
  ulimit -f 8
  timeout 60 "$tenon" compile "$seed" --dim N=1 -o out/model.o
) >stdout 2>err
rc=$?
checks=$((checks + 1))
[ $rc -eq 5 ] || bad "no room for the object: status $rc"
nothing_left "an object without room"
run "$seed" --dim N=1 --header out/none/model.h
[ $rc -eq 5 ] || bad "no folder for the header: status $rc"
nothing_left "a header without a folder"
run "$seed" --dim N=1 --weights file --weights-file out/none/w
[ $rc -eq 5 ] || bad "no folder for the weights: status $rc"
nothing_left "weights without a folder"
mkdir in/folder.onnx
run in/folder.onnx
[ $rc -eq 4 ] || bad "a folder as the model: status $rc"
run in/nothing.onnx
[ $rc -eq 5 ] || bad "no such model: status $rc"

# ---- interrupted: the header goes to a pipe that nobody reads, so the object waits under its temporary name ----
rm -rf out/*
mkfifo out/h
"$tenon" compile "$seed" --dim N=1 -o out/model.o --header out/h >stdout 2>err &
pid=$!
for ((i = 0; i < 600; i++)); do
  [ -z "$(find out -name '*.tmp')" ] || break
  sleep 0.1
done
checks=$((checks + 1))
[ -n "$(find out -name '*.tmp')" ] || bad "no temporary to interrupt"
kill -TERM $pid
wait $pid 2>/dev/null
rc=$?
[ $rc -eq 143 ] || bad "interrupted: status $rc"
[ "$(ls -A out)" = h ] || bad "an interrupt left $(ls -A out | tr '\n' ' ')behind"

echo "$checks checks, $failed failed"
[ $failed -eq 0 ]
