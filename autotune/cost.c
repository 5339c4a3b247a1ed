/* cost.c — see cost.h. Rates are those of recent server cores: two FMAs and two loads a cycle,
 * a store a cycle, FMA latency 4. */
#include "autotune/cost.h"
#include "lower/problem.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 48, LINE = 64, MAX_ACCESSES = 4096 };

static const double TURN = 2.5, ENTRY = 4; /* cycles of an iteration, and of a loop, for itself */
static const double L2_LINE = 2, L3_LINE = 16, MEMORY_LINE = 30; /* cycles for a line from there */
static const double ASKED = 0.4;           /* of the wait for a line is left when it was asked for ahead */
static const double THROUGH_MEMORY = 12;   /* cycles from a sum to the next by way of a store and a load */

typedef struct loop {
  const ir_var *var;
  double n;        /* iterations; of a vector loop: lanes' worth of vectors times lanes */
  bool serial;     /* a loop in the code; else vector or unrolled */
  bool vector;
  int up;          /* index of the loop around it, -1 */
} loop;

typedef struct touch { /* a load or store of an operand */
  const ir_buf *buf;
  int loop;                   /* innermost loop around it */
  int depth;
  double coef[MAX_DEPTH];     /* elements per iteration of each loop, outermost first */
} touch;

typedef struct region { /* issued in one iteration of a serial loop (or once, outside all) */
  double fma, alu, load, store, chains, chain_fmas, cycles;
} region;

typedef struct model {
  tn_ctx *ctx;
  const cg_target *t;
  loop *loops;
  int nloops;
  touch *accesses;
  int naccesses;
  const ir_buf **ahead; /* their lines are asked for before their turn */
  int nahead;
  int stack[MAX_DEPTH], depth;
  region region[MAX_DEPTH + 1];  /* by stack position of the serial loop + 1 */
} model;

/* ---- expressions ---- */

static bool uses(ix e, const model *m, int i) { return ix_uses_var(e, m->loops[m->stack[i]].var); }

/* Times that something depending on e is issued per iteration of the serial loop it changes in;
 * that loop's position, -1 for outside all, is *home. */
static double copies(const model *m, ix e, int *home) {
  double n = 1;
  *home = -1;
  int first = 0; /* vector and unrolled loops count inside the home only */
  for (int i = m->depth; i-- > 0;)
    if (m->loops[m->stack[i]].serial && uses(e, m, i)) {
      *home = i;
      first = i + 1;
      break;
    }
  for (int i = first; i < m->depth; i++) {
    const loop *l = &m->loops[m->stack[i]];
    if (l->serial || !uses(e, m, i)) continue;
    int lanes = l->vector ? cg_target_lanes(m->t, (tn_dtype)e->dtype) : 1;
    n *= ceil(l->n / (lanes > 0 ? lanes : 1));
  }
  return n;
}

static double op_cycles(ix e) { /* ALU slots, two a cycle */
  switch (e->op) {
  case IX_DIV: case IX_REM: return 12;
  case IX_SQRT: return 12;
  default: return strchr(ix_info[e->op].traits, 'E') ? 24 : 1;
  }
}

static void add_access(model *m, const ir_buf *buf, ix offset) {
  if (m->naccesses == MAX_ACCESSES) return;
  touch a = {.buf = buf, .loop = m->depth ? m->stack[m->depth - 1] : -1, .depth = m->depth};
  for (int i = 0; i < m->depth; i++) {
    int64_t c = 0;
    if (!uses(offset, m, i)) continue;
    a.coef[i] = ix_affine_in(offset, m->loops[m->stack[i]].var, &c) ? fabs((double)c) : 1;
  }
  IR_PUSH(m->ctx, m->accesses, m->naccesses, a);
}

/* One load or store: vectors where memory runs along the vector loop, else one per lane. */
static void count_memory(model *m, const ir_buf *buf, ix load, bool store) {
  if (buf->space == IR_REGISTER) return;
  ix offset = ir_buf_offset(m->ctx, buf, load->args);
  int home;
  double n = copies(m, load, &home);
  for (int i = 0; i < m->depth; i++) {
    const loop *l = &m->loops[m->stack[i]];
    int64_t c;
    if (!l->vector || !uses(offset, m, i)) continue;
    if (!ix_affine_in(offset, l->var, &c) || c != 1) n *= cg_target_lanes(m->t, buf->dtype);
  }
  region *r = &m->region[home + 1];
  if (store) r->store += n;
  else r->load += n;
  if (buf->space == IR_GLOBAL) add_access(m, buf, offset);
}

typedef struct counting {
  model *m;
  bool accumulates;
} counting;

static void count_op(void *user, ix e) {
  model *m = ((counting *)user)->m;
  int home;
  if (e->op == IX_LOAD) {
    count_memory(m, e->u.buf, e, false);
    return;
  }
  if (!e->nargs || e->dtype == TN_INDEX) return;
  double n = copies(m, e, &home);
  region *r = &m->region[home + 1];
  if (e->op == IX_FMA) r->fma += n;
  else r->alu += n * op_cycles(e);
}

