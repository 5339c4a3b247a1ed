/* cuda_emulate.c — see cuda_emulate.h.
 *
 * Clocks are FastTrack's (Flanagan and Freund, PLDI 2009): an access is a thread and its clock; thread u knows of it
 * when its own vector holds at least that clock for that thread. An mbarrier is one more thread to them: its clock is the
 * number of phases that are over, and the bytes of a copy are written by it (runtime/cuda_mbar.c). */
#include "runtime/cuda_emulate_internal.h"
#include <stdlib.h>
#include <string.h>

/* ---- shadows ---- */

static void shadow_begin(emulator *m, const ir_buf *b, int64_t n) {
  shadow *s = NULL;
  for (int i = 0; i < m->nshadows; i++)
    if (m->shadows[i].buf == b) s = &m->shadows[i];
  if (!s) {
    shadow new = {.buf = b, .n = n, .cells = ir_raw_alloc(m->ctx, (size_t)(n + 1) * sizeof(cell))};
    memset(new.cells, 0, (size_t)(n + 1) * sizeof(cell));
    IR_PUSH(m->ctx, m->shadows, m->nshadows, new);
    s = &m->shadows[m->nshadows - 1];
  }
  for (int64_t i = 0; i < s->n; i++) {
    s->cells[i].write = s->cells[i].read = (epoch){.thread = NOBODY};
    memset(s->cells[i].product, 0, sizeof s->cells[i].product);
    s->cells[i].owner = s->cells[i].leaving = 0;
    if (s->cells[i].readers) memset(s->cells[i].readers, 0, (size_t)m->threads * sizeof(uint32_t));
  }
  int64_t axis;
  if (b->space != IR_SHARED && m->hi - m->lo == m->threads && b->rank && ix_const_value(b->shape[0], &axis) && axis == m->threads) s->private_elements = n / axis;
}

static void global_begin(emulator *m, const ir_buf *b, int64_t n) {
  int hi = m->hi;
  m->hi = 0; /* nobody's own */
  shadow_begin(m, b, n);
  m->shadows[m->nshadows - 1].global = true;
  m->hi = hi;
}

static void release(void *arg) {
  emulator *m = arg;
  for (int i = 0; i < m->nshadows; i++) {
    for (int64_t k = 0; k < m->shadows[i].n; k++)
      if (m->shadows[i].cells[k].readers) ir_raw_free(m->ctx, m->shadows[i].cells[k].readers);
    ir_raw_free(m->ctx, m->shadows[i].cells);
  }
  m->nshadows = 0;
}

/* ---- accesses ---- */

IR_NORETURN static void wrong(emulator *m, tn_ctx *ctx, const ir_buf *b, int64_t at, const char *what, int other) {
  ir_fail(ctx, TN_EWRONG, "kernel '%s': block %lld: thread %d: '%s' element %lld: %s%s", m->tile->kernel->name, (long long)m->block, m->lo, b->name, (long long)at, what,
          other >= 0 ? ir_format(ctx, " (thread %d)", other) : "");
}

/* Settles an epoch whose group is over. False: it is still under way. */
static bool settle(emulator *m, epoch *e) {
  if (!e->pending) return true;
  const async *a = e->pending == COPY ? &m->copies[e->thread] : &m->writes[e->thread];
  if (e->clock >= a->done) return false;
  e->clock = a->over[e->clock % GROUPS];
  e->pending = 0;
  return true;
}

static bool ordered(emulator *m, const epoch *e, int thread) {
  return e->thread == NOBODY || e->thread == thread || KNOWS(m, thread, e->thread) >= e->clock;
}

static void check_write_known(emulator *m, tn_ctx *ctx, shadow *s, int64_t at, const char *late, const char *race) {
  cell *c = &s->cells[at];
  if (!settle(m, &c->write)) wrong(m, ctx, s->buf, at, late, c->write.thread);
  if (!ordered(m, &c->write, m->lo)) wrong(m, ctx, s->buf, at, race, c->write.thread);
}

/* Products that read the element must be over, and known to be, before it changes. */
static void check_products(emulator *m, tn_ctx *ctx, shadow *s, int64_t at) {
  cell *c = &s->cells[at];
  for (int w = 0; w < MAX_GROUPS; w++) {
    if (!c->product[w]) continue;
    const async *a = &m->products[w * 128];
    uint32_t g = c->product[w] - 1;
    if (g >= a->done) wrong(m, ctx, s->buf, at, "written while a product may read it", w * 128);
    if (w * 128 != m->lo && a->over[g % GROUPS] > KNOWS(m, m->lo, w * 128)) wrong(m, ctx, s->buf, at, "written without a barrier after a product of another warpgroup", w * 128);
    c->product[w] = 0;
  }
}

