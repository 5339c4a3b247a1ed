/* Fuzzes the parsers of the texts. The first byte says which: k kernel, p program, g graph,
 * l layout, e expression, s schedule; others count on. What parses must print, and what was
 * printed must parse to something that prints the same. A schedule is also applied. */
#include "ir/text.h"
#include "lower/schedule.h"
#include "tests/fuzz_limit.h"

static ix shape[2];

static ir_var *var(void *user, const char *name) {
  ir_var **vars = user;
  return *name >= 'a' && *name < 'g' && !name[1] ? vars[*name - 'a'] : NULL;
}

static ir_buf *buf(void *user, const char *name) {
  ir_buf **bufs = (ir_buf **)((ir_var **)user + 6);
  return *name >= 'A' && *name < 'G' && !name[1] ? bufs[*name - 'A'] : NULL;
}

static void expression(tn_ctx *ctx, const char *text) {
  static const tn_dtype var_types[6] = {TN_INDEX, TN_INDEX, TN_INDEX, TN_F32, TN_I32, TN_BOOL};
  static const tn_dtype buf_types[6] = {TN_F32, TN_I64, TN_U8, TN_F16, TN_BOOL, TN_BF16};
  struct {
    ir_var *vars[6];
    ir_buf *bufs[6];
  } world;
  shape[0] = shape[1] = ix_index(ctx, 16);
  for (int i = 0; i < 6; i++) {
    bool index = var_types[i] == TN_INDEX;
    world.vars[i] = ir_var_new(ctx, (char[]){(char)('a' + i), 0}, var_types[i], index ? i - 1 : INT64_MIN, index && i < 2 ? 15 : INT64_MAX);
    world.bufs[i] = ir_buf_new(ctx, (char[]){(char)('A' + i), 0}, buf_types[i], i % 3, shape, NULL, IR_GLOBAL);
  }
  ir_env env = {&world, var, buf};
  ix e = ix_parse(ctx, text, "fuzz", &env, TN_NONE);
  const char *printed = ix_print(ctx, e);
  if (ix_parse(ctx, printed, "printed", &env, TN_NONE) != e) ir_bug(ctx, "%.900s is read as another expression", printed);
}

typedef struct input {
  int kind;
  const char *text;
} input;

/* Applied to a small product, as far as it is legal: what comes out prints and parses. */
static const char *schedule(tn_ctx *ctx, const char *text) {
  static const char product[] =
      "kernel mm(in A: f32[6, 8], const B: f32[8, 20], out C: f32[6, 20]) { for m in 0..6 { for n in 0..20 {"
      " alloc acc: f32[] register acc[] = 0.0 for k in 0..8 { if k + n < 25 { acc[] = fma(A[m, k], B[k, n], acc[]) } }"
      " C[m, n] = max(0.0, acc[]) } } }";
  const char *canonical = lw_schedule_canonical(ctx, text), *reason = NULL;
  const ir_kernel *k = lw_schedule_apply(ctx, ir_kernel_parse(ctx, product, "fuzz"), text, &reason);
  if (!k) {
    if (!reason || !*reason) ir_bug(ctx, "refused without a reason");
    return canonical;
  }
  const char *printed = ir_kernel_print(ctx, k);
  (void)ir_kernel_verify(ctx, k);
  if (strcmp(ir_kernel_print(ctx, ir_kernel_parse(ctx, printed, "scheduled")), printed) != 0) ir_bug(ctx, "a scheduled kernel prints differently");
  return canonical;
}

static const char *once(tn_ctx *ctx, int kind, const char *text) {
  switch (kind) {
  case 0: {
    ir_kernel *k = ir_kernel_parse(ctx, text, "fuzz");
    (void)ir_kernel_verify(ctx, k);
    (void)ir_kernel_canonical(ctx, k);
    return ir_kernel_print(ctx, k);
  }
  case 1: {
    ir_program *p = ir_program_parse(ctx, text, "fuzz");
    (void)ir_program_verify(ctx, p);
    return ir_program_print(ctx, p);
  }
  case 2: {
    ir_graph *g = ir_graph_parse(ctx, text, "fuzz");
    (void)ir_graph_verify(ctx, g);
    return ir_graph_print(ctx, g);
  }
  case 3: {
    const ir_layout *l = ir_layout_parse(ctx, text);
    return l ? l->text : "";
  }
  case 4: expression(ctx, text); return NULL;
  default: return schedule(ctx, text);
  }
}

typedef struct again_job {
  int kind;
  const char *text, *result;
} again_job;

static void again(tn_ctx *ctx, void *arg) {
  again_job *j = arg;
  j->result = once(ctx, j->kind, j->text);
}

static void law(tn_ctx *ctx, void *arg) {
  input *in = arg;
  const char *text = once(ctx, in->kind, in->text);
  if (!text) return;
  again_job j = {in->kind, text, NULL};
  if (ir_protect(ctx, again, &j) != TN_OK) ir_bug(ctx, "printed, but not read: %s", ir_strdup(ctx, ir_error(ctx)));
  if (strcmp(j.result, text) != 0) ir_bug(ctx, "printed twice, and differently");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  static const char kinds[] = "kpgles";
  if (n == 0) return 0;
  const char *at = data[0] ? strchr(kinds, data[0]) : NULL;
  char *text = malloc(n);
  if (!text) abort();
  memcpy(text, data + 1, n - 1);
  text[n - 1] = 0;
  input in = {at ? (int)(at - kinds) : data[0] % 6, text};
  /* index sums are made anew for each term: a short text can take long memory */
  fuzz_run((size_t)1 << 30, law, &in, 1u << TN_OK | 1u << TN_EINPUT | 1u << TN_EUNSUPPORTED);
  free(text);
  return 0;
}
