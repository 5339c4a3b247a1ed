/* grad.c — the pass from y back to the xs; see grad.h. */
#include "lower/grad.h"
#include "ir/text.h"
#include <string.h>

/* What is known of a value or a node on the way; by pointer in one map, since values and
 * nodes never share an address. */
typedef struct mark {
  bool seen, active; /* active: an x, or computed from one */
  bool x;
  bool kept;         /* not computed again on the way back */
  ir_value *sum;     /* the gradient so far */
  void *again;       /* of a node: its copy; of a value that is kept: its alias */
} mark;

typedef struct sweep {
  tn_ctx *ctx;
  ir_graph *g;
  const ir_node *asker;
  bool marked;    /* there are checkpoints: what is between them is computed again */
  int64_t memory; /* that may be kept; 0: any */
  bool stop;      /* xs are borders: nothing before them counts */
  ir_map marks;
  int norder;
  ir_node **order; /* active nodes, operands first */
} sweep;

static mark *mark_of(sweep *s, const void *p) {
  mark *m = ir_map_get(&s->marks, p);
  if (!m) ir_map_set(&s->marks, p, m = IR_NEW(s->ctx, mark));
  return m;
}

static void add_to(sweep *s, ir_node *n, ir_value *v, ir_value *by) {
  mark *m = mark_of(s, v);
  if (by) m->sum = m->sum ? lw_op2(s->g, n, "Add", m->sum, by) : by;
}

/* ---- which nodes matter ---- */

/* tenon:Checkpoint; told by its rule, which it shares with no other. */
static bool is_checkpoint(const ir_node *n) { return n->op->grad_build == lw_grad_checkpoint; }

static bool carries(const ir_value *v) { return v && ir_is_float(v->dtype); }

/* All operands have been visited: is n active? */
static void conclude(sweep *s, ir_node *n) {
  bool active = false;
  for (int k = 0; k < n->nin; k++) active |= carries(n->in[k]) && mark_of(s, n->in[k])->active;
  if (!active) return;
  for (int k = 0; k < n->nout; k++)
    if (carries(n->out[k])) mark_of(s, n->out[k])->active = true;
  IR_PUSH(s->ctx, s->order, s->norder, n);
  s->marked |= is_checkpoint(n);
}

/* Fills `order` with the active nodes that v needs; depth first, on a stack of its own
 * because unrolled recurrences are deep. */
static void visit(sweep *s, const ir_value *v) {
  typedef struct frame {
    ir_node *n;
    int next;
  } frame;
  frame *stack = NULL;
  int depth = 0, room = 0;
  const ir_value *at = v;
  for (;;) {
    ir_node *d = carries(at) && !(s->stop && mark_of(s, at)->x) ? at->def : NULL;
    if (d && !mark_of(s, d)->seen) {
      mark_of(s, d)->seen = true;
      if (depth == room) stack = ir_grow(s->ctx, stack, (size_t)depth, (size_t)(room = room ? 2 * room : 64), sizeof *stack);
      stack[depth++] = (frame){d, 0};
    }
    while (depth && stack[depth - 1].next == stack[depth - 1].n->nin) conclude(s, stack[--depth].n);
    if (!depth) return;
    at = stack[depth - 1].n->in[stack[depth - 1].next++];
  }
}

/* ---- one node ---- */

static void sweep_back(sweep *s, int ny, ir_value *const *ys, ir_value *const *dys, ir_node *asker, int nx, ir_value *const *xs, ir_value **out);

static bool has_rule(const ir_op *op) { return op->grad || op->grad_build || op->expand; }

static void no_rule(const sweep *s, const ir_node *n) IR_NORETURN;
static void no_rule(const sweep *s, const ir_node *n) {
  ir_fail(s->ctx, TN_EUNSUPPORTED, "%s: %s: %s%s%s is not differentiable: it has no gradient rule", s->asker->where, n->where, n->op->domain ? n->op->domain : "",
          n->op->domain && *n->op->domain ? ":" : "", n->op->name);
}

