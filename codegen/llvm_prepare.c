/* llvm_prepare.c — a kernel made ready for emission.
 *
 * Rewrites, all of them legal on any kernel:
 *   transcendentals expand to polynomials, tiles to their loops;
 *   lets of pure index arithmetic are substituted, so that strides can be seen;
 *   unroll loops with a constant extent are expanded;
 *   vector loops get a constant extent up to CG_MAX_LANES and run from 0; all loops of
 *   L lanes share one variable, so that equal loads of different loops are one
 *   expression; loops that cannot be a vector become serial or unrolled ones.
 * Then every buffer gets its place: a parameter, scratch memory or SSA values. */
#include "codegen/llvm.h"
#include <string.h>

enum { UNROLL_BUDGET = 20000 }; /* statements that unrolling may make in one kernel */

typedef struct prep {
  tn_ctx *ctx;
  const cg_target *t;
  ir_var *lanes[CG_MAX_LANES + 1];
  int made; /* statements that unrolling made so far */
} prep;

static const ir_stmt *prepare(prep *p, const ir_stmt *s);

int cg_prefetch_of(const char *atom) { return strcmp(atom, "prefetch") == 0 ? 3 : strcmp(atom, "prefetch.l2") == 0 ? 2 : 0; }

/* ---- small questions about trees ---- */

static const ir_stmt *child(const ir_stmt *s, int i) {
  if (s->kind == IR_SEQ) return i < s->n ? s->items[i] : NULL;
  return i == 0 ? s->body : i == 1 ? s->other : NULL;
}

static int children(const ir_stmt *s) {
  return s->kind == IR_SEQ ? s->n : s->kind == IR_STORE ? 0 : s->kind == IR_IF ? 2 : 1;
}

static bool has_vector_loop(const ir_stmt *s) {
  if (!s) return false;
  if (s->kind == IR_FOR && s->loop == IR_VECTOR) return true;
  for (int i = 0; i < children(s); i++)
    if (has_vector_loop(child(s, i))) return true;
  return false;
}

/* Calls fn on every expression of the statement itself, not of those inside. */
static void each_expr(const ir_stmt *s, void (*fn)(void *user, ix e), void *user) {
  if (s->lo) fn(user, s->lo), fn(user, s->hi);
  if (s->value) fn(user, s->value);
  for (int i = 0; s->kind == IR_STORE && i < s->buf->rank; i++) fn(user, s->index[i]);
}

typedef struct loads {
  tn_ctx *ctx;
  void (*fn)(void *user, ix load);
  void *user;
  int n;
  ix *found;
} loads;

static void keep_load(void *user, ix e) {
  loads *l = user;
  if (e->op == IX_LOAD) IR_PUSH(l->ctx, l->found, l->n, e);
}

static void walk_expr(void *user, ix e) {
  loads *l = user;
  ix_walk(l->ctx, e, keep_load, l);
}

/* Calls fn on every load of the statement itself. */
static void each_load(tn_ctx *ctx, const ir_stmt *s, void (*fn)(void *user, ix load), void *user) {
  loads l = {.ctx = ctx};
  each_expr(s, walk_expr, &l);
  for (int i = 0; i < l.n; i++) fn(user, l.found[i]);
}

bool cg_slot_access(tn_ctx *ctx, const ir_buf *b, const ix *index, const ir_var *lane, int64_t *base, int64_t *stride) {
  ix offset = ir_buf_offset(ctx, b, index);
  *stride = 0;
  if (lane && ix_uses_var(offset, lane)) {
    if (!ix_affine_in(offset, lane, stride)) return false;
    offset = ix_subst1(ctx, offset, lane, ix_index(ctx, 0));
  }
  return ix_const_value(offset, base);
}

/* ---- can this body run lane-wise? ---- */

typedef struct target_use { /* how a buffer is stored to in the body */
  const ir_buf *buf;
  bool uniform, varying;
  ir_store_op op; /* of the uniform stores */
} target_use;

typedef struct check {
  tn_ctx *ctx;
  int nvars, nprivate, nuses, nloaded;
  const ir_var **vars;        /* the lane variable and lets that depend on it */
  const ir_buf **priv;        /* register buffers that each lane has for itself */
  target_use *uses;
  const ir_buf **loaded;
  bool ok;
} check;

