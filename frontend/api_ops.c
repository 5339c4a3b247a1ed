/* api_ops.c — common ops by name: one node each, or two where ONNX wants operands as tensors. */
#include "frontend/api.h"
#include <stdio.h>

/* One node over n tensors, called by the public function `call`. */
static tn_tensor *one(tn_graph *g, const char *call, const char *op, const char *attrs, int n, tn_tensor *a, tn_tensor *b) {
  if (!fe_alive(g)) return NULL;
  fe_mark m = fe_enter(g, call);
  tn_tensor *in[2] = {a, b}, *out;
  fe_node(g, NULL, op, attrs, n, in, 1, &out);
  return fe_leave(g, &m, out);
}

tn_tensor *tn_add(tn_graph *g, tn_tensor *a, tn_tensor *b) { return one(g, "tn_add", "Add", NULL, 2, a, b); }
tn_tensor *tn_sub(tn_graph *g, tn_tensor *a, tn_tensor *b) { return one(g, "tn_sub", "Sub", NULL, 2, a, b); }
tn_tensor *tn_mul(tn_graph *g, tn_tensor *a, tn_tensor *b) { return one(g, "tn_mul", "Mul", NULL, 2, a, b); }
tn_tensor *tn_div(tn_graph *g, tn_tensor *a, tn_tensor *b) { return one(g, "tn_div", "Div", NULL, 2, a, b); }
tn_tensor *tn_matmul(tn_graph *g, tn_tensor *a, tn_tensor *b) { return one(g, "tn_matmul", "MatMul", NULL, 2, a, b); }
tn_tensor *tn_relu(tn_graph *g, tn_tensor *x) { return one(g, "tn_relu", "Relu", NULL, 1, x, NULL); }
tn_tensor *tn_gelu(tn_graph *g, tn_tensor *x) { return one(g, "tn_gelu", "Gelu", NULL, 1, x, NULL); }
tn_tensor *tn_sigmoid(tn_graph *g, tn_tensor *x) { return one(g, "tn_sigmoid", "Sigmoid", NULL, 1, x, NULL); }
tn_tensor *tn_tanh(tn_graph *g, tn_tensor *x) { return one(g, "tn_tanh", "Tanh", NULL, 1, x, NULL); }
tn_tensor *tn_global_avg_pool(tn_graph *g, tn_tensor *x) { return one(g, "tn_global_avg_pool", "GlobalAveragePool", NULL, 1, x, NULL); }

static tn_tensor *with_axis(tn_graph *g, const char *call, const char *op, tn_tensor *x, int axis) {
  char attrs[32];
  snprintf(attrs, sizeof attrs, "axis=%d", axis);
  return one(g, call, op, attrs, 1, x, NULL);
}
tn_tensor *tn_softmax(tn_graph *g, tn_tensor *x, int axis) { return with_axis(g, "tn_softmax", "Softmax", x, axis); }
tn_tensor *tn_flatten(tn_graph *g, tn_tensor *x, int axis) { return with_axis(g, "tn_flatten", "Flatten", x, axis); }

tn_tensor *tn_concat(tn_graph *g, int n, tn_tensor *const xs[], int axis) {
  if (!fe_alive(g)) return NULL;
  fe_mark m = fe_enter(g, "tn_concat");
  char attrs[32];
  tn_tensor *out;
  snprintf(attrs, sizeof attrs, "axis=%d", axis);
  fe_node(g, NULL, "Concat", attrs, n, xs, 1, &out);
  return fe_leave(g, &m, out);
}

tn_tensor *tn_reshape(tn_graph *g, tn_tensor *x, int rank, const int64_t dims[]) {
  if (!fe_alive(g)) return NULL;
  fe_mark m = fe_enter(g, "tn_reshape");
  tn_tensor *out = NULL;
  if (rank < 0 || rank > TN_MAX_RANK || (rank && !dims)) fe_error(g, TN_EUSAGE, "rank %d, or null dims", rank);
  else if (!x) fe_null(g, "x");
  else out = fe_op(g, NULL, "Reshape", NULL, 2, x, fe_ints(g, rank, rank ? dims : (int64_t[]){0}));
  return fe_leave(g, &m, out);
}

