/* schedule_splitk.c — the step splitk: parts of a sum as tasks of their own (split-K).
 *
 *   splitk k P -> p     for m: { acc = z; for k in 0..N: acc op= e(k); S }
 *                  ->   alloc part[P, M]
 *                       for p: for m: { acc.p = identity; for k in 0..N/P: acc.p op= e(p N/P + k); part[p, m] = acc.p }
 *                       for m.s: { acc = z; for p.s: acc op= part[p.s, m.s]; S }
 *
 * Both nests are scheduled from there by the names of their loops. Where both are parallel, a kernel runs them one
 * after the other (codegen.h, phases). How often the sum is cut is written in the schedule, so results do not depend
 * on how many threads there are.
 */
#include "lower/schedule_internal.h"
#include <string.h>

typedef struct cut {
  sched *s;
  int nout;
  const ir_stmt *out[IR_MAX_RANK]; /* loops over the results, outermost first */
  const ir_stmt *item;             /* of the statements in them, the one that holds the sum */
  sched_update u;
  ir_buf *part, *own;              /* partial sums; the accumulator of one */
} cut;

static ix own_load(void *user, ix load) {
  const cut *c = user;
  return load->u.buf == c->u.st->buf ? ix_load(c->s->ctx, c->own, NULL) : NULL;
}
static ix own_expr(ir_rewriter *r, ix e) { return ix_subst_loads(r->ctx, e, own_load, r->user); }

static const ir_stmt *own_store(ir_rewriter *r, const ir_stmt *st) {
  const cut *c = r->user;
  return st->kind == IR_STORE && st->buf == c->u.st->buf ? ir_store(r->ctx, c->own, NULL, st->op, own_expr(r, st->value)) : st;
}

static bool holds(const ir_stmt *s, const ir_stmt *what) {
  if (!s || s == what) return s == what;
  for (int i = 0; i < s->n; i++)
    if (holds(s->items[i], what)) return true;
  return holds(s->body, what) || holds(s->other, what);
}

typedef struct reads {
  const cut *c;
  bool others; /* registers but the accumulator */
} reads;
static void look(void *user, ix e) {
  reads *r = user;
  if (e->op == IX_LOAD) r->others |= e->u.buf->space == IR_REGISTER && e->u.buf != r->c->u.st->buf;
}

/* The sum: loops and conditions around one update, which needs nothing that stands beside it. */
static bool is_sum(cut *c, const ir_stmt *s) {
  reads r = {.c = c};
  for (; s && s != c->u.st; s = s->body) {
    if ((s->kind != IR_FOR || s->loop != IR_SERIAL) && (s->kind != IR_IF || s->other)) return false;
    if (s->kind == IR_IF) ix_walk(c->s->ctx, s->value, look, &r);
  }
  if (s) ix_walk(c->s->ctx, s->value, look, &r);
  return s && !r.others;
}

/* The loops over the results and what is in them. */
static bool take_apart(cut *c, const ir_stmt *loop) {
  sched *s = c->s;
  int64_t n;
  const ir_stmt *at = s->k->body;
  for (; at && at->kind == IR_FOR; at = at->body) {
    if (c->nout + 1 == IR_MAX_RANK) return refuse(s, "more loops than a buffer may have axes");
    if (at->loop != IR_SERIAL || !sched_extent(at, &n)) return refuse(s, "'%s' is no serial loop of constant extent", at->var->name);
    c->out[c->nout++] = at;
  }
  while (at && at->kind == IR_ALLOC) at = at->body;
  if (!at || at->kind != IR_SEQ) return refuse(s, "it is not an accumulator's loop directly inside the loops of the results");
  for (int i = 0; i < at->n; i++)
    if (holds(at->items[i], loop)) c->item = at->items[i];
  if (!c->item || !is_sum(c, c->item) || c->u.st->buf->rank) return refuse(s, "it is not a sum that needs nothing beside it");
  return true;
}

static const ir_stmt *in_loops(const cut *c, const ir_stmt *body) {
  for (int i = c->nout; i-- > 0;) body = ir_for(c->s->ctx, c->out[i]->var, c->out[i]->lo, c->out[i]->hi, IR_SERIAL, body);
  return body;
}

static ix place(const cut *c, ix p) {
  ix index[IR_MAX_RANK] = {p};
  for (int i = 0; i < c->nout; i++) index[i + 1] = ix_sub(c->s->ctx, c->out[i]->var->expr, c->out[i]->lo);
  return ix_load(c->s->ctx, c->part, index);
}

typedef struct swap {
  const ir_stmt *old, *by;
} swap;
static const ir_stmt *swap_stmt(ir_rewriter *r, const ir_stmt *st) {
  const swap *w = r->user;
  return st == w->old ? w->by : st;
}
static const ir_stmt *swapped(tn_ctx *ctx, const ir_stmt *in, const ir_stmt *old, const ir_stmt *by) {
  return ir_rewrite(&(ir_rewriter){.ctx = ctx, .user = &(swap){old, by}, .stmt = swap_stmt}, in);
}

