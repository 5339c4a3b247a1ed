/* ops_contrib_attention.c — Attention, MultiHeadAttention and GroupQueryAttention of com.microsoft. */
#include "lower/attention.h"
#include <math.h>
#include <string.h>

static void need_equal(tn_ctx *ctx, const ir_node *n, const char *what, ix a, ix b) {
  if (a != b && ix_is_const(a) && ix_is_const(b)) lw_bad(ctx, n, "%s: %s and %s", what, ix_print(ctx, a), ix_print(ctx, b));
}

static int64_t heads_of(tn_ctx *ctx, const ir_node *n, const char *attr) {
  int64_t h = ir_attr_get_int(n, attr, 0);
  if (h < 1 || h > INT32_MAX) lw_bad(ctx, n, "%s %lld", attr, (long long)h);
  return h;
}

/* Extent of one of `heads` equal parts. */
static ix part(tn_ctx *ctx, const ir_node *n, ix extent, int64_t heads) {
  int64_t d;
  if (ix_const_value(extent, &d) && d % heads != 0) lw_bad(ctx, n, "%lld columns do not divide into %lld parts", (long long)d, (long long)heads);
  return ix_divi(ctx, extent, heads);
}

/* ---- masks of keys: numbers that are added ---- */

static void check_mask(tn_ctx *ctx, const ir_node *n, int k, ix batch, ix keys) {
  if (!lw_has(n, k)) return;
  const ir_value *m = n->in[k];
  lw_need_integer(ctx, n, k);
  if (m->rank < 1 || m->rank > 3) lw_unsupported(ctx, n, "a mask of rank %d", m->rank);
  if (m->rank > 1) {
    need_equal(ctx, n, "columns of the mask", m->dims[m->rank - 1], keys);
    need_equal(ctx, n, "rows of the mask", m->dims[0], batch);
  } else if (m->dims[0] != batch && m->dims[0] != ix_muli(ctx, batch, 2)) lw_unsupported(ctx, n, "a 1-D mask of %s elements", ix_print(ctx, m->dims[0]));
}

/* Mask k as [B, 1, 1 or S, T]: 0 where keys may be seen, mask_filter_value elsewhere. A
 * vector holds the end of the valid keys of each sample, or all ends, then all starts. */
static ir_value *key_mask(ir_graph *g, ir_node *n, int k, int64_t keys, const ir_value *like) {
  tn_ctx *ctx = g->ctx;
  ir_value *m = n->in[k], *seen;
  if (m->rank == 1) {
    int64_t B = ir_dim(ctx, n->in[0], 0), one_key[2] = {B, 1};
    int32_t *place = IR_NEW_ARRAY(ctx, int32_t, keys + 1);
    for (int64_t i = 0; i < keys; i++) place[i] = (int32_t)i;
    ir_value *places = lw_cast_node(g, n, ir_graph_const(g, NULL, TN_I32, 1, &keys, place, false), m->dtype);
    bool starts = ir_dim(ctx, m, 0) != B;
    seen = lw_op2(g, n, "Less", places, lw_reshape(g, n, lw_slice(g, n, m, 0, 0, B), 2, one_key));
    if (starts) seen = lw_op2(g, n, "And", seen, lw_op2(g, n, "GreaterOrEqual", places, lw_reshape(g, n, lw_slice(g, n, m, 0, B, 2 * B), 2, one_key)));
  } else seen = lw_op2(g, n, "Greater", m, lw_number(g, m, 0));
  int64_t dims[4] = {ir_dim(ctx, seen, 0), 1, seen->rank == 3 ? ir_dim(ctx, seen, 1) : 1, keys};
  seen = lw_reshape(g, n, seen, 4, dims);
  return lw_op3(g, n, "Where", seen, lw_number(g, like, 0), lw_number(g, like, ir_attr_get_float(n, "mask_filter_value", -10000)));
}

static ir_value *plus(ir_graph *g, ir_node *n, ir_value *a, ir_value *b) { return a && b ? lw_op2(g, n, "Add", a, b) : a ? a : b; }

