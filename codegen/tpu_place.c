/* tpu_place.c — where the slots of a program live. See tpu_whole.h.
 *
 * DRAM holds inputs, weights, outputs, state, and what of the arena does not fit the chip:
 *
 *   | inputs | weights | outputs | state | arena | 64 unused bytes |
 *
 * The arena's slots lie on the chip while they fit beside the scratch memory of kernels, the largest
 * ones in DRAM else, and so do those through which cores hand each other values. On a machine with tiles
 * a slot that everybody sees as rows of one length has them at the pitch of tc_pitch; DRAM is dense. */
#include "codegen/tpu_whole.h"
#include "lower/lower.h"
#include <string.h>

/* ---- where slots live ---- */

static int root_of(tw *x, int s) {
  while (x->group[s].parent != s) s = x->group[s].parent = x->group[x->group[s].parent].parent;
  return s;
}

static void note_rows(tw_group *g, int64_t row, int width) {
  if (!row || g->row < 0) return;
  if (g->row && (g->row != row || g->width != width)) row = -1;
  g->row = row;
  g->width = width;
}

static void join(tw *x, int a, int b) {
  tw_group *to = &x->group[a = root_of(x, a)], *from = &x->group[b = root_of(x, b)];
  if (a == b) return;
  from->parent = a;
  if (from->lo != to->lo || from->hi != to->hi) to->row = -1; /* one is a part of the other */
  note_rows(to, from->row, from->width);
  if (from->first < to->first) to->first = from->first;
  if (from->last > to->last) to->last = from->last;
  if (from->lo < to->lo) to->lo = from->lo;
  if (from->hi > to->hi) to->hi = from->hi;
}

static void note_life(tw *x, int s) {
  tw_group *g = &x->group[s];
  if (g->parent < 0) *g = (tw_group){.parent = s, .first = x->ncalls, .last = x->ncalls, .lo = x->p->slots[s].offset, .hi = x->p->slots[s].offset + x->p->slots[s].bytes, .resident = true};
  g = &x->group[root_of(x, s)];
  if (x->ncalls > g->last) g->last = x->ncalls;
}

/* A read of [lo, hi): joins the slots that wrote there last. */
static void note_read(tw *x, int s, int64_t lo, int64_t hi, int before) {
  for (int w = before - 1; w >= 0 && lo < hi; w--) {
    const ir_slot *v = &x->p->slots[x->writes[w].slot];
    int64_t a = v->offset > lo ? v->offset : lo, b = v->offset + v->bytes < hi ? v->offset + v->bytes : hi;
    if (a >= b) continue;
    join(x, s, x->writes[w].slot);
    if (x->writes[w].perhaps) continue; /* or what was there before */
    note_read(x, s, lo, a, w);
    lo = b;
  }
}

static void note_access(tw *x, int s, bool read, bool write, bool perhaps) {
  const ir_slot *v = &x->p->slots[s];
  if (v->kind != IR_SLOT_ARENA) return;
  note_life(x, s);
  if (read) note_read(x, s, v->offset, v->offset + v->bytes, x->nwrites);
  tw_write w = {s, perhaps};
  if (write) IR_PUSH(x->c->ctx, x->writes, x->nwrites, w);
}

static void note_all(tw *x, int n, const ir_inst *insts, bool perhaps);

/* What a kernel sees a slot as. */
static void note_shape(tw *x, int s, const ir_buf *b) {
  if (x->p->slots[s].kind != IR_SLOT_ARENA) return;
  ix shape[IR_MAX_RANK];
  int64_t row = 1;
  int rank = b ? ir_layout_shape(x->c->ctx, b->layout, b->rank, b->shape, shape) : 0;
  if (!b || (rank && !ix_const_value(shape[rank - 1], &row)) || row < 1) row = -1;
  note_rows(&x->group[root_of(x, s)], row, b ? (int)ir_dtype_bytes(b->dtype) : 1);
}

