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
