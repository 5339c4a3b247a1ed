/* ops_resize.c — Resize and Upsample: one axis at a time, by tables made when compiling.
 *
 *   Resize  ->  per axis that changes:  Stretch   nearest, when input index = (o * mul + add) div d
 *                                       Gather    nearest, any other pattern
 *                                       Resample  weights[o, t] * input[index[o, t]], t < taps
 *
 * Coordinates follow the ONNX operator document; those of `nearest`, where a rounding
 * error moves a whole pixel, are computed in f32 as inference engines do, others in f64. */
#include "lower/grad.h"
#include "lower/ops_util.h"
#include <math.h>
#include <string.h>

typedef struct resize {
  const char *mode, *coordinates, *nearest; /* nearest "simple": ceil when shrinking, else floor */
  double cubic_a, extrapolation;
  bool antialias, exclude_outside;
  double scale[IR_MAX_RANK], roi_start[IR_MAX_RANK], roi_end[IR_MAX_RANK];
  int64_t size[IR_MAX_RANK]; /* extents of the output */
} resize;

static bool one_of(const char *s, const char *list) { /* list: "|a|b|" */
  char key[64];
  if (strlen(s) > 60 || strchr(s, '|')) return false;
  key[0] = '|';
  strcpy(key + 1, s);
  strcat(key, "|");
  return strstr(list, key) != NULL;
}

/* Contents of a float input that must be known; 0 when it is omitted or empty. */
static int given_floats(tn_ctx *ctx, const ir_node *n, int k, const char *what, double *out, int max) {
  if (!lw_has(n, k)) return 0;
  const ir_value *v = n->in[k];
  if (ix_is_int(v->rank == 1 ? v->dims[0] : ix_index(ctx, 1), 0)) return 0;
  int64_t count = lw_known_floats(v, out, max);
  if (count < 0 && v->data) lw_bad(ctx, n, "input '%s' (%s) has too many elements", v->name, what);
  if (count < 0) lw_unsupported(ctx, n, "input '%s' (%s) must be known when compiling", v->name, what);
  return (int)count;
}

static void scales_of_upsample(tn_ctx *ctx, const ir_node *n, double *scale, int *count) {
  const ir_attr *a = ir_attr_find(n, "scales");
  *count = n->in[0]->rank;
  if (n->nin > 1) *count = given_floats(ctx, n, 1, "scales", scale, IR_MAX_RANK);
  else if (a && a->kind == IR_ATTR_FLOATS && a->n <= IR_MAX_RANK) {
    for (int i = 0; i < a->n; i++) scale[i] = a->floats[i];
    *count = a->n;
  } else if (lw_has_attr(n, "height_scale") && lw_has_attr(n, "width_scale")) {
    lw_need_rank(ctx, n, 0, 4);
    scale[0] = scale[1] = 1;
    scale[2] = ir_attr_get_float(n, "height_scale", 1);
    scale[3] = ir_attr_get_float(n, "width_scale", 1);
  } else lw_bad(ctx, n, "the scales are missing");
}

