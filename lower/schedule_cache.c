/* schedule_cache.c — cache B v -> P: the part of an operand that one iteration reads, copied
 * into a dense local buffer first (packing of a dynamic operand). */
#include "lower/schedule_internal.h"
#include <string.h>

enum { MAX_PART = 1 << 20, MAX_TERMS = 64 };

typedef struct part {
  tn_ctx *ctx;
  ir_buf *buf;
  const ir_var *inner[64]; /* loops and lets inside v: what varies within an iteration */
  int ninner;
  ix start[IR_MAX_RANK];   /* null: no load seen yet */
  int64_t lo[IR_MAX_RANK], hi[IR_MAX_RANK]; /* reach of the inner terms, both included */
  const char *why;
  ir_buf *local;
} part;

static void collect_inner(part *p, const ir_stmt *s) {
  if (!s) return;
  if (s->kind == IR_FOR || s->kind == IR_LET) {
    if (p->ninner == IR_COUNT(p->inner)) p->why = "too many loops inside";
    else p->inner[p->ninner++] = s->var;
  }
  for (int i = 0; i < s->n; i++) collect_inner(p, s->items[i]);
  collect_inner(p, s->body);
  collect_inner(p, s->other);
}

static bool has_load(ix e) {
  if (e->op == IX_LOAD) return true;
  for (int i = 0; i < e->nargs; i++)
    if (has_load(e->args[i])) return true;
  return false;
}

static bool is_inner(const part *p, ix e) {
  if (has_load(e)) return true; /* data decides: only its range is known */
  for (int i = 0; i < p->ninner; i++)
    if (ix_uses_var(e, p->inner[i])) return true;
  return false;
}

static void add_load(part *p, ix load) {
  tn_ctx *ctx = p->ctx;
  for (int d = 0; d < load->nargs && !p->why; d++) {
    int64_t c0, coef[MAX_TERMS], lo, hi;
    ix term[MAX_TERMS], start = ix_index(ctx, 0);
    int n = ix_linear(load->args[d], &c0, coef, term, MAX_TERMS);
    if (n < 0) {
      p->why = "an index has too many terms";
      return;
    }
    lo = hi = c0;
    for (int i = 0; i < n; i++) {
      if (!is_inner(p, term[i])) {
        start = ix_add(ctx, start, ix_muli(ctx, term[i], coef[i]));
        continue;
      }
      int64_t a, b;
      if (term[i]->lo == INT64_MIN || term[i]->hi == INT64_MAX || term[i]->op == IX_LOAD || __builtin_mul_overflow(term[i]->lo, coef[i], &a) ||
          __builtin_mul_overflow(term[i]->hi, coef[i], &b)) {
        p->why = "an index has no known range inside the loop";
        return;
      }
      lo += a < b ? a : b;
      hi += a < b ? b : a;
    }
    if (!p->start[d]) p->start[d] = start, p->lo[d] = lo, p->hi[d] = hi;
    else if (p->start[d] != start) p->why = "two loads start at different places";
    if (lo < p->lo[d]) p->lo[d] = lo;
    if (hi > p->hi[d]) p->hi[d] = hi;
  }
}

static void look(void *user, ix e) {
  part *p = user;
  if (e->op == IX_LOAD && e->u.buf == p->buf) add_load(p, e);
}

static void collect_loads(part *p, const ir_stmt *s) {
  if (!s) return;
  if (s->value) ix_walk(p->ctx, s->value, look, p);
  if (s->kind == IR_FOR) ix_walk(p->ctx, s->lo, look, p), ix_walk(p->ctx, s->hi, look, p);
  if (s->kind == IR_STORE) {
    if (s->buf == p->buf) p->why = "it is written inside the loop";
    for (int i = 0; i < s->buf->rank; i++) ix_walk(p->ctx, s->index[i], look, p);
  }
  for (int i = 0; i < s->n; i++) collect_loads(p, s->items[i]);
  collect_loads(p, s->body);
  collect_loads(p, s->other);
}

