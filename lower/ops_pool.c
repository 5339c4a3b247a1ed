/* ops_pool.c — pooling over windows and over all spatial axes.
 *
 * for n c [z [y]] x { acc = start; for [q [r]] s if (inside) acc = combine(acc, x[..]);
 *   out = finish(acc) } */
#include "lower/grad.h"
#include "lower/window.h"
#include <math.h>
#include <string.h>

typedef enum pool_kind { POOL_MAX, POOL_AVERAGE, POOL_SUM, POOL_LP } pool_kind;

static pool_kind kind_of(const ir_node *n) {
  const char *s = n->op->name;
  return strstr(s, "Max") ? POOL_MAX : strstr(s, "Average") ? POOL_AVERAGE : strstr(s, "Sum") ? POOL_SUM : POOL_LP;
}

static bool is_global(const ir_node *n) { return strncmp(n->op->name, "Global", 6) == 0; }

static void pool_window(tn_ctx *ctx, const ir_node *n, lw_window *w) {
  const ir_value *x = n->in[0];
  int rank = x->rank - 2;
  if (rank < 1) lw_bad(ctx, n, "the input has rank %d; N, C and at least one spatial axis are needed", x->rank);
  if (!is_global(n)) {
    ix taps[LW_MAX_SPATIAL];
    lw_kernel_shape(ctx, n, rank, taps);
    lw_window_of(ctx, n, taps, w);
    return;
  }
  *w = (lw_window){.rank = rank};
  for (int i = 0; i < rank; i++) {
    w->stride[i] = w->dilation[i] = 1;
    w->in[i] = w->taps[i] = x->dims[i + 2];
    w->out[i] = ix_index(ctx, 1);
    w->begin[i] = w->end[i] = ix_index(ctx, 0);
  }
}

static void pool_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  if (x->dtype == TN_BOOL || (kind_of(n) != POOL_MAX && !ir_is_float(x->dtype))) lw_bad(ctx, n, "an input of type %s", ir_dtype_name(x->dtype));
  if (kind_of(n) == POOL_LP && ir_attr_get_int(n, "p", 2) < 1) lw_bad(ctx, n, "p is %lld", (long long)ir_attr_get_int(n, "p", 2));
  lw_window w;
  pool_window(ctx, n, &w);
  ix dims[IR_MAX_RANK] = {x->dims[0], x->dims[1]};
  for (int i = 0; i < w.rank; i++) dims[i + 2] = w.out[i];
  lw_set(n, 0, x->dtype, x->rank, dims);
  lw_set(n, 1, TN_I64, x->rank, dims);
}

/* Below or equal to every number of the dtype. */
static ix lowest(tn_ctx *ctx, tn_dtype t) {
  if (ir_is_float(t)) return ix_float(ctx, t, -INFINITY);
  if (ir_is_unsigned(t)) return ix_int(ctx, t, 0);
  return ix_int(ctx, t, INT64_MIN >> (64 - ir_dtype_bits(t)));
}

/* Taps of one axis that land in [lo, hi), for the window whose first tap is at `first`. */
static ix taps_inside(tn_ctx *ctx, ix first, int64_t dilation, ix taps, ix lo, ix hi) {
  ix zero = ix_index(ctx, 0);
  ix from = lw_clamp(ctx, ix_ceil_div(ctx, ix_sub(ctx, lo, first), dilation), zero, taps);
  ix to = lw_clamp(ctx, ix_ceil_div(ctx, ix_sub(ctx, hi, first), dilation), zero, taps);
  return ix_sub(ctx, to, from);
}

/* How many elements an average divides by at output coordinates o, at least 1 unless the
 * input is empty, as a float: one factor per axis, so that each can leave the other's loops. */