static void resize_of(tn_ctx *ctx, const ir_node *n, resize *r) {
  const ir_value *x = n->in[0];
  bool old = strcmp(n->op->name, "Upsample") == 0 || n->opset < 11;
  *r = (resize){.mode = ir_attr_get_string(n, "mode", "nearest"),
                .coordinates = old ? "asymmetric" : ir_attr_get_string(n, "coordinate_transformation_mode", "half_pixel"),
                .nearest = old ? "simple" : ir_attr_get_string(n, "nearest_mode", "round_prefer_floor"),
                .cubic_a = (float)ir_attr_get_float(n, "cubic_coeff_a", -0.75),
                .extrapolation = ir_attr_get_float(n, "extrapolation_value", 0),
                .antialias = ir_attr_get_int(n, "antialias", 0) != 0,
                .exclude_outside = ir_attr_get_int(n, "exclude_outside", 0) != 0};
  if (strcmp(r->mode, "bilinear") == 0) r->mode = "linear"; /* Upsample 1 */
  if (!one_of(r->mode, "|nearest|linear|cubic|")) lw_bad(ctx, n, "unknown mode '%s'", r->mode);
  if (!one_of(r->coordinates, "|half_pixel|half_pixel_symmetric|pytorch_half_pixel|align_corners|asymmetric|tf_crop_and_resize|"
                              "tf_half_pixel_for_nn|")) /* the last only in opset 11 */
    lw_bad(ctx, n, "unknown coordinate_transformation_mode '%s'", r->coordinates);
  if (!one_of(r->nearest, "|simple|round_prefer_floor|round_prefer_ceil|floor|ceil|")) lw_bad(ctx, n, "unknown nearest_mode '%s'", r->nearest);

  int axes[IR_MAX_RANK], naxes = lw_axes(ctx, n, "axes", -1, x->rank, axes), nscales = 0, nsizes = 0;
  if (naxes < 0)
    for (naxes = 0; naxes < x->rank; naxes++) axes[naxes] = naxes;
  double scale[IR_MAX_RANK], roi[2 * IR_MAX_RANK];
  int64_t size[IR_MAX_RANK];
  if (old) scales_of_upsample(ctx, n, scale, &nscales);
  else {
    nscales = given_floats(ctx, n, 2, "scales", scale, IR_MAX_RANK);
    if (lw_has(n, 3) && nscales == 0) nsizes = lw_need_ints(ctx, n, 3, "sizes", size, IR_MAX_RANK);
  }
  if (nscales != naxes && nsizes != naxes) lw_bad(ctx, n, "%d scales and %d sizes are given for %d axes", nscales, nsizes, naxes);
  for (int i = 0; i < x->rank; i++) {
    r->size[i] = ir_dim(ctx, x, i);
    r->scale[i] = r->roi_end[i] = 1;
  }
  const char *policy = ir_attr_get_string(n, "keep_aspect_ratio_policy", "stretch");
  double common = 0;
  for (int k = 0; k < naxes; k++) {
    int64_t have = r->size[axes[k]];
    if (nscales == naxes) {
      if (!(scale[k] > 0 && scale[k] < 0x1p40)) lw_bad(ctx, n, "scale %g at axis %d", scale[k], axes[k]);
      float extent = floorf((float)have * (float)scale[k]);
      if (!(extent < 0x1p46f)) lw_bad(ctx, n, "scale %g at axis %d", scale[k], axes[k]);
      r->scale[axes[k]] = scale[k];
      r->size[axes[k]] = (int64_t)extent;
      continue;
    }
    if (size[k] < 0 || (have == 0 && size[k] > 0)) lw_bad(ctx, n, "size %lld at axis %d of extent %lld", (long long)size[k], axes[k], (long long)have);
    double s = have ? (double)size[k] / (double)have : 1;
    r->scale[axes[k]] = s;
    r->size[axes[k]] = size[k];
    if (k == 0 || (strcmp(policy, "not_larger") == 0 ? s < common : s > common)) common = s;
  }
  if (nscales != naxes && strcmp(policy, "stretch") != 0) {
    if (!one_of(policy, "|not_larger|not_smaller|")) lw_bad(ctx, n, "unknown keep_aspect_ratio_policy '%s'", policy);
    for (int k = 0; k < naxes; k++) {
      double extent = floor(common * (double)ir_dim(ctx, x, axes[k]) + 0.5);
      if (!(extent < 0x1p46)) lw_bad(ctx, n, "the result is too large");
      r->scale[axes[k]] = common;
      r->size[axes[k]] = (int64_t)extent;
    }
  }
  if (strcmp(r->coordinates, "tf_crop_and_resize") == 0) {
    if (given_floats(ctx, n, 1, "roi", roi, 2 * IR_MAX_RANK) != 2 * naxes) lw_bad(ctx, n, "roi must have %d elements", 2 * naxes);
    for (int k = 0; k < naxes; k++) r->roi_start[axes[k]] = roi[k], r->roi_end[axes[k]] = roi[naxes + k];
  }
}

