/* compose.h — the nodes that composite ops are made of, inferred as they are made.
 *
 * Every function puts nodes in place of `n`, the node under expand(), and returns the value
 * of the last one. Extents that become numbers (reshapes) must be known. */
#ifndef LW_COMPOSE_H
#define LW_COMPOSE_H
#include "lower/ops_util.h"

static inline ir_value *lw_op1(ir_graph *g, ir_node *n, const char *op, ir_value *a) { return lw_node(g, n, op, 1, &a); }
static inline ir_value *lw_op2(ir_graph *g, ir_node *n, const char *op, ir_value *a, ir_value *b) {
  return lw_node(g, n, op, 2, (ir_value *[]){a, b});
}
static inline ir_value *lw_op3(ir_graph *g, ir_node *n, const char *op, ir_value *a, ir_value *b, ir_value *c) {
  return lw_node(g, n, op, 3, (ir_value *[]){a, b, c});
}
/* One input and an attribute; softmaxes, reductions to one axis and the like. */
ir_value *lw_op1_int(ir_graph *g, ir_node *n, const char *op, ir_value *a, const char *attr, int64_t v);
ir_value *lw_op2_int(ir_graph *g, ir_node *n, const char *op, ir_value *a, ir_value *b, const char *attr, int64_t v);

/* A rank-0 constant of the dtype of `like`. */
ir_value *lw_number(ir_graph *g, const ir_value *like, double v);
/* v itself when it has that dtype already. */
ir_value *lw_cast_node(ir_graph *g, ir_node *n, ir_value *v, tn_dtype t);
/* The same elements in another shape (v itself when it has it). */
ir_value *lw_reshape(ir_graph *g, ir_node *n, ir_value *v, int rank, const int64_t *dims);
ir_value *lw_transpose(ir_graph *g, ir_node *n, ir_value *v, const int64_t *perm); /* v->rank entries */
/* Elements [from, to) along an axis. */
ir_value *lw_slice(ir_graph *g, ir_node *n, ir_value *v, int axis, int64_t from, int64_t to);
ir_value *lw_concat(ir_graph *g, ir_node *n, int axis, int count, ir_value *const *v);
/* The sum or mean ("ReduceSum", "ReduceMean", ..) over all axes, rank 0. */
ir_value *lw_reduce_all(ir_graph *g, ir_node *n, const char *op, ir_value *v);
/* What a node `op` (ONNX) with these operands and attributes would give as its only output:
 * dtype and shape. For the rules of composites; errors name n. */
ir_value lw_would_give(tn_ctx *ctx, const ir_node *n, const char *op, int nin, ir_value *const *in, int nattrs, ir_attr *attrs);
#endif
