/* ops_conv.c — convolutions.
 *
 * Conv and ConvInteger: for n [g] k [z [y]] x { acc = 0; for c [q [r]] s
 *   if (inside) acc = fma(x[..], w[..], acc);  out = acc + bias }
 * The output channel is g * (K / groups) + k, the input channel g * (C / groups) + c. */
#include "lower/grad.h"
#include "lower/window.h"
#include <string.h>

typedef struct conv {
  lw_window w;
  int64_t groups;
  ix k, c; /* output and input channels of one group */
} conv;

static conv conv_of(tn_ctx *ctx, const ir_node *n) {
  conv v = {.groups = ir_attr_get_int(n, "group", 1)};
  const ir_value *x = n->in[0], *w = n->in[1];
  int rank = x->rank - 2;
  if (rank < 1) lw_bad(ctx, n, "the input has rank %d; N, C and at least one spatial axis are needed", x->rank);
  lw_need_rank(ctx, n, 1, x->rank);
  if (v.groups < 1) lw_bad(ctx, n, "group %lld", (long long)v.groups);
  lw_window_of(ctx, n, w->dims + 2, &v.w);
  if (lw_has_attr(n, "kernel_shape")) {
    ix taps[LW_MAX_SPATIAL];
    lw_kernel_shape(ctx, n, rank, taps);
    for (int i = 0; i < rank; i++)
      if (taps[i] != w->dims[i + 2] && ix_is_const(w->dims[i + 2]))
        lw_bad(ctx, n, "kernel_shape says %s, the weights have %s", ix_print(ctx, taps[i]), ix_print(ctx, w->dims[i + 2]));
  }
  int64_t all;
  if (ix_const_value(w->dims[0], &all) && all % v.groups != 0)
    lw_bad(ctx, n, "%lld output channels do not divide into %lld groups", (long long)all, (long long)v.groups);
  ix channels = ix_muli(ctx, w->dims[1], v.groups);
  if (x->dims[1] != channels && ix_is_const(x->dims[1]) && ix_is_const(channels))
    lw_bad(ctx, n, "the input has %s channels, the weights %s in %lld groups", ix_print(ctx, x->dims[1]), ix_print(ctx, w->dims[1]), (long long)v.groups);
  v.k = ix_divi(ctx, w->dims[0], v.groups);
  v.c = w->dims[1];
  return v;
}

static void conv_set(tn_ctx *ctx, ir_node *n, tn_dtype t) {
  conv v = conv_of(ctx, n);
  ix dims[IR_MAX_RANK] = {n->in[0]->dims[0], n->in[1]->dims[0]};
  for (int i = 0; i < v.w.rank; i++) dims[i + 2] = v.w.out[i];
  lw_set(n, 0, t, n->in[0]->rank, dims);
}

/* Input k, when there, must be a vector with an element per output channel. */
static void need_bias(tn_ctx *ctx, const ir_node *n, int k, ix channels) {
  if (!lw_has(n, k)) return;
  lw_need_rank(ctx, n, k, 1);
  lw_need_same_type(ctx, n, 0, k);
  ix have = n->in[k]->dims[0];
  if (have != channels && ix_is_const(have) && ix_is_const(channels))
    lw_bad(ctx, n, "%s biases for %s output channels", ix_print(ctx, have), ix_print(ctx, channels));
}

static void conv_infer(tn_ctx *ctx, ir_node *n) {
  tn_dtype t = n->in[0]->dtype;
  lw_need_same_type(ctx, n, 0, 1);
  if (!ir_is_float(t)) lw_bad(ctx, n, "operands of type %s", ir_dtype_name(t));
  conv_set(ctx, n, t);
  need_bias(ctx, n, 2, n->in[1]->dims[0]);
}

/* Narrow floats whose sums, bias and result are f32; words (the weights also bytes) with i32, and bytes whose products are made in words. */
static void conv_wide_infer(tn_ctx *ctx, ir_node *n) {
  tn_dtype t = n->in[0]->dtype;
  if ((t == TN_I16 ? n->in[1]->dtype == TN_I16 || n->in[1]->dtype == TN_I8 : t == TN_U8 && n->in[1]->dtype == TN_I8) && !lw_has(n, 2)) {
    conv_set(ctx, n, TN_I32);
    return;
  }
  if (!ir_is_byte_float(t) || !ir_is_byte_float(n->in[1]->dtype)) lw_need_same_type(ctx, n, 0, 1);
  if (!ir_is_narrow_float(t)) lw_bad(ctx, n, "operands of type %s", ir_dtype_name(t));
  if (lw_has(n, 2) && n->in[2]->dtype != TN_F32) lw_bad(ctx, n, "a bias of type %s", ir_dtype_name(n->in[2]->dtype));
  conv_set(ctx, n, TN_F32);
}

static void conv_integer_infer(tn_ctx *ctx, ir_node *n) {
  for (int k = 0; k < 2; k++)
    if (n->in[k]->dtype != TN_U8 && n->in[k]->dtype != TN_I8) lw_bad(ctx, n, "input %d is %s, not u8 or i8", k, ir_dtype_name(n->in[k]->dtype));
  for (int k = 0; k < 2; k++)
    if (lw_has(n, k + 2)) lw_need_same_type(ctx, n, k, k + 2);
  if (lw_has(n, 3) && n->in[3]->rank > 1) lw_bad(ctx, n, "w_zero_point has rank %d", n->in[3]->rank);
  conv_set(ctx, n, TN_I32);
}

