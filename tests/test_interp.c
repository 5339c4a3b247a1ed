/* test_interp.c — scalar arithmetic, the interpreter, random kernels. */
#include "ir/interp.h"
#include "random_kernel.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static tn_ctx *ctx;
static void setup(void) { ctx = tn_ctx_new(NULL); }
static void teardown(void) { tn_ctx_free(ctx); }
TestSuite(scalar, .init = setup, .fini = teardown);
TestSuite(interp, .init = setup, .fini = teardown);
TestSuite(random, .init = setup, .fini = teardown);

/* ---- scalars ---- */

static int64_t int_op(ir_opcode op, tn_dtype t, int64_t a, int64_t b) {
  return ir_eval_op(ctx, op, t, ix_info[op].arity, (tn_dtype[]){t, t}, (ir_scalar[]){{.i = a}, {.i = b}}).i;
}
static double float_op(ir_opcode op, tn_dtype t, double a, double b) {
  return ir_eval_op(ctx, op, t, ix_info[op].arity, (tn_dtype[]){t, t}, (ir_scalar[]){{.f = a}, {.f = b}}).f;
}
static ir_scalar cast(tn_dtype to, tn_dtype from, ir_scalar v) { return ir_eval_op(ctx, IX_CAST, to, 1, &from, &v); }

Test(scalar, integers) {
  cr_expect_eq(int_op(IX_ADD, TN_I8, 127, 1), -128);
  cr_expect_eq(int_op(IX_SUB, TN_U8, 0, 1), 255);
  cr_expect_eq(int_op(IX_MUL, TN_I32, 1 << 20, 1 << 20), 0);
  cr_expect_eq(int_op(IX_NEG, TN_U16, 1, 0), 65535);
  cr_expect_eq(int_op(IX_ABS, TN_I8, -128, 0), -128);
  cr_expect_eq(int_op(IX_NOT, TN_U8, 0, 0), 255);
  cr_expect_eq(int_op(IX_DIV, TN_I32, -7, 2), -3);
  cr_expect_eq(int_op(IX_REM, TN_I32, -7, 2), -1);
  cr_expect_eq(int_op(IX_DIV, TN_INDEX, -7, 2), -4);
  cr_expect_eq(int_op(IX_REM, TN_INDEX, -7, 2), 1);
  cr_expect_eq(int_op(IX_DIV, TN_I32, 5, 0), 0);
  cr_expect_eq(int_op(IX_REM, TN_I32, 5, 0), 5);
  cr_expect_eq(int_op(IX_DIV, TN_I32, INT32_MIN, -1), INT32_MIN);
  cr_expect_eq(int_op(IX_DIV, TN_I64, INT64_MIN, -1), INT64_MIN);
  cr_expect_eq(int_op(IX_REM, TN_I64, INT64_MIN, -1), 0);
  cr_expect_eq(int_op(IX_DIV, TN_U64, -1, 2), INT64_MAX);
  cr_expect_eq(int_op(IX_REM, TN_U64, -1, 10), 5);
  cr_expect_eq(int_op(IX_SHL, TN_I32, 1, 32), 0);
  cr_expect_eq(int_op(IX_SHL, TN_I32, 1, -1), 0);
  cr_expect_eq(int_op(IX_SHL, TN_I8, 1, 7), -128);
  cr_expect_eq(int_op(IX_SHR, TN_I8, -128, 100), -1);
  cr_expect_eq(int_op(IX_SHR, TN_I8, -128, 3), -16);
  cr_expect_eq(int_op(IX_SHR, TN_U8, 128, 3), 16);
  cr_expect_eq(int_op(IX_SHR, TN_U8, 128, 8), 0);
  cr_expect_eq(int_op(IX_MAX, TN_U64, -1, 1), -1);
  cr_expect_eq(int_op(IX_MIN, TN_I64, -1, 1), -1);
  cr_expect_eq(int_op(IX_LT, TN_U64, -1, 1), 0);
  cr_expect_eq(int_op(IX_LE, TN_I64, -1, -1), 1);
  cr_expect_eq(int_op(IX_XOR, TN_BOOL, 1, 1), 0);
  cr_expect_eq(int_op(IX_NOT, TN_BOOL, 1, 0), 0);
}

