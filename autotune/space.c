/* space.c — see space.h. */
#include "autotune/space.h"
#include "lower/problem.h"
#include "lower/schedule.h"
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
  const at_space *s; /* what is in it is not predicted again */
  const char *given; /* a text instead of tunables; null: none */
  bool named;        /* it is in the names of the kernel */
  lw_tunables got;
  char *text; /* malloc */
  double predicted;
} making;

/* The part of all tasks, those of the first phase, that the thread has which has most of them. */
static double share(const ir_kernel *k, int threads) {
  ir_kernel first = *k;
  while (first.body && (first.body->kind == IR_ALLOC || first.body->kind == IR_LET || (first.body->kind == IR_SEQ && first.body->n))) first.body = first.body->kind == IR_SEQ ? first.body->items[0] : first.body->body;
  int64_t tasks = lw_tasks_of(&first), n = threads > 1 ? threads : 1;
  return tasks > 0 ? (double)((tasks + n - 1) / n) / (double)tasks : 1;
}

static void make(tn_ctx *ctx, void *arg) {
  making *j = arg;
  const char *text, *why;
  const ir_kernel *k;
  if (j->given) {
    text = j->named ? j->given : lw_schedule_named(ctx, j->k, j->given);
    k = lw_schedule_apply(ctx, j->k, text, &why);
    if (!k || ir_kernel_verify(ctx, k)) return;
  } else text = lw_schedule_canonical(ctx, lw_schedule_with(ctx, j->k, j->t, j->u, &j->got, &k));
  if (at_space_find(j->s, text) < 0) j->predicted = at_predict(ctx, k, j->t, j->m).total * share(k, j->s->threads);
  j->text = strdup(text);
}

typedef struct maker {
  tn_ctx *ctx;
  tn_ctx *quiet; /* where kernels are parsed and scheduled: what a default leaves out is no news here */
  at_space *s;
  making j;
  lw_problem q;
} maker;

/* The point's index; -1 when it is not legal. */
static int add(maker *m, const lw_tunables *u, at_source source) {
  at_space *s = m->s;
  s->made++;
  tn_ctx *child = ir_ctx_child(m->quiet);
  if (!child) ir_fail(m->ctx, TN_ERESOURCE, "out of memory");
  lw_tunables rule = *u; /* what may be lost is known to all points; those of other algorithms name them */
  if (rule.accuracy <= 0 && ir_is_float(m->q.dtype)) {
    rule.accuracy = s->accuracy;
    if (!rule.winograd) rule.winograd = 1;
  }
  m->j.u = &rule;
  m->j.got = *u;
  m->j.text = NULL;
  tn_status status = ir_protect(child, make, &m->j);
  tn_ctx_free(child);
  if (status || !m->j.text) return -1;
  int at = at_space_find(s, m->j.text);
  if (at >= 0) s->doubles++;
  else {
    at = s->n;
    at_point p = {*u, m->j.got, source, ir_strdup(m->ctx, m->j.text), at_schedule_hash(m->j.text), m->j.predicted, 0};
    IR_PUSH(m->ctx, s->points, s->n, p);
  }
  free(m->j.text);
  return at;
}

/* ---- tunables ---- */

/* Kernels, and the algorithms for them, that a tunable means something to. */
enum { GEMM = 1, WINDOW = 2, WINOGRAD = 4, OTHERS = 8, ATTENTION = 16, SPLIT = 32, SHARED = 64, DIRECT = GEMM | WINDOW, CONTRACTION = DIRECT | WINOGRAD };

