/* test_sizes.c — programs of several sizes: at every size they give what the model compiled for it gives,
 * and what is no batch is refused. */
#include "aot/shell.h"
#include "lower/sizes.h"
#include "ops_help.h"
#include "runtime/module.h"
#include "runtime/program_interp.h"
#include <math.h>
#include <string.h>

static uint64_t state = 1;
static int draw(int n) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (int)((state >> 33) % (uint64_t)n);
}

/* The model, with random constants: the same ones every time. */
static ir_graph *model(tn_ctx *ctx, const char *text) {
  ir_graph *g = ir_graph_parse(ctx, text, "test");
  ir_graph_sort(g);
  state = 7;
  for (int i = 0; i < g->nparams; i++) {
    ir_value *v = g->params[i];
    if (v->data) continue;
    int64_t n = ir_value_elements(ctx, v);
    float *p = ir_alloc(ctx, (size_t)n * sizeof *p + 64);
    for (int64_t k = 0; k < n; k++) p[k] = (float)(draw(2001) - 1000) / 1000;
    v->data = p;
    v->data_bytes = n * 4;
  }
  return g;
}

static int64_t extent(tn_ctx *ctx, const ir_program *p, const ir_slot *s, int a, const int64_t *dims) {
  if (!s->sizes) return s->dims[a];
  ix e = s->sizes[a];
  for (int i = 0; i < p->ndims; i++) e = ix_subst1(ctx, e, p->dims[i].var, ix_index(ctx, dims[i]));
  return ix_need_const(ctx, e, "an extent");
}

/* Elements of input or output k at the sizes. */
static int64_t elements(tn_ctx *ctx, const ir_program *p, ir_slot_kind kind, int k, const int64_t *dims) {
  const ir_slot *s = p->slots;
  while (s->kind != kind || s->index != k) s++;
  int64_t n = 1;
  for (int a = 0; a < s->rank; a++) n *= extent(ctx, p, s, a, dims);
  return n;
}

typedef struct sized {
  const char *text, *cpu;
  int n;
  const lw_dim *dims;
  const char *refused; /* null: it is not */
  int64_t weights;     /* bytes of the packed weights; 0: not looked at */
} sized;

enum { GUARD = 16, MOST = 1 << 16 };

/* Runs p at the sizes: `way` 0: interpreter, 1: JIT. Outputs are fenced. */
static void run_at(tn_ctx *ctx, const ir_program *p, const rt_module *m, const int64_t *dims, const void *const *in, float **out) {
  for (int o = 0; o < p->noutputs; o++) {
    out[o] = (float *)ir_alloc(ctx, (MOST + GUARD) * sizeof **out);
    for (int64_t i = 0; i < MOST + GUARD; i++) out[o][i] = 12345;
  }
  rt_interp_options io = {.dims = p->ndims ? dims : NULL};
  int code = 0;
  if (m) code = rt_run_sized(m, in, (void *const *)out, dims, NULL, NULL, NULL);
  else rt_program_interp(ctx, p, in, (void *const *)out, NULL, NULL, &io);
  if (code) ir_fail(ctx, TN_EWRONG, "the run gave %d", code);
}

