/* ops_image.c — sampling images where data says: GridSample, AffineGrid, RoiAlign,
 * MaxRoiPool; and the inverses of windows: MaxUnpool, Col2Im. */
#include "lower/grad.h"
#include "lower/window.h"
#include <math.h>
#include <string.h>

static ix num(tn_ctx *ctx, ix like, double v) { return ix_num(ctx, (tn_dtype)like->dtype, v); }
static ix outside_of(tn_ctx *ctx, ix x, ix lo, ix hi) { return ix_or(ctx, ix_lt(ctx, x, lo), ix_lt(ctx, hi, x)); }

/* ---- GridSample ---- */

typedef struct grid_sample {
  int axes;            /* spatial axes, 1 to 3 */
  int taps;            /* per axis: 1 nearest, 2 linear, 4 cubic */
  char padding;        /* z zeros, b border, r reflection */
  bool align;
  tn_dtype t;          /* in which values are weighted */
  const ir_value *x;
  ix at[IR_MAX_RANK];  /* batch, channel, then the pixel */
  ix pixel[3][4], inside[3][4], weight[3][4];
} grid_sample;

static void grid_sample_of(tn_ctx *ctx, const ir_node *n, grid_sample *g) {
  const char *mode = ir_attr_get_string(n, "mode", "linear"), *padding = ir_attr_get_string(n, "padding_mode", "zeros");
  *g = (grid_sample){.x = n->in[0], .axes = n->in[0]->rank - 2, .padding = padding[0], .align = ir_attr_get_int(n, "align_corners", 0) != 0};
  if (strcmp(mode, "bilinear") == 0 || strcmp(mode, "linear") == 0) g->taps = 2;
  else if (strcmp(mode, "bicubic") == 0 || strcmp(mode, "cubic") == 0) g->taps = 4;
  else if (strcmp(mode, "nearest") == 0) g->taps = 1;
  else lw_bad(ctx, n, "unknown mode '%s'", mode);
  if (strcmp(padding, "zeros") != 0 && strcmp(padding, "border") != 0 && strcmp(padding, "reflection") != 0)
    lw_bad(ctx, n, "unknown padding_mode '%s'", padding);
  if (g->axes < 1 || g->axes > 3) lw_unsupported(ctx, n, "an input of rank %d", n->in[0]->rank);
  g->t = ir_is_float(g->x->dtype) ? lw_compute_type(g->x->dtype) : TN_F32;
}
static void grid_sample_infer(tn_ctx *ctx, ir_node *n) {
  grid_sample g;
  grid_sample_of(ctx, n, &g);
  const ir_value *x = n->in[0], *grid = n->in[1];
  lw_need_rank(ctx, n, 1, x->rank);
  if (!ir_is_float(grid->dtype)) lw_bad(ctx, n, "the grid is %s, not float", ir_dtype_name(grid->dtype));
  if (!ix_is_int(grid->dims[x->rank - 1], g.axes)) lw_bad(ctx, n, "the last axis of the grid must have extent %d", g.axes);
  if (ix_is_const(x->dims[0]) && ix_is_const(grid->dims[0]) && x->dims[0] != grid->dims[0]) lw_bad(ctx, n, "the batches of input and grid differ");
  ix dims[IR_MAX_RANK] = {x->dims[0], x->dims[1]};
  for (int i = 0; i < g.axes; i++) {
    dims[2 + i] = grid->dims[1 + i];
    if (ir_dim(ctx, x, 2 + i) < 1) lw_bad(ctx, n, "the image is empty");
  }
  lw_set(n, 0, x->dtype, x->rank, dims);
}

/* x folded back into [lo, hi] as between two mirrors; unchanged inside. */
static ix reflect(tn_ctx *ctx, ix x, double lo, double hi) {
  ix l = num(ctx, x, lo), h = num(ctx, x, hi);
  if (hi <= lo) return l;
  ix range = num(ctx, x, hi - lo), below = ix_lt(ctx, x, l), beyond = ix_select(ctx, below, ix_sub(ctx, l, x), ix_sub(ctx, x, h));
  ix turns = ix_unary(ctx, IX_TRUNC, ix_div(ctx, beyond, range)), rest = ix_sub(ctx, beyond, ix_mul(ctx, turns, range));
  ix half = ix_unary(ctx, IX_FLOOR, ix_mul(ctx, turns, num(ctx, x, 0.5)));
  ix even = ix_eq(ctx, turns, ix_mul(ctx, half, num(ctx, x, 2)));
  ix inside = ix_select(ctx, ix_eq(ctx, below, even), ix_add(ctx, l, rest), ix_sub(ctx, h, rest));
  return ix_select(ctx, outside_of(ctx, x, l, h), inside, x);
}