/* So must be what the TMA unit takes out of shared memory. */
static void check_leaving(emulator *m, tn_ctx *ctx, shadow *s, int64_t at) {
  cell *c = &s->cells[at];
  if (!c->leaving) return;
  const async *a = &m->reads[c->leaver];
  uint32_t g = c->leaving - 1;
  if (g >= a->done) wrong(m, ctx, s->buf, at, "written while the TMA unit may read it", c->leaver);
  if (c->leaver != m->lo && a->over[g % GROUPS] > KNOWS(m, m->lo, c->leaver)) wrong(m, ctx, s->buf, at, "written without a barrier after the TMA unit's read", c->leaver);
  c->leaving = 0;
}

/* A product reads shared memory between its issue and its wait. */
static void on_product_read(emulator *m, tn_ctx *ctx, shadow *s, int64_t at) {
  cell *c = &s->cells[at];
  check_write_known(m, ctx, s, at, "a product reads it while a copy may be under way", "a product reads it without a barrier after a write");
  if (c->write.thread < m->threads && c->write.clock > m->proxied[c->write.thread]) wrong(m, ctx, s->buf, at, "a product reads it without a fence between the proxies", c->write.thread);
  c->product[m->lo / 128] = m->products[m->lo].open + 1;
}

/* Accumulators: nobody's but the product's from its issue to its wait; fenced off from the thread's own stores before. */
static void on_private(emulator *m, tn_ctx *ctx, shadow *s, int64_t at, bool store) {
  int64_t owner = at / s->private_elements;
  if (owner < m->lo || owner >= m->hi) wrong(m, ctx, s->buf, at, "an array of another thread", (int)owner);
  cell *c = &s->cells[at];
  int w = (int)owner / 128;
  if (m->multiplying) {
    if (c->owner > (int64_t)m->fenced[w]) wrong(m, ctx, s->buf, at, "a product takes what the thread stored without a fence", (int)owner);
    c->product[0] = m->products[w * 128].open + 1;
    return;
  }
  if (c->product[0] && c->product[0] - 1 >= m->products[w * 128].done) wrong(m, ctx, s->buf, at, "touched while a product may be under way", (int)owner);
  c->product[0] = 0;
  if (store) c->owner = (int64_t)++m->stores;
}

static void on_read(emulator *m, tn_ctx *ctx, shadow *s, int64_t at) {
  cell *c = &s->cells[at];
  check_write_known(m, ctx, s, at, "read while a copy into it may be under way", "read without a barrier after another thread's write");
  uint32_t now = KNOWS(m, m->lo, m->lo);
  if (c->readers) c->readers[m->lo] = now;
  else if (c->read.thread == NOBODY || ordered(m, &c->read, m->lo)) c->read = (epoch){.thread = (uint16_t)m->lo, .clock = now};
  else {
    c->readers = ir_raw_alloc(m->ctx, (size_t)m->threads * sizeof(uint32_t));
    memset(c->readers, 0, (size_t)m->threads * sizeof(uint32_t));
    c->readers[c->read.thread] = c->read.clock;
    c->readers[m->lo] = now;
  }
}

/* All that touched the element before is over, and known to be. */
static void check_free(emulator *m, tn_ctx *ctx, shadow *s, int64_t at) {
  cell *c = &s->cells[at];
  check_write_known(m, ctx, s, at, "written while a copy into it may be under way", "written without a barrier after another thread's write");
  check_products(m, ctx, s, at);
  check_leaving(m, ctx, s, at);
  if (!ordered(m, &c->read, m->lo)) wrong(m, ctx, s->buf, at, "written without a barrier after another thread's read", c->read.thread);
  for (int t = 0; c->readers && t < m->threads; t++) {
    if (t != m->lo && c->readers[t] > KNOWS(m, m->lo, t)) wrong(m, ctx, s->buf, at, "written without a barrier after another thread's read", t);
    c->readers[t] = 0;
  }
  c->read.thread = NOBODY;
}

