/* fuse.c — which nodes become one kernel.
 *
 * A group has at most one root, a node with `build` (a reduction, contraction, window
 * or kernel op); every other node of it is a `value` op:
 *   epilogue   elementwise nodes over the root's outputs, applied where the root stores;
 *   prologue   nodes inlined into where an operand is read.
 * Attention (attend.h) also has the product that its scores come from.
 * A group without a root is a nest of value ops. A node that only renames memory (a
 * reshape, a split along the outermost axis) is an alias and belongs to no group; so is a
 * Concat whose parts are stored inside it (join.h).
 *
 * Where lw_options.cut says so a group is cut: what stands behind its root, or before it, is a kernel of its own.
 *
 * A group runs as one step, so no group may need, through others, its own result:
 * before a node joins, the groups between are searched (reaches). */
#include "lower/attend.h"
#include "lower/build_internal.h"
#include "lower/inplace.h"
#include "lower/join.h"
#include "lower/lower.h"
#include "lower/region.h"
#include <math.h>
#include <string.h>

/* What takes a polynomial is not inlined where fewer of the elements that evaluate it use it. */
static const double DEAR_SHARE = 0.45;

typedef struct fuse {
  tn_ctx *ctx;
  ir_graph *g;
  int ngroups;
  ir_node **root;    /* by group; null for value groups */
  ir_node ***members;
  int *nmembers;
  double *share;     /* by node id: of the elements for which its group evaluates it, those that use it */
  int *times;        /* by node id: how often its expression stands in that of its group, written out as a tree */
  uint32_t *visited; /* by node id: search stamp */
  uint32_t stamp;
  const lw_options *options;
  bool *cut;         /* by group: nothing is inlined where its root reads */
} fuse;

/* ---- aliases ---- */

static bool store_all(void *user, const ir_value *v) { return (void)user, (void)v, true; }

/* Builds the node's own nest and compares where it loads with where it stores: when the
 * two element offsets differ by a constant, the node moves nothing. */
bool lw_is_alias(tn_ctx *ctx, ir_node *n, int64_t *element_offset) {
  if (n->op->kind != IR_OP_MOVEMENT || !n->op->value || n->nout < 1 || !n->in || n->nin < 1 || !n->in[0]) return false;
  int wanted = 0;
  for (int k = 0; k < n->nout; k++) wanted += n->out[k] && n->out[k]->nuses > 0;
  if (wanted != 1) return false; /* several outputs are several aliases: split them first */
  ir_value *in = n->in[0], *out = NULL;
  int which = 0;
  for (int k = 0; k < n->nout; k++)
    if (n->out[k] && n->out[k]->nuses > 0) out = n->out[k], which = k;
  if (in->dtype != out->dtype || (in->data && in->kind != IR_VALUE_CONST)) return false;
  if (!ir_static(in) || !ir_static(out) || ir_value_elements(ctx, out) == 0) return false;
  int group = n->group;
  n->group = -1;
  lw_build b = {.ctx = ctx, .ib = ir_builder_new(ctx), .group = -1, .stored = store_all};
  ix idx[IR_MAX_RANK];
  for (int i = 0; i < out->rank; i++) {
    int64_t d = ir_dim(ctx, out, i);
    idx[i] = d == 1 ? ix_index(ctx, 0) : ir_var_new(ctx, "a", TN_INDEX, 0, d - 1)->expr;
  }
  ix e = n->op->value(&b, n, which, idx);
  n->group = group;
  if (e->op != IX_LOAD || b.nparams != 1 || b.params[0].value != in) return false;
  ir_buf *to = ir_buf_new(ctx, "to", out->dtype, out->rank, out->dims, out->layout, IR_GLOBAL);
  ix d = ix_sub(ctx, ir_buf_offset(ctx, e->u.buf, e->args), ir_buf_offset(ctx, to, idx));
  return ix_const_value(d, element_offset);
}

