/* An outside program against the installed header and library: compiles a graph and runs it. */
#include <stdio.h>
#include <tenon.h>

int main(void) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_graph *g = tn_graph_new(ctx, "app");
  tn_tensor *x = tn_input(g, "x", TN_F32, 2, (int64_t[]){2, 2});
  tn_tensor *w = tn_param(g, "w", TN_F32, 2, (int64_t[]){2, 2}, (float[]){1, 2, 3, 4});
  tn_tensor *y = tn_relu(g, tn_matmul(g, x, w));
  tn_module *m = tn_output(g, "y", y) ? NULL : tn_compile(g, NULL, 0, NULL);
  if (!m) {
    fprintf(stderr, "%s\n", tn_error(ctx));
    return 1;
  }
  float in[4] = {1, 0, 0, -1}, out[4];
  if (tn_run(m, 2, (tn_binding[]){{x, in}, {y, out}})) {
    fprintf(stderr, "%s\n", tn_run_error());
    return 1;
  }
  printf("relu(x w) = %g %g %g %g\n", out[0], out[1], out[2], out[3]);
  tn_ctx_free(ctx);
  return out[0] == 1 && out[1] == 2 && out[2] == 0 && out[3] == 0 ? 0 : 1;
}
