/* cuda_columns.c — sums over outer axes, where memory runs along a parallel loop: a block has X lanes beside each other, V
 * neighbours each, and T threads of every lane share the inner loops (cuda_share.h).
 *
 *   for n: for c: { acc = 0; for r: acc += e(n, r, c); out[n, c] = f(acc) }
 *     -> for n, c / (X V) grid: { part[T X, V]; for t, x: for turn: for v: part[t x, v] += e(n, turn T + t, ..)
 *                                 lanes apart by X, then shared memory [warps, V, X]: acc[v] = all parts
 *                                 for x: for v: out[n, ..] = f(acc[v]) }
 *
 * Few columns leave multiprocessors without work: then P blocks have a piece of the iterations each. Every loop of sums is a
 * launch that leaves its sums in memory, [P, n, c], and those that come after it join them, in their order; the last launch
 * does what stores results. So the statistics of a batch take three launches: sums, squares, results. */
#include "codegen/cuda_share.h"
#include "lower/schedule.h"

/* ---- what the engine asks for ---- */

const ir_stmt *cu_columns_each(cu_rows *x, const ir_var *t, const ir_stmt *s) {
  tn_ctx *ctx = x->ctx;
  const cu_columns *c = x->columns;
  ix first = ix_muli(ctx, ix_add(ctx, ix_muli(ctx, c->group, c->lanes), ix_remi(ctx, t->expr, c->lanes)), c->each);
  s = cu_vectors(ctx, c->near, ir_subst_var(ctx, s, c->loop->var, ix_add(ctx, c->loop->lo, ix_add(ctx, first, c->near->expr))));
  return c->extent % (c->lanes * c->each) ? ir_if(ctx, ix_lt(ctx, first, ix_index(ctx, c->extent)), s, NULL) : s;
}

static ir_var *thread(cu_rows *x, int64_t n) { return cu_var(x->ctx, ir_format(x->ctx, "t.%d", x->names++), n); }

void cu_columns_combine(cu_rows *x, const cu_reduced *r) {
  tn_ctx *ctx = x->ctx;
  const cu_columns *c = x->columns;
  tn_dtype dtype = r->part->dtype;
  ir_buf *acc = cu_share_scalar(x, r->acc);
  if (c->lanes < 32) {
    ir_buf *other = cu_share_declare(x, "other", dtype, x->block, IR_LOCAL);
    for (int by = (int)c->lanes; by < 32; by *= 2) cu_share_shuffle(x, r->part, other, r->op, by);
  }
  int64_t slots = c->lanes < 32 ? x->block / 32 : x->threads;
  ir_var *t = thread(x, x->block), *i = cu_var(ctx, ir_format(ctx, "i.%d", x->names++), slots);
  if (slots == 1) {
    cu_share_enter(x, t);
    cu_share_put(x, cu_loop(ctx, t, IR_LANE, cu_columns_each(x, t, ir_store(ctx, acc, x->me, r->op, ix_load(ctx, r->part, x->me)))));
    return;
  }
  ix shape[3] = {ix_index(ctx, slots), ix_index(ctx, c->each), ix_index(ctx, c->lanes)};
  ir_buf *all = ir_buf_new(ctx, ir_format(ctx, "lanes.%d", x->names++), dtype, 3, shape, NULL, IR_SHARED);
  x->shared_bytes += slots * c->each * c->lanes * (int64_t)ir_dtype_bytes(dtype);
  if (x->nallocs == IR_COUNT(x->allocs)) {
    cu_share_refuse(x, "too many buffers in a row");
    return;
  }
  x->allocs[x->nallocs++] = all;
  cu_share_enter(x, t);
  ix at[3] = {ix_divi(ctx, t->expr, c->lanes < 32 ? 32 : c->lanes), x->me[1], ix_remi(ctx, t->expr, c->lanes)};
  const ir_stmt *give = cu_loop(ctx, c->near, IR_UNROLL, ir_store(ctx, all, at, IR_SET, ix_load(ctx, r->part, x->me)));
  if (c->lanes < 32) give = ir_if(ctx, ix_lt(ctx, ix_remi(ctx, t->expr, 32), ix_index(ctx, c->lanes)), give, NULL);
  cu_share_put(x, cu_loop(ctx, t, IR_LANE, give));
  cu_share_barrier(x);
  ir_var *u = thread(x, x->block);
  cu_share_enter(x, u);
  ix from[3] = {i->expr, x->me[1], ix_remi(ctx, u->expr, c->lanes)};
  const ir_stmt *take = cu_columns_each(x, u, ir_store(ctx, acc, x->me, r->op, ix_load(ctx, all, from)));
  cu_share_put(x, cu_loop(ctx, u, IR_LANE, cu_loop(ctx, i, IR_UNROLL, take)));
}

/* ---- pieces ---- */

