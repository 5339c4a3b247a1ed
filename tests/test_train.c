/* Updates, states and training, by the public header alone. */
#include "frontend/tenon.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static tn_ctx *ctx;
static tn_graph *g;
static void setup(void) {
  setenv("TENON_DB", "none", 1);
  ctx = tn_ctx_new(NULL);
  g = tn_graph_new(ctx, "test");
  cr_assert(g);
}
static void teardown(void) { tn_ctx_free(ctx); }
TestSuite(train, .init = setup, .fini = teardown);

#define DIMS(...) (int64_t[]){__VA_ARGS__}
#define BIND(...) (int)(sizeof((tn_binding[]){__VA_ARGS__}) / sizeof(tn_binding)), (tn_binding[]){__VA_ARGS__}
#define OK(call) cr_assert_eq((call), TN_OK, "%s | %s", tn_error(ctx), tn_run_error())
#define FAILS(call, text)                                                                      \
  do {                                                                                         \
    cr_assert_neq((call), TN_OK);                                                              \
    cr_assert(strstr(tn_error(ctx), text), "message: %s", tn_error(ctx));                      \
  } while (0)

static void near(const float *got, const float *want, int n, double tolerance) {
  for (int i = 0; i < n; i++)
    cr_assert(fabs((double)got[i] - (double)want[i]) <= tolerance * (1 + fabs((double)want[i])), "element %d: %g, should be %g", i, (double)got[i], (double)want[i]);
}

static uint64_t seed = 1;
static float draw(void) {
  seed = seed * 6364136223846793005u + 1442695040888963407u;
  return (float)(int32_t)(seed >> 32) * 0x1p-31f;
}
static void fill(float *p, int n) {
  for (int i = 0; i < n; i++) p[i] = draw();
}

static tn_module *compiled(void) {
  tn_module *m = tn_compile(g, NULL, 0, NULL);
  cr_assert(m, "%s", tn_error(ctx));
  return m;
}

/* ---- updates ---- */

Test(train, counter) {
  int64_t start = 5, old, now, got;
  tn_tensor *s = tn_state(g, "s", TN_I64, 0, NULL, &start), *t = tn_add(g, s, tn_scalar(g, TN_I64, 1));
  OK(tn_update(g, s, t));
  OK(tn_output(g, "old", s));
  OK(tn_output(g, "now", t));
  tn_module *m = compiled();
  for (int64_t i = 0; i < 4; i++) {
    OK(tn_run(m, BIND({s, &old}, {t, &now})));
    cr_assert(old == 5 + i && now == 6 + i, "%lld %lld", (long long)old, (long long)now);
  }
  OK(tn_module_get(m, s, &got));
  cr_assert_eq(got, 9);
  got = 100;
  OK(tn_module_set(m, s, &got));
  OK(tn_run(m, BIND({t, &now})));
  cr_assert_eq(now, 101);
  OK(tn_module_store(m));
  tn_module *again = compiled(); /* goes on from there */
  OK(tn_run(again, BIND({t, &now})));
  cr_assert_eq(now, 102);
}

Test(train, change_places) {
  float a0[3] = {1, 2, 3}, b0[3] = {4, 5, 6}, got[3];
  tn_tensor *a = tn_state(g, "a", TN_F32, 1, DIMS(3), a0), *b = tn_state(g, "b", TN_F32, 1, DIMS(3), b0);
  tn_tensor *c = tn_state(g, "c", TN_F32, 2, DIMS(3, 1), NULL);
  OK(tn_update(g, a, b));
  OK(tn_update(g, b, a));
  OK(tn_update(g, c, tn_reshape(g, a, 2, DIMS(3, 1))));
  tn_module *m = compiled();
  OK(tn_run(m, 0, NULL));
  OK(tn_module_get(m, a, got));
  near(got, b0, 3, 0);
  OK(tn_module_get(m, b, got));
  near(got, a0, 3, 0);
  OK(tn_module_get(m, c, got));
  near(got, a0, 3, 0);
  OK(tn_run(m, 0, NULL));
  OK(tn_module_get(m, c, got));
  near(got, b0, 3, 0);
}

