/* schedule_winograd.c — algorithm winograd m tiles panel block parts; see schedule.h.
 *
 * A 3x3 convolution of stride 1 becomes, per group of `tiles` tiles (and one of `parts` parts of
 * the output channels, so that small pictures have several tasks):
 *
 *   for it, ib: V[., (ib, it, .)] = B' d B     tiles of the input, transformed, in blocks of channels
 *   for wp:                                 panels of output channels
 *     for wx, wt, wk: M[wx, (wt, wk)] = sum over wb, wc of V[wx, (wb, wt, wc)] * U[wp, wx, wb*block+wc, wk]
 *     for ot, ob: A' M A, and what follows the sum in the original kernel, once per output
 *
 * Bytes (u8 x s8, sums in i32) go the same way in integers, without loss: V and U are words, the sums hold 4 times the
 * result modulo 2^32, and channels are few enough that it is less than 2^31; U lies in pairs of channels, [c / 2][k][2].
 *
 * U, the transformed weights, takes the place of the constant operand; the kernel that makes
 * it hangs on the buffer (ir_buf.made). V and M are sized to stay in the second-level cache. */
#include "lower/problem.h"
#include "lower/schedule_internal.h"
#include "lower/winograd_transform.h"
#include <string.h>

typedef struct wino {
  sched *s;
  tn_ctx *ctx;
  ir_builder *b;
  lw_winograd f;
  int64_t tiles, panel, block, parts;                          /* of the step */
  int64_t n, k, c, height, width, in_height, in_width, top, left;
  int64_t rows, columns, all, groups, panels, cblocks;         /* tiles down, across, altogether; panels of one part */
  int64_t urows;                                               /* of a panel of U: the channels, and what keeps its products out of one set of a cache */
  const ir_var *var[4];                                        /* n k y x of the original */
  ir_buf *x, *w, *u, *acc;
  const ir_stmt *after;                                        /* what follows the sum */
  bool turned;                                                 /* weights [c, k, 2 - r, 2 - s]: of a transposed convolution */
  bool whole;                                                  /* integers */
  tn_dtype vtype, mtype;                                       /* of V and U, of M */
} wino;

enum { MOST_CHANNELS = (1 << 29) / (9 * 255 * 128) }; /* 4 |y| < 2^31 */

static ix number(const wino *w, int64_t v) { return ix_index(w->ctx, v); }
static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* ---- which kernels it fits ---- */

/* e = out + tap - pad for constant pad: its value; false otherwise. */
static bool window_index(tn_ctx *ctx, ix e, const ir_var *out, const ir_var *tap, int64_t *pad) {
  return ix_const_value(ix_sub(ctx, ix_add(ctx, out->expr, tap->expr), e), pad);
}

/* w[k, c, r, s], or turned: w[c, k, 2 - r, 2 - s]. */
static bool weight_index(wino *w, ix b, const ir_var *k, const lw_problem *q) {
  tn_ctx *ctx = w->ctx;
  if (b->nargs != 4) return false;
  const ir_var *c = q->red[0]->var;
  w->turned = b->args[0] == c->expr;
  if (b->args[w->turned] != k->expr || b->args[!w->turned] != c->expr) return false;
  for (int i = 1; i < 3; i++) {
    ix tap = q->red[i]->var->expr;
    if (b->args[i + 1] != (w->turned ? ix_sub(ctx, ix_index(ctx, 2), tap) : tap)) return false;
  }
  return true;
}

/* acc = 0; the reduction; the rest. */
static bool read_body(wino *w, const lw_problem *q) {
  const ir_stmt *body = q->body;
  if (!body || body->kind != IR_ALLOC || body->body->kind != IR_SEQ || body->body->n < 3) return refuse(w->s, "the kernel is no plain sum");
  w->acc = body->buf;
  const ir_stmt *seq = body->body, *zero = seq->items[0];
  if (zero->kind != IR_STORE || zero->buf != w->acc || zero->op != IR_SET || !ix_is_const(zero->value) || (w->whole ? zero->value->u.i != 0 : zero->value->u.f != 0) || seq->items[1] != q->red[0])
    return refuse(w->s, "the sum does not start at zero");
  w->after = ir_seq(w->ctx, seq->n - 2, seq->items + 2);
  return true;
}

