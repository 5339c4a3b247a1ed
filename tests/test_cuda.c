/* test_cuda.c — kernels for GPUs without one: emulated against the interpreter, compiled where NVRTC is there, and with
 * each barrier, wait and commit taken away in turn.
 *
 * TENON_CUDA_ALL=1 runs the whole set instead of a sample; TENON_CUDA_FROM, TENON_CUDA_TO, TENON_CUDA_STEP cut it, TENON_CUDA_TMA_FROM,
 * TENON_CUDA_TMA_TO the mutants of copies by the TMA unit. */
#include "random_kernel.h"
#include "support_cuda.h"
#include "runtime/cuda_compile.h"
#include "ir/text.h"
#include "lower/problem.h"
#include "runtime/cuda_plan.h"
#include "runtime/program_interp.h"
#include "runtime/cuda_emulate.h"
#include "ir/interp.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct job {
  void (*run)(tn_ctx *ctx, int i);
  int i;
} job;

static void run_job(tn_ctx *ctx, void *arg) {
  job *j = arg;
  j->run(ctx, j->i);
}

static void in_context(void (*run)(tn_ctx *ctx, int i), int i) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  job j = {run, i};
  tn_status s = ir_protect(ctx, run_job, &j);
  if (s) fprintf(stderr, "%d: %s\n", i, tn_error(ctx));
  cr_assert_eq(s, TN_OK, "%d: %.400s", i, tn_error(ctx));
  tn_ctx_free(ctx);
}

static int number(const char *name, int otherwise) { return getenv(name) ? atoi(getenv(name)) : otherwise; }
static bool whole_set(void) { return number("TENON_CUDA_ALL", 0) != 0; }

/* ---- random kernels: every dtype and operation, on the schedule that fits all ---- */

static void random_one(tn_ctx *ctx, int i) {
  const ir_kernel *k = random_kernel(ctx, (uint64_t)i, i % 3 ? RANDOM_STATIC : 0);
  const cu_target *t = cu_target_find(ctx, i % 2 ? "sm_80" : "sm_90a");
  const cu_tile *tile = cu_schedule(ctx, t, k, "threads 64 1", NULL);
  random_args want = random_args_new(ctx, k, (uint64_t)i), have = random_args_copy(ctx, k, &want);
  ir_interp(ctx, k, want.args, want.dims);
  rt_cuda_emulate(ctx, tile, have.args, have.dims, (uint64_t)i + 1);
  const char *d = random_args_differ(ctx, k, &want, &have);
  if (d) ir_fail(ctx, TN_EWRONG, "%s\n%s", d, ir_kernel_print(ctx, tile->kernel));
  const cu_code *code = cu_print(ctx, t, tile, "k");
  if (cuda_have_nvrtc() && (i % 4 == 0 || whole_set())) rt_cuda_compile(ctx, t, code->source, NULL);
}

Test(cuda, random_kernels) {
  for (int i = 1; i <= (whole_set() ? 400 : 24); i++) in_context(random_one, i);
}

/* ---- the set ---- */

static int kernels_done, programs_done;

static const ir_kernel *case_kernel(const ir_program *p, int k) { return p->kernels[k].lowered ? p->kernels[k].lowered : p->kernels[k].kernel; }

static void set_one(tn_ctx *ctx, int i) {
  cuda_case c;
  cuda_case_at(ctx, i, &c);
  const ir_program *p = c.lowered ? cuda_program_nhwc(ctx, c.text) : cuda_program(ctx, c.text);
  for (int k = 0; k < p->nkernels; k++)
    for (int sm = 0; sm < 2; sm++) {
      const cu_target *t = cu_target_find(ctx, sm ? "sm_90a" : "sm_80");
      const char *why = NULL;
      const ir_kernel *kernel = case_kernel(p, k);
      const cu_tile *tile = cu_schedule(ctx, t, kernel, cuda_choice_for(ctx, c.choice, kernel), &why);
      if (!tile) ir_fail(ctx, TN_EWRONG, "no schedule: %s\n%s", why, c.text);
      cuda_check how = {.seed = (uint64_t)i + 1, .compile = whole_set() || i % 3 == 0, .rtol = c.rtol};
      const char *wrong = cuda_check_tile(ctx, kernel, tile, t, &how);
      if (wrong) ir_fail(ctx, TN_EWRONG, "%s: %s: %s: %s\n%s", t->name, kernel->name, tile->choice, wrong, c.text);
      kernels_done++;
      if (whole_set()) fprintf(stderr, "%d %s, %s: %s: %s\n", i, c.family, t->name, kernel->name, tile->choice);
    }
  programs_done++;
}

Test(cuda, set) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  int from = number("TENON_CUDA_FROM", 0), to = number("TENON_CUDA_TO", 1 << 20);
  cuda_case c;
  for (int i = from; i < to && cuda_case_at(ctx, i, &c); i += number("TENON_CUDA_STEP", whole_set() ? 1 : 17)) in_context(set_one, i);
  fprintf(stderr, "%d programs, %d kernels for sm_80 and sm_90a, emulated%s\n", programs_done, kernels_done, !cuda_have_nvrtc() ? "; no NVRTC here" : whole_set() ? ", compiled, through the gates" : ", a third of them compiled");
  tn_ctx_free(ctx);
}

