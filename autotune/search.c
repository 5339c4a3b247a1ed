/* search.c — what to try next.
 *
 * The analytical model orders the space. What it gets wrong is learned as it shows: a Gaussian
 * process over the logarithm of measured over predicted (learn.h) corrects the prediction of what was
 * not tried. Most proposals are the best by that; some are neighbours
 * of the fastest, some are random. */
#include "autotune/search.h"
#include "autotune/learn.h"
#include "autotune/stats.h"
#include "lower/schedule.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

at_config *at_task_find(const at_task *t, const char *schedule) {
  uint64_t hash = at_schedule_hash(schedule);
  for (int i = 0; i < t->n; i++)
    if (t->configs[i]->hash == hash && strcmp(t->configs[i]->schedule, schedule) == 0) return t->configs[i];
  return NULL;
}

static at_config *add(tn_ctx *ctx, at_task *t, const char *schedule, int point, const char *origin) {
  at_config *c = IR_NEW(ctx, at_config);
  c->schedule = schedule;
  c->hash = at_schedule_hash(schedule);
  c->point = point;
  c->origin = origin;
  c->ns = c->plain_ns = NAN;
  c->order = ++t->clock;
  c->c.schedule = schedule;
  IR_PUSH(ctx, t->configs, t->n, c);
  return c;
}

at_config *at_task_add(tn_ctx *ctx, at_task *t, int point, const char *origin) {
  return add(ctx, t, t->space->points[point].schedule, point, origin);
}

/* ---- what the store knows ---- */

typedef struct past {
  const char *schedule, *reason;
  at_status status;
  int stage, n;
  bool settled, again, standard; /* standard: the default of its day, timed alone */
  double cost;   /* as it lies in the store */
  const double *samples;
  int64_t time, seq;
} past;

typedef struct history {
  tn_ctx *ctx;
  const ir_kernel *kernel;
  past *rows;
  int n;
} history;

typedef struct naming {
  const ir_kernel *k;
  const char *text;
} naming;

static void name_loops(tn_ctx *ctx, void *arg) {
  naming *j = arg;
  j->text = lw_schedule_named(ctx, j->k, j->text);
}

/* A stored schedule in the names of this kernel; what is no schedule stays as it is. */
static const char *named(tn_ctx *ctx, const ir_kernel *k, const char *text) {
  naming j = {k, ir_strdup(ctx, text)};
  ir_protect(ctx, name_loops, &j);
  return j.text;
}

static bool remember(void *user, const at_record *r) {
  history *h = user;
  past p = {named(h->ctx, h->kernel, r->schedule), r->reason ? ir_strdup(h->ctx, r->reason) : NULL, r->status, r->stage, r->n, strcmp(r->origin, AT_SETTLED) == 0, strcmp(r->origin, AT_AGAIN) == 0, strcmp(r->origin, AT_DEFAULT) == 0, r->cost_ns, ir_grow(h->ctx, r->samples, (size_t)r->n, (size_t)r->n + 1, sizeof *r->samples), r->time_us, r->seq};
  IR_PUSH(h->ctx, h->rows, h->n, p);
  return true;
}

static int by_time(const void *a, const void *b) {
  const past *p = a, *q = b;
  if (p->time != q->time) return p->time < q->time ? -1 : 1;
  if (p->seq != q->seq) return p->seq < q->seq ? -1 : 1;
  return strcmp(p->schedule, q->schedule);
}

static bool is_bad(at_status s) { return s != AT_OK && s != AT_NOISY; }

void at_task_time(at_config *c, const double *samples, int n, const double *base, int nbase, double scale) {
  if (base && n > nbase) n = nbase;
  if (n < 1) return;
  double ns = at_low(samples, n) * (base ? scale / at_low(base, n) : 1);
  c->plain_ns = ns;
  c->samples = n;
  c->ns = ns * at_dearer(n) * 1.01;
}

void at_task_time_again(at_config *c, const double *samples, int n, const double *base, int nbase, double scale) {
  double plain = c->plain_ns, ns = c->ns;
  int k = c->again++;
  at_task_time(c, samples, n, base, nbase, scale);
  if (!k) return;
  c->plain_ns = (plain * k + c->plain_ns) / (k + 1);
  c->ns = (ns * k + c->ns) / (k + 1);
}

