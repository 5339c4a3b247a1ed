/* cli_compile.c — tenon compile: an object file and its header. */
#include "frontend/cli.h"
#include "autotune/tpu.h"
#include <string.h>
#include <sys/stat.h>

/* "path/model.o" with another ending. */
static const char *with_ending(tn_ctx *ctx, const char *path, const char *ending) {
  size_t n = strlen(path);
  if (n > 2 && strcmp(path + n - 2, ".o") == 0) n -= 2;
  return ir_format(ctx, "%.*s%s", (int)n, path, ending);
}

/* A C identifier out of the object's file name. */
static const char *prefix_of(tn_ctx *ctx, const char *path) {
  const char *base = strrchr(path, '/');
  char *s = ir_strdup(ctx, base ? base + 1 : path), *dot = strchr(s, '.');
  if (dot) *dot = 0;
  for (char *p = s; *p; p++)
    if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9'))) *p = '_';
  if (!*s || (*s >= '0' && *s <= '9')) s = ir_format(ctx, "m%s", s);
  if (strlen(s) > 64) s[64] = 0;
  return s;
}

static int64_t file_size(const char *path) {
  struct stat s;
  return path && stat(path, &s) == 0 ? (int64_t)s.st_size : 0;
}

/* Inputs that were given become part of the code and leave the signature. */
static void fix_inputs(cli *c, cli_model *m) {
  ir_graph *g = m->graph;
  int n = 0;
  for (int i = 0; i < m->nin; i++) {
    if (m->in[i].data) {
      fe_freeze_input(c->ctx, g, i, m->in[i].data);
      continue;
    }
    g->inputs[n] = g->inputs[i];
    m->in_name[n] = m->in_name[i];
    m->in[n++] = m->in[i];
  }
  g->ninputs = m->nin = n;
}

/* The end of the JSON: where the time went, in seconds. */
static void put_times(cli_json *j, cli *c, const cli_model *m, double total) {
  cj_real(j, "import_s", m->import_s);
  cj_real(j, "lower_s", m->lower_s);
  cj_real(j, "compile_s", m->compile_s);
  cj_real(j, "total_s", total);
  cj_end(j, c);
}

/* For a systolic machine: a program file for the simulator. */
static void compile_tpu(cli *c, const char *machine, const char *precision, bool tune, const char *out, const cli_list *fixed) {
  tn_ctx *ctx = c->ctx;
  const tpu_machine *t = tpu_machine_find(ctx, machine);
  double start = rt_now();
  cli_model *m = cli_load(c, c->args[0]);
  cli_feed(c, m, fixed);
  if (m->graph) fix_inputs(c, m);
  rt_tpu_options o = {.precision = precision ? lw_precision_parse(ctx, precision) : rt_tpu_precision(t), .jobs = c->threads ? (int)c->threads : rt_cpu_count()};
  rt_tpu_build b = cli_lower_tpu(c, m, t, &o);
  const tpu_program *p = b.tpu;
  at_tpu_result r = {0};
  if (tune) {
    at_tpu_task task = {b.program, t, lw_precision_name(o.precision), b.weights, 0};
    at_tpu_options to = {.store = at_store_open(ctx, c->db, 0), .label = m->path};
    r = at_tpu_tune(ctx, &task, &to);
    at_store_close(to.store);
    p = rt_tpu_program(ctx, b.program, t, &(tpu_options){.tiles = r.tiles, .weights = b.weights});
  }
  int64_t instructions = 0;
  for (int k = 0; k < p->ncores; k++) instructions += p->core[k].n;
  tpu_program_write(ctx, p, out);
  double total = rt_now() - start;
  int64_t bytes = file_size(out);
  if (c->json) {
    cli_json j;
    cj_begin(&j, ctx);
    cj_text(&j, "program", out);
    cj_text(&j, "machine", t->name);
    cj_int(&j, "program_bytes", bytes);
    cj_int(&j, "instructions", instructions);
    cj_int(&j, "cores", p->ncores);
    if (tune) {
      cj_int(&j, "trials", r.trials);
      cj_int(&j, "cycles_before", r.first);
      cj_int(&j, "cycles", r.last);
    }
    cj_int(&j, "dram_bytes", p->dram_bytes);
    cj_int(&j, "weights_bytes", m->program->weights_bytes);
    put_times(&j, c, m, total);
    return;
  }
  fprintf(c->out, "%s: %s, %lld instructions for %s, %s\n", out, cli_bytes(c, (double)bytes), (long long)instructions, t->name, cli_time(c, total));
  if (tune) fprintf(c->out, "%d programs timed: %lld cycles before, %lld now\n", r.trials, (long long)r.first, (long long)r.last);
}

