/* Layers of the C API against plain loops in double, with PyTorch's parameter names and layouts. */
#include "frontend/tenon.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static tn_ctx *ctx;
static tn_graph *g;
static void setup(void) {
  setenv("TENON_DB", "none", 1); /* default schedules */
  ctx = tn_ctx_new(NULL);
  g = tn_graph_new(ctx, "layers");
}
static void teardown(void) { tn_ctx_free(ctx); }
TestSuite(layers, .init = setup, .fini = teardown);

#define DIMS(...) (int64_t[]){__VA_ARGS__}
enum { ROOM = 4096 };
static float x[ROOM], y[ROOM], out[ROOM];
static double want[ROOM];

static void fill(float *p, int n, unsigned seed) {
  for (int i = 0; i < n; i++) {
    seed = seed * 1664525u + 1013904223u;
    p[i] = (float)(seed >> 8) / (1 << 23) - 1;
  }
}

/* The parameter, which gets random data when `seed` is not 0. */
static const float *param(const char *name, unsigned seed) {
  tn_tensor *t = tn_find(g, name);
  cr_assert(t, "there is no %s", name);
  static float data[ROOM];
  int n = (int)(tn_bytes(t) / 4);
  cr_assert(n <= ROOM);
  fill(data, n, seed);
  if (strstr(name, "running_var"))
    for (int i = 0; i < n; i++) data[i] = fabsf(data[i]) + 0.5f;
  if (seed) cr_assert_eq(tn_param_set(t, data), TN_OK);
  return tn_data(t);
}

static void check(tn_tensor *in, const float *data, tn_tensor *result, int n) {
  cr_assert(result, "%s", tn_error(ctx));
  cr_assert_eq(tn_bytes(result), 4 * n, "%lld bytes", (long long)tn_bytes(result));
  tn_output(g, NULL, result);
  tn_module *m = tn_compile(g, NULL, 0, NULL);
  cr_assert(m, "%s", tn_error(ctx));
  tn_status s = tn_run(m, 2, (tn_binding[]){{in, (void *)data}, {result, out}});
  cr_assert_eq(s, TN_OK, "%s", tn_run_error());
  for (int i = 0; i < n; i++)
    cr_assert_float_eq(out[i], want[i], 2e-5 * (1 + fabs(want[i])), "element %d: %g, should be %g", i, out[i], want[i]);
}

Test(layers, dense_of_any_rank) {
  fill(x, 24, 1);
  tn_tensor *in = tn_input(g, "x", TN_F32, 3, DIMS(2, 3, 4)), *r = tn_dense(g, in, 5, "fc");
  cr_assert_str_eq(tn_name(r), "fc");
  const float *w = param("fc.weight", 7), *b = param("fc.bias", 8);
  for (int i = 0; i < 6; i++)
    for (int o = 0; o < 5; o++) {
      want[i * 5 + o] = b[o];
      for (int k = 0; k < 4; k++) want[i * 5 + o] += (double)x[i * 4 + k] * w[o * 4 + k];
    }
  check(in, x, r, 30);
}

static void conv_case(int groups, int stride, int dilation, int pad) {
  enum { N = 2, C = 4, H = 7, W = 6, O = 6, R = 3, S = 2 };
  setup();
  tn_tensor *in = tn_input(g, "x", TN_F32, 4, DIMS(N, C, H, W));
  tn_conv_options o = {.kernel = {R, S}, .stride = {stride, 1}, .pad = {pad, 0}, .dilation = {dilation, dilation}, .groups = groups};
  tn_tensor *r = tn_conv(g, in, O, &o, "c");
  cr_assert(r, "%s", tn_error(ctx));
  const float *w = param("c.weight", 3), *b = param("c.bias", 4);
  int oh = (H + 2 * pad - dilation * (R - 1) - 1) / stride + 1, ow = W - dilation * (S - 1), per = C / groups, n = 0;
  fill(x, N * C * H * W, 5);
  for (int i = 0; i < N; i++)
    for (int k = 0; k < O; k++)
      for (int p = 0; p < oh; p++)
        for (int q = 0; q < ow; q++) {
          double v = b[k];
          for (int c = 0; c < per; c++)
            for (int a = 0; a < R; a++)
              for (int d = 0; d < S; d++) {
                int h = p * stride + a * dilation - pad, ww = q + d * dilation;
                if (h < 0 || h >= H) continue;
                v += (double)x[((i * C + k / (O / groups) * per + c) * H + h) * W + ww] * w[((k * per + c) * R + a) * S + d];
              }
          want[n++] = v;
        }
  check(in, x, r, n);
  teardown();
}

