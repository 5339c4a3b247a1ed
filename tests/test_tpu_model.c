/* test_tpu_model.c — whole graphs on the systolic machine, in all precisions, against the interpreter of the program
 * that they were made from: the same arithmetic, so the same bits. */
#include "autotune/tpu.h"
#include "frontend/file.h"
#include "frontend/import.h"
#include "runtime/program_interp.h"
#include "runtime/tpu_build.h"
#include "runtime/tpu_sim.h"
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

/* Transposed convolutions, with every remainder of their strides, flipped taps, cut borders. */
static ir_value *transposed(ir_graph *g, ir_value *x, int64_t c, int64_t k, int64_t taps, int64_t stride, int64_t pad, int64_t dilation, uint64_t seed) {
  ir_value *in[2] = {x, weights(g, 4, (int64_t[]){c, k, taps, taps}, seed)};
  ir_node *n = ir_node_new(g, "ConvTranspose", NULL, 2, in, 1);
  n->opset = 13;
  ir_attr_ints(n, "strides", 2, (int64_t[]){stride, stride});
  ir_attr_ints(n, "dilations", 2, (int64_t[]){dilation, dilation});
  ir_attr_ints(n, "pads", 4, (int64_t[]){pad, 0, pad, pad});
  return n->out[0];
}

static ir_graph *upwards(tn_ctx *ctx) {
  ir_graph *g = ir_graph_new(ctx, "upwards");
  ix dims[4] = {ix_index(ctx, 1), ix_index(ctx, 5), ix_index(ctx, 4), ix_index(ctx, 3)};
  ir_value *x = ir_graph_input(g, "x", TN_F32, 4, dims);
  ir_value *a = transposed(g, x, 5, 6, 3, 2, 1, 1, 11);
  ir_value *b = transposed(g, op(g, "Relu", 1, &a), 6, 4, 4, 3, 2, 1, 12);
  ir_graph_output(g, transposed(g, b, 4, 3, 3, 1, 1, 2, 13));
  return g;
}

/* A convolution over one to three axes, padded, and a residual's worth of channels behind it. */
typedef struct windowed {
  int rank;
  int64_t taps, stride, dilation, groups;
  bool up; /* transposed */
} windowed;

static windowed the_window;

static ir_graph *window_graph(tn_ctx *ctx) {
  const windowed *w = &the_window;
  ir_graph *g = ir_graph_new(ctx, "window");
  int64_t c = 12, k = 24, ones[3] = {1, 1, 1}, pads[6] = {1, 1, 1, 1, 1, 1}, strides[3] = {w->stride, w->stride, w->stride}, dilations[3] = {w->dilation, w->dilation, w->dilation};
  int64_t shape[5] = {w->up ? c : k, (w->up ? k : c) / w->groups, w->taps, w->taps, w->taps};
  static const int64_t sizes[3][3] = {{40}, {9, 8}, {5, 4, 6}};
  ix dims[5] = {ix_index(ctx, 1), ix_index(ctx, c)};
  for (int d = 0; d < w->rank; d++) dims[2 + d] = ix_index(ctx, sizes[w->rank - 1][d]);
  ir_value *x = ir_graph_input(g, "x", TN_F32, 2 + w->rank, dims);
  ir_value *in[2] = {x, weights(g, 2 + w->rank, shape, 21)};
  ir_node *n = ir_node_new(g, w->up ? "ConvTranspose" : "Conv", NULL, 2, in, 1);
  n->opset = 13;
  ir_attr_int(n, "group", w->groups);
  ir_attr_ints(n, "strides", w->rank, w->stride > 1 ? strides : ones);
  ir_attr_ints(n, "dilations", w->rank, w->dilation > 1 ? dilations : ones);
  ir_attr_ints(n, "pads", 2 * w->rank, pads);
  ir_graph_output(g, op(g, "Relu", 1, n->out));
  return g;
}

typedef struct run {
  ir_graph *(*graph)(tn_ctx *ctx);
  lw_precision precision;
  const char *machine;
  tpu_tunables tile; /* stationary: products are forced onto the matrix unit */
  int cores;
  bool matmul;
  bool sums; /* the vector unit made some */
} run;

