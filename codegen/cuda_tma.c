/* cuda_tma.c — products of f16, bf16 and 8-bit floats by warpgroups (sm_90a) whose tiles the TMA unit brings: a producer, consumers of 64
 * rows each, S stages between them. codegen/GPU.md draws the pipeline; what is copied is cuda_tma_map.c's.
 *
 * A block has one tile, or (persist) stays and walks over tiles, blocks of rows by blocks of columns; the stages and their
 * phases run on from tile to tile. With two teams (pingpong) they take turns at tiles: the end of one hides behind the
 * products of the other. The blocks of a cluster have tiles in R neighbouring rows and C columns, row after row; each brings its
 * part of A to those of its row, its part of B to those of its column, and a stage is free when the consumers of all these
 * have said so.
 *
 * What a block of a cluster does stands in a loop of kind cluster, one for each statement; shared memory is an array of the
 * whole cluster, its first axis the block, then the stage. */
#include "codegen/cuda_tma.h"

typedef struct tma {
  cu_groups x;            /* the team at hand */
  ir_buf *full, *empty;   /* one mbarrier a stage; empty: null where no stage is filled twice */
  ir_buf *order;          /* of two teams: one mbarrier each, or null */
  int64_t tiles;          /* of the sum */
  int64_t cluster, teams; /* blocks of a cluster: */
  int64_t down, across;   /* so many rows of tiles by so many columns */
  int64_t m, n, blocks;   /* tiles of the result, by rows and columns (those of a cluster are one); clusters that stay, or 0 */
  int64_t raster;         /* rows of tiles that are walked together */
  int64_t rest, share;    /* streamk: tiles that all blocks do together, steps of theirs that each one does; else 0 */
  ir_buf *part;           /* what they add up: [stretches, blocks of the cluster, sums of a thread, threads] */
  ix row, column, rank;   /* of the cluster's tiles; the block's number in it */
  bool streamk;
  bool store;             /* results leave by the TMA unit */
  cu_leave leave;
} tma;

static int64_t extent_of(const ir_stmt *loop) { return loop->var->hi - loop->var->lo + 1; }

static ir_var *fresh(tn_ctx *ctx, const char *name, int64_t extent) { return cu_var(ctx, ir_format(ctx, "%s.%u", name, ir_next_id(ctx)), extent); }

/* ---- statements ---- */

const ir_stmt *cu_operation(tn_ctx *ctx, const char *atom, ix barrier, int n, const ix *takes, const ir_stmt *meaning) {
  const ir_stmt *all[2 + CU_MAP_RANK + 3];
  int64_t size = n + 1;
  ir_buf *ops = ir_buf_new(ctx, ir_format(ctx, "ops.%u", ir_next_id(ctx)), TN_I64, 1, (ix[]){ix_index(ctx, size)}, NULL, IR_REGISTER);
  for (int i = 0; i <= n; i++) all[i] = ir_store(ctx, ops, (ix[]){ix_index(ctx, i)}, IR_SET, i ? ix_cast(ctx, TN_I64, takes[i - 1]) : barrier ? barrier : ix_int(ctx, TN_I64, 0));
  all[n + 1] = meaning;
  return ir_tile(ctx, atom, ir_alloc_stmt(ctx, ops, ir_seq(ctx, n + 1 + (meaning != NULL), all)));
}

ix cu_first_peer(tn_ctx *ctx, ix rank, int64_t many, int64_t apart) { return ix_add(ctx, ix_muli(ctx, ix_divi(ctx, rank, many * apart), many * apart), ix_remi(ctx, rank, apart)); }

const ir_stmt *cu_elected(tn_ctx *ctx, const ir_stmt *s) { return cu_loop(ctx, fresh(ctx, "one.w", 1), IR_WARP, cu_loop(ctx, fresh(ctx, "one.l", 1), IR_LANE, s)); }

/* The tile of block `rank` of the cluster. */
static void to_tile(cu_product *g, const tma *x, ix rank) {
  g->at_m = ix_add(g->ctx, ix_muli(g->ctx, x->row, x->down), ix_divi(g->ctx, rank, x->across));
  g->at_n = ix_add(g->ctx, ix_muli(g->ctx, x->column, x->across), ix_remi(g->ctx, rank, x->across));
}

/* What follows is for one block of the cluster, until by_blocks. */
static ir_var *for_block(cu_product *g, tma *x) {
  ir_var *r = x->cluster > 1 ? fresh(g->ctx, "rank", x->cluster) : NULL;
  x->rank = r ? r->expr : ix_index(g->ctx, 0);
  x->x.base = r ? ix_muli(g->ctx, r->expr, x->x.threads) : NULL;
  to_tile(g, x, x->rank);
  return r;
}

