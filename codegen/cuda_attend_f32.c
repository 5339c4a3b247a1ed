/* cuda_attend_f32.c — attention of f32 in one launch, around the softmax of cuda_attend.c:
 *
 *   attend.simt BM BN TM   FMA on plain threads. A row is in 16 lanes, so that half a warp has whole rows: its weights go
 *                          through shared memory to its own lanes, and warps need not wait for each other.
 *   attend.tf32 BM BN      mma.m16n8k8.tf32, 16 rows a warp, only when it is asked for. An accumulator's two columns, 2 t and 2 t + 1,
 *                          are A's elements t and t + 4 of k as they are when B's rows are taken in the same order. */
#include "codegen/cuda_attend.h"

enum { LANES = 16 };

static ix nought(const cu_attend *x) { return ix_index(x->ctx, 0); }

/* ---- FMA ---- */

/* acc[row e, column n] += a(e) b(n), of step k, by each thread. */
typedef ix (*factor)(cu_attend *x, ix t, ix stage, ix at, ix k);

static ix query(cu_attend *x, ix t, ix stage, ix e, ix k) { return cu_product_at(&x->qk, &x->qk.a, nought(x), cu_attend_row(x, t, e), k); }
static ix key(cu_attend *x, ix t, ix stage, ix n, ix k) { return cu_product_at(&x->qk, &x->qk.b, stage, cu_attend_column(x, t, n, nought(x)), k); }
static ix weight(cu_attend *x, ix t, ix stage, ix e, ix k) { return ix_load(x->ctx, x->weights, (ix[]){cu_attend_row(x, t, e), k}); }
static ix value(cu_attend *x, ix t, ix stage, ix n, ix k) { return cu_product_at(&x->pv, &x->pv.b, stage, cu_attend_column(x, t, n, nought(x)), k); }

static const ir_stmt *multiply(cu_attend *x, ir_buf *acc, int64_t columns, int64_t steps, ix stage, factor a, factor b) {
  tn_ctx *ctx = x->ctx;
  ir_var *t = cu_attend_var(x, "t", x->own), *k = cu_attend_var(x, "k", steps), *n = cu_attend_var(x, "n", columns / LANES), *e = cu_attend_var(x, "e", x->rows);
  ix at[4] = {t->expr, nought(x), n->expr, e->expr};
  ix sum = ix_fma(ctx, a(x, t->expr, stage, e->expr, k->expr), b(x, t->expr, stage, n->expr, k->expr), ix_load(ctx, acc, at));
  const ir_stmt *s = cu_loop(ctx, n, IR_UNROLL, cu_loop(ctx, e, IR_UNROLL, ir_store(ctx, acc, at, IR_SET, sum)));
  return cu_loop(ctx, t, IR_LANE, cu_loop(ctx, k, IR_SERIAL, s)); /* the printer unrolls by four: neighbours are loaded together */
}

static const ir_stmt *simt_keys(cu_attend *x, ix stage) { return multiply(x, x->s.acc, x->bn, x->qk.bk, stage, query, key); }

static const ir_stmt *simt_values(cu_attend *x, ix stage) {
  const ir_stmt *s[2] = {cu_loop(x->ctx, cu_attend_var(x, "w", x->own / 32), IR_WARP, cu_sync(x->ctx, "warp.sync")), multiply(x, x->o.acc, x->pv.b.block, x->bn, stage, weight, value)};
  return ir_seq(x->ctx, 2, s);
}

static const ir_stmt *simt_pack(cu_attend *x, ix t) {
  tn_ctx *ctx = x->ctx;
  ir_var *n = cu_attend_var(x, "n", x->bn / LANES), *e = cu_attend_var(x, "e", x->rows);
  ix to[2] = {cu_attend_row(x, t, e->expr), cu_attend_column(x, t, n->expr, nought(x))};
  const ir_stmt *s = ir_store(ctx, x->weights, to, IR_SET, ix_load(ctx, x->s.acc, (ix[]){t, nought(x), n->expr, e->expr}));
  return cu_loop(ctx, n, IR_UNROLL, cu_loop(ctx, e, IR_UNROLL, s));
}

static cu_attend *attention(tn_ctx *ctx, const ir_kernel *k, const char **reason) {
  cu_attend *x = IR_NEW(ctx, cu_attend);
  *x = (cu_attend){.ctx = ctx, .k = k, .f32 = true};
  return cu_attend_of(x, reason) ? x : NULL;
}

static const cu_tile *made(cu_attend *x, const char *choice) {
  cu_tile *tile = (cu_tile *)cu_tile_new(x->ctx, x->k, cu_attend_around(x, cu_attend_block(x)), (int)x->own, choice);
  tile->blocks = 1; /* else ptxas spills for the sake of more */
  return tile;
}

/* Where the results of a row are many, fewer rows; keys so that two blocks have room. */
static void simt_default(const cu_attend *x, const cu_target *t, int64_t c[3]) {
  int64_t wide = x->p.depth > x->p.columns ? x->p.depth : x->p.columns, blocks = x->qk.batch.extent * ((x->p.queries + 63) / 64);
  c[0] = blocks >= t->multiprocessors && wide <= 128 ? 64 : x->p.queries > 16 ? 32 : 16;
  c[2] = c[0] < 64 ? 4 : 8;
  for (c[1] = 64; c[1] > 16 && 4 * (c[0] * (wide + c[1]) + 4 * c[1] * wide) > t->shared_bytes * 2 / 5; c[1] /= 2) continue;
}