/* Momentum by hand: both states are read by both updates, in any order of their stores. */
static void momentum_case(int n, bool w_first) {
  float *w = malloc(sizeof *w * (size_t)n), *v = calloc((size_t)n, sizeof *v), *x = malloc(sizeof *x * (size_t)n), *got = malloc(sizeof *got * (size_t)n);
  fill(w, n);
  tn_graph *h = tn_graph_new(ctx, "momentum");
  tn_tensor *W = tn_param(h, "w", TN_F32, 1, DIMS(n), w), *V = tn_state(h, "v", TN_F32, 1, DIMS(n), NULL), *G = tn_input(h, "g", TN_F32, 1, DIMS(n));
  tn_tensor *nv = tn_add(h, tn_mul(h, V, tn_scalar(h, TN_F32, 0.5)), tn_mul(h, G, G));
  tn_tensor *nw = tn_sub(h, W, tn_mul(h, tn_add(h, nv, V), tn_scalar(h, TN_F32, 0.25)));
  if (w_first) OK(tn_update(h, W, nw));
  OK(tn_update(h, V, nv));
  if (!w_first) OK(tn_update(h, W, nw));
  tn_module *m = tn_compile(h, NULL, 0, NULL);
  cr_assert(m, "%s", tn_error(ctx));
  for (int round = 0; round < 3; round++) {
    fill(x, n);
    OK(tn_run(m, BIND({G, x})));
    for (int i = 0; i < n; i++) {
      float next = v[i] * 0.5f + x[i] * x[i];
      w[i] -= (next + v[i]) * 0.25f;
      v[i] = next;
    }
    OK(tn_module_get(m, W, got));
    near(got, w, n, 1e-6);
    OK(tn_module_get(m, V, got));
    near(got, v, n, 1e-6);
  }
  tn_module_free(m);
  free(w), free(v), free(x), free(got);
}
Test(train, momentum_in_place) {
  for (int n = 0; n < 70; n += n < 3 ? 1 : 13) momentum_case(n, true), momentum_case(n, false);
}

/* The weight's update is an epilogue of a product; another product still reads the old weight. */
static void product_case(int n, int in, int out, bool also_after) {
  float *x = malloc(sizeof *x * (size_t)(n * in)), *d = malloc(sizeof *d * (size_t)(n * out)), *w = malloc(sizeof *w * (size_t)(in * out));
  float *y = malloc(sizeof *y * (size_t)(n * out)), *want = malloc(sizeof *want * (size_t)(n * out)), *got = malloc(sizeof *got * (size_t)(in * out));
  fill(x, n * in), fill(w, in * out);
  tn_graph *h = tn_graph_new(ctx, "product");
  tn_tensor *X = tn_input(h, "x", TN_F32, 2, DIMS(n, in)), *D = tn_input(h, "d", TN_F32, 2, DIMS(n, out)), *W = tn_param(h, "w", TN_F32, 2, DIMS(in, out), w);
  tn_tensor *grad = tn_matmul(h, tn_transpose(h, X, NULL), D);
  tn_tensor *next = tn_sub(h, W, tn_mul(h, grad, tn_scalar(h, TN_F32, 0.125)));
  OK(tn_update(h, W, next));
  tn_tensor *Y = tn_matmul(h, X, W);
  OK(tn_output(h, "y", Y));
  tn_tensor *Z = also_after ? tn_matmul(h, X, next) : NULL; /* and one the new weight */
  if (Z) OK(tn_output(h, "z", Z));
  tn_module *m = tn_compile(h, NULL, 0, NULL);
  cr_assert(m, "%s", tn_error(ctx));
  for (int round = 0; round < 3; round++) {
    fill(d, n * out);
    OK(tn_run(m, BIND({X, x}, {D, d}, {Y, y})));
    for (int i = 0; i < n; i++)
      for (int j = 0; j < out; j++) {
        double s = 0;
        for (int k = 0; k < in; k++) s += (double)x[i * in + k] * (double)w[k * out + j];
        want[i * out + j] = (float)s;
      }
    near(y, want, n * out, 1e-5);
    for (int k = 0; k < in; k++)
      for (int j = 0; j < out; j++) {
        double s = 0;
        for (int i = 0; i < n; i++) s += (double)x[i * in + k] * (double)d[i * out + j];
        w[k * out + j] -= 0.125f * (float)s;
      }
    OK(tn_module_get(m, W, got));
    near(got, w, in * out, 1e-5);
  }
  tn_module_free(m);
  free(x), free(d), free(w), free(y), free(want), free(got);
}
Test(train, product_in_place) {
  static const int sizes[][3] = {{1, 1, 1}, {3, 5, 7}, {16, 33, 31}, {64, 40, 48}};
  for (int i = 0; i < 4; i++)
    for (int after = 0; after < 2; after++) product_case(sizes[i][0], sizes[i][1], sizes[i][2], after);
}

