/* attend.c — the pass that makes MatMul(Softmax(scores), v) one node, see attend.h, and spares the movements around it.
 *
 * Known factors of queries and keys become one of the scores, in registers. Transposes, slices and reshapes that bring
 * queries, keys and values to their places become layouts of what they give: a view of the operand's memory, an alias
 * for fusion. What turns the result around gives the result its layout instead. */
#include "lower/attend.h"
#include "lower/compose.h"
#include "lower/lower.h"
#include <string.h>

enum { FEW_QUERIES = 4, MAX_KEYS = 1 << 16, MAX_COLUMNS = 1024 };

typedef struct pass {
  tn_ctx *ctx;
  ir_graph *g;
  int8_t *any_layout; /* by node id: 1 all that read its results take them in any layout, -1 not; 0 not yet known */
  uint32_t nids;
  bool tiles;         /* for GPUs */
  lw_masks *masks;
} pass;

/* ---- one node ---- */

static bool last_axis(const ir_node *softmax) {
  int64_t axis = ir_attr_get_int(softmax, "axis", softmax->opset >= 13 ? -1 : 1);
  return axis == -1 || axis == softmax->in[0]->rank - 1;
}

static bool within(const pass *p, const ir_value *v, int axis, int64_t least, int64_t most) {
  int64_t d = ir_dim(p->ctx, v, axis);
  return d >= least && d <= most;
}

/* v without a known factor, which goes into *factor; the node in between serves v alone. */
static ir_value *without_factor(ir_value *v, double *factor) {
  ir_node *n = v->def;
  double c;
  if (!n || v->nuses != 1 || n->nin != 2) return v;
  bool times = ir_node_is(n, "Mul"), by = ir_node_is(n, "Div");
  for (int k = 0; k < 2 && (times || by); k++) {
    ir_value *x = n->in[k], *y = n->in[1 - k];
    if ((by && k) || !ir_known_float(y, &c) || y->rank > x->rank || x->rank != v->rank || (by && c == 0)) continue;
    *factor *= by ? 1 / c : c;
    return x;
  }
  return v;
}

static void take_factors(pass *p, ir_node *product) {
  double factor = 1;
  ir_value *q = without_factor(product->in[0], &factor), *k = without_factor(product->in[1], &factor);
  if (q == product->in[0] && k == product->in[1]) return;
  ir_node *m = lw_node_n(p->g, product, product->op->domain && *product->op->domain ? "tenon:MatMul" : "MatMul", 2, (ir_value *[]){q, k}, 1);
  m->opset = product->opset;
  m->nattrs = product->nattrs;
  m->attrs = product->attrs;
  ir_infer(p->ctx, m);
  lw_replace(p->g, product, 0, lw_op2(p->g, product, "Mul", m->out[0], lw_number(p->g, m->out[0], factor)));
}

static bool is_half(tn_dtype t) { return t == TN_F16 || t == TN_BF16; }

/* What GPUs have tiles for (codegen/cuda_attend.c): up to 256 columns, those of f16 and bf16 in pieces of 16 bytes; keys and values may be
 * those of several batches. */
static bool fits_tiles(const pass *p, const ir_value *q, const ir_value *k, const ir_value *v) {
  if ((!is_half(v->dtype) && v->dtype != TN_F32) || q->rank != k->rank || q->rank != v->rank || q->dtype != v->dtype || k->dtype != v->dtype) return false;
  for (int i = 0; i < q->rank - 2; i++)
    if ((q->dims[i] != k->dims[i] && !ix_is_int(k->dims[i], 1)) || (q->dims[i] != v->dims[i] && !ix_is_int(v->dims[i], 1))) return false;
  if (v->dtype == TN_F32) return within(p, q, -1, 1, 256) && within(p, v, -1, 1, 256);
  return within(p, q, -1, 8, 256) && within(p, v, -1, 8, 256) && within(p, v, -2, 16, 1 << 30) && ir_dim(p->ctx, q, -1) % 8 == 0 && ir_dim(p->ctx, v, -1) % 8 == 0;
}

/* Whether softmax(q k) v is worth one kernel, and there is one: of f32, for GPUs also of f16 and bf16. */
static bool fits(void *user, const ir_value *q, const ir_value *k, const ir_value *v, int64_t queries) {
  const pass *p = user;
  if (p->tiles ? !fits_tiles(p, q, k, v) : q->dtype != TN_F32 || v->dtype != TN_F32) return false;
  return queries >= FEW_QUERIES && within(p, v, -2, 1, MAX_KEYS) && within(p, q, -1, 1, MAX_COLUMNS) && within(p, v, -1, 1, MAX_COLUMNS);
}

