/* sample_data.h — the sample program's numbers, in plain C: shared with the programs that link
 * its object and know nothing of Tenon but the generated header. C99 and C++. */
#ifndef TESTS_AOT_SAMPLE_DATA_H
#define TESTS_AOT_SAMPLE_DATA_H
#include <stdint.h>

enum { ROWS = 7, INNER = 40, COLS = 30 };
enum { SEED_X = 1, SEED_W = 2, SEED_B = 3 };

/* What the program should give; sums in the same order, so that the bits agree. */
static inline void sample_reference(const float *x, const float *w, const float *b, float *y, float *z, int64_t *top) {
  for (int i = 0; i < ROWS; i++) {
    top[i] = 0;
    for (int j = 0; j < COLS; j++) {
      volatile float acc = 0;
      for (int k = 0; k < INNER; k++) {
        volatile float product = x[i * INNER + k] * w[k * COLS + j]; /* not contracted */
        acc = acc + product;
      }
      float h = acc + b[j];
      y[i * COLS + j] = (h > 0 ? h : 0) * 1.25f;
      z[i * COLS + j] = y[i * COLS + j] * 1.25f;
      if (y[i * COLS + j] > y[i * COLS + top[i]]) top[i] = j;
    }
  }
}

/* Deterministic values in [-1, 1). */
static inline void sample_fill(float *p, int n, uint32_t seed) {
  for (int i = 0; i < n; i++) {
    seed = seed * 1664525u + 1013904223u;
    p[i] = (float)(int32_t)seed / 2147483648.0f;
  }
}
#endif
