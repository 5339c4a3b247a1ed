/* api_layers.c — layers: ops with parameters of their own, named and laid out as PyTorch's. */
#include "frontend/api.h"
#include <math.h>
#include <stdio.h>

/* Glorot's uniform distribution: variance 2 / (fan_in + fan_out). */
static tn_tensor *weight(tn_graph *g, const char *name, const char *part, tn_dtype t, int rank, const int64_t *dims, double fan_in, double fan_out) {
  char room[FE_NAME_ROOM];
  double limit = sqrt(6 / (fan_in + fan_out + 1e-30));
  return fe_param_init(g, fe_sub(room, name, part), t, rank, dims, -limit, limit);
}

static tn_tensor *filled(tn_graph *g, const char *name, const char *part, tn_dtype t, int64_t n, double v) {
  char room[FE_NAME_ROOM];
  return fe_param_init(g, fe_sub(room, name, part), t, 1, &n, v, v);
}

static bool positive(tn_graph *g, int64_t n, const char *what) {
  if (n > 0 && n <= INT64_C(1) << 40) return true;
  fe_error(g, TN_EUSAGE, "%s is %lld", what, (long long)n);
  return false;
}

static bool is_float(tn_graph *g, const tn_tensor *x) {
  if (x && x->v && ir_is_float(x->v->dtype)) return true;
  if (!x) fe_null(g, "x");
  else fe_error(g, TN_EUSAGE, "'%s' has dtype %s; a layer works on floats", tn_name(x), ir_dtype_name(tn_type(x)));
  return false;
}

/* x W^T + b over the last axis; the parts are NAME.weight and NAME.bias, the result is named NAME. */
static tn_tensor *dense(tn_graph *g, tn_tensor *x, int64_t units, const char *name) {
  if (!is_float(g, x)) return NULL;
  int64_t in = fe_extent(g, x, -1, "x");
  if (in < 0 || !positive(g, units, "units")) return NULL;
  tn_dtype t = x->v->dtype;
  tn_tensor *w = weight(g, name, "weight", t, 2, (int64_t[]){units, in}, (double)in, (double)units);
  tn_tensor *b = filled(g, name, "bias", t, units, 0);
  char room[2][FE_NAME_ROOM];
  tn_tensor *wt = fe_op(g, fe_sub(room[0], name, "weight_t"), "Transpose", "perm=[1,0]", 1, w);
  return fe_op(g, name, "Add", NULL, 2, fe_op(g, fe_sub(room[1], name, "matmul"), "MatMul", NULL, 2, x, wt), b);
}

tn_tensor *tn_dense(tn_graph *g, tn_tensor *x, int64_t units, const char *name) {
  if (!fe_alive(g)) return NULL;
  fe_mark m = fe_enter(g, "tn_dense");
  char room[FE_NAME_ROOM];
  return fe_leave(g, &m, dense(g, x, units, fe_layer_name(g, room, name, "dense")));
}

/* ---- convolution ---- */

static size_t put_list(char *at, size_t room, const char *word, int n, const int *v, int twice) {
  size_t k = (size_t)snprintf(at, room, "%s=[", word);
  for (int r = 0; r < twice; r++)
    for (int i = 0; i < n; i++) k += (size_t)snprintf(at + k, room - k, "%s%d", r + i ? "," : "", v[i]);
  return k + (size_t)snprintf(at + k, room - k, "] ");
}

