/* The ONNX importer: what graphs it makes, what it refuses and how it says so, inputs that decide
 * shapes, the list of a model's problems, random inputs, comparison. */
#include "frontend/compare.h"
#include "frontend/import.h"
#include "frontend/inputs.h"
#include "lower/lower.h"
#include "runtime/program_interp.h"
#include "tests/onnx_bytes.h"
#include "tests/reader_help.h"
#include <math.h>

enum { F32 = 1, I64 = 7 };

static ir_graph *import(tn_ctx *ctx, const on_model *m, fe_problems *problems) {
  pb p = on_finish(m);
  return fe_import_model(ctx, fe_onnx_parse(ctx, ir_grow(ctx, p.b, p.n, p.n, 1), p.n, "t.onnx", NULL), problems);
}

static void import_fn(tn_ctx *ctx, void *arg) { import(ctx, arg, NULL); }
static void compile_fn(tn_ctx *ctx, void *arg) {
  ir_graph *g = import(ctx, arg, NULL);
  lw_bind_dims(ctx, g, 0, NULL, NULL);
  lw_options o = {.unscheduled = true};
  lw_compile(ctx, g, &o);
}

/* Runs a model of f32 inputs with the values given, through the interpreter. */
static const float *run(tn_ctx *ctx, ir_graph *g, const void *const *in) {
  lw_options o = {.unscheduled = true};
  ir_program *p = lw_compile(ctx, g, &o);
  void **out = IR_NEW_ARRAY(ctx, void *, p->noutputs + 1);
  for (int i = 0; i < p->nslots; i++)
    if (p->slots[i].kind == IR_SLOT_OUTPUT) out[p->slots[i].index] = fe_buffer(ctx, p->slots[i].bytes);
  rt_program_interp(ctx, p, in, out, NULL, NULL, NULL);
  return out[0];
}

/* ---- graphs ---- */

static void plain(tn_ctx *ctx, void *arg) {
  on_model m = {.opset = 13};
  on_input(&m, "x", F32, "N,3");
  on_input(&m, "z", F32, "N,1");
  on_init(&m, on_floats("b", 3, (float[]){1, 2, 3}));
  on_input(&m, "b", F32, "3"); /* an input with a default is the default */
  on_add(&m, on_node("Add", "x,b", "s"));
  pb n = on_node("LeakyRelu", "s", "r");
  on_attr_float(&n, "alpha", 0.5f);
  on_add(&m, n);
  on_add(&m, on_node("Mul", "r,z", "y"));
  on_output(&m, "y", F32, "N,3");
  ir_graph *g = import(ctx, &m, NULL);
  cr_assert(g->nnodes == 3 && g->ninputs == 2 && g->noutputs == 1);
  cr_assert_str_eq(g->inputs[1]->name, "z");
  cr_assert_str_eq(g->outputs[0]->name, "y");
  cr_assert_eq(g->inputs[0]->dims[0], g->inputs[1]->dims[0], "one N");
  cr_assert_eq(g->nodes[0]->opset, 13);
  cr_assert_str_eq(g->nodes[1]->where, "t.onnx: node 'r' (LeakyRelu)");
  cr_assert_eq(ir_attr_get_float(g->nodes[1], "alpha", 0), 0.5);
  fe_array a = {.dtype = TN_F32, .rank = 2, .dims = (int64_t[]){2, 3}, .count = 6};
  fe_bind_input(ctx, g, 0, &a); /* binds N of z, too */
  lw_bind_dims(ctx, g, 0, NULL, NULL);
  float x[6] = {0, -4, 1, -2, 0, 1}, z[2] = {1, 10};
  const float *y = run(ctx, g, (const void *const[]){x, z}), want[6] = {1, -1, 4, -5, 20, 40};
  for (int i = 0; i < 6; i++) cr_assert_eq(y[i], want[i], "%d: %g", i, y[i]);
}
Test(import, plain) { expect_status(plain, NULL, TN_OK, NULL); }

