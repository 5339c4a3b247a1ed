/* cuda_vector.c — neighbours of a thread moved 16 bytes at a time.
 *
 *   for v in 0..V: out[i V + v] = f(in[i V + v])
 *     -> a[V], b[V]; tile "load" { for v: a[v] = in[i V + v] }; for v: b[v] = f(a[v]); tile "store" { for v: out[i V + v] = b[v] } */
#include "codegen/cuda_product.h"
#include <string.h>

enum { MAX_VECTORS = 24 };

typedef struct vectors {
  tn_ctx *ctx;
  ir_var *v;
  int64_t n;
  ix loads[MAX_VECTORS];
  ir_buf *from[MAX_VECTORS];
  int nloads;
  const ir_stmt *stores[MAX_VECTORS];
  ir_buf *to[MAX_VECTORS];
  int nstores;
} vectors;

/* Lets of indices in place: addresses show what they are made of. */
static const ir_stmt *open_lets(ir_rewriter *r, const ir_stmt *s) {
  if (s->kind != IR_LET || s->var->dtype != TN_INDEX) return s;
  return ir_rewrite(r, ir_subst_var(r->ctx, s->body, s->var, s->value));
}

/* Whether elements lie side by side along v, from a multiple of all of them on, at an address known before the loop. */
static bool side_by_side(const vectors *x, const ir_buf *b, const ix *index) {
  int64_t bytes = x->n * (int64_t)ir_dtype_bytes(b->dtype), coef[64], c0;
  ix term[64];
  if (bytes < 4 || b->space != IR_GLOBAL) return false;
  for (int d = 0; d < b->rank; d++)
    if (index[d]->loads) return false;
  int n = ix_linear(ir_buf_offset(x->ctx, b, index), &c0, coef, term, 64);
  bool found = false;
  for (int i = 0; i < n; i++)
    if (term[i] == x->v->expr) {
      if (coef[i] != 1) return false;
      found = true;
    } else if (coef[i] % x->n || ix_uses_var(term[i], x->v)) return false;
  return found && c0 % x->n == 0;
}

typedef struct search {
  const ir_var *inner[32];
  int n;
} search;

static bool known_before(const search *s, ix e) {
  for (int i = 0; i < s->n; i++)
    if (ix_uses_var(e, s->inner[i])) return false;
  return true;
}

static bool all_known(const search *s, const ir_buf *b, const ix *index) {
  for (int d = 0; d < b->rank; d++)
    if (!known_before(s, index[d])) return false;
  return true;
}

static void find_loads(vectors *x, const search *s, ix e) {
  if (e->op == IX_LOAD) {
    for (int i = 0; i < x->nloads; i++)
      if (x->loads[i] == e) return;
    if (e->u.buf->access == IR_IN && x->nloads < MAX_VECTORS && side_by_side(x, e->u.buf, e->args) && all_known(s, e->u.buf, e->args)) x->loads[x->nloads++] = e;
    return;
  }
  if (e->op == IX_SELECT) { /* arms load under its condition */
    find_loads(x, s, e->args[0]);
    return;
  }
  for (int i = 0; i < e->nargs; i++) find_loads(x, s, e->args[i]);
}

static void find(vectors *x, search s, const ir_stmt *b) {
  if (!b || s.n == IR_COUNT(s.inner)) return;
  if (b->kind == IR_LET || b->kind == IR_STORE) find_loads(x, &s, b->value);
  if (b->kind == IR_LET) s.inner[s.n++] = b->var;
  if (b->kind == IR_STORE && b->op == IR_SET && x->nstores < MAX_VECTORS && side_by_side(x, b->buf, b->index) && all_known(&s, b->buf, b->index)) x->stores[x->nstores++] = b;
  if (b->kind == IR_LET || b->kind == IR_ALLOC || (b->kind == IR_TILE && strcmp(b->atom, "exp") == 0)) find(x, s, b->body);
  for (int i = 0; i < b->n; i++) find(x, s, b->items[i]);
}

/* ---- rewriting ---- */

static ix from_vector(void *user, ix load) {
  vectors *x = user;
  for (int i = 0; i < x->nloads; i++)
    if (x->loads[i] == load) return ix_load(x->ctx, x->from[i], &x->v->expr);
  return NULL;
}
static ix map_expr(ir_rewriter *r, ix e) { return ix_subst_loads(r->ctx, e, from_vector, r->user); }

static const ir_stmt *map_store(ir_rewriter *r, const ir_stmt *s) {
  vectors *x = r->user;
  for (int i = 0; i < x->nstores; i++)
    if (x->stores[i] == s) return ir_store(r->ctx, x->to[i], &x->v->expr, IR_SET, map_expr(r, s->value));
  return s;
}

