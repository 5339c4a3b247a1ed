/* cuda_attend_group.c — attention by warpgroups (sm_90a), after FlashAttention-3 (Shah et al., 2024): a producer brings
 * queries, keys and values through the TMA unit; each consumer has 64 rows, scores in registers, weights as A of the second
 * product from registers.
 *
 *   producer:  queries; for tile: { wait kempty[s]; keys -> kfull[s]; wait vempty[s]; values -> vfull[s] }
 *   consumers: wait queries; for tile: {
 *                wait kfull[s]; S = Q K' (wgmma); free kempty[s]
 *                softmax on S                                       the other consumers' products run meanwhile
 *                wait vfull[s]; O += P V (wgmma.rs); free vempty[s] }
 *
 * Tiles are rows of 64 elements in the 128-byte swizzle; heads of more have several such tiles one after another. Keys are
 * read along the head, values across their rows. */
#include "codegen/cuda_attend.h"
#include "codegen/cuda_tma.h"

enum { ROW = CU_TILE_BYTES / 2, DEPTH = 16 }; /* elements of a row of shared memory, along k of an instruction */

typedef struct group {
  cu_attend x;
  cu_product vk;           /* values as rows of keys along columns */
  cu_operand v;
  int64_t n, stages;       /* consumers */
  int64_t qchunks, vchunks; /* tiles of ROW columns */
  ir_buf *qfull, *kfull, *vfull, *kempty, *vempty; /* empty: null where no stage is filled twice */
  cu_side side[3];
} group;

#define REFUSE(text) return *reason = (text), false

static ix zero(const group *w) { return ix_index(w->x.ctx, 0); }
static ix at(const group *w, ir_buf *bars, ix stage) { return ix_load(w->x.ctx, bars, &stage); }
static ix stage_of(group *w, ix tile) { return ix_remi(w->x.ctx, cu_attend_step(&w->x, tile), w->stages); }
static ix parity(group *w, ix tile, int add) { return ix_remi(w->x.ctx, ix_addi(w->x.ctx, ix_divi(w->x.ctx, cu_attend_step(&w->x, tile), w->stages), add), 2); }
static const ir_stmt *wait_for(const group *w, ir_buf *bars, ix stage, ix turn) { return cu_operation(w->x.ctx, "mbar.wait", at(w, bars, stage), 1, &turn, NULL); }

/* ---- the producer ---- */

/* Chunk after chunk of ROW elements of an operand's rows into tiles from number `to` on. */
static bool bring(group *w, cu_product *g, const cu_operand *o, const ir_var *block, int64_t chunks, ix to, ir_buf *bars, ix stage, int number, const ir_stmt **s, const char **reason) {
  tn_ctx *ctx = w->x.ctx;
  cu_place p = {.rows = ix_muli(ctx, block->expr, o->block), .box = o->block, .outer = zero(w), .batch = w->x.qk.block_b->expr};
  const ir_stmt *all[8];
  int n = 0;
  all[n++] = cu_operation(ctx, ir_format(ctx, "mbar.expect %lld", (long long)(chunks * o->block * ROW * 2)), at(w, bars, stage), 0, NULL, NULL);
  for (int64_t c = 0; c < chunks; c++) {
    p.inner = ix_index(ctx, c * ROW);
    if (!cu_tma_operand(g, o, &w->side[number], &p, reason)) return false;
    if (w->side[number].map.pixels) REFUSE("rows that are pixels");
    cu_box box = {.first = p.rows, .to = zero(w), .rows = o->block, .outer = zero(w), .inner = p.inner, .stage = ix_addi(ctx, to, c)};
    all[n++] = cu_operation(ctx, ir_format(ctx, "tma.load %d", number), at(w, bars, stage), w->side[number].map.rank, w->side[number].at, cu_product_box(g, o, &box));
  }
  *s = ir_seq(ctx, n, all);
  return true;
}

static const ir_stmt *by_producer(group *w, const ir_stmt *s) {
  ir_var *role = ir_var_new(w->x.ctx, ir_format(w->x.ctx, "producer.%u", ir_next_id(w->x.ctx)), TN_INDEX, w->n, w->n);
  return cu_loop(w->x.ctx, role, IR_WARPGROUP, cu_elected(w->x.ctx, s));
}

