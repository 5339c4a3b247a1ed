/* tpu_model.c — the whole program: where slots live, the calls one after another. See tpu_compile.h.
 *
 * DRAM holds inputs, weights, outputs, state, and what of the arena does not fit the chip:
 *
 *   | inputs | weights | outputs | state | arena | 64 unused bytes |
 *
 * The arena's slots lie on the chip while they fit beside the scratch memory of kernels, the largest
 * ones in DRAM else. */
#include "codegen/tpu_lower.h"
#include "lower/lower.h"
#include "lower/problem.h"
#include <string.h>

/* Slots that are one memory seen differently: what one writes another reads. They move together. */
typedef struct group {
  int parent;          /* union-find over slots */
  int first, last;     /* calls */
  int64_t lo, hi;      /* bytes of the arena */
  bool resident;
  int64_t offset;      /* on the chip */
} group;

typedef struct placer {
  tc *c;
  const ir_program *p;
  tc_home *home;       /* by slot */
  group *group;        /* by slot; what it says counts for roots */
  int nwrites, *writes; /* slots, in order */
  int ncalls;
} placer;

/* ---- where slots live ---- */

static int root_of(placer *x, int s) {
  while (x->group[s].parent != s) s = x->group[s].parent = x->group[x->group[s].parent].parent;
  return s;
}

static void join(placer *x, int a, int b) {
  group *to = &x->group[a = root_of(x, a)], *from = &x->group[b = root_of(x, b)];
  if (a == b) return;
  from->parent = a;
  if (from->first < to->first) to->first = from->first;
  if (from->last > to->last) to->last = from->last;
  if (from->lo < to->lo) to->lo = from->lo;
  if (from->hi > to->hi) to->hi = from->hi;
}

static void note_life(placer *x, int s) {
  group *g = &x->group[s];
  if (g->parent < 0) *g = (group){s, x->ncalls, x->ncalls, x->p->slots[s].offset, x->p->slots[s].offset + x->p->slots[s].bytes, true, 0};
  g = &x->group[root_of(x, s)];
  if (x->ncalls > g->last) g->last = x->ncalls;
}

/* A read of [lo, hi): joins the slots that wrote there last. */
static void note_read(placer *x, int s, int64_t lo, int64_t hi, int before) {
  for (int w = before - 1; w >= 0 && lo < hi; w--) {
    const ir_slot *v = &x->p->slots[x->writes[w]];
    int64_t a = v->offset > lo ? v->offset : lo, b = v->offset + v->bytes < hi ? v->offset + v->bytes : hi;
    if (a >= b) continue;
    join(x, s, x->writes[w]);
    note_read(x, s, lo, a, w);
    lo = b;
  }
}

static void note_access(placer *x, int s, bool read, bool write) {
  const ir_slot *v = &x->p->slots[s];
  if (v->kind != IR_SLOT_ARENA) return;
  note_life(x, s);
  if (read) note_read(x, s, v->offset, v->offset + v->bytes, x->nwrites);
  if (write) IR_PUSH(x->c->ctx, x->writes, x->nwrites, s);
}

static void note_all(placer *x, int n, const ir_inst *insts) {
  for (int i = 0; i < n; i++) {
    const ir_inst *c = &insts[i];
    for (int pass = 0; pass < 2; pass++) /* reads before writes */
      for (int a = 0; a < c->nargs; a++) {
        bool out = c->kind == IR_COPY_SLOT ? a == 0 : (x->p->kernels[c->kernel].kernel->bufs[a]->access & IR_OUT) != 0;
        bool in = c->kind == IR_COPY_SLOT ? a != 0 : (x->p->kernels[c->kernel].kernel->bufs[a]->access & IR_IN) != 0;
        note_access(x, c->args[a], !pass && in, pass && out);
      }
    x->ncalls++;
  }
}

/* Offsets on the chip for the resident groups; the bytes they take. */
static int64_t plan(placer *x) {
  int n = 0, *at = IR_NEW_ARRAY(x->c->ctx, int, x->p->nslots + 1);
  lw_lifetime *l = IR_NEW_ARRAY(x->c->ctx, lw_lifetime, x->p->nslots + 1);
  for (int s = 0; s < x->p->nslots; s++) {
    const group *g = &x->group[s];
    if (g->parent != s || !g->resident) continue;
    l[n] = (lw_lifetime){.first = g->first, .last = g->last, .bytes = (g->hi - g->lo + 63) & ~(int64_t)63};
    at[n++] = s;
  }
  int64_t peak, bytes = lw_plan_memory(x->c->ctx, n, l, &peak);
  for (int i = 0; i < n; i++) x->group[at[i]].offset = l[i].offset;
  return bytes;
}

/* Slots on the chip: all, then without the largest, until the rest fits `room`. Returns the bytes taken. */
static int64_t place_arena(placer *x, int64_t room) {
  int64_t bytes;
  for (int s = 0; s < x->p->nslots; s++) x->group[s].resident = !x->c->o->no_resident;
  while ((bytes = plan(x)) > room) {
    group *largest = NULL;
    for (int s = 0; s < x->p->nslots; s++) {
      group *g = &x->group[s];
      if (g->parent == s && g->resident && (!largest || g->hi - g->lo > largest->hi - largest->lo)) largest = g;
    }
    largest->resident = false;
  }
  for (int s = 0; s < x->p->nslots; s++) {
    if (x->group[s].parent < 0) continue;
    const group *g = &x->group[root_of(x, s)];
    if (g->resident) x->home[s] = (tc_home){.chip = true, .address = g->offset + x->p->slots[s].offset - g->lo};
  }
  return bytes;
}

