/* program.c — the invariants of a program, checked after lowering and for text that comes
 * from outside: every access of every instruction stays inside its memory. */
#include "ir/ir.h"
#include <string.h>

typedef struct check {
  tn_ctx *ctx;
  const ir_program *p;
  const char *wrong; /* the first thing found */
  enum { PACK, RUN, INIT } section; /* the one looked at */
  ir_var **vars;     /* lets in scope */
  int nvars;
} check;

#define WRONG(c, ...) ((c)->wrong ? (void)0 : (void)((c)->wrong = ir_format((c)->ctx, __VA_ARGS__)))

/* ---- sizes ---- */

typedef struct size_job {
  tn_dtype dtype;
  int rank;
  const ix *shape;
  const ir_layout *layout;
  int64_t bytes; /* -1: depends on dimensions */
} size_job;

static void measure(tn_ctx *ctx, void *arg) {
  size_job *j = arg;
  ix out[IR_MAX_RANK];
  int rank = ir_layout_shape(ctx, j->layout, j->rank, j->shape, out);
  j->bytes = (int64_t)ir_dtype_bytes(j->dtype);
  for (int i = 0; i < rank; i++) {
    int64_t d;
    if (!ix_const_value(out[i], &d)) {
      j->bytes = -1;
      return;
    }
    if (!ir_mul_size(j->bytes, d, &j->bytes)) ir_fail(ctx, TN_EINPUT, "the size overflows");
  }
}

/* Bytes in memory, or -1; sets `wrong` when they cannot be said. */
static int64_t bytes_of(check *c, const char *what, const char *name, tn_dtype t, int rank, const ix *shape, const ir_layout *l) {
  size_job j = {t, rank, shape, l, -1};
  if (ir_protect(c->ctx, measure, &j) != TN_OK) WRONG(c, "%s '%s': %s", what, name, ir_strdup(c->ctx, ir_error(c->ctx)));
  return j.bytes;
}

static void check_slot(check *c, int i) {
  const ir_program *p = c->p;
  const ir_slot *s = &p->slots[i];
  const char *name = s->name ? s->name : "";
  if (s->dtype <= TN_NONE || s->dtype >= TN_INDEX) WRONG(c, "slot '%s' has dtype %s", name, ir_dtype_name(s->dtype));
  if (s->rank < 0 || s->rank > IR_MAX_RANK) WRONG(c, "slot '%s' has rank %d", name, s->rank);
  if (s->offset < 0 || s->bytes < 0) WRONG(c, "slot '%s' has a negative place or size", name);
  if (c->wrong) return;
  ix shape[IR_MAX_RANK];
  for (int a = 0; a < s->rank; a++) {
    if (s->dims[a] < 0) WRONG(c, "slot '%s' has a negative extent", name);
    shape[a] = ix_index(c->ctx, s->dims[a]);
  }
  if (c->wrong) return;
  int64_t bytes = bytes_of(c, "slot", name, s->dtype, s->rank, shape, s->layout), end;
  if (!c->wrong && bytes != s->bytes) WRONG(c, "slot '%s' says %lld bytes, its type has %lld", name, (long long)s->bytes, (long long)bytes);
  if (s->offset % (int64_t)ir_dtype_bytes(s->dtype)) WRONG(c, "slot '%s' is not aligned to its elements", name);
  if (!ir_add_size(s->offset, s->bytes, &end)) WRONG(c, "slot '%s' ends beyond 64 bits", name);
  if (c->wrong) return;
  int64_t room = INT64_MAX; /* of inputs, outputs and raw tensors: their own size */
  int count = -1;
  switch (s->kind) {
  case IR_SLOT_INPUT: count = p->ninputs; break;
  case IR_SLOT_OUTPUT: count = p->noutputs; break;
  case IR_SLOT_RAW: count = p->nraw; break;
  case IR_SLOT_WEIGHTS: room = p->weights_bytes; break;
  case IR_SLOT_STATE: room = p->state_bytes; break;
  case IR_SLOT_ARENA: break; /* by section, where it is used */
  default: WRONG(c, "slot '%s' has no kind", name);
  }
  if (count >= 0 && (s->index < 0 || s->index >= count)) WRONG(c, "slot '%s' has number %d of %d", name, s->index, count);
  if (end > room) WRONG(c, "slot '%s' ends at byte %lld of %lld", name, (long long)end, (long long)room);
  for (int k = 0; count >= 0 && s->offset && k < p->nslots; k++) { /* a view: of a slot at 0 that is large enough */
    const ir_slot *whole = &p->slots[k];
    if (whole->kind == s->kind && whole->index == s->index && whole->offset == 0 && whole->bytes >= end) break;
    if (k == p->nslots - 1) WRONG(c, "slot '%s' is no part of its tensor", name);
  }
}

