/* schedule_winograd_weights.c — algorithm winograd_weights m cblock kblock; see schedule.h.
 *
 * The gradient of a 3x3 convolution's weights, dW[c, r, s, k] = sum over n, y, x of X[n, c, y + r, x + s] * dY[n, k, y, x],
 * by the adjoint of Winograd's algorithm (winograd_transform.h):
 *
 *   V = B' d B of X's tiles and U = A y A' of those of dY: made by calls of their own (ir_buf.made), [block, product, tile, channel]
 *   for task:                                    a block of input channels with one of output channels
 *     for wx, wt, wk: M[wx, (wt, wk)] = sum over tiles wn of V[., wx, wn, wt] * U[., wx, wn, wk]
 *     for oc, ob: G' M G, and what follows the sum in the original kernel */
#include "lower/problem.h"
#include "lower/schedule_internal.h"
#include "lower/winograd_transform.h"
#include <string.h>

typedef struct wino {
  sched *s;
  tn_ctx *ctx;
  ir_builder *b;
  lw_winograd f;
  int64_t cblock, kblock;                          /* of the step */
  int64_t n, k, c, height, width, top, left;       /* height, width: of dY */
  int64_t rows, columns, tiles, lanes;             /* tiles down, across, altogether; channels at once */
  const ir_var *var[4];                            /* c r s k of the original */
  ir_buf *x, *y, *acc;
  const ir_stmt *after;                            /* what follows the sum */
} wino;

static ix number(const wino *w, int64_t v) { return ix_index(w->ctx, v); }
static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* ---- which kernels it fits ---- */

static bool window_index(tn_ctx *ctx, ix e, const ir_var *out, const ir_var *tap, int64_t *pad) {
  return ix_const_value(ix_sub(ctx, ix_add(ctx, out->expr, tap->expr), e), pad);
}

static bool fits(wino *w) {
  tn_ctx *ctx = w->ctx;
  sched *s = w->s;
  lw_problem q = lw_problem_of(ctx, s->k);
  if (q.kind != LW_CONTRACTION || q.dtype != TN_F32 || q.nout != 4 || q.nred != 3 || q.guard) return refuse(s, "the kernel is no gradient of weights in f32, without borders");
  for (int i = 0; i < 4; i++) {
    w->var[i] = q.out[i]->var;
    if (q.extent[i] < 1 || q.out[i]->loop != IR_SERIAL || !ix_is_int(q.out[i]->lo, 0)) return refuse(s, "its loops are scheduled already, or have no constant extents");
  }
  const ir_var *n = q.red[0]->var, *y = q.red[1]->var, *x = q.red[2]->var;
  ix a = q.a, b = q.b;
  if (q.extent[1] != 3 || q.extent[2] != 3 || q.red_extent[0] < 1 || q.red_extent[1] < 1 || q.red_extent[2] < 1) return refuse(s, "its window is not 3 x 3");
  if (a->op != IX_LOAD || b->op != IX_LOAD || a->nargs != 4 || b->nargs != 4 || a->u.buf == b->u.buf) return refuse(s, "its operands are not loads of two pictures");
  if (a->args[0] != n->expr || a->args[1] != w->var[0]->expr || !window_index(ctx, a->args[2], y, w->var[1], &w->top) || !window_index(ctx, a->args[3], x, w->var[2], &w->left) ||
      b->args[0] != n->expr || b->args[1] != w->var[3]->expr || b->args[2] != y->expr || b->args[3] != x->expr)
    return refuse(s, "it does not read x[n, c, y + r - p, x + s - p] and dy[n, k, y, x]");
  w->x = a->u.buf, w->y = b->u.buf;
  if (!w->x->constant || !w->y->constant || w->x->dtype != TN_F32 || w->y->dtype != TN_F32) return refuse(s, "its operands are not given ahead, in f32");
  w->c = q.extent[0], w->k = q.extent[3], w->n = q.red_extent[0], w->height = q.red_extent[1], w->width = q.red_extent[2];
  const ir_stmt *body = q.body;
  if (!body || body->kind != IR_ALLOC || body->body->kind != IR_SEQ || body->body->n < 3) return refuse(s, "the kernel is no plain sum");
  w->acc = body->buf;
  const ir_stmt *seq = body->body, *zero = seq->items[0];
  if (zero->kind != IR_STORE || zero->buf != w->acc || zero->op != IR_SET || !ix_is_const(zero->value) || zero->value->u.f != 0 || seq->items[1] != q.red[0]) return refuse(s, "the sum does not start at zero");
  w->after = ir_seq(ctx, seq->n - 2, seq->items + 2);
  return true;
}

