/* Convolutions whose windows are written out first: which, and that they are right, against the interpreter
 * on the graph without schedules. */
#include "layer_help.h"
#include <criterion/criterion.h>
#include <string.h>

typedef struct layer {
  const char *cpu;
  int n, c, h, w, k, r, s, stride, pad, dilation; /* h of 0: a signal */
  const char *auto_pad; /* null: pad on all sides */
  double accuracy;
  bool plain, unfolded;
} layer;

static ir_program *compile(tn_ctx *ctx, const layer *l, bool unscheduled, int64_t *elements) {
  ir_graph *g = ir_graph_new(ctx, "g");
  int rank = l->h ? 4 : 3, spatial = rank - 2;
  const int64_t w[4] = {l->k, l->c, l->h ? l->r : l->s, l->s}, b[1] = {l->k};
  ix dims[4] = {ix_index(ctx, l->n), ix_index(ctx, l->c), ix_index(ctx, l->h ? l->h : l->w), ix_index(ctx, l->w)};
  ir_value *in[3] = {ir_graph_input(g, "x", TN_F32, rank, dims), ir_graph_const(g, "w", TN_F32, rank, w, layer_floats(ctx, (int64_t)l->k * l->c * l->r * l->s, 2), false),
                     ir_graph_const(g, "b", TN_F32, 1, b, layer_floats(ctx, l->k, 3), false)};
  ir_node *n = ir_node_new(g, "Conv", "c", 3, in, 1);
  ir_attr_ints(n, "strides", spatial, (int64_t[]){l->stride, l->stride});
  ir_attr_ints(n, "dilations", spatial, (int64_t[]){l->dilation, l->dilation});
  if (l->auto_pad) ir_attr_string(n, "auto_pad", l->auto_pad);
  else ir_attr_ints(n, "pads", 2 * spatial, (int64_t[]){l->pad, l->pad, l->pad, l->pad});
  ir_value *y = ir_node_new(g, "Relu", "r", 1, n->out, 1)->out[0];
  ir_graph_output(g, y);
  ir_program *p = lw_compile(ctx, g, &(lw_options){.target = cg_target_find(ctx, l->cpu, NULL), .unscheduled = unscheduled, .accuracy = l->accuracy,
                                                   .layout = l->plain ? LW_LAYOUT_NCHW : LW_LAYOUT_AUTO});
  *elements = 1;
  for (int i = 0; i < rank; i++) *elements *= ir_dim(ctx, y, i);
  return p;
}

static void run_layer(tn_ctx *ctx, void *arg) {
  const layer *l = arg;
  int64_t count;
  ir_program *p = compile(ctx, l, false, &count);
  const void *in[1] = {layer_floats(ctx, (int64_t)l->n * l->c * (l->h ? l->h : 1) * l->w, 4)};
  bool unfolded = false;
  for (int i = 0; i < p->nkernels; i++) unfolded |= strncmp(p->kernels[i].kernel->name, "unfold", 6) == 0;
  if (unfolded != l->unfolded) ir_fail(ctx, TN_EWRONG, "%s written out", unfolded ? "windows are" : "no windows are");
  const cg_target *t = cg_target_find(ctx, l->cpu, NULL);
  layer_check(ctx, t, p, compile(ctx, l, true, &count), in, count);
}