Test(scalar, floats) {
  cr_expect(isnan(float_op(IX_MAX, TN_F32, 0, NAN)));
  cr_expect_eq(float_op(IX_MAX, TN_F32, NAN, 0), 0);
  cr_expect_eq(float_op(IX_MIN, TN_F64, NAN, 1), 1);
  cr_expect(signbit(float_op(IX_MAX, TN_F32, 0.0, -0.0)), "equal: the second");
  cr_expect_eq(float_op(IX_ROUND, TN_F32, 2.5, 0), 2);
  cr_expect_eq(float_op(IX_ROUND, TN_F32, -3.5, 0), -4);
  cr_expect_eq(float_op(IX_REM, TN_F64, -7.5, 2), -1.5);
  cr_expect(isnan(float_op(IX_REM, TN_F32, 1, 0)));
  cr_expect_eq(float_op(IX_ADD, TN_F16, 2048, 1), 2048);
  cr_expect(isinf(float_op(IX_MUL, TN_F16, 65504, 2)));
  cr_expect_eq(float_op(IX_ADD, TN_BF16, 256, 1), 256);
  cr_expect_eq(float_op(IX_ADD, TN_F32, 16777216, 1), 16777216);
  double third = 1.0f / 3.0f;
  ir_scalar fma[] = {{.f = third}, {.f = 3}, {.f = -1}};
  tn_dtype f32[] = {TN_F32, TN_F32, TN_F32};
  cr_expect_eq(ir_eval_op(ctx, IX_FMA, TN_F32, 3, f32, fma).f, (double)fmaf(1.0f / 3.0f, 3, -1));
  cr_expect_eq(ir_eval_op(ctx, IX_NE, TN_BOOL, 2, f32, (ir_scalar[]){{.f = NAN}, {.f = NAN}}).i, 1);
  cr_expect_eq(ir_eval_op(ctx, IX_LE, TN_BOOL, 2, f32, (ir_scalar[]){{.f = NAN}, {.f = 1}}).i, 0);
}

Test(scalar, conversions) {
  cr_expect_eq(cast(TN_I8, TN_F32, (ir_scalar){.f = 300}).i, 127);
  cr_expect_eq(cast(TN_I8, TN_F32, (ir_scalar){.f = -300}).i, -128);
  cr_expect_eq(cast(TN_U8, TN_F32, (ir_scalar){.f = -3}).i, 0);
  cr_expect_eq(cast(TN_U8, TN_F32, (ir_scalar){.f = 1e9}).i, 255);
  cr_expect_eq(cast(TN_I32, TN_F64, (ir_scalar){.f = NAN}).i, 0);
  cr_expect_eq(cast(TN_I32, TN_F64, (ir_scalar){.f = -2.9}).i, -2);
  cr_expect_eq(cast(TN_I64, TN_F64, (ir_scalar){.f = INFINITY}).i, INT64_MAX);
  cr_expect_eq(cast(TN_INDEX, TN_F64, (ir_scalar){.f = -1e30}).i, INT64_MIN);
  cr_expect_eq((uint64_t)cast(TN_U64, TN_F64, (ir_scalar){.f = 1e30}).i, UINT64_MAX);
  cr_expect_eq((uint64_t)cast(TN_U64, TN_F64, (ir_scalar){.f = 1e19}).i, 10000000000000000000u);
  cr_expect_eq(cast(TN_I8, TN_I32, (ir_scalar){.i = 300}).i, 44);
  cr_expect_eq(cast(TN_BOOL, TN_F32, (ir_scalar){.f = NAN}).i, 1);
  cr_expect_eq(cast(TN_BOOL, TN_I32, (ir_scalar){.i = 256}).i, 1);
  cr_expect_eq(cast(TN_F32, TN_U64, (ir_scalar){.i = -1}).f, 0x1p64);
  cr_expect_eq(cast(TN_F16, TN_I32, (ir_scalar){.i = 2049}).f, 2048);
  /* one rounding from f64: by way of f32 it would tie and go down */
  cr_expect_eq(cast(TN_F16, TN_F64, (ir_scalar){.f = 1 + 0x1p-11 + 0x1p-40}).f, 1 + 0x1p-10);
  cr_expect_eq(cast(TN_BF16, TN_F64, (ir_scalar){.f = 1 + 0x1p-8 + 0x1p-40}).f, 1 + 0x1p-7);
  tn_dtype f32 = TN_F32;
  ir_scalar one = {.f = 1};
  cr_expect_eq(ir_eval_op(ctx, IX_BITCAST, TN_I32, 1, &f32, &one).i, 0x3f800000);
}