static void resize_infer(tn_ctx *ctx, ir_node *n) {
  resize r;
  ix dims[IR_MAX_RANK];
  resize_of(ctx, n, &r);
  for (int i = 0; i < n->in[0]->rank; i++) dims[i] = ix_index(ctx, r.size[i]);
  lw_set(n, 0, n->in[0]->dtype, n->in[0]->rank, dims);
}

/* ---- coordinates ---- */

/* Where output element o of the axis lies in the input; `have` elements become `out`. */
static double coordinate_rule(const resize *r, int axis, int64_t have, int64_t o) {
  double scale = r->scale[axis], x = (double)o, out = (double)r->size[axis], in = (double)have, real = scale * in;
  const char *c = r->coordinates;
  if (strcmp(c, "align_corners") == 0) return real == 1 ? 0 : x * (in - 1) / (real - 1);
  if (strcmp(c, "asymmetric") == 0) return x / scale;
  if (strcmp(c, "tf_half_pixel_for_nn") == 0) return (x + 0.5) / scale;
  if (strcmp(c, "tf_crop_and_resize") == 0) {
    double from = r->roi_start[axis], to = r->roi_end[axis];
    return out == 1 ? 0.5 * (from + to) * (in - 1) : from * (in - 1) + x * (to - from) * (in - 1) / (real - 1);
  }
  if (strcmp(c, "pytorch_half_pixel") == 0 && out == 1) return 0;
  double shift = strcmp(c, "half_pixel_symmetric") == 0 ? in / 2 * (1 - out / real) : 0;
  return shift + (x + 0.5) / scale - 0.5;
}
static double coordinate(const resize *r, int axis, int64_t have, int64_t o) {
  double x = coordinate_rule(r, axis, have, o), far = 0x1p50; /* a wild region of interest must not overflow */
  return x > far ? far : x > -far ? x : -far;
}
static float coordinate32_rule(const resize *r, int axis, int64_t have, int64_t o) {
  float scale = (float)r->scale[axis], x = (float)o, out = (float)r->size[axis], in = (float)have;
  const char *c = r->coordinates;
  if (strcmp(c, "align_corners") == 0) return out == 1 ? 0 : x * (in - 1) / (out - 1);
  if (strcmp(c, "asymmetric") == 0) return x / scale;
  if (strcmp(c, "tf_half_pixel_for_nn") == 0) return (x + 0.5f) / scale;
  if (strcmp(c, "tf_crop_and_resize") == 0) {
    float from = (float)r->roi_start[axis], to = (float)r->roi_end[axis];
    return out > 1 ? from * (in - 1) + x * (to - from) * (in - 1) / (out - 1) : 0.5f * (from + to) * (in - 1);
  }
  if (strcmp(c, "pytorch_half_pixel") == 0 && out == 1) return 0;
  if (strcmp(c, "half_pixel_symmetric") == 0) return in / 2 * (1 - out / (scale * in)) + (x + 0.5f) / scale - 0.5f;
  return (x + 0.5f) / scale - 0.5f;
}

static float coordinate32(const resize *r, int axis, int64_t have, int64_t o) {
  float x = coordinate32_rule(r, axis, have, o), far = 0x1p50f;
  return x > far ? far : x > -far ? x : -far;
}

static int64_t nearest_pixel(const resize *r, int axis, float x) {
  float f = floorf(x), frac = x - f;
  const char *m = r->nearest;
  bool up = strcmp(m, "ceil") == 0 || (strcmp(m, "simple") == 0 && r->scale[axis] < 1)
                ? frac > 0
                : strcmp(m, "round_prefer_floor") == 0 ? frac > 0.5f : strcmp(m, "round_prefer_ceil") == 0 ? frac >= 0.5f : false;
  return (int64_t)f + up;
}

static double cubic(double x, double a) {
  x = fabs(x);
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
  return 0;
}

/* Taps per output element of linear or cubic; always even, centred on the coordinate. */
static int64_t tap_count(const resize *r, double scale) {
  bool linear = r->mode[0] == 'l';
  if (!r->antialias || scale >= 1) return linear ? 2 : 4;
  return 2 - 2 * ((int64_t)floor((linear ? -1 : -2) / scale) + 1);
}

