/* fake_cuda.c — a libcuda for tests: the driver's functions on the host; streams are in fake_cuda_streams.c.
 *
 * A "cubin" is the path of a shared object made from the printed kernels and cuda_host.hpp; launches run it. FAKE_CUDA
 * injects failures, as words with blanks between:
 *   version=N   of the driver          nodevice      no device         sm=N     its architecture
 *   memory=N    bytes there are        trap=N        launch number N traps; all calls fail from then until a reset
 *   fail=NAME   that function fails    nocapture     capturing is refused
 *   hang=N      launches of N blocks never end
 *   order=N     in which order streams go on: fake_cuda_streams.c */
#include "fake_cuda.h"
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

fake_state state;

long option(const char *name, long otherwise) {
  const char *all = getenv("FAKE_CUDA");
  size_t n = strlen(name);
  for (const char *p = all; p && *p; p += strcspn(p, " ") + (p[strcspn(p, " ")] == ' '))
    if (strncmp(p, name, n) == 0 && (p[n] == '=' || p[n] == ' ' || !p[n])) return p[n] == '=' ? atol(p + n + 1) : 1;
  return otherwise;
}

int failing(const char *function) {
  const char *p = getenv("FAKE_CUDA"), *f = p ? strstr(p, "fail=") : NULL;
  if (f && strncmp(f + 5, function, strlen(function)) == 0 && (f[5 + strlen(function)] == ' ' || !f[5 + strlen(function)])) return UNKNOWN;
  return state.lost;
}

/* What is still held, for tests: allocations, modules, streams, events, graphs, contexts. */
int fakeHeld(void) { return state.allocations + state.modules + state.streams + state.events + state.graphs + state.contexts; }

int cuDriverGetVersion(int *v) { return *v = (int)option("version", 13000), OK; }
int cuInit(unsigned flags) { return option("nodevice", 0) ? NO_DEVICE : failing("cuInit"); }
int cuDeviceGetCount(int *n) { CHECK; return *n = 1, OK; }
int cuDeviceGet(int *d, int i) { CHECK; return *d = i, OK; }
int cuDeviceGetName(char *name, int n, int d) { CHECK; return snprintf(name, (size_t)n, "Fake"), OK; }
int cuDeviceGetAttribute(int *v, int a, int d) {
  CHECK;
  long sm = option("sm", 90);
  *v = a == 75 ? (int)(sm / 10) : a == 76 ? (int)(sm % 10) : a == 16 ? 2 : 0;
  return OK;
}
int cuDevicePrimaryCtxRetain(void **c, int d) { CHECK; state.contexts++; return *c = &state, OK; }
int cuDevicePrimaryCtxRelease_v2(int d) { state.contexts--; return OK; }
static void forget_functions(const void *module);
static void forget_rooms(void);
int cuDevicePrimaryCtxReset_v2(int d) {
  forget_functions(NULL);
  forget_streams();
  forget_rooms();
  state.lost = state.allocations = state.modules = state.streams = state.events = state.graphs = 0;
  state.used = 0;
  return OK;
}
int cuCtxSetCurrent(void *c) { return c == &state ? OK : BAD; }

int cuModuleLoadData(void **m, const void *image) {
  CHECK;
  *m = dlopen(image, RTLD_NOW | RTLD_LOCAL);
  state.modules += *m != NULL;
  return *m ? OK : BAD_IMAGE;
}
static function *functions; /* of all loaded modules */
static void forget_functions(const void *module) { /* null: of all */
  for (function **f = &functions; *f;) {
    function *x = *f;
    if (module && x->module != module) {
      f = &x->next;
      continue;
    }
    *f = x->next;
    free(x);
  }
}
int cuModuleUnload(void *m) { /* the code stays: functions may be compared */
  CHECK;
  state.modules--;
  forget_functions(m);
  return OK;
}
int cuModuleGetFunction(void **f, void *m, const char *name) {
  CHECK;
  function *x = calloc(1, sizeof *x);
  x->code = dlsym(m, name);
  x->launch = (int (*)(void *, unsigned, unsigned, int, void **))dlsym(m, "tn_host_launch");
  x->shared = 48 * 1024;
  x->module = m;
  x->next = functions;
  functions = x;
  return *f = x, x->code && x->launch ? OK : NOT_FOUND;
}
int cuFuncSetAttribute(void *f, int a, int v) { CHECK; if (a == 8) ((function *)f)->shared = v; return v <= 232448 ? OK : BAD; }

/* Sizes stand before the memory, so that frees give back what was taken, and a reset all that is left. */
typedef struct room {
  size_t bytes;
  struct room *next;
  int pinned; /* of the host */
} room;
static room *rooms;
static void forget_rooms(void) {
  for (room *r; (r = rooms);) {
    rooms = r->next;
    free(r);
  }
}
static int take_room(ptr *p, size_t n, int pinned) {
  if (!pinned && state.used + (long long)n > option("memory", 1L << 40)) return NO_MEMORY;
  room *r = aligned_alloc(256, (n + 256 + 255) / 256 * 256);
  if (!r) return NO_MEMORY;
  *r = (room){n, rooms, pinned};
  rooms = r;
  memset((char *)r + 256, 0xff, n);
  state.used += pinned ? 0 : (long long)n;
  state.allocations++;
  return *p = (ptr)(uintptr_t)r + 256, OK;
}
static int give_room(ptr p, int pinned) {
  room **r = &rooms;
  while (*r && (ptr)(uintptr_t)*r + 256 != p) r = &(*r)->next;
  if (!*r || (*r)->pinned != pinned) return BAD;
  room *gone = *r;
  state.used -= pinned ? 0 : (long long)gone->bytes;
  state.allocations--;
  *r = gone->next;
  free(gone);
  return OK;
}
int is_pinned(const void *p) {
  for (const room *r = rooms; r; r = r->next)
    if (r->pinned && (const char *)p >= (const char *)r + 256 && (const char *)p < (const char *)r + 256 + r->bytes) return 1;
  return 0;
}
int cuMemAlloc_v2(ptr *p, size_t n) { CHECK; return take_room(p, n, 0); }
int cuMemFree_v2(ptr p) { CHECK; return give_room(p, 0); }
int cuMemHostAlloc(void **p, size_t n, unsigned flags) {
  CHECK;
  ptr at = 0;
  int e = take_room(&at, n, 1);
  return *p = (void *)(uintptr_t)at, e;
}
int cuMemFreeHost(void *p) { CHECK; return give_room((ptr)(uintptr_t)p, 1); }
int cuPointerGetAttribute(void *to, int attribute, ptr p) { /* CU_POINTER_ATTRIBUTE_MEMORY_TYPE alone: CU_MEMORYTYPE_HOST */
  CHECK;
  return attribute == 2 && is_pinned((void *)(uintptr_t)p) ? *(unsigned *)to = 1, OK : BAD;
}

