/* The C API by its public header alone: building, errors, compiling, running, parameters. */
#include "frontend/tenon.h"
#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static tn_ctx *ctx;
static tn_graph *g;
static void setup(void) {
  setenv("TENON_DB", "none", 1); /* default schedules */
  ctx = tn_ctx_new(NULL);
  g = tn_graph_new(ctx, "test");
  cr_assert(g);
}
static void teardown(void) { tn_ctx_free(ctx); }
TestSuite(api, .init = setup, .fini = teardown);

#define DIMS(...) (int64_t[]){__VA_ARGS__}
#define BIND(...) (int)(sizeof((tn_binding[]){__VA_ARGS__}) / sizeof(tn_binding)), (tn_binding[]){__VA_ARGS__}
#define OK(call) cr_assert_eq((call), TN_OK, "%s | %s", tn_error(ctx), tn_run_error())
#define FAILS(call, status, text)                                                              \
  do {                                                                                         \
    cr_assert_eq((call), (status));                                                            \
    cr_assert(strstr(tn_error(ctx), text), "message: %s", tn_error(ctx));                      \
  } while (0)
#define NULLS(call, text)                                                                      \
  do {                                                                                         \
    cr_assert_null(call);                                                                      \
    cr_assert(strstr(tn_error(ctx), text), "message: %s", tn_error(ctx));                      \
  } while (0)

static void near(const float *got, const float *want, int n) {
  for (int i = 0; i < n; i++) cr_assert_float_eq(got[i], want[i], 1e-5, "element %d: %g, should be %g", i, got[i], want[i]);
}

static tn_module *compiled(tn_tensor *fetch) {
  tn_module *m = tn_compile(g, NULL, fetch != NULL, &fetch);
  cr_assert(m, "%s", tn_error(ctx));
  return m;
}

Test(api, adds) {
  tn_tensor *a = tn_input(g, "a", TN_F32, 2, DIMS(2, 3)), *b = tn_input(g, "b", TN_F32, 1, DIMS(3));
  tn_tensor *y = tn_add(g, a, b);
  int64_t dims[TN_MAX_RANK];
  cr_assert_eq(tn_shape(y, dims), 2);
  cr_assert(dims[0] == 2 && dims[1] == 3);
  cr_assert_eq(tn_type(y), TN_F32);
  cr_assert_eq(tn_bytes(y), 24);
  OK(tn_output(g, "sum", y));
  cr_assert_str_eq(tn_name(y), "sum");
  tn_module *m = compiled(NULL);
  float x[6] = {1, 2, 3, 4, 5, 6}, z[3] = {10, 20, 30}, out[6];
  OK(tn_run(m, BIND({y, out}, {b, z}, {a, x}))); /* any order */
  near(out, (float[]){11, 22, 33, 14, 25, 36}, 6);
  tn_module_free(m);
}

Test(api, nulls_pass_on) {
  tn_tensor *a = tn_input(g, "a", TN_F32, 2, DIMS(2, 3)), *b = tn_input(g, "b", TN_F32, 1, DIMS(4));
  tn_tensor *bad = tn_add(g, a, b);
  NULLS(bad, "tn_add: node 'add_1'");
  char first[512];
  snprintf(first, sizeof first, "%s", tn_error(ctx));
  tn_tensor *y = tn_softmax(g, tn_dense(g, tn_conv2d(g, tn_relu(g, bad), 4, 3, 1, 1, NULL), 3, "d"), -1);
  cr_assert_null(y);
  y = tn_attention(g, bad, bad, bad, 2, tn_omit(), "att");
  y = tn_lstm(g, tn_slice(g, tn_concat(g, 2, (tn_tensor *[]){y, a}, 0), 0, 0, 1), 3, "l");
  y = tn_reshape(g, tn_transpose(g, y, NULL), 1, DIMS(-1));
  y = tn_max_pool(g, tn_mean(g, tn_batch_norm(g, y, 1e-5, "n"), 0, 1), 2, 2, 0);
  cr_assert_null(y);
  cr_assert_eq(tn_output(g, "y", y), TN_EINPUT, "the status of the first failure");
  cr_assert_str_eq(tn_error(ctx), first);
  cr_assert_eq(tn_params(g, 0, NULL), 0, "failed layers leave no parameters");
  cr_assert_null(tn_find(g, "d.weight"));
  /* the graph is as before, and goes on */
  tn_tensor *c = tn_add(g, a, a);
  OK(tn_output(g, NULL, c));
  float x[6] = {1, 2, 3, 4, 5, 6}, out[6], z[4] = {0};
  OK(tn_run(compiled(NULL), BIND({a, x}, {b, z}, {c, out})));
  near(out, (float[]){2, 4, 6, 8, 10, 12}, 6);
}

