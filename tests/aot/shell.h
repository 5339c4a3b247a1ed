/* shell.h — tests that compile and run programs: a folder, shell commands in it, files in it. */
#ifndef TESTS_AOT_SHELL_H
#define TESTS_AOT_SHELL_H
#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[64];

static inline void folder(void) {
  strcpy(dir, "/tmp/tenon_aot_XXXXXX");
  cr_assert_not_null(mkdtemp(dir));
}

/* Runs a shell command inside the folder; returns its exit status, the output in out. */
__attribute__((format(printf, 3, 4))) static inline int sh(char *out, size_t n, const char *fmt, ...) {
  char cmd[4096], full[4352];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(cmd, sizeof cmd, fmt, ap);
  va_end(ap);
  snprintf(full, sizeof full, "cd %s && { %s ; } 2>&1", dir, cmd);
  FILE *p = popen(full, "r");
  cr_assert_not_null(p);
  size_t got = 0;
  int c;
  while ((c = fgetc(p)) != EOF)
    if (got + 1 < n) out[got++] = (char)c;
  out[got] = 0;
  while (got && (out[got - 1] == '\n' || out[got - 1] == ' ')) out[--got] = 0;
  return pclose(p);
}
#define SH(...)                                                     \
  do {                                                              \
    char text_[8192];                                               \
    int rc_ = sh(text_, sizeof text_, __VA_ARGS__);                 \
    cr_assert(rc_ == 0, "status %d: %s", rc_, text_);               \
  } while (0)

static inline const char *in_folder(const char *name) {
  static char path[4][160];
  static int k;
  k = (k + 1) % 4;
  snprintf(path[k], sizeof path[k], "%s/%s", dir, name);
  return path[k];
}

static inline void write_text(const char *name, const char *text) {
  FILE *f = fopen(in_folder(name), "w");
  cr_assert_not_null(f);
  fputs(text, f);
  fclose(f);
}

static inline void *read_bytes(const char *name, size_t *n) {
  FILE *f = fopen(in_folder(name), "rb");
  cr_assert_not_null(f, "%s", name);
  fseek(f, 0, SEEK_END);
  *n = (size_t)ftell(f);
  rewind(f);
  void *p = malloc(*n ? *n : 1);
  cr_assert_eq(fread(p, 1, *n, f), *n);
  fclose(f);
  return p;
}

static inline const char *host_cc(void) { return getenv("CC") && *getenv("CC") ? getenv("CC") : "cc"; }
static inline const char *host_cxx(void) { return getenv("CXX") && *getenv("CXX") ? getenv("CXX") : "c++"; }
static inline bool have(const char *program) {
  char cmd[128];
  snprintf(cmd, sizeof cmd, "command -v %s >/dev/null 2>&1", program);
  return system(cmd) == 0;
}
#endif
