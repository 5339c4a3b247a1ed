/* schedule_loops.c — steps that change loops alone. */
#include "lower/schedule_internal.h"
#include <string.h>

/* ---- split v F -> o i ---- */

static const ir_stmt *do_split(sched *s, const ir_stmt *loop, void *user) {
  (void)user;
  tn_ctx *ctx = s->ctx;
  int64_t factor = s->num[1], n;
  ix extent = ix_sub(ctx, loop->hi, loop->lo);
  ix trips = ix_ceil_div(ctx, extent, factor);
  ix zero = ix_index(ctx, 0);
  ir_var *o = sched_var(s, s->arg[2], zero, trips), *i = ir_var_new(ctx, s->arg[3], TN_INDEX, 0, factor - 1);
  /* parts of independent iterations are independent, also where their addresses no longer show it */
  o->independent = i->independent = lw_loop_dependence(ctx, loop, NULL) == LW_PARALLEL;
  ix at = ix_add(ctx, loop->lo, ix_add(ctx, ix_muli(ctx, o->expr, factor), i->expr));
  const ir_stmt *body = ir_subst_var(ctx, loop->body, loop->var, at);
  bool exact = ix_const_value(extent, &n) && n % factor == 0;
  if (!exact) body = ir_if(ctx, ix_lt(ctx, at, loop->hi), body, NULL);
  body = ir_for(ctx, i, zero, ix_index(ctx, factor), IR_SERIAL, body);
  return ir_for(ctx, o, zero, trips, loop->loop, body);
}

bool sched_split(sched *s) {
  if (s->num[1] < 1 || s->num[1] > 1 << 24) return refuse(s, "the factor %lld is not in 1..2^24", (long long)s->num[1]);
  const ir_stmt *loop = sched_loop(s, s->arg[0]);
  if (!loop) return false;
  if (loop->loop == IR_VECTOR || loop->loop == IR_UNROLL) return refuse(s, "the loop is already %s", loop->loop == IR_VECTOR ? "a vector" : "unrolled");
  if (strcmp(s->arg[2], s->arg[3]) == 0) return refuse(s, "both new loops are called '%s'", s->arg[2]);
  for (int i = 2; i < 4; i++)
    if (strcmp(s->arg[i], s->arg[0]) != 0 && !sched_new_name(s, s->arg[i])) return false;
  return sched_replace(s, s->arg[0], do_split, NULL);
}

/* ---- fuse a b -> f ---- */

static const ir_stmt *do_fuse(sched *s, const ir_stmt *a, void *user) {
  tn_ctx *ctx = s->ctx;
  const ir_stmt *b = a->body;
  int64_t nb = *(int64_t *)user;
  ix total = ix_muli(ctx, ix_sub(ctx, a->hi, a->lo), nb), zero = ix_index(ctx, 0);
  ir_var *f = sched_var(s, s->arg[2], zero, total);
  f->independent = lw_loop_dependence(ctx, a, NULL) == LW_PARALLEL && lw_loop_dependence(ctx, b, NULL) == LW_PARALLEL;
  const ir_stmt *body = ir_subst_var(ctx, b->body, a->var, ix_add(ctx, a->lo, ix_divi(ctx, f->expr, nb)));
  body = ir_subst_var(ctx, body, b->var, ix_add(ctx, b->lo, ix_remi(ctx, f->expr, nb)));
  return ir_for(ctx, f, zero, total, a->loop, body);
}

bool sched_fuse(sched *s) {
  const ir_stmt *a = sched_loop(s, s->arg[0]), *b = a ? sched_loop(s, s->arg[1]) : NULL;
  int64_t nb;
  if (!b) return false;
  if (a->body != b) return refuse(s, "'%s' is not directly inside '%s'", s->arg[1], s->arg[0]);
  if (!sched_extent(b, &nb) || nb < 1) return refuse(s, "'%s' has no constant extent", s->arg[1]);
  if (a->loop != b->loop || (a->loop != IR_SERIAL && a->loop != IR_PARALLEL)) return refuse(s, "only two serial or two parallel loops fuse");
  if (strcmp(s->arg[2], s->arg[0]) && strcmp(s->arg[2], s->arg[1]) && !sched_new_name(s, s->arg[2])) return false;
  return sched_replace(s, s->arg[0], do_fuse, &nb);
}