static const ir_stmt *by_blocks(tn_ctx *ctx, ir_var *r, const ir_stmt *s) { return r ? cu_loop(ctx, r, IR_CLUSTER, s) : s; }

static ix slot_of(cu_product *g, ix rank, ix count) { return ix_add(g->ctx, ix_muli(g->ctx, rank, g->stages), ix_remi(g->ctx, count, g->stages)); }

static ix barrier_at(tn_ctx *ctx, ir_buf *b, ix slot) { return ix_load(ctx, b, &slot); }

static ix parity(cu_product *g, ix count, int add) { return ix_remi(g->ctx, ix_addi(g->ctx, ix_divi(g->ctx, count, g->stages), add), 2); }

static cu_place place_of(cu_product *g, ix tile, ix rows, int64_t box) {
  int64_t last = extent_of(g->sum.loops[g->sum.n - 1]), chunks = (last + g->bk - 1) / g->bk;
  return (cu_place){.rows = rows, .box = box, .outer = ix_divi(g->ctx, tile, chunks), .inner = ix_muli(g->ctx, ix_remi(g->ctx, tile, chunks), g->bk), .batch = g->at_b};
}

/* The block's part of tile `tile` of an operand, whose rows begin with `first`, to the stage that is the count-th to be filled: of
 * the `many` blocks that share the tile, `apart` from each other. */
static const ir_stmt *load(cu_product *g, const tma *x, const cu_operand *o, ix tile, ix first, int64_t many, int64_t apart, ix count, int number) {
  tn_ctx *ctx = g->ctx;
  const char *why;
  int64_t rows = o->block / many;
  ix to = ix_muli(ctx, ix_remi(ctx, ix_divi(ctx, x->rank, apart), many), rows);
  first = ix_add(ctx, first, to);
  cu_place p = place_of(g, tile, first, rows);
  cu_side s;
  ix takes[CU_MAP_RANK + 3], barrier = barrier_at(ctx, x->full, slot_of(g, x->rank, count));
  int n = 0;
  if (!cu_tma_operand(g, o, &s, &p, &why)) ir_bug(ctx, "an operand that had a map has none: %s", why);
  for (int i = 0; i < s.map.rank; i++) takes[n++] = s.at[i];
  for (int i = 0; s.map.pixels && i < s.map.rank - 2; i++) takes[n++] = s.shift[i];
  ir_var *peer = many > 1 ? fresh(ctx, "peer", many) : NULL;
  ix of = peer ? ix_add(ctx, cu_first_peer(ctx, x->rank, many, apart), ix_muli(ctx, peer->expr, apart)) : x->rank;
  cu_box box = {.first = first, .to = to, .rows = rows, .outer = p.outer, .inner = p.inner, .peer = peer, .stage = slot_of(g, of, count)};
  return cu_operation(ctx, peer ? ir_format(ctx, "tma.multicast %d %lld %lld", number, (long long)many, (long long)apart) : ir_format(ctx, "tma.load %d", number), barrier, n, takes, cu_product_box(g, o, &box));
}

static const ir_stmt *producer(cu_product *g, tma *x, ix tile, ix count) {
  tn_ctx *ctx = g->ctx;
  ir_var *r = for_block(g, x), *role = ir_var_new(ctx, ir_format(ctx, "producer.%u", ir_next_id(ctx)), TN_INDEX, x->teams * x->x.n, x->teams * x->x.n);
  ix slot = slot_of(g, x->rank, count), turn = parity(g, count, 1);
  const ir_stmt *s[4];
  int n = 0;
  if (x->empty) s[n++] = cu_operation(ctx, "mbar.wait", barrier_at(ctx, x->empty, slot), 1, &turn, NULL);
  s[n++] = cu_operation(ctx, ir_format(ctx, "mbar.expect %lld", (long long)(g->a.block + g->b.block) * CU_TILE_BYTES), barrier_at(ctx, x->full, slot), 0, NULL, NULL);
  s[n++] = load(g, x, &g->a, tile, ix_muli(ctx, g->at_m, g->a.block), x->across, 1, count, 0);
  s[n++] = load(g, x, &g->b, tile, ix_muli(ctx, g->at_n, g->b.block), x->down, x->across, count, 1);
  return by_blocks(ctx, r, cu_loop(ctx, role, IR_WARPGROUP, cu_elected(ctx, ir_seq(ctx, n, s))));
}

/* Each warp of a warpgroup, when all its lanes are there (`meet`: they have not met since they waited): `what` by lanes l. */
static const ir_stmt *arrive(tn_ctx *ctx, bool meet, ir_var *l, const ir_stmt *what) {
  const ir_stmt *both[2] = {meet ? cu_sync(ctx, "warp.sync") : NULL, cu_loop(ctx, l, IR_LANE, what)};
  return cu_loop(ctx, fresh(ctx, "free.w", 4), IR_WARP, ir_seq(ctx, 2, both));
}