Test(api, messages_name_call_and_node) {
  tn_tensor *x = tn_input(g, "x", TN_F32, 4, DIMS(1, 3, 8, 8)), *i = tn_input(g, "i", TN_I64, 1, DIMS(3));
  NULLS(tn_input(g, "x", TN_F32, 0, NULL), "tn_input: the name 'x' is taken");
  NULLS(tn_input(g, "z", (tn_dtype)77, 0, NULL), "tn_input: 'z': dtype 77");
  NULLS(tn_input(g, "z", TN_F32, 10, DIMS(0)), "rank 10");
  NULLS(tn_input(g, "z", TN_F32, 1, DIMS(-5)), "axis 0 has extent -5");
  NULLS(tn_input(g, "z", TN_F32, 3, DIMS(INT64_MAX, 4, 4)), "overflows");
  NULLS(tn_const(g, "c", TN_F32, 1, DIMS(2), NULL), "tn_const: 'c': data is null");
  NULLS(tn_param(g, "p", TN_F32, 3, DIMS(INT64_MAX, 4, 4), NULL), "overflows");
  NULLS(tn_scalar(g, TN_INDEX, 1), "tn_scalar: dtype");
  NULLS(tn_matmul(g, x, i), "tn_matmul: node 'matmul_");
  NULLS(tn_conv2d(g, i, 4, 3, 1, 1, "c1"), "tn_conv2d: 'i' has rank 1");
  NULLS(tn_conv2d(g, x, 4, 9, 1, 0, "c1"), "tn_conv2d: node 'c1'");
  NULLS(tn_conv(g, x, 4, &(tn_conv_options){.kernel = {3, 3}, .groups = 2}, "c1"), "tn_conv: 2 groups do not divide 3");
  NULLS(tn_dense(g, i, 4, "d"), "tn_dense: 'i' has dtype i64");
  NULLS(tn_dense(g, x, -4, "d"), "tn_dense: units is -4");
  NULLS(tn_attention(g, x, x, x, 3, tn_omit(), "at"), "tn_attention: 3 heads do not divide");
  NULLS(tn_op(g, "Convolution", 1, &x, NULL), "tn_op: unknown op Convolution");
  NULLS(tn_op(g, "Conv", 1, &x, NULL), "tn_op: node 'conv_");
  NULLS(tn_op(g, "Softmax", 1, &x, "axis=[1"), "tn_op: attributes 'axis=[1'");
  NULLS(tn_op(g, "Softmax", 1, &x, "axes=1"), "has no attribute 'axes'; it has: axis");
  NULLS(tn_op(g, "Softmax", 1, &x, "axis=1 axis=2"), "given twice");
  NULLS(tn_op(g, "Softmax", 1, &x, "axis=9"), "axis 9");
  NULLS(tn_reshape(g, x, 2, DIMS(5, 7)), "tn_reshape: node");
  NULLS(tn_transpose(g, x, (int[]){0, 1, 2, 2}), "tn_transpose: node");
  tn_graph *h = tn_graph_new(ctx, "other");
  NULLS(tn_relu(h, x), "tn_relu: node 'relu_1': input 0 ('x') belongs to another graph");
  FAILS(tn_output(h, "y", x), TN_EUSAGE, "tn_output: 'x' belongs to another graph");
  NULLS(tn_compile(h, NULL, 0, NULL), "tn_compile: the graph has no output");
  NULLS(tn_compile(h, NULL, 1, &x), "tn_compile: fetched tensor 0 ('x') belongs to another graph");
  OK(tn_output(g, NULL, x));
  FAILS(tn_output(g, NULL, x), TN_EUSAGE, "'x' is an output already");
  NULLS(tn_compile(g, &(tn_options){.cpu = "pdp11"}, 0, NULL), "tn_compile: ");
  NULLS(tn_compile(g, &(tn_options){.accuracy = "high"}, 0, NULL), "tn_compile: accuracy 'high'");
  FAILS(tn_save_object(g, NULL, "x.o", NULL, "9x", TN_WEIGHTS_EMBED), TN_EUSAGE, "tn_save_object: ");
  FAILS(tn_save_object(g, NULL, "/nowhere/x.o", NULL, "x", TN_WEIGHTS_EMBED), TN_ERESOURCE, "/nowhere/x.o");
  FAILS(tn_graph_set_dim(g, "n", 3), TN_EUSAGE, "tn_graph_set_dim: the graph has no dimension 'n'");
  cr_assert_null(tn_graph_load(ctx, "/nowhere/model.onnx"));
  cr_assert(strstr(tn_error(ctx), "/nowhere/model.onnx"));
}