Test(layers, convolution) {
  teardown();
  conv_case(1, 1, 1, 1);
  conv_case(2, 2, 1, 0);
  conv_case(1, 1, 2, 2);
  setup();
}

Test(layers, convolution_of_one_and_three_axes) {
  tn_tensor *in = tn_input(g, "x", TN_F32, 3, DIMS(1, 2, 5));
  tn_tensor *r = tn_conv(g, in, 1, &(tn_conv_options){.kernel = {3}, .no_bias = 1}, "c");
  cr_assert_null(tn_find(g, "c.bias"));
  const float *w = param("c.weight", 3);
  fill(x, 10, 1);
  for (int i = 0; i < 3; i++) {
    want[i] = 0;
    for (int c = 0; c < 2; c++)
      for (int k = 0; k < 3; k++) want[i] += (double)x[c * 5 + i + k] * w[c * 3 + k];
  }
  check(in, x, r, 3);
  tn_tensor *cube = tn_conv(g, tn_input(g, "z", TN_F32, 5, DIMS(1, 2, 4, 5, 6)), 3, &(tn_conv_options){.kernel = {2, 2, 2}, .stride = {2, 1, 1}}, NULL);
  int64_t dims[TN_MAX_RANK];
  cr_assert_eq(tn_shape(cube, dims), 5);
  cr_assert(dims[1] == 3 && dims[2] == 2 && dims[3] == 4 && dims[4] == 5);
}

Test(layers, pools) {
  tn_tensor *in = tn_input(g, "x", TN_F32, 4, DIMS(1, 2, 5, 5));
  tn_tensor *max = tn_max_pool(g, in, 3, 2, 1), *avg = tn_avg_pool(g, in, 3, 2, 1), *all = tn_global_avg_pool(g, in);
  fill(x, 50, 9);
  tn_output(g, NULL, max);
  tn_output(g, NULL, avg);
  float m[18], a[18];
  tn_output(g, NULL, all);
  tn_module *mod = tn_compile(g, NULL, 0, NULL);
  cr_assert(mod, "%s", tn_error(ctx));
  cr_assert_eq(tn_run(mod, 4, (tn_binding[]){{in, x}, {max, m}, {avg, a}, {all, y}}), TN_OK);
  for (int c = 0; c < 2; c++) {
    double total = 0;
    for (int i = 0; i < 25; i++) total += x[25 * c + i] / 25;
    cr_assert_float_eq(y[c], total, 1e-6);
    for (int p = 0; p < 3; p++)
      for (int q = 0; q < 3; q++) {
        double top = -INFINITY, sum = 0;
        int n = 0;
        for (int i = 2 * p - 1; i < 2 * p + 2; i++)
          for (int j = 2 * q - 1; j < 2 * q + 2; j++)
            if (i >= 0 && i < 5 && j >= 0 && j < 5) {
              double v = x[25 * c + 5 * i + j];
              top = v > top ? v : top;
              sum += v;
              n++;
            }
        cr_assert_float_eq(m[9 * c + 3 * p + q], top, 1e-6);
        cr_assert_float_eq(a[9 * c + 3 * p + q], sum / n, 1e-6);
      }
  }
}

Test(layers, batch_norm) {
  tn_tensor *in = tn_input(g, "x", TN_F32, 3, DIMS(2, 3, 4)), *r = tn_batch_norm(g, in, 1e-3, "bn");
  cr_assert_eq(param("bn.running_var", 0)[2], 1);
  const float *w = param("bn.weight", 1), *b = param("bn.bias", 2), *mean = param("bn.running_mean", 3), *var = param("bn.running_var", 4);
  fill(x, 24, 5);
  for (int i = 0; i < 24; i++) {
    int c = i / 4 % 3;
    want[i] = (x[i] - mean[c]) / sqrt(var[c] + 1e-3) * w[c] + b[c];
  }
  check(in, x, r, 24);
}

