/* cuda_tma.c — products of f16 and bf16 by warpgroups (sm_90a) whose tiles the TMA unit brings: a producer, consumers of 64
 * rows each, S stages between them. codegen/GPU.md draws the pipeline; what is copied is cuda_tma_map.c's. */
#include "codegen/cuda_tma.h"

enum { BK = CU_TMA_BK };

typedef struct tma {
  cu_groups x;
  cu_side a, b;
  ir_buf *full, *empty;   /* one mbarrier a stage; empty: null where no stage is filled twice */
  int64_t tiles;
  bool store;             /* results leave by the TMA unit */
  cu_leave leave;
} tma;

static int64_t extent_of(const ir_stmt *loop) { return loop->var->hi - loop->var->lo + 1; }

/* ---- statements ---- */

const ir_stmt *cu_operation(tn_ctx *ctx, const char *atom, ix barrier, int n, const ix *takes, const ir_stmt *meaning) {
  const ir_stmt *all[2 + CU_MAP_RANK + 3];
  int64_t size = n + 1;
  ir_buf *ops = ir_buf_new(ctx, ir_format(ctx, "ops.%u", ir_next_id(ctx)), TN_I64, 1, (ix[]){ix_index(ctx, size)}, NULL, IR_REGISTER);
  for (int i = 0; i <= n; i++) all[i] = ir_store(ctx, ops, (ix[]){ix_index(ctx, i)}, IR_SET, i ? ix_cast(ctx, TN_I64, takes[i - 1]) : barrier ? barrier : ix_int(ctx, TN_I64, 0));
  all[n + 1] = meaning;
  return ir_tile(ctx, atom, ir_alloc_stmt(ctx, ops, ir_seq(ctx, n + 1 + (meaning != NULL), all)));
}

static const ir_stmt *load(cu_product *g, const cu_operand *o, const cu_side *s, const ir_var *block, const cu_place *p, ix stage, ix barrier, int number) {
  ix takes[CU_MAP_RANK + 3];
  int n = 0;
  for (int i = 0; i < s->map.rank; i++) takes[n++] = s->at[i];
  for (int i = 0; s->map.pixels && i < s->map.rank - 2; i++) takes[n++] = s->shift[i];
  return cu_operation(g->ctx, ir_format(g->ctx, "tma.load %d", number), barrier, n, takes, cu_product_box(g, o, block, p->outer, p->inner, stage));
}

const ir_stmt *cu_elected(tn_ctx *ctx, const ir_stmt *s) {
  return cu_loop(ctx, cu_var(ctx, ir_format(ctx, "one.w.%u", ir_next_id(ctx)), 1), IR_WARP, cu_loop(ctx, cu_var(ctx, ir_format(ctx, "one.l.%u", ir_next_id(ctx)), 1), IR_LANE, s));
}

static ix barrier_at(tn_ctx *ctx, ir_buf *b, ix stage) { return ix_load(ctx, b, &stage); }

static ix parity(cu_product *g, ix tile, int add) { return ix_remi(g->ctx, ix_addi(g->ctx, ix_divi(g->ctx, tile, g->stages), add), 2); }

static cu_place place_of(cu_product *g, ix tile) {
  int64_t last = extent_of(g->sum.loops[g->sum.n - 1]), chunks = (last + BK - 1) / BK;
  return (cu_place){.outer = ix_divi(g->ctx, tile, chunks), .inner = ix_muli(g->ctx, ix_remi(g->ctx, tile, chunks), BK), .batch = g->block_b->expr};
}

static bool maps(cu_product *g, tma *x, ix tile, const char **reason) {
  cu_place p = place_of(g, tile);
  p.rows = ix_muli(g->ctx, g->block_m->expr, g->a.block);
  if (!cu_tma_operand(g, &g->a, &x->a, &p, reason)) return false;
  p.rows = ix_muli(g->ctx, g->block_n->expr, g->b.block);
  return cu_tma_operand(g, &g->b, &x->b, &p, reason);
}

