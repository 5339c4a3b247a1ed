/* grad_image.c — what samples images at places that data says, made of nodes that gather: only to be
 * differentiated, the ops have kernels of their own.
 *
 * Along each axis a place becomes some taps, pixels with weights; samples() gathers all combinations.
 * Gradients reach the image through the gathers and the places through the weights. */
#include "lower/grad.h"
#include "lower/window.h"
#include <math.h>
#include <string.h>

enum { MAX_TAPS = 4 };

typedef struct axis_taps {
  int count;
  ir_value *pixel[MAX_TAPS];  /* whole numbers in range, float [B, P] */
  ir_value *weight[MAX_TAPS]; /* [B, P]; null: 1 */
} axis_taps;

typedef struct at_node {
  ir_graph *g;
  ir_node *n;
} at_node;

static ir_value *op1(const at_node *a, const char *op, ir_value *x) { return lw_op1(a->g, a->n, op, x); }
static ir_value *op2(const at_node *a, const char *op, ir_value *x, ir_value *y) { return lw_op2(a->g, a->n, op, x, y); }
static ir_value *by(const at_node *a, const char *op, ir_value *x, double v) { return op2(a, op, x, lw_number(a->g, x, v)); }
static ir_value *choose(const at_node *a, ir_value *c, ir_value *x, ir_value *y) { return lw_op3(a->g, a->n, "Where", c, x, y); }
static ir_value *clip(const at_node *a, ir_value *x, double lo, double hi) { return lw_op3(a->g, a->n, "Clip", x, lw_number(a->g, x, lo), lw_number(a->g, x, hi)); }
static ir_value *shaped(const at_node *a, ir_value *x, int rank, const int64_t *dims) { return lw_reshape(a->g, a->n, x, rank, dims); }
#define SHAPE(A, X, ...) shaped(A, X, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__})
/* Whole numbers as floats of the type of `like`, [count]. */
static ir_value *numbers(const at_node *a, const ir_value *like, int64_t count, const int64_t *v) {
  return lw_cast_node(a->g, a->n, ir_graph_ints(a->g, NULL, (int)count, v), like->dtype);
}
/* first, first + step, .. as floats, [count]. */
static ir_value *steps(const at_node *a, const ir_value *like, int64_t count, int64_t first, int64_t step) {
  int64_t *v = IR_NEW_ARRAY(a->g->ctx, int64_t, count + 1);
  for (int64_t i = 0; i < count; i++) v[i] = first + i * step;
  return numbers(a, like, count, v);
}

/* ---- gathering ---- */

typedef struct sampling {
  at_node a;
  ir_value *x; /* [B, C, all pixels] */
  int axes;
  int64_t batch, channels, places, image[LW_MAX_SPATIAL];
  const axis_taps *taps;
  int nfound;
  ir_value *found[64]; /* weighted elements, [B, C, P] */
} sampling;

static void gather_taps(sampling *s, int axis, ir_value *at, ir_value *weight) {
  const at_node *a = &s->a;
  if (axis < s->axes) {
    const axis_taps *t = &s->taps[axis];
    for (int i = 0; i < t->count; i++) {
      ir_value *next = at ? op2(a, "Add", by(a, "Mul", at, (double)s->image[axis]), t->pixel[i]) : t->pixel[i];
      ir_value *w = !weight ? t->weight[i] : t->weight[i] ? op2(a, "Mul", weight, t->weight[i]) : weight;
      gather_taps(s, axis + 1, next, w);
    }
    return;
  }
  ir_value *index = lw_cast_node(a->g, a->n, at, TN_I64);
  index = op2(a, "Expand", SHAPE(a, index, s->batch, 1, s->places), ir_graph_ints(a->g, NULL, 3, (int64_t[]){s->batch, s->channels, s->places}));
  ir_value *v = lw_op2_int(a->g, a->n, "GatherElements", s->x, index, "axis", 2);
  s->found[s->nfound++] = weight ? op2(a, "Mul", v, SHAPE(a, weight, s->batch, 1, s->places)) : v;
}

