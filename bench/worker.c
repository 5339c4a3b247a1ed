/* worker.c — Tenon as one of the programs that the benchmark compares (protocol: serve.h).
 *
 *   bench_worker [--threads N] [--db FILE|none] [--cpu NAME] [--accuracy strict|A]
 *
 *   load ID gemm M N K const|var DIR    C = A B; DIR/a.bin, b.bin; const: B is a constant, packed
 *   load ID conv SPEC DIR               one convolution; DIR/x.bin, w.bin; timed is the convolution in
 *                                       the layouts it has inside a network, without the transforms
 *                                       from and to row-major at the ends of this one-node graph
 *   load ID conv-plain SPEC DIR         row-major in, row-major out, all counted
 *   load ID model FILE DIR [NAME=N...]  an ONNX file; DIR/in_K.bin; sizes of symbolic dimensions
 *   load ID object LIBRARY DIR          what bench/peers/object.c and a compiled object make
 *   schedules ID                        of its kernels
 *   profile ID                          times of its calls
 */
#include "bench/serve.h"
#include "bench/object.h"
#include "autotune/lookup.h"
#include "frontend/import.h"
#include "frontend/inputs.h"
#include "lower/lower.h"
#include "runtime/module.h"
#include <dlfcn.h>

enum { CASES = 64 };

typedef struct item { /* a case that is ready */
  char *id;
  tn_ctx *ctx;
  ir_graph *graph;
  ir_program *program;
  rt_module *module;
  const bench_object *object;
  void *library, *arena, *arena_base;
  const void **in;
  void **out;
  int nin, nout;
  void *state;
  bool only_conv;
  double seconds; /* of the convolution's calls in the last run */
  double import_s, lower_s, build_s;
  int workers;
} item;

static item items[CASES];
static rt_pool *pool; /* null: one thread */
static const char *cpu, *store_path = "none";
static double accuracy = LW_ACCURACY;

static item *find(const char *id) {
  for (int i = 0; i < CASES; i++)
    if (items[i].id && strcmp(items[i].id, id) == 0) return &items[i];
  return NULL;
}

static const ir_slot *slot(const ir_program *p, ir_slot_kind kind, int k) {
  for (int i = 0; i < p->nslots; i++)
    if (p->slots[i].kind == kind && p->slots[i].index == k) return &p->slots[i];
  return NULL;
}

/* ---- loading ---- */

typedef struct request {
  item *it;
  int n;
  char **word;
  double seconds;
  const char *dir;
} request;

static const void *tensor(tn_ctx *ctx, const char *dir, const char *name, int64_t bytes) {
  void *p = serve_read(dir, name, (size_t)bytes);
  if (!p) ir_fail(ctx, TN_EINPUT, "%s/%s is missing or has not %lld bytes", dir, name, (long long)bytes);
  ir_defer(ctx, free, p);
  return p;
}

static ir_value *input(ir_graph *g, const char *name, int rank, const int64_t *dims) {
  ix d[IR_MAX_RANK];
  for (int i = 0; i < rank; i++) d[i] = ix_index(g->ctx, dims[i]);
  return ir_graph_input(g, name, TN_F32, rank, d);
}

static void make_gemm(tn_ctx *ctx, request *r) {
  int64_t m = atoll(r->word[3]), n = atoll(r->word[4]), k = atoll(r->word[5]);
  bool var = strcmp(r->word[6], "var") == 0;
  ir_graph *g = r->it->graph = ir_graph_new(ctx, "gemm");
  ir_value *in[2];
  in[0] = input(g, "A", 2, (int64_t[]){m, k});
  in[1] = var ? input(g, "B", 2, (int64_t[]){k, n}) : ir_graph_const(g, "B", TN_F32, 2, (int64_t[]){k, n}, tensor(ctx, r->dir, "b.bin", k * n * 4), false);
  ir_graph_output(g, ir_node_new(g, "MatMul", "C", 2, in, 1)->out[0]);
  r->it->in[0] = tensor(ctx, r->dir, "a.bin", m * k * 4);
  if (var) r->it->in[1] = tensor(ctx, r->dir, "b.bin", k * n * 4);
}

