/* cuda_cudnn_graph.c — problems as operation graphs of cuDNN's.
 *
 * A convolution is one operation with pointwise ones behind it. Attention is written in two forms, with engines of their own:
 *
 *   in pieces       s = q k', times scale, masked; m = max s; e = exp(s - m); l = sum e; m + log l; y = (e / l) v
 *   "sdpa" (9.13.1) one operation; the mask (9.21) is a graph of its own, from the scores on to the scores
 *
 * m + log l, which training needs, is what engines know the pattern by, read or not. */
#include "runtime/cuda_cudnn_internal.h"
#include <float.h>
#include <math.h>

enum { FLOAT = 0, INT32 = 4, BOOLEAN = 11 }; /* data types of what is between operations */
enum { ADD = 0, MUL = 1, DIV = 6, SUB = 9, EXP = 13, LOG = 15, RELU = 100, GREATER = 302, NOT_LESS = 303, INDEX = 501, SELECT = 601 };
enum { SUM = 0, MAX = 3 };

static int data_type(tn_dtype t) { return t == TN_BF16 ? 9 : t == TN_F16 ? 2 : FLOAT; }

typedef enum lies { IN_MEMORY, BETWEEN, ON_HOST } lies;

static void *describe(dnn *l, int type, const int64_t *size, const int64_t *stride, int64_t id, lies where) {
  void *d = dnn_make(l, DNN_TENSOR);
  dnn_put_enum(l, d, 901, DNN_T_DATA_TYPE, type);
  dnn_put(l, d, 902, DNN_T_INT64, 4, size);
  dnn_put(l, d, 903, DNN_T_INT64, 4, stride);
  dnn_put_int(l, d, 906, id);
  dnn_put_int(l, d, 900, 16);
  if (where != IN_MEMORY) dnn_put(l, d, where == BETWEEN ? 907 : 908, DNN_T_BOOLEAN, 1, &(bool){true});
  dnn_finish(l, d, "a tensor");
  return d;
}

static void *memory(dnn *l, dnn_graph *g, const rt_dnn_tensor *t, int64_t id) {
  g->id[g->n] = id;
  g->param[g->n] = t->param;
  g->at[g->n++] = t->at * (int64_t)ir_dtype_bytes(t->dtype);
  return describe(l, data_type(t->dtype), t->size, t->stride, id, IN_MEMORY);
}

/* y = op(a, b), or of a alone. */
static void *pointwise_by(dnn *l, void *how, void *a, void *b, void *pick, void *y) {
  void *op = dnn_make(l, DNN_OP_POINTWISE);
  dnn_put_descriptor(l, op, 750, how);
  dnn_put_descriptor(l, op, 751, a);
  if (b) dnn_put_descriptor(l, op, 752, b);
  if (pick) dnn_put_descriptor(l, op, 758, pick);
  dnn_put_descriptor(l, op, 753, y);
  dnn_finish(l, op, "a step's operation");
  return op;
}

static void *graph_of(dnn *l, int n, void **ops) {
  void *g = dnn_make(l, DNN_GRAPH);
  dnn_put(l, g, 801, DNN_T_DESCRIPTOR, n, ops);
  dnn_finish(l, g, "the graph of operations");
  return g;
}

/* ---- convolution ---- */

enum { ID_X = 1, ID_W = 2, ID_OTHER = 10, ID_Y = 20 /* then one for each step */ };

static void *convolution(dnn *l, const rt_dnn_conv *c, void *x, void *w, void *y) {
  void *d = dnn_make(l, DNN_CONVOLUTION), *op = dnn_make(l, DNN_OP_CONV);
  dnn_put_enum(l, d, 100, DNN_T_DATA_TYPE, FLOAT);
  dnn_put_enum(l, d, 101, DNN_T_CONV_MODE, 1); /* cross-correlation */
  dnn_put(l, d, 102, DNN_T_INT64, 2, c->dilation);
  dnn_put(l, d, 103, DNN_T_INT64, 2, c->stride);
  dnn_put(l, d, 104, DNN_T_INT64, 2, c->after);
  dnn_put(l, d, 105, DNN_T_INT64, 2, c->before);
  dnn_put_int(l, d, 106, 2);
  dnn_finish(l, d, "the convolution");
  dnn_put(l, op, 700, DNN_T_FLOAT, 1, &(float){1});
  dnn_put(l, op, 701, DNN_T_FLOAT, 1, &(float){0});
  dnn_put_descriptor(l, op, 702, d);
  dnn_put_descriptor(l, op, 703, w);
  dnn_put_descriptor(l, op, 704, x);
  dnn_put_descriptor(l, op, 705, y);
  dnn_finish(l, op, "the convolution's operation");
  return op;
}