static bool is_private(const check *c, const ir_buf *b) {
  for (int i = 0; i < c->nprivate; i++)
    if (c->priv[i] == b) return true;
  return false;
}

static bool varies(const check *c, ix e) {
  for (int i = 0; i < c->nvars; i++)
    if (ix_uses_var(e, c->vars[i])) return true;
  for (int i = 0; i < c->nprivate; i++)
    if (ix_uses_buf(e, c->priv[i])) return true;
  return false;
}

static void check_slot(check *c, const ir_buf *b, const ix *index) {
  int64_t base, stride;
  if (is_private(c, b) && (!cg_slot_access(c->ctx, b, index, c->vars[0], &base, &stride) || stride != 0)) c->ok = false;
}

static void check_load(void *user, ix load) {
  check *c = user;
  check_slot(c, load->u.buf, load->args);
  IR_PUSH(c->ctx, c->loaded, c->nloaded, load->u.buf);
}

static void check_store(check *c, const ir_stmt *s, bool divergent) {
  check_slot(c, s->buf, s->index);
  if (is_private(c, s->buf)) return;
  bool varying = false;
  for (int i = 0; i < s->buf->rank; i++) varying = varying || varies(c, s->index[i]);
  if (!varying && s->op == IR_SET && divergent) c->ok = false;
  target_use *u = NULL;
  for (int i = 0; i < c->nuses; i++)
    if (c->uses[i].buf == s->buf) u = &c->uses[i];
  if (!u) {
    IR_PUSH(c->ctx, c->uses, c->nuses, (target_use){.buf = s->buf});
    u = &c->uses[c->nuses - 1];
  }
  if (!varying && u->uniform && u->op != s->op) c->ok = false;
  if (varying) u->varying = true;
  else u->uniform = true, u->op = s->op;
}

static void check_stmt(check *c, const ir_stmt *s, bool divergent) {
  if (!s || !c->ok) return;
  each_load(c->ctx, s, check_load, c);
  switch (s->kind) {
  case IR_FOR:
    if (varies(c, s->lo) || varies(c, s->hi)) c->ok = false;
    if (divergent && (s->lo->loads || s->hi->loads)) c->ok = false;
    break;
  case IR_WHILE:
    if (divergent || varies(c, s->value)) c->ok = false;
    break;
  case IR_IF:
    if (divergent && s->value->loads && !varies(c, s->value)) c->ok = false;
    divergent = divergent || varies(c, s->value);
    break;
  case IR_LET:
    if (varies(c, s->value)) IR_PUSH(c->ctx, c->vars, c->nvars, s->var);
    break;
  case IR_ALLOC: {
    int64_t n;
    if (s->buf->space != IR_REGISTER || !ix_const_value(ir_buf_elements(c->ctx, s->buf), &n) || n > CG_MAX_SLOTS) c->ok = false;
    IR_PUSH(c->ctx, c->priv, c->nprivate, s->buf);
    break;
  }
  case IR_STORE: check_store(c, s, divergent); break;
  default: break;
  }
  for (int i = 0; i < children(s); i++) check_stmt(c, child(s, i), divergent);
}

/* A store to one place from all lanes is a reduction. It may not be read in the body
 * (each lane would have to see its own), nor mixed with other ways of storing. */
static bool can_be_vector(tn_ctx *ctx, const ir_stmt *body, const ir_var *lane) {
  check c = {.ctx = ctx, .ok = true};
  IR_PUSH(ctx, c.vars, c.nvars, lane);
  check_stmt(&c, body, false);
  for (int i = 0; i < c.nuses && c.ok; i++) {
    if (!c.uses[i].uniform) continue;
    if (c.uses[i].varying) c.ok = false;
    for (int j = 0; j < c.nloaded; j++)
      if (c.loaded[j] == c.uses[i].buf) c.ok = false;
  }
  return c.ok;
}

/* ---- loops ---- */

