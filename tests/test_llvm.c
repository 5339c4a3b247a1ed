/* test_llvm.c — machine code of every statement, dtype and operation against the interpreter. */
#include "codegen/entry.h"
#include "codegen/jit.h"
#include "ir/interp.h"
#include "random_kernel.h"
#include "support_llvm.h"
#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_line(void *user, const char *line) {
  (void)user;
  fprintf(stderr, "%s\n", line);
}

/* CPUs of the table that this machine can run. */
#if defined(__x86_64__)
static const char *const cpus[] = {"native", "x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4"};
#else
static const char *const cpus[] = {"native"};
#endif

typedef struct job {
  const char *text;
  const llvm_check *how;
  const char *only; /* one CPU; null: all that run here */
} job;

static void run_job(tn_ctx *ctx, void *arg) {
  job *j = arg;
  for (int i = 0; i < IR_COUNT(cpus); i++) {
    if (j->only && strcmp(j->only, cpus[i]) != 0) continue;
    const cg_target *t = cg_target_find(ctx, cpus[i], NULL);
    if (!cg_target_runs_here(ctx, t, NULL)) continue;
    const char *diff = llvm_check_kernel(ctx, t, ir_kernel_parse(ctx, j->text, "test"), j->how);
    if (diff) ir_fail(ctx, TN_EWRONG, "%s\n%s", diff, j->text);
  }
}

static void check_on(const char *only, const char *text, const llvm_check *how) {
  tn_ctx *ctx = tn_ctx_new(&(tn_config){.log = print_line});
  tn_status status = ir_protect(ctx, run_job, &(job){text, how, only});
  if (status) fprintf(stderr, "%s\n", tn_error(ctx)); /* Criterion shortens long messages */
  cr_assert_eq(status, TN_OK, "%.400s", tn_error(ctx));
  tn_ctx_free(ctx);
}

static void check_how(const char *text, const llvm_check *how) { check_on(NULL, text, how); }
static void check(const char *text) { check_on(NULL, text, NULL); }

/* ---- statements ---- */

Test(llvm, loops) {
  check("kernel a(in A: f32[7, 5], out B: f32[5, 7]) { for i in 0..7 { for j in 0..5 { B[j, i] = A[i, j] } } }");
  check("kernel a(in A: f32[9], out B: f32[]) { alloc s: f32[] register s[] = 0.0 for i in 2..9 { s[] += A[i] } B[] = s[] }");
  check("kernel a(inout A: i32[20]) { for i in 1..20 { A[i] += A[i - 1] } }");
  check("kernel a(inout A: i32[20]) { for i in 1..20 unroll { A[i] = A[i - 1] * 3 + A[i] } }");
  check("kernel nothing(in A: f32[4]) { }");
  check("kernel zero(inout A: f32[4]) { for i in 3..3 { A[i] = 1.0 } for j in 4..2 { A[j] = 2.0 } }");
}

Test(llvm, tasks) {
  check("kernel a(in A: f32[64], out B: f32[64]) { for i in 4..60 parallel { B[i] = A[i] + 1.0 } for j in 0..4 { B[j] = 0.0 B[j + 60] = 0.0 } }");
  const char *text = "kernel a(in A: f32[64], inout B: f32[64]) { let k = 3 for i in 4..60 parallel { alloc t: f32[2000] local "
                     "for j in 0..2000 { t[j] = cast<f32>(j + i) } B[i] = t[i * 7] + A[i] } }";
  check(text);
  check_how(text, &(llvm_check){.backwards = true});
  check("kernel a(inout A: i32[4]) { for i in 1..2 parallel { A[i] = 7 } }");
}

Test(llvm, dims) {
  int64_t dims[2] = {5, 11};
  check_how("kernel a(dim N [0, 100], dim M, in A: f32[N, M], out B: f32[M, N]) { for i in 0..N parallel { for j in 0..M { B[j, i] = A[i, j] } } }",
            &(llvm_check){.dims = dims});
  check_how("kernel a(dim N, dim M, in A: f32[N, M], out B: f32[M]) { for j in 0..M { B[j] = 0.0 } "
            "for i in 0..N { for j2 in 0..M / 4 { for v in 0..4 vector { B[j2 * 4 + v] += A[i, j2 * 4 + v] } } for t in M / 4 * 4..M { B[t] += A[i, t] } } }",
            &(llvm_check){.dims = dims, .rtol = 1e-6});
  int64_t none[2] = {0, 40};
  check_how("kernel a(dim N, dim M, in A: f32[N, M], out B: f32[M]) { for j in 0..M { B[j] = 0.0 } "
            "for i in 0..N { for j2 in 0..M / 4 { for v in 0..4 vector { B[j2 * 4 + v] += A[i, j2 * 4 + v] } } for t in M / 4 * 4..M { B[t] += A[i, t] } } }",
            &(llvm_check){.dims = none});
}

Test(llvm, branches) {
  check("kernel a(in A: f32[30], out B: f32[30]) { for i in 0..30 { if A[i] < 0.0 { B[i] = 0.0 - A[i] } else { B[i] = A[i] * 2.0 } } }");
  check("kernel a(in A: f32[30], out B: f32[30], out C: i32[]) { alloc n: i32[] register n[] = 0 "
        "for i in 0..30 { alloc x: f32[] register x[] = A[i] if x[] > 1.0 { n[] += 1 if x[] > 2.0 { x[] = 2.0 n[] += 10 } } else { x[] *= 0.5 } B[i] = x[] } C[] = n[] }");
  check("kernel a(in A: f32[30], out B: f32[34]) { for i in 0..34 { B[i] = select(i >= 2 & i < 32, A[i - 2], -1.0) } }");
  check("kernel a(in A: f32[30], in I: i32[9], out B: f32[9]) { for i in 0..9 { let k = cast<index>(I[i]) B[i] = select(k >= 0 & k < 30, A[k], 0.5) } }");
}

