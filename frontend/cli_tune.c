/* cli_tune.c — tenon tune; and how compiling verbs come to the schedules that were found. */
#include "autotune/lookup.h"
#include "autotune/stats.h"
#include "autotune/tune.h"
#include "frontend/cli.h"
#include "frontend/cli_sweep.h"
#include "frontend/cli_whole.h"
#include "frontend/compare.h"
#include "frontend/cuda.h"
#include "lower/problem.h"
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- winners for every verb ---- */

void cli_use_schedules(cli *c, cli_model *m, lw_options *o) {
  if (c->frozen && c->plan == NULL && c->db && strcmp(c->db, "none") == 0)
    ir_fail(c->ctx, TN_EUSAGE, "--frozen needs a plan or a store, --db none leaves nothing");
  if (c->unscheduled) return;
  const char *plan = NULL;
  if (c->plan) {
    const fe_map *map = fe_map_file(c->ctx, c->plan);
    plan = ir_strndup(c->ctx, map->data, map->size);
  }
  at_store *store = plan ? NULL : at_store_open(c->ctx, c->db, AT_STORE_READONLY);
  if (!plan && !store) return;
  m->lookup = at_lookup_new(c->ctx, store, m->target, cli_thread_count(c), plan, c->plan);
  o->schedule = at_lookup_schedule;
  o->user = m->lookup;
}

static void need_all(cli *c, const cli_model *m, const ir_inst *code, int n, bool *seen) {
  for (int i = 0; i < n; i++) {
    if (code[i].kind == IR_CALL && !seen[code[i].kernel]) {
      const ir_kernel *k = m->program->kernels[code[i].kernel].kernel;
      seen[code[i].kernel] = true;
      if (!m->lookup || !at_lookup_knows(m->lookup, c->ctx, k))
        ir_fail(c->ctx, TN_EINPUT, "%s: --frozen: kernel '%s' (%s) is not in %s", m->path, k->name, at_kernel_hash(c->ctx, k), c->plan ? c->plan : "the store");
    }
    need_all(c, m, code[i].body, code[i].nbody, seen);
    need_all(c, m, code[i].other, code[i].nother, seen);
  }
}

/* --frozen: with a plan every kernel is in it; a store knows those of the run section. */
void cli_check_frozen(cli *c, const cli_model *m) {
  if (!c->frozen || c->unscheduled) return;
  bool *seen = IR_NEW_ARRAY(c->ctx, bool, m->program->nkernels + 1);
  need_all(c, m, m->program->run, m->program->nrun, seen);
  if (c->plan) need_all(c, m, m->program->pack, m->program->npack, seen);
}

/* ---- what to tune ---- */

typedef struct job { /* one model or kernel */
  const char *path;
  cli_model *m;
  double before_ns, after_ns; /* of its kernels, as far as they have times */
  int nkernels, untimed;
  cli_verdict whole;
  bool layouts;               /* other layouts give other kernels */
  int ncuts;                  /* of groups, each alone: */
  const char *cuts[CLI_MOST_CUTS];
  const ir_program *cut[CLI_MOST_CUTS];
} job;

typedef struct list {
  int n, njobs;
  at_tune_kernel *kernels;
  int *job_of;
  job *jobs;
  cli_sweep sweep;
} list;

static void count_calls(const ir_inst *code, int n, double *calls) {
  for (int i = 0; i < n; i++) {
    if (code[i].kind == IR_CALL) calls[code[i].kernel]++;
    count_calls(code[i].body, code[i].nbody, calls);
    count_calls(code[i].other, code[i].nother, calls);
  }
}

static const char *short_name(cli *c, const job *j, const ir_kernel *k, bool only) {
  if (j->m->kernel) return only ? j->path : ir_format(c->ctx, "%s/%s", j->path, k->name);
  const char *base = strrchr(j->path, '/');
  base = base ? base + 1 : j->path;
  const char *dot = strrchr(base, '.');
  return ir_format(c->ctx, "%.*s/%s", (int)(dot ? dot - base : (long)strlen(base)), base, k->name);
}

static bool among(tn_ctx *ctx, const ir_program *p, const ir_kernel *k) {
  const char *hash = at_kernel_hash(ctx, k);
  for (int i = 0; i < p->nkernels; i++)
    if (strcmp(at_kernel_hash(ctx, p->kernels[i].kernel), hash) == 0) return true;
  return false;
}