/* x [B, C, ..] at the taps of P places per batch: the weighted elements. */
static sampling samples(const at_node *a, ir_value *x, int64_t places, const axis_taps *taps) {
  sampling s = {.a = *a, .axes = x->rank - 2, .batch = ir_dim(a->g->ctx, x, 0), .channels = ir_dim(a->g->ctx, x, 1), .places = places, .taps = taps};
  int64_t all = 1;
  for (int i = 0; i < s.axes; i++) all *= s.image[i] = ir_dim(a->g->ctx, x, 2 + i);
  s.x = SHAPE(a, x, s.batch, s.channels, all);
  gather_taps(&s, 0, NULL, NULL);
  return s;
}

static ir_value *total(const sampling *s, const char *op) {
  ir_value *sum = s->found[0];
  for (int i = 1; i < s->nfound; i++) sum = op2(&s->a, op, sum, s->found[i]);
  return sum;
}

/* Weight w where pixel p lies in the image of that extent, else 0. */
static ir_value *weight_inside(const at_node *a, ir_value *p, int64_t extent, ir_value *w) {
  ir_value *inside = op2(a, "And", by(a, "GreaterOrEqual", p, 0), by(a, "LessOrEqual", p, (double)extent - 1));
  ir_value *in = lw_cast_node(a->g, a->n, inside, p->dtype);
  return w ? op2(a, "Mul", w, in) : in;
}

/* The two pixels around v; nothing outside the image. */
static axis_taps linear_taps(const at_node *a, ir_value *v, int64_t extent) {
  axis_taps t = {.count = 2};
  ir_value *low = op1(a, "Floor", v), *part = op2(a, "Sub", v, low);
  for (int i = 0; i < 2; i++) {
    ir_value *p = i ? by(a, "Add", low, 1) : low, *w = i ? part : op2(a, "Sub", lw_number(a->g, part, 1), part);
    t.weight[i] = weight_inside(a, p, extent, w);
    t.pixel[i] = clip(a, p, 0, (double)extent - 1);
  }
  return t;
}

/* ---- GridSample ---- */

static ir_value *outside(const at_node *a, ir_value *x, double lo, double hi) { return op2(a, "Or", by(a, "Less", x, lo), by(a, "Greater", x, hi)); }

/* x folded back into [lo, hi] as between two mirrors. */
static ir_value *mirrored(const at_node *a, ir_value *x, double lo, double hi) {
  ir_value *l = lw_number(a->g, x, lo), *h = lw_number(a->g, x, hi);
  if (hi <= lo) return op2(a, "Add", by(a, "Mul", x, 0), l);
  ir_value *below = op2(a, "Less", x, l), *beyond = choose(a, below, op2(a, "Sub", l, x), op2(a, "Sub", x, h));
  ir_value *turns = op1(a, "Floor", by(a, "Div", beyond, hi - lo)), *rest = op2(a, "Sub", beyond, by(a, "Mul", turns, hi - lo));
  ir_value *even = op2(a, "Equal", turns, by(a, "Mul", op1(a, "Floor", by(a, "Mul", turns, 0.5)), 2));
  ir_value *in = choose(a, op2(a, "Equal", below, even), op2(a, "Add", l, rest), op2(a, "Sub", h, rest));
  return choose(a, outside(a, x, lo, hi), in, x);
}

/* Keys' cubic convolution with a = -0.75 for the pixel at distance d: near, less than 1; or less than 2. */
static ir_value *cubic_weight(const at_node *a, ir_value *d, bool near) {
  const double k = -0.75;
  double c[4] = {near ? k + 2 : k, near ? -(k + 3) : -5 * k, near ? 0 : 8 * k, near ? 1 : -4 * k};
  ir_value *p = by(a, "Mul", d, c[0]);
  for (int i = 1; i < 4; i++) {
    p = by(a, "Add", p, c[i]);
    if (i < 3) p = op2(a, "Mul", p, d);
  }
  return p;
}

