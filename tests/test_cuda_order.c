/* test_cuda_order.c — copies beside kernels on the fake driver, whose streams go on in many orders (fake_cuda_streams.c): whatever
 * an event does not order shows as a wrong result in one of them. Late inputs, early outputs, an input changed in place, states, weights,
 * tensors of more than the pinned pieces hold; run after run with other data on one module, from pageable and from pinned memory. */
#include "aot/shell.h"
#include "ir/text.h"
#include "runtime/cuda_lib.h"
#include "runtime/cuda_run.h"
#include "runtime/exec.h"
#include "runtime/program_interp.h"
#include "support_cuda.h"

/* Of five steps; b is touched by the second one first, x by the third, v by the fourth; y is there after the first, z after the second, although the
 * fourth reads it; w after the third, v and the state after the fourth, u at last. */
static const char text[] =
    "program order {\n"
    "  bytes weights 0 arena 256 state 64 pack_arena 0 live_peak 0\n"
    "  counts inputs 4 outputs 4 raw 0\n"
    "  slot a: f32[64] input 0 bytes 256\n"
    "  slot b: f32[64] input 1 bytes 256\n"
    "  slot v: f32[64] input 2 inout bytes 256\n"
    "  slot x: f32[1300000] input 3 bytes 5200000\n"
    "  slot y: f32[64] output 0 bytes 256\n"
    "  slot z: f32[64] output 1 bytes 256\n"
    "  slot w: f32[1300000] output 2 bytes 5200000\n"
    "  slot u: f32[64] output 3 bytes 256\n"
    "  slot t: f32[64] arena @0 bytes 256\n"
    "  slot s: f32[16] state @0 bytes 64\n"
    "  kernel one(in a: f32[64], out y: f32[64], out t: f32[64]) { for i in 0 .. 64 { y[i] = a[i] * 2.0\n t[i] = a[i] + 1.0 } }\n"
    "  kernel two(in b: f32[64], inout t: f32[64], out z: f32[64]) { for i in 0 .. 64 { z[i] = b[i] + t[i]\n t[i] = t[i] * b[i] } }\n"
    "  kernel three(in z: f32[64], inout v: f32[64], inout s: f32[16]) { for i in 0 .. 64 { v[i] = v[i] + z[i] } for j in 0 .. 16 { s[j] = s[j] + z[j] } }\n"
    "  kernel four(in x: f32[1300000], in t: f32[64], in v: f32[64], out u: f32[64]) { for i in 0 .. 64 { u[i] = x[i * 20000] + t[i] * v[i] } }\n"
    "  pack { }\n"
    "  run { call one(a, y, t) call two(b, t, z) copy x -> w call three(z, v, s) call four(x, t, v, u) }\n"
    "}\n";

enum { SMALL = 64, BIG = 1300000 };
typedef struct memory {
  float a[SMALL], b[SMALL], v[SMALL], x[BIG], y[SMALL], z[SMALL], w[BIG], u[SMALL];
  _Alignas(64) float s[16];
} memory;

static void fill(memory *m, int turn) {
  for (int i = 0; i < SMALL; i++) m->a[i] = (float)(i + turn), m->b[i] = (float)(i * 3 % 7 - turn), m->v[i] = (float)(turn - i);
  for (int i = 0; i < BIG; i++) m->x[i] = (float)((i + turn) % 1021);
  memset(m->y, 0xff, (char *)m->s - (char *)m->y);
}

static void start(const char *fake) {
  setenv("FAKE_CUDA", fake, 1);
  setenv("TENON_CUDA_PATH", TN_BUILD_DIR "/tests/fake:" TN_BUILD_DIR "/tests/fake_nvrtc:-", 1);
  setenv("FAKE_NVRTC_DIR", dir, 1);
}

typedef int (*take_pinned)(void **p, size_t n, unsigned flags);
typedef int (*give_pinned)(void *p);

static void run_memory(tn_ctx *ctx, rt_cuda_module *m, memory *h) { rt_cuda_run(ctx, m, (const void *[]){h->a, h->b, h->v, h->x}, (void *[]){h->y, h->z, h->w, h->u}, NULL, NULL, h->s); }


static memory want[3];
static void runs(tn_ctx *ctx, const rt_cuda_plan *plan, bool pinned) {
  static memory own;
  rt_cuda_device *d = rt_cuda_device_open(ctx, plan->target, 0);
  rt_cuda_module *m = rt_cuda_module_new(ctx, d, plan);
  memory *h = &own;
  if (pinned && ((take_pinned)rt_cuda_symbol(RT_CUDA_DRIVER, "cuMemHostAlloc"))((void **)&h, sizeof *h, 0)) ir_fail(ctx, TN_EWRONG, "no pinned memory");
  memset(h->s, 0, sizeof h->s);
  for (int turn = 0; turn < 3; turn++) {
    fill(h, turn);
    run_memory(ctx, m, h);
    const struct { const char *name; const float *have, *want; size_t bytes; } rows[] = {
        {"y", h->y, want[turn].y, sizeof h->y}, {"z", h->z, want[turn].z, sizeof h->z}, {"u", h->u, want[turn].u, sizeof h->u}, {"v", h->v, want[turn].v, sizeof h->v}, {"w", h->w, want[turn].w, sizeof h->w}, {"s", h->s, want[turn].s, sizeof h->s}};
    for (int i = 0; i < IR_COUNT(rows); i++)
      if (memcmp(rows[i].have, rows[i].want, rows[i].bytes)) ir_fail(ctx, TN_EWRONG, "run %d: %s is wrong", turn, rows[i].name);
  }
  if (!(rt_cuda_time(ctx, m, 1) > 0)) ir_fail(ctx, TN_EWRONG, "no time");
  rt_cuda_module_free(m);
  if (pinned) ((give_pinned)rt_cuda_symbol(RT_CUDA_DRIVER, "cuMemFreeHost"))(h);
  rt_cuda_device_close(d);
}

