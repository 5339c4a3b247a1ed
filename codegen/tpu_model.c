/* tpu_model.c — whole programs: calls, copies and control flow, one after another. See tpu_compile.h, tpu_whole.h.
 *
 * A program is gone through twice: to see what each core touches, then to make the texts. If and while become jumps of
 * every core, whose units are idle there, so that waits never look across them. */
#include "codegen/tpu_whole.h"
#include "lower/problem.h"
#include <string.h>

/* ---- values of the program: kernels that store one element into a cell of the chip ---- */

typedef struct tw_let {
  const ir_var *var;
  const ir_buf *cell;
  int64_t at;           /* of it, on every core */
} tw_let;

typedef struct tw_value {
  const ir_kernel *k;   /* the value's buffers, the cells that it reads, its own cell */
  int *slots;           /* of the buffers; -1: a cell */
  int64_t *at;          /* of the cells */
  int n;
} tw_value;

static int slot_named(const ir_program *p, const char *name) { /* the first one, as rt_exec takes it */
  for (int i = 0; i < p->nslots; i++)
    if (p->slots[i].name && strcmp(p->slots[i].name, name) == 0) return i;
  return -1;
}

typedef struct finder {
  const tw *x;
  int left, slot;
} finder;

static void find_load(void *user, ix e) {
  finder *f = user;
  if (e->op != IX_LOAD || f->slot >= 0 || f->left-- > 0) return;
  f->slot = slot_named(f->x->p, e->u.buf->name);
}

int tw_value_slot(const tw *x, ix value, int nth) {
  finder f = {x, nth, -1};
  ix_walk(x->c->ctx, value, find_load, &f);
  return f.slot;
}

static void add_buf(tw *x, ir_kernel *k, tw_value *v, ir_buf *b, int slot, int64_t at) {
  tn_ctx *ctx = x->c->ctx;
  for (int i = 0; i < k->nbufs; i++)
    if (k->bufs[i] == b) return;
  int slots = v->n, cells = v->n;
  IR_PUSH(ctx, v->slots, slots, slot);
  IR_PUSH(ctx, v->at, cells, at);
  v->n++;
  IR_PUSH(ctx, k->bufs, k->nbufs, b);
}

typedef struct reader {
  tw *x;
  ir_kernel *k;
  tw_value *v;
} reader;

static void add_loads(void *user, ix e) {
  reader *r = user;
  if (e->op == IX_LOAD) add_buf(r->x, r->k, r->v, (ir_buf *)(uintptr_t)e->u.buf, slot_named(r->x->p, e->u.buf->name), 0);
}

static ix let_value(void *user, ir_var *var) {
  reader *r = user;
  for (int i = r->x->nlets - 1; i >= 0; i--) {
    const tw_let *l = &r->x->lets[i];
    if (l->var != var) continue;
    add_buf(r->x, r->k, r->v, (ir_buf *)(uintptr_t)l->cell, -1, l->at);
    ix e = ix_load(r->x->c->ctx, (ir_buf *)(uintptr_t)l->cell, NULL);
    return var->dtype == TN_INDEX ? ix_cast(r->x->c->ctx, TN_INDEX, e) : e;
  }
  return NULL;
}

/* The kernel of an instruction's value, stored into `cell`. */
static tw_value value_of(tw *x, ix e, ir_buf *cell, int64_t at) {
  tn_ctx *ctx = x->c->ctx;
  tw_value v = {0};
  ir_kernel *k = IR_NEW(ctx, ir_kernel);
  k->name = "value";
  reader r = {x, k, &v};
  e = ix_expand(ctx, e);
  ix_walk(ctx, e, add_loads, &r);
  e = ix_subst(ctx, e, let_value, &r);
  add_buf(x, k, &v, cell, -1, at);
  k->body = ir_store(ctx, cell, NULL, IR_SET, e->dtype == TN_INDEX ? ix_cast(ctx, TN_I64, e) : e);
  v.k = k;
  return v;
}

/* Every core evaluates it. */
static void run_value(tw *x, const tw_value *v) {
  tc *c = x->c;
  tc_home *home = IR_NEW_ARRAY(c->ctx, tc_home, x->p->nslots + v->n);
  int *slots = IR_NEW_ARRAY(c->ctx, int, v->n);
  if (x->home) memcpy(home, x->home, (size_t)x->p->nslots * sizeof *home);
  for (int i = 0; i < v->n; i++) {
    slots[i] = v->slots[i] < 0 ? x->p->nslots + i : v->slots[i];
    if (v->slots[i] < 0) home[x->p->nslots + i] = (tc_home){.chip = true, .address = v->at[i]};
  }
  c->cores->everyone = true;
  tc_run_kernel(c, v->k, slots, x->home ? home : NULL);
  c->cores->everyone = false;
}

