/* ops_scatter.c — ops that write where data says. Rows may repeat an address, so the
 * writes run in order; the copy of the data before them does not depend on order. */
#include "lower/grad.h"
#include <string.h>

static ir_store_op reduction(tn_ctx *ctx, const ir_node *n) {
  static const struct {
    const char *name;
    ir_store_op op, of_bool;
  } table[] = {{"none", IR_SET, IR_SET}, {"add", IR_ADD, IR_OR}, {"mul", IR_MUL, IR_AND}, {"max", IR_MAX, IR_OR}, {"min", IR_MIN, IR_AND}};
  const char *name = ir_attr_get_string(n, "reduction", "none");
  for (int i = 0; i < IR_COUNT(table); i++)
    if (strcmp(name, table[i].name) == 0) return n->in[0]->dtype == TN_BOOL ? table[i].of_bool : table[i].op;
  lw_bad(ctx, n, "unknown reduction '%s'", name);
}

static void write(lw_build *b, ir_buf *y, const ix *at, ir_store_op op, ix value) {
  if (op == IR_SET) ib_store(lw_b(b), y, at, value);
  else ib_update(lw_b(b), y, at, op, value);
}

static void copy_data(lw_build *b, ir_node *n, ir_buf *y) {
  ix at[IR_MAX_RANK];
  lw_loops(b, NULL, n->in[0]->rank, n->in[0]->dims, at);
  ib_store(lw_b(b), y, at, lw_in(b, n, 0, at));
  ib_end_n(lw_b(b), n->in[0]->rank);
}

/* ---- ScatterElements, Scatter ---- */

static void scatter_elements_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  lw_need_integer(ctx, n, 1);
  lw_need_same_type(ctx, n, 0, 2);
  reduction(ctx, n);
  if (x->rank == 0) lw_bad(ctx, n, "a scalar has no axis to scatter to");
  int axis = ir_axis(ctx, n, ir_attr_get_int(n, "axis", 0), x->rank);
  lw_need_rank(ctx, n, 1, x->rank);
  lw_need_rank(ctx, n, 2, x->rank);
  for (int i = 0; i < x->rank; i++) {
    ix d = x->dims[i], k = n->in[1]->dims[i], u = n->in[2]->dims[i];
    if (ix_is_const(k) && ix_is_const(u) && k != u) lw_bad(ctx, n, "axis %d has %lld indices and %lld updates", i, (long long)k->u.i, (long long)u->u.i);
    if (i != axis && ix_is_const(k) && ix_is_const(d) && k->u.i > d->u.i) lw_bad(ctx, n, "axis %d has %lld indices for %lld elements", i, (long long)k->u.i, (long long)d->u.i);
    if (i == axis && ix_is_int(d, 0) && !ix_is_int(k, 0)) lw_bad(ctx, n, "axis %d is empty", i);
  }
  lw_set_like(n, 0, x->dtype, x);
}
static void scatter_elements_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_buf *y = lw_out_buf(b, n, 0);
  copy_data(b, n, y);
  int rank = n->in[0]->rank, axis = ir_axis(ctx, n, ir_attr_get_int(n, "axis", 0), rank);
  ix at[IR_MAX_RANK], to[IR_MAX_RANK];
  lw_loops(b, NULL, rank, n->in[1]->dims, at);
  for (int i = 0; i < rank; i++) to[i] = at[i];
  to[axis] = ib_let(lw_b(b), "to", lw_data_index(ctx, lw_in(b, n, 1, at), n->in[0]->dims[axis]));
  write(b, y, to, reduction(ctx, n), lw_in(b, n, 2, at));
  ib_end_n(lw_b(b), rank);
}

/* ---- ScatterND ---- */

static int scatter_nd_depth(tn_ctx *ctx, const ir_node *n) {
  if (n->in[0]->rank == 0 || n->in[1]->rank == 0) lw_bad(ctx, n, "data and indices need rank 1 or more");
  int64_t depth = ir_dim(ctx, n->in[1], -1);
  if (depth < 1 || depth > n->in[0]->rank) lw_bad(ctx, n, "rows of %lld indices for data of rank %d", (long long)depth, n->in[0]->rank);
  return (int)depth;
}
static void scatter_nd_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0], *at = n->in[1], *u = n->in[2];
  lw_need_integer(ctx, n, 1);
  lw_need_same_type(ctx, n, 0, 2);
  reduction(ctx, n);
  int depth = scatter_nd_depth(ctx, n), r = at->rank - 1;
  if (u->rank != r + x->rank - depth) lw_bad(ctx, n, "updates have rank %d, not %d", u->rank, r + x->rank - depth);
  for (int i = 0; i < u->rank; i++) {
    ix want = i < r ? at->dims[i] : x->dims[i - r + depth];
    if (ix_is_const(want) && ix_is_const(u->dims[i]) && want != u->dims[i])
      lw_bad(ctx, n, "updates have extent %lld at axis %d, not %lld", (long long)u->dims[i]->u.i, i, (long long)want->u.i);
  }
  bool any = true; /* some update to write */
  for (int i = 0; i < u->rank; i++) any &= !ix_is_int(u->dims[i], 0);
  for (int i = 0; i < depth && any; i++)
    if (ix_is_int(x->dims[i], 0)) lw_bad(ctx, n, "axis %d of the data is empty", i);
  lw_set_like(n, 0, x->dtype, x);
}
static void scatter_nd_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  const ir_value *x = n->in[0], *where = n->in[1], *u = n->in[2];
  ir_buf *y = lw_out_buf(b, n, 0);
  copy_data(b, n, y);
  int depth = scatter_nd_depth(ctx, n), r = where->rank - 1;
  ix at[IR_MAX_RANK], row[IR_MAX_RANK], to[IR_MAX_RANK];
  lw_loops(b, NULL, r, u->dims, at);
  for (int i = 0; i < r; i++) row[i] = at[i];
  for (int k = 0; k < depth; k++) {
    row[r] = ix_index(ctx, k);
    to[k] = ib_let(lw_b(b), "to", lw_data_index(ctx, lw_in(b, n, 1, row), x->dims[k]));
  }
  for (int i = r; i < u->rank; i++) {
    at[i] = ib_loop(lw_b(b), "j", u->dims[i]);
    to[i - r + depth] = at[i];
  }
  write(b, y, to, reduction(ctx, n), lw_in(b, n, 2, at));
  ib_end_n(lw_b(b), u->rank);
}

#define ROW(name, since, attrs, rule, grad) {name, "", IR_OP_KERNEL, since, 3, 3, 1, 1, attrs, rule##_infer, NULL, rule##_build, NULL, NULL, grad}

const ir_op lw_ops_scatter[] = {
    ROW("Scatter", 9, "axis:i", scatter_elements, lw_grad_scatter_elements),
    ROW("ScatterElements", 11, "axis:i reduction:s", scatter_elements, lw_grad_scatter_elements),
    ROW("ScatterND", 11, "reduction:s", scatter_nd, lw_grad_scatter_nd),
    {0}};
