/* ops_attention.c — Attention and RotaryEmbedding.
 *
 *   scores = MatMul(q * scale, k')      [B, H, S, T]
 *   p      = tenon:AttentionSoftmax     softcap, mask, causality, window, lengths: one pass
 *   y      = MatMul(p, v)
 *
 * Grouped heads need no repeated keys: queries of one group are rows of one product. */
#include "lower/attention.h"
#include "lower/grad.h"
#include "lower/rowop.h"
#include <math.h>
#include <string.h>

/* ---- tenon AttentionSoftmax: scores, mask, lengths -> probabilities, shown scores ---- */

static void softmax_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  lw_need_rank(ctx, n, 0, 4);
  if (!ir_is_float(x->dtype)) lw_bad(ctx, n, "scores of type %s", ir_dtype_name(x->dtype));
  if (lw_has(n, 1)) {
    const ir_value *m = n->in[1];
    bool pads = ir_attr_get_int(n, "pads_mask", 0) != 0;
    if (m->rank > 4) lw_bad(ctx, n, "the mask has rank %d", m->rank);
    for (int i = 0; i < m->rank; i++) {
      ix d = m->dims[i], e = x->dims[4 - m->rank + i];
      int64_t have, want;
      if (!ix_const_value(d, &have) || !ix_const_value(e, &want) || have == want) continue;
      if (i == m->rank - 1 && pads ? have > want : have != 1)
        lw_bad(ctx, n, "axis %d of the mask has extent %lld, the scores %lld", i, (long long)have, (long long)want);
    }
  }
  if (lw_has(n, 2)) {
    lw_need_integer(ctx, n, 2);
    lw_need_rank(ctx, n, 2, 1);
    ix d = n->in[2]->dims[0];
    if (d != x->dims[0] && ix_is_const(d) && ix_is_const(x->dims[0])) lw_bad(ctx, n, "%s lengths for a batch of %s", ix_print(ctx, d), ix_print(ctx, x->dims[0]));
  }
  lw_set_like(n, 0, x->dtype, x);
  lw_set_like(n, 1, x->dtype, x);
}

/* Where element `index` of the scores stands in [batch, head, query, key], and their extents. Axes between the batch and the
 * queries, such as the heads of each group, are counted together as heads. */
static void place_of(tn_ctx *ctx, const ir_value *s, const ix *index, ix at[4], ix dims[4]) {
  int last = s->rank - 2;
  at[0] = at[1] = ix_index(ctx, 0), dims[0] = dims[1] = ix_index(ctx, 1);
  if (last > 0) at[0] = index[0], dims[0] = s->dims[0];
  for (int i = 1; i < last; i++) at[1] = ix_add(ctx, ix_mul(ctx, at[1], s->dims[i]), index[i]), dims[1] = ix_mul(ctx, dims[1], s->dims[i]);
  for (int i = 0; i < 2; i++) at[2 + i] = index[last + i], dims[2 + i] = s->dims[last + i];
}

/* The score x. */
static ix capped(tn_ctx *ctx, const ir_node *n, tn_dtype t, ix x) {
  double cap = (float)ir_attr_get_float(n, "softcap", 0);
  if (cap == 0) return x;
  return ix_mul(ctx, ix_unary(ctx, IX_TANH, ix_div(ctx, x, ix_float(ctx, t, cap))), ix_float(ctx, t, cap));
}

