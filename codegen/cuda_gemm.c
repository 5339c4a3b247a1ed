/* cuda_gemm.c — products on plain threads: BM x BN a block, TM x TN a thread, stages of BK steps that asynchronous
 * copies fill ahead. */
#include "codegen/cuda_product.h"

typedef struct simt {
  int64_t tm, tn;
  ir_buf *acc; /* [threads, tm, tn] */
} simt;

/* Rows of a thread lie BM / TM apart, its columns in groups of four that neighbouring threads continue. */
static ix row_of(const cu_product *g, const simt *x, ix t, ix i) {
  ix ty = ix_divi(g->ctx, t, g->b.block / x->tn);
  return ix_add(g->ctx, ty, ix_muli(g->ctx, i, g->a.block / x->tm));
}

static ix column_of(const cu_product *g, const simt *x, ix t, ix j) {
  tn_ctx *ctx = g->ctx;
  int64_t across = g->b.block / x->tn, near = x->tn % 4 ? 1 : 4;
  ix tx = ix_remi(ctx, t, across);
  return ix_add(ctx, ix_muli(ctx, ix_divi(ctx, j, near), near * across), ix_add(ctx, ix_muli(ctx, tx, near), ix_remi(ctx, j, near)));
}

static const ir_stmt *per_element(cu_product *g, simt *x, const char *name, const ir_stmt *(*body)(cu_product *g, simt *x, ix t, ix i, ix j, ix stage), ix stage) {
  tn_ctx *ctx = g->ctx;
  ir_var *t = cu_var(ctx, ir_format(ctx, "%s.t", name), g->threads), *i = cu_var(ctx, ir_format(ctx, "%s.i", name), x->tm), *j = cu_var(ctx, ir_format(ctx, "%s.j", name), x->tn);
  const ir_stmt *s = cu_loop(ctx, i, IR_UNROLL, cu_loop(ctx, j, IR_UNROLL, body(g, x, t->expr, i->expr, j->expr, stage)));
  if (stage) {
    ir_var *k = cu_var(ctx, "k.in", g->bk);
    ix at[3] = {t->expr, i->expr, j->expr};
    ix a = cu_product_at(g, &g->a, stage, row_of(g, x, t->expr, i->expr), k->expr), b = cu_product_at(g, &g->b, stage, column_of(g, x, t->expr, j->expr), k->expr);
    ix old = ix_load(ctx, x->acc, at);
    ix sum = ir_is_float(g->dtype) ? ix_fma(ctx, a, b, old) : ix_add(ctx, old, ix_mul(ctx, a, b));
    s = cu_loop(ctx, i, IR_UNROLL, cu_loop(ctx, j, IR_UNROLL, ir_store(ctx, x->acc, at, IR_SET, sum)));
    s = cu_loop(ctx, k, IR_SERIAL, s);
  }
  return cu_loop(ctx, t, IR_LANE, s);
}

static const ir_stmt *set_element(cu_product *g, simt *x, ix t, ix i, ix j, ix stage) {
  return ir_store(g->ctx, x->acc, (ix[]){t, i, j}, IR_SET, g->init);
}

static const ir_stmt *end_element(cu_product *g, simt *x, ix t, ix i, ix j, ix stage) {
  return cu_product_store(g, row_of(g, x, t, i), column_of(g, x, t, j), ix_load(g->ctx, x->acc, (ix[]){t, i, j}));
}

static const ir_stmt *step(cu_product *g, ix stage, void *user) { return per_element(g, user, "mul", set_element, stage); }

/* The largest tile of which there are enough to fill the machine, else the smallest. */
static cu_choice default_tile(const cu_target *t, const cu_product *g) {
  static const int64_t rows[][6] = {{128, 128, 16, 8, 8, 4}, {64, 128, 16, 4, 8, 4}, {64, 64, 16, 4, 4, 4}, {32, 64, 16, 2, 4, 4}, {32, 32, 16, 2, 2, 4}, {16, 32, 16, 1, 2, 4}};
  cu_choice c = {.n = 6};
  for (int i = 0; i < IR_COUNT(rows); i++) {
    int64_t m = (g->a.rows.extent + rows[i][0] - 1) / rows[i][0], n = (g->b.rows.extent + rows[i][1] - 1) / rows[i][1];
    for (int k = 0; k < 6; k++) c.arg[k] = rows[i][k];
    if (m * n * g->batch.extent >= t->multiprocessors) break;
  }
  return c;
}

const cu_tile *cu_schedule_tile(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *choice, const char **reason) {
  cu_product g;
  if (!cu_product_sized(ctx, k, false, &g, reason)) return NULL;
  cu_choice c = choice->n ? *choice : default_tile(t, &g);
  if (!choice->n && (g.a.rows.extent < 4 || g.b.rows.extent < 4 || g.sum.extent < 8)) return *reason = "too few rows for tiles", NULL;
  int64_t tm = c.arg[3], tn = c.arg[4];
  g.a.block = c.arg[0];
  g.b.block = c.arg[1];
  g.bk = c.arg[2];
  g.stages = (int)c.arg[5];
  g.pad = 4;
  if (c.n != 6 || tm < 1 || tn < 1 || g.a.block % tm || g.b.block % tn || g.b.block % 4 || g.bk % 4 || !g.bk || g.stages < 2 || g.stages > 8 || tm * tn > 128 || g.a.block > 256 || g.b.block > 256)
    return *reason = "tile: BM BN BK TM TN STAGES, which do not fit", NULL;
  g.threads = g.a.block / tm * (g.b.block / tn);
  if (g.threads % 32 || g.threads > 1024) return *reason = "tile: threads of a block that are no warps", NULL;
  cu_product_tiles(&g);
  if (cu_product_shared_bytes(&g) > t->shared_bytes) return *reason = "tile: more shared memory than a block has", NULL;
  ix shape[3] = {ix_index(ctx, g.threads), ix_index(ctx, tm), ix_index(ctx, tn)};
  simt x = {tm, tn, ir_buf_new(ctx, "sum", g.acc->dtype, 3, shape, NULL, IR_LOCAL)};
  const ir_stmt *s = cu_product_pipeline(&g, per_element(&g, &x, "set", set_element, NULL), step, &x, per_element(&g, &x, "end", end_element, NULL));
  s = ir_alloc_stmt(ctx, x.acc, s);
  s = cu_product_grid(&g, s);
  return cu_tile_new(ctx, k, s, (int)g.threads, ir_format(ctx, "tile %lld %lld %lld %lld %lld %d", (long long)g.a.block, (long long)g.b.block, (long long)g.bk, (long long)tm, (long long)tn, g.stages));
}
