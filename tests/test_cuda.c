/* test_cuda.c — kernels for GPUs without one: emulated against the interpreter, compiled where NVRTC is there, and with
 * each barrier, wait and commit taken away in turn.
 *
 * TENON_CUDA_ALL=1 runs the whole set instead of a sample; TENON_CUDA_FROM, TENON_CUDA_TO bound it. */
#include "random_kernel.h"
#include "support_cuda.h"
#include "runtime/cuda_compile.h"
#include "runtime/cuda_emulate.h"
#include "ir/interp.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct job {
  void (*run)(tn_ctx *ctx, int i);
  int i;
} job;

static void run_job(tn_ctx *ctx, void *arg) {
  job *j = arg;
  j->run(ctx, j->i);
}

static void in_context(void (*run)(tn_ctx *ctx, int i), int i) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  job j = {run, i};
  tn_status s = ir_protect(ctx, run_job, &j);
  if (s) fprintf(stderr, "%d: %s\n", i, tn_error(ctx));
  cr_assert_eq(s, TN_OK, "%d: %.400s", i, tn_error(ctx));
  tn_ctx_free(ctx);
}

static int number(const char *name, int otherwise) { return getenv(name) ? atoi(getenv(name)) : otherwise; }
static bool whole_set(void) { return number("TENON_CUDA_ALL", 0) != 0; }

/* ---- random kernels: every dtype and operation, on the schedule that fits all ---- */

static void random_one(tn_ctx *ctx, int i) {
  const ir_kernel *k = random_kernel(ctx, (uint64_t)i, i % 3 ? RANDOM_STATIC : 0);
  const cu_target *t = cu_target_find(ctx, i % 2 ? "sm_80" : "sm_90a");
  const cu_tile *tile = cu_schedule(ctx, t, k, "threads 64 1", NULL);
  random_args want = random_args_new(ctx, k, (uint64_t)i), have = random_args_copy(ctx, k, &want);
  ir_interp(ctx, k, want.args, want.dims);
  rt_cuda_emulate(ctx, tile, have.args, have.dims, (uint64_t)i + 1);
  const char *d = random_args_differ(ctx, k, &want, &have);
  if (d) ir_fail(ctx, TN_EWRONG, "%s\n%s", d, ir_kernel_print(ctx, tile->kernel));
  const cu_code *code = cu_print(ctx, t, tile, "k");
  if (cuda_have_nvrtc() && (i % 4 == 0 || whole_set())) rt_cuda_compile(ctx, t, code->source, NULL);
}

Test(cuda, random_kernels) {
  for (int i = 1; i <= (whole_set() ? 400 : 24); i++) in_context(random_one, i);
}

/* ---- the set ---- */

static int kernels_done;

static void set_one(tn_ctx *ctx, int i) {
  const char *text = cuda_graph(ctx, i);
  const ir_program *p = cuda_program(ctx, text);
  for (int k = 0; k < p->nkernels; k++)
    for (int sm = 0; sm < 2; sm++) {
      const cu_target *t = cu_target_find(ctx, sm ? "sm_90a" : "sm_80");
      const char *why = NULL;
      const cu_tile *tile = cu_schedule(ctx, t, p->kernels[k].kernel, NULL, &why);
      if (!tile) ir_fail(ctx, TN_EWRONG, "no schedule: %s\n%s", why, text);
      cuda_check how = {.seed = (uint64_t)i + 1, .compile = whole_set() || i % 3 == 0};
      const char *wrong = cuda_check_tile(ctx, p->kernels[k].kernel, tile, t, &how);
      if (wrong) ir_fail(ctx, TN_EWRONG, "%s: %s: %s: %s\n%s", t->name, p->kernels[k].kernel->name, tile->choice, wrong, text);
      kernels_done++;
      if (whole_set()) fprintf(stderr, "%d %s %s: %s\n", i, t->name, p->kernels[k].kernel->name, tile->choice);
    }
}

Test(cuda, set) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  int from = number("TENON_CUDA_FROM", 0), to = number("TENON_CUDA_TO", 1 << 20);
  for (int i = from; i < to && cuda_graph(ctx, i); i += whole_set() ? 1 : 11) in_context(set_one, i);
  fprintf(stderr, "%d programs emulated%s\n", kernels_done, cuda_have_nvrtc() ? ", compiled" : "; no NVRTC here");
  tn_ctx_free(ctx);
}

/* ---- mutants ---- */

static int mutants, caught;

static void mutate_one(tn_ctx *ctx, int i) {
  const ir_program *p = cuda_program(ctx, cuda_graph(ctx, i));
  for (int k = 0; k < p->nkernels; k++) {
    const cu_target *t = cu_target_find(ctx, "sm_90a");
    const cu_tile *tile = cu_schedule(ctx, t, p->kernels[k].kernel, NULL, NULL), *m;
    const char *what;
    for (int weaker = 0; weaker < 2; weaker++)
      for (int n = 0; (m = cuda_mutant(ctx, tile, n, weaker, &what)); n++) {
        mutants++;
        const char *wrong = cuda_check_tile(ctx, p->kernels[k].kernel, m, t, &(cuda_check){.seed = 3});
        if (wrong) caught++;
        else fprintf(stderr, "%d %s (%s): '%s' number %d %s is not missed\n", i, p->kernels[k].kernel->name, tile->choice, what, n, weaker ? "made weaker" : "removed");
      }
  }
}

Test(cuda, mutants) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  for (int i = number("TENON_CUDA_FROM", 0); i < number("TENON_CUDA_TO", 1 << 20) && cuda_graph(ctx, i); i += whole_set() ? 1 : 17) in_context(mutate_one, i);
  fprintf(stderr, "%d of %d mutants caught\n", caught, mutants);
  cr_assert(mutants > 0 && caught * 100 >= mutants * 95, "%d of %d mutants caught", caught, mutants);
  tn_ctx_free(ctx);
}
