/* cli_bench.c — tenon bench: times a model or a kernel. */
#include "autotune/stats.h"
#include "frontend/cli.h"
#include <stdlib.h>
#include <string.h>

enum { MAX_RUNS = 1 << 20, MIN_RUNS = 3, WARM_UP = 3 };

typedef struct samples {
  double *s;
  int n;
} samples;

static void free_samples(void *arg) { free(arg); }

void cli_bench(cli *c, int argc, char **argv) {
  tn_ctx *ctx = c->ctx;
  double seconds = 2;
  bool aot = false;
  cli_list inputs = {0};
  cli_option own[] = {
      {"--seconds", CLI_SECONDS, &seconds, "S", "for how long (default 2)"},
      CLI_TARGET(c),
      {"--aot", CLI_FLAG, &aot, NULL, "the object file, linked by $CC (default cc), instead of the JIT"},
      {"--input", CLI_TEXTS, &inputs, "NAME=FILE", "an input; those not given are random"},
  };
  if (!cli_parse(c, argc, argv, IR_COUNT(own), own, true, 1, 1,
                 "KERNEL: gemm:f32:MxNxK multiplies by a constant, packed B; :var makes B an input, :nt gives\n"
                 "it as N x K; :cold takes other operands each time, beyond the second-level cache. conv:f32:n1c64h56w56k64r3s3u1p1: batch n,\n"
                 "channels c, picture h w, filters k of r s, stride u, padding p, dilation d, groups g.\n"
                 "The times are those of whole runs, on a GPU without copies to and from the host; gflops is of\n"
                 "the fastest.\n")) return;
  cli_model *m = cli_load(c, c->args[0]);
  cli_feed(c, m, &inputs);
  cli_lower(c, m);
  cli_fill(c, m);
  if (aot && c->engine == CLI_CUDA) ir_fail(ctx, TN_EUSAGE, "--aot times objects for this machine, not for a GPU");
  if (aot && c->engine == CLI_INTERP) ir_fail(ctx, TN_EUSAGE, "--aot and --engine interp exclude each other");
  cli_object *object = NULL;
  if (aot) {
    cli_start_threads(c, m);
    object = cli_object_load(c, m);
  } else cli_start(c, m);

  const void **in = IR_NEW_ARRAY(ctx, const void *, m->nin + 1);
  for (int i = 0; i < m->nin; i++) in[i] = m->in[i].data;
  void *state = m->program->state_bytes ? fe_buffer(ctx, m->program->state_bytes) : NULL;
  const rt_threads *threads = rt_pool_threads(m->pool);
  int room = 1 << 16;
  samples x = {.s = malloc(sizeof *x.s * (size_t)room)};
  if (!x.s) ir_fail(ctx, TN_ERESOURCE, "out of memory");
  ir_defer(ctx, free_samples, x.s);
  double begin = rt_now();
  for (int run = -WARM_UP; run < MIN_RUNS || (rt_now() - begin < seconds && x.n < room); run++) {
    if (run < 0 && run > -WARM_UP && rt_now() - begin > seconds / 2) run = 0; /* slow: warm enough */
    if (run == 0) begin = rt_now();
    double start = rt_now();
    int code = 0;
    if (object) code = cli_object_run(object, in, m->out, m->at, state);
    else if (m->module) code = rt_run_sized(m->module, in, m->out, m->at, NULL, state, threads);
    else if (!m->cuda || run < 0) cli_run_once(c, m);
    double took = rt_now() - start;
    if (m->cuda) took = rt_cuda_time(ctx, m->cuda->module, 1) * 1e-3;
    if (code) ir_fail(ctx, code == RT_NO_MEMORY ? TN_ERESOURCE : TN_EINTERNAL, "the run failed: %s", code == RT_NO_MEMORY ? "out of memory" : cg_run_error(code));
    if (run >= 0) x.s[x.n++] = took / m->copies;
  }
  at_stats s = at_stats_of(x.s, x.n);
  double flops;
  cli_estimate(c, m, &flops);
  flops /= m->copies;
  int workers = threads ? threads->workers : 1;
  if (c->json) {
    cli_json j;
    cj_begin(&j, ctx);
    cj_text(&j, "model", m->path);
    cj_text(&j, "engine", object ? "aot" : m->module ? "jit" : m->cuda ? "cuda" : "interp");
    cj_int(&j, "threads", workers);
    cj_text(&j, "target", m->cuda ? m->cuda->target->name : m->target->name);
    if (m->cuda) cj_text(&j, "device", rt_cuda_device_name(m->cuda->device));
    cj_real(&j, "min_ms", s.min * 1e3);
    cj_real(&j, "median_ms", s.median * 1e3);
    cj_real(&j, "mad_ms", s.mad * 1e3);
    cj_int(&j, "runs", s.n);
    cj_real(&j, "gflops", flops / s.min * 1e-9);
    cj_real(&j, "flop", flops);
    cj_int(&j, "copies", m->copies);
    cj_real(&j, "import_s", m->import_s);
    cj_real(&j, "lower_s", m->lower_s);
    cj_real(&j, "compile_s", m->compile_s);
    cj_end(&j, c);
  } else
    fprintf(c->out, "%s: min %s, median %s, mad %s, %d runs, %.1f GFLOP/s (%s, %d thread%s)\n", m->path, cli_time(c, s.min),
            cli_time(c, s.median), cli_time(c, s.mad), s.n, flops / s.min * 1e-9, object ? "object" : m->module ? "jit" : m->cuda ? rt_cuda_device_name(m->cuda->device) : "interpreter",
            workers, workers > 1 ? "s" : "");
  cli_stop(c, m);
}

