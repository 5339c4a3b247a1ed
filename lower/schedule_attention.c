/* schedule_attention.c — algorithm attention rows keys lanes group; see schedule.h.
 *
 * The kernel of ops_attend.c, a row of scores for each query, goes block by block: `rows` queries at a time over
 * `keys` keys at a time, with what stays of the keys before in `top`, `total` and `o`:
 *
 *   for task:                                      a batch and a block of queries
 *     qt = q'                                      [rows / group][depth][group]: queries side by side are vectors
 *     for kb:                                      a block of keys
 *       vt = v                                     [columns / panel][keys][panel], panels of two vectors
 *       for xb:                                    groups of queries
 *         for st, si: pt[st, si] = sum over sd of k[st, sd] * qt[xb, sd, si]
 *         largest score, then pt = exp(pt - largest), and its sum; `keep` = exp(largest before - largest now)
 *         for on, oi, oc: o = o * keep + sum over ot of pt[ot, oi] * vt[on, ot, oc]
 *     for fi, fn: what follows, of o / total
 *
 * (online softmax: Milakov and Gimelshein, 2018; in blocks: Dao et al., "FlashAttention", 2022). A group of queries is
 * a few vectors; its scores and a panel of values are lines one after another and stay in the first cache. Keys are read
 * as they lie. The last block of keys may be shorter: its loops have the suffix .r. The last block of queries starts
 * earlier instead and stores what is its own. Scores that are all -inf until now have exp(-inf) kept, 0, not
 * exp(-inf + inf). Blocks of keys that none of the queries sees (attend_span.c) are left out. */
#include "lower/attend.h"
#include "lower/schedule_internal.h"
#include <math.h>
#include <string.h>

/* ---- the kernel, taken apart ---- */

enum { MAX_ITEMS = 24 };

/* What stands in s one after another, allocs and lets before what is in their scope; their kinds as letters. */
static int flatten(const ir_stmt *s, const ir_stmt *items[MAX_ITEMS], char kinds[MAX_ITEMS + 1]) {
  int n = 0;
  while (s && n < MAX_ITEMS) {
    if (s->kind == IR_SEQ) {
      for (int i = 0; i < s->n - 1 && n < MAX_ITEMS - 1; i++) kinds[n] = "FWILASQT"[s->items[i]->kind], items[n++] = s->items[i];
      s = s->items[s->n - 1];
      continue;
    }
    kinds[n] = "FWILASQT"[s->kind];
    items[n++] = s;
    s = s->kind == IR_LET || s->kind == IR_ALLOC ? s->body : NULL;
  }
  kinds[n] = 0;
  return n;
}

static bool plain_loop(const ir_stmt *s, int64_t *extent) {
  int64_t hi;
  if (s->kind != IR_FOR || s->loop != IR_SERIAL || !ix_is_int(s->lo, 0) || !ix_const_value(s->hi, &hi) || hi < 1) return false;
  *extent = hi;
  return true;
}

static bool load_of(ix e, const ir_buf *b) { return e->op == IX_LOAD && e->u.buf == b; }

static ix below_cast(ix e) { return e->op == IX_CAST ? e->args[0] : e; }

/* acc = fma(a, b, acc) in a loop */
static bool sum_of(const ir_stmt *loop, const ir_buf *acc, ix *a, ix *b) {
  const ir_stmt *s = loop->body;
  if (!s || s->kind != IR_STORE || s->buf != acc || s->op != IR_SET || s->value->op != IX_FMA || !load_of(s->value->args[2], acc)) return false;
  *a = below_cast(s->value->args[0]), *b = below_cast(s->value->args[1]);
  return (*a)->op == IX_LOAD && (*b)->op == IX_LOAD;
}

static bool zero_into(const ir_stmt *s, const ir_buf *b) { return s->buf == b && s->op == IR_SET && ix_is_const(s->value) && s->value->u.f == 0; }

