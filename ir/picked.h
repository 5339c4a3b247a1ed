/* picked.h — loads of bytes of which a table tells, out of 16 that lie side by side, which ones are taken. */
#ifndef IR_PICKED_H
#define IR_PICKED_H
#include "ir/ir.h"

enum { IR_PICKED_GROUP = 16 }; /* what one vpshufb picks from */

/* x[.. at + index(table[.. c]) % 16], where x's element lies so many places behind that at `at`, and the constant
 * bytes of the table lie side by side along c: the table's load, and in *from that of x with 0 for it. Null:
 * `load` is no such load. */
ix ir_picked_load(tn_ctx *ctx, ix load, const ir_var *c, ix *from);
#endif
