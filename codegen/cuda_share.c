/* cuda_share.c — the body of a row or of a column, rewritten for the threads that share it. See cuda_share.h. */
#include "codegen/cuda_share.h"
#include "lower/schedule.h"
#include <math.h>

enum { MAX_ELEMENTS = 64, MAX_BYTES = 128 /* of a row that a thread keeps in registers */ };

bool cu_share_refuse(cu_rows *x, const char *why) {
  if (!x->why) x->why = why;
  return false;
}

void cu_share_put(cu_rows *x, const ir_stmt *s) {
  if (!s) return;
  if (x->n == IR_COUNT(x->out)) cu_share_refuse(x, "too many statements in a row");
  else x->out[x->n++] = s;
}

ir_buf *cu_share_declare(cu_rows *x, const char *name, tn_dtype t, int64_t n, ir_space space) {
  bool near = x->columns && space == IR_LOCAL;
  ix shape[2] = {ix_index(x->ctx, n), ix_index(x->ctx, near ? x->columns->each : 1)};
  ir_buf *b = ir_buf_new(x->ctx, ir_format(x->ctx, "%s.%d", name, x->names++), t, near ? 2 : 1, shape, NULL, space);
  if (x->nallocs == IR_COUNT(x->allocs)) cu_share_refuse(x, "too many buffers in a row");
  else x->allocs[x->nallocs++] = b;
  return b;
}

static ir_buf *add_scalar(cu_rows *x, const ir_buf *buf, const ir_var *var) {
  if (x->nscalars == CU_SCALARS) return cu_share_refuse(x, "too many scalars in a row"), NULL;
  tn_dtype t = buf ? buf->dtype : var->dtype;
  ir_buf *own = cu_share_declare(x, buf ? buf->name : var->name, t == TN_INDEX ? TN_I64 : t, x->block, IR_LOCAL);
  x->scalars[x->nscalars].buf = buf;
  x->scalars[x->nscalars].var = var;
  x->scalars[x->nscalars++].own = own;
  return own;
}

ir_buf *cu_share_scalar(const cu_rows *x, const ir_buf *b) {
  for (int i = x->nscalars - 1; i >= 0; i--)
    if (x->scalars[i].buf == b && b) return x->scalars[i].own;
  return NULL;
}

static int array_of(const cu_rows *x, const ir_buf *b) {
  for (int i = 0; i < x->narrays; i++)
    if (x->arrays[i] == b) return i;
  return -1;
}

/* Whether all of s touches a row's array of n elements at the variable of an outermost loop over them all, which has
 * no loops within: the same thread then touches an element each time. */
static bool expr_owned(ix e, const ir_buf *b, const ir_var *v) {
  if (e->op == IX_LOAD && e->u.buf == b && !(v && e->args[0] == v->expr)) return false;
  for (int i = 0; i < e->nargs; i++)
    if (!expr_owned(e->args[i], b, v)) return false;
  return true;
}

static bool owned(const ir_stmt *s, const ir_buf *b, int64_t n, const ir_var *v, bool inside) {
  if (!s) return true;
  if (s->kind == IR_FOR) return owned(s->body, b, n, !inside && s->var->lo == 0 && s->var->hi == n - 1 ? s->var : NULL, true);
  if (s->value && !expr_owned(s->value, b, v)) return false;
  for (int i = 0; s->kind == IR_STORE && i < s->buf->rank; i++)
    if (!expr_owned(s->index[i], b, v) || (s->buf == b && !(v && s->index[0] == v->expr))) return false;
  for (int i = 0; i < s->n; i++)
    if (!owned(s->items[i], b, n, v, inside)) return false;
  return owned(s->body, b, n, v, inside) && owned(s->other, b, n, v, inside);
}

/* ---- expressions and statements of one thread ---- */

static ix own_value(cu_rows *x, ir_buf *own, tn_dtype t) {
  ix v = ix_load(x->ctx, own, x->me);
  return t == TN_INDEX ? ix_cast(x->ctx, TN_INDEX, v) : v;
}

static ix map_var(void *user, ir_var *v) {
  cu_rows *x = user;
  for (int i = 0; i < x->nscalars; i++)
    if (x->scalars[i].var == v) return own_value(x, x->scalars[i].own, v->dtype);
  return NULL;
}

