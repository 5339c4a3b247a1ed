/* cuda_mbar.c — mbarriers and copies of the TMA unit in the emulator: codegen/GPU.md, "Copies by the TMA unit". */
#include "runtime/cuda_emulate_internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool rt_cuda_mbar_atom(const char *a) { return strncmp(a, "mbar.", 5) == 0 || strncmp(a, "tma.", 4) == 0; }

void rt_cuda_mbar_begin(emulator *m) {
  size_t n = (size_t)rt_cuda_width(m) * sizeof(uint32_t);
  for (int i = 0; i < MAX_MBARS; i++) {
    mbar *b = &m->bars[i];
    uint32_t **all[4] = {&b->arrived, &b->over, &b->seen_phase, &b->seen};
    for (int k = 0; k < 4 && i < m->nbars; k++) memset(*all[k], 0, n);
    *b = (mbar){.arrived = b->arrived, .over = b->over, .seen_phase = b->seen_phase, .seen = b->seen};
  }
  m->nbars = 0;
  m->op.tile = NULL;
}

IR_NORETURN static void wrong(emulator *m, tn_ctx *ctx, const char *what) {
  const mbar *b = m->op.bar;
  ir_fail(ctx, TN_EWRONG, "kernel '%s': block %lld: thread %d: '%s' on '%s' element %lld: %s", m->tile->kernel->name, (long long)m->block, m->lo, m->op.tile->atom, b ? b->buf->name : "no barrier",
          b ? (long long)b->at : 0, what);
}

static mbar *bar_of(emulator *m, const ir_buf *buf, int64_t at) {
  for (int i = 0; i < m->nbars; i++)
    if (m->bars[i].buf == buf && m->bars[i].at == at) return &m->bars[i];
  return NULL;
}

static int number_of(const emulator *m, const mbar *b) { return (int)(b - m->bars); }

static void merge(const emulator *m, uint32_t *into, const uint32_t *from) {
  for (int i = 0; i < rt_cuda_width(m); i++)
    if (from[i] > into[i]) into[i] = from[i];
}

/* ---- phases ---- */

static void init(emulator *m, tn_ctx *ctx, const ir_buf *buf, int64_t at) {
  int n = atoi(strchr(m->op.tile->atom, ' ') + 1);
  mbar *b = m->op.bar = bar_of(m, buf, at);
  if (m->hi - m->lo != 1) wrong(m, ctx, "more than one thread");
  if (b) wrong(m, ctx, "initialised twice");
  if (m->nbars == MAX_MBARS || n < 1) wrong(m, ctx, "no barrier that can be");
  b = m->op.bar = &m->bars[m->nbars++];
  uint32_t **all[4] = {&b->arrived, &b->over, &b->seen_phase, &b->seen};
  for (int k = 0; k < 4; k++)
    if (!*all[k]) *all[k] = IR_NEW_ARRAY(m->ctx, uint32_t, m->width * (m->tile->cluster > 1 ? m->tile->cluster : 1) + MAX_MBARS); /* of any launch */
  if (rt_cuda_home(m, buf, at) != m->lo / m->width) wrong(m, ctx, "of another block");
  *b = (mbar){.buf = buf, .at = at, .home = m->lo / m->width, .maker = m->lo, .made = KNOWS(m, m->lo, m->lo), .expected = n, .pending = n, .arrived = b->arrived, .over = b->over, .seen_phase = b->seen_phase, .seen = b->seen};
}

/* A phase is over when all have arrived and all announced bytes are there. Who waited for the phase before must have seen
 * it by then: two phases on its parity is the same again. */
static void settle(emulator *m, tn_ctx *ctx, mbar *b) {
  if (b->pending || b->bytes) return;
  for (int t = 0; t < m->threads; t++)
    if (b->seen_phase[t] == b->phase && b->phase && b->arrived[t] < b->seen[t]) wrong(m, ctx, ir_format(ctx, "its phase may end before thread %d has seen the end of the phase before", t));
  b->phase++;
  b->pending = b->expected;
  memcpy(b->over, b->arrived, (size_t)rt_cuda_width(m) * sizeof *b->over);
  b->over[m->threads + number_of(m, b)] = b->phase;
  memset(b->arrived, 0, (size_t)rt_cuda_width(m) * sizeof *b->arrived);
}

