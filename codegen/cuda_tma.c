/* cuda_tma.c — products of f16 and bf16 by warpgroups (sm_90a) whose tiles the TMA unit brings: a producer, consumers of 64
 * rows each, S stages between them. codegen/GPU.md draws the pipeline; here are the tensor maps and the statements.
 *
 * A tile of the sum is BK elements of its last loop; the outer loops of the sum, the rows and the batches are axes of the
 * map, or, for windows over images, the base pixels of im2col. */
#include "codegen/cuda_product.h"
#include "lower/schedule.h"
#include <string.h>

enum { BK = 64 };

typedef struct side { /* an operand, its map, and where the copy of a tile starts */
  cu_map map;
  ix at[CU_MAP_RANK];     /* coordinates by axis */
  ix shift[3];            /* im2col: of the window, by axis 1, 2, 3 */
} side;

typedef struct place { /* of a tile: counts along the axes of the product */
  ix rows, outer, inner, batch;
} place;

typedef struct tma {
  cu_groups x;
  side a, b;
  ir_buf *full, *empty;   /* one mbarrier a stage; empty: null where no stage is filled twice */
  int64_t tiles;
} tma;

#define REFUSE(text) return *reason = (text), false

static int64_t extent_of(const ir_stmt *loop) { return loop->var->hi - loop->var->lo + 1; }

/* ---- tensor maps ---- */

static bool start_map(const cu_product *g, const cu_operand *o, cu_map *m, const char **reason) {
  *m = (cu_map){.dtype = g->dtype, .param = -1};
  for (int i = 0; i < g->k->nbufs; i++)
    if (g->k->bufs[i] == o->value->u.buf) m->param = i;
  if (m->param < 0) REFUSE("an operand that is no tensor of the kernel");
  return true;
}

static bool add_axis(side *s, int64_t stride, int64_t extent, int64_t box, ix at, const char **reason) {
  cu_map *m = &s->map;
  if (m->rank == CU_MAP_RANK) REFUSE("more axes than a tensor map has");
  if (m->rank ? stride <= 0 || stride % 8 || stride >= 1ll << 38 : stride != 1) REFUSE("strides that are no multiples of 16 bytes");
  if (extent > INT32_MAX) REFUSE("an axis that is too long");
  m->extent[m->rank] = extent;
  m->stride[m->rank] = stride;
  m->box[m->rank] = (int)box;
  m->step[m->rank] = 1;
  s->at[m->rank++] = at;
  return true;
}

/* The axes of the loops of `a` that move the operand, neighbours in memory counted as one; `rows`: they must be a single one. */
static bool add_loops(cu_product *g, side *s, const cu_axis *a, ix offset, ix count, int64_t box, const char **reason) {
  tn_ctx *ctx = g->ctx;
  int before = s->map.rank;
  int64_t inner = 1, stride, next;
  for (int i = a->n - 1; i >= 0;) {
    int64_t n = extent_of(a->loops[i]), lo, first = inner;
    if (!ix_affine_in(offset, a->loops[i]->var, &stride) || !ix_const_value(a->loops[i]->lo, &lo)) REFUSE("addresses that are not affine");
    s->map.offset += stride * lo;
    inner *= n;
    for (i--; stride && i >= 0 && ix_affine_in(offset, a->loops[i]->var, &next) && (next == stride * n || extent_of(a->loops[i]) == 1); i--) {
      if (!ix_const_value(a->loops[i]->lo, &lo)) REFUSE("addresses that are not affine");
      s->map.offset += next * lo;
      n *= extent_of(a->loops[i]);
      inner *= extent_of(a->loops[i]);
    }
    if (n == 1 || !stride) continue;
    ix at = ix_divi(ctx, count, first);
    if (i >= 0) at = ix_remi(ctx, at, n);
    if (!add_axis(s, stride, n, box, at, reason)) return false;
  }
  if (box > 1 && s->map.rank != before + 1) REFUSE("rows that are not one axis in memory");
  return true;
}

static cu_axis outer_sum(const cu_product *g) {
  cu_axis a = g->sum;
  a.n--;
  return a;
}

