/* tune.c — the course of a tuning run: which kernel next, races, finals, what is recorded.
 * See tune.h. */
#include "autotune/tune.h"
#include "autotune/search.h"
#include "autotune/stats.h"
#include "lower/problem.h"
#include "lower/schedule.h"
#include "runtime/profile.h"
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

const char *at_policy(tn_ctx *ctx, int threads) {
  return threads > 1 ? ir_format(ctx, "%d threads, constants cold and warm", threads) : "1 thread, constants cold and warm";
}

const char *at_codegen(tn_ctx *ctx) { return ir_format(ctx, "cg%d", CG_VERSION); }

at_key at_key_of(tn_ctx *ctx, const ir_kernel *k, const cg_target *t, int threads) {
  return (at_key){ir_kernel_canonical(ctx, k), cg_target_fingerprint(ctx, t), at_policy(ctx, threads), at_codegen(ctx)};
}

const char *at_class(tn_ctx *ctx, const ir_kernel *k) {
  lw_problem q = lw_problem_of(ctx, k);
  switch (q.kind) {
  case LW_CONTRACTION: return q.nred > 1 || q.guard ? "conv" : "gemm";
  case LW_POINTWISE: return "pointwise";
  case LW_ACCUMULATE: return "reduction";
  default: return "other";
  }
}

typedef struct tuner {
  tn_ctx *ctx;
  at_tune_options o;
  at_lab *lab;
  at_run *run;
  at_machine machine;
  int n, current; /* current: the task whose kernel the lab has; -1 */
  at_task *t, *growing; /* growing: whose space is made meanwhile; null: none's */
  double start, end; /* end: 0 without a budget */
  double said;       /* when progress was told last */
  double space_s;    /* that points took while nothing else went on */
  int nrows;
  at_trial *rows;    /* batches that are not written yet; their schedules in the names of: */
  const ir_kernel **row_of;
  int trials, failed;
} tuner;

/* ---- telling ---- */

static void totals(const tuner *u, double *before, double *after) {
  *before = *after = 0;
  for (int i = 0; i < u->n; i++) {
    const at_task *t = &u->t[i];
    if (t->same_as >= 0 || t->aside || isnan(t->state.default_ns)) continue;
    *before += t->weight * t->state.default_ns;
    *after += t->weight * t->state.best_ns;
  }
}

static void update(at_task *t) {
  at_tune_state *s = &t->state;
  s->default_ns = t->standard ? t->standard->ns : NAN;
  s->tried = s->ok = s->failed = 0;
  for (int i = 0; i < t->n; i++) {
    const at_config *c = t->configs[i];
    bool bad = c->status != AT_OK && c->status != AT_NOISY;
    if (isnan(c->ns) && c->status == AT_OK) continue;
    s->tried++;
    s->ok += !bad;
    s->failed += bad;
  }
  at_config *f[3];
  s->proven = !at_task_finalists(t, false, f);
  const at_config *best = s->proven ? at_task_winner(t) : t->best; /* until a final the fastest so far stands in */
  s->best_ns = best ? best->ns : s->default_ns;
  s->schedule = best ? best->schedule : NULL;
}

static void tell(tuner *u, int i, const char *phase, bool now) {
  at_task *t = &u->t[i];
  update(t);
  double moment = rt_now();
  if (!u->o.progress || (!now && moment - u->said < 0.2)) return;
  u->said = moment;
  at_tune_progress p = {.phase = phase, .kernel = i, .nkernels = u->n, .state = &t->state, .elapsed_s = moment - u->start,
                        .budget_s = u->o.budget_s, .trials = u->trials, .failed = u->failed, .peak_gflops = u->machine.fma_gflops};
  for (int k = 0; k < u->n; k++) p.converged += u->t[k].state.converged;
  totals(u, &p.before_ns, &p.after_ns);
  u->o.progress(u->o.user, &p);
}

/* ---- time ---- */

static bool over(const tuner *u) { return (u->o.stop && *u->o.stop) || (u->end > 0 && rt_now() >= u->end); }

/* Seconds that a final takes, about; `known` of its rivals are these, the others have code. */
static double final_s(const tuner *u, const at_task *t, int rivals, int known, at_config *const *c) {
  bool there = u->current >= 0 && &u->t[u->current] == t;
  double sample = t->sample_s > 0 ? t->sample_s : fmax(t->standard->ns * 1e-9, 300e-6), compiling = 0;
  for (int j = 0; j < known; j++) compiling += c[j]->c.object ? 0 : t->compile_s;
  return 0.05 + (there ? 0 : t->switch_s) + compiling + (rivals + 1) * (1.5 * AT_FINAL_ROUNDS * sample + 2 * t->check_s);
}