Test(unfold, windows) {
  static const layer all[] = {
      {"x86-64-v3", 1, 32, 14, 14, 128, 3, 3, 2, 1, 1, NULL, 1, false, true},
      {"x86-64-v3", 2, 16, 27, 13, 128, 3, 3, 2, 1, 1, NULL, 1, false, true},
      {"x86-64-v3", 1, 16, 14, 14, 128, 3, 3, 2, 0, 1, "SAME_UPPER", 1, false, true},
      {"x86-64-v3", 1, 16, 15, 15, 128, 3, 2, 2, 1, 2, NULL, 1, false, true},
      {"x86-64-v3", 1, 32, 7, 7, 128, 3, 3, 1, 1, 1, NULL, 0, false, true},
      {"x86-64-v3", 1, 32, 7, 7, 128, 3, 3, 1, 1, 1, NULL, 1, false, false},  /* Winograd's */
      {"x86-64-v3", 1, 8, 9, 9, 512, 3, 3, 1, 0, 1, NULL, 0, false, true},
      {"x86-64-v3", 1, 8, 7, 7, 512, 3, 3, 1, 1, 1, NULL, 0, false, false}, /* a tenth of the rows of taps would be padding */
      {"x86-64-v3", 1, 16, 14, 14, 32, 3, 3, 2, 1, 1, NULL, 1, true, true}, /* no blocks of channels: strided vectors would be gathered */
      {"x86-64-v3", 2, 3, 21, 19, 10, 7, 7, 2, 3, 1, NULL, 1, true, true},
      {"x86-64-v3", 1, 5, 16, 13, 3, 3, 2, 3, 2, 2, NULL, 0, true, true},
      {"x86-64-v3", 2, 3, 0, 41, 6, 1, 5, 2, 2, 1, NULL, 1, true, true},
      {"x86-64-v3", 1, 12, 14, 14, 36, 3, 3, 1, 1, 1, NULL, 1, true, true},   /* rows of two vectors */
      {"x86-64-v3", 1, 12, 14, 14, 24, 3, 3, 1, 1, 1, NULL, 1, true, false},
      {"x86-64-v3", 1, 12, 4, 40, 36, 3, 3, 1, 1, 1, NULL, 1, true, false},
      {"x86-64-v3", 1, 12, 14, 14, 128, 3, 3, 2, 1, 1, NULL, 1, false, false}, /* a tap's channels are no whole blocks */
      {"x86-64-v3", 1, 32, 48, 48, 16, 3, 3, 2, 1, 1, NULL, 1, false, false}, /* long rows, few results a window */
      {"x86-64-v4", 1, 32, 14, 14, 256, 3, 3, 2, 1, 1, NULL, 1, false, false}, /* registers for a row at once */
      {"x86-64-v3", 1, 128, 0, 61, 128, 1, 3, 1, 1, 1, NULL, 1, false, true}, /* weights of a panel beyond the first cache */
      {"x86-64-v3", 2, 128, 0, 90, 128, 1, 3, 2, 0, 2, NULL, 1, false, true},
      {"x86-64-v3", 1, 16, 0, 61, 16, 1, 3, 1, 1, 1, NULL, 1, false, false},
  };
  for (int i = 0; i < IR_COUNT(all); i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    layer l = all[i];
    cr_expect_eq(ir_protect(ctx, run_layer, &l), TN_OK, "%d: %.900s", i, tn_error(ctx));
    tn_ctx_free(ctx);
  }
}

/* ---- transposed convolutions of few channels: convolutions whose pixels are interleaved ---- */

typedef struct transposed {
  int rank, c, k, in[3], taps[3], stride[3], begin[3], end[3], extra[3];
  const char *auto_pad; /* null: begin and end */
  bool bias, interleaved;
} transposed;

static ir_program *compile_transposed(tn_ctx *ctx, const transposed *l, bool unscheduled, double accuracy, int64_t *elements) {
  ir_graph *g = ir_graph_new(ctx, "g");
  int r = l->rank;
  int64_t w[5] = {l->c, l->k}, pads[6], strides[3], extra[3], weights = l->c * l->k;
  ix dims[5] = {ix_index(ctx, 2), ix_index(ctx, l->c)};
  for (int i = 0; i < r; i++) {
    dims[2 + i] = ix_index(ctx, l->in[i]);
    weights *= w[2 + i] = l->taps[i];
    pads[i] = l->begin[i], pads[r + i] = l->end[i], strides[i] = l->stride[i], extra[i] = l->extra[i];
  }
  ir_value *in[3] = {ir_graph_input(g, "x", TN_F32, 2 + r, dims), ir_graph_const(g, "w", TN_F32, 2 + r, w, layer_floats(ctx, weights, 2), false),
                     ir_graph_const(g, "b", TN_F32, 1, (int64_t[]){l->k}, layer_floats(ctx, l->k, 3), false)};
  ir_node *n = ir_node_new(g, "ConvTranspose", "c", l->bias ? 3 : 2, in, 1);
  ir_attr_ints(n, "strides", r, strides);
  ir_attr_ints(n, "output_padding", r, extra);
  if (l->auto_pad) ir_attr_string(n, "auto_pad", l->auto_pad);
  else ir_attr_ints(n, "pads", 2 * r, pads);
  ir_value *y = ir_node_new(g, "Tanh", "t", 1, n->out, 1)->out[0];
  ir_graph_output(g, y);
  ir_program *p = lw_compile(ctx, g, &(lw_options){.target = cg_target_find(ctx, "x86-64-v3", NULL), .unscheduled = unscheduled, .accuracy = accuracy});
  *elements = 1;
  for (int i = 0; i < 2 + r; i++) *elements *= ir_dim(ctx, y, i);
  return p;
}