static cu_kept *find_kept(cu_rows *x, ix load, const ir_var *v, int64_t extent) {
  for (int i = 0; i < x->nkept; i++)
    if (x->kept[i].extent == extent && x->kept[i].load == ix_subst1(x->ctx, load, v, x->kept[i].at->expr)) return &x->kept[i];
  return NULL;
}

static const cu_kept *kept_of(cu_rows *x, ix load) {
  const cu_kept *k = x->loop && load->u.buf->space == IR_GLOBAL ? find_kept(x, load, x->loop, x->loop_extent) : NULL;
  return k && k->own ? k : NULL;
}

/* Where the thread finds the element `index` of an array. */
static const ix *in_array(const cu_rows *x, int array, const ix *index, ix *at) {
  int rank = x->arrays[array]->rank;
  if (x->own[array]) return at[0] = x->me[0], at[1] = x->turn, at;
  for (int i = 0; i < rank; i++) at[i] = index[i];
  if (x->columns) at[rank] = x->me[1], at[rank + 1] = ix_remi(x->ctx, x->me[0], x->columns->lanes);
  return at;
}

static ix map_load(void *user, ix load) {
  cu_rows *x = user;
  ir_buf *own = cu_share_scalar(x, load->u.buf);
  if (own) return own_value(x, own, load->u.buf->dtype);
  const cu_kept *k = kept_of(x, load);
  if (k) return ix_load(x->ctx, k->own, (ix[]){x->me[0], x->turn});
  int array = array_of(x, load->u.buf);
  if (array < 0) return NULL;
  ix at[IR_MAX_RANK];
  return ix_load(x->ctx, x->shared[array], in_array(x, array, load->args, at));
}

static ix map_expr(cu_rows *x, ix e) { return ix_subst_loads(x->ctx, ix_subst(x->ctx, e, map_var, x), map_load, x); }
static ix rewrite_expr(ir_rewriter *r, ix e) { return map_expr(r->user, e); }

static const ir_stmt *rewrite_stmt(ir_rewriter *r, const ir_stmt *s) {
  cu_rows *x = r->user;
  if (s->kind != IR_STORE) return s;
  ir_buf *own = cu_share_scalar(x, s->buf);
  int array = array_of(x, s->buf);
  if (!own && array < 0) return s;
  ix index[IR_MAX_RANK];
  for (int i = 0; i < s->buf->rank; i++) index[i] = map_expr(x, s->index[i]);
  ix v = map_expr(x, s->value);
  if (own) return ir_store(x->ctx, own, x->me, s->op, s->buf->dtype == TN_INDEX ? ix_cast(x->ctx, TN_I64, v) : v);
  ix at[IR_MAX_RANK];
  return ir_store(x->ctx, x->shared[array], in_array(x, array, index, at), s->op, v);
}

static const ir_stmt *map_stmt(cu_rows *x, const ir_stmt *s) {
  ir_rewriter r = {.ctx = x->ctx, .user = x, .expr = rewrite_expr, .stmt = rewrite_stmt};
  if (s->kind == IR_STORE) {
    const ir_stmt *direct = rewrite_stmt(&r, s);
    if (direct != s) return direct;
  }
  return ir_rewrite(&r, s);
}

/* Of a row, or with columns of the block. */
static ir_var *thread_var(cu_rows *x) { return cu_var(x->ctx, ir_format(x->ctx, "t.%d", x->names++), x->columns ? x->block : x->threads); }

void cu_share_enter(cu_rows *x, const ir_var *t) {
  x->me[0] = x->warp ? ix_add(x->ctx, ix_muli(x->ctx, x->warp, 32), t->expr) : t->expr;
  if (!x->columns) return;
  x->columns->near = cu_var(x->ctx, ir_format(x->ctx, "near.%d", x->names++), x->columns->each);
  x->me[1] = x->columns->near->expr;
}

/* What thread t does, for all its columns. */
static const ir_stmt *each(cu_rows *x, const ir_var *t, const ir_stmt *s) { return x->columns ? cu_columns_each(x, t, s) : s; }

