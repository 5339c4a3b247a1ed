/* verify.c — the invariants of a kernel, checked after every pass.
 *
 *  names     variables and buffers are identifiers; loops are unique in the kernel;
 *            nothing shadows what is visible; a variable is bound, a buffer declared, once
 *  scopes    expressions use only what encloses them; extents of parameters only dims
 *  types     every operation has operands of one dtype, every index has dtype index
 *  memory    `in` parameters are not stored; a register buffer has constant extents,
 *            and indices that are constants once unroll and vector loops are expanded
 *  loops     parallel only outermost (hence once on a path), register buffers do not
 *            cross it; vector: no while, no parallel, no other vector loop inside;
 *            vector and unroll: constant trip count
 *
 * It does not prove that iterations of parallel and vector loops are independent:
 * the interpreter's free order (ir_interp_options.seed) tests that. */
#include "ir/ir.h"
#include <ctype.h>
#include <string.h>

typedef struct entry { /* a variable or a buffer of the kernel */
  const void *key;
  bool visible;
  bool fixed; /* variable: constant once unroll and vector loops are expanded */
  int parallel; /* buffer: parallel loops around its declaration */
} entry;

typedef struct names { /* a stack */
  const char **items;
  int n, room;
} names;

typedef struct check {
  tn_ctx *ctx;
  const ir_kernel *k;
  const char *wrong; /* the first thing found */
  entry *entries;    /* open addressing */
  size_t n, cap;
  const char **loops; /* names */
  int nloops;
  names vars, bufs;  /* visible ones */
  int depth;    /* for and while loops around */
  int parallel; /* parallel loops around */
  const char *vector; /* the vector loop around, or null */
  const char *in; /* what is looked at, for messages */
  ix *loads;      /* of register buffers, in the expression being walked */
  int nloads;
} check;

#define WRONG(c, ...) ((c)->wrong ? (void)0 : (void)((c)->wrong = ir_format((c)->ctx, __VA_ARGS__)))

static entry *slot_of(check *c, const void *key) {
  size_t i = ((uintptr_t)key >> 4) * 0x9e3779b97f4a7c15u >> 20 & (c->cap - 1);
  while (c->entries[i].key && c->entries[i].key != key) i = (i + 1) & (c->cap - 1);
  return &c->entries[i];
}

static entry *known(check *c, const void *key) {
  if (!c->cap) return NULL;
  entry *e = slot_of(c, key);
  return e->key ? e : NULL;
}

/* A new entry; null, with the error said, when there is one. */
static entry *enter(check *c, const void *key, const char *what, const char *name) {
  if (known(c, key)) {
    WRONG(c, "%s '%s' is bound twice", what, name);
    return NULL;
  }
  if (c->n * 2 >= c->cap) {
    entry *old = c->entries;
    size_t old_cap = c->cap;
    c->cap = old_cap ? old_cap * 2 : 64;
    c->entries = IR_NEW_ARRAY(c->ctx, entry, c->cap);
    for (size_t i = 0; i < old_cap; i++)
      if (old[i].key) *slot_of(c, old[i].key) = old[i];
  }
  entry *e = slot_of(c, key);
  c->n++;
  *e = (entry){.key = key, .visible = true};
  return e;
}

static void hide(check *c, const void *key) {
  entry *e = known(c, key);
  if (e) e->visible = false;
}

/* ---- names ---- */

static bool identifier(const char *s) {
  if (!s || !(isalpha((unsigned char)*s) || *s == '_' || *s == '.' || *s == '$')) return false;
  for (; *s; s++)
    if (!isalnum((unsigned char)*s) && *s != '_' && *s != '.' && *s != '$') return false;
  return true;
}

static bool listed(const char *const *names, int n, const char *name) {
  for (int i = 0; i < n; i++)
    if (strcmp(names[i], name) == 0) return true;
  return false;
}

static void check_name(check *c, const char *what, const char *name, const names *visible) {
  if (!identifier(name)) WRONG(c, "%s name '%s' is not an identifier", what, name ? name : "");
  else if (listed(visible->items, visible->n, name)) WRONG(c, "%s '%s' hides another of that name", what, name);
}

