/* cuda.c — a program around an object for GPUs: reads x.bin, writes p.bin twice the same, says what failed. */
#include "net.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *getproc(void *lib, const char *name) {
  const char *missing = getenv("MISSING");
  return missing && strcmp(missing, name) == 0 ? NULL : dlsym(lib, name);
}

int main(int argc, char **argv) {
  void *lib = dlopen(argv[1], RTLD_NOW);
  net_cuda cuda = {lib, getproc, 0};
  static float x[NET_INPUT_0_BYTES / 4], p[NET_OUTPUT_0_BYTES / 4], r[NET_OUTPUT_1_BYTES / 4], again[NET_OUTPUT_0_BYTES / 4];
  void *arena = aligned_alloc(NET_ALIGN, (NET_ARENA_BYTES(1) + NET_ALIGN) / NET_ALIGN * NET_ALIGN);
  if (argc < 3 || !lib || !arena) return 99;
  memset(arena, 0, NET_ARENA_BYTES(1));
  FILE *f = fopen(argv[2], "rb");
  if (!f || fread(x, 1, sizeof x, f) != sizeof x) return 98;
  fclose(f);
  char *weights = NULL;
#ifdef NET_WEIGHTS_FILE
  weights = aligned_alloc(NET_ALIGN, NET_WEIGHTS_BYTES + NET_ALIGN - NET_WEIGHTS_BYTES % NET_ALIGN);
  f = fopen(NET_WEIGHTS_FILE, "rb");
  if (!weights || !f || fread(weights, 1, NET_WEIGHTS_BYTES, f) != NET_WEIGHTS_BYTES) return 97;
  fclose(f);
#endif
  const void *in[] = {x};
  void *out[] = {p, r}, *second[] = {again, r};
  int64_t dims[NET_NUM_OUT_DIMS];
  int e = net_run(in, out, NULL, dims, weights, NULL, arena, &cuda);
  if (!e) e = net_run(in, second, NULL, NULL, weights, NULL, arena, &cuda);
  printf("run %d, driver %d\n", e, net_error(arena));
  if (!e && memcmp(p, again, sizeof p)) return 96;
  if (!e && dims[3] != NET_OUTPUT_0_DIM_3) return 95;
  net_close(arena);
  int (*held)(void) = (int (*)(void))dlsym(lib, "fakeHeld");
  if (!e && held && held()) return 94;
  if (!e && weights) { /* other weights are noticed */
    weights[16] ^= 1;
    if (net_run(in, out, NULL, NULL, weights, NULL, arena, &cuda) != NET_E_WEIGHTS) return 93;
  }
  f = fopen("p.bin", "wb");
  if (!e && f) fwrite(p, 1, sizeof p, f);
  if (f) fclose(f);
  return e;
}
