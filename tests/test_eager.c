/* Define by run, by the public header alone. */
#include "frontend/tenon.h"
#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static tn_ctx *ctx;
static tn_graph *g;
static void setup(void) {
  setenv("TENON_DB", "none", 1);
  ctx = tn_ctx_new(NULL);
  g = tn_eager(ctx, "test", NULL);
  cr_assert(g);
}
static void teardown(void) { tn_ctx_free(ctx); }
TestSuite(eager, .init = setup, .fini = teardown);

#define DIMS(...) (int64_t[]){__VA_ARGS__}
#define OK(call) cr_assert_eq((call), TN_OK, "%s | %s", tn_error(ctx), tn_run_error())
#define SAYS(text) cr_assert(strstr(tn_error(ctx), text), "message: %s", tn_error(ctx))

static int compiled(void) {
  int n = 0;
  tn_eager_counts(g, &n, NULL);
  return n;
}
static tn_tensor *vector(int n, const float *data) { return tn_array(g, TN_F32, 1, DIMS(n), data); }
static float scalar(tn_tensor *t) {
  const float *p = tn_value(g, t);
  cr_assert(p, "%s", tn_error(ctx));
  return *p;
}

Test(eager, values) {
  tn_tensor *a = vector(3, (float[]){1, 2, 3}), *b = vector(3, (float[]){10, 20, 30});
  tn_tensor *c = tn_add(g, a, b), *s = tn_sum(g, tn_mul(g, c, c), 0, 0);
  cr_assert_eq(compiled(), 0); /* nothing was asked for */
  cr_assert_float_eq(scalar(s), 11 * 11 + 22 * 22 + 33 * 33, 1e-3);
  const float *p = tn_value(g, c);
  cr_assert(p && p[2] == 33);
  cr_assert_eq(((const float *)tn_value(g, a))[1], 2);
  cr_assert_float_eq(scalar(tn_sum(g, c, 0, 0)), 66, 1e-4); /* from what is known */
  cr_assert_eq(*(const int64_t *)tn_value(g, tn_scalar(g, TN_I64, 7)), 7);
  OK(tn_print(g, c));
}

/* Branches by values, lengths by steps: each variant is compiled once. */
Test(eager, control_flow_and_shapes) {
  float data[8] = {1, -2, 3, -4, 5, -6, 7, -8};
  int first = 0;
  for (int round = 0; round < 3; round++) {
    for (int n = 1; n <= 8; n++) {
      OK(tn_begin(g));
      tn_tensor *x = vector(n, data), *sum = tn_sum(g, x, 0, 0);
      float got = scalar(sum), want = 0;
      for (int i = 0; i < n; i++) want += data[i];
      cr_assert_float_eq(got, want, 1e-4);
      tn_tensor *y = got > 0 ? tn_mul(g, x, x) : tn_tanh(g, x);
      for (int k = 0; k < n % 3; k++) y = tn_add(g, y, x);
      const float *v = tn_value(g, y);
      cr_assert(v, "%s", tn_error(ctx));
      for (int i = 0; i < n; i++) cr_assert_float_eq(v[i], (got > 0 ? data[i] * data[i] : tanhf(data[i])) + (float)(n % 3) * data[i], 1e-4);
      OK(tn_end(g, 0, NULL));
    }
    if (!round) first = compiled();
    cr_assert_eq(compiled(), first);
  }
  cr_assert_eq(first, 16);
}

/* A state carried from step to step by hand. */
Test(eager, kept_tensors) {
  tn_tensor *h = vector(2, (float[]){0, 1});
  int after = 0;
  for (int i = 0; i < 5; i++) {
    OK(tn_begin(g));
    tn_tensor *n = tn_add(g, tn_mul(g, h, tn_scalar(g, TN_F32, 0.5)), vector(2, (float[]){(float)i, 0}));
    OK(tn_end(g, 1, &n));
    tn_release(g, h);
    h = n;
    if (i == 1) after = compiled();
  }
  const float *p = tn_value(g, h);
  cr_assert(p);
  cr_assert_float_eq(p[0], 4 + 1.5 + 0.5 + 0.125, 1e-6);
  cr_assert_float_eq(p[1], 1.0 / 32, 1e-6);
  cr_assert_eq(after, 1);
  cr_assert_eq(compiled(), 1);
}