static bool const_extent(tn_ctx *ctx, const ir_stmt *s, int64_t *n) {
  return ix_const_value(ix_sub(ctx, s->hi, s->lo), n);
}

static const ir_stmt *unrolled(prep *p, const ir_stmt *s, int64_t n) {
  const ir_stmt **items = IR_NEW_ARRAY(p->ctx, const ir_stmt *, n);
  for (int64_t i = 0; i < n; i++)
    items[i] = prepare(p, ir_subst_var(p->ctx, s->body, s->var, ix_addi(p->ctx, s->lo, i)));
  return ir_seq(p->ctx, (int)n, items);
}

static const ir_stmt *serial(prep *p, const ir_stmt *s) {
  return ir_for(p->ctx, s->var, s->lo, s->hi, IR_SERIAL, prepare(p, s->body));
}

typedef struct register_use {
  tn_ctx *ctx;
  const ir_var *v;
  bool found;
} register_use;

static void look_register(void *user, ix load) {
  register_use *r = user;
  if (load->u.buf->space == IR_REGISTER)
    for (int i = 0; i < load->u.buf->rank; i++) r->found = r->found || ix_uses_var(load->args[i], r->v);
}

static void find_register_use(register_use *r, const ir_stmt *s) {
  if (!s || r->found) return;
  each_load(r->ctx, s, look_register, r);
  if (s->kind == IR_STORE && s->buf->space == IR_REGISTER)
    for (int i = 0; i < s->buf->rank; i++) r->found = r->found || ix_uses_var(s->index[i], r->v);
  for (int i = 0; i < children(s); i++) find_register_use(r, child(s, i));
}

/* Registers need constant indices: then the loop must be expanded. */
static const ir_stmt *scalar(prep *p, const ir_stmt *s) {
  register_use r = {.ctx = p->ctx, .v = s->var};
  int64_t n;
  if (!const_extent(p->ctx, s, &n) || n > CG_MAX_LANES) return serial(p, s);
  find_register_use(&r, s->body);
  return r.found ? unrolled(p, s, n) : serial(p, s);
}

static const ir_stmt *lanes_loop(prep *p, const ir_stmt *s, ix lo, int n) {
  if (!p->lanes[n]) p->lanes[n] = ir_var_new(p->ctx, ir_format(p->ctx, "lane%d", n), TN_INDEX, 0, n - 1);
  ir_var *lane = p->lanes[n];
  const ir_stmt *body = prepare(p, ir_subst_var(p->ctx, s->body, s->var, ix_add(p->ctx, lo, lane->expr)));
  if (!can_be_vector(p->ctx, body, lane)) return NULL;
  return ir_for(p->ctx, lane, ix_index(p->ctx, 0), ix_index(p->ctx, n), IR_VECTOR, body);
}

static const ir_stmt *vector(prep *p, const ir_stmt *s) {
  tn_ctx *ctx = p->ctx;
  int64_t n;
  if (!const_extent(ctx, s, &n)) return serial(p, s);
  if (n <= 0) return NULL;
  if (n == 1) return prepare(p, ir_subst_var(ctx, s->body, s->var, s->lo));
  if (has_vector_loop(s->body)) return n <= 8 ? unrolled(p, s, n) : serial(p, s);
  if (n <= CG_MAX_LANES) {
    const ir_stmt *r = lanes_loop(p, s, s->lo, (int)n);
    return r ? r : scalar(p, s);
  }
  /* a long extent: a loop of vectors, and what is left */
  int64_t w = p->t->vector_bits / 32, whole = n / w;
  ir_var *outer = ir_var_new(ctx, ir_format(ctx, "%s.vec", s->var->name), TN_INDEX, 0, whole - 1);
  const ir_stmt *main = lanes_loop(p, s, ix_add(ctx, s->lo, ix_muli(ctx, outer->expr, w)), (int)w);
  if (!main) return scalar(p, s);
  const ir_stmt *rest = ir_for(ctx, s->var, ix_addi(ctx, s->lo, whole * w), s->hi, IR_VECTOR, s->body);
  main = ir_for(ctx, outer, ix_index(ctx, 0), ix_index(ctx, whole), IR_SERIAL, main);
  return ir_seq(ctx, 2, (const ir_stmt *[]){main, rest ? vector(p, rest) : NULL});
}