bool lw_attention_of(tn_ctx *ctx, const ir_kernel *k, lw_attention_parts *p, const char **why) {
  const ir_stmt *s = k->body, *i[MAX_ITEMS], *f[MAX_ITEMS], *nest[IR_MAX_RANK + 1];
  char kinds[MAX_ITEMS + 1];
  int depth = 0;
  int64_t extent[IR_MAX_RANK + 1], again;
  *p = (lw_attention_parts){0};
  for (; s && depth <= IR_MAX_RANK && s->kind == IR_FOR; s = s->body, depth++)
    if (!plain_loop(nest[depth] = s, &extent[depth])) return *why = "its loops are scheduled already, or have no constant extents", false;
  *why = "the kernel is no attention";
  if (depth < 1 || !s) return false;
  p->row = nest[depth - 1], p->queries = extent[depth - 1];
  for (; p->nbatch < depth - 1; p->nbatch++) p->batch[p->nbatch] = nest[p->nbatch], p->extent[p->nbatch] = extent[p->nbatch];
  flatten(s, i, kinds);
  if (strcmp(kinds, "AASFLASFLF") != 0 || !plain_loop(i[3], &p->keys) || !plain_loop(i[7], &again) || !plain_loop(i[9], &p->columns)) return false;
  const ir_buf *row = i[0]->buf;
  p->max = i[1]->buf, p->top = i[4]->value, p->total = i[5]->buf, p->scale = i[8]->value, p->scale_var = i[8]->var;
  p->key[0] = i[3]->var, p->key[1] = i[7]->var, p->n = i[9]->var;
  if (row->dtype != TN_F32 || p->max->dtype != TN_F32 || i[2]->buf != p->max || !zero_into(i[6], p->total)) return false;
  flatten(i[3]->body, f, kinds); /* scores */
  if (strcmp(kinds, "ASFLSS") != 0 || !zero_into(f[1], f[0]->buf) || !plain_loop(f[2], &p->depth) || !sum_of(f[2], f[0]->buf, &p->q, &p->k)) return false;
  p->sum = f[0]->buf, p->d = f[2]->var, p->score = f[3]->value;
  if (f[4]->buf != row || f[4]->value != f[3]->var->expr || f[5]->buf != p->max || f[5]->op != IR_MAX || f[5]->value != f[3]->var->expr) return false;
  flatten(i[7]->body, f, kinds); /* exponentials */
  ix e = f[0]->kind == IR_LET ? f[0]->value : NULL;
  if (strcmp(kinds, "LSS") != 0 || e->op != IX_EXP || e->args[0] != ix_sub(ctx, ix_load(ctx, (ir_buf *)row, &i[7]->var->expr), i[4]->var->expr) || f[1]->buf != row || f[2]->buf != p->total)
    return false;
  const ir_stmt *column = i[9]->body; /* results */
  if (!column || column->kind != IR_ALLOC || column->body->kind != IR_SEQ || column->body->n < 3) return false;
  const ir_stmt *const *c = column->body->items;
  ix w;
  if (c[0]->kind != IR_STORE || !zero_into(c[0], column->buf) || !plain_loop(c[1], &again) || !sum_of(c[1], column->buf, &w, &p->v) || !load_of(w, row)) return false;
  p->acc = column->buf, p->key[2] = c[1]->var;
  p->after = ir_seq(ctx, column->body->n - 2, c + 2);
  return true;
}

/* ---- the blocks ---- */

typedef struct attention {
  lw_attention_parts p;
  sched *s;
  tn_ctx *ctx;
  ir_builder *b;
  int64_t rows, keys, lanes, group; /* of a block; of a vector; queries of a group */
  int64_t blocks, panel, panels;    /* of queries; columns of a panel; their number */
  ix batch[IR_MAX_RANK], first, last; /* of a task; the queries of its block */
  lw_attention_span span;
  ir_buf *qt, *vt, *pt, *top, *total, *keep, *o;
} attention;

static ix number(const attention *a, int64_t v) { return ix_index(a->ctx, v); }
static ix f32(const attention *a, double v) { return ix_float(a->ctx, TN_F32, v); }
static ix exponential(const attention *a, ix e) { return ix_unary(a->ctx, IX_EXP, e); }
static ix loop(attention *a, const char *name, const char *suffix, int64_t extent) { return ib_loop(a->b, ir_format(a->ctx, "%s%s", name, suffix), number(a, extent)); }
static ir_buf *memory(attention *a, const char *name, int64_t parts, int64_t rows, int64_t columns) {
  return ib_alloc(a->b, name, TN_F32, 3, (ix[]){number(a, parts), number(a, rows), number(a, columns)}, IR_LOCAL);
}
static ir_buf *line(attention *a, const char *name) { return ib_alloc(a->b, name, TN_F32, 1, (ix[]){number(a, a->rows)}, IR_LOCAL); }