static tn_tensor *net(tn_graph *h, tn_tensor *x) { return tn_dense(h, tn_relu(h, tn_dense(h, x, 8, "fc1")), 2, "fc2"); }

enum { N = 6, IN = 5 };
static void draw(float *x, float *t, int step) {
  for (int i = 0; i < N * IN; i++) x[i] = (float)((i * 7 + step * 13) % 11) / 5 - 1;
  for (int i = 0; i < N * 2; i++) t[i] = (float)((i * 5 + step) % 7) / 7;
}

static tn_tensor *step_loss(tn_graph *h, tn_tensor *x, tn_tensor *t) {
  tn_training(h, 1);
  tn_tensor *loss = tn_mse(h, tn_dropout(h, net(h, x), 0.25), t);
  tn_minimize(h, loss, &(tn_optimizer){.kind = TN_ADAM, .rate = 0.01}, 0, NULL);
  return loss;
}
static void step_fn(tn_graph *h, void *user, tn_tensor *const in[], tn_tensor *out[]) {
  ++*(int *)user;
  out[0] = step_loss(h, in[0], in[1]);
}

/* The same training as one module, operation by operation, and by a function in both styles. */
Test(eager, trains_like_a_module) {
  float x[N * IN], t[N * 2], want[10], got;
  tn_graph *h = tn_graph_new(ctx, "net");
  tn_tensor *X = tn_input(h, "x", TN_F32, 2, DIMS(N, IN)), *T = tn_input(h, "t", TN_F32, 2, DIMS(N, 2)), *loss = step_loss(h, X, T);
  OK(tn_output(h, "loss", loss));
  tn_module *m = tn_compile(h, NULL, 0, NULL);
  cr_assert(m, "%s", tn_error(ctx));
  for (int i = 0; i < 10; i++) {
    draw(x, t, i);
    OK(tn_run(m, 3, (tn_binding[]){{X, x}, {T, t}, {loss, &want[i]}}));
  }
  for (int way = 0; way < 4; way++) {
    tn_graph *e = tn_eager(ctx, "net", NULL);
    int calls = 0, ncompiled, nruns;
    tn_function *f = tn_function_new(e, step_fn, &calls, 2, 1);
    tn_function_compiled(f, way == 2);
    if (way == 3) tn_eager_each(e, 1);
    for (int i = 0; i < 10; i++) {
      draw(x, t, i);
      OK(tn_begin(e));
      tn_tensor *in[2] = {tn_array(e, TN_F32, 2, DIMS(N, IN), x), tn_array(e, TN_F32, 2, DIMS(N, 2), t)}, *out;
      if (way == 0) out = step_loss(e, in[0], in[1]);
      else if (way == 2) OK(tn_end(e, 2, in)); /* a function compiled whole is a step of its own */
      if (way) OK(tn_call(f, in, &out));
      const float *p = tn_value(e, out);
      cr_assert(p, "%s", tn_error(ctx));
      got = *p;
      if (way < 3) cr_assert_eq(memcmp(&got, &want[i], 4), 0, "way %d step %d: %.9g, should be %.9g", way, i, (double)got, (double)want[i]);
      else cr_assert_float_eq(got, want[i], 1e-4);
      if (way != 2) OK(tn_end(e, 0, NULL));
      else tn_release(e, in[0]), tn_release(e, in[1]), tn_release(e, out);
    }
    tn_eager_counts(e, &ncompiled, &nruns);
    if (way < 3) cr_assert(ncompiled == 1 && nruns == 10, "way %d: %d compiled, %d runs", way, ncompiled, nruns);
    cr_assert_eq(calls, way == 0 ? 0 : way == 2 ? 1 : 10);
  }
}

