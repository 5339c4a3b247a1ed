/* cli_check.c — tenon check: every problem at once, and what a model will take. */
#include "frontend/cli.h"
#include "lower/problem.h"
#include "runtime/cuda_lib.h"
#include <stdlib.h>
#include <math.h>
#include <string.h>

/* ---- estimates ---- */

typedef struct estimate {
  cli *c;
  const cli_model *m;
  const lw_problem *of; /* by kernel */
  double peak, memory, seconds, flops;
} estimate;

/* A value at the sizes that the model is run at; -1: it depends on more. */
static int64_t value_at(const estimate *x, ix e) {
  int64_t v;
  for (int i = 0; i < x->m->program->ndims; i++) e = ix_subst1(x->c->ctx, e, x->m->program->dims[i].var, ix_index(x->c->ctx, x->m->at[i]));
  return ix_const_value(e, &v) ? v : -1;
}

static void add_calls(estimate *x, int n, const ir_inst *insts, double times) {
  for (int i = 0; i < n; i++) {
    const ir_inst *c = &insts[i];
    if (c->kind == IR_INST_FOR) add_calls(x, c->nbody, c->body, times * (double)value_at(x, c->value));
    else if (c->kind == IR_INST_IF && x->m->at) value_at(x, c->value) ? add_calls(x, c->nbody, c->body, times) : add_calls(x, c->nother, c->other, times);
    if (c->kind != IR_CALL) continue;
    const lw_problem *p = &x->of[c->kernel];
    x->seconds += times * fmax(p->flops / x->peak, p->bytes / x->memory);
    x->flops += times * p->flops;
  }
}

/* A core that does two vector operations a cycle at 3 GHz and moves 10 GB/s: only the order of
 * magnitude is meant. */
double cli_estimate(cli *c, const cli_model *m, double *flops) {
  double lanes = cg_target_lanes(m->target, TN_F32);
  lw_problem *of = IR_NEW_ARRAY(c->ctx, lw_problem, m->program->nkernels + 1);
  for (int i = 0; i < m->program->nkernels; i++) of[i] = lw_problem_of(c->ctx, m->program->kernels[i].kernel);
  estimate x = {.c = c, .m = m, .of = of, .peak = lanes * 2 * (m->target->fma ? 2 : 1) * 3e9, .memory = 10e9};
  add_calls(&x, m->program->nrun, m->program->run, 1);
  *flops = x.flops;
  return x.seconds;
}

typedef struct attempt {
  cli *c;
  cli_model *m;
  bool scheduled; /* an estimate needs no schedules */
} attempt;

static void lower_again(tn_ctx *ctx, void *arg) {
  (void)ctx;
  attempt *a = arg;
  bool unscheduled = a->c->unscheduled;
  a->c->unscheduled = !a->scheduled;
  a->m = cli_load(a->c, a->m->path);
  cli_lower(a->c, a->m);
  a->c->unscheduled = unscheduled;
}

/* ---- quantised layers ---- */

static bool is_quantised(const ir_graph *g) {
  static const char *const ops[] = {"DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QGemm"};
  for (int i = 0; i < g->nnodes; i++)
    for (int k = 0; k < IR_COUNT(ops); k++)
      if (strcmp(g->nodes[i]->op->name, ops[k]) == 0) return true;
  return false;
}

/* Products that a lane of 32 bits adds up in a cycle, of integers as the kernel makes them. What stands alone, as in a
 * depthwise layer, is widened, multiplied and added; lower/README.md tells the others. */
static double integer_rate(const cg_target *t, const lw_problem *p, const char *schedule) {
  bool bytes = p->a->u.buf->dtype != TN_I16 && p->b->u.buf->dtype != TN_I16;
  if (strstr(schedule, "algorithm winograd")) return 5;
  if (!strstr(schedule, "tensorize dot")) return 1.3;
  if (bytes) return t->vnni ? 8 : 3.4;
  return t->arch == CG_X86_64 ? 3 : 2;
}

/* How often the time of the same layer in floats a kernel of integers takes, by the numbers of a core with two vector units:
 * products or, where they take longer, bytes at 10 a cycle, and what is done to each vector of results. On an AVX2
 * machine layers of mobilenet_v2 took between 0.7 times and just what it says. 0: not known. */