/* A reshape between two movements would make the first one be stored: then it is part of one kernel with both. */
static void join_movements(ir_graph *g) {
  for (int i = 0; i < g->nnodes; i++) {
    ir_node *n = g->nodes[i], *from = n->group == LW_GROUP_ALIAS ? n->in[0]->def : NULL, *to = NULL;
    if (n->nout == 1 && n->out[0] && n->out[0]->nuses == 1) to = n->out[0]->uses[0];
    if (!from || !to || from->nout != 1 || from->out[0]->nuses != 1 || to->nout != 1) continue;
    bool moves = from->op->kind == IR_OP_MOVEMENT && from->op->value && to->op->kind == IR_OP_MOVEMENT && to->op->value;
    if (moves && from->group == -1 && to->group == -1) n->group = -1;
  }
}

/* ---- groups ---- */

/* MAX_TIMES: expressions share what stands in them twice, but what looks through them may not: x + x of x + x of ... */
enum { MAX_GROUP = 48, MAX_TIMES = 256 };

static int group_new(fuse *f, ir_node *root) {
  int id = f->ngroups;
  f->root[id] = root;
  f->ngroups++;
  return id;
}

/* Loads in e as a tree; stops counting beyond `most`. */
static int count_loads(ix e, int most) {
  if (e->op == IX_LOAD) return 1;
  int n = 0;
  for (int i = 0; i < e->nargs && e->loads && n <= most; i++) n += count_loads(e->args[i], most - n);
  return n;
}

/* The body of an elementwise node at some element. */
static ix body_of(fuse *f, ir_node *n) {
  int group = n->group, out = 0;
  while (out < n->nout - 1 && !n->out[out]) out++;
  lw_build b = {.ctx = f->ctx, .ib = ir_builder_new(f->ctx), .group = -1, .stored = store_all};
  ix idx[IR_MAX_RANK];
  for (int i = 0; i < n->out[out]->rank; i++) idx[i] = ix_index(f->ctx, 0);
  n->group = -1;
  ix e = n->op->value(&b, n, out, idx);
  n->group = group;
  return e;
}

/* How often the body of an elementwise node reads each of its operands: HardSwish twice. */
static int reads_of(fuse *f, ir_node *n) {
  if (n->op->kind != IR_OP_ELEMENTWISE || n->nin < 1) return 1;
  int loads = count_loads(body_of(f, n), MAX_TIMES * n->nin);
  return loads > n->nin ? (loads + n->nin - 1) / n->nin : 1;
}

static void find_polynomial(void *user, ix e) { *(bool *)user |= ix_info[e->op].traits[0] == 'E'; }
/* Whether the body of an elementwise node has an exponential, logarithm, .. */
static bool is_dear(fuse *f, ir_node *n) {
  bool dear = false;
  if (n->op->kind == IR_OP_ELEMENTWISE && n->nin) ix_walk(f->ctx, body_of(f, n), find_polynomial, &dear);
  return dear;
}

/* The share of elements of c, a user of n, that are n's: one, but of a Concat, which has lanes evaluate all of its parts. */
static double share_in(const ir_node *c, const ir_node *n) {
  const ir_value *part = n->out[0], *all = c->out[0];
  double share = 1;
  int64_t a, b;
  if (!ir_node_is(c, "Concat") || part->rank != all->rank) return 1;
  for (int i = 0; i < all->rank; i++) {
    if (!ix_const_value(part->dims[i], &a) || !ix_const_value(all->dims[i], &b)) return 1;
    if (b > 0) share *= (double)a / (double)b;
  }
  return share;
}

static void join(fuse *f, ir_node *n, int group, int times) {
  n->group = group;
  f->times[n->id] = times;
  f->share[n->id] = 1;
  IR_PUSH(f->ctx, f->members[group], f->nmembers[group], n);
}

/* What only widens a value for others (DequantizeLinear) leaves the group that has it narrow: memory then holds
 * the narrow one, and those who read it widen it themselves. */
