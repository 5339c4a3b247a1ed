/* Long sums where accuracy is strict: their errors against f64 are well below those of sums one after another, as the
 * interpreter has them on the graph without schedules. Channels that leave a part of a block, a single one, padding,
 * strides, groups, few results, products whose B is known or not. */
#include "layer_help.h"
#include <criterion/criterion.h>
#include <string.h>

typedef struct layer {
  const char *op;
  int c, h, w, k, r, s, stride, pad, group; /* MatMul: [h, c] by [c, k]; Softmax: of columns of [c, w] */
} layer;

static const layer layers[] = {
    {"Conv", 64, 9, 11, 16, 3, 3, 1, 1, 1}, {"Conv", 67, 9, 7, 24, 3, 3, 1, 1, 1},  {"Conv", 65, 6, 14, 16, 3, 3, 2, 1, 1}, {"Conv", 168, 7, 7, 16, 3, 3, 1, 1, 1},
    {"Conv", 40, 9, 9, 16, 5, 5, 1, 2, 1},  {"Conv", 3, 20, 31, 16, 14, 14, 2, 3, 1}, {"Conv", 515, 9, 8, 24, 1, 1, 1, 0, 1}, {"Conv", 1024, 1, 1, 20, 1, 1, 1, 0, 1},
    {"Conv", 128, 8, 8, 32, 3, 3, 1, 1, 2}, {"Conv", 8, 25, 33, 8, 23, 23, 1, 11, 8}, {"Conv", 64, 9, 34, 3, 3, 3, 1, 1, 1},  {"Conv", 24, 1, 90, 16, 1, 41, 4, 20, 1},
    {"ConvTranspose", 134, 6, 7, 16, 4, 4, 2, 1, 1}, {"ConvTranspose", 56, 8, 9, 1, 9, 9, 3, 3, 1}, {"ConvTranspose", 520, 3, 3, 16, 2, 2, 2, 0, 1},
    {"MatMul", 600, 30, 0, 40, 0, 0, 0, 0, 0}, {"MatMul", 2048, 3, 0, 33, 0, 0, 0, 0, 0}, {"MatMul", 1100, 40, 0, 130, 0, 0, 0, 0, 0}, {"MatMul", 4099, 9, 0, 16, 0, 0, 0, 0, 0},
    {"Softmax", 1000, 0, 24, 0, 0, 0, 0, 0, 0}, {"Softmax", 3001, 0, 20, 0, 0, 0, 0, 0, 0},
};

/* f32 numbers as they are or as doubles. */
static const void *numbers(tn_ctx *ctx, int64_t n, uint64_t seed, tn_dtype dtype) {
  const float *x = layer_floats(ctx, n, seed);
  if (dtype == TN_F32) return x;
  double *wide = ir_alloc(ctx, (size_t)(n + 1) * sizeof *wide);
  for (int64_t i = 0; i < n; i++) wide[i] = x[i];
  return wide;
}

