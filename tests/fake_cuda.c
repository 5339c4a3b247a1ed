/* fake_cuda.c — a libcuda for tests: the driver's functions on the host.
 *
 * A "cubin" is the path of a shared object made from the printed kernels and cuda_host.hpp; launches run it. Capture
 * records launches and copies, graphs replay them. FAKE_CUDA injects failures, as words with blanks between:
 *   version=N   of the driver          nodevice      no device         sm=N     its architecture
 *   memory=N    bytes there are        trap=N        launch number N traps; all calls fail from then until a reset
 *   fail=NAME   that function fails    nocapture     capturing is refused
 *   hang=N      launches of N blocks never end */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long long ptr;
enum { OK = 0, BAD = 1, NO_MEMORY = 2, NO_DEVICE = 100, BAD_IMAGE = 200, NOT_FOUND = 500, TRAP = 719, UNKNOWN = 999 };

static int host_action(void (*f)(void *), const void *arg, size_t size);
static struct {
  int (*host)(void (*f)(void *), const void *arg, size_t size); /* of a stream, for fakes of libraries: a function, in the stream's order */
  long long used, launches;
  int lost, contexts, allocations, modules, streams;
} state = {.host = host_action};

static long option(const char *name, long otherwise) {
  const char *all = getenv("FAKE_CUDA");
  size_t n = strlen(name);
  for (const char *p = all; p && *p; p += strcspn(p, " ") + (p[strcspn(p, " ")] == ' '))
    if (strncmp(p, name, n) == 0 && (p[n] == '=' || p[n] == ' ' || !p[n])) return p[n] == '=' ? atol(p + n + 1) : 1;
  return otherwise;
}

static int failing(const char *function) {
  const char *p = getenv("FAKE_CUDA"), *f = p ? strstr(p, "fail=") : NULL;
  if (f && strncmp(f + 5, function, strlen(function)) == 0 && (f[5 + strlen(function)] == ' ' || !f[5 + strlen(function)])) return UNKNOWN;
  return state.lost;
}
#define CHECK \
  do { int e = failing(__func__); if (e) return e; } while (0)

