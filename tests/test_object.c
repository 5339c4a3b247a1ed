/* Objects: the sample program written as model.o and model.h in every way, then compiled into
 * programs that know nothing of Tenon, and run. What the programs check is in aot/driver.c. */
#include "aot/sample.h"
#include "aot/shell.h"
#include "frontend/file.h"
#include "runtime/module.h"

static float w[INNER * COLS], b[COLS];

static void fill(uint32_t seed) {
  sample_fill(w, INNER * COLS, SEED_W + seed);
  sample_fill(b, COLS, SEED_B + seed);
}

struct write_args {
  const char *prefix, *cpu, *triple;
  cg_weights_mode mode;
  int jobs;
};

static void do_write(tn_ctx *ctx, void *arg) {
  const struct write_args *a = arg;
  rt_object_options o = {.jobs = a->jobs};
  o.files = (cg_object_options){.path = ir_format(ctx, "%s/%s.o", dir, a->prefix), .header = ir_format(ctx, "%s/%s.gen.h", dir, a->prefix),
                                .prefix = a->prefix, .weights = a->mode};
  if (a->cpu || a->triple) o.target = cg_target_find(ctx, a->cpu, a->triple);
  rt_write_object(ctx, sample_program(ctx, w, b), &o);
}

static void write_sample(struct write_args a) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  cr_assert_eq(ir_protect(ctx, do_write, &a), TN_OK, "%s", ir_error(ctx));
  tn_ctx_free(ctx);
}

#define DRIVER TN_SOURCE_DIR "/tests/aot/driver.c"
#define FLAGS "-std=c11 -Wall -Wextra -Werror -I. -I" TN_SOURCE_DIR "/tests/aot"

static void only_allowed_symbols(const char *object, const char *publics) {
  char out[8192];
  sh(out, sizeof out, "nm -u %s | awk '{print $2}' | grep -v -x -E 'memcpy|memset|memmove'", object);
  cr_assert_str_eq(out, "");
  sh(out, sizeof out, "nm -g --defined-only %s | awk '{print $3}' | sort | tr '\\n' ' '", object);
  cr_assert_str_eq(out, publics);
  sh(out, sizeof out, "readelf -a -W %s | grep -i -E 'warning|error'", object);
  cr_assert_str_eq(out, "");
  sh(out, sizeof out, "readelf -SW %s | grep -E ' (WA|AW|WAX) '", object); /* no writable data */
  cr_assert_str_eq(out, "");
}

static void runs(cg_weights_mode mode, const char *publics) {
  folder();
  fill(0);
  write_sample((struct write_args){.prefix = "sample", .mode = mode, .jobs = mode == CG_WEIGHTS_FILE ? 2 : 1});
  only_allowed_symbols("sample.o", publics);
  SH("%s %s -O1 %s sample.o -o plain -lm -lpthread && ./plain", host_cc(), FLAGS, DRIVER);
  SH("%s %s -O1 -static %s sample.o -o static -lm -lpthread && ./static", host_cc(), FLAGS, DRIVER);
  SH("%s %s -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all %s sample.o -o clean -lm -lpthread && ./clean", host_cc(), FLAGS, DRIVER);
  SH("%s -shared -Wl,-z,text -Wl,--no-undefined sample.o -o libsample.so -lm && %s %s %s -L. -lsample -Wl,-rpath,. -o shared -lm -lpthread && ./shared",
     host_cc(), host_cc(), FLAGS, DRIVER);
  SH("echo '#include \"sample.gen.h\"' > h.c && cp h.c h.cc && %s -std=c99 -pedantic -Wall -Wextra -Werror -c h.c && %s -std=c++98 -Wno-long-long -Wall -Wextra -Werror -c h.cc",
     host_cc(), host_cxx());
  SH("rm -rf %s", dir);
}

Test(object, embedded) { runs(CG_WEIGHTS_EMBED, "sample_init sample_run"); }
Test(object, beside) { runs(CG_WEIGHTS_FILE, "sample_init sample_run"); }
Test(object, from_pointers) { runs(CG_WEIGHTS_POINTER, "sample_init sample_pack sample_run"); }

Test(object, two_models_in_cpp) {
  folder();
  fill(0);
  write_sample((struct write_args){.prefix = "one"});
  fill(100);
  write_sample((struct write_args){.prefix = "other"});
  SH("%s -std=c++17 -Wall -Wextra -Werror -I. -I%s/tests/aot %s/tests/aot/two.cc one.o other.o -o two -lm && ./two", host_cxx(),
     TN_SOURCE_DIR, TN_SOURCE_DIR);
  SH("rm -rf %s", dir);
}

