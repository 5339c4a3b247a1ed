/* cuda_wgmma.c — products of f16, bf16 and 8-bit floats by warpgroups (sm_90a): BM x BN a block, 64 rows a warpgroup, both operands read
 * from shared memory by wgmma. Tiles are rows of 128 bytes along k with the 128-byte swizzle (16-byte piece number xor
 * row mod 8), filled by asynchronous copies of 16 bytes.
 *
 * Order of a step: copies waited for, made visible to the asynchronous proxy, barrier, next copies, products, and their
 * wait: the barrier of the next step then lets the stage be overwritten. Accumulators lie as PTX's "Register Fragments for
 * wgmma .m64nNk16" says. An instruction takes 32 bytes of k: 16 elements of 16 bits, 32 of 8. */
#include "codegen/cuda_product.h"

enum { PIECE = 32 }; /* bytes of k of an instruction */

ir_var *cu_groups_var(tn_ctx *ctx, const cu_groups *x, const char *name) { return ir_var_new(ctx, name, TN_INDEX, x->first, x->first + x->n - 1); }

static ix in_cluster(tn_ctx *ctx, const cu_groups *x, ix thread) { return x->base ? ix_add(ctx, x->base, thread) : thread; }

static ix thread_of(tn_ctx *ctx, ix group, ix i, ix j) {
  ix lane = ix_add(ctx, ix_muli(ctx, ix_remi(ctx, i, 8), 4), ix_divi(ctx, ix_remi(ctx, j, 8), 2));
  return ix_add(ctx, ix_muli(ctx, group, 128), ix_add(ctx, ix_muli(ctx, ix_divi(ctx, i, 16), 32), lane));
}

static ix element_of(tn_ctx *ctx, ix i, ix j) {
  return ix_add(ctx, ix_muli(ctx, ix_divi(ctx, j, 8), 4), ix_add(ctx, ix_muli(ctx, ix_remi(ctx, ix_divi(ctx, i, 8), 2), 2), ix_remi(ctx, j, 2)));
}

const ir_stmt *cu_groups_multiply(cu_product *g, const cu_groups *x, ix group, ix stage) {
  tn_ctx *ctx = g->ctx;
  int64_t depth = PIECE / (int64_t)ir_dtype_bytes(g->dtype);
  ir_var *kin = cu_var(ctx, "k.in", g->bk / depth);
  ir_var *i = cu_var(ctx, "wg.i", 64), *j = cu_var(ctx, "wg.j", g->b.block), *k = cu_var(ctx, "wg.k", depth);
  ix at[2] = {in_cluster(ctx, x, thread_of(ctx, group, i->expr, j->expr)), element_of(ctx, i->expr, j->expr)};
  ix at_k = ix_add(ctx, ix_muli(ctx, kin->expr, depth), k->expr);
  ix a = ix_cast(ctx, TN_F32, cu_product_at(g, &g->a, stage, ix_add(ctx, ix_muli(ctx, ix_addi(ctx, group, -x->first), 64), i->expr), at_k));
  ix b = ix_cast(ctx, TN_F32, cu_product_at(g, &g->b, stage, j->expr, at_k));
  const ir_stmt *s = ir_store(ctx, x->acc, at, IR_SET, ix_fma(ctx, a, b, ix_load(ctx, x->acc, at)));
  s = ir_tile(ctx, x->atom, cu_loop(ctx, i, IR_SERIAL, cu_loop(ctx, j, IR_SERIAL, cu_loop(ctx, k, IR_SERIAL, s))));
  const ir_stmt *parts[3] = {cu_sync(ctx, "wg.fence"), cu_loop(ctx, kin, IR_UNROLL, s), cu_sync(ctx, "wg.commit")};
  return ir_seq(ctx, 3, parts);
}

static const ir_stmt *step(cu_product *g, ix stage, void *user) {
  cu_groups *x = user;
  ir_var *wg = cu_var(g->ctx, "group", x->n);
  const ir_stmt *parts[2] = {cu_groups_multiply(g, x, wg->expr, stage), cu_sync(g->ctx, "wg.wait 0")};
  return cu_loop(g->ctx, wg, IR_WARPGROUP, ir_seq(g->ctx, 2, parts));
}

void cu_groups_element(tn_ctx *ctx, ix t, ix n, ix e, ix at[2]) {
  ix lane = ix_remi(ctx, t, 32);
  at[0] = ix_add(ctx, ix_muli(ctx, ix_divi(ctx, t, 32), 16), ix_add(ctx, ix_divi(ctx, lane, 4), ix_muli(ctx, ix_divi(ctx, e, 2), 8)));
  at[1] = ix_add(ctx, ix_muli(ctx, n, 8), ix_add(ctx, ix_muli(ctx, ix_remi(ctx, lane, 4), 2), ix_remi(ctx, e, 2)));
}

