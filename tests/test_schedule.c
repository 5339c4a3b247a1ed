/* test_schedule.c — every schedule step: what it makes, what it refuses, and that random legal
 * schedules compute what the unscheduled kernel computes (TENON_SCHEDULES=N runs N of them). */
#include "ir/interp.h"
#include "lower/lower.h"
#include "lower/schedule.h"
#include "random_kernel.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCKED                                                                                        \
  "kernel k(in A: f32[16, 9, 8] layout \"split 0 8; perm 0 2 3 1\", out C: f32[9]) {\n"              \
  "  for y in 0 .. 9 {\n    alloc s: f32[] register\n    s[] = 0.0\n    for c in 0 .. 16 {\n"     \
  "      for x in 0 .. 8 {\n        s[] += A[c, y, x]\n      }\n    }\n    C[y] = s[]\n  }\n}"

#define MATMUL                                                                                          \
  "kernel mm(in A: f32[6, 8], const B: f32[8, 20], out C: f32[6, 20]) { for m in 0..6 { for n in 0..20 {" \
  " alloc acc: f32[] register acc[] = 0.0 for k in 0..8 { acc[] = fma(A[m, k], B[k, n], acc[]) }"        \
  " C[m, n] = max(0.0, acc[]) } } }"
#define COPY "kernel copy(in A: f32[10, 12], out B: f32[10, 12]) { for i in 0..10 { for j in 0..12 { B[i, j] = A[i, j] } } }"
#define BATCH "kernel batch(in A: f32[4, 32, 16], out C: f32[4, 32, 16]) { for b in 0..4 { for m in 0..32 { for n in 0..16 { C[b, m, n] = A[b, m, n] } } } }"
#define SUM "kernel sum(in A: f32[30], out B: f32[]) { alloc s: f32[] register s[] = 0.0 for k in 0..30 { s[] += A[k] } B[] = s[] }"
#define SCAN "kernel scan(inout A: f32[16]) { for i in 1..16 { A[i] = A[i] + A[i - 1] } }"
#define CONV                                                                                             \
  "kernel conv(in X: f32[3, 7], const W: f32[5, 3, 3], out Y: f32[5, 7]) { for k in 0..5 { for x in 0..7 {" \
  " alloc acc: f32[] register acc[] = 0.0 for c in 0..3 { for s in 0..3 { if x + s > 0 & x + s < 8 {"   \
  " acc[] = fma(X[c, x + s - 1], W[k, c, s], acc[]) } } } Y[k, x] = acc[] } } }"

/* Small whole numbers: their sums are exact in any order. */
static void fill_whole(tn_ctx *ctx, const ir_kernel *k, const random_args *a, uint64_t seed) {
  (void)ctx;
  for (int i = 0; i < k->nbufs; i++) {
    if (k->bufs[i]->dtype != TN_F32) continue;
    float *p = a->args[i];
    for (int64_t j = 0; j < a->bytes[i] / 4; j++) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      p[j] = (float)((int)(seed >> 40) % 9 - 4);
    }
  }
}

/* args of `to` from those of `from`: operands whose layout differs are copied over. */
static void relay(tn_ctx *ctx, const ir_kernel *from, const ir_kernel *to, random_args *a) {
  for (int i = 0; i < from->nbufs; i++) {
    ir_buf *x = from->bufs[i], *y = to->bufs[i];
    if (x->layout == y->layout) continue;
    ir_buf *src = ir_buf_new(ctx, "src", x->dtype, x->rank, x->shape, x->layout, IR_GLOBAL);
    ir_buf *dst = ir_buf_new(ctx, "dst", y->dtype, y->rank, y->shape, y->layout, IR_GLOBAL);
    src->access = IR_IN;
    dst->access = IR_OUT;
    ir_builder *b = ir_builder_new(ctx);
    ix idx[IR_MAX_RANK];
    for (int k = 0; k < x->rank; k++) idx[k] = ib_loop(b, "i", x->shape[k]);
    ib_store(b, dst, idx, ix_load(ctx, src, idx));
    ib_end_n(b, x->rank);
    ir_kernel k = {.name = "relay", .nbufs = 2, .bufs = (ir_buf *[]){src, dst}, .body = ib_finish(b)};
    int64_t n;
    cr_assert(ix_const_value(ir_buf_elements(ctx, dst), &n));
    void *memory = ir_alloc(ctx, (size_t)n * ir_dtype_bytes(y->dtype));
    ir_interp(ctx, &k, (void *[]){a->args[i], memory}, NULL);
    a->args[i] = memory;
  }
}

/* Null, or how the scheduled kernel differs. exact: bits; else a relative tolerance. */
/* What the verifier says, but for what further steps put right: accumulators that are still
 * indexed by loops, parallel loops that are still to be fused. */
static const char *verify(tn_ctx *ctx, const ir_kernel *k) {
  const char *wrong = ir_kernel_verify(ctx, k);
  return wrong && (strstr(wrong, "parallel") || strstr(wrong, "become constant by unrolling")) ? NULL : wrong;
}

static const char *compare(tn_ctx *ctx, const ir_kernel *k, const ir_kernel *s, uint64_t seed, bool whole) {
  random_args a = random_args_new(ctx, k, seed);
  if (whole) fill_whole(ctx, k, &a, seed);
  random_args b = random_args_copy(ctx, k, &a);
  relay(ctx, k, s, &b);
  ir_interp(ctx, k, a.args, a.dims);
  ir_interp_opt(ctx, s, b.args, b.dims, &(ir_interp_options){.seed = seed | 1});
  for (int i = 0; i < k->nbufs; i++) {
    if (!(k->bufs[i]->access & IR_OUT)) continue;
    if (whole || k->bufs[i]->dtype != TN_F32) {
      if (memcmp(a.args[i], b.args[i], (size_t)a.bytes[i]) == 0) continue;
      if (whole && k->bufs[i]->dtype != TN_F32) return ir_format(ctx, "'%s' differs", k->bufs[i]->name);
    }
    if (k->bufs[i]->dtype != TN_F32) return ir_format(ctx, "'%s' differs", k->bufs[i]->name);
    const float *x = a.args[i], *y = b.args[i];
    for (int64_t j = 0; j < a.bytes[i] / 4; j++) {
      if (x[j] == y[j] || (isnan(x[j]) && isnan(y[j]))) continue;
      if (whole || !(fabsf(x[j] - y[j]) <= 1e-4f * (1 + fabsf(x[j]))))
        return ir_format(ctx, "'%s' element %lld: %g, should be %g", k->bufs[i]->name, (long long)j, y[j], x[j]);
    }
  }
  return NULL;
}

typedef struct ask {
  const char *kernel, *schedule, *want; /* want: part of the result's text, or of the refusal's reason */
  bool refused;
} ask;

