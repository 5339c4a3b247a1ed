/* Text of expressions and kernels: parse(print(x)) is x, and errors say where. */
#include "ir/interp.h"
#include "ir/text.h"
#include "random_kernel.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef void body_fn(tn_ctx *ctx, void *arg);

static void run(body_fn *fn, void *arg) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_status s = ir_protect(ctx, fn, arg);
  cr_assert_eq(s, TN_OK, "%s", tn_error(ctx));
  tn_ctx_free(ctx);
}

static uint64_t rng_state;
static uint64_t rng(void) { /* splitmix64 */
  uint64_t z = (rng_state += 0x9e3779b97f4a7c15u);
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}
static int below(int n) { return (int)(rng() % (uint64_t)n); }

/* ---- a small world of names ---- */

enum { NVARS = 6, NBUFS = 8 };
typedef struct world {
  tn_ctx *ctx;
  ir_var *vars[NVARS];
  ir_buf *bufs[NBUFS];
  ir_env env;
} world;

static ir_var *world_var(void *user, const char *name) {
  world *w = user;
  for (int i = 0; i < NVARS; i++)
    if (strcmp(w->vars[i]->name, name) == 0) return w->vars[i];
  return NULL;
}
static ir_buf *world_buf(void *user, const char *name) {
  world *w = user;
  for (int i = 0; i < NBUFS; i++)
    if (strcmp(w->bufs[i]->name, name) == 0) return w->bufs[i];
  return NULL;
}

static void world_make(tn_ctx *ctx, world *w) {
  static const char *const vars[NVARS] = {"i", "j", "n", "x", "odd name", "for"};
  static const tn_dtype var_types[NVARS] = {TN_INDEX, TN_INDEX, TN_INDEX, TN_F32, TN_I32, TN_INDEX};
  static const int64_t his[NVARS] = {15, 99, INT64_MAX, INT64_MAX, INT64_MAX, 3};
  static const char *const bufs[NBUFS] = {"A", "B", "acc", "h", "d", "idx", "m", "u"};
  static const tn_dtype buf_types[NBUFS] = {TN_F32, TN_F32, TN_F32, TN_F16, TN_F64, TN_I64, TN_BOOL, TN_U8};
  static const int ranks[NBUFS] = {2, 1, 0, 1, 1, 1, 1, 2};
  w->ctx = ctx;
  for (int i = 0; i < NVARS; i++)
    w->vars[i] = ir_var_new(ctx, vars[i], var_types[i], var_types[i] == TN_INDEX ? 0 : INT64_MIN, his[i]);
  ix shape[2] = {ix_index(ctx, 100), ix_index(ctx, 100)};
  for (int i = 0; i < NBUFS; i++) w->bufs[i] = ir_buf_new(ctx, bufs[i], buf_types[i], ranks[i], shape, NULL, IR_GLOBAL);
  w->env = (ir_env){w, world_var, world_buf};
}

/* ---- hand-written expressions: what is read, what is printed ---- */