/* Weights and input indices of output element o. */
static void taps_of(const resize *r, int axis, int64_t have, int64_t o, int64_t count, double *weight, int64_t *index) {
  double x = coordinate(r, axis, have, o), left = floor(x), ratio = x == left ? 1 : x - left, sum = 0;
  double scale = r->antialias && r->scale[axis] < 1 ? r->scale[axis] : 1;
  int64_t first = (int64_t)left - count / 2 + (x == left ? 0 : 1);
  for (int64_t t = 0; t < count; t++) {
    double d = ((double)(t - count / 2 + 1) - ratio) * scale, w = r->mode[0] == 'l' ? 1 - fabs(d) : cubic(d, r->cubic_a);
    weight[t] = r->mode[0] == 'l' && w < 0 ? 0 : w;
    index[t] = first + t;
    if (r->exclude_outside && (index[t] < 0 || index[t] >= have)) weight[t] = 0;
    sum += weight[t];
  }
  for (int64_t t = 0; t < count; t++) {
    if ((r->antialias || r->exclude_outside) && sum != 0) weight[t] /= sum;
    index[t] = index[t] < 0 ? 0 : index[t] >= have ? have - 1 : index[t];
  }
}

/* ---- expansion ---- */

static bool axis_kept(const resize *r, int axis, int64_t have) {
  return r->size[axis] == have && fabs(r->scale[axis] - 1) <= 1e-9 && fabs(r->roi_start[axis]) <= 1e-9 && fabs(r->roi_end[axis] - 1) <= 1e-9;
}

/* Finds (o * mul + add) div d for the list of indices: d pixels alike, or one in mul. */
static bool regular(const int64_t *at, int64_t n, int64_t *mul, int64_t *add, int64_t *div) {
  int64_t same = 1, i;
  while (same < n && at[same] == at[0]) same++;
  *div = same, *mul = 1, *add = at[0] * same;
  for (i = 0; i < n && (i + *add) / same == at[i]; i++) continue;
  if (i == n) return true;
  *div = 1, *mul = n > 1 ? at[1] - at[0] : 1, *add = at[0];
  for (i = 0; i < n && *mul > 0 && i * *mul + *add == at[i]; i++) continue;
  return i == n;
}

static ir_value *resize_axis(ir_graph *g, ir_node *n, const resize *r, int axis, ir_value *x, tn_dtype to) {
  tn_ctx *ctx = g->ctx;
  int64_t have = ir_dim(ctx, x, axis), out = r->size[axis];
  bool crop = strcmp(r->coordinates, "tf_crop_and_resize") == 0, nearest = r->mode[0] == 'n', outside = false;
  int64_t taps = nearest || out == 0 ? 1 : tap_count(r, r->scale[axis]), count;
  if (!ir_mul_size(out, taps, &count) || count > (int64_t)1 << 26) lw_unsupported(ctx, n, "%lld taps for each of %lld elements", (long long)taps, (long long)out);
  int64_t *index = IR_NEW_ARRAY(ctx, int64_t, count + 1);
  double *weight = IR_NEW_ARRAY(ctx, double, count + 1);
  for (int64_t o = 0; o < out; o++) {
    double x0;
    if (nearest) {
      float at = coordinate32(r, axis, have, o);
      int64_t p = nearest_pixel(r, axis, at);
      index[o] = p < 0 ? 0 : p >= have ? have - 1 : p;
      weight[o] = 1;
      x0 = at;
    } else {
      taps_of(r, axis, have, o, taps, weight + o * taps, index + o * taps);
      x0 = coordinate(r, axis, have, o);
    }
    if (!crop || (x0 >= 0 && x0 <= (double)(have - 1))) continue;
    outside = true; /* -1: the element is the extrapolation value */
    for (int64_t t = 0; t < taps; t++) index[o * taps + t] = -1;
  }
  int64_t mul, add, div;
  ir_node *m;
  if (nearest && !outside && out > 0 && regular(index, out, &mul, &add, &div)) {
    m = lw_node_n(g, n, "tenon:Stretch", 1, &x, 1);
    ir_attr_ints(m, "rule", 4, (int64_t[]){out, mul, add, div});
  } else if (nearest && !outside) m = lw_node_n(g, n, "Gather", 2, (ir_value *[]){x, ir_graph_ints(g, NULL, (int)out, index)}, 1);
  else {
    tn_dtype wt = x->dtype == TN_F64 || to == TN_F64 || !ir_is_float(x->dtype) ? TN_F64 : TN_F32;
    float *w32 = NULL;
    if (wt == TN_F32) {
      w32 = IR_NEW_ARRAY(ctx, float, count + 1);
      for (int64_t i = 0; i < count; i++) w32[i] = (float)weight[i];
    }
    int64_t shape[2] = {out, taps};
    ir_value *in[3] = {x, ir_graph_const(g, NULL, TN_I64, 2, shape, index, false),
                       ir_graph_const(g, NULL, wt, 2, shape, w32 ? (void *)w32 : (void *)weight, false)};
    m = lw_node_n(g, n, "tenon:Resample", 3, in, 1);
    ir_attr_float(m, "outside", r->extrapolation);
    ir_attr_string(m, "to", ir_dtype_name(to));
  }
  ir_attr_int(m, "axis", axis);
  ir_infer(ctx, m);
  return m->out[0];
}

