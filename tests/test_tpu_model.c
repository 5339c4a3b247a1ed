/* test_tpu_model.c — whole graphs on the systolic machine, in all precisions, against the interpreter of the program
 * that they were made from: the same arithmetic, so the same bits. */
#include "runtime/program_interp.h"
#include "runtime/tpu_build.h"
#include "runtime/tpu_sim.h"
#include "runtime/tpu_tune.h"
#include <criterion/criterion.h>
#include <string.h>

static float noise(uint64_t *s) { /* [-1, 1) */
  *s = *s * 6364136223846793005u + 1442695040888963407u;
  return (float)(int64_t)(*s >> 33) / 1073741824.0f - 1;
}

static ir_value *weights(ir_graph *g, int rank, const int64_t *dims, uint64_t seed) {
  int64_t n = 1;
  for (int i = 0; i < rank; i++) n *= dims[i];
  float *f = IR_NEW_ARRAY(g->ctx, float, n);
  for (int64_t i = 0; i < n; i++) f[i] = noise(&seed) * 0.3f;
  return ir_graph_const(g, NULL, TN_F32, rank, dims, f, false);
}

static ir_value *op(ir_graph *g, const char *name, int nin, ir_value *const *in) {
  ir_node *n = ir_node_new(g, name, NULL, nin, in, 1);
  n->opset = 13;
  return n->out[0];
}

static ir_value *conv(ir_graph *g, ir_value *x, int64_t c, int64_t k, int64_t taps, int64_t stride, int64_t groups, uint64_t seed) {
  ir_value *in[3] = {x, weights(g, 4, (int64_t[]){k, c / groups, taps, taps}, seed), weights(g, 1, &k, seed + 1)};
  ir_node *n = ir_node_new(g, "Conv", NULL, 3, in, 1);
  n->opset = 13;
  int64_t pad = taps / 2;
  ir_attr_int(n, "group", groups);
  ir_attr_ints(n, "strides", 2, (int64_t[]){stride, stride});
  ir_attr_ints(n, "pads", 4, (int64_t[]){pad, pad, pad, pad});
  return n->out[0];
}

/* A small network of convolutions: plain, strided, depthwise, residual; pooling and a product at its end. */
static ir_graph *network(tn_ctx *ctx) {
  ir_graph *g = ir_graph_new(ctx, "network");
  ix dims[4] = {ix_index(ctx, 1), ix_index(ctx, 3), ix_index(ctx, 15), ix_index(ctx, 13)};
  ir_value *x = ir_graph_input(g, "x", TN_F32, 4, dims);
  ir_value *a = op(g, "Relu", 1, (ir_value *[]){conv(g, x, 3, 12, 3, 2, 1, 1)});
  ir_value *b = op(g, "Relu", 1, (ir_value *[]){conv(g, a, 12, 12, 3, 1, 12, 2)});
  ir_value *c = op(g, "Add", 2, (ir_value *[]){conv(g, b, 12, 12, 1, 1, 1, 3), a});
  ir_value *d = op(g, "Relu", 1, (ir_value *[]){conv(g, c, 12, 20, 3, 1, 4, 4)});
  ir_value *p = op(g, "GlobalAveragePool", 1, &d);
  ir_value *flat = op(g, "Flatten", 1, &p);
  ir_value *y = op(g, "MatMul", 2, (ir_value *[]){flat, weights(g, 2, (int64_t[]){20, 9}, 5)});
  ir_graph_output(g, op(g, "Softmax", 1, &y));
  return g;
}

/* Two products of activations with a softmax between: attention. */
static ir_graph *attention(tn_ctx *ctx) {
  ir_graph *g = ir_graph_new(ctx, "attention");
  ix dims[3] = {ix_index(ctx, 2), ix_index(ctx, 11), ix_index(ctx, 16)};
  ir_value *x = ir_graph_input(g, "x", TN_F32, 3, dims);
  ir_value *q = op(g, "MatMul", 2, (ir_value *[]){x, weights(g, 2, (int64_t[]){16, 16}, 7)});
  ir_value *k = op(g, "MatMul", 2, (ir_value *[]){x, weights(g, 2, (int64_t[]){16, 16}, 8)});
  ir_node *t = ir_node_new(g, "Transpose", NULL, 1, &k, 1);
  ir_attr_ints(t, "perm", 3, (int64_t[]){0, 2, 1});
  ir_value *s = op(g, "Softmax", 1, (ir_value *[]){op(g, "MatMul", 2, (ir_value *[]){q, t->out[0]})});
  ir_value *o = op(g, "MatMul", 2, (ir_value *[]){s, x});
  ir_graph_output(g, op(g, "Tanh", 1, &o));
  return g;
}

