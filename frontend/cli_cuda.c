/* cli_cuda.c — models on GPUs: what explain says of launches, tiles and cubins. */
#include "frontend/cli.h"
#include "ir/interp.h"
#include "runtime/cuda_lib.h"
#include "runtime/cuda_library.h"
#include "runtime/cuda_plan.h"
#include "runtime/program_interp.h"
#include <math.h>
#include <string.h>

/* What libraries offer for a contraction or attention: three of them, or `all`. */
static void put_candidates(cli *c, const rt_cuda_plan *p, const ir_kernel *k, bool all) {
  rt_cuda_candidate_options o = {.ieee = cli_accuracy(c) < 1e-3};
  rt_cuda_candidates r = rt_cuda_library_candidates(c->ctx, p->target, k, &o);
  if (r.why) {
    fprintf(c->out, "  library: none: %s\n", r.why);
    return;
  }
  fprintf(c->out, "  library: %d plans", r.n);
  if (r.inexact) fprintf(c->out, ", %d more of less precision than asked for", r.inexact);
  fputc('\n', c->out);
  for (int i = 0; i < r.n && (all || i < 3); i++)
    fprintf(c->out, "    %s: workspace %lld B%s%s\n", r.list[i].text, (long long)r.list[i].workspace, *r.list[i].notes ? ", " : "", r.list[i].notes);
}

static void put_kernel(cli *c, const rt_cuda_plan *p, int i, bool code, bool all) {
  const rt_cuda_kernel *k = &p->kernels[i];
  tn_ctx *ctx = c->ctx;
  lw_problem problem = lw_problem_of(ctx, k->kernel);
  fprintf(c->out, "kernel %s: %s\n  %s\n", k->kernel->name, lw_problem_print(ctx, &problem), k->library ? k->library : k->tile->choice);
  for (const char *l = k->left; *l; l += strcspn(l, "\n") + 1) fprintf(c->out, "  left: %.*s\n", (int)strcspn(l, "\n"), l);
  for (int n = 0; n < k->code->nlaunches; n++) {
    const cu_launch *l = &k->code->launches[n];
    fprintf(c->out, "  launch %s: %s blocks of %d threads", l->symbol, ix_print(ctx, l->grid), l->threads);
    if (l->shared_bytes) fprintf(c->out, ", %s shared", cli_bytes(c, (double)l->shared_bytes));
    for (int f = 0; k->cubin && f < k->cubin->nfunctions; f++)
      if (strcmp(k->cubin->functions[f].symbol, l->symbol) == 0) fprintf(c->out, ", %d registers", k->cubin->functions[f].registers);
    if (l->scratch_bytes) fprintf(c->out, ", %s scratch a block", cli_bytes(c, (double)l->scratch_bytes));
    if (l->passed_bytes) fprintf(c->out, ", %s passed on", cli_bytes(c, (double)l->passed_bytes));
    fputc('\n', c->out);
  }
  if (k->cubin) fprintf(c->out, "  cubin %s, %s\n", cli_bytes(c, (double)k->cubin->size), k->cubin->cached ? "from the store" : cli_time(c, k->cubin->seconds));
  if (problem.kind == LW_CONTRACTION || problem.attention) put_candidates(c, p, k->kernel, all);
  if (code) fprintf(c->out, "%s\n", k->code->source);
  fputc('\n', c->out);
}

static void text_out(cli *c, const cli_model *m, const rt_cuda_plan *p, const char *only, bool code) {
  const ir_program *g = p->program;
  int kernels = 0;
  for (int i = 0; i < p->nkernels; i++) kernels += p->kernels[i].kernel != NULL;
  if (!only) {
    fprintf(c->out, "%s for cuda:%s\n", m->path, p->target->name);
    for (int i = 0; i < RT_CUDA_LIBS; i++) {
      const rt_cuda_lib *l = rt_cuda_library((rt_cuda_which)i);
      if (l->why) fprintf(c->out, "  %s: not there: %s%s\n", l->name, l->why, i == RT_CUDA_NVRTC ? "; nothing is compiled" : "");
      else fprintf(c->out, "  %s: %s, version %d\n", l->name, l->path, l->version);
    }
    fprintf(c->out, "  %d kernels, %d launches %s; compiled in %s, %d from the store\n", kernels, p->nlaunches, p->walked ? "that the host decides on, run by run" : "in a run as one CUDA graph", cli_time(c, p->compile_s), p->hits);
    fprintf(c->out, "  weights %s, arena %s, scratch %s\n\n", cli_bytes(c, (double)g->weights_bytes), cli_bytes(c, (double)g->arena_bytes), cli_bytes(c, (double)p->scratch_bytes));
  }
  for (int i = 0; i < p->nkernels; i++)
    if (p->kernels[i].kernel && (!only || strcmp(only, p->kernels[i].kernel->name) == 0)) put_kernel(c, p, i, code, only != NULL);
}

