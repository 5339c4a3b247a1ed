/* ops_contrib.c — fused ops of the com.microsoft domain, taken apart: fusion is ours to choose. */
#include "lower/compose.h"
#include <math.h>
#include <string.h>

static void same_infer(tn_ctx *ctx, ir_node *n) {
  if (!ir_is_float(n->in[0]->dtype)) lw_bad(ctx, n, "an input of type %s", ir_dtype_name(n->in[0]->dtype));
  lw_set_like(n, 0, n->in[0]->dtype, n->in[0]);
}

static void need_equal(tn_ctx *ctx, const ir_node *n, const char *what, ix a, ix b) {
  if (a != b && ix_is_const(a) && ix_is_const(b)) lw_bad(ctx, n, "%s: %s and %s", what, ix_print(ctx, a), ix_print(ctx, b));
}

/* ---- Gelu, BiasGelu (erf), FastGelu (tanh), QuickGelu (sigmoid) ---- */

static void gelu_expand(ir_graph *g, ir_node *n) {
  ir_value *x = n->in[0];
  if (lw_has(n, 1)) x = lw_op2(g, n, "Add", x, n->in[1]);
  ir_node *m = lw_node_n(g, n, "Gelu", 1, &x, 1);
  ir_attr_string(m, "approximate", strcmp(n->op->name, "FastGelu") == 0 ? "tanh" : "none");
  ir_infer(g->ctx, m);
  lw_replace(g, n, 0, m->out[0]);
}
static void gelu_infer(tn_ctx *ctx, ir_node *n) {
  if (lw_has(n, 1)) {
    lw_need_same_type(ctx, n, 0, 1);
    lw_need_rank(ctx, n, 1, 1);
    if (n->in[0]->rank) need_equal(ctx, n, "extent of the bias", n->in[1]->dims[0], n->in[0]->dims[n->in[0]->rank - 1]);
  }
  same_infer(ctx, n);
}

static void quick_gelu_expand(ir_graph *g, ir_node *n) {
  ir_node *m = lw_node_n(g, n, "Swish", 1, n->in, 1);
  ir_attr_float(m, "alpha", ir_attr_get_float(n, "alpha", 1.702));
  ir_infer(g->ctx, m);
  lw_replace(g, n, 0, m->out[0]);
}

/* ---- normalisations of sums ---- */

/* LayerNormalization, or RMSNormalization without beta, over the last axis. */
static ir_node *normalise(ir_graph *g, ir_node *n, bool rms, ir_value *x, ir_value *gamma, ir_value *beta, int nout) {
  ir_node *m = lw_node_n(g, n, rms ? "RMSNormalization" : "LayerNormalization", beta ? 3 : 2, (ir_value *[]){x, gamma, beta}, rms ? 1 : nout);
  ir_attr_float(m, "epsilon", ir_attr_get_float(n, "epsilon", strncmp(n->op->name, "Simplified", 10) == 0 ? 1e-5 : 1e-12));
  ir_attr_int(m, "axis", ir_attr_get_int(n, "axis", -1));
  ir_infer(g->ctx, m);
  return m;
}

/* 1 / sqrt(mean(x^2) + epsilon) over the last axes, f32. */
static ir_value *inverse_rms(ir_graph *g, ir_node *n, ir_value *x, double epsilon) {
  int64_t axes[IR_MAX_RANK];
  int first = ir_axis(g->ctx, n, ir_attr_get_int(n, "axis", -1), x->rank), count = 0;
  for (int i = first; i < x->rank; i++) axes[count++] = i;
  x = lw_cast_node(g, n, x, TN_F32);
  ir_value *mean = lw_op2_int(g, n, "ReduceMean", lw_op2(g, n, "Mul", x, x), ir_graph_ints(g, NULL, count, axes), "keepdims", 1);
  return lw_op1(g, n, "Reciprocal", lw_op1(g, n, "Sqrt", lw_op2(g, n, "Add", mean, lw_number(g, mean, epsilon))));
}