static axis_taps grid_taps(const at_node *a, ir_value *v, int64_t extent, int count, char padding, bool align) {
  double n = (double)extent, lo = align ? 0 : -0.5, hi = align ? n - 1 : n - 0.5;
  axis_taps t = {.count = count};
  ir_value *x = by(a, "Add", v, 1);
  x = align ? by(a, "Mul", by(a, "Div", x, 2), n - 1) : by(a, "Div", by(a, "Sub", by(a, "Mul", x, n), 1), 2);
  if (count == 1) x = op1(a, "Round", x);
  if (padding == 'b') x = choose(a, outside(a, x, lo, hi), clip(a, x, 0, n - 1), x);
  if (padding == 'r') x = mirrored(a, x, lo, hi);
  ir_value *whole = op1(a, "Floor", x), *f = op2(a, "Sub", x, whole);
  for (int i = 0; i < count; i++) {
    int at = count == 4 ? i - 1 : i;
    ir_value *p = at ? by(a, "Add", whole, at) : whole, *w = NULL;
    if (count == 2) w = i ? f : op2(a, "Sub", lw_number(a->g, f, 1), f);
    if (count == 4) w = cubic_weight(a, at < 1 ? by(a, "Add", f, -at) : op2(a, "Sub", lw_number(a->g, f, at), f), at == 0 || at == 1);
    t.weight[i] = padding == 'z' ? weight_inside(a, p, extent, w) : w;
    if (padding == 'r') p = mirrored(a, p, lo, hi);
    t.pixel[i] = clip(a, p, 0, n - 1);
  }
  return t;
}

void lw_grid_sample_expand(ir_graph *g, ir_node *n) {
  at_node a = {g, n};
  tn_ctx *ctx = g->ctx;
  ir_value *x = n->in[0], *grid = n->in[1];
  const char *mode = ir_attr_get_string(n, "mode", "linear"), *padding = ir_attr_get_string(n, "padding_mode", "zeros");
  int axes = x->rank - 2, count = mode[0] == 'n' ? 1 : strstr(mode, "cubic") ? 4 : 2;
  axis_taps taps[LW_MAX_SPATIAL];
  int64_t batch = ir_dim(ctx, x, 0), places = 1, dims[IR_MAX_RANK];
  for (int i = 0; i < axes; i++) places *= ir_dim(ctx, grid, 1 + i);
  ir_value *flat = SHAPE(&a, lw_cast_node(g, n, grid, x->dtype), batch, places, axes);
  for (int i = 0; i < axes; i++) { /* the grid names the innermost axis first */
    ir_value *v = SHAPE(&a, lw_slice(g, n, flat, 2, axes - 1 - i, axes - i), batch, places);
    taps[i] = grid_taps(&a, v, ir_dim(ctx, x, 2 + i), count, padding[0], ir_attr_get_int(n, "align_corners", 0) != 0);
  }
  sampling s = samples(&a, x, places, taps);
  lw_grad_dims(ctx, n->out[0], dims);
  lw_replace(g, n, 0, shaped(&a, total(&s, "Add"), x->rank, dims));
  n->dead = true;
}

/* ---- RoiAlign ---- */

/* Places start + (o + (i + 1/2) / ratio) * bin along one axis of each region, [R, extent * ratio], as taps. */
static axis_taps roi_taps(const at_node *a, ir_value *from, ir_value *to, bool half, int64_t extent, int64_t ratio, int64_t pixels, ir_value **inside) {
  ir_value *length = op2(a, "Sub", to, from);
  if (!half) length = op2(a, "Max", length, lw_number(a->g, length, 1));
  ir_value *o = by(a, "Div", by(a, "Add", steps(a, from, extent * ratio, 0, 1), 0.5), (double)(extent * ratio)); /* all bins are alike */
  ir_value *y = op2(a, "Add", from, op2(a, "Mul", length, o));
  *inside = op2(a, "And", by(a, "GreaterOrEqual", y, -1), by(a, "LessOrEqual", y, (double)pixels));
  ir_value *at = op2(a, "Max", y, lw_number(a->g, y, 0)), *low = clip(a, op1(a, "Floor", at), 0, (double)pixels - 1);
  ir_value *part = choose(a, by(a, "Less", low, (double)pixels - 1), op2(a, "Sub", at, low), lw_number(a->g, y, 0));
  axis_taps t = {.count = 2, .pixel = {low, clip(a, by(a, "Add", low, 1), 0, (double)pixels - 1)}};
  t.weight[0] = op2(a, "Sub", lw_number(a->g, part, 1), part);
  t.weight[1] = part;
  return t;
}

/* [R, e0 (x) e1] from [R, e] of either axis. */
static ir_value *spread(const at_node *a, ir_value *v, int axis, int64_t regions, const int64_t *e) {
  ir_value *w = axis ? SHAPE(a, v, regions, 1, e[1]) : SHAPE(a, v, regions, e[0], 1);
  return SHAPE(a, op2(a, "Expand", w, ir_graph_ints(a->g, NULL, 3, (int64_t[]){regions, e[0], e[1]})), regions, e[0] * e[1]);
}