static void conv_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *ib = lw_b(b);
  conv v = conv_of(ctx, n);
  int rank = v.w.rank;
  bool integer = n->op->max_in == 4; /* ConvInteger: inputs 2 and 3 are zero points */
  tn_dtype t = n->out[0]->dtype;
  ix o[IR_MAX_RANK], g = ix_index(ctx, 0), tap[LW_MAX_SPATIAL], in[IR_MAX_RANK], weight[IR_MAX_RANK];
  o[0] = ib_loop(ib, "n", n->in[0]->dims[0]);
  if (v.groups > 1) g = ib_loop(ib, "g", ix_index(ctx, v.groups));
  ix k = ib_loop(ib, "k", v.k);
  o[1] = ix_add(ctx, ix_mul(ctx, g, v.k), k);
  lw_loops(b, lw_axis_names(rank), rank, v.w.out, o + 2);
  ir_buf *acc = lw_accumulator(b, t);
  ix c = ib_loop(ib, "c", v.c);
  lw_loops(b, lw_tap_names(rank), rank, v.w.taps, tap);
  in[0] = o[0];
  in[1] = ix_add(ctx, ix_mul(ctx, g, v.c), c);
  lw_window_at(ctx, &v.w, o + 2, tap, in + 2);
  weight[0] = o[1];
  weight[1] = c;
  for (int i = 0; i < rank; i++) weight[i + 2] = tap[i];
  ib_if(ib, lw_window_inside(ctx, &v.w, in + 2));
  ix x = lw_in(b, n, 0, in), w = lw_in(b, n, 1, weight);
  if (integer) {
    x = ix_cast(ctx, TN_I32, x);
    w = ix_cast(ctx, TN_I32, w);
    if (lw_has(n, 2)) x = ix_sub(ctx, x, ix_cast(ctx, TN_I32, lw_scalar_in(b, n, 2)));
    if (lw_has(n, 3)) { /* one for all, or one per output channel */
      bool each = n->in[3]->rank == 1 && !ix_is_int(n->in[3]->dims[0], 1);
      w = ix_sub(ctx, w, ix_cast(ctx, TN_I32, each ? lw_in(b, n, 3, o + 1) : lw_scalar_in(b, n, 3)));
    }
  }
  lw_accumulate(b, acc, x, w);
  ib_end(ib);
  ib_end_n(ib, rank + 1);
  ix r = ib_get(ib, acc);
  if (!integer && lw_has(n, 2)) r = ix_add(ctx, r, ix_cast(ctx, acc->dtype, lw_in(b, n, 2, o + 1)));
  lw_out(b, n, 0, o, ix_cast(ctx, t, r));
  ib_end_n(ib, rank + 2 + (v.groups > 1));
}

/* ---- ConvTranspose, gathered: each output asks which inputs reach it ----
 *
 * Input i reaches output o through tap t when o = i * stride + t * dilation - begin. With
 * p = o + begin: without dilation the taps are p mod stride + j * stride, so the reduction
 * runs over j and finds i = p div stride - j; else all taps are tried. With stride 1 it runs from the
 * last, over inputs in their order, as a plain convolution does. Weights are [C, K / groups, taps]. */

typedef struct transpose {
  int rank;
  int64_t groups, stride[LW_MAX_SPATIAL], dilation[LW_MAX_SPATIAL];
  ix in[LW_MAX_SPATIAL], taps[LW_MAX_SPATIAL], out[LW_MAX_SPATIAL], begin[LW_MAX_SPATIAL];
  ix k, c; /* output and input channels of one group */
} transpose;

static transpose transpose_of(tn_ctx *ctx, const ir_node *n) {
  const ir_value *x = n->in[0], *w = n->in[1];
  transpose v = {.rank = x->rank - 2, .groups = ir_attr_get_int(n, "group", 1)};
  if (v.rank < 1) lw_bad(ctx, n, "the input has rank %d; N, C and at least one spatial axis are needed", x->rank);
  lw_need_rank(ctx, n, 1, x->rank);
  int64_t extra[LW_MAX_SPATIAL], channels;
  lw_spatial_attr(ctx, n, "strides", v.rank, 1, 1, v.stride);
  lw_spatial_attr(ctx, n, "dilations", v.rank, 1, 1, v.dilation);
  lw_spatial_attr(ctx, n, "output_padding", v.rank, 0, 0, extra);
  if (v.groups < 1) lw_bad(ctx, n, "group %lld", (long long)v.groups);
  if (ix_const_value(w->dims[0], &channels) && channels % v.groups != 0)
    lw_bad(ctx, n, "%lld input channels do not divide into %lld groups", (long long)channels, (long long)v.groups);
  if (x->dims[1] != w->dims[0] && ix_is_const(x->dims[1]) && ix_is_const(w->dims[0]))
    lw_bad(ctx, n, "the input has %s channels, the weights %s", ix_print(ctx, x->dims[1]), ix_print(ctx, w->dims[0]));
  v.c = ix_divi(ctx, w->dims[0], v.groups);
  v.k = w->dims[1];
  const char *mode = ir_attr_get_string(n, "auto_pad", "NOTSET");
  bool upper = strcmp(mode, "SAME_UPPER") == 0, same = upper || strcmp(mode, "SAME_LOWER") == 0;
  const int64_t *pads, *shape;
  int npads = ir_attr_get_ints(n, "pads", &pads), nshape = ir_attr_get_ints(n, "output_shape", &shape);
  if (npads >= 0 && npads != 2 * v.rank) lw_bad(ctx, n, "'pads' has %d entries, not %d", npads, 2 * v.rank);
  if (nshape >= 0 && nshape != v.rank && nshape != v.rank + 2) lw_bad(ctx, n, "'output_shape' has %d entries, not %d", nshape, v.rank);
  if (strcmp(mode, "VALID") == 0) npads = -1;
  if (nshape == v.rank + 2) shape += 2;
  for (int i = 0; i < v.rank; i++) {
    v.in[i] = x->dims[i + 2];
    v.taps[i] = w->dims[i + 2];
    /* extent without any padding cut off */
    ix full = ix_add(ctx, ix_muli(ctx, ix_addi(ctx, v.in[i], -1), v.stride[i]), ix_muli(ctx, ix_addi(ctx, v.taps[i], -1), v.dilation[i]));
    full = ix_addi(ctx, full, 1 + extra[i]);
    if (nshape >= 0 || same) {
      if (nshape >= 0 && (shape[i] < 1 || shape[i] > INT32_MAX)) lw_bad(ctx, n, "'output_shape' holds %lld", (long long)shape[i]);
      v.out[i] = nshape >= 0 ? ix_index(ctx, shape[i]) : ix_muli(ctx, v.in[i], v.stride[i]);
      ix cut = ix_max(ctx, ix_sub(ctx, full, v.out[i]), ix_index(ctx, 0)), less = ix_divi(ctx, cut, 2);
      v.begin[i] = upper ? less : ix_sub(ctx, cut, less);
    } else {
      int64_t before = npads < 0 ? 0 : pads[i], after = npads < 0 ? 0 : pads[v.rank + i];
      if (before < 0 || after < 0 || before > INT32_MAX || after > INT32_MAX) lw_bad(ctx, n, "'pads' holds a number out of range");
      v.begin[i] = ix_index(ctx, before);
      v.out[i] = ix_max(ctx, ix_addi(ctx, full, -(before + after)), ix_index(ctx, 0));
    }
  }
  return v;
}

