/* cuda_run.c — see cuda_run.h. */
#include "runtime/cuda_run.h"
#include "runtime/cuda_driver.h"
#include "runtime/cuda_library.h"
#include "runtime/cuda_object.h"
#include "runtime/module.h"
#include <stdlib.h>
#include <string.h>

const rt_cuda_driver_table *rt_cuda_driver(tn_ctx *ctx, const char **why) {
  const rt_cuda_lib *l = rt_cuda_library(RT_CUDA_DRIVER);
  if (!l->handle) {
    *why = ir_format(ctx, "the CUDA driver is not there: %s", l->why);
    return NULL;
  }
  rt_cuda_driver_table *t = IR_NEW(ctx, rt_cuda_driver_table);
  struct { void **place; const char *symbol; } rows[] = {
#define ROW(field, symbol, parameters) {(void **)&t->field, symbol},
      RT_CUDA_DRIVER_ROWS(ROW)
#undef ROW
  };
  for (int i = 0; i < IR_COUNT(rows); i++)
    if (!(*rows[i].place = rt_cuda_symbol(RT_CUDA_DRIVER, rows[i].symbol))) {
      *why = ir_format(ctx, "the CUDA driver %s has no function %s: it is too old", l->path, rows[i].symbol);
      return NULL;
    }
#define ROW(field, symbol, parameters) *(void **)&t->field = rt_cuda_symbol(RT_CUDA_DRIVER, symbol);
  RT_CUDA_DRIVER_NEWER(ROW)
#undef ROW
  return t;
}

/* ---- devices ---- */

struct rt_cuda_device {
  tn_ctx *ctx;
  const rt_cuda_driver_table *cu;
  CUdevice number;
  CUcontext context;
  CUstream stream;
  const char *name;
  char lost[256]; /* "" while it works */
  bool open;
};

const char *rt_cuda_device_name(const rt_cuda_device *d) { return d->name; }
const char *rt_cuda_device_lost(const rt_cuda_device *d) { return *d->lost ? d->lost : NULL; }

/* Errors after which a context does nothing any more. */
static bool sticky(CUresult e) {
  static const CUresult all[] = {CUDA_ERROR_ECC_UNCORRECTABLE, CUDA_ERROR_ILLEGAL_ADDRESS, CUDA_ERROR_LAUNCH_TIMEOUT, CUDA_ERROR_ASSERT, CUDA_ERROR_HARDWARE_STACK_ERROR,
                                 CUDA_ERROR_ILLEGAL_INSTRUCTION, CUDA_ERROR_MISALIGNED_ADDRESS, CUDA_ERROR_INVALID_PC, CUDA_ERROR_LAUNCH_FAILED};
  for (int i = 0; i < IR_COUNT(all); i++)
    if (all[i] == e) return true;
  return false;
}

static const char *error_text(tn_ctx *ctx, const rt_cuda_driver_table *cu, CUresult e) {
  const char *name = NULL, *text = NULL;
  if (cu->error_name(e, &name) || !name) name = "unknown error";
  if (cu->error_text(e, &text) || !text) text = "";
  return ir_format(ctx, "%s (%d)%s%s", name, e, *text ? ": " : "", text);
}

static void need(tn_ctx *ctx, rt_cuda_device *d, CUresult e, const char *what) {
  if (!e) return;
  const char *text = error_text(ctx, d->cu, e);
  if (sticky(e)) {
    snprintf(d->lost, sizeof d->lost, "%s: %s", what, text);
    ir_fail(ctx, TN_EINTERNAL, "GPU: %s: %s; its context is lost, and all that lay in it", what, text);
  }
  ir_fail(ctx, e == CUDA_ERROR_OUT_OF_MEMORY ? TN_ERESOURCE : TN_EINTERNAL, "GPU: %s: %s", what, text);
}

static void need_alive(tn_ctx *ctx, const rt_cuda_device *d) {
  if (*d->lost) ir_fail(ctx, TN_EINTERNAL, "GPU: lost since: %s", d->lost);
}

static void close_device(void *arg) {
  rt_cuda_device *d = arg;
  if (!d->open) return;
  d->open = false;
  if (d->context) {
    d->cu->context_set(d->context);
    if (d->stream && !*d->lost) d->cu->stream_free(d->stream);
    if (*d->lost) d->cu->context_reset(d->number); /* the next to retain it gets a fresh one */
    d->cu->context_release(d->number);
  }
}

