/* test_attend.c — attention as one kernel: found in graphs, by any blocks and in odd sizes the same as product, softmax
 * and product; masks with -inf, rows that see nothing, NaN; movements around it gone; what is left alone. */
#include "ir/interp.h"
#include "lower/attend.h"
#include "lower/lower.h"
#include "lower/schedule.h"
#include "runtime/module.h"
#include "runtime/program_interp.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PLAIN, CAUSAL, KEYS, ROWS, SPLIT, LAST };

typedef struct shape {
  int form, batch, heads, queries, keys, depth, columns;
} shape;

/* q, k and v of [batch, length, heads * depth], as models have them; by form with a mask of scores or keys, of rows that
 * see nothing, or with q, k and v side by side. */
static const char *graph_text(tn_ctx *ctx, const shape *s) {
  ir_text t = {.ctx = ctx};
  int B = s->batch, H = s->heads, M = s->queries, T = s->keys, D = s->depth, N = s->columns, mb = s->form == CAUSAL ? 1 : B, mm = s->form == KEYS ? 1 : M;
  ir_put(&t, "graph g { opset 17\n");
  if (s->form == SPLIT)
    ir_put(&t, "input x: f32[%d, %d, %d] const parts: i64[3] = [%d, %d, %d]\n a: f32[%d, %d, %d], b: f32[%d, %d, %d], c: f32[%d, %d, %d] = Split(x, parts) {axis = -1}\n", B, M, H * (2 * D + N), H * D,
           H * D, H * N, B, M, H * D, B, M, H * D, B, M, H * N);
  else
    ir_put(&t, "input a: f32[%d, %d, %d] input b: f32[%d, %d, %d] input c: f32[%d, %d, %d]\n", B, M, H * D, B, T, H * D, B, T, H * N);
  if (s->form != PLAIN && s->form != SPLIT) ir_put(&t, "input mask: f32[%d, 1, %d, %d]\n", mb, mm, T);
  ir_put(&t, "const heads: i64[4] = [0, 0, %d, %d] const vheads: i64[4] = [0, 0, %d, %d] const flat: i64[3] = [0, 0, %d] const root: f32[] = 0.5 const some: f32[] = 1.25\n", H, D, H, N, H * N);
  ir_put(&t, "q1: f32[%d, %d, %d, %d] = Reshape(a, heads) k1: f32[%d, %d, %d, %d] = Reshape(b, heads) v1: f32[%d, %d, %d, %d] = Reshape(c, vheads)\n", B, M, H, D, B, T, H, D, B, T, H, N);
  ir_put(&t, "q2: f32[%d, %d, %d, %d] = Transpose(q1) {perm = [0, 2, 1, 3]} k2: f32[%d, %d, %d, %d] = Transpose(k1) {perm = [0, 2, 3, 1]} v: f32[%d, %d, %d, %d] = Transpose(v1) {perm = [0, 2, 1, 3]}\n", B, H,
         M, D, B, H, D, T, B, H, T, N);
  ir_put(&t, "q: f32[%d, %d, %d, %d] = Mul(q2, root) k: f32[%d, %d, %d, %d] = Mul(k2, root)\n", B, H, M, D, B, H, D, T);
  ir_put(&t, "s1: f32[%d, %d, %d, %d] = MatMul(q, k) s2: f32[%d, %d, %d, %d] = Div(s1, some)\n", B, H, M, T, B, H, M, T);
  const char *scores = "s2";
  if (s->form != PLAIN && s->form != SPLIT) ir_put(&t, "s3: f32[%d, %d, %d, %d] = Add(s2, mask)\n", B, H, M, T), scores = "s3";
  ir_put(&t, "p: f32[%d, %d, %d, %d] = Softmax(%s) {axis = -1} y1: f32[%d, %d, %d, %d] = MatMul(p, v)\n", B, H, M, T, scores, B, H, M, N);
  ir_put(&t, "y2: f32[%d, %d, %d, %d] = Transpose(y1) {perm = [0, 2, 1, 3]} y3: f32[%d, %d, %d] = Reshape(y2, flat) y: f32[%d, %d, %d] = Relu(y3)\noutput y }\n", B, M, H, N, B, M, H * N, B, M, H * N);
  return ir_text_str(&t);
}

