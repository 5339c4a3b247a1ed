/* cli_tune_tpu.c — tenon tune --target tpu:NAME: tiles by the cycles of the whole program. */
#include "autotune/tpu.h"
#include "frontend/cli.h"
#include <string.h>

typedef struct tuned {
  const char *path;
  const ir_program *program;
  at_tpu_result r;
} tuned;

static tuned tune_model(cli *c, const char *path, const tpu_machine *m, const cli_tpu_tuning *how, at_store *store) {
  cli with = *c;
  with.db = "none"; /* the model's choices are where it starts */
  cli_model *model = cli_load(&with, path);
  rt_tpu_options o = {.precision = how->precision ? lw_precision_parse(c->ctx, how->precision) : rt_tpu_precision(m), .jobs = c->threads ? (int)c->threads : rt_cpu_count()};
  rt_tpu_build b = cli_lower_tpu(&with, model, m, &o);
  at_tpu_task task = {b.program, m, lw_precision_name(o.precision), b.weights, 0};
  at_tpu_options to = {store, (int)how->trials, how->budget_s, how->stop, path};
  return (tuned){path, b.program, at_tpu_tune(c->ctx, &task, &to)};
}

static void show_json(cli *c, int n, const tuned *t, const tpu_machine *m, const char *trouble) {
  cli_json j;
  cj_begin(&j, c->ctx);
  cj_text(&j, "machine", m->name);
  cj_text(&j, "trouble", trouble);
  cj_open(&j, "models", '[');
  for (int i = 0; i < n; i++) {
    const at_tpu_result *r = &t[i].r;
    cj_open(&j, NULL, '{');
    cj_text(&j, "model", t[i].path);
    cj_int(&j, "cycles_before", r->first);
    cj_int(&j, "cycles", r->last);
    cj_int(&j, "trials", r->trials);
    cj_int(&j, "known", r->known);
    cj_bool(&j, "stopped", r->stopped);
    cj_open(&j, "kernels", '[');
    for (int k = 0; k < t[i].program->nkernels; k++) {
      if (!r->cycles[k]) continue;
      cj_open(&j, NULL, '{');
      cj_text(&j, "name", t[i].program->kernels[k].kernel->name);
      cj_int(&j, "cycles", r->cycles[k]);
      cj_text(&j, "tiles", at_tpu_tiles_print(c->ctx, &r->tiles[k]));
      cj_close(&j, '}');
    }
    cj_close(&j, ']');
    cj_close(&j, '}');
  }
  cj_close(&j, ']');
  cj_end(&j, c);
}

static void show(cli *c, const tuned *t) {
  const at_tpu_result *r = &t->r;
  for (int k = 0; k < t->program->nkernels; k++) {
    const char *tiles = at_tpu_tiles_print(c->ctx, &r->tiles[k]);
    if (r->cycles[k] && *tiles) fprintf(c->out, "%-32.32s %10lld cycles less  %s", t->program->kernels[k].kernel->name, (long long)(r->first - r->cycles[k]), tiles);
  }
  fprintf(c->out, "%s: %lld cycles -> %lld (%.1f%% less), %d kernels changed, %d programs timed, %d known%s\n", t->path, (long long)r->first, (long long)r->last,
          100 * (1 - (double)r->last / (double)r->first), r->changed, r->trials, r->known, r->stopped ? ", stopped: all of it is kept" : "");
}

void cli_tune_tpu(cli *c, const cli_tpu_tuning *how) {
  const tpu_machine *m = tpu_machine_find(c->ctx, how->machine);
  at_store *store = at_store_open(c->ctx, c->db, 0);
  tuned *t = IR_NEW_ARRAY(c->ctx, tuned, c->nargs);
  for (int i = 0; i < c->nargs; i++) t[i] = tune_model(c, c->args[i], m, how, store);
  const char *trouble = store ? ir_strdup(c->ctx, at_store_trouble(store)) : "";
  at_store_close(store);
  if (c->json) show_json(c, c->nargs, t, m, *trouble ? trouble : NULL);
  else
    for (int i = 0; i < c->nargs; i++) show(c, &t[i]);
}
