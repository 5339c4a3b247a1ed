/* cuda_split.c — products with few rows and a long sum (split-K): the sum in pieces that blocks of their own add, and a
 * second launch that adds up the pieces, in their order, and goes on as the kernel does.
 *
 *   for o: { acc = init; for k: acc += a b; end(acc) }
 *     -> part[P, o]; for s in 0..P: for o: { acc = 0; for k in the piece s: acc += a b; part[s, o] = acc }   by any schedule of products
 *                    for o: { acc = init; for s: acc += part[s, o]; end(acc) }                              by threads */
#include "codegen/cuda_product.h"

typedef struct piece { /* the loop that is cut */
  const ir_stmt *loop;
  ir_var *number, *within; /* of the piece; in it */
  int64_t size;
} piece;

static const ir_stmt *cut(ir_rewriter *r, const ir_stmt *s) {
  piece *p = r->user;
  if (s != p->loop) return s;
  ix at = ix_add(r->ctx, ix_muli(r->ctx, p->number->expr, p->size), p->within->expr);
  return ir_for(r->ctx, p->within, ix_index(r->ctx, 0), ix_index(r->ctx, p->size), s->loop, ir_subst_var(r->ctx, s->body, s->var, at));
}

/* The longest loop of the sum that the pieces divide. */
static bool find_loop(const lw_problem *p, int64_t parts, piece *x) {
  int best = -1;
  int64_t lo;
  for (int i = 0; i < p->nred; i++)
    if (p->red_extent[i] % parts == 0 && ix_const_value(p->red[i]->lo, &lo) && lo == 0 && (best < 0 || p->red_extent[i] > p->red_extent[best])) best = i;
  if (best < 0) return false;
  x->loop = p->red[best];
  x->size = p->red_extent[best] / parts;
  return true;
}

static const ir_stmt *within_nest(tn_ctx *ctx, const lw_problem *p, const ir_stmt *body) {
  for (int i = p->nout - 1; i >= 0; i--) body = ir_for(ctx, p->out[i]->var, p->out[i]->lo, p->out[i]->hi, p->out[i]->loop, body);
  return body;
}

static ir_buf *parts_buffer(tn_ctx *ctx, const lw_problem *p, tn_dtype t, int64_t parts, ir_space space) {
  ix shape[IR_MAX_RANK] = {ix_index(ctx, parts)};
  for (int i = 0; i < p->nout; i++) shape[i + 1] = ix_index(ctx, p->extent[i]);
  return ir_buf_new(ctx, "part", t, p->nout + 1, shape, NULL, space);
}

const cu_tile *cu_schedule_split(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, int64_t parts, const char *choice, const char **reason) {
  cu_product g;
  piece x = {0};
  if (parts > 64) return *reason = "split: more than 64 pieces", NULL;
  if (!cu_product_of(ctx, k, false, &g, reason)) return NULL;
  const lw_problem *p = &g.p;
  if (p->nout + 1 > IR_MAX_RANK) return *reason = "split: too many loops", NULL;
  if (!find_loop(p, parts, &x)) return *reason = "split: no loop of the sum that the pieces divide", NULL;
  const ir_stmt *sum = p->body->body->items[1];
  tn_dtype acc = g.acc->dtype;
  ir_buf *out = parts_buffer(ctx, p, acc, parts, IR_GLOBAL), *in = parts_buffer(ctx, p, acc, parts, IR_GLOBAL), *passed = parts_buffer(ctx, p, acc, parts, IR_LOCAL);
  out->access = IR_OUT;
  in->access = IR_IN;
  x.number = cu_var(ctx, "piece", parts);
  x.within = cu_var(ctx, "in.piece", x.size);
  ix at[IR_MAX_RANK] = {x.number->expr};
  for (int i = 0; i < p->nout; i++) at[i + 1] = ix_sub(ctx, p->out[i]->var->expr, p->out[i]->lo);
  ir_rewriter r = {.ctx = ctx, .user = &x, .stmt = cut};
  ix zero = ir_is_float(acc) ? ix_float(ctx, acc, 0) : ix_int(ctx, acc, 0), old = ix_load(ctx, g.acc, NULL);
  const ir_stmt *first[3] = {ir_store(ctx, g.acc, NULL, IR_SET, zero), ir_rewrite(&r, sum), ir_store(ctx, out, at, IR_SET, old)};
  const ir_stmt *nest = within_nest(ctx, p, ir_alloc_stmt(ctx, g.acc, ir_seq(ctx, 3, first)));
  const cu_tile *pieces = cu_schedule(ctx, t, cu_variant(ctx, k, out, cu_loop(ctx, x.number, IR_SERIAL, nest)), choice, reason);
  if (!pieces) return NULL;
  if (pieces->kernel->body->kind == IR_ALLOC) return *reason = "split: pieces that are split", NULL;

  ir_var *s = cu_var(ctx, "joined", parts);
  at[0] = s->expr;
  const ir_stmt *items[2 + LW_MAX_LOOPS] = {ir_store(ctx, g.acc, NULL, IR_SET, g.init), cu_loop(ctx, s, IR_SERIAL, ir_store(ctx, g.acc, NULL, IR_SET, ix_add(ctx, old, ix_load(ctx, in, at))))};
  if (g.nepilogue > LW_MAX_LOOPS) return *reason = "split: too long an end", NULL;
  for (int i = 0; i < g.nepilogue; i++) items[2 + i] = g.epilogue[i];
  const ir_stmt *join = within_nest(ctx, p, ir_alloc_stmt(ctx, g.acc, ir_seq(ctx, 2 + g.nepilogue, items)));
  const cu_tile *joined = cu_schedule_threads(ctx, t, cu_variant(ctx, k, in, join), &(cu_choice){2, .arg = {pieces->threads, 1}}, reason);
  if (!joined) return NULL;
  const ir_stmt *both[2] = {ir_subst_buf(ctx, pieces->kernel->body, out, passed), ir_stmt_fresh(ctx, ir_subst_buf(ctx, joined->kernel->body, in, passed), ".join")};
  cu_tile *made = (cu_tile *)cu_tile_new(ctx, k, ir_alloc_stmt(ctx, passed, ir_seq(ctx, 2, both)), pieces->threads, ir_format(ctx, "split %lld %s", (long long)parts, pieces->choice));
  made->maps = pieces->maps;
  made->nmaps = pieces->nmaps;
  made->cluster = pieces->cluster;
  return made;
}