static const ir_stmt *producer(cu_product *g, tma *x, ix tile) {
  tn_ctx *ctx = g->ctx;
  ix stage = ix_remi(ctx, tile, g->stages), full = barrier_at(ctx, x->full, stage), turn = parity(g, tile, 1);
  cu_place p = place_of(g, tile);
  const ir_stmt *s[4];
  int n = 0;
  if (x->empty) s[n++] = cu_operation(ctx, "mbar.wait", barrier_at(ctx, x->empty, stage), 1, &turn, NULL);
  s[n++] = cu_operation(ctx, ir_format(ctx, "mbar.expect %lld", (long long)(g->a.block + g->b.block) * BK * 2), full, 0, NULL, NULL);
  s[n++] = load(g, &g->a, &x->a, g->block_m, &p, stage, full, 0);
  s[n++] = load(g, &g->b, &x->b, g->block_n, &p, stage, full, 1);
  ir_var *role = ir_var_new(ctx, "producer", TN_INDEX, x->x.n, x->x.n);
  return cu_loop(ctx, role, IR_WARPGROUP, cu_elected(ctx, ir_seq(ctx, n, s)));
}

static const ir_stmt *consumer(cu_product *g, tma *x, ix tile) {
  tn_ctx *ctx = g->ctx;
  ix stage = ix_remi(ctx, tile, g->stages), turn = parity(g, tile, 0);
  ir_var *wg = cu_var(ctx, "group", x->x.n);
  const ir_stmt *s[4];
  int n = 0;
  s[n++] = cu_operation(ctx, "mbar.wait", barrier_at(ctx, x->full, stage), 1, &turn, NULL);
  s[n++] = cu_groups_multiply(g, &x->x, wg->expr, stage);
  if (x->empty) { /* the products of the tile before are over: its stage may be filled again */
    s[n++] = cu_sync(ctx, "wg.wait 1");
    ix before = ix_addi(ctx, tile, -1);
    ir_var *w = cu_var(ctx, "free.w", 4), *l = cu_var(ctx, "free.l", 1);
    const ir_stmt *leave = cu_operation(ctx, "mbar.arrive", barrier_at(ctx, x->empty, ix_remi(ctx, ix_addi(ctx, tile, g->stages - 1), g->stages)), 0, NULL, NULL);
    const ir_stmt *both[2] = {cu_sync(ctx, "warp.sync"), cu_loop(ctx, l, IR_LANE, leave)};
    s[n++] = ir_if(ctx, ix_le(ctx, ix_index(ctx, 0), before), cu_loop(ctx, w, IR_WARP, ir_seq(ctx, 2, both)), NULL);
  }
  return cu_loop(ctx, wg, IR_WARPGROUP, ir_seq(ctx, n, s));
}

static const ir_stmt *init(tn_ctx *ctx, ir_buf *b, int stages, int64_t arrivals) {
  ir_var *i = cu_var(ctx, ir_format(ctx, "%s.i", b->name), stages);
  return cu_loop(ctx, i, IR_SERIAL, ir_tile(ctx, ir_format(ctx, "mbar.init %lld", (long long)arrivals), ir_store(ctx, b, &i->expr, IR_SET, ix_int(ctx, TN_I64, 0))));
}

/* Registers a thread: where even shares are few for the sums, what the producer leaves goes to the consumers. */
static const char *roles(tn_ctx *ctx, const cu_target *t, int64_t groups, int64_t sums) {
  int64_t spare = 24, own = (t->registers / 128 - spare) / groups / 8 * 8, other = 64;
  if (t->registers / 128 / (groups + 1) >= sums + other) return ir_format(ctx, "roles %lld 0 0", (long long)groups * 128);
  return ir_format(ctx, "roles %lld %lld %lld", (long long)groups * 128, (long long)(own > 240 ? 240 : own), (long long)spare);
}

static const ir_stmt *finish(cu_product *g, tma *x) {
  if (!x->store) return cu_groups_end(g, &x->x);
  ir_var *wg = cu_var(g->ctx, "leaving", x->x.n);
  const ir_stmt *both[2] = {cu_leave_tile(g, &x->x, &x->leave, wg->expr, 2), cu_leave_last(g)};
  return cu_loop(g->ctx, wg, IR_WARPGROUP, ir_seq(g->ctx, 2, both));
}