/* Seconds that the final of a task will take, about, if there is one to come; `fresh`: new schedules that it has in a round
 * before, which may cause one. */
static double final_of(const tuner *u, const at_task *t, int fresh) {
  at_config *f[3];
  int k = t->space && !t->state.trouble ? at_task_finalists(t, false, f) : 0, most = k + fresh < 3 ? k + fresh : 3;
  return most ? final_s(u, t, most, k, f) : 0;
}

/* Seconds that the finals still to come will take; with one that `fresh` schedules of task `next` may yet cause. */
static double reserve(const tuner *u, int next, int fresh) {
  double sum = 0;
  for (int i = 0; i < u->n; i++) sum += final_of(u, &u->t[i], i == next ? fresh : 0);
  return sum;
}

/* Seconds of a round, about, for each of those in it: new ones, the default, the fastest so far. Before there was one: by
 * what the default took alone, whose worker had to be started. */
static double round_each(const at_task *t) { return t->rounds ? t->each_s : 0.5 * t->compile_s + t->check_s + 15 * t->sample_s; }
static int beside(const at_task *t) { return 1 + (t->best != t->standard); }

/* New schedules that a round of the task has time for, when all finals to come take `finals`: it is no use to compile what
 * cannot be timed any more. 0: none. */
static int round_size(const tuner *u, const at_task *t, double finals) {
  if (u->end <= 0) return AT_BATCH;
  double left = u->end - rt_now() - finals + final_of(u, t, 0), each = round_each(t);
  int n = AT_BATCH;
  while (n && (n + beside(t)) * each + final_of(u, t, n) > left) n--;
  return n;
}

/* ---- records ---- */

/* The batches that wait, as stores have them; returns how many rows, which wait no more. */
static int take_rows(tuner *u) {
  int n = u->nrows;
  for (int i = 0; i < n; i++) u->rows[i].schedule = lw_schedule_unnamed(u->ctx, u->row_of[i], u->rows[i].schedule);
  u->nrows = 0;
  return n;
}

/* Writes them: a disk takes milliseconds, in which workers compile the next batch. */
static bool write_rows(tuner *u) {
  int n = take_rows(u);
  if (n) at_store_add_trials(u->o.store, u->run, u->rows, n);
  return n > 0;
}

/* What is known of these now becomes rows of one moment. */
static void record(tuner *u, at_task *t, int n, at_config *const *c, int stage, const char *origin) {
  struct timespec moment;
  clock_gettime(CLOCK_REALTIME, &moment);
  int64_t now = (int64_t)moment.tv_sec * 1000000 + moment.tv_nsec / 1000; /* one for all: it marks the batch */
  for (int i = 0; i < n; i++) {
    const at_candidate *a = &c[i]->c;
    bool ok = c[i]->status == AT_OK;
    if (ok && !a->n) continue; /* there was no time for it: it was not tried */
    at_trial r = {.key = t->key, .klass = t->state.klass, .name = t->state.name, .schedule = c[i]->schedule, .status = c[i]->status};
    r.stage = stage;
    r.origin = origin ? origin : c[i]->origin;
    r.reason = c[i]->status == AT_OK ? (a->disturbed ? ir_format(u->ctx, "%d of %d samples are CPU times", a->disturbed, a->n) : NULL) : a->reason;
    r.samples = a->samples;
    r.n = ok ? a->n : 0;
    /* nothing is cheaper than the default before it has won a final */
    bool provisional = c[i] != t->standard && !c[i]->won && stage != AT_STAGE_FINAL && !isnan(t->standard->ns);
    r.cost_ns = !ok ? 0 : provisional ? fmax(c[i]->ns, t->standard->ns * 1.001) : c[i]->ns;
    r.time_us = now;
    if (c[i]->point >= 0) r.predicted_ns = t->space->points[c[i]->point].predicted_ns;
    r.compile_ms = a->compile_ms;
    int k = u->nrows;
    IR_PUSH(u->ctx, u->rows, u->nrows, r);
    IR_PUSH(u->ctx, u->row_of, k, t->kernel);
  }
}

/* ---- spaces ---- */

/* Rows and points cost time that the machine has while workers compile and check. */
static bool work_meanwhile(void *user) {
  tuner *u = user;
  return write_rows(u) || (u->growing && at_task_work(u->ctx, u->growing, &u->o, &u->machine));
}

/* The space that the next round draws from: what was asked for and could not be made meanwhile, and neighbours
 * of the fastest, so that searches which found them in different ways look at the same points in the end. */