/* Query i of the block, among all; those there are not stand for the last one. */
static ix query(const attention *a, ix i) {
  ix at = ix_add(a->ctx, a->first, i);
  return a->rows > a->p.queries ? ix_min(a->ctx, at, number(a, a->p.queries - 1)) : at;
}

/* e of this task, with the query, key and other variables given (null: not in e). */
static ix at(const attention *a, ix e, ix q, const ir_var *key, ix k, const ir_var *other, ix o) {
  for (int i = 0; i < a->p.nbatch; i++) e = ix_subst1(a->ctx, e, a->p.batch[i]->var, a->batch[i]);
  if (q) e = ix_subst1(a->ctx, e, a->p.row->var, q);
  if (k) e = ix_subst1(a->ctx, e, key, k);
  return o ? ix_subst1(a->ctx, e, other, o) : e;
}

typedef struct exchange { /* of a rank-0 buffer's load */
  const ir_buf *of;
  ix by;
} exchange;
static ix exchange_load(void *user, ix load) {
  const exchange *x = user;
  return load->u.buf == x->of ? x->by : NULL;
}
static ix with(const attention *a, ix e, const ir_buf *of, ix by) { return ix_subst_loads(a->ctx, e, exchange_load, &(exchange){of, by}); }

static ix plus(const attention *a, ix block, int64_t size, ix i) { return ix_add(a->ctx, ix_muli(a->ctx, block, size), i); }

/* A vector of `extent`: its elements' places. Two loops, the inner one a vector. */
static ix vector_loops(attention *a, const char *name, const char *suffix, int64_t extent) {
  ix block = loop(a, name, suffix, extent / a->lanes);
  return plus(a, block, a->lanes, loop(a, "lane", "", a->lanes));
}

static void turn_queries(attention *a) {
  a->qt = memory(a, "qt", a->rows / a->group, a->p.depth, a->group);
  ix g = loop(a, "qg", "", a->rows / a->group), d = loop(a, "qd", "", a->p.depth), i = vector_loops(a, "each", "", a->group);
  ib_store(a->b, a->qt, (ix[]){g, d, i}, at(a, a->p.q, query(a, plus(a, g, a->group, i)), NULL, NULL, a->p.d, d));
  ib_end_n(a->b, 4);
}

static void start(attention *a) {
  a->top = line(a, "top"), a->total = line(a, "total"), a->keep = line(a, "keep");
  a->o = ib_alloc(a->b, "o", TN_F32, 2, (ix[]){number(a, a->rows), number(a, a->panels * a->panel)}, IR_LOCAL);
  ix i = vector_loops(a, "zb", "", a->rows);
  ib_store(a->b, a->top, &i, f32(a, -INFINITY));
  ib_store(a->b, a->total, &i, f32(a, 0));
  ib_end_n(a->b, 2);
  i = loop(a, "zi", "", a->rows);
  ix n = vector_loops(a, "zn", "", a->panels * a->panel);
  ib_store(a->b, a->o, (ix[]){i, n}, f32(a, 0));
  ib_end_n(a->b, 3);
}

/* Columns beyond those there are hold zeros, and come to nothing. */
static void copy_values(attention *a, ix base, int64_t keys, const char *suffix) {
  a->vt = memory(a, ir_format(a->ctx, "vt%s", suffix), a->panels, keys, a->panel);
  ix t = loop(a, "vk", suffix, keys), p = loop(a, "vp", suffix, a->panels), c = vector_loops(a, "each", "", a->panel), n = plus(a, p, a->panel, c);
  ix v = at(a, a->p.v, NULL, a->p.key[2], ix_add(a->ctx, base, t), a->p.n, n);
  if (a->panels * a->panel > a->p.columns) v = ix_select(a->ctx, ix_lt(a->ctx, n, number(a, a->p.columns)), v, f32(a, 0));
  ib_store(a->b, a->vt, (ix[]){p, t, c}, v);
  ib_end_n(a->b, 4);
}

