/* compose.c — see compose.h. */
#include "lower/compose.h"

ir_value *lw_op1_int(ir_graph *g, ir_node *n, const char *op, ir_value *a, const char *attr, int64_t v) {
  return lw_op2_int(g, n, op, a, NULL, attr, v);
}
ir_value *lw_op2_int(ir_graph *g, ir_node *n, const char *op, ir_value *a, ir_value *b, const char *attr, int64_t v) {
  ir_node *m = lw_node_n(g, n, op, b ? 2 : 1, (ir_value *[]){a, b}, 1);
  ir_attr_int(m, attr, v);
  ir_infer(g->ctx, m);
  return m->out[0];
}

ir_value *lw_number(ir_graph *g, const ir_value *like, double v) { return ir_graph_scalar(g, NULL, like->dtype, v); }

ir_value *lw_cast_node(ir_graph *g, ir_node *n, ir_value *v, tn_dtype t) {
  return v->dtype == t ? v : lw_op1_int(g, n, "Cast", v, "to", lw_number_of_type(g->ctx, t));
}

ir_value *lw_reshape(ir_graph *g, ir_node *n, ir_value *v, int rank, const int64_t *dims) {
  bool same = rank == v->rank;
  for (int i = 0; i < rank && same; i++) same = ix_is_int(v->dims[i], dims[i]);
  if (same) return v;
  return lw_op2_int(g, n, "Reshape", v, ir_graph_ints(g, NULL, rank, dims), "allowzero", 1);
}

ir_value *lw_transpose(ir_graph *g, ir_node *n, ir_value *v, const int64_t *perm) {
  ir_node *m = lw_node_n(g, n, "Transpose", 1, &v, 1);
  ir_attr_ints(m, "perm", v->rank, perm);
  ir_infer(g->ctx, m);
  return m->out[0];
}

ir_value *lw_slice(ir_graph *g, ir_node *n, ir_value *v, int axis, int64_t from, int64_t to) {
  if (from == 0 && ix_is_int(v->dims[axis], to)) return v;
  int64_t a = axis;
  ir_value *in[4] = {v, ir_graph_ints(g, NULL, 1, &from), ir_graph_ints(g, NULL, 1, &to), ir_graph_ints(g, NULL, 1, &a)};
  return lw_node(g, n, "Slice", 4, in);
}

ir_value *lw_concat(ir_graph *g, ir_node *n, int axis, int count, ir_value *const *v) {
  if (count == 1) return v[0];
  ir_node *m = lw_node_n(g, n, "Concat", count, v, 1);
  ir_attr_int(m, "axis", axis);
  ir_infer(g->ctx, m);
  return m->out[0];
}

ir_value *lw_reduce_all(ir_graph *g, ir_node *n, const char *op, ir_value *v) { return lw_op1_int(g, n, op, v, "keepdims", 0); }

ir_value lw_would_give(tn_ctx *ctx, const ir_node *n, const char *op, int nin, ir_value *const *in, int nattrs, ir_attr *attrs) {
  ir_value out = {.name = n->name, .rank = -1}, *outs[1] = {&out};
  ir_node heart = {.op = ir_op_find("", op), .name = n->name, .where = n->where, .opset = 26, .nin = nin, .in = (ir_value **)(uintptr_t)in,
                   .nout = 1, .out = outs, .nattrs = nattrs, .attrs = attrs, .graph = n->graph};
  ir_infer(ctx, &heart);
  return out;
}
