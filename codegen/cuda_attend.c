/* cuda_attend.c — attention in one launch (Dao, "FlashAttention-2", 2023): a block has BM queries, 16 a warp, and takes the
 * keys and values BN at a time; scores stay in registers, so the softmax is one that goes along.
 *
 *   for b.., i: { for j: row[j] = score(sum over d of q[i, d] k[j, d]); top = max row      (lower/ops_attend.c)
 *                 for j: row[j] = exp(row[j] - top); all = sum row
 *                 for c: out[i, c] = (sum over j of row[j] v[j, c]) / all }
 *     -> for b.., i / BM grid: { Q = q; m = -inf; l = 0; o = 0
 *          for tile: { K, V = k, v (two stages); s = Q K'; s = score(s); m' = max(m, max s); f = exp(m - m')
 *                      s = exp(s - m'); l = l f + sum s; o = o f + s V; m = m' }
 *          out = o / l }
 *
 * Tiles of keys that no query of the block sees are left out; only in those that are partly seen places are compared.
 * A row of scores lies in the four lanes of a quad (f32 without tensor cores: in 16 lanes, cuda_attend_f32.c): maxima and
 * sums are joined by shuffles. */
#include "codegen/cuda_attend.h"
#include <math.h>

#define REFUSE(text) return *reason = (text), false

/* ---- the kernel ---- */

/* A product within the loops of a row: for v: { acc = 0; for w: acc = fma(a, b, acc); end }. */
static const ir_stmt *product(const cu_attend *x, const ir_var *v, int64_t n, const ir_var *w, int64_t depth, const ir_buf *acc, ix a, ix b, const ir_stmt *end) {
  tn_ctx *ctx = x->ctx;
  const lw_attention_parts *p = &x->p;
  ix zero = ix_index(ctx, 0), sum = ix_fma(ctx, ix_cast(ctx, TN_F32, a), ix_cast(ctx, TN_F32, b), ix_load(ctx, (ir_buf *)acc, NULL));
  const ir_stmt *items[3] = {ir_store(ctx, (ir_buf *)acc, NULL, IR_SET, ix_float(ctx, TN_F32, 0)), ir_for(ctx, (ir_var *)w, zero, ix_index(ctx, depth), IR_SERIAL, ir_store(ctx, (ir_buf *)acc, NULL, IR_SET, sum)), end};
  const ir_stmt *s = ir_for(ctx, (ir_var *)v, zero, ix_index(ctx, n), IR_SERIAL, ir_alloc_stmt(ctx, (ir_buf *)acc, ir_seq(ctx, 3, items)));
  s = ir_for(ctx, p->row->var, p->row->lo, p->row->hi, IR_SERIAL, s);
  for (int i = p->nbatch - 1; i >= 0; i--) s = ir_for(ctx, p->batch[i]->var, p->batch[i]->lo, p->batch[i]->hi, IR_SERIAL, s);
  return s;
}

/* An array of all scores, by key variable v, which the products are written with and nothing keeps. */
static ir_buf *all_scores(const cu_attend *x, const ir_var *v, tn_dtype t, ir_access access, ix *at) {
  const lw_attention_parts *p = &x->p;
  ix shape[IR_MAX_RANK];
  int n = 0;
  for (; n < p->nbatch; n++) shape[n] = p->batch[n]->hi, at[n] = p->extent[n] == 1 ? ix_index(x->ctx, 0) : p->batch[n]->var->expr; /* as the operands have it */
  shape[n] = p->row->hi, at[n++] = p->row->var->expr;
  shape[n] = ix_index(x->ctx, p->keys), at[n++] = v->expr;
  ir_buf *b = ir_buf_new(x->ctx, "scores", t, n, shape, NULL, IR_GLOBAL);
  b->access = access;
  return b;
}

/* Whatever the loops around a row move is a batch, also where heads share keys and a batch has rows of one operand alone. */
static bool by_batches(const cu_attend *x, cu_product *g) {
  cu_axis rows = {.extent = 1}, columns = rows, batch = rows;
  for (int i = 0; i < g->p.nout; i++) {
    const ir_var *v = g->p.out[i]->var;
    cu_axis *a = v == x->p.row->var ? &rows : v == x->p.key[0] || v == x->p.n ? &columns : &batch;
    a->loops[a->n++] = g->p.out[i];
    if (!ir_mul_size(a->extent, g->p.extent[i], &a->extent) || a->extent >= INT32_MAX) return false;
  }
  bool good = rows.n == 1 && columns.n == 1 && g->b.rows.n && ix_uses_var(g->b.value, columns.loops[0]->var) && !ix_uses_var(g->b.value, rows.loops[0]->var) && !ix_uses_var(g->a.value, columns.loops[0]->var);
  g->a.rows = rows, g->b.rows = columns, g->batch = batch;
  return good && !g->a.guard && !g->b.guard && batch.n == x->p.nbatch;
}