Test(eager, few_modules_are_kept) {
  int ncompiled;
  tn_eager_limit(g, 2);
  for (int round = 0; round < 2; round++)
    for (int n = 1; n <= 4; n++)
      for (int twice = 0; twice < 2; twice++) {
        float x[4] = {1, 2, 3, 4};
        OK(tn_begin(g));
        tn_tensor *v = vector(n, x);
        const float *p = tn_value(g, tn_add(g, v, v));
        cr_assert(p, "%s", tn_error(ctx));
        for (int i = 0; i < n; i++) cr_assert_eq(p[i], 2 * x[i]);
        OK(tn_end(g, 0, NULL));
        tn_eager_counts(g, &ncompiled, NULL);
        cr_assert_eq(ncompiled, 4 * round + n, "%d compiled", ncompiled); /* the second time it is there, four shapes later it is not */
      }
}

Test(eager, errors_name_the_place) {
  tn_tensor *a = vector(3, (float[]){1, 2, 3}), *b = vector(4, (float[]){1, 2, 3, 4});
  char place[64];
  snprintf(place, sizeof place, "test_eager.c:%d: tn_add: node", __LINE__ + 1);
  cr_assert_null(tn_add(g, a, b));
  SAYS(place);
  SAYS("do not broadcast");
  OK(tn_begin(g)); /* forgets it */
  cr_assert_null(tn_value(g, NULL));
  OK(tn_begin(g));
  tn_graph *h = tn_graph_new(ctx, "other"), *e = tn_eager(ctx, "third", NULL);
  tn_tensor *x = tn_input(h, "x", TN_F32, 1, DIMS(3)), *c = tn_array(e, TN_F32, 1, DIMS(3), (float[3]){0});
  cr_assert_null(tn_add(g, a, x));
  SAYS("'x' belongs to another graph");
  cr_assert_null(tn_mul(g, a, c));
  SAYS("belongs to another graph");
  cr_assert_null(tn_input(g, "x", TN_F32, 1, DIMS(3)));
  SAYS("tn_array");
  cr_assert_neq(tn_output(g, "y", a), TN_OK);
  SAYS("tn_value");
  cr_assert_null(tn_compile(g, NULL, 0, NULL));
  SAYS("tn_call");
  cr_assert_null(tn_value(h, x));
  SAYS("was not made by tn_eager");
  cr_assert_null(tn_array(g, TN_F32, 1, DIMS(-3), &place));
  cr_assert_null(tn_array(g, TN_F32, 1, DIMS(3), NULL));
  SAYS("the data is null");
  tn_release(g, a);
  cr_assert_null(tn_relu(g, a));
  SAYS("was released");
  OK(tn_end(g, 0, NULL));
  OK(tn_end(g, 0, NULL));
  cr_assert_neq(tn_end(g, 0, NULL), TN_OK);
  SAYS("there is no tn_begin to it");
}

Test(eager, too_late) {
  tn_tensor *w = tn_param(g, "w", TN_F32, 1, DIMS(2), (float[]){1, 2}), *y = tn_mul(g, w, w), *l = tn_sum(g, y, 0, 0);
  OK(tn_minimize(g, l, &(tn_optimizer){.rate = 0.25}, 0, NULL));
  cr_assert_float_eq(scalar(l), 5, 1e-6);
  cr_assert_eq(((const float *)tn_data(w))[1], 1);
  cr_assert_null(tn_value(g, y)); /* of the old w */
  SAYS("was not computed before its step ended");
  cr_assert_float_eq(scalar(tn_sum(g, tn_mul(g, w, w), 0, 0)), 1.25, 1e-6); /* of the new */
}

/* Gradients pass through what was computed before they were asked for. */
Test(eager, looks_between) {
  tn_tensor *w = tn_param(g, "w", TN_F32, 1, DIMS(2), (float[]){1, 2});
  for (int i = 0; i < 3; i++) {
    OK(tn_begin(g));
    tn_tensor *y = tn_mul(g, w, w), *l = tn_sum(g, y, 0, 0);
    float scale = 1;
    for (int k = 0; k < i; k++) scale /= 4;
    cr_assert_float_eq(scalar(l), 5 * scale, 1e-6);
    cr_assert(tn_value(g, y));
    OK(tn_minimize(g, l, &(tn_optimizer){.rate = 0.25}, 0, NULL));
    OK(tn_end(g, 0, NULL));
  }
  cr_assert_float_eq(((const float *)tn_data(w))[0], 0.125, 1e-6);
  cr_assert_eq(compiled(), 3); /* the loss, y, the step */
}

