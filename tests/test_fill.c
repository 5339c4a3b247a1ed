/* test_fill.c — the schedule step "fill": copies that are made by their first use. What it makes and refuses, random
 * nests around it against the unscheduled kernel, and machine code. */
#include "codegen/target.h"
#include "ir/interp.h"
#include "lower/lower.h"
#include "lower/schedule.h"
#include "random_kernel.h"
#include "support_llvm.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define PRODUCT                                                                                             \
  "kernel mm(in A: f32[6, 8], in B: f32[8, 20], out C: f32[6, 20]) { for m in 0..6 { for n in 0..20 {"      \
  " alloc acc: f32[] register acc[] = 0.0 for k in 0..8 { acc[] = fma(A[m, k], B[k, n], acc[]) }"          \
  " C[m, n] = acc[] } } }"
#define WINDOW                                                                                              \
  "kernel conv(in X: f32[3, 7], const W: f32[5, 3, 3], out Y: f32[5, 7]) { for k in 0..5 { for x in 0..7 {" \
  " alloc acc: f32[] register acc[] = 0.0 for c in 0..3 { for s in 0..3 { if x + s > 0 & x + s < 8 {"      \
  " acc[] = fma(X[c, x + s - 1], W[k, c, s], acc[]) } } } Y[k, x] = acc[] } } }"
#define LATER                                                                                               \
  "kernel later(in A: f32[4, 8], in B: f32[9, 8], out C: f32[9, 4]) { for n in 0..9 { for m in 0..4 {"      \
  " C[n, m] = 0.0 if m > 1 { for k in 0..8 { C[n, m] += A[m, k] * B[n, k] } } } } }"
#define TWICE                                                                                               \
  "kernel twice(in A: f32[4, 8], in B: f32[9, 8], out C: f32[9, 4]) { for n in 0..9 { for m in 0..4 {"      \
  " C[n, m] = 0.0 for k in 0..8 { C[n, m] += A[m, k] * B[n, k] } for j in 0..8 { C[n, m] += B[n, j] } } } }"
#define GROWS                                                                                               \
  "kernel grows(in A: f32[4, 8], in B: f32[9, 8], out C: f32[9, 4]) { for n in 0..9 { for m in 0..4 {"      \
  " C[n, m] = 0.0 for k in 0..m + 2 { C[n, m] += A[m, k] * B[n, k] } } } }"

/* Null, or what is wrong with s, which is to compute what k does to the bit. */
static const char *differs(tn_ctx *ctx, const ir_kernel *k, const ir_kernel *s, uint64_t seed) {
  const char *wrong = ir_kernel_verify(ctx, s);
  if (wrong && !strstr(wrong, "become constant by unrolling")) return wrong;
  random_args a = random_args_new(ctx, k, seed), b = random_args_copy(ctx, k, &a);
  ir_interp(ctx, k, a.args, a.dims);
  ir_interp(ctx, s, b.args, b.dims);
  return random_args_differ(ctx, k, &a, &b);
}

typedef struct one {
  const char *kernel, *schedule, *want;
  bool refused;
} one;

static void check_one(tn_ctx *ctx, void *arg) {
  const one *o = arg;
  const char *reason, *wrong;
  const ir_kernel *k = ir_kernel_parse(ctx, o->kernel, "test"), *s = lw_schedule_apply(ctx, k, o->schedule, &reason);
  if (o->refused) {
    if (s) ir_fail(ctx, TN_EWRONG, "not refused:\n%s", ir_kernel_print(ctx, s));
    if (!strstr(reason, o->want)) ir_fail(ctx, TN_EWRONG, "refused because: %s", reason);
    return;
  }
  if (!s) ir_fail(ctx, TN_EWRONG, "refused: %s", reason);
  const char *text = ir_kernel_print(ctx, s);
  if (!strstr(text, o->want)) ir_fail(ctx, TN_EWRONG, "not there: %s\n%s", o->want, text);
  if ((wrong = differs(ctx, k, s, 3))) ir_fail(ctx, TN_EWRONG, "%s\n%s", wrong, text);
  if (strcmp(text, ir_kernel_print(ctx, ir_kernel_parse(ctx, text, "again")))) ir_fail(ctx, TN_EWRONG, "the text does not come back:\n%s", text);
}

static void check(const char *kernel, const char *schedule, const char *want, bool refused) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  cr_expect_eq(ir_protect(ctx, check_one, &(one){kernel, schedule, want, refused}), TN_OK, "%s\n%.1500s", schedule, tn_error(ctx));
  tn_ctx_free(ctx);
}
#define MAKES(kernel, schedule, want) check(kernel, schedule, want, false)
#define REFUSES(kernel, schedule, why) check(kernel, schedule, why, true)
#define PANELS "split n 4 -> no ni\nreorder no m ni\ndistribute ni\ncache B no -> P\n"