bool cu_attend_of(cu_attend *x, const char **reason) {
  tn_ctx *ctx = x->ctx;
  lw_attention_parts *p = &x->p;
  ix at[IR_MAX_RANK];
  if (x->k->ndims) REFUSE("attention of unknown size");
  if (!lw_attention_of(ctx, x->k, p, reason)) return false;
  tn_dtype t = (tn_dtype)p->q->dtype;
  if (x->f32 ? t != TN_F32 : t != TN_F16 && t != TN_BF16) REFUSE("attention of another dtype");
  if (p->nbatch + 2 > IR_MAX_RANK || p->depth > 256 || p->columns > 256) REFUSE("attention of more columns than registers hold");
  ir_buf *scores = all_scores(x, p->key[0], TN_F32, IR_OUT, at);
  x->scores = scores;
  const ir_stmt *first = product(x, p->key[0], p->keys, p->d, p->depth, p->sum, p->q, p->k, ir_store(ctx, scores, at, IR_SET, p->score));
  if (!cu_product_of(ctx, cu_variant(ctx, x->k, scores, first), true, &x->qk, reason)) return false;
  ir_buf *weights = all_scores(x, p->key[2], t, IR_IN, at);
  const ir_stmt *after = ir_subst_var(ctx, p->after, (ir_var *)p->scale_var, ix_float(ctx, TN_F32, 1)); /* the sum divides at the end */
  const ir_stmt *second = product(x, p->n, p->columns, p->key[2], p->keys, p->acc, ix_load(ctx, weights, at), p->v, after);
  if (!cu_product_of(ctx, cu_variant(ctx, x->k, weights, second), true, &x->pv, reason)) return false;
  if (x->pv.dtype != t || !by_batches(x, &x->qk) || !by_batches(x, &x->pv)) REFUSE("attention of another shape");
  x->span = lw_attention_span_of(ctx, p);
  x->lanes = 4, x->per = 2, x->rows = 2; /* as mma has it */
  return true;
}

/* ---- statements ---- */

ir_var *cu_attend_var(cu_attend *x, const char *name, int64_t n) { return cu_var(x->ctx, ir_format(x->ctx, "%s.%d", name, x->names++), n); }

/* For each thread: body(thread). */
static const ir_stmt *threads(cu_attend *x, const ir_stmt *(*body)(cu_attend *x, ix t)) {
  ir_var *t = cu_attend_var(x, "t", x->own);
  return cu_loop(x->ctx, t, IR_LANE, body(x, t->expr));
}

/* For each accumulator of the columns. */
static const ir_stmt *sums(cu_attend *x, int64_t columns, ix t, const ir_stmt *(*body)(cu_attend *x, ix t, ix n, ix e)) {
  ir_var *n = cu_attend_var(x, "n", columns / (x->lanes * x->per)), *e = cu_attend_var(x, "e", x->rows * x->per);
  return cu_loop(x->ctx, n, IR_UNROLL, cu_loop(x->ctx, e, IR_UNROLL, body(x, t, n->expr, e->expr)));
}

static ix row_of(cu_attend *x, ix e) { return ix_divi(x->ctx, e, x->per); }
static ix of_row(cu_attend *x, ir_buf *b, ix t, ix e) { return ix_load(x->ctx, b, (ix[]){t, row_of(x, e)}); }

ix cu_attend_row(cu_attend *x, ix t, ix e) {
  tn_ctx *ctx = x->ctx;
  if (x->simt) return ix_add(ctx, ix_divi(ctx, t, x->lanes), ix_muli(ctx, row_of(x, e), x->own / x->lanes));
  return ix_add(ctx, ix_muli(ctx, ix_divi(ctx, t, 32), 16), ix_add(ctx, ix_divi(ctx, ix_remi(ctx, t, 32), 4), ix_muli(ctx, row_of(x, e), 8)));
}