static float *random_floats(tn_ctx *ctx, int64_t n, uint64_t seed, float scale) {
  float *p = ir_alloc(ctx, (size_t)n * 4 + 64);
  for (int64_t i = 0; i < n; i++) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    p[i] = ((float)(seed >> 40) / (float)(1 << 23) - 1) * scale;
  }
  return p;
}

static void fill_mask(const shape *s, float *mask, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    int64_t t = i % s->keys, m = i / s->keys % s->queries;
    if (s->form == CAUSAL && t > m) mask[i] = -INFINITY;
    if (s->form == KEYS && (t < 3 || t == s->keys - 1)) mask[i] = -INFINITY; /* the first block may see nothing yet */
    if (s->form == ROWS && (m % 5 == 2 || t % 3 == 1)) mask[i] = -INFINITY;
  }
}

/* Truths, and lengths up to 40. */
static void *random_numbers(tn_ctx *ctx, const ir_value *v, int64_t n) {
  bool truth = v->dtype == TN_BOOL;
  void *p = ir_alloc(ctx, (size_t)n * 8 + 64);
  for (int64_t i = 0; i < n; i++)
    if (truth) ((uint8_t *)p)[i] = i * 7 % 5 > 1;
    else ((int64_t *)p)[i] = i * 17 % 41;
  return p;
}

static bool same(float a, float b) { return isnan(a) ? isnan(b) : fabsf(a - b) <= 2e-5f * (1 + fabsf(a)); }

typedef struct ask {
  shape s;
  const char *text; /* the graph, if not that of the shape */
  bool skips;       /* blocks of keys that nobody sees */
  const char *cpu, *schedule; /* null: the default one */
  bool nan;
  int left; /* kernels that the program may have */
} ask;

static const char *given(void *user, tn_ctx *ctx, const ir_kernel *k) {
  const ask *q = user;
  const char *why;
  return lw_schedule_apply(ctx, k, q->schedule, &why) ? q->schedule : NULL;
}

static void run(tn_ctx *ctx, void *arg) {
  const ask *q = arg;
  const shape *s = &q->s;
  const char *text = q->text ? q->text : graph_text(ctx, s);
  int64_t elements = 0;
  float *out[2] = {0};
  const void *in[8];
  for (int way = 0; way < 2; way++) {
    ir_graph *g = ir_graph_parse(ctx, text, "test");
    lw_options o = {.target = cg_target_find(ctx, q->cpu, NULL), .unscheduled = way == 0, .schedule = way && q->schedule ? given : NULL, .user = arg};
    for (int i = 0; i < g->ninputs && !way; i++) {
      int64_t n = ir_value_elements(ctx, g->inputs[i]);
      if (!ir_is_float(g->inputs[i]->dtype)) {
        in[i] = random_numbers(ctx, g->inputs[i], n);
        continue;
      }
      float *x = random_floats(ctx, n, (uint64_t)i + 3, 3);
      if (!q->text && strcmp(g->inputs[i]->name, "mask") == 0) fill_mask(s, x, n);
      if (q->nan && i == 0) x[n / 2] = NAN, x[n - 1] = INFINITY;
      in[i] = x;
    }
    ir_program *p = lw_compile(ctx, g, &o);
    elements = ir_value_elements(ctx, g->outputs[0]);
    out[way] = ir_alloc(ctx, (size_t)elements * 4);
    if (way) {
      bool found = false;
      for (int i = 0; i < p->nkernels; i++) found |= strstr(p->kernels[i].schedule, "algorithm attention") != NULL;
      if (!found) ir_fail(ctx, TN_EWRONG, "attention is not one kernel:\n%s", ir_program_print(ctx, p));
      bool skips = false;
      for (int i = 0; i < p->nkernels; i++) {
        lw_attention_parts parts;
        const char *why;
        skips |= lw_attention_of(ctx, p->kernels[i].kernel, &parts, &why) && !lw_attention_span_of(ctx, &parts).whole;
      }
      if (skips != q->skips) ir_fail(ctx, TN_EWRONG, "blocks of keys %s left out:\n%s", skips ? "are" : "are not", ir_program_print(ctx, p));
      if (q->left && p->nrun != q->left) ir_fail(ctx, TN_EWRONG, "%d calls, not %d:\n%s", p->nrun, q->left, ir_program_print(ctx, p));
      ir_program *again = ir_program_parse(ctx, ir_program_print(ctx, p), "again");
      lw_apply_schedules(ctx, again);
    }
    void *to[1] = {out[way]};
    if (way && cg_target_runs_here(ctx, o.target, NULL)) {
      rt_module *m = rt_module_build(ctx, p, &(rt_options){.target = o.target});
      if (rt_run(m, in, to, NULL, NULL)) ir_fail(ctx, TN_EWRONG, "the run failed");
      rt_module_free(ctx, m);
    } else rt_program_interp(ctx, p, in, to, NULL, NULL, NULL);
  }
  bool seen = false;
  for (int64_t i = 0; i < elements; i++) {
    seen |= isnan(out[0][i]);
    if (!same(out[0][i], out[1][i])) ir_fail(ctx, TN_EWRONG, "element %lld is %g, not %g", (long long)i, out[1][i], out[0][i]);
  }
  if ((q->nan || (!q->text && s->form == ROWS)) && !seen) ir_fail(ctx, TN_EWRONG, "no NaN was asked for");
}