static void finish_space(tuner *u, at_task *t) {
  double start = rt_now(), share = 0.005 * (start - u->start); /* what is not made now will be meanwhile */
  double until = u->end > 0 ? start + fmin(share - u->space_s, 1) : INFINITY;
  at_task_widen(u->ctx, t, &u->o);
  at_config *near[3] = {t->best};
  for (int k = 0, n = at_task_fastest(t, 3, near); k < (n ? n : 1); k++) at_task_grow_near(t, near[k]);
  while (rt_now() < until && at_task_work(u->ctx, t, &u->o, &u->machine)) {}
  u->space_s += rt_now() - start;
}

/* ---- races ---- */

/* Gives the lab the task's kernel. False when it cannot have it. */
static bool take_kernel(tuner *u, int i) {
  at_task *t = &u->t[i];
  if (u->current == i) return true;
  double start = rt_now();
  const char *why = at_lab_kernel(u->lab, &t->subject);
  if (why && !*why) return false;
  t->switch_s = rt_now() - start;
  u->current = i;
  if (why) t->state.trouble = why;
  return !why;
}

static int race_looks(void) {
  int n = 0;
  while (at_race_samples(n) && at_race_samples(n) <= 15) n++;
  return n;
}

/* A candidate may take 50 times the default, and at least two seconds. */
static void limit_runs(tuner *u, const at_task *t) {
  double given = u->o.limits.run_s;
  if (isnan(t->standard->ns)) at_lab_run_limit(u->lab, given > 0 ? given : 10);
  else at_lab_run_limit(u->lab, fmax(given > 0 ? given : 2, 50e-9 * t->standard->ns));
}

/* Times `n` configs of the task, slow ones fewer times than fast ones. New ones are compiled and
 * checked first. */
static void race(tuner *u, int i, int n, at_config *const *c, const char *phase) {
  enum { LONG_NS = 20000000 };
  at_task *t = &u->t[i];
  at_candidate *q[AT_BATCH + 4];
  at_racer racers[AT_BATCH + 4] = {0};
  for (int k = 0; k < n; k++) {
    q[k] = &c[k]->c;
    q[k]->n = q[k]->disturbed = 0;
    q[k]->samples = NULL;
  }
  double start = rt_now();
  at_lab_compile(u->lab, n, q);
  double compiled = rt_now();
  limit_runs(u, t);
  at_lab_check(u->lab, n, q);
  t->compile_s = (compiled - start) / n, t->check_s = (rt_now() - compiled) / n;
  int looks = race_looks();
  at_race rule = at_race_default;
  if (t->standard->ns > LONG_NS && looks > 2) looks = 2; /* long runs scatter less */
  rule.looks = looks;
  for (int look = 0; look < looks; look++) {
    at_candidate *left[AT_BATCH + 4];
    int k = 0, more = at_race_samples(look) - (look ? at_race_samples(look - 1) : 0);
    for (int j = 0; j < n; j++)
      if (!racers[j].out || c[j] == t->standard) left[k++] = q[j];
    start = rt_now();
    int before = q[n - 1]->n;
    for (int death = 0; death <= k && !at_lab_time(u->lab, k, left, more) && !at_lab_over(u->lab); death++)
      at_lab_check(u->lab, k, left); /* one of them ended the worker: the others go on */
    if (look > 0 && k && q[n - 1]->n > before) t->sample_s = (rt_now() - start) / (q[n - 1]->n - before) / k;
    if (at_lab_over(u->lab)) break;
    for (int j = 0; j < n; j++)
      racers[j] = (at_racer){q[j]->samples, q[j]->status == AT_OK ? q[j]->n : 0, c[j]->point >= 0 ? t->space->points[c[j]->point].predicted_ns : 0,
                             c[j]->schedule, racers[j].out};
    at_race_cut(racers, n, &rule);
    tell(u, i, phase, false);
  }
  for (int j = 0; j < n; j++) c[j]->status = q[j]->status;
}

/* What the samples of a race come to. `fresh`: the first ones are new. */
static void take_times(at_task *t, int n, at_config *const *c, int fresh) {
  if (isnan(t->scale_ns) && t->standard->c.n) t->scale_ns = at_median(t->standard->c.samples, t->standard->c.n);
  for (int j = 0; j < n; j++) {
    const at_candidate *q = &c[j]->c, *base = &t->standard->c;
    if (c[j] == t->standard && q->n) c[j]->ns = c[j]->plain_ns = t->scale_ns;
    else if (c[j]->status == AT_OK) (c[j]->again ? at_task_time_again : at_task_time)(c[j], q->samples, q->n, base->samples, base->n, t->scale_ns);
  }
  for (int j = 0; j < fresh; j++) {
    at_stats x = at_stats_of(c[j]->c.samples, c[j]->status == AT_OK ? c[j]->c.n : 0);
    if (x.n >= 5 && x.mad > 0.2 * x.median && c[j] != t->standard) {
      c[j]->status = AT_NOISY;
      c[j]->c.reason = "the samples scatter";
    }
  }
}

