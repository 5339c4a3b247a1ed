/* ops_movement.c — ops that only say where an element comes from: shapes, axes, joins,
 * cuts and borders. All are `value` rows, so they cost nothing when inlined. */
#include "lower/grad.h"
#include <string.h>

/* ---- Identity ---- */

static void identity_infer(tn_ctx *ctx, ir_node *n) {
  (void)ctx;
  lw_set_like(n, 0, n->in[0]->dtype, n->in[0]);
}
static ix identity_value(lw_build *b, ir_node *n, int out, const ix *index) {
  (void)out;
  return lw_in(b, n, 0, index);
}

/* ---- Reshape, Flatten, Squeeze, Unsqueeze: the same elements in row-major order ---- */

static ix reshape_value(lw_build *b, ir_node *n, int out, const ix *index) {
  ix at[IR_MAX_RANK];
  lw_relinear(lw_ctx(b), n->in[0]->rank, n->in[0]->dims, n->out[out]->rank, n->out[out]->dims, index, at);
  return lw_in(b, n, 0, at);
}

/* The extent that -1 stands for: the input's extents without those that stand in `dims`
 * already, so that symbols and zeros copied from the input cancel. */
static ix missing_extent(tn_ctx *ctx, const ir_node *n, int rank, const ix *dims, int missing) {
  const ir_value *x = n->in[0];
  bool used[IR_MAX_RANK] = {false};
  int64_t top = 1, below = 1;
  ix symbols = NULL;
  for (int o = 0; o < rank; o++) {
    if (o == missing) continue;
    int i = 0;
    while (i < x->rank && (used[i] || x->dims[i] != dims[o])) i++;
    if (i < x->rank) {
      used[i] = true;
      continue;
    }
    int64_t d;
    if (!ix_const_value(dims[o], &d)) lw_unsupported(ctx, n, "cannot tell the extent of -1 with symbolic extents");
    if (!ir_mul_size(below, d, &below)) lw_bad(ctx, n, "the shape overflows");
  }
  for (int i = 0; i < x->rank; i++) {
    int64_t d;
    if (used[i]) continue;
    if (!ix_const_value(x->dims[i], &d)) symbols = symbols ? ix_mul(ctx, symbols, x->dims[i]) : x->dims[i];
    else if (!ir_mul_size(top, d, &top)) lw_bad(ctx, n, "the input's size overflows");
  }
  if (symbols && below > 0)
    return top % below == 0 ? ix_muli(ctx, symbols, top / below) : ix_divi(ctx, ix_muli(ctx, symbols, top), below);
  if (below == 0 || top % below != 0)
    lw_bad(ctx, n, "%lld elements cannot be split into groups of %lld to find the extent of -1", (long long)top, (long long)below);
  return ix_index(ctx, top / below);
}

static void check_elements(tn_ctx *ctx, const ir_node *n, int rank, const ix *dims) {
  int64_t a = 1, b = 1, d;
  for (int i = 0; i < n->in[0]->rank; i++) {
    if (!ix_const_value(n->in[0]->dims[i], &d)) return;
    if (!ir_mul_size(a, d, &a)) lw_bad(ctx, n, "the input's size overflows");
  }
  for (int i = 0; i < rank; i++) {
    if (!ix_const_value(dims[i], &d)) return;
    if (!ir_mul_size(b, d, &b)) lw_bad(ctx, n, "the shape overflows");
  }
  if (a != b) lw_bad(ctx, n, "%lld elements do not fit a shape of %lld", (long long)a, (long long)b);
}

static void reshape_infer(tn_ctx *ctx, ir_node *n) {
  int64_t raw[IR_MAX_RANK];
  const int64_t *shape = raw;
  int rank = n->nin > 1 ? lw_need_ints(ctx, n, 1, "shape", raw, IR_MAX_RANK) : ir_attr_get_ints(n, "shape", &shape);
  if (rank < 0) lw_bad(ctx, n, "the shape is missing");
  if (rank > IR_MAX_RANK) lw_unsupported(ctx, n, "a shape of rank %d", rank);
  bool keep_zero = ir_attr_get_int(n, "allowzero", 0) != 0;
  ix dims[IR_MAX_RANK];
  int missing = -1;
  for (int i = 0; i < rank; i++) {
    if (shape[i] == -1) {
      if (missing >= 0) lw_bad(ctx, n, "the shape has more than one -1");
      missing = i;
    } else if (shape[i] < 0) lw_bad(ctx, n, "the shape has the extent %lld", (long long)shape[i]);
    else if (shape[i] == 0 && !keep_zero) {
      if (i >= n->in[0]->rank) lw_bad(ctx, n, "extent 0 at axis %d copies an axis that the input of rank %d does not have", i, n->in[0]->rank);
      dims[i] = n->in[0]->dims[i];
    } else dims[i] = ix_index(ctx, shape[i]);
  }
  if (missing >= 0) dims[missing] = missing_extent(ctx, n, rank, dims, missing);
  check_elements(ctx, n, rank, dims);
  lw_set(n, 0, n->in[0]->dtype, rank, dims);
}

