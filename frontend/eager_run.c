/* eager_run.c — plans: what is to be computed as a graph of its own, compiled once. See eager.h.
 *
 *   results, updates ── cone, down to what has a value ── copy ── canonical names ── text ─┬─ known: its module
 *                                                                                          └─ compile */
#include "frontend/eager.h"
#include <stdlib.h>
#include <string.h>

typedef struct cone {
  tn_ctx *own; /* everything made here */
  tn_graph *g;
  ir_graph sub; /* shares nodes and values with the whole */
  uint8_t *seen; /* by id */
  bool whole;    /* down to data: a gradient needs the way that its operand was computed, known or not */
} cone;

static bool is_known(const cone *c, const ir_value *v) { return fe_bound_get(c->g->eager, v) && !(c->whole && v->def); }

static void add_input(cone *c, ir_value *v) {
  IR_PUSH(c->own, c->sub.inputs, c->sub.ninputs, v);
  IR_PUSH(c->own, c->sub.values, c->sub.nvalues, v);
}

typedef struct frame {
  ir_node *n;
  int next;
} frame;

/* A value with contents is an input of the cone, a constant comes along; true: its node is needed. */
static bool enter(cone *c, ir_value *v) {
  if (c->seen[v->id]) return false;
  c->seen[v->id] = 1;
  if (is_known(c, v)) add_input(c, v);
  else if (v->def) return !c->seen[v->def->id];
  else if (v->kind == IR_VALUE_CONST) {
    IR_PUSH(c->own, c->sub.params, c->sub.nparams, v);
    IR_PUSH(c->own, c->sub.values, c->sub.nvalues, v);
  } else ir_bug(c->own, "'%s' has no value", v->name);
  return false;
}

static void visit(cone *c, ir_value *v) {
  int depth = 0;
  frame *stack = NULL;
  if (enter(c, v)) {
    c->seen[v->def->id] = 1;
    IR_PUSH(c->own, stack, depth, (frame){v->def, 0});
  }
  while (depth) {
    frame *f = &stack[depth - 1];
    ir_node *n = f->n;
    if (f->next < n->nin) {
      ir_value *w = n->in[f->next++];
      if (!w || !enter(c, w)) continue;
      c->seen[w->def->id] = 1;
      IR_PUSH(c->own, stack, depth, (frame){w->def, 0});
      continue;
    }
    IR_PUSH(c->own, c->sub.nodes, c->sub.nnodes, n);
    for (int i = 0; i < n->nout; i++)
      if (n->out[i] && !is_known(c, n->out[i])) IR_PUSH(c->own, c->sub.values, c->sub.nvalues, n->out[i]);
    depth--;
  }
}

/* Names by order alone, so that equal graphs have equal texts. */
static void rename_all(tn_ctx *ctx, ir_graph *h) {
  for (int i = 0; i < h->ninputs; i++) h->inputs[i]->name = ir_intern(ctx, ir_format(ctx, "in%d", i));
  for (int i = 0; i < h->nparams; i++) h->params[i]->name = ir_intern(ctx, ir_format(ctx, "c%d", i));
  for (int i = 0; i < h->nnodes; i++) {
    ir_node *n = h->nodes[i];
    n->name = ir_intern(ctx, ir_format(ctx, "n%d", i));
    for (int k = 0; k < n->nout; k++)
      if (n->out[k]) n->out[k]->name = k ? ir_intern(ctx, ir_format(ctx, "n%d.%d", i, k)) : n->name;
  }
}

static const char *canonical_text(tn_ctx *ctx, ir_graph *h) {
  const char **where = IR_NEW_ARRAY(ctx, const char *, h->nnodes + 1); /* places are no part of it */
  for (int i = 0; i < h->nnodes; i++) where[i] = h->nodes[i]->where, h->nodes[i]->where = h->nodes[i]->name;
  const char *text = ir_graph_print(ctx, h);
  for (int i = 0; i < h->nnodes; i++) h->nodes[i]->where = where[i];
  return text;
}

typedef struct make_args {
  tn_graph *g;
  int nroots, nupdates;
  ir_value **roots;
  fe_compiled *c;  /* found, or new */
  bool fresh;
  cone cone;
} make_args;

/* The cone of roots and updates; true when it has a gradient. */
static bool collect(tn_ctx *own, make_args *a, bool whole) {
  const struct fe_eager *e = a->g->eager;
  cone *c = &a->cone;
  *c = (cone){.own = own, .g = a->g, .sub = {.ctx = a->g->ctx, .name = "eager"}, .whole = whole};
  c->seen = IR_NEW_ARRAY(own, uint8_t, ir_next_id(a->g->ctx));
  for (int i = 0; i < a->nroots; i++) visit(c, a->roots[i]);
  for (int i = 0; i < a->nupdates; i++) visit(c, e->updates[i].value);
  for (int i = 0; i < a->nupdates; i++) enter(c, e->updates[i].kept->v);
  for (int i = 0; i < c->sub.nnodes; i++)
    if (strcmp(c->sub.nodes[i]->op->name, "Gradient") == 0) return true;
  return false;
}