void cu_share_barrier(cu_rows *x) {
  cu_share_put(x, cu_sync(x->ctx, (x->columns ? x->block : x->threads) > 32 ? "barrier" : "warp.sync"));
  x->dirty = false;
}

static bool touches_arrays(const cu_rows *x, const ir_stmt *s) {
  if (!s) return false;
  for (int i = 0; i < x->narrays; i++) {
    if (x->own[i]) continue;
    if (s->buf == x->arrays[i] || (s->value && ix_uses_buf(s->value, x->arrays[i]))) return true;
    for (int k = 0; s->kind == IR_STORE && k < s->buf->rank; k++)
      if (ix_uses_buf(s->index[k], x->arrays[i])) return true;
  }
  for (int i = 0; i < s->n; i++)
    if (touches_arrays(x, s->items[i])) return true;
  return touches_arrays(x, s->body) || touches_arrays(x, s->other);
}

static void before_arrays(cu_rows *x, const ir_stmt *s) {
  if (!touches_arrays(x, s)) return;
  if (x->dirty) cu_share_barrier(x);
  x->dirty = true;
}

/* ---- reductions ---- */

static bool identity(tn_ctx *ctx, tn_dtype t, ir_store_op op, ix *e) {
  bool real = ir_is_float(t);
  int bits = ir_dtype_bits(t);
  int64_t low = ir_is_signed(t) ? (int64_t)((uint64_t)-1 << (bits - 1)) : 0, high = ir_is_signed(t) ? ~low : bits == 64 ? -1 : (int64_t)(((uint64_t)1 << bits) - 1);
  switch (op) {
  case IR_ADD: *e = ix_num(ctx, t, 0); return t != TN_BOOL;
  case IR_MUL: *e = ix_num(ctx, t, 1); return t != TN_BOOL;
  case IR_MAX: *e = real ? ix_float(ctx, t, -INFINITY) : t == TN_BOOL ? ix_bool(ctx, false) : ix_int(ctx, t, low); return true;
  case IR_MIN: *e = real ? ix_float(ctx, t, INFINITY) : t == TN_BOOL ? ix_bool(ctx, true) : ix_int(ctx, t, high); return true;
  case IR_OR: *e = t == TN_BOOL ? ix_bool(ctx, false) : ix_int(ctx, t, 0); return !real;
  case IR_AND: *e = t == TN_BOOL ? ix_bool(ctx, true) : ix_int(ctx, t, -1); return !real;
  default: return false;
  }
}

/* The op of an update acc op= e, also one written out: acc = fma(a, b, acc), acc = acc + e. */
static bool update_op(const ir_stmt *s, ir_store_op *op) {
  if (s->op != IR_SET) return *op = s->op, true;
  switch (s->value->op) {
  case IX_FMA: case IX_ADD: return *op = IR_ADD, true;
  case IX_MUL: return *op = IR_MUL, true;
  case IX_MAX: return *op = IR_MAX, true;
  case IX_MIN: return *op = IR_MIN, true;
  default: return false;
  }
}

/* Scalars from outside that a loop updates. */
static bool find_reduced(cu_rows *x, const ir_stmt *s, cu_reduced *r, int *n) {
  if (!s) return true;
  if (s->kind == IR_STORE && cu_share_scalar(x, s->buf)) {
    ir_store_op op;
    if (!update_op(s, &op)) return cu_share_refuse(x, "a scalar that a loop does not just add to");
    for (int i = 0; i < *n; i++)
      if (r[i].acc == s->buf) return r[i].op == op ? true : cu_share_refuse(x, "a scalar updated in two ways");
    if (*n == CU_SUMS) return cu_share_refuse(x, "too many sums in a loop");
    r[*n].acc = s->buf;
    r[(*n)++].op = op;
    return true;
  }
  for (int i = 0; i < s->n; i++)
    if (!find_reduced(x, s->items[i], r, n)) return false;
  return find_reduced(x, s->body, r, n) && find_reduced(x, s->other, r, n);
}