static void flatten_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  int64_t axis = ir_attr_get_int(n, "axis", 1);
  if (axis < 0) axis += x->rank;
  if (axis < 0 || axis > x->rank) lw_bad(ctx, n, "axis %lld is outside a tensor of rank %d", (long long)axis, x->rank);
  ix dims[2] = {ix_index(ctx, 1), ix_index(ctx, 1)};
  for (int i = 0; i < x->rank; i++) dims[i >= axis] = ix_mul(ctx, dims[i >= axis], x->dims[i]);
  lw_set(n, 0, x->dtype, 2, dims);
}

static void squeeze_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  int axes[IR_MAX_RANK], count = lw_axes(ctx, n, "axes", n->nin > 1 ? 1 : -1, x->rank, axes), rank = 0;
  bool drop[IR_MAX_RANK] = {false};
  for (int i = 0; i < x->rank; i++)
    if (count < 0) {
      if (!ix_is_const(x->dims[i])) ir_dim(ctx, x, i); /* throws: the result's rank depends on it */
      drop[i] = ix_is_int(x->dims[i], 1);
    }
  if (!x->rank && count > 0) lw_bad(ctx, n, "a scalar has no axis to squeeze");
  for (int i = 0; i < count; i++) {
    ix d = x->dims[axes[i]];
    if (ix_is_const(d) && !ix_is_int(d, 1)) lw_bad(ctx, n, "axis %d has extent %lld, not 1", axes[i], (long long)d->u.i);
    drop[axes[i]] = true;
  }
  ix dims[IR_MAX_RANK];
  for (int i = 0; i < x->rank; i++)
    if (!drop[i]) dims[rank++] = x->dims[i];
  lw_set(n, 0, x->dtype, rank, dims);
}

static void unsqueeze_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  int64_t raw[IR_MAX_RANK];
  const int64_t *list = raw;
  int count = ir_attr_get_ints(n, "axes", &list);
  if (count < 0) count = lw_need_ints(ctx, n, 1, "axes", raw, IR_MAX_RANK), list = raw;
  int rank = x->rank + count, from = 0;
  if (rank > IR_MAX_RANK) lw_unsupported(ctx, n, "a result of rank %d", rank);
  bool fresh[IR_MAX_RANK] = {false};
  for (int i = 0; i < count; i++) {
    int a = ir_axis(ctx, n, list[i], rank);
    if (fresh[a]) lw_bad(ctx, n, "axis %d is given twice", a);
    fresh[a] = true;
  }
  ix dims[IR_MAX_RANK];
  for (int i = 0; i < rank; i++) dims[i] = fresh[i] ? ix_index(ctx, 1) : x->dims[from++];
  lw_set(n, 0, x->dtype, rank, dims);
}

/* ---- Transpose ---- */

static void transpose_perm(tn_ctx *ctx, const ir_node *n, int *perm) {
  int rank = n->in[0]->rank;
  const int64_t *p = NULL;
  int count = ir_attr_get_ints(n, "perm", &p);
  bool seen[IR_MAX_RANK] = {false};
  if (count >= 0 && count != rank) lw_bad(ctx, n, "perm has %d entries for a tensor of rank %d", count, rank);
  for (int i = 0; i < rank; i++) {
    perm[i] = count < 0 ? rank - 1 - i : ir_axis(ctx, n, p[i], rank);
    if (seen[perm[i]]) lw_bad(ctx, n, "perm names axis %d twice", perm[i]);
    seen[perm[i]] = true;
  }
}
static void transpose_infer(tn_ctx *ctx, ir_node *n) {
  int perm[IR_MAX_RANK];
  ix dims[IR_MAX_RANK];
  transpose_perm(ctx, n, perm);
  for (int i = 0; i < n->in[0]->rank; i++) dims[i] = n->in[0]->dims[perm[i]];
  lw_set(n, 0, n->in[0]->dtype, n->in[0]->rank, dims);
}
static ix transpose_value(lw_build *b, ir_node *n, int out, const ix *index) {
  (void)out;
  int perm[IR_MAX_RANK];
  ix at[IR_MAX_RANK];
  transpose_perm(lw_ctx(b), n, perm);
  for (int i = 0; i < n->in[0]->rank; i++) at[perm[i]] = index[i];
  return lw_in(b, n, 0, at);
}