static void recall(tn_ctx *ctx, at_task *t, at_store *store) {
  history h = {.ctx = ctx, .kernel = t->kernel};
  at_filter f = {.kernel = t->key.kernel, .target = t->key.target, .policy = t->key.policy, .codegen = t->key.codegen};
  at_store_each_trial(store, &f, remember, &h);
  if (h.n) qsort(h.rows, (size_t)h.n, sizeof *h.rows, by_time);
  const past *old = NULL; /* a default that the rules have left since */
  for (int from = 0, to; from < h.n; from = to) { /* batch by batch: its default says how fast the machine was */
    const past *base = NULL, *of_old = NULL;
    bool final = false;
    at_config *cheapest = NULL;
    double least = 1e300;
    for (to = from; to < h.n && h.rows[to].time == h.rows[from].time; to++) {
      const past *p = &h.rows[to];
      bool standard = t->space->standard && strcmp(p->schedule, t->space->standard) == 0 && p->status == AT_OK && p->n;
      if (standard && isnan(t->scale_ns)) t->scale_ns = p->cost;
      if (standard) base = p;
      else if (p->standard && p->status == AT_OK && p->n) old = p;
      if (old && p->status == AT_OK && p->n && strcmp(p->schedule, old->schedule) == 0) of_old = p;
      final |= p->stage == AT_STAGE_FINAL;
    }
    double scale = base ? t->scale_ns : of_old ? old->cost : 1;
    if (!base) base = of_old;
    for (int i = from; i < to; i++) {
      const past *p = &h.rows[i];
      at_config *c = at_task_find(t, p->schedule);
      bool first = !c, standard = t->space->standard && strcmp(p->schedule, t->space->standard) == 0;
      if (first) c = add(ctx, t, p->schedule, at_space_find(t->space, p->schedule), "store");
      if (standard) t->standard = c;
      if (p->status != AT_OK) c->status = p->status, c->c.reason = p->reason;
      if (p->status == AT_OK && p->n) (p->again || c->again ? at_task_time_again : at_task_time)(c, p->samples, p->n, base ? base->samples : NULL, base ? base->n : 0, scale);
      if (p->status == AT_OK && p->n && p->stage == AT_STAGE_FINAL) c->ns = p->cost, c->again = AT_FINAL_WEIGHT, at_task_found(c, p->n, p->cost);
      if (p->status == AT_OK && p->n && standard) c->ns = c->plain_ns = t->scale_ns;
      if (p->stage == AT_STAGE_FINAL && p->cost < least) least = p->cost, cheapest = c;
      if (first) at_task_learn(t, c);
      if (p->settled) t->settled_at = ++t->clock;
    }
    if (final) {
      for (int i = 0; i < t->n; i++) t->configs[i]->won = t->configs[i] == cheapest;
      t->final_at = ++t->clock;
    }
    at_task_rank(t);
  }
  if (t->final_at) t->judged_at = ++t->clock;
}

void at_task_prepare(tn_ctx *ctx, at_task *t, const at_tune_options *o, const at_machine *m) {
  t->space = at_space_new(ctx, t->kernel, o->target, m, o->accuracy, o->threads, 0);
  t->scale_ns = NAN;
  t->expected = 0.15;
  t->round_s = 0.5;
  t->rng = o->seed * 0x2545f4914f6cdd1du + ir_hash_bytes(t->key.kernel, strlen(t->key.kernel), 7);
  if (!t->space->n) {
    t->state.trouble = "no schedule is legal";
    return;
  }
  recall(ctx, t, o->store);
  int at = at_space_find(t->space, t->space->standard);
  t->state.predicted_ns = t->space->points[at].predicted_ns;
  if (!t->standard) t->standard = add(ctx, t, t->space->standard, at, AT_DEFAULT);
}

/* Winners of other kernels of the class: what is good for one shape often is for the next. */
typedef struct others {
  tn_ctx *ctx;
  at_task *t;
} others;