void rt_cuda_device_close(rt_cuda_device *d) {
  if (!d->open) return;
  ir_undefer(d->ctx, close_device, d);
  close_device(d);
}

static void check_versions(tn_ctx *ctx, int driver) {
  int nvrtc = rt_cuda_library(RT_CUDA_NVRTC)->version;
  if (driver && nvrtc && driver / 1000 < nvrtc / 1000)
    ir_fail(ctx, TN_EUNSUPPORTED, "the CUDA driver knows CUDA %d.%d and cannot load what NVRTC %d.%d compiles: update the driver, or name an older toolkit in TENON_CUDA_PATH", driver / 1000,
            driver % 1000 / 10, nvrtc / 1000, nvrtc % 1000 / 10);
}

static bool runs_on(const cu_target *t, int sm) { return t->hopper ? sm == t->sm : sm / 10 == t->sm / 10 && sm >= t->sm; }

typedef struct found { /* a device by its number, before anything is made on it */
  const rt_cuda_driver_table *cu;
  CUdevice number;
  char name[128];
  int sm, units;
} found;

static found find_device(tn_ctx *ctx, int index) {
  const char *why;
  found f = {.cu = rt_cuda_driver(ctx, &why)};
  const rt_cuda_driver_table *cu = f.cu;
  if (!cu) ir_fail(ctx, TN_EUNSUPPORTED, "%s", why);
  check_versions(ctx, rt_cuda_library(RT_CUDA_DRIVER)->version);
  int n = 0, major = 0, minor = 0;
  rt_cuda_device *d = &(rt_cuda_device){.ctx = ctx, .cu = cu};
  CUresult e = cu->init(0);
  if (e) ir_fail(ctx, TN_EUNSUPPORTED, "the CUDA driver does not start: %s", error_text(ctx, cu, e));
  need(ctx, d, cu->device_count(&n), "counting devices");
  if (index >= n) ir_fail(ctx, TN_EUNSUPPORTED, n ? "there is no GPU number %d" : "the CUDA driver sees no GPU", index);
  need(ctx, d, cu->device_get(&f.number, index), "a device");
  need(ctx, d, cu->device_name(f.name, sizeof f.name, f.number), "a device's name");
  need(ctx, d, cu->device_attribute(&major, CU_ATTRIBUTE_MAJOR, f.number), "a device's architecture");
  need(ctx, d, cu->device_attribute(&minor, CU_ATTRIBUTE_MINOR, f.number), "a device's architecture");
  need(ctx, d, cu->device_attribute(&f.units, CU_ATTRIBUTE_MULTIPROCESSORS, f.number), "a device's size");
  f.sm = major * 10 + minor;
  return f;
}

const cu_target *rt_cuda_device_target(tn_ctx *ctx, int index, const char **name) {
  found f = find_device(ctx, index);
  const cu_target *t, *best = NULL;
  for (int i = 0; (t = cu_target_at(i)); i++)
    if (runs_on(t, f.sm)) best = t;
  if (!best) ir_fail(ctx, TN_EUNSUPPORTED, "GPU %d (%s) is sm_%d, for which there is no target", index, f.name, f.sm);
  if (name) *name = ir_strdup(ctx, f.name);
  return best;
}

rt_cuda_device *rt_cuda_device_open(tn_ctx *ctx, const cu_target *t, int index) {
  found f = find_device(ctx, index);
  const rt_cuda_driver_table *cu = f.cu;
  int version = rt_cuda_library(RT_CUDA_DRIVER)->version;
  if (!runs_on(t, f.sm)) ir_fail(ctx, TN_EUNSUPPORTED, "GPU %d (%s) is sm_%d: code for %s does not run there", index, f.name, f.sm, t->name);
  rt_cuda_device *d = IR_NEW(ctx, rt_cuda_device);
  *d = (rt_cuda_device){.ctx = ctx, .cu = cu, .number = f.number, .open = true};
  ir_defer(ctx, close_device, d);
  need(ctx, d, cu->context_retain(&d->context, d->number), "a context");
  need(ctx, d, cu->context_set(d->context), "a context");
  need(ctx, d, cu->stream_new(&d->stream, CU_STREAM_NON_BLOCKING), "a stream");
  d->name = ir_format(ctx, "%s, sm_%d, %d multiprocessors, driver %d.%d", f.name, f.sm, f.units, version / 1000, version % 1000 / 10);
  return d;
}

