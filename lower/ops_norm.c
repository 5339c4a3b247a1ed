/* ops_norm.c — normalisations.
 *
 * All but BatchNormalization and LRN pass over rows (rowop.h): the statistics in f32 for
 * f16 and bf16 (and as stash_type asks), then the result. */
#include "lower/grad.h"
#include "lower/rowop.h"
#include "lower/window.h"
#include <math.h>
#include <string.h>

static ix epsilon_of(tn_ctx *ctx, const ir_node *n, tn_dtype t) {
  return ix_float(ctx, t, (float)ir_attr_get_float(n, "epsilon", 1e-5)); /* ONNX keeps it as f32 */
}

static void need_float(tn_ctx *ctx, const ir_node *n, int k) {
  if (!ir_is_float(n->in[k]->dtype)) lw_bad(ctx, n, "input %d of type %s", k, ir_dtype_name(n->in[k]->dtype));
}

/* Input k must be 1-D with `extent` elements. */
static void need_vector(tn_ctx *ctx, const ir_node *n, int k, ix extent) {
  need_float(ctx, n, k);
  lw_need_rank(ctx, n, k, 1);
  ix have = n->in[k]->dims[0];
  if (have != extent && ix_is_const(have) && ix_is_const(extent))
    lw_bad(ctx, n, "input '%s' has %s elements, not %s", n->in[k]->name, ix_print(ctx, have), ix_print(ctx, extent));
}

/* ---- BatchNormalization: x * s + t with s = scale / sqrt(var + epsilon), t = bias - mean * s ---- */

static void batch_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  need_float(ctx, n, 0);
  if (x->rank < 1) lw_bad(ctx, n, "the input has rank 0");
  if (ir_attr_get_int(n, "spatial", 1) == 0) lw_unsupported(ctx, n, "spatial 0");
  for (int k = 1; k < n->nin; k++) need_vector(ctx, n, k, x->rank > 1 ? x->dims[1] : ix_index(ctx, 1));
  lw_set_like(n, 0, x->dtype, x);
  if (ir_attr_get_int(n, "training_mode", 0)) { /* statistics of the batch: another op, whose row takes over */
    if (strcmp(n->op->domain ? n->op->domain : "", "tenon") != 0) {
      if (n->nout > 3) lw_bad(ctx, n, "%d outputs", n->nout);
      n->op = ir_op_find("tenon", "BatchNormalizationTraining");
    }
    for (int k = 3; k < n->nout; k++) lw_set_like(n, k, lw_compute_type(x->dtype), n->in[3]);
  }
  for (int k = 1; k < n->nout && k < 3; k++) lw_set_like(n, k, n->in[k % 2 ? 3 : 4]->dtype, n->in[3]);
  for (int k = 3; k < n->nout && !ir_attr_get_int(n, "training_mode", 0); k++) lw_set_like(n, k, n->in[k % 2 ? 3 : 4]->dtype, n->in[3]);
}

static ix batch_value(lw_build *b, ir_node *n, int out, const ix *index) {
  tn_ctx *ctx = lw_ctx(b);
  if (out) return lw_in(b, n, out % 2 ? 3 : 4, index); /* the statistics do not move */
  tn_dtype t = lw_compute_type(n->in[0]->dtype);
  ix channel = n->in[0]->rank > 1 ? index[1] : ix_index(ctx, 0), v[5];
  for (int k = 0; k < 5; k++) v[k] = ix_cast(ctx, t, lw_in(b, n, k, k ? &channel : index));
  ix deviation = ix_unary(ctx, IX_SQRT, ix_add(ctx, v[4], epsilon_of(ctx, n, t)));
  ix scale = ix_div(ctx, v[1], deviation);
  ix shift = ix_sub(ctx, v[2], ix_mul(ctx, v[3], scale));
  return ix_cast(ctx, n->out[0]->dtype, ix_fma(ctx, v[0], scale, shift));
}

