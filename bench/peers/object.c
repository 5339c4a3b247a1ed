/* object.c — a compiled object behind bench/object.h. Compiled with -include of the model's header,
 * whose prefix is "m". */
#include "bench/object.h"

static int64_t input_bytes(int k) {
  static const int64_t bytes[] = M_INPUT_BYTES;
  return bytes[k];
}
static int64_t output_bytes(int k) {
  static const int64_t bytes[] = M_OUTPUT_BYTES;
  return bytes[k];
}
static int64_t arena_bytes(int workers) { return (int64_t)M_ARENA_BYTES(workers); }
static int run(const void *const in[], void *const out[], void *state, void *arena, const rt_threads *threads) {
  int64_t dims[M_NUM_OUT_DIMS + 1];
  return m_run(in, out, 0, dims, 0, state, arena, (const m_threads *)(const void *)threads);
}

__attribute__((visibility("default"))) const bench_object bench_object_of_model = {
    M_NUM_INPUTS, M_NUM_OUTPUTS, M_STATE_BYTES, input_bytes, output_bytes, arena_bytes, run};
