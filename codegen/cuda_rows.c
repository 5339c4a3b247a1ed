/* cuda_rows.c — a block per iteration of the parallel loops, or a warp of it, whose threads share the loops inside (cuda_share.h):
 * sums, softmax, norms. */
#include "codegen/cuda_share.h"
#include "lower/schedule.h"

/* ---- what a row is like ---- */

static bool load_along(tn_ctx *ctx, ix e, const ir_var *v) {
  if (!e->loads) return false;
  if (e->op == IX_LOAD && e->u.buf->space == IR_GLOBAL && lw_stride(ctx, e, v) == 1) return true;
  for (int i = 0; i < e->nargs; i++)
    if (load_along(ctx, e->args[i], v)) return true;
  return false;
}

bool cu_runs_along(tn_ctx *ctx, const ir_stmt *s, const ir_var *v) {
  int64_t c;
  if (!s) return false;
  if (s->kind == IR_STORE && s->buf->space == IR_GLOBAL && ix_affine_in(ir_buf_offset(ctx, s->buf, s->index), v, &c) && c == 1) return true;
  if ((s->kind == IR_STORE || s->kind == IR_LET) && load_along(ctx, s->value, v)) return true;
  for (int i = 0; i < s->n; i++)
    if (cu_runs_along(ctx, s->items[i], v)) return true;
  return cu_runs_along(ctx, s->body, v) || cu_runs_along(ctx, s->other, v);
}

bool cu_runs_along_inner(tn_ctx *ctx, const ir_stmt *s) {
  if (!s) return false;
  if (s->kind == IR_FOR && cu_runs_along(ctx, s->body, s->var)) return true;
  for (int i = 0; i < s->n; i++)
    if (cu_runs_along_inner(ctx, s->items[i])) return true;
  return cu_runs_along_inner(ctx, s->body) || cu_runs_along_inner(ctx, s->other);
}

bool cu_by_dims(const ir_kernel *k, ix e) {
  if (e->op == IX_LOAD) return false;
  bool all = e->op != IX_VAR;
  for (int i = 0; e->op == IX_VAR && i < k->ndims; i++) all |= e->u.var == k->dims[i];
  for (int i = 0; i < e->nargs && all; i++) all = cu_by_dims(k, e->args[i]);
  return all;
}

enum { MOST_UNKNOWN = 1 << 16 };

/* Iterations of a loop, the most there may be. */
static int64_t most_of(const ir_stmt *s) {
  int64_t lo, hi;
  if (ix_const_value(s->lo, &lo) && ix_const_value(s->hi, &hi)) return hi - lo;
  return s->var->lo <= 0 && s->var->hi >= MOST_UNKNOWN ? MOST_UNKNOWN : s->var->hi - s->var->lo + 1;
}

int64_t cu_longest(const ir_stmt *s) {
  if (!s) return 0;
  int64_t best = 0, n = s->kind == IR_FOR ? most_of(s) : 0;
  for (int i = 0; i < s->n; i++) {
    int64_t item = cu_longest(s->items[i]);
    best = item > best ? item : best;
  }
  int64_t b = cu_longest(s->body), o = cu_longest(s->other);
  if (n) b = !b ? n : b > INT32_MAX / n ? INT32_MAX : b * n; /* several loops of unknown length are no more than long */
  best = b > best ? b : best;
  return o > best ? o : best;
}

/* ---- exponentials ---- */

/* let e = exp(a - b) as a register that the special function unit fills. */
static const ir_stmt *quick_exponential(ir_rewriter *r, const ir_stmt *s) {
  tn_ctx *ctx = r->ctx;
  if (s->kind != IR_LET || s->value->op != IX_EXP || s->value->dtype != TN_F32 || s->value->args[0]->op != IX_SUB) return s;
  ir_buf *e = ir_buf_new(ctx, ir_format(ctx, "exp.%u", ir_next_id(ctx)), TN_F32, 0, NULL, NULL, IR_REGISTER);
  const ir_stmt *both[2] = {ir_tile(ctx, "exp", ir_store(ctx, e, NULL, IR_SET, s->value)), ir_let(ctx, s->var, ix_load(ctx, e, NULL), ir_rewrite(r, s->body))};
  return ir_alloc_stmt(ctx, e, ir_seq(ctx, 2, both));
}

const ir_stmt *cu_exponentials(tn_ctx *ctx, const ir_kernel *k, const ir_stmt *s) {
  for (int i = 0; i < k->nbufs; i++)
    if (k->bufs[i]->access != IR_IN && k->bufs[i]->dtype != TN_F16 && k->bufs[i]->dtype != TN_BF16) return s;
  ir_rewriter r = {.ctx = ctx, .stmt = quick_exponential};
  return ir_rewrite(&r, s);
}

/* ---- the schedule ---- */

