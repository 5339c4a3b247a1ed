/* cuda_blaslt_match.c — which kernels are a product that cuBLASLt offers. */
#include "runtime/cuda_blaslt.h"
#include "runtime/cuda_epilogue.h"
#include <math.h>
#include <string.h>

#define REFUSE(text) return *reason = (text), false

enum { LOOPS = 2 * LW_MAX_LOOPS };

/* A tensor's strides by loop, those of the nest, then those of the sum; and where its first element lies. */
typedef struct walk {
  int64_t stride[LOOPS], at;
} walk;

/* Loops of one role, counted together: the slowest first. */
typedef struct axis {
  int n, loop[LOOPS];
  int64_t extent;
} axis;

typedef struct match {
  tn_ctx *ctx;
  const ir_kernel *k;
  lw_problem p;
  int64_t extent[LOOPS];
  walk a, b, y;
  axis rows_a, rows_b, batch, sum;
} match;

static const ir_stmt *loop_at(const lw_problem *p, int i) { return i < p->nout ? p->out[i] : p->red[i - p->nout]; }

/* False where a load is no affine function of the loops. */
static bool walk_of(match *x, ix load, walk *w) {
  const lw_problem *p = &x->p;
  ix first = ir_buf_offset(x->ctx, load->u.buf, load->args);
  for (int i = 0; i < p->nout + p->nred; i++) {
    const ir_stmt *l = loop_at(p, i);
    w->stride[i] = lw_stride(x->ctx, load, l->var);
    if (w->stride[i] < 0) return false; /* not affine, too */
    first = ix_subst1(x->ctx, first, l->var, l->lo);
  }
  return ix_const_value(first, &w->at);
}

static void add_loop(match *x, axis *a, int loop, const int64_t *by) {
  int at = a->n++;
  for (; at > 0 && by[a->loop[at - 1]] < by[loop]; at--) a->loop[at] = a->loop[at - 1];
  a->loop[at] = loop;
  a->extent *= x->extent[loop];
}

/* The stride of an axis' count, where there is one. */
static bool along(const match *x, const axis *a, const walk *w, int64_t *stride) {
  *stride = a->n ? w->stride[a->loop[a->n - 1]] : 0;
  for (int i = 0; i + 1 < a->n; i++)
    if (w->stride[a->loop[i]] != w->stride[a->loop[i + 1]] * x->extent[a->loop[i + 1]]) return false;
  return true;
}

/* Rows that are two axes in memory: the outer one becomes the batch, over which the other operand stays. */
static void outer_as_batch(match *x, axis *rows, const walk *operand) {
  int64_t stride;
  if (x->batch.n || rows->n < 2 || (along(x, rows, &x->y, &stride) && along(x, rows, operand, &stride))) return;
  add_loop(x, &x->batch, rows->loop[0], x->y.stride);
  rows->extent /= x->extent[rows->loop[0]];
  memmove(rows->loop, rows->loop + 1, (size_t)--rows->n * sizeof *rows->loop);
}

static bool roles(match *x, const char **reason) {
  const lw_problem *p = &x->p;
  x->rows_a.extent = x->rows_b.extent = x->batch.extent = x->sum.extent = 1;
  for (int i = 0; i < p->nout + p->nred; i++) {
    x->extent[i] = i < p->nout ? p->extent[i] : p->red_extent[i - p->nout];
    if (x->extent[i] < 1) REFUSE("an extent that is not known, or 0");
    if (x->extent[i] == 1) continue;
    bool in_a = x->a.stride[i] != 0, in_b = x->b.stride[i] != 0;
    if (i >= p->nout ? !in_a || !in_b : (!in_a && !in_b) || !x->y.stride[i]) REFUSE("a loop that is no axis of a product");
    add_loop(x, i >= p->nout ? &x->sum : in_a && in_b ? &x->batch : in_a ? &x->rows_a : &x->rows_b, i, i >= p->nout ? x->a.stride : x->y.stride);
  }
  outer_as_batch(x, &x->rows_a, &x->a);
  outer_as_batch(x, &x->rows_b, &x->b);
  return true;
}

/* A matrix of `rows` x `cols` whose elements lie `by_row` and `by_col` apart, as it is or turned; runs along columns first. */
static bool matrix(rt_lt_matrix *m, int64_t rows, int64_t by_row, int64_t cols, int64_t by_col, bool may_turn) {
  if (may_turn && (by_col == 1 || cols == 1) && (rows == 1 || by_row >= cols)) {
    m->rows = cols, m->cols = rows, m->ld = rows == 1 ? cols : by_row, m->turned = true;
    return true;
  }
  m->rows = rows, m->cols = cols, m->ld = cols == 1 ? rows : by_col;
  return (by_row == 1 || rows == 1) && (cols == 1 || by_col >= rows);
}

