/* tpu_cores.c — how cores share the nests of a program, and when they must meet. See tpu_whole.h. */
#include "codegen/tpu_contract.h"
#include "codegen/tpu_whole.h"

/* ---- which loop is divided ---- */

typedef struct tc_share {
  const ir_stmt *loop; /* null: core 0 does it alone */
} tc_share;

/* Cycles of one core's part of a contraction when loop l is divided. */
static double part_cycles(const tc *c, const ct_match *x, const ct_plan *p, int l) {
  double M = (double)p->M, N = (double)p->N, batch = (double)p->batch;
  double part = (double)((x->nest->extent[l] + c->ncores - 1) / c->ncores) / (double)x->nest->extent[l];
  bool row = l == p->row[0] || l == p->row[1] || l == p->row[2];
  if (row) M *= part;
  else if (l == p->column || l == p->column2) N *= part;
  else batch *= part;
  return ct_cycles(c, x, p, M, N, batch, p->resting->load->u.buf->constant, c->ncores);
}

static const ir_stmt *outermost_loop(tc *c, const tc_nest *nest) {
  int order[TC_LANES];
  tc_nest_order(c, nest, order);
  for (int i = 0; i < nest->n; i++)
    if (nest->extent[order[i]] >= c->ncores) return nest->loop[order[i]];
  return NULL;
}

/* Of a contraction the loop that makes the parts fastest, of all else the outermost one of the output. */
static const ir_stmt *loop_to_divide(tc *c, const tc_nest *nest) {
  ct_match *x = IR_NEW(c->ctx, ct_match);
  ct_plan plan[2];
  int order[TC_LANES], best = -1;
  double least = 0;
  if (!ct_match_nest(c, nest, x)) return outermost_loop(c, nest);
  tc_nest_order(c, nest, order);
  for (int i = 0; i < nest->n; i++) {
    int l = order[i];
    if (nest->extent[l] < c->ncores) continue;
    for (int k = 0; k < 2; k++) {
      if (!ct_plan_window(x, k == 1, &plan[k])) continue;
      double cycles = part_cycles(c, x, &plan[k], l);
      if (best >= 0 && cycles >= least) continue;
      least = cycles;
      best = l;
    }
  }
  return best < 0 ? outermost_loop(c, nest) : nest->loop[best];
}

static tc_share *share_of(tc *c, const tc_nest *nest, const ir_stmt *s) {
  tc_share *h = ir_map_get(&c->cores->shares, s);
  if (h) return h;
  ir_map_set(&c->cores->shares, s, h = IR_NEW(c->ctx, tc_share));
  h->loop = loop_to_divide(c, nest);
  return h;
}

static bool take_part(tc *c, tc_nest *nest, const tc_share *h) {
  if (!h->loop) return c->core == 0;
  for (int l = 0; l < nest->n; l++) {
    if (nest->loop[l] != h->loop) continue;
    int64_t n = nest->extent[l], from = n * c->core / c->ncores, to = n * (c->core + 1) / c->ncores;
    nest->lo[l] += from;
    nest->extent[l] = to - from;
  }
  return true;
}

bool tc_part(tc *c, tc_nest *nest, const ir_stmt *s) {
  if (c->ncores == 1 || c->cores->everyone) return true;
  return take_part(c, nest, share_of(c, nest, s));
}

/* ---- who touches what ---- */

void tc_step_begin(tc *c) {
  tc_cores *s = c->cores;
  IR_PUSH(c->ctx, s->first, s->nsteps, s->ntouches);
}

void tc_touch_slot(tc *c, int core, int slot, bool write, int64_t lo, int64_t hi) {
  tc_touch t = {slot, core, write, lo, hi};
  if (lo < hi) IR_PUSH(c->ctx, c->cores->touches, c->cores->ntouches, t);
}

static bool overlap(const tc_touch *a, const tc_touch *b) { return a->slot == b->slot && a->lo < b->hi && b->lo < a->hi; }

/* Two cores change what one box of both holds: pieces that are read, changed and written back whole. */
static bool pieces_meet(const tc *c, int from) {
  const tc_cores *s = c->cores;
  for (int i = from; i < s->ntouches; i++)
    for (int j = i + 1; j < s->ntouches; j++)
      if (s->touches[i].write && s->touches[j].write && s->touches[i].core != s->touches[j].core && overlap(&s->touches[i], &s->touches[j])) return true;
  return false;
}

/* The touches of a nest on all cores. When cores would write pieces of one box, its outermost loop is tried, or else core 0
 * does it alone. */
void tc_survey(tc *c, const tc_nest *nest, const ir_stmt *s, bool partly) {
  tc_cores *x = c->cores;
  tc_step_begin(c);
  int from = x->ntouches;
  if (x->everyone) {
    for (c->core = 0; c->core < c->ncores; c->core++) tc_touches(c, nest);
    c->core = 0;
    return;
  }
  tc_share *h = share_of(c, nest, s);
  for (int again = 0; again < 3; again++) {
    x->ntouches = from;
    for (c->core = 0; c->core < c->ncores; c->core++) {
      tc_nest part = *nest;
      if (take_part(c, &part, h)) tc_touches(c, &part);
    }
    c->core = 0;
    if (!h->loop || !partly || !pieces_meet(c, from)) return;
    const ir_stmt *outermost = outermost_loop(c, nest);
    h->loop = again || h->loop == outermost ? NULL : outermost;
  }
}

bool tc_crosses(const tc_cores *s, bool (*of)(void *user, int slot, int64_t *base), void *user) {
  int64_t base;
  tc_touch *own = NULL;
  int n = 0;
  for (int i = 0; i < s->ntouches; i++) {
    tc_touch t = s->touches[i];
    if (!of(user, t.slot, &base)) continue;
    t.lo += base, t.hi += base, t.slot = 0;
    IR_PUSH(s->ctx, own, n, t);
  }
  for (int i = 0; i < n; i++)
    for (int j = 0; j < n; j++)
      if (own[i].write && !own[j].write && own[i].core != own[j].core && overlap(&own[i], &own[j])) return true;
  return false;
}

/* ---- meeting ---- */

void tc_meet(tc *c) {
  for (int k = 0; k < c->ncores; k++) tc_order_fence(c->order[k], c->p, c->ncores > 1);
  c->cores->nopen = 0;
}

/* Something of core `t->core` at these addresses: of another core since they met? */
static bool conflicts(const tc_cores *s, const tc_touch *t) {
  for (int i = 0; i < s->nopen; i++)
    if (s->open[i].core != t->core && (s->open[i].write || t->write) && overlap(&s->open[i], t)) return true;
  return false;
}

static bool in_dram(const tc *c, const tc_home *home, const tc_touch *t, tc_touch *at) {
  if (home[t->slot].chip) return false;
  *at = *t;
  at->slot = 0;
  at->lo += home[t->slot].address;
  at->hi += home[t->slot].address;
  return at->hi > c->dram_written; /* what nobody writes needs no order */
}

void tc_step_meet(tc *c, const tc_home *home) {
  tc_cores *s = c->cores;
  if (c->ncores == 1) return;
  int from = s->first[s->step++], to = s->step < s->nsteps ? s->first[s->step] : s->ntouches;
  bool meet = false;
  tc_touch at;
  for (int i = from; i < to; i++) meet |= in_dram(c, home, &s->touches[i], &at) && conflicts(s, &at);
  if (meet) tc_meet(c);
  for (int i = from; i < to; i++)
    if (in_dram(c, home, &s->touches[i], &at)) IR_PUSH(c->ctx, s->open, s->nopen, at);
}