/* ---- V and U ---- */

static ir_buf *transformed(wino *w, const ir_buf *of, int64_t channels, int64_t block) {
  int64_t tiles = w->tiles;
  while (tiles * block * 4 % 128 != 64 && tiles < w->tiles + 4) tiles++; /* products are written side by side: not all to one set of a cache */
  if (tiles * block * 4 % 128 != 64) tiles = w->tiles;
  ir_buf *b = ir_buf_new(w->ctx, of->name, TN_F32, 4, (ix[]){number(w, channels / block), number(w, w->f.a * w->f.a), number(w, tiles), number(w, block)}, NULL, IR_GLOBAL);
  b->access = IR_IN;
  b->constant = true;
  return b;
}

static ix lane_loop(wino *w) { return ib_for(w->b, "lane", number(w, 0), number(w, w->lanes)); }

/* Element (row, column) of a picture, zero outside where `edges`. */
static ix pixel(wino *w, ir_buf *from, ix n, ix c, ix row, ix column, bool edges) {
  tn_ctx *ctx = w->ctx;
  ix at = ix_load(ctx, from, (ix[]){n, c, row, column});
  if (!edges) return at;
  ix there = ix_and(ctx, ix_within(ctx, row, number(w, 0), from->shape[2]), ix_within(ctx, column, number(w, 0), from->shape[3]));
  return ix_select(ctx, there, at, ix_float(ctx, TN_F32, 0));
}

/* Columns of a tile of `size` x `size`: half = the transform down. */
static void columns_of(wino *w, ir_buf *from, bool x, ix n, ix c, ix row, ix column, ir_buf *half, bool edges) {
  int size = x ? w->f.a : w->f.m;
  ix j = ib_loop(w->b, "j", number(w, size)), lane = lane_loop(w), d[LW_WINO_A], out[LW_WINO_A];
  for (int i = 0; i < size; i++) d[i] = ib_let(w->b, "d", pixel(w, from, n, ix_add(w->ctx, c, lane), ix_addi(w->ctx, row, i), ix_add(w->ctx, column, j), edges));
  (x ? lw_wino_input : lw_wino_spread)(w->ctx, w->b, &w->f, d, out);
  for (int i = 0; i < w->f.a; i++) ib_store(w->b, half, (ix[]){number(w, i), j, lane}, out[i]);
  ib_end_n(w->b, 2);
}

static const ir_stmt *lanes_are_vectors(ir_rewriter *r, const ir_stmt *st) {
  if (st->kind != IR_FOR || strncmp(st->var->name, "lane", 4) != 0) return st;
  return ir_for(r->ctx, st->var, st->lo, st->hi, IR_VECTOR, st->body);
}

