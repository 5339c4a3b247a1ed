/* mkl.c — Intel MKL's SGEMM as a program that the benchmark compares (protocol: bench/serve.h).
 *
 *   peer_mkl LIBRARY THREADS            LIBRARY: libmkl_rt.so of some version
 *   load ID gemm M N K const|var DIR    const: B packed ahead by cblas_sgemm_pack
 *
 * The library is opened at run time; its functions are declared here as its reference manual gives them.
 */
#include "bench/serve.h"
#include <dlfcn.h>

enum { ROW_MAJOR = 101, NO_TRANS = 111, PACKED = 151, B_MATRIX = 162, CASES = 64 };

static void (*sgemm)(int layout, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda, const float *b, int ldb, float beta, float *c, int ldc);
static size_t (*pack_size)(int which, int m, int n, int k);
static void (*pack)(int layout, int which, int trans, int m, int n, int k, float alpha, const float *src, int ld, float *dest);
static void (*compute)(int layout, int ta, int tb, int m, int n, int k, const float *a, int lda, const float *b, int ldb, float beta, float *c, int ldc);

typedef struct item {
  char *id;
  int m, n, k;
  bool packed;
  float *a, *b, *c;
} item;
static item items[CASES];

static bool run(void *arg) {
  item *t = arg;
  if (t->packed) compute(ROW_MAJOR, NO_TRANS, PACKED, t->m, t->n, t->k, t->a, t->k, t->b, t->n, 0, t->c, t->n);
  else sgemm(ROW_MAJOR, NO_TRANS, NO_TRANS, t->m, t->n, t->k, 1, t->a, t->k, t->b, t->n, 0, t->c, t->n);
  return true;
}

static void load(int n, char **word) {
  item *t = NULL;
  for (int i = 0; i < CASES && !t; i++)
    if (!items[i].id) t = &items[i];
  if (n < 8 || !t || strcmp(word[2], "gemm") != 0) {
    serve_error("load: only matrix products");
    return;
  }
  *t = (item){.m = atoi(word[3]), .n = atoi(word[4]), .k = atoi(word[5])};
  size_t m = (size_t)t->m, nn = (size_t)t->n, k = (size_t)t->k;
  t->a = serve_read(word[7], "a.bin", m * k * 4);
  t->b = serve_read(word[7], "b.bin", k * nn * 4);
  t->c = aligned_alloc(64, (m * nn * 4 + 63) / 64 * 64);
  if (!t->a || !t->b || !t->c) {
    serve_error("operands are missing");
    return;
  }
  if (strcmp(word[6], "const") == 0) {
    float *room = aligned_alloc(4096, (pack_size(B_MATRIX, t->m, t->n, t->k) + 4095) / 4096 * 4096);
    pack(ROW_MAJOR, B_MATRIX, NO_TRANS, t->m, t->n, t->k, 1, t->b, t->n, room);
    free(t->b);
    t->b = room;
    t->packed = true;
  }
  t->id = strdup(word[1]);
  serve_ok("\"outputs\": 1");
}

static void handle(int n, char **word) {
  if (strcmp(word[0], "load") == 0) {
    load(n, word);
    return;
  }
  item *t = NULL;
  for (int i = 0; n > 1 && i < CASES; i++)
    if (items[i].id && strcmp(items[i].id, word[1]) == 0) t = &items[i];
  if (!t) serve_error("no such case");
  else if (strcmp(word[0], "run") == 0 && n > 2) serve_measure(run, t, atof(word[2]), 1, 0);
  else if (strcmp(word[0], "save") == 0 && n > 2) {
    run(t);
    if (serve_write(word[2], 0, t->c, (size_t)t->m * (size_t)t->n * 4)) serve_ok("\"outputs\": 1");
    else serve_error("the output cannot be written");
  } else if (strcmp(word[0], "drop") == 0) {
    free(t->a), free(t->b), free(t->c), free(t->id);
    *t = (item){0};
    serve_ok("\"dropped\": true");
  } else serve_error("unknown command");
}

int main(int argc, char **argv) {
  void *lib = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL) : NULL;
  if (!lib) {
    fprintf(stderr, "%s\n", argc > 1 ? dlerror() : "peer_mkl LIBRARY THREADS");
    return 1;
  }
  *(void **)&sgemm = dlsym(lib, "cblas_sgemm");
  *(void **)&pack_size = dlsym(lib, "cblas_sgemm_pack_get_size");
  *(void **)&pack = dlsym(lib, "cblas_sgemm_pack");
  *(void **)&compute = dlsym(lib, "cblas_sgemm_compute");
  void (*set_threads)(int) = NULL, (*version)(char *, int) = NULL;
  *(void **)&set_threads = dlsym(lib, "MKL_Set_Num_Threads");
  *(void **)&version = dlsym(lib, "mkl_get_version_string");
  if (!sgemm || !pack_size || !pack || !compute || !set_threads) return 1;
  set_threads(argc > 2 ? atoi(argv[2]) : 1);
  serve(handle);
  return 0;
}
