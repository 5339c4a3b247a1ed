/* test_control.c — If and Loop that stay control flow, against the same graphs with what decides known when compiling, which
 * are unrolled; by the interpreter, machine code and emulated GPU launches. */
#include "lower/lower.h"
#include "ops_help.h"
#include "runtime/cuda_plan.h"
#include "runtime/module.h"
#include "runtime/program_interp.h"

enum { ELEMENTS = 12, OUTPUTS = 2 };

typedef struct numbers { /* n, c, k: inputs of the one graph, constants of the other */
  int64_t n;
  uint8_t c;
  float k;
} numbers;

#define HEAD "const w: f32[4, 4] = [0.5, -0.25, 0.0, 1.0, 0.25, 0.5, -1.0, 0.0, 0.0, 0.75, 0.5, -0.5, 1.0, 0.0, 0.25, 0.5] const h: f32[] = 50.0 const half: f32[] = 0.5  input x: f32[3, 4]  "
static const char *const graphs[] = {
    /* states that change places, the number of the turn */
    "y, z = Loop(n, c, x, x) { body = graph b { input i: i64[] input d: bool[] input s: f32[3, 4] input t: f32[3, 4] f = Cast(i) {to = 1} u = Add(t, f) e = Identity(d) output e, u, s } } output y, z",
    /* as long as a value is small */
    "q, y = Loop(_, c, k, x) { body = graph b { input i: i64[] input d: bool[] input p: f32[] input s: f32[3, 4] m = MatMul(s, w) t = Tanh(m) o = Add(p, p) e = Less(o, h) output e, o, t } } output y, q",
    /* the same, at most n turns; what is around is read, the second state alone is wanted */
    "r = Relu(x)  q, y = Loop(n, c, k, x) { body = graph b { input i: i64[] input d: bool[] input p: f32[] input s: f32[3, 4] m = MatMul(s, w) t = Add(m, r) o = Add(p, p) e = Less(o, h) output e, o, t } } z = Neg(y) output y, z",
    /* without a first condition, a state that nothing changes, one of integers */
    "const a: i64[2] = [3, 5]  y, z = Loop(n, _, x, a) { body = graph b { input i: i64[1] input d: bool[1] input s: f32[3, 4] input t: i64[2] u = Add(t, i) e = Identity(d) output e, s, u } } output y, z",
    /* branches with products */
    "y, z = If(c) { then_branch = graph t { a = MatMul(x, w) b = Add(a, x) output a, b }, else_branch = graph e { a2 = Neg(x) output a2, x } } output y, z",
    /* loops in loops, an If in a loop */
    "r = Relu(x)  y, v = Loop(n, c, x, k) { body = graph b { input i: i64[] input d: bool[] input s: f32[3, 4] input o: f32[]"
    "  l = Loop(i, _, s) { body = graph b2 { input i2: i64[] input d2: bool[] input s2: f32[3, 4] f2 = Mul(s2, half) g2 = Add(f2, r) e2 = Identity(d2) output e2, g2 } }"
    "  j = Less(o, h)  m = If(j) { then_branch = graph t { a = MatMul(l, w) output a }, else_branch = graph u { a3 = Sub(l, r) output a3 } }"
    "  o2 = Mul(o, o) e = Identity(d) output e, m, o2 } } z = Neg(v) output y, z",
    /* weights that both sides make in several steps: what one keeps for later (p) is not what the other makes meanwhile */
    "const many: i64[2] = [16, 16] const wide: i64[2] = [1, 16] const one: i64[] = 1 const from: i64[2] = [0, 0] const to: i64[2] = [3, 4]"
    " xs = Tile(x, wide) ws = Tile(w, many) p = Softmax(ws) {axis = 0} p1 = CumSum(p, one) a = MatMul(xs, p1)"
    " b, v = Loop(n, c, a, k) { body = graph b { input i: i64[] input d: bool[] input s: f32[3, 64] input o: f32[]"
    "  wt = Tile(w, many) ns = Neg(wt) q = Softmax(ns) {axis = 1} q1 = CumSum(q, one) m = MatMul(s, q1) t = Tanh(m) e = Identity(d) output e, t, o } }"
    " p2 = CumSum(p, one) {reverse = 1} f = MatMul(b, p2) y = Slice(f, from, to) z = Neg(y) output y, z",
    /* a picture in blocks of channels comes to a loop and to a branch, another goes from them to a convolution */
    "const twice: i64[2] = [2, 2] const eight: i64[2] = [1, 8] const filter: i64[4] = [8, 8, 1, 1] const picture: i64[4] = [1, 8, 3, 4] const from: i64[4] = [0, 5, 0, 0] const to: i64[4] = [1, 6, 3, 4] const matrix: i64[2] = [3, 4]"
    " wt = Tile(w, twice) f = Reshape(wt, filter) xs = Tile(x, eight) p = Reshape(xs, picture) v = Conv(p, f)"
    " a = Loop(n, c, v) { body = graph b { input i: i64[] input d: bool[] input s: f32[1, 8, 3, 4] t = Sub(s, p) e = Identity(d) output e, t } }"
    " o = Conv(a, f) y4 = Slice(o, from, to) y = Reshape(y4, matrix)"
    " b2 = If(c) { then_branch = graph t { h1 = Conv(v, f) output h1 }, else_branch = graph e { h2 = Neg(v) output h2 } } z4 = Slice(b2, from, to) z = Reshape(z4, matrix) output y, z",
};