/* ---- expressions ---- */

static const char *type_name(ix e) { return ir_dtype_name((tn_dtype)e->dtype); }

static void check_op(check *c, ix e) {
  const ir_opcode_info *info = &ix_info[e->op];
  if (e->nargs != info->arity) {
    WRONG(c, "%s: %s with %d operands", c->in, info->name, e->nargs);
    return;
  }
  int first = e->op == IX_SELECT ? 1 : 0;
  ix a = e->args[first];
  for (int i = first + 1; i < e->nargs; i++)
    if (e->args[i]->dtype != a->dtype)
      WRONG(c, "%s: %s of %s and %s", c->in, info->name, type_name(a), type_name(e->args[i]));
  if (e->op == IX_SELECT && e->args[0]->dtype != TN_BOOL)
    WRONG(c, "%s: select on a condition of dtype %s", c->in, type_name(e->args[0]));
  bool same = info->result == 'S' || info->result == 'F' || e->op == IX_SELECT;
  if (same && e->dtype != a->dtype) WRONG(c, "%s: %s of %s gives %s", c->in, info->name, type_name(a), type_name(e));
  if (info->result == 'F' && !ir_is_float((tn_dtype)a->dtype)) WRONG(c, "%s: %s of %s", c->in, info->name, type_name(a));
  if (info->result == 'B' && e->dtype != TN_BOOL) WRONG(c, "%s: %s gives %s", c->in, info->name, type_name(e));
  if (e->op == IX_BITCAST && ir_dtype_bits((tn_dtype)e->dtype) != ir_dtype_bits((tn_dtype)a->dtype))
    WRONG(c, "%s: bitcast of %s to %s", c->in, type_name(a), type_name(e));
  if (a->dtype == TN_BOOL)
    switch (e->op) {
      case IX_NEG: case IX_ABS: case IX_ADD: case IX_SUB: case IX_MUL: case IX_DIV: case IX_REM:
      case IX_SHL: case IX_SHR: WRONG(c, "%s: %s of bool", c->in, info->name);
      default: break;
    }
  if (ir_is_float((tn_dtype)a->dtype))
    switch (e->op) {
      case IX_NOT: case IX_AND: case IX_OR: case IX_XOR: case IX_SHL: case IX_SHR:
        WRONG(c, "%s: %s of %s", c->in, info->name, type_name(a));
      default: break;
    }
}

static void check_node(void *user, ix e) {
  check *c = user;
  if (c->wrong) return;
  if (e->dtype == TN_NONE || e->dtype >= TN_DTYPE_COUNT) {
    WRONG(c, "%s: an expression has no dtype", c->in);
    return;
  }
  switch (e->op) {
    case IX_CONST: return;
    case IX_VAR: {
      const entry *v = known(c, e->u.var);
      if (!v || !v->visible) WRONG(c, "%s: variable '%s' is not in scope", c->in, e->u.var->name);
      if (e->dtype != e->u.var->dtype) WRONG(c, "%s: variable '%s' used as %s", c->in, e->u.var->name, type_name(e));
      return;
    }
    case IX_LOAD: {
      const ir_buf *b = e->u.buf;
      const entry *v = known(c, b);
      if (!v || !v->visible) WRONG(c, "%s: buffer '%s' is not in scope", c->in, b->name);
      else if (b->space == IR_REGISTER && v->parallel != c->parallel)
        WRONG(c, "%s: register buffer '%s' is declared outside of the parallel loop", c->in, b->name);
      if (e->nargs != b->rank) WRONG(c, "%s: load of '%s' with %d indices, rank %d", c->in, b->name, e->nargs, b->rank);
      if (e->dtype != b->dtype) WRONG(c, "%s: load of '%s' as %s", c->in, b->name, type_name(e));
      for (int i = 0; i < e->nargs; i++)
        if (e->args[i]->dtype != TN_INDEX) WRONG(c, "%s: index of '%s' has dtype %s", c->in, b->name, type_name(e->args[i]));
      if (b->space == IR_REGISTER && b->rank) IR_PUSH(c->ctx, c->loads, c->nloads, e);
      return;
    }
    default: check_op(c, e);
  }
}