/* With training_mode: normalised by the statistics of the batch, which also move the
 * running ones: running * momentum + of the batch * (1 - momentum), the variance that of
 * the population. Outputs Y, running mean, running variance; for the gradient also the
 * batch's mean and 1 / sqrt(variance + epsilon). */
static void training_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *ib = lw_b(b);
  const ir_value *x = n->in[0];
  tn_dtype t = lw_compute_type(x->dtype);
  double momentum = (float)ir_attr_get_float(n, "momentum", 0.9);
  lw_rows r = {.b = b, .n = n, .rank = x->rank, .type = t, .dims = x->dims};
  for (int i = 0; i < x->rank; i++) r.in_row[i] = i != 1;
  lw_rows_open(&r, false);
  ix channel = x->rank > 1 ? r.index[1] : ix_index(ctx, 0), v[5];
  ix mean = lw_rows_mean(&r), variance = lw_rows_variance(&r, mean);
  for (int k = 1; k < 5; k++) v[k] = ix_cast(ctx, t, lw_in(b, n, k, &channel));
  for (int k = 1; k < 3; k++) {
    if (!lw_wants(b, n, k)) continue;
    ix batch = k == 1 ? mean : variance;
    ix moved = ix_add(ctx, ix_mul(ctx, v[k + 2], ix_float(ctx, t, momentum)), ix_mul(ctx, batch, ix_float(ctx, t, 1 - momentum)));
    lw_out(b, n, k, &channel, ix_cast(ctx, n->out[k]->dtype, moved));
  }
  ix deviation = ix_unary(ctx, IX_SQRT, ix_add(ctx, variance, epsilon_of(ctx, n, t)));
  if (lw_wants(b, n, 3)) lw_out(b, n, 3, &channel, mean);
  if (lw_wants(b, n, 4)) lw_out(b, n, 4, &channel, ix_div(ctx, ix_float(ctx, t, 1), deviation));
  ix scale = ib_let(ib, "scale", ix_div(ctx, v[1], deviation));
  lw_rows_pass(&r);
  ix e = ix_add(ctx, ix_mul(ctx, ix_sub(ctx, lw_rows_x(&r), mean), scale), v[2]);
  lw_out(b, n, 0, r.index, ix_cast(ctx, n->out[0]->dtype, e));
  lw_rows_pass_end(&r);
  lw_rows_close(&r);
}

/* ---- LayerNormalization, RMSNormalization: the row is all axes from `axis` on ---- */

static void row_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  bool rms = strcmp(n->op->name, "RMSNormalization") == 0;
  int axis = ir_axis(ctx, n, ir_attr_get_int(n, "axis", -1), x->rank);
  need_float(ctx, n, 0);
  ix dims[IR_MAX_RANK];
  for (int k = 1; k < n->nin; k++) {
    if (!lw_has(n, k)) continue;
    need_float(ctx, n, k);
    if (n->in[k]->rank > x->rank) lw_bad(ctx, n, "input '%s' has more axes than the input", n->in[k]->name);
    for (int i = 0; i < n->in[k]->rank; i++) {
      ix d = n->in[k]->dims[i], e = x->dims[x->rank - n->in[k]->rank + i];
      if (d != e && !ix_is_int(d, 1) && ix_is_const(d) && ix_is_const(e))
        lw_bad(ctx, n, "input '%s' has extent %s where the input has %s", n->in[k]->name, ix_print(ctx, d), ix_print(ctx, e));
    }
  }
  lw_set_like(n, 0, rms ? n->in[1]->dtype : x->dtype, x);
  for (int i = 0; i < x->rank; i++) dims[i] = i < axis ? x->dims[i] : ix_index(ctx, 1);
  tn_dtype stash = lw_type_attr(ctx, n, "stash_type", TN_F32);
  if (!ir_is_float(stash)) lw_bad(ctx, n, "stash_type %s", ir_dtype_name(stash));
  lw_set(n, 1, stash, x->rank, dims);
  lw_set(n, 2, stash, x->rank, dims);
}

