/* interp.c — runs a kernel on host memory: the specification of its meaning.
 *
 * A kernel becomes a tree of `code` (one per statement) over a graph of `node`
 * (one per distinct expression). A node remembers its value and the clock of
 * what it depends on: expressions without loads that of their innermost variable,
 * expressions with loads that of the running statement. So a shared
 * sub-expression is computed once, an invariant one once per change of its
 * variables, and select computes only the arm it takes.
 *
 *   kernel -> ix_expand -> node, code  (in a child context, dropped at the end)
 *          -> exec(code): bind variables, advance clocks, store elements
 */
#include "ir/interp.h"
#include "ir/text.h"
#include <string.h>

typedef struct machine machine;
typedef struct node node;
typedef struct code code;

/* A buffer while the kernel runs. */
typedef struct memory {
  ir_buf *buf;
  node *shape[IR_MAX_RANK];
  int64_t extent[IR_MAX_RANK]; /* logical */
  int64_t physical[IR_MAX_RANK];
  int nphysical;
  char *data;
  uint8_t *defined; /* per physical element; null: everything is */
  size_t data_bytes, defined_bytes; /* owned, kept for the next entry of the scope */
  size_t width;
} memory;

struct node {
  ir_scalar (*eval)(machine *m, node *n);
  ir_scalar value;
  uint64_t stamp;
  const uint64_t *clock; /* the value holds while stamp == *clock */
  uint8_t op, dtype, nargs;
  bool loads;
  int depth;             /* of the innermost variable used, -1: none */
  memory *mem;           /* LOAD */
  node *args[];
};

/* A variable in scope: its VAR node holds the value. */
typedef struct binding {
  node *var;
  uint64_t clock;
} binding;

struct code {
  ir_stmt_kind kind;
  ir_loop_kind loop;
  ir_store_op op;
  binding *var;
  node *lo, *hi, *value;
  memory *mem;
  node *index[IR_MAX_RANK];
  const ir_stmt *stmt;
  code *body, *other;
  int n;
  code **items;
};

struct machine {
  tn_ctx *ctx; /* the child */
  const ir_kernel *k;
  void *const *args;
  const int64_t *dims;
  ir_interp_options options;
  uint64_t now;       /* last clock value given out */
  uint64_t statement; /* clock of the running statement */
  uint64_t never;     /* clock of constants: 0 for ever */
  uint64_t random;
  int64_t steps;
  memory **owned;     /* buffers with memory to free */
  int nowned;
  bool hints;         /* within a prefetch */
  ir_map known;       /* while compiling: by expression, variable, buffer */
};

/* ---- evaluation ---- */

static inline ir_scalar get(machine *m, node *n) {
  if (n->stamp != *n->clock) {
    n->value = n->eval(m, n);
    n->stamp = *n->clock;
  }
  return n->value;
}

static ir_scalar eval_any(machine *m, node *n) {
  ir_scalar x[3] = {{0}, {0}, {0}};
  tn_dtype t[3] = {TN_NONE, TN_NONE, TN_NONE};
  for (int i = 0; i < n->nargs; i++) {
    x[i] = get(m, n->args[i]);
    t[i] = (tn_dtype)n->args[i]->dtype;
  }
  return ir_eval_op(m->ctx, (ir_opcode)n->op, (tn_dtype)n->dtype, n->nargs, t, x);
}

static ir_scalar eval_select(machine *m, node *n) { return get(m, n->args[get(m, n->args[0]).i ? 1 : 2]); }

/* The commonest operations, for speed only: the same as eval_any. */
#define INT_FN(name, expr)                                                   \
  static ir_scalar eval_##name(machine *m, node *n) {                        \
    int64_t a = get(m, n->args[0]).i, b = get(m, n->args[1]).i;              \
    return (ir_scalar){.i = (expr)};                                         \
  }
#define F32_FN(name, expr)                                                   \
  static ir_scalar eval_##name(machine *m, node *n) {                        \
    float a = (float)get(m, n->args[0]).f, b = (float)get(m, n->args[1]).f;  \
    return (ir_scalar){.f = (expr)};                                         \
  }
