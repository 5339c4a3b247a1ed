/* main.c — runs on the other CPU: calls each kernel on the contents of cases.bin and
 * compares with what the interpreter made of them (see tests/run_cross.c). */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern void (*const table[])(void *const *, int, int);

enum { F16 = 10, BF16 = 11, F32 = 12, F64 = 13, F8E4M3FN = 14, F8E5M2 = 15, F8E4M3FNUZ = 16, F8E5M2FNUZ = 17 }; /* of tn_dtype */

static size_t width_of(int64_t dtype) {
  static const unsigned char bytes[] = {1, 1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 2, 4, 8, 1, 1, 1, 1, 1, 8}; /* from none to index */
  return bytes[dtype];
}

static int64_t get(FILE *f) {
  int64_t v = 0;
  if (fread(&v, 8, 1, f) != 1) exit(3);
  return v;
}

static int is_nan(int64_t dtype, const unsigned char *p) {
  uint16_t h;
  float s;
  double d;
  switch (dtype) {
  case F16: memcpy(&h, p, 2); return (h & 0x7fff) > 0x7c00;
  case BF16: memcpy(&h, p, 2); return (h & 0x7fff) > 0x7f80;
  case F32: memcpy(&s, p, 4); return s != s;
  case F64: memcpy(&d, p, 8); return d != d;
  case F8E4M3FN: return (*p & 0x7f) == 0x7f;
  case F8E5M2: return (*p & 0x7f) > 0x7c;
  case F8E4M3FNUZ:
  case F8E5M2FNUZ: return *p == 0x80;
  default: return 0;
  }
}

int main(int argc, char **argv) {
  FILE *f = argc > 1 ? fopen(argv[1], "rb") : NULL;
  int bad = 0;
  if (!f) return 2;
  for (int c = 0; table[c]; c++) {
    int64_t tasks = get(f), scratch = get(f), dims[16], sizes[64], dtypes[64];
    void *args[64 + 1 + 16];
    unsigned char *want[64], *places[64];
    int64_t ndims = get(f);
    for (int64_t i = 0; i < ndims; i++) dims[i] = get(f);
    int64_t nbufs = get(f);
    for (int64_t i = 0; i < nbufs; i++) {
      dtypes[i] = get(f);
      sizes[i] = get(f);
      size_t n = (size_t)sizes[i], room = (n + 127) / 64 * 64;
      args[i] = aligned_alloc(64, room);
      want[i] = malloc(n + 1);
      places[i] = malloc(n + 1);
      size_t elements = n / width_of(dtypes[i]);
      if (fread(args[i], 1, n, f) != n || fread(want[i], 1, n, f) != n || fread(places[i], 1, elements, f) != elements) return 3;
    }
    args[nbufs] = aligned_alloc(64, (size_t)scratch * 2 + 64);
    for (int64_t i = 0; i < ndims; i++) args[nbufs + 1 + i] = &dims[i];
    for (int64_t t = 0; t < tasks; t++) table[c](args, (int)t, (int)(t & 1));
    for (int64_t i = 0; i < nbufs; i++) {
      int64_t width = (int64_t)width_of(dtypes[i]);
      const unsigned char *have = args[i];
      for (int64_t at = 0; at < sizes[i]; at += width)
        if (places[i][at / width] && memcmp(have + at, want[i] + at, (size_t)width) != 0 && !(is_nan(dtypes[i], have + at) && is_nan(dtypes[i], want[i] + at))) {
          printf("k%d: buffer %d, byte %lld\n", c, (int)i, (long long)at);
          bad++;
          break;
        }
    }
  }
  return bad != 0;
}