/* The score x at `index` with everything that hides or moves it; -inf where nothing may be seen. */
static ix biased(lw_build *b, ir_node *n, tn_dtype t, const ix *index, ix x) {
  tn_ctx *ctx = lw_ctx(b);
  ix place[4], dims[4], seen = ix_bool(ctx, true), minus = ix_float(ctx, t, -INFINITY), query, key;
  int64_t left = ir_attr_get_int(n, "left", -1), right = ir_attr_get_int(n, "right", -1);
  bool causal = ir_attr_get_int(n, "causal", 0) != 0;
  ix offset = ix_index(ctx, ir_attr_get_int(n, "offset", 0));
  place_of(ctx, n->in[0], index, place, dims);
  x = capped(ctx, n, t, x);
  key = place[3];
  if (lw_has(n, 2)) {
    ix length = ix_cast(ctx, TN_INDEX, lw_in(b, n, 2, index));
    seen = ix_lt(ctx, key, length);
    if (!ir_attr_get_int(n, "fixed_offset", 0)) offset = ix_sub(ctx, length, dims[2]);
  }
  query = ix_add(ctx, place[2], offset);
  if (causal) seen = ix_and(ctx, seen, ix_le(ctx, key, query));
  if (left >= 0) seen = ix_and(ctx, seen, ix_le(ctx, query, ix_addi(ctx, key, left)));
  if (right >= 0) seen = ix_and(ctx, seen, ix_le(ctx, key, ix_addi(ctx, query, right)));
  if (!lw_has(n, 1)) return ix_select(ctx, seen, x, minus);
  const ir_value *m = n->in[1];
  ix at[4], zero = ix_index(ctx, 0);
  bool cut = false;
  for (int i = 0; i < m->rank; i++) {
    int a = 4 - m->rank + i;
    at[i] = place[a];
    if (m->dims[i] == dims[a]) continue;
    cut = i == m->rank - 1 && ir_attr_get_int(n, "pads_mask", 0); /* columns beyond the mask are hidden */
    at[i] = cut ? ix_min(ctx, place[a], ix_max(ctx, zero, ix_addi(ctx, m->dims[i], -1))) : zero;
    if (cut) seen = ix_and(ctx, seen, ix_lt(ctx, place[a], m->dims[i]));
  }
  if (cut && ix_is_int(m->dims[m->rank - 1], 0)) return minus;
  ix e = lw_in(b, n, 1, at);
  if (e->dtype == TN_BOOL) return ix_select(ctx, seen, ix_select(ctx, e, x, minus), minus);
  e = ix_cast(ctx, t, e);
  /* -inf in the mask hides, whatever the score is */
  return ix_select(ctx, seen, ix_select(ctx, ix_eq(ctx, e, minus), minus, ix_add(ctx, x, e)), minus);
}

/* v as dtype `precision` keeps it. */
static ix rounded(tn_ctx *ctx, tn_dtype precision, ix v) {
  return lw_compute_type(precision) == precision ? v : ix_cast(ctx, (tn_dtype)v->dtype, ix_cast(ctx, precision, v));
}

static ix row_load(lw_rows *r) {
  tn_ctx *ctx = lw_ctx(r->b);
  tn_dtype p = (tn_dtype)ir_attr_get_int(r->n, "precision", TN_NONE);
  ix score = ib_let(lw_b(r->b), "s", ix_cast(ctx, r->type, lw_in(r->b, r->n, 0, r->index))); /* loaded even where it is hidden: no masks */
  ix x = rounded(ctx, r->n->in[0]->dtype, biased(r->b, r->n, r->type, r->index, score));
  return p == TN_NONE ? x : rounded(ctx, p, x);
}

static void softmax_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *ib = lw_b(b);
  tn_dtype t = n->in[0]->dtype, p = (tn_dtype)ir_attr_get_int(n, "precision", TN_NONE), kind = p == TN_NONE ? t : p;
  lw_rows r = {.b = b, .n = n, .rank = 4, .type = p == TN_F64 ? p : lw_compute_type(t), .dims = n->in[0]->dims, .in_row = {0, 0, 0, true}, .load = row_load};
  lw_rows_open(&r, true);
  ix minus = ix_float(ctx, r.type, -INFINITY), zero = lw_zero(ctx, r.type), one = ix_float(ctx, r.type, 1);
  ir_buf *max = ib_local(ib, "max", r.type, minus), *acc = ib_local(ib, "sum", r.type, zero);
  lw_rows_pass(&r);
  ib_update(ib, max, NULL, IR_MAX, lw_rows_x(&r));
  if (lw_wants(b, n, 1)) {
    bool cap = ir_attr_get_int(n, "show", 0) == LW_SCORES_CAPPED;
    ix s = ib_let(ib, "s", ix_cast(ctx, r.type, lw_in(b, n, 0, r.index)));
    lw_out(b, n, 1, r.index, ix_cast(ctx, t, cap ? capped(ctx, n, r.type, s) : biased(b, n, r.type, r.index, s)));
  }
  lw_rows_pass_end(&r);
  ix top = ib_get(ib, max);
  top = ib_let(ib, "top", ix_select(ctx, ix_eq(ctx, top, minus), zero, top)); /* nothing to see: exp(-inf) all along */
  lw_rows_pass(&r);
  ix e = ib_let(ib, "e", rounded(ctx, kind, ix_unary(ctx, IX_EXP, rounded(ctx, kind, ix_sub(ctx, lw_rows_x(&r), top)))));
  bool kept = lw_rows_put(&r, e);
  ib_update(ib, acc, NULL, IR_ADD, e);
  lw_rows_pass_end(&r);
  ix sum = rounded(ctx, kind, ib_get(ib, acc));
  bool narrow = lw_compute_type(kind) != kind;
  sum = ix_select(ctx, ix_eq(ctx, sum, zero), one, sum);
  sum = ib_let(ib, "scale", narrow ? sum : ix_div(ctx, one, sum));
  lw_rows_pass(&r);
  ix x = lw_rows_x(&r);
  if (!kept) x = rounded(ctx, kind, ix_unary(ctx, IX_EXP, rounded(ctx, kind, ix_sub(ctx, x, top))));
  x = narrow ? ix_div(ctx, x, sum) : ix_mul(ctx, x, sum);
  lw_out(b, n, 0, r.index, ix_cast(ctx, t, rounded(ctx, kind, x)));
  lw_rows_pass_end(&r);
  lw_rows_close(&r);
}