void cli_profile(cli *c, int argc, char **argv) {
  tn_ctx *ctx = c->ctx;
  const char *trace = NULL;
  int64_t runs = 10, top = 0;
  cli_list inputs = {0};
  cli_option own[] = {
      {"--trace", CLI_TEXT, &trace, "FILE", "writes a Chrome trace (chrome://tracing, Perfetto)"},
      {"--runs", CLI_INT, &runs, "N", "how often it runs (default 10)"},
      {"--top", CLI_INT, &top, "N", "only the longest calls"},
      {"--input", CLI_TEXTS, &inputs, "NAME=FILE", "an input; those not given are random"},
  };
  if (!cli_parse(c, argc, argv, IR_COUNT(own), own, true, 1, 1, NULL)) return;
  if (runs < 1 || runs > 100000) ir_fail(ctx, TN_EUSAGE, "--runs: 1 to 100000");
  if (c->engine == CLI_INTERP) ir_fail(ctx, TN_EUSAGE, "tenon profile runs compiled code only");
  cli_model *m = cli_load(c, c->args[0]);
  cli_feed(c, m, &inputs);
  cli_lower(c, m);
  cli_fill(c, m);
  cli_start(c, m);
  rt_profile *p = cli_profile_run(c, m, (int)runs);
  if (trace) {
    const char *text = rt_profile_trace(ctx, p, m->path);
    fe_write_file(ctx, trace, text, strlen(text));
  }
  if (c->json) {
    rt_profile_row *rows;
    int n = rt_profile_rows(ctx, p, &rows);
    cli_json j;
    cj_begin(&j, ctx);
    cj_text(&j, "model", m->path);
    cj_int(&j, "runs", p->runs);
    cj_text(&j, "trace", trace);
    cj_open(&j, "calls", '[');
    for (int i = 0; i < n; i++) {
      cj_open(&j, NULL, '{');
      cj_text(&j, "name", rows[i].name);
      cj_text(&j, "kernel", rows[i].kernel);
      cj_int(&j, "tasks", rows[i].tasks);
      cj_real(&j, "median_ms", rows[i].median * 1e3);
      cj_real(&j, "min_ms", rows[i].min * 1e3);
      cj_close(&j, '}');
    }
    cj_close(&j, ']');
    cj_end(&j, c);
  } else {
    fputs(rt_profile_table(ctx, p, (int)top), c->out);
    if (trace) fprintf(c->out, "trace: %s\n", trace);
  }
  cli_stop(c, m);
}

rt_profile *cli_profile_run(cli *c, cli_model *m, int runs) {
  tn_ctx *ctx = c->ctx;
  const void **in = IR_NEW_ARRAY(ctx, const void *, m->nin + 1);
  for (int i = 0; i < m->nin; i++) in[i] = m->in[i].data;
  void *state = m->program->state_bytes ? fe_buffer(ctx, m->program->state_bytes) : NULL;
  cli_run_once(c, m); /* warm */
  rt_profile *p = rt_profile_new(ctx);
  for (int i = 0; i < runs; i++) {
    int code = rt_run_profiled(ctx, m->module, in, m->out, m->at, state, rt_pool_threads(m->pool), p);
    if (code) ir_fail(ctx, code == RT_NO_MEMORY ? TN_ERESOURCE : TN_EINTERNAL, "the run failed: %s", code == RT_NO_MEMORY ? "out of memory" : cg_run_error(code));
  }
  return p;
}