/* By a warpgroup whose products are over: the stage that was the count-th to be filled may be filled again. That is said to the
 * blocks that fill it, those of the row and of the column, and to no other: what it has waited for says of theirs alone that the
 * phase before is over. */
static const ir_stmt *release(cu_product *g, tma *x, bool meet, ix count) {
  tn_ctx *ctx = g->ctx;
  ir_var *l = fresh(ctx, "free.l", x->cluster);
  bool remote = x->cluster > 1;
  ix at = barrier_at(ctx, x->empty, slot_of(g, l->expr, count)), row = ix_eq(ctx, ix_divi(ctx, l->expr, x->across), ix_divi(ctx, x->rank, x->across)), column = ix_eq(ctx, ix_remi(ctx, l->expr, x->across), ix_remi(ctx, x->rank, x->across));
  const ir_stmt *s = cu_operation(ctx, remote ? "mbar.arrive.remote" : "mbar.arrive", at, remote, &l->expr, NULL);
  return arrive(ctx, meet, l, x->down > 1 && x->across > 1 ? ir_if(ctx, ix_or(ctx, row, column), s, NULL) : s);
}

/* step: how many of the stretch were before. */
static const ir_stmt *consumer(cu_product *g, tma *x, ix step, ix count) {
  tn_ctx *ctx = g->ctx;
  ir_var *r = for_block(g, x), *wg = cu_groups_var(ctx, &x->x, ir_format(ctx, "group.%u", ir_next_id(ctx)));
  ix slot = slot_of(g, x->rank, count), turn = parity(g, count, 0);
  const ir_stmt *s[4];
  int n = 0;
  s[n++] = cu_operation(ctx, "mbar.wait", barrier_at(ctx, x->full, slot), 1, &turn, NULL);
  s[n++] = cu_groups_multiply(g, &x->x, wg->expr, slot);
  if (x->empty && x->tiles > 1) { /* the products of the tile before are over */
    s[n++] = cu_sync(ctx, "wg.wait 1");
    s[n++] = ir_if(ctx, ix_lt(ctx, ix_index(ctx, 0), step), release(g, x, true, ix_addi(ctx, count, -1)), NULL);
  }
  return by_blocks(ctx, r, cu_loop(ctx, wg, IR_WARPGROUP, ir_seq(ctx, n, s)));
}

/* Teams take turns at the stages: each waits until the other has waited for all of its own, so that it knows which phase
 * comes next. Of the first team's first turn the fresh barrier says that it is over. */
static const ir_stmt *take_turn(cu_product *g, tma *x, ix turn) {
  tn_ctx *ctx = g->ctx;
  if (!x->order) return NULL;
  ir_var *r = for_block(g, x), *wg = cu_groups_var(ctx, &x->x, ir_format(ctx, "turn.%u", ir_next_id(ctx)));
  ix phase = ix_remi(ctx, ix_addi(ctx, turn, x->x.first ? 0 : 1), 2), mine = ix_addi(ctx, ix_muli(ctx, x->rank, x->teams), x->x.first != 0);
  return by_blocks(ctx, r, cu_loop(ctx, wg, IR_WARPGROUP, cu_operation(ctx, "mbar.wait", barrier_at(ctx, x->order, mine), 1, &phase, NULL)));
}

static const ir_stmt *pass_turn(cu_product *g, tma *x) {
  tn_ctx *ctx = g->ctx;
  if (!x->order) return NULL;
  ir_var *r = for_block(g, x), *wg = cu_groups_var(ctx, &x->x, ir_format(ctx, "pass.%u", ir_next_id(ctx)));
  ix other = ix_addi(ctx, ix_muli(ctx, x->rank, x->teams), x->x.first == 0);
  return by_blocks(ctx, r, cu_loop(ctx, wg, IR_WARPGROUP, arrive(ctx, x->tiles == 1, fresh(ctx, "pass.l", 1), cu_operation(ctx, "mbar.arrive", barrier_at(ctx, x->order, other), 0, NULL, NULL))));
}

static const ir_stmt *set(cu_product *g, tma *x) {
  ir_var *r = for_block(g, x);
  return by_blocks(g->ctx, r, cu_groups_start(g, &x->x));
}