typedef struct fixed_walk {
  check *c;
  bool fixed;
} fixed_walk;

static void note_fixed(void *user, ix e) {
  fixed_walk *f = user;
  if (e->op == IX_LOAD) f->fixed = false;
  if (e->op == IX_VAR) {
    const entry *v = known(f->c, e->u.var);
    if (!v || !v->fixed) f->fixed = false;
  }
}

/* Whether e is a constant once unroll and vector loops are expanded. */
static bool is_fixed(check *c, ix e) {
  if (ix_is_const(e)) return true;
  fixed_walk f = {c, true};
  ix_walk(c->ctx, e, note_fixed, &f);
  return f.fixed;
}

static void check_fixed_index(check *c, const ir_buf *b, const ix *index) {
  for (int i = 0; i < b->rank && !c->wrong; i++)
    if (!is_fixed(c, index[i]))
      WRONG(c, "%s: index %d of register buffer '%s' does not become constant by unrolling", c->in, i, b->name);
}

static void check_expr(check *c, ix e, tn_dtype t, const char *what) {
  if (c->wrong) return;
  if (!e) {
    WRONG(c, "%s: no %s", c->in, what);
    return;
  }
  if (t != TN_NONE && e->dtype != t) WRONG(c, "%s: %s has dtype %s, needs %s", c->in, what, type_name(e), ir_dtype_name(t));
  c->nloads = 0;
  ix_walk(c->ctx, e, check_node, c);
  for (int i = 0; i < c->nloads; i++) /* walks do not nest: after it */
    check_fixed_index(c, c->loads[i]->u.buf, c->loads[i]->args);
}

/* ---- buffers ---- */

static void check_shape(check *c, const ir_buf *b) {
  if (b->dtype == TN_NONE || b->dtype >= TN_DTYPE_COUNT) WRONG(c, "buffer '%s' has no dtype", b->name);
  if (b->rank < 0 || b->rank > IR_MAX_RANK) WRONG(c, "buffer '%s' has rank %d", b->name, b->rank);
  c->in = ir_format(c->ctx, "extents of '%s'", b->name);
  for (int i = 0; i < b->rank && !c->wrong; i++) {
    check_expr(c, b->shape[i], TN_INDEX, "extent");
    if (!c->wrong && ix_is_const(b->shape[i]) && b->shape[i]->u.i < 0) WRONG(c, "%s: extent %d is negative", c->in, i);
    if (!c->wrong && b->space == IR_REGISTER && !ix_is_const(b->shape[i]))
      WRONG(c, "%s: a register buffer needs constant extents", c->in);
  }
}

typedef struct layout_check {
  const ir_buf *b;
  int rank;
} layout_check;

static void apply_layout(tn_ctx *ctx, void *arg) {
  layout_check *l = arg;
  ix out[IR_MAX_RANK];
  l->rank = ir_layout_shape(ctx, l->b->layout, l->b->rank, l->b->shape, out);
}

static void check_layout(check *c, const ir_buf *b) {
  if (!b->layout || c->wrong) return;
  layout_check l = {b, 0};
  if (ir_protect(c->ctx, apply_layout, &l) != TN_OK) WRONG(c, "buffer '%s': %s", b->name, ir_error(c->ctx));
}

/* ---- statements ---- */

static void check_stmt(check *c, const ir_stmt *s);

static void push_name(check *c, names *l, const char *name) {
  if (l->n == l->room) {
    int room = l->room ? 2 * l->room : 16;
    l->items = ir_grow(c->ctx, l->items, (size_t)l->n, (size_t)room, sizeof *l->items);
    l->room = room;
  }
  l->items[l->n++] = name;
}

