/* tpu_exec.c — what DMA, weights, gather and scatter do to the memories. */
#include "ir/interp.h"
#include "runtime/tpu_internal.h"
#include <string.h>

void tpu_work(tpu_core *c, int64_t n) {
  tpu_sim *s = c->sim;
  s->work += n;
  if (s->work > s->o.max_work) ir_fail(s->ctx, TN_ERESOURCE, "core %d: gives up after %lld elements of work", c->id, (long long)s->o.max_work);
}

void *tpu_scratch(tpu_core *c, size_t bytes) {
  if (bytes > c->scratch_bytes) {
    tn_ctx *ctx = c->sim->ctx;
    ir_raw_free(ctx, c->scratch);
    c->scratch = NULL;
    c->scratch_bytes = 0;
    c->scratch = ir_raw_alloc(ctx, bytes);
    c->scratch_bytes = bytes;
  }
  return c->scratch;
}

/* ---- boxes ---- */

static bool each_run(const tpu_box *b, int d, int64_t base, bool (*fn)(tpu_mem *m, int64_t addr, int64_t n), tpu_mem *m) {
  if (d == b->n) return fn(m, base, b->run);
  for (int64_t k = 0; k < b->extent[d]; k++)
    if (!each_run(b, d + 1, base + k * b->stride[d], fn, m)) return false;
  return true;
}

static bool run_defined(tpu_mem *m, int64_t addr, int64_t n) { return !memchr(m->undefined + addr, 1, (size_t)n); }
static bool run_define(tpu_mem *m, int64_t addr, int64_t n) {
  memset(m->undefined + addr, 0, (size_t)n);
  return true;
}

bool tpu_box_defined(tpu_core *c, const tpu_box *b) {
  tpu_mem *m = tpu_mem_of(c, b->space);
  return b->lo >= b->hi || !m->undefined || each_run(b, 0, b->lo, run_defined, m);
}

void tpu_box_define(tpu_core *c, const tpu_box *b) {
  tpu_mem *m = tpu_mem_of(c, b->space);
  if (b->lo < b->hi && m->undefined) each_run(b, 0, b->lo, run_define, m);
}

typedef struct finder { tpu_core *c; const tpu_inst *i; int64_t number; } finder;

static void fault_in_runs(const finder *f, const tpu_box *b, int d, int64_t base) {
  if (d == b->n) {
    tpu_need_defined(f->c, f->i, f->number, tpu_mem_of(f->c, b->space), base, b->run);
    return;
  }
  for (int64_t k = 0; k < b->extent[d]; k++) fault_in_runs(f, b, d + 1, base + k * b->stride[d]);
}

uint8_t *tpu_operand_bytes(tpu_core *c, const tpu_inst *i, int64_t number, const tpu_operand *o, const tpu_box *box) {
  int64_t size = (int64_t)ir_dtype_bytes((tn_dtype)o->dtype);
  if (o->addr % size) tpu_fault(c, i, number, "%s byte %lld is no multiple of %lld", tpu_space_names[o->space], (long long)o->addr, (long long)size);
  tpu_reach(c, i, number, o->space, box->lo, box->hi);
  if (!box->write && !tpu_box_defined(c, box)) fault_in_runs(&(finder){c, i, number}, box, 0, box->lo);
  if (box->write) tpu_box_define(c, box);
  return tpu_mem_of(c, o->space)->bytes; /* the caller adds its addresses: o->addr may lie outside when nothing is read there */
}

/* ---- DMA ---- */

static bool in_range(const tpu_pad *p, int d, int64_t at) { return !p->size[d] || (at >= 0 && at < p->size[d]); }

static void copy_row(uint8_t *to, int64_t to_stride, const uint8_t *from, int64_t from_stride, int64_t n, size_t size) {
  if (to_stride == (int64_t)size && from_stride == (int64_t)size) memmove(to, from, (size_t)n * size);
  else
    for (int64_t k = 0; k < n; k++) memmove(to + k * to_stride, from + k * from_stride, size);
}