/* ---- large products are on tensor cores: HGMMA, HMMA in the machine code ---- */

enum { SASS_HMMA = 0x23c, SASS_HGMMA = 0x9f0, SASS_QGMMA = 0x9f3, SASS_QMMA = 0x27a, SASS_UTMALDG = 0x5b4, SASS_UTMASTG = 0x3b5, SASS_STSM = 0x844, SASS_UTMMULTI = 0x3b4 /* UTMALDG to several blocks */ };

static const char *asked(void *user, const ir_kernel *k) { return user; }

static void large_one(tn_ctx *ctx, int i) {
  static const struct { const char *sm, *text; unsigned opcodes[4]; const char *choice; } rows[] = {
      {"sm_90a", "graph g { opset 17 input a: bf16[2048, 2048] input b: bf16[2048, 2048] y = Gemm(a, b) {transB = 1} output y }", .opcodes = {SASS_HGMMA, SASS_UTMALDG}},
      {"sm_80", "graph g { opset 17 input a: bf16[2048, 2048] input b: bf16[2048, 2048] y = Gemm(a, b) {transB = 1} output y }", .opcodes = {SASS_HMMA}},
      {"sm_90a", "graph g { opset 17 input a: f16[512, 1024] input b: f16[1024, 640] y = MatMul(a, b) output y }", .opcodes = {SASS_HMMA}},
      {"sm_90a", "graph g { opset 17 input x: bf16[8, 64, 56, 56] const w: bf16[256, 64, 1, 1] data 32768 hash HASH y = Conv(x, w) z = Relu(y) output z }", .opcodes = {SASS_HGMMA, SASS_UTMALDG}},
      {"sm_90a", "graph g { opset 17 input x: bf16[8, 128, 28, 28] const w: bf16[256, 128, 3, 3] data 589824 hash HASH y = Conv(x, w) {pads = [1, 1, 1, 1], strides = [2, 2]} z = Relu(y) output z }", .opcodes = {SASS_HGMMA, SASS_UTMALDG}},
      {"sm_90a", "graph g { opset 17 input x: bf16[8, 128, 28, 28] const w: bf16[256, 128, 3, 3] data 589824 hash HASH y = Conv(x, w) {pads = [1, 1, 1, 1]} z = Relu(y) output z }", .opcodes = {SASS_HGMMA, SASS_UTMALDG}},
      {"sm_90a", "graph g { opset 17 input a: bf16[2048, 2048] input b: bf16[2048, 2048] y = Gemm(a, b) {transB = 1} output y }", {SASS_HGMMA, SASS_UTMALDG, SASS_UTMASTG, SASS_STSM}, "tma 128 256 4 store"},
      {"sm_90a", "graph g { opset 17 input a: bf16[2048, 2048] input b: bf16[2048, 2048] y = Gemm(a, b) {transB = 1} output y }", {SASS_HGMMA, SASS_UTMMULTI, SASS_UTMASTG, SASS_STSM}, "tma 128 256 4 store persist 0 8 cluster 2"},
      {"sm_90a", "graph g { opset 17 input a: bf16[2048, 2048] input b: bf16[2048, 2048] y = Gemm(a, b) {transB = 1} output y }", {SASS_HGMMA, SASS_UTMALDG, SASS_UTMASTG, SASS_STSM}, "tma 64 256 4 store persist 0 8 pingpong"},
      {"sm_90a", "graph g { opset 17 input a: bf16[2048, 2048] input b: bf16[2048, 2048] y = Gemm(a, b) {transB = 1} output y }", {SASS_HGMMA, SASS_UTMMULTI, SASS_UTMASTG, SASS_STSM}, "tma 128 256 4 store persist 0 8 cluster 2 2"},
      {"sm_90a", "graph g { opset 17 input a: bf16[2048, 2048] input b: bf16[2048, 2048] y = Gemm(a, b) {transB = 1} output y }", {SASS_HGMMA, SASS_UTMMULTI, SASS_UTMASTG, SASS_STSM}, "tma 64 192 6 store persist 0 8 pingpong cluster 2"},
      {"sm_90a", "graph g { opset 17 input a: f16[2048, 2048] input b: f16[2048, 2048] y = Gemm(a, b) {transB = 1} output y }", .opcodes = {SASS_HGMMA, SASS_UTMALDG}},
      {"sm_90a", "graph g { opset 17 input a: f16[2048, 2048] input b: f16[2048, 2048] y = Gemm(a, b) {transB = 1} output y }", {SASS_HGMMA, SASS_UTMALDG}, "tma 64 128 8 persist 0 8 streamk"},
      {"sm_90a", "graph g { opset 19 input a: f8e4m3fn[2048, 2048] input b: f8e4m3fn[2048, 2048] x = Cast(a) {to = 1} w = Cast(b) {to = 1} y = Gemm(x, w) {transB = 1} output y }", .opcodes = {SASS_QGMMA, SASS_UTMALDG}},
      {"sm_89", "graph g { opset 19 input a: f8e5m2[2048, 2048] input b: f8e5m2[2048, 2048] x = Cast(a) {to = 1} w = Cast(b) {to = 1} y = Gemm(x, w) {transB = 1} output y }", .opcodes = {SASS_QMMA}},
      {"sm_80", "graph g { opset 19 input a: f8e4m3fn[2048, 2048] input b: f8e4m3fn[2048, 2048] x = Cast(a) {to = 1} w = Cast(b) {to = 1} y = Gemm(x, w) {transB = 1} output y }", .opcodes = {SASS_HMMA}},
      {"sm_90a", "graph g { opset 19 input x: f8e4m3fn[8, 128, 28, 28] const w: bf16[256, 128, 3, 3] data 589824 hash HASH const s: f32[] = 0.5 q = Cast(w) {to = 17} e = Cast(q) {to = 1} d = DequantizeLinear(x, s) y = Conv(d, e) {pads = [1, 1, 1, 1]} z = Relu(y) output z }", .opcodes = {SASS_QGMMA, SASS_UTMALDG}}};
  if (i >= IR_COUNT(rows)) return;
  const rt_cuda_plan *plan = rt_cuda_plan_make(ctx, cuda_program_nhwc(ctx, rows[i].text), cu_target_find(ctx, rows[i].sm), &(rt_cuda_options){.jobs = 2, .choice = rows[i].choice ? asked : NULL, .user = (void *)rows[i].choice});
  int n[4] = {0};
  const char *choice = "";
  for (int k = 0; k < plan->nkernels; k++)
    if (plan->kernels[k].kernel) {
      for (int o = 0; o < 4; o++) n[o] += rt_cubin_count(plan->kernels[k].cubin, rows[i].opcodes[o]);
      if (*plan->kernels[k].left) ir_fail(ctx, TN_EWRONG, "left: %s", plan->kernels[k].left);
      choice = ir_format(ctx, "%s %s;", choice, plan->kernels[k].tile->choice);
    }
  for (int o = 0; o < 4; o++)
    if (rows[i].opcodes[o] && !n[o]) ir_fail(ctx, TN_EWRONG, "%s: no instruction %x in %s (%s)", rows[i].sm, rows[i].opcodes[o], rows[i].text, choice);
}

