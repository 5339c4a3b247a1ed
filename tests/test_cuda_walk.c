/* test_cuda_walk.c — programs that decide at run time, on GPUs: if, while, lets, sizes of kernels that the program computes, and
 * states; emulated, and on the fake driver, against the interpreter. */
#include "aot/sample.h"
#include "aot/shell.h"
#include "ir/text.h"
#include "runtime/cuda_lib.h"
#include "runtime/cuda_object.h"
#include "runtime/cuda_run.h"
#include "runtime/exec.h"
#include "runtime/program_interp.h"
#include <math.h>

static const char text[] =
    "program walk {\n"
    "  bytes weights 0 arena 0 state 0 pack_arena 0 live_peak 0\n"
    "  counts inputs 2 outputs 2 raw 0\n"
    "  slot n: i64[1] input 0 bytes 8\n"
    "  slot x: f32[80, 24] input 1 bytes 7680\n"
    "  slot y: f32[80] output 0 bytes 320\n"
    "  slot s: i64[2] output 1 bytes 16\n"
    "  kernel clear(out y: f32[80], out s: i64[2]) {\n"
    "    for i in 0 .. 80 { y[i] = 0.0 }\n"
    "    s[0] = 0\n"
    "    s[1] = 0\n"
    "  }\n"
    "  kernel sums(dim rows [0, 80], in x: f32[80, 24], inout y: f32[80]) {\n"
    "    for i in 0 .. rows {\n"
    "      alloc acc: f32[] register\n"
    "      acc[] = 0.0\n"
    "      for k in 0 .. 24 { acc[] = fma(x[i, k], x[i, k], acc[]) }\n"
    "      y[i] = y[i] + acc[]\n"
    "    }\n"
    "  }\n"
    "  kernel tick(in y: f32[80], inout s: i64[2]) {\n"
    "    s[0] = s[0] + 1\n"
    "    if y[0] > 20.0 { s[1] = s[1] + 1 }\n"
    "  }\n"
    "  pack { }\n"
    "  run {\n"
    "    call clear(y, s)\n"
    "    let rows: index [0, 80] = cast<index>(n[0])\n"
    "    while s[0] < 3 {\n"
    "      call sums(x, y)\n"
    "      if 40 < rows {\n"
    "        call sums(x, y)\n"
    "      } else {\n"
    "        let rows: index [0, 80] = max(rows - 1, 0)\n"
    "        call sums(x, y)\n"
    "      }\n"
    "      call tick(y, s)\n"
    "    }\n"
    "  }\n"
    "}\n";

enum { X_ROWS = 80, X_COLS = 24 };
static float x[X_ROWS * X_COLS];

typedef struct result {
  float y[X_ROWS];
  int64_t s[2];
} result;

static void same_result(tn_ctx *ctx, const result *a, const result *b, int64_t n) {
  if (a->s[0] != b->s[0] || a->s[1] != b->s[1]) ir_fail(ctx, TN_EWRONG, "%lld rows: steps", (long long)n);
  for (int i = 0; i < X_ROWS; i++)
    if (a->y[i] != b->y[i]) ir_fail(ctx, TN_EWRONG, "%lld rows: element %d is %g, not %g", (long long)n, i, b->y[i], a->y[i]);
}

static void start(const char *fake) {
  folder();
  setenv("FAKE_CUDA", fake, 1);
  setenv("TENON_CUDA_PATH", TN_BUILD_DIR "/tests/fake:" TN_BUILD_DIR "/tests/fake_nvrtc:-", 1);
  setenv("FAKE_NVRTC_DIR", dir, 1);
  rt_cuda_forget();
  for (int i = 0; i < X_ROWS * X_COLS; i++) x[i] = (float)(i * 37 % 101) / 50 - 1;
}

static void finish(void) {
  int (*held)(void) = (int (*)(void))rt_cuda_symbol(RT_CUDA_DRIVER, "fakeHeld");
  cr_assert(held && held() == 0, "things of the driver are still held");
  SH("rm -rf %s", dir);
}