static const ir_stmt *drain(cu_product *g, tma *x, bool meet, ix last) {
  tn_ctx *ctx = g->ctx;
  ir_var *r = for_block(g, x), *wg = cu_groups_var(ctx, &x->x, ir_format(ctx, "drain.%u", ir_next_id(ctx)));
  const ir_stmt *all[3] = {cu_sync(ctx, "wg.wait 0"), x->blocks && x->empty ? release(g, x, meet || x->cluster > 1, last) : NULL, cu_sync(ctx, "settle")};
  return by_blocks(ctx, r, cu_loop(ctx, wg, IR_WARPGROUP, ir_seq(ctx, 3, all)));
}

/* ---- tiles ---- */

typedef struct stretch { /* some steps of a tile's sum, by one team */
  ix before;     /* stages that were filled before */
  ix from, steps;
  ix turn;       /* the team's turn-th tile */
  ix part;       /* where the sums go, null: the kernel's end */
  bool meet;     /* it may be a single step */
} stretch;

static const ir_stmt *finish(cu_product *g, tma *x, const stretch *s) {
  tn_ctx *ctx = g->ctx;
  ir_var *r = for_block(g, x), *wg = cu_groups_var(ctx, &x->x, ir_format(ctx, "leaving.%u", ir_next_id(ctx)));
  if (s->part) {
    ir_var *t = fresh(ctx, "part.t", 128 * x->x.n), *e = fresh(ctx, "part.e", g->b.block / 2);
    ix from[2] = {x->x.base ? ix_add(ctx, x->x.base, t->expr) : t->expr, e->expr}, to[4] = {s->part, x->rank, e->expr, t->expr};
    return by_blocks(ctx, r, cu_loop(ctx, t, IR_LANE, cu_loop(ctx, e, IR_UNROLL, ir_store(ctx, x->part, to, IR_SET, ix_load(ctx, x->x.acc, from)))));
  }
  return by_blocks(ctx, r, x->store ? cu_loop(ctx, wg, IR_WARPGROUP, cu_leave_tile(g, &x->x, &x->leave, x->rank, wg->expr, s->turn, 2)) : cu_groups_end(g, &x->x));
}

static const ir_stmt *stretch_of(cu_product *g, tma *x, const stretch *t) {
  tn_ctx *ctx = g->ctx;
  ir_var *step = fresh(ctx, "tile", x->tiles);
  ix zero = ix_index(ctx, 0), count = ix_add(ctx, t->before, step->expr), last = ix_addi(ctx, ix_add(ctx, t->before, t->steps), -1);
  const ir_stmt *both[2] = {producer(g, x, ix_add(ctx, t->from, step->expr), count), consumer(g, x, step->expr, count)};
  const ir_stmt *all[6] = {set(g, x), take_turn(g, x, t->turn), ir_for(ctx, step, zero, t->steps, IR_SERIAL, ir_seq(ctx, 2, both)), pass_turn(g, x), drain(g, x, t->meet, last), finish(g, x, t)};
  return ir_seq(ctx, 6, all);
}

static stretch whole_tile(const cu_product *g, const tma *x, ix tiles_before, ix turn) {
  return (stretch){.before = ix_muli(g->ctx, tiles_before, x->tiles), .from = ix_index(g->ctx, 0), .steps = ix_index(g->ctx, x->tiles), .turn = turn, .meet = x->tiles == 1};
}

/* Tile number `work`: x->raster rows together, column by column; what is left of the rows likewise. */
typedef struct where {
  ir_var *var[3];
  ix value[3];
} where;

static where go_to(cu_product *g, tma *x, ix work) {
  tn_ctx *ctx = g->ctx;
  int64_t rows = x->raster < x->m ? x->raster : x->m, whole = x->m / rows * rows, rest = x->m - whole;
  where w = {.var = {fresh(ctx, "at.b", g->batch.extent), fresh(ctx, "at.m", x->m), fresh(ctx, "at.n", x->n)}};
  ix one = ix_remi(ctx, work, x->m * x->n), in = ix_remi(ctx, one, rows * x->n);
  w.value[0] = ix_divi(ctx, work, x->m * x->n);
  w.value[1] = ix_add(ctx, ix_muli(ctx, ix_divi(ctx, one, rows * x->n), rows), ix_remi(ctx, in, rows));
  w.value[2] = ix_divi(ctx, in, rows);
  if (rest) {
    ix left = ix_max(ctx, ix_addi(ctx, one, -whole * x->n), ix_index(ctx, 0)), is_whole = ix_lt(ctx, one, ix_index(ctx, whole * x->n));
    w.value[1] = ix_select(ctx, is_whole, w.value[1], ix_addi(ctx, ix_remi(ctx, left, rest), whole));
    w.value[2] = ix_select(ctx, is_whole, w.value[2], ix_divi(ctx, left, rest));
  }
  g->at_b = w.var[0]->expr;
  x->row = w.var[1]->expr;
  x->column = w.var[2]->expr;
  return w;
}

