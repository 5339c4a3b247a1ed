/* default_int8.c — the default schedule of products of bytes and words with sums in i32.
 *
 * The register tile of default_contraction.c, with a vector of w holding d elements of the sum for each
 * lane: [panel of outputs][.. taps][c / d][output][d], so that one instruction takes d steps (the atom "dot").
 * x is read as it lies, d elements at once: channels, or the columns of a matrix, are innermost there. Or d bytes are
 * picked from a group of 16 (picked.h). */
#include "ir/picked.h"
#include "lower/default_schedule.h"
#include <string.h>

typedef struct dots {
  lw_plan *p;
  int v, r;                    /* loops of vectors and rows among the outputs; r: -1 without one */
  const char *vec, *row, *sum; /* sum: the reduction that d is a part of */
  int64_t m, n, lanes, d, block; /* block: channels side by side in x; 0: all */
  int64_t mr, nb;
  bool tiled, grouped; /* grouped: rows in groups, which are the tasks */
  bool picked;         /* x's channels by a table (ir/picked.h), one for each PANEL outputs */
  int64_t eights, fours; /* then, the steps of its sum */
} dots;

enum { PANEL = 2 * IR_PICKED_LANES };

/* Whether a load moves with v; within a panel what is picked from does not. */
static bool uses(tn_ctx *ctx, ix load, const ir_var *v, bool picked) {
  if (!picked || !ix_uses_var(load, v)) return ix_uses_var(load, v);
  ir_var *o = ir_var_new(ctx, "o", TN_INDEX, 0, (v->hi - v->lo) / PANEL), *i = ir_var_new(ctx, "i", TN_INDEX, 0, PANEL - 1);
  return ix_uses_var(ix_subst1(ctx, load, v, ix_add(ctx, ix_muli(ctx, o->expr, PANEL), i->expr)), i);
}

/* What q->a is picked from, and the steps of the sum; null: it is not. */
static ix picked_from(dots *k) {
  const lw_problem *q = &k->p->p;
  tn_ctx *ctx = k->p->ctx;
  ir_var *o = ir_var_new(ctx, "o", TN_INDEX, 0, q->red_extent[0] / 8), *i = ir_var_new(ctx, "i", TN_INDEX, 0, IR_PICKED_STEP - 1);
  ix by = ix_add(ctx, ix_muli(ctx, o->expr, 2 * IR_PICKED_STEP), i->expr), from; /* the first four of eight */
  if (!ir_picked_load(ctx, ix_subst1(ctx, q->a, q->red[0]->var, by), i, &from) || ix_uses_var(from, i)) return NULL;
  const ir_buf *groups = ir_picked_groups(ctx, from);
  int64_t steps = q->red_extent[0] / IR_PICKED_STEP, entries = steps;
  if (groups) ix_const_value(groups->shape[groups->rank - 1], &entries);
  k->eights = steps - entries, k->fours = steps - 2 * k->eights;
  return from;
}

static bool narrow(const ir_buf *b) { return b->dtype == TN_U8 || b->dtype == TN_I8 || b->dtype == TN_I16; }