Test(llvm, whiles) {
  check_how("kernel collatz(in A: i32[40], out B: i32[40]) { for i in 0..40 { alloc x: i32[] register alloc n: i32[] register x[] = A[i] n[] = 0 "
            "while x[] > 1 & n[] < 1000 { if x[] % 2 == 0 { x[] = x[] / 2 } else { x[] = x[] * 3 + 1 } n[] += 1 } B[i] = n[] } }",
            &(llvm_check){.ilo = 0, .ihi = 100});
  check("kernel find(in A: f32[50], out B: i64[]) { alloc i: index[] register i[] = 0 "
        "while select(i[] < 50, A[i[]] < 3.0, false) { i[] += 1 } B[] = cast<i64>(i[]) }");
}

Test(llvm, locals) {
  check("kernel sort(inout A: i32[17]) { for i in 0..16 { for j in 0..16 { if A[j + 1] < A[j] { let t = A[j] A[j] = A[j + 1] A[j + 1] = t } } } }");
  check("kernel a(in A: f32[4, 4], out B: f32[4, 4]) { alloc t: f32[4, 4] local for i in 0..4 { for j in 0..4 { t[j, i] = A[i, j] } } "
        "for i2 in 0..4 { for j2 in 0..4 { B[i2, j2] = t[i2, j2] + t[j2, i2] } } }");
  check("kernel a(in A: f32[4, 4], out B: f32[4, 4]) { for i in 0..4 { alloc r: f32[4] register for j in 0..4 unroll { r[j] = A[i, j] } "
        "for j2 in 0..4 { for k in 0..4 unroll { r[k] = r[(k + 1) % 4] * 0.5 } B[i, j2] = r[j2 % 1] } } }");
}

Test(llvm, layouts) {
  check("kernel a(in A: f32[3, 37], inout B: f32[3, 37] layout \"split 1 16; perm 1 0 2\") { for i in 0..3 { for j in 0..37 { B[i, j] = A[i, j] } } }");
  check("kernel a(inout B: f32[3, 48], in A: f32[3, 48] layout \"split 1 16; perm 1 0 2\") { for i in 0..3 { for j in 0..48 vector { B[i, j] = A[i, j] } } }");
  check("kernel a(in A: f32[3, 16], inout B: f32[3, 16] layout \"pad 1 2 3\") { for i in 0..3 { for j in 0..16 vector { B[i, j] = A[i, j] } } }");
}

/* ---- vector loops ---- */

Test(llvm, lanes) {
  check("kernel a(in A: f32[16], in Bm: f32[16], out C: f32[16]) { for i in 0..16 vector { C[i] = A[i] * Bm[i] + A[15 - i] } }");
  check("kernel strides(in A: f32[4, 70], out C: f32[4, 16]) { for i in 0..16 vector { C[0, i] = A[0, 2 * i] C[1, i] = A[1, 3 * i + 1] C[2, i] = A[2, 4 * i + 2] C[3, i] = A[1, 64 - 4 * i] } }");
  check("kernel transposed(in A: f32[16, 9], out C: f32[9, 16]) { for j in 0..9 { for i in 0..16 vector { C[j, i] = A[i, j] } } }");
  check("kernel scattered(in A: f32[9, 16], out C: f32[16, 9]) { for j in 0..9 { for i in 0..16 vector { C[i, j] = A[j, i] * 2.0 } } }");
  check("kernel repeated(in A: f32[40], out C: f32[64], out D: f32[64]) { for i in 0..64 vector { C[i] = A[i / 4 + i % 4] D[i] = A[i % 8] } }");
  check("kernel long(in A: f32[1003], out C: f32[1003]) { for i in 0..1003 vector { C[i] = sqrt(abs(A[i])) } }");
  check("kernel odd(in A: f32[37], out C: f32[37]) { for i in 0..37 vector { C[i] = A[i] + cast<f32>(i) } }");
  check("kernel offset(in A: f32[9, 16], out C: f32[9, 16]) { for j in 0..9 { for i in j..j + 7 vector { C[j, i] = A[j, i] } for i2 in 0..j { C[j, i2] = 0.0 } for i3 in j + 7..16 { C[j, i3] = 0.0 } } }");
}

Test(llvm, gathers) {
  llvm_check how = {.ilo = 0, .ihi = 39};
  check_how("kernel g(in A: f32[40], in I: i32[16], out C: f32[16]) { for i in 0..16 vector { C[i] = A[cast<index>(I[i])] } }", &how);
  check_how("kernel g(in A: f64[40, 3], in I: i64[16], out C: f64[16, 3]) { for k in 0..3 { for i in 0..16 vector { C[i, k] = A[cast<index>(I[i]), k] } } }", &how);
  check_how("kernel g(in A: i8[40], in I: u8[16], out C: i8[16]) { for i in 0..16 vector { C[i] = A[cast<index>(I[i])] + 1 } }", &how);
  check_how("kernel h(inout H: i32[40], in I: i32[64]) { for i in 0..64 vector { H[cast<index>(I[i])] += 1 } }", &how);
  check_how("kernel h(inout H: i32[40], in I: i32[64]) { for i in 0..64 vector { if I[i] > 10 { H[cast<index>(I[i])] max= 50 } } }", &how);
  check_how("kernel g(in A: f32[40], in I: i32[16], out C: f32[16]) { for i in 0..16 vector { C[i] = select(I[i] < 20, A[cast<index>(I[i]) * 2], 0.0) } }", &how);
}