/* local.scale(x; factor = 2) = x * factor, local.twice(x) = scale(scale(x), factor = given). */
static on_model functions(void) {
  on_model m = {0};
  pb body = {0}, c = on_node("Constant", "", "f"), mul = on_node("Mul", "v,f", "w"), def = {0};
  on_attr_ref(&c, "value_float", "factor", 1);
  pb_sub(&body, 7, &c), pb_sub(&body, 7, &mul);
  pb_str(&def, 1, "factor"), pb_float(&def, 2, 2), pb_int(&def, 20, 1);
  pb_sub(&body, 11, &def);
  on_function(&m, "scale", "v", "w", &body);
  pb outer = {0}, first = on_node("scale", "a", "t"), second = on_node("scale", "t", "b");
  pb_str(&first, 7, "local"), pb_str(&second, 7, "local");
  on_attr_ref(&second, "factor", "given", 1);
  pb_str(&outer, 6, "given");
  pb_sub(&outer, 7, &first), pb_sub(&outer, 7, &second);
  on_function(&m, "twice", "a", "b", &outer);
  on_input(&m, "x", F32, "2");
  pb call = on_node("twice", "x", "y");
  pb_str(&call, 7, "local");
  on_attr_float(&call, "given", 5);
  on_add(&m, call);
  on_output(&m, "y", F32, "2");
  return m;
}
static void inlined(tn_ctx *ctx, void *arg) {
  on_model m = functions();
  const float *y = run(ctx, import(ctx, &m, NULL), (const void *const[]){(float[]){1, -3}});
  cr_assert(y[0] == 10 && y[1] == -30);
}
Test(import, functions) { expect_status(inlined, NULL, TN_OK, NULL); }

static void recursive(tn_ctx *ctx, void *arg) {
  on_model m = {0};
  pb body = {0}, self = on_node("f", "v", "w");
  pb_str(&self, 7, "local");
  pb_sub(&body, 7, &self);
  on_function(&m, "f", "v", "w", &body);
  on_input(&m, "x", F32, "2");
  pb call = on_node("f", "x", "y");
  pb_str(&call, 7, "local");
  on_add(&m, call);
  on_output(&m, "y", F32, "2");
  import(ctx, &m, NULL);
}
Test(import, function_that_calls_itself) { expect_status(recursive, NULL, TN_EINPUT, "calls itself"); }

/* ---- what is refused ---- */

static on_model chain(const char *op, const char *in, const char *out) {
  on_model m = {0};
  on_input(&m, "x", F32, "2,3");
  on_add(&m, on_node(op, in, "v"));
  on_output(&m, out, F32, "2,3");
  return m;
}
Test(import, refused) {
  on_model m = chain("Frobnicate", "x", "v");
  expect_status(import_fn, &m, TN_EUNSUPPORTED, "t.onnx: node 'v' (Frobnicate): op Frobnicate (opset 18) is not supported");
  m = chain("Relu", "w", "v");
  expect_status(import_fn, &m, TN_EINPUT, "t.onnx: node 'v' (Relu): input 'w' is not defined before it");
  m = chain("Relu", "x", "u");
  expect_status(import_fn, &m, TN_EINPUT, "t.onnx: output 'u' is not computed");
  m = chain("Relu", "x", "v");
  on_add(&m, on_node("Relu", "x", "v"));
  expect_status(import_fn, &m, TN_EINPUT, "'v' is defined twice");
  m = chain("Relu", "x", "v");
  on_input(&m, "x", F32, "2");
  expect_status(import_fn, &m, TN_EINPUT, "input 'x' is defined twice");
  m = chain("Relu", "u", "v");
  on_add(&m, on_node("Relu", "v", "u")); /* a cycle */
  expect_status(import_fn, &m, TN_EINPUT, "not defined before it");
}

