/* attend_heads.c — attention whose heads share keys and values, as a product of five axes that repeats nothing:
 *
 *   q [batch, groups, shares, queries, depth], k and v [batch, groups, 1, ..]
 *
 * and what ops_attention.c makes of the ops of attention:
 *
 *   MatMul(AttentionSoftmax(MatMul(q, k), mask, lengths), v)   ->   Attend(AttentionScores(MatMul(q, k), mask, lengths), v) */
#include "lower/attend.h"
#include "lower/attention.h"
#include <string.h>

static bool for_one(const ir_value *v) { return v->nuses == 1 && v->uses[0]; }
static ir_value *unshaped(ir_value *v) { return v->def && for_one(v) && ir_node_is(v->def, "Reshape") ? v->def->in[0] : v; }

static ir_node *like(tn_ctx *ctx, ir_graph *g, const ir_node *n, ir_node *at, ir_value **in) {
  bool plain = !n->op->domain || !*n->op->domain;
  ir_node *m = lw_node_n(g, at, plain ? n->op->name : ir_format(ctx, "%s:%s", n->op->domain, n->op->name), n->nin, in, 1);
  m->opset = n->opset;
  m->nattrs = n->nattrs;
  m->attrs = n->attrs;
  ir_infer(ctx, m);
  return m;
}

/* The five axes' extents; heads = groups * shares. */
typedef struct heads {
  int64_t batch, groups, shares, queries, keys, depth, columns;
} heads;

static bool has_dims(tn_ctx *ctx, const ir_value *v, int rank, const int64_t *dims) {
  for (int i = 0; i < rank && v->rank == rank; i++)
    if (ir_dim(ctx, v, i) != dims[i]) return false;
  return v->rank == rank;
}

/* y = [batch, groups, shares, queries, columns] where n's result has heads in one axis, here or once reshaped; heads behind
 * queries, as they are usually joined, are then one movement. */
static void give(tn_ctx *ctx, ir_graph *g, ir_node *n, const heads *h, ir_value *y) {
  static const int64_t usual[4] = {0, 2, 1, 3}, joined[5] = {0, 3, 1, 2, 4};
  int64_t H = h->groups * h->shares, heads[4] = {h->batch, H, h->queries, h->columns}, behind[4] = {h->batch, h->queries, H, h->columns}, all[IR_MAX_RANK];
  const int64_t *perm;
  ir_node *from = n, *t;
  if (!has_dims(ctx, n->out[0], 4, heads) && for_one(n->out[0]) && ir_node_is(n->out[0]->uses[0], "Reshape") && has_dims(ctx, n->out[0]->uses[0]->out[0], 4, heads)) from = n->out[0]->uses[0];
  ir_value *old = from->out[0];
  t = for_one(old) ? old->uses[0] : NULL;
  if (has_dims(ctx, old, 4, heads) && t && ir_node_is(t, "Transpose") && ir_attr_get_ints(t, "perm", &perm) == 4 && memcmp(perm, usual, sizeof usual) == 0) {
    lw_replace(g, t, 0, lw_reshape(g, n, lw_transpose(g, n, y, joined), 4, behind));
    return;
  }
  for (int i = 0; i < old->rank; i++) all[i] = ir_dim(ctx, old, i);
  lw_replace(g, from, 0, lw_reshape(g, n, y, old->rank, all));
}

/* ---- keys and values that were repeated: Reshape(Expand(x)), perhaps turned ---- */

typedef struct repeated {
  ir_value *x;         /* before, its axes in the order of the four; */
  int at;              /* that are repeated, with an axis of 1 behind */
  int64_t perm[5];
  int64_t groups, shares;
} repeated;