/* The program with default schedules: they are where tuning starts. */
static cli_model *untuned(cli *c, const char *path, const char *layout, const char *cuts) {
  cli with = *c;
  with.db = "none", with.plan = NULL, with.frozen = false, with.layout = layout, with.cuts = cuts;
  cli_model *m = cli_load(&with, path);
  cli_lower(&with, m);
  return m;
}

/* Whole models, not forced into a layout: their other layouts. The first is what untuned models have. */
static const char *const layouts[] = {"NCHWc", "NHWC", "NCHW"};
enum { CUT = IR_COUNT(layouts) }; /* kernels aside that are no layout's */

/* The kernels of a job, or those that it would have besides in another layout. Returns how many. */
static int add_kernels(cli *c, list *l, const job *j, const cli_model *m, int aside) {
  const char *other = !aside ? NULL : aside == CUT ? ", cut" : ir_format(c->ctx, " in %s", layouts[aside]);
  tn_ctx *ctx = c->ctx;
  const ir_program *p = m->program;
  int before = l->n;
  double *calls = IR_NEW_ARRAY(ctx, double, p->nkernels + 1);
  count_calls(p->run, p->nrun, calls);
  int heavy = -1;
  double most = -1;
  for (int i = 0; i < p->nkernels; i++) {
    double work = calls[i] ? lw_problem_of(ctx, p->kernels[i].kernel).flops : -1;
    if (work > most) most = work, heavy = i;
  }
  for (int i = 0; i < p->nkernels; i++) {
    if (!calls[i]) continue;
    at_tune_kernel k = {p->kernels[i].kernel, short_name(c, j, p->kernels[i].kernel, i == heavy), calls[i] / m->copies, aside};
    if (other) k.name = ir_format(ctx, "%s%s", k.name, other);
    if (other && among(ctx, j->m->program, k.kernel)) continue;
    int n = l->n;
    IR_PUSH(ctx, l->kernels, l->n, k);
    IR_PUSH(ctx, l->job_of, n, other ? -1 : l->njobs);
  }
  return l->n - before;
}

static void add_job(cli *c, list *l, const char *path) {
  if (!cli_sweep_mine(&l->sweep)) return;
  job j = {.path = path, .m = untuned(c, path, c->layout, "")};
  add_kernels(c, l, &j, j.m, 0);
  IR_PUSH(c->ctx, l->jobs, l->njobs, j);
}

static void add_layouts(cli *c, list *l) {
  for (int i = 0; i < l->njobs && !c->layout; i++)
    for (int k = 1; k < IR_COUNT(layouts) && !l->jobs[i].m->kernel; k++) {
      job *j = &l->jobs[i];
      j->layouts |= add_kernels(c, l, j, untuned(c, j->path, layouts[k], ""), k) > 0;
    }
}

/* The kernels that a model has where one of its groups is cut. */
static void add_cuts(cli *c, list *l) {
  for (int i = 0; i < l->njobs && !c->layout; i++) {
    job *j = &l->jobs[i];
    if (j->m->kernel) continue;
    j->ncuts = cli_cuts_of(c->ctx, j->m, j->cuts);
    for (int k = 0; k < j->ncuts; k++) {
      cli_model *m = untuned(c, j->path, NULL, j->cuts[k]);
      j->cut[k] = m->program;
      add_kernels(c, l, j, m, CUT);
    }
  }
}

static const char *choose_cuts(cli *c, const list *l, const job *j, const at_tune_result *r) {
  cli_timed t = {.n = r->n};
  t.hash = IR_NEW_ARRAY(c->ctx, const char *, r->n + 1);
  t.ns = IR_NEW_ARRAY(c->ctx, double, r->n + 1);
  for (int i = 0; i < r->n; i++) t.hash[i] = at_kernel_hash(c->ctx, l->kernels[i].kernel), t.ns[i] = r->state[i].best_ns;
  return cli_choose_cuts(c->ctx, j->m->program, j->ncuts, j->cuts, j->cut, &t);
}