static bool producer(group *w, const ir_stmt **queries, const ir_stmt **tiles, const char **reason) {
  tn_ctx *ctx = w->x.ctx;
  const ir_var *tile = w->x.qk.block_n;
  ix stage = stage_of(w, tile->expr);
  const ir_stmt *s[4] = {0};
  if (!bring(w, &w->x.qk, &w->x.qk.a, w->x.qk.block_m, w->qchunks, zero(w), w->qfull, zero(w), 0, queries, reason)) return false;
  if (w->kempty) s[0] = wait_for(w, w->kempty, stage, parity(w, tile->expr, 1));
  if (!bring(w, &w->x.qk, &w->x.qk.b, tile, w->qchunks, ix_muli(ctx, stage, w->qchunks), w->kfull, stage, 1, &s[1], reason)) return false;
  if (w->vempty) s[2] = wait_for(w, w->vempty, stage, parity(w, tile->expr, 1));
  if (!bring(w, &w->vk, &w->v, tile, w->vchunks, ix_muli(ctx, stage, w->vchunks), w->vfull, stage, 2, &s[3], reason)) return false;
  *queries = by_producer(w, *queries);
  *tiles = by_producer(w, ir_seq(ctx, 4, s));
  return true;
}

/* ---- the consumers ---- */

static ix thread_at(tn_ctx *ctx, ix g, ix i, ix column) {
  ix lane = ix_add(ctx, ix_muli(ctx, ix_remi(ctx, i, 8), 4), ix_divi(ctx, ix_remi(ctx, column, 8), 2));
  return ix_add(ctx, ix_muli(ctx, g, 128), ix_add(ctx, ix_muli(ctx, ix_divi(ctx, i, 16), 32), lane));
}

static ix sum_at(tn_ctx *ctx, ir_buf *acc, ix g, ix i, ix j, ix at[4]) {
  at[0] = thread_at(ctx, g, i, j);
  at[1] = ix_index(ctx, 0);
  at[2] = ix_divi(ctx, j, 8);
  at[3] = ix_add(ctx, ix_muli(ctx, ix_remi(ctx, ix_divi(ctx, i, 8), 2), 2), ix_remi(ctx, j, 2));
  return ix_load(ctx, acc, at);
}

static const char *type_of(const group *w) { return w->x.qk.dtype == TN_F16 ? "f16" : "bf16"; }

/* S (+)= 16 columns from k0 on of queries by keys. */
static const ir_stmt *keys_step(group *w, ix g, ix stage, int64_t chunk, int64_t k0) {
  tn_ctx *ctx = w->x.ctx;
  cu_product *q = &w->x.qk;
  uint32_t id = ir_next_id(ctx);
  bool first = !chunk && !k0;
  ir_var *i = cu_var(ctx, ir_format(ctx, "wg.i.%u", id), 64), *j = cu_var(ctx, ir_format(ctx, "wg.j.%u", id), w->x.bn), *k = cu_var(ctx, ir_format(ctx, "wg.k.%u", id), DEPTH);
  ix to[4], old = sum_at(ctx, w->x.s.acc, g, i->expr, j->expr, to), at_k = ix_addi(ctx, k->expr, k0);
  if (first) old = ix_select(ctx, ix_eq(ctx, k->expr, zero(w)), ix_float(ctx, TN_F32, 0), old);
  ix a = ix_load(ctx, q->a.shared, (ix[]){ix_index(ctx, chunk), ix_add(ctx, ix_muli(ctx, g, 64), i->expr), at_k});
  ix b = ix_load(ctx, q->b.shared, (ix[]){ix_addi(ctx, ix_muli(ctx, stage, w->qchunks), chunk), j->expr, at_k});
  const ir_stmt *s = ir_store(ctx, w->x.s.acc, to, IR_SET, ix_fma(ctx, ix_cast(ctx, TN_F32, a), ix_cast(ctx, TN_F32, b), old));
  return ir_tile(ctx, ir_format(ctx, "wgmma.%sm64n%lldk16.%s", first ? "set." : "", (long long)w->x.bn, type_of(w)), cu_loop(ctx, i, IR_SERIAL, cu_loop(ctx, j, IR_SERIAL, cu_loop(ctx, k, IR_SERIAL, s))));
}