/* ---- tenon AttentionScores: scores, mask, lengths -> scores that a softmax takes; what AttentionSoftmax does to them, for
 * the one kernel of attend.h. Elementwise, for inference alone. ---- */

static void scores_infer(tn_ctx *ctx, ir_node *n) {
  if (!ir_is_float(n->in[0]->dtype) || n->in[0]->rank < 2) lw_bad(ctx, n, "scores must be matrices of floats");
  lw_set_like(n, 0, n->in[0]->dtype, n->in[0]);
}

static ix scores_value(lw_build *b, ir_node *n, int out, const ix *index) {
  tn_ctx *ctx = lw_ctx(b);
  tn_dtype t = n->in[0]->dtype, c = lw_compute_type(t);
  (void)out;
  return ix_cast(ctx, t, biased(b, n, c, index, ix_cast(ctx, c, lw_in(b, n, 0, index))));
}

/* p = softmax(z): dz = p (dy - sum dy p), and what the shown scores got; hidden scores have p = 0. Then back
 * through the cap, x = cap tanh(s / cap), and to a mask of numbers. */
static void softmax_grad(lw_grad *d) {
  ir_graph *g = d->g;
  ir_node *n = d->n;
  ir_value *p = n->out[0], *dy = d->dy[0], *dz = NULL, *shown = n->nout > 1 ? d->dy[1] : NULL, *dx;
  const int64_t last = 3;
  if (dy) dz = lw_op2(g, n, "Mul", p, lw_op2(g, n, "Sub", dy, lw_grad_sum(g, n, lw_op2(g, n, "Mul", dy, p), 1, &last, true)));
  bool biased_shown = shown && ir_attr_get_int(n, "show", 0) != LW_SCORES_CAPPED;
  if (biased_shown) { /* -inf stays -inf */
    ir_value *seen = lw_op3(g, n, "Where", lw_op2(g, n, "Greater", n->out[1], lw_number(g, dy ? dy : shown, -INFINITY)), shown, lw_number(g, shown, 0));
    dz = dz ? lw_op2(g, n, "Add", dz, seen) : seen;
  }
  if (lw_has(n, 1) && d->wanted[1] && dz) {
    ir_value *mask = dz;
    int64_t columns = ir_dim(d->ctx, n->in[1], -1);
    if (ir_attr_get_int(n, "pads_mask", 0) && columns != ir_dim(d->ctx, dz, 3)) mask = lw_slice(g, n, dz, 3, 0, columns);
    lw_grad_add(d, 1, mask);
  }
  dx = dz;
  if (shown && !biased_shown) dx = dx ? lw_op2(g, n, "Add", dx, shown) : shown;
  double cap = (float)ir_attr_get_float(n, "softcap", 0);
  if (cap != 0 && dx) {
    ir_value *t = lw_op1(g, n, "Tanh", lw_op2(g, n, "Div", n->in[0], lw_number(g, p, cap)));
    dx = lw_op2(g, n, "Mul", dx, lw_op2(g, n, "Sub", lw_number(g, p, 1), lw_op2(g, n, "Mul", t, t)));
  }
  lw_grad_add(d, 0, dx);
}

/* ---- attention as nodes ---- */

