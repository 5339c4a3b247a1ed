/* cuda_cudnn_match.c — which kernels are a convolution that cuDNN offers; attention: cuda_cudnn_attend.c. */
#include "runtime/cuda_cudnn.h"
#include "runtime/cuda_epilogue.h"
#include <string.h>

#define REFUSE(text) return *reason = (text), false

/* Sizes and strides of a buffer of rank 4; false when it does not lie by strides. */
static bool tensor_of(tn_ctx *ctx, const ir_kernel *k, const ir_buf *b, rt_dnn_tensor *t) {
  ix at[IR_MAX_RANK];
  if (b->rank != 4) return false;
  for (int s = 0; b->layout && s < b->layout->nsteps; s++)
    if (b->layout->steps[s].kind != IR_LAYOUT_PERM) return false;
  t->dtype = b->dtype;
  t->param = rt_param_of(k, b);
  for (int d = 0; d < 4; d++) {
    for (int i = 0; i < 4; i++) at[i] = ix_index(ctx, i == d);
    if (!ix_const_value(b->shape[d], &t->size[d]) || !ix_const_value(ir_buf_offset(ctx, b, at), &t->stride[d])) return false;
  }
  return true;
}

static void pack(rt_dnn_tensor *t, bool channels_last) {
  t->stride[3] = channels_last ? t->size[1] : 1;
  t->stride[2] = t->stride[3] * t->size[3];
  t->stride[1] = channels_last ? 1 : t->stride[2] * t->size[2];
  t->stride[0] = t->size[1] * t->size[2] * t->size[3];
}

/* Whether an index is this loop's variable alone; where the loop has one turn, 0 serves. */
static bool is_loop(ix e, const ir_stmt *loop) { return e == loop->var->expr || (loop->var->lo == 0 && loop->var->hi == 0 && ix_is_int(e, 0)); }

static const ir_stmt *loop_of(const lw_problem *p, ix e, bool sum) {
  for (int i = 0; i < (sum ? p->nred : p->nout); i++) {
    const ir_stmt *l = sum ? p->red[i] : p->out[i];
    if (e == l->var->expr) return l;
  }
  return NULL;
}

/* e = stride * out + dilation * tap - before. */
static bool window(tn_ctx *ctx, ix e, const ir_stmt *out, const ir_stmt *tap, int64_t size, int64_t result, int64_t taps, rt_dnn_conv *c, int d) {
  int64_t c0;
  if (!ix_affine_in(e, out->var, &c->stride[d]) || !ix_affine_in(e, tap->var, &c->dilation[d])) return false;
  ix rest = ix_subst1(ctx, ix_subst1(ctx, e, out->var, ix_index(ctx, 0)), tap->var, ix_index(ctx, 0));
  if (!ix_const_value(rest, &c0)) return false;
  if (result == 1 && c->stride[d] == 0) c->stride[d] = 1;
  if (taps == 1 && c->dilation[d] == 0) c->dilation[d] = 1;
  if (c->stride[d] < 1 || c->dilation[d] < 1 || c0 > 0) return false;
  int64_t reach = (taps - 1) * c->dilation[d] + 1;
  c->before[d] = c->after[d] = -c0;
  if (size + 2 * c->before[d] < reach || (size + 2 * c->before[d] - reach) / c->stride[d] + 1 != result) /* not the same at both ends */
    c->after[d] = (result - 1) * c->stride[d] + reach - c->before[d] - size;
  return c->after[d] >= 0;
}

/* Conjunctions as sets of their parts. */
static int parts_of(ix e, ix *parts, int n, int max) {
  if (!e || (e->op == IX_CONST && e->u.i)) return n;
  if (e->op == IX_AND) return parts_of(e->args[1], parts, parts_of(e->args[0], parts, n, max), max);
  if (n < max) parts[n] = e;
  return n + 1;
}

static bool same_conditions(ix a, ix b) {
  enum { MAX = 16 };
  ix x[MAX], y[MAX];
  int n = parts_of(a, x, 0, MAX), m = parts_of(b, y, 0, MAX);
  if (n != m || n > MAX) return false;
  for (int i = 0; i < n; i++) {
    int j = 0;
    while (j < n && y[j] != x[i]) j++;
    if (j == n) return false;
  }
  return true;
}

/* ---- what follows the sum ---- */

/* An operand of an addition: the result's own place, or one value per channel. */
static bool other_of(tn_ctx *ctx, const ir_kernel *k, ix e, const ix *to, const rt_dnn_conv *c, rt_dnn_tensor *out) {
  const ir_buf *b = e->u.buf;
  if (b->rank == 1 && e->args[0] == to[1]) {
    int64_t n = c->y.size[1];
    *out = (rt_dnn_tensor){b->dtype, {1, n, 1, 1}, {n, 1, n, n}, rt_param_of(k, b), 0};
    return true;
  }
  if (!tensor_of(ctx, k, b, out)) return false;
  for (int d = 0; d < 4; d++)
    if (out->size[d] != c->y.size[d] || (e->args[d] != to[d] && !(out->size[d] == 1 && ix_is_int(e->args[d], 0)))) return false;
  return true;
}

