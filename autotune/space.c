/* space.c — see space.h. */
#include "autotune/space.h"
#include "lower/problem.h"
#include "lower/schedule.h"
#include "runtime/profile.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

uint64_t at_random(uint64_t *state) {
  uint64_t z = *state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

/* The text of a point and its prediction, made in a context of its own: schedules leave much
 * behind. Null text when the tunables give nothing legal. */
typedef struct making {
  const ir_kernel *k;
  const cg_target *t;
  const at_machine *m;
  const lw_tunables *u;
  const char *given; /* a text instead of tunables; null: none */
  char *text; /* malloc */
  double predicted;
} making;

static void make(tn_ctx *ctx, void *arg) {
  making *j = arg;
  const char *text = j->given ? lw_schedule_named(ctx, j->k, j->given) : lw_schedule_canonical(ctx, lw_schedule_with(ctx, j->k, j->t, j->u)), *why;
  const ir_kernel *k = lw_schedule_apply(ctx, j->k, text, &why);
  if (!k || (j->given && ir_kernel_verify(ctx, k))) return;
  j->predicted = at_predict(ctx, k, j->t, j->m).total;
  j->text = strdup(text);
}

typedef struct maker {
  tn_ctx *ctx;
  tn_ctx *quiet; /* where kernels are parsed and scheduled: what a default leaves out is no news here */
  at_space *s;
  making j;
  double until;
} maker;

/* The point's index; -1 when it is not legal, or time is up. */
static int add(maker *m, const lw_tunables *u, at_source source) {
  at_space *s = m->s;
  if (s->n && m->until > 0 && rt_now() > m->until) return -1;
  s->made++;
  tn_ctx *child = ir_ctx_child(m->quiet);
  if (!child) ir_fail(m->ctx, TN_ERESOURCE, "out of memory");
  m->j.u = u;
  m->j.text = NULL;
  tn_status status = ir_protect(child, make, &m->j);
  tn_ctx_free(child);
  if (status || !m->j.text) return -1;
  int at = at_space_find(s, m->j.text);
  if (at >= 0) s->doubles++;
  else {
    at = s->n;
    at_point p = {*u, source, ir_strdup(m->ctx, m->j.text), m->j.predicted, false};
    IR_PUSH(m->ctx, s->points, s->n, p);
  }
  free(m->j.text);
  return at;
}

/* ---- tunables ---- */

/* What a point may vary: values in order of size, 0 first, which leaves the choice to the default's rules. */
typedef struct knob {
  const char *name;
  size_t at;       /* in lw_tunables */
  double weight;   /* of a step, in distances */
  bool contraction, others; /* where it matters */
  int n, values[10];
} knob;
#define KNOB(field, weight, contraction, others, ...) \
  {#field, offsetof(lw_tunables, field), weight, contraction, others, (int)(sizeof((int[]){__VA_ARGS__}) / sizeof(int)), {__VA_ARGS__}}
static const knob knobs[] = {
    KNOB(mr, 2, true, false, 0), /* limited by registers alone: see legal */
    KNOB(nr, 2, true, false, 0, 1, 2, 3, 4, 5, 6, 7, 8),
    KNOB(ku, 0.5, true, false, 0, 1, 2, 4, 8, 16),
    KNOB(order, 1, true, false, 0, 1, 2),
    KNOB(group, 0.5, true, false, 0, 1, 2, 4, 8, 16, 32),
    KNOB(rows, 0.5, true, false, 0, 1, 2),
    KNOB(taps, 1, true, false, 0, 1, 2),
    KNOB(winograd, 2, true, false, 0, 2, 4, 6),
    KNOB(lanes, 1, false, true, 0, 4, 8, 16, 32, 64),
    KNOB(unfused, 1, true, true, 0, 1),
};

static int *field(lw_tunables *u, const knob *k) { return (int *)((char *)u + k->at); }
static int value(const lw_tunables *u, const knob *k) { return *(const int *)((const char *)u + k->at); }

const char *at_tunables_print(tn_ctx *ctx, const lw_tunables *u) {
  ir_text t = {.ctx = ctx};
  for (int i = 0; i < IR_COUNT(knobs); i++)
    if (value(u, &knobs[i])) ir_put(&t, "%s%s=%d", t.n ? " " : "", knobs[i].name, value(u, &knobs[i]));
  return ir_text_str(&t);
}

bool at_tunables_parse(const char *text, lw_tunables *u) {
  *u = (lw_tunables){0};
  for (const char *p = text; *p; p += strspn(p, " ")) {
    size_t n = strcspn(p, "=");
    const knob *k = NULL;
    for (int i = 0; i < IR_COUNT(knobs); i++)
      if (strlen(knobs[i].name) == n && memcmp(knobs[i].name, p, n) == 0) k = &knobs[i];
    if (!k || !p[n]) return false;
    char *end;
    long v = strtol(p + n + 1, &end, 10);
    if (end == p + n + 1 || (*end && *end != ' ') || v < 1 || v > 1024) return false;
    *field(u, k) = (int)v;
    p = end;
  }
  return true;
}

/* Whether a point may be worth its compilation: the tile fits the registers. */
static bool fits(const maker *m, const lw_tunables *u) {
  if (u->winograd && m->s->accuracy <= 0) return false;
  if (u->mr < 0 || u->nr < 0 || u->mr >= m->j.t->vector_regs) return false;
  if (!u->mr || !u->nr) return true;
  if (u->mr > 1 && u->mr * u->nr < 4) return false; /* latency alone: never worth it */
  return u->mr * u->nr + u->nr + 1 <= m->j.t->vector_regs;
}

static void contractions(maker *m, const lw_problem *q) {
  int regs = m->j.t->vector_regs;
  static const int steps[] = {0, 1, 2, 4, 8, 16};
  int64_t widest = 1;
  for (int i = 0; i < q->nout; i++)
    if (q->extent[i] > widest) widest = q->extent[i];
  int lanes = cg_target_lanes(m->j.t, q->dtype);
  /* good shapes first, in case time runs out: near the square root of the registers */
  for (int ku = 0; ku < IR_COUNT(steps); ku++)
    for (int order = 1; order <= 2; order++)
      for (int nr = 1; nr <= 8; nr++) {
        if (nr > 1 && (int64_t)(nr - 1) * lanes >= widest) continue;
        for (int mr = 1; mr < regs; mr++) {
          lw_tunables u = {.mr = mr, .nr = nr, .ku = steps[ku], .order = order};
          if (!fits(m, &u)) {
            m->s->pruned++;
            continue;
          }
          add(m, &u, AT_OWN);
          if (ku || order == 1) continue;
          add(m, &(lw_tunables){.mr = mr, .nr = nr, .unfused = 1}, AT_OWN);
          if (q->nred > 1 && mr * nr >= 8) add(m, &(lw_tunables){.mr = mr, .nr = nr, .taps = 1}, AT_OWN);
          if (q->nred > 1 || q->guard || mr * nr < 8) continue;
          for (int rows = 1; rows <= 2; rows++) add(m, &(lw_tunables){.mr = mr, .nr = nr, .rows = rows}, AT_OWN);
          for (int group = 1; group <= 16; group *= 2) add(m, &(lw_tunables){.mr = mr, .nr = nr, .order = 2, .group = group}, AT_OWN);
        }
      }
}

/* Where it does not fit, these come out as doubles of the direct form. */
static void winograd(maker *m, double accuracy) {
  for (int w = 2; w <= 6 && accuracy > 0; w += 2)
    for (int nr = 0; nr <= 4; nr++)
      for (int mr = nr ? 2 : 0; mr * nr + nr + 1 <= m->j.t->vector_regs && mr <= (nr ? 16 : 0); mr++)
        add(m, &(lw_tunables){.winograd = w, .mr = mr, .nr = nr, .accuracy = accuracy}, AT_OWN);
}

static void others(maker *m) {
  static const int lanes[] = {0, 4, 8, 16, 32, 64};
  for (int unfused = 0; unfused < 2; unfused++)
    for (int i = 0; i < IR_COUNT(lanes); i++) add(m, &(lw_tunables){.lanes = lanes[i], .unfused = unfused}, AT_OWN);
}

/* The points one step from u: one tunable at its next smaller or larger value, or what the rules left open. */
static void steps_from(maker *m, lw_tunables u, bool contraction) {
  for (int i = 0; i < IR_COUNT(knobs); i++) {
    const knob *k = &knobs[i];
    if (!(contraction ? k->contraction : k->others)) continue;
    int now = value(&u, k), at = 0;
    while (at < k->n && k->values[at] != now) at++;
    for (int step = -1; step <= 1; step += 2) {
      lw_tunables v = u;
      if (k->n > 1 && at + step >= 0 && at + step < k->n) *field(&v, k) = k->values[at + step];
      else if (k->n == 1 && now && now + step > 0) *field(&v, k) = now + step;
      else continue;
      if (v.winograd) v.accuracy = m->s->accuracy;
      if (fits(m, &v)) add(m, &v, AT_OWN);
    }
    for (int j = 2; j < k->n && !now && k->n > 1 && k->n < 8; j++) {
      lw_tunables v = u;
      *field(&v, k) = k->values[j];
      if (v.winograd) v.accuracy = m->s->accuracy;
      if (fits(m, &v)) add(m, &v, AT_OWN);
    }
  }
}

static int by_prediction(const void *a, const void *b) {
  const at_point *p = a, *q = b;
  if (p->predicted_ns != q->predicted_ns) return p->predicted_ns < q->predicted_ns ? -1 : 1;
  return strcmp(p->schedule, q->schedule);
}

typedef struct parsing {
  const char *text;
  const ir_kernel *k;
} parsing;

static void parse(tn_ctx *ctx, void *arg) {
  parsing *p = arg;
  p->k = ir_kernel_parse(ctx, p->text, "kernel");
}

static void free_ctx(void *arg) { tn_ctx_free(arg); }

static void quiet_begin(maker *m, const ir_kernel *k) {
  m->quiet = tn_ctx_new(NULL);
  if (!m->quiet) ir_fail(m->ctx, TN_ERESOURCE, "out of memory");
  ir_defer(m->ctx, free_ctx, m->quiet);
  parsing p = {.text = ir_kernel_print(m->ctx, k)};
  if (ir_protect(m->quiet, parse, &p)) ir_bug(m->ctx, "a kernel does not read back: %s", ir_error(m->quiet));
  m->j.k = p.k;
}

static void quiet_end(maker *m) {
  ir_undefer(m->ctx, free_ctx, m->quiet);
  tn_ctx_free(m->quiet);
}

static bool is_contraction(tn_ctx *ctx, const ir_kernel *k) { return lw_problem_of(ctx, k).kind == LW_CONTRACTION; }

void at_space_near(tn_ctx *ctx, at_space *s, const ir_kernel *k, const cg_target *t, const at_machine *m, int point) {
  at_point *p = &s->points[point];
  if (p->source != AT_OWN || p->grown) return;
  p->grown = true;
  maker mk = {.ctx = ctx, .s = s, .j = {.t = t, .m = m}};
  quiet_begin(&mk, k);
  steps_from(&mk, p->u, is_contraction(ctx, k));
  quiet_end(&mk);
}

int *at_space_put(tn_ctx *ctx, at_space *s, const ir_kernel *k, const cg_target *t, const at_machine *m, int n, const lw_tunables *u) {
  maker mk = {.ctx = ctx, .s = s, .j = {.t = t, .m = m}};
  int *at = IR_NEW_ARRAY(ctx, int, n + 1);
  quiet_begin(&mk, k);
  for (int i = 0; i < n; i++) at[i] = add(&mk, &u[i], AT_OWN);
  quiet_end(&mk);
  return at;
}

void at_space_fill(tn_ctx *ctx, at_space *s, const ir_kernel *k, const cg_target *t, const at_machine *m, int want, uint64_t *random) {
  maker mk = {.ctx = ctx, .s = s, .j = {.t = t, .m = m}};
  bool contraction = is_contraction(ctx, k);
  enum { ENOUGH = 400 }; /* draws without anything new */
  quiet_begin(&mk, k);
  for (int vain = 0; s->n < want && vain < ENOUGH; vain++) {
    lw_tunables u = {0};
    for (int i = 0; i < IR_COUNT(knobs); i++) {
      if (!(contraction ? knobs[i].contraction : knobs[i].others)) continue;
      uint64_t dice = at_random(random);
      *field(&u, &knobs[i]) = knobs[i].n > 1 ? knobs[i].values[dice % (uint64_t)knobs[i].n] : (int)(dice % (uint64_t)t->vector_regs);
    }
    int before = s->n;
    if (u.winograd) u.accuracy = s->accuracy;
    if (!fits(&mk, &u)) continue;
    add(&mk, &u, AT_OWN);
    if (s->n > before) vain = 0;
  }
  quiet_end(&mk);
}

void at_space_add(tn_ctx *ctx, at_space *s, const ir_kernel *k, const cg_target *t, const at_machine *m, const char *schedule, at_source source) {
  maker mk = {.ctx = ctx, .s = s, .j = {.t = t, .m = m, .given = schedule}};
  quiet_begin(&mk, k);
  add(&mk, &(lw_tunables){0}, source);
  quiet_end(&mk);
}

at_space *at_space_new(tn_ctx *ctx, const ir_kernel *k, const cg_target *t, const at_machine *m, double accuracy, double seconds) {
  at_space *s = IR_NEW(ctx, at_space);
  s->accuracy = accuracy;
  maker mk = {.ctx = ctx, .s = s, .j = {.t = t, .m = m}, .until = seconds > 0 ? rt_now() + seconds : 0};
  quiet_begin(&mk, k);
  add(&mk, &(lw_tunables){.accuracy = accuracy}, AT_OWN);
  if (s->n && seconds < 0) s->standard = s->points[0].schedule;
  else if (s->n) {
    s->standard = s->points[0].schedule;
    lw_problem q = lw_problem_of(ctx, k);
    if (q.kind == LW_CONTRACTION) {
      winograd(&mk, accuracy);
      contractions(&mk, &q);
    }
    else others(&mk);
  }
  quiet_end(&mk);
  qsort(s->points, (size_t)s->n, sizeof *s->points, by_prediction);
  return s;
}

int at_space_find(const at_space *s, const char *schedule) {
  for (int i = 0; i < s->n; i++)
    if (strcmp(s->points[i].schedule, schedule) == 0) return i;
  return -1;
}

static double ratio(int a, int b) { return a == b ? 0 : !a || !b ? 0.5 : fabs(log2((double)a / b)); }

void at_point_features(const at_point *p, double out[AT_FEATURES]) {
  _Static_assert(IR_COUNT(knobs) + 2 == AT_FEATURES, "a feature for each tunable");
  for (int i = 0; i < IR_COUNT(knobs); i++) out[i] = value(&p->u, &knobs[i]);
  out[AT_FEATURES - 2] = p->u.mr * p->u.nr;
  out[AT_FEATURES - 1] = p->predicted_ns > 0 ? log(p->predicted_ns) : 0;
}

double at_space_distance(const at_point *a, const at_point *b) {
  if (a->source != AT_OWN || b->source != AT_OWN) return a == b ? 0 : 4; /* not comparable by tunables */
  double sum = 0;
  for (int i = 0; i < IR_COUNT(knobs); i++) sum += knobs[i].weight * ratio(value(&a->u, &knobs[i]), value(&b->u, &knobs[i]));
  return sum;
}