static void written(tn_ctx *ctx, void *arg) {
  static const char *const cases[][2] = {
      {"1", "1"}, {"1.5f32", "1.5f32"}, {"3i64", "3i64"}, {"-3i8", "-3i8"}, {"true", "true"},
      {"18446744073709551615u64", "18446744073709551615u64"}, {"0xffu8", "255u8"}, {"0x1.8p1f64", "3.0f64"},
      {"nan:f32", "nan:f32"}, {"-inf:f16", "-inf:f16"}, {"-0.0f32", "-0.0f32"}, {"1e-7f32", "1e-07f32"},
      {"0.1bf16", "0.1bf16"}, {"65504f16", "65504.0f16"},
      {"i*4 + j", NULL}, {"j + 4*i - 3", "i*4 + j - 3"}, {"i - j", "i - j"}, {"-i", "i*-1"}, {"i*3 - j*2", "i*3 - j*2"},
      {"(i + 3)/4", "(i + 3)/4"}, {"(i + 3)%4*2", "(i + 3)%4*2"}, {"i/4*4 + i%4", "i"}, {"min(i, n)", "min(i, n)"},
      {"i < 3", "i < 3"}, {"i <= 3", "i < 4"}, {"3 < i", "i > 3"}, {"i == 3", "i == 3"}, {"i != j", "i != j"},
      {"n*(i + j)", "i*n + j*n"}, {"A[i, j + 1] * 2", "A[i, j + 1] * 2.0"}, {"2 * x", "x * 2.0"}, {"x - 2", "x - 2.0"},
      {"2 - x", "2.0 - x"}, {"x / 3 / x", "x / 3.0 / x"}, {"x / (3 / x)", "x / (3.0 / x)"}, {"-x", "-x"}, {"-x * x", NULL},
      {"-(x * x)", "-(x * x)"}, {"- -x", NULL}, {"x < 1 & x > -1", "x > -1.0 & x < 1.0"},
      {"m[i] | m[j] & m[n]", "m[i] | m[j] & m[n]"}, {"(m[i] | m[j]) & m[n]", "m[n] & (m[i] | m[j])"}, {"!m[i]", "!m[i]"},
      {"x < 1 == m[i]", NULL}, {"select(m[i], x, 0)", "select(m[i], x, 0.0)"}, {"select(m[i], 1f32, 0f32)", "select(m[i], 1.0f32, 0.0f32)"},
      {"max(acc[], -inf)", "max(acc[], -inf)"}, {"fma(x, 2, acc[])", "fma(x, 2.0, acc[])"}, {"exp(1f32)", "exp(1.0f32)"},
      {"pow(x, 2)", "pow(x, 2.0)"}, {"cast<f64>(x) + 1", "cast<f64>(x) + 1.0"}, {"bitcast<i32>(x) >> 23 & 255", "bitcast<i32>(x) >> 23 & 255"},
      {"cast<index>(idx[i])", "cast<index>(idx[i])"}, {"A[cast<index>(idx[j]), 0]", "A[cast<index>(idx[j]), 0]"},
      {"\"odd name\" * 3", "\"odd name\" * 3"}, {"\"for\" + i", NULL}, {"idx[i] % 3 / 2", "idx[i] % 3 / 2"},
      {"x != x", "x != x"}, {"abs(x) >= 1", "abs(x) >= 1.0"}, {"1 + exp(x)", "exp(x) + 1.0"}, {"u[i, j] << 2 | 1", "u[i, j] << 2 | 1"},
      {"(x)", "x"}, {"((1 + 2))", "3"}, {"x+-1", "x + -1.0"}, {"min(x,1.0)", "min(x, 1.0)"}, {"i*(j*4)", NULL},
      {"-9223372036854775808", "-9223372036854775808"}, {"-9223372036854775808i64", "-9223372036854775808i64"},
      {"(%1 := exp(x)) / (%1 + 1)", "exp(x) / (exp(x) + 1.0)"}, {"select(i < 3, i, j)", "select(i < 3, i, j)"}};
  world w;
  world_make(ctx, &w);
  for (int i = 0; i < IR_COUNT(cases); i++) {
    ix e = ix_parse(ctx, cases[i][0], "case", &w.env, TN_NONE);
    const char *printed = ix_print(ctx, e);
    if (cases[i][1]) cr_expect_str_eq(printed, cases[i][1]);
    ix again = ix_parse(ctx, printed, "printed", &w.env, TN_NONE);
    cr_assert_eq(again, e, "%s: %s: %s", cases[i][0], printed, ix_print(ctx, again));
  }
}
Test(text, expressions) { run(written, NULL); }

/* ---- random expressions ---- */

static ix random_expr(world *w, tn_dtype t, int depth);

static ix random_leaf(world *w, tn_dtype t) {
  tn_ctx *ctx = w->ctx;
  if (t == TN_INDEX) {
    int k = below(6);
    return k < 4 ? w->vars[k == 3 ? 5 : k]->expr : ix_index(ctx, below(40) - 12);
  }
  for (int tries = 0; tries < 6; tries++) {
    ir_buf *b = w->bufs[below(NBUFS)];
    if (b->dtype != t) continue;
    ix index[2] = {random_expr(w, TN_INDEX, 1), random_expr(w, TN_INDEX, 1)};
    return ix_load(ctx, b, index);
  }
  if (t == TN_BOOL) return ix_bool(ctx, below(2));
  if (!ir_is_float(t)) return ix_int(ctx, t, below(3) ? below(9) - 4 : (int64_t)rng());
  static const double some[] = {0, -0.0, 1, -1, 0.1, 1e30, 1e-30, INFINITY, -INFINITY, NAN, 3};
  return ix_float(ctx, t, below(2) ? some[below(IR_COUNT(some))] : (double)(int64_t)rng() * 0x1p-60);
}

