/* magika_demo.c — names the type of files by a model that Tenon compiled into magika.o.
 *
 *   cc -O2 -I BUILD magika_demo.c BUILD/magika.o -lm -o magika_demo && ./magika_demo FILE...
 *
 * magika.h comes from `tenon compile`, labels.h from the model's configuration (demo.sh makes both).
 * Nothing of Tenon is linked but the object. */
#include "labels.h"
#include "magika.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The input: first and last bytes of the file, as numbers; see magika's config.min.json. */
enum { HALF = MAGIKA_INPUT_0_DIM_1 / 2, BLOCK = 4096, PADDING = 256, SMALLEST = 8 };

static int is_blank(int c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* 0, or why the file cannot be named by the model. */
static const char *features(const char *path, int32_t *out) {
  static unsigned char block[BLOCK];
  FILE *f = fopen(path, "rb");
  if (!f) return "cannot be opened";
  if (fseek(f, 0, SEEK_END) != 0) return fclose(f), "is no ordinary file";
  long size = ftell(f), n = size < BLOCK ? size : BLOCK;
  if (size < SMALLEST) return fclose(f), "is too short";
  for (int i = 0; i < 2 * HALF; i++) out[i] = PADDING;

  rewind(f);
  size_t got = fread(block, 1, (size_t)n, f), first = 0;
  while (first < got && is_blank(block[first])) first++;
  for (size_t i = 0; i < HALF && first + i < got; i++) out[i] = block[first + i];

  fseek(f, size - n, SEEK_SET);
  got = fread(block, 1, (size_t)n, f);
  fclose(f);
  while (got > 0 && is_blank(block[got - 1])) got--;
  for (size_t i = 0; i < HALF && i < got; i++) out[2 * HALF - 1 - i] = block[got - 1 - i];
  return NULL;
}

int main(int argc, char **argv) {
  static int32_t bytes[2 * HALF];
  static float scores[MAGIKA_OUTPUT_0_BYTES / sizeof(float)];
  void *arena = aligned_alloc(MAGIKA_ALIGN, (MAGIKA_ARENA_BYTES(1) + MAGIKA_ALIGN) / MAGIKA_ALIGN * MAGIKA_ALIGN);
  if (!arena) return 1;
  int failed = 0;
  for (int i = 1; i < argc; i++) {
    const char *why = features(argv[i], bytes);
    if (why) {
      fprintf(stderr, "%s: %s\n", argv[i], why);
      failed = 1;
      continue;
    }
    const void *in[] = {bytes};
    void *out[] = {scores};
    clock_t start = clock();
    int code = magika_run(in, out, NULL, NULL, NULL, NULL, arena, NULL);
    double ms = 1e3 * (double)(clock() - start) / CLOCKS_PER_SEC;
    if (code != MAGIKA_OK) return fprintf(stderr, "magika_run: error %d\n", code), 1;
    int best = 0;
    for (int k = 1; k < NUM_LABELS; k++)
      if (scores[k] > scores[best]) best = k;
    const char *name = strrchr(argv[i], '/');
    printf("%-24s %-12s %5.1f %%  (%.1f ms)\n", name ? name + 1 : argv[i], labels[best], 100 * scores[best], ms);
  }
  free(arena);
  return failed;
}