static void run_model(tn_ctx *ctx, void *arg) {
  run *r = arg;
  const tpu_machine *m = tpu_machine_parse(ctx, r->machine, "machine");
  rt_tpu_build b = rt_tpu_compile(ctx, r->graph(ctx), m, &(rt_tpu_options){.precision = r->precision, .tile = &r->tile, .cores = r->cores, .jobs = 1});
  ir_assert(ctx, b.tpu->ncores == r->cores);
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
  for (int c = 0; c < b.tpu->ncores; c++)
    for (int64_t i = 0; i < b.tpu->core[c].n; i++) {
      r->matmul |= b.tpu->core[c].insts[i].op == TPU_MATMUL;
      r->sums |= b.tpu->core[c].insts[i].op == TPU_VECTOR && b.tpu->core[c].insts[i].fn == IX_FMA;
    }
  if (memcmp(got, want, (size_t)out->bytes)) ir_fail(ctx, TN_EWRONG, "first elements: %g, should be %g", *(float *)got, *(float *)want);
}

static run expect(run r) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_status s = ir_protect(ctx, run_model, &r);
  cr_assert_eq(s, TN_OK, "precision %d, %s: %s", r.precision, r.machine, tn_error(ctx));
  cr_assert(r.matmul || !r.tile.stationary);
  tn_ctx_free(ctx);
  return r;
}

/* Room for everything, and so little that the arena lies in DRAM. */
static const char *const machines[] = {"rows 16\ncols 8\narrays 2\nub_bytes 1048576\nacc_bytes 65536\ncores 3\n",
                                       "rows 8\ncols 8\nub_bytes 12288\nacc_bytes 4096\ncores 3\n",
                                       "rows 8\ncols 8\nub_bytes 1048576\nacc_bytes 65536\ncores 3\ntile_rows 2\ntile_cols 8\n"};

static void all(ir_graph *(*graph)(tn_ctx *ctx)) {
  for (int k = 0; k < IR_COUNT(machines); k++)
    for (int p = LW_PRECISION_F32; p <= LW_PRECISION_INT8; p++)
      for (int forced = 0; forced < 2; forced++)
        for (int cores = 1; cores <= 3; cores++) expect((run){graph, (lw_precision)p, machines[k], {.stationary = forced}, cores, false, false});
}

Test(tpu_model, convolutions) { all(network); }
Test(tpu_model, attention) { all(attention); }
Test(tpu_model, transposed) { all(upwards); }

/* Left to itself the compiler finds the matrix unit for each of them, where the vector unit is no faster. */
Test(tpu_model, windows) {
  static const windowed cases[] = {{1, 3, 1, 1, 1, false}, {1, 5, 2, 1, 1, false}, {1, 3, 1, 3, 1, false}, {1, 3, 1, 1, 2, false}, {1, 4, 2, 1, 1, true},
                                   {2, 3, 1, 2, 1, false}, {2, 3, 2, 1, 3, false}, {2, 4, 2, 1, 1, true},  {2, 3, 2, 2, 2, true},
                                   {3, 3, 1, 1, 1, false}, {3, 3, 2, 1, 1, false}, {3, 2, 1, 2, 1, false}, {3, 3, 1, 1, 2, false}, {3, 1, 1, 1, 1, false},
                                   {3, 3, 2, 1, 1, true},  {3, 3, 1, 2, 1, true}};
  for (int i = 0; i < IR_COUNT(cases); i++)
    for (int p = LW_PRECISION_F32; p <= (i % 5 ? LW_PRECISION_BF16 : LW_PRECISION_INT8); p++) {
      the_window = cases[i];
      run r = expect((run){window_graph, (lw_precision)p, "rows 16\ncols 8\narrays 2\nlanes 16\nact_lanes 16\ncores 2\ntile_rows 2\ntile_cols 8\n", {0}, 1 + i % 2, false, false});
      cr_assert(r.matmul && !r.sums, "case %d, precision %d", i, p);
    }
}

