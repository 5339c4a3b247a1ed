/* test_replay.c — the quality of the search, without timing anything: recorded times of whole spaces
 * (tests/replay, made by `bench/record`) stand in for the machine. Predictions are today's. */
#include "autotune/search.h"
#include <criterion/criterion.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEEDS = 5, MOST_WORKLOADS = 64, LEAST_POINTS = 1000 };

typedef struct workload {
  const char *name;
  const ir_kernel *kernel;
  const cg_target *target;
  at_space *space;
  at_status *status; /* per point of the space, as ns: NaN where it failed */
  double *ns;
  int rows;          /* of the table */
  int standard;      /* the default of today, or what is most like it among them */
  double unlike;     /* how much it is not: at_space_distance */
  double best;
} workload;

typedef struct tables {
  tn_ctx *ctx;
  int nsteps;
  const char **steps; /* of the file that is read */
  int n;
  workload w[MOST_WORKLOADS];
} tables;

static const char *read_file(tn_ctx *ctx, const char *path) {
  ir_text t = {.ctx = ctx};
  FILE *f = fopen(path, "r");
  cr_assert(f, "%s", path);
  char buffer[1 << 14];
  for (size_t n; (n = fread(buffer, 1, sizeof buffer, f)) > 0;) ir_put_bytes(&t, buffer, n);
  fclose(f);
  return ir_text_str(&t);
}

/* The machine of a table: what a compile for it would see. */
static void read_machine(tn_ctx *ctx, const char *text, cg_target *t, at_machine *m) {
  int bits, regs;
  long long l1, l2, l3;
  const char *line = strstr(text, "\nmachine ");
  cr_assert(line && sscanf(line, "\nmachine bits=%d regs=%d l1=%lld l2=%lld l3=%lld ghz=%lf gflops=%lf", &bits, &regs, &l1, &l2, &l3, &m->ghz, &m->fma_gflops) == 7);
  *t = *cg_target_find(ctx, bits == 512 ? "x86-64-v4" : "x86-64-v3", "x86_64-unknown-linux-gnu");
  t->vector_regs = regs;
  t->l1_bytes = l1, t->l2_bytes = l2, m->l3_bytes = l3;
}

typedef struct row { /* of a table */
  lw_tunables got;
  const char *schedule;
  at_status status;
  double ns; /* NaN: it failed */
} row;

static long digit(char c) {
  static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+-";
  const char *at = c ? strchr(digits, c) : NULL;
  return at ? at - digits : -64 * 64;
}

/* "1234 mr=6 nr=2: 000507" or "crash mr=6: 0001": time or failure, tunables, two digits of base 64 for each step.
 * False: no row. */
static bool read_row(const tables *all, const char *line, row *r) {
  char first[32];
  int n = 0;
  const char *colon = strchr(line, ':');
  if (!colon || sscanf(line, "%31s%n", first, &n) != 1) return false;
  n += (int)strspn(line + n, " ");
  if (line + n > colon || !at_tunables_parse(ir_strndup(all->ctx, line + n, (size_t)(colon - line - n)), &r->got)) return false;
  ir_text t = {.ctx = all->ctx};
  char *end;
  for (const char *p = colon + 2; colon[1] && *p; p += 2) {
    long k = 64 * digit(p[0]) + digit(p[1]);
    if (k < 0 || k >= all->nsteps) return false;
    ir_put(&t, "%s\n", all->steps[k]);
  }
  r->schedule = ir_text_str(&t);
  r->ns = strtod(first, &end);
  r->status = AT_OK;
  if (!*end) return r->ns > 0;
  r->ns = NAN;
  return at_status_parse(first, &r->status);
}

static void read_steps(tables *all, const char *text) {
  all->nsteps = 0;
  for (const char *line = text; (line = strstr(line, "\nstep "));) {
    line += 6;
    const char *step = ir_strndup(all->ctx, line, strcspn(line, "\n"));
    IR_PUSH(all->ctx, all->steps, all->nsteps, step);
  }
}

