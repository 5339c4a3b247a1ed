/* depend.c — how the iterations of a loop depend on each other. Conservative. */
#include "lower/schedule.h"
#include <string.h>

enum { MAX_BUFS = 128, MAX_TERMS = 64 };

typedef struct scan {
  tn_ctx *ctx;
  const ir_var *v;
  const ir_buf *inner[MAX_BUFS]; /* allocated inside: private to an iteration */
  int ninner;
  const ir_stmt *loops[MAX_BUFS]; /* loops inside, and the loop itself */
  int nloops;
  const ir_stmt *stores[MAX_BUFS]; /* to buffers from outside the loop */
  int nstores;
  bool reduction, serial;
  const char *why;
} scan;

static bool is_inner(const scan *s, const ir_buf *b) {
  for (int i = 0; i < s->ninner; i++)
    if (s->inner[i] == b) return true;
  return false;
}

static void serial(scan *s, const char *why) {
  if (!s->serial) s->why = why;
  s->serial = true;
}

/* An index component as cv*v + outer + inner, inner in [lo, hi]: `outer` does not change
 * while v and the loops inside run. False when v is not a plain term, or a term varies
 * without bounds or by strides that could bridge iterations of v. */
typedef struct place {
  int64_t cv, lo, hi;
  ix outer;
} place;

static bool place_of(const scan *s, ix e, place *p) {
  int64_t c0, coef[MAX_TERMS], cv = 0, span_v;
  ix term[MAX_TERMS];
  int n = ix_linear(e, &c0, coef, term, MAX_TERMS);
  if (n < 0) return false;
  for (int i = 0; i < n; i++) {
    if (term[i]->op == IX_VAR && term[i]->u.var == s->v) cv = coef[i];
    else if (ix_uses_var(term[i], s->v)) return false;
  }
  if (!cv) return false;
  int64_t size = cv < 0 ? -cv : cv;
  if (s->v->lo == INT64_MIN || s->v->hi == INT64_MAX) span_v = INT64_MAX / 4;
  else if (__builtin_mul_overflow(s->v->hi - s->v->lo, size, &span_v)) return false;
  *p = (place){.cv = cv, .lo = c0, .hi = c0, .outer = ix_index(s->ctx, 0)};
  int64_t below = 0;
  for (int pass = 0; pass < 2; pass++) /* small strides first: large ones must reach beyond them */
    for (int i = 0; i < n; i++) {
      ix t = term[i];
      if (t->op == IX_VAR && t->u.var == s->v) continue;
      bool varies = t->op == IX_LOAD;
      for (int k = 0; k < s->nloops; k++) varies |= ix_uses_var(t, s->loops[k]->var);
      if (!varies) {
        if (!pass) p->outer = ix_add(s->ctx, p->outer, ix_muli(s->ctx, t, coef[i]));
        continue;
      }
      int64_t c = coef[i] < 0 ? -coef[i] : coef[i], span, lo, hi;
      if (t->lo == INT64_MIN || t->hi == INT64_MAX) return false;
      if (__builtin_mul_overflow(t->hi - t->lo, c, &span)) return false;
      if (c < size || span == 0) {
        if (pass) continue;
        if (__builtin_mul_overflow(t->lo, coef[i], &lo) || __builtin_mul_overflow(t->hi, coef[i], &hi)) return false;
        if (__builtin_add_overflow(p->lo, lo < hi ? lo : hi, &p->lo) || __builtin_add_overflow(p->hi, lo < hi ? hi : lo, &p->hi)) return false;
        below += span;
      } else if (pass && c <= span_v + below) return false;
      else if (pass) p->outer = NULL; /* apart for one store; two are not compared */
    }
  return true;
}

/* Whether all stores to b tell iterations of v apart by expression `of(store)`. */
static bool separates(const scan *s, const ir_buf *b, int axis) {
  place all = {0};
  bool any = false;
  int64_t size = 0;
  int count = 0;
  for (int i = 0; i < s->nstores; i++) {
    const ir_stmt *st = s->stores[i];
    place p;
    if (st->buf != b) continue;
    ix e = axis < b->rank ? st->index[axis] : ir_buf_offset(s->ctx, b, st->index);
    if (!place_of(s, e, &p)) return false;
    size = p.cv < 0 ? -p.cv : p.cv;
    count++;
    if (!any) all = p;
    else {
      if (p.cv != all.cv || !p.outer || p.outer != all.outer) return false;
      if (p.lo < all.lo) all.lo = p.lo;
      if (p.hi > all.hi) all.hi = p.hi;
    }
    any = true;
  }
  return any && all.hi - all.lo < size;
}