static const ir_stmt *prepare(prep *p, const ir_stmt *s) {
  if (!s) return NULL;
  tn_ctx *ctx = p->ctx;
  int64_t n;
  p->made++;
  switch (s->kind) {
  case IR_FOR:
    if (s->loop == IR_VECTOR) return vector(p, s);
    if (const_extent(ctx, s, &n)) {
      if (n <= 0) return NULL;
      if (n == 1) return prepare(p, ir_subst_var(ctx, s->body, s->var, s->lo));
      if (s->loop == IR_UNROLL && n <= UNROLL_BUDGET - p->made) return unrolled(p, s, n);
    }
    return serial(p, s);
  case IR_WHILE: return ir_while(ctx, s->value, prepare(p, s->body));
  case IR_IF: return ir_if(ctx, s->value, prepare(p, s->body), prepare(p, s->other));
  case IR_LET:
    if (s->var->dtype == TN_INDEX && !s->value->loads) return prepare(p, ir_subst_var(ctx, s->body, s->var, s->value));
    return ir_let(ctx, s->var, s->value, prepare(p, s->body));
  case IR_ALLOC: return ir_alloc_stmt(ctx, s->buf, prepare(p, s->body));
  case IR_STORE: return s;
  case IR_SEQ: {
    const ir_stmt **items = IR_NEW_ARRAY(ctx, const ir_stmt *, s->n);
    for (int i = 0; i < s->n; i++) items[i] = prepare(p, s->items[i]);
    return ir_seq(ctx, s->n, items);
  }
  case IR_TILE:
    if (cg_prefetch_of(s->atom)) return ir_tile(ctx, s->atom, prepare(p, s->body));
    if (strcmp(s->atom, "dot") == 0 || strcmp(s->atom, "transpose") == 0) return ir_tile(ctx, s->atom, s->body);
    return prepare(p, s->body);
  }
  ir_bug(ctx, "statement kind %d", (int)s->kind);
}

/* ---- tasks ---- */

static bool only_dims(const ir_kernel *k, ix e) {
  if (e->op == IX_LOAD) return false;
  if (e->op == IX_VAR) {
    for (int i = 0; i < k->ndims; i++)
      if (k->dims[i] == e->u.var) return true;
    return false;
  }
  for (int i = 0; i < e->nargs; i++)
    if (!only_dims(k, e->args[i])) return false;
  return true;
}

/* Replaces the parallel loop at the top, under lets and allocs, by its body for the task
 * variable. Null when there is none whose extent is known before the kernel runs. */
static const ir_stmt *split_tasks(tn_ctx *ctx, cg_plan *plan, const ir_stmt *s) {
  const ir_stmt *body;
  if (!s) return NULL;
  switch (s->kind) {
  case IR_LET:
    if (s->var->dtype == TN_INDEX && !s->value->loads) return split_tasks(ctx, plan, ir_subst_var(ctx, s->body, s->var, s->value));
    body = split_tasks(ctx, plan, s->body);
    return body ? ir_let(ctx, s->var, s->value, body) : NULL;
  case IR_ALLOC:
    body = split_tasks(ctx, plan, s->body);
    return body ? ir_alloc_stmt(ctx, s->buf, body) : NULL;
  case IR_TILE: return split_tasks(ctx, plan, s->body);
  case IR_FOR: {
    if (s->loop != IR_PARALLEL || !only_dims(plan->kernel, s->lo) || !only_dims(plan->kernel, s->hi)) return NULL;
    ix n = ix_sub(ctx, s->hi, s->lo);
    int64_t count;
    if (ix_const_value(n, &count) && (count <= 1 || count > INT32_MAX)) return NULL;
    plan->ntasks = n;
    plan->task = ir_var_new(ctx, "task", TN_INDEX, 0, n->hi == INT64_MAX ? INT32_MAX : n->hi - 1);
    return ir_subst_var(ctx, s->body, s->var, ix_add(ctx, s->lo, plan->task->expr));
  }
  default: return NULL;
  }
}

