/* layer_help.h — layers compiled with their schedules against the interpreter on the same graph without. */
#ifndef LAYER_HELP_H
#define LAYER_HELP_H
#include "ir/ir.h"
#include "lower/lower.h"
#include "runtime/module.h"
#include "runtime/program_interp.h"
#include <math.h>

/* n numbers of [-1, 1) in the context. */
static inline float *layer_floats(tn_ctx *ctx, int64_t n, uint64_t seed) {
  float *x = ir_alloc(ctx, (size_t)(n + 1) * sizeof *x);
  for (int64_t i = 0; i < n; i++) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    x[i] = (float)(int32_t)(seed >> 32) / 2147483648.0f;
  }
  return x;
}

/* Runs p as machine code, where t runs here, and `plain` by the interpreter; throws where the only output's `count`
 * floats differ by more than 1e-4. */
static inline void layer_check(tn_ctx *ctx, const cg_target *t, const ir_program *p, const ir_program *plain, const void *const *in, int64_t count) {
  if (!cg_target_runs_here(ctx, t, NULL)) return;
  float *want = ir_alloc(ctx, (size_t)count * 4), *got = ir_alloc(ctx, (size_t)count * 4);
  rt_module *m = rt_module_build(ctx, p, &(rt_options){.target = t});
  if (rt_run(m, in, (void *[]){got}, NULL, NULL)) ir_fail(ctx, TN_EWRONG, "the run failed");
  rt_module_free(ctx, m);
  rt_program_interp(ctx, plain, in, (void *[]){want}, NULL, NULL, NULL);
  for (int64_t i = 0; i < count; i++)
    if (!(fabsf(want[i] - got[i]) <= 1e-4f * (1 + fabsf(want[i])))) ir_fail(ctx, TN_EWRONG, "element %lld: %g, not %g", (long long)i, (double)got[i], (double)want[i]);
}
#endif