static void run_ask(tn_ctx *ctx, void *arg) {
  const ask *q = arg;
  ir_kernel *k = ir_kernel_parse(ctx, q->kernel, "test");
  const char *reason = NULL;
  const ir_kernel *s = lw_schedule_apply(ctx, k, q->schedule, &reason);
  if (q->refused) {
    if (s) ir_fail(ctx, TN_EWRONG, "not refused: %s", q->schedule);
    if (!strstr(reason, q->want)) ir_fail(ctx, TN_EWRONG, "refused with \"%s\", expected \"%s\"", reason, q->want);
    return;
  }
  if (!s) ir_fail(ctx, TN_EWRONG, "refused: %s", reason);
  const char *wrong = verify(ctx, s);
  if (wrong) ir_fail(ctx, TN_EWRONG, "%s: %s\n%s", q->schedule, wrong, ir_kernel_print(ctx, s));
  const char *text = ir_kernel_print(ctx, s), *d = compare(ctx, k, s, 7, true);
  if (d) ir_fail(ctx, TN_EWRONG, "%s: %s\n%s", q->schedule, d, text);
  if (!strstr(text, q->want)) ir_fail(ctx, TN_EWRONG, "%s: \"%s\" is not in\n%s", q->schedule, q->want, text);
}

static void check(const char *kernel, const char *schedule, const char *want, bool refused) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_status st = ir_protect(ctx, run_ask, &(ask){kernel, schedule, want, refused});
  cr_expect_eq(st, TN_OK, "%.900s", tn_error(ctx));
  tn_ctx_free(ctx);
}
#define MAKES(kernel, schedule, want) check(kernel, schedule, want, false)
#define REFUSES(kernel, schedule, why) check(kernel, schedule, why, true)

Test(schedule, split) {
  MAKES(COPY, "split j 4 -> jo ji", "B[i, ji + jo*4] = A[i, ji + jo*4]");
  MAKES(COPY, "split j 5 -> jo ji", "if ji + jo*5 < 12");
  MAKES(COPY, "split j 12 -> j ji", "for j in 0 .. 1");
  REFUSES(COPY, "split z 4 -> a b", "there is no loop 'z'");
  REFUSES(COPY, "split j 0 -> a b", "factor 0");
  REFUSES(COPY, "split j 4 -> i b", "already a loop 'i'");
  REFUSES(COPY, "split j 4 -> a a", "both new loops");
  REFUSES(COPY, "vectorize j\nsplit j 4 -> a b", "already a vector");
}

Test(schedule, fuse) {
  MAKES(COPY, "fuse i j -> f", "B[f/12, f%12] = A[f/12, f%12]");
  MAKES(COPY, "split j 4 -> jo ji\nfuse jo ji -> j", "B[i, j] = A[i, j]");
  REFUSES(COPY, "fuse j i -> f", "not directly inside");
  REFUSES(MATMUL, "fuse n k -> f", "not directly inside");
  REFUSES(COPY, "vectorize j\nfuse i j -> f", "serial or two parallel");
}

Test(schedule, reorder) {
  MAKES(COPY, "reorder j i", "for j in 0 .. 12 {\n    for i in 0 .. 10");
  MAKES(COPY, "split j 5 -> jo ji\nreorder ji i", "for ji in 0 .. 5 independent {\n    for jo in 0 .. 3 independent {\n      for i in 0 .. 10");
  MAKES(MATMUL, "reorder n m", "for n in 0 .. 20 {\n    for m in 0 .. 6");
  REFUSES(MATMUL, "reorder k n", "not a perfect nest");
  REFUSES(COPY, "reorder i i", "named twice");
  REFUSES("kernel s(inout A: f32[4, 4]) { for i in 1..4 { for j in 0..3 { A[i, j] = A[i - 1, j + 1] } } }", "reorder j i", "keep its order");
  REFUSES("kernel s(out A: f32[4, 4]) { for i in 0..4 { for j in i..4 { A[i, j] = 1.0 } } }", "reorder j i", "bounds of 'j' need 'i'");
}

Test(schedule, kinds) {
  MAKES(COPY, "unroll j", "for j in 0 .. 12 unroll");
  MAKES(COPY, "split j 4 -> jo ji\nvectorize ji", "for ji in 0 .. 4 vector");
  MAKES(COPY, "parallel i", "for i in 0 .. 10 parallel");
  MAKES(COPY, "parallel i\nserial i", "for i in 0 .. 10 {");
  MAKES(COPY, "parallel i\nparallel j\nfuse i j -> p", "for p in 0 .. 120 parallel");
  MAKES(SUM, "vectorize k", "for k in 0 .. 30 vector");
  REFUSES(SCAN, "vectorize i", "another iteration");
  REFUSES(SCAN, "parallel i", "another iteration");
  REFUSES(COPY, "parallel j", "must be the outermost");
  REFUSES(SUM, "parallel k", "meet in one accumulator");
  REFUSES(MATMUL, "vectorize k", "rfactor it first");
  REFUSES("kernel z(out B: f32[4]) { for i in 0..4 { B[0] = 1.0 } }", "parallel i", "same element of 'B'");
  REFUSES("kernel z(out B: f32[1000]) { for i in 0..1000 { B[i] = 1.0 } }", "unroll i", "too many");
  REFUSES("kernel z(out B: f32[1000]) { for i in 0..1000 { B[i] = 1.0 } }", "vectorize i", "1000 lanes");
}

Test(schedule, peel) {
  MAKES(COPY, "peel j 1 2", "for j.b in 10 .. 12");
  MAKES(COPY, "split j 5 -> jo ji\npeel jo 0 1", "if ji.b < 2");
  MAKES(CONV, "peel x 1 1\nunroll s.a", "Y[k, 6]");
  REFUSES(COPY, "peel j 8 8", "8 + 8 of 12");
  REFUSES(COPY, "vectorize j\npeel j 1 0", "only serial");
}

Test(schedule, narrow) {
  MAKES(CONV, "narrow s", "for s in max(0, x*-1 + 1) .. min(3, x*-1 + 8)");
  REFUSES(COPY, "narrow j", "no guard");
}

Test(schedule, distribute) {
  MAKES(MATMUL, "split n 4 -> no ni\ndistribute ni", "acc[ni] = fma(A[m, k], B[k, ni + no*4], acc[ni])");
  MAKES(MATMUL, "reorder n m\ndistribute m", "alloc acc: f32[6] register");
  MAKES(CONV, "distribute x", "for x.i0 in 0 .. 7");
  REFUSES(COPY, "distribute j", "no accumulator");
  REFUSES(MATMUL, "distribute k", "meet in one accumulator");
  REFUSES(MATMUL, "split n 4 -> no ni\ndistribute m ni", "not directly inside");
}