/* ---- reorder ---- */

typedef struct order {
  int n;
  const ir_stmt *loops[SCHED_MAX_ARGS]; /* in the wanted order */
  bool failed;
} order;

static bool wanted(const order *o, const ir_stmt *st) {
  for (int i = 0; i < o->n; i++)
    if (o->loops[i] == st) return true;
  return false;
}

static const ir_stmt *do_reorder(sched *s, const ir_stmt *outer, void *user) {
  tn_ctx *ctx = s->ctx;
  order *o = user;
  /* walk down the nest; loops not named keep their place, guards sink to the innermost */
  const ir_stmt *nest[SCHED_MAX_ARGS * 4], *body = outer;
  ix guards[SCHED_MAX_ARGS * 4];
  int depth = 0, nguards = 0, seen = 0;
  while (seen < o->n) {
    if (!body || depth == IR_COUNT(nest) || nguards == IR_COUNT(guards)) break;
    if (body->kind == IR_FOR) {
      seen += wanted(o, body);
      nest[depth++] = body;
      body = body->body;
    } else if (body->kind == IR_IF && !body->other) {
      guards[nguards++] = body->value;
      body = body->body;
    } else break;
  }
  if (seen < o->n) {
    refuse(s, "the loops are not a perfect nest: something stands beside them");
    return NULL;
  }
  const ir_stmt *arranged[SCHED_MAX_ARGS * 4];
  int next = 0;
  for (int i = 0; i < depth; i++) arranged[i] = wanted(o, nest[i]) ? o->loops[next++] : nest[i];
  for (int i = 0; i < depth; i++) { /* bounds must be known where the loop now stands */
    for (int j = i; j < depth; j++)
      if (ix_uses_var(arranged[i]->lo, arranged[j]->var) || ix_uses_var(arranged[i]->hi, arranged[j]->var)) {
        refuse(s, "the bounds of '%s' need '%s'", arranged[i]->var->name, arranged[j]->var->name);
        return NULL;
      }
    if (arranged[i] == nest[i]) continue;
    const char *why;
    if (lw_loop_dependence(ctx, nest[i], &why) == LW_SERIAL) {
      refuse(s, "'%s' must keep its order: %s", nest[i]->var->name, why);
      return NULL;
    }
  }
  while (nguards > 0) body = ir_if(ctx, guards[--nguards], body, NULL);
  for (int i = depth; i-- > 0;) body = ir_for(ctx, arranged[i]->var, arranged[i]->lo, arranged[i]->hi, arranged[i]->loop, body);
  return body;
}

bool sched_reorder(sched *s) {
  order o = {.n = s->nargs};
  const ir_stmt *outer = NULL;
  for (int i = 0; i < s->nargs; i++) {
    if (!(o.loops[i] = sched_loop(s, s->arg[i]))) return false;
    for (int j = 0; j < i; j++)
      if (o.loops[i] == o.loops[j]) return refuse(s, "'%s' is named twice", s->arg[i]);
  }
  for (int i = 0; i < s->nargs && !outer; i++) { /* the one that holds all others */
    bool all = true;
    for (int j = 0; j < s->nargs; j++) all &= i == j || ir_find_loop(o.loops[i]->body, s->arg[j]) != NULL;
    if (all) outer = o.loops[i];
  }
  if (!outer) return refuse(s, "the loops are not nested in each other");
  return sched_replace(s, outer->var->name, do_reorder, &o);
}

/* ---- kinds ---- */

static const ir_stmt *do_kind(sched *s, const ir_stmt *loop, void *user) {
  return ir_for(s->ctx, loop->var, loop->lo, loop->hi, *(ir_loop_kind *)user, loop->body);
}

static bool set_kind(sched *s, ir_loop_kind kind) { return sched_replace(s, s->arg[0], do_kind, &kind); }

bool sched_serial(sched *s) { return set_kind(s, IR_SERIAL); }

bool sched_unroll(sched *s) {
  const ir_stmt *loop = sched_loop(s, s->arg[0]);
  int64_t n;
  if (!loop) return false;
  if (!sched_extent(loop, &n)) return refuse(s, "the loop has no constant extent");
  if (n > 256) return refuse(s, "%lld copies are too many", (long long)n);
  return set_kind(s, IR_UNROLL);
}