static void compare_at(tn_ctx *ctx, const sized *q, const ir_program *p, const rt_module *m, const int64_t *dims) {
  const char *names[4];
  for (int i = 0; i < q->n; i++) names[i] = q->dims[i].name;
  ir_graph *g = model(ctx, q->text);
  lw_bind_dims(ctx, g, q->n, names, dims);
  ir_program *plain = lw_compile(ctx, g, &(lw_options){.unscheduled = true});
  const void *in[4];
  for (int i = 0; i < p->ninputs; i++) {
    int64_t n = elements(ctx, p, IR_SLOT_INPUT, i, dims);
    const ir_slot *s = p->slots;
    while (s->kind != IR_SLOT_INPUT || s->index != i) s++;
    cr_assert_eq(n, elements(ctx, plain, IR_SLOT_INPUT, i, dims));
    float *x = ir_alloc(ctx, (size_t)n * 8 + 64);
    for (int64_t k = 0; k < n; k++)
      if (s->dtype == TN_I64) ((int64_t *)x)[k] = draw(5);
      else x[k] = (float)(draw(2001) - 1000) / 500;
    in[i] = x;
  }
  float *want[4], *got[4];
  run_at(ctx, plain, NULL, NULL, in, want);
  for (int way = 0; way < 2; way++) {
    if (way ? !m : dims[0] % 4 != 3) continue; /* the interpreter takes its time */
    run_at(ctx, p, way ? m : NULL, dims, in, got);
    for (int o = 0; o < p->noutputs; o++) {
      int64_t n = elements(ctx, p, IR_SLOT_OUTPUT, o, dims);
      cr_assert_eq(n, elements(ctx, plain, IR_SLOT_OUTPUT, o, dims));
      for (int64_t i = 0; i < n + GUARD; i++) {
        float a = got[o][i], b = want[o][i];
        if (!(fabsf(a - b) <= 1e-4f * (1 + fabsf(b)))) ir_fail(ctx, TN_EWRONG, "way %d, size %lld: output %d, element %lld of %lld is %g, should be %g", way, (long long)dims[0], o, (long long)i, (long long)n, a, b);
      }
    }
  }
}

static void run_sized(tn_ctx *ctx, void *arg) {
  const sized *q = arg;
  lw_options o = {.target = cg_target_find(ctx, q->cpu, NULL)};
  ir_program *p = lw_compile_sizes(ctx, model(ctx, q->text), q->n, q->dims, &o);
  const char *wrong = ir_program_verify(ctx, p);
  if (wrong) ir_fail(ctx, TN_EWRONG, "%s", wrong);
  if (q->weights && p->weights_bytes != q->weights) ir_fail(ctx, TN_EWRONG, "%lld bytes of weights", (long long)p->weights_bytes);
  ir_program *again = ir_program_parse(ctx, ir_program_print(ctx, p), "again");
  if (strcmp(ir_program_print(ctx, again), ir_program_print(ctx, p))) ir_fail(ctx, TN_EWRONG, "printed and read: %s", ir_program_print(ctx, again));
  rt_module *m = cg_target_runs_here(ctx, o.target, NULL) ? rt_module_build(ctx, p, &(rt_options){.target = o.target}) : NULL;
  int64_t dims[4] = {0};
  for (int at = 0;; at++) { /* every size of the range, every choice of lists */
    int64_t left = at;
    for (int i = 0; i < q->n; i++) {
      const lw_dim *d = &q->dims[i];
      int64_t n = d->range ? d->hi - d->lo + 1 : d->n;
      dims[i] = d->range ? d->lo + left % n : d->sizes[left % n];
      left /= n;
    }
    if (left) break;
    compare_at(ctx, q, p, m, dims);
  }
  if (!m) return;
  const void *none[4] = {0};
  for (int i = 0; i < q->n; i++) { /* what was not compiled is refused before anything is touched */
    dims[i] = q->dims[i].hi + 1;
    if (rt_run_sized(m, none, NULL, dims, NULL, NULL, NULL) == CG_RUN_OK) ir_fail(ctx, TN_EWRONG, "a size out of its range was taken");
  }
  rt_module_free(ctx, m);
}

static void several(sized q) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_status s = ir_protect(ctx, run_sized, &q);
  if (q.refused) {
    cr_expect_eq(s, TN_EUSAGE, "not refused: %s", q.text);
    cr_expect(strstr(ir_error(ctx), q.refused), "%s\n%s", ir_error(ctx), q.text);
  } else cr_expect_eq(s, TN_OK, "%.1500s\n%s", ir_error(ctx), q.text);
  tn_ctx_free(ctx);
}

#define RANGE(name, lo, hi, ...) (lw_dim){name, lo, hi, true, false, (int)(sizeof(int64_t[]){__VA_ARGS__} / sizeof(int64_t)), (int64_t[]){__VA_ARGS__}}
#define LIST(name, lo, hi, ...) (lw_dim){name, lo, hi, false, false, (int)(sizeof(int64_t[]){__VA_ARGS__} / sizeof(int64_t)), (int64_t[]){__VA_ARGS__}}