Test(schedule, raise) {
  MAKES(MATMUL, "raise k n", "if k < 1 {\n          acc[n] = 0.0");
  MAKES(MATMUL, "chunk k 4 -> ko ki\nraise ko m n", "if ko > 0 {\n          C[m, n] = max(0.0, acc[m, n])");
  MAKES(MATMUL, "split n 3 -> no ni\nchunk k 3 -> ko ki\ndistribute ni\nraise ko m no\ntail no", "if ni.b < 2");
  REFUSES(COPY, "raise i j", "no accumulator");
  REFUSES(MATMUL, "raise n m", "no accumulator");
  REFUSES(MATMUL, "raise m n", "not directly beside");
  REFUSES(MATMUL, "unroll k\nraise k n", "is no serial loop");
  REFUSES(MATMUL, "raise k k", "meet in one accumulator");
  REFUSES(MATMUL, "split n 4 -> no ni\nraise k m ni", "not directly inside");
}

Test(schedule, splitk) {
  MAKES(SUM, "splitk k 5 -> p", "s.p[] += A[k + p*6]");
  MAKES(SUM, "splitk k 5 -> p", "s[] += s.p.parts[p.s]");
  MAKES(MATMUL, "splitk k 4 -> p", "acc.p.parts[p, m, n] = acc.p[]");
  MAKES(MATMUL, "splitk k 4 -> p", "for p.s in 0 .. 4 {\n        acc[] += acc.p.parts[p.s, m.s, n.s]\n      }\n      C[m.s, n.s] = max(0.0, acc[])");
  MAKES(MATMUL, "splitk k 2 -> p\nparallel p\nparallel m\nfuse p m -> t\nparallel m.s", "for m.s in 0 .. 6 parallel");
  MAKES(CONV, "splitk c 3 -> p", "for p in 0 .. 3");
  REFUSES(MATMUL, "splitk k 3 -> p", "not 3 equal parts");
  REFUSES(MATMUL, "splitk k 1 -> p", "not 2 to 256");
  REFUSES(MATMUL, "splitk k 2 -> n", "already a loop 'n'");
  REFUSES(MATMUL, "splitk n 2 -> p", "reduces nothing");
  REFUSES(MATMUL, "parallel m\nsplitk k 2 -> p", "no serial loop");
  REFUSES(MATMUL, "splitk k 2 -> p\nparallel n", "must be the outermost");
  REFUSES(SCAN, "splitk i 3 -> p", "another iteration");
  REFUSES("kernel n(in A: f32[4, 8], out C: f32[4]) { for m in 0..4 { alloc b: f32[] register alloc s: f32[] register b[] = A[m, 0] s[] = 0.0"
          " for k in 0..8 { s[] += A[m, k] - b[] } C[m] = s[] } }",
          "splitk k 2 -> p", "needs nothing beside it");
}

Test(schedule, rfactor) {
  MAKES(SUM, "rfactor k 8 -> ko ki", "s.ki[ki] += A[ki + ko*8]");
  MAKES(SUM, "rfactor k 8 -> ko ki\nvectorize ki\nvectorize ki.z\nvectorize ki.r", "for ki in 0 .. 8 vector");
  MAKES(MATMUL, "rfactor k 4 -> ko ki", "acc.ki[ki] = fma(");
  REFUSES(COPY, "rfactor j 4 -> a b", "reduces nothing");
  REFUSES(SUM, "rfactor k 1 -> a b", "not in 2..256");
  REFUSES(SCAN, "rfactor i 4 -> a b", "another iteration");
}

Test(schedule, layout) {
  MAKES(MATMUL, "layout B \"split 1 4; perm 1 0 2\"", "const B: f32[8, 20] layout \"split 1 4; perm 1 0 2\"");
  MAKES(MATMUL, "layout B \"split 1 16; perm 1 0 2\"", "layout \"split 1 16");
  REFUSES(MATMUL, "layout A \"perm 1 0\"", "not a constant operand");
  REFUSES(MATMUL, "layout Z \"perm 1 0\"", "no buffer 'Z'");
}

Test(schedule, tail) {
  MAKES(COPY, "split j 5 -> jo ji\ntail jo", "for jo in 0 .. 2 independent {\n      for ji in 0 .. 5 independent {\n        B[i, ji + jo*5] = A[i, ji + jo*5]");
  MAKES(COPY, "split j 5 -> jo ji\ntail jo", "if ji.b < 2 {\n        B[i, ji.b + 10] = A[i, ji.b + 10]");
  /* in groups: where the last tile lies depends on the group */
  MAKES(COPY, "split j 5 -> jo ji\nsplit jo 2 -> jg jo\ntail jo", "if jg > 0 {");
  MAKES(MATMUL, "split n 8 -> no ni\ndistribute ni\ntail no", "ni.b < 4");
  REFUSES(COPY, "tail j", "no guard inside bounds it");
  REFUSES("kernel part(in A: f32[10], out B: f32[3], out C: f32[10]) { for i in 0..3 { for j in 0..4 { if i*4 + j < 10 { C[i*4 + j] = A[i*4 + j] } } B[i] = 0.0 } }", "tail i",
          "not all of its body");
  REFUSES(COPY, "split j 5 -> jo ji\nunroll jo\ntail jo", "only serial");
  /* what is for the first alone stays there, if that is within the guards */
  MAKES("kernel first(in A: f32[7], out B: f32[], out C: f32[7]) { for i in 0..3 { if i == 0 { B[] = 1.0 } for j in 0..4 { if i*4 + j < 7 { C[i*4 + j] = A[i*4 + j] } } } }", "tail i", "for i in 0 .. 1 ");
  REFUSES("kernel first(in A: f32[13], out B: f32[3], out C: f32[13]) { for o in 0..3 { for i in 0..2 { if i == 0 { B[o] = 1.0 } for j in 0..4 { if o*8 + i*4 + j < 13 { C[o*8 + i*4 + j] = A[o*8 + i*4 + j] } } } } }",
          "tail i", "beyond the guards");
}

Test(schedule, chunk) {
  MAKES(SUM, "chunk k 8 -> ko ki", "s.ki[] += A[ki + ko*8]");
  MAKES(MATMUL, "chunk k 4 -> ko ki", "acc[] += acc.ki[]");
  MAKES(MATMUL, "chunk k 4 -> ko ki\ndistribute m n", "local"); /* sums of sums are an array in memory */
  REFUSES(COPY, "chunk j 4 -> a b", "reduces nothing");
  REFUSES(SUM, "chunk k 0 -> a b", "not in 1..2^24");
  REFUSES(SUM, "chunk k 4 -> a a", "both new loops");
  REFUSES(SCAN, "chunk i 4 -> a b", "another iteration");
}