Test(cuda, large) {
  for (int i = number("TENON_CUDA_FROM", 0); i < 17 && i < number("TENON_CUDA_TO", 1 << 20) && cuda_have_nvrtc(); i++) in_context(large_one, i);
}

/* ---- copies by the TMA unit: tiles, im2col, sums longer and shorter than the stages ---- */

static const struct { const char *choice, *text; } tma[] = {
    {"tma 64 16 2 persist 2 2", "graph g { opset 17 input a: bf16[150, 136] input b: bf16[40, 136] y = Gemm(a, b) {transB = 1} output y }"},
    {"tma 64 64 2 store persist 1 2", "graph g { opset 17 input a: f16[130, 72] input b: f16[128, 72] input c: f16[128] y = Gemm(a, b, c) {transB = 1} output y }"},
    {"tma 64 16 2 persist 2 3 pingpong", "graph g { opset 17 input a: bf16[150, 136] input b: bf16[60, 136] y = Gemm(a, b) {transB = 1} output y }"},
    {"tma 64 64 2 store persist 1 1 pingpong", "graph g { opset 17 input a: f16[70, 72] input b: f16[192, 72] y = Gemm(a, b) {transB = 1} output y }"},
    {"tma 64 16 2 cluster 2", "graph g { opset 17 input a: bf16[150, 200] input b: bf16[24, 200] y = Gemm(a, b) {transB = 1} output y }"},
    {"tma 64 16 2 cluster 2 2", "graph g { opset 17 input a: bf16[150, 200] input b: bf16[40, 200] y = Gemm(a, b) {transB = 1} output y }"},
    {"tma 64 64 2 store persist 8 1 cluster 2 2", "graph g { opset 17 input a: f16[330, 136] input b: f16[328, 136] input c: f16[328] y = Gemm(a, b, c) {transB = 1} output y }"},
    {"tma 64 32 2 cluster 1 2", "graph g { opset 17 input x: bf16[2, 64, 7, 9] const w: bf16[88, 64, 3, 3] data 101376 hash HASH y = Conv(x, w) {pads = [1, 1, 1, 1]} output y }"},
    {"tma 64 16 2 persist 2 2 pingpong cluster 1 2", "graph g { opset 17 input a: bf16[150, 136] input b: bf16[60, 136] y = Gemm(a, b) {transB = 1} output y }"},
    {"tma 64 16 2 persist 16 1 streamk cluster 2 2", "graph g { opset 17 input a: bf16[200, 328] input b: bf16[90, 328] y = Gemm(a, b) {transB = 1} output y }"},
    {"tma 64 64 2 persist 4 1 pingpong cluster 2 2", "graph g { opset 19 input a: f8e4m3fn[200, 400] input b: f8e4m3fn[250, 400] x = Cast(a) {to = 1} w = Cast(b) {to = 1} y = Gemm(x, w) {transB = 1} output y }"},
    {"tma 64 16 2 persist 3 2 streamk", "graph g { opset 17 input a: bf16[70, 392] input b: bf16[60, 392] y = Gemm(a, b) {transB = 1} output y }"},
    {"tma 64 64 2 store persist 2 1 streamk", "graph g { opset 17 input a: f16[130, 328] input b: f16[64, 328] input c: f16[64] y = Gemm(a, b, c) {transB = 1} output y }"},
    {"tma 64 32 3 persist 10 1 streamk cluster 2", "graph g { opset 17 input x: bf16[2, 64, 7, 9] const w: bf16[24, 64, 3, 3] data 27648 hash HASH y = Conv(x, w) {pads = [1, 1, 1, 1]} z = Relu(y) output z }"},
    {"split 2 tma 64 16 2 cluster 2", "graph g { opset 17 input a: bf16[70, 256] input b: bf16[40, 256] y = Gemm(a, b) {transB = 1} output y }"},
    {"tma 64 64 2 store persist 2 1 cluster 2", "graph g { opset 17 input x: bf16[2, 64, 9, 7] const w: bf16[72, 64, 1, 3] data 27648 hash HASH y = Conv(x, w) {pads = [0, 1, 0, 1]} z = GlobalAveragePool(y) output z }"},
    {"tma 64 16 2 persist 2 2 pingpong cluster 2", "graph g { opset 17 input a: bf16[300, 136] input b: bf16[40, 136] y = Gemm(a, b) {transB = 1} output y }"},
    {"tma 128 192 2 store", "graph g { opset 17 input a: bf16[130, 72] input b: bf16[200, 72] input c: bf16[200] y = Gemm(a, b, c) {transB = 1} z = Relu(y) output z }"},
    {"tma 64 128 2 store", "graph g { opset 17 input x: bf16[2, 64, 7, 9] const w: bf16[72, 64, 1, 1] data 9216 hash HASH y = Conv(x, w) z = GlobalAveragePool(y) output z }"},
    {"tma 64 64 2 store", "graph g { opset 17 input a: f16[3, 40, 72] const b: f16[3, 72, 72] data 31104 hash HASH y = MatMul(a, b) output y }"},
    {"tma 64 64 2", "graph g { opset 17 input a: bf16[70, 264] input b: bf16[80, 264] y = Gemm(a, b) {transB = 1} output y }"},
    {"tma 64 32 3", "graph g { opset 17 input a: f16[40, 120] input b: f16[40, 120] input c: f16[40] y = Gemm(a, b, c) {transB = 1} z = Relu(y) output z }"},
    {"tma 128 16 2", "graph g { opset 17 input a: bf16[130, 320] input b: bf16[16, 320] y = Gemm(a, b) {transB = 1} output y }"},
    {"tma 64 32 2", "graph g { opset 17 input a: bf16[2, 3, 20, 200] const b: bf16[32, 200] data 12800 hash HASH t = Transpose(b) y = MatMul(a, t) output y }"},
    {"tma 64 16 3", "graph g { opset 17 input x: bf16[3, 64, 5, 7] const w: bf16[16, 64, 1, 1] data 2048 hash HASH y = Conv(x, w) output y }"},
    {"tma 64 32 2", "graph g { opset 17 input x: bf16[2, 64, 7, 9] const w: bf16[24, 64, 3, 3] data 27648 hash HASH y = Conv(x, w) {pads = [1, 1, 1, 1]} z = Relu(y) output z }"},
    {"tma 64 16 2", "graph g { opset 17 input x: bf16[2, 72, 9, 8] const w: bf16[16, 72, 3, 2] data 13824 hash HASH y = Conv(x, w) {pads = [1, 0, 2, 1], strides = [2, 1], dilations = [1, 2]} output y }"},
    {"tma 64 16 3", "graph g { opset 17 input x: f16[1, 64, 6, 20] const w: f16[16, 64, 1, 1] data 2048 hash HASH y = Conv(x, w) {strides = [2, 3]} output y }"},
    {"tma 64 64 2", "graph g { opset 19 input a: f8e4m3fn[70, 528] input b: f8e4m3fn[80, 528] x = Cast(a) {to = 1} w = Cast(b) {to = 1} y = Gemm(x, w) {transB = 1} output y }"},
    {"tma 64 64 2", "graph g { opset 19 input a: f8e4m3fn[70, 528] input b: f8e5m2[80, 528] x = Cast(a) {to = 1} w = Cast(b) {to = 1} y = Gemm(x, w) {transB = 1} output y }"},
    {"wgmma 64 32 3", "graph g { opset 19 input a: f8e5m2[70, 272] input b: f8e4m3fn[40, 272] x = Cast(a) {to = 1} w = Cast(b) {to = 1} y = Gemm(x, w) {transB = 1} output y }"},
    {"tma 64 16 3", "graph g { opset 19 input x: f8e5m2[2, 144, 7, 9] const w: bf16[16, 144, 3, 3] data 41472 hash HASH const s: f32[] = 0.5 q = Cast(w) {to = 17} e = Cast(q) {to = 1} d = DequantizeLinear(x, s) y = Conv(d, e) {pads = [1, 1, 1, 1]} z = Relu(y) output z }"},
    {"wgmma 64 32 3", "graph g { opset 19 input a: f8e5m2[70, 272] input b: f8e5m2[40, 272] x = Cast(a) {to = 1} w = Cast(b) {to = 1} y = Gemm(x, w) {transB = 1} output y }"},
    {"tma 64 64 2 store", "graph g { opset 19 input a: f8e4m3fn[72, 272] input b: f8e4m3fn[64, 272] x = Cast(a) {to = 16} w = Cast(b) {to = 16} y = Gemm(x, w) {transB = 1} output y }"},
    {"tma 64 16 3", "graph g { opset 19 input x: f8e5m2[2, 144, 7, 9] const w: bf16[16, 144, 3, 3] data 41472 hash HASH const s: f32[] = 0.5 q = Cast(w) {to = 19} e = Cast(q) {to = 1} d = DequantizeLinear(x, s) y = Conv(d, e) {pads = [1, 1, 1, 1]} z = Relu(y) output z }"}};

