/* inplace.c — updates: results of a run that take the place of what they were computed from.
 *
 *   kernel(in W, in G, out W')  ──>  kernel(inout W, in G)
 *
 * is right when every element of W is read before it is stored, and only where it is stored; and
 * when all other kernels that read W have run before (lw_make_program orders them so). What it stores where it was need not be
 * stored:
 *
 *   for i in 0 .. n { for j .. { W[i, j] = select(i == at, x, W[i, j]) } }  ──>  if (0 <= at < n) for j .. { W[at, j] = x } */
#include "lower/inplace.h"

typedef struct look {
  tn_ctx *ctx;
  const ir_buf *in, *out;
  const ix *index; /* of the store */
  int stores;
  bool late, elsewhere; /* `in` is read after the store, or at another index */
} look;

static void find_store(look *k, const ir_stmt *s) {
  if (!s) return;
  if (s->kind == IR_STORE && s->buf == k->out) {
    k->index = s->index;
    k->stores += s->op == IR_SET ? 1 : 2;
  }
  for (int i = 0; i < s->n; i++) find_store(k, s->items[i]);
  find_store(k, s->body);
  find_store(k, s->other);
}

static void check_load(void *user, ix e) {
  look *k = user;
  if (e->op != IX_LOAD || e->u.buf != k->in) return;
  if (k->stores) k->late = true;
  for (int a = 0; a < k->in->rank; a++) k->elsewhere |= e->args[a] != k->index[a];
}

/* In the order in which statements run: `stores` counts those that have passed. */
static void check_order(look *k, const ir_stmt *s) {
  if (!s) return;
  if (s->value) ix_walk(k->ctx, s->value, check_load, k);
  if (s->lo) ix_walk(k->ctx, s->lo, check_load, k), ix_walk(k->ctx, s->hi, check_load, k);
  if (s->kind == IR_STORE)
    for (int a = 0; a < s->buf->rank; a++) ix_walk(k->ctx, s->index[a], check_load, k);
  if (s->kind == IR_STORE && s->buf == k->out) k->stores++;
  for (int i = 0; i < s->n; i++) check_order(k, s->items[i]);
  check_order(k, s->body);
  check_order(k, s->other);
}

/* Of the stores that stand side by side, the one to `out` goes last: the others may read what it
 * overwrites. No store reads an output, so their order is free. */
static const ir_stmt *store_last(ir_rewriter *r, const ir_stmt *s) {
  const look *k = r->user;
  if (s->kind != IR_SEQ) return s;
  int at = 0, end;
  while (at < s->n && !(s->items[at]->kind == IR_STORE && s->items[at]->buf == k->out)) at++;
  for (end = at; end < s->n && s->items[end]->kind == IR_STORE && s->items[end]->buf->space == IR_GLOBAL; end++) continue;
  if (end <= at + 1) return s;
  const ir_stmt **items = IR_NEW_ARRAY(r->ctx, const ir_stmt *, s->n);
  int n = 0;
  for (int i = 0; i < s->n; i++) {
    if (i != at) items[n++] = s->items[i];
    if (i == end - 1) items[n++] = s->items[at];
  }
  return ir_seq(r->ctx, n, items);
}

/* The loop of s, around a single store, whose variable `cond` compares with something that is the same for all of s; *at: with what. */
static const ir_stmt *picked_loop(const ir_stmt *s, ix cond, ix *at) {
  for (const ir_stmt *l = s; l->kind == IR_FOR || l->kind == IR_LET; l = l->body)
    for (int side = 0; side < 2 && l->kind == IR_FOR; side++) {
      ix var = cond->args[side], other = cond->args[1 - side];
      if (var != l->var->expr) continue;
      bool same = !other->loads;
      for (const ir_stmt *k = s; k->kind == IR_FOR || k->kind == IR_LET; k = k->body) same &= !ix_uses_var(other, k->var);
      *at = other;
      return same ? l : NULL;
    }
  return NULL;
}

static const ir_stmt *without_loop(tn_ctx *ctx, const ir_stmt *s, const ir_stmt *loop, ix at, const ir_stmt *store) {
  if (s->kind == IR_STORE || (s->kind == IR_LET && s->body->kind == IR_STORE && s->body->value == s->var->expr)) return store;
  const ir_stmt *body = without_loop(ctx, s->body, loop, at, store);
  if (s == loop) return ir_subst_var(ctx, body, s->var, at);
  return s->kind == IR_LET ? ir_let(ctx, s->var, s->value, body) : ir_for(ctx, s->var, s->lo, s->hi, s->loop, body);
}

