/* narrow.c — see narrow.h. */
#include "lower/narrow.h"
#include "lower/compose.h"
#include "lower/lower.h"
#include <string.h>

static const char *const names[] = {"fp32", "bf16", "int8"};

const char *lw_precision_name(lw_precision p) { return names[p]; }

lw_precision lw_precision_parse(tn_ctx *ctx, const char *s) {
  for (int i = 0; i < IR_COUNT(names); i++)
    if (strcmp(s, names[i]) == 0) return (lw_precision)i;
  ir_fail(ctx, TN_EUSAGE, "precision '%s' is none of fp32, bf16, int8", s);
}

static bool is_product(const ir_node *n, tn_dtype t) {
  return !n->dead && (ir_node_is(n, "Conv") || ir_node_is(n, "MatMul") || ir_node_is(n, "Gemm")) && n->in[0]->dtype == t;
}

/* Which values are known before a run. */
static void find_packed(ir_graph *g) {
  ir_graph_sort(g);
  lw_mark_packed(g);
}

static ir_node *same_attrs(ir_graph *g, ir_node *n, const char *op, int nin, ir_value *const *in) {
  ir_node *m = lw_node_n(g, n, op, nin, in, 1);
  m->name = n->name;
  m->nattrs = n->nattrs;
  m->attrs = n->attrs;
  ir_infer(g->ctx, m);
  return m;
}

static ir_value *turned(ir_graph *g, ir_node *n, ir_value *v, const char *attr) { /* operand of Gemm as MatMul takes it */
  static const int64_t turn[] = {1, 0};
  return ir_attr_get_int(n, attr, 0) ? lw_transpose(g, n, v, turn) : v;
}

/* alpha * product + beta * C, as Gemm says, in the product's dtype. */
static ir_value *gemm_rest(ir_graph *g, ir_node *n, ir_value *v) {
  double alpha = ir_attr_get_float(n, "alpha", 1), beta = ir_attr_get_float(n, "beta", 1);
  if (alpha != 1) v = lw_op2(g, n, "Mul", v, lw_number(g, v, alpha));
  if (!lw_has(n, 2) || beta == 0) return v;
  ir_value *c = lw_cast_node(g, n, n->in[2], v->dtype);
  return lw_op2(g, n, "Add", v, beta == 1 ? c : lw_op2(g, n, "Mul", c, lw_number(g, v, beta)));
}

/* ---- bf16 ---- */

void lw_narrow_bf16(tn_ctx *ctx, ir_graph *g) {
  ir_graph_sort(g);
  for (int i = 0, count = g->nnodes; i < count; i++) {
    ir_node *n = g->nodes[i];
    if (!is_product(n, TN_F32)) continue;
    bool gemm = ir_node_is(n, "Gemm"), conv = ir_node_is(n, "Conv");
    ir_value *a = gemm ? turned(g, n, n->in[0], "transA") : n->in[0], *b = gemm ? turned(g, n, n->in[1], "transB") : n->in[1];
    ir_value *in[3] = {lw_cast_node(g, n, a, TN_BF16), lw_cast_node(g, n, b, TN_BF16), conv && lw_has(n, 2) ? n->in[2] : NULL};
    if (conv) lw_replace(g, n, 0, same_attrs(g, n, "tenon:ConvWide", in[2] ? 3 : 2, in)->out[0]);
    else {
      ir_node *m = lw_node_n(g, n, "tenon:MatMulWide", 2, in, 1);
      m->name = n->name;
      ir_infer(ctx, m);
      lw_replace(g, n, 0, gemm ? gemm_rest(g, n, m->out[0]) : m->out[0]);
    }
  }
  ir_graph_sort(g);
  ir_graph_analyse(g);
}

/* ---- bytes ---- */

int lw_narrow_operands(tn_ctx *ctx, const ir_graph *g, ir_value ***out) {
  int n = 0;
  find_packed((ir_graph *)(uintptr_t)g);
  for (int i = 0; i < g->nnodes; i++)
    for (int k = 0; is_product(g->nodes[i], TN_F32) && k < 2; k++) {
      ir_value *v = g->nodes[i]->in[k];
      bool known = v->packed;
      for (int j = 0; j < n && !known; j++) known = (*out)[j] == v;
      if (!known) IR_PUSH(ctx, *out, n, v);
    }
  return n;
}