static void *step(dnn *l, dnn_graph *g, const rt_dnn_conv *c, int i, void *from, void *to) {
  bool add = c->steps[i].op == RT_DNN_ADD;
  void *d = dnn_make(l, DNN_POINTWISE);
  dnn_put_enum(l, d, 0, DNN_T_POINTWISE_MODE, add ? ADD : RELU);
  dnn_put_enum(l, d, 1, DNN_T_DATA_TYPE, FLOAT);
  if (!add && isfinite(c->steps[i].top)) dnn_put(l, d, 4, DNN_T_DOUBLE, 1, &c->steps[i].top);
  dnn_finish(l, d, "a step");
  return pointwise_by(l, d, from, add ? memory(l, g, &c->steps[i].other, ID_OTHER + i) : NULL, NULL, to);
}

static void *result(dnn *l, dnn_graph *g, const rt_dnn_conv *c, int steps) {
  if (steps == c->nsteps) return memory(l, g, &c->y, ID_Y + steps);
  return describe(l, FLOAT, c->y.size, c->y.stride, ID_Y + steps, BETWEEN);
}

static void conv_graph(dnn *l, const rt_dnn_conv *c, dnn_graph *g) {
  void *ops[RT_DNN_STEPS + 1], *x = memory(l, g, &c->x, ID_X), *w = memory(l, g, &c->w, ID_W), *at = result(l, g, c, 0);
  ops[0] = convolution(l, c, x, w, at);
  for (int i = 0; i < c->nsteps; i++) {
    void *to = result(l, g, c, i + 1);
    ops[i + 1] = step(l, g, c, i, at, to);
    at = to;
  }
  g->graph = graph_of(l, c->nsteps + 1, ops);
}

/* ---- attention ---- */

enum { ID_Q = 1, ID_K = 2, ID_V = 3, ID_O = 4, ID_SCALE = 5, ID_HIDDEN = 6, ID_TO = 7, ID_FROM = 8, ID_BETWEEN = 20, MAX_OPS = 24 };

typedef struct attention {
  dnn *l;
  const rt_dnn_attention *a;
  dnn_graph *g;
  void *ops[MAX_OPS];
  int nops;
  int64_t id;      /* of the tensor between operations that was made last */
  void *hidden;    /* -inf, once it is there */
} attention;

static void *between(attention *x, int type, bool row) {
  const rt_dnn_attention *a = x->a;
  int64_t keys = row ? 1 : a->k.size[2], size[4] = {a->q.size[0], a->q.size[1], a->q.size[2], keys};
  int64_t stride[4] = {size[1] * size[2] * keys, size[2] * keys, keys, 1};
  return describe(x->l, type, size, stride, x->id = x->id ? x->id + 1 : ID_BETWEEN, BETWEEN);
}

static void *number(attention *x, int64_t id, int type, double v) {
  static const int64_t ones[4] = {1, 1, 1, 1};
  dnn_graph *g = x->g;
  g->id[g->n] = id;
  if (type == INT32) {
    int32_t *at = IR_NEW(x->l->ctx, int32_t);
    *at = (int32_t)v;
    g->host[g->n++] = at;
  } else {
    float *at = IR_NEW(x->l->ctx, float);
    *at = (float)v;
    g->host[g->n++] = at;
  }
  return describe(x->l, type, ones, ones, id, ON_HOST);
}

static void *hidden(attention *x) {
  if (!x->hidden) x->hidden = number(x, ID_HIDDEN, FLOAT, x->l->version < 91000 ? -(double)FLT_MAX : -INFINITY); /* as older engines want it */
  return x->hidden;
}

