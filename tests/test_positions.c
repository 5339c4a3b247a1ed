/* test_positions.c — results as long as data says: NonZero, Compress, NonMaxSuppression and what is computed from them, against the
 * same graphs of data that is known when compiling, which have other rules. By the interpreter, machine code and emulated GPU launches. */
#include "frontend/import.h"
#include "lower/lower.h"
#include "ops_help.h"
#include "runtime/cuda_plan.h"
#include "runtime/module.h"
#include "runtime/program_interp.h"

enum { ROOM = 4096, OUTPUTS = 2, X = 4 * 6, BOXES = 2 * 30, SCORES = 2 * 2 * 30 };

/* x: [4, 6], a third above 0.5; boxes of 2 pictures with scores for 2 classes, in steps of 0.1, so that some are equal. */
#define HEAD "input x: f32[4, 6] input b: f32[2, 30, 4] input s: f32[2, 2, 30] const h: f32[] = 0.5 const a0: i64[1] = [0] const a1: i64[1] = [1] const zero: i64[] = 0 const one: i64[] = 1 const last: i64[1] = [-1] m = Greater(x, h) "
#define FIRST "const first: i64[2] = [0, 1] fl = Slice(m, a0, a1, a0) row = Squeeze(fl, a0) k = Compress(x, row) {axis = 1} " /* columns of x: [4, ?] */
#define FLAT "const all: i64[1] = [-1] f = Reshape(x, all) g = Greater(f, h) y = Compress(f, g) " /* [?] */
static const char *const graphs[] = {
    "p = NonZero(m) q = Cast(p) {to = 1} r = NonZero(x) t = Cast(r) {to = 1} output q, t",
    "p = NonZero(m) t = Transpose(p) {perm = [1, 0]} v = GatherND(x, t) n = Shape(v) e = Cast(n) {to = 1} output v, e",
    "y = Compress(x, g) i = Identity(y) z = Neg(y) const all: i64[1] = [-1] f = Reshape(x, all) g = Greater(f, h) output i, z",
    FIRST "t = Transpose(k) {perm = [1, 0]} u = ReduceSum(k, a1) { keepdims = 0 } output t, u",
    FLAT "c = Concat(y, f, y) {axis = 0} d = Neg(c) w = Concat(y, y) {axis = 0} output d, w",
    FLAT "n = Shape(y) const six: i64[1] = [6] j = Concat(n, six) {axis = 0} k = ReduceMin(j) {keepdims = 1} t, i = TopK(y, k) r = Gather(y, i) output t, r",
    FLAT "n = Shape(y) e = ConstantOfShape(n) q = Squeeze(n, a0) r = Range(zero, q, one) rf = Cast(r) {to = 1} o = Add(e, rf) const two: i64[1] = [2] w = Concat(two, n) {axis = 0} l = Expand(y, w) output o, l",
    FLAT "n = Shape(y) u = Concat(n, a1) {axis = 0} v = Reshape(y, u) l = Less(y, one_f) const one_f: f32[] = 1.0 z = Compress(y, l) w = NonZero(l) wf = Cast(w) {to = 1} output v, wf",
    FLAT "i = Greater(x, h) j = Cast(i) {to = 6} k = ReduceSum(j) {keepdims = 0} const many: i32[] = 3 c = Greater(k, many) const e: f32[2] = [7.0, 8.0] z = If(c) { then_branch = graph t { v = Neg(y) output v }, else_branch = graph l { w = Identity(e) output w } } output z, y",
    "const most: i64[1] = [5] const iou: f32[] = 0.4 const least: f32[1] = [0.25] p = NonMaxSuppression(b, s, most, iou, least) q = Cast(p) {to = 1} c = NonMaxSuppression(b, s, most, iou) { center_point_box = 1 } d = Cast(c) {to = 1} output q, d",
    "const most: i64[1] = [1000] const iou: f32[] = 0.2 const least: f32[1] = [0.65] p = NonMaxSuppression(b, s, most, iou, least) const two: i64[] = 2 i = Gather(p, two) {axis = 1} v = GatherND(s, p) c = Cast(i) {to = 1} output v, c",
    "const iou: f32[] = 0.4 p = NonMaxSuppression(b, s, _, iou) q = Cast(p) {to = 1} const most: i64[1] = [0] r = NonMaxSuppression(b, s, most) t = Cast(r) {to = 1} output q, t",
};

typedef struct data {
  float x[X], boxes[BOXES * 4], scores[SCORES];
} data;

static void fill(data *d, int seed) {
  uint32_t r = (uint32_t)seed * 2654435761u + 1;
#define NEXT ((float)((r = r * 1664525u + 1013904223u) >> 8) / 16777216.0f)
  for (int i = 0; i < X; i++) d->x[i] = seed == 0 ? 0 : seed == 1 ? 1 : NEXT < 0.3f ? 0.75f + NEXT : 0;
  if (seed == 2) d->x[7] = NAN, d->x[9] = INFINITY;
  for (int i = 0; i < BOXES * 4; i++) d->boxes[i] = NEXT * 10; /* corners in any order */
  for (int i = 0; i < SCORES; i++) d->scores[i] = seed == 0 ? 0 : (float)(int)(NEXT * 10) / 10;
}