static const ir_stmt *multiply_keys(group *w, ix g, ix stage) {
  tn_ctx *ctx = w->x.ctx;
  const ir_stmt *s[2 + 4 * ROW / DEPTH];
  int n = 0;
  s[n++] = cu_sync(ctx, "wg.fence");
  for (int64_t k = 0; k < w->x.p.depth; k += DEPTH) s[n++] = keys_step(w, g, stage, k / ROW, k % ROW);
  s[n++] = cu_sync(ctx, "wg.commit");
  return ir_seq(ctx, n, s);
}

/* O += the weights of 16 keys by their values. */
static const ir_stmt *multiply_values(group *w, ix g, ix stage) {
  tn_ctx *ctx = w->x.ctx;
  int64_t wide = w->x.pv.b.block;
  ir_var *step = cu_var(ctx, "key.step", w->x.bn / DEPTH), *i = cu_var(ctx, "pv.i", 64), *j = cu_var(ctx, "pv.j", wide), *k = cu_var(ctx, "pv.k", DEPTH);
  ix to[4], old = sum_at(ctx, w->x.o.acc, g, i->expr, j->expr, to);
  ix word = ix_add(ctx, ix_muli(ctx, ix_divi(ctx, k->expr, 8), 2), ix_remi(ctx, ix_divi(ctx, i->expr, 8), 2));
  ix a = ix_load(ctx, w->x.o.fa, (ix[]){thread_at(ctx, g, i->expr, k->expr), step->expr, ix_add(ctx, ix_muli(ctx, word, 2), ix_remi(ctx, k->expr, 2))});
  ix b = ix_load(ctx, w->x.pv.b.shared, (ix[]){ix_add(ctx, ix_muli(ctx, stage, w->vchunks), ix_divi(ctx, j->expr, ROW)), ix_add(ctx, ix_muli(ctx, step->expr, DEPTH), k->expr), ix_remi(ctx, j->expr, ROW)});
  const ir_stmt *s = ir_store(ctx, w->x.o.acc, to, IR_SET, ix_fma(ctx, ix_cast(ctx, TN_F32, a), ix_cast(ctx, TN_F32, b), old));
  s = ir_tile(ctx, ir_format(ctx, "wgmma.rs.m64n%lldk16.%s", (long long)wide, type_of(w)), cu_loop(ctx, i, IR_SERIAL, cu_loop(ctx, j, IR_SERIAL, cu_loop(ctx, k, IR_SERIAL, s))));
  const ir_stmt *all[3] = {cu_sync(ctx, "wg.fence"), cu_loop(ctx, step, IR_UNROLL, s), cu_sync(ctx, "wg.commit")};
  return ir_seq(ctx, 3, all);
}

static const ir_stmt *leave(group *w, ir_buf *bars, ix stage) {
  tn_ctx *ctx = w->x.ctx;
  if (!bars) return NULL;
  ir_var *warp = cu_var(ctx, ir_format(ctx, "free.%u", ir_next_id(ctx)), 4), *lane = cu_var(ctx, ir_format(ctx, "free.%u", ir_next_id(ctx)), 1);
  const ir_stmt *both[2] = {cu_sync(ctx, "warp.sync"), cu_loop(ctx, lane, IR_LANE, cu_operation(ctx, "mbar.arrive", at(w, bars, stage), 0, NULL, NULL))};
  return cu_loop(ctx, warp, IR_WARP, ir_seq(ctx, 2, both));
}

static const ir_stmt *consumers(group *w, const char *name, const ir_stmt *(*body)(group *w, ix g, ix tile)) {
  ir_var *g = cu_var(w->x.ctx, name, w->n);
  return cu_loop(w->x.ctx, g, IR_WARPGROUP, body(w, g->expr, w->x.qk.block_n->expr));
}