static double times_as_floats(cli *c, const cg_target *t, const ir_program_kernel *k, const lw_problem *p) {
  enum { BYTES = 10 };
  const double requantize = 5.5, store = 1.5;
  double lanes = cg_target_lanes(t, TN_F32), vectors = 1 / lanes, sums = p->flops / 2 / lanes, floats = 0;
  int64_t n;
  for (int i = 0; i < p->nout; i++) vectors *= (double)p->extent[i];
  for (int i = 0; i < k->kernel->nbufs; i++) {
    const ir_buf *b = k->kernel->bufs[i];
    if (b->constant && b != p->b->u.buf && b != p->a->u.buf) continue; /* scales, tables of the integers' own */
    if (!ix_const_value(ir_buf_elements(c->ctx, b), &n)) return 0;
    floats += 4 * (double)n;
  }
  double rate = (t->fma ? 2 : 1) * (strstr(k->schedule, "algorithm winograd") ? 2 : 1);
  double integer = fmax(sums / integer_rate(t, p, k->schedule), p->bytes / BYTES) + vectors * requantize;
  double real = fmax(sums / rate, floats / BYTES) + vectors * store;
  return vectors > 0 && real > 0 ? integer / real : 0;
}

/* Calls of products in integers that would be faster in floats. */
static int slow_integers(cli *c, const cli_model *m, const char ***names) {
  int n = 0;
  *names = NULL;
  for (int i = 0; i < m->program->nrun; i++) {
    const ir_inst *call = &m->program->run[i];
    if (call->kind != IR_CALL) continue;
    const ir_program_kernel *k = &m->program->kernels[call->kernel];
    lw_problem p = lw_problem_of(c->ctx, k->kernel);
    if (p.kind != LW_CONTRACTION || p.dtype != TN_I32 || p.a->u.buf->dtype == TN_I32 || p.flops < 1e5) continue; /* no trifle */
    if (times_as_floats(c, m->target, k, &p) > 1.2) IR_PUSH(c->ctx, *names, n, call->name);
  }
  return n;
}

/* ---- what there is to say about a graph ---- */

static const char *type_text(tn_ctx *ctx, const ir_value *v) {
  ir_text s = {.ctx = ctx};
  ir_put(&s, "%s[", v->dtype == TN_NONE ? "?" : ir_dtype_name(v->dtype));
  for (int i = 0; i < v->rank; i++) ir_put(&s, "%s%s", i ? "," : "", ix_print(ctx, v->dims[i]));
  ir_put(&s, v->rank < 0 ? "?]" : "]");
  return s.s;
}

typedef struct op_count {
  const char *op;
  int n;
} op_count;

static int by_count(const void *a, const void *b) {
  const op_count *x = a, *y = b;
  return x->n != y->n ? y->n - x->n : strcmp(x->op, y->op);
}

static int count_ops(tn_ctx *ctx, const fe_onnx_graph *g, op_count **out) {
  int n = 0;
  *out = NULL;
  for (int i = 0; i < g->n_node; i++) {
    int k = 0;
    while (k < n && strcmp((*out)[k].op, g->node[i].op)) k++;
    if (k == n) IR_PUSH(ctx, *out, n, (op_count){g->node[i].op, 0});
    (*out)[k].n++;
  }
  if (n) qsort(*out, (size_t)n, sizeof **out, by_count);
  return n;
}

/* Symbolic dimensions that have no size yet. */
static int open_dims(cli *c, const ir_graph *g, const char ***names) {
  int n = 0;
  *names = NULL;
  for (int i = 0; i < g->ninputs; i++)
    for (int a = 0; a < g->inputs[i]->rank; a++) {
      ix d = g->inputs[i]->dims[a];
      if (d->op != IX_VAR) continue;
      bool known = false;
      for (int k = 0; k < n; k++) known |= strcmp((*names)[k], d->u.var->name) == 0;
      if (!known) IR_PUSH(c->ctx, *names, n, d->u.var->name);
    }
  return n;
}

static void give_sizes(cli *c, ir_graph *g) {
  for (int i = 0; i < c->dims.n; i++) {
    const char *name, *size;
    cli_pair(c, "--dim", c->dims.items[i], &name, &size);
    int64_t v = cli_integer(c, "--dim", size);
    for (int k = 0; k < g->ninputs; k++)
      for (int a = 0; a < g->inputs[k]->rank; a++) {
        ix d = g->inputs[k]->dims[a];
        if (d->op == IX_VAR && strcmp(d->u.var->name, name) == 0) g->inputs[k]->dims[a] = ix_index(c->ctx, v);
      }
  }
}