/* What is still held, for tests: allocations, modules, streams, contexts. */
int fakeHeld(void) { return state.allocations + state.modules + state.streams + state.contexts; }

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
  forget_rooms();
  state.lost = state.allocations = state.modules = state.streams = 0;
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
typedef struct function {
  void *code;
  int (*launch)(void *f, unsigned grid, unsigned threads, int nargs, void **args);
  int shared;
  void *module;
  struct function *next;
} function;
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
} room;
static room *rooms;
static void forget_rooms(void) {
  for (room *r; (r = rooms);) {
    rooms = r->next;
    free(r);
  }
}
int cuMemAlloc_v2(ptr *p, size_t n) {
  CHECK;
  if (state.used + (long long)n > option("memory", 1L << 40)) return NO_MEMORY;
  room *r = aligned_alloc(256, (n + 256 + 255) / 256 * 256);
  if (!r) return NO_MEMORY;
  *r = (room){n, rooms};
  rooms = r;
  memset((char *)r + 256, 0xff, n);
  state.used += (long long)n;
  state.allocations++;
  return *p = (ptr)(uintptr_t)r + 256, OK;
}
int cuMemFree_v2(ptr p) {
  CHECK;
  room **r = &rooms;
  while (*r && (ptr)(uintptr_t)*r + 256 != p) r = &(*r)->next;
  if (!*r) return BAD;
  room *gone = *r;
  state.used -= (long long)gone->bytes;
  state.allocations--;
  *r = gone->next;
  free(gone);
  return OK;
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
static ptr argument(const void *p) {
  if ((uintptr_t)p % 64 || *(const uint64_t *)p != MAP_MAGIC) return *(const ptr *)p;
  for (kept *k = all_kept; k; k = k->next)
    if (memcmp(k->bytes, p, 128) == 0) return (ptr)(uintptr_t)k->bytes;
  kept *k = aligned_alloc(64, sizeof *k);
  memcpy(k->bytes, p, 128);
  k->next = all_kept;
  all_kept = k;
  return (ptr)(uintptr_t)k->bytes;
}

/* ---- streams: everything happens at once, or is recorded ---- */

typedef struct action {
  function *f;
  unsigned grid, threads;
  int nargs;
  ptr args[16], to, from;
  size_t n;
  void (*host)(void *);
  void *arg; /* of host: kept for ever */
} action;
typedef struct graph {
  int n;
  action *all;
} graph;
static graph *recording;

static int perform(const action *a) {
  if (state.lost) return state.lost;
  if (a->host) return a->host(a->arg), OK;
  if (!a->f) return memmove((void *)(uintptr_t)a->to, (void *)(uintptr_t)a->from, a->n), OK;
  while (a->grid == option("hang", -1)) sleep(1);
  if (++state.launches == option("trap", -1)) return state.lost = TRAP;
  void *args[16];
  for (int i = 0; i < 16; i++) args[i] = (void *)&a->args[i];
  int e = a->f->launch(a->f->code, a->grid, a->threads, 16, args);
  return e ? state.lost = TRAP : OK;
}
static int record(action a) {
  if (!recording) return perform(&a);
  recording->all = realloc(recording->all, (size_t)(recording->n + 1) * sizeof a);
  recording->all[recording->n++] = a;
  return OK;
}

static int host_action(void (*f)(void *), const void *arg, size_t size) {
  void *kept = malloc(size + 1 + sizeof(void *));
  static void *all; /* reachable: no leak to those who look for them */
  *(void **)kept = all;
  all = kept;
  return record((action){.host = f, .arg = memcpy((char *)kept + sizeof(void *), arg, size)});
}

int cuMemcpyHtoDAsync_v2(ptr to, const void *from, size_t n, void *s) { CHECK; return memcpy((void *)(uintptr_t)to, from, n), OK; }
int cuMemcpyDtoHAsync_v2(void *to, ptr from, size_t n, void *s) { CHECK; return memcpy(to, (void *)(uintptr_t)from, n), OK; }
int cuMemcpyDtoDAsync_v2(ptr to, ptr from, size_t n, void *s) { CHECK; return record((action){.to = to, .from = from, .n = n}); }
int cuMemsetD8Async(ptr p, unsigned char v, size_t n, void *s) { CHECK; return memset((void *)(uintptr_t)p, v, n), OK; }
int cuStreamCreate(void **s, unsigned flags) { CHECK; state.streams++; return *s = &state, OK; }
int cuStreamDestroy_v2(void *s) { CHECK; state.streams--; return OK; }
int cuStreamSynchronize(void *s) { CHECK; return OK; }
int cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *s, void **args, void **extra) {
  CHECK;
  function *x = f;
  if (!gx || gy != 1 || gz != 1 || !bx || bx > 1024 || by != 1 || bz != 1 || (int)shared > x->shared) return BAD;
  action a = {.f = x, .grid = gx, .threads = bx};
  /* the number of arguments is the function's own: those that are there lie before a null */
  for (int i = 0; i < 16 && args[i]; i++) a.args[i] = argument(args[i]);
  return record(a);
}
int cuEventCreate(void **e, unsigned flags) { CHECK; return *e = &state, OK; }
int cuEventDestroy_v2(void *e) { CHECK; return OK; }
/* A run takes a millisecond and a little for each launch: what needs none, as a library's plan, is the fastest. */
static long long recorded[2];
int cuEventRecord(void *e, void *s) { CHECK; recorded[0] = recorded[1]; recorded[1] = state.launches; return OK; }
int cuEventSynchronize(void *e) { CHECK; return OK; }
int cuEventElapsedTime(float *ms, void *a, void *b) { CHECK; return *ms = 1 + 0.01f * (float)(recorded[1] - recorded[0]), OK; }
int cuStreamBeginCapture_v2(void *s, int mode) {
  CHECK;
  if (option("nocapture", 0)) return BAD;
  recording = calloc(1, sizeof *recording);
  return OK;
}
int cuStreamEndCapture(void *s, void **g) { *g = recording; recording = NULL; return OK; }
int cuGraphInstantiateWithFlags(void **x, void *g, unsigned long long flags) {
  CHECK;
  graph *from = g, *copy = calloc(1, sizeof *copy);
  copy->n = from->n;
  copy->all = malloc((size_t)(from->n + 1) * sizeof *copy->all);
  if (from->n) memcpy(copy->all, from->all, (size_t)from->n * sizeof *copy->all);
  return *x = copy, OK;
}
int cuGraphLaunch(void *x, void *s) {
  CHECK;
  graph *g = x;
  int e = 0;
  for (int i = 0; i < g->n && !e; i++) e = perform(&g->all[i]);
  return e;
}
static void drop(graph *g) {
  free(g->all);
  free(g);
}
int cuGraphDestroy(void *g) { return drop(g), OK; }
int cuGraphExecDestroy(void *x) { return drop(x), OK; }
int cuGetErrorName(int e, const char **name) {
  *name = e == NO_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : e == NO_DEVICE ? "CUDA_ERROR_NO_DEVICE" : e == TRAP ? "CUDA_ERROR_LAUNCH_FAILED" : "CUDA_ERROR_OTHER";
  return OK;
}
int cuGetErrorString(int e, const char **text) { return *text = "as the fake driver puts it", OK; }