/* What cannot be in place: an element is read after another place was stored. */
Test(train, transposed_and_summed) {
  float w[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9}, got[9], t[9], sum[3];
  tn_tensor *W = tn_param(g, "w", TN_F32, 2, DIMS(3, 3), w);
  OK(tn_update(g, W, tn_add(g, tn_transpose(g, W, NULL), tn_sum(g, W, 1, 1))));
  tn_module *m = compiled();
  OK(tn_run(m, 0, NULL));
  OK(tn_module_get(m, W, got));
  for (int i = 0; i < 3; i++) sum[i] = w[3 * i] + w[3 * i + 1] + w[3 * i + 2];
  for (int i = 0; i < 9; i++) t[i] = w[i % 3 * 3 + i / 3] + sum[i / 3];
  near(got, t, 9, 1e-6);
}

Test(train, bad_updates) {
  tn_tensor *x = tn_input(g, "x", TN_F32, 1, DIMS(3)), *s = tn_state(g, "s", TN_F32, 1, DIMS(3), NULL), *t = tn_state(g, "t", TN_F32, 1, DIMS(4), NULL);
  FAILS(tn_update(g, NULL, x), "tn_update: the state is null");
  FAILS(tn_update(g, x, s), "tn_update: 'x' is neither a parameter nor a state");
  FAILS(tn_update(g, t, x), "tn_update: 't' is updated by 'x', which has another type or shape");
  FAILS(tn_update(g, s, NULL), ""); /* what failed before is passed on */
  OK(tn_update(g, s, x));
  FAILS(tn_update(g, s, x), "tn_update: 's' is updated already");
  tn_graph *h = tn_graph_new(ctx, "other");
  tn_tensor *u = tn_state(h, "u", TN_F32, 1, DIMS(3), NULL);
  FAILS(tn_update(h, u, x), "belongs to another graph");
  float data[3];
  tn_module *m = compiled();
  cr_assert_eq(tn_module_get(m, x, data), TN_EUSAGE);
  cr_assert(strstr(tn_run_error(), "'x' is no parameter or state"), "%s", tn_run_error());
}

/* ---- optimizers, against their formulas in double ---- */

enum { P = 23 };
typedef struct reference {
  tn_optimizer o;
  double w[P], m[P], v[P];
  int step;
} reference;

/* Loss sum(a w^2) / 2 has gradient a w. */
static void reference_step(reference *r, const float *a) {
  double grad[P], norm = 0, b1 = r->o.beta1 > 0 ? r->o.beta1 : 0.9, b2 = r->o.beta2 > 0 ? r->o.beta2 : 0.999, eps = r->o.epsilon > 0 ? r->o.epsilon : 1e-8;
  r->step++;
  for (int i = 0; i < P; i++) grad[i] = (double)a[i] * r->w[i], norm += grad[i] * grad[i];
  norm = sqrt(norm);
  for (int i = 0; i < P; i++) {
    double x = r->w[i], d = grad[i];
    if (r->o.clip > 0 && r->o.clip < norm + 1e-6) d *= r->o.clip / (norm + 1e-6);
    if (r->o.kind != TN_ADAMW) d += r->o.decay * x;
    if (r->o.kind == TN_SGD) {
      r->m[i] = r->o.momentum * r->m[i] + d;
      if (r->o.momentum > 0) d = r->o.nesterov ? d + r->o.momentum * r->m[i] : r->m[i];
      r->w[i] = x - r->o.rate * d;
      continue;
    }
    r->m[i] = b1 * r->m[i] + (1 - b1) * d;
    r->v[i] = b2 * r->v[i] + (1 - b2) * d * d;
    if (r->o.kind == TN_ADAMW) x *= 1 - r->o.rate * r->o.decay;
    r->w[i] = x - r->o.rate / (1 - pow(b1, r->step)) * r->m[i] / (sqrt(r->v[i]) / sqrt(1 - pow(b2, r->step)) + eps);
  }
}