Test(schedule, prefetch) {
  MAKES(MATMUL, "prefetch B k 2 k -> p", "tile prefetch.l2 {");
  MAKES(MATMUL, "reorder n m\nprefetch A n 1 m -> p", "A.ahead[] = A[m, 0]");
  MAKES(MATMUL, "split m 2 -> mo mi\nprefetch A mo 1 k -> p", "min(1, k + mi*160 + n*8)"); /* the loops between count */
  MAKES(MATMUL, "split n 4 -> no ni\nreorder no m ni\ncache B no -> P\nprefetch P m 1 m -> p", "P.ahead[] = P[");
  MAKES(BLOCKED, "prefetch A y 1 y -> p", "A.ahead[] = A[p/4*8, min(8, y + 1), p%4*2]"); /* a line: two pixels of eight channels */
  REFUSES(MATMUL, "split n 4 -> no ni\nreorder no m ni\ncache B no -> P\nprefetch P no 1 m -> p", "is made inside");
  MAKES(MATMUL, "split m 2 -> mo mi\nprefetch C mo 1 k -> p", "if mo < 2"); /* what will be written: 2 rows of 20 */
  MAKES(MATMUL, "prefetch C m 1 m -> p", "tile prefetch {\n            C.ahead[] = C[m + 1, p*16]"); /* not there yet, which a hint may ask for */
  MAKES(MATMUL, "chunk k 4 -> ko ki\nraise ko m n\nprefetch C m 1 m -> p", "if m < 5 {\n        if ko > 0 {"); /* only where it will be written */
  MAKES(MATMUL, "prefetch C m 1 m -> p\nparallel m", "parallel"); /* a hint is no dependence */
  REFUSES(BATCH, "fuse b m -> m\nsplit m 6 -> ro ri\nprefetch C ro 1 ro -> p", "128 lines"); /* six rows of two pictures are no box */
  REFUSES(SCAN, "prefetch A i 1 i -> p", "is read and written by the kernel");
  REFUSES(MATMUL, "prefetch Z m 1 m -> p", "no operand 'Z'");
  REFUSES(MATMUL, "prefetch B n 1 m -> p", "is not inside");
  REFUSES(MATMUL, "prefetch B k 0 k -> p", "iterations ahead");
  REFUSES(MATMUL, "unroll k\nprefetch B k 1 k -> p", "only serial");
}

/* Rows of one buffer in turn: column j of another row is this iteration's own, column j + 1 or an element of no fixed place is not. */
Test(schedule, rows_of_columns) {
#define ROWS(read) "kernel rows(in A: f32[12], out B: f32[2, 12]) { for j in 0 .. 11 { B[0, j] = A[j] B[1, j] = " read " } }"
  MAKES(ROWS("B[0, j] + 1.0"), "vectorize j", "vector");
  REFUSES(ROWS("B[0, j + 1] + 1.0"), "vectorize j", "another iteration may have written");
  REFUSES(ROWS("B[0, 11 - j] + 1.0"), "vectorize j", "another iteration may have written");
  REFUSES(ROWS("B[0, j / 2] + 1.0"), "vectorize j", "another iteration may have written");
#undef ROWS
}

Test(schedule, transpose) {
  MAKES(COPY, "split i 5 -> io ii\nsplit j 4 -> jo ji\nreorder io jo ii ji\ncache A io -> P\nlayout P \"perm 1 0\"\ntensorize transpose P.0", "tile transpose {\n      for P.0 in 0 .. 5");
  REFUSES(COPY, "tensorize transpose i", "what it writes does not lie along the outer loop");
  REFUSES(COPY, "reorder j i\ntensorize transpose j", "what it reads does not lie along the inner loop");
  REFUSES(COPY, "tensorize transpose j", "not one loop around x[..] = y[..]");
  REFUSES(COPY, "split j 5 -> jo ji\nreorder jo i ji\ntensorize transpose i", "not one loop around x[..] = y[..]"); /* a guard */
  REFUSES(MATMUL, "tensorize transpose m", "not one loop around x[..] = y[..]");
}

/* Products whose operands are both there at run time only: one thread needs few copies, many threads need tasks. */
Test(schedule, tasks) {
  static const struct {
    int m, n, k, least;
  } some[] = {{2048, 2048, 2048, 8}, {4096, 4096, 512, 16}, {4096, 1024, 1024, 8}, {128, 4096, 1024, 4}};
  static const char *const cpus[] = {"x86-64-v3", "x86-64-v4"};
  tn_ctx *ctx = tn_ctx_new(NULL);
  for (int i = 0; i < IR_COUNT(some) * IR_COUNT(cpus); i++) {
    int m = some[i / 2].m, n = some[i / 2].n, k = some[i / 2].k;
    const ir_kernel *mm = ir_kernel_parse(ctx, ir_format(ctx,
                                              "kernel mm(in A: f32[%d, %d], in B: f32[%d, %d], out C: f32[%d, %d]) { for m in 0..%d { for n in 0..%d { alloc acc: f32[] register"
                                              " acc[] = 0.0 for k in 0..%d { acc[] = fma(A[m, k], B[k, n], acc[]) } C[m, n] = acc[] } } }", m, k, k, n, m, n, m, n, k), "mm");
    const char *why, *steps = lw_default_schedule(ctx, mm, cg_target_find(ctx, cpus[i % 2], "x86_64-linux-gnu"), 0);
    const ir_kernel *s = lw_schedule_apply(ctx, mm, steps, &why);
    cr_assert(s, "%s", why);
    int64_t tasks = 0;
    cr_assert(s->body->kind == IR_FOR && s->body->loop == IR_PARALLEL && ix_const_value(s->body->hi, &tasks), "%s", steps);
    cr_assert_geq(tasks, some[i / 2].least, "%d x %d x %d: %lld tasks\n%s", m, n, k, (long long)tasks, steps);
  }
  tn_ctx_free(ctx);
}

Test(schedule, cache) {
  MAKES(MATMUL, "reorder n m\nsplit n 4 -> no ni\ncache A m -> P", "P[0, k]");
  MAKES(MATMUL, "split n 3 -> no ni\nreorder no m ni\ncache B no -> P", "if P.1 + no*3 < 20");
  MAKES(CONV, "cache X k -> P", "alloc P: f32[3, 7] local");
  MAKES(MATMUL, "split n 4 -> no ni\nreorder no m ni\ncache B no -> P\nlayout P \"perm 1 0\"", "f32[8, 4] layout \"perm 1 0\" local");
  REFUSES(MATMUL, "cache C m -> P", "is written by the kernel");
  REFUSES(MATMUL, "cache Z m -> P", "no operand 'Z'");
  REFUSES(MATMUL, "unroll m\ncache A m -> P", "only serial");
}

Test(schedule, turn) {
  MAKES(MATMUL, "reorder n m\nsplit n 4 -> no ni\nturn A m 0 -> P", "alloc P: f32[1, ");
  MAKES(MATMUL, "split n 3 -> no ni\nreorder no m ni\nturn B no 0 -> P", "layout \"perm 1 0\" local");
  REFUSES(MATMUL, "turn B m 2 -> P", "has no axis 2");
  REFUSES(MATMUL, "turn C m 0 -> P", "is written by the kernel");
}

