/* tpu_arena.c — memory on the chip while a kernel is compiled. See tpu_lower.h. */
#include "codegen/tpu_lower.h"
#include <string.h>

void tc_arena_init(tc_arena *a, int64_t base, int64_t bytes) {
  *a = (tc_arena){.n = 1, .middle = base + (bytes / 2 & ~(int64_t)63)};
  a->next = a->middle;
  a->at[0] = base;
  a->size[0] = bytes & ~(int64_t)63;
}

static void drop(tc_arena *a, int i) {
  a->n--;
  memmove(a->at + i, a->at + i + 1, (size_t)(a->n - i) * sizeof *a->at);
  memmove(a->size + i, a->size + i + 1, (size_t)(a->n - i) * sizeof *a->size);
}

static int64_t take(tc_arena *a, int i, int64_t skip, int64_t bytes) { /* from block i, `skip` bytes behind its start */
  int64_t at = a->at[i] + skip, rest = a->size[i] - skip - bytes;
  a->size[i] = skip;
  if (!skip) drop(a, i);
  if (rest) tc_arena_put(a, at + bytes, rest);
  return at;
}

int64_t tc_arena_get(tc_arena *a, int64_t bytes, bool rotate) {
  bytes = (bytes + 63) & ~(int64_t)63;
  if (!bytes) bytes = 64;
  /* what rotates goes on behind the last one, then around from the middle: values that come and go use the front */
  int64_t from[3] = {rotate ? a->next : 0, a->middle, 0};
  for (int pass = rotate ? 0 : 2; pass < 3; pass++)
    for (int i = 0; i < a->n; i++) {
      int64_t skip = a->at[i] < from[pass] ? from[pass] - a->at[i] : 0;
      if (a->size[i] < skip + bytes) continue;
      int64_t at = take(a, i, skip, bytes);
      if (rotate) a->next = at + bytes;
      return at;
    }
  return -1;
}

void tc_arena_put(tc_arena *a, int64_t at, int64_t bytes) {
  bytes = (bytes + 63) & ~(int64_t)63;
  if (!bytes) bytes = 64;
  int i = 0;
  while (i < a->n && a->at[i] < at) i++;
  bool low = i > 0 && a->at[i - 1] + a->size[i - 1] == at, high = i < a->n && at + bytes == a->at[i];
  if (low && high) {
    a->size[i - 1] += bytes + a->size[i];
    a->n--;
    memmove(a->at + i, a->at + i + 1, (size_t)(a->n - i) * sizeof *a->at);
    memmove(a->size + i, a->size + i + 1, (size_t)(a->n - i) * sizeof *a->size);
  } else if (low) a->size[i - 1] += bytes;
  else if (high) {
    a->at[i] = at;
    a->size[i] += bytes;
  } else if (a->n < TC_BLOCKS) { /* beyond: the block is lost until the chunk ends */
    memmove(a->at + i + 1, a->at + i, (size_t)(a->n - i) * sizeof *a->at);
    memmove(a->size + i + 1, a->size + i, (size_t)(a->n - i) * sizeof *a->size);
    a->at[i] = at;
    a->size[i] = bytes;
    a->n++;
  }
}
