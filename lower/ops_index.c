/* ops_index.c — ops that read where data says: the Gather family, OneHot, and those whose
 * size data decides (Compress, NonZero), by a run where the data is not known when compiling. */
#include "lower/extent.h"
#include "lower/grad.h"
#include "lower/positions.h"
#include "ir/interp.h"
#include <string.h>

/* Throws when some index would have to name an element of an empty axis. */
static void reject_empty(tn_ctx *ctx, const ir_node *n, int axis) {
  if (!ix_is_int(n->in[0]->dims[axis], 0)) return;
  for (int i = 0; i < n->in[1]->rank; i++)
    if (ix_is_int(n->in[1]->dims[i], 0)) return;
  lw_bad(ctx, n, "axis %d of '%s' is empty: there is nothing to gather", axis, n->in[0]->name);
}

/* ---- Gather ---- */

static void gather_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0], *at = n->in[1];
  lw_need_integer(ctx, n, 1);
  if (x->rank == 0) lw_bad(ctx, n, "a scalar has no axis to gather from");
  int axis = ir_axis(ctx, n, ir_attr_get_int(n, "axis", 0), x->rank), rank = 0;
  if (x->rank + at->rank - 1 > IR_MAX_RANK) lw_unsupported(ctx, n, "a result of rank %d", x->rank + at->rank - 1);
  reject_empty(ctx, n, axis);
  ix dims[IR_MAX_RANK];
  for (int i = 0; i < axis; i++) dims[rank++] = x->dims[i];
  for (int i = 0; i < at->rank; i++) dims[rank++] = at->dims[i];
  for (int i = axis + 1; i < x->rank; i++) dims[rank++] = x->dims[i];
  int64_t known, extent;
  if (ir_known_ints(ctx, at, &known, 1) == 1 && ix_const_value(x->dims[axis], &extent) && (known < -extent || known >= extent))
    lw_bad(ctx, n, "index %lld is outside axis %d of extent %lld", (long long)known, axis, (long long)extent);
  lw_set(n, 0, x->dtype, rank, dims);
}
static ix gather_value(lw_build *b, ir_node *n, int out, const ix *index) {
  (void)out;
  tn_ctx *ctx = lw_ctx(b);
  const ir_value *x = n->in[0], *where = n->in[1];
  int axis = ir_axis(ctx, n, ir_attr_get_int(n, "axis", 0), x->rank);
  ix at[IR_MAX_RANK];
  int64_t known;
  for (int i = 0; i < axis; i++) at[i] = index[i];
  for (int i = axis + 1; i < x->rank; i++) at[i] = index[i - 1 + where->rank];
  if (ir_known_ints(ctx, where, &known, 1) == 1) /* a fixed row: as Slice would read it */
    at[axis] = known < 0 ? ix_addi(ctx, x->dims[axis], known) : ix_index(ctx, known);
  else at[axis] = lw_data_index(ctx, lw_in(b, n, 1, index + axis), x->dims[axis]);
  return lw_in(b, n, 0, at);
}

/* ---- GatherElements ---- */

static void gather_elements_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  lw_need_integer(ctx, n, 1);
  lw_need_rank(ctx, n, 1, x->rank);
  if (x->rank == 0) lw_bad(ctx, n, "a scalar has no axis to gather from");
  int axis = ir_axis(ctx, n, ir_attr_get_int(n, "axis", 0), x->rank);
  reject_empty(ctx, n, axis);
  for (int i = 0; i < x->rank; i++) {
    ix have = n->in[1]->dims[i], most = x->dims[i];
    if (i != axis && ix_is_const(have) && ix_is_const(most) && have->u.i > most->u.i)
      lw_bad(ctx, n, "indices have extent %lld at axis %d, data only %lld", (long long)have->u.i, i, (long long)most->u.i);
  }
  lw_set_like(n, 0, x->dtype, n->in[1]);
}
static ix gather_elements_value(lw_build *b, ir_node *n, int out, const ix *index) {
  (void)out;
  const ir_value *x = n->in[0];
  int axis = ir_axis(lw_ctx(b), n, ir_attr_get_int(n, "axis", 0), x->rank);
  ix at[IR_MAX_RANK];
  for (int i = 0; i < x->rank; i++) at[i] = index[i];
  at[axis] = lw_data_index(lw_ctx(b), lw_in(b, n, 1, index), x->dims[axis]);
  return lw_in(b, n, 0, at);
}