static void make_conv(tn_ctx *ctx, request *r) {
  serve_conv v;
  if (!serve_parse_conv(r->word[3], &v)) ir_fail(ctx, TN_EUSAGE, "'%s' is no convolution", r->word[3]);
  r->it->only_conv = strcmp(r->word[2], "conv") == 0;
  ir_graph *g = r->it->graph = ir_graph_new(ctx, "conv");
  ir_value *in[2] = {input(g, "X", 4, (int64_t[]){v.n, v.c, v.h, v.w}),
                     ir_graph_const(g, "W", TN_F32, 4, (int64_t[]){v.k, v.c / v.g, v.r, v.s}, tensor(ctx, r->dir, "w.bin", v.k * v.c / v.g * v.r * v.s * 4), false)};
  ir_node *node = ir_node_new(g, "Conv", "conv", 2, in, 1);
  ir_attr_ints(node, "strides", 2, (int64_t[]){v.u, v.u});
  ir_attr_ints(node, "dilations", 2, (int64_t[]){v.d, v.d});
  ir_attr_ints(node, "pads", 4, (int64_t[]){v.p, v.p, v.p, v.p});
  ir_attr_int(node, "group", v.g);
  ir_value *y = node->out[0];
  if (r->it->only_conv) y = ir_node_new(g, "tenon:Relayout", "plain", 1, &y, 1)->out[0];
  ir_graph_output(g, y);
  r->it->in[0] = tensor(ctx, r->dir, "x.bin", v.n * v.c * v.h * v.w * 4);
}

static void make_model(tn_ctx *ctx, request *r) {
  const char *names[SERVE_WORDS];
  int64_t sizes[SERVE_WORDS];
  int n = 0;
  for (int i = 5; i < r->n; i++) {
    char *eq = strrchr(r->word[i], '=');
    if (!eq) ir_fail(ctx, TN_EUSAGE, "'%s' is not NAME=N", r->word[i]);
    names[n] = ir_strndup(ctx, r->word[i], (size_t)(eq - r->word[i]));
    sizes[n++] = atoll(eq + 1);
  }
  r->it->graph = fe_import(ctx, r->word[3], NULL);
  lw_bind_dims(ctx, r->it->graph, n, names, sizes);
}

static void compile(tn_ctx *ctx, request *r) {
  item *it = r->it;
  double start = serve_now();
  it->in = IR_NEW_ARRAY(ctx, const void *, 256);
  if (strcmp(r->word[2], "gemm") == 0) make_gemm(ctx, r);
  else if (strcmp(r->word[2], "model") == 0) make_model(ctx, r);
  else make_conv(ctx, r);
  it->import_s = serve_now() - start;
  lw_options o = {.target = cg_target_find(ctx, cpu, NULL), .accuracy = accuracy};
  start = serve_now();
  at_store *store = at_store_open(ctx, store_path, AT_STORE_READONLY);
  if (store) {
    o.schedule = at_lookup_schedule;
    o.user = at_lookup_new(ctx, store, o.target, rt_pool_workers(pool), NULL, NULL);
  }
  it->program = lw_compile(ctx, it->graph, &o);
  it->lower_s = serve_now() - start;
  start = serve_now();
  it->module = rt_module_build(ctx, it->program, &(rt_options){.target = o.target, .jobs = rt_pool_workers(pool)});
  it->build_s = serve_now() - start;
  it->nin = it->program->ninputs;
  it->nout = it->program->noutputs;
  if (it->nin > 256) ir_fail(ctx, TN_EUNSUPPORTED, "%d inputs are too many here", it->nin);
  for (int i = 0; i < it->nin; i++)
    if (!it->in[i]) it->in[i] = tensor(ctx, r->dir, ir_format(ctx, "in_%d.bin", i), slot(it->program, IR_SLOT_INPUT, i)->bytes);
  it->out = IR_NEW_ARRAY(ctx, void *, it->nout + 1);
  for (int i = 0; i < it->nout; i++) it->out[i] = fe_buffer(ctx, slot(it->program, IR_SLOT_OUTPUT, i)->bytes);
  it->state = it->program->state_bytes ? fe_buffer(ctx, it->program->state_bytes) : NULL;
}