static void remember_elsewhere(tn_ctx *ctx, at_task *t, const char *schedule, at_source source) {
  struct at_elsewhere x = {ir_strdup(ctx, schedule), source};
  IR_PUSH(ctx, t->elsewhere, t->nelsewhere, x);
}

static bool take_winner(void *user, const at_key *key, const char *klass, const char *name, const at_winner *w) {
  enum { MOST = 48 };
  others *o = user;
  (void)klass, (void)name;
  if (strcmp(key->kernel, o->t->key.kernel) == 0 || !*w->schedule) return true;
  for (int i = 0; i < o->t->nelsewhere; i++)
    if (strcmp(o->t->elsewhere[i].schedule, w->schedule) == 0) return true;
  remember_elsewhere(o->ctx, o->t, w->schedule, AT_NEARBY);
  return o->t->nelsewhere < MOST;
}

static void look_elsewhere(tn_ctx *ctx, at_task *t, const at_tune_options *o) {
  at_winner w;
  others x = {.ctx = ctx, .t = t};
  at_filter f = {.klass = t->state.klass, .target = t->key.target, .policy = t->key.policy, .codegen = t->key.codegen};
  at_store_each_winner(o->store, &f, take_winner, &x);
  if (at_store_best(o->store, &t->key, &w) && (w.stale || w.pinned)) remember_elsewhere(ctx, t, w.schedule, AT_STALE);
  at_key one = t->key;
  one.policy = at_policy(ctx, 1);
  if (o->threads > 1 && at_store_best(o->store, &one, &w) && *w.schedule) remember_elsewhere(ctx, t, w.schedule, AT_NEARBY);
}

void at_task_widen(tn_ctx *ctx, at_task *t, const at_tune_options *o) {
  if (t->wide) return;
  t->wide = true;
  t->explore = o->explore > 0;
  int want = AT_SPACE_FIRST + AT_SPACE_MORE * (t->n / AT_BATCH); /* as far as an earlier run had come */
  at_space_start(t->space, want < AT_SPACE_POINTS ? want : AT_SPACE_POINTS);
  if (t->explore) at_space_fill(t->space, o->explore, 4000);
  look_elsewhere(ctx, t, o);
}

void at_task_grow_near(at_task *t, const at_config *c) {
  if (!t->explore && c && c->point >= 0) at_space_near(t->space, c->point);
}

void at_task_grow(at_task *t) {
  if (!t->explore && t->n > 1 && t->space->n < AT_SPACE_POINTS) at_space_fill(t->space, t->space->n + AT_SPACE_MORE, 40);
}

/* What was tried before, in an earlier run perhaps, may be the point that has come. */
static void find_point(at_task *t, int point) {
  const at_point *p = &t->space->points[point];
  for (int i = 0; i < t->n; i++)
    if (t->configs[i]->point < 0 && t->configs[i]->hash == p->hash && strcmp(t->configs[i]->schedule, p->schedule) == 0) t->configs[i]->point = point;
}

bool at_task_work(tn_ctx *ctx, at_task *t, const at_tune_options *o, const at_machine *m) {
  int before = t->space->n;
  bool more = t->nelsewhere > 0;
  if (more) {
    const struct at_elsewhere *x = &t->elsewhere[--t->nelsewhere];
    at_space_add(ctx, t->space, t->kernel, o->target, m, x->schedule, x->source);
  } else more = at_space_work(ctx, t->space, t->kernel, o->target, m);
  t->state.space = t->space->n;
  if (t->space->n > before) find_point(t, before);
  return more;
}

/* ---- proposals ---- */

/* What a failure counts as, in logarithms of time over prediction; deviations below what is expected that count. */
static const double FAILURE = 0.7, HOPE = 0.7;

static void free_learned(void *arg) {
  at_task *t = arg;
  at_learned_free(t->learned);
  t->learned = NULL;
}

