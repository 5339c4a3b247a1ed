/* test_cuda_attend_libs.c — attention by cuDNN: which kernels are one, both forms of its graph through a fake cuDNN on the fake
 * driver against the interpreter, and finalised plans of the real cuDNN without a GPU. */
#include "autotune/cuda.h"
#include "ir/text.h"
#include "runtime/cuda_lib.h"
#include "runtime/cuda_library.h"
#include "runtime/cuda_run.h"
#include "support_cuda_device.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WANT(ctx, cond) \
  if (!(cond)) ir_fail(ctx, TN_EWRONG, "%s", #cond)

typedef struct row {
  const char *text;    /* of a graph; the kernel is its last */
  const char *refused; /* part of the reason; null: it is one */
  int64_t size[5];     /* batch, heads, groups, queries, keys */
  double scale;
  bool has_from, has_to;
  int64_t from, to;
} row;

#define G "graph g { opset 24 "
/* tenon:AttentionScores between products of three axes. */
#define BAND(HOW) G "input q: bf16[2, 20, 16] input k: bf16[2, 50, 16] input v: bf16[2, 50, 24] t = Transpose(k) {perm = [0, 2, 1]} s = MatMul(q, t) u = tenon:AttentionScores(s) {" HOW "} p = Softmax(u) y = MatMul(p, v) output y }"
#define PLAIN(T, TAIL) G "input q: " T "[2, 3, 20, 16] input k: " T "[2, 3, 30, 16] input v: " T "[2, 3, 30, 8] t = Transpose(k) {perm = [0, 1, 3, 2]} s = MatMul(q, t) " TAIL
static const row rows[] = {
    {PLAIN("bf16", "p = Softmax(s) y = MatMul(p, v) output y }"), .size = {2, 3, 3, 20, 30}, .scale = 1},
    {PLAIN("f16", "const c: f16[] = 0.5 u = Mul(s, c) p = Softmax(u) y = MatMul(p, v) output y }"), .size = {2, 3, 3, 20, 30}, .scale = 0.5},
    {PLAIN("bf16", "const c: bf16[] = 4.0 u = Div(s, c) p = Softmax(u) y = MatMul(p, v) z = Transpose(y) {perm = [0, 2, 1, 3]} output z }"), .size = {2, 3, 3, 20, 30}, .scale = 0.25},
    {G "input q: f16[1, 6, 24, 16] input k: f16[1, 2, 24, 16] input v: f16[1, 2, 24, 16] y = Attention(q, k, v) {is_causal = 1} output y }", .size = {1, 6, 2, 24, 24}, .scale = 0.25, .has_to = true},
    {G "input q: bf16[2, 6, 9, 64] input k: bf16[2, 1, 24, 64] input v: bf16[2, 1, 24, 16] y = Attention(q, k, v) output y }", .size = {2, 6, 1, 9, 24}, .scale = 0.125},
    {G "input q: bf16[2, 24, 64] input k: bf16[2, 16, 64] input v: bf16[2, 16, 64] y = Attention(q, k, v) {q_num_heads = 4, kv_num_heads = 4} output y }", .size = {2, 4, 4, 24, 16}, .scale = 0.25},
    {BAND("causal = 1, offset = 30"), .size = {1, 2, 2, 20, 50}, .scale = 1, .has_to = true, .to = 30},
    {BAND("causal = 1, offset = 12, left = 9"), .size = {1, 2, 2, 20, 50}, .scale = 1, .has_from = true, .has_to = true, .from = 3, .to = 12},
    {BAND("left = 9"), .size = {1, 2, 2, 20, 50}, .scale = 1, .has_from = true, .from = -9},
    {BAND("causal = 1, offset = -3"), .refused = "no key"},
    {BAND("left = 9, offset = 40"), .refused = "no key"},
    {G "input q: bf16[2, 3, 20, 16] input k: bf16[2, 3, 30, 16] input v: bf16[2, 3, 30, 16] input n: i64[2] y = Attention(q, k, v, _, _, _, n) output y }", .refused = "otherwise than in a band"},
    {PLAIN("bf16", "input m: bf16[20, 30] u = Add(s, m) p = Softmax(u) y = MatMul(p, v) output y }"), .refused = "more than a factor"},
    {PLAIN("bf16", "p = Softmax(s) y = MatMul(p, v) z = Relu(y) output z }"), .refused = "something behind it"},
    {PLAIN("f32", "p = Softmax(s) y = MatMul(p, v) output y }"), .refused = "f16 or bf16"},
    {G "input q: bf16[3, 20, 16] input k: bf16[3, 16, 30] input v: bf16[3, 30, 16] s = MatMul(q, k) p = Softmax(s) y = MatMul(p, v) output y }", .refused = "16 bytes"},
    {G "input q: bf16[3, 20, 16] input k: bf16[1, 30, 16] input v: bf16[3, 30, 16] t = Transpose(k) {perm = [0, 2, 1]} s = MatMul(q, t) p = Softmax(s) y = MatMul(p, v) output y }", .refused = "batches of heads"},
};

static const ir_program *lowered(tn_ctx *ctx, const char *text) {
  ir_graph *g = ir_graph_parse(ctx, text, "test");
  ir_graph_sort(g);
  return rt_cuda_lower(ctx, g, LW_LAYOUT_AUTO);
}

static const ir_kernel *last_of(const ir_program *p) {
  const ir_program_kernel *k = &p->kernels[p->nkernels - 1];
  return k->lowered ? k->lowered : k->kernel;
}

static void is_size(tn_ctx *ctx, const rt_dnn_tensor *t, int64_t batch, int64_t heads, int64_t places) {
  if (t->size[0] != batch || t->size[1] != heads || t->size[2] != places || t->stride[3] != 1)
    ir_fail(ctx, TN_EWRONG, "%lld %lld %lld", (long long)t->size[0], (long long)t->size[1], (long long)t->size[2]);
}

static void run_row(tn_ctx *ctx, void *arg) {
  const row *r = arg;
  const ir_kernel *k = last_of(lowered(ctx, r->text));
  rt_dnn_attention a;
  const char *why = "";
  bool is = rt_dnn_attention_of(ctx, k, &a, &why);
  if (r->refused ? is || !strstr(why, r->refused) : !is) ir_fail(ctx, TN_EWRONG, "%s\n%s", is ? "taken" : why, ir_kernel_print(ctx, k));
  if (r->refused) return;
  is_size(ctx, &a.q, r->size[0], r->size[1], r->size[3]);
  is_size(ctx, &a.k, r->size[0], r->size[2], r->size[4]);
  is_size(ctx, &a.v, r->size[0], r->size[2], r->size[4]);
  is_size(ctx, &a.y, r->size[0], r->size[1], r->size[3]);
  WANT(ctx, a.scale == r->scale && a.has_from == r->has_from && a.has_to == r->has_to);
  if (a.has_from) WANT(ctx, a.from == r->from);
  if (a.has_to) WANT(ctx, a.to == r->to);
}

static void each(const char *text, void (*f)(tn_ctx *ctx, void *arg), const void *arg) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_status s = ir_protect(ctx, f, (void *)arg);
  cr_assert_eq(s, TN_OK, "%s: %.900s", text, tn_error(ctx));
  tn_ctx_free(ctx);
}