/* Keys' cubic convolution with a = -0.75: weights of the pixels at -1, 0, 1, 2 from the floor. */
static void cubic_weights(tn_ctx *ctx, ix x, ix *w) {
  const double a = -0.75;
#define N(v) num(ctx, x, v)
  for (int i = 0; i < 4; i++) {
    ix d = i == 0 ? ix_add(ctx, x, N(1)) : i == 1 ? x : i == 2 ? ix_sub(ctx, N(1), x) : ix_sub(ctx, N(2), x), p;
    if (i == 1 || i == 2) {
      p = ix_sub(ctx, ix_mul(ctx, N(a + 2), d), N(a + 3));
      w[i] = ix_add(ctx, ix_mul(ctx, ix_mul(ctx, p, d), d), N(1));
    } else {
      p = ix_sub(ctx, ix_mul(ctx, N(a), d), N(5 * a));
      p = ix_add(ctx, ix_mul(ctx, p, d), N(8 * a));
      w[i] = ix_sub(ctx, ix_mul(ctx, p, d), N(4 * a));
    }
  }
#undef N
}

/* Pixels and weights along one axis at the normalised coordinate v, where -1 and 1 are the borders. */
static void sample_axis(lw_build *b, grid_sample *g, int axis, ix v) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *s = lw_b(b);
  ix extent = g->x->dims[2 + axis], zero = ix_index(ctx, 0), last = ix_addi(ctx, extent, -1);
  double n = (double)ir_dim(ctx, g->x, 2 + axis), lo = g->align ? 0 : -0.5, hi = g->align ? n - 1 : n - 0.5;
  ix one = num(ctx, v, 1), x = ix_add(ctx, v, one);
  if (g->align) x = ix_mul(ctx, ix_div(ctx, x, num(ctx, v, 2)), num(ctx, v, n - 1));
  else x = ix_div(ctx, ix_sub(ctx, ix_mul(ctx, x, num(ctx, v, n)), one), num(ctx, v, 2));
  if (g->taps == 1) x = ix_unary(ctx, IX_ROUND, x);
  x = ib_let(s, "x", x);
  if (g->padding == 'b') x = ix_select(ctx, outside_of(ctx, x, num(ctx, x, lo), num(ctx, x, hi)), lw_clamp(ctx, x, num(ctx, x, 0), num(ctx, x, n - 1)), x);
  if (g->padding == 'r') x = ib_let(s, "x", reflect(ctx, x, lo, hi));
  ix whole = ib_let(s, "whole", ix_unary(ctx, IX_FLOOR, x));
  if (g->taps == 2) {
    g->weight[axis][1] = ib_let(s, "w", ix_cast(ctx, g->t, ix_sub(ctx, x, whole)));
    g->weight[axis][0] = ib_let(s, "w", ix_sub(ctx, ix_float(ctx, g->t, 1), g->weight[axis][1]));
  } else if (g->taps == 4) {
    cubic_weights(ctx, ib_let(s, "f", ix_cast(ctx, g->t, ix_sub(ctx, x, whole))), g->weight[axis]);
    for (int i = 0; i < 4; i++) g->weight[axis][i] = ib_let(s, "w", g->weight[axis][i]);
  }
  /* far outside is all alike; a NaN lands there too */
  ix near = lw_clamp(ctx, whole, num(ctx, x, -4), num(ctx, x, n + 4));
  ix first = ib_let(s, "p", ix_cast(ctx, TN_INDEX, near));
  for (int i = 0; i < g->taps; i++) {
    ix p = ix_addi(ctx, first, g->taps == 4 ? i - 1 : i);
    g->inside[axis][i] = g->padding == 'z' ? ix_within(ctx, p, zero, extent) : ix_bool(ctx, true);
    if (g->padding == 'r') p = ix_cast(ctx, TN_INDEX, reflect(ctx, ix_cast(ctx, (tn_dtype)v->dtype, p), lo, hi));
    g->pixel[axis][i] = g->taps == 1 && g->padding == 'z' ? lw_clamp(ctx, p, zero, last) : ib_let(s, "p", lw_clamp(ctx, p, zero, last));
  }
}