static ix random_expr(world *w, tn_dtype t, int depth) {
  tn_ctx *ctx = w->ctx;
  if (depth == 0) return random_leaf(w, t);
  static const tn_dtype types[] = {TN_F32, TN_F16, TN_F64, TN_I64, TN_U8, TN_I32, TN_INDEX, TN_BOOL, TN_BF16};
  tn_dtype other = types[below(IR_COUNT(types))];
  int k = below(10);
  if (k == 0) return random_leaf(w, t);
  if (k == 1) return ix_select(ctx, random_expr(w, TN_BOOL, depth - 1), random_expr(w, t, depth - 1), random_expr(w, t, depth - 1));
  if (k == 2 && t != TN_INDEX) return ix_cast(ctx, t, random_expr(w, other, depth - 1));
  if (t == TN_BOOL) {
    static const ir_opcode ops[] = {IX_LT, IX_LE, IX_EQ, IX_NE};
    if (k < 7) return ix_binary(ctx, ops[below(4)], random_expr(w, other, depth - 1), random_expr(w, other, depth - 1));
    static const ir_opcode logic[] = {IX_AND, IX_OR, IX_XOR, IX_NOT};
    ir_opcode op = logic[below(4)];
    ix a = random_expr(w, t, depth - 1);
    return op == IX_NOT ? ix_not(ctx, a) : ix_binary(ctx, op, a, random_expr(w, t, depth - 1));
  }
  if (t == TN_INDEX) {
    ix a = random_expr(w, t, depth - 1);
    if (k < 5) return ix_binary(ctx, (ir_opcode[]){IX_ADD, IX_SUB, IX_MUL, IX_MIN, IX_MAX}[below(5)], a,
                                k == 3 ? ix_index(ctx, below(20) - 6) : random_expr(w, t, depth - 1));
    return ix_binary(ctx, below(2) ? IX_DIV : IX_REM, a, ix_index(ctx, 1 + below(12)));
  }
  if (ir_is_float(t) && k < 5) {
    static const ir_opcode ops[] = {IX_EXP, IX_SQRT, IX_TANH, IX_ROUND, IX_NEG, IX_ABS, IX_POW, IX_FMA};
    ir_opcode op = ops[below(IR_COUNT(ops))];
    ix args[3];
    for (int i = 0; i < ix_info[op].arity; i++) args[i] = random_expr(w, t, depth - 1);
    return ix_make(ctx, op, t, ix_info[op].arity, args);
  }
  static const ir_opcode ops[] = {IX_ADD, IX_SUB, IX_MUL, IX_DIV, IX_REM, IX_MIN, IX_MAX, IX_AND, IX_OR, IX_XOR, IX_SHL, IX_SHR};
  ir_opcode op = ops[below(ir_is_float(t) ? 7 : IR_COUNT(ops))];
  return ix_binary(ctx, op, random_expr(w, t, depth - 1), random_expr(w, t, depth - 1));
}

static void random_law(tn_ctx *ctx, void *arg) {
  static const tn_dtype types[] = {TN_INDEX, TN_F32, TN_BOOL, TN_I64, TN_U8, TN_F16, TN_F64, TN_I32, TN_BF16};
  world w;
  world_make(ctx, &w);
  rng_state = *(uint64_t *)arg;
  for (int i = 0; i < 400; i++) {
    ix e = random_expr(&w, types[below(IR_COUNT(types))], 1 + below(5));
    const char *text = ix_print(ctx, e);
    ix again = ix_parse(ctx, text, "printed", &w.env, TN_NONE);
    cr_assert_eq(again, e, "%s\n is read as\n%s", text, ix_print(ctx, again));
    tn_dtype t = (tn_dtype)e->dtype; /* and where a reader knows the dtype */
    ir_text bare = {.ctx = ctx};
    ir_put_expr(&bare, e, NULL, t);
    cr_assert_eq(ix_parse(ctx, bare.s, "printed", &w.env, t), e, "%s", bare.s);
  }
}
Test(text, random_expressions) {
  for (uint64_t seed = 1; seed <= 25; seed++) run(random_law, &seed);
}