ix cu_attend_column(cu_attend *x, ix t, ix n, ix e) {
  tn_ctx *ctx = x->ctx;
  return ix_add(ctx, ix_muli(ctx, n, x->lanes * x->per), ix_add(ctx, ix_muli(ctx, ix_remi(ctx, t, x->lanes), x->per), ix_remi(ctx, e, x->per)));
}

static ix minus(tn_ctx *ctx) { return ix_float(ctx, TN_F32, -INFINITY); }
static ix nought(tn_ctx *ctx) { return ix_float(ctx, TN_F32, 0); }

#define AT(t, n, e) (ix[]){t, ix_index(x->ctx, 0), n, e}

static const ir_stmt *no_score(cu_attend *x, ix t, ix n, ix e) { return ir_store(x->ctx, x->s.acc, AT(t, n, e), IR_SET, nought(x->ctx)); }
static const ir_stmt *no_output(cu_attend *x, ix t, ix n, ix e) { return ir_store(x->ctx, x->o.acc, AT(t, n, e), IR_SET, nought(x->ctx)); }

typedef struct keep { /* a store of a score to memory becomes one to its accumulator */
  cu_attend *x;
  ix at[4];
} keep;

static const ir_stmt *keep_score(ir_rewriter *r, const ir_stmt *s) {
  keep *k = r->user;
  tn_ctx *ctx = r->ctx;
  if (s->kind == IR_STORE && s->buf == k->x->scores) return ir_store(ctx, k->x->s.acc, k->at, IR_SET, s->value);
  if (s->kind == IR_IF && !s->other) return ir_if(ctx, s->value, ir_rewrite(r, s->body), ir_store(ctx, k->x->s.acc, k->at, IR_SET, minus(ctx))); /* beyond the keys */
  return s;
}

static const ir_stmt *score_of(cu_attend *x, cu_product *g, ix t, ix n, ix e) {
  keep k = {x, {t, ix_index(x->ctx, 0), n, e}};
  ir_rewriter r = {.ctx = x->ctx, .user = &k, .stmt = keep_score};
  const ir_stmt *s = cu_product_store(g, cu_attend_row(x, t, e), cu_attend_column(x, t, n, e), ix_load(x->ctx, x->s.acc, k.at));
  return ir_rewrite(&r, s);
}

static const ir_stmt *score(cu_attend *x, ix t, ix n, ix e) { return score_of(x, &x->qk, t, n, e); }

/* Where all queries of the block see the tile: nothing is hidden. */
static const ir_stmt *score_inside(cu_attend *x, ix t, ix n, ix e) {
  const ir_stmt *store = x->qk.epilogue[0], *inside = ir_store(x->ctx, store->buf, store->index, IR_SET, x->span.inside);
  cu_product g = x->qk;
  g.epilogue = &inside;
  g.nepilogue = 1;
  const ir_stmt *s = score_of(x, &g, t, n, e);
  x->qk.copies = g.copies;
  return s;
}

static const ir_stmt *largest(cu_attend *x, ix t, ix n, ix e) {
  return ir_tile(x->ctx, "max", ir_store(x->ctx, x->near, (ix[]){t, row_of(x, e)}, IR_MAX, ix_load(x->ctx, x->s.acc, AT(t, n, e))));
}

static const ir_stmt *each_row(cu_attend *x, ix t, const ir_stmt *(*body)(cu_attend *x, ix t, ix r)) {
  ir_var *r = cu_attend_var(x, "row", x->rows);
  return cu_loop(x->ctx, r, IR_UNROLL, body(x, t, r->expr));
}

static const ir_stmt *start_row(cu_attend *x, ix t, ix r) {
  const ir_stmt *s[2] = {ir_store(x->ctx, x->m, (ix[]){t, r}, IR_SET, minus(x->ctx)), ir_store(x->ctx, x->l, (ix[]){t, r}, IR_SET, nought(x->ctx))};
  return ir_seq(x->ctx, 2, s);
}
static const ir_stmt *start_near(cu_attend *x, ix t, ix r) { return ir_store(x->ctx, x->near, (ix[]){t, r}, IR_SET, minus(x->ctx)); }

static const ir_stmt *start(cu_attend *x, ix t) {
  const ir_stmt *s[2] = {each_row(x, t, start_row), sums(x, x->pv.b.block, t, no_output)};
  return ir_seq(x->ctx, 2, s);
}
static const ir_stmt *start_scores(cu_attend *x, ix t) { return sums(x, x->bn, t, no_score); }