ir_value *lw_split_heads(ir_graph *g, ir_node *n, ir_value *v, int64_t heads) {
  int64_t dims[4] = {ir_dim(g->ctx, v, 0), ir_dim(g->ctx, v, 1), heads, ir_dim(g->ctx, v, 2) / heads};
  return lw_transpose(g, n, lw_reshape(g, n, v, 4, dims), (int64_t[]){0, 2, 1, 3});
}
ir_value *lw_join_heads(ir_graph *g, ir_node *n, ir_value *v) {
  int64_t dims[3] = {ir_dim(g->ctx, v, 0), ir_dim(g->ctx, v, 2), ir_dim(g->ctx, v, 1) * ir_dim(g->ctx, v, 3)};
  return lw_reshape(g, n, lw_transpose(g, n, v, (int64_t[]){0, 2, 1, 3}), 3, dims);
}

enum { FEW_QUERIES = 16 }; /* per group of heads: fewer than it takes to pay for turning the keys */

ir_value *lw_attend(ir_graph *g, ir_node *n, lw_attention *a) {
  tn_ctx *ctx = g->ctx;
  tn_dtype t = a->q->dtype;
  int64_t B = ir_dim(ctx, a->q, 0), H = ir_dim(ctx, a->q, 1), S = ir_dim(ctx, a->q, 2), D = ir_dim(ctx, a->q, 3);
  int64_t G = ir_dim(ctx, a->k, 1), T = ir_dim(ctx, a->k, 2), V = ir_dim(ctx, a->v, 3);
  ir_value *q = a->q, *k = a->k, *s;
  if (lw_compute_type(t) == t) q = lw_op2(g, n, "Mul", q, lw_number(g, q, a->scale));
  else { /* half each: q * scale may be too small, q k too large for f16 */
    ir_value *root = lw_number(g, q, sqrt(a->scale));
    q = lw_op2(g, n, "Mul", q, root);
    k = lw_op2(g, n, "Mul", k, root);
  }
  if (G == 0) lw_bad(ctx, n, "keys without heads");
  q = lw_reshape(g, n, q, 4, (int64_t[]){B, G, H / G * S, D});
  if (H / G * S <= FEW_QUERIES) { /* reads the keys once, as they are */
    ir_node *m = lw_node_n(g, n, "Einsum", 2, (ir_value *[]){q, k}, 1);
    ir_attr_string(m, "equation", "bgmd,bgnd->bgmn");
    ir_infer(ctx, m);
    s = m->out[0];
  } else s = lw_op2(g, n, "MatMul", q, lw_transpose(g, n, k, (int64_t[]){0, 1, 3, 2}));
  s = lw_reshape(g, n, s, 4, (int64_t[]){B, H, S, T});
  bool shown = a->wants_scores && (a->show == LW_SCORES_BIASED || (a->show == LW_SCORES_CAPPED && a->softcap != 0));
  ir_node *m = lw_node_n(g, n, "tenon:AttentionSoftmax", 3, (ir_value *[]){s, a->mask, a->lengths}, shown ? 2 : 1);
  ir_attr_int(m, "causal", a->causal);
  ir_attr_int(m, "offset", a->offset);
  ir_attr_int(m, "fixed_offset", a->fixed_offset);
  ir_attr_int(m, "left", a->left);
  ir_attr_int(m, "right", a->right);
  ir_attr_int(m, "pads_mask", a->pads_mask);
  ir_attr_float(m, "softcap", a->softcap);
  if (a->precision != TN_NONE) ir_attr_int(m, "precision", a->precision);
  ir_attr_int(m, "show", a->show);
  ir_infer(ctx, m);
  if (a->wants_scores) a->scores = shown ? m->out[1] : a->show == LW_SCORES_SOFTMAX ? m->out[0] : s;
  ir_value *p = lw_reshape(g, n, m->out[0], 4, (int64_t[]){B, G, H / G * S, T});
  return lw_reshape(g, n, lw_op2(g, n, "MatMul", p, a->v), 4, (int64_t[]){B, H, S, V});
}

/* ---- Attention: Q, K, V, mask, past key, past value, lengths -> Y, present key, present value, scores ---- */

typedef struct shape {
  ix batch, heads, groups, queries, keys, depth, value_depth; /* keys: with the past */
  ix past;
} shape;

static ix per_head(tn_ctx *ctx, const ir_node *n, const ir_value *v, int64_t heads) {
  int64_t d;
  if (ix_const_value(v->dims[2], &d) && d % heads != 0) lw_bad(ctx, n, "%lld columns of '%s' do not divide into %lld heads", (long long)d, v->name, (long long)heads);
  return ix_divi(ctx, v->dims[2], heads);
}

