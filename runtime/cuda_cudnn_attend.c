/* cuda_cudnn_attend.c — which kernels are an attention that cuDNN offers. */
#include "lower/attend.h"
#include "runtime/cuda_cudnn.h"

#define REFUSE(text) return *reason = (text), false

/* ---- operands ---- */

enum { Q, K, V, Y, OPERANDS };

typedef struct place { /* of an operand: what a step of each loop moves, in elements */
  int64_t batch[IR_MAX_RANK], row, column, at;
} place;

static bool step(tn_ctx *ctx, ix *e, const ir_var *v, int64_t *by) {
  if (!ix_affine_in(*e, v, by)) return false;
  *e = ix_subst1(ctx, *e, v, ix_index(ctx, 0));
  return true;
}

static bool place_of(tn_ctx *ctx, const lw_attention_parts *p, const ir_buf *b, const ix *index, const ir_var *row, const ir_var *column, place *out) {
  ix e = ir_buf_offset(ctx, b, index);
  for (int i = 0; i < p->nbatch; i++)
    if (!step(ctx, &e, p->batch[i]->var, &out->batch[i])) return false;
  return step(ctx, &e, row, &out->row) && step(ctx, &e, column, &out->column) && ix_const_value(e, &out->at);
}

/* ---- batches ---- */

typedef struct axis {
  int64_t extent, by[OPERANDS];
  bool shared; /* keys and values are the same all along it */
} axis;

static const axis one = {.extent = 1};

static bool joins(const axis *a, const axis *b, int from, int to) { /* to one axis, b the inner one */
  for (int i = from; i <= to; i++)
    if (a->by[i] != b->extent * b->by[i]) return false;
  return true;
}

/* One axis less: one of a single turn, or two that are one; false where there is none such. */
static bool fold(axis *a, int *n) {
  int i = *n - 1;
  while (i >= 0 && a[i].extent > 1) i--;
  for (int k = 0; i < 0 && k + 1 < *n; k++)
    if (a[k].shared == a[k + 1].shared && joins(&a[k], &a[k + 1], Q, Y)) a[k + 1].extent *= a[k].extent, i = k;
  if (i < 0) return false;
  for (--*n; i < *n; i++) a[i] = a[i + 1];
  return true;
}

/* The loops of the batch as batches, groups of heads, and heads of a group. */
static bool axes_of(const lw_attention_parts *p, const place *at, axis *batch, axis *group, axis *head) {
  axis a[IR_MAX_RANK];
  int n = 0;
  for (int i = 0; i < p->nbatch; i++) {
    bool many = p->extent[i] > 1;
    a[n] = (axis){.extent = p->extent[i], .shared = many && !at[K].batch[i]};
    for (int o = 0; o < OPERANDS; o++) a[n].by[o] = at[o].batch[i];
    if (many && (a[n].shared != !at[V].batch[i] || !a[n].by[Q] || !a[n].by[Y])) return false;
    n++;
  }
  while (n > 2 + a[n - 1].shared)
    if (!fold(a, &n)) return false;
  *head = n && a[n - 1].shared ? a[--n] : one;
  *group = n ? a[n - 1] : one;
  *batch = n > 1 ? a[0] : one;
  if (batch->shared || group->shared) return false;
  if (head->extent == 1 || group->extent == 1 || (joins(group, head, Q, Q) && joins(group, head, Y, Y))) return true;
  if (batch->extent > 1) return false;
  *batch = *group, *group = one; /* heads of a group that are not beside those of the next one */
  return true;
}

static rt_dnn_tensor tensor_of(const ir_kernel *k, const ir_buf *b, const place *at, const axis *batch, const axis *group, const axis *head, int which, int64_t rows, int64_t columns) {
  bool all = which == Q || which == Y;
  const axis *inner = all && head->extent > 1 ? head : group;
  int64_t heads = group->extent * (all ? head->extent : 1), whole = 1;
  rt_dnn_tensor t = {b->dtype, {batch->extent, heads, rows, columns}, {batch->by[which], inner->by[which], at->row, at->column}, rt_param_of(k, b), at->at};
  for (int d = 0; d < 4; d++)
    if (t.size[d] > 1 && t.size[d] * t.stride[d] > whole) whole = t.size[d] * t.stride[d];
  for (int d = 0; d < 3; d++)
    if (t.size[d] == 1) t.stride[d] = whole;
  return t;
}

/* Heads lie along memory, and in pieces of 16 bytes. */
static bool lies_well(const rt_dnn_tensor *t) {
  bool good = t->stride[3] == 1 && t->size[3] % 8 == 0 && t->at % 8 == 0;
  for (int d = 0; d < 3; d++) good &= t->stride[d] > 0 && t->stride[d] % 8 == 0;
  return good;
}

/* ---- scores and results ---- */

