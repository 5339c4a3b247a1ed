/* canon.c — canonical forms, for inference.
 *
 * BatchNormalization with constant parameters is y = x*s + t, s = scale / sqrt(var + eps),
 * t = bias - mean*s per channel. After a convolution whose result goes nowhere else it
 * moves into the weights (W*s, b*s + t); elsewhere it becomes a Mul and an Add. The new
 * constants are ordinary nodes over constants: the pack section computes them. */
#include "lower/lower.h"
#include "lower/build.h"
#include "lower/compose.h"
#include "lower/window.h"
#include <string.h>

static bool constant(const ir_value *v) { return v && (ir_value_source(v) || v->kind == IR_VALUE_CONST); }

static ir_value *op1(ir_graph *g, ir_node *n, const char *op, ir_value *a) { return lw_node(g, n, op, 1, &a); }
static ir_value *op2(ir_graph *g, ir_node *n, const char *op, ir_value *a, ir_value *b) {
  return lw_node(g, n, op, 2, (ir_value *[]){a, b});
}
/* A vector over channels seen with `after` axes of extent 1 behind it. */
static ir_value *channels(ir_graph *g, ir_node *n, ir_value *v, int before, int after) {
  int64_t shape[IR_MAX_RANK];
  int rank = 0;
  for (int i = 0; i < before; i++) shape[rank++] = 1;
  shape[rank++] = ir_dim(g->ctx, v, 0);
  for (int i = 0; i < after; i++) shape[rank++] = 1;
  return op2(g, n, "Reshape", v, ir_graph_ints(g, NULL, rank, shape));
}

static void batch_norm(tn_ctx *ctx, ir_graph *g, ir_node *n) {
  if (n->nin != 5 || ir_attr_get_int(n, "training_mode", 0)) return;
  for (int i = 1; i < 5; i++)
    if (!constant(n->in[i])) return;
  ir_value *x = n->in[0], *scale = n->in[1], *bias = n->in[2], *mean = n->in[3], *var = n->in[4];
  if (x->rank < 2 || !n->out[0] || scale->dtype != x->dtype || mean->dtype != x->dtype || var->dtype != x->dtype || lw_compute_type(x->dtype) != x->dtype) return;
  for (int i = 1; i < n->nout; i++)
    if (n->out[i] && n->out[i]->nuses) return;
  double eps = ir_attr_get_float(n, "epsilon", 1e-5);
  ir_value *eps_value = ir_graph_scalar(g, NULL, x->dtype, eps);
  ir_value *s = op2(g, n, "Div", scale, op1(g, n, "Sqrt", op2(g, n, "Add", var, eps_value)));
  ir_value *t = op2(g, n, "Sub", bias, op2(g, n, "Mul", mean, s));
  ir_node *conv = x->def;
  bool fold = conv && !conv->dead && x->nuses == 1 && ir_node_is(conv, "Conv") &&
              constant(conv->in[1]) && (!lw_has(conv, 2) || constant(conv->in[2]));
  ir_value *result;
  if (fold) {
    ir_value *w = op2(g, n, "Mul", conv->in[1], channels(g, n, s, 0, conv->in[1]->rank - 1));
    ir_value *b = lw_has(conv, 2) ? op2(g, n, "Add", op2(g, n, "Mul", conv->in[2], s), t) : t;
    ir_node *folded = lw_node_n(g, conv, "Conv", 3, (ir_value *[]){x->def->in[0], w, b}, 1);
    folded->opset = conv->opset;
    folded->nattrs = conv->nattrs;
    folded->attrs = conv->attrs;
    folded->name = conv->name;
    ir_infer(ctx, folded);
    result = folded->out[0];
  } else
    result = op2(g, n, "Add", op2(g, n, "Mul", x, channels(g, n, s, 0, x->rank - 2)), channels(g, n, t, 0, x->rank - 2));
  for (int i = 1; i < n->nout; i++) n->out[i] = NULL;
  lw_replace(g, n, 0, result);
  if (fold) conv->dead = true;
}

/* ---- transposed matrices in products ----
 *
 * Products read their operands as they lie or turned, so many a Transpose around them is work for nothing: those in
 * the gradients of X W^T, a dense layer whose W is trained. A second operand is fast when its rows lie
 * along the result's, so it is never turned away from that; constants stay, they are turned when packed. */