/* Sizes: none, few, both arms of the if; in many turns more stretches than are kept. */
static void sizes(tn_ctx *ctx, void *arg) {
  ir_program *p = ir_program_parse(ctx, text, "walk");
  const char *wrong = ir_program_verify(ctx, p);
  if (wrong) ir_fail(ctx, TN_EWRONG, "%s", wrong);
  const cu_target *t = cu_target_find(ctx, "sm_90a");
  const rt_cuda_plan *plan = rt_cuda_plan_make(ctx, p, t, NULL);
  rt_cuda_device *d = rt_cuda_device_open(ctx, t, 0);
  rt_cuda_module *m = rt_cuda_module_new(ctx, d, plan);
  size_t left = 0; /* by runs in the context, after the first ones */
  for (int64_t turn = 0; turn < *(int *)arg; turn++) {
    int64_t n = turn * 35 % (X_ROWS + 1);
    result want, have;
    const void *in[] = {&n, x};
    rt_program_interp(ctx, p, in, (void *[]){want.y, want.s}, NULL, NULL, NULL);
    memset(&have, 0, sizeof have);
    size_t before = ir_bytes(ctx);
    rt_cuda_run(ctx, m, in, (void *[]){have.y, have.s}, NULL, NULL, NULL);
    if (turn > 9) left += ir_bytes(ctx) - before;
    same_result(ctx, &want, &have, n);
    if (turn % 9) continue;
    memset(&have, 0, sizeof have);
    rt_cuda_plan_emulate(ctx, plan, in, (void *[]){have.y, have.s}, NULL, NULL, (uint64_t)turn);
    same_result(ctx, &want, &have, n);
  }
  if (left) ir_fail(ctx, TN_EWRONG, "runs left %zu bytes in the context", left);
  if (!(rt_cuda_time(ctx, m, 3) > 0)) ir_fail(ctx, TN_EWRONG, "no time");
  if (!plan->walked || plan->nlaunches != 6) ir_fail(ctx, TN_EWRONG, "%d launches", plan->nlaunches);
  rt_cuda_module_free(m);
  rt_cuda_device_close(d);
}

static void run(void (*f)(tn_ctx *ctx, void *arg), void *arg, const char *error) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_status s = ir_protect(ctx, f, arg);
  if (error) cr_assert(s != TN_OK && strstr(tn_error(ctx), error), "status %d: %.400s", s, tn_error(ctx));
  else cr_assert_eq(s, TN_OK, "%.600s", tn_error(ctx));
  tn_ctx_free(ctx);
}

static bool have_compiler(void) { return system("c++ --version > /dev/null 2>&1") == 0; }

Test(cuda_walk, sizes) {
  if (!have_compiler()) return;
  start("");
  run(sizes, &(int){2 * (X_ROWS + 1)}, NULL);
  finish();
}

Test(cuda_walk, failures) {
  if (!have_compiler()) return;
  static const struct { const char *fake, *error; } rows[] = {{"trap=30", "context is lost"}, {"nocapture", NULL}, {"fail=cuMemcpyDtoHAsync_v2", "CUDA_ERROR_OTHER"}, {"fail=cuLaunchKernel", "clear"}};
  for (int i = 0; i < IR_COUNT(rows); i++) {
    start(rows[i].fake);
    run(sizes, &(int){12}, rows[i].error);
    finish();
  }
}