static void json_out(cli *c, const cli_model *m, const rt_cuda_plan *p, const char *only) {
  cli_json j;
  cj_begin(&j, c->ctx);
  cj_text(&j, "model", m->path);
  cj_text(&j, "target", p->target->name);
  cj_int(&j, "launches", p->nlaunches);
  cj_int(&j, "weights_bytes", p->program->weights_bytes);
  cj_int(&j, "arena_bytes", p->program->arena_bytes);
  cj_int(&j, "scratch_bytes", p->scratch_bytes);
  cj_real(&j, "compile_s", p->compile_s);
  cj_int(&j, "from_store", p->hits);
  cj_open(&j, "kernels", '[');
  for (int i = 0; i < p->nkernels; i++) {
    const rt_cuda_kernel *k = &p->kernels[i];
    if (!k->kernel || (only && strcmp(only, k->kernel->name))) continue;
    cj_open(&j, NULL, '{');
    cj_text(&j, "name", k->kernel->name);
    cj_text(&j, "choice", k->tile->choice);
    cj_text(&j, "left", k->left);
    cj_int(&j, "launches", k->code->nlaunches);
    cj_int(&j, "threads", k->tile->threads);
    if (k->cubin) cj_int(&j, "cubin_bytes", (int64_t)k->cubin->size);
    cj_close(&j, '}');
  }
  cj_close(&j, ']');
  cj_end(&j, c);
}

/* The largest difference of any output between the emulated plan and the interpreter, relative to the largest value. */
static double compare(cli *c, cli_model *m, const rt_cuda_plan *p) {
  tn_ctx *ctx = c->ctx;
  cli_fill(c, m);
  const void **in = IR_NEW_ARRAY(ctx, const void *, m->nin + 1);
  void **want = IR_NEW_ARRAY(ctx, void *, m->nout + 1);
  for (int i = 0; i < m->nin; i++) in[i] = m->in[i].data;
  for (int i = 0; i < m->nout; i++) want[i] = ir_alloc(ctx, (size_t)cli_out_slot(m, i)->bytes + 1);
  void *state = p->program->state_bytes ? ir_alloc(ctx, (size_t)p->program->state_bytes) : NULL;
  rt_cuda_plan_emulate(ctx, p, in, m->out, m->at, state, 1);
  rt_program_interp(ctx, p->program, in, want, NULL, state, &(rt_interp_options){.dims = m->at});
  double worst = 0;
  for (int i = 0; i < m->nout; i++) {
    const ir_slot *s = cli_out_slot(m, i);
    size_t size = ir_dtype_bytes(s->dtype);
    double top = 0, off = 0;
    for (int64_t e = 0; e < cli_elements(s); e++) {
      ir_scalar a = ir_scalar_load(s->dtype, (char *)want[i] + (size_t)e * size), b = ir_scalar_load(s->dtype, (char *)m->out[i] + (size_t)e * size);
      double x = ir_is_float(s->dtype) ? a.f : (double)a.i, y = ir_is_float(s->dtype) ? b.f : (double)b.i;
      if (x == y || (isnan(x) && isnan(y))) continue;
      if (fabs(x) > top && isfinite(x)) top = fabs(x);
      if (!(fabs(x - y) <= off)) off = fabs(x - y);
    }
    if (off > 0 && !(off / (top > 0 ? top : 1) <= worst)) worst = off / (top > 0 ? top : 1);
  }
  return worst;
}

void cli_lower_cuda(cli *c, cli_model *m, const cu_target *t) {
  if (!m->graph) ir_fail(c->ctx, TN_EUNSUPPORTED, "%s: a program's text cannot be planned for a GPU: give the model or its graph", m->path);
  const lw_dim *dims = cli_bind_sizes(c, m);
  if (c->layout && strcmp(c->layout, "NCHWc") == 0) ir_fail(c->ctx, TN_EUSAGE, "--layout NCHWc: kernels for GPUs have NHWC or NCHW");
  lw_layout_choice layout = !c->layout ? LW_LAYOUT_AUTO : strcmp(c->layout, "NCHW") == 0 ? LW_LAYOUT_NCHW : LW_LAYOUT_NHWC;
  if (!c->layout && !dims) layout = fe_cuda_layout(c->ctx, m->graph, t, c->db, cli_accuracy(c));
  ir_where(c->ctx, m->path);
  double start = rt_now();
  lw_options o = rt_cuda_lowering(c->ctx, layout);
  m->program = dims ? rt_cuda_lower_sizes(c->ctx, m->graph, c->dims.n, dims, &o) : rt_cuda_lower(c->ctx, m->graph, layout);
  m->lower_s = rt_now() - start;
  ir_where(c->ctx, NULL);
  cli_name_outputs(c, m);
  cli_settle_sizes(c, m);
}

void cli_explain_cuda(cli *c, cli_model *m, const char *arch, const char *only, bool code, bool emulate) {
  tn_ctx *ctx = c->ctx;
  const cu_target *t = cu_target_find(ctx, arch);
  cli_lower_cuda(c, m, t);
  ir_where(ctx, m->path);
  const rt_cuda_plan *p = fe_cuda_plan(ctx, m->program, t, c->db, cli_accuracy(c), c->threads ? (int)c->threads : rt_cpu_count(), true);
  ir_where(ctx, NULL);
  if (c->json) json_out(c, m, p, only);
  else text_out(c, m, p, only, code);
  if (!emulate) return;
  double worst = compare(c, m, p);
  fprintf(stderr, "emulated: the largest difference to the interpreter is %.2g\n", worst);
  if (!(worst <= 1e-2)) ir_fail(ctx, TN_EWRONG, "the emulated launches differ from the interpreter by %.3g", worst);
}
