/* Fuzzes the npy reader. */
#include "frontend/npy.h"
#include "tests/fuzz_limit.h"

typedef struct input {
  const uint8_t *data;
  size_t n;
} input;

static void target(tn_ctx *ctx, void *arg) {
  input *in = arg;
  fe_array a = fe_npy_parse(ctx, in->data, in->n, "fuzz.npy", in->n & 1 ? FE_NPY_U2_IS_BF16 : 0);
  ir_assert(ctx, a.bytes == (size_t)a.count * ir_dtype_bytes(a.dtype));
  fuzz_touch(a.dims, (size_t)a.rank * sizeof *a.dims);
  fuzz_touch(a.data, a.bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  input in = {data, n};
  fuzz_run(4 * n + (64 << 10), target, &in, 1u << TN_OK | 1u << TN_EINPUT | 1u << TN_EUNSUPPORTED);
  return 0;
}