void cu_share_shuffle(cu_rows *x, ir_buf *v, ir_buf *other, ir_store_op op, int by) {
  tn_ctx *ctx = x->ctx;
  int64_t warps = (x->columns ? x->block : x->threads) / 32;
  ir_var *w = cu_var(ctx, ir_format(ctx, "w.%d", x->names++), warps), *l = cu_var(ctx, ir_format(ctx, "l.%d", x->names++), 32), *m = cu_var(ctx, ir_format(ctx, "l.%d", x->names++), 32);
  cu_share_enter(x, w); /* for its neighbours */
  ix near = x->me[1], base = ix_muli(ctx, x->warp ? x->warp : w->expr, 32), to[2] = {ix_add(ctx, base, l->expr), near}, me[2] = {ix_add(ctx, base, m->expr), near};
  ix from[2] = {ix_add(ctx, base, ix_remi(ctx, ix_addi(ctx, l->expr, by), 32)), near};
  const ir_stmt *take = ir_tile(ctx, "shfl", cu_loop(ctx, l, IR_SERIAL, ir_store(ctx, other, to, IR_SET, ix_load(ctx, v, from))));
  const ir_stmt *both[2] = {take, cu_loop(ctx, m, IR_LANE, ir_store(ctx, v, me, op, ix_load(ctx, other, me)))}, *s = ir_seq(ctx, 2, both);
  if (x->columns) s = cu_loop(ctx, x->columns->near, IR_UNROLL, s);
  cu_share_put(x, x->warp ? s : cu_loop(ctx, w, IR_WARP, s));
}

/* acc op= the parts of all threads of the row. */
static void combine(cu_rows *x, const cu_reduced *r) {
  tn_ctx *ctx = x->ctx;
  if (x->columns) return cu_columns_combine(x, r);
  tn_dtype t = r->part->dtype;
  ir_buf *other = cu_share_declare(x, "other", t, x->block, IR_LOCAL), *acc = cu_share_scalar(x, r->acc);
  for (int by = 16; by; by /= 2) cu_share_shuffle(x, r->part, other, r->op, by);
  ir_var *v = thread_var(x);
  if (x->threads == 32) {
    cu_share_enter(x, v);
    cu_share_put(x, cu_loop(ctx, v, IR_LANE, ir_store(ctx, acc, x->me, r->op, ix_load(ctx, r->part, x->me))));
    return;
  }
  ir_buf *all = cu_share_declare(x, "warps", t, x->threads / 32, IR_SHARED);
  ix warp = ix_divi(ctx, v->expr, 32);
  cu_share_put(x, cu_loop(ctx, v, IR_LANE, ir_if(ctx, ix_eq(ctx, ix_remi(ctx, v->expr, 32), ix_index(ctx, 0)), ir_store(ctx, all, &warp, IR_SET, ix_load(ctx, r->part, &v->expr)), NULL)));
  cu_share_barrier(x);
  ir_var *u = thread_var(x), *i = cu_var(ctx, ir_format(ctx, "i.%d", x->names++), x->threads / 32);
  cu_share_put(x, cu_loop(ctx, u, IR_LANE, cu_loop(ctx, i, IR_UNROLL, ir_store(ctx, acc, &u->expr, r->op, ix_load(ctx, all, &i->expr)))));
}

/* ---- the row ---- */

/* Loops nested perfectly that may all be shared out; or one whose length is known at launch alone, *count being -1 then. */
static int shared_loops(cu_rows *x, const ir_stmt *s, const ir_stmt **loops, int64_t *count, const ir_stmt **body) {
  int n = 0;
  int64_t start;
  *count = 1;
  if (!ix_is_const(s->hi) && cu_by_dims(x->k, s->hi) && ix_const_value(s->lo, &start) && lw_loop_dependence(x->ctx, s, NULL) != LW_SERIAL) {
    loops[0] = s;
    *count = -1;
    *body = s->body;
    return 1;
  }
  while (s && s->kind == IR_FOR && n < LW_MAX_LOOPS) {
    int64_t lo, hi;
    if (!ix_const_value(s->lo, &lo) || !ix_const_value(s->hi, &hi) || lw_loop_dependence(x->ctx, s, NULL) == LW_SERIAL) break;
    loops[n++] = s;
    *count *= hi - lo;
    s = s->body;
  }
  *body = s;
  return n;
}

