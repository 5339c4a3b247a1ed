/* cli_cuda_layout.c — in which layout a whole model is the fastest on a GPU.
 *
 * Kernels alone do not tell: a layout also decides which transposes stand between them, and which of a library's plans
 * there are. So both programs lie on the device and run in turn. */
#include "autotune/stats.h"
#include "frontend/cli_whole.h"
#include <string.h>

enum { RUNS = 15 };

const char *const cli_cuda_layout[CLI_CUDA_LAYOUTS] = {"NHWC", "NCHW"};

static const char WHOLE[] = "whole run";

typedef struct run {
  cli with;
  const char *path;
  const cli_cuda_race_options *o;
  double *ms;
} run;

static void time_runs(tn_ctx *ctx, void *arg) {
  run *r = arg;
  const cli_cuda_race_options *o = r->o;
  cli_model *m[CLI_CUDA_LAYOUTS];
  double samples[CLI_CUDA_LAYOUTS][RUNS];
  rt_cuda_device *d = rt_cuda_device_open(ctx, o->target, 0);
  r->with.ctx = ctx;
  r->with.engine = CLI_CUDA;
  for (int i = 0; i < CLI_CUDA_LAYOUTS; i++) {
    r->with.layout = cli_cuda_layout[i];
    m[i] = cli_load(&r->with, r->path);
    m[i]->cuda = IR_NEW(ctx, fe_cuda);
    *m[i]->cuda = (fe_cuda){.target = o->target, .device = d};
    cli_lower_cuda(&r->with, m[i], o->target);
    cli_fill(&r->with, m[i]);
    cli_start(&r->with, m[i]);
    o->starts(o->user, WHOLE, cli_cuda_layout[i]);
    cli_run_once(&r->with, m[i]);
    rt_cuda_time(ctx, m[i]->cuda->module, 1);
    o->starts(o->user, "", "");
  }
  for (int k = 0; k < RUNS; k++)
    for (int i = 0; i < CLI_CUDA_LAYOUTS; i++) samples[i][k] = rt_cuda_time(ctx, m[i]->cuda->module, 1);
  for (int i = 0; i < CLI_CUDA_LAYOUTS; i++) {
    r->ms[i] = at_stats_of(samples[i], RUNS).median;
    rt_cuda_module_free(m[i]->cuda->module);
  }
  rt_cuda_device_close(d);
}

cli_cuda_race cli_cuda_layouts(const cli *c, const char *path, const cli_cuda_race_options *o) {
  cli_cuda_race r = {0};
  for (int i = 0; i < o->nstuck; i++)
    if (strcmp(o->stuck[i].kernel, WHOLE) == 0) return (cli_cuda_race){.why = "a whole run did not end"};
  run arg = {.with = *c, .path = path, .o = o, .ms = r.ms};
  tn_ctx *child = ir_ctx_child(c->ctx);
  if (!child) ir_fail(c->ctx, TN_ERESOURCE, "out of memory");
  tn_status s = ir_protect(child, time_runs, &arg);
  if (s) r = (cli_cuda_race){.why = ir_strdup(c->ctx, ir_error(child))};
  else r.known = true, r.chosen = cli_cuda_layout[r.ms[1] < 0.99 * r.ms[0]];
  tn_ctx_free(child);
  o->starts(o->user, "", "");
  return r;
}

void cli_cuda_keep_layout(const cli *c, const char *path, at_store *store, const cli_cuda_race_options *o, const cli_cuda_race *r) {
  cli with = *c;
  if (!r->known) return;
  cli_model *m = cli_load(&with, path);
  cli_bind_sizes(&with, m);
  at_key key = at_cuda_layout_key(c->ctx, m->graph, o->target, cli_accuracy(&with));
  double least = r->ms[0] < r->ms[1] ? r->ms[0] : r->ms[1];
  for (int i = 0; i < CLI_CUDA_LAYOUTS; i++) { /* as many samples each time: then the latest counts */
    double ns = r->ms[i] * 1e6;
    at_trial row = {.key = key, .klass = "layout", .name = path, .schedule = ir_format(c->ctx, "layout %s\n", cli_cuda_layout[i]), .origin = WHOLE, .samples = &ns, .n = 1};
    row.cost_ns = strcmp(cli_cuda_layout[i], r->chosen) == 0 ? 1e6 * least : 1.001 * (ns > 1e6 * least ? ns : 1e6 * least);
    at_store_add_trials(store, NULL, &row, 1);
  }
}