/* ---- what there is of CUDA ---- */

typedef struct gpu {
  const char *name, *target, *why; /* name null: no GPU that can be used, why says more */
} gpu;

static void ask_gpu(tn_ctx *ctx, void *arg) {
  gpu *g = arg;
  g->target = rt_cuda_device_target(ctx, 0, &g->name)->name;
}

static gpu find_gpu(tn_ctx *ctx) {
  gpu g = {0};
  if (ir_protect(ctx, ask_gpu, &g) != TN_OK) g = (gpu){.why = ir_strdup(ctx, ir_error(ctx))};
  return g;
}

static void cuda_json(cli_json *j, const gpu *g) {
  cj_open(j, "cuda", '{');
  cj_text(j, "gpu", g->name);
  cj_text(j, "target", g->target);
  cj_text(j, "why", g->why);
  for (int i = 0; i < RT_CUDA_LIBS; i++) {
    const rt_cuda_lib *l = rt_cuda_library((rt_cuda_which)i);
    cj_open(j, l->name, '{');
    cj_text(j, "path", l->path);
    cj_int(j, "version", l->version);
    cj_close(j, '}');
  }
  cj_close(j, '}');
}

static void cuda_text(cli *c, const gpu *g) {
  if (g->name) fprintf(c->out, "  GPU: %s, code for %s\n", g->name, g->target);
  else fprintf(c->out, "  GPU: none to be used: %s\n", g->why);
  for (int i = 0; i < RT_CUDA_LIBS; i++) {
    const rt_cuda_lib *l = rt_cuda_library((rt_cuda_which)i);
    if (l->handle) fprintf(c->out, "    %s: %s, version %d\n", l->name, l->path, l->version);
  }
}