static bool operands(dots *k) {
  lw_plan *p = k->p;
  lw_problem *q = &p->p;
  if (q->dtype != TN_I32 || !narrow(q->a->u.buf) || !narrow(q->b->u.buf) || !q->store) return false;
  tn_ctx *ctx = p->ctx;
  ix from = picked_from(k), x = from ? from : q->a; /* picked: its weights are the constant operand, b */
  k->lanes = cg_target_lanes(p->t, TN_I32);
  k->v = k->r = -1;
  k->picked = from != NULL;
  for (int i = 0; i < q->nout; i++) {
    const ir_var *v = q->out[i]->var;
    if (q->extent[i] < 1) return false;
    if (q->extent[i] >= 2 && uses(ctx, x, v, k->picked) != uses(ctx, q->b, v, false) && lw_contiguous_out(p, v, k->lanes) && (k->v < 0 || q->extent[i] >= k->lanes)) k->v = i;
  }
  if (k->lanes < 4 || k->v < 0) return false;
  if (uses(ctx, x, q->out[k->v]->var, k->picked)) {
    q->a = q->b, q->b = x;
    x = q->a;
  }
  const ir_buf *bx = x->u.buf, *w = q->b->u.buf;
  if (!w->constant || w->layout) return false;
  if (k->picked && (p->t->vector_bits != 2 * 8 * IR_PICKED_GROUP || k->lanes * 2 != PANEL)) return false;
  k->d = k->picked ? 4 : p->t->vnni && bx->dtype == cg_target_dot_byte(p->t) && w->dtype == TN_I8 ? 4 : 2;
  k->sum = q->red[0]->var->name;
  if (q->red_extent[0] < k->d || q->red_extent[0] % k->d) return false;
  for (int i = q->nout; i-- > 0 && k->r < 0;)
    if (i != k->v && q->extent[i] > 1 && !uses(ctx, q->b, q->out[i]->var, false) && uses(ctx, x, q->out[i]->var, k->picked)) k->r = i;
  k->vec = q->out[k->v]->var->name;
  k->row = k->r >= 0 ? q->out[k->r]->var->name : NULL;
  k->m = k->r >= 0 ? q->extent[k->r] : 1;
  k->n = q->extent[k->v];
  int64_t block = cg_target_lanes(p->t, TN_F32);
  k->block = !k->picked && bx->layout && q->red_extent[0] > block ? block : 0;
  return true;
}

/* [panel of outputs][block of the sum][taps][d-th part of a block][output][d] */
static bool pack(dots *k) {
  lw_plan *p = k->p;
  lw_problem *q = &p->p;
  ix w = q->b;
  int va = lw_axis_of(w, q->out[k->v]->var), sa = lw_axis_of(w, q->red[0]->var), rank = w->u.buf->rank;
  if (va < 0 || sa < 0 || rank != q->nred + 1) return false;
  /* the later axis is split first, so that the number of the other one stays */
  int late = va > sa ? va : sa, early = va > sa ? sa : va, place[IR_MAX_RANK] = {0};
  int64_t unit = k->block ? k->block : k->d;
  ir_text t = {.ctx = p->ctx}, taps = {.ctx = p->ctx};
  ir_put(&t, "split %d %lld; split %d %lld", late, (long long)(late == va ? k->nb : unit), early, (long long)(early == va ? k->nb : unit));
  for (int a = 0, at = 0; a < rank; a++, at++) {
    place[a] = at;
    if (a == va || a == sa) at++;
  }
  if (k->block) { /* the block's inside again, by d */
    ir_put(&t, "; split %d %lld", place[sa] + 1, (long long)k->d);
    for (int a = 0; a < rank; a++)
      if (place[a] > place[sa]) place[a]++;
  }
  for (int a = 0; a < rank; a++)
    if (a != va && a != sa) ir_put(&taps, " %d", place[a]);
  if (k->block) ir_put(&t, "; perm %d %d%s %d %d %d", place[va], place[sa], ir_text_str(&taps), place[sa] + 1, place[va] + 1, place[sa] + 2);
  else ir_put(&t, "; perm %d%s %d %d %d", place[va], ir_text_str(&taps), place[sa], place[va] + 1, place[sa] + 1);
  return lw_step(p, "layout %s \"%s\"", w->u.buf->name, ir_text_str(&t));
}

/* The order of the loops around the tile: pixels first where the weights stay in the second-level cache. */
static bool is_vectors_first(const dots *k) {
  const lw_plan *p = k->p;
  int64_t wbytes = 1;
  ix_const_value(ir_buf_elements(p->ctx, p->p.b->u.buf), &wbytes);
  wbytes *= (int64_t)ir_dtype_bytes(p->p.b->u.buf->dtype);
  return p->u.order ? p->u.order == 2 : wbytes > p->t->l2_bytes / 2;
}

/* Of two vectors and, with what a step needs beside the sums, at most five rows, or three where there are eights: more spill. */
static lw_tile picked_tile(int64_t rows, int64_t n, bool eights) {
  lw_tile best = {.cost = 1e300};
  for (int64_t mr = 1; mr <= (eights ? 3 : 5) && mr <= rows; mr++) {
    double cost = (double)(rows / mr) * (2.2 * (double)mr + 2) + (rows % mr ? 2.2 * (double)(rows % mr) + 2 : 0);
    if (cost * (double)(n / PANEL) < best.cost) best = (lw_tile){mr, 2, cost * (double)(n / PANEL)};
  }
  return best;
}