static void read_workload(tables *all, const char *text, const cg_target *t, const at_machine *m) {
  tn_ctx *ctx = all->ctx;
  cr_assert(all->n < MOST_WORKLOADS);
  workload *w = &all->w[all->n++];
  const char *line = strchr(text, '\n') + 1, *end = strstr(line, "\n}\n");
  cr_assert(end);
  w->name = ir_strndup(ctx, text, (size_t)(line - 1 - text));
  w->kernel = ir_kernel_parse(ctx, ir_strndup(ctx, line, (size_t)(end + 3 - line)), w->name);
  w->target = t;
  int n = 0, k = 0, l = 0;
  row *rows = NULL;
  lw_tunables *got = NULL;
  const char **schedule = NULL;
  for (line = end + 3; *line && *line != '\n'; line += strcspn(line, "\n") + 1) {
    row r;
    const char *one = ir_strndup(ctx, line, strcspn(line, "\n"));
    cr_assert(read_row(all, one, &r), "%s: %s", w->name, one);
    IR_PUSH(ctx, rows, n, r);
    IR_PUSH(ctx, got, k, r.got);
    IR_PUSH(ctx, schedule, l, r.schedule);
  }
  w->space = at_space_new(ctx, w->kernel, t, m, LW_ACCURACY, 1, 0);
  at_point standard = w->space->points[at_space_find(w->space, w->space->standard)];
  *w->space = (at_space){.accuracy = LW_ACCURACY, .tile = -1};
  int *at = at_space_put(ctx, w->space, w->kernel, t, m, n, got, schedule);
  w->status = IR_NEW_ARRAY(ctx, at_status, w->space->n);
  w->ns = IR_NEW_ARRAY(ctx, double, w->space->n);
  w->best = INFINITY;
  for (int i = 0; i < n; i++) {
    if (at[i] < 0) continue; /* not legal any more */
    w->status[at[i]] = rows[i].status;
    w->ns[at[i]] = rows[i].ns;
    if (rows[i].ns < w->best) w->best = rows[i].ns;
  }
  w->rows = n;
  cr_assert(w->space->n, "%s: no row is legal any more", w->name);
  w->standard = at_space_find(w->space, standard.schedule);
  if (w->standard >= 0) return;
  w->unlike = INFINITY; /* rules change a little more often than tables are recorded */
  for (int i = 0; i < w->space->n; i++) {
    double d = at_space_distance(&w->space->points[i], &standard);
    if (!isnan(w->ns[i]) && d < w->unlike) w->unlike = d, w->standard = i;
  }
  cr_assert(w->standard >= 0, "%s: nothing that ran is like today's default", w->name);
}

static tables *read_all(tn_ctx *ctx) {
  tables *all = IR_NEW(ctx, tables);
  all->ctx = ctx;
  DIR *d = opendir(TN_SOURCE_DIR "/tests/replay");
  cr_assert(d);
  for (struct dirent *e; (e = readdir(d));) {
    if (!strstr(e->d_name, ".txt")) continue;
    const char *text = read_file(ctx, ir_format(ctx, TN_SOURCE_DIR "/tests/replay/%s", e->d_name));
    cg_target *t = IR_NEW(ctx, cg_target);
    at_machine m;
    read_machine(ctx, text, t, &m);
    read_steps(all, text);
    for (const char *w = text; (w = strstr(w, "\nworkload "));) read_workload(all, w += 10, t, &m);
  }
  closedir(d);
  return all;
}

/* ---- searching ---- */

static void take_time(const workload *w, at_task *t, at_config *c) {
  c->status = w->status[c->point];
  c->ns = c->plain_ns = w->ns[c->point];
  if (c != t->standard) at_task_learn(t, c);
  at_task_rank(t);
}

/* Fraction of the best speed that is found with so many schedules, the default among them; one per look. */
static void search(tn_ctx *ctx, const workload *w, uint64_t seed, int nlooks, const int *looks, double *out) {
  at_task t = {.kernel = w->kernel, .space = w->space, .wide = true, .rng = seed, .scale_ns = NAN};
  t.standard = at_task_add(ctx, &t, w->standard, AT_DEFAULT);
  take_time(w, &t, t.standard);
  for (int k = 0; k < nlooks; k++) {
    at_config *c[AT_BATCH];
    while (t.n < looks[k]) {
      int want = looks[k] - t.n < AT_BATCH ? looks[k] - t.n : AT_BATCH, n = at_task_propose(ctx, &t, want, c);
      if (!n) break;
      for (int i = 0; i < n; i++) take_time(w, &t, c[i]);
    }
    out[k] = w->best / t.best->ns;
  }
  at_task_done(ctx, &t);
}

/* How far apart the results of ten searches lie that end by themselves, as a ratio; what they took on average into *trials,
 * the fraction of the best speed that the worst of them ended with into *fraction. */