Test(llvm, masks) {
  check("kernel tail(in A: f32[5, 27], out C: f32[5, 27]) { for r in 0..5 { for o in 0..2 { for i in 0..16 vector { if o * 16 + i < 27 { C[r, o * 16 + i] = A[r, o * 16 + i] + 1.0 } } } } }");
  check("kernel pad(in A: f32[27], out C: f32[48]) { for o in 0..3 { for i in 0..16 vector { C[o * 16 + i] = select(o * 16 + i >= 10 & o * 16 + i < 37, A[o * 16 + i - 10], -1.0) } } }");
  check("kernel arms(in A: f32[32], inout C: f32[32], inout D: f32[32]) { for i in 0..32 vector { if A[i] > 0.0 { C[i] = A[i] if A[i] > 2.0 { D[i] += 1.0 } } else { C[i] *= 2.0 D[i] = 0.0 } } }");
  check("kernel own(in A: f32[32], out C: f32[32]) { for i in 0..32 vector { alloc x: f32[] register x[] = A[i] if x[] < 0.0 { x[] = x[] * x[] } else { x[] += 1.0 } if x[] > 3.0 { x[] = 3.0 } C[i] = x[] } }");
  check("kernel reversed(in A: f32[27], out C: f32[16]) { for i in 0..16 vector { C[i] = select(20 - i < 18, A[20 - i], 0.0) } }");
  check("kernel parts(in A: f32[3001], in B: f32[1999], out C: f32[5000]) { for o in 0..625 { for i in 0..8 vector { C[8 * o + i] = select(8 * o + i < 3001, A[8 * o + i], B[8 * o + i - 3001]) } } }");
  check("kernel one(in A: f32[5], out C: f32[7, 16]) { for o in 0..7 { for i in 0..16 vector { C[o, i] = select(o < 5 & i % 3 == 1, A[o], 0.0) } } }");
  check("kernel both(in A: f32[5], in Z: i32[8], out C: f32[8]) { for o in 0..8 { if o < 5 { let x = A[o] C[o] = x + select(Z[o] > 0, A[o], 0.0) } else { C[o] = 0.0 } } }");
  check("kernel window(in A: f32[9, 9], out C: f32[9, 9]) { for h in 0..9 { for w in 0..9 { C[h, w] = 0.0 for r in 0..3 { for s in 0..3 { C[h, w] += select(h + r >= 1 & h + r < 10 & w + s >= 1 & w + s < 10, A[h + r - 1, w + s - 1], 0.0) } } } } }");
  check("kernel rows(in A: f32[9, 32], out C: f32[12, 32]) { for h in 0..12 { for o in 0..2 { for w in 0..16 vector { C[h, o * 16 + w] = select(h >= 2 & h < 11, A[h - 2, o * 16 + w], 0.0) } } for q in 0..32 { C[h, q] += select(h < 9, A[8 - h, 31 - q], 0.0) } } }");
  check("kernel onehot(in A: bf16[4], inout C: bf16[3, 4], in D: u8[16], inout E: i32[3, 16]) { for i in 0..3 { for v in 0..4 vector { if v == i { C[i, v] = A[v] * 2.0 } } for w in 0..16 vector { if w == 5 { E[i, w] = cast<i32>(D[w]) } } } }");
  check("kernel single(in A: bf16[4], inout C: bf16[3, 5]) { for i in 0..3 { for v in 0..4 vector { if v < 1 { C[2 - i, v] = A[v] * 2.0 } } } }");
  check("kernel bytes(in A: u8[27], out C: u8[32]) { for i in 0..32 vector { C[i] = select(i < 27, A[i] * 3, 9) } }");
  check("kernel uniform(in A: f32[5], in B: f32[80], out C: f32[80]) { for o in 0..5 { for i in 0..16 vector { C[o * 16 + i] = select(o >= 2, A[o - 2] + B[o * 16 + i - 32], 0.5) } } }");
  check("kernel changing(inout A: f32[32]) { for i in 0..32 vector { if A[i] > 0.0 { A[i] = -1.0 } else { A[i] = 5.0 } if A[i] > 0.0 { A[i] += 3.0 } } }");
}

/* Lanes beyond the last block's channels are nobody's; all else that a guard leaves out is somebody's. */
Test(llvm, ragged_blocks) {
#define BLOCKED(n) "f32[" #n ", 3] layout \"split 0 8; perm 0 2 1\""
  check("kernel whole(in A: " BLOCKED(20) ", in W: f32[20], inout C: " BLOCKED(20) ") { for x in 0..3 { for o in 0..3 { for i in 0..8 vector { if i + o * 8 < 20 { C[i + o * 8, x] = A[i + o * 8, x] * 2.0 + W[i + o * 8] } } } } }");
  check("kernel beyond(in A: " BLOCKED(20) ", inout C: " BLOCKED(20) ") { for x in 0..3 { for o in 0..4 { for i in 0..8 vector { if i + o * 8 < 20 { C[i + o * 8, x] = A[i + o * 8, x] } } } } }");
  check("kernel fewer(in A: " BLOCKED(20) ", inout C: " BLOCKED(20) ") { for x in 0..3 { for o in 0..3 { for i in 0..8 vector { if i + o * 8 < 19 { C[i + o * 8, x] = A[i + o * 8, x] } } } } }");
  check("kernel chosen(in A: " BLOCKED(20) ", inout C: " BLOCKED(20) ") { for x in 0..3 { for o in 0..3 { for i in 0..8 vector { if i + o * 8 < 20 { if A[i + o * 8, x] > 0.0 { C[i + o * 8, x] = A[i + o * 8, x] } } } } } }");
  check("kernel other(in A: " BLOCKED(20) ", inout C: " BLOCKED(24) ") { for x in 0..3 { for o in 0..3 { for i in 0..8 vector { if i + o * 8 < 20 { C[i + o * 8, x] = A[i + o * 8, x] } } } } }");
  check_how("kernel sums(in A: " BLOCKED(20) ", inout C: f32[3], inout D: " BLOCKED(20) ") { for x in 0..3 { for o in 0..3 { for i in 0..8 vector { if i + o * 8 < 20 { C[x] += A[i + o * 8, x] D[i + o * 8, x] += 1.0 } } } } }", &(llvm_check){.rtol = 1e-6});
  check("kernel halo(in A: f32[3, 20], inout C: f32[3, 20] layout \"pad 1 2 3; split 1 8\") { for x in 0..3 { for o in 0..3 { for i in 0..8 vector { if i + o * 8 < 20 { C[x, i + o * 8] = A[x, i + o * 8] } } } } }");
  check("kernel divided(in A: i32[20, 3] layout \"split 0 8; perm 0 2 1\", inout C: i32[20, 3] layout \"split 0 8; perm 0 2 1\") { for x in 0..3 { for o in 0..3 { for i in 0..8 vector { if i + o * 8 < 20 { C[i + o * 8, x] = 100 / max(A[i + o * 8, x], 1) } } } } }");
#undef BLOCKED
}