/* ---- GatherND ---- */

/* Checks; returns the number of axes that a row of indices names. */
static int gather_nd_depth(tn_ctx *ctx, const ir_node *n, int batch) {
  const ir_value *x = n->in[0], *at = n->in[1];
  if (x->rank == 0 || at->rank == 0) lw_bad(ctx, n, "data and indices need rank 1 or more");
  if (batch < 0 || batch >= x->rank || batch >= at->rank) lw_bad(ctx, n, "batch_dims is %d for ranks %d and %d", batch, x->rank, at->rank);
  int64_t depth = ir_dim(ctx, at, -1);
  if (depth < 1 || depth > x->rank - batch) lw_bad(ctx, n, "rows of %lld indices for data of rank %d", (long long)depth, x->rank - batch);
  return (int)depth;
}
static int batch_dims(tn_ctx *ctx, const ir_node *n) {
  int64_t v = ir_attr_get_int(n, "batch_dims", 0);
  if (v < 0 || v > IR_MAX_RANK) lw_bad(ctx, n, "batch_dims is %lld", (long long)v);
  return (int)v;
}
static void gather_nd_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0], *at = n->in[1];
  lw_need_integer(ctx, n, 1);
  int batch = batch_dims(ctx, n), depth = gather_nd_depth(ctx, n, batch), rank = 0;
  if (at->rank - 1 + x->rank - batch - depth > IR_MAX_RANK) lw_unsupported(ctx, n, "a result of high rank");
  ix dims[IR_MAX_RANK];
  for (int i = 0; i < batch; i++)
    if (ix_is_const(at->dims[i]) && ix_is_const(x->dims[i]) && at->dims[i] != x->dims[i])
      lw_bad(ctx, n, "batch axis %d has extents %lld and %lld", i, (long long)x->dims[i]->u.i, (long long)at->dims[i]->u.i);
  for (int i = batch; i < batch + depth; i++) reject_empty(ctx, n, i);
  for (int i = 0; i < at->rank - 1; i++) dims[rank++] = at->dims[i];
  for (int i = batch + depth; i < x->rank; i++) dims[rank++] = x->dims[i];
  lw_set(n, 0, x->dtype, rank, dims);
}
static ix gather_nd_value(lw_build *b, ir_node *n, int out, const ix *index) {
  (void)out;
  tn_ctx *ctx = lw_ctx(b);
  const ir_value *x = n->in[0], *where = n->in[1];
  int batch = batch_dims(ctx, n), depth = gather_nd_depth(ctx, n, batch), r = where->rank - 1;
  ix at[IR_MAX_RANK], row[IR_MAX_RANK];
  for (int i = 0; i < r; i++) row[i] = index[i];
  for (int i = 0; i < batch; i++) at[i] = index[i];
  for (int k = 0; k < depth; k++) {
    row[r] = ix_index(ctx, k);
    at[batch + k] = lw_data_index(ctx, lw_in(b, n, 1, row), x->dims[batch + k]);
  }
  for (int i = batch + depth; i < x->rank; i++) at[i] = index[r + i - batch - depth];
  return lw_in(b, n, 0, at);
}

/* ---- OneHot ---- */