static void check_text(ask q) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  cr_expect_eq(ir_protect(ctx, run, &q), TN_OK, "%.700s\n%.1500s", q.text, tn_error(ctx));
  tn_ctx_free(ctx);
}

static void check(ask q) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  const shape *s = &q.s;
  cr_expect_eq(ir_protect(ctx, run, &q), TN_OK, "form %d, %d x %d heads, %d queries, %d keys of %d, %d columns, %s: %.1500s", s->form, s->batch, s->heads, s->queries, s->keys, s->depth, s->columns,
               q.schedule ? q.schedule : q.cpu, tn_error(ctx));
  tn_ctx_free(ctx);
}

/* A transposition costs no call of its own, before or behind. */
Test(attend, by_default) {
  static const shape shapes[] = {{PLAIN, 1, 1, 4, 1, 3, 2},   {CAUSAL, 2, 3, 7, 7, 5, 8},   {KEYS, 1, 2, 197, 197, 16, 16}, {ROWS, 2, 1, 33, 33, 8, 20}, {SPLIT, 1, 3, 50, 50, 16, 16},
                                 {SPLIT, 2, 2, 9, 9, 4, 8}, {KEYS, 2, 2, 5, 300, 8, 8},   {PLAIN, 1, 1, 130, 12, 64, 7},  {CAUSAL, 1, 1, 65, 65, 1, 1}, {KEYS, 1, 1, 40, 519, 8, 24}};
  for (int i = 0; i < IR_COUNT(shapes); i++)
    for (int c = 0; c < 2; c++) check((ask){.s = shapes[i], .cpu = c ? "x86-64-v4" : "x86-64-v3", .left = shapes[i].heads == 1 || shapes[i].form == ROWS ? 0 : 2});
}

Test(attend, by_blocks) {
  static const char *const schedules[] = {"algorithm attention 8 5 8 8", "algorithm attention 16 64 4 8\nparallel task", "algorithm attention 24 7 8 24", "algorithm attention 6 1 1 2"};
  static const shape shapes[] = {{PLAIN, 1, 2, 7, 7, 5, 3}, {CAUSAL, 1, 2, 25, 25, 4, 9}, {KEYS, 2, 1, 13, 22, 3, 4}, {ROWS, 1, 1, 30, 30, 2, 8}, {SPLIT, 1, 2, 17, 17, 3, 3}};
  for (int i = 0; i < IR_COUNT(schedules); i++)
    for (int j = 0; j < IR_COUNT(shapes); j++) check((ask){.s = shapes[j], .cpu = "x86-64-v3", .schedule = schedules[i]});
}