int64_t cu_widest(const ir_kernel *k) {
  int64_t v = 1;
  for (int i = 0; i < k->nbufs; i++) {
    int64_t each = 16 / (int64_t)ir_dtype_bytes(k->bufs[i]->dtype);
    if (k->bufs[i]->rank && each > v) v = each;
  }
  return v > 8 ? 8 : v;
}

/* A warp for what its lanes keep in registers, more where rows are longer or few. */
static int64_t default_threads(const cu_target *t, int64_t row, int64_t v, int64_t count) {
  int64_t units = (row + v - 1) / v, threads = 32;
  while (threads < 1024 && units > threads * 8) threads *= 2;
  while (threads < 1024 && count * threads < 512LL * t->multiprocessors && units > threads) threads *= 2;
  return threads;
}

static const cu_tile *rows_of(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const ir_stmt *s, const ir_stmt *const *loops, int n, int64_t threads, int64_t many, const char **reason) {
  cu_rows x = {.ctx = ctx, .k = k, .threads = threads, .block = threads * many, .v = cu_widest(k)};
  ir_var *w = cu_var(ctx, "row.w", many);
  if (many > 1) x.warp = w->expr;
  cu_share_repeated(&x, s);
  if (!cu_share_row(&x, s)) return *reason = x.why, NULL;
  if (x.shared_bytes + 4096 > t->shared_bytes) return *reason = "rows that are too long for shared memory", NULL;
  if (many > 1 && x.shared_bytes) return *reason = "rows of a warp that need shared memory", NULL;
  const ir_stmt *body = ir_seq(ctx, x.n, x.out);
  if (many > 1) {
    const ir_stmt *l = loops[--n];
    ix blocks = ix_ceil_div(ctx, ix_max(ctx, ix_sub(ctx, l->hi, l->lo), ix_index(ctx, 0)), many);
    ir_var *g = ir_var_new(ctx, "block", TN_INDEX, 0, blocks->hi > 0 ? blocks->hi - 1 : 0);
    ix at = ix_add(ctx, l->lo, ix_add(ctx, ix_muli(ctx, g->expr, many), w->expr));
    ir_var *row = ir_var_new(ctx, "row", TN_INDEX, at->lo, at->hi);
    body = ir_let(ctx, row, at, ir_if(ctx, ix_lt(ctx, row->expr, l->hi), ir_subst_var(ctx, body, l->var, row->expr), NULL));
    body = cu_loop(ctx, w, IR_WARP, body);
    for (int i = 0; i < x.nallocs; i++) body = ir_alloc_stmt(ctx, x.allocs[i], body);
    body = ir_for(ctx, g, ix_index(ctx, 0), blocks, IR_GRID, body);
  } else {
    for (int i = 0; i < x.nallocs; i++) body = ir_alloc_stmt(ctx, x.allocs[i], body);
    if (!n) body = cu_loop(ctx, cu_var(ctx, "block", 1), IR_GRID, body); /* a single row */
  }
  for (int i = n - 1; i >= 0; i--) body = ir_for(ctx, loops[i]->var, loops[i]->lo, loops[i]->hi, IR_GRID, body);
  return cu_tile_new(ctx, k, body, (int)x.block, ir_format(ctx, "rows %lld %lld", (long long)threads, (long long)many));
}

const cu_tile *cu_schedule_rows(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *c, const char **reason) {
  const ir_stmt *s = k->body, *loops[LW_MAX_LOOPS];
  int n = 0;
  int64_t count = 1, last = 0;
  for (; s && s->kind == IR_FOR && n < LW_MAX_LOOPS && lw_loop_dependence(ctx, s, NULL) == LW_PARALLEL; s = s->body) {
    if (!cu_by_dims(k, s->lo) || !cu_by_dims(k, s->hi)) return *reason = "rows whose number is not known", NULL;
    last = most_of(s);
    count = count > INT32_MAX ? count : count * last;
    loops[n++] = s;
  }
  int64_t row = cu_longest(s);
  if (!s || s->kind == IR_FOR || !row) return *reason = "no inner loops to share out", NULL;
  if (!c->n && (row < 32 || !cu_runs_along_inner(ctx, s))) return *reason = "rows that are short or not in memory's order", NULL;
  int64_t threads = c->n ? c->arg[0] : default_threads(t, row, cu_widest(k), count), many = c->n > 1 ? c->arg[1] : c->n || threads > 32 || last < 4 ? 1 : count >= 16LL * t->multiprocessors ? 8 : 4;
  if (threads < 32 || threads > 1024 || threads % 32 || many < 1 || many > 32 || (many > 1 && (threads != 32 || !n))) return *reason = "rows: from 32 to 1024 threads by 32, or 32 and rows of a block", NULL;
  s = cu_exponentials(ctx, k, s);
  const cu_tile *made = rows_of(ctx, t, k, s, loops, n, threads, many, reason);
  return made || c->n || many == 1 ? made : rows_of(ctx, t, k, s, loops, n, threads, 1, reason);
}