/* x = fma(a, b, x), x = x + e, x = max(e, x): an update written as a SET. */
static bool is_update(tn_ctx *ctx, const ir_stmt *st) {
  ix self = ix_load(ctx, st->buf, st->index), v = st->value;
  if (st->op != IR_SET) return !ix_uses_buf(v, st->buf);
  if (v->op == IX_FMA) return v->args[2] == self && !ix_uses_buf(v->args[0], st->buf) && !ix_uses_buf(v->args[1], st->buf);
  if (v->op != IX_ADD && v->op != IX_MUL && v->op != IX_MAX && v->op != IX_MIN) return false;
  if (v->args[0] == self) return !ix_uses_buf(v->args[1], st->buf);
  return v->args[1] == self && !ix_uses_buf(v->args[0], st->buf);
}

static void gather(scan *s, const ir_stmt *st) {
  if (!st) return;
  switch (st->kind) {
  case IR_SEQ:
    for (int i = 0; i < st->n; i++) gather(s, st->items[i]);
    return;
  case IR_ALLOC:
    if (s->ninner == MAX_BUFS) serial(s, "too many buffers inside");
    else s->inner[s->ninner++] = st->buf;
    break;
  case IR_FOR:
    if (s->nloops == MAX_BUFS) serial(s, "too many loops inside");
    else s->loops[s->nloops++] = st;
    break;
  case IR_STORE:
    if (is_inner(s, st->buf)) return;
    if (s->nstores == MAX_BUFS) serial(s, "too many stores inside");
    else s->stores[s->nstores++] = st;
    return;
  default: break;
  }
  gather(s, st->body);
  gather(s, st->other);
}

/* Whether two iterations of v have different values of e, wherever the loops inside are. */
static bool tells_apart(const scan *s, ix e) {
  place p;
  return place_of(s, e, &p) && p.outer && p.hi - p.lo < (p.cv < 0 ? -p.cv : p.cv);
}

/* Loads of a written buffer at an index where this iteration itself stores are its own, and those that agree with it along
 * an axis that tells iterations apart. */
static void check_loads(scan *s, ix e, const ir_stmt *update) {
  if (e->op == IX_LOAD)
    for (int i = 0; i < s->nstores; i++) {
      const ir_stmt *st = s->stores[i];
      if (st->buf != e->u.buf || (update && st == update)) continue;
      bool same = true;
      for (int k = 0; k < st->buf->rank; k++) same &= st->index[k] == e->args[k];
      for (int k = 0; k < st->buf->rank && !same; k++) same = st->index[k] == e->args[k] && tells_apart(s, e->args[k]);
      if (!same || (update && update->buf == st->buf)) serial(s, "it reads what another iteration may have written");
    }
  for (int i = 0; i < e->nargs; i++) check_loads(s, e->args[i], update);
}

static void check_exprs(scan *s, const ir_stmt *st, const ir_buf *reduced) {
  if (!st || (st->kind == IR_TILE && strncmp(st->atom, "prefetch", 8) == 0)) return; /* a hint reads nothing */
  if (st->kind == IR_SEQ)
    for (int i = 0; i < st->n; i++) check_exprs(s, st->items[i], reduced);
  if (st->kind == IR_FOR) check_loads(s, st->lo, NULL), check_loads(s, st->hi, NULL);
  if (st->value) {
    if (st->kind == IR_STORE && st->buf == reduced) {
      ; /* its self-reference is the reduction, checked by is_update */
    } else {
      check_loads(s, st->value, NULL);
      if (reduced && ix_uses_buf(st->value, reduced)) serial(s, "it reads the accumulator between updates");
    }
  }
  if (st->kind == IR_STORE)
    for (int i = 0; i < st->buf->rank; i++) check_loads(s, st->index[i], NULL);
  check_exprs(s, st->body, reduced);
  check_exprs(s, st->other, reduced);
}

lw_dependence lw_loop_dependence(tn_ctx *ctx, const ir_stmt *loop, const char **why) {
  if (why) *why = NULL;
  if (loop->var->lo == loop->var->hi || loop->var->independent) return LW_PARALLEL; /* a single iteration; or known */
  scan s = {.ctx = ctx, .v = loop->var};
  s.loops[s.nloops++] = loop;
  gather(&s, loop->body);
  for (int i = 0; i < s.nstores && !s.serial; i++) {
    const ir_stmt *st = s.stores[i];
    bool uses = false, apart = false;
    /* the axes one by one, then together: where the element lies in memory may be linear again */
    for (int k = 0; k <= st->buf->rank && !apart; k++) apart = separates(&s, st->buf, k);
    for (int k = 0; k < st->buf->rank; k++) uses |= ix_uses_var(st->index[k], s.v);
    if (apart) continue;
    if (uses) {
      serial(&s, ir_format(ctx, "two iterations may store to the same element of '%s'", st->buf->name));
      break;
    }
    if (!is_update(ctx, st)) {
      serial(&s, ir_format(ctx, "every iteration stores to the same element of '%s'", st->buf->name));
      break;
    }
    s.reduction = true;
    check_exprs(&s, loop->body, st->buf);
  }
  if (!s.serial && !s.reduction) check_exprs(&s, loop->body, NULL);
  if (why) *why = s.serial ? s.why : NULL;
  return s.serial ? LW_SERIAL : s.reduction ? LW_REDUCTION : LW_PARALLEL;
}
