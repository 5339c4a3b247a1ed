/* train.c — one step of training of four networks, for bench/train.py, which times torch on the same.
 *
 *   bench_train MODEL DIR SECONDS [LOSSES]
 *
 * DIR/MODEL.safetensors holds the weights to start from, MODEL.x and MODEL.t the batch (f32 or i64, labels i64).
 * Prints one JSON object: the losses of the first steps, the median time of the ones after, peak memory. */
#include "frontend/tenon.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define DIMS(...) (int64_t[]){__VA_ARGS__}

static tn_tensor *mlp(tn_graph *g, tn_tensor *x) {
  tn_tensor *h = tn_relu(g, tn_dense(g, x, 512, "fc1"));
  return tn_dense(g, tn_relu(g, tn_dense(g, h, 512, "fc2")), 10, "fc3");
}

static tn_tensor *lenet(tn_graph *g, tn_tensor *x) {
  tn_tensor *h = tn_max_pool(g, tn_relu(g, tn_conv2d(g, x, 6, 5, 1, 2, "conv1")), 2, 2, 0);
  h = tn_max_pool(g, tn_relu(g, tn_conv2d(g, h, 16, 5, 1, 0, "conv2")), 2, 2, 0);
  h = tn_relu(g, tn_dense(g, tn_flatten(g, h, 1), 120, "fc1"));
  return tn_dense(g, tn_relu(g, tn_dense(g, h, 84, "fc2")), 10, "fc3");
}

static tn_tensor *conv_norm(tn_graph *g, tn_tensor *x, int64_t channels, int kernel, int stride, const char *at, const char *conv, const char *norm) {
  char name[2][64];
  snprintf(name[0], sizeof name[0], "%s%s", at, conv), snprintf(name[1], sizeof name[1], "%s%s", at, norm);
  tn_conv_options o = {.kernel = {kernel, kernel}, .stride = {stride, stride}, .pad = {kernel / 2, kernel / 2}, .no_bias = 1};
  return tn_batch_norm(g, tn_conv(g, x, channels, &o, name[0]), 1e-5, name[1]);
}

static tn_tensor *resnet18(tn_graph *g, tn_tensor *x) {
  x = tn_max_pool(g, tn_relu(g, conv_norm(g, x, 64, 7, 2, "", "conv1", "bn1")), 3, 2, 1);
  for (int l = 0; l < 4; l++)
    for (int b = 0; b < 2; b++) {
      int64_t width = 64 << l;
      int stride = l && !b ? 2 : 1;
      char at[32];
      snprintf(at, sizeof at, "layer%d.%d.", l + 1, b);
      tn_tensor *h = tn_relu(g, conv_norm(g, x, width, 3, stride, at, "conv1", "bn1"));
      h = conv_norm(g, h, width, 3, 1, at, "conv2", "bn2");
      if (stride == 2) x = conv_norm(g, x, width, 1, 2, at, "downsample.0", "downsample.1");
      x = tn_relu(g, tn_add(g, h, x));
    }
  return tn_dense(g, tn_flatten(g, tn_global_avg_pool(g, x), 1), 1000, "fc");
}

enum { T = 128, E = 384, HEADS = 6, LAYERS = 6, WORDS = 1000 };

static tn_tensor *transformer(tn_graph *g, tn_tensor *ids) {
  static float mask[T * T];
  static int64_t places[T];
  for (int i = 0; i < T; i++) places[i] = i;
  for (int i = 0; i < T * T; i++) mask[i] = i % T > i / T ? -1e9f : 0;
  tn_tensor *m = tn_const(g, "mask", TN_F32, 2, DIMS(T, T), mask);
  tn_tensor *x = tn_add(g, tn_embedding(g, ids, WORDS, E, "tokens"), tn_embedding(g, tn_const(g, "places", TN_I64, 1, DIMS(T), places), T, E, "positions"));
  for (int l = 0; l < LAYERS; l++) {
    char name[6][48];
    static const char *const parts[] = {"norm1", "attention", "out", "norm2", "up", "down"};
    for (int i = 0; i < 6; i++) snprintf(name[i], sizeof name[i], "blocks.%d.%s", l, parts[i]);
    tn_tensor *h = tn_layer_norm(g, x, 1e-5, name[0]);
    x = tn_add(g, x, tn_dense(g, tn_attention(g, h, h, h, HEADS, m, name[1]), E, name[2]));
    h = tn_gelu(g, tn_dense(g, tn_layer_norm(g, x, 1e-5, name[3]), 4 * E, name[4]));
    x = tn_add(g, x, tn_dense(g, h, E, name[5]));
  }
  x = tn_dense(g, tn_layer_norm(g, x, 1e-5, "norm"), WORDS, "head");
  return tn_reshape(g, x, 2, DIMS(-1, WORDS));
}

