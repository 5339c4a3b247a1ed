/* tpu_kernel.c — kernels: nests of independent loops in chunks, parameters on their way. See tpu_lower.h.
 *
 *   for each nest: lanes = as many iterations as the chip holds
 *     for each chunk: DRAM -> chip (stage) · statements · chip -> DRAM (unstage)
 */
#include "codegen/tpu_whole.h"
#include <string.h>

/* ---- parameters ---- */

static void whole(const tc *c, tc_mem *m) { /* all of it */
  int64_t s = m->width;
  for (int d = m->rank - 1; d >= 0; d--) {
    m->lo[d] = 0;
    m->n[d] = m->extent[d];
    m->stride[d] = s;
    s *= m->home.tiled && d == m->rank - 1 ? tc_pitch(c, m->extent[d]) : m->extent[d];
  }
  m->bytes = s;
}

static void note_access(tc *c, const ir_buf *b, bool store) {
  tc_mem *m = ir_map_get(&c->mems, b);
  if (!m) return;
  if (store) m->stored = true;
  else m->loaded = true;
}

static void note_expr(tc *c, ix e) {
  if (e->op == IX_LOAD) note_access(c, e->u.buf, false);
  for (int i = 0; i < e->nargs; i++) note_expr(c, e->args[i]);
}

static void note(tc *c, const ir_stmt *s) {
  if (!s) return;
  if (s->value) note_expr(c, s->value);
  if (s->lo) note_expr(c, s->lo), note_expr(c, s->hi);
  if (s->kind == IR_STORE) {
    for (int i = 0; i < s->buf->rank; i++) note_expr(c, s->index[i]);
    note_access(c, s->buf, true);
    if (s->op != IR_SET) note_access(c, s->buf, false);
  }
  for (int i = 0; i < s->n; i++) note(c, s->items[i]);
  note(c, s->body);
  note(c, s->other);
}

/* ---- staging ---- */

typedef struct reach { /* of a parameter within a chunk */
  tc_mem *m;
  int64_t lo[IR_MAX_RANK], hi[IR_MAX_RANK];
  bool any, irregular;
  int nstores;
  bool guarded;
  double written; /* elements, by the one store */
} reach;

typedef struct scan {
  tc *c;
  int n;
  reach *at;
  bool loads, stores; /* which accesses count */
  bool guarded;
  double times;
} scan;

static bool irregular(tc *c, ix e) { /* depends on data */
  if (e->op == IX_LOAD) return true;
  if (e->op == IX_VAR) {
    const tc_bind *b = tc_bound(c, e->u.var);
    if (b && b->kind == TC_EXPR) return irregular(c, b->e);
    return e->u.var->lo == INT64_MIN || e->u.var->hi == INT64_MAX;
  }
  for (int i = 0; i < e->nargs; i++)
    if (irregular(c, e->args[i])) return true;
  return false;
}

static void reach_access(scan *x, const ir_buf *b, const void *key, const ix *index) {
  reach *r = NULL;
  for (int i = 0; i < x->n && !r; i++)
    if (x->at[i].m->buf == b) r = &x->at[i];
  if (!r) return;
  const ix *p = tc_physical(x->c, b, key, index);
  for (int d = 0; d < r->m->rank; d++) {
    int64_t lo, hi, last = r->m->extent[d] - 1;
    tc_range(x->c, p[d], &lo, &hi);
    if (irregular(x->c, p[d])) r->irregular = true;
    lo = lo < 0 ? 0 : lo > last ? last : lo;
    hi = hi > last ? last : hi < 0 ? 0 : hi;
    if (!r->any || lo < r->lo[d]) r->lo[d] = lo;
    if (!r->any || hi > r->hi[d]) r->hi[d] = hi;
  }
  r->any = true;
}

static void reach_expr(scan *x, ix e) {
  if (e->op == IX_LOAD && x->loads) reach_access(x, e->u.buf, e, e->args);
  for (int i = 0; i < e->nargs; i++) reach_expr(x, e->args[i]);
}

