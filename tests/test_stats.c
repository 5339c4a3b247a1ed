/* Sample statistics, rank tests and races. */
#include "autotune/stats.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

static uint64_t state;
static double uniform(void) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (double)(state >> 11) / 9007199254740992.0;
}
/* A floor, a tail of small delays and now and then a large one: what timings look like. */
static double timing(double floor_ns) {
  double t = floor_ns * (1 - 0.01 * log(1 - uniform()));
  return uniform() < 0.05 ? t * (1 + uniform()) : t;
}
static bool near(double a, double b) { return fabs(a - b) <= 1e-9 * (1 + fabs(b)); }

Test(stats, order_statistics) {
  const double x[] = {5, 1, 4, 2, 3, NAN};
  at_stats s = at_stats_of(x, 6);
  cr_assert_eq(s.n, 5);
  cr_assert(near(s.min, 1) && near(s.median, 3) && near(s.max, 5) && near(s.mean, 3));
  cr_assert(near(s.q25, 2) && near(s.q75, 4) && near(s.mad, 1));
  cr_assert(near(at_median((const double[]){2, 1}, 2), 1.5));
  cr_assert(isnan(at_median(NULL, 0)) && at_stats_of(NULL, 0).n == 0);
  const double one = 7;
  s = at_stats_of(&one, 1);
  cr_assert(near(s.q25, 7) && near(s.mad, 0));
  double many[500];
  for (int i = 0; i < 500; i++) many[i] = (i * 37) % 500;
  s = at_stats_of(many, 500);
  cr_assert(near(s.median, 249.5) && near(s.q75, 374.25));
  cr_assert(near(at_quantile((const double[]){0, 10}, 2, 0.25), 2.5));
}

Test(stats, rank_sum_exact_values) {
  /* All of one side below the other: 2 of C(6,3) = 20 orders are as extreme. */
  const double a[] = {1, 2, 3}, b[] = {4, 5, 6};
  cr_assert(near(at_rank_sum(a, 3, b, 3), 0.1));
  cr_assert(near(at_rank_sum(b, 3, a, 3), 0.1));
  /* 5 against 5 apart: 2 / C(10,5). */
  const double c[] = {1, 2, 3, 4, 5}, d[] = {6, 7, 8, 9, 10};
  cr_assert(near(at_rank_sum(c, 5, d, 5), 2.0 / 252));
  const double e[] = {1, 1, 1};
  cr_assert(near(at_rank_sum(e, 3, e, 3), 1));
  cr_assert(near(at_rank_sum(a, 0, b, 3), 1));
}

Test(stats, signed_rank_exact_values) {
  const double a[] = {1, 2, 3, 4, 5}, b[] = {2, 4, 6, 8, 10};
  cr_assert(near(at_signed_rank(a, b, 5), 2.0 / 32));
  cr_assert(near(at_signed_rank(a, a, 5), 1));
  const double c[] = {2, 1}, d[] = {1, 2};
  cr_assert(near(at_signed_rank(c, d, 2), 1));
}

/* A test at level alpha is wrong in about alpha of the cases when nothing differs. */
Test(stats, false_alarms_stay_at_alpha) {
  state = 1;
  enum { REPEATS = 2000 };
  const int sizes[] = {5, 12, 30, 50};
  for (int k = 0; k < 4; k++) {
    int n = sizes[k], alarms = 0, paired = 0;
    for (int i = 0; i < REPEATS; i++) {
      double a[50], b[50];
      for (int j = 0; j < n; j++) {
        a[j] = timing(1000);
        b[j] = timing(1000);
      }
      alarms += at_rank_sum(a, n, b, n) <= 0.05;
      paired += at_signed_rank(a, b, n) <= 0.05;
    }
    cr_assert(alarms < 0.065 * REPEATS, "n=%d: %d of %d", n, alarms, REPEATS);
    cr_assert(paired < 0.065 * REPEATS, "n=%d paired: %d of %d", n, paired, REPEATS);
  }
}