/* A vector along `axis` of a tensor of rank `rank`, to broadcast. */
static ir_value *vector_at(ir_graph *g, ir_node *n, ir_value *v, int axis, int rank) {
  int64_t dims[IR_MAX_RANK];
  for (int i = 0; i < rank; i++) dims[i] = i == axis ? ir_dim(g->ctx, v, 0) : 1;
  return lw_reshape(g, n, v, rank, dims);
}

static ir_value *quantise(ir_graph *g, ir_node *n, ir_value *v, ir_value *scale, int axis) {
  ir_node *q = lw_node_n(g, n, "QuantizeLinear", 2, (ir_value *[]){v, scale}, 1);
  ir_attr_int(q, "axis", axis);
  ir_attr_int(q, "output_dtype", lw_number_of_type(g->ctx, TN_I8));
  ir_infer(g->ctx, q);
  return q->out[0];
}

/* Scales of a constant along one axis: largest magnitude / 127, never 0. A vector. */
static ir_value *constant_scale(ir_graph *g, ir_node *n, ir_value *w, int axis) {
  int64_t axes[IR_MAX_RANK], count = ir_dim(g->ctx, w, axis);
  int k = 0;
  for (int i = 0; i < w->rank; i++)
    if (i != axis) axes[k++] = i;
  ir_value *most = lw_op2_int(g, n, "ReduceMax", lw_op1(g, n, "Abs", w), ir_graph_ints(g, NULL, k, axes), "keepdims", 0);
  most = lw_op2(g, n, "Max", most, lw_number(g, w, 1e-30));
  return lw_reshape(g, n, lw_op2(g, n, "Div", most, lw_number(g, w, 127)), 1, &count);
}

typedef struct ranges {
  float (*range)(void *user, const ir_value *v);
  void *user;
} ranges;

static ir_value *activation_scale(ir_graph *g, ir_node *n, const ranges *r, const ir_value *v) {
  (void)n;
  float most = r->range(r->user, v);
  return ir_graph_scalar(g, NULL, TN_F32, most > 0 ? (double)(most / 127) : 1);
}

static void narrow_product(ir_graph *g, ir_node *n, const ranges *r) {
  bool conv = ir_node_is(n, "Conv"), gemm = ir_node_is(n, "Gemm");
  ir_value *a = n->in[0], *b = n->in[1], *sa, *sb, *result;
  bool ka = a->packed, kb = b->packed;
  if (ka && kb) return; /* packed once */
  sa = ka ? NULL : activation_scale(g, n, r, a);
  sb = kb ? NULL : activation_scale(g, n, r, b);
  if (gemm) a = turned(g, n, a, "transA"), b = turned(g, n, b, "transB");
  int rank = n->out[0]->rank, channel = conv ? 1 : rank - 1, axis = conv ? 0 : b->rank - 1;
  bool vector = kb && (conv || b->rank == 2) && rank >= 2;
  if (ka || (kb && !vector)) { /* one scale for a whole constant that is no plain weight */
    ir_value *w = ka ? a : b, *one = lw_op2(g, n, "Div", lw_op2(g, n, "Max", lw_reduce_all(g, n, "ReduceMax", lw_op1(g, n, "Abs", w)), lw_number(g, w, 1e-30)), lw_number(g, w, 127));
    *(ka ? &sa : &sb) = lw_reshape(g, n, one, 0, NULL);
  } else if (vector) sb = constant_scale(g, n, b, axis);
  ir_value *in[2] = {quantise(g, n, a, sa, 0), quantise(g, n, b, sb, axis)}, *wide = vector ? vector_at(g, n, sb, channel, rank) : sb;
  ir_node *m = conv ? same_attrs(g, n, "ConvInteger", 2, in) : lw_node_n(g, n, "MatMulInteger", 2, in, 1);
  m->name = n->name;
  ir_infer(g->ctx, m);
  result = lw_op2(g, n, "Mul", lw_cast_node(g, n, m->out[0], TN_F32), lw_op2(g, n, "Mul", wide, sa));
  if (conv && lw_has(n, 2)) result = lw_op2(g, n, "Add", result, vector_at(g, n, n->in[2], 1, rank));
  lw_replace(g, n, 0, gemm ? gemm_rest(g, n, result) : result);
}