typedef struct buf_use {
  const ir_buf *buf;
  bool found;
} buf_use;

static void look_buf(void *user, ix load) {
  buf_use *u = user;
  u->found |= load->u.buf == u->buf;
}

static bool uses_buf(tn_ctx *ctx, const ir_stmt *s, const ir_buf *b) {
  if (!s) return false;
  buf_use u = {.buf = b, .found = s->kind == IR_STORE && s->buf == b};
  each_load(ctx, s, look_buf, &u);
  for (int i = 0; i < children(s) && !u.found; i++) u.found = uses_buf(ctx, child(s, i), b);
  return u.found;
}

/* Phases: the items of a sequence under allocs, of which at least one is a parallel loop with a constant extent; those
 * that are none join in phases of one task. */
static const ir_stmt *split_phases(tn_ctx *ctx, cg_plan *plan, const ir_stmt *s) {
  const ir_stmt *top = s, *part[CG_MAX_PHASES] = {0};
  while (s && s->kind == IR_ALLOC) s = s->body;
  if (!s || s->kind != IR_SEQ) return NULL;
  int n = 0, nparallel = 0;
  int64_t total = 0;
  bool before = false; /* the last phase is made of statements that are no parallel loops */
  for (int i = 0; i < s->n; i++) {
    const ir_stmt *f = s->items[i];
    int64_t lo, hi;
    bool parallel = f->kind == IR_FOR && f->loop == IR_PARALLEL && ix_const_value(f->lo, &lo) && ix_const_value(f->hi, &hi) && hi - lo > 1;
    if (!parallel && before) part[n - 1] = ir_seq(ctx, 2, (const ir_stmt *[]){part[n - 1], f});
    else if (n == CG_MAX_PHASES || (parallel && hi - lo > INT32_MAX - total)) return NULL;
    else {
      plan->phase[n] = parallel ? (int32_t)(hi - lo) : 1;
      plan->phase_task[n] = parallel ? ir_var_new(ctx, ir_format(ctx, "task%d", n), TN_INDEX, 0, hi - lo - 1) : NULL;
      part[n] = parallel ? ir_subst_var(ctx, f->body, f->var, ix_addi(ctx, plan->phase_task[n]->expr, lo)) : f;
      total += plan->phase[n++];
      nparallel += parallel;
    }
    before = !parallel;
  }
  if (!nparallel) return NULL;
  plan->nphases = n;
  plan->ntasks = ix_index(ctx, total);
  plan->task = ir_var_new(ctx, "task", TN_INDEX, 0, total - 1);
  for (const ir_stmt *a = top; a->kind == IR_ALLOC; a = a->body) {
    int users = 0;
    for (int i = 0; i < n; i++) users += uses_buf(ctx, part[i], a->buf);
    if (users > 1) IR_PUSH(ctx, plan->shared, plan->nshared, a->buf);
  }
  const ir_stmt *body = part[n - 1];
  for (int i = n - 1; i-- > 0;) {
    total -= plan->phase[i + 1];
    body = ir_if(ctx, ix_lt(ctx, plan->task->expr, ix_index(ctx, total)), part[i], body);
  }
  for (const ir_stmt *a = top; a->kind == IR_ALLOC; a = a->body) body = ir_alloc_stmt(ctx, a->buf, body); /* their order is nothing */
  return body;
}

/* ---- places of buffers ---- */

cg_buf *cg_plan_buf(const cg_plan *p, const ir_buf *b) {
  for (int i = 0; i < p->nbufs; i++)
    if (p->bufs[i]->buf == b) return p->bufs[i];
  return NULL;
}

static bool is_shared(const cg_plan *p, const ir_buf *b) {
  for (int i = 0; i < p->nshared; i++)
    if (p->shared[i] == b) return true;
  return false;
}

typedef struct scan {
  tn_ctx *ctx;
  cg_plan *plan;
  const ir_var *lane;
  int lanes;
} scan;

static int64_t gcd(int64_t a, int64_t b) {
  while (b) {
    int64_t t = a % b;
    a = b, b = t;
  }
  return a;
}

