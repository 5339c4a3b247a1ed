/* test_extent.c — outputs of which a run finds how long they are: what loops collect until a condition ends them, or a trip count that
 * a run gives; against the same graphs with what decides known when compiling, which are unrolled. By the interpreter, machine code,
 * emulated GPU launches and an object; and what is refused. */
#include "aot/shell.h"
#include "frontend/import.h"
#include "lower/lower.h"
#include "ops_help.h"
#include "runtime/cuda_plan.h"
#include "runtime/module.h"
#include "runtime/program_interp.h"

enum { ROOM = 512, OUTPUTS = 2 };

/* trip and c: given by a run, or constants. Trips end at 7, the condition where the state grows beyond 40. */
#define HEAD "const w: f32[4, 5] = [0.5, -0.25, 0.0, 1.0, 0.25, 0.5, -1.0, 0.0, 0.0, 0.75, 0.5, -0.5, 1.0, 0.0, 0.25, 0.5, 0.125, 0.5, 0.25, -1.0] const h: f32[] = 40.0 const b: f32[4] = [1.0, 2.0, 3.0, 4.0]" \
             " const most: i64[] = 7 const zero: i64[] = 0 const a0: i64[1] = [0] const a1: i64[1] = [1] const a2: i64[1] = [2] const big: i64[1] = [4611686018427387904] const three: i64[1] = [3] input x: f32[3, 4]  "
#define WHILE "q, y, z = Loop(m, c, x) { body = graph l { input i: i64[] input d: bool[] input s: f32[3, 4] t = Add(s, s) u = ReduceMax(t) { keepdims = 0 } e = Less(u, h) f = Cast(i) {to = 1} o = Add(s, f) output e, t, o, f } } "
#define FOR "q, y, z = Loop(m, c, x) { body = graph l { input i: i64[1] input d: bool[1] input s: f32[3, 4] t = Tanh(s) e = Identity(d) f = Cast(i) {to = 1} o = Add(s, f) output e, t, o, f } } "
static const char *const graphs[] = {
    WHILE "output y, z", FOR "output y, z", WHILE "output z, q",
    WHILE "n1 = Neg(y) k = Mul(n1, b) v = Add(y, k) l = Add(v, x) output l, q", /* elementwise, of equal length, of none */
    WHILE "t1 = Transpose(y) { perm = [1, 0, 2] } t2 = Transpose(y) { perm = [2, 1, 0] } output t1, t2",
    WHILE "const s: i64[2] = [-1, 4] const r: i64[3] = [0, 2, 6] f = Reshape(y, s) g = Reshape(y, r) output f, g",
    WHILE "p = MatMul(y, w) g = Gather(z, zero) f = Unsqueeze(y, a1) output p, f",
    WHILE "s = ReduceSum(y, a0) { keepdims = 0 } m2 = ReduceMax(y) { axes = [0], keepdims = 0 } d = Sub(s, m2) output d, s",
    WHILE "s = ReduceMean(y) { axes = [0, 2], keepdims = 1 } t = ReduceMean(y) { axes = [1], keepdims = 0 } output s, t",
    WHILE "const last: i64[] = -1 const ends: i64[2] = [-1, 0] g = Gather(y, last) k = Gather(y, ends) output g, k",
    WHILE "s = Slice(y, a1, big, a0) v = Slice(y, a1, three, a0) output s, v",
    WHILE "s = Softmax(y) { axis = 2 } v = Concat(y, s) { axis = 2 } n1 = Shape(v) e = Cast(n1) {to = 1} output v, e",
    WHILE "f, g = Scan(x, y) { num_scan_inputs = 1, scan_output_directions = [1], scan_output_axes = [1], body = graph k { input s: f32[3, 4] input r: f32[3, 4] t = Add(s, r) p = Mul(t, r) output t, p } } output g, f",
    WHILE "f, g = Scan(x, y) { num_scan_inputs = 1, scan_input_directions = [1], body = graph k { input s: f32[3, 4] input r: f32[3, 4] t = Sub(r, s) p = Mul(t, r) output t, p } } output g, f",
    "l0 = SequenceEmpty() q, l = Loop(m, c, x, l0) { body = graph l { input i: i64[] input d: bool[] input s: f32[3, 4] input a t = Add(s, s) u = ReduceMax(t) { keepdims = 0 } e = Less(u, h) o = Tanh(s) b1 = SequenceInsert(a, o) output e, t, b1 } }"
    " y = ConcatFromSequence(l) { axis = 1, new_axis = 1 } z = ConcatFromSequence(l) { axis = 1 } output y, z",
    "l0 = SequenceEmpty() const one: i64[] = 1 q, l = Loop(m, c, x, l0) { body = graph l { input i: i64[] input d: bool[] input s: f32[3, 4] input a t = Add(s, s) e = Identity(d) b1 = SequenceInsert(a, t) output e, t, b1 } }"
    " n1 = SequenceLength(l) n2 = Cast(n1) {to = 1} n3 = Sub(n1, one) f = SequenceAt(l, n3) output n2, f",
};