static const ir_stmt *there(tn_ctx *ctx, const where *w, const ir_stmt *s) {
  for (int i = 2; i >= 0; i--) s = ir_let(ctx, w->var[i], w->value[i], s);
  return s;
}

/* All tiles of persistent block `block`, whose number is below x->blocks. */
static const ir_stmt *walk(cu_product *g, tma *x, ix block) {
  tn_ctx *ctx = g->ctx;
  int64_t all = x->m * x->n * g->batch.extent - x->rest, most = (all + x->blocks - 1) / x->blocks;
  ix turns = ix_divi(ctx, ix_sub(ctx, ix_index(ctx, all + x->blocks - 1), block), x->blocks);
  if (!most) return NULL;
  ir_var *round = fresh(ctx, "round", (most + x->teams - 1) / x->teams);
  const ir_stmt *s[2] = {0};
  for (int team = 0; team < x->teams; team++) {
    ix turn = ix_addi(ctx, ix_muli(ctx, round->expr, x->teams), team);
    stretch t = whole_tile(g, x, turn, round->expr);
    x->x.first = team * x->x.n;
    where w = go_to(g, x, ix_add(ctx, ix_muli(ctx, turn, x->blocks), block));
    s[team] = there(ctx, &w, stretch_of(g, x, &t));
    if (team) s[team] = ir_if(ctx, ix_lt(ctx, turn, turns), ir_stmt_fresh(ctx, s[team], ".other"), NULL);
  }
  return ir_for(ctx, round, ix_index(ctx, 0), ix_divi(ctx, ix_addi(ctx, turns, x->teams - 1), x->teams), IR_SERIAL, ir_seq(ctx, (int)x->teams, s));
}

static bool single_step(const tma *x) { /* streamk: whether there is a stretch of one step */
  for (int64_t p = 0; p < x->blocks; p++) {
    int64_t lo = p * x->share, hi = lo + x->share, border = (lo / x->tiles + 1) * x->tiles;
    if (hi > x->rest * x->tiles) hi = x->rest * x->tiles;
    if (hi - lo == 1 || (border < hi && (border - lo == 1 || hi - border == 1))) return true;
  }
  return false;
}

/* ---- stream-K: the tiles of the last, incomplete turn ----
 *
 * Their steps, one tile after the other, are shared out evenly: block p has steps p * share to (p + 1) * share, the end of
 * one tile and perhaps the start of the next. Sums of stretches go to memory; a second launch adds them up, tile r's from
 * block r * K / share on, in order. The stretch of block p in tile r is number p + r: each that follows has one of both more. */
static const ir_stmt *shared_tiles(cu_product *g, tma *x, ix block) {
  tn_ctx *ctx = g->ctx;
  if (!x->rest) return NULL;
  int64_t done = (x->m * x->n * g->batch.extent - x->rest) / x->blocks;
  ir_var *second = fresh(ctx, "second", 2), *from = fresh(ctx, "from", x->tiles), *steps = fresh(ctx, "steps", x->share + 1), *r = fresh(ctx, "shared", x->rest + 1);
  ix mine = ix_muli(ctx, block, x->share), end = ix_min(ctx, ix_addi(ctx, mine, x->share), ix_index(ctx, x->rest * x->tiles));
  ix start = ix_muli(ctx, r->expr, x->tiles), at = ix_max(ctx, mine, start), stop = ix_min(ctx, end, ix_addi(ctx, start, x->tiles));
  stretch t = {.before = ix_addi(ctx, ix_max(ctx, ix_sub(ctx, start, mine), ix_index(ctx, 0)), done * x->tiles), .from = from->expr, .steps = steps->expr, .turn = ix_index(ctx, 0), .part = ix_add(ctx, block, r->expr), .meet = single_step(x)};
  where w = go_to(g, x, ix_addi(ctx, r->expr, done * x->blocks));
  const ir_stmt *s = there(ctx, &w, stretch_of(g, x, &t));
  s = ir_let(ctx, from, ix_sub(ctx, at, start), ir_let(ctx, steps, ix_sub(ctx, stop, at), s));
  s = ir_let(ctx, r, ix_add(ctx, ix_divi(ctx, mine, x->tiles), second->expr), ir_if(ctx, ix_lt(ctx, at, stop), s, NULL));
  return ir_stmt_fresh(ctx, cu_loop(ctx, second, IR_SERIAL, s), ".shared");
}

