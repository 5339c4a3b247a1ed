/* again.c — how often the tuner tells a schedule from itself: bench_again [RACES [MxNxK]]
 *
 * The default schedule of a matrix product enters a final twice, as two objects at two addresses, in the way
 * in which the tuner judges finals: 30 interleaved rounds, the second half at other addresses, signed ranks, a gain of 1 % at least. By chance
 * that may happen in 5 % of the races. */
#include "autotune/search.h"
#include "autotune/stats.h"
#include "lower/schedule.h"
#include <stdio.h>
#include <stdlib.h>

typedef struct job {
  int races, m, n, k, apart;
  double worst;
} job;

static void races(tn_ctx *ctx, void *arg) {
  job *j = arg;
  const char *text = ir_format(ctx,
                               "kernel gemm(in a: f32[%d, %d], const b: f32[%d, %d], out c: f32[%d, %d]) {\n"
                               "  for m in 0..%d { for n in 0..%d {\n"
                               "    alloc acc: f32[] register\n    acc[] = 0.0\n"
                               "    for k in 0..%d { acc[] = fma(a[m, k], b[k, n], acc[]) }\n"
                               "    c[m, n] = acc[]\n  } }\n}\n",
                               j->m, j->k, j->k, j->n, j->m, j->n, j->m, j->n, j->k);
  const cg_target *t = cg_target_find(ctx, NULL, NULL);
  at_subject s = {.kernel = ir_kernel_parse(ctx, text, "gemm")};
  const char *schedule = lw_default_schedule(ctx, s.kernel, t, 0);
  at_lab *lab = at_lab_new(ctx, &(at_lab_options){.target = t, .jobs = 1});
  const char *why = at_lab_kernel(lab, &s);
  if (why) ir_fail(ctx, TN_ERESOURCE, "%s", why);
  for (int i = 0; i < j->races; i++) {
    at_candidate c[2] = {{.schedule = schedule}, {.schedule = schedule}}, *q[2] = {&c[0], &c[1]};
    at_lab_compile(lab, 2, q);
    at_lab_check(lab, 2, q);
    bool timed = at_lab_time(lab, 2, q, AT_FINAL_ROUNDS / 2);
    for (int k = 0; k < 2; k++) at_lab_unload(lab, q[k]);
    at_lab_check(lab, 2, q);
    if (!timed || !at_lab_time(lab, 2, q, AT_FINAL_ROUNDS / 2)) ir_fail(ctx, TN_ERESOURCE, "it cannot be timed: %s", c[0].reason ? c[0].reason : "?");
    double r[AT_FINAL_ROUNDS];
    for (int k = 0; k < AT_FINAL_ROUNDS; k++) r[k] = c[0].samples[k] / c[1].samples[k];
    double ratio = at_median(r, AT_FINAL_ROUNDS), off = ratio < 1 ? 1 / ratio - 1 : ratio - 1;
    double first = at_median(r, AT_FINAL_ROUNDS / 2), second = at_median(r + AT_FINAL_ROUNDS / 2, AT_FINAL_ROUNDS / 2);
    bool apart = ((first < 1 - AT_GAIN && second < 1 - AT_GAIN) || (first > 1 + AT_GAIN && second > 1 + AT_GAIN)) && at_signed_rank(c[0].samples, c[1].samples, AT_FINAL_ROUNDS) < AT_CHANCE;
    j->apart += apart;
    if (off > j->worst) j->worst = off;
    for (int k = 0; k < 2; k++) at_lab_drop(lab, q[k]);
  }
  at_lab_free(lab);
}

int main(int argc, char **argv) {
  job j = {.races = argc > 1 ? atoi(argv[1]) : 100, .m = 128, .n = 128, .k = 128};
  if (argc > 2 && sscanf(argv[2], "%dx%dx%d", &j.m, &j.n, &j.k) != 3) j.races = 0;
  if (j.races < 1 || argc > 3) {
    fprintf(stderr, "usage: bench_again [RACES [MxNxK]]\n");
    return 2;
  }
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_status s = ctx ? ir_protect(ctx, races, &j) : TN_ERESOURCE;
  if (s) fprintf(stderr, "%s\n", ctx ? tn_error(ctx) : "out of memory");
  else printf("%dx%dx%d: told from itself in %d of %d races (%.1f %%), medians apart by %.2f %% at most\n", j.m, j.n, j.k, j.apart, j.races, 100.0 * j.apart / j.races, 100 * j.worst);
  tn_ctx_free(ctx);
  return s ? 1 : 0;
}