Test(api, attributes_of_all_kinds) {
  tn_tensor *x = tn_input(g, "x", TN_F32, 1, DIMS(3)), *shape = tn_const(g, NULL, TN_I64, 1, DIMS(1), (int64_t[]){3});
  tn_tensor *y = tn_op(g, "LeakyRelu", 1, &x, "alpha=1");                            /* an integer for a float */
  tn_tensor *z = tn_op(g, "ConstantOfShape", 1, &shape, "value=-2.5");              /* a tensor of one element */
  tn_tensor *k = tn_op(g, "ConstantOfShape", 1, &shape, "value=7i32");
  tn_tensor *c = tn_op(g, "Clip", 3, (tn_tensor *[]){x, tn_omit(), tn_scalar(g, TN_F32, 1.5)}, NULL);
  tn_tensor *gelu = tn_op(g, "Gelu", 1, &x, "approximate=tanh");                     /* a bare word for a string */
  tn_tensor *four = tn_op(g, "Unsqueeze", 2, (tn_tensor *[]){x, tn_const(g, NULL, TN_I64, 1, DIMS(3), (int64_t[]){0, 1, 2})}, "");
  tn_tensor *pad = tn_op(g, "AveragePool", 1, &four, "kernel_shape=[1 , 2], pads=[0,0,0,1], count_include_pad=1");
  cr_assert(y && z && k && c && gelu && pad, "%s", tn_error(ctx));
  cr_assert_eq(tn_type(k), TN_I32);
  tn_tensor *sum = tn_add(g, tn_add(g, y, z), c);
  OK(tn_output(g, "sum", sum));
  OK(tn_output(g, "k", k));
  tn_tensor *parts[2], *two[2];
  OK(tn_op_n(g, "Split", 1, (tn_tensor *[]){tn_concat(g, 2, (tn_tensor *[]){x, x}, 0)}, "num_outputs=2", 2, parts));
  OK(tn_op_n(g, "TopK", 2, (tn_tensor *[]){x, tn_const(g, NULL, TN_I64, 1, DIMS(1), (int64_t[]){2})}, "largest=1", 2, two));
  tn_tensor *fetch[] = {parts[1], two[1]};
  tn_module *m = tn_compile(g, NULL, 2, fetch);
  cr_assert(m, "%s", tn_error(ctx));
  float in[3] = {-1, 1, 3}, out[3], half[3];
  int32_t seven[3];
  int64_t top[2];
  OK(tn_run(m, BIND({x, in}, {sum, out}, {k, seven}, {parts[1], half}, {two[1], top})));
  near(out, (float[]){-1 - 2.5f - 1, 1 - 2.5f + 1, 3 - 2.5f + 1.5f}, 3);
  near(half, in, 3);
  cr_assert(seven[0] == 7 && seven[2] == 7);
  cr_assert(top[0] == 2 && top[1] == 1);
}

Test(api, dimensions_get_sizes) {
  int64_t n = tn_dim(g, "n");
  cr_assert_eq(n, tn_dim(g, "n"), "the same name is the same dimension");
  tn_tensor *x = tn_input(g, "x", TN_F32, 2, DIMS(n, 4));
  tn_tensor *y = tn_dense(g, tn_relu(g, x), 2, "d");
  int64_t dims[TN_MAX_RANK];
  cr_assert_eq(tn_shape(y, dims), 2);
  cr_assert(dims[0] == -1 && dims[1] == 2);
  cr_assert_eq(tn_bytes(y), -1);
  OK(tn_output(g, "y", y));
  NULLS(tn_compile(g, NULL, 0, NULL), "dimensions without a size: n");
  OK(tn_param_set(tn_find(g, "d.weight"), (float[]){1, 0, 0, 0, 0, 0, 0, 1}));
  for (int64_t size = 1; size < 4; size++) { /* one graph, several modules */
    OK(tn_graph_set_dim(g, "n", size));
    cr_assert_eq(tn_shape(y, dims), 2);
    cr_assert_eq(dims[0], size);
    tn_module *m = compiled(NULL);
    float in[12] = {1, 2, 3, 4, 5, 6, 7, 8, -9, 10, 11, 12}, out[7];
    out[2 * size] = 77;
    OK(tn_run(m, BIND({x, in}, {y, out})));
    near(out, (float[]){1, 4, 5, 8, 0, 12}, 2 * (int)size);
    cr_assert_eq(out[2 * size], 77);
    tn_module_free(m);
  }
}