static void finish(ir_graph *g, ir_node *n, ir_value *y, ir_value *k, ir_value *v) {
  if (n->nout > 2 && n->out[2] && v) lw_replace(g, n, 2, v);
  if (n->nout > 1 && n->out[1]) lw_replace(g, n, 1, k);
  if (n->out[0]) lw_replace(g, n, 0, y);
}

/* ---- Attention: input [B, S, C], weights [C, q + k + v], bias, mask, past [2, B, H, P, D], added [B, H, S, T]
 *      -> output [B, S, v], present ---- */

typedef struct packed {
  int64_t heads, sizes[3]; /* columns of q, k, v */
  ix batch, rows, keys, past;
} packed;

static packed packed_of(tn_ctx *ctx, const ir_node *n) {
  const ir_value *x = n->in[0], *w = n->in[1];
  packed p = {.heads = heads_of(ctx, n, "num_heads"), .batch = x->dims[0], .rows = x->dims[1], .past = ix_index(ctx, 0)};
  const int64_t *sizes;
  int count = ir_attr_get_ints(n, "qkv_hidden_sizes", &sizes);
  int64_t columns = ir_dim(ctx, w, 1);
  if (count > 0 && count != 3) lw_bad(ctx, n, "%d qkv_hidden_sizes", count);
  if (count <= 0 && columns % 3) lw_bad(ctx, n, "%lld columns of weights for q, k and v", (long long)columns);
  for (int i = 0; i < 3; i++) {
    p.sizes[i] = count > 0 ? sizes[i] : columns / 3;
    if (p.sizes[i] < 1 || p.sizes[i] > columns || p.sizes[i] % p.heads) lw_bad(ctx, n, "%lld columns for %lld heads", (long long)p.sizes[i], (long long)p.heads);
  }
  if (p.sizes[0] != p.sizes[1] || p.sizes[0] + p.sizes[1] + p.sizes[2] != columns) lw_bad(ctx, n, "qkv_hidden_sizes do not fit the weights");
  if (lw_has(n, 4)) p.past = n->in[4]->dims[3];
  p.keys = ix_add(ctx, p.past, p.rows);
  return p;
}

static void attention_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  lw_need_rank(ctx, n, 0, 3);
  lw_need_rank(ctx, n, 1, 2);
  lw_need_same_type(ctx, n, 0, 1);
  if (!ir_is_float(x->dtype)) lw_bad(ctx, n, "an input of type %s", ir_dtype_name(x->dtype));
  need_equal(ctx, n, "columns of the input and rows of the weights", x->dims[2], n->in[1]->dims[0]);
  packed p = packed_of(ctx, n);
  if (ir_attr_get_int(n, "do_rotary", 0)) lw_unsupported(ctx, n, "do_rotary");
  if (ir_attr_get_int(n, "past_present_share_buffer", 0) || lw_has(n, 6)) lw_unsupported(ctx, n, "past and present in one buffer");
  if (lw_has(n, 2)) {
    lw_need_rank(ctx, n, 2, 1);
    need_equal(ctx, n, "extent of the bias", n->in[2]->dims[0], n->in[1]->dims[1]);
  }
  check_mask(ctx, n, 3, p.batch, p.keys);
  if (lw_has(n, 4)) {
    lw_need_rank(ctx, n, 4, 5);
    if (p.sizes[0] != p.sizes[2]) lw_bad(ctx, n, "a past needs keys and values of one size");
  }
  lw_set(n, 0, x->dtype, 3, (ix[]){p.batch, p.rows, ix_index(ctx, p.sizes[2])});
  lw_set(n, 1, x->dtype, 5, (ix[]){ix_index(ctx, 2), p.batch, ix_index(ctx, p.heads), p.keys, ix_index(ctx, p.sizes[1] / p.heads)});
}

