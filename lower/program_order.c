/* program_order.c — groups in the order in which they run, and updates that are stored over what they replace. */
#include "lower/program_internal.h"
#include <stdlib.h>

/* ---- groups in order ---- */

void lw_collect_groups(lw_maker *m) {
  ir_graph *g = m->g;
  for (int i = 0; i < g->nnodes; i++)
    if (g->nodes[i]->group >= m->ngroups) m->ngroups = g->nodes[i]->group + 1;
  m->root = IR_NEW_ARRAY(m->ctx, ir_node *, m->ngroups + 1);
  m->members = IR_NEW_ARRAY(m->ctx, ir_node **, m->ngroups + 1);
  m->nmembers = IR_NEW_ARRAY(m->ctx, int, m->ngroups + 1);
  m->group_packed = IR_NEW_ARRAY(m->ctx, bool, m->ngroups + 1);
  m->state = IR_NEW_ARRAY(m->ctx, uint8_t, m->ngroups + 1);
  m->seen = IR_NEW_ARRAY(m->ctx, uint32_t, m->ngroups + 1);
  m->order = IR_NEW_ARRAY(m->ctx, int, m->ngroups + 1);
  m->depth = IR_NEW_ARRAY(m->ctx, int, m->ngroups + 1);
  for (int i = 0; i < m->ngroups; i++) m->group_packed[i] = true;
  for (int i = 0; i < g->nnodes; i++) {
    ir_node *n = g->nodes[i];
    bool packed = false;
    for (int k = 0; k < n->nout; k++) packed |= n->out[k] && n->out[k]->packed;
    if (n->group < 0) continue;
    IR_PUSH(m->ctx, m->members[n->group], m->nmembers[n->group], n);
    if (n->op->build) m->root[n->group] = n; /* of several the last: nodes stand in order */
    if (!packed) m->group_packed[n->group] = false;
  }
}

int lw_group_of(const ir_value *v) {
  while (v && v->def && v->def->group == LW_GROUP_ALIAS) v = v->def->in[0];
  return v && !v->data && v->def && v->def->group >= 0 ? v->def->group : -1;
}

static void visit_group(lw_maker *m, int group);
static void visit_value(lw_maker *m, const ir_value *v) {
  for (const ir_value *a = v; a && a->def && a->def->group == LW_GROUP_ALIAS; a = a->def->in[0])
    for (int k = 1; k < a->def->nin; k++) visit_value(m, a->def->in[k]); /* what it waits for */
  int group = lw_group_of(v);
  if (group >= 0) visit_group(m, group);
}
static void visit_group(lw_maker *m, int group) {
  if (m->state[group] == 2) return;
  if (m->state[group] == 1) ir_bug(m->ctx, "groups need each other: %s", m->members[group][0]->where);
  m->state[group] = 1;
  for (int i = 0; i < m->nmembers[group]; i++) {
    ir_node *n = m->members[group][i];
    for (int k = 0; k < n->nin; k++)
      if (n->in[k] && !(n->in[k]->def && n->in[k]->def->group == group)) visit_value(m, n->in[k]);
  }
  for (int i = 0; i < m->nupdates; i++)
    for (int k = 0; m->updates[i].group == group && k < m->updates[i].nbefore; k++) visit_group(m, m->updates[i].before[k]);
  m->state[group] = 2;
  m->order[m->norder++] = group;
}

/* Groups on the longest chain that ends with this one. */
static int depth_of(lw_maker *m, int group) {
  if (m->depth[group]) return m->depth[group];
  int most = 0;
  for (int i = 0; i < m->nmembers[group]; i++)
    for (int k = 0; k < m->members[group][i]->nin; k++) {
      int need = lw_group_of(m->members[group][i]->in[k]), d = need >= 0 && need != group ? depth_of(m, need) : 0;
      if (d > most) most = d;
    }
  return m->depth[group] = most + 1;
}

static int by_depth(const void *a, const void *b) {
  const lw_update *x = a, *y = b;
  return x->depth != y->depth ? x->depth - y->depth : x->number - y->number;
}

