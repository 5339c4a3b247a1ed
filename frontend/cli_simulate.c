/* cli_simulate.c — tenon simulate: layers, models and programs on a systolic machine. */
#include "codegen/tpu_folds.h"
#include "frontend/cli_sim.h"
#include "frontend/compare.h"
#include "frontend/npy.h"
#include <string.h>
#include <strings.h>

enum { TABLE_ROWS = 200, TRACE_SPANS = 1 << 17 };

/* ---- running ---- */

static void add_counts(tpu_counts *to, const tpu_counts *c) {
  int64_t *t = (int64_t *)to;
  const int64_t *f = (const int64_t *)c;
  for (size_t i = 0; i < offsetof(tpu_counts, energy_pj) / sizeof *t; i++) t[i] += f[i];
  for (int e = 0; e < TPU_ENERGY_KINDS; e++) to->energy_pj[e] += c->energy_pj[e];
}
_Static_assert(offsetof(tpu_counts, energy_pj) + sizeof(double) * TPU_ENERGY_KINDS == sizeof(tpu_counts), "all but the last member are int64_t");

/* A row behind the others. `took`: cycles on the timeline. */
static void add_row(sim *s, const char *name, int64_t M, int64_t N, int64_t K, int64_t macs, int64_t cycles, int64_t took, const tpu_counts *counts, int cores) {
  double places = (double)(s->machine->rows * tpu_tile_cols(s->machine)) * cores;
  sim_row row = {.name = name, .M = M, .N = N, .K = K, .macs = macs, .cycles = cycles, .counts = counts, .start = s->at};
  row.end = s->at += took;
  if (cycles > 0) row.utilization = (double)macs / ((double)cycles * places);
  IR_PUSH(s->c->ctx, s->rows, s->nrows, row);
  s->cycles += cycles;
  s->useful += (double)macs;
  add_counts(&s->all, counts);
  if (cores > s->cores) s->cores = cores;
}

/* Runs a program; its tags are rows row_of[tag] on the timeline. Null out: timing alone. */
static const tpu_result *simulate(sim *s, const tpu_program *p, const int *row_of, const void *const *in, void *const *out, void *state) {
  tpu_sim_options o = {.timing = s->timing, .no_values = !out, .faults = s->faults};
  if (s->recorder) {
    s->recorder->at = s->at, s->recorder->row_of_tag = row_of;
    o.event = sim_record, o.user = s->recorder;
  }
  double bandwidth = tpu_image_bytes_per_cycle(s->machine, p->dram_bytes) * s->machine->clock_mhz * 1e6, start = rt_now();
  if (bandwidth > s->bandwidth) s->bandwidth = bandwidth;
  const tpu_result *r = tpu_simulate(s->c->ctx, s->machine, p, &o, in, out, state);
  s->simulate_s += rt_now() - start;
  if (s->recorder) sim_recorded(s->recorder);
  return r;
}

static int rows_of(const fe_topology_layer *l) { return l && l->copies ? (int)l->copies : 1; }

/* ---- as SCALE-Sim does it: matrix products fold by fold ---- */

/* Its machines have memories without a limit. */
static const tpu_machine *boundless(tn_ctx *ctx, const tpu_machine *m) {
  tpu_machine *x = IR_NEW(ctx, tpu_machine);
  *x = *m;
  x->ub_bytes = x->acc_bytes = (int64_t)1 << 60;
  if (!x->int8) x->int8 = 1;
  x->cores = 1;
  return x;
}