void lw_roi_align_expand(ir_graph *g, ir_node *n) {
  at_node a = {g, n};
  tn_ctx *ctx = g->ctx;
  ir_value *x = n->in[0], *inside[2];
  bool half = n->opset >= 16 && strcmp(ir_attr_get_string(n, "coordinate_transformation_mode", "half_pixel"), "half_pixel") == 0;
  bool max = ir_attr_get_string(n, "mode", "avg")[0] == 'm';
  int64_t ratio = ir_attr_get_int(n, "sampling_ratio", 0), regions = ir_dim(ctx, n->in[1], 0), channels = ir_dim(ctx, x, 1), out[2], e[2];
  if (ratio < 1) lw_unsupported(ctx, n, "the gradient without a sampling_ratio");
  axis_taps taps[2];
  for (int i = 0; i < 2; i++) {
    ir_value *end[2];
    for (int k = 0; k < 2; k++) { /* columns are x1 y1 x2 y2 */
      int column = 1 - i + 2 * k;
      end[k] = by(&a, "Mul", lw_slice(g, n, n->in[1], 1, column, column + 1), ir_attr_get_float(n, "spatial_scale", 1));
      if (half) end[k] = by(&a, "Sub", end[k], 0.5);
    }
    out[i] = ir_dim(ctx, n->out[0], 2 + i);
    e[i] = out[i] * ratio;
    taps[i] = roi_taps(&a, end[0], end[1], half, out[i], ratio, ir_dim(ctx, x, 2 + i), &inside[i]);
  }
  for (int i = 0; i < 2; i++) {
    inside[i] = spread(&a, inside[i], i, regions, e);
    for (int k = 0; k < 2; k++) taps[i].pixel[k] = spread(&a, taps[i].pixel[k], i, regions, e), taps[i].weight[k] = spread(&a, taps[i].weight[k], i, regions, e);
  }
  sampling s = samples(&a, lw_op2_int(g, n, "Gather", x, n->in[2], "axis", 0), e[0] * e[1], taps);
  ir_value *in = SHAPE(&a, op2(&a, "And", inside[0], inside[1]), regions, 1, e[0] * e[1]), *v = total(&s, max ? "Max" : "Add");
  v = SHAPE(&a, choose(&a, in, v, lw_number(g, v, 0)), regions, channels, out[0], ratio, out[1], ratio);
  v = lw_op2_int(g, n, max ? "ReduceMax" : "ReduceMean", v, ir_graph_ints(g, NULL, 2, (int64_t[]){3, 5}), "keepdims", 0);
  lw_replace(g, n, 0, v);
  n->dead = true;
}

/* ---- MaxRoiPool: the largest of all pixels, those outside the bin masked away ---- */

void lw_max_roi_pool_expand(ir_graph *g, ir_node *n) {
  at_node a = {g, n};
  tn_ctx *ctx = g->ctx;
  ir_value *x = n->in[0], *mask[2] = {NULL}, *some[2] = {NULL};
  int64_t regions = ir_dim(ctx, n->in[1], 0), channels = ir_dim(ctx, x, 1), size[2] = {ir_dim(ctx, x, 2), ir_dim(ctx, x, 3)};
  for (int i = 0; i < 2; i++) {
    ir_value *end[2];
    int64_t bins = ir_dim(ctx, n->out[0], 2 + i);
    for (int k = 0; k < 2; k++) { /* columns: batch x1 y1 x2 y2; to nearest, halves away from 0 */
      int column = 2 - i + 2 * k;
      ir_value *v = by(&a, "Mul", lw_slice(g, n, n->in[1], 1, column, column + 1), ir_attr_get_float(n, "spatial_scale", 1));
      end[k] = op2(&a, "Mul", op1(&a, "Sign", v), op1(&a, "Floor", by(&a, "Add", op1(&a, "Abs", v), 0.5)));
    }
    ir_value *length = by(&a, "Add", op2(&a, "Sub", end[1], end[0]), 1);
    ir_value *bin = by(&a, "Div", op2(&a, "Max", length, lw_number(g, length, 1)), (double)bins), *o = steps(&a, bin, bins, 0, 1);
    ir_value *lo = clip(&a, op2(&a, "Add", op1(&a, "Floor", op2(&a, "Mul", o, bin)), end[0]), 0, (double)size[i]);
    ir_value *hi = clip(&a, op2(&a, "Add", op1(&a, "Ceil", op2(&a, "Mul", by(&a, "Add", o, 1), bin)), end[0]), 0, (double)size[i]);
    ir_value *p = steps(&a, bin, size[i], 0, 1), *l = SHAPE(&a, lo, regions, bins, 1), *h = SHAPE(&a, hi, regions, bins, 1);
    ir_value *in = op2(&a, "And", op2(&a, "GreaterOrEqual", p, l), op2(&a, "Less", p, h)), *any = op2(&a, "Less", lo, hi);
    mask[i] = i ? SHAPE(&a, in, regions, 1, 1, bins, 1, size[1]) : SHAPE(&a, in, regions, 1, bins, 1, size[0], 1);
    some[i] = i ? SHAPE(&a, any, regions, 1, 1, bins) : SHAPE(&a, any, regions, 1, bins, 1);
  }
  ir_value *batch = lw_cast_node(g, n, SHAPE(&a, lw_slice(g, n, n->in[1], 1, 0, 1), regions), TN_I64);
  ir_value *own = SHAPE(&a, lw_op2_int(g, n, "Gather", x, batch, "axis", 0), regions, channels, 1, 1, size[0], size[1]);
  ir_value *v = choose(&a, op2(&a, "And", mask[0], mask[1]), own, lw_number(g, x, -INFINITY));
  v = lw_op2_int(g, n, "ReduceMax", v, ir_graph_ints(g, NULL, 2, (int64_t[]){4, 5}), "keepdims", 0);
  lw_replace(g, n, 0, choose(&a, op2(&a, "And", some[0], some[1]), v, lw_number(g, x, 0)));
  n->dead = true;
}