Test(schedule, muladd) {
  MAKES(MATMUL, "muladd", "acc[] = acc[] + A[m, k] * B[k, n]");
  REFUSES(COPY, "muladd", "no acc = fma");
}

Test(schedule, tensorize) {
  MAKES(MATMUL, "split n 4 -> no ni\ndistribute ni\ntensorize fma ni", "tile fma {");
  REFUSES(COPY, "tensorize fma j", "its body is not acc = fma");
  REFUSES(MATMUL, "tensorize wgmma n", "no atom 'wgmma'");
}

Test(schedule, text) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  const char *t = "split j 4 -> jo ji\nvectorize ji\nlayout B \"perm 1 0\"\n";
  cr_assert_str_eq(lw_schedule_canonical(ctx, "  split  j 4->jo ji # comment\n\nvectorize ji\n layout B \"perm 1 0\""), t);
  cr_assert_str_eq(lw_schedule_canonical(ctx, t), t);
  tn_ctx_free(ctx);
}

/* ---- random schedules ---- */

typedef struct rng {
  uint64_t s;
} rng;
static uint32_t draw(rng *r, uint32_t n) {
  r->s = r->s * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(r->s >> 33) % n;
}

static void names_of(const ir_stmt *s, const char **names, int *n) {
  if (!s) return;
  if (s->kind == IR_FOR && *n < 40) names[(*n)++] = s->var->name;
  for (int i = 0; i < s->n; i++) names_of(s->items[i], names, n);
  names_of(s->body, names, n);
  names_of(s->other, names, n);
}

static const char *random_text(tn_ctx *ctx, rng *r) {
  int a = 1 + (int)draw(r, 9), b = 1 + (int)draw(r, 9), c = 1 + (int)draw(r, 9), p = (int)draw(r, 3), t = 1 + (int)draw(r, 3);
  int x = a + 2 * p - t + 1;
  if (x < 1) p = 2, t = 1, x = a + 4;
  switch (draw(r, 7)) {
  case 0:
    return ir_format(ctx, "kernel mm(in A: f32[%d, %d], const B: f32[%d, %d], out C: f32[%d, %d]) { for m in 0..%d { for n in 0..%d {"
                          " alloc acc: f32[] register acc[] = 0.0 for k in 0..%d { acc[] = fma(A[m, k], B[k, n], acc[]) } C[m, n] = max(0.0, acc[]) } } }",
                     a, c, c, b, a, b, a, b, c);
  case 1:
    return ir_format(ctx, "kernel conv(in X: f32[%d, %d, %d], const W: f32[%d, %d, %d, %d], in S: f32[%d, %d, %d], out Y: f32[%d, %d, %d]) {"
                          " for k in 0..%d { for y in 0..%d { for x in 0..%d { alloc acc: f32[] register acc[] = 0.0 for c in 0..%d { for r in 0..%d { for s in 0..%d {"
                          " if y + r >= %d & y + r < %d & x + s >= %d & x + s < %d { acc[] = fma(X[c, y + r - %d, x + s - %d], W[k, c, r, s], acc[]) } } } }"
                          " Y[k, y, x] = acc[] + S[k, y, x] } } } }",
                     c, a, a, b, c, t, t, b, x, x, b, x, x, b, x, x, c, t, t, p, a + p, p, a + p, p, p);
  case 2:
    return ir_format(ctx, "kernel pool(in X: f32[%d, %d] layout \"split 0 4; perm 0 2 1\", out Y: f32[%d, %d] layout \"split 0 4; perm 0 2 1\") {"
                          " for c in 0..%d { for x in 0..%d { alloc m: f32[] register m[] = -inf for s in 0..%d { if x + s >= %d & x + s < %d { m[] max= X[c, x + s - %d] } }"
                          " Y[c, x] = m[] } } }",
                     b, a, b, x, b, x, t, p, a + p, p);
  case 3:
    return ir_format(ctx, "kernel softmax(in X: f32[%d, %d], out Y: f32[%d, %d]) { for i in 0..%d { alloc row: f32[%d] local alloc s: f32[] register s[] = 0.0"
                          " for j in 0..%d { row[j] = X[i, j] * 2.0 s[] += X[i, j] } for l in 0..%d { Y[i, l] = row[l] - s[] } } }",
                     a, b, a, b, a, b, b, b);
  case 4:
    return ir_format(ctx, "kernel move(in X: f32[%d, %d, %d], out Y: f32[%d, %d]) { for i in 0..%d { for j in 0..%d { Y[i, j] = X[j %% %d, i, j / %d] } } }",
                     b, a, c, a, b * c, a, b * c, b, b);
  case 5:
    return ir_format(ctx, "kernel rec(in X: f32[%d, %d], inout H: f32[%d, %d]) { for t in 1..%d { for i in 0..%d { H[t, i] = H[t - 1, (i + 1) %% %d] + X[t, i] } } }",
                     a + 1, b, a + 1, b, a + 1, b, b);
  default:
    return ir_format(ctx, "kernel total(in X: f32[%d, %d], out Y: f32[%d]) { for i in 0..%d { alloc s: f32[] register s[] = 0.0 for j in 0..%d { s[] += X[j, i] } Y[i] = s[] } }",
                     b, a, a, a, b);
  }
}

typedef struct tally {
  uint64_t seed;
  long steps, refused, cases;
  int used[32];
} tally;

