/* test_splitk.c — sums in parts that are tasks of their own: found by default where results are few, the same bits with any
 * number of threads, the same numbers as the graph as it was written; phases of a kernel. */
#include "lower/lower.h"
#include "lower/schedule.h"
#include "runtime/module.h"
#include "runtime/program_interp.h"
#include "support_llvm.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct ask {
  int m, n, k;
  const char *dtype; /* f32, f64 */
  bool constant;     /* B is */
  bool split;        /* what is expected */
  bool nan;          /* in A, and an infinity */
  double rtol;       /* of the largest result */
} ask;

static void *random_floats(tn_ctx *ctx, tn_dtype t, int64_t n, uint64_t seed) {
  void *p = ir_alloc(ctx, (size_t)n * 8 + 64);
  for (int64_t i = 0; i < n; i++) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    double x = (double)(seed >> 40) / (1 << 23) - 1;
    if (t == TN_F64) ((double *)p)[i] = x;
    else ((float *)p)[i] = (float)x;
  }
  return p;
}

/* y = max(A B + bias, 0) + rest */
static ir_graph *graph_of(tn_ctx *ctx, const ask *q) {
  const char *t = q->dtype;
  const char *text = ir_format(ctx, "graph g { opset 17\ninput a: %s[%d, %d] input b: %s[%d, %d] input rest: %s[%d, %d] input bias: %s[%d]\n"
                                    "c: %s[%d, %d] = MatMul(a, b) d: %s[%d, %d] = Add(c, bias) e: %s[%d, %d] = Relu(d) y: %s[%d, %d] = Add(e, rest)\noutput y }\n",
                               t, q->m, q->k, t, q->k, q->n, t, q->m, q->n, t, q->n, t, q->m, q->n, t, q->m, q->n, t, q->m, q->n, t, q->m, q->n);
  ir_graph *g = ir_graph_parse(ctx, text, "test");
  if (!q->constant) return g;
  ir_value *b = g->inputs[1];
  b->kind = IR_VALUE_CONST;
  b->data = random_floats(ctx, b->dtype, ir_value_elements(ctx, b), 4);
  for (int i = 1; i + 1 < g->ninputs; i++) g->inputs[i] = g->inputs[i + 1];
  g->ninputs--;
  return g;
}

static double element(const ir_value *v, const void *p, int64_t i) { return v->dtype == TN_F64 ? ((const double *)p)[i] : (double)((const float *)p)[i]; }

static void run(tn_ctx *ctx, void *arg) {
  const ask *q = arg;
  const void *in[4];
  lw_options plain = {.unscheduled = true}, usual = {.target = cg_target_find(ctx, "native", NULL)};
  ir_graph *g = graph_of(ctx, q);
  for (int i = 0; i < g->ninputs; i++) {
    int64_t n = ir_value_elements(ctx, g->inputs[i]);
    void *x = random_floats(ctx, g->inputs[i]->dtype, n, !strcmp(g->inputs[i]->name, "b") ? 4 : (uint64_t)i + 7);
    if (i == 0 && q->nan && g->inputs[0]->dtype == TN_F32) ((float *)x)[n / 2] = NAN, ((float *)x)[n - 1] = INFINITY;
    in[i] = x;
  }
  const ir_value *y = g->outputs[0];
  int64_t elements = ir_value_elements(ctx, y);
  size_t bytes = (size_t)elements * ir_dtype_bytes(y->dtype);
  void *want = ir_alloc(ctx, bytes), *first = ir_alloc(ctx, bytes), *have = ir_alloc(ctx, bytes);
  ir_program *p = lw_compile(ctx, g, &plain);
  rt_program_interp(ctx, p, in, &want, NULL, NULL, NULL);
  p = lw_compile(ctx, graph_of(ctx, q), &usual);
  bool split = strstr(p->kernels[p->run[p->nrun - 1].kernel].schedule, "splitk ") != NULL;
  if (split != q->split) ir_fail(ctx, TN_EWRONG, "the sum is %s in parts: %s", split ? "" : "not", p->kernels[p->run[p->nrun - 1].kernel].schedule);
  rt_module *m = rt_module_build(ctx, p, &(rt_options){.target = usual.target});
  for (int workers = 0; workers <= 5; workers++) {
    rt_pool *pool = workers ? rt_pool_new(workers) : NULL;
    void *to = workers ? have : first;
    memset(to, 0xff, bytes);
    int code = rt_run(m, in, &to, NULL, rt_pool_threads(pool));
    bool same = !code && (!workers || memcmp(first, have, bytes) == 0);
    rt_profile profile = {.ctx = ctx};
    memset(have, 0xff, bytes);
    code |= rt_run_profiled(ctx, m, in, &(void *){have}, NULL, NULL, rt_pool_threads(pool), &profile);
    same &= memcmp(first, have, bytes) == 0;
    rt_pool_free(pool);
    if (code || !same) ir_fail(ctx, TN_EWRONG, "%d workers: code %d, %s", workers, code, same ? "" : "other bits");
  }
  rt_module_free(ctx, m);
  double most = 1;
  bool seen = false;
  for (int64_t i = 0; i < elements; i++)
    if (isfinite(element(y, want, i))) most = fmax(most, fabs(element(y, want, i)));
  for (int64_t i = 0; i < elements; i++) {
    double a = element(y, want, i), b = element(y, first, i);
    seen |= !isfinite(a);
    if (isnan(a) ? !isnan(b) : isinf(a) ? a != b : !(fabs(a - b) <= q->rtol * most)) ir_fail(ctx, TN_EWRONG, "element %lld is %g, not %g", (long long)i, b, a);
  }
  if (q->nan && !seen) ir_fail(ctx, TN_EWRONG, "no NaN was asked for");
}