#define MLP "graph g { dim N input x: f32[N, 40] const w: f32[40, 48] const b: f32[48] const v: f32[48, 9] " \
            "y = MatMul(x, w) z = Add(y, b) r = Relu(z) s = MatMul(r, v) t = Softmax(s) output t, r }"
#define NET "graph g { dim N input x: f32[N, 3, 9, 11] const w: f32[24, 3, 3, 3] const u: f32[24, 24, 3, 3] const v: f32[24, 10] " \
            "a = Conv(x, w) { pads = [1, 1, 1, 1], strides = [2, 2] } b = Relu(a) c = Conv(b, u) { pads = [1, 1, 1, 1] } d = Add(c, b) " \
            "e = GlobalAveragePool(d) f = Flatten(e) h = MatMul(f, v) output h, d }"

Test(sizes, batches) {
  lw_dim n = RANGE("N", 1, 13, 1, 2, 4, 8);
  several((sized){.text = MLP, .n = 1, .dims = &n});
  several((sized){.text = NET, .n = 1, .dims = &(lw_dim[]){RANGE("N", 1, 7, 1, 2, 4)}[0]});
  several((sized){.text = NET, .cpu = "x86-64-v4", .n = 1, .dims = &(lw_dim[]){RANGE("N", 1, 3, 1, 2)}[0]});
  lw_dim far = RANGE("N", 3, 41, 3, 7); /* more than twice the largest: it repeats */
  several((sized){.text = MLP, .n = 1, .dims = &far});
  /* gathers, operands that are not cut, and the same value out twice */
  several((sized){.text = "graph g { dim N input x: i64[N, 4] input w: f32[5, 8] e = Gather(w, x) m = ReduceMean(e) { axes = [2], keepdims = 0 } output m, e, m }", .n = 1, .dims = &n});
  /* attention: heads beside the batch */
  several((sized){.text = "graph g { dim N input q: f32[N, 2, 5, 8] input k: f32[N, 2, 8, 5] input v: f32[N, 2, 5, 8] "
                          "s = MatMul(q, k) p = Softmax(s) o = MatMul(p, v) t = Transpose(o) { perm = [0, 2, 1, 3] } output t }", .n = 1, .dims = &n});
}

Test(sizes, lists) {
  /* where a mean or a product goes across the dimension, each size is a program of its own */
  lw_dim s = LIST("S", 3, 17, 3, 8, 17);
  several((sized){.text = "graph g { dim S input x: f32[2, S, 6] y = Transpose(x) { perm = [0, 2, 1] } z = MatMul(x, y) p = Softmax(z) o = MatMul(p, x) output o, z }", .n = 1, .dims = &s});
  lw_dim both[] = {LIST("S", 4, 9, 4, 9), RANGE("N", 1, 5, 1, 2)};
  several((sized){.text = "graph g { dim N dim S input x: f32[N, S, 6] const w: f32[6, 6] y = Transpose(x) { perm = [0, 2, 1] } h = MatMul(x, w) z = MatMul(h, y) p = Softmax(z) output p }", .n = 2, .dims = both});
}

Test(sizes, weights_are_there_once) {
  /* one layout for all sizes of the picture: 24 x 3 x 9 and 24 x 24 x 9 weights, packed, and 24 x 10 */
  lw_dim n = RANGE("N", 1, 4, 1, 2, 4);
  tn_ctx *ctx = tn_ctx_new(NULL);
  ir_graph *g = model(ctx, NET);
  lw_options o = {.target = cg_target_find(ctx, "x86-64-v3", NULL)};
  int64_t all = lw_compile_sizes(ctx, g, 1, &n, &o)->weights_bytes;
  lw_bind_dims(ctx, g, 1, (const char *[]){"N"}, (int64_t[]){4});
  int64_t one = lw_compile(ctx, g, &o)->weights_bytes;
  cr_expect_leq(all, one + 2 * 24 * 16 * 4, "%lld bytes of weights, %lld of a single size", (long long)all, (long long)one);
  tn_ctx_free(ctx);
}

