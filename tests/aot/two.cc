// Two models in one C++ program, through their headers; each included twice.
#include "one.gen.h"
#include "one.gen.h"
#include "other.gen.h"
#include "sample_data.h"
#include <cstdlib>
#include <cstring>

int main() {
  static ONE_INPUT_0_TYPE x[ROWS * INNER];
  static float y1[ROWS * COLS], y2[ROWS * COLS], z[ROWS * COLS];
  int64_t top[ROWS], steps[3];
  sample_fill(x, ROWS * INNER, SEED_X);
  const void *in[ONE_NUM_INPUTS] = {x};
  void *out1[ONE_NUM_OUTPUTS] = {y1, z, top, steps}, *out2[OTHER_NUM_OUTPUTS] = {y2, z, top, steps};
  const char *names1[] = ONE_OUTPUT_NAMES;
  void *arena = std::aligned_alloc(ONE_ALIGN, (ONE_ARENA_BYTES(1) + ONE_ALIGN) / ONE_ALIGN * ONE_ALIGN);
  void *state = std::aligned_alloc(ONE_ALIGN, ONE_STATE_BYTES + ONE_ALIGN);
  std::memset(state, 0, ONE_STATE_BYTES);
  one_threads *serial1 = nullptr;
  const other_threads *serial2 = nullptr;
  int a = one_run(in, out1, nullptr, nullptr, nullptr, state, arena, serial1);
  int b = other_run(in, out2, nullptr, nullptr, nullptr, state, arena, serial2);
  bool differ = std::memcmp(y1, y2, sizeof y1) != 0; // their weights do
  std::free(arena), std::free(state);
  return a == ONE_OK && b == OTHER_OK && differ && steps[0] == 10 && std::strcmp(names1[0], "y") == 0 ? 0 : 1;
}
