/* cuda_tma_store.c — results that leave by the TMA unit: each warpgroup writes 64 x 64 elements to shared memory, in the
 * 128-byte swizzle, and one of its threads has them copied, while the next 64 columns are written beside them.
 *
 *   for piece of 64 columns:
 *     one thread: bulk.wait.read 1;  group.sync        the elements of two pieces before are read
 *     the kernel's end, its store to shared memory
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

const ir_stmt *cu_leave_tile(cu_product *g, const cu_groups *x, const cu_leave *l, ix rank, ix group, ix turn, int number) {
  tn_ctx *ctx = g->ctx;
  unsigned id = ir_next_id(ctx);
  ir_var *piece = cu_var(ctx, ir_format(ctx, "piece.%u", id), l->pieces), *lane = cu_var(ctx, ir_format(ctx, "end.t.%u", id), 128);
  ir_var *n = cu_var(ctx, ir_format(ctx, "end.n.%u", id), SIDE / 8), *e = cu_var(ctx, ir_format(ctx, "end.e.%u", id), 4);
  ix place[2], buffer = ix_remi(ctx, ix_add(ctx, ix_muli(ctx, turn, l->pieces % l->buffers), piece->expr), l->buffers), m = ix_muli(ctx, ix_addi(ctx, group, -x->first), 64), first = ix_muli(ctx, piece->expr, SIDE);
  cu_groups_element(ctx, lane->expr, n->expr, e->expr, place);
  ix square = ix_add(ctx, ix_muli(ctx, rank, l->groups), group), thread = ix_add(ctx, ix_muli(ctx, group, 128), lane->expr);
  ix sum[2] = {x->base ? ix_add(ctx, x->base, thread) : thread, ix_add(ctx, ix_muli(ctx, ix_add(ctx, ix_muli(ctx, piece->expr, SIDE / 8), n->expr), 4), e->expr)};
  ix at[4] = {square, buffer, place[0], place[1]};
  const ir_stmt *s = cu_product_stage(g, ix_add(ctx, m, place[0]), ix_add(ctx, first, place[1]), ix_load(ctx, x->acc, sum), l->store, l->shared, at);
  const ir_stmt *go[2] = {copy(g, l, square, m, first, buffer, number), cu_sync(ctx, "bulk.commit")}, *all[6];
  int k = 0;
  if (l->again) {
    all[k++] = cu_elected(ctx, cu_sync(ctx, ir_format(ctx, "bulk.wait.read %d", l->buffers - 1)));
    all[k++] = cu_sync(ctx, "group.sync");
  }
  all[k++] = cu_loop(ctx, lane, IR_LANE, cu_loop(ctx, n, IR_UNROLL, cu_loop(ctx, e, IR_UNROLL, s)));
  all[k++] = cu_sync(ctx, "fence.proxy");
  all[k++] = cu_sync(ctx, "group.sync");
  all[k++] = cu_elected(ctx, ir_seq(ctx, 2, go));
  return cu_loop(ctx, piece, IR_UNROLL, ir_seq(ctx, k, all));
}

const ir_stmt *cu_leave_last(cu_product *g) { return cu_elected(g->ctx, cu_sync(g->ctx, "bulk.wait.read 0")); }