static ix sample_sum(lw_build *b, ir_node *n, grid_sample *g, int axis, ix inside) {
  tn_ctx *ctx = lw_ctx(b);
  if (axis == g->axes) {
    ix v = lw_in(b, n, 0, g->at);
    if (g->taps > 1) v = ix_cast(ctx, g->t, v);
    return ix_select(ctx, inside, v, lw_zero(ctx, (tn_dtype)v->dtype));
  }
  ix sum = NULL;
  for (int i = 0; i < g->taps; i++) {
    g->at[2 + axis] = g->pixel[axis][i];
    ix v = sample_sum(b, n, g, axis + 1, ix_and(ctx, inside, g->inside[axis][i]));
    if (g->taps == 1) return v;
    v = ix_mul(ctx, g->weight[axis][i], v);
    sum = sum ? ix_add(ctx, sum, v) : v;
  }
  return sum;
}
static void grid_sample_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  const ir_value *y = n->out[0];
  grid_sample g;
  grid_sample_of(ctx, n, &g);
  ix at[IR_MAX_RANK], where[IR_MAX_RANK];
  lw_loops(b, "nc", y->rank, y->dims, at);
  g.at[0] = where[0] = at[0];
  g.at[1] = at[1];
  for (int i = 0; i < g.axes; i++) where[1 + i] = at[2 + i];
  for (int i = 0; i < g.axes; i++) { /* the grid names the innermost axis first */
    where[1 + g.axes] = ix_index(ctx, g.axes - 1 - i);
    ix v = lw_in(b, n, 1, where);
    sample_axis(b, &g, i, ix_cast(ctx, lw_compute_type((tn_dtype)v->dtype), v));
  }
  ix sum = sample_sum(b, n, &g, 0, ix_bool(ctx, true));
  if (!ir_is_float(y->dtype) && g.taps > 1) sum = ix_unary(ctx, IX_ROUND, sum);
  lw_out(b, n, 0, at, ix_cast(ctx, y->dtype, sum));
  ib_end_n(lw_b(b), y->rank);
}

/* ---- AffineGrid ---- */

static int affine_size(tn_ctx *ctx, const ir_node *n, int64_t *size) {
  int count = lw_need_ints(ctx, n, 1, "size", size, 5);
  if (count != 4 && count != 5) lw_bad(ctx, n, "size has %d entries, not 4 or 5", count);
  for (int i = 0; i < count; i++)
    if (size[i] < 0) lw_bad(ctx, n, "size has the entry %lld", (long long)size[i]);
  return count - 2;
}
static void affine_grid_infer(tn_ctx *ctx, ir_node *n) {
  int64_t size[5];
  int axes = affine_size(ctx, n, size);
  lw_need_rank(ctx, n, 0, 3);
  if (!ir_is_float(n->in[0]->dtype)) lw_bad(ctx, n, "theta is not float");
  if (!ix_is_int(n->in[0]->dims[0], size[0]) || !ix_is_int(n->in[0]->dims[1], axes) || !ix_is_int(n->in[0]->dims[2], axes + 1))
    lw_bad(ctx, n, "theta must be [%lld, %d, %d]", (long long)size[0], axes, axes + 1);
  ix dims[5];
  dims[0] = ix_index(ctx, size[0]);
  for (int i = 0; i < axes; i++) dims[1 + i] = ix_index(ctx, size[2 + i]);
  dims[1 + axes] = ix_index(ctx, axes);
  lw_set(n, 0, n->in[0]->dtype, axes + 2, dims);
}
static ix affine_grid_value(lw_build *b, ir_node *n, int out, const ix *index) {
  tn_ctx *ctx = lw_ctx(b);
  int64_t size[5];
  int axes = affine_size(ctx, n, size);
  tn_dtype t = n->out[out]->dtype, c = lw_compute_type(t);
  bool align = ir_attr_get_int(n, "align_corners", 0) != 0;
  ix at[3] = {index[0], index[1 + axes]}, sum = NULL;
  for (int k = 0; k <= axes; k++) { /* columns of theta: x, y, (z), 1 */
    at[2] = ix_index(ctx, k);
    ix term = ix_cast(ctx, c, lw_in(b, n, 0, at));
    if (k < axes) {
      int axis = axes - 1 - k;
      double d = (double)size[2 + axis], step = align ? (d > 1 ? 2 / (d - 1) : 0) : 2 / d, first = align ? (d > 1 ? -1 : 0) : step / 2 - 1;
      ix x = ix_mul(ctx, ix_cast(ctx, c, index[1 + axis]), ix_float(ctx, c, d > 0 ? step : 0));
      term = ix_mul(ctx, term, ix_add(ctx, x, ix_float(ctx, c, d > 0 ? first : 0)));
    }
    sum = sum ? ix_add(ctx, sum, term) : term;
  }
  return ix_cast(ctx, t, sum);
}