static void shed_widening(fuse *f, int group) {
  for (int i = f->nmembers[group]; i-- > 1;) {
    ir_node *m = f->members[group][i];
    if (!ir_node_is(m, "DequantizeLinear") || m == f->root[group]) continue;
    bool outside = m->out[0]->nuses > 0;
    for (int u = 0; u < m->out[0]->nuses; u++) outside &= m->out[0]->uses[u] && m->out[0]->uses[u]->group != group;
    if (!outside) continue;
    m->group = -1;
    f->members[group][i] = f->members[group][--f->nmembers[group]];
  }
}

static bool is_packed(const ir_node *n) {
  for (int k = 0; k < n->nout; k++)
    if (n->out[k]) return n->out[k]->packed;
  return false;
}

/* Whether computing v needs group `target`, looking through groups and aliases. Positions tell
 * nothing: an early group may hold a late node that waits for the target. */
static bool reaches(fuse *f, const ir_value *v, int target) {
  ir_node *d = v ? v->def : NULL;
  if (!d || v->data) return false;
  if (d->group == target) return true;
  if (f->visited[d->id] == f->stamp) return false;
  f->visited[d->id] = f->stamp;
  if (d->group >= 0) { /* the whole group runs at once: all its operands count */
    for (int i = 0; i < f->nmembers[d->group]; i++) {
      ir_node *m = f->members[d->group][i];
      f->visited[m->id] = f->stamp;
      for (int k = 0; k < m->nin; k++)
        if (m->in[k] && (!m->in[k]->def || m->in[k]->def->group != d->group) && reaches(f, m->in[k], target)) return true;
    }
    return false;
  }
  for (int k = 0; k < d->nin; k++)
    if (reaches(f, d->in[k], target)) return true;
  return false;
}

static bool same_shape(const ir_value *a, const ir_value *b) {
  if (a->rank != b->rank || a->layout != b->layout) return false;
  for (int i = 0; i < a->rank; i++)
    if (a->dims[i] != b->dims[i]) return false;
  return true;
}

static bool takes_epilogue(const ir_node *n) {
  return n->op->kind == IR_OP_REDUCTION || n->op->kind == IR_OP_CONTRACTION || n->op->kind == IR_OP_WINDOW;
}

/* Whether c, computed from v, is for reductions alone, which inline it where they read: stored beside v, which
 * others need, it would be one more result to write and no less to read. */
static bool for_reductions(const ir_node *c, const ir_value *v) {
  if (c->nout != 1 || !c->out[0]->nuses || v->nuses < 2) return false;
  for (int i = 0; i < c->out[0]->nuses; i++)
    if (!c->out[0]->uses[i] || c->out[0]->uses[i]->op->kind != IR_OP_REDUCTION) return false;
  return true;
}

/* Consumers that are elementwise over a value of the group at the same index. */
static void grow_epilogue(fuse *f, int group) {
  ir_node *root = f->root[group];
  for (int i = 0; i < f->nmembers[group] && f->nmembers[group] < MAX_GROUP; i++) {
    ir_node *m = f->members[group][i];
    if (m == root && root->nout > 1) { /* several outputs: only when one is wanted */
      int wanted = 0;
      for (int k = 0; k < root->nout; k++) wanted += root->out[k] && root->out[k]->nuses > 0;
      if (wanted > 1) return;
    }
    for (int o = 0; o < m->nout; o++) {
      ir_value *v = m->out[o];
      if (!v) continue;
      for (int u = 0; u < v->nuses; u++) {
        ir_node *c = v->uses[u];
        if (!c || c->group != -1 || c->op->kind != IR_OP_ELEMENTWISE || !c->op->value || c->nout < 1) continue;
        bool fits = !for_reductions(c, v);
        int times = 0, reads = reads_of(f, c);
        for (int k = 0; k < c->nout; k++) fits &= !c->out[k] || same_shape(c->out[k], v);
        /* every operand from the group must be read at this very index */
        for (int k = 0; k < c->nin && fits; k++) {
          ir_value *w = c->in[k];
          if (!w) continue;
          if (w->def && w->def->group == group) {
            times += f->times[w->def->id] * reads;
            fits = same_shape(w, v) && times <= MAX_TIMES;
          } else {
            f->stamp++;
            fits = !reaches(f, w, group);
          }
        }
        if (fits) join(f, c, group, times);
      }
    }
  }
}