static const ir_stmt *scores(group *w, ix g, ix tile) {
  tn_ctx *ctx = w->x.ctx;
  ix stage = stage_of(w, tile);
  const ir_stmt *s[5] = {wait_for(w, w->kfull, stage, parity(w, tile, 0)), multiply_keys(w, g, stage), cu_sync(ctx, "wg.wait 0"), cu_sync(ctx, "hold"), leave(w, w->kempty, stage)};
  return ir_seq(ctx, 5, s);
}

static const ir_stmt *values(group *w, ix g, ix tile) {
  tn_ctx *ctx = w->x.ctx;
  ix stage = stage_of(w, tile);
  const ir_stmt *s[6] = {wait_for(w, w->vfull, stage, parity(w, tile, 0)), cu_sync(ctx, "hold"), multiply_values(w, g, stage), cu_sync(ctx, "wg.wait 0"), cu_sync(ctx, "hold"), leave(w, w->vempty, stage)};
  return ir_seq(ctx, 6, s);
}

static const ir_stmt *await_queries(group *w, ix g, ix tile) { return wait_for(w, w->qfull, zero(w), zero(w)); }

/* ---- the schedule ---- */

static ir_buf *swizzled(group *w, const char *name, int64_t tiles, int64_t rows) {
  tn_ctx *ctx = w->x.ctx;
  return ir_buf_new(ctx, name, w->x.qk.dtype, 3, (ix[]){ix_index(ctx, tiles), ix_index(ctx, rows), ix_index(ctx, ROW)}, ir_layout_parse(ctx, "split 2 8; xor 2 1 8"), IR_SHARED);
}

static ir_buf *barriers(group *w, const char *name, int64_t n) { return ir_buf_new(w->x.ctx, name, TN_I64, 1, (ix[]){ix_index(w->x.ctx, n)}, NULL, IR_SHARED); }

static const ir_stmt *init(group *w, ir_buf *b, int64_t arrivals) {
  tn_ctx *ctx = w->x.ctx;
  if (!b) return NULL;
  ir_var *i = ir_var_new(ctx, ir_format(ctx, "%s.i", b->name), TN_INDEX, 0, b->shape[0]->hi - 1);
  return cu_loop(ctx, i, IR_SERIAL, ir_tile(ctx, ir_format(ctx, "mbar.init %lld", (long long)arrivals), ir_store(ctx, b, &i->expr, IR_SET, ix_int(ctx, TN_I64, 0))));
}

static void tiles_of(group *w) {
  cu_attend *x = &w->x;
  cu_product *g = &x->qk, *h = &x->pv;
  g->a.block = h->a.block = x->bm;
  g->b.block = x->bn;
  g->bk = ROW;
  h->b.block = (x->p.columns + 15) / 16 * 16;
  w->qchunks = (x->p.depth + ROW - 1) / ROW;
  w->vchunks = (h->b.block + ROW - 1) / ROW;
  g->threads = h->threads = 128 * (w->n + 1);
  x->own = 128 * w->n;
  cu_attend_arrays(x);
  g->a.shared = swizzled(w, "queries", w->qchunks, x->bm);
  g->b.shared = swizzled(w, "keys", w->stages * w->qchunks, x->bn);
  h->b.shared = swizzled(w, "values", w->stages * w->vchunks, x->bn);
  w->vk = *h;
  w->vk.sum = h->b.rows;
  w->vk.bk = ROW;
  w->v = h->b;
  w->v.rows = h->sum;
  w->v.block = x->bn;
  w->qfull = barriers(w, "queries.full", 1);
  w->kfull = barriers(w, "keys.full", w->stages);
  w->vfull = barriers(w, "values.full", w->stages);
  if (x->tiles <= w->stages) return;
  w->kempty = barriers(w, "keys.empty", w->stages);
  w->vempty = barriers(w, "values.empty", w->stages);
}

