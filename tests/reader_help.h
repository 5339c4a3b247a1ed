/* reader_help.h — what the tests of the file readers share: running a reader in a context of
 * its own, files in a folder of their own, and all truncations and bit flips of a file. */
#ifndef READER_HELP_H
#define READER_HELP_H
#include "frontend/file.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CORPUS TN_SOURCE_DIR "/tests/corpus/"
#define BYTES(s) (s), sizeof(s) - 1

typedef void reader_fn(tn_ctx *ctx, void *arg);

/* Runs fn in a fresh context; checks its status and that the message (if it fails) contains
 * `part`. */
static inline void expect_status(reader_fn *fn, void *arg, tn_status wanted, const char *part) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_status s = ir_protect(ctx, fn, arg);
  cr_assert_eq(s, wanted, "status %d, wanted %d: %s", s, wanted, tn_error(ctx));
  if (part) cr_assert(strstr(tn_error(ctx), part), "\"%s\" does not mention \"%s\"", tn_error(ctx), part);
  tn_ctx_free(ctx);
}

/* An input in memory, for readers of bytes. */
typedef struct blob {
  const void *data;
  size_t n;
} blob;

static inline blob slurp(const char *path) {
  FILE *f = fopen(path, "rb");
  cr_assert(f, "%s", path);
  char *p = malloc(1 << 16);
  blob b = {p, fread(p, 1, 1 << 16, f)};
  fclose(f);
  return b;
}

/* fn must end with OK, EINPUT or EUNSUPPORTED (and a message) on every prefix of the file
 * and on every flip of one bit. The input is copied exactly, so that a sanitizer sees reads
 * behind it. Returns how many inputs failed. */
static inline int maul(const char *path, reader_fn *fn) {
  blob b = slurp(path);
  int failed = 0;
  for (size_t i = 0; i < b.n + 8 * b.n; i++) {
    size_t n = i < b.n ? i : b.n;
    char *copy = malloc(n ? n : 1);
    memcpy(copy, b.data, n);
    if (i >= b.n) copy[(i - b.n) / 8] ^= (char)(1 << (i - b.n) % 8);
    tn_ctx *ctx = tn_ctx_new(NULL);
    tn_status s = ir_protect(ctx, fn, &(blob){copy, n});
    cr_assert(s == TN_OK || s == TN_EINPUT || s == TN_EUNSUPPORTED || s == TN_ERESOURCE, "%s, case %zu: %s", path, i, tn_error(ctx));
    if (s != TN_OK) cr_assert(*tn_error(ctx));
    failed += s != TN_OK;
    tn_ctx_free(ctx);
    free(copy);
  }
  free((void *)b.data);
  return failed;
}

/* Each allocation fails in turn: always TN_ERESOURCE, never a crash or leak, until all succeed. */
static inline void starve(reader_fn *fn, void *arg) {
  for (long k = 1; k < 10000; k++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    ir_fail_alloc_after(ctx, k);
    tn_status s = ir_protect(ctx, fn, arg);
    if (s != TN_OK) cr_assert_eq(s, TN_ERESOURCE, "allocation %ld: %s", k, tn_error(ctx));
    tn_ctx_free(ctx);
    if (s == TN_OK) return;
  }
  cr_assert_fail("never succeeds");
}

/* A fresh folder under the temporary one; drop_folder removes it with its files. */
static inline char *make_folder(void) {
  const char *t = getenv("TMPDIR");
  static char path[512];
  snprintf(path, sizeof path, "%s/tenon-test-XXXXXX", t && *t ? t : "/tmp");
  cr_assert(mkdtemp(path));
  return path;
}

static inline void drop_folder(const char *path) {
  char command[600];
  snprintf(command, sizeof command, "rm -rf '%s'", path);
  cr_assert_eq(system(command), 0);
}

static inline const char *in_folder(const char *folder, const char *name) {
  static char paths[4][1024];
  static int k;
  char *p = paths[k++ % 4];
  snprintf(p, sizeof paths[0], "%s/%s", folder, name);
  return p;
}

static inline void write_bytes(const char *path, const void *data, size_t n) {
  FILE *f = fopen(path, "wb");
  cr_assert(f, "%s", path);
  cr_assert_eq(fwrite(data, 1, n, f), n);
  fclose(f);
}
#endif