/* What the trials so far say of every point. Null: there is no memory for it. */
static at_learned *learn(tn_ctx *ctx, at_task *t) {
  int *point = IR_NEW_ARRAY(ctx, int, t->n + 1), n = 0;
  double *error = IR_NEW_ARRAY(ctx, double, t->n + 1);
  for (int i = 0; i < t->n; i++) {
    const at_config *c = t->configs[i];
    const at_point *p = c->point >= 0 ? &t->space->points[c->point] : NULL;
    if (!p || p->source != AT_OWN || p->predicted_ns <= 0 || (!is_bad(c->status) && isnan(c->ns))) continue;
    point[n] = c->point;
    error[n++] = t->n == 1 ? 0 : /* how good the model is for one point says nothing of others: the first batch is the same at any time */ is_bad(c->status) ? FAILURE : log(c->ns / p->predicted_ns);
  }
  if (!t->learned) ir_defer(ctx, free_learned, t);
  if (at_learn(&t->learned, t->space, n, point, error)) return t->learned;
  ir_undefer(ctx, free_learned, t);
  free_learned(t);
  return NULL;
}

void at_task_done(tn_ctx *ctx, at_task *t) {
  if (!t->learned) return;
  ir_undefer(ctx, free_learned, t);
  free_learned(t);
}

/* The untried point with the least time within what is possible: the more in doubt, the less; that time into *ns. */
static int most_promising(const at_task *t, const at_learned *l, const bool *tried, double *ns) {
  int best = -1;
  double least = INFINITY;
  for (int i = 0; i < t->space->n; i++) {
    const at_point *p = &t->space->points[i];
    double doubt = 0, error = l ? at_learned_error(l, i, &doubt) : 0;
    if (tried[i] || p->source != AT_OWN) continue;
    double value = log(p->predicted_ns > 0 ? p->predicted_ns : 1) + error - HOPE * doubt;
    if (value < least) least = value, best = i;
  }
  *ns = exp(least);
  return best;
}

static int any_untried(const at_task *t, uint64_t *random, const bool *tried) {
  for (int tries = 0; tries < 64; tries++) {
    int i = (int)(at_random(random) % (uint64_t)t->space->n);
    if (!tried[i]) return i;
  }
  return -1;
}

/* All are to be tried: in any order. */
static int propose_randomly(tn_ctx *ctx, at_task *t, int most, at_config **out) {
  const at_space *s = t->space;
  int *left = IR_NEW_ARRAY(ctx, int, s->n + 1), k = 0, n = 0;
  bool *tried = IR_NEW_ARRAY(ctx, bool, s->n + 1);
  for (int i = 0; i < t->n; i++)
    if (t->configs[i]->point >= 0) tried[t->configs[i]->point] = true;
  for (int i = 0; i < s->n; i++)
    if (!tried[i]) left[k++] = i;
  while (n < most && k > 0) {
    int at = (int)(at_random(&t->rng) % (uint64_t)k);
    out[n++] = at_task_add(ctx, t, left[at], "random");
    left[at] = left[--k];
  }
  return n;
}

int at_task_propose(tn_ctx *ctx, at_task *t, int most, at_config **out) {
  if (t->explore) return propose_randomly(ctx, t, most, out);
  enum { ELSEWHERE = 2 }; /* in a batch: what was good for other kernels */
  const at_space *s = t->space;
  bool *tried = IR_NEW_ARRAY(ctx, bool, s->n + 1);
  int n = 0;
  for (int i = 0; i < t->n; i++)
    if (t->configs[i]->point >= 0) tried[t->configs[i]->point] = true;
  for (int i = s->n, nearby = 0; i-- > 0 && n < most;) {
    at_source from = s->points[i].source;
    if (from == AT_OWN || tried[i] || (from == AT_NEARBY && nearby++ >= ELSEWHERE)) continue;
    tried[i] = true;
    out[n++] = at_task_add(ctx, t, i, from == AT_STALE ? "stale" : "nearby");
  }
  at_learned *l = learn(ctx, t);
  t->promise_ns = INFINITY;
  while (n < most) {
    double ns = INFINITY;
    bool random = t->n > 2 * AT_BATCH && at_random(&t->rng) % 16 == 0;
    int pick = random ? any_untried(t, &t->rng, tried) : -1;
    if (pick < 0) random = false, pick = most_promising(t, l, tried, &ns);
    if (pick < 0) break;
    t->promise_ns = fmin(t->promise_ns, ns);
    tried[pick] = true;
    if (l) at_learned_assume(l, pick);
    out[n++] = at_task_add(ctx, t, pick, random ? "random" : "model");
  }
  return n;
}