static void attention_expand(ir_graph *g, ir_node *n) {
  tn_ctx *ctx = g->ctx;
  packed p = packed_of(ctx, n);
  lw_attention a = {.left = -1, .right = -1, .causal = ir_attr_get_int(n, "unidirectional", 0) != 0};
  ir_value *all = lw_op2(g, n, "MatMul", n->in[0], n->in[1]), *parts[3];
  if (lw_has(n, 2)) all = lw_op2(g, n, "Add", all, n->in[2]);
  int64_t from = 0, one = ix_need_const(ctx, p.batch, "batch"), depth = p.sizes[1] / p.heads;
  for (int i = 0; i < 3; from += p.sizes[i++]) parts[i] = lw_split_heads(g, n, lw_slice(g, n, all, 2, from, from + p.sizes[i]), p.heads);
  a.q = parts[0];
  if (lw_has(n, 4)) { /* past: keys, then values */
    a.offset = ix_need_const(ctx, p.past, "past_sequence_length");
    for (int i = 0; i < 2; i++) {
      ir_value *past = lw_reshape(g, n, lw_slice(g, n, n->in[4], 0, i, i + 1), 4, (int64_t[]){one, p.heads, a.offset, depth});
      parts[1 + i] = lw_concat(g, n, 2, 2, (ir_value *[]){past, parts[1 + i]});
    }
  }
  a.k = parts[1];
  a.v = parts[2];
  int64_t keys = ix_need_const(ctx, p.keys, "total_sequence_length");
  if (lw_has(n, 3)) a.mask = key_mask(g, n, 3, keys, a.q);
  a.mask = plus(g, n, a.mask, lw_has(n, 5) ? n->in[5] : NULL);
  a.scale = ir_attr_get_float(n, "scale", 0);
  if (a.scale == 0) a.scale = 1 / sqrt((double)depth);
  ir_value *y = lw_join_heads(g, n, lw_attend(g, n, &a)), *present = NULL;
  if (n->nout > 1 && n->out[1]) {
    if (p.sizes[1] != p.sizes[2]) lw_unsupported(ctx, n, "a present of keys and values that differ in size");
    int64_t dims[5] = {1, one, p.heads, keys, depth};
    present = lw_concat(g, n, 0, 2, (ir_value *[]){lw_reshape(g, n, a.k, 5, dims), lw_reshape(g, n, a.v, 5, dims)});
  }
  finish(g, n, y, present, NULL);
}

/* ---- MultiHeadAttention: query, key, value, bias, key mask, added, past key, past value
 *      -> output, present key, present value ----
 *
 * query [B, S, H D] or all three packed [B, S, H, 3, D]; key [B, T, H D], packed with the
 * values [B, T, H, 2, D], or ready [B, H, T, D]. */

typedef struct multi {
  int64_t heads;
  ix batch, rows, keys, past, depth, value_depth; /* keys without the past */
  bool ready;                                     /* keys and values are [B, H, T, D] */
} multi;

static multi multi_of(tn_ctx *ctx, const ir_node *n) {
  const ir_value *q = n->in[0], *k = lw_has(n, 1) ? n->in[1] : NULL, *v = lw_has(n, 2) ? n->in[2] : NULL;
  multi m = {.heads = heads_of(ctx, n, "num_heads"), .batch = q->dims[0], .rows = q->dims[1], .past = ix_index(ctx, 0)};
  if (q->rank == 5) {
    if (k || v || !ix_is_int(q->dims[2], m.heads) || !ix_is_int(q->dims[3], 3)) lw_bad(ctx, n, "a packed query must be [B, S, heads, 3, D], alone");
    m.keys = m.rows;
    m.depth = m.value_depth = q->dims[4];
  } else {
    if (q->rank != 3) lw_bad(ctx, n, "the query has rank %d", q->rank);
    m.depth = part(ctx, n, q->dims[2], m.heads);
    if (!k) lw_bad(ctx, n, "the key is missing");
    if (k->rank == 5) {
      if (v || !ix_is_int(k->dims[2], m.heads) || !ix_is_int(k->dims[3], 2)) lw_bad(ctx, n, "a packed key must be [B, T, heads, 2, D]");
      m.keys = k->dims[1];
      m.value_depth = k->dims[4];
    } else {
      m.ready = k->rank == 4;
      if (!v || v->rank != k->rank || (k->rank != 3 && !m.ready)) lw_bad(ctx, n, "key and value must have rank 3 or 4 both");
      m.keys = k->dims[m.ready ? 2 : 1];
      m.value_depth = m.ready ? v->dims[3] : part(ctx, n, v->dims[2], m.heads);
      need_equal(ctx, n, "rows of key and value", m.keys, v->dims[m.ready ? 2 : 1]);
      need_equal(ctx, n, "columns of query and key", m.depth, m.ready ? k->dims[3] : part(ctx, n, k->dims[2], m.heads));
    }
  }
  if (lw_has(n, 6) != lw_has(n, 7)) lw_bad(ctx, n, "one of past_key and past_value is missing");
  if (lw_has(n, 6)) {
    lw_need_rank(ctx, n, 6, 4);
    lw_need_rank(ctx, n, 7, 4);
    m.past = n->in[6]->dims[2];
  }
  return m;
}

