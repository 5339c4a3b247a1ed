/* cuda_window.c — depthwise windows: a thread computes a strip of neighbouring outputs, so that an element that several of
 * them see is loaded once, and V channels beside each other where channels lie last.
 *
 *   for n, c, y, x: { acc = init; for r, s: if inside: acc = fma(in[n, c, y*p + r*q - o, x*p + s*q - o], w[c, r, s], acc); end(acc) }
 *     -> for n.., deep / D, strips / (X S), lane / (L V) grid: {
 *          W[r s, L V] shared = w; barrier                           (channels on lanes)
 *          for t: { lane, strip, deep of t; acc[S, V] = init
 *                   for r: for each element e of the row that the strip sees: { v[V] = in; for (i, s) with i p + s q = e: acc[i] = fma(v, W, acc[i]) }
 *                   for i: end(acc[i]) } }
 *
 * The lane is the loop that memory runs along: channels (NHWC), with the strip along x and the threads' depth along y; or x
 * (NCHW), with the strip along y and the depth along channels, V = 1 and weights as they lie. */
#include "codegen/cuda_product.h"
#include <string.h>

typedef struct window {
  tn_ctx *ctx;
  cu_product g;
  ix input, weight;              /* as the product takes them */
  ix load;                       /* of the input, below any cast */
  int axis;                      /* its index along the strip: step * strip + by * tap + start */
  int64_t step, by, start;
  int lane, strip, deep;         /* loops of the nest; deep: -1 where there is none */
  int tap;                       /* the sum's loop along the strip */
  bool below, above;             /* elements before 0, beyond the extent */
  ix others;                     /* what must hold besides, or null */
  int64_t s, l, v, x, d, threads;
  ir_var *block_lane, *block_strip, *block_deep, *first;
  ir_buf *weights, *acc;
} window;

#define REFUSE(text) return *reason = (text), false

static int64_t extent(const window *w, int loop) { return w->g.p.extent[loop]; }
static ir_var *var(const window *w, int loop) { return w->g.p.out[loop]->var; }
static const ir_stmt *tap(const window *w) { return w->g.p.red[w->tap]; }
static int64_t taps(const window *w) { return w->g.p.red_extent[w->tap]; }
static int64_t up(int64_t n, int64_t by) { return (n + by - 1) / by; }

/* ---- the kernel ---- */

/* The terms of the guard: borders along the strip are told by two flags, others stay as they are. */
static bool split_guard(window *w, ix guard, const char **reason) {
  tn_ctx *ctx = w->ctx;
  if (!guard) return true;
  if (guard->op == IX_AND) return split_guard(w, guard->args[0], reason) && split_guard(w, guard->args[1], reason);
  if (!ix_uses_var(guard, var(w, w->strip)) && !ix_uses_var(guard, tap(w)->var)) {
    w->others = w->others ? ix_and(ctx, w->others, guard) : guard;
    return true;
  }
  if (guard == ix_le(ctx, ix_index(ctx, 0), w->load->args[w->axis])) w->below = true;
  else if (guard == ix_lt(ctx, w->load->args[w->axis], w->load->u.buf->shape[w->axis])) w->above = true;
  else REFUSE("a guard that is not the tensor's border");
  return true;
}

/* Whether loop `strip` and a loop of the sum walk along one index of the input together, and along no other. */
static bool strip_along(window *w, int strip) {
  const lw_problem *p = &w->g.p;
  const ir_var *v = p->out[strip]->var;
  int axis = -1, used = 0;
  for (int d = 0; d < w->load->nargs; d++)
    if (ix_uses_var(w->load->args[d], v)) axis = d, used++;
  if (used != 1) return false;
  ix index = w->load->args[axis];
  for (int t = 0; t < p->nred; t++) {
    const ir_var *u = p->red[t]->var;
    int64_t lo;
    if (!ix_uses_var(index, u) || p->red_extent[t] < 2) continue;
    if (!ix_affine_in(index, v, &w->step) || !ix_affine_in(index, u, &w->by) || w->step < 1 || w->by < 1) return false;
    if (!ix_const_value(p->red[t]->lo, &lo) || lo || !ix_const_value(p->out[strip]->lo, &lo) || lo) return false;
    ix rest = ix_subst1(w->ctx, ix_subst1(w->ctx, index, v, ix_index(w->ctx, 0)), u, ix_index(w->ctx, 0));
    if (!ix_const_value(rest, &w->start)) return false;
    for (int d = 0; d < w->load->nargs; d++)
      if (d != axis && ix_uses_var(w->load->args[d], u)) return false;
    w->axis = axis;
    w->tap = t;
    return true;
  }
  return false;
}