/* ---- Concat ---- */

static int concat_axis(tn_ctx *ctx, const ir_node *n) {
  if (!lw_has_attr(n, "axis") && n->opset >= 4) lw_bad(ctx, n, "attribute 'axis' is missing");
  return ir_axis(ctx, n, ir_attr_get_int(n, "axis", 1), n->in[0]->rank);
}
static void concat_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  if (x->rank == 0) lw_bad(ctx, n, "scalars cannot be joined");
  int axis = concat_axis(ctx, n);
  ix dims[IR_MAX_RANK];
  for (int i = 0; i < x->rank; i++) dims[i] = x->dims[i];
  for (int k = 1; k < n->nin; k++) {
    if (!lw_has(n, k)) lw_bad(ctx, n, "input %d is omitted", k);
    lw_need_rank(ctx, n, k, x->rank);
    lw_need_same_type(ctx, n, 0, k);
    for (int i = 0; i < x->rank; i++) {
      ix d = n->in[k]->dims[i];
      if (i == axis) dims[i] = ix_add(ctx, dims[i], d);
      else if (ix_is_const(d) && ix_is_const(dims[i]) && d != dims[i])
        lw_bad(ctx, n, "input '%s' has extent %lld at axis %d, input '%s' has %lld", n->in[k]->name, (long long)d->u.i, i, x->name,
               (long long)dims[i]->u.i);
      else if (ix_is_const(d)) dims[i] = d;
    }
  }
  lw_set(n, 0, x->dtype, x->rank, dims);
}
/* Inputs lo..hi-1, found by halving, so that many inputs cost a logarithm of compares. */
static ix concat_pick(lw_build *b, ir_node *n, int axis, const ix *index, const int *which, const ix *offset, int lo, int hi) {
  tn_ctx *ctx = lw_ctx(b);
  if (hi - lo == 1) {
    ix at[IR_MAX_RANK];
    for (int i = 0; i < n->in[0]->rank; i++) at[i] = index[i];
    at[axis] = ix_sub(ctx, index[axis], offset[lo]);
    return lw_in(b, n, which[lo], at);
  }
  int mid = (lo + hi) / 2;
  ix left = ix_lt(ctx, index[axis], offset[mid]);
  int64_t known;
  if (ix_const_value(left, &known)) return known ? concat_pick(b, n, axis, index, which, offset, lo, mid) : concat_pick(b, n, axis, index, which, offset, mid, hi);
  return ix_select(ctx, left, concat_pick(b, n, axis, index, which, offset, lo, mid), concat_pick(b, n, axis, index, which, offset, mid, hi));
}
static ix concat_value(lw_build *b, ir_node *n, int out, const ix *index) {
  (void)out;
  tn_ctx *ctx = lw_ctx(b);
  int axis = concat_axis(ctx, n), count = 0, *which = IR_NEW_ARRAY(ctx, int, n->nin);
  ix *offset = IR_NEW_ARRAY(ctx, ix, n->nin), sum = ix_index(ctx, 0);
  for (int k = 0; k < n->nin; k++) {
    if (ix_is_int(n->in[k]->dims[axis], 0)) continue;
    which[count] = k;
    offset[count++] = sum;
    sum = ix_add(ctx, sum, n->in[k]->dims[axis]);
  }
  return count ? concat_pick(b, n, axis, index, which, offset, 0, count) : lw_zero(ctx, n->in[0]->dtype);
}

/* ---- Split ---- */