/* The second launch: 8 columns of a shared tile a block, by the threads that had their sums. */
static const ir_stmt *join(cu_product *g, tma *x) {
  tn_ctx *ctx = g->ctx;
  ir_var *r = cu_var(ctx, "join.r", x->rest), *rank = cu_var(ctx, "join.b", x->cluster), *n = cu_var(ctx, "join.n", g->b.block / 8);
  ir_var *t = cu_var(ctx, "join.t", 128 * x->x.n), *e = cu_var(ctx, "join.e", 4), *p = cu_var(ctx, "join.p", x->blocks);
  ir_buf *sum = ir_buf_new(ctx, "joined", TN_F32, 0, NULL, NULL, IR_REGISTER);
  ix first = ix_muli(ctx, r->expr, x->tiles), lo = ix_divi(ctx, first, x->share), hi = ix_addi(ctx, ix_divi(ctx, ix_addi(ctx, first, x->tiles - 1), x->share), 1);
  ix at[4] = {ix_add(ctx, p->expr, r->expr), rank->expr, ix_add(ctx, ix_muli(ctx, n->expr, 4), e->expr), t->expr}, place[2], old = ix_load(ctx, sum, NULL);
  where w = go_to(g, x, ix_addi(ctx, r->expr, x->m * x->n * g->batch.extent - x->rest));
  to_tile(g, x, rank->expr);
  cu_groups_element(ctx, t->expr, n->expr, e->expr, place);
  const ir_stmt *each = ir_for(ctx, p, lo, hi, IR_SERIAL, ir_store(ctx, sum, NULL, IR_SET, ix_add(ctx, old, ix_load(ctx, x->part, at))));
  const ir_stmt *all[3] = {ir_store(ctx, sum, NULL, IR_SET, g->init), each, cu_product_store(g, place[0], place[1], old)};
  const ir_stmt *s = cu_loop(ctx, t, IR_LANE, cu_loop(ctx, e, IR_UNROLL, ir_alloc_stmt(ctx, sum, ir_seq(ctx, 3, all))));
  return cu_loop(ctx, r, IR_GRID, cu_loop(ctx, rank, IR_GRID, cu_loop(ctx, n, IR_GRID, there(ctx, &w, s))));
}

/* ---- the block ---- */

static const ir_stmt *init(cu_product *g, tma *x, ir_buf *b, int64_t n, int64_t arrivals) {
  tn_ctx *ctx = g->ctx;
  if (!b) return NULL;
  ir_var *i = cu_var(ctx, ir_format(ctx, "%s.i", b->name), n);
  ix at = ix_add(ctx, ix_muli(ctx, x->rank, n), i->expr);
  return cu_loop(ctx, i, IR_SERIAL, ir_tile(ctx, ir_format(ctx, "mbar.init %lld", (long long)arrivals), ir_store(ctx, b, &at, IR_SET, ix_int(ctx, TN_I64, 0))));
}

/* Registers a thread: where even shares are few for the sums, what the producer leaves goes to the consumers. */
static const char *roles(tn_ctx *ctx, const cu_target *t, int64_t groups, int64_t sums, int64_t teams) {
  int64_t spare = 24, own = (t->registers / 128 - spare) / groups / 8 * 8, other = 64;
  if (t->registers / 128 / (groups + 1) >= sums + other) own = spare = 0;
  if (own > 240) own = 240;
  return ir_format(ctx, "roles %lld %lld %lld %lld", (long long)groups * 128, (long long)own, (long long)spare, (long long)teams);
}

static const ir_stmt *last_of(cu_product *g, tma *x) {
  ir_var *r = for_block(g, x), *wg = cu_var(g->ctx, "last", x->teams * x->x.n);
  return x->store ? by_blocks(g->ctx, r, cu_loop(g->ctx, wg, IR_WARPGROUP, cu_leave_last(g))) : NULL;
}

static const ir_stmt *block_of(cu_product *g, tma *x, const cu_target *t, const ir_stmt *tiles) {
  tn_ctx *ctx = g->ctx;
  const ir_stmt *all[4], *run[2] = {tiles, last_of(g, x)};
  bool many = x->cluster > 1;
  ir_var *r = for_block(g, x), *first = cu_var(ctx, "first", 1);
  const ir_stmt *start[5] = {init(g, x, x->full, g->stages, 1), init(g, x, x->empty, g->stages, 4 * x->x.n * (x->down + x->across - 1)), init(g, x, x->order, x->teams, 4 * x->x.n), cu_sync(ctx, "fence.proxy"), many ? cu_sync(ctx, "fence.init") : NULL};
  all[0] = by_blocks(ctx, r, cu_loop(ctx, first, IR_LANE, ir_seq(ctx, 5, start)));
  all[1] = cu_sync(ctx, many ? "cluster.sync" : "barrier");
  all[2] = ir_tile(ctx, roles(ctx, t, x->teams * x->x.n, g->b.block / 2, x->teams), ir_seq(ctx, 2, run));
  all[3] = many && x->empty ? cu_sync(ctx, "cluster.sync") : NULL; /* nobody goes while others may arrive at its barriers */
  const ir_stmt *s = ir_alloc_stmt(ctx, g->a.shared, ir_alloc_stmt(ctx, g->b.shared, ir_alloc_stmt(ctx, x->full, ir_seq(ctx, 4, all))));
  if (x->store) s = ir_alloc_stmt(ctx, x->leave.own, ir_alloc_stmt(ctx, x->leave.shared, s));
  if (x->order) s = ir_alloc_stmt(ctx, x->order, s);
  if (x->empty) s = ir_alloc_stmt(ctx, x->empty, s);
  return ir_alloc_stmt(ctx, x->x.acc, s);
}