Test(cuda_attend_libs, problems_are_read_off_their_loops) {
  for (int i = 0; i < IR_COUNT(rows); i++) each(rows[i].text, run_row, &rows[i]);
}

/* ---- the fake: both forms of the graph, run ---- */

typedef struct run {
  const row *r;
  int forms; /* 1 in pieces, 2 as one operation, their sum */
} run;

static const char *named(void *user, const ir_kernel *k) {
  return strncmp(k->name, "attend", 6) == 0 ? user : "threads 128 1";
}

static void run_fake(tn_ctx *ctx, void *arg) {
  const run *x = arg;
  const cu_target *t = cu_target_find(ctx, "sm_90a");
  const ir_program *p = lowered(ctx, x->r->text);
  const ir_kernel *k = last_of(p);
  rt_cuda_candidates all = rt_cuda_library_candidates(ctx, t, k, &(rt_cuda_candidate_options){.ieee = true});
  int forms = 0;
  for (int i = 0; i < all.n; i++) {
    forms |= strstr(all.list[i].text, " sdpa ") ? 2 : 1;
    WANT(ctx, rt_cuda_library_fits(ctx, k, all.list[i].text) && all.list[i].workspace > 0);
  }
  if (forms != x->forms) ir_fail(ctx, TN_EWRONG, "forms %d of %d plans: %s", forms, all.n, all.why ? all.why : "");
  if (x->forms == 3 && all.n != 4) ir_fail(ctx, TN_EWRONG, "%d plans", all.n);
  if (p->nkernels > 1) return; /* the other kernel would need NVRTC */
  rt_cuda_device *d = rt_cuda_device_open(ctx, t, 0);
  for (int i = 0; i < all.n; i += 2) {
    const rt_cuda_plan *plan = rt_cuda_plan_make(ctx, p, t, &(rt_cuda_options){.choice = named, .user = (void *)all.list[i].text});
    cuda_on_device(ctx, d, p, plan, 0);
  }
}

static void with_fakes(int version) {
  char path[1200];
  snprintf(path, sizeof path, "%s/tests/fake:%s/tests/fake_cudnn:-", TN_BUILD_DIR, TN_BUILD_DIR);
  setenv("TENON_CUDA_PATH", path, 1);
  snprintf(path, sizeof path, "%d", version);
  setenv("FAKE_CUDNN", path, 1);
  rt_cuda_forget();
}

static void by_version(int version, int plain, int masked, int windows) {
  with_fakes(version);
  for (int i = 0; i < IR_COUNT(rows); i++) {
    const row *r = &rows[i];
    if (!r->refused) each(r->text, run_fake, &(run){r, r->has_from ? windows : r->has_to ? masked : plain});
  }
}