static lw_tile tile_of(const dots *k, int64_t rows) {
  if (k->picked) return picked_tile(rows, k->n, k->eights > 0);
  bool padded = k->p->p.guard != NULL;
  return lw_best_tile(rows, k->n, k->lanes, k->p->t->vector_regs - padded - (k->d == 2), rows <= 2 ? 8 : 6); /* pmaddwd's product takes one */
}

/* Rows in groups of a divisor of them all: where tiles leave a rest, it stays within a group, and groups are tasks. */
static lw_tile group_rows(dots *k, lw_tile whole) {
  lw_plan *p = k->p;
  int64_t rows = 0;
  lw_tile best = {.cost = 1e300};
  for (int64_t g = k->m / 2; g >= whole.mr; g--) {
    if (k->m % g) continue;
    lw_tile t = tile_of(k, g);
    t.cost *= (double)(k->m / g) * lw_task_cost(k->m / g);
    if (t.mr > 1 && t.cost < best.cost) best = t, rows = g;
  }
  k->grouped = rows && lw_step(p, "split %s %lld -> xo %s", k->row, (long long)rows, k->row);
  if (k->grouped) k->m = rows;
  return k->grouped ? best : whole;
}

static bool outer_order(dots *k, bool vectors_first) {
  lw_plan *p = k->p;
  lw_problem *q = &p->p;
  p->got.order = vectors_first ? 2 : 1;
  ir_text t = {.ctx = p->ctx};
  ir_put(&t, "reorder%s", vectors_first ? " vo" : "");
  for (int i = 0; i < q->nout; i++) {
    const char *name = q->out[i]->var->name;
    if (i == k->v || q->extent[i] == 1 || !lw_has_loop(p, name) || (i == k->r && k->tiled)) continue;
    ir_put(&t, " %s", name);
  }
  const char *tile = k->tiled ? "ri vb vv" : "vb vv", *rows = k->tiled ? " ro" : "";
  if (k->grouped) return lw_step(p, "%s xo vo ro %s", ir_text_str(&t), tile);
  if (vectors_first) return lw_step(p, "%s%s %s", ir_text_str(&t), rows, tile);
  bool joined = q->nred == 1 || !q->guard;
  return lw_step(p, "%s%s %s", ir_text_str(&t), joined && k->tiled ? " ro vo" : k->tiled ? " vo ro" : " vo", tile);
}

/* Of `steps` of the sum, how many go without a loop, each of so many sums. */
static int64_t unrolled(const dots *k, int64_t steps, int64_t most) {
  int64_t ku = k->p->u.ku ? k->p->u.ku : 1, sums = k->mr * k->nb / k->lanes;
  if (!k->p->u.ku)
    while (ku < 8 && steps % (2 * ku) == 0 && sums * ku < most) ku *= 2;
  return steps % ku ? 1 : ku;
}

static void unroll_sum(lw_plan *p, const char *loop, int64_t ku) {
  if (ku > 1 && lw_has_loop(p, loop) && lw_step(p, "split %s %lld -> %s.o %s.u", loop, (long long)ku, loop, loop)) lw_step(p, "unroll %s.u", loop);
}

/* The eights of a picked sum in a loop of their own, before that of the fours. */
static bool set_eights_apart(dots *k, const char *tile) {
  lw_plan *p = k->p;
  if (k->fours && !lw_step(p, "peel %s 0 %lld", k->sum, (long long)k->fours)) return false;
  if (!lw_step(p, "split %s 2 -> %s ch", k->sum, k->sum) || !lw_step(p, "reorder %s %s ch cd", k->sum, tile) || !lw_step(p, "fuse ch cd -> cd")) return false;
  if (!p->p.guard) unroll_sum(p, k->sum, unrolled(k, k->eights, 12)); /* with more to hold two at once spill */
  unroll_sum(p, ir_format(p->ctx, "%s.b", k->sum), unrolled(k, k->fours, 24));
  return true;
}