static void resize_expand(ir_graph *g, ir_node *n) {
  tn_ctx *ctx = g->ctx;
  resize r;
  resize_of(ctx, n, &r);
  ir_value *x = n->in[0];
  tn_dtype t = x->dtype, mid = r.mode[0] == 'n' ? t : ir_is_float(t) && t != TN_F64 ? TN_F32 : TN_F64;
  int last = -1; /* axes run from the innermost out: rows are short then */
  for (int i = x->rank - 1; i >= 0; i--)
    if (!axis_kept(&r, i, ir_dim(ctx, x, i))) last = i;
  for (int i = x->rank - 1; i >= 0; i--)
    if (!axis_kept(&r, i, ir_dim(ctx, x, i))) x = resize_axis(g, n, &r, i, x, i == last ? t : mid);
  if (last < 0) x = lw_node(g, n, "Identity", 1, &x);
  lw_replace(g, n, 0, x);
}

/* ---- Stretch ---- */

static void stretch_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  const int64_t *r;
  int axis = ir_axis(ctx, n, ir_attr_get_int(n, "axis", 0), x->rank);
  if (x->rank == 0 || ir_attr_get_ints(n, "rule", &r) != 4) lw_bad(ctx, n, "needs rule = [extent, mul, add, div]");
  int64_t have = ir_dim(ctx, x, axis), end;
  if (r[0] < 1 || r[1] < 0 || r[2] < 0 || r[3] < 1 || !ir_mul_size(r[0] - 1, r[1], &end) || !ir_add_size(end, r[2], &end) || end / r[3] >= have)
    lw_bad(ctx, n, "the rule leaves axis %d of extent %lld", axis, (long long)have);
  ix dims[IR_MAX_RANK];
  for (int i = 0; i < x->rank; i++) dims[i] = x->dims[i];
  dims[axis] = ix_index(ctx, r[0]);
  lw_set(n, 0, x->dtype, x->rank, dims);
}
static ix stretch_value(lw_build *b, ir_node *n, int out, const ix *index) {
  (void)out;
  tn_ctx *ctx = lw_ctx(b);
  int axis = ir_axis(ctx, n, ir_attr_get_int(n, "axis", 0), n->in[0]->rank);
  const int64_t *r = NULL;
  ir_attr_get_ints(n, "rule", &r);
  ix at[IR_MAX_RANK];
  for (int i = 0; i < n->in[0]->rank; i++) at[i] = index[i];
  at[axis] = ix_divi(ctx, ix_addi(ctx, ix_muli(ctx, at[axis], r[1]), r[2]), r[3]);
  return lw_in(b, n, 0, at);
}

