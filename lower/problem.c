/* problem.c — see problem.h. */
#include "lower/problem.h"
#include "lower/attend.h"

static int64_t extent_of(const ir_stmt *loop) {
  int64_t lo, hi;
  if (!ix_const_value(loop->lo, &lo) || !ix_const_value(loop->hi, &hi)) return -1;
  return hi > lo ? hi - lo : 0;
}

int64_t lw_stride(tn_ctx *ctx, ix load, const ir_var *v) {
  int64_t c;
  return ix_affine_in(ir_buf_offset(ctx, load->u.buf, load->args), v, &c) ? c : INT64_MIN;
}

/* Whether an expression is the same in all iterations: no variables in it. */
static bool is_uniform(ix e) { return e->vars == 0; }

/* Below casts of a widened operand, f32(load f16), and a zero point, i32(load u8) - z. */
static ix load_below(ix e) {
  for (;;) {
    if (e->op == IX_CAST) e = e->args[0];
    else if (!ir_is_float((tn_dtype)e->dtype) && (e->op == IX_ADD || e->op == IX_SUB) && is_uniform(e->args[1])) e = e->args[0];
    else if (!ir_is_float((tn_dtype)e->dtype) && e->op == IX_ADD && is_uniform(e->args[0])) e = e->args[1];
    else return e->op == IX_LOAD ? e : NULL;
  }
}

/* The product that an update adds to its accumulator, in a and b: acc = fma(a, b, acc), or of
 * integers acc = acc + a b. */
static bool product_of(const ir_stmt *s, ix *a, ix *b) {
  ix v = s->value, product;
  if (s->buf->space != IR_REGISTER || s->op != IR_SET || s->buf->rank) return false;
  if (v->op == IX_FMA) {
    *a = v->args[0];
    *b = v->args[1];
    return true;
  }
  if (v->op != IX_ADD || ir_is_float((tn_dtype)v->dtype)) return false;
  bool first = v->args[0]->op == IX_LOAD && v->args[0]->u.buf == s->buf;
  product = v->args[first];
  if ((!first && !(v->args[1]->op == IX_LOAD && v->args[1]->u.buf == s->buf)) || product->op != IX_MUL) return false;
  *a = product->args[0];
  *b = product->args[1];
  ix weights = load_below(*a), other = load_below(*b);
  if (weights && other && weights->u.buf->constant && !other->u.buf->constant) { /* a product of integers stands in any order */
    ix t = *a;
    *a = *b, *b = t;
  }
  return true;
}

/* The first such update below s, with the loops and guards above it. */
static bool find_update(tn_ctx *ctx, lw_problem *p, const ir_stmt *s) {
  if (!s) return false;
  switch (s->kind) {
  case IR_SEQ:
    for (int i = 0; i < s->n; i++)
      if (find_update(ctx, p, s->items[i])) return true;
    return false;
  case IR_FOR: {
    if (p->nred == LW_MAX_LOOPS) return false;
    int at = p->nred++;
    p->red[at] = s;
    p->red_extent[at] = extent_of(s);
    if (find_update(ctx, p, s->body)) return true;
    p->nred = at;
    return false;
  }
  case IR_IF: {
    ix guard = p->guard;
    p->guard = guard ? ix_and(ctx, guard, s->value) : s->value;
    if (!s->other && find_update(ctx, p, s->body)) return true;
    p->guard = guard;
    return false;
  }
  case IR_LET: return find_update(ctx, p, s->body);
  case IR_STORE:
    if (!p->nred || !product_of(s, &p->a, &p->b)) return false;
    p->update = s;
    return true;
  default: return false;
  }
}

static const ir_stmt *find_store(const ir_stmt *s) {
  if (!s) return NULL;
  if (s->kind == IR_STORE && s->buf->space == IR_GLOBAL) return s;
  for (int i = 0; i < s->n; i++) {
    const ir_stmt *f = find_store(s->items[i]);
    if (f) return f;
  }
  const ir_stmt *f = find_store(s->body);
  return f ? f : find_store(s->other);
}