/* Of so many schedules one looks faster than it is: those that would be the fastest are timed anew, with the fastest
 * so far, and only these times count. */
static void confirm(tuner *u, at_task *t, int fresh, at_config *const *c) {
  enum { CLAIMS = 3, FEWEST = 5 };
  double best = (t->best ? t->best : t->standard)->ns;
  at_config *claim[CLAIMS + 2];
  at_candidate *q[CLAIMS + 2];
  int n = 0;
  for (int j = 0; j < fresh; j++) {
    if (c[j]->status != AT_OK || isnan(c[j]->ns) || c[j]->ns >= best * (1 - AT_GAIN)) continue;
    int at = n < CLAIMS ? n++ : CLAIMS; /* into its place among the fastest */
    for (; at > 0 && claim[at - 1]->ns > c[j]->ns; at--)
      if (at < CLAIMS) claim[at] = claim[at - 1];
    if (at < CLAIMS) claim[at] = c[j];
  }
  if (!n) return;
  if (t->best && t->best != t->standard) claim[n++] = t->best;
  claim[n++] = t->standard;
  for (int j = 0; j < n; j++) q[j] = &claim[j]->c, q[j]->n = q[j]->disturbed = 0, q[j]->samples = NULL;
  at_lab_time(u->lab, n, q, t->sample_s * n > 0.02 ? AT_FINAL_BLOCK : AT_FINAL_ROUNDS);
  const at_candidate *base = &t->standard->c;
  for (int j = 0; j < n - 1 && base->n >= FEWEST; j++)
    if (q[j]->status == AT_OK && q[j]->n >= FEWEST) at_task_time_again(claim[j], q[j]->samples, q[j]->n, base->samples, base->n, t->scale_ns);
  record(u, t, n, claim, 2, AT_AGAIN);
}

/* What is learned from schedules that are new. */
static void learn_results(tuner *u, at_task *t, int fresh, at_config *const *c) {
  for (int j = 0; j < fresh; j++) {
    bool bad = c[j]->status != AT_OK && c[j]->status != AT_NOISY;
    if (!bad && isnan(c[j]->ns)) continue;
    at_task_learn(t, c[j]);
    u->trials++, t->state.trials++;
    u->failed += bad;
  }
  at_task_rank(t);
}

/* Configs that there was no time for go back to the untried. */
static void forget_untried(tuner *u, at_task *t) {
  int n = 0;
  for (int i = 0; i < t->n; i++) {
    at_config *c = t->configs[i];
    if (c == t->standard || c->status != AT_OK || !isnan(c->ns)) t->configs[n++] = c;
    else at_lab_drop(u->lab, &c->c);
  }
  t->n = n;
}

/* Code stays where it will be asked for: the fastest may come to a final. In the worker only two of them do. */
static void drop_code(tuner *u, at_task *t, int finalists) {
  at_config *keep[AT_FINALISTS];
  int n = at_task_fastest(t, finalists, keep);
  for (int i = 0; i < t->n; i++) {
    at_config *c = t->configs[i];
    bool kept = false;
    for (int k = 0; k < n && !kept; k++) kept = keep[k] == c;
    if (c == t->standard || c == t->best || (!c->c.object && !c->c.id)) continue;
    (kept ? at_lab_unload : at_lab_drop)(u->lab, &c->c);
  }
}

/* What the machine's state at the time may have been to blame for. */
static bool by_chance(at_status s) { return s == AT_HANG || s == AT_OOM || s == AT_NOISY; }

/* The default alone, so that the kernel's weight is known. */
static void time_default(tuner *u, int i) {
  at_task *t = &u->t[i];
  t->standard->status = t->standard->c.status = AT_OK;
  write_rows(u); /* what is known of other kernels is asked for */
  at_task_widen(u->ctx, t, &u->o);
  u->growing = t;
  if (!take_kernel(u, i)) return;
  at_config *c[1] = {t->standard};
  race(u, i, 1, c, "default");
  take_times(t, 1, c, 1);
  record(u, t, 1, c, 2, AT_DEFAULT);
  learn_results(u, t, 1, c);
  tell(u, i, "default", true);
}