/* The program that modules and objects are tested with: states that a while counts in, an if on a result. */
static void sample(tn_ctx *ctx, void *arg) {
  static float in[ROWS * INNER], w[INNER * COLS], b[COLS];
  sample_fill(in, ROWS * INNER, 1), sample_fill(w, INNER * COLS, 2), sample_fill(b, COLS, 3);
  const ir_program *p = sample_program(ctx, w, b);
  const cu_target *t = cu_target_find(ctx, "sm_80");
  const rt_cuda_plan *plan = rt_cuda_plan_make(ctx, p, t, NULL);
  setenv("FAKE_CUDA", "sm=80", 1);
  rt_cuda_device *d = rt_cuda_device_open(ctx, t, 0);
  rt_cuda_module *m = rt_cuda_module_new(ctx, d, plan);
  typedef struct outputs {
    float y[ROWS * COLS], z[ROWS * COLS];
    int64_t top[ROWS], steps[3];
  } outputs;
  static _Alignas(64) char state[3][64];
  static outputs o[3];
  for (int k = 0; k < 3; k++) rt_state_start(p, state[k]);
  for (int turn = 0; turn < 3; turn++) {
    for (int k = 0; k < 3; k++) {
      void *out[] = {o[k].y, o[k].z, o[k].top, o[k].steps};
      if (k == 0) rt_program_interp(ctx, p, (const void *[]){in}, out, NULL, state[k], NULL);
      else if (k == 1) rt_cuda_run(ctx, m, (const void *[]){in}, out, NULL, NULL, state[k]);
      else rt_cuda_plan_emulate(ctx, plan, (const void *[]){in}, out, NULL, state[k], 3);
    }
    if (o[0].steps[0] != 5 * (turn + 1)) ir_fail(ctx, TN_EWRONG, "turn %d: %lld steps", turn, (long long)o[0].steps[0]);
    for (int k = 1; k < 3; k++) {
      if (memcmp(o[0].top, o[k].top, sizeof o[0].top) || memcmp(o[0].steps, o[k].steps, sizeof o[0].steps)) ir_fail(ctx, TN_EWRONG, "turn %d, %d: other numbers", turn, k);
      for (int i = 0; i < ROWS * COLS; i++)
        if (!(fabsf(o[0].z[i] - o[k].z[i]) <= 1e-5f && fabsf(o[0].y[i] - o[k].y[i]) <= 1e-5f)) ir_fail(ctx, TN_EWRONG, "turn %d, %d: element %d", turn, k, i);
    }
  }
  rt_cuda_module_free(m);
  rt_cuda_device_close(d);
}

Test(cuda_walk, states) {
  if (!have_compiler()) return;
  start("");
  run(sample, NULL, NULL);
  finish();
}

/* ---- a batch of any size ---- */

/* Attention over 12 places, then three numbers for each of the batch: 12 bytes, which kernels cannot take where they lie. */
static const char batch[] =
    "graph b { opset 17 dim N input x: f32[N, 12, 32] const z: i64[] = 0 const e: i64[] = 1024 const one: i64[] = 1 const k: f32[] = 0.2 const sh: i64[2] = [32, 32] const split: i64[4] = [0, 12, 2, 16]"
    " const join: i64[3] = [0, 12, 32] const root: f32[] = 4.0 const first: i64[] = 0 const e2: i64[] = 96 const sh2: i64[2] = [32, 3] i = Range(z, e, one) f = Cast(i) {to = 1} s = Sin(f) m = Mul(s, k)"
    " w = Reshape(m, sh) q = MatMul(x, w) qh = Reshape(q, split) qt = Transpose(qh) {perm = [0, 2, 1, 3]} kt = Transpose(qh) {perm = [0, 2, 3, 1]} sc = MatMul(qt, kt) sd = Div(sc, root) p = Softmax(sd)"
    " o = MatMul(p, qt) ot = Transpose(o) {perm = [0, 2, 1, 3]} oj = Reshape(ot, join) r = Add(oj, x) g0 = Gather(r, first) {axis = 1} i2 = Range(z, e2, one) f2 = Cast(i2) {to = 1} s2 = Sin(f2)"
    " w2 = Reshape(s2, sh2) y = MatMul(g0, w2) output y, r }";

enum { MOST = 9, ITEM = 12 * 32, FENCE = 4 };

typedef struct outputs {
  float y[3 * MOST + FENCE], r[ITEM * MOST + FENCE];
} outputs;

