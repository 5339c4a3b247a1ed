/* ops_norm.c — normalisations. */
#include "lower/ops_util.h"

/* ---- BatchNormalization: x * s + t with s = scale / sqrt(var + epsilon), t = bias - mean * s ---- */

static void batch_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  if (!ir_is_float(x->dtype)) lw_bad(ctx, n, "an input of type %s", ir_dtype_name(x->dtype));
  if (x->rank < 1) lw_bad(ctx, n, "the input has rank 0");
  if (ir_attr_get_int(n, "training_mode", 0)) lw_unsupported(ctx, n, "training_mode: only inference is supported");
  if (ir_attr_get_int(n, "spatial", 1) == 0) lw_unsupported(ctx, n, "spatial 0");
  for (int k = 1; k < n->nin; k++) {
    lw_need_rank(ctx, n, k, 1);
    if (!ir_is_float(n->in[k]->dtype)) lw_bad(ctx, n, "input %d of type %s", k, ir_dtype_name(n->in[k]->dtype));
    ix have = n->in[k]->dims[0], need = x->rank > 1 ? x->dims[1] : ix_index(ctx, 1);
    if (have != need && ix_is_const(have) && ix_is_const(need))
      lw_bad(ctx, n, "input '%s' has %s elements for %s channels", n->in[k]->name, ix_print(ctx, have), ix_print(ctx, need));
  }
  lw_set_like(n, 0, x->dtype, x);
  for (int k = 1; k < n->nout; k++) lw_set_like(n, k, n->in[k % 2 ? 3 : 4]->dtype, n->in[3]);
}

static ix batch_value(lw_build *b, ir_node *n, int out, const ix *index) {
  tn_ctx *ctx = lw_ctx(b);
  if (out) return lw_in(b, n, out % 2 ? 3 : 4, index); /* the statistics do not move */
  tn_dtype t = lw_compute_type(n->in[0]->dtype);
  ix channel = n->in[0]->rank > 1 ? index[1] : ix_index(ctx, 0), v[5];
  for (int k = 0; k < 5; k++) v[k] = ix_cast(ctx, t, lw_in(b, n, k, k ? &channel : index));
  ix deviation = ix_unary(ctx, IX_SQRT, ix_add(ctx, v[4], ix_float(ctx, t, (float)ir_attr_get_float(n, "epsilon", 1e-5))));
  ix scale = ix_div(ctx, v[1], deviation);
  ix shift = ix_sub(ctx, v[2], ix_mul(ctx, v[3], scale));
  return ix_cast(ctx, n->out[0]->dtype, ix_fma(ctx, v[0], scale, shift));
}

const ir_op lw_ops_norm[] = {
    {.name = "BatchNormalization", .kind = IR_OP_ELEMENTWISE, .since = 1, .min_in = 5, .max_in = 5, .min_out = 1, .max_out = 5, .attrs = "epsilon:f momentum:f training_mode:i spatial:i", .infer = batch_infer, .value = batch_value},
    {0}};
