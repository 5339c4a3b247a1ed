/* default_winograd.c — when a 3x3 convolution goes by Winograd's algorithm, and in what sizes.
 *
 * Cycles are estimated for the direct form (default_blocking.c) and each F(m x m, 3 x 3): the products by the register
 * tile's rule, the transforms by their loads and stores, weights by what memory delivers (16 to 64
 * numbers stand for 9). Many channels on small pictures stay direct or take small tiles for
 * the weights' sake; few channels stay direct for the transforms' sake. So it is for the gradient of the weights, where
 * what the transforms of both pictures take of memory counts. */
#include "lower/default_schedule.h"
#include "lower/winograd.h"
#include <string.h>

enum { WEIGHT_BYTES_A_CYCLE = 6, LEAST_CHANNELS = 16 };

static const double WORDS = 0.65; /* a product of two words and its addition, per channel, to a fused multiply-add */

typedef struct choice {
  int m;
  int64_t tiles, parts;
  lw_tile tile;
  double cycles;
} choice;

typedef struct layer {
  int64_t n, k, c, height, width, lanes, regs, l2;
  bool whole;     /* integers: exact, products of words */
  int64_t esize;  /* bytes of what is multiplied */
} layer;

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Weights beyond half of the second-level cache come from further away. */
static double weight_cycles(const layer *l, double bytes) { return bytes > (double)l->l2 / 2 ? bytes / WEIGHT_BYTES_A_CYCLE : 0; }

/* As the default schedule would do it (default_contraction.c). */
static double direct_cycles(const lw_plan *p, const layer *l) {
  lw_plan direct = *p;
  lw_problem *q = &direct.p;
  if (ix_uses_var(q->a, q->out[1]->var)) {
    ix t = q->a;
    q->a = q->b, q->b = t;
  }
  bool padded = q->guard != NULL;
  lw_blocking by;
  if (l->c > l->lanes && l->c % l->lanes == 0 && lw_window_blocking(&direct, 1, 3, l->lanes, padded, &by)) return by.cycles;
  lw_tile t = lw_window_tile(l->width, l->k, l->lanes, l->regs, 6, padded, 3);
  return t.cost * (double)(9 * l->c * l->n * l->height) + weight_cycles(l, 36.0 * (double)(l->c * l->k));
}

static choice winograd(const layer *l, const lw_winograd *w, const lw_tunables *u) {
  choice best = {.m = w->m, .cycles = 1e300};
  int64_t a = w->a, m = w->m, aa = a * a, all = l->n * ceil_div(l->height, m) * ceil_div(l->width, m);
  int64_t blocks = ceil_div(l->c, l->lanes), most = l->l2 * 3 / 4 / (aa * (l->esize * blocks * l->lanes + 4 * 2 * l->lanes));
  if (most < 16) most = 16; /* fewer would leave the weights to be read too often */
  int64_t fewest = ceil_div(all, u->wtiles ? u->wtiles : most), last = u->wtiles ? fewest : 2 * fewest + 1;
  for (int64_t groups = fewest; groups <= last; groups++) {
    int64_t tiles = ceil_div(all, groups), some = u->wparts ? u->wparts : 1, many = u->wparts ? u->wparts : l->k >= 8 * l->lanes ? 2 : 1;
    if (groups > fewest && tiles < 12) break;
    lw_tile t = lw_best_tile(tiles, l->k, l->lanes, l->regs, 4);
    double product = t.cost * (double)(aa * blocks * l->lanes * groups) * (l->whole ? WORDS : 1);
    /* stores, one a cycle, are the limit of the transforms: a^2 twice; m a + 2 m^2 */
    double in = (double)(groups * tiles * blocks) * (2.4 * (double)aa + 24);
    double out = (double)(groups * tiles * ceil_div(l->k, l->lanes)) * (1.2 * (double)(m * a + 2 * m * m) + 24);
    double weights = weight_cycles(l, (double)(l->esize * aa * blocks * l->lanes * l->k)) * (1 + 0.5 * (double)(groups - 1));
    for (int64_t parts = some; parts <= many; parts++) {
      double cycles = (product + in * (double)parts + out + weights) * lw_task_cost(groups * parts);
      choice c = {w->m, tiles, parts, t, cycles * (1 + 0.01 * (double)m)}; /* of equals the smaller: packing, memory */
      if (c.cycles < best.cycles) best = c;
    }
  }
  return best;
}