static void scores(attention *a, ix g, ix base, int64_t keys, const char *suffix) {
  ix t = loop(a, "st", suffix, keys), i = loop(a, "si", suffix, a->group);
  ir_buf *acc = ib_local(a->b, "acc", TN_F32, f32(a, 0));
  ix d = loop(a, "sd", suffix, a->p.depth);
  ix k = at(a, a->p.k, NULL, a->p.key[0], ix_add(a->ctx, base, t), a->p.d, d);
  ib_set(a->b, acc, ix_fma(a->ctx, k, ix_load(a->ctx, a->qt, (ix[]){g, d, i}), ib_get(a->b, acc)));
  ib_end(a->b);
  ib_store(a->b, a->pt, (ix[]){t, i}, ib_get(a->b, acc));
  ib_end_n(a->b, 2);
}

typedef struct vectors { /* of a group of queries: vector u, lane l is query i of the group */
  ix u, l, i;
} vectors;
static vectors open_vectors(attention *a) {
  vectors v = {loop(a, "each", "", a->group / a->lanes), loop(a, "lane", "", a->lanes), NULL};
  v.i = plus(a, v.u, a->lanes, v.l);
  return v;
}
static void close_vectors(attention *a) { ib_end_n(a->b, 2); }
static ir_buf *registers(attention *a, const char *name) {
  return ib_alloc(a->b, name, TN_F32, 2, (ix[]){number(a, a->group / a->lanes), number(a, a->lanes)}, IR_REGISTER);
}

/* Scores of `keys` keys from base on, by the expression e of the sums; the largest. */
static void weigh(attention *a, ix e, ix g, ix base, int64_t keys, const char *suffix, ir_buf *most) {
  ix t = loop(a, "xt", suffix, keys);
  vectors v = open_vectors(a);
  ix p[2] = {t, v.i}, s = ib_load(a->b, a->pt, p), score = with(a, at(a, e, query(a, plus(a, g, a->group, v.i)), a->p.key[0], ix_add(a->ctx, base, t), NULL, NULL), a->p.sum, s);
  if (score != s) {
    score = ib_let(a->b, "s", score);
    ib_store(a->b, a->pt, p, score);
  }
  ib_update(a->b, most, (ix[]){v.u, v.l}, IR_MAX, score);
  close_vectors(a);
  ib_end(a->b);
}

static void softmax(attention *a, ix g, ix base, int64_t keys, const char *suffix) {
  tn_ctx *ctx = a->ctx;
  ir_builder *ib = a->b;
  ix q, p[2], t;
  ir_buf *most = registers(a, "most"), *sum = registers(a, "sum"), *less = registers(a, "less");
  vectors v = open_vectors(a);
  q = plus(a, g, a->group, v.i);
  ib_store(ib, most, (ix[]){v.u, v.l}, ib_load(ib, a->top, &q));
  ib_store(ib, sum, (ix[]){v.u, v.l}, f32(a, 0));
  close_vectors(a);
  if (a->span.whole) weigh(a, a->p.score, g, base, keys, suffix, most);
  else { /* few blocks have anything to hide */
    ib_if(ib, at(a, lw_attention_seen(ctx, &a->p, &a->span, a->first, a->last, base, keys), NULL, NULL, NULL, NULL, NULL));
    weigh(a, a->span.inside, g, base, keys, suffix, most);
    ib_else(ib);
    weigh(a, a->p.score, g, base, keys, suffix, most);
    ib_end(ib);
  }
  v = open_vectors(a); /* scores that are all -inf: less 0 they still are */
  ix now = ib_let(ib, "now", ib_load(ib, most, (ix[]){v.u, v.l})), minus = f32(a, -INFINITY);
  ib_store(ib, less, (ix[]){v.u, v.l}, ix_select(ctx, ix_eq(ctx, now, minus), f32(a, 0), now));
  close_vectors(a);
  t = loop(a, "yt", suffix, keys);
  v = open_vectors(a);
  p[0] = t, p[1] = v.i;
  ix e = ib_let(ib, "e", exponential(a, ix_sub(ctx, ib_load(ib, a->pt, p), ib_load(ib, less, (ix[]){v.u, v.l}))));
  ib_store(ib, a->pt, p, e);
  ib_update(ib, sum, (ix[]){v.u, v.l}, IR_ADD, e);
  close_vectors(a);
  ib_end(ib);
  v = open_vectors(a);
  q = plus(a, g, a->group, v.i);
  ix keep = ib_let(ib, "kept", exponential(a, ix_sub(ctx, ib_load(ib, a->top, &q), ib_load(ib, less, (ix[]){v.u, v.l}))));
  ib_store(ib, a->keep, &q, keep);
  ib_store(ib, a->total, &q, ix_fma(ctx, ib_load(ib, a->total, &q), keep, ib_load(ib, sum, (ix[]){v.u, v.l})));
  ib_store(ib, a->top, &q, ib_load(ib, most, (ix[]){v.u, v.l}));
  close_vectors(a);
}

