/* exec.c — a program, instruction by instruction. See exec.h. */
#include "runtime/exec.h"
#include "codegen/entry.h"
#include "ir/interp.h"
#include <string.h>

typedef struct binding {
  const ir_var *var;
  ir_scalar value;
} binding;

typedef struct exec {
  tn_ctx *ctx;
  const ir_program *p;
  const rt_memory *m;
  rt_call call;
  void *user;
  int nlets, room;
  binding *lets;    /* in scope, innermost last */
  binding few[32];  /* where they are as long as there are few: a run should leave nothing in the context */
} exec;

/* By the name of a let or dimension in scope, null: there is none. */
static const binding *find_named(const exec *x, const char *name) {
  for (int i = x->nlets - 1; i >= 0; i--)
    if (x->lets[i].var->dtype == TN_INDEX && strcmp(x->lets[i].var->name, name) == 0) return &x->lets[i];
  return NULL;
}

static int64_t part_offset(exec *x, const ir_slot *s) {
  const binding *first = s->step ? find_named(x, "first") : NULL;
  if (s->step && !first) ir_bug(x->ctx, "slot '%s' is a part of nothing", s->name);
  return s->offset + (first ? first->value.i * s->step : 0);
}

static void *slot_address(exec *x, const ir_slot *s) {
  const rt_memory *m = x->m;
  switch (s->kind) {
  case IR_SLOT_INPUT: return (char *)m->in[s->index] + part_offset(x, s);
  case IR_SLOT_OUTPUT: return (char *)m->out[s->index] + part_offset(x, s);
  case IR_SLOT_RAW: return (char *)m->raw[s->index] + s->offset;
  case IR_SLOT_WEIGHTS: return m->weights + s->offset;
  case IR_SLOT_STATE: return m->state + s->offset;
  case IR_SLOT_ARENA: return m->arena + s->offset;
  }
  ir_bug(x->ctx, "slot '%s' has no kind", s->name);
}

int rt_check_dims(const ir_program *p, const int64_t *dims) {
  if (p->ndims && !dims) return CG_RUN_ARG;
  for (int i = 0; i < p->ndims; i++) {
    const ir_program_dim *d = &p->dims[i];
    bool listed = !d->nsizes;
    for (int k = 0; k < d->nsizes; k++) listed |= d->sizes[k] == dims[i];
    if (dims[i] < d->var->lo || dims[i] > d->var->hi || !listed) return CG_RUN_DIMS;
  }
  return CG_RUN_OK;
}

void rt_state_start(const ir_program *p, void *state) {
  if (p->state_bytes) memset(state, 0, (size_t)p->state_bytes);
  for (int i = 0; i < p->nslots; i++) {
    const ir_slot *s = &p->slots[i];
    if (s->kind == IR_SLOT_STATE && s->data && s->bytes) memcpy((char *)state + s->offset, s->data, (size_t)s->bytes);
  }
}

static ir_scalar value_of(exec *x, ix e);

/* An element of the first slot that has the buffer's name. */
static ir_scalar load_slot(exec *x, ix e) {
  const ir_slot *s = NULL;
  for (int i = 0; i < x->p->nslots && !s; i++)
    if (strcmp(x->p->slots[i].name, e->u.buf->name) == 0) s = &x->p->slots[i];
  if (!s) ir_bug(x->ctx, "a program value reads '%s', which is no slot", e->u.buf->name);
  int64_t at = value_of(x, ir_buf_offset(x->ctx, e->u.buf, e->args)).i, size = (int64_t)ir_dtype_bytes(s->dtype);
  if (at < 0 || at >= s->bytes / size) ir_bug(x->ctx, "a program value reads '%s' out of bounds", s->name);
  const char *from = (const char *)slot_address(x, s) + at * size;
  int64_t here[2];
  if (!x->m->elsewhere) return ir_scalar_load(s->dtype, from);
  x->m->elsewhere->read(x->user, here, from, (size_t)size);
  return ir_scalar_load(s->dtype, here);
}

static ir_scalar value_of(exec *x, ix e) {
  if (e->op == IX_CONST) return ir_is_float((tn_dtype)e->dtype) ? (ir_scalar){.f = e->u.f} : (ir_scalar){.i = e->u.i};
  if (e->op == IX_LOAD) return load_slot(x, e);
  if (e->op == IX_VAR) {
    for (int i = x->nlets - 1; i >= 0; i--)
      if (x->lets[i].var == e->u.var) return x->lets[i].value;
    ir_bug(x->ctx, "'%s' is not in scope", e->u.var->name);
  }
  tn_dtype types[3];
  ir_scalar args[3];
  ir_assert(x->ctx, e->nargs <= 3);
  for (int i = 0; i < e->nargs; i++) types[i] = (tn_dtype)e->args[i]->dtype, args[i] = value_of(x, e->args[i]);
  return ir_eval_op(x->ctx, (ir_opcode)e->op, (tn_dtype)e->dtype, e->nargs, types, args);
}

static int64_t program_value(exec *x, ix e) { return value_of(x, ix_expand(x->ctx, e)).i; }

