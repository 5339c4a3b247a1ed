/* default_tile.c — the register tile of matrix products and convolutions, by cycles. */
#include "lower/default_schedule.h"

/* Cycles of one reduction step of an m x n-vector tile: two FMAs or two loads a cycle, and at
 * least the latency of 4 through a single accumulator, with one more: chains that only just
 * cover the latency lose every bubble for good (4x2 in a loop reaches 60 % of the peak, 6x2 95 %). */
static double tile_cycles(int64_t m, int64_t n) {
  /* loads cost a little more than two a cycle: lines split, banks collide */
  double fma = (double)(m * n) / 2, load = (double)(m + n) / 2 * 1.1;
  double c = fma > load ? fma : load;
  return c < 5 ? 5 : c;
}

/* Rows that fit beside nr vectors: a step holds the vectors and one row at a time or, `either`, the rows and one
 * vector at a time. `spare` registers are kept free in the first form. */
static int64_t most_rows(int64_t nr, int64_t regs, int64_t spare, bool either) {
  int64_t most = (regs - spare - 1 - nr) / nr, wide = (regs - 1) / (nr + 1);
  if (nr == 1 && most > regs - spare - 4) most = regs - spare - 4;
  return either && wide < nr && wide > most ? wide : most;
}

bool lw_tile_fits(int64_t mr, int64_t nr, int64_t regs, bool window) {
  return mr * nr + (window ? lw_min(mr, nr) : nr) + 1 <= regs;
}

/* `more`: loads per FMA, 1/mr of vectors and 1/nr of rows, cost so much of its time although they hide behind it. */
static lw_tile best_tile(int64_t m, int64_t n, int64_t lanes, int64_t regs, int64_t spare, int64_t max_nr, bool either, const double more[2]) {
  lw_tile best = {1, 1, 1e300};
  int64_t vectors = (n + lanes - 1) / lanes;
  for (int64_t nr = 1; nr <= max_nr && nr <= vectors; nr++) {
    int64_t most = most_rows(nr, regs, spare, either);
    for (int64_t mr = 1; mr <= most && mr <= m; mr++) {
      double full = (double)(m / mr), rest = m % mr ? tile_cycles(m % mr, nr) : 0;
      double cost = (full * tile_cycles(mr, nr) + rest) * (double)((vectors + nr - 1) / nr);
      cost *= 1 + 0.25 / (double)(mr * nr) + more[0] / (double)mr + more[1] / (double)nr; /* prologue and epilogue of a tile; loads */
      if (mr > 1 && m % mr) cost *= 1.01;   /* a second loop body */
      if (nr == 1 && mr > 2 && mr < 8 && vectors > 1) cost *= 1.1; /* too few chains, and a load of weights for each row's few FMAs */
      if (cost < best.cost * 0.999 || (cost < best.cost * 1.001 && mr * nr > best.mr * best.nr)) best = (lw_tile){mr, nr, cost};
    }
  }
  return best;
}

lw_tile lw_best_tile(int64_t m, int64_t n, int64_t lanes, int64_t regs, int64_t max_nr) {
  return best_tile(m, n, lanes, regs, 0, max_nr, false, (double[]){0.4, 0}); /* vectors from the second cache */
}

lw_tile lw_window_tile(int64_t m, int64_t n, int64_t lanes, int64_t regs, int64_t max_nr, bool padded, int64_t taps) {
  enum { WIDE_TAPS = 3 }; /* with five, rows beside one vector at a time spill: 3x4 takes twice as long as 6x2 */
  if (regs > 16) return lw_best_tile(m, n, lanes, regs - padded, max_nr); /* borders, unrolled, need one more */
  return best_tile(m, n, lanes, regs, padded, max_nr, taps <= WIDE_TAPS, (double[]){0.3, 0.3});
}
