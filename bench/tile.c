/* tile.c — GFLOP/s of register tiles in the first-level cache, against the peak of the
 * fused multiply-add units as a loop without memory shows it.
 *
 *   bench_tile [--cpu NAME]      one line per tile MR x NR vectors, K = 256
 */
#include "codegen/codegen.h"
#include "codegen/jit.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef void (*kernel_fn)(void *const *args, int32_t task, int32_t worker);

enum { K = 256 };

static const char tile_text[] =
    "kernel tile(in A: f32[%d, 256], in Bm: f32[256, %d], out C: f32[%d, %d]) {\n"
    "  alloc acc: f32[%d, %d] register\n"
    "  for i in 0..%d unroll { for jo in 0..%d unroll { for ji in 0..%d vector { acc[i, jo*%d+ji] = 0.0 } } }\n"
    "  for k in 0..256 { for i2 in 0..%d unroll { for jo2 in 0..%d unroll { for ji2 in 0..%d vector {\n"
    "    acc[i2, jo2*%d+ji2] = fma(A[i2, k], Bm[k, jo2*%d+ji2], acc[i2, jo2*%d+ji2]) } } } }\n"
    "  for i3 in 0..%d unroll { for jo3 in 0..%d unroll { for ji3 in 0..%d vector { C[i3, jo3*%d+ji3] = acc[i3, jo3*%d+ji3] } } }\n"
    "}\n";

/* 12 chains cover latency times throughput of every core so far. */
static const char probe_text[] =
    "kernel probe(inout C: f32[12, %d]) {\n"
    "  alloc acc: f32[12, %d] register\n"
    "  for i in 0..12 unroll { for j in 0..%d vector { acc[i, j] = C[i, j] } }\n"
    "  for k in 0..4096 { for i2 in 0..12 unroll { for j2 in 0..%d vector { acc[i2, j2] = fma(acc[i2, j2], 0.5, 0.25) } } }\n"
    "  for i3 in 0..12 unroll { for j3 in 0..%d vector { C[i3, j3] = acc[i3, j3] } }\n"
    "}\n";

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Best of many short runs, in seconds per call. */
static double best(kernel_fn fn, void *const *args) {
  double min = 1e30;
  for (int run = 0; run < 40; run++) {
    int calls = 200;
    double start = seconds();
    for (int i = 0; i < calls; i++) fn(args, 0, 0);
    double t = (seconds() - start) / calls;
    if (t < min) min = t;
  }
  return min;
}

static double measure(tn_ctx *ctx, const cg_target *t, const char *text, void *const *args, double flop, int *spills, double *compile) {
  const ir_kernel *k = ir_kernel_parse(ctx, text, "bench");
  const cg_object *o = cg_compile_kernel(ctx, t, k, "k");
  cg_jit *jit = cg_jit_new(ctx);
  cg_jit_add(ctx, jit, o->bytes, o->size);
  double g = flop / best((kernel_fn)cg_jit_symbol(ctx, jit, "k"), args) * 1e-9;
  cg_jit_free(ctx, jit);
  *spills = cg_count_spills(cg_kernel_asm(ctx, t, k, "k"));
  *compile = o->seconds;
  return g;
}

static void bench(tn_ctx *ctx, void *arg) {
  const cg_target *t = cg_target_find(ctx, arg, NULL);
  int w = cg_target_lanes(t, TN_F32), spills;
  float *room = aligned_alloc(64, 1 << 20);
  double compile;
  char text[4000];
  memset(room, 0, 1 << 20);
  ir_defer(ctx, free, room);
  snprintf(text, sizeof text, probe_text, w, w, w, w, w);
  double peak = measure(ctx, t, text, (void *[]){room, NULL}, 2.0 * 12 * w * 4096, &spills, &compile);
  printf("%s: %d lanes, multiply-add peak %.1f GFLOP/s\n", t->cpu, w, peak);
  int sizes[][2] = {{14, 2}, {12, 2}, {8, 3}, {6, 4}, {28, 1}, {7, 2}, {6, 2}, {4, 3}, {4, 2}, {14, 1}, {1, 4}};
  for (int i = 0; i < IR_COUNT(sizes); i++) {
    int m = sizes[i][0], n = sizes[i][1], nw = n * w;
    if (m * n + n + 1 > t->vector_regs) continue;
    snprintf(text, sizeof text, tile_text, m, nw, m, nw, m, nw, m, n, w, w, m, n, w, w, w, w, m, n, w, w, w);
    void *args[] = {room, room + 16384, room + 65536, NULL};
    double g = measure(ctx, t, text, args, 2.0 * m * nw * K, &spills, &compile);
    printf("%2dx%d  %7.1f GFLOP/s  %5.1f %%  %d spills  compiled in %.1f ms\n", m, n, g, 100 * g / peak, spills, compile * 1e3);
    fflush(stdout);
  }
}

int main(int argc, char **argv) {
  const char *cpu = argc > 2 && strcmp(argv[1], "--cpu") == 0 ? argv[2] : "native";
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_status status = ir_protect(ctx, bench, (void *)cpu);
  if (status) fprintf(stderr, "%s\n", tn_error(ctx));
  tn_ctx_free(ctx);
  return status;
}
