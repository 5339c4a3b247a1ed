/* ops_attend.c — tenon:Attend(s, v) = MatMul(Softmax(s), v); with `zeros` a row that is -inf all along gives zeros, not NaN.
 *
 * for b0 b1 .. m { row[t] = s, the largest; row[t] = exp(row[t] - largest), their sum;
 *                  for n { acc = 0; for t acc = fma(row[t], v[t, n], acc); out = acc / sum } }
 *
 * Where the product that s comes from is of the same group, its sum over k stands in the first loop. */
#include "lower/attend.h"
#include "lower/rowop.h"
#include "lower/window.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- the group ---- */

static bool is_product(const ir_node *n) {
  return strcmp(n->op->name, "MatMul") == 0 && n->out[0]->rank >= 2 && n->in[0]->rank >= 2 && n->in[1]->rank >= 2;
}

static bool same_shape(const ir_value *a, const ir_value *b) {
  if (a->rank != b->rank || a->dtype != b->dtype) return false;
  for (int i = 0; i < a->rank; i++)
    if (a->dims[i] != b->dims[i]) return false;
  return true;
}

static bool used_once(const ir_value *v) { return v->nuses == 1 && v->uses[0]; }

int lw_score_nodes(const ir_value *v, ir_node *nodes[LW_MAX_SCORE_NODES]) {
  int n = 0;
  for (const ir_value *x = v; x && n < LW_MAX_SCORE_NODES; n++) {
    ir_node *d = x->def;
    if (!d || x->data || d->nout != 1 || !used_once(x)) return 0;
    nodes[n] = d;
    if (is_product(d)) {
      for (int i = 0; i <= n / 2; i++) { /* the product first */
        ir_node *t = nodes[i];
        nodes[i] = nodes[n - i], nodes[n - i] = t;
      }
      return n + 1;
    }
    if (d->op->kind != IR_OP_ELEMENTWISE || !d->op->value) return 0;
    x = NULL;
    for (int k = 0; k < d->nin && !x; k++) { /* the operand that scores may come from: of this shape, for this node alone */
      const ir_value *w = d->in[k];
      if (w && w->def && !w->data && same_shape(w, v) && used_once(w) && (is_product(w->def) || w->def->op->kind == IR_OP_ELEMENTWISE)) x = w;
    }
  }
  return 0;
}

/* ---- the op ---- */

static void infer(tn_ctx *ctx, ir_node *n) {
  lw_need_same_type(ctx, n, 0, 1);
  if (!ir_is_float(n->in[0]->dtype) || n->in[0]->rank < 2 || n->in[1]->rank < 2) lw_bad(ctx, n, "scores and values must be matrices of floats");
  lw_matmul_set(ctx, n, n->in[0]->dtype);
}

/* e with what is of f16 or bf16 computed as f32, and no rounding in between. */
static ix widened(tn_ctx *ctx, ix e) {
  tn_dtype t = (tn_dtype)e->dtype, from = e->op == IX_CAST ? (tn_dtype)e->args[0]->dtype : TN_NONE;
  bool half = t == TN_F16 || t == TN_BF16;
  if (!half && t != TN_F32) return e;
  if (e->op == IX_CONST) return half ? ix_float(ctx, TN_F32, e->u.f) : e;
  if (e->op == IX_LOAD) return half ? ix_cast(ctx, TN_F32, e) : e;
  if (e->op == IX_CAST) return from == TN_F16 || from == TN_BF16 || from == TN_F32 ? widened(ctx, e->args[0]) : ix_cast(ctx, TN_F32, e->args[0]);
  if (e->op == IX_SELECT) return ix_select(ctx, e->args[0], widened(ctx, e->args[1]), widened(ctx, e->args[2]));
  if (e->op == IX_FMA) return ix_fma(ctx, widened(ctx, e->args[0]), widened(ctx, e->args[1]), widened(ctx, e->args[2]));
  if (e->op == IX_DIV && e->args[1]->op == IX_CONST) return ix_mul(ctx, widened(ctx, e->args[0]), ix_float(ctx, TN_F32, 1 / e->args[1]->u.f));
  if (e->nargs == 2) return ix_binary(ctx, (ir_opcode)e->op, widened(ctx, e->args[0]), widened(ctx, e->args[1]));
  return e->nargs == 1 && e->op != IX_BITCAST ? ix_unary(ctx, (ir_opcode)e->op, widened(ctx, e->args[0])) : half ? ix_cast(ctx, TN_F32, e) : e;
}

