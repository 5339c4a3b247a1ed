/* ops_quant.c — quantised tensors: q = saturate(round(x / scale) + zero), x = (q - zero) * scale.
 *
 * Products of quantised tensors are integer products (MatMulInteger, ConvInteger) whose i32
 * sums are scaled and rounded where they are stored; other ops on quantised tensors are the
 * float op between DequantizeLinear and QuantizeLinear, one fused kernel in the end. */
#include "lower/compose.h"
#include <string.h>

static const struct {
  tn_dtype t;
  int64_t lo, hi;
} ranges[] = {{TN_U8, 0, UINT8_MAX}, {TN_I8, INT8_MIN, INT8_MAX}, {TN_U16, 0, UINT16_MAX}, {TN_I16, INT16_MIN, INT16_MAX}};

static bool is_quantised(tn_dtype t) { return t == TN_U8 || t == TN_I8 || t == TN_U16 || t == TN_I16; }

/* saturate(round(v) + zero) in dtype t; v float, zero an element of dtype t or null. NaN gives the least value. */
static ix quantised(tn_ctx *ctx, ix v, ix zero, tn_dtype t) {
  if (ir_is_narrow_float((tn_dtype)v->dtype)) v = ix_cast(ctx, TN_F32, v); /* 65535 is no f16 */
  tn_dtype f = (tn_dtype)v->dtype;
  int r = 0;
  while (ranges[r].t != t) r++;
  ix lo = ix_float(ctx, f, (double)ranges[r].lo), hi = ix_float(ctx, f, (double)ranges[r].hi);
  if (zero) {
    ix z = ix_cast(ctx, f, zero);
    lo = ix_sub(ctx, lo, z);
    hi = ix_sub(ctx, hi, z);
  }
  ix q = ix_cast(ctx, TN_I32, ix_unary(ctx, IX_ROUND, ix_min(ctx, ix_max(ctx, v, lo), hi))); /* the bounds are whole */
  if (zero) q = ix_add(ctx, q, ix_cast(ctx, TN_I32, zero));
  return ix_cast(ctx, t, q);
}

/* ---- QuantizeLinear, DequantizeLinear ----
 *
 * Scale and zero point (inputs 1, 2): one for all; a vector along `axis`; or, with
 * block_size, a tensor of x's rank with one element per block of x along `axis`. */

static bool is_single(const ir_value *v) {
  for (int i = 0; i < v->rank; i++)
    if (!ix_is_int(v->dims[i], 1)) return false;
  return true;
}

/* A zero point that may differ from zero; floats have one only to name their dtype. */
static bool has_zero(const ir_node *n) {
  const ir_value *z = lw_has(n, 2) ? n->in[2] : NULL;
  if (!z || !z->data || !ir_static(z) || !ir_is_byte_float(z->dtype)) return z;
  int64_t count = 1, d;
  for (int i = 0; i < z->rank; i++)
    if (ix_const_value(z->dims[i], &d)) count *= d;
  for (int64_t i = 0; i < count; i++)
    if (((const uint8_t *)z->data)[i]) return true;
  return false;
}

