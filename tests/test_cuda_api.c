/* test_cuda_api.c — modules and objects for GPUs through the C API, with the fake driver and the fake NVRTC. */
#include "aot/shell.h"
#include "frontend/tenon.h"
#include "runtime/cuda_lib.h"
#include <math.h>
#include <sys/wait.h>

static tn_tensor *x, *p, *r;
static float data[4 * 81];

/* A net in a folder of its own, under the fake driver's options `fake`; finish() removes both. */
static tn_graph *start(tn_ctx **context, const char *cuda_path, const char *fake) {
  folder();
  setenv("FAKE_CUDA", fake, 1);
  tn_ctx *ctx = *context = tn_ctx_new(NULL);
  setenv("TENON_CUDA_PATH", cuda_path, 1);
  setenv("FAKE_NVRTC_DIR", dir, 1);
  rt_cuda_forget();
  for (int i = 0; i < 4 * 81; i++) data[i] = (float)(i * 37 % 101) / 50 - 1;
  tn_graph *g = tn_graph_new(ctx, "net");
  x = tn_input(g, "x", TN_F32, 4, (int64_t[]){1, 4, 9, 9});
  r = tn_relu(g, tn_conv2d(g, x, 8, 3, 1, 1, "c"));
  p = tn_softmax(g, r, -1);
  cr_assert(tn_output(g, "p", p) == TN_OK && tn_output(g, "r", r) == TN_OK, "%s", tn_error(ctx));
  return g;
}
static void finish(tn_ctx *ctx) {
  tn_ctx_free(ctx);
  SH("rm -rf %s", dir);
}
#define BOTH TN_BUILD_DIR "/tests/fake:" TN_BUILD_DIR "/tests/fake_nvrtc:-"

static void compute(tn_ctx *ctx, tn_graph *g, const char *target, float *out) {
  tn_module *m = tn_compile(g, &(tn_options){.db = "none", .target = target}, 0, NULL);
  cr_assert_not_null(m, "%s: %s", target, tn_error(ctx));
  for (int turn = 0; turn < 2; turn++)
    cr_assert_eq(tn_run(m, 2, (tn_binding[]){{x, data}, {p, out}}), TN_OK, "%s: %s", target, tn_run_error());
  tn_module_free(m);
}

static void same(const float *a, const float *b, int n) {
  for (int i = 0; i < n; i++) cr_assert(fabsf(a[i] - b[i]) <= 1e-5f, "element %d: %g, not %g", i, a[i], b[i]);
}

Test(cuda_api, module) {
  tn_ctx *ctx;
  tn_graph *g = start(&ctx, BOTH, "");
  static float cpu[8 * 81], gpu[8 * 81];
  compute(ctx, g, "cpu", cpu);
  compute(ctx, g, "cuda", gpu);
  same(gpu, cpu, 8 * 81);
  finish(ctx);
}

/* frontend/examples/small_net.c: an inner node fetched, a parameter changed between runs. */
static void small_net(const char *target, float y[2][20], float relu2[2 * 16 * 64]) {
  tn_ctx *ctx;
  start(&ctx, BOTH, "");
  static float pixels[2 * 3 * 256], bias[10];
  for (int i = 0; i < 2 * 3 * 256; i++) pixels[i] = (float)((i * 37 + 11) % 101) / 50 - 1;
  for (int i = 0; i < 10; i++) bias[i] = (float)i;
  tn_graph *g = tn_graph_new(ctx, "small_net");
  tn_tensor *in = tn_input(g, "x", TN_F32, 4, (int64_t[]){2, 3, 16, 16});
  tn_tensor *a = tn_relu(g, tn_conv2d(g, in, 8, 3, 1, 1, "conv1"));
  tn_tensor *b = tn_relu(g, tn_conv2d(g, a, 16, 3, 2, 1, "conv2"));
  tn_tensor *out = tn_dense(g, tn_flatten(g, b, 1), 10, "fc");
  cr_assert_eq(tn_output(g, "y", out), TN_OK);
  tn_module *m = tn_compile(g, &(tn_options){.db = "none", .target = target}, 1, &b);
  cr_assert_not_null(m, "%s: %s", target, tn_error(ctx));
  cr_assert_eq(tn_run(m, 3, (tn_binding[]){{in, pixels}, {out, y[0]}, {b, relu2}}), TN_OK, "%s: %s", target, tn_run_error());
  cr_assert_eq(tn_module_set(m, tn_find(g, "fc.bias"), bias), TN_OK, "%s", tn_run_error());
  cr_assert_eq(tn_run(m, 2, (tn_binding[]){{out, y[1]}, {in, pixels}}), TN_OK, "%s: %s", target, tn_run_error());
  tn_module_free(m);
  finish(ctx);
}