/* One model or kernel a line; blanks around it and lines with # do not count. */
static void read_list(cli *c, list *l, const char *path) {
  const fe_map *map = fe_map_file(c->ctx, path);
  const char *text = ir_strndup(c->ctx, map->data, map->size);
  while (*text) {
    size_t n = strcspn(text, "\n"), from = strspn(text, " \t\r"), to = n;
    while (to > from && (text[to - 1] == ' ' || text[to - 1] == '\t' || text[to - 1] == '\r')) to--;
    if (from < to && text[from] != '#') add_job(c, l, ir_strndup(c->ctx, text + from, to - from));
    text += n + (text[n] == '\n');
  }
}

/* ---- display ---- */

typedef struct display {
  cli *c;
  bool terminal;
  double last;       /* moment of the last plain line */
  int width;         /* of what stands on the line */
  const char *phase; /* of the last plain line */
  int kernel;
} display;

/* Of the peak of multiplications; not for algorithms that take fewer. */
static double percent(const at_tune_state *s, double ns, double peak) {
  if (s->schedule && strncmp(s->schedule, "algorithm ", 10) == 0) return NAN;
  bool fma = strcmp(s->klass, "gemm") == 0 || strcmp(s->klass, "conv") == 0;
  return fma && peak > 0 && ns > 0 ? 100 * s->flops / ns / peak : NAN;
}

/* "1.2 ms" for nanoseconds; "-" when not known. */
static const char *ns_text(char out[24], double ns) {
  if (isnan(ns)) snprintf(out, 24, "-");
  else if (ns < 1e3) snprintf(out, 24, "%.0f ns", ns);
  else if (ns < 1e6) snprintf(out, 24, "%.4g us", ns * 1e-3);
  else if (ns < 1e9) snprintf(out, 24, "%.4g ms", ns * 1e-6);
  else snprintf(out, 24, "%.4g s", ns * 1e-9);
  return out;
}

/* Instead of what stands on the line; a line of its own where there is no terminal. */
static void show_line(void *user, const char *line) {
  display *d = user;
  int w = (int)strlen(line);
  if (!d->terminal) fprintf(stderr, "tenon: %s\n", line);
  if (!d->terminal) return;
  if (w > 158) w = 158;
  fprintf(stderr, "\r%.*s%*s", w, line, w < d->width ? d->width - w : 0, "");
  fflush(stderr);
  d->width = w;
}

static void show(void *user, const at_tune_progress *p) {
  display *d = user;
  const at_tune_state *s = p->state;
  char line[400], a[24], b[24], e[24], f[24], left[48] = "";
  double rest = fmax(0, p->budget_s - p->elapsed_s);
  if (p->budget_s > 0) snprintf(left, sizeof left, rest < 9.95 ? "%3.1f s left, " : "%3.0f s left, ", rest);
  else snprintf(left, sizeof left, "%3.0f s, ", p->elapsed_s);
  double share = percent(s, s->best_ns, p->peak_gflops);
  int n = snprintf(line, sizeof line, "%s%d trials, %d failed; %s %d/%d %s: default %s, best %s", left, p->trials, p->failed, p->phase, p->kernel + 1,
                   p->nkernels, s->name, ns_text(a, s->default_ns), ns_text(b, s->best_ns));
  if (n > 0 && (size_t)n < sizeof line && !isnan(share)) n += snprintf(line + n, sizeof line - (size_t)n, " (%.0f%% of peak)", share);
  if (n > 0 && (size_t)n < sizeof line && p->nkernels > 1 && p->before_ns > 0) snprintf(line + n, sizeof line - (size_t)n, "; all %s -> %s", ns_text(e, p->before_ns), ns_text(f, p->after_ns));
  if (d->terminal) {
    show_line(d, line);
    return;
  }
  bool event = d->phase != p->phase && strcmp(p->phase, "final") == 0;
  if (!event && p->elapsed_s - d->last < 5) return;
  d->last = p->elapsed_s;
  d->phase = p->phase;
  fprintf(stderr, "tenon: %s\n", line);
}

static void clear(display *d) {
  if (d->terminal && d->width) fprintf(stderr, "\r%*s\r", d->width, "");
  d->width = 0;
}

/* ---- results ---- */