static void run_folds(sim *s, int n, const tpu_product *products, const fe_topology_layer *layers) {
  tn_ctx *ctx = s->c->ctx;
  s->machine = boundless(ctx, s->machine);
  s->dtype = TN_I8;
  double start = rt_now();
  const tpu_program *p = tpu_folds(ctx, s->machine, n, products);
  s->compile_s = rt_now() - start;
  int *row_of = IR_NEW_ARRAY(ctx, int, p->ntags + 1), row = 0;
  for (int t = 1; t < p->ntags; t++) {
    row_of[t] = row;
    row += rows_of(layers ? &layers[t - 1] : NULL);
  }
  const tpu_result *r = simulate(s, p, row_of, NULL, NULL, NULL);
  for (int t = 1; t < p->ntags; t++) {
    const fe_topology_layer *l = layers ? &layers[t - 1] : NULL;
    const tpu_tag *g = &p->tags[t];
    for (int i = 0; i < rows_of(l); i++)
      add_row(s, l ? fe_topology_name(ctx, l, i) : g->name, g->M, g->N, g->K, g->macs, r->tags[t].reported, r->tags[t].counts.cycles.total, &r->tags[t].counts, 1);
  }
}

static void topology_folds(sim *s, const fe_topology *t) {
  tpu_product *p = IR_NEW_ARRAY(s->c->ctx, tpu_product, t->n);
  for (int i = 0; i < t->n; i++) p[i] = (tpu_product){t->layers[i].name, t->layers[i].M, t->layers[i].N, t->layers[i].K, t->layers[i].groups};
  run_folds(s, t->n, p, t->layers);
}

/* M, N and K of a contraction by which operand moves along a loop; loops that move both are groups. */
static bool product_of(tn_ctx *ctx, const lw_problem *q, const char *name, tpu_product *p) {
  if (q->kind != LW_CONTRACTION) return false;
  *p = (tpu_product){name, 1, 1, 1, 1};
  for (int i = 0; i < q->nout; i++) {
    if (q->extent[i] < 1) return false;
    bool a = lw_stride(ctx, q->a, q->out[i]->var) != 0, b = lw_stride(ctx, q->b, q->out[i]->var) != 0;
    *(a && b ? &p->groups : a ? &p->M : &p->N) *= q->extent[i];
  }
  for (int i = 0; i < q->nred; i++) {
    if (q->red_extent[i] < 1) return false;
    p->K *= q->red_extent[i];
  }
  return p->M <= INT32_MAX && p->N <= INT32_MAX && p->K <= INT32_MAX && p->groups <= INT32_MAX;
}

static void model_folds(sim *s, cli_model *m) {
  const ir_program *p = m->program;
  tpu_product *products = NULL;
  int n = 0, left = 0;
  cli_kernel_facts *facts = cli_facts(s->c, m);
  for (int i = 0; i < p->nrun; i++) {
    tpu_product x;
    if (p->run[i].kind != IR_CALL) continue;
    if (product_of(s->c->ctx, &facts[p->run[i].kernel].problem, p->run[i].name ? p->run[i].name : p->kernels[p->run[i].kernel].kernel->name, &x))
      IR_PUSH(s->c->ctx, products, n, x);
    else left++;
  }
  if (!n) ir_fail(s->c->ctx, TN_EUNSUPPORTED, "%s: there is no matrix product in it: --timing scalesim has nothing to time", m->path);
  if (left && !s->c->json) fprintf(stderr, "tenon: %d calls that are no matrix products take no time under --timing scalesim\n", left);
  run_folds(s, n, products, NULL);
}

/* ---- as a TPU does it ---- */

static void topology_compiled(sim *s, const fe_topology *t, const char *dtype, int64_t cores) {
  tn_ctx *ctx = s->c->ctx;
  s->dtype = sim_dtype(s->c, s->machine, dtype);
  for (int i = 0; i < t->n; i++) {
    const fe_topology_layer *l = &t->layers[i];
    ir_where(ctx, ir_format(ctx, "%s:%d: layer '%s'", t->path, l->line, l->name));
    double start = rt_now();
    const tpu_program *p = sim_layer_program(ctx, s->machine, l, s->dtype, (int)cores);
    s->compile_s += rt_now() - start;
    int *row_of = IR_NEW_ARRAY(ctx, int, p->ntags + 1);
    for (int k = 0; k < p->ntags; k++) row_of[k] = s->nrows;
    const tpu_result *r = simulate(s, p, row_of, NULL, NULL, NULL);
    for (int k = 0; k < rows_of(l); k++)
      add_row(s, fe_topology_name(ctx, l, k), l->M, l->N, l->K, l->M * l->N * l->K * l->groups, r->cycles, r->cycles, &r->all, p->ncores);
  }
  ir_where(ctx, NULL);
}

