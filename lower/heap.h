/* heap.h — a heap in local memory of a kernel: an array of elements, each above its two children. */
#ifndef LW_HEAP_H
#define LW_HEAP_H
#include "lower/build.h"

typedef struct lw_heap {
  ir_buf *value, *where; /* arrays: what is compared, and where it comes from */
  ir_buf *size;          /* a local, index: how many there are */
  bool largest;          /* for `above` */
  ix (*above)(lw_build *b, const struct lw_heap *h, ix i, ix j); /* whether element i belongs above element j */
} lw_heap;

void lw_heap_sift(lw_build *b, const lw_heap *h, ix from); /* moves the element at `from` down to where it belongs */
void lw_heap_make(lw_build *b, const lw_heap *h);          /* of elements in any order */
#endif
