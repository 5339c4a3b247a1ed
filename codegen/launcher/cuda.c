/* cuda.c — the host part of objects for GPUs: compiled when Tenon is built, without a C library, and put into each such
 * object (codegen/cuda_object.c). It interprets the tables of cuda_image.h.
 *
 *   first run of an arena:  functions through getproc ─ device ─ context ─ cubins ─ memory ─ weights
 *   every run:              inputs and state up ─ launches and copies, in order, in one stream ─ outputs and state down ─ wait
 *
 * The launches and copies are a CUDA graph where the driver has such and nothing is decided: captured at the first run, or, by dims, at the second
 * run with those; whatever fails of that leaves them to be issued one by one.
 *
 * A program that decides at run time walks itself, and asks for its calls and for values that lie on the device. */
#include "../cuda_image.h"
#include <stddef.h>

enum { OK = 0, ARG = 1, ALIGN = 2, WEIGHTS = 4, DIMS, DRIVER, DEVICE, MEMORY, CALL }; /* CG_RUN_... of entry.h */
#define MAGIC 0x61647563746e6574u

/* The driver's functions, by place in cu_session.functions. One text: a table of pointers would need writable data. */
enum { INIT, GET, ATTRIBUTE, RETAIN, RELEASE, CURRENT, LOAD, UNLOAD, FUNCTION, SET, ALLOC, FREE, UP, DOWN, COPY, STREAM, STREAM_FREE, WAIT, LAUNCH, MAP_TILED, MAP_IM2COL, CAPTURE, CAPTURE_END, GRAPH_MAKE, GRAPH_LAUNCH, GRAPH_FREE, EXEC_FREE };
static const char names[] =
    "cuInit\0cuDeviceGet\0cuDeviceGetAttribute\0cuDevicePrimaryCtxRetain\0cuDevicePrimaryCtxRelease_v2\0cuCtxSetCurrent\0"
    "cuModuleLoadData\0cuModuleUnload\0cuModuleGetFunction\0cuFuncSetAttribute\0cuMemAlloc_v2\0cuMemFree_v2\0"
    "cuMemcpyHtoDAsync_v2\0cuMemcpyDtoHAsync_v2\0cuMemcpyDtoDAsync_v2\0cuStreamCreate\0cuStreamDestroy_v2\0"
    "cuStreamSynchronize\0cuLaunchKernel\0cuTensorMapEncodeTiled\0cuTensorMapEncodeIm2col\0"
    "cuStreamBeginCapture_v2\0cuStreamEndCapture\0cuGraphInstantiateWithFlags\0cuGraphLaunch\0cuGraphDestroy\0cuGraphExecDestroy\0";
#define DO(s, f, ...) ((int (*)())(s)->functions[f])(__VA_ARGS__)

static const void *at(const cu_image *g, uint64_t place) { return (const char *)g + place; }
static void **modules(cu_session *s) { return (void **)(s + 1); }
static void **kernels(cu_session *s) { return modules(s) + s->arch->nkernels; }
static uint64_t *inputs(cu_session *s) { return (uint64_t *)(kernels(s) + s->arch->nsteps); }
static uint64_t *outputs(const cu_image *g, cu_session *s) { return inputs(s) + g->nin; }
static int64_t *dims_of(const cu_image *g, cu_session *s, uint64_t graph) { return (int64_t *)(outputs(g, s) + g->nout) + graph * g->ndims; }
static char *map(const cu_image *g, cu_session *s, uint64_t i) {
  uintptr_t p = (uintptr_t)dims_of(g, s, CU_IMAGE_GRAPHS);
  return (char *)((p + 63) / 64 * 64) + CU_MAP_BYTES * i;
}

/* ---- the first run ---- */

static int find_functions(cu_session *s, const cu_host *h) {
  const char *p = names;
  for (int i = 0; i < CU_IMAGE_FUNCTIONS; i++) {
    s->functions[i] = h->getproc(h->ctx, p);
    if (!s->functions[i] && i < CU_IMAGE_FUNCTIONS - CU_IMAGE_OPTIONAL) return DRIVER;
    while (*p++) {}
  }
  return OK;
}