/* ---- cuts ---- */

static void put_node(ir_text *t, const ir_node *n) {
  ir_put(t, " %s", n->op->name);
  for (int k = 0; k < n->nin; k++) {
    const ir_value *v = n->in[k];
    ir_put(t, k ? "," : "(");
    if (!v) continue;
    ir_put(t, "%s", ir_dtype_name(v->dtype));
    for (int i = 0; i < v->rank; i++) ir_put(t, "%c%s", i ? 'x' : ' ', ix_print(t->ctx, v->dims[i]));
  }
  ir_put(t, ")");
  for (int k = 0; k < n->nattrs; k++) {
    ir_put(t, " %lld", (long long)n->attrs[k].i);
    for (int j = 0; j < n->attrs[k].n && n->attrs[k].ints; j++) ir_put(t, ",%lld", (long long)n->attrs[k].ints[j]);
  }
}

static bool is_cut(fuse *f, const ir_node *root, const char *text) {
  lw_group g = {ir_format(f->ctx, "%016llx", (unsigned long long)ir_hash_bytes(text, strlen(text), 5)), text, 0};
  for (int k = 0; k < root->nout; k++)
    if (root->out[k] && ir_static(root->out[k])) g.elements += (double)ir_value_elements(f->ctx, root->out[k]);
  return f->options->cut(f->options->cut_user, f->ctx, &g);
}

/* What follows the root in its group becomes a kernel of its own, if that is asked for. */
static void cut_epilogue(fuse *f, int group) {
  int n = f->nmembers[group];
  if (!f->options->cut || n < 2) return;
  ir_text t = {.ctx = f->ctx};
  ir_put(&t, "behind");
  for (int i = 0; i < n; i++) put_node(&t, f->members[group][i]);
  if (!is_cut(f, f->root[group], ir_text_str(&t))) return;
  for (int i = 1; i < n; i++) f->members[group][i]->group = -1;
  f->nmembers[group] = 1;
}

/* The same for what its root would inline where it reads. */
static void cut_prologue(fuse *f, int group) {
  ir_node *root = f->root[group];
  bool any = false;
  if (!f->options->cut || root->op->kind != IR_OP_REDUCTION) return;
  ir_text t = {.ctx = f->ctx};
  ir_put(&t, "before");
  put_node(&t, root);
  for (int k = 0; k < root->nin; k++) {
    const ir_node *p = root->in[k] ? root->in[k]->def : NULL;
    if (!p || p->group != -1 || p->op->kind != IR_OP_ELEMENTWISE || is_packed(p)) continue;
    any = true;
    put_node(&t, p);
  }
  f->cut[group] = any && is_cut(f, root, ir_text_str(&t));
}

/* Whether group `to` may inline producer p (all of whose uses are in it). */
static bool may_inline(const fuse *f, const ir_node *p, int to) {
  if (!p->op->value || p->nout != 1) return false;
  const ir_node *root = f->root[to];
  for (int u = 0; u < p->out[0]->nuses; u++) { /* a value op that reads an element several times */
    ir_op_kind kind = p->out[0]->uses[u]->op->kind;
    if (p->out[0]->uses[u] != root && kind != IR_OP_ELEMENTWISE && kind != IR_OP_MOVEMENT) return false;
  }
  if (!root) return true;
  bool in_epilogue = true; /* used by value ops of the group alone */
  for (int u = 0; u < p->out[0]->nuses; u++) in_epilogue &= p->out[0]->uses[u] != root;
  if (in_epilogue) return true;
  switch (root->op->kind) {
  case IR_OP_REDUCTION: return !f->cut[to];
  default: return false; /* each element is read many times: compute it once */
  }
}