static ir_program *compile(tn_ctx *ctx, const layer *l, bool known, tn_dtype dtype, bool unscheduled, const void *in[2], int64_t *count) {
  ir_graph *g = ir_graph_new(ctx, "g");
  bool columns = strcmp(l->op, "Softmax") == 0, product = strcmp(l->op, "MatMul") == 0 || columns, back = strcmp(l->op, "ConvTranspose") == 0, signal = !product && l->r == 1 && l->s > 1;
  int rank = product ? 2 : signal ? 3 : 4;
  int64_t shape[4] = {1, l->c, signal ? l->w : l->h, l->w}, weights[4] = {back ? l->c : l->k, back ? l->k : l->c / (l->group ? l->group : 1), signal ? l->s : l->r, l->s};
  if (product) shape[0] = l->h, weights[0] = l->c, weights[1] = l->k;
  if (columns) shape[0] = l->c, shape[1] = l->w;
  int64_t n[2] = {1, 1};
  ix dims[2][4];
  for (int i = 0; i < rank; i++) n[0] *= shape[i], n[1] *= weights[i], dims[0][i] = ix_index(ctx, shape[i]), dims[1][i] = ix_index(ctx, weights[i]);
  in[0] = numbers(ctx, n[0], 4, dtype), in[1] = numbers(ctx, n[1], 2, dtype);
  ir_value *x = ir_graph_input(g, "x", dtype, rank, dims[0]), *w = known ? ir_graph_const(g, "w", dtype, rank, weights, in[1], false) : ir_graph_input(g, "w", dtype, rank, dims[1]);
  ir_node *node = ir_node_new(g, l->op, "y", columns ? 1 : 2, (ir_value *[]){x, w}, 1);
  if (columns) ir_attr_int(node, "axis", 0);
  if (!product) {
    ir_attr_ints(node, "strides", rank - 2, (int64_t[]){l->stride, l->stride});
    ir_attr_ints(node, "pads", 2 * (rank - 2), (int64_t[]){l->pad, l->pad, l->pad, l->pad});
    ir_attr_int(node, "group", l->group);
  }
  ir_value *y = ir_node_new(g, "Relu", "relu", 1, node->out, 1)->out[0];
  ir_graph_output(g, y);
  ir_program *p = lw_compile(ctx, g, &(lw_options){.target = cg_target_find(ctx, "x86-64-v3", NULL), .unscheduled = unscheduled});
  *count = 1;
  for (int i = 0; i < rank; i++) *count *= ir_dim(ctx, y, i);
  return p;
}

static double square_error(const float *got, const double *want, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) {
    double e = (double)got[i] - want[i];
    if (!(fabs(e) <= 1e-4 * (1 + fabs(want[i])))) return INFINITY;
    sum += e * e;
  }
  return sum;
}

static void run(tn_ctx *ctx, const layer *l, bool known) {
  const cg_target *t = cg_target_find(ctx, "x86-64-v3", NULL);
  if (!cg_target_runs_here(ctx, t, NULL)) return;
  const void *in[2], *wide[2];
  int64_t n;
  ir_program *p = compile(ctx, l, known, TN_F32, false, in, &n), *plain = compile(ctx, l, known, TN_F32, true, in, &n), *exact = compile(ctx, l, known, TN_F64, true, wide, &n);
  float *got = ir_alloc(ctx, (size_t)n * 4), *in_order = ir_alloc(ctx, (size_t)n * 4);
  double *want = ir_alloc(ctx, (size_t)n * 8);
  rt_module *m = rt_module_build(ctx, p, &(rt_options){.target = t});
  if (rt_run(m, in, (void *[]){got}, NULL, NULL)) ir_fail(ctx, TN_EWRONG, "the run failed");
  rt_module_free(ctx, m);
  rt_program_interp(ctx, plain, in, (void *[]){in_order}, NULL, NULL, NULL);
  rt_program_interp(ctx, exact, wide, (void *[]){want}, NULL, NULL, NULL);
  double ratio = sqrt(square_error(got, want, n) / square_error(in_order, want, n));
  if (!(ratio < 0.7)) ir_fail(ctx, TN_EWRONG, "errors are %.2f of those of sums in order\n%s", ratio, p->kernels[p->nkernels - 1].schedule);
}

static void run_known(tn_ctx *ctx, void *l) { run(ctx, l, true); }
static void run_given(tn_ctx *ctx, void *l) { run(ctx, l, false); }

Test(sums, in_parts) {
  for (int i = 0; i < 2 * IR_COUNT(layers); i++) {
    const layer *l = &layers[i / 2];
    if (i % 2 && strcmp(l->op, "MatMul") != 0) continue;
    tn_ctx *ctx = tn_ctx_new(NULL);
    cr_expect_eq(ir_protect(ctx, i % 2 ? run_given : run_known, (void *)l), TN_OK, "%s %d %dx%d to %d, %dx%d stride %d groups %d, %s: %.1500s", l->op, l->c, l->h, l->w, l->k, l->r, l->s, l->stride,
                 l->group, i % 2 ? "given" : "known", tn_error(ctx));
    tn_ctx_free(ctx);
  }
}