INT_FN(index_add, (int64_t)((uint64_t)a + (uint64_t)b))
INT_FN(index_mul, (int64_t)((uint64_t)a * (uint64_t)b))
INT_FN(index_lt, a < b)
INT_FN(index_le, a <= b)
INT_FN(bool_and, a & b)
F32_FN(f32_add, a + b)
F32_FN(f32_sub, a - b)
F32_FN(f32_mul, a * b)
F32_FN(f32_max, a > b ? a : b)
F32_FN(f32_min, a < b ? a : b)

static void *eval_choice(const node *n) {
  tn_dtype of = n->nargs ? (tn_dtype)n->args[0]->dtype : TN_NONE;
  static const struct {
    ir_opcode op;
    tn_dtype of;
    ir_scalar (*eval)(machine *m, node *n);
  } rows[] = {
      {IX_ADD, TN_INDEX, eval_index_add}, {IX_MUL, TN_INDEX, eval_index_mul}, {IX_LT, TN_INDEX, eval_index_lt},
      {IX_LE, TN_INDEX, eval_index_le},   {IX_AND, TN_BOOL, eval_bool_and},   {IX_ADD, TN_F32, eval_f32_add},
      {IX_SUB, TN_F32, eval_f32_sub},     {IX_MUL, TN_F32, eval_f32_mul},     {IX_MAX, TN_F32, eval_f32_max},
      {IX_MIN, TN_F32, eval_f32_min},
  };
  for (int i = 0; i < IR_COUNT(rows); i++)
    if (rows[i].op == n->op && rows[i].of == of) return (void *)rows[i].eval;
  return (void *)(n->op == IX_SELECT ? eval_select : eval_any);
}

/* ---- memory ---- */

static void put_list(ir_text *t, int n, const int64_t *v) {
  ir_put(t, "[");
  for (int i = 0; i < n; i++) ir_put(t, "%s%lld", i ? ", " : "", (long long)v[i]);
  ir_put(t, "]");
}

IR_NORETURN static void bad_access(machine *m, const memory *mem, const int64_t *at, const char *what, bool extents) {
  ir_text t = {.ctx = m->ctx};
  ir_put(&t, "kernel '%s': buffer '%s': %s", m->k->name, mem->buf->name, what);
  put_list(&t, mem->buf->rank, at);
  if (extents) {
    ir_put(&t, " outside of its extents ");
    put_list(&t, mem->buf->rank, mem->extent);
  }
  ir_fail(m->ctx, TN_EINTERNAL, "%s", ir_text_str(&t));
}

/* The layout's steps on a list of extents (at = null) or of indices. */
static int layout_apply(const ir_layout *l, int rank, const int64_t *in, bool extents, int64_t *out) {
  memcpy(out, in, (size_t)rank * sizeof *out);
  for (int i = 0; l && i < l->nsteps; i++) {
    const ir_layout_step *s = &l->steps[i];
    switch (s->kind) {
      case IR_LAYOUT_SPLIT: {
        int64_t v = out[s->axis], f = s->factor;
        memmove(out + s->axis + 2, out + s->axis + 1, (size_t)(rank - s->axis - 1) * sizeof *out);
        out[s->axis] = extents ? v / f + (v % f != 0) : v / f;
        out[s->axis + 1] = extents ? f : v % f;
        rank++;
        break;
      }
      case IR_LAYOUT_PERM: {
        int64_t old[IR_MAX_RANK];
        memcpy(old, out, sizeof old);
        for (int a = 0; a < rank; a++) out[a] = old[s->perm[a]];
        break;
      }
      case IR_LAYOUT_PAD: out[s->axis] += extents ? s->before + s->after : s->before; break;
      case IR_LAYOUT_XOR:
        if (!extents) out[s->axis] ^= out[s->axis2] % s->factor;
        else if (out[s->axis] % s->factor) out[s->axis] += s->factor - out[s->axis] % s->factor;
        break;
    }
  }
  return rank;
}