/* Narrows the way a register buffer is kept to what this access can be done with. */
static void scan_access(scan *c, const ir_buf *buf, const ix *index) {
  cg_buf *b = cg_plan_buf(c->plan, buf);
  if (!b || b->where != CG_SSA) return;
  int64_t base, stride;
  bool ok = cg_slot_access(c->ctx, buf, index, c->lane, &base, &stride) && base >= 0 && base < b->elements;
  if (ok && stride == 1 && b->lanes == 1) {
    ok = base + c->lanes <= b->elements;
    b->group = (int)gcd(b->group, gcd(c->lanes, base));
  } else if (stride != 0) ok = false;
  if (!ok) b->where = CG_SCRATCH;
}

static void scan_load(void *user, ix load) { scan_access(user, load->u.buf, load->args); }

static void add_buf(scan *c, ir_buf *buf) {
  cg_plan *p = c->plan;
  if (cg_plan_buf(p, buf)) return;
  cg_buf *b = IR_NEW(c->ctx, cg_buf);
  b->buf = buf;
  b->number = p->nbufs;
  b->readonly = true;
  b->lanes = b->group = 1;
  ix n = ir_buf_elements(c->ctx, buf);
  if (!ix_const_value(n, &b->elements)) b->elements = -1;
  if (p->nbufs < p->kernel->nbufs) {
    b->where = CG_PARAM;
    b->arg = p->nbufs;
  } else {
    b->where = is_shared(p, buf) ? CG_SHARED : buf->space == IR_REGISTER && b->elements >= 0 ? CG_SSA : CG_SCRATCH;
    if (b->where == CG_SSA) b->lanes = c->lane ? c->lanes : 1;
    if (b->elements < 0 && n->hi < INT64_MAX) b->elements = n->hi;
  }
  b->group = 0; /* gcd(0, x) = x: the first vector access decides */
  IR_PUSH(c->ctx, p->bufs, p->nbufs, b);
}

static void scan_stmt(scan *c, const ir_stmt *s) {
  if (!s) return;
  if (s->kind == IR_ALLOC) add_buf(c, s->buf);
  each_load(c->ctx, s, scan_load, c);
  if (s->kind == IR_STORE) {
    scan_access(c, s->buf, s->index);
    cg_buf *b = cg_plan_buf(c->plan, s->buf);
    if (b) b->readonly = false;
  }
  scan inner = *c;
  if (s->kind == IR_FOR && s->loop == IR_VECTOR) {
    inner.lane = s->var;
    inner.lanes = (int)s->hi->u.i;
  }
  for (int i = 0; i < children(s); i++) scan_stmt(&inner, child(s, i));
}

static void place(tn_ctx *ctx, cg_plan *p) {
  scan c = {.ctx = ctx, .plan = p, .lanes = 1};
  for (int i = 0; i < p->kernel->nbufs; i++) add_buf(&c, p->kernel->bufs[i]);
  scan_stmt(&c, p->body);
  int bit = 0;
  for (int i = 0; i < p->nbufs; i++) {
    cg_buf *b = p->bufs[i];
    if (b->where == CG_SSA) {
      if (b->group == 0) b->group = 1;
      if ((b->elements + b->group - 1) / b->group > CG_MAX_SLOTS) b->where = CG_SCRATCH;
      else b->nslots = (int)((b->elements + b->group - 1) / b->group);
    }
    if (b->where == CG_SCRATCH || b->where == CG_SHARED) {
      int64_t bytes, *sum = b->where == CG_SHARED ? &p->shared_bytes : &p->local_bytes;
      b->group = b->lanes = 1;
      if (b->elements < 0) ir_fail(ctx, TN_EUNSUPPORTED, "kernel %s: the size of local buffer '%s' has no constant bound", p->kernel->name, b->buf->name);
      if (!ir_mul_size(b->elements, (int64_t)ir_dtype_bytes(b->buf->dtype), &bytes) ||
          !ir_add_size(*sum, bytes + 63, &bytes))
        ir_fail(ctx, TN_ERESOURCE, "kernel %s: local buffer '%s' is too large", p->kernel->name, b->buf->name);
      b->offset = *sum;
      *sum = bytes / 64 * 64;
    }
    if (!b->readonly) {
      b->bit = bit < 63 ? bit : 63;
      bit++;
    }
  }
  p->on_stack = p->local_bytes <= CG_STACK_BYTES;
}