static void compare_batch(tn_ctx *ctx, const outputs *want, const outputs *have, int64_t n) {
  for (int64_t i = 0; i < 3 * MOST + FENCE; i++)
    if (!(fabsf(want->y[i] - have->y[i]) <= 1e-4f)) ir_fail(ctx, TN_EWRONG, "batch of %lld: y[%lld] is %g, not %g", (long long)n, (long long)i, have->y[i], want->y[i]);
  for (int64_t i = 0; i < ITEM * MOST + FENCE; i++)
    if (!(fabsf(want->r[i] - have->r[i]) <= 1e-4f)) ir_fail(ctx, TN_EWRONG, "batch of %lld: r[%lld] is %g, not %g", (long long)n, (long long)i, have->r[i], want->r[i]);
}

static void clear(outputs *o) {
  for (int i = 0; i < 3 * MOST + FENCE; i++) o->y[i] = 7;
  for (int i = 0; i < ITEM * MOST + FENCE; i++) o->r[i] = 7;
}

static ir_program *batch_program(tn_ctx *ctx) {
  ir_graph *g = ir_graph_parse(ctx, batch, "batch");
  ir_graph_sort(g);
  lw_dim dim = {.name = "N", .lo = 1, .hi = MOST, .range = true, .n = 2, .sizes = (int64_t[]){1, 4}};
  lw_options o = rt_cuda_lowering(ctx, LW_LAYOUT_AUTO);
  return rt_cuda_lower_sizes(ctx, g, 1, &dim, &o);
}

static void batches(tn_ctx *ctx, void *arg) {
  static outputs o[3];
  static float in[ITEM * MOST];
  for (int i = 0; i < ITEM * MOST; i++) in[i] = (float)(i * 29 % 97) / 48 - 1;
  ir_program *p = batch_program(ctx);
  const char *wrong = ir_program_verify(ctx, p);
  if (wrong) ir_fail(ctx, TN_EWRONG, "%s", wrong);
  const cu_target *t = cu_target_find(ctx, "sm_90a");
  const rt_cuda_plan *plan = rt_cuda_plan_make(ctx, p, t, NULL);
  rt_cuda_device *d = rt_cuda_device_open(ctx, t, 0);
  rt_cuda_module *m = rt_cuda_module_new(ctx, d, plan);
  for (int64_t turn = 0; turn < 3 * MOST; turn++) {
    int64_t n = turn * 5 % MOST + 1;
    for (int k = 0; k < 3; k++) {
      void *out[] = {o[k].y, o[k].r};
      clear(&o[k]);
      if (k == 0) rt_program_interp(ctx, p, (const void *[]){in}, out, NULL, NULL, &(rt_interp_options){.dims = &n});
      else if (k == 1) rt_cuda_run(ctx, m, (const void *[]){in}, out, &n, NULL, NULL);
      else if (turn % 4 == 0) rt_cuda_plan_emulate(ctx, plan, (const void *[]){in}, out, &n, NULL, 3);
      else continue;
      if (k) compare_batch(ctx, &o[0], &o[k], n);
    }
  }
  rt_cuda_module_free(m);
  rt_cuda_device_close(d);
}

Test(cuda_walk, batches) {
  if (!have_compiler()) return;
  start("");
  run(batches, NULL, NULL);
  finish();
}

static void other_batch(tn_ctx *ctx, void *arg) {
  ir_graph *g = ir_graph_parse(ctx, batch, "batch");
  ir_graph_sort(g);
  lw_dim dim = {.name = "N", .lo = 2, .hi = 4, .n = 2, .sizes = (int64_t[]){2, 4}};
  lw_options o = rt_cuda_lowering(ctx, LW_LAYOUT_AUTO);
  const rt_cuda_plan *plan = rt_cuda_plan_make(ctx, rt_cuda_lower_sizes(ctx, g, 1, &dim, &o), cu_target_find(ctx, "sm_80"), &(rt_cuda_options){.no_compile = true});
  rt_cuda_plan_emulate(ctx, plan, (const void *[]){NULL}, (void *[]){NULL, NULL}, arg, NULL, 3);
}