Test(api, inputs_that_decide_shapes) {
  tn_tensor *x = tn_input(g, "x", TN_F32, 1, DIMS(6)), *s = tn_input(g, "s", TN_I64, 1, DIMS(2));
  cr_assert_null(tn_op(g, "Reshape", 2, (tn_tensor *[]){x, s}, NULL));
  /* computed shapes are known at once */
  tn_tensor *shape = tn_op(g, "Shape", 1, &x, NULL), *two = tn_const(g, NULL, TN_I64, 1, DIMS(1), (int64_t[]){2});
  tn_tensor *y = tn_op(g, "Reshape", 2, (tn_tensor *[]){x, tn_concat(g, 2, (tn_tensor *[]){two, tn_div(g, shape, two)}, 0)}, NULL);
  int64_t dims[TN_MAX_RANK];
  cr_assert_eq(tn_shape(y, dims), 2, "%s", tn_error(ctx));
  cr_assert(dims[0] == 2 && dims[1] == 3);
}

Test(api, fetches_any_tensor) {
  tn_tensor *x = tn_input(g, "x", TN_F32, 1, DIMS(4)), *p = tn_param(g, "p", TN_F32, 1, DIMS(4), (float[]){1, 2, 3, 4});
  tn_tensor *c = tn_const(g, "c", TN_F32, 1, DIMS(4), (float[]){5, 6, 7, 8});
  tn_tensor *a = tn_mul(g, x, p), *b = tn_relu(g, a), *y = tn_add(g, b, c), *unused = tn_tanh(g, y);
  OK(tn_output(g, "y", y));
  OK(tn_output(g, "copy", x));
  tn_tensor *fetch[] = {a, p, c, y, a, unused, x, b};
  tn_module *m = tn_compile(g, NULL, 8, fetch);
  cr_assert(m, "%s", tn_error(ctx));
  float in[4] = {1, -1, 2, -2}, oa[4], op[4], oc[4], oy[4], ob[4], ox[4], ou[4];
  OK(tn_run(m, BIND({x, in}, {b, ob}, {a, oa}, {p, op}, {c, oc}, {y, oy}, {x, ox}, {unused, ou})));
  near(oa, (float[]){1, -2, 6, -8}, 4);
  near(ob, (float[]){1, 0, 6, 0}, 4);
  near(op, (float[]){1, 2, 3, 4}, 4);
  near(oc, (float[]){5, 6, 7, 8}, 4);
  near(oy, (float[]){6, 6, 13, 8}, 4);
  near(ox, in, 4);
  for (int i = 0; i < 4; i++) cr_assert_float_eq(ou[i], tanhf(oy[i]), 1e-6);
  memset(oy, 0, sizeof oy);
  OK(tn_run(m, BIND({x, in}, {y, oy}))); /* the others are dropped */
  near(oy, (float[]){6, 6, 13, 8}, 4);
  OK(tn_module_set(m, p, (float[]){2, 2, 2, 2}));
  OK(tn_run(m, BIND({p, op}, {x, in}, {a, oa})));
  near(op, (float[]){2, 2, 2, 2}, 4);
  near(oa, (float[]){2, -2, 4, -4}, 4);
}

Test(api, wrong_runs) {
  tn_tensor *x = tn_input(g, "x", TN_F32, 1, DIMS(4)), *y = tn_relu(g, x), *z = tn_relu(g, y);
  OK(tn_output(g, "z", z));
  tn_module *m = compiled(NULL);
  float in[4] = {0}, out[4];
#define RUN_FAILS(text, ...)                                                                  \
  do {                                                                                        \
    cr_assert_eq(tn_run(m, BIND(__VA_ARGS__)), TN_EUSAGE);                                    \
    cr_assert(strstr(tn_run_error(), text), "message: %s", tn_run_error());                   \
  } while (0)
  RUN_FAILS("input 'x' is not bound", {z, out});
  RUN_FAILS("'x' is bound twice", {x, in}, {x, in}, {z, out});
  RUN_FAILS("'z' is bound twice", {x, in}, {z, out}, {z, out});
  RUN_FAILS("is no input, output or fetched tensor", {x, in}, {y, out});
  RUN_FAILS("data of input 'x' is null", {x, NULL}, {z, out});
  RUN_FAILS("data of output 'z' is null", {x, in}, {z, NULL});
  RUN_FAILS("tensor of binding 1 is null", {x, in}, {NULL, out});
  cr_assert_eq(tn_run(NULL, 0, NULL), TN_EUSAGE);
  cr_assert_eq(tn_module_set(m, x, in), TN_EUSAGE);
  cr_assert(strstr(tn_run_error(), "'x' is no parameter"));
}