static void multi_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *q = n->in[0];
  if (!ir_is_float(q->dtype)) lw_bad(ctx, n, "a query of type %s", ir_dtype_name(q->dtype));
  for (int k = 1; k < n->nin; k++)
    if (lw_has(n, k) && k != 4 && k < 8) lw_need_same_type(ctx, n, 0, k);
  if (lw_has(n, 8) || lw_has(n, 9)) lw_unsupported(ctx, n, "past and present in one buffer");
  multi m = multi_of(ctx, n);
  ix heads = ix_index(ctx, m.heads), total = ix_add(ctx, m.past, m.keys);
  check_mask(ctx, n, 4, m.batch, total);
  if (lw_has(n, 3)) {
    lw_need_rank(ctx, n, 3, 1);
    need_equal(ctx, n, "extent of the bias", n->in[3]->dims[0], ix_mul(ctx, heads, ix_add(ctx, ix_muli(ctx, m.depth, 2), m.value_depth)));
  }
  lw_set(n, 0, q->dtype, 3, (ix[]){m.batch, m.rows, ix_mul(ctx, heads, m.value_depth)});
  lw_set(n, 1, q->dtype, 4, (ix[]){m.batch, heads, total, m.depth});
  lw_set(n, 2, q->dtype, 4, (ix[]){m.batch, heads, total, m.value_depth});
  lw_set(n, 3, q->dtype, 4, (ix[]){m.batch, heads, m.rows, total});
}

/* Part `i` of `count` packed [B, S, H, count, D] as [B, H, S, D]. */
static ir_value *unpacked(ir_graph *g, ir_node *n, ir_value *v, int i) {
  int64_t dims[4] = {ir_dim(g->ctx, v, 0), ir_dim(g->ctx, v, 1), ir_dim(g->ctx, v, 2), ir_dim(g->ctx, v, 4)};
  return lw_transpose(g, n, lw_reshape(g, n, lw_slice(g, n, v, 3, i, i + 1), 4, dims), (int64_t[]){0, 2, 1, 3});
}

static void multi_expand(ir_graph *g, ir_node *n) {
  tn_ctx *ctx = g->ctx;
  multi m = multi_of(ctx, n);
  lw_attention a = {.left = -1, .right = -1, .causal = ir_attr_get_int(n, "unidirectional", 0) != 0};
  ir_value *q = n->in[0];
  if (q->rank == 5) {
    a.q = unpacked(g, n, q, 0);
    a.k = unpacked(g, n, q, 1);
    a.v = unpacked(g, n, q, 2);
  } else {
    a.q = lw_split_heads(g, n, q, m.heads);
    if (n->in[1]->rank == 5) {
      a.k = unpacked(g, n, n->in[1], 0);
      a.v = unpacked(g, n, n->in[1], 1);
    } else {
      a.k = m.ready ? n->in[1] : lw_split_heads(g, n, n->in[1], m.heads);
      a.v = m.ready ? n->in[2] : lw_split_heads(g, n, n->in[2], m.heads);
    }
  }
  int64_t depth = ix_need_const(ctx, m.depth, "head_size"), value_depth = ix_need_const(ctx, m.value_depth, "v_head_size");
  if (lw_has(n, 3)) { /* one bias for q, k, v in a row; ready keys have theirs */
    int64_t from = 0, size[3] = {depth, depth, value_depth};
    ir_value **to[3] = {&a.q, &a.k, &a.v};
    for (int i = 0; i < 3; from += m.heads * size[i++]) {
      if (i && m.ready) break;
      ir_value *bias = lw_slice(g, n, n->in[3], 0, from, from + m.heads * size[i]);
      *to[i] = lw_op2(g, n, "Add", *to[i], lw_reshape(g, n, bias, 3, (int64_t[]){m.heads, 1, size[i]}));
    }
  }
  if (lw_has(n, 6)) {
    a.k = lw_concat(g, n, 2, 2, (ir_value *[]){n->in[6], a.k});
    a.v = lw_concat(g, n, 2, 2, (ir_value *[]){n->in[7], a.v});
    a.offset = ix_need_const(ctx, m.past, "past_sequence_length");
  }
  if (lw_has(n, 4)) a.mask = key_mask(g, n, 4, ir_dim(ctx, a.k, 2), a.q);
  a.mask = plus(g, n, a.mask, lw_has(n, 5) ? n->in[5] : NULL);
  a.scale = ir_attr_get_float(n, "scale", 0);
  if (a.scale == 0) a.scale = 1 / sqrt((double)depth);
  a.wants_scores = n->nout > 3 && n->out[3];
  ir_value *y = lw_join_heads(g, n, lw_attend(g, n, &a));
  if (a.wants_scores) lw_replace(g, n, 3, a.scores);
  finish(g, n, y, a.k, a.v);
}