static void row_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *ib = lw_b(b);
  const ir_value *x = n->in[0];
  bool rms = strcmp(n->op->name, "RMSNormalization") == 0;
  tn_dtype t = n->out[0]->dtype;
  lw_rows r = {.b = b, .n = n, .rank = x->rank, .type = lw_compute_type(x->dtype), .dims = x->dims};
  for (int i = ir_axis(ctx, n, ir_attr_get_int(n, "axis", -1), x->rank); i < x->rank; i++) r.in_row[i] = true;
  lw_rows_open(&r, false);
  ix mean = rms ? NULL : lw_rows_mean(&r), variance = lw_rows_variance(&r, mean);
  ix deviation = ix_unary(ctx, IX_SQRT, ix_add(ctx, variance, epsilon_of(ctx, n, r.type)));
  ix inverse = ib_let(ib, "inverse", ix_div(ctx, ix_float(ctx, r.type, 1), deviation));
  if (!rms && lw_wants(b, n, 1)) lw_out(b, n, 1, r.index, ix_cast(ctx, n->out[1]->dtype, mean));
  if (!rms && lw_wants(b, n, 2)) lw_out(b, n, 2, r.index, ix_cast(ctx, n->out[2]->dtype, inverse));
  lw_rows_pass(&r);
  ix e = lw_rows_x(&r);
  if (mean) e = ix_sub(ctx, e, mean);
  e = ix_mul(ctx, e, inverse);
  if (rms) e = ix_mul(ctx, ix_cast(ctx, t, e), lw_in_bcast(b, n, 1, x->rank, r.index)); /* scaled in the scale's type */
  else {
    e = ix_mul(ctx, e, ix_cast(ctx, r.type, lw_in_bcast(b, n, 1, x->rank, r.index)));
    if (lw_has(n, 2)) e = ix_add(ctx, e, ix_cast(ctx, r.type, lw_in_bcast(b, n, 2, x->rank, r.index)));
  }
  lw_out(b, n, 0, r.index, ix_cast(ctx, t, e));
  lw_rows_pass_end(&r);
  lw_rows_close(&r);
}

/* ---- InstanceNormalization, GroupNormalization ---- */

static void instance_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  if (x->rank < 3) lw_bad(ctx, n, "the input has rank %d; N, C and at least one more axis are needed", x->rank);
  need_float(ctx, n, 0);
  for (int k = 1; k < 3; k++) need_vector(ctx, n, k, x->dims[1]);
  lw_set_like(n, 0, x->dtype, x);
}

/* Writes (x - mean) / sqrt(variance + epsilon) * scale + bias, scale and bias read at `at`
 * (called in the last pass), x's element being at `index`. */
static void normalised_out(lw_rows *r, ix mean, ix inverse, ix at, const ix *index) {
  tn_ctx *ctx = lw_ctx(r->b);
  ix e = ix_mul(ctx, ix_sub(ctx, lw_rows_x(r), mean), inverse);
  e = ix_mul(ctx, e, ix_cast(ctx, r->type, lw_in(r->b, r->n, 1, &at)));
  e = ix_add(ctx, e, ix_cast(ctx, r->type, lw_in(r->b, r->n, 2, &at)));
  lw_out(r->b, r->n, 0, index, ix_cast(ctx, r->n->out[0]->dtype, e));
}

static void instance_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  const ir_value *x = n->in[0];
  lw_rows r = {.b = b, .n = n, .rank = x->rank, .type = lw_compute_type(x->dtype), .dims = x->dims};
  for (int i = 2; i < x->rank; i++) r.in_row[i] = true;
  lw_rows_open(&r, false);
  ix mean = lw_rows_mean(&r), variance = lw_rows_variance(&r, mean);
  ix deviation = ix_unary(ctx, IX_SQRT, ix_add(ctx, variance, epsilon_of(ctx, n, r.type)));
  ix inverse = ib_let(lw_b(b), "inverse", ix_div(ctx, ix_float(ctx, r.type, 1), deviation));
  lw_rows_pass(&r);
  normalised_out(&r, mean, inverse, r.index[1], r.index);
  lw_rows_pass_end(&r);
  lw_rows_close(&r);
}