Test(import, wrong_types_and_shapes) {
  on_model m = chain("MatMul", "x,x", "v");
  expect_status(compile_fn, &m, TN_EINPUT, "node 'v' (MatMul)");
  m = chain("Relu", "x,x", "v");
  expect_status(compile_fn, &m, TN_EINPUT, "Relu takes 1 to 1 inputs");
  m = (on_model){0};
  on_input(&m, "x", F32, "4000000000,4000000000,4000000000");
  on_add(&m, on_node("Relu", "x", "v"));
  on_output(&m, "v", F32, "1");
  expect_status(compile_fn, &m, TN_EINPUT, NULL);
  m = chain("Relu", "x", "v");
  pb attr = on_node("Relu", "v", "w");
  on_attr_int(&attr, "colour", 3);
  on_add(&m, attr);
  on_output(&m, "w", F32, "2,3");
  expect_status(compile_fn, &m, TN_EUNSUPPORTED, "no attribute 'colour'");
  m = (on_model){0};
  on_input(&m, "s", 8, "2"); /* strings */
  on_add(&m, on_node("Identity", "s", "v"));
  on_output(&m, "v", 8, "2");
  expect_status(import_fn, &m, TN_EUNSUPPORTED, "input 's' (read by Identity, opset 18): element type STRING");
}

static void sequence(tn_ctx *ctx, void *arg) {
  on_model m = {0};
  pb v = {0}, type = {0}, seq = {0}, elem = {0}, tensor = {0};
  pb_int(&tensor, 1, F32), pb_sub(&elem, 1, &tensor), pb_sub(&seq, 1, &elem), pb_sub(&type, 4, &seq);
  pb_str(&v, 1, "s"), pb_sub(&v, 2, &type);
  pb_sub(&m.graph, 11, &v);
  on_add(&m, on_node("SequenceLength", "s", "n"));
  on_output(&m, "n", I64, "");
  import(ctx, &m, NULL);
}
Test(import, sequences) { expect_status(sequence, NULL, TN_EUNSUPPORTED, "input 's' (read by SequenceLength, opset 18): only tensors"); }

Test(import, failing_allocations) {
  on_model m = functions();
  starve(compile_fn, &m);
}

static void blob_fn(tn_ctx *ctx, void *arg) {
  const blob *b = arg;
  fe_problems problems = {0};
  const fe_onnx *m = fe_onnx_parse(ctx, b->data, b->n, "t.onnx", NULL);
  fe_check_graph(ctx, fe_import_model(ctx, m, &problems), true, &problems);
  ir_graph *g = fe_import_model(ctx, m, NULL);
  lw_bind_dims(ctx, g, 1, (const char *const[]){"N"}, (const int64_t[]){2});
  lw_options o = {.unscheduled = true};
  lw_compile(ctx, g, &o);
}
static void mauled(const on_model *m) { /* usage errors too: a flipped bit renames a dimension */
  pb p = on_finish(m);
  for (size_t i = 0; i < p.n + 8 * p.n; i++) {
    size_t n = i < p.n ? i : p.n;
    char *copy = malloc(n + 1);
    memcpy(copy, p.b, n);
    if (i >= p.n) copy[(i - p.n) / 8] ^= (char)(1 << (i - p.n) % 8);
    tn_ctx *ctx = tn_ctx_new(NULL);
    tn_status s = ir_protect(ctx, blob_fn, &(blob){copy, n});
    cr_assert(s == TN_OK || s == TN_EINPUT || s == TN_EUNSUPPORTED || s == TN_EUSAGE || s == TN_ERESOURCE, "case %zu: status %d: %s", i, s, tn_error(ctx));
    cr_assert(s == TN_OK || *tn_error(ctx));
    tn_ctx_free(ctx);
    free(copy);
  }
}
Test(import, mauled_functions) {
  on_model m = functions();
  mauled(&m);
}
Test(import, mauled_shapes) {
  on_model m = {0};
  on_input(&m, "x", F32, "N,3");
  on_init(&m, on_ints("shape", 2, (int64_t[]){3, -1}));
  on_add(&m, on_node("Reshape", "x,shape", "r"));
  on_add(&m, on_node("MatMul", "r,x", "y"));
  on_output(&m, "y", F32, "3,3");
  mauled(&m);
}

/* ---- inputs that decide shapes ---- */