Test(llvm, reductions) {
  llvm_check near = {.rtol = 1e-5};
  check_how("kernel s(in A: f32[8, 16], out C: f32[8]) { for r in 0..8 { alloc s: f32[] register s[] = 0.0 for i in 0..16 vector { s[] += A[r, i] } C[r] = s[] } }", &near);
  check_how("kernel s(in A: f32[8, 24], out C: f32[8]) { for r in 0..8 { C[r] = 1.0 for i in 0..24 vector { C[r] += A[r, i] * 2.0 } } }", &near);
  check("kernel m(in A: f32[8, 16], out C: f32[8], out D: i32[8], in B: i32[8, 7]) { for r in 0..8 { C[r] = -inf:f32 D[r] = 0 for i in 0..16 vector { C[r] max= A[r, i] } for i2 in 0..7 vector { D[r] += B[r, i2] } } }");
  check("kernel masked(in A: i32[64], out C: i32[], out D: i32[], out E: i32[]) { C[] = 0 D[] = 1000 E[] = 1 for i in 0..64 vector { if A[i] > 3 { C[] += A[i] D[] min= A[i] E[] *= 3 } } }");
  check("kernel last(in A: f32[16], out C: f32[]) { for i in 0..16 vector { C[] = A[i] } }");
  check("kernel uses(in A: f32[16], out C: f32[16], out D: f32[]) { alloc t: f32[] register for i in 0..16 vector { t[] = A[i] * 2.0 C[i] = t[] + 1.0 } D[] = t[] }");
  check("kernel order(in A: f32[16], out D: f32[]) { alloc t: f32[] register t[] = 0.0 for i in 0..16 vector { t[] = t[] * 0.5 + A[i] } D[] = t[] }");
  check("kernel logic(in A: bool[16], out C: bool[], out D: bool[]) { C[] = false D[] = true for i in 0..16 vector { C[] |= A[i] D[] &= A[i] } }");
}

Test(llvm, registers) {
  const char *tile =
      "kernel tile(in A: f32[%d, 40], in Bm: f32[40, %d], out C: f32[%d, %d]) {\n"
      "  alloc acc: f32[%d, %d] register\n"
      "  for i in 0..%d unroll { for jo in 0..%d unroll { for ji in 0..16 vector { acc[i, jo*16+ji] = 0.0 } } }\n"
      "  for k in 0..40 { for i2 in 0..%d unroll { for jo2 in 0..%d unroll { for ji2 in 0..16 vector {\n"
      "    acc[i2, jo2*16+ji2] = fma(A[i2, k], Bm[k, jo2*16+ji2], acc[i2, jo2*16+ji2]) } } } }\n"
      "  for i3 in 0..%d unroll { for jo3 in 0..%d unroll { for ji3 in 0..16 vector { C[i3, jo3*16+ji3] = acc[i3, jo3*16+ji3] } } }\n}";
  int sizes[][2] = {{14, 2}, {6, 4}, {1, 1}, {3, 3}};
  for (int i = 0; i < IR_COUNT(sizes); i++) {
    char text[2000];
    int m = sizes[i][0], n = sizes[i][1];
    snprintf(text, sizeof text, tile, m, n * 16, m, n * 16, m, n * 16, m, n, m, n, m, n);
    check(text);
  }
  check("kernel wide(in A: f32[32], out C: f32[32]) { alloc r: f32[32] register for i in 0..32 vector { r[i] = A[i] } for o in 0..4 unroll { for i2 in 0..8 vector { r[o * 8 + i2] *= 2.0 } } r[5] = 7.0 for i3 in 0..32 unroll { C[i3] = r[i3] } }");
  check("kernel odd(in A: f32[20], out C: f32[20]) { alloc r: f32[20] register for i in 0..16 vector { r[i] = A[i] } for i1 in 16..20 unroll { r[i1] = A[i1] } for i2 in 0..20 unroll { C[i2] = r[19 - i2] } }");
  check("kernel lanes(in A: f32[5, 16], out C: f32[16]) { for i in 0..16 vector { alloc s: f32[2] register s[0] = 0.0 s[1] = 1.0 for k in 0..5 { s[0] += A[k, i] if k > 2 { s[1] *= 2.0 } } C[i] = s[0] * s[1] } }");
  check("kernel branch(in A: f32[16], in F: bool[3], out C: f32[16]) { alloc s: f32[16] register for i in 0..16 vector { s[i] = A[i] } for k in 0..3 { if F[k] { for i2 in 0..16 vector { s[i2] += 1.0 } } } for i3 in 0..16 vector { C[i3] = s[i3] } }");
  check("kernel columns(in A: f32[16, 4], out C: f32[4, 16]) { alloc r: f32[16, 4] register for i in 0..16 vector { for j in 0..4 unroll { r[i, j] = A[i, j] } } for j2 in 0..4 unroll { for i2 in 0..16 vector { C[j2, i2] = r[i2, j2] } } }");
}

/* The atom "transpose": squares of any number of rows, and what falls back to loops. Registers of 64 bytes are
 * tried on any machine: LLVM splits them. */