Test(api, parameters_change_without_compiling) {
  /* views, folded normalisation, packed and scalar parameters */
  tn_tensor *x = tn_input(g, "x", TN_F32, 4, DIMS(1, 2, 4, 4));
  tn_tensor *y = tn_batch_norm(g, tn_conv2d(g, x, 3, 3, 1, 1, "conv"), 1e-5, "bn");
  tn_tensor *scale = tn_param(g, "scale", TN_F32, 0, NULL, (float[]){2});
  tn_tensor *row = tn_param(g, "row", TN_F32, 1, DIMS(12), (float[]){1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3});
  tn_tensor *seen = tn_reshape(g, tn_slice(g, row, 0, 4, 8), 2, DIMS(4, 1));
  y = tn_mul(g, tn_add(g, y, seen), scale);
  OK(tn_output(g, "y", y));
  tn_module *m = compiled(NULL);
  static float in[32], a[48], b[48], w[54], nine[12];
  for (int i = 0; i < 32; i++) in[i] = (float)(i % 7) - 3;
  OK(tn_run(m, BIND({x, in}, {y, a})));
  for (int i = 0; i < 54; i++) w[i] = i % 9 == 4 ? 1 : 0; /* sums the channels */
  for (int i = 0; i < 12; i++) nine[i] = 9;
  OK(tn_module_set(m, tn_find(g, "conv.weight"), w));
  OK(tn_module_set(m, tn_find(g, "conv.bias"), (float[]){1, 2, 3}));
  OK(tn_module_set(m, tn_find(g, "bn.weight"), (float[]){1, 2, 3}));
  OK(tn_module_set(m, tn_find(g, "bn.running_var"), (float[]){4, 4, 4}));
  OK(tn_module_set(m, row, nine));
  OK(tn_module_set(m, scale, (float[]){3}));
  OK(tn_run(m, BIND({x, in}, {y, b})));
  for (int c = 0; c < 3; c++)
    for (int i = 0; i < 16; i++) {
      float v = (in[i] + in[16 + i] + (float)(c + 1)) / sqrtf(4 + 1e-5f) * (float)(c + 1);
      cr_assert_float_eq(b[16 * c + i], 3 * (v + 9), 1e-4);
    }
  /* the graph has the old ones: a new module computes what the first one did */
  tn_module *again = compiled(NULL);
  OK(tn_run(again, BIND({x, in}, {y, b})));
  cr_assert_arr_eq(a, b, sizeof a);
  OK(tn_param_set(scale, (float[]){4}));
  cr_assert_eq(((const float *)tn_data(scale))[0], 4);
  OK(tn_run(again, BIND({x, in}, {y, b})));
  cr_assert_arr_eq(a, b, sizeof a);
  OK(tn_run(compiled(NULL), BIND({x, in}, {y, b})));
  for (int i = 0; i < 48; i++) a[i] *= 2;
  near(b, a, 48);
}

Test(api, parameters_need_data) {
  tn_tensor *x = tn_input(g, "x", TN_F32, 1, DIMS(2)), *p = tn_param(g, "p", TN_F32, 1, DIMS(2), NULL);
  tn_param(g, "unused", TN_F32, 1, DIMS(2), NULL);
  tn_tensor *y = tn_add(g, x, p);
  OK(tn_output(g, "y", y));
  NULLS(tn_compile(g, NULL, 0, NULL), "tn_compile: 'p' has no data");
  cr_assert_null(tn_data(p));
  FAILS(tn_save_safetensors(g, "x.safetensors"), TN_EUSAGE, "parameter 'p' has no data");
  FAILS(tn_param_set(x, (float[]){1, 2}), TN_EUSAGE, "tn_param_set: 'x' is no parameter");
  OK(tn_param_set(p, (float[]){1, 2}));
  float in[2] = {1, 1}, out[2];
  OK(tn_run(compiled(NULL), BIND({x, in}, {y, out})));
  near(out, (float[]){2, 3}, 2);
}

static void file_in(char path[256], const char *name) {
  const char *tmp = getenv("TMPDIR");
  snprintf(path, 256, "%s/tenon-api-%ld-%s", tmp && *tmp ? tmp : "/tmp", (long)getpid(), name);
}

static const char *renamed(void *user, const char *name) {
  static char text[64];
  if (strcmp(name, user) == 0) return NULL;
  snprintf(text, sizeof text, "%s", name);
  if (*text == 'b') *text = 'a';
  return text;
}