static void one_hot_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *at = n->in[0];
  int axis = ir_axis(ctx, n, ir_attr_get_int(n, "axis", -1), at->rank + 1);
  double depth;
  if (!ir_known_float(n->in[1], &depth)) lw_unsupported(ctx, n, "input '%s' (depth) must be known when compiling", n->in[1]->name);
  if (!(depth >= 0 && depth < 0x1p46)) lw_bad(ctx, n, "depth is %g", depth);
  if (n->in[2]->rank != 1 || (ix_is_const(n->in[2]->dims[0]) && !ix_is_int(n->in[2]->dims[0], 2))) lw_bad(ctx, n, "values must have 2 elements");
  if (at->rank + 1 > IR_MAX_RANK) lw_unsupported(ctx, n, "a result of rank %d", at->rank + 1);
  ix dims[IR_MAX_RANK];
  for (int i = 0; i < at->rank + 1; i++)
    dims[i] = i < axis ? at->dims[i] : i == axis ? ix_index(ctx, (int64_t)depth) : at->dims[i - 1];
  lw_set(n, 0, n->in[2]->dtype, at->rank + 1, dims);
}
static ix one_hot_value(lw_build *b, ir_node *n, int out, const ix *index) {
  tn_ctx *ctx = lw_ctx(b);
  const ir_value *y = n->out[out];
  int axis = ir_axis(ctx, n, ir_attr_get_int(n, "axis", -1), y->rank);
  ix at[IR_MAX_RANK], zero = ix_index(ctx, 0), depth = y->dims[axis];
  for (int i = 0; i < y->rank - 1; i++) at[i] = index[i < axis ? i : i + 1];
  ix hot = lw_in(b, n, 0, at);
  if (ir_is_float((tn_dtype)hot->dtype)) hot = ix_cast(ctx, TN_I64, hot);
  hot = ix_cast(ctx, TN_INDEX, hot);
  hot = ix_select(ctx, ix_lt(ctx, hot, zero), ix_add(ctx, hot, depth), hot); /* outside: equals no position */
  return ix_select(ctx, ix_eq(ctx, hot, index[axis]), lw_in(b, n, 2, (ix[]){ix_index(ctx, 1)}), lw_in(b, n, 2, (ix[]){zero}));
}

/* ---- Compress ---- */

/* Positions whose condition is true, among the first `extent`; *count: how many, or the most there can be. NULL: a run finds them. */
static int64_t *compress_positions(tn_ctx *ctx, const ir_node *n, int64_t extent, int64_t *count) {
  const ir_value *c = n->in[1];
  lw_need_rank(ctx, n, 1, 1);
  if (c->dtype != TN_BOOL) lw_bad(ctx, n, "the condition is %s, not bool", ir_dtype_name(c->dtype));
  int64_t have = ir_dim(ctx, c, 0), *list;
  if (have > extent) have = extent;
  *count = have;
  if (!c->data) return NULL;
  list = IR_NEW_ARRAY(ctx, int64_t, have + 1);
  *count = 0;
  for (int64_t i = 0; i < have; i++)
    if (((const uint8_t *)c->data)[i]) list[(*count)++] = i;
  return list;
}
static void compress_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  if (x->rank == 0) lw_bad(ctx, n, "the input is a scalar");
  bool flat = !lw_has_attr(n, "axis");
  int axis = flat ? 0 : ir_axis(ctx, n, ir_attr_get_int(n, "axis", 0), x->rank);
  int64_t count;
  compress_positions(ctx, n, flat ? ir_value_elements(ctx, x) : ir_dim(ctx, x, axis), &count);
  ix dims[IR_MAX_RANK];
  for (int i = 0; i < x->rank; i++) dims[i] = x->dims[i];
  dims[axis] = ix_index(ctx, count);
  lw_set(n, 0, x->dtype, flat ? 1 : x->rank, dims);
}
static void compress_expand(ir_graph *g, ir_node *n) {
  tn_ctx *ctx = g->ctx;
  ir_value *x = n->in[0];
  bool flat = !lw_has_attr(n, "axis");
  int axis = flat ? 0 : ir_axis(ctx, n, ir_attr_get_int(n, "axis", 0), x->rank);
  int64_t count, *at = compress_positions(ctx, n, flat ? ir_value_elements(ctx, x) : ir_dim(ctx, x, axis), &count);
  if (flat) x = lw_node(g, n, "Reshape", 2, (ir_value *[]){x, ir_graph_ints(g, NULL, 1, (int64_t[]){-1})});
  ir_value *length = NULL, *where = at ? ir_graph_ints(g, NULL, (int)count, at) : lw_positions(g, n, lw_slice(g, n, n->in[1], 0, 0, count), &length);
  ir_value *y = lw_op2_int(g, n, "Gather", x, where, "axis", axis);
  lw_replace(g, n, 0, length ? lw_sized(g, n, y, length, axis) : y);
}

/* ---- NonZero ---- */

