/* cuda_tma_store.c — results that leave by the TMA unit: each warpgroup writes 64 x 64 elements to shared memory, in the
 * 128-byte swizzle, by stmatrix, and one of its threads has them copied, while the next 64 columns are written beside them.
 *
 *   for piece of 64 columns:
 *     one thread: bulk.wait.read 1;  group.sync        the elements of two pieces before are read
 *     each warp, 16 columns of its 16 rows at a time: the kernel's end, its store to registers; stmatrix: four matrices of 8 x 8
 *     fence.proxy;  group.sync
 *     one thread: tma.store, bulk.commit */
#include "codegen/cuda_tma.h"

enum { SIDE = 64 };

#define REFUSE(text) return *reason = (text), false

/* Stores below s to parameters of the kernel; *only: the one that runs whatever the conditions. */
static int stores(const ir_stmt *s, bool always, const ir_stmt **only) {
  if (!s) return 0;
  if (s->kind == IR_STORE && s->buf->space == IR_GLOBAL) {
    if (always) *only = s;
    return 1;
  }
  int n = stores(s->body, always && (s->kind == IR_LET || s->kind == IR_ALLOC), only) + stores(s->other, false, only);
  for (int i = 0; i < s->n; i++) n += stores(s->items[i], always && s->kind == IR_SEQ, only);
  return n;
}

bool cu_leave_of(cu_product *g, int64_t groups, int64_t tiles, cu_leave *l, const char **reason) {
  tn_ctx *ctx = g->ctx;
  *l = (cu_leave){.groups = groups, .pieces = g->b.block / SIDE};
  if (stores(ir_seq(ctx, g->nepilogue, g->epilogue), true, &l->store) != 1 || !l->store || l->store->op != IR_SET) REFUSE("more than one result, or one under conditions");
  const ir_buf *b = l->store->buf;
  if (b->access != IR_OUT || (b->dtype != TN_F16 && b->dtype != TN_BF16)) REFUSE("results that are not f16 or bf16");
  if (g->b.block % SIDE) REFUSE("store: BN that is no multiple of 64");
  ix m = ix_muli(ctx, g->at_m, g->a.block), n = ix_muli(ctx, g->at_n, g->b.block);
  if (!cu_tma_result(g, l->store, &l->side, m, n, SIDE, SIDE, reason)) return false;
  l->buffers = l->pieces * tiles > 1 ? 2 : 1;
  l->again = l->pieces * tiles > l->buffers;
  ix shape[4] = {ix_index(ctx, groups * (g->cluster ? g->cluster : 1)), ix_index(ctx, l->buffers), ix_index(ctx, SIDE), ix_index(ctx, SIDE)};
  l->shared = ir_buf_new(ctx, "leave", b->dtype, 4, shape, ir_layout_parse(ctx, "split 3 8; xor 3 2 8"), IR_SHARED);
  ix part[2] = {ix_index(ctx, g->threads * (g->cluster ? g->cluster : 1)), ix_index(ctx, 8)};
  l->own = ir_buf_new(ctx, "result", b->dtype, 2, part, NULL, IR_LOCAL);
  return true;
}

int64_t cu_leave_bytes(const cu_leave *l) { return l->shared ? l->groups * l->buffers * SIDE * SIDE * 2 : 0; }

static const ir_stmt *copy(cu_product *g, const cu_leave *l, ix square, ix m, ix n, ix buffer, int number) {
  tn_ctx *ctx = g->ctx;
  const char *why;
  cu_side s;
  cu_tma_result(g, l->store, &s, ix_add(ctx, ix_muli(ctx, g->at_m, g->a.block), m), ix_add(ctx, ix_muli(ctx, g->at_n, g->b.block), n), SIDE, SIDE, &why);
  ir_var *r = cu_var(ctx, ir_format(ctx, "leave.r.%u", ir_next_id(ctx)), SIDE), *c = cu_var(ctx, ir_format(ctx, "leave.c.%u", ir_next_id(ctx)), SIDE);
  ix at[4] = {square, buffer, r->expr, c->expr};
  const ir_stmt *put = cu_product_put(g, l->store, ix_add(ctx, m, r->expr), ix_add(ctx, n, c->expr), ix_load(ctx, l->shared, at));
  return cu_operation(ctx, ir_format(ctx, "tma.store %d", number), NULL, s.map.rank, s.at, cu_loop(ctx, r, IR_SERIAL, cu_loop(ctx, c, IR_SERIAL, put)));
}