static void reach_stmt(scan *x, const ir_stmt *s) {
  if (!s) return;
  bool guarded = x->guarded;
  double times = x->times;
  if (s->value) reach_expr(x, s->value);
  if (s->lo) reach_expr(x, s->lo), reach_expr(x, s->hi);
  switch (s->kind) {
  case IR_STORE:
    for (int i = 0; i < s->buf->rank; i++) reach_expr(x, s->index[i]);
    if (x->stores || s->op != IR_SET) reach_access(x, s->buf, s, s->index);
    for (int i = 0; i < x->n; i++)
      if (x->at[i].m->buf == s->buf) {
        x->at[i].nstores++;
        x->at[i].guarded |= x->guarded || s->op != IR_SET;
        x->at[i].written = x->times;
      }
    break;
  case IR_IF: case IR_WHILE: x->guarded = true; break;
  case IR_FOR: {
    int64_t a0, a1, b0, b1;
    tc_range(x->c, s->lo, &a0, &a1);
    tc_range(x->c, s->hi, &b0, &b1);
    if (a0 != a1 || b0 != b1) x->guarded = true;
    else x->times *= (double)(b1 > a0 ? b1 - a0 : 0);
    break;
  }
  default: break;
  }
  for (int i = 0; i < s->n; i++) reach_stmt(x, s->items[i]);
  reach_stmt(x, s->body);
  reach_stmt(x, s->other);
  x->guarded = guarded;
  x->times = times;
}

void tc_move_box(tc *c, bool load, const tc_mem *m) {
  int64_t dram = m->home.address, stride[IR_MAX_RANK], s = m->width;
  for (int d = m->rank - 1; d >= 0; d--) {
    stride[d] = s;
    dram += s * m->lo[d];
    s *= m->extent[d];
  }
  te_dma(c, load, m->rank, m->n, m->width, dram, stride, m->at, m->stride);
}

static void stage_one(tc *c, reach *r) {
  tc_mem *m = r->m;
  m->far = false;
  int64_t bytes = m->width;
  double elements = 1;
  for (int d = m->rank - 1; d >= 0; d--) {
    m->lo[d] = r->any ? r->lo[d] : 0;
    m->n[d] = r->any ? r->hi[d] - r->lo[d] + 1 : 0;
    m->stride[d] = bytes;
    bytes *= d == m->rank - 1 ? tc_pitch(c, m->n[d]) : m->n[d];
    elements *= (double)m->n[d];
  }
  m->bytes = r->any ? bytes : 0;
  if (!m->bytes) return;
  if (bytes > c->scratch_bytes / 4) {
    if (!r->irregular && c->limit > 1024 && c->nlanes) longjmp(*c->full, 1);
    m->far = true;
    return;
  }
  m->at = tc_alloc(c, bytes, true);
  m->base = m->at;
  m->partial = m->stored && (r->nstores != 1 || r->guarded || r->irregular || r->written != elements);
  if (m->loaded || m->partial) tc_move_box(c, true, m);
}

void tc_stage(tc *c, const ir_stmt *body) {
  scan x = {.c = c, .loads = true, .stores = true, .times = 1};
  x.at = IR_NEW_ARRAY(c->ctx, reach, c->k->nbufs);
  for (int i = 0; i < c->k->nbufs; i++) {
    tc_mem *m = ir_map_get(&c->mems, c->k->bufs[i]);
    if (!m->home.chip && (m->loaded || m->stored)) x.at[x.n++] = (reach){.m = m};
  }
  if (!x.n) return;
  for (int l = 0; l < c->nlanes; l++) x.times *= (double)c->box.n[l];
  c->open = true;
  reach_stmt(&x, body);
  c->open = false;
  for (int i = 0; i < x.n; i++) stage_one(c, &x.at[i]);
}

static void store_later(tc *c, const tc_mem *m) {
  tc_late l = {.m = *m, .lo = m->home.address, .hi = m->home.address + m->width};
  int64_t s = m->width;
  for (int d = m->rank - 1; d >= 0; d--) {
    l.lo += s * m->lo[d];
    l.hi += s * (m->lo[d] + m->n[d] - 1);
    s *= m->extent[d];
  }
  IR_PUSH(c->ctx, c->late, c->nlate, l);
}

void tc_store_late(tc *c) {
  int n = c->nlate;
  c->nlate = 0;
  for (int i = 0; i < n; i++) {
    tc_move_box(c, false, &c->late[i].m);
    tc_arena_put(&c->scratch, c->late[i].m.at, c->late[i].m.bytes);
  }
}