static void need_equal(tn_ctx *ctx, const ir_node *n, const char *what, ix a, ix b) {
  if (a != b && ix_is_const(a) && ix_is_const(b)) lw_bad(ctx, n, "%s: %s and %s", what, ix_print(ctx, a), ix_print(ctx, b));
}

static shape shape_of(tn_ctx *ctx, const ir_node *n) {
  const ir_value *q = n->in[0], *k = n->in[1], *v = n->in[2];
  shape s = {.batch = q->dims[0], .past = ix_index(ctx, 0)};
  if (q->rank == 3) {
    int64_t h = ir_attr_get_int(n, "q_num_heads", 0), e = ir_attr_get_int(n, "kv_num_heads", 0);
    if (h < 1 || e < 1) lw_bad(ctx, n, "3-D inputs need q_num_heads and kv_num_heads");
    s.heads = ix_index(ctx, h);
    s.groups = ix_index(ctx, e);
    s.queries = q->dims[1];
    s.keys = k->dims[1];
    s.depth = per_head(ctx, n, q, h);
    need_equal(ctx, n, "columns per head of Q and K", s.depth, per_head(ctx, n, k, e));
    s.value_depth = per_head(ctx, n, v, e);
    need_equal(ctx, n, "rows of K and V", s.keys, v->dims[1]);
  } else {
    s.heads = q->dims[1];
    s.groups = k->dims[1];
    s.queries = q->dims[2];
    s.keys = k->dims[2];
    s.depth = q->dims[3];
    need_equal(ctx, n, "columns of Q and K", s.depth, k->dims[3]);
    s.value_depth = v->dims[3];
    need_equal(ctx, n, "heads of K and V", s.groups, v->dims[1]);
    need_equal(ctx, n, "rows of K and V", s.keys, v->dims[2]);
  }
  need_equal(ctx, n, "batches of Q and K", s.batch, k->dims[0]);
  need_equal(ctx, n, "batches of Q and V", s.batch, v->dims[0]);
  int64_t h, e;
  if (ix_const_value(s.heads, &h) && ix_const_value(s.groups, &e) && (e < 1 || h % e != 0))
    lw_bad(ctx, n, "%lld heads of queries, %lld of keys", (long long)h, (long long)e);
  if (lw_has(n, 4)) {
    s.past = n->in[4]->dims[2];
    s.keys = ix_add(ctx, s.past, s.keys);
  }
  return s;
}

static void attention_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *q = n->in[0];
  if (q->rank != 3 && q->rank != 4) lw_bad(ctx, n, "Q has rank %d, not 3 or 4", q->rank);
  for (int k = 0; k < 3; k++) {
    lw_need_rank(ctx, n, k, q->rank);
    if (!ir_is_float(n->in[k]->dtype)) lw_bad(ctx, n, "input '%s' of type %s", n->in[k]->name, ir_dtype_name(n->in[k]->dtype));
  }
  lw_need_same_type(ctx, n, 0, 1);
  if (lw_has(n, 4) != lw_has(n, 5)) lw_bad(ctx, n, "one of past_key and past_value is missing");
  if (lw_has(n, 4) && lw_has(n, 6)) lw_bad(ctx, n, "nonpad_kv_seqlen and past_key exclude each other");
  if (lw_has(n, 4))
    for (int k = 4; k < 6; k++) {
      lw_need_rank(ctx, n, k, 4);
      lw_need_same_type(ctx, n, k, k - 3);
    }
  int64_t mode = ir_attr_get_int(n, "qk_matmul_output_mode", 0);
  if (mode < 0 || mode > 3) lw_bad(ctx, n, "qk_matmul_output_mode %lld", (long long)mode);
  if (ir_attr_get_int(n, "left_window_size", -1) < -1 || ir_attr_get_int(n, "right_window_size", -1) < -1) lw_bad(ctx, n, "a window below -1");
  if (ir_attr_get_float(n, "softcap", 0) < 0) lw_bad(ctx, n, "softcap %g", ir_attr_get_float(n, "softcap", 0));
  shape s = shape_of(ctx, n);
  if (q->rank == 3) lw_set(n, 0, q->dtype, 3, (ix[]){s.batch, s.queries, ix_mul(ctx, s.heads, s.value_depth)});
  else lw_set(n, 0, q->dtype, 4, (ix[]){s.batch, s.heads, s.queries, s.value_depth});
  lw_set(n, 1, n->in[1]->dtype, 4, (ix[]){s.batch, s.groups, s.keys, s.depth});
  lw_set(n, 2, n->in[2]->dtype, 4, (ix[]){s.batch, s.groups, s.keys, s.value_depth});
  lw_set(n, 3, q->dtype, 4, (ix[]){s.batch, s.heads, s.queries, s.keys});
}