/* ---- RoiAlign ---- */

static int64_t pooled(tn_ctx *ctx, const ir_node *n, const char *name) {
  int64_t v = ir_attr_get_int(n, name, 1);
  if (v < 1) lw_bad(ctx, n, "%s is %lld", name, (long long)v);
  return v;
}
static void check_image(tn_ctx *ctx, const ir_node *n, int64_t columns) {
  lw_need_rank(ctx, n, 0, 4);
  lw_need_rank(ctx, n, 1, 2);
  lw_need_same_type(ctx, n, 0, 1);
  if (!ir_is_float(n->in[0]->dtype)) lw_bad(ctx, n, "the input is not float");
  if (!ix_is_int(n->in[1]->dims[1], columns)) lw_bad(ctx, n, "rois must have %lld columns", (long long)columns);
  for (int i = 0; i < 4; i++)
    if (i != 1 && ir_dim(ctx, n->in[0], i) < 1) lw_bad(ctx, n, "the input is empty");
}
static void roi_align_infer(tn_ctx *ctx, ir_node *n) {
  check_image(ctx, n, 4);
  lw_need_rank(ctx, n, 2, 1);
  lw_need_integer(ctx, n, 2);
  if (n->in[1]->dims[0] != n->in[2]->dims[0]) lw_bad(ctx, n, "rois and batch_indices differ in length");
  const char *mode = ir_attr_get_string(n, "mode", "avg"), *c = ir_attr_get_string(n, "coordinate_transformation_mode", "half_pixel");
  if (strcmp(mode, "avg") != 0 && strcmp(mode, "max") != 0) lw_bad(ctx, n, "unknown mode '%s'", mode);
  if (strcmp(c, "half_pixel") != 0 && strcmp(c, "output_half_pixel") != 0) lw_bad(ctx, n, "unknown coordinate_transformation_mode '%s'", c);
  if (ir_attr_get_int(n, "sampling_ratio", 0) > 1 << 16 || ir_attr_get_int(n, "sampling_ratio", 0) < 0) lw_bad(ctx, n, "sampling_ratio is out of range");
  ix h = ix_index(ctx, pooled(ctx, n, "output_height")), w = ix_index(ctx, pooled(ctx, n, "output_width"));
  lw_set(n, 0, n->in[0]->dtype, 4, (ix[]){n->in[1]->dims[0], n->in[0]->dims[1], h, w});
}

/* A sample's place along one axis: two pixels and the weight of the second. */
typedef struct between {
  ix low, high, part, rest, inside;
} between;

static between place(lw_build *b, ix y, ix extent) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *s = lw_b(b);
  ix last = ix_addi(ctx, extent, -1), edge = ix_cast(ctx, (tn_dtype)y->dtype, extent);
  between r = {.inside = ix_not(ctx, outside_of(ctx, y, num(ctx, y, -1), edge))};
  ix at = ib_let(s, "y", ix_max(ctx, y, num(ctx, y, 0)));
  r.low = ib_let(s, "low", lw_clamp(ctx, ix_cast(ctx, TN_INDEX, ix_min(ctx, at, edge)), ix_index(ctx, 0), last));
  r.high = ix_min(ctx, ix_addi(ctx, r.low, 1), last);
  r.part = ib_let(s, "part", ix_select(ctx, ix_lt(ctx, r.low, last), ix_sub(ctx, at, ix_cast(ctx, (tn_dtype)y->dtype, r.low)), num(ctx, y, 0)));
  r.rest = ix_sub(ctx, num(ctx, y, 1), r.part);
  return r;
}