static bool steps_of(tn_ctx *ctx, const ir_kernel *k, const lw_problem *p, rt_dnn_conv *c) {
  rt_end e;
  if (!rt_end_of(ctx, p, &e)) return false;
  for (c->nsteps = 0; c->nsteps < e.n; c->nsteps++) {
    int i = c->nsteps;
    c->steps[i].op = e.steps[i].op == RT_END_ADD ? RT_DNN_ADD : RT_DNN_RELU;
    c->steps[i].top = e.steps[i].number;
    if (e.steps[i].op == RT_END_ADD ? !other_of(ctx, k, e.steps[i].other, p->store->index, c, &c->steps[i].other) : e.steps[i].op != RT_END_RELU) return false;
  }
  return true;
}

static bool is_whole(const rt_dnn_tensor *t, const rt_dnn_conv *c) { return memcmp(t->size, c->y.size, sizeof t->size) == 0; }

/* cuDNN's fused engines add a whole tensor first, then the bias: sums of the same terms, in another order. */
static void whole_first(rt_dnn_conv *c) {
  for (int i = 0; i + 1 < c->nsteps; i++) {
    bool both = c->steps[i].op == RT_DNN_ADD && c->steps[i + 1].op == RT_DNN_ADD;
    if (!both || is_whole(&c->steps[i].other, c) || !is_whole(&c->steps[i + 1].other, c)) continue;
    rt_dnn_tensor bias = c->steps[i].other;
    c->steps[i].other = c->steps[i + 1].other;
    c->steps[i + 1].other = bias;
  }
}

bool rt_dnn_conv_of(tn_ctx *ctx, const ir_kernel *k, rt_dnn_conv *c, const char **reason) {
  *c = (rt_dnn_conv){0};
  lw_problem p = lw_problem_of(ctx, k);
  if (p.kind != LW_CONTRACTION || k->ndims) REFUSE("not a product of two tensors of known size");
  if (p.dtype != TN_F32 || p.nout != 4 || p.nred != 3 || !p.store || p.store->kind != IR_STORE || p.store->op != IR_SET) REFUSE("not a two-dimensional convolution");
  ix x = p.a, w = p.b;
  if (x->u.buf->rank == 4 && loop_of(&p, x->args[0], false) && x->args[0] == p.store->index[1]) x = p.b, w = p.a;
  if (!tensor_of(ctx, k, x->u.buf, &c->x) || !tensor_of(ctx, k, w->u.buf, &c->w) || !tensor_of(ctx, k, p.store->buf, &c->y)) REFUSE("not four axes in an order");
  const ir_stmt *out[4], *sum[3] = {loop_of(&p, w->args[1], true), loop_of(&p, w->args[2], true), loop_of(&p, w->args[3], true)};
  for (int d = 0; d < 4; d++)
    if (!(out[d] = loop_of(&p, p.store->index[d], false))) REFUSE("a result that is not written axis by axis");
  if (!sum[0] || !sum[1] || !sum[2] || !is_loop(w->args[0], out[1]) || !is_loop(x->args[0], out[0]) || !is_loop(x->args[1], sum[0])) REFUSE("groups, or indices of another operation");
  if (c->w.size[1] != c->x.size[1] || c->w.size[0] != c->y.size[1] || c->x.size[0] != c->y.size[0]) REFUSE("part of a tensor");
  for (int d = 0; d < 2; d++)
    if (!window(ctx, x->args[2 + d], out[2 + d], sum[1 + d], c->x.size[2 + d], c->y.size[2 + d], c->w.size[2 + d], c, d)) REFUSE("a window that is not affine");
  ix inside = ix_and(ctx, ix_within(ctx, x->args[2], ix_index(ctx, 0), x->u.buf->shape[2]), ix_within(ctx, x->args[3], ix_index(ctx, 0), x->u.buf->shape[3]));
  if (!same_conditions(p.guard, inside)) REFUSE("a condition that is not the border of the picture");
  if (!ir_is_float(c->x.dtype) || c->x.dtype != c->w.dtype) REFUSE("operands of other types");
  if (w->u.buf->constant) pack(&c->w, c->x.stride[1] == 1 && c->x.size[1] > 1);
  if (!steps_of(ctx, k, &p, c)) REFUSE("an epilogue that is more than additions and clipping");
  whole_first(c);
  return true;
}

bool rt_dnn_problem_of(tn_ctx *ctx, const ir_kernel *k, rt_dnn_problem *p, const char **reason) {
  *p = (rt_dnn_problem){.attends = lw_problem_of(ctx, k).attention};
  return p->attends ? rt_dnn_attention_of(ctx, k, &p->attention, reason) : rt_dnn_conv_of(ctx, k, &p->conv, reason);
}