Test(llvm, transpose) {
  static const char *const types[] = {"f32", "f64", "i32", "u8"};
  const char *text = "kernel turn(in A: %s[%d, 37], inout C: %s[2, 37, %d]) {\n"
                     "  for c in 0..2 { tile transpose { for a in 0..%d { for b in 0..%d { C[c, b, a] = A[a, b] } } } } }";
  tn_ctx *ctx = tn_ctx_new(NULL);
  cg_target wide = *cg_target_find(ctx, "native", NULL);
  wide.vector_bits = 512;
  static const int some[] = {1, 2, 3, 5, 6, 8, 9, 14, 16, 19};
  for (int type = 0; type < IR_COUNT(types); type++)
    for (int i = 0; i < IR_COUNT(some); i++)
      for (int apart = 0; apart < 2; apart++) /* whether rows of C end where the next one begins */
        for (int columns = 32; columns <= 37; columns += 5) {
          char t[400];
          int rows = some[i];
          snprintf(t, sizeof t, text, types[type], rows, types[type], rows + 3 * apart, rows, columns);
          check(t);
          const char *why = llvm_check_kernel(ctx, &wide, ir_kernel_parse(ctx, t, "test"), &(llvm_check){0});
          cr_assert_null(why, "%s: %s", t, why);
        }
  const ir_kernel *k = ir_kernel_parse(ctx, "kernel turn(in A: f32[6, 32], out C: f32[32, 6]) { tile transpose { for a in 0..6 { for b in 0..32 { C[b, a] = A[a, b] } } } }", "test");
  const char *code = cg_kernel_asm(ctx, cg_target_find(ctx, "x86-64-v3", "x86_64-linux-gnu"), k, "k");
  cr_assert(strstr(code, "vunpcklps") && strstr(code, "vperm2f128") && !strstr(code, "vpextrd"), "%s", code); /* in registers */
  tn_ctx_free(ctx);
}

/* ---- operations on every dtype ---- */

static const double special_floats[] = {0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 3.5, INFINITY, -INFINITY, NAN, 1e-40, -1e-45, 65504, 65520,
                                        1e30, -1e30, 2147483647.0, 2147483648.0, -2147483649.0, 4294967295.0, 1e19, 9.3e18, -9.3e18, 255.5, -128.7, 0.1, 7e-8, 6.1e-5, 8388607.5};
static const int64_t special_ints[] = {0, 1, -1, 2, 3, 7, 8, 31, 32, 63, 64, 100, 127, -128, 255, 32767, -32768, 65535, 2147483647, -2147483648LL, INT64_MAX, INT64_MIN, 5, -5, 1000003};

enum { CASES = 1024 };

/* Every pair of special values, then random ones. */
static void fill_special(tn_dtype t, char *p, int which) {
  uint64_t s = 99u + (uint64_t)which;
  for (int i = 0; i < CASES; i++) {
    s = s * 6364136223846793005u + 1442695040888963407u;
    ir_scalar v;
    int n = ir_is_float(t) ? IR_COUNT(special_floats) : IR_COUNT(special_ints), at = which == 0 ? i % n : which == 1 ? i / n : (i * 7) % n;
    bool random = at >= n;
    if (ir_is_float(t)) v.f = ir_round_float(t, random ? ((double)(s >> 11) * 0x1p-52 - 1) * 100 : special_floats[at]);
    else v.i = ir_wrap_int(t, random ? (int64_t)s : special_ints[at]);
    ir_scalar_store(t, p + (size_t)i * ir_dtype_bytes(t), v);
  }
}

static const tn_dtype dtypes[] = {TN_BOOL, TN_I8, TN_I16, TN_I32, TN_I64, TN_U8, TN_U16, TN_U32, TN_U64, TN_F16, TN_BF16, TN_F32, TN_F64,
                                   TN_F8E4M3FN, TN_F8E5M2, TN_F8E4M3FNUZ, TN_F8E5M2FNUZ, TN_F4E2M1};
static const char *const number_ops[] = {"A[i] + B[i]", "A[i] - B[i]", "A[i] * B[i]", "A[i] / B[i]", "min(A[i], B[i])", "max(A[i], B[i])", "-A[i]", "abs(A[i])", "select(A[i] < B[i], A[i], C[i])"};
static const char *const float_ops[] = {"sqrt(A[i])", "floor(A[i])", "ceil(A[i])", "round(A[i])", "trunc(A[i])", "fma(A[i], B[i], C[i])", "A[i] % B[i]"};
static const char *const int_ops[] = {"A[i] % B[i]", "A[i] & B[i]", "A[i] | B[i]", "A[i] ^ B[i]", "A[i] << B[i]", "A[i] >> B[i]", "A[i] << 3", "A[i] >> 3", "!A[i]", "A[i] / 7", "A[i] % 7"};
static const char *const bool_ops[] = {"A[i] & B[i]", "A[i] | B[i]", "A[i] ^ B[i]", "!A[i]", "min(A[i], B[i])", "max(A[i], B[i])"};
static const char *const compare_ops[] = {"A[i] < B[i]", "A[i] <= B[i]", "A[i] == B[i]", "A[i] != B[i]"};

static void put_ops(char *text, size_t room, const char *type, const char *result, const char *const *ops, int n, const char *kind) {
  size_t at = (size_t)snprintf(text, room, "kernel ops(in A: %s[1024], in B: %s[1024], in C: %s[1024], out O: %s[%d, 1024]) { for o in 0..64 { for j in 0..16 %s { let i = o * 16 + j\n", type, type, type, result, n, kind);
  for (int k = 0; k < n; k++) at += (size_t)snprintf(text + at, room - at, "O[%d, i] = %s\n", k, ops[k]);
  snprintf(text + at, room - at, "} } }");
}