/* The number that a code means, by the words of the standards; the codes in order of their numbers are 0, 1, 2, ... */
static double byte_number(tn_dtype t, int code) {
  static const struct { int fraction, bias; double largest; } formats[] = {{3, 7, 448}, {2, 15, 57344}, {3, 8, 240}, {2, 16, 57344}, {1, 1, 6}};
  int fraction = formats[t - TN_F8E4M3FN].fraction, e = code >> fraction, m = code & ((1 << fraction) - 1), bias = formats[t - TN_F8E4M3FN].bias;
  double v = e ? pow(2, e - bias) * (1 + m / pow(2, fraction)) : pow(2, 1 - bias) * m / pow(2, fraction);
  return v <= formats[t - TN_F8E4M3FN].largest ? v : t == TN_F8E5M2 && m == 0 ? INFINITY : NAN;
}

Test(scalar, floats_of_a_byte) {
  for (int k = TN_F8E4M3FN; k <= TN_F4E2M1; k++) {
    tn_dtype t = (tn_dtype)k;
    bool fnuz = t == TN_F8E4M3FNUZ || t == TN_F8E5M2FNUZ;
    int sign = t == TN_F4E2M1 ? 8 : 128;
    for (int c = 0; c < 2 * sign; c++) {
      double want = byte_number(t, c & (sign - 1)), got = ir_byte_to_f32(t, (uint8_t)c);
      if (fnuz && c == 128) want = NAN;
      if (c & sign) want = -want;
      cr_assert(isnan(want) ? isnan(got) : got == want && signbit(got) == signbit(want), "%s %d is %g, should be %g", ir_dtype_name(t), c, got, want);
      if (!isnan(want)) cr_assert_eq(ir_f64_to_byte(t, want), c, "%s %d", ir_dtype_name(t), c);
      /* between neighbours: the nearer one, of both the even code */
      double next = byte_number(t, (c & (sign - 1)) + 1);
      if (isnan(want) || isnan(next) || isinf(next) || isinf(want) || (c & (sign - 1)) == sign - 1) continue;
      double middle = (fabs(want) + next) / 2, s = c & sign ? -1 : 1;
      int up = c + 1, low = fnuz && c == 128 ? 0 : c;
      cr_assert_eq(ir_f64_to_byte(t, s * middle * (1 - 0x1p-50)), low, "%s below %d", ir_dtype_name(t), c);
      cr_assert_eq(ir_f64_to_byte(t, s * middle * (1 + 0x1p-50)), up, "%s above %d", ir_dtype_name(t), c);
      cr_assert_eq(ir_f64_to_byte(t, s * middle), c & 1 ? up : low, "%s between %d", ir_dtype_name(t), c);
    }
    double top = ir_byte_max(t), beyond = cast(t, TN_F32, (ir_scalar){.f = 1e6}).f;
    cr_assert(t == TN_F4E2M1 ? beyond == 6 : t == TN_F8E5M2 ? isinf(beyond) : isnan(beyond));
    cr_assert_eq(cast(t, TN_F64, (ir_scalar){.f = -INFINITY}).f == -top, t == TN_F4E2M1);
    double nan = cast(t, TN_F64, (ir_scalar){.f = NAN}).f;
    cr_assert(t == TN_F4E2M1 ? nan == 0 : isnan(nan));
    cr_assert_eq(signbit(cast(t, TN_F64, (ir_scalar){.f = -1e-30}).f) != 0, !fnuz);
  }
  cr_expect_eq(cast(TN_F8E4M3FN, TN_F32, (ir_scalar){.f = 464}).f, 448);
  cr_expect(isnan(cast(TN_F8E4M3FN, TN_F32, (ir_scalar){.f = 464.5}).f));
  cr_expect(isinf(cast(TN_F8E5M2, TN_F32, (ir_scalar){.f = 61440}).f));
  cr_expect_eq(float_op(IX_ADD, TN_F8E4M3FN, 16, 1), 16);
  cr_expect_eq(float_op(IX_MUL, TN_F4E2M1, 3, -4), -6);
}

/* ---- kernels ---- */