static tn_tensor *conv(tn_graph *g, tn_tensor *x, int64_t channels, const tn_conv_options *o, const char *name) {
  static const tn_conv_options none;
  if (!o) o = &none;
  if (!is_float(g, x)) return NULL;
  int axes = x->v->rank - 2, kernel[3], stride[3], dilation[3], groups = o->groups ? o->groups : 1;
  if (axes < 1 || axes > 3) return fe_error(g, TN_EUSAGE, "'%s' has rank %d; [N, C, one to three spatial axes] is wanted", x->v->name, x->v->rank), NULL;
  int64_t in = fe_extent(g, x, 1, "x"), dims[5] = {channels, 0};
  if (in < 0 || !positive(g, channels, "channels")) return NULL;
  if (groups < 1 || in % groups || channels % groups)
    return fe_error(g, TN_EUSAGE, "%d groups do not divide %lld input and %lld output channels", groups, (long long)in, (long long)channels), NULL;
  dims[1] = in / groups;
  double taps = 1;
  for (int i = 0; i < axes; i++) {
    kernel[i] = o->kernel[i] ? o->kernel[i] : 1;
    stride[i] = o->stride[i] ? o->stride[i] : 1;
    dilation[i] = o->dilation[i] ? o->dilation[i] : 1;
    if (kernel[i] < 0) return fe_error(g, TN_EUSAGE, "kernel %d on axis %d", kernel[i], i), NULL;
    dims[2 + i] = kernel[i];
    taps *= kernel[i];
  }
  tn_tensor *w = weight(g, name, "weight", x->v->dtype, 2 + axes, dims, (double)dims[1] * taps, (double)channels / groups * taps);
  char attrs[512];
  size_t n = put_list(attrs, sizeof attrs, "kernel_shape", axes, kernel, 1);
  n += put_list(attrs + n, sizeof attrs - n, "strides", axes, stride, 1);
  n += put_list(attrs + n, sizeof attrs - n, "pads", axes, o->pad, 2);
  n += put_list(attrs + n, sizeof attrs - n, "dilations", axes, dilation, 1);
  snprintf(attrs + n, sizeof attrs - n, "group=%d", groups);
  if (o->no_bias) return fe_op(g, name, "Conv", attrs, 2, x, w);
  return fe_op(g, name, "Conv", attrs, 3, x, w, filled(g, name, "bias", x->v->dtype, channels, 0));
}

tn_tensor *tn_conv(tn_graph *g, tn_tensor *x, int64_t channels, const tn_conv_options *o, const char *name) {
  if (!fe_alive(g)) return NULL;
  fe_mark m = fe_enter(g, "tn_conv");
  char room[FE_NAME_ROOM];
  return fe_leave(g, &m, conv(g, x, channels, o, fe_layer_name(g, room, name, "conv")));
}

tn_tensor *tn_conv2d(tn_graph *g, tn_tensor *x, int64_t channels, int kernel, int stride, int pad, const char *name) {
  if (!fe_alive(g)) return NULL;
  fe_mark m = fe_enter(g, "tn_conv2d");
  tn_conv_options o = {.kernel = {kernel, kernel}, .stride = {stride, stride}, .pad = {pad, pad}};
  tn_tensor *y = NULL;
  if (x && x->v && x->v->rank != 4) fe_error(g, TN_EUSAGE, "'%s' has rank %d; [N, C, H, W] is wanted", x->v->name, x->v->rank);
  else y = tn_conv(g, x, channels, &o, name);
  return fe_leave(g, &m, y);
}

/* ---- normalisation, embedding ---- */

/* By the statistics of the batch, which move the running ones: 0.9 of them stay. */
static tn_tensor *batch_norm_step(tn_graph *g, const char *name, const char *attrs, tn_tensor *in[5]) {
  tn_tensor *out[3];
  if (fe_node(g, name, "BatchNormalization", attrs, 5, in, 3, out) != TN_OK) return NULL;
  return tn_update(g, in[3], out[1]) == TN_OK && tn_update(g, in[4], out[2]) == TN_OK ? out[0] : NULL;
}

tn_tensor *tn_batch_norm(tn_graph *g, tn_tensor *x, double epsilon, const char *name) {
  if (!fe_alive(g)) return NULL;
  fe_mark m = fe_enter(g, "tn_batch_norm");
  char room[FE_NAME_ROOM], attrs[64];
  name = fe_layer_name(g, room, name, "batch_norm");
  tn_tensor *y = NULL;
  int64_t c = is_float(g, x) ? fe_extent(g, x, 1, "x") : -1;
  if (c >= 0) {
    tn_dtype t = x->v->dtype;
    snprintf(attrs, sizeof attrs, "epsilon=%.17g%s", epsilon, g->training ? " training_mode=1" : "");
    tn_tensor *scale = filled(g, name, "weight", t, c, 1), *bias = filled(g, name, "bias", t, c, 0);
    tn_tensor *mean = filled(g, name, "running_mean", t, c, 0), *var = filled(g, name, "running_var", t, c, 1);
    if (mean && var) mean->frozen = var->frozen = true;
    if (!g->training) y = fe_op(g, name, "BatchNormalization", attrs, 5, x, scale, bias, mean, var);
    else y = batch_norm_step(g, name, attrs, (tn_tensor *[]){x, scale, bias, mean, var});
  }
  return fe_leave(g, &m, y);
}