static const char *state_text(const at_tune_state *s) {
  if (s->trouble) return "not tuned";
  if (isnan(s->default_ns)) return "no time";
  if (!s->proven) return "no final yet";
  return s->converged ? "done" : "unfinished";
}

static void table(cli *c, const list *l, const at_tune_result *r) {
  char a[24], b[24];
  size_t width = 6;
  for (int i = 0; i < r->n; i++)
    if (strlen(r->state[i].name) > width) width = strlen(r->state[i].name);
  if (width > 48) width = 48;
  fprintf(c->out, "%-*s %6s %12s %12s %7s %6s %7s %7s  %s\n", (int)width, "kernel", "calls", "default", "best", "gain", "peak", "tried", "failed", "");
  for (int i = 0; i < r->n; i++) {
    const at_tune_state *s = &r->state[i];
    double share = percent(s, s->best_ns, r->peak_gflops);
    fprintf(c->out, "%-*.*s %6.4g %12s %12s", (int)width, (int)width, s->name, s->count, ns_text(a, s->default_ns), ns_text(b, s->best_ns));
    if (isnan(s->default_ns)) fprintf(c->out, " %7s", "-");
    else fprintf(c->out, " %6.1f%%", 100 * (s->default_ns / s->best_ns - 1));
    if (isnan(share)) fprintf(c->out, " %6s", "-");
    else fprintf(c->out, " %5.0f%%", share);
    const char *space = s->space ? ir_format(c->ctx, "%d", s->space) : "?";
    fprintf(c->out, " %3d/%-3s %7d  %s\n", s->tried, space, s->failed, state_text(s));
    if (s->trouble) fprintf(c->out, "  %s\n", s->trouble);
  }
  for (int i = 0; i < l->njobs; i++)
    if (!l->jobs[i].m->kernel && l->jobs[i].before_ns > 0)
      fprintf(c->out, "%s: kernels of a run %s -> %s (%.1f%% less)%s\n", l->jobs[i].path, ns_text(a, l->jobs[i].before_ns), ns_text(b, l->jobs[i].after_ns),
              100 * (1 - l->jobs[i].after_ns / l->jobs[i].before_ns),
              l->jobs[i].untimed ? ir_format(c->ctx, ", without %d of %d that have no time yet", l->jobs[i].untimed, l->jobs[i].nkernels) : "");
  for (int i = 0; i < l->njobs; i++) {
    const cli_verdict *v = &l->jobs[i].whole;
    if (!v->known) continue;
    const cli_way *w = &v->way[v->chosen];
    fprintf(c->out, "%s: whole runs %s -> %s (%+.1f%%, within %.1f)%s%s%s\n", l->jobs[i].path, cli_time(c, v->untuned_s), cli_time(c, v->tuned_s), 100 * w->change, 100 * w->error,
            w->cuts ? ", groups cut" : w->layout ? " in " : "", !w->cuts && w->layout ? w->layout : "", v->kept ? "" : ": no gain beyond noise, it is compiled untuned");
    for (int k = 0; k < v->n; k++)
      if (k != v->chosen) fprintf(c->out, "  %s%s %+.1f%%\n", v->way[k].cuts ? "groups cut" : v->way[k].layout ? "in " : "as before", !v->way[k].cuts && v->way[k].layout ? v->way[k].layout : "", 100 * v->way[k].change);
  }
  fprintf(c->out, "%d new trials, %d failed, %.1f s%s\n", r->trials, r->failed, r->seconds, r->stopped ? ", interrupted: all of it is kept" : "");
}