Test(cuda_walk, sizes_that_are_none) {
  run(other_batch, &(int64_t){3}, "out of its range");
  run(other_batch, NULL, "no value");
}

/* ---- objects ---- */

/* Runs the object of `program` for sizes first, first + step, ... below end, three times each, in two turns, and writes the last outputs of each one
 * behind the other. */
static const char app[] =
    "#include \"net.h\"\n#include <dlfcn.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n"
    "static void *getproc(void *lib, const char *name) { return dlsym(lib, name); }\n"
    "int main(int argc, char **argv) {\n"
    "  void *lib = dlopen(argv[1], RTLD_NOW), *arena = aligned_alloc(64, (NET_ARENA_BYTES(1) + 63) / 64 * 64);\n"
    "  net_cuda cuda = {lib, getproc, 0};\n"
    "  static char x[NET_INPUT_BYTES_LAST], a[NET_OUTPUT_0_BYTES + 16], b[NET_OUTPUT_1_BYTES + 16];\n"
    "  FILE *f = fopen(\"x.bin\", \"rb\"), *out = fopen(\"out.bin\", \"wb\");\n"
    "  if (argc != 5 || !lib || !arena || !f || !out || fread(x, 1, sizeof x, f) != sizeof x) return 99;\n"
    "  memset(arena, 0, NET_ARENA_BYTES(1));\n"
    "  int e = 0;\n"
    "  for (int turn = 0; turn < 2; turn++, rewind(out))\n"
    "  for (int64_t n = atoi(argv[2]); n < atoi(argv[3]) && !e; n += atoi(argv[4])) {\n"
    "    int64_t shapes[NET_NUM_OUT_DIMS];\n"
    "    void *outs[] = {a, b};\n"
    "#if NET_NUM_DIMS\n"
    "    const void *ins[] = {x};\n"
    "    int64_t wrong = NET_DIM_0_MAX + 1;\n"
    "    if (net_run(ins, outs, NULL, NULL, NULL, NULL, arena, &cuda) != NET_E_ARG || net_run(ins, outs, &wrong, NULL, NULL, NULL, arena, &cuda) != NET_E_DIMS) return 98;\n"
    "#else\n"
    "    const void *ins[] = {&n, x};\n"
    "#endif\n"
    "    for (int i = 0; i < 3 && !e; i++) {\n"
    "      memset(a, 7, sizeof a), memset(b, 7, sizeof b);\n"
    "      e = net_run(ins, outs, &n, shapes, NULL, NULL, arena, &cuda);\n"
    "    }\n"
    "    if (!e && shapes[0] != (NET_NUM_DIMS || NET_FOUND ? n : NET_OUTPUT_0_DIM_0)) return 97;\n"
    "    fwrite(a, 1, sizeof a, out), fwrite(b, 1, sizeof b, out);\n"
    "  }\n"
    "  printf(\"run %d, driver %d\\n\", e, net_error(arena));\n"
    "  net_close(arena);\n"
    "  fclose(out);\n"
    "  int (*held)(void) = (int (*)(void))dlsym(lib, \"fakeHeld\");\n"
    "  return held && held() ? 96 : e;\n"
    "}\n";

static void write_file(const char *name, const void *data, size_t bytes) {
  char path[256];
  snprintf(path, sizeof path, "%s/%s", dir, name);
  FILE *f = fopen(path, "wb");
  cr_assert(f && fwrite(data, 1, bytes, f) == bytes && fclose(f) == 0);
}