Test(cuda_api, example) {
  static float cpu[2][20], gpu[2][20], inner[2][2 * 16 * 64];
  small_net("cpu", cpu, inner[0]);
  small_net("cuda", gpu, inner[1]);
  same(gpu[0], cpu[0], 20);
  same(gpu[1], cpu[1], 20);
  same(inner[1], inner[0], 2 * 16 * 64);
  cr_assert(fabsf(cpu[1][9] - cpu[0][9]) > 0.1f, "the change shows");
}

Test(cuda_api, trap) {
  tn_ctx *ctx;
  tn_graph *g = start(&ctx, BOTH, "trap=2");
  static float gpu[8 * 81];
  tn_module *m = tn_compile(g, &(tn_options){.db = "none", .target = "cuda:sm_90a"}, 0, NULL);
  cr_assert_not_null(m, "%s", tn_error(ctx));
  tn_run(m, 2, (tn_binding[]){{x, data}, {p, gpu}});
  tn_status s = tn_run(m, 2, (tn_binding[]){{x, data}, {p, gpu}});
  cr_assert(s == TN_EINTERNAL && strstr(tn_run_error(), "lost"), "status %d: %s", s, tn_run_error());
  finish(ctx);
}

Test(cuda_api, absent) {
  tn_ctx *ctx;
  tn_graph *g = start(&ctx, "/nowhere:-", "");
  cr_assert_null(tn_compile(g, &(tn_options){.db = "none", .target = "cuda"}, 0, NULL));
  cr_assert(strstr(tn_error(ctx), "CUDA driver is not there"), "%s", tn_error(ctx));
  finish(ctx);
}

Test(cuda_api, object) {
  tn_ctx *ctx;
  tn_graph *g = start(&ctx, BOTH, "");
  static float cpu[8 * 81], gpu[8 * 81];
  compute(ctx, g, "cpu", cpu);
  char path[128], out[256];
  snprintf(path, sizeof path, "%s/net.o", dir);
  for (int file = 0; file < 2; file++) {
    tn_status s = tn_save_object(g, &(tn_options){.db = "none", .target = "cuda:sm_80,sm_90a"}, path, NULL, "net", file ? TN_WEIGHTS_FILE : TN_WEIGHTS_EMBED);
    cr_assert_eq(s, TN_OK, "%s", tn_error(ctx));
    snprintf(path, sizeof path, "%s/x.bin", dir);
    FILE *f = fopen(path, "wb");
    cr_assert(f && fwrite(data, 1, sizeof data, f) == sizeof data);
    fclose(f);
    SH("cc -std=c11 -Wall -Wextra -Werror -O1 -I. %s/tests/aot/cuda.c net.o -o app -ldl", TN_SOURCE_DIR);
    SH("nm -u net.o | grep -v -x -E ' *U (memcpy|memset|memmove)' && exit 1 || test \"$(nm -g --defined-only net.o | awk '{print $3}' | sort | xargs)\" = 'net_close net_error net_run'");
#define APP(want, env, text)                                                                                                                        \
  cr_assert(WEXITSTATUS(sh(out, sizeof out, "env %s ./app %s/tests/fake/libcuda.so x.bin", env, TN_BUILD_DIR)) == want && strstr(out, text), "%s: %s", env, out)
    APP(0, "FAKE_CUDA=", "run 0, driver 0");
    snprintf(path, sizeof path, "%s/p.bin", dir);
    f = fopen(path, "rb");
    cr_assert(f && fread(gpu, 1, sizeof gpu, f) == sizeof gpu);
    fclose(f);
    same(gpu, cpu, 8 * 81);
    APP(0, "FAKE_CUDA=sm=86", "run 0, driver 0");
    APP(7, "FAKE_CUDA=sm=100", "run 7, driver 0");
    APP(7, "FAKE_CUDA=nodevice", "run 7, driver 100");
    APP(8, "FAKE_CUDA=memory=3000", "run 8, driver 2");
    APP(9, "FAKE_CUDA=trap=2", "run 9, driver 719");
    APP(6, "MISSING=cuLaunchKernel", "run 6, driver 0");
    snprintf(path, sizeof path, "%s/net.o", dir);
  }
  finish(ctx);
}

