/* Fuzzes the way of a model from its bytes to kernels: import, inference, passes, program, schedules;
 * no code is made. What comes out must satisfy the verifiers, and its texts must read back. */
#include "codegen/target.h"
#include "frontend/import.h"
#include "ir/text.h"
#include "lower/lower.h"
#include "tests/fuzz_limit.h"
#include "tests/fuzz_mutate.h"

#ifndef TN_SOURCE_DIR
#define TN_SOURCE_DIR "."
#endif

/* In proportion to the bytes of the model: sizes of tensors are numbers, not memory. */
enum { BASE_BYTES = 256 << 20, PER_BYTE = 4096, FROZEN_MAX = 64 };

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed) {
  size_t n = seed % 8 ? fm_mutate(data, size, max, seed) : 0;
  return n ? n : LLVMFuzzerMutate(data, size, max);
}

typedef struct input {
  const uint8_t *data;
  size_t n;
  bool scheduled;
} input;

/* A machine to schedule for; lives as long as the process. */
static const cg_target *target;

static void find_target(tn_ctx *ctx, void *arg) {
  (void)arg;
  target = cg_target_find(ctx, "x86-64-v3", "x86_64-unknown-linux-gnu");
}

/* Inputs that decide shapes get ones; symbolic dimensions get 2. */
static void settle_inputs(tn_ctx *ctx, ir_graph *g) {
  for (int i = 0; i < g->ninputs; i++)
    for (int a = 0; a < g->inputs[i]->rank; a++)
      if (g->inputs[i]->dims[a]->op != IX_CONST) g->inputs[i]->dims[a] = ix_index(ctx, 2);
  lw_bind_dims(ctx, g, 0, NULL, NULL);
  bool *shapes = fe_shape_inputs(ctx, g);
  for (int i = 0; i < g->ninputs; i++) {
    if (!shapes[i]) continue;
    int64_t n = ir_value_elements(ctx, g->inputs[i]), size = (int64_t)ir_dtype_bytes(g->inputs[i]->dtype);
    if (n > FROZEN_MAX) ir_fail(ctx, TN_EINPUT, "an input of %lld elements decides shapes", (long long)n);
    char *ones = ir_alloc(ctx, (size_t)(n * size));
    for (int64_t k = 0; k < n; k++) ones[k * size] = 1;
    fe_freeze_input(ctx, g, i, ones);
  }
}

typedef struct reread {
  const char *text, *again;
  const ir_graph *graph; /* its data is given back; null: the text is a program */
} reread;

static const void *find(void *user, const char *name, int64_t bytes, uint64_t hash) {
  (void)name; /* in a text it has a number behind it where another value is called the same */
  const ir_graph *g = ((reread *)user)->graph;
  for (int i = 0; i < g->nvalues; i++) {
    const ir_value *v = g->values[i];
    if (v->kind == IR_VALUE_CONST && v->data && v->data_bytes == bytes && ir_data_hash(v->data, bytes) == hash) return v->data;
  }
  return NULL;
}

static void read_again(tn_ctx *ctx, void *arg) {
  reread *r = arg;
  if (r->graph) {
    r->again = ir_graph_print(ctx, ir_graph_parse_with(ctx, r->text, "printed", &(ir_data_source){r, find}));
    return;
  }
  ir_program *p = ir_program_parse(ctx, r->text, "printed");
  lw_apply_schedules(ctx, p);
  r->again = ir_program_print(ctx, p);
}

static void same_again(tn_ctx *ctx, const char *text, const ir_graph *g) {
  reread r = {text, NULL, g};
  if (ir_protect(ctx, read_again, &r) != TN_OK) ir_bug(ctx, "printed, but not read: %s", ir_strdup(ctx, ir_error(ctx)));
  size_t at = 0;
  while (text[at] && text[at] == r.again[at]) at++;
  if (text[at] == r.again[at]) return;
  while (at && text[at - 1] != '\n') at--;
  ir_bug(ctx, "printed twice, and differently:\n%.300s\n-----\n%.300s", text + at, r.again + at);
}

static void after_pass(void *user, tn_ctx *ctx, const char *pass, const ir_graph *g, double seconds) {
  (void)user, (void)pass, (void)seconds;
  same_again(ctx, ir_graph_print(ctx, g), g);
}

static void lower(tn_ctx *ctx, void *arg) {
  const input *in = arg;
  const fe_onnx *m = fe_onnx_parse(ctx, in->data, in->n, "fuzz.onnx", TN_SOURCE_DIR "/tests/corpus/onnx");
  ir_graph *g = fe_import_model(ctx, m, NULL);
  settle_inputs(ctx, g);
  lw_options o = {.target = target, .unscheduled = !in->scheduled, .after_pass = after_pass};
  ir_program *p = lw_compile(ctx, g, &o);
  for (int i = 0; i < p->nkernels; i++) {
    const char *wrong = ir_kernel_verify(ctx, p->kernels[i].lowered);
    if (!wrong) continue;
    fprintf(stderr, "%s", ir_kernel_print(ctx, p->kernels[i].lowered));
    ir_bug(ctx, "kernel %s: %s", p->kernels[i].kernel->name, wrong);
  }
  const char *wrong = ir_program_verify(ctx, p);
  if (wrong) ir_bug(ctx, "program: %s", wrong);
  same_again(ctx, ir_program_print(ctx, p), NULL);
}

static void every_problem(tn_ctx *ctx, void *arg) {
  const input *in = arg;
  fe_problems problems = {0};
  ir_graph *g = fe_import_model(ctx, fe_onnx_parse(ctx, in->data, in->n, "fuzz.onnx", NULL), &problems);
  fe_check_graph(ctx, g, true, &problems);
  for (int i = 0; i < problems.n; i++) ir_assert(ctx, *problems.items[i].where && *problems.items[i].reason);
}

/* A missing external file and exhausted memory share a status; only the first is allowed. */
static void no_memory_fault(tn_ctx *ctx, tn_status s) {
  if (s == TN_ERESOURCE && strstr(ir_error(ctx), "out of memory")) ir_bug(ctx, "too much memory");
  if (s == TN_EINTERNAL) ir_fail(ctx, s, "%s", ir_strdup(ctx, ir_error(ctx)));
}

/* With TENON_FUZZ_STATS: how many inputs came how far, at the end. */
static long compiled, refused;
static void stats(void) { fprintf(stderr, "%ld compiled, %ld refused\n", compiled, refused); }

static void run_lower(tn_ctx *ctx, void *arg) {
  tn_status s = ir_protect(ctx, lower, arg);
  if (s == TN_OK) compiled++;
  else refused++;
  if (s != TN_OK && getenv("TENON_FUZZ_SHOW")) fprintf(stderr, "%s\n", ir_error(ctx));
  no_memory_fault(ctx, s);
}
static void run_check(tn_ctx *ctx, void *arg) { no_memory_fault(ctx, ir_protect(ctx, every_problem, arg)); }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  static tn_ctx *forever;
  if (!forever) {
    forever = tn_ctx_new(NULL);
    if (getenv("TENON_FUZZ_STATS")) atexit(stats);
    if (!forever || ir_protect(forever, find_target, NULL) != TN_OK) abort();
  }
  input in = {data, n, false};
  size_t limit = (size_t)BASE_BYTES + PER_BYTE * n;
  fuzz_run(limit, run_check, &in, 1u << TN_OK);
  fuzz_run(limit, run_lower, &in, 1u << TN_OK);
  in.scheduled = true;
  fuzz_run(limit, run_lower, &in, 1u << TN_OK);
  return 0;
}