static bool is_dim(const ir_program *p, const ir_var *v) {
  for (int i = 0; i < p->ndims; i++)
    if (p->dims[i].var == v) return true;
  return false;
}

static ix extent_by(tn_ctx *ctx, ir_buf *b, int64_t most) {
  return ix_max(ctx, ix_index(ctx, 0), ix_min(ctx, ix_index(ctx, most), ix_cast(ctx, TN_INDEX, ix_load(ctx, b, NULL))));
}

ix ir_extent_new(tn_ctx *ctx, const char *slot, int64_t most) { return extent_by(ctx, ir_buf_new(ctx, slot, TN_I64, 0, NULL, NULL, IR_GLOBAL), most); }

static ir_buf *read_by(ix e) {
  if (e->op == IX_LOAD) return e->u.buf;
  ir_buf *b = NULL;
  for (int i = 0; i < e->nargs && !b && e->loads; i++) b = read_by(e->args[i]);
  return b;
}

int ir_extent_slot(const ir_program *p, ix size) {
  const ir_buf *b = size->loads ? read_by(size) : NULL;
  for (int i = 0; b && i < p->nslots; i++)
    if (p->slots[i].name && strcmp(p->slots[i].name, b->name) == 0) return i;
  return -1;
}

static void check_use(check *c, int i, bool stored, const char *by);

/* What an output's extent reads is as ir_extent_new says, so that all who run programs may read it themselves. */
static void check_found(check *c, const ir_slot *s, int axis) {
  int i = ir_extent_slot(c->p, s->sizes[axis]);
  if (s->kind != IR_SLOT_OUTPUT || i < 0 || c->p->slots[i].dtype != TN_I64 || c->p->slots[i].rank || s->sizes[axis] != extent_by(c->ctx, read_by(s->sizes[axis]), s->dims[axis])) {
    WRONG(c, "extent %d of slot '%s' reads memory, and not one number", axis, s->name);
    return;
  }
  c->section = RUN;
  check_use(c, i, false, "an extent");
  c->section = PACK;
}

static void check_size(void *user, ix e) {
  check *c = user;
  if (e->op == IX_VAR && !is_dim(c->p, e->u.var)) WRONG(c, "an extent knows '%s', which is no dimension of the program", e->u.var->name);
}

static void check_sizes(check *c, const ir_slot *s) {
  bool outside = s->kind == IR_SLOT_INPUT || s->kind == IR_SLOT_OUTPUT;
  if ((s->sizes || s->step) && !outside) WRONG(c, "slot '%s' depends on dimensions and is no input or output", s->name);
  if (s->step < 0 || s->step % (int64_t)ir_dtype_bytes(s->dtype)) WRONG(c, "slot '%s' has steps of %lld bytes", s->name, (long long)s->step);
  for (int a = 0; s->sizes && a < s->rank && !c->wrong; a++) {
    if (s->sizes[a]->dtype != TN_INDEX || s->sizes[a]->lo < 0 || s->sizes[a]->hi != s->dims[a]) WRONG(c, "extent %d of slot '%s' is not between 0 and %lld", a, s->name, (long long)s->dims[a]);
    else if (s->sizes[a]->loads) check_found(c, s, a);
    else ix_walk(c->ctx, s->sizes[a], check_size, c);
  }
}

static void check_dims(check *c) {
  for (int i = 0; i < c->p->ndims && !c->wrong; i++) {
    const ir_program_dim *d = &c->p->dims[i];
    const ir_var *v = d->var;
    if (!v || v->dtype != TN_INDEX || v->lo < 0 || v->hi < v->lo || v->hi > IR_MAX_BYTES) {
      WRONG(c, "dimension %d has no range", i);
      return;
    }
    for (int k = 0; k < d->nsizes; k++)
      if (d->sizes[k] < v->lo || d->sizes[k] > v->hi || (k && d->sizes[k] <= d->sizes[k - 1])) WRONG(c, "the sizes of dimension '%s' do not ascend in its range", v->name);
    for (int k = 0; k < i; k++)
      if (strcmp(c->p->dims[k].var->name, v->name) == 0) WRONG(c, "two dimensions are named '%s'", v->name);
  }
}

/* ---- instructions ---- */

