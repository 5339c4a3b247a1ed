/* fuzz_limit.h — a context for fuzz targets with a limit on the memory it may take.
 *
 * The readers promise memory within a small multiple of the input. With the limit set to that
 * multiple, running out of memory in a reader is a fault like a crash.
 */
#ifndef FUZZ_LIMIT_H
#define FUZZ_LIMIT_H
#include "ir/ctx.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct fuzz_limit {
  size_t used, limit; /* bytes */
} fuzz_limit;

static void *fuzz_alloc(void *user, size_t bytes, void *old) {
  fuzz_limit *l = user;
  char *head = old ? (char *)old - 16 : NULL; /* 16 bytes before each block keep its size */
  size_t before = 0;
  if (head) memcpy(&before, head, sizeof before);
  if (bytes == 0) {
    l->used -= before;
    free(head);
    return NULL;
  }
  if (bytes > l->limit || l->used - before > l->limit - bytes) return NULL;
  head = realloc(head, bytes + 16);
  if (!head) return NULL;
  memcpy(head, &bytes, sizeof bytes);
  l->used += bytes - before;
  return head + 16;
}

/* Runs fn(ctx, arg) in a context of its own that may take `limit` bytes. Aborts when the
 * context leaks, when the status is none of `allowed` (a mask of 1 << status), or when an
 * error has no message. */
static void fuzz_run(size_t limit, void (*fn)(tn_ctx *ctx, void *arg), void *arg, unsigned long long allowed) {
  fuzz_limit l = {0, limit};
  tn_config config = {.user = &l, .alloc = fuzz_alloc};
  tn_ctx *ctx = tn_ctx_new(&config);
  if (!ctx) abort();
  tn_status status = ir_protect(ctx, fn, arg);
  if (status > 60 || !(allowed >> status & 1) || (status != TN_OK && !*tn_error(ctx))) {
    fprintf(stderr, "status %d: %s\n", status, tn_error(ctx));
    abort();
  }
  tn_ctx_free(ctx);
  if (l.used) abort();
}

/* Reads every byte, so that a sanitizer sees a wrong pointer or length. */
static void fuzz_touch(const void *p, size_t n) {
  static volatile unsigned char sink;
  const unsigned char *s = p;
  unsigned char x = 0;
  for (size_t i = 0; i < n; i++) x ^= s[i];
  sink = x;
  (void)sink;
}

static inline void fuzz_touch_str(const char *s) { fuzz_touch(s, strlen(s)); }
#endif