/* ---- steps of training: states ---- */

static const char step_program[] =
    "#include \"net.h\"\n#include <dlfcn.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n"
    "static void *getproc(void *lib, const char *name) { return dlsym(lib, name); }\n"
    "static char state[NET_STATE_BYTES] __attribute__((aligned(64)));\n"
    "int main(int argc, char **argv) {\n"
    "  void *lib = dlopen(argv[argc - 1], RTLD_NOW), *arena = aligned_alloc(64, (NET_ARENA_BYTES(1) + 63) / 64 * 64);\n"
    "  net_cuda cuda = {lib, getproc, 0};\n"
    "  float x[12], t[8], loss;\n"
    "  memset(arena, 0, NET_ARENA_BYTES(1));\n"
    "  for (int i = 0; i < 12; i++) x[i] = (float)(i % 5) / 3;\n"
    "  for (int i = 0; i < 8; i++) t[i] = (float)(i % 3);\n"
    "  const void *in[] = {x, t};\n"
    "  void *out[] = {&loss};\n"
    "  if (net_run(in, out, NULL, NULL, NULL, NULL, arena, &cuda) != 1) return 2;\n"
    "  int e = net_init(state, NULL);\n"
    "  for (int i = 0; i < 4 && !e; i++) {\n"
    "    e = net_run(in, out, NULL, NULL, NULL, state, arena, &cuda);\n"
    "    printf(\"%s%.5f\", i ? \" \" : \"\", loss);\n"
    "  }\n"
    "  net_close(arena);\n"
    "  return e;\n"
    "}\n";