/* Evaluates the extents of a buffer; returns its physical element count. */
static int64_t memory_shape(machine *m, memory *mem) {
  int rank = mem->buf->rank;
  for (int i = 0; i < rank; i++) {
    mem->extent[i] = get(m, mem->shape[i]).i;
    if (mem->extent[i] < 0)
      ir_fail(m->ctx, TN_EINTERNAL, "kernel '%s': buffer '%s': extent %d is %lld", m->k->name, mem->buf->name, i,
              (long long)mem->extent[i]);
  }
  mem->nphysical = layout_apply(mem->buf->layout, rank, mem->extent, true, mem->physical);
  int64_t count = 1;
  for (int i = 0; i < mem->nphysical; i++)
    if (!ir_mul_size(count, mem->physical[i], &count))
      ir_fail(m->ctx, TN_ERESOURCE, "kernel '%s': buffer '%s' is too large", m->k->name, mem->buf->name);
  return count;
}

static void *resize(machine *m, void *old, size_t *have, size_t bytes) {
  if (bytes <= *have) return old;
  void *p = ir_raw_alloc(m->ctx, bytes);
  ir_raw_free(m->ctx, old);
  *have = bytes;
  return p;
}

/* A fresh, undefined buffer; `data` null: owned memory. */
static void memory_begin(machine *m, memory *mem, void *data) {
  int64_t count = memory_shape(m, mem), bytes;
  if (!ir_mul_size(count, (int64_t)mem->width, &bytes))
    ir_fail(m->ctx, TN_ERESOURCE, "kernel '%s': buffer '%s' is too large", m->k->name, mem->buf->name);
  if (!data && !mem->data_bytes && !mem->defined_bytes) IR_PUSH(m->ctx, m->owned, m->nowned, mem);
  else if (data && !mem->defined_bytes) IR_PUSH(m->ctx, m->owned, m->nowned, mem);
  if (data) mem->data = data;
  else mem->data = resize(m, mem->data, &mem->data_bytes, (size_t)bytes + 1);
  mem->defined = resize(m, mem->defined, &mem->defined_bytes, (size_t)count + 1);
  memset(mem->defined, 0, (size_t)count + 1);
}

static void release(void *arg) {
  machine *m = arg;
  for (int i = 0; i < m->nowned; i++) {
    if (m->owned[i]->data_bytes) ir_raw_free(m->ctx, m->owned[i]->data);
    if (m->owned[i]->defined_bytes) ir_raw_free(m->ctx, m->owned[i]->defined);
  }
  m->nowned = 0;
}

/* Checks an access and returns the physical element offset. */
static inline int64_t locate(machine *m, const memory *mem, node *const *index, int64_t *at, const char *what) {
  int rank = mem->buf->rank;
  bool outside = false;
  int64_t offset = 0;
  for (int i = 0; i < rank; i++) {
    at[i] = get(m, index[i]).i;
    outside |= (uint64_t)at[i] >= (uint64_t)mem->extent[i];
    offset = (int64_t)((uint64_t)offset * (uint64_t)mem->extent[i] + (uint64_t)at[i]);
  }
  if (outside) bad_access(m, mem, at, what, true);
  if (!mem->buf->layout) return offset;
  int64_t p[IR_MAX_RANK];
  layout_apply(mem->buf->layout, rank, at, false, p);
  offset = 0;
  for (int i = 0; i < mem->nphysical; i++) offset = offset * mem->physical[i] + p[i];
  return offset;
}

static inline ir_scalar fetch(machine *m, const memory *mem, int64_t offset, const int64_t *at) {
  if (mem->defined && !mem->defined[offset] && !m->hints)
    bad_access(m, mem, at, "read before it is stored, at ", false);
  const char *p = mem->data + (size_t)offset * mem->width;
  if (mem->buf->dtype != TN_F32) return ir_scalar_load(mem->buf->dtype, p);
  float v; /* as ir_scalar_load would, without the call */
  memcpy(&v, p, 4);
  return (ir_scalar){.f = v};
}