static void roi_align_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *s = lw_b(b);
  const ir_value *x = n->in[0], *y = n->out[0];
  tn_dtype t = lw_compute_type(x->dtype);
  bool half = n->opset >= 16 && strcmp(ir_attr_get_string(n, "coordinate_transformation_mode", "half_pixel"), "half_pixel") == 0;
  bool max = ir_attr_get_string(n, "mode", "avg")[0] == 'm';
  int64_t ratio = ir_attr_get_int(n, "sampling_ratio", 0);
  ix at[4], scale = ix_float(ctx, t, ir_attr_get_float(n, "spatial_scale", 1)), start[2], bin[2], grid[2], gridf[2];
  lw_loops(b, "rcyx", 4, y->dims, at);
  for (int a = 0; a < 2; a++) { /* y, then x; columns of rois are x1 y1 x2 y2 */
    ix from = ix_mul(ctx, ix_cast(ctx, t, lw_in(b, n, 1, (ix[]){at[0], ix_index(ctx, 1 - a)})), scale);
    ix to = ix_mul(ctx, ix_cast(ctx, t, lw_in(b, n, 1, (ix[]){at[0], ix_index(ctx, 3 - a)})), scale);
    if (half) from = ix_sub(ctx, from, ix_float(ctx, t, 0.5)), to = ix_sub(ctx, to, ix_float(ctx, t, 0.5));
    start[a] = ib_let(s, "start", from);
    ix length = ix_sub(ctx, to, start[a]);
    if (!half) length = ix_max(ctx, length, ix_float(ctx, t, 1));
    bin[a] = ib_let(s, "bin", ix_div(ctx, length, ix_cast(ctx, t, y->dims[2 + a])));
    grid[a] = ratio > 0 ? ix_index(ctx, ratio)
                        : ib_let(s, "grid", lw_clamp(ctx, ix_cast(ctx, TN_INDEX, ix_unary(ctx, IX_CEIL, bin[a])), ix_index(ctx, 0), ix_index(ctx, 1 << 16)));
    gridf[a] = ix_cast(ctx, t, grid[a]);
  }
  ix batch = ib_let(s, "batch", lw_data_index(ctx, lw_in(b, n, 2, at), x->dims[0]));
  ir_buf *acc = ib_local(s, "acc", t, max ? ix_float(ctx, t, -INFINITY) : ix_float(ctx, t, 0));
  between p[2];
  for (int a = 0; a < 2; a++) {
    ix i = ib_loop(s, a ? "j" : "i", grid[a]);
    ix o = ix_add(ctx, start[a], ix_mul(ctx, ix_cast(ctx, t, at[2 + a]), bin[a]));
    ix k = ix_mul(ctx, ix_add(ctx, ix_cast(ctx, t, i), ix_float(ctx, t, 0.5)), bin[a]);
    p[a] = place(b, ib_let(s, "y", ix_add(ctx, o, ix_div(ctx, k, gridf[a]))), x->dims[2 + a]);
  }
  ix v[4];
  for (int k = 0; k < 4; k++) {
    ix pixel[4] = {batch, at[1], k < 2 ? p[0].low : p[0].high, k % 2 ? p[1].high : p[1].low};
    ix w = ix_mul(ctx, k < 2 ? p[0].rest : p[0].part, k % 2 ? p[1].part : p[1].rest);
    v[k] = ix_mul(ctx, w, ix_cast(ctx, t, lw_in(b, n, 0, pixel)));
  }
  ix zero = ix_float(ctx, t, 0), inside = ix_and(ctx, p[0].inside, p[1].inside);
  ix all = max ? ix_max(ctx, ix_max(ctx, v[0], v[1]), ix_max(ctx, v[2], v[3])) : ix_add(ctx, ix_add(ctx, ix_add(ctx, v[0], v[1]), v[2]), v[3]);
  ib_update(s, acc, NULL, max ? IR_MAX : IR_ADD, ix_select(ctx, inside, all, zero));
  ib_end_n(s, 2);
  ix samples = ix_mul(ctx, grid[0], grid[1]), result;
  if (max) result = ix_select(ctx, ix_lt(ctx, ix_index(ctx, 0), samples), ib_get(s, acc), zero);
  else result = ix_div(ctx, ib_get(s, acc), ix_cast(ctx, t, ix_max(ctx, samples, ix_index(ctx, 1))));
  lw_out(b, n, 0, at, ix_cast(ctx, y->dtype, result));
  ib_end_n(s, 4);
}

/* ---- MaxRoiPool ---- */