/* Deep expressions are cut into parts said ahead; long sums are not deep. */
static void deep(tn_ctx *ctx, void *arg) {
  world w;
  world_make(ctx, &w);
  ix x = w.vars[3]->expr, e = x, sum = x;
  for (int i = 0; i < 3000; i++) e = i % 3 ? ix_unary(ctx, i & 1 ? IX_SQRT : IX_NEG, e) : ix_sub(ctx, x, e);
  for (int i = 0; i < 3000; i++) sum = ix_sub(ctx, sum, w.bufs[0]->dtype == TN_F32 ? ix_float(ctx, TN_F32, i + 1) : x);
  for (int i = 0; i < 3; i++) {
    ix both = i == 2 ? ix_mul(ctx, e, sum) : i ? e : sum;
    const char *text = ix_print(ctx, both);
    cr_assert_eq(strstr(text, "%1") == NULL, i == 0);
    cr_assert_eq(ix_parse(ctx, text, "printed", &w.env, TN_NONE), both);
  }
}
Test(text, deep_expressions) { run(deep, NULL); }

/* A DAG whose tree has 2^60 nodes prints small, and reads back as itself. */
static void shared(tn_ctx *ctx, void *arg) {
  world w;
  world_make(ctx, &w);
  ix e = w.vars[3]->expr;
  for (int i = 0; i < 60; i++) e = ix_add(ctx, ix_unary(ctx, IX_EXP, e), e);
  const char *text = ix_print(ctx, e);
  cr_assert(strlen(text) < 4000);
  cr_assert_eq(ix_parse(ctx, text, "printed", &w.env, TN_NONE), e, "%s", text);
  e = w.vars[2]->expr; /* index: products */
  for (int i = 0; i < 40; i++) e = ix_max(ctx, ix_mul(ctx, e, e), w.vars[i & 1]->expr);
  text = ix_print(ctx, e);
  cr_assert(strlen(text) < 6000);
  cr_assert_eq(ix_parse(ctx, text, "printed", &w.env, TN_NONE), e, "%s", text);
}
Test(text, shared_parts) { run(shared, NULL); }

static void floats(tn_ctx *ctx, void *arg) {
  static const tn_dtype types[] = {TN_F16, TN_BF16, TN_F32, TN_F64};
  rng_state = 7;
  for (int i = 0; i < 20000; i++) {
    tn_dtype t = types[i & 3];
    uint64_t bits = i < 4000 ? (uint64_t)(i >> 2) * 65 : rng();
    double v = ir_scalar_load(t, &bits).f;
    ix e = ix_float(ctx, t, v);
    ix again = ix_parse(ctx, ix_print(ctx, e), "printed", NULL, TN_NONE);
    cr_assert_eq(again, e, "%s", ix_print(ctx, e));
  }
}
Test(text, floats) { run(floats, NULL); }

/* ---- kernels ---- */

static const char *const kernels[] = {
    "kernel empty() {\n}\n",

    "kernel copy(in A: f32[8], out B: f32[8]) {\n"
    "  for i in 0 .. 8 vector {\n"
    "    B[i] = A[i]\n"
    "  }\n"
    "}\n",

    "kernel gemm(dim n [1, 128],\n"
    "    in A: f32[64, n] layout \"split 0 16; perm 0 2 1\",\n"
    "    in B: f32[n, 32],\n"
    "    out C: f32[64, 32]) {\n"
    "  for i in 0 .. 64 parallel {\n"
    "    for j in 0 .. 32 vector {\n"
    "      alloc acc: f32[] register\n"
    "      acc[] = 0.0\n"
    "      for k in 0 .. n pipeline(3) {\n"
    "        acc[] += A[i, k] * B[k, j]\n"
    "      }\n"
    "      let s = exp(acc[]) + 1.5\n"
    "      let t = i/4\n"
    "      let u: index[0, 3] = t%7\n"
    "      if u > 1 & t < 3 {\n"
    "        C[i, j] = s\n"
    "      } else if t == 9 {\n"
    "        C[i, j] = -s\n"
    "      } else {\n"
    "        C[i, j] max= 0.0\n"
    "      }\n"
    "    }\n"
    "  }\n"
    "}\n",

    "kernel \"a b\"(inout \"for\": i32[4], out \"x\\\"y\": bool[]) {\n"
    "  for \"while\" [0, 7] in 1 .. 4 unroll {\n"
    "    \"for\"[\"while\"] += 3\n"
    "    {\n"
    "      let z = 2i32\n"
    "      \"for\"[0] = z\n"
    "    }\n"
    "    while \"for\"[0] < 100 {\n"
    "      \"for\"[0] *= 2\n"
    "    }\n"
    "    \"x\\\"y\"[] |= \"for\"[1] == 0\n"
    "  }\n"
    "  tile \"fma 4x4\" {\n"
    "    \"for\"[0] min= -1\n"
    "  }\n"
    "}\n",

    "kernel locals(in A: f16[16], out B: i8[16]) {\n"
    "  alloc l: f16[16] local\n"
    "  for i in 0 .. 16 independent {\n"
    "    l[i] = A[i]\n"
    "  }\n"
    "  alloc sh: f32[4, 4] layout \"pad 1 0 1\" shared\n"
    "  for b in 0 .. 2 grid {\n"
    "    for c in 0 .. 2 cluster {\n"
    "      for g in 0 .. 2 warpgroup {\n"
    "        for w in 0 .. 2 warp {\n"
    "          for x in 0 .. 2 lane independent {\n"
    "            sh[b + c, w + x] = cast<f32>(l[b*8 + c*4 + g*2 + w])\n"
    "            B[b*8 + c*4 + w*2 + x] = cast<i8>(sh[b + c, w + x])\n"
    "          }\n"
    "        }\n"
    "      }\n"
    "    }\n"
    "  }\n"
    "}\n"};