static ir_scalar eval_load(machine *m, node *n) {
  int64_t at[IR_MAX_RANK];
  int64_t offset = locate(m, n->mem, n->args, at, "load at ");
  ir_scalar v = fetch(m, n->mem, offset, at);
  const ir_observer *o = m->options.observer;
  if (o && o->access) o->access(o->user, m->ctx, n->mem->buf, offset, false, v);
  return v;
}

/* ---- compiling ---- */

static node *compile_node(machine *m, ix e) {
  node *n = ir_map_get(&m->known, e);
  if (n) return n;
  if (e->op == IX_VAR) ir_bug(m->ctx, "kernel '%s': variable '%s' is not in scope", m->k->name, e->u.var->name);
  n = ir_alloc(m->ctx, sizeof *n + e->nargs * sizeof(node *));
  n->op = e->op;
  n->dtype = e->dtype;
  n->nargs = (uint8_t)e->nargs;
  n->depth = -1;
  n->clock = &m->never;
  if (e->op == IX_CONST) {
    if (ir_is_float((tn_dtype)e->dtype)) n->value.f = e->u.f;
    else n->value.i = e->u.i;
    ir_map_set(&m->known, e, n);
    return n;
  }
  n->stamp = UINT64_MAX; /* no clock shows it: not computed yet */
  n->loads = e->op == IX_LOAD;
  for (int i = 0; i < e->nargs; i++) {
    node *a = n->args[i] = compile_node(m, e->args[i]);
    n->loads |= a->loads;
    if (a->depth > n->depth) {
      n->depth = a->depth;
      n->clock = a->clock;
    }
  }
  if (n->loads) n->clock = &m->statement;
  if (e->op == IX_LOAD) {
    n->mem = ir_map_get(&m->known, e->u.buf);
    if (!n->mem) ir_bug(m->ctx, "kernel '%s': buffer '%s' is not in scope", m->k->name, e->u.buf->name);
    n->eval = eval_load;
  } else n->eval = eval_choice(n);
  ir_map_set(&m->known, e, n);
  return n;
}

static node *compile_expr(machine *m, ix e) { return compile_node(m, ix_expand(m->ctx, e)); }

static binding *compile_var(machine *m, ir_var *v, int depth) {
  /* Nodes are shared by expression, so a variable must mean one thing. */
  if (ir_map_get(&m->known, v->expr)) ir_bug(m->ctx, "kernel '%s': variable '%s' is bound twice", m->k->name, v->name);
  binding *b = IR_NEW(m->ctx, binding);
  node *n = IR_NEW(m->ctx, node);
  n->op = IX_VAR;
  n->dtype = (uint8_t)v->dtype;
  n->depth = depth;
  b->clock = ++m->now;
  n->clock = &b->clock;
  b->var = n;
  ir_map_set(&m->known, v->expr, n);
  return b;
}

static memory *compile_buffer(machine *m, ir_buf *b) {
  if (ir_map_get(&m->known, b)) ir_bug(m->ctx, "kernel '%s': buffer '%s' is declared twice", m->k->name, b->name);
  memory *mem = IR_NEW(m->ctx, memory);
  mem->buf = b;
  mem->width = ir_dtype_bytes(b->dtype);
  for (int i = 0; i < b->rank; i++) mem->shape[i] = compile_expr(m, b->shape[i]);
  ir_map_set(&m->known, b, mem);
  return mem;
}

