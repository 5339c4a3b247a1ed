/* small_net.c — a network in a page: built, run, looked into, changed, saved.
 *   small_net DIR     writes x.bin, relu2.bin, y0.bin, y1.bin, weights.safetensors, net.o, net.h there */
#include <stdio.h>
#include <stdlib.h>
#include <tenon.h>

static float x[2 * 3 * 16 * 16], relu2[2 * 16 * 8 * 8], y[2][2 * 10], bias[10];

static void dump(const char *dir, const char *name, const void *data, size_t bytes) {
  char path[1024];
  snprintf(path, sizeof path, "%s/%s", dir, name);
  FILE *f = fopen(path, "wb");
  if (!f || fwrite(data, 1, bytes, f) != bytes || fclose(f)) exit(5);
}

int main(int argc, char **argv) {
  char path[3][1024], *files[] = {"weights.safetensors", "net.o", "net.h"}, *dir = argc > 1 ? argv[1] : ".";
  for (int i = 0; i < 3; i++) snprintf(path[i], sizeof path[i], "%s/%s", dir, files[i]);
  for (size_t i = 0; i < sizeof x / sizeof *x; i++) x[i] = (float)((i * 37 + 11) % 101) / 50 - 1;
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_graph *g = tn_graph_new(ctx, "small_net");
  tn_tensor *in = tn_input(g, "x", TN_F32, 4, (int64_t[]){2, 3, 16, 16});
  tn_tensor *a = tn_relu(g, tn_conv2d(g, in, 8, 3, 1, 1, "conv1"));
  tn_tensor *b = tn_relu(g, tn_conv2d(g, a, 16, 3, 2, 1, "conv2"));
  tn_tensor *out = tn_dense(g, tn_flatten(g, b, 1), 10, "fc");
  tn_module *m = tn_output(g, "y", out) ? NULL : tn_compile(g, NULL, 1, &b);
  if (!m) return fprintf(stderr, "%s\n", tn_error(ctx)), 1;
  tn_status s = tn_run(m, 3, (tn_binding[]){{in, x}, {out, y[0]}, {b, relu2}});
  for (int i = 0; i < 10; i++) bias[i] = (float)i;
  if (!s) s = tn_module_set(m, tn_find(g, "fc.bias"), bias); /* no compilation */
  if (!s) s = tn_run(m, 2, (tn_binding[]){{out, y[1]}, {in, x}});
  if (s) return fprintf(stderr, "%s\n", tn_run_error()), s;
  s = tn_save_safetensors(g, path[0]);
  if (!s) s = tn_save_object(g, NULL, path[1], path[2], "net", TN_WEIGHTS_EMBED);
  if (s) return fprintf(stderr, "%s\n", tn_error(ctx)), s;
  dump(dir, "x.bin", x, sizeof x), dump(dir, "relu2.bin", relu2, sizeof relu2);
  dump(dir, "y0.bin", y[0], sizeof y[0]), dump(dir, "y1.bin", y[1], sizeof y[1]);
  tn_ctx_free(ctx);
  return 0;
}
