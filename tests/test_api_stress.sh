#!/usr/bin/env bash
# 1,000 random graphs (TENON_STRESS overrides) through the C API in one process from four threads
# with contexts of their own: right, and memory flat. A few of them under valgrind: no leak.
set -eu
build=${TENON_BUILD:?}
graphs=${TENON_STRESS:-1000}
[ -z "${TENON_SANITIZE:-}" ] || graphs=${TENON_STRESS:-200}
"$build/tests/run_api_stress" "$graphs" 4
if [ -z "${TENON_SANITIZE:-}" ] && command -v valgrind >/dev/null; then
  valgrind -q --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite --error-exitcode=9 \
    "$build/tests/run_api_stress" 4 2 500
fi