/* Neighbours of a thread in a loop whose innermost loop has so many iterations. */
static int64_t neighbours(const cu_rows *x, int64_t extent) {
  int64_t v = x->columns ? 1 : x->v;
  while (extent % v) v /= 2;
  return v;
}

/* Elements of a thread. */
static int64_t elements(const cu_rows *x, int64_t extent) {
  int64_t v = neighbours(x, extent);
  return (extent / v + x->threads - 1) / x->threads * (x->columns ? x->columns->each : v);
}

/* Loads of a loop's body that each iteration does. */
static void plain_loads(cu_rows *x, ix e, const ir_var *v, int64_t extent, uint32_t *seen) {
  if (e->op == IX_LOAD && e->u.buf->space == IR_GLOBAL && e->u.buf->access == IR_IN) {
    for (int d = 0; d < e->nargs; d++)
      if (e->args[d]->loads) return;
    if (!ix_uses_var(ir_buf_offset(x->ctx, e->u.buf, e->args), v)) return;
    cu_kept *k = find_kept(x, e, v, extent);
    if (!k && x->nkept == IR_COUNT(x->kept)) return;
    if (!k) {
      k = &x->kept[x->nkept++];
      *k = (cu_kept){.at = ir_var_new(x->ctx, "kept.at", TN_INDEX, 0, extent - 1), .extent = extent};
      k->load = ix_subst1(x->ctx, e, v, k->at->expr);
    }
    int number = (int)(k - x->kept);
    k->loops += !(*seen >> number & 1);
    *seen |= 1u << number;
    return;
  }
  for (int i = 0; i < (e->op == IX_SELECT ? 1 : e->nargs); i++) plain_loads(x, e->args[i], v, extent, seen); /* arms load under its condition */
}

static void loads_of_body(cu_rows *x, const ir_stmt *s, const ir_var *v, int64_t extent, uint32_t *seen) {
  if (!s || (s->kind != IR_SEQ && s->kind != IR_LET && s->kind != IR_STORE && s->kind != IR_ALLOC && s->kind != IR_TILE)) return;
  if (s->kind == IR_LET || s->kind == IR_STORE) plain_loads(x, s->value, v, extent, seen);
  for (int i = 0; i < s->n; i++) loads_of_body(x, s->items[i], v, extent, seen);
  loads_of_body(x, s->body, v, extent, seen);
}

void cu_share_repeated(cu_rows *x, const ir_stmt *s) {
  int64_t lo, hi;
  if (!s) return;
  if (s->kind == IR_FOR) {
    uint32_t seen = 0;
    if (ix_const_value(s->lo, &lo) && ix_const_value(s->hi, &hi) && lo == 0 && hi > 0) loads_of_body(x, s->body, s->var, hi, &seen);
    return;
  }
  for (int i = 0; i < s->n; i++) cu_share_repeated(x, s->items[i]);
  cu_share_repeated(x, s->body);
}

/* Stores of what the loop is the first to load, and others load again. */
static const ir_stmt *fill_kept(cu_rows *x, const ir_stmt *body, const ir_var *v, int64_t extent) {
  const ir_stmt *all[IR_COUNT(x->kept)];
  uint32_t seen = 0;
  int n = 0, had = x->nkept;
  if (elements(x, extent) > (x->columns && x->block > 256 ? MAX_ELEMENTS / 2 : MAX_ELEMENTS)) return NULL;
  loads_of_body(x, body, v, extent, &seen);
  x->nkept = had;
  for (int i = 0; i < had; i++) {
    cu_kept *k = &x->kept[i];
    if (!(seen >> i & 1) || k->own || k->loops < 3 || elements(x, extent) * (int64_t)ir_dtype_bytes(k->load->dtype) > MAX_BYTES || x->nallocs == IR_COUNT(x->allocs)) continue; /* two of the row's, and this look */
    if (x->columns && x->columns->each * (int64_t)ir_dtype_bytes(k->load->dtype) < 4) continue; /* single halves, under conditions: ptxas spills them */
    ix part[2] = {ix_index(x->ctx, x->block), ix_index(x->ctx, elements(x, extent))};
    ir_buf *own = ir_buf_new(x->ctx, ir_format(x->ctx, "kept.%d", x->names++), k->load->dtype, 2, part, NULL, IR_LOCAL);
    all[n++] = ir_store(x->ctx, own, (ix[]){x->me[0], x->turn}, IR_SET, ix_subst1(x->ctx, k->load, k->at, v->expr));
    x->allocs[x->nallocs++] = k->own = own;
  }
  return n ? ir_seq(x->ctx, n, all) : NULL;
}

