/* learn.c — see learn.h. */
#include "autotune/learn.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 192, STEP = 64, ASSUMED = 16, ROWS = MOST + ASSUMED };

/* Variances of the parts, in logarithms of time. Chosen on replay tables, each workload judged by what suits the others. */
static const double whole = 0.25, each = 0.01, tile = 0.015, by_prediction = 0.01, rest = 0.015, noise = 0.0004;

struct at_learned {
  int n;                    /* trials learned from, those assumed included */
  int point[ROWS];
  double scale[ROWS];       /* the diagonal of the Cholesky factor L of the trials' covariance */
  double *row[ROWS];        /* L^-1 times the covariance of trials and points: L[i][k] is row[k][point[i]] */
  double z[ROWS];           /* L^-1 times the errors */
  int points, room;
  double (*x)[AT_FEATURES]; /* of every point, as places on lines */
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

static double alone(void) { return whole + each * AT_KNOBS + tile + by_prediction + rest; } /* the covariance of a point with itself */

/* Element j of a row: covariance less what the rows above say of both. */
static double element(const at_learned *l, int i, int j) {
  double sum = covariance(l->x[l->point[i]], l->x[j]);
  for (int k = 0; k < i; k++) sum -= l->row[k][l->point[i]] * l->row[k][j];
  return sum / l->scale[i];
}

static bool append(at_learned *l, int point) {
  int n = l->n;
  double left = alone() + noise, *row = l->row[n] ? l->row[n] : (l->row[n] = malloc(sizeof(double) * (size_t)l->room));
  if (!row) return false;
  for (int k = 0; k < n; k++) left -= l->row[k][point] * l->row[k][point];
  l->point[n] = point;
  l->scale[n] = sqrt(left > noise ? left : noise);
  for (int j = 0; j < l->points; j++) row[j] = covariance(l->x[point], l->x[j]);
  for (int k = 0; k < n; k++) {
    const double *above = l->row[k];
    double factor = above[point];
    for (int j = 0; j < l->points; j++) row[j] -= factor * above[j];
  }
  for (int j = 0; j < l->points; j++) row[j] /= l->scale[n];
  l->n++;
  return true;
}

#define GROW(p) ((more = realloc(p, n * sizeof *(p))) ? (p = more, true) : false)
static bool make_room(at_learned *l, int points) {
  if (points <= l->room) return true;
  int room = points + points / 2 + 64;
  size_t n = (size_t)room;
  void *more;
  bool done = GROW(l->x) && GROW(l->mean) && GROW(l->variance);
  for (int i = 0; i < ROWS && done; i++) done = !l->row[i] || GROW(l->row[i]);
  if (done) l->room = room;
  return done;
}

static void take_points(at_learned *l, const at_space *s) {
  for (; l->points < s->n; l->points++) {
    int j = l->points;
    at_point_features(&s->points[j], l->x[j]);
    for (int f = 0; f < AT_KNOBS; f++) l->x[j][f] = l->x[j][f] > 0 ? 1 + log2(l->x[j][f]) : 0;
    for (int i = 0; i < l->n; i++) l->row[i][j] = element(l, i, j);
  }
}

bool at_learn(at_learned **learned, const at_space *s, int n, const int *point, const double *error) {
  at_learned *l = *learned ? *learned : (*learned = calloc(1, sizeof *l));
  if (!l || !make_room(l, s->n)) return false;
  int from = n > MOST ? (n - MOST + STEP - 1) / STEP * STEP : 0, same = 0; /* the latest: they are the best */
  n -= from, point += from, error += from;
  while (same < n && same < l->n && l->point[same] == point[same]) same++;
  l->n = same;
  take_points(l, s);
  while (l->n < n)
    if (!append(l, point[l->n])) return false;
  for (int j = 0; j < l->points; j++) l->mean[j] = 0, l->variance[j] = alone();
  for (int i = 0; i < n; i++) {
    const double *row = l->row[i];
    double sum = error[i];
    for (int k = 0; k < i; k++) sum -= l->row[k][point[i]] * l->z[k];
    double z = l->z[i] = sum / l->scale[i];
    for (int j = 0; j < l->points; j++) l->mean[j] += row[j] * z, l->variance[j] -= row[j] * row[j];
  }
  return true;
}

double at_learned_error(const at_learned *l, int point, double *doubt) {
  *doubt = sqrt(l->variance[point] > 0 ? l->variance[point] : 0);
  return l->mean[point];
}

void at_learned_assume(at_learned *l, int point) {
  if (l->n == ROWS || !append(l, point)) return;
  const double *row = l->row[l->n - 1];
  for (int j = 0; j < l->points; j++) l->variance[j] -= row[j] * row[j];
}

void at_learned_free(at_learned *l) {
  if (!l) return;
  for (int i = 0; i < ROWS; i++) free(l->row[i]);
  free(l->x);
  free(l->mean);
  free(l->variance);
  free(l);
}