static void non_zero_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  if (!x->data) {
    if (!x->rank) lw_unsupported(ctx, n, "'%s' is a scalar that is not known when compiling", x->name);
    lw_set(n, 0, TN_I64, 2, (ix[]){ix_index(ctx, x->rank), ix_index(ctx, ir_value_elements(ctx, x))});
    return;
  }
  int64_t total = ir_value_elements(ctx, x), count = 0, extent[IR_MAX_RANK];
  size_t size = ir_dtype_bytes(x->dtype);
  uint8_t *hit = ir_alloc(ctx, (size_t)total + 1);
  for (int64_t i = 0; i < total; i++) {
    ir_scalar s = ir_scalar_load(x->dtype, (const char *)x->data + (size_t)i * size);
    hit[i] = ir_is_float(x->dtype) ? s.f != 0 : s.i != 0;
    count += hit[i];
  }
  int rank = x->rank;
  for (int i = 0; i < rank; i++) extent[i] = ir_dim(ctx, x, i);
  int64_t *data = ir_alloc_array(ctx, (size_t)count * (size_t)rank + 1, sizeof *data), k = 0;
  for (int64_t i = 0; i < total; i++) {
    if (!hit[i]) continue;
    int64_t rest = i;
    for (int a = rank - 1; a >= 0; a--) data[a * count + k] = rest % extent[a], rest /= extent[a];
    k++;
  }
  lw_set_known(ctx, n, 0, TN_I64, 2, (int64_t[]){rank, count}, data);
}

/* Places in row-major order, taken apart into a row per axis. */
static void non_zero_expand(ir_graph *g, ir_node *n) {
  tn_ctx *ctx = g->ctx;
  const ir_value *x = n->in[0];
  if (n->out[0]->data) {
    lw_expand_known(g, n);
    return;
  }
  ir_value *length, *at = lw_positions(g, n, n->in[0], &length), *rows[IR_MAX_RANK];
  int64_t inside = 1, total = ir_value_elements(ctx, x);
  for (int a = x->rank; a-- > 0;) {
    int64_t d = ir_dim(ctx, x, a);
    ir_value *v = inside > 1 ? lw_op2(g, n, "Div", at, lw_number(g, at, (double)inside)) : at;
    if (a && total) v = lw_op2(g, n, "Mod", v, lw_number(g, at, (double)d));
    rows[a] = lw_reshape(g, n, v, 2, (int64_t[]){1, total});
    inside *= d;
  }
  lw_replace(g, n, 0, lw_sized(g, n, lw_concat(g, n, 0, x->rank, rows), length, 1));
}

/* ---- TensorScatter: a cache with new rows put in ---- */

static int tensor_scatter_axis(tn_ctx *ctx, const ir_node *n) {
  int axis = ir_axis(ctx, n, ir_attr_get_int(n, "axis", -2), n->in[0]->rank);
  if (axis == 0) lw_bad(ctx, n, "axis 0 is the batch");
  return axis;
}
static void tensor_scatter_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  lw_need_rank(ctx, n, 1, x->rank);
  lw_need_same_type(ctx, n, 0, 1);
  int axis = tensor_scatter_axis(ctx, n);
  const char *mode = ir_attr_get_string(n, "mode", "linear");
  if (strcmp(mode, "linear") != 0 && strcmp(mode, "circular") != 0) lw_bad(ctx, n, "unknown mode '%s'", mode);
  for (int i = 0; i < x->rank; i++) {
    ix d = x->dims[i], u = n->in[1]->dims[i];
    if (ix_is_const(d) && ix_is_const(u) && (i == axis ? u->u.i > d->u.i : u != d))
      lw_bad(ctx, n, "the update has extent %lld at axis %d, the cache %lld", (long long)u->u.i, i, (long long)d->u.i);
  }
  if (lw_has(n, 2)) {
    lw_need_integer(ctx, n, 2);
    lw_need_rank(ctx, n, 2, 1);
    ix d = n->in[2]->dims[0];
    if (ix_is_const(d) && ix_is_const(x->dims[0]) && d != x->dims[0]) lw_bad(ctx, n, "%lld write indices for a batch of %lld", (long long)d->u.i, (long long)x->dims[0]->u.i);
  }
  lw_set_like(n, 0, x->dtype, x);
}
static ix tensor_scatter_value(lw_build *b, ir_node *n, int out, const ix *index) {
  (void)out;
  tn_ctx *ctx = lw_ctx(b);
  const ir_value *x = n->in[0];
  int axis = tensor_scatter_axis(ctx, n);
  ix at[IR_MAX_RANK], zero = ix_index(ctx, 0), first = zero, d = x->dims[axis];
  if (ix_is_int(d, 0)) return lw_in(b, n, 0, index);
  if (lw_has(n, 2)) first = lw_clamp(ctx, ix_cast(ctx, TN_INDEX, lw_in(b, n, 2, index)), zero, d);
  for (int i = 0; i < x->rank; i++) at[i] = index[i];
  at[axis] = ix_sub(ctx, index[axis], first);
  if (ir_attr_get_string(n, "mode", "linear")[0] == 'c') at[axis] = ix_rem(ctx, at[axis], d);
  ix fresh = ix_within(ctx, at[axis], zero, n->in[1]->dims[axis]);
  return ix_select(ctx, fresh, lw_in(b, n, 1, at), lw_in(b, n, 0, index));
}