static void check_scale(tn_ctx *ctx, const ir_node *n) {
  const ir_value *x = n->in[0], *s = n->in[1];
  int64_t block = ir_attr_get_int(n, "block_size", 0), d, e;
  if (block < 0) lw_bad(ctx, n, "block_size %lld", (long long)block);
  if (!ir_is_float(s->dtype)) lw_bad(ctx, n, "a scale of type %s", ir_dtype_name(s->dtype));
  if (lw_has(n, 2)) {
    const ir_value *z = n->in[2];
    bool same = z->rank == s->rank || (is_single(z) && is_single(s));
    for (int i = 0; i < s->rank && same && z->rank == s->rank; i++) same = z->dims[i] == s->dims[i] || !ix_is_const(z->dims[i]) || !ix_is_const(s->dims[i]);
    if (!same) lw_bad(ctx, n, "scale and zero point differ in shape");
  }
  if (is_single(s)) return;
  if (s->rank == 1 && !(block && x->rank == 1)) {
    int axis = ir_axis(ctx, n, ir_attr_get_int(n, "axis", 1), x->rank);
    if (s->dims[0] != x->dims[axis] && ix_is_const(s->dims[0]) && ix_is_const(x->dims[axis]))
      lw_bad(ctx, n, "%s scales for extent %s of axis %d", ix_print(ctx, s->dims[0]), ix_print(ctx, x->dims[axis]), axis);
    return;
  }
  if (!block || s->rank != x->rank) lw_bad(ctx, n, "a scale of rank %d for an input of rank %d, block_size %lld", s->rank, x->rank, (long long)block);
  int axis = ir_axis(ctx, n, ir_attr_get_int(n, "axis", 1), x->rank);
  for (int i = 0; i < x->rank; i++)
    if (ix_const_value(x->dims[i], &d) && ix_const_value(s->dims[i], &e) && e != (i == axis ? d / block + (d % block != 0) : d))
      lw_bad(ctx, n, "axis %d of the scale has extent %lld, the input %lld, blocks %lld", i, (long long)e, (long long)d, i == axis ? (long long)block : 1LL);
}

/* Scale or zero point of the element of x at `index`. */
static ix parameter(lw_build *b, ir_node *n, int k, const ix *index) {
  tn_ctx *ctx = lw_ctx(b);
  const ir_value *x = n->in[0], *s = n->in[k];
  int64_t block = ir_attr_get_int(n, "block_size", 0);
  if (is_single(s)) return lw_scalar_in(b, n, k);
  int axis = ir_axis(ctx, n, ir_attr_get_int(n, "axis", 1), x->rank);
  if (s->rank == 1 && !(block && x->rank == 1)) return lw_in(b, n, k, index + axis);
  ix at[IR_MAX_RANK];
  for (int i = 0; i < x->rank; i++) at[i] = i == axis ? ix_divi(ctx, index[i], block) : index[i];
  return lw_in(b, n, k, at);
}

static void quantize_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  if (!ir_is_float(x->dtype) && x->dtype != TN_I32) lw_bad(ctx, n, "an input of type %s", ir_dtype_name(x->dtype));
  check_scale(ctx, n);
  tn_dtype t = lw_has(n, 2) ? n->in[2]->dtype : TN_U8;
  if (ir_attr_get_int(n, "output_dtype", 0)) {
    tn_dtype want = lw_type_attr(ctx, n, "output_dtype", t);
    if (lw_has(n, 2) && want != t) lw_bad(ctx, n, "output_dtype is %s, the zero point %s", ir_dtype_name(want), ir_dtype_name(t));
    t = want;
  }
  if (!is_quantised(t) && !ir_is_byte_float(t)) lw_bad(ctx, n, "a result of type %s, not u8, i8, u16, i16 or a float of 8 or 4 bits", ir_dtype_name(t));
  if (ir_attr_get_int(n, "precision", 0) && !ir_is_float(lw_type_attr(ctx, n, "precision", TN_NONE)))
    lw_bad(ctx, n, "precision %s", ir_dtype_name(lw_type_attr(ctx, n, "precision", TN_NONE)));
  lw_set_like(n, 0, t, x);
}

static ix quantize_value(lw_build *b, ir_node *n, int out, const ix *index) {
  tn_ctx *ctx = lw_ctx(b);
  ix x = lw_in(b, n, 0, index), s = parameter(b, n, 1, index), z = has_zero(n) ? parameter(b, n, 2, index) : NULL;
  /* the division is in the precision asked for, by default that of the scale */
  tn_dtype t = ir_attr_get_int(n, "precision", 0) ? lw_type_attr(ctx, n, "precision", TN_F32) : n->in[1]->dtype;
  ix v = ix_div(ctx, ix_cast(ctx, t, x), ix_cast(ctx, t, s));
  if (is_quantised(n->out[0]->dtype)) return quantised(ctx, v, z, n->out[0]->dtype);
  return lw_cast_value(ctx, n, z ? ix_add(ctx, v, ix_cast(ctx, t, z)) : v);
}