static void attention_expand(ir_graph *g, ir_node *n) {
  tn_ctx *ctx = g->ctx;
  shape s = shape_of(ctx, n);
  bool flat = n->in[0]->rank == 3;
  lw_attention a = {.q = n->in[0], .k = n->in[1], .v = n->in[2], .pads_mask = n->opset >= 24};
  if (flat) {
    a.q = lw_split_heads(g, n, a.q, ix_need_const(ctx, s.heads, "q_num_heads"));
    a.k = lw_split_heads(g, n, a.k, ix_need_const(ctx, s.groups, "kv_num_heads"));
    a.v = lw_split_heads(g, n, a.v, ix_need_const(ctx, s.groups, "kv_num_heads"));
  }
  if (lw_has(n, 4)) {
    a.k = lw_concat(g, n, 2, 2, (ir_value *[]){n->in[4], a.k});
    a.v = lw_concat(g, n, 2, 2, (ir_value *[]){n->in[5], a.v});
  }
  ir_value *k = a.k, *v = a.v;
  a.v = lw_cast_node(g, n, a.v, a.q->dtype);
  if (lw_has(n, 3)) a.mask = n->in[3];
  if (lw_has(n, 6)) a.lengths = n->in[6];
  a.causal = ir_attr_get_int(n, "is_causal", 0) != 0;
  a.offset = ix_need_const(ctx, s.past, "past_sequence_length");
  a.left = ir_attr_get_int(n, "left_window_size", -1);
  a.right = ir_attr_get_int(n, "right_window_size", -1);
  a.scale = ir_attr_get_float(n, "scale", 1 / sqrt((double)ix_need_const(ctx, s.depth, "head_size")));
  a.softcap = ir_attr_get_float(n, "softcap", 0);
  if (ir_attr_get_int(n, "softmax_precision", 0)) a.precision = lw_type_attr(ctx, n, "softmax_precision", TN_NONE);
  a.show = (lw_scores)ir_attr_get_int(n, "qk_matmul_output_mode", 0);
  a.wants_scores = n->nout > 3 && n->out[3];
  ir_value *y = lw_attend(g, n, &a);
  if (flat) y = lw_join_heads(g, n, y);
  if (a.wants_scores) lw_replace(g, n, 3, a.scores);
  if (n->nout > 2 && n->out[2]) lw_replace(g, n, 2, v);
  if (n->nout > 1 && n->out[1]) lw_replace(g, n, 1, k);
  if (n->out[0]) lw_replace(g, n, 0, y);
}

/* ---- RotaryEmbedding ----
 *
 * Pairs (x1, x2) of a head's first `rotated` columns turn by the angle of their place:
 * (c x1 - s x2, s x1 + c x2). Pairs are halves apart, or neighbours when interleaved. */

typedef struct rotary {
  bool flat;              /* [B, S, H * D], else [B, H, S, D] */
  int cos, sin, place;    /* inputs */
  ix batch, heads, rows, depth, rotated;
  bool interleaved;
} rotary;