/* ---- DeformSamples: at taps plus offsets ---- */

void lw_deform_samples_expand(ir_graph *g, ir_node *n) {
  at_node a = {g, n};
  tn_ctx *ctx = g->ctx;
  ir_value *x = n->in[0];
  const int64_t *taps;
  ir_attr_get_ints(n, "kernel_shape", &taps);
  lw_window window;
  lw_window_of(ctx, n, (ix[]){ix_index(ctx, taps[0]), ix_index(ctx, taps[1])}, &window);
  int64_t sets = ir_attr_get_int(n, "offset_group", 1), batch = ir_dim(ctx, x, 0), channels = ir_dim(ctx, x, 1), size[2], out[2];
  for (int i = 0; i < 2; i++) size[i] = ir_dim(ctx, x, 2 + i), out[i] = ix_need_const(ctx, window.out[i], "extent");
  int64_t ntaps = taps[0] * taps[1], nout = out[0] * out[1];
  ir_value *offset = SHAPE(&a, n->in[1], batch * sets, ntaps, 2, nout);
  axis_taps at[2];
  for (int i = 0; i < 2; i++) {
    int64_t *base = IR_NEW_ARRAY(ctx, int64_t, ntaps * nout + 1), begin = ix_need_const(ctx, window.begin[i], "padding");
    for (int64_t t = 0; t < ntaps; t++)
      for (int64_t o = 0; o < nout; o++) {
        int64_t tap = i ? t % taps[1] : t / taps[1], place = i ? o % out[1] : o / out[1];
        base[t * nout + o] = place * window.stride[i] + tap * window.dilation[i] - begin;
      }
    ir_value *v = SHAPE(&a, lw_slice(g, n, offset, 2, i, i + 1), batch * sets, ntaps * nout);
    at[i] = linear_taps(&a, op2(&a, "Add", v, numbers(&a, v, ntaps * nout, base)), size[i]);
  }
  sampling s = samples(&a, SHAPE(&a, x, batch * sets, channels / sets, size[0], size[1]), ntaps * nout, at);
  ir_value *v = total(&s, "Add");
  if (lw_has(n, 2)) v = op2(&a, "Mul", v, SHAPE(&a, n->in[2], batch * sets, 1, ntaps * nout));
  v = SHAPE(&a, v, batch, channels, ntaps, nout);
  lw_replace(g, n, 0, v);
  n->dead = true;
}

/* ---- AffineGrid is linear in theta: the grid of the identity are the coordinates that it is multiplied with ---- */