static void dequantize_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  if (!is_quantised(x->dtype) && !ir_is_byte_float(x->dtype) && x->dtype != TN_I32) lw_bad(ctx, n, "an input of type %s", ir_dtype_name(x->dtype));
  if (lw_has(n, 2)) lw_need_same_type(ctx, n, 0, 2);
  check_scale(ctx, n);
  tn_dtype t = n->in[1]->dtype;
  if (ir_attr_get_int(n, "output_dtype", 0)) t = lw_type_attr(ctx, n, "output_dtype", t);
  if (!ir_is_float(t)) lw_bad(ctx, n, "output_dtype %s", ir_dtype_name(t));
  lw_set_like(n, 0, t, x);
}

static ix dequantize_value(lw_build *b, ir_node *n, int out, const ix *index) {
  tn_ctx *ctx = lw_ctx(b);
  tn_dtype t = n->out[0]->dtype, c = lw_compute_type(t);
  tn_dtype d = ir_is_byte_float(n->in[0]->dtype) ? c : TN_I32; /* of the difference */
  ix x = ix_cast(ctx, d, lw_in(b, n, 0, index)), s = parameter(b, n, 1, index);
  if (has_zero(n)) x = ix_sub(ctx, x, ix_cast(ctx, d, parameter(b, n, 2, index)));
  return ix_cast(ctx, t, ix_mul(ctx, ix_cast(ctx, c, x), ix_cast(ctx, c, s)));
}

/* ---- tenon Requantize: i32 or f32 times a multiplier, rounded; all operands broadcast ---- */

static void requantize_infer(tn_ctx *ctx, ir_node *n) {
  ix dims[IR_MAX_RANK];
  int rank = lw_broadcast(ctx, n, 0, n->nin, dims);
  tn_dtype t = n->in[0]->dtype;
  if ((t != TN_I32 && t != n->in[1]->dtype) || !ir_is_float(n->in[1]->dtype) || !is_quantised(n->in[2]->dtype)) lw_bad(ctx, n, "operands of other types than i32 or float, float, u8 or i8");
  lw_set(n, 0, n->in[2]->dtype, rank, dims);
}
static ix requantize_value(lw_build *b, ir_node *n, int out, const ix *index) {
  tn_ctx *ctx = lw_ctx(b);
  int rank = n->out[0]->rank;
  ix acc = lw_in_bcast(b, n, 0, rank, index), by = lw_in_bcast(b, n, 1, rank, index), zero = lw_in_bcast(b, n, 2, rank, index);
  tn_dtype t = lw_compute_type((tn_dtype)by->dtype);
  return quantised(ctx, ix_mul(ctx, ix_cast(ctx, t, acc), ix_cast(ctx, t, by)), zero, n->out[0]->dtype);
}

/* ---- tenon RequantizeSum: a, its scale, b, its scale, zero point, zero points of a and b (null: 0); saturate(
 * round((a - za) * sa + (b - zb) * sb) + zero), in the unit of the result; the product of a is not rounded ---- */

static void requantize_sum_infer(tn_ctx *ctx, ir_node *n) {
  ix dims[IR_MAX_RANK];
  int rank = lw_broadcast(ctx, n, 0, n->nin, dims);
  if (!is_quantised(n->in[0]->dtype) || !is_quantised(n->in[2]->dtype) || n->in[1]->dtype != TN_F32 || n->in[3]->dtype != TN_F32 || !is_quantised(n->in[4]->dtype)) lw_bad(ctx, n, "operands of other types than quantised, f32, quantised, f32, quantised");
  lw_set(n, 0, n->in[4]->dtype, rank, dims);
}