/* ---- gradients ---- */

/* The two values share what lies where they were put. */
static void one_hot_grad(lw_grad *d) {
  ir_node *n = d->n;
  ir_value *off = ir_graph_scalar(d->g, NULL, n->in[2]->dtype, 0), *on = ir_graph_scalar(d->g, NULL, n->in[2]->dtype, 1), *pair[2] = {off, on};
  for (int i = 0; i < 2; i++) pair[i] = lw_reshape(d->g, n, pair[i], 1, (int64_t[]){1});
  ir_node *hot = lw_node_n(d->g, n, "OneHot", 3, (ir_value *[]){n->in[0], n->in[1], lw_concat(d->g, n, 0, 2, pair)}, 1);
  hot->nattrs = n->nattrs;
  hot->attrs = n->attrs;
  ir_infer(d->ctx, hot);
  ir_value *second = lw_reduce_all(d->g, n, "ReduceSum", lw_op2(d->g, n, "Mul", d->dy[0], hot->out[0]));
  ir_value *first = lw_op2(d->g, n, "Sub", lw_reduce_all(d->g, n, "ReduceSum", d->dy[0]), second), *both[2] = {first, second};
  for (int i = 0; i < 2; i++) both[i] = lw_reshape(d->g, n, both[i], 1, (int64_t[]){1});
  lw_grad_add(d, 2, lw_concat(d->g, n, 0, 2, both));
}

/* Elements of cache and update are told apart by scattering truth. */
static void tensor_scatter_grad(lw_grad *d) {
  ir_graph *g = d->g;
  ir_node *n = d->n;
  if (d->wanted[1]) lw_unsupported(d->ctx, n, "the gradient of the update");
  ir_node *m = lw_node_n(g, n, "TensorScatter", n->nin, n->in, 1);
  int64_t dims[IR_MAX_RANK];
  lw_grad_dims(d->ctx, n->in[0], dims);
  m->in[0] = lw_grad_full(d, n->in[0], n->in[0]->rank, dims, 1);
  m->in[1] = lw_grad_zeros(d, n->in[1]);
  m->nattrs = n->nattrs;
  m->attrs = n->attrs;
  ir_infer(d->ctx, m);
  lw_grad_add(d, 0, lw_op2(g, n, "Mul", d->dy[0], m->out[0]));
}

#define ROW(name, since, nin, max_in, attrs, rule, grad) \
  {name, "", IR_OP_MOVEMENT, since, nin, max_in, 1, 1, attrs, rule##_infer, rule##_value, NULL, NULL, NULL, grad}

const ir_op lw_ops_index[] = {
    ROW("Gather", 1, 2, 2, "axis:i", gather, lw_grad_gather),
    ROW("GatherElements", 11, 2, 2, "axis:i", gather_elements, lw_grad_gather_elements),
    ROW("GatherND", 11, 2, 2, "batch_dims:i", gather_nd, lw_grad_gather_nd),
    ROW("OneHot", 9, 3, 3, "axis:i", one_hot, one_hot_grad),
    {"Compress", "", IR_OP_COMPOSITE, 9, 2, 2, 1, 1, "axis:i", compress_infer, NULL, NULL, compress_expand, NULL, NULL},
    {"NonZero", "", IR_OP_COMPOSITE, 9, 1, 1, 1, 1, "", non_zero_infer, NULL, NULL, non_zero_expand, NULL, NULL},
    ROW("TensorScatter", 24, 2, 3, "axis:i mode:s", tensor_scatter, tensor_scatter_grad),
    {0}};