static bool matrix_of(match *x, ix load, const walk *w, const axis *rows, const axis *cols, bool may_turn, rt_lt_matrix *m) {
  int64_t by_row, by_col;
  *m = (rt_lt_matrix){.dtype = load->u.buf->dtype, .param = rt_param_of(x->k, load->u.buf), .at = w->at};
  if (!along(x, rows, w, &by_row) || !along(x, cols, w, &by_col) || !along(x, &x->batch, w, &m->step)) return false;
  if (m->at * (int64_t)ir_dtype_bytes(m->dtype) % 16) return false; /* what the heuristics are told */
  return matrix(m, rows->extent, by_row, cols->extent, by_col, may_turn);
}

static bool is_eight(tn_dtype t) { return t == TN_F8E4M3FN || t == TN_F8E5M2; }

/* `other` as c, of y's shape, or as a bias, one value for each of `left`. */
static bool addend(match *x, ix other, const axis *left, const axis *right, rt_lt_product *r) {
  walk w;
  int64_t by_left, by_right, by_batch;
  if (!walk_of(x, other, &w) || !along(x, left, &w, &by_left) || !along(x, right, &w, &by_right) || !along(x, &x->batch, &w, &by_batch)) return false;
  if (r->c.param < 0 && other->u.buf->dtype == r->y.dtype && matrix_of(x, other, &w, left, right, false, &r->c) && (by_right || right->extent == 1)) return true;
  r->c.param = -1;
  tn_dtype wanted = is_eight(r->a.dtype) && r->y.dtype == TN_F32 ? TN_BF16 : r->y.dtype; /* of a bias */
  if (r->bias >= 0 || by_right || by_batch || (by_left != 1 && left->extent > 1) || other->u.buf->dtype != wanted) return false;
  r->bias = rt_param_of(x->k, other->u.buf);
  r->bias_dtype = other->u.buf->dtype;
  r->bias_at = w.at;
  return w.at * (int64_t)ir_dtype_bytes(r->bias_dtype) % 16 == 0;
}

/* `load` as the scale of a or b: a number is that of either. */
static bool scale_of(match *x, ix load, const axis *left, const axis *right, bool vectors[2], rt_lt_product *r) {
  walk w;
  int64_t by[2], by_batch;
  if (load->u.buf->dtype != TN_F32 || !is_eight(r->a.dtype) || !walk_of(x, load, &w) || !along(x, left, &w, &by[0]) || !along(x, right, &w, &by[1]) || !along(x, &x->batch, &w, &by_batch)) return false;
  if (by_batch || (by[0] && by[1]) || by[0] > 1 || by[1] > 1) return false;
  int side = by[0] ? 0 : by[1] ? 1 : r->scales[0].param >= 0;
  if (r->scales[side].param >= 0 || ((by[0] || by[1]) && w.at % 4)) return false;
  vectors[side] = by[0] || by[1];
  r->scales[side].param = rt_param_of(x->k, load->u.buf);
  r->scales[side].at = w.at;
  return true;
}

static bool end_of(match *x, const axis *left, const axis *right, rt_lt_product *r) {
  rt_end e;
  bool vectors[2] = {0}, more = false; /* than factors, so far */
  if (!rt_end_of(x->ctx, &x->p, &e)) return false;
  for (int i = 0; i < e.n; i++) {
    bool divides = e.steps[i].op == RT_END_DIVIDE;
    if ((r->relu && !divides) || r->gelu) return false;
    switch (e.steps[i].op) {
    case RT_END_SCALE:
      if (more || (e.steps[i].other && !scale_of(x, e.steps[i].other, left, right, vectors, r))) return false;
      r->scale *= e.steps[i].number;
      break;
    case RT_END_DIVIDE: /* before it is rounded to three bits or less: as good as a factor of the sum, which ReLU lets through */
      if (!is_eight(r->y.dtype) || r->bias >= 0 || r->c.param >= 0) return false;
      r->scale /= e.steps[i].number;
      break;
    case RT_END_ADD:
      if (!addend(x, e.steps[i].other, left, right, r)) return false;
      break;
    case RT_END_RELU:
      if (isfinite(e.steps[i].number)) return false;
      r->relu = true;
      break;
    case RT_END_GELU:
      r->gelu = true;
      r->inexact = !e.steps[i].exact;
      break;
    }
    more |= e.steps[i].op > RT_END_DIVIDE;
  }
  r->vectors = vectors[0];
  return vectors[0] == vectors[1];
}

/* Whether an operand of the sum is a load as it lies, or widened: no zero point is taken off, nothing rounded. */
static bool plain(const lw_problem *p, ix e) {
  while (e->op == IX_CAST && ir_dtype_bytes((tn_dtype)e->dtype) > ir_dtype_bytes((tn_dtype)e->args[0]->dtype)) e = e->args[0];
  return e == p->a || e == p->b;
}

