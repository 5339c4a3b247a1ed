/* again.c — how often the tuner tells a schedule from itself: bench_again [RACES [MxNxK | FILE]]
 *
 * The default schedule of a matrix product, or of the kernel whose text a file holds, enters a final twice, as two
 * objects, and is judged as the tuner judges finals (autotune/final.h). By chance one may beat the other in 5 % of the races. */
#include "autotune/final.h"
#include "autotune/stats.h"
#include "lower/schedule.h"
#include "runtime/profile.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct job {
  int races, m, n, k;
  const char *file;
  int apart;
  double worst, square, rounds;
} job;

static const char *read_all(tn_ctx *ctx, const char *path) {
  FILE *f = fopen(path, "r");
  char *text = ir_alloc(ctx, 1 << 20);
  if (!f) ir_fail(ctx, TN_EINPUT, "%s: cannot be read", path);
  text[fread(text, 1, (1 << 20) - 1, f)] = 0;
  fclose(f);
  return text;
}

static const char *product(tn_ctx *ctx, const job *j) {
  return ir_format(ctx,
                   "kernel gemm(in a: f32[%d, %d], const b: f32[%d, %d], out c: f32[%d, %d]) {\n"
                   "  for m in 0..%d { for n in 0..%d {\n"
                   "    alloc acc: f32[] register\n    acc[] = 0.0\n"
                   "    for k in 0..%d { acc[] = fma(a[m, k], b[k, n], acc[]) }\n"
                   "    c[m, n] = acc[]\n  } }\n}\n",
                   j->m, j->k, j->k, j->n, j->m, j->n, j->m, j->n, j->k);
}

static void races(tn_ctx *ctx, void *arg) {
  job *j = arg;
  const cg_target *t = cg_target_find(ctx, NULL, NULL);
  at_subject s = {.kernel = ir_kernel_parse(ctx, j->file ? read_all(ctx, j->file) : product(ctx, j), "kernel")};
  const char *schedule = lw_default_schedule(ctx, s.kernel, t, 0);
  at_lab *lab = at_lab_new(ctx, &(at_lab_options){.target = t, .jobs = 1});
  const char *why = at_lab_kernel(lab, &s);
  if (why) ir_fail(ctx, TN_ERESOURCE, "%s", why);
  for (int i = 0; i < j->races; i++) {
    at_candidate c[2] = {{.schedule = schedule}, {.schedule = schedule}}, *q[2] = {&c[0], &c[1]};
    at_finalist f[2] = {{.text = "1"}, {.text = "2"}};
    at_lab_compile(lab, 2, q);
    if (!at_final_measure(lab, 2, q, f, AT_FINAL_ROUNDS, rt_now() + 1)) ir_fail(ctx, TN_ERESOURCE, "it cannot be timed: %s", c[0].reason ? c[0].reason : "?");
    j->apart += at_final_beats(&f[0], &f[1]) || at_final_beats(&f[1], &f[0]);
    double off = log(at_final_ratio(&f[0], &f[1]));
    j->worst = fmax(j->worst, fabs(off));
    j->square += off * off;
    j->rounds += f[0].n;
    for (int k = 0; k < 2; k++) at_lab_drop(lab, q[k]);
  }
  at_lab_free(lab);
}

int main(int argc, char **argv) {
  job j = {.races = argc > 1 ? atoi(argv[1]) : 100, .m = 128, .n = 128, .k = 128};
  if (argc > 2 && sscanf(argv[2], "%dx%dx%d", &j.m, &j.n, &j.k) != 3) j.file = argv[2];
  if (j.races < 1 || argc > 3) {
    fprintf(stderr, "usage: bench_again [RACES [MxNxK | FILE]]\n");
    return 2;
  }
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_status s = ctx ? ir_protect(ctx, races, &j) : TN_ERESOURCE;
  if (s) fprintf(stderr, "%s\n", ctx ? tn_error(ctx) : "out of memory");
  else printf("%s: told from itself in %d of %d races (%.1f %%), medians apart by %.2f %% (rms), %.2f %% at most, %.0f rounds each\n", argc > 2 ? argv[2] : "128x128x128", j.apart, j.races,
              100.0 * j.apart / j.races, 100 * sqrt(j.square / j.races), 100 * (exp(j.worst) - 1), j.rounds / j.races);
  tn_ctx_free(ctx);
  return s ? 1 : 0;
}
