/* stats.h — order statistics of timing samples, tests that tell two kernels apart,
 * and the race that drops slow candidates early.
 *
 * Times have a hard floor and a long upper tail, so everything here works on ranks
 * and medians. Samples are positive finite numbers in any one unit.
 */
#ifndef AT_STATS_H
#define AT_STATS_H
#include <stdbool.h>
#include <stddef.h>

typedef struct at_stats {
  int n;
  double min, q25, median, q75, max, mean;
  double mad; /* median of |x - median|, not scaled */
} at_stats;
/* n >= 0; with n = 0 everything is NaN. Does not change `x`; NaNs in it are left out. */
at_stats at_stats_of(const double *x, int n);
/* Quantile 0 <= q <= 1 of sorted x[n], linear between neighbours; n >= 1. */
double at_quantile(const double *sorted, int n, double q);
double at_median(const double *x, int n); /* NaN when n is 0 */
double at_low(const double *x, int n);    /* mean of the lowest third, at least of one: near the floor, not at the luckiest; NaN when n is 0 */
void at_sort(double *x, int n);           /* ascending */

/* Two-sided p-value that both come from one distribution (Mann-Whitney U, ties by
 * mid-ranks): exact up to 24 samples together, else the normal approximation with
 * tie and continuity corrections. 1 when a side is empty. */
double at_rank_sum(const double *a, int na, const double *b, int nb);
/* Two-sided p-value that the pairs a[i], b[i] differ by nothing (Wilcoxon signed
 * rank): exact up to 40 pairs. For samples taken interleaved (ABBA), where drift
 * hits both. */
double at_signed_rank(const double *a, const double *b, int n);
/* -1: a is faster, +1: b is faster, 0: cannot be told apart at level alpha, or the
 * medians differ by less than the fraction `min_gain` of the smaller. */
int at_faster(const double *a, int na, const double *b, int nb, double alpha, double min_gain);

/* ---- races: successive elimination ---- */

typedef struct at_racer {
  const double *samples; /* n of them */
  int n;
  double predicted;  /* breaks ties, lower first; NaN or 0: last */
  const char *text;  /* breaks the remaining ties; may be null */
  bool out;          /* eliminated; set by at_race_cut, kept once set */
} at_racer;

typedef struct at_race {
  double alpha;    /* chance to drop the best one by mistake, over the whole race */
  double min_gain; /* differences below this fraction do not matter */
  int looks;       /* how often at_race_cut will be called: alpha is split among them */
} at_race;
extern const at_race at_race_default; /* 0.05, 0.005, 4 */
/* Sample counts after which to cut: 1, 5, 15, 30. Returns 0 after the last. */
int at_race_samples(int look);
/* Drops the candidates that are slower than the leader: by far (a margin that shrinks
 * with the number of samples), or significantly. Those without samples are dropped.
 * Returns how many remain: at least 1 if any has samples. */
int at_race_cut(at_racer *r, int n, const at_race *rule);
/* Index of the winner among the remaining: lowest median; those that cannot be told
 * from it are tied, and ties go to the lower predicted time, then to text order.
 * -1 if none has samples. */
int at_race_pick(const at_racer *r, int n, const at_race *rule);

/* How much slower than nominal the machine ran around a sample, from a probe's time
 * before and after it: >= 1 on a disturbed machine. NaN if the two disagree by more
 * than the fraction `tolerance`: throw the sample away. */
double at_drift(double before, double after, double nominal, double tolerance);
#endif
