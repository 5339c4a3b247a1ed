/* int8.c — runs a compiled graph m on bytes made here, prints all results: tests/test_int8_arm.sh. */
#include "m.h"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { IN = 24 * 9 * 11 };

int main(void) {
  static uint8_t x[IN], q[64 * 9 * 11];
  static int32_t y[40 * 9 * 11];
  uint32_t state = 12345;
  for (int i = 0; i < IN; i++) {
    state = state * 1664525u + 1013904223u;
    x[i] = state >> 24;
  }
  void *arena = aligned_alloc(M_ALIGN, (M_ARENA_BYTES(1) + M_ALIGN) / M_ALIGN * M_ALIGN);
  const void *in[] = {x};
  void *out[] = {y, q};
  if (!arena || m_run(in, out, 0, 0, 0, 0, arena, 0)) return 1;
  for (int i = 0; i < 40 * 9 * 11; i++) printf("%d\n", y[i]);
  for (int i = 0; i < 40 * 9 * 11; i++) printf("q %d\n", q[i]);
  free(arena);
  return 0;
}
