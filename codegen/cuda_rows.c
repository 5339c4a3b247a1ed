/* cuda_rows.c — a block per iteration of the parallel loops, whose threads share the loops inside: sums, softmax, norms.
 *
 *   for i: { acc = 0; for r: acc += e(i, r); let m = f(acc); for r: out[i, r] = g(m, i, r) }
 *     -> for i grid: { acc[T]; part[T]; for t: part[t] = 0
 *                      for t: for c: for v: { r = (c*T + t)*V + v; if r < N: part[t] += e }
 *                      warps: part[t] += part of the lane 16, 8, 4, 2, 1 further on; one of each warp to shared memory
 *                      barrier; for t: acc[t] += all of them;  for t: m[t] = f(acc[t])
 *                      for t: for c: for v: { r = ..; if r < N: out[i, r] = g(m[t], i, r) } }
 *
 * Scalars outside the inner loops are kept by every thread alike; arrays of a row lie in shared memory, or in registers where
 * each element has one thread. What several loops load of a row is loaded by the first and kept in registers. Rows of a
 * warp need no barriers: a block has several. */
#include "codegen/cuda_product.h"
#include "lower/schedule.h"
#include <math.h>
#include <string.h>

enum { MAX_SCALARS = 64, MAX_ELEMENTS = 64, MAX_BYTES = 128 /* of a row that a thread keeps in registers */ };

typedef struct kept { /* what several loops of `extent` iterations load */
  ix load;              /* at the variable `at` */
  ir_var *at;
  int64_t extent;
  int loops;            /* that load it */
  ir_buf *own;          /* [threads, elements]; null: not yet */
} kept;

typedef struct rows {
  tn_ctx *ctx;
  int64_t threads;      /* of a row */
  int64_t block;        /* of the block: a warp a row, or one row */
  ix warp;              /* the row's number in the block, null: one row */
  int64_t v;            /* neighbours of a thread, at most */
  kept kept[16];
  int nkept;
  const ir_var *loop;   /* the one whose body is being rewritten, of `loop_extent` iterations; null: several */
  int64_t loop_extent;
  struct {
    const ir_buf *buf;  /* a scalar of the kernel, or */
    const ir_var *var;  /* a let */
    ir_buf *own;        /* [threads] */
  } scalars[MAX_SCALARS];
  int nscalars;
  const ir_buf *arrays[16]; /* of the kernel → shared */
  ir_buf *shared[16];
  bool own[16];         /* each element is touched by one thread: [threads, turns], private */
  int narrays;
  ix turn;              /* the number of a thread's element in the loop that is being shared out */
  ir_buf *allocs[2 * MAX_SCALARS + 32]; /* all that the block declares */
  int nallocs;
  int64_t shared_bytes;
  int names;
  const ir_stmt *out[512]; /* statements of the block, in order */
  int n;
  bool dirty;           /* a shared array was touched since the last barrier */
  const char *why;      /* refused */
  ix thread;            /* the thread's number in the block, in what is being rewritten */
} rows;

static bool refuse(rows *x, const char *why) {
  if (!x->why) x->why = why;
  return false;
}

static void put(rows *x, const ir_stmt *s) {
  if (!s) return;
  if (x->n == IR_COUNT(x->out)) refuse(x, "too many statements in a row");
  else x->out[x->n++] = s;
}

static ir_buf *declare(rows *x, const char *name, tn_dtype t, int64_t n, ir_space space) {
  ix shape[1] = {ix_index(x->ctx, n)};
  ir_buf *b = ir_buf_new(x->ctx, ir_format(x->ctx, "%s.%d", name, x->names++), t, 1, shape, NULL, space);
  if (x->nallocs == IR_COUNT(x->allocs)) refuse(x, "too many buffers in a row");
  else x->allocs[x->nallocs++] = b;
  return b;
}