/* ---- GroupQueryAttention: query, key, value, past key, past value, last place of each sample, total
 *      length, cos, sin, positions, added -> output, present key, present value ----
 *
 * query [B, S, H D] or all three packed [B, S, (H + 2 G) D]. The past [B, G, P, D] is a buffer: sample b
 * has last[b] + 1 - S keys in it (none when the total length is S); the new ones go behind them. */

typedef struct grouped {
  int64_t heads, groups, batch, rows, depth, past, total, keys; /* keys: rows of the present */
  bool packed, first; /* first: nothing came before */
} grouped;

static grouped grouped_of(tn_ctx *ctx, const ir_node *n) {
  const ir_value *q = n->in[0];
  grouped s = {.heads = heads_of(ctx, n, "num_heads"), .groups = heads_of(ctx, n, "kv_num_heads"), .packed = !lw_has(n, 1)};
  lw_need_rank(ctx, n, 0, 3);
  if (s.heads % s.groups || lw_has(n, 1) != lw_has(n, 2)) lw_bad(ctx, n, "num_heads %lld, kv_num_heads %lld", (long long)s.heads, (long long)s.groups);
  if (lw_has(n, 3) != lw_has(n, 4)) lw_bad(ctx, n, "one of past_key and past_value is missing");
  if (!lw_has(n, 5) || !lw_has(n, 6)) lw_bad(ctx, n, "seqlens_k or total_sequence_length is missing");
  s.batch = ir_dim(ctx, q, 0);
  s.rows = ir_dim(ctx, q, 1);
  int64_t columns = ir_dim(ctx, q, 2), parts = s.packed ? s.heads + 2 * s.groups : s.heads;
  if (columns % parts) lw_bad(ctx, n, "%lld columns do not divide into %lld parts", (long long)columns, (long long)parts);
  s.depth = columns / parts;
  for (int k = 1; k < 3 && !s.packed; k++) {
    lw_need_rank(ctx, n, k, 3);
    need_equal(ctx, n, "rows of query and key", n->in[k]->dims[1], q->dims[1]);
    need_equal(ctx, n, "columns of the keys", n->in[k]->dims[2], ix_index(ctx, s.groups * s.depth));
  }
  for (int k = 3; k < 5 && lw_has(n, k); k++) {
    lw_need_rank(ctx, n, k, 4);
    need_equal(ctx, n, "heads of the past", n->in[k]->dims[1], ix_index(ctx, s.groups));
    need_equal(ctx, n, "columns of the past", n->in[k]->dims[3], ix_index(ctx, s.depth));
    s.past = ir_dim(ctx, n->in[k], 2);
  }
  s.total = lw_need_int(ctx, n, 6, "total_sequence_length");
  if (s.total < s.rows || s.total > INT32_MAX) lw_bad(ctx, n, "total_sequence_length %lld for %lld rows", (long long)s.total, (long long)s.rows);
  s.first = s.total == s.rows;
  s.keys = s.past > s.total ? s.past : s.total;
  return s;
}