/* Extents of the parts along the axis; returns the axis. */
static int split_sizes(tn_ctx *ctx, const ir_node *n, ix *sizes) {
  const ir_value *x = n->in[0];
  if (x->rank == 0) lw_bad(ctx, n, "a scalar cannot be split");
  int axis = ir_axis(ctx, n, ir_attr_get_int(n, "axis", 0), x->rank);
  int64_t *list = IR_NEW_ARRAY(ctx, int64_t, n->nout + 1), total = 0, extent;
  const int64_t *parts = list;
  int count = ir_attr_get_ints(n, "split", &parts);
  if (count < 0 && lw_has(n, 1)) count = lw_need_ints(ctx, n, 1, "split", list, n->nout), parts = list;
  if (count >= 0) {
    if (count != n->nout) lw_bad(ctx, n, "split has %d parts for %d outputs", count, n->nout);
    for (int i = 0; i < count; i++) {
      if (parts[i] < 0 || !ir_add_size(total, parts[i], &total)) lw_bad(ctx, n, "split has the extent %lld", (long long)parts[i]);
      sizes[i] = ix_index(ctx, parts[i]);
    }
    if (ix_const_value(x->dims[axis], &extent) && extent != total)
      lw_bad(ctx, n, "the parts sum to %lld, axis %d has %lld", (long long)total, axis, (long long)extent);
    return axis;
  }
  count = (int)ir_attr_get_int(n, "num_outputs", n->nout);
  if (count != n->nout) lw_bad(ctx, n, "num_outputs is %d for %d outputs", count, n->nout);
  extent = ir_dim(ctx, x, axis);
  if (extent % n->nout != 0 && n->opset < 18) lw_bad(ctx, n, "axis %d of extent %lld does not split evenly into %d parts", axis, (long long)extent, n->nout);
  int64_t part = (extent + n->nout - 1) / n->nout;
  for (int i = 0; i < n->nout; i++) {
    int64_t rest = extent - part * i;
    sizes[i] = ix_index(ctx, rest < 0 ? 0 : rest < part ? rest : part);
  }
  return axis;
}
static void split_infer(tn_ctx *ctx, ir_node *n) {
  ix *sizes = IR_NEW_ARRAY(ctx, ix, n->nout), dims[IR_MAX_RANK];
  int axis = split_sizes(ctx, n, sizes);
  for (int i = 0; i < n->in[0]->rank; i++) dims[i] = n->in[0]->dims[i];
  for (int k = 0; k < n->nout; k++) {
    dims[axis] = sizes[k];
    lw_set(n, k, n->in[0]->dtype, n->in[0]->rank, dims);
  }
}
static ix split_value(lw_build *b, ir_node *n, int out, const ix *index) {
  tn_ctx *ctx = lw_ctx(b);
  ix *sizes = IR_NEW_ARRAY(ctx, ix, n->nout), at[IR_MAX_RANK];
  int axis = split_sizes(ctx, n, sizes);
  for (int i = 0; i < n->in[0]->rank; i++) at[i] = index[i];
  for (int k = 0; k < out; k++) at[axis] = ix_add(ctx, at[axis], sizes[k]);
  return lw_in(b, n, 0, at);
}

/* ---- Slice ---- */

typedef struct slice_range {
  ix start, length;
  int64_t step;
} slice_range;

static int64_t tame(int64_t v) { /* far beyond any extent, far from overflow */
  const int64_t far = (int64_t)1 << 60;
  return v > far ? far : v < -far ? -far : v;
}