void tc_unstage(tc *c) {
  for (int i = 0; i < c->k->nbufs; i++) {
    tc_mem *m = ir_map_get(&c->mems, c->k->bufs[i]);
    if (m->home.chip || m->far || !m->bytes || !(m->loaded || m->stored)) continue;
    if (m->stored && !m->loaded && !m->partial && !c->dry) store_later(c, m);
    else {
      if (m->stored) tc_move_box(c, false, m);
      tc_arena_put(&c->scratch, m->at, m->bytes);
    }
    m->bytes = 0;
  }
}

/* Bytes of parameters that the iterations of a nest read and write: of the running core, for the survey. */
void tc_touches(tc *c, const tc_nest *nest) {
  tc_box box = c->box;
  int trail = c->ntrail;
  for (int i = 0; i < nest->n; i++) tc_push_lane(c, nest->loop[i]->var, nest->lo[i], nest->extent[i]);
  for (int write = 0; write < 2; write++) {
    scan x = {.c = c, .loads = !write, .stores = write, .n = c->k->nbufs, .times = 1};
    x.at = IR_NEW_ARRAY(c->ctx, reach, c->k->nbufs);
    for (int i = 0; i < c->k->nbufs; i++) x.at[i].m = ir_map_get(&c->mems, c->k->bufs[i]);
    c->open = true;
    reach_stmt(&x, nest->body);
    c->open = false;
    for (int i = 0; i < x.n; i++) {
      const reach *r = &x.at[i];
      int64_t lo = 0, hi = 0, s = r->m->width;
      for (int d = r->m->rank - 1; d >= 0; d--) {
        lo += s * r->lo[d];
        hi += s * r->hi[d];
        s *= r->m->extent[d];
      }
      if (r->any) tc_touch_slot(c, c->core, c->cores->slots[i], write, lo, hi + r->m->width);
    }
  }
  while (c->nlanes) tc_pop_lane(c);
  tc_unbind(c, trail);
  c->box = box;
}

/* ---- nests ---- */

static void nest_of(tc *c, const ir_stmt *s, tc_nest *nest) {
  *nest = (tc_nest){0};
  for (; s && s->kind == IR_FOR && nest->n < TC_LANES - 3; s = s->body) {
    if (!tc_loop_of(c, s)->parallel || !tc_uniform(c, s->lo) || !tc_uniform(c, s->hi)) break;
    int64_t lo, n = tc_trips(c, s, &lo);
    if (n == 1) {
      tc_bind_const(c, s->var, lo);
      continue;
    }
    nest->loop[nest->n] = s;
    nest->lo[nest->n] = lo;
    nest->extent[nest->n++] = n;
  }
  nest->body = s;
}

static const ir_stmt *output_store(tc *c, const ir_stmt *s) {
  if (!s) return NULL;
  const tc_mem *m = s->kind == IR_STORE ? ir_map_get(&c->mems, s->buf) : NULL;
  if (m) return s;
  for (int i = 0; i < s->n; i++) {
    const ir_stmt *f = output_store(c, s->items[i]);
    if (f) return f;
  }
  const ir_stmt *f = output_store(c, s->body);
  return f ? f : output_store(c, s->other);
}

void tc_nest_order(tc *c, const tc_nest *nest, int *order) {
  const ir_stmt *store = output_store(c, nest->body);
  int64_t far[TC_LANES] = {0};
  if (store) {
    ix offset = ir_buf_offset(c->ctx, store->buf, store->index);
    for (int i = 0; i < nest->n; i++)
      if (!ix_affine_in(offset, nest->loop[i]->var, &far[i])) far[i] = 0;
  }
  for (int i = 0; i < nest->n; i++) {
    int64_t f = far[i] < 0 ? -far[i] : far[i];
    int j = i;
    for (; j > 0; j--) {
      int64_t g = far[order[j - 1]] < 0 ? -far[order[j - 1]] : far[order[j - 1]];
      if (g >= f) break;
      order[j] = order[j - 1];
    }
    order[j] = i;
  }
}