void lw_grad_affine_grid(lw_grad *d) {
  at_node a = {d->g, d->n};
  ir_value *theta = d->n->in[0], *dy = d->dy[0];
  int axes = theta->rank == 3 ? (int)ir_dim(d->ctx, theta, 1) : 0;
  int64_t batch = ir_dim(d->ctx, theta, 0), places = 1, *one = IR_NEW_ARRAY(d->ctx, int64_t, axes * (axes + 1) + 1);
  for (int i = 0; i < axes; i++) places *= ir_dim(d->ctx, dy, 1 + i), one[i * (axes + 2)] = 1;
  ir_value *identity = SHAPE(&a, numbers(&a, theta, axes * (axes + 1), one), 1, axes, axes + 1);
  identity = op2(&a, "Expand", identity, ir_graph_ints(d->g, NULL, 3, (int64_t[]){batch, axes, axes + 1}));
  ir_node *m = lw_node_n(d->g, d->n, "AffineGrid", 2, (ir_value *[]){identity, d->n->in[1]}, 1);
  ir_attr_int(m, "align_corners", ir_attr_get_int(d->n, "align_corners", 0));
  ir_infer(d->ctx, m);
  ir_value *ones = lw_grad_full(d, theta, 3, (int64_t[]){batch, places, 1}, 1);
  ir_value *base = lw_concat(d->g, d->n, 2, 2, (ir_value *[]){SHAPE(&a, m->out[0], batch, places, axes), ones});
  ir_node *p = lw_node_n(d->g, d->n, "tenon:MatMul", 2, (ir_value *[]){SHAPE(&a, dy, batch, places, axes), base}, 1);
  ir_attr_int(p, "transA", 1);
  ir_infer(d->ctx, p);
  lw_grad_add(d, 0, p->out[0]);
}

/* ---- Col2Im adds the columns into an image: each takes its part back, tap by tap ---- */

void lw_grad_col2im(lw_grad *d) {
  at_node a = {d->g, d->n};
  ir_node *n = d->n;
  ir_value *dy = d->dy[0];
  int axes = dy->rank - 2;
  int64_t block[LW_MAX_SPATIAL], stride[LW_MAX_SPATIAL], dilation[LW_MAX_SPATIAL], blocks[LW_MAX_SPATIAL], pads[2 * IR_MAX_RANK] = {0}, taps = 1, positions = 1;
  const int64_t *given;
  lw_need_ints(d->ctx, n, 2, "block_shape", block, LW_MAX_SPATIAL);
  lw_spatial_attr(d->ctx, n, "strides", axes, 1, 1, stride);
  lw_spatial_attr(d->ctx, n, "dilations", axes, 1, 1, dilation);
  bool padded = ir_attr_get_ints(n, "pads", &given) >= 0;
  for (int i = 0; i < axes; i++) {
    if (padded) pads[2 + i] = given[i], pads[dy->rank + 2 + i] = given[axes + i];
    int64_t span = ir_dim(d->ctx, dy, 2 + i) + pads[2 + i] + pads[dy->rank + 2 + i];
    blocks[i] = (span - ((block[i] - 1) * dilation[i] + 1)) / stride[i] + 1;
    taps *= block[i];
    positions *= blocks[i];
  }
  if (padded) dy = op2(&a, "Pad", dy, ir_graph_ints(d->g, NULL, 2 * dy->rank, pads));
  int64_t batch = ir_dim(d->ctx, dy, 0), channels = ir_dim(d->ctx, dy, 1), start[LW_MAX_SPATIAL], end[LW_MAX_SPATIAL], axis[LW_MAX_SPATIAL];
  ir_value **part = IR_NEW_ARRAY(d->ctx, ir_value *, taps);
  for (int64_t t = 0; t < taps; t++) {
    int64_t rest = t;
    for (int i = axes; i-- > 0; rest /= block[i]) {
      start[i] = rest % block[i] * dilation[i];
      end[i] = start[i] + (blocks[i] - 1) * stride[i] + 1;
      axis[i] = 2 + i;
    }
    ir_value *in[5] = {dy, ir_graph_ints(d->g, NULL, axes, start), ir_graph_ints(d->g, NULL, axes, end), ir_graph_ints(d->g, NULL, axes, axis), ir_graph_ints(d->g, NULL, axes, stride)};
    part[t] = SHAPE(&a, lw_node(d->g, n, "Slice", 5, in), batch, channels, 1, positions);
  }
  lw_grad_add(d, 0, SHAPE(&a, lw_concat(d->g, n, 2, (int)taps, part), batch, channels * taps, positions));
}