/* ---- modules ---- */

typedef struct step { /* one launch, or one copy, of a run */
  CUfunction f;       /* null: a copy, or */
  rt_cuda_step *library;
  CUdeviceptr workspace;
  unsigned grid, threads, shared;
  int nargs;
  CUdeviceptr *args;  /* copy: to, from */
  int nmaps;
  char *maps;         /* CU_MAP_BYTES each */
  int64_t bytes;
  const char *name;
} step;

struct rt_cuda_module {
  tn_ctx *ctx;
  rt_cuda_device *d;
  const rt_cuda_plan *p;
  int nmodules, nmemory, nsteps;
  CUmodule *modules;  /* by program kernel */
  CUdeviceptr *memory;
  CUdeviceptr weights, arena, state, scratch, *in, *out;
  step *steps;
  CUgraphExec graph;
  int64_t bytes;
  bool alive;
};

int64_t rt_cuda_module_bytes(const rt_cuda_module *m) { return m->bytes; }

static void free_module(void *arg) {
  rt_cuda_module *m = arg;
  if (!m->alive) return;
  m->alive = false;
  if (*m->d->lost || !m->d->open) return; /* it went with the context */
  const rt_cuda_driver_table *cu = m->d->cu;
  cu->context_set(m->d->context);
  cu->stream_wait(m->d->stream);
  if (m->graph) cu->exec_free(m->graph);
  for (int i = 0; i < m->nsteps; i++)
    if (m->steps[i].library) rt_cuda_step_free(m->steps[i].library);
  for (int i = 0; i < m->nmemory; i++) cu->free(m->memory[i]);
  for (int i = 0; i < m->nmodules; i++)
    if (m->modules[i]) cu->module_unload(m->modules[i]);
}

void rt_cuda_module_free(rt_cuda_module *m) {
  if (!m->alive) return;
  ir_undefer(m->ctx, free_module, m);
  free_module(m);
}

static CUdeviceptr reserve(rt_cuda_module *m, int64_t bytes, const char *what) {
  CUdeviceptr p = 0;
  if (!bytes) return 0;
  need(m->ctx, m->d, m->d->cu->alloc(&p, (size_t)bytes), ir_format(m->ctx, "%lld bytes for %s, with %lld there already", (long long)bytes, what, (long long)m->bytes));
  IR_PUSH(m->ctx, m->memory, m->nmemory, p);
  m->bytes += bytes;
  return p;
}

static CUdeviceptr address(rt_cuda_module *m, const ir_slot *s) {
  switch (s->kind) {
  case IR_SLOT_INPUT: return m->in[s->index] + (CUdeviceptr)s->offset;
  case IR_SLOT_OUTPUT: return m->out[s->index] + (CUdeviceptr)s->offset;
  case IR_SLOT_WEIGHTS: return m->weights + (CUdeviceptr)s->offset;
  case IR_SLOT_STATE: return m->state + (CUdeviceptr)s->offset;
  case IR_SLOT_ARENA: return m->arena + (CUdeviceptr)s->offset;
  default: ir_bug(m->ctx, "slot '%s' has no place on a device", s->name);
  }
}

/* The memory of tensors is theirs as long as the module lives: their maps are made once. */
static void make_maps(rt_cuda_module *m, step *s, const cu_launch *from) {
  const rt_cuda_driver_table *cu = m->d->cu;
  if (!from->nmaps) return;
  if (!cu->map_tiled || !cu->map_im2col) ir_fail(m->ctx, TN_EUNSUPPORTED, "the CUDA driver makes no tensor maps: it is older than 12.0");
  s->nmaps = from->nmaps;
  s->maps = ir_alloc(m->ctx, (size_t)from->nmaps * CU_MAP_BYTES + 64);
  s->maps += -(uintptr_t)s->maps & 63;
  for (int i = 0; i < from->nmaps; i++) {
    cu_image_map x;
    void *tensor = (void *)(uintptr_t)(s->args[from->maps[i].param] + rt_cuda_map_of(&from->maps[i], &x)), *to = s->maps + i * CU_MAP_BYTES;
    CUresult e = x.pixels ? cu->map_im2col(to, x.type, x.rank, tensor, x.extents, x.strides, x.lower, x.upper, x.channels, x.pixels, x.steps, CU_MAP_NOT_INTERLEAVED, CU_MAP_SWIZZLE_128B, CU_MAP_L2_128B, CU_MAP_ZEROS)
                          : cu->map_tiled(to, x.type, x.rank, tensor, x.extents, x.strides, x.box, x.steps, CU_MAP_NOT_INTERLEAVED, CU_MAP_SWIZZLE_128B, CU_MAP_L2_128B, CU_MAP_ZEROS);
    need(m->ctx, m->d, e, ir_format(m->ctx, "tensor map %d of kernel '%s'", i, s->name));
  }
}