/* Extents of a chunk: at most c->limit elements, cut from the outside in. */
static void chunk_extents(tc *c, const tc_nest *nest, const int *order, int64_t *n) {
  double total = (double)tc_weight(c, nest->body);
  for (int i = 0; i < nest->n; i++) total *= (double)(n[i] = nest->extent[i]);
  for (int i = 0; i < nest->n && total > (double)c->limit; i++) {
    int64_t *e = &n[order[i]];
    double rest = total / (double)*e;
    int64_t most = (int64_t)((double)c->limit / rest);
    if (most < 1) most = 1;
    int64_t parts = (*e + most - 1) / most;
    total = rest * (double)(*e = (*e + parts - 1) / parts);
  }
}

static void run_chunk(tc *c, const tc_nest *nest, const int *order, const int64_t *at, const int64_t *n) {
  tc_box box = c->box;
  int trail = c->ntrail;
  for (int i = 0; i < nest->n; i++) tc_push_lane(c, nest->loop[i]->var, nest->lo[i] + at[i], n[i] < nest->extent[i] - at[i] ? n[i] : nest->extent[i] - at[i]);
  for (int i = 0; i < nest->n; i++) c->lane_order[i] = order[i];
  tc_stage(c, nest->body);
  tc_store_late(c);
  tc_exec(c, nest->body);
  tc_unstage(c);
  for (int i = 0; i < nest->n; i++) tc_pop_lane(c);
  tc_unbind(c, trail);
  c->box = box;
}

bool tc_try(tc *c, void (*fn)(tc *c, void *arg), void *arg) {
  tc *saved = IR_NEW(c->ctx, tc);
  *saved = *c;
  jmp_buf full;
  c->dry = true;
  c->full = &full;
  volatile bool fits = setjmp(full) == 0;
  if (fits) fn(c, arg);
  tc_memo *memo = c->memo;
  ir_map binds = c->binds, mems = c->mems, loops = c->loops, physical = c->physical; /* may have grown */
  tc_unbind(c, saved->ntrail);
  tc_bind **trail = c->trail;
  *c = *saved;
  c->trail = trail;
  c->memo = memo;
  c->binds = binds;
  c->mems = mems;
  c->loops = loops;
  c->physical = physical;
  return fits;
}

typedef struct chunk {
  const tc_nest *nest;
  const int *order;
  const int64_t *at, *n;
} chunk;

static void chunk_alone(tc *c, void *arg) {
  const chunk *k = arg;
  run_chunk(c, k->nest, k->order, k->at, k->n);
}

static void all_chunks(tc *c, const tc_nest *nest, const int *order, int depth, int64_t *at, const int64_t *n) {
  if (depth == nest->n) {
    run_chunk(c, nest, order, at, n);
    return;
  }
  int l = order[depth];
  for (at[l] = 0; at[l] < nest->extent[l]; at[l] += n[l]) all_chunks(c, nest, order, depth + 1, at, n);
  at[l] = 0;
}

static bool empty(const tc_nest *nest) {
  for (int i = 0; i < nest->n; i++)
    if (nest->extent[i] <= 0) return true;
  return false;
}

static void run_nest(tc *c, const ir_stmt *s) {
  tc_nest nest;
  nest_of(c, s, &nest);
  if (!tc_part(c, &nest, s) || empty(&nest) || tc_contract(c, &nest)) {
    tc_unbind(c, 0);
    return;
  }
  int order[TC_LANES];
  int64_t n[TC_LANES], at[TC_LANES] = {0}, middle[TC_LANES];
  tc_nest_order(c, &nest, order);
  int64_t most = c->tile && c->tile->vector ? c->tile->vector : c->scratch_bytes / 48;
  for (c->limit = most;; c->limit /= 2) {
    chunk_extents(c, &nest, order, n);
    for (int i = 0; i < nest.n; i++) middle[i] = (nest.extent[i] / n[i]) / 2 * n[i];
    chunk first = {&nest, order, at, n}, other = {&nest, order, middle, n};
    if (tc_try(c, chunk_alone, &first) && tc_try(c, chunk_alone, &other)) break;
    if (c->limit <= 1) ir_fail(c->ctx, TN_EUNSUPPORTED, "kernel '%s': one element's values exceed the memory of %s", c->k->name, c->m->name);
  }
  all_chunks(c, &nest, order, 0, at, n);
  tc_store_late(c);
  tc_unbind(c, 0);
}