static bool uses(const ir_stmt *s, const ir_buf *b) {
  if (!s) return false;
  if ((s->value && ix_uses_buf(s->value, b)) || (s->kind == IR_FOR && (ix_uses_buf(s->lo, b) || ix_uses_buf(s->hi, b)))) return true;
  for (int d = 0; s->kind == IR_STORE && d < s->buf->rank; d++)
    if (ix_uses_buf(s->index[d], b)) return true;
  for (int i = 0; i < s->n; i++)
    if (uses(s->items[i], b)) return true;
  return uses(s->body, b) || uses(s->other, b);
}

static bool stored_twice(const ir_stmt *s, const ir_buf *b, int *n) {
  if (!s) return false;
  if (s->kind == IR_STORE && s->buf == b && ++*n > 1) return true;
  for (int i = 0; i < s->n; i++)
    if (stored_twice(s->items[i], b, n)) return true;
  return stored_twice(s->body, b, n) || stored_twice(s->other, b, n);
}

/* Pieces of at most 16 bytes: memory[index at v] and array[v] by turns. */
static int moves(vectors *x, ir_buf *memory, const ix *index, ir_buf *array, bool load, const ir_stmt **s) {
  tn_ctx *ctx = x->ctx;
  int64_t most = 16 / (int64_t)ir_dtype_bytes(memory->dtype), piece = x->n < most ? x->n : most;
  int n = 0;
  for (int64_t from = 0; from < x->n; from += piece) {
    ir_var *v = cu_var(ctx, ir_format(ctx, "piece.%u", ir_next_id(ctx)), piece);
    ix at = ix_addi(ctx, v->expr, from), moved[IR_MAX_RANK];
    for (int d = 0; d < memory->rank; d++) moved[d] = ix_subst1(ctx, index[d], x->v, at);
    const ir_stmt *one = load ? ir_store(ctx, array, &at, IR_SET, ix_load(ctx, memory, moved)) : ir_store(ctx, memory, moved, IR_SET, ix_load(ctx, array, &at));
    s[n++] = ir_tile(ctx, load ? "load" : "store", cu_loop(ctx, v, IR_UNROLL, one));
  }
  return n;
}

static ir_buf *array(vectors *x, const ir_buf *b) { return ir_buf_new(x->ctx, ir_format(x->ctx, "near.%u", ir_next_id(x->ctx)), b->dtype, 1, (ix[]){ix_index(x->ctx, x->n)}, NULL, IR_LOCAL); }

const ir_stmt *cu_vectors(tn_ctx *ctx, ir_var *v, const ir_stmt *body) {
  vectors x = {.ctx = ctx, .v = v, .n = v->hi + 1};
  ir_rewriter lets = {.ctx = ctx, .stmt = open_lets}, map = {.ctx = ctx, .user = &x, .expr = map_expr, .stmt = map_store};
  const ir_stmt *all[8 * MAX_VECTORS];
  if (x.n < 2 || x.n > 16 || x.n & (x.n - 1)) return cu_loop(ctx, v, IR_UNROLL, body);
  const ir_stmt *s = ir_rewrite(&lets, body);
  find(&x, (search){0}, s);
  int kept = 0, n = 0, times;
  for (int i = 0; i < x.nstores; i++) /* nobody reads or writes what is put off */
    if (!uses(s, x.stores[i]->buf) && (times = 0, !stored_twice(s, x.stores[i]->buf, &times))) x.stores[kept++] = x.stores[i];
  x.nstores = kept;
  if (!x.nloads && !x.nstores) return cu_loop(ctx, v, IR_UNROLL, body);
  for (int i = 0; i < x.nloads; i++) {
    x.from[i] = array(&x, x.loads[i]->u.buf);
    n += moves(&x, x.loads[i]->u.buf, x.loads[i]->args, x.from[i], true, all + n);
  }
  for (int i = 0; i < x.nstores; i++) x.to[i] = array(&x, x.stores[i]->buf);
  const ir_stmt *direct = s->kind == IR_STORE ? map_store(&map, s) : s;
  all[n++] = cu_loop(ctx, v, IR_UNROLL, direct != s ? direct : ir_rewrite(&map, s));
  for (int i = 0; i < x.nstores; i++) n += moves(&x, x.stores[i]->buf, x.stores[i]->index, x.to[i], false, all + n);
  s = ir_seq(ctx, n, all);
  for (int i = 0; i < x.nloads; i++) s = ir_alloc_stmt(ctx, x.from[i], s);
  for (int i = 0; i < x.nstores; i++) s = ir_alloc_stmt(ctx, x.to[i], s);
  return s;
}