static void json(cli *c, const list *l, const at_tune_result *r, const char *db, const char *trouble) {
  cli_json j;
  cj_begin(&j, c->ctx);
  cj_text(&j, "db", db);
  cj_text(&j, "trouble", trouble);
  cj_int(&j, "trials", r->trials);
  cj_int(&j, "failed", r->failed);
  cj_real(&j, "seconds", r->seconds);
  cj_real(&j, "compiling_s", r->spent.compiling);
  cj_real(&j, "checking_s", r->spent.checking);
  cj_real(&j, "timing_s", r->spent.timing);
  cj_bool(&j, "stopped", r->stopped);
  cj_int(&j, "restarts", r->restarts);
  cj_real(&j, "peak_gflops", r->peak_gflops);
  cj_real(&j, "ghz", r->ghz);
  cj_open(&j, "models", '[');
  for (int i = 0; i < l->njobs; i++) {
    cj_open(&j, NULL, '{');
    cj_text(&j, "model", l->jobs[i].path);
    cj_real(&j, "before_ms", l->jobs[i].before_ns * 1e-6);
    cj_real(&j, "after_ms", l->jobs[i].after_ns * 1e-6);
    const cli_verdict *v = &l->jobs[i].whole;
    if (v->known) {
      cj_real(&j, "untuned_run_ms", v->untuned_s * 1e3);
      cj_real(&j, "tuned_run_ms", v->tuned_s * 1e3);
      cj_real(&j, "run_change", v->way[v->chosen].change);
      cj_real(&j, "run_error", v->way[v->chosen].error);
      cj_bool(&j, "winners_kept", v->kept);
      cj_text(&j, "layout", v->way[v->chosen].layout);
      cj_open(&j, "layouts", '[');
      for (int k = 0; k < v->n; k++) {
        cj_open(&j, NULL, '{');
        cj_text(&j, "layout", v->way[k].layout);
        cj_text(&j, "cuts", v->way[k].cuts);
        cj_real(&j, "run_change", v->way[k].change);
        cj_real(&j, "run_error", v->way[k].error);
        cj_close(&j, '}');
      }
      cj_close(&j, ']');
    }
    cj_close(&j, '}');
  }
  cj_close(&j, ']');
  cj_open(&j, "kernels", '[');
  for (int i = 0; i < r->n; i++) {
    const at_tune_state *s = &r->state[i];
    cj_open(&j, NULL, '{');
    cj_text(&j, "name", s->name);
    cj_text(&j, "class", s->klass);
    cj_text(&j, "hash", at_kernel_hash(c->ctx, l->kernels[i].kernel));
    cj_real(&j, "calls", s->count);
    cj_real(&j, "flop", s->flops);
    cj_real(&j, "default_ns", s->default_ns);
    cj_real(&j, "best_ns", s->best_ns);
    cj_real(&j, "predicted_ns", s->predicted_ns);
    cj_int(&j, "space", s->space);
    cj_int(&j, "tried", s->tried);
    cj_int(&j, "failed", s->failed);
    cj_int(&j, "trials", s->trials);
    cj_bool(&j, "proven", s->proven);
    cj_bool(&j, "converged", s->converged);
    cj_text(&j, "trouble", s->trouble);
    cj_text(&j, "schedule", s->schedule);
    cj_close(&j, '}');
  }
  cj_close(&j, ']');
  cj_end(&j, c);
}

/* ---- replay tables ---- */

typedef struct recording { /* of all kernels, each with the points of its space and their times */
  cli *c;
  const at_tune_kernel *kernels;
  int current, nsteps;
  const char **steps; /* that schedules are made of: a row names them by their numbers */
  ir_text out;
} recording;

static int step_number(recording *r, const char *step) {
  for (int i = 0; i < r->nsteps; i++)
    if (strcmp(r->steps[i], step) == 0) return i;
  IR_PUSH(r->c->ctx, r->steps, r->nsteps, step);
  return r->nsteps - 1;
}

static void record_point(void *user, int kernel, const char *tunables, const char *schedule, at_status status, double ns) {
  recording *r = user;
  if (kernel != r->current) {
    ir_put(&r->out, "\nworkload %s\n%s", r->kernels[kernel].name, ir_kernel_print(r->c->ctx, r->kernels[kernel].kernel));
    r->current = kernel;
  }
  if (status == AT_OK || status == AT_NOISY) ir_put(&r->out, "%.4g %s: ", ns, tunables);
  else ir_put(&r->out, "%s %s: ", at_status_name(status), tunables);
  static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+-"; /* two for each step */
  for (const char *p = schedule; *p; p += strcspn(p, "\n") + 1) {
    int k = step_number(r, ir_strndup(r->c->ctx, p, strcspn(p, "\n")));
    if (k >= 64 * 64) ir_fail(r->c->ctx, TN_ERESOURCE, "more than %d different steps: a table of fewer kernels", 64 * 64);
    ir_put(&r->out, "%c%c", digits[k / 64], digits[k % 64]);
  }
  ir_put(&r->out, "\n");
}

