/* digits_object.c — trains with the objects that `digits DATA NET object` wrote: no Tenon, no library but libc and libm. */
#include "../digits.h"
#include "net.h"
#include "step.h"
#include <string.h>

static void *memory(size_t bytes) { return aligned_alloc(64, (bytes + 127) / 64 * 64); }

int main(int argc, char **argv) {
  if (argc < 2 || !read_digits(argv[1])) return 2;
  static float x[BATCH][PIXELS];
  static int32_t t[BATCH];
  float loss;
  char *state = memory(STEP_STATE_BYTES);
  void *arena = memory(STEP_ARENA_BYTES(1));
  int code = step_init(state, NULL);
  for (int i = 0; i < EPOCHS * ntrain / BATCH && !code; i++) {
    draw_batch(i, x, t);
    code = step_run((const void *[]){x, t}, (void *[]){&loss}, NULL, NULL, NULL, state, arena, NULL);
    if (i % (ntrain / BATCH) == 0) printf("step %4d: loss %.6f %a\n", i, (double)loss, (double)loss);
  }
  /* the network for scores packs its weights from where the training left them */
  static const char *const kept[] = STEP_STATE_NAMES, *const wanted[] = NET_RAW_NAMES;
  static const size_t at[] = STEP_STATE_OFFSETS;
  const void *raw[NET_NUM_RAW] = {0};
  for (int i = 0; i < NET_NUM_RAW; i++)
    for (int k = 0; k < STEP_NUM_STATES; k++)
      if (strcmp(wanted[i], kept[k]) == 0) raw[i] = state + at[k];
  void *weights = memory(NET_PACK_BYTES), *more = memory(NET_ARENA_BYTES(1)), *y = memory(NET_OUTPUT_0_BYTES);
  if (!code) code = net_pack(raw, weights);
  if (!code) code = net_run((const void *[]){images[ntrain]}, (void *[]){y}, NULL, NULL, weights, NULL, more, NULL);
  if (!code) printf("accuracy %.4f\n", accuracy(y));
  free(state), free(arena), free(weights), free(more), free(y), free(images), free(labels);
  return code;
}