typedef struct numbers {
  int64_t n;
  uint8_t c;
  float x; /* times so much */
} numbers;

typedef struct outputs {
  _Alignas(16) float v[OUTPUTS][ROOM];
  int64_t dims[OUTPUTS * IR_MAX_RANK];
} outputs;

static ir_graph *graph_of(tn_ctx *ctx, const char *body, const numbers *known) {
  const char *head = known ? ir_format(ctx, "const m: i64[] = %lld const c: bool[] = %s input unused_n: i64[] input unused_c: bool[]", (long long)(known->n < 7 ? known->n : 7), known->c ? "true" : "false")
                           : "input n: i64[] input c: bool[] m = Min(n, most)";
  ir_graph *g = ir_graph_parse(ctx, ir_format(ctx, "graph g { opset 17 " HEAD " %s %s }", head, body), "test");
  ir_graph_sort(g);
  return g;
}

static const ir_slot *out_slot(const ir_program *p, int k) {
  const ir_slot *s = p->slots;
  while (s->kind != IR_SLOT_OUTPUT || s->index != k) s++;
  return s;
}

/* What both have in common: as many elements as the extents say, dense. */
static void compare(tn_ctx *ctx, const ir_program *p, const outputs *want, const outputs *have, const numbers *a, const char *how) {
  const int64_t *d = want->dims, *e = have->dims;
  for (int o = 0; o < OUTPUTS; o++) {
    int rank = out_slot(p, o)->rank;
    int64_t n = 1;
    for (int i = 0; i < rank; i++, d++, e++) {
      if (*d != *e) ir_fail(ctx, TN_EWRONG, "%s, n %lld, c %d: axis %d of output %d has %lld elements, not %lld", how, (long long)a->n, a->c, i, o, (long long)*e, (long long)*d);
      n *= *d;
    }
    for (int64_t i = 0; i < n; i++)
      if (want->v[o][i] != have->v[o][i] && !(fabsf(want->v[o][i] - have->v[o][i]) <= 1e-5f * (1 + fabsf(want->v[o][i]))))
        ir_fail(ctx, TN_EWRONG, "%s, n %lld, c %d: output %d, element %lld is %g, not %g", how, (long long)a->n, a->c, o, (long long)i, (double)have->v[o][i], (double)want->v[o][i]);
  }
}

/* Graphs that take the last of what there is, or the largest, want something to be there. */
static bool needs_one(const char *text) { return strstr(text, "Gather(y") || strstr(text, "Gather(z") || strstr(text, "FromSequence") || strstr(text, "SequenceAt") || strstr(text, "ReduceMean(y) { axes = [0"); }

/* The graph with its extents comes back from its text. */
static void reread(void *user, tn_ctx *ctx, const char *pass, const ir_graph *g, double seconds) {
  if (strcmp(pass, "extents")) return;
  const char *text = ir_graph_print(ctx, g);
  const ir_graph *h = ir_graph_parse(ctx, text, "printed");
  if (strcmp(text, ir_graph_print(ctx, h)) || h->nextents != g->nextents || ir_graph_verify(ctx, h)) ir_fail(ctx, TN_EWRONG, "another graph from\n%s", text);
  *(int *)user += g->nextents;
}

