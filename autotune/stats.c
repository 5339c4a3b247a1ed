/* stats.c — medians, rank tests and the elimination race. See stats.h. */
#include "autotune/stats.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
  SMALL = 64,        /* samples handled without malloc */
  EXACT_RANKSUM = 24,
  EXACT_PAIRS = 40
};

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

void at_sort(double *x, int n) {
  if (n > SMALL) {
    qsort(x, (size_t)n, sizeof *x, by_value);
    return;
  }
  for (int i = 1; i < n; i++) {
    double v = x[i];
    int j = i;
    for (; j > 0 && x[j - 1] > v; j--) x[j] = x[j - 1];
    x[j] = v;
  }
}

double at_quantile(const double *sorted, int n, double q) {
  double at = q * (n - 1);
  int low = (int)at;
  if (low >= n - 1) return sorted[n - 1];
  return sorted[low] + (at - low) * (sorted[low + 1] - sorted[low]);
}

/* Room for n doubles: `small` if they fit, else malloc; null when memory is out. */
static double *room(double *small, int n) {
  return n <= SMALL ? small : malloc((size_t)n * sizeof(double));
}

at_stats at_stats_of(const double *x, int n) {
  at_stats s = {0, NAN, NAN, NAN, NAN, NAN, NAN, NAN};
  double small[SMALL];
  double *v = n > 0 ? room(small, n) : NULL;
  if (!v) return s;
  double sum = 0;
  for (int i = 0; i < n; i++)
    if (!isnan(x[i])) {
      v[s.n++] = x[i];
      sum += x[i];
    }
  if (s.n) {
    at_sort(v, s.n);
    s.min = v[0];
    s.max = v[s.n - 1];
    s.q25 = at_quantile(v, s.n, 0.25);
    s.median = at_quantile(v, s.n, 0.5);
    s.q75 = at_quantile(v, s.n, 0.75);
    s.mean = sum / s.n;
    for (int i = 0; i < s.n; i++) v[i] = fabs(v[i] - s.median);
    at_sort(v, s.n);
    s.mad = at_quantile(v, s.n, 0.5);
  }
  if (v != small) free(v);
  return s;
}

double at_median(const double *x, int n) { return at_stats_of(x, n).median; }

double at_low(const double *x, int n) {
  double small[SMALL], sum = 0;
  double *v = n > 0 ? room(small, n) : NULL;
  if (!v) return NAN;
  int k = n < 3 ? 1 : (n + 1) / 3;
  memcpy(v, x, (size_t)n * sizeof *v);
  at_sort(v, n);
  for (int i = 0; i < k; i++) sum += v[i];
  if (v != small) free(v);
  return sum / k;
}

/* ---- rank tests ---- */

typedef struct ranked {
  double value;
  int side;  /* 0: from a, 1: from b; for pairs: 1 when the difference is positive */
  int rank2; /* twice the mid-rank, so that it is whole */
} ranked;

static int by_rank_value(const void *a, const void *b) {
  double x = ((const ranked *)a)->value, y = ((const ranked *)b)->value;
  return (x > y) - (x < y);
}

/* Sorts and sets mid-ranks; returns the sum of t^3 - t over groups of t equal values. */
static double rank_all(ranked *r, int n) {
  qsort(r, (size_t)n, sizeof *r, by_rank_value);
  double ties = 0;
  for (int i = 0; i < n;) {
    int j = i;
    while (j < n && r[j].value == r[i].value) j++;
    for (int k = i; k < j; k++) r[k].rank2 = i + 1 + j; /* 2 * mean of i+1 .. j */
    double t = j - i;
    ties += t * t * t - t;
    i = j;
  }
  return ties;
}

static double two_sided_normal(double distance, double variance) {
  if (variance <= 0) return 1;
  double z = distance / sqrt(variance);
  return z <= 0 ? 1 : erfc(z / sqrt(2.0));
}

/* Exact: every choice of `na` of the n ranks is equally likely. ways[k][s] counts
 * the choices of k items with doubled rank sum s. */
static double rank_sum_exact(const ranked *r, int n, int na, int sum2) {
  enum { TOP = EXACT_RANKSUM * (EXACT_RANKSUM + 1) + 1 };
  static const int width = TOP;
  double *ways = calloc((size_t)(na + 1) * TOP, sizeof *ways);
  if (!ways) return 1;
  ways[0] = 1;
  for (int i = 0; i < n; i++)
    for (int k = i + 1 < na ? i + 1 : na; k >= 1; k--)
      for (int s = r[i].rank2; s < width; s++)
        ways[k * width + s] += ways[(k - 1) * width + s - r[i].rank2];
  int centre = na * (n + 1); /* expected doubled rank sum */
  int distance = abs(sum2 - centre);
  double all = 0, far = 0;
  for (int s = 0; s < width; s++) {
    all += ways[na * width + s];
    if (abs(s - centre) >= distance) far += ways[na * width + s];
  }
  free(ways);
  return far / all;
}

double at_rank_sum(const double *a, int na, const double *b, int nb) {
  if (na < 1 || nb < 1) return 1;
  int n = na + nb;
  ranked small[SMALL];
  ranked *r = n <= SMALL ? small : malloc((size_t)n * sizeof *r);
  if (!r) return 1;
  for (int i = 0; i < na; i++) r[i] = (ranked){a[i], 0, 0};
  for (int i = 0; i < nb; i++) r[na + i] = (ranked){b[i], 1, 0};
  double ties = rank_all(r, n);
  long sum2 = 0;
  for (int i = 0; i < n; i++)
    if (r[i].side == 0) sum2 += r[i].rank2;
  double p;
  if (n <= EXACT_RANKSUM) {
    p = rank_sum_exact(r, n, na, (int)sum2);
  } else {
    double dn = n;
    double distance = fabs((double)sum2 / 2 - na * (dn + 1) / 2) - 0.5;
    double variance = (double)na * nb / 12 * (dn + 1 - ties / (dn * (dn - 1)));
    p = two_sided_normal(distance, variance);
  }
  if (r != small) free(r);
  return p > 1 ? 1 : p;
}