static on_model reshaping(void) {
  on_model m = {0};
  on_input(&m, "x", F32, "2,3");
  on_input(&m, "shape", I64, "2");
  on_input(&m, "like", F32, "N");
  on_add(&m, on_node("Shape", "like", "unused"));
  on_add(&m, on_node("Identity", "shape", "copy"));
  on_add(&m, on_node("Reshape", "x,copy", "y"));
  on_output(&m, "y", F32, "3,2");
  on_output(&m, "unused", I64, "1");
  return m;
}
static void shape_inputs(tn_ctx *ctx, void *arg) {
  on_model m = reshaping();
  ir_graph *g = import(ctx, &m, NULL);
  const bool *s = fe_shape_inputs(ctx, g);
  cr_assert(!s[0] && s[1] && !s[2]);
  fe_freeze_input(ctx, g, 1, (int64_t[]){3, 2});
  lw_bind_dims(ctx, g, 1, (const char *const[]){"N"}, (const int64_t[]){7});
  float x[6] = {1, 2, 3, 4, 5, 6};
  const float *y = run(ctx, g, (const void *const[]){x, NULL, x});
  for (int i = 0; i < 6; i++) cr_assert_eq(y[i], x[i]);
}
Test(import, shape_inputs) { expect_status(shape_inputs, NULL, TN_OK, NULL); }

/* A size that grows from turn to turn by what an input says: both must be known, and how many turns there are. */
static void shapes_of_turns(tn_ctx *ctx, void *arg) {
  ir_graph *g = ir_graph_parse(ctx, "graph g { opset 17 input n: i64[] input c: bool[] input from: i64[1] input by: i64[1] input x: f32[1] y, z = Loop(n, c, from, x) { body = graph b {"
                                    " input i: i64[] input d: bool[] input s: i64[1] input v: f32[1] w = Expand(v, s) r = ReduceSum(w) {keepdims = 1} u = Add(s, by) e = Identity(d) output e, u, r } } output z }", "test");
  ir_graph_sort(g);
  const bool *s = fe_shape_inputs(ctx, g);
  cr_assert(s[0] && s[1] && s[2] && s[3] && !s[4]);
}
Test(import, shapes_of_turns) { expect_status(shapes_of_turns, NULL, TN_OK, NULL); }

/* ---- all problems at once ---- */

static void problems(tn_ctx *ctx, void *arg) {
  on_model m = {0};
  on_input(&m, "x", F32, "2,3");
  on_add(&m, on_node("Frobnicate", "x", "a"));
  on_add(&m, on_node("Relu", "a", "b")); /* depends on what is not known: no problem of its own */
  on_add(&m, on_node("MatMul", "x,x", "c"));
  on_add(&m, on_node("Grumble", "c", "d"));
  on_add(&m, on_node("Relu", "x", "e"));
  on_output(&m, "b", F32, "2,3");
  on_output(&m, "d", F32, "2,3");
  on_output(&m, "e", F32, "2,3");
  on_input(&m, "words", 8, "2");
  on_add(&m, on_node("Identity", "words", "f"));
  fe_problems p = {0};
  ir_graph *g = import(ctx, &m, &p);
  fe_check_graph(ctx, g, false, &p);
  cr_assert_eq(p.n, 4, "%d", p.n);
  cr_assert_str_eq(p.items[0].reason, "input 'words' (read by Identity, opset 18): element type STRING is not supported");
  cr_assert_str_eq(p.items[1].op, "Frobnicate");
  cr_assert_eq(p.items[1].opset, 18);
  cr_assert_eq(p.items[1].status, TN_EUNSUPPORTED);
  cr_assert_str_eq(p.items[2].op, "Grumble");
  cr_assert_str_eq(p.items[3].op, "MatMul");
  cr_assert_eq(p.items[3].status, TN_EINPUT);
}
Test(import, all_problems) { expect_status(problems, NULL, TN_OK, NULL); }

static void open_problems(tn_ctx *ctx, void *arg) {
  on_model m = reshaping();
  fe_problems p = {0};
  ir_graph *g = import(ctx, &m, &p);
  fe_check_graph(ctx, g, true, &p);
  cr_assert_eq(p.n, 0);
  g = import(ctx, &m, &p);
  fe_check_graph(ctx, g, false, &p);
  cr_assert_eq(p.n, 1);
  cr_assert_str_eq(p.items[0].op, "Reshape");
}
Test(import, problems_of_open_models) { expect_status(open_problems, NULL, TN_OK, NULL); }