static ir_buf *new_cell(tw *x, tn_dtype t) {
  return ir_buf_new(x->c->ctx, "cell", t == TN_INDEX ? TN_I64 : t, 0, NULL, NULL, IR_GLOBAL);
}

static int64_t cell_memory(tw *x) {
  int64_t at = x->home ? tc_arena_get(&x->c->scratch, 64, false) : 0;
  if (at < 0) ir_fail(x->c->ctx, TN_EUNSUPPORTED, "the values of the program exceed the memory of %s", x->c->m->name);
  return at;
}

static void free_cell(tw *x, int64_t at) {
  if (x->home) tc_arena_put(&x->c->scratch, at, 64);
}

/* Jumps of all cores. */
typedef struct branch { int64_t at[TPU_MAX_CORES]; } branch;

static branch exit_unless(tw *x, int64_t cell) {
  branch b;
  tc *c = x->c;
  for (c->core = 0; c->core < c->ncores; c->core++) b.at[c->core] = te_exit_unless(c, cell);
  c->core = 0;
  return b;
}

static branch jump_to(tw *x, const branch *to) { /* null: landed later */
  branch b;
  tc *c = x->c;
  for (c->core = 0; c->core < c->ncores; c->core++) {
    b.at[c->core] = te_here(c);
    te_jump(c, to ? to->at[c->core] : b.at[c->core] + 1);
  }
  c->core = 0;
  return b;
}

static void land(tw *x, const branch *b) {
  tc *c = x->c;
  for (c->core = 0; c->core < c->ncores; c->core++) te_land(c, b->at[c->core]);
  c->core = 0;
}

static branch here(tw *x) {
  branch b;
  tc *c = x->c;
  for (c->core = 0; c->core < c->ncores; c->core++) b.at[c->core] = te_here(c);
  c->core = 0;
  return b;
}

/* ---- instructions of the program; x->home null: the survey, in which nothing is made ---- */

static void run_all(tw *x, int n, const ir_inst *insts);

static void run_if(tw *x, const ir_inst *i) {
  int64_t cell = cell_memory(x);
  tw_value v = value_of(x, i->value, new_cell(x, TN_BOOL), cell);
  run_value(x, &v);
  branch other, end;
  if (x->home) {
    tc_meet(x->c);
    other = exit_unless(x, cell);
  }
  run_all(x, i->nbody, i->body);
  if (x->home) {
    tc_meet(x->c);
    end = jump_to(x, NULL);
    land(x, &other);
  }
  run_all(x, i->nother, i->other);
  if (x->home) {
    tc_meet(x->c);
    land(x, &end);
    tc_meet(x->c);
  }
  free_cell(x, cell);
}

static void run_while(tw *x, const ir_inst *i) {
  int64_t cell = cell_memory(x);
  tw_value v = value_of(x, i->value, new_cell(x, TN_BOOL), cell);
  branch head, end;
  if (x->home) {
    tc_meet(x->c);
    head = here(x);
  }
  run_value(x, &v);
  if (x->home) {
    tc_meet(x->c);
    end = exit_unless(x, cell);
  }
  run_all(x, i->nbody, i->body);
  if (x->home) {
    tc_meet(x->c);
    jump_to(x, &head);
    land(x, &end);
    tc_meet(x->c);
  }
  free_cell(x, cell);
}

static void run_let(tw *x, const ir_inst *i) {
  tw_let l = {i->var, new_cell(x, i->var->dtype), cell_memory(x)};
  tw_value v = value_of(x, i->value, (ir_buf *)(uintptr_t)l.cell, l.at);
  run_value(x, &v);
  IR_PUSH(x->c->ctx, x->lets, x->nlets, l);
}

static void tag_call(tw *x, const ir_inst *call, const ir_kernel *k) {
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
  for (int k = 0; k < x->c->ncores; k++) tpu_emit(x->c->ctx, x->c->p, k, i);
}