/* found: the first extent of the first output is what input 0 says. */
static void build_app_found(tn_ctx *ctx, const ir_program *p, int n, const void *in, size_t bytes, bool found) {
  const cu_target *targets[] = {cu_target_find(ctx, "sm_90a"), cu_target_find(ctx, "sm_80")};
  const rt_cuda_plan *plans[2];
  for (int i = 0; i < n; i++) plans[i] = rt_cuda_plan_make(ctx, p, targets[i], NULL);
  rt_object_options o = {.files = {.path = ir_format(ctx, "%s/net.o", dir), .header = ir_format(ctx, "%s/net.h", dir), .prefix = "net", .weights = CG_WEIGHTS_EMBED}};
  rt_cuda_write_object(ctx, n, plans, &o);
  write_file("x.bin", in, bytes);
  write_file("app.c", app, sizeof app - 1);
  SH("cc -std=gnu11 -Wall -Wextra -Werror -O1 -DNET_INPUT_BYTES_LAST=%zu -DNET_FOUND=%d -I. app.c net.o -o app -ldl", bytes, found);
  SH("test \"$(nm -g --defined-only net.o | awk '{print $3}' | sort | xargs)\" = 'net_close net_error net_run'");
}

static void build_app(tn_ctx *ctx, const ir_program *p, int n, const void *in, size_t bytes) { build_app_found(ctx, p, n, in, bytes, false); }

/* What the program wrote for the k-th size. */
static void read_outputs(int k, void *a, size_t na, void *b, size_t nb) {
  char path[256];
  snprintf(path, sizeof path, "%s/out.bin", dir);
  FILE *f = fopen(path, "rb");
  cr_assert(f && fseek(f, (long)((size_t)k * (na + nb + 32)), SEEK_SET) == 0 && fread(a, 1, na, f) == na && fseek(f, 16, SEEK_CUR) == 0 && fread(b, 1, nb, f) == nb);
  fclose(f);
}

static void run_app(tn_ctx *ctx, const char *fake, int first, int end, int step, const char *says) {
  char out[512];
  sh(out, sizeof out, "FAKE_CUDA=%s ./app %s/tests/fake/libcuda.so %d %d %d", fake, TN_BUILD_DIR, first, end, step);
  if (!strstr(out, says)) ir_fail(ctx, TN_EWRONG, "'%s', not '%s'", out, says);
}

static void decisions_in_an_object(tn_ctx *ctx, void *arg) {
  ir_program *p = ir_program_parse(ctx, text, "walk");
  build_app(ctx, p, 2, x, sizeof x);
  for (int sm = 80; sm <= 90; sm += 10) {
    run_app(ctx, sm == 80 ? "sm=80" : "", 0, X_ROWS + 1, 8, "run 0, driver 0");
    for (int64_t n = 0; n <= X_ROWS; n += 8) {
      result want, have;
      rt_program_interp(ctx, p, (const void *[]){&n, x}, (void *[]){want.y, want.s}, NULL, NULL, NULL);
      read_outputs((int)n / 8, have.y, sizeof have.y, have.s, sizeof have.s);
      same_result(ctx, &want, &have, n);
    }
  }
  run_app(ctx, "fail=cuGraphLaunch", 0, X_ROWS + 1, 8, "run 0, driver 0"); /* what decides has none */
  run_app(ctx, "trap=5", 0, X_ROWS + 1, 8, "run 9, driver 719");
  run_app(ctx, "fail=cuMemcpyDtoHAsync_v2", 0, 1, 1, "run 9, driver");
}

/* A loop and an If of ONNX, whose numbers the device computes. */
static const char loop[] =
    "graph loop { opset 17 input n: i64[] input x: f32[80, 24] const w: f32[24, 24] = [WEIGHTS] const yes: bool[] = true const zero: i64[2] = [0, 0] const h: f32[] = 3.0"
    " y, s = Loop(n, yes, x, zero) { body = graph b { input i: i64[] input c: bool[] input u: f32[80, 24] input t: i64[2]"
    "  e = ReduceMax(u) {keepdims = 0} g = Less(e, h) v = If(g) { then_branch = graph p { a = MatMul(u, w) a1 = Add(a, u) output a1 }, else_branch = graph q { a2 = Mul(u, u) output a2 } }"
    "  k = Add(t, i) m = Greater(e, e) l = Not(m) output l, v, k } } o = ReduceSum(y, ax) {keepdims = 0} const ax: i64[1] = [1] output o, s }";

