/* clone.c — copies of graphs, into the same context or another. */
#include "ir/ctx_internal.h"
#include "ir/ir.h"

typedef struct cloner {
  tn_ctx *ctx;
  bool other;        /* another context: expressions and layouts must be made anew */
  ir_value **values; /* by id of the original */
  uint32_t nvalues;
  ir_var **from, **to; /* symbolic dimensions */
  int nvars;
} cloner;

static ir_var *copy_var(cloner *c, ir_var *v) {
  for (int i = 0; i < c->nvars; i++)
    if (c->from[i] == v) return c->to[i];
  ir_var *w = ir_var_new(c->ctx, ir_intern(c->ctx, v->name), v->dtype, v->lo, v->hi);
  int n = c->nvars; /* two arrays that grow together */
  IR_PUSH(c->ctx, c->from, n, v);
  IR_PUSH(c->ctx, c->to, c->nvars, w);
  return w;
}

static ix copy_expr(cloner *c, ix e) {
  if (!e || !c->other) return e;
  if (e->op == IX_CONST) return ir_is_float((tn_dtype)e->dtype) ? ix_float(c->ctx, (tn_dtype)e->dtype, e->u.f) : ix_int(c->ctx, (tn_dtype)e->dtype, e->u.i);
  if (e->op == IX_VAR) return copy_var(c, e->u.var)->expr;
  ir_assert(c->ctx, e->op != IX_LOAD);
  ix *args = IR_NEW_ARRAY(c->ctx, ix, e->nargs);
  for (int i = 0; i < e->nargs; i++) args[i] = copy_expr(c, e->args[i]);
  return ix_make(c->ctx, (ir_opcode)e->op, (tn_dtype)e->dtype, e->nargs, args);
}

static ir_value *copy_value(cloner *c, const ir_value *v) {
  if (!v) return NULL;
  ir_assert(c->ctx, v->id < c->nvalues);
  if (c->values[v->id]) return c->values[v->id];
  ir_value *w = c->values[v->id] = IR_NEW(c->ctx, ir_value);
  *w = *v;
  w->id = c->ctx->next_id++;
  w->name = ir_intern(c->ctx, v->name);
  for (int i = 0; i < v->rank; i++) w->dims[i] = copy_expr(c, v->dims[i]);
  if (v->layout && c->other) w->layout = ir_layout_parse(c->ctx, v->layout->text);
  w->def = NULL; /* its node sets it */
  w->nuses = 0;
  w->uses = NULL;
  return w;
}

static ir_graph *copy_graph(cloner *c, const ir_graph *g, ir_graph *outer);

static ir_attr copy_attr(cloner *c, const ir_attr *a, ir_graph *g) {
  ir_attr b = *a;
  b.name = ir_intern(c->ctx, a->name);
  if (a->tensor) b.tensor = copy_value(c, a->tensor);
  if (a->graph) b.graph = copy_graph(c, a->graph, g);
  return b;
}

static ir_node *copy_node(cloner *c, const ir_node *n, ir_graph *g) {
  ir_node *m = IR_NEW(c->ctx, ir_node);
  *m = *n;
  m->id = c->ctx->next_id++;
  m->name = ir_intern(c->ctx, n->name);
  m->graph = g;
  if (c->other) m->where = ir_strdup(c->ctx, n->where);
  m->in = IR_NEW_ARRAY(c->ctx, ir_value *, n->nin);
  m->out = IR_NEW_ARRAY(c->ctx, ir_value *, n->nout);
  for (int i = 0; i < n->nin; i++) m->in[i] = copy_value(c, n->in[i]);
  for (int i = 0; i < n->nout; i++) {
    m->out[i] = copy_value(c, n->out[i]);
    if (m->out[i]) m->out[i]->def = m;
  }
  m->nattrs = 0; /* pushed, so that the room is what IR_PUSH takes it to be */
  m->attrs = NULL;
  for (int i = 0; i < n->nattrs; i++) {
    ir_attr a = copy_attr(c, &n->attrs[i], g);
    IR_PUSH(c->ctx, m->attrs, m->nattrs, a);
  }
  return m;
}

static ir_graph *copy_graph(cloner *c, const ir_graph *g, ir_graph *outer) {
  tn_ctx *ctx = c->ctx;
  ir_graph *h = ir_graph_new(ctx, g->name);
  h->file = g->file ? ir_strdup(ctx, g->file) : NULL;
  h->outer = outer;
  for (int i = 0; i < g->nvalues; i++) {
    ir_value *v = copy_value(c, g->values[i]);
    IR_PUSH(ctx, h->values, h->nvalues, v);
  }
  for (int i = 0; i < g->ninputs; i++) IR_PUSH(ctx, h->inputs, h->ninputs, copy_value(c, g->inputs[i]));
  for (int i = 0; i < g->nparams; i++) IR_PUSH(ctx, h->params, h->nparams, copy_value(c, g->params[i]));
  for (int i = 0; i < g->nnodes; i++) {
    if (g->nodes[i]->dead) continue;
    ir_node *m = copy_node(c, g->nodes[i], h);
    IR_PUSH(ctx, h->nodes, h->nnodes, m);
  }
  for (int i = 0; i < g->noutputs; i++) IR_PUSH(ctx, h->outputs, h->noutputs, copy_value(c, g->outputs[i]));
  for (int i = 0; i < g->nextents; i++) IR_PUSH(ctx, h->extents, h->nextents, g->extents[i]);
  for (int i = 0; i < g->nupdates; i++) IR_PUSH(ctx, h->updates, h->nupdates, copy_value(c, g->updates[i]));
  return h;
}

ir_graph *ir_graph_clone(tn_ctx *ctx, const ir_graph *g, ir_value ***map) {
  cloner c = {.ctx = ctx, .other = ctx != g->ctx, .nvalues = g->ctx->next_id};
  c.values = IR_NEW_ARRAY(ctx, ir_value *, c.nvalues + 1);
  ir_graph *h = copy_graph(&c, g, NULL);
  if (map) *map = c.values;
  return h;
}