/* depth: number of variables in scope. */
static code *compile_stmt(machine *m, const ir_stmt *s, int depth) {
  if (!s) return NULL;
  code *c = IR_NEW(m->ctx, code);
  c->kind = s->kind;
  c->stmt = s;
  c->loop = s->loop;
  c->op = s->op;
  switch (s->kind) {
    case IR_FOR:
      c->lo = compile_expr(m, s->lo);
      c->hi = compile_expr(m, s->hi);
      c->var = compile_var(m, s->var, depth);
      c->body = compile_stmt(m, s->body, depth + 1);
      break;
    case IR_LET:
      c->value = compile_expr(m, s->value);
      c->var = compile_var(m, s->var, depth);
      c->body = compile_stmt(m, s->body, depth + 1);
      break;
    case IR_WHILE: case IR_IF: c->value = compile_expr(m, s->value); break;
    case IR_ALLOC: c->mem = compile_buffer(m, s->buf); break;
    case IR_STORE:
      c->mem = ir_map_get(&m->known, s->buf);
      if (!c->mem) ir_bug(m->ctx, "kernel '%s': buffer '%s' is not in scope", m->k->name, s->buf->name);
      for (int i = 0; i < s->buf->rank; i++) c->index[i] = compile_expr(m, s->index[i]);
      c->value = compile_expr(m, s->value);
      break;
    case IR_SEQ:
      c->n = s->n;
      c->items = IR_NEW_ARRAY(m->ctx, code *, s->n);
      for (int i = 0; i < s->n; i++) c->items[i] = compile_stmt(m, s->items[i], depth);
      break;
    case IR_TILE: break;
  }
  if (!c->body) c->body = compile_stmt(m, s->body, depth);
  c->other = compile_stmt(m, s->other, depth);
  return c;
}

/* ---- running ---- */

static void step(machine *m) {
  m->statement = ++m->now;
  if (++m->steps > m->options.max_steps)
    ir_fail(m->ctx, TN_ERESOURCE, "kernel '%s': gave up after %lld steps", m->k->name, (long long)m->options.max_steps);
}

static void bind(machine *m, binding *b, ir_scalar value) {
  b->var->value = value;
  b->var->stamp = b->clock = ++m->now;
}

static void exec(machine *m, code *c);

static void exec_store(machine *m, code *c) {
  static const ir_opcode ops[] = {[IR_ADD] = IX_ADD, [IR_MUL] = IX_MUL, [IR_MAX] = IX_MAX,
                                  [IR_MIN] = IX_MIN, [IR_OR] = IX_OR,   [IR_AND] = IX_AND};
  memory *mem = c->mem;
  tn_dtype t = mem->buf->dtype;
  int64_t at[IR_MAX_RANK];
  ir_scalar v = get(m, c->value);
  int64_t offset = locate(m, mem, c->index, at, "store at ");
  if (c->op == IR_ADD && t == TN_F32) v.f = (float)fetch(m, mem, offset, at).f + (float)v.f; /* the commonest */
  else if (c->op != IR_SET)
    v = ir_eval_op(m->ctx, ops[c->op], t, 2, (tn_dtype[]){t, t}, (ir_scalar[]){fetch(m, mem, offset, at), v});
  const ir_observer *o = m->options.observer;
  if (o && o->access) {
    if (c->op != IR_SET) o->access(o->user, m->ctx, mem->buf, offset, false, v);
    o->access(o->user, m->ctx, mem->buf, offset, true, v);
  }
  ir_scalar_store(t, mem->data + (size_t)offset * mem->width, v);
  if (mem->defined) mem->defined[offset] = 1;
}

