/* attend_mask.c — masks that are known: those that hide a triangle or a band of the scores become a comparison of places,
 * tenon:AttentionScores, which schedules can read (attend_span.c), and need not be added where they are zeros besides.
 *
 * Numbers that hide are -inf, or so low that no weight is left of them; the latter only where nothing else is masked and
 * each query sees a key. */
#include "ir/interp.h"
#include "lower/attend.h"
#include "lower/compose.h"
#include "lower/fold.h"
#include <math.h>
#include <string.h>

enum {
  LIMIT = 1 << 22, /* elements of a mask that are computed here */
  MAX_MADE = 64
};

typedef struct mask {
  ir_value *v;       /* the mask; */
  bool added, seen;  /* a number that is added, or a bool that says, as `seen`, which scores stay */
  bool low;          /* what hides is a low number, not -inf */
} mask;

typedef struct band { /* query m sees keys from m + lo to m + hi at most */
  int64_t lo, hi;
  bool plain;         /* all of them, as they are */
} band;

struct lw_masks {
  tn_ctx *ctx;
  ir_value *made[MAX_MADE]; /* values computed for a look at them */
  int n;
  mask last;                /* the one looked at last, as most layers have the same */
  band band;
  bool good;
};

lw_masks *lw_masks_new(tn_ctx *ctx) {
  lw_masks *m = IR_NEW(ctx, lw_masks);
  m->ctx = ctx;
  return m;
}

void lw_masks_forget(lw_masks *m) {
  while (m->n > 0) m->made[--m->n]->data = NULL;
}

/* Whether v's elements are there; computes those of what depends on constants alone. */
static bool look(lw_masks *m, ir_value *v, int depth) {
  if (v->data) return true;
  if (!v->packed || !v->def || v->def->nout != 1 || v->def->opaque || !ir_static(v) || ir_value_elements(m->ctx, v) > LIMIT || depth > 32 || m->n == MAX_MADE) return false;
  for (int k = 0; k < v->def->nin; k++)
    if (v->def->in[k] && !look(m, v->def->in[k], depth + 1)) return false;
  if (m->n == MAX_MADE || !lw_fold_node(m->ctx, v->def, LIMIT)) return false;
  m->made[m->n++] = v;
  return true;
}

static bool is_low(double x, tn_dtype t) { return x <= (t == TN_F16 ? -6e4 : -1e9); }

static bool mask_of(const ir_node *n, const ir_value *scores, mask *m) {
  double low;
  if (ir_node_is(n, "Add")) {
    int k = n->in[1] == scores;
    *m = (mask){n->in[1 - k], .added = true};
    return n->in[k] == scores && m->v != scores;
  }
  if (!ir_node_is(n, "Where") || (n->in[1] != scores && n->in[2] != scores)) return false;
  bool first = n->in[1] == scores;
  if (!ir_known_float(n->in[first ? 2 : 1], &low) || !is_low(low, n->out[0]->dtype)) return false;
  *m = (mask){n->in[0], .seen = first, .low = !isinf(low)};
  return true;
}

/* What the mask's element i is: hidden, or seen as it is, or changed. */
typedef enum kind { HIDDEN, SEEN, CHANGED } kind;
static kind kind_of(mask *m, int64_t i) {
  size_t size = ir_dtype_bytes(m->v->dtype);
  ir_scalar s = ir_scalar_load(m->v->dtype, (const char *)m->v->data + (size_t)i * size);
  if (!m->added) return (s.i != 0) == m->seen ? SEEN : HIDDEN;
  if (!is_low(s.f, m->v->dtype)) return s.f == 0 ? SEEN : CHANGED;
  m->low |= !isinf(s.f);
  return HIDDEN;
}

static bool band_of(tn_ctx *ctx, mask *m, int64_t queries, int64_t keys, band *b) {
  int64_t n = ir_value_elements(ctx, m->v), seen = 0;
  bool changed = false, blind = false;
  *b = (band){keys, -queries, false};
  for (int64_t row = 0; row < n / keys; row++) {
    int64_t before = seen;
    for (int64_t t = 0; t < keys; t++) {
      kind k = kind_of(m, row * keys + t);
      if (k == HIDDEN) continue;
      int64_t at = t - row % queries;
      seen++;
      changed |= k == CHANGED;
      if (at < b->lo) b->lo = at;
      if (at > b->hi) b->hi = at;
    }
    blind |= seen == before;
  }
  int64_t inside = 0;
  for (int64_t q = 0; q < queries; q++) {
    int64_t from = q + b->lo > 0 ? q + b->lo : 0, to = q + b->hi + 1 < keys ? q + b->hi + 1 : keys;
    inside += to > from ? to - from : 0;
  }
  b->plain = !changed && seen == inside * (n / keys / queries);
  return seen && !(m->low && blind) && inside <= queries * keys - queries * keys / 8;
}