static void tma_each(tn_ctx *ctx, int i, void (*check)(tn_ctx *ctx, const ir_kernel *k, const cu_tile *tile, const cu_target *t)) {
  const cu_target *t = cu_target_find(ctx, "sm_90a");
  const ir_program *p = cuda_program_nhwc(ctx, tma[i].text);
  int products = 0;
  for (int n = 0; n < p->nrun; n++) {
    const ir_program_kernel *pk = &p->kernels[p->run[n].kernel];
    const ir_kernel *k = pk->lowered ? pk->lowered : pk->kernel;
    if (lw_problem_of(ctx, k).kind != LW_CONTRACTION) continue;
    const char *why = NULL;
    const cu_tile *tile = cu_schedule(ctx, t, k, tma[i].choice, &why);
    if (!tile) ir_fail(ctx, TN_EWRONG, "%s: %s\n%s", tma[i].text, why, ir_kernel_print(ctx, k));
    check(ctx, k, tile, t);
    products++;
  }
  if (!products) ir_fail(ctx, TN_EWRONG, "no product in %s", tma[i].text);
}

static void tma_right(tn_ctx *ctx, const ir_kernel *k, const cu_tile *tile, const cu_target *t) {
  const char *wrong = cuda_check_tile(ctx, k, tile, t, &(cuda_check){.seed = 7, .compile = true});
  if (wrong) ir_fail(ctx, TN_EWRONG, "%s: %s\n%s", tile->choice, wrong, ir_kernel_print(ctx, tile->kernel));
}