static ir_graph *graph_of(tn_ctx *ctx, const char *body, const numbers *known) {
  const char *head = known ? ir_format(ctx, "const n: i64[] = %lld const c: bool[] = %s const k: f32[] = %g", (long long)known->n, known->c ? "true" : "false", (double)known->k)
                           : "input n: i64[] input c: bool[] input k: f32[]";
  ir_graph *g = ir_graph_parse(ctx, ir_format(ctx, "graph g { opset 17 %s %s %s }", head, HEAD, body), "test");
  ir_graph_sort(g);
  return g;
}

static bool decides(const ir_program *p) {
  bool found = false;
  for (int i = 0; i < p->nrun; i++) found |= p->run[i].kind == IR_INST_IF || p->run[i].kind == IR_INST_WHILE || p->run[i].kind == IR_INST_FOR;
  return found;
}

typedef struct outputs {
  _Alignas(16) float v[OUTPUTS][ELEMENTS];
} outputs;

static void compare(tn_ctx *ctx, const outputs *want, const outputs *have, const numbers *a, const char *how) {
  for (int o = 0; o < OUTPUTS; o++)
    for (int i = 0; i < ELEMENTS; i++)
      if (memcmp(&want->v[o][i], &have->v[o][i], 4) != 0 && !(fabsf(want->v[o][i] - have->v[o][i]) <= 1e-5f * (1 + fabsf(want->v[o][i]))))
        ir_fail(ctx, TN_EWRONG, "%s, n %lld, c %d, k %g: output %d, element %d is %g, not %g", how, (long long)a->n, a->c, (double)a->k, o, i, (double)have->v[o][i], (double)want->v[o][i]);
}