/* One batch of schedules, raced against the default and the fastest so far. True if it gained something. */
static bool search_round(tuner *u, int i, int most) {
  at_task *t = &u->t[i];
  double start = rt_now();
  u->growing = t;
  if (!most || !take_kernel(u, i)) return false;
  at_config *c[AT_BATCH + 4];
  if (u->o.trials > 0 && u->o.trials - t->n < most) most = (int)(u->o.trials - t->n);
  int fresh = at_task_propose(u->ctx, t, most, c), n = fresh;
  at_task_grow_near(t, fresh ? c[0] : NULL); /* the most promising: it may be the next to start from */
  at_task_grow(t);
  double before = t->best ? t->best->ns : t->standard->ns;
  if (t->best && t->best != t->standard) c[n++] = t->best;
  c[n++] = t->standard;
  race(u, i, n, c, "search");
  take_times(t, n, c, fresh);
  record(u, t, n, c, 1, NULL);
  confirm(u, t, fresh, c);
  learn_results(u, t, fresh, c);
  forget_untried(u, t);
  drop_code(u, t, AT_FINALISTS);
  double gain = t->best && before > 0 ? fmax(0, 1 - t->best->ns / before) : 0;
  t->expected = 0.5 * t->expected + 0.5 * gain;
  double took = rt_now() - start, each = took / n;
  t->round_s = 0.5 * t->round_s + 0.5 * took;
  t->each_s = t->rounds++ ? 0.5 * (t->each_s + each) : each;
  tell(u, i, "search", false);
  return gain >= AT_GAIN;
}

/* Measures the rivals of a final, as at_final_measure. 1: all have their samples;
 * 0: there was no time; -1: some failed, which is recorded, and the rest may try again. */
static int measure_final(tuner *u, at_task *t, int n, at_config *const *c, at_finalist *f, int least, double moment) {
  at_candidate *q[AT_MOST_FINALISTS] = {0};
  for (int j = 0; j < n; j++) {
    q[j] = &c[j]->c;
    f[j] = (at_finalist){.founded = f[j].founded, .predicted_ns = c[j]->point >= 0 ? t->space->points[c[j]->point].predicted_ns : 0, .text = c[j]->schedule};
  }
  at_lab_compile(u->lab, n, q);
  limit_runs(u, t);
  bool whole = at_final_measure(u->lab, n, q, f, least, moment);
  int failed = 0;
  for (int j = 0; j < n; j++) {
    c[j]->status = q[j]->status;
    if (q[j]->status == AT_OK) continue;
    failed++;
    record(u, t, 1, &c[j], AT_STAGE_FINAL, NULL);
  }
  return failed ? -1 : whole;
}

enum { SECONDS = 2 }; /* of a final that is in doubt */

/* Seconds that are left beside what the finals of all will need. */
static double left(const tuner *u) { return u->end > 0 ? u->end - reserve(u, -1, 0) - rt_now() : INFINITY; }

/* Who has won, and what that makes of all that took part; c[n - 1] is the default. */
static at_config *judge(tuner *u, at_task *t, int n, at_config *const *c, const at_finalist *f, bool settled) {
  double ratio[AT_FINALISTS + 1];
  int won = at_final_pick(f, n, ratio);
  for (int j = 0; j < t->n; j++) t->configs[j]->won = t->configs[j] == c[won];
  for (int j = 0; j < n; j++) {
    c[j]->plain_ns = t->scale_ns * ratio[j];
    c[j]->ns = t->scale_ns * (j == won || c[j] == t->standard ? ratio[j] : fmax(ratio[j], ratio[won] * 1.001));
    c[j]->again = AT_FINAL_WEIGHT;
    at_task_found(c[j], c[j]->c.n, c[j]->ns);
  }
  at_task_rank(t);
  record(u, t, n, c, AT_STAGE_FINAL, settled ? AT_SETTLED : AT_FINAL);
  t->final_at = ++t->clock;
  if (settled) t->settled_at = ++t->clock;
  return c[won];
}

/* Default against the fastest, interleaved. Only who wins here is cheaper than the default in the store. The final that
 * ends a search has more rivals, if there is time: races are too short to tell which of several good ones is the best.
 * Those that look better in the store than its winner, by a final of another moment, have one more with him. */