typedef struct run {
  ir_graph *(*graph)(tn_ctx *ctx);
  lw_precision precision;
  const char *machine;
  tpu_tunables tile; /* stationary: products are forced onto the matrix unit */
  bool matmul;
} run;

static void run_model(tn_ctx *ctx, void *arg) {
  run *r = arg;
  const tpu_machine *m = tpu_machine_parse(ctx, r->machine, "machine");
  rt_tpu_build b = rt_tpu_compile(ctx, r->graph(ctx), m, &(rt_tpu_options){.precision = r->precision, .tile = &r->tile, .jobs = 1});
  const ir_slot *in = NULL, *out = NULL;
  for (int i = 0; i < b.program->nslots; i++) {
    if (b.program->slots[i].kind == IR_SLOT_INPUT) in = &b.program->slots[i];
    if (b.program->slots[i].kind == IR_SLOT_OUTPUT) out = &b.program->slots[i];
  }
  float *x = ir_alloc(ctx, (size_t)in->bytes);
  uint64_t seed = 9;
  for (int64_t i = 0; i < in->bytes / 4; i++) x[i] = noise(&seed);
  void *got = ir_alloc(ctx, (size_t)out->bytes), *want = ir_alloc(ctx, (size_t)out->bytes);
  rt_program_interp(ctx, b.program, (const void *[]){x}, &want, NULL, NULL, NULL);
  tpu_simulate(ctx, m, b.tpu, NULL, (const void *[]){x}, &got, NULL);
  for (int64_t i = 0; i < b.tpu->core[0].n; i++) r->matmul |= b.tpu->core[0].insts[i].op == TPU_MATMUL;
  if (memcmp(got, want, (size_t)out->bytes)) ir_fail(ctx, TN_EWRONG, "first elements: %g, should be %g", *(float *)got, *(float *)want);
}

static void expect(run r) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_status s = ir_protect(ctx, run_model, &r);
  cr_assert_eq(s, TN_OK, "precision %d, %s: %s", r.precision, r.machine, tn_error(ctx));
  cr_assert(r.matmul || !r.tile.stationary);
  tn_ctx_free(ctx);
}

/* Room for everything, and so little that the arena lies in DRAM. */
static const char *const machines[] = {"rows 16\ncols 8\narrays 2\nub_bytes 1048576\nacc_bytes 65536\n", "rows 8\ncols 8\nub_bytes 12288\nacc_bytes 4096\n"};

static void all(ir_graph *(*graph)(tn_ctx *ctx)) {
  for (int k = 0; k < IR_COUNT(machines); k++)
    for (int p = LW_PRECISION_F32; p <= LW_PRECISION_INT8; p++) for (int forced = 0; forced < 2; forced++) expect((run){graph, (lw_precision)p, machines[k], {.stationary = forced}, false});
}

Test(tpu_model, convolutions) { all(network); }
Test(tpu_model, attention) { all(attention); }

/* The search is never worse than the model, the same each time, and what it found is what the program then takes. */
static void tune_model(tn_ctx *ctx, void *arg) {
  (void)arg;
  const tpu_machine *m = tpu_machine_parse(ctx, machines[0], "machine");
  rt_tpu_build b = rt_tpu_compile(ctx, network(ctx), m, &(rt_tpu_options){.precision = LW_PRECISION_BF16, .jobs = 1});
  tpu_options o = {.weights = b.weights};
  rt_tpu_tuning first = rt_tpu_tune(ctx, b.program, m, &o, 0), again = rt_tpu_tune(ctx, b.program, m, &o, 0);
  ir_assert(ctx, first.after <= first.before && first.trials > 10);
  ir_assert(ctx, first.after == again.after && !memcmp(first.tiles, again.tiles, (size_t)b.program->nkernels * sizeof *first.tiles));
  o.tiles = first.tiles;
  const tpu_program *p = tpu_compile(ctx, b.program, m, &o);
  ir_assert(ctx, tpu_simulate(ctx, m, p, &(tpu_sim_options){.no_values = true}, NULL, NULL, NULL)->cycles == first.after);
  ir_assert(ctx, rt_tpu_tune(ctx, b.program, m, &o, 5).trials <= 5);
}

Test(tpu_model, tuning) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  cr_assert_eq(ir_protect(ctx, tune_model, NULL), TN_OK, "%s", tn_error(ctx));
  tn_ctx_free(ctx);
}