Test(api, weights_from_safetensors) {
  char path[256];
  file_in(path, "w.safetensors");
  tn_tensor *x = tn_input(g, "x", TN_F32, 2, DIMS(1, 3));
  tn_dense(g, x, 4, "a");
  OK(tn_save_safetensors(g, path));
  tn_graph *h = tn_graph_new(ctx, "second");
  tn_tensor *hx = tn_input(h, "x", TN_F32, 2, DIMS(1, 3)), *hy = tn_dense(h, hx, 4, "b");
  int missing = -1;
  FAILS(tn_load_safetensors(h, path, NULL, NULL, NULL), TN_EINPUT, "2 parameters have no tensor in it: b.weight, b.bias");
  OK(tn_load_safetensors(h, path, NULL, NULL, &missing));
  cr_assert_eq(missing, 2);
  cr_assert_eq(((const float *)tn_data(tn_find(h, "b.bias")))[0], 0);
  OK(tn_param_set(tn_find(g, "a.bias"), (float[]){1, 2, 3, 4}));
  OK(tn_save_safetensors(g, path));
  OK(tn_load_safetensors(h, path, renamed, "", &missing));
  cr_assert_eq(missing, 0);
  OK(tn_output(h, "y", hy));
  tn_module *m = tn_compile(h, NULL, 0, NULL);
  cr_assert(m, "%s", tn_error(ctx));
  float in[3] = {0}, out[4];
  OK(tn_run(m, BIND({hx, in}, {hy, out})));
  near(out, (float[]){1, 2, 3, 4}, 4);
  tn_graph *k = tn_graph_new(ctx, "third");
  tn_dense(k, tn_input(k, "x", TN_F32, 2, DIMS(1, 5)), 4, "a");
  FAILS(tn_load_safetensors(k, path, NULL, NULL, NULL), TN_EINPUT, "tensor 'a.weight' is f32[4,3], the parameter 'a.weight' is f32[4,5]");
  OK(tn_load_safetensors(k, path, renamed, "a.weight", &missing));
  unlink(path);
  FAILS(tn_load_safetensors(k, path, NULL, NULL, NULL), TN_ERESOURCE, "tn_load_safetensors: ");
}

static tn_graph *graph_from_text(const char *text) {
  char path[256];
  file_in(path, "graph.tn");
  FILE *f = fopen(path, "w");
  cr_assert(f);
  fputs(text, f);
  fclose(f);
  tn_graph *g = tn_graph_load(ctx, path);
  cr_assert(g, "%s", tn_error(ctx));
  unlink(path);
  return g;
}

Test(api, graphs_from_text) {
  tn_graph *h = graph_from_text("graph sample {\n  dim n\n  input x : f32[n, 2]\n  param w : f32[2, 2] = [1.0, 2.0, 3.0, 4.0]\n  t = MatMul(x, w)\n  y = Relu(t)\n  output y\n}\n");
  tn_tensor *in[2], *out[2], *w[2];
  cr_assert_eq(tn_inputs(h, 2, in), 1);
  cr_assert_eq(tn_outputs(h, 2, out), 1);
  cr_assert_eq(tn_params(h, 2, w), 1);
  cr_assert_str_eq(tn_name(in[0]), "x");
  cr_assert_eq(tn_shape(out[0], NULL), -1, "not known before the dimension is");
  OK(tn_graph_set_dim(h, "n", 1));
  cr_assert_eq(tn_bytes(out[0]), 8);
  tn_tensor *t = tn_find(h, "t");
  tn_module *m = tn_compile(h, NULL, 1, &t);
  cr_assert(m, "%s", tn_error(ctx));
  float x[2] = {1, -1}, y[2], z[2];
  OK(tn_run(m, BIND({in[0], x}, {out[0], y}, {t, z})));
  near(z, (float[]){-2, -2}, 2);
  near(y, (float[]){0, 0}, 2);
  OK(tn_module_set(m, w[0], (float[]){3, 0, 0, 1}));
  OK(tn_run(m, BIND({in[0], x}, {out[0], y})));
  near(y, (float[]){3, 0}, 2);
  /* it may be built upon */
  tn_tensor *more = tn_add(h, out[0], tn_scalar(h, TN_F32, 1));
  OK(tn_output(h, "more", more));
  m = tn_compile(h, NULL, 0, NULL);
  OK(tn_run(m, BIND({in[0], (float[]){1, 1}}, {more, y})));
  near(y, (float[]){5, 7}, 2);
}

/* How long an output is may be found by the run. */
Test(api, extents) {
  tn_graph *h = graph_from_text("graph g { opset 17 input n: i64[] input x: f32[2] const most: i64[] = 6 m = Min(n, most) r, y = Loop(m, _, x) { body = graph b { input i: i64[] input c: bool[] input s: f32[2] t = Add(s, s) e = Identity(c) output e, t, t } } output y, r }");
  tn_tensor *in[2], *out[2];
  cr_assert_eq(tn_inputs(h, 2, in), 2);
  cr_assert_eq(tn_outputs(h, 2, out), 2);
  tn_module *m = tn_compile(h, NULL, 0, NULL);
  cr_assert(m, "%s", tn_error(ctx));
  float x[2] = {1, -1}, y[12], r[2];
  for (int64_t n = 0; n < 9; n++) {
    int64_t turns = n < 6 ? n : 6, of_y[2] = {-1, -1}, of_r[1] = {-1}, *extents[4] = {NULL, of_r, NULL, of_y};
    OK(tn_run_extents(m, 0, NULL, 4, ((tn_binding[]){{in[0], &n}, {out[1], r}, {in[1], x}, {out[0], y}}), extents));
    cr_assert(of_y[0] == turns && of_y[1] == 2 && of_r[0] == 2, "%lld x %lld", (long long)of_y[0], (long long)of_y[1]);
    for (int i = 0; i < turns; i++) near(y + 2 * i, (float[]){(float)(2 << i), -(float)(2 << i)}, 2);
  }
  OK(tn_run(m, BIND({in[0], &(int64_t){2}}, {in[1], x}, {out[0], y})));
  near(y, (float[]){2, -2, 4, -4}, 4);
}