static rotary rotary_of(tn_ctx *ctx, const ir_node *n) {
  bool contrib = n->op->domain && *n->op->domain; /* com.microsoft: X, positions, cos, sin */
  rotary r = {.flat = n->in[0]->rank == 3, .cos = contrib ? 2 : 1, .sin = contrib ? 3 : 2, .place = contrib ? 1 : 3};
  const ir_value *x = n->in[0], *cos = n->in[r.cos];
  if (x->rank != 3 && x->rank != 4) lw_bad(ctx, n, "the input has rank %d, not 3 or 4", x->rank);
  int64_t heads = ir_attr_get_int(n, "num_heads", 0), rotated = ir_attr_get_int(n, "rotary_embedding_dim", 0), d;
  if (heads < 0 || rotated < 0 || rotated % 2) lw_bad(ctx, n, "num_heads %lld, rotary_embedding_dim %lld", (long long)heads, (long long)rotated);
  r.batch = x->dims[0];
  if (r.flat) {
    r.rows = x->dims[1];
    if (!heads && contrib && ix_const_value(cos->dims[cos->rank - 1], &d) && d > 0 && ix_is_const(x->dims[2])) heads = x->dims[2]->u.i / (2 * d);
    if (heads < 1) lw_bad(ctx, n, "3-D inputs need num_heads");
    r.heads = ix_index(ctx, heads);
    r.depth = per_head(ctx, n, x, heads);
  } else {
    r.heads = x->dims[1];
    r.rows = x->dims[2];
    r.depth = x->dims[3];
  }
  r.rotated = rotated ? ix_index(ctx, rotated) : r.depth;
  if (ix_const_value(r.depth, &d) && (rotated > d || (!rotated && d % 2))) lw_bad(ctx, n, "heads of %lld columns, rotary_embedding_dim %lld", (long long)d, (long long)rotated);
  r.interleaved = ir_attr_get_int(n, "interleaved", 0) != 0;
  return r;
}

static void rotary_infer(tn_ctx *ctx, ir_node *n) {
  rotary r = rotary_of(ctx, n);
  bool placed = lw_has(n, r.place);
  if (!ir_is_float(n->in[0]->dtype)) lw_bad(ctx, n, "an input of type %s", ir_dtype_name(n->in[0]->dtype));
  if (ir_attr_get_int(n, "is_packed_batching", 0)) lw_unsupported(ctx, n, "is_packed_batching");
  if (ir_attr_get_float(n, "scale", 1) != 1) lw_unsupported(ctx, n, "scale %g", ir_attr_get_float(n, "scale", 1));
  for (int k = r.cos; k <= r.sin; k++) {
    const ir_value *c = n->in[k];
    lw_need_same_type(ctx, n, 0, k);
    lw_need_rank(ctx, n, k, placed ? 2 : 3);
    need_equal(ctx, n, "columns of the cache", c->dims[c->rank - 1], ix_divi(ctx, r.rotated, 2));
    if (!placed) need_equal(ctx, n, "rows of the cache", c->dims[1], r.rows);
    if (!placed && !ix_is_int(c->dims[0], 1)) need_equal(ctx, n, "batches of the cache", c->dims[0], r.batch);
    if (placed && ix_is_int(c->dims[0], 0)) lw_bad(ctx, n, "the cache is empty");
  }
  if (placed) {
    const ir_value *p = n->in[r.place];
    lw_need_integer(ctx, n, r.place);
    if (p->rank == 2) {
      need_equal(ctx, n, "rows of the positions", p->dims[1], r.rows);
      if (!ix_is_int(p->dims[0], 1)) need_equal(ctx, n, "batches of the positions", p->dims[0], r.batch);
    } else if (r.place != 1 || p->rank != 1 || !ix_is_int(p->dims[0], 1)) lw_bad(ctx, n, "positions of rank %d", p->rank);
  }
  lw_set_like(n, 0, n->in[0]->dtype, n->in[0]);
}