static bool contains(const ir_stmt *st, bool (*is)(const ir_stmt *)) {
  if (!st) return false;
  if (is(st)) return true;
  for (int i = 0; i < st->n; i++)
    if (contains(st->items[i], is)) return true;
  return contains(st->body, is) || contains(st->other, is);
}
static bool no_vector_inside(const ir_stmt *st) {
  return st->kind == IR_WHILE || (st->kind == IR_FOR && (st->loop == IR_PARALLEL || st->loop == IR_VECTOR));
}

static bool inside_vector(const ir_stmt *st, const ir_stmt *loop, bool vector) {
  if (!st) return false;
  if (st == loop) return vector;
  vector |= st->kind == IR_FOR && st->loop == IR_VECTOR;
  for (int i = 0; i < st->n; i++)
    if (inside_vector(st->items[i], loop, vector)) return true;
  return inside_vector(st->body, loop, vector) || inside_vector(st->other, loop, vector);
}

bool sched_vectorize(sched *s) {
  const ir_stmt *loop = sched_loop(s, s->arg[0]);
  int64_t n;
  const char *why;
  if (!loop) return false;
  if (!sched_extent(loop, &n)) return refuse(s, "the loop has no constant extent");
  if (n < 1 || n > 64) return refuse(s, "a vector of %lld lanes", (long long)n);
  if (contains(loop->body, no_vector_inside)) return refuse(s, "a while, parallel or vector loop stands inside");
  if (inside_vector(s->k->body, loop, false)) return refuse(s, "it stands inside a vector loop");
  lw_dependence d = lw_loop_dependence(s->ctx, loop, &why);
  /* lanes that meet in one update (acc += x) are summed across the vector each time */
  bool across = d == LW_REDUCTION && loop->body && loop->body->kind == IR_STORE && loop->body->op != IR_SET;
  if (d != LW_PARALLEL && !across) return refuse(s, "%s", why ? why : "the lanes meet in one accumulator; rfactor it first");
  return set_kind(s, IR_VECTOR);
}

static bool directly_below(const ir_stmt *s, const ir_stmt *loop) {
  while (s && s != loop && (s->kind == IR_LET || s->kind == IR_ALLOC || (s->kind == IR_FOR && s->loop == IR_PARALLEL))) s = s->body;
  return s == loop;
}

/* Whether the loop is the outermost, or that of one of several nests, or directly inside parallel ones that are. */
static bool is_outermost(const ir_stmt *s, const ir_stmt *loop) {
  const ir_stmt *nests = s;
  while (nests && nests->kind == IR_ALLOC) nests = nests->body;
  for (int i = 0; nests && nests->kind == IR_SEQ && i < nests->n; i++)
    if (nests->items[i]->kind == IR_FOR && directly_below(nests->items[i], loop)) return true;
  return directly_below(s, loop);
}

bool sched_parallel(sched *s) {
  const ir_stmt *loop = sched_loop(s, s->arg[0]);
  const char *why;
  if (!loop) return false;
  if (!is_outermost(s->k->body, loop)) return refuse(s, "a parallel loop must be the outermost, or directly inside another to be fused with it");
  if (lw_loop_dependence(s->ctx, loop, &why) != LW_PARALLEL) return refuse(s, "%s", why ? why : "iterations meet in one accumulator");
  return set_kind(s, IR_PARALLEL);
}

/* ---- peel v F L ---- */

static const ir_stmt *part(sched *s, const ir_stmt *loop, ix lo, ix hi, const char *suffix) {
  tn_ctx *ctx = s->ctx;
  int64_t n;
  ix extent = ix_sub(ctx, hi, lo);
  if (ix_const_value(extent, &n) && n <= 0) return NULL;
  const ir_stmt *body = loop->body;
  if (ix_const_value(extent, &n) && n == 1) {
    body = ir_subst_var(ctx, body, loop->var, lo);
    return suffix ? ir_stmt_fresh(ctx, body, suffix) : body;
  }
  const char *name = suffix ? ir_format(ctx, "%s%s", loop->var->name, suffix) : loop->var->name;
  ir_var *v = sched_var(s, name, lo, hi);
  v->independent = loop->var->independent;
  body = ir_subst_var(ctx, body, loop->var, v->expr);
  if (suffix) body = ir_stmt_fresh(ctx, body, suffix);
  return ir_for(ctx, v, lo, hi, loop->loop, body);
}