/* Where the sums of a piece are, of this iteration of the nest. */
static void place(const cu_rows *x, ix piece, ix *at) {
  const cu_columns *c = x->columns;
  at[0] = piece;
  for (int i = 0; i < c->nloops; i++) at[i + 1] = ix_sub(x->ctx, c->loops[i]->var->expr, c->loops[i]->lo);
}

const ir_stmt *cu_columns_join(cu_rows *x, const cu_reduced *r, int n) {
  tn_ctx *ctx = x->ctx;
  cu_columns *c = x->columns;
  ir_var *p = cu_var(ctx, ir_format(ctx, "joined.%d", x->names++), c->pieces);
  const ir_stmt *all[CU_SUMS];
  ix at[IR_MAX_RANK];
  place(x, p->expr, at);
  for (int i = 0; i < n; i++) all[i] = ir_store(ctx, (ir_buf *)r[i].acc, NULL, r[i].op, ix_load(ctx, c->parts[c->sums][i], at));
  c->sums++;
  return cu_loop(ctx, p, IR_SERIAL, ir_seq(ctx, n, all));
}

void cu_columns_leave(cu_rows *x, const cu_reduced *r, int n) {
  tn_ctx *ctx = x->ctx;
  cu_columns *c = x->columns;
  ix shape[IR_MAX_RANK] = {ix_index(ctx, c->pieces)}, at[IR_MAX_RANK];
  for (int i = 0; i < c->nloops; i++) shape[i + 1] = ix_sub(ctx, c->loops[i]->hi, c->loops[i]->lo);
  place(x, c->piece, at);
  for (int i = 0; i < n; i++) {
    ir_buf *part = c->parts[c->sums][i] = ir_buf_new(ctx, ir_format(ctx, "piece.%d.%d", c->sums, i), r[i].part->dtype, c->nloops + 1, shape, NULL, IR_LOCAL);
    ir_var *t = thread(x, c->lanes);
    cu_share_enter(x, t);
    cu_share_put(x, cu_loop(ctx, t, IR_LANE, cu_columns_each(x, t, ir_store(ctx, part, at, IR_SET, ix_load(ctx, cu_share_scalar(x, r[i].acc), x->me)))));
  }
  c->sums++;
  c->done = true;
}

/* ---- the schedule ---- */

static bool loads_results(const ir_stmt *s, const ir_kernel *k) {
  if (!s) return false;
  for (int i = 0; i < k->nbufs && s->value; i++)
    if (k->bufs[i]->access != IR_IN && ix_uses_buf(s->value, k->bufs[i])) return true;
  for (int i = 0; i < s->n; i++)
    if (loads_results(s->items[i], k)) return true;
  return loads_results(s->body, k) || loads_results(s->other, k);
}

/* One launch; null with *reason. */
static const ir_stmt *launch(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, cu_columns *c, const ir_stmt *s, int64_t threads, int stage, bool last, const char **reason) {
  cu_rows x = {.ctx = ctx, .k = k, .threads = threads, .block = threads * c->lanes, .columns = c};
  ir_var *group = cu_var(ctx, "group", (c->extent + c->lanes * c->each - 1) / (c->lanes * c->each)), *piece = cu_var(ctx, "piece", c->pieces);
  c->group = group->expr;
  c->piece = piece->expr;
  c->stage = stage;
  c->last = last;
  c->sums = 0;
  c->done = c->stored = false;
  if (c->pieces == 1) cu_share_repeated(&x, s);
  if (!cu_share_row(&x, s)) return *reason = x.why, NULL;
  if (x.shared_bytes + 4096 > t->shared_bytes) return *reason = "columns that are too long for shared memory", NULL;
  const ir_stmt *body = ir_seq(ctx, x.n, x.out);
  for (int i = 0; i < x.nallocs; i++) body = ir_alloc_stmt(ctx, x.allocs[i], body);
  body = cu_loop(ctx, group, IR_GRID, body);
  for (int i = c->nloops - 1; i >= 0; i--)
    if (c->loops[i] != c->loop) body = ir_for(ctx, c->loops[i]->var, c->loops[i]->lo, c->loops[i]->hi, IR_GRID, body);
  if (c->pieces > 1 && last && !c->stored) body = ir_subst_var(ctx, body, piece, ix_index(ctx, 0)); /* nothing is left to share out */
  else if (c->pieces > 1) body = cu_loop(ctx, piece, IR_GRID, body);
  return ir_stmt_fresh(ctx, body, ir_format(ctx, ".%d", stage));
}