static const ir_stmt *each_sum(cu_product *g, const cu_groups *x, const char *name, bool end) {
  tn_ctx *ctx = g->ctx;
  ir_var *t = ir_var_new(ctx, ir_format(ctx, "%s.t", name), TN_INDEX, 128 * x->first, 128 * (x->first + x->n) - 1), *n = cu_var(ctx, ir_format(ctx, "%s.n", name), g->b.block / 8), *e = cu_var(ctx, ir_format(ctx, "%s.e", name), 4);
  ix at[2] = {in_cluster(ctx, x, t->expr), ix_add(ctx, ix_muli(ctx, n->expr, 4), e->expr)}, place[2];
  cu_groups_element(ctx, ix_addi(ctx, t->expr, -128 * x->first), n->expr, e->expr, place);
  const ir_stmt *s = end ? cu_product_store(g, place[0], place[1], ix_load(ctx, x->acc, at)) : ir_store(ctx, x->acc, at, IR_SET, g->init);
  return cu_loop(ctx, t, IR_LANE, cu_loop(ctx, n, IR_UNROLL, cu_loop(ctx, e, IR_UNROLL, s)));
}

const ir_stmt *cu_groups_start(cu_product *g, const cu_groups *x) { return each_sum(g, x, "set", false); }
const ir_stmt *cu_groups_end(cu_product *g, const cu_groups *x) { return each_sum(g, x, "end", true); }

cu_choice cu_groups_choice(const cu_target *t, const cu_product *g) {
  static const int64_t rows[][3] = {{128, 256, 4}, {128, 128, 4}, {64, 128, 4}, {64, 64, 4}};
  cu_choice c = {.n = 3};
  for (int i = 0; i < IR_COUNT(rows); i++) {
    int64_t m = (g->a.rows.extent + rows[i][0] - 1) / rows[i][0], n = (g->b.rows.extent + rows[i][1] - 1) / rows[i][1];
    for (int k = 0; k < 3; k++) c.arg[k] = rows[i][k];
    if (m * n * g->batch.extent >= t->multiprocessors) break;
  }
  return c;
}

#define REFUSE(text) return *reason = (text), false

bool cu_groups_of(cu_product *g, const cu_target *t, cu_groups *x, int64_t extra_threads, const char **reason) {
  const char *name = g->acc->dtype == TN_F32 ? cu_tensor_core_type(g) : NULL;
  if (!name) REFUSE("wgmma is for f16, bf16, f8e4m3fn and f8e5m2 with sums of f32 here");
  g->bk = CU_TILE_BYTES / (int64_t)ir_dtype_bytes(g->dtype);
  g->along_k = g->swizzle = true;
  if (!g->a.block || g->a.block % 64 || g->a.block > 256 || g->b.block < 16 || g->b.block % 16 || g->b.block > 256 || g->stages < 2 || g->stages > 8) REFUSE("BM BN STAGES, which do not fit");
  *x = (cu_groups){.n = g->a.block / 64};
  x->threads = g->threads = 128 * x->n + extra_threads;
  x->atom = ir_format(g->ctx, "wgmma.m64n%lldk%d.%s", (long long)g->b.block, PIECE / (int)ir_dtype_bytes(g->dtype), name);
  cu_product_tiles(g);
  if (cu_product_shared_bytes(g) > t->shared_bytes) REFUSE("more shared memory than a block has");
  x->acc = ir_buf_new(g->ctx, "sum", TN_F32, 2, (ix[]){ix_index(g->ctx, x->threads * (g->cluster ? g->cluster : 1)), ix_index(g->ctx, g->b.block / 2)}, NULL, IR_LOCAL);
  return true;
}

const cu_tile *cu_schedule_wgmma(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *choice, const char **reason) {
  cu_product g;
  cu_groups x;
  if (!t->hopper) return *reason = "wgmma is of sm_90a", NULL;
  if (!cu_product_of(ctx, k, true, &g, reason)) return NULL;
  if (!choice->n && (g.a.rows.extent < 64 || g.b.rows.extent < 64 || g.sum.extent < 64)) return *reason = "too few rows for warpgroups", NULL;
  cu_choice c = choice->n ? *choice : cu_groups_choice(t, &g);
  if (c.n != 3) return *reason = "wgmma: BM BN STAGES", NULL;
  g.a.block = c.arg[0];
  g.b.block = c.arg[1];
  g.stages = (int)c.arg[2];
  if (!cu_groups_of(&g, t, &x, 0, reason)) return NULL;
  if (g.a.vec * ir_dtype_bytes(g.dtype) != 16 || g.b.vec * ir_dtype_bytes(g.dtype) != 16) return *reason = "operands that do not lie along the sum in pieces of 16 bytes", NULL;
  const ir_stmt *s = cu_product_pipeline(&g, cu_groups_start(&g, &x), step, &x, cu_groups_end(&g, &x));
  s = ir_alloc_stmt(ctx, x.acc, s);
  s = cu_product_grid(&g, s);
  return cu_tile_new(ctx, k, s, (int)g.threads, ir_format(ctx, "wgmma %lld %lld %d", (long long)g.a.block, (long long)g.b.block, g.stages));
}