/* Rows of 100 channels at the pitch of tiles: faster, though in more memory; of 6 channels they stay dense. */
static ir_graph *tall(tn_ctx *ctx, int64_t n) {
  ir_graph *g = ir_graph_new(ctx, "tall");
  ix dims[2] = {ix_index(ctx, 600), ix_index(ctx, n)};
  ir_value *x = ir_graph_input(g, "x", TN_F32, 2, dims), *bias = weights(g, 1, &n, 31), *y = x;
  for (int i = 0; i < 3; i++) {
    y = op(g, "MatMul", 2, (ir_value *[]){y, weights(g, 2, (int64_t[]){n, n}, 32)});
    y = op(g, "Add", 2, (ir_value *[]){y, bias});
    y = op(g, "Softmax", 1, &y);
  }
  ir_graph_output(g, y);
  return g;
}

static void run_tiles(tn_ctx *ctx, void *arg) {
  (void)arg;
  const tpu_machine *m = tpu_machine_find(ctx, "tpu-v6e");
  int64_t sizes[] = {100, 6}, cycles[3];
  for (int i = 0; i < 2; i++) {
    uint8_t *got[3];
    float *x = ir_alloc(ctx, (size_t)(600 * sizes[i]) * 4);
    uint64_t seed = 3;
    for (int64_t k = 0; k < 600 * sizes[i]; k++) x[k] = noise(&seed);
    for (int layout = TPU_LAYOUT_ANY; layout <= TPU_LAYOUT_TILED; layout++) {
      rt_tpu_build b = rt_tpu_compile(ctx, tall(ctx, sizes[i]), m, &(rt_tpu_options){.precision = LW_PRECISION_BF16, .layout = (tpu_layout)layout, .jobs = 1});
      cycles[layout] = rt_tpu_cycles(ctx, m, b.tpu);
      got[layout] = ir_alloc(ctx, (size_t)(600 * sizes[i]) * 4);
      tpu_simulate(ctx, m, b.tpu, NULL, (const void *[]){x}, (void *[]){got[layout]}, NULL);
      ir_assert(ctx, !layout || !memcmp(got[0], got[layout], (size_t)(600 * sizes[i]) * 4));
    }
    int64_t dense = cycles[TPU_LAYOUT_DENSE], tiles = cycles[TPU_LAYOUT_TILED];
    ir_assert(ctx, cycles[TPU_LAYOUT_ANY] == (tiles < dense ? tiles : dense));
    ir_assert(ctx, i ? tiles == dense : tiles < dense);
  }
}

Test(tpu_model, tiles) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  cr_assert_eq(ir_protect(ctx, run_tiles, NULL), TN_OK, "%s", tn_error(ctx));
  tn_ctx_free(ctx);
}

/* Several cores take their share of a large product: it becomes faster, and so does one with few rows, whose columns
 * are shared. Small ones stay on one core where waking the others takes longer. */
static ir_graph *wide(tn_ctx *ctx, int64_t m, int64_t n) {
  ir_graph *g = ir_graph_new(ctx, "wide");
  ix dims[2] = {ix_index(ctx, m), ix_index(ctx, 64)};
  ir_value *x = ir_graph_input(g, "x", TN_F32, 2, dims);
  ir_graph_output(g, op(g, "MatMul", 2, (ir_value *[]){x, weights(g, 2, (int64_t[]){64, n}, 3)}));
  return g;
}