/* What thread t adds counts for the phase that is under way whatever the timing. */
static void check_phase(emulator *m, tn_ctx *ctx, int t, const mbar *b) {
  if (KNOWS(m, t, m->threads + number_of(m, b)) != b->phase) wrong(m, ctx, "it may count for another phase: its thread does not know that the phase before is over");
}

static void arrive(emulator *m, tn_ctx *ctx, int64_t bytes) {
  mbar *b = m->op.bar;
  for (int t = m->lo; t < m->hi; t++) {
    check_phase(m, ctx, t, b);
    if (!b->pending) wrong(m, ctx, "more arrivals than are expected");
    b->pending--;
    b->bytes += bytes;
    merge(m, b->arrived, &KNOWS(m, t, 0));
    KNOWS(m, t, t)++;
    settle(m, ctx, b);
  }
}

static void wait(emulator *m, tn_ctx *ctx, int64_t parity) {
  mbar *b = m->op.bar;
  for (int t = m->lo; t < m->hi; t++) {
    uint32_t known = KNOWS(m, t, m->threads + number_of(m, b));
    if ((known & 1) == (uint32_t)parity) { /* for the phase to come */
      if (b->phase == known) wrong(m, ctx, "waits for a phase that nothing completes");
      if (b->phase != known + 1) wrong(m, ctx, "waits for a phase that may be long over");
      merge(m, &KNOWS(m, t, 0), b->over);
      known++;
    } else if (b->phase != known) wrong(m, ctx, "may wait for a phase too late"); /* for one that is over: goes on at once */
    b->seen_phase[t] = known;
    b->seen[t] = KNOWS(m, t, t)++;
  }
}

static void check_made(emulator *m, tn_ctx *ctx, const mbar *b) {
  for (int t = m->lo; t < m->hi; t++)
    if (t != b->maker && KNOWS(m, t, b->maker) < b->made) wrong(m, ctx, "used without a barrier after its initialisation");
  if (strncmp(m->op.tile->atom, "tma.", 4) == 0 && m->proxied[b->maker] < b->made) wrong(m, ctx, "a copy counts on it without a fence after its initialisation");
  if (b->home != m->lo / m->width && m->announced[b->maker] < b->made) wrong(m, ctx, "another block uses it without a fence after its initialisation");
}

/* ---- copies ---- */

/* Where the map puts element i of the box: its offset in the parameter, or -1 for zeros. */
static int64_t source(const cu_map *p, const int64_t *takes, int64_t i) {
  int64_t offset = p->offset, at;
  if (!p->pixels) {
    for (int d = 0; d < p->rank; d++) {
      at = takes[d] + i % p->box[d];
      i /= p->box[d];
      if (at < 0 || at >= p->extent[d]) return -1;
      offset += at * p->stride[d];
    }
    return offset;
  }
  at = takes[0] + i % p->channels;
  int64_t pixel = i / p->channels;
  bool inside = at >= 0 && at < p->extent[0];
  offset += at;
  for (int d = 1; d < p->rank; d++) { /* base pixels from the one given on, in order; the images last */
    bool last = d == p->rank - 1;
    int64_t lower = last ? 0 : p->lower[d - 1], n = last ? p->extent[d] : (p->extent[d] - 1 + p->upper[d - 1] - lower) / p->step[d] + 1;
    int64_t start = takes[d] - lower, count = start / p->step[d] + pixel;
    if (start % p->step[d]) return -2;
    at = lower + (last ? count : count % n) * p->step[d] + (last ? 0 : takes[p->rank + d - 1]);
    pixel = count / n;
    inside &= at >= 0 && at < p->extent[d];
    offset += at * p->stride[d];
  }
  return inside ? offset : -1;
}

static const cu_map *map_of(emulator *m, tn_ctx *ctx) {
  int n = atoi(strchr(m->op.tile->atom, ' ') + 1);
  if (n >= m->tile->nmaps) wrong(m, ctx, "no such tensor map");
  return &m->tile->maps[n];
}

static int64_t box_of(const cu_map *p) {
  int64_t all = p->pixels ? (int64_t)p->pixels * p->channels : 1;
  for (int d = 0; d < p->rank && !p->pixels; d++) all *= p->box[d];
  return all;
}

/* The blocks that a copy goes to; its barrier in one of them: at the same place of that block's memory. */
typedef struct receivers {
  int n, first, apart;
} receivers;

static receivers receivers_of(const emulator *m) {
  int own = m->lo / m->width;
  receivers r = {1, own, 1};
  if (sscanf(m->op.tile->atom, "tma.multicast %*d %d %d", &r.n, &r.apart) == 2) r.first = own / (r.n * r.apart) * (r.n * r.apart) + own % r.apart;
  return r;
}