static void note_call(tw *x, const ir_inst *c, bool perhaps) {
  for (int pass = 0; pass < 2; pass++) /* reads before writes */
    for (int a = 0; a < c->nargs; a++) {
      bool out = c->kind == IR_COPY_SLOT ? a == 0 : (x->p->kernels[c->kernel].kernel->bufs[a]->access & IR_OUT) != 0;
      bool in = c->kind == IR_COPY_SLOT ? a != 0 : (x->p->kernels[c->kernel].kernel->bufs[a]->access & IR_IN) != 0;
      note_access(x, c->args[a], !pass && in, pass && out, perhaps);
    }
  const ir_program_kernel *k = c->kind == IR_COPY_SLOT ? NULL : &x->p->kernels[c->kernel];
  for (int a = 0; a < c->nargs; a++) note_shape(x, c->args[a], k ? (k->lowered ? k->lowered : k->kernel)->bufs[a] : NULL);
}

static void note_value(tw *x, ix e) {
  for (int k = 0, s; (s = tw_value_slot(x, e, k)) >= 0; k++) {
    note_access(x, s, true, false, false);
    note_shape(x, s, NULL);
  }
}

/* All that a loop touches lives through the whole of it: a turn reads what one before has written. */
static void note_loop(tw *x, const ir_inst *c) {
  int first = x->ncalls;
  note_value(x, c->value);
  note_all(x, c->nbody, c->body, true);
  note_value(x, c->value);
  x->ncalls = first;
  note_all(x, c->nbody, c->body, true);
  for (int s = 0; s < x->p->nslots; s++) {
    tw_group *g = &x->group[s];
    if (g->parent != s || g->last < first || g->first > x->ncalls) continue;
    if (g->first > first) g->first = first;
    if (g->last < x->ncalls) g->last = x->ncalls;
  }
}

static void note_all(tw *x, int n, const ir_inst *insts, bool perhaps) {
  for (int i = 0; i < n; i++) {
    const ir_inst *c = &insts[i];
    switch (c->kind) {
    case IR_CALL: case IR_COPY_SLOT: note_call(x, c, perhaps); break;
    case IR_INST_LET: note_value(x, c->value); break;
    case IR_INST_IF:
      note_value(x, c->value);
      note_all(x, c->nbody, c->body, true);
      note_all(x, c->nother, c->other, true);
      break;
    case IR_INST_WHILE: case IR_INST_FOR: note_loop(x, c); break;
    }
    x->ncalls++;
  }
}

static int64_t pitch_of(const tw *x, const tw_group *g) { return g->row > 0 ? tc_pitch(x->c, g->row) : g->row; }

static int64_t chip_bytes(const tw *x, const tw_group *g) {
  int64_t bytes = g->hi - g->lo;
  return g->row > 0 && bytes % (g->row * g->width) == 0 ? bytes / g->row * pitch_of(x, g) : bytes;
}

/* Offsets on the chip for the resident groups; the bytes they take. */
static int64_t plan(tw *x) {
  int n = 0, *at = IR_NEW_ARRAY(x->c->ctx, int, x->p->nslots + 1);
  lw_lifetime *l = IR_NEW_ARRAY(x->c->ctx, lw_lifetime, x->p->nslots + 1);
  for (int s = 0; s < x->p->nslots; s++) {
    const tw_group *g = &x->group[s];
    if (g->parent != s || !g->resident) continue;
    l[n] = (lw_lifetime){.first = g->first, .last = g->last, .bytes = (chip_bytes(x, g) + 63) & ~(int64_t)63};
    at[n++] = s;
  }
  int64_t peak, bytes = lw_plan_memory(x->c->ctx, n, l, &peak);
  for (int i = 0; i < n; i++) x->group[at[i]].offset = l[i].offset;
  return bytes;
}

typedef struct member { tw *x; int root; } member;

static bool is_member(void *user, int slot, int64_t *base) {
  const member *m = user;
  *base = m->x->p->slots[slot].offset;
  return m->x->group[slot].parent >= 0 && root_of(m->x, slot) == m->root;
}