static void check_ops(const char *cpu, const char *kind) {
  static char data[3][CASES * 8];
  static char text[8000];
  for (int d = 0; d < IR_COUNT(dtypes); d++) {
    tn_dtype t = dtypes[d];
    const char *type = ir_dtype_name(t);
    for (int i = 0; i < 3; i++) fill_special(t, data[i], i);
    llvm_check how = {.data = (const void *const[]){data[0], data[1], data[2], NULL}};
    if (t == TN_BOOL) put_ops(text, sizeof text, type, type, bool_ops, IR_COUNT(bool_ops), kind), check_on(cpu, text, &how);
    else put_ops(text, sizeof text, type, type, number_ops, IR_COUNT(number_ops), kind), check_on(cpu, text, &how);
    put_ops(text, sizeof text, type, "bool", compare_ops, IR_COUNT(compare_ops), kind), check_on(cpu, text, &how);
    if (ir_is_float(t)) put_ops(text, sizeof text, type, type, float_ops, IR_COUNT(float_ops), kind), check_on(cpu, text, &how);
    if (ir_is_int(t)) put_ops(text, sizeof text, type, type, int_ops, IR_COUNT(int_ops), kind), check_on(cpu, text, &how);
  }
}

/* From every dtype to every other, one kernel for each source. */
static void check_casts(const char *cpu, const char *kind) {
  static char data[CASES * 8], text[8000];
  for (int d = 0; d < IR_COUNT(dtypes); d++) {
    size_t at = (size_t)snprintf(text, sizeof text, "kernel casts(in A: %s[1024]", ir_dtype_name(dtypes[d]));
    for (int e = 0; e < IR_COUNT(dtypes); e++) at += (size_t)snprintf(text + at, sizeof text - at, ", out O%d: %s[1024]", e, ir_dtype_name(dtypes[e]));
    at += (size_t)snprintf(text + at, sizeof text - at, ") { for o in 0..64 { for j in 0..16 %s { let i = o * 16 + j\n", kind);
    for (int e = 0; e < IR_COUNT(dtypes); e++) {
      const char *to = ir_dtype_name(dtypes[e]);
      if (dtypes[d] == dtypes[e]) at += (size_t)snprintf(text + at, sizeof text - at, "O%d[i] = A[i]\n", e);
      else at += (size_t)snprintf(text + at, sizeof text - at, "O%d[i] = cast<%s>(A[i])\n", e, to);
    }
    snprintf(text + at, sizeof text - at, "} } }");
    fill_special(dtypes[d], data, 0);
    const void *list[20] = {data};
    check_on(cpu, text, &(llvm_check){.data = list});
  }
}

static void check_bitcasts(const char *cpu, const char *kind) {
  static const struct { const char *from, *to; tn_dtype t; } pairs[] = {{"f32", "i32", TN_F32}, {"u32", "f32", TN_U32}, {"f64", "u64", TN_F64}, {"i64", "f64", TN_I64},
      {"f16", "u16", TN_F16}, {"i16", "f16", TN_I16}, {"bf16", "i16", TN_BF16}, {"u16", "bf16", TN_U16}, {"i8", "u8", TN_I8},
      {"f8e4m3fn", "u8", TN_F8E4M3FN}, {"f8e5m2", "i8", TN_F8E5M2}, {"u8", "f8e4m3fnuz", TN_U8}, {"u8", "f8e5m2fnuz", TN_U8}, {"f4e2m1", "u8", TN_F4E2M1}};
  static char data[CASES * 8], text[1000];
  for (int i = 0; i < IR_COUNT(pairs); i++) {
    fill_special(pairs[i].t, data, 0);
    snprintf(text, sizeof text, "kernel b(in A: %s[1024], out O: %s[1024]) { for o in 0..64 { for j in 0..16 %s { O[o * 16 + j] = bitcast<%s>(A[o * 16 + j]) } } }", pairs[i].from, pairs[i].to, kind, pairs[i].to);
    check_on(cpu, text, &(llvm_check){.data = (const void *const[]){data, NULL}});
  }
}

/* Every code of the floats of a byte; every f16, and its neighbours in f32, to them. */
static void check_bytes(const char *cpu, const char *kind) {
  static uint8_t codes[256];
  static uint16_t halves[65536];
  static float near[2][65536];
  char text[1000];
  for (int i = 0; i < 256; i++) codes[i] = (uint8_t)i;
  for (int i = 0; i < 65536; i++) {
    halves[i] = (uint16_t)i;
    float v = ir_f16_to_f32((uint16_t)i);
    for (int k = 0; k < 2; k++) near[k][i] = nextafterf(v, k ? INFINITY : -INFINITY);
  }
  for (int t = TN_F8E4M3FN; t <= TN_F4E2M1; t++) {
    const char *name = ir_dtype_name((tn_dtype)t);
    snprintf(text, sizeof text, "kernel of(in A: %s[256], out O: f32[256]) { for o in 0..16 { for j in 0..16 %s { O[o * 16 + j] = cast<f32>(A[o * 16 + j]) } } }", name, kind);
    check_on(cpu, text, &(llvm_check){.data = (const void *const[]){codes, NULL}});
    snprintf(text, sizeof text, "kernel to(in A: f16[65536], in B: f32[65536], in C: f32[65536], out O: %s[3, 65536]) { for o in 0..4096 { for j in 0..16 %s { let i = o * 16 + j O[0, i] = cast<%s>(A[i]) O[1, i] = cast<%s>(B[i]) O[2, i] = cast<%s>(C[i]) } } }",
             name, kind, name, name, name);
    check_on(cpu, text, &(llvm_check){.data = (const void *const[]){halves, near[0], near[1], NULL}});
  }
}
Test(llvm, bytes) { check_bytes("native", "vector"), check_bytes("x86-64", ""), check_bytes("x86-64", "vector"); }

Test(llvm, ops_native) { check_ops("native", "vector"), check_ops("native", ""); }
Test(llvm, ops_v4) { check_ops("x86-64-v4", "vector"); }
Test(llvm, ops_v3) { check_ops("x86-64-v3", "vector"); }
Test(llvm, ops_v2) { check_ops("x86-64-v2", "vector"); }
Test(llvm, ops_baseline) { check_ops("x86-64", "vector"), check_ops("x86-64", ""); }
Test(llvm, casts_native) { check_casts("native", "vector"), check_casts("native", ""); }
Test(llvm, casts_v3) { check_casts("x86-64-v3", "vector"); }
Test(llvm, casts_baseline) { check_casts("x86-64", "vector"), check_casts("x86-64", ""); }
Test(llvm, bitcasts) { check_bitcasts("native", "vector"), check_bitcasts("x86-64", "vector"), check_bitcasts("native", ""), check_bitcasts("x86-64", ""); }