Test(layers, layer_norm) {
  tn_tensor *in = tn_input(g, "x", TN_F32, 2, DIMS(3, 8)), *r = tn_layer_norm(g, in, 1e-5, "ln");
  const float *w = param("ln.weight", 1), *b = param("ln.bias", 2);
  fill(x, 24, 5);
  for (int i = 0; i < 3; i++) {
    double mean = 0, var = 0;
    for (int k = 0; k < 8; k++) mean += x[8 * i + k] / 8.0;
    for (int k = 0; k < 8; k++) var += (x[8 * i + k] - mean) * (x[8 * i + k] - mean) / 8;
    for (int k = 0; k < 8; k++) want[8 * i + k] = (x[8 * i + k] - mean) / sqrt(var + 1e-5) * w[k] + b[k];
  }
  check(in, x, r, 24);
}

Test(layers, embedding) {
  tn_tensor *in = tn_input(g, "ids", TN_I64, 2, DIMS(2, 2)), *r = tn_embedding(g, in, 10, 3, "e");
  const float *w = param("e.weight", 1);
  int64_t ids[4] = {3, 9, 0, 3};
  for (int i = 0; i < 12; i++) want[i] = w[ids[i / 3] * 3 + i % 3];
  check(in, (const float *)ids, r, 12);
}

static void project(const float *from, const char *name, int rows, int in, int units, double *to) {
  char part[64];
  snprintf(part, sizeof part, "%s.weight", name);
  const float *w = param(part, (unsigned)strlen(name) * 31);
  snprintf(part, sizeof part, "%s.bias", name);
  const float *b = param(part, (unsigned)strlen(name) * 37);
  for (int i = 0; i < rows; i++)
    for (int o = 0; o < units; o++) {
      to[i * units + o] = b[o];
      for (int k = 0; k < in; k++) to[i * units + o] += (double)from[i * in + k] * w[o * in + k];
    }
}

Test(layers, attention) {
  enum { N = 2, T = 3, E = 8, HEADS = 2, D = E / HEADS };
  tn_tensor *in = tn_input(g, "x", TN_F32, 3, DIMS(N, T, E));
  static const float mask[N * T] = {0, 0, -1e4f, 0, 0, 0};
  tn_tensor *m = tn_const(g, "mask", TN_F32, 4, DIMS(N, 1, 1, T), mask);
  tn_tensor *r = tn_attention(g, in, in, in, HEADS, m, "att");
  static double q[N * T * E], k[N * T * E], v[N * T * E];
  fill(x, N * T * E, 5);
  project(x, "att.query", N * T, E, E, q);
  project(x, "att.key", N * T, E, E, k);
  project(x, "att.value", N * T, E, E, v);
  for (int n = 0; n < N; n++)
    for (int h = 0; h < HEADS; h++)
      for (int t = 0; t < T; t++) {
        double p[T], top = -INFINITY, sum = 0;
        for (int s = 0; s < T; s++) {
          p[s] = 0;
          for (int d = 0; d < D; d++) p[s] += q[(n * T + t) * E + h * D + d] * k[(n * T + s) * E + h * D + d];
          p[s] = p[s] / sqrt(D) + mask[n * T + s];
          top = p[s] > top ? p[s] : top;
        }
        for (int s = 0; s < T; s++) sum += p[s] = exp(p[s] - top);
        for (int d = 0; d < D; d++) {
          double o = 0;
          for (int s = 0; s < T; s++) o += p[s] / sum * v[(n * T + s) * E + h * D + d];
          want[(n * T + t) * E + h * D + d] = o;
        }
      }
  check(in, x, r, N * T * E);
}