static const struct model {
  const char *name;
  tn_tensor *(*net)(tn_graph *g, tn_tensor *x);
  tn_dtype dtype;
  int rank;
  int64_t dims[4], labels;
} models[] = {{"mlp", mlp, TN_F32, 2, {64, 784}, 64},
              {"lenet", lenet, TN_F32, 4, {64, 1, 28, 28}, 64},
              {"resnet18", resnet18, TN_F32, 4, {8, 3, 224, 224}, 8},
              {"transformer", transformer, TN_I64, 2, {4, T}, 4 * T}};

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}
static int by_value(const void *a, const void *b) { return *(const double *)a < *(const double *)b ? -1 : *(const double *)a > *(const double *)b; }

static void *contents(const char *dir, const char *model, const char *part, size_t bytes) {
  char path[1024];
  snprintf(path, sizeof path, "%s/%s.%s", dir, model, part);
  void *p = malloc(bytes);
  FILE *f = fopen(path, "rb");
  if (!p || !f || fread(p, 1, bytes, f) != bytes) exit((fprintf(stderr, "%s cannot be read\n", path), 5));
  fclose(f);
  return p;
}

int main(int argc, char **argv) {
  const struct model *m = NULL;
  for (size_t i = 0; argc > 3 && i < sizeof models / sizeof *models; i++)
    if (strcmp(models[i].name, argv[1]) == 0) m = &models[i];
  if (!m) return fprintf(stderr, "bench_train mlp|lenet|resnet18|transformer DIR SECONDS [LOSSES]\n"), 2;
  double seconds = atof(argv[3]);
  int nlosses = argc > 4 ? atoi(argv[4]) : 4;
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_graph *g = tn_graph_new(ctx, m->name);
  tn_tensor *x = tn_input(g, "x", m->dtype, m->rank, m->dims), *t = tn_input(g, "t", TN_I64, 1, &m->labels);
  tn_training(g, 1);
  tn_tensor *loss = tn_cross_entropy(g, m->net(g, x), t);
  char path[1024];
  snprintf(path, sizeof path, "%s/%s.safetensors", argv[2], m->name);
  tn_status s = tn_load_safetensors(g, path, NULL, NULL, NULL);
  if (!s) s = tn_minimize(g, loss, &(tn_optimizer){.kind = TN_SGD, .rate = 0.01, .momentum = 0.9}, 0, NULL);
  if (!s) s = tn_output(g, "loss", loss);
  double begin = now();
  tn_module *module = s ? NULL : tn_compile(g, NULL, 0, NULL);
  if (!module) return fprintf(stderr, "%s\n", tn_error(ctx)), 1;
  double compiled = now() - begin;
  float value;
  tn_binding b[] = {{x, contents(argv[2], m->name, "x", (size_t)tn_bytes(x))}, {t, contents(argv[2], m->name, "t", (size_t)tn_bytes(t))}, {loss, &value}};
  printf("{\"compile_s\": %.2f, \"losses\": [", compiled);
  for (int i = 0; i < nlosses; i++) {
    if (tn_run(module, 3, b)) return fprintf(stderr, "%s\n", tn_run_error()), 1;
    printf("%s%.7g", i ? ", " : "", (double)value);
  }
  enum { MOST = 20000 };
  static double times[MOST];
  int n = 0;
  for (double start = now(); n < 5 || (n < MOST && now() - start < seconds); n++) {
    double before = now();
    if (tn_run(module, 3, b)) return 1;
    times[n] = now() - before;
  }
  qsort(times, (size_t)n, sizeof *times, by_value);
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  printf("], \"ms\": %.4f, \"min_ms\": %.4f, \"steps\": %d, \"peak_mb\": %ld}\n", times[n / 2] * 1e3, times[0] * 1e3, n, usage.ru_maxrss / 1024);
  free(b[0].data), free(b[1].data);
  tn_ctx_free(ctx);
  return 0;
}