Test(object, same_bytes_twice) { /* and with two compiling threads */
  folder();
  fill(0);
  write_sample((struct write_args){.prefix = "sample", .jobs = 1});
  SH("mv sample.o first.o");
  write_sample((struct write_args){.prefix = "sample", .jobs = 2});
  SH("cmp first.o sample.o");
  SH("rm -rf %s", dir);
}

static void compare_weights(tn_ctx *ctx, void *arg) {
  const ir_program *p = sample_program(ctx, w, b);
  const fe_map *file = fe_map_file(ctx, ir_format(ctx, "%s/sample.weights", dir));
  const void *blob = rt_pack_weights(ctx, p, NULL, 1);
  (void)arg;
  cr_assert_eq(file->size, cg_blob_bytes(p));
  cr_assert_eq(memcmp(file->data, blob, file->size), 0);
}

Test(object, packed_into_the_file) { /* as in memory */
  folder();
  fill(0);
  write_sample((struct write_args){.prefix = "sample", .mode = CG_WEIGHTS_FILE, .jobs = 2});
  tn_ctx *ctx = tn_ctx_new(NULL);
  cr_assert_eq(ir_protect(ctx, compare_weights, NULL), TN_OK, "%s", ir_error(ctx));
  tn_ctx_free(ctx);
  SH("rm -rf %s", dir);
}

/* A CPU without the instructions gets the error code, from code that itself needs none of them. */
Test(object, refuses_old_cpu) {
  if (!have("qemu-x86_64")) cr_skip_test("no qemu-x86_64");
  folder();
  fill(0);
  write_sample((struct write_args){.prefix = "sample", .cpu = "x86-64-v4", .triple = "x86_64-unknown-linux-gnu"});
  SH("%s %s -DEXPECT_ISA_ERROR -O1 -static %s sample.o -o isa -lm -lpthread && qemu-x86_64 -cpu Nehalem ./isa && qemu-x86_64 -cpu Haswell ./isa",
     host_cc(), FLAGS, DRIVER);
  write_sample((struct write_args){.prefix = "sample", .cpu = "x86-64-v2", .triple = "x86_64-unknown-linux-gnu"});
  SH("%s %s -O1 -static %s sample.o -o isa -lm -lpthread && qemu-x86_64 -cpu Nehalem ./isa", host_cc(), FLAGS, DRIVER);
  SH("rm -rf %s", dir);
}

Test(object, aarch64) {
  if (!have("aarch64-linux-gnu-gcc") || !have("qemu-aarch64")) cr_skip_test("no AArch64 cross compiler or qemu-aarch64");
  static const struct { cg_weights_mode mode; const char *publics; } ways[] = {
      {CG_WEIGHTS_EMBED, "sample_init sample_run"}, {CG_WEIGHTS_POINTER, "sample_init sample_pack sample_run"}};
  fill(0);
  for (int i = 0; i < 2; i++) {
    folder();
    write_sample((struct write_args){.prefix = "sample", .mode = ways[i].mode, .triple = "aarch64-unknown-linux-gnu"});
    only_allowed_symbols("sample.o", ways[i].publics);
    SH("aarch64-linux-gnu-gcc %s -O1 -ffp-contract=off -static %s sample.o -o arm -lm -lpthread && qemu-aarch64 ./arm", FLAGS, DRIVER);
    SH("rm -rf %s", dir);
  }
}

static tn_status refused(struct write_args a, char *message, size_t n) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_status st = ir_protect(ctx, do_write, &a);
  snprintf(message, n, "%s", ir_error(ctx));
  tn_ctx_free(ctx);
  return st;
}

Test(object, bad_prefixes_and_paths) {
  char e[512];
  strcpy(dir, "/tmp");
  static const char *const bad[] = {"", "1x", "a-b", "a b", "a.b", "\xc3\xa9", "a\"", NULL};
  for (int i = 0; bad[i]; i++) {
    cr_assert_eq(refused((struct write_args){.prefix = bad[i]}, e, sizeof e), TN_EUSAGE, "%s", bad[i]);
    cr_assert_not_null(strstr(e, "C identifier"), "%s", e);
  }
  strcpy(dir, "/nonexistent");
  cr_assert_eq(refused((struct write_args){.prefix = "p"}, e, sizeof e), TN_ERESOURCE);
  cr_assert_not_null(strstr(e, "/nonexistent"), "%s", e);
}