void lw_narrow_int8(tn_ctx *ctx, ir_graph *g, float (*range)(void *user, const ir_value *v), void *user) {
  (void)ctx;
  ranges r = {range, user};
  find_packed(g);
  for (int i = 0, count = g->nnodes; i < count; i++)
    if (is_product(g->nodes[i], TN_F32)) narrow_product(g, g->nodes[i], &r);
  ir_graph_sort(g);
  ir_graph_analyse(g);
}

/* ---- what is quantised already ---- */

ir_node *lw_dequantised(const ir_value *v) {
  ir_node *d = v ? v->def : NULL;
  if (!d || !ir_node_is(d, "DequantizeLinear") || ir_attr_get_int(d, "block_size", 0)) return NULL;
  return d->in[0]->dtype == TN_I8 || d->in[0]->dtype == TN_U8 ? d : NULL;
}

bool lw_single(const ir_value *v) {
  for (int i = 0; i < v->rank; i++)
    if (!ix_is_int(v->dims[i], 1)) return false;
  return true;
}

/* Null when all are 0; one number when all are equal; else false. */
static bool known_zero(ir_graph *g, const ir_node *d, ir_value **zero) {
  *zero = NULL;
  if (!lw_has(d, 2)) return true;
  const ir_value *v = d->in[2];
  const int8_t *bytes = v->data;
  if (!bytes || !ir_static(v)) return false;
  for (int64_t i = 1, n = ir_value_elements(g->ctx, v); i < n; i++)
    if (bytes[i] != bytes[0]) return false;
  if (bytes[0]) *zero = ir_graph_scalar(g, NULL, v->dtype, v->dtype == TN_U8 ? (double)(uint8_t)bytes[0] : (double)bytes[0]);
  return true;
}

static void quantised_product(ir_graph *g, ir_node *n) {
  ir_node *a = lw_dequantised(n->in[0]), *b = lw_dequantised(n->in[1]);
  bool conv = ir_node_is(n, "Conv");
  ir_value *za, *zb;
  if (!a || !b || ir_node_is(n, "Gemm") || !lw_single(a->in[1]) || a->in[1]->dtype != TN_F32) return;
  if (!known_zero(g, a, &za) || !known_zero(g, b, &zb)) return;
  int rank = n->out[0]->rank, channel = conv ? 1 : rank - 1, axis = ir_axis(g->ctx, b, ir_attr_get_int(b, "axis", 1), b->in[0]->rank);
  bool one = lw_single(b->in[1]);
  if (!one && (axis != (conv ? 0 : b->in[0]->rank - 1) || b->in[1]->rank != 1)) return;
  ir_value *in[4] = {a->in[0], b->in[0], za, zb};
  ir_node *m = conv ? same_attrs(g, n, "ConvInteger", 4, in) : lw_node_n(g, n, "MatMulInteger", 4, in, 1);
  ir_infer(g->ctx, m);
  ir_value *sb = one ? lw_reshape(g, n, b->in[1], 0, NULL) : vector_at(g, n, b->in[1], channel, rank);
  ir_value *result = lw_op2(g, n, "Mul", lw_cast_node(g, n, m->out[0], TN_F32), lw_op2(g, n, "Mul", sb, lw_reshape(g, n, a->in[1], 0, NULL)));
  if (conv && lw_has(n, 2)) result = lw_op2(g, n, "Add", result, vector_at(g, n, n->in[2], 1, rank));
  lw_replace(g, n, 0, result);
}

void lw_narrow_quantised(tn_ctx *ctx, ir_graph *g) {
  (void)ctx;
  find_packed(g);
  for (int i = 0, count = g->nnodes; i < count; i++)
    if (is_product(g->nodes[i], TN_F32)) quantised_product(g, g->nodes[i]);
  ir_graph_sort(g);
  ir_graph_analyse(g);
}

/* ---- 8-bit floats ---- */

typedef struct byte_source { /* what an operand is: v times scale */
  ir_value *v;
  ir_value *scale; /* of one element, or a vector along `axis` of v; null: 1 */
  int axis;        /* -1: one scale */
} byte_source;

static bool is_byte(const ir_value *v) { return ir_is_byte_float(v->dtype); }
static bool is_tensor_core_byte(const ir_value *v) { return v->dtype == TN_F8E4M3FN || v->dtype == TN_F8E5M2; }