/* ---- statements ---- */

static double trips(const ir_stmt *s) {
  int64_t lo, hi;
  if (ix_const_value(s->lo, &lo) && ix_const_value(s->hi, &hi)) return hi > lo ? (double)(hi - lo) : 0;
  if (s->hi->hi != INT64_MAX && s->lo->lo != INT64_MIN) return fmax((double)(s->hi->hi - s->lo->lo), 1);
  return 16;
}

static double region_cycles(const model *m, const region *r) {
  /* accumulators that find no register beside a row of operands are loaded and stored each time */
  double spilled = r->chains > 0 ? fmax(r->chains + 2 - m->t->vector_regs, 0) * r->chain_fmas / r->chains : 0;
  double c = fmax(r->fma / 2, (r->fma + r->alu) / 2);
  c = fmax(c, fmax(r->load / 2 * 1.1, r->store)); /* lines split, banks collide */
  c = fmax(c, (r->fma + r->alu + r->load + r->store) / 5);
  if (r->chains > 0) c = fmax(c, (spilled > 0 ? THROUGH_MEMORY : 4) * r->chain_fmas / r->chains);
  return c + spilled + r->cycles;
}

static void walk(model *m, const ir_stmt *s);

static void walk_loop(model *m, const ir_stmt *s) {
  double n = trips(s);
  if (n <= 0) return;
  if (m->depth == MAX_DEPTH) return;
  loop l = {.var = s->var, .n = n, .serial = s->loop != IR_VECTOR && s->loop != IR_UNROLL && n > 1, .vector = s->loop == IR_VECTOR,
            .up = m->depth ? m->stack[m->depth - 1] : -1};
  int id = m->nloops;
  IR_PUSH(m->ctx, m->loops, m->nloops, l);
  int at = m->depth;
  m->stack[m->depth++] = id;
  m->region[at + 1] = (region){0};
  walk(m, s->body);
  m->depth = at;
  if (!l.serial) return;
  int up = at;
  while (up > 0 && !m->loops[m->stack[up - 1]].serial) up--;
  double times = n; /* unrolled loops around a serial one repeat it */
  for (int i = up; i < at; i++) times *= m->loops[m->stack[i]].n;
  m->region[up].cycles += times * (region_cycles(m, &m->region[at + 1]) + TURN) + ENTRY;
}

static void walk(model *m, const ir_stmt *s) {
  if (!s) return;
  counting c = {.m = m};
  switch (s->kind) {
  case IR_FOR: walk_loop(m, s); return;
  case IR_TILE:
    if (strncmp(s->atom, "prefetch", 8)) walk(m, s->body);
    else if (s->body && s->body->kind == IR_STORE && s->body->value->op == IX_LOAD) IR_PUSH(m->ctx, m->ahead, m->nahead, s->body->value->u.buf);
    return;
  case IR_STORE: {
    ix_walk(m->ctx, s->value, count_op, &c);
    ix place = ix_load(m->ctx, s->buf, s->index);
    count_memory(m, s->buf, place, true);
    if (s->buf->space == IR_REGISTER && s->value->op == IX_FMA) { /* an accumulator: as many chains as it has elements */
      int home, where = -1;
      for (int i = m->depth; i-- > 0 && where < 0;)
        if (m->loops[m->stack[i]].serial) where = i;
      double issued = copies(m, s->value, &home), chains = 1;
      for (int i = where + 1; i < m->depth; i++) {
        const loop *l = &m->loops[m->stack[i]];
        if (uses(place, m, i)) chains *= l->vector ? ceil(l->n / cg_target_lanes(m->t, s->buf->dtype)) : l->n;
      }
      region *r = &m->region[where + 1];
      r->chain_fmas += issued;
      r->chains += chains;
    }
    return;
  }
  case IR_LET:
    if (s->var->dtype != TN_INDEX) ix_walk(m->ctx, s->value, count_op, &c);
    walk(m, s->body);
    return;
  case IR_IF: { /* a branch for each copy, between what would run side by side */
      double n = 1;
      int at = m->depth - 1;
      for (; at >= 0 && !m->loops[m->stack[at]].serial; at--)
        if (uses(s->value, m, at)) n *= m->loops[m->stack[at]].n;
      m->region[at + 1].cycles += n * TURN;
    }
    walk(m, s->body);
    walk(m, s->other);
    return;
  default:
    for (int i = 0; i < s->n; i++) walk(m, s->items[i]);
    walk(m, s->body);
    walk(m, s->other);
  }
}

/* ---- memory ---- */