static ir_program *loop_program(tn_ctx *ctx) {
  ir_text weights = {.ctx = ctx};
  for (int i = 0; i < 24 * 24; i++) ir_put(&weights, "%s%.6f", i ? ", " : "", (i * 7 % 23 - 11) / 64.0);
  const char *at = strstr(loop, "WEIGHTS");
  ir_graph *g = ir_graph_parse(ctx, ir_format(ctx, "%.*s%s%s", (int)(at - loop), loop, ir_text_str(&weights), at + 7), "loop");
  ir_graph_sort(g);
  return rt_cuda_lower(ctx, g, LW_LAYOUT_AUTO);
}

static void loop_on_a_device(tn_ctx *ctx, void *arg) {
  ir_program *p = loop_program(ctx);
  const cu_target *t = cu_target_find(ctx, "sm_90a");
  const rt_cuda_plan *plan = rt_cuda_plan_make(ctx, p, t, NULL);
  rt_cuda_device *d = rt_cuda_device_open(ctx, t, 0);
  rt_cuda_module *m = rt_cuda_module_new(ctx, d, plan);
  build_app(ctx, p, 1, x, sizeof x);
  run_app(ctx, "", 0, 6, 2, "run 0, driver 0");
  for (int64_t turn = 0; turn < 6; turn++) {
    int64_t n = turn % 3 * 2;
    result o[3];
    rt_program_interp(ctx, p, (const void *[]){&n, x}, (void *[]){o[0].y, o[0].s}, NULL, NULL, NULL);
    rt_cuda_run(ctx, m, (const void *[]){&n, x}, (void *[]){o[1].y, o[1].s}, NULL, NULL, NULL);
    read_outputs((int)n / 2, o[2].y, sizeof o[2].y, o[2].s, sizeof o[2].s);
    if (o[0].s[0] != n * (n - 1) / 2) ir_fail(ctx, TN_EWRONG, "%lld turns: a sum of %lld", (long long)n, (long long)o[0].s[0]);
    for (int k = 1; k < 3; k++) {
      if (o[k].s[0] != o[0].s[0] || o[k].s[1] != o[0].s[1]) ir_fail(ctx, TN_EWRONG, "%lld turns, %d: other numbers", (long long)n, k);
      for (int i = 0; i < X_ROWS; i++)
        if (!(fabsf(o[k].y[i] - o[0].y[i]) <= 1e-4f * (1 + fabsf(o[0].y[i])))) ir_fail(ctx, TN_EWRONG, "%lld turns, %d: element %d is %g, not %g", (long long)n, k, i, (double)o[k].y[i], (double)o[0].y[i]);
    }
  }
  rt_cuda_module_free(m);
  rt_cuda_device_close(d);
}

/* What a loop collects in as many turns as a run says, at most 5: the extent comes with it. */
static const char collects[] =
    "graph collects { opset 17 input n: i64[] input x: f32[2, 3] const most: i64[] = 5 const yes: bool[] = true m = Min(n, most)"
    " y, r = Loop(m, yes, x) { body = graph b { input i: i64[] input c: bool[] input u: f32[2, 3] v = Add(u, u) l = Identity(c) output l, v, v } } output r, y }";