static void transpose_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  lw_need_same_type(ctx, n, 0, 1);
  if (!ir_is_float(x->dtype)) lw_bad(ctx, n, "operands of type %s", ir_dtype_name(x->dtype));
  transpose v = transpose_of(ctx, n);
  ix dims[IR_MAX_RANK] = {x->dims[0], ix_muli(ctx, v.k, v.groups)};
  need_bias(ctx, n, 2, dims[1]);
  for (int i = 0; i < v.rank; i++) dims[i + 2] = v.out[i];
  lw_set(n, 0, x->dtype, x->rank, dims);
}

static void transpose_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *ib = lw_b(b);
  transpose v = transpose_of(ctx, n);
  ix o[IR_MAX_RANK], g = ix_index(ctx, 0), steps[LW_MAX_SPATIAL], j[LW_MAX_SPATIAL], in[IR_MAX_RANK], weight[IR_MAX_RANK];
  o[0] = ib_loop(ib, "n", n->in[0]->dims[0]);
  if (v.groups > 1) g = ib_loop(ib, "g", ix_index(ctx, v.groups));
  ix k = ib_loop(ib, "k", v.k);
  o[1] = ix_add(ctx, ix_mul(ctx, g, v.k), k);
  lw_loops(b, lw_axis_names(v.rank), v.rank, v.out, o + 2);
  ir_buf *acc = lw_accumulator(b, n->out[0]->dtype);
  ix c = ib_loop(ib, "c", v.c), zero = ix_index(ctx, 0), reached = ix_bool(ctx, true);
  for (int i = 0; i < v.rank; i++) steps[i] = v.dilation[i] == 1 ? ix_ceil_div(ctx, v.taps[i], v.stride[i]) : v.taps[i];
  lw_loops(b, lw_tap_names(v.rank), v.rank, steps, j);
  in[0] = o[0];
  in[1] = weight[0] = ix_add(ctx, ix_mul(ctx, g, v.c), c);
  weight[1] = k;
  for (int i = 0; i < v.rank; i++) {
    ix p = ix_add(ctx, o[i + 2], v.begin[i]);
    if (v.dilation[i] == 1) {
      ix step = v.stride[i] == 1 ? ix_sub(ctx, ix_addi(ctx, steps[i], -1), j[i]) : j[i];
      weight[i + 2] = ix_add(ctx, ix_remi(ctx, p, v.stride[i]), ix_muli(ctx, step, v.stride[i]));
      in[i + 2] = ix_sub(ctx, ix_divi(ctx, p, v.stride[i]), step);
      reached = ix_and(ctx, reached, ix_lt(ctx, weight[i + 2], v.taps[i]));
    } else {
      ix from = ix_sub(ctx, p, ix_muli(ctx, j[i], v.dilation[i]));
      weight[i + 2] = j[i];
      in[i + 2] = ix_divi(ctx, from, v.stride[i]);
      reached = ix_and(ctx, reached, ix_eq(ctx, ix_remi(ctx, from, v.stride[i]), zero));
    }
    reached = ix_and(ctx, reached, ix_within(ctx, in[i + 2], zero, v.in[i]));
  }
  ib_if(ib, reached);
  ix x = lw_in(b, n, 0, in), w = lw_in(b, n, 1, weight);
  lw_accumulate(b, acc, x, w);
  ib_end(ib);
  ib_end_n(ib, v.rank + 1);
  ix r = ib_get(ib, acc);
  if (lw_has(n, 2)) r = ix_add(ctx, r, ix_cast(ctx, acc->dtype, lw_in(b, n, 2, o + 1)));
  lw_out(b, n, 0, o, ix_cast(ctx, n->out[0]->dtype, r));
  ib_end_n(ib, v.rank + 2 + (v.groups > 1));
}

/* Where there are fewer output channels than a vector has lanes, what each residue of the stride gives becomes channels of one
 * convolution of stride 1, whose pixels are interleaved afterwards (Shi et al., "Is the deconvolution layer the same as a
 * convolutional layer?", 2016): vectors are full, and no lane divides. Taps that the kernel lacks are zero. */