/* quantised(v, zero) less the same zero point, as a float: what was rounded. Null when e is something else. */
static ix rounded(tn_ctx *ctx, ix e, ix zero) {
  double z = 0, shift = 0;
  tn_dtype t = (tn_dtype)e->dtype;
  int r = 0;
  while (r < IR_COUNT(ranges) && ranges[r].t != t) r++;
  if (r == IR_COUNT(ranges) || e->op != IX_CAST || e->args[0]->dtype != TN_I32 || (zero && !ix_is_const(zero))) return NULL;
  ix q = e->args[0];
  if (zero) z = (double)zero->u.i;
  for (int k = 0; k < 2 && q->op == IX_ADD; k++)
    if (ix_is_const(q->args[k])) shift = (double)q->args[k]->u.i, q = q->args[!k];
  if (shift != z || q->op != IX_CAST || q->args[0]->op != IX_ROUND) return NULL;
  ix most = q->args[0]->args[0], least = most->op == IX_MIN ? most->args[0] : most;
  if (least == most || least->op != IX_MAX || !ix_is_const(most->args[1]) || !ix_is_const(least->args[1])) return NULL;
  return least->args[1]->u.f + z >= (double)ranges[r].lo && most->args[1]->u.f + z <= (double)ranges[r].hi && most->dtype == TN_F32 ? q->args[0] : NULL;
}

static ix requantize_sum_value(lw_build *b, ir_node *n, int out, const ix *index) {
  tn_ctx *ctx = lw_ctx(b);
  int rank = n->out[0]->rank;
  ix v[2];
  for (int i = 0; i < 2; i++) {
    ix q = lw_in_bcast(b, n, 2 * i, rank, index), zero = lw_has(n, 5 + i) ? lw_in_bcast(b, n, 5 + i, rank, index) : NULL;
    v[i] = rounded(ctx, q, zero);
    if (v[i]) continue;
    v[i] = ix_cast(ctx, TN_I32, q);
    if (zero) v[i] = ix_sub(ctx, v[i], ix_cast(ctx, TN_I32, zero));
    v[i] = ix_cast(ctx, TN_F32, v[i]);
  }
  ix sum = ix_fma(ctx, v[0], lw_in_bcast(b, n, 1, rank, index), ix_mul(ctx, v[1], lw_in_bcast(b, n, 3, rank, index)));
  return quantised(ctx, sum, lw_in_bcast(b, n, 4, rank, index), n->out[0]->dtype);
}

/* ---- QLinearMatMul, QLinearConv ---- */

/* Scale or zero point input k as an operand that broadcasts: a vector along an axis that
 * has `after` axes behind it, or one number. */
static ir_value *along(ir_graph *g, ir_node *n, int k, int after) {
  ir_value *v = n->in[k];
  if (is_single(v)) return lw_reshape(g, n, v, 0, NULL);
  if (v->rank != 1) return v;
  int64_t dims[IR_MAX_RANK] = {ir_dim(g->ctx, v, 0)};
  for (int i = 0; i < after; i++) dims[i + 1] = 1;
  return lw_reshape(g, n, v, 1 + after, dims);
}

/* Zero point input k: null when it is known to be 0, one number when all are known to be equal. */
static ir_value *zero_point(ir_graph *g, ir_node *n, int k) {
  ir_value *v = n->in[k];
  if (!v || !v->data || !ir_static(v)) return v;
  int64_t count = ir_value_elements(g->ctx, v);
  const uint8_t *bytes = v->data;
  if (ir_dtype_bytes(v->dtype) != 1 || count < 1) return v;
  for (int64_t i = 1; i < count; i++)
    if (bytes[i] != bytes[0]) return v;
  if (!bytes[0]) return NULL;
  return ir_graph_scalar(g, NULL, v->dtype, v->dtype == TN_U8 ? bytes[0] : (int8_t)bytes[0]);
}

static void need_quantised(tn_ctx *ctx, const ir_node *n, int k, int zero) {
  if (n->in[k]->dtype != TN_U8 && n->in[k]->dtype != TN_I8) lw_bad(ctx, n, "input %d is %s, not u8 or i8", k, ir_dtype_name(n->in[k]->dtype));
  lw_need_same_type(ctx, n, k, zero);
}
static void need_scales(tn_ctx *ctx, const ir_node *n, int a, int b, int y) {
  int all[] = {a, b, y};
  for (int i = 0; i < 3; i++)
    if (!ir_is_float(n->in[all[i]]->dtype)) lw_bad(ctx, n, "scale '%s' is %s", n->in[all[i]]->name, ir_dtype_name(n->in[all[i]]->dtype));
  lw_need_same_type(ctx, n, a, b);
  lw_need_same_type(ctx, n, a, y);
}