tn_tensor *tn_layer_norm(tn_graph *g, tn_tensor *x, double epsilon, const char *name) {
  if (!fe_alive(g)) return NULL;
  fe_mark m = fe_enter(g, "tn_layer_norm");
  char room[FE_NAME_ROOM], attrs[64];
  name = fe_layer_name(g, room, name, "layer_norm");
  tn_tensor *y = NULL;
  int64_t c = is_float(g, x) ? fe_extent(g, x, -1, "x") : -1;
  if (c >= 0) {
    snprintf(attrs, sizeof attrs, "axis=-1 epsilon=%.17g", epsilon);
    tn_tensor *scale = filled(g, name, "weight", x->v->dtype, c, 1), *bias = filled(g, name, "bias", x->v->dtype, c, 0);
    y = fe_op(g, name, "LayerNormalization", attrs, 3, x, scale, bias);
  }
  return fe_leave(g, &m, y);
}

tn_tensor *tn_embedding(tn_graph *g, tn_tensor *ids, int64_t count, int64_t width, const char *name) {
  if (!fe_alive(g)) return NULL;
  fe_mark m = fe_enter(g, "tn_embedding");
  char room[FE_NAME_ROOM];
  name = fe_layer_name(g, room, name, "embedding");
  tn_tensor *y = NULL;
  if (positive(g, count, "count") && positive(g, width, "width"))
    y = fe_op(g, name, "Gather", "axis=0", 2, weight(g, name, "weight", TN_F32, 2, (int64_t[]){count, width}, (double)count, (double)width), ids);
  return fe_leave(g, &m, y);
}

/* ---- attention ---- */

/* [N, T, E] -> [N, heads, T, E / heads], or with `last` [N, heads, E / heads, T]. */
static tn_tensor *split_heads(tn_graph *g, tn_tensor *x, int64_t heads, int64_t width, bool last) {
  x = fe_op(g, NULL, "Reshape", NULL, 2, x, fe_ints(g, 4, (int64_t[]){0, 0, heads, width}));
  return fe_op(g, NULL, "Transpose", last ? "perm=[0,2,3,1]" : "perm=[0,2,1,3]", 1, x);
}

static tn_tensor *attention(tn_graph *g, tn_tensor *query, tn_tensor *key, tn_tensor *value, int heads, tn_tensor *mask, const char *name) {
  if (!mask) return fe_null(g, "the mask (tn_omit() stands for none)"), NULL;
  if (!is_float(g, query) || !is_float(g, key) || !is_float(g, value)) return NULL;
  int64_t e = fe_extent(g, query, -1, "query");
  if (e < 0) return NULL;
  if (heads < 1 || e % heads) return fe_error(g, TN_EUSAGE, "%d heads do not divide the width %lld", heads, (long long)e), NULL;
  if (query->v->rank != 3 || key->v->rank != 3 || value->v->rank != 3) return fe_error(g, TN_EUSAGE, "query, key and value must have rank 3"), NULL;
  char room[3][FE_NAME_ROOM];
  tn_tensor *q = dense(g, query, e, fe_sub(room[0], name, "query"));
  tn_tensor *k = dense(g, key, e, fe_sub(room[1], name, "key"));
  tn_tensor *v = dense(g, value, e, fe_sub(room[2], name, "value"));
  int64_t d = e / heads;
  q = fe_op(g, NULL, "Mul", NULL, 2, split_heads(g, q, heads, d, false), tn_scalar(g, query->v->dtype, 1 / sqrt((double)d)));
  tn_tensor *scores = fe_op(g, NULL, "MatMul", NULL, 2, q, split_heads(g, k, heads, d, true));
  if (mask != tn_omit()) scores = fe_op(g, NULL, "Add", NULL, 2, scores, mask);
  tn_tensor *p = fe_op(g, NULL, "Softmax", "axis=-1", 1, scores);
  tn_tensor *y = fe_op(g, NULL, "MatMul", NULL, 2, p, split_heads(g, v, heads, d, false));
  y = fe_op(g, NULL, "Transpose", "perm=[0,2,1,3]", 1, y);
  return fe_op(g, name, "Reshape", NULL, 2, y, fe_ints(g, 3, (int64_t[]){0, 0, e}));
}