static bool fits(wino *w) {
  tn_ctx *ctx = w->ctx;
  sched *s = w->s;
  lw_problem q = lw_problem_of(ctx, s->k);
  if (q.kind != LW_CONTRACTION || (q.dtype != TN_F32 && q.dtype != TN_I32) || q.nout != 4 || q.nred != 3) return refuse(s, "the kernel is no convolution of f32 or bytes");
  for (int i = 0; i < 4; i++) w->var[i] = q.out[i]->var;
  for (int i = 0; i < 4; i++)
    if (q.extent[i] < 1 || q.out[i]->loop != IR_SERIAL || !ix_is_int(q.out[i]->lo, 0)) return refuse(s, "its loops are scheduled already, or have no constant extents");
  if (q.red_extent[0] < 1 || q.red_extent[1] != 3 || q.red_extent[2] != 3) return refuse(s, "its window is not 3 x 3");
  const ir_var *c = q.red[0]->var, *r = q.red[1]->var, *t = q.red[2]->var;
  ix a = q.a, b = q.b;
  if (a->op != IX_LOAD || b->op != IX_LOAD) return refuse(s, "its operands are not loads");
  if (a->u.buf->constant) a = q.b, b = q.a;
  w->x = a->u.buf, w->w = b->u.buf;
  w->whole = q.dtype == TN_I32, w->vtype = w->whole ? TN_I16 : TN_F32, w->mtype = q.dtype;
  if (w->x->dtype != (w->whole ? TN_U8 : TN_F32) || w->w->dtype != (w->whole ? TN_I8 : TN_F32)) return refuse(s, "its operands are neither f32 nor u8 and s8");
  if (w->whole && (w->f.m != 2 || q.red_extent[0] > MOST_CHANNELS || w->block % 2)) return refuse(s, "integers take tiles of 2, an even block and at most %d channels", MOST_CHANNELS);
  if (a->nargs != 4 || a->args[0] != w->var[0]->expr || a->args[1] != c->expr || !weight_index(w, b, w->var[1], &q) || !window_index(ctx, a->args[2], w->var[2], r, &w->top) || !window_index(ctx, a->args[3], w->var[3], t, &w->left))
    return refuse(s, "it does not read x[n, c, y + r - p, x + s - p] and w[k, c, r, s] or w[c, k, 2 - r, 2 - s]");
  if (!w->w->constant || w->w->layout) return refuse(s, "'%s' is not a constant operand in its own layout", w->w->name);
  if (!ix_const_value(w->x->shape[2], &w->in_height) || !ix_const_value(w->x->shape[3], &w->in_width)) return refuse(s, "the picture has no constant size");
  ix inside = ix_bool(ctx, true);
  for (int i = 2; i < 4; i++) inside = ix_and(ctx, inside, ix_within(ctx, a->args[i], ix_index(ctx, 0), w->x->shape[i]));
  if (q.guard && q.guard != inside) return refuse(s, "its guard is not the border of the picture");
  w->n = q.extent[0], w->k = q.extent[1], w->height = q.extent[2], w->width = q.extent[3], w->c = q.red_extent[0];
  return read_body(w, &q);
}

/* ---- weights ---- */

/* U of panel p, all its channels; `edges`: of some there are no weights, which count as zero. Rows beyond the blocks of
 * channels are never read: they repeat the last channel, which needs no guard (a guarded gather is long code). */
