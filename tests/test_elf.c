/* The ELF merger: objects of the C compiler joined, then read by readelf and linked in every
 * way a user might (static, position-independent, shared, ld -r), and run. */
#include "aot/shell.h"
#include "codegen/elf.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char entry_c[] =
    "#include <string.h>\n"
    "extern __attribute__((visibility(\"hidden\"))) int kernel_a(int), kernel_b(int);\n"
    "extern __attribute__((visibility(\"hidden\"))) const int weights[4];\n"
    "static const char words[] = \"entry words\";\n"
    "int (*const table[2])(int) = {kernel_a, kernel_b};\n"
    "int p_run(int x, char *out) {\n"
    "  memcpy(out, words, sizeof words);\n"
    "  return table[x & 1](x) + weights[x & 3];\n"
    "}\n";
static const char a_c[] =
    "static int scale(int x) { volatile int y = x * 3; return y; }\n"
    "double shared_name(double x);\n"
    "const double consts_a[2] = {1.5, 2.5};\n"
    "int kernel_a(int x) { return scale(x) + (int)shared_name(x + consts_a[x & 1]); }\n";
static const char b_c[] =
    "#include <math.h>\n"
    "static int scale(int x) { volatile int y = x * 5; return y; }\n"
    "double shared_name(double x) { return floor(x * 2.25) + cbrt(0.0 * x); }\n"
    "static const char *names[] = {\"zero\", \"one\", \"two\"};\n"
    "int kernel_b(int x) { return scale(x) + names[x % 3][0]; }\n";
static const char main_c[] =
    "#include <stdio.h>\n"
    "int p_run(int x, char *out);\n"
    "int shared_name(void) { return 7; } /* the merged one is local: no clash */\n"
    "int main(void) {\n"
    "  char s[32];\n"
    "  for (int i = 0; i < 4; i++) printf(\"%d \", p_run(i, s));\n"
    "  printf(\"%s %d\\n\", s, shared_name());\n"
    "  return 0;\n"
    "}\n";
static const int weights[4] = {100, 200, 300, 400};
/* i: table[i & 1](i) + weights[i & 3]. a(0) = 0 + floor(3.375); a(2) = 6 + floor(7.875); b(1) = 5 + 'o'; b(3) = 15 + 'z' */
static const char expected[] = "103 316 313 537 entry words 7";

static void to_file(void *user, const void *data, size_t n) { cr_assert_eq(fwrite(data, 1, n, user), n); }

struct merge_args { cg_elf_job job; FILE *f; };
static void do_merge(tn_ctx *ctx, void *arg) {
  struct merge_args *a = arg;
  cg_elf_write(ctx, &a->job, to_file, a->f);
}

static const char *const publics[] = {"p_run"};

/* Compiles the three sources with `cc flags` and merges them into p.o. */
static void merge_with(const char *cc, const char *flags) {
  write_text("entry.c", entry_c), write_text("a.c", a_c), write_text("b.c", b_c), write_text("main.c", main_c);
  SH("%s %s -c entry.c a.c b.c", cc, flags);
  cg_elf_input in[3] = {{.what = "entry"}, {.what = "a"}, {.what = "b"}};
  const char *names[] = {"entry.o", "a.o", "b.o"};
  for (int i = 0; i < 3; i++) in[i].bytes = read_bytes(names[i], &in[i].size);
  tn_ctx *ctx = tn_ctx_new(NULL);
  char path[128];
  snprintf(path, sizeof path, "%s/p.o", dir);
  struct merge_args a = {{.ninputs = 3, .inputs = in, .npublic = 1, .publics = publics, .nnames = 1, .names = &(cg_elf_name){"kernel_a", "p_conv_1"},
                          .blob_symbol = "weights", .blob = weights, .blob_bytes = sizeof weights}, fopen(path, "wb")};
  cr_assert_eq(ir_protect(ctx, do_merge, &a), TN_OK, "%s", ir_error(ctx));
  fclose(a.f);
  tn_ctx_free(ctx);
  for (int i = 0; i < 3; i++) free((void *)in[i].bytes);
}