/* Rows of a program that has a tag per layer; what comes before the first belongs to none. */
static void tag_rows(sim *s, const tpu_program *p, const tpu_result *r) {
  s->at += r->tags[0].counts.cycles.total;
  s->cycles += r->tags[0].counts.cycles.total;
  add_counts(&s->all, &r->tags[0].counts);
  for (int t = 1; t < p->ntags; t++) {
    const tpu_tag *g = &p->tags[t];
    add_row(s, g->name, g->M, g->N, g->K, g->macs, r->tags[t].reported, r->tags[t].counts.cycles.total, &r->tags[t].counts, p->ncores);
  }
}

static const int *rows_by_tag(tn_ctx *ctx, const tpu_program *p) {
  int *row_of = IR_NEW_ARRAY(ctx, int, p->ntags + 1);
  for (int t = 0; t < p->ntags; t++) row_of[t] = t - 1;
  return row_of;
}

static lw_precision precision_of(sim *s, const char *dtype) {
  static const tn_dtype of[] = {[LW_PRECISION_F32] = TN_F32, [LW_PRECISION_BF16] = TN_BF16, [LW_PRECISION_INT8] = TN_I8};
  lw_precision p = rt_tpu_precision(s->machine);
  if (dtype) {
    tn_dtype t = sim_dtype(s->c, s->machine, dtype);
    if (t == TN_F16) ir_fail(s->c->ctx, TN_EUSAGE, "--dtype f16: of a model's products f32, bf16 and i8 are to be had");
    for (int k = 0; k < IR_COUNT(of); k++)
      if (of[k] == t) p = (lw_precision)k;
  }
  s->dtype = of[p];
  return p;
}

/* The results beside those of the same arithmetic on the CPU. */
static void against_cpu(sim *s, cli_model *m, void *const *got, fe_tolerance *tol) {
  cli *c = s->c;
  cli_start(c, m);
  cli_run_once(c, m);
  cli_stop(c, m);
  int bad = 0;
  for (int i = 0; i < m->nout; i++) {
    const ir_slot *v = cli_out_slot(m, i);
    int64_t n = cli_elements(v);
    fe_difference d = fe_compare(v->dtype, n, got[i], m->out[i], tol);
    bool same = memcmp(got[i], m->out[i], (size_t)n * ir_dtype_bytes(v->dtype)) == 0;
    if (!c->json) fprintf(c->out, "%s: %s\n", m->out_name[i], same ? "the bits of the CPU" : fe_difference_text(c->ctx, &d, v->rank, v->dims));
    bad += !d.equal;
  }
  if (bad) ir_fail(c->ctx, TN_EWRONG, "%s: %d of %d outputs are not those of the CPU", m->path, bad, m->nout);
}

static void save_outputs(cli *c, const cli_model *m, void *const *out, const char *dir) {
  cli_make_folder(c, dir);
  for (int i = 0; i < m->nout; i++) {
    const ir_slot *v = cli_out_slot(m, i);
    int64_t n = cli_elements(v);
    fe_array a = {.name = m->out_name[i], .dtype = v->dtype, .rank = v->rank, .dims = v->dims, .count = n, .data = out[i], .bytes = (size_t)n * ir_dtype_bytes(v->dtype)};
    fe_npy_save(c->ctx, cli_npy_path(c, dir, m->out_name[i]), &a);
  }
}