static void final(tuner *u, int i, bool settled) {
  enum { PASSES = 3 };
  at_task *t = &u->t[i];
  at_config *c[AT_FINALISTS + 1], *winner = NULL;
  at_finalist f[AT_FINALISTS + 1];
  for (int pass = 0; pass < PASSES; pass++) {
    int n, measured;
    bool wide;
    do {
      at_task_rank(t);
      int known = at_task_finalists(t, settled, c);
      double shortest = isnan(t->standard->ns) ? 0 : final_s(u, t, AT_FINALISTS, known, c);
      wide = settled && left(u) > SECONDS + shortest;
      if (winner && !wide) return;
      n = winner ? at_task_overrated(t, winner, c) : at_task_finalists(t, wide, c);
      if (winner && !n) return;
      if (winner && winner != t->standard) c[n++] = winner;
      bool kept = !n && at_task_winner(t) != t->standard; /* it won before, and there is no time for more: alone, the default would win */
      if (kept || (!n && !settled) || t->standard->status != AT_OK || !take_kernel(u, i)) return;
      c[n++] = t->standard;
      for (int j = 0; j < n; j++) f[j].founded = wide ? c[j]->founded : 0;
      measured = measure_final(u, t, n, c, f, wide && n > 1 ? AT_FINAL_WIDE : AT_FINAL_ROUNDS, rt_now() + fmin(left(u), wide ? 2 * SECONDS + shortest : SECONDS));
    } while (measured < 0 && !over(u));
    if (measured <= 0) return;
    winner = judge(u, t, n, c, f, settled);
    drop_code(u, t, settled && !wide ? 0 : AT_FINALISTS);
    tell(u, i, "final", true);
    if (!wide) return;
  }
}

/* The `most` fastest of those that were not seen yet and took no longer than `below`, marked; returns how many. */
static int next_fastest(at_task *t, int most, double below, at_config **out) {
  int n = 0;
  while (n < most) {
    at_config *next = NULL;
    for (int k = 0; k < t->n; k++) {
      at_config *x = t->configs[k];
      bool before = x->status == AT_OK && x->plain_ns <= below && !x->seen && x != t->standard && (!next || x->plain_ns < next->plain_ns);
      if (before) next = x;
    }
    if (!next) break;
    next->seen = true;
    out[n++] = next;
  }
  return n;
}

/* Those that were lucky among the `fastest`, or unlucky, are timed again, of those no slower than `below`: a time is the
 * mean of all that a schedule was timed in. */
static void sharpen(tuner *u, int i, int fastest, double below) {
  at_task *t = &u->t[i];
  for (int left = fastest; left > 0 && !at_lab_over(u->lab) && take_kernel(u, i);) {
    at_config *c[AT_BATCH + 4];
    int n = next_fastest(t, left < AT_BATCH ? left : AT_BATCH, below, c);
    if (!n) break;
    left -= n;
    c[n++] = t->standard;
    at_finalist f[AT_MOST_FINALISTS] = {0};
    if (measure_final(u, t, n, c, f, AT_FINAL_ROUNDS, 0) > 0) {
      for (int j = 0; j < n - 1; j++) at_task_time_again(c[j], c[j]->c.samples, c[j]->c.n, t->standard->c.samples, t->standard->c.n, t->scale_ns);
      record(u, t, n, c, 2, AT_AGAIN);
    }
    drop_code(u, t, AT_FINALISTS);
    tell(u, i, "again", true);
  }
  for (int k = 0; k < t->n; k++) t->configs[k]->seen = false;
  at_task_rank(t);
}

/* Before the final that ends a search: fifteen samples on a busy machine leave out some that are good, so that all within
 * what times scatter by have another race, and the final is among those who are still in front. */
static void qualify(tuner *u, int i) {
  enum { FASTEST = 32 };
  static const double CLOSE = 0.03, DOUBT = 2;
  at_task *t = &u->t[i];
  const at_candidate *base = &t->standard->c;
  if (!t->best || base->n < 5 || isnan(t->best->plain_ns)) return;
  double scatter = at_median(base->samples, base->n) / at_low(base->samples, base->n) - 1;
  double takes = final_s(u, t, FASTEST, 0, NULL) + FASTEST * t->compile_s;
  if (left(u) > takes + final_s(u, t, AT_FINALISTS, 0, NULL) + SECONDS) sharpen(u, i, FASTEST, t->best->plain_ns * (1 + CLOSE + DOUBT * scatter));
}

/* ---- the run ---- */

/* Multiplications a nanosecond in the products and convolutions of a form of the model, by their default schedules. */
static double speed(const tuner *u, int aside) {
  double flops = 0, ns = 0;
  for (int i = 0; i < u->n; i++) {
    const at_task *t = &u->t[i];
    bool products = strcmp(t->state.klass, "conv") == 0 || strcmp(t->state.klass, "gemm") == 0;
    if (t->aside != aside || t->same_as >= 0 || !products || isnan(t->state.default_ns)) continue;
    flops += t->weight * t->state.flops;
    ns += t->weight * t->state.default_ns;
  }
  return ns > 0 ? flops / ns : 0;
}

/* What another round promises, per second of it. Kernels of another layout are worth less, and hardly anything where the
 * layout is far slower as a whole. */
