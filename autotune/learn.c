/* learn.c — see learn.h. */
#include "autotune/learn.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 192, ASSUMED = 16, ROWS = MOST + ASSUMED };

/* Variances of the parts, in logarithms of time. Chosen on replay tables, each workload judged by what suits the others. */
static const double whole = 0.25, each = 0.01, tile = 0.015, by_prediction = 0.01, rest = 0.015, noise = 0.0004;

struct at_learned {
  const at_space *s;
  int n;                    /* trials learned from, those assumed included */
  int point[ROWS];
  double (*x)[AT_FEATURES]; /* of every point, as places on lines */
  double *l;                /* ROWS x ROWS, lower: the Cholesky factor of the trials' covariance */
  double *v;                /* ROWS x points: l^-1 times the covariance of trials and points */
  double z[ROWS];           /* l^-1 times the errors */
  double *mean, *variance;  /* of every point */
};

/* Between 1 and 0 by distance; 1 / (1 + d) is a mixture of exponentials, so sums and products of it are covariances. */
static double near(double a, double b, double scale) { return 1 / (1 + scale * fabs(a - b)); }

static double covariance(const double *a, const double *b) {
  double sum = 0, product = 1;
  for (int i = 0; i < AT_KNOBS; i++) {
    double k = near(a[i], b[i], 1);
    sum += k;
    product *= k;
  }
  return whole + each * sum + tile * near(a[0], b[0], 2) * near(a[1], b[1], 2) + by_prediction * near(a[AT_FEATURES - 1], b[AT_FEATURES - 1], 1) + rest * product;
}

/* Takes one trial more; error NaN: as expected. */
static void take(at_learned *l, int point, double error) {
  int n = l->n, points = l->s->n;
  double *row = l->l + (size_t)n * ROWS, *v = l->v + (size_t)n * (size_t)points, sum = 0;
  for (int i = 0; i < n; i++) row[i] = l->v[(size_t)i * (size_t)points + (size_t)point];
  double left = l->variance[point] + noise, d = sqrt(left > noise ? left : noise);
  row[n] = d;
  for (int i = 0; i < n; i++) sum += row[i] * l->z[i];
  l->z[n] = isnan(error) ? 0 : (error - sum) / d;
  for (int j = 0; j < points; j++) v[j] = covariance(l->x[point], l->x[j]);
  for (int i = 0; i < n; i++) {
    const double *above = l->v + (size_t)i * (size_t)points;
    for (int j = 0; j < points; j++) v[j] -= row[i] * above[j];
  }
  for (int j = 0; j < points; j++) {
    v[j] /= d;
    l->variance[j] -= v[j] * v[j];
    l->mean[j] += v[j] * l->z[n];
  }
  l->point[l->n++] = point;
}

at_learned *at_learn(const at_space *s, int n, const int *point, const double *error) {
  at_learned *l = calloc(1, sizeof *l);
  if (!l) return NULL;
  size_t points = (size_t)s->n + 1;
  l->s = s;
  l->x = malloc(points * sizeof *l->x);
  l->l = malloc(sizeof(double) * ROWS * ROWS);
  l->v = malloc(sizeof(double) * ROWS * points);
  l->mean = calloc(points, sizeof(double));
  l->variance = malloc(sizeof(double) * points);
  if (!l->x || !l->l || !l->v || !l->mean || !l->variance) {
    at_learned_free(l);
    return NULL;
  }
  for (int i = 0; i < s->n; i++) {
    at_point_features(&s->points[i], l->x[i]);
    for (int f = 0; f < AT_KNOBS; f++) l->x[i][f] = l->x[i][f] > 0 ? 1 + log2(l->x[i][f]) : 0;
    l->variance[i] = covariance(l->x[i], l->x[i]);
  }
  for (int i = n > MOST ? n - MOST : 0; i < n; i++) take(l, point[i], error[i]); /* the latest: they are the best */
  return l;
}

double at_learned_error(const at_learned *l, int point, double *doubt) {
  *doubt = sqrt(l->variance[point] > 0 ? l->variance[point] : 0);
  return l->mean[point];
}

void at_learned_assume(at_learned *l, int point) {
  if (l->n < ROWS) take(l, point, NAN);
}

void at_learned_free(at_learned *l) {
  if (!l) return;
  free(l->x);
  free(l->l);
  free(l->v);
  free(l->mean);
  free(l->variance);
  free(l);
}
