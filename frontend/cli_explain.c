/* cli_explain.c — tenon explain: what became of a model, kernel by kernel. */
#include "autotune/lookup.h"
#include "frontend/cli.h"
#include <string.h>

/* ---- facts, shared with view ---- */

static bool is_output(const ir_buf *b) { return (b->access & IR_OUT) != 0; }

cli_kernel_facts *cli_facts(cli *c, const cli_model *m) {
  tn_ctx *ctx = c->ctx;
  const ir_program *p = m->program;
  cli_kernel_facts *f = IR_NEW_ARRAY(ctx, cli_kernel_facts, p->nkernels + 1);
  double lanes = cg_target_lanes(m->target, TN_F32), peak = lanes * 2 * (m->target->fma ? 2 : 1) * 3e9;
  for (int i = 0; i < p->nkernels; i++) {
    f[i].problem = lw_problem_of(ctx, p->kernels[i].kernel);
    double compute = f[i].problem.flops / peak, move = f[i].problem.bytes / 10e9;
    const char *level = f[i].problem.bytes <= (double)m->target->l1_bytes   ? "first-level cache"
                        : f[i].problem.bytes <= (double)m->target->l2_bytes ? "second-level cache"
                                                                            : "memory";
    f[i].limit = compute > move ? "compute" : level;
    f[i].estimate = compute > move ? compute : move;
    /* steps that the default schedule tried in vain: "KERNEL: default schedule leaves out ..." */
    ir_text t = {.ctx = ctx};
    const char *name = p->kernels[i].kernel->name, *mark = ": default schedule leaves out ";
    size_t n = strlen(name);
    for (const char *line = c->notes(c->notes_user); *line; line += strcspn(line, "\n"), line += *line == '\n') {
      if (strncmp(line, name, n) || strncmp(line + n, mark, strlen(mark))) continue;
      const char *what = line + n + strlen(mark);
      ir_put_bytes(&t, what, strcspn(what, "\n"));
      ir_put(&t, "\n");
    }
    f[i].refused = ir_text_str(&t);
  }
  for (int pass = 0; pass < 2; pass++) {
    const ir_inst *insts = pass ? p->run : p->pack;
    int n = pass ? p->nrun : p->npack;
    for (int i = 0; i < n; i++) {
      if (insts[i].kind != IR_CALL) continue;
      cli_kernel_facts *k = &f[insts[i].kernel];
      if (!pass) k->npack++;
      else IR_PUSH(ctx, k->calls, k->ncalls, i);
    }
  }
  return f;
}

static const char *buffer_text(tn_ctx *ctx, const ir_buf *b) {
  ir_text t = {.ctx = ctx};
  ir_put(&t, "%s %s: %s[", b->constant ? "const" : is_output(b) ? "out" : "in", b->name, ir_dtype_name(b->dtype));
  for (int i = 0; i < b->rank; i++) ir_put(&t, "%s%s", i ? "," : "", ix_print(ctx, b->shape[i]));
  ir_put(&t, "]");
  if (b->layout) ir_put(&t, " layout \"%s\"", b->layout->text);
  return t.s;
}

static void indented(FILE *out, const char *text, const char *by) {
  for (const char *p = text; *p;) {
    size_t n = strcspn(p, "\n");
    fprintf(out, "%s%.*s\n", by, (int)n, p);
    p += n + (p[n] == '\n');
  }
}

static void text_out(cli *c, const cli_model *m, const cli_kernel_facts *facts, const char *only, bool loops) {
  const ir_program *p = m->program;
  tn_ctx *ctx = c->ctx;
  if (!only) {
    fprintf(c->out, "%s for %s\n", m->path, m->target->name);
    for (int i = 0; i < m->npasses; i++)
      fprintf(c->out, "  pass %-8s %5d nodes  %s\n", m->passes[i].name, m->passes[i].nodes, cli_time(c, m->passes[i].seconds));
    double flops, seconds = cli_estimate(c, m, &flops);
    fprintf(c->out, "  %d kernels, %d calls in a run, %d when packing\n", p->nkernels, p->nrun, p->npack);
    fprintf(c->out, "  weights %s, arena %s (at least %s are alive at once), %.3g GFLOP, in the order of %s on one core\n",
            cli_bytes(c, (double)p->weights_bytes), cli_bytes(c, (double)p->arena_bytes), cli_bytes(c, (double)p->live_peak_bytes), flops / 1e9, cli_time(c, seconds));
    for (int i = 0; i < m->ngroups; i++) fprintf(c->out, "  group %s %s %s\n", m->groups[i].hash, m->cuts && strstr(m->cuts, m->groups[i].hash) ? "is cut" : "may be cut", m->groups[i].text);
    fprintf(c->out, "\n");
  }
  for (int i = 0; i < p->nkernels; i++) {
    const ir_program_kernel *k = &p->kernels[i];
    const cli_kernel_facts *f = &facts[i];
    if (only && strcmp(only, k->kernel->name)) continue;
    fprintf(c->out, "kernel %s: %s\n", k->kernel->name, lw_problem_print(ctx, &f->problem));
    fprintf(c->out, "  %s moved at least; limit: %s, %s or so\n", cli_bytes(c, f->problem.bytes), f->limit, cli_time(c, f->estimate));
    for (int b = 0; b < k->lowered->nbufs; b++) fprintf(c->out, "  %s\n", buffer_text(ctx, k->lowered->bufs[b]));
    for (int a = 0; a < f->ncalls && a < 8; a++) fprintf(c->out, "  call %d: %s\n", f->calls[a], p->run[f->calls[a]].name);
    if (f->ncalls > 8) fprintf(c->out, "  ... %d calls in all\n", f->ncalls);
    if (f->npack) fprintf(c->out, "  %d calls when packing\n", f->npack);
    if (*k->schedule) {
      fputs("  schedule\n", c->out);
      indented(c->out, k->schedule, "    ");
    } else fputs("  no schedule: as its op wrote it\n", c->out);
    if (*f->refused) {
      fputs("  left out\n", c->out);
      indented(c->out, f->refused, "    ");
    }
    if (loops) {
      fputs("  loops\n", c->out);
      indented(c->out, ir_kernel_print(ctx, k->kernel), "    ");
      if (k->lowered != k->kernel) {
        fputs("  scheduled\n", c->out);
        indented(c->out, ir_kernel_print(ctx, k->lowered), "    ");
      }
    }
    fputc('\n', c->out);
  }
}

