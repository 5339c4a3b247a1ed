/* unfold.c — convolutions whose windows are laid out first, so that they are products over all pixels.
 *
 * A register tile takes pixels of one row of the result only: where rows are narrow, many tiles are small
 * and the vector units wait. A copy of the windows, [n, taps * channels, y, x], joins the pixels of all rows
 * (im2col: Chellapilla, Puri and Simard, "High Performance Convolutional Neural Networks for Document
 * Processing", 2006), and what is left is a 1x1 convolution. Done where tiles lose more than the copy takes. Where channels
 * are not to lie in blocks or last, vectors are pixels: with strides they would be gathered for each output channel, and
 * rows of few vectors leave much of the last one empty. */
#include "lower/default_schedule.h"
#include "lower/window.h"
#include <string.h>

/* ---- the op that copies: channel (tap * channels + c) is channel c as the tap sees it, zero in the padding ---- */

static void unfold_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  int rank = x->rank - 2;
  if (rank < 1 || rank > 3) lw_unsupported(ctx, n, "an input of rank %d", x->rank);
  ix taps[LW_MAX_SPATIAL], dims[IR_MAX_RANK] = {x->dims[0], x->dims[1]};
  lw_window w;
  lw_kernel_shape(ctx, n, rank, taps);
  lw_window_of(ctx, n, taps, &w);
  for (int i = 0; i < rank; i++) {
    dims[1] = ix_mul(ctx, dims[1], taps[i]);
    dims[i + 2] = w.out[i];
  }
  lw_set(n, 0, x->dtype, x->rank, dims);
}

static void unfold_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *ib = lw_b(b);
  const ir_value *x = n->in[0];
  int rank = x->rank - 2;
  ix taps[LW_MAX_SPATIAL], t[LW_MAX_SPATIAL], o[IR_MAX_RANK], in[IR_MAX_RANK], tap = ix_index(ctx, 0);
  lw_window w;
  lw_kernel_shape(ctx, n, rank, taps);
  lw_window_of(ctx, n, taps, &w);
  o[0] = in[0] = ib_loop(ib, "n", x->dims[0]);
  lw_loops(b, lw_tap_names(rank), rank, taps, t);
  for (int i = 0; i < rank; i++) tap = ix_add(ctx, ix_mul(ctx, tap, taps[i]), t[i]);
  in[1] = ib_loop(ib, "c", x->dims[1]);
  o[1] = ix_add(ctx, ix_mul(ctx, tap, x->dims[1]), in[1]);
  lw_loops(b, lw_axis_names(rank), rank, w.out, o + 2);
  lw_window_at(ctx, &w, o + 2, t, in + 2);
  ix inside = lw_window_inside(ctx, &w, in + 2);
  lw_out(b, n, 0, o, ix_select(ctx, inside, lw_in(b, n, 0, in), lw_zero(ctx, x->dtype)));
  ib_end_n(ib, 2 + 2 * rank);
}

const ir_op lw_ops_unfold[] = {
    {.name = "Unfold", .domain = "tenon", .kind = IR_OP_WINDOW, .since = 1, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
     .attrs = "auto_pad:s dilations:I kernel_shape:I pads:I strides:I", .infer = unfold_infer, .build = unfold_build},
    {0}};

/* ---- the choice ---- */

enum { FEW_VECTORS = 4, NEAR_BYTES_A_CYCLE = 16, FAR_BYTES_A_CYCLE = 4 }; /* in the second-level cache, and beyond */

typedef struct layer {
  int64_t k, c, taps, height, width; /* of the result */
  double met;                        /* of the rows of taps, those that are not padding: others are multiplied only when written out */
} layer;

/* Of all rows of the result and of taps, those that meet the picture. */
static double rows_met(const lw_window *w, int64_t height, int64_t taps, int64_t in) {
  int64_t begin, met = 0;
  if (!ix_const_value(w->begin[0], &begin) || height < 1) return 1;
  for (int64_t y = 0; y < height; y++)
    for (int64_t r = 0; r < taps; r++) {
      int64_t at = y * w->stride[0] + r * w->dilation[0] - begin;
      met += at >= 0 && at < in;
    }
  return (double)met / (double)(height * taps);
}

/* Tiles lose more cycles on rows than the windows take to be written and read. */
static bool gains(const layer *l, const cg_target *t) {
  int64_t lanes = cg_target_lanes(t, TN_F32), sums = l->taps * l->c;
  if (lanes < 4 || l->c % lanes || l->k % lanes) return false;
  double by_rows = lw_window_tile(l->width, l->k, lanes, t->vector_regs, 6, true, 1).cost * (double)l->height * l->met;
  double joined = lw_window_tile(l->width * l->height, l->k, lanes, t->vector_regs, 6, false, 1).cost;
  int64_t windows = 4 * sums * l->width * l->height; /* bytes, written and read */
  return (by_rows - joined) * (double)sums > 2.0 * (double)windows / (windows > t->l2_bytes ? FAR_BYTES_A_CYCLE : NEAR_BYTES_A_CYCLE);
}