static void add_library(rt_cuda_module *m, const ir_inst *c, const rt_cuda_kernel *k) {
  const char *why = NULL;
  step s = {.nargs = c->nargs, .args = IR_NEW_ARRAY(m->ctx, CUdeviceptr, c->nargs + 1), .name = c->name ? c->name : k->kernel->name};
  for (int i = 0; i < c->nargs; i++) s.args[i] = address(m, &m->p->program->slots[c->args[i]]);
  s.library = rt_cuda_step_new(m->ctx, m->p->target, k->kernel, k->library, m->d->stream, &why);
  if (!s.library) ir_fail(m->ctx, TN_EUNSUPPORTED, "kernel '%s': %s", k->kernel->name, why);
  IR_PUSH(m->ctx, m->steps, m->nsteps, s); /* which frees it from now on */
  m->steps[m->nsteps - 1].workspace = reserve(m, rt_cuda_step_workspace(s.library), "a library's workspace");
}

static void add_call(rt_cuda_module *m, const ir_inst *c) {
  const ir_program *g = m->p->program;
  const rt_cuda_kernel *k = &m->p->kernels[c->kernel];
  rt_cuda_device *d = m->d;
  if (k->library) {
    add_library(m, c, k);
    return;
  }
  for (int l = 0; l < k->code->nlaunches; l++) {
    const cu_launch *from = &k->code->launches[l];
    int64_t grid = ix_need_const(m->ctx, from->grid, "blocks of a launch");
    if (!grid) continue;
    if (grid > INT32_MAX) ir_fail(m->ctx, TN_EUNSUPPORTED, "kernel '%s': %lld blocks", k->kernel->name, (long long)grid);
    step s = {.grid = (unsigned)grid, .threads = (unsigned)from->threads, .shared = (unsigned)from->shared_bytes, .name = c->name ? c->name : k->kernel->name};
    need(m->ctx, d, d->cu->module_function(&s.f, m->modules[c->kernel], from->symbol), from->symbol);
    if (s.shared > 48 * 1024) need(m->ctx, d, d->cu->function_set(s.f, CU_FUNC_MAX_DYNAMIC_SHARED, (int)s.shared), "shared memory of a kernel");
    s.nargs = c->nargs + (cu_launch_scratch(from, 1) > 0);
    s.args = IR_NEW_ARRAY(m->ctx, CUdeviceptr, s.nargs + 1);
    for (int i = 0; i < c->nargs; i++) s.args[i] = address(m, &g->slots[c->args[i]]);
    if (cu_launch_scratch(from, 1)) s.args[c->nargs] = m->scratch;
    make_maps(m, &s, from);
    IR_PUSH(m->ctx, m->steps, m->nsteps, s);
  }
}

static void add_copy(rt_cuda_module *m, const ir_inst *c) {
  const ir_slot *to = &m->p->program->slots[c->args[0]], *from = &m->p->program->slots[c->args[1]];
  step s = {.bytes = to->bytes, .args = IR_NEW_ARRAY(m->ctx, CUdeviceptr, 2), .name = to->name};
  s.args[0] = address(m, to);
  s.args[1] = address(m, from);
  if (s.bytes) IR_PUSH(m->ctx, m->steps, m->nsteps, s);
}

static void load_kernels(rt_cuda_module *m) {
  const rt_cuda_plan *p = m->p;
  m->modules = IR_NEW_ARRAY(m->ctx, CUmodule, p->nkernels + 1);
  m->nmodules = p->nkernels;
  for (int i = 0; i < p->nkernels; i++) {
    if (!p->kernels[i].kernel || p->kernels[i].library) continue;
    if (!p->kernels[i].cubin) ir_fail(m->ctx, TN_EUSAGE, "a plan that was not compiled cannot run");
    need(m->ctx, m->d, m->d->cu->module_load(&m->modules[i], p->kernels[i].cubin->bytes), ir_format(m->ctx, "loading kernel '%s'", p->kernels[i].kernel->name));
  }
}

