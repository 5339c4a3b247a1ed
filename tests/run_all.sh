#!/usr/bin/env bash
# Runs the tests of a build folder through ctest, shows what failing ones say, and
# closes with the line `N passed, N failed, N skipped`: each Criterion test counts
# for itself, each script and fuzz replay as one.
#
#   bash tests/run_all.sh BUILD [ctest options]
set -u
build=${1:?usage: run_all.sh BUILD [ctest options]}
shift
xml=$(cd "$build" && pwd)/check.xml
rm -f "$xml"
ctest --test-dir "$build" -j "${JOBS:-$(nproc)}" --no-tests=error --output-on-failure \
  --test-output-size-passed 65536 --test-output-size-failed 262144 \
  --output-junit "$xml" "$@" </dev/null 2>&1
rc=$?

# Without a report nothing ran: that is one failure.
[ -s "$xml" ] || { echo '0 passed, 1 failed, 0 skipped'; exit 1; }
awk '
  function close_case() {
    if (status == "") return
    if (status == "run") { if (tested > 0) passed += passing; else passed++ }
    else if (status == "notrun" && skip || status == "disabled") skipped++
    else {
      bad = tested > passing ? tested - passing : 1
      passed += passing
      failed += bad
    }
    status = ""
  }
  /<testcase / {
    close_case()
    status = $0; sub(/.* status="/, "", status); sub(/".*/, "", status)
    tested = passing = skip = 0
  }
  /<skipped message="SKIP_/ { skip = 1 }
  /Synthesis: Tested: / {
    line = $0; sub(/.*Tested: /, "", line); split(line, f, /[^0-9]+/)
    tested += f[1]; passing += f[2]
  }
  END {
    close_case()
    printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
  }' "$xml"
exit $rc