static void tma_one(tn_ctx *ctx, int i) { tma_each(ctx, i, tma_right); }

Test(cuda, tma) {
  for (int i = number("TENON_CUDA_FROM", 0); i < IR_COUNT(tma) && i < number("TENON_CUDA_TO", 1 << 20); i += number("TENON_CUDA_STEP", whole_set() ? 1 : 5)) in_context(tma_one, i);
}

/* ---- whole models, small: layers of the kinds that residual, mobile and transformer networks have ---- */

static const char *const models[] = {
    /* bottleneck with a shortcut, pooling, a classifier */
    "graph resnet { opset 17 input x: f32[1, 3, 15, 15] input w0: f32[8, 3, 7, 7] input w1: f32[8, 8, 1, 1] input w2: f32[8, 8, 3, 3] input w3: f32[16, 8, 1, 1] input w4: f32[16, 8, 1, 1] input b: f32[16] input f: f32[16, 10]"
    " c0 = Conv(x, w0) {strides = [2, 2], pads = [3, 3, 3, 3]} r0 = Relu(c0) p0 = MaxPool(r0) {kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]}"
    " c1 = Conv(p0, w1) r1 = Relu(c1) c2 = Conv(r1, w2) {pads = [1, 1, 1, 1]} r2 = Relu(c2) c3 = Conv(r2, w3, b) s = Conv(p0, w4) a = Add(c3, s) r3 = Relu(a)"
    " g = GlobalAveragePool(r3) h = Flatten(g) y = MatMul(h, f) output y }",
    /* inverted residual: expand, depthwise, project */
    "graph mobile { opset 17 input x: f32[1, 8, 9, 9] input w1: f32[24, 8, 1, 1] input w2: f32[24, 1, 3, 3] input w3: f32[8, 24, 1, 1] const lo: f32[] = 0.0 const hi: f32[] = 6.0"
    " c1 = Conv(x, w1) r1 = Clip(c1, lo, hi) c2 = Conv(r1, w2) {group = 24, pads = [1, 1, 1, 1]} r2 = Clip(c2, lo, hi) c3 = Conv(r2, w3) y = Add(c3, x) output y }",
    /* embedding, attention with two heads, feed-forward with erf */
    "graph bert { opset 17 input ids: i64[1, 12] input e: f32[30, 32] input g: f32[32] input wq: f32[32, 32] input wk: f32[32, 32] input wv: f32[32, 32] input w1: f32[32, 64] input w2: f32[64, 32] const sh: i64[4] = [1, 12, 2, 16] const back: i64[3] = [1, 12, 32]"
    " const root: f32[] = 4.0 const two: f32[] = 1.4142135 const one: f32[] = 1.0 const half: f32[] = 0.5"
    " x0 = Gather(e, ids) x = LayerNormalization(x0, g, g) q0 = MatMul(x, wq) k0 = MatMul(x, wk) v0 = MatMul(x, wv) q1 = Reshape(q0, sh) k1 = Reshape(k0, sh) v1 = Reshape(v0, sh)"
    " q = Transpose(q1) {perm = [0, 2, 1, 3]} k = Transpose(k1) {perm = [0, 2, 3, 1]} v = Transpose(v1) {perm = [0, 2, 1, 3]} s0 = MatMul(q, k) s = Div(s0, root) p = Softmax(s) o0 = MatMul(p, v)"
    " o1 = Transpose(o0) {perm = [0, 2, 1, 3]} o = Reshape(o1, back) r = Add(o, x) n = LayerNormalization(r, g, g) f0 = MatMul(n, w1) f1 = Div(f0, two) f2 = Erf(f1) f3 = Add(f2, one) f4 = Mul(f0, f3) f5 = Mul(f4, half) f6 = MatMul(f5, w2) y = Add(f6, n) output y }",
    /* patches, a class token, a block in bf16 */
    "graph vit { opset 17 input x: f32[1, 3, 32, 32] input w: f32[32, 3, 8, 8] input cls: f32[1, 1, 32] input g: f32[32] input wq: bf16[32, 32] input w1: bf16[32, 64] const sh: i64[3] = [1, 32, 16]"
    " c = Conv(x, w) {strides = [8, 8]} f = Reshape(c, sh) t = Transpose(f) {perm = [0, 2, 1]} a = Concat(cls, t) {axis = 1} n = LayerNormalization(a, g, g) h = Cast(n) {to = 16} q = MatMul(h, wq) k = Transpose(q) {perm = [0, 2, 1]}"
    " s = MatMul(q, k) p = Softmax(s) o = MatMul(p, q) u = MatMul(o, w1) z = Tanh(u) y = Cast(z) {to = 1} output y }"};