static void same_var(const ir_var *a, const ir_var *b) {
  cr_assert_str_eq(a->name, b->name);
  cr_assert(a->independent == b->independent && a->dtype == b->dtype && a->lo == b->lo && a->hi == b->hi, "variable '%s' has another range", a->name);
}

/* Structure, apart from the expressions, whose text is compared. */
static void same_stmt(tn_ctx *ctx, const ir_stmt *a, const ir_stmt *b) {
  cr_assert_eq(!a, !b);
  if (!a) return;
  cr_assert(a->kind == b->kind && a->loop == b->loop && a->stages == b->stages && a->op == b->op && a->n == b->n);
  if (a->kind == IR_FOR || a->kind == IR_LET) same_var(a->var, b->var);
  if (a->value) cr_assert_str_eq(ix_print(ctx, a->value), ix_print(ctx, b->value));
  for (int i = 0; a->kind == IR_STORE && i < a->buf->rank; i++)
    cr_assert_str_eq(ix_print(ctx, a->index[i]), ix_print(ctx, b->index[i]));
  if (a->kind == IR_ALLOC) cr_assert(a->buf->dtype == b->buf->dtype && a->buf->space == b->buf->space && a->buf->layout == b->buf->layout);
  for (int i = 0; i < a->n; i++) same_stmt(ctx, a->items[i], b->items[i]);
  same_stmt(ctx, a->body, b->body);
  same_stmt(ctx, a->other, b->other);
}

static void print_here(tn_ctx *ctx, void *arg) {
  const char **text = arg;
  *text = ir_kernel_print(ctx, ir_kernel_parse(ctx, *text, "again"));
}

static void kernel_law(tn_ctx *ctx, const ir_kernel *k) {
  const char *text = ir_kernel_print(ctx, k);
  ir_kernel *again = ir_kernel_parse(ctx, text, "printed");
  cr_assert_str_eq(ir_kernel_print(ctx, again), text);
  same_stmt(ctx, k->body, again->body);
  cr_assert_str_eq(ir_kernel_canonical(ctx, again), ir_kernel_canonical(ctx, k));
  tn_ctx *fresh = tn_ctx_new(NULL); /* nothing hangs on what the context has seen */
  const char *other = text;
  cr_assert_eq(ir_protect(fresh, print_here, &other), TN_OK, "%s", tn_error(fresh));
  cr_assert_str_eq(other, text);
  tn_ctx_free(fresh);
}

static void kernel_texts(tn_ctx *ctx, void *arg) {
  for (int i = 0; i < IR_COUNT(kernels); i++) {
    ir_kernel *k = ir_kernel_parse(ctx, kernels[i], "case");
    cr_expect_str_eq(ir_kernel_print(ctx, k), kernels[i]);
    kernel_law(ctx, k);
  }
}
Test(text, kernels) { run(kernel_texts, NULL); }