static const ir_stmt *grid(cu_product *g, tma *x, const cu_target *t) {
  tn_ctx *ctx = g->ctx;
  if (x->blocks) {
    ir_var *block = cu_var(ctx, "block", x->blocks);
    const ir_stmt *tiles[2] = {walk(g, x, block->expr), shared_tiles(g, x, block->expr)};
    const ir_stmt *launches[2] = {cu_loop(ctx, block, IR_GRID, block_of(g, x, t, ir_seq(ctx, 2, tiles)))};
    if (!x->rest) return launches[0];
    launches[1] = join(g, x);
    return ir_alloc_stmt(ctx, x->part, ir_seq(ctx, 2, launches));
  }
  ir_var *row = cu_var(ctx, "block.m", x->m), *column = cu_var(ctx, "block.n", x->n);
  g->at_b = g->block_b->expr;
  x->row = row->expr;
  x->column = column->expr;
  stretch one = whole_tile(g, x, ix_index(ctx, 0), ix_index(ctx, 0));
  const ir_stmt *s = block_of(g, x, t, stretch_of(g, x, &one));
  return cu_loop(ctx, g->block_b, IR_GRID, cu_loop(ctx, row, IR_GRID, cu_loop(ctx, column, IR_GRID, s)));
}

/* ---- the schedule ---- */

/* The choice as text. */
static const char *said(tn_ctx *ctx, const cu_product *g, const tma *x) {
  ir_text t = {.ctx = ctx};
  ir_put(&t, "tma %lld %lld %d", (long long)g->a.block, (long long)g->b.block, g->stages);
  if (x->store) ir_put(&t, " store");
  if (x->blocks) ir_put(&t, " persist %lld %lld", (long long)(x->blocks * x->cluster), (long long)x->raster);
  if (x->teams > 1) ir_put(&t, " pingpong");
  if (x->cluster > 1) ir_put(&t, " cluster %lld", (long long)x->down);
  if (x->across > 1) ir_put(&t, " %lld", (long long)x->across);
  if (x->streamk) ir_put(&t, " streamk");
  return ir_text_str(&t);
}

#define REFUSE(text) return *reason = (text), false

static bool read_words(cu_product *g, tma *x, const cu_target *t, const cu_choice *c, const char **reason) {
  x->store = c->word[CU_STORE].given;
  x->teams = c->word[CU_PINGPONG].given ? 2 : 1;
  x->down = c->word[CU_CLUSTER].given ? c->word[CU_CLUSTER].arg[0] : 1;
  x->across = c->word[CU_CLUSTER].arg[1] ? c->word[CU_CLUSTER].arg[1] : 1;
  if (x->down < 1 || x->down > 4 || x->across > 4 || x->down * x->across > 4 || g->b.block % (8 * x->down) || g->a.block % (8 * x->across)) REFUSE("cluster: 1 to 4 blocks, which share BM and BN in eights");
  x->cluster = x->down * x->across;
  if (x->cluster > 1) g->cluster = x->cluster;
  x->streamk = c->word[CU_STREAMK].given;
  if ((x->teams > 1 || x->streamk) && !c->word[CU_PERSIST].given) REFUSE("pingpong, streamk: only with persist");
  if (x->teams > 1 && x->streamk) REFUSE("streamk: not with pingpong");
  if (!c->word[CU_PERSIST].given) return true;
  x->blocks = (c->word[CU_PERSIST].arg[0] ? c->word[CU_PERSIST].arg[0] : t->multiprocessors) / x->cluster;
  x->raster = c->word[CU_PERSIST].arg[1];
  if (!x->blocks || !x->raster) REFUSE("persist: BLOCKS RASTER, BLOCKS 0 for one a multiprocessor");
  return true;
}