static void model_one(tn_ctx *ctx, int i) {
  ir_graph *g = ir_graph_parse(ctx, models[i], "model");
  ir_graph_sort(g);
  ir_program *p = rt_cuda_lower(ctx, g, LW_LAYOUT_AUTO);
  const rt_cuda_plan *plan = rt_cuda_plan_make(ctx, p, cu_target_find(ctx, "sm_90a"), &(rt_cuda_options){.no_compile = true});
  const void **in = IR_NEW_ARRAY(ctx, const void *, p->ninputs + 1);
  void **want = IR_NEW_ARRAY(ctx, void *, p->noutputs + 1), **have = IR_NEW_ARRAY(ctx, void *, p->noutputs + 1);
  const ir_slot *out = NULL;
  for (int s = 0; s < p->nslots; s++) {
    if (p->slots[s].kind == IR_SLOT_INPUT) in[p->slots[s].index] = cuda_random(ctx, &p->slots[s], &(uint64_t){(uint64_t)s + 7}, 0.5, 30);
    if (p->slots[s].kind == IR_SLOT_OUTPUT) out = &p->slots[s];
  }
  want[0] = ir_alloc(ctx, (size_t)out->bytes + 1);
  have[0] = ir_alloc(ctx, (size_t)out->bytes + 1);
  rt_program_interp(ctx, p, in, want, NULL, NULL, NULL);
  rt_cuda_plan_emulate(ctx, plan, in, have, NULL, NULL, 5);
  double top = 0, off = 0;
  for (int64_t e = 0; e < out->bytes / 4; e++) {
    double a = ((float *)want[0])[e], b = ((float *)have[0])[e];
    if (fabs(a) > top) top = fabs(a);
    if (!(fabs(a - b) <= off)) off = fabs(a - b);
  }
  if (!(top > 0 && off <= (i == 3 ? 2e-2 : 1e-4) * top)) ir_fail(ctx, TN_EWRONG, "%s: off by %g of %g", p->name, off, top);
}