static void model_compiled(sim *s, cli_model *m, const char *dtype, int64_t cores, const char *dir, bool compare) {
  cli *c = s->c;
  tn_ctx *ctx = c->ctx;
  rt_tpu_options o = {.precision = precision_of(s, dtype), .cores = (int)cores, .jobs = c->threads ? (int)c->threads : rt_cpu_count()};
  const tpu_program *p = cli_lower_tpu(c, m, s->machine, &o).tpu;
  s->compile_s = m->lower_s + m->compile_s;
  const void **in = NULL;
  void **out = NULL;
  if (dir || compare) {
    cli_fill(c, m);
    in = IR_NEW_ARRAY(ctx, const void *, m->nin + 1);
    out = IR_NEW_ARRAY(ctx, void *, m->nout + 1);
    for (int i = 0; i < m->nin; i++) in[i] = m->in[i].data;
    for (int i = 0; i < m->nout; i++) out[i] = fe_buffer(ctx, cli_out_slot(m, i)->bytes);
  }
  void *state = out && m->program->state_bytes ? fe_buffer(ctx, m->program->state_bytes) : NULL;
  tag_rows(s, p, simulate(s, p, rows_by_tag(ctx, p), in, out, state));
  if (dir) save_outputs(c, m, out, dir);
  if (compare) against_cpu(s, m, out, &(fe_tolerance){1e-3, 1e-7});
}

/* A program file: for the machine it was made for unless --machine names another. */
static void program_file(sim *s, const tpu_program *p) {
  s->dtype = TN_BF16;
  for (int c = 0; c < p->ncores; c++)
    for (int64_t i = 0; i < p->core[c].n; i++)
      if (p->core[c].insts[i].op == TPU_MATMUL) s->dtype = (tn_dtype)p->core[c].insts[i].src.dtype;
  tag_rows(s, p, simulate(s, p, rows_by_tag(s->c->ctx, p), NULL, NULL, NULL));
}

/* ---- what comes out ---- */

typedef struct outputs {
  const char *csv, *trace, *page, *roofline;
} outputs;

static void write_text(cli *c, const char *path, const char *text) {
  if (path) fe_write_file(c->ctx, path, text, strlen(text));
}

static void conclude(sim *s) {
  double places = (double)(s->machine->rows * tpu_tile_cols(s->machine)) * s->cores;
  s->utilization = s->cycles > 0 ? s->useful / ((double)s->cycles * places) : 0;
}

static void report(sim *s, const outputs *o) {
  cli *c = s->c;
  conclude(s);
  write_text(c, o->csv, o->csv ? sim_csv(s) : NULL);
  write_text(c, o->trace, o->trace ? sim_trace(s) : NULL);
  write_text(c, o->roofline, o->roofline ? sim_roofline(s, true) : NULL);
  write_text(c, o->page, o->page ? sim_page(s) : NULL);
  if (c->json) {
    cli_json j;
    cj_begin(&j, c->ctx);
    sim_json(s, &j);
    cj_text(&j, "csv", o->csv);
    cj_text(&j, "trace", o->trace);
    cj_text(&j, "page", o->page);
    cj_end(&j, c);
    return;
  }
  sim_table(s, TABLE_ROWS);
  const char *const files[] = {o->csv, o->trace, o->roofline, o->page};
  for (int i = 0; i < IR_COUNT(files); i++)
    if (files[i]) fprintf(c->out, "-> %s\n", files[i]);
}

static bool ends_with(const char *s, const char *end) {
  size_t n = strlen(s), k = strlen(end);
  return n >= k && strcasecmp(s + n - k, end) == 0;
}

static tpu_timing timing_of(cli *c, const char *text, const tpu_machine *m) {
  if (!text) return strncmp(m->name, "scalesim", 8) == 0 ? TPU_TIMING_SCALESIM : TPU_TIMING_TPU;
  if (strcmp(text, "tpu") == 0) return TPU_TIMING_TPU;
  if (strcmp(text, "scalesim") == 0) return TPU_TIMING_SCALESIM;
  ir_fail(c->ctx, TN_EUSAGE, "--timing: '%s' is neither tpu nor scalesim", text);
}