static const ir_stmt *scores(cu_attend *x, ix t) { return sums(x, x->bn, t, score); }
static const ir_stmt *scores_inside(cu_attend *x, ix t) { return sums(x, x->bn, t, score_inside); }

static const ir_stmt *tops(cu_attend *x, ix t) {
  const ir_stmt *s[2] = {each_row(x, t, start_near), sums(x, x->bn, t, largest)};
  return ir_seq(x->ctx, 2, s);
}

/* b of the lanes that hold a row, joined by op: each takes that of the lane one further on, then two, .. */
static const ir_stmt *join_row(cu_attend *x, ir_buf *b, ir_store_op op) {
  tn_ctx *ctx = x->ctx;
  const ir_stmt *all[4];
  int n = 0;
  for (int by = 1; by < x->lanes; by *= 2) {
    ir_var *w = cu_attend_var(x, "w", x->own / 32), *r = cu_attend_var(x, "r", x->rows), *l = cu_attend_var(x, "l", 32), *q = cu_attend_var(x, "r", x->rows), *m = cu_attend_var(x, "l", 32);
    ix base = ix_muli(ctx, w->expr, 32), lane = l->expr;
    ix from = ix_add(ctx, base, ix_add(ctx, ix_muli(ctx, ix_divi(ctx, lane, x->lanes), x->lanes), ix_remi(ctx, ix_addi(ctx, ix_remi(ctx, lane, x->lanes), by), x->lanes)));
    const ir_stmt *take = ir_tile(ctx, "shfl", cu_loop(ctx, l, IR_SERIAL, ir_store(ctx, x->other, (ix[]){ix_add(ctx, base, lane), r->expr}, IR_SET, ix_load(ctx, b, (ix[]){from, r->expr}))));
    ix me = ix_add(ctx, base, m->expr);
    const ir_stmt *put = cu_loop(ctx, m, IR_LANE, cu_loop(ctx, q, IR_UNROLL, ir_store(ctx, b, (ix[]){me, q->expr}, op, ix_load(ctx, x->other, (ix[]){me, q->expr}))));
    const ir_stmt *both[2] = {cu_loop(ctx, r, IR_UNROLL, take), put};
    all[n++] = cu_loop(ctx, w, IR_WARP, ir_seq(ctx, 2, both));
  }
  return ir_seq(ctx, n, all);
}

/* to[at] = exp(a - b), by the special function unit where 22 bits are more than a weight keeps. */
static const ir_stmt *exponential(cu_attend *x, ir_buf *to, const ix *at, ix a, ix b) {
  const ir_stmt *s = ir_store(x->ctx, to, at, IR_SET, ix_unary(x->ctx, IX_EXP, ix_sub(x->ctx, a, b)));
  return x->simt ? s : ir_tile(x->ctx, "exp", s);
}

/* Where nothing was seen yet, exponents are taken of -inf: zeros. */
static const ir_stmt *next_row(cu_attend *x, ix t, ix r) {
  tn_ctx *ctx = x->ctx;
  ix at[2] = {t, r}, m = ix_load(ctx, x->m, at), top = ix_load(ctx, x->top, at), near = ix_load(ctx, x->near, at);
  const ir_stmt *s[5] = {ir_store(ctx, x->near, at, IR_MAX, m), ir_store(ctx, x->top, at, IR_SET, ix_select(ctx, ix_eq(ctx, near, minus(ctx)), nought(ctx), near)),
                         exponential(x, x->f, at, m, top), ir_store(ctx, x->l, at, IR_MUL, ix_load(ctx, x->f, at)), ir_store(ctx, x->m, at, IR_SET, near)};
  return ir_seq(ctx, 5, s);
}

static const ir_stmt *weight(cu_attend *x, ix t, ix n, ix e) {
  tn_ctx *ctx = x->ctx;
  const ir_stmt *s[2] = {exponential(x, x->s.acc, AT(t, n, e), ix_load(ctx, x->s.acc, AT(t, n, e)), of_row(x, x->top, t, e)),
                         ir_store(ctx, x->l, (ix[]){t, row_of(x, e)}, IR_ADD, ix_load(ctx, x->s.acc, AT(t, n, e)))};
  return ir_seq(ctx, 2, s);
}
static const ir_stmt *shrink(cu_attend *x, ix t, ix n, ix e) { return ir_store(x->ctx, x->o.acc, AT(t, n, e), IR_MUL, of_row(x, x->f, t, e)); }