Test(train, optimizers) {
  static const tn_optimizer all[] = {
      {.kind = TN_SGD, .rate = 0.1}, {.kind = TN_SGD, .rate = 0.1, .momentum = 0.9, .decay = 0.01}, {.kind = TN_SGD, .rate = 0.1, .momentum = 0.9, .nesterov = 1},
      {.kind = TN_SGD, .rate = 0.1, .momentum = 0.5, .clip = 0.7}, {.kind = TN_ADAM, .rate = 0.01}, {.kind = TN_ADAM, .rate = 0.01, .decay = 0.1, .clip = 0.5},
      {.kind = TN_ADAMW, .rate = 0.02, .decay = 0.1, .beta1 = 0.8, .beta2 = 0.99, .epsilon = 1e-4}};
  for (int k = 0; k < (int)(sizeof all / sizeof *all); k++) {
    reference r = {.o = all[k]};
    float a[P], w[P], got[P], want[P];
    fill(w, P);
    for (int i = 0; i < P; i++) r.w[i] = (double)w[i];
    tn_graph *h = tn_graph_new(ctx, "optimizer");
    tn_tensor *A = tn_input(h, "a", TN_F32, 1, DIMS(P)), *W = tn_param(h, "w", TN_F32, 1, DIMS(P), w), *half = tn_scalar(h, TN_F32, 0.5);
    tn_tensor *loss = tn_sum(h, tn_mul(h, half, tn_mul(h, A, tn_mul(h, W, W))), 0, 0);
    OK(tn_minimize(h, loss, &all[k], 0, NULL));
    OK(tn_output(h, "loss", loss));
    tn_module *m = tn_compile(h, NULL, 0, NULL);
    cr_assert(m, "%s", tn_error(ctx));
    for (int round = 0; round < 6; round++) {
      fill(a, P);
      OK(tn_run(m, BIND({A, a})));
      reference_step(&r, a);
      for (int i = 0; i < P; i++) want[i] = (float)r.w[i];
      OK(tn_module_get(m, W, got));
      near(got, want, P, 2e-5);
    }
    tn_module_free(m);
  }
}

Test(train, bad_optimizers) {
  tn_tensor *x = tn_input(g, "x", TN_F32, 1, DIMS(3)), *s = tn_sum(g, x, 0, 0);
  FAILS(tn_minimize(g, s, NULL, 0, NULL), "the optimizer is null");
  FAILS(tn_minimize(g, s, &(tn_optimizer){.rate = 1}, 0, NULL), "tn_minimize: there is no parameter to train");
  tn_tensor *w = tn_param(g, "w", TN_F32, 1, DIMS(3), (float[3]){0});
  FAILS(tn_minimize(g, s, &(tn_optimizer){.rate = -1}, 0, NULL), "a number of the optimizer is -1");
  FAILS(tn_minimize(g, s, &(tn_optimizer){.kind = (tn_optimizer_kind)9}, 0, NULL), "optimizer 9");
  FAILS(tn_minimize(g, s, &(tn_optimizer){.nesterov = 1}, 0, NULL), "nesterov needs a momentum");
  FAILS(tn_minimize(g, NULL, &(tn_optimizer){.rate = 1}, 0, NULL), "");
  FAILS(tn_minimize(g, s, &(tn_optimizer){.rate = 1}, 1, &x), "'x' is no parameter");
  OK(tn_trainable(g, w, 0));
  FAILS(tn_minimize(g, s, &(tn_optimizer){.rate = 1}, 0, NULL), "there is no parameter to train");
  FAILS(tn_trainable(g, x, 1), "'x' is no parameter of floats");
}

/* A failing tn_minimize leaves nothing behind: the same call works afterwards. */
Test(train, taken_back) {
  tn_tensor *w = tn_param(g, "w", TN_F32, 1, DIMS(3), (float[]){1, 2, 3}), *l = tn_sum(g, tn_mul(g, w, w), 0, 0);
  tn_tensor *s = tn_state(g, "w.momentum", TN_F32, 1, DIMS(3), NULL);
  cr_assert(s);
  FAILS(tn_minimize(g, l, &(tn_optimizer){.kind = TN_ADAM, .rate = 1}, 0, NULL), "'w.momentum' is taken");
  OK(tn_minimize(g, l, &(tn_optimizer){.kind = TN_SGD, .rate = 0.25}, 0, NULL));
  OK(tn_output(g, "loss", l));
  tn_module *m = compiled();
  float loss, got[3];
  OK(tn_run(m, BIND({l, &loss})));
  cr_assert_float_eq(loss, 14, 1e-5);
  OK(tn_module_get(m, w, got));
  near(got, (float[]){0.5f, 1, 1.5f}, 3, 1e-6);
}

