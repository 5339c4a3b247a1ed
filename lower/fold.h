/* fold.h — nodes whose operands are known are computed by the interpreter. */
#ifndef LW_FOLD_H
#define LW_FOLD_H
#include "ir/ir.h"

/* Computes the node's outputs, which become known (value->data, owned by the arena).
 * False, and nothing done, when an operand is unknown, the op has no body of its own
 * (expand, control), or the work is above `max_elements` elements of output (shape
 * arithmetic is small; large constants are folded by compiled kernels instead).
 * The outputs must be inferred. */
bool lw_fold_node(tn_ctx *ctx, ir_node *n, int64_t max_elements);
/* As above without the limit: for tests and tools that evaluate one node. */
bool lw_eval_node(tn_ctx *ctx, ir_node *n);
#endif