/* One range per axis of the input; axes not named are whole. */
static void slice_ranges(tn_ctx *ctx, const ir_node *n, slice_range *r) {
  const ir_value *x = n->in[0];
  int64_t s[IR_MAX_RANK], e[IR_MAX_RANK], st[IR_MAX_RANK];
  const int64_t *starts = s, *ends = e, *steps = st;
  int axes[IR_MAX_RANK], count, nends, naxes, nsteps = -1;
  if (n->nin > 1) {
    count = lw_need_ints(ctx, n, 1, "starts", s, IR_MAX_RANK);
    nends = lw_need_ints(ctx, n, 2, "ends", e, IR_MAX_RANK);
    naxes = lw_axes(ctx, n, NULL, 3, x->rank, axes);
    if (lw_has(n, 4)) nsteps = lw_need_ints(ctx, n, 4, "steps", st, IR_MAX_RANK);
  } else {
    count = ir_attr_get_ints(n, "starts", &starts);
    nends = ir_attr_get_ints(n, "ends", &ends);
    naxes = lw_axes(ctx, n, "axes", -1, x->rank, axes);
  }
  if (count < 0 || nends < 0) lw_bad(ctx, n, "starts or ends are missing");
  if (count != nends || (naxes >= 0 && naxes != count) || (nsteps >= 0 && nsteps != count) || count > x->rank)
    lw_bad(ctx, n, "starts, ends, axes and steps differ in length, or are more than the %d axes", x->rank);
  ix zero = ix_index(ctx, 0);
  for (int i = 0; i < x->rank; i++) r[i] = (slice_range){zero, x->dims[i], 1};
  for (int i = 0; i < count; i++) {
    int axis = naxes >= 0 ? axes[i] : i;
    int64_t step = nsteps >= 0 ? tame(steps[i]) : 1, from = tame(starts[i]), to = tame(ends[i]);
    ix d = x->dims[axis], last = ix_addi(ctx, d, -1), a, z;
    if (step == 0) lw_bad(ctx, n, "step 0 at axis %d", axis);
    a = from < 0 ? ix_addi(ctx, d, from) : ix_index(ctx, from);
    z = to < 0 ? ix_addi(ctx, d, to) : ix_index(ctx, to);
    if (step > 0) {
      a = lw_clamp(ctx, a, zero, d);
      z = lw_clamp(ctx, z, zero, d);
      r[axis].length = ix_ceil_div(ctx, ix_max(ctx, ix_sub(ctx, z, a), zero), step);
    } else {
      a = ix_max(ctx, ix_min(ctx, a, last), zero); /* of an empty axis: 0, and z is -1 + ... */
      z = ix_max(ctx, ix_min(ctx, z, last), ix_index(ctx, -1));
      if (ix_is_int(d, 0)) z = a;
      r[axis].length = ix_ceil_div(ctx, ix_max(ctx, ix_sub(ctx, a, z), zero), -step);
    }
    r[axis].start = a;
    r[axis].step = step;
  }
}
void lw_slice_numbers(tn_ctx *ctx, const ir_node *n, int64_t *start, int64_t *step) {
  slice_range r[IR_MAX_RANK];
  slice_ranges(ctx, n, r);
  for (int i = 0; i < n->in[0]->rank; i++) {
    start[i] = ix_need_const(ctx, r[i].start, "start of a slice");
    step[i] = r[i].step;
  }
}
static void slice_infer(tn_ctx *ctx, ir_node *n) {
  slice_range r[IR_MAX_RANK];
  ix dims[IR_MAX_RANK];
  slice_ranges(ctx, n, r);
  for (int i = 0; i < n->in[0]->rank; i++) dims[i] = r[i].length;
  lw_set(n, 0, n->in[0]->dtype, n->in[0]->rank, dims);
}
static ix slice_value(lw_build *b, ir_node *n, int out, const ix *index) {
  (void)out;
  tn_ctx *ctx = lw_ctx(b);
  slice_range r[IR_MAX_RANK];
  ix at[IR_MAX_RANK];
  slice_ranges(ctx, n, r);
  for (int i = 0; i < n->in[0]->rank; i++) {
    /* a step beyond the axis takes one element: do not carry a huge stride around */
    ix offset = ix_is_int(r[i].length, 1) ? ix_index(ctx, 0) : ix_muli(ctx, index[i], r[i].step);
    at[i] = ix_add(ctx, r[i].start, offset);
  }
  return lw_in(b, n, 0, at);
}

/* ---- Pad ---- */