/* GroupNormalization as [N, group, channel in group, spatial..]; scale and bias are per
 * group before opset 21, per channel since. */
static int64_t groups_of(tn_ctx *ctx, const ir_node *n) {
  int64_t g = ir_attr_get_int(n, "num_groups", 0), c;
  if (g < 1) lw_bad(ctx, n, "num_groups %lld", (long long)g);
  if (ix_const_value(n->in[0]->dims[1], &c) && c % g != 0) lw_bad(ctx, n, "%lld channels do not divide into %lld groups", (long long)c, (long long)g);
  return g;
}

static void group_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  if (x->rank < 2) lw_bad(ctx, n, "the input has rank %d; N and C are needed", x->rank);
  need_float(ctx, n, 0);
  int64_t g = groups_of(ctx, n);
  for (int k = 1; k < 3; k++) need_vector(ctx, n, k, n->opset < 21 ? ix_index(ctx, g) : x->dims[1]);
  lw_set_like(n, 0, x->dtype, x);
}

static void group_index(const lw_rows *r, ix *index) { /* of the input */
  tn_ctx *ctx = lw_ctx(r->b);
  index[0] = r->index[0];
  index[1] = ix_add(ctx, ix_mul(ctx, r->index[1], r->dims[2]), r->index[2]);
  for (int i = 2; i < r->rank - 1; i++) index[i] = r->index[i + 1];
}
static ix group_load(lw_rows *r) {
  ix index[IR_MAX_RANK];
  group_index(r, index);
  return lw_in(r->b, r->n, 0, index);
}

static void group_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  const ir_value *x = n->in[0];
  int64_t g = groups_of(ctx, n);
  ix dims[IR_MAX_RANK + 1] = {x->dims[0], ix_index(ctx, g), ix_divi(ctx, x->dims[1], g)}, index[IR_MAX_RANK];
  for (int i = 2; i < x->rank; i++) dims[i + 1] = x->dims[i];
  lw_rows r = {.b = b, .n = n, .rank = x->rank + 1, .type = lw_compute_type(x->dtype), .dims = dims, .load = group_load};
  for (int i = 2; i < r.rank; i++) r.in_row[i] = true;
  lw_rows_open(&r, false);
  ix mean = lw_rows_mean(&r), variance = lw_rows_variance(&r, mean);
  ix deviation = ix_unary(ctx, IX_SQRT, ix_add(ctx, variance, epsilon_of(ctx, n, r.type)));
  ix inverse = ib_let(lw_b(b), "inverse", ix_div(ctx, ix_float(ctx, r.type, 1), deviation));
  lw_rows_pass(&r);
  group_index(&r, index);
  normalised_out(&r, mean, inverse, n->opset < 21 ? r.index[1] : index[1], index);
  lw_rows_pass_end(&r);
  lw_rows_close(&r);
}

/* ---- LpNormalization, MeanVarianceNormalization ---- */

static void lp_infer(tn_ctx *ctx, ir_node *n) {
  int64_t p = ir_attr_get_int(n, "p", 2);
  need_float(ctx, n, 0);
  (void)ir_axis(ctx, n, ir_attr_get_int(n, "axis", -1), n->in[0]->rank);
  if (p != 1 && p != 2) lw_bad(ctx, n, "p is %lld, not 1 or 2", (long long)p);
  lw_set_like(n, 0, n->in[0]->dtype, n->in[0]);
}