/* Built, not written: names from the builder, lets in the middle, expressions over them. */
static void kernel_built(tn_ctx *ctx, void *arg) {
  rng_state = *(uint64_t *)arg;
  world w;
  world_make(ctx, &w);
  ir_builder *b = ir_builder_new(ctx);
  for (int i = 0; i < 3; i++) w.vars[i] = ib_loop(b, i == 1 ? "i" : "loop", ix_index(ctx, 8 + i))->u.var;
  w.bufs[2] = ib_local(b, "acc", TN_F32, ix_float(ctx, TN_F32, 0));
  w.vars[3] = ib_let(b, "x0", ix_float(ctx, TN_F32, 2))->u.var;
  w.vars[4] = ib_let(b, "y0", ix_int(ctx, TN_I32, 2))->u.var;
  w.vars[5] = w.vars[0];
  w.vars[5] = ib_let(b, "q", random_expr(&w, TN_INDEX, 2))->u.var;
  w.vars[3] = ib_let(b, "x", random_expr(&w, TN_F32, 2))->u.var;
  w.vars[4] = ib_let(b, "y", random_expr(&w, TN_I32, 2))->u.var;
  for (int s = 0; s < 6; s++) {
    if (below(3) == 0) ib_if(b, random_expr(&w, TN_BOOL, 2));
    else if (below(3) == 0) ib_for(b, "k", random_expr(&w, TN_INDEX, 1), random_expr(&w, TN_INDEX, 2));
    else ib_while(b, random_expr(&w, TN_BOOL, 2));
    ir_buf *to = w.bufs[below(NBUFS)];
    ix index[2] = {random_expr(&w, TN_INDEX, 2), random_expr(&w, TN_INDEX, 2)};
    ib_let(b, "t", random_expr(&w, TN_F64, 1));
    ib_store(b, to, index, random_expr(&w, to->dtype, 3));
    ib_end(b);
  }
  ib_end_n(b, 3);
  ir_kernel k = {.name = "built", .body = ib_finish(b)};
  for (int i = 0; i < NBUFS; i++)
    if (i != 2) IR_PUSH(ctx, k.bufs, k.nbufs, w.bufs[i]);
  kernel_law(ctx, &k);
}
Test(text, built_kernels) {
  for (uint64_t seed = 1; seed <= 60; seed++) run(kernel_built, &seed);
}

/* Random kernels: the law, and what was read computes the same. */
static void kernel_random(tn_ctx *ctx, void *arg) {
  uint64_t seed = *(uint64_t *)arg;
  ir_kernel *k = random_kernel(ctx, seed, seed % 3 == 0 ? RANDOM_TILES : 0);
  kernel_law(ctx, k);
  ir_kernel *again = ir_kernel_parse(ctx, ir_kernel_print(ctx, k), "printed");
  const char *wrong = ir_kernel_verify(ctx, again);
  cr_assert_null(wrong, "seed %llu: %s", (unsigned long long)seed, wrong);
  if (seed % 8) return;
  random_args a = random_args_new(ctx, k, seed), b = random_args_copy(ctx, k, &a);
  ir_interp(ctx, k, a.args, a.dims);
  ir_interp(ctx, again, b.args, b.dims);
  const char *differ = random_args_differ(ctx, k, &a, &b);
  cr_assert_null(differ, "seed %llu: %s", (unsigned long long)seed, differ);
}
Test(text, random_kernels) {
  for (uint64_t seed = 1; seed <= 1500; seed++) run(kernel_random, &seed);
}

static void canonical(tn_ctx *ctx, void *arg) {
  static const char *const same[][2] = {
      {"kernel f(in A: f32[8], in B: f32[8], out C: f32[8]) { for i in 0 .. 8 { C[i] = A[i] * B[7 - i] + 1 } }",
       "kernel g(in zz: f32[8], in b: f32[8], out a: f32[8]) { for long.name in 0 .. 8 { a[long.name] = zz[long.name] * b[7 - long.name] + 1 } }"},
      {"kernel f(dim n, in A: i32[n, n], out C: i32[n]) { for i in 0 .. n { for j in 0 .. n { C[i*0 + j] += A[i, j] + A[j, i] } } }",
       "kernel f(dim z, in q: i32[z, z], out C: i32[z]) { for j in 0 .. z { for i in 0 .. z { C[i] += q[i, j] + q[j, i] } } }"}};
  for (int i = 0; i < IR_COUNT(same); i++) {
    const char *a = ir_kernel_canonical(ctx, ir_kernel_parse(ctx, same[i][0], "a"));
    const char *b = ir_kernel_canonical(ctx, ir_kernel_parse(ctx, same[i][1], "b"));
    cr_expect_str_eq(a, b);
    cr_expect_str_eq(ir_kernel_canonical(ctx, ir_kernel_parse(ctx, a, "canonical")), a);
  }
  const char *a = ir_kernel_canonical(ctx, ir_kernel_parse(ctx, "kernel f(out A: f32[8]) { for i in 0 .. 8 { A[i] = 1 } }", "a"));
  const char *b = ir_kernel_canonical(ctx, ir_kernel_parse(ctx, "kernel f(out A: f32[8]) { for i in 0 .. 8 { A[i] = 2 } }", "b"));
  cr_assert(strcmp(a, b) != 0);
}
Test(text, canonical) { run(canonical, NULL); }

