# Sourced by tests for AArch64: $cc and $qemu, or the test is skipped; $dir, removed at the end.
cc=${AARCH64_CC:-aarch64-linux-gnu-gcc}
qemu=${AARCH64_QEMU:-qemu-aarch64}
command -v "$cc" >/dev/null && command -v "$qemu" >/dev/null || { echo "skipped: needs $cc and $qemu"; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