static ix from_local(void *user, ix load) {
  part *p = user;
  if (load->u.buf != p->buf) return NULL;
  ix index[IR_MAX_RANK];
  for (int d = 0; d < load->nargs; d++) index[d] = ix_addi(p->ctx, ix_sub(p->ctx, load->args[d], p->start[d]), -p->lo[d]);
  return ix_load(p->ctx, p->local, index);
}
static ix cache_expr(ir_rewriter *r, ix e) { return ix_subst_loads(r->ctx, e, from_local, r->user); }

static const ir_stmt *do_cache(sched *s, const ir_stmt *loop, void *user) {
  tn_ctx *ctx = s->ctx;
  part *p = user;
  collect_inner(p, loop->body);
  collect_loads(p, loop->body);
  int rank = p->buf->rank;
  if (!p->why && rank && !p->start[0]) p->why = "the loop does not read it";
  if (!p->why && !rank) p->why = "it is a single element";
  ix shape[IR_MAX_RANK];
  int64_t elements = 1;
  for (int d = 0; d < rank && !p->why; d++) {
    int64_t extent, n = p->hi[d] - p->lo[d] + 1;
    if (ix_const_value(p->buf->shape[d], &extent) && n > extent) { /* guards keep the loads inside */
      n = extent;
      p->start[d] = ix_index(ctx, 0);
      p->lo[d] = 0;
    }
    shape[d] = ix_index(ctx, n);
    if (!ir_mul_size(elements, n, &elements) || elements > MAX_PART) p->why = "the part is too large to copy";
  }
  if (p->why) {
    refuse(s, "%s", p->why);
    return NULL;
  }
  p->local = ir_buf_new(ctx, s->arg[2], p->buf->dtype, rank, shape, NULL, IR_LOCAL);
  ir_var *v[IR_MAX_RANK];
  ix at[IR_MAX_RANK], from[IR_MAX_RANK], inside = ix_bool(ctx, true);
  for (int d = 0; d < rank; d++) {
    v[d] = ir_var_new(ctx, ir_format(ctx, "%s.%d", s->arg[2], d), TN_INDEX, 0, shape[d]->u.i - 1);
    v[d]->independent = true;
    at[d] = v[d]->expr;
    from[d] = ix_addi(ctx, ix_add(ctx, p->start[d], at[d]), p->lo[d]);
    inside = ix_and(ctx, inside, ix_within(ctx, from[d], ix_index(ctx, 0), p->buf->shape[d]));
  }
  const ir_stmt *copy = ir_if(ctx, inside, ir_store(ctx, p->local, at, IR_SET, ix_load(ctx, p->buf, from)), NULL);
  for (int d = rank; d-- > 0;) copy = ir_for(ctx, v[d], ix_index(ctx, 0), shape[d], IR_SERIAL, copy);
  ir_rewriter r = {.ctx = ctx, .user = p, .expr = cache_expr};
  const ir_stmt *items[2] = {copy, ir_rewrite(&r, loop->body)};
  return ir_for(ctx, loop->var, loop->lo, loop->hi, loop->loop, ir_alloc_stmt(ctx, p->local, ir_seq(ctx, 2, items)));
}

bool sched_cache(sched *s) {
  part p = {.ctx = s->ctx};
  for (int i = 0; i < s->k->nbufs; i++)
    if (strcmp(s->k->bufs[i]->name, s->arg[0]) == 0) p.buf = s->k->bufs[i];
  const ir_stmt *loop = sched_loop(s, s->arg[1]);
  if (!loop) return false;
  if (!p.buf) return refuse(s, "there is no operand '%s'", s->arg[0]);
  if (p.buf->access != IR_IN) return refuse(s, "'%s' is written by the kernel", p.buf->name);
  if (loop->loop == IR_VECTOR || loop->loop == IR_UNROLL) return refuse(s, "only serial and parallel loops hold a copy");
  for (int d = 0; d < p.buf->rank; d++)
    if (!sched_new_name(s, ir_format(s->ctx, "%s.%d", s->arg[2], d))) return false;
  return sched_replace(s, s->arg[1], do_cache, &p);
}