static void open_object(tn_ctx *ctx, request *r) {
  item *it = r->it;
  double start = serve_now();
  it->library = dlopen(r->word[3], RTLD_NOW | RTLD_LOCAL);
  if (!it->library) ir_fail(ctx, TN_ERESOURCE, "%s", dlerror());
  const bench_object *o = it->object = dlsym(it->library, "bench_object_of_model");
  if (!o) ir_fail(ctx, TN_EINPUT, "%s: no object of a model", r->word[3]);
  it->nin = o->inputs;
  it->nout = o->outputs;
  it->in = IR_NEW_ARRAY(ctx, const void *, it->nin + 1);
  it->out = IR_NEW_ARRAY(ctx, void *, it->nout + 1);
  for (int i = 0; i < it->nin; i++) it->in[i] = tensor(ctx, r->dir, ir_format(ctx, "in_%d.bin", i), o->input_bytes(i));
  for (int i = 0; i < it->nout; i++) it->out[i] = fe_buffer(ctx, o->output_bytes(i));
  it->arena = fe_buffer(ctx, o->arena_bytes(rt_pool_workers(pool)));
  it->state = o->state_bytes ? fe_buffer(ctx, o->state_bytes) : NULL;
  it->build_s = serve_now() - start;
}

static void load(tn_ctx *ctx, void *arg) {
  request *r = arg;
  const char *kind = r->n > 2 ? r->word[2] : "";
  int dir = strcmp(kind, "gemm") == 0 ? 7 : strcmp(kind, "conv") == 0 || strcmp(kind, "conv-plain") == 0 || strcmp(kind, "model") == 0 || strcmp(kind, "object") == 0 ? 4 : -1;
  if (dir < 0 || dir >= r->n) ir_fail(ctx, TN_EUSAGE, "load: unknown kind '%s', or words are missing", kind);
  r->dir = r->word[dir];
  if (strcmp(kind, "object") == 0) open_object(ctx, r);
  else compile(ctx, r);
}

static void drop(item *it) {
  if (it->module) rt_module_free(it->ctx, it->module);
  tn_ctx_free(it->ctx);
  if (it->library) dlclose(it->library);
  free(it->id);
  *it = (item){0};
}

static void command_load(int n, char **word) {
  item *it = NULL;
  for (int i = 0; i < CASES && !it; i++)
    if (!items[i].id) it = &items[i];
  if (n < 2 || !it || find(word[1])) {
    serve_error("load: too many cases, or this one is there already");
    return;
  }
  it->ctx = tn_ctx_new(NULL);
  it->id = strdup(word[1]);
  request r = {.it = it, .n = n, .word = word};
  if (!it->ctx || ir_protect(it->ctx, load, &r)) {
    serve_error("%s", it->ctx ? ir_error(it->ctx) : "out of memory");
    it->module = NULL; /* released by the throw */
    drop(it);
    return;
  }
  int calls = it->program ? it->program->nrun : 0;
  serve_ok("\"import_s\": %.6g, \"lower_s\": %.6g, \"build_s\": %.6g, \"calls\": %d, \"inputs\": %d, \"outputs\": %d", it->import_s, it->lower_s, it->build_s,
           calls, it->nin, it->nout);
}

/* ---- running ---- */

static bool run_all(void *arg) {
  item *it = arg;
  if (it->object) return it->object->run(it->in, it->out, it->state, it->arena, rt_pool_threads(pool)) == 0;
  return rt_run(it->module, it->in, it->out, it->state, rt_pool_threads(pool)) == 0;
}

typedef struct conv_times {
  item *it;
  double budget, *s;
  int n;
} conv_times;

/* Time of the calls that are not transforms of layout. */
static void run_conv(tn_ctx *ctx, void *arg) {
  conv_times *t = arg;
  double begin = serve_now();
  for (int i = -1; i < 3 || (serve_now() - begin < t->budget && t->n < SERVE_SAMPLES); i++) {
    rt_profile *p = rt_profile_new(ctx);
    if (rt_run_profiled(ctx, t->it->module, t->it->in, t->it->out, NULL, t->it->state, rt_pool_threads(pool), p)) ir_fail(ctx, TN_EINTERNAL, "the run failed");
    double sum = 0;
    for (int k = 0; k < p->nspans; k++)
      if (p->spans[k].worker < 0 && strncmp(p->spans[k].kernel, "relayout", 8) != 0) sum += p->spans[k].end - p->spans[k].start;
    if (i >= 0) t->s[t->n++] = sum;
  }
}

