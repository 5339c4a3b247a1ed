/* test_train_layers.c — convolutions whose weights a run may change, and their gradients: machine code with the default
 * schedules (weights packed by calls of the run, Winograd with transformed weights) against the interpreter. */
#include "ir/text.h"
#include "tests/layer_help.h"
#include <criterion/criterion.h>
#include <string.h>

typedef struct layer {
  int n, c, h, w, k, taps, stride, pad;
  const char *packs; /* a kernel must be made for its weights in the run; and these go by Winograd: "winograd"; or their "gradient" */
} layer;

static const char *const outputs[] = {"y", "dx", "dw"};

static ir_program *compile(tn_ctx *ctx, const layer *l, int which, bool unscheduled, int64_t *count) {
  int oh = (l->h + 2 * l->pad - l->taps) / l->stride + 1, ow = (l->w + 2 * l->pad - l->taps) / l->stride + 1;
  const char *text = ir_format(ctx,
                               "graph g { opset 20 input x: f32[%d, %d, %d, %d] input w: f32[%d, %d, %d, %d] input s: f32[%d, %d, %d, %d]"
                               " a = Tanh(x) c = Conv(a, w) { strides = [%d, %d], pads = [%d, %d, %d, %d] } y = Tanh(c)"
                               " dx, dw = tenon:Gradient(y, s, x, w) output %s }",
                               l->n, l->c, l->h, l->w, l->k, l->c, l->taps, l->taps, l->n, l->k, oh, ow, l->stride, l->stride, l->pad, l->pad, l->pad, l->pad, outputs[which]);
  ir_graph *g = ir_graph_parse(ctx, text, "test");
  const cg_target *t = cg_target_find(ctx, "x86-64-v3", NULL);
  ir_program *p = lw_compile(ctx, g, &(lw_options){.target = t, .unscheduled = unscheduled, .accuracy = 1e-4});
  *count = 1;
  for (int i = 0; i < g->outputs[0]->rank; i++) *count *= ir_dim(ctx, g->outputs[0], i);
  return p;
}

static void run_layer(tn_ctx *ctx, void *arg) {
  const layer *l = arg;
  int64_t count, x = (int64_t)l->n * l->c * l->h * l->w, w = (int64_t)l->k * l->c * l->taps * l->taps;
  const void *in[3] = {layer_floats(ctx, x, 1), layer_floats(ctx, w, 2), NULL};
  for (int i = 0; i < 3; i++) {
    in[2] = layer_floats(ctx, (int64_t)l->n * l->k * (l->h + 2 * l->pad) * (l->w + 2 * l->pad), 3); /* more than are read */
    ir_program *p = compile(ctx, l, i, false, &count);
    const char *text = ir_program_print(ctx, p), *run = strstr(text, "call ");
    if (l->packs && i < 2 && !(run && strstr(run, "call pack_"))) ir_fail(ctx, TN_EWRONG, "%s: no weights are packed\n%s", outputs[i], text);
    if (l->packs && i < 2 && strcmp(l->packs, "winograd") == 0 && !strstr(text, "algorithm winograd")) ir_fail(ctx, TN_EWRONG, "%s: not by Winograd\n%s", outputs[i], text);
    if (l->packs && i == 2 && strcmp(l->packs, "gradient") == 0 && !strstr(text, "algorithm winograd_weights")) ir_fail(ctx, TN_EWRONG, "dw: not by Winograd\n%s", text);
    layer_check(ctx, cg_target_find(ctx, "x86-64-v3", NULL), p, compile(ctx, l, i, true, &count), in, count);
  }
}

Test(train_layers, gradients) {
  static const layer all[] = {
      {1, 16, 14, 14, 16, 3, 1, 1, "winograd"}, /* forth and back transform weights of one shape, to other values */
      {2, 32, 10, 9, 32, 3, 1, 1, "gradient"}, /* tiles beyond the border */
      {1, 16, 9, 14, 24, 3, 1, 1, "winograd"}, {2, 8, 9, 9, 8, 3, 1, 1, "pack"},   {1, 16, 15, 15, 16, 3, 2, 1, "pack"}, {1, 16, 14, 14, 16, 3, 2, 1, "pack"},
      {2, 16, 14, 13, 24, 1, 2, 0, "pack"},     {1, 3, 15, 16, 16, 7, 2, 3, "pack"}, {1, 11, 8, 9, 13, 5, 1, 2, "pack"}, {1, 8, 20, 19, 8, 4, 3, 0, "pack"},
      {1, 6, 4, 5, 7, 3, 1, 0, NULL},           {1, 9, 11, 10, 17, 3, 1, 2, "pack"}, {2, 16, 8, 8, 16, 1, 1, 0, "pack"},
  };
  for (int i = 0; i < IR_COUNT(all); i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    layer l = all[i];
    cr_expect_eq(ir_protect(ctx, run_layer, &l), TN_OK, "%d: %.2000s", i, tn_error(ctx));
    tn_ctx_free(ctx);
  }
}
