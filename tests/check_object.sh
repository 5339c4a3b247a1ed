#!/bin/bash
# Everything an object promises, on a real model:
#
#   tests/check_object.sh BUILD MODEL [options of tenon compile]
#
# only memory functions and libm undefined; one public symbol; no writable data; at most 1.5 MB without
# weights; the same bits for any number of
# workers, order of tasks, contents of the arena, and two threads at once; clean under the address and
# undefined-behaviour sanitizers.
set -eu
build=$1 model=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
cc=${CC:-cc}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "$model: $*" >&2; exit 1; }

"$build/tenon" compile "$model" -o "$dir/m.o" --header "$dir/m.h" --prefix m "$@" >"$dir/log" || { cat "$dir/log"; exit 1; }
cd "$dir"
bad=$(nm -u m.o | awk '{print $2}' | grep -v -x -E 'mem(cpy|set|move)|(a?(sin|cos|tan)h?|atan2|exp|exp2|expm1|log|log2|log10|log1p|pow|sqrt|cbrt|erf|erfc|floor|ceil|round|rint|nearbyint|trunc|fma|fmod|fabs|ldexp|fmin|fmax)f?' || true)
[ -z "$bad" ] || fail "needs $bad"
public=$(nm -g --defined-only m.o | awk '{print $3}' | sort | tr '\n' ' ')
[ "$public" = "m_run " ] || [ "$public" = "m_pack m_run " ] || fail "public symbols: $public"
! readelf -SW m.o | grep -q -E ' WAX? ' || fail "writable data"
weights=0x$(readelf -SW m.o | sed -n 's/.*\.l\?rodata\.m_weights *PROGBITS *[0-9a-f]* *[0-9a-f]* *\([0-9a-f]*\).*/\1/p')
[ "$weights" != 0x ] || weights=0
code=$(($(stat -c %s m.o) - weights))
[ $code -le 1500000 ] || fail "$code bytes without the weights"
"$cc" -std=gnu11 -O1 -Wall -Wextra -Werror -I. "$here/aot/any_model.c" m.o -o run -lm -lpthread
plain=$(./run m.weights)
"$cc" -std=gnu11 -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -I. "$here/aot/any_model.c" m.o -o clean -lm -lpthread
clean=$(./clean m.weights)
[ "${plain##* }" = "${clean##* }" ] || fail "other bits under the sanitizers"
echo "$(basename "$model"): $code bytes without weights; $plain"
