/* Graphs as ONNX files: what is written and read again computes the same, to the bit. */
#include "frontend/api.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static tn_ctx *ctx;
static char path[64], data_path[80];
static void setup(void) {
  setenv("TENON_DB", "none", 1);
  ctx = tn_ctx_new(NULL);
  snprintf(path, sizeof path, "/tmp/tenon_onnx_%ld.onnx", (long)getpid());
  snprintf(data_path, sizeof data_path, "%s.data", path);
}
static void teardown(void) {
  remove(path), remove(data_path);
  tn_ctx_free(ctx);
}
TestSuite(onnx_write, .init = setup, .fini = teardown);

#define DIMS(...) (int64_t[]){__VA_ARGS__}
#define OK(call) cr_assert_eq((call), TN_OK, "%s | %s", tn_error(ctx), tn_run_error())

static float x[2 * 3 * 8 * 8];

static void run(tn_graph *g, float *y) {
  tn_tensor *in, *out;
  cr_assert(tn_inputs(g, 1, &in) >= 1 && tn_outputs(g, 1, &out) == 1);
  tn_module *m = tn_compile(g, NULL, 0, NULL);
  cr_assert(m, "%s", tn_error(ctx));
  OK(tn_run(m, 2, (tn_binding[]){{in, x}, {out, y}}));
  tn_module_free(m);
}

static tn_graph *net(void) {
  tn_graph *g = tn_graph_new(ctx, "net");
  tn_tensor *in = tn_input(g, "x", TN_F32, 4, DIMS(2, 3, 8, 8));
  tn_tensor *h = tn_relu(g, tn_batch_norm(g, tn_conv2d(g, in, 6, 3, 1, 1, "conv"), 1e-5, "bn"));
  h = tn_mean(g, tn_max_pool(g, h, 2, 2, 0), 3, 0); /* [2, 6, 4]: axes as an operand */
  h = tn_layer_norm(g, tn_gelu(g, tn_dense(g, tn_flatten(g, h, 1), 10, "fc")), 1e-5, "ln");
  OK(tn_output(g, "y", tn_softmax(g, tn_slice(g, tn_concat(g, 2, (tn_tensor *[]){h, h}, 1), 1, 5, 15), -1)));
  return g;
}

typedef struct write_args {
  tn_graph *g;
  int64_t largest;
} write_args;
static void write_with(tn_ctx *c, void *arg) { fe_onnx_write(c, ((write_args *)arg)->g->g, path, ((write_args *)arg)->largest); }

Test(onnx_write, there_and_back) {
  float want[20], got[20];
  for (int i = 0; i < (int)(sizeof x / sizeof *x); i++) x[i] = (float)(i * 37 % 101) / 50 - 1;
  for (int beside = 0; beside < 2; beside++) {
    tn_graph *g = net();
    run(g, want);
    write_args a = {g, beside ? 1000 : 0};
    cr_assert_eq(ir_protect(ctx, write_with, &a), TN_OK, "%s", tn_error(ctx));
    cr_assert_eq(access(data_path, R_OK) == 0, beside == 1);
    tn_graph *h = tn_graph_load(ctx, path);
    cr_assert(h, "%s", tn_error(ctx));
    run(h, got);
    cr_assert_eq(memcmp(got, want, sizeof got), 0);
    OK(tn_save_onnx(h, path)); /* once more */
    run(tn_graph_load(ctx, path), got);
    cr_assert_eq(memcmp(got, want, sizeof got), 0);
  }
}

/* Updates and what they need alone stay behind. */
Test(onnx_write, of_a_step) {
  tn_graph *g = tn_graph_new(ctx, "step");
  tn_tensor *in = tn_input(g, "x", TN_F32, 2, DIMS(4, 3)), *t = tn_input(g, "t", TN_I64, 1, DIMS(4));
  tn_tensor *y = tn_dense(g, in, 5, "fc"), *loss = tn_cross_entropy(g, y, t);
  OK(tn_minimize(g, loss, &(tn_optimizer){.kind = TN_ADAM, .rate = 0.1}, 0, NULL));
  OK(tn_output(g, "y", y));
  OK(tn_save_onnx(g, path));
  tn_graph *h = tn_graph_load(ctx, path);
  cr_assert(h, "%s", tn_error(ctx));
  cr_assert_eq(tn_inputs(h, 0, NULL), 1);
  float want[20], got[20];
  run(h, got);
  tn_graph *plain = tn_graph_new(ctx, "plain");
  OK(tn_output(plain, "y", tn_dense(plain, tn_input(plain, "x", TN_F32, 2, DIMS(4, 3)), 5, "fc")));
  run(plain, want);
  cr_assert_eq(memcmp(got, want, sizeof got), 0);
}

Test(onnx_write, refused) {
  tn_graph *g = tn_graph_new(ctx, "g");
  tn_tensor *in = tn_input(g, "x", TN_F32, 1, DIMS(4));
  cr_assert_neq(tn_save_onnx(g, path), TN_OK);
  cr_assert(strstr(tn_error(ctx), "has no output"), "%s", tn_error(ctx));
  tn_training(g, 1);
  OK(tn_output(g, "y", tn_dropout(g, in, 0.5)));
  cr_assert_neq(tn_save_onnx(g, path), TN_OK);
  cr_assert(strstr(tn_error(ctx), "Uniform is an op of Tenon alone"), "%s", tn_error(ctx));
  cr_assert_neq(access(path, R_OK), 0);
  cr_assert_neq(tn_save_onnx(g, NULL), TN_OK);
}

/* Constants of a file become parameters, but not running statistics. */
Test(onnx_write, trained_after_import) {
  for (int i = 0; i < (int)(sizeof x / sizeof *x); i++) x[i] = (float)(i * 37 % 101) / 50 - 1;
  OK(tn_save_onnx(net(), path));
  tn_graph *h = tn_graph_load(ctx, path);
  cr_assert(h, "%s", tn_error(ctx));
  cr_assert_eq(tn_params(h, 0, NULL), 0);
  OK(tn_trainable(h, NULL, 1));
  cr_assert_eq(tn_params(h, 0, NULL), 8); /* conv, bn, fc, ln: a weight and a bias each */
  tn_tensor *in, *y, *loss;
  tn_inputs(h, 1, &in), tn_outputs(h, 1, &y);
  loss = tn_mean(h, tn_mean(h, tn_mul(h, y, y), 0, 0), 0, 0);
  OK(tn_minimize(h, loss, &(tn_optimizer){.kind = TN_SGD, .rate = 0.5, .momentum = 0.9}, 0, NULL));
  OK(tn_output(h, "loss", loss));
  tn_module *m = tn_compile(h, NULL, 0, NULL);
  cr_assert(m, "%s", tn_error(ctx));
  float losses[8];
  for (int i = 0; i < 8; i++) OK(tn_run(m, 2, (tn_binding[]){{in, x}, {loss, &losses[i]}}));
  cr_assert_lt(losses[7], losses[0]);
}