Test(attend, not_a_number) {
  static const shape shapes[] = {{PLAIN, 1, 2, 9, 300, 5, 3}, {CAUSAL, 1, 2, 25, 25, 4, 9}};
  for (int j = 0; j < IR_COUNT(shapes); j++) check((ask){.s = shapes[j], .cpu = "x86-64-v3", .nan = true});
}

/* ---- masks that are known ---- */

enum { TRIANGLE, LOW, BAND, SLOPE, BLIND, BOOLS, PADDED }; /* PADDED: with keys hidden at run time */

typedef struct known {
  int kind, heads, queries, keys, depth, columns;
  bool skips; /* BLIND: some rows are NaN */
} known;

/* Queries are the last of the keys, but in BLIND, where the first ones see nothing. */
static bool hidden(const known *k, int m, int t) {
  int at = k->kind == BLIND ? m - 9 : m + k->keys - k->queries;
  return t > at || (k->kind == BAND && t < at - 20);
}

static const char *masked_text(tn_ctx *ctx, const known *k) {
  ir_text t = {.ctx = ctx};
  int H = k->heads, M = k->queries, T = k->keys, D = k->depth, N = k->columns;
  ir_put(&t, "graph g { opset 17 input q: f32[2, %d, %d, %d] input k: f32[2, %d, %d, %d] input v: f32[2, %d, %d, %d] const root: f32[] = 0.25 const no: f32[] = -inf\n", H, M, D, H, D, T, H, T, N);
  ir_put(&t, k->kind >= BOOLS ? "const sees: bool[%d, %d] = [" : "const mask: f32[1, 1, %d, %d] = [", M, T);
  for (int i = 0; i < M * T; i++) {
    int m = i / T, j = i % T;
    bool no = hidden(k, m, j);
    if (k->kind >= BOOLS) ir_put(&t, "%s%s", i ? ", " : "", no ? "false" : "true");
    else ir_put(&t, "%s%s", i ? ", " : "", no ? k->kind == LOW ? "-3.4028234e38" : "-inf" : k->kind == SLOPE ? ir_format(ctx, "%g", -0.125 * (m - j)) : "0.0");
  }
  if (k->kind == PADDED) ir_put(&t, "] input there: bool[2, 1, 1, %d] const nothing: f32[] = 0.0 const all: i64[4] = [2, 1, %d, %d] see1 = Expand(sees, all) see2 = And(see1, there) mask = Where(see2, nothing, no", T, M, T);
  ir_put(&t, "%s\n s = MatMul(q, k) u = Mul(s, root) w = %s p = Softmax(w) y = MatMul(p, v) output y }", k->kind == PADDED ? ")" : "]", k->kind == BOOLS ? "Where(sees, u, no)" : "Add(u, mask)");
  return ir_text_str(&t);
}

Test(attend, known_masks) {
  static const known all[] = {{TRIANGLE, 2, 70, 70, 32, 32, .skips = true}, {TRIANGLE, 1, 9, 300, 80, 24, false}, {TRIANGLE, 1, 40, 333, 8, 8, false}, {LOW, 1, 129, 129, 64, 64, .skips = true}, {BAND, 1, 150, 170, 16, 16, .skips = true},
                              {SLOPE, 1, 65, 65, 96, 32, .skips = true}, {BLIND, 1, 80, 60, 16, 16, .skips = true}, {BOOLS, 2, 100, 131, 128, 16, .skips = true}, {PADDED, 1, 90, 90, 16, 16, .skips = true}};
  for (int i = 0; i < IR_COUNT(all); i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    const char *text = masked_text(ctx, &all[i]);
    for (int way = 0; way < 2; way++)
      check_text((ask){.text = text, .cpu = "x86-64-v3", .skips = all[i].skips, .schedule = way ? "algorithm attention 16 24 8 16\nparallel task" : NULL});
    tn_ctx_free(ctx);
  }
}

/* ---- heads that share keys, the ops of attention ---- */

