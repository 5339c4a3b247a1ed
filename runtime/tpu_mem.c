/* tpu_mem.c — memories of the simulated machine: growth, bytes never written, unordered conflicts. */
#include "runtime/tpu_internal.h"
#include <stdio.h>
#include <string.h>

#define MAX_MEMORY ((int64_t)1 << 36) /* bytes of an on-chip memory that are really kept */

void tpu_fault(const tpu_core *c, const tpu_inst *i, int64_t number, const char *fmt, ...) {
  char message[400];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(message, sizeof message, fmt, ap);
  va_end(ap);
  ir_fail(c->sim->ctx, TN_EINPUT, "core %d, instruction %lld (%s): %s", c->id, (long long)number, tpu_ops[i->op].name, message);
}

void tpu_mem_open(tpu_mem *m, tn_ctx *ctx, tpu_space space, int64_t limit, bool checks) {
  *m = (tpu_mem){.ctx = ctx, .space = space, .limit = limit};
  m->undefined = checks ? ir_raw_alloc(ctx, 1) : NULL; /* says that there are checks; grows with the bytes */
}

static void grow(tpu_mem *m, int64_t need) {
  int64_t size = m->size ? m->size : 4096;
  while (size < need) size *= 2;
  if (size > m->limit) size = m->limit;
  if (size > MAX_MEMORY) ir_fail(m->ctx, TN_ERESOURCE, "the program touches %s byte %lld: more than is kept", tpu_space_names[m->space], (long long)need);
  uint8_t *bytes = ir_raw_alloc(m->ctx, (size_t)size), *undefined = NULL;
  memcpy(bytes, m->bytes ? m->bytes : bytes, (size_t)m->size);
  memset(bytes + m->size, 0, (size_t)(size - m->size));
  ir_raw_free(m->ctx, m->bytes);
  m->bytes = bytes;
  if (m->undefined) {
    undefined = ir_raw_alloc(m->ctx, (size_t)size);
    memcpy(undefined, m->undefined, (size_t)m->size);
    memset(undefined + m->size, 1, (size_t)(size - m->size));
    ir_raw_free(m->ctx, m->undefined);
    m->undefined = undefined;
  }
  m->size = size;
}

tpu_mem *tpu_mem_of(tpu_core *c, int space) { return space == TPU_DRAM ? &c->sim->dram : &c->mem[space]; }

void tpu_reach(tpu_core *c, const tpu_inst *i, int64_t number, int space, int64_t lo, int64_t hi) {
  if (lo == hi) return;
  tpu_mem *m = tpu_mem_of(c, space);
  if (lo < 0 || hi > m->limit)
    tpu_fault(c, i, number, "%s byte %lld is outside (%lld bytes)", tpu_space_names[space], (long long)(lo < 0 ? lo : hi - 1), (long long)m->limit);
  if (hi > m->size) grow(m, hi);
}

void tpu_define(tpu_mem *m, int64_t addr, int64_t n) {
  if (m->undefined) memset(m->undefined + addr, 0, (size_t)n);
}

void tpu_need_defined(tpu_core *c, const tpu_inst *i, int64_t number, const tpu_mem *m, int64_t addr, int64_t n) {
  if (!m->undefined) return;
  const uint8_t *bad = memchr(m->undefined + addr, 1, (size_t)n);
  if (bad) tpu_fault(c, i, number, "reads %s byte %lld, which was never written", tpu_space_names[m->space], (long long)(bad - m->undefined));
}

uint8_t *tpu_touch(tpu_core *c, const tpu_inst *i, int64_t number, int space, int64_t addr, int64_t n, bool write) {
  tpu_reach(c, i, number, space, addr, addr + n);
  tpu_mem *m = tpu_mem_of(c, space);
  if (write) tpu_define(m, addr, n);
  else tpu_need_defined(c, i, number, m, addr, n);
  return m->bytes + addr;
}

/* ---- order ---- */