static bool repeated_of(tn_ctx *ctx, ir_value *v, repeated *r) {
  const int64_t *perm = NULL;
  static const int64_t same[4] = {0, 1, 2, 3};
  ir_node *n = v->def;
  if (n && ir_node_is(n, "Transpose") && ir_attr_get_ints(n, "perm", &perm) == 4) n = n->in[0]->def;
  if (!perm) perm = same;
  ir_node *e = n && ir_node_is(n, "Reshape") ? n->in[0]->def : NULL;
  if (!e || !(ir_node_is(e, "Expand") || ir_node_is(e, "Tile")) || n->out[0]->rank != 4 || e->out[0]->rank != 5 || e->in[0]->rank != 5 || !ir_static(e->in[0]) || !ir_static(e->out[0])) return false;
  int axis = -1;
  for (int i = 0; i < 5; i++) {
    if (e->in[0]->dims[i] == e->out[0]->dims[i]) continue;
    if (axis >= 0 || !ix_is_int(e->in[0]->dims[i], 1)) return false;
    axis = i;
  }
  if (axis < 1 || perm[1] != axis - 1) return false;
  *r = (repeated){.x = e->in[0], .at = axis - 1, .groups = ir_dim(ctx, e->out[0], axis - 1), .shares = ir_dim(ctx, e->out[0], axis)};
  for (int i = 0, k = 0; i < 4; i++) { /* the two axes are one of the four */
    int64_t from = perm[i] <= r->at ? perm[i] : perm[i] + 1, want = perm[i] == r->at ? r->groups * r->shares : ir_dim(ctx, e->out[0], (int)from);
    if (ir_dim(ctx, n->out[0], (int)perm[i]) != want) return false;
    r->perm[k++] = from;
    if (perm[i] == r->at) r->perm[k++] = from + 1;
  }
  return true;
}

static ir_value *unrepeated(ir_graph *g, ir_node *n, const repeated *r) {
  bool same = true;
  for (int i = 0; i < 5; i++) same &= r->perm[i] == i;
  return same ? r->x : lw_transpose(g, n, r->x, r->perm);
}

/* v, whose last axes are [.., heads, queries, keys] or fewer, as it stands beside scores of five axes. */
static ir_value *beside(tn_ctx *ctx, ir_graph *g, ir_node *n, ir_value *v, const heads *h) {
  int64_t dims[5] = {1, 1, 1, 1, 1};
  if (v->rank < 3) return v;
  for (int i = 1; i <= v->rank; i++) dims[i < 3 ? 5 - i : i == 3 ? 1 : 0] = ir_dim(ctx, v, v->rank - i);
  if (dims[1] > 1) dims[1] = h->groups, dims[2] = h->shares;
  return lw_reshape(g, n, v, 5, dims);
}

bool lw_attend_heads(tn_ctx *ctx, ir_graph *g, ir_node *n, ir_node *const *nodes, int count) {
  ir_value *q = nodes[0]->in[0], *last = nodes[count - 1]->out[0], *s, *in[8];
  repeated k, v;
  if (!ir_node_is(nodes[0], "MatMul") || q->rank != 4 || last->rank != 4 || nodes[0]->in[1]->rank != 4 || n->in[1]->rank != 4) return false;
  if (!repeated_of(ctx, nodes[0]->in[1], &k) || !repeated_of(ctx, n->in[1], &v) || k.groups != v.groups || k.shares != v.shares) return false;
  heads h = {ir_dim(ctx, last, 0), k.groups, k.shares, ir_dim(ctx, last, 2), ir_dim(ctx, last, 3), ir_dim(ctx, q, 3), ir_dim(ctx, n->in[1], 3)};
  if (ir_dim(ctx, q, 0) != h.batch || ir_dim(ctx, k.x, (int)k.perm[0]) != h.batch || ir_dim(ctx, v.x, (int)v.perm[0]) != h.batch) return false;
  for (int i = 1; i < count; i++)
    if (nodes[i]->nin > IR_COUNT(in) || nodes[i]->nout != 1) return false;
  q = lw_reshape(g, n, q, 5, (int64_t[]){h.batch, h.groups, h.shares, h.queries, h.depth});
  s = lw_op2(g, n, "MatMul", q, unrepeated(g, n, &k));
  for (int i = 1; i < count; i++) {
    bool place = lw_is_attention_scores(nodes[i]);
    for (int j = 0; j < nodes[i]->nin; j++) {
      ir_value *x = nodes[i]->in[j];
      in[j] = !x ? NULL : x == nodes[i - 1]->out[0] ? s : place ? x : beside(ctx, g, n, x, &h);
    }
    s = like(ctx, g, nodes[i], n, in)->out[0];
  }
  give(ctx, g, n, &h, lw_op2(g, n, "tenon:Attend", s, unrepeated(g, n, &v)));
  return true;
}

/* ---- the ops ---- */