static void results(attention *a, ix g, int64_t keys, const char *suffix) {
  ix p = loop(a, "on", suffix, a->panels), i = loop(a, "oi", suffix, a->group), c = loop(a, "oc", suffix, a->panel);
  ix q = plus(a, g, a->group, i), at_o[2] = {q, plus(a, p, a->panel, c)};
  ir_buf *acc = ib_local(a->b, "acc", TN_F32, f32(a, 0));
  ix t = loop(a, "ot", suffix, keys);
  ib_set(a->b, acc, ix_fma(a->ctx, ix_load(a->ctx, a->pt, (ix[]){t, i}), ix_load(a->ctx, a->vt, (ix[]){p, t, c}), ib_get(a->b, acc)));
  ib_end(a->b);
  ib_store(a->b, a->o, at_o, ix_fma(a->ctx, ib_load(a->b, a->o, at_o), ib_load(a->b, a->keep, &q), ib_get(a->b, acc)));
  ib_end_n(a->b, 3);
}

static void block_of_keys(attention *a, ix base, int64_t keys, const char *suffix) {
  copy_values(a, base, keys, suffix);
  ix g = loop(a, "xb", suffix, a->rows / a->group);
  a->pt = ib_alloc(a->b, ir_format(a->ctx, "pt%s", suffix), TN_F32, 2, (ix[]){number(a, keys), number(a, a->group)}, IR_LOCAL);
  scores(a, g, base, keys, suffix);
  softmax(a, g, base, keys, suffix);
  results(a, g, keys, suffix);
  ib_end(a->b);
}

static ix finish_expr(ir_rewriter *r, ix e) { return ix_subst_loads(r->ctx, e, exchange_load, r->user); }

static void finish(attention *a, ix own) {
  tn_ctx *ctx = a->ctx;
  ix i = loop(a, "fi", "", a->rows), q = ix_add(ctx, a->first, i);
  bool guard = a->rows > a->p.queries || a->rows * a->blocks > a->p.queries;
  if (guard) ib_if(a->b, a->rows > a->p.queries ? ix_lt(ctx, q, number(a, a->p.queries)) : ix_le(ctx, own, q));
  ix scale = ib_let(a->b, "scale", with(a, a->p.scale, a->p.total, ib_load(a->b, a->total, &i))), n = loop(a, "fn", "", a->p.columns);
  ir_rewriter r = {.ctx = ctx, .user = &(exchange){a->p.acc, ib_load(a->b, a->o, (ix[]){i, n})}, .expr = finish_expr};
  const ir_stmt *st = ir_rewrite(&r, ir_stmt_fresh(ctx, a->p.after, ".f"));
  for (int k = 0; k < a->p.nbatch; k++) st = ir_subst_var(ctx, st, a->p.batch[k]->var, a->batch[k]);
  st = ir_subst_var(ctx, st, a->p.row->var, q);
  st = ir_subst_var(ctx, st, (ir_var *)a->p.n, n);
  ib_stmt(a->b, ir_subst_var(ctx, st, (ir_var *)a->p.scale_var, scale));
  ib_end_n(a->b, 2 + guard);
}