static void make(tn_ctx *own, void *arg) {
  make_args *a = arg;
  struct fe_eager *e = a->g->eager;
  cone *c = &a->cone;
  if (collect(own, a, false)) collect(own, a, true);
  for (int i = 0; i < a->nroots; i++) IR_PUSH(own, c->sub.outputs, c->sub.noutputs, a->roots[i]);
  for (int i = 0; i < a->nupdates; i++) {
    IR_PUSH(own, c->sub.updates, c->sub.nupdates, e->updates[i].kept->v);
    IR_PUSH(own, c->sub.outputs, c->sub.noutputs, e->updates[i].value);
  }
  ir_value **map;
  ir_graph *h = ir_graph_clone(own, &c->sub, &map);
  for (int i = 0; i < h->ninputs; i++) {
    ir_value *v = h->inputs[i];
    v->kind = IR_VALUE_INPUT;
    v->data = v->raw = v->start = NULL;
  }
  for (int i = 0; i < h->nvalues; i++)
    if (h->values[i]->kind == IR_VALUE_NODE) h->values[i]->data = NULL, h->values[i]->data_bytes = 0;
  rename_all(own, h);
  const char *text = canonical_text(own, h);
  uint64_t hash = ir_hash_bytes(text, strlen(text), 3);
  for (a->c = e->modules; a->c; a->c = a->c->next)
    if (a->c->hash == hash && strcmp(a->c->text, text) == 0) return;
  a->c = IR_NEW(own, fe_compiled);
  *a->c = (fe_compiled){.hash = hash, .text = text, .own = own, .module = fe_build(own, h, &e->options)};
  a->fresh = true;
}

/* The module that ran longest ago goes, with its plans; false: all are pinned. */
static bool evict(struct fe_eager *e) {
  fe_compiled **oldest = NULL;
  for (fe_compiled **at = &e->modules; *at; at = &(*at)->next)
    if (!(*at)->pinned && (!oldest || (*at)->used < (*oldest)->used)) oldest = at;
  if (!oldest) return false;
  fe_compiled *c = *oldest;
  for (int i = 0; i < FE_TABLE; i++)
    for (fe_plan **p = &e->plans[i]; *p;)
      if ((*p)->compiled == c) *p = (*p)->next;
      else p = &(*p)->next;
  *oldest = c->next;
  e->nmodules--;
  tn_ctx_free(c->own);
  return true;
}

void fe_eager_trim(struct fe_eager *e, int most) {
  while (e->nmodules > most && evict(e)) {}
}

static void free_own(void *own) { tn_ctx_free(own); }

static fe_plan *plan_make(tn_ctx *ctx, tn_graph *g, int nroots, ir_value **roots, int nupdates, int nkey, const uint32_t *key) {
  struct fe_eager *e = g->eager;
  tn_ctx *own = ir_ctx_like(ctx);
  if (!own) ir_fail(ctx, TN_ERESOURCE, "out of memory");
  ir_defer(ctx, free_own, own);
  make_args a = {.g = g, .nroots = nroots, .nupdates = nupdates, .roots = roots};
  tn_status status = ir_protect(own, make, &a);
  if (status != TN_OK) {
    ir_where(ctx, NULL); /* the node says its place */
    ir_fail(ctx, status, "%s", ir_strdup(ctx, ir_error(own)));
  }
  fe_plan *p = IR_NEW(ctx, fe_plan);
  *p = (fe_plan){.nkey = nkey, .compiled = a.c, .nin = a.cone.sub.ninputs, .nout = nroots};
  p->key = ir_grow(ctx, key, (size_t)nkey, (size_t)nkey, sizeof *key);
  p->in = ir_grow(ctx, a.cone.sub.inputs, (size_t)p->nin, (size_t)p->nin, sizeof *p->in);
  p->out = ir_grow(ctx, roots, (size_t)nroots, (size_t)nroots, sizeof *p->out);
  ir_undefer(ctx, free_own, own);
  if (a.fresh) {
    fe_eager_trim(e, e->most - 1);
    a.c->next = e->modules;
    a.c->used = (uint64_t)e->nruns;
    e->modules = a.c;
    e->nmodules++;
    e->ncompiled++;
  } else tn_ctx_free(own);
  return p;
}

fe_plan *fe_plan_get(tn_ctx *ctx, tn_graph *g, int nroots, ir_value **roots, int nupdates, int nkey, const uint32_t *key) {
  struct fe_eager *e = g->eager;
  uint64_t h = ir_hash_bytes(key, (size_t)nkey * sizeof *key, 4);
  fe_plan **chain = &e->plans[h % FE_TABLE], *p = *chain;
  while (p && (p->hash != h || p->nkey != nkey || memcmp(p->key, key, (size_t)nkey * sizeof *key) != 0)) p = p->next;
  if (p) return p;
  p = plan_make(ctx, g, nroots, roots, nupdates, nkey, key);
  p->hash = h;
  p->next = *chain;
  *chain = p;
  return p;
}

void fe_plan_run(tn_ctx *ctx, tn_graph *g, const fe_plan *p, fe_buffer *const *in, fe_buffer **out) {
  struct fe_eager *e = g->eager;
  enum { FEW = 64 };
  void *few[FEW];
  void **all = p->nin + p->nout <= FEW ? few : IR_NEW_ARRAY(ctx, void *, p->nin + p->nout);
  for (int i = 0; i < p->nin; i++) {
    if (!in[i]) ir_fail(ctx, TN_EUSAGE, "'%s' has no value any more", p->in[i]->name);
    all[i] = in[i]->data;
  }
  for (int i = 0; i < p->nout; i++) {
    out[i] = fe_buffer_new(ctx, e, (size_t)ir_value_bytes(ctx, p->out[i]));
    all[p->nin + i] = out[i]->data;
  }
  p->compiled->used = (uint64_t)e->nruns;
  int code = rt_run(p->compiled->module, (const void *const *)all, all + p->nin, NULL, NULL);
  e->nruns++;
  if (code == CG_RUN_OK) return;
  for (int i = 0; i < p->nout; i++) fe_buffer_drop(ctx, e, out[i]);
  ir_fail(ctx, code == RT_NO_MEMORY ? TN_ERESOURCE : TN_EINTERNAL, "%s", code == RT_NO_MEMORY ? "out of memory for the arena" : cg_run_error(code));
}