/* v without a known factor, which goes into *factor, through movements; the nodes in between serve v alone. */
static ir_value *without_factor(tn_ctx *ctx, ir_graph *g, ir_value *v, double *factor) {
  ir_node *n = v->def;
  double c;
  if (!n || !for_one(v)) return v;
  if (ir_node_is(n, "Transpose") || ir_node_is(n, "Reshape")) {
    ir_value *x = without_factor(ctx, g, n->in[0], factor), *in[2] = {x, n->nin > 1 ? n->in[1] : NULL};
    return x == n->in[0] ? v : like(ctx, g, n, n, in)->out[0];
  }
  if (!ir_node_is(n, "Mul") || !ir_known_float(n->in[1], &c) || n->in[1]->rank) return v;
  *factor *= c;
  return n->in[0];
}

static ir_value *scores_of(ir_graph *g, ir_node *n, const ir_node *from, ir_value *s) {
  static const char *const numbers[] = {"causal", "offset", "fixed_offset", "left", "right", "pads_mask"};
  ir_value *in[3] = {s, from->nin > 1 ? from->in[1] : NULL, from->nin > 2 ? from->in[2] : NULL};
  ir_node *m = lw_node_n(g, n, "tenon:AttentionScores", 3, in, 1);
  for (int i = 0; i < IR_COUNT(numbers); i++) ir_attr_int(m, numbers[i], ir_attr_get_int(from, numbers[i], i == 3 || i == 4 ? -1 : 0));
  ir_attr_float(m, "softcap", ir_attr_get_float(from, "softcap", 0));
  ir_infer(g->ctx, m);
  return m->out[0];
}

bool lw_attend_op(tn_ctx *ctx, ir_graph *g, ir_node *n, bool (*fits)(void *user, const ir_value *q, const ir_value *k, const ir_value *v, int64_t queries), void *user) {
  if (n->dead || !ir_node_is(n, "MatMul") || n->out[0]->packed) return false;
  ir_value *w = unshaped(n->in[0]), *s, *v = n->in[1];
  ir_node *softmax = w->def, *product;
  if (!softmax || !for_one(n->in[0]) || !for_one(w) || !lw_is_attention_softmax(softmax) || !ir_static(softmax->in[0]) || (softmax->nout > 1 && softmax->out[1] && softmax->out[1]->nuses)) return false;
  tn_dtype precision = (tn_dtype)ir_attr_get_int(softmax, "precision", TN_NONE);
  s = unshaped(softmax->in[0]);
  product = s->def;
  if (!product || !for_one(softmax->in[0]) || !for_one(s) || !ir_node_is(product, "MatMul") || (precision != TN_NONE && precision != TN_F32 && precision != s->dtype)) return false;
  ir_value *q = product->in[0], *k = product->in[1];
  const ir_value *scores = softmax->in[0];
  if (q->rank != 4 || k->rank != 4 || v->rank != 4 || !ir_static(q) || !ir_static(k) || !ir_static(v)) return false;
  heads h = {ir_dim(ctx, scores, 0), ir_dim(ctx, k, 1), 0, ir_dim(ctx, scores, 2), ir_dim(ctx, scores, 3), ir_dim(ctx, q, 3), ir_dim(ctx, v, 3)};
  h.shares = h.groups ? ir_dim(ctx, scores, 1) / h.groups : 0;
  if (!ir_value_elements(ctx, scores) || h.shares < 1 || !fits(user, q, k, v, h.queries)) return false;
  double factor = 1;
  q = without_factor(ctx, g, q, &factor), k = without_factor(ctx, g, k, &factor);
  if (h.shares > 1) { /* rows of the group's heads, one after another */
    q = lw_reshape(g, n, unshaped(q), 5, (int64_t[]){h.batch, h.groups, h.shares, h.queries, h.depth});
    k = lw_reshape(g, n, k, 5, (int64_t[]){h.batch, h.groups, 1, h.depth, h.keys});
    v = lw_reshape(g, n, v, 5, (int64_t[]){h.batch, h.groups, 1, h.keys, h.columns});
  }
  s = lw_op2(g, n, "MatMul", q, k);
  if (factor != 1) s = lw_op2(g, n, "Mul", s, lw_number(g, s, factor));
  ir_node *y = lw_node_n(g, n, "tenon:Attend", 2, (ir_value *[]){scores_of(g, n, softmax, s), v}, 1);
  ir_attr_int(y, "zeros", 1);
  ir_infer(ctx, y);
  if (h.shares == 1) lw_replace(g, n, 0, y->out[0]);
  else give(ctx, g, n, &h, y->out[0]);
  return true;
}