/* The kernel that makes V of X (`x`) or U of dY. */
static const ir_kernel *make(wino *w, const ir_buf *of, const ir_buf *as, bool x) {
  tn_ctx *ctx = w->ctx;
  int fa = w->f.a, size = x ? fa : w->f.m;
  int64_t block = x ? w->cblock : w->kblock, channels = x ? w->c : w->k, rows, columns;
  ir_buf *from = ir_buf_new(ctx, "in0", TN_F32, 4, of->shape, of->layout, IR_GLOBAL), *to = ir_buf_new(ctx, "out1", TN_F32, 4, as->shape, NULL, IR_GLOBAL);
  from->access = IR_IN, to->access = IR_OUT;
  ir_builder *b = w->b = ir_builder_new(ctx);
  ix t = ib_loop(b, "t", as->shape[2]), tile = ib_let(b, "tile", ix_min(ctx, t, number(w, w->tiles - 1)));
  ix n = ib_let(b, "tn", ix_divi(ctx, tile, w->rows * w->columns)), row = ix_muli(ctx, ix_remi(ctx, ix_divi(ctx, tile, w->columns), w->rows), w->f.m);
  ix column = ix_muli(ctx, ix_remi(ctx, tile, w->columns), w->f.m);
  row = ib_let(b, "ty", x ? ix_addi(ctx, row, -w->top) : row), column = ib_let(b, "tx", x ? ix_addi(ctx, column, -w->left) : column);
  ix cb = ib_loop(b, "cb", number(w, channels / w->lanes)), c = ix_muli(ctx, cb, w->lanes);
  ir_buf *half = ib_alloc(b, "half", TN_F32, 3, (ix[]){number(w, fa), number(w, size), number(w, w->lanes)}, IR_LOCAL);
  ix whole = ix_bool(ctx, ix_const_value(of->shape[2], &rows) && ix_const_value(of->shape[3], &columns));
  whole = ix_and(ctx, whole, ix_and(ctx, ix_within(ctx, row, number(w, 0), ix_addi(ctx, of->shape[2], 1 - size)), ix_within(ctx, column, number(w, 0), ix_addi(ctx, of->shape[3], 1 - size))));
  ib_if(b, whole);
  columns_of(w, from, x, n, c, row, column, half, false);
  ib_else(b);
  columns_of(w, from, x, n, c, row, column, half, true);
  ib_end(b);
  ix i = ib_loop(b, "i", number(w, fa)), lane = lane_loop(w), d[LW_WINO_A], out[LW_WINO_A];
  for (int j = 0; j < size; j++) d[j] = ib_let(b, "d", ix_load(ctx, half, (ix[]){i, number(w, j), lane}));
  (x ? lw_wino_input : lw_wino_spread)(ctx, b, &w->f, d, out);
  ix inside = ix_add(ctx, ix_remi(ctx, c, block), lane);
  for (int j = 0; j < fa; j++) ib_store(b, to, (ix[]){ix_divi(ctx, c, block), ix_addi(ctx, ix_muli(ctx, i, fa), j), t, inside}, out[j]);
  ib_end_n(b, 4);
  ir_rewriter r = {.ctx = ctx, .stmt = lanes_are_vectors};
  ir_kernel *made = IR_NEW(ctx, ir_kernel);
  made->name = x ? "winograd_pictures" : "winograd_gradients";
  made->nbufs = 2;
  made->bufs = IR_NEW_ARRAY(ctx, ir_buf *, 2);
  made->bufs[0] = from, made->bufs[1] = to;
  made->body = ir_rewrite(&r, ib_finish(b));
  return made;
}

/* ---- the products ---- */

static void multiply(wino *w, ix cb, ix kb, ir_buf *v, ir_buf *u, ir_buf *m) {
  tn_ctx *ctx = w->ctx;
  ix at = ib_loop(w->b, "wx", number(w, w->f.a * w->f.a)), t = ib_loop(w->b, "wt", number(w, w->cblock)), k = ib_loop(w->b, "wk", number(w, w->kblock));
  ir_buf *acc = ib_local(w->b, "acc", TN_F32, ix_float(ctx, TN_F32, 0));
  ix n = ib_loop(w->b, "wn", number(w, w->tiles));
  ib_set(w->b, acc, ix_fma(ctx, ix_load(ctx, v, (ix[]){cb, at, n, t}), ix_load(ctx, u, (ix[]){kb, at, n, k}), ib_get(w->b, acc)));
  ib_end(w->b);
  ib_store(w->b, m, (ix[]){at, ix_add(ctx, ix_muli(ctx, t, w->kblock), k)}, ib_get(w->b, acc));
  ib_end_n(w->b, 3);
}

typedef struct finish { /* one result */
  wino *w;
  ir_buf *out;
  ix at[3];
} finish;

static ix finish_sum(void *user, ix load) {
  finish *f = user;
  return load->u.buf == f->w->acc ? ix_load(f->w->ctx, f->out, f->at) : NULL;
}
static ix finish_expr(ir_rewriter *r, ix e) { return ix_subst_loads(r->ctx, e, finish_sum, r->user); }

