/* tpu_phases.c — loops whose indices divide them become one nest per remainder. See tpu_lower.h.
 *
 *   for y in 0 .. 10 { (y + 1)/2, (y + 1)%2 }                                before
 *   for y in 0 .. 5 { y, 1 }   for y in 0 .. 5 { y + 1, 0 }                  after: y was 2y, and 2y + 1
 *
 * So the sums of transposed convolutions have affine indices, and are found to be contractions. */
#include "codegen/tpu_lower.h"

enum { MOST = 16 }; /* nests that one may become */

static int64_t gcd(int64_t a, int64_t b) {
  while (b) {
    int64_t t = a % b;
    a = b;
    b = t;
  }
  return a < 0 ? -a : a;
}

typedef struct search {
  tn_ctx *ctx;
  const ir_var *v;
  int64_t by; /* what the indices divide it by; more than MOST: too much */
} search;

static void note_division(void *user, ix e) {
  search *s = user;
  int64_t d, a;
  if ((e->op != IX_DIV && e->op != IX_REM) || e->dtype != TN_INDEX || !ix_const_value(e->args[1], &d) || d < 2) return;
  if (!ix_affine_in(e->args[0], s->v, &a) || a == 0) return;
  d /= gcd(a, d);
  if (s->by <= MOST) s->by = d > MOST ? d : s->by / gcd(s->by, d) * d;
}

static void search_stmt(search *s, const ir_stmt *t) {
  if (!t) return;
  if (t->value) ix_walk(s->ctx, t->value, note_division, s);
  for (int i = 0; t->kind == IR_STORE && i < t->buf->rank; i++) ix_walk(s->ctx, t->index[i], note_division, s);
  for (int i = 0; i < t->n; i++) search_stmt(s, t->items[i]);
  search_stmt(s, t->body);
  search_stmt(s, t->other);
}

typedef struct nests {
  int n;
  const ir_stmt **at;
} nests;

/* The nest, or its parts by remainders; room: how many it may become. */
static nests parts_of(tc *c, const ir_stmt *s, int64_t room) {
  tn_ctx *ctx = c->ctx;
  nests out = {0};
  int64_t n;
  if (s->kind != IR_FOR || !tc_loop_of(c, s)->parallel || !ix_is_int(s->lo, 0) || !ix_const_value(s->hi, &n)) {
    IR_PUSH(ctx, out.at, out.n, s);
    return out;
  }
  search x = {ctx, s->var, 1};
  search_stmt(&x, s->body);
  int64_t by = x.by > room ? 1 : x.by;
  nests in = parts_of(c, s->body, room / by);
  for (int64_t p = 0; p < by && p < n; p++)
    for (int i = 0; i < in.n; i++) {
      int64_t turns = (n - p + by - 1) / by;
      ir_var *v = by == 1 ? s->var : ir_var_new(ctx, s->var->name, TN_INDEX, 0, turns - 1);
      const ir_stmt *body = in.at[i];
      if (by > 1) body = ir_stmt_fresh(ctx, ir_subst_var(ctx, body, s->var, ix_add(ctx, ix_mul(ctx, v->expr, ix_index(ctx, by)), ix_index(ctx, p))), "");
      IR_PUSH(ctx, out.at, out.n, ir_for(ctx, v, ix_index(ctx, 0), ix_index(ctx, turns), s->loop, body));
    }
  return out;
}

static bool is_sum(const ir_stmt *s) { /* loops around an accumulator of its own */
  while (s && s->kind == IR_FOR) s = s->body;
  return s && s->kind == IR_ALLOC && s->buf->rank == 0;
}

const ir_stmt *tc_phases(tc *c, const ir_stmt *s) {
  if (!s) return NULL;
  const ir_stmt *known = ir_map_get(&c->phases, s);
  if (known) return known;
  const ir_stmt *t = s;
  if (s->kind == IR_SEQ) {
    const ir_stmt **items = IR_NEW_ARRAY(c->ctx, const ir_stmt *, s->n);
    for (int i = 0; i < s->n; i++) items[i] = tc_phases(c, s->items[i]);
    t = ir_seq(c->ctx, s->n, items);
  } else if (s->kind == IR_FOR && is_sum(s)) {
    nests all = parts_of(c, s, MOST);
    if (all.n > 1) t = ir_seq(c->ctx, all.n, all.at);
  }
  ir_map_set(&c->phases, s, (void *)(uintptr_t)t);
  return t;
}