/* The gradient of the nodes that an equal node expands into; dx as sums, null where none arrives. */
static void through_parts(lw_grad *d) {
  ir_graph *g = d->g;
  ir_node *n = d->n;
  int first = g->nnodes, ny = 0;
  ir_node *twin = lw_node_n(g, n, "Identity", n->nin, n->in, n->nout);
  twin->op = n->op;
  twin->opset = n->opset;
  twin->nattrs = n->nattrs;
  twin->attrs = n->attrs;
  for (int k = 0; k < n->nout; k++)
    if (!n->out[k]) twin->out[k] = NULL;
  ir_infer(d->ctx, twin);
  /* the expansion replaces the twin's outputs in whatever reads them */
  ir_node *reader = lw_node_n(g, n, "Identity", n->nout, twin->out, 0);
  n->op->expand(g, twin);
  twin->dead = true;
  reader->dead = true;
  lw_settle(d->ctx, g, first);
  ir_value **ys = IR_NEW_ARRAY(d->ctx, ir_value *, n->nout), **dys = IR_NEW_ARRAY(d->ctx, ir_value *, n->nout);
  for (int k = 0; k < n->nout; k++)
    if (d->dy[k]) ys[ny] = reader->in[k], dys[ny++] = d->dy[k];
  int nx = 0, *operand = IR_NEW_ARRAY(d->ctx, int, n->nin);
  ir_value **xs = IR_NEW_ARRAY(d->ctx, ir_value *, n->nin), **dxs = IR_NEW_ARRAY(d->ctx, ir_value *, n->nin);
  for (int k = 0; k < n->nin; k++) {
    bool again = !d->wanted[k]; /* an operand that stands twice gets its sum once */
    for (int j = 0; j < nx; j++) again |= xs[j] == n->in[k];
    if (!again) operand[nx] = k, xs[nx++] = n->in[k];
  }
  sweep inner = {.ctx = d->ctx, .g = g, .asker = n, .stop = true};
  inner.marks.ctx = d->ctx;
  for (int k = 0; k < n->nin; k++)
    if (carries(n->in[k])) mark_of(&inner, n->in[k])->x = true; /* a border, also where its gradient is not wanted */
  sweep_back(&inner, ny, ys, dys, n, nx, xs, dxs);
  for (int i = 0; i < nx; i++) lw_grad_add(d, operand[i], dxs[i]);
}

/* ---- computing again ---- */

static ir_node *again(sweep *s, ir_node *n, ir_value *after);

/* v for the way back: kept when it is a checkpoint or does not depend on the xs, else computed again from
 * what is kept. Kept values are read through an alias that waits for `after`, a gradient: so the copies
 * are not found equal to the originals, and run when they are needed, not before. */
static ir_value *again_value(sweep *s, ir_value *v, ir_value *after) {
  ir_node *d = v ? v->def : NULL;
  if (!v || !mark_of(s, v)->active) return v;
  bool zero = d && d->op->grad && !*d->op->grad; /* random numbers among them */
  if (d && !is_checkpoint(d) && !zero && !mark_of(s, v)->x && !mark_of(s, v)->kept) return again(s, d, after)->out[v->def_index];
  mark *m = mark_of(s, v);
  if (!m->again) m->again = lw_op2(s->g, d ? d : (ir_node *)(uintptr_t)s->asker, "tenon:Again", v, after);
  return m->again;
}
static ir_node *again(sweep *s, ir_node *n, ir_value *after) {
  mark *m = mark_of(s, n);
  if (m->again) return m->again;
  ir_node *twin = lw_node_n(s->g, n, "Identity", n->nin, n->in, n->nout);
  m->again = twin;
  twin->op = n->op;
  twin->opset = n->opset;
  twin->nattrs = n->nattrs;
  twin->attrs = n->attrs;
  for (int k = 0; k < n->nout; k++)
    if (!n->out[k]) twin->out[k] = NULL;
  for (int k = 0; k < n->nin; k++) twin->in[k] = again_value(s, n->in[k], after);
  ir_infer(s->ctx, twin);
  return twin;
}