static void on_write(emulator *m, tn_ctx *ctx, shadow *s, int64_t at) {
  cell *c = &s->cells[at];
  check_free(m, ctx, s, at);
  c->write = (epoch){.thread = (uint16_t)m->lo, .clock = KNOWS(m, m->lo, m->lo)};
  if (m->copying) c->write = (epoch){.thread = (uint16_t)m->lo, .pending = COPY, .clock = m->copies[m->lo].open};
}

static shadow *shadow_of(emulator *m, const ir_buf *b) {
  for (int i = 0; i < m->nshadows; i++)
    if (m->shadows[i].buf == b) return &m->shadows[i];
  return NULL;
}

int64_t rt_cuda_share(emulator *m, const ir_buf *b) {
  const shadow *s = shadow_of(m, b);
  return s ? s->n / rt_cuda_blocks(m) : 0;
}

int rt_cuda_home(emulator *m, const ir_buf *b, int64_t at) {
  int64_t share = rt_cuda_share(m, b);
  return share ? (int)(at / share) : 0;
}

void rt_cuda_copied(emulator *m, tn_ctx *ctx, const ir_buf *b, int64_t at, int bar) {
  shadow *s = shadow_of(m, b);
  if (!s || b->space != IR_SHARED) ir_fail(ctx, TN_EWRONG, "'%s' is no shared memory", b->name);
  cell *c = &s->cells[at];
  check_free(m, ctx, s, at);
  if (c->write.thread < m->threads && c->write.clock > m->proxied[c->write.thread]) wrong(m, ctx, b, at, "a copy writes it without a fence between the proxies", c->write.thread);
  c->write = (epoch){.thread = (uint16_t)(m->threads + bar), .clock = m->bars[bar].phase + 1};
}

void rt_cuda_leaves(emulator *m, tn_ctx *ctx, const ir_buf *b, int64_t at) {
  shadow *s = shadow_of(m, b);
  if (!s || b->space != IR_SHARED) ir_fail(ctx, TN_EWRONG, "'%s' is no shared memory", b->name);
  cell *c = &s->cells[at];
  check_write_known(m, ctx, s, at, "the TMA unit reads it while a copy into it may be under way", "the TMA unit reads it without a barrier after a write");
  int by = c->write.thread;
  if (by < m->threads && (c->write.clock > m->proxied[by] || (by != m->lo && m->proxied[by] > KNOWS(m, m->lo, by)))) wrong(m, ctx, b, at, "the TMA unit reads it without a fence between the proxies", by);
  c->leaver = (uint16_t)m->lo;
  c->leaving = m->reads[m->lo].used = m->reads[m->lo].open + 1;
}

/* Global memory: within a launch blocks meet nowhere, threads of a block at barriers. */
static void on_global(emulator *m, tn_ctx *ctx, shadow *s, int64_t at, bool store) {
  cell *c = &s->cells[at];
  int64_t me = m->block + 1;
  if (c->owner && c->owner != me) wrong(m, ctx, s->buf, at, store ? "written by two blocks" : "read after another block's write", -1);
  if (!c->owner && !store) return; /* nobody wrote it in this launch */
  if (!settle(m, &c->write)) wrong(m, ctx, s->buf, at, "touched while the TMA unit may write it", c->write.thread);
  if (c->owner) {
    const epoch *e = store && c->read.thread != NOBODY ? &c->read : &c->write;
    if (!ordered(m, e, m->lo)) wrong(m, ctx, s->buf, at, "touched by two threads without a barrier", e->thread);
  }
  c->owner = me;
  *(store ? &c->write : &c->read) = (epoch){.thread = (uint16_t)m->lo, .clock = KNOWS(m, m->lo, m->lo)};
}

void rt_cuda_left(emulator *m, tn_ctx *ctx, const ir_buf *b, int64_t at) {
  shadow *s = shadow_of(m, b);
  if (!s) ir_fail(ctx, TN_EWRONG, "'%s' is nothing that a kernel writes", b->name);
  on_global(m, ctx, s, at, true);
  s->cells[at].write = (epoch){.thread = (uint16_t)m->lo, .pending = BULK, .clock = m->writes[m->lo].open};
}