static void check(ask q) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  cr_expect_eq(ir_protect(ctx, run, &q), TN_OK, "%d x %d x %d %s%s: %.1500s", q.m, q.n, q.k, q.dtype, q.constant ? ", constant" : "", tn_error(ctx));
  tn_ctx_free(ctx);
}

Test(splitk, by_default) {
  static const int sizes[][3] = {{16, 16, 8192}, {1, 8, 16384}, {3, 40, 4098}, {13, 7, 6144}, {24, 16, 2048}};
  for (int i = 0; i < IR_COUNT(sizes); i++)
    for (int constant = 0; constant < 2; constant++) check((ask){sizes[i][0], sizes[i][1], sizes[i][2], "f32", constant, true, false, 2e-5});
  check((ask){5, 12, 4096, "f64", false, true, false, 1e-13});
  check((ask){9, 20, 4096, "f32", true, true, true, 2e-5});
}

Test(splitk, not_where_it_would_not_pay) {
  check((ask){16, 16, 512, "f32", true, false, false, 2e-5});   /* a short sum */
  check((ask){64, 1024, 2048, "f32", true, false, false, 2e-5}); /* results enough */
  check((ask){7, 9, 4099, "f32", false, false, false, 2e-5});   /* no equal parts */
}

#define SUMS                                                                                                                       \
  "kernel k(in A: f32[12, 40], in c: f32[12], out B: f32[12], out D: f32[5]) { alloc t: f32[4, 12] local alloc u: f32[30] local " \
  "for p in 0..4 parallel { for m in 0..12 { u[m] = A[m, 10*p] for k in 1..10 { u[m] += A[m, 10*p + k] } t[p, m] = u[m] } } "    \
  "D[0] = t[3, 1] D[1] = t[0, 2] for n in 1..12 parallel { B[n] = c[n] for q in 0..4 { B[n] += t[q, n] } } B[0] = t[1, 0] "      \
  "for i in 2..5 parallel { D[i] = t[1, i] } }"

/* Where blocks of rows are the tasks, since the sum is in chunks, two threads have as many each. */
static void row_blocks(tn_ctx *ctx, void *arg) {
  const ask *q = arg;
  ir_program *p = lw_compile(ctx, graph_of(ctx, q), &(lw_options){.target = cg_target_find(ctx, "x86-64-v3", NULL)});
  int64_t tasks = lw_tasks_of(p->kernels[p->run[p->nrun - 1].kernel].lowered);
  if (tasks < 2 || tasks % 2) ir_fail(ctx, TN_EWRONG, "%d rows: %lld tasks", q->m, (long long)tasks);
}
Test(splitk, blocks_of_rows) {
  for (int m = 193; m <= 289; m += 16) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    ask q = {.m = m, .n = 768, .k = 3072, .dtype = "f32", .constant = true};
    cr_expect_eq(ir_protect(ctx, row_blocks, &q), TN_OK, "%s", tn_error(ctx));
    tn_ctx_free(ctx);
  }
}

static void phases(tn_ctx *ctx, void *arg) {
  (void)arg;
  const cg_target *t = cg_target_find(ctx, "native", NULL);
  cg_kernel_info info = cg_kernel_abi(ctx, t, ir_kernel_parse(ctx, SUMS, "k"));
  cr_expect_eq(info.nphases, 0, "five phases are more than a kernel has");
  ir_text text = {.ctx = ctx};
  ir_put(&text, "%.*s}", (int)(strstr(SUMS, "for i in") - SUMS), SUMS);
  const ir_kernel *k = ir_kernel_parse(ctx, ir_text_str(&text), "k");
  info = cg_kernel_abi(ctx, t, k);
  cr_expect_eq(info.nphases, 4);
  cr_expect(info.phase[0] == 4 && info.phase[1] == 1 && info.phase[2] == 11 && info.phase[3] == 1);
  cr_expect(ix_is_int(info.ntasks, 17));
  cr_expect_eq(info.shared_bytes, 192, "what two phases use: t, not u");
  for (int backwards = 0; backwards < 2; backwards++) {
    const char *wrong = llvm_check_kernel(ctx, t, k, &(llvm_check){.seed = 3, .backwards = backwards});
    cr_expect_null(wrong, "%s", wrong);
    wrong = llvm_check_text(ctx, "native", SUMS, &(llvm_check){.seed = 4, .backwards = backwards});
    cr_expect_null(wrong, "%s", wrong);
  }
}

Test(splitk, phases) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  cr_expect_eq(ir_protect(ctx, phases, NULL), TN_OK, "%s", tn_error(ctx));
  tn_ctx_free(ctx);
}
