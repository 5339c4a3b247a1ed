/* inplace.h — updates that are stored where their old contents are read. */
#ifndef LW_INPLACE_H
#define LW_INPLACE_H
#include "ir/ir.h"

/* The kernel with parameters `in` and `out` as one, in the place of `out`. Null when an element
 * could be read after it is stored. */
ir_kernel *lw_kernel_in_place(tn_ctx *ctx, const ir_kernel *k, int in, int out);
/* Before fusion: updates by values that lie in an input's or a state's memory become nodes. */
void lw_own_updates(tn_ctx *ctx, ir_graph *g);
#endif
