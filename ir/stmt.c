/* stmt.c — statement constructors and rewriting.
 *
 * Statements are immutable. A rewrite returns the same pointer where nothing
 * changed, so "did this pass do anything" is a pointer comparison, and copies
 * only the path from the root to what it changed. Null is the empty statement:
 * every constructor takes it for a body and gives it back when nothing is left.
 */
#include "ir/ir.h"
#include <string.h>

static ir_stmt *stmt_new(tn_ctx *ctx, ir_stmt_kind kind) {
  ir_stmt *s = IR_NEW(ctx, ir_stmt);
  s->kind = kind;
  return s;
}

static void need_type(tn_ctx *ctx, ix e, tn_dtype t, const char *what) {
  if (e->dtype != t)
    ir_bug(ctx, "%s has dtype %s, needs %s", what, ir_dtype_name((tn_dtype)e->dtype), ir_dtype_name(t));
}

const ir_stmt *ir_for(tn_ctx *ctx, ir_var *v, ix lo, ix hi, ir_loop_kind kind, const ir_stmt *body) {
  need_type(ctx, lo, TN_INDEX, "lower bound of a loop");
  need_type(ctx, hi, TN_INDEX, "upper bound of a loop");
  if (v->dtype != TN_INDEX) ir_bug(ctx, "loop variable '%s' has dtype %s", v->name, ir_dtype_name(v->dtype));
  if (!body) return NULL;
  if (ix_is_const(lo) && ix_is_const(hi) && lo->u.i >= hi->u.i) return NULL;
  ir_stmt *s = stmt_new(ctx, IR_FOR);
  s->loop = kind;
  s->var = v;
  s->lo = lo;
  s->hi = hi;
  s->body = body;
  return s;
}

/* An empty body would run never or for ever: it is dropped. */
const ir_stmt *ir_while(tn_ctx *ctx, ix cond, const ir_stmt *body) {
  need_type(ctx, cond, TN_BOOL, "condition of a while");
  if (!body || ix_is_int(cond, 0)) return NULL;
  ir_stmt *s = stmt_new(ctx, IR_WHILE);
  s->value = cond;
  s->body = body;
  return s;
}

const ir_stmt *ir_if(tn_ctx *ctx, ix cond, const ir_stmt *then, const ir_stmt *other) {
  need_type(ctx, cond, TN_BOOL, "condition of an if");
  if (ix_is_const(cond)) return cond->u.i ? then : other;
  if (!then && !other) return NULL;
  if (!then) return ir_if(ctx, ix_not(ctx, cond), other, NULL);
  ir_stmt *s = stmt_new(ctx, IR_IF);
  s->value = cond;
  s->body = then;
  s->other = other;
  return s;
}

const ir_stmt *ir_let(tn_ctx *ctx, ir_var *v, ix value, const ir_stmt *body) {
  need_type(ctx, value, v->dtype, "value of a let");
  if (!body) return NULL;
  ir_stmt *s = stmt_new(ctx, IR_LET);
  s->var = v;
  s->value = value;
  s->body = body;
  return s;
}

const ir_stmt *ir_alloc_stmt(tn_ctx *ctx, ir_buf *b, const ir_stmt *body) {
  if (!body) return NULL;
  ir_stmt *s = stmt_new(ctx, IR_ALLOC);
  s->buf = b;
  s->body = body;
  return s;
}

const ir_stmt *ir_store(tn_ctx *ctx, ir_buf *b, const ix *index, ir_store_op op, ix value) {
  need_type(ctx, value, b->dtype, "stored value");
  ir_stmt *s = stmt_new(ctx, IR_STORE);
  s->buf = b;
  s->op = op;
  s->value = value;
  ix *copy = IR_NEW_ARRAY(ctx, ix, b->rank);
  for (int i = 0; i < b->rank; i++) {
    need_type(ctx, index[i], TN_INDEX, "index of a store");
    copy[i] = index[i];
  }
  s->index = copy;
  return s;
}

