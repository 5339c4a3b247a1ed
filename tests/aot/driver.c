/* driver.c — links an object of the sample program and uses it as a careful and as a careless
 * caller would. Prints nothing and returns 0 when all is well.
 *
 *   cc -DMODE=... driver.c sample.o -lm -lpthread && ./a.out [weights file]
 */
#include "sample.gen.h"
#include "sample_data.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(cond)                                                          \
  do {                                                                       \
    if (!(cond)) {                                                           \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #cond);     \
      exit(1);                                                               \
    }                                                                        \
  } while (0)

/* Tables that the header's macros initialise. */
static const char *const names[SAMPLE_NUM_OUTPUTS] = SAMPLE_OUTPUT_NAMES;
static const size_t out_bytes[SAMPLE_NUM_OUTPUTS] = SAMPLE_OUTPUT_BYTES;
static const int64_t x_dims[SAMPLE_INPUT_0_RANK] = SAMPLE_INPUT_0_DIMS;

static SAMPLE_INPUT_0_TYPE x[ROWS * INNER];
static float w[INNER * COLS], b[COLS];
static float want_y[ROWS * COLS], want_z[ROWS * COLS];
static int64_t want_top[ROWS];
static const void *weights;

typedef struct result {
  float y[ROWS * COLS], z[ROWS * COLS];
  int64_t top[ROWS], steps[3];
} result;

/* Orders in which a caller's scheduler may run tasks. */
typedef struct order {
  int kind, workers;
} order;

static void any_order(void *ctx, int tasks, void (*body)(void *arg, int task, int worker), void *arg) {
  const order *o = (const order *)ctx;
  for (int i = 0; i < tasks; i++) {
    int t = o->kind == 0 ? i : o->kind == 1 ? tasks - 1 - i : (int)((unsigned)i * 5u % (unsigned)tasks);
    body(arg, t, (t * 7 + 3) % o->workers);
  }
}

typedef struct share {
  void (*body)(void *arg, int task, int worker);
  void *arg;
  int tasks, workers, worker;
} share;

static void *share_main(void *p) {
  share *s = (share *)p;
  for (int t = s->worker; t < s->tasks; t += s->workers) s->body(s->arg, t, s->worker);
  return NULL;
}

static void real_threads(void *ctx, int tasks, void (*body)(void *arg, int task, int worker), void *arg) {
  int workers = *(int *)ctx;
  pthread_t t[8];
  share s[8];
  for (int i = 0; i < workers; i++) {
    s[i].body = body, s[i].arg = arg, s[i].tasks = tasks, s[i].workers = workers, s[i].worker = i;
    CHECK(pthread_create(&t[i], NULL, share_main, &s[i]) == 0);
  }
  for (int i = 0; i < workers; i++) pthread_join(t[i], NULL);
}

static void *aligned(size_t bytes) {
  void *p = aligned_alloc(SAMPLE_ALIGN, (bytes + SAMPLE_ALIGN - 1) / SAMPLE_ALIGN * SAMPLE_ALIGN + SAMPLE_ALIGN);
  CHECK(p != NULL);
  return p;
}

/* Two runs on one state, the arena poisoned with `poison` and nothing written beyond it. */
static void run_and_check(const sample_threads *threads, int poison) {
  size_t n = SAMPLE_ARENA_BYTES(threads ? threads->workers : 1);
  unsigned char *arena = (unsigned char *)aligned(n);
  int64_t *state = (int64_t *)aligned(SAMPLE_STATE_BYTES);
  memset(state, 0xff, SAMPLE_STATE_BYTES);
  CHECK(sample_init(state, weights) == SAMPLE_OK);
  memset(arena, poison, n + SAMPLE_ALIGN);
  for (int k = 1; k <= 2; k++) {
    result r;
    memset(&r, poison, sizeof r);
    const void *in[] = {x};
    void *out[] = {r.y, r.z, r.top, r.steps};
    int64_t dims[SAMPLE_NUM_OUT_DIMS];
    CHECK(sample_run(in, out, NULL, k == 1 ? NULL : dims, weights, state, arena, threads) == SAMPLE_OK);
    CHECK(memcmp(r.y, want_y, sizeof r.y) == 0);
    CHECK(memcmp(r.z, want_z, sizeof r.z) == 0);
    CHECK(memcmp(r.top, want_top, sizeof r.top) == 0);
    for (int i = 0; i < 3; i++) CHECK(r.steps[i] == 5 * k && state[i] == 5 * k);
    if (k == 2) CHECK(dims[0] == ROWS && dims[1] == COLS && dims[2] == ROWS && dims[3] == COLS && dims[4] == ROWS && dims[5] == 3);
  }
  for (int i = 0; i < SAMPLE_ALIGN; i++) CHECK(arena[n + (size_t)i] == (unsigned char)poison);
  free(arena);
  free(state);
}

static void *many_runs(void *arg) {
  for (int i = 0; i < 50; i++) run_and_check((const sample_threads *)arg, i * 37);
  return NULL;
}