/* A P-th of the sum into part[p]. */
static const ir_stmt *sum_part(cut *c, const ir_stmt *loop, int64_t steps) {
  tn_ctx *ctx = c->s->ctx;
  ix parts = c->part->shape[0];
  ir_var *p = sched_var(c->s, c->s->arg[2], ix_index(ctx, 0), parts), *k = ir_var_new(ctx, loop->var->name, TN_INDEX, 0, steps - 1);
  ix at = ix_add(ctx, loop->lo, ix_add(ctx, ix_muli(ctx, p->expr, steps), k->expr));
  const ir_stmt *shorter = ir_for(ctx, k, ix_index(ctx, 0), ix_index(ctx, steps), IR_SERIAL, ir_subst_var(ctx, loop->body, loop->var, at));
  const ir_stmt *sum = ir_rewrite(&(ir_rewriter){.ctx = ctx, .user = c, .expr = own_expr, .stmt = own_store}, swapped(ctx, c->item, loop, shorter));
  const ir_stmt *items[3] = {ir_store(ctx, c->own, NULL, IR_SET, c->u.zero), sum,
                             ir_store(ctx, c->part, place(c, p->expr)->args, IR_SET, ix_load(ctx, c->own, NULL))};
  return ir_for(ctx, p, ix_index(ctx, 0), parts, IR_SERIAL, in_loops(c, ir_alloc_stmt(ctx, c->own, ir_seq(ctx, 3, items))));
}

/* The parts in order, and all that stood beside the sum. */
static const ir_stmt *sum_up(cut *c) {
  tn_ctx *ctx = c->s->ctx;
  ix parts = c->part->shape[0];
  ir_var *p = sched_var(c->s, ir_format(ctx, "%s.s", c->s->arg[2]), ix_index(ctx, 0), parts);
  const ir_stmt *add = ir_store(ctx, c->u.st->buf, c->u.st->index, c->u.op, place(c, p->expr));
  const ir_stmt *body = swapped(ctx, c->nout ? c->out[c->nout - 1]->body : c->s->k->body, c->item, ir_for(ctx, p, ix_index(ctx, 0), parts, IR_SERIAL, add));
  for (int i = c->nout; i-- > 0;) {
    const ir_stmt *l = c->out[i];
    ir_var *v = ir_var_new(ctx, ir_format(ctx, "%s.s", l->var->name), TN_INDEX, l->var->lo, l->var->hi);
    body = ir_for(ctx, v, l->lo, l->hi, IR_SERIAL, ir_subst_var(ctx, body, l->var, v->expr));
  }
  return body;
}

bool sched_splitk(sched *s) {
  tn_ctx *ctx = s->ctx;
  const ir_stmt *loop = sched_loop(s, s->arg[0]);
  int64_t n, parts = s->num[1];
  const char *why;
  cut c = {.s = s};
  if (!loop) return false;
  if (parts < 2 || parts > 256) return refuse(s, "%lld parts are not 2 to 256", (long long)parts);
  if (!sched_extent(loop, &n)) return refuse(s, "the loop has no constant extent");
  if (n % parts || !n) return refuse(s, "its %lld steps are not %lld equal parts", (long long)n, (long long)parts);
  if (!sched_new_name(s, s->arg[2]) || !sched_new_name(s, ir_format(ctx, "%s.s", s->arg[2]))) return false;
  if (lw_loop_dependence(ctx, loop, &why) != LW_REDUCTION) return refuse(s, "%s", why ? why : "the loop reduces nothing");
  if (!sched_find_update(s, loop, &c.u) || !take_apart(&c, loop)) return false;
  for (int i = 0; i < c.nout; i++)
    if (!sched_new_name(s, ir_format(ctx, "%s.s", c.out[i]->var->name))) return false;
  ix shape[IR_MAX_RANK] = {ix_index(ctx, parts)};
  for (int i = 0; i < c.nout; i++) shape[i + 1] = ix_sub(ctx, c.out[i]->hi, c.out[i]->lo);
  const ir_buf *acc = c.u.st->buf;
  c.part = ir_buf_new(ctx, ir_format(ctx, "%s.%s.parts", acc->name, s->arg[2]), acc->dtype, c.nout + 1, shape, NULL, IR_LOCAL);
  c.own = ir_buf_new(ctx, ir_format(ctx, "%s.%s", acc->name, s->arg[2]), acc->dtype, 0, NULL, NULL, IR_REGISTER);
  const ir_stmt *both[2] = {sum_part(&c, loop, n / parts), sum_up(&c)};
  s->k->body = ir_alloc_stmt(ctx, c.part, ir_seq(ctx, 2, both));
  return true;
}