/* Heads that share keys, each query seeing those up to its own place: the ONNX operation. */
Test(layers, causal_attention) {
  enum { T = 20, D = 8, HEADS = 4, GROUPS = 2, ALL = (HEADS + 2 * GROUPS) * D };
  tn_tensor *in = tn_input(g, "x", TN_F32, 3, DIMS(1, T, ALL));
  tn_tensor *parts[3] = {tn_slice(g, in, 2, 0, HEADS * D), tn_slice(g, in, 2, HEADS * D, (HEADS + GROUPS) * D), tn_slice(g, in, 2, (HEADS + GROUPS) * D, ALL)};
  tn_tensor *r = tn_op(g, "Attention", 3, parts, "is_causal=1, q_num_heads=4, kv_num_heads=2");
  fill(x, T * ALL, 11);
  for (int h = 0; h < HEADS; h++)
    for (int t = 0; t < T; t++) {
      const float *q = x + t * ALL + h * D;
      double p[T], sum = 0;
      for (int s = 0; s <= t; s++) {
        p[s] = 0;
        for (int d = 0; d < D; d++) p[s] += q[d] * x[s * ALL + (HEADS + h / 2) * D + d];
        sum += p[s] = exp(p[s] / sqrt(D));
      }
      for (int d = 0; d < D; d++) {
        double o = 0;
        for (int s = 0; s <= t; s++) o += p[s] / sum * x[s * ALL + (HEADS + GROUPS + h / 2) * D + d];
        want[t * HEADS * D + h * D + d] = o;
      }
    }
  check(in, x, r, T * HEADS * D);
}

static double sigmoid(double v) { return 1 / (1 + exp(-v)); }

/* W[row] . a + U[row] . h + both biases, or the two sums apart. */
static void gate_sums(const char *name, int gates, int in, int hidden, const float *a, const double *h, double *wx, double *uh) {
  char part[64];
  const float *p[4];
  static const char *const words[] = {"weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"};
  for (int i = 0; i < 4; i++) {
    snprintf(part, sizeof part, "%s.%s", name, words[i]);
    p[i] = param(part, 0);
  }
  for (int i = 0; i < gates * hidden; i++) {
    wx[i] = p[2][i], uh[i] = p[3][i];
    for (int k = 0; k < in; k++) wx[i] += (double)p[0][i * in + k] * a[k];
    for (int k = 0; k < hidden; k++) uh[i] += (double)p[1][i * hidden + k] * h[k];
  }
}

static void seed_all(void) {
  tn_tensor *p[8];
  int n = tn_params(g, 8, p);
  for (int i = 0; i < n && i < 8; i++) param(tn_name(p[i]), 11 * (unsigned)i + 5);
}

enum { RN = 2, RT = 4, RF = 3, RH = 5 };

static bool missing_op(const tn_tensor *r, const char *op) { return !r && strstr(tn_error(ctx), "unknown op") && strstr(tn_error(ctx), op); }

Test(layers, lstm) {
  tn_tensor *in = tn_input(g, "x", TN_F32, 3, DIMS(RN, RT, RF)), *r = tn_lstm(g, in, RH, "rnn");
  if (missing_op(r, "LSTM")) cr_skip("no LSTM yet");
  cr_assert(r, "%s", tn_error(ctx));
  seed_all();
  fill(x, RN * RT * RF, 4);
  for (int n = 0; n < RN; n++) {
    double h[RH] = {0}, c[RH] = {0}, a[4 * RH], b[4 * RH];
    for (int t = 0; t < RT; t++) {
      gate_sums("rnn", 4, RF, RH, x + (n * RT + t) * RF, h, a, b);
      for (int j = 0; j < RH; j++) {
        double i = sigmoid(a[j] + b[j]), f = sigmoid(a[RH + j] + b[RH + j]), u = tanh(a[2 * RH + j] + b[2 * RH + j]);
        c[j] = f * c[j] + i * u;
        h[j] = sigmoid(a[3 * RH + j] + b[3 * RH + j]) * tanh(c[j]);
        want[(n * RT + t) * RH + j] = h[j];
      }
    }
  }
  check(in, x, r, RN * RT * RH);
}

Test(layers, gru) {
  tn_tensor *in = tn_input(g, "x", TN_F32, 3, DIMS(RN, RT, RF)), *r = tn_gru(g, in, RH, "rnn");
  if (missing_op(r, "GRU")) cr_skip("no GRU yet");
  cr_assert(r, "%s", tn_error(ctx));
  seed_all();
  fill(x, RN * RT * RF, 4);
  for (int n = 0; n < RN; n++) {
    double h[RH] = {0}, a[3 * RH], b[3 * RH];
    for (int t = 0; t < RT; t++) {
      gate_sums("rnn", 3, RF, RH, x + (n * RT + t) * RF, h, a, b);
      for (int j = 0; j < RH; j++) {
        double rr = sigmoid(a[j] + b[j]), z = sigmoid(a[RH + j] + b[RH + j]), u = tanh(a[2 * RH + j] + rr * b[2 * RH + j]);
        h[j] = (1 - z) * u + z * h[j];
        want[(n * RT + t) * RH + j] = h[j];
      }
    }
  }
  check(in, x, r, RN * RT * RH);
}

