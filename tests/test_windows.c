/* Convolutions over a window of which not all stays in the caches: rows in groups, panels in groups, sums in
 * chunks of channels. Random layers on targets with caches so small that these occur, against the interpreter
 * on the graph without schedules. */
#include "layer_help.h"
#include <criterion/criterion.h>
#include <string.h>

typedef struct layer {
  int n, c, h, w, k, r, s, stride, pad, dilation;
  int l1, l2; /* bytes */
  int kc;     /* channels of a chunk; 0: as the rule says */
  int groups, chunks; /* results: whether rows go in groups, sums in chunks */
} layer;

static cg_target target(tn_ctx *ctx, const layer *l) {
  cg_target t = *cg_target_find(ctx, "x86-64-v3", NULL);
  t.l1_bytes = l->l1;
  t.l2_bytes = l->l2;
  return t;
}

static const char *in_chunks(void *user, tn_ctx *ctx, const ir_kernel *k) {
  const layer *l = user;
  cg_target t = target(ctx, l);
  return lw_schedule_with(ctx, k, &t, &(lw_tunables){.kc = l->kc}, NULL, NULL);
}

static ir_program *compile(tn_ctx *ctx, layer *l, bool unscheduled, int64_t *elements) {
  cg_target t = target(ctx, l);
  ir_graph *g = ir_graph_new(ctx, "g");
  const int64_t w[4] = {l->k, l->c, l->r, l->s}, b[1] = {l->k};
  ix dims[4] = {ix_index(ctx, l->n), ix_index(ctx, l->c), ix_index(ctx, l->h), ix_index(ctx, l->w)};
  ir_value *in[3] = {ir_graph_input(g, "x", TN_F32, 4, dims), ir_graph_const(g, "w", TN_F32, 4, w, layer_floats(ctx, (int64_t)l->k * l->c * l->r * l->s, 2), false),
                     ir_graph_const(g, "b", TN_F32, 1, b, layer_floats(ctx, l->k, 3), false)};
  ir_node *n = ir_node_new(g, "Conv", "c", 3, in, 1);
  ir_attr_ints(n, "strides", 2, (int64_t[]){l->stride, l->stride});
  ir_attr_ints(n, "dilations", 2, (int64_t[]){l->dilation, l->dilation});
  ir_attr_ints(n, "pads", 4, (int64_t[]){l->pad, l->pad, l->pad, l->pad});
  ir_value *y = ir_node_new(g, "Relu", "r", 1, n->out, 1)->out[0];
  ir_graph_output(g, y);
  ir_program *p = lw_compile(ctx, g, &(lw_options){.target = &t, .unscheduled = unscheduled, .schedule = in_chunks, .user = l});
  *elements = 1;
  for (int i = 0; i < 4; i++) *elements *= ir_dim(ctx, y, i);
  return p;
}

static void run_layer(tn_ctx *ctx, void *arg) {
  layer *l = arg;
  int64_t count;
  cg_target t = target(ctx, l);
  ir_program *p = compile(ctx, l, false, &count);
  for (int i = 0; i < p->nkernels; i++)
    if (strncmp(p->kernels[i].kernel->name, "conv", 4) == 0) {
      l->groups += strstr(p->kernels[i].schedule, "-> xo y") != NULL;
      l->chunks += strstr(p->kernels[i].schedule, "chunk c ") != NULL;
    }
  const void *in[1] = {layer_floats(ctx, (int64_t)l->n * l->c * l->h * l->w, 4)};
  layer_check(ctx, &t, p, compile(ctx, l, true, &count), in, count);
}

static uint32_t seed = 7;
static int pick(int n, const int *of) { return of[(seed = seed * 1664525u + 1013904223u) / 65536 % (uint32_t)n]; }
#define PICK(...) pick((int)(sizeof((int[]){__VA_ARGS__}) / sizeof(int)), (const int[]){__VA_ARGS__})

Test(windows, random_layers) {
  int groups = 0, chunks = 0;
  for (int i = 0; i < 20; i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    layer l = {.n = PICK(1, 1, 2), .c = PICK(16, 32, 48), .h = PICK(6, 8, 9, 12), .w = PICK(5, 7, 9, 12, 14), .k = PICK(24, 32, 64), .r = PICK(3, 3, 5, 1),
               .s = PICK(3, 3, 2), .stride = PICK(1, 1, 2), .pad = PICK(0, 1, 1, 2), .dilation = PICK(1, 1, 2), .l1 = PICK(2048, 8192), .l2 = PICK(32768, 262144), .kc = PICK(0, 8, 16)};
    if ((l.r - 1) * l.dilation >= l.h || (l.s - 1) * l.dilation >= l.w) l.dilation = 1;
    cr_expect_eq(ir_protect(ctx, run_layer, &l), TN_OK, "n%dc%dh%dw%dk%dr%ds%du%dp%dd%d, caches %d, %d: %.900s", l.n, l.c, l.h, l.w, l.k, l.r, l.s, l.stride, l.pad,
                 l.dilation, l.l1, l.l2, tn_error(ctx));
    groups += l.groups, chunks += l.chunks;
    tn_ctx_free(ctx);
  }
  cr_expect(groups > 1 && chunks > 4, "rows went in groups %d times, sums in chunks %d times", groups, chunks);
}