static void random_case(tn_ctx *ctx, void *arg) {
  tally *w = arg;
  rng r = {w->seed * 2654435761u + 12345};
  bool whole = draw(&r, 4) != 0;
  ir_kernel *k = whole ? ir_kernel_parse(ctx, random_text(ctx, &r), "random")
                       : random_kernel(ctx, w->seed, RANDOM_STATIC | RANDOM_F32 | RANDOM_NO_EXPAND | RANDOM_NO_REM | RANDOM_SERIAL);
  const ir_kernel *s = k;
  ir_text all = {.ctx = ctx};
  int wanted = 1 + (int)draw(&r, 9);
  for (int i = 0; i < wanted; i++) {
    const char *names[40], *line;
    int n = 0;
    names_of(s->body, names, &n);
    if (!n) break;
    const char *a = names[draw(&r, (uint32_t)n)], *b = names[draw(&r, (uint32_t)n)], *c = names[draw(&r, (uint32_t)n)];
    int kind = (int)draw(&r, 19), f = 1 + (int)draw(&r, 6);
    switch (kind) {
    case 0:
    case 1: line = ir_format(ctx, "split %s %d -> o%d i%d", a, f, i, i); break;
    case 2: line = ir_format(ctx, "fuse %s %s -> f%d", a, b, i); break;
    case 3: line = ir_format(ctx, "reorder %s %s", a, b); break;
    case 4: line = ir_format(ctx, "reorder %s %s %s", a, b, c); break;
    case 5: line = ir_format(ctx, "unroll %s", a); break;
    case 6: line = ir_format(ctx, "vectorize %s", a); break;
    case 7: line = ir_format(ctx, "parallel %s", a); break;
    case 8: line = ir_format(ctx, "peel %s %d %d", a, (int)draw(&r, 3), (int)draw(&r, 3)); break;
    case 9: line = ir_format(ctx, "%s %s", draw(&r, 2) ? "narrow" : "tail", a); break;
    case 10: line = ir_format(ctx, "distribute %s", a); break;
    case 11: line = ir_format(ctx, "distribute %s %s", a, b); break;
    case 12: line = ir_format(ctx, "rfactor %s %d -> o%d i%d", a, f + 1, i, i); break;
    case 14: line = ir_format(ctx, "chunk %s %d -> o%d i%d", a, f, i, i); break;
    case 15: line = ir_format(ctx, "prefetch %s %s %d %s -> p%d", s->bufs[draw(&r, (uint32_t)s->nbufs)]->name, a, f, b, i); break;
    case 16: line = draw(&r, 2) ? ir_format(ctx, "raise %s %s", a, b) : ir_format(ctx, "raise %s %s %s", a, b, c); break;
    case 13: line = ir_format(ctx, "cache %s %s -> P%d", s->bufs[draw(&r, (uint32_t)s->nbufs)]->name, a, i); break;
    case 17: line = ir_format(ctx, "splitk %s %d -> s%d", a, f + 1, i); break;
    default: line = ir_format(ctx, "tensorize fma %s", a);
    }
    const char *reason;
    const ir_kernel *next = lw_schedule_apply(ctx, s, line, &reason);
    w->steps++;
    if (!next) {
      w->refused++;
      if (!reason || !*reason) ir_fail(ctx, TN_EWRONG, "refused without a reason: %s", line);
      continue;
    }
    w->used[kind]++;
    s = next;
    ir_put(&all, "%s\n", line);
  }
  const char *wrong = verify(ctx, s);
  if (wrong) ir_fail(ctx, TN_EWRONG, "%s\n%s%s\n%s", wrong, ir_text_str(&all), ir_kernel_print(ctx, k), ir_kernel_print(ctx, s));
  wrong = compare(ctx, k, s, w->seed, whole);
  if (wrong) ir_fail(ctx, TN_EWRONG, "%s\n%s%s\n%s", wrong, ir_text_str(&all), ir_kernel_print(ctx, k), ir_kernel_print(ctx, s));
  const char *text = ir_kernel_print(ctx, s);
  if (getenv("TENON_PRINT")) fprintf(stderr, "%s%s\n", ir_text_str(&all), text);
  if (strcmp(ir_kernel_print(ctx, ir_kernel_parse(ctx, text, "again")), text) != 0)
    ir_fail(ctx, TN_EWRONG, "the text does not come back:\n%s", text);
  w->cases++;
}

Test(schedule, random, .timeout = 600) {
  const char *env = getenv("TENON_SCHEDULES");
  long count = env ? atol(env) : 10000;
  tally w = {0};
  int bad = 0;
  for (long i = 0; i < count && bad < 5; i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    w.seed = (uint64_t)i + 1;
    tn_status st = ir_protect(ctx, random_case, &w);
    if (st) {
      fprintf(stderr, "seed %ld: %s\n", i + 1, tn_error(ctx));
      bad++;
    }
    tn_ctx_free(ctx);
  }
  cr_expect_eq(bad, 0);
  for (int k = 0; k < 18 && count >= 1000; k++) cr_expect_gt(w.used[k], 0, "step kind %d was never legal", k);
  fprintf(stderr, "%ld schedules, %ld steps, %ld refused\n", w.cases, w.steps, w.refused);
}

/* Default schedules of products of odd sizes, with blocks so small that all loops of a large product are there. */
static void random_product(tn_ctx *ctx, void *arg) {
  static const char *const cpus[] = {"x86-64-v3", "x86-64-v4", "x86-64-v2"};
  tally *w = arg;
  rng r = {w->seed * 2654435761u + 99};
  int b = 1 + (int)draw(&r, 2), m = 1 + (int)draw(&r, 40), n = 16 + (int)draw(&r, 60), k = 1 + (int)draw(&r, 40);
  bool constant = draw(&r, 2), after = draw(&r, 2); /* the loop of one or two iterations stands before or after the rows */
  bool across = w->seed % 3 == 0; /* B is [n, k] */
  const ir_kernel *mm = ir_kernel_parse(ctx, ir_format(ctx, "kernel mm(in A: f32[%d, %d, %d], %s B: f32[%d, %d], in D: f32[%d], out C: f32[%d, %d, %d]) { for %s in 0..%d { for %s in 0..%d {"
    " for n in 0..%d { alloc acc: f32[] register acc[] = 0.0 for k in 0..%d { acc[] = fma(A[b, m, k], B[%s], acc[]) } C[b, m, n] = max(0.0, acc[] + D[n]) } } } }",
    b, m, k, constant ? "const" : "in", across ? n : k, across ? k : n, n, b, m, n, after ? "m" : "b", after ? m : b, after ? "b" : "m", after ? b : m, n, k, across ? "n, k" : "k, n"), "random");
  lw_tunables u = {.kc = (int)draw(&r, 24), .group = (int)draw(&r, 4), .mr = (int)draw(&r, 7), .order = w->seed % 4 == 1 ? 3 : (int)draw(&r, 3), .rows = (int)draw(&r, 3), .ahead = (int)draw(&r, 3),
                   .accuracy = LW_ACCURACY};
  if (!u.kc || draw(&r, 2)) u.mb = 1 + (int)draw(&r, 3);
  const char *text = lw_schedule_with(ctx, mm, cg_target_find(ctx, cpus[draw(&r, 3)], "x86_64-unknown-linux-gnu"), &u, NULL, NULL), *reason;
  const ir_kernel *s = lw_schedule_apply(ctx, mm, text, &reason);
  if (!s) ir_fail(ctx, TN_EWRONG, "refused: %s\n%s", reason, text);
  const char *wrong = ir_kernel_verify(ctx, s);
  if (!wrong) wrong = compare(ctx, mm, s, w->seed, true);
  if (wrong) ir_fail(ctx, TN_EWRONG, "%s\n%s\n%s", wrong, ir_kernel_print(ctx, mm), text);
  w->used[0] += strstr(text, "raise ko vo ro") != NULL;
  w->used[1] += strstr(text, "raise ko ro vo") != NULL;
  w->used[2] += strstr(text, "-> panel") != NULL;
  w->used[3] += strstr(text, "tensorize transpose panel") != NULL;
  w->used[4] += strstr(text, "fill panel") != NULL;
  w->used[5] += strstr(text, "peel mc 1 0") != NULL;
}