Test(llvm, index_arithmetic) {
  check("kernel i(out O: i64[9, 60], in K: i32[60]) { for i in 0..60 { let k = cast<index>(K[i]) let d = max(k, 1) "
        "O[0, i] = cast<i64>(k / 7) O[1, i] = cast<i64>(k % 7) O[2, i] = cast<i64>(k / 8) O[3, i] = cast<i64>(k % 8) O[4, i] = cast<i64>(i * 5 / d) O[5, i] = cast<i64>(k % d) "
        "O[6, i] = cast<i64>(min(k, i) - abs(k)) O[7, i] = cast<i64>(select(k < i, k * 3, i)) O[8, i] = cast<i64>((k - 50) / d) } }");
  check("kernel v(out O: i64[9, 60], in K: i32[60]) { for i in 0..60 vector { let k = cast<index>(K[i]) let d = max(k, 1) "
        "O[0, i] = cast<i64>(k / 7) O[1, i] = cast<i64>(k % 7) O[2, i] = cast<i64>(k / 8) O[3, i] = cast<i64>(k % 8) O[4, i] = cast<i64>(i * 5 / d) O[5, i] = cast<i64>(k % d) "
        "O[6, i] = cast<i64>(min(k, i) - abs(k)) O[7, i] = cast<i64>(select(k < i, k * 3, i)) O[8, i] = cast<i64>((k - 50) / d) } }");
}

Test(llvm, functions) {
  static const char *const names[] = {"exp", "log", "tanh", "erf", "sigmoid", "sin", "cos", "atan", "log1p", "expm1"};
  char text[500];
  for (int i = 0; i < IR_COUNT(names); i++) {
    snprintf(text, sizeof text, "kernel f(in A: f32[64], out O: f32[64], in D: f64[16], out E: f64[16], in H: f16[16], out G: f16[16]) { for i in 0..64 vector { O[i] = %s(A[i]) } for j in 0..16 { E[j] = %s(D[j]) G[j] = %s(H[j]) } }", names[i], names[i], names[i]);
    check_on(i == 0 ? NULL : "native", text, &(llvm_check){.range = 10});
  }
}

/* ---- random kernels ---- */

typedef struct random_job {
  uint64_t seed;
  const char *cpu;
} random_job;

static void run_random(tn_ctx *ctx, void *arg) {
  random_job *j = arg;
  const cg_target *t = cg_target_find(ctx, j->cpu, NULL);
  const ir_kernel *k = random_kernel(ctx, j->seed, j->seed % 3 ? RANDOM_TILES : RANDOM_F32);
  random_args a = random_args_new(ctx, k, j->seed);
  const char *diff = llvm_check_kernel(ctx, t, k, &(llvm_check){.dims = a.dims, .data = (const void *const *)a.args, .backwards = j->seed % 2});
  if (diff) ir_fail(ctx, TN_EWRONG, "seed %llu: %s\n%s", (unsigned long long)j->seed, diff, ir_kernel_print(ctx, k));
}

static void random_kernels(const char *cpu, uint64_t from, uint64_t n) {
  tn_ctx *probe = tn_ctx_new(NULL);
  bool here = true;
#if defined(__x86_64__)
  here = cg_target_runs_here(probe, cg_target_find(probe, cpu, NULL), NULL);
#endif
  tn_ctx_free(probe);
  const char *more = getenv("TENON_CASES"); /* how many of each, for a longer run */
  if (more) n = strtoull(more, NULL, 10);
  for (uint64_t seed = from; here && seed < from + n; seed++) {
    tn_ctx *ctx = tn_ctx_new(&(tn_config){.log = print_line});
    tn_status status = ir_protect(ctx, run_random, &(random_job){seed, cpu});
    if (status) fprintf(stderr, "%s\n", tn_error(ctx));
    cr_assert_eq(status, TN_OK, "%.400s", tn_error(ctx));
    tn_ctx_free(ctx);
  }
}

Test(llvm, random_native) { random_kernels("native", 1, 250); }
#if defined(__x86_64__)
Test(llvm, random_baseline) { random_kernels("x86-64", 1001, 80); }
Test(llvm, random_v3) { random_kernels("x86-64-v3", 2001, 80); }
Test(llvm, random_v4) { random_kernels("x86-64-v4", 3001, 80); }
#endif

/* ---- the compiler itself ---- */