static bool tiled_map(cu_product *g, const cu_operand *o, side *s, const place *p, const char **reason) {
  tn_ctx *ctx = g->ctx;
  const ir_stmt *last = g->sum.loops[g->sum.n - 1];
  ix offset = ir_buf_offset(ctx, o->value->u.buf, o->value->args), term[64];
  int64_t coef[64], stride;
  cu_axis outer = outer_sum(g);
  *s = (side){0};
  if (o->guard) REFUSE("a guard");
  if (!start_map(g, o, &s->map, reason)) return false;
  int n = ix_linear(offset, &s->map.offset, coef, term, 64);
  for (int i = 0; i < n; i++)
    if (term[i]->op != IX_VAR) REFUSE("addresses that are not affine");
  if (!ix_affine_in(offset, last->var, &stride) || stride != 1) REFUSE("operands that do not lie along the sum");
  if (!add_axis(s, 1, extent_of(last), BK, p->inner, reason) || !add_loops(g, s, &o->rows, offset, p->rows, o->block, reason) ||
      !add_loops(g, s, &outer, offset, p->outer, 1, reason) || !add_loops(g, s, &g->batch, offset, p->batch, 1, reason))
    return false;
  if (s->map.offset % 8) REFUSE("a tensor that does not start at a multiple of 16 bytes");
  return true;
}

/* ---- im2col ---- */

static const ir_stmt *loop_of(const cu_axis *a, const ir_var *v, int *number) {
  for (*number = 0; *number < a->n; ++*number)
    if (a->loops[*number]->var == v) return a->loops[*number];
  return NULL;
}

typedef struct window { /* an index: step * row + by * sum + start */
  const ir_stmt *row, *sum;
  int row_number, sum_number;
  int64_t step, by, start;
} window;

static bool window_of(const cu_product *g, const cu_operand *o, ix index, window *w) {
  int64_t coef[8], lo;
  ix term[8];
  if (index->op != IX_CONST && index->op != IX_VAR && index->op != IX_ADD && index->op != IX_SUB && index->op != IX_MUL) return false;
  cu_axis outer = outer_sum(g);
  *w = (window){0};
  int n = ix_linear(index, &w->start, coef, term, 8), number;
  for (int i = 0; i < n; i++) {
    if (term[i]->op != IX_VAR) return false;
    const ir_stmt *l = loop_of(&o->rows, term[i]->u.var, &number);
    if (l && !w->row) w->row = l, w->row_number = number, w->step = coef[i];
    else if ((l = loop_of(&outer, term[i]->u.var, &number)) && !w->sum) w->sum = l, w->sum_number = number, w->by = coef[i];
    else return false;
    if (!ix_const_value(l->lo, &lo) || lo) return false;
  }
  return true;
}

/* Whether the guard says no more than that indices lie within the tensor. */
static bool is_border(tn_ctx *ctx, ix guard, const ir_buf *b, const ix *args) {
  if (!guard) return true;
  if (guard->op == IX_AND) return is_border(ctx, guard->args[0], b, args) && is_border(ctx, guard->args[1], b, args);
  for (int d = 0; d < b->rank; d++)
    if (guard == ix_le(ctx, ix_index(ctx, 0), args[d]) || guard == ix_lt(ctx, args[d], b->shape[d])) return true;
  return false;
}

static int64_t stride_of(cu_product *g, const ir_buf *b, int axis) {
  ix args[IR_MAX_RANK], zero = ix_index(g->ctx, 0);
  ir_var *v = ir_var_new(g->ctx, "axis", TN_INDEX, 0, b->shape[axis]->hi > 0 ? b->shape[axis]->hi - 1 : 0);
  for (int d = 0; d < b->rank; d++) args[d] = d == axis ? v->expr : zero;
  int64_t stride;
  return ix_affine_in(ir_buf_offset(g->ctx, b, args), v, &stride) ? stride : -1;
}