static const ir_stmt *pipeline(cu_product *g, tma *x, const cu_target *t, ir_var *tile) {
  tn_ctx *ctx = g->ctx;
  const ir_stmt *step[2] = {producer(g, x, tile->expr), consumer(g, x, tile->expr)};
  ir_var *wg = cu_var(ctx, "drain", x->x.n), *first = cu_var(ctx, "first", 1);
  const ir_stmt *run[4] = {cu_groups_start(g, &x->x), cu_loop(ctx, tile, IR_SERIAL, ir_seq(ctx, 2, step)), cu_loop(ctx, wg, IR_WARPGROUP, cu_sync(ctx, "wg.wait 0")),
                           finish(g, x)};
  const ir_stmt *start[3] = {init(ctx, x->full, g->stages, 1), x->empty ? init(ctx, x->empty, g->stages, 4 * x->x.n) : NULL, cu_sync(ctx, "fence.proxy")};
  const ir_stmt *all[3] = {cu_loop(ctx, first, IR_LANE, ir_seq(ctx, 3, start)), cu_sync(ctx, "barrier"), ir_tile(ctx, roles(ctx, t, x->x.n, g->b.block / 2), ir_seq(ctx, 4, run))};
  const ir_stmt *s = ir_alloc_stmt(ctx, g->a.shared, ir_alloc_stmt(ctx, g->b.shared, ir_alloc_stmt(ctx, x->full, ir_seq(ctx, 3, all))));
  if (x->store) s = ir_alloc_stmt(ctx, x->leave.shared, s);
  return x->empty ? ir_alloc_stmt(ctx, x->empty, s) : s;
}

/* The choice as text. */
static const char *said(tn_ctx *ctx, const cu_product *g, const tma *x) {
  return ir_format(ctx, "tma %lld %lld %d%s", (long long)g->a.block, (long long)g->b.block, g->stages, x->store ? " store" : "");
}

const cu_tile *cu_schedule_tma(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *choice, const char **reason) {
  cu_product g;
  tma x = {0};
  if (!t->hopper) return *reason = "the TMA unit is of sm_90a", NULL;
  if (!cu_product_of(ctx, k, true, &g, reason)) return NULL;
  int64_t last = extent_of(g.sum.loops[g.sum.n - 1]), chunks = (last + BK - 1) / BK;
  if (!choice->n && (g.a.rows.extent < 64 || g.b.rows.extent < 64 || g.sum.extent < 64 || last * 4 < chunks * BK * 3)) return *reason = "too few rows for warpgroups, or a sum in short pieces", NULL;
  cu_choice c = choice->n ? *choice : cu_groups_choice(t, &g);
  if (c.n != 3) return *reason = "tma: BM BN STAGES", NULL;
  x.store = c.word[CU_STORE].given;
  g.a.block = c.arg[0];
  g.b.block = c.arg[1];
  g.stages = (int)c.arg[2];
  if (!cu_groups_of(&g, t, &x.x, 128, reason)) return NULL;
  x.tiles = g.sum.extent / last * chunks;
  ir_var *tile = cu_var(ctx, "tile", x.tiles);
  if (!maps(&g, &x, tile->expr, reason)) return NULL;
  if (x.store && !cu_leave_of(&g, &x.x, false, &x.leave, reason)) return NULL;
  if (cu_product_shared_bytes(&g) + cu_leave_bytes(&x.leave) > t->shared_bytes) return *reason = "more shared memory than a block has", NULL;
  ix stages[1] = {ix_index(ctx, g.stages)};
  x.full = ir_buf_new(ctx, "full", TN_I64, 1, stages, NULL, IR_SHARED);
  if (x.tiles > g.stages) x.empty = ir_buf_new(ctx, "empty", TN_I64, 1, stages, NULL, IR_SHARED);
  const ir_stmt *s = ir_alloc_stmt(ctx, x.x.acc, pipeline(&g, &x, t, tile));
  s = cu_loop(ctx, g.block_b, IR_GRID, cu_loop(ctx, g.block_m, IR_GRID, cu_loop(ctx, g.block_n, IR_GRID, s)));
  cu_tile *made = (cu_tile *)cu_tile_new(ctx, k, s, (int)g.threads, said(ctx, &g, &x));
  cu_map *m = IR_NEW_ARRAY(ctx, cu_map, 3);
  m[0] = x.a.map;
  m[1] = x.b.map;
  m[2] = x.leave.side.map;
  made->maps = m;
  made->nmaps = 2 + x.store;
  return made;
}
