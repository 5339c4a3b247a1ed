/* tpu_order.c — order between the units of the machine.
 *
 * The compiler emits a text that is right when its instructions run one after another. Units run
 * apart, so an instruction must wait for the last instruction of another unit that wrote what it
 * touches or reads what it writes. Units work in order: of each other unit only the latest such
 * instruction matters, and only if this unit has not waited for a later one already. */
#include "codegen/tpu_lower.h"
#include <string.h>

typedef struct span { /* bytes with one history */
  int64_t lo, hi;
  int32_t writer;                /* instruction of its unit, from 1; 0: none */
  int32_t writer_unit;
  int32_t reader[TPU_UNITS];     /* latest since then */
} span;

typedef struct spans {
  int n, cap;
  span *v;
} spans;

struct tc_order {
  tn_ctx *ctx;
  int core;
  spans space[TPU_SPACES];
  int32_t need[TPU_UNITS];              /* of the instruction to come */
  int32_t count[TPU_UNITS];             /* instructions handed to each queue */
  int32_t waited[TPU_UNITS][TPU_UNITS]; /* [for][by] */
};

tc_order *tc_order_new(tn_ctx *ctx, int core) {
  tc_order *o = IR_NEW(ctx, tc_order);
  o->ctx = ctx;
  o->core = core;
  return o;
}

static void need(tc_order *o, int by, int unit, int32_t number) {
  if (unit != by && number > o->need[unit]) o->need[unit] = number;
}

static int first_above(const spans *s, int64_t lo) { /* first span that ends above lo */
  int a = 0, b = s->n;
  while (a < b) {
    int m = (a + b) / 2;
    if (s->v[m].hi > lo) b = m;
    else a = m + 1;
  }
  return a;
}

/* Room for `n` spans in place of those from a to b. */
static void splice(tc_order *o, spans *s, int a, int b, int n) {
  int grown = s->n + n - (b - a);
  if (grown > s->cap) {
    int cap = s->cap ? s->cap * 2 : 64;
    while (cap < grown) cap *= 2;
    s->v = ir_grow(o->ctx, s->v, (size_t)s->n, (size_t)cap, sizeof *s->v);
    s->cap = cap;
  }
  memmove(s->v + a + n, s->v + b, (size_t)(s->n - b) * sizeof *s->v);
  s->n = grown;
}

/* Makes `at` a border between spans. */
static void cut(tc_order *o, spans *s, int64_t at) {
  int i = first_above(s, at);
  if (i == s->n || s->v[i].lo >= at) return;
  span whole = s->v[i];
  splice(o, s, i, i, 1);
  s->v[i] = s->v[i + 1] = whole;
  s->v[i].hi = s->v[i + 1].lo = at;
}

void tc_order_access(tc_order *o, tpu_unit unit, tpu_space space, int64_t lo, int64_t hi, bool write) {
  if (lo >= hi) return;
  spans *s = &o->space[space];
  int32_t number = o->count[unit] + 1;
  cut(o, s, lo);
  cut(o, s, hi);
  int a = first_above(s, lo), b = a;
  for (; b < s->n && s->v[b].lo < hi; b++) {
    span *x = &s->v[b];
    if (x->writer) need(o, unit, x->writer_unit, x->writer);
    for (int u = 0; write && u < TPU_UNITS; u++) need(o, unit, u, x->reader[u]);
  }
  if (write) {
    splice(o, s, a, b, 1);
    s->v[a] = (span){.lo = lo, .hi = hi, .writer = number, .writer_unit = unit};
    return;
  }
  int64_t at = lo;
  for (int i = a; at < hi; i++) { /* gaps become spans without a writer */
    if (i == s->n || s->v[i].lo > at) {
      int64_t end = i < s->n && s->v[i].lo < hi ? s->v[i].lo : hi;
      splice(o, s, i, i, 1);
      s->v[i] = (span){.lo = at, .hi = end};
    }
    s->v[i].reader[unit] = number;
    at = s->v[i].hi;
  }
}

void tc_order_emit(tc_order *o, tpu_program *p, tpu_inst i) {
  tpu_unit unit = tpu_ops[i.op].unit;
  if (p->core[o->core].n >= TPU_MAX_INSTS)
    ir_fail(o->ctx, TN_EUNSUPPORTED, "more than %d instructions: a loop that must run in order is too long for the machine", TPU_MAX_INSTS);
  for (int u = 0; u < TPU_UNITS; u++) {
    if (o->need[u] > o->waited[u][unit]) {
      int32_t back = o->count[u] - o->need[u] + 1;
      i.after[u] = (uint16_t)(back < TPU_COUNT_MAX ? back : TPU_COUNT_MAX); /* further back: a later one will do */
      o->waited[u][unit] = o->need[u];
    }
    o->need[u] = 0;
  }
  o->count[unit]++;
  tpu_emit(o->ctx, p, o->core, i);
}

void tc_order_fence(tc_order *o, tpu_program *p, bool all_cores) {
  tpu_emit(o->ctx, p, o->core, tpu_inst_of(all_cores ? TPU_BARRIER : TPU_FENCE));
  for (int a = 0; a < TPU_UNITS; a++)
    for (int b = 0; b < TPU_UNITS; b++) o->waited[a][b] = o->count[a];
}