static void lp_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *ib = lw_b(b);
  const ir_value *x = n->in[0];
  bool squares = ir_attr_get_int(n, "p", 2) == 2;
  lw_rows r = {.b = b, .n = n, .rank = x->rank, .type = lw_compute_type(x->dtype), .dims = x->dims};
  r.in_row[ir_axis(ctx, n, ir_attr_get_int(n, "axis", -1), x->rank)] = true;
  lw_rows_open(&r, false);
  ir_buf *acc = ib_local(ib, "sum", r.type, lw_zero(ctx, r.type));
  lw_rows_pass(&r);
  ix e = lw_rows_x(&r);
  ib_update(ib, acc, NULL, IR_ADD, squares ? ix_mul(ctx, e, e) : ix_unary(ctx, IX_ABS, e));
  lw_rows_pass_end(&r);
  ix norm = ib_get(ib, acc);
  if (squares) norm = ix_unary(ctx, IX_SQRT, norm);
  norm = ix_select(ctx, ix_eq(ctx, norm, lw_zero(ctx, r.type)), ix_float(ctx, r.type, 1), norm); /* a row of zeros stays */
  norm = ib_let(ib, "norm", norm);
  lw_rows_pass(&r);
  lw_out(b, n, 0, r.index, ix_cast(ctx, n->out[0]->dtype, ix_div(ctx, lw_rows_x(&r), norm)));
  lw_rows_pass_end(&r);
  lw_rows_close(&r);
}

static int mvn_axes(tn_ctx *ctx, const ir_node *n, int *axes) {
  int count = lw_axes(ctx, n, "axes", -1, n->in[0]->rank, axes);
  if (count >= 0) return count;
  static const int usual[] = {0, 2, 3};
  if (n->in[0]->rank < 4) lw_bad(ctx, n, "the default axes 0, 2, 3 are outside a tensor of rank %d", n->in[0]->rank);
  memcpy(axes, usual, sizeof usual);
  return IR_COUNT(usual);
}
static void mvn_infer(tn_ctx *ctx, ir_node *n) {
  int axes[IR_MAX_RANK];
  need_float(ctx, n, 0);
  mvn_axes(ctx, n, axes);
  lw_set_like(n, 0, n->in[0]->dtype, n->in[0]);
}
static void mvn_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  const ir_value *x = n->in[0];
  int axes[IR_MAX_RANK], count = mvn_axes(ctx, n, axes);
  lw_rows r = {.b = b, .n = n, .rank = x->rank, .type = lw_compute_type(x->dtype), .dims = x->dims};
  for (int i = 0; i < count; i++) r.in_row[axes[i]] = true;
  lw_rows_open(&r, false);
  ix mean = lw_rows_mean(&r), variance = lw_rows_variance(&r, mean);
  ix deviation = ix_add(ctx, ix_unary(ctx, IX_SQRT, variance), ix_float(ctx, r.type, 1e-9)); /* as the ONNX function body has it */
  ix inverse = ib_let(lw_b(b), "inverse", ix_div(ctx, ix_float(ctx, r.type, 1), deviation));
  lw_rows_pass(&r);
  ix e = ix_mul(ctx, ix_sub(ctx, lw_rows_x(&r), mean), inverse);
  lw_out(b, n, 0, r.index, ix_cast(ctx, n->out[0]->dtype, e));
  lw_rows_pass_end(&r);
  lw_rows_close(&r);
}

/* ---- LRN: x / (bias + alpha / size * sum of squares over nearby channels)^beta ---- */

static void lrn_infer(tn_ctx *ctx, ir_node *n) {
  need_float(ctx, n, 0);
  if (n->in[0]->rank < 2) lw_bad(ctx, n, "the input has rank %d; N and C are needed", n->in[0]->rank);
  int64_t size = ir_attr_get_int(n, "size", 0);
  if (size < 1 || size > INT32_MAX) lw_bad(ctx, n, "size is %lld", (long long)size);
  lw_set_like(n, 0, n->in[0]->dtype, n->in[0]);
}