Test(cuda_api, training) {
  tn_ctx *ctx;
  start(&ctx, BOTH, "");
  tn_graph *g = tn_graph_new(ctx, "step");
  tn_tensor *in = tn_input(g, "x", TN_F32, 2, (int64_t[]){4, 3}), *t = tn_input(g, "t", TN_F32, 2, (int64_t[]){4, 2}), *loss = tn_mse(g, tn_dense(g, in, 2, "fc"), t);
  cr_assert(tn_minimize(g, loss, &(tn_optimizer){.kind = TN_SGD, .rate = 0.1, .momentum = 0.9}, 0, NULL) == TN_OK && tn_output(g, "loss", loss) == TN_OK, "%s", tn_error(ctx));
  float a[12], b[8], losses[2][4];
  for (int i = 0; i < 12; i++) a[i] = (float)(i % 5) / 3;
  for (int i = 0; i < 8; i++) b[i] = (float)(i % 3);
  char want[64] = "", out[256], path[128];
  for (int gpu = 0; gpu < 2; gpu++) {
    tn_module *m = tn_compile(g, &(tn_options){.db = "none", .target = gpu ? "cuda" : "cpu"}, 0, NULL);
    cr_assert_not_null(m, "%s", tn_error(ctx));
    for (int k = 0; k < 4; k++) cr_assert_eq(tn_run(m, 3, (tn_binding[]){{in, a}, {t, b}, {loss, &losses[gpu][k]}}), TN_OK, "%s", tn_run_error());
    tn_module_free(m);
  }
  same(losses[1], losses[0], 4);
  cr_assert(losses[0][3] < losses[0][0] / 2, "it learns");
  for (int k = 0; k < 4; k++) sprintf(want + strlen(want), "%s%.5f", k ? " " : "", losses[1][k]);
  snprintf(path, sizeof path, "%s/net.o", dir);
  cr_assert_eq(tn_save_object(g, &(tn_options){.db = "none", .target = "cuda:sm_90a"}, path, NULL, "net", TN_WEIGHTS_EMBED), TN_OK, "%s", tn_error(ctx));
  snprintf(path, sizeof path, "%s/step.c", dir);
  FILE *f = fopen(path, "w");
  cr_assert(f && fputs(step_program, f) >= 0);
  fclose(f);
  SH("cc -std=gnu11 -Wall -Wextra -Werror -O1 -I. step.c net.o -o step -ldl");
  cr_assert(sh(out, sizeof out, "./step %s/tests/fake/libcuda.so", TN_BUILD_DIR) == 0 && strcmp(out, want) == 0, "'%s', not '%s'", out, want);
  finish(ctx);
}

/* ---- several sizes ---- */

static const char sizes_program[] =
    "#include \"net.h\"\n#include <dlfcn.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n"
    "static void *getproc(void *lib, const char *name) { return dlsym(lib, name); }\n"
    "int main(int argc, char **argv) {\n"
    "  void *lib = dlopen(argv[argc - 1], RTLD_NOW), *arena = aligned_alloc(64, (net_arena_bytes(NULL, 1) + 63) / 64 * 64);\n"
    "  net_cuda cuda = {lib, getproc, 0};\n"
    "  float x[16], y[16];\n"
    "  memset(arena, 0, net_arena_bytes(NULL, 1));\n"
    "  for (int i = 0; i < 16; i++) x[i] = (float)(i - 5);\n"
    "  for (int64_t n = 0; n < 10; n++) {\n"
    "    int64_t shape[2] = {-1, -1};\n"
    "    for (int i = 0; i < 16; i++) y[i] = -1;\n"
    "    int e = net_run((const void *[]){x}, (void *[]){y}, &n, shape, NULL, NULL, arena, &cuda);\n"
    "    printf(\"%d:%d,%d\", e, (int)shape[0], (int)shape[1]);\n"
    "    for (int i = 0; i < 16; i++) printf(\" %g\", y[i]);\n"
    "    puts(\"\");\n"
    "  }\n"
    "  net_close(arena);\n"
    "  return 0;\n"
    "}\n";

static long weights_of(void) {
  char out[64];
  sh(out, sizeof out, "sed -n 's/.*NET_WEIGHTS_BYTES \\([0-9][0-9]*\\)$/\\1/p' net.h");
  return atol(out);
}