static ix I(int64_t v) { return ix_index(ctx, v); }
static ir_buf *param(const char *name, tn_dtype t, int rank, const int64_t *dims, const char *layout, ir_access access) {
  ix shape[4];
  for (int i = 0; i < rank; i++) shape[i] = I(dims[i]);
  ir_buf *b = ir_buf_new(ctx, name, t, rank, shape, layout ? ir_layout_parse(ctx, layout) : NULL, IR_GLOBAL);
  b->access = access;
  return b;
}

typedef struct run {
  ir_kernel k;
  void **args;
  const int64_t *dims;
  ir_interp_options options;
} run;
static void run_it(tn_ctx *c, void *arg) {
  run *r = arg;
  ir_interp_opt(c, &r->k, r->args, r->dims, &r->options);
}
static tn_status interp(int n, ir_buf **bufs, void **args, const ir_stmt *body) {
  run r = {.k = {.name = "k", .nbufs = n, .bufs = bufs, .body = body}, .args = args};
  return ir_protect(ctx, run_it, &r);
}

Test(interp, matrix_product) {
  enum { M = 3, N = 4, K = 5 };
  ir_buf *a = param("a", TN_F32, 2, (int64_t[]){M, K}, NULL, IR_IN), *b = param("b", TN_F32, 2, (int64_t[]){K, N}, NULL, IR_IN),
         *c = param("c", TN_F32, 2, (int64_t[]){M, N}, NULL, IR_OUT);
  ir_builder *w = ir_builder_new(ctx);
  ix i = ib_loop(w, "i", I(M)), j = ib_loop(w, "j", I(N));
  ir_buf *acc = ib_local(w, "acc", TN_F32, ix_float(ctx, TN_F32, 0));
  ix k = ib_loop(w, "k", I(K));
  ib_update(w, acc, NULL, IR_ADD, ix_mul(ctx, ib_load(w, a, (ix[]){i, k}), ib_load(w, b, (ix[]){k, j})));
  ib_end(w);
  ib_store(w, c, (ix[]){i, j}, ib_get(w, acc));
  ib_end_n(w, 2);
  float av[M * K], bv[K * N], cv[M * N];
  for (int x = 0; x < M * K; x++) av[x] = (float)(x % 7) - 2;
  for (int x = 0; x < K * N; x++) bv[x] = (float)(x % 5) * 0.5f;
  tn_status s = interp(3, (ir_buf *[]){a, b, c}, (void *[]){av, bv, cv}, ib_finish(w));
  cr_assert_eq(s, TN_OK, "%s", tn_error(ctx));
  for (int x = 0; x < M; x++)
    for (int y = 0; y < N; y++) {
      float sum = 0;
      for (int z = 0; z < K; z++) sum += av[x * K + z] * bv[z * N + y];
      cr_expect_eq(cv[x * N + y], sum);
    }
}

Test(interp, layouts_agree_with_addresses) {
  /* the interpreter applies the steps itself; ir_buf_offset builds an expression */
  static const char *const layouts[] = {"split 1 4; perm 0 1 3 2", "perm 2 0 1", "pad 0 1 2; pad 2 0 3", "split 2 8; xor 1 3 4", "xor 1 0 4", "split 0 2; split 2 3; perm 1 0 3 2 4"};
  int64_t dims[] = {3, 10, 7};
  for (int l = 0; l < IR_COUNT(layouts); l++) {
    ir_buf *x = param("x", TN_I32, 3, dims, layouts[l], IR_OUT);
    ir_builder *w = ir_builder_new(ctx);
    ix at[3];
    for (int i = 0; i < 3; i++) at[i] = ib_loop(w, "i", I(dims[i]));
    ix flat = ix_add(ctx, ix_muli(ctx, ix_add(ctx, ix_muli(ctx, at[0], 10), at[1]), 7), at[2]);
    ib_store(w, x, at, ix_cast(ctx, TN_I32, ix_addi(ctx, flat, 1)));
    ib_end_n(w, 3);
    int64_t n = ix_need_const(ctx, ir_buf_elements(ctx, x), "size");
    int32_t *data = calloc((size_t)n, 4);
    tn_status s = interp(1, &x, (void *[]){data}, ib_finish(w));
    cr_assert_eq(s, TN_OK, "%s", tn_error(ctx));
    for (int i = 0; i < 210; i++) {
      ix index[] = {I(i / 70), I(i / 7 % 10), I(i % 7)};
      int64_t offset = ix_need_const(ctx, ir_buf_offset(ctx, x, index), "offset");
      cr_assert(offset >= 0 && offset < n);
      cr_expect_eq(data[offset], i + 1, "layout %s, element %d", layouts[l], i);
    }
    free(data);
  }
}