static void qmatmul_infer(tn_ctx *ctx, ir_node *n) { /* a, scale, zero, b, scale, zero, y scale, zero */
  need_quantised(ctx, n, 0, 2);
  need_quantised(ctx, n, 3, 5);
  need_scales(ctx, n, 1, 4, 6);
  if (n->in[7]->dtype != TN_U8 && n->in[7]->dtype != TN_I8) lw_bad(ctx, n, "a result of type %s", ir_dtype_name(n->in[7]->dtype));
  ir_value y = lw_would_give(ctx, n, "MatMulInteger", 4, (ir_value *[]){n->in[0], n->in[3], n->in[2], n->in[5]}, 0, NULL);
  lw_set_like(n, 0, n->in[7]->dtype, &y);
}
static void qmatmul_expand(ir_graph *g, ir_node *n) {
  ir_value *sum = lw_node(g, n, "MatMulInteger", 4, (ir_value *[]){n->in[0], n->in[3], zero_point(g, n, 2), zero_point(g, n, 5)});
  ir_value *by = lw_op2(g, n, "Div", lw_op2(g, n, "Mul", along(g, n, 1, 1), along(g, n, 4, 0)), along(g, n, 6, 1));
  lw_replace(g, n, 0, lw_op3(g, n, "tenon:Requantize", sum, by, along(g, n, 7, 1)));
}

static void qconv_infer(tn_ctx *ctx, ir_node *n) { /* x, scale, zero, w, scale, zero, y scale, zero, bias */
  need_quantised(ctx, n, 0, 2);
  need_quantised(ctx, n, 3, 5);
  need_scales(ctx, n, 1, 4, 6);
  lw_need_single(ctx, n, 1);
  lw_need_single(ctx, n, 2);
  lw_need_single(ctx, n, 6);
  lw_need_single(ctx, n, 7);
  if (n->in[7]->dtype != TN_U8 && n->in[7]->dtype != TN_I8) lw_bad(ctx, n, "a result of type %s", ir_dtype_name(n->in[7]->dtype));
  if (lw_has(n, 8) && (n->in[8]->dtype != TN_I32 || n->in[8]->rank != 1)) lw_bad(ctx, n, "the bias must be a vector of i32");
  ir_value y = lw_would_give(ctx, n, "ConvInteger", 4, (ir_value *[]){n->in[0], n->in[3], n->in[2], n->in[5]}, n->nattrs, n->attrs);
  lw_set_like(n, 0, n->in[7]->dtype, &y);
}
static void qconv_expand(ir_graph *g, ir_node *n) {
  int spatial = n->in[0]->rank - 2;
  ir_value *zero_x = zero_point(g, n, 2);
  if (zero_x) zero_x = lw_reshape(g, n, zero_x, 0, NULL);
  ir_node *conv = lw_node_n(g, n, "ConvInteger", 4, (ir_value *[]){n->in[0], n->in[3], zero_x, zero_point(g, n, 5)}, 1);
  conv->nattrs = n->nattrs;
  conv->attrs = n->attrs;
  ir_infer(g->ctx, conv);
  ir_value *sum = conv->out[0];
  if (lw_has(n, 8)) sum = lw_op2(g, n, "Add", sum, along(g, n, 8, spatial));
  ir_value *by = lw_op2(g, n, "Div", lw_op2(g, n, "Mul", along(g, n, 1, 0), along(g, n, 4, spatial)), along(g, n, 6, 0));
  lw_replace(g, n, 0, lw_op3(g, n, "tenon:Requantize", sum, by, along(g, n, 7, 0)));
}

/* ---- com.microsoft QGemm: a, scale, zero, b, scale, zero, i32 bias, y scale, zero; without
 *      the last two the result is float ---- */