Test(schedule, products, .timeout = 600) {
  tally w = {0};
  int bad = 0;
  for (int i = 0; i < 240 && bad < 3; i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    w.seed = (uint64_t)i + 1;
    if (ir_protect(ctx, random_product, &w)) fprintf(stderr, "seed %d: %s\n", i + 1, tn_error(ctx)), bad++;
    tn_ctx_free(ctx);
  }
  cr_expect_eq(bad, 0);
  for (int i = 0; i < 6; i++) cr_expect_gt(w.used[i], 5, "kind %d of blocks: %d times", i, w.used[i]);
}

/* A product for each of some matrices: copies of B's panels lie within the loop over them, the last one apart. */
static void batched_product(tn_ctx *ctx, void *arg) {
  const int *d = arg;
  const ir_kernel *mm = ir_kernel_parse(ctx, ir_format(ctx, "kernel mm(in A: f32[%d, %d, %d], in B: f32[%d, %d, %d], out C: f32[%d, %d, %d]) { for b in 0..%d { for m in 0..%d { for n in 0..%d {"
    " alloc acc: f32[] register acc[] = 0.0 for k in 0..%d { acc[] = fma(A[b, m, k], B[b, %s], acc[]) } C[b, m, n] = acc[] } } } }",
    d[0], d[1], d[3], d[0], d[4] ? d[2] : d[3], d[4] ? d[3] : d[2], d[0], d[1], d[2], d[0], d[1], d[2], d[3], d[4] ? "n, k" : "k, n"), "batched"), *s;
  const char *text = lw_default_schedule(ctx, mm, cg_target_find(ctx, "x86-64-v3", "x86_64-unknown-linux-gnu"), 0), *reason, *wrong;
  if (!(s = lw_schedule_apply(ctx, mm, text, &reason))) ir_fail(ctx, TN_EWRONG, "refused: %s\n%s", reason, text);
  if ((wrong = ir_kernel_verify(ctx, s)) || (wrong = compare(ctx, mm, s, 5, true))) ir_fail(ctx, TN_EWRONG, "%s\n%s", wrong, text);
  if (!strstr(text, "reorder b vo") || !strstr(text, d[4] ? "tensorize transpose panel" : "cache B vo -> panel")) ir_fail(ctx, TN_EWRONG, "panels are not copied within b:\n%s", text);
}

Test(schedule, batched_products) {
  static const int dims[][5] = {{3, 9, 67, 97, 0}, {2, 13, 96, 120, 0}, {5, 8, 35, 101, 0}, {3, 9, 67, 97, 1}, {2, 13, 96, 120, 1}, {5, 3, 35, 101, 1}}; /* 1: B is [b, n, k] */
  for (int i = 0; i < IR_COUNT(dims); i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    cr_expect_eq(ir_protect(ctx, batched_product, (void *)dims[i]), TN_OK, "%.900s", tn_error(ctx));
    tn_ctx_free(ctx);
  }
}

/* Many rows over few columns: A's rows are read as they lie, the next ones asked for. */
static void few_columns(tn_ctx *ctx, void *arg) {
  const int *d = arg;
  const ir_kernel *mm = ir_kernel_parse(ctx, ir_format(ctx, "kernel mm(in A: f32[%d, %d], const B: f32[%d, %d], out C: f32[%d, %d]) { for m in 0..%d { for n in 0..%d {"
    " alloc acc: f32[] register acc[] = 0.0 for k in 0..%d { acc[] = fma(A[m, k], B[k, n], acc[]) } C[m, n] = acc[] } } }",
    d[0], d[2], d[2], d[1], d[0], d[1], d[0], d[1], d[2]), "few"), *s;
  cg_target t = *cg_target_find(ctx, d[4] ? "x86-64-v4" : "x86-64-v3", "x86_64-unknown-linux-gnu");
  t.l2_bytes = 1 << 17; /* small enough for a quick test */
  const char *text = lw_default_schedule(ctx, mm, &t, 0), *reason, *wrong;
  if (!(s = lw_schedule_apply(ctx, mm, text, &reason))) ir_fail(ctx, TN_EWRONG, "refused: %s\n%s", reason, text);
  if ((wrong = ir_kernel_verify(ctx, s)) || (wrong = compare(ctx, mm, s, 7, true))) ir_fail(ctx, TN_EWRONG, "%s\n%s", wrong, text);
  if (!strstr(text, d[4] ? "prefetch A ro 1 vo" : "prefetch A ro 1 k") != !d[3]) ir_fail(ctx, TN_EWRONG, "rows are %sasked for:\n%s", d[3] ? "not " : "", text);
  if (strstr(text, "-> rows")) ir_fail(ctx, TN_EWRONG, "rows are copied:\n%s", text);
  if (d[0] > 100 && !strstr(text, "parallel rg")) ir_fail(ctx, TN_EWRONG, "no tasks:\n%s", text);
}

/* Rows of several axes are no box: each tile would ask for all of them. */
static void few_columns_of_joined_rows(tn_ctx *ctx, void *arg) {
  const char *reason, *wrong;
  const ir_kernel *mm = ir_kernel_parse(ctx, "kernel mm(in A: f32[11, 13, 301], const B: f32[301, 40], out C: f32[11, 13, 40]) { for b in 0..11 { for m in 0..13 { for n in 0..40 {"
    " alloc acc: f32[] register acc[] = 0.0 for k in 0..301 { acc[] = fma(A[b, m, k], B[k, n], acc[]) } C[b, m, n] = acc[] } } } }", "joined"), *s;
  cg_target t = *cg_target_find(ctx, "x86-64-v3", "x86_64-unknown-linux-gnu");
  t.l2_bytes = 1 << 17;
  const char *text = lw_default_schedule(ctx, mm, &t, 0);
  if (!(s = lw_schedule_apply(ctx, mm, text, &reason))) ir_fail(ctx, TN_EWRONG, "refused: %s\n%s", reason, text);
  if ((wrong = ir_kernel_verify(ctx, s)) || (wrong = compare(ctx, mm, s, 7, true))) ir_fail(ctx, TN_EWRONG, "%s\n%s", wrong, text);
  if (!strstr(text, "fuse b m") || !strstr(text, "parallel rg") || strstr(text, "prefetch A")) ir_fail(ctx, TN_EWRONG, "%s", text);
}

Test(schedule, few_columns_of_joined_rows) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  cr_expect_eq(ir_protect(ctx, few_columns_of_joined_rows, NULL), TN_OK, "%.900s", tn_error(ctx));
  tn_ctx_free(ctx);
}