static void one_graph(tn_ctx *ctx, void *arg) {
  const char *text = arg;
  static const numbers all[] = {{0, 1, 1}, {1, 1, 1}, {4, 1, 1}, {7, 1, 0}, {100, 1, 1}, {5, 0, 1}, {-3, 1, 1}};
  const cg_target *t = cg_target_find(ctx, NULL, NULL);
  int extents = 0;
  ir_program *host = ops_checked(ctx, lw_compile(ctx, graph_of(ctx, text, NULL), &(lw_options){.target = t, .after_pass = reread, .after_user = &extents}));
  if (!extents && !needs_one(text) && !strstr(text, "output d, s")) ir_fail(ctx, TN_EWRONG, "no output has an extent");
  rt_module *m = rt_module_build(ctx, host, &(rt_options){.target = t, .jobs = 1});
  const rt_cuda_plan *plan = rt_cuda_plan_make(ctx, ops_checked(ctx, rt_cuda_lower(ctx, graph_of(ctx, text, NULL), LW_LAYOUT_AUTO)), cu_target_find(ctx, "sm_90a"), &(rt_cuda_options){.no_compile = true});
  const char *printed = ir_program_print(ctx, host);
  ir_program *again = ops_checked(ctx, ir_program_parse(ctx, printed, "printed"));
  if (strcmp(printed, ir_program_print(ctx, again))) ir_fail(ctx, TN_EWRONG, "another text");
  for (int i = 0; i < IR_COUNT(all); i++) {
    numbers a = all[i];
    static outputs o[4];
    float x[12];
    if (needs_one(text) && (a.n <= 0 || !a.c)) continue;
    for (int e = 0; e < 12; e++) x[e] = ((float)(e * 7 % 11) / 8 + 0.25f) * a.x;
    const void *in[] = {x, &a.n, &a.c};
    memset(o, 0x7f, sizeof o);
    ir_program *known = ops_checked(ctx, lw_compile(ctx, graph_of(ctx, text, &a), &(lw_options){0}));
    rt_program_interp(ctx, known, in, (void *[]){o[0].v[0], o[0].v[1]}, NULL, NULL, &(rt_interp_options){.out_dims = o[0].dims});
    rt_program_interp(ctx, host, in, (void *[]){o[1].v[0], o[1].v[1]}, NULL, NULL, &(rt_interp_options){.out_dims = o[1].dims});
    compare(ctx, host, &o[0], &o[1], &a, "interpreter");
    int code = rt_run_sized(m, in, (void *[]){o[2].v[0], o[2].v[1]}, NULL, o[2].dims, NULL, NULL);
    if (code) ir_fail(ctx, TN_EWRONG, "the run says %d", code);
    compare(ctx, host, &o[0], &o[2], &a, "machine code");
    rt_cuda_plan_emulate(ctx, plan, in, (void *[]){o[3].v[0], o[3].v[1]}, NULL, NULL, (uint64_t)i);
    memcpy(o[3].dims, o[0].dims, sizeof o[3].dims);
    compare(ctx, host, &o[0], &o[3], &a, "emulated");
  }
  rt_module_free(ctx, m);
}

Test(extent, loops) {
  for (int i = 0; i < IR_COUNT(graphs); i++) ops_each(one_graph, graphs[i]);
}