static const ir_stmt *block(group *w, const cu_target *t, const char **reason) {
  cu_attend *x = &w->x;
  tn_ctx *ctx = x->ctx;
  const ir_stmt *queries, *tiles;
  if (!producer(w, &queries, &tiles, reason)) return NULL;
  const ir_stmt *step[4] = {tiles, consumers(w, "scores.g", scores), cu_attend_softmax(x), consumers(w, "values.g", values)};
  const ir_stmt *run[5] = {queries, cu_attend_start(x), consumers(w, "queries.g", await_queries), cu_attend_tiles(x, ir_seq(ctx, 4, step)), cu_attend_end(x)};
  const ir_stmt *start[6] = {init(w, w->qfull, 1), init(w, w->kfull, 1), init(w, w->vfull, 1), init(w, w->kempty, 4 * w->n), init(w, w->vempty, 4 * w->n), cu_sync(ctx, "fence.proxy")};
  int64_t most = (t->registers / 128 - 24) / w->n / 8 * 8;
  const char *roles = w->n == 1 ? "roles 128 0 0" : ir_format(ctx, "roles %lld %lld 24", (long long)w->n * 128, (long long)(most > 240 ? 240 : most));
  const ir_stmt *all[3] = {cu_loop(ctx, cu_var(ctx, "first", 1), IR_LANE, ir_seq(ctx, 6, start)), cu_sync(ctx, "barrier"), ir_tile(ctx, roles, ir_seq(ctx, 5, run))}, *s = cu_attend_bounded(x, ir_seq(ctx, 3, all));
  ir_buf *bars[] = {w->qfull, w->kfull, w->vfull, w->kempty, w->vempty};
  for (int i = 0; i < IR_COUNT(bars); i++)
    if (bars[i]) s = ir_alloc_stmt(ctx, bars[i], s);
  return cu_attend_around(x, s);
}

const cu_tile *cu_schedule_attend_group(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *c, const char **reason) {
  group *w = IR_NEW(ctx, group);
  *w = (group){.x = {.ctx = ctx, .k = k}};
  cu_attend *x = &w->x;
  if (!t->hopper) return *reason = "warpgroups are of sm_90a", NULL;
  if (!cu_attend_of(x, reason)) return NULL;
  if (!c->n && (x->p.queries < 64 || x->p.keys < 64)) return *reason = "too few queries or keys for warpgroups", NULL;
  int64_t blocks = x->qk.batch.extent * ((x->p.queries + 127) / 128), wide = x->p.depth > x->p.columns ? x->p.depth : x->p.columns;
  x->bm = c->n ? c->arg[0] : blocks >= t->multiprocessors ? 128 : 64;
  x->bn = c->n > 1 ? c->arg[1] : wide > 128 || x->p.keys < 128 ? 64 : 128;
  w->stages = c->n > 2 ? c->arg[2] : 2;
  w->n = x->bm / 64;
  if ((c->n && c->n != 3) || x->bm < 64 || x->bm % 64 || x->bm > 256 || x->bn < 16 || x->bn > 256 || x->bn % 16 || w->stages < 2 || w->stages > 6) return *reason = "attend.group: BM BN STAGES, which do not fit", NULL;
  if ((x->bn / 2 + x->bn / 4 + (x->p.columns + 15) / 16 * 8 + 40) * w->n > t->registers / 128 - 24) return *reason = "attend.group: more sums than registers", NULL;
  tiles_of(w);
  int64_t tile = ROW * 2, bytes = tile * (w->qchunks * x->bm + w->stages * x->bn * (w->qchunks + w->vchunks)) + 4096;
  if (bytes > t->shared_bytes) return *reason = "attend.group: more shared memory than a block has", NULL;
  const ir_stmt *s = block(w, t, reason);
  if (!s) return NULL;
  cu_tile *made = (cu_tile *)cu_tile_new(ctx, k, s, (int)x->qk.threads, ir_format(ctx, "attend.group %lld %lld %lld", (long long)x->bm, (long long)x->bn, (long long)w->stages));
  cu_map *m = IR_NEW_ARRAY(ctx, cu_map, 3);
  for (int i = 0; i < 3; i++) m[i] = w->side[i].map;
  made->maps = m;
  made->nmaps = 3;
  return made;
}