static bool window_of(window *w, const ir_kernel *k, const char **reason) {
  tn_ctx *ctx = w->ctx;
  if (!cu_product_of(ctx, k, false, &w->g, reason)) return false;
  const lw_problem *p = &w->g.p;
  bool first = w->g.b.rows.extent == 1; /* the weights have no rows of their own */
  w->input = first ? w->g.a.value : w->g.b.value;
  w->weight = first ? w->g.b.value : w->g.a.value;
  w->load = w->input->op == IX_CAST ? w->input->args[0] : w->input;
  ix below = w->weight->op == IX_CAST ? w->weight->args[0] : w->weight;
  if (w->load->op != IX_LOAD || below->op != IX_LOAD || (!first && w->g.a.rows.extent != 1) || !p->store || p->store->kind != IR_STORE) REFUSE("no window with weights of one channel");
  ix store_at = ir_buf_offset(ctx, p->store->buf, p->store->index);
  w->lane = w->strip = w->deep = -1;
  for (int i = 0; i < p->nout; i++) {
    int64_t c, lo;
    if (!ix_const_value(p->out[i]->lo, &lo) || lo) REFUSE("loops that do not start at zero");
    if (extent(w, i) > 1 && ix_affine_in(store_at, p->out[i]->var, &c) && c == 1) w->lane = i;
  }
  if (w->lane < 0) REFUSE("a result that lies along no loop");
  for (int i = p->nout - 1; i >= 0 && w->strip < 0; i--)
    if (i != w->lane && strip_along(w, i)) w->strip = i;
  if (w->strip < 0) REFUSE("no loop along which windows overlap");
  for (int i = p->nout - 1; i >= 0; i--)
    if (i != w->lane && i != w->strip && extent(w, i) > 1 && w->deep < 0) w->deep = i;
  int64_t all = 1;
  for (int i = 0; i < p->nred; i++) all *= p->red_extent[i];
  if (all > 121) REFUSE("a window that is too large");
  for (int i = 0; i < p->nred; i++) { /* a channel of the input for each of the result */
    int64_t lo;
    if (!ix_const_value(p->red[i]->lo, &lo) || lo) REFUSE("loops that do not start at zero");
  }
  return split_guard(w, p->guard, reason);
}

/* Neighbours of a thread along the lane: 16 bytes of what is read. */
static int64_t neighbours(const window *w) {
  int64_t c, v = 16 / (int64_t)ir_dtype_bytes(w->load->dtype);
  const ir_var *lane = var(w, w->lane);
  if (!ix_affine_in(ir_buf_offset(w->ctx, w->load->u.buf, w->load->args), lane, &c) || c != 1) return 1;
  for (int i = 0; i < w->g.p.nred; i++) /* x, not channels */
    for (int d = 0; d < w->load->nargs; d++)
      if (ix_uses_var(w->load->args[d], lane) && ix_uses_var(w->load->args[d], w->g.p.red[i]->var)) return 1;
  if (v > 8) v = 8;
  if (w->others && ix_uses_var(w->others, lane)) return 1;
  while (extent(w, w->lane) % v) v /= 2;
  return v;
}

/* ---- statements ---- */