static void write_recording(recording *r, const char *path, const cg_target *t, const at_tune_result *x) {
  tn_ctx *ctx = r->c->ctx;
  const char *head = ir_format(ctx, "# tenon replay 2: nanoseconds of points of search spaces (tests/README.md)\n"
                                    "machine bits=%d regs=%d l1=%lld l2=%lld l3=%lld ghz=%.2f gflops=%.1f\n",
                               t->vector_bits, t->vector_regs, (long long)t->l1_bytes, (long long)t->l2_bytes, (long long)x->l3_bytes, x->ghz, x->peak_gflops);
  ir_text steps = {.ctx = ctx};
  for (int i = 0; i < r->nsteps; i++) ir_put(&steps, "step %s\n", r->steps[i]);
  const char *all = ir_format(ctx, "%s%s%s", head, ir_text_str(&steps), ir_text_str(&r->out));
  fe_write_file(ctx, path, all, strlen(all));
}

/* ---- the winners inside the whole model ---- */

/* Runs the model with its default schedules and with the winners: throws TN_EWRONG when the results differ. */
static void check_model(cli *c, const job *j) {
  tn_ctx *ctx = c->ctx;
  cli_model *m[2];
  for (int i = 0; i < 2; i++) {
    cli with = *c;
    with.trust = true;
    if (!i) with.db = "none";
    m[i] = cli_load(&with, j->path);
    cli_lower(&with, m[i]);
    cli_fill(&with, m[i]);
    cli_start(&with, m[i]);
    cli_run_once(&with, m[i]);
  }
  for (int i = 0; i < m[0]->nout; i++) {
    const ir_slot *s = cli_out_slot(m[0], i);
    fe_tolerance tol = {1e-3, 1e-5};
    fe_difference d = fe_compare(s->dtype, cli_elements(s), m[1]->out[i], m[0]->out[i], &tol);
    if (!d.equal && d.max_abs > 1e-4 * d.max_ref)
      ir_fail(ctx, TN_EWRONG, "%s: with the winners output '%s' is another: %s", j->path, m[0]->out_name[i], fe_difference_text(ctx, &d, s->rank, s->dims));
  }
  for (int i = 0; i < 2; i++) cli_stop(c, m[i]);
}

typedef struct opening {
  cli *c;
  const cli_sweep *sweep;
  at_store *store;
} opening;

static at_store *open_store(void *user) {
  opening *x = user;
  return x->store = cli_sweep_store(x->c->ctx, x->sweep, x->c->db);
}

static volatile sig_atomic_t stop;
static void on_interrupt(int signal) {
  (void)signal;
  if (stop) _exit(130); /* twice: at once; what was committed is safe */
  stop = 1;
}

/* Schedules that the store has now, for every kernel of the program. */
static void plan_out(cli *c, const char *path, const char *model, int threads) {
  cli with = *c;
  with.threads = threads;
  cli_model *m = cli_load(&with, model);
  cli_lower(&with, m);
  cli_write_plan(&with, m, path);
}

void cli_write_plan(cli *c, const cli_model *m, const char *path) {
  const char *text = at_plan_print(c->ctx, m->program, m->target, m->layout, m->cuts);
  fe_write_file(c->ctx, path, text, strlen(text));
}