static void dma(tpu_core *c, const tpu_inst *i, int64_t number) {
  const tpu_operand *d = &i->dst, *s = &i->src;
  const tpu_pad *p = &i->pad;
  size_t size = ir_dtype_bytes((tn_dtype)d->dtype);
  tpu_box box[TPU_BOXES];
  int n = tpu_boxes(i, box);
  uint8_t *to = NULL, *from = NULL;
  for (int k = n - 1; k >= 0; k--) /* reads are looked at before writes define */
    *(box[k].write ? &to : &from) = tpu_operand_bytes(c, i, number, box[k].write ? d : s, &box[k]);
  if (!to) return;
  if (from) from = tpu_mem_of(c, s->space)->bytes; /* growing the other side may have moved it */
  const int32_t *e = i->extent;
  int64_t sz = (int64_t)size, lo = 0, hi = e[3]; /* columns inside */
  if (p->size[3]) {
    lo = p->first[3] < 0 ? -(int64_t)p->first[3] : 0;
    hi = (int64_t)p->size[3] - p->first[3];
    if (hi > e[3]) hi = e[3];
    if (lo > e[3]) lo = e[3];
    if (hi < lo) hi = lo;
  }
  for (int64_t a = 0; a < e[0]; a++)
    for (int64_t b = 0; b < e[1]; b++)
      for (int64_t r = 0; r < e[2]; r++) {
        int64_t at = d->addr + (a * d->stride[0] + b * d->stride[1] + r * d->stride[2]) * sz, ds = d->stride[3] * sz;
        bool inside = in_range(p, 0, p->first[0] + a) && in_range(p, 1, p->first[1] + b) && in_range(p, 2, p->first[2] + r);
        int64_t first = inside ? lo : e[3], last = inside ? hi : e[3];
        for (int64_t k = 0; k < first; k++) memcpy(to + at + k * ds, &p->fill, size);
        int64_t x = s->addr + ((p->first[0] + a) * s->stride[0] + (p->first[1] + b) * s->stride[1] + (p->first[2] + r) * s->stride[2] +
                               (p->first[3] + first) * s->stride[3]) * sz;
        if (last > first) copy_row(to + at + first * ds, ds, from + x, s->stride[3] * sz, last - first, size);
        for (int64_t k = last > first ? last : first; k < e[3]; k++) memcpy(to + at + k * ds, &p->fill, size);
      }
}

/* Element j of the index vector, which has been checked. */
static int64_t index_at(const tpu_inst *i, const uint8_t *memory, int64_t offset) {
  return ir_scalar_load((tn_dtype)i->index.dtype, memory + i->index.addr + offset * (int64_t)ir_dtype_bytes((tn_dtype)i->index.dtype)).i;
}

static int64_t address(tpu_core *c, const tpu_inst *i, int64_t number, int64_t base, int64_t index, int64_t bytes) {
  int64_t step, at;
  if (__builtin_mul_overflow(index, bytes, &step) || __builtin_add_overflow(base, step, &at) || at > TPU_ADDRESS_MAX || at < -TPU_ADDRESS_MAX) tpu_fault(c, i, number, "index %lld", (long long)index);
  return at;
}

static void rows(tpu_core *c, const tpu_inst *i, int64_t number) {
  bool load = i->op == TPU_LOAD_ROWS;
  const tpu_operand *by_index = load ? &i->src : &i->dst, *plain = load ? &i->dst : &i->src;
  size_t size = ir_dtype_bytes((tn_dtype)plain->dtype);
  int64_t sz = (int64_t)size;
  tpu_box which = tpu_operand_box(&i->index, (const int32_t[]){i->extent[0], 1, 1, 1}, false);
  if (!tpu_elements(i->extent)) return;
  tpu_operand_bytes(c, i, number, &i->index, &which);
  for (int64_t k = 0; k < i->extent[0]; k++) {
    int64_t j = index_at(i, tpu_mem_of(c, i->index.space)->bytes, k * i->index.stride[0]);
    tpu_operand from = *by_index, to = *plain;
    from.addr = address(c, i, number, from.addr, j, by_index->stride[0] * sz);
    to.addr += k * plain->stride[0] * sz;
    const int32_t row[4] = {1, i->extent[1], i->extent[2], i->extent[3]};
    tpu_box read = tpu_operand_box(load ? &from : &to, row, false), write = tpu_operand_box(load ? &to : &from, row, true);
    tpu_operand_bytes(c, i, number, load ? &from : &to, &read);
    tpu_operand_bytes(c, i, number, load ? &to : &from, &write);
    const tpu_operand *d = load ? &to : &from, *s = load ? &from : &to;
    uint8_t *db = tpu_mem_of(c, d->space)->bytes, *sb = tpu_mem_of(c, s->space)->bytes;
    for (int64_t b = 0; b < row[1]; b++)
      for (int64_t r = 0; r < row[2]; r++)
        copy_row(db + d->addr + (b * d->stride[1] + r * d->stride[2]) * sz, d->stride[3] * sz,
                 sb + s->addr + (b * s->stride[1] + r * s->stride[2]) * sz, s->stride[3] * sz, row[3], size);
  }
}

/* ---- weights ---- */