tn_tensor *tn_attention(tn_graph *g, tn_tensor *query, tn_tensor *key, tn_tensor *value, int heads, tn_tensor *mask, const char *name) {
  if (!fe_alive(g)) return NULL;
  fe_mark m = fe_enter(g, "tn_attention");
  char room[FE_NAME_ROOM];
  return fe_leave(g, &m, attention(g, query, key, value, heads, mask, fe_layer_name(g, room, name, "attention")));
}

/* ---- recurrent layers ---- */

/* PyTorch stacks the gates in one order along axis 0, ONNX in another and with a leading axis for
 * directions: [n * hidden, ...] -> [1, n * hidden, ...] with gate order[k] at place k. */
static tn_tensor *gates(tn_graph *g, tn_tensor *w, int64_t hidden, int n, const int *order) {
  tn_tensor *part[4];
  for (int k = 0; k < n; k++) part[k] = tn_slice(g, w, 0, order[k] * hidden, (order[k] + 1) * hidden);
  return tn_concat(g, n, part, 0);
}

static tn_tensor *direction(tn_graph *g, tn_tensor *w) { return fe_op(g, NULL, "Unsqueeze", NULL, 2, w, fe_ints(g, 1, (int64_t[]){0})); }

static tn_tensor *recurrent(tn_graph *g, const char *op, int n, const int *order, const char *more, tn_tensor *x, int64_t hidden, const char *name) {
  if (!is_float(g, x)) return NULL;
  if (x->v->rank != 3) return fe_error(g, TN_EUSAGE, "'%s' has rank %d; [N, T, F] is wanted", x->v->name, x->v->rank), NULL;
  int64_t in = fe_extent(g, x, 2, "x"), all = n * hidden;
  if (in < 0 || !positive(g, hidden, "hidden")) return NULL;
  tn_dtype t = x->v->dtype;
  tn_tensor *wi = weight(g, name, "weight_ih_l0", t, 2, (int64_t[]){all, in}, (double)in, (double)hidden);
  tn_tensor *wh = weight(g, name, "weight_hh_l0", t, 2, (int64_t[]){all, hidden}, (double)hidden, (double)hidden);
  tn_tensor *b[2] = {filled(g, name, "bias_ih_l0", t, all, 0), filled(g, name, "bias_hh_l0", t, all, 0)};
  for (int i = 0; i < 2; i++) b[i] = gates(g, b[i], hidden, n, order);
  wi = direction(g, gates(g, wi, hidden, n, order));
  wh = direction(g, gates(g, wh, hidden, n, order));
  tn_tensor *bias = direction(g, tn_concat(g, 2, b, 0));
  char attrs[80];
  snprintf(attrs, sizeof attrs, "hidden_size=%lld%s", (long long)hidden, more);
  tn_tensor *steps = fe_op(g, NULL, "Transpose", "perm=[1,0,2]", 1, x);
  tn_tensor *y = fe_op(g, NULL, op, attrs, 4, steps, wi, wh, bias); /* [T, 1, N, H] */
  y = fe_op(g, NULL, "Squeeze", NULL, 2, y, fe_ints(g, 1, (int64_t[]){1}));
  return fe_op(g, name, "Transpose", "perm=[1,0,2]", 1, y);
}

tn_tensor *tn_lstm(tn_graph *g, tn_tensor *x, int64_t hidden, const char *name) {
  if (!fe_alive(g)) return NULL;
  static const int order[] = {0, 3, 1, 2}; /* i f g o -> i o f c */
  fe_mark m = fe_enter(g, "tn_lstm");
  char room[FE_NAME_ROOM];
  return fe_leave(g, &m, recurrent(g, "LSTM", 4, order, "", x, hidden, fe_layer_name(g, room, name, "lstm")));
}