static ix average_count(tn_ctx *ctx, const ir_node *n, const lw_window *w, const ix *o, tn_dtype t) {
  bool padding = ir_attr_get_int(n, "count_include_pad", 0) != 0;
  ix fixed = ix_index(ctx, 1), varying = NULL, zero = ix_index(ctx, 0);
  for (int i = 0; i < w->rank; i++) {
    ix first = ix_sub(ctx, ix_muli(ctx, o[i], w->stride[i]), w->begin[i]);
    ix lo = padding ? ix_sub(ctx, zero, w->begin[i]) : zero, hi = padding ? ix_add(ctx, w->in[i], w->end[i]) : w->in[i];
    ix count = is_global(n) ? w->taps[i] : ix_max(ctx, taps_inside(ctx, first, w->dilation[i], w->taps[i], lo, hi), ix_index(ctx, 1));
    if (ix_is_const(count)) fixed = ix_mul(ctx, fixed, count);
    else varying = varying ? ix_mul(ctx, varying, ix_cast(ctx, t, count)) : ix_cast(ctx, t, count);
  }
  return varying ? ix_mul(ctx, varying, ix_cast(ctx, t, fixed)) : ix_cast(ctx, t, fixed);
}

/* Position of spatial coordinates `at` in the whole input, as MaxPool's Indices count it. */
static ix flat_position(tn_ctx *ctx, const ir_node *n, const ix *at) {
  const ir_value *x = n->in[0];
  int rank = x->rank;
  bool columns = ir_attr_get_int(n, "storage_order", 0) != 0;
  ix image = ix_add(ctx, ix_mul(ctx, at[0], x->dims[1]), at[1]), inside = ix_index(ctx, 0);
  for (int i = 2; i < rank; i++) {
    int a = columns ? rank + 1 - i : i;
    image = ix_mul(ctx, image, x->dims[i]);
    inside = ix_add(ctx, ix_mul(ctx, inside, x->dims[a]), at[a]);
  }
  return ix_add(ctx, image, inside);
}

static void pool_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *ib = lw_b(b);
  pool_kind kind = kind_of(n);
  lw_window w;
  pool_window(ctx, n, &w);
  tn_dtype t = n->in[0]->dtype, ct = kind == POOL_MAX ? t : lw_compute_type(t);
  double p = (double)ir_attr_get_int(n, "p", 2);
  bool positions = kind == POOL_MAX && lw_wants(b, n, 1);
  ix o[IR_MAX_RANK], tap[LW_MAX_SPATIAL], at[IR_MAX_RANK];
  lw_loops(b, "nc", 2, n->in[0]->dims, o);
  int outer = 2;
  if (!is_global(n)) lw_loops(b, lw_axis_names(w.rank), w.rank, w.out, o + 2), outer += w.rank;
  else
    for (int i = 0; i < w.rank; i++) o[i + 2] = ix_index(ctx, 0);
  ir_buf *acc = ib_local(ib, "acc", ct, kind == POOL_MAX ? lowest(ctx, ct) : lw_zero(ctx, ct));
  ir_buf *where = positions ? ib_local(ib, "where", TN_INDEX, ix_index(ctx, -1)) : NULL;
  lw_loops(b, lw_tap_names(w.rank), w.rank, w.taps, tap);
  at[0] = o[0];
  at[1] = o[1];
  lw_window_at(ctx, &w, o + 2, tap, at + 2);
  ib_if(ib, lw_window_inside(ctx, &w, at + 2));
  ix x = ix_cast(ctx, ct, lw_in(b, n, 0, at));
  if (positions) { /* the first of equals; anything beats "none yet", so that -inf has a place */
    x = ib_let(ib, "v", x);
    ib_if(ib, ix_or(ctx, ix_lt(ctx, ib_get(ib, acc), x), ix_lt(ctx, ib_get(ib, where), ix_index(ctx, 0))));
    ib_set(ib, acc, x);
    ib_set(ib, where, flat_position(ctx, n, at));
    ib_end(ib);
  } else if (kind == POOL_MAX) ib_update(ib, acc, NULL, IR_MAX, x);
  else if (kind != POOL_LP || p == 1) ib_update(ib, acc, NULL, IR_ADD, kind == POOL_LP ? ix_unary(ctx, IX_ABS, x) : x);
  else if (p == 2) lw_accumulate(b, acc, x, x);
  else ib_update(ib, acc, NULL, IR_ADD, ix_binary(ctx, IX_POW, ix_unary(ctx, IX_ABS, x), ix_float(ctx, ct, p)));
  ib_end(ib);
  ib_end_n(ib, w.rank);
  ix r = ib_get(ib, acc);
  if (kind == POOL_AVERAGE) r = ix_div(ctx, r, average_count(ctx, n, &w, o + 2, ct));
  if (kind == POOL_LP && p == 2) r = ix_unary(ctx, IX_SQRT, r);
  else if (kind == POOL_LP && p != 1) r = ix_binary(ctx, IX_POW, r, ix_float(ctx, ct, 1 / p));
  lw_out(b, n, 0, o, ix_cast(ctx, t, r));
  if (positions) lw_out(b, n, 1, o, ix_cast(ctx, TN_I64, ix_max(ctx, ib_get(ib, where), ix_index(ctx, 0))));
  ib_end_n(ib, outer);
}