/* The end for 16 x 16 elements of each warp, to its registers, and from there to shared[square, buffer]. */
static const ir_stmt *to_shared(cu_product *g, const cu_groups *x, const cu_leave *l, ix square, ix buffer, ix group, ix piece) {
  tn_ctx *ctx = g->ctx;
  unsigned id = ir_next_id(ctx);
  ir_var *w = cu_var(ctx, ir_format(ctx, "end.w.%u", id), 4), *c = cu_var(ctx, ir_format(ctx, "end.c.%u", id), SIDE / 16), *lane = cu_var(ctx, ir_format(ctx, "end.l.%u", id), 32);
  ir_var *n = cu_var(ctx, ir_format(ctx, "end.n.%u", id), 2), *e = cu_var(ctx, ir_format(ctx, "end.e.%u", id), 4);
  ix in_group = ix_muli(ctx, w->expr, 32), base = ix_add(ctx, ix_muli(ctx, group, 128), in_group), place[2];
  if (x->base) base = ix_add(ctx, x->base, base);
  ix eight = ix_add(ctx, ix_muli(ctx, c->expr, 2), n->expr), m = ix_muli(ctx, ix_addi(ctx, group, -x->first), 64), thread = ix_add(ctx, base, lane->expr);
  cu_groups_element(ctx, ix_add(ctx, in_group, lane->expr), eight, e->expr, place);
  ix sum[2] = {thread, ix_add(ctx, ix_muli(ctx, ix_add(ctx, ix_muli(ctx, piece, SIDE / 8), eight), 4), e->expr)}, own[2] = {thread, ix_add(ctx, ix_muli(ctx, n->expr, 4), e->expr)};
  const ir_stmt *end = cu_product_stage(g, ix_add(ctx, m, place[0]), ix_add(ctx, ix_muli(ctx, piece, SIDE), place[1]), ix_load(ctx, x->acc, sum), l->store, l->own, own);
  const ir_stmt *set[2] = {ir_store(ctx, l->own, own, IR_SET, ix_num(ctx, l->own->dtype, 0)), end}; /* beyond the borders the end stores nothing */
  ir_var *r = cu_var(ctx, ir_format(ctx, "mat.r.%u", id), 4), *i = cu_var(ctx, ir_format(ctx, "mat.i.%u", id), 8), *j = cu_var(ctx, ir_format(ctx, "mat.j.%u", id), 8);
  ix row = ix_add(ctx, ix_add(ctx, ix_muli(ctx, w->expr, 16), ix_muli(ctx, ix_remi(ctx, r->expr, 2), 8)), i->expr);
  ix column = ix_add(ctx, ix_add(ctx, ix_muli(ctx, c->expr, 16), ix_muli(ctx, ix_divi(ctx, r->expr, 2), 8)), j->expr);
  ix from[2] = {ix_add(ctx, base, ix_add(ctx, ix_muli(ctx, i->expr, 4), ix_divi(ctx, j->expr, 2))), ix_add(ctx, ix_muli(ctx, r->expr, 2), ix_remi(ctx, j->expr, 2))}, to[4] = {square, buffer, row, column};
  const ir_stmt *matrices = cu_loop(ctx, r, IR_SERIAL, cu_loop(ctx, i, IR_SERIAL, cu_loop(ctx, j, IR_SERIAL, ir_store(ctx, l->shared, to, IR_SET, ix_load(ctx, l->own, from)))));
  const ir_stmt *both[2] = {cu_loop(ctx, lane, IR_LANE, cu_loop(ctx, n, IR_UNROLL, cu_loop(ctx, e, IR_UNROLL, ir_seq(ctx, 2, set)))), ir_tile(ctx, "stmatrix.x4", matrices)};
  return cu_loop(ctx, w, IR_WARP, cu_loop(ctx, c, IR_UNROLL, ir_seq(ctx, 2, both)));
}

const ir_stmt *cu_leave_tile(cu_product *g, const cu_groups *x, const cu_leave *l, ix rank, ix group, ix turn, int number) {
  tn_ctx *ctx = g->ctx;
  ir_var *piece = cu_var(ctx, ir_format(ctx, "piece.%u", ir_next_id(ctx)), l->pieces);
  ix buffer = ix_remi(ctx, ix_add(ctx, ix_muli(ctx, turn, l->pieces % l->buffers), piece->expr), l->buffers), m = ix_muli(ctx, ix_addi(ctx, group, -x->first), 64), square = ix_add(ctx, ix_muli(ctx, rank, l->groups), group);
  const ir_stmt *go[2] = {copy(g, l, square, m, ix_muli(ctx, piece->expr, SIDE), buffer, number), cu_sync(ctx, "bulk.commit")}, *all[6];
  int k = 0;
  if (l->again) {
    all[k++] = cu_elected(ctx, cu_sync(ctx, ir_format(ctx, "bulk.wait.read %d", l->buffers - 1)));
    all[k++] = cu_sync(ctx, "group.sync");
  }
  all[k++] = to_shared(g, x, l, square, buffer, group, piece->expr);
  all[k++] = cu_sync(ctx, "fence.proxy");
  all[k++] = cu_sync(ctx, "group.sync");
  all[k++] = cu_elected(ctx, ir_seq(ctx, 2, go));
  return cu_loop(ctx, piece, IR_UNROLL, ir_seq(ctx, k, all));
}

const ir_stmt *cu_leave_last(cu_product *g) { return cu_elected(g->ctx, cu_sync(g->ctx, "bulk.wait.read 0")); }
