/* cli_run.c — tenon run, tenon verify. */
#include "frontend/cli.h"
#include "frontend/compare.h"
#include "frontend/npy.h"
#include <math.h>
#include <string.h>

/* ---- run ---- */

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

/* ---- verify ---- */

void cli_verify(cli *c, int argc, char **argv) {
  tn_ctx *ctx = c->ctx;
  double rtol = 1e-3, atol = 1e-7;
  bool per_node = false;
  cli_option own[] = {
      {"--rtol", CLI_REAL, &rtol, "R", "relative tolerance (default 1e-3)"},
      {"--atol", CLI_REAL, &atol, "A", "absolute tolerance (default 1e-7)"},
      {"--per-node", CLI_FLAG, &per_node, NULL, "compares every node's values too, by default with the interpreter's"},
  };
  if (!cli_parse(c, argc, argv, IR_COUNT(own), own, true, 2, 2,
                 "|result - expected| <= atol + rtol * |expected| for floats; integers must be equal.\n")) return;
  cli_model *m = cli_load(c, c->args[0]);
  const char *dir = c->args[1];
  fe_array *in, *want;
  int nin = fe_test_data(ctx, dir, "input", m->nin, m->in_type, &in);
  int nwant = fe_test_data(ctx, dir, "output", m->nout, m->out_type, &want);
  if (nwant == 0) ir_fail(ctx, TN_EUSAGE, "%s: there is no output_0.pb or output_0.npy", dir);
  if (nin > m->nin) ir_fail(ctx, TN_EINPUT, "%s: %d inputs are given, the model has %d", dir, nin, m->nin);
  if (nwant > m->nout) ir_fail(ctx, TN_EINPUT, "%s: %d outputs are given, the model has %d", dir, nwant, m->nout);
  for (int i = 0; i < nin; i++) {
    m->in[i] = in[i];
    if (m->graph) fe_bind_input(ctx, m->graph, i, &in[i]);
  }
  if (per_node) ir_fail(ctx, TN_EUNSUPPORTED, "--per-node is not there yet");
  cli_lower(c, m);
  cli_fill(c, m);
  cli_start(c, m);
  cli_run_once(c, m);
  fe_tolerance tol = {rtol, atol};
  int bad = 0;
  cli_json j;
  if (c->json) {
    cj_begin(&j, ctx);
    cj_text(&j, "model", m->path);
    cj_open(&j, "outputs", '[');
  }
  for (int i = 0; i < nwant; i++) {
    const ir_slot *s = cli_out_slot(m, i);
    bool fits = s->dtype == want[i].dtype && s->rank == want[i].rank;
    for (int a = 0; fits && a < s->rank; a++) fits = m->out_dims[i][a] == want[i].dims[a];
    fe_difference d = {0};
    if (fits) d = fe_compare(s->dtype, want[i].count, m->out[i], want[i].data, &tol);
    bool ok = fits && d.equal;
    bad += !ok;
    const char *text = fits ? fe_difference_text(ctx, &d, s->rank, m->out_dims[i])
                            : ir_format(ctx, "is %s, should be %s", fe_shape_text(ctx, s->dtype, s->rank, m->out_dims[i]),
                                        fe_shape_text(ctx, want[i].dtype, want[i].rank, want[i].dims));
    if (c->json) {
      cj_open(&j, NULL, '{');
      cj_text(&j, "name", m->out_name[i]);
      cj_bool(&j, "ok", ok);
      if (fits) {
        cj_int(&j, "count", d.count);
        cj_int(&j, "wrong", d.wrong);
        cj_real(&j, "max_abs", d.max_abs);
        cj_real(&j, "max_ref", d.max_ref);
        cj_real(&j, "max_rel", d.max_rel);
        cj_real(&j, "max_ulp", d.max_ulp);
      }
      cj_text(&j, "text", text);
      cj_close(&j, '}');
    } else fprintf(c->out, "%s %s: %s\n", ok ? "ok   " : "WRONG", m->out_name[i], text);
  }
  if (c->json) {
    cj_close(&j, ']');
    cj_bool(&j, "ok", bad == 0);
    cj_end(&j, c);
  }
  cli_stop(c, m);
  if (bad) ir_fail(ctx, TN_EWRONG, "%s: %d of %d outputs are wrong", m->path, bad, nwant);
}