static void build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *ib = lw_b(b);
  ir_value *s = n->in[0], *v = n->in[1], *y = n->out[0];
  tn_dtype t = lw_compute_type(s->dtype);
  ix o[IR_MAX_RANK], is[IR_MAX_RANK], iv[IR_MAX_RANK], zero = ix_index(ctx, 0), keys = s->dims[s->rank - 1];
  int batch = y->rank - 2;
  for (int i = 0; i <= batch; i++) {
    char name[16];
    snprintf(name, sizeof name, i < batch ? "b%d" : "m", i);
    o[i] = ib_loop(ib, name, y->dims[i]);
  }
  for (int i = 0; i < s->rank - 2; i++) is[i] = ix_is_int(s->dims[i], 1) ? zero : o[batch - (s->rank - 2) + i];
  for (int i = 0; i < v->rank - 2; i++) iv[i] = ix_is_int(v->dims[i], 1) ? zero : o[batch - (v->rank - 2) + i];
  is[s->rank - 2] = o[batch];
  ir_node *nodes[LW_MAX_SCORE_NODES], *product = lw_score_nodes(s, nodes) && nodes[0]->group == n->group && n->group >= 0 ? nodes[0] : NULL;
  ir_buf *row = ib_alloc(ib, "row", t, 1, &keys, IR_LOCAL), *max = ib_local(ib, "max", t, ix_float(ctx, t, -INFINITY));
  ix k = is[s->rank - 1] = ib_loop(ib, "t", keys), x;
  if (product) {
    ix score = ix_cast(ctx, s->dtype, ib_get(ib, lw_matmul_sum(b, product, is)));
    x = lw_in_given(b, n, 0, is, product->out[0], score);
  } else x = lw_in(b, n, 0, is);
  x = ib_let(ib, "s", product && t != s->dtype ? widened(ctx, x) : ix_cast(ctx, t, x)); /* a product of f16 may be beyond its numbers, what is softmaxed not */
  ib_store(ib, row, &k, x);
  ib_update(ib, max, NULL, IR_MAX, x);
  ib_end(ib);
  bool zeros = ir_attr_get_int(n, "zeros", 0) != 0;
  ix top = ib_get(ib, max), minus = ix_float(ctx, t, -INFINITY);
  top = ib_let(ib, "top", zeros ? ix_select(ctx, ix_eq(ctx, top, minus), lw_zero(ctx, t), top) : top);
  ir_buf *sum = ib_local(ib, "sum", t, lw_zero(ctx, t));
  k = ib_loop(ib, "t", keys);
  ix e = ib_let(ib, "e", ix_unary(ctx, IX_EXP, ix_sub(ctx, ib_load(ib, row, &k), top)));
  ib_store(ib, row, &k, e);
  ib_update(ib, sum, NULL, IR_ADD, e);
  ib_end(ib);
  ix all = ib_get(ib, sum), one = ix_float(ctx, t, 1);
  if (zeros) all = ix_select(ctx, ix_eq(ctx, all, lw_zero(ctx, t)), one, all);
  ix scale = ib_let(ib, "scale", ix_div(ctx, one, all));
  iv[v->rank - 1] = o[batch + 1] = ib_loop(ib, "n", y->dims[batch + 1]);
  ir_buf *acc = lw_accumulator(b, s->dtype);
  iv[v->rank - 2] = k = ib_loop(ib, "k", keys);
  lw_accumulate(b, acc, ib_load(ib, row, &k), lw_in(b, n, 1, iv));
  ib_end(ib);
  lw_out(b, n, 0, o, ix_cast(ctx, y->dtype, ix_mul(ctx, ib_get(ib, acc), scale)));
  ib_end_n(ib, batch + 2);
}

const ir_op lw_ops_attend[] = {
    {.name = "Attend", .domain = "tenon", .kind = IR_OP_CONTRACTION, .since = 1, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1, .attrs = "zeros:i", .infer = infer, .build = build},
    {0}};