static void set_statistics(tn_ctx *ctx, ir_node *n, int from, int count, int first) {
  const ir_value *x = n->in[0];
  ix dims[IR_MAX_RANK];
  for (int i = 0; i < x->rank; i++) dims[i] = i < first ? x->dims[i] : ix_index(ctx, 1);
  for (int k = from; k < from + count; k++) lw_set(n, k, TN_F32, x->rank, dims);
}

static void simplified_infer(tn_ctx *ctx, ir_node *n) {
  same_infer(ctx, n);
  if (ir_attr_get_int(n, "stash_type", 1) != 1) lw_unsupported(ctx, n, "stash_type %lld", (long long)ir_attr_get_int(n, "stash_type", 1));
  int first = ir_axis(ctx, n, ir_attr_get_int(n, "axis", -1), n->in[0]->rank);
  set_statistics(ctx, n, 1, 1, first);
  lw_set_like(n, 0, n->in[1]->dtype, n->in[0]);
}
static void simplified_expand(ir_graph *g, ir_node *n) {
  ir_value *x = n->in[0], *y = normalise(g, n, true, x, n->in[1], NULL, 1)->out[0];
  if (n->nout > 1 && n->out[1]) lw_replace(g, n, 1, inverse_rms(g, n, x, ir_attr_get_float(n, "epsilon", 1e-5)));
  lw_replace(g, n, 0, y);
}

/* input, skip, gamma, [beta], [bias] -> output, mean, inverse deviation, sum; no beta when simplified */
static void skip_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  for (int k = 1; k < n->nin; k++)
    if (lw_has(n, k)) lw_need_same_type(ctx, n, 0, k);
  if (x->rank < 2) lw_bad(ctx, n, "the input has rank %d", x->rank);
  ix dims[IR_MAX_RANK];
  int rank = lw_broadcast(ctx, n, 0, 2, dims);
  bool same = rank == x->rank;
  for (int i = 0; i < rank && same; i++) same = dims[i] == x->dims[i];
  if (!same) lw_bad(ctx, n, "the skip is larger than the input");
  same_infer(ctx, n);
  set_statistics(ctx, n, 1, 2, x->rank - 1);
  lw_set_like(n, 3, x->dtype, x);
}
static void skip_expand(ir_graph *g, ir_node *n) {
  bool rms = strcmp(n->op->name, "SkipSimplifiedLayerNormalization") == 0;
  int bias = rms ? 3 : 4;
  ir_value *sum = lw_op2(g, n, "Add", n->in[0], n->in[1]);
  if (lw_has(n, bias)) sum = lw_op2(g, n, "Add", sum, n->in[bias]);
  ir_node *m = normalise(g, n, rms, sum, n->in[2], !rms && lw_has(n, 3) ? n->in[3] : NULL, n->nout < 3 ? n->nout : 3);
  if (n->nout > 3 && n->out[3]) lw_replace(g, n, 3, sum);
  for (int k = 2; k > 0; k--) {
    if (k >= n->nout || !n->out[k]) continue;
    if (rms && k == 1) lw_unsupported(g->ctx, n, "the output 'mean'");
    lw_replace(g, n, k, rms ? inverse_rms(g, n, sum, ir_attr_get_float(n, "epsilon", 1e-12)) : m->out[k]);
  }
  if (n->out[0]) lw_replace(g, n, 0, m->out[0]);
}

/* ---- EmbedLayerNormalization ----
 *
 * ids [B, S], segments, words [V, H], positions [P, H], segment rows, gamma, beta, mask [B, S],
 * position ids -> normalised sum of the rows [B, S, H], ones in the mask [B], sum */