static void make_panel(wino *w, ir_buf *from, ir_buf *to, ix p, bool edges) {
  tn_ctx *ctx = w->ctx;
  int fa = w->f.a;
  ix c = ib_loop(w->b, "c", number(w, w->urows)), k = ib_loop(w->b, "k", number(w, w->panel)), half[3][LW_WINO_A], zero = ix_cast(ctx, w->whole ? TN_I32 : TN_F32, ix_int(ctx, TN_I32, 0));
  ix out = ix_add(ctx, ix_muli(ctx, p, w->panel), k), from_c = ix_min(ctx, c, number(w, w->c - 1));
  ix there = w->c < w->cblocks * w->block ? ix_lt(ctx, c, number(w, w->c)) : ix_bool(ctx, true);
  if (edges) there = ix_and(ctx, ix_lt(ctx, out, number(w, w->k)), there);
  for (int s = 0; s < 3; s++) {
    ix column[3];
    for (int r = 0; r < 3; r++) {
      ix g = ix_load(ctx, from, w->turned ? (ix[]){from_c, out, ix_index(ctx, 2 - r), ix_index(ctx, 2 - s)} : (ix[]){out, from_c, ix_index(ctx, r), ix_index(ctx, s)});
      column[r] = ib_let(w->b, "g", ix_select(ctx, there, ix_cast(ctx, (tn_dtype)zero->dtype, g), zero));
    }
    lw_wino_weights(w->ctx, w->b, &w->f, w->whole ? 2 : 1, column, half[s]);
    for (int i = 0; i < fa; i++) half[s][i] = ib_let(w->b, "h", half[s][i]);
  }
  for (int i = 0; i < fa; i++) {
    ix row[LW_WINO_A];
    lw_wino_weights(w->ctx, w->b, &w->f, w->whole ? 2 : 1, (ix[]){half[0][i], half[1][i], half[2][i]}, row);
    for (int j = 0; j < fa; j++)
      ib_store(w->b, to, (ix[]){p, ix_index(ctx, i * fa + j), w->whole ? ix_divi(ctx, c, 2) : c, w->whole ? ix_add(ctx, ix_muli(ctx, k, 2), ix_remi(ctx, c, 2)) : k}, ix_cast(ctx, w->vtype, row[j]));
  }
  ib_end_n(w->b, 2);
}

/* U[p, i*a + j, c, k] = (G w G')[i, j] of output channel p * panel + k; zero beyond the channels there are. In
 * integers 4 times that, and [p, i*a + j, c / 2, 2 k + c mod 2]. */
static const ir_kernel *make_weights(wino *w) {
  tn_ctx *ctx = w->ctx;
  ir_builder *b = ir_builder_new(ctx), *kept = w->b;
  ir_buf *from = ir_buf_new(ctx, "in0", w->w->dtype, 4, w->w->shape, NULL, IR_GLOBAL), *to = ir_buf_new(ctx, "out1", w->vtype, 4, w->u->shape, NULL, IR_GLOBAL);
  from->access = IR_IN, to->access = IR_OUT;
  w->b = b;
  ix p = ib_loop(b, "p", w->u->shape[0]);
  ib_if(b, ix_le(ctx, ix_addi(ctx, ix_muli(ctx, p, w->panel), w->panel), number(w, w->k)));
  make_panel(w, from, to, p, false);
  ib_else(b);
  make_panel(w, from, to, p, true);
  ib_end_n(b, 2);
  w->b = kept;
  ir_kernel *made = IR_NEW(ctx, ir_kernel);
  made->name = "winograd_weights";
  made->nbufs = 2;
  made->bufs = IR_NEW_ARRAY(ctx, ir_buf *, 2);
  made->bufs[0] = from, made->bufs[1] = to;
  made->body = ib_finish(b);
  return made;
}