void lw_subpixel(tn_ctx *ctx, ir_graph *g, ir_node *n, int lanes, bool strict) {
  enum { AXES = 2 + 2 * LW_MAX_SPATIAL };
  ir_value *w = n->in[1];
  if (!ir_static(n->in[0]) || !ir_static(w) || !ir_static(n->out[0])) return;
  transpose v = transpose_of(ctx, n);
  int64_t k = ir_dim(ctx, w, 1), c = ir_dim(ctx, w, 0), batch = ir_dim(ctx, n->in[0], 0), residues = 1;
  int r = v.rank;
  if (v.groups != 1 || k < 1 || k >= lanes || c < 1 || batch < 1 || 2 + 2 * r > IR_MAX_RANK) return;
  int64_t ends[AXES] = {0}, apart[AXES] = {c, k}, perm[AXES], whole[AXES] = {k, c}, pads[2 * LW_MAX_SPATIAL], mixed[AXES] = {batch, k}, wide[AXES] = {batch, k}, first[LW_MAX_SPATIAL];
  int64_t minus[LW_MAX_SPATIAL], last[LW_MAX_SPATIAL], axes[LW_MAX_SPATIAL];
  perm[0] = 1, perm[1 + r] = 0;
  for (int i = 0; i < r; i++) {
    int64_t s = v.stride[i], taps = ir_dim(ctx, w, i + 2), in = ir_dim(ctx, n->in[0], i + 2), out = ir_dim(ctx, n->out[0], i + 2), begin;
    if (v.dilation[i] != 1 || taps < 1 || (strict && taps % s) || in < 1 || out < 1 || !ix_const_value(v.begin[i], &begin)) return;
    int64_t steps = (taps + s - 1) / s, from = begin / s, pixels = (begin + out - 1) / s - from + 1;
    pads[i] = steps - 1 - from;
    pads[r + i] = pixels + steps - 1 - in - pads[i];
    if (pads[i] < 0 || pads[r + i] < 0) return; /* nothing is cropped */
    ends[2 + r + 2 + i] = steps * s - taps;
    apart[2 + 2 * i] = steps, apart[3 + 2 * i] = s;
    perm[1 + i] = 3 + 2 * i, perm[2 + r + i] = 2 + 2 * i;
    whole[2 + i] = steps;
    mixed[2 + i] = s, mixed[2 + r + i] = pixels, wide[2 + i] = pixels * s;
    first[i] = begin - from * s;
    minus[i] = -1, last[i] = INT64_MIN, axes[i] = 2 + r + i;
    residues *= s;
  }
  if (residues == 1) return;
  whole[0] *= residues;
  w = lw_reshape(g, n, lw_op2(g, n, "Pad", w, ir_graph_ints(g, NULL, 2 * (2 + r), ends)), 2 + 2 * r, apart);
  w = lw_transpose(g, n, w, perm); /* K, residues, C, steps */
  ir_value *turned = ir_graph_ints(g, NULL, r, minus);
  w = lw_node(g, n, "Slice", 5, (ir_value *[]){w, turned, ir_graph_ints(g, NULL, r, last), ir_graph_ints(g, NULL, r, axes), turned});
  ir_value *in[3] = {n->in[0], lw_reshape(g, n, w, 2 + r, whole)};
  if (lw_has(n, 2)) {
    ir_value *bias = lw_op2(g, n, "Expand", lw_reshape(g, n, n->in[2], 2, (int64_t[]){k, 1}), ir_graph_ints(g, NULL, 2, (int64_t[]){k, residues}));
    in[2] = lw_reshape(g, n, bias, 1, whole);
  }
  ir_node *m = lw_node_n(g, n, "Conv", lw_has(n, 2) ? 3 : 2, in, 1);
  m->name = n->name;
  ir_attr_ints(m, "pads", 2 * r, pads);
  ir_infer(ctx, m);
  ir_value *y = lw_reshape(g, n, m->out[0], 2 + 2 * r, mixed);
  perm[0] = 0, perm[1] = 1;
  for (int i = 0; i < r; i++) perm[2 + 2 * i] = 2 + r + i, perm[3 + 2 * i] = 2 + i;
  y = lw_reshape(g, n, lw_transpose(g, n, y, perm), 2 + r, wide);
  for (int i = 0; i < r; i++) {
    int64_t out = ir_dim(ctx, n->out[0], i + 2);
    if (out < wide[2 + i]) y = lw_slice(g, n, y, i + 2, first[i], first[i] + out);
  }
  lw_replace(g, n, 0, y);
}

/* ---- DeformConv: each tap reads between pixels, at its place plus an offset ----
 *
 * Inputs X, W, offset [N, sets * R * S * 2, H', W'], bias, mask [N, sets * R * S, H', W']. */

static void deform_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  for (int k = 0; k < n->nin; k++)
    if (lw_has(n, k)) lw_need_same_type(ctx, n, 0, k);
  if (!ir_is_float(x->dtype)) lw_bad(ctx, n, "operands of type %s", ir_dtype_name(x->dtype));
  if (x->rank != 4) lw_unsupported(ctx, n, "an input of rank %d; only rank 4 is", x->rank);
  conv v = conv_of(ctx, n);
  int64_t sets = ir_attr_get_int(n, "offset_group", 1), channels;
  if (sets < 1 || (ix_const_value(x->dims[1], &channels) && channels % sets != 0)) lw_bad(ctx, n, "offset_group %lld", (long long)sets);
  lw_need_rank(ctx, n, 2, 4);
  need_bias(ctx, n, 3, n->in[1]->dims[0]);
  ix taps = ix_muli(ctx, ix_mul(ctx, v.w.taps[0], v.w.taps[1]), sets);
  ix dims[4] = {x->dims[0], n->in[1]->dims[0], v.w.out[0], v.w.out[1]};
  for (int k = 2; k < 5; k += 2) {
    if (!lw_has(n, k)) continue;
    lw_need_rank(ctx, n, k, 4);
    ix want[4] = {dims[0], k == 2 ? ix_muli(ctx, taps, 2) : taps, dims[2], dims[3]};
    for (int i = 0; i < 4; i++)
      if (n->in[k]->dims[i] != want[i] && ix_is_const(n->in[k]->dims[i]) && ix_is_const(want[i]))
        lw_bad(ctx, n, "axis %d of '%s' has extent %s, not %s", i, n->in[k]->name, ix_print(ctx, n->in[k]->dims[i]), ix_print(ctx, want[i]));
  }
  lw_set(n, 0, x->dtype, 4, dims);
}