static mbar *bar_at(emulator *m, tn_ctx *ctx, int home) {
  const mbar *b = m->op.bar;
  mbar *r = bar_of(m, b->buf, b->at + (home - b->home) * rt_cuda_share(m, b->buf));
  if (!r) wrong(m, ctx, ir_format(ctx, "block %d of the cluster has no such barrier", home));
  return r;
}

static void copy_load(emulator *m, tn_ctx *ctx, const ir_buf *b, int64_t at) {
  const cu_map *p = map_of(m, ctx);
  int64_t from = source(p, m->op.takes + 1, m->op.loads % box_of(p));
  if (m->tile->kernel->bufs[p->param] != b || from != at) wrong(m, ctx, ir_format(ctx, "its block reads element %lld of '%s', the map element %lld", (long long)at, b->name, (long long)from));
}

/* Where element i of a box from `start` on lies: rows of 128 bytes, pieces of 16 bytes swizzled by the row. -1: nowhere. */
static int64_t swizzled(const cu_map *p, int64_t start, int64_t i) {
  int64_t size = (int64_t)ir_dtype_bytes(p->dtype), piece = 16 / size, row = i / (8 * piece), near = i % (8 * piece);
  return start * size % 1024 ? -1 : start + row * 8 * piece + (near / piece ^ row % 8) * piece + near % piece;
}

static void copy_store(emulator *m, tn_ctx *ctx, const ir_buf *b, int64_t at, ir_scalar v) {
  const cu_map *p = map_of(m, ctx);
  int64_t i = m->op.loads % box_of(p);
  receivers r = receivers_of(m);
  int home = rt_cuda_home(m, b, at);
  if (home != r.first + m->op.loads / box_of(p) * r.apart) wrong(m, ctx, "its block writes to shared memory of another block");
  if (!m->op.loads) m->op.stores = at;
  if (at != swizzled(p, m->op.stores + (home - r.first) * rt_cuda_share(m, b), i)) wrong(m, ctx, ir_format(ctx, "its block writes element %lld of '%s', the map another", (long long)at, b->name));
  if (source(p, m->op.takes + 1, i) < 0 && v.f != 0) wrong(m, ctx, "its block writes what lies beyond the tensor");
  rt_cuda_copied(m, ctx, b, at, number_of(m, bar_at(m, ctx, home)));
  m->op.loads++;
}

/* The bytes are there, after all that their thread had waited for. */
static void copied(emulator *m, tn_ctx *ctx) {
  const cu_map *p = map_of(m, ctx);
  receivers r = receivers_of(m);
  if (m->op.loads != box_of(p) * r.n) wrong(m, ctx, "its block is another box than the map's");
  for (int n = 0; n < r.n; n++) {
    mbar *b = bar_at(m, ctx, r.first + n * r.apart);
    for (int i = m->threads; i < rt_cuda_width(m); i++)
      if (KNOWS(m, m->lo, i) > b->arrived[i]) b->arrived[i] = KNOWS(m, m->lo, i);
    b->bytes -= box_of(p) * (int64_t)ir_dtype_bytes(p->dtype);
    b->landed = b->phase + 1;
    settle(m, ctx, b);
  }
}

/* Shared memory of a block is there as long as one of its threads: they must know of all that others did to it. */
static uint32_t known_in(const emulator *m, int home, int of) {
  uint32_t known = 0;
  for (int t = home * m->width; t < (home + 1) * m->width; t++)
    if (KNOWS(m, t, of) > known) known = KNOWS(m, t, of);
  return known;
}

void rt_cuda_mbar_end(emulator *m, tn_ctx *ctx) {
  for (int i = 0; i < m->nbars; i++) {
    const mbar *b = &m->bars[i];
    if (b->bytes || known_in(m, b->home, m->threads + i) < b->landed)
      ir_fail(ctx, TN_EWRONG, "kernel '%s': block %lld ends while copies may be under way ('%s' element %lld)", m->tile->kernel->name, (long long)m->block, b->buf->name, (long long)b->at);
  }
  for (int home = 0; home < rt_cuda_blocks(m); home++)
    for (int u = 0; u < m->threads; u++)
      if (m->remote[home * m->threads + u] && known_in(m, home, u) < m->remote[home * m->threads + u])
        ir_fail(ctx, TN_EWRONG, "kernel '%s': block %lld ends while thread %d may arrive at its barriers", m->tile->kernel->name, (long long)m->block, u);
}