static bool add_pixels(cu_product *g, const cu_operand *o, side *s, const place *p, int axis, const window *w, bool first_row, const char **reason) {
  tn_ctx *ctx = g->ctx;
  const ir_buf *b = o->value->u.buf;
  int64_t extent, base = w->row ? w->step * (extent_of(w->row) - 1) + w->start : w->start, limit = s->map.rank - 1;
  cu_axis outer = outer_sum(g);
  if (!ix_const_value(b->shape[axis], &extent)) REFUSE("sizes that are not known");
  if (!add_axis(s, stride_of(g, b, axis), extent, 1, NULL, reason)) return false;
  ix at = w->row ? cu_axis_at(ctx, &o->rows, w->row_number, p->rows) : ix_index(ctx, 0);
  if (w->row && first_row) at = ix_divi(ctx, p->rows, o->rows.extent / extent_of(w->row)); /* no remainder: rows past the end lie past the tensor */
  int r = s->map.rank - 1;
  s->at[r] = ix_addi(ctx, ix_muli(ctx, at, w->row ? w->step : 1), w->start);
  if (limit == 3) return true;
  s->map.step[r] = w->row ? (int)w->step : 1;
  s->shift[r - 1] = w->sum ? ix_muli(ctx, cu_axis_at(ctx, &outer, w->sum_number, p->outer), w->by) : ix_index(ctx, 0);
  s->map.lower[r - 1] = (int)w->start;
  s->map.upper[r - 1] = (int)(base - (extent - 1));
  if (s->map.step[r] < 1 || s->map.step[r] > 8 || (w->sum && (w->by < 1 || w->by * (extent_of(w->sum) - 1) > 255))) REFUSE("strides or windows that the TMA unit does not have");
  if (w->start < -128 || w->start > 127 || s->map.upper[r - 1] < -128 || s->map.upper[r - 1] > 127) REFUSE("borders that the TMA unit does not have");
  return true;
}

/* Rows are (image, y, x); the operand is [image, y, x, c] in memory, in whatever order its axes are named. */
static bool im2col_map(cu_product *g, const cu_operand *o, side *s, const place *p, const char **reason) {
  const ir_buf *b = o->value->u.buf;
  const ix *args = o->value->args;
  const ir_stmt *last = g->sum.loops[g->sum.n - 1];
  int axis[4] = {-1, -1, -1, -1}; /* c, x, y, image */
  window w[4] = {0};
  *s = (side){0};
  if (b->rank != 4 || !start_map(g, o, &s->map, reason)) REFUSE("no tensor of images");
  for (int d = 0; d < 4; d++) { /* by stride: the order in memory */
    int at = 0;
    int64_t mine = stride_of(g, b, d);
    for (int e = 0; e < 4; e++) at += e != d && (stride_of(g, b, e) < mine || (stride_of(g, b, e) == mine && e > d));
    axis[at] = d;
  }
  int64_t coef, channels, lo;
  if (!ix_const_value(b->shape[axis[0]], &channels) || !ix_const_value(last->lo, &lo) || lo) REFUSE("sizes that are not known");
  if (!ix_affine_in(args[axis[0]], last->var, &coef) || coef != 1) REFUSE("operands that do not lie along the sum");
  if (args[axis[0]] != last->var->expr || channels != extent_of(last)) REFUSE("groups of channels");
  if (!add_axis(s, stride_of(g, b, axis[0]), channels, 1, p->inner, reason)) return false;
  int expected = o->rows.n;
  for (int i = 1; i < 4; i++) { /* x, y, image run over the rows in this order */
    if (!window_of(g, o, args[axis[i]], &w[i]) || (i == 3 && (w[i].sum || (w[i].row ? w[i].step != 1 || w[i].start : 0)))) REFUSE("no window over images");
    if (w[i].row) {
      if (w[i].row_number >= expected) REFUSE("rows that are not pixels in order");
      for (int k = w[i].row_number + 1; k < expected; k++)
        if (extent_of(o->rows.loops[k]) != 1) REFUSE("rows that are not pixels in order");
      expected = w[i].row_number;
    }
  }
  for (int k = 0; k < expected; k++)
    if (extent_of(o->rows.loops[k]) != 1) REFUSE("rows that are not pixels in order");
  for (int i = 1; i < 4; i++)
    if (!add_pixels(g, o, s, p, axis[i], &w[i], i == 3, reason)) return false;
  if (!w[3].row) s->at[3] = ix_divi(g->ctx, p->rows, o->rows.extent); /* a single image */
  if (!is_border(g->ctx, o->guard, b, args)) REFUSE("a guard that is not the tensor's border");
  s->map.channels = BK;
  s->map.pixels = (int)o->block;
  return true;
}

static bool any_map(cu_product *g, const cu_operand *o, side *s, const place *p, const char **reason) {
  return tiled_map(g, o, s, p, reason) || im2col_map(g, o, s, p, reason);
}