typedef struct corners { /* of the pixels around a place: whether they are in X, where, and their share */
  ix inside[4], index[4][2], weight[4];
} corners;

static void corners_at(lw_build *b, const ir_node *n, const ix *at, corners *v) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *ib = lw_b(b);
  tn_dtype t = (tn_dtype)at[0]->dtype;
  ix low[2], part[2], zero = ix_index(ctx, 0);
  for (int i = 0; i < 2; i++) {
    ix f = ib_let(ib, "f", ix_unary(ctx, IX_FLOOR, at[i]));
    low[i] = ib_let(ib, "low", lw_clamp(ctx, ix_cast(ctx, TN_INDEX, f), ix_index(ctx, -2), n->in[0]->dims[i + 2]));
    part[i] = ib_let(ib, "part", ix_sub(ctx, at[i], f));
  }
  for (int k = 0; k < 4; k++) {
    ix inside = ix_bool(ctx, true), weight = ix_float(ctx, t, 1);
    for (int i = 0; i < 2; i++) {
      int high = k >> (1 - i) & 1;
      ix p = ix_addi(ctx, low[i], high), d = n->in[0]->dims[i + 2];
      inside = ix_and(ctx, inside, ix_within(ctx, p, zero, d));
      v->index[k][i] = ib_let(ib, "p", lw_clamp(ctx, p, zero, ix_addi(ctx, d, -1)));
      weight = ix_mul(ctx, weight, high ? part[i] : ix_sub(ctx, ix_float(ctx, t, 1), part[i]));
    }
    v->inside[k] = ib_let(ib, "inside", inside);
    v->weight[k] = ib_let(ib, "weight", weight);
  }
}

/* X at [batch, channel] between pixels, bilinear; 0 beyond the borders. */
static ix between_pixels(lw_build *b, ir_node *n, ix batch, ix channel, tn_dtype t, const corners *v) {
  tn_ctx *ctx = lw_ctx(b);
  ix sum = NULL;
  for (int k = 0; k < 4; k++) {
    ix e = ix_select(ctx, v->inside[k], ix_cast(ctx, t, lw_in(b, n, 0, (ix[]){batch, channel, v->index[k][0], v->index[k][1]})), lw_zero(ctx, t));
    sum = sum ? ix_fma(ctx, e, v->weight[k], sum) : ix_mul(ctx, e, v->weight[k]);
  }
  return sum;
}

/* The samples, which all filters share, and their product with the filters. */
static void deform_expand(ir_graph *g, ir_node *n) {
  tn_ctx *ctx = g->ctx;
  ir_value *w = n->in[1], *in[3] = {n->in[0], n->in[2], lw_has(n, 4) ? n->in[4] : NULL};
  int64_t groups = ir_attr_get_int(n, "group", 1), filters = ir_dim(ctx, w, 0), each = ir_dim(ctx, w, 1), taps[2] = {ir_dim(ctx, w, 2), ir_dim(ctx, w, 3)}, dims[4];
  for (int i = 0; i < 4; i++) dims[i] = ir_dim(ctx, n->out[0], i);
  int64_t inner = each * taps[0] * taps[1], places = dims[2] * dims[3];
  ir_node *s = lw_node_n(g, n, "tenon:DeformSamples", in[2] ? 3 : 2, in, 1);
  static const char *const same[] = {"auto_pad", "dilations", "pads", "strides", "offset_group"};
  for (int i = 0; i < IR_COUNT(same); i++) {
    const ir_attr *a = ir_attr_find(n, same[i]);
    if (a) IR_PUSH(ctx, s->attrs, s->nattrs, *a);
  }
  ir_attr_ints(s, "kernel_shape", 2, taps);
  ir_infer(ctx, s);
  ir_value *y = lw_op2(g, n, "MatMul", lw_reshape(g, n, w, 3, (int64_t[]){groups, filters / groups, inner}), lw_reshape(g, n, s->out[0], 4, (int64_t[]){dims[0], groups, inner, places}));
  y = lw_reshape(g, n, y, 4, dims);
  if (lw_has(n, 3)) y = lw_op2(g, n, "Add", y, lw_reshape(g, n, n->in[3], 3, (int64_t[]){filters, 1, 1}));
  lw_replace(g, n, 0, y);
}

/* tenon DeformSamples: X, offset, mask -> [N, C, R * S, H' * W'] */

static void sample_window(tn_ctx *ctx, const ir_node *n, lw_window *w) {
  const int64_t *taps;
  if (ir_attr_get_ints(n, "kernel_shape", &taps) != 2) lw_bad(ctx, n, "kernel_shape is missing");
  lw_window_of(ctx, n, (ix[]){ix_index(ctx, taps[0]), ix_index(ctx, taps[1])}, w);
}

static void deform_samples_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  lw_window w;
  sample_window(ctx, n, &w);
  lw_set(n, 0, x->dtype, 4, (ix[]){x->dims[0], x->dims[1], ix_mul(ctx, w.taps[0], w.taps[1]), ix_mul(ctx, w.out[0], w.out[1])});
}