Test(cuda, models) {
  for (int i = 0; i < IR_COUNT(models); i++) in_context(model_one, i);
}

/* ---- mutants ---- */

static int mutants, caught, mutated;
static double rtol;

static void mutate(tn_ctx *ctx, const ir_kernel *k, const cu_tile *tile, const cu_target *t) {
  const cu_tile *m;
  const char *what;
  int before = mutants;
  for (int weaker = 0; weaker < 2; weaker++)
    for (int n = 0; (m = cuda_mutant(ctx, tile, n, weaker, &what)); n++) {
      mutants++;
      const char *wrong = cuda_check_tile(ctx, k, m, t, &(cuda_check){.seed = 3, .rtol = rtol});
      if (wrong) caught++;
      else fprintf(stderr, "%s (%s): '%s' number %d %s is not missed\n", k->name, tile->choice, what, n, weaker ? "made weaker" : "removed");
    }
  mutated += mutants > before;
}

static void mutate_one(tn_ctx *ctx, int i) {
  cuda_case c;
  cuda_case_at(ctx, i, &c);
  const ir_program *p = c.lowered ? cuda_program_nhwc(ctx, c.text) : cuda_program(ctx, c.text);
  const cu_target *t = cu_target_find(ctx, "sm_90a");
  for (int k = 0; k < p->nkernels; k++) {
    rtol = c.rtol;
    mutate(ctx, case_kernel(p, k), cu_schedule(ctx, t, case_kernel(p, k), cuda_choice_for(ctx, c.choice, case_kernel(p, k)), NULL), t);
  }
}

static void mutate_tma(tn_ctx *ctx, int i) {
  rtol = 0;
  tma_each(ctx, i, mutate);
}

Test(cuda, mutants) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  cuda_case c;
  for (int i = number("TENON_CUDA_FROM", 0); i < number("TENON_CUDA_TO", 1 << 20) && cuda_case_at(ctx, i, &c); i += number("TENON_CUDA_STEP", whole_set() ? 1 : 41)) in_context(mutate_one, i);
  for (int i = number("TENON_CUDA_TMA_FROM", 0); i < IR_COUNT(tma) && i < number("TENON_CUDA_TMA_TO", 1 << 20); i += whole_set() ? 1 : 3) in_context(mutate_tma, i);
  fprintf(stderr, "%d programs, %d of %d mutants caught\n", mutated, caught, mutants);
  cr_assert(mutants > 0 && caught * 100 >= mutants * 95, "%d of %d mutants caught", caught, mutants);
  tn_ctx_free(ctx);
}

/* ---- sizes that the launch tells ---- */