/* ---- gradients ----
 *
 * PoolBack(dy): each element of `shape` gets the dy of all windows that hold it, divided by the
 * count of each if `average`. With Indices as second operand, only of those that chose it.
 * Gathered, as ConvTranspose is: with p = coordinate + begin, without dilation the taps that
 * reach it are p mod stride + j * stride, of windows p div stride - j. */

static void back_window(tn_ctx *ctx, const ir_node *n, lw_window *w, ir_value *x) {
  const int64_t *shape;
  int rank = ir_attr_get_ints(n, "shape", &shape);
  if (rank != n->in[0]->rank || rank < 3) lw_bad(ctx, n, "shape has %d entries", rank);
  *x = (ir_value){.dtype = n->in[0]->dtype, .rank = rank, .name = n->name};
  for (int i = 0; i < rank; i++) x->dims[i] = ix_index(ctx, shape[i]);
  ir_value *in = x;
  ir_node pool = *n; /* the pool that is undone */
  pool.in = &in;
  pool.nin = 1;
  pool_window(ctx, &pool, w);
}

static void back_infer(tn_ctx *ctx, ir_node *n) {
  lw_window w;
  ir_value x;
  back_window(ctx, n, &w, &x);
  lw_set_like(n, 0, x.dtype, &x);
}

static void back_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *ib = lw_b(b);
  lw_window w;
  ir_value x;
  back_window(ctx, n, &w, &x);
  ix at[IR_MAX_RANK], steps[LW_MAX_SPATIAL], j[LW_MAX_SPATIAL], o[IR_MAX_RANK], zero = ix_index(ctx, 0), reached = ix_bool(ctx, true);
  lw_loops(b, "nc", 2, x.dims, at);
  lw_loops(b, lw_axis_names(w.rank), w.rank, x.dims + 2, at + 2);
  ir_buf *acc = lw_accumulator(b, x.dtype);
  for (int i = 0; i < w.rank; i++) steps[i] = w.dilation[i] == 1 ? ix_ceil_div(ctx, w.taps[i], w.stride[i]) : w.taps[i];
  lw_loops(b, lw_tap_names(w.rank), w.rank, steps, j);
  o[0] = at[0];
  o[1] = at[1];
  for (int i = 0; i < w.rank; i++) {
    ix p = ix_add(ctx, at[i + 2], w.begin[i]);
    if (w.dilation[i] == 1) {
      o[i + 2] = ix_sub(ctx, ix_divi(ctx, p, w.stride[i]), j[i]);
      reached = ix_and(ctx, reached, ix_lt(ctx, ix_add(ctx, ix_remi(ctx, p, w.stride[i]), ix_muli(ctx, j[i], w.stride[i])), w.taps[i]));
    } else {
      ix from = ix_sub(ctx, p, ix_muli(ctx, j[i], w.dilation[i]));
      o[i + 2] = ix_divi(ctx, from, w.stride[i]);
      reached = ix_and(ctx, reached, ix_eq(ctx, ix_remi(ctx, from, w.stride[i]), zero));
    }
    reached = ix_and(ctx, reached, ix_within(ctx, o[i + 2], zero, w.out[i]));
  }
  ib_if(ib, reached);
  ix v = ix_cast(ctx, acc->dtype, lw_in(b, n, 0, o));
  if (ir_attr_get_int(n, "average", 0)) v = ix_div(ctx, v, average_count(ctx, n, &w, o + 2, acc->dtype));
  if (lw_has(n, 1)) {
    ir_value *in = &x;
    ir_node pool = *n;
    pool.in = &in;
    ix chosen = ix_eq(ctx, ix_cast(ctx, TN_INDEX, lw_in(b, n, 1, o)), flat_position(ctx, &pool, at));
    v = ix_select(ctx, chosen, v, lw_zero(ctx, acc->dtype));
  }
  ib_update(ib, acc, NULL, IR_ADD, v);
  ib_end(ib);
  ib_end_n(ib, w.rank);
  lw_out(b, n, 0, at, ix_cast(ctx, x.dtype, ib_get(ib, acc)));
  ib_end_n(ib, x.rank);
}