/* ---- statements ---- */

/* An mbarrier's or a copy's statement: what it takes, then what it means. */
static const ir_stmt *operation(tn_ctx *ctx, const char *atom, ix barrier, int n, const ix *takes, const ir_stmt *meaning) {
  const ir_stmt *all[2 + CU_MAP_RANK + 3];
  int64_t size = n + 1;
  ir_buf *ops = ir_buf_new(ctx, ir_format(ctx, "ops.%u", ir_next_id(ctx)), TN_I64, 1, (ix[]){ix_index(ctx, size)}, NULL, IR_REGISTER);
  for (int i = 0; i <= n; i++) all[i] = ir_store(ctx, ops, (ix[]){ix_index(ctx, i)}, IR_SET, i ? ix_cast(ctx, TN_I64, takes[i - 1]) : barrier);
  all[n + 1] = meaning;
  return ir_tile(ctx, atom, ir_alloc_stmt(ctx, ops, ir_seq(ctx, n + 1 + (meaning != NULL), all)));
}

static const ir_stmt *load(cu_product *g, const cu_operand *o, const side *s, const ir_var *block, const place *p, ix stage, ix barrier, int number) {
  ix takes[CU_MAP_RANK + 3];
  int n = 0;
  for (int i = 0; i < s->map.rank; i++) takes[n++] = s->at[i];
  for (int i = 0; s->map.pixels && i < s->map.rank - 2; i++) takes[n++] = s->shift[i];
  return operation(g->ctx, ir_format(g->ctx, "tma.load %d", number), barrier, n, takes, cu_product_box(g, o, block, p->outer, p->inner, stage));
}

/* One thread of a warpgroup. */
static const ir_stmt *elected(tn_ctx *ctx, const ir_stmt *s) {
  return cu_loop(ctx, cu_var(ctx, ir_format(ctx, "one.w.%u", ir_next_id(ctx)), 1), IR_WARP, cu_loop(ctx, cu_var(ctx, ir_format(ctx, "one.l.%u", ir_next_id(ctx)), 1), IR_LANE, s));
}

static ix barrier_at(tn_ctx *ctx, ir_buf *b, ix stage) { return ix_load(ctx, b, &stage); }

static ix parity(cu_product *g, ix tile, int add) { return ix_remi(g->ctx, ix_addi(g->ctx, ix_divi(g->ctx, tile, g->stages), add), 2); }

static place place_of(cu_product *g, ix tile) {
  int64_t last = extent_of(g->sum.loops[g->sum.n - 1]), chunks = (last + BK - 1) / BK;
  return (place){.outer = ix_divi(g->ctx, tile, chunks), .inner = ix_muli(g->ctx, ix_remi(g->ctx, tile, chunks), BK), .batch = g->block_b->expr};
}

static bool maps(cu_product *g, tma *x, ix tile, const char **reason) {
  place p = place_of(g, tile);
  p.rows = ix_muli(g->ctx, g->block_m->expr, g->a.block);
  if (!any_map(g, &g->a, &x->a, &p, reason)) return false;
  p.rows = ix_muli(g->ctx, g->block_n->expr, g->b.block);
  return any_map(g, &g->b, &x->b, &p, reason);
}

static const ir_stmt *producer(cu_product *g, tma *x, ix tile) {
  tn_ctx *ctx = g->ctx;
  ix stage = ix_remi(ctx, tile, g->stages), full = barrier_at(ctx, x->full, stage), turn = parity(g, tile, 1);
  place p = place_of(g, tile);
  const ir_stmt *s[4];
  int n = 0;
  if (x->empty) s[n++] = operation(ctx, "mbar.wait", barrier_at(ctx, x->empty, stage), 1, &turn, NULL);
  s[n++] = operation(ctx, ir_format(ctx, "mbar.expect %lld", (long long)(g->a.block + g->b.block) * BK * 2), full, 0, NULL, NULL);
  s[n++] = load(g, &g->a, &x->a, g->block_m, &p, stage, full, 0);
  s[n++] = load(g, &g->b, &x->b, g->block_n, &p, stage, full, 1);
  ir_var *role = ir_var_new(ctx, "producer", TN_INDEX, x->x.n, x->x.n);
  return cu_loop(ctx, role, IR_WARPGROUP, elected(ctx, ir_seq(ctx, n, s)));
}