Test(schedule, few_columns) {
  static const int cases[][5] = {{43, 24, 512, 1, 0}, {130, 17, 250, 1, 0}, {64, 40, 301, 1, 0}, {29, 24, 300, 0, 0}, {61, 60, 270, 1, 1}};
  for (int i = 0; i < IR_COUNT(cases); i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    cr_expect_eq(ir_protect(ctx, few_columns, (void *)cases[i]), TN_OK, "%.900s", tn_error(ctx));
    tn_ctx_free(ctx);
  }
}

/* Few rows over a B at run time: as many of its rows pass together as stay in the first cache, in pieces of two pages. */
static void few_rows(tn_ctx *ctx, void *arg) {
  const int *d = arg;
  const ir_kernel *mm = ir_kernel_parse(ctx, ir_format(ctx, "kernel mm(in A: f32[%d, %d], in B: f32[%d, %d], out C: f32[%d, %d]) { for m in 0..%d { for n in 0..%d {"
    " alloc acc: f32[] register acc[] = 0.0 for k in 0..%d { acc[] = fma(A[m, k], B[k, n], acc[]) } C[m, n] = acc[] } } }",
    d[0], d[2], d[2], d[1], d[0], d[1], d[0], d[1], d[2]), "few"), *s;
  cg_target t = *cg_target_find(ctx, "x86-64-v3", "x86_64-unknown-linux-gnu");
  t.l2_bytes = 1 << 17; /* small enough for a quick test */
  const char *text = lw_default_schedule(ctx, mm, &t, 0), *reason, *wrong;
  if (!(s = lw_schedule_apply(ctx, mm, text, &reason))) ir_fail(ctx, TN_EWRONG, "refused: %s\n%s", reason, text);
  if ((wrong = ir_kernel_verify(ctx, s)) || (wrong = compare(ctx, mm, s, 7, true))) ir_fail(ctx, TN_EWRONG, "%s\n%s", wrong, text);
  if (!strstr(text, ir_format(ctx, "chunk k %d ", d[3]))) ir_fail(ctx, TN_EWRONG, "not %d rows of B at once:\n%s", d[3], text);
  if (d[4] && !strstr(text, ir_format(ctx, "split vo %d ", d[4]))) ir_fail(ctx, TN_EWRONG, "not %d panels at once:\n%s", d[4], text);
}

Test(schedule, few_rows) {
  static const int cases[][5] = {/* m n k, rows of B, panels */ {12, 90, 250, 16, 0}, {11, 100, 200, 16, 0}, {9, 1024, 24, 8, 0}, {13, 512, 48, 16, 0}, {5, 96, 250, 8, 0}, {9, 4096, 16, 8, 64}};
  for (int i = 0; i < IR_COUNT(cases); i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    cr_expect_eq(ir_protect(ctx, few_rows, (void *)cases[i]), TN_OK, "%.900s", tn_error(ctx));
    tn_ctx_free(ctx);
  }
}

/* Largest of all pixels: channels in blocks of 8 are vectors of 8 though results lie wider, those that lie last more at once. */
static void largest_of_pixels(tn_ctx *ctx, void *arg) {
  bool blocked = *(bool *)arg;
  const char *reason, *wrong;
  const ir_kernel *k = ir_kernel_parse(ctx, ir_format(ctx, "kernel most(in A: f32[1, 256, 37] layout \"%s\", out C: f32[1, 256]) { for n in 0..1 { for c in 0..256 { alloc acc: f32[] register acc[] = -inf"
    " alloc u: bool[] register u[] = false for r in 0..37 { u[] |= A[n, c, r] != A[n, c, r] acc[] max= A[n, c, r] } C[n, c] = select(u[], nan, acc[]) } } }", blocked ? "split 1 8; perm 0 1 3 2" : "perm 0 2 1"), "most"), *s;
  const char *text = lw_default_schedule(ctx, k, cg_target_find(ctx, "x86-64-v3", "x86_64-unknown-linux-gnu"), 0);
  if (!(s = lw_schedule_apply(ctx, k, text, &reason))) ir_fail(ctx, TN_EWRONG, "refused: %s\n%s", reason, text);
  if ((wrong = ir_kernel_verify(ctx, s)) || (wrong = compare(ctx, k, s, 7, true))) ir_fail(ctx, TN_EWRONG, "%s\n%s", wrong, text);
  if (!strstr(text, blocked ? "split c 8 -> vo vv" : "split c 32 -> vo vv") || !strstr(text, "vectorize vv")) ir_fail(ctx, TN_EWRONG, "no vectors of channels:\n%s", text);
}

Test(schedule, largest_of_pixels) {
  for (int blocked = 0; blocked < 2; blocked++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    cr_expect_eq(ir_protect(ctx, largest_of_pixels, &(bool){blocked}), TN_OK, "%.900s", tn_error(ctx));
    tn_ctx_free(ctx);
  }
}

/* Means of all pixels: several sums of a channel side by side, over both loops where a row follows the one before. */
static void mean_of_pixels(tn_ctx *ctx, void *arg) {
  static const char *const layouts[] = {"split 1 8; perm 0 1 3 4 2", "perm 0 2 3 1", "split 1 8; perm 0 1 4 3 2"};
  int way = *(int *)arg;
  const char *reason, *wrong;
  const ir_kernel *k = ir_kernel_parse(ctx, ir_format(ctx, "kernel mean(in A: f32[2, 64, 13, 13] layout \"%s\", out C: f32[2, 64]) { for n in 0..2 { for c in 0..64 { alloc acc: f32[] register acc[] = 0.0"
    " for r in 0..13 { for s in 0..13 { acc[] += A[n, c, r, s] } } C[n, c] = acc[] / 169.0 } } }", layouts[way]), "mean"), *s;
  const char *text = lw_default_schedule(ctx, k, cg_target_find(ctx, "x86-64-v3", "x86_64-unknown-linux-gnu"), 0);
  if (!(s = lw_schedule_apply(ctx, k, text, &reason))) ir_fail(ctx, TN_EWRONG, "refused: %s\n%s", reason, text);
  if ((wrong = ir_kernel_verify(ctx, s)) || (wrong = compare(ctx, k, s, 7, true))) ir_fail(ctx, TN_EWRONG, "%s\n%s", wrong, text);
  if (!strstr(text, "vectorize vv") || (way < 2 && !strstr(text, "fuse r s -> s\n") /* columns first: not one loop */) || (way < 2 && !strstr(text, "rfactor s 13 -> s.o s.u"))) ir_fail(ctx, TN_EWRONG, "other sums:\n%s", text);
}

Test(schedule, mean_of_pixels) {
  for (int way = 0; way < 3; way++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    cr_expect_eq(ir_protect(ctx, mean_of_pixels, &way), TN_OK, "%.900s", tn_error(ctx));
    tn_ctx_free(ctx);
  }
}