/* A signal is one long row: nothing that is read again stays near. Its weights come from the second-level cache for each
 * tile, itself from beyond for each panel; as a product over pixels it is cut in blocks. */
static bool gains_signal(const layer *l, const cg_target *t, int64_t length) {
  int64_t lanes = cg_target_lanes(t, TN_F32), sums = l->taps * l->c;
  if (lanes < 4 || l->c % lanes || l->k % lanes) return false;
  lw_tile tile = lw_window_tile(l->width, l->k, lanes, t->vector_regs, 6, false, 1);
  double product = tile.cost * (double)sums, windows = 4.0 * (double)(sums * l->width), in = 4.0 * (double)(l->c * length), weights = 4.0 * (double)(l->k * sums);
  double near = tile.nr * lanes * sums * 4 > t->l1_bytes ? weights * (double)((l->width + tile.mr - 1) / tile.mr) / NEAR_BYTES_A_CYCLE : 0;
  double far = in > (double)t->l2_bytes / 2 ? in * (double)(l->k / (tile.nr * lanes)) / FAR_BYTES_A_CYCLE : 0;
  double direct = (near > product ? near : product) + far, copies = 2 * windows / (windows > (double)t->l2_bytes ? FAR_BYTES_A_CYCLE : NEAR_BYTES_A_CYCLE);
  return direct > 1.05 * (product + copies);
}

/* Weights [k, c, r, s] as [k, (r s c), 1, 1], of signals [k, c, s] as [k, (s c), 1]. */
static ir_value *weights(tn_ctx *ctx, ir_graph *g, ir_node *n, int64_t k, int64_t sums) {
  int rank = n->in[1]->rank;
  ir_node *turn = lw_node_n(g, n, "Transpose", 1, &n->in[1], 1);
  ir_attr_ints(turn, "perm", rank, rank == 3 ? (int64_t[]){0, 2, 1} : (int64_t[]){0, 2, 3, 1});
  ir_infer(ctx, turn);
  return lw_node(g, n, "Reshape", 2, (ir_value *[]){turn->out[0], ir_graph_ints(g, NULL, rank, (int64_t[]){k, sums, 1, 1})});
}

void lw_unfold(tn_ctx *ctx, ir_graph *g, ir_node *n, const lw_options *options) {
  const ir_value *x = n->in[0], *w = n->in[1];
  if (options->layout == LW_LAYOUT_NHWC || !w->packed || (x->rank != 4 && x->rank != 3) || x->dtype != TN_F32 || !ir_static(x) || !ir_static(w) || ir_attr_get_int(n, "group", 1) != 1) return;
  lw_window win;
  lw_window_of(ctx, n, w->dims + 2, &win);
  bool signal = x->rank == 3;
  int64_t r = signal ? 1 : ir_dim(ctx, w, 2), s = ir_dim(ctx, w, -1);
  layer l = {ir_dim(ctx, w, 0), ir_dim(ctx, w, 1), r * s, signal ? 1 : ir_dim(ctx, n->out[0], 2), ir_dim(ctx, n->out[0], -1), 1};
  bool plain = options->layout == LW_LAYOUT_NCHW; /* vectors are pixels of a row, which lie apart or are few */
  bool apart = win.stride[signal ? 0 : 1] > 1, few = l.width < FEW_VECTORS * cg_target_lanes(options->target, TN_F32) && l.k >= FEW_VECTORS * cg_target_lanes(options->target, TN_F32);
  bool dense = !signal && win.stride[0] == 1 && win.stride[1] == 1; /* 3x3: Winograd's, where that is allowed */
  if (l.taps < 2 || (!plain && dense && options->accuracy > 0) || ir_dim(ctx, x, 0) < 1 || (!signal && l.height < 2) || l.width < 1) return;
  if (dense) l.met = rows_met(&win, l.height, r, ir_dim(ctx, x, 2)); /* rows a stride apart cost a tile more than is saved so */
  if (plain ? !(apart || few) || options->attention_apart : signal ? !gains_signal(&l, options->target, ir_dim(ctx, x, 2)) : !gains(&l, options->target)) return;
  static const char *const kept[] = {"dilations", "pads", "strides"};
  ir_node *u = lw_node_n(g, n, "tenon:Unfold", 1, &n->in[0], 1);
  const int64_t *v;
  for (int i = 0; i < IR_COUNT(kept); i++) {
    int count = ir_attr_get_ints(n, kept[i], &v);
    if (count >= 0) ir_attr_ints(u, kept[i], count, v);
  }
  ir_attr_ints(u, "kernel_shape", x->rank - 2, signal ? (int64_t[]){s} : (int64_t[]){r, s});
  ir_attr_string(u, "auto_pad", ir_attr_get_string(n, "auto_pad", "NOTSET"));
  ir_infer(ctx, u);
  ir_node *m = lw_node_n(g, n, "Conv", lw_has(n, 2) ? 3 : 2, (ir_value *[]){u->out[0], weights(ctx, g, n, l.k, l.taps * l.c), lw_has(n, 2) ? n->in[2] : NULL}, 1);
  m->opset = n->opset;
  m->name = n->name;
  ir_infer(ctx, m);
  lw_replace(g, n, 0, m->out[0]);
}