static void fails(int n, ir_buf **bufs, void **args, const ir_stmt *body, const char *part) {
  cr_expect_neq(interp(n, bufs, args, body), TN_OK, "expected: %s", part);
  cr_expect_not_null(strstr(tn_error(ctx), part), "'%s' should have '%s'", tn_error(ctx), part);
}

Test(interp, reports) {
  float xv[4] = {1, 2, 3, 4}, yv[4];
  ir_buf *x = param("x", TN_F32, 1, (int64_t[]){4}, NULL, IR_IN), *y = param("y", TN_F32, 1, (int64_t[]){4}, NULL, IR_OUT);
  ir_buf *bufs[] = {x, y};
  void *args[] = {xv, yv};
  ir_builder *w = ir_builder_new(ctx);
  ix i = ib_loop(w, "i", I(4)), up = ix_addi(ctx, i, 1);
  ib_store(w, y, &i, ib_load(w, x, &up));
  ib_end(w);
  fails(2, bufs, args, ib_finish(w), "kernel 'k': buffer 'x': load at [4] outside of its extents [4]");

  w = ir_builder_new(ctx);
  ix four = I(4), zero = I(0);
  ib_store(w, y, &four, ib_load(w, x, &zero));
  fails(2, bufs, args, ib_finish(w), "kernel 'k': buffer 'y': store at [4]");

  w = ir_builder_new(ctx);
  ir_buf *t = ib_alloc(w, "t", TN_F32, 1, &four, IR_LOCAL);
  ib_store(w, t, &zero, ib_load(w, x, &zero));
  ib_store(w, y, &zero, ib_load(w, t, (ix[]){I(1)}));
  fails(2, bufs, args, ib_finish(w), "'t': read before it is stored, at [1]");

  w = ir_builder_new(ctx); /* a local is undefined again in each iteration */
  i = ib_loop(w, "i", I(2));
  ir_buf *r = ib_local(w, "r", TN_F32, NULL);
  ib_if(w, ix_eq(ctx, i, zero));
  ib_set(w, r, ib_load(w, x, &i));
  ib_end(w);
  ib_store(w, y, &i, ib_get(w, r));
  ib_end(w);
  fails(2, bufs, args, ib_finish(w), "'r': read before it is stored");

  w = ir_builder_new(ctx);
  ib_update(w, y, &zero, IR_ADD, ib_load(w, x, &zero));
  fails(2, bufs, args, ib_finish(w), "'y': read before it is stored");
}

Test(interp, select_takes_one_arm) {
  float xv[4] = {1, 2, 3, 4}, yv[4];
  ir_buf *x = param("x", TN_F32, 1, (int64_t[]){4}, NULL, IR_IN), *y = param("y", TN_F32, 1, (int64_t[]){4}, NULL, IR_OUT);
  ir_builder *w = ir_builder_new(ctx);
  ix i = ib_loop(w, "i", I(4)), up = ix_addi(ctx, i, 1);
  ib_store(w, y, &i, ix_select(ctx, ix_lt(ctx, up, I(4)), ib_load(w, x, &up), ix_float(ctx, TN_F32, -1)));
  ib_end(w);
  cr_assert_eq(interp(2, (ir_buf *[]){x, y}, (void *[]){xv, yv}, ib_finish(w)), TN_OK, "%s", tn_error(ctx));
  cr_expect(yv[0] == 2 && yv[1] == 3 && yv[2] == 4 && yv[3] == -1);
}

Test(interp, endless_while_stops) {
  float yv[1];
  ir_buf *y = param("y", TN_F32, 1, (int64_t[]){1}, NULL, IR_INOUT);
  ir_builder *w = ir_builder_new(ctx);
  ix zero = I(0);
  ib_while(w, ix_lt(ctx, ib_load(w, y, &zero), ix_float(ctx, TN_F32, 1)));
  ib_store(w, y, &zero, ix_float(ctx, TN_F32, 0));
  ib_end(w);
  yv[0] = 0;
  run r = {.k = {.name = "k", .nbufs = 1, .bufs = &y, .body = ib_finish(w)}, .args = (void *[]){yv}, .options = {.max_steps = 1000}};
  cr_expect_eq(ir_protect(ctx, run_it, &r), TN_ERESOURCE);
  cr_expect_not_null(strstr(tn_error(ctx), "gave up after 1000 steps"));
}