static void turned_dims(const ir_node *n, const char *attr, const ir_value *v, ir_value *out) {
  *out = *v;
  if (ir_attr_get_int(n, attr, 0)) out->dims[0] = v->dims[1], out->dims[1] = v->dims[0];
}
static void qgemm_infer(tn_ctx *ctx, ir_node *n) {
  need_quantised(ctx, n, 0, 2);
  need_quantised(ctx, n, 3, 5);
  need_scales(ctx, n, 1, 4, lw_has(n, 7) ? 7 : 4);
  lw_need_rank(ctx, n, 0, 2);
  lw_need_rank(ctx, n, 3, 2);
  if (lw_has(n, 7) != lw_has(n, 8)) lw_bad(ctx, n, "one of y_scale and y_zero_point is missing");
  if (lw_has(n, 6) && (n->in[6]->dtype != TN_I32 || n->in[6]->rank > 2)) lw_bad(ctx, n, "the bias must be i32, of rank 2 at most");
  ir_value a, b;
  turned_dims(n, "transA", n->in[0], &a);
  turned_dims(n, "transB", n->in[3], &b);
  ir_value y = lw_would_give(ctx, n, "MatMulInteger", 4, (ir_value *[]){&a, &b, n->in[2], n->in[5]}, 0, NULL);
  lw_set_like(n, 0, lw_has(n, 8) ? n->in[8]->dtype : n->in[1]->dtype, &y);
}
static void qgemm_expand(ir_graph *g, ir_node *n) {
  static const int64_t turn[] = {1, 0};
  ir_value *a = n->in[0], *b = n->in[3];
  if (ir_attr_get_int(n, "transA", 0)) a = lw_transpose(g, n, a, turn);
  if (ir_attr_get_int(n, "transB", 0)) b = lw_transpose(g, n, b, turn);
  ir_value *sum = lw_node(g, n, "MatMulInteger", 4, (ir_value *[]){a, b, zero_point(g, n, 2), zero_point(g, n, 5)});
  if (lw_has(n, 6)) sum = lw_op2(g, n, "Add", sum, n->in[6]);
  ir_value *by = lw_op2(g, n, "Mul", along(g, n, 1, 1), along(g, n, 4, 0));
  double alpha = ir_attr_get_float(n, "alpha", 1);
  if (alpha != 1) by = lw_op2(g, n, "Mul", by, lw_number(g, by, alpha));
  if (lw_has(n, 7)) lw_replace(g, n, 0, lw_op3(g, n, "tenon:Requantize", sum, lw_op2(g, n, "Div", by, along(g, n, 7, 0)), along(g, n, 8, 0)));
  else lw_replace(g, n, 0, lw_op2(g, n, "Mul", lw_cast_node(g, n, sum, by->dtype), by));
}

/* ---- DynamicQuantizeLinear: u8 over the range of the data ---- */

static void dynamic_infer(tn_ctx *ctx, ir_node *n) {
  if (n->in[0]->dtype != TN_F32) lw_bad(ctx, n, "an input of type %s, not f32", ir_dtype_name(n->in[0]->dtype));
  lw_set_like(n, 0, TN_U8, n->in[0]);
  lw_set(n, 1, TN_F32, 0, NULL);
  lw_set(n, 2, TN_U8, 0, NULL);
}
static void dynamic_expand(ir_graph *g, ir_node *n) {
  ir_value *x = n->in[0], *zero = lw_number(g, x, 0), *most = lw_number(g, x, 255);
  ir_value *hi = lw_op2(g, n, "Max", lw_reduce_all(g, n, "ReduceMax", x), zero), *lo = lw_op2(g, n, "Min", lw_reduce_all(g, n, "ReduceMin", x), zero);
  ir_value *span = lw_op2(g, n, "Sub", hi, lo);
  ir_value *scale = lw_op3(g, n, "Where", lw_op2(g, n, "Equal", hi, lo), lw_number(g, x, 1), lw_op2(g, n, "Div", span, most)); /* all zero: any scale */
  ir_value *at = lw_op1(g, n, "Round", lw_op3(g, n, "Clip", lw_op1(g, n, "Neg", lw_op2(g, n, "Div", lo, scale)), zero, most));
  ir_value *zero_point = lw_cast_node(g, n, at, TN_U8);
  ir_value *y = lw_op3(g, n, "QuantizeLinear", x, scale, zero_point);
  if (n->nout > 2 && n->out[2]) lw_replace(g, n, 2, zero_point);
  if (n->nout > 1 && n->out[1]) lw_replace(g, n, 1, scale);
  if (n->out[0]) lw_replace(g, n, 0, y);
}