static void copy_attrs(ir_node *m, const ir_node *n, const char *but) {
  m->opset = n->opset;
  for (int i = 0; i < n->nattrs; i++)
    if (!but || strcmp(n->attrs[i].name, but) != 0) IR_PUSH(m->graph->ctx, m->attrs, m->nattrs, n->attrs[i]);
}

static ir_value *pool_back(lw_grad *d, ir_value *dy, ir_value *indices, bool average) {
  ir_node *m = lw_node_n(d->g, d->n, "tenon:PoolBack", indices ? 2 : 1, (ir_value *[]){dy, indices}, 1);
  int64_t shape[IR_MAX_RANK];
  copy_attrs(m, d->n, "p");
  lw_grad_dims(d->ctx, d->n->in[0], shape);
  ir_attr_ints(m, "shape", d->n->in[0]->rank, shape);
  if (average) ir_attr_int(m, "average", 1);
  ir_infer(d->ctx, m);
  return m->out[0];
}

static void max_grad(lw_grad *d) { lw_grad_add(d, 0, pool_back(d, d->dy[0], lw_grad_output(d, 1), false)); }
static void average_grad(lw_grad *d) { lw_grad_add(d, 0, pool_back(d, d->dy[0], NULL, true)); }

/* y = (sum |x|^p)^(1/p): dx = sign(x) |x|^(p-1) times what the windows send of dy y^(1-p); 0 where y is. */
static void lp_grad(lw_grad *d) {
  ir_graph *g = d->g;
  ir_node *n = d->n;
  ir_value *x = n->in[0], *y = n->out[0], *dy = d->dy[0], *zero = lw_number(g, x, 0), *slope = lw_op1(g, n, "Sign", x);
  double p = (double)ir_attr_get_int(n, "p", 2);
  if (p == 2) slope = x;
  else if (p > 1) slope = lw_op2(g, n, "Mul", slope, lw_op2(g, n, "Pow", lw_op1(g, n, "Abs", x), lw_number(g, x, p - 1)));
  if (p > 1) {
    ir_value *none = lw_op2(g, n, "Equal", y, zero), *base = lw_op3(g, n, "Where", none, lw_number(g, x, 1), y);
    dy = lw_op3(g, n, "Where", none, zero, lw_op2(g, n, "Mul", dy, lw_op2(g, n, "Pow", base, lw_number(g, x, 1 - p))));
  }
  if (!is_global(n)) dy = pool_back(d, dy, NULL, false);
  lw_grad_add(d, 0, lw_op2(g, n, "Mul", slope, dy));
}

static void global_average_grad(lw_grad *d) {
  double count = 1;
  for (int i = 2; i < d->n->in[0]->rank; i++) count *= (double)ir_dim(d->ctx, d->n->in[0], i);
  lw_grad_add(d, 0, lw_op2(d->g, d->n, "Mul", d->dy[0], lw_number(d->g, d->dy[0], 1 / count)));
}

