/* final.c — see final.h. */
#include "autotune/final.h"
#include "autotune/stats.h"
#include "runtime/profile.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double SURE = 3, DOUBT = 2;           /* standard errors: that something is so; that it may be */
static const double PLACE = 0.01, BELIEF = 4; /* scatter by where things lie; how many blocks it counts as, with that of samples */

typedef struct comparison {
  double mean, error; /* of the logarithm of a's time over b's; NaN without rounds */
} comparison;

/* Variance of the logarithm of at_low of a block. Where a tail is exponential, its standard deviation is a third of
 * the range of what it is the mean of. */
static double variance(const double *x, int n) {
  double v[2 * AT_FINAL_BLOCK];
  if (n < 2) return 1;
  if (n > 2 * AT_FINAL_BLOCK) n = 2 * AT_FINAL_BLOCK;
  memcpy(v, x, (size_t)n * sizeof *v);
  at_sort(v, n);
  int k = n < 6 ? 1 : (n + 1) / 3 - 1;
  double range = log(v[k] / v[0]);
  return range * range / 9;
}

typedef struct block {
  double both, apart, within; /* logarithms of the product and of the quotient of the two times; variance of samples */
} block;

static int by_both(const void *a, const void *b) {
  const block *p = a, *q = b;
  return (p->both > q->both) - (p->both < q->both);
}

static comparison compare(const at_finalist *a, const at_finalist *b) {
  int n = a->n < b->n ? a->n : b->n, blocks;
  block x[AT_FINAL_MOST / AT_FINAL_BLOCK];
  double sum = 0, squares = 0, within = 0;
  if (n > AT_FINAL_MOST) n = AT_FINAL_MOST;
  if (n < 1) return (comparison){NAN, NAN};
  blocks = n < AT_FINAL_BLOCK ? 1 : n / AT_FINAL_BLOCK;
  for (int k = 0; k < blocks; k++) {
    int from = k * AT_FINAL_BLOCK, rounds = (k + 1 < blocks ? from + AT_FINAL_BLOCK : n) - from;
    double p = log(at_low(a->samples + from, rounds)), q = log(at_low(b->samples + from, rounds));
    x[k] = (block){p + q, p - q, variance(a->samples + from, rounds) + variance(b->samples + from, rounds)};
  }
  if (n >= AT_FINAL_SEVERAL) {
    qsort(x, (size_t)blocks, sizeof *x, by_both);
    blocks = (blocks + 1) / 2;
  }
  for (int k = 0; k < blocks; k++) sum += x[k].apart, within += x[k].within;
  comparison c = {.mean = sum / blocks};
  for (int k = 0; k < blocks; k++) squares += (x[k].apart - c.mean) * (x[k].apart - c.mean);
  double each = (BELIEF * (PLACE * PLACE + within / blocks) + squares) / (BELIEF + blocks - 1);
  c.error = sqrt(each / blocks);
  return c;
}

double at_final_ratio(const at_finalist *a, const at_finalist *b) { return exp(compare(a, b).mean); }

bool at_final_beats(const at_finalist *a, const at_finalist *b) {
  comparison c = compare(a, b);
  return c.mean < log(1 - AT_GAIN) && c.mean < -SURE * c.error;
}

static bool tied(const at_finalist *a, const at_finalist *best) {
  comparison c = compare(a, best);
  return a == best || c.mean < -log(1 - AT_GAIN) || c.mean < SURE * c.error;
}

static bool goes_before(const at_finalist *a, const at_finalist *b) {
  double p = a->predicted_ns > 0 ? a->predicted_ns : INFINITY, q = b->predicted_ns > 0 ? b->predicted_ns : INFINITY;
  return p != q ? p < q : strcmp(a->text, b->text) < 0;
}

/* The fastest of those that beat the last; the last when none does. */
static int fastest(const at_finalist *f, int n, double *ratio) {
  int best = n - 1;
  ratio[best] = 1;
  for (int j = 0; j < n - 1; j++) {
    ratio[j] = at_final_ratio(&f[j], &f[n - 1]);
    if (ratio[j] < ratio[best] && at_final_beats(&f[j], &f[n - 1])) best = j;
  }
  return best;
}

int at_final_pick(const at_finalist *f, int n, double *ratio) {
  double own[AT_MOST_FINALISTS];
  if (!ratio) ratio = own;
  int best = fastest(f, n, ratio), pick = best;
  for (int j = 0; j < n - 1 && best != n - 1; j++)
    if (j != pick && tied(&f[j], &f[best]) && at_final_beats(&f[j], &f[n - 1]) && goes_before(&f[j], &f[pick])) pick = j;
  return pick;
}

bool at_final_open(const at_finalist *f, int n) {
  double ratio[AT_MOST_FINALISTS];
  int best = fastest(f, n, ratio);
  for (int j = 0; j < n - 1; j++) {
    comparison d = compare(&f[j], &f[n - 1]), c = compare(&f[j], &f[best]);
    if (!at_final_beats(&f[j], &f[n - 1]) && ratio[j] < ratio[best] && d.mean - DOUBT * d.error < log(1 - AT_GAIN)) return true;
    bool apart = fabs(c.mean) > SURE * c.error, alike = fabs(c.mean) + DOUBT * c.error < 1.5 * AT_GAIN;
    if (best != n - 1 && j != best && !apart && !alike) return true;
  }
  return false;
}

bool at_final_lost(const at_finalist *f, int n, int j) {
  for (int i = 0; i < n; i++)
    if (i != j && at_final_beats(&f[i], &f[j])) return true;
  return false;
}

bool at_final_measure(at_lab *lab, int n, at_candidate *const *c, at_finalist *f, int least, double moment) {
  for (int j = 0; j < n; j++) {
    c[j]->n = c[j]->disturbed = 0, c[j]->samples = NULL;
    if (f[j].founded > least) least = f[j].founded;
  }
  bool out[AT_MOST_FINALISTS] = {0};
  for (int done = 0; done < AT_FINAL_MOST; done += AT_FINAL_BLOCK) {
    if (done >= AT_FINAL_ROUNDS && (rt_now() >= moment || (done >= least && !at_final_open(f, n)))) break;
    at_candidate *left[AT_MOST_FINALISTS], *order[AT_MOST_FINALISTS];
    int k = 0;
    for (int j = 0; j < n; j++) {
      if (done) at_lab_unload(lab, c[j]);
      out[j] |= done >= AT_FINAL_SEVERAL && done >= f[j].founded && j < n - 2 && at_final_lost(f, n, j);
      if (!out[j]) left[k++] = c[j];
    }
    for (int j = 0; j < k; j++) order[j] = left[(j + done / AT_FINAL_BLOCK) % k]; /* who is loaded first lies elsewhere: each in turn */
    at_lab_check(lab, k, order);
    at_lab_time(lab, k, left, AT_FINAL_BLOCK);
    for (int j = 0; j < n; j++) {
      f[j].samples = c[j]->samples, f[j].n = c[j]->n;
      if (c[j]->status != AT_OK) return false;
    }
    if (at_lab_over(lab)) break;
  }
  for (int j = 0; j < n; j++)
    if (c[j]->n < AT_FINAL_BLOCK) return false;
  return true;
}