static int64_t segment(placer *x, const char *name, tpu_segment_kind kind, const ir_slot *s, int64_t bytes, const void *data) {
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
static void place_kind(placer *x, ir_slot_kind kind, tpu_segment_kind as, int count) {
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

static void place_block(placer *x, ir_slot_kind kind, tpu_segment_kind as, const char *name, int64_t bytes, const void *data) {
  if (!bytes) return;
  int64_t at = segment(x, name, as, NULL, bytes, data);
  for (int s = 0; s < x->p->nslots; s++)
    if (x->p->slots[s].kind == kind && !x->home[s].chip) x->home[s].address = at + x->p->slots[s].offset;
}

static void place(placer *x) {
  tc *c = x->c;
  const ir_program *p = x->p;
  x->home = IR_NEW_ARRAY(c->ctx, tc_home, p->nslots + 1);
  x->group = IR_NEW_ARRAY(c->ctx, group, p->nslots + 1);
  for (int s = 0; s < p->nslots; s++) x->group[s].parent = -1;
  note_all(x, p->nrun, p->run);
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

/* ---- what runs ---- */

static void tag_call(placer *x, const ir_inst *call, const ir_kernel *k) {
  lw_problem pr = lw_problem_of(x->c->ctx, k);
  tpu_tag t = {.name = call->name ? call->name : k->name};
  if (pr.kind == LW_CONTRACTION) {
    t.M = t.N = t.K = 1;
    for (int i = 0; i < pr.nout; i++) *(ix_uses_var(pr.b, pr.out[i]->var) ? &t.N : &t.M) *= pr.extent[i];
    for (int i = 0; i < pr.nred; i++) t.K *= pr.red_extent[i];
    t.macs = t.M * t.N * t.K;
  }
  tpu_inst i = tpu_inst_of(TPU_TAG);
  i.imm = tpu_program_tag(x->c->ctx, x->c->p, t);
  tpu_emit(x->c->ctx, x->c->p, 0, i);
}

static void copy_slot(placer *x, int to, int from) {
  tc *c = x->c;
  int64_t n = x->p->slots[to].bytes, one = 1;
  tc_home a = x->home[to], b = x->home[from];
  if (!n) return;
  if (a.chip && b.chip) {
    tc_val dst = {.t = TN_U8, .space = TPU_UB, .base = a.address}, src = dst;
    src.base = b.address;
    ir_var *v = ir_var_new(c->ctx, "b", TN_INDEX, 0, n - 1);
    c->binds = (tc_map){.ctx = c->ctx};
    c->nlanes = 0;
    dst.stride[0] = src.stride[0] = 1;
    tc_push_lane(c, v, 0, n);
    te_copy(c, &dst, &src, false);
    tc_pop_lane(c);
  } else if (a.chip || b.chip) te_dma(c, a.chip, 1, &n, 1, a.chip ? b.address : a.address, &one, a.chip ? a.address : b.address, &one);
  else
    for (int64_t i = 0; i < n; i += c->scratch_bytes / 4) { /* through the chip, in pieces */
      int64_t piece = n - i < c->scratch_bytes / 4 ? n - i : c->scratch_bytes / 4;
      int64_t at = tc_arena_get(&c->scratch, piece, true);
      te_dma(c, true, 1, &piece, 1, b.address + i, &one, at, &one);
      te_dma(c, false, 1, &piece, 1, a.address + i, &one, at, &one);
      tc_arena_put(&c->scratch, at, piece);
    }
}

static void run_all(placer *x, int n, const ir_inst *insts) {
  for (int i = 0; i < n; i++) {
    const ir_inst *c = &insts[i];
    switch (c->kind) {
    case IR_CALL: {
      if (c->device) ir_fail(x->c->ctx, TN_EUNSUPPORTED, "a call on device '%s'", c->device);
      const ir_program_kernel *pk = &x->p->kernels[c->kernel];
      const ir_kernel *k = pk->lowered ? pk->lowered : pk->kernel;
      if (k->ndims) ir_fail(x->c->ctx, TN_EUNSUPPORTED, "kernel '%s' has sizes that are known at run time alone", k->name);
      tc_home *homes = IR_NEW_ARRAY(x->c->ctx, tc_home, c->nargs + 1);
      for (int a = 0; a < c->nargs; a++) homes[a] = x->home[c->args[a]];
      ir_where(x->c->ctx, c->name);
      tag_call(x, c, k);
      x->c->tile = x->c->o->tiles ? &x->c->o->tiles[c->kernel] : x->c->o->tile;
      tc_run_kernel(x->c, k, homes);
      ir_where(x->c->ctx, NULL);
      break;
    }
    case IR_COPY_SLOT: copy_slot(x, c->args[0], c->args[1]); break;
    default: ir_fail(x->c->ctx, TN_EUNSUPPORTED, "control flow between kernels");
    }
  }
}

tpu_program *tpu_compile(tn_ctx *ctx, const ir_program *p, const tpu_machine *m, const tpu_options *o) {
  tpu_options none = {0};
  tc c = {.ctx = ctx, .m = m, .o = o ? o : &none};
  c.p = tpu_program_new(ctx, m->name, 1);
  c.order = tc_order_new(ctx);
  placer x = {.c = &c, .p = p};
  place(&x);
  run_all(&x, p->nrun, p->run);
  tpu_emit(ctx, c.p, 0, tpu_inst_of(TPU_HALT));
  return c.p;
}