/* Accumulators of two column tiles are the piece of A that has the same columns as its k. */
static const ir_stmt *pack(cu_attend *x, ix t) {
  tn_ctx *ctx = x->ctx;
  ir_var *p = cu_attend_var(x, "p", x->bn / 16), *r = cu_attend_var(x, "r", 4), *h = cu_attend_var(x, "h", 2);
  ix n = ix_add(ctx, ix_muli(ctx, p->expr, 2), ix_divi(ctx, r->expr, 2)), e = ix_add(ctx, ix_muli(ctx, ix_remi(ctx, r->expr, 2), 2), h->expr);
  ix to[3] = {t, p->expr, ix_add(ctx, ix_muli(ctx, r->expr, 2), h->expr)};
  const ir_stmt *s = ir_store(ctx, x->o.fa, to, IR_SET, ix_cast(ctx, x->qk.dtype, ix_load(ctx, x->s.acc, AT(t, n, e))));
  return cu_loop(ctx, p, IR_UNROLL, cu_loop(ctx, r, IR_UNROLL, ir_tile(ctx, "frag.pack", cu_loop(ctx, h, IR_SERIAL, s))));
}

static const ir_stmt *weights(cu_attend *x, ix t) {
  const ir_stmt *s[4] = {each_row(x, t, next_row), sums(x, x->bn, t, weight), sums(x, x->pv.b.block, t, shrink), x->pack ? x->pack(x, t) : pack(x, t)};
  return ir_seq(x->ctx, 4, s);
}

static ix total_of(void *user, ix load) {
  const cu_attend *x = user;
  return load->u.buf == x->p.total ? x->row_total : NULL;
}

/* What a row's results are multiplied by, as the kernel has it of its sum. */
static const ir_stmt *inverse(cu_attend *x, ix t, ix r) {
  ix at[2] = {t, r};
  x->row_total = ix_load(x->ctx, x->l, at);
  return ir_store(x->ctx, x->l, at, IR_SET, ix_subst_loads(x->ctx, x->p.scale, total_of, x));
}

/* Columns beside each other. */
static const ir_stmt *outputs(cu_attend *x, ix t) {
  tn_ctx *ctx = x->ctx;
  ir_var *n = cu_attend_var(x, "n", x->pv.b.block / (x->lanes * x->per)), *h = cu_attend_var(x, "h", x->rows), *v = cu_attend_var(x, "v", x->per);
  ix e = ix_add(ctx, ix_muli(ctx, h->expr, x->per), v->expr), sum = ix_mul(ctx, ix_load(ctx, x->o.acc, AT(t, n->expr, e)), ix_load(ctx, x->l, (ix[]){t, h->expr}));
  const ir_stmt *s[2] = {each_row(x, t, inverse), cu_loop(ctx, n, IR_UNROLL, cu_loop(ctx, h, IR_UNROLL, cu_vectors(ctx, v, cu_product_store(&x->pv, cu_attend_row(x, t, e), cu_attend_column(x, t, n->expr, e), sum))))};
  return ir_seq(ctx, 2, s);
}

const ir_stmt *cu_attend_start(cu_attend *x) { return threads(x, start); }

/* e, of the batches' variables. */
static ix of_block(const cu_attend *x, ix e) {
  for (int i = 0; i < x->qk.batch.n; i++) e = ix_subst1(x->ctx, e, x->qk.batch.loops[i]->var, cu_axis_at(x->ctx, &x->qk.batch, i, x->qk.block_b->expr));
  return e;
}

const ir_stmt *cu_attend_softmax(cu_attend *x) {
  tn_ctx *ctx = x->ctx;
  const ir_stmt *s[4] = {threads(x, scores), threads(x, tops), join_row(x, x->near, IR_MAX), threads(x, weights)};
  if (!x->span.whole) {
    ix all = lw_attention_seen(ctx, &x->p, &x->span, x->first, x->last, ix_muli(ctx, x->qk.block_n->expr, x->bn), x->bn);
    s[0] = ir_if(ctx, of_block(x, all), threads(x, scores_inside), s[0]);
  }
  return ir_seq(ctx, 4, s);
}

/* ---- tiles of keys ---- */

