/* learn.c — see learn.h. */
#include "autotune/learn.h"
#include <math.h>

enum { TREES = 40, LEAST = 2 /* points in a leaf */, FEWEST = 24 /* trials that trees are grown from */ };
static const double rate = 0.3;

typedef struct split { /* x[feature] <= at goes to the left */
  int feature;
  double at;
} split;

typedef struct tree {
  split root, below[2];
  double leaf[4];
} tree;

struct at_learned {
  int n;
  tree t[TREES];
};

static bool left(const split *s, const double *x) { return x[s->feature] <= s->at; }

/* The split of the points in `side` that leaves the least squared error; without a good one all go left. */
static split best_split(int n, double (*x)[AT_FEATURES], const double *r, const int *side, int want) {
  split best = {0, INFINITY};
  double most = 0, all = 0;
  int count = 0;
  for (int i = 0; i < n; i++)
    if (side[i] == want) all += r[i], count++;
  for (int f = 0; f < AT_FEATURES; f++)
    for (int c = 0; c < n; c++) { /* a value that is there is the threshold */
      double sum = 0;
      int k = 0;
      if (side[c] != want) continue;
      for (int i = 0; i < n; i++)
        if (side[i] == want && x[i][f] <= x[c][f]) sum += r[i], k++;
      if (k < LEAST || count - k < LEAST) continue;
      double gain = sum * sum / k + (all - sum) * (all - sum) / (count - k) - all * all / count;
      if (gain > most * (1 + 1e-9) + 1e-12) most = gain, best = (split){f, x[c][f]};
    }
  return best;
}

static int leaf_of(const tree *t, const double *x) {
  int side = !left(&t->root, x);
  return 2 * side + !left(&t->below[side], x);
}

at_learned *at_learn(tn_ctx *ctx, int n, const at_point *const *points, const double *error) {
  at_learned *l = IR_NEW(ctx, at_learned);
  double(*x)[AT_FEATURES] = ir_alloc(ctx, ((size_t)n + 1) * sizeof *x), *r = IR_NEW_ARRAY(ctx, double, n + 1);
  int *side = IR_NEW_ARRAY(ctx, int, n + 1);
  for (int i = 0; i < n; i++) at_point_features(points[i], x[i]), r[i] = error[i];
  for (l->n = 0; l->n < TREES && n >= FEWEST; l->n++) {
    tree *t = &l->t[l->n];
    for (int i = 0; i < n; i++) side[i] = 0;
    t->root = best_split(n, x, r, side, 0);
    for (int i = 0; i < n; i++) side[i] = !left(&t->root, x[i]);
    for (int k = 0; k < 2; k++) t->below[k] = best_split(n, x, r, side, k);
    double sum[4] = {0}, count[4] = {0};
    for (int i = 0; i < n; i++) sum[leaf_of(t, x[i])] += r[i], count[leaf_of(t, x[i])]++;
    for (int k = 0; k < 4; k++) t->leaf[k] = count[k] > 0 ? rate * sum[k] / (count[k] + 1) : 0; /* few points: less trust */
    for (int i = 0; i < n; i++) r[i] -= t->leaf[leaf_of(t, x[i])];
  }
  return l;
}

double at_learned_error(const at_learned *l, const at_point *p) {
  double x[AT_FEATURES], sum = 0;
  at_point_features(p, x);
  for (int i = 0; i < l->n; i++) sum += l->t[i].leaf[leaf_of(&l->t[i], x)];
  return sum;
}