static const ir_stmt *kinds_of_loops(ir_rewriter *r, const ir_stmt *st) {
  if (st->kind != IR_FOR) return st;
  bool lane = strncmp(st->var->name, "lane", 4) == 0, each = strncmp(st->var->name, "each", 4) == 0;
  if (!lane && !each) return st;
  return ir_for(r->ctx, st->var, st->lo, st->hi, lane ? IR_VECTOR : IR_UNROLL, ir_rewrite(r, st->body));
}

static ix settled(attention *a, const char *name, ix e) {
  e = at(a, e, NULL, NULL, NULL, NULL, NULL);
  return ix_is_const(e) ? e : ib_let(a->b, name, e);
}

bool sched_attention(sched *s) {
  attention a = {.s = s, .ctx = s->ctx, .b = ir_builder_new(s->ctx), .rows = s->num[1], .keys = s->num[2], .lanes = s->num[3], .group = s->num[4]};
  const char *why;
  if (s->nargs != 5) return refuse(s, "attention takes four numbers: rows keys lanes group");
  if (a.lanes < 1 || a.lanes > 64 || a.group < a.lanes || a.group > 8 * a.lanes || a.group % a.lanes || a.rows < a.group || a.rows > 1024 || a.rows % a.group || a.keys < 1 || a.keys > 1 << 16)
    return refuse(s, "rows (a multiple of group, up to 1024), keys, lanes (up to 64) and group (a multiple of lanes, up to 8) are out of range");
  if (!lw_attention_of(s->ctx, s->k, &a.p, &why)) return refuse(s, "%s", why);
  if (a.p.q->dtype != TN_F32 || a.p.k->dtype != TN_F32 || a.p.v->dtype != TN_F32) return refuse(s, "attention of f32 alone");
  tn_ctx *ctx = a.ctx;
  if (a.keys > a.p.keys) a.keys = a.p.keys;
  a.blocks = (a.p.queries + a.rows - 1) / a.rows;
  a.panel = a.p.columns > a.lanes ? 2 * a.lanes : a.lanes;
  a.panels = (a.p.columns + a.panel - 1) / a.panel;
  int64_t tasks = a.blocks;
  for (int i = 0; i < a.p.nbatch; i++) tasks *= a.p.extent[i];
  ix task = ib_loop(a.b, "task", number(&a, tasks)), rest = task;
  task->u.var->independent = true; /* each stores rows of its own */
  ix own = ib_let(a.b, "own", ix_muli(ctx, ix_remi(ctx, rest, a.blocks), a.rows));
  a.first = a.rows > a.p.queries ? number(&a, 0) : ib_let(a.b, "first", ix_min(ctx, own, number(&a, a.p.queries - a.rows)));
  a.last = a.rows > a.p.queries ? number(&a, a.p.queries - 1) : ix_addi(ctx, a.first, a.rows - 1);
  a.span = lw_attention_span_of(ctx, &a.p);
  rest = ix_divi(ctx, rest, a.blocks);
  for (int i = a.p.nbatch; i-- > 0;) {
    a.batch[i] = ib_let(a.b, "batch", ix_remi(ctx, rest, a.p.extent[i]));
    rest = ix_divi(ctx, rest, a.p.extent[i]);
  }
  turn_queries(&a);
  start(&a);
  int64_t whole = a.p.keys / a.keys;
  ix begin, end;
  lw_attention_blocks(ctx, &a.p, &a.span, a.first, a.last, a.keys, &begin, &end);
  begin = settled(&a, "begin", begin), end = settled(&a, "end", end);
  ix base = ix_muli(ctx, ib_for(a.b, "kb", begin, ix_min(ctx, end, number(&a, whole))), a.keys);
  block_of_keys(&a, base, a.keys, "");
  ib_end(a.b);
  if (a.p.keys % a.keys) {
    if (!a.span.whole) ib_if(a.b, ix_lt(ctx, number(&a, whole), end));
    block_of_keys(&a, number(&a, whole * a.keys), a.p.keys % a.keys, ".r");
    if (!a.span.whole) ib_end(a.b);
  }
  finish(&a, own);
  ib_end(a.b);
  ir_rewriter r = {.ctx = ctx, .stmt = kinds_of_loops};
  s->k->body = ir_rewrite(&r, ib_finish(a.b));
  return true;
}