/* The first of equals gets all, as in MaxPool. */
static void global_max_grad(lw_grad *d) {
  ir_graph *g = d->g;
  ir_node *n = d->n;
  const ir_value *x = n->in[0];
  int64_t dims[IR_MAX_RANK], rows[3] = {1, 1, 1};
  lw_grad_dims(d->ctx, x, dims);
  for (int i = 0; i < x->rank; i++) rows[i < 2 ? i : 2] *= dims[i];
  ir_value *where = lw_op1_int(g, n, "ArgMax", lw_reshape(g, n, n->in[0], 3, rows), "axis", 2);
  ir_value *dy = lw_reshape(g, n, d->dy[0], 3, (int64_t[]){rows[0], rows[1], 1});
  ir_node *m = lw_node_n(g, n, "ScatterElements", 3, (ir_value *[]){lw_grad_full(d, x, 3, rows, 0), where, dy}, 1);
  ir_attr_int(m, "axis", 2);
  ir_infer(d->ctx, m);
  lw_grad_add(d, 0, lw_reshape(g, n, m->out[0], x->rank, dims));
}

static void sum_grad(lw_grad *d) { lw_grad_add(d, 0, pool_back(d, d->dy[0], NULL, false)); }

/* PoolBack is linear in dy: its transpose are the averages, the sums, or the elements that were chosen. */
static void back_grad(lw_grad *d) {
  ir_graph *g = d->g;
  ir_node *n = d->n;
  ir_value *v = d->dy[0];
  if (!lw_has(n, 1)) {
    bool average = ir_attr_get_int(n, "average", 0) != 0;
    ir_node *m = lw_node_n(g, n, average ? "AveragePool" : "tenon:SumPool", 1, &v, 1);
    copy_attrs(m, n, "shape");
    int kept = 0;
    for (int i = 0; i < m->nattrs; i++)
      if (strcmp(m->attrs[i].name, "average") != 0) m->attrs[kept++] = m->attrs[i];
    m->nattrs = kept;
    ir_infer(d->ctx, m);
    lw_grad_add(d, 0, m->out[0]);
    return;
  }
  int64_t back[IR_MAX_RANK], all = 1;
  if (ir_attr_get_int(n, "storage_order", 0)) { /* Indices count the spatial axes from the last */
    for (int i = 0; i < v->rank; i++) back[i] = i < 2 ? i : v->rank + 1 - i;
    v = lw_transpose(g, n, v, back);
  }
  for (int i = 0; i < v->rank; i++) all *= ir_dim(d->ctx, v, i);
  lw_grad_add(d, 0, lw_op2_int(g, n, "Gather", lw_reshape(g, n, v, 1, &all), n->in[1], "axis", 0));
}

#define WINDOW_ATTRS "auto_pad:s kernel_shape:I pads:I strides:I ceil_mode:i dilations:I "
#define POOL(NAME, SINCE, OUTPUTS, ATTRS, GRAD) \
  {.name = NAME, .kind = IR_OP_WINDOW, .since = SINCE, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = OUTPUTS, .attrs = ATTRS, .infer = pool_infer, .build = pool_build, .grad_build = GRAD}
const ir_op lw_ops_pool[] = {
    POOL("MaxPool", 1, 2, WINDOW_ATTRS "storage_order:i", max_grad),
    POOL("AveragePool", 1, 1, WINDOW_ATTRS "count_include_pad:i", average_grad),
    POOL("LpPool", 1, 1, WINDOW_ATTRS "p:i", lp_grad),
    POOL("GlobalMaxPool", 1, 1, "", global_max_grad),
    POOL("GlobalAveragePool", 1, 1, "", global_average_grad),
    POOL("GlobalLpPool", 1, 1, "p:i", lp_grad),
    {.name = "SumPool", .domain = "tenon", .kind = IR_OP_WINDOW, .since = 1, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .attrs = WINDOW_ATTRS "storage_order:i count_include_pad:i", .infer = pool_infer, .build = pool_build, .grad_build = sum_grad},
    {.name = "PoolBack", .domain = "tenon", .kind = IR_OP_WINDOW, .since = 1, .min_in = 1, .max_in = 2, .min_out = 1, .max_out = 1, .attrs = WINDOW_ATTRS "storage_order:i count_include_pad:i shape:I average:i", .infer = back_infer, .build = back_build, .grad_build = back_grad},
    {0}};