const ir_stmt *ir_seq(tn_ctx *ctx, int n, const ir_stmt *const *items) {
  int total = 0;
  const ir_stmt *last = NULL;
  for (int i = 0; i < n; i++)
    if (items[i]) {
      last = items[i];
      total += items[i]->kind == IR_SEQ ? items[i]->n : 1;
    }
  if (!last) return NULL;
  if (total == 1 || (last->kind == IR_SEQ && total == last->n)) return last;
  const ir_stmt **flat = IR_NEW_ARRAY(ctx, const ir_stmt *, total);
  int at = 0;
  for (int i = 0; i < n; i++) {
    if (!items[i]) continue;
    if (items[i]->kind != IR_SEQ) flat[at++] = items[i];
    else
      for (int j = 0; j < items[i]->n; j++) flat[at++] = items[i]->items[j];
  }
  ir_stmt *s = stmt_new(ctx, IR_SEQ);
  s->n = total;
  s->items = flat;
  return s;
}

const ir_stmt *ir_tile(tn_ctx *ctx, const char *atom, const ir_stmt *body) {
  if (!body) return NULL;
  ir_stmt *s = stmt_new(ctx, IR_TILE);
  s->atom = ir_intern(ctx, atom);
  s->body = body;
  return s;
}

/* ---- rewriting ---- */

static ix map_expr(ir_rewriter *r, ix e) { return r->expr ? r->expr(r, e) : e; }

static const ir_stmt *rewrite_seq(ir_rewriter *r, const ir_stmt *s) {
  const ir_stmt **items = NULL;
  for (int i = 0; i < s->n; i++) {
    const ir_stmt *t = ir_rewrite(r, s->items[i]);
    if (t == s->items[i] && !items) continue;
    if (!items) {
      items = IR_NEW_ARRAY(r->ctx, const ir_stmt *, s->n);
      memcpy(items, s->items, (size_t)i * sizeof *items);
    }
    items[i] = t;
  }
  return items ? ir_seq(r->ctx, s->n, items) : s;
}

static const ir_stmt *rewrite_store(ir_rewriter *r, const ir_stmt *s) {
  ix index[IR_MAX_RANK], value = map_expr(r, s->value);
  bool same = value == s->value;
  for (int i = 0; i < s->buf->rank; i++) {
    index[i] = map_expr(r, s->index[i]);
    same = same && index[i] == s->index[i];
  }
  return same ? s : ir_store(r->ctx, s->buf, index, s->op, value);
}

/* A shape that changes makes another buffer, so its loads and stores change too. */
static const ir_stmt *rewrite_alloc(ir_rewriter *r, const ir_stmt *s) {
  ir_buf *b = s->buf;
  ix shape[IR_MAX_RANK];
  bool same = true;
  for (int i = 0; i < b->rank; i++) {
    shape[i] = map_expr(r, b->shape[i]);
    same = same && shape[i] == b->shape[i];
  }
  const ir_stmt *body = ir_rewrite(r, s->body);
  if (same) return body == s->body ? s : ir_alloc_stmt(r->ctx, b, body);
  ir_buf *fresh = ir_buf_new(r->ctx, b->name, b->dtype, b->rank, shape, b->layout, b->space);
  return ir_alloc_stmt(r->ctx, fresh, ir_subst_buf(r->ctx, body, b, fresh));
}

/* Meaning of ir_rewriter: `stmt` sees a statement first and may give another (or
 * null: nothing) in its place, which is not looked into; giving back the same
 * statement descends: its expressions go through `expr`, its children through
 * ir_rewrite. `expr` sees whole expressions: loop bounds, conditions, values,
 * each index of a store, each extent of an alloc. */