static bool layer_of(lw_plan *p, layer *l) {
  const lw_problem *q = &p->p;
  if (q->kind != LW_CONTRACTION || (q->dtype != TN_F32 && q->dtype != TN_I32) || q->nout != 4 || q->nred != 3 || q->red_extent[1] != 3 || q->red_extent[2] != 3) return false;
  *l = (layer){q->extent[0], q->extent[1], q->red_extent[0], q->extent[2], q->extent[3], cg_target_lanes(p->t, TN_F32), p->t->vector_regs, p->t->l2_bytes, q->dtype == TN_I32, q->dtype == TN_I32 ? 2 : 4};
  if (l->whole) l->regs--; /* the product of words takes one */
  if (l->whole && (p->t->vnni || q->a->u.buf->dtype == TN_I16 || q->b->u.buf->dtype == TN_I16)) return false; /* four bytes at once are faster; words do not fit */
  return l->n > 0 && l->height > 0 && l->width > 0 && l->lanes >= 4 && l->c >= LEAST_CHANNELS && l->k >= LEAST_CHANNELS && lw_contiguous_out(p, q->out[1]->var, l->lanes);
}

bool lw_default_winograd(lw_plan *p) {
  layer l;
  const lw_tunables *u = &p->u;
  if (u->winograd == 1 || !layer_of(p, &l) || (!u->winograd && u->accuracy <= 0 && !l.whole)) return false;
  /* bytes are left as bytes where this is worth it (quantised.c) */
  choice best = {.cycles = u->winograd || l.whole ? 1e300 : direct_cycles(p, &l) * 0.95};
  for (int m = 2; m <= (l.whole ? 2 : 6); m += 2) {
    lw_winograd w;
    if (!lw_winograd_of(m, &w) || (u->winograd ? m != u->winograd : !l.whole && w.error > lw_accuracy_of_kernel(u->accuracy))) continue;
    choice c = winograd(&l, &w, u);
    if (c.cycles < best.cycles) best = c;
  }
  if (!best.m) return false;
  if (u->mr) best.tile.mr = lw_min(u->mr, best.tiles);
  if (u->nr) best.tile.nr = u->nr;
  long long panel = (long long)(best.tile.nr * l.lanes);
  if (!lw_step(p, "algorithm winograd %d %lld %lld %lld %lld", best.m, (long long)best.tiles, panel, (long long)l.lanes, (long long)best.parts)) return false;
  bool rows = best.tile.mr > 1 && best.tiles > 1;
  if (rows && !lw_step(p, "split wt %lld -> wt ri", (long long)best.tile.mr)) return false;
  lw_step(p, "split wk %lld -> vb vv", (long long)l.lanes);
  if (!lw_step(p, rows ? "distribute ri vb vv" : "distribute vb vv")) return false;
  if (l.whole && (!lw_step(p, rows ? "reorder wb wc ri vb vv cd" : "reorder wb wc vb vv cd") || !lw_step(p, "tensorize dot cd"))) return false;
  if (rows) lw_kind(p, "unroll", "ri");
  lw_kind(p, "unroll", "vb");
  lw_kind(p, "vectorize", "vv");
  if (rows && best.tiles % best.tile.mr) lw_step(p, "peel wt 0 1");
  int64_t ku = u->ku ? u->ku : l.whole ? 1 : lw_steps_at_once(best.tile.mr, best.tile.nr);
  while (l.lanes % ku) ku /= 2;
  if (ku > 1) {
    static const char *const copies[] = {"wc", "wc.b"};
    for (int i = 0; i < 2; i++)
      if (lw_has_loop(p, copies[i]) && lw_step(p, "split %s %lld -> %s.o %s.u", copies[i], (long long)ku, copies[i], copies[i])) lw_step(p, "unroll %s.u", copies[i]);
  }
  lw_step(p, "parallel task");
  p->got = (lw_tunables){.winograd = best.m, .mr = (int)best.tile.mr, .nr = (int)best.tile.nr, .ku = (int)ku, .wtiles = (int)best.tiles, .wparts = (int)best.parts};
  return true;
}

/* ---- gradients of weights ---- */

/* The largest divisor of `channels` that is a multiple of the lanes and no more than `most`; 0: none. */
static int64_t block_of(int64_t channels, int64_t lanes, int64_t most) {
  for (int64_t block = most / lanes * lanes; block > 0; block -= lanes)
    if (channels % block == 0) return block;
  return 0;
}

typedef struct blocks {
  int m;
  int64_t c, k;
  lw_tile tile;
  double cycles;
} blocks;