static void command_run(item *it, double seconds) {
  if (!it->only_conv) {
    serve_measure(run_all, it, seconds, 1, 0);
    return;
  }
  static double s[SERVE_SAMPLES];
  tn_ctx *ctx = tn_ctx_new(NULL); /* of this command: profiles take memory */
  conv_times t = {.it = it, .budget = seconds, .s = s};
  if (!ctx || ir_protect(ctx, run_conv, &t)) serve_error("%s", ctx ? ir_error(ctx) : "out of memory");
  else {
    qsort(s, (size_t)t.n, sizeof *s, serve_order);
    serve_ok("\"min\": %.9g, \"median\": %.9g, \"runs\": %d", s[0], s[t.n / 2], t.n);
  }
  tn_ctx_free(ctx);
}

static void command_save(item *it, const char *dir) {
  bool ok = run_all(it);
  for (int i = 0; ok && i < it->nout; i++) {
    int64_t bytes = it->object ? it->object->output_bytes(i) : slot(it->program, IR_SLOT_OUTPUT, i)->bytes;
    ok = serve_write(dir, i, it->out[i], (size_t)bytes);
  }
  if (ok) serve_ok("\"outputs\": %d", it->nout);
  else serve_error("the run failed, or its outputs cannot be written");
}

/* The profile of a model as rows: what takes the time. */
static void profile(tn_ctx *ctx, void *arg) {
  item *it = arg;
  rt_profile *p = rt_profile_new(ctx);
  for (int i = 0; i < 5; i++)
    if (rt_run_profiled(ctx, it->module, it->in, it->out, NULL, it->state, rt_pool_threads(pool), p)) ir_fail(ctx, TN_EINTERNAL, "the run failed");
  rt_profile_row *rows;
  int n = rt_profile_rows(ctx, p, &rows);
  fputs("{\"ok\": true, \"rows\": [", serve_out);
  for (int i = 0; i < n; i++) {
    fprintf(serve_out, "%s{\"kernel\": ", i ? ", " : "");
    serve_quoted(rows[i].kernel);
    fputs(", \"name\": ", serve_out);
    serve_quoted(rows[i].name);
    fprintf(serve_out, ", \"ms\": %.6g}", rows[i].min * 1e3);
  }
  fputs("]}\n", serve_out);
  fflush(serve_out);
}

/* The schedule of each kernel, as text. */
static void schedules(const item *it) {
  fputs("{\"ok\": true, \"kernels\": [", serve_out);
  for (int i = 0; i < it->program->nkernels; i++) {
    fprintf(serve_out, "%s{\"kernel\": ", i ? ", " : "");
    serve_quoted(it->program->kernels[i].kernel->name);
    fputs(", \"schedule\": ", serve_out);
    serve_quoted(it->program->kernels[i].schedule);
    fputs("}", serve_out);
  }
  fputs("]}\n", serve_out);
  fflush(serve_out);
}

static void handle(int n, char **word) {
  if (strcmp(word[0], "load") == 0) {
    command_load(n, word);
    return;
  }
  item *it = n > 1 ? find(word[1]) : NULL;
  if (!it) serve_error("no such case");
  else if (strcmp(word[0], "run") == 0 && n > 2) command_run(it, atof(word[2]));
  else if (strcmp(word[0], "save") == 0 && n > 2) command_save(it, word[2]);
  else if (strcmp(word[0], "profile") == 0 && it->module) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    if (!ctx || ir_protect(ctx, profile, it)) serve_error("%s", ctx ? ir_error(ctx) : "out of memory");
    tn_ctx_free(ctx);
  } else if (strcmp(word[0], "schedules") == 0 && it->program) schedules(it);
  else if (strcmp(word[0], "drop") == 0) {
    drop(it);
    serve_ok("\"dropped\": true");
  } else serve_error("unknown command '%s'", word[0]);
}

int main(int argc, char **argv) {
  int threads = 1;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (strcmp(argv[i], "--threads") == 0) threads = atoi(argv[i + 1]);
    else if (strcmp(argv[i], "--db") == 0) store_path = argv[i + 1];
    else if (strcmp(argv[i], "--cpu") == 0) cpu = argv[i + 1];
    else if (strcmp(argv[i], "--accuracy") == 0) accuracy = strcmp(argv[i + 1], "strict") == 0 ? 0 : atof(argv[i + 1]);
  }
  if (threads > 1 && !(pool = rt_pool_new(threads))) return 1;
  serve(handle);
  rt_pool_free(pool);
  return 0;
}