/* A node that only moves elements, of another operand. */
static ir_value *moved(ir_graph *g, ir_node *d, ir_value *v) {
  ir_value **in = IR_NEW_ARRAY(g->ctx, ir_value *, d->nin);
  for (int k = 0; k < d->nin; k++) in[k] = k ? d->in[k] : v;
  ir_node *m = lw_node_n(g, d, d->op->name, d->nin, in, 1);
  m->nattrs = d->nattrs;
  m->attrs = d->attrs;
  ir_infer(g->ctx, m);
  return m->out[0];
}

/* Looks through what widens and what moves; nothing is made unless the operand comes from bytes. */
static bool byte_source_of(ir_graph *g, ir_value *v, bool (*takes)(const ir_value *v), byte_source *s) {
  ir_node *d = v->def;
  if (!d || d->nout != 1) return false;
  if (ir_node_is(d, "DequantizeLinear") && takes(d->in[0])) {
    ir_value *zero;
    if (ir_attr_get_int(d, "block_size", 0) || !known_zero(g, d, &zero) || zero) return false;
    *s = (byte_source){d->in[0], d->in[1], lw_single(d->in[1]) ? -1 : ir_axis(g->ctx, d, ir_attr_get_int(d, "axis", 1), d->in[0]->rank)};
    return s->axis < 0 || d->in[1]->rank == 1;
  }
  if (ir_node_is(d, "Cast") && ir_is_float(v->dtype) && !ir_is_byte_float(v->dtype)) {
    if (takes(d->in[0])) return *s = (byte_source){d->in[0], NULL, -1}, true;
    return byte_source_of(g, d->in[0], takes, s);
  }
  if (ir_node_is(d, "Transpose")) {
    if (!byte_source_of(g, d->in[0], takes, s)) return false;
    const int64_t *perm;
    int rank = v->rank, n = ir_attr_get_ints(d, "perm", &perm), at = -1;
    for (int i = 0; s->axis >= 0 && i < rank; i++)
      if (ir_axis(g->ctx, d, n < 0 ? rank - 1 - i : perm[i], rank) == s->axis) at = i;
    s->axis = at;
    return s->v = moved(g, d, s->v), true;
  }
  static const char *const moves[] = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", NULL};
  for (int i = 0; moves[i]; i++)
    if (ir_node_is(d, moves[i])) return byte_source_of(g, d->in[0], takes, s) && s->axis < 0 && (s->v = moved(g, d, s->v), true);
  return false;
}

/* The scale as f32 that broadcasts to a result of this rank, where the operand's axis is its axis `at`. */
static ir_value *wide_scale(ir_graph *g, ir_node *n, const byte_source *s, int at, int rank) {
  ir_value *v = s->axis < 0 ? lw_reshape(g, n, s->scale, 0, NULL) : vector_at(g, n, s->scale, at, rank);
  return lw_cast_node(g, n, v, TN_F32);
}

/* v with its last two axes exchanged: what it was turned from, or turned. */
static ir_value *other_way(ir_graph *g, ir_node *n, ir_value *v) {
  int64_t perm[IR_MAX_RANK];
  const int64_t *given;
  int rank = v->rank;
  for (int i = 0; i < rank; i++) perm[i] = i < rank - 2 ? i : 2 * rank - 3 - i;
  ir_node *d = v->def;
  if (d && ir_node_is(d, "Transpose")) {
    int count = ir_attr_get_ints(d, "perm", &given);
    bool same = count == rank || (count < 0 && rank == 2);
    for (int i = 0; i < rank && same; i++) same = count < 0 || ir_axis(g->ctx, d, given[i], rank) == perm[i];
    if (same) return d->in[0];
  }
  return lw_transpose(g, n, v, perm);
}