/* s with the sum's loops around it, but the one along the strip; as loops where that would be much code. */
static const ir_stmt *other_taps(const window *w, const ir_stmt *s) {
  const lw_problem *p = &w->g.p;
  int64_t all = 1;
  for (int i = 0; i < p->nred; i++) all *= p->red_extent[i];
  for (int i = p->nred - 1; i >= 0; i--)
    if (i != w->tap) s = ir_for(w->ctx, p->red[i]->var, p->red[i]->lo, p->red[i]->hi, all <= 25 ? IR_UNROLL : IR_SERIAL, s);
  return s;
}

/* The number of a tap: the strip's own last. */
static ix tap_number(const window *w, ix own) {
  const lw_problem *p = &w->g.p;
  ix n = ix_index(w->ctx, 0);
  for (int i = 0; i < p->nred; i++)
    if (i != w->tap) n = ix_add(w->ctx, ix_muli(w->ctx, n, p->red_extent[i]), p->red[i]->var->expr);
  return ix_add(w->ctx, ix_muli(w->ctx, n, taps(w)), own);
}

/* All threads bring the weights of the block's channels. */
static const ir_stmt *bring_weights(window *w) {
  tn_ctx *ctx = w->ctx;
  const lw_problem *p = &w->g.p;
  int64_t all = 1, wide = w->l * w->v;
  for (int i = 0; i < p->nred; i++) all *= p->red_extent[i];
  ir_var *t = cu_var(ctx, "bring.t", w->threads), *turn = cu_var(ctx, "bring", up(all * wide, w->threads));
  ix at = ix_add(ctx, ix_muli(ctx, turn->expr, w->threads), t->expr), number = ix_remi(ctx, at, all), channel = ix_divi(ctx, at, all);
  ix lane = ix_add(ctx, ix_muli(ctx, w->block_lane->expr, wide), channel);
  ir_var *own = ir_var_new(ctx, "bring.lane", TN_INDEX, lane->lo, lane->hi);
  ix to[2] = {number, channel}, value = w->weight, rest = number;
  const ir_stmt *s = ir_if(ctx, ix_lt(ctx, own->expr, ix_index(ctx, extent(w, w->lane))), ir_store(ctx, w->weights, to, IR_SET, value), NULL);
  s = ir_subst_var(ctx, s, var(w, w->lane), own->expr);
  s = ir_subst_var(ctx, s, tap(w)->var, ix_remi(ctx, rest, taps(w)));
  rest = ix_divi(ctx, rest, taps(w));
  for (int i = p->nred - 1; i >= 0; i--) {
    if (i == w->tap) continue;
    s = ir_subst_var(ctx, s, p->red[i]->var, ix_remi(ctx, rest, p->red_extent[i]));
    rest = ix_divi(ctx, rest, p->red_extent[i]);
  }
  s = ir_let(ctx, own, lane, s);
  if (all * wide % w->threads) s = ir_if(ctx, ix_lt(ctx, at, ix_index(ctx, all * wide)), s, NULL);
  return cu_loop(ctx, t, IR_LANE, cu_loop(ctx, turn, IR_SERIAL, s));
}

/* For each of a thread's neighbours, with the lane's variable set. */
static const ir_stmt *each(window *w, const char *name, ix first, const ir_stmt *(*body)(window *w, ix t, ix i, ix v), ix t, ix i) {
  ir_var *v = cu_var(w->ctx, ir_format(w->ctx, "%s.%d", name, w->g.copies++), w->v);
  return cu_vectors(w->ctx, v, ir_subst_var(w->ctx, body(w, t, i, v->expr), var(w, w->lane), ix_add(w->ctx, first, v->expr)));
}

static const ir_stmt *set(window *w, ix t, ix i, ix v) { return ir_store(w->ctx, w->acc, (ix[]){t, i, v}, IR_SET, w->g.init); }

typedef struct swap {
  const ir_buf *of;
  ix by;
} swap;
static ix swap_load(void *user, ix load) {
  const swap *s = user;
  return load->u.buf == s->of ? s->by : NULL;
}
static ix end_expr(ir_rewriter *r, ix e) { return ix_subst_loads(r->ctx, e, swap_load, r->user); }