/* Sequences that are too long to be unrolled: all directions and axes, against the same Scan by numbers. */
static void long_scan(tn_ctx *ctx, void *arg) {
  enum { L = 1500 };
  static float a[2 * L], b[L], p[2 * L], q[L], f[2];
  static const char text[] = "graph g { opset 17 input x: f32[2] input a: f32[2, 1500] input b: f32[1500] f, p, q = Scan(x, a, b) { num_scan_inputs = 2, scan_input_axes = [1, 0], scan_input_directions = [0, 1],"
                             " scan_output_axes = [-1, 0], scan_output_directions = [1, 0], body = graph k { input s: f32[2] input u: f32[2] input v: f32[] c = Mul(s, v) t = Add(c, u) r = ReduceSum(t) { keepdims = 0 } output t, t, r } } output f, p, q }";
  ir_graph *g = ir_graph_parse(ctx, text, "test");
  ir_graph_sort(g);
  const cg_target *t = cg_target_find(ctx, NULL, NULL);
  ir_program *program = ops_checked(ctx, lw_compile(ctx, g, &(lw_options){.target = t}));
  if (program->nkernels > 6) ir_fail(ctx, TN_EWRONG, "%d kernels: it was unrolled", program->nkernels);
  rt_module *m = rt_module_build(ctx, program, &(rt_options){.target = t, .jobs = 1});
  float x[2] = {0.5f, -0.25f}, s[2] = {x[0], x[1]};
  for (int i = 0; i < 2 * L; i++) a[i] = (float)(i * 7 % 11) / 8 - 0.5f;
  for (int i = 0; i < L; i++) b[i] = (float)(i * 5 % 13) / 16;
  if (rt_run(m, (const void *[]){x, a, b}, (void *[]){f, p, q}, NULL, NULL)) ir_fail(ctx, TN_EWRONG, "the run failed");
  for (int k = 0; k < L; k++) {
    for (int i = 0; i < 2; i++) {
      s[i] = s[i] * b[L - 1 - k] + a[i * L + k];
      if (fabsf(p[i * L + L - 1 - k] - s[i]) > 1e-5f) ir_fail(ctx, TN_EWRONG, "turn %d: %g, not %g", k, (double)p[i * L + L - 1 - k], (double)s[i]);
    }
    if (fabsf(q[k] - s[0] - s[1]) > 1e-5f) ir_fail(ctx, TN_EWRONG, "turn %d: a sum of %g", k, (double)q[k]);
  }
  if (fabsf(f[0] - s[0]) > 1e-5f || fabsf(f[1] - s[1]) > 1e-5f) ir_fail(ctx, TN_EWRONG, "the last state is another");
  rt_module_free(ctx, m);
}
Test(extent, scan) { ops_each(long_scan, "a long Scan"); }

/* Before opset 9 a batch; of no elements nothing is collected. */
Test(extent, scan_forms) {
  ops_check("opset 8 const s: f32[2, 1] = [1.0, 2.0] const x: f32[2, 3, 1] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] f, y = Scan(_, s, x) { num_scan_inputs = 1, body = graph k { input s: f32[1] input r: f32[1] t = Add(s, r) output t, t } }"
            " const wf: f32[2, 1] = [7.0, 17.0] const wy: f32[2, 3, 1] = [2.0, 4.0, 7.0, 6.0, 11.0, 17.0] output f, wf, y, wy");
  ops_check("opset 17 const s: f32[1] = [1.0] const e: i64[2] = [0, 1] x = ConstantOfShape(e) f, y = Scan(s, x) { num_scan_inputs = 1, body = graph k { input s: f32[1] input r: f32[1] t = Add(s, r) output t, t } }"
            " n = Shape(y) const wn: i64[2] = [0, 1] output f, s, n, wn");
}

static void compiled(tn_ctx *ctx, void *arg) { lw_compile(ctx, graph_of(ctx, arg, NULL), &(lw_options){.target = cg_target_find(ctx, NULL, NULL)}); }
static void refused(const char *text, const char *part) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_status s = ir_protect(ctx, compiled, (void *)(uintptr_t)text);
  cr_assert(s == TN_EUNSUPPORTED && strstr(tn_error(ctx), part), "%s: status %d: %s", text, s, tn_error(ctx));
  tn_ctx_free(ctx);
}
Test(extent, refused) {
#define COLLECTS(TRIP) "q, y = Loop(" TRIP ", c, x) { body = graph l { input i: i64[] input d: bool[] input s: f32[3, 4] t = Add(s, s) u = ReduceMax(t) { keepdims = 0 } e = Less(u, h) output e, t, t } } output y, q"
  refused(COLLECTS("_"), "how many turns");
  refused(COLLECTS("n"), "how many turns");
  char minima[4096] = "m0 = Min(n, n) "; /* one number, to which 2^40 paths lead */
  for (int i = 0; i < 40; i++) snprintf(minima + strlen(minima), sizeof minima - strlen(minima), "m%d = Min(m%d, m%d) ", i + 1, i, i);
  strcat(minima, COLLECTS("m40"));
  refused(minima, "how many turns");
  refused("const far: i64[] = 1000000000000 " COLLECTS("far"), "more than 1024 MiB");
  refused(WHILE "v = CumSum(y, zero) output v, z", "CumSum");
  refused(WHILE "v = Add(y, z) output v, z", "Add"); /* an axis of another meaning, which may or may not broadcast */
  refused(WHILE "const s: i64[2] = [21, 4] v = Reshape(y, s) output v, z", "Reshape");
  refused(WHILE "const deep: i64[1, 20] = [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1] v = GatherND(y, deep) output v, z", "GatherND"); /* deeper than y, and than any tensor */
  refused(WHILE "const s: i64[2] = [9, 4] v = Reshape(y, s) output v, z", "Reshape"); /* right for three turns */
  refused(WHILE "v = Concat(y, x3) {axis = 2} const t: i64[3] = [7, 3, 4] x3 = Expand(x, t) output v, z", "Concat"); /* one as long as it is, one of 7 */
  refused(WHILE "v = Loop(n, _, y) { body = graph l2 { input i2: i64[] input d2: bool[] input s2: f32[7, 3, 4] t2 = Neg(s2) e2 = Identity(d2) output e2, t2 } } output v, z", "Loop");
}