/* What a point may vary: values in order of size, 0 first, which leaves the choice to the default's rules. */
typedef struct knob {
  const char *name;
  size_t at;       /* in lw_tunables */
  double weight;   /* of a step, in distances */
  int where;
  int n, values[10];
} knob;
#define KNOB(field, weight, where, ...) \
  {#field, offsetof(lw_tunables, field), weight, where, (int)(sizeof((int[]){__VA_ARGS__}) / sizeof(int)), {__VA_ARGS__}}
static const knob knobs[AT_KNOBS] = {
    KNOB(mr, 2, CONTRACTION | ATTENTION, 0, 1, 2, 3, 4, 6, 8, 10, 12, 14),
    KNOB(nr, 2, CONTRACTION | ATTENTION, 0, 1, 2, 3, 4, 5, 6, 8),
    KNOB(ku, 0.5, CONTRACTION | ATTENTION, 0, 1, 2, 4, 8, 16),
    KNOB(order, 1, DIRECT, 0, 1, 2, 3),
    KNOB(kc, 0.5, DIRECT | ATTENTION, 0, 32, 64, 128, 192, 256, 384, 512, 768, 1024),
    KNOB(mb, 0.5, DIRECT | ATTENTION, 0, 2, 4, 8, 16, 32, 64),
    KNOB(group, 0.5, DIRECT, 0, 1, 2, 4, 8, 16, 32),
    KNOB(rows, 0.5, GEMM, 0, 1, 2),
    KNOB(ahead, 0.5, DIRECT, 0, 1, 2, 3, 5),
    KNOB(parts, 1, SPLIT, 0, 1, 2, 4, 8, 16),
    KNOB(axis, 1, SHARED, 0, 2, 3, 4),
    KNOB(taps, 1, WINDOW, 0, 1, 2),
    KNOB(inner, 1, WINDOW, 0, 1, 2),
    KNOB(height, 0.5, WINDOW, 0, 1, 2, 4, 7, 14, 28),
    KNOB(lanes, 1, OTHERS, 0, 4, 8, 16, 32, 64),
    KNOB(unfused, 1, DIRECT | OTHERS, 0, 1),
    KNOB(winograd, 4, WINOGRAD, 0, 2, 4, 6),
    KNOB(wtiles, 0.5, WINOGRAD, 0, 8, 12, 16, 24, 32, 48, 64, 96),
    KNOB(wparts, 0.5, WINOGRAD, 0, 1, 2, 4),
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
    if (end == p + n + 1 || (*end && *end != ' ') || v < 1 || v > 1 << 20) return false;
    *field(u, k) = (int)v;
    p = end;
  }
  return true;
}

/* What only some spaces vary: parts of a sum where the default has some, the axis where threads share it. */
static bool offered(const maker *m, const knob *k) { return k->where == SPLIT ? m->s->split : k->where == SHARED ? m->s->threads > 1 : true; }

/* Whether a point may be worth its compilation: the tile fits the registers. One thread's times would let no sum be cut. */
static bool fits(const maker *m, const lw_tunables *u) {
  if (u->parts == 1 && m->s->threads < 2) return false;
  if (u->winograd && m->s->accuracy <= 0) return false;
  if (u->mr < 0 || u->nr < 0 || u->mr >= m->j.t->vector_regs) return false;
  if (!u->mr || !u->nr) return true;
  if (u->mr > 1 && u->mr * u->nr < 4) return false; /* latency alone: never worth it */
  return lw_tile_fits(u->mr, u->nr, m->j.t->vector_regs, !u->winograd && (m->q.nred > 1 || m->q.guard));
}

static bool has_tiles(const lw_problem *q) { return q->kind == LW_CONTRACTION || q->attention; }

/* The kinds of points that a kernel has; in the order of what is tried first. */
static int kinds(const lw_problem *q, double accuracy, int out[2]) {
  int n = 0;
  bool window = q->nred > 1 || q->guard;
  out[n++] = q->attention ? ATTENTION : q->kind != LW_CONTRACTION ? OTHERS : window ? WINDOW : GEMM;
  if (window && q->nred == 3 && q->red_extent[1] == 3 && q->red_extent[2] == 3 && accuracy > 0) out[n++] = WINOGRAD;
  return n;
}

/* What a space starts from: every register tile, the rest by the rules; and every algorithm. False: there is no such one. */
static bool first_point(const maker *m, int i, lw_tunables *u) {
  enum { WIDTHS = 9 };
  static const int lanes[] = {0, 4, 8, 16, 32, 64};
  *u = (lw_tunables){0};
  if (!has_tiles(&m->q)) {
    u->lanes = lanes[i % IR_COUNT(lanes)], u->unfused = i / IR_COUNT(lanes);
    return i < 2 * IR_COUNT(lanes);
  }
  int kind[2], nkinds = kinds(&m->q, m->s->accuracy, kind), heights = m->j.t->vector_regs, each = heights * WIDTHS, algorithm = i / each;
  u->mr = i % heights, u->nr = i % each / heights, u->winograd = 2 * algorithm;
  if (u->winograd) u->accuracy = m->s->accuracy;
  return algorithm <= (nkinds > 1 ? 3 : 0);
}

