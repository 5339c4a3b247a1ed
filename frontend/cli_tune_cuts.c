/* cli_tune_cuts.c — where a model's groups are cut: what stands behind or before a root as a kernel of its own.
 *
 *   the groups that there are ── each cut alone ──> other kernels, tuned aside
 *   times of all kernels ── cuts whose kernels are faster together than the one they replace ──> a way to run the model
 *
 * Whole runs then decide (cli_tune_whole.c), as between layouts. */
#include "autotune/lookup.h"
#include "frontend/cli.h"
#include "frontend/cli_whole.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

bool cli_wants_cut(void *user, tn_ctx *ctx, const lw_group *group) {
  cli_model *m = user;
  int i = 0;
  while (i < m->ngroups && strcmp(m->groups[i].hash, group->hash)) i++;
  if (i == m->ngroups) IR_PUSH(ctx, m->groups, m->ngroups, *group);
  else m->groups[i].elements += group->elements;
  return at_listed_cut((void *)m->cuts, ctx, group);
}

static int by_elements(const void *a, const void *b) {
  const lw_group *x = a, *y = b;
  return x->elements != y->elements ? (x->elements < y->elements) - (x->elements > y->elements) : strcmp(x->hash, y->hash);
}

int cli_cuts_of(tn_ctx *ctx, const cli_model *m, const char *cuts[CLI_MOST_CUTS]) {
  lw_group *sorted = IR_NEW_ARRAY(ctx, lw_group, m->ngroups + 1);
  if (m->ngroups) memcpy(sorted, m->groups, sizeof *sorted * (size_t)m->ngroups);
  qsort(sorted, (size_t)m->ngroups, sizeof *sorted, by_elements);
  int n = m->ngroups < CLI_MOST_CUTS ? m->ngroups : CLI_MOST_CUTS;
  for (int i = 0; i < n; i++) cuts[i] = sorted[i].hash;
  return n;
}

static double time_of(tn_ctx *ctx, const cli_timed *t, const ir_kernel *k) {
  const char *hash = at_kernel_hash(ctx, k);
  for (int i = 0; i < t->n; i++)
    if (strcmp(t->hash[i], hash) == 0) return t->ns[i];
  return NAN;
}

/* Nanoseconds of the calls in `p` of kernels that `other` does not have, or has called less often. */
static double more(tn_ctx *ctx, const ir_program *p, const ir_program *other, const cli_timed *t) {
  double sum = 0;
  for (int i = 0; i < p->nkernels; i++) {
    double calls = 0;
    const char *hash = at_kernel_hash(ctx, p->kernels[i].kernel);
    for (int k = 0; k < p->nrun; k++) calls += p->run[k].kind == IR_CALL && p->run[k].kernel == i;
    for (int j = 0; j < other->nkernels && calls > 0; j++) {
      if (strcmp(at_kernel_hash(ctx, other->kernels[j].kernel), hash)) continue;
      for (int k = 0; k < other->nrun; k++) calls -= other->run[k].kind == IR_CALL && other->run[k].kernel == j;
    }
    if (calls > 0) sum += calls * time_of(ctx, t, p->kernels[i].kernel);
  }
  return sum;
}

const char *cli_choose_cuts(tn_ctx *ctx, const ir_program *whole, int n, const char *const *cuts, const ir_program *const *cut, const cli_timed *t) {
  static const double CLEARLY = 0.97; /* of the kernel's time: two times of two kernels scatter */
  ir_text chosen = {.ctx = ctx};
  for (int i = 0; i < n; i++) {
    double now = more(ctx, cut[i], whole, t), before = more(ctx, whole, cut[i], t);
    if (now < CLEARLY * before) ir_put(&chosen, "%s%s", chosen.n ? " " : "", cuts[i]); /* not of what has no time */
  }
  return chosen.n ? ir_text_str(&chosen) : NULL;
}