static void collected_on_a_device(tn_ctx *ctx, void *arg) {
  float x[6] = {1, 2, 3, 4, 5, 6};
  ir_graph *g = ir_graph_parse(ctx, collects, "collects");
  ir_graph_sort(g);
  ir_program *p = rt_cuda_lower(ctx, g, LW_LAYOUT_AUTO);
  const cu_target *t = cu_target_find(ctx, "sm_90a");
  const rt_cuda_plan *plan = rt_cuda_plan_make(ctx, p, t, NULL);
  rt_cuda_device *d = rt_cuda_device_open(ctx, t, 0);
  rt_cuda_module *m = rt_cuda_module_new(ctx, d, plan);
  build_app_found(ctx, p, 1, x, sizeof x, true);
  run_app(ctx, "", 0, 6, 1, "run 0, driver 0");
  for (int64_t n = 0; n < 8; n++) {
    int64_t turns = n < 5 ? n : 5, extents[5] = {-1, -1, -1, -1, -1};
    float rows[2][5][6], last[2][6];
    rt_cuda_run(ctx, m, (const void *[]){&n, x}, (void *[]){rows[0], last[0]}, NULL, extents, NULL);
    if (extents[0] != turns || extents[1] != 2 || extents[2] != 3 || extents[3] != 2 || extents[4] != 3) ir_fail(ctx, TN_EWRONG, "%lld turns are %lld rows", (long long)n, (long long)extents[0]);
    if (n < 6) read_outputs((int)n, rows[1], sizeof rows[1], last[1], sizeof last[1]);
    for (int k = 0; k < (n < 6 ? 2 : 1); k++)
      for (int i = 0; i < 6; i++) {
        for (int64_t r = 0; r < turns; r++)
          if (rows[k][r][i] != x[i] * (float)(2 << r)) ir_fail(ctx, TN_EWRONG, "%lld turns, %d: row %lld has %g", (long long)n, k, (long long)r, (double)rows[k][r][i]);
        if (last[k][i] != x[i] * (float)(1 << turns)) ir_fail(ctx, TN_EWRONG, "%lld turns, %d: at last %g", (long long)n, k, (double)last[k][i]);
      }
  }
  rt_cuda_module_free(m);
  rt_cuda_device_close(d);
}

Test(cuda_walk, loops) {
  if (!have_compiler()) return;
  start("");
  run(loop_on_a_device, NULL, NULL);
  run(collected_on_a_device, NULL, NULL);
  finish();
}

static void sizes_in_an_object(tn_ctx *ctx, void *arg) {
  static outputs want, have;
  static float in[ITEM * MOST];
  for (int i = 0; i < ITEM * MOST; i++) in[i] = (float)(i * 29 % 97) / 48 - 1;
  ir_program *p = batch_program(ctx);
  build_app(ctx, p, 1, in, sizeof in);
  run_app(ctx, "fail=cuGraphLaunch", 1, 2, 1, "run 9, driver 999"); /* there is a graph */
  run_app(ctx, "fail=cuGraphInstantiateWithFlags", 1, 2, 1, "run 0, driver 0");
  run_app(ctx, "", 1, MOST + 1, 1, "run 0, driver 0"); /* of more sizes than graphs are kept for */
  for (int64_t n = 1; n <= MOST; n++) {
    clear(&want), clear(&have);
    rt_program_interp(ctx, p, (const void *[]){in}, (void *[]){want.y, want.r}, NULL, NULL, &(rt_interp_options){.dims = &n});
    read_outputs((int)n - 1, have.y, 12 * MOST, have.r, 4 * ITEM * MOST);
    static const char untouched[4] = {7, 7, 7, 7};
    for (int64_t i = 3 * n; i < 3 * MOST + FENCE; i++) want.y[i] = have.y[i] = i < 3 * MOST && memcmp(&have.y[i], untouched, 4) ? NAN : 7;
    for (int64_t i = ITEM * n; i < ITEM * MOST + FENCE; i++) want.r[i] = have.r[i] = i < ITEM * MOST && memcmp(&have.r[i], untouched, 4) ? NAN : 7;
    compare_batch(ctx, &want, &have, n);
  }
}

Test(cuda_walk, objects) {
  if (!have_compiler()) return;
  start("");
  run(decisions_in_an_object, NULL, NULL);
  run(sizes_in_an_object, NULL, NULL);
  SH("rm -rf %s", dir);
}
