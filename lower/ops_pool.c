/* ops_pool.c — pooling over windows and over all spatial axes.
 *
 * for n c [z [y]] x { acc = start; for [q [r]] s if (inside) acc = combine(acc, x[..]);
 *   out = finish(acc) } */
#include "lower/window.h"
#include <math.h>
#include <string.h>

typedef enum pool_kind { POOL_MAX, POOL_AVERAGE, POOL_LP } pool_kind;

static pool_kind kind_of(const ir_node *n) {
  const char *s = n->op->name;
  return strstr(s, "Max") ? POOL_MAX : strstr(s, "Average") ? POOL_AVERAGE : POOL_LP;
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
  else if (kind == POOL_AVERAGE || p == 1) ib_update(ib, acc, NULL, IR_ADD, kind == POOL_LP ? ix_unary(ctx, IX_ABS, x) : x);
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

/* ---- MaxUnpool: elements go back where MaxPool's Indices say, zeros elsewhere ----
 *
 * Indices count positions of the unpooled tensor; with an explicit output_shape, of the
 * tensor that the window alone would give, which lies at the origin of the larger one. */

static void unpool_extents(tn_ctx *ctx, const ir_node *n, ix *dims) {
  const ir_value *x = n->in[0];
  int rank = x->rank - 2;
  int64_t stride[LW_MAX_SPATIAL];
  ix taps[LW_MAX_SPATIAL];
  if (rank < 1) lw_bad(ctx, n, "the input has rank %d; N, C and at least one spatial axis are needed", x->rank);
  lw_kernel_shape(ctx, n, rank, taps);
  lw_spatial_attr(ctx, n, "strides", rank, 1, 1, stride);
  const int64_t *pads;
  int npads = ir_attr_get_ints(n, "pads", &pads);
  if (npads >= 0 && npads != 2 * rank) lw_bad(ctx, n, "'pads' has %d entries, not %d", npads, 2 * rank);
  dims[0] = x->dims[0];
  dims[1] = x->dims[1];
  for (int i = 0; i < rank; i++) {
    int64_t cut = npads < 0 ? 0 : pads[i] + pads[rank + i];
    if (npads >= 0 && (pads[i] < 0 || pads[rank + i] < 0 || pads[i] > INT32_MAX || pads[rank + i] > INT32_MAX)) lw_bad(ctx, n, "'pads' holds a number out of range");
    ix full = ix_add(ctx, ix_muli(ctx, ix_addi(ctx, x->dims[i + 2], -1), stride[i]), taps[i]);
    dims[i + 2] = ix_max(ctx, ix_addi(ctx, full, -cut), ix_index(ctx, 0));
  }
}

static void unpool_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0], *places = n->in[1];
  ix dims[IR_MAX_RANK];
  unpool_extents(ctx, n, dims);
  if (x->dtype == TN_BOOL || places->dtype != TN_I64) lw_bad(ctx, n, "inputs of types %s and %s", ir_dtype_name(x->dtype), ir_dtype_name(places->dtype));
  lw_need_rank(ctx, n, 1, x->rank);
  for (int i = 0; i < x->rank; i++)
    if (x->dims[i] != places->dims[i] && ix_is_const(x->dims[i]) && ix_is_const(places->dims[i])) lw_bad(ctx, n, "the inputs differ in axis %d", i);
  if (lw_has(n, 2)) {
    int64_t shape[IR_MAX_RANK];
    if (lw_need_ints(ctx, n, 2, "output_shape", shape, IR_MAX_RANK) != x->rank) lw_bad(ctx, n, "output_shape does not have %d entries", x->rank);
    for (int i = 0; i < x->rank; i++) {
      int64_t least;
      if (shape[i] < 0 || (ix_const_value(dims[i], &least) && shape[i] < least)) lw_bad(ctx, n, "output_shape is smaller than the unpooled input in axis %d", i);
      dims[i] = ix_index(ctx, shape[i]);
    }
  }
  lw_set(n, 0, x->dtype, x->rank, dims);
}

static void unpool_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *ib = lw_b(b);
  const ir_value *x = n->in[0], *v = n->out[0];
  ir_buf *out = lw_out_buf(b, n, 0);
  ix o[IR_MAX_RANK], at[IR_MAX_RANK], dims[IR_MAX_RANK];
  unpool_extents(ctx, n, dims);
  lw_loops(b, NULL, v->rank, v->dims, o);
  ib_store(ib, out, o, lw_zero(ctx, v->dtype));
  ib_end_n(ib, v->rank);
  lw_loops(b, NULL, x->rank, x->dims, o);
  ix place = ib_let(ib, "place", ix_cast(ctx, TN_INDEX, lw_in(b, n, 1, o)));
  ix rest = place, all = ix_index(ctx, 1);
  for (int i = x->rank - 1; i >= 0; i--) {
    if (ix_is_int(dims[i], 0)) dims[i] = ix_index(ctx, 1); /* no elements: nothing runs */
    at[i] = lw_clamp(ctx, ix_rem(ctx, rest, dims[i]), ix_index(ctx, 0), ix_addi(ctx, v->dims[i], -1));
    rest = ix_div(ctx, rest, dims[i]);
    all = ix_mul(ctx, all, dims[i]);
  }
  ib_if(ib, ix_within(ctx, place, ix_index(ctx, 0), all)); /* an index from outside writes nothing */
  ib_store(ib, out, at, lw_in(b, n, 0, o));
  ib_end(ib);
  ib_end_n(ib, x->rank);
}

#define WINDOW_ATTRS "auto_pad:s kernel_shape:I pads:I strides:I ceil_mode:i dilations:I "
#define POOL(NAME, SINCE, OUTPUTS, ATTRS) \
  {.name = NAME, .kind = IR_OP_WINDOW, .since = SINCE, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = OUTPUTS, .attrs = ATTRS, .infer = pool_infer, .build = pool_build}
const ir_op lw_ops_pool[] = {
    POOL("MaxPool", 1, 2, WINDOW_ATTRS "storage_order:i"),
    POOL("AveragePool", 1, 1, WINDOW_ATTRS "count_include_pad:i"),
    POOL("LpPool", 1, 1, WINDOW_ATTRS "p:i"),
    POOL("GlobalMaxPool", 1, 1, ""),
    POOL("GlobalAveragePool", 1, 1, ""),
    POOL("GlobalLpPool", 1, 1, "p:i"),
    {.name = "MaxUnpool", .kind = IR_OP_KERNEL, .since = 9, .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 1, .attrs = "kernel_shape:I pads:I strides:I", .infer = unpool_infer, .build = unpool_build},
    {0}};