static bool counts(cu_product *g, tma *x, const char **reason) {
  int64_t last = extent_of(g->sum.loops[g->sum.n - 1]);
  x->tiles = g->sum.extent / last * ((last + g->bk - 1) / g->bk);
  x->m = (g->block_m->hi + x->down) / x->down;
  x->n = (g->block_n->hi + x->across) / x->across;
  int64_t all = x->m * x->n * g->batch.extent;
  if (all > 1 << 30 || x->tiles > 1 << 24) REFUSE("more tiles than are counted");
  if (x->streamk) { /* no more blocks than steps */
    if (x->blocks > all * x->tiles) x->blocks = all * x->tiles;
    x->rest = all % x->blocks;
    x->share = x->rest ? (x->rest * x->tiles + x->blocks - 1) / x->blocks : 0;
    if (!x->rest) REFUSE("streamk: the blocks divide the tiles");
    if (g->init->op != IX_CONST || g->init->u.f != 0) REFUSE("streamk: a sum that does not start from zero");
    x->store &= all > x->rest;
  } else if (x->blocks > all) x->blocks = all;
  return true;
}

/* Whether there are maps, by the coordinates of any tile; the maps. A block has `each` tiles. */
static bool maps(cu_product *g, tma *x, int64_t each, cu_map *m, const char **reason) {
  ix zero = ix_index(g->ctx, 0);
  cu_place p = place_of(g, zero, zero, g->a.block / x->across);
  cu_side a, b;
  if (!cu_tma_operand(g, &g->a, &a, &p, reason)) return false;
  p.box = g->b.block / x->down;
  if (!cu_tma_operand(g, &g->b, &b, &p, reason)) return false;
  if (x->store && !cu_leave_of(g, x->teams * x->x.n, (each + x->teams - 1) / x->teams, &x->leave, reason)) return false;
  m[0] = a.map;
  m[1] = b.map;
  m[2] = x->leave.side.map;
  return true;
}

const cu_tile *cu_schedule_tma(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *choice, const char **reason) {
  cu_product g;
  tma x = {0};
  if (!t->hopper) return *reason = "the TMA unit is of sm_90a", NULL;
  if (!cu_product_of(ctx, k, true, &g, reason)) return NULL;
  int64_t last = extent_of(g.sum.loops[g.sum.n - 1]), bk = CU_TILE_BYTES / (int64_t)ir_dtype_bytes(g.dtype), chunks = (last + bk - 1) / bk;
  if (!choice->n && (g.a.rows.extent < 64 || g.b.rows.extent < 64 || g.sum.extent < 64 || last * 4 < chunks * bk * 3)) return *reason = "too few rows for warpgroups, or a sum in short pieces", NULL;
  cu_choice c = choice->n ? *choice : cu_groups_choice(t, &g);
  if (c.n != 3) return *reason = "tma: BM BN STAGES", NULL;
  g.a.block = c.arg[0];
  g.b.block = c.arg[1];
  g.stages = (int)c.arg[2];
  if (!read_words(&g, &x, t, &c, reason) || !cu_groups_of(&g, t, &x.x, 128 + (x.teams - 1) * 2 * g.a.block, reason) || !counts(&g, &x, reason)) return NULL;
  if (x.x.threads > 1024) return *reason = "more threads than a block has", NULL;
  g.at_m = g.at_n = g.at_b = ix_index(ctx, 0);
  cu_map *m = IR_NEW_ARRAY(ctx, cu_map, 3);
  int64_t each = x.blocks ? (x.m * x.n * g.batch.extent - x.rest + x.blocks - 1) / x.blocks : 1;
  if (!maps(&g, &x, each, m, reason)) return NULL;
  if (cu_product_shared_bytes(&g) + cu_leave_bytes(&x.leave) > t->shared_bytes) return *reason = "more shared memory than a block has", NULL;
  ix stages[1] = {ix_index(ctx, g.stages * x.cluster)};
  x.full = ir_buf_new(ctx, "full", TN_I64, 1, stages, NULL, IR_SHARED);
  if (x.tiles * each + x.share > g.stages) x.empty = ir_buf_new(ctx, "empty", TN_I64, 1, stages, NULL, IR_SHARED);
  ix part[4] = {ix_index(ctx, x.blocks + x.rest), ix_index(ctx, x.cluster), ix_index(ctx, g.b.block / 2), ix_index(ctx, 128 * x.x.n)};
  if (x.rest) x.part = ir_buf_new(ctx, "part", TN_F32, 4, part, NULL, IR_LOCAL);
  ix teams[1] = {ix_index(ctx, x.teams * x.cluster)};
  if (x.teams > 1) x.order = ir_buf_new(ctx, "order", TN_I64, 1, teams, NULL, IR_SHARED);
  cu_tile *made = (cu_tile *)cu_tile_new(ctx, k, grid(&g, &x, t), (int)g.threads, said(ctx, &g, &x));
  made->maps = m;
  made->nmaps = 2 + x.store;
  made->cluster = (int)x.cluster;
  return made;
}