/* A part of a batch ends within the whole tensor. */
static void check_part(check *c, const ir_slot *s, const char *by) {
  int v = c->nvars;
  while (v > 0 && strcmp(c->vars[v - 1]->name, "first") != 0) v--;
  if (v == 0) {
    WRONG(c, "%s: slot '%s' is a part, and no let 'first' says which", by, s->name);
    return;
  }
  const ir_var *first = c->vars[v - 1];
  int64_t end, whole = -1;
  for (int k = 0; k < c->p->nslots && whole < 0; k++) /* the first one is the tensor */
    if (c->p->slots[k].kind == s->kind && c->p->slots[k].index == s->index) whole = c->p->slots[k].bytes;
  bool fits = first->lo >= 0 && ir_mul_size(first->hi, s->step, &end) && ir_add_size(end, s->offset, &end) && ir_add_size(end, s->bytes, &end);
  if (!fits || end > whole) WRONG(c, "%s: slot '%s' ends beyond its tensor of %lld bytes", by, s->name, (long long)whole);
}

/* A use of a slot in the section looked at. */
static void check_use(check *c, int i, bool stored, const char *by) {
  if (i < 0 || i >= c->p->nslots) {
    WRONG(c, "%s: there is no slot %d", by, i);
    return;
  }
  const ir_slot *s = &c->p->slots[i];
  bool allowed = true;
  switch (s->kind) {
  case IR_SLOT_INPUT: allowed = c->section == RUN && (!stored || s->inout); break;
  case IR_SLOT_OUTPUT: allowed = c->section == RUN; break;
  case IR_SLOT_STATE: allowed = c->section == RUN || (c->section == INIT && stored); break;
  case IR_SLOT_RAW: allowed = c->section == PACK && !stored; break;
  case IR_SLOT_WEIGHTS: allowed = c->section == PACK || !stored; break;
  case IR_SLOT_ARENA: {
    int64_t room = c->section == PACK ? c->p->pack_arena_bytes : c->section == RUN ? c->p->arena_bytes : 0;
    if (s->offset + s->bytes > room)
      WRONG(c, "%s: slot '%s' ends at byte %lld of an arena of %lld", by, s->name, (long long)(s->offset + s->bytes), (long long)room);
    break;
  }
  }
  if (s->step && !c->wrong) check_part(c, s, by);
  if (!allowed) WRONG(c, "%s: slot '%s' cannot be %s in %s", by, s->name, stored ? "stored" : "used", (const char *[]){"pack", "run", "init"}[c->section]);
}

static void check_call(check *c, const ir_inst *in) {
  const char *by = in->name ? in->name : "a call";
  if (in->kernel < 0 || in->kernel >= c->p->nkernels) {
    WRONG(c, "%s: there is no kernel %d", by, in->kernel);
    return;
  }
  const ir_program_kernel *pk = &c->p->kernels[in->kernel];
  const ir_kernel *k = pk->lowered ? pk->lowered : pk->kernel;
  if (in->nargs != k->nbufs) {
    WRONG(c, "%s: kernel '%s' takes %d buffers, %d are given", by, k->name, k->nbufs, in->nargs);
    return;
  }
  for (int i = 0; i < in->nargs && !c->wrong; i++) {
    const ir_buf *b = k->bufs[i];
    check_use(c, in->args[i], (b->access & IR_OUT) != 0, by);
    if (c->wrong) return;
    const ir_slot *s = &c->p->slots[in->args[i]];
    if (s->dtype != b->dtype)
      WRONG(c, "%s: slot '%s' has dtype %s, parameter '%s' of '%s' %s", by, s->name, ir_dtype_name(s->dtype), b->name, k->name, ir_dtype_name(b->dtype));
    int64_t need = bytes_of(c, "parameter", b->name, b->dtype, b->rank, b->shape, b->layout);
    if (need > s->bytes)
      WRONG(c, "%s: slot '%s' has %lld bytes, parameter '%s' of '%s' needs %lld", by, s->name, (long long)s->bytes, b->name, k->name, (long long)need);
  }
  for (int d = 0; d < k->ndims && !c->wrong; d++) {
    int v = c->nvars;
    while (v > 0 && strcmp(c->vars[v - 1]->name, k->dims[d]->name) != 0) v--;
    if (v == 0) WRONG(c, "%s: dimension '%s' of kernel '%s' has no value", by, k->dims[d]->name, k->name);
  }
}

