/* picked.h — loads of bytes of which a table tells, out of 16 that lie side by side, which ones are taken. */
#ifndef IR_PICKED_H
#define IR_PICKED_H
#include "ir/ir.h"

enum {
  IR_PICKED_GROUP = 16, /* what one vpshufb picks from */
  IR_PICKED_STEP = 4,   /* what it picks for one lane */
  IR_PICKED_LANES = 8,  /* each by a table of its own */
};

/* x[.. at + index(table[.. c]) % 16], where x's element lies so many places behind that at `at`, and the constant
 * bytes of the table lie side by side along c: the table's load, and in *from that of x with 0 for it. Null:
 * `load` is no such load. */
ix ir_picked_load(tn_ctx *ctx, ix load, const ir_var *c, ix *from);

/* One step of a sum along d from 0 to n: four picked bytes, or eight of the same group, which a table of groups names
 * (u16; lower/picked.c gives eights one entry). x[h], table[h]: ir_picked_load's of the h-th four, with i (0 .. 3) for
 * d - 4 h; *from: the same for all. False: `load` is no such step. */
bool ir_picked_step(tn_ctx *ctx, ix load, const ir_var *d, int64_t n, const ir_var *i, ix x[2], ix table[2], ix *from);

/* The table of groups that `from` depends on; null: none. */
const ir_buf *ir_picked_groups(tn_ctx *ctx, ix from);
#endif