static void results(wino *w, ix cb, ix kb, ir_buf *m) {
  tn_ctx *ctx = w->ctx;
  int fa = w->f.a;
  ix oc = ib_loop(w->b, "oc", number(w, w->cblock)), ob = ib_loop(w->b, "ob", number(w, w->kblock / w->lanes)), kv = ix_muli(ctx, ob, w->lanes);
  ir_buf *half = ib_alloc(w->b, "sums", TN_F32, 3, (ix[]){number(w, 3), number(w, fa), number(w, w->lanes)}, IR_LOCAL);
  ir_buf *result = ib_alloc(w->b, "result", TN_F32, 3, (ix[]){number(w, 3), number(w, 3), number(w, w->lanes)}, IR_LOCAL);
  ix v[LW_WINO_A], out[LW_WINO_A];
  ix j = ib_loop(w->b, "sj", number(w, fa)), lane = lane_loop(w);
  for (int i = 0; i < fa; i++) v[i] = ib_let(w->b, "v", ix_load(ctx, m, (ix[]){ix_addi(ctx, j, i * fa), ix_add(ctx, ix_add(ctx, ix_muli(ctx, oc, w->kblock), kv), lane)}));
  lw_wino_gather(ctx, w->b, &w->f, v, out);
  for (int i = 0; i < 3; i++) ib_store(w->b, half, (ix[]){number(w, i), j, lane}, out[i]);
  ib_end_n(w->b, 2);
  ix i = ib_loop(w->b, "si", number(w, 3));
  lane = lane_loop(w);
  for (int c = 0; c < fa; c++) v[c] = ib_let(w->b, "v", ix_load(ctx, half, (ix[]){i, number(w, c), lane}));
  lw_wino_gather(ctx, w->b, &w->f, v, out);
  for (int c = 0; c < 3; c++) ib_store(w->b, result, (ix[]){i, number(w, c), lane}, out[c]);
  ib_end_n(w->b, 2);
  ix r = ib_loop(w->b, "or", number(w, 3)), s = ib_loop(w->b, "os", number(w, 3));
  lane = lane_loop(w);
  finish f = {w, result, {r, s, lane}};
  ir_rewriter rw = {.ctx = ctx, .user = &f, .expr = finish_expr};
  const ir_stmt *st = ir_rewrite(&rw, ir_stmt_fresh(ctx, w->after, ".f"));
  ix by[4] = {ix_add(ctx, ix_muli(ctx, cb, w->cblock), oc), r, s, ix_add(ctx, ix_add(ctx, ix_muli(ctx, kb, w->kblock), kv), lane)};
  for (int a = 0; a < 4; a++) st = ir_subst_var(ctx, st, (ir_var *)w->var[a], by[a]);
  ib_stmt(w->b, st);
  ib_end_n(w->b, 5);
}

bool sched_winograd_weights(sched *s) {
  wino w = {.s = s, .ctx = s->ctx, .cblock = s->num[2], .kblock = s->num[3], .lanes = s->num[4]};
  if (s->nargs != 5) return refuse(s, "winograd_weights takes four numbers: m cblock kblock lanes");
  if (s->num[1] > 6 || !lw_winograd_of((int)s->num[1], &w.f)) return refuse(s, "tiles of %lld; 2, 4 and 6 are known", (long long)s->num[1]);
  if (!fits(&w)) return false;
  if (w.lanes < 1 || w.lanes > 64 || w.cblock < 1 || w.kblock < 1 || w.c % w.cblock || w.k % w.kblock || w.cblock % w.lanes || w.kblock % w.lanes)
    return refuse(s, "blocks of channels must be divisors of them, and multiples of the lanes");
  w.rows = ceil_div(w.height, w.f.m), w.columns = ceil_div(w.width, w.f.m), w.tiles = w.n * w.rows * w.columns;
  tn_ctx *ctx = w.ctx;
  ir_buf *v = transformed(&w, w.x, w.c, w.cblock), *u = transformed(&w, w.y, w.k, w.kblock);
  v->made = make(&w, w.x, v, true);
  u->made = make(&w, w.y, u, false);
  w.b = ir_builder_new(ctx);
  ix task = ib_loop(w.b, "task", number(&w, w.c / w.cblock * (w.k / w.kblock)));
  task->u.var->independent = true; /* tasks own blocks of the result */
  ix cb = ix_divi(ctx, task, w.k / w.kblock), kb = ix_remi(ctx, task, w.k / w.kblock);
  ir_buf *m = ib_alloc(w.b, "M", TN_F32, 2, (ix[]){number(&w, w.f.a * w.f.a), number(&w, w.cblock * w.kblock + 16)}, IR_LOCAL); /* + 16: rows in other sets */
  multiply(&w, cb, kb, v, u, m);
  results(&w, cb, kb, m);
  ib_end(w.b);
  ir_rewriter r = {.ctx = ctx, .stmt = lanes_are_vectors};
  s->k->body = ir_rewrite(&r, ib_finish(w.b));
  for (int i = 0; i < s->k->nbufs; i++)
    if (s->k->bufs[i] == w.x) s->k->bufs[i] = v;
    else if (s->k->bufs[i] == w.y) s->k->bufs[i] = u;
  return true;
}