static const ir_stmt *end(window *w, ix t, ix i, ix v) {
  ir_rewriter r = {.ctx = w->ctx, .user = &(swap){w->g.acc, ix_load(w->ctx, w->acc, (ix[]){t, i, v})}, .expr = end_expr};
  return ir_rewrite(&r, ir_seq(w->ctx, w->g.nepilogue, w->g.epilogue));
}

/* Element `e` of the row that the strip sees: loaded, and multiplied for each output and tap that meet there. */
static const ir_stmt *element(window *w, ix t, ix first, int64_t e) {
  tn_ctx *ctx = w->ctx;
  const lw_problem *p = &w->g.p;
  const ir_stmt *s[64];
  int n = 0, id = w->g.copies++;
  tn_dtype type = (tn_dtype)w->input->dtype;
  ir_buf *x = ir_buf_new(ctx, ir_format(ctx, "x.%d", id), type, 1, (ix[]){ix_index(ctx, w->v)}, NULL, IR_LOCAL);
  ix at = ix_addi(ctx, ix_muli(ctx, ix_muli(ctx, w->first->expr, w->s), w->step), e + w->start), args[IR_MAX_RANK], zero = ix_index(ctx, 0);
  ir_var *place = ir_var_new(ctx, ir_format(ctx, "at.%d", id), TN_INDEX, at->lo, at->hi), *v = cu_var(ctx, ir_format(ctx, "v.%d", id), w->v), *u = cu_var(ctx, ir_format(ctx, "v.%d.0", id), w->v);
  for (int d = 0; d < w->load->nargs; d++) args[d] = d == w->axis ? place->expr : w->load->args[d];
  ix load = ix_load(ctx, w->load->u.buf, args), value = w->input == w->load ? load : ix_cast(ctx, type, load);
  const ir_stmt *real = cu_vectors(ctx, v, ir_subst_var(ctx, ir_store(ctx, x, &v->expr, IR_SET, value), var(w, w->lane), ix_add(ctx, first, v->expr)));
  const ir_stmt *none = cu_loop(ctx, u, IR_UNROLL, ir_store(ctx, x, &u->expr, IR_SET, ix_num(ctx, type, 0)));
  ix inside = ix_bool(ctx, true);
  if (w->below) inside = ix_and(ctx, inside, ix_le(ctx, zero, place->expr));
  if (w->above || extent(w, w->strip) % w->s) inside = ix_and(ctx, inside, ix_lt(ctx, place->expr, w->load->u.buf->shape[w->axis]));
  s[n++] = ir_if(ctx, inside, real, none);
  for (int64_t i = 0; i < w->s; i++) {
    int64_t own = (e - i * w->step) / w->by;
    if (e < i * w->step || own * w->by + i * w->step != e || own >= taps(w)) continue;
    ir_var *m = cu_var(ctx, ir_format(ctx, "m.%d.%d", id, (int)i), w->v);
    ix number = ix_index(ctx, own), to[3] = {t, ix_index(ctx, i), m->expr}, old = ix_load(ctx, w->acc, to);
    ix b = w->weights ? ix_load(ctx, w->weights, (ix[]){tap_number(w, number), ix_add(ctx, ix_muli(ctx, ix_remi(ctx, t, w->l), w->v), m->expr)}) : ix_subst1(ctx, w->weight, tap(w)->var, number);
    ix a = ix_load(ctx, x, &m->expr), sum = ir_is_float(p->dtype) ? ix_fma(ctx, a, b, old) : ix_add(ctx, old, ix_mul(ctx, a, b));
    s[n++] = ir_subst_var(ctx, cu_loop(ctx, m, IR_UNROLL, ir_store(ctx, w->acc, to, IR_SET, sum)), var(w, w->lane), ix_add(ctx, first, m->expr));
  }
  if (n == 1) return NULL; /* between the windows */
  return ir_let(ctx, place, at, ir_alloc_stmt(ctx, x, ir_seq(ctx, n, s)));
}