/* Where to read is computed once for the channels of a set, which are the innermost loop. */
static void deform_samples_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *ib = lw_b(b);
  lw_window w;
  sample_window(ctx, n, &w);
  tn_dtype t = n->out[0]->dtype, ct = lw_compute_type(t);
  int64_t sets = ir_attr_get_int(n, "offset_group", 1), per_set = ir_dim(ctx, n->in[0], 1) / sets;
  ix o[2], tap[2], at[2];
  ix batch = ib_loop(ib, "n", n->in[0]->dims[0]), set = ib_loop(ib, "g", ix_index(ctx, sets));
  lw_loops(b, "rs", 2, w.taps, tap);
  lw_loops(b, "yx", 2, w.out, o);
  lw_window_at(ctx, &w, o, tap, at);
  ix which = ix_add(ctx, ix_mul(ctx, tap[0], w.taps[1]), tap[1]), place = ix_add(ctx, ix_mul(ctx, ix_mul(ctx, set, w.taps[0]), w.taps[1]), which);
  for (int i = 0; i < 2; i++) {
    ix offset = lw_in(b, n, 1, (ix[]){batch, ix_addi(ctx, ix_muli(ctx, place, 2), i), o[0], o[1]});
    at[i] = ib_let(ib, "at", ix_add(ctx, ix_cast(ctx, ct, at[i]), ix_cast(ctx, ct, offset)));
  }
  ix mask = lw_has(n, 2) ? ib_let(ib, "mask", ix_cast(ctx, ct, lw_in(b, n, 2, (ix[]){batch, place, o[0], o[1]}))) : NULL;
  corners v;
  corners_at(b, n, at, &v);
  ix channel = ix_add(ctx, ix_muli(ctx, set, per_set), ib_loop(ib, "c", ix_index(ctx, per_set))), e = between_pixels(b, n, batch, channel, ct, &v);
  if (mask) e = ix_mul(ctx, e, mask);
  lw_out(b, n, 0, (ix[]){batch, channel, which, ix_add(ctx, ix_mul(ctx, o[0], w.out[1]), o[1])}, ix_cast(ctx, t, e));
  ib_end_n(ib, 7);
}

/* ---- gradients: Conv, ConvTranspose and ConvWeights are each other's ----
 *
 * All three are sums over (i, o, t) with i = o * stride + t * dilation - begin of one of X[i],
 * Y[o], W[t] given the other two: Conv gives Y, ConvTranspose X, ConvWeights W. */

typedef struct geometry { /* of the convolution from x to y */
  int rank;
  int64_t groups, stride[LW_MAX_SPATIAL], dilation[LW_MAX_SPATIAL], begin[LW_MAX_SPATIAL], end[LW_MAX_SPATIAL];
  int64_t x[LW_MAX_SPATIAL], y[LW_MAX_SPATIAL], taps[LW_MAX_SPATIAL];
} geometry;

/* Input coordinates that the convolution does not read for want of a whole step. */
static int64_t left_over(const geometry *v, int i) {
  return v->x[i] + v->begin[i] + v->end[i] - ((v->y[i] - 1) * v->stride[i] + (v->taps[i] - 1) * v->dilation[i] + 1);
}

static ir_node *with_geometry(lw_grad *d, const char *op, ir_value *a, ir_value *b, const geometry *v) {
  int64_t pads[2 * LW_MAX_SPATIAL];
  ir_node *m = lw_node_n(d->g, d->n, op, 2, (ir_value *[]){a, b}, 1);
  for (int i = 0; i < v->rank; i++) pads[i] = v->begin[i], pads[v->rank + i] = v->end[i];
  ir_attr_int(m, "group", v->groups);
  ir_attr_ints(m, "strides", v->rank, v->stride);
  ir_attr_ints(m, "dilations", v->rank, v->dilation);
  ir_attr_ints(m, "pads", 2 * v->rank, pads);
  return m;
}
static ir_value *made(lw_grad *d, ir_node *m) {
  ir_infer(d->ctx, m);
  return m->out[0];
}

/* Y from X and W. X may reach further than the windows do: they then leave it alone. */
static ir_value *conv_forward(lw_grad *d, ir_value *x, ir_value *w, const geometry *v) {
  geometry u = *v;
  for (int i = 0; i < u.rank; i++) {
    int64_t over = left_over(&u, i), from_end = over < u.end[i] ? over : u.end[i];
    u.end[i] -= from_end;
    if (over > from_end) x = lw_slice(d->g, d->n, x, i + 2, 0, u.x[i] - (over - from_end));
  }
  return made(d, with_geometry(d, "Conv", x, w, &u));
}
/* W [K, C / g, taps] with inputs and outputs exchanged, [C, K / g, taps], and all taps in reverse. */
static ir_value *turned_weights(lw_grad *d, ir_value *w, const geometry *v) {
  int64_t dims[IR_MAX_RANK], apart[IR_MAX_RANK + 1], swap[IR_MAX_RANK + 1], ends[LW_MAX_SPATIAL], axes[LW_MAX_SPATIAL], minus[LW_MAX_SPATIAL];
  lw_grad_dims(d->ctx, w, dims);
  apart[0] = v->groups;
  apart[1] = dims[0] / v->groups;
  apart[2] = dims[1];
  for (int i = 0; i < v->rank; i++) {
    apart[i + 3] = dims[i + 2];
    axes[i] = i + 2;
    minus[i] = -1;
    ends[i] = INT64_MIN;
  }
  for (int i = 0; i < v->rank + 3; i++) swap[i] = i == 1 ? 2 : i == 2 ? 1 : i;
  w = lw_transpose(d->g, d->n, lw_reshape(d->g, d->n, w, v->rank + 3, apart), swap);
  dims[0] = v->groups * apart[2];
  dims[1] = apart[1];
  w = lw_reshape(d->g, d->n, w, v->rank + 2, dims);
  ir_value *in[5] = {w, ir_graph_ints(d->g, NULL, v->rank, minus), ir_graph_ints(d->g, NULL, v->rank, ends),
                     ir_graph_ints(d->g, NULL, v->rank, axes), ir_graph_ints(d->g, NULL, v->rank, minus)};
  return lw_node(d->g, d->n, "Slice", 5, in);
}