Test(api, several_sizes) {
  tn_tensor *x = tn_input(g, "x", TN_F32, 2, DIMS(tn_dim(g, "n"), 2));
  tn_tensor *w = tn_param(g, "w", TN_F32, 2, DIMS(2, 2), (float[]){1, 2, 3, 4}), *y = tn_relu(g, tn_matmul(g, x, w));
  OK(tn_output(g, "y", y));
  FAILS(tn_graph_set_dim_range(g, "m", 1, 8), TN_EUSAGE, "tn_graph_set_dim_range: the graph has no dimension 'm'");
  FAILS(tn_graph_set_dim_range(g, "n", 4, 2), TN_EUSAGE, "dimension 'n': sizes begin with 1 and ascend");
  FAILS(tn_graph_set_dim_sizes(g, "n", 2, DIMS(3, 3)), TN_EUSAGE, "dimension 'n': sizes begin with 1 and ascend");
  float in[16], out[16];
  for (int i = 0; i < 16; i++) in[i] = (float)(i - 5);
  for (int way = 0; way < 2; way++) {
    OK(way ? tn_graph_set_dim_sizes(g, "n", 2, DIMS(2, 7)) : tn_graph_set_dim_range(g, "n", 1, 8));
    tn_module *m = tn_compile(g, NULL, 0, NULL);
    cr_assert(m, "%s", tn_error(ctx));
    for (int n = 0; n < 10; n++) {
      out[0] = -1;
      tn_status s = tn_run_at(m, 1, (tn_size[]){{"n", n}}, BIND({x, in}, {y, out}));
      bool may = way ? n == 2 || n == 7 : n >= 1 && n <= 8;
      cr_assert_eq(s, may ? TN_OK : TN_EUSAGE, "%d: %s", n, tn_run_error());
      for (int i = 0; i < n && may; i++) near(out + 2 * i, (float[]){fmaxf(in[2 * i] + 3 * in[2 * i + 1], 0), fmaxf(2 * in[2 * i] + 4 * in[2 * i + 1], 0)}, 2);
      if (!may) cr_assert_eq(out[0], -1);
    }
    cr_assert_eq(tn_run(m, BIND({x, in}, {y, out})), TN_EUSAGE);
    cr_assert_eq(tn_run_at(m, 1, (tn_size[]){{"k", 1}}, BIND({x, in}, {y, out})), TN_EUSAGE);
    /* parameters of all programs change */
    OK(tn_module_set(m, w, (float[]){2, 0, 0, 2}));
    OK(tn_run_at(m, 1, (tn_size[]){{"n", 7}}, BIND({x, in}, {y, out})));
    for (int i = 0; i < 14; i++) cr_assert_eq(out[i], fmaxf(2 * in[i], 0));
    tn_module_free(m);
  }
  OK(tn_graph_set_dim(g, "n", 3));
  tn_module *m = tn_compile(g, NULL, 0, NULL);
  OK(tn_run(m, BIND({x, in}, {y, out})));
  OK(tn_graph_set_dim_range(g, "n", 1, 8));
  OK(tn_output(g, "all", tn_softmax(g, y, 0)));
  cr_assert_null(tn_compile(g, NULL, 0, NULL));
  cr_assert(strstr(tn_error(ctx), "it is no batch"), "%s", tn_error(ctx));
}