/* n = MatMul(Softmax(s), v), s from a product of its own; the number of nodes that make s, or 0. */
static int attends(pass *p, ir_node *n, ir_node *nodes[LW_MAX_SCORE_NODES]) {
  if (n->dead || !ir_node_is(n, "MatMul") || !n->in[0]->def || n->in[0]->nuses != 1) return 0;
  ir_node *softmax = n->in[0]->def;
  if (!ir_node_is(softmax, "Softmax") || !last_axis(softmax) || n->out[0]->packed) return 0;
  ir_value *s = softmax->in[0], *v = n->in[1], *y = n->out[0];
  int count = lw_score_nodes(s, nodes);
  if (!ir_static(s) || !ir_static(v) || v->rank < 2 || s->rank != y->rank || !count) return 0;
  for (int i = 0; i < s->rank - 1; i++)
    if (s->dims[i] != y->dims[i]) return 0;
  const ir_value *q = nodes[0]->in[0], *k = nodes[0]->in[1];
  return ir_static(q) && ir_static(k) && q->rank >= 2 && k->rank >= 2 && fits(p, q, k, v, ir_dim(p->ctx, s, -2)) && ir_value_elements(p->ctx, y) > 0 ? count : 0;
}

/* ---- movements as layouts ---- */

static bool store_all(void *user, const ir_value *v) { return (void)user, (void)v, true; }

static bool is_score_product(const ir_node *n) {
  const ir_node *u = n;
  ir_node *nodes[LW_MAX_SCORE_NODES];
  for (int i = 0; i < LW_MAX_SCORE_NODES + 1; i++) { /* on to Attend, through what follows each */
    const ir_value *v = u->nout == 1 ? u->out[0] : NULL;
    if (!v || v->nuses != 1 || !v->uses[0]) return false;
    u = v->uses[0];
    if (lw_is_attend(u)) return u->in[0] == v && lw_score_nodes(v, nodes) && nodes[0] == n;
  }
  return false;
}

static bool takes_any_layout(pass *p, const ir_value *v) {
  if (!v->nuses) return false;
  for (int i = 0; i < v->nuses; i++) {
    const ir_node *u = v->uses[i];
    if (!u || u->id >= p->nids) return false;
    if (!p->any_layout[u->id]) {
      bool yes = lw_is_attend(u) || is_score_product(u);
      if (!yes && u->op->kind == IR_OP_MOVEMENT && u->op->value && u->in[0] == v) {
        yes = true;
        for (int k = 0; k < u->nout; k++) yes &= !u->out[k] || takes_any_layout(p, u->out[k]);
      }
      p->any_layout[u->id] = yes ? 1 : -1;
    }
    if (p->any_layout[u->id] < 0) return false;
  }
  return true;
}

/* Where element idx of n's only result lies in its operand; false where that is no one place. */
static bool source_of(pass *p, ir_node *n, const ix *idx, ix *offset) {
  int group = n->group;
  n->group = -1;
  lw_build *b = lw_build_new(p->ctx, store_all);
  ix e = n->op->value(b, n, 0, idx);
  n->group = group;
  if (e->op != IX_LOAD || lw_build_operand(b, e->u.buf) != n->in[0]) return false;
  *offset = ir_buf_offset(p->ctx, e->u.buf, e->args);
  return true;
}

typedef struct axis {
  int number;
  int64_t stride, extent;
} axis;

/* The layout in which v is the memory of `elements` elements that has v[i0, i1, ..] at `offset`, an affine form; null:
 * there is none. Axes by their strides, each so long that the one before comes out. */
static const ir_layout *view_layout(pass *p, const ir_value *v, ix offset, const ix *idx, int64_t elements) {
  axis a[IR_MAX_RANK];
  int n = 0, single = 0;
  int64_t rest, all = elements;
  ir_text perm = {.ctx = p->ctx}, pads = {.ctx = p->ctx};
  for (int i = 0; i < v->rank; i++) {
    int64_t d = ir_dim(p->ctx, v, i), c;
    if (d == 1) {
      ir_put(&perm, " %d", i), single++;
      continue;
    }
    if (!ix_affine_in(offset, idx[i]->u.var, &c) || c <= 0) return NULL;
    int k = n++;
    for (; k > 0 && a[k - 1].stride < c; k--) a[k] = a[k - 1];
    a[k] = (axis){i, c, d};
    offset = ix_subst1(p->ctx, offset, idx[i]->u.var, ix_index(p->ctx, 0));
  }
  if (!n || a[n - 1].stride != 1 || !ix_const_value(offset, &rest)) return NULL;
  for (int k = 0; k < n; k++) {
    if (all % a[k].stride) return NULL;
    int64_t extent = all / a[k].stride, before = rest / a[k].stride;
    if (before + a[k].extent > extent) return NULL;
    ir_put(&perm, " %d", a[k].number);
    if (extent != a[k].extent) ir_put(&pads, "; pad %d %lld %lld", single + k, (long long)before, (long long)(extent - before - a[k].extent));
    rest %= a[k].stride;
    all = a[k].stride;
  }
  return ir_layout_parse(p->ctx, ir_format(p->ctx, "perm%s%s", ir_text_str(&perm), pads.n ? pads.s : ""));
}