/* ".a", or ".a2", ".a3", ... when loops have that ending already. */
static bool ending_taken(const ir_stmt *st, const char *suffix) {
  if (!st) return false;
  if (st->kind == IR_FOR || st->kind == IR_LET || st->kind == IR_ALLOC) {
    const char *name = st->kind == IR_ALLOC ? st->buf->name : st->var->name;
    size_t n = strlen(name), m = strlen(suffix);
    if (n >= m && strcmp(name + n - m, suffix) == 0) return true;
  }
  for (int i = 0; i < st->n; i++)
    if (ending_taken(st->items[i], suffix)) return true;
  return ending_taken(st->body, suffix) || ending_taken(st->other, suffix);
}
const char *sched_free_ending(sched *s, const char *suffix) {
  const char *t = suffix;
  for (int i = 2; ending_taken(s->k->body, t); i++) t = ir_format(s->ctx, "%s%d", suffix, i);
  return t;
}

static const ir_stmt *do_peel(sched *s, const ir_stmt *loop, void *user) {
  (void)user;
  tn_ctx *ctx = s->ctx;
  ix lo = ix_addi(ctx, loop->lo, s->num[1]), hi = ix_addi(ctx, loop->hi, -s->num[2]);
  const ir_stmt *parts[3] = {part(s, loop, loop->lo, lo, sched_free_ending(s, ".a")), part(s, loop, lo, hi, NULL),
                             part(s, loop, hi, loop->hi, sched_free_ending(s, ".b"))};
  return ir_seq(ctx, 3, parts);
}

bool sched_peel(sched *s) {
  const ir_stmt *loop = sched_loop(s, s->arg[0]);
  int64_t n;
  if (!loop) return false;
  if (!sched_extent(loop, &n)) return refuse(s, "the loop has no constant extent");
  if (s->num[1] < 0 || s->num[2] < 0 || s->num[1] + s->num[2] > n)
    return refuse(s, "%lld + %lld of %lld iterations", (long long)s->num[1], (long long)s->num[2], (long long)n);
  if (loop->loop != IR_SERIAL && loop->loop != IR_UNROLL) return refuse(s, "only serial loops are peeled");
  return sched_replace(s, s->arg[0], do_peel, NULL);
}

/* ---- narrow v ---- */

typedef struct narrowing {
  tn_ctx *ctx;
  const ir_var *v;
  ix lo, hi;
  bool any;
  const ir_var *inner[SCHED_MAX_ARGS * 2]; /* loops between v and the guard: bounds must not use them */
  int ninner;
} narrowing;

/* Takes conjuncts of `cond` that bound v into lo and hi; what remains comes back. */
static ix take_bounds(narrowing *w, ix cond) {
  tn_ctx *ctx = w->ctx;
  if (cond->op == IX_AND) return ix_and(ctx, take_bounds(w, cond->args[0]), take_bounds(w, cond->args[1]));
  if (cond->op != IX_LT || cond->args[0]->dtype != TN_INDEX) return cond;
  ix d = ix_sub(ctx, cond->args[1], cond->args[0]); /* d > 0 */
  int64_t c;
  if (!ix_affine_in(d, w->v, &c) || c == 0) return cond;
  ix rest = ix_sub(ctx, d, ix_muli(ctx, w->v->expr, c));
  for (int i = 0; i < w->ninner; i++)
    if (ix_uses_var(rest, w->inner[i])) return cond;
  w->any = true;
  if (c > 0) /* c*v > -rest: v >= floor(-rest / c) + 1 */
    w->lo = ix_max(ctx, w->lo, ix_addi(ctx, ix_divi(ctx, ix_sub(ctx, ix_index(ctx, 0), rest), c), 1));
  else /* |c|*v < rest: v < ceil(rest / |c|) */
    w->hi = ix_min(ctx, w->hi, ix_ceil_div(ctx, rest, -c));
  return ix_bool(ctx, true);
}