static void embed_infer(tn_ctx *ctx, ir_node *n) {
  static const int needed[] = {2, 3, 5, 6};
  for (int i = 0; i < IR_COUNT(needed); i++)
    if (!lw_has(n, needed[i])) lw_bad(ctx, n, "input %d is missing", needed[i]);
  const ir_value *ids = n->in[0], *words = n->in[2];
  lw_need_rank(ctx, n, 0, 2);
  for (int k = 0; k < 9; k++) {
    if (!lw_has(n, k)) continue;
    if (k < 2 || k > 6) lw_need_integer(ctx, n, k), lw_need_rank(ctx, n, k, 2);
    else {
      if (!ir_is_float(n->in[k]->dtype)) lw_bad(ctx, n, "input '%s' of type %s", n->in[k]->name, ir_dtype_name(n->in[k]->dtype));
      lw_need_same_type(ctx, n, 2, k);
      lw_need_rank(ctx, n, k, k < 5 ? 2 : 1);
      need_equal(ctx, n, "columns of the embeddings", n->in[k]->dims[n->in[k]->rank - 1], words->dims[1]);
    }
  }
  if (lw_has(n, 1) != lw_has(n, 4)) lw_bad(ctx, n, "one of segment_ids and segment_embedding is missing");
  ix dims[3] = {ids->dims[0], ids->dims[1], words->dims[1]};
  lw_set(n, 0, words->dtype, 3, dims);
  lw_set(n, 1, TN_I32, 1, dims);
  lw_set(n, 2, words->dtype, 3, dims);
}
static void embed_expand(ir_graph *g, ir_node *n) {
  tn_ctx *ctx = g->ctx;
  ir_value *ids = n->in[0], *sum = lw_op2_int(g, n, "Gather", n->in[2], ids, "axis", 0), *places = n->in[3];
  int64_t B = ir_dim(ctx, ids, 0), S = ir_dim(ctx, ids, 1);
  if (lw_has(n, 8)) places = lw_op2_int(g, n, "Gather", places, n->in[8], "axis", 0);
  else {
    if (ir_dim(ctx, places, 0) < S) lw_bad(ctx, n, "%lld positions for %lld tokens", (long long)ir_dim(ctx, places, 0), (long long)S);
    places = lw_slice(g, n, places, 0, 0, S);
  }
  sum = lw_op2(g, n, "Add", sum, places);
  if (lw_has(n, 1)) sum = lw_op2(g, n, "Add", sum, lw_op2_int(g, n, "Gather", n->in[4], n->in[1], "axis", 0));
  ir_node *m = normalise(g, n, false, sum, n->in[5], n->in[6], 1);
  if (n->nout > 2 && n->out[2]) lw_replace(g, n, 2, sum);
  if (n->nout > 1 && n->out[1]) {
    ir_value *count;
    if (lw_has(n, 7)) {
      ir_value *ones = lw_cast_node(g, n, lw_op2(g, n, "Equal", n->in[7], lw_number(g, n->in[7], 1)), TN_I32);
      count = lw_op2_int(g, n, "ReduceSum", ones, ir_graph_ints(g, NULL, 1, (int64_t[]){1}), "keepdims", 0);
    } else count = lw_op2(g, n, "Expand", ir_graph_scalar(g, NULL, TN_I32, 0), ir_graph_ints(g, NULL, 1, &B));
    lw_replace(g, n, 1, count);
  }
  if (n->out[0]) lw_replace(g, n, 0, m->out[0]);
}

/* ---- FusedMatMul, FusedConv, FusedGemm ---- */

/* Operand k as [batch.., rows, columns]: stored [rows, batch.., columns] with transBatch, and
 * with rows and columns exchanged by trans. */
static int operand_perm(const ir_node *n, int k, int64_t *perm) {
  bool batch = ir_attr_get_int(n, k ? "transBatchB" : "transBatchA", 0) != 0, turned = ir_attr_get_int(n, k ? "transB" : "transA", 0) != 0;
  int rank = n->in[k]->rank;
  for (int i = 0; i < rank; i++) perm[i] = i;
  if (rank < 2 || (!batch && !turned)) return 0;
  if (batch)
    for (int i = 0; i < rank - 1; i++) perm[i] = i < rank - 2 ? i + 1 : 0;
  if (turned) {
    int64_t t = perm[rank - 2];
    perm[rank - 2] = perm[rank - 1];
    perm[rank - 1] = t;
  }
  return rank;
}