/* tenon check walks such graphs, too. */
static void check_graph(tn_ctx *ctx, void *arg) {
  fe_problems p = {0};
  const char *text = arg;
  fe_check_graph(ctx, graph_of(ctx, text, NULL), false, &p);
  bool bad = strstr(text, "CumSum");
  if (p.n != bad || (bad && !strstr(p.items[0].reason, "found by a run"))) ir_fail(ctx, TN_EWRONG, "%d problems: %s", p.n, p.n ? p.items[0].reason : "");
}
Test(extent, check) {
  for (int i = 0; i < IR_COUNT(graphs); i++) ops_each(check_graph, graphs[i]);
  ops_each(check_graph, WHILE "v = CumSum(y, zero) output v, z");
}

/* An object tells the extents, for a caller in C. */
static const char driver[] =
    "#include \"m.h\"\n#include <math.h>\n#include <stdio.h>\n#include <stdlib.h>\n"
    "int main(void) {\n"
    "  static _Alignas(M_ALIGN) char arena[M_ARENA_BYTES(1) + 1];\n"
    "  float x[12], y[M_OUTPUT_0_BYTES / 4], z[M_OUTPUT_1_BYTES / 4];\n"
    "  for (int i = 0; i < 12; i++) x[i] = (float)(i + 1);\n"
    "  for (int64_t n = -1; n < 12; n++) {\n"
    "    unsigned char c = 1;\n"
    "    int64_t dims[M_NUM_OUT_DIMS], want = n < 0 ? 0 : n < 2 ? n : 2;\n" /* 12, 24, 48: two turns */
    "    const void *in[] = {x, &n, &c}; void *out[] = {y, z};\n"
    "    int rc = m_run(in, out, NULL, dims, NULL, NULL, arena, NULL);\n"
    "    if (rc || dims[0] != want || dims[1] != 3 || dims[2] != 4 || dims[3] != want) { printf(\"%d: %d, %d turns\\n\", (int)n, rc, (int)dims[0]); return 1; }\n"
    "    if (m_run(in, out, NULL, NULL, NULL, NULL, arena, NULL)) return 2;\n"
    "    for (int64_t i = 0; i < want * 12; i++) if (y[i] != (float)(1 << i / 12) * x[i % 12] + (float)(i / 12)) return 3;\n"
    "  }\n"
    "  return 0;\n"
    "}\n";

static void write_object(tn_ctx *ctx, void *arg) {
  ir_program *p = lw_compile(ctx, graph_of(ctx, graphs[0], NULL), &(lw_options){.target = cg_target_find(ctx, NULL, NULL)});
  rt_write_object(ctx, p, &(rt_object_options){.files = {.path = ir_strdup(ctx, in_folder("m.o")), .header = ir_strdup(ctx, in_folder("m.h")), .prefix = "m", .weights = CG_WEIGHTS_EMBED}});
}
Test(extent, object) {
  folder();
  ops_each(write_object, "an object");
  write_text("driver.c", driver);
  SH("%s -std=c11 -Wall -Wextra -Werror -O1 -I. driver.c m.o -o driver -lm && ./driver", host_cc());
  SH("rm -r %s", dir);
}