const ir_stmt *ir_rewrite(ir_rewriter *r, const ir_stmt *s) {
  if (!s) return NULL;
  if (r->stmt) {
    const ir_stmt *t = r->stmt(r, s);
    if (t != s) return t;
  }
  switch (s->kind) {
    case IR_FOR: {
      ix lo = map_expr(r, s->lo), hi = map_expr(r, s->hi);
      const ir_stmt *body = ir_rewrite(r, s->body);
      if (lo == s->lo && hi == s->hi && body == s->body) return s;
      const ir_stmt *t = ir_for(r->ctx, s->var, lo, hi, s->loop, body);
      if (!t || s->stages == 0) return t;
      ir_stmt *copy = stmt_new(r->ctx, IR_FOR);
      *copy = *t;
      copy->stages = s->stages;
      return copy;
    }
    case IR_WHILE: {
      ix cond = map_expr(r, s->value);
      const ir_stmt *body = ir_rewrite(r, s->body);
      return cond == s->value && body == s->body ? s : ir_while(r->ctx, cond, body);
    }
    case IR_IF: {
      ix cond = map_expr(r, s->value);
      const ir_stmt *body = ir_rewrite(r, s->body), *other = ir_rewrite(r, s->other);
      return cond == s->value && body == s->body && other == s->other ? s : ir_if(r->ctx, cond, body, other);
    }
    case IR_LET: {
      ix value = map_expr(r, s->value);
      const ir_stmt *body = ir_rewrite(r, s->body);
      return value == s->value && body == s->body ? s : ir_let(r->ctx, s->var, value, body);
    }
    case IR_ALLOC: return rewrite_alloc(r, s);
    case IR_STORE: return rewrite_store(r, s);
    case IR_SEQ: return rewrite_seq(r, s);
    case IR_TILE: {
      const ir_stmt *body = ir_rewrite(r, s->body);
      return body == s->body ? s : ir_tile(r->ctx, s->atom, body);
    }
  }
  ir_bug(r->ctx, "statement kind %d", (int)s->kind);
}

/* ---- substitution ---- */

typedef struct var_by {
  ir_var *var;
  ix by;
} var_by;

static ix subst_var_expr(ir_rewriter *r, ix e) {
  const var_by *m = r->user;
  return ix_subst1(r->ctx, e, m->var, m->by);
}

const ir_stmt *ir_subst_var(tn_ctx *ctx, const ir_stmt *s, ir_var *v, ix by) {
  need_type(ctx, by, v->dtype, "replacement of a variable");
  var_by m = {v, by};
  return ir_rewrite(&(ir_rewriter){.ctx = ctx, .user = &m, .expr = subst_var_expr}, s);
}

typedef struct buf_by {
  tn_ctx *ctx;
  const ir_buf *old;
  ir_buf *by;
} buf_by;

static ix subst_buf_load(void *user, ix load) {
  const buf_by *m = user;
  return load->u.buf == m->old ? ix_load(m->ctx, m->by, load->args) : NULL;
}

static ix subst_buf_expr(ir_rewriter *r, ix e) { return ix_subst_loads(r->ctx, e, subst_buf_load, r->user); }

static const ir_stmt *subst_buf_stmt(ir_rewriter *r, const ir_stmt *s) {
  const buf_by *m = r->user;
  if (s->kind != IR_STORE || s->buf != m->old) return s;
  ix index[IR_MAX_RANK];
  for (int i = 0; i < s->buf->rank; i++) index[i] = subst_buf_expr(r, s->index[i]);
  return ir_store(r->ctx, m->by, index, s->op, subst_buf_expr(r, s->value));
}

const ir_stmt *ir_subst_buf(tn_ctx *ctx, const ir_stmt *s, const ir_buf *old, ir_buf *by) {
  if (old == by) return s;
  if (old->rank != by->rank || old->dtype != by->dtype)
    ir_bug(ctx, "buffer '%s' cannot stand for '%s'", by->name, old->name);
  buf_by m = {ctx, old, by};
  return ir_rewrite(&(ir_rewriter){.ctx = ctx, .user = &m, .expr = subst_buf_expr, .stmt = subst_buf_stmt}, s);
}

/* ---- fresh copies ---- */

typedef struct renaming { /* variable or buffer -> its copy; open addressing */
  tn_ctx *ctx;
  const char *suffix;
  const void **from;
  void **to;
  size_t n, cap;
} renaming;

static size_t rename_slot(const renaming *m, const void *key) {
  size_t i = ((uintptr_t)key >> 4) * 0x9e3779b97f4a7c15u >> 20 & (m->cap - 1);
  while (m->from[i] && m->from[i] != key) i = (i + 1) & (m->cap - 1);
  return i;
}

static void *rename_find(const renaming *m, const void *key) {
  return m->cap ? m->to[rename_slot(m, key)] : NULL;
}