static void fused_matmul_infer(tn_ctx *ctx, ir_node *n) {
  ir_value seen[2];
  for (int k = 0; k < 2; k++) {
    int64_t perm[IR_MAX_RANK];
    seen[k] = *n->in[k];
    if (operand_perm(n, k, perm))
      for (int i = 0; i < seen[k].rank; i++) seen[k].dims[i] = n->in[k]->dims[perm[i]];
  }
  ir_value y = lw_would_give(ctx, n, "MatMul", 2, (ir_value *[]){&seen[0], &seen[1]}, 0, NULL);
  lw_set_like(n, 0, y.dtype, &y);
}
static void fused_matmul_expand(ir_graph *g, ir_node *n) {
  ir_value *in[2];
  double alpha = ir_attr_get_float(n, "alpha", 1);
  for (int k = 0; k < 2; k++) {
    int64_t perm[IR_MAX_RANK];
    in[k] = operand_perm(n, k, perm) ? lw_transpose(g, n, n->in[k], perm) : n->in[k];
  }
  ir_value *y = lw_node(g, n, "MatMul", 2, in);
  lw_replace(g, n, 0, alpha == 1 ? y : lw_op2(g, n, "Mul", y, lw_number(g, y, alpha)));
}

/* `activation` of v with up to two parameters. */
static ir_value *activate(ir_graph *g, ir_node *n, ir_value *v, const char *activation, const double *p, int np) {
  static const struct {
    const char *name, *first, *second;
  } known[] = {{"Relu", NULL, NULL}, {"Tanh", NULL, NULL}, {"Sigmoid", NULL, NULL}, {"LeakyRelu", "alpha", NULL}, {"Elu", "alpha", NULL},
               {"HardSigmoid", "alpha", "beta"}, {"Softplus", NULL, NULL}, {"Softsign", NULL, NULL}, {"ThresholdedRelu", "alpha", NULL}, {"HardSwish", NULL, NULL}};
  if (!*activation) return v;
  if (strcmp(activation, "Clip") == 0 && np == 2) return lw_op3(g, n, "Clip", v, lw_number(g, v, p[0]), lw_number(g, v, p[1]));
  for (int i = 0; i < IR_COUNT(known); i++) {
    if (strcmp(activation, known[i].name) != 0) continue;
    ir_node *m = lw_node_n(g, n, activation, 1, &v, 1);
    if (known[i].first && np > 0) ir_attr_float(m, known[i].first, p[0]);
    if (known[i].second && np > 1) ir_attr_float(m, known[i].second, p[1]);
    ir_infer(g->ctx, m);
    return m->out[0];
  }
  lw_unsupported(g->ctx, n, "activation '%s'", activation);
}

static void keep_attrs(tn_ctx *ctx, ir_node *m, const ir_node *n, const char *prefix) { /* all but those of the activation */
  m->attrs = NULL;
  m->nattrs = 0;
  for (int i = 0; i < n->nattrs; i++)
    if (strncmp(n->attrs[i].name, prefix, strlen(prefix)) != 0) IR_PUSH(ctx, m->attrs, m->nattrs, n->attrs[i]);
}

/* The output shape of a fused op is that of the op it starts with. */
static void heart_infer(tn_ctx *ctx, ir_node *n, const char *op, int nin) {
  ir_node rest = *n;
  keep_attrs(ctx, &rest, n, "activation");
  ir_value y = lw_would_give(ctx, n, op, n->nin < nin ? n->nin : nin, n->in, rest.nattrs, rest.attrs);
  lw_set_like(n, 0, y.dtype, &y);
}
static void fused_conv_infer(tn_ctx *ctx, ir_node *n) { heart_infer(ctx, n, "Conv", 3); }
static void fused_gemm_infer(tn_ctx *ctx, ir_node *n) { heart_infer(ctx, n, "Gemm", 3); }

static void fused_conv_expand(ir_graph *g, ir_node *n) {
  ir_node *m = lw_node_n(g, n, "Conv", n->nin < 3 ? n->nin : 3, n->in, 1);
  keep_attrs(g->ctx, m, n, "activation");
  ir_infer(g->ctx, m);
  ir_value *v = m->out[0];
  if (lw_has(n, 3)) v = lw_op2(g, n, "Add", v, n->in[3]);
  const ir_attr *p = ir_attr_find(n, "activation_params");
  lw_replace(g, n, 0, activate(g, n, v, ir_attr_get_string(n, "activation", ""), p ? p->floats : NULL, p ? p->n : 0));
}
static void fused_gemm_expand(ir_graph *g, ir_node *n) {
  ir_node *m = lw_node_n(g, n, "Gemm", n->nin, n->in, 1);
  keep_attrs(g->ctx, m, n, "activation");
  ir_infer(g->ctx, m);
  double p[2] = {ir_attr_get_float(n, "activation_alpha", 0), ir_attr_get_float(n, "activation_beta", 0)};
  int np = !lw_has_attr(n, "activation_alpha") ? 0 : lw_has_attr(n, "activation_beta") ? 2 : 1;
  lw_replace(g, n, 0, activate(g, n, m->out[0], ir_attr_get_string(n, "activation", ""), p, np));
}