/* ---- lanes that are never stored ---- */

typedef struct cover {
  tn_ctx *ctx;
  cg_plan *plan;
  const ir_var *lane;
  int lanes;
  ix cond;   /* conjunction of the conditions on the lanes so far */
  bool bad;  /* a condition that may change between two stores */
} cover;

/* A slot whose stores all stand under one and the same condition on the lanes holds nothing in
 * the other lanes: a store may fill them with anything, and needs no select. */
static void find_covers(const cover *c, const ir_stmt *s) {
  if (!s) return;
  cover in = *c;
  if (s->kind == IR_FOR && s->loop == IR_VECTOR) {
    in.lane = s->var;
    in.lanes = (int)s->hi->u.i;
    in.cond = ix_bool(c->ctx, true);
    in.bad = false;
  }
  if (s->kind == IR_STORE) {
    cg_buf *b = cg_plan_buf(c->plan, s->buf);
    int64_t base, stride;
    if (!b || b->where != CG_SSA || !cg_slot_access(c->ctx, s->buf, s->index, c->lane, &base, &stride)) return;
    bool whole = c->lane && stride == 1 && b->lanes == 1 && b->group == c->lanes && !c->bad;
    int64_t first = b->lanes > 1 ? base : base / b->group, last = b->lanes > 1 ? base : (base + (stride ? c->lanes - 1 : 0)) / b->group;
    for (int64_t i = first; i <= last && i < b->nslots; i++) {
      if (!whole || (b->cover[i] && b->cover[i] != c->cond)) b->cover[i] = ix_bool(c->ctx, false);
      else b->cover[i] = c->cond;
    }
    return;
  }
  if (s->other) { /* the condition's opposite: not worth a rule */
    cover off = in;
    off.bad = true;
    find_covers(&off, s->other);
  }
  if (s->kind == IR_IF && in.lane && ix_uses_var(s->value, in.lane)) {
    in.cond = ix_and(c->ctx, in.cond, s->value);
    in.bad |= s->value->loads || s->other;
  }
  for (int i = 0; i < s->n; i++) find_covers(&in, s->items[i]);
  find_covers(&in, s->body);
}

/* ---- entry ---- */

static ix expand(ir_rewriter *r, ix e) { return ix_expand(r->ctx, e); }

cg_plan *cg_prepare(tn_ctx *ctx, const cg_target *t, const ir_kernel *k) {
  cg_plan *plan = IR_NEW(ctx, cg_plan);
  plan->kernel = k;
  plan->ntasks = ix_index(ctx, 1);
  const ir_stmt *body = ir_rewrite(&(ir_rewriter){.ctx = ctx, .expr = expand}, k->body);
  const ir_stmt *task = split_tasks(ctx, plan, body);
  if (!task) task = split_phases(ctx, plan, body);
  prep p = {.ctx = ctx, .t = t};
  plan->body = prepare(&p, task ? task : body);
  place(ctx, plan);
  for (int i = 0; i < plan->nbufs; i++)
    if (plan->bufs[i]->where == CG_SSA) plan->bufs[i]->cover = IR_NEW_ARRAY(ctx, ix, plan->bufs[i]->nslots + 1);
  find_covers(&(cover){.ctx = ctx, .plan = plan, .lanes = 1, .cond = ix_bool(ctx, true)}, plan->body);
  return plan;
}

cg_kernel_info cg_plan_info(const cg_plan *p, const char *symbol) {
  cg_kernel_info info = {.symbol = symbol, .ntasks = p->ntasks, .scratch_bytes = p->on_stack ? 0 : p->local_bytes, .shared_bytes = p->shared_bytes, .nphases = p->nphases};
  memcpy(info.phase, p->phase, sizeof info.phase);
  return info;
}

cg_kernel_info cg_kernel_abi(tn_ctx *ctx, const cg_target *t, const ir_kernel *k) {
  return cg_plan_info(cg_prepare(ctx, t, k), k->name);
}
