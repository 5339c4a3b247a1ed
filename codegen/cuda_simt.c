/* cuda_simt.c — a thread per iteration of the parallel loops: every kernel has this schedule.
 *
 *   for i: for j: S   ->   for g grid: for t lane: { let p = g*T + t; if p < Ni*Nj { let i, j of p; S } }
 *
 * A sequence of nests is a launch each; arrays declared around them are passed on in global memory. What has no parallel loops outside runs on one thread. */
#include "codegen/cuda_internal.h"
#include "lower/schedule.h"
#include <string.h>

typedef struct nest {
  const ir_stmt *loops[LW_MAX_LOOPS];
  int n;
  const ir_stmt *body;
  ix count; /* iterations in all */
} nest;

/* Outer loops whose iterations are independent and whose bounds hang on no loop. */
static nest parallel_nest(tn_ctx *ctx, const ir_stmt *s) {
  nest r = {.count = ix_index(ctx, 1)};
  while (s && s->kind == IR_FOR && r.n < LW_MAX_LOOPS) {
    bool fixed = true;
    for (int i = 0; i < r.n; i++) fixed &= !ix_uses_var(s->lo, r.loops[i]->var) && !ix_uses_var(s->hi, r.loops[i]->var);
    if (!fixed || lw_loop_dependence(ctx, s, NULL) != LW_PARALLEL) break;
    r.loops[r.n++] = s;
    r.count = ix_mul(ctx, r.count, ix_max(ctx, ix_sub(ctx, s->hi, s->lo), ix_index(ctx, 0)));
    s = s->body;
  }
  r.body = s;
  return r;
}

static const ir_stmt *first_store(const ir_stmt *s) {
  if (!s || (s->kind == IR_STORE && s->buf->space == IR_GLOBAL)) return s;
  for (int i = 0; i < s->n; i++) {
    const ir_stmt *r = first_store(s->items[i]);
    if (r) return r;
  }
  const ir_stmt *r = first_store(s->body);
  return r ? r : first_store(s->other);
}

/* The loop along which memory of the first store runs becomes the innermost: neighbouring threads write neighbours, whatever
 * the order of the loops, as in tensors whose channels lie last. */
static void memory_order(tn_ctx *ctx, nest *n) {
  const ir_stmt *s = first_store(n->body);
  if (!s || s->kind != IR_STORE) return;
  ix at = ir_buf_offset(ctx, s->buf, s->index);
  for (int i = n->n - 2; i >= 0; i--) {
    int64_t c;
    if (!ix_affine_in(at, n->loops[i]->var, &c) || c != 1) continue;
    const ir_stmt *fast = n->loops[i];
    memmove(n->loops + i, n->loops + i + 1, (size_t)(n->n - 1 - i) * sizeof *n->loops);
    n->loops[n->n - 1] = fast;
    return;
  }
}

static const ir_stmt *plain_loop(ir_rewriter *r, const ir_stmt *s) {
  if (s->kind != IR_FOR || s->loop == IR_SERIAL || s->loop == IR_UNROLL || s->loop == IR_VECTOR) return s;
  return ir_rewrite(r, ir_for(r->ctx, s->var, s->lo, s->hi, IR_SERIAL, s->body));
}

/* The same statements without loop kinds that mean something here. */
static const ir_stmt *plain(tn_ctx *ctx, const ir_stmt *s) {
  ir_rewriter r = {.ctx = ctx, .stmt = plain_loop};
  return s ? ir_rewrite(&r, s) : NULL;
}

/* Whether a value is the same wherever it is computed: it loads nothing that the kernel stores. */
static bool lasting(ix e) {
  if (e->op == IX_LOAD && (e->u.buf->space != IR_GLOBAL || e->u.buf->access != IR_IN)) return false;
  for (int i = 0; i < e->nargs; i++)
    if (!lasting(e->args[i])) return false;
  return true;
}

/* The nests of a kernel, in order: sequences opened, lets of lasting values put in place of their variables. */
static void nests(tn_ctx *ctx, const ir_stmt *s, const ir_stmt ***list, int *n) {
  if (!s) return;
  if (s->kind == IR_SEQ)
    for (int i = 0; i < s->n; i++) nests(ctx, s->items[i], list, n);
  else if (s->kind == IR_LET && lasting(s->value)) nests(ctx, ir_subst_var(ctx, s->body, s->var, s->value), list, n);
  else IR_PUSH(ctx, *list, *n, s);
}

/* The variables of the loops, from the number of the iteration; `further`: what the innermost is ahead of that. */
static const ir_stmt *with_loops(tn_ctx *ctx, const nest *n, ix p, ix further, const ir_stmt *body) {
  for (int i = 0; i < n->n; i++) { /* outermost let last: it wraps the others */
    ix inner = ix_index(ctx, 1), extent = ix_sub(ctx, n->loops[i]->hi, n->loops[i]->lo);
    for (int j = i + 1; j < n->n; j++) inner = ix_mul(ctx, inner, ix_sub(ctx, n->loops[j]->hi, n->loops[j]->lo));
    ix at = ix_div(ctx, p, inner);
    if (i) at = ix_rem(ctx, at, extent);
    if (i == n->n - 1) at = ix_add(ctx, at, further);
    body = ir_let(ctx, n->loops[i]->var, ix_add(ctx, at, n->loops[i]->lo), body);
  }
  return body;
}