/* A random one. Each tunable is left to the rules as often as not: what they choose is mostly good. */
static lw_tunables random_point(const maker *m, uint64_t *random) {
  lw_tunables u = {0};
  int kind[2], nkinds = kinds(&m->q, m->s->accuracy, kind), k = kind[at_random(random) % (uint64_t)nkinds];
  k |= SPLIT | SHARED;
  for (int i = 0; i < AT_KNOBS; i++) {
    if (!offered(m, &knobs[i])) continue;
    uint64_t dice = at_random(random);
    if (!(knobs[i].where & k) || dice & 1) continue;
    *field(&u, &knobs[i]) = knobs[i].values[(dice >> 8) % (uint64_t)knobs[i].n];
  }
  if (k & WINOGRAD && !u.winograd) u.winograd = 4;
  if (u.winograd) u.accuracy = m->s->accuracy;
  return u;
}

/* Where a value stands among a knob's; between two: the smaller one's. */
static int place(const knob *k, int v) {
  int at = 0;
  while (at + 1 < k->n && k->values[at + 1] <= v) at++;
  return at;
}

enum { STEPS = 2 * AT_KNOBS };

/* One step from p: a tunable at its next smaller or larger value than what it came to. False: no such step. */
static bool step_from(const maker *m, const at_point *p, int step, lw_tunables *u) {
  const knob *k = &knobs[step / 2];
  int now = value(&p->got, k), at = place(k, now), to = now;
  if (!(p->got.winograd ? k->where & WINOGRAD : k->where & ~WINOGRAD) || !offered(m, k)) return false;
  if (k == knobs) to = now + (step % 2 ? 1 : -1);
  else if (step % 2) to = at + 1 < k->n ? k->values[at + 1] : now;
  else to = k->values[at] < now ? k->values[at] : at > 0 ? k->values[at - 1] : now;
  *u = p->u;
  *field(u, k) = to;
  if (u->winograd) u->accuracy = m->s->accuracy;
  return to != now && fits(m, u);
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

static maker *maker_of(tn_ctx *ctx, at_space *s, const ir_kernel *k, const cg_target *t, const at_machine *machine) {
  if (s->maker) return s->maker;
  maker *m = s->maker = IR_NEW(ctx, maker);
  *m = (maker){.ctx = ctx, .s = s, .quiet = tn_ctx_new(NULL), .j = {.s = s, .t = t, .m = machine}, .q = lw_problem_of(ctx, k)};
  if (!m->quiet) ir_fail(ctx, TN_ERESOURCE, "out of memory");
  ir_defer(ctx, free_ctx, m->quiet);
  parsing p = {.text = ir_kernel_print(ctx, k)};
  if (ir_protect(m->quiet, parse, &p)) ir_bug(ctx, "a kernel does not read back: %s", ir_error(m->quiet));
  m->j.k = p.k;
  return m;
}

void at_space_fill(at_space *s, int want, int patience) { s->want = want, s->patience = patience, s->vain = 0; }
void at_space_start(at_space *s, int want) {
  s->tile = 0;
  at_space_fill(s, want, 400);
}
void at_space_near(at_space *s, int point) {
  bool known = s->points[point].source != AT_OWN || s->points[point].steps == STEPS || s->nnear == AT_SPACE_QUEUE;
  for (int i = 0; i < s->nnear && !known; i++) known = s->near[i] == point;
  if (!known) s->near[s->nnear++] = point;
}

bool at_space_wants(const at_space *s) { return s->nnear > 0 || s->tile >= 0 || (s->n < s->want && s->vain < s->patience); }

bool at_space_work(tn_ctx *ctx, at_space *s, const ir_kernel *k, const cg_target *t, const at_machine *machine) {
  if (!at_space_wants(s)) return false;
  maker *m = maker_of(ctx, s, k, t, machine);
  lw_tunables u;
  while (s->nnear > 0) {
    at_point *from = &s->points[s->near[0]];
    if (from->steps == STEPS) memmove(s->near, s->near + 1, (size_t)--s->nnear * sizeof *s->near);
    else if (step_from(m, from, from->steps++, &u)) return add(m, &u, AT_OWN), true;
  }
  while (s->tile >= 0) {
    if (!first_point(m, s->tile++, &u)) s->tile = -1;
    else if (!has_tiles(&m->q) || fits(m, &u)) return add(m, &u, AT_OWN), true;
    else s->pruned++;
  }
  if (!has_tiles(&m->q)) s->want = 0;
  while (s->n < s->want && s->vain++ < s->patience) {
    u = random_point(m, &s->random);
    int before = s->n;
    if (!fits(m, &u)) continue;
    add(m, &u, AT_OWN);
    if (s->n > before) s->vain = 0;
    return true;
  }
  return false;
}

int *at_space_put(tn_ctx *ctx, at_space *s, const ir_kernel *k, const cg_target *t, const at_machine *machine, int n, const lw_tunables *got, const char *const *schedule) {
  maker *m = maker_of(ctx, s, k, t, machine);
  int *at = IR_NEW_ARRAY(ctx, int, n + 1);
  m->j.named = true;
  for (int i = 0; i < n; i++) {
    m->j.given = schedule[i];
    at[i] = add(m, &got[i], AT_OWN);
  }
  m->j.given = NULL, m->j.named = false;
  return at;
}

void at_space_add(tn_ctx *ctx, at_space *s, const ir_kernel *k, const cg_target *t, const at_machine *machine, const char *schedule, at_source source) {
  maker *m = maker_of(ctx, s, k, t, machine);
  m->j.given = schedule;
  add(m, &(lw_tunables){0}, source);
  m->j.given = NULL;
}

at_space *at_space_new(tn_ctx *ctx, const ir_kernel *k, const cg_target *t, const at_machine *machine, double accuracy, int threads, int want) {
  at_space *s = IR_NEW(ctx, at_space);
  *s = (at_space){.accuracy = accuracy, .threads = threads, .random = 1, .tile = -1};
  add(maker_of(ctx, s, k, t, machine), &(lw_tunables){.accuracy = accuracy}, AT_OWN);
  if (!s->n) return s;
  s->standard = s->points[0].schedule;
  s->split = s->points[0].got.parts > 1;
  if (want) at_space_start(s, want);
  while (at_space_work(ctx, s, k, t, machine)) {}
  qsort(s->points, (size_t)s->n, sizeof *s->points, by_prediction);
  return s;
}

uint64_t at_schedule_hash(const char *schedule) { return ir_hash_bytes(schedule, strlen(schedule), 11); }

int at_space_find(const at_space *s, const char *schedule) {
  uint64_t hash = at_schedule_hash(schedule);
  for (int i = 0; i < s->n; i++)
    if (s->points[i].hash == hash && strcmp(s->points[i].schedule, schedule) == 0) return i;
  return -1;
}

static double ratio(int a, int b) { return a == b ? 0 : !a || !b ? 0.5 : fabs(log2((double)a / b)); }

void at_point_features(const at_point *p, double out[AT_FEATURES]) {
  for (int i = 0; i < AT_KNOBS; i++) out[i] = value(&p->got, &knobs[i]);
  out[AT_FEATURES - 2] = p->got.mr * p->got.nr;
  out[AT_FEATURES - 1] = p->predicted_ns > 0 ? log(p->predicted_ns) : 0;
}

double at_space_distance(const at_point *a, const at_point *b) {
  if (a->source != AT_OWN || b->source != AT_OWN) return a == b ? 0 : 4; /* not comparable by tunables */
  double sum = 0;
  for (int i = 0; i < AT_KNOBS; i++) sum += knobs[i].weight * ratio(value(&a->got, &knobs[i]), value(&b->got, &knobs[i]));
  return sum;
}