Test(sizes, what_is_no_batch) {
  lw_dim n = RANGE("N", 1, 8, 1, 4);
#define REFUSED(why, ...) several((sized){.text = "graph g { dim N " __VA_ARGS__ " }", .n = 1, .dims = &n, .refused = why})
  REFUSED("computes across it", "input x: f32[N, 6] y = Softmax(x) { axis = 0 } output y");
  REFUSED("computes across it", "input x: f32[N, 6] y = ReduceMax(x) { axes = [0] } output y");
  REFUSED("computes across it", "input x: f32[N, 6] const w: f32[6, 6] y = MatMul(x, w) m = ReduceMean(y) { axes = [0], keepdims = 1 } z = Sub(y, m) output z");
  REFUSED("computes across it", "input x: f32[N, 6] y = Transpose(x) output y");
  REFUSED("no batch", "input x: f32[N, 6] const i: i64[1] = [0] y = Gather(x, i) z = Add(x, y) output z");
  REFUSED("not the first axis", "input x: f32[6, N] y = Relu(x) output y");
  /* as many elements, but another order */
  REFUSED("something else", "input x: f32[N, 4] const s: i64[2] = [4, -1] y = Reshape(x, s) z = Softmax(y) output z");
  /* the size is a number that is computed with */
  REFUSED("something else", "input x: f32[N, 6] s = Shape(x) f = Cast(s) { to = 1 } const z: i64[1] = [0] n = Gather(f, z) y = Mul(x, n) output y");
}

typedef struct text_case {
  const char *text, *wrong;
} text_case;

static void verify_text(tn_ctx *ctx, void *arg) {
  text_case *c = arg;
  c->wrong = ir_program_verify(ctx, ir_program_parse(ctx, c->text, "p"));
}

/* Texts of programs with dims that reach beyond their memory are refused. */
Test(sizes, verify) {
#define KERNEL "kernel k(in X: f32[2], out Y: f32[2]) { for i in 0..2 { Y[i] = X[i] } } "
#define SLOTS(step) "slot x: f32[n] input 0 bytes 32 slot y: f32[n] output 0 bytes 32 slot a: f32[2] input 0 step " step " bytes 8 slot b: f32[2] output 0 step 4 bytes 8 "
  static const char *const cases[][2] = {
      {"program p { dim n [2, 8] " SLOTS("4") KERNEL "pack { } run { for i < n / 2 { let first = min(2 * i, n - 2) call k(@2, @3) } } }", NULL},
      {"program p { dim n [2, 8] " SLOTS("4") KERNEL "pack { } run { for i < n / 2 { let first = 2 * i call k(@2, @3) } } }", NULL},
      {"program p { dim n [2, 8] " SLOTS("4") KERNEL "pack { } run { for i < n { let first = 2 * i call k(@2, @3) } } }", "ends beyond its tensor"},
      {"program p { dim n [2, 8] " SLOTS("8") KERNEL "pack { } run { for i < n / 2 { let first = 2 * i call k(@2, @3) } } }", "ends beyond its tensor"},
      {"program p { dim n [2, 8] " SLOTS("4") KERNEL "pack { } run { let first: index[0, 6] = 2 * n call k(@2, @3) } }", "may be out of its range"},
      {"program p { dim n [2, 8] " SLOTS("4") KERNEL "pack { } run { call k(@2, @3) } }", "no let 'first'"},
      {"program p { dim n [2, 8] dim n [2, 8] pack { } run { } }", "two dimensions"},
      {"program p { dim n [2, 8] of 4, 2 pack { } run { } }", "do not ascend"},
      {"program p { dim n [8, 2] pack { } run { } }", ""},
  };
  for (int i = 0; i < IR_COUNT(cases); i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    text_case c = {cases[i][0], NULL};
    tn_status s = ir_protect(ctx, verify_text, &c);
    const char *wrong = s == TN_OK ? c.wrong : ir_error(ctx);
    if (!cases[i][1]) cr_expect(!wrong, "%s\n%s", wrong, cases[i][0]);
    else cr_expect(wrong && strstr(wrong, cases[i][1]), "%s\n%s", wrong ? wrong : "taken", cases[i][0]);
    tn_ctx_free(ctx);
  }
}