static int find_arch(const cu_image *g, cu_session *s) {
  int major = 0, minor = 0;
  if ((s->error = DO(s, ATTRIBUTE, &major, 75, s->device)) || (s->error = DO(s, ATTRIBUTE, &minor, 76, s->device))) return DEVICE;
  const cu_image_arch *a = at(g, g->archs);
  uint32_t sm = (uint32_t)(major * 10 + minor);
  s->arch = NULL;
  for (uint32_t i = 0; i < g->narchs; i++)
    if (a[i].exact ? sm == a[i].sm : sm / 10 == a[i].sm / 10 && sm >= a[i].sm) s->arch = &a[i];
  return s->arch ? OK : DEVICE;
}

static int reserve(cu_session *s, uint64_t *p, uint64_t bytes) {
  *p = 0;
  if (!bytes) return OK;
  s->error = DO(s, ALLOC, p, (size_t)bytes);
  return !s->error ? OK : s->error == 2 ? MEMORY : CALL;
}

static int reserve_all(const cu_image *g, cu_session *s) {
  const cu_image_io *in = at(g, g->in), *out = at(g, g->out);
  int e = reserve(s, &s->weights, g->weights_bytes);
  if (!e) e = reserve(s, &s->arena, g->arena_bytes);
  if (!e) e = reserve(s, &s->scratch, s->arch->scratch_bytes);
  if (!e) e = reserve(s, &s->state, g->state_bytes);
  for (uint32_t i = 0; i < g->nin && !e; i++) e = reserve(s, &inputs(s)[i], in[i].bytes);
  for (uint32_t i = 0; i < g->nout && !e; i++) e = reserve(s, &outputs(g, s)[i], out[i].bytes);
  return e;
}

static int load_kernels(const cu_image *g, cu_session *s) {
  const cu_image_kernel *k = at(g, s->arch->kernels);
  const cu_image_step *t = at(g, s->arch->steps);
  for (uint32_t i = 0; i < s->arch->nkernels; i++)
    if ((s->error = DO(s, LOAD, &modules(s)[i], at(g, k[i].cubin)))) return CALL;
  for (uint32_t i = 0; i < s->arch->nsteps; i++) {
    if (t[i].kernel == CU_IMAGE_COPY) continue;
    if ((s->error = DO(s, FUNCTION, &kernels(s)[i], modules(s)[t[i].kernel], at(g, t[i].symbol)))) return CALL;
    if (t[i].shared > 48 * 1024 && (s->error = DO(s, SET, kernels(s)[i], 8, (int)t[i].shared))) return CALL;
  }
  return OK;
}

static uint64_t base_of(const cu_image *g, cu_session *s, uint32_t base, uint32_t index) {
  switch (base) {
  case CU_IMAGE_IN: return inputs(s)[index];
  case CU_IMAGE_OUT: return outputs(g, s)[index];
  case CU_IMAGE_WEIGHTS: return s->weights;
  case CU_IMAGE_ARENA: return s->arena;
  case CU_IMAGE_STATE: return s->state;
  default: return s->scratch;
  }
}

static uint64_t address(const cu_image *g, cu_session *s, const cu_image_arg *a, int64_t first) { return base_of(g, s, a->base, a->index) + a->offset + (uint64_t)first * a->step; }

static int encode(const cu_image *g, cu_session *s, const cu_image_map *m, int64_t first, void *to) {
  void *tensor = (void *)(uintptr_t)address(g, s, &m->tensor, first);
  if (m->pixels)
    return DO(s, MAP_IM2COL, to, m->type, m->rank, tensor, m->extents, m->strides, m->lower, m->upper, m->channels, m->pixels, m->steps, CU_MAP_NOT_INTERLEAVED, CU_MAP_SWIZZLE_128B, CU_MAP_L2_128B, CU_MAP_ZEROS);
  return DO(s, MAP_TILED, to, m->type, m->rank, tensor, m->extents, m->strides, m->box, m->steps, CU_MAP_NOT_INTERLEAVED, CU_MAP_SWIZZLE_128B, CU_MAP_L2_128B, CU_MAP_ZEROS);
}