static ir_graph *graph_of(tn_ctx *ctx, const char *body, const data *known) {
  ir_graph *g = ir_graph_parse(ctx, ir_format(ctx, "graph g { opset 17 " HEAD "%s }", body), "test");
  ir_graph_sort(g);
  const float *from[] = {known ? known->x : NULL, known ? known->boxes : NULL, known ? known->scores : NULL};
  for (int k = 0; k < 3 && known; k++) fe_freeze_input(ctx, g, k, from[k]);
  return g;
}

typedef struct outputs {
  _Alignas(16) float v[OUTPUTS][ROOM];
  int64_t dims[OUTPUTS * IR_MAX_RANK];
} outputs;

static void compare(tn_ctx *ctx, const ir_program *p, const outputs *want, const outputs *have, int seed, const char *how) {
  const int64_t *d = want->dims, *e = have->dims;
  for (int o = 0; o < OUTPUTS; o++) {
    const ir_slot *s = p->slots;
    while (s->kind != IR_SLOT_OUTPUT || s->index != o) s++;
    int64_t n = 1;
    for (int i = 0; i < s->rank; i++, d++, e++) {
      if (*d != *e) ir_fail(ctx, TN_EWRONG, "%s, data %d: axis %d of output %d has %lld elements, not %lld", how, seed, i, o, (long long)*e, (long long)*d);
      n *= *d;
    }
    for (int64_t i = 0; i < n; i++)
      if (want->v[o][i] != have->v[o][i] && !(isnan(want->v[o][i]) && isnan(have->v[o][i])))
        ir_fail(ctx, TN_EWRONG, "%s, data %d: output %d, element %lld is %g, not %g", how, seed, o, (long long)i, (double)have->v[o][i], (double)want->v[o][i]);
  }
}

static void one_graph(tn_ctx *ctx, void *arg) {
  const char *text = arg;
  static data d;
  static outputs o[4];
  const cg_target *t = cg_target_find(ctx, NULL, NULL);
  ir_program *p = ops_checked(ctx, lw_compile(ctx, graph_of(ctx, text, NULL), &(lw_options){.target = t}));
  rt_module *m = rt_module_build(ctx, p, &(rt_options){.target = t, .jobs = 1});
  const rt_cuda_plan *plan = rt_cuda_plan_make(ctx, ops_checked(ctx, rt_cuda_lower(ctx, graph_of(ctx, text, NULL), LW_LAYOUT_AUTO)), cu_target_find(ctx, "sm_90a"), &(rt_cuda_options){.no_compile = true});
  for (int seed = 0; seed < 8; seed++) {
    fill(&d, seed);
    const void *in[] = {d.x, d.boxes, d.scores};
    memset(o, 0x7f, sizeof o);
    ir_program *known = ops_checked(ctx, lw_compile(ctx, graph_of(ctx, text, &d), &(lw_options){0}));
    rt_program_interp(ctx, known, in, (void *[]){o[0].v[0], o[0].v[1]}, NULL, NULL, &(rt_interp_options){.out_dims = o[0].dims});
    rt_program_interp(ctx, p, in, (void *[]){o[1].v[0], o[1].v[1]}, NULL, NULL, &(rt_interp_options){.out_dims = o[1].dims});
    compare(ctx, p, &o[0], &o[1], seed, "interpreter");
    if (rt_run_sized(m, in, (void *[]){o[2].v[0], o[2].v[1]}, NULL, o[2].dims, NULL, NULL)) ir_fail(ctx, TN_EWRONG, "the run failed");
    compare(ctx, p, &o[0], &o[2], seed, "machine code");
    rt_cuda_plan_emulate(ctx, plan, in, (void *[]){o[3].v[0], o[3].v[1]}, NULL, NULL, (uint64_t)seed);
    memcpy(o[3].dims, o[0].dims, sizeof o[3].dims);
    compare(ctx, p, &o[0], &o[3], seed, "emulated");
  }
  rt_module_free(ctx, m);
}
Test(positions, graphs) {
  for (int i = 0; i < IR_COUNT(graphs); i++) ops_each(one_graph, graphs[i]);
}

/* The most boxes, the share in common and the least score, which a run gives; an overlap of 0 keeps what only touches. */
Test(positions, suppress) {
  ops_check("const b: f32[1, 4, 4] = [0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 2.0, 0.0, 0.5, 1.0, 1.5, 5.0, 5.0, 5.0, 6.0] const s: f32[1, 1, 4] = [0.5, 0.5, 0.25, 0.75]"
            " p = NonMaxSuppression(b, s, n, t, l) const n: i64[1] = [3] const t: f32[1] = [0.0] const l: f32[1] = [0.2] const want: i64[3, 3] = [0, 0, 3, 0, 0, 0, 0, 0, 1] output p, want");
}