Test(cuda_api, several_sizes) {
  tn_ctx *ctx;
  start(&ctx, BOTH, "");
  tn_graph *g = tn_graph_new(ctx, "sizes");
  tn_tensor *in = tn_input(g, "x", TN_F32, 2, (int64_t[]){tn_dim(g, "n"), 2});
  tn_tensor *w = tn_param(g, "w", TN_F32, 2, (int64_t[]){2, 2}, (float[]){1, 2, 3, 4}), *y = tn_relu(g, tn_matmul(g, in, w));
  cr_assert_eq(tn_output(g, "y", y), TN_OK);
  float a[16], b[16];
  for (int i = 0; i < 16; i++) a[i] = (float)(i - 5);
  const tn_options o = {.db = "none", .target = "cuda"};
  for (int way = 0; way < 2; way++) {
    cr_assert_eq(way ? tn_graph_set_dim_sizes(g, "n", 2, (int64_t[]){2, 7}) : tn_graph_set_dim_range(g, "n", 1, 8), TN_OK);
    tn_module *m = tn_compile(g, &o, 0, NULL);
    cr_assert_not_null(m, "%s", tn_error(ctx));
    for (int n = 0; n < 10; n++) {
      bool may = way ? n == 2 || n == 7 : n >= 1 && n <= 8;
      for (int i = 0; i < 16; i++) b[i] = -1;
      cr_assert_eq(tn_run_at(m, 1, (tn_size[]){{"n", n}}, 2, (tn_binding[]){{in, a}, {y, b}}), may ? TN_OK : TN_EUSAGE, "%d: %s", n, tn_run_error());
      for (int i = 0; i < 16; i++) {
        float u = a[i & ~1], v = a[i | 1], want = i & 1 ? 2 * u + 4 * v : u + 3 * v;
        cr_assert_eq(b[i], !may || i >= 2 * n ? -1 : fmaxf(want, 0), "%d rows: element %d is %g", n, i, b[i]);
      }
    }
    cr_assert_eq(tn_run(m, 2, (tn_binding[]){{in, a}, {y, b}}), TN_EUSAGE);
    cr_assert_eq(tn_module_set(m, w, (float[]){2, 0, 0, 2}), TN_OK);
    cr_assert_eq(tn_run_at(m, 1, (tn_size[]){{"n", 7}}, 2, (tn_binding[]){{in, a}, {y, b}}), TN_OK);
    for (int i = 0; i < 14; i++) cr_assert_eq(b[i], fmaxf(2 * a[i], 0));
    tn_module_free(m);
  }
  /* an object: the weights are there once; runs at each size, and refuses others */
  char path[128], out[4096], line[512];
  snprintf(path, sizeof path, "%s/net.o", dir);
  long bytes[2];
  for (int way = 0; way < 2; way++) {
    cr_assert_eq(way ? tn_graph_set_dim_range(g, "n", 1, 8) : tn_graph_set_dim(g, "n", 1), TN_OK);
    cr_assert_eq(tn_save_object(g, &(tn_options){.db = "none", .target = "cuda:sm_90a"}, path, NULL, "net", TN_WEIGHTS_EMBED), TN_OK, "%s", tn_error(ctx));
    bytes[way] = weights_of();
  }
  cr_assert(bytes[0] > 0 && bytes[1] == bytes[0], "%ld bytes, %ld of several sizes", bytes[0], bytes[1]);
  snprintf(path, sizeof path, "%s/sizes.c", dir);
  FILE *f = fopen(path, "w");
  cr_assert(f && fputs(sizes_program, f) >= 0);
  fclose(f);
  SH("cc -std=gnu11 -Wall -Wextra -Werror -O1 -I. sizes.c net.o -o sizes -ldl");
  cr_assert_eq(sh(out, sizeof out, "./sizes %s/tests/fake/libcuda.so", TN_BUILD_DIR), 0);
  const char *at = out;
  for (int n = 0; n < 10; n++) {
    bool may = n >= 1 && n <= 8;
    int k = snprintf(line, sizeof line, may ? "0:%d,2" : "5:-1,-1", n);
    for (int i = 0; i < 16; i++) {
      float u = a[i & ~1], v = a[i | 1], want = i & 1 ? 2 * u + 4 * v : u + 3 * v;
      k += snprintf(line + k, sizeof line - (size_t)k, " %g", !may || i >= 2 * n ? -1.0 : (double)fmaxf(want, 0));
    }
    cr_assert(strncmp(at, line, (size_t)k) == 0, "'%.200s', not '%s'", at, line);
    at += k + 1;
  }
  finish(ctx);
}
