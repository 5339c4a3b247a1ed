/* winograd.c — see winograd.h. */
#include "lower/winograd.h"
#include <string.h>

/* Points with few bits, so that all coefficients of the transforms are exact in f32, chosen among
 * such for the least error: 3/4 and 3/2 lose a quarter of what the usual 1 and 2 lose. */
static const struct {
  int m, pairs;
  double p[LW_WINO_PAIRS], error;
} forms[] = {
    {2, 1, {1}, 2e-6},
    {4, 2, {0.75, 1.5}, 1e-5},
    {6, 3, {1, 2, 0.5}, 4e-5},
};

/* Coefficients of the product of (z - p^2) over all pairs but `skip`. */
static void product(const lw_winograd *w, int skip, double *c) {
  int n = 0;
  c[0] = 1;
  for (int q = 0; q < w->pairs; q++) {
    if (q == skip) continue;
    double z = w->p[q] * w->p[q];
    c[n + 1] = 0;
    for (int i = n + 1; i > 0; i--) c[i] = c[i - 1] - z * c[i];
    c[0] *= -z;
    n++;
  }
}

bool lw_winograd_of(int m, lw_winograd *w) {
  for (int f = 0; f < (int)(sizeof forms / sizeof *forms); f++) {
    if (forms[f].m != m) continue;
    *w = (lw_winograd){.m = m, .a = m + 2, .pairs = forms[f].pairs, .error = forms[f].error};
    memcpy(w->p, forms[f].p, sizeof w->p);
    product(w, -1, w->r);
    w->g[0][0] = 1 / w->r[0];
    w->g[w->a - 1][2] = 1;
    for (int q = 0; q < w->pairs; q++) {
      double p = w->p[q], z = p * p, value = 0;
      product(w, q, w->rq[q]);
      for (int j = w->pairs; j-- > 0;) value = value * z + w->rq[q][j];
      double norm = 2 * z * value; /* the derivative of x R(x^2) at p and at -p */
      for (int sign = 0; sign < 2; sign++) {
        double *row = w->g[1 + 2 * q + sign];
        row[0] = 1 / norm;
        row[1] = (sign ? -p : p) / norm;
        row[2] = z / norm;
      }
    }
    return true;
  }
  return false;
}