Test(attend, shared_heads) {
  static const char *const texts[] = {
      "graph g { opset 17 input q: f32[2, 6, 33, 32] input x: f32[2, 2, 45, 32] input z: f32[2, 2, 45, 16] input mask: f32[2, 1, 33, 45] const axis: i64[1] = [2] const big: i64[5] = [2, 2, 3, 45, 32] const four: i64[4] = [2, 6, 45, 32]"
      " const bigv: i64[5] = [2, 2, 3, 45, 16] const fourv: i64[4] = [2, 6, 45, 16] const flat: i64[3] = [2, 33, 96] k1 = Unsqueeze(x, axis) k2 = Expand(k1, big) k3 = Reshape(k2, four) k = Transpose(k3) {perm = [0, 1, 3, 2]}"
      " v1 = Unsqueeze(z, axis) v2 = Expand(v1, bigv) v = Reshape(v2, fourv) s = MatMul(q, k) w = Add(s, mask) p = Softmax(w) y1 = MatMul(p, v) y2 = Transpose(y1) {perm = [0, 2, 1, 3]} y = Reshape(y2, flat) output y }",
      "graph g { opset 17 input a: f32[1, 21, 64] input x: f32[1, 40, 2, 16] input z: f32[1, 40, 2, 24] input bias: f32[4, 21, 40] const heads: i64[4] = [1, 21, 4, 16] const axis: i64[1] = [3] const times: i64[5] = [1, 1, 1, 2, 1]"
      " const four: i64[4] = [1, 40, 4, 16] const fourv: i64[4] = [1, 40, 4, 24] const r: f32[] = 4.0 q1 = Reshape(a, heads) q = Transpose(q1) {perm = [0, 2, 1, 3]} k1 = Unsqueeze(x, axis) k2 = Tile(k1, times) k3 = Reshape(k2, four)"
      " k = Transpose(k3) {perm = [0, 2, 3, 1]} v1 = Unsqueeze(z, axis) v2 = Tile(v1, times) v3 = Reshape(v2, fourv) v = Transpose(v3) {perm = [0, 2, 1, 3]} s = MatMul(q, k) u = Div(s, r) w = Add(u, bias) p = Softmax(w) y = MatMul(p, v) output y }"};
  for (int i = 0; i < IR_COUNT(texts); i++) check_text((ask){.text = texts[i], .cpu = "x86-64-v3", .left = 1});
}

Test(attend, ops) {
  static const struct {
    const char *text;
    bool skips;
  } all[] = {
      {"input q: f32[2, 3, 70, 32] input k: f32[2, 3, 70, 32] input v: f32[2, 3, 70, 16] y = Attention(q, k, v) {is_causal = 1}", true},
      {"input q: f32[1, 6, 40, 80] input k: f32[1, 2, 61, 80] input v: f32[1, 2, 61, 32] y = Attention(q, k, v) {is_causal = 1, softcap = 2.0}", true},
      {"input q: f32[2, 33, 96] input k: f32[2, 20, 48] input v: f32[2, 20, 48] input pk: f32[2, 2, 13, 24] input pv: f32[2, 2, 13, 24] input m: bool[2, 1, 33, 33] y = Attention(q, k, v, m, pk, pv) {is_causal = 1, q_num_heads = 4, kv_num_heads = 2}", true},
      {"input q: f32[2, 2, 19, 16] input k: f32[2, 2, 40, 16] input v: f32[2, 2, 40, 16] input mask: f32[19, 40] y = Attention(q, k, v, mask) {scale = 0.5}", false},
      {"input q: f32[4, 2, 30, 16] input k: f32[4, 2, 40, 16] input v: f32[4, 2, 40, 16] input n: i64[4] y = Attention(q, k, v, _, _, _, n) {is_causal = 1}", true},
      {"input q: f32[3, 4, 50, 128] input k: f32[3, 1, 50, 128] input v: f32[3, 1, 50, 64] input mask: f32[3, 4, 50, 50] y = Attention(q, k, v, mask) {is_causal = 1}", true},
  };
  for (int i = 0; i < IR_COUNT(all); i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    check_text((ask){.text = ir_format(ctx, "graph g { opset 24 %s output y }", all[i].text), .cpu = "x86-64-v3", .skips = all[i].skips});
    tn_ctx_free(ctx);
  }
}