/* ---- padding that reaches over several tiles of a row ---- */

typedef struct signal {
  int c, w, k, s, stride, before, after, dilation;
  const char *peel; /* of its schedule; of one tile at each end where there is none between */
  lw_layout_choice layout;
} signal;

static ir_program *compile_signal(tn_ctx *ctx, const signal *l, bool unscheduled, int64_t *elements) {
  ir_graph *g = ir_graph_new(ctx, "g");
  const int64_t w[3] = {l->k, l->c, l->s};
  ix dims[3] = {ix_index(ctx, 1), ix_index(ctx, l->c), ix_index(ctx, l->w)};
  ir_value *in[2] = {ir_graph_input(g, "x", TN_F32, 3, dims), ir_graph_const(g, "w", TN_F32, 3, w, layer_floats(ctx, (int64_t)l->k * l->c * l->s, 2), false)};
  ir_node *n = ir_node_new(g, "Conv", "c", 2, in, 1);
  ir_attr_ints(n, "strides", 1, (int64_t[]){l->stride});
  ir_attr_ints(n, "dilations", 1, (int64_t[]){l->dilation});
  ir_attr_ints(n, "pads", 2, (int64_t[]){l->before, l->after});
  ir_value *y = n->out[0];
  if (l->layout == LW_LAYOUT_NCHWC) { /* not a result, so in blocks */
    ir_value *next[2] = {y, ir_graph_const(g, "v", TN_F32, 3, (int64_t[]){l->k, l->k, 1}, layer_floats(ctx, (int64_t)l->k * l->k, 3), false)};
    y = ir_node_new(g, "Conv", "next", 2, next, 1)->out[0];
  }
  ir_graph_output(g, y);
  ir_program *p = lw_compile(ctx, g, &(lw_options){.target = cg_target_find(ctx, "x86-64-v3", NULL), .unscheduled = unscheduled, .layout = l->layout});
  *elements = (int64_t)l->k * ir_dim(ctx, y, 2);
  return p;
}

static void run_signal(tn_ctx *ctx, void *arg) {
  const signal *l = arg;
  int64_t count;
  ir_program *p = compile_signal(ctx, l, false, &count);
  const char *schedules = "";
  bool peeled = false;
  for (int i = 0; i < p->nkernels; i++) {
    peeled |= strstr(p->kernels[i].schedule, l->peel) != NULL;
    schedules = ir_format(ctx, "%s\n%s", schedules, p->kernels[i].schedule);
  }
  if (!peeled) ir_fail(ctx, TN_EWRONG, "no '%s' in%s", l->peel, schedules);
  const void *in[1] = {layer_floats(ctx, (int64_t)l->c * l->w, 4)};
  layer_check(ctx, cg_target_find(ctx, "x86-64-v3", NULL), p, compile_signal(ctx, l, true, &count), in, count);
}

Test(windows, wide_borders) {
  static const signal all[] = {
      {64, 60, 64, 3, 1, 12, 12, 12, "split x 3 -> ro ri", LW_LAYOUT_NCHWC}, {64, 60, 64, 3, 1, 12, 12, 12, "peel ro 4 4", LW_LAYOUT_NCHWC},
      {64, 60, 64, 3, 1, 24, 0, 12, "peel ro 8 0", LW_LAYOUT_NCHWC}, {64, 60, 64, 3, 1, 13, 11, 12, "peel ro 5 4", LW_LAYOUT_NCHWC},
      {64, 120, 64, 3, 2, 12, 12, 12, "peel ro 2 2", LW_LAYOUT_NCHWC}, {64, 24, 64, 3, 1, 12, 12, 12, "peel ro 1 1", LW_LAYOUT_NCHWC} /* none between */,
      {16, 200, 3, 7, 1, 3, 3, 1, "peel vo 1 1", LW_LAYOUT_NCHW}, {16, 203, 3, 9, 1, 32, 32, 8, "peel vo 2 2", LW_LAYOUT_NCHW}};
  for (int i = 0; i < (int)(sizeof all / sizeof *all); i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    cr_expect_eq(ir_protect(ctx, run_signal, (void *)&all[i]), TN_OK, "%d: %.900s", i, tn_error(ctx));
    tn_ctx_free(ctx);
  }
}

/* ---- results of few channels: from rows of pixels, channels outside ---- */

