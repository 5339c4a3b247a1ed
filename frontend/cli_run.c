/* cli_run.c — tenon run. */
#include "frontend/cli.h"
#include "frontend/npy.h"
#include <math.h>

static void print_values(cli *c, tn_dtype t, const void *data, int64_t n) {
  for (int64_t i = 0; i < n && i < 8; i++) fprintf(c->out, "%s%.6g", i ? " " : "  ", fe_element(t, data, i));
  if (n > 8) fputs(" ...", c->out);
}

static void summary(tn_dtype t, const void *data, int64_t n, double *lo, double *hi, double *mean) {
  *lo = INFINITY, *hi = -INFINITY, *mean = 0;
  for (int64_t i = 0; i < n; i++) {
    double v = fe_element(t, data, i);
    if (v < *lo) *lo = v;
    if (v > *hi) *hi = v;
    *mean += v / (double)n;
  }
}

void cli_run(cli *c, int argc, char **argv) {
  cli_list inputs = {0}, fetch = {0};
  const char *dir = NULL, *save = NULL;
  cli_option own[] = {
      {"--input", CLI_TEXTS, &inputs, "NAME=FILE", "an input, .npy or .pb; those not given are random"},
      {"--fetch", CLI_TEXTS, &fetch, "NODE", "one more output: a node's or value's name"},
      {"--output-dir", CLI_TEXT, &dir, "DIR", "where outputs go, as NAME.npy"},
      CLI_TARGET(c),
      {"--save-inputs", CLI_TEXT, &save, "DIR", "writes the inputs there, the random ones too"},
  };
  if (!cli_parse(c, argc, argv, IR_COUNT(own), own, true, 1, 1, "Random inputs: floats in [-1, 1), integers 0 or 1; the same for each seed.\n")) return;
  cli_model *m = cli_load(c, c->args[0]);
  cli_feed(c, m, &inputs);
  cli_fetch(c, m, &fetch);
  cli_lower(c, m);
  cli_fill(c, m);
  if (save) cli_save_inputs(c, m, save);
  cli_start(c, m);
  double start = rt_now();
  cli_run_once(c, m);
  double seconds = rt_now() - start;
  if (dir) cli_make_folder(c, dir);
  cli_json j;
  if (c->json) {
    cj_begin(&j, c->ctx);
    cj_text(&j, "model", m->path);
    cj_real(&j, "import_s", m->import_s);
    cj_real(&j, "lower_s", m->lower_s);
    cj_real(&j, "compile_s", m->compile_s);
    cj_real(&j, "run_s", seconds);
    cj_open(&j, "outputs", '[');
  }
  for (int i = 0; i < m->nout; i++) {
    const ir_slot *s = cli_out_slot(m, i);
    int64_t n = 1;
    for (int a = 0; a < s->rank; a++) n *= m->out_dims[i][a];
    fe_array a = {.name = m->out_name[i], .dtype = s->dtype, .rank = s->rank, .dims = m->out_dims[i], .count = n, .data = m->out[i],
                  .bytes = (size_t)n * ir_dtype_bytes(s->dtype)};
    const char *path = dir ? cli_npy_path(c, dir, m->out_name[i]) : NULL;
    if (path) fe_npy_save(c->ctx, path, &a);
    double lo, hi, mean;
    summary(s->dtype, m->out[i], n, &lo, &hi, &mean);
    if (c->json) {
      cj_open(&j, NULL, '{');
      cj_text(&j, "name", m->out_name[i]);
      cj_text(&j, "dtype", ir_dtype_name(s->dtype));
      cj_dims(&j, "dims", s->rank, m->out_dims[i]);
      cj_real(&j, "min", lo);
      cj_real(&j, "max", hi);
      cj_real(&j, "mean", mean);
      cj_text(&j, "file", path);
      cj_close(&j, '}');
      continue;
    }
    fprintf(c->out, "%s: %s", m->out_name[i], fe_shape_text(c->ctx, s->dtype, s->rank, m->out_dims[i]));
    if (n > 8) fprintf(c->out, " in [%.6g, %.6g], mean %.6g:", lo, hi, mean);
    print_values(c, s->dtype, m->out[i], n);
    if (path) fprintf(c->out, "  -> %s", path);
    fputc('\n', c->out);
  }
  if (c->json) {
    cj_close(&j, ']');
    cj_end(&j, c);
  }
  cli_stop(c, m);
}