/* ---- products of integers as floats ----
 *
 * MatMulIntegerToFloat: A, B, a scale, b scale, a zero, b zero, bias.
 * DynamicQuantizeMatMul: A (float), B, b scale, b zero, bias. */

static void integer_product_infer(tn_ctx *ctx, ir_node *n) {
  bool dynamic = strcmp(n->op->name, "DynamicQuantizeMatMul") == 0;
  ir_value a = *n->in[0];
  if (dynamic) {
    if (a.dtype != TN_F32) lw_bad(ctx, n, "an input of type %s", ir_dtype_name(a.dtype));
    a.dtype = TN_U8;
  }
  tn_dtype t = n->in[2]->dtype;
  if (!ir_is_float(t)) lw_bad(ctx, n, "a scale of type %s", ir_dtype_name(t));
  ir_value y = lw_would_give(ctx, n, "MatMulInteger", 2, (ir_value *[]){&a, n->in[1]}, 0, NULL);
  lw_set_like(n, 0, t, &y);
}
static void integer_product_expand(ir_graph *g, ir_node *n) {
  bool dynamic = strcmp(n->op->name, "DynamicQuantizeMatMul") == 0;
  ir_value *a = n->in[0], *scale, *zero_a = NULL, *b_scale = n->in[dynamic ? 2 : 3];
  int zero_b = dynamic ? 3 : 5, bias = dynamic ? 4 : 6;
  if (dynamic) {
    ir_node *q = lw_node_n(g, n, "DynamicQuantizeLinear", 1, &a, 3);
    ir_infer(g->ctx, q);
    a = q->out[0];
    scale = q->out[1];
    zero_a = q->out[2];
  } else {
    scale = n->in[2];
    if (lw_has(n, 4)) zero_a = n->in[4];
  }
  ir_value *sum = lw_node(g, n, "MatMulInteger", 4, (ir_value *[]){a, n->in[1], zero_a, lw_has(n, zero_b) ? n->in[zero_b] : NULL});
  ir_value *y = lw_op2(g, n, "Mul", lw_cast_node(g, n, sum, scale->dtype), lw_op2(g, n, "Mul", scale, b_scale));
  if (lw_has(n, bias)) y = lw_op2(g, n, "Add", y, n->in[bias]);
  lw_replace(g, n, 0, y);
}

/* ---- MatMulNBits: B as [N, blocks, bytes] of numbers of 2, 4 or 8 bits, the low ones first ----
 *
 * A, B, scales [N * blocks], zero points (packed as B is, or floats), -, bias [N]. */

typedef struct nbits {
  int64_t k, n, bits, block, blocks;
} nbits;

static nbits nbits_of(tn_ctx *ctx, const ir_node *n) {
  nbits v = {ir_attr_get_int(n, "K", 0), ir_attr_get_int(n, "N", 0), ir_attr_get_int(n, "bits", 4), ir_attr_get_int(n, "block_size", 0), 0};
  if (v.k < 1 || v.n < 1 || v.block < 1 || v.k > INT32_MAX || v.n > INT32_MAX) lw_bad(ctx, n, "K %lld, N %lld, block_size %lld", (long long)v.k, (long long)v.n, (long long)v.block);
  if (v.bits != 2 && v.bits != 4 && v.bits != 8) lw_unsupported(ctx, n, "%lld bits", (long long)v.bits);
  if (v.block * v.bits % 8) lw_bad(ctx, n, "block_size %lld", (long long)v.block);
  v.blocks = (v.k + v.block - 1) / v.block;
  return v;
}