/* Whether a chunk may hold elements that it does not write: other than one plain store by loop variables. */
static bool writes_partly(tc *c, const ir_stmt *s, const ir_buf *b, int *stores) {
  if (!s) return false;
  bool part = false;
  if (s->kind == IR_STORE && s->buf == b) {
    const ix *at = tc_physical(c, b, s, s->index);
    int rank = ((const tc_mem *)ir_map_get(&c->mems, b))->rank;
    part = s->op != IR_SET || (*stores)++ > 0;
    for (int i = 0; i < rank; i++) part |= at[i]->op != IX_VAR && at[i]->op != IX_CONST;
  }
  if (s->kind == IR_IF || s->kind == IR_WHILE) {
    int inside = 0;
    writes_partly(c, s->body, b, &inside);
    writes_partly(c, s->other, b, &inside);
    part = inside > 0;
  }
  for (int i = 0; i < s->n; i++) part |= writes_partly(c, s->items[i], b, stores);
  part |= writes_partly(c, s->body, b, stores);
  part |= writes_partly(c, s->other, b, stores);
  return part;
}

static void survey(tc *c, const ir_stmt *s) {
  tc_nest nest;
  bool partly = false;
  nest_of(c, s, &nest);
  for (int i = 0; i < c->k->nbufs; i++) {
    int stores = 0;
    partly |= writes_partly(c, s, c->k->bufs[i], &stores);
  }
  if (empty(&nest)) tc_step_begin(c);
  else tc_survey(c, &nest, s, partly);
  tc_unbind(c, 0);
}

static void run_root(tc *c, const ir_stmt *s) {
  if (!s) return;
  if (s->kind == IR_SEQ)
    for (int i = 0; i < s->n; i++) run_root(c, s->items[i]);
  else if (c->cores->survey) survey(c, s);
  else {
    tc_step_meet(c, c->cores->homes);
    for (c->core = 0; c->core < c->ncores; c->core++) run_nest(c, s);
    c->core = 0;
  }
}

/* Zeros over a parameter in DRAM that is written in pieces: a piece is read, changed and written back whole. */
static void clear_partial(tc *c, const tc_mem *m) {
  int64_t total = m->width;
  for (int d = 0; d < m->rank; d++) total *= m->extent[d];
  if (!total) return;
  if (c->ncores > 1) tc_meet(c);
  int64_t at = tc_alloc(c, 64, false);
  tc_val zero = {.t = TN_U64, .space = TPU_UB, .base = at}, none = tc_imm(TN_U64, (ir_scalar){0});
  te_copy(c, &zero, &none, false);
  int64_t elements = total / m->width;
  te_dma(c, false, 1, &elements, m->width, m->home.address, (int64_t[]){m->width}, at, (int64_t[]){0});
  tc_arena_put(&c->scratch, at, 64);
  if (c->ncores > 1) tc_meet(c);
}

void tc_run_kernel(tc *c, const ir_kernel *k, const int *slots, const tc_home *home) {
  c->k = k;
  c->cores->survey = !home;
  c->cores->slots = slots;
  c->cores->homes = home;
  c->binds = c->mems = c->loops = c->physical = (ir_map){.ctx = c->ctx};
  c->nlanes = c->ntrail = 0;
  c->masked = false;
  memset(&c->box, 0, sizeof c->box);
  for (int i = 0; i < k->nbufs; i++) {
    ir_buf *b = k->bufs[i];
    tc_mem *m = IR_NEW(c->ctx, tc_mem);
    *m = (tc_mem){.buf = b, .width = (int)ir_dtype_bytes(b->dtype), .home = home ? home[slots[i]] : (tc_home){0}};
    ix shape[IR_MAX_RANK];
    m->rank = ir_layout_shape(c->ctx, b->layout, b->rank, b->shape, shape);
    for (int d = 0; d < m->rank; d++) m->extent[d] = ix_need_const(c->ctx, shape[d], "size of every buffer");
    if (m->home.chip) {
      whole(c, m);
      m->base = m->at = m->home.address;
    }
    ir_map_set(&c->mems, b, m);
  }
  const ir_stmt *body = tc_phases(c, k->body);
  note(c, body);
  for (int i = 0; i < k->nbufs && home; i++) {
    const tc_mem *m = ir_map_get(&c->mems, k->bufs[i]);
    int stores = 0;
    if (!m->home.chip && m->stored && k->bufs[i]->access == IR_OUT && writes_partly(c, body, k->bufs[i], &stores)) clear_partial(c, m);
  }
  run_root(c, body);
}