static void access(void *user, tn_ctx *ctx, const ir_buf *b, int64_t at, bool store, ir_scalar v) {
  emulator *m = user;
  if (b == m->vector) {
    if (at * (int64_t)ir_dtype_bytes(b->dtype) % m->vector_bytes) wrong(m, ctx, b, at, "neighbours moved together that are not aligned", -1);
    m->vector = NULL;
  }
  if (store && b == m->matrix) {
    if (m->matrix_elements++ % 8 ? at != m->matrix_at + 1 : at % 8) wrong(m, ctx, b, at, "a row of a matrix that is not 16 bytes side by side", -1);
    m->matrix_at = at;
  }
  if (m->op.tile && rt_cuda_mbar_access(m, ctx, b, at, store, v)) return;
  if (b->space == IR_GLOBAL && b->access == IR_IN) return;
  shadow *s = shadow_of(m, b);
  if (!s) return; /* a thread's own */
  if (s->global) {
    if (m->launch) on_global(m, ctx, s, at, store);
    return;
  }
  if (s->private_elements) {
    on_private(m, ctx, s, at, store);
    return;
  }
  if (b->space != IR_SHARED) return;
  if (rt_cuda_blocks(m) > 1 && rt_cuda_home(m, b, at) != m->lo / m->width) wrong(m, ctx, b, at, "shared memory of another block", -1);
  if (m->multiplying) {
    if (!store) on_product_read(m, ctx, s, at);
    return;
  }
  if (store) on_write(m, ctx, s, at);
  else on_read(m, ctx, s, at);
}

/* ---- threads ---- */

static void block_begin(emulator *m) {
  memset(m->clock, 0, (size_t)m->threads * (size_t)rt_cuda_width(m) * sizeof *m->clock);
  rt_cuda_mbar_begin(m);
  for (int t = 0; t < m->threads; t++) KNOWS(m, t, t) = 1;
  memset(m->copies, 0, (size_t)m->threads * sizeof *m->copies);
  memset(m->products, 0, (size_t)m->threads * sizeof *m->products);
  memset(m->reads, 0, (size_t)m->threads * sizeof *m->reads);
  memset(m->writes, 0, (size_t)m->threads * sizeof *m->writes);
  memset(m->proxied, 0, (size_t)m->threads * sizeof *m->proxied);
  memset(m->announced, 0, (size_t)m->threads * sizeof *m->announced);
  memset(m->remote, 0, (size_t)rt_cuda_blocks(m) * (size_t)m->threads * sizeof *m->remote);
  memset(m->fenced, 0, sizeof m->fenced);
  memset(m->fences, 0, sizeof m->fences);
  m->stores = 0;
  m->lo = 0;
  m->hi = m->threads;
}

static void launch_begin(emulator *m) {
  for (int i = 0; i < m->nshadows; i++) {
    shadow *s = &m->shadows[i];
    for (int64_t k = 0; s->global && k < s->n; k++) s->cells[k] = (cell){.write = {.thread = NOBODY}, .read = {.thread = NOBODY}};
  }
  m->block = -1;
}

static void block_end(emulator *m, tn_ctx *ctx) {
  rt_cuda_mbar_end(m, ctx);
  for (int t = 0; t < m->threads; t++)
    if (m->reads[t].used > m->reads[t].done) ir_fail(ctx, TN_EWRONG, "kernel '%s': block %lld ends while the TMA unit may read its shared memory (thread %d)", m->tile->kernel->name, (long long)m->block, t);
}

static void loop(void *user, tn_ctx *ctx, const ir_stmt *s, int64_t value, bool enter) {
  emulator *m = user;
  if (s->loop == IR_GRID) {
    if (enter && m->depth == 0 && s != m->launch) {
      bool inside = false; /* a loop further in of the same launch */
      for (const ir_stmt *x = m->launch; x && x->kind == IR_FOR && x->loop == IR_GRID; x = x->body) inside |= x == s;
      if (!inside) {
        m->launch = s;
        m->threads = m->hi = m->width * (cu_clustered(s) ? m->tile->cluster : 1);
        launch_begin(m);
      }
    }
    if (s->body && s->body->kind == IR_FOR && s->body->loop == IR_GRID) return;
    if (!enter) block_end(m, ctx);
    else {
      m->block++;
      block_begin(m);
    }
    return;
  }
  if (!enter) {
    m->depth--;
    m->lo = m->saved[m->depth][0];
    m->hi = m->saved[m->depth][1];
    return;
  }
  if (m->depth == IR_COUNT(m->saved)) ir_bug(ctx, "loops over threads too deep");
  m->saved[m->depth][0] = m->lo;
  m->saved[m->depth++][1] = m->hi;
  int width = s->loop == IR_CLUSTER ? m->width : s->loop == IR_WARPGROUP ? 128 : s->loop == IR_WARP ? 32 : 1;
  m->lo += (int)value * width;
  if (m->lo < 0 || m->lo + width > m->hi) ir_fail(ctx, TN_EWRONG, "kernel '%s': loop '%s': %lld is no thread of the block", m->tile->kernel->name, s->var->name, (long long)value);
  m->hi = m->lo + width;
}

