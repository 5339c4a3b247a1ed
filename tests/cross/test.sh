#!/bin/bash
# Random kernels for AArch64, compiled here, run by qemu-user, against the interpreter.
set -eu
. "$TENON_SOURCE/tests/cross/tools.sh"
"$TENON_BUILD/tests/run_cross" "$dir" aarch64 aarch64-unknown-linux-gnu "${TENON_CASES:-150}"
"$cc" -O1 -static "$TENON_SOURCE/tests/cross/main.c" "$dir/table.c" "$dir/kernels.o" -lm -o "$dir/cross"
"$qemu" "$dir/cross" "$dir/cases.bin"
echo "the kernels agree with the interpreter"