/* ---- random inputs: fixed for ever, other programs repeat them ---- */

Test(inputs, random) {
  float f[4];
  fe_random(f, TN_F32, 4, 0, 0);
  double d[4];
  fe_random(d, TN_F64, 4, 0, 0);
  /* SplitMix64 of seed 0 begins with e220a8397b1dcdaf, 6e789e6aa1b965f4 */
  cr_assert_eq(f[0], (float)(0xe220a8 / 8388608.0 - 1));
  cr_assert_eq(f[1], (float)(0x6e789e / 8388608.0 - 1));
  for (int i = 0; i < 4; i++) cr_assert_eq(f[i], d[i]);
  int64_t n[64];
  int ones = 0;
  fe_random(n, TN_I64, 64, 3, 1);
  for (int i = 0; i < 64; i++) {
    cr_assert(n[i] == 0 || n[i] == 1);
    ones += (int)n[i];
  }
  cr_assert(ones > 10 && ones < 54);
  static uint16_t h[10000];
  for (int t = TN_F16; t <= TN_BF16; t++) {
    fe_random(h, (tn_dtype)t, 10000, 0, 0);
    double lo = 9, hi = -9;
    for (int i = 0; i < 10000; i++) {
      double v = fe_element((tn_dtype)t, h, i);
      lo = v < lo ? v : lo, hi = v > hi ? v : hi;
    }
    cr_assert(lo == -1 && hi < 1 && hi > 0.98, "%g %g", lo, hi);
  }
}

static void bind_wrong(tn_ctx *ctx, void *arg) {
  on_model m = reshaping();
  ir_graph *g = import(ctx, &m, NULL);
  fe_array a = {.dtype = TN_F32, .rank = 2, .dims = (int64_t[]){2, 4}, .count = 8};
  fe_bind_input(ctx, g, 0, &a);
}
Test(inputs, wrong_shape) { expect_status(bind_wrong, NULL, TN_EINPUT, "input 'x' is f32[2,3], given is f32[2,4]"); }

/* ---- comparison ---- */

Test(compare, floats) {
  fe_tolerance tol = {1e-3, 1e-7};
  float want[6] = {1, -2, 0, INFINITY, NAN, 100}, got[6] = {1.0009f, -2, 1e-8f, INFINITY, NAN, 100};
  fe_difference d = fe_compare(TN_F32, 6, got, want, &tol);
  cr_assert(d.equal && d.wrong == 0 && d.max_ref == 100 && d.worst == 0);
  got[3] = -INFINITY, got[4] = 0, got[5] = 101;
  d = fe_compare(TN_F32, 6, got, want, &tol);
  cr_assert(!d.equal && d.wrong == 3 && d.first == 3 && isinf(d.max_abs));
  got[0] = NAN;
  d = fe_compare(TN_F32, 1, got, want, &tol);
  cr_assert(d.wrong == 1 && d.first == 0);
  float a = 1, b = nextafterf(nextafterf(1, 2), 2), c = -0.0f, e = 0;
  cr_assert_eq(fe_compare(TN_F32, 1, &a, &b, &tol).max_ulp, 2);
  cr_assert_eq(fe_compare(TN_F32, 1, &c, &e, &tol).max_ulp, 0);
  cr_assert(fe_compare(TN_F32, 0, NULL, NULL, &tol).equal);
}

Test(compare, integers_are_exact) {
  fe_tolerance tol = {0.5, 100};
  int64_t want[2] = {INT64_MAX, 5}, got[2] = {INT64_MAX - 1, 5}; /* equal as doubles */
  fe_difference d = fe_compare(TN_I64, 2, got, want, &tol);
  cr_assert(!d.equal && d.wrong == 1 && d.first == 0);
  uint8_t yes[3] = {1, 0, 1}, no[3] = {1, 1, 1};
  cr_assert_eq(fe_compare(TN_BOOL, 3, yes, no, &tol).first, 1);
}