Test(fill, makes) {
  MAKES(PRODUCT, PANELS "fill P m k -> c", "if m == 0 {");
  MAKES(PRODUCT, PANELS "fill P m k -> c", "P[k.f, c.1] = B[k.f, c.1 + no*4]");
  MAKES(PRODUCT, PANELS "fill P m k -> c", "fma(A[m, k.f], B[k.f, ni.f + no*4]"); /* the first reads what it copies */
  MAKES(PRODUCT, PANELS "layout P \"perm 1 0\"\nfill P m k -> c", "fma(A[m, k], P[k, ni]");
  MAKES(PRODUCT, "split m 2 -> mo mi\nsplit n 3 -> no ni\nreorder mo no mi ni\ncache B mo -> P\nfill P mi k -> c", "if mi == 0 {"); /* for each mo */
  MAKES(PRODUCT, "split n 20 -> vc n\nsplit m 2 -> mo mi\nreorder vc mo mi n\ncache B vc -> P\nfill P mi k -> c", "if mi == 0 & mo == 0 {");
  MAKES(PRODUCT, "split n 3 -> no ni\nreorder no m ni\ndistribute ni\ncache B no -> P\nfill P m k -> c", "if c.1 + no*3 < 20 {"); /* what is beyond B is not copied */
  MAKES(WINDOW, "cache W k -> P\nfill P x s -> c", "if x == 0 {"); /* a guard of the use that is another one each time */
  MAKES(PRODUCT, "split m 4 -> ro ri\nsplit n 4 -> vo vi\nreorder vo ro ri vi\ndistribute ri vi\ncache B vo -> P\nfill P ro k -> c\ntail ro", "for ro in 0 .. 1 {");
}

Test(fill, refuses) {
  REFUSES(PRODUCT, PANELS "fill Q m k -> c", "there is no copy 'Q'");
  REFUSES(PRODUCT, PANELS "fill P m j -> c", "there is no loop 'j'");
  REFUSES(PRODUCT, PANELS "split P.0 2 -> a b\nfill P m k -> c", "not as they were made");
  REFUSES(PRODUCT, PANELS "fill P no k -> c", "is not where");
  REFUSES(PRODUCT, PANELS "fill P m m -> c", "is not where");
  REFUSES(PRODUCT, PANELS "fill P m k -> P", "already a loop 'P.0'");
  REFUSES(PRODUCT, PANELS "fill P m k -> c\nfill P m k -> d", "not as they were made");
  REFUSES(LATER, "cache B n -> P\nfill P m k -> c", "depends on 'm'");
  REFUSES(GROWS, "cache B n -> P\nfill P m k -> c", "depends on 'm'");
  REFUSES(TWICE, "cache B n -> P\nfill P m k -> c", "used outside of 'k'");
  /* from then on the order counts */
  REFUSES(PRODUCT, PANELS "fill P m k -> c\nvectorize m", "");
  REFUSES(PRODUCT, "split m 2 -> mo mi\nsplit n 4 -> no ni\nreorder no mo mi ni\ncache B no -> P\nfill P mi k -> c\nreorder mi mo", "");
}

typedef struct tally {
  uint64_t seed;
  int filled, waits, refused;
} tally;

static int draw(uint64_t *r, int n) {
  *r = *r * 6364136223846793005u + 1442695040888963407u;
  return (int)((*r >> 33) % (uint64_t)n);
}