static double worth(const tuner *u, const at_task *t) {
  double peak = u->machine.fma_gflops, left = peak > 0 ? 1 - t->state.flops / t->best->ns / peak : 0.5, part = 1;
  if (t->aside) {
    double usual = speed(u, 0), here = speed(u, t->aside);
    part = 0.25 * (usual > 0 && here > 0 ? fmin(1, pow(here / usual, 4)) : 1);
  }
  return fmax(t->expected, 0.002) * t->weight * t->best->ns * part * fmin(1, fmax(left, 0.05)) / fmax(t->round_s, 0.02);
}

/* The task where a second is worth most, of those that there is time for; in a survey first those that had no round yet, short ones before long ones;
 * -1: none. */
static int choose(const tuner *u) {
  int best = -1;
  bool survey = u->o.survey && (u->end <= 0 || rt_now() < u->start + (u->end - u->start) * 2 / 3), unseen = false;
  double most = -INFINITY, finals = reserve(u, -1, 0);
  for (int i = 0; i < u->n; i++) {
    const at_task *t = &u->t[i];
    if (t->same_as >= 0 || t->state.trouble || t->state.converged || !t->best) continue;
    if (!round_size(u, t, finals) && !at_task_exhausted(t, u->o.trials)) continue;
    bool first = survey && t->state.tried <= 1;
    double value = first ? -t->best->ns : worth(u, t);
    if (first > unseen || (first == unseen && value > most)) most = value, best = i, unseen = first;
  }
  return best;
}

/* Whether nothing was tried since a final that ended a search, or by this run where earlier ones had a final: another could only let chance decide. */
static bool judged(const at_task *t) {
  int64_t last = t->n ? t->configs[t->n - 1]->order : 0;
  return t->settled_at > last || t->judged_at > last;
}

/* The search for this kernel ends: its final, unless an earlier run had it. */
static void settle(tuner *u, int i) {
  at_task *t = &u->t[i];
  for (int fastest = 32; t->explore && fastest >= 8; fastest /= 2) sharpen(u, i, fastest, INFINITY); /* a table is judged by its fastest */
  bool done = at_task_exhausted(t, 0), known = judged(t);
  if (!known && done && !t->explore) qualify(u, i);
  if (!known) final(u, i, done);
  drop_code(u, t, 0);
  t->state.converged = true;
  at_task_done(u->ctx, t);
  update(t);
}

static void set_up(tuner *u, const at_tune_kernel *kernels) {
  tn_ctx *ctx = u->ctx;
  for (int i = 0; i < u->n; i++) {
    at_task *t = &u->t[i];
    t->kernel = t->subject.kernel = kernels[i].kernel;
    t->key = at_key_of(ctx, t->kernel, u->o.target, u->o.threads);
    t->state = (at_tune_state){.name = kernels[i].name, .klass = at_class(ctx, t->kernel), .count = kernels[i].count, .default_ns = NAN, .best_ns = NAN};
    t->state.flops = lw_problem_of(ctx, t->kernel).flops;
    t->same_as = -1;
    for (int k = 0; k < i && t->same_as < 0; k++)
      if (u->t[k].same_as < 0 && strcmp(u->t[k].key.kernel, t->key.kernel) == 0) t->same_as = k;
    t->aside = kernels[i].aside;
    if (t->same_as < 0) t->weight = kernels[i].count;
    else if (!t->aside) u->t[t->same_as].weight += kernels[i].count; /* alternatives come last */
  }
}

static void run_all(tuner *u) {
  /* the defaults, those that weigh most first */
  int *order = IR_NEW_ARRAY(u->ctx, int, u->n + 1), k = 0;
  for (int i = 0; i < u->n && !over(u); i++) {
    at_task *t = &u->t[i];
    if (t->same_as >= 0) continue;
    at_task_prepare(u->ctx, t, &u->o, &u->machine);
    update(t);
    double mine = t->weight * t->state.predicted_ns;
    int at = k++;
    for (; at > 0 && u->t[order[at - 1]].weight * u->t[order[at - 1]].state.predicted_ns < mine; at--) order[at] = order[at - 1];
    order[at] = i;
  }
  for (int j = 0; j < k && !over(u); j++) {
    at_task *t = &u->t[order[j]];
    if (t->state.trouble) continue;
    const at_config *d = t->standard;
    if (isnan(d->ns) && (d->status == AT_OK || by_chance(d->status))) time_default(u, order[j]);
    if (isnan(d->ns) && d->status != AT_OK)
      t->state.trouble = ir_format(u->ctx, "the default schedule: %s: %s", at_status_name(d->status), d->c.reason ? d->c.reason : "in an earlier run");
    tell(u, order[j], "default", false);
  }
  for (;;) {
    int i = over(u) ? -1 : choose(u);
    if (i < 0) break;
    int fresh = round_size(u, &u->t[i], reserve(u, -1, 0));
    at_lab_deadline(u->lab, u->end > 0 ? u->end - reserve(u, i, fresh) : 0);
    if (at_lab_over(u->lab)) break;
    if (!at_task_exhausted(&u->t[i], u->o.trials)) {
      finish_space(u, &u->t[i]);
      if (!at_task_exhausted(&u->t[i], u->o.trials) && !search_round(u, i, fresh) && !at_lab_over(u->lab)) {
        at_lab_deadline(u->lab, u->end); /* what was gained so far is made sure of */
        final(u, i, false);
      }
    }
    if (!at_lab_over(u->lab) && at_task_exhausted(&u->t[i], u->o.trials)) {
      at_lab_deadline(u->lab, u->end);
      settle(u, i);
    }
  }
  at_lab_deadline(u->lab, u->end);
  for (int i = 0; i < u->n && !over(u); i++)
    if (u->t[i].space && !u->t[i].state.trouble && u->t[i].same_as < 0 && !judged(&u->t[i])) final(u, i, false);
}