static bool turns(const ir_value *v) { /* v = Transpose of a matrix that runs change */
  const ir_node *n = v ? v->def : NULL;
  const int64_t *perm;
  if (!n || n->dead || !ir_node_is(n, "Transpose") || n->in[0]->rank != 2 || constant(n->in[0])) return false;
  int count = ir_attr_get_ints(n, "perm", &perm);
  return count < 0 || (count == 2 && perm[0] == 1);
}

static bool is_flat(const ir_node *n) { return ir_node_is(n, "Gemm"); }
static bool is_product(const ir_node *n) {
  bool own = strcmp(n->op->name, "MatMul") == 0 && n->op->domain && strcmp(n->op->domain, "tenon") == 0;
  return !n->dead && (is_flat(n) || own || ir_node_is(n, "MatMul")) && ir_is_float(n->in[0]->dtype) && n->in[0]->rank >= 2 && n->in[1]->rank >= 2;
}

static void turn_operands(tn_ctx *ctx, ir_graph *g, ir_node *n) {
  static const char *const flags[] = {"transA", "transB"};
  bool turn[2] = {turns(n->in[0]), turns(n->in[1]) && ir_attr_find(n, "transB") && ir_attr_get_int(n, "transB", 0)};
  if (!turn[0] && !turn[1]) return;
  if (ir_node_is(n, "MatMul")) { /* has no flags: another op */
    bool flat = n->in[0]->rank == 2 && n->in[1]->rank == 2;
    ir_node *m = lw_node_n(g, n, flat ? "Gemm" : "tenon:MatMul", 2, n->in, 1);
    ir_infer(ctx, m);
    lw_replace(g, n, 0, m->out[0]);
    n = m;
  }
  for (int k = 0; k < 2; k++) {
    if (!turn[k]) continue;
    ir_attr_int(n, flags[k], !ir_attr_get_int(n, flags[k], 0));
    n->in[k] = n->in[k]->def->in[0];
  }
}

/* (A B)^T = B^T A^T */
static void turn_result(tn_ctx *ctx, ir_graph *g, ir_node *n) {
  ir_node *p = turns(n->out[0]) ? n->in[0]->def : NULL;
  if (!p || p->dead || !is_flat(p) || lw_has(p, 2) || n->in[0]->nuses != 1 || !ir_attr_get_int(p, "transA", 0)) return;
  ir_node *m = lw_node_n(g, n, "Gemm", 2, (ir_value *[]){p->in[1], p->in[0]}, 1);
  m->opset = p->opset;
  ir_attr_int(m, "transA", !ir_attr_get_int(p, "transB", 0));
  ir_attr_int(m, "transB", 0);
  ir_attr_float(m, "alpha", ir_attr_get_float(p, "alpha", 1));
  ir_infer(ctx, m);
  lw_replace(g, n, 0, m->out[0]);
  turn_operands(ctx, g, m);
}

/* Taps that meet nothing but padding, as those of wide dilations over small pictures, are left out. */
static void dead_taps(tn_ctx *ctx, ir_graph *g, ir_node *n) {
  const ir_value *w = n->in[1], *x = n->in[0], *y = n->out[0];
  int64_t starts[LW_MAX_SPATIAL], ends[LW_MAX_SPATIAL], axes[LW_MAX_SPATIAL], shape[LW_MAX_SPATIAL], pads[2 * LW_MAX_SPATIAL];
  lw_window win;
  if (!ir_static(x) || !ir_static(w) || !ir_static(y)) return;
  lw_window_of(ctx, n, w->dims + 2, &win);
  bool dead = false;
  for (int i = 0; i < win.rank; i++) {
    int64_t in = ir_dim(ctx, x, i + 2), taps = ir_dim(ctx, w, i + 2), span = (ir_dim(ctx, y, i + 2) - 1) * win.stride[i], begin, first = taps, last = -1;
    if (!ix_const_value(win.begin[i], &begin)) return;
    for (int64_t t = 0; t < taps; t++) {
      int64_t at = t * win.dilation[i] - begin; /* of the first result; the last one reads at + span */
      if (at >= in || at + span < 0) continue;
      if (first == taps) first = t;
      last = t;
    }
    if (last < 0) return;
    starts[i] = first, ends[i] = last + 1, axes[i] = i + 2, shape[i] = ends[i] - first;
    pads[i] = begin - first * win.dilation[i];
    pads[i + win.rank] = span + (shape[i] - 1) * win.dilation[i] + 1 - in - pads[i];
    if (pads[i] < 0 || pads[i + win.rank] < 0) return; /* nothing is cropped */
    dead |= shape[i] < taps;
  }
  if (!dead) return;
  n->in[1] = lw_node(g, n, "Slice", 4, (ir_value *[]){n->in[1], ir_graph_ints(g, NULL, win.rank, starts), ir_graph_ints(g, NULL, win.rank, ends), ir_graph_ints(g, NULL, win.rank, axes)});
  ir_attr_ints(n, "kernel_shape", win.rank, shape);
  ir_attr_ints(n, "pads", 2 * win.rank, pads);
  ir_attr_string(n, "auto_pad", "NOTSET");
}

