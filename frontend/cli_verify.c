/* cli_verify.c — tenon verify: against expected outputs, and node by node against a reference. */
#include "frontend/cli.h"
#include "frontend/compare.h"
#include "frontend/npy.h"
#include "lower/schedule.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct verify {
  cli *c;
  cli_model *m;
  const char *dir;
  fe_tolerance tol;
  double accuracy; /* max |difference| / max |reference| that is let pass, of nodes, and of outputs once... */
  bool approximate; /* ...some kernel uses an algorithm that rounds differently */
  cli_json j;
  int bad;
} verify;

/* One line, or one JSON object, about an output or node. `op`: null for an output. */
static void report(verify *v, const char *name, const char *op, int k, const fe_array *want, const char *against) {
  cli *c = v->c;
  tn_ctx *ctx = c->ctx;
  const ir_slot *s = cli_out_slot(v->m, k);
  const int64_t *dims = v->m->out_dims[k];
  bool fits = (s->dtype == want->dtype || (want->unnamed && ir_is_byte_float(s->dtype))) && s->rank == want->rank;
  for (int a = 0; fits && a < s->rank; a++) fits = dims[a] == want->dims[a];
  fe_difference d = {0};
  if (fits) d = fe_compare(s->dtype, want->count, v->m->out[k], want->data, &v->tol);
  bool ok = fits && (d.equal || ((op || v->approximate) && d.max_rel <= v->accuracy)); /* inside a model sums near 0 carry the noise of large terms */
  v->bad += !ok;
  const char *text = fits ? fe_difference_text(ctx, &d, s->rank, dims)
                          : ir_format(ctx, "is %s, should be %s", fe_shape_text(ctx, s->dtype, s->rank, dims), fe_shape_text(ctx, want->dtype, want->rank, want->dims));
  if (!c->json) {
    fprintf(c->out, "%s %s%s%s%s: %s\n", ok ? "ok   " : "WRONG", name, op ? " (" : "", op ? op : "", op ? ")" : "", text);
    return;
  }
  cj_open(&v->j, NULL, '{');
  cj_text(&v->j, "name", name);
  if (op) cj_text(&v->j, "op", op);
  if (against) cj_text(&v->j, "against", against);
  cj_bool(&v->j, "ok", ok);
  if (fits) {
    cj_int(&v->j, "count", d.count);
    cj_int(&v->j, "wrong", d.wrong);
    cj_real(&v->j, "max_abs", d.max_abs);
    cj_real(&v->j, "max_ref", d.max_ref);
    cj_real(&v->j, "max_rel", d.max_rel);
    cj_real(&v->j, "max_ulp", d.max_ulp);
  }
  cj_text(&v->j, "text", text);
  cj_close(&v->j, '}');
}

static void give(cli *c, cli_model *m, int n, const fe_array *in) {
  for (int i = 0; i < n; i++) {
    m->in[i] = in[i];
    if (m->graph) fe_bind_input(c->ctx, m->graph, i, &in[i]);
  }
}

/* Every node's first output that is not an output of the model already. */
static cli_list node_values(cli *c, const cli_model *m, const char ***ops) {
  cli_list l = {0};
  int n = 0;
  *ops = NULL;
  for (int i = 0; i < m->graph->nnodes; i++) {
    const ir_node *node = m->graph->nodes[i];
    const ir_value *v = node->nout ? node->out[0] : NULL;
    bool output = !v;
    for (int k = 0; k < m->graph->noutputs && !output; k++) output = m->graph->outputs[k] == v;
    if (output) continue;
    IR_PUSH(c->ctx, l.items, l.n, v->name);
    IR_PUSH(c->ctx, *ops, n, node->op->name);
  }
  return l;
}

/* The same model again, run in the way that is trusted. */
static cli_model *reference(cli *c, const char *path, int nin, const fe_array *in, const cli_list *nodes, bool interp) {
  cli_engine engine = c->engine;
  bool unscheduled = c->unscheduled;
  c->engine = interp ? CLI_INTERP : CLI_JIT;
  c->unscheduled = true;
  cli_model *r = cli_load(c, path);
  give(c, r, nin, in);
  cli_fetch(c, r, nodes);
  cli_lower(c, r);
  cli_fill(c, r);
  cli_start(c, r);
  cli_run_once(c, r);
  cli_stop(c, r);
  c->engine = engine;
  c->unscheduled = unscheduled;
  return r;
}