static bool has_loop(const ir_stmt *s) {
  if (!s) return false;
  if (s->kind == IR_FOR || s->kind == IR_WHILE) return true;
  for (int i = 0; i < s->n; i++)
    if (has_loop(s->items[i])) return true;
  return has_loop(s->body) || has_loop(s->other);
}

/* Scalar statements that a statement executes, as if every guard held. */
static double work(const ir_stmt *s) {
  if (!s) return 0;
  double w = s->kind == IR_STORE ? 1 : 0, times = 1;
  if (s->kind == IR_FOR) {
    int64_t n = extent_of(s);
    times = n >= 0 ? (double)n : 16;
  } else if (s->kind == IR_WHILE) times = 16;
  for (int i = 0; i < s->n; i++) w += work(s->items[i]);
  return w + times * (work(s->body) + work(s->other));
}

lw_problem lw_problem_of(tn_ctx *ctx, const ir_kernel *k) {
  lw_problem p = {.kind = LW_OTHER};
  double points = 1;
  const ir_stmt *s = k->body;
  for (; s && s->kind == IR_FOR && p.nout < LW_MAX_LOOPS; s = s->body) {
    p.out[p.nout] = s;
    p.extent[p.nout] = extent_of(s);
    points *= p.extent[p.nout] > 0 ? (double)p.extent[p.nout] : 1;
    p.nout++;
  }
  p.body = s;
  p.store = find_store(s);
  for (int i = 0; i < k->nbufs; i++) {
    int64_t n;
    if (ix_const_value(ir_buf_elements(ctx, k->bufs[i]), &n)) p.bytes += (double)n * (double)ir_dtype_bytes(k->bufs[i]->dtype);
  }
  p.flops = work(k->body);
  if (!s || !p.nout) return p;
  const ir_stmt *in = s;
  while (in && in->kind == IR_LET) in = in->body;
  if (in && in->kind == IR_STORE && in->buf->space == IR_GLOBAL) {
    p.kind = LW_POINTWISE;
    p.dtype = in->buf->dtype;
    return p;
  }
  if (s->kind != IR_ALLOC) {
    if (!has_loop(s) && p.store) p.kind = LW_POINTWISE, p.dtype = p.store->buf->dtype; /* several stores, guards */
    return p;
  }
  p.kind = LW_ACCUMULATE;
  p.dtype = s->buf->dtype;
  const ir_stmt *below = s;
  while (below && below->kind == IR_ALLOC) below = below->body;
  if (find_update(ctx, &p, below)) {
    ix a = load_below(p.a), b = load_below(p.b);
    p.a = p.b = NULL;
    p.flops = 2 * points;
    for (int i = 0; i < p.nred; i++) p.flops *= p.red_extent[i] > 0 ? (double)p.red_extent[i] : 1;
    if (a && b) {
      p.kind = LW_CONTRACTION;
      p.a = a;
      p.b = b;
    }
  } else p.nred = 0, p.guard = NULL;
  lw_attention_parts parts;
  const char *why;
  if (p.kind == LW_ACCUMULATE && lw_attention_of(ctx, k, &parts, &why)) {
    p.attention = true;
    p.flops = 2 * (double)parts.queries * (double)parts.keys * (double)(parts.depth + parts.columns);
    for (int i = 0; i < parts.nbatch; i++) p.flops *= (double)parts.extent[i];
  }
  return p;
}

const char *lw_problem_print(tn_ctx *ctx, const lw_problem *p) {
  static const char *const kinds[] = {"pointwise", "accumulate", "contraction", "other"};
  ir_text t = {.ctx = ctx};
  ir_put(&t, "%s %s", kinds[p->kind], p->dtype ? ir_dtype_name(p->dtype) : "-");
  for (int i = 0; i < p->nout; i++) ir_put(&t, "%s%s:%lld", i ? " " : " (", p->out[i]->var->name, (long long)p->extent[i]);
  for (int i = 0; i < p->nred; i++) ir_put(&t, "%s%s:%lld", i ? " " : " | ", p->red[i]->var->name, (long long)p->red_extent[i]);
  ir_put(&t, "%s %.3g MFLOP, %.3g MB", p->nout ? ")" : "", p->flops * 1e-6, p->bytes * 1e-6);
  return t.s;
}