/* What quantised.c makes of a convolution. */
static bool is_integer_conv(const ir_node *n) {
  return n->out[0]->dtype == TN_I32 && (strcmp(n->op->name, "ConvWide") == 0 || strcmp(n->op->name, "ConvPicked") == 0 || ir_node_is(n, "ConvInteger"));
}

/* A 1x1 convolution of stride s reads every s-th pixel: these are gathered first, so that the convolution
 * is a product over all pixels in a row, and not rows of 7 or 14 of them with the rest in between. */
static void strided(tn_ctx *ctx, ir_graph *g, ir_node *n) {
  const ir_value *w = n->in[1], *x = n->in[0];
  const int64_t *strides, *pads;
  if (x->rank != 4 || !ir_static(x) || !ir_static(w) || ir_attr_get_int(n, "group", 1) != 1 || ir_dim(ctx, w, 1) < 16) return;
  if (ir_dim(ctx, w, 2) != 1 || ir_dim(ctx, w, 3) != 1 || ir_attr_get_ints(n, "strides", &strides) != 2 || (strides[0] == 1 && strides[1] == 1)) return;
  int npads = ir_attr_get_ints(n, "pads", &pads);
  for (int i = 0; i < npads; i++)
    if (pads[i]) return;
  if (strcmp(ir_attr_get_string(n, "auto_pad", "NOTSET"), "NOTSET") != 0) return;
  ir_value *in[5] = {n->in[0], ir_graph_ints(g, NULL, 2, (int64_t[]){0, 0}), ir_graph_ints(g, NULL, 2, (int64_t[]){ir_dim(ctx, x, 2), ir_dim(ctx, x, 3)}),
                     ir_graph_ints(g, NULL, 2, (int64_t[]){2, 3}), ir_graph_ints(g, NULL, 2, strides)};
  n->in[0] = lw_node(g, n, "Slice", 5, in);
  ir_attr_ints(n, "strides", 2, (int64_t[]){1, 1});
}

/* Each part of a Split is a slice: an alias where it lies together, else computed where it is read. */
static void split_in_slices(tn_ctx *ctx, ir_graph *g, ir_node *n) {
  if (!ir_static(n->in[0])) return;
  for (int k = 0; k < n->nout; k++)
    if (!n->out[k]) return;
  int axis = ir_axis(ctx, n, ir_attr_get_int(n, "axis", 0), n->in[0]->rank);
  int64_t from = 0;
  for (int k = 0; k < n->nout; k++) {
    int64_t to = from + ir_dim(ctx, n->out[k], axis);
    if (n->out[k]->nuses) lw_replace(g, n, k, lw_slice(g, n, n->in[0], axis, from, to));
    else n->out[k] = NULL;
    from = to;
  }
  n->dead = true;
}

/* Channels that are weighted before a 1x1 convolution of one picture (squeeze-and-excite): many pixels cost more than
 * weighting what multiplies them, W (s x) = (W s) x. */