static void shared_work(tn_ctx *ctx, void *arg) {
  (void)arg;
  static const struct { int64_t m, n; int cores; } cases[] = {{512, 64, 4}, {2, 512, 4}, {2, 8, 1}};
  const tpu_machine *m = tpu_machine_parse(ctx, "rows 16\ncols 16\ncores 4\nlanes 16\ndram_gbps 8000\njoin_cycles 300\n", "machine");
  for (int i = 0; i < IR_COUNT(cases); i++) {
    rt_tpu_options o = {.precision = LW_PRECISION_BF16, .jobs = 1};
    const tpu_program *best = rt_tpu_compile(ctx, wide(ctx, cases[i].m, cases[i].n), m, &o).tpu;
    if (best->ncores != cases[i].cores) ir_fail(ctx, TN_EWRONG, "%d x %d: %d cores", (int)cases[i].m, (int)cases[i].n, best->ncores);
    o.cores = 1;
    const tpu_program *one = rt_tpu_compile(ctx, wide(ctx, cases[i].m, cases[i].n), m, &o).tpu;
    int64_t shared = rt_tpu_cycles(ctx, m, best), alone = rt_tpu_cycles(ctx, m, one);
    if (best->ncores > 1 && 2 * shared >= alone) ir_fail(ctx, TN_EWRONG, "%d x %d: %d cycles, one core %d", (int)cases[i].m, (int)cases[i].n, (int)shared, (int)alone);
  }
}

Test(tpu_model, cores) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  cr_assert_eq(ir_protect(ctx, shared_work, NULL), TN_OK, "%s", tn_error(ctx));
  tn_ctx_free(ctx);
}

/* One channel serves loads and stores in the order of the text: what a tile of rows stores stands behind the next one's load. */
static void run_late(tn_ctx *ctx, void *arg) {
  (void)arg;
  const tpu_machine *m = tpu_machine_parse(ctx, "rows 16\ncols 16\nub_bytes 131072\nacc_bytes 8192\nlanes 16\n", "machine");
  const tpu_program *p = rt_tpu_compile(ctx, wide(ctx, 512, 16), m, &(rt_tpu_options){.precision = LW_PRECISION_F32, .jobs = 1}).tpu;
  int loads = 0, stores = 0;
  for (int64_t i = 0; i < p->core[0].n; i++) {
    loads += p->core[0].insts[i].op == TPU_LOAD;
    stores += p->core[0].insts[i].op == TPU_STORE;
    ir_assert(ctx, !stores || stores < loads || stores == 512 / 64);
  }
  ir_assert(ctx, stores > 1);
}

Test(tpu_model, stores_come_late) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  cr_assert_eq(ir_protect(ctx, run_late, NULL), TN_OK, "%s", tn_error(ctx));
  tn_ctx_free(ctx);
}

/* Control flow between kernels: turns counted and decided by data, an if inside with lets. */
static const char looping[] =
    "program looping {\n"
    "  bytes weights 0 arena 640 state 64 pack_arena 0 live_peak 640\n"
    "  counts inputs 2 outputs 1 raw 0\n"
    "  slot x: f32[6, 5] input 0 bytes 120\n"
    "  slot n: i64[] input 1 bytes 8\n"
    "  slot i: i64[] arena @0 bytes 8\n"
    "  slot h: f32[6, 5] arena @64 bytes 120\n"
    "  slot g: f32[6, 5] arena @192 bytes 120\n"
    "  slot s: f32[] arena @320 bytes 4\n"
    "  slot t: f32[6, 5] arena @384 bytes 120\n"
    "  slot y: f32[6, 5] output 0 bytes 120\n"
    "  slot count: i64[] state @0 bytes 8\n"
    "  kernel zero(out a: i64[]) { a[] = 0 }\n schedule \"\"\n"
    "  kernel next(inout a: i64[]) { a[] = a[] + 1 }\n schedule \"\"\n"
    "  kernel mix(in a: f32[6, 5], in b: f32[6, 5], out c: f32[6, 5]) { for r in 0 .. 6 { for q in 0 .. 5 { alloc acc: f32[] register acc[] = 0.0 "
    "for k in 0 .. 5 { acc[] = fma(a[r, k], b[q, k], acc[]) } c[r, q] = acc[] * 0.7 } } }\n schedule \"\"\n"
    "  kernel bend(in a: f32[6, 5], out c: f32[6, 5]) { for r in 0 .. 6 { for q in 0 .. 5 { c[5 - r, q] = max(a[r, q], a[5 - r, 4 - q] * -0.5) } } }\n schedule \"\"\n"
    "  kernel sum(in a: f32[6, 5], out c: f32[]) { alloc acc: f32[] register acc[] = 0.0 for r in 0 .. 6 { for q in 0 .. 5 { acc[] += a[r, q] } } c[] = acc[] }\n schedule \"\"\n"
    "  pack { }\n"
    "  run {\n"
    "    call zero(i)\n    call bend(x, h)\n"
    "    while i[] < n[] {\n"
    "      call mix(h, x, g)\n      call sum(g, s)\n"
    "      let half: i64 = i[] / 2\n"
    "      if s[] > 0.0 & half * 2 == i[] {\n        call bend(g, t)\n      } else {\n        copy g -> t\n        call next(count)\n      }\n"
    "      call bend(t, h)\n      call next(i)\n"
    "    }\n"
    "    if n[] > 3 { call bend(h, y) } else { copy h -> y }\n"
    "  }\n}\n";