static const ir_stmt *strip(window *w) {
  tn_ctx *ctx = w->ctx;
  ir_var *t = cu_var(ctx, "t", w->threads), *i = cu_var(ctx, "set", w->s), *o = cu_var(ctx, "end", w->s);
  ix in_lane = ix_remi(ctx, t->expr, w->l), in_strip = ix_remi(ctx, ix_divi(ctx, t->expr, w->l), w->x), in_deep = ix_divi(ctx, t->expr, w->l * w->x);
  ix lane = ix_add(ctx, ix_muli(ctx, w->block_lane->expr, w->l), in_lane), first = ix_add(ctx, ix_muli(ctx, w->block_strip->expr, w->x), in_strip);
  ir_var *own = ir_var_new(ctx, "lane", TN_INDEX, lane->lo, lane->hi);
  w->first = ir_var_new(ctx, "strip", TN_INDEX, first->lo, first->hi);
  int64_t seen = (w->s - 1) * w->step + (taps(w) - 1) * w->by + 1;
  const ir_stmt **row = IR_NEW_ARRAY(ctx, const ir_stmt *, seen);
  ix near = ix_muli(ctx, own->expr, w->v);
  for (int64_t e = 0; e < seen; e++) row[e] = element(w, t->expr, near, e);
  const ir_stmt *sum = ir_seq(ctx, (int)seen, row);
  if (w->others) sum = ir_if(ctx, ix_subst1(ctx, w->others, var(w, w->lane), near), sum, NULL);
  ix out = ix_add(ctx, ix_muli(ctx, w->first->expr, w->s), o->expr);
  const ir_stmt *store = each(w, "near", near, end, t->expr, o->expr);
  ir_var *at = ir_var_new(ctx, "out", TN_INDEX, out->lo, out->hi);
  store = ir_subst_var(ctx, store, var(w, w->strip), at->expr);
  if (extent(w, w->strip) % w->s) store = ir_if(ctx, ix_lt(ctx, at->expr, ix_index(ctx, extent(w, w->strip))), store, NULL);
  const ir_stmt *parts[3] = {cu_loop(ctx, i, IR_UNROLL, each(w, "start", near, set, t->expr, i->expr)), other_taps(w, sum), cu_loop(ctx, o, IR_UNROLL, ir_let(ctx, at, out, store))};
  const ir_stmt *s = ir_seq(ctx, 3, parts);
  ix inside = ix_and(ctx, ix_lt(ctx, near, ix_index(ctx, extent(w, w->lane))), ix_lt(ctx, ix_muli(ctx, w->first->expr, w->s), ix_index(ctx, extent(w, w->strip))));
  if (w->deep >= 0) {
    ix deep = ix_add(ctx, ix_muli(ctx, w->block_deep->expr, w->d), in_deep);
    ir_var *v = ir_var_new(ctx, "deep", TN_INDEX, deep->lo, deep->hi);
    s = ir_subst_var(ctx, s, var(w, w->deep), v->expr);
    s = ir_let(ctx, v, deep, ir_if(ctx, ix_and(ctx, inside, ix_lt(ctx, v->expr, ix_index(ctx, extent(w, w->deep)))), s, NULL));
  } else s = ir_if(ctx, inside, s, NULL);
  return cu_loop(ctx, t, IR_LANE, ir_let(ctx, own, lane, ir_let(ctx, w->first, first, s)));
}

/* ---- the schedule ---- */

static int64_t power(int64_t n, int64_t most) {
  int64_t p = 1;
  while (p < n && p < most) p *= 2;
  return p;
}