double at_signed_rank(const double *a, const double *b, int n) {
  ranked small[SMALL];
  ranked *r = n <= SMALL ? small : malloc((size_t)n * sizeof *r);
  if (!r) return 1;
  int m = 0; /* pairs that differ; equal ones say nothing */
  for (int i = 0; i < n; i++) {
    double d = a[i] - b[i];
    if (d != 0 && !isnan(d)) r[m++] = (ranked){fabs(d), d > 0, 0};
  }
  double p = 1;
  if (m > 0) {
    double ties = rank_all(r, m);
    long sum2 = 0;
    for (int i = 0; i < m; i++)
      if (r[i].side) sum2 += r[i].rank2;
    if (m <= EXACT_PAIRS) {
      /* Each sign is a fair coin: ways[s] counts sign patterns with doubled sum s. */
      double ways[EXACT_PAIRS * (EXACT_PAIRS + 1) + 1] = {1};
      int top = m * (m + 1);
      for (int i = 0; i < m; i++)
        for (int s = top; s >= r[i].rank2; s--) ways[s] += ways[s - r[i].rank2];
      double all = 0, far = 0;
      for (int s = 0; s <= top; s++) {
        all += ways[s];
        if (labs(2L * s - top) >= labs(2 * sum2 - top)) far += ways[s];
      }
      p = far / all;
    } else {
      double dm = m;
      double distance = fabs((double)sum2 / 2 - dm * (dm + 1) / 4) - 0.5;
      p = two_sided_normal(distance, dm * (dm + 1) * (2 * dm + 1) / 24 - ties / 48);
    }
  }
  if (r != small) free(r);
  return p > 1 ? 1 : p;
}

int at_faster(const double *a, int na, const double *b, int nb, double alpha, double min_gain) {
  double ma = at_median(a, na), mb = at_median(b, nb);
  if (isnan(ma) || isnan(mb)) return 0;
  double low = ma < mb ? ma : mb, high = ma < mb ? mb : ma;
  if (high - low <= min_gain * low) return 0;
  if (at_rank_sum(a, na, b, nb) > alpha) return 0;
  return ma < mb ? -1 : 1;
}

/* ---- races ---- */

const at_race at_race_default = {0.05, 0.005, 4};

int at_race_samples(int look) {
  static const int counts[] = {1, 5, 15, 30};
  return look >= 0 && look < (int)(sizeof counts / sizeof *counts) ? counts[look] : 0;
}

/* A candidate whose *best* sample is this much above the leader's median is out
 * without a test. One sample can be disturbed to about twice its time; by
 * fifteen the minimum of a good one has been close to its floor at least once. */
static double far_behind(int samples) {
  return samples < 5 ? 2.0 : samples < 15 ? 1.15 : 1.05;
}

static int leader(const at_racer *r, int n, double *median) {
  int best = -1;
  *median = NAN;
  for (int i = 0; i < n; i++) {
    if (r[i].out || r[i].n < 1) continue;
    double m = at_median(r[i].samples, r[i].n);
    if (best < 0 || m < *median) {
      best = i;
      *median = m;
    }
  }
  return best;
}

int at_race_cut(at_racer *r, int n, const at_race *rule) {
  double median;
  int best = leader(r, n, &median);
  int rivals = -1, left = 0;
  for (int i = 0; i < n; i++) rivals += !r[i].out && r[i].n > 0;
  double alpha = rule->alpha / (rule->looks > 0 ? rule->looks : 1) / (rivals > 0 ? rivals : 1);
  for (int i = 0; i < n; i++) {
    if (r[i].out || i == best) continue;
    at_stats s = at_stats_of(r[i].samples, r[i].n);
    int fewer = best >= 0 && r[best].n < s.n ? r[best].n : s.n;
    r[i].out = s.n == 0 || s.min > far_behind(fewer) * median ||
               at_faster(r[best].samples, r[best].n, r[i].samples, r[i].n, alpha, rule->min_gain) < 0;
  }
  for (int i = 0; i < n; i++) left += !r[i].out && r[i].n > 0;
  return left;
}

static bool goes_before(const at_racer *a, const at_racer *b) {
  double pa = a->predicted > 0 ? a->predicted : INFINITY;
  double pb = b->predicted > 0 ? b->predicted : INFINITY;
  if (pa != pb) return pa < pb;
  return strcmp(a->text ? a->text : "", b->text ? b->text : "") < 0;
}

int at_race_pick(const at_racer *r, int n, const at_race *rule) {
  double median;
  int best = leader(r, n, &median), pick = best;
  for (int i = 0; i < n; i++) {
    if (r[i].out || r[i].n < 1 || i == best) continue;
    if (at_faster(r[best].samples, r[best].n, r[i].samples, r[i].n, rule->alpha, rule->min_gain) < 0) continue;
    if (goes_before(&r[i], &r[pick])) pick = i;
  }
  return pick;
}

double at_drift(double before, double after, double nominal, double tolerance) {
  double low = before < after ? before : after, high = before < after ? after : before;
  if (!(low > 0) || !(nominal > 0) || high - low > tolerance * low) return NAN;
  return (before + after) / 2 / nominal;
}