/* Lines that an access touches while the loops from stack position `from` on run once. */
static double lines(const model *m, const touch *a, int from) {
  double coef[MAX_DEPTH], n[MAX_DEPTH], size = (double)ir_dtype_bytes(a->buf->dtype);
  int k = 0, at = a->loop;
  for (int i = a->depth; i-- > from; at = m->loops[at].up)
    if (a->coef[i] > 0 && m->loops[at].n > 1) {
      int j = k++;
      for (; j > 0 && coef[j - 1] > a->coef[i]; j--) coef[j] = coef[j - 1], n[j] = n[j - 1];
      coef[j] = a->coef[i], n[j] = m->loops[at].n;
    }
  double run = 1, pieces = 1;
  for (int i = 0; i < k; i++) {
    if (coef[i] <= run || coef[i] * size <= LINE / 2) run = coef[i] * (n[i] - 1) + run;
    else pieces *= n[i];
  }
  return pieces * fmax(1, run * size / LINE);
}

/* Bytes that one iteration of the loop at position `at` above access a touches: all accesses
 * below that loop, each buffer once. */
static double footprint(const model *m, int id, int position) {
  double sum = 0;
  for (int i = 0; i < m->naccesses; i++) {
    const touch *a = &m->accesses[i];
    if (a->depth <= position) continue;
    int at = a->loop;
    for (int d = a->depth - 1; d > position; d--) at = m->loops[at].up;
    if (at != id) continue;
    double mine = lines(m, a, position + 1);
    bool first = true; /* the largest access to this buffer speaks for all */
    for (int j = 0; j < m->naccesses && first; j++) {
      const touch *b = &m->accesses[j];
      if (j == i || b->buf != a->buf || b->depth <= position) continue;
      int up = b->loop;
      for (int d = b->depth - 1; d > position; d--) up = m->loops[up].up;
      if (up != id) continue;
      double other = lines(m, b, position + 1);
      first = other < mine || (other == mine && j > i);
    }
    if (first) sum += mine * LINE;
  }
  return sum;
}

/* What waiting for a line counts, by whether it was asked for in time. */
static double wait_of(const model *m, const ir_buf *b) {
  for (int i = 0; i < m->nahead; i++)
    if (m->ahead[i] == b) return ASKED;
  return 1;
}

/* Lines that must come from beyond a cache of `bytes`. */
static double misses(const model *m, double bytes, double *print) {
  double sum = 0;
  for (int i = 0; i < m->naccesses; i++) {
    const touch *a = &m->accesses[i];
    double l = 1;
    int at = a->loop;
    for (int d = a->depth; d-- > 0; at = m->loops[at].up) {
      if (print[at] < 0) print[at] = footprint(m, at, d);
      l = print[at] <= bytes ? lines(m, a, d) : l * m->loops[at].n;
    }
    sum += l * wait_of(m, a->buf);
  }
  return sum;
}

at_cost_parts at_predict(tn_ctx *ctx, const ir_kernel *k, const cg_target *t, const at_machine *machine) {
  model *m = IR_NEW(ctx, model);
  m->ctx = ctx;
  m->t = t;
  walk(m, k->body);
  at_cost_parts p = {0};
  double ghz = machine && machine->ghz > 0.1 ? machine->ghz : 3;
  p.compute = region_cycles(m, &m->region[0]) / ghz;
  if (m->naccesses == MAX_ACCESSES) { /* too large to look at: its traffic does not matter for a choice */
    p.total = p.compute;
    return p;
  }
  double *print = IR_NEW_ARRAY(ctx, double, m->nloops + 1);
  for (int i = 0; i < m->nloops; i++) print[i] = -1;
  double all = 0, constants = 0, waits = 0;
  for (int i = 0; i < k->nbufs; i++) {
    int64_t n;
    if (!ix_const_value(ir_buf_elements(ctx, k->bufs[i]), &n)) continue;
    double bytes = (double)n * (double)ir_dtype_bytes(k->bufs[i]->dtype);
    all += bytes;
    if (k->bufs[i]->constant) constants += bytes, waits += bytes / LINE * wait_of(m, k->bufs[i]);
  }
  int64_t l3 = machine ? machine->l3_bytes : 0;
  double l1 = (double)t->l1_bytes * 0.8, l2 = (double)t->l2_bytes * 0.8, third = l3 > 0 ? (double)l3 * 0.5 : 16e6;
  double from2 = all > l1 ? misses(m, l1, print) : 0, from3 = all > l2 ? misses(m, l2, print) : 0;
  double from_memory = all > third ? misses(m, third, print) : 0;
  if (constants > (double)t->l1_bytes) from3 = fmax(from3, waits);
  p.l2 = fmax(from2 - from3, 0) * L2_LINE / ghz;
  p.l3 = fmax(from3 - from_memory, 0) * L3_LINE / ghz;
  p.memory = from_memory * MEMORY_LINE / ghz;
  double top = fmax(fmax(p.compute, p.l2), fmax(p.l3, p.memory)), sum = p.compute + p.l2 + p.l3 + p.memory;
  p.total = top + 0.3 * (sum - top);
  return p;
}
