/* default_blocking.c — in what parts a convolution goes over its operands, so that what is read again lies in
 * a cache: groups of pixels or rows, panels of weights, chunks of channels. Cycles are estimated for each
 * choice: the register tiles' by their rule, what comes from beyond the second-level cache by its bytes. */
#include "lower/default_schedule.h"

/* ---- 1x1: rows are pixels ---- */

/* How a 1x1 convolution goes over its operands: `rows` pixels at a time, all panels of weights over
 * them (all panels of a group, where chunks of the sum pass between), `kc` channels at a time. In blocked
 * layouts a row is read in as many pieces as there are blocks of channels, which no prefetcher
 * follows, so rows that do not stay in the second-level cache are dear to read again. */
enum { FAR_BYTES_A_CYCLE = 4, LEAST_ROWS = 12 };

/* The register tile for m rows, as far as it is free. */
static lw_tile tile_for(const lw_plan *p, int64_t m, int64_t n, int64_t lanes, int64_t max_nr) {
  lw_tile t = lw_best_tile(m, n, lanes, p->t->vector_regs, max_nr);
  if (p->u.mr) t.mr = lw_min(p->u.mr, m);
  if (p->u.nr) t.nr = p->u.nr;
  return t;
}

/* Whether blocks of r rows are worth a look: above half of what is asked for; divisors or, `ragged`, whole tiles of as many
 * blocks as even as that allows. */
static bool may_block(const lw_plan *p, int64_t r, int64_t m, int64_t ragged) {
  int64_t want = p->u.mb ? lw_min(p->u.mb * (p->u.mr ? p->u.mr : 6), m) : m, blocks = (m + r - 1) / r;
  bool even = ragged && r % ragged == 0 && r - ragged < (m + blocks - 1) / blocks;
  return (m % r == 0 || even) && r <= want && (!p->u.mb || 2 * r > want);
}

static lw_blocking whole_sums(const lw_plan *p, int64_t m, int64_t n, int64_t lanes) {
  int64_t depth = p->p.red_extent[0], k = depth * (int64_t)ir_dtype_bytes(p->p.a->u.buf->dtype);
  lw_blocking best = {.rows = m, .cycles = 1e300};
  for (int64_t r = m; r >= LEAST_ROWS || r == m; r--) {
    if (!may_block(p, r, m, 0)) continue;
    lw_tile t = tile_for(p, r, n, lanes, 6);
    int64_t nb = t.nr * lanes, groups = m / r, panels = (n + nb - 1) / nb;
    bool stays = (r + nb) * k <= p->t->l2_bytes * 15 / 16;
    double far = (double)(m * k) * (double)(stays ? 1 : panels) + (double)(n * k) * (double)(n * k <= p->t->l2_bytes / 4 ? 1 : groups);
    double cycles = (t.cost * (double)(groups * depth) + far / FAR_BYTES_A_CYCLE) * lw_task_cost(groups * panels);
    if (cycles < best.cycles) best = (lw_blocking){r, 0, 0, t, cycles};
  }
  return best;
}

/* Chunks of the sum, so that a panel of weights stays in the first cache while all rows pass, and the rows'
 * channels and sums in the second (Goto and van de Geijn, 2008). kc of 0: nothing to gain. */
static lw_blocking chunked_sums(const lw_plan *p, int64_t m, int64_t n, int64_t lanes, int64_t block) {
  int64_t e = (int64_t)ir_dtype_bytes(p->p.a->u.buf->dtype), depth = p->p.red_extent[0];
  lw_blocking best = {.rows = m, .cycles = 1e300};
  for (int64_t r = m; r >= LEAST_ROWS; r--) {
    lw_tile t = tile_for(p, r, n, lanes, 6);
    if (!may_block(p, r, m, t.mr)) continue;
    int64_t nb = t.nr * lanes, panels = (n + nb - 1) / nb, kc = p->t->l1_bytes / 3 / (nb * e);
    kc = p->u.kc ? p->u.kc : kc - kc % block;
    while (kc > block && depth % kc) kc -= block;
    bool stays = depth * nb * e < p->t->l1_bytes / 2 && !p->u.kc;
    if (kc < 4 * block || depth < 2 * kc || depth % kc || t.mr < 2 || stays) continue;
    for (int64_t g = panels; g > 0; g--) {
      if (panels % g || (p->u.group ? g != lw_min(p->u.group, panels) : r * (kc + g * nb) * e > p->t->l2_bytes / 2)) continue;
      double passes = (double)m / (double)r, turns = (double)(panels / g);
      double far = (double)(n * depth * e) * passes + (double)(m * depth * e) * (1 + (turns - 1) / 4);
      double cycles = t.cost * passes * (double)depth + far / FAR_BYTES_A_CYCLE + 2 * (double)(m * n / lanes * (depth / kc));
      cycles *= lw_task_cost((int64_t)(passes * turns));
      if (cycles < best.cycles) best = (lw_blocking){r, g < panels ? g : 0, kc, t, cycles};
    }
  }
  return best;
}

lw_blocking lw_pixel_blocking(const lw_plan *p, int64_t m, int64_t n, int64_t lanes, int64_t block) {
  int64_t bytes = m * p->p.red_extent[0] * (int64_t)ir_dtype_bytes(p->p.a->u.buf->dtype);
  if (p->u.kc ? p->u.kc < p->p.red_extent[0] : bytes > p->t->l2_bytes / 3) {
    lw_blocking b = chunked_sums(p, m, n, lanes, block);
    if (b.kc) return b;
  }
  return whole_sums(p, m, n, lanes);
}