/* Rows of U for one product, so that they take an odd number of cache lines: its kernel writes the products side by side. */
static int64_t rows_apart(const wino *w) {
  int64_t rows = w->cblocks * w->block, bytes = w->panel * (int64_t)ir_dtype_bytes(w->vtype);
  for (int64_t more = 0; more < 4; more++)
    if ((rows + more) * bytes % 128 == 64) return w->whole ? rows : rows + more;
  return rows;
}

/* ---- the three stages ---- */

/* V and M are rows, one per product of a tile, of odd numbers of cache lines: what lies a row apart
 * (the stores of one tile, the loads of one result) would else meet in few sets of the cache. */
static ir_buf *rows_of(wino *w, const char *name, tn_dtype t, int64_t elements) {
  int64_t line = 64 / (int64_t)ir_dtype_bytes(t), lines = ceil_div(elements, line) | 1;
  return ib_alloc(w->b, name, t, 2, (ix[]){number(w, w->f.a * w->f.a), number(w, lines * line)}, IR_LOCAL);
}
/* V: channel block cb, tile t, channel c of the block. */
static ix v_at(wino *w, ix cb, ix t, ix c) { return ix_add(w->ctx, ix_muli(w->ctx, ix_add(w->ctx, ix_muli(w->ctx, cb, w->tiles), t), w->block), c); }
static ix m_at(wino *w, ix t, ix k) { return ix_add(w->ctx, ix_muli(w->ctx, t, w->panel), k); }

typedef struct place { /* of a tile */
  ix n, y, x; /* picture, and the tile's first output */
} place;

static place place_of(wino *w, ix tile) {
  tn_ctx *ctx = w->ctx;
  place p;
  p.n = ib_let(w->b, "tn", ix_divi(ctx, tile, w->rows * w->columns));
  p.y = ib_let(w->b, "ty", ix_muli(ctx, ix_remi(ctx, ix_divi(ctx, tile, w->columns), w->rows), w->f.m));
  p.x = ib_let(w->b, "tx", ix_muli(ctx, ix_remi(ctx, tile, w->columns), w->f.m));
  return p;
}

static ix lane_loop(wino *w) { return ib_loop(w->b, "lane", ix_index(w->ctx, w->block)); }

/* Columns of a tile: half = B' d. `edges`: parts of the tile may lie outside the picture. */
static void input_columns(wino *w, const place *p, ix cb, ir_buf *half, bool edges) {
  tn_ctx *ctx = w->ctx;
  ix j = ib_loop(w->b, "ij", number(w, w->f.a)), lane = lane_loop(w), d[LW_WINO_A], out[LW_WINO_A];
  ix c = ix_add(ctx, ix_muli(ctx, cb, w->block), lane), column = ix_addi(ctx, ix_add(ctx, p->x, j), -w->left);
  for (int i = 0; i < w->f.a; i++) {
    ix row = ix_addi(ctx, p->y, i - w->top), there = ix_bool(ctx, true);
    if (edges) there = ix_and(ctx, ix_within(ctx, row, number(w, 0), w->x->shape[2]), ix_within(ctx, column, number(w, 0), w->x->shape[3]));
    if (w->c % w->block) there = ix_and(ctx, there, ix_lt(ctx, c, number(w, w->c)));
    ix x = ix_load(ctx, w->x, (ix[]){p->n, c, row, column});
    d[i] = ib_let(w->b, "d", ix_cast(ctx, w->vtype, ix_select(ctx, there, x, ix_num(ctx, (tn_dtype)x->dtype, 0))));
  }
  lw_wino_input(w->ctx, w->b, &w->f, d, out);
  for (int i = 0; i < w->f.a; i++) ib_store(w->b, half, (ix[]){number(w, i), j, lane}, out[i]);
  ib_end_n(w->b, 2);
}