static ir_program *compile_few(tn_ctx *ctx, int k, bool unscheduled, int64_t *elements) {
  enum { C = 16, H = 11, W = 83, R = 5 };
  ir_graph *g = ir_graph_new(ctx, "g");
  ix dims[4] = {ix_index(ctx, 1), ix_index(ctx, C), ix_index(ctx, H), ix_index(ctx, W)};
  ir_value *x = ir_graph_input(g, "x", TN_F32, 4, dims);
  ir_value *in[2] = {x, ir_graph_const(g, "w", TN_F32, 4, (int64_t[]){C, C, 1, 1}, layer_floats(ctx, C * C, 2), false)};
  x = ir_node_new(g, "Conv", "blocks", 2, in, 1)->out[0];
  ir_value *few[2] = {x, ir_graph_const(g, "v", TN_F32, 4, (int64_t[]){k, C, R, R}, layer_floats(ctx, (int64_t)k * C * R * R, 3), false)};
  ir_node *n = ir_node_new(g, "Conv", "few", 2, few, 1);
  ir_attr_ints(n, "pads", 4, (int64_t[]){2, 2, 2, 2});
  ir_graph_output(g, n->out[0]);
  *elements = k * H * W;
  return lw_compile(ctx, g, &(lw_options){.target = cg_target_find(ctx, "x86-64-v3", NULL), .unscheduled = unscheduled});
}

static void run_few(tn_ctx *ctx, void *arg) {
  int k = *(int *)arg;
  int64_t count;
  ir_program *p = compile_few(ctx, k, false, &count);
  bool rows = false, gathered = false;
  for (int i = 0; i < p->nkernels; i++) {
    rows |= strstr(p->kernels[i].schedule, "peel vo") != NULL;
    gathered |= strstr(p->kernels[i].schedule, "reorder r s c") != NULL;
  }
  if (!rows || gathered) ir_fail(ctx, TN_EWRONG, "%s", rows ? "channels go inside the taps" : "no vectors of pixels");
  const void *in[1] = {layer_floats(ctx, 16 * 11 * 83, 4)};
  layer_check(ctx, cg_target_find(ctx, "x86-64-v3", NULL), p, compile_few(ctx, k, true, &count), in, count);
}

Test(windows, few_results) {
  for (int k = 1; k <= 7; k += 2) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    cr_expect_eq(ir_protect(ctx, run_few, &k), TN_OK, "%d: %.900s", k, tn_error(ctx));
    tn_ctx_free(ctx);
  }
}

/* ---- depthwise: all pixels of a block of channels, then the next; of channels that lie last, pixel by pixel ---- */

typedef struct each_channel {
  int c, stride;
  lw_layout_choice layout;
} each_channel;

static ir_program *compile_each(tn_ctx *ctx, const each_channel *e, bool unscheduled, int64_t *elements) {
  enum { H = 9, W = 21 };
  ir_graph *g = ir_graph_new(ctx, "g");
  ix dims[4] = {ix_index(ctx, 2), ix_index(ctx, e->c), ix_index(ctx, H), ix_index(ctx, W)};
  ir_value *in[2] = {ir_graph_input(g, "x", TN_F32, 4, dims), ir_graph_const(g, "w", TN_F32, 4, (int64_t[]){e->c, 1, 3, 3}, layer_floats(ctx, e->c * 9, 2), false)};
  ir_node *n = ir_node_new(g, "Conv", "depthwise", 2, in, 1);
  ir_attr_int(n, "group", e->c);
  ir_attr_ints(n, "pads", 4, (int64_t[]){1, 1, 1, 1});
  ir_attr_ints(n, "strides", 2, (int64_t[]){e->stride, e->stride});
  ir_graph_output(g, n->out[0]);
  *elements = 2 * e->c * ((H - 1) / e->stride + 1) * ((W - 1) / e->stride + 1);
  return lw_compile(ctx, g, &(lw_options){.target = cg_target_find(ctx, "x86-64-v3", NULL), .unscheduled = unscheduled, .layout = e->layout});
}

static void run_each(tn_ctx *ctx, void *arg) {
  const each_channel *e = arg;
  int64_t count;
  ir_program *p = compile_each(ctx, e, false, &count);
  bool first = false, found = false;
  for (int i = 0; i < p->nkernels; i++)
    if (strncmp(p->kernels[i].kernel->name, "conv", 4) == 0) found = true, first = strstr(p->kernels[i].schedule, "reorder vo") != NULL;
  if (!found || first != (e->layout != LW_LAYOUT_NHWC)) ir_fail(ctx, TN_EWRONG, "%s go outside", first ? "channels" : "pixels");
  const void *in[1] = {layer_floats(ctx, 2L * e->c * 9 * 21, 4)};
  layer_check(ctx, cg_target_find(ctx, "x86-64-v3", NULL), p, compile_each(ctx, e, true, &count), in, count);
}

Test(windows, each_channel) {
  static const each_channel all[] = {{24, 1, LW_LAYOUT_AUTO}, {32, 2, LW_LAYOUT_AUTO}, {20, 2, LW_LAYOUT_AUTO}, {48, 1, LW_LAYOUT_NHWC}, {48, 2, LW_LAYOUT_NHWC}};
  for (int i = 0; i < (int)(sizeof all / sizeof *all); i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    cr_expect_eq(ir_protect(ctx, run_each, (void *)&all[i]), TN_OK, "%d: %.900s", i, tn_error(ctx));
    tn_ctx_free(ctx);
  }
}
