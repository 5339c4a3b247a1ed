/* run_cuda_set.c — the set of programs for GPUs (support_cuda.h) on the GPU of this machine, against the interpreter:
 *
 *   run_cuda_set FROM STEP SECONDS
 *
 * Of all programs in an order that mixes the families, numbers FROM, FROM + STEP, ...; none is begun after SECONDS. A line for each that fails, then "done N of M, F failed". Exit
 * status 0 none failed, 1 some did, 77 no GPU or no NVRTC. A device that is lost is opened anew. */
#include "runtime/profile.h"
#include "support_cuda.h"
#include "support_cuda_device.h"
#include <stdio.h>
#include <stdlib.h>

typedef struct job {
  const cuda_case *c;
  rt_cuda_device *d;
  const cu_target *t;
} job;

static void run_one(tn_ctx *ctx, void *arg) {
  const job *j = arg;
  const cuda_case *c = j->c;
  const ir_program *p = c->lowered ? cuda_program_nhwc(ctx, c->text) : cuda_program(ctx, c->text);
  rt_cuda_options o = {.jobs = 1, .choice = cuda_choice_of_case, .user = (void *)c->choice};
  cuda_on_device(ctx, j->d, p, rt_cuda_plan_make(ctx, p, j->t, &o), c->rtol);
}

static void open_it(tn_ctx *ctx, void *arg) {
  job *j = arg;
  j->t = rt_cuda_device_target(ctx, 0, NULL);
  j->d = rt_cuda_device_open(ctx, j->t, 0);
}

int main(int argc, char **argv) {
  if (argc != 4) return fprintf(stderr, "run_cuda_set FROM STEP SECONDS\n"), 2;
  int step = atoi(argv[2]), all = 0, done = 0, failed = 0;
  double end = rt_now() + atof(argv[3]);
  tn_ctx *ctx = tn_ctx_new(NULL);
  job j = {0};
  cuda_case c;
  if (step < 1 || !cuda_have_nvrtc() || ir_protect(ctx, open_it, &j)) return printf("no GPU, or no NVRTC: %s\n", tn_error(ctx)), 77;
  int count = 0;
  while (cuda_case_at(ctx, count, &c)) count++;
  for (int k = atoi(argv[1]); k < count; k += step, all++) {
    if (rt_now() > end) continue;
    int i = (int)(k * 10007ll % count); /* a prime beyond any count: each once */
    cuda_case_at(ctx, i, &c);
    tn_ctx *own = tn_ctx_new(NULL);
    j.c = &c;
    done++;
    if (ir_protect(own, run_one, &j)) {
      failed++;
      printf("FAIL %d %s%s%s: %.300s\n", i, c.family, c.choice ? ", " : "", c.choice ? c.choice : "", tn_error(own));
      fflush(stdout);
    }
    tn_ctx_free(own);
    if (!rt_cuda_device_lost(j.d)) continue;
    rt_cuda_device_close(j.d);
    if (ir_protect(ctx, open_it, &j)) return printf("the device does not open again: %s\n", tn_error(ctx)), 1;
  }
  rt_cuda_device_close(j.d);
  printf("done %d of %d, %d failed\n", done, all, failed);
  tn_ctx_free(ctx);
  return failed > 0;
}
