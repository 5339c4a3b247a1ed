#!/usr/bin/env bash
# A program's dump is edited by hand and fed back: every tile size of every kernel in turn becomes
# another one. The program then runs with the same result, or is refused with a reason.
set -u
here=$(cd "$(dirname "$0")" && pwd)
build=${TENON_BUILD:-$(dirname "$here")/build}
tenon=$build/tenon
unset TENON_DB_SHARED TN_DUMP
export TENON_DB=none
work=$(mktemp -d "${TMPDIR:-/tmp}/tenon-edit.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failed=0 ran=0 refused=0

bad() {
  failed=$((failed + 1))
  echo "FAILED: $*"
  sed 's/^/  err: /' err | head -n 5
}
try() { # NAME: edited.tn must run and give the results of the model, or be refused
  rm -rf result
  "$tenon" run edited.tn --data "$model" --dim N=2 --input x=inputs/x.npy --cpu x86-64-v2 --output-dir result >/dev/null 2>err
  case $? in
    0)
      ran=$((ran + 1))
      cmp -s expected/y.npy result/y.npy || bad "$1: another result"
      ;;
    4)
      refused=$((refused + 1))
      grep -q 'edited.tn' err || bad "$1: the message does not name the file"
      ;;
    *) bad "$1: neither run nor refused" ;;
  esac
}

model=$here/corpus/model/small_cnn.onnx
TN_DUMP=after:program "$tenon" run "$model" --dim N=2 --cpu x86-64-v2 --output-dir expected --save-inputs inputs 2>dump >/dev/null || exit 1
sed -n '/^# program/,$p' dump >program.tn
cp program.tn edited.tn
try "the program as it is"
[ $ran -eq 1 ] || { echo "the dump does not run"; exit 1; }

lines=$(grep -n '^ *split [^ ]* [0-9]* ->' program.tn | cut -d: -f1)
for line in $lines; do
  size=$(sed -n "${line}p" program.tn | awk '{print $3}')
  for other in 1 2 3 $((size * 2)); do
    [ "$other" -eq "$size" ] && continue
    sed "${line}s/\( *split [^ ]*\) $size ->/\1 $other ->/" program.tn >edited.tn
    cmp -s program.tn edited.tn && bad "line $line was not edited"
    try "line $line: $size becomes $other"
  done
done
# a step that cannot be, and one that is no step
line=${lines%%$'\n'*}
sed "${line}s/split [^ ]*/split nowhere/" program.tn >edited.tn
try "a loop that is not there"
sed "${line}s/split/spilt/" program.tn >edited.tn
try "a step that is not there"
[ $refused -ge 2 ] || { echo "FAILED: wrong steps were not refused"; failed=$((failed + 1)); }

echo "$ran edited programs ran, $refused were refused, $failed failed"
[ $failed -eq 0 ] && [ $ran -ge 20 ]