static bool plain_operands(const lw_problem *p) {
  ix v = p->update->value;
  if (v->op == IX_FMA) return plain(p, v->args[0]) && plain(p, v->args[1]);
  for (int i = 0; i < v->nargs; i++)
    if (v->args[i]->op == IX_MUL) return plain(p, v->args[i]->args[0]) && plain(p, v->args[i]->args[1]);
  return false;
}

static bool starts_from_zero(const lw_problem *p) {
  const ir_stmt *s = p->body;
  if (s->kind != IR_ALLOC || s->buf->rank || s->buf != p->update->buf || s->body->kind != IR_SEQ || s->body->items[0]->kind != IR_STORE) return false;
  ix v = s->body->items[0]->value;
  return v->op == IX_CONST && (ir_is_float((tn_dtype)v->dtype) ? v->u.f == 0 : v->u.i == 0);
}

static bool types_fit(const rt_lt_product *r) {
  tn_dtype d = r->a.dtype, y = r->y.dtype;
  if (is_eight(d) && is_eight(r->b.dtype)) { /* two of E5M2 there are not; results of E5M2 only of one */
    bool e5m2 = d == TN_F8E5M2 || r->b.dtype == TN_F8E5M2;
    return r->sum == TN_F32 && (d != r->b.dtype || !e5m2) && (y == TN_F16 || y == TN_BF16 || y == TN_F32 || y == TN_F8E4M3FN || (y == TN_F8E5M2 && e5m2));
  }
  if (d != r->b.dtype) return false;
  switch (r->sum) {
  case TN_F32: {
    bool half = d == TN_F16 || d == TN_BF16;
    return (d == TN_F32 && y == TN_F32) || (half && (y == d || y == TN_F32));
  }
  case TN_F64: return d == TN_F64 && y == TN_F64;
  case TN_I32: return d == TN_I8 && y == TN_I32;
  default: return false;
  }
}

bool rt_lt_product_of(tn_ctx *ctx, const ir_kernel *k, rt_lt_product *r, const char **reason) {
  match *x = IR_NEW(ctx, match);
  *x = (match){.ctx = ctx, .k = k, .p = lw_problem_of(ctx, k)};
  const lw_problem *p = &x->p;
  *r = (rt_lt_product){.bias = -1, .scale = 1, .sum = p->dtype, .c = {.param = -1}, .scales = {{.param = -1}, {.param = -1}}};
  if (p->kind != LW_CONTRACTION || k->ndims) REFUSE("not a product of two tensors of known size");
  if (!p->store || p->store->kind != IR_STORE || p->store->op != IR_SET || p->guard || !starts_from_zero(p) || !plain_operands(p)) REFUSE("more than a sum, or borders");
  ix y = ix_load(ctx, p->store->buf, p->store->index);
  if (!walk_of(x, p->a, &x->a) || !walk_of(x, p->b, &x->b) || !walk_of(x, y, &x->y)) REFUSE("indices that are not affine");
  if (!roles(x, reason)) return false;
  int64_t by_a = 0, by_b = 0;
  if (!along(x, &x->rows_a, &x->y, &by_a) || !along(x, &x->rows_b, &x->y, &by_b)) REFUSE("rows that are several axes in memory");
  bool b_first = by_b == 1 || (by_b == 0 && by_a != 1);
  const axis *left = b_first ? &x->rows_b : &x->rows_a, *right = b_first ? &x->rows_a : &x->rows_b;
  r->m = left->extent, r->n = right->extent, r->k = x->sum.extent, r->batch = x->batch.extent;
  ix la = b_first ? p->b : p->a, lb = b_first ? p->a : p->b;
  const walk *wa = b_first ? &x->b : &x->a, *wb = b_first ? &x->a : &x->b;
  rt_lt_matrix turned;
  if (!matrix_of(x, y, &x->y, left, right, false, &r->y) || !matrix_of(x, la, wa, left, &x->sum, true, &r->a) || !matrix_of(x, lb, wb, right, &x->sum, true, &turned))
    REFUSE("operands that are no matrices in memory");
  r->b = turned;
  r->b.turned = !turned.turned; /* b is k x n: what was read as rows of n and turned is k x n as it lies */
  if (!types_fit(r)) REFUSE("types that cuBLASLt does not multiply");
  if (!end_of(x, left, right, r)) REFUSE("an epilogue that is more than factors, additions, ReLU or GELU");
  if (r->sum == TN_I32 && (r->scale != 1 || r->bias >= 0 || r->c.param >= 0)) REFUSE("integers with an epilogue");
  return true;
}