/* Enough threads for the lane to fill lines of memory, a few strips side by side, and depth for what is left. */
static void default_shape(window *w, const cu_target *t) {
  const lw_problem *p = &w->g.p;
  int64_t lanes = up(extent(w, w->lane), w->v), points = lanes;
  for (int i = 0; i < p->nout; i++)
    if (i != w->lane) points *= extent(w, i);
  w->s = extent(w, w->strip) >= 4 ? 4 : 2;
  if (points / w->s < 128LL * t->multiprocessors) w->s = 2;
  w->threads = points / w->s < 512LL * t->multiprocessors ? 128 : 256;
  w->l = power(lanes, w->v > 1 ? 8 : 32);
  w->x = power(up(extent(w, w->strip), w->s), 4);
}

const cu_tile *cu_schedule_window(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *c, const char **reason) {
  window w = {.ctx = ctx};
  if (!window_of(&w, k, reason)) return NULL;
  w.v = neighbours(&w);
  default_shape(&w, t);
  if (c->n == 4) w.s = c->arg[0], w.l = c->arg[1], w.x = c->arg[2], w.threads = c->arg[3];
  if ((c->n && c->n != 4) || w.s < 1 || w.s > 16 || w.l < 1 || w.x < 1 || w.threads < 32 || w.threads > 1024 || w.threads % 32 || w.threads % (w.l * w.x)) return *reason = "window: STRIP LANES STRIPS THREADS, which do not fit", NULL;
  w.d = w.threads / (w.l * w.x);
  if (w.deep < 0 && w.d > 1) w.x *= w.d, w.d = 1;
  const lw_problem *p = &w.g.p;
  int64_t all = 1;
  for (int i = 0; i < p->nred; i++) all *= p->red_extent[i];
  w.block_lane = cu_var(ctx, "block.lane", up(extent(&w, w.lane), w.l * w.v));
  w.block_strip = cu_var(ctx, "block.strip", up(extent(&w, w.strip), w.x * w.s));
  w.block_deep = cu_var(ctx, "block.deep", w.deep >= 0 ? up(extent(&w, w.deep), w.d) : 1);
  bool channels = ix_uses_var(w.weight, var(&w, w.lane));
  if (channels) w.weights = ir_buf_new(ctx, "weights", (tn_dtype)w.weight->dtype, 2, (ix[]){ix_index(ctx, all), ix_index(ctx, w.l * w.v)}, NULL, IR_SHARED);
  for (int i = 0; i < p->nout; i++)
    if (channels && i != w.lane && ix_uses_var(w.weight, p->out[i]->var) && (i == w.strip || i == w.deep)) return *reason = "weights that differ along the strip", NULL;
  w.acc = ir_buf_new(ctx, "sum", w.g.acc->dtype, 3, (ix[]){ix_index(ctx, w.threads), ix_index(ctx, w.s), ix_index(ctx, w.v)}, NULL, IR_LOCAL);
  const ir_stmt *parts[3] = {channels ? bring_weights(&w) : NULL, channels ? cu_sync(ctx, "barrier") : NULL, strip(&w)};
  const ir_stmt *s = ir_alloc_stmt(ctx, w.acc, ir_seq(ctx, 3, parts));
  if (channels) s = ir_alloc_stmt(ctx, w.weights, s);
  s = cu_loop(ctx, w.block_lane, IR_GRID, s);
  s = cu_loop(ctx, w.block_strip, IR_GRID, s);
  s = cu_loop(ctx, w.block_deep, IR_GRID, s);
  for (int i = p->nout - 1; i >= 0; i--)
    if (i != w.lane && i != w.strip && i != w.deep) s = ir_for(ctx, p->out[i]->var, p->out[i]->lo, p->out[i]->hi, IR_GRID, s);
  cu_tile *made = (cu_tile *)cu_tile_new(ctx, k, s, (int)w.threads, ir_format(ctx, "window %lld %lld %lld %lld", (long long)w.s, (long long)w.l, (long long)(w.deep < 0 ? w.threads / w.l : w.x), (long long)w.threads));
  made->blocks = w.threads <= 512 ? 512 / (int)w.threads : 1; /* 16 warps: left to itself, ptxas may spill for the sake of more */
  return made;
}