static ix settled(tn_ctx *ctx, const char *name, ix e, ir_var **v) {
  if (ix_is_const(e)) return e;
  *v = ir_var_new(ctx, name, TN_INDEX, e->lo, e->hi);
  return (*v)->expr;
}

/* At least one tile, so that what is brought ahead is there to be waited for. */
static void find_tiles(cu_attend *x) {
  tn_ctx *ctx = x->ctx;
  ix *bounds = x->limits;
  x->first = ix_muli(ctx, x->qk.block_m->expr, x->bm);
  x->last = ix_min(ctx, ix_addi(ctx, x->first, x->bm - 1), ix_index(ctx, x->p.queries - 1));
  lw_attention_blocks(ctx, &x->p, &x->span, x->first, x->last, x->bn, &bounds[0], &bounds[1]);
  bounds[0] = of_block(x, ix_min(ctx, bounds[0], ix_index(ctx, x->tiles - 1)));
  x->begin = settled(ctx, "tiles.begin", bounds[0], &x->bounds[0]);
  bounds[1] = ix_max(ctx, of_block(x, bounds[1]), ix_addi(ctx, x->begin, 1));
  x->end = settled(ctx, "tiles.end", bounds[1], &x->bounds[1]);
}

const ir_stmt *cu_attend_bounded(cu_attend *x, const ir_stmt *s) {
  for (int i = 2; i-- > 0;)
    if (x->bounds[i]) s = ir_let(x->ctx, x->bounds[i], x->limits[i], s);
  return s;
}

const ir_stmt *cu_attend_tiles(cu_attend *x, const ir_stmt *s) { return ir_for(x->ctx, x->qk.block_n, x->begin, x->end, IR_SERIAL, s); }
ix cu_attend_step(cu_attend *x, ix tile) { return ix_sub(x->ctx, tile, x->begin); }

const ir_stmt *cu_attend_end(cu_attend *x) {
  const ir_stmt *s[2] = {join_row(x, x->l, IR_ADD), threads(x, outputs)};
  return ir_seq(x->ctx, 2, s);
}

/* ---- products ---- */

/* For a step of k: two column tiles at a time from one piece of B. */
static const ir_stmt *columns(cu_attend *x, cu_product *g, const cu_mma *m, ix w, ix a_piece, ix k0, ix stage, int64_t wide) {
  tn_ctx *ctx = x->ctx;
  ir_var *nb = cu_attend_var(x, "nb", wide / 16), *half = cu_attend_var(x, "half", 2);
  ix zero = ix_index(ctx, 0), nj = ix_add(ctx, ix_muli(ctx, nb->expr, 2), half->expr);
  const ir_stmt *s[2] = {cu_mma_load(g, m, &g->b, m->fb, w, zero, ix_muli(ctx, nb->expr, 16), k0, stage), cu_loop(ctx, half, IR_UNROLL, cu_mma_multiply(ctx, m, w, a_piece, zero, zero, nj))};
  return cu_loop(ctx, nb, IR_UNROLL, ir_seq(ctx, 2, s));
}

const ir_stmt *cu_attend_keys(cu_attend *x, ix stage) {
  tn_ctx *ctx = x->ctx;
  ir_var *w = cu_attend_var(x, "w", x->s.warps), *k = cu_attend_var(x, "k", x->qk.bk / x->s.depth);
  ix k0 = ix_muli(ctx, k->expr, x->s.depth), zero = ix_index(ctx, 0);
  const ir_stmt *s[2] = {cu_mma_load(&x->qk, &x->s, &x->qk.a, x->s.fa, w->expr, zero, ix_muli(ctx, w->expr, 16), k0, zero), columns(x, &x->qk, &x->s, w->expr, zero, k0, stage, x->bn)};
  return cu_loop(ctx, w, IR_WARP, cu_loop(ctx, k, IR_UNROLL, ir_seq(ctx, 2, s)));
}

static const ir_stmt *multiply_values(cu_attend *x, ix stage) {
  tn_ctx *ctx = x->ctx;
  ir_var *w = cu_attend_var(x, "w", x->s.warps), *k = cu_attend_var(x, "k", x->bn / 16);
  return cu_loop(ctx, w, IR_WARP, cu_loop(ctx, k, IR_UNROLL, columns(x, &x->pv, &x->o, w->expr, k->expr, ix_muli(ctx, k->expr, 16), stage, x->pv.b.block)));
}