/* Loops that put one slice into a buffer and leave the rest. user: the buffer. */
static const ir_stmt *store_slice(ir_rewriter *r, const ir_stmt *s) {
  const ir_buf *both = r->user;
  const ir_stmt *store = s;
  ix value = NULL, at;
  if (s->kind != IR_FOR) return s;
  for (; store->kind == IR_FOR || store->kind == IR_LET; store = store->body)
    if (store->kind == IR_LET && store->body->kind == IR_STORE && store->body->value == store->var->expr) value = store->value;
  if (store->kind != IR_STORE || store->buf != both || store->op != IR_SET) return s;
  if (!value) value = store->value;
  if (value->op != IX_SELECT || value->args[0]->op != IX_EQ) return s;
  ix keep = value->args[2];
  bool kept = keep->op == IX_LOAD && keep->u.buf == both && !ix_uses_buf(value->args[1], both);
  for (int a = 0; a < both->rank && kept; a++) kept = keep->args[a] == store->index[a];
  const ir_stmt *loop = kept ? picked_loop(s, value->args[0], &at) : NULL;
  if (!loop) return s;
  const ir_stmt *one = without_loop(r->ctx, s, loop, at, ir_store(r->ctx, store->buf, store->index, IR_SET, value->args[1]));
  return ir_if(r->ctx, ix_and(r->ctx, ix_le(r->ctx, loop->lo, at), ix_lt(r->ctx, at, loop->hi)), one, NULL);
}

ir_kernel *lw_kernel_in_place(tn_ctx *ctx, const ir_kernel *k, int in, int out) {
  ir_buf *from = k->bufs[in], *to = k->bufs[out];
  look l = {.ctx = ctx, .in = from, .out = to};
  if (from->access != IR_IN || to->access != IR_OUT || from->dtype != to->dtype || from->rank != to->rank || from->layout != to->layout) return NULL;
  for (int a = 0; a < from->rank; a++)
    if (from->shape[a] != to->shape[a]) return NULL;
  find_store(&l, k->body);
  if (l.stores != 1) return NULL;
  ir_rewriter r = {.ctx = ctx, .user = &l, .stmt = store_last};
  const ir_stmt *body = ir_rewrite(&r, k->body);
  l.stores = 0;
  check_order(&l, body);
  if (l.late || l.elsewhere) return NULL;
  ir_buf *both = ir_buf_new(ctx, to->name, to->dtype, to->rank, to->shape, to->layout, IR_GLOBAL);
  both->access = IR_INOUT;
  ir_kernel *m = IR_NEW(ctx, ir_kernel);
  *m = *k;
  ir_rewriter slices = {.ctx = ctx, .user = both, .stmt = store_slice};
  m->body = ir_rewrite(&slices, ir_subst_buf(ctx, ir_subst_buf(ctx, body, from, both), to, both));
  m->bufs = IR_NEW_ARRAY(ctx, ir_buf *, k->nbufs);
  m->nbufs = 0;
  for (int i = 0; i < k->nbufs; i++)
    if (i != in) m->bufs[m->nbufs++] = i == out ? both : k->bufs[i];
  return m;
}

/* A value that is another's memory would be overwritten while it is copied (two states that change
 * places): it gets memory of its own first. */
void lw_own_updates(tn_ctx *ctx, ir_graph *g) {
  int results = ir_graph_results(g);
  for (int i = 0; i < g->nupdates; i++) {
    ir_value *v = g->outputs[results + i], *base = v;
    while (base->def && base->def->op->kind == IR_OP_MOVEMENT && base->def->nin) base = base->def->in[0];
    if (base->kind != IR_VALUE_STATE && base->kind != IR_VALUE_INPUT) continue;
    ir_node *n = ir_node_new(g, v->dtype == TN_BOOL ? "Or" : "Max", ir_format(ctx, "%s.next", g->updates[i]->name), v->dtype == TN_BOOL ? 2 : 1,
                             (ir_value *[]){v, v}, 1);
    ir_infer(ctx, n);
    g->outputs[results + i] = n->out[0];
  }
}