static void rename_add(renaming *m, const void *key, void *value) {
  if (m->n * 2 >= m->cap) {
    renaming old = *m;
    m->cap = old.cap ? old.cap * 2 : 32;
    m->from = IR_NEW_ARRAY(m->ctx, const void *, m->cap);
    m->to = IR_NEW_ARRAY(m->ctx, void *, m->cap);
    for (size_t i = 0; i < old.cap; i++)
      if (old.from[i]) {
        size_t j = rename_slot(m, old.from[i]);
        m->from[j] = old.from[i];
        m->to[j] = old.to[i];
      }
  }
  size_t i = rename_slot(m, key);
  m->n += !m->from[i];
  m->from[i] = key;
  m->to[i] = value;
}

static ix fresh_var(void *user, ir_var *v) {
  ir_var *copy = rename_find(user, v);
  return copy ? copy->expr : NULL;
}

static ix fresh_load(void *user, ix load) {
  renaming *m = user;
  ir_buf *copy = rename_find(m, load->u.buf);
  return copy ? ix_load(m->ctx, copy, load->args) : NULL;
}

static ix fresh_expr(ir_rewriter *r, ix e) {
  renaming *m = r->user;
  if (!m->n) return e;
  return ix_subst_loads(r->ctx, ix_subst(r->ctx, e, fresh_var, m), fresh_load, m);
}

static ir_var *rename_var(renaming *m, const ir_var *v) {
  ir_var *copy = ir_var_new(m->ctx, ir_format(m->ctx, "%s%s", v->name, m->suffix), v->dtype, v->lo, v->hi);
  rename_add(m, v, copy);
  return copy;
}

static const ir_stmt *fresh_stmt(ir_rewriter *r, const ir_stmt *s) {
  renaming *m = r->user;
  ix e[IR_MAX_RANK];
  switch (s->kind) {
    case IR_FOR: {
      ix lo = fresh_expr(r, s->lo), hi = fresh_expr(r, s->hi);
      ir_stmt *copy = stmt_new(r->ctx, IR_FOR);
      *copy = *s;
      copy->lo = lo;
      copy->hi = hi;
      copy->var = rename_var(m, s->var);
      copy->body = ir_rewrite(r, s->body);
      return copy->body ? copy : NULL;
    }
    case IR_LET: {
      ix value = fresh_expr(r, s->value);
      ir_var *v = rename_var(m, s->var);
      return ir_let(r->ctx, v, value, ir_rewrite(r, s->body));
    }
    case IR_ALLOC: {
      for (int i = 0; i < s->buf->rank; i++) e[i] = fresh_expr(r, s->buf->shape[i]);
      ir_buf *b = ir_buf_new(r->ctx, ir_format(r->ctx, "%s%s", s->buf->name, m->suffix), s->buf->dtype,
                             s->buf->rank, e, s->buf->layout, s->buf->space);
      rename_add(m, s->buf, b);
      return ir_alloc_stmt(r->ctx, b, ir_rewrite(r, s->body));
    }
    case IR_STORE: {
      ir_buf *b = rename_find(m, s->buf);
      if (!b) return s;
      for (int i = 0; i < b->rank; i++) e[i] = fresh_expr(r, s->index[i]);
      return ir_store(r->ctx, b, e, s->op, fresh_expr(r, s->value));
    }
    default: return s;
  }
}

const ir_stmt *ir_stmt_fresh(tn_ctx *ctx, const ir_stmt *s, const char *suffix) {
  renaming m = {.ctx = ctx, .suffix = suffix};
  return ir_rewrite(&(ir_rewriter){.ctx = ctx, .user = &m, .expr = fresh_expr, .stmt = fresh_stmt}, s);
}

const ir_stmt *ir_find_loop(const ir_stmt *s, const char *name) {
  if (!s) return NULL;
  if (s->kind == IR_FOR && strcmp(s->var->name, name) == 0) return s;
  for (int i = 0; i < s->n; i++) {
    const ir_stmt *found = ir_find_loop(s->items[i], name);
    if (found) return found;
  }
  const ir_stmt *found = ir_find_loop(s->body, name);
  return found ? found : ir_find_loop(s->other, name);
}