static void transform_input(wino *w, ix first_tile, ir_buf *v) {
  tn_ctx *ctx = w->ctx;
  ix t = ib_loop(w->b, "it", number(w, w->tiles)), last = number(w, w->all - 1);
  place p = place_of(w, ib_let(w->b, "tile", ix_min(ctx, ix_add(ctx, first_tile, t), last))); /* beyond the last: that one again */
  ix cb = ib_loop(w->b, "ib", number(w, w->cblocks));
  ir_buf *half = ib_alloc(w->b, "half", w->vtype, 3, (ix[]){number(w, w->f.a), number(w, w->f.a), number(w, w->block)}, IR_LOCAL);
  ix y = ix_addi(ctx, p.y, -w->top), x = ix_addi(ctx, p.x, -w->left);
  ix whole = ix_and(ctx, ix_within(ctx, y, number(w, 0), number(w, w->in_height - w->f.a + 1)), ix_within(ctx, x, number(w, 0), number(w, w->in_width - w->f.a + 1)));
  ib_if(w->b, whole);
  input_columns(w, &p, cb, half, false);
  ib_else(w->b);
  input_columns(w, &p, cb, half, true);
  ib_end(w->b);
  ix i = ib_loop(w->b, "ii", number(w, w->f.a)), lane = lane_loop(w), d[LW_WINO_A], out[LW_WINO_A];
  for (int j = 0; j < w->f.a; j++) d[j] = ib_let(w->b, "d", ix_load(ctx, half, (ix[]){i, number(w, j), lane}));
  lw_wino_input(w->ctx, w->b, &w->f, d, out);
  for (int j = 0; j < w->f.a; j++) ib_store(w->b, v, (ix[]){ix_addi(ctx, ix_muli(ctx, i, w->f.a), j), v_at(w, cb, t, lane)}, out[j]);
  ib_end_n(w->b, 4);
}

static void multiply(wino *w, ix p, ir_buf *v, ir_buf *m) {
  tn_ctx *ctx = w->ctx;
  ix at = ib_loop(w->b, "wx", number(w, w->f.a * w->f.a)), t = ib_loop(w->b, "wt", number(w, w->tiles)), k = ib_loop(w->b, "wk", number(w, w->panel));
  ir_buf *acc = ib_local(w->b, "acc", w->mtype, ix_cast(ctx, w->mtype, ix_int(ctx, TN_I32, 0)));
  int64_t d = w->whole ? 2 : 1; /* channels side by side in U */
  ix cb = ib_loop(w->b, "wb", number(w, w->cblocks)), c = ib_loop(w->b, "wc", number(w, w->block / d)), row = ix_add(ctx, ix_muli(ctx, cb, w->block / d), c);
  ix cd = w->whole ? ib_loop(w->b, "cd", number(w, d)) : number(w, 0);
  ix a = ix_load(ctx, v, (ix[]){at, v_at(w, cb, t, ix_add(ctx, ix_muli(ctx, c, d), cd))}), u = ix_load(ctx, w->u, (ix[]){p, at, row, ix_add(ctx, ix_muli(ctx, k, d), cd)});
  if (w->whole) ib_set(w->b, acc, ix_add(ctx, ib_get(w->b, acc), ix_mul(ctx, ix_cast(ctx, TN_I32, a), ix_cast(ctx, TN_I32, u))));
  else ib_set(w->b, acc, ix_fma(ctx, a, u, ib_get(w->b, acc)));
  ib_end_n(w->b, 2 + w->whole);
  ib_store(w->b, m, (ix[]){at, m_at(w, t, k)}, ib_get(w->b, acc));
  ib_end_n(w->b, 3);
}

typedef struct finish { /* one output of a tile */
  wino *w;
  ir_buf *out;
  ix at[3], by[4]; /* where the sum is; n k y x */
} finish;

static ix finish_sum(void *user, ix load) {
  finish *f = user;
  return load->u.buf == f->w->acc ? ix_load(f->w->ctx, f->out, f->at) : NULL;
}
static ix finish_expr(ir_rewriter *r, ix e) { return ix_subst_loads(r->ctx, e, finish_sum, r->user); }