static int64_t dim_value(exec *x, const ir_kernel *k, int d) {
  const binding *l = find_named(x, k->dims[d]->name);
  if (l) return l->value.i;
  ir_fail(x->ctx, TN_EUNSUPPORTED, "dimension '%s' of kernel '%s' has no value in the program", k->dims[d]->name, k->name);
}

static void one_call(exec *x, const ir_inst *c) {
  if (c->device) ir_fail(x->ctx, TN_EUNSUPPORTED, "a call on device '%s'", c->device);
  const ir_program_kernel *pk = &x->p->kernels[c->kernel];
  const ir_kernel *k = pk->lowered ? pk->lowered : pk->kernel;
  ir_assert(x->ctx, c->nargs == k->nbufs);
  void *args[64];
  int64_t dims[64];
  void **a = c->nargs <= 64 ? args : IR_NEW_ARRAY(x->ctx, void *, c->nargs);
  int64_t *d = k->ndims <= 64 ? dims : IR_NEW_ARRAY(x->ctx, int64_t, k->ndims);
  for (int i = 0; i < c->nargs; i++) a[i] = slot_address(x, &x->p->slots[c->args[i]]);
  for (int i = 0; i < k->ndims; i++) d[i] = dim_value(x, k, i);
  x->call(x->user, c, a, d);
}

static void enter(exec *x, const ir_var *v, ir_scalar value) {
  if (x->nlets == x->room) {
    x->lets = ir_grow(x->ctx, x->lets, (size_t)x->nlets, 2 * (size_t)x->room, sizeof *x->lets);
    x->room *= 2;
  }
  x->lets[x->nlets++] = (binding){v, value};
}

static void run_all(exec *x, int n, const ir_inst *insts) {
  int scope = x->nlets;
  for (int i = 0; i < n; i++) {
    const ir_inst *c = &insts[i];
    switch (c->kind) {
    case IR_CALL: one_call(x, c); break;
    case IR_COPY_SLOT: {
      const ir_slot *dst = &x->p->slots[c->args[0]], *src = &x->p->slots[c->args[1]];
      ir_assert(x->ctx, dst->bytes == src->bytes);
      void *to = slot_address(x, dst), *from = slot_address(x, src);
      if (dst->bytes && x->m->elsewhere) x->m->elsewhere->copy(x->user, to, from, (size_t)dst->bytes);
      else if (dst->bytes) memmove(to, from, (size_t)dst->bytes);
      break;
    }
    case IR_INST_LET: enter(x, c->var, value_of(x, ix_expand(x->ctx, c->value))); break;
    case IR_INST_FOR:
      for (int64_t i = 0, count = program_value(x, c->value), outside = x->nlets; i < count; i++) {
        enter(x, c->var, (ir_scalar){.i = i});
        run_all(x, c->nbody, c->body);
        x->nlets = (int)outside;
      }
      break;
    case IR_INST_IF:
      if (program_value(x, c->value)) run_all(x, c->nbody, c->body);
      else run_all(x, c->nother, c->other);
      break;
    case IR_INST_WHILE:
      while (program_value(x, c->value)) run_all(x, c->nbody, c->body);
      break;
    }
  }
  x->nlets = scope;
}

typedef struct phase {
  void (*body)(void *arg, int task, int worker);
  void *arg;
  int first; /* of its tasks */
} phase;

static void run_of_phase(void *arg, int task, int worker) {
  const phase *p = arg;
  p->body(p->arg, p->first + task, worker);
}

void rt_run_tasks(const cg_kernel_info *k, int64_t ntasks, const rt_threads *threads, void (*body)(void *arg, int task, int worker), void *arg) {
  phase p = {body, arg, 0};
  for (int i = 0; i < (k->nphases ? k->nphases : 1); i++) {
    int n = k->nphases ? k->phase[i] : (int)ntasks;
    if (threads && n > 1) threads->parallel_for(threads->ctx, n, run_of_phase, &p);
    else
      for (int t = 0; t < n; t++) run_of_phase(&p, t, 0);
    p.first += n;
  }
}

void rt_exec(tn_ctx *ctx, const ir_program *p, int n, const ir_inst *insts, const rt_memory *m, rt_call call, void *user) {
  exec x = {.ctx = ctx, .p = p, .m = m, .call = call, .user = user};
  x.lets = x.few, x.room = IR_COUNT(x.few);
  for (int i = 0; i < p->ndims && m->dims; i++) enter(&x, p->dims[i].var, (ir_scalar){.i = m->dims[i]});
  run_all(&x, n, insts);
}

void rt_extents(tn_ctx *ctx, const ir_program *p, const rt_memory *m, void *user, int64_t *out_dims) {
  exec x = {.ctx = ctx, .p = p, .m = m, .user = user};
  x.lets = x.few, x.room = IR_COUNT(x.few);
  for (int i = 0; i < p->ndims && m->dims; i++) enter(&x, p->dims[i].var, (ir_scalar){.i = m->dims[i]});
  for (int o = 0; o < p->noutputs && out_dims; o++) {
    const ir_slot *s = p->slots;
    while (s->kind != IR_SLOT_OUTPUT || s->index != o) s++;
    for (int a = 0; a < s->rank; a++) *out_dims++ = s->sizes ? program_value(&x, s->sizes[a]) : s->dims[a];
  }
}