Test(stats, sees_a_real_difference) {
  state = 2;
  int right = 0, wrong = 0;
  for (int i = 0; i < 300; i++) {
    double a[30], b[30];
    for (int j = 0; j < 30; j++) {
      a[j] = timing(1000);
      b[j] = timing(1030);
    }
    int f = at_faster(a, 30, b, 30, 0.05, 0.005);
    right += f == -1;
    wrong += f == 1;
  }
  cr_assert(right > 290, "%d", right);
  cr_assert_eq(wrong, 0);
  const double a[] = {100, 100, 100, 100, 100, 100}, b[] = {101, 101, 101, 101, 101, 101};
  cr_assert_eq(at_faster(a, 6, b, 6, 0.05, 0.02), 0); /* below min_gain */
  cr_assert_eq(at_faster(a, 6, b, 6, 0.05, 0.005), -1);
  cr_assert_eq(at_faster(b, 6, a, 6, 0.05, 0.005), 1);
}

/* 20 candidates from 1x to 2x: the best survives, and most samples are never taken. */
Test(stats, race_finds_the_best) {
  state = 3;
  enum { N = 20, REPEATS = 100 };
  int found = 0, taken = 0, lost = 0;
  for (int k = 0; k < REPEATS; k++) {
    static double samples[N][30];
    at_racer r[N] = {0};
    int left = N;
    for (int look = 0; at_race_samples(look) && left > 1; look++) {
      for (int i = 0; i < N; i++) {
        if (r[i].out) continue;
        r[i].samples = samples[i];
        for (; r[i].n < at_race_samples(look); r[i].n++, taken++)
          samples[i][r[i].n] = timing(1000 * (1 + i / 20.0));
      }
      left = at_race_cut(r, N, &at_race_default);
      cr_assert_geq(left, 1);
    }
    lost += r[0].out;
    found += at_race_pick(r, N, &at_race_default) == 0;
  }
  cr_assert(lost <= 0.05 * REPEATS, "dropped the best %d times", lost);
  cr_assert(found >= 0.95 * REPEATS, "%d", found);
  cr_assert(taken < 0.4 * N * 30 * REPEATS, "%d", taken);
}

/* The same config entered twice is told apart in at most 5 % of races. */
Test(stats, a_against_a) {
  state = 4;
  int apart = 0;
  enum { REPEATS = 1000 };
  for (int k = 0; k < REPEATS; k++) {
    double samples[2][30];
    at_racer r[2] = {{samples[0], 0, 0, "b", false}, {samples[1], 0, 0, "a", false}};
    for (int look = 0; at_race_samples(look); look++) {
      for (int i = 0; i < 2; i++)
        for (; r[i].n < at_race_samples(look); r[i].n++) samples[i][r[i].n] = timing(1000);
      if (at_race_cut(r, 2, &at_race_default) < 2) break;
    }
    apart += r[0].out || r[1].out;
  }
  cr_assert(apart <= 0.05 * REPEATS, "%d of %d", apart, REPEATS);
}

Test(stats, race_corners) {
  const double fast[] = {10, 10, 10}, slow[] = {100, 100, 100};
  at_racer r[] = {{slow, 3, 1, "s", false}, {NULL, 0, 1, "none", false}, {fast, 3, 5, "f", false}};
  cr_assert_eq(at_race_cut(r, 3, &at_race_default), 1);
  cr_assert(r[0].out && r[1].out && !r[2].out);
  cr_assert_eq(at_race_pick(r, 3, &at_race_default), 2);
  at_racer none[] = {{NULL, 0, 0, NULL, false}};
  cr_assert_eq(at_race_cut(none, 1, &at_race_default), 0);
  cr_assert_eq(at_race_pick(none, 1, &at_race_default), -1);
  /* Ties go to the lower predicted time, then to text order. */
  at_racer tie[] = {{fast, 3, 9, "z", false}, {fast, 3, 7, "y", false}, {fast, 3, 7, "x", false}, {fast, 3, 0, "a", false}};
  cr_assert_eq(at_race_pick(tie, 4, &at_race_default), 2);
}

Test(stats, drift) {
  cr_assert(near(at_drift(110, 110, 100, 0.05), 1.1));
  cr_assert(isnan(at_drift(100, 120, 100, 0.05)));
  cr_assert(isnan(at_drift(0, 0, 100, 0.05)));
}