/* ---- errors ---- */

static void parse_kernel(tn_ctx *ctx, void *arg) { ir_kernel_parse(ctx, arg, "k.tn"); }

Test(text, refused) {
#define K(body) "kernel k(in A: f32[8], out B: f32[8, 8], in I: i32[8]) {\n" body "\n}"
  static const char *const cases[][2] = {
      {"", "k.tn:1:1: expected 'kernel', found the end of the text"},
      {"kernel", "expected the name of the kernel"},
      {"kernel k(in A f32[8]) {}", "k.tn:1:15: expected ':', found 'f32'"},
      {"kernel k(at A: f32[8]) {}", "expected in, out, inout, const or dim, found 'at'"},
      {"kernel k(in A: f33[8]) {}", "expected a dtype, found 'f33'"},
      {"kernel k(in A: f32[-1]) {}", "k.tn:1:20: an extent cannot be negative"},
      {"kernel k(in A: f32[n]) {}", "there is no variable 'n'"},
      {"kernel k(in A: f32[8] layout \"split 1 4\") {}", "k.tn:1:30: this layout does not fit"},
      {"kernel k(in A: f32[8] layout \"spl\") {}", "k.tn:1:30: layout \"spl\""},
      {"kernel k(in A: f32[8], in A: i8[]) {}", "k.tn:1:27: the name 'A' is used twice"},
      {"kernel k(dim n [5, 3]) {}", "the least value is greater"},
      {"kernel k() {", "expected a statement or '}', found the end"},
      {"kernel k() {} x", "expected the end of the text, found 'x'"},
      {K("B[0, 0] = 1i32"), "k.tn:2:11: expected an expression of dtype f32, found one of i32"},
      {K("B[0] = 1"), "'B' has 2 axes, only 1 are given"},
      {K("B[0, 0, 0] = 1"), "'B' has only 2 axes"},
      {K("B[0, 0] = A[1.5]"), "expected a whole number of dtype index"},
      {K("B[0, 0] = A[I[0]]"), "an index must have dtype index, not i32"},
      {K("B[0, 0] = A[0] + I[0]"), "k.tn:2:18: operands of '+' have dtypes f32 and i32"},
      {K("B[0, 0] = C[0]"), "there is no buffer 'C'"},
      {K("C[0] = 1"), "k.tn:2:1: there is no buffer 'C'"},
      {K("B = 1"), "k.tn:2:1: 'B' does not begin a statement"},
      {K("B[0, 0] = exp(I[0])"), "'exp' does not work on i32"},
      {K("B[0, 0] = foo(1)"), "there is no operation 'foo'"},
      {K("B[0, 0] = max(A[0])"), "'max' takes 2 operands, only 1 are given"},
      {K("B[0, 0] = max(A[0], 1, 2)"), "'max' takes 2 operands"},
      {K("B[0, 0] = select(A[0], 1, A[1])"), "the condition of a select must be a bool"},
      {K("B[0, 0] -= 1"), "expected '=' or another store"},
      {K("B[0, 0] |= 1"), "'|=' does not work on f32"},
      {K("let x = 1.5"), "the dtype of this number is not clear"},
      {K("let x = 1i33"), "'i33' after a number is not a dtype"},
      {K("let x = 300u8"), "does not fit u8"},
      {K("let x = -1u8"), "does not fit u8"},
      {K("let x = 99999999999999999999"), "does not fit index"},
      {K("for i in 0 .. 4 {} B[i, 0] = 1"), "there is no variable 'i' here"},
      {K("for i in 0 .. 4 fast { B[i, 0] = 1 }"), "expected a kind of loop or '{', found 'fast'"},
      {K("for i in 0, 4 { }"), "expected '..', found ','"},
      {K("for i in 0 .. 4 { B[i, 0] = 1 } for i in 0 .. 4 { }"), "the name 'i' is used twice"},
      {K("if 1 { }"), "expected a bool, found a number"},
      {K("let x = cast<f32>(1, 2)"), "'cast' takes 1 operands"}, {K("let x = exp(1"), "expected ',', found '}'"},
      {K("let x = bitcast<f64>(A[0])"), "no bitcast of f32 to f64"},
      {K("for i in 0 .. 4 { let x = i / 0 }"), "k.tn:2:31: an index can only be divided by a positive number"},
      {K("let x = %1"), "was not given a meaning"},
      {K("alloc t: f32[4] cache"), "expected local, register or shared"},
      {K("B[0, 0] = \"no end"), "a string without its closing quote"},
      {K("B[0, 0] = 1 ; "), "expected"},
      {K("B[0, 0] = `"), "the character '`' has no meaning here"},
      {K("B[0, 0] = \x01"), "the byte 0x01 has no meaning"},
      {K("let x = 4611686018427387904 * 4"), "index arithmetic overflows"}};
  for (int i = 0; i < IR_COUNT(cases); i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    tn_status s = ir_protect(ctx, parse_kernel, (void *)cases[i][0]);
    cr_expect(s == TN_EINPUT || s == TN_EUNSUPPORTED, "%s: status %d", cases[i][0], s);
    cr_expect(strstr(tn_error(ctx), cases[i][1]), "%s\n gives \"%s\"\n not  \"%s\"", cases[i][0], tn_error(ctx), cases[i][1]);
    cr_expect(strncmp(tn_error(ctx), "k.tn:", 5) == 0, "no place: %s", tn_error(ctx));
    tn_ctx_free(ctx);
  }
}