typedef struct looped {
  const char *machine;
  int cores;
  int64_t turns;
} looped;

static void run_looping(tn_ctx *ctx, void *arg) {
  const looped *l = arg;
  const tpu_machine *m = tpu_machine_parse(ctx, l->machine, "machine");
  ir_program *p = ir_program_parse(ctx, looping, "looping");
  const tpu_program *t = tpu_compile(ctx, p, m, &(tpu_options){.cores = l->cores});
  float x[30], got[30], want[30];
  uint64_t seed = (uint64_t)l->turns + 5;
  int64_t got_count[8] = {0}, want_count[8] = {0};
  for (int i = 0; i < 30; i++) x[i] = noise(&seed);
  rt_program_interp(ctx, p, (const void *[]){x, &l->turns}, (void *[]){want}, NULL, want_count, NULL);
  tpu_simulate(ctx, m, t, NULL, (const void *[]){x, &l->turns}, (void *[]){got}, got_count);
  ir_assert(ctx, memcmp(got, want, sizeof got) == 0 && got_count[0] == want_count[0]);
  ir_assert(ctx, rt_tpu_cycles(ctx, m, t) > 0);
}

Test(tpu_model, control_flow) {
  for (int k = 0; k < IR_COUNT(machines); k++)
    for (int cores = 1; cores <= 3; cores++)
      for (int64_t turns = 0; turns < 7; turns++) {
        looped l = {machines[k], cores, turns};
        tn_ctx *ctx = tn_ctx_new(NULL);
        cr_assert_eq(ir_protect(ctx, run_looping, &l), TN_OK, "machine %d, %d cores, %d turns: %s", k, cores, (int)turns, tn_error(ctx));
        tn_ctx_free(ctx);
      }
}

/* What ONNX Runtime's static quantiser wrote (tests/make_qdq.py): products of bytes on an array that has nothing else, the bits of
 * the same arithmetic in the interpreter, and ONNX Runtime's own results within a step of the last quantisation. */
static void run_qdq(tn_ctx *ctx, void *arg) {
  (void)arg;
  static const float theirs[] = {0.531180739f, 0.227648899f, 0.348168910f, 0.209794074f, -0.370487422f}; /* unoptimised: its fused products saturate on AVX2 */
  const tpu_machine *m = tpu_machine_parse(ctx, "rows 16\ncols 8\nbf16 0\nf16 0\nf32 0\ncores 2\n", "machine");
  const fe_map *file = fe_map_file(ctx, TN_SOURCE_DIR "/tests/corpus/model/qdq_static.onnx");
  ir_graph *g = fe_import_model(ctx, fe_onnx_parse(ctx, file->data, file->size, file->path, NULL), NULL);
  tpu_tunables forced = {.stationary = 1};
  rt_tpu_build b = rt_tpu_compile(ctx, g, m, &(rt_tpu_options){.precision = rt_tpu_precision(m), .tile = &forced, .cores = 2, .jobs = 1});
  float x[360], got[5], want[5];
  for (int i = 0; i < 360; i++) x[i] = (float)((i * 37) % 101) / 50.5f - 1;
  rt_program_interp(ctx, b.program, (const void *[]){x}, (void *[]){want}, NULL, NULL, NULL);
  tpu_simulate(ctx, m, b.tpu, NULL, (const void *[]){x}, (void *[]){got}, NULL);
  ir_assert(ctx, memcmp(got, want, sizeof got) == 0);
  int products = 0;
  for (int c = 0; c < b.tpu->ncores; c++)
    for (int64_t i = 0; i < b.tpu->core[c].n; i++) products += b.tpu->core[c].insts[i].op == TPU_MATMUL;
  ir_assert(ctx, products > 0);
  for (int i = 0; i < 5; i++) ir_assert(ctx, got[i] > theirs[i] - 0.02f && got[i] < theirs[i] + 0.02f);
}