/* Sizes that nobody asked for are there as far as they gain: rows of a product share the weights, and a few of
 * them take no longer than one; parts of a convolution have nothing in common. */
Test(sizes, proposed) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  lw_options o = {.target = cg_target_find(ctx, "x86-64-v3", NULL)};
  lw_dim n = lw_dim_range(ctx, "N", 1, 512);
  int calls[2];
  for (int i = 0; i < 2; i++) {
    const char *text = i ? "graph g { dim N input x: f32[N, 32, 28, 28] const w: f32[32, 32, 3, 3] a = Conv(x, w) output a }"
                         : "graph g { dim N input x: f32[N, 256] const w: f32[256, 256] y = MatMul(x, w) output y }";
    calls[i] = lw_compile_sizes(ctx, model(ctx, text), 1, &n, &o)->nrun; /* a loop for each size */
  }
  cr_expect_eq(calls[0], 5, "%d sizes", calls[0]);
  cr_expect_eq(calls[1], 1, "%d sizes", calls[1]);
  lw_dim one = lw_dim_range(ctx, "N", 4, 4);
  cr_expect(lw_dim_fixed(&one) && one.sizes[0] == 4);
  lw_dim few = lw_dim_range(ctx, "N", 5, 7);
  cr_expect(few.n == 2 && few.sizes[0] == 5 && few.sizes[1] == 7);
  tn_ctx_free(ctx);
}

Test(sizes, one_size_for_all) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  lw_dim n = lw_dim_range(ctx, "N", 1, 9), odd = lw_dim_range(ctx, "N", 2, 7);
  tn_ctx_free(ctx);
  n.sizes = (int64_t[]){1, 2, 4, 8}, odd.sizes = (int64_t[]){2, 4};
  several((sized){.text = "graph g { dim N input x: f32[N, 8, 12, 12] const w: f32[8, 8, 3, 3] a = Conv(x, w) b = Relu(a) output b }", .n = 1, .dims = &n});
  several((sized){.text = "graph g { dim N input x: f32[N, 8, 12, 12] const w: f32[8, 8, 3, 3] a = Conv(x, w) b = Relu(a) output b }", .n = 1, .dims = &odd});
  several((sized){.text = MLP, .n = 1, .dims = &n});
}

/* Loops that stay: a Scan of either length, a long loop over what has that length, a branch. */
Test(sizes, loops) {
  static const char text[] =
      "graph g { opset 17 dim S input x: f32[S, 2] const w: f32[2, 2] const z: f32[2] = [0.5, -0.5] const half: f32[] = 0.5 const n: i64[] = 3000"
      " f, y = Scan(z, x) { num_scan_inputs = 1, body = graph k { input s: f32[2] input u: f32[2] a = Mul(s, half) t = Add(a, u) output t, t } }"
      " l = Loop(n, _, y) { body = graph b { input i: i64[] input c: bool[] input v d = Identity(c) v1 = Mul(v, half) v2 = Add(v1, x) output d, v2 } }"
      " r = ReduceSum(f) { keepdims = 0 } p = Less(r, half) m = If(p) { then_branch = graph t2 { o = MatMul(l, w) output o }, else_branch = graph e2 { q = Neg(l) output q } } output m, f }";
  lw_dim s[] = {LIST("S", 1500, 1600, 1500, 1600)}, range[] = {RANGE("S", 1500, 3200, 1500, 1600)};
  several((sized){.text = text, .n = 1, .dims = s});
  several((sized){.text = text, .n = 1, .dims = range, .refused = "cannot be a range"});
}

/* ---- objects ---- */