static const ir_stmt *narrow_body(narrowing *w, const ir_stmt *st) {
  if (!st) return NULL;
  if (st->kind == IR_FOR) {
    if (w->ninner == IR_COUNT(w->inner)) return st;
    w->inner[w->ninner++] = st->var;
    return ir_for(w->ctx, st->var, st->lo, st->hi, st->loop, narrow_body(w, st->body));
  }
  if (st->kind == IR_IF && !st->other) {
    ix rest = take_bounds(w, st->value);
    return ir_if(w->ctx, rest, narrow_body(w, st->body), NULL);
  }
  return st;
}

static const ir_stmt *do_narrow(sched *s, const ir_stmt *loop, void *user) {
  (void)user;
  narrowing w = {.ctx = s->ctx, .v = loop->var, .lo = loop->lo, .hi = loop->hi};
  const ir_stmt *body = narrow_body(&w, loop->body);
  if (!w.any) {
    refuse(s, "no guard around its whole body bounds '%s'", loop->var->name);
    return NULL;
  }
  ir_var *v = sched_var(s, loop->var->name, w.lo, w.hi);
  return ir_for(s->ctx, v, w.lo, w.hi, loop->loop, ir_subst_var(s->ctx, body, loop->var, v->expr));
}

bool sched_narrow(sched *s) {
  const ir_stmt *loop = sched_loop(s, s->arg[0]);
  if (!loop) return false;
  if (loop->loop != IR_SERIAL) return refuse(s, "only serial loops may have bounds that vary");
  return sched_replace(s, s->arg[0], do_narrow, NULL);
}

/* ---- tail v ---- */

/* Guards 0 < rest - c*v, rest varying by at most c inside v: all hold for v < S = ceil(least rest / c), none
 * after S. */
typedef struct tailing {
  tn_ctx *ctx;
  const ir_var *v;
  const ir_var *inner[SCHED_MAX_ARGS * 4];
  const ir_buf *own[SCHED_MAX_ARGS];  /* made inside v */
  int ninner, nown;
  ix last;                            /* S; null: no guard seen yet */
  ix lo;                              /* the first v */
  bool first;                         /* some of its body is for the first v alone, which must not be beyond S */
  const char *why;
} tailing;

/* Whether cond holds for the first v alone. */
static bool is_first(const tailing *t, ix cond) {
  if (cond->op == IX_AND) return is_first(t, cond->args[0]) || is_first(t, cond->args[1]);
  return cond->op == IX_EQ && ((cond->args[0] == t->v->expr && cond->args[1] == t->lo) || (cond->args[1] == t->v->expr && cond->args[0] == t->lo));
}

static bool is_inside(const tailing *t, ix e) {
  for (int i = 0; i < t->ninner; i++)
    if (ix_uses_var(e, t->inner[i])) return true;
  return false;
}

/* S of a conjunct, or null when it does not bound v from above in that way. */
static ix last_of(const tailing *t, ix cond) {
  enum { TERMS = 32 };
  tn_ctx *ctx = t->ctx;
  int64_t c, c0, coef[TERMS], span = 0;
  ix term[TERMS];
  if (cond->op != IX_LT || cond->args[0]->dtype != TN_INDEX) return NULL;
  ix d = ix_sub(ctx, cond->args[1], cond->args[0]);
  if (!ix_affine_in(d, t->v, &c) || c >= 0) return NULL;
  c = -c;
  int n = ix_linear(ix_add(ctx, d, ix_muli(ctx, t->v->expr, c)), &c0, coef, term, TERMS);
  ix sum = ix_index(ctx, 0);
  for (int i = 0; i < n; i++) {
    if (!is_inside(t, term[i])) {
      if (coef[i] % c) return NULL;
      sum = ix_add(ctx, sum, ix_muli(ctx, term[i], coef[i] / c));
    } else {
      if (term[i]->lo == INT64_MIN || term[i]->hi == INT64_MAX) return NULL;
      c0 += coef[i] * (coef[i] > 0 ? term[i]->lo : term[i]->hi);
      span += (coef[i] > 0 ? coef[i] : -coef[i]) * (term[i]->hi - term[i]->lo);
    }
  }
  return n < 0 || span > c ? NULL : ix_addi(ctx, sum, c0 >= 0 ? (c0 + c - 1) / c : -(-c0 / c));
}