/* ---- tensor maps: what they say, for cuda_host.hpp ---- */

enum { MAP_MAGIC = 0x70616d };
typedef struct map { /* host::map of cuda_host.hpp */
  uint64_t magic, address;
  uint32_t extents[5], strides[4]; /* strides: of 16 bytes */
  uint16_t rank, pixels, channels, box[5], size; /* size: bytes of an element */
  uint8_t steps[5];
  int8_t lower[3], upper[3];
} map;

static int encode(void *to, unsigned type, unsigned rank, void *address, const uint64_t *extents, const uint64_t *strides, const uint32_t *steps, unsigned swizzle, map m) {
  if ((uintptr_t)to % 64 || (uintptr_t)address % 16 || (type != 0 && type != 6 && type != 9) || rank > 5 || swizzle != 3) return BAD;
  m.magic = MAP_MAGIC;
  m.address = (uint64_t)(uintptr_t)address;
  m.rank = (uint16_t)rank;
  m.size = type ? 2 : 1; /* CU_TENSOR_MAP_DATA_TYPE_UINT8 is 0 */
  for (unsigned i = 0; i < rank; i++) {
    if (!extents[i] || extents[i] > 1ull << 32 || steps[i] < 1 || steps[i] > 8 || (i && (strides[i - 1] % 16 || strides[i - 1] >= 1ull << 40))) return BAD;
    m.extents[i] = (uint32_t)extents[i];
    m.steps[i] = (uint8_t)steps[i];
    if (i) m.strides[i - 1] = (uint32_t)(strides[i - 1] / 16);
  }
  memset(to, 0, 128);
  memcpy(to, &m, sizeof m);
  return OK;
}
int cuTensorMapEncodeTiled(void *to, unsigned type, unsigned rank, void *address, const uint64_t *extents, const uint64_t *strides, const uint32_t *box, const uint32_t *steps, unsigned interleave,
                           unsigned swizzle, unsigned l2, unsigned fill) {
  CHECK;
  map m = {0};
  for (unsigned i = 0; i < rank; i++) {
    if (!box[i] || box[i] > 256 || steps[i] != 1) return BAD;
    m.box[i] = (uint16_t)box[i];
  }
  return box[0] * (type ? 2 : 1) > 128 || interleave || fill ? BAD : encode(to, type, rank, address, extents, strides, steps, swizzle, m);
}
int cuTensorMapEncodeIm2col(void *to, unsigned type, unsigned rank, void *address, const uint64_t *extents, const uint64_t *strides, const int *lower, const int *upper, unsigned channels, unsigned pixels,
                            const uint32_t *steps, unsigned interleave, unsigned swizzle, unsigned l2, unsigned fill) {
  CHECK;
  map m = {.pixels = (uint16_t)pixels, .channels = (uint16_t)channels};
  if (rank < 3 || channels * (type ? 2 : 1) > 128 || !pixels || pixels > 1024 || interleave || fill) return BAD;
  for (unsigned i = 0; i < rank - 2; i++) {
    if (rank == 4 && (lower[i] < -128 || lower[i] > 127 || upper[i] < -128 || upper[i] > 127)) return BAD;
    m.lower[i] = (int8_t)lower[i];
    m.upper[i] = (int8_t)upper[i];
  }
  return encode(to, type, rank, address, extents, strides, steps, swizzle, m);
}

/* An argument: an address, or a map by value, of which a copy is kept for ever. */
typedef struct kept {
  _Alignas(64) char bytes[128];
  struct kept *next;
} kept;
static kept *all_kept;
ptr argument(const void *p) {
  if ((uintptr_t)p % 64 || *(const uint64_t *)p != MAP_MAGIC) return *(const ptr *)p;
  for (kept *k = all_kept; k; k = k->next)
    if (memcmp(k->bytes, p, 128) == 0) return (ptr)(uintptr_t)k->bytes;
  kept *k = aligned_alloc(64, sizeof *k);
  memcpy(k->bytes, p, 128);
  k->next = all_kept;
  all_kept = k;
  return (ptr)(uintptr_t)k->bytes;
}

int cuGetErrorName(int e, const char **name) {
  *name = e == NO_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : e == NO_DEVICE ? "CUDA_ERROR_NO_DEVICE" : e == TRAP ? "CUDA_ERROR_LAUNCH_FAILED" : "CUDA_ERROR_OTHER";
  return OK;
}
int cuGetErrorString(int e, const char **text) { return *text = "as the fake driver puts it", OK; }