static void max_roi_pool_infer(tn_ctx *ctx, ir_node *n) {
  check_image(ctx, n, 5);
  const int64_t *shape;
  if (ir_attr_get_ints(n, "pooled_shape", &shape) != 2 || shape[0] < 1 || shape[1] < 1) lw_bad(ctx, n, "pooled_shape must be two positive extents");
  lw_set(n, 0, n->in[0]->dtype, 4, (ix[]){n->in[1]->dims[0], n->in[0]->dims[1], ix_index(ctx, shape[0]), ix_index(ctx, shape[1])});
}
static void max_roi_pool_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *s = lw_b(b);
  const ir_value *x = n->in[0], *y = n->out[0];
  tn_dtype t = lw_compute_type(x->dtype);
  ix at[4], lo[2], hi[2], one = ix_float(ctx, t, 1), scale = ix_float(ctx, t, ir_attr_get_float(n, "spatial_scale", 1)), zero = ix_index(ctx, 0);
  lw_loops(b, "rcyx", 4, y->dims, at);
  ix batch = ib_let(s, "batch", lw_clamp(ctx, ix_cast(ctx, TN_INDEX, lw_in(b, n, 1, (ix[]){at[0], zero})), zero, ix_addi(ctx, x->dims[0], -1)));
  for (int a = 0; a < 2; a++) { /* columns: batch x1 y1 x2 y2 */
    ix end[2];
    for (int k = 0; k < 2; k++) {
      ix v = ix_mul(ctx, ix_cast(ctx, t, lw_in(b, n, 1, (ix[]){at[0], ix_index(ctx, 2 - a + 2 * k)})), scale);
      ix away = ix_select(ctx, ix_lt(ctx, v, num(ctx, v, 0)), num(ctx, v, -0.5), num(ctx, v, 0.5));
      end[k] = ib_let(s, "end", ix_unary(ctx, IX_TRUNC, ix_add(ctx, v, away))); /* to nearest, halves away from 0 */
    }
    ix length = ix_max(ctx, ix_add(ctx, ix_sub(ctx, end[1], end[0]), one), one);
    ix bin = ib_let(s, "bin", ix_div(ctx, length, ix_cast(ctx, t, y->dims[2 + a]))), o = ix_cast(ctx, t, at[2 + a]);
    ix from = ix_add(ctx, ix_unary(ctx, IX_FLOOR, ix_mul(ctx, o, bin)), end[0]);
    ix to = ix_add(ctx, ix_unary(ctx, IX_CEIL, ix_mul(ctx, ix_add(ctx, o, one), bin)), end[0]);
    lo[a] = ib_let(s, "lo", lw_clamp(ctx, ix_cast(ctx, TN_INDEX, from), zero, x->dims[2 + a]));
    hi[a] = ib_let(s, "hi", lw_clamp(ctx, ix_cast(ctx, TN_INDEX, to), zero, x->dims[2 + a]));
  }
  ir_buf *acc = ib_local(s, "acc", t, ix_float(ctx, t, -INFINITY));
  ix p[4] = {batch, at[1], NULL, NULL};
  p[2] = ib_for(s, "i", lo[0], hi[0]);
  p[3] = ib_for(s, "j", lo[1], hi[1]);
  for (int a = 0; a < 2; a++) p[2 + a] = lw_clamp(ctx, p[2 + a], zero, ix_addi(ctx, x->dims[2 + a], -1));
  ib_update(s, acc, NULL, IR_MAX, ix_cast(ctx, t, lw_in(b, n, 0, p)));
  ib_end_n(s, 2);
  ix some = ix_and(ctx, ix_lt(ctx, lo[0], hi[0]), ix_lt(ctx, lo[1], hi[1]));
  lw_out(b, n, 0, at, ix_cast(ctx, y->dtype, ix_select(ctx, some, ib_get(s, acc), ix_float(ctx, t, 0))));
  ib_end_n(s, 4);
}

/* ---- MaxUnpool ---- */

