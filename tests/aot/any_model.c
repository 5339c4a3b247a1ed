/* any_model.c — runs the object of any model in every way that the interface allows and
 * compares the bits: serial and threaded, tasks in any order, arenas poisoned with different bytes,
 * two threads at once. Knows the model by its header only (prefix m).
 *
 *   cc any_model.c m.o -I. -lm -lpthread && ./a.out [weights file]
 *
 * Prints one line: the number of runs, the time of the last serial one, a checksum of the outputs. */
#include "m.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if M_NUM_INPUTS > 0
static const char *const in_types[] = M_INPUT_DTYPES;
static const size_t in_bytes[] = M_INPUT_BYTES;
#else
static const char *const in_types[] = {""};
static const size_t in_bytes[] = {0};
#endif
static const size_t out_bytes[] = M_OUTPUT_BYTES;
static const void *in[M_NUM_INPUTS + 1];
static const void *weights;
static void *want[M_NUM_OUTPUTS];
static int runs;
static double seconds;

static void stop(const char *what) {
  fprintf(stderr, "%s\n", what);
  exit(1);
}

static void *memory(size_t bytes) {
  void *p = aligned_alloc(M_ALIGN, (bytes / M_ALIGN + 1) * M_ALIGN);
  if (!p) stop("out of memory");
  return p;
}

/* Floats in [-1, 1), integers and booleans 0 or 1; floats smaller than f32 stay zero. */
static void fill(void *p, const char *type, size_t bytes, unsigned seed) {
  memset(p, 0, bytes);
  size_t size = strcmp(type, "f32") == 0 || strcmp(type, "i32") == 0 || strcmp(type, "u32") == 0   ? 4
                : strcmp(type, "f64") == 0 || strcmp(type, "i64") == 0 || strcmp(type, "u64") == 0 ? 8
                : strcmp(type, "i16") == 0 || strcmp(type, "u16") == 0                             ? 2
                                                                                                   : 1;
  for (size_t i = 0; i < bytes / size; i++) {
    seed = seed * 1664525u + 1013904223u;
    double v = (double)(int)seed / 2147483648.0;
    if (strcmp(type, "f32") == 0) ((float *)p)[i] = (float)v;
    else if (strcmp(type, "f64") == 0) ((double *)p)[i] = v;
    else if (type[0] != 'f' && strcmp(type, "bf16") != 0) ((char *)p)[i * size] = v > 0;
  }
}

typedef struct order {
  int kind, workers;
} order;

static void any_order(void *ctx, int tasks, void (*body)(void *arg, int task, int worker), void *arg) {
  const order *o = (const order *)ctx;
  for (int i = 0; i < tasks; i++) body(arg, o->kind ? tasks - 1 - i : i, (i * 7 + 3) % o->workers);
}

typedef struct share {
  void (*body)(void *arg, int task, int worker);
  void *arg;
  int tasks, workers, worker;
} share;

static void *share_main(void *p) {
  const share *s = (const share *)p;
  for (int t = s->worker; t < s->tasks; t += s->workers) s->body(s->arg, t, s->worker);
  return NULL;
}

static void real_threads(void *ctx, int tasks, void (*body)(void *arg, int task, int worker), void *arg) {
  int workers = *(const int *)ctx;
  pthread_t t[8];
  share s[8];
  for (int i = 0; i < workers; i++) {
    s[i].body = body, s[i].arg = arg, s[i].tasks = tasks, s[i].workers = workers, s[i].worker = i;
    if (pthread_create(&t[i], NULL, share_main, &s[i]) != 0) stop("no thread");
  }
  for (int i = 0; i < workers; i++) pthread_join(t[i], NULL);
}

/* One run into fresh memory; the outputs must be those of the first run. */
static void run(const m_threads *threads, int poison) {
  size_t n = M_ARENA_BYTES(threads ? threads->workers : 1);
  void *arena = memory(n), *state = memory(M_STATE_BYTES), *out[M_NUM_OUTPUTS];
  memset(arena, poison, n);
  memset(state, 0, M_STATE_BYTES);
  for (int i = 0; i < M_NUM_OUTPUTS; i++) memset(out[i] = memory(out_bytes[i]), poison, out_bytes[i]);
  struct timespec a, b;
  clock_gettime(CLOCK_MONOTONIC, &a);
  int code = m_run(in, out, NULL, NULL, weights, state, arena, threads);
  clock_gettime(CLOCK_MONOTONIC, &b);
  if (!threads) seconds = (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
  if (code != M_OK) {
    fprintf(stderr, "m_run returned %d\n", code);
    exit(1);
  }
  for (int i = 0; i < M_NUM_OUTPUTS; i++) {
    if (!want[i]) {
      want[i] = out[i];
      continue;
    }
    if (memcmp(out[i], want[i], out_bytes[i]) != 0) {
      fprintf(stderr, "output %d differs: arena poisoned with %d, %d workers\n", i, poison, threads ? threads->workers : 0);
      exit(1);
    }
    free(out[i]);
  }
  free(arena), free(state);
  __atomic_fetch_add(&runs, 1, __ATOMIC_RELAXED);
}

static void *another(void *arg) {
  for (int i = 0; i < 2; i++) run((const m_threads *)arg, 0x40 + i);
  return NULL;
}

int main(int argc, char **argv) {
  for (int i = 0; i < M_NUM_INPUTS; i++) {
    void *p = memory(in_bytes[i]);
    fill(p, in_types[i], in_bytes[i], 12345u + (unsigned)i);
    in[i] = p;
  }
  if (!M_WEIGHTS_EMBEDDED && M_WEIGHTS_BYTES > 0) {
    FILE *f = argc > 1 ? fopen(argv[1], "rb") : NULL;
    void *p = memory(M_WEIGHTS_BYTES);
    if (!f || fread(p, 1, M_WEIGHTS_BYTES, f) != M_WEIGHTS_BYTES) stop("no weights file");
    fclose(f);
    weights = p;
  }
  run(NULL, 0xff);
  run(NULL, 0x00);
  for (int kind = 0; kind < 2; kind++) {
    order o = {kind, 1 + 2 * kind};
    m_threads t = {&o, o.workers, any_order};
    run(&t, 0x7f);
  }
  int two_workers = 2, five_workers = 5;
  m_threads two = {&two_workers, 2, real_threads}, five = {&five_workers, 5, real_threads};
  run(&two, 0xff);
  run(&five, 0xaa);
  pthread_t t[2];
  if (pthread_create(&t[0], NULL, another, NULL) != 0 || pthread_create(&t[1], NULL, another, &two) != 0) stop("no thread");
  pthread_join(t[0], NULL), pthread_join(t[1], NULL);
  run(NULL, 0x55);
  unsigned long long sum = 1469598103934665603u;
  for (int i = 0; i < M_NUM_OUTPUTS; i++)
    for (size_t k = 0; k < out_bytes[i]; k++) sum = (sum ^ ((const unsigned char *)want[i])[k]) * 1099511628211u;
  printf("%d runs, all bits equal; %.3f ms; outputs %016llx\n", runs, 1e3 * seconds, sum);
  return 0;
}