static uint64_t next_random(machine *m) { /* splitmix64 */
  uint64_t z = m->random += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

static uint64_t gcd(uint64_t a, uint64_t b) {
  while (b) {
    uint64_t r = a % b;
    a = b;
    b = r;
  }
  return a;
}

static void exec_for(machine *m, code *c) {
  int64_t lo = get(m, c->lo).i, hi = get(m, c->hi).i;
  if (lo >= hi) return;
  uint64_t n = (uint64_t)hi - (uint64_t)lo, at = 0, by = 1;
  const ir_observer *o = m->options.observer;
  bool free_order = c->loop == IR_PARALLEL || c->loop == IR_VECTOR || c->loop >= IR_GRID, observed = o && o->loop && c->loop >= IR_GRID;
  if (m->options.seed && free_order && n > 1) { /* start anywhere, go on by a step coprime to n */
    at = next_random(m) % n;
    do by = 1 + next_random(m) % (n - 1);
    while (gcd(by, n) != 1);
  }
  for (uint64_t i = 0; i < n; i++) {
    bind(m, c->var, (ir_scalar){.i = lo + (int64_t)at});
    step(m);
    if (observed) o->loop(o->user, m->ctx, c->stmt, lo + (int64_t)at, true);
    exec(m, c->body);
    if (observed) o->loop(o->user, m->ctx, c->stmt, lo + (int64_t)at, false);
    at = at >= n - by ? at - (n - by) : at + by; /* (at + by) mod n */
  }
}

/* What a prefetch reads goes nowhere, so it need not be there yet: memory that is about to be written. */
static void exec_tile(machine *m, code *c) {
  const ir_observer *o = m->options.observer;
  bool observed = o && o->tile, outer = m->hints;
  m->hints |= strncmp(c->stmt->atom, "prefetch", 8) == 0;
  if (observed) o->tile(o->user, m->ctx, c->stmt, true);
  exec(m, c->body);
  if (observed) o->tile(o->user, m->ctx, c->stmt, false);
  m->hints = outer;
}

static void exec(machine *m, code *c) {
  if (!c) return;
  if (c->kind == IR_SEQ) {
    for (int i = 0; i < c->n; i++) exec(m, c->items[i]);
    return;
  }
  step(m);
  switch (c->kind) {
    case IR_FOR: exec_for(m, c); break;
    case IR_WHILE:
      while (get(m, c->value).i) {
        exec(m, c->body);
        step(m);
      }
      break;
    case IR_IF: exec(m, get(m, c->value).i ? c->body : c->other); break;
    case IR_LET:
      bind(m, c->var, get(m, c->value));
      exec(m, c->body);
      break;
    case IR_ALLOC:
      memory_begin(m, c->mem, NULL);
      if (m->options.observer && m->options.observer->scope)
        m->options.observer->scope(m->options.observer->user, m->ctx, c->mem->buf, (int64_t)c->mem->defined_bytes - 1);
      exec(m, c->body);
      break;
    case IR_STORE: exec_store(m, c); break;
    case IR_TILE: exec_tile(m, c); break;
    case IR_SEQ: break;
  }
}

static void run(tn_ctx *ctx, void *arg) {
  machine *m = arg;
  const ir_kernel *k = m->k;
  m->ctx = m->known.ctx = ctx;
  ir_defer(ctx, release, m);
  for (int i = 0; i < k->ndims; i++) {
    binding *b = compile_var(m, k->dims[i], i);
    bind(m, b, (ir_scalar){.i = ir_wrap_int(k->dims[i]->dtype, m->dims[i])});
  }
  memory **mem = IR_NEW_ARRAY(ctx, memory *, k->nbufs);
  for (int i = 0; i < k->nbufs; i++) mem[i] = compile_buffer(m, k->bufs[i]);
  code *c = compile_stmt(m, k->body, k->ndims);
  step(m);
  for (int i = 0; i < k->nbufs; i++) {
    if (k->bufs[i]->access == IR_OUT) memory_begin(m, mem[i], m->args[i]);
    else {
      memory_shape(m, mem[i]);
      mem[i]->data = m->args[i];
    }
  }
  exec(m, c);
}

void ir_interp_opt(tn_ctx *ctx, const ir_kernel *k, void *const *args, const int64_t *dims,
                   const ir_interp_options *options) {
  tn_ctx *child = ir_ctx_child(ctx); /* compiled code does not stay in the caller's arena */
  if (!child) ir_fail(ctx, TN_ERESOURCE, "out of memory");
  machine m = {.k = k, .args = args, .dims = dims};
  if (options) m.options = *options;
  if (m.options.max_steps <= 0) m.options.max_steps = (int64_t)1 << 40;
  m.random = m.options.seed;
  tn_status status = ir_protect(child, run, &m);
  char message[1024];
  strncpy(message, ir_error(child), sizeof message - 1);
  message[sizeof message - 1] = 0;
  tn_ctx_free(child);
  if (status != TN_OK) ir_fail(ctx, status, "%s", message);
}

void ir_interp(tn_ctx *ctx, const ir_kernel *k, void *const *args, const int64_t *dims) {
  ir_interp_opt(ctx, k, args, dims, NULL);
}