/* ---- Resample ---- */

static bool resample_outside(tn_ctx *ctx, const ir_node *n) {
  const int64_t *p = n->in[1]->data;
  int64_t count = ir_value_elements(ctx, n->in[1]);
  for (int64_t i = 0; i < count; i++)
    if (p[i] < 0) return true;
  return false;
}
static void resample_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  int axis = ir_axis(ctx, n, ir_attr_get_int(n, "axis", 0), x->rank);
  lw_need_rank(ctx, n, 1, 2);
  lw_need_rank(ctx, n, 2, 2);
  if (x->rank == 0 || n->in[1]->dtype != TN_I64 || !n->in[1]->data || !ir_is_float(n->in[2]->dtype)) lw_bad(ctx, n, "needs a known i64 table of indices and float weights");
  if (n->in[1]->dims[0] != n->in[2]->dims[0] || n->in[1]->dims[1] != n->in[2]->dims[1] || ir_dim(ctx, n->in[1], 1) < 1) lw_bad(ctx, n, "the tables differ in shape");
  int64_t count = ir_value_elements(ctx, n->in[1]), have = ir_dim(ctx, x, axis);
  for (int64_t i = 0; i < count; i++)
    if (((const int64_t *)n->in[1]->data)[i] >= have) lw_bad(ctx, n, "the table leaves axis %d", axis);
  const char *to = ir_attr_get_string(n, "to", ir_dtype_name(x->dtype));
  tn_dtype t = ir_dtype_parse(to, strlen(to));
  if (t == TN_NONE || t == TN_INDEX) lw_bad(ctx, n, "unknown element type '%s'", to);
  ix dims[IR_MAX_RANK];
  for (int i = 0; i < x->rank; i++) dims[i] = x->dims[i];
  dims[axis] = n->in[1]->dims[0];
  lw_set(n, 0, t, x->rank, dims);
}
static ix resample_tap(lw_build *b, ir_node *n, int axis, const ix *at, ix t, bool outside) {
  tn_ctx *ctx = lw_ctx(b);
  ix from[IR_MAX_RANK], where[2] = {at[axis], t};
  for (int i = 0; i < n->in[0]->rank; i++) from[i] = at[i];
  from[axis] = ix_cast(ctx, TN_INDEX, lw_in(b, n, 1, where));
  if (outside) from[axis] = ix_max(ctx, from[axis], ix_index(ctx, 0));
  ix w = lw_in(b, n, 2, where);
  return ix_mul(ctx, w, ix_cast(ctx, (tn_dtype)w->dtype, lw_in(b, n, 0, from)));
}
static void resample_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *s = lw_b(b);
  const ir_value *y = n->out[0];
  int axis = ir_axis(ctx, n, ir_attr_get_int(n, "axis", 0), y->rank);
  int64_t taps = ir_dim(ctx, n->in[1], 1);
  bool outside = resample_outside(ctx, n);
  ix at[IR_MAX_RANK], sum;
  lw_loops(b, NULL, y->rank, y->dims, at);
  if (taps <= 4) {
    sum = resample_tap(b, n, axis, at, ix_index(ctx, 0), outside);
    for (int64_t t = 1; t < taps; t++) sum = ix_add(ctx, sum, resample_tap(b, n, axis, at, ix_index(ctx, t), outside));
  } else {
    ir_buf *acc = ib_local(s, "acc", n->in[2]->dtype, lw_zero(ctx, n->in[2]->dtype));
    ix t = ib_loop(s, "t", ix_index(ctx, taps));
    ib_update(s, acc, NULL, IR_ADD, resample_tap(b, n, axis, at, t, outside));
    ib_end(s);
    sum = ib_get(s, acc);
  }
  if (!ir_is_float(y->dtype)) sum = ix_unary(ctx, IX_ROUND, sum); /* the cast saturates */
  sum = ix_cast(ctx, y->dtype, sum);
  if (outside) {
    ix first = lw_in(b, n, 1, (ix[]){at[axis], ix_index(ctx, 0)});
    sum = ix_select(ctx, ix_lt(ctx, first, ix_int(ctx, TN_I64, 0)), ix_num(ctx, y->dtype, ir_attr_get_float(n, "outside", 0)), sum);
  }
  lw_out(b, n, 0, at, sum);
  ib_end_n(s, y->rank);
}