enum { SIZED = 24000 };
static const struct {
  const char *text, *choice, *got; /* choice null: the default; got: what its text begins with */
  int64_t dims[4];
} sized[] = {
    {"kernel softmax(dim n [0, 80], in x: f32[80, 200], out y: f32[80, 200]) { for i in 0 .. n { alloc m: f32[] register m[] = -1000.0 for r in 0 .. 200 { m[] = max(m[], x[i, r]) } "
     "alloc s: f32[] register s[] = 0.0 for q in 0 .. 200 { s[] = s[] + exp(x[i, q] - m[]) } for p in 0 .. 200 { y[i, p] = exp(x[i, p] - m[]) / s[] } } }", NULL, "rows", {0, 1, 37, 80}},
    {"kernel softmax(dim n [0, 80], in x: f32[80, 200], out y: f32[80, 200]) { for i in 0 .. n { alloc m: f32[] register m[] = -1000.0 for r in 0 .. 200 { m[] = max(m[], x[i, r]) } "
     "for p in 0 .. 200 { y[i, p] = exp(x[i, p] - m[]) } } }", "rows 32 4", "rows 32 4", {0, 5, 38, 80}},
    {"kernel sums(dim n [0, 1500], in x: f32[16, 1500], out y: f32[16]) { for i in 0 .. 16 { alloc s: f32[] register s[] = 0.0 for r in 0 .. n { s[] = fma(x[i, r], x[i, r], s[]) } y[i] = s[] } }", NULL, "rows", {0, 1, 700, 1500}},
    {"kernel norm(dim n [0, 300], dim m [1, 70], in x: f32[70, 300], out y: f32[70, 300]) { for i in 0 .. m { alloc s: f32[] register s[] = 0.0 for r in 0 .. n { s[] = s[] + x[i, r] } "
     "for p in 0 .. n { y[i, p] = x[i, p] - s[] } } }", NULL, "rows", {1, 31, 64, 70}},
    {"kernel columns(dim n [0, 240], in x: f32[240, 100], out y: f32[100]) { for j in 0 .. 100 { alloc s: f32[] register s[] = 0.0 for r in 0 .. n { s[] = s[] + x[r, j] } y[j] = s[] * 0.5 } }", NULL, "columns", {0, 1, 77, 240}},
    {"kernel columns(dim n [0, 240], in x: f32[240, 100], out y: f32[100]) { for j in 0 .. 100 { alloc s: f32[] register s[] = 0.0 for r in 0 .. n { s[] = s[] + x[r, j] } y[j] = s[] * 0.5 } }", "columns 8 32 4", "columns 8 32 4", {0, 3, 130, 240}},
    {"kernel product(dim n [0, 90], in a: f32[90, 72], in b: f32[72, 50], out y: f32[90, 50]) { for i in 0 .. n { for j in 0 .. 50 { alloc s: f32[] register s[] = 0.0 for r in 0 .. 72 { s[] = fma(a[i, r], b[r, j], s[]) } "
     "y[i, j] = max(s[], 0.0) } } }", NULL, "tile", {0, 1, 37, 90}},
    {"kernel product(dim n [0, 90], in a: f32[72, 90], in b: f32[72, 50], out y: f32[50, 90]) { for j in 0 .. 50 { for i in 0 .. n { alloc s: f32[] register s[] = 0.0 for r in 0 .. 72 { s[] = fma(a[r, i], b[r, j], s[]) } "
     "y[j, i] = s[] } } }", "tile 32 32 16 2 2 3", "tile 32 32 16", {0, 3, 66, 89}},
    {"kernel product(dim n [0, 90], in a: f32[90, 72], in b: f32[72, 50], out y: f32[90, 50]) { for i in 0 .. n { for j in 0 .. 50 { alloc s: f32[] register s[] = 0.0 for r in 0 .. 72 { s[] = fma(a[i, r], b[r, j], s[]) } "
     "y[i, j] = s[] } } }", "tf32 32 64 32 16 32 3", "tf32 32 64", {0, 2, 45, 90}},
    {"kernel batches(dim n [0, 9], in a: f32[9, 12, 40], in b: f32[9, 40, 20], out y: f32[9, 12, 20]) { for p in 0 .. n { for i in 0 .. 12 { for j in 0 .. 20 { alloc s: f32[] register s[] = 0.0 "
     "for r in 0 .. 40 { s[] = fma(a[p, i, r], b[p, r, j], s[]) } y[p, i, j] = s[] } } } }", NULL, "tile", {0, 1, 4, 9}},
    {"kernel turn(dim n [0, 130], in x: f32[130, 70], out y: f32[70, 130]) { for i in 0 .. 70 { for j in 0 .. n { y[i, j] = x[j, i] * 2.0 } } }", NULL, "transpose", {0, 1, 33, 130}},
    {"kernel turn(dim n [0, 70], dim m [0, 130], in x: f32[130, 70], out y: f32[70, 130]) { for i in 0 .. n { for j in 0 .. m { y[i, j] = x[j, i] } } }", NULL, "transpose", {0, 5, 64, 70}},
};

static void sized_one(tn_ctx *ctx, int i) {
  static float x[SIZED], w[SIZED], y[2][SIZED];
  const ir_kernel *k = ir_kernel_parse(ctx, sized[i].text, "sized");
  const cu_target *t = cu_target_find(ctx, "sm_90a");
  const char *why = NULL;
  const cu_tile *tile = cu_schedule(ctx, t, k, sized[i].choice, &why);
  if (!tile || strncmp(tile->choice, sized[i].got, strlen(sized[i].got))) ir_fail(ctx, TN_EWRONG, "kernel %d: %s, not %s", i, tile ? tile->choice : why, sized[i].got);
  for (int e = 0; e < SIZED; e++) x[e] = (float)(e * 37 % 101 - 50) / 64, w[e] = (float)(e * 29 % 89 - 44) / 64; /* TF32 holds these */
  for (int d = 0; d < 4; d++) {
    int64_t dims[2] = {sized[i].dims[d], sized[i].dims[d]};
    for (int way = 0; way < 2; way++)
      for (int e = 0; e < SIZED; e++) y[way][e] = 5;
    ir_interp(ctx, k, (void *[]){x, k->nbufs == 2 ? y[0] : w, y[0]}, dims);
    rt_cuda_emulate(ctx, tile, (void *[]){x, k->nbufs == 2 ? y[1] : w, y[1]}, dims, (uint64_t)d);
    for (int e = 0; e < SIZED; e++)
      if (!(fabsf(y[0][e] - y[1][e]) <= 1e-4f * (1 + fabsf(y[0][e])))) ir_fail(ctx, TN_EWRONG, "kernel %d of %lld: element %d is %g, not %g", i, (long long)dims[0], e, (double)y[1][e], (double)y[0][e]);
  }
  if (!cuda_have_nvrtc()) return;
  const cu_code *code = cu_print(ctx, t, tile, "sized");
  const char *wrong = rt_cubin_gate(ctx, t, rt_cuda_compile(ctx, t, code->source, NULL), code);
  if (wrong) ir_fail(ctx, TN_EWRONG, "kernel %d (%s): %s", i, tile->choice, wrong);
}

Test(cuda, sizes_at_launch) {
  for (int i = 0; i < IR_COUNT(sized); i++) in_context(sized_one, i);
}