static bool stores_results(const ir_stmt *s) {
  if (!s) return false;
  if (s->kind == IR_STORE && s->buf->space == IR_GLOBAL) return true;
  for (int i = 0; i < s->n; i++)
    if (stores_results(s->items[i])) return true;
  return stores_results(s->body) || stores_results(s->other);
}

/* Neutral elements where the loop's sums begin; within it they are the threads' parts. `afresh`: so are the sums themselves. */
static bool begin_sums(cu_rows *x, cu_reduced *r, int nr, bool afresh) {
  tn_ctx *ctx = x->ctx;
  for (int i = 0; i < nr; i++) {
    ix zero;
    if (r[i].acc->dtype == TN_INDEX || !identity(ctx, r[i].acc->dtype, r[i].op, &zero)) return cu_share_refuse(x, "a sum without a neutral element");
    r[i].part = cu_share_declare(x, "part", r[i].acc->dtype, x->block, IR_LOCAL);
    ir_var *t = thread_var(x);
    cu_share_enter(x, t);
    const ir_stmt *both[2] = {ir_store(ctx, r[i].part, x->me, IR_SET, zero), afresh ? ir_store(ctx, cu_share_scalar(x, r[i].acc), x->me, IR_SET, zero) : NULL}, *all = ir_seq(ctx, 2, both);
    if (x->columns) all = cu_loop(ctx, x->columns->near, IR_UNROLL, all); /* also those beyond the last column, which pass it on to each other */
    cu_share_put(x, cu_loop(ctx, t, IR_LANE, all));
    if (x->nscalars == CU_SCALARS) return cu_share_refuse(x, "too many scalars in a row");
    x->scalars[x->nscalars].buf = r[i].acc;
    x->scalars[x->nscalars].var = NULL;
    x->scalars[x->nscalars++].own = r[i].part;
  }
  return true;
}

/* The iterations of loops[n] around `body`, dealt out to the threads in units of neighbours: unit = (turn * pieces + piece) * threads + t. */
static void deal(cu_rows *x, const ir_stmt *const *loops, int n, int64_t count, const ir_stmt *body, bool cut) {
  tn_ctx *ctx = x->ctx;
  const cu_columns *c = x->columns;
  int64_t last = loops[n - 1]->var->hi - loops[n - 1]->var->lo + 1, v = neighbours(x, last), units = count / v, sharers = x->threads * (cut ? c->pieces : 1), turns = (units + sharers - 1) / sharers;
  ir_var *t = thread_var(x), *turn = cu_var(ctx, ir_format(ctx, "turn.%d", x->names++), turns);
  cu_share_enter(x, t);
  ir_var *near = c ? c->near : cu_var(ctx, ir_format(ctx, "near.%d", x->names++), v);
  ix unit = ix_add(ctx, ix_muli(ctx, turn->expr, sharers), c ? ix_divi(ctx, t->expr, c->lanes) : t->expr);
  if (cut) unit = ix_add(ctx, unit, ix_muli(ctx, c->piece, x->threads));
  x->turn = ix_add(ctx, ix_muli(ctx, turn->expr, c ? c->each : v), near->expr);
  x->loop = n == 1 && !loops[0]->var->lo ? loops[0]->var : NULL;
  x->loop_extent = count;
  const ir_stmt *first = x->loop ? fill_kept(x, body, x->loop, count) : NULL, *inner = map_stmt(x, body);
  if (first) inner = ir_seq(ctx, 2, (const ir_stmt *[]){first, inner});
  x->loop = NULL;
  int64_t within = 1;
  for (int i = n - 1; i >= 0; i--) {
    int64_t extent = loops[i]->var->hi - loops[i]->var->lo + 1, pieces = i == n - 1 ? extent / v : extent;
    ix at = ix_divi(ctx, unit, within);
    if (i) at = ix_remi(ctx, at, pieces);
    if (i == n - 1 && !c) at = ix_add(ctx, ix_muli(ctx, at, v), near->expr);
    inner = ir_let(ctx, loops[i]->var, ix_add(ctx, at, loops[i]->lo), inner);
    within *= pieces;
  }
  inner = c ? cu_columns_each(x, t, inner) : cu_vectors(ctx, near, inner);
  bool few = turns * (c ? c->each : v) <= MAX_ELEMENTS;
  int64_t full = units / sharers;
  const ir_stmt *guarded = units % sharers ? ir_if(ctx, ix_lt(ctx, unit, ix_index(ctx, units)), inner, NULL) : inner;
  if (few || full == turns || !c) inner = cu_loop(ctx, turn, few ? IR_UNROLL : IR_SERIAL, guarded);
  else { /* nothing is asked in all turns but the last */
    const ir_stmt *both[2] = {full ? ir_for(ctx, turn, ix_index(ctx, 0), ix_index(ctx, full), IR_SERIAL, inner) : NULL, ir_stmt_fresh(ctx, ir_subst_var(ctx, guarded, turn, ix_index(ctx, full)), ".rest")};
    inner = ir_seq(ctx, 2, both);
  }
  cu_share_put(x, cu_loop(ctx, t, IR_LANE, inner));
}