/* ---- com.microsoft: float ops between quantised tensors ---- */

/* Input k with its scale and zero point behind it (the zero point may be omitted) as floats. */
static ir_value *as_float(ir_graph *g, ir_node *n, int k) {
  ir_value *in[3] = {n->in[k], n->in[k + 1], lw_has(n, k + 2) ? n->in[k + 2] : NULL};
  return lw_node(g, n, "DequantizeLinear", in[2] ? 3 : 2, in);
}
/* v quantised by the scale in input k and the zero point in k + 1 to dtype t. */
static ir_value *as_quantised(ir_graph *g, ir_node *n, ir_value *v, int k, tn_dtype t) {
  ir_value *zero = lw_has(n, k + 1) ? n->in[k + 1] : ir_graph_scalar(g, NULL, t, 0);
  return lw_op3(g, n, "QuantizeLinear", v, n->in[k], zero);
}

static void need_triple(tn_ctx *ctx, const ir_node *n, int k) {
  if (!lw_has(n, k) || !lw_has(n, k + 1)) lw_bad(ctx, n, "input %d or its scale is omitted", k);
  if (!is_quantised(n->in[k]->dtype)) lw_bad(ctx, n, "input %d is %s", k, ir_dtype_name(n->in[k]->dtype));
  lw_need_single(ctx, n, k + 1);
  if (lw_has(n, k + 2)) lw_need_single(ctx, n, k + 2);
}

/* The scale of the result, and its zero point behind it if there is one. */
static void need_scale(tn_ctx *ctx, const ir_node *n, int k) {
  if (!lw_has(n, k)) lw_bad(ctx, n, "input %d is omitted", k);
  lw_need_single(ctx, n, k);
  if (!lw_has(n, k + 1)) return;
  lw_need_single(ctx, n, k + 1);
  lw_need_same_type(ctx, n, 0, k + 1);
}

static void binary_infer(tn_ctx *ctx, ir_node *n) { /* a, scale, zero, b, scale, zero, c scale, zero */
  need_triple(ctx, n, 0);
  need_triple(ctx, n, 3);
  lw_need_same_type(ctx, n, 0, 3);
  need_scale(ctx, n, 6);
  ir_node pair = *n; /* the broadcasting of inputs 0 and 3 */
  ir_value *in[2] = {n->in[0], n->in[3]};
  pair.in = in;
  pair.nin = 2;
  ix dims[IR_MAX_RANK];
  int rank = lw_broadcast(ctx, &pair, 0, 2, dims);
  lw_set(n, 0, n->in[0]->dtype, rank, dims);
}
static void binary_expand(ir_graph *g, ir_node *n) {
  const char *op = n->op->name + strlen("QLinear");
  ir_value *v = lw_op2(g, n, op, as_float(g, n, 0), as_float(g, n, 3));
  lw_replace(g, n, 0, as_quantised(g, n, v, 6, n->in[0]->dtype));
}

static void unary_infer(tn_ctx *ctx, ir_node *n) { /* x, scale, zero, y scale, zero */
  need_triple(ctx, n, 0);
  need_scale(ctx, n, 3);
  lw_set_like(n, 0, n->in[0]->dtype, n->in[0]);
}
static void unary_expand(ir_graph *g, ir_node *n) {
  ir_node *m = lw_node_n(g, n, n->op->name + strlen("QLinear"), 1, (ir_value *[]){as_float(g, n, 0)}, 1);
  m->nattrs = n->nattrs;
  m->attrs = n->attrs;
  ir_infer(g->ctx, m);
  lw_replace(g, n, 0, as_quantised(g, n, m->out[0], 3, n->in[0]->dtype));
}