/* The memory that tensors got is theirs until the end: their maps are made once, those of parts of a batch again for each. */
static int make_maps(const cu_image *g, cu_session *s) {
  const cu_image_step *t = at(g, s->arch->steps);
  if (s->arch->nmaps && (!s->functions[MAP_TILED] || !s->functions[MAP_IM2COL])) return DRIVER;
  for (uint32_t i = 0; i < s->arch->nsteps; i++)
    for (uint32_t k = 0; k < t[i].nmaps; k++)
      if ((s->error = encode(g, s, (const cu_image_map *)at(g, t[i].maps) + k, 0, map(g, s, t[i].first_map + k)))) return CALL;
  return OK;
}

static void release(const cu_image *g, cu_session *s) {
  for (int i = 0; i < CU_IMAGE_GRAPHS; i++)
    if (s->graphs[i].exec) DO(s, EXEC_FREE, s->graphs[i].exec);
  if (s->arch) {
    uint64_t *p[4] = {&s->weights, &s->arena, &s->scratch, &s->state};
    for (int i = 0; i < 4; i++)
      if (*p[i]) DO(s, FREE, *p[i]);
    for (uint32_t i = 0; i < g->nin + g->nout; i++)
      if (inputs(s)[i]) DO(s, FREE, inputs(s)[i]);
    for (uint32_t i = 0; i < s->arch->nkernels; i++)
      if (modules(s)[i]) DO(s, UNLOAD, modules(s)[i]);
  }
  if (s->stream) DO(s, STREAM_FREE, s->stream);
  if (s->context) DO(s, RELEASE, s->device);
  s->magic = 0;
}

static int open_device(const cu_image *g, cu_session *s, const cu_host *h) {
  int e = find_functions(s, h);
  if (e) return e;
  if ((s->error = DO(s, INIT, 0u)) || (s->error = DO(s, GET, &s->device, h->device))) return DEVICE;
  if ((e = find_arch(g, s))) return e;
  if ((s->error = DO(s, RETAIN, &s->context, s->device)) || (s->error = DO(s, CURRENT, s->context)) || (s->error = DO(s, STREAM, &s->stream, 1u))) return CALL;
  return OK;
}

static int open_session(const cu_image *g, cu_session *s, const cu_host *h, const char *weights) {
  volatile char *c = (volatile char *)s;
  for (uint64_t i = 0; i < g->session_bytes; i++) c[i] = 0;
  int e = open_device(g, s, h);
  if (!e) e = load_kernels(g, s);
  if (!e) e = reserve_all(g, s);
  if (!e) e = make_maps(g, s);
  if (!e && g->weights_bytes) {
    s->error = DO(s, UP, s->weights, weights + g->blob_header, (size_t)g->weights_bytes, s->stream);
    if (!s->error) s->error = DO(s, WAIT, s->stream);
    e = s->error ? CALL : OK;
  }
  if (e) {
    int error = s->error;
    release(g, s);
    s->error = error;
    return e;
  }
  s->magic = MAGIC;
  return OK;
}

/* ---- runs ---- */

static int check(const cu_image *g, const void *const in[], void *const out[], const char *weights) {
  const cu_image_io *i = at(g, g->in), *o = at(g, g->out);
  if ((g->nin && !in) || (g->nout && !out)) return ARG;
  for (uint32_t k = 0; k < g->nin; k++) {
    if (i[k].bytes && !in[k]) return ARG;
    if ((uintptr_t)in[k] & (i[k].align - 1)) return ALIGN;
  }
  for (uint32_t k = 0; k < g->nout; k++) {
    if (o[k].bytes && !out[k]) return ARG;
    if ((uintptr_t)out[k] & (o[k].align - 1)) return ALIGN;
  }
  if (!g->weights_bytes) return OK;
  if (!weights) return ARG;
  for (int k = 0; k < 32; k++)
    if ((unsigned char)weights[k] != g->blob[k]) return WEIGHTS;
  return OK;
}