/* The shape that indices count in: the one whose pooling gives the input. */
static void unpooled_shape(tn_ctx *ctx, const ir_node *n, ix *dims) {
  const ir_value *x = n->in[0];
  int r = x->rank - 2;
  int64_t stride[LW_MAX_SPATIAL], pads[2 * LW_MAX_SPATIAL] = {0};
  ix taps[LW_MAX_SPATIAL];
  if (r < 1 || r > LW_MAX_SPATIAL) lw_bad(ctx, n, "the input has rank %d", x->rank);
  lw_kernel_shape(ctx, n, r, taps);
  lw_spatial_attr(ctx, n, "strides", r, 1, 1, stride);
  const int64_t *list;
  int count = ir_attr_get_ints(n, "pads", &list);
  if (count >= 0 && count != 2 * r) lw_bad(ctx, n, "pads has %d entries for %d axes", count, r);
  for (int i = 0; i < count; i++) pads[i] = list[i];
  dims[0] = x->dims[0];
  dims[1] = x->dims[1];
  for (int i = 0; i < r; i++) {
    int64_t span = ir_dim(ctx, x, 2 + i) - 1, pad, k = ix_need_const(ctx, taps[i], "kernel extent");
    if (span < 0 || pads[i] < 0 || pads[r + i] < 0 || !ir_mul_size(span, stride[i], &span) || !ir_add_size(span, k, &span) ||
        !ir_add_size(pads[i], pads[r + i], &pad) || span - pad < 1)
      lw_bad(ctx, n, "axis %d has no size before pooling", 2 + i);
    dims[2 + i] = ix_index(ctx, span - pad);
  }
}
static void max_unpool_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  ix dims[IR_MAX_RANK];
  unpooled_shape(ctx, n, dims);
  lw_need_integer(ctx, n, 1);
  lw_need_rank(ctx, n, 1, x->rank);
  for (int i = 0; i < x->rank; i++)
    if (x->dims[i] != n->in[1]->dims[i]) lw_bad(ctx, n, "input and indices differ in shape");
  int64_t shape[IR_MAX_RANK];
  if (lw_has(n, 2)) {
    if (lw_need_ints(ctx, n, 2, "output_shape", shape, IR_MAX_RANK) != x->rank) lw_bad(ctx, n, "output_shape must have %d entries", x->rank);
    for (int i = 0; i < x->rank; i++) {
      if (shape[i] < 0) lw_bad(ctx, n, "output_shape has the entry %lld", (long long)shape[i]);
      dims[i] = ix_index(ctx, shape[i]);
    }
  }
  lw_set(n, 0, x->dtype, x->rank, dims);
}
static void max_unpool_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *s = lw_b(b);
  const ir_value *x = n->in[0], *y = n->out[0];
  ir_buf *out = lw_out_buf(b, n, 0);
  ix at[IR_MAX_RANK], shape[IR_MAX_RANK], to[IR_MAX_RANK], total = ix_index(ctx, 1), inside = ix_bool(ctx, true);
  lw_loops(b, NULL, y->rank, y->dims, at);
  ib_store(s, out, at, lw_zero(ctx, y->dtype));
  ib_end_n(s, y->rank);
  unpooled_shape(ctx, n, shape);
  for (int i = 0; i < x->rank; i++) total = ix_mul(ctx, total, shape[i]);
  if (ix_is_int(total, 0)) return;
  lw_loops(b, NULL, x->rank, x->dims, at);
  ix flat = ib_let(s, "flat", lw_clamp(ctx, ix_cast(ctx, TN_INDEX, lw_in(b, n, 1, at)), ix_index(ctx, 0), ix_addi(ctx, total, -1)));
  lw_relinear(ctx, x->rank, shape, 1, &total, &flat, to);
  for (int i = 0; i < x->rank; i++) inside = ix_and(ctx, inside, ix_lt(ctx, to[i], y->dims[i]));
  ib_if(s, inside);
  ib_store(s, out, to, lw_in(b, n, 0, at));
  ib_end_n(s, x->rank + 1);
}

/* ---- Col2Im ---- */

typedef struct col2im {
  int axes;
  int64_t image[LW_MAX_SPATIAL], block[LW_MAX_SPATIAL], stride[LW_MAX_SPATIAL], dilation[LW_MAX_SPATIAL], begin[LW_MAX_SPATIAL], blocks[LW_MAX_SPATIAL];
  int64_t taps, positions; /* products of block and of blocks */
} col2im;