static bool factor_of(const lw_attention_parts *p, ix e, double *scale) {
  *scale = 1;
  if (e->op == IX_MUL && ix_is_const(e->args[0])) *scale = e->args[0]->u.f, e = e->args[1];
  else if (e->op == IX_MUL && ix_is_const(e->args[1])) *scale = e->args[1]->u.f, e = e->args[0];
  return e->op == IX_LOAD && e->u.buf == p->sum;
}

/* e, which is above (or below) all keys that there are, or row + c. */
static bool bound_of(tn_ctx *ctx, ix e, const ir_var *row, int64_t keys, bool above, bool *there, int64_t *c) {
  int64_t n, by;
  if (ix_const_value(e, &n)) return above ? n >= keys : n <= 0;
  for (int i = 0; e->op == (above ? IX_MIN : IX_MAX) && i < 2; i++)
    if (ix_const_value(e->args[i], &n) && (above ? n >= keys : n <= 0)) return bound_of(ctx, e->args[1 - i], row, keys, above, there, c);
  *there = true;
  return ix_affine_in(e, row, &by) && by == 1 && ix_const_value(ix_subst1(ctx, e, row, ix_index(ctx, 0)), c);
}

/* The store of acc * scale; null: something else is. */
static const ir_stmt *store_of(tn_ctx *ctx, const lw_attention_parts *p) {
  const ir_stmt *s = p->after;
  while (s && s->kind == IR_LET) s = ir_subst_var(ctx, s->body, s->var, s->value);
  if (!s || s->kind != IR_STORE || s->op != IR_SET) return NULL;
  ix e = s->value, acc = ix_load(ctx, (ir_buf *)p->acc, NULL);
  while (e->op == IX_CAST) e = e->args[0];
  return e == ix_mul(ctx, acc, p->scale_var->expr) || e == ix_mul(ctx, p->scale_var->expr, acc) ? s : NULL;
}

/* ---- all of it ---- */

static bool mask_of(tn_ctx *ctx, const lw_attention_parts *p, rt_dnn_attention *a, const char **reason) {
  lw_attention_span s = lw_attention_span_of(ctx, p);
  if (!factor_of(p, s.inside, &a->scale)) REFUSE("scores that are more than a factor and a band of places");
  if (!bound_of(ctx, s.from, p->row->var, p->keys, false, &a->has_from, &a->from) || !bound_of(ctx, s.to, p->row->var, p->keys, true, &a->has_to, &a->to)) REFUSE("keys that are hidden otherwise than in a band");
  a->to--; /* the last one */
  if ((a->has_to && a->to < 0) || (a->has_from && p->queries - 1 + a->from >= p->keys) || (a->has_to && a->has_from && a->from > a->to)) REFUSE("queries that see no key");
  return true;
}

bool rt_dnn_attention_of(tn_ctx *ctx, const ir_kernel *k, rt_dnn_attention *a, const char **reason) {
  lw_attention_parts p;
  place at[OPERANDS];
  axis batch, group, head;
  *a = (rt_dnn_attention){0};
  if (k->ndims) REFUSE("attention of unknown size");
  if (!lw_attention_of(ctx, k, &p, reason)) return false;
  const ir_stmt *store = store_of(ctx, &p);
  if (!store) REFUSE("attention with something behind it");
  const ir_buf *bufs[OPERANDS] = {p.q->u.buf, p.k->u.buf, p.v->u.buf, store->buf};
  tn_dtype t = bufs[Q]->dtype;
  for (int i = 0; i < OPERANDS; i++)
    if ((t != TN_F16 && t != TN_BF16) || bufs[i]->dtype != t) REFUSE("attention of other types than f16 or bf16");
  if (!place_of(ctx, &p, bufs[Q], p.q->args, p.row->var, p.d, &at[Q]) || !place_of(ctx, &p, bufs[K], p.k->args, p.key[0], p.d, &at[K]) ||
      !place_of(ctx, &p, bufs[V], p.v->args, p.key[2], p.n, &at[V]) || !place_of(ctx, &p, bufs[Y], store->index, p.row->var, p.n, &at[Y]) || !axes_of(&p, at, &batch, &group, &head))
    REFUSE("operands that do not lie as batches of heads");
  const int64_t rows[OPERANDS] = {p.queries, p.keys, p.keys, p.queries}, columns[OPERANDS] = {p.depth, p.depth, p.columns, p.columns};
  rt_dnn_tensor *to[OPERANDS] = {&a->q, &a->k, &a->v, &a->y};
  for (int i = 0; i < OPERANDS; i++) {
    *to[i] = tensor_of(k, bufs[i], &at[i], &batch, &group, &head, i, rows[i], columns[i]);
    if (!lies_well(to[i])) REFUSE("heads that do not lie in pieces of 16 bytes");
  }
  return mask_of(ctx, &p, a, reason);
}