static void *pointwise(attention *x, int mode, int type, int64_t axis, void *a, void *b, void *pick, void *y) {
  void *d = dnn_make(x->l, DNN_POINTWISE);
  dnn_put_enum(x->l, d, 0, DNN_T_POINTWISE_MODE, mode);
  dnn_put_enum(x->l, d, 1, DNN_T_DATA_TYPE, type);
  if (mode == INDEX) dnn_put_int(x->l, d, 9, axis);
  dnn_finish(x->l, d, "a step");
  x->ops[x->nops++] = pointwise_by(x->l, d, a, b, pick, y);
  return y;
}
static void *score_step(attention *x, int mode, void *a, void *b) { return pointwise(x, mode, FLOAT, 0, a, b, NULL, between(x, FLOAT, false)); }
static void *place(attention *x, int64_t axis, void *scores) { return pointwise(x, INDEX, FLOAT, axis, scores, NULL, NULL, between(x, INT32, false)); }
static void *moved(attention *x, int type, void *place, void *by) { return pointwise(x, ADD, type, 0, place, by, NULL, between(x, type, false)); }
static void *kept(attention *x, int mode, void *a, void *b, void *scores) {
  void *sees = pointwise(x, mode, BOOLEAN, 0, a, b, NULL, between(x, BOOLEAN, false));
  return pointwise(x, SELECT, FLOAT, 0, scores, hidden(x), sees, between(x, FLOAT, false));
}

static void *limit_to(attention *x) { return x->a->to ? number(x, ID_TO, INT32, (double)x->a->to) : NULL; }
static void *limit_from(attention *x) { return number(x, ID_FROM, FLOAT, 1 - (double)x->a->from); }

/* Comparisons of places as engines know them: row + to >= column, column + 1 - from > row, the latter in f32. */
static void *mask_in_pieces(attention *x, void *scores) {
  if (x->a->has_to) {
    void *row = place(x, 2, scores), *column = place(x, 3, scores), *by = limit_to(x);
    scores = kept(x, NOT_LESS, by ? moved(x, INT32, row, by) : row, column, scores);
  }
  if (x->a->has_from) {
    void *row = place(x, 2, scores), *column = place(x, 3, scores);
    scores = kept(x, GREATER, moved(x, FLOAT, column, limit_from(x)), row, scores);
  }
  return scores;
}

static void issue(attention *x, void *op, const char *what) {
  dnn_finish(x->l, op, what);
  x->ops[x->nops++] = op;
}

static void *band(attention *x, int mode, int attribute, void *limit, void *scores) {
  dnn *l = x->l;
  void *op = dnn_make(l, DNN_OP_BAND), *y = between(x, FLOAT, false);
  dnn_put_descriptor(l, op, 3000, scores);
  dnn_put_descriptor(l, op, 3005, hidden(x));
  dnn_put_descriptor(l, op, 3006, y);
  dnn_put_enum(l, op, 3007, DNN_T_POINTWISE_MODE, mode);
  if (limit) dnn_put_descriptor(l, op, attribute, limit);
  issue(x, op, "a mask");
  return y;
}

static void *mask_as_bands(attention *x, void *scores) {
  if (x->a->has_to) scores = band(x, NOT_LESS, 3004, limit_to(x), scores);
  if (x->a->has_from) scores = band(x, GREATER, 3003, limit_from(x), scores);
  return scores;
}

static void *product(attention *x, void *a, void *b, void *y) {
  void *d = dnn_make(x->l, DNN_MATMUL), *op = dnn_make(x->l, DNN_OP_MATMUL);
  dnn_put_enum(x->l, d, 1500, DNN_T_DATA_TYPE, FLOAT);
  dnn_finish(x->l, d, "the product");
  dnn_put_descriptor(x->l, op, 1523, d);
  dnn_put_descriptor(x->l, op, 1520, a);
  dnn_put_descriptor(x->l, op, 1521, b);
  dnn_put_descriptor(x->l, op, 1522, y);
  issue(x, op, "the product's operation");
  return y;
}