static void abi(tn_ctx *ctx, void *arg) {
  (void)arg;
  const cg_target *t = cg_target_find(ctx, "x86-64-v3", NULL);
  const ir_kernel *k = ir_kernel_parse(ctx, "kernel k(dim N, inout A: f32[N]) { for i in 2..N parallel { alloc t: f32[4000] local t[0] = 1.0 A[i] = t[0] } }", "k");
  cg_kernel_info info = cg_kernel_abi(ctx, t, k);
  const cg_object *o = cg_compile_kernel(ctx, t, k, "k");
  cr_assert_eq(info.scratch_bytes, 16000);
  cr_assert_eq(o->kernels[0].scratch_bytes, 16000);
  cr_assert_eq(o->kernels[0].ntasks, ix_addi(ctx, k->dims[0]->expr, -2));
  cr_assert_gt(o->kernels[0].code_bytes, 20);
  cr_assert_not_null(strstr(cg_kernel_ir(ctx, t, k, "name"), "define hidden void @name"));
  cr_assert_not_null(strstr(cg_kernel_asm(ctx, t, k, "name"), "name:"));
}
/* Lanes that are all off read zeros where what they would read may lie pages away: such pages need not be there. */
static void far_lanes(tn_ctx *ctx, void *arg) {
  const cg_target *t = cg_target_find(ctx, "x86-64-v3", NULL);
  for (int far = 0; far < 2; far++) {
    const char *text = ir_format(ctx, "kernel k(in A: f32[%d], in B: f32[%d], out C: f32[%d]) { for o in 0..%d { for v in 0..8 vector { C[8 * o + v] = select(8 * o + v < %d, A[8 * o + v], B[8 * o + v - %d]) } } }",
                                 far ? 3001 : 301, far ? 4999 : 499, far ? 8000 : 800, far ? 1000 : 100, far ? 3001 : 301, far ? 3001 : 301);
    const char *code = cg_kernel_ir(ctx, t, ir_kernel_parse(ctx, text, arg), "k");
    cr_assert_not_null(strstr(code, "llvm.masked.load"));
    cr_assert_eq(strstr(code, "tn.zeros") != NULL, far, "%s", code);
  }
}
static void unknown_cpu(tn_ctx *ctx, void *arg) { cg_target_find(ctx, arg, NULL); }
static void unfit_cpu(tn_ctx *ctx, void *arg) { cg_target_find(ctx, "x86-64-v3", arg); }
static void isa(tn_ctx *ctx, void *arg) {
  (void)arg;
  for (int i = 0; i < 6; i++) {
    const cg_target *t = cg_target_find(ctx, cg_target_names()[i], "x86_64-unknown-linux-gnu");
    const char *missing = NULL;
    bool here = cg_target_runs_here(ctx, t, &missing);
    const cg_object *o = cg_compile_entry(ctx, t, &(ir_program){0}, NULL, &(cg_entry_options){.isa = "check_isa"});
    cg_jit *jit = cg_jit_new(ctx);
    cg_jit_add(ctx, jit, o->bytes, o->size);
    int32_t r = ((int32_t(*)(void))cg_jit_symbol(ctx, jit, "check_isa"))();
    cr_assert_eq(r == 0, here, "%s: %d", t->name, r);
    if (r) cr_assert_str_eq(t->isa[r - 1]->name, missing);
    cg_jit_free(ctx, jit);
  }
}

Test(llvm, compiler) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  cr_assert_eq(ir_protect(ctx, abi, NULL), TN_OK, "%s", tn_error(ctx));
  cr_assert_eq(ir_protect(ctx, far_lanes, "k"), TN_OK, "%s", tn_error(ctx));
  cr_assert_eq(ir_protect(ctx, unknown_cpu, "pentium"), TN_EUSAGE);
  cr_assert_not_null(strstr(tn_error(ctx), "pentium"));
  cr_assert_eq(ir_protect(ctx, unfit_cpu, "aarch64-unknown-linux-gnu"), TN_EUSAGE);
  cr_assert_eq(ir_protect(ctx, unfit_cpu, "riscv64-unknown-linux-gnu"), TN_EUSAGE);
#if defined(__x86_64__)
  cr_assert_eq(ir_protect(ctx, isa, NULL), TN_OK, "%s", tn_error(ctx));
#endif
  tn_ctx_free(ctx);
}

/* An allocation that fails anywhere is an error with a message; the sanitizers see leaks. */
static void starve(tn_ctx *ctx, void *arg) {
  const ir_kernel *k = ir_kernel_parse(ctx, "kernel a(in A: f32[5, 100], out B: f32[100]) { for i in 0..100 vector { B[i] = 0.0 for j in 0..5 { B[i] += select(i > j, A[j, i - j], 0.5) } } }", "k");
  ir_fail_alloc_after(ctx, *(long *)arg);
  const cg_object *o = cg_compile_kernel(ctx, cg_target_find(ctx, "native", NULL), k, "k");
  cg_jit *jit = cg_jit_new(ctx);
  cg_jit_add(ctx, jit, o->bytes, o->size);
  cg_jit_symbol(ctx, jit, "k");
}

Test(llvm, memory_fails) {
  int failed = 0;
  for (long n = 1; n < 100; n++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    tn_status status = ir_protect(ctx, starve, &n);
    cr_assert(status == TN_OK || status == TN_ERESOURCE, "%s", tn_error(ctx));
    failed += status != TN_OK;
    tn_ctx_free(ctx);
    if (status == TN_OK) break;
  }
  cr_assert_gt(failed, 0);
}

static void deep(tn_ctx *ctx, void *arg) {
  (void)arg;
  ir_text t = {.ctx = ctx};
  ir_put(&t, "kernel deep(in A: i32[4], out B: i32[4]) { for i in 0..4 { B[i] = ");
  for (int i = 0; i < 3500; i++) ir_put(&t, "max(A[i], 1 + ");
  ir_put(&t, "A[i]");
  for (int i = 0; i < 3500; i++) ir_put(&t, ")");
  ir_put(&t, " } }");
  cg_compile_kernel(ctx, cg_target_find(ctx, "native", NULL), ir_kernel_parse(ctx, ir_text_str(&t), "deep"), "k");
}

Test(llvm, deep_expressions) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_status status = ir_protect(ctx, deep, NULL);
  cr_assert(status == TN_OK || status == TN_EUNSUPPORTED || status == TN_EINPUT, "%d %s", status, tn_error(ctx));
  cr_assert(strstr(tn_error(ctx), "deep") || status == TN_OK, "%s", tn_error(ctx));
  tn_ctx_free(ctx);
}

static void *compile_thread(void *arg) {
  (void)arg;
  tn_ctx *ctx = tn_ctx_new(NULL);
  job j = {"kernel a(in A: f32[100], out B: f32[100]) { for i in 0..100 vector { B[i] = exp(A[i]) } }", NULL, "native"};
  for (int i = 0; i < 5; i++)
    if (ir_protect(ctx, run_job, &j)) return arg;
  tn_ctx_free(ctx);
  return NULL;
}

Test(llvm, threads) {
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) cr_assert_eq(pthread_create(&threads[i], NULL, compile_thread, "failed"), 0);
  for (int i = 0; i < 4; i++) {
    void *bad;
    pthread_join(threads[i], &bad);
    cr_assert_null(bad);
  }
}
