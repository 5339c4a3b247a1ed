/* heap.c — see heap.h. J. W. J. Williams, Algorithm 232: Heapsort, 1964; made bottom up as by R. W. Floyd, Algorithm 245, 1964. */
#include "lower/heap.h"

void lw_heap_sift(lw_build *b, const lw_heap *h, ix from) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *s = lw_b(b);
  ir_buf *at = ib_local(s, "at", TN_INDEX, from);
  ix size = ib_get(s, h->size);
  ib_while(s, ix_lt(ctx, ix_addi(ctx, ix_muli(ctx, ib_get(s, at), 2), 1), size));
  ix p = ib_let(s, "p", ib_get(s, at)), left = ib_let(s, "left", ix_addi(ctx, ix_muli(ctx, p, 2), 1));
  ix right = ib_let(s, "right", ix_min(ctx, ix_addi(ctx, left, 1), ix_addi(ctx, size, -1)));
  ix child = ib_let(s, "child", ix_select(ctx, h->above(b, h, right, left), right, left));
  ib_if(s, h->above(b, h, child, p));
  ix value = ib_let(s, "value", ib_load(s, h->value, &p)), where = ib_let(s, "where", ib_load(s, h->where, &p));
  ib_store(s, h->value, &p, ib_load(s, h->value, &child));
  ib_store(s, h->where, &p, ib_load(s, h->where, &child));
  ib_store(s, h->value, &child, value);
  ib_store(s, h->where, &child, where);
  ib_set(s, at, child);
  ib_else(s);
  ib_set(s, at, size); /* it is where it belongs */
  ib_end_n(s, 2);
}

void lw_heap_make(lw_build *b, const lw_heap *h) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *s = lw_b(b);
  ir_buf *root = ib_local(s, "root", TN_INDEX, ix_divi(ctx, ib_get(s, h->size), 2));
  ib_while(s, ix_lt(ctx, ix_index(ctx, 0), ib_get(s, root)));
  ib_set(s, root, ix_addi(ctx, ib_get(s, root), -1));
  lw_heap_sift(b, h, ib_get(s, root));
  ib_end(s);
}
