#!/usr/bin/env bash
# Installs what Tenon needs to build and test itself on Debian 12. Does nothing,
# quickly, where all is there. As root, or through sudo.
#
#   bash tests/setup.sh [--llvm "22 19"] [--fuzz]
#
#   --llvm LIST   every LLVM of the list; without it the newest that apt offers
#   --fuzz        clang with libFuzzer too
#
# TENON_SETUP=off skips it: then the tools must be there already.
set -u
cd "$(dirname "$0")/.."
. tests/step.sh

llvm=''
packages='gcc g++ libc6-dev make cmake ninja-build pkg-config libsqlite3-dev libcriterion-dev
  qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross python3 python3-venv ca-certificates'
while [ $# -gt 0 ]; do
  case $1 in
    --llvm) llvm=$2; shift ;;
    --fuzz) packages="$packages clang libclang-rt-14-dev" ;;
    *) echo "usage: setup.sh [--llvm LIST] [--fuzz]" >&2; exit 2 ;;
  esac
  shift
done
[ "${TENON_SETUP:-on}" = off ] && exit 0

others() {
  cat <<'END'
This script installs packages on Debian 12 and systems with the same package names.
Elsewhere install these by hand, then set TENON_SETUP=off:
  to build   a C17 compiler (gcc 12, clang 14 or newer), CMake 3.25, Ninja, pkg-config,
             LLVM 19 to 22 with its C headers (llvm-c/) and the shared libLLVM,
             SQLite 3 with its header
  to test    Criterion 2.4, a C++ compiler, Python 3 with venv, qemu-user (qemu-aarch64),
             a gcc and C library for aarch64-linux-gnu
  to fuzz    clang with libFuzzer
An LLVM in an unusual place: make CMAKE_ARGS=-DTENON_LLVM_CONFIG=/path/to/llvm-config
END
}

installed() { # true if all the packages named are installed
  local n
  n=$(dpkg-query -W -f='${db:Status-Status}\n' "$@" 2>/dev/null | grep -cx installed)
  [ "$n" -eq $# ]
}

if ! command -v apt-get >/dev/null 2>&1; then
  missing=''
  for tool in cc cmake ninja pkg-config; do
    command -v $tool >/dev/null 2>&1 || missing="$missing $tool"
  done
  [ -z "$missing" ] && exit 0
  echo "missing:$missing"
  others
  exit 1
fi

# What is wanted and not there.
missing=''
for p in $packages; do installed "$p" || missing="$missing $p"; done
want_llvm=''
if [ -n "$llvm" ]; then
  for v in $llvm; do installed llvm-$v-dev || want_llvm="$want_llvm llvm-$v-dev"; done
else
  found=''
  for v in 22 21 20 19; do installed llvm-$v-dev && found=$v && break; done
  [ -z "$found" ] && want_llvm=newest
fi
[ -z "$missing$want_llvm" ] && exit 0

root=''
if [ "$(id -u)" -ne 0 ]; then
  if command -v sudo >/dev/null 2>&1; then
    root='sudo'
  else
    echo "not root and no sudo; an administrator must install:$missing ${want_llvm/newest/llvm-22-dev}"
    exit 1
  fi
fi
apt() { # nobody answers questions here
  $root env DEBIAN_FRONTEND=noninteractive apt-get -q -y \
    -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 "$@"
}

step "package lists" apt update || exit 1
if [ "$want_llvm" = newest ]; then
  want_llvm=''
  for v in 22 21 20 19; do
    if apt-cache show llvm-$v-dev >/dev/null 2>&1; then
      want_llvm=llvm-$v-dev
      break
    fi
  done
  if [ -z "$want_llvm" ]; then
    echo "apt offers no LLVM 19 to 22"
    others
    exit 1
  fi
fi
step "install $(echo $missing $want_llvm)" apt install --no-install-recommends $missing $want_llvm || {
  others
  exit 1
}