typedef struct order {
  const rt_cuda_plan *plan;
  bool pinned;
} order;
static void one_order(tn_ctx *ctx, void *arg) { runs(ctx, ((order *)arg)->plan, ((order *)arg)->pinned); }

static void all_orders(tn_ctx *ctx, void *arg) {
  ir_program *p = ir_program_parse(ctx, text, "order");
  const char *wrong = ir_program_verify(ctx, p);
  if (wrong) ir_fail(ctx, TN_EWRONG, "%s", wrong);
  static _Alignas(64) float state[16];
  for (int turn = 0; turn < 3; turn++) {
    memory *h = &want[turn];
    fill(h, turn);
    rt_program_interp(ctx, p, (const void *[]){h->a, h->b, h->v, h->x}, (void *[]){h->y, h->z, h->w, h->u}, NULL, state, NULL);
    memcpy(h->s, state, sizeof state);
  }
  rt_cuda_plan *plan = rt_cuda_plan_make(ctx, p, cu_target_find(ctx, "sm_90a"), NULL);
  static const char *const fakes[] = {"order=0", "order=1", "order=2", "order=3", "order=10", "order=11", "order=12", "order=101", "order=102", "order=103", "order=104",
                                      "order=2 nocapture", "order=105 fail=cuMemHostAlloc", "order=1 fail=cuMemHostAlloc"};
  static const int64_t cuts[] = {RT_CUDA_CUT_BYTES, 256, INT64_MAX / 4}; /* one, some, none */
  for (int c = 0; c < IR_COUNT(cuts); c++)
    for (int k = 0; k < 2 * IR_COUNT(fakes); k++) {
      const char *fake = fakes[k / 2];
      plan->cut_bytes = cuts[c];
      if (k % 2 && strstr(fake, "fail")) continue;
      start(fake);
      tn_ctx *own = tn_ctx_new(NULL);
      tn_status s = ir_protect(own, one_order, &(order){plan, k % 2});
      if (s) ir_fail(ctx, s, "%s, %s memory, cuts of %lld bytes: %s", fake, k % 2 ? "pinned" : "pageable", (long long)plan->cut_bytes, tn_error(own));
      tn_ctx_free(own);
    }
}

static int held(void) {
  int (*f)(void) = (int (*)(void))rt_cuda_symbol(RT_CUDA_DRIVER, "fakeHeld");
  return f ? f() : -1;
}

static void check(void (*f)(tn_ctx *ctx, void *arg)) {
  if (system("c++ --version > /dev/null 2>&1")) return;
  folder();
  start("");
  rt_cuda_forget();
  tn_ctx *ctx = tn_ctx_new(NULL);
  cr_assert_eq(ir_protect(ctx, f, NULL), TN_OK, "%.600s", tn_error(ctx));
  cr_assert_eq(held(), 0, "things of the driver are still held");
  tn_ctx_free(ctx);
  SH("rm -rf %s", dir);
}

Test(cuda_order, copies_beside_kernels) { check(all_orders); }

/* Weights go up while a module is made, and nobody waits for them but its kernels; so do others later. */
static void weights(tn_ctx *ctx, void *arg) {
  ir_text graph = {.ctx = ctx};
  ir_put(&graph, "graph g { opset 17 input a: f32[4, 64] const w: f32[64, 48] = [");
  for (int i = 0; i < 64 * 48; i++) ir_put(&graph, "%s%d", i ? ", " : "", i % 13 - 6);
  ir_put(&graph, "] y = MatMul(a, w) output y }");
  ir_graph *g = ir_graph_parse(ctx, ir_text_str(&graph), "weights");
  ir_graph_sort(g);
  ir_program *p = rt_cuda_lower(ctx, g, LW_LAYOUT_AUTO);
  const rt_cuda_plan *plan = rt_cuda_plan_make(ctx, p, cu_target_find(ctx, "sm_90a"), NULL);
  float a[4 * 64], y[4 * 48], right[4 * 48];
  for (int i = 0; i < 4 * 64; i++) a[i] = (float)(i % 5);
  if (!p->weights_bytes) ir_fail(ctx, TN_EWRONG, "there are no weights");
  rt_program_interp(ctx, p, (const void *[]){a}, (void *[]){right}, NULL, NULL, NULL);
  static const char *const fakes[] = {"order=0", "order=1", "order=2", "order=3", "order=10", "order=101", "order=0 fail=cuMemHostAlloc", "order=1 fail=cuMemHostAlloc"};
  for (int k = 0; k < IR_COUNT(fakes); k++) {
    start(fakes[k]);
    rt_cuda_device *d = rt_cuda_device_open(ctx, plan->target, 0);
    rt_cuda_module *m = rt_cuda_module_new(ctx, d, plan);
    for (int turn = 0; turn < 2; turn++) {
      memset(y, 0xff, sizeof y);
      rt_cuda_run(ctx, m, (const void *[]){a}, (void *[]){y}, NULL, NULL, NULL);
      if (memcmp(y, right, sizeof y)) ir_fail(ctx, TN_EWRONG, "%s, run %d: wrong", fakes[k], turn);
      rt_cuda_repack(ctx, m, NULL);
    }
    rt_cuda_module_free(m);
    rt_cuda_device_close(d);
  }
}

Test(cuda_order, weights) { check(weights); }