/* The body of a loop or let, with its variable visible. */
static void check_scope(check *c, ir_var *v, const char *what, bool fixed, const ir_stmt *body) {
  check_name(c, what, v->name, &c->vars);
  entry *e = c->wrong ? NULL : enter(c, v, what, v->name);
  if (!e) return;
  e->fixed = fixed;
  int nvars = c->vars.n;
  push_name(c, &c->vars, v->name);
  check_stmt(c, body);
  c->vars.n = nvars;
  hide(c, v);
}

static void check_for(check *c, const ir_stmt *s) {
  if (!s->var || s->var->dtype != TN_INDEX) {
    WRONG(c, "a loop has no index variable");
    return;
  }
  const char *name = s->var->name;
  c->in = ir_format(c->ctx, "loop '%s'", name);
  check_expr(c, s->lo, TN_INDEX, "lower bound");
  check_expr(c, s->hi, TN_INDEX, "upper bound");
  if (c->wrong) return;
  if (listed(c->loops, c->nloops, name)) WRONG(c, "two loops are called '%s'", name);
  IR_PUSH(c->ctx, c->loops, c->nloops, name);
  if (ix_is_const(s->lo) && s->lo->u.i < s->var->lo) WRONG(c, "%s: starts below the proven bound of its variable", c->in);
  if (ix_is_const(s->hi) && s->hi->u.i - 1 > s->var->hi) WRONG(c, "%s: ends above the proven bound of its variable", c->in);
  bool expanded = s->loop == IR_UNROLL || s->loop == IR_VECTOR;
  if (expanded && !ix_is_const(ix_sub(c->ctx, s->hi, s->lo)))
    WRONG(c, "%s: an unroll or vector loop needs a constant trip count", c->in);
  bool fixed = expanded && !c->wrong && is_fixed(c, s->lo);
  const char *vector = c->vector;
  if (s->loop == IR_PARALLEL) {
    if (c->depth) WRONG(c, "%s: a parallel loop must be outermost", c->in);
    c->parallel++;
  }
  if (s->loop == IR_VECTOR) {
    if (vector) WRONG(c, "%s: inside of vector loop '%s'", c->in, vector);
    c->vector = name;
  }
  if (s->loop == IR_PIPELINE && s->stages < 1) WRONG(c, "%s: pipeline of %d stages", c->in, s->stages);
  c->depth++;
  check_scope(c, s->var, "loop", fixed, s->body);
  c->depth--;
  c->vector = vector;
  if (s->loop == IR_PARALLEL) c->parallel--;
}

static void check_alloc(check *c, const ir_stmt *s) {
  ir_buf *b = s->buf;
  if (!b) {
    WRONG(c, "an alloc has no buffer");
    return;
  }
  if (b->space == IR_GLOBAL) WRONG(c, "alloc of '%s' in global space", b->name);
  check_name(c, "buffer", b->name, &c->bufs);
  check_shape(c, b);
  check_layout(c, b);
  entry *e = c->wrong ? NULL : enter(c, b, "buffer", b->name);
  if (!e) return;
  e->parallel = c->parallel;
  int nbufs = c->bufs.n;
  push_name(c, &c->bufs, b->name);
  check_stmt(c, s->body);
  c->bufs.n = nbufs;
  hide(c, b);
}

static void check_store(check *c, const ir_stmt *s) {
  const ir_buf *b = s->buf;
  const entry *e = b ? known(c, b) : NULL;
  if (!e || !e->visible) {
    WRONG(c, "store to a buffer '%s' that is not in scope", b ? b->name : "");
    return;
  }
  c->in = ir_format(c->ctx, "store to '%s'", b->name);
  if (b->space == IR_GLOBAL && !(b->access & IR_OUT)) WRONG(c, "%s: it is an input", c->in);
  if (b->space == IR_REGISTER && e->parallel != c->parallel)
    WRONG(c, "%s: the register buffer is declared outside of the parallel loop", c->in);
  check_expr(c, s->value, b->dtype, "value");
  for (int i = 0; i < b->rank; i++) check_expr(c, s->index ? s->index[i] : NULL, TN_INDEX, "index");
  if (!c->wrong && b->space == IR_REGISTER) check_fixed_index(c, b, s->index);
  bool real = ir_is_float(b->dtype);
  if ((s->op == IR_OR || s->op == IR_AND) && real) WRONG(c, "%s: bitwise update of %s", c->in, ir_dtype_name(b->dtype));
  if ((s->op == IR_ADD || s->op == IR_MUL) && b->dtype == TN_BOOL) WRONG(c, "%s: arithmetic update of bool", c->in);
  if (s->op > IR_AND) WRONG(c, "%s: unknown update", c->in);
}