static void col2im_of(tn_ctx *ctx, const ir_node *n, col2im *c) {
  const int64_t *pads;
  lw_need_rank(ctx, n, 0, 3);
  c->axes = lw_need_ints(ctx, n, 1, "image_shape", c->image, LW_MAX_SPATIAL);
  if (lw_need_ints(ctx, n, 2, "block_shape", c->block, LW_MAX_SPATIAL) != c->axes || c->axes < 1) lw_bad(ctx, n, "image_shape and block_shape differ in length");
  lw_spatial_attr(ctx, n, "strides", c->axes, 1, 1, c->stride);
  lw_spatial_attr(ctx, n, "dilations", c->axes, 1, 1, c->dilation);
  int count = ir_attr_get_ints(n, "pads", &pads);
  if (count >= 0 && count != 2 * c->axes) lw_bad(ctx, n, "pads has %d entries for %d axes", count, c->axes);
  c->taps = c->positions = 1;
  for (int i = 0; i < c->axes; i++) {
    int64_t span = c->image[i], reach, end = count >= 0 ? pads[c->axes + i] : 0;
    c->begin[i] = count >= 0 ? pads[i] : 0;
    if (span < 1 || c->block[i] < 1 || c->begin[i] < 0 || end < 0 || !ir_add_size(span, c->begin[i], &span) || !ir_add_size(span, end, &span) ||
        !ir_mul_size(c->block[i] - 1, c->dilation[i], &reach) || (span -= reach + 1) < 0)
      lw_bad(ctx, n, "no block fits axis %d", i);
    c->blocks[i] = span / c->stride[i] + 1;
    if (!ir_mul_size(c->taps, c->block[i], &c->taps) || !ir_mul_size(c->positions, c->blocks[i], &c->positions)) lw_bad(ctx, n, "the sizes overflow");
  }
}
static void col2im_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  col2im c;
  col2im_of(ctx, n, &c);
  int64_t channels = ir_dim(ctx, x, 1);
  if (channels % c.taps != 0) lw_bad(ctx, n, "%lld rows are no multiple of the block's %lld elements", (long long)channels, (long long)c.taps);
  if (ir_dim(ctx, x, 2) != c.positions) lw_bad(ctx, n, "%lld columns for %lld blocks", (long long)ir_dim(ctx, x, 2), (long long)c.positions);
  ix dims[IR_MAX_RANK] = {x->dims[0], ix_index(ctx, channels / c.taps)};
  for (int i = 0; i < c.axes; i++) dims[2 + i] = ix_index(ctx, c.image[i]);
  lw_set(n, 0, x->dtype, 2 + c.axes, dims);
}
static void col2im_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *s = lw_b(b);
  const ir_value *y = n->out[0];
  col2im c;
  col2im_of(ctx, n, &c);
  ix at[IR_MAX_RANK], inside = ix_bool(ctx, true), zero = ix_index(ctx, 0), row = zero, column = zero;
  lw_loops(b, "nc", y->rank, y->dims, at);
  ir_buf *acc = lw_accumulator(b, y->dtype);
  for (int i = 0; i < c.axes; i++) {
    ix t = ib_loop(s, "t", ix_index(ctx, c.block[i])), v = ix_sub(ctx, ix_addi(ctx, at[2 + i], c.begin[i]), ix_muli(ctx, t, c.dilation[i]));
    ix p = ix_divi(ctx, v, c.stride[i]);
    inside = ix_and(ctx, inside, ix_within(ctx, p, zero, ix_index(ctx, c.blocks[i])));
    if (c.stride[i] > 1) inside = ix_and(ctx, inside, ix_eq(ctx, ix_remi(ctx, v, c.stride[i]), zero));
    row = ix_add(ctx, ix_muli(ctx, row, c.block[i]), t);
    column = ix_add(ctx, ix_muli(ctx, column, c.blocks[i]), p);
  }
  ib_if(s, inside);
  ix x = lw_in(b, n, 0, (ix[]){at[0], ix_add(ctx, ix_muli(ctx, at[1], c.taps), row), column});
  ib_update(s, acc, NULL, IR_ADD, ix_cast(ctx, acc->dtype, x));
  ib_end_n(s, 1 + c.axes);
  lw_out(b, n, 0, at, ix_cast(ctx, y->dtype, ib_get(s, acc)));
  ib_end_n(s, y->rank);
}

#define BUILD(name, kind, since, nin, max_in, attrs, rule, parts, grad) {name, "", kind, since, nin, max_in, 1, 1, attrs, rule##_infer, NULL, rule##_build, parts, NULL, grad}

const ir_op lw_ops_image[] = {
    BUILD("GridSample", IR_OP_REDUCTION, 16, 2, 2, "mode:s padding_mode:s align_corners:i", grid_sample, lw_grid_sample_expand, NULL),
    {"AffineGrid", "", IR_OP_MOVEMENT, 20, 2, 2, 1, 1, "align_corners:i", affine_grid_infer, affine_grid_value, NULL, NULL, NULL, lw_grad_affine_grid},
    BUILD("RoiAlign", IR_OP_REDUCTION, 10, 3, 3,
          "coordinate_transformation_mode:s mode:s output_height:i output_width:i sampling_ratio:i spatial_scale:f", roi_align, lw_roi_align_expand, NULL),
    BUILD("MaxRoiPool", IR_OP_REDUCTION, 1, 2, 2, "pooled_shape:I spatial_scale:f", max_roi_pool, lw_max_roi_pool_expand, NULL),
    BUILD("MaxUnpool", IR_OP_KERNEL, 9, 2, 3, "kernel_shape:I pads:I strides:I", max_unpool, NULL, lw_grad_unpool),
    BUILD("Col2Im", IR_OP_REDUCTION, 18, 3, 3, "strides:I pads:I dilations:I", col2im, NULL, lw_grad_col2im),
    {0}};