/* before[i], after[i]: elements added at the ends of axis i; negative: removed. */
void lw_pad_amounts(tn_ctx *ctx, const ir_node *n, int64_t *before, int64_t *after) {
  const ir_value *x = n->in[0];
  int64_t raw[2 * IR_MAX_RANK];
  const int64_t *pads = raw;
  int axes[IR_MAX_RANK], naxes = -1, count = -1;
  if (n->nin > 1) {
    count = lw_need_ints(ctx, n, 1, "pads", raw, 2 * IR_MAX_RANK);
    naxes = lw_axes(ctx, n, NULL, 3, x->rank, axes);
  } else if ((count = ir_attr_get_ints(n, "pads", &pads)) < 0) count = ir_attr_get_ints(n, "paddings", &pads);
  int over = naxes >= 0 ? naxes : x->rank;
  if (count != 2 * over) lw_bad(ctx, n, "pads has %d entries for %d axes", count, over);
  for (int i = 0; i < x->rank; i++) before[i] = after[i] = 0;
  for (int i = 0; i < over; i++) {
    int axis = naxes >= 0 ? axes[i] : i;
    before[axis] = tame(pads[i]);
    after[axis] = tame(pads[over + i]);
  }
}
static const char *pad_mode(tn_ctx *ctx, const ir_node *n) {
  const char *mode = ir_attr_get_string(n, "mode", "constant");
  if (strcmp(mode, "constant") != 0 && strcmp(mode, "reflect") != 0 && strcmp(mode, "edge") != 0 && strcmp(mode, "wrap") != 0)
    lw_bad(ctx, n, "unknown mode '%s'", mode);
  return mode;
}
static void pad_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  int64_t before[IR_MAX_RANK], after[IR_MAX_RANK], d;
  ix dims[IR_MAX_RANK];
  lw_pad_amounts(ctx, n, before, after);
  bool constant = strcmp(pad_mode(ctx, n), "constant") == 0;
  if (lw_has(n, 2)) {
    lw_need_same_type(ctx, n, 0, 2);
    lw_need_single(ctx, n, 2);
  }
  for (int i = 0; i < x->rank; i++) {
    dims[i] = ix_addi(ctx, x->dims[i], before[i] + after[i]);
    if (ix_const_value(dims[i], &d) && d < 0) lw_bad(ctx, n, "axis %d would have extent %lld", i, (long long)d);
    int64_t kept = (before[i] < 0 ? before[i] : 0) + (after[i] < 0 ? after[i] : 0);
    if (!constant && ix_const_value(x->dims[i], &d) && d + kept <= 0 && (before[i] > 0 || after[i] > 0))
      lw_bad(ctx, n, "axis %d has no element to pad from", i);
  }
  lw_set(n, 0, x->dtype, x->rank, dims);
}
static ix pad_value(lw_build *b, ir_node *n, int out, const ix *index) {
  (void)out;
  tn_ctx *ctx = lw_ctx(b);
  const ir_value *x = n->in[0];
  int64_t before[IR_MAX_RANK], after[IR_MAX_RANK];
  ix at[IR_MAX_RANK], inside = ix_bool(ctx, true), zero = ix_index(ctx, 0);
  lw_pad_amounts(ctx, n, before, after);
  const char *mode = pad_mode(ctx, n);
  for (int i = 0; i < x->rank; i++) {
    at[i] = ix_addi(ctx, index[i], -before[i]);
    if (before[i] <= 0 && after[i] <= 0) continue; /* only cuts: every index is inside */
    if (mode[0] == 'c') {
      inside = ix_and(ctx, inside, ix_within(ctx, at[i], zero, x->dims[i]));
      continue;
    }
    /* the part of the axis that remains after the cuts: lo .. lo + d - 1 */
    int64_t lo = before[i] < 0 ? -before[i] : 0;
    ix d = ix_addi(ctx, x->dims[i], -lo + (after[i] < 0 ? after[i] : 0)), p = ix_addi(ctx, at[i], -lo);
    if (ix_is_const(d) && d->u.i <= 0) return lw_zero(ctx, x->dtype); /* empty: never evaluated */
    if (mode[0] == 'e') p = lw_clamp(ctx, p, zero, ix_addi(ctx, d, -1));
    else if (ix_is_int(d, 1)) p = zero;
    else if (mode[0] == 'w') p = ix_rem(ctx, p, d);
    else {
      ix period = ix_muli(ctx, ix_addi(ctx, d, -1), 2), m;
      if (!ix_is_const(period)) period = ix_max(ctx, period, ix_index(ctx, 1));
      m = ix_rem(ctx, p, period);
      p = ix_min(ctx, m, ix_sub(ctx, period, m));
    }
    at[i] = ix_addi(ctx, p, lo);
  }
  if (ix_is_int(inside, 1)) return lw_in(b, n, 0, at);
  ix fill = lw_has(n, 2) ? lw_scalar_in(b, n, 2) : ix_num(ctx, x->dtype, ir_attr_get_float(n, "value", 0));
  return ix_select(ctx, inside, lw_in(b, n, 0, at), fill);
}

/* ---- Expand, Tile ---- */