static void check_stmt(check *c, const ir_stmt *s) {
  if (c->wrong) return;
  if (!s) {
    WRONG(c, "a statement has no body");
    return;
  }
  switch (s->kind) {
    case IR_FOR: check_for(c, s); return;
    case IR_WHILE:
      c->in = "while";
      if (c->vector) WRONG(c, "a while inside of vector loop '%s'", c->vector);
      check_expr(c, s->value, TN_BOOL, "condition");
      c->depth++;
      check_stmt(c, s->body);
      c->depth--;
      return;
    case IR_IF:
      c->in = "if";
      check_expr(c, s->value, TN_BOOL, "condition");
      check_stmt(c, s->body);
      if (s->other) check_stmt(c, s->other);
      return;
    case IR_LET: {
      if (!s->var) {
        WRONG(c, "a let has no variable");
        return;
      }
      c->in = ir_format(c->ctx, "let '%s'", s->var->name);
      check_expr(c, s->value, s->var->dtype, "value");
      if (c->wrong) return;
      if (s->var->dtype == TN_INDEX && ix_is_const(s->value) && (s->value->u.i < s->var->lo || s->value->u.i > s->var->hi))
        WRONG(c, "%s: value outside of the proven bounds of its variable", c->in);
      check_scope(c, s->var, "let", is_fixed(c, s->value), s->body);
      return;
    }
    case IR_ALLOC: check_alloc(c, s); return;
    case IR_STORE: check_store(c, s); return;
    case IR_SEQ:
      for (int i = 0; i < s->n; i++) check_stmt(c, s->items[i]);
      return;
    case IR_TILE:
      if (!s->atom || !*s->atom) WRONG(c, "a tile names no atom");
      check_stmt(c, s->body);
      return;
  }
  WRONG(c, "unknown statement kind %d", (int)s->kind);
}

const char *ir_kernel_verify(tn_ctx *ctx, const ir_kernel *k) {
  check c = {.ctx = ctx, .k = k, .in = "kernel"};
  if (!identifier(k->name)) WRONG(&c, "its name is not an identifier");
  for (int i = 0; i < k->ndims && !c.wrong; i++) {
    ir_var *v = k->dims[i];
    if (v->dtype != TN_INDEX) WRONG(&c, "dim '%s' has dtype %s", v->name, ir_dtype_name(v->dtype));
    check_name(&c, "dim", v->name, &c.vars);
    enter(&c, v, "dim", v->name);
    push_name(&c, &c.vars, v->name);
  }
  for (int i = 0; i < k->nbufs && !c.wrong; i++) {
    ir_buf *b = k->bufs[i];
    if (b->space != IR_GLOBAL) WRONG(&c, "parameter '%s' is not in global space", b->name);
    if (b->access < IR_IN || b->access > IR_INOUT) WRONG(&c, "parameter '%s' has no access", b->name);
    if (b->dtype == TN_INDEX) WRONG(&c, "parameter '%s' has dtype index", b->name);
    check_name(&c, "parameter", b->name, &c.bufs);
    check_shape(&c, b);
    check_layout(&c, b);
    enter(&c, b, "parameter", b->name);
    push_name(&c, &c.bufs, b->name);
  }
  if (k->body && !c.wrong) check_stmt(&c, k->body);
  return c.wrong ? ir_format(ctx, "kernel '%s': %s", k->name, c.wrong) : NULL;
}