/* The same for a loop whose length the launch tells: no neighbours, turns as many as it takes. */
static void deal_unknown(cu_rows *x, const ir_stmt *loop, const ir_stmt *body, bool cut) {
  tn_ctx *ctx = x->ctx;
  const cu_columns *c = x->columns;
  int64_t sharers = x->threads * (cut ? c->pieces : 1);
  ix units = ix_max(ctx, ix_sub(ctx, loop->hi, loop->lo), ix_index(ctx, 0)), turns = ix_ceil_div(ctx, units, sharers);
  ir_var *t = thread_var(x), *turn = ir_var_new(ctx, ir_format(ctx, "turn.%d", x->names++), TN_INDEX, 0, turns->hi > 0 ? turns->hi - 1 : 0);
  cu_share_enter(x, t);
  ix unit = ix_add(ctx, ix_muli(ctx, turn->expr, sharers), c ? ix_divi(ctx, t->expr, c->lanes) : t->expr);
  if (cut) unit = ix_add(ctx, unit, ix_muli(ctx, c->piece, x->threads));
  const ir_stmt *inner = ir_let(ctx, loop->var, ix_add(ctx, unit, loop->lo), map_stmt(x, body));
  if (c) inner = cu_columns_each(x, t, inner);
  inner = ir_if(ctx, ix_lt(ctx, unit, units), inner, NULL);
  cu_share_put(x, cu_loop(ctx, t, IR_LANE, ir_for(ctx, turn, ix_index(ctx, 0), turns, IR_SERIAL, inner)));
}

static bool share_loop(cu_rows *x, const ir_stmt *s) {
  cu_columns *c = x->columns;
  const ir_stmt *loops[LW_MAX_LOOPS], *body;
  int64_t count;
  int n = shared_loops(x, s, loops, &count, &body);
  if (!n) return cu_share_refuse(x, "an inner loop whose iterations hang on each other");
  cu_reduced r[CU_SUMS];
  int nr = 0;
  if (!find_reduced(x, body, r, &nr)) return false;
  bool cut = c && c->pieces > 1;
  if (cut && nr && stores_results(body)) return cu_share_refuse(x, "a loop that sums and stores");
  if (cut && nr && c->sums < c->stage) { /* a launch before did it */
    int64_t pieces = c->pieces;
    const ir_stmt *join = cu_columns_join(x, r, nr);
    c->pieces = 1;
    share_loop(x, join);
    c->pieces = pieces;
    return !x->why;
  }
  if (cut && !nr && !c->last) return true; /* the last launch does it */
  before_arrays(x, s);
  int hidden = x->nscalars;
  if (!begin_sums(x, r, nr, cut)) return false;
  if (count >= 0) deal(x, loops, n, count, body, cut);
  else deal_unknown(x, loops[0], body, cut);
  x->nscalars = hidden;
  for (int i = 0; i < nr; i++) combine(x, &r[i]);
  if (cut && nr) cu_columns_leave(x, r, nr);
  if (cut) c->stored |= !nr;
  return !x->why;
}