static void one_graph(tn_ctx *ctx, void *arg) {
  const char *text = arg;
  static const numbers all[] = {{0, 1, 1}, {1, 1, 60}, {5, 1, 1}, {4, 0, 2}, {3, 1, 3}};
  const cg_target *t = cg_target_find(ctx, NULL, NULL);
  ir_program *host = ops_checked(ctx, lw_compile(ctx, graph_of(ctx, text, NULL), &(lw_options){.target = t}));
  if (!decides(host)) ir_fail(ctx, TN_EWRONG, "nothing is decided at run time");
  rt_module *m = rt_module_build(ctx, host, &(rt_options){.target = t, .jobs = 1});
  ir_program *gpu = ops_checked(ctx, rt_cuda_lower(ctx, graph_of(ctx, text, NULL), LW_LAYOUT_AUTO));
  const rt_cuda_plan *plan = rt_cuda_plan_make(ctx, gpu, cu_target_find(ctx, "sm_90a"), &(rt_cuda_options){.no_compile = true});
  for (int i = 0; i < IR_COUNT(all); i++) {
    numbers a = all[i];
    outputs o[4];
    float x[ELEMENTS];
    for (int e = 0; e < ELEMENTS; e++) x[e] = (float)(e * 7 % 11) / 8 - 0.5f;
    const void *in[] = {&a.n, &a.c, &a.k, x};
    memset(o, 0, sizeof o);
    ir_program *known = ops_checked(ctx, lw_compile(ctx, graph_of(ctx, text, &a), &(lw_options){0}));
    rt_program_interp(ctx, known, (const void *[]){x}, (void *[]){o[0].v[0], o[0].v[1]}, NULL, NULL, NULL);
    rt_program_interp(ctx, host, in, (void *[]){o[1].v[0], o[1].v[1]}, NULL, NULL, NULL);
    compare(ctx, &o[0], &o[1], &a, "interpreter");
    int code = rt_run_sized(m, in, (void *[]){o[2].v[0], o[2].v[1]}, NULL, NULL, NULL, NULL);
    if (code) ir_fail(ctx, TN_EWRONG, "the run says %d", code);
    compare(ctx, &o[0], &o[2], &a, "machine code");
    rt_cuda_plan_emulate(ctx, plan, in, (void *[]){o[3].v[0], o[3].v[1]}, NULL, NULL, (uint64_t)i);
    compare(ctx, &o[0], &o[3], &a, "emulated");
  }
  rt_module_free(ctx, m);
}

Test(control, stays) {
  for (int i = 0; i < IR_COUNT(graphs); i++) ops_each(one_graph, graphs[i]);
}

/* A program comes back from its text, with loops around the kernels of a body. */
static void text_of(tn_ctx *ctx, void *arg) {
  ir_program *p = lw_compile(ctx, graph_of(ctx, arg, NULL), &(lw_options){.target = cg_target_find(ctx, NULL, NULL)});
  const char *text = ir_program_print(ctx, p);
  ir_program *q = ops_checked(ctx, ir_program_parse(ctx, text, "printed"));
  if (strcmp(text, ir_program_print(ctx, q)) != 0) ir_fail(ctx, TN_EWRONG, "another text");
}
Test(control, prints) {
  for (int i = 0; i < IR_COUNT(graphs); i++) ops_each(text_of, graphs[i]);
}

/* A long loop of known length is not unrolled. */
static void long_loop(tn_ctx *ctx, void *arg) {
  ir_graph *g = ir_graph_parse(ctx, arg, "test");
  ir_graph_sort(g);
  ir_program *p = ops_checked(ctx, lw_compile(ctx, g, &(lw_options){.target = cg_target_find(ctx, NULL, NULL)}));
  if (!decides(p) || p->nkernels > 2) ir_fail(ctx, TN_EWRONG, "%d kernels", p->nkernels);
  float z = 0.25f, y = 0;
  rt_program_interp(ctx, p, (const void *[]){&z}, (void *[]){&y}, NULL, NULL, NULL);
  if (y != 7000.25f) ir_fail(ctx, TN_EWRONG, "%g", (double)y);
}
Test(control, long_one) {
  ops_each(long_loop, "graph g { opset 17 const n: i64[] = 7000 const one: f32[1] = [1.0] input z: f32[1]"
                  " y = Loop(n, _, z) { body = graph b { input i: i64[] input c: bool[] input v: f32[1] d = Identity(c) s = Add(v, one) output d, s } } output y }");
}