static void weights(tpu_core *c, const tpu_inst *i, int64_t number) {
  const tpu_operand *s = &i->src;
  tpu_tile *t = &c->tiles[(c->made - 1) & (c->tile_cap - 1)]; /* tpu_time.c has just made it */
  tpu_box box = tpu_operand_box(s, i->extent, false);
  const uint8_t *from = tpu_operand_bytes(c, i, number, s, &box);
  int64_t panels = (t->n + 15) / 16, size = (int64_t)ir_dtype_bytes((tn_dtype)s->dtype);
  size_t need = (size_t)(panels * 16 * t->k) * sizeof(float);
  if (need > t->room) {
    ir_raw_free(c->sim->ctx, t->values);
    t->values = NULL;
    t->room = 0;
    t->values = ir_raw_alloc(c->sim->ctx, need);
    t->room = need;
  }
  t->zero = 0;
  int64_t k = 0;
  tpu_block row;
  for (int64_t a = 0; a < i->extent[0]; a++)
    for (int64_t b = 0; b < i->extent[1]; b++)
      for (int64_t r = 0; r < i->extent[2]; r++, k++)
        for (int64_t j = 0; j < t->n; j += TPU_BLOCK) {
          int n = (int)(t->n - j < TPU_BLOCK ? t->n - j : TPU_BLOCK), full = (n + 15) / 16 * 16;
          tpu_block_load((tn_dtype)s->dtype, from + s->addr + (a * s->stride[0] + b * s->stride[1] + r * s->stride[2] + j * s->stride[3]) * size,
                         s->stride[3] * size, n, &row);
          if (!ir_is_float((tn_dtype)s->dtype))
            for (int x = 0; x < n; x++) { /* in place: floats never overtake the integers they come from */
              float f = (float)row.i[x];
              memcpy((char *)&row + 4 * x, &f, 4);
            }
          for (int x = n; x < full; x++) row.f[x] = 0;
          for (int x = 0; x < full; x += 16) memcpy(t->values + ((j + x) / 16 * t->k + k) * 16, row.f + x, 64);
        }
}

void tpu_take_tile(tpu_core *c) {
  tpu_tile *t = &c->tiles[c->taken++ & (c->tile_cap - 1)], old = c->active;
  c->active = *t;
  t->values = old.values; /* the buffers change places */
  t->room = old.room;
}

void tpu_execute(tpu_core *c, const tpu_inst *i, int64_t number) {
  tpu_work(c, tpu_elements(i->extent));
  switch (i->op) {
  case TPU_HOST: case TPU_LOAD: case TPU_STORE: dma(c, i, number); return;
  case TPU_LOAD_ROWS: case TPU_STORE_ROWS: rows(c, i, number); return;
  case TPU_WEIGHTS: weights(c, i, number); return;
  default: ir_bug(c->sim->ctx, "%s has no values", tpu_ops[i->op].name);
  }
}

/* ---- gather, scatter ---- */

void tpu_gather(tpu_core *c, const tpu_inst *i, int64_t number) {
  tpu_work(c, tpu_elements(i->extent));
  tn_dtype t = (tn_dtype)i->dst.dtype;
  int64_t size = (int64_t)ir_dtype_bytes(t);
  bool gather = i->op == TPU_GATHER;
  tpu_box index = tpu_operand_box(&i->index, i->extent, false), mask = tpu_operand_box(&i->mask, i->extent, false);
  if (!tpu_elements(i->extent)) return;
  if (!i->mask.space) tpu_operand_bytes(c, i, number, &i->index, &index);
  else tpu_operand_bytes(c, i, number, &i->mask, &mask);
  int64_t x[4], isize = (int64_t)ir_dtype_bytes((tn_dtype)i->index.dtype);
  for (x[0] = 0; x[0] < i->extent[0]; x[0]++)
    for (x[1] = 0; x[1] < i->extent[1]; x[1]++)
      for (x[2] = 0; x[2] < i->extent[2]; x[2]++)
        for (x[3] = 0; x[3] < i->extent[3]; x[3]++) {
          int64_t at[4] = {0}; /* element offsets of dst, src, index, mask */
          const tpu_operand *o[4] = {&i->dst, &i->src, &i->index, &i->mask};
          for (int k = 0; k < 4; k++)
            for (int d = 0; d < 4; d++) at[k] += x[d] * o[k]->stride[d];
          if (i->mask.space && !tpu_mem_of(c, i->mask.space)->bytes[i->mask.addr + at[3]]) continue;
          if (i->mask.space) tpu_touch(c, i, number, i->index.space, i->index.addr + at[2] * isize, isize, false);
          int64_t j = index_at(i, tpu_mem_of(c, i->index.space)->bytes, at[2]), to = i->dst.addr + at[0] * size, from = i->src.addr + at[1] * size;
          if (gather) from = address(c, i, number, from, j, size);
          else to = address(c, i, number, to, j, size);
          if (to % size || from % (i->src.space == TPU_IMM ? 1 : size)) tpu_fault(c, i, number, "an element that is not aligned");
          tpu_block a, b;
          if (i->src.space == TPU_IMM) tpu_block_fill(t, i->src.addr, 1, &a);
          else tpu_block_load(t, tpu_touch(c, i, number, i->src.space, from, size, false), size, 1, &a);
          if (i->fn) {
            tpu_block_load(t, tpu_touch(c, i, number, i->dst.space, to, size, false), size, 1, &b);
            tpu_block_op(c->sim->ctx, (ir_opcode)i->fn, t, (const tn_dtype[]){t, t}, (const tpu_block *const[]){&b, &a}, &a, 1);
          }
          tpu_block_store(t, tpu_touch(c, i, number, i->dst.space, to, size, true), size, 1, &a);
        }
}
