/* The law of the texts over models: parse(print(x)) is x.
 *
 *   run_texts [--cpu NAME] [--quiet] MODEL.onnx [NAME=N]... [MODEL.onnx [NAME=N]...]...
 *
 * Imports each model and compiles it, for --cpu (default x86-64-v3) and unscheduled. After
 * each pass the graph is printed, read in a fresh context with its data given back by
 * content hash, and printed again; at the end the program likewise, whose schedules are applied
 * to what was read and must give the same kernels. Every kernel has one canonical text.
 * Models that cannot be compiled are counted apart. Exit status 1 when a law is broken.
 */
#include "frontend/import.h"
#include "ir/text.h"
#include "lower/lower.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int broken, texts, models, skipped;
static bool quiet;
static const char *model, *cpu = "x86-64-v3";

static void report(const char *what, const char *why) {
  broken++;
  printf("%s: %s: %s\n", model, what, why);
}

/* ---- one text, read in a context of its own ---- */

typedef struct job {
  const char *text;
  const ir_graph *graph;     /* its data is given back */
  const ir_program *program;
  const char *result;
} job;

static const void *find(void *user, const char *name, int64_t bytes, uint64_t hash) {
  const ir_graph *g = ((job *)user)->graph;
  for (int i = 0; i < g->nparams; i++) {
    const ir_value *v = g->params[i];
    if (v->data_bytes == bytes && strcmp(v->name, name) == 0 && ir_data_hash(ir_value_source(v), bytes) == hash) return ir_value_source(v);
  }
  return NULL;
}

static void again_graph(tn_ctx *ctx, void *arg) {
  job *j = arg;
  j->result = ir_graph_print(ctx, ir_graph_parse_with(ctx, j->text, "printed", &(ir_data_source){j, find}));
}

static void again_program(tn_ctx *ctx, void *arg) {
  job *j = arg;
  ir_program *p = ir_program_parse(ctx, j->text, "printed");
  j->result = ir_program_print(ctx, p);
  lw_apply_schedules(ctx, p);
  const char *wrong = ir_program_verify(ctx, p);
  if (wrong) ir_fail(ctx, TN_EWRONG, "%s", wrong);
  for (int i = 0; i < p->nkernels; i++) {
    const ir_kernel *here = p->kernels[i].lowered, *there = j->program->kernels[i].lowered;
    if (strcmp(ir_kernel_print(ctx, here), ir_kernel_print(ctx, there)) != 0)
      ir_fail(ctx, TN_EWRONG, "kernel '%s' is scheduled to another kernel", here->name);
  }
}

static void check(const char *what, job j, void (*again)(tn_ctx *ctx, void *arg)) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  texts++;
  if (ir_protect(ctx, again, &j) != TN_OK) report(what, ir_error(ctx));
  else if (strcmp(j.result, j.text) != 0) report(what, "reads back as another text");
  tn_ctx_free(ctx);
}

static void after_pass(void *user, tn_ctx *ctx, const char *pass, const ir_graph *g, double seconds) {
  check(pass, (job){.text = ir_graph_print(ctx, g), .graph = g}, again_graph);
}

/* ---- one model ---- */

typedef struct task {
  const char *path;
  int ndims;
  const char *names[32];
  int64_t sizes[32];
  bool unscheduled;
} task;

static void compile(tn_ctx *ctx, void *arg) {
  task *t = arg;
  ir_graph *g = fe_import(ctx, t->path, NULL);
  if (!t->unscheduled) after_pass(NULL, ctx, "import", g, 0);
  lw_bind_dims(ctx, g, t->ndims, t->names, t->sizes);
  lw_options options = {.target = cg_target_find(ctx, cpu, NULL), .unscheduled = t->unscheduled, .after_pass = t->unscheduled ? NULL : after_pass};
  ir_program *p = lw_compile(ctx, g, &options);
  const char *wrong = ir_program_verify(ctx, p);
  if (wrong) report("program", wrong);
  check(t->unscheduled ? "unscheduled program" : "program", (job){.text = ir_program_print(ctx, p), .program = p}, again_program);
  for (int i = 0; i < p->nkernels; i++)
    for (int form = 0; form < 2; form++) {
      const ir_kernel *k = form ? p->kernels[i].lowered : p->kernels[i].kernel;
      const char *canon = ir_kernel_canonical(ctx, k);
      texts++;
      if (strcmp(canon, ir_kernel_canonical(ctx, ir_kernel_parse(ctx, ir_kernel_print(ctx, k), "kernel"))) != 0 ||
          strcmp(canon, ir_kernel_canonical(ctx, ir_kernel_parse(ctx, canon, "canonical"))) != 0)
        report(k->name, "has several canonical texts");
    }
}

static void run(task *t) {
  model = t->path;
  models++;
  for (int u = 0; u < 2; u++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    t->unscheduled = u;
    tn_status s = ir_protect(ctx, compile, t);
    if (s == TN_EINTERNAL) report("compile", ir_error(ctx));
    else if (s != TN_OK && u) {
      skipped++;
      if (!quiet) printf("%s: not compiled: %s\n", model, ir_error(ctx));
    }
    tn_ctx_free(ctx);
  }
}

int main(int argc, char **argv) {
  for (int i = 1; i < argc;) {
    if (strcmp(argv[i], "--quiet") == 0) {
      quiet = true;
      i++;
      continue;
    }
    if (strcmp(argv[i], "--cpu") == 0 && i + 1 < argc) {
      cpu = argv[i + 1];
      i += 2;
      continue;
    }
    task t = {.path = argv[i++]};
    char *eq;
    while (i < argc && t.ndims < 32 && !strstr(argv[i], ".onnx") && (eq = strchr(argv[i], '='))) {
      *eq = 0;
      t.names[t.ndims] = argv[i++];
      t.sizes[t.ndims++] = atoll(eq + 1);
    }
    run(&t);
  }
  if (!models) {
    fprintf(stderr, "usage: run_texts [--cpu NAME] [--quiet] MODEL.onnx [NAME=N]...\n");
    return 2;
  }
  printf("%d models, %d not compiled, %d texts, %d broken\n", models, skipped, texts, broken);
  return broken != 0;
}
