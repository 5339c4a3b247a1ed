/* test_cuda_run.c — plans from graph to results through the fake driver: printed CUDA C, built for the host by the C++
 * compiler, launched as the driver would; and what the runtime says when the driver fails. Skipped without a compiler. */
#include "runtime/cuda_lib.h"
#include "runtime/cuda_plan.h"
#include "runtime/cuda_run.h"
#include "support_cuda.h"
#include "support_cuda_device.h"
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[256];
static int built;

static const char *compiler(void) { return getenv("CXX") && *getenv("CXX") ? getenv("CXX") : "c++"; }

static bool have_compiler(void) {
  static int have = -1;
  if (have < 0) have = system("c++ --version > /dev/null 2>&1") == 0 || getenv("CXX");
  if (!have) fprintf(stderr, "skipped: no C++ compiler\n");
  return have != 0;
}

static bool run_program(char *const argv[]) {
  pid_t pid = fork();
  if (pid == 0) {
    execvp(argv[0], argv);
    _exit(127);
  }
  int status = -1;
  return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* A "cubin" of the fake driver: the path of a shared object. */
static const rt_cubin *host_compile(tn_ctx *ctx, const cu_target *t, const cu_code *code, void *user) {
  (void)t, (void)user;
  int n = __atomic_add_fetch(&built, 1, __ATOMIC_RELAXED);
  char *source = ir_format(ctx, "%s/k%d.cpp", folder, n), *object = ir_format(ctx, "%s/k%d.so", folder, n);
  FILE *f = fopen(source, "w");
  if (!f) ir_fail(ctx, TN_ERESOURCE, "cannot write %s", source);
  /* helper functions without PTX stay; the host brings those with it */
  fprintf(f, "#include \"%s/tests/cuda_host.hpp\"\n", TN_SOURCE_DIR);
  for (const char *p = code->source; p < code->body; p += strcspn(p, "\n") + 1) {
    int length = (int)strcspn(p, "\n");
    const char *line = ir_strndup(ctx, p, (size_t)length);
    if (!strstr(line, "asm") && !strstr(line, "__cvta") && !strstr(line, "memcpy(") && !strstr(line, "tn_from_bf16(unsigned short x)") && strncmp(line, "struct ", 7)) fprintf(f, "%s\n", line);
  }
  for (const char *p = code->body; *p; p += strcspn(p, "\n") + 1) /* shared memory is the host's */
    if (strncmp(p, "  extern __shared__", 19)) fprintf(f, "%.*s\n", (int)strcspn(p, "\n"), p);
  for (int i = 0; i < code->nlaunches; i++)
    if (code->launches[i].cluster > 1) fprintf(f, "static host::of_cluster of_%s((void *)%s, %d);\n", code->launches[i].symbol, code->launches[i].symbol, code->launches[i].cluster);
  fclose(f);
  char *argv[] = {(char *)compiler(), "-O1", "-w", "-shared", "-fPIC", "-ffp-contract=off", "-std=c++17", source, "-o", object, NULL};
  if (!run_program(argv)) ir_fail(ctx, TN_EINTERNAL, "%s does not compile", source);
  rt_cubin *c = IR_NEW(ctx, rt_cubin);
  *c = (rt_cubin){.bytes = object, .size = strlen(object) + 1, .warnings = "", .report = ""};
  return c;
}

static void setup(const char *fake, bool only) {
  snprintf(folder, sizeof folder, "/tmp/tn_cuda_XXXXXX");
  cr_assert(mkdtemp(folder) != NULL);
  char path[600];
  snprintf(path, sizeof path, only ? "%s/tests/fake:-" : "%s/tests/fake", TN_BUILD_DIR); /* only: no NVRTC either */
  setenv("TENON_CUDA_PATH", path, 1);
  setenv("FAKE_CUDA", fake, 1);
  rt_cuda_forget();
}

static void clean(void) {
  char *argv[] = {"rm", "-rf", folder, NULL};
  run_program(argv);
}

static int held(void) {
  int (*f)(void) = (int (*)(void))rt_cuda_symbol(RT_CUDA_DRIVER, "fakeHeld");
  return f ? f() : -1;
}

/* ---- one plan ---- */

typedef struct job {
  const char *text, *fake, *choice;
  const char *expect; /* part of the error that is wanted; null: none */
  bool nvrtc;         /* the real NVRTC may be found: its version counts */
  bool nhwc;          /* as models are lowered; constants of the text are random; the choice too is for products alone */
  bool products;      /* the choice is for products alone */
  double rtol;        /* 0: by dtype */
  bool again;         /* open the device once more after the failure, and run */
} job;

static const char *choice_of(void *user, const ir_kernel *k) { return user; }

static void run_plan(tn_ctx *ctx, const ir_program *p, const rt_cuda_plan *plan, double rtol) {
  rt_cuda_device *d = rt_cuda_device_open(ctx, plan->target, 0);
  cuda_on_device(ctx, d, p, plan, rtol);
  rt_cuda_device_close(d);
}

static void run_job(tn_ctx *ctx, void *arg) {
  job *j = arg;
  const ir_program *p = j->nhwc ? cuda_program_nhwc(ctx, j->text) : cuda_program(ctx, j->text);
  rt_cuda_options o = {.jobs = 2, .compile = host_compile, .choice = j->nhwc || j->products ? cuda_choice_of_case : choice_of, .user = (void *)j->choice};
  run_plan(ctx, p, rt_cuda_plan_make(ctx, p, cu_target_find(ctx, "sm_90a"), &o), j->rtol);
}

static void check_job(job j) {
  if (!have_compiler()) return;
  setup(j.fake ? j.fake : "", !j.nvrtc);
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_status status = ir_protect(ctx, run_job, &j);
  if (!j.expect) cr_assert_eq(status, TN_OK, "%s: %.500s", j.text, tn_error(ctx));
  else cr_assert(status != TN_OK && strstr(tn_error(ctx), j.expect), "%s: status %d: %.400s", j.fake, status, tn_error(ctx));
  tn_ctx_free(ctx);
  if (rt_cuda_library(RT_CUDA_DRIVER)->handle) cr_assert_eq(held(), 0, "%s: %d things of the driver are still held", j.fake ? j.fake : "", held());
  if (j.again) {
    j.expect = NULL;
    setenv("FAKE_CUDA", "", 1);
    ctx = tn_ctx_new(NULL);
    cr_assert_eq(ir_protect(ctx, run_job, &j), TN_OK, "again: %.400s", tn_error(ctx));
    tn_ctx_free(ctx);
  }
  clean();
}

static const char net[] = "graph g { opset 17 input x: f32[1, 4, 9, 9] input w: f32[8, 4, 3, 3] input s: f32[9] y = Conv(x, w) {pads = [1, 1, 1, 1]} z = Relu(y) n = LayerNormalization(z, s) p = Softmax(n) output p }";

/* ---- what is printed is what is meant ---- */

Test(cuda_run, net) { check_job((job){.text = net}); }
Test(cuda_run, without_graphs) { check_job((job){.text = net, .fake = "nocapture"}); }
Test(cuda_run, tiles) {
  check_job((job){.text = "graph g { opset 17 input a: f32[37, 70] input b: f32[70, 52] y = MatMul(a, b) output y }", .choice = "tile 32 32 16 2 2 3"});
  check_job((job){.text = "graph g { opset 17 input a: f32[40, 64] input b: f32[48, 64] y = Gemm(a, b) {transB = 1} output y }", .choice = "tile 64 64 16 8 8 2"});
}
Test(cuda_run, tensor_cores) {
  check_job((job){.text = "graph g { opset 17 input a: bf16[40, 72] input b: bf16[72, 56] y = MatMul(a, b) output y }", .choice = "mma 32 64 32 16 32 3"});
  check_job((job){.text = "graph g { opset 17 input a: f16[40, 72] input b: f16[56, 72] y = Gemm(a, b) {transB = 1} output y }", .choice = "mma 32 64 32 32 16 3"});
  check_job((job){.text = "graph g { opset 17 input a: i8[40, 72] input b: i8[72, 56] y = MatMulInteger(a, b) output y }", .choice = "mma 32 64 64 16 32 3"});
}

Test(cuda_run, warpgroups) {
  check_job((job){.text = "graph g { opset 17 input a: bf16[70, 264] input b: bf16[40, 264] y = Gemm(a, b) {transB = 1} output y }", .choice = "wgmma 64 64 2"});
  check_job((job){.text = "graph g { opset 17 input a: bf16[70, 264] input b: bf16[40, 264] y = Gemm(a, b) {transB = 1} output y }", .choice = "tma 64 32 2"});
  check_job((job){.text = "graph g { opset 17 input a: f16[2, 3, 40, 72] const b: f16[32, 72] data 4608 hash HASH t = Transpose(b) y = MatMul(a, t) output y }", .choice = "tma 128 64 3", .nhwc = true});
}
Test(cuda_run, results_through_shared_memory) {
  check_job((job){.text = "graph g { opset 17 input a: bf16[70, 72] input b: bf16[200, 72] input c: bf16[200] y = Gemm(a, b, c) {transB = 1} output y }", .choice = "tma 64 192 2 store"});
  check_job((job){.text = "graph g { opset 17 input x: bf16[2, 64, 7, 9] const w: bf16[72, 64, 3, 3] data 82944 hash HASH y = Conv(x, w) {pads = [1, 1, 1, 1]} z = GlobalAveragePool(y) output z }", .choice = "tma 128 128 2 store", .nhwc = true});
}
Test(cuda_run, persistent) {
  static const char product[] = "graph g { opset 17 input a: bf16[200, 200] input b: bf16[136, 200] input c: bf16[136] y = Gemm(a, b, c) {transB = 1} output y }";
  static const char *const choices[] = {"tma 64 64 2 persist 3 2", "tma 64 64 3 store persist 2 3", "tma 64 64 2 persist 2 2 pingpong", "tma 64 64 2 store persist 3 1 pingpong", "tma 64 64 2 cluster 2", "tma 64 64 2 store persist 4 2 cluster 2", "tma 64 64 3 store persist 5 2 streamk", "tma 64 64 2 persist 8 2 streamk cluster 2", "tma 64 64 2 persist 8 1 cluster 2 2", "tma 64 64 2 store persist 4 1 pingpong cluster 1 2"};
  for (int i = 0; i < IR_COUNT(choices); i++) check_job((job){.text = product, .choice = choices[i]});
  check_job((job){.text = "graph g { opset 17 input x: bf16[2, 64, 7, 9] const w: bf16[72, 64, 3, 3] data 82944 hash HASH y = Conv(x, w) {pads = [1, 1, 1, 1]} z = GlobalAveragePool(y) output z }", .choice = "tma 64 64 2 store persist 2 1 pingpong cluster 2", .nhwc = true});
}
Test(cuda_run, windows) {
  check_job((job){.text = "graph g { opset 17 input x: bf16[2, 64, 7, 9] const w: bf16[24, 64, 3, 3] data 27648 hash HASH y = Conv(x, w) {pads = [1, 1, 1, 1]} output y }", .choice = "tma 64 32 2", .nhwc = true});
  check_job((job){.text = "graph g { opset 17 input x: bf16[2, 72, 9, 8] const w: bf16[16, 72, 3, 2] data 13824 hash HASH y = Conv(x, w) {pads = [1, 0, 2, 1], strides = [2, 1], dilations = [1, 2]} output y }", .choice = "tma 64 16 2", .nhwc = true});
}
Test(cuda_run, floats_of_a_byte) {
  check_job((job){.text = "graph g { opset 19 input a: f8e4m3fn[40, 96] input b: f8e5m2[56, 96] x = Cast(a) {to = 1} w = Cast(b) {to = 1} y = Gemm(x, w) {transB = 1} output y }", .choice = "mma 32 64 64 16 32 3", .nhwc = true});
  check_job((job){.text = "graph g { opset 19 input a: f8e5m2[70, 528] input b: f8e4m3fn[40, 528] x = Cast(a) {to = 1} w = Cast(b) {to = 1} y = Gemm(x, w) {transB = 1} output y }", .choice = "tma 64 32 2", .nhwc = true});
  check_job((job){.text = "graph g { opset 19 input a: f8e4m3fn[40, 96] input b: f8e4m3fn[56, 96] x = Cast(a) {to = 1} w = Cast(b) {to = 1} y = Gemm(x, w) {transB = 1} output y }", .choice = "mma 32 64 64 16 32 3", .nhwc = true});
  check_job((job){.text = "graph g { opset 19 input a: f8e5m2[70, 528] input b: f8e5m2[40, 528] input s: f32[] x = DequantizeLinear(a, s) w = DequantizeLinear(b, s) y = Gemm(x, w) {transB = 1} output y }", .choice = "wgmma 64 64 2", .nhwc = true});
  check_job((job){.text = "graph g { opset 19 input a: f8e4m3fn[70, 528] input b: f8e4m3fn[40, 528] x = Cast(a) {to = 1} w = Cast(b) {to = 1} y = Gemm(x, w) {transB = 1} output y }", .choice = "tma 64 32 2", .nhwc = true});
  check_job((job){.text = "graph g { opset 19 input x: f8e4m3fn[2, 144, 7, 9] const w: bf16[16, 144, 3, 3] data 41472 hash HASH q = Cast(w) {to = 17} e = Cast(q) {to = 1} d = Cast(x) {to = 1} y = Conv(d, e) {pads = [1, 1, 1, 1]} z = Relu(y) output z }", .choice = "tma 64 16 3", .nhwc = true});
}
Test(cuda_run, more_schedules) {
  check_job((job){.text = "graph g { opset 17 input a: f32[40, 72] input b: f32[56, 72] y = Gemm(a, b) {transB = 1} output y }", .choice = "tf32 32 64 32 16 32 3", .rtol = 2e-3});
  check_job((job){.text = "graph g { opset 17 input a: bf16[40, 128] input b: bf16[36, 128] input c: bf16[36] y = Gemm(a, b, c) {transB = 1} output y }", .choice = "split 4 mma 32 64 32 16 32 3"});
  check_job((job){.text = "graph g { opset 17 input x: bf16[70, 40] y = ReduceMax(x) {axes = [0]} output y }", .choice = "columns 4 16 3"});
  check_job((job){.text = "graph g { opset 17 input x: f32[130, 24] y = Softmax(x) {axis = 0} output y }"});
  check_job((job){.text = "graph g { opset 17 input a: bf16[70, 512] input b: bf16[40, 512] y = Gemm(a, b) {transB = 1} output y }", .choice = "split 2 tma 64 32 2"});
  check_job((job){.text = "graph g { opset 17 input q: bf16[2, 70, 72] input k: bf16[2, 200, 72] input v: bf16[2, 200, 80] t = Transpose(k) {perm = [0, 2, 1]} s = MatMul(q, t) p = Softmax(s) y = MatMul(p, v) output y }", .nhwc = true});
  check_job((job){.text = "graph g { opset 17 input q: bf16[2, 40, 24] input k: bf16[2, 70, 24] input v: bf16[2, 70, 32] t = Transpose(k) {perm = [0, 2, 1]} s = MatMul(q, t) p = Softmax(s) y = MatMul(p, v) output y }", .nhwc = true});
  static const char f32[] = "graph g { opset 17 input q: f32[2, 20, 24] input k: f32[2, 37, 24] input v: f32[2, 37, 20] t = Transpose(k) {perm = [0, 2, 1]} s = MatMul(q, t) p = Softmax(s) y = MatMul(p, v) output y }";
  check_job((job){.text = f32, .nhwc = true});
  check_job((job){.text = f32, .choice = "attend.tf32 32 32", .nhwc = true, .rtol = 2e-3});
}
Test(cuda_run, no_maps) {
  check_job((job){.text = "graph g { opset 17 input a: bf16[70, 264] input b: bf16[40, 264] y = Gemm(a, b) {transB = 1} output y }", .choice = "tma 64 32 2", .fake = "fail=cuTensorMapEncodeTiled", .expect = "tensor map 0"});
}

Test(cuda_run, set) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  int step = getenv("TENON_CUDA_ALL") ? 3 : 61;
  cuda_case c;
  for (int i = 5; cuda_case_at(ctx, i, &c); i += step) check_job((job){.text = c.text, .choice = c.choice, .products = true, .nhwc = c.lowered, .rtol = c.rtol});
  tn_ctx_free(ctx);
}