static void rotary_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *ib = lw_b(b);
  rotary r = rotary_of(ctx, n);
  tn_dtype t = n->in[0]->dtype, ct = lw_compute_type(t);
  ix batch = ib_loop(ib, "b", r.batch), head = NULL, row, zero = ix_index(ctx, 0), half = ix_divi(ctx, r.rotated, 2);
  if (!r.flat) head = ib_loop(ib, "h", r.heads);
  row = ib_loop(ib, "s", r.rows);
  if (r.flat) head = ib_loop(ib, "h", r.heads);
  ix at[3] = {batch, row};
  int last = 2;
  if (lw_has(n, r.place)) { /* rows of the cache by position; one number: that of the first row */
    const ir_value *p = n->in[r.place];
    ix place = p->rank == 1 ? ix_add(ctx, ix_cast(ctx, TN_INDEX, lw_in(b, n, r.place, &zero)), row)
                            : ix_cast(ctx, TN_INDEX, lw_in_bcast(b, n, r.place, 2, at));
    at[0] = ib_let(ib, "place", lw_clamp(ctx, place, zero, ix_addi(ctx, n->in[r.cos]->dims[0], -1)));
    last = 1;
  } else if (ix_is_int(n->in[r.cos]->dims[0], 1)) at[0] = zero;
  ix column = r.flat ? ix_mul(ctx, head, r.depth) : zero, index[2][4], x[2];
  ix i = ib_loop(ib, "i", half);
  at[last] = i;
  for (int k = 0; k < 2; k++) {
    ix d = ix_add(ctx, column, r.interleaved ? ix_addi(ctx, ix_muli(ctx, i, 2), k) : k ? ix_add(ctx, i, half) : i);
    if (r.flat) index[k][0] = batch, index[k][1] = row, index[k][2] = d;
    else index[k][0] = batch, index[k][1] = head, index[k][2] = row, index[k][3] = d;
    x[k] = ib_let(ib, "x", ix_cast(ctx, ct, lw_in(b, n, 0, index[k])));
  }
  ix c = ib_let(ib, "c", ix_cast(ctx, ct, lw_in(b, n, r.cos, at))), s = ib_let(ib, "sine", ix_cast(ctx, ct, lw_in(b, n, r.sin, at)));
  lw_out(b, n, 0, index[0], ix_cast(ctx, t, ix_sub(ctx, ix_mul(ctx, c, x[0]), ix_mul(ctx, s, x[1]))));
  lw_out(b, n, 0, index[1], ix_cast(ctx, t, ix_add(ctx, ix_mul(ctx, s, x[0]), ix_mul(ctx, c, x[1]))));
  ib_end(ib);
  if (r.rotated != r.depth) {
    ix d = ix_add(ctx, column, ib_for(ib, "rest", r.rotated, r.depth));
    ix rest[4] = {batch, r.flat ? row : head, r.flat ? d : row, d};
    lw_out(b, n, 0, rest, lw_in(b, n, 0, rest));
    ib_end(ib);
  }
  ib_end_n(ib, 3);
}

/* A rotation is undone by that of the opposite angle. */
static void rotary_grad(lw_grad *d) {
  ir_node *n = d->n;
  rotary r = rotary_of(d->ctx, n);
  for (int k = 1; k < n->nin; k++)
    if (d->wanted[k]) lw_unsupported(d->ctx, n, "the gradient of the table of angles");
  bool plain = !n->op->domain || !*n->op->domain;
  ir_node *m = lw_node_n(d->g, n, plain ? n->op->name : ir_format(d->ctx, "%s:%s", n->op->domain, n->op->name), n->nin, n->in, 1);
  m->in[0] = d->dy[0];
  m->in[r.sin] = lw_op1(d->g, n, "Neg", n->in[r.sin]);
  m->nattrs = n->nattrs;
  m->attrs = n->attrs;
  ir_infer(d->ctx, m);
  lw_grad_add(d, 0, m->out[0]);
}

#define ROTARY(DOMAIN, LEAST, ATTRS) \
  {.name = "RotaryEmbedding", .domain = DOMAIN, .kind = IR_OP_KERNEL, .since = 1, .min_in = LEAST, .max_in = 4, .min_out = 1, .max_out = 1, .attrs = "interleaved:i num_heads:i rotary_embedding_dim:i" ATTRS, .infer = rotary_infer, .build = rotary_build, .grad_build = rotary_grad}
#define SCORE_ATTRS "causal:i offset:i fixed_offset:i left:i right:i pads_mask:i softcap:f"
const ir_op lw_ops_attention[] = {
    {.name = "AttentionSoftmax", .domain = "tenon", .kind = IR_OP_REDUCTION, .since = 1, .min_in = 1, .max_in = 3, .min_out = 1, .max_out = 2,
     .attrs = SCORE_ATTRS " precision:i show:i", .infer = softmax_infer, .build = softmax_build, .grad_build = softmax_grad},
    {.name = "AttentionScores", .domain = "tenon", .kind = IR_OP_ELEMENTWISE, .since = 1, .min_in = 1, .max_in = 3, .min_out = 1, .max_out = 1, .attrs = SCORE_ATTRS, .infer = scores_infer, .value = scores_value},
    {.name = "Attention", .kind = IR_OP_COMPOSITE, .since = 23, .min_in = 3, .max_in = 7, .min_out = 1, .max_out = 4,
     .attrs = "is_causal:i kv_num_heads:i left_window_size:i q_num_heads:i qk_matmul_output_mode:i right_window_size:i scale:f softcap:f softmax_precision:i",
     .infer = attention_infer, .expand = attention_expand},
    ROTARY("", 3, ""),
    ROTARY("com.microsoft", 4, " scale:f is_packed_batching:i"),
    {0}};