static void careless(void) {
  static float out_space[ROWS * COLS + 1];
  static int64_t top[ROWS], steps[3];
  const void *in[] = {x};
  void *out[] = {out_space, want_z, top, steps};
  unsigned char *arena = (unsigned char *)aligned(SAMPLE_ARENA_BYTES(1)), *state = (unsigned char *)aligned(SAMPLE_STATE_BYTES);
  const void *no_in[] = {NULL};
  CHECK(sample_run(NULL, out, NULL, NULL, weights, state, arena, NULL) == SAMPLE_E_ARG);
  CHECK(sample_run(in, NULL, NULL, NULL, weights, state, arena, NULL) == SAMPLE_E_ARG);
  CHECK(sample_run(no_in, out, NULL, NULL, weights, state, arena, NULL) == SAMPLE_E_ARG);
  CHECK(sample_run(in, out, NULL, NULL, weights, NULL, arena, NULL) == SAMPLE_E_ARG);
  CHECK(sample_run(in, out, NULL, NULL, weights, state, NULL, NULL) == SAMPLE_E_ARG);
  CHECK(sample_run(in, out, NULL, NULL, weights, state, arena + 8, NULL) == SAMPLE_E_ALIGN);
  CHECK(sample_run(in, out, NULL, NULL, weights, state + 8, arena, NULL) == SAMPLE_E_ALIGN);
  out[0] = (char *)out_space + 1;
  CHECK(sample_run(in, out, NULL, NULL, weights, state, arena, NULL) == SAMPLE_E_ALIGN);
  out[0] = out_space;
  order o = {0, 1};
  sample_threads t = {&o, 0, any_order};
  CHECK(sample_run(in, out, NULL, NULL, weights, state, arena, &t) == SAMPLE_E_ARG);
  t.workers = 1, t.parallel_for = NULL;
  CHECK(sample_run(in, out, NULL, NULL, weights, state, arena, &t) == SAMPLE_E_ARG);
  if (!SAMPLE_WEIGHTS_EMBEDDED) CHECK(sample_run(in, out, NULL, NULL, NULL, state, arena, NULL) == SAMPLE_E_ARG);
  unsigned char *other = (unsigned char *)aligned(SAMPLE_WEIGHTS_BYTES);
  memset(other, 1, SAMPLE_WEIGHTS_BYTES);
  CHECK(sample_run(in, out, NULL, NULL, other, state, arena, NULL) == SAMPLE_E_WEIGHTS);
  if (weights) { /* each field of the header counts */
    for (int i = 0; i < 32; i++) {
      memcpy(other, weights, SAMPLE_WEIGHTS_BYTES);
      other[i] ^= 4;
      CHECK(sample_run(in, out, NULL, NULL, other, state, arena, NULL) == SAMPLE_E_WEIGHTS);
    }
    CHECK(sample_run(in, out, NULL, NULL, (const char *)weights + 8, state, arena, NULL) == SAMPLE_E_ALIGN);
  }
  for (int i = 0; i < ROWS * COLS; i++) CHECK(out_space[i] == 0);
  free(other), free(arena), free(state);
}

static void find_weights(const char *path) {
  if (SAMPLE_WEIGHTS_EMBEDDED) return;
#ifdef SAMPLE_PACK_BYTES
  const void *raw[SAMPLE_NUM_RAW] = {w, b}, *half[SAMPLE_NUM_RAW] = {w, NULL};
  char *blob = (char *)aligned(SAMPLE_PACK_BYTES);
  memset(blob, 0x5a, SAMPLE_PACK_BYTES);
  CHECK(sample_pack(NULL, blob) == SAMPLE_E_ARG);
  CHECK(sample_pack(half, blob) == SAMPLE_E_ARG);
  CHECK(sample_pack(raw, NULL) == SAMPLE_E_ARG);
  CHECK(sample_pack(raw, blob + 4) == SAMPLE_E_ALIGN);
  CHECK(sample_pack(raw, blob) == SAMPLE_OK);
  weights = blob;
  (void)path;
#else
  char *blob = (char *)aligned(SAMPLE_WEIGHTS_BYTES);
  FILE *f = fopen(path, "rb");
  CHECK(f != NULL);
  CHECK(fread(blob, 1, SAMPLE_WEIGHTS_BYTES, f) == SAMPLE_WEIGHTS_BYTES && fgetc(f) == EOF);
  fclose(f);
  weights = blob;
#endif
}

int main(int argc, char **argv) {
  CHECK(strcmp(names[3], "steps") == 0 && strcmp(SAMPLE_INPUT_0_NAME, "x \"in\" ?*/") == 0 && strcmp(SAMPLE_OUTPUT_2_DTYPE, "i64") == 0);
  CHECK(out_bytes[2] == ROWS * 8 && x_dims[0] == ROWS && x_dims[1] == INNER && SAMPLE_INPUT_0_BYTES == sizeof x);
  sample_fill(x, ROWS * INNER, SEED_X), sample_fill(w, INNER * COLS, SEED_W), sample_fill(b, COLS, SEED_B);
  sample_reference(x, w, b, want_y, want_z, want_top);
  find_weights(argc > 1 ? argv[1] : "sample.weights");
#ifdef EXPECT_ISA_ERROR
  const void *in[] = {x};
  void *out[] = {want_y, want_z, want_top, want_top};
  void *memory = aligned(SAMPLE_ARENA_BYTES(1)), *some = aligned(SAMPLE_STATE_BYTES);
  for (int i = 0; i < 2; i++) CHECK(sample_run(in, out, NULL, NULL, NULL, some, memory, NULL) == SAMPLE_E_ISA);
  return 0;
#endif
  run_and_check(NULL, 0xff);
  run_and_check(NULL, 0x00);
  for (int kind = 0; kind < 3; kind++)
    for (int workers = 1; workers <= 6; workers++) {
      order o = {kind, workers};
      sample_threads t = {&o, workers, any_order};
      run_and_check(&t, 0xff);
    }
  for (int workers = 1; workers <= 3; workers++) {
    sample_threads t = {&workers, workers, real_threads};
    run_and_check(&t, 0x7f);
  }
  pthread_t two[2];
  int workers = 2;
  sample_threads t = {&workers, 2, real_threads};
  CHECK(pthread_create(&two[0], NULL, many_runs, NULL) == 0 && pthread_create(&two[1], NULL, many_runs, &t) == 0);
  pthread_join(two[0], NULL), pthread_join(two[1], NULL);
  careless();
  free((void *)weights);
  return 0;
}