/* ---- failures ---- */

Test(cuda_run, old_driver) {
  if (cuda_have_nvrtc()) check_job((job){.text = net, .fake = "version=11080", .expect = "update the driver", .nvrtc = true});
}
Test(cuda_run, other_architecture) { check_job((job){.text = net, .fake = "sm=80", .expect = "does not run there"}); }
Test(cuda_run, no_device) { check_job((job){.text = net, .fake = "nodevice", .expect = "CUDA_ERROR_NO_DEVICE"}); }
Test(cuda_run, out_of_memory) { check_job((job){.text = net, .fake = "memory=3000", .expect = "CUDA_ERROR_OUT_OF_MEMORY", .again = true}); }
Test(cuda_run, trap) { check_job((job){.text = net, .fake = "trap=2", .expect = "its context is lost", .again = true}); }
Test(cuda_run, failing_calls) {
  static const char *const all[] = {"cuInit", "cuDevicePrimaryCtxRetain", "cuStreamCreate", "cuModuleLoadData", "cuModuleGetFunction", "cuMemcpyHtoDAsync_v2", "cuStreamSynchronize", "cuEventRecord"};
  for (int i = 0; i < IR_COUNT(all); i++) {
    char fake[64];
    snprintf(fake, sizeof fake, "fail=%s", all[i]);
    check_job((job){.text = "graph g { opset 17 input x: f32[5] y = Relu(x) output y }", .fake = fake, .expect = "CUDA_ERROR_OTHER"});
  }
}
Test(cuda_run, absent) {
  setup("", true);
  setenv("TENON_CUDA_PATH", "/nowhere:-", 1);
  rt_cuda_forget();
  if (have_compiler()) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    job j = {.text = "graph g { opset 17 input x: f32[5] y = Relu(x) output y }"};
    cr_assert(ir_protect(ctx, run_job, &j) == TN_EUNSUPPORTED && strstr(tn_error(ctx), "CUDA driver is not there"), "%s", tn_error(ctx));
    tn_ctx_free(ctx);
  }
  clean();
}