static const char more[] =
    "Machines: tpu-v1, tpu-v4, tpu-v4-core, tpu-v6e, scalesim-{os,ws,is}-RxC of any size, or a file that ends in .machine.\n"
    "A topology is a file of SCALE-Sim's, .csv: convolutions, or with a heading Layer,M,N,K matrix products.\n"
    "--timing scalesim: its rules, to the cycle; totals then count from 0 as SCALE-Sim's do, unless --no-faults.\n";

void cli_simulate(cli *c, int argc, char **argv) {
  const char *machine = NULL, *timing = NULL, *dtype = NULL, *dir = NULL;
  bool no_faults = false, compare = false;
  int64_t cores = 0;
  outputs o = {0};
  cli_list inputs = {0};
  cli_option own[] = {
      {"--machine", CLI_TEXT, &machine, "NAME|FILE", "the machine (needed)"},
      {"--timing", CLI_TEXT, &timing, "T", "tpu, or scalesim (default for scalesim-*)"},
      {"--no-faults", CLI_FLAG, &no_faults, NULL, "scalesim: without SCALE-Sim's known faults"},
      {"--cores", CLI_INT, &cores, "N", "with --timing tpu: cores that share each layer, or the model (default: all, or one where that is faster)"},
      {"--dtype", CLI_TEXT, &dtype, "T", "operands of products: f16, bf16, i8, f32 (default: the first that the array takes; of a model what suits it)"},
      {"--csv", CLI_TEXT, &o.csv, "FILE", "a row per layer"},
      {"--trace", CLI_TEXT, &o.trace, "FILE", "a Chrome trace (ui.perfetto.dev, chrome://tracing)"},
      {"--html", CLI_TEXT, &o.page, "FILE", "a page: timeline, roofline, layers"},
      {"--roofline", CLI_TEXT, &o.roofline, "FILE", "the roofline alone, SVG"},
      {"--input", CLI_TEXTS, &inputs, "NAME=FILE", "an input of a model; those not given are random"},
      {"--output-dir", CLI_TEXT, &dir, "DIR", "of a model: computes its outputs too, as DIR/NAME.npy"},
      {"--compare", CLI_FLAG, &compare, NULL, "of a model: computes its outputs too, and compares them with the CPU's"},
  };
  if (!cli_parse(c, argc, argv, IR_COUNT(own), own, true, 1, 1, more)) return;
  const fe_map *file = cli_is_kernel(c->args[0]) ? NULL : fe_map_file(c->ctx, c->args[0]);
  const tpu_program *program = file && tpu_is_program(file->data, file->size) ? tpu_program_decode(c->ctx, file->data, file->size, file->path) : NULL;
  if (!machine && program) machine = program->machine;
  if (!machine) ir_fail(c->ctx, TN_EUSAGE, "tenon simulate: --machine NAME is missing");
  sim s = {.c = c, .path = c->args[0], .machine = tpu_machine_find(c->ctx, machine), .faults = !no_faults, .cores = 1};
  s.timing = timing_of(c, timing, s.machine);
  if (o.trace || o.page) s.recorder = sim_recorder_new(c->ctx, TRACE_SPANS, s.timing == TPU_TIMING_TPU ? s.machine->ub_bytes : 0);
  if (cores > s.machine->cores) ir_fail(c->ctx, TN_EUSAGE, "--cores: %s has %lld", s.machine->name, (long long)s.machine->cores);
  if (ends_with(s.path, ".csv")) {
    const fe_topology *t = fe_topology_load(c->ctx, s.path);
    if (s.timing == TPU_TIMING_SCALESIM) topology_folds(&s, t);
    else topology_compiled(&s, t, dtype, cores);
  } else if (program) program_file(&s, program);
  else {
    cli_model *m = cli_load(c, s.path);
    cli_feed(c, m, &inputs);
    if (s.timing == TPU_TIMING_TPU) model_compiled(&s, m, dtype, cores, dir, compare);
    else {
      c->unscheduled = true;
      cli_lower(c, m);
      model_folds(&s, m);
    }
  }
  report(&s, &o);
}
