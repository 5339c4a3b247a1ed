/* Helpers of the store's tests: a folder and a context per test, trials to put in. */
#ifndef TESTS_STORE_HELP_H
#define TESTS_STORE_HELP_H
#include "autotune/store_internal.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/tmp/tenon-store-XXXXXX";
static tn_ctx *ctx;
static char said[8192]; /* what was logged */

static inline void hear(void *user, const char *line) {
  (void)user;
  size_t n = strlen(said);
  snprintf(said + n, sizeof said - n, "%s\n", line);
}

static inline void start(void) {
  cr_assert(mkdtemp(dir));
  unsetenv("TENON_DB");
  unsetenv("TENON_DB_SHARED");
  tn_config config = {.log = hear};
  ctx = tn_ctx_new(&config);
}

static inline void stop(void) {
  tn_ctx_free(ctx);
  char command[64];
  snprintf(command, sizeof command, "rm -rf %s", dir);
  if (system(command)) perror(command);
}

static inline const char *at(const char *name) { return ir_format(ctx, "%s/%s", dir, name); }

/* Runs a body inside ir_protect; the body is the code that may throw. */
static inline void run_body(tn_ctx *c, void *arg) {
  (void)c;
  (*(void (**)(void))arg)();
}
static inline tn_status protect(void (*body)(void)) { return ir_protect(ctx, run_body, &body); }
#define OK(body) cr_assert_eq(protect(body), TN_OK, "%s", ir_error(ctx))

static inline at_trial trial(const char *kernel, const char *schedule, double ns) {
  static double samples[64][3];
  static int next;
  double *s = samples[next++ % 64];
  for (int i = 0; i < 3; i++) s[i] = ns + i;
  return (at_trial){.key = {kernel, "cpu", "warm", "cg1"}, .klass = "gemm", .name = kernel, .schedule = schedule,
                    .samples = s, .n = 3, .origin = "model"};
}

static inline at_trial failure(const char *kernel, const char *schedule, at_status status, const char *reason) {
  at_trial t = trial(kernel, schedule, 1);
  t.status = status;
  t.reason = reason;
  t.n = 0;
  return t;
}

static inline at_key key(const char *kernel) { return (at_key){kernel, "cpu", "warm", "cg1"}; }

static inline const char *best(at_store *s, const char *kernel) {
  at_key k = key(kernel);
  at_winner w;
  return at_store_best(s, &k, &w) ? w.schedule : "(none)";
}

static inline int64_t count(at_store *s, const char *sql) { return at_db_int(at_store_main(s), sql, -1); }

/* Everything in a store as text. */
static inline const char *export_text(at_store *s) {
  char *text = NULL;
  size_t n = 0;
  FILE *f = open_memstream(&text, &n);
  at_store_export(s, f);
  fclose(f);
  char *copy = ir_strdup(ctx, text);
  free(text);
  return copy;
}

static inline void same_text(const char *is, const char *must) { cr_assert_str_eq(is, must); }

static inline bool add_up(void *user, const at_record *r) {
  *(double *)user += r->n ? r->samples[r->n - 1] : 0;
  cr_assert(r->kernel[0] && strlen(r->uid) == AT_UID && strlen(r->run) == AT_UID && strlen(r->workload) == AT_UID);
  return true;
}

/* Two trials, one of them a failure, for each i; the texts need every kind of escape. */
static inline const char *odd_kernel(int i) { return ir_format(ctx, "kernel \"%d\"\n\tloop \\ \xc3\xa4", i % 7); }
static inline void fill(at_store *s, int from, int to) {
  for (int i = from; i < to; i++) {
    const char *kernel = odd_kernel(i);
    at_trial t[] = {trial(kernel, ir_format(ctx, "tile %d", i), 100 + i),
                    failure(kernel, ir_format(ctx, "tile %d", i + 1000), AT_COMPILE_ERROR, "a \"quote\"\x01")};
    at_store_add_trials(s, NULL, t, 2);
  }
}
#endif