static void grouped_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *q = n->in[0];
  if (!ir_is_float(q->dtype)) lw_bad(ctx, n, "a query of type %s", ir_dtype_name(q->dtype));
  for (int k = 1; k < 5; k++)
    if (lw_has(n, k)) lw_need_same_type(ctx, n, 0, k);
  if (ir_attr_get_int(n, "smooth_softmax", 0) > 0 || lw_has(n, 11)) lw_unsupported(ctx, n, "smooth_softmax");
  if (ir_attr_get_int(n, "qk_output", 0) || ir_attr_get_int(n, "kv_cache_bit_width", 0)) lw_unsupported(ctx, n, "qk_output or a quantised cache");
  grouped s = grouped_of(ctx, n);
  lw_need_integer(ctx, n, 5);
  if (ir_value_elements(ctx, n->in[5]) != s.batch) lw_bad(ctx, n, "%lld lengths for a batch of %lld", (long long)ir_value_elements(ctx, n->in[5]), (long long)s.batch);
  if (ir_attr_get_int(n, "do_rotary", 0) && (!lw_has(n, 7) || !lw_has(n, 8))) lw_bad(ctx, n, "do_rotary without cos_cache and sin_cache");
  lw_set(n, 0, q->dtype, 3, (ix[]){q->dims[0], q->dims[1], ix_index(ctx, s.heads * s.depth)});
  for (int k = 1; k < 3; k++) lw_set(n, k, q->dtype, 4, (ix[]){q->dims[0], ix_index(ctx, s.groups), ix_index(ctx, s.keys), ix_index(ctx, s.depth)});
}

static ir_value *rotated(ir_graph *g, ir_node *n, const grouped *s, ir_value *v, int64_t heads, ir_value *places) {
  ir_node *m = lw_node_n(g, n, "com.microsoft:RotaryEmbedding", 4, (ir_value *[]){v, places, n->in[7], n->in[8]}, 1);
  int64_t width = 2 * ir_dim(g->ctx, n->in[7], 1);
  ir_attr_int(m, "num_heads", heads);
  ir_attr_int(m, "interleaved", ir_attr_get_int(n, "rotary_interleaved", 0));
  if (width != s->depth) ir_attr_int(m, "rotary_embedding_dim", width);
  ir_infer(g->ctx, m);
  return m->out[0];
}

static void grouped_expand(ir_graph *g, ir_node *n) {
  tn_ctx *ctx = g->ctx;
  grouped s = grouped_of(ctx, n);
  lw_attention a = {.right = -1, .causal = true, .softcap = ir_attr_get_float(n, "softcap", 0)};
  ir_value *part[3] = {n->in[0], NULL, NULL};
  if (s.packed) {
    int64_t at[4] = {0, s.heads * s.depth, (s.heads + s.groups) * s.depth, (s.heads + 2 * s.groups) * s.depth};
    for (int i = 0; i < 3; i++) part[i] = lw_slice(g, n, n->in[0], 2, at[i], at[i + 1]);
  } else part[1] = n->in[1], part[2] = n->in[2];
  ir_value *last = lw_reshape(g, n, lw_cast_node(g, n, n->in[5], TN_I64), 1, &s.batch), *before = NULL;
  ir_value *lengths = lw_op2(g, n, "Add", last, ir_graph_scalar(g, NULL, TN_I64, 1));
  if (!s.first) before = lw_op2(g, n, "Sub", lengths, ir_graph_scalar(g, NULL, TN_I64, (double)s.rows));
  if (ir_attr_get_int(n, "do_rotary", 0)) {
    int64_t *row = IR_NEW_ARRAY(ctx, int64_t, s.rows + 1);
    for (int64_t i = 0; i < s.rows; i++) row[i] = i;
    ir_value *places = lw_has(n, 9) ? n->in[9] : ir_graph_const(g, NULL, TN_I64, 2, (int64_t[]){1, s.rows}, row, false);
    if (!lw_has(n, 9) && before) places = lw_op2(g, n, "Add", lw_reshape(g, n, before, 2, (int64_t[]){s.batch, 1}), places);
    part[0] = rotated(g, n, &s, part[0], s.heads, places);
    part[1] = rotated(g, n, &s, part[1], s.groups, places);
  }
  a.q = lw_split_heads(g, n, part[0], s.heads);
  for (int i = 1; i < 3; i++) {
    part[i] = lw_split_heads(g, n, part[i], s.groups);
    ir_node *m = lw_node_n(g, n, "tenon:CacheAppend", 3, (ir_value *[]){part[i], lw_has(n, 3) ? n->in[2 + i] : NULL, before}, 1);
    ir_attr_int(m, "rows", s.keys);
    ir_infer(ctx, m);
    part[i] = m->out[0];
  }
  a.k = part[1];
  a.v = part[2];
  a.lengths = lengths;
  a.fixed_offset = s.first;
  int64_t window = ir_attr_get_int(n, "local_window_size", -1);
  a.left = window > 0 ? window - 1 : -1;
  if (lw_has(n, 10)) a.mask = n->in[10], a.pads_mask = true;
  a.scale = ir_attr_get_float(n, "scale", 0);
  if (a.scale == 0) a.scale = 1 / sqrt((double)s.depth);
  finish(g, n, lw_join_heads(g, n, lw_attend(g, n, &a)), a.k, a.v);
}