static void asks(tn_graph *h, void *user, tn_tensor *const in[], tn_tensor *out[]) {
  (void)user;
  const float *v = tn_value(h, in[0]);
  out[0] = v && *v > 0 ? tn_relu(h, in[0]) : tn_tanh(h, in[0]);
}
static void nothing(tn_graph *h, void *user, tn_tensor *const in[], tn_tensor *out[]) { (void)h, (void)user, (void)in, (void)out; }

Test(eager, bad_functions) {
  tn_tensor *x = vector(1, (float[]){0.5f}), *out;
  tn_function *f = tn_function_new(g, asks, NULL, 1, 1), *no = tn_function_new(g, nothing, NULL, 1, 1);
  OK(tn_call(f, &x, &out));
  tn_release(g, out);
  tn_function_compiled(f, 1);
  cr_assert_neq(tn_call(f, &x, &out), TN_OK);
  SAYS("cannot be asked for while a function is compiled");
  cr_assert_neq(tn_call(no, &x, &out), TN_OK);
  SAYS("gave no result 0");
  cr_assert_null(tn_function_new(g, NULL, NULL, 1, 1));
  tn_function_compiled(f, 0);
  OK(tn_call(f, &x, &out)); /* as good as before */
}

Test(eager, freed_context) {
  tn_ctx *other = tn_ctx_new(NULL);
  tn_graph *e = tn_eager(other, "gone", NULL);
  tn_tensor *x = tn_array(e, TN_F32, 0, NULL, &(float){1});
  cr_assert(tn_relu(e, x));
  tn_ctx_free(other);
  cr_assert_null(tn_relu(e, x));
  cr_assert(strstr(tn_run_error(), "context was freed"), "%s", tn_run_error());
  cr_assert_null(tn_value(e, x));
  cr_assert_eq(tn_begin(e), TN_EUSAGE);
}

/* Contents are given back: a thousand steps hold no more than ten. */
static long held;
static void *counting(void *user, size_t bytes, void *old) {
  (void)user;
  if (bytes) held += !old;
  else held -= old != NULL;
  return bytes ? realloc(old, bytes) : (free(old), NULL);
}
Test(eager, holds_no_more) {
  held = 0;
  tn_ctx *own = tn_ctx_new(&(tn_config){.alloc = counting});
  tn_graph *e = tn_eager(own, "steps", NULL);
  float data[600] = {0};
  long early = 0;
  for (int i = 0; i < 300; i++) {
    tn_begin(e);
    int n = 1 + i % 4 * 100;
    tn_tensor *x = tn_array(e, TN_F32, 1, DIMS(n), data), *y = tn_tanh(e, tn_add(e, x, x));
    cr_assert(tn_value(e, y), "%s", tn_error(own));
    tn_end(e, 0, NULL);
    if (i == 100) early = held;
  }
  cr_assert_leq(held, early + 2);
  tn_ctx_free(own);
  cr_assert_eq(held, 0);
}

static void *one_thread(void *arg) {
  int k = *(int *)arg;
  tn_ctx *own = tn_ctx_new(NULL);
  tn_graph *e = tn_eager(own, "thread", NULL);
  intptr_t wrong = 0;
  for (int i = 0; i < 20; i++) {
    tn_begin(e);
    float v = (float)(i + k);
    tn_tensor *x = tn_array(e, TN_F32, 0, NULL, &v);
    const float *p = tn_value(e, tn_add(e, tn_mul(e, x, x), x));
    wrong += !p || *p != v * v + v;
    tn_end(e, 0, NULL);
  }
  tn_ctx_free(own);
  return (void *)wrong;
}
Test(eager, threads) {
  pthread_t t[4];
  int k[4];
  for (int i = 0; i < 4; i++) k[i] = i, pthread_create(&t[i], NULL, one_thread, &k[i]);
  for (int i = 0; i < 4; i++) {
    void *wrong;
    pthread_join(t[i], &wrong);
    cr_assert_eq((intptr_t)wrong, 0);
  }
}