const cu_tile *cu_schedule_attend_simt(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *c, const char **reason) {
  cu_attend *x = attention(ctx, k, reason);
  if (!x) return NULL;
  int64_t own[3] = {c->arg[0], c->arg[1], c->arg[2]};
  if (!c->n) simt_default(x, t, own);
  x->bm = own[0], x->bn = own[1];
  if ((c->n && c->n != 3) || x->bm < 16 || x->bm > 256 || x->bn < 16 || x->bn > 128 || x->bn % 16 || own[2] < 1 || own[2] > 16 || x->bm % (2 * own[2])) return *reason = "attend.simt: BM BN TM, which do not fit", NULL;
  x->lanes = LANES, x->per = 1, x->rows = own[2];
  x->own = x->bm / x->rows * LANES;
  if (x->own > 1024 || x->rows * (x->bn + x->p.columns) / LANES > 160) return *reason = "attend.simt: more sums than registers", NULL;
  x->simt = true;
  x->keys = simt_keys, x->values = simt_values, x->pack = simt_pack;
  if (!cu_attend_stages(x, t)) return *reason = "attend.simt: more shared memory than a block has", NULL;
  return made(x, ir_format(ctx, "attend.simt %lld %lld %lld", (long long)x->bm, (long long)x->bn, (long long)x->rows));
}

/* ---- TF32 ---- */

static const ir_stmt *tf32_pack(cu_attend *x, ix t) {
  tn_ctx *ctx = x->ctx;
  ir_var *p = cu_attend_var(x, "p", x->bn / 8), *r = cu_attend_var(x, "r", 4);
  ix e = ix_add(ctx, ix_muli(ctx, ix_remi(ctx, r->expr, 2), 2), ix_divi(ctx, r->expr, 2));
  const ir_stmt *s = ir_store(ctx, x->o.fa, (ix[]){t, p->expr, r->expr}, IR_SET, ix_load(ctx, x->s.acc, (ix[]){t, nought(x), p->expr, e}));
  return cu_loop(ctx, p, IR_UNROLL, cu_loop(ctx, r, IR_UNROLL, ir_tile(ctx, "frag.pack", s)));
}

/* Two tiles of 8 columns from 8 keys: lane l has keys 2 t and 2 t + 1 as elements t and t + 4 of k, t = l mod 4. */
static const ir_stmt *load_values(cu_attend *x, ix w, ix key0, ix column0, ix stage) {
  tn_ctx *ctx = x->ctx;
  ir_var *l = cu_attend_var(x, "l", 32), *r = cu_attend_var(x, "r", 4);
  ix k = ix_add(ctx, key0, ix_add(ctx, ix_muli(ctx, ix_remi(ctx, l->expr, 4), 2), ix_remi(ctx, r->expr, 2)));
  ix n = ix_add(ctx, column0, ix_add(ctx, ix_muli(ctx, ix_divi(ctx, r->expr, 2), 8), ix_divi(ctx, l->expr, 4)));
  ix to[3] = {ix_add(ctx, ix_muli(ctx, w, 32), l->expr), nought(x), r->expr};
  return cu_loop(ctx, l, IR_LANE, cu_loop(ctx, r, IR_UNROLL, ir_tile(ctx, "frag.pack", ir_store(ctx, x->o.fb, to, IR_SET, cu_product_at(&x->pv, &x->pv.b, stage, n, k)))));
}

static const ir_stmt *tf32_values(cu_attend *x, ix stage) {
  tn_ctx *ctx = x->ctx;
  ir_var *w = cu_attend_var(x, "w", x->o.warps), *k = cu_attend_var(x, "k", x->bn / 8), *nb = cu_attend_var(x, "nb", x->pv.b.block / 16), *half = cu_attend_var(x, "half", 2);
  ix nj = ix_add(ctx, ix_muli(ctx, nb->expr, 2), half->expr);
  const ir_stmt *s[2] = {load_values(x, w->expr, ix_muli(ctx, k->expr, 8), ix_muli(ctx, nb->expr, 16), stage), cu_loop(ctx, half, IR_UNROLL, cu_mma_multiply(ctx, &x->o, w->expr, k->expr, nought(x), nought(x), nj))};
  return cu_loop(ctx, w, IR_WARP, cu_loop(ctx, k, IR_UNROLL, cu_loop(ctx, nb, IR_UNROLL, ir_seq(ctx, 2, s))));
}

const cu_tile *cu_schedule_attend_tf32(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *c, const char **reason) {
  if (!c->n) return *reason = "TF32 rounds its operands: only when it is asked for", NULL;
  cu_attend *x = attention(ctx, k, reason);
  if (!x) return NULL;
  x->bm = c->arg[0], x->bn = c->arg[1];
  if (c->n != 2 || x->bm < 16 || x->bm > 256 || x->bm % 16 || x->bn < 16 || x->bn > 128 || x->bn % 16) return *reason = "attend.tf32: BM BN, which do not fit", NULL;
  x->own = 2 * x->bm;
  x->keys = cu_attend_keys, x->values = tf32_values, x->pack = tf32_pack;
  if (!cu_attend_stages(x, t)) return *reason = "attend.tf32: more shared memory than a block has", NULL;
  return made(x, ir_format(ctx, "attend.tf32 %lld %lld", (long long)x->bm, (long long)x->bn));
}