static const ir_stmt *consumer(cu_product *g, tma *x, ix tile) {
  tn_ctx *ctx = g->ctx;
  ix stage = ix_remi(ctx, tile, g->stages), turn = parity(g, tile, 0);
  ir_var *wg = cu_var(ctx, "group", x->x.n);
  const ir_stmt *s[4];
  int n = 0;
  s[n++] = operation(ctx, "mbar.wait", barrier_at(ctx, x->full, stage), 1, &turn, NULL);
  s[n++] = cu_groups_multiply(g, &x->x, wg->expr, stage);
  if (x->empty) { /* the products of the tile before are over: its stage may be filled again */
    s[n++] = cu_sync(ctx, "wg.wait 1");
    ix before = ix_addi(ctx, tile, -1);
    ir_var *w = cu_var(ctx, "free.w", 4), *l = cu_var(ctx, "free.l", 1);
    const ir_stmt *leave = operation(ctx, "mbar.arrive", barrier_at(ctx, x->empty, ix_remi(ctx, ix_addi(ctx, tile, g->stages - 1), g->stages)), 0, NULL, NULL);
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

static const ir_stmt *pipeline(cu_product *g, tma *x, const cu_target *t, ir_var *tile) {
  tn_ctx *ctx = g->ctx;
  const ir_stmt *step[2] = {producer(g, x, tile->expr), consumer(g, x, tile->expr)};
  ir_var *wg = cu_var(ctx, "drain", x->x.n), *first = cu_var(ctx, "first", 1);
  const ir_stmt *run[4] = {cu_groups_start(g, &x->x), cu_loop(ctx, tile, IR_SERIAL, ir_seq(ctx, 2, step)), cu_loop(ctx, wg, IR_WARPGROUP, cu_sync(ctx, "wg.wait 0")),
                           cu_groups_end(g, &x->x)};
  const ir_stmt *start[3] = {init(ctx, x->full, g->stages, 1), x->empty ? init(ctx, x->empty, g->stages, 4 * x->x.n) : NULL, cu_sync(ctx, "fence.proxy")};
  const ir_stmt *all[3] = {cu_loop(ctx, first, IR_LANE, ir_seq(ctx, 3, start)), cu_sync(ctx, "barrier"), ir_tile(ctx, roles(ctx, t, x->x.n, g->b.block / 2), ir_seq(ctx, 4, run))};
  const ir_stmt *s = ir_alloc_stmt(ctx, g->a.shared, ir_alloc_stmt(ctx, g->b.shared, ir_alloc_stmt(ctx, x->full, ir_seq(ctx, 3, all))));
  return x->empty ? ir_alloc_stmt(ctx, x->empty, s) : s;
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
  g.a.block = c.arg[0];
  g.b.block = c.arg[1];
  g.stages = (int)c.arg[2];
  if (!cu_groups_of(&g, t, &x.x, 128, reason)) return NULL;
  x.tiles = g.sum.extent / last * chunks;
  ir_var *tile = cu_var(ctx, "tile", x.tiles);
  if (!maps(&g, &x, tile->expr, reason)) return NULL;
  ix stages[1] = {ix_index(ctx, g.stages)};
  x.full = ir_buf_new(ctx, "full", TN_I64, 1, stages, NULL, IR_SHARED);
  if (x.tiles > g.stages) x.empty = ir_buf_new(ctx, "empty", TN_I64, 1, stages, NULL, IR_SHARED);
  const ir_stmt *s = ir_alloc_stmt(ctx, x.x.acc, pipeline(&g, &x, t, tile));
  s = cu_loop(ctx, g.block_b, IR_GRID, cu_loop(ctx, g.block_m, IR_GRID, cu_loop(ctx, g.block_n, IR_GRID, s)));
  cu_tile *made = (cu_tile *)cu_tile_new(ctx, k, s, (int)g.threads, ir_format(ctx, "tma %lld %lld %d", (long long)g.a.block, (long long)g.b.block, g.stages));
  cu_map *m = IR_NEW_ARRAY(ctx, cu_map, 2);
  m[0] = x.a.map;
  m[1] = x.b.map;
  made->maps = m;
  made->nmaps = 2;
  return made;
}
