/* run_finetune MODEL.onnx X T STEPS RATE [OUT.onnx]: trains a model that was imported, by plain SGD on one batch: X and T
 * are the bytes of its input and of the labels (i64). Prints a loss per step; writes the trained model. */
#include "frontend/tenon.h"
#include <stdio.h>
#include <stdlib.h>

static tn_ctx *ctx;
static void die(void) { exit((fprintf(stderr, "%s\n%s\n", tn_error(ctx), tn_run_error()), 1)); }

static void *contents(const char *path, int64_t bytes) {
  void *p = malloc((size_t)bytes + 1);
  FILE *f = fopen(path, "rb");
  if (!p || !f || fread(p, 1, (size_t)bytes, f) != (size_t)bytes) exit((fprintf(stderr, "%s: cannot be read\n", path), 5));
  fclose(f);
  return p;
}

int main(int argc, char **argv) {
  if (argc < 6) return 2;
  ctx = tn_ctx_new(NULL);
  tn_graph *g = tn_graph_load(ctx, argv[1]);
  tn_tensor *x, *y, *t, *loss;
  int64_t dims[TN_MAX_RANK];
  if (!g || tn_inputs(g, 1, &x) < 1 || tn_outputs(g, 1, &y) < 1 || tn_shape(y, dims) < 2) die();
  t = tn_input(g, "labels", TN_I64, 1, dims);
  loss = tn_cross_entropy(g, y, t);
  if (tn_trainable(g, NULL, 1) || tn_minimize(g, loss, &(tn_optimizer){.kind = TN_SGD, .rate = atof(argv[5])}, 0, NULL) || tn_output(g, "loss", loss)) die();
  tn_module *m = tn_compile(g, NULL, 0, NULL);
  if (!m) die();
  float value;
  tn_binding b[] = {{x, contents(argv[2], tn_bytes(x))}, {t, contents(argv[3], tn_bytes(t))}, {loss, &value}};
  for (int i = atoi(argv[4]); i-- > 0;) {
    if (tn_run(m, 3, b)) die();
    printf("%.7g\n", (double)value);
  }
  if (argc > 6 && (tn_module_store(m) || tn_save_onnx(g, argv[6]))) die();
  free(b[0].data), free(b[1].data);
  tn_ctx_free(ctx);
  return 0;
}