static void check_expr(void *user, ix e) {
  check *c = user;
  if (e->op == IX_VAR) {
    int v = c->nvars;
    while (v > 0 && c->vars[v - 1] != e->u.var) v--;
    if (v == 0) WRONG(c, "the variable '%s' is not in scope", e->u.var->name);
  } else if (e->op == IX_LOAD) {
    int i = 0;
    while (i < c->p->nslots && !(c->p->slots[i].name && strcmp(c->p->slots[i].name, e->u.buf->name) == 0)) i++;
    if (i == c->p->nslots) WRONG(c, "there is no slot '%s'", e->u.buf->name);
    else check_use(c, i, false, "a value");
  }
}

static void enter(check *c, ir_var *v) {
  c->vars = ir_grow(c->ctx, c->vars, (size_t)c->nvars, (size_t)c->nvars + 1, sizeof *c->vars); /* few */
  c->vars[c->nvars++] = v;
}

static void check_insts(check *c, int n, const ir_inst *insts) {
  int scope = c->nvars;
  for (int i = 0; i < n && !c->wrong; i++) {
    const ir_inst *in = &insts[i];
    if (in->kind != IR_CALL && in->kind != IR_COPY_SLOT) {
      if (!in->value) WRONG(c, "an instruction has no value");
      else ix_walk(c->ctx, in->value, check_expr, c);
      if (c->wrong) return;
    }
    switch (in->kind) {
    case IR_CALL: check_call(c, in); break;
    case IR_COPY_SLOT: {
      const char *by = in->name ? in->name : "a copy";
      if (in->nargs != 2) WRONG(c, "%s has %d slots", by, in->nargs);
      if (c->wrong) return;
      check_use(c, in->args[0], true, by);
      check_use(c, in->args[1], false, by);
      if (c->wrong) return;
      const ir_slot *dst = &c->p->slots[in->args[0]], *src = &c->p->slots[in->args[1]];
      if (dst->bytes != src->bytes)
        WRONG(c, "%s: '%s' has %lld bytes, '%s' %lld", by, src->name, (long long)src->bytes, dst->name, (long long)dst->bytes);
      break;
    }
    case IR_INST_LET: {
      if (!in->var || in->var->dtype != (tn_dtype)in->value->dtype) {
        WRONG(c, "a let has no variable of its value's dtype");
        return;
      }
      if (strcmp(in->var->name, "first") == 0 && (in->value->lo < in->var->lo || in->value->hi > in->var->hi)) WRONG(c, "'first' may be out of its range");
      enter(c, in->var);
      break;
    }
    case IR_INST_FOR: {
      if (!in->var || in->var->dtype != TN_INDEX || in->value->dtype != TN_INDEX || in->var->lo > 0 || in->var->hi < in->value->hi - 1) {
        WRONG(c, "a loop has no counter, or one of too small a range");
        return;
      }
      int outside = c->nvars;
      enter(c, in->var);
      check_insts(c, in->nbody, in->body);
      c->nvars = outside;
      break;
    }
    case IR_INST_IF:
    case IR_INST_WHILE:
      if (in->value->dtype != TN_BOOL) WRONG(c, "a condition has dtype %s", ir_dtype_name((tn_dtype)in->value->dtype));
      check_insts(c, in->nbody, in->body);
      check_insts(c, in->nother, in->other);
      break;
    default: WRONG(c, "an instruction has no kind");
    }
  }
  c->nvars = scope;
}

const char *ir_program_verify(tn_ctx *ctx, const ir_program *p) {
  check c = {.ctx = ctx, .p = p};
  if (p->weights_bytes < 0 || p->arena_bytes < 0 || p->state_bytes < 0 || p->pack_arena_bytes < 0) return "a negative size";
  check_dims(&c);
  for (int i = 0; i < p->nslots && !c.wrong; i++) {
    check_slot(&c, i);
    if (!c.wrong) check_sizes(&c, &p->slots[i]);
  }
  for (int i = 0; i < p->nkernels && !c.wrong; i++) {
    const ir_program_kernel *k = &p->kernels[i];
    for (int form = 0; form < 2 && !c.wrong; form++) {
      const ir_kernel *of = form ? k->lowered : k->kernel;
      if (!of || (form && of == k->kernel)) continue;
      const char *wrong = ir_kernel_verify(ctx, of);
      if (wrong) WRONG(&c, "kernel '%s'%s: %s", of->name, form ? ", scheduled" : "", wrong);
    }
    if (!k->kernel) WRONG(&c, "kernel %d is missing", i);
  }
  check_insts(&c, p->npack, p->pack);
  c.section = RUN;
  for (int i = 0; i < p->ndims && !c.wrong; i++) enter(&c, p->dims[i].var);
  check_insts(&c, p->nrun, p->run);
  c.nvars = 0;
  c.section = INIT;
  check_insts(&c, p->ninit, p->init);
  return c.wrong;
}