static void byte_product(ir_graph *g, ir_node *n) {
  bool conv = ir_node_is(n, "Conv"), gemm = ir_node_is(n, "Gemm");
  byte_source a, b;
  tn_dtype t = n->out[0]->dtype;
  if (!ir_is_float(t) || t == TN_F64 || n->in[0]->rank < 2 || n->in[1]->rank < 2) return;
  if (!byte_source_of(g, n->in[0], is_tensor_core_byte, &a) || !byte_source_of(g, n->in[1], is_tensor_core_byte, &b)) return;
  if (gemm && ir_attr_get_int(n, "transA", 0)) a.v = turned(g, n, a.v, "transA"), a.axis = a.axis < 0 ? -1 : 1 - a.axis;
  if (gemm && ir_attr_get_int(n, "transB", 0)) b.v = turned(g, n, b.v, "transB"), b.axis = b.axis < 0 ? -1 : 1 - b.axis;
  int rank = n->out[0]->rank, row = a.v->rank - 2, column = b.v->rank - 1;
  if (a.axis >= 0 && (conv || a.axis != row)) return;
  if (b.axis >= 0 && b.axis != (conv ? 0 : column)) return;
  ir_value *in[2] = {a.v, conv ? b.v : other_way(g, n, b.v)}, *v; /* bytes must lie along the sum */
  if (conv) v = same_attrs(g, n, "tenon:ConvWide", 2, in)->out[0];
  else {
    ir_node *m = lw_node_n(g, n, "tenon:MatMulWide", 2, in, 1);
    m->name = n->name;
    ir_attr_int(m, "transB", 1);
    ir_infer(g->ctx, m);
    v = m->out[0];
  }
  ir_value *sa = a.scale ? wide_scale(g, n, &a, rank - 2, rank) : NULL, *sb = b.scale ? wide_scale(g, n, &b, conv ? 1 : rank - 1, rank) : NULL;
  ir_value *scale = sa && sb ? lw_op2(g, n, "Mul", sa, sb) : sa ? sa : sb;
  if (scale) v = lw_op2(g, n, "Mul", v, scale);
  if (conv && lw_has(n, 2)) v = lw_op2(g, n, "Add", v, vector_at(g, n, lw_cast_node(g, n, n->in[2], TN_F32), 1, rank));
  lw_replace(g, n, 0, lw_cast_node(g, n, gemm ? gemm_rest(g, n, v) : v, t));
}

void lw_narrow_byte_floats(tn_ctx *ctx, ir_graph *g) {
  (void)ctx;
  ir_graph_sort(g);
  for (int i = 0, count = g->nnodes; i < count; i++) {
    ir_node *n = g->nodes[i];
    if (!n->dead && (ir_node_is(n, "Conv") || ir_node_is(n, "MatMul") || ir_node_is(n, "Gemm"))) byte_product(g, n);
  }
  ir_graph_sort(g);
  ir_graph_analyse(g);
}

static void row_product(ir_graph *g, ir_node *n) {
  enum { ROWS = 2, LARGE = 1 << 18 }; /* elements: beyond what caches keep between runs */
  byte_source b;
  const ir_value *x = n->in[0], *w = n->in[1], *y = n->out[0];
  bool gemm = ir_node_is(n, "Gemm");
  if (x->dtype != TN_F32 || !w->packed || w->rank != 2 || !ir_static(y) || !ir_static(w) || ir_value_elements(g->ctx, w) < LARGE || ir_attr_get_int(n, "transA", 0)) return;
  if (ir_value_elements(g->ctx, y) > ROWS * ir_dim(g->ctx, y, y->rank - 1) || !byte_source_of(g, n->in[1], is_byte, &b)) return;
  if (gemm && ir_attr_get_int(n, "transB", 0)) b.v = turned(g, n, b.v, "transB"), b.axis = b.axis < 0 ? -1 : 1 - b.axis;
  if (b.axis == 0) return;
  ir_value *v = lw_node(g, n, "tenon:MatMulWide", 2, (ir_value *[]){n->in[0], b.v});
  if (b.scale) v = lw_op2(g, n, "Mul", v, wide_scale(g, n, &b, y->rank - 1, y->rank));
  lw_replace(g, n, 0, gemm ? gemm_rest(g, n, v) : v);
}

void lw_keep_byte_weights(tn_ctx *ctx, ir_graph *g) {
  (void)ctx;
  find_packed(g);
  for (int i = 0, count = g->nnodes; i < count; i++) {
    ir_node *n = g->nodes[i];
    if (!n->dead && (ir_node_is(n, "MatMul") || ir_node_is(n, "Gemm"))) row_product(g, n);
  }
  ir_graph_sort(g);
  ir_graph_analyse(g);
}