/* The condition without the conjuncts that hold before S, which becomes the least there is. */
static ix drop_bounds(tailing *t, ix cond, bool *any) {
  if (cond->op == IX_AND) return ix_and(t->ctx, drop_bounds(t, cond->args[0], any), drop_bounds(t, cond->args[1], any));
  ix last = ix_uses_var(cond, t->v) ? last_of(t, cond) : NULL;
  int64_t later = 0;
  if (!last || (t->last && !ix_const_value(ix_sub(t->ctx, last, t->last), &later))) return cond;
  if (!t->last || later < 0) t->last = last;
  *any |= later <= 0;
  return ix_bool(t->ctx, true);
}

/* The statement for v < S; says why not when something outside such a guard is stored. */
static const ir_stmt *unguarded(tailing *t, const ir_stmt *st, bool guarded) {
  if (!st || t->why) return st;
  tn_ctx *ctx = t->ctx;
  if (st->kind == IR_FOR || st->kind == IR_LET) {
    if (t->ninner == IR_COUNT(t->inner)) t->why = "too many loops inside";
    else t->inner[t->ninner++] = st->var;
  }
  if (st->kind == IR_ALLOC) {
    if (t->nown == IR_COUNT(t->own)) t->why = "too many local buffers inside";
    else t->own[t->nown++] = st->buf;
  }
  if (t->why) return st;
  switch (st->kind) {
  case IR_FOR: return ir_for(ctx, st->var, st->lo, st->hi, st->loop, unguarded(t, st->body, guarded));
  case IR_ALLOC: return ir_alloc_stmt(ctx, st->buf, unguarded(t, st->body, guarded));
  case IR_LET: return ir_let(ctx, st->var, st->value, unguarded(t, st->body, guarded));
  case IR_SEQ: {
    const ir_stmt **items = IR_NEW_ARRAY(ctx, const ir_stmt *, st->n);
    for (int i = 0; i < st->n; i++) items[i] = unguarded(t, st->items[i], guarded);
    return ir_seq(ctx, st->n, items);
  }
  case IR_IF: {
    bool any = guarded;
    ix rest = drop_bounds(t, st->value, &any);
    bool first = is_first(t, st->value);
    t->first |= first;
    any |= first;
    return ir_if(ctx, rest, unguarded(t, st->body, any), unguarded(t, st->other, guarded));
  }
  case IR_TILE: return ir_tile(ctx, st->atom, unguarded(t, st->body, guarded));
  default:
    for (int i = 0; i < t->nown; i++) guarded |= st->kind == IR_STORE && st->buf == t->own[i];
    if (!guarded && !t->why) t->why = "not all of its body is under guards that bound it";
    return st;
  }
}

static const ir_stmt *do_tail(sched *s, const ir_stmt *loop, void *user) {
  (void)user;
  tn_ctx *ctx = s->ctx;
  tailing t = {.ctx = ctx, .v = loop->var, .lo = loop->lo};
  unguarded(&t, loop->body, false); /* finds S */
  t = (tailing){.ctx = ctx, .v = loop->var, .last = t.last, .lo = loop->lo};
  const ir_stmt *body = unguarded(&t, loop->body, false);
  if (!t.why && t.last && t.first && t.last->lo < loop->lo->hi) t.why = "its first iteration may be beyond the guards";
  if (t.why || !t.last) {
    refuse(s, "%s", t.last ? t.why : "no guard inside bounds it");
    return NULL;
  }
  ix hi = ix_max(ctx, loop->lo, ix_min(ctx, loop->hi, t.last));
  ir_var *v = sched_var(s, loop->var->name, loop->lo, hi);
  v->independent = loop->var->independent;
  const ir_stmt *rest = ir_stmt_fresh(ctx, ir_subst_var(ctx, loop->body, loop->var, t.last), sched_free_ending(s, ".b"));
  ix there = ix_and(ctx, ix_le(ctx, loop->lo, t.last), ix_lt(ctx, t.last, loop->hi));
  const ir_stmt *items[2] = {ir_for(ctx, v, loop->lo, hi, loop->loop, ir_subst_var(ctx, body, loop->var, v->expr)), ir_if(ctx, there, rest, NULL)};
  return ir_seq(ctx, 2, items);
}

bool sched_tail(sched *s) {
  const ir_stmt *loop = sched_loop(s, s->arg[0]);
  if (!loop) return false;
  if (loop->loop != IR_SERIAL) return refuse(s, "only serial loops have a tail");
  return sched_replace(s, s->arg[0], do_tail, NULL);
}
