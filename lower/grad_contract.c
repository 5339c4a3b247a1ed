/* grad_contract.c — gradients of matrix products.
 *
 * Y = P Q with P = A or A^T, Q = B or B^T: the gradient of P is dY Q^T, that of Q is P^T dY.
 * Both are products again, read in place by transA and transB. */
#include "lower/grad.h"
#include <string.h>

/* x y, each perhaps transposed, times alpha. */
static ir_value *product(lw_grad *d, ir_value *x, bool tx, ir_value *y, bool ty, double alpha) {
  bool flat = x->rank == 2 && y->rank == 2;
  ir_node *m = lw_node_n(d->g, d->n, flat ? "Gemm" : "tenon:MatMul", 2, (ir_value *[]){x, y}, 1);
  ir_attr_int(m, "transA", tx);
  ir_attr_int(m, "transB", ty);
  if (flat && alpha != 1) ir_attr_float(m, "alpha", alpha);
  ir_infer(d->ctx, m);
  return m->out[0];
}

static ir_value *of_first(lw_grad *d, bool ta, ir_value *b, bool tb, ir_value *dy, double alpha) {
  if (!d->wanted[0]) return NULL;
  return ta ? product(d, b, tb, dy, true, alpha) : product(d, dy, false, b, !tb, alpha);
}
static ir_value *of_second(lw_grad *d, ir_value *a, bool ta, bool tb, ir_value *dy, double alpha) {
  if (!d->wanted[1]) return NULL;
  return tb ? product(d, dy, true, a, ta, alpha) : product(d, a, !ta, dy, false, alpha);
}

/* v as a matrix or a batch of them: the axes before the last two joined if `flat`. */
static ir_value *as_rows(lw_grad *d, ir_value *v) {
  int64_t dims[2] = {1, ir_dim(d->ctx, v, -1)};
  for (int i = 0; i < v->rank - 1; i++) dims[0] *= ir_dim(d->ctx, v, i);
  return lw_reshape(d->g, d->n, v, 2, dims);
}

/* MatMul, and tenon:MatMul with its transA and transB (matrices or batches of them). */
void lw_grad_matmul(lw_grad *d) {
  ir_node *n = d->n;
  ir_value *a = n->in[0], *b = n->in[1], *dy = d->dy[0];
  bool ta = ir_attr_get_int(n, "transA", 0) != 0, tb = ir_attr_get_int(n, "transB", 0) != 0;
  int64_t dims[IR_MAX_RANK + 1];
  int batch = dy->rank - (a->rank > 1) - (b->rank > 1);
  /* vectors become matrices of one row or column */
  lw_grad_dims(d->ctx, dy, dims);
  if (a->rank == 1) {
    a = lw_reshape(d->g, n, a, 2, (int64_t[]){1, ir_dim(d->ctx, a, 0)});
    memmove(dims + batch + 1, dims + batch, (size_t)(dy->rank - batch) * sizeof *dims);
    dims[batch] = 1;
  }
  if (b->rank == 1) {
    b = lw_reshape(d->g, n, b, 2, (int64_t[]){ir_dim(d->ctx, b, 0), 1});
    dims[batch + 1] = 1;
  }
  dy = lw_reshape(d->g, n, dy, batch + 2, dims);
  ir_value *da = of_first(d, ta, b, tb, dy, 1);
  /* one matrix for all rows: its gradient is one product (that of the rows keeps their shape, for what follows) */
  if (b->rank == 2 && !ta && d->wanted[1]) a = as_rows(d, a), dy = as_rows(d, dy);
  ir_value *db = of_second(d, a, ta, tb, dy, 1);
  for (int k = 0; k < 2; k++) {
    ir_value *v = k ? db : da;
    const ir_value *x = n->in[k];
    if (!v) continue;
    if (x->rank == 1 && v->rank > 2) v = lw_grad_unbroadcast(d->g, n, v, k ? b : a); /* sum the batch before the axis of one goes */
    if (x->rank == 1 || v->rank == 2) {
      lw_grad_dims(d->ctx, x, dims);
      v = lw_reshape(d->g, n, v, x->rank, dims);
    }
    lw_grad_add(d, k, v);
  }
}

void lw_grad_gemm(lw_grad *d) {
  ir_node *n = d->n;
  double alpha = ir_attr_get_float(n, "alpha", 1), beta = ir_attr_get_float(n, "beta", 1);
  bool ta = ir_attr_get_int(n, "transA", 0) != 0, tb = ir_attr_get_int(n, "transB", 0) != 0;
  lw_grad_add(d, 0, of_first(d, ta, n->in[1], tb, d->dy[0], alpha));
  lw_grad_add(d, 1, of_second(d, n->in[0], ta, tb, d->dy[0], alpha));
  if (!lw_has(n, 2) || beta == 0) return;
  lw_grad_add(d, 2, beta == 1 ? d->dy[0] : lw_op2(d->g, n, "Mul", d->dy[0], lw_number(d->g, d->dy[0], beta)));
}