/* A product in random blocks, B copied at some loop, filled at some other. */
static void random_case(tn_ctx *ctx, void *arg) {
  tally *w = arg;
  uint64_t r = w->seed * 2654435761u + 7;
  int m = 1 + draw(&r, 13), n = 1 + draw(&r, 40), k = 1 + draw(&r, 12);
  const ir_kernel *mm = ir_kernel_parse(ctx, ir_format(ctx, "kernel mm(in A: f32[%d, %d], in B: f32[%d, %d], out C: f32[%d, %d]) { for m in 0..%d { for n in 0..%d {"
    " alloc acc: f32[] register acc[] = 0.0 for k in 0..%d { acc[] = fma(A[m, k], B[k, n], acc[]) } C[m, n] = acc[] } } }", m, k, k, n, m, n, m, n, k), "random"), *s = mm, *next;
  const char *outer[] = {"mc", "vc", "ro", "vo"}, *reason;
  for (int i = 3; i > 0; i--) {
    int j = draw(&r, i + 1);
    const char *t = outer[i];
    outer[i] = outer[j], outer[j] = t;
  }
  ir_text all = {.ctx = ctx};
  int home = draw(&r, 4), use = draw(&r, 4);
  const char *lines[] = {
    ir_format(ctx, "split n %d -> vo vi", 1 + draw(&r, 9)), ir_format(ctx, "split vo %d -> vc vo", 1 + draw(&r, 4)),
    ir_format(ctx, "split m %d -> ro ri", 1 + draw(&r, 5)), ir_format(ctx, "split ro %d -> mc ro", 1 + draw(&r, 3)),
    ir_format(ctx, "reorder %s %s %s %s ri vi", outer[0], outer[1], outer[2], outer[3]), draw(&r, 4) ? "distribute ri vi" : "",
    ir_format(ctx, "cache B %s -> P", outer[home]), draw(&r, 2) ? "layout P \"perm 1 0\"" : "", ir_format(ctx, "fill P %s k -> c", outer[use]),
    draw(&r, 2) ? "tail ro" : "", draw(&r, 2) ? "tail vo" : "", draw(&r, 3) ? "" : ir_format(ctx, "peel %s %d %d", outer[use], draw(&r, 2), draw(&r, 2)), draw(&r, 3) ? "unroll ri" : "",
    draw(&r, 3) ? "" : ir_format(ctx, "prefetch B %s 1 k -> p", outer[home])};
  for (int i = 0; i < IR_COUNT(lines); i++) {
    if (!*lines[i]) continue;
    if (!(next = lw_schedule_apply(ctx, s, lines[i], &reason))) {
      w->refused += strncmp(lines[i], "fill", 4) == 0;
      continue;
    }
    s = next;
    ir_put(&all, "%s\n", lines[i]);
    if (strncmp(lines[i], "fill", 4)) continue;
    w->filled++;
    w->waits += strstr(ir_kernel_print(ctx, s), "== 0") != NULL;
  }
  if (getenv("TENON_PRINT")) fprintf(stderr, "%s%s\n", ir_text_str(&all), ir_kernel_print(ctx, s));
  const char *wrong = differs(ctx, mm, s, w->seed), *code = NULL;
  const cg_target *native = cg_target_find(ctx, "native", NULL);
  if (!wrong && !ir_kernel_verify(ctx, s) && w->seed % 16 == 0) code = llvm_check_kernel(ctx, native, s, &(llvm_check){.seed = w->seed});
  if (wrong || code) ir_fail(ctx, TN_EWRONG, "%s\n%s\n%s", wrong ? wrong : code, ir_text_str(&all), ir_kernel_print(ctx, s));

}

Test(fill, random) {
  tally w = {0};
  int bad = 0;
  for (int i = 0; i < 600 && bad < 3; i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    w.seed = (uint64_t)i + 1;
    if (ir_protect(ctx, random_case, &w)) fprintf(stderr, "seed %d: %s\n", i + 1, tn_error(ctx)), bad++;
    tn_ctx_free(ctx);
  }
  cr_expect_eq(bad, 0);
  cr_expect_gt(w.filled, 150, "%d", w.filled);
  cr_expect_gt(w.waits, 100, "%d", w.waits);
  cr_expect_gt(w.refused, 50, "%d", w.refused);
}

/* Sums that pass through registers at once are longer where something may be lost. */
static void lengths(tn_ctx *ctx, void *arg) {
  (void)arg;
  const ir_kernel *mm = ir_kernel_parse(ctx, "kernel mm(in A: f32[100, 384], in B: f32[384, 64], out C: f32[100, 64]) { for m in 0..100 { for n in 0..64 {"
    " alloc acc: f32[] register acc[] = 0.0 for k in 0..384 { acc[] = fma(A[m, k], B[k, n], acc[]) } C[m, n] = acc[] } } }", "mm");
  const cg_target *t = cg_target_find(ctx, "x86-64-v3", "x86_64-unknown-linux-gnu");
  const char *fast = lw_default_schedule(ctx, mm, t, LW_ACCURACY), *strict = lw_default_schedule(ctx, mm, t, 0);
  if (!strstr(fast, "fill panel ro k") || strstr(fast, "chunk k")) ir_fail(ctx, TN_EWRONG, "%s", fast);
  if (!strstr(strict, "fill panel ro k") || !strstr(strict, "chunk k 192")) ir_fail(ctx, TN_EWRONG, "%s", strict);
}

Test(fill, lengths) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  cr_expect_eq(ir_protect(ctx, lengths, NULL), TN_OK, "%.1500s", tn_error(ctx));
  tn_ctx_free(ctx);
}