static void move_bytes(tc *c, tc_home a, tc_home b, int64_t n) {
  int64_t one = 1;
  if (a.chip && b.chip) {
    tc_val dst = {.t = TN_U8, .space = TPU_UB, .base = a.address}, src = dst;
    src.base = b.address;
    ir_var *v = ir_var_new(c->ctx, "b", TN_INDEX, 0, n - 1);
    c->binds = (ir_map){.ctx = c->ctx};
    c->nlanes = 0;
    dst.stride[0] = src.stride[0] = 1;
    tc_push_lane(c, v, 0, n);
    te_copy(c, &dst, &src, false);
    tc_pop_lane(c);
  } else if (a.chip || b.chip) te_dma(c, a.chip, 1, &n, 1, a.chip ? b.address : a.address, &one, a.chip ? a.address : b.address, &one);
  else
    for (int64_t i = 0; i < n; i += c->scratch_bytes / 4) { /* through the chip, in pieces */
      int64_t piece = n - i < c->scratch_bytes / 4 ? n - i : c->scratch_bytes / 4;
      int64_t at = tc_alloc(c, piece, true);
      te_dma(c, true, 1, &piece, 1, b.address + i, &one, at, &one);
      te_dma(c, false, 1, &piece, 1, a.address + i, &one, at, &one);
      tc_arena_put(&c->scratch, at, piece);
    }
}

static void copy_slot(tw *x, int to, int from) { /* core 0 alone */
  int64_t n = x->p->slots[to].bytes;
  if (!n) return;
  if (x->home) {
    tc_step_meet(x->c, x->home);
    move_bytes(x->c, x->home[to], x->home[from], n);
    return;
  }
  tc_step_begin(x->c);
  tc_touch_slot(x->c, 0, from, false, 0, n);
  tc_touch_slot(x->c, 0, to, true, 0, n);
}

static void call_kernel(tw *x, const ir_inst *c) {
  tn_ctx *ctx = x->c->ctx;
  if (c->device) ir_fail(ctx, TN_EUNSUPPORTED, "a call on device '%s'", c->device);
  const ir_program_kernel *pk = &x->p->kernels[c->kernel];
  const ir_kernel *k = pk->lowered ? pk->lowered : pk->kernel;
  if (k->ndims) ir_fail(ctx, TN_EUNSUPPORTED, "kernel '%s' has sizes that are known at run time alone", k->name);
  ir_where(ctx, c->name);
  if (x->home) tag_call(x, c, k);
  x->c->tile = x->c->o->tiles ? &x->c->o->tiles[c->kernel] : x->c->o->tile;
  tc_run_kernel(x->c, k, c->args, x->home);
  ir_where(ctx, NULL);
}

static void run_all(tw *x, int n, const ir_inst *insts) {
  int scope = x->nlets;
  for (int i = 0; i < n; i++) {
    const ir_inst *c = &insts[i];
    switch (c->kind) {
    case IR_CALL: call_kernel(x, c); break;
    case IR_COPY_SLOT: copy_slot(x, c->args[0], c->args[1]); break;
    case IR_INST_LET: run_let(x, c); break;
    case IR_INST_IF: run_if(x, c); break;
    case IR_INST_WHILE: run_while(x, c); break;
    case IR_INST_FOR: ir_fail(x->c->ctx, TN_EUNSUPPORTED, "a program of sizes that are known at run time alone");
    }
  }
  while (x->nlets > scope) free_cell(x, x->lets[--x->nlets].at);
}

tpu_program *tpu_compile(tn_ctx *ctx, const ir_program *p, const tpu_machine *m, const tpu_options *o) {
  tpu_options none = {0};
  tc c = {.ctx = ctx, .m = m, .o = o ? o : &none, .cores = IR_NEW(ctx, tc_cores)};
  c.ncores = c.o->cores > 1 ? c.o->cores : 1;
  c.p = tpu_program_new(ctx, m->name, c.ncores);
  c.cores->ctx = c.cores->shares.ctx = c.phases.ctx = ctx;
  for (int k = 0; k < c.ncores; k++) c.order[k] = tc_order_new(ctx, k);
  tw x = {.c = &c, .p = p};
  if (c.ncores > 1) run_all(&x, p->nrun, p->run);
  tw_place(&x);
  run_all(&x, p->nrun, p->run);
  for (int k = 0; k < c.ncores; k++) tpu_emit(ctx, c.p, k, tpu_inst_of(TPU_HALT));
  return c.p;
}