/* What follows the sum in the original, for all outputs of a tile that exist. */
static void finish_tile(wino *w, const place *p, ix k, ir_buf *out, bool edges) {
  tn_ctx *ctx = w->ctx;
  ix i = ib_loop(w->b, "oi", number(w, w->f.m)), y = ix_add(ctx, p->y, i);
  if (edges) ib_if(w->b, ix_lt(ctx, y, number(w, w->height)));
  ix j = ib_loop(w->b, "oj", number(w, w->f.m)), x = ix_add(ctx, p->x, j);
  if (edges) ib_if(w->b, ix_lt(ctx, x, number(w, w->width)));
  ix lane = lane_loop(w);
  k = ix_add(ctx, k, lane);
  if (w->k % w->block) ib_if(w->b, ix_lt(ctx, k, number(w, w->k)));
  finish f = {w, out, {i, j, lane}, {p->n, k, y, x}};
  const ir_stmt *st = ir_stmt_fresh(ctx, w->after, edges ? ".e" : ".f");
  ir_rewriter r = {.ctx = ctx, .user = &f, .expr = finish_expr};
  st = ir_rewrite(&r, st);
  for (int a = 0; a < 4; a++) st = ir_subst_var(ctx, st, (ir_var *)w->var[a], f.by[a]);
  ib_stmt(w->b, st);
  ib_end_n(w->b, 3 + 2 * edges + (w->k % w->block != 0));
}

static void transform_output(wino *w, ix first_tile, ix p, ir_buf *m) {
  tn_ctx *ctx = w->ctx;
  int fm = w->f.m, fa = w->f.a;
  ix t = ib_loop(w->b, "ot", number(w, w->tiles)), tile = ix_add(ctx, first_tile, t);
  if (w->groups * w->tiles > w->all) ib_if(w->b, ix_lt(ctx, tile, number(w, w->all)));
  place at = place_of(w, tile);
  ix ob = ib_loop(w->b, "ob", number(w, w->panel / w->block)), kv = ix_muli(ctx, ob, w->block), k = ix_add(ctx, ix_muli(ctx, p, w->panel), kv);
  bool beyond = w->parts * w->panels * w->panel >= w->k + w->block;
  if (beyond) ib_if(w->b, ix_lt(ctx, k, number(w, w->k)));
  ir_buf *half = ib_alloc(w->b, "sums", w->mtype, 3, (ix[]){number(w, fm), number(w, fa), number(w, w->block)}, IR_LOCAL);
  ir_buf *result = ib_alloc(w->b, "result", w->mtype, 3, (ix[]){number(w, fm), number(w, fm), number(w, w->block)}, IR_LOCAL);
  ix v[LW_WINO_A], out[LW_WINO_A];
  ix j = ib_loop(w->b, "sj", number(w, fa)), lane = lane_loop(w);
  for (int i = 0; i < fa; i++) v[i] = ib_let(w->b, "v", ix_load(ctx, m, (ix[]){ix_addi(ctx, j, i * fa), m_at(w, t, ix_add(ctx, kv, lane))}));
  lw_wino_output(w->ctx, w->b, &w->f, v, out);
  for (int i = 0; i < fm; i++) ib_store(w->b, half, (ix[]){number(w, i), j, lane}, out[i]);
  ib_end_n(w->b, 2);
  ix i = ib_loop(w->b, "si", number(w, fm));
  lane = lane_loop(w);
  for (int c = 0; c < fa; c++) v[c] = ib_let(w->b, "v", ix_load(ctx, half, (ix[]){i, number(w, c), lane}));
  lw_wino_output(w->ctx, w->b, &w->f, v, out);
  for (int c = 0; c < fm; c++) ib_store(w->b, result, (ix[]){i, number(w, c), lane}, w->whole ? ix_binary(ctx, IX_SHR, out[c], ix_int(ctx, TN_I32, 2)) : out[c]);
  ib_end_n(w->b, 2);
  if (w->height % fm == 0 && w->width % fm == 0) finish_tile(w, &at, k, result, false);
  else {
    ib_if(w->b, ix_and(ctx, ix_le(ctx, at.y, number(w, w->height - fm)), ix_le(ctx, at.x, number(w, w->width - fm))));
    finish_tile(w, &at, k, result, false);
    ib_else(w->b);
    finish_tile(w, &at, k, result, true);
    ib_end(w->b);
  }
  ib_end_n(w->b, 2 + beyond + (w->groups * w->tiles > w->all));
}

