/* cli_tune_cuda.c — tenon tune --target cuda[:ARCH]: schedules by their times on the device. */
#include "autotune/cuda.h"
#include "frontend/cli.h"
#include "runtime/cuda_lib.h"
#include "runtime/cuda_run.h"

typedef struct tuned {
  const char *path;
  const ir_program *program;
  at_cuda_result r;
} tuned;

static tuned tune_model(cli *c, const char *path, const cu_target *t, const cli_cuda_tuning *how, at_store *store) {
  cli_model *m = cli_load(c, path);
  cli_lower_cuda(c, m);
  at_cuda_options o = {store, (int)how->trials, how->budget_s, how->stop, path};
  return (tuned){path, m->program, at_cuda_tune(c->ctx, m->program, t, &o)};
}

static void show_json(cli *c, int n, const tuned *t, const cu_target *target, const char *trouble) {
  cli_json j;
  cj_begin(&j, c->ctx);
  cj_text(&j, "target", target->name);
  cj_text(&j, "trouble", trouble);
  cj_open(&j, "models", '[');
  for (int i = 0; i < n; i++) {
    const at_cuda_result *r = &t[i].r;
    cj_open(&j, NULL, '{');
    cj_text(&j, "model", t[i].path);
    cj_int(&j, "trials", r->trials);
    cj_int(&j, "failed", r->failed);
    cj_int(&j, "known", r->known);
    cj_int(&j, "reopened", r->reopened);
    cj_text(&j, "last_failure", r->trouble);
    cj_bool(&j, "stopped", r->stopped);
    cj_open(&j, "kernels", '[');
    for (int k = 0; k < t[i].program->nkernels; k++) {
      if (!r->kernels[k].choice) continue;
      cj_open(&j, NULL, '{');
      cj_text(&j, "name", t[i].program->kernels[k].kernel->name);
      cj_text(&j, "schedule", r->kernels[k].choice);
      cj_real(&j, "default_ns", r->kernels[k].default_ns);
      cj_real(&j, "best_ns", r->kernels[k].best_ns);
      cj_close(&j, '}');
    }
    cj_close(&j, ']');
    cj_close(&j, '}');
  }
  cj_close(&j, ']');
  cj_end(&j, c);
}

static void show(cli *c, const tuned *t) {
  const at_cuda_result *r = &t->r;
  for (int k = 0; k < t->program->nkernels; k++) {
    const at_cuda_kernel *x = &r->kernels[k];
    if (x->choice) fprintf(c->out, "%-32.32s %10s -> %10s  %s\n", t->program->kernels[k].kernel->name, cli_time(c, x->default_ns * 1e-9), cli_time(c, x->best_ns * 1e-9), x->choice);
  }
  fprintf(c->out, "%s: %d timed, %d of them failed, %d known%s\n", t->path, r->trials, r->failed, r->known, r->stopped ? ", stopped: all of it is kept" : "");
  if (r->trouble) fprintf(c->out, "  the last failure: %s\n", r->trouble);
  if (r->reopened) fprintf(c->out, "  the device was opened anew %d times\n", r->reopened);
}

void cli_tune_cuda(cli *c, const cli_cuda_tuning *how) {
  const rt_cuda_lib *nvrtc = rt_cuda_library(RT_CUDA_NVRTC);
  const cu_target *target = *how->arch ? cu_target_find(c->ctx, how->arch) : rt_cuda_device_target(c->ctx, 0, NULL);
  if (!nvrtc->handle) ir_fail(c->ctx, TN_EUNSUPPORTED, "NVRTC, which compiles for GPUs, is not there: %s", nvrtc->why);
  at_store *store = at_store_open(c->ctx, c->db, 0);
  tuned *t = IR_NEW_ARRAY(c->ctx, tuned, c->nargs);
  for (int i = 0; i < c->nargs; i++) t[i] = tune_model(c, c->args[i], target, how, store);
  const char *trouble = store ? ir_strdup(c->ctx, at_store_trouble(store)) : "";
  at_store_close(store);
  if (c->json) show_json(c, c->nargs, t, target, *trouble ? trouble : NULL);
  else
    for (int i = 0; i < c->nargs; i++) show(c, &t[i]);
}