/* ---- a network ---- */

static tn_tensor *mlp(tn_graph *h, tn_tensor *x) { return tn_dense(h, tn_dropout(h, tn_relu(h, tn_dense(h, x, 16, "fc1")), 0.25), 3, "fc2"); }

/* Loss of a step, by a graph of its own each time or by one module: to the bit the same. */
Test(train, steps_and_checkpoints) {
  enum { N = 12, IN = 7 };
  float x[N * IN], t[N * 3], losses[2][6];
  fill(x, N * IN), fill(t, N * 3);
  char path[] = "/tmp/tenon_train_XXXXXX";
  int fd = mkstemp(path);
  cr_assert_geq(fd, 0);
  for (int way = 0; way < 2; way++) {
    tn_module *m = NULL;
    tn_tensor *X = NULL, *T = NULL, *loss = NULL;
    for (int i = 0; i < 6; i++) {
      if (way == 1 || !m) { /* a fresh graph that goes on from the file */
        tn_graph *h = tn_graph_new(ctx, "mlp");
        X = tn_input(h, "x", TN_F32, 2, DIMS(N, IN)), T = tn_input(h, "t", TN_F32, 2, DIMS(N, 3));
        tn_training(h, 1);
        loss = tn_mse(h, mlp(h, X), T);
        OK(tn_minimize(h, loss, &(tn_optimizer){.kind = TN_ADAMW, .rate = 0.01, .decay = 0.01, .clip = 1}, 0, NULL));
        OK(tn_output(h, "loss", loss));
        if (i) OK(tn_load_safetensors(h, path, NULL, NULL, NULL));
        m = tn_compile(h, NULL, 0, NULL);
        cr_assert(m, "%s", tn_error(ctx));
        OK(tn_run(m, BIND({X, x}, {T, t}, {loss, &losses[way][i]})));
        if (way == 1) OK(tn_module_store(m));
        if (way == 1) OK(tn_save_checkpoint(h, path));
      } else OK(tn_run(m, BIND({X, x}, {T, t}, {loss, &losses[way][i]})));
    }
  }
  cr_assert_eq(memcmp(losses[0], losses[1], sizeof losses[0]), 0);
  cr_assert_lt(losses[0][5], losses[0][0]);
  remove(path);
}

Test(train, dropout_is_counted) {
  enum { N = 4000 };
  static float x[N], a[N], b[N];
  for (int i = 0; i < N; i++) x[i] = 1;
  tn_tensor *X = tn_input(g, "x", TN_F32, 1, DIMS(N));
  cr_assert_eq(tn_dropout(g, X, 0.5), X); /* not training */
  tn_training(g, 1);
  tn_tensor *y = tn_dropout(g, X, 0.25), *z = tn_dropout(g, X, 0.25);
  OK(tn_output(g, "y", y));
  OK(tn_output(g, "z", z));
  tn_module *m = compiled();
  OK(tn_run(m, BIND({X, x}, {y, a}, {z, b})));
  int kept = 0, same = 0;
  for (int i = 0; i < N; i++) {
    cr_assert(a[i] == 0 || fabsf(a[i] - 1 / 0.75f) < 1e-6f);
    kept += a[i] != 0, same += (a[i] != 0) == (b[i] != 0);
  }
  cr_assert(abs(kept - N * 3 / 4) < 130, "%d", kept);
  cr_assert(abs(same - N * 5 / 8) < 150, "%d", same); /* two calls are independent */
  OK(tn_run(m, BIND({X, x}, {y, b})));
  for (int i = same = 0; i < N; i++) same += (a[i] != 0) == (b[i] != 0);
  cr_assert(abs(same - N * 5 / 8) < 150, "%d", same); /* so are two runs */
  tn_module *again = compiled();
  OK(tn_run(again, BIND({X, x}, {y, b})));
  cr_assert_eq(memcmp(a, b, sizeof a), 0);
  cr_assert_null(tn_dropout(g, X, 1));
}