static void tell_points(tuner *u, int i) {
  at_task *t = &u->t[i];
  if (!t->space || t->state.trouble || t->same_as >= 0) return;
  at_task_widen(u->ctx, t, &u->o);
  while (at_task_work(u->ctx, t, &u->o, &u->machine)) {}
  for (int j = 0; j < t->n; j++) {
    const at_config *c = t->configs[j];
    bool bad = c->status != AT_OK && c->status != AT_NOISY;
    if (c->point < 0 || t->space->points[c->point].source != AT_OWN || (!bad && isnan(c->plain_ns))) continue;
    u->o.each(u->o.each_user, i, at_tunables_print(u->ctx, &t->space->points[c->point].got), c->schedule, c->status, bad ? NAN : c->plain_ns);
  }
}

const at_tune_result *at_tune(tn_ctx *ctx, int n, const at_tune_kernel *kernels, const at_tune_options *o) {
  tuner *u = IR_NEW(ctx, tuner);
  *u = (tuner){.ctx = ctx, .o = *o, .n = n, .current = -1, .t = IR_NEW_ARRAY(ctx, at_task, n + 1), .start = rt_now()};
  if (o->budget_s > 0) u->end = u->start + o->budget_s;
  at_lab_options lo = {.target = o->target, .jobs = o->jobs, .threads = o->threads, .seed = o->seed, .limits = o->limits, .stop = o->stop, .misbehave = o->misbehave};
  u->lab = at_lab_new(ctx, &lo);
  at_lab_deadline(u->lab, u->end);
  at_lab_meanwhile(u->lab, work_meanwhile, u);
  at_lab_probe(u->lab);
  if (o->open) u->o.store = o->open(o->open_user);
  set_up(u, kernels);
  at_run_info info = {.seed = o->seed, .budget_s = o->budget_s, .budget_trials = o->trials, .label = o->label};
  at_env_read(ctx, &info.env);
  u->machine = at_lab_machine(u->lab);
  info.env.target = cg_target_fingerprint(ctx, o->target);
  info.env.library = ir_format(ctx, "tenon %s", at_codegen(ctx));
  info.env.probes = ir_format(ctx, "ghz=%.2f fma_gflops=%.1f", u->machine.ghz, u->machine.fma_gflops);
  if (u->o.store) u->run = at_run_begin(u->o.store, &info);
  run_all(u);
  at_lab_stop(u->lab); /* processes and disks take milliseconds each */
  int last = take_rows(u);
  if (u->o.store) at_run_end(u->o.store, u->run, u->rows, last);
  for (int i = 0; i < n && o->each; i++) tell_points(u, i);
  at_tune_result *r = IR_NEW(ctx, at_tune_result);
  at_tune_state *states = IR_NEW_ARRAY(ctx, at_tune_state, n + 1);
  for (int i = 0; i < n; i++) {
    at_task *t = &u->t[i];
    if (t->same_as >= 0) {
      double count = t->state.count;
      t->state = u->t[t->same_as].state;
      t->state.count = count;
      t->state.trials = 0;
    } else if (t->space) update(t);
    states[i] = t->state;
  }
  *r = (at_tune_result){.n = n, .state = states, .trials = u->trials, .failed = u->failed, .restarts = at_lab_restarts(u->lab)};
  totals(u, &r->before_ns, &r->after_ns);
  r->peak_gflops = u->machine.fma_gflops;
  r->ghz = u->machine.ghz;
  r->l3_bytes = u->machine.l3_bytes;
  r->stopped = o->stop && *o->stop;
  r->spent = at_lab_spent(u->lab);
  at_lab_free(u->lab);
  r->seconds = rt_now() - u->start;
  return r;
}