static ir_buf *add_scalar(rows *x, const ir_buf *buf, const ir_var *var) {
  if (x->nscalars == MAX_SCALARS) return refuse(x, "too many scalars in a row"), NULL;
  tn_dtype t = buf ? buf->dtype : var->dtype;
  ir_buf *own = declare(x, buf ? buf->name : var->name, t == TN_INDEX ? TN_I64 : t, x->block, IR_LOCAL);
  x->scalars[x->nscalars].buf = buf;
  x->scalars[x->nscalars].var = var;
  x->scalars[x->nscalars++].own = own;
  return own;
}

static ir_buf *scalar_of(const rows *x, const ir_buf *b) {
  for (int i = x->nscalars - 1; i >= 0; i--)
    if (x->scalars[i].buf == b && b) return x->scalars[i].own;
  return NULL;
}

static int array_of(const rows *x, const ir_buf *b) {
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

static ix own_value(rows *x, ir_buf *own, tn_dtype t) {
  ix v = ix_load(x->ctx, own, &x->thread);
  return t == TN_INDEX ? ix_cast(x->ctx, TN_INDEX, v) : v;
}

static ix map_var(void *user, ir_var *v) {
  rows *x = user;
  for (int i = 0; i < x->nscalars; i++)
    if (x->scalars[i].var == v) return own_value(x, x->scalars[i].own, v->dtype);
  return NULL;
}

static kept *find_kept(rows *x, ix load, const ir_var *v, int64_t extent) {
  for (int i = 0; i < x->nkept; i++)
    if (x->kept[i].extent == extent && x->kept[i].load == ix_subst1(x->ctx, load, v, x->kept[i].at->expr)) return &x->kept[i];
  return NULL;
}

static const kept *kept_of(rows *x, ix load) {
  const kept *k = x->loop && load->u.buf->space == IR_GLOBAL ? find_kept(x, load, x->loop, x->loop_extent) : NULL;
  return k && k->own ? k : NULL;
}

static ix map_load(void *user, ix load) {
  rows *x = user;
  ir_buf *own = scalar_of(x, load->u.buf);
  if (own) return own_value(x, own, load->u.buf->dtype);
  const kept *k = kept_of(x, load);
  if (k) return ix_load(x->ctx, k->own, (ix[]){x->thread, x->turn});
  int array = array_of(x, load->u.buf);
  if (array < 0) return NULL;
  return ix_load(x->ctx, x->shared[array], x->own[array] ? (ix[]){x->thread, x->turn} : load->args);
}

static ix map_expr(rows *x, ix e) { return ix_subst_loads(x->ctx, ix_subst(x->ctx, e, map_var, x), map_load, x); }
static ix rewrite_expr(ir_rewriter *r, ix e) { return map_expr(r->user, e); }

static const ir_stmt *rewrite_stmt(ir_rewriter *r, const ir_stmt *s) {
  rows *x = r->user;
  if (s->kind != IR_STORE) return s;
  ir_buf *own = scalar_of(x, s->buf);
  int array = array_of(x, s->buf);
  if (!own && array < 0) return s;
  ix index[IR_MAX_RANK];
  for (int i = 0; i < s->buf->rank; i++) index[i] = map_expr(x, s->index[i]);
  ix v = map_expr(x, s->value);
  if (own) return ir_store(x->ctx, own, &x->thread, s->op, s->buf->dtype == TN_INDEX ? ix_cast(x->ctx, TN_I64, v) : v);
  return ir_store(x->ctx, x->shared[array], x->own[array] ? (ix[]){x->thread, x->turn} : index, s->op, v);
}

static const ir_stmt *map_stmt(rows *x, const ir_stmt *s) {
  ir_rewriter r = {.ctx = x->ctx, .user = x, .expr = rewrite_expr, .stmt = rewrite_stmt};
  if (s->kind == IR_STORE) {
    const ir_stmt *direct = rewrite_stmt(&r, s);
    if (direct != s) return direct;
  }
  return ir_rewrite(&r, s);
}

static ir_var *thread_var(rows *x) { return cu_var(x->ctx, ir_format(x->ctx, "t.%d", x->names++), x->threads); }

/* Of a thread of the row, in the block. */
static ix in_block(const rows *x, const ir_var *t) { return x->warp ? ix_add(x->ctx, ix_muli(x->ctx, x->warp, 32), t->expr) : t->expr; }

static void barrier(rows *x) {
  put(x, cu_sync(x->ctx, x->threads > 32 ? "barrier" : "warp.sync"));
  x->dirty = false;
}

static bool touches_arrays(const rows *x, const ir_stmt *s) {
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

static void before_arrays(rows *x, const ir_stmt *s) {
  if (!touches_arrays(x, s)) return;
  if (x->dirty) barrier(x);
  x->dirty = true;
}

/* ---- reductions ---- */

typedef struct reduced {
  const ir_buf *acc;
  ir_store_op op;
  ir_buf *part;
} reduced;

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
static bool find_reduced(rows *x, const ir_stmt *s, reduced *r, int *n) {
  if (!s) return true;
  if (s->kind == IR_STORE && scalar_of(x, s->buf)) {
    ir_store_op op;
    if (!update_op(s, &op)) return refuse(x, "a scalar that a loop does not just add to");
    for (int i = 0; i < *n; i++)
      if (r[i].acc == s->buf) return r[i].op == op ? true : refuse(x, "a scalar updated in two ways");
    if (*n == 8) return refuse(x, "too many sums in a loop");
    r[*n].acc = s->buf;
    r[(*n)++].op = op;
    return true;
  }
  for (int i = 0; i < s->n; i++)
    if (!find_reduced(x, s->items[i], r, n)) return false;
  return find_reduced(x, s->body, r, n) && find_reduced(x, s->other, r, n);
}

/* v[t] op= v of the lane `by` further on, for all lanes of all warps. */
static void shuffle(rows *x, ir_buf *v, ir_buf *other, ir_store_op op, int by) {
  tn_ctx *ctx = x->ctx;
  ir_var *w = cu_var(ctx, ir_format(ctx, "w.%d", x->names++), x->threads / 32), *l = cu_var(ctx, ir_format(ctx, "l.%d", x->names++), 32), *m = cu_var(ctx, ir_format(ctx, "l.%d", x->names++), 32);
  ix base = ix_muli(ctx, x->warp ? x->warp : w->expr, 32), to = ix_add(ctx, base, l->expr), me = ix_add(ctx, base, m->expr);
  ix from = ix_add(ctx, base, ix_remi(ctx, ix_addi(ctx, l->expr, by), 32));
  const ir_stmt *take = ir_tile(ctx, "shfl", cu_loop(ctx, l, IR_SERIAL, ir_store(ctx, other, &to, IR_SET, ix_load(ctx, v, &from))));
  const ir_stmt *both[2] = {take, cu_loop(ctx, m, IR_LANE, ir_store(ctx, v, &me, op, ix_load(ctx, other, &me)))}, *s = ir_seq(ctx, 2, both);
  put(x, x->warp ? s : cu_loop(ctx, w, IR_WARP, s));
}

static void combine(rows *x, const reduced *r) {
  tn_ctx *ctx = x->ctx;
  tn_dtype t = r->part->dtype;
  ir_buf *other = declare(x, "other", t, x->block, IR_LOCAL), *acc = scalar_of(x, r->acc);
  for (int by = 16; by; by /= 2) shuffle(x, r->part, other, r->op, by);
  ir_var *v = thread_var(x);
  if (x->threads == 32) {
    ix me = in_block(x, v);
    put(x, cu_loop(ctx, v, IR_LANE, ir_store(ctx, acc, &me, r->op, ix_load(ctx, r->part, &me))));
    return;
  }
  ir_buf *all = declare(x, "warps", t, x->threads / 32, IR_SHARED);
  ix warp = ix_divi(ctx, v->expr, 32);
  put(x, cu_loop(ctx, v, IR_LANE, ir_if(ctx, ix_eq(ctx, ix_remi(ctx, v->expr, 32), ix_index(ctx, 0)), ir_store(ctx, all, &warp, IR_SET, ix_load(ctx, r->part, &v->expr)), NULL)));
  barrier(x);
  ir_var *u = thread_var(x), *i = cu_var(ctx, ir_format(ctx, "i.%d", x->names++), x->threads / 32);
  put(x, cu_loop(ctx, u, IR_LANE, cu_loop(ctx, i, IR_UNROLL, ir_store(ctx, acc, &u->expr, r->op, ix_load(ctx, all, &i->expr)))));
}

/* ---- the row ---- */

/* Loops nested perfectly that may all be shared out. */
static int shared_loops(rows *x, const ir_stmt *s, const ir_stmt **loops, int64_t *count, const ir_stmt **body) {
  int n = 0;
  *count = 1;
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
static int64_t neighbours(const rows *x, int64_t extent) {
  int64_t v = x->v;
  while (extent % v) v /= 2;
  return v;
}

/* Elements of a thread. */
static int64_t elements(const rows *x, int64_t extent) {
  int64_t v = neighbours(x, extent);
  return (extent / v + x->threads - 1) / x->threads * v;
}

/* Loads of a loop's body that each iteration does. */
static void plain_loads(rows *x, ix e, const ir_var *v, int64_t extent, uint32_t *seen) {
  if (e->op == IX_LOAD && e->u.buf->space == IR_GLOBAL && e->u.buf->access == IR_IN) {
    for (int d = 0; d < e->nargs; d++)
      if (e->args[d]->loads) return;
    if (!ix_uses_var(ir_buf_offset(x->ctx, e->u.buf, e->args), v)) return;
    kept *k = find_kept(x, e, v, extent);
    if (!k && x->nkept == IR_COUNT(x->kept)) return;
    if (!k) {
      k = &x->kept[x->nkept++];
      *k = (kept){.at = ir_var_new(x->ctx, "kept.at", TN_INDEX, 0, extent - 1), .extent = extent};
      k->load = ix_subst1(x->ctx, e, v, k->at->expr);
    }
    int number = (int)(k - x->kept);
    k->loops += !(*seen >> number & 1);
    *seen |= 1u << number;
    return;
  }
  for (int i = 0; i < (e->op == IX_SELECT ? 1 : e->nargs); i++) plain_loads(x, e->args[i], v, extent, seen); /* arms load under its condition */
}

static void loads_of_body(rows *x, const ir_stmt *s, const ir_var *v, int64_t extent, uint32_t *seen) {
  if (!s || (s->kind != IR_SEQ && s->kind != IR_LET && s->kind != IR_STORE && s->kind != IR_ALLOC && s->kind != IR_TILE)) return;
  if (s->kind == IR_LET || s->kind == IR_STORE) plain_loads(x, s->value, v, extent, seen);
  for (int i = 0; i < s->n; i++) loads_of_body(x, s->items[i], v, extent, seen);
  loads_of_body(x, s->body, v, extent, seen);
}

/* What the loops of a row load more than once. */
static void find_repeated(rows *x, const ir_stmt *s) {
  int64_t lo, hi;
  if (!s) return;
  if (s->kind == IR_FOR) {
    uint32_t seen = 0;
    if (ix_const_value(s->lo, &lo) && ix_const_value(s->hi, &hi) && lo == 0 && hi > 0) loads_of_body(x, s->body, s->var, hi, &seen);
    return;
  }
  for (int i = 0; i < s->n; i++) find_repeated(x, s->items[i]);
  find_repeated(x, s->body);
}

/* Stores of what the loop is the first to load, and others load again. */
static const ir_stmt *fill_kept(rows *x, const ir_stmt *body, const ir_var *v, int64_t extent) {
  const ir_stmt *all[IR_COUNT(x->kept)];
  uint32_t seen = 0;
  int n = 0, had = x->nkept;
  if (elements(x, extent) > MAX_ELEMENTS) return NULL;
  loads_of_body(x, body, v, extent, &seen);
  x->nkept = had;
  for (int i = 0; i < had; i++) {
    kept *k = &x->kept[i];
    if (!(seen >> i & 1) || k->own || k->loops < 3 || elements(x, extent) * (int64_t)ir_dtype_bytes(k->load->dtype) > MAX_BYTES || x->nallocs == IR_COUNT(x->allocs)) continue; /* two of the row's, and this look */
    ix part[2] = {ix_index(x->ctx, x->block), ix_index(x->ctx, elements(x, extent))};
    ir_buf *own = ir_buf_new(x->ctx, ir_format(x->ctx, "kept.%d", x->names++), k->load->dtype, 2, part, NULL, IR_LOCAL);
    all[n++] = ir_store(x->ctx, own, (ix[]){x->thread, x->turn}, IR_SET, ix_subst1(x->ctx, k->load, k->at, v->expr));
    x->allocs[x->nallocs++] = k->own = own;
  }
  return n ? ir_seq(x->ctx, n, all) : NULL;
}

static bool share_loop(rows *x, const ir_stmt *s) {
  tn_ctx *ctx = x->ctx;
  const ir_stmt *loops[LW_MAX_LOOPS], *body;
  int64_t count;
  int n = shared_loops(x, s, loops, &count, &body);
  if (!n) return refuse(x, "an inner loop whose iterations hang on each other");
  reduced r[8];
  int nr = 0;
  if (!find_reduced(x, body, r, &nr)) return false;
  before_arrays(x, s);
  int hidden = x->nscalars;
  for (int i = 0; i < nr; i++) {
    ix zero;
    if (r[i].acc->dtype == TN_INDEX || !identity(ctx, r[i].acc->dtype, r[i].op, &zero)) return refuse(x, "a sum without a neutral element");
    r[i].part = declare(x, "part", r[i].acc->dtype, x->block, IR_LOCAL);
    ir_var *t = thread_var(x);
    ix me = in_block(x, t);
    put(x, cu_loop(ctx, t, IR_LANE, ir_store(ctx, r[i].part, &me, IR_SET, zero)));
    if (x->nscalars == MAX_SCALARS) return refuse(x, "too many scalars in a row");
    x->scalars[x->nscalars].buf = r[i].acc; /* within the loop the scalar is the part */
    x->scalars[x->nscalars].var = NULL;
    x->scalars[x->nscalars++].own = r[i].part;
  }
  int64_t last = loops[n - 1]->var->hi - loops[n - 1]->var->lo + 1, v = neighbours(x, last), units = count / v, turns = (units + x->threads - 1) / x->threads;
  ir_var *t = thread_var(x), *turn = cu_var(ctx, ir_format(ctx, "turn.%d", x->names++), turns), *near = cu_var(ctx, ir_format(ctx, "near.%d", x->names++), v);
  ix unit = ix_add(ctx, ix_muli(ctx, turn->expr, x->threads), t->expr);
  x->thread = in_block(x, t);
  x->turn = ix_add(ctx, ix_muli(ctx, turn->expr, v), near->expr);
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
    if (i == n - 1) at = ix_add(ctx, ix_muli(ctx, at, v), near->expr);
    inner = ir_let(ctx, loops[i]->var, ix_add(ctx, at, loops[i]->lo), inner);
    within *= pieces;
  }
  inner = cu_vectors(ctx, near, inner);
  if (units % x->threads) inner = ir_if(ctx, ix_lt(ctx, unit, ix_index(ctx, units)), inner, NULL);
  put(x, cu_loop(ctx, t, IR_LANE, cu_loop(ctx, turn, turns * v <= MAX_ELEMENTS ? IR_UNROLL : IR_SERIAL, inner)));
  x->nscalars = hidden;
  for (int i = 0; i < nr; i++) combine(x, &r[i]);
  return !x->why;
}

static bool row_stmt(rows *x, const ir_stmt *s) {
  tn_ctx *ctx = x->ctx;
  if (!s || x->why) return !x->why;
  switch (s->kind) {
  case IR_SEQ:
    for (int i = 0; i < s->n; i++)
      if (!row_stmt(x, s->items[i])) return false;
    return true;
  case IR_ALLOC: {
    int64_t n;
    if (!s->buf->rank) {
      if (!add_scalar(x, s->buf, NULL)) return false;
    } else {
      if (!ix_const_value(ir_buf_elements(ctx, s->buf), &n) || x->narrays == IR_COUNT(x->arrays)) return refuse(x, "an array of a row that is no shared memory");
      ix part[2] = {ix_index(ctx, x->block), ix_index(ctx, n > 0 ? elements(x, n) : 1)};
      bool own = s->buf->rank == 1 && !s->buf->layout && n > 0 && elements(x, n) <= MAX_ELEMENTS && owned(s->body, s->buf, n, NULL, false);
      if (!own) x->shared_bytes += n * (int64_t)ir_dtype_bytes(s->buf->dtype);
      ir_buf *b = own ? ir_buf_new(ctx, ir_format(ctx, "%s.%d", s->buf->name, x->names++), s->buf->dtype, 2, part, NULL, IR_LOCAL) : ir_buf_new(ctx, ir_format(ctx, "%s.%d", s->buf->name, x->names++), s->buf->dtype, s->buf->rank, s->buf->shape, s->buf->layout, IR_SHARED);
      x->arrays[x->narrays] = s->buf;
      x->own[x->narrays] = own;
      x->shared[x->narrays++] = x->allocs[x->nallocs++] = b;
    }
    return row_stmt(x, s->body);
  }
  case IR_LET: {
    ir_buf *own = add_scalar(x, NULL, s->var);
    if (!own) return false;
    before_arrays(x, ir_store(ctx, own, (ix[]){ix_index(ctx, 0)}, IR_SET, s->var->dtype == TN_INDEX ? ix_cast(ctx, TN_I64, s->value) : s->value));
    ir_var *t = thread_var(x);
    x->thread = in_block(x, t);
    ix v = map_expr(x, s->value);
    put(x, cu_loop(ctx, t, IR_LANE, ir_store(ctx, own, &x->thread, IR_SET, s->var->dtype == TN_INDEX ? ix_cast(ctx, TN_I64, v) : v)));
    return row_stmt(x, s->body);
  }
  case IR_STORE: {
    before_arrays(x, s);
    bool mine = scalar_of(x, s->buf) != NULL;
    ir_var *t = mine ? thread_var(x) : cu_var(ctx, ir_format(ctx, "t.%d", x->names++), 1);
    x->thread = in_block(x, t);
    put(x, cu_loop(ctx, t, IR_LANE, map_stmt(x, s)));
    return true;
  }
  case IR_FOR: return share_loop(x, s);
  default: return refuse(x, "a statement that threads do not share");
  }
}

/* Whether a load or store within loops runs along one of them. */
static bool along(tn_ctx *ctx, const ir_stmt *s, const ir_stmt **loops, int n) {
  if (!s) return false;
  const ir_stmt *inner[LW_MAX_LOOPS];
  if (s->kind == IR_FOR && n < LW_MAX_LOOPS) {
    for (int i = 0; i < n; i++) inner[i] = loops[i];
    inner[n] = s;
    return along(ctx, s->body, inner, n + 1);
  }
  for (int i = 0; i < n && (s->kind == IR_STORE || s->kind == IR_LET); i++) {
    int64_t c;
    if (s->kind == IR_STORE && s->buf->space == IR_GLOBAL && ix_affine_in(ir_buf_offset(ctx, s->buf, s->index), loops[i]->var, &c) && c == 1) return true;
    ix stack[64] = {s->value};
    for (int top = 1; top;) {
      ix e = stack[--top];
      if (e->op == IX_LOAD && e->u.buf->space == IR_GLOBAL && lw_stride(ctx, e, loops[i]->var) == 1) return true;
      for (int k = 0; k < e->nargs && top < 60; k++) stack[top++] = e->args[k];
    }
  }
  for (int i = 0; i < s->n; i++)
    if (along(ctx, s->items[i], loops, n)) return true;
  return along(ctx, s->body, loops, n) || along(ctx, s->other, loops, n);
}

static int64_t longest(const ir_stmt *s) {
  if (!s) return 0;
  int64_t best = 0, lo, hi, n = s->kind == IR_FOR && ix_const_value(s->lo, &lo) && ix_const_value(s->hi, &hi) ? hi - lo : 0;
  for (int i = 0; i < s->n; i++) best = longest(s->items[i]) > best ? longest(s->items[i]) : best;
  int64_t b = longest(s->body), o = longest(s->other);
  if (n) b = b ? b * n : n;
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

/* Where all results are of 8 or 11 bits, 22 are enough. */
static const ir_stmt *exponentials(tn_ctx *ctx, const ir_kernel *k, const ir_stmt *s) {
  for (int i = 0; i < k->nbufs; i++)
    if (k->bufs[i]->access != IR_IN && k->bufs[i]->dtype != TN_F16 && k->bufs[i]->dtype != TN_BF16) return s;
  ir_rewriter r = {.ctx = ctx, .stmt = quick_exponential};
  return ir_rewrite(&r, s);
}

/* ---- the schedule ---- */

/* Elements of 16 bytes, of the narrowest tensor. */
static int64_t widest(const ir_kernel *k) {
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
  rows x = {.ctx = ctx, .threads = threads, .block = threads * many, .v = widest(k)};
  ir_var *w = cu_var(ctx, "row.w", many);
  if (many > 1) x.warp = w->expr;
  find_repeated(&x, s);
  if (!row_stmt(&x, s)) return *reason = x.why, NULL;
  if (x.shared_bytes + 4096 > t->shared_bytes) return *reason = "rows that are too long for shared memory", NULL;
  if (many > 1 && x.shared_bytes) return *reason = "rows of a warp that need shared memory", NULL;
  const ir_stmt *body = ir_seq(ctx, x.n, x.out);
  if (many > 1) {
    const ir_stmt *l = loops[--n];
    ir_var *g = cu_var(ctx, "block", (l->var->hi - l->var->lo + many) / many);
    ix at = ix_add(ctx, l->lo, ix_add(ctx, ix_muli(ctx, g->expr, many), w->expr));
    ir_var *row = ir_var_new(ctx, "row", TN_INDEX, at->lo, at->hi);
    body = ir_let(ctx, row, at, ir_if(ctx, ix_lt(ctx, row->expr, l->hi), ir_subst_var(ctx, body, l->var, row->expr), NULL));
    body = cu_loop(ctx, w, IR_WARP, body);
    for (int i = 0; i < x.nallocs; i++) body = ir_alloc_stmt(ctx, x.allocs[i], body);
    body = cu_loop(ctx, g, IR_GRID, body);
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
  int64_t lo, hi, count = 1, last = 0;
  if (k->ndims) return *reason = "rows of unknown length", NULL;
  for (; s && s->kind == IR_FOR && n < LW_MAX_LOOPS && lw_loop_dependence(ctx, s, NULL) == LW_PARALLEL; s = s->body) {
    if (!ix_const_value(s->lo, &lo) || !ix_const_value(s->hi, &hi)) return *reason = "rows whose number is not known", NULL;
    count *= last = hi - lo;
    loops[n++] = s;
  }
  int64_t row = longest(s);
  if (!s || s->kind == IR_FOR || !row) return *reason = "no inner loops to share out", NULL;
  if (!c->n && (row < 32 || !along(ctx, s, NULL, 0))) return *reason = "rows that are short or not in memory's order", NULL;
  int64_t threads = c->n ? c->arg[0] : default_threads(t, row, widest(k), count), many = c->n > 1 ? c->arg[1] : c->n || threads > 32 || last < 4 ? 1 : count >= 16LL * t->multiprocessors ? 8 : 4;
  if (threads < 32 || threads > 1024 || threads % 32 || many < 1 || many > 32 || (many > 1 && (threads != 32 || !n))) return *reason = "rows: from 32 to 1024 threads by 32, or 32 and rows of a block", NULL;
  s = exponentials(ctx, k, s);
  const cu_tile *made = rows_of(ctx, t, k, s, loops, n, threads, many, reason);
  return made || c->n || many == 1 ? made : rows_of(ctx, t, k, s, loops, n, threads, 1, reason);
}