Test(tpu_model, qdq) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  cr_assert_eq(ir_protect(ctx, run_qdq, NULL), TN_OK, "%s", tn_error(ctx));
  tn_ctx_free(ctx);
}

/* The search is never worse than the model, the same each time, what it found is what the program then takes, and a store
 * knows it: nothing is timed twice, compiles find it. */
static void tune_model(tn_ctx *ctx, void *arg) {
  (void)arg;
  /* a slow FIFO and slow activations: what the model knows nothing of */
  const tpu_machine *m = tpu_machine_parse(ctx, "rows 16\ncols 8\narrays 2\nub_bytes 1048576\nacc_bytes 65536\nlanes 16\nact_lanes 8\nvector_overhead 40\nfifo_depth 1\n", "machine");
  rt_tpu_build b = rt_tpu_compile(ctx, network(ctx), m, &(rt_tpu_options){.precision = LW_PRECISION_BF16, .jobs = 1});
  at_tpu_task t = {b.program, m, "bf16", b.weights, 1};
  size_t bytes = (size_t)b.program->nkernels * sizeof(tpu_tunables);
  at_tpu_result first = at_tpu_tune(ctx, &t, &(at_tpu_options){0}), again = at_tpu_tune(ctx, &t, &(at_tpu_options){0});
  ir_assert(ctx, first.last <= first.first && first.trials > 10);
  ir_assert(ctx, first.last == again.last && !memcmp(first.tiles, again.tiles, bytes));
  const tpu_program *p = tpu_compile(ctx, b.program, m, &(tpu_options){.tiles = first.tiles, .weights = b.weights});
  ir_assert(ctx, rt_tpu_cycles(ctx, m, p) == first.last);
  at_store *store = at_store_open(ctx, ":memory:", 0);
  ir_assert(ctx, !at_tpu_lookup(ctx, &t, store));
  at_tpu_result some = at_tpu_tune(ctx, &t, &(at_tpu_options){.store = store, .trials = 2}), rest = at_tpu_tune(ctx, &t, &(at_tpu_options){.store = store});
  ir_assert(ctx, some.trials < first.trials && rest.known > 0 && rest.last <= some.last);
  at_tpu_result all = at_tpu_tune(ctx, &t, &(at_tpu_options){.store = store});
  ir_assert(ctx, all.trials <= rest.trials && all.last == rest.last);
  tpu_tunables *found = at_tpu_lookup(ctx, &t, store);
  ir_assert(ctx, all.changed == first.changed && (found || !all.changed));
  p = tpu_compile(ctx, b.program, m, &(tpu_options){.tiles = found, .weights = b.weights});
  ir_assert(ctx, !all.changed || rt_tpu_cycles(ctx, m, p) == all.last);
  t.precision = "int8"; /* another program */
  ir_assert(ctx, !at_tpu_lookup(ctx, &t, store));
  at_store_close(store);
  tpu_tunables read;
  for (int k = 0; found && k < b.program->nkernels; k++)
    ir_assert(ctx, at_tpu_tiles_parse(at_tpu_tiles_print(ctx, &found[k]), &read) && !memcmp(&read, &found[k], sizeof read));
  ir_assert(ctx, !at_tpu_tiles_parse("rows 8", &read) && !at_tpu_tiles_parse("rows 8 columns 8 rests c lanes 0", &read));
}

Test(tpu_model, tuning) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  cr_assert_eq(ir_protect(ctx, tune_model, NULL), TN_OK, "%s", tn_error(ctx));
  tn_ctx_free(ctx);
}
