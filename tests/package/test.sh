#!/usr/bin/env bash
# Installs a build into a folder, moves the tree elsewhere, and builds and runs an
# outside program against it by pkg-config and by find_package(Tenon).
set -eu
source=${TENON_SOURCE:?} build=${TENON_BUILD:?} cc=${CC:-cc}
here=$source/tests/package
if [ -n "${TENON_SANITIZE:-}" ]; then
  echo "skipped: an outside program would need the sanitizers too"
  exit 77
fi
command -v pkg-config >/dev/null || { echo "skipped: no pkg-config"; exit 77; }
work=$(mktemp -d "${TMPDIR:-/tmp}/tenon-package.XXXXXX")
trap 'rm -rf "$work"' EXIT

cmake --install "$build" --prefix "$work/first" >"$work/install.log"
mkdir "$work/elsewhere"
mv "$work/first" "$work/elsewhere/tenon"
tree=$work/elsewhere/tenon
if grep -rIl -e "$work/first" -e "$build" -e "$source" "$tree"; then
  echo "the files above name the folder of the build or of the first installation"
  exit 1
fi

# The header stands alone, in C99 and in C++.
echo '#include <tenon.h>' >"$work/h.c"
"$cc" -std=c99 -pedantic -Wall -Wextra -Werror -I"$tree/include" -fsyntax-only "$work/h.c"
if command -v c++ >/dev/null; then
  c++ -x c++ -std=c++11 -pedantic -Wall -Wextra -Werror -I"$tree/include" -fsyntax-only "$work/h.c"
fi

pc=$(dirname "$(find "$tree" -name tenon.pc)")
lib=$(dirname "$(find "$tree" -name libtenon.a)")
export PKG_CONFIG_PATH=$pc LD_LIBRARY_PATH=$lib
[ "$(pkg-config --modversion tenon)" != "" ]
"$cc" "$here/app.c" $(pkg-config --cflags --libs tenon) -o "$work/app-pc"
"$work/app-pc"
if [ -e "$lib/libtenon.so" ]; then
  # Only tn_ names leave the shared library; the archive still links by --static.
  if nm -D --defined-only "$lib/libtenon.so" | awk '{print $3}' | grep -v '^tn_'; then
    echo "libtenon.so exports the names above"
    exit 1
  fi
  libs=$(pkg-config --libs --static tenon)
  "$cc" "$here/app.c" $(pkg-config --cflags tenon) ${libs/-ltenon/-l:libtenon.a} -o "$work/app-static"
  "$work/app-static"
fi
unset PKG_CONFIG_PATH LD_LIBRARY_PATH

cmake -G Ninja -S "$here" -B "$work/build" -DCMAKE_PREFIX_PATH="$tree" >"$work/cmake.log" 2>&1 ||
  { cat "$work/cmake.log"; exit 1; }
cmake --build "$work/build" >"$work/cmake.log" 2>&1 || { cat "$work/cmake.log"; exit 1; }
"$work/build/app"
[ ! -e "$work/build/app_shared" ] || "$work/build/app_shared"

if [ -x "$tree/bin/tenon" ]; then
  "$tree/bin/tenon" --help >/dev/null
fi
echo "package: ok"