/* Linear along one axis: y = W x with W[o, i] the weights of the taps that read i. */
static void resample_grad(lw_grad *d) {
  ir_graph *g = d->g;
  ir_node *n = d->n;
  const ir_value *x = n->in[0];
  tn_dtype t = lw_compute_type(x->dtype);
  int axis = ir_axis(d->ctx, n, ir_attr_get_int(n, "axis", 0), x->rank);
  int64_t in = ir_dim(d->ctx, x, axis), out = ir_dim(d->ctx, n->out[0], axis), taps = ir_dim(d->ctx, n->in[1], 1), rows[3] = {1, out, 1}, dims[IR_MAX_RANK];
  ir_value *zero = ir_graph_scalar(g, NULL, TN_I64, 0), *bits[2] = {ir_graph_scalar(g, NULL, t, 0), ir_graph_scalar(g, NULL, t, 1)};
  for (int i = 0; i < 2; i++) bits[i] = lw_reshape(g, n, bits[i], 1, (int64_t[]){1});
  ir_value *w = lw_cast_node(g, n, n->in[2], t);
  if (lw_has_attr(n, "outside")) { /* rows from outside are a number */
    ir_value *first = lw_slice(g, n, n->in[1], 1, 0, 1);
    w = lw_op3(g, n, "Where", lw_op2(g, n, "Less", first, zero), lw_number(g, w, 0), w);
  }
  ir_value *place = lw_op2(g, n, "Max", n->in[1], zero);
  ir_value *hot = lw_op3(g, n, "OneHot", place, ir_graph_scalar(g, NULL, TN_I64, (double)in), lw_concat(g, n, 0, 2, bits)); /* [out, taps, in] */
  ir_value *matrix = lw_grad_sum(g, n, lw_op2(g, n, "Mul", hot, lw_reshape(g, n, w, 3, (int64_t[]){out, taps, 1})), 1, (int64_t[]){1}, false);
  for (int i = 0; i < x->rank; i++) rows[i < axis ? 0 : 2] *= i == axis ? 1 : ir_dim(d->ctx, x, i);
  ir_value *dy = lw_cast_node(g, n, lw_reshape(g, n, d->dy[0], 3, rows), t);
  ir_node *m = lw_node_n(g, n, "tenon:MatMul", 2, (ir_value *[]){lw_reshape(g, n, matrix, 3, (int64_t[]){1, out, in}), dy}, 1);
  ir_attr_int(m, "transA", 1);
  ir_infer(d->ctx, m);
  lw_grad_dims(d->ctx, x, dims);
  lw_grad_add(d, 0, lw_reshape(g, n, m->out[0], x->rank, dims));
}

const ir_op lw_ops_resize[] = {
    {"Resize", "", IR_OP_COMPOSITE, 10, 1, 4, 1, 1,
     "mode:s coordinate_transformation_mode:s nearest_mode:s cubic_coeff_a:f exclude_outside:i extrapolation_value:f antialias:i axes:I "
     "keep_aspect_ratio_policy:s",
     resize_infer, NULL, NULL, resize_expand, NULL, NULL},
    {"Upsample", "", IR_OP_COMPOSITE, 1, 1, 2, 1, 1, "mode:s scales:F height_scale:f width_scale:f", resize_infer, NULL, NULL, resize_expand, NULL, NULL},
    {"Stretch", "tenon", IR_OP_MOVEMENT, 1, 1, 1, 1, 1, "axis:i rule:I", stretch_infer, stretch_value, NULL, NULL, NULL, lw_grad_moved},
    {"Resample", "tenon", IR_OP_REDUCTION, 1, 3, 3, 1, 1, "axis:i outside:f to:s", resample_infer, NULL, resample_build, NULL, NULL, resample_grad},
    {0}};