void at_task_learn(at_task *t, const at_config *c) {
  if (c == t->standard) return;
  double least = t->gained_ns > 0 ? t->gained_ns : t->best ? t->best->ns : INFINITY;
  bool gain = c->status == AT_OK && !isnan(c->ns) && c->ns < least * (1 - AT_GAIN);
  if (gain) t->gained_ns = c->ns;
  t->idle = gain ? 0 : t->idle + 1;
}

void at_task_rank(at_task *t) {
  t->best = NULL;
  for (int i = 0; i < t->n; i++) {
    at_config *c = t->configs[i];
    if (c->status == AT_OK && !isnan(c->ns) && (!t->best || c->ns < t->best->ns)) t->best = c;
  }
}

static int points_left(const at_task *t) {
  int left = t->space->n;
  for (int i = 0; i < t->n; i++) left -= t->configs[i]->point >= 0;
  return left;
}

bool at_task_exhausted(const at_task *t, int64_t trials) {
  if (t->wide && points_left(t) <= 0 && !t->nelsewhere && !at_space_wants(t->space)) return true;
  if (t->explore && trials <= 0) return false;
  if (trials > 0) return t->n >= trials;
  bool vain = t->idle >= AT_PATIENCE && (!t->best || t->promise_ns > t->best->ns * (1 - AT_GAIN));
  return vain || t->idle >= AT_PATIENCE * 2 || (t->n && t->settled_at > t->configs[t->n - 1]->order);
}

at_config *at_task_winner(const at_task *t) {
  for (int i = 0; i < t->n; i++)
    if (t->configs[i]->won && t->configs[i]->status == AT_OK) return t->configs[i];
  return t->standard;
}

static bool is_timed(const at_config *c) { return c->status == AT_OK && !isnan(c->ns); }

/* Into its place among the `most` fastest; returns their number. */
static int put_among(at_config *c, int most, int n, at_config **out) {
  int at = n < most ? n++ : most;
  for (; at > 0 && out[at - 1]->ns > c->ns; at--)
    if (at < most) out[at] = out[at - 1];
  if (at < most) out[at] = c;
  return n;
}

int at_task_fastest(const at_task *t, int most, at_config **out) {
  int n = 0;
  for (int i = 0; i < t->n; i++)
    if (t->configs[i] != t->standard && is_timed(t->configs[i])) n = put_among(t->configs[i], most, n, out);
  return n;
}

int at_task_finalists(const at_task *t, bool wide, at_config **out) {
  int n = 0;
  at_config *now = at_task_winner(t);
  if (!t->standard || isnan(t->standard->ns) || isnan(now->ns)) return 0;
  if (!t->best) return 0;
  bool doubtful = now != t->standard && now->ns > t->standard->ns; /* it won, and does not look like it any more */
  if (!wide && !doubtful && (t->best == now || t->best->ns > now->ns * (1 - AT_GAIN))) return 0;
  if (!wide && !doubtful && t->best->order < t->final_at && t->final_at > 0) return 0; /* it had its chance */
  int most = (wide ? AT_FINALISTS : 3) - (now != t->standard);
  double below = now->ns * (wide ? 1 + AT_GAIN : 1 - AT_GAIN);
  for (int i = 0; i < t->n; i++) {
    at_config *c = t->configs[i];
    if (c != t->standard && c != now && is_timed(c) && c->ns <= below) n = put_among(c, most, n, out);
  }
  if (now != t->standard) out[n++] = now;
  return n;
}

void at_task_found(at_config *c, int n, double ns) {
  if (n >= c->founded) c->founded = n, c->founded_ns = ns;
}

int at_task_overrated(const at_task *t, const at_config *winner, at_config **out) {
  int n = 0;
  for (int i = 0; i < t->n && n < AT_FINALISTS - 1; i++) {
    at_config *c = t->configs[i];
    if (c != winner && c != t->standard && c->status == AT_OK && c->founded && c->founded_ns < winner->founded_ns) out[n++] = c;
  }
  return n;
}