static void json_out(cli *c, const cli_model *m, const cli_kernel_facts *facts, const char *only, bool loops) {
  const ir_program *p = m->program;
  cli_json j;
  cj_begin(&j, c->ctx);
  cj_text(&j, "model", m->path);
  cj_text(&j, "target", m->target->name);
  cj_int(&j, "weights_bytes", p->weights_bytes);
  cj_int(&j, "arena_bytes", p->arena_bytes);
  cj_int(&j, "live_peak_bytes", p->live_peak_bytes);
  cj_open(&j, "passes", '[');
  for (int i = 0; i < m->npasses; i++) {
    cj_open(&j, NULL, '{');
    cj_text(&j, "name", m->passes[i].name);
    cj_int(&j, "nodes", m->passes[i].nodes);
    cj_real(&j, "seconds", m->passes[i].seconds);
    cj_close(&j, '}');
  }
  cj_close(&j, ']');
  cj_open(&j, "kernels", '[');
  for (int i = 0; i < p->nkernels; i++) {
    const ir_program_kernel *k = &p->kernels[i];
    const cli_kernel_facts *f = &facts[i];
    if (only && strcmp(only, k->kernel->name)) continue;
    cj_open(&j, NULL, '{');
    cj_text(&j, "name", k->kernel->name);
    cj_text(&j, "hash", at_kernel_hash(c->ctx, k->kernel));
    cj_text(&j, "problem", lw_problem_print(c->ctx, &f->problem));
    cj_real(&j, "flops", f->problem.flops);
    cj_real(&j, "bytes", f->problem.bytes);
    cj_text(&j, "limit", f->limit);
    cj_real(&j, "estimated_s", f->estimate);
    cj_open(&j, "calls", '[');
    for (int a = 0; a < f->ncalls; a++) cj_text(&j, NULL, p->run[f->calls[a]].name);
    cj_close(&j, ']');
    cj_int(&j, "pack_calls", f->npack);
    cj_text(&j, "schedule", k->schedule);
    cj_text(&j, "left_out", f->refused);
    if (loops) {
      cj_text(&j, "loops", ir_kernel_print(c->ctx, k->kernel));
      cj_text(&j, "scheduled", ir_kernel_print(c->ctx, k->lowered));
    }
    cj_close(&j, '}');
  }
  cj_close(&j, ']');
  cj_end(&j, c);
}

void cli_explain(cli *c, int argc, char **argv) {
  const char *only = NULL, *program = NULL, *target = NULL;
  bool loops = false, emulate = false;
  cli_list inputs = {0};
  cli_option own[] = {
      {"--kernel", CLI_TEXT, &only, "NAME", "only this kernel, with its loops"},
      {"--loops", CLI_FLAG, &loops, NULL, "the loops of every kernel, before and after its schedule"},
      {"--target", CLI_TEXT, &target, "T", "cpu (default), or cuda:ARCH: launches, tiles and cubins, no GPU needed"},
      {"--emulate", CLI_FLAG, &emulate, NULL, "with cuda:ARCH: runs the launches in the emulator and compares with the interpreter"},
      {"--program", CLI_TEXT, &program, "FILE", "writes the program's text there; tenon reads it as a model"},
      {"--input", CLI_TEXTS, &inputs, "NAME=FILE", "an input that decides shapes"},
  };
  if (!cli_parse(c, argc, argv, IR_COUNT(own), own, true, 1, 1, "MODEL may be a kernel: tenon explain gemm:f32:512x512x512\n")) return;
  cli_model *m = cli_load(c, c->args[0]);
  cli_feed(c, m, &inputs);
  if (target && strcmp(target, "cpu")) {
    if (strncmp(target, "cuda:", 5)) ir_fail(c->ctx, TN_EUSAGE, "--target: explain knows cpu and cuda:ARCH, not '%s'", target);
    cli_explain_cuda(c, m, target + 5, only, loops || only, emulate);
    return;
  }
  cli_lower(c, m);
  cli_need_one_size(c, m);
  if (program) {
    const char *text = ir_program_print(c->ctx, m->program);
    fe_write_file(c->ctx, program, text, strlen(text));
  }
  if (only) {
    bool found = false;
    for (int i = 0; i < m->program->nkernels; i++) found |= strcmp(m->program->kernels[i].kernel->name, only) == 0;
    if (!found) ir_fail(c->ctx, TN_EUSAGE, "--kernel: there is no kernel '%s'", only);
  }
  cli_kernel_facts *facts = cli_facts(c, m);
  if (c->json) json_out(c, m, facts, only, loops || only);
  else text_out(c, m, facts, only, loops || only);
}
