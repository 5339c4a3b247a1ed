#!/bin/bash
# The thread pool under ThreadSanitizer. (Criterion's own process handling does not survive it, hence a
# program of its own.)
set -eu
cc=${CC:-cc}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
echo 'int main(void) { return 0; }' > "$dir/probe.c"
if ! "$cc" -fsanitize=thread "$dir/probe.c" -o "$dir/probe" 2>/dev/null || ! "$dir/probe"; then
  echo "no working ThreadSanitizer"
  exit 77
fi
"$cc" -std=gnu17 -D_GNU_SOURCE -O1 -g -fsanitize=thread -I"$TENON_SOURCE" "$TENON_SOURCE/runtime/threads.c" \
  "$TENON_SOURCE/tests/aot/pool.c" -o "$dir/pool" -lpthread
"$dir/pool"