static void pass_back(sweep *s, ir_node *n) {
  tn_ctx *ctx = s->ctx;
  lw_grad d = {.ctx = ctx, .g = s->g, .n = n};
  d.dy = IR_NEW_ARRAY(ctx, ir_value *, n->nout + 1);
  d.wanted = IR_NEW_ARRAY(ctx, bool, n->nin + 1);
  d.dx = IR_NEW_ARRAY(ctx, ir_value *, n->nin + 1);
  bool any = false;
  for (int k = 0; k < n->nout; k++)
    if (n->out[k]) any |= (d.dy[k] = mark_of(s, n->out[k])->sum) != NULL;
  if (!any) return;
  for (int k = 0; k < n->nin; k++) d.wanted[k] = carries(n->in[k]) && mark_of(s, n->in[k])->active;
  for (int k = 0; s->marked && d.n == n && k < n->nout; k++)
    if (d.dy[k]) d.n = again(s, n, d.dy[k]);
  if (n->op->grad_build) n->op->grad_build(&d);
  else if (n->op->grad) lw_grad_text(&d, n->op->grad);
  else if (n->op->expand) through_parts(&d);
  else no_rule(s, n);
  for (int k = 0; k < n->nin; k++)
    if (d.dx[k]) add_to(s, n, n->in[k], d.dx[k]);
}

static void find_order(sweep *s, int ny, ir_value *const *ys, int nx, ir_value *const *xs) {
  for (int i = 0; i < nx; i++) mark_of(s, xs[i])->x = mark_of(s, xs[i])->active = true;
  for (int i = 0; i < ny; i++) visit(s, ys[i]);
}

static void choose_kept(sweep *s) {
  ir_value **kept;
  int n = lw_grad_kept(s->ctx, s->norder, s->order, s->memory, &kept);
  s->marked = n >= 0;
  for (int i = 0; i < n; i++) mark_of(s, kept[i])->kept = true;
}

static void sweep_back(sweep *s, int ny, ir_value *const *ys, ir_value *const *dys, ir_node *asker, int nx, ir_value *const *xs, ir_value **out) {
  find_order(s, ny, ys, nx, xs);
  if (s->memory && !s->marked) choose_kept(s);
  for (int i = 0; i < ny; i++) add_to(s, asker, ys[i], dys[i]);
  for (int i = s->norder; i-- > 0;) pass_back(s, s->order[i]);
  for (int i = 0; i < nx; i++) out[i] = mark_of(s, xs[i])->sum;
}

/* ---- what rules call ---- */

void lw_grad_dims(tn_ctx *ctx, const ir_value *v, int64_t *dims) {
  for (int i = 0; i < v->rank; i++) dims[i] = ir_dim(ctx, v, i);
}

ir_value *lw_grad_sum(ir_graph *g, ir_node *n, ir_value *v, int count, const int64_t *axes, bool keep) {
  if (!count) return v;
  return lw_op2_int(g, n, "ReduceSum", v, ir_graph_ints(g, NULL, count, axes), "keepdims", keep);
}

static bool same_dims(const ir_value *a, const ir_value *b) {
  if (a->rank != b->rank) return false;
  for (int i = 0; i < a->rank; i++)
    if (a->dims[i] != b->dims[i]) return false;
  return true;
}

ir_value *lw_grad_unbroadcast(ir_graph *g, ir_node *n, ir_value *v, const ir_value *like) {
  if (same_dims(v, like)) return v;
  tn_ctx *ctx = g->ctx;
  int64_t axes[IR_MAX_RANK], dims[IR_MAX_RANK];
  int count = 0;
  for (int i = 0; i < v->rank; i++) {
    int a = i - (v->rank - like->rank);
    if (a < 0 || (ix_is_int(like->dims[a], 1) && !ix_is_int(v->dims[i], 1))) axes[count++] = i;
  }
  v = lw_grad_sum(g, n, v, count, axes, true);
  lw_grad_dims(ctx, like, dims);
  if (v->rank > like->rank) {
    int64_t kept[IR_MAX_RANK]; /* leading axes have extent 1 now; others may still be broadcast */
    for (int i = 0; i < like->rank; i++) kept[i] = ir_dim(ctx, v, i + v->rank - like->rank);
    v = lw_reshape(g, n, v, like->rank, kept);
  }
  return same_dims(v, like) ? v : lw_op2(g, n, "Expand", v, ir_graph_ints(g, NULL, like->rank, dims));
}

void lw_grad_add(lw_grad *d, int k, ir_value *v) {
  if (!v || !d->wanted[k]) return;
  v = lw_grad_unbroadcast(d->g, d->n, v, d->n->in[k]);
  v = lw_cast_node(d->g, d->n, v, d->n->in[k]->dtype);
  d->dx[k] = d->dx[k] ? lw_op2(d->g, d->n, "Add", d->dx[k], v) : v;
}

