# cli.sh — what tests of the command line tool share; sourced with the name of the scratch folder, which becomes the
# current one. `leading`, if set, comes before all arguments. Ends in done_checking.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=${TENON_BUILD:-$(dirname "$here")/build}
tenon=$build/tenon
[ -x "$tenon" ] || { echo "no $tenon"; exit 77; }
unset TENON_DB TENON_DB_SHARED TN_DUMP
export TENON_DB=none
work=$(mktemp -d "${TMPDIR:-/tmp}/tenon-$1.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
leading=
failed=0
checks=0

bad() {
  failed=$((failed + 1))
  echo "FAILED: $*"
  sed 's/^/  out: /' out | head -n 20
  sed 's/^/  err: /' err | head -n 20
}
# ok ARGS...: exit status 0. fails STATUS PART ARGS...: that status, one line with PART on standard error.
ok() {
  checks=$((checks + 1))
  "$tenon" $leading "$@" >out 2>err || bad "status $?: tenon $leading $*"
}
fails() {
  local want=$1 part=$2 rc
  shift 2
  checks=$((checks + 1))
  "$tenon" $leading "$@" >out 2>err
  rc=$?
  [ $rc -eq "$want" ] || bad "status $rc, not $want: tenon $leading $*"
  grep -qF -- "$part" err || bad "the message lacks '$part': tenon $leading $*"
  [ "$(grep -c '^tenon: error: ' err)" -eq 1 ] || bad "not one error line: tenon $leading $*"
}
has() { # PART [FILE]
  checks=$((checks + 1))
  grep -qF -- "$1" "${2:-out}" || bad "'$1' is missing in ${2:-out}"
}
done_checking() {
  echo "$checks checks, $failed failed"
  [ $failed -eq 0 ]
}