static void write_sizes(tn_ctx *ctx, void *arg) {
  (void)arg;
  lw_dim d[] = {RANGE("N", 1, 11, 1, 2, 4), LIST("S", 3, 6, 3, 6)};
  ir_graph *g = model(ctx, "graph g { dim N dim S input x: f32[N, S, 4] const w: f32[4, 4] h = MatMul(x, w) y = Transpose(h) { perm = [0, 2, 1] } z = MatMul(h, y) p = Softmax(z) output p }");
  ir_program *p = lw_compile_sizes(ctx, g, 2, d, &(lw_options){.target = cg_target_find(ctx, NULL, NULL)});
  rt_object_options o = {.files = {.path = ir_strdup(ctx, in_folder("m.o")), .header = ir_strdup(ctx, in_folder("m.h")), .prefix = "m", .weights = CG_WEIGHTS_EMBED}};
  rt_write_object(ctx, p, &o);
}

/* Rows of a softmax add up to 1, each batch is what it is alone, nothing is written beyond; other sizes are refused. */
static const char driver[] =
    "#include \"m.h\"\n#include <math.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n"
    "static float x[11 * 6 * 4], y[11 * 6 * 6 + 1], one[36];\n"
    "static void run(const float *in, float *out, int64_t n, int64_t s, int want) {\n"
    "  int64_t dims[M_NUM_DIMS] = {n, s}, od[M_NUM_OUT_DIMS];\n"
    "  const void *i[] = {in}; void *o[] = {out};\n"
    "  void *arena = aligned_alloc(M_ALIGN, (m_arena_bytes(dims, 1) / M_ALIGN + 1) * M_ALIGN);\n"
    "  int rc = m_run(i, o, dims, od, NULL, NULL, arena, NULL);\n"
    "  if (rc != want) { printf(\"%d x %d gives %d\\n\", (int)n, (int)s, rc); exit(1); }\n"
    "  if (!rc && (od[0] != n || od[1] != s || od[2] != s)) { puts(\"out_dims\"); exit(1); }\n"
    "  free(arena);\n"
    "}\n"
    "int main(void) {\n"
    "  for (int i = 0; i < 11 * 6 * 4; i++) x[i] = (float)(i * 37 % 101) / 50 - 1;\n"
    "  for (int64_t s = 0; s < 9; s++)\n"
    "    for (int64_t n = 0; n < 14; n++) {\n"
    "      int fits = n >= M_DIM_0_MIN && n <= M_DIM_0_MAX && (s == 3 || s == 6);\n"
    "      for (int i = 0; i <= 11 * 36; i++) y[i] = -7;\n"
    "      run(x, y, n, s, fits ? M_OK : M_E_DIMS);\n"
    "      if (y[fits ? n * s * s : 0] != -7) { puts(\"beyond\"); return 1; }\n"
    "      for (int64_t b = 0; b < n && fits; b++) {\n"
    "        run(x + b * s * 4, one, 1, s, M_OK);\n"
    "        for (int64_t i = 0; i < s * s; i++) if (fabsf(one[i] - y[b * s * s + i]) > 1e-5f) { printf(\"%d of %d\\n\", (int)b, (int)n); return 1; }\n"
    "      }\n"
    "      for (int64_t r = 0; r < n * s && fits; r++) {\n"
    "        float sum = 0; for (int64_t i = 0; i < s; i++) sum += y[r * s + i];\n"
    "        if (fabsf(sum - 1) > 1e-5f) { puts(\"sum\"); return 1; }\n"
    "      }\n"
    "    }\n"
    "  const void *i[] = {x}; void *o[] = {y};\n"
    "  static char arena[1 << 20]; char *p = arena + (64 - (uintptr_t)arena % 64) % 64;\n"
    "  return m_run(i, o, NULL, NULL, NULL, NULL, p, NULL) == M_E_ARG ? 0 : 2;\n"
    "}\n";

Test(sizes, object) {
  folder();
  tn_ctx *ctx = tn_ctx_new(NULL);
  cr_assert_eq(ir_protect(ctx, write_sizes, NULL), TN_OK, "%s", ir_error(ctx));
  tn_ctx_free(ctx);
  write_text("driver.c", driver);
  SH("%s -std=c11 -Wall -Wextra -Werror -O1 -I. driver.c m.o -o driver -lm && ./driver", host_cc());
  SH("rm -r %s", dir);
}