static const ir_stmt *copy_tile(cu_attend *x, ix tile) {
  tn_ctx *ctx = x->ctx;
  ix stage = ix_remi(ctx, cu_attend_step(x, tile), 2), zero = ix_index(ctx, 0);
  ir_var *v = ir_var_new(ctx, ir_format(ctx, "keys.%d", x->names++), TN_INDEX, tile->lo, tile->hi);
  const ir_stmt *s[2] = {ir_let(ctx, v, tile, cu_product_copy_one(&x->qk, &x->qk.b, v, zero, stage)), cu_product_copy_one(&x->pv, &x->pv.b, x->pv.block_n, tile, stage)};
  return ir_seq(ctx, 2, s);
}

const ir_stmt *cu_attend_block(cu_attend *x) {
  tn_ctx *ctx = x->ctx;
  ir_var *tile = x->qk.block_n;
  ix zero = ix_index(ctx, 0), stage = ix_remi(ctx, cu_attend_step(x, tile->expr), 2), next = ix_addi(ctx, tile->expr, 1);
  const ir_stmt *ahead[2] = {copy_tile(x, next), cu_sync(ctx, "cp.commit")}, *more = ir_if(ctx, ix_lt(ctx, next, x->end), ir_seq(ctx, 2, ahead), NULL);
  const ir_stmt *step[] = {cu_sync(ctx, "cp.wait 0"), cu_sync(ctx, "barrier"), more, threads(x, start_scores), x->keys(x, stage), cu_attend_softmax(x), x->values(x, stage)};
  const ir_stmt *all[] = {cu_product_copy_one(&x->qk, &x->qk.a, x->qk.block_m, zero, zero), copy_tile(x, x->begin), cu_sync(ctx, "cp.commit"), cu_attend_start(x),
                          cu_attend_tiles(x, ir_seq(ctx, IR_COUNT(step), step)), cu_attend_end(x)};
  return cu_attend_bounded(x, ir_seq(ctx, IR_COUNT(all), all));
}

/* ---- the schedule ---- */

ir_buf *cu_attend_array(cu_attend *x, const char *name, tn_dtype t, int64_t a, int64_t b, int64_t c) {
  ix n[4] = {ix_index(x->ctx, x->qk.threads), ix_index(x->ctx, a), ix_index(x->ctx, b), ix_index(x->ctx, c)};
  return ir_buf_new(x->ctx, name, t, c ? 4 : b ? 3 : 2, n, NULL, IR_LOCAL);
}

void cu_attend_arrays(cu_attend *x) {
  tn_ctx *ctx = x->ctx;
  cu_product *g = &x->qk, *h = &x->pv;
  g->block_b = h->block_b = cu_var(ctx, "block.b", g->batch.extent); /* the variables of both are the first product's */
  g->block_m = h->block_m = cu_var(ctx, "block.m", (g->a.rows.extent + x->bm - 1) / x->bm);
  h->block_n = cu_var(ctx, "block.c", 1);
  h->copies = 1000; /* names of their own */
  x->tiles = (h->sum.extent + x->bn - 1) / x->bn;
  g->block_n = cu_var(ctx, "tile", x->tiles);
  find_tiles(x);
  const char *atom = x->f32 ? "mma.m16n8k8.tf32" : g->dtype == TN_F16 ? "mma.m16n8k16.f16" : "mma.m16n8k16.bf16";
  int pack = x->f32 ? 1 : 2;
  x->s = (cu_mma){.wm = 16, .wn = x->bn, .warps_n = 1, .warps = x->own / 32, .pack = pack, .depth = 8 * pack, .atom = atom, .tf32 = x->f32};
  x->o = x->s;
  x->o.wn = h->b.block;
  int64_t wide = x->lanes * x->per;
  x->s.acc = cu_attend_array(x, "s", TN_F32, 1, x->bn / wide, x->rows * x->per);
  x->o.acc = cu_attend_array(x, "o", TN_F32, 1, h->b.block / wide, x->rows * x->per);
  if (!x->simt) x->o.fa = cu_attend_array(x, "frag.p", g->dtype, x->bn / x->o.depth, 4 * pack, 0);
  ir_buf **rows[] = {&x->m, &x->l, &x->f, &x->top, &x->near, &x->other};
  static const char *const names[] = {"top.m", "sum.l", "shrink.f", "top.now", "near", "other"};
  for (int i = 0; i < IR_COUNT(rows); i++) *rows[i] = cu_attend_array(x, names[i], TN_F32, x->rows, 0, 0);
}