Test(api, objects_in_all_modes) {
  char path[3][256], header[256], text[20000];
  tn_tensor *x = tn_input(g, "x", TN_F32, 2, DIMS(2, 8)), *row = tn_param(g, "row", TN_F32, 1, DIMS(16), NULL);
  tn_tensor *y = tn_mul(g, tn_dense(g, x, 4, "fc"), tn_tanh(g, tn_slice(g, row, 0, 4, 8)));
  OK(tn_output(g, "y", y));
  FAILS(tn_save_object(g, NULL, "/tmp/x.o", NULL, "x", TN_WEIGHTS_EMBED), TN_EUSAGE, "tn_save_object: 'row' has no data");
  OK(tn_param_set(row, (float[16]){1, 2, 3}));
  for (int w = 0; w < 3; w++) {
    const char *name[] = {"embed.o", "file.o", "pointer.o"};
    file_in(path[w], name[w]);
    OK(tn_save_object(g, &(tn_options){.jobs = 2}, path[w], NULL, "net", (tn_weights)w));
    snprintf(header, sizeof header, "%.*s.h", (int)strlen(path[w]) - 2, path[w]);
    FILE *f = fopen(header, "r");
    cr_assert(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    cr_assert(strstr(text, "net_run(") && strstr(text, "NET_INPUT_0_NAME  \"x\"") && strstr(text, "NET_OUTPUT_0_NAME  \"y\""));
    cr_assert_eq(strstr(text, "NET_NUM_RAW 3") != NULL, w == 2, "the three parameters, no views of them");
    cr_assert_eq(strstr(text, "\"row\"") != NULL, w == 2);
    unlink(header);
    unlink(path[w]);
  }
  snprintf(header, sizeof header, "%.*s.weights", (int)strlen(path[1]) - 2, path[1]);
  cr_assert_eq(unlink(header), 0, "weights beside the object");
}

/* ---- threads ---- */

typedef struct shared {
  tn_module *m;
  tn_tensor *x, *y, *scale;
  float want;
  int wrong;
} shared;

static void *runs(void *arg) {
  shared *s = arg;
  static const float in[64] = {1, 2, 3, 4};
  for (int i = 0; i < 300; i++) {
    float out[64];
    if (tn_run(s->m, BIND({s->x, (void *)in}, {s->y, out})) != TN_OK) s->wrong++;
    float k = out[0]; /* one scale for the whole run */
    if (out[1] != 2 * k || out[3] != 4 * k || k < 1 || k > 9) s->wrong++;
  }
  return NULL;
}

Test(api, threads_share_a_module) {
  tn_tensor *x = tn_input(g, "x", TN_F32, 2, DIMS(8, 8)), *scale = tn_param(g, "scale", TN_F32, 1, DIMS(1), (float[]){1});
  tn_tensor *y = tn_mul(g, x, scale);
  OK(tn_output(g, "y", y));
  tn_module *m = tn_compile(g, &(tn_options){.threads = 3, .jobs = 2}, 0, NULL);
  cr_assert(m, "%s", tn_error(ctx));
  pthread_t t[4];
  shared s[4];
  for (int i = 0; i < 4; i++) {
    s[i] = (shared){m, x, y, scale, 0, 0};
    cr_assert_eq(pthread_create(&t[i], NULL, runs, &s[i]), 0);
  }
  for (int i = 0; i < 100; i++) OK(tn_module_set(m, scale, (float[]){(float)(1 + i % 9)}));
  for (int i = 0; i < 4; i++) {
    pthread_join(t[i], NULL);
    cr_assert_eq(s[i].wrong, 0);
  }
}

Test(api, empty_and_trivial) {
  tn_tensor *x = tn_input(g, "x", TN_F32, 2, DIMS(0, 3)), *s = tn_input(g, "s", TN_F64, 0, NULL);
  tn_tensor *y = tn_concat(g, 2, (tn_tensor *[]){x, tn_const(g, NULL, TN_F32, 2, DIMS(1, 3), (float[]){1, 2, 3})}, 0);
  tn_tensor *z = tn_mul(g, s, tn_scalar(g, TN_F64, 0.5));
  OK(tn_output(g, "y", y));
  OK(tn_output(g, "z", z));
  OK(tn_output(g, "x2", x));
  tn_module *m = compiled(NULL);
  float out[3];
  double d = 3, half;
  OK(tn_run(m, BIND({x, NULL}, {s, &d}, {y, out}, {z, &half})));
  near(out, (float[]){1, 2, 3}, 3);
  cr_assert_eq(half, 1.5);
}

Test(api, many_names_and_free_orders) {
  cr_assert_null(tn_graph_new(NULL, "x"));
  cr_assert_null(tn_relu(NULL, NULL));
  cr_assert_eq(tn_output(NULL, "x", NULL), TN_EUSAGE);
  tn_module_free(NULL);
  tn_ctx_free(NULL);
  tn_tensor *x = tn_input(g, NULL, TN_F32, 1, DIMS(2)), *named = tn_input(g, "relu_2", TN_F32, 1, DIMS(2));
  tn_tensor *y = tn_relu(g, x);
  cr_assert(named && strcmp(tn_name(y), "relu_2") != 0);
  for (int i = 0; i < 300; i++) y = tn_add(g, y, x);
  cr_assert(y, "%s", tn_error(ctx));
  OK(tn_output(g, "y", y));
  for (int i = 0; i < 3; i++) {
    tn_module *m = compiled(NULL);
    if (i != 1) tn_module_free(m); /* the context frees the other one */
  }
}