static void weighted_channels(tn_ctx *ctx, ir_graph *g, ir_node *n) {
  enum { PASSES = 4 }; /* over the weights: read, written, packed */
  ir_value *x = n->in[0], *w = n->in[1], *y = n->out[0];
  ir_node *m = x->def;
  if (!m || m->dead || !ir_node_is(m, "Mul") || x->nuses != 1 || x->dtype != TN_F32 || !w->packed || ir_attr_get_int(n, "group", 1) != 1) return;
  if (x->rank != 4 || !ir_static(x) || !ir_static(w) || !ir_static(y) || ir_dim(ctx, x, 0) != 1 || ir_dim(ctx, w, 2) != 1 || ir_dim(ctx, w, 3) != 1) return;
  if (ir_dim(ctx, x, 2) * ir_dim(ctx, x, 3) < PASSES * ir_dim(ctx, w, 0)) return;
  for (int k = 0; k < 2; k++) {
    ir_value *s = m->in[k], *all = m->in[1 - k];
    if (s->rank != 4 || all->rank != 4 || s->packed || !ir_static(s) || !ir_static(all)) continue;
    bool fits = ir_dim(ctx, s, 0) == 1 && ir_dim(ctx, s, 2) == 1 && ir_dim(ctx, s, 3) == 1;
    for (int i = 0; i < 4; i++) fits &= all->dims[i] == x->dims[i];
    if (!fits || s->dims[1] != x->dims[1]) continue;
    n->in[0] = all;
    n->in[1] = op2(g, n, "Mul", w, s);
    return;
  }
}

/* A Concat of more parts than a kernel has (LW_MAX_PARTS), by way of parts of it. */
static void many_parts(tn_ctx *ctx, ir_graph *g, ir_node *n) {
  enum { MOST = LW_MAX_PARTS };
  if (n->nin <= MOST) return;
  int axis = ir_axis(ctx, n, ir_attr_get_int(n, "axis", 1), n->in[0]->rank), count = n->nin;
  ir_value **v = IR_NEW_ARRAY(ctx, ir_value *, count);
  memcpy(v, n->in, (size_t)count * sizeof *v);
  while (count > 1) {
    int next = 0;
    for (int i = 0; i < count; i += MOST) v[next++] = lw_concat(g, n, axis, count - i < MOST ? count - i : MOST, v + i);
    count = next;
  }
  lw_replace(g, n, 0, v[0]);
}

void lw_pass_canon(tn_ctx *ctx, ir_graph *g, const lw_options *options) {
  ir_graph_analyse(g);
  int count = g->nnodes; /* appended nodes are canonical already */
  for (int i = 0; i < count; i++)
    if (!g->nodes[i]->dead && ir_node_is(g->nodes[i], "BatchNormalization")) batch_norm(ctx, g, g->nodes[i]);
  for (int i = 0; i < count; i++)
    if (!g->nodes[i]->dead && ir_node_is(g->nodes[i], "Transpose")) turn_result(ctx, g, g->nodes[i]);
  for (int i = 0; i < count; i++)
    if (is_product(g->nodes[i])) turn_operands(ctx, g, g->nodes[i]);
  bool scheduled = options->target && !options->unscheduled;
  for (int i = 0; i < count && scheduled; i++) {
    if (!g->nodes[i]->dead && ir_node_is(g->nodes[i], "Conv")) dead_taps(ctx, g, g->nodes[i]);
    if (!g->nodes[i]->dead && ir_node_is(g->nodes[i], "Split")) split_in_slices(ctx, g, g->nodes[i]);
    if (!g->nodes[i]->dead && ir_node_is(g->nodes[i], "Concat")) many_parts(ctx, g, g->nodes[i]);
    if (!g->nodes[i]->dead && ir_node_is(g->nodes[i], "ConvTranspose") && !options->attention_apart && constant(g->nodes[i]->in[1])) lw_subpixel(ctx, g, g->nodes[i], cg_target_lanes(options->target, TN_F32), options->accuracy <= 0);
  }
  ir_graph_sort(g);
  ir_graph_analyse(g);
  lw_mark_packed(g);
  count = g->nnodes;
  for (int i = 0; i < count && scheduled; i++) {
    if (g->nodes[i]->dead) continue;
    if (ir_node_is(g->nodes[i], "Mul")) {
      lw_activation(g, g->nodes[i]);
      continue;
    }
    bool floats = ir_node_is(g->nodes[i], "Conv");
    if (floats && !options->attention_apart) weighted_channels(ctx, g, g->nodes[i]);
    if (floats || is_integer_conv(g->nodes[i])) strided(ctx, g, g->nodes[i]);
    if (floats) lw_unfold(ctx, g, g->nodes[i], options);
  }
  ir_graph_sort(g);
  ir_graph_analyse(g);
}