static const ir_stmt *on_threads(tn_ctx *ctx, const ir_stmt *s, int64_t threads, int64_t each, int number) {
  nest n = parallel_nest(ctx, s);
  memory_order(ctx, &n);
  int64_t count;
  bool fixed = ix_const_value(n.count, &count);
  if (!n.n) threads = 1; /* nothing to share out: a guard keeps all threads but one away */
  ix blocks = ix_ceil_div(ctx, n.count, threads * each);
  int64_t last = fixed ? (count + threads * each - 1) / (threads * each) - 1 : INT64_MAX / (threads * each) - 1;
  ir_var *g = ir_var_new(ctx, ir_format(ctx, "block.%d", number), TN_INDEX, 0, n.n ? (last < 0 ? 0 : last) : 0);
  ir_var *t = ir_var_new(ctx, ir_format(ctx, "thread.%d", number), TN_INDEX, 0, threads - 1);
  if (!n.n) {
    ix one = ix_index(ctx, 1), zero = ix_index(ctx, 0);
    return ir_for(ctx, g, zero, one, IR_GRID, ir_for(ctx, t, zero, one, IR_LANE, s));
  }
  ix first = ix_muli(ctx, ix_add(ctx, ix_muli(ctx, g->expr, threads), t->expr), each);
  ir_var *p = ir_var_new(ctx, ir_format(ctx, "point.%d", number), TN_INDEX, 0, fixed ? (count > 0 ? count - 1 : 0) : INT64_MAX);
  const ir_stmt *body;
  if (each == 1) body = ir_if(ctx, ix_lt(ctx, first, n.count), ir_let(ctx, p, first, with_loops(ctx, &n, p->expr, ix_index(ctx, 0), n.body)), NULL);
  else {
    ir_var *v = ir_var_new(ctx, ir_format(ctx, "near.%d", number), TN_INDEX, 0, each - 1);
    ix at = ix_add(ctx, first, v->expr);
    int64_t run;
    bool whole = ix_const_value(ix_sub(ctx, n.loops[n.n - 1]->hi, n.loops[n.n - 1]->lo), &run) && run % each == 0; /* none ends between neighbours */
    body = whole ? ir_let(ctx, p, first, with_loops(ctx, &n, p->expr, v->expr, n.body)) : ir_let(ctx, p, at, with_loops(ctx, &n, p->expr, ix_index(ctx, 0), n.body));
    if (!fixed || count % each) body = ir_if(ctx, ix_lt(ctx, at, n.count), body, NULL);
    body = ir_for(ctx, v, ix_index(ctx, 0), ix_index(ctx, each), IR_VECTOR, body);
    if (!fixed || count % (threads * each)) body = ir_if(ctx, ix_lt(ctx, first, n.count), body, NULL);
  }
  body = ir_for(ctx, t, ix_index(ctx, 0), ix_index(ctx, threads), IR_LANE, body);
  return ir_for(ctx, g, ix_index(ctx, 0), blocks, IR_GRID, body);
}

/* Neighbours of a thread: as many as make 16 bytes of what is stored, where the innermost loop runs along memory in
 * such pieces and there is enough for all multiprocessors. */
static int64_t neighbours(tn_ctx *ctx, const cu_target *t, const ir_kernel *k) {
  lw_problem p = lw_problem_of(ctx, k);
  if (p.kind != LW_POINTWISE || !p.store || !p.nout || !p.store->buf->rank) return 1;
  int64_t c, each = 16 / (int64_t)ir_dtype_bytes(p.store->buf->dtype), points = 1;
  int last = -1;
  for (int i = 0; i < p.nout; i++) {
    points *= p.extent[i] > 0 ? p.extent[i] : 1;
    if (ix_affine_in(ir_buf_offset(ctx, p.store->buf, p.store->index), p.out[i]->var, &c) && c == 1) last = i;
  }
  return last < 0 || p.extent[last] % each || points < 2048LL * t->multiprocessors ? 1 : each > 8 ? 8 : each;
}

const cu_tile *cu_schedule_threads(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *c, const char **reason) {
  int64_t threads = c->n > 0 ? c->arg[0] : 256, each = c->n > 1 ? c->arg[1] : neighbours(ctx, t, k);
  if (threads < 32 || threads > 1024 || threads % 32 || each < 1 || each > 16) {
    *reason = "threads: from 32 to 1024 by 32, 1 to 16 iterations each";
    return NULL;
  }
  const ir_stmt **parts = NULL, *body = plain(ctx, k->body);
  ir_buf *passed[8];
  int n = 0, np = 0;
  for (int64_t size; body && body->kind == IR_ALLOC && body->buf->rank && np < IR_COUNT(passed) && ix_const_value(ir_buf_elements(ctx, body->buf), &size); body = body->body) passed[np++] = body->buf;
  nests(ctx, body, &parts, &n);
  for (int i = 0; i < n; i++) parts[i] = on_threads(ctx, parts[i], threads, each, i);
  body = ir_seq(ctx, n, parts);
  while (np) body = ir_alloc_stmt(ctx, passed[--np], body);
  return cu_tile_new(ctx, k, body, (int)threads, ir_format(ctx, "threads %lld %lld", (long long)threads, (long long)each));
}

const cu_tile *cu_schedule_serial(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *c, const char **reason) {
  ir_var *g = ir_var_new(ctx, "block", TN_INDEX, 0, 0), *one = ir_var_new(ctx, "thread", TN_INDEX, 0, 0);
  const ir_stmt *body = k->body ? ir_for(ctx, one, ix_index(ctx, 0), ix_index(ctx, 1), IR_LANE, plain(ctx, k->body)) : NULL;
  if (body) body = ir_for(ctx, g, ix_index(ctx, 0), ix_index(ctx, 1), IR_GRID, body);
  return cu_tile_new(ctx, k, body, 32, "serial");
}