static const ir_stmt *lanes_are_vectors(ir_rewriter *r, const ir_stmt *st) {
  if (st->kind != IR_FOR || strncmp(st->var->name, "lane", 4) != 0) return st;
  return ir_for(r->ctx, st->var, st->lo, st->hi, IR_VECTOR, st->body);
}

/* ---- the step ---- */

bool sched_winograd(sched *s) {
  wino w = {.s = s, .ctx = s->ctx, .b = ir_builder_new(s->ctx), .tiles = s->num[2], .panel = s->num[3], .block = s->num[4], .parts = s->num[5]};
  if (s->nargs != 6) return refuse(s, "winograd takes five numbers: m tiles panel block parts");
  if (s->num[1] > 6 || !lw_winograd_of((int)s->num[1], &w.f)) return refuse(s, "tiles of %lld; 2, 4 and 6 are known", (long long)s->num[1]);
  if (w.tiles < 1 || w.tiles > 1 << 16 || w.block < 1 || w.block > 64 || w.panel < w.block || w.panel > 1024 || w.panel % w.block || w.parts < 1 || w.parts > 1024)
    return refuse(s, "tiles, panel (a multiple of block), block (up to 64) and parts are out of range");
  if (!fits(&w)) return false;
  w.rows = ceil_div(w.height, w.f.m), w.columns = ceil_div(w.width, w.f.m);
  w.all = w.n * w.rows * w.columns;
  w.groups = ceil_div(w.all, w.tiles);
  w.panels = ceil_div(ceil_div(w.k, w.panel), w.parts);
  w.cblocks = ceil_div(w.c, w.block);
  w.urows = rows_apart(&w);
  tn_ctx *ctx = w.ctx;
  ix aa = number(&w, w.f.a * w.f.a);
  int64_t pair = w.whole ? 2 : 1;
  w.u = ir_buf_new(ctx, w.w->name, w.vtype, 4, (ix[]){number(&w, w.parts * w.panels), aa, number(&w, w.urows / pair), number(&w, w.panel * pair)}, NULL, IR_GLOBAL);
  w.u->access = IR_IN;
  w.u->constant = true;
  w.u->made = make_weights(&w);
  ix task = ib_loop(w.b, "task", number(&w, w.groups * w.parts));
  task->u.var->independent = true; /* tasks own tiles and panels: more than addresses show */
  ix first = ix_muli(ctx, ix_divi(ctx, task, w.parts), w.tiles), part = ix_muli(ctx, ix_remi(ctx, task, w.parts), w.panels);
  ir_buf *v = rows_of(&w, "V", w.vtype, w.cblocks * w.tiles * w.block);
  transform_input(&w, first, v);
  ix p = ix_add(ctx, part, ib_loop(w.b, "wp", number(&w, w.panels)));
  ir_buf *m = rows_of(&w, "M", w.mtype, w.tiles * w.panel);
  multiply(&w, p, v, m);
  transform_output(&w, first, p, m);
  ib_end_n(w.b, 2);
  ir_rewriter r = {.ctx = ctx, .stmt = lanes_are_vectors};
  s->k->body = ir_rewrite(&r, ib_finish(w.b));
  for (int i = 0; i < s->k->nbufs; i++)
    if (s->k->bufs[i] == w.w) s->k->bufs[i] = w.u;
  return true;
}
