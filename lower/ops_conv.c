/* ops_conv.c — convolutions.
 *
 * Conv and ConvInteger: for n [g] k [z [y]] x { acc = 0; for c [q [r]] s
 *   if (inside) acc = fma(x[..], w[..], acc);  out = acc + bias }
 * The output channel is g * (K / groups) + k, the input channel g * (C / groups) + c. */
#include "lower/window.h"

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

static void conv_infer(tn_ctx *ctx, ir_node *n) {
  tn_dtype t = n->in[0]->dtype;
  lw_need_same_type(ctx, n, 0, 1);
  if (!ir_is_float(t)) lw_bad(ctx, n, "operands of type %s", ir_dtype_name(t));
  if (lw_has(n, 2)) {
    lw_need_rank(ctx, n, 2, 1);
    lw_need_same_type(ctx, n, 0, 2);
    if (n->in[2]->dims[0] != n->in[1]->dims[0] && ix_is_const(n->in[2]->dims[0]) && ix_is_const(n->in[1]->dims[0]))
      lw_bad(ctx, n, "%s biases for %s output channels", ix_print(ctx, n->in[2]->dims[0]), ix_print(ctx, n->in[1]->dims[0]));
  }
  conv_set(ctx, n, t);
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

#define CONV_ATTRS "auto_pad:s dilations:I group:i kernel_shape:I pads:I strides:I"
const ir_op lw_ops_conv[] = {
    {.name = "Conv", .kind = IR_OP_CONTRACTION, .since = 1, .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 1, .attrs = CONV_ATTRS, .infer = conv_infer, .build = conv_build},
    {.name = "ConvInteger", .kind = IR_OP_CONTRACTION, .since = 10, .min_in = 2, .max_in = 4, .min_out = 1, .max_out = 1, .attrs = CONV_ATTRS, .infer = conv_integer_infer, .build = conv_build},
    {0}};
