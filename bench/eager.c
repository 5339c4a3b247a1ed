/* eager.c — what recording costs: a step of training called operation by operation, against the same step
 * recorded once. Prints the times of a step, the operations recorded, and the difference for each.
 *
 *   bench_eager [LAYERS] [WIDTH]      a deep and narrow network, so that kernels take little */
#include "frontend/tenon.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static int layers = 20, width = 16, ops;

static void step(tn_graph *g, void *user, tn_tensor *const in[], tn_tensor *out[]) {
  (void)user;
  tn_tensor *x = in[0];
  ops = 0;
  for (int i = 0; i < layers; i++) {
    char name[24];
    snprintf(name, sizeof name, "fc%d", i);
    x = tn_tanh(g, tn_dense(g, x, width, name));
    ops += 4; /* a dense layer: transpose, product, sum */
  }
  out[0] = tn_mse(g, x, in[1]);
  tn_minimize(g, out[0], &(tn_optimizer){.kind = TN_SGD, .rate = 0.01}, 0, NULL);
  ops += 3 + 2; /* the loss; the gradient and the optimizer, one each */
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}
static int by_value(const void *a, const void *b) { return *(const double *)a < *(const double *)b ? -1 : *(const double *)a > *(const double *)b; }

int main(int argc, char **argv) {
  if (argc > 1) layers = atoi(argv[1]);
  if (argc > 2) width = atoi(argv[2]);
  enum { STEPS = 500 };
  static double times[2][STEPS];
  float *data = calloc((size_t)width * 8, sizeof *data);
  tn_ctx *ctx = tn_ctx_new(NULL);
  for (int way = 0; way < 2; way++) {
    tn_graph *g = tn_eager(ctx, "bench", NULL);
    tn_function *f = tn_function_new(g, step, NULL, 2, 1);
    tn_function_compiled(f, way);
    for (int i = -2; i < STEPS; i++) {
      tn_tensor *in[2] = {tn_array(g, TN_F32, 2, (int64_t[]){8, width}, data), tn_array(g, TN_F32, 2, (int64_t[]){8, width}, data)}, *loss;
      double begin = now();
      if (tn_call(f, in, &loss)) return fprintf(stderr, "%s\n", tn_error(ctx)), 1;
      if (i >= 0) times[way][i] = now() - begin;
      tn_release(g, in[0]), tn_release(g, in[1]), tn_release(g, loss);
    }
    int compiled;
    tn_eager_counts(g, &compiled, NULL);
    if (compiled != 1) return fprintf(stderr, "%d modules were compiled\n", compiled), 1;
    qsort(times[way], STEPS, sizeof(double), by_value);
  }
  double eager = times[0][STEPS / 2] * 1e6, whole = times[1][STEPS / 2] * 1e6;
  printf("%d operations: eager %.1f us, compiled %.1f us a step; %.2f us for each operation\n", ops, eager, whole, (eager - whole) / ops);
  free(data);
  tn_ctx_free(ctx);
  return 0;
}