/* ---- refusals ---- */

typedef struct refusal {
  const char *schedule, *why;
} refusal;

static void run_refusal(tn_ctx *ctx, void *arg) {
  const refusal *q = arg;
  const char *reason = NULL;
  shape s = {PLAIN, 1, 1, 9, 9, 4, 4};
  ir_graph *g = ir_graph_parse(ctx, graph_text(ctx, &s), "test");
  ir_program *p = lw_compile(ctx, g, &(lw_options){.target = cg_target_find(ctx, "x86-64-v3", NULL)});
  const ir_kernel *k = NULL;
  for (int i = 0; i < p->nkernels; i++)
    if (strstr(p->kernels[i].schedule, "algorithm attention")) k = p->kernels[i].kernel;
  if (!k) ir_fail(ctx, TN_EWRONG, "attention is not one kernel");
  if (lw_schedule_apply(ctx, k, q->schedule, &reason)) ir_fail(ctx, TN_EWRONG, "not refused");
  if (!strstr(reason, q->why)) ir_fail(ctx, TN_EWRONG, "refused with \"%s\"", reason);
}

Test(attend, refused) {
  static const refusal all[] = {{"algorithm attention 8 8 8", "four numbers"}, {"algorithm attention 12 8 8 8", "out of range"}, {"algorithm attention 8 0 8 8", "out of range"}, {"algorithm attention 8 8 8 12", "out of range"},
                                {"parallel b0\nalgorithm attention 8 8 8 8", "scheduled already"}, {"unroll n\nalgorithm attention 8 8 8 8", "no attention"}};
  for (int i = 0; i < IR_COUNT(all); i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    refusal q = all[i];
    cr_expect_eq(ir_protect(ctx, run_refusal, &q), TN_OK, "%s: %.600s", q.schedule, tn_error(ctx));
    tn_ctx_free(ctx);
  }
}

/* ---- what stays as it is ---- */

static void run_apart(tn_ctx *ctx, void *arg) {
  const char *body = arg;
  ir_graph *g = ir_graph_parse(ctx, ir_format(ctx, "graph g { opset 17 input q: f32[2, 9, 4] input k: f32[2, 4, 9] input v: f32[2, 9, 4] %s }", body), "test");
  ir_program *p = lw_compile(ctx, g, &(lw_options){.target = cg_target_find(ctx, "x86-64-v3", NULL)});
  for (int i = 0; i < p->nkernels; i++)
    if (strstr(p->kernels[i].schedule, "algorithm attention")) ir_fail(ctx, TN_EWRONG, "taken as attention");
}

Test(attend, left_apart) {
  static const char *const bodies[] = {
      "s: f32[2, 9, 9] = MatMul(q, k) p: f32[2, 9, 9] = Softmax(s) {axis = -1} y: f32[2, 9, 4] = MatMul(p, v) output y output p", /* others want the probabilities */
      "s: f32[2, 9, 9] = MatMul(q, k) p: f32[2, 9, 9] = Softmax(s) {axis = -1} y: f32[2, 9, 4] = MatMul(p, v) output y output s",
      "s: f32[2, 9, 9] = MatMul(q, k) p: f32[2, 9, 9] = Softmax(s) {axis = 1} y: f32[2, 9, 4] = MatMul(p, v) output y", /* of columns */
      "s: f32[2, 9, 9] = MatMul(q, k) e: f32[2, 9, 9] = Exp(s) z: f32[2, 9, 9] = Mul(s, e) p: f32[2, 9, 9] = Softmax(z) {axis = -1} y: f32[2, 9, 4] = MatMul(p, v) output y"};
  for (int i = 0; i < IR_COUNT(bodies); i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    cr_expect_eq(ir_protect(ctx, run_apart, (void *)bodies[i]), TN_OK, "%d: %.600s", i, tn_error(ctx));
    tn_ctx_free(ctx);
  }
}