static const ir_stmt *launches(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, cu_columns *c, const ir_stmt *s, int64_t threads, const char **reason) {
  const ir_stmt *all[CU_SUMS + 1], *body;
  int n = 0;
  if (c->pieces == 1) return launch(ctx, t, k, c, s, threads, 0, true, reason);
  do { /* until there is no loop of sums of that number */
    if (!(all[n] = launch(ctx, t, k, c, s, threads, n, false, reason))) return NULL;
  } while (c->done && ++n < CU_SUMS);
  if (!n || c->done) return *reason = "columns: no loop of sums, or too many, to cut into pieces", NULL;
  if (!(all[n] = launch(ctx, t, k, c, s, threads, n, true, reason))) return NULL;
  body = ir_seq(ctx, n + 1, all);
  for (int i = 0; i < n; i++)
    for (int j = 0; j < CU_SUMS && c->parts[i][j]; j++) body = ir_alloc_stmt(ctx, c->parts[i][j], body);
  return body;
}

static bool power(int64_t n) { return n > 0 && !(n & (n - 1)); }

static bool declares_arrays(const ir_stmt *s) {
  if (!s) return false;
  if (s->kind == IR_ALLOC && s->buf->rank) return true;
  for (int i = 0; i < s->n; i++)
    if (declares_arrays(s->items[i])) return true;
  return declares_arrays(s->body) || declares_arrays(s->other);
}

/* Lanes, threads of each and pieces for `length` iterations of `count` nests: as many lanes as there are columns, up to a warp of
 * them, fewer (but 128 bytes) where that gives blocks too few; four iterations a thread or more; pieces until all multiprocessors are busy. */
static int64_t default_shape(const cu_target *t, cu_columns *c, int64_t count, int64_t length, bool arrays) {
  int64_t units = c->extent / c->each, threads;
  for (c->lanes = 1; c->lanes < 32 && c->lanes < units;) c->lanes *= 2;
  while (c->lanes > 8 && count * ((units + c->lanes - 1) / c->lanes) < t->multiprocessors) c->lanes /= 2;
  for (threads = 256 / c->lanes; threads * c->lanes > 32 && threads * 4 > length;) threads /= 2;
  while (arrays && threads * c->lanes < 512 && (length + threads - 1) / threads * c->each > 32) threads *= 2; /* they stay in registers */
  int64_t blocks = count * ((units + c->lanes - 1) / c->lanes), wanted = (4LL * t->multiprocessors + blocks - 1) / blocks, most = length / (8 * threads);
  c->pieces = wanted < most ? wanted : most;
  if (c->pieces > 256) c->pieces = 256;
  if (c->pieces < 1 || arrays) c->pieces = 1;
  return threads;
}

const cu_tile *cu_schedule_columns(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *a, const char **reason) {
  const ir_stmt *s = k->body, *loops[LW_MAX_LOOPS];
  cu_columns c = {.pieces = 1, .loops = loops};
  int64_t lo, hi, count = 1;
  for (; s && s->kind == IR_FOR && c.nloops < LW_MAX_LOOPS && lw_loop_dependence(ctx, s, NULL) == LW_PARALLEL; s = s->body) {
    if (!ix_const_value(s->lo, &lo) || !ix_const_value(s->hi, &hi) || hi <= lo) return *reason = "columns whose number is not known", NULL;
    count *= hi - lo;
    loops[c.nloops++] = s;
  }
  for (int i = 0; i < c.nloops && s && s->kind != IR_FOR; i++)
    if (cu_runs_along(ctx, s, loops[i]->var)) c.loop = loops[i];
  int64_t length = cu_longest(s);
  if (!c.loop || !length || c.nloops + 1 > IR_MAX_RANK || loads_results(s, k)) return *reason = "no inner loops beside a loop along memory", NULL;
  if (!a->n && (length < 32 || cu_runs_along_inner(ctx, s))) return *reason = "columns that are short or not in memory's order", NULL;
  c.extent = c.loop->var->hi - c.loop->var->lo + 1;
  for (c.each = a->n > 3 ? a->arg[3] : cu_widest(k); c.each > 1 && c.extent % c.each;) c.each /= 2;
  int64_t threads = default_shape(t, &c, count / c.extent, length, declares_arrays(s));
  if (a->n) c.lanes = a->arg[0], threads = a->n > 1 ? a->arg[1] : 8, c.pieces = a->n > 2 ? a->arg[2] : 1;
  int64_t block = c.lanes * threads;
  if (!power(c.lanes) || c.lanes > 1024 || threads < 1 || threads > 1024 || block % 32 || block > 1024 || !power(c.each) || c.each > 16 || c.pieces < 1 || c.pieces > 256)
    return *reason = "columns: lanes, a power of two, threads of each, together 32 to 1024 by 32, pieces up to 256, neighbours up to 16", NULL;
  const ir_stmt *body = launches(ctx, t, k, &c, cu_exponentials(ctx, k, s), threads, reason);
  return body ? cu_tile_new(ctx, k, body, (int)block, ir_format(ctx, "columns %lld %lld %lld %lld", (long long)c.lanes, (long long)threads, (long long)c.pieces, (long long)c.each)) : NULL;
}
