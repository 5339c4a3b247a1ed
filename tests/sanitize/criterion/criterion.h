/* criterion.h — stands in for Criterion in builds with sanitizers.
 *
 * Criterion's worker processes do not survive ThreadSanitizer, and it does not look at what a
 * worker says on its way out, so that leaks pass. Here each test is a forked child that must exit
 * with 0, after the sanitizer's own checks at exit. Only what the tests of Tenon use is there.
 *
 *   test_NAME [--filter SUITE/CASE] [-jN]     patterns with * and ?; N is ignored
 */
#ifndef TESTS_SANITIZE_CRITERION_H
#define TESTS_SANITIZE_CRITERION_H
#include <fnmatch.h>
#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct tnt_options {
  void (*init)(void), (*fini)(void);
  double timeout; /* seconds; 0: 900 */
  int signal, exit_code;
  bool disabled;
  const char *description;
} tnt_options;

typedef struct tnt_test {
  const char *suite, *name;
  void (*fn)(void);
  const tnt_options *options;
  struct tnt_test *next;
} tnt_test;

static tnt_test *tnt_tests, **tnt_end = &tnt_tests, *tnt_suites;
static int tnt_failures;
enum { TNT_SKIPPED = 77 };

#define Test(SUITE, NAME, ...)                                                         \
  static void tnt_fn_##SUITE##_##NAME(void);                                           \
  __attribute__((constructor)) static void tnt_add_##SUITE##_##NAME(void) {            \
    static const tnt_options options = {.description = 0, ##__VA_ARGS__};              \
    static tnt_test test = {#SUITE, #NAME, tnt_fn_##SUITE##_##NAME, &options, NULL};   \
    *tnt_end = &test;                                                                  \
    tnt_end = &test.next;                                                              \
  }                                                                                    \
  static void tnt_fn_##SUITE##_##NAME(void)

#define TestSuite(SUITE, ...)                                               \
  __attribute__((constructor)) static void tnt_suite_##SUITE(void) {        \
    static const tnt_options options = {.description = 0, ##__VA_ARGS__};   \
    static tnt_test suite = {#SUITE, NULL, NULL, &options, NULL};           \
    suite.next = tnt_suites;                                                \
    tnt_suites = &suite;                                                    \
  }                                                                         \
  struct tnt_suite_##SUITE##_semicolon

#define TNT_CHECK(FATAL, COND, ...)                                             \
  do {                                                                          \
    if (!(COND)) {                                                              \
      fprintf(stderr, "%s:%d: failed: %s: ", __FILE__, __LINE__, #COND);        \
      fprintf(stderr, "" __VA_ARGS__);                                          \
      fputc('\n', stderr);                                                      \
      if (FATAL) _exit(1);                                                      \
      tnt_failures++;                                                           \
    }                                                                           \
  } while (0)

#define cr_assert(C, ...) TNT_CHECK(1, C, ##__VA_ARGS__)
#define cr_assert_not(C, ...) TNT_CHECK(1, !(C), ##__VA_ARGS__)
#define cr_assert_eq(A, B, ...) TNT_CHECK(1, (A) == (B), ##__VA_ARGS__)
#define cr_assert_neq(A, B, ...) TNT_CHECK(1, (A) != (B), ##__VA_ARGS__)
#define cr_assert_lt(A, B, ...) TNT_CHECK(1, (A) < (B), ##__VA_ARGS__)
#define cr_assert_leq(A, B, ...) TNT_CHECK(1, (A) <= (B), ##__VA_ARGS__)
#define cr_assert_gt(A, B, ...) TNT_CHECK(1, (A) > (B), ##__VA_ARGS__)
#define cr_assert_geq(A, B, ...) TNT_CHECK(1, (A) >= (B), ##__VA_ARGS__)
#define cr_assert_null(A, ...) TNT_CHECK(1, (A) == NULL, ##__VA_ARGS__)
#define cr_assert_not_null(A, ...) TNT_CHECK(1, (A) != NULL, ##__VA_ARGS__)
#define cr_assert_str_eq(A, B, ...) TNT_CHECK(1, strcmp(A, B) == 0, ##__VA_ARGS__)
#define cr_assert_str_neq(A, B, ...) TNT_CHECK(1, strcmp(A, B) != 0, ##__VA_ARGS__)
#define cr_assert_arr_eq(A, B, N, ...) TNT_CHECK(1, memcmp(A, B, N) == 0, ##__VA_ARGS__)
#define cr_assert_float_eq(A, B, E, ...) TNT_CHECK(1, fabs((double)(A) - (double)(B)) <= (E), ##__VA_ARGS__)
#define cr_assert_fail(...) TNT_CHECK(1, !"reached", ##__VA_ARGS__)
#define cr_expect(C, ...) TNT_CHECK(0, C, ##__VA_ARGS__)
#define cr_expect_eq(A, B, ...) TNT_CHECK(0, (A) == (B), ##__VA_ARGS__)
#define cr_expect_neq(A, B, ...) TNT_CHECK(0, (A) != (B), ##__VA_ARGS__)
#define cr_expect_lt(A, B, ...) TNT_CHECK(0, (A) < (B), ##__VA_ARGS__)
#define cr_expect_leq(A, B, ...) TNT_CHECK(0, (A) <= (B), ##__VA_ARGS__)
#define cr_expect_gt(A, B, ...) TNT_CHECK(0, (A) > (B), ##__VA_ARGS__)
#define cr_expect_geq(A, B, ...) TNT_CHECK(0, (A) >= (B), ##__VA_ARGS__)
#define cr_expect_null(A, ...) TNT_CHECK(0, (A) == NULL, ##__VA_ARGS__)
#define cr_expect_not_null(A, ...) TNT_CHECK(0, (A) != NULL, ##__VA_ARGS__)
#define cr_expect_str_eq(A, B, ...) TNT_CHECK(0, strcmp(A, B) == 0, ##__VA_ARGS__)
#define cr_expect_float_eq(A, B, E, ...) TNT_CHECK(0, fabs((double)(A) - (double)(B)) <= (E), ##__VA_ARGS__)
#define cr_skip_test(...) (fprintf(stderr, "" __VA_ARGS__), fputc('\n', stderr), _exit(TNT_SKIPPED))
#define cr_skip cr_skip_test

static void tnt_call(void (*fn)(void)) {
  if (fn) fn();
}

static int tnt_run(const tnt_test *t) { /* of a child: status as of wait */
  const tnt_options *suite = NULL;
  for (const tnt_test *s = tnt_suites; s; s = s->next)
    if (strcmp(s->suite, t->suite) == 0) suite = s->options;
  fflush(NULL);
  pid_t pid = fork();
  if (pid == 0) {
    double seconds = t->options->timeout > 0 ? t->options->timeout : suite && suite->timeout > 0 ? suite->timeout : 90;
    alarm((unsigned)(10 * seconds)); /* sanitizers are slow */
    if (suite) tnt_call(suite->init);
    tnt_call(t->options->init);
    t->fn();
    tnt_call(t->options->fini);
    if (suite) tnt_call(suite->fini);
    exit(tnt_failures ? 1 : 0);
  }
  int status = -1;
  if (pid < 0 || waitpid(pid, &status, 0) != pid) perror("fork"), exit(70);
  return status;
}

int main(int argc, char **argv) {
  const char *filter = "*";
  for (int i = 1; i < argc; i++)
    if (strcmp(argv[i], "--filter") == 0 && i + 1 < argc) filter = argv[++i];
  int tested = 0, failing = 0, crashing = 0;
  for (const tnt_test *t = tnt_tests; t; t = t->next) {
    char name[256];
    snprintf(name, sizeof name, "%s/%s", t->suite, t->name);
    if (t->options->disabled || fnmatch(filter, name, 0) != 0) continue;
    int status = tnt_run(t);
    if (WIFEXITED(status) && WEXITSTATUS(status) == TNT_SKIPPED) continue;
    tested++;
    bool signalled = WIFSIGNALED(status);
    if (t->options->signal ? signalled && WTERMSIG(status) == t->options->signal : !signalled && WEXITSTATUS(status) == t->options->exit_code) continue;
    failing++;
    crashing += signalled;
    fprintf(stderr, "[FAIL] %s: %s %d\n", name, signalled ? "signal" : "exit status", signalled ? WTERMSIG(status) : WEXITSTATUS(status));
  }
  fprintf(stderr, "[====] Synthesis: Tested: %d | Passing: %d | Failing: %d | Crashing: %d\n", tested, tested - failing, failing, crashing);
  return failing != 0;
}
#endif
