/* tpu.c — how fast the systolic machine is simulated, import and compilation apart.
 *
 *   bench_tpu MODEL.onnx|PROGRAM [--machine NAME] [--rounds N]
 *
 * Prints instructions, cycles and the median times of: checking the program, timing alone, values with
 * times, and that without the search for undefined memory and conflicts. Inputs are zeros.
 */
#include "codegen/tpu_isa.h"
#include "frontend/file.h"
#include "frontend/import.h"
#include "runtime/tpu_build.h"
#include "runtime/tpu_sim.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct options {
  const char *path, *machine;
  int rounds;
} options;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static const tpu_program *program_of(tn_ctx *ctx, const tpu_machine *m, const char *path) {
  const fe_map *f = fe_map_file(ctx, path);
  if (tpu_is_program(f->data, f->size)) return tpu_program_decode(ctx, f->data, f->size, path);
  ir_graph *g = fe_import_model(ctx, fe_onnx_parse(ctx, f->data, f->size, path, NULL), NULL);
  double start = now();
  rt_tpu_build b = rt_tpu_compile(ctx, g, m, &(rt_tpu_options){.precision = rt_tpu_precision(m), .jobs = 1});
  printf("compiled in %.2f s\n", now() - start);
  return b.tpu;
}

typedef struct timed {
  const tpu_machine *m;
  const tpu_program *p;
  const tpu_sim_options *o; /* null: the check alone */
  const void **in;
  void **out;
} timed;

static void once(tn_ctx *ctx, void *arg) {
  timed *t = arg;
  if (t->o) tpu_simulate(ctx, t->m, t->p, t->o, t->in, t->out, NULL);
  else if (tpu_program_check(ctx, t->m, t->p)) ir_fail(ctx, TN_EINPUT, "the program is not sound");
}

static void measure(tn_ctx *ctx, timed t, int rounds, const char *what) {
  double *s = IR_NEW_ARRAY(ctx, double, rounds);
  for (int k = 0; k < rounds; k++) {
    tn_ctx *own = ir_ctx_like(ctx); /* its memory goes with each run */
    double start = now();
    tn_status status = own ? ir_protect(own, once, &t) : TN_ERESOURCE;
    s[k] = now() - start;
    if (status != TN_OK) ir_fail(ctx, status, "%s", own ? ir_error(own) : "out of memory");
    tn_ctx_free(own);
  }
  qsort(s, (size_t)rounds, sizeof *s, by_value);
  printf("%-32s %10.3f ms (least %.3f)\n", what, 1e3 * s[rounds / 2], 1e3 * s[0]);
}

static void run(tn_ctx *ctx, void *arg) {
  const options *o = arg;
  const tpu_machine *m = tpu_machine_find(ctx, o->machine);
  timed t = {.m = m, .p = program_of(ctx, m, o->path)};
  t.in = IR_NEW_ARRAY(ctx, const void *, t.p->nsegments + 1);
  t.out = IR_NEW_ARRAY(ctx, void *, t.p->nsegments + 1);
  for (int k = 0; k < t.p->nsegments; k++) {
    const tpu_segment *s = &t.p->segments[k];
    if (s->kind == TPU_SEG_INPUT) t.in[s->index] = ir_alloc(ctx, (size_t)s->bytes + 1);
    if (s->kind == TPU_SEG_OUTPUT) t.out[s->index] = ir_alloc(ctx, (size_t)s->bytes + 1);
  }
  tpu_sim_options times = {.no_values = true}, values = {0}, bare = {.no_checks = true};
  const tpu_result *r = tpu_simulate(ctx, m, t.p, &times, NULL, NULL, NULL);
  printf("%s: %lld instructions, %lld cycles, %.3f ms at the machine's clock, %.1f %% of its array\n", m->name, (long long)r->all.instructions,
         (long long)r->cycles, 1e3 * r->seconds, 100 * r->utilization);
  measure(ctx, t, o->rounds, "check of the program");
  t.o = &times;
  measure(ctx, t, o->rounds, "times");
  t.o = &values;
  measure(ctx, t, o->rounds < 5 ? o->rounds : 5, "values and times");
  t.o = &bare;
  measure(ctx, t, o->rounds < 5 ? o->rounds : 5, "values and times, unchecked");
}

int main(int argc, char **argv) {
  options o = {.machine = "tpu-v4-core", .rounds = 15};
  for (int k = 1; k < argc; k++) {
    if (strcmp(argv[k], "--machine") == 0 && k + 1 < argc) o.machine = argv[++k];
    else if (strcmp(argv[k], "--rounds") == 0 && k + 1 < argc) o.rounds = atoi(argv[++k]);
    else o.path = argv[k];
  }
  if (!o.path || o.rounds < 1) {
    fprintf(stderr, "usage: bench_tpu MODEL.onnx|PROGRAM [--machine NAME] [--rounds N]\n");
    return 2;
  }
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_status s = ctx ? ir_protect(ctx, run, &o) : TN_ERESOURCE;
  if (s != TN_OK) fprintf(stderr, "bench_tpu: %s\n", ctx ? tn_error(ctx) : "out of memory");
  tn_ctx_free(ctx);
  return s;
}