typedef struct packing {
  rt_cuda_module *m;
  const void *const *raw;
} packing;

static void pack(tn_ctx *ctx, void *arg) {
  packing *a = arg;
  rt_cuda_module *m = a->m;
  const ir_program *g = m->p->program;
  const uint8_t *blob = rt_pack_weights(ctx, g, a->raw, rt_cpu_count());
  need(ctx, m->d, m->d->cu->to_device(m->weights, blob + (cg_blob_bytes(g) - g->weights_bytes), (size_t)g->weights_bytes, m->d->stream), "copying the weights");
  need(ctx, m->d, m->d->cu->stream_wait(m->d->stream), "copying the weights");
}

/* Weights packed on the host, in a context of its own: they leave it when they are there. */
static void load_weights(tn_ctx *ctx, rt_cuda_module *m, const void *const raw[]) {
  if (!m->p->program->weights_bytes) return;
  tn_ctx *own = ir_ctx_child(ctx);
  if (!own) ir_fail(ctx, TN_ERESOURCE, "no memory to pack weights");
  tn_status status = ir_protect(own, pack, &(packing){m, raw});
  const char *why = status ? ir_strdup(ctx, ir_error(own)) : NULL;
  tn_ctx_free(own);
  if (status) ir_fail(ctx, status, "%s", why);
}

void rt_cuda_repack(tn_ctx *ctx, rt_cuda_module *m, const void *const raw[]) {
  need_alive(ctx, m->d);
  need(ctx, m->d, m->d->cu->context_set(m->d->context), "a context");
  load_weights(ctx, m, raw);
}

static void load_memory(rt_cuda_module *m) {
  const ir_program *g = m->p->program;
  m->in = IR_NEW_ARRAY(m->ctx, CUdeviceptr, g->ninputs + 1);
  m->out = IR_NEW_ARRAY(m->ctx, CUdeviceptr, g->noutputs + 1);
  m->weights = reserve(m, g->weights_bytes, "weights");
  m->arena = reserve(m, g->arena_bytes, "the arena");
  m->state = reserve(m, g->state_bytes, "states");
  m->scratch = reserve(m, m->p->scratch_bytes, "scratch");
  for (int i = 0; i < g->nslots; i++) {
    const ir_slot *s = &g->slots[i];
    CUdeviceptr *place = s->kind == IR_SLOT_INPUT ? &m->in[s->index] : s->kind == IR_SLOT_OUTPUT ? &m->out[s->index] : NULL;
    if (place && !*place) *place = reserve(m, s->bytes ? s->bytes : 1, s->name);
  }
  load_weights(m->ctx, m, NULL);
}

rt_cuda_module *rt_cuda_module_new(tn_ctx *ctx, rt_cuda_device *d, const rt_cuda_plan *p) {
  need_alive(ctx, d);
  rt_cuda_module *m = IR_NEW(ctx, rt_cuda_module);
  *m = (rt_cuda_module){.ctx = ctx, .d = d, .p = p, .alive = true};
  ir_defer(ctx, free_module, m);
  need(ctx, d, d->cu->context_set(d->context), "a context");
  load_kernels(m);
  load_memory(m);
  for (int i = 0; i < p->program->nrun; i++) {
    const ir_inst *c = &p->program->run[i];
    if (c->kind == IR_CALL) add_call(m, c);
    else add_copy(m, c);
  }
  return m;
}

/* ---- runs ---- */

static CUresult issue(rt_cuda_module *m, const step *s) {
  const rt_cuda_driver_table *cu = m->d->cu;
  if (s->library) return rt_cuda_step_run(s->library, s->args, s->workspace) ? CUDA_ERROR_UNKNOWN : CUDA_SUCCESS;
  if (!s->f) return cu->copy(s->args[0], s->args[1], (size_t)s->bytes, m->d->stream);
  int n = s->nargs + s->nmaps;
  void *args[128], **a = n < IR_COUNT(args) ? args : IR_NEW_ARRAY(m->ctx, void *, n + 1);
  for (int i = 0; i < s->nargs; i++) a[i] = &s->args[i];
  for (int i = 0; i < s->nmaps; i++) a[s->nargs + i] = s->maps + i * CU_MAP_BYTES;
  a[n] = NULL;
  return cu->launch(s->f, s->grid, 1, 1, s->threads, 1, 1, s->shared, m->d->stream, a, NULL);
}

