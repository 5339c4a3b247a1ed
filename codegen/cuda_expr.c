/* cuda_expr.c — expressions as temporaries of CUDA C.
 *
 * Each distinct sub-expression is declared once per statement, in the innermost block that needs it; the arms of
 * a select that loads become blocks of their own, so that only the arm taken is loaded. What is invariant in a
 * loop the compiler moves out. */
#include "codegen/cuda_internal.h"
#include <ctype.h>
#include <string.h>

void cu_line(cu_fn *f, const char *fmt, ...) {
  va_list ap;
  char small[512];
  va_start(ap, fmt);
  int n = vsnprintf(small, sizeof small, fmt, ap);
  va_end(ap);
  for (int i = 0; i < f->indent; i++) ir_put(&f->out, "  ");
  if (n < (int)sizeof small) ir_put_bytes(&f->out, small, (size_t)n);
  else {
    char *big = ir_alloc(f->ctx, (size_t)n + 1);
    va_start(ap, fmt);
    vsnprintf(big, (size_t)n + 1, fmt, ap);
    va_end(ap);
    ir_put_bytes(&f->out, big, (size_t)n);
  }
  ir_put(&f->out, "\n");
}

void cu_open(cu_fn *f, const char *fmt, ...) {
  va_list ap;
  char line[1024];
  va_start(ap, fmt);
  vsnprintf(line, sizeof line, fmt, ap);
  va_end(ap);
  cu_line(f, "%s {", line);
  f->indent++;
}

void cu_brace(cu_fn *f) {
  cu_line(f, "{");
  f->indent++;
}

void cu_close(cu_fn *f) {
  f->indent--;
  cu_line(f, "}");
}

/* ---- names ---- */

int cu_scope(const cu_fn *f) { return f->nnames; }
void cu_unscope(cu_fn *f, int scope) { f->nnames = scope; }

static void name(cu_fn *f, ix e, const char *text) {
  cu_name n = {e, text};
  IR_PUSH(f->ctx, f->names, f->nnames, n);
}

void cu_bind(cu_fn *f, ir_var *v, const char *text) { name(f, v->expr, text); }

static const char *find(const cu_fn *f, ix e) {
  for (int i = f->nnames - 1; i >= 0; i--)
    if (f->names[i].e == e) return f->names[i].text;
  return NULL;
}

static const char *clean(tn_ctx *ctx, const char *s, uint32_t id) {
  char *t = ir_format(ctx, "%s_%u", s, id);
  for (char *p = t; *p; p++)
    if (!isalnum((unsigned char)*p)) *p = '_';
  return isdigit((unsigned char)*t) || *t == '_' ? ir_format(ctx, "v%s", t) : t;
}

const char *cu_var_name(tn_ctx *ctx, const ir_var *v) { return clean(ctx, v->name, v->id); }

const cu_memory *cu_memory_of(cu_fn *f, const ir_buf *b) {
  for (int i = f->nmems - 1; i >= 0; i--)
    if (f->mems[i].buf == b) return &f->mems[i];
  ir_bug(f->ctx, "buffer '%s' is not in scope", b->name);
}

const char *cu_element(cu_fn *f, const ir_buf *b, const ix *index) {
  const cu_memory *m = cu_memory_of(f, b);
  if (m->packed) ir_bug(f->ctx, "fragment '%s' is touched outside of atoms", b->name);
  ix offset = m->per_thread ? NULL : ir_buf_offset(f->ctx, b, index);
  if (m->share && !f->rank) ir_bug(f->ctx, "'%s' of a cluster outside of a loop over its blocks", b->name);
  if (m->share) offset = ix_sub(f->ctx, offset, ix_muli(f->ctx, f->rank, m->share));
  if (offset) return ir_format(f->ctx, "%s[%s]", m->name, cu_value(f, offset));
  ix own[IR_MAX_RANK];
  memcpy(own, index, (size_t)b->rank * sizeof *own);
  own[0] = ix_index(f->ctx, 0);
  return ir_format(f->ctx, "%s[%s]", m->name, cu_value(f, ir_buf_offset(f->ctx, b, own)));
}

/* ---- values ---- */

static const char *type_of(ix e) { return cu_narrow(e) ? "int" : cu_c_type((tn_dtype)e->dtype); }

static const char *temporary(cu_fn *f) { return ir_format(f->ctx, "t%d", f->temps++); }

static const char *select_of(cu_fn *f, ix e) {
  const char *cond = cu_value(f, e->args[0]), *t = temporary(f);
  cu_line(f, "%s %s;", type_of(e), t);
  for (int arm = 1; arm <= 2; arm++) {
    if (arm == 1) cu_open(f, "if (%s)", cond);
    else cu_open(f, "else");
    int scope = cu_scope(f);
    cu_line(f, "%s = %s;", t, cu_value(f, e->args[arm]));
    cu_unscope(f, scope);
    cu_close(f);
  }
  return t;
}

const char *cu_value(cu_fn *f, ix e) {
  tn_ctx *ctx = f->ctx;
  if (e->op == IX_CONST) return cu_literal(ctx, e);
  const char *known = find(f, e);
  if (known) return known;
  if (e->op == IX_VAR) ir_bug(ctx, "variable '%s' is not in scope", e->u.var->name);
  const char *text;
  if (e->op == IX_SELECT && (e->args[1]->loads || e->args[2]->loads)) text = select_of(f, e);
  else if (e->op == IX_LOAD) {
    const char *t = temporary(f);
    cu_line(f, "const %s %s = %s;", type_of(e), t, cu_from_storage(ctx, e->u.buf->dtype, cu_element(f, e->u.buf, e->args)));
    text = t;
  } else {
    const char *x[3];
    ir_assert(ctx, e->nargs <= 3);
    for (int i = 0; i < e->nargs; i++) x[i] = cu_value(f, e->args[i]);
    text = temporary(f);
    cu_line(f, "const %s %s = %s;", type_of(e), text, cu_op(ctx, e, x));
  }
  name(f, e, text);
  return text;
}
