/* tpu_tune.c — see tpu_tune.h. */
#include "runtime/tpu_tune.h"
#include "lower/problem.h"
#include "runtime/tpu_build.h"

typedef struct trial {
  const ir_program *p;
  const tpu_machine *m;
  tpu_options o;
  int64_t cycles; /* out */
} trial;

static void time_it(tn_ctx *ctx, void *arg) {
  trial *t = arg;
  t->cycles = rt_tpu_cycles(ctx, t->m, rt_tpu_program(ctx, t->p, t->m, &t->o));
}

/* Cycles with these tiles; INT64_MAX where the program cannot be compiled so (`must`: throws). */
static int64_t cycles_of(tn_ctx *ctx, trial *t, bool must) {
  tn_ctx *child = ir_ctx_child(ctx);
  if (!child) ir_fail(ctx, TN_ERESOURCE, "out of memory");
  tn_status s = ir_protect(child, time_it, t);
  const char *why = s ? ir_strdup(ctx, ir_error(child)) : NULL;
  tn_ctx_free(child);
  if (s && must) ir_fail(ctx, s, "%s", why);
  return s ? INT64_MAX : t->cycles;
}

/* Candidate `k` for a machine; false behind the last. Fewer rows start what follows the sums earlier, more rows
 * fetch weights less often. */
static bool candidate(const tpu_machine *m, int k, tpu_tunables *t) {
  static const int parts[] = {1, 2, 4, 8, 16};
  int n = IR_COUNT(parts);
  *t = (tpu_tunables){.stationary = 1 + k % 2};
  k /= 2;
  if (k >= 2 * n) return false;
  t->columns = tpu_tile_cols(m) / (1 + k / n);
  t->rows = m->acc_bytes / 8 / (t->columns > 0 ? t->columns : 1) / parts[k % n];
  return t->rows > 0 && t->columns > 0;
}

static int contraction_calls(tn_ctx *ctx, const ir_program *p, int kernel) {
  int n = 0;
  if (lw_problem_of(ctx, p->kernels[kernel].kernel).kind != LW_CONTRACTION) return 0;
  for (int i = 0; i < p->nrun; i++) n += p->run[i].kind == IR_CALL && p->run[i].kernel == kernel;
  return n;
}

rt_tpu_tuning rt_tpu_tune(tn_ctx *ctx, const ir_program *p, const tpu_machine *m, const tpu_options *o, int max_trials) {
  rt_tpu_tuning r = {.tiles = IR_NEW_ARRAY(ctx, tpu_tunables, p->nkernels + 1)};
  trial t = {.p = p, .m = m, .o = *o};
  t.o.tiles = r.tiles;
  r.before = r.after = cycles_of(ctx, &t, true);
  r.trials = 1;
  for (int k = 0; k < p->nkernels; k++) {
    if (!contraction_calls(ctx, p, k)) continue;
    tpu_tunables best = r.tiles[k];
    bool found = false;
    for (int i = 0; candidate(m, i, &r.tiles[k]) && (!max_trials || r.trials < max_trials); i++, r.trials++) {
      int64_t cycles = cycles_of(ctx, &t, false);
      if (cycles >= r.after) continue;
      r.after = cycles;
      best = r.tiles[k];
      found = true;
    }
    r.tiles[k] = best;
    r.changed += found;
  }
  return r;
}