tn_tensor *tn_gru(tn_graph *g, tn_tensor *x, int64_t hidden, const char *name) {
  if (!fe_alive(g)) return NULL;
  static const int order[] = {1, 0, 2}; /* r z n -> z r h */
  fe_mark m = fe_enter(g, "tn_gru");
  char room[FE_NAME_ROOM];
  return fe_leave(g, &m, recurrent(g, "GRU", 3, order, " linear_before_reset=1", x, hidden, fe_layer_name(g, room, name, "gru")));
}

/* ---- sequential style ---- */

tn_tensor *tn_sequential(tn_graph *g, tn_tensor *x, int n, const tn_layer layers[], const char *name) {
  if (!fe_alive(g)) return NULL;
  fe_mark m = fe_enter(g, "tn_sequential");
  if (!x) fe_null(g, "x");
  for (int i = 0; i < n && x; i++) {
    char room[FE_NAME_ROOM], number[16];
    snprintf(number, sizeof number, "%d", i);
    if (layers[i].fn) x = layers[i].fn(g, x, &layers[i], fe_sub(room, name ? name : "", number));
    else x = NULL, fe_error(g, TN_EUSAGE, "layer %d has no function", i);
  }
  return fe_leave(g, &m, x);
}

static double eps(const tn_layer *l) { return l->epsilon > 0 ? l->epsilon : 1e-5; }
static int or_one(int v) { return v ? v : 1; }

tn_tensor *tn_layer_dense(tn_graph *g, tn_tensor *x, const tn_layer *l, const char *name) { return tn_dense(g, x, l->units, name); }
tn_tensor *tn_layer_conv(tn_graph *g, tn_tensor *x, const tn_layer *l, const char *name) {
  int k = l->kernel, s = l->stride, p = l->pad;
  return tn_conv(g, x, l->units, &(tn_conv_options){.kernel = {k, k, k}, .stride = {s, s, s}, .pad = {p, p, p}}, name);
}
tn_tensor *tn_layer_batch_norm(tn_graph *g, tn_tensor *x, const tn_layer *l, const char *name) { return tn_batch_norm(g, x, eps(l), name); }
tn_tensor *tn_layer_layer_norm(tn_graph *g, tn_tensor *x, const tn_layer *l, const char *name) { return tn_layer_norm(g, x, eps(l), name); }
tn_tensor *tn_layer_lstm(tn_graph *g, tn_tensor *x, const tn_layer *l, const char *name) { return tn_lstm(g, x, l->units, name); }
tn_tensor *tn_layer_gru(tn_graph *g, tn_tensor *x, const tn_layer *l, const char *name) { return tn_gru(g, x, l->units, name); }

/* Those without parameters are named by themselves. */
#define PLAIN(layer, ...)                                                                   \
  tn_tensor *layer(tn_graph *g, tn_tensor *x, const tn_layer *l, const char *name) {        \
    (void)l, (void)name;                                                                    \
    return __VA_ARGS__;                                                                     \
  }
/* A stride of 0 is that of pooling without overlap. */
PLAIN(tn_layer_max_pool, tn_max_pool(g, x, or_one(l->kernel), l->stride ? l->stride : or_one(l->kernel), l->pad))
PLAIN(tn_layer_avg_pool, tn_avg_pool(g, x, or_one(l->kernel), l->stride ? l->stride : or_one(l->kernel), l->pad))
PLAIN(tn_layer_global_avg_pool, tn_global_avg_pool(g, x))
PLAIN(tn_layer_relu, tn_relu(g, x))
PLAIN(tn_layer_gelu, tn_gelu(g, x))
PLAIN(tn_layer_sigmoid, tn_sigmoid(g, x))
PLAIN(tn_layer_tanh, tn_tanh(g, x))
PLAIN(tn_layer_softmax, tn_softmax(g, x, -1))
PLAIN(tn_layer_flatten, tn_flatten(g, x, 1))