/* Depth is bounded, wherever it comes from. */
Test(text, deep) {
  static const char *const pieces[][3] = {/* before, repeated, after */
      {"kernel k(out A: f32[]) { A[] = ", "(", ""}, {"kernel k(out A: f32[]) { A[] = ", "-", ""},
      {"kernel k(out A: f32[]) { A[] = ", "exp(", ""}, {"kernel k(out A: f32[]) { ", "{", ""},
      {"kernel k(out A: f32[]) { ", "while true {", ""}, {"kernel k(out A: f32[]) { A[] = A[] ", "+A[]", " }"},
      {"kernel k(out A: f32[]) { if true {} ", "else if true {}", " }"}, {"kernel k(out A: f32[]) { A[] = ", "!(", ""},
      {"kernel k(out A: f32[]) { A[", "A[", ""}, {"kernel k(out A: f32[]) { A[] = ", "(%1:=", ""}};
  for (int i = 0; i < IR_COUNT(pieces); i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    enum { TIMES = 100000 };
    size_t n = strlen(pieces[i][1]);
    char *text = malloc(n * TIMES + 200);
    size_t k = (size_t)sprintf(text, "%s", pieces[i][0]);
    for (int j = 0; j < TIMES; j++, k += n) memcpy(text + k, pieces[i][1], n);
    strcpy(text + k, pieces[i][2]);
    cr_expect_eq(ir_protect(ctx, parse_kernel, text), TN_EINPUT, "%s", pieces[i][1]);
    free(text);
    tn_ctx_free(ctx);
  }
}

/* ---- the lexer as schedules use it ---- */

static void lines(tn_ctx *ctx, void *arg) {
  ir_lexer l;
  ir_lex_start(&l, ctx, "split i 32 -> io ii # tile\n\nunroll \"odd name\" ; x.0-1", "s", true);
  static const ir_token want[] = {IR_T_NAME, IR_T_NAME, IR_T_NUMBER, IR_T_PUNCT, IR_T_NAME, IR_T_NAME, IR_T_LINE, IR_T_LINE,
                                  IR_T_NAME, IR_T_STRING, IR_T_PUNCT, IR_T_NAME, IR_T_PUNCT, IR_T_NUMBER, IR_T_END, IR_T_END};
  for (int i = 0; i < IR_COUNT(want); i++, ir_lex_next(&l)) cr_assert_eq(l.token, want[i], "token %d", i);
}
Test(text, lines) { run(lines, NULL); }
