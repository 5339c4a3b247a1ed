# Sourced by scripts: `step "what" command...` runs a command quietly and prints
# one line with the time it took; when it fails, also the end of what it said.
# Logs go to $STEP_LOGS (default: a temporary folder).

step() {
  local what=$1 log start rc=0
  shift
  STEP_LOGS=${STEP_LOGS:-$(mktemp -d "${TMPDIR:-/tmp}/tenon-log.XXXXXX")}
  mkdir -p "$STEP_LOGS"
  log=$STEP_LOGS/$(printf '%s' "$what" | tr -c 'A-Za-z0-9.\n' '_').log
  start=$(date +%s)
  [ -t 1 ] && printf '   ...  %s' "$what"
  "$@" >"$log" 2>&1 </dev/null || rc=$?
  [ -t 1 ] && printf '\r'
  printf '%4d s  %s\n' $(($(date +%s) - start)) "$what"
  if [ $rc -ne 0 ]; then
    tail -n 60 "$log"
    printf 'failed (%d): %s; the whole log is %s\n' $rc "$what" "$log"
  fi
  return $rc
}