static void remember(tn_ctx *ctx, tpu_unit_state *u, const tpu_box *b, int64_t index, int64_t number) {
  if (u->nrecent == u->recent_cap && u->recent_cap < TPU_RECENT) {
    int64_t cap = u->recent_cap ? 4 * u->recent_cap : 64;
    u->recent = ir_grow(ctx, u->recent, (size_t)u->recent_cap, (size_t)cap, sizeof *u->recent);
    u->recent_cap = cap;
  }
  u->recent[u->nrecent++ & (TPU_RECENT - 1)] = (tpu_access){index, number, *b};
  int64_t *bound = u->bound[b->space][b->write];
  if (bound[0] == bound[1]) bound[0] = b->lo, bound[1] = b->hi;
  if (b->lo < bound[0]) bound[0] = b->lo;
  if (b->hi > bound[1]) bound[1] = b->hi;
}

static bool may_meet(const tpu_unit_state *w, const tpu_box *b) {
  const int64_t (*r)[2] = w->bound[b->space];
  return (b->lo < r[1][1] && r[1][0] < b->hi) || (b->write && b->lo < r[0][1] && r[0][0] < b->hi);
}

/* What cores do in the DRAM between two barriers is in no order. */
static void check_cores(tpu_core *c, const tpu_pending *p, int n, const tpu_box *box) {
  tpu_sim *s = c->sim;
  if (!c->shared) c->shared = IR_NEW_ARRAY(s->ctx, tpu_access, TPU_RECENT);
  for (int k = 0; k < n; k++) {
    if (box[k].space != TPU_DRAM || (!box[k].write && box[k].hi <= s->constant)) continue;
    for (int o = 0; o < s->p->ncores; o++) {
      const tpu_core *other = &s->cores[o];
      for (int64_t a = other->nshared - 1; other != c && a >= 0 && a >= other->nshared - TPU_RECENT; a--) {
        const tpu_access *x = &other->shared[a & (TPU_RECENT - 1)];
        if ((x->box.write || box[k].write) && tpu_boxes_meet(&x->box, &box[k], false))
          tpu_fault(c, p->inst, p->number, "%s dram bytes %lld to %lld in no order with instruction %lld of core %d, which %s them", box[k].write ? "writes" : "reads",
                    (long long)box[k].lo, (long long)(box[k].hi - 1), (long long)x->number, o, x->box.write ? "writes" : "reads");
      }
    }
    c->shared[c->nshared++ & (TPU_RECENT - 1)] = (tpu_access){0, p->number, box[k]};
  }
}

void tpu_check_order(tpu_core *c, int unit, const tpu_pending *p, int64_t index) {
  tpu_box box[TPU_BOXES];
  int n = tpu_boxes(p->inst, box);
  const tpu_clock *now = &c->unit[unit].clock;
  for (int k = 0; k < n; k++) {
    for (int w = 0; w < TPU_UNITS; w++) {
      const tpu_unit_state *other = &c->unit[w];
      if (w == unit || !may_meet(other, &box[k])) continue;
      for (int64_t a = other->nrecent - 1; a >= 0 && a >= other->nrecent - TPU_RECENT; a--) {
        const tpu_access *x = &other->recent[a & (TPU_RECENT - 1)];
        if (x->index < now->known[w]) break;
        if (x->box.space != box[k].space || (!x->box.write && !box[k].write) || !tpu_boxes_meet(&x->box, &box[k], true)) continue;
        tpu_fault(c, p->inst, p->number, "%s %s bytes %lld to %lld in no order with instruction %lld of %s, which %s them",
                  box[k].write ? "writes" : "reads", tpu_space_names[box[k].space], (long long)(x->box.lo > box[k].lo ? x->box.lo : box[k].lo),
                  (long long)((x->box.hi < box[k].hi ? x->box.hi : box[k].hi) - 1), (long long)x->number, tpu_unit_names[w],
                  x->box.write ? "writes" : "reads");
      }
    }
  }
  if (c->sim->p->ncores > 1) check_cores(c, p, n, box);
  for (int k = 0; k < n; k++) remember(c->sim->ctx, &c->unit[unit], &box[k], index, p->number);
}