static double spread(tn_ctx *ctx, const workload *w, double *trials, double *fraction) {
  enum { SEARCHES = 10 };
  double least = INFINITY, most = 0;
  *trials = 0;
  for (uint64_t seed = 1; seed <= SEARCHES; seed++) {
    at_task t = {.kernel = w->kernel, .space = w->space, .wide = true, .rng = seed * 77, .scale_ns = NAN};
    at_config *c[AT_BATCH];
    t.standard = at_task_add(ctx, &t, w->standard, AT_DEFAULT);
    take_time(w, &t, t.standard);
    while (!at_task_exhausted(&t, 0)) {
      int n = at_task_propose(ctx, &t, AT_BATCH, c);
      for (int i = 0; i < n; i++) take_time(w, &t, c[i]);
    }
    least = fmin(least, t.best->ns), most = fmax(most, t.best->ns);
    *trials += (double)t.n / SEARCHES;
    at_task_done(ctx, &t);
  }
  *fraction = w->best / most;
  return most / least;
}

static void search_randomly(const workload *w, uint64_t seed, int nlooks, const int *looks, double *out) {
  double best = INFINITY;
  for (int k = 0, n = 0; k < nlooks; k++) {
    for (; n < looks[k]; n++) {
      double ns = w->ns[at_random(&seed) % (uint64_t)w->space->n];
      if (ns < best) best = ns;
    }
    out[k] = isinf(best) ? 0.01 : w->best / best;
  }
}

static void quality(tn_ctx *ctx, void *arg) {
  (void)arg;
  enum { LOOKS = 3 };
  static const int looks[LOOKS] = {1, 16, 64}, more[LOOKS] = {4, 64, 256};
  /* The bars. */
  static const double bar[LOOKS] = {0.92, 0.96, 0.98}, margin = 0, floor = 0.75;
  tables *all = read_all(ctx);
  double sum[LOOKS] = {0}, random_sum[LOOKS] = {0}, worst = 1;
  int far = 0;
  for (int i = 0; i < all->n; i++) {
    const workload *w = &all->w[i];
    double mine[LOOKS] = {0};
    cr_expect(w->rows >= LEAST_POINTS, "%s: %d points", w->name, w->rows);
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
      double f[LOOKS], r[LOOKS];
      search(ctx, w, seed, LOOKS, looks, f);
      search_randomly(w, seed, LOOKS, more, r);
      for (int k = 0; k < LOOKS; k++) mine[k] += log(f[k]) / SEEDS, random_sum[k] += log(r[k]) / SEEDS / all->n;
      if (f[0] < worst) worst = f[0];
    }
    for (int k = 0; k < LOOKS; k++) sum[k] += mine[k] / all->n;
    double trials, fraction, apart = spread(ctx, w, &trials, &fraction);
    far += apart > 1.03;
    if (getenv("TENON_REPLAY")) fprintf(stderr, "%-40s %4d points%s: %.3f %.3f %.3f; ends after %.0f at %.3f, %.1f %% apart\n", w->name, w->space->n, w->unlike > 0 ? ir_format(ctx, ", default off by %.2g", w->unlike) : "", exp(mine[0]), exp(mine[1]), exp(mine[2]), trials, fraction, 100 * (apart - 1));
  }
  if (getenv("TENON_REPLAY"))
    for (int k = 0; k < LOOKS; k++) fprintf(stderr, "%d trials: %.3f; %d at random: %.3f\n", looks[k], exp(sum[k]), more[k], exp(random_sum[k]));
  for (int k = 0; k < LOOKS; k++) cr_expect(exp(sum[k]) >= bar[k], "%d trials give %.3f of the best speed, less than %.2f", looks[k], exp(sum[k]), bar[k]);
  for (int k = 1; k < LOOKS; k++)
    cr_expect(exp(sum[k]) >= exp(random_sum[k]) - margin, "%d trials give %.3f, %d at random %.3f", looks[k], exp(sum[k]), more[k], exp(random_sum[k]));
  cr_expect(far <= all->n / 5, "of %d workloads, %d have ends more than 3 %% apart", all->n, far);
  cr_expect(worst >= floor, "the worst default has %.3f of the best speed", worst);
}

Test(replay, search_quality, .timeout = 600) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_status s = ir_protect(ctx, quality, NULL);
  cr_assert_eq(s, TN_OK, "%s", ir_error(ctx));
  tn_ctx_free(ctx);
}