tn_tensor *tn_transpose(tn_graph *g, tn_tensor *x, const int perm[]) {
  if (!fe_alive(g)) return NULL;
  fe_mark m = fe_enter(g, "tn_transpose");
  char attrs[16 + 12 * TN_MAX_RANK] = "perm=[";
  int rank = x && x->v ? x->v->rank : 0;
  size_t n = 6;
  for (int i = 0; perm && i < rank && i < TN_MAX_RANK; i++) n += (size_t)snprintf(attrs + n, sizeof attrs - n, "%s%d", i ? "," : "", perm[i]);
  snprintf(attrs + n, sizeof attrs - n, "]");
  return fe_leave(g, &m, fe_op(g, NULL, "Transpose", perm && rank ? attrs : NULL, 1, x));
}

tn_tensor *tn_slice(tn_graph *g, tn_tensor *x, int axis, int64_t start, int64_t end) {
  if (!fe_alive(g)) return NULL;
  fe_mark m = fe_enter(g, "tn_slice");
  int64_t a = axis;
  tn_tensor *out = NULL;
  if (!x) fe_null(g, "x");
  else {
    tn_tensor *from = fe_ints(g, 1, &start), *to = fe_ints(g, 1, &end), *axes = fe_ints(g, 1, &a);
    out = fe_op(g, NULL, "Slice", NULL, 4, x, from, to, axes);
  }
  return fe_leave(g, &m, out);
}

static tn_tensor *reduce(tn_graph *g, const char *call, const char *op, tn_tensor *x, int axis, int keepdims) {
  if (!fe_alive(g)) return NULL;
  fe_mark m = fe_enter(g, call);
  int64_t a = axis;
  tn_tensor *out = NULL;
  if (!x) fe_null(g, "x");
  else out = fe_op(g, NULL, op, keepdims ? "keepdims=1" : "keepdims=0", 2, x, fe_ints(g, 1, &a));
  return fe_leave(g, &m, out);
}
tn_tensor *tn_mean(tn_graph *g, tn_tensor *x, int axis, int keepdims) { return reduce(g, "tn_mean", "ReduceMean", x, axis, keepdims); }
tn_tensor *tn_sum(tn_graph *g, tn_tensor *x, int axis, int keepdims) { return reduce(g, "tn_sum", "ReduceSum", x, axis, keepdims); }

/* "kernel_shape=[k,k] strides=[s,s] pads=[p,p,p,p]" for every spatial axis of x. */
static tn_tensor *pool(tn_graph *g, const char *call, const char *op, tn_tensor *x, int kernel, int stride, int pad) {
  if (!fe_alive(g)) return NULL;
  fe_mark m = fe_enter(g, call);
  char attrs[512];
  int axes = x && x->v ? x->v->rank - 2 : 1;
  size_t n = 0;
  static const char *const words[] = {"kernel_shape", "strides", "pads"};
  int values[] = {kernel, stride, pad};
  for (int w = 0; w < 3 && axes > 0; w++) {
    n += (size_t)snprintf(attrs + n, sizeof attrs - n, "%s=[", words[w]);
    for (int i = 0; i < (w == 2 ? 2 * axes : axes); i++) n += (size_t)snprintf(attrs + n, sizeof attrs - n, "%s%d", i ? "," : "", values[w]);
    n += (size_t)snprintf(attrs + n, sizeof attrs - n, "] ");
  }
  tn_tensor *out = NULL;
  if (axes < 1) fe_error(g, TN_EUSAGE, "'%s' has rank %d and no spatial axis", x->v->name, axes + 2);
  else out = fe_op(g, NULL, op, attrs, 1, x);
  return fe_leave(g, &m, out);
}
tn_tensor *tn_max_pool(tn_graph *g, tn_tensor *x, int kernel, int stride, int pad) { return pool(g, "tn_max_pool", "MaxPool", x, kernel, stride, pad); }
tn_tensor *tn_avg_pool(tn_graph *g, tn_tensor *x, int kernel, int stride, int pad) { return pool(g, "tn_avg_pool", "AveragePool", x, kernel, stride, pad); }