/* Slots on the chip: all, then without the largest, until the rest fits `room`. Returns the bytes taken. */
static int64_t place_arena(tw *x, int64_t room) {
  int64_t bytes;
  for (int s = 0; s < x->p->nslots; s++) x->group[s].resident = !x->c->o->no_resident;
  for (int s = 0; s < x->p->nslots && x->c->ncores > 1; s++) { /* what goes from core to core goes through the DRAM */
    if (x->group[s].parent != s) continue;
    member m = {x, s};
    if (tc_crosses(x->c->cores, is_member, &m)) x->group[s].resident = false;
  }
  while ((bytes = plan(x)) > room) {
    tw_group *largest = NULL;
    for (int s = 0; s < x->p->nslots; s++) {
      tw_group *g = &x->group[s];
      if (g->parent == s && g->resident && (!largest || chip_bytes(x, g) > chip_bytes(x, largest))) largest = g;
    }
    largest->resident = false;
  }
  for (int s = 0; s < x->p->nslots; s++) {
    if (x->group[s].parent < 0) continue;
    const tw_group *g = &x->group[root_of(x, s)];
    if (!g->resident) continue;
    x->home[s] = (tc_home){.chip = true, .tiled = chip_bytes(x, g) != g->hi - g->lo, .address = g->offset + x->p->slots[s].offset - g->lo};
  }
  return bytes;
}

static int64_t segment(tw *x, const char *name, tpu_segment_kind kind, const ir_slot *s, int64_t bytes, const void *data) {
  tpu_program *p = x->c->p;
  tpu_segment g = {.name = name, .kind = kind, .addr = p->dram_bytes, .bytes = bytes, .data = data};
  if (s) {
    g.index = s->index;
    g.dtype = s->dtype;
    g.rank = s->rank;
    memcpy(g.dims, s->dims, sizeof g.dims);
  }
  tpu_program_segment(x->c->ctx, p, g);
  p->dram_bytes = (g.addr + bytes + 63) & ~(int64_t)63;
  return g.addr;
}

/* Inputs or outputs: one segment each; other slots of the same number are views of it. */
static void place_kind(tw *x, ir_slot_kind kind, tpu_segment_kind as, int count) {
  for (int k = 0; k < count; k++) {
    int64_t at = -1;
    for (int s = 0; s < x->p->nslots; s++) {
      const ir_slot *v = &x->p->slots[s];
      if (v->kind != kind || v->index != k) continue;
      if (at < 0) at = segment(x, v->name, as, v, v->bytes, NULL);
      x->home[s].address = at + v->offset;
    }
  }
}

static void place_block(tw *x, ir_slot_kind kind, tpu_segment_kind as, const char *name, int64_t bytes, const void *data) {
  if (!bytes) return;
  int64_t at = segment(x, name, as, NULL, bytes, data);
  for (int s = 0; s < x->p->nslots; s++)
    if (x->p->slots[s].kind == kind && !x->home[s].chip) x->home[s].address = at + x->p->slots[s].offset;
}

void tw_place(tw *x) {
  tc *c = x->c;
  const ir_program *p = x->p;
  x->home = IR_NEW_ARRAY(c->ctx, tc_home, p->nslots + 1);
  x->group = IR_NEW_ARRAY(c->ctx, tw_group, p->nslots + 1);
  for (int s = 0; s < p->nslots; s++) x->group[s].parent = -1;
  note_all(x, p->nrun, p->run, false);
  int64_t ub = c->m->ub_bytes & ~(int64_t)63, taken = place_arena(x, ub / 2);
  c->scratch_base = taken;
  c->scratch_bytes = ub - taken;
  tc_arena_init(&c->scratch, c->scratch_base, c->scratch_bytes);
  place_kind(x, IR_SLOT_INPUT, TPU_SEG_INPUT, p->ninputs);
  place_block(x, IR_SLOT_WEIGHTS, TPU_SEG_WEIGHTS, "weights", p->weights_bytes, c->o->weights);
  c->dram_written = c->p->dram_bytes;
  place_kind(x, IR_SLOT_OUTPUT, TPU_SEG_OUTPUT, p->noutputs);
  place_block(x, IR_SLOT_STATE, TPU_SEG_STATE, "state", p->state_bytes, NULL);
  bool arena = false;
  for (int s = 0; s < p->nslots; s++) arena |= p->slots[s].kind == IR_SLOT_ARENA && x->group[s].parent >= 0 && !x->home[s].chip;
  if (arena) place_block(x, IR_SLOT_ARENA, TPU_SEG_SCRATCH, "arena", p->arena_bytes, NULL);
  c->dram_dummy = segment(x, "unused", TPU_SEG_SCRATCH, NULL, 64, NULL);
}
