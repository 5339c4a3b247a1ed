/* digits.h — the data of digits.py, and its batches: the same for every program that trains with it. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { BATCH = 32, EPOCHS = 80, PIXELS = 64 };

static int32_t ntrain, ntest;
static float (*images)[PIXELS];
static int32_t *labels;

static int read_digits(const char *path) {
  FILE *f = fopen(path, "rb");
  if (!f || fread(&ntrain, 4, 1, f) != 1 || fread(&ntest, 4, 1, f) != 1 || ntrain < BATCH || ntest < 1 || ntrain > 1 << 20 || ntest > 1 << 20) return 0;
  size_t n = (size_t)ntrain + (size_t)ntest;
  images = malloc(n * sizeof *images);
  labels = malloc(n * sizeof *labels);
  int ok = images && labels && fread(images, sizeof *images, n, f) == n && fread(labels, sizeof *labels, n, f) == n;
  fclose(f);
  return ok;
}

/* Batch number `step` since the beginning: BATCH images drawn at random, by the number of the step alone. */
static void draw_batch(int step, float x[BATCH][PIXELS], int32_t t[BATCH]) {
  uint64_t s = (uint64_t)step * 0x9e3779b97f4a7c15u + 1;
  for (int i = 0; i < BATCH; i++) {
    s = s * 6364136223846793005u + 1442695040888963407u;
    int k = (int)((s >> 33) % (uint64_t)ntrain);
    for (int j = 0; j < PIXELS; j++) x[i][j] = images[k][j];
    t[i] = labels[k];
  }
}

/* The share of test images whose largest score, of 10, is that of their label. */
static double accuracy(const float *scores) {
  int right = 0;
  for (int i = 0; i < ntest; i++) {
    int best = 0;
    for (int c = 1; c < 10; c++)
      if (scores[10 * i + c] > scores[10 * i + best]) best = c;
    right += best == labels[ntrain + i];
  }
  return (double)right / ntest;
}