/* tenon UnpackBits: B, scales, zero points -> [K, N] */
static void unpack_infer(tn_ctx *ctx, ir_node *n) {
  nbits v = nbits_of(ctx, n);
  const ir_value *b = n->in[0], *s = n->in[1];
  if (b->dtype != TN_U8) lw_bad(ctx, n, "packed numbers of type %s", ir_dtype_name(b->dtype));
  if (!ir_is_float(s->dtype)) lw_bad(ctx, n, "scales of type %s", ir_dtype_name(s->dtype));
  int64_t want[3] = {v.n * v.blocks * (v.block * v.bits / 8), v.n * v.blocks, 0};
  if (lw_has(n, 2)) {
    bool packed = n->in[2]->dtype == TN_U8;
    if (!packed && n->in[2]->dtype != s->dtype) lw_bad(ctx, n, "zero points of type %s", ir_dtype_name(n->in[2]->dtype));
    want[2] = packed ? v.n * ((v.blocks * v.bits + 7) / 8) : v.n * v.blocks;
  }
  for (int k = 0; k < n->nin; k++)
    if (lw_has(n, k) && (n->in[k]->rank != 1 || !ix_is_int(n->in[k]->dims[0], want[k])))
      lw_bad(ctx, n, "input %d has %s elements, not %lld", k, ix_print(ctx, n->in[k]->dims[0]), (long long)want[k]);
  lw_set(n, 0, s->dtype, 2, (ix[]){ix_index(ctx, v.k), ix_index(ctx, v.n)});
}
/* Number `i` of a row of packed numbers that starts at byte `row`. */
static ix unpacked(lw_build *b, ir_node *n, int operand, ix row, ix i, int64_t bits) {
  tn_ctx *ctx = lw_ctx(b);
  int64_t per = 8 / bits;
  ix at = ix_add(ctx, row, ix_divi(ctx, i, per)), e = lw_in(b, n, operand, &at);
  if (per == 1) return e;
  ix shift = ix_cast(ctx, TN_U8, ix_muli(ctx, ix_remi(ctx, i, per), bits));
  return ix_and(ctx, ix_binary(ctx, IX_SHR, e, shift), ix_int(ctx, TN_U8, (1 << bits) - 1));
}
static ix unpack_value(lw_build *b, ir_node *n, int out, const ix *index) {
  tn_ctx *ctx = lw_ctx(b);
  nbits v = nbits_of(ctx, n);
  tn_dtype t = n->out[0]->dtype, c = lw_compute_type(t);
  int64_t row_bytes = v.blocks * (v.block * v.bits / 8);
  ix x = unpacked(b, n, 0, ix_muli(ctx, index[1], row_bytes), index[0], v.bits);
  ix block = ix_divi(ctx, index[0], v.block), at = ix_add(ctx, ix_muli(ctx, index[1], v.blocks), block), zero;
  ix s = ix_cast(ctx, c, lw_in(b, n, 1, &at));
  if (!lw_has(n, 2)) zero = ix_float(ctx, c, (double)(1 << (v.bits - 1)));
  else if (n->in[2]->dtype != TN_U8) zero = ix_cast(ctx, c, lw_in(b, n, 2, &at));
  else zero = ix_cast(ctx, c, unpacked(b, n, 2, ix_muli(ctx, index[1], (v.blocks * v.bits + 7) / 8), block, v.bits));
  return ix_cast(ctx, t, ix_mul(ctx, ix_sub(ctx, ix_cast(ctx, c, x), zero), s));
}