/* d innermost, as the atom, in every copy of the loops. */
static bool make_dots(dots *k, const ir_stmt *s) {
  if (!s) return true;
  if (s->kind == IR_FOR && strncmp(s->var->name, "cd", 2) == 0) return lw_step(k->p, "tensorize dot %s", s->var->name);
  for (int i = 0; i < s->n; i++)
    if (!make_dots(k, s->items[i])) return false;
  return make_dots(k, s->body) && make_dots(k, s->other);
}

bool lw_default_int8(lw_plan *p) {
  dots k = {.p = p};
  lw_problem *q = &p->p;
  if (!operands(&k)) return false;
  bool padded = q->guard != NULL;
  if (k.r >= 0 && !padded) k.m = lw_join_rows(p, k.r, k.v);
  lw_tile t = tile_of(&k, k.m);
  bool vectors_first = is_vectors_first(&k);
  if (k.row && !padded && !vectors_first && k.m % t.mr && !p->u.mr) t = group_rows(&k, t);
  k.mr = p->u.mr ? lw_min(p->u.mr, k.m) : t.mr;
  k.nb = (p->u.nr && !k.picked ? p->u.nr : t.nr) * k.lanes;
  k.tiled = k.row && k.m > 1 && k.mr > 1;
  if (!pack(&k)) return false;
  if (!lw_step(p, "split %s %lld -> vo vi", k.vec, (long long)k.nb) || !lw_step(p, "split vi %lld -> vb vv", (long long)k.lanes)) return false;
  if (k.tiled && !lw_step(p, "split %s %lld -> ro ri", k.row, (long long)k.mr)) return false;
  if (!outer_order(&k, vectors_first)) return false;
  const char *tile = k.tiled ? "ri vb vv" : "vb vv", *sum = k.sum;
  if (!lw_step(p, "distribute %s", tile)) return false;
  if (!lw_step(p, "split %s %lld -> %s cd", sum, (long long)k.d, sum)) return false;
  bool blocked = k.block && lw_step(p, "split %s %lld -> co %s", sum, (long long)(k.block / k.d), sum);
  ir_text order = {.ctx = p->ctx};
  ir_put(&order, "reorder%s", blocked ? " co" : "");
  for (int i = 1; i < q->nred; i++)
    if (lw_has_loop(p, q->red[i]->var->name)) ir_put(&order, " %s", q->red[i]->var->name);
  if (!lw_step(p, "%s %s %s cd", ir_text_str(&order), sum, tile)) return false;
  if (lw_guard_uses(q, "r")) lw_step(p, "narrow r");
  if (lw_guard_uses(q, "q")) lw_step(p, "narrow q");
  if (k.eights && !set_eights_apart(&k, tile)) return false;
  if (!make_dots(&k, p->k->body)) return false;
  if (blocked && q->red_extent[0] % k.block) lw_step(p, "narrow %s", sum);
  if (k.tiled) lw_kind(p, "unroll", "ri");
  lw_kind(p, "unroll", "vb");
  lw_kind(p, "vectorize", "vv");
  if (lw_guard_uses(q, "s") && k.tiled) { /* columns of padding: the first and the last tile apart */
    if (k.m > k.mr && lw_step(p, "peel ro 1 1")) {
      lw_step(p, "unroll s.a");
      lw_step(p, k.eights && k.fours ? "unroll s.b2" : "unroll s.b"); /* the fours are the first .b */
    } else lw_step(p, "unroll s");
  } else if (k.tiled && k.m % k.mr) lw_step(p, "peel ro 0 1");
  int64_t steps = blocked ? k.block / k.d : q->red_extent[0] / k.d;
  int64_t ku = unrolled(&k, steps, k.d == 2 ? 48 : 24); /* a product of words goes with an addition: the loop's own work is in their way the more */
  static const char *const copies[] = {"", ".b", ".a"};
  bool edges = !(padded && k.d == 4 && p->t->vector_regs <= 16); /* taps without a loop share what they read: with two steps at once it spills */
  for (int i = 0; i < (edges ? IR_COUNT(copies) : 1) && !k.eights; i++) unroll_sum(p, ir_format(p->ctx, "%s%s", sum, copies[i]), ku);
  p->got.mr = k.tiled ? (int)k.mr : 1, p->got.nr = (int)(k.nb / k.lanes), p->got.ku = (int)ku, p->got.unfused = p->u.unfused;
  lw_parallel_outside(p);
  return true;
}