static void issue_all(tn_ctx *ctx, rt_cuda_module *m) {
  for (int i = 0; i < m->nsteps; i++) need(ctx, m->d, issue(m, &m->steps[i]), m->steps[i].name);
}

/* All launches as one graph. Where capturing is refused they are issued one by one for ever. */
static void capture(rt_cuda_module *m) {
  const rt_cuda_driver_table *cu = m->d->cu;
  CUgraph g = NULL;
  if (cu->capture_begin(m->d->stream, CU_CAPTURE_RELAXED)) return;
  CUresult e = 0;
  for (int i = 0; i < m->nsteps && !e; i++) e = issue(m, &m->steps[i]);
  if (cu->capture_end(m->d->stream, &g) == 0 && !e && g && cu->graph_make(&m->graph, g, 0)) m->graph = NULL;
  if (g) cu->graph_free(g);
}

static void run_once(tn_ctx *ctx, rt_cuda_module *m) {
  if (m->graph) need(ctx, m->d, m->d->cu->graph_launch(m->graph, m->d->stream), "a run");
  else issue_all(ctx, m);
}

static void ready(tn_ctx *ctx, rt_cuda_module *m) {
  need_alive(ctx, m->d);
  need(ctx, m->d, m->d->cu->context_set(m->d->context), "a context");
  if (!m->graph && m->nsteps > 1) capture(m);
}

void rt_cuda_run(tn_ctx *ctx, rt_cuda_module *m, const void *const in[], void *const out[], void *state) {
  const rt_cuda_driver_table *cu = m->d->cu;
  const ir_program *g = m->p->program;
  ready(ctx, m);
  CUstream s = m->d->stream;
  for (int i = 0; i < g->nslots; i++) {
    const ir_slot *x = &g->slots[i];
    if (x->kind == IR_SLOT_INPUT && x->bytes) need(ctx, m->d, cu->to_device(m->in[x->index], in[x->index], (size_t)x->bytes, s), x->name);
  }
  if (g->state_bytes) need(ctx, m->d, cu->to_device(m->state, state, (size_t)g->state_bytes, s), "states");
  run_once(ctx, m);
  for (int i = 0; i < g->nslots; i++) {
    const ir_slot *x = &g->slots[i];
    if (x->kind == IR_SLOT_OUTPUT && x->bytes) need(ctx, m->d, cu->to_host(out[x->index], m->out[x->index], (size_t)x->bytes, s), x->name);
    if (x->kind == IR_SLOT_INPUT && x->inout && x->bytes) need(ctx, m->d, cu->to_host((void *)(uintptr_t)in[x->index], m->in[x->index], (size_t)x->bytes, s), x->name);
  }
  if (g->state_bytes) need(ctx, m->d, cu->to_host(state, m->state, (size_t)g->state_bytes, s), "states");
  need(ctx, m->d, cu->stream_wait(s), "a run"); /* where a kernel that traps shows */
}

static int by_value(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return x < y ? -1 : x > y;
}

double rt_cuda_time(tn_ctx *ctx, rt_cuda_module *m, int runs) {
  const rt_cuda_driver_table *cu = m->d->cu;
  float ms[64];
  CUevent start = NULL, end = NULL;
  if (runs < 1) runs = 1;
  if (runs > IR_COUNT(ms)) runs = IR_COUNT(ms);
  ready(ctx, m);
  need(ctx, m->d, cu->event_new(&start, CU_EVENT_DEFAULT), "an event");
  CUresult e = cu->event_new(&end, CU_EVENT_DEFAULT);
  for (int i = 0; i < runs && !e; i++) {
    if ((e = cu->event_record(start, m->d->stream))) break;
    if (m->graph) e = cu->graph_launch(m->graph, m->d->stream);
    else
      for (int k = 0; k < m->nsteps && !e; k++) e = issue(m, &m->steps[k]);
    if (!e) e = cu->event_record(end, m->d->stream);
    if (!e) e = cu->event_wait(end);
    if (!e) e = cu->event_elapsed(&ms[i], start, end);
  }
  if (!sticky(e)) {
    cu->event_free(start);
    if (end) cu->event_free(end);
  }
  need(ctx, m->d, e, "a timed run");
  qsort(ms, (size_t)runs, sizeof *ms, by_value);
  return ms[runs / 2];
}
