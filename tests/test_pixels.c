/* 1x1 convolutions whose pixels outgrow the second-level cache: sums in chunks, rows and panels in groups,
 * weights asked for ahead, against the interpreter on the graph without schedules. */
#include "layer_help.h"
#include <criterion/criterion.h>
#include <string.h>

typedef struct layer {
  const char *cpu;
  int n, c, h, w, k;
  bool residual, chunked;
  int64_t l1, l2; /* bytes of the caches; 0: the CPU's */
  const char *step; /* one that is in the schedule; null: any */
} layer;

static const cg_target *target_of(tn_ctx *ctx, const layer *l) {
  cg_target *t = IR_NEW(ctx, cg_target);
  *t = *cg_target_find(ctx, l->cpu, NULL);
  if (l->l1) t->l1_bytes = l->l1, t->l2_bytes = l->l2;
  return t;
}

static ir_program *compile(tn_ctx *ctx, const layer *l, bool unscheduled) {
  ir_graph *g = ir_graph_new(ctx, "g");
  const int64_t w[4] = {l->k, l->c, 1, 1}, b[1] = {l->k};
  ix in_dims[4] = {ix_index(ctx, l->n), ix_index(ctx, l->c), ix_index(ctx, l->h), ix_index(ctx, l->w)};
  ix out_dims[4] = {in_dims[0], ix_index(ctx, l->k), in_dims[2], in_dims[3]};
  ir_value *in[3] = {ir_graph_input(g, "x", TN_F32, 4, in_dims), ir_graph_const(g, "w", TN_F32, 4, w, layer_floats(ctx, (int64_t)l->k * l->c, 2), false),
                     ir_graph_const(g, "b", TN_F32, 1, b, layer_floats(ctx, l->k, 3), false)};
  ir_value *y = ir_node_new(g, "Conv", "c", 3, in, 1)->out[0];
  if (l->residual) {
    ir_value *sum[2] = {y, ir_graph_input(g, "z", TN_F32, 4, out_dims)};
    y = ir_node_new(g, "Add", "a", 2, sum, 1)->out[0];
  }
  ir_graph_output(g, ir_node_new(g, "Relu", "r", 1, &y, 1)->out[0]);
  return lw_compile(ctx, g, &(lw_options){.target = target_of(ctx, l), .unscheduled = unscheduled});
}

static void run_layer(tn_ctx *ctx, void *arg) {
  const layer *l = arg;
  int64_t pixels = (int64_t)l->n * l->h * l->w;
  const void *in[2] = {layer_floats(ctx, pixels * l->c, 4), layer_floats(ctx, pixels * l->k, 5)};
  ir_program *p = compile(ctx, l, false);
  bool chunked = false, ahead = false;
  for (int i = 0; i < p->nkernels; i++) {
    const char *s = p->kernels[i].schedule;
    if (!s || !strstr(s, "chunk c ")) continue;
    chunked = true, ahead = strstr(s, "prefetch ") != NULL;
    if (l->step && !strstr(s, l->step)) ir_fail(ctx, TN_EWRONG, "no step \"%s\" in:\n%s", l->step, s);
  }
  if (chunked != l->chunked) ir_fail(ctx, TN_EWRONG, "%s chunks", chunked ? "there are" : "there are no");
  int64_t weights = (int64_t)l->k * l->c * 4;
  const cg_target *t = target_of(ctx, l);
  if (chunked && ahead != (weights > t->l2_bytes / 2)) ir_fail(ctx, TN_EWRONG, "weights are%s asked for ahead", ahead ? "" : " not");
  layer_check(ctx, t, p, compile(ctx, l, true), in, pixels * l->k);
}

Test(pixels, chunks) {
  static const layer all[] = {
      {"x86-64-v3", 1, 1024, 7, 11, 48, true, true, 0, 0, NULL}, /* a rest of rows */
      {"x86-64-v3", 2, 1024, 6, 11, 16, false, true, 0, 0, NULL}, /* one panel */
      {"x86-64-v3", 1, 1024, 6, 11, 44, false, true, 0, 0, "tail vo.i1"}, /* panels with a rest */
      {"x86-64-v3", 1, 1024, 6, 11, 80, true, true, 0, 0, NULL}, /* weights from far */
      {"x86-64-v3", 1, 64, 8, 8, 16, true, false, 0, 0, NULL},
      {"x86-64-v3", 1, 64, 13, 13, 72, true, true, 6144, 49152, "tail ro.i1"}, /* groups of rows and panels with rests */
      {"x86-64-v3", 2, 96, 11, 11, 84, false, true, 6144, 49152, "tail ro"},
      {"x86-64-v4", 1, 1024, 9, 15, 64, true, true, 0, 0, NULL},
  };
  for (int i = 0; i < IR_COUNT(all); i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    layer l = all[i];
    cr_expect_eq(ir_protect(ctx, run_layer, &l), TN_OK, "%d: %.900s", i, tn_error(ctx));
    tn_ctx_free(ctx);
  }
}