static int issue(const cu_image *g, cu_session *s, uint32_t i, int64_t first, const int64_t *dims) {
  const cu_image_step *t = (const cu_image_step *)at(g, s->arch->steps) + i;
  const cu_image_arg *a = at(g, t->args);
  uint64_t values[CU_IMAGE_MAX_ARGS];
  void *places[CU_IMAGE_MAX_ARGS + 1];
  int64_t grid = t->number ? s->number((int32_t)t->number, dims) : t->grid;
  for (uint32_t k = 0; k < t->nargs; k++) {
    values[k] = address(g, s, &a[k], first);
    places[k] = &values[k];
  }
  if (t->kernel == CU_IMAGE_COPY) return DO(s, COPY, values[0], values[1], (size_t)t->bytes, s->stream);
  if (grid <= 0) return 0;
  if (grid > INT32_MAX) return 1; /* CUDA_ERROR_INVALID_VALUE */
  void **p = places + t->nargs;
  for (uint32_t k = 0; k < t->nmaps; k++) {
    const cu_image_map *m = (const cu_image_map *)at(g, t->maps) + k;
    *p++ = map(g, s, t->first_map + k);
    int e = m->tensor.step ? encode(g, s, m, first, p[-1]) : 0; /* a launch takes its own copy */
    if (e) return e;
  }
  for (uint32_t k = 0; k < t->ndims; k++) *p++ = (void *)(uintptr_t)&dims[k];
  *p = NULL;
  return DO(s, LAUNCH, kernels(s)[i], (unsigned)grid, 1u, 1u, t->threads, 1u, 1u, t->shared, s->stream, places, (void **)NULL);
}

int tn_cuda_call(void *session, uint32_t call, int64_t first, const int64_t *dims) {
  cu_session *s = session;
  const cu_image_call *c = (const cu_image_call *)at(s->image, s->arch->calls) + call;
  int e = 0;
  for (uint32_t i = 0; i < c->n && !e; i++) e = issue(s->image, s, c->first + i, first, dims);
  return e;
}

int tn_cuda_read(void *session, uint32_t base, uint32_t index, int64_t at_byte, uint32_t bytes, void *to) {
  cu_session *s = session;
  const cu_image_io *in = at(s->image, s->image->in);
  if (s->walking) s->decides = 1;
  if (s->walking > 1) return 1; /* CUDA_ERROR_INVALID_VALUE: ends the walk */
  if (base == CU_IMAGE_IN && !in[index].back) { /* it is here, too */
    for (uint32_t i = 0; i < bytes; i++) ((char *)to)[i] = ((const volatile char *)s->given[index])[at_byte + i];
    return 0;
  }
  int e = DO(s, DOWN, to, base_of(s->image, s, base, index) + (uint64_t)at_byte, (size_t)bytes, s->stream);
  return e ? e : DO(s, WAIT, s->stream);
}

static int issue_all(const cu_image *g, cu_session *s, cu_walk walk, const int64_t *dims) {
  int e = 0;
  if (walk) return walk(s, dims);
  for (uint32_t i = 0; i < s->arch->nsteps && !e; i++) e = issue(g, s, i, 0, NULL);
  return e;
}

/* The graph for these dims, or a place for it. */
static cu_session_graph *graph_of(const cu_image *g, cu_session *s, const int64_t *dims) {
  cu_session_graph *oldest = s->graphs;
  for (uint32_t i = 0; i < CU_IMAGE_GRAPHS; i++) {
    cu_session_graph *x = &s->graphs[i];
    uint32_t same = 0;
    while (same < g->ndims && dims_of(g, s, i)[same] == dims[same]) same++;
    if (x->last && same == g->ndims) return x;
    if (x->last < oldest->last) oldest = x;
  }
  if (oldest->exec) DO(s, EXEC_FREE, oldest->exec);
  *oldest = (cu_session_graph){0};
  for (uint32_t k = 0; k < g->ndims; k++) dims_of(g, s, (uint64_t)(oldest - s->graphs))[k] = dims[k];
  return oldest;
}

static void capture(const cu_image *g, cu_session *s, cu_session_graph *x, cu_walk walk, const int64_t *dims) {
  void *graph = NULL;
  x->refused = 1;
  for (int i = CAPTURE; i <= EXEC_FREE; i++)
    if (!s->functions[i]) return;
  if (DO(s, CAPTURE, s->stream, 2)) return; /* CU_STREAM_CAPTURE_MODE_RELAXED */
  s->walking = 2;
  int e = issue_all(g, s, walk, dims);
  s->walking = 0;
  if (DO(s, CAPTURE_END, s->stream, &graph)) e = 1;
  if (!e && graph && DO(s, GRAPH_MAKE, &x->exec, graph, 0ull)) x->exec = NULL;
  if (graph) DO(s, GRAPH_FREE, graph);
}