/* X from Y and W: a transposed convolution; a plain one by the turned weights where that finds its taps by trying them
 * or does not keep channels together. */
static ir_value *conv_back(lw_grad *d, ir_value *y, ir_value *w, const geometry *v) {
  int64_t extra[LW_MAX_SPATIAL];
  geometry u = *v;
  bool plain = true, dilated = false;
  for (int i = 0; i < v->rank; i++) {
    dilated |= v->dilation[i] > 1;
    int64_t reach = (v->taps[i] - 1) * v->dilation[i];
    plain &= v->stride[i] == 1 && left_over(v, i) == 0;
    u.begin[i] = reach - v->begin[i];
    u.end[i] = reach - v->end[i];
    plain &= u.begin[i] >= 0 && u.end[i] >= 0;
  }
  if (plain && (dilated || v->groups > 1)) return made(d, with_geometry(d, "Conv", y, turned_weights(d, w, v), &u));
  ir_node *m = with_geometry(d, "ConvTranspose", y, w, v);
  for (int i = 0; i < v->rank; i++) extra[i] = left_over(v, i);
  ir_attr_ints(m, "output_padding", v->rank, extra);
  return made(d, m);
}
/* [C / g, taps, K] as [K, C / g, taps]. */
static ir_value *last_axis_first(lw_grad *d, ir_value *w) {
  int64_t perm[IR_MAX_RANK];
  for (int i = 0; i < w->rank; i++) perm[i] = i ? i - 1 : w->rank - 1;
  return lw_transpose(d->g, d->n, w, perm);
}
/* W from X and Y. Borders of zeros are put there first: they cost less than asking each element. */
static ir_value *conv_weights(lw_grad *d, ir_value *x, ir_value *y, const geometry *v) {
  geometry u = *v;
  int64_t pads[2 * IR_MAX_RANK] = {0};
  bool padded = false;
  for (int i = 0; i < u.rank; i++) {
    padded |= u.begin[i] > 0 || u.end[i] > 0;
    pads[i + 2] = u.begin[i];
    pads[x->rank + i + 2] = u.end[i];
    u.begin[i] = u.end[i] = 0;
  }
  if (padded) x = lw_op2(d->g, d->n, "Pad", x, ir_graph_ints(d->g, NULL, 2 * x->rank, pads));
  ir_node *m = with_geometry(d, "tenon:ConvWeights", x, y, &u);
  ir_attr_ints(m, "kernel_shape", v->rank, v->taps);
  return last_axis_first(d, made(d, m));
}

/* Sums over all axes but the channels. */
static void bias_back(lw_grad *d, int k) {
  int64_t axes[IR_MAX_RANK];
  int count = 0;
  if (!lw_has(d->n, k) || !d->wanted[k]) return;
  for (int i = 0; i < d->dy[0]->rank; i++)
    if (i != 1) axes[count++] = i;
  lw_grad_add(d, k, lw_grad_sum(d->g, d->n, d->dy[0], count, axes, false));
}

static geometry geometry_of(tn_ctx *ctx, const lw_window *w, int64_t groups) {
  geometry v = {.rank = w->rank, .groups = groups};
  for (int i = 0; i < w->rank; i++) {
    v.stride[i] = w->stride[i];
    v.dilation[i] = w->dilation[i];
    v.begin[i] = ix_need_const(ctx, w->begin[i], "padding");
    v.end[i] = ix_need_const(ctx, w->end[i], "padding");
    v.x[i] = ix_need_const(ctx, w->in[i], "extent");
    v.y[i] = ix_need_const(ctx, w->out[i], "extent");
    v.taps[i] = ix_need_const(ctx, w->taps[i], "extent");
  }
  return v;
}

static void conv_grad(lw_grad *d) {
  ir_node *n = d->n;
  conv c = conv_of(d->ctx, n);
  geometry v = geometry_of(d->ctx, &c.w, c.groups);
  if (d->wanted[0]) lw_grad_add(d, 0, conv_back(d, d->dy[0], n->in[1], &v));
  if (d->wanted[1]) lw_grad_add(d, 1, conv_weights(d, n->in[0], d->dy[0], &v));
  bias_back(d, 2);
}

static void transpose_grad(lw_grad *d) {
  ir_node *n = d->n;
  tn_ctx *ctx = d->ctx;
  transpose t = transpose_of(ctx, n);
  geometry v = {.rank = t.rank, .groups = t.groups};
  ir_value *dy = d->dy[0];
  for (int i = 0; i < t.rank; i++) {
    v.stride[i] = t.stride[i];
    v.dilation[i] = t.dilation[i];
    v.begin[i] = ix_need_const(ctx, t.begin[i], "padding");
    v.x[i] = ix_need_const(ctx, t.out[i], "extent");
    v.y[i] = ix_need_const(ctx, t.in[i], "extent");
    v.taps[i] = ix_need_const(ctx, t.taps[i], "extent");
    if (left_over(&v, i) < 0) v.end[i] = -left_over(&v, i); /* what was cut off behind */
  }
  if (d->wanted[0]) lw_grad_add(d, 0, conv_forward(d, dy, n->in[1], &v));
  if (d->wanted[1]) lw_grad_add(d, 1, conv_weights(d, dy, n->in[0], &v));
  bias_back(d, 2);
}

