/* test_final.c — finals on synthetic times: a hard floor, a long tail, drift, slow spells, and places in memory that
 * are worth something. No clock. */
#include "autotune/final.h"
#include <criterion/criterion.h>
#include <math.h>

static uint64_t state;
static double uniform(void) { /* 0 <= x < 1; splitmix64 */
  uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

typedef struct machine { /* per round */
  double tail, drift, spell, place;
} machine;

enum { MOST = 4 };

/* Rounds of n rivals whose undisturbed times are `floor`, until their final is decided; returns the rounds. */
static int run(const machine *m, int n, const double *floor, double x[MOST][AT_FINAL_MOST], at_finalist f[MOST]) {
  double slow = 1, place[MOST] = {1, 1, 1, 1};
  int spell = 0, done = 0;
  for (int j = 0; j < n; j++) f[j] = (at_finalist){x[j], 0, 1 + j, "a", 0};
  while (done < AT_FINAL_ROUNDS || (done < AT_FINAL_MOST && at_final_open(f, n))) {
    for (int j = 0; j < n; j++) place[j] = 1 + m->place * uniform();
    for (int k = 0; k < AT_FINAL_BLOCK; k++, done++) {
      if (spell-- <= 0) slow = uniform() < 0.3 ? 1 + m->spell * uniform() : 1, spell = (int)(40 * uniform());
      double now = slow * (1 + m->drift * done / AT_FINAL_MOST);
      for (int j = 0; j < n; j++) x[j][done] = floor[j] * place[j] * now * (1 - m->tail * log(1 - uniform())) * (uniform() < 0.03 ? 1.5 : 1);
    }
    for (int j = 0; j < n; j++) f[j].n = done;
  }
  return done;
}

static const machine machines[] = {
    {0.002, 0, 0, 0.002}, {0.05, 0, 0, 0.005}, {0.05, 0.2, 0.5, 0.01}, {0.1, -0.3, 1, 0.01}, {0.03, 0, 0.5, 0.02},
};

/* One schedule entered twice is told apart in 5 % of the races at most, whatever the machine does. */
Test(final, equals) {
  enum { RACES = 400 };
  for (int i = 0; i < (int)(sizeof machines / sizeof *machines); i++) {
    int apart = 0;
    state = 7;
    for (int r = 0; r < RACES; r++) {
      double x[MOST][AT_FINAL_MOST];
      at_finalist f[MOST];
      run(&machines[i], 2, (double[]){100, 100}, x, f);
      apart += at_final_beats(&f[0], &f[1]) || at_final_beats(&f[1], &f[0]);
    }
    cr_expect(apart <= RACES / 20, "machine %d: told apart in %d of %d", i, apart, RACES);
  }
}

/* A gain of 4 % is found nearly always, the fastest of three is taken, and quickly where the machine is quiet. */
Test(final, gains) {
  enum { RACES = 200 };
  for (int i = 0; i < (int)(sizeof machines / sizeof *machines); i++) {
    int right = 0, rounds = 0;
    state = 11;
    for (int r = 0; r < RACES; r++) {
      double x[MOST][AT_FINAL_MOST], ratio[MOST];
      at_finalist f[MOST];
      rounds += run(&machines[i], 4, (double[]){97, 93, 99, 100}, x, f);
      right += at_final_pick(f, 4, ratio) == 1;
      cr_expect(fabs(ratio[1] - 0.93) < 0.03 + machines[i].tail);
    }
    cr_expect(right >= RACES * 9 / 10, "machine %d: right in %d of %d", i, right, RACES);
    if (i == 0) cr_expect(rounds <= RACES * 3 * AT_FINAL_BLOCK, "%d rounds", rounds / RACES);
  }
}

/* Those that cannot be told apart go by prediction, then text; a gain below AT_GAIN is none. */
Test(final, ties) {
  double x[MOST][AT_FINAL_MOST];
  at_finalist f[MOST];
  machine still = {0, 0, 0, 0};
  state = 3;
  run(&still, 3, (double[]){90, 90, 100}, x, f);
  cr_expect_eq(at_final_pick(f, 3, NULL), 0);
  f[0].predicted_ns = 5;
  cr_expect_eq(at_final_pick(f, 3, NULL), 1);
  f[1].predicted_ns = 5, f[0].text = "b";
  cr_expect_eq(at_final_pick(f, 3, NULL), 1);
  run(&still, 2, (double[]){99.5, 100}, x, f);
  cr_expect_eq(at_final_pick(f, 2, NULL), 1);
  f[0].n = 0;
  cr_expect(!at_final_beats(&f[0], &f[1]) && isnan(at_final_ratio(&f[0], &f[1])));
}

/* The fastest is not left out of the rest of a final; one that is 15 % slower is, nearly always. */
Test(final, losers) {
  enum { RACES = 200 };
  for (int i = 0; i < (int)(sizeof machines / sizeof *machines); i++) {
    int slow = 0, fast = 0, equal = 0;
    state = 13;
    for (int r = 0; r < RACES; r++) {
      double x[MOST][AT_FINAL_MOST];
      at_finalist f[MOST];
      run(&machines[i], 4, (double[]){85, 98, 85.2, 100}, x, f);
      fast += at_final_lost(f, 4, 0), slow += at_final_lost(f, 4, 1), equal += at_final_lost(f, 4, 2);
    }
    cr_expect(fast <= RACES / 20 && equal <= RACES / 20, "machine %d: the fastest lost %d and %d of %d", i, fast, equal, RACES);
    cr_expect(slow >= RACES * 9 / 10, "machine %d: the slow one lost %d of %d", i, slow, RACES);
  }
}