ir_value *lw_grad_output(lw_grad *d, int k) {
  ir_node *n = d->n;
  if (k < n->nout && n->out[k]) return n->out[k];
  ir_value **out = IR_NEW_ARRAY(d->ctx, ir_value *, k + 1);
  for (int i = 0; i < n->nout && i <= k; i++) out[i] = n->out[i];
  ir_node *spare = lw_node_n(d->g, n, "Identity", 0, NULL, 1); /* for a value that belongs to the graph */
  spare->dead = true;
  out[k] = spare->out[0];
  out[k]->def = n;
  out[k]->def_index = k;
  if (k < n->nout)
    for (int i = k + 1; i < n->nout; i++) ir_bug(d->ctx, "%s: an output before the last is missing", n->where);
  n->out = out;
  n->nout = k + 1;
  ir_infer(d->ctx, n);
  return out[k];
}

ir_value *lw_grad_full(lw_grad *d, const ir_value *like, int rank, const int64_t *dims, double number) {
  ir_value *v = lw_number(d->g, like, number);
  return rank ? lw_op2(d->g, d->n, "Expand", v, ir_graph_ints(d->g, NULL, rank, dims)) : v;
}

ir_value *lw_grad_zeros(lw_grad *d, const ir_value *like) {
  int64_t dims[IR_MAX_RANK];
  lw_grad_dims(d->ctx, like, dims);
  return lw_grad_full(d, like, like->rank, dims, 0);
}

/* ---- the entry ---- */

static void check_types(tn_ctx *ctx, const ir_node *n0, const ir_value *y, const ir_value *seed, int n, ir_value *const *wrt) {
  if (!ir_is_float(y->dtype)) ir_fail(ctx, TN_EUSAGE, "%s: the gradient of '%s', which is %s: only floats have one", n0->where, y->name, ir_dtype_name(y->dtype));
  for (int i = 0; i < n; i++)
    if (!ir_is_float(wrt[i]->dtype))
      ir_fail(ctx, TN_EUSAGE, "%s: the gradient with respect to '%s', which is %s: only floats have one", n0->where, wrt[i]->name, ir_dtype_name(wrt[i]->dtype));
  if (seed) {
    if (seed->dtype != y->dtype || !same_dims(seed, y))
      ir_fail(ctx, TN_EUSAGE, "%s: the seed '%s' does not have the type and shape of '%s'", n0->where, seed->name, y->name);
    return;
  }
  for (int i = 0; i < y->rank; i++)
    if (!ix_is_int(y->dims[i], 1))
      ir_fail(ctx, TN_EUSAGE, "%s: '%s' has more than one element: give a seed of its shape, or reduce it to one number", n0->where, y->name);
}

void lw_gradients_check(tn_ctx *ctx, const ir_node *n0, const ir_value *y, const ir_value *seed, int n, ir_value *const *wrt) {
  check_types(ctx, n0, y, seed, n, wrt);
  sweep s = {.ctx = ctx, .asker = n0};
  s.marks.ctx = ctx;
  find_order(&s, 1, (ir_value *[]){(ir_value *)(uintptr_t)y}, n, wrt);
  for (int i = 0; i < s.norder; i++)
    if (!has_rule(s.order[i]->op)) no_rule(&s, s.order[i]);
}

void lw_gradients(tn_ctx *ctx, ir_graph *g, ir_node *n0, ir_value *y, ir_value *seed, int n, ir_value *const *wrt, int64_t memory, ir_value **out) {
  check_types(ctx, n0, y, seed, n, wrt);
  sweep s = {.ctx = ctx, .g = g, .asker = n0, .memory = memory};
  s.marks.ctx = ctx;
  if (!seed) {
    int64_t ones[IR_MAX_RANK];
    for (int i = 0; i < y->rank; i++) ones[i] = 1;
    seed = lw_reshape(g, n0, lw_number(g, y, 1), y->rank, ones);
  }
  sweep_back(&s, 1, &y, &seed, n0, n, wrt, out);
  lw_grad d = {.ctx = ctx, .g = g, .n = n0};
  for (int i = 0; i < n; i++)
    if (!out[i]) out[i] = lw_grad_zeros(&d, wrt[i]);
}
