/* cuda_transpose.c — elementwise kernels that read along one axis and write along another: 32 x 32 elements pass through
 * shared memory, so that both sides of memory see whole rows.
 *
 *   for ..: for x: for y: out[.., x] = f(in[.., y])   (whatever the order of the loops)
 *     -> for .., x / 32, y / 32 grid: { S[32, 33]; for t: S[x, y] = in, threads along y; barrier; for t: out = f(S), threads along x } */
#include "codegen/cuda_product.h"
#include "lower/schedule.h"

enum { SIDE = 32, THREADS = 256, TURNS = SIDE * SIDE / THREADS };

typedef struct transpose {
  tn_ctx *ctx;
  lw_problem p;
  int x, y;      /* loops along which memory runs: of the store, of the load */
  int64_t most[LW_MAX_LOOPS]; /* of the loops, where the launch tells their size */
  ix load;
  ir_var *bx, *by;
  ir_buf *shared;
} transpose;

static bool runs_along(tn_ctx *ctx, ix offset, const ir_var *v) {
  int64_t c;
  return ix_affine_in(offset, v, &c) && c == 1;
}

/* A load that lies along another loop than the store does. */
static void find_load(transpose *z, ix e) {
  if (e->op == IX_LOAD && e->u.buf->space == IR_GLOBAL && !z->load)
    for (int i = 0; i < z->p.nout; i++)
      if (i != z->x && z->most[i] >= SIDE / 2 && runs_along(z->ctx, ir_buf_offset(z->ctx, e->u.buf, e->args), z->p.out[i]->var)) {
        z->load = e;
        z->y = i;
      }
  for (int i = 0; i < e->nargs && e->op != IX_SELECT; i++) find_load(z, e->args[i]); /* arms of a select load under its condition */
}

static ix by_shared(void *user, ix load) {
  void **a = user;
  return load == a[0] ? a[1] : NULL;
}

/* The threads' half: `quick` runs with neighbouring threads. */
static const ir_stmt *half(transpose *z, const char *name, bool reading) {
  tn_ctx *ctx = z->ctx;
  const ir_stmt *lx = z->p.out[z->x], *ly = z->p.out[z->y];
  ir_var *t = cu_var(ctx, ir_format(ctx, "%s.t", name), THREADS), *i = cu_var(ctx, ir_format(ctx, "%s.i", name), TURNS);
  ix slow = ix_add(ctx, ix_muli(ctx, i->expr, THREADS / SIDE), ix_divi(ctx, t->expr, SIDE)), quick = ix_remi(ctx, t->expr, SIDE);
  ix in_x = reading ? slow : quick, in_y = reading ? quick : slow;
  ix x = ix_add(ctx, lx->lo, ix_add(ctx, ix_muli(ctx, z->bx->expr, SIDE), in_x)), y = ix_add(ctx, ly->lo, ix_add(ctx, ix_muli(ctx, z->by->expr, SIDE), in_y));
  ir_var *vx = ir_var_new(ctx, ir_format(ctx, "%s.x", name), TN_INDEX, x->lo, x->hi), *vy = ir_var_new(ctx, ir_format(ctx, "%s.y", name), TN_INDEX, y->lo, y->hi);
  ix at[2] = {in_x, in_y};
  const ir_stmt *s;
  if (reading) s = ir_store(ctx, z->shared, at, IR_SET, z->load);
  else {
    ix element = ix_load(ctx, z->shared, at), index[IR_MAX_RANK];
    void *by[2] = {(void *)z->load, (void *)element};
    const ir_stmt *store = z->p.store;
    for (int d = 0; d < store->buf->rank; d++) index[d] = store->index[d];
    s = ir_store(ctx, store->buf, index, store->op, ix_subst_loads(ctx, store->value, by_shared, by));
  }
  s = ir_subst_var(ctx, ir_subst_var(ctx, s, lx->var, vx->expr), ly->var, vy->expr);
  s = ir_if(ctx, ix_and(ctx, ix_lt(ctx, vx->expr, lx->hi), ix_lt(ctx, vy->expr, ly->hi)), s, NULL);
  return cu_loop(ctx, t, IR_LANE, cu_loop(ctx, i, IR_UNROLL, ir_let(ctx, vx, x, ir_let(ctx, vy, y, s))));
}

static const ir_stmt *blocks_of(tn_ctx *ctx, ir_var *v, const ir_stmt *loop, const ir_stmt *s) {
  ix n = ix_max(ctx, ix_sub(ctx, loop->hi, loop->lo), ix_index(ctx, 0));
  return ir_for(ctx, v, ix_index(ctx, 0), ix_ceil_div(ctx, n, SIDE), IR_GRID, s);
}

const cu_tile *cu_schedule_transpose(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *c, const char **reason) {
  transpose z = {.ctx = ctx, .p = lw_problem_of(ctx, k), .x = -1};
  if (z.p.kind != LW_POINTWISE || !z.p.body || z.p.body->kind != IR_STORE || z.p.store->op != IR_SET) return *reason = "not one store within loops", NULL;
  for (int i = 0; i < z.p.nout; i++) {
    const ir_stmt *loop = z.p.out[i];
    for (int j = 0; j < i; j++)
      if (ix_uses_var(loop->lo, z.p.out[j]->var) || ix_uses_var(loop->hi, z.p.out[j]->var)) return *reason = "loops whose bounds hang on others", NULL;
    if (lw_loop_dependence(ctx, loop, NULL) != LW_PARALLEL) return *reason = "loops that are not independent", NULL;
    z.most[i] = loop->var->hi - loop->var->lo + 1;
    if (z.most[i] > INT32_MAX) return *reason = "a loop without a bound", NULL;
    if (z.most[i] >= SIDE / 2 && runs_along(ctx, ir_buf_offset(ctx, z.p.store->buf, z.p.store->index), z.p.out[i]->var)) z.x = i;
  }
  if (z.x < 0) return *reason = "a store that runs along no long loop", NULL;
  find_load(&z, z.p.store->value);
  if (!z.load) return *reason = "no load that runs along another loop", NULL;
  z.bx = cu_var(ctx, "block.x", (z.most[z.x] + SIDE - 1) / SIDE);
  z.by = cu_var(ctx, "block.y", (z.most[z.y] + SIDE - 1) / SIDE);
  z.shared = ir_buf_new(ctx, "turn", z.load->u.buf->dtype, 2, (ix[]){ix_index(ctx, SIDE), ix_index(ctx, SIDE + 1)}, NULL, IR_SHARED);
  const ir_stmt *parts[3] = {half(&z, "in", true), cu_sync(ctx, "barrier"), half(&z, "out", false)};
  const ir_stmt *s = ir_alloc_stmt(ctx, z.shared, ir_seq(ctx, 3, parts));
  s = blocks_of(ctx, z.bx, z.p.out[z.x], blocks_of(ctx, z.by, z.p.out[z.y], s));
  for (int i = z.p.nout - 1; i >= 0; i--)
    if (i != z.x && i != z.y) s = ir_for(ctx, z.p.out[i]->var, z.p.out[i]->lo, z.p.out[i]->hi, IR_GRID, s);
  return cu_tile_new(ctx, k, s, THREADS, "transpose");
}