static blocks weights_winograd(const layer *l, const lw_winograd *w) {
  enum { MOST = 64, BYTES_A_CYCLE = 6 };
  int64_t a = w->a, aa = a * a, tiles = l->n * ceil_div(l->height, w->m) * ceil_div(l->width, w->m);
  blocks b = {.m = w->m, .c = block_of(l->c, l->lanes, MOST), .cycles = 1e300};
  if (b.c) b.k = block_of(l->k, l->lanes, lw_min(l->k, l->l2 * 5 / 8 / (aa * 4 * b.c)));
  if (!b.k) return b;
  b.tile = lw_best_tile(b.c, b.k, l->lanes, l->regs, 4);
  while (b.k / l->lanes % b.tile.nr) b.tile = lw_best_tile(b.c, b.k, l->lanes, l->regs, b.tile.nr - 1);
  double product = b.tile.cost * (double)(aa * tiles * (l->c / b.c) * (l->k / b.k));
  double pictures = (double)(4 * aa * tiles * l->c), gradients = (double)(4 * aa * tiles * l->k); /* bytes: written, which reads them too, and read by blocks */
  double far = pictures * (double)(2 + l->k / b.k) + gradients * (double)(2 + l->c / b.c);
  double in = (double)(tiles * (l->c + l->k) / l->lanes) * (2.4 * (double)aa + 24), out = (double)(l->c * l->k / l->lanes) * (1.2 * (double)(3 * a + 9) + 24);
  b.cycles = product + in + out + far / BYTES_A_CYCLE;
  return b;
}

bool lw_default_winograd_weights(lw_plan *p) {
  const lw_problem *q = &p->p;
  const lw_tunables *u = &p->u;
  if (u->winograd == 1 || u->accuracy <= 0 || q->kind != LW_CONTRACTION || q->dtype != TN_F32 || q->nout != 4 || q->nred != 3 || q->extent[1] != 3 || q->extent[2] != 3) return false;
  layer l = {q->red_extent[0], q->extent[3], q->extent[0], q->red_extent[1], q->red_extent[2], cg_target_lanes(p->t, TN_F32), p->t->vector_regs, p->t->l2_bytes, false, 4};
  if (l.n < 1 || l.height < 1 || l.width < 1 || l.lanes < 4 || l.c < LEAST_CHANNELS || l.k < LEAST_CHANNELS) return false;
  static const double DIRECT = 0.65; /* of the peak */
  blocks best = {.cycles = u->winograd ? 1e300 : 9 * (double)(l.n * l.c * l.k * l.height * l.width) / (double)(2 * l.lanes) / DIRECT};
  for (int m = 2; m <= 6; m += 2) {
    lw_winograd w;
    if (!lw_winograd_of(m, &w) || (u->winograd ? m != u->winograd : w.error > lw_accuracy_of_kernel(u->accuracy))) continue;
    blocks b = weights_winograd(&l, &w);
    if (b.cycles < best.cycles) best = b;
  }
  if (!best.m) return false;
  if (u->mr) best.tile.mr = lw_min(u->mr, best.c);
  if (u->nr && best.k / l.lanes % u->nr == 0) best.tile.nr = u->nr;
  if (!lw_step(p, "algorithm winograd_weights %d %lld %lld %lld", best.m, (long long)best.c, (long long)best.k, (long long)l.lanes)) return false;
  if (!lw_step(p, "split wk %lld -> vo vi", (long long)(best.tile.nr * l.lanes)) || !lw_step(p, "split vi %lld -> vb vv", (long long)l.lanes) ||
      !lw_step(p, "split wt %lld -> wt ri", (long long)best.tile.mr) || !lw_step(p, "reorder vo wt ri vb vv") || !lw_step(p, "distribute ri vb vv"))
    return false;
  lw_kind(p, "unroll", "ri");
  lw_kind(p, "unroll", "vb");
  lw_kind(p, "vectorize", "vv");
  if (best.c % best.tile.mr) lw_step(p, "peel wt 0 1");
  int64_t ku = u->ku ? u->ku : lw_steps_at_once(best.tile.mr, best.tile.nr), tiles = l.n * ceil_div(l.height, best.m) * ceil_div(l.width, best.m);
  while (tiles % ku) ku /= 2;
  static const char *const copies[] = {"wn", "wn.b"};
  for (int i = 0; i < 2 && ku > 1; i++)
    if (lw_has_loop(p, copies[i]) && lw_step(p, "split %s %lld -> %s.o %s.u", copies[i], (long long)ku, copies[i], copies[i])) lw_step(p, "unroll %s.u", copies[i]);
  lw_step(p, "parallel task");
  p->got = (lw_tunables){.winograd = best.m, .mr = (int)best.tile.mr, .nr = (int)best.tile.nr, .ku = (int)ku};
  return true;
}