static void *of_rows(attention *x, int mode, void *scores) {
  void *d = dnn_make(x->l, DNN_REDUCTION), *op = dnn_make(x->l, DNN_OP_REDUCTION), *y = between(x, FLOAT, true);
  dnn_put_enum(x->l, d, 1600, DNN_T_REDUCTION, mode);
  dnn_put_enum(x->l, d, 1601, DNN_T_DATA_TYPE, FLOAT);
  dnn_finish(x->l, d, "the reduction");
  dnn_put_descriptor(x->l, op, 1612, d);
  dnn_put_descriptor(x->l, op, 1610, scores);
  dnn_put_descriptor(x->l, op, 1611, y);
  issue(x, op, "the reduction's operation");
  return y;
}

static void in_pieces(attention *x) {
  const rt_dnn_attention *a = x->a;
  rt_dnn_tensor turned = a->k;
  turned.size[2] = a->k.size[3], turned.size[3] = a->k.size[2];
  turned.stride[2] = a->k.stride[3], turned.stride[3] = a->k.stride[2];
  void *q = memory(x->l, x->g, &a->q, ID_Q), *k = memory(x->l, x->g, &turned, ID_K), *v = memory(x->l, x->g, &a->v, ID_V), *o = memory(x->l, x->g, &a->y, ID_O);
  void *s = product(x, q, k, between(x, FLOAT, false));
  s = mask_in_pieces(x, score_step(x, MUL, s, number(x, ID_SCALE, FLOAT, a->scale)));
  void *top = of_rows(x, MAX, s), *e = score_step(x, EXP, score_step(x, SUB, s, top), NULL), *sum = of_rows(x, SUM, e);
  void *log = pointwise(x, LOG, FLOAT, 0, sum, NULL, NULL, between(x, FLOAT, true));
  pointwise(x, ADD, FLOAT, 0, top, log, NULL, between(x, FLOAT, true));
  void *weights = pointwise(x, DIV, FLOAT, 0, e, sum, NULL, between(x, data_type(a->q.dtype), false));
  product(x, weights, v, o);
  x->g->graph = graph_of(x->l, x->nops, x->ops);
}

static void as_one(attention *x) {
  dnn *l = x->l;
  const rt_dnn_attention *a = x->a;
  const rt_dnn_tensor *operands[4] = {&a->q, &a->k, &a->v, &a->y};
  void *op = dnn_make(l, DNN_OP_ATTENTION);
  for (int i = 0; i < 4; i++) dnn_put_descriptor(l, op, 2800 + i, memory(l, x->g, operands[i], ID_Q + i));
  dnn_put_descriptor(l, op, 2805, number(x, ID_SCALE, FLOAT, a->scale));
  if (a->has_from || a->has_to) {
    void *scores = between(x, FLOAT, false);
    int64_t first = x->id;
    mask_as_bands(x, scores);
    dnn_put_descriptor(l, op, 2811, graph_of(l, x->nops, x->ops));
    dnn_put_int(l, op, 2812, first);
    dnn_put_int(l, op, 2813, x->id);
  }
  dnn_finish(l, op, "the attention's operation");
  x->g->graph = graph_of(l, 1, &op);
}

/* Known faults: NVIDIA's frontend has no attention for these versions, nor windows before 9.10.2, nor in 9.14.0 those without
 * a bound to the right. */
static bool is_offered(int version, const rt_dnn_attention *a) {
  if (version == 91000 || version == 91001) return false;
  return !a->has_from || (version >= 91002 && (version != 91400 || a->has_to));
}

bool dnn_graph_of(dnn *l, const rt_dnn_problem *p, int i, dnn_graph *g) {
  const rt_dnn_attention *a = &p->attention;
  *g = (dnn_graph){.form = ""};
  if (!p->attends) {
    if (i) return false;
    conv_graph(l, &p->conv, g);
    return !l->status;
  }
  attention x = {.l = l, .a = a, .g = g};
  if (!is_offered(l->version, a) || (i && l->version < (a->has_from || a->has_to ? 92100 : 91301))) return false;
  if (i) g->form = "sdpa ", as_one(&x);
  else in_pieces(&x);
  return !l->status;
}