void cli_compile(cli *c, int argc, char **argv) {
  tn_ctx *ctx = c->ctx;
  const char *out = NULL, *header = NULL, *prefix = NULL, *target = NULL, *weights = "embed", *weights_file = NULL, *plan = NULL, *precision = NULL;
  cli_list fixed = {0};
  bool tune = false;
  cli_option own[] = {
      {"-o", CLI_TEXT, &out, "FILE", "the object file"},
      {"--header", CLI_TEXT, &header, "FILE", "the C header (default: beside the object, .h)"},
      {"--prefix", CLI_TEXT, &prefix, "P", "of the C names (default: from the object's name)"},
      {"--target", CLI_TEXT, &target, "T", "cpu (default); cuda:ARCH[,ARCH...]: launches on a GPU; tpu:NAME: a program file for the simulated machine"},
      {"--precision", CLI_TEXT, &precision, "P", "of tpu:NAME's products: fp32, bf16, int8 (default: what the machine is made for)"},
      {"--tune", CLI_FLAG, &tune, NULL, "with tpu:NAME: tiles by timing the program with each; exact, so the same every time"},
      {"--weights", CLI_TEXT, &weights, "MODE", "embed (default): in the object; file: beside it; pointer: packed by the caller"},
      {"--weights-file", CLI_TEXT, &weights_file, "FILE", "with --weights file (default: beside the object, .weights)"},
      {"--input", CLI_TEXTS, &fixed, "NAME=FILE", "compiles this input in as a constant"},
      {"--plan-out", CLI_TEXT, &plan, "FILE", "writes the schedules of all kernels as a plan (for --plan)"},
  };
  if (!cli_parse(c, argc, argv, IR_COUNT(own), own, true, 1, 1, NULL)) return;
  if (!out) ir_fail(ctx, TN_EUSAGE, "tenon compile: -o FILE is missing");
  const char *archs = NULL;
  if (target && strcmp(target, "cpu")) {
    if (strncmp(target, "tpu:", 4) == 0) {
      compile_tpu(c, target + 4, precision, tune, out, &fixed);
      return;
    }
    if (strncmp(target, "cuda:", 5)) ir_fail(ctx, TN_EUSAGE, "--target: '%s' is none of cpu, cuda:ARCH, tpu:NAME", target);
    archs = target + 5;
  }
  if (!header) header = with_ending(ctx, out, ".h");
  if (!prefix) prefix = prefix_of(ctx, out);
  cg_weights_mode mode = cg_weights_mode_parse(ctx, weights);
  if (!weights_file) weights_file = with_ending(ctx, out, ".weights");
  cg_check_prefix(ctx, prefix);

  double start = rt_now();
  cli_model *m = cli_load(c, c->args[0]);
  cli_feed(c, m, &fixed);
  if (m->graph) fix_inputs(c, m);
  if (archs && plan) ir_fail(ctx, TN_EUNSUPPORTED, "--plan-out is not there for GPUs");
  if (archs) cli_lower_cuda(c, m, fe_cuda_target(ctx, archs));
  else cli_lower(c, m);
  if (plan) cli_write_plan(c, m, plan);
  double before = rt_now();
  rt_object_options o = {.target = m->target, .jobs = c->threads ? (int)c->threads : rt_cpu_count()};
  o.files = (cg_object_options){.path = out, .header = header, .prefix = prefix, .weights = mode, .weights_path = weights_file};
  ir_where(ctx, m->path);
  if (archs) fe_cuda_object(ctx, m->program, archs, c->db, cli_accuracy(c), &o);
  else rt_write_object(ctx, m->program, &o);
  ir_where(ctx, NULL);
  m->compile_s = rt_now() - before;
  double total = rt_now() - start;
  int64_t bytes = file_size(out);
  bool beside = mode == CG_WEIGHTS_FILE && m->program->weights_bytes;
  if (c->json) {
    cli_json j;
    cj_begin(&j, ctx);
    cj_text(&j, "object", out);
    cj_text(&j, "header", header);
    cj_text(&j, "weights", beside ? weights_file : NULL);
    cj_text(&j, "prefix", prefix);
    cj_text(&j, "target", archs ? target : m->target->name);
    cj_text(&j, "triple", m->target->triple);
    cj_int(&j, "object_bytes", bytes);
    cj_int(&j, "weights_bytes", m->program->weights_bytes);
    cj_int(&j, "arena_bytes", m->program->arena_bytes);
    cj_int(&j, "live_peak_bytes", m->program->live_peak_bytes);
    cj_int(&j, "kernels", m->program->nkernels);
    put_times(&j, c, m, total);
    return;
  }
  fprintf(c->out, "%s: %s%s, %d kernels for %s, %s\n", out, cli_bytes(c, (double)bytes), mode == CG_WEIGHTS_EMBED ? " with the weights" : "",
          m->program->nkernels, archs ? target : m->target->name, cli_time(c, total));
  fprintf(c->out, "%s: %s_run(); weights %s, arena %s\n", header, prefix, cli_bytes(c, (double)m->program->weights_bytes),
          cli_bytes(c, (double)m->program->arena_bytes));
  if (beside) fprintf(c->out, "%s: %s\n", weights_file, cli_bytes(c, (double)file_size(weights_file)));
}