static void average_infer(tn_ctx *ctx, ir_node *n) {
  need_triple(ctx, n, 0);
  need_scale(ctx, n, 3);
  const ir_value *x = n->in[0];
  bool last = ir_attr_get_int(n, "channels_last", 0) != 0;
  if (x->rank < 3) lw_bad(ctx, n, "the input has rank %d", x->rank);
  ix dims[IR_MAX_RANK];
  for (int i = 0; i < x->rank; i++) dims[i] = i == 0 || i == (last ? x->rank - 1 : 1) ? x->dims[i] : ix_index(ctx, 1);
  lw_set(n, 0, x->dtype, x->rank, dims);
}
static void average_expand(ir_graph *g, ir_node *n) {
  int rank = n->in[0]->rank, first = ir_attr_get_int(n, "channels_last", 0) ? 1 : 2;
  int64_t axes[IR_MAX_RANK];
  for (int i = 0; i < rank - 2; i++) axes[i] = first + i;
  ir_value *mean = lw_op2_int(g, n, "ReduceMean", as_float(g, n, 0), ir_graph_ints(g, NULL, rank - 2, axes), "keepdims", 1);
  lw_replace(g, n, 0, as_quantised(g, n, mean, 3, n->in[0]->dtype));
}

#define QUANT_ATTRS "axis:i saturate:i block_size:i output_dtype:i precision:i"
#define LINEAR(DOMAIN, NAME, INFER, VALUE) \
  {.name = NAME, .domain = DOMAIN, .kind = IR_OP_ELEMENTWISE, .since = 1, .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 1, .attrs = QUANT_ATTRS, .infer = INFER, .value = VALUE}
#define COMPOSITE(DOMAIN, NAME, LEAST, MOST, OUTS, ATTRS, INFER, EXPAND) \
  {.name = NAME, .domain = DOMAIN, .kind = IR_OP_COMPOSITE, .since = 1, .min_in = LEAST, .max_in = MOST, .min_out = 1, .max_out = OUTS, .attrs = ATTRS, .infer = INFER, .expand = EXPAND}
const ir_op lw_ops_quant[] = {
    LINEAR("", "QuantizeLinear", quantize_infer, quantize_value),
    LINEAR("", "DequantizeLinear", dequantize_infer, dequantize_value),
    LINEAR("com.microsoft", "QuantizeLinear", quantize_infer, quantize_value),
    LINEAR("com.microsoft", "DequantizeLinear", dequantize_infer, dequantize_value),
    {.name = "Requantize", .domain = "tenon", .kind = IR_OP_ELEMENTWISE, .since = 1, .min_in = 3, .max_in = 3, .min_out = 1, .max_out = 1, .infer = requantize_infer, .value = requantize_value},
    {.name = "RequantizeSum", .domain = "tenon", .kind = IR_OP_ELEMENTWISE, .since = 1, .min_in = 5, .max_in = 7, .min_out = 1, .max_out = 1, .infer = requantize_sum_infer, .value = requantize_sum_value},
    COMPOSITE("", "QLinearMatMul", 8, 8, 1, "", qmatmul_infer, qmatmul_expand),
    COMPOSITE("", "QLinearConv", 8, 9, 1, "auto_pad:s dilations:I group:i kernel_shape:I pads:I strides:I", qconv_infer, qconv_expand),
    COMPOSITE("", "DynamicQuantizeLinear", 1, 1, 3, "", dynamic_infer, dynamic_expand),
    COMPOSITE("com.microsoft", "QGemm", 6, 9, 1, "alpha:f transA:i transB:i", qgemm_infer, qgemm_expand),
    COMPOSITE("com.microsoft", "QLinearAdd", 1, 8, 1, "", binary_infer, binary_expand),
    COMPOSITE("com.microsoft", "QLinearMul", 1, 8, 1, "", binary_infer, binary_expand),
    COMPOSITE("com.microsoft", "QLinearSigmoid", 1, 5, 1, "", unary_infer, unary_expand),
    COMPOSITE("com.microsoft", "QLinearLeakyRelu", 1, 5, 1, "alpha:f", unary_infer, unary_expand),
    COMPOSITE("com.microsoft", "QLinearGlobalAveragePool", 1, 5, 1, "channels_last:i", average_infer, average_expand),
    {0}};