/* ---- windows: rows are those of the picture ---- */

/* Sums that pass through memory between chunks: to set, take and store a vector once, and what each chunk adds.
 * Weights of a panel beyond the first cache are read from the second for every tile, mostly in time. */
enum { SUM_CYCLES = 16, CHUNK_CYCLES = 4, NEAR_BYTES_A_CYCLE = 192, STRICT_TERMS = 448 /* of a chunk, where nothing may be lost for speed */ };

typedef struct layer {
  int64_t images, n, height, width; /* of the result */
  int64_t depth, taps, row_taps, element;
  int64_t step, reach, in_width;    /* (rows - 1) * step + reach rows of the operand make so many of the result */
} layer;

static bool layer_of(const lw_plan *p, int v, int r, layer *l) {
  const lw_problem *q = &p->p;
  if (r != 3 || v != 1 || q->nout != 4 || q->nred != 3 || q->extent[0] < 1 || q->extent[2] < 1) return false;
  *l = (layer){.images = q->extent[0], .n = q->extent[1], .height = q->extent[2], .width = q->extent[3], .depth = q->red_extent[0],
               .taps = q->red_extent[1] * q->red_extent[2], .row_taps = q->red_extent[2], .element = (int64_t)ir_dtype_bytes(q->a->u.buf->dtype)};
  int64_t apart;
  for (int i = 0; i < q->a->nargs; i++) {
    ix at = q->a->args[i];
    if (ix_uses_var(at, q->out[2]->var)) {
      if (!ix_affine_in(at, q->out[2]->var, &l->step) || !ix_affine_in(at, q->red[1]->var, &apart)) return false;
      l->reach = apart * (q->red_extent[1] - 1) + 1;
    }
    if (ix_uses_var(at, q->out[3]->var) && !ix_const_value(q->a->u.buf->shape[i], &l->in_width)) return false;
  }
  return l->step > 0 && l->reach > 0 && l->in_width > 0;
}

static double window_cycles(const lw_plan *p, const layer *l, const lw_blocking *by, int64_t lanes, int64_t panels, int64_t g) {
  const lw_tile *t = &by->tile;
  int64_t nb = t->nr * lanes, sums = l->depth * l->taps, kc = by->kc ? by->kc : l->depth, chunks = l->depth / kc, groups = l->height / by->rows;
  int64_t panel = nb * kc * l->taps * l->element, weights = l->n * sums * l->element;
  int64_t row = l->in_width * kc * l->element, in = ((by->rows - 1) * l->step + l->reach) * row, out = chunks > 1 ? by->rows * l->width * g * nb * l->element : 0;
  bool stays = in + out + panel <= p->t->l2_bytes * 3 / 4;
  if (!stays && chunks > 1) return 1e300;
  int64_t again = !stays ? panels * in : chunks > 1 ? panels / g * in : by->rows * l->step * row; /* whole sums: rows that groups share are still there */
  double far = (double)(again * chunks * groups) + (double)weights * (double)(weights + in * chunks + out <= p->t->l2_bytes * 3 / 4 ? 1 : groups);
  double near = panel > p->t->l1_bytes * 2 / 3 ? (double)(weights * l->height) * (double)((l->width + t->mr - 1) / t->mr) : 0;
  double vectors = chunks > 1 ? (double)(l->height * l->width * (l->n / lanes)) * (double)(SUM_CYCLES + CHUNK_CYCLES * chunks) : 0;
  double cycles = t->cost * (double)(l->height * sums) + far / FAR_BYTES_A_CYCLE + near / NEAR_BYTES_A_CYCLE + vectors;
  return (double)l->images * cycles * lw_task_cost(l->images * groups * (chunks > 1 ? panels / g : panels));
}

bool lw_window_blocking(const lw_plan *p, int v, int r, int64_t block, bool padded, lw_blocking *best) {
  layer l;
  int64_t lanes = cg_target_lanes(p->t, p->p.dtype);
  if (!layer_of(p, v, r, &l)) return false;
  lw_tile whole = lw_window_tile(l.width, l.n, lanes, p->t->vector_regs, 6, padded, l.row_taps), even = whole;
  while (even.nr > 1 && l.n % (even.nr * lanes)) even = lw_window_tile(l.width, l.n, lanes, p->t->vector_regs, even.nr - 1, padded, l.row_taps);
  best->cycles = 1e300;
  for (int64_t kc = l.depth; kc >= block; kc -= block) {
    lw_tile t = kc < l.depth ? even : whole;
    int64_t nb = t.nr * lanes, panels = (l.n + nb - 1) / nb;
    if (l.depth % kc || (p->u.kc && kc != p->u.kc) || (kc < l.depth && (l.n % nb || t.mr < 2))) continue;
    if (kc < l.depth && p->u.accuracy <= 0 && !p->u.kc && kc * l.taps > STRICT_TERMS) continue; /* whole sums are cut in parts */
    for (int64_t rows = l.height; rows > 0; rows--)
      for (int64_t g = panels; g > 0 && l.height % rows == 0; g--) {
        if (panels % g || (kc == l.depth && g < panels)) continue;
        lw_blocking by = {rows, g < panels ? g : 0, kc < l.depth ? kc : 0, t, 0};
        by.cycles = window_cycles(p, &l, &by, lanes, panels, g);
        if (by.cycles < best->cycles) *best = by;
      }
  }
  return best->cycles < 1e300;
}