const ir_stmt *cu_attend_around(cu_attend *x, const ir_stmt *s) {
  tn_ctx *ctx = x->ctx;
  ir_buf *all[] = {x->m, x->l, x->f, x->top, x->near, x->other, x->s.fa, x->s.fb, x->o.fa, x->s.acc, x->o.acc, x->qk.a.shared, x->qk.b.shared, x->pv.b.shared, x->weights};
  for (int i = 0; i < IR_COUNT(all); i++)
    if (all[i]) s = ir_alloc_stmt(ctx, all[i], s);
  return cu_loop(ctx, x->qk.block_b, IR_GRID, cu_loop(ctx, x->qk.block_m, IR_GRID, cu_loop(ctx, x->pv.block_n, IR_GRID, s)));
}

bool cu_attend_stages(cu_attend *x, const cu_target *t) {
  tn_ctx *ctx = x->ctx;
  cu_product *g = &x->qk, *h = &x->pv;
  int64_t step = x->f32 ? 8 : 16, bytes = 4096;
  g->a.block = h->a.block = x->bm;
  g->b.block = h->bk = x->bn;
  g->bk = (g->sum.extent + step - 1) / step * step;
  h->b.block = (h->b.rows.extent + 15) / 16 * 16;
  g->stages = h->stages = 2;
  g->pad = h->pad = 16 / (int)ir_dtype_bytes(g->dtype);
  g->along_k = x->f32;
  g->threads = h->threads = x->own;
  cu_product_tiles(g);
  cu_product_tiles(h);
  ix q[3] = {ix_index(ctx, 1), g->a.shared->shape[1], g->a.shared->shape[2]};
  g->a.shared = ir_buf_new(ctx, "queries", g->dtype, 3, q, NULL, IR_SHARED);
  g->b.shared = ir_buf_new(ctx, "keys", g->dtype, 3, g->b.shared->shape, NULL, IR_SHARED);
  h->b.shared = ir_buf_new(ctx, "values", h->dtype, 3, h->b.shared->shape, NULL, IR_SHARED);
  if (x->simt) x->weights = ir_buf_new(ctx, "weights", TN_F32, 2, (ix[]){ix_index(ctx, x->bm), ix_index(ctx, x->bn + 4)}, NULL, IR_SHARED);
  cu_attend_arrays(x);
  if (!x->simt) {
    x->s.fa = cu_attend_array(x, "frag.q", g->dtype, 1, 4 * x->s.pack, 0);
    x->s.fb = x->o.fb = cu_attend_array(x, "frag.b", g->dtype, 1, 4 * x->s.pack, 0);
  }
  const ir_buf *all[] = {g->a.shared, g->b.shared, h->b.shared, x->weights};
  for (int i = 0; i < IR_COUNT(all); i++) bytes += all[i] ? ix_need_const(ctx, ir_buf_elements(ctx, all[i]), all[i]->name) * (int64_t)ir_dtype_bytes(all[i]->dtype) : 0;
  return bytes <= t->shared_bytes;
}

const cu_tile *cu_schedule_attend(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *c, const char **reason) {
  cu_attend *x = IR_NEW(ctx, cu_attend);
  *x = (cu_attend){.ctx = ctx, .k = k, .keys = cu_attend_keys, .values = multiply_values};
  if (!cu_attend_of(x, reason)) return NULL;
  int64_t blocks = x->qk.batch.extent * ((x->qk.a.rows.extent + 127) / 128);
  x->bm = c->n ? c->arg[0] : blocks >= t->multiprocessors ? 128 : 64;
  x->bn = c->n > 1 ? c->arg[1] : x->pv.b.rows.extent > 128 ? 32 : 64;
  if ((c->n && c->n != 2) || x->bm < 16 || x->bm > 256 || x->bm % 16 || x->bn < 16 || x->bn > 128 || x->bn % 16) return *reason = "attend: BM BN, which do not fit", NULL;
  x->own = 2 * x->bm;
  if (!cu_attend_stages(x, t)) return *reason = "attend: more shared memory than a block has", NULL;
  const ir_stmt *s = cu_attend_around(x, cu_attend_block(x));
  return cu_tile_new(ctx, k, s, (int)x->own, ir_format(ctx, "attend %lld %lld", (long long)x->bm, (long long)x->bn));
}