static void links_and_runs(const char *flags, const char *link) {
  const char *cc = host_cc();
  char out[8192];
  merge_with(cc, flags);
  SH("readelf -a p.o > listing");
  sh(out, sizeof out, "grep -i -E 'warning|error|corrupt' listing");
  cr_assert_str_eq(out, "");
  sh(out, sizeof out, "nm -u p.o | awk '{print $2}' | grep -v -x -E 'memcpy|floor|cbrt|_GLOBAL_OFFSET_TABLE_'");
  cr_assert_str_eq(out, "");
  sh(out, sizeof out, "nm -g --defined-only p.o | awk '{print $3}'");
  cr_assert_str_eq(out, "p_run");
  sh(out, sizeof out, "nm p.o | grep -c -w p_conv_1");
  cr_assert_str_eq(out, "1");
  sh(out, sizeof out, "readelf -SW p.o | grep -c GNU-stack");
  cr_assert_str_eq(out, "1");
  SH("%s %s main.c p.o -o prog -lm", cc, link);
  cr_assert_eq(sh(out, sizeof out, "./prog"), 0);
  cr_assert_str_eq(out, expected);
  SH("ld -r p.o -o r.o && %s %s main.c r.o -o prog2 -lm", cc, link);
  cr_assert_eq(sh(out, sizeof out, "./prog2"), 0);
  cr_assert_str_eq(out, expected);
  SH("rm -rf %s", dir);
}

Test(elf, position_independent) { folder(); links_and_runs("-O2 -fPIC", "-pie"); }
Test(elf, optimised_static) { folder(); links_and_runs("-O1 -fno-pic -fno-pie", "-no-pie"); }
Test(elf, fully_static) { folder(); links_and_runs("-O2 -fno-builtin", "-static"); }
Test(elf, sections_and_debug) { folder(); links_and_runs("-O0 -g -ffunction-sections -fdata-sections -fPIE", "-g -Wl,--gc-sections"); }

Test(elf, shared_library) {
  folder();
  const char *cc = host_cc();
  char out[8192];
  merge_with(cc, "-O2 -fPIC");
  SH("%s -shared -Wl,-z,text -Wl,--no-undefined p.o -o libp.so -lm && %s main.c -L. -lp -Wl,-rpath,. -o prog", cc, cc);
  cr_assert_eq(sh(out, sizeof out, "./prog"), 0);
  cr_assert_str_eq(out, expected);
  SH("rm -rf %s", dir);
}

Test(elf, two_in_one_program) { /* same internal names twice */
  folder();
  const char *cc = host_cc();
  char out[8192];
  merge_with(cc, "-O2 -fPIC");
  SH("objcopy --redefine-sym p_run=q_run p.o q.o");
  write_text("two.c", "int p_run(int, char *), q_run(int, char *);\n"
                      "int main(void) { char s[32]; return p_run(3, s) - q_run(3, s); }\n");
  SH("%s two.c p.o q.o -o prog -lm", cc);
  cr_assert_eq(sh(out, sizeof out, "./prog"), 0);
  SH("rm -rf %s", dir);
}

Test(elf, aarch64) {
  if (system("command -v aarch64-linux-gnu-gcc >/dev/null && command -v qemu-aarch64 >/dev/null") != 0)
    cr_skip_test("no AArch64 cross compiler or qemu-aarch64");
  folder();
  char out[8192];
  merge_with("aarch64-linux-gnu-gcc", "-O2 -fPIC -g");
  SH("aarch64-linux-gnu-readelf -a p.o > listing");
  sh(out, sizeof out, "grep -i -E 'warning|error|corrupt' listing");
  cr_assert_str_eq(out, "");
  SH("aarch64-linux-gnu-gcc -static main.c p.o -o prog -lm");
  cr_assert_eq(sh(out, sizeof out, "qemu-aarch64 ./prog"), 0);
  cr_assert_str_eq(out, expected);
  SH("rm -rf %s", dir);
}