/* ---- stores: elements beyond the tensor stay where they are ---- */

static void skip_outside(operation *o, const cu_map *p) {
  while (o->loads < box_of(p) && source(p, o->takes + 1, o->loads) < 0) o->loads++;
}

static void store_access(emulator *m, tn_ctx *ctx, const ir_buf *b, int64_t at, bool store) {
  const cu_map *p = map_of(m, ctx);
  operation *o = &m->op;
  if (m->hi - m->lo != 1) wrong(m, ctx, "more than one thread");
  if (store) {
    if (m->tile->kernel->bufs[p->param] != b || source(p, o->takes + 1, o->loads) != at) wrong(m, ctx, ir_format(ctx, "its block writes element %lld of '%s', the map another", (long long)at, b->name));
    rt_cuda_left(m, ctx, b, at);
    o->loads++;
    return;
  }
  skip_outside(o, p);
  if (!o->loads) o->stores = at;
  if (at != swizzled(p, o->stores, o->loads)) wrong(m, ctx, ir_format(ctx, "its block reads element %lld of '%s', the map another", (long long)at, b->name));
  rt_cuda_leaves(m, ctx, b, at);
}

/* ---- statements ---- */

static bool is_remote(const char *atom) { return strcmp(atom, "mbar.arrive.remote") == 0; }
static bool is_store(const char *atom) { return strncmp(atom, "tma.store ", 10) == 0; }

void rt_cuda_mbar_tile(emulator *m, tn_ctx *ctx, const ir_stmt *s, bool enter) {
  const char *a = s->atom;
  if (enter) {
    m->op = (operation){.tile = s, .ops = s->body->kind == IR_ALLOC ? s->body->buf : NULL};
    return;
  }
  if (is_store(a)) {
    skip_outside(&m->op, map_of(m, ctx));
    if (m->op.loads != box_of(map_of(m, ctx))) wrong(m, ctx, "its block is another box than the map's");
  } else if (!m->op.bar) wrong(m, ctx, "not initialised");
  if (strncmp(a, "mbar.expect ", 12) == 0) arrive(m, ctx, atoll(a + 12));
  else if (is_remote(a)) {
    if (m->op.takes[1] != m->op.bar->home) wrong(m, ctx, "of another block than it says");
    m->remote[m->op.bar->home * m->threads + m->lo] = KNOWS(m, m->lo, m->lo);
    arrive(m, ctx, 0);
  } else if (strcmp(a, "mbar.arrive") == 0) arrive(m, ctx, 0);
  else if (strcmp(a, "mbar.wait") == 0) wait(m, ctx, m->op.takes[1]);
  else if (strncmp(a, "tma.", 4) == 0 && !is_store(a)) copied(m, ctx);
  m->op.tile = NULL;
}

bool rt_cuda_mbar_access(emulator *m, tn_ctx *ctx, const ir_buf *b, int64_t at, bool store, ir_scalar v) {
  operation *o = &m->op;
  bool copy = strncmp(o->tile->atom, "tma.", 4) == 0;
  if (strncmp(o->tile->atom, "mbar.init ", 10) == 0) {
    if (store) init(m, ctx, b, at);
  } else if (b == o->ops) {
    if (at >= MAX_OPERANDS) wrong(m, ctx, "more operands than there can be");
    o->takes[at] = v.i;
  } else if (is_store(o->tile->atom)) store_access(m, ctx, b, at, store);
  else if (!o->bar) { /* the first is the barrier */
    if (!(o->bar = bar_of(m, b, at))) wrong(m, ctx, ir_format(ctx, "'%s' element %lld is not initialised", b->name, (long long)at));
    check_made(m, ctx, o->bar);
    if (!is_remote(o->tile->atom) && o->bar->home != m->lo / m->width) wrong(m, ctx, "of another block");
    if (!copy) return true;
    if (m->hi - m->lo != 1) wrong(m, ctx, "more than one thread");
    receivers r = receivers_of(m);
    for (int n = 0; n < r.n; n++) {
      const mbar *to = bar_at(m, ctx, r.first + n * r.apart);
      check_made(m, ctx, to);
      check_phase(m, ctx, m->lo, to);
    }
  } else if (copy && !store) copy_load(m, ctx, b, at);
  else if (copy) copy_store(m, ctx, b, at, v);
  return true;
}
