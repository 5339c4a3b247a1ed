/* Fuzzes the safetensors reader. */
#include "frontend/safetensors.h"
#include "tests/fuzz_limit.h"

typedef struct input {
  const uint8_t *data;
  size_t n;
} input;

static void target(tn_ctx *ctx, void *arg) {
  input *in = arg;
  const fe_safetensors *s = fe_safetensors_parse(ctx, in->data, in->n, "fuzz.safetensors");
  for (int i = 0; i < 2 * s->n_meta; i++) fuzz_touch_str(s->meta[i]);
  size_t total = 0;
  for (int i = 0; i < s->n; i++) {
    const fe_array *a = &s->items[i];
    fuzz_touch_str(a->name);
    fuzz_touch_str(s->type_names[i]);
    fuzz_touch(a->dims, (size_t)a->rank * sizeof *a->dims);
    fuzz_touch(a->data, a->bytes);
    total += a->bytes;
    ir_assert(ctx, fe_safetensors_find(s, a->name) == a);
    ir_assert(ctx, i == 0 || strcmp(s->items[i - 1].name, a->name) < 0);
    ir_assert(ctx, a->dtype == TN_NONE || a->bytes == (size_t)a->count * ir_dtype_bytes(a->dtype));
  }
  ir_assert(ctx, total <= in->n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  input in = {data, n};
  fuzz_run(64 * n + (64 << 10), target, &in, 1u << TN_OK | 1u << TN_EINPUT);
  return 0;
}