/* All threads of the statement learn what each of them knows. */
static void meet(emulator *m) {
  size_t n = (size_t)rt_cuda_width(m);
  uint32_t *all = &KNOWS(m, m->lo, 0);
  for (int t = m->lo + 1; t < m->hi; t++)
    for (size_t i = 0; i < n; i++)
      if (KNOWS(m, t, i) > all[i]) all[i] = KNOWS(m, t, i);
  for (int t = m->lo + 1; t < m->hi; t++) memcpy(&KNOWS(m, t, 0), all, n * sizeof *all);
  for (int t = m->lo; t < m->hi; t++) KNOWS(m, t, t)++;
}

static void commit(emulator *m, async *of, int step) {
  for (int t = m->lo; t < m->hi; t += step) of[t].open++;
}

static void wait_for(emulator *m, async *of, int step, int left) {
  for (int t = m->lo; t < m->hi; t += step) {
    async *a = &of[t];
    for (; a->done + (uint32_t)left < a->open; a->done++) a->over[a->done % GROUPS] = KNOWS(m, t, t);
  }
}

/* Neighbours in global memory and a thread's array: for v: one = the other. */
static void vector(emulator *m, const ir_stmt *s, bool load) {
  const ir_stmt *one = s->body->body;
  m->vector = load ? one->value->u.buf : one->buf;
  m->vector_bytes = (s->body->var->hi + 1) * (int64_t)ir_dtype_bytes(one->buf->dtype);
}

static void tile(void *user, tn_ctx *ctx, const ir_stmt *s, bool enter) {
  emulator *m = user;
  const char *a = s->atom;
  if (rt_cuda_mbar_atom(a)) rt_cuda_mbar_tile(m, ctx, s, enter);
  else if (strcmp(a, "cp.async") == 0) {
    if (m->hi - m->lo != 1) ir_fail(ctx, TN_EWRONG, "a copy that is no thread's");
    m->copying = enter;
  } else if (strncmp(a, "wgmma.", 6) == 0) {
    if (m->hi - m->lo != 128) ir_fail(ctx, TN_EWRONG, "a product that is no warpgroup's");
    if (enter && !m->fences[m->lo / 128]) ir_fail(ctx, TN_EWRONG, "the first product of a warpgroup comes without a fence");
    m->multiplying = enter;
  } else if (strcmp(a, "stmatrix.x4") == 0) {
    if (m->hi - m->lo != 32) ir_fail(ctx, TN_EWRONG, "matrices that are stored by no warp");
    const ir_stmt *inner = s->body;
    while (inner->kind == IR_FOR) inner = inner->body;
    m->matrix = enter ? inner->buf : NULL;
    m->matrix_elements = 0;
  } else if (!enter) return;
  else if (strcmp(a, "load") == 0 || strcmp(a, "store") == 0) vector(m, s, *a == 'l');
  else if (strncmp(a, "wg.", 3) == 0) {
    if ((m->hi - m->lo) % 128) ir_fail(ctx, TN_EWRONG, "'%s' that is no warpgroup's", a);
    if (strcmp(a, "wg.fence") == 0)
      for (int t = m->lo; t < m->hi; t += 128) m->fenced[t / 128] = m->stores, m->fences[t / 128] = true;
    else if (strcmp(a, "wg.commit") == 0) commit(m, m->products, 128);
    else wait_for(m, m->products, 128, atoi(a + 8));
  } else if (strcmp(a, "fence.proxy") == 0) {
    for (int t = m->lo; t < m->hi; t++) m->proxied[t] = KNOWS(m, t, t)++;
  } else if (strcmp(a, "group.sync") == 0) {
    if (m->hi - m->lo != 128) ir_fail(ctx, TN_EWRONG, "'%s' that is no warpgroup's", a);
    meet(m);
  } else if (strncmp(a, "bulk.", 5) == 0) {
    if (strcmp(a, "bulk.commit") == 0) {
      commit(m, m->reads, 1);
      commit(m, m->writes, 1);
    } else {
      wait_for(m, m->reads, 1, atoi(strchr(a, ' ') + 1));
      if (strncmp(a, "bulk.wait ", 10) == 0) wait_for(m, m->writes, 1, atoi(a + 10));
    }
  } else if (strcmp(a, "fence.init") == 0) {
    for (int t = m->lo; t < m->hi; t++) m->announced[t] = KNOWS(m, t, t)++;
  } else if (strcmp(a, "cluster.sync") == 0) {
    if (m->hi - m->lo != m->threads) ir_fail(ctx, TN_EWRONG, "kernel '%s': a barrier that not all blocks of a cluster reach", m->tile->kernel->name);
    meet(m);
  } else if (strcmp(a, "barrier") == 0) {
    if (m->hi - m->lo > m->width) ir_fail(ctx, TN_EWRONG, "kernel '%s': a barrier of several blocks", m->tile->kernel->name);
    if (m->hi - m->lo < m->width && (m->hi - m->lo) % 32) ir_fail(ctx, TN_EWRONG, "kernel '%s': a barrier that not all threads reach", m->tile->kernel->name);
    meet(m);
  } else if (strcmp(a, "warp.sync") == 0) {
    if ((m->hi - m->lo) % 32) ir_fail(ctx, TN_EWRONG, "a barrier within a warp that not all its lanes reach");
    int lo = m->lo, hi = m->hi;
    for (int w = lo; w < hi; w += 32) {
      m->lo = w;
      m->hi = w + 32;
      meet(m);
    }
    m->lo = lo;
    m->hi = hi;
  } else if (strcmp(a, "cp.commit") == 0) commit(m, m->copies, 1);
  else if (strncmp(a, "cp.wait ", 8) == 0) wait_for(m, m->copies, 1, atoi(a + 8));
}