/* What the outputs need; of updates first those that are known first, so that the way back through a network
 * ends what it needs for a layer before it goes on to the next: gradients are used while they are near. */
void lw_order_groups(lw_maker *m) {
  ir_graph *g = m->g;
  int results = ir_graph_results(g);
  for (int i = 0; i < results; i++) visit_value(m, g->outputs[i]);
  lw_update *sorted = IR_NEW_ARRAY(m->ctx, lw_update, m->nupdates + 1);
  for (int i = 0; i < m->nupdates; i++) {
    int group = lw_group_of(m->updates[i].value);
    sorted[i] = m->updates[i];
    sorted[i].number = i;
    sorted[i].depth = group >= 0 ? depth_of(m, group) : 0;
  }
  qsort(sorted, (size_t)m->nupdates, sizeof *sorted, by_depth);
  for (int i = 0; i < m->nupdates; i++) visit_value(m, sorted[i].value);
}

/* ---- updates in place ---- */

/* Whether group a runs after b: it needs b's results, or overwrites what b reads. */
static bool runs_after(lw_maker *m, int a, int b) {
  if (a == b) return true;
  if (m->seen[a] == m->stamp) return false;
  m->seen[a] = m->stamp;
  for (int i = 0; i < m->nmembers[a]; i++)
    for (int k = 0; k < m->members[a][i]->nin; k++) {
      int need = lw_group_of(m->members[a][i]->in[k]);
      if (need >= 0 && need != a && runs_after(m, need, b)) return true;
    }
  for (int i = 0; i < m->nupdates; i++)
    for (int k = 0; m->updates[i].group == a && k < m->updates[i].nbefore; k++)
      if (runs_after(m, m->updates[i].before[k], b)) return true;
  return false;
}

/* Whether `group` reads the memory of v; *shifted: also through an alias. */
static bool reads(const lw_maker *m, int group, const ir_value *v, bool *shifted) {
  bool found = false;
  for (int i = 0; i < m->nmembers[group]; i++)
    for (int k = 0; k < m->members[group][i]->nin; k++) {
      const ir_value *w = m->members[group][i]->in[k], *base = w;
      while (base && base->def && base->def->group == LW_GROUP_ALIAS) base = base->def->in[0];
      if (base != v) continue;
      found = true;
      *shifted |= w != v;
    }
  return found;
}

void lw_plan_updates(lw_maker *m) {
  ir_graph *g = m->g;
  int results = ir_graph_results(g);
  m->updates = IR_NEW_ARRAY(m->ctx, lw_update, g->nupdates + 1);
  for (int i = 0; i < g->nupdates; i++) {
    lw_update *u = &m->updates[i];
    *u = (lw_update){.target = g->updates[i], .value = g->outputs[results + i], .group = -1};
    m->nupdates = i + 1;
    ir_value *v = u->value, *own = v; /* a reshape of what a kernel stores may lie there, too */
    while (own->def && own->def->group == LW_GROUP_ALIAS) own = own->def->in[0];
    int group = lw_group_of(v);
    bool possible = group >= 0 && !m->group_packed[group] && own->kind == IR_VALUE_NODE && !own->layout &&
                    ir_value_bytes(m->ctx, own) == ir_value_bytes(m->ctx, u->target);
    for (int k = 0; k < results + i && possible; k++) { /* it must have no other place to be stored at */
      const ir_value *w = g->outputs[k];
      while (w->def && w->def->group == LW_GROUP_ALIAS) w = w->def->in[0];
      possible = w != own;
    }
    bool shifted = false;
    if (possible && reads(m, group, u->target, &shifted) && (shifted || own != v)) possible = false;
    int nbefore = 0, *before = NULL;
    for (int r = 0; r < m->ngroups && possible; r++) {
      if (r == group || !m->nmembers[r] || !reads(m, r, u->target, &shifted)) continue;
      IR_PUSH(m->ctx, before, nbefore, r);
      m->stamp++;
      possible = !runs_after(m, r, group);
    }
    if (possible) u->group = group, u->nbefore = nbefore, u->before = before;
  }
}
