/* plan.c — offsets in the arena.
 *
 * Greedy by size (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net
 * Inference", 2020): buffers from large to small, each at the lowest offset where it
 * overlaps no placed buffer that is alive at the same time. */
#include "lower/lower.h"
#include <stdlib.h>

static int by_size(const void *a, const void *b) {
  const lw_lifetime *x = *(lw_lifetime *const *)a, *y = *(lw_lifetime *const *)b;
  if (x->bytes != y->bytes) return x->bytes > y->bytes ? -1 : 1;
  return x->first != y->first ? (x->first < y->first ? -1 : 1) : x < y ? -1 : x > y;
}

int64_t lw_plan_memory(tn_ctx *ctx, int n, lw_lifetime *buffers, int64_t *peak) {
  lw_lifetime **order = IR_NEW_ARRAY(ctx, lw_lifetime *, n), **placed = IR_NEW_ARRAY(ctx, lw_lifetime *, n);
  int last = 0, nplaced = 0;
  for (int i = 0; i < n; i++) {
    buffers[i].bytes = (buffers[i].bytes + 63) & ~(int64_t)63;
    order[i] = &buffers[i];
    if (buffers[i].last > last) last = buffers[i].last;
  }
  if (peak) {
    int64_t *alive = IR_NEW_ARRAY(ctx, int64_t, last + 2), now = 0;
    *peak = 0;
    for (int i = 0; i < n; i++) alive[buffers[i].first] += buffers[i].bytes, alive[buffers[i].last + 1] -= buffers[i].bytes;
    for (int t = 0; t <= last; t++) {
      now += alive[t];
      if (now > *peak) *peak = now;
    }
  }
  qsort(order, (size_t)n, sizeof *order, by_size);
  int64_t total = 0;
  for (int i = 0; i < n; i++) {
    lw_lifetime *b = order[i];
    int64_t at = 0;
    for (int p = 0; p < nplaced; p++) { /* placed is kept in order of offset */
      lw_lifetime *q = placed[p];
      if (q->last < b->first || b->last < q->first || q->offset + q->bytes <= at) continue;
      if (q->offset >= at + b->bytes) break;
      at = q->offset + q->bytes;
    }
    b->offset = at;
    int p = nplaced++;
    for (; p > 0 && placed[p - 1]->offset > at; p--) placed[p] = placed[p - 1];
    placed[p] = b;
    if (at + b->bytes > total) total = at + b->bytes;
  }
  return total;
}