Test(cuda_attend_libs, graphs_in_pieces_and_as_one_operation) { by_version(92600, 3, 3, 3); }
Test(cuda_attend_libs, masks_are_in_pieces_before_9_21) { by_version(91900, 3, 1, 1); }
Test(cuda_attend_libs, one_operation_is_there_from_9_13_1_on) { by_version(91300, 1, 1, 1); }
Test(cuda_attend_libs, faulty_versions_offer_nothing) { by_version(91001, 0, 0, 0); }
Test(cuda_attend_libs, windows_from_9_10_2_on) { by_version(90900, 1, 1, 0); }

/* A plan that cannot be made again, or run, says so. */
static void fail_plan(tn_ctx *ctx, void *arg) {
  const cu_target *t = cu_target_find(ctx, "sm_90a");
  const ir_program *p = lowered(ctx, rows[3].text);
  const rt_cuda_plan *plan = rt_cuda_plan_make(ctx, p, t, &(rt_cuda_options){.choice = named, .user = arg});
  cuda_on_device(ctx, rt_cuda_device_open(ctx, t, 0), p, plan, 0);
}

Test(cuda_attend_libs, plans_that_fail) {
  static const struct { const char *fake, *text, *error; } all[] = {{"92600", "cudnn 9.26.0 sdpa engine 7", "no such plan"},
                                                                  {"92600", "cudnn 9.26.0 other engine 0", "no such plan"},
                                                                  {"92600", "cudnn 9.19.0 engine 0", "no such plan"},
                                                                  {"91900", "cudnn 9.19.0 sdpa engine 0", "no such plan"}, /* masked */
                                                                  {"fail", "cudnn 9.19.0 engine 0", "GPU: "}};
  for (int i = 0; i < IR_COUNT(all); i++) {
    with_fakes(0);
    setenv("FAKE_CUDNN", all[i].fake, 1);
    rt_cuda_forget();
    tn_ctx *ctx = tn_ctx_new(NULL);
    tn_status s = ir_protect(ctx, fail_plan, (void *)all[i].text);
    cr_assert(s != TN_OK && strstr(tn_error(ctx), all[i].error), "%d: %s", i, tn_error(ctx));
    tn_ctx_free(ctx);
  }
}

/* ---- the library itself ---- */

static int planned;

static void plan_row(tn_ctx *ctx, void *arg) {
  const ir_kernel *k = last_of(lowered(ctx, arg));
  int n, libraries = 0, schedules = 0, forms = 0;
  const char *why = NULL;
  const at_cuda_candidate *all = at_cuda_candidates(ctx, cu_target_find(ctx, "sm_90a"), k, 1e-3, &n, &why);
  for (int i = 0; i < n; i++) {
    const rt_cuda_candidate *l = all[i].library;
    if (!l) {
      schedules++;
      continue;
    }
    libraries++;
    forms |= strstr(l->text, " sdpa engine ") ? 2 : 1;
    WANT(ctx, strncmp(l->text, "cudnn 9.", 8) == 0 && l->workspace >= 0 && l->workspace < 1 << 20 && strstr(l->notes, "tensor cores"));
  }
  if (!libraries || schedules < 2) ir_fail(ctx, TN_EWRONG, "no plans: %s", why ? why : "");
  bool masked = strstr(arg, "is_causal") || strstr(arg, "AttentionScores");
  int version = rt_cuda_library(RT_CUDA_DNN)->version;
  WANT(ctx, forms == (version >= (masked ? 92100 : 91301) ? 3 : 1));
  planned += libraries;
}

Test(cuda_attend_libs, plans_without_a_gpu) {
  static const char *const graphs[] = {
      G "input q: bf16[1, 8, 512, 128] input k: bf16[1, 8, 512, 128] input v: bf16[1, 8, 512, 128] t = Transpose(k) {perm = [0, 1, 3, 2]} s = MatMul(q, t) p = Softmax(s) y = MatMul(p, v) output y }",
      G "input q: f16[1, 8, 96, 128] input k: f16[1, 2, 256, 128] input v: f16[1, 2, 256, 128] y = Attention(q, k, v) {is_causal = 1} output y }"};
  const rt_cuda_lib *l = rt_cuda_library(RT_CUDA_DNN);
  if (!l->handle || l->version < 90800 || l->version == 91000 || l->version == 91001 || !rt_cuda_library(RT_CUDA_NVRTC)->handle) {
    fprintf(stderr, "skipped: no cuDNN that plans attention, or no NVRTC: %s\n", l->why ? l->why : "too old");
    return;
  }
  if (rt_cuda_library(RT_CUDA_DRIVER)->handle) {
    fprintf(stderr, "skipped: there is a driver, by which plans are made on a device\n");
    return;
  }
  for (int i = 0; i < IR_COUNT(graphs); i++) each(graphs[i], plan_row, graphs[i]);
  fprintf(stderr, "%d graphs, %d plans\n", IR_COUNT(graphs), planned);
  rt_cuda_forget(); /* what stands in for the driver is none */
  cr_assert(!rt_cuda_library(RT_CUDA_DRIVER)->handle && strstr(rt_cuda_library(RT_CUDA_DRIVER)->why, "libcuda.so.1"), "%s", rt_cuda_library(RT_CUDA_DRIVER)->why);
}