void cli_check(cli *c, int argc, char **argv) {
  tn_ctx *ctx = c->ctx;
  if (!cli_parse(c, argc, argv, 0, NULL, true, 1, 1, "Exit code 3 when something is not supported, 4 when the model is malformed.\n")) return;
  const char *path = c->args[0];
  const cg_target *target = cg_target_find(ctx, c->cpu, c->triple);
  fe_problems problems = {0};
  const fe_onnx *onnx = fe_onnx_load(ctx, path);
  ir_graph *g = fe_import_model(ctx, onnx, &problems);
  give_sizes(c, g);
  const char **dims;
  int ndims = open_dims(c, g, &dims);
  bool *shapes = fe_shape_inputs(ctx, g);
  int nshapes = 0, ninputs = 0;
  for (int i = 0; i < g->ninputs; i++) ninputs += g->inputs[i]->dtype != TN_NONE, nshapes += shapes[i] && g->inputs[i]->dtype != TN_NONE;
  const char **types = IR_NEW_ARRAY(ctx, const char *, g->ninputs + 1);
  for (int i = 0; i < g->ninputs; i++) types[i] = type_text(ctx, g->inputs[i]);
  fe_check_graph(ctx, g, ndims || nshapes, &problems);
  /* sizes need every dimension and a sound graph */
  attempt a = {.c = c, .m = &(cli_model){.path = path, .target = target}};
  bool sized = false;
  if (!problems.n && !ndims && !nshapes) {
    tn_status s = ir_protect(ctx, lower_again, &a);
    if (s == TN_ERESOURCE || s == TN_EINTERNAL) ir_fail(ctx, s, "%s", ir_strdup(ctx, ir_error(ctx)));
    if (s != TN_OK) {
      fe_problem p = {path, "", 0, s, ir_strdup(ctx, ir_error(ctx))};
      IR_PUSH(ctx, problems.items, problems.n, p);
    } else sized = true;
  }
  double flops = 0, seconds = sized ? cli_estimate(c, a.m, &flops) : 0;
  const char **slow = NULL;
  int nslow = 0;
  if (sized && is_quantised(a.m->graph)) {
    attempt b = {.c = c, .m = &(cli_model){.path = path, .target = target}, .scheduled = true};
    if (ir_protect(ctx, lower_again, &b) == TN_OK) nslow = slow_integers(c, b.m, &slow);
  }
  op_count *ops;
  int nops = count_ops(ctx, onnx->graph, &ops);
  int64_t opset = fe_onnx_opset_version(onnx->opset, onnx->n_opset, "");
  gpu card = find_gpu(ctx);
  tn_status worst = TN_OK;
  for (int i = 0; i < problems.n; i++)
    if (worst != TN_EINPUT) worst = problems.items[i].status;

  if (c->json) {
    cli_json j;
    cj_begin(&j, ctx);
    cj_text(&j, "model", path);
    cj_int(&j, "opset", opset);
    cj_text(&j, "producer", onnx->producer);
    cj_int(&j, "nodes", onnx->graph->n_node);
    cj_open(&j, "ops", '{');
    for (int i = 0; i < nops; i++) cj_int(&j, ops[i].op, ops[i].n);
    cj_close(&j, '}');
    cj_open(&j, "inputs", '[');
    for (int i = 0; i < g->ninputs; i++) {
      if (g->inputs[i]->dtype == TN_NONE) continue; /* stands for what could not be imported */
      cj_open(&j, NULL, '{');
      cj_text(&j, "name", g->inputs[i]->name);
      cj_text(&j, "type", types[i]);
      cj_bool(&j, "decides_shapes", shapes[i]);
      cj_close(&j, '}');
    }
    cj_close(&j, ']');
    cj_open(&j, "dims", '[');
    for (int i = 0; i < ndims; i++) cj_text(&j, NULL, dims[i]);
    cj_close(&j, ']');
    cj_open(&j, "problems", '[');
    for (int i = 0; i < problems.n; i++) {
      const fe_problem *p = &problems.items[i];
      cj_open(&j, NULL, '{');
      cj_text(&j, "where", p->where);
      cj_text(&j, "op", p->op);
      cj_int(&j, "opset", p->opset);
      cj_text(&j, "kind", p->status == TN_EUNSUPPORTED ? "unsupported" : "bad input");
      cj_text(&j, "reason", p->reason);
      cj_close(&j, '}');
    }
    cj_close(&j, ']');
    if (sized) {
      cj_int(&j, "weights_bytes", a.m->program->weights_bytes);
      cj_int(&j, "arena_bytes", a.m->program->arena_bytes);
      cj_int(&j, "kernels", a.m->program->nkernels);
      cj_real(&j, "flops", flops);
      cj_real(&j, "estimated_s", seconds);
      cj_open(&j, "slow_int8", '[');
      for (int i = 0; i < nslow; i++) cj_text(&j, NULL, slow[i]);
      cj_close(&j, ']');
    }
    cuda_json(&j, &card);
    cj_end(&j, c);
  } else {
    fprintf(c->out, "%s: opset %lld, %d nodes, %d inputs, %d outputs%s%s\n", path, (long long)opset, onnx->graph->n_node, ninputs,
            onnx->graph->n_out, *onnx->producer ? ", made by " : "", onnx->producer);
    for (int i = 0; i < g->ninputs; i++)
      if (g->inputs[i]->dtype != TN_NONE)
        fprintf(c->out, "  input %s: %s%s\n", g->inputs[i]->name, types[i], shapes[i] ? "  (decides shapes: needed when compiling)" : "");
    fputs("  ops:", c->out);
    for (int i = 0; i < nops; i++) fprintf(c->out, " %s %d%s", ops[i].op, ops[i].n, i + 1 < nops ? "," : "\n");
    if (!nops) fputs(" none\n", c->out);
    for (int i = 0; i < ndims; i++) fprintf(c->out, "%s%s%s", i ? ", " : "  dimensions to give with --dim: ", dims[i], i + 1 < ndims ? "" : "\n");
    for (int i = 0; i < problems.n; i++) {
      const fe_problem *p = &problems.items[i];
      fprintf(c->out, "problem: %s: %s\n", p->where, p->reason);
    }
    if (sized)
      fprintf(c->out, "  memory: weights %s, arena %s; %d kernels\n  time: %.3g GFLOP, in the order of %s on one core of %s\n",
              cli_bytes(c, (double)a.m->program->weights_bytes), cli_bytes(c, (double)a.m->program->arena_bytes), a.m->program->nkernels,
              flops / 1e9, cli_time(c, seconds), target->name);
    cuda_text(c, &card);
    for (int i = 0; i < nslow; i++) fprintf(c->out, "warning: %s: by estimate slower on %s than the same layer in floats\n", slow[i], target->name);
    if (!problems.n) fputs("no problems\n", c->out);
  }
  if (problems.n) ir_fail(ctx, worst, "%s: %d problem%s", path, problems.n, problems.n > 1 ? "s" : "");
}