static void nbits_infer(tn_ctx *ctx, ir_node *n) {
  nbits v = nbits_of(ctx, n);
  const ir_value *a = n->in[0];
  if (a->rank < 1) lw_bad(ctx, n, "A has rank 0");
  need_equal(ctx, n, "columns of A and K", a->dims[a->rank - 1], ix_index(ctx, v.k));
  lw_need_same_type(ctx, n, 0, 2);
  if (lw_has(n, 4)) lw_unsupported(ctx, n, "g_idx");
  ix dims[IR_MAX_RANK];
  for (int i = 0; i < a->rank; i++) dims[i] = i < a->rank - 1 ? a->dims[i] : ix_index(ctx, v.n);
  lw_set(n, 0, a->dtype, a->rank, dims);
}
static void nbits_expand(ir_graph *g, ir_node *n) {
  ir_value *flat[3] = {NULL};
  for (int k = 0; k < 3; k++)
    if (lw_has(n, k + 1)) flat[k] = lw_reshape(g, n, n->in[k + 1], 1, (int64_t[]){ir_value_elements(g->ctx, n->in[k + 1])});
  ir_node *m = lw_node_n(g, n, "tenon:UnpackBits", flat[2] ? 3 : 2, flat, 1);
  m->nattrs = n->nattrs;
  m->attrs = n->attrs;
  ir_infer(g->ctx, m);
  ir_value *y = lw_op2(g, n, "MatMul", n->in[0], m->out[0]);
  if (lw_has(n, 5)) y = lw_op2(g, n, "Add", y, n->in[5]);
  lw_replace(g, n, 0, y);
}

#define MS "com.microsoft"
#define NBITS "K:i N:i accuracy_level:i bits:i block_size:i weight_prepacked:i"
#define COMPOSITE(DOMAIN, NAME, LEAST, MOST, OUTS, ATTRS, INFER, EXPAND) \
  {.name = NAME, .domain = DOMAIN, .kind = IR_OP_COMPOSITE, .since = 1, .min_in = LEAST, .max_in = MOST, .min_out = 1, .max_out = OUTS, .attrs = ATTRS, .infer = INFER, .expand = EXPAND}
const ir_op lw_ops_contrib[] = {
    COMPOSITE(MS, "Gelu", 1, 1, 1, "", gelu_infer, gelu_expand),
    COMPOSITE(MS, "BiasGelu", 2, 2, 1, "", gelu_infer, gelu_expand),
    COMPOSITE(MS, "FastGelu", 1, 2, 1, "", gelu_infer, gelu_expand),
    COMPOSITE(MS, "QuickGelu", 1, 1, 1, "alpha:f", same_infer, quick_gelu_expand),
    COMPOSITE("", "SimplifiedLayerNormalization", 2, 2, 2, "axis:i epsilon:f stash_type:i", simplified_infer, simplified_expand),
    COMPOSITE(MS, "SimplifiedLayerNormalization", 2, 2, 2, "axis:i epsilon:f stash_type:i", simplified_infer, simplified_expand),
    COMPOSITE(MS, "SkipLayerNormalization", 3, 5, 4, "epsilon:f", skip_infer, skip_expand),
    COMPOSITE(MS, "SkipSimplifiedLayerNormalization", 3, 4, 4, "epsilon:f", skip_infer, skip_expand),
    COMPOSITE(MS, "EmbedLayerNormalization", 1, 9, 3, "epsilon:f mask_index_type:i", embed_infer, embed_expand),
    COMPOSITE(MS, "FusedMatMul", 2, 2, 1, "alpha:f transA:i transB:i transBatchA:i transBatchB:i", fused_matmul_infer, fused_matmul_expand),
    COMPOSITE(MS, "TransposeMatMul", 2, 2, 1, "alpha:f transA:i transB:i", fused_matmul_infer, fused_matmul_expand),
    COMPOSITE(MS, "FusedConv", 2, 4, 1, "activation:s activation_params:F auto_pad:s dilations:I group:i kernel_shape:I pads:I strides:I", fused_conv_infer, fused_conv_expand),
    COMPOSITE(MS, "FusedGemm", 2, 3, 1, "activation:s activation_alpha:f activation_beta:f activation_gamma:f alpha:f beta:f transA:i transB:i", fused_gemm_infer, fused_gemm_expand),
    COMPOSITE(MS, "MatMulIntegerToFloat", 4, 7, 1, "", integer_product_infer, integer_product_expand),
    COMPOSITE(MS, "DynamicQuantizeMatMul", 3, 5, 1, "", integer_product_infer, integer_product_expand),
    COMPOSITE(MS, "MatMulNBits", 3, 6, 1, NBITS, nbits_infer, nbits_expand),
    {.name = "UnpackBits", .domain = "tenon", .kind = IR_OP_MOVEMENT, .since = 1, .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 1, .attrs = NBITS, .infer = unpack_infer, .value = unpack_value},
    {0}};