/* The band of mask m of such scores, if it is known and hides much outside. */
static bool known_band(lw_masks *k, mask *m, const ir_value *s) {
  mask *l = &k->last;
  int64_t queries = ir_dim(k->ctx, s, -2), keys = ir_dim(k->ctx, s, -1);
  if (m->v->rank < 2 || m->v->rank > s->rank || queries < 2 || ir_dim(k->ctx, m->v, -2) != queries || ir_dim(k->ctx, m->v, -1) != keys) return false;
  if (l->v != m->v || l->added != m->added || l->seen != m->seen) {
    *l = *m;
    k->good = look(k, m->v, 0) && band_of(k->ctx, l, queries, keys, &k->band);
  }
  m->low |= l->low;
  return k->good;
}

/* The band of mask m, or of a part of it that hides by -inf whatever the rest is: of sums, of Where, of conjunctions. m becomes that
 * part. */
static bool find_band(lw_masks *k, mask *m, const ir_value *s, band *b, int depth) {
  if (!ir_static(m->v)) return false;
  if (known_band(k, m, s)) return *b = k->band, true;
  const ir_node *n = m->v->def;
  mask part[2];
  int parts = 0;
  double x;
  if (!n || depth > 8) return false;
  bool both = m->added ? ir_node_is(n, "Add") : ir_node_is(n, m->seen ? "And" : "Or");
  if (m->added && ir_node_is(n, "Where")) {
    for (int i = 1; i < 3 && !parts; i++)
      if (ir_known_float(n->in[i], &x) && x == -INFINITY) part[parts++] = (mask){n->in[0], .seen = i == 2};
  } else if (both || ir_node_is(n, "Expand") || ir_node_is(n, "Unsqueeze") || ir_node_is(n, "Reshape")) { /* queries and keys stay the last axes */
    for (int i = 0; i < 1 + both; i++) part[parts++] = (mask){n->in[i], m->added, m->seen, false};
  } else if (!m->added && ir_node_is(n, "Not")) part[parts++] = (mask){n->in[0], .seen = !m->seen};
  for (int i = 0; i < parts; i++)
    if (find_band(k, &part[i], s, b, depth + 1) && !part[i].low) {
      *m = part[i];
      b->plain = false;
      return true;
    }
  return false;
}

/* Whether scores that are hidden stay so, and by which nodes: the factor of Mul and Div must be above 0. */
static bool keeps_hidden(const ir_node *n, const ir_value *scores, bool low) {
  double c;
  if (ir_node_is(n, "Add")) return !low;
  bool times = ir_node_is(n, "Mul"), by = ir_node_is(n, "Div") && n->in[0] == scores;
  return (times || by) && ir_known_float(n->in[n->in[0] == scores], &c) && c > (low ? 1e-3 : 0) && isfinite(c);
}

static ir_value *places(ir_graph *g, ir_node *n, ir_value *s, const band *b) {
  ir_node *m = lw_node_n(g, n, "tenon:AttentionScores", 1, &s, 1);
  ir_attr_int(m, "offset", b->hi);
  if (b->hi < ir_dim(g->ctx, s, -1) - 1) ir_attr_int(m, "causal", 1);
  if (b->lo > 1 - ir_dim(g->ctx, s, -2)) ir_attr_int(m, "left", b->hi - b->lo);
  ir_infer(g->ctx, m);
  return m->out[0];
}

void lw_attend_mask(lw_masks *known, ir_graph *g, ir_node *n, ir_node *const *nodes, int count) {
  ir_node *softmax = n->in[0]->def;
  ir_value *s = softmax->in[0];
  for (int i = 1; i < count; i++) {
    mask m;
    band b;
    ir_value *before = nodes[i - 1]->out[0];
    bool good = mask_of(nodes[i], before, &m) && find_band(known, &m, s, &b, 0);
    for (int k = 1; k < count && good; k++)
      if (k > i || (k < i && m.low)) good = keeps_hidden(nodes[k], nodes[k - 1]->out[0], m.low); /* what is low may be all there is, if others hide the rest */
    if (!good) continue;
    if (b.plain) lw_replace(g, nodes[i], 0, before);
    softmax->in[0] = places(g, n, softmax->in[0], &b);
    return;
  }
}
