/* digits.c — two networks learn to read digits: one step of training, in four styles.
 *
 *   digits.py digits.bin; digits digits.bin mlp|lenet eager|compiled|module
 *   digits digits.bin mlp|lenet object DIR      writes step.o and net.o there, for digits_object.c
 *
 * All styles call the same functions and print the same losses, to the bit. */
#include "digits.h"
#include <string.h>
#include <tenon.h>

/* In functional style. */
static tn_tensor *mlp(tn_graph *g, tn_tensor *x) {
  tn_tensor *h = tn_relu(g, tn_dense(g, x, 256, "fc1"));
  return tn_dense(g, tn_dropout(g, h, 0.4), 10, "fc2");
}

/* In sequential style. */
static tn_tensor *lenet(tn_graph *g, tn_tensor *x) {
  static const tn_layer layers[] = {
      {.fn = tn_layer_conv, .units = 8, .kernel = 3, .pad = 1},  {.fn = tn_layer_relu}, {.fn = tn_layer_max_pool, .kernel = 2},
      {.fn = tn_layer_conv, .units = 16, .kernel = 3, .pad = 1}, {.fn = tn_layer_relu}, {.fn = tn_layer_max_pool, .kernel = 2},
      {.fn = tn_layer_flatten}, {.fn = tn_layer_dense, .units = 64}, {.fn = tn_layer_relu}, {.fn = tn_layer_dense, .units = 10}};
  return tn_sequential(g, tn_reshape(g, x, 4, (int64_t[]){0, 1, 8, 8}), sizeof layers / sizeof *layers, layers, "net");
}

typedef tn_tensor *(*network)(tn_graph *g, tn_tensor *x);

static tn_tensor *scores(tn_graph *g, network net, tn_tensor *x) {
  tn_training(g, 0);
  return net(g, x);
}

static tn_tensor *step(tn_graph *g, network net, tn_tensor *x, tn_tensor *t) {
  tn_training(g, 1);
  tn_tensor *loss = tn_cross_entropy(g, net(g, x), t);
  tn_minimize(g, loss, &(tn_optimizer){.kind = TN_ADAMW, .rate = 2e-3, .decay = 1e-2, .clip = 1}, 0, NULL);
  return loss;
}

static tn_ctx *ctx;
static void die(void) { exit((fprintf(stderr, "%s\n%s\n", tn_error(ctx), tn_run_error()), 1)); }

static const int64_t dims[2] = {BATCH, PIXELS};
static float x[BATCH][PIXELS];
static int32_t t[BATCH];

static void report(int i, float loss) {
  if (i % (ntrain / BATCH) == 0) printf("step %4d: loss %.6f %a\n", i, loss, loss);
}

/* ---- operation by operation, or as a function that is recorded once ---- */

static void step_fn(tn_graph *g, void *net, tn_tensor *const in[], tn_tensor *out[]) { out[0] = step(g, *(network *)net, in[0], in[1]); }

static double run_eager(network net, int compiled, int steps) {
  tn_graph *g = tn_eager(ctx, "digits", NULL);
  tn_function *f = tn_function_new(g, step_fn, &net, 2, 1);
  tn_function_compiled(f, compiled);
  for (int i = 0; i < steps; i++) {
    draw_batch(i, x, t);
    tn_tensor *loss, *in[2] = {tn_array(g, TN_F32, 2, dims, x), tn_array(g, TN_I32, 1, dims, t)};
    if (tn_call(f, in, &loss)) die();
    report(i, *(const float *)tn_value(g, loss));
    tn_release(g, in[0]), tn_release(g, in[1]), tn_release(g, loss);
  }
  const float *y = tn_value(g, scores(g, net, tn_array(g, TN_F32, 2, (int64_t[]){ntest, PIXELS}, images[ntrain])));
  if (!y) die();
  return accuracy(y);
}

/* ---- as graphs: one for a step, one for scores ---- */

typedef struct graph {
  tn_graph *g;
  tn_tensor *x, *t, *y; /* t of a step alone; y: its loss, or scores */
} graph;

static graph step_graph(network net) {
  graph s = {.g = tn_graph_new(ctx, "step")};
  s.x = tn_input(s.g, "x", TN_F32, 2, dims), s.t = tn_input(s.g, "t", TN_I32, 1, dims);
  s.y = step(s.g, net, s.x, s.t);
  if (tn_output(s.g, "loss", s.y)) die();
  return s;
}

static graph scores_graph(network net) {
  graph s = {.g = tn_graph_new(ctx, "net")};
  s.x = tn_input(s.g, "x", TN_F32, 2, (int64_t[]){ntest, PIXELS});
  s.y = scores(s.g, net, s.x);
  if (tn_output(s.g, "scores", s.y)) die();
  return s;
}

static double run_module(network net, int steps) {
  graph s = step_graph(net), n = scores_graph(net);
  tn_module *m = tn_compile(s.g, NULL, 0, NULL);
  if (!m) die();
  for (int i = 0; i < steps; i++) {
    float loss;
    draw_batch(i, x, t);
    if (tn_run(m, 3, (tn_binding[]){{s.x, x}, {s.t, t}, {s.y, &loss}})) die();
    report(i, loss);
  }
  if (tn_module_store(m)) die(); /* what it has learned, into its graph; and from there into the other */
  tn_tensor *params[64];
  for (int i = tn_params(n.g, 64, params); i-- > 0;)
    if (tn_param_set(params[i], tn_data(tn_find(s.g, tn_name(params[i]))))) die();
  float *y = malloc((size_t)ntest * 10 * sizeof *y);
  if (!(m = tn_compile(n.g, NULL, 0, NULL)) || tn_run(m, 2, (tn_binding[]){{n.x, images[ntrain]}, {n.y, y}})) die();
  double a = accuracy(y);
  free(y);
  return a;
}

static void write_objects(network net, const char *dir) {
  char path[2][1024];
  snprintf(path[0], sizeof path[0], "%s/step.o", dir), snprintf(path[1], sizeof path[1], "%s/net.o", dir);
  if (tn_save_object(step_graph(net).g, NULL, path[0], NULL, "step", TN_WEIGHTS_EMBED)) die();
  if (tn_save_object(scores_graph(net).g, NULL, path[1], NULL, "net", TN_WEIGHTS_POINTER)) die();
}

int main(int argc, char **argv) {
  if (argc < 4 || !read_digits(argv[1])) return fprintf(stderr, "digits DATA mlp|lenet eager|compiled|module|object [DIR]\n"), 2;
  network net = strcmp(argv[2], "lenet") == 0 ? lenet : mlp;
  int steps = EPOCHS * ntrain / BATCH;
  ctx = tn_ctx_new(NULL);
  if (strcmp(argv[3], "object") == 0) write_objects(net, argc > 4 ? argv[4] : ".");
  else printf("accuracy %.4f\n", strcmp(argv[3], "module") == 0 ? run_module(net, steps) : run_eager(net, strcmp(argv[3], "compiled") == 0, steps));
  tn_ctx_free(ctx);
  return 0;
}