static tn_tensor *doubled(tn_graph *graph, tn_tensor *t, const tn_layer *l, const char *name) {
  (void)name;
  return tn_mul(graph, t, tn_scalar(graph, TN_F32, *(const double *)l->options));
}

Test(layers, sequential) {
  double two = 2;
  tn_layer net[] = {{tn_layer_conv, .units = 4, .kernel = 3, .pad = 1}, {.fn = tn_layer_batch_norm}, {.fn = tn_layer_relu},
                    {tn_layer_max_pool, .kernel = 2}, {tn_layer_avg_pool, .kernel = 2, .stride = 1}, {doubled, .options = &two},
                    {.fn = tn_layer_flatten}, {tn_layer_dense, .units = 3}, {tn_layer_layer_norm, .epsilon = 1e-3},
                    {.fn = tn_layer_gelu}, {.fn = tn_layer_sigmoid}, {.fn = tn_layer_tanh}, {.fn = tn_layer_softmax}};
  tn_tensor *in = tn_input(g, "x", TN_F32, 4, DIMS(2, 3, 8, 8));
  tn_tensor *r = tn_sequential(g, in, (int)(sizeof net / sizeof *net), net, "net");
  cr_assert(r, "%s", tn_error(ctx));
  cr_assert(tn_find(g, "net.0.weight") && tn_find(g, "net.1.running_mean") && tn_find(g, "net.7.bias") && tn_find(g, "net.8.weight"));
  tn_output(g, "y", r);
  tn_module *m = tn_compile(g, NULL, 0, NULL);
  cr_assert(m, "%s", tn_error(ctx));
  fill(x, 384, 6);
  cr_assert_eq(tn_run(m, 2, (tn_binding[]){{in, x}, {r, out}}), TN_OK);
  for (int i = 0; i < 2; i++) cr_assert_float_eq(out[3 * i] + out[3 * i + 1] + out[3 * i + 2], 1, 1e-6);
  tn_tensor *plain = tn_sequential(g, in, 1, net, NULL);
  cr_assert(plain && tn_find(g, "0.weight"), "%s", tn_error(ctx));
  int before = tn_params(g, 0, NULL);
  tn_layer wrong[] = {{tn_layer_conv, .units = 4, .kernel = 3}, {tn_layer_dense, .units = -1}};
  cr_assert_null(tn_sequential(g, in, 2, wrong, "w"));
  cr_assert(strstr(tn_error(ctx), "tn_sequential: units is -1"), "%s", tn_error(ctx));
  cr_assert_eq(tn_params(g, 0, NULL), before);
  cr_assert_null(tn_find(g, "w.0.weight"));
}

Test(layers, starting_weights_are_seeded_by_name) {
  tn_tensor *in = tn_input(g, "x", TN_F32, 2, DIMS(1, 64));
  tn_dense(g, in, 32, "a");
  tn_dense(g, in, 32, "b");
  tn_graph *h = tn_graph_new(ctx, "again");
  tn_dense(h, tn_input(h, "x", TN_F32, 2, DIMS(1, 64)), 32, "b");
  const float *a = tn_data(tn_find(g, "a.weight")), *b = tn_data(tn_find(g, "b.weight")), *c = tn_data(tn_find(h, "b.weight"));
  double limit = sqrt(6.0 / 96), sum = 0;
  cr_assert_arr_eq(b, c, 4 * 32 * 64);
  cr_assert(memcmp(a, b, 4 * 32 * 64) != 0);
  for (int i = 0; i < 32 * 64; i++) {
    cr_assert(fabs(a[i]) <= limit);
    sum += a[i];
  }
  cr_assert(fabs(sum / (32 * 64)) < limit / 10);
}