void cli_tune(cli *c, int argc, char **argv) {
  tn_ctx *ctx = c->ctx;
  const char *file = NULL, *plan = NULL, *table_file = NULL, *target_name = NULL, *precision = NULL;
  double budget = 0;
  int64_t trials = 0, jobs = 0, explore = 0;
  bool check = false, try_layouts = false, candidates = false, compile = false;
  double timeout = 0;
  cli_option own[] = {
      {"--list", CLI_TEXT, &file, "FILE", "models and kernels, one a line"},
      {"--budget", CLI_SECONDS, &budget, "T", "for how long (default 60s, or no limit with --trials)"},
      {"--trials", CLI_INT, &trials, "N", "schedules of each kernel, those in the store included"},
      {"--jobs", CLI_INT, &jobs, "N", "processes that compile (default: all CPUs)"},
      {"--check", CLI_FLAG, &check, NULL, "afterwards, compares results with and without the winners"},
      {"--layouts", CLI_FLAG, &try_layouts, NULL, "also tunes models in other layouts and with groups cut, and keeps the fastest (with a budget of 3m or more: always)"},
      {"--explore", CLI_INT, &explore, "N", "makes spaces of N schedules and tries them all, good and bad"},
      {"--record", CLI_TEXT, &table_file, "FILE", "afterwards, writes what is known of all kernels as a replay table"},
      {"--plan-out", CLI_TEXT, &plan, "FILE", "afterwards, writes the schedules of the model as a plan"},
      {"--target", CLI_TEXT, &target_name, "T", "cpu (default); cuda[:ARCH]: on this GPU; tpu:NAME: tiles of models for the simulated machine"},
      {"--precision", CLI_TEXT, &precision, "P", "of tpu:NAME's products: fp32, bf16, int8"},
      {"--compile", CLI_FLAG, &compile, NULL, "with --candidates: and compiles them into the store, for a machine with a GPU"},
      {"--candidates", CLI_FLAG, &candidates, NULL, "with cuda:ARCH: lists what would be timed, libraries' plans too; needs no GPU"},
      {"--timeout", CLI_SECONDS, &timeout, "T", "with cuda: a candidate that takes longer is stopped (default 60s)"},
  };
  if (!cli_parse(c, argc, argv, IR_COUNT(own), own, true, 0, -1,
                 "KERNEL: gemm:f32:MxNxK, conv:f32:n1c64h56w56k64r3s3u1p1 (tenon bench --help). Takes up where an\n"
                 "earlier run with the same store left off; interrupting it loses nothing. The winners are used by\n"
                 "all verbs with the same --db. Schedules are timed on one thread, with --threads N on so many: those are\n"
                 "found by compiles and runs for N threads alone, what is known of one thread stands in where there are none.\n")) return;
  if (!c->nargs && !file) ir_fail(ctx, TN_EUSAGE, "an argument is missing: tenon %s %s", c->verb->name, c->verb->form);
  if (plan && (c->nargs != 1 || file)) ir_fail(ctx, TN_EUSAGE, "--plan-out is for one model");
  if (target_name && strncmp(target_name, "tpu:", 4) == 0) {
    if (file || plan || table_file || check || try_layouts || explore) ir_fail(ctx, TN_EUSAGE, "--target tpu:NAME goes with --trials, --budget and --precision alone");
    cli_tune_tpu(c, &(cli_tpu_tuning){target_name + 4, precision, trials, budget, &stop});
    return;
  }
  const char *arch = fe_cuda_arch(ctx, target_name);
  if (arch) {
    if (file || plan || table_file || check || try_layouts || explore || precision) ir_fail(ctx, TN_EUSAGE, "--target cuda goes with --trials and --budget alone");
    cli_tune_cuda(c, &(cli_cuda_tuning){arch, trials, budget, timeout > 0 ? timeout : 60, candidates, compile, &stop});
    return;
  }
  if (candidates || compile || timeout > 0) ir_fail(ctx, TN_EUSAGE, "--candidates, --compile and --timeout are for --target cuda");
  if (precision) ir_fail(ctx, TN_EUSAGE, "--precision is for --target tpu:NAME");
  if (c->threads < 0 || c->threads > 256) ir_fail(ctx, TN_EUSAGE, "--threads: 1 to 256");
  int threads = c->threads > 1 ? (int)c->threads : 1;
  if (budget <= 0 && !trials) budget = 60;
  if (explore > 1 << 20) ir_fail(ctx, TN_EUSAGE, "--explore: at most %d", 1 << 20);
  if (table_file && !explore) explore = 1200;
  list l = {.sweep = cli_sweep_begin()};
  bool alone = l.sweep.ranks == 1, first = l.sweep.rank == 0;
  if (!alone && (check || plan || table_file)) ir_fail(ctx, TN_EUSAGE, "--check, --plan-out and --record are for one process");
  for (int i = 0; i < c->nargs; i++) add_job(c, &l, c->args[i]);
  if (file) read_list(c, &l, file);
  if (!l.sweep.next || (alone && !l.n)) ir_fail(ctx, TN_EUSAGE, "there is no kernel to tune");

  enum { LONG = 180, JUDGE_FROM = 20 };
  double began = rt_now();
  try_layouts |= budget >= LONG;
  bool judge = alone && (budget <= 0 || budget >= JUDGE_FROM || check || try_layouts);
  if (try_layouts) add_layouts(c, &l), add_cuts(c, &l);
  int models = 0, judged = 0;
  for (int i = 0; i < l.njobs; i++) models += !l.jobs[i].m->kernel;
  double judging = judge && models ? fmin(fmax(budget / 8, 6), 60 * models) / models : 0; /* seconds for each */
  const char *missing;
  const cg_target *target = l.n ? l.jobs[0].m->target : cg_target_find(ctx, NULL, NULL);
  if (!cg_target_runs_here(ctx, target, &missing)) ir_fail(ctx, TN_EUSAGE, "code for '%s' does not run here: no %s", target->name, missing);
  opening where = {.c = c, .sweep = &l.sweep};
  display d = {.c = c, .terminal = isatty(2), .last = -10};
  at_tune_options o = {.target = target, .open = open_store, .open_user = &where, .accuracy = cli_accuracy(c), .budget_s = budget > 0 ? fmax(fmax(budget - models * judging, 0.75 * budget) - (rt_now() - began), 0.05) : 0, /* other layouts and cuts took some of it */
                        .trials = trials, .seed = (uint64_t)c->seed, .jobs = (int)jobs, .threads = threads, .stop = &stop, .explore = (int)explore, .survey = try_layouts};
  recording points = {.c = c, .kernels = l.kernels, .current = -1, .out = {.ctx = ctx}};
  if (table_file) o.each = record_point, o.each_user = &points;
  o.progress = first ? show : NULL;
  o.user = &d;
  o.label = l.njobs == 1 ? l.jobs[0].path : ir_format(ctx, "%d models and kernels", l.njobs);
  struct sigaction interrupt = {.sa_handler = on_interrupt}, before_int, before_term;
  sigaction(SIGINT, &interrupt, &before_int);
  sigaction(SIGTERM, &interrupt, &before_term);
  const at_tune_result *r = at_tune(ctx, l.n, l.kernels, &o);
  sigaction(SIGINT, &before_int, NULL);
  sigaction(SIGTERM, &before_term, NULL);
  at_store *store = where.store;
  clear(&d);
  for (int i = 0; i < l.njobs && store && judge && !r->stopped; i++) {
    job *j = &l.jobs[i];
    if (j->m->kernel) continue;
    cli_whole_options w = {.store = store, .nlayouts = j->layouts ? IR_COUNT(layouts) : 0, .layouts = layouts, .progress = first ? show_line : NULL, .user = &d};
    w.tried_cuts = try_layouts, w.threads = threads;
    if (j->ncuts) w.cuts = choose_cuts(c, &l, j, r);
    if (budget > 0) w.deadline = began + budget - (models - ++judged) * judging;
    j->whole = cli_judge_model(c, j->path, &w);
    clear(&d);
  }
  const char *trouble = store ? ir_strdup(ctx, at_store_trouble(store)) : "";
  int64_t others = cli_sweep_end(ctx, &l.sweep, store, c->db);
  for (int i = 0; i < r->n; i++) {
    const at_tune_state *s = &r->state[i];
    if (l.job_of[i] < 0) continue;
    l.jobs[l.job_of[i]].nkernels++;
    l.jobs[l.job_of[i]].untimed += isnan(s->default_ns);
    if (isnan(s->default_ns)) continue;
    l.jobs[l.job_of[i]].before_ns += s->count * s->default_ns;
    l.jobs[l.job_of[i]].after_ns += s->count * s->best_ns;
  }
  if (table_file) write_recording(&points, table_file, target, r);
  for (int i = 0; i < l.njobs && check; i++) check_model(c, &l.jobs[i]);
  if (!first) return;
  if (others) ir_log(ctx, "%lld rows from %d other processes are in the store", (long long)others, l.sweep.ranks - 1);
  if (c->json) json(c, &l, r, c->db ? c->db : at_store_default_path(ctx), *trouble ? trouble : NULL);
  else table(c, &l, r);
  if (plan) plan_out(c, plan, l.jobs[0].path, threads);
}
