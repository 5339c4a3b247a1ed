/* serve.h — what the C programs of the benchmark share: they stay alive, read commands, answer JSON.
 *
 *   stdin   one command a line, words separated by tabs
 *   stdout  one JSON object a line: {"ok": true, ...} or {"ok": false, "error": "..."}
 *
 *   load ID KIND ...     makes a case ready; the words depend on KIND
 *   run ID SECONDS       runs it for so long: {"min", "median" (seconds per run), "runs"}
 *   save ID DIR          writes its outputs to DIR/out_K.bin
 *   drop ID
 *   quit
 *
 * Tensors travel as raw little-endian files, dense and row-major. What libraries print goes to
 * standard error: the answers have a descriptor of their own.
 */
#ifndef BENCH_SERVE_H
#define BENCH_SERVE_H
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SERVE_WORDS = 32, SERVE_SAMPLES = 1 << 16 };

static FILE *serve_out;

static double serve_now(void) { /* seconds */
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- answers ---- */

static void serve_quoted(const char *s) {
  fputc('"', serve_out);
  for (; *s; s++) {
    if (*s == '"' || *s == '\\') fprintf(serve_out, "\\%c", *s);
    else if ((unsigned char)*s < 32) fprintf(serve_out, "\\u%04x", (unsigned char)*s);
    else fputc(*s, serve_out);
  }
  fputc('"', serve_out);
}

static void serve_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void serve_error(const char *format, ...) {
  char text[2000];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  fputs("{\"ok\": false, \"error\": ", serve_out);
  serve_quoted(text);
  fputs("}\n", serve_out);
  fflush(serve_out);
}

/* `members`: text such as "\"a\": 1", or null. */
static void serve_ok(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void serve_ok(const char *format, ...) {
  va_list args;
  va_start(args, format);
  fputs("{\"ok\": true", serve_out);
  if (*format) fputs(", ", serve_out);
  vfprintf(serve_out, format, args);
  fputs("}\n", serve_out);
  va_end(args);
  fflush(serve_out);
}

/* ---- files ---- */

/* `bytes` of a file into memory aligned to 64 bytes; null when it is missing or of another size. */
static inline void *serve_read(const char *dir, const char *name, size_t bytes) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", dir, name);
  void *p = NULL;
  FILE *f = fopen(path, "rb");
  if (f && (p = aligned_alloc(64, (bytes + 127) / 64 * 64)) && (fread(p, 1, bytes, f) != bytes || fgetc(f) != EOF)) {
    free(p);
    p = NULL;
  }
  if (f) fclose(f);
  return p;
}

static inline bool serve_write(const char *dir, int k, const void *data, size_t bytes) {
  char path[4096];
  snprintf(path, sizeof path, "%s/out_%d.bin", dir, k);
  FILE *f = fopen(path, "wb");
  if (!f) return false;
  bool ok = fwrite(data, 1, bytes, f) == bytes;
  return fclose(f) == 0 && ok;
}

/* ---- timing ---- */

static int serve_order(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

/* Calls fn(arg) for `seconds`, at least three times after a warm one; fn does `batch` runs and returns
 * whether they went well. Times of single runs go to s (room for SERVE_SAMPLES), sorted; returns how many,
 * -1 when a run failed. */
static inline int serve_times(bool (*fn)(void *arg), void *arg, double seconds, int batch, double *s) {
  int n = 0;
  bool ok = fn(arg);
  double begin = serve_now(), now = begin;
  while (ok && (n < 3 || now - begin < seconds) && n < SERVE_SAMPLES) {
    double start = serve_now();
    ok = fn(arg);
    now = serve_now();
    s[n++] = (now - start) / batch;
  }
  qsort(s, (size_t)n, sizeof *s, serve_order);
  return ok ? n : -1;
}

/* The same as an answer; `overhead` seconds of each run do not count. */
static inline void serve_measure(bool (*fn)(void *arg), void *arg, double seconds, int batch, double overhead) {
  static double s[SERVE_SAMPLES];
  int n = serve_times(fn, arg, seconds, batch, s);
  if (n < 0) serve_error("the run failed");
  else serve_ok("\"min\": %.9g, \"median\": %.9g, \"runs\": %d", s[0] - overhead, (s[n / 2] + s[(n - 1) / 2]) / 2 - overhead, n * batch);
}

/* ---- the loop ---- */

/* Convolution words "n1c64h56w56k64r3s3u1p1": n c h w k r s u (stride) p (padding) d (dilation) g (groups). */
typedef struct serve_conv {
  int64_t n, c, h, w, k, r, s, u, p, d, g, oh, ow;
} serve_conv;

static inline bool serve_parse_conv(const char *text, serve_conv *v) {
  *v = (serve_conv){.n = 1, .r = 1, .s = 1, .u = 1, .d = 1, .g = 1};
  while (*text) {
    char letter = *text++, *end;
    int64_t x = strtoll(text, &end, 10);
    if (end == text) return false;
    text = end;
    switch (letter) {
    case 'n': v->n = x; break;
    case 'c': v->c = x; break;
    case 'h': v->h = x; break;
    case 'w': v->w = x; break;
    case 'k': v->k = x; break;
    case 'r': v->r = x; break;
    case 's': v->s = x; break;
    case 'u': v->u = x; break;
    case 'p': v->p = x; break;
    case 'd': v->d = x; break;
    case 'g': v->g = x; break;
    default: return false;
    }
  }
  if (v->n < 1 || v->c < 1 || v->h < 1 || v->w < 1 || v->k < 1 || v->r < 1 || v->s < 1 || v->u < 1 || v->d < 1 || v->g < 1 || v->p < 0) return false;
  v->oh = (v->h + 2 * v->p - (v->r - 1) * v->d - 1) / v->u + 1;
  v->ow = (v->w + 2 * v->p - (v->s - 1) * v->d - 1) / v->u + 1;
  return v->oh > 0 && v->ow > 0;
}

/* Reads commands until "quit" or the end; `handle` answers each. */
static void serve(void (*handle)(int n, char **word)) {
  char *line = NULL;
  size_t room = 0;
  fflush(stdout);
  serve_out = fdopen(dup(1), "w");
  dup2(2, 1);
  if (!serve_out) exit(1);
  serve_ok("\"ready\": true");
  while (getline(&line, &room, stdin) > 0) {
    char *word[SERVE_WORDS] = {0};
    int n = 0;
    line[strcspn(line, "\n")] = 0;
    for (char *p = line; n < SERVE_WORDS; p++) {
      word[n++] = p;
      p += strcspn(p, "\t");
      if (!*p) break;
      *p = 0;
    }
    if (strcmp(word[0], "quit") == 0) break;
    handle(n, word);
  }
  free(line);
}
#endif