static void absorb_producers(fuse *f) {
  for (int i = f->g->nnodes; i-- > 0;) {
    ir_node *n = f->g->nodes[i];
    if (n->group != -1 || !n->op->value) continue;
    int to = -1, times = 0;
    double share = 0;
    bool one = n->nout == 1 && n->out[0] && n->out[0]->nuses > 0;
    for (int u = 0; one && u < n->out[0]->nuses; u++) {
      ir_node *c = n->out[0]->uses[u];
      if (!c || c->group < 0 || (to >= 0 && c->group != to) || is_packed(c) != is_packed(n)) one = false;
      else to = c->group, times += f->times[c->id] * reads_of(f, c), share = fmax(share, f->share[c->id] * share_in(c, n));
      one &= times <= MAX_TIMES && !(c && ir_node_is(n, "Concat") && ir_node_is(c, "Concat") && n->nin + c->nin > LW_MAX_PARTS);
    }
    if (one && f->nmembers[to] < MAX_GROUP && may_inline(f, n, to) && !(share < DEAR_SHARE && is_dear(f, n))) {
      join(f, n, to, times);
      f->share[n->id] = share;
      continue;
    }
    join(f, n, group_new(f, NULL), 1);
  }
}

/* Attention and the product and nodes that make its scores, of which nothing else is needed: they may be a group
 * whatever is between, as all of that leads through them. */
static void take_scores(fuse *f, ir_node *n) {
  ir_node *nodes[LW_MAX_SCORE_NODES];
  int count = lw_score_nodes(n->in[0], nodes), group = group_new(f, n);
  join(f, n, group, 1);
  for (int i = 0; i < count; i++) join(f, nodes[i], group, 1);
  if (!is_packed(n)) grow_epilogue(f, group);
}

void lw_pass_fuse(tn_ctx *ctx, ir_graph *g, const lw_options *options) {
  fuse f = {.ctx = ctx, .g = g, .options = options};
  uint32_t ids = 0;
  lw_own_updates(ctx, g);
  for (int i = 0; i < g->nnodes; i++)
    if (g->nodes[i]->id >= ids) ids = g->nodes[i]->id + 1;
  f.times = IR_NEW_ARRAY(ctx, int, ids);
  f.share = IR_NEW_ARRAY(ctx, double, ids);
  f.visited = IR_NEW_ARRAY(ctx, uint32_t, ids);
  f.root = IR_NEW_ARRAY(ctx, ir_node *, g->nnodes + 1);
  f.members = IR_NEW_ARRAY(ctx, ir_node **, g->nnodes + 1);
  f.nmembers = IR_NEW_ARRAY(ctx, int, g->nnodes + 1);
  f.cut = IR_NEW_ARRAY(ctx, bool, g->nnodes + 1);
  ir_graph_analyse(g);
  lw_mark_packed(g);
  for (int i = 0; i < g->nnodes; i++) {
    ir_node *n = g->nodes[i];
    int64_t offset;
    n->group = lw_is_alias(ctx, n, &offset) ? LW_GROUP_ALIAS : -1;
  }
  join_movements(g);
  for (int i = 0; i < g->nnodes; i++)
    if (lw_is_attend(g->nodes[i])) take_scores(&f, g->nodes[i]);
  for (int i = 0; i < g->nnodes; i++) {
    ir_node *n = g->nodes[i];
    if (n->group != -1 || !(n->op->build || lw_is_region(n))) continue;
    int group = group_new(&f, n);
    join(&f, n, group, 1);
    if (takes_epilogue(n) && !is_packed(n)) grow_epilogue(&f, group), shed_widening(&f, group), cut_epilogue(&f, group);
    if (!is_packed(n)) cut_prologue(&f, group);
  }
  if (options->target && !options->unscheduled) lw_join_parts(ctx, g, true);
  absorb_producers(&f);
}
