/* winograd.h — minimal filtering F(m x m, 3 x 3): matrices, and what they cost in accuracy.
 *
 * A tile of m x m outputs needs a x a inputs, a = m + 2, and a^2 products per pair of
 * channels instead of 9 m^2 (Winograd 1980; Lavin and Gray, "Fast algorithms for
 * convolutional neural networks", 2016):
 *
 *   Y = A' [ (G g G') . (B' d B) ] A
 *
 * The matrices are Toom and Cook's for the points 0, +-p1, +-p2, ..., infinity. With
 * R(z) = prod (z - p^2) the polynomial of all finite points is x R(x^2); so rows of +p and
 * -p share an even and an odd part, and the transforms take about half the operations. */
#ifndef LW_WINOGRAD_H
#define LW_WINOGRAD_H
#include <stdbool.h>

enum { LW_WINO_PAIRS = 3, LW_WINO_A = 8 };

typedef struct lw_winograd {
  int m, a, pairs;
  double p[LW_WINO_PAIRS];                         /* points */
  double r[LW_WINO_PAIRS + 1];                     /* coefficients of R */
  double rq[LW_WINO_PAIRS][LW_WINO_PAIRS];         /* of R without the factor of pair q */
  double g[LW_WINO_A][3];                          /* G; rows 0, +p1, -p1, ..., infinity */
  double error; /* stated bound: largest error / largest output, sums of up to 10^4 random terms */
} lw_winograd;

/* m: 2, 4 or 6; false for others. */
bool lw_winograd_of(int m, lw_winograd *w);
#endif