Test(interp, leaves_no_memory_behind) {
  ir_kernel *k = random_kernel(ctx, 3, 0);
  random_args a = random_args_new(ctx, k, 3);
  size_t before = ir_bytes(ctx);
  for (int i = 0; i < 20; i++) ir_interp(ctx, k, a.args, a.dims);
  cr_expect_eq(ir_bytes(ctx), before);
}

/* ---- random kernels ---- */

typedef struct trial {
  uint64_t seed;
  unsigned flags;
  const char *wrong;
} trial;

static void try_one(tn_ctx *c, void *arg) {
  trial *t = arg;
  ir_kernel *k = random_kernel(c, t->seed, t->flags);
  if ((t->wrong = ir_kernel_verify(c, k))) return;
  random_args base = random_args_new(c, k, t->seed), want = random_args_copy(c, k, &base), got = random_args_copy(c, k, &base);
  ir_interp_options o = {.max_steps = 10000000};
  ir_interp_opt(c, k, want.args, want.dims, &o);
  o.seed = t->seed + 1;
  ir_interp_opt(c, k, got.args, got.dims, &o);
  t->wrong = random_args_differ(c, k, &want, &got);
}

/* A fresh copy means the same; so does the kernel with its functions expanded. */
static ix expand_all(ir_rewriter *r, ix e) { return ix_expand(r->ctx, e); }

static void try_rewrites(tn_ctx *c, void *arg) {
  trial *t = arg;
  ir_kernel *k = random_kernel(c, t->seed, t->flags), fresh = *k, expanded = *k;
  fresh.body = ir_stmt_fresh(c, k->body, "_f");
  expanded.body = ir_rewrite(&(ir_rewriter){.ctx = c, .expr = expand_all}, k->body);
  random_args base = random_args_new(c, k, t->seed), want = random_args_copy(c, k, &base);
  ir_interp(c, k, want.args, want.dims);
  const ir_kernel *others[] = {&fresh, &expanded};
  for (int i = 0; i < 2 && !t->wrong; i++) {
    random_args got = random_args_copy(c, k, &base);
    if ((t->wrong = ir_kernel_verify(c, others[i]))) return;
    ir_interp(c, others[i], got.args, got.dims);
    t->wrong = random_args_differ(c, k, &want, &got);
  }
}

Test(random, rewrites_keep_the_meaning) {
  for (uint64_t seed = 1; seed <= 300; seed++) {
    tn_ctx *c = tn_ctx_new(NULL);
    trial t = {seed, 0, NULL};
    cr_assert_eq(ir_protect(c, try_rewrites, &t), TN_OK, "seed %llu: %s", (unsigned long long)seed, tn_error(c));
    cr_assert_null(t.wrong, "seed %llu: %s", (unsigned long long)seed, t.wrong);
    tn_ctx_free(c);
  }
}

static void try_many(unsigned flags, uint64_t from, int n) {
  for (int i = 0; i < n; i++) {
    tn_ctx *c = tn_ctx_new(NULL);
    trial t = {from + (uint64_t)i, flags, NULL};
    tn_status s = ir_protect(c, try_one, &t);
    cr_assert_eq(s, TN_OK, "seed %llu, flags %u: %s", (unsigned long long)t.seed, flags, tn_error(c));
    cr_assert_null(t.wrong, "seed %llu, flags %u: %s", (unsigned long long)t.seed, flags, t.wrong);
    tn_ctx_free(c);
  }
}

Test(random, any_order_gives_the_same) { try_many(0, 1, getenv("TN_RANDOM") ? atoi(getenv("TN_RANDOM")) : 1500); }
Test(random, tiles) { try_many(RANDOM_TILES, 1, 200); }
Test(random, serial) { try_many(RANDOM_SERIAL | RANDOM_STATIC | RANDOM_PLAIN, 1, 300); }
Test(random, f32) { try_many(RANDOM_F32 | RANDOM_NO_EXPAND | RANDOM_NO_WHILE | RANDOM_NO_REM, 1, 300); }