/* ------------------------------------------------------------ refusals ---- */

static tn_status merge_texts(const char *a, const char *b, const char *flags, char *message, size_t n) {
  write_text("a.c", a), write_text("b.c", b);
  SH("%s -O1 %s -c a.c b.c", host_cc(), flags);
  cg_elf_input in[2] = {{.what = "a"}, {.what = "b"}};
  in[0].bytes = read_bytes("a.o", &in[0].size), in[1].bytes = read_bytes("b.o", &in[1].size);
  tn_ctx *ctx = tn_ctx_new(NULL);
  struct merge_args args = {{.ninputs = 2, .inputs = in, .npublic = 1, .publics = publics}, fopen("/dev/null", "wb")};
  tn_status st = ir_protect(ctx, do_merge, &args);
  snprintf(message, n, "%s", ir_error(ctx));
  fclose(args.f);
  tn_ctx_free(ctx);
  free((void *)in[0].bytes), free((void *)in[1].bytes);
  SH("rm -f a.c b.c a.o b.o");
  return st;
}

Test(elf, refuses) {
  folder();
  char e[512];
  cr_assert_eq(merge_texts("int p_run(void) { return 1; }", "int f(void) { return 2; }", "", e, sizeof e), TN_OK, "%s", e);
  cr_assert_eq(merge_texts("int p_run(void) { return 1; }", "int puts(const char *); int f(void) { return puts(\"x\") + 1; }", "", e, sizeof e), TN_EINTERNAL);
  cr_assert_not_null(strstr(e, "'puts'"), "%s", e);
  cr_assert_eq(merge_texts("int p_run(void) { return 1; }", "int p_run(void) { return 2; }", "", e, sizeof e), TN_EINTERNAL);
  cr_assert_not_null(strstr(e, "defined twice"), "%s", e);
  cr_assert_eq(merge_texts("int p_run(void) { return 1; }", "int c[4];", "-fcommon", e, sizeof e), TN_EINTERNAL);
  cr_assert_not_null(strstr(e, "common symbol"), "%s", e);
  cr_assert_eq(merge_texts("int f(void) { return 1; }", "int g;", "", e, sizeof e), TN_EINTERNAL);
  cr_assert_not_null(strstr(e, "p_run"), "%s", e);
  SH("rm -rf %s", dir);
}

/* Cut and flipped bytes give an error or a file, never a crash. */
Test(elf, damaged_input) {
  folder();
  write_text("a.c", a_c);
  SH("%s -O1 -c a.c", host_cc());
  size_t n;
  uint8_t *bytes = read_bytes("a.o", &n);
  uint64_t seed = 12345;
  for (int round = 0; round < 4000; round++) {
    uint8_t *copy = malloc(n);
    memcpy(copy, bytes, n);
    size_t size = n;
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    if (round % 4 == 0) size = (seed >> 33) % n;
    for (int i = 0; i < 1 + round % 3; i++) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      copy[(seed >> 33) % n] ^= (uint8_t)(1u << (seed >> 20) % 8);
    }
    uint8_t *exact = malloc(size ? size : 1); /* so that the sanitizer sees its end */
    memcpy(exact, copy, size);
    tn_ctx *ctx = tn_ctx_new(NULL);
    cg_elf_input in = {.bytes = exact, .size = size, .what = "damaged"};
    struct merge_args args = {{.ninputs = 1, .inputs = &in}, fopen("/dev/null", "wb")};
    ir_protect(ctx, do_merge, &args);
    fclose(args.f);
    tn_ctx_free(ctx);
    free(copy), free(exact);
  }
  free(bytes);
  SH("rm -rf %s", dir);
}