static void scope(void *user, tn_ctx *ctx, const ir_buf *b, int64_t n) {
  emulator *m = user;
  (void)ctx;
  if (!m->launch && !m->depth) { /* what launches pass on */
    global_begin(m, b, n);
    return;
  }
  if (b->space == IR_SHARED || m->hi - m->lo == m->threads) shadow_begin(m, b, n);
}

static void run(tn_ctx *ctx, void *arg) {
  void **a = arg;
  ir_interp_opt(ctx, a[0], a[1], a[2], a[3]);
}

void rt_cuda_emulate(tn_ctx *ctx, const cu_tile *t, void *const *args, const int64_t *dims, uint64_t seed) {
  const char *invalid = ir_kernel_verify(ctx, t->kernel);
  if (invalid) ir_fail(ctx, TN_EWRONG, "the tile program is not valid: %s", invalid);
  size_t blocks = t->cluster > 1 ? (size_t)t->cluster : 1, n = (size_t)t->threads * blocks;
  emulator m = {.ctx = ctx, .tile = t, .threads = (int)n, .width = t->threads, .hi = (int)n, .clock = ir_alloc_array(ctx, n * (n + MAX_MBARS), sizeof(uint32_t)), .copies = IR_NEW_ARRAY(ctx, async, n), .products = IR_NEW_ARRAY(ctx, async, n), .reads = IR_NEW_ARRAY(ctx, async, n), .writes = IR_NEW_ARRAY(ctx, async, n), .proxied = IR_NEW_ARRAY(ctx, uint32_t, n), .announced = IR_NEW_ARRAY(ctx, uint32_t, n), .remote = IR_NEW_ARRAY(ctx, uint32_t, n * blocks)};
  if (n > 128 * MAX_GROUPS) ir_fail(ctx, TN_EUNSUPPORTED, "a block of %zu threads", n);
  for (int i = 0; i < t->kernel->nbufs; i++) {
    int64_t count;
    ir_buf *b = t->kernel->bufs[i];
    if (b->access == IR_IN || !ix_const_value(ir_buf_elements(ctx, b), &count)) continue;
    global_begin(&m, b, count);
  }
  ir_observer o = {&m, loop, tile, access, scope};
  ir_interp_options options = {.observer = &o, .seed = seed};
  void *a[] = {(void *)t->kernel, (void *)args, (void *)dims, &options};
  tn_status status = ir_protect(ctx, run, a);
  const char *message = status ? ir_strdup(ctx, ir_error(ctx)) : NULL;
  release(&m);
  if (status) ir_fail(ctx, status, "%s", message);
}