/* The window of ConvWeights(x, y): taps from kernel_shape, output extents those of y. The result is
 * [C / g, taps, K], the output channels last: rows of y that lie side by side are added to rows of it. */
static lw_window weights_window(tn_ctx *ctx, const ir_node *n) {
  lw_window w;
  ix taps[LW_MAX_SPATIAL];
  int rank = n->in[0]->rank - 2;
  if (rank < 1) lw_bad(ctx, n, "the input has rank %d; N, C and at least one spatial axis are needed", n->in[0]->rank);
  lw_need_rank(ctx, n, 1, rank + 2);
  lw_kernel_shape(ctx, n, rank, taps);
  lw_window_of(ctx, n, taps, &w);
  for (int i = 0; i < rank; i++) w.out[i] = n->in[1]->dims[i + 2];
  return w;
}

static void weights_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0], *y = n->in[1];
  lw_need_same_type(ctx, n, 0, 1);
  int64_t groups = ir_attr_get_int(n, "group", 1);
  lw_window w = weights_window(ctx, n);
  if (groups < 1 || ir_dim(ctx, x, 1) % groups || ir_dim(ctx, y, 1) % groups) lw_bad(ctx, n, "group %lld", (long long)groups);
  ix dims[IR_MAX_RANK] = {ix_divi(ctx, x->dims[1], groups)};
  for (int i = 0; i < w.rank; i++) dims[i + 1] = w.taps[i];
  dims[w.rank + 1] = y->dims[1];
  lw_set(n, 0, x->dtype, x->rank, dims);
}

static void weights_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *ib = lw_b(b);
  lw_window w = weights_window(ctx, n);
  const ir_value *x = n->in[0], *y = n->in[1];
  int64_t groups = ir_attr_get_int(n, "group", 1);
  ix o[IR_MAX_RANK], at[IR_MAX_RANK], from[IR_MAX_RANK], g = ix_index(ctx, 0), k_each = ix_divi(ctx, y->dims[1], groups), c_each = ix_divi(ctx, x->dims[1], groups);
  o[0] = ib_loop(ib, "c", c_each);
  lw_loops(b, lw_tap_names(w.rank), w.rank, w.taps, o + 1);
  if (groups > 1) g = ib_loop(ib, "g", ix_index(ctx, groups));
  ix k = ib_loop(ib, "k", k_each);
  o[w.rank + 1] = from[1] = ix_add(ctx, ix_mul(ctx, g, k_each), k);
  at[1] = ix_add(ctx, ix_mul(ctx, g, c_each), o[0]);
  ir_buf *acc = lw_accumulator(b, x->dtype);
  at[0] = from[0] = ib_loop(ib, "n", x->dims[0]);
  lw_loops(b, lw_axis_names(w.rank), w.rank, w.out, from + 2);
  lw_window_at(ctx, &w, from + 2, o + 1, at + 2);
  ib_if(ib, lw_window_inside(ctx, &w, at + 2));
  ix p = lw_in(b, n, 0, at), q = lw_in(b, n, 1, from);
  lw_accumulate(b, acc, p, q);
  ib_end(ib);
  ib_end_n(ib, w.rank + 1);
  lw_out(b, n, 0, o, ix_cast(ctx, x->dtype, ib_get(ib, acc)));
  ib_end_n(ib, w.rank + 2 + (groups > 1));
}

static void weights_grad(lw_grad *d) {
  lw_window w = weights_window(d->ctx, d->n);
  geometry v = geometry_of(d->ctx, &w, ir_attr_get_int(d->n, "group", 1));
  ir_value *dw = last_axis_first(d, d->dy[0]);
  if (d->wanted[0]) lw_grad_add(d, 0, conv_back(d, d->n->in[1], dw, &v));
  if (d->wanted[1]) lw_grad_add(d, 1, conv_forward(d, d->n->in[0], dw, &v));
}

#define CONV_ATTRS "auto_pad:s dilations:I group:i kernel_shape:I pads:I strides:I"
#define CONV(NAME, SINCE, LEAST, MOST, ATTRS, INFER, BUILD, GRAD) \
  {.name = NAME, .kind = IR_OP_CONTRACTION, .since = SINCE, .min_in = LEAST, .max_in = MOST, .min_out = 1, .max_out = 1, .attrs = ATTRS, .infer = INFER, .build = BUILD, .grad_build = GRAD}
const ir_op lw_ops_conv[] = {
    CONV("Conv", 1, 2, 3, CONV_ATTRS, conv_infer, conv_build, conv_grad),
    CONV("ConvInteger", 10, 2, 4, CONV_ATTRS, conv_integer_infer, conv_build, NULL),
    {.name = "ConvWide", .domain = "tenon", .kind = IR_OP_CONTRACTION, .since = 1, .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 1, .attrs = CONV_ATTRS, .infer = conv_wide_infer, .build = conv_build},
    CONV("ConvTranspose", 1, 2, 3, CONV_ATTRS " output_padding:I output_shape:I", transpose_infer, transpose_build, transpose_grad),
    {.name = "DeformConv", .kind = IR_OP_COMPOSITE, .since = 19, .min_in = 3, .max_in = 5, .min_out = 1, .max_out = 1, .attrs = CONV_ATTRS " offset_group:i", .infer = deform_infer, .expand = deform_expand},
    {.name = "DeformSamples", .domain = "tenon", .kind = IR_OP_KERNEL, .since = 1, .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 1, .attrs = CONV_ATTRS " offset_group:i", .infer = deform_samples_infer, .build = deform_samples_build, .expand = lw_deform_samples_expand},
    {.name = "ConvWeights", .domain = "tenon", .kind = IR_OP_CONTRACTION, .since = 1, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1, .attrs = CONV_ATTRS, .infer = weights_infer, .build = weights_build, .grad_build = weights_grad},
    {0}};