static void run_transposed(tn_ctx *ctx, void *arg) {
  const transposed *l = arg;
  int64_t pixels = 2 * l->c;
  bool whole = true; /* no taps are missing in the last step */
  for (int i = 0; i < l->rank; i++) pixels *= l->in[i], whole &= l->taps[i] % l->stride[i] == 0;
  for (int strict = 0; strict < 2; strict++) {
    int64_t count;
    ir_program *p = compile_transposed(ctx, l, false, strict ? 0 : 1e-4, &count);
    bool interleaved = true;
    for (int i = 0; i < p->nkernels; i++) interleaved &= strncmp(p->kernels[i].kernel->name, "convtranspose", 13) != 0;
    if (interleaved != (l->interleaved && (whole || !strict))) ir_fail(ctx, TN_EWRONG, "%s interleaved", interleaved ? "pixels are" : "no pixels are");
    float *x = layer_floats(ctx, pixels, 4);
    if (strict) x[pixels / 2] = INFINITY; /* reaches what its taps do, and nothing else */
    layer_check(ctx, cg_target_find(ctx, "x86-64-v3", NULL), p, compile_transposed(ctx, l, true, 0, &count), (const void *[]){x}, count);
  }
}

Test(unfold, transposed) {
  static const transposed all[] = {
      {2, 12, 1, {9, 7}, {9, 9}, {3, 3}, {4, 4}, {4, 4}, {2, 2}, NULL, true, true},
      {2, 8, 3, {6, 11}, {4, 4}, {2, 2}, {1, 1}, {1, 1}, {0, 0}, NULL, true, true},
      {2, 5, 2, {5, 4}, {3, 2}, {2, 3}, {0, 0}, {0, 0}, {1, 0}, NULL, false, true}, /* taps that are no multiple of the stride, or fewer */
      {2, 5, 2, {5, 4}, {5, 3}, {1, 2}, {2, 0}, {1, 2}, {0, 0}, NULL, true, true},  /* strides of one axis */
      {1, 6, 1, {21}, {8}, {4}, {2}, {2}, {0}, NULL, true, true},
      {1, 6, 1, {21}, {7}, {4}, {0}, {0}, {0}, "SAME_UPPER", true, true},
      {3, 3, 1, {3, 4, 5}, {2, 3, 4}, {2, 2, 2}, {0, 1, 1}, {0, 1, 1}, {0, 0, 0}, NULL, true, true},
      {2, 4, 1, {5, 5}, {3, 3}, {2, 2}, {6, 0}, {0, 0}, {0, 0}, NULL, true, false}, /* rows of the input reach nothing */
      {2, 12, 8, {6, 6}, {4, 4}, {2, 2}, {1, 1}, {1, 1}, {0, 0}, NULL, true, false},
      {2, 12, 3, {6, 6}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {0, 0}, NULL, true, false},
  };
  for (int i = 0; i < IR_COUNT(all); i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    transposed l = all[i];
    cr_expect_eq(ir_protect(ctx, run_transposed, &l), TN_OK, "%d: %.900s", i, tn_error(ctx));
    tn_ctx_free(ctx);
  }
}