static void as_view(pass *p, ir_node *n) {
  ir_value *in = n->nin ? n->in[0] : NULL, *out = n->nout ? n->out[0] : NULL;
  int64_t elements, at;
  if (n->dead || n->op->kind != IR_OP_MOVEMENT || !n->op->value || !in || !out || n->nout != 1 || in->data || in->packed || out->layout || in->dtype != out->dtype) return;
  if (!ir_static(in) || !ir_static(out) || !ir_value_elements(p->ctx, out) || !takes_any_layout(p, out) || lw_is_alias(p->ctx, n, &at)) return;
  ix idx[IR_MAX_RANK], offset;
  for (int i = 0; i < out->rank; i++) {
    int64_t d = ir_dim(p->ctx, out, i);
    idx[i] = d == 1 ? ix_index(p->ctx, 0) : ir_var_new(p->ctx, "a", TN_INDEX, 0, d - 1)->expr;
  }
  elements = ir_value_bytes(p->ctx, in) / (int64_t)ir_dtype_bytes(in->dtype);
  if (!source_of(p, n, idx, &offset)) return;
  out->layout = view_layout(p, out, offset, idx, elements);
  if (out->layout && (!lw_is_alias(p->ctx, n, &at) || at)) out->layout = NULL;
}

/* The result as what turns it around wants it. */
static void turned_result(pass *p, ir_node *n) {
  ir_value *y = n->out[0];
  ir_node *t = y->nuses == 1 ? y->uses[0] : NULL;
  const int64_t *perm;
  int64_t at;
  if (!t || !ir_node_is(t, "Transpose") || ir_attr_get_ints(t, "perm", &perm) != y->rank || y->layout) return;
  ir_text text = {.ctx = p->ctx};
  ir_put(&text, "perm");
  for (int i = 0; i < y->rank; i++) ir_put(&text, " %d", (int)perm[i]);
  y->layout = ir_layout_parse(p->ctx, ir_text_str(&text));
  if (perm[y->rank - 1] != y->rank - 1 || !lw_is_alias(p->ctx, t, &at) || at) y->layout = NULL;
}

static void renumber(pass *p) {
  ir_graph_sort(p->g);
  lw_pass_dce(p->ctx, p->g, NULL); /* what is left of factors counts as no use */
  for (int i = 0; i < p->g->nnodes; i++)
    if (p->g->nodes[i]->id >= p->nids) p->nids = p->g->nodes[i]->id + 1;
  p->any_layout = IR_NEW_ARRAY(p->ctx, int8_t, p->nids + 1);
}

/* ---- the steps ---- */

static bool take_op(pass *p, ir_node *n) { return lw_attend_op(p->ctx, p->g, n, fits, p); }

static bool simplify(pass *p, ir_node *n) {
  ir_node *nodes[LW_MAX_SCORE_NODES];
  if (!attends(p, n, nodes)) return false;
  take_factors(p, nodes[0]);
  return true;
}

static bool place_masks(pass *p, ir_node *n) {
  ir_node *nodes[LW_MAX_SCORE_NODES];
  int count = attends(p, n, nodes);
  if (count) lw_attend_mask(p->masks, p->g, n, nodes, count);
  return count > 0;
}

static bool take(pass *p, ir_node *n) {
  ir_node *nodes[LW_MAX_SCORE_NODES], *softmax = n->nin ? n->in[0]->def : NULL;
  int count = attends(p, n, nodes);
  if (!count) return false;
  if (lw_attend_heads(p->ctx, p->g, n, nodes, count)) return true;
  lw_replace(p->g, n, 0, lw_op2(p->g, n, "tenon:Attend", softmax->in[0], n->in[1]));
  return softmax->dead = true;
}

/* Whether there was anything to do. */
static bool for_all(pass *p, bool (*step)(pass *p, ir_node *n)) {
  bool any = false;
  for (int i = 0, count = p->g->nnodes; i < count; i++) any |= step(p, p->g->nodes[i]);
  if (!any) return false;
  renumber(p);
  lw_mark_packed(p->g);
  return true;
}

void lw_pass_attend(tn_ctx *ctx, ir_graph *g, const lw_options *options) {
  if (!options->target || options->unscheduled || cg_target_lanes(options->target, TN_F32) < 4) return;
  pass p = {.ctx = ctx, .g = g, .tiles = options->attention_apart, .masks = lw_masks_new(ctx)};
  ir_graph_analyse(g);
  lw_mark_packed(g);
  bool ops = for_all(&p, take_op), others = for_all(&p, simplify) && for_all(&p, place_masks);
  lw_masks_forget(p.masks);
  if (others) for_all(&p, take);
  if (!ops && !others) return;
  for (int i = 0; i < g->nnodes; i++) {
    as_view(&p, g->nodes[i]);
    if (lw_is_attend(g->nodes[i])) turned_result(&p, g->nodes[i]);
  }
}