static int run_steps(const cu_image *g, cu_session *s, cu_walk walk, const int64_t *dims) {
  cu_session_graph *x = s->decides || s->arch->nsteps < 2 ? NULL : graph_of(g, s, dims);
  if (x && !x->exec && !x->refused && (x->last || !walk)) capture(g, s, x, walk, dims);
  if (x) x->last = ++s->runs;
  if (x && x->exec) return DO(s, GRAPH_LAUNCH, x->exec, s->stream);
  s->walking = 1;
  int e = issue_all(g, s, walk, dims);
  s->walking = 0;
  return e;
}

static size_t bytes_of(const cu_session *s, const cu_image_io *io, const int64_t *dims) { return (size_t)(io->number ? (uint64_t)s->number((int32_t)io->number, dims) : io->bytes); }

static int run_all(const cu_image *g, cu_session *s, cu_walk walk, const void *const in[], void *const out[], const int64_t *dims, void *state) {
  const cu_image_io *i = at(g, g->in), *o = at(g, g->out);
  int e = DO(s, CURRENT, s->context);
  for (uint32_t k = 0; k < g->nin && !e; k++) {
    size_t n = bytes_of(s, &i[k], dims);
    if (n) e = DO(s, UP, inputs(s)[k], in[k], n, s->stream);
  }
  if (g->state_bytes && !e) e = DO(s, UP, s->state, state, (size_t)g->state_bytes, s->stream);
  if (!e) e = run_steps(g, s, walk, dims);
  if (g->state_bytes && !e) e = DO(s, DOWN, state, s->state, (size_t)g->state_bytes, s->stream);
  for (uint32_t k = 0; k < g->nout && !e; k++) {
    size_t n = bytes_of(s, &o[k], dims);
    if (n) e = DO(s, DOWN, out[k], outputs(g, s)[k], n, s->stream);
  }
  for (uint32_t k = 0; k < g->nin && !e; k++) {
    size_t n = i[k].back ? bytes_of(s, &i[k], dims) : 0;
    if (n) e = DO(s, DOWN, (void *)(uintptr_t)in[k], inputs(s)[k], n, s->stream);
  }
  int waited = DO(s, WAIT, s->stream); /* also after a failure: the caller's memory is in use until then */
  return e ? e : waited;
}

int tn_cuda_run(const cu_image *g, const void *own, cu_walk walk, cu_number number, const void *const in[], void *const out[], const int64_t dims[],
                int64_t out_dims[], const void *weights, void *state, void *arena, const cu_host *h) {
  cu_session *s = arena;
  const cu_image_extent *d = at(g, g->out_dims);
  if (!weights) weights = own;
  if (!s || !h || !h->getproc || (g->state_bytes && !state) || (g->ndims && !dims)) return ARG;
  if (((uintptr_t)s | (uintptr_t)weights | (g->state_bytes ? (uintptr_t)state : 0)) & 63) return ALIGN;
  if (walk && walk(NULL, dims)) return DIMS;
  int e = check(g, in, out, weights);
  if (!e && s->magic != MAGIC) e = open_session(g, s, h, weights);
  if (e) return e;
  s->image = g;
  s->number = number;
  s->given = in;
  if ((s->error = run_all(g, s, walk, in, out, dims, state))) return CALL;
  for (uint32_t i = 0; i < g->nout_dims && out_dims; i++) {
    out_dims[i] = d[i].number ? number((int32_t)d[i].number, dims) : d[i].n;
    if (!d[i].found) continue;
    int64_t n = 0;
    if ((s->error = tn_cuda_read(s, d[i].base, d[i].index, (int64_t)d[i].offset, sizeof n, &n))) return CALL;
    out_dims[i] = n < 0 ? 0 : n < d[i].n ? n : d[i].n;
  }
  return OK;
}

void tn_cuda_close(const cu_image *g, void *arena) {
  cu_session *s = arena;
  if (!s || s->magic != MAGIC) return;
  DO(s, CURRENT, s->context);
  release(g, s);
}

int tn_cuda_error(const void *arena) { return arena ? ((const cu_session *)arena)->error : 0; }