bool cu_share_row(cu_rows *x, const ir_stmt *s) {
  tn_ctx *ctx = x->ctx;
  const cu_columns *c = x->columns;
  bool cut = c && c->pieces > 1;
  if (!s || x->why || (c && c->done)) return !x->why;
  switch (s->kind) {
  case IR_SEQ:
    for (int i = 0; i < s->n; i++)
      if (!cu_share_row(x, s->items[i])) return false;
    return true;
  case IR_ALLOC: {
    int64_t n;
    if (!s->buf->rank) {
      if (!add_scalar(x, s->buf, NULL)) return false;
    } else {
      if (cut || !ix_const_value(ir_buf_elements(ctx, s->buf), &n) || x->narrays == IR_COUNT(x->arrays) || x->nallocs == IR_COUNT(x->allocs)) return cu_share_refuse(x, "an array of a row that is no shared memory");
      if (c && (s->buf->layout || s->buf->rank + 2 > IR_MAX_RANK)) return cu_share_refuse(x, "an array of a column with a layout");
      ix part[2] = {ix_index(ctx, x->block), ix_index(ctx, n > 0 ? elements(x, n) : 1)};
      bool own = s->buf->rank == 1 && !s->buf->layout && n > 0 && elements(x, n) <= (c && x->block > 256 ? MAX_ELEMENTS / 2 : MAX_ELEMENTS) && owned(s->body, s->buf, n, NULL, false);
      if (!own) x->shared_bytes += n * (int64_t)ir_dtype_bytes(s->buf->dtype) * (c ? c->each * c->lanes : 1);
      ix shape[IR_MAX_RANK];
      for (int i = 0; i < s->buf->rank; i++) shape[i] = s->buf->shape[i];
      if (c) shape[s->buf->rank] = ix_index(ctx, c->each), shape[s->buf->rank + 1] = ix_index(ctx, c->lanes);
      const char *name = ir_format(ctx, "%s.%d", s->buf->name, x->names++);
      ir_buf *b = own ? ir_buf_new(ctx, name, s->buf->dtype, 2, part, NULL, IR_LOCAL) : ir_buf_new(ctx, name, s->buf->dtype, s->buf->rank + (c ? 2 : 0), shape, s->buf->layout, IR_SHARED);
      x->arrays[x->narrays] = s->buf;
      x->own[x->narrays] = own;
      x->shared[x->narrays++] = x->allocs[x->nallocs++] = b;
    }
    return cu_share_row(x, s->body);
  }
  case IR_LET: {
    ir_buf *own = add_scalar(x, NULL, s->var);
    if (!own) return false;
    before_arrays(x, ir_store(ctx, own, (ix[]){ix_index(ctx, 0), ix_index(ctx, 0)}, IR_SET, s->var->dtype == TN_INDEX ? ix_cast(ctx, TN_I64, s->value) : s->value));
    ir_var *t = thread_var(x);
    cu_share_enter(x, t);
    ix v = map_expr(x, s->value);
    cu_share_put(x, cu_loop(ctx, t, IR_LANE, each(x, t, ir_store(ctx, own, x->me, IR_SET, s->var->dtype == TN_INDEX ? ix_cast(ctx, TN_I64, v) : v))));
    return cu_share_row(x, s->body);
  }
  case IR_STORE: {
    before_arrays(x, s);
    bool mine = cu_share_scalar(x, s->buf) != NULL;
    if (cut && !mine && !c->last) return true;
    ir_var *t = mine ? thread_var(x) : cu_var(ctx, ir_format(ctx, "t.%d", x->names++), c ? c->lanes : 1);
    cu_share_enter(x, t);
    const ir_stmt *one = each(x, t, map_stmt(x, s));
    if (cut && !mine) one = ir_if(ctx, ix_eq(ctx, c->piece, ix_index(ctx, 0)), one, NULL);
    cu_share_put(x, cu_loop(ctx, t, IR_LANE, one));
    return true;
  }
  case IR_FOR: return share_loop(x, s);
  default: return cu_share_refuse(x, "a statement that threads do not share");
  }
}

/* Whether a load or store within loops runs along one of them. */