static void expand_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  int64_t shape[IR_MAX_RANK];
  int count = lw_need_ints(ctx, n, 1, "shape", shape, IR_MAX_RANK), rank = count > x->rank ? count : x->rank;
  ix dims[IR_MAX_RANK], one = ix_index(ctx, 1);
  for (int i = 0; i < rank; i++) {
    int a = i - (rank - x->rank), s = i - (rank - count);
    ix d = a >= 0 ? x->dims[a] : one;
    int64_t to = s >= 0 ? shape[s] : 1;
    if (to < 0) lw_bad(ctx, n, "the shape has the extent %lld", (long long)to);
    if (to == 1 || ix_is_int(d, to)) dims[i] = d;
    else if (d == one || !ix_is_const(d)) dims[i] = ix_index(ctx, to);
    else lw_bad(ctx, n, "extent %lld does not broadcast to %lld", (long long)d->u.i, (long long)to);
  }
  lw_set(n, 0, x->dtype, rank, dims);
}
static ix expand_value(lw_build *b, ir_node *n, int out, const ix *index) {
  return lw_in_bcast(b, n, 0, n->out[out]->rank, index);
}

void lw_tile_repeats(tn_ctx *ctx, const ir_node *n, int64_t *repeats) {
  int rank = n->in[0]->rank;
  if (n->nin == 3) { /* opset 1: tiles and axis are scalars */
    for (int i = 0; i < rank; i++) repeats[i] = 1;
    int64_t count = lw_need_int(ctx, n, 1, "tiles");
    repeats[ir_axis(ctx, n, lw_need_int(ctx, n, 2, "axis"), rank)] = count;
  } else if (lw_need_ints(ctx, n, 1, "repeats", repeats, IR_MAX_RANK) != rank)
    lw_bad(ctx, n, "repeats must have an entry per axis of the input, %d", rank);
  for (int i = 0; i < rank; i++)
    if (repeats[i] < 0 || repeats[i] > (int64_t)1 << 46) lw_bad(ctx, n, "repeats has the entry %lld", (long long)repeats[i]);
}
static void tile_infer(tn_ctx *ctx, ir_node *n) {
  int64_t repeats[IR_MAX_RANK];
  ix dims[IR_MAX_RANK];
  lw_tile_repeats(ctx, n, repeats);
  for (int i = 0; i < n->in[0]->rank; i++) dims[i] = ix_muli(ctx, n->in[0]->dims[i], repeats[i]);
  lw_set(n, 0, n->in[0]->dtype, n->in[0]->rank, dims);
}
static ix tile_value(lw_build *b, ir_node *n, int out, const ix *index) {
  (void)out;
  ix at[IR_MAX_RANK];
  for (int i = 0; i < n->in[0]->rank; i++) {
    ix d = n->in[0]->dims[i];
    if (ix_is_int(d, 0)) return lw_zero(lw_ctx(b), n->in[0]->dtype); /* empty: never evaluated */
    at[i] = ix_rem(lw_ctx(b), index[i], d);
  }
  return lw_in(b, n, 0, at);
}

#define ROW(name, since, nin, max_in, nout, max_out, attrs, rule, grad, grad_build) \
  {name, "", IR_OP_MOVEMENT, since, nin, max_in, nout, max_out, attrs, rule##_infer, rule##_value, NULL, NULL, grad, grad_build}
#define SHAPE(name, max_in, attrs, rule) \
  {name, "", IR_OP_MOVEMENT, 1, 1, max_in, 1, 1, attrs, rule##_infer, reshape_value, NULL, NULL, NULL, lw_grad_reshape}

const ir_op lw_ops_movement[] = {
    ROW("Identity", 1, 1, 1, 1, 1, "", identity, "da = dy", NULL),
    SHAPE("Reshape", 2, "shape:I allowzero:i consumed_inputs:I", reshape),
    SHAPE("Flatten", 1, "axis:i", flatten),
    SHAPE("Squeeze", 2, "axes:I", squeeze),
    SHAPE("Unsqueeze", 2, "axes:I", unsqueeze),
    ROW("Transpose", 1, 1, 1, 1, 1, "perm:I", transpose, NULL, lw_grad_transpose),
    ROW("Concat", 1, 1, -1, 1, 1, "axis:i", concat, NULL, lw_grad_concat),
    ROW("Split", 1, 1, 2, 1, -1, "axis:i split:I num_outputs:i", split, NULL, lw_grad_split),
    ROW("Slice", 1, 1, 5, 1, 1, "starts:I ends:I axes:I", slice, NULL, lw_grad_slice),
    ROW("Pad", 1, 1, 4, 1, 1, "mode:s pads:I paddings:I value:f", pad, NULL, lw_grad_pad),
    ROW("Expand", 8, 2, 2, 1, 1, "", expand, "da = dy", NULL),
    ROW("Tile", 1, 2, 3, 1, 1, "", tile, NULL, lw_grad_tile),
    {0}};