static void lrn_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *ib = lw_b(b);
  const ir_value *x = n->in[0];
  tn_dtype t = lw_compute_type(x->dtype);
  int64_t size = ir_attr_get_int(n, "size", 1);
  double alpha = (float)ir_attr_get_float(n, "alpha", 1e-4), beta = (float)ir_attr_get_float(n, "beta", 0.75);
  ix o[IR_MAX_RANK], at[IR_MAX_RANK];
  lw_loops(b, "nc", x->rank, x->dims, o);
  ir_buf *acc = lw_accumulator(b, x->dtype);
  ix s = ib_loop(ib, "s", ix_index(ctx, size));
  memcpy(at, o, sizeof at);
  at[1] = ix_addi(ctx, ix_add(ctx, o[1], s), -((size - 1) / 2));
  ib_if(ib, ix_within(ctx, at[1], ix_index(ctx, 0), x->dims[1]));
  ix e = lw_in(b, n, 0, at);
  lw_accumulate(b, acc, e, e);
  ib_end(ib);
  ib_end(ib);
  ix base = ix_fma(ctx, ib_get(ib, acc), ix_float(ctx, t, alpha / (double)size), ix_float(ctx, t, (float)ir_attr_get_float(n, "bias", 1)));
  ix power = ix_binary(ctx, IX_POW, base, ix_float(ctx, t, -beta));
  lw_out(b, n, 0, o, ix_cast(ctx, n->out[0]->dtype, ix_mul(ctx, ix_cast(ctx, t, lw_in(b, n, 0, o)), power)));
  ib_end_n(ib, x->rank);
}

#define NORM(NAME, KIND, SINCE, LEAST, MOST, OUTPUTS, ATTRS, INFER, BUILD, GRAD, EXPAND) \
  {.name = NAME, .kind = KIND, .since = SINCE, .min_in = LEAST, .max_in = MOST, .min_out = 1, .max_out = OUTPUTS, .attrs = ATTRS, .infer = INFER, .build = BUILD, .grad_build = GRAD, .expand = EXPAND}
const ir_op lw_ops_norm[] = {
    {.name = "BatchNormalization", .kind = IR_OP_ELEMENTWISE, .since = 1, .min_in = 5, .max_in = 5, .min_out = 1, .max_out = 5, .attrs = "epsilon:f momentum:f training_mode:i spatial:i", .infer = batch_infer, .value = batch_value, .expand = lw_batch_norm_expand},
    {.name = "BatchNormalizationTraining", .domain = "tenon", .kind = IR_OP_KERNEL, .since = 14, .min_in = 5, .max_in = 5, .min_out = 1, .max_out = 5, .attrs = "epsilon:f momentum:f training_mode:i spatial:i", .infer = batch_infer, .build = training_build, .grad_build = lw_grad_batch_norm},
    NORM("LayerNormalization", IR_OP_REDUCTION, 17, 2, 3, 3, "axis:i epsilon:f stash_type:i", row_infer, row_build, lw_grad_layer_norm, NULL),
    NORM("RMSNormalization", IR_OP_REDUCTION, 23, 2, 2, 1, "axis:i epsilon:f stash_type:i", row_infer, row_build, NULL, lw_rms_norm_expand),
    NORM("InstanceNormalization", IR_OP_REDUCTION, 1, 3, 3, 1, "epsilon:f", instance_infer, instance_build, NULL, lw_instance_norm_expand),
    NORM("GroupNormalization", IR_OP_REDUCTION, 18, 3, 3, 1, "epsilon:f num_groups:i stash_type:i", group_infer, group_build, NULL, lw_group_norm_expand),
    NORM("LpNormalization", IR_OP_REDUCTION, 1, 1, 1, 1, "axis:i p:i", lp_infer, lp_build, NULL, lw_lp_norm_expand),
    NORM("MeanVarianceNormalization", IR_OP_REDUCTION, 9, 1, 1, 1, "axes:I", mvn_infer, mvn_build, NULL, lw_mvn_expand),
    NORM("LRN", IR_OP_WINDOW, 1, 1, 1, 1, "alpha:f beta:f bias:f size:i", lrn_infer, lrn_build, NULL, lw_lrn_expand),
    {0}};