/* tenon CacheAppend: new [B, G, S, D], past [B, G, P, D], how much of it is in use [B] -> [B, G, rows, D]:
 * the past in use (without that input: none), the new rows, zeros. */
static void append_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *v = n->in[0];
  lw_need_rank(ctx, n, 0, 4);
  lw_set(n, 0, v->dtype, 4, (ix[]){v->dims[0], v->dims[1], ix_index(ctx, ir_attr_get_int(n, "rows", 0)), v->dims[3]});
}
static ix append_value(lw_build *b, ir_node *n, int out, const ix *index) {
  tn_ctx *ctx = lw_ctx(b);
  ix zero = ix_index(ctx, 0), at[4] = {index[0], index[1], NULL, index[3]}, rest = lw_zero(ctx, n->out[0]->dtype), row = index[2];
  if (lw_has(n, 2)) row = ix_sub(ctx, row, ix_cast(ctx, TN_INDEX, lw_in(b, n, 2, index)));
  if (lw_has(n, 1) && lw_has(n, 2) && !ix_is_int(n->in[1]->dims[2], 0)) {
    ix rows = n->in[1]->dims[2], used = ix_and(ctx, ix_lt(ctx, row, zero), ix_lt(ctx, index[2], rows));
    at[2] = lw_clamp(ctx, index[2], zero, ix_addi(ctx, rows, -1));
    rest = ix_select(ctx, used, lw_in(b, n, 1, at), rest);
  }
  at[2] = lw_clamp(ctx, row, zero, ix_addi(ctx, n->in[0]->dims[2], -1));
  return ix_select(ctx, ix_within(ctx, row, zero, n->in[0]->dims[2]), lw_in(b, n, 0, at), rest);
}

#define COMPOSITE(NAME, LEAST, MOST, OUTS, ATTRS, INFER, EXPAND) \
  {.name = NAME, .domain = "com.microsoft", .kind = IR_OP_COMPOSITE, .since = 1, .min_in = LEAST, .max_in = MOST, .min_out = 1, .max_out = OUTS, .attrs = ATTRS, .infer = INFER, .expand = EXPAND}
const ir_op lw_ops_contrib_attention[] = {
    COMPOSITE("Attention", 2, 7, 2, "do_rotary:i mask_filter_value:f num_heads:i past_present_share_buffer:i qkv_hidden_sizes:I rotary_embedding_dim:i scale:f unidirectional:i", attention_infer, attention_expand),
    COMPOSITE("MultiHeadAttention", 1, 10, 4, "mask_filter_value:f num_heads:i scale:f unidirectional:i", multi_infer, multi_expand),
    COMPOSITE("GroupQueryAttention", 1, 14, 3,
              "do_rotary:i kv_num_heads:i local_window_size:i num_heads:i rotary_interleaved:i scale:f smooth_softmax:i softcap:f qk_output:i kv_cache_bit_width:i", grouped_infer, grouped_expand),
    {.name = "CacheAppend", .domain = "tenon", .kind = IR_OP_MOVEMENT, .since = 1, .min_in = 1, .max_in = 3, .min_out = 1, .max_out = 1, .attrs = "rows:i", .infer = append_infer, .value = append_value},
    {0}};