void cli_verify(cli *c, int argc, char **argv) {
  tn_ctx *ctx = c->ctx;
  verify v = {.c = c, .tol = {1e-3, 1e-7}};
  bool per_node = false;
  const char *how = NULL;
  cli_option own[] = {
      CLI_TARGET(c),
      {"--rtol", CLI_REAL, &v.tol.rtol, "R", "relative tolerance (default 1e-3)"},
      {"--atol", CLI_REAL, &v.tol.atol, "A", "absolute tolerance (default 1e-7)"},
      {"--per-node", CLI_FLAG, &per_node, NULL, "compares every node's value too: with DIR/NAME.npy where there is one, else the reference"},
      {"--reference", CLI_TEXT, &how, "R", "of --per-node: interp, or unscheduled code (default: interp where that is quick)"},
  };
  if (!cli_parse(c, argc, argv, IR_COUNT(own), own, true, 2, 2,
                 "|result - expected| <= atol + rtol * |expected| for floats; integers must be equal. Nodes, and\n"
                 "outputs where a faster algorithm is used, are also right when\n"
                 "max |difference| <= A * max |expected|, A being --accuracy.\n")) return;
  if (how && strcmp(how, "interp") && strcmp(how, "unscheduled")) ir_fail(ctx, TN_EUSAGE, "--reference: '%s' is neither interp nor unscheduled", how);
  v.accuracy = cli_accuracy(c);
  cli_model *m = v.m = cli_load(c, c->args[0]);
  v.dir = c->args[1];
  fe_array *in, *want;
  int nin = fe_test_data(ctx, v.dir, "input", m->nin, m->in_type, &in);
  int nwant = fe_test_data(ctx, v.dir, "output", m->nout, m->out_type, &want), nout = m->nout;
  if (nwant == 0) ir_fail(ctx, TN_EUSAGE, "%s: there is no output_0.pb or output_0.npy", v.dir);
  if (nin > m->nin) ir_fail(ctx, TN_EINPUT, "%s: %d inputs are given, the model has %d", v.dir, nin, m->nin);
  if (nwant > m->nout) ir_fail(ctx, TN_EINPUT, "%s: %d outputs are given, the model has %d", v.dir, nwant, m->nout);
  give(c, m, nin, in);
  cli_list nodes = {0};
  const char **ops = NULL;
  if (per_node) {
    if (!m->graph) ir_fail(ctx, TN_EUSAGE, "--per-node needs a model or a graph, not a program");
    nodes = node_values(c, m, &ops);
    cli_fetch(c, m, &nodes);
  }
  cli_lower(c, m);
  for (int i = 0; i < m->program->nkernels; i++) v.approximate |= lw_schedule_error(ctx, m->program->kernels[i].kernel, m->program->kernels[i].schedule) > 0;
  cli_fill(c, m);
  cli_start(c, m);
  cli_run_once(c, m);
  if (c->json) {
    cj_begin(&v.j, ctx);
    cj_text(&v.j, "model", m->path);
    cj_open(&v.j, "outputs", '[');
  }
  for (int i = 0; i < nwant; i++) report(&v, m->out_name[i], NULL, i, &want[i], NULL);
  int wrong_outputs = v.bad, wrong_nodes = 0;
  if (c->json) cj_close(&v.j, ']');
  if (per_node) {
    double flops;
    cli_estimate(c, m, &flops);
    bool interp = how ? strcmp(how, "interp") == 0 : flops < 5e7;
    const char *named = interp ? "interpreter" : "unscheduled code";
    cli_model *r = reference(c, c->args[0], nin, in, &nodes, interp);
    if (c->json) cj_open(&v.j, "nodes", '[');
    else fprintf(c->out, "nodes, against %s:\n", named);
    for (int i = 0; i < nodes.n; i++) {
      int k = nout + i;
      const ir_slot *s = cli_out_slot(r, k);
      fe_array ref = {.dtype = s->dtype, .rank = s->rank, .dims = r->out_dims[k], .count = cli_elements(s), .data = r->out[k]};
      const char *path = cli_npy_path(c, v.dir, nodes.items[i]);
      bool file = access(path, F_OK) == 0;
      if (file) ref = fe_array_load(ctx, path, NULL);
      report(&v, nodes.items[i], ops[i], k, &ref, file ? path : named);
    }
    wrong_nodes = v.bad - wrong_outputs;
    if (c->json) cj_close(&v.j, ']');
  }
  if (c->json) {
    cj_bool(&v.j, "ok", v.bad == 0);
    cj_end(&v.j, c);
  }
  cli_stop(c, m);
  if (wrong_nodes) ir_fail(ctx, TN_EWRONG, "%s: %d of %d outputs and %d of %d nodes are wrong", m->path, wrong_outputs, nwant, wrong_nodes, nodes.n);
  if (v.bad) ir_fail(ctx, TN_EWRONG, "%s: %d of %d outputs are wrong", m->path, v.bad, nwant);
}
