/* cuda_run.c — see cuda_run.h. */
#include "runtime/cuda_run.h"
#include "runtime/cuda_driver.h"
#include "runtime/cuda_library.h"
#include "runtime/exec.h"
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

typedef struct step { /* one launch, one copy, or one plan of a library, with all that it takes */
  CUfunction f;       /* null: a copy, or */
  rt_cuda_step *library;
  unsigned grid, threads, shared;
  CUdeviceptr *args;  /* copy: to, from */
  void **pointers;    /* launch: to arguments, maps, dims; null behind the last */
  size_t bytes;
  const char *name;
} step;

/* What a run calls and copies between two decisions of the program, with the addresses and sizes of that time. */
typedef struct stretch {
  tn_ctx *ctx;        /* all of it lies there */
  uint64_t *key;      /* by call: the instruction, addresses, dims; by copy: 0, to, from, bytes */
  int nkey, nsteps;
  step *steps;
  CUgraphExec graph;
  bool refused;       /* to be captured */
  int64_t runs, last; /* last: number of the run that it was part of */
} stretch;

enum { STRETCHES = 64 };

struct rt_cuda_module {
  tn_ctx *ctx;
  rt_cuda_device *d;
  const rt_cuda_plan *p;
  int nmodules, nmemory, nstretches;
  CUmodule *modules;  /* by program kernel, as those that follow */
  CUfunction **functions;
  rt_cuda_step **libraries;
  CUdeviceptr *memory;
  CUdeviceptr weights, scratch, workspace, *in, *out;
  rt_memory slots;    /* the same as pointers, and what a run's slots need besides */
  int64_t *dims;      /* of the last run */
  ir_var **vars;      /* the program's dims */
  const void *const *given; /* the caller's inputs, while a run is under way */
  size_t *given_bytes;      /* of those that no run changes */
  stretch stretches[STRETCHES];
  uint64_t *key;      /* of what was called since the last decision */
  int nkey, room;
  int64_t runs, bytes;
  bool alive;
};

int64_t rt_cuda_module_bytes(const rt_cuda_module *m) { return m->bytes; }

static void free_stretch(rt_cuda_module *m, stretch *s) {
  if (s->graph) m->d->cu->exec_free(s->graph);
  tn_ctx_free(s->ctx);
}

static void free_module(void *arg) {
  rt_cuda_module *m = arg;
  if (!m->alive) return;
  m->alive = false;
  free(m->key);
  bool gone = *m->d->lost || !m->d->open; /* with the context */
  const rt_cuda_driver_table *cu = m->d->cu;
  if (!gone) {
    cu->context_set(m->d->context);
    cu->stream_wait(m->d->stream);
  }
  for (int i = 0; i < m->nstretches; i++) {
    if (gone) m->stretches[i].graph = NULL;
    free_stretch(m, &m->stretches[i]);
  }
  if (gone) return;
  for (int i = 0; i < m->nmemory; i++) cu->free(m->memory[i]);
  for (int i = 0; i < m->nmodules; i++) {
    if (m->libraries[i]) rt_cuda_step_free(m->libraries[i]);
    if (m->modules[i]) cu->module_unload(m->modules[i]);
  }
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

static void load_functions(rt_cuda_module *m, int i) {
  const rt_cuda_kernel *k = &m->p->kernels[i];
  if (!k->cubin) ir_fail(m->ctx, TN_EUSAGE, "a plan that was not compiled cannot run");
  need(m->ctx, m->d, m->d->cu->module_load(&m->modules[i], k->cubin->bytes), ir_format(m->ctx, "loading kernel '%s'", k->kernel->name));
  m->functions[i] = IR_NEW_ARRAY(m->ctx, CUfunction, k->code->nlaunches + 1);
  for (int l = 0; l < k->code->nlaunches; l++) {
    const cu_launch *from = &k->code->launches[l];
    need(m->ctx, m->d, m->d->cu->module_function(&m->functions[i][l], m->modules[i], from->symbol), from->symbol);
    if (from->shared_bytes > 48 * 1024) need(m->ctx, m->d, m->d->cu->function_set(m->functions[i][l], CU_FUNC_MAX_DYNAMIC_SHARED, (int)from->shared_bytes), "shared memory of a kernel");
  }
}

static void load_kernels(rt_cuda_module *m) {
  const rt_cuda_plan *p = m->p;
  int64_t most = 0;
  m->modules = IR_NEW_ARRAY(m->ctx, CUmodule, p->nkernels + 1);
  m->functions = IR_NEW_ARRAY(m->ctx, CUfunction *, p->nkernels + 1);
  m->libraries = IR_NEW_ARRAY(m->ctx, rt_cuda_step *, p->nkernels + 1);
  m->nmodules = p->nkernels;
  for (int i = 0; i < p->nkernels; i++) {
    const rt_cuda_kernel *k = &p->kernels[i];
    const char *why = NULL;
    if (!k->kernel) continue;
    if (!k->library) {
      load_functions(m, i);
      continue;
    }
    m->libraries[i] = rt_cuda_step_new(m->ctx, p->target, k->kernel, k->library, m->d->stream, &why);
    if (!m->libraries[i]) ir_fail(m->ctx, TN_EUNSUPPORTED, "kernel '%s': %s", k->kernel->name, why);
    int64_t bytes = rt_cuda_step_workspace(m->libraries[i]);
    if (bytes > most) most = bytes;
  }
  m->workspace = reserve(m, most, "libraries' workspace"); /* one after the other they use it */
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

static void *pointer(CUdeviceptr p) { return (void *)(uintptr_t)p; }

/* Of an input or output at its largest: several slots may be parts of it. */
static int64_t whole_bytes(const ir_program *g, const ir_slot *s) {
  int64_t most = 1;
  for (int i = 0; i < g->nslots; i++) {
    const ir_slot *x = &g->slots[i];
    if (x->kind == s->kind && x->index == s->index && x->offset + x->bytes > most) most = x->offset + x->bytes;
  }
  return most;
}

static void load_memory(rt_cuda_module *m) {
  const ir_program *g = m->p->program;
  m->in = IR_NEW_ARRAY(m->ctx, CUdeviceptr, g->ninputs + 1);
  m->out = IR_NEW_ARRAY(m->ctx, CUdeviceptr, g->noutputs + 1);
  m->weights = reserve(m, g->weights_bytes, "weights");
  m->slots.weights = pointer(m->weights);
  m->slots.arena = pointer(reserve(m, g->arena_bytes, "the arena"));
  m->slots.state = pointer(reserve(m, g->state_bytes, "states"));
  m->scratch = reserve(m, m->p->scratch_bytes, "scratch");
  const void **in = IR_NEW_ARRAY(m->ctx, const void *, g->ninputs + 1);
  void **out = IR_NEW_ARRAY(m->ctx, void *, g->noutputs + 1);
  for (int i = 0; i < g->nslots; i++) {
    const ir_slot *s = &g->slots[i];
    CUdeviceptr *place = s->kind == IR_SLOT_INPUT ? &m->in[s->index] : s->kind == IR_SLOT_OUTPUT ? &m->out[s->index] : NULL;
    if (!place || *place) continue;
    *place = reserve(m, whole_bytes(g, s), s->name);
    if (s->kind == IR_SLOT_INPUT) in[s->index] = pointer(*place);
    else out[s->index] = pointer(*place);
  }
  m->slots.dims = m->dims = IR_NEW_ARRAY(m->ctx, int64_t, g->ndims + 1);
  m->given_bytes = IR_NEW_ARRAY(m->ctx, size_t, g->ninputs + 1);
  m->vars = IR_NEW_ARRAY(m->ctx, ir_var *, g->ndims + 1);
  for (int i = 0; i < g->ndims; i++) m->vars[i] = g->dims[i].var;
  for (int i = 0; i < g->ndims; i++) m->dims[i] = g->dims[i].var->hi;
  m->slots.in = in;
  m->slots.out = out;
  load_weights(m->ctx, m, NULL);
}

/* ---- stretches of a run ---- */

static void note(tn_ctx *ctx, rt_cuda_module *m, uint64_t word) {
  if (m->nkey == m->room) {
    uint64_t *more = realloc(m->key, sizeof *more * (size_t)(m->room = m->room ? 2 * m->room : 256));
    if (!more) ir_fail(ctx, TN_ERESOURCE, "out of memory");
    m->key = more;
  }
  m->key[m->nkey++] = word;
}

/* The memory of tensors is theirs as long as the module lives: maps of a stretch are made once. */
static char *make_maps(tn_ctx *ctx, rt_cuda_module *m, tn_ctx *own, const step *s, const cu_launch *from) {
  const rt_cuda_driver_table *cu = m->d->cu;
  if (!from->nmaps) return NULL;
  if (!cu->map_tiled || !cu->map_im2col) ir_fail(ctx, TN_EUNSUPPORTED, "the CUDA driver makes no tensor maps: it is older than 12.0");
  char *maps = ir_alloc(own, (size_t)from->nmaps * CU_MAP_BYTES + 64);
  maps += -(uintptr_t)maps & 63;
  for (int i = 0; i < from->nmaps; i++) {
    cu_image_map x;
    void *tensor = pointer(s->args[from->maps[i].param] + rt_cuda_map_of(&from->maps[i], &x)), *to = maps + i * CU_MAP_BYTES;
    CUresult e = x.pixels ? cu->map_im2col(to, x.type, x.rank, tensor, x.extents, x.strides, x.lower, x.upper, x.channels, x.pixels, x.steps, CU_MAP_NOT_INTERLEAVED, CU_MAP_SWIZZLE_128B, CU_MAP_L2_128B, CU_MAP_ZEROS)
                          : cu->map_tiled(to, x.type, x.rank, tensor, x.extents, x.strides, x.box, x.steps, CU_MAP_NOT_INTERLEAVED, CU_MAP_SWIZZLE_128B, CU_MAP_L2_128B, CU_MAP_ZEROS);
    need(ctx, m->d, e, ir_format(ctx, "tensor map %d of kernel '%s'", i, s->name));
  }
  return maps;
}

/* An expression of sizes: variable i is values[i]. */
static int64_t value_of(tn_ctx *ctx, ix e, int n, ir_var *const *vars, const int64_t *values) {
  if (e->op == IX_CONST) return e->u.i;
  for (int i = 0; i < n; i++)
    if (e->op == IX_VAR && e->u.var == vars[i]) return values[i];
  tn_dtype types[3];
  ir_scalar args[3];
  ir_assert(ctx, e->nargs >= 1 && e->nargs <= 3);
  for (int i = 0; i < e->nargs; i++) types[i] = (tn_dtype)e->args[i]->dtype, args[i].i = value_of(ctx, e->args[i], n, vars, values);
  return ir_eval_op(ctx, (ir_opcode)e->op, (tn_dtype)e->dtype, e->nargs, types, args).i;
}

/* The launches of a call; args: its addresses, then its dims. */
static void add_call(tn_ctx *ctx, rt_cuda_module *m, stretch *t, const ir_inst *c, uint64_t *args) {
  const rt_cuda_kernel *k = &m->p->kernels[c->kernel];
  const ir_kernel *kernel = k->kernel;
  const char *name = c->name ? c->name : kernel->name;
  if (k->library) {
    step s = {.library = m->libraries[c->kernel], .args = (CUdeviceptr *)args, .name = name};
    IR_PUSH(t->ctx, t->steps, t->nsteps, s);
    return;
  }
  for (int l = 0; l < k->code->nlaunches; l++) {
    const cu_launch *from = &k->code->launches[l];
    int64_t grid = value_of(ctx, from->grid, kernel->ndims, kernel->dims, (const int64_t *)args + c->nargs);
    if (grid <= 0) continue;
    if (grid > INT32_MAX) ir_fail(ctx, TN_EUNSUPPORTED, "kernel '%s': %lld blocks", kernel->name, (long long)grid);
    step s = {.f = m->functions[c->kernel][l], .grid = (unsigned)grid, .threads = (unsigned)from->threads, .shared = (unsigned)from->shared_bytes, .args = (CUdeviceptr *)args, .name = name};
    char *maps = make_maps(ctx, m, t->ctx, &s, from);
    void **p = s.pointers = IR_NEW_ARRAY(t->ctx, void *, c->nargs + from->nmaps + kernel->ndims + 2);
    for (int i = 0; i < c->nargs; i++) *p++ = &args[i];
    if (cu_launch_scratch(from, 1)) *p++ = &m->scratch;
    for (int i = 0; i < from->nmaps; i++) *p++ = maps + i * CU_MAP_BYTES;
    for (int i = 0; i < kernel->ndims; i++) *p++ = &args[c->nargs + i];
    *p = NULL;
    IR_PUSH(t->ctx, t->steps, t->nsteps, s);
  }
}

/* What was noted, as steps; where there is no room, in the place of what was not used for longest. */
static stretch *new_stretch(tn_ctx *ctx, rt_cuda_module *m) {
  stretch t = {.ctx = ir_ctx_like(m->ctx), .nkey = m->nkey}, *place = m->stretches;
  if (!t.ctx) ir_fail(ctx, TN_ERESOURCE, "out of memory");
  for (int i = 1; i < m->nstretches; i++)
    if (m->stretches[i].last < place->last) place = &m->stretches[i];
  if (m->nstretches < STRETCHES) place = &m->stretches[m->nstretches++];
  else {
    need(ctx, m->d, m->d->cu->stream_wait(m->d->stream), "a run");
    free_stretch(m, place);
  }
  t.key = memcpy(ir_alloc(t.ctx, sizeof *t.key * (size_t)(t.nkey + 1)), m->key, sizeof *t.key * (size_t)t.nkey);
  *place = (stretch){.ctx = t.ctx, .key = t.key}; /* of no key that is looked for, until it is whole */
  for (uint64_t *at = t.key; at < t.key + t.nkey;) {
    const ir_inst *c = (const ir_inst *)(uintptr_t)*at++;
    if (c) {
      add_call(ctx, m, &t, c, at);
      at += c->nargs + m->p->kernels[c->kernel].kernel->ndims;
    } else {
      step s = {.args = (CUdeviceptr *)at, .bytes = (size_t)at[2], .name = "a copy"};
      IR_PUSH(t.ctx, t.steps, t.nsteps, s);
      at += 3;
    }
  }
  *place = t;
  return place;
}

typedef struct walk { /* of the program's instructions, which issues their calls when a decision or the end is near */
  tn_ctx *ctx;
  rt_cuda_module *m;
} walk;

static void note_call(void *user, const ir_inst *c, void *const *args, const int64_t *dims) {
  walk *w = user;
  note(w->ctx, w->m, (uintptr_t)c);
  for (int i = 0; i < c->nargs; i++) note(w->ctx, w->m, (uintptr_t)args[i]);
  for (int i = 0; i < w->m->p->kernels[c->kernel].kernel->ndims; i++) note(w->ctx, w->m, (uint64_t)dims[i]);
}

static void note_copy(void *user, void *to, const void *from, size_t bytes) {
  walk *w = user;
  uint64_t words[] = {0, (uintptr_t)to, (uintptr_t)from, bytes};
  for (int i = 0; i < IR_COUNT(words); i++) note(w->ctx, w->m, words[i]);
}

static void read_value(void *user, void *to, const void *from, size_t bytes);

static void walk_program(tn_ctx *ctx, rt_cuda_module *m) {
  static const rt_elsewhere elsewhere = {note_copy, read_value};
  walk w = {ctx, m};
  m->nkey = 0;
  m->slots.elsewhere = &elsewhere;
  rt_exec(ctx, m->p->program, m->p->program->nrun, m->p->program->run, &m->slots, note_call, &w);
}

rt_cuda_module *rt_cuda_module_new(tn_ctx *ctx, rt_cuda_device *d, const rt_cuda_plan *p) {
  need_alive(ctx, d);
  rt_cuda_module *m = IR_NEW(ctx, rt_cuda_module);
  *m = (rt_cuda_module){.ctx = ctx, .d = d, .p = p, .alive = true};
  ir_defer(ctx, free_module, m);
  need(ctx, d, d->cu->context_set(d->context), "a context");
  load_kernels(m);
  load_memory(m);
  if (p->walked) return m;
  walk_program(ctx, m); /* nothing is decided: one stretch */
  if (m->nkey) new_stretch(ctx, m);
  return m;
}

/* ---- runs ---- */

static CUresult issue(rt_cuda_module *m, const step *s) {
  const rt_cuda_driver_table *cu = m->d->cu;
  if (s->library) return rt_cuda_step_run(s->library, s->args, m->workspace) ? CUDA_ERROR_UNKNOWN : CUDA_SUCCESS;
  if (!s->f) return cu->copy(s->args[0], s->args[1], s->bytes, m->d->stream);
  return cu->launch(s->f, s->grid, 1, 1, s->threads, 1, 1, s->shared, m->d->stream, s->pointers, NULL);
}

/* All steps as one graph. Where capturing is refused they are issued one by one for ever. */
static void capture(rt_cuda_module *m, stretch *t) {
  const rt_cuda_driver_table *cu = m->d->cu;
  CUgraph g = NULL;
  t->refused = true;
  if (cu->capture_begin(m->d->stream, CU_CAPTURE_RELAXED)) return;
  CUresult e = 0;
  for (int i = 0; i < t->nsteps && !e; i++) e = issue(m, &t->steps[i]);
  if (cu->capture_end(m->d->stream, &g) == 0 && !e && g && cu->graph_make(&t->graph, g, 0)) t->graph = NULL;
  if (g) cu->graph_free(g);
}

/* A program that decides nothing is captured at once, others when they come by the same way again. */
static void run_stretch(tn_ctx *ctx, rt_cuda_module *m, stretch *t) {
  if (!t->graph && !t->refused && t->nsteps > 1 && (t->runs || !m->p->walked)) capture(m, t);
  t->runs++;
  t->last = m->runs;
  if (t->graph) need(ctx, m->d, m->d->cu->graph_launch(t->graph, m->d->stream), "a run");
  else
    for (int i = 0; i < t->nsteps; i++) need(ctx, m->d, issue(m, &t->steps[i]), t->steps[i].name);
}

/* Issues what was noted. */
static void flush(tn_ctx *ctx, rt_cuda_module *m) {
  if (!m->nkey) return;
  stretch *t = NULL;
  for (int i = 0; i < m->nstretches && !t; i++)
    if (m->stretches[i].nkey == m->nkey && memcmp(m->stretches[i].key, m->key, sizeof *m->key * (size_t)m->nkey) == 0) t = &m->stretches[i];
  if (!t) t = new_stretch(ctx, m);
  m->nkey = 0;
  run_stretch(ctx, m, t);
}

static void read_value(void *user, void *to, const void *from, size_t bytes) {
  walk *w = user;
  rt_cuda_device *d = w->m->d;
  for (int i = 0; i < w->m->p->program->ninputs && w->m->given; i++) { /* what the caller gave is here, too: nothing to wait for */
    CUdeviceptr at = (CUdeviceptr)(uintptr_t)from - w->m->in[i];
    if ((CUdeviceptr)(uintptr_t)from < w->m->in[i] || at + bytes > w->m->given_bytes[i]) continue;
    memcpy(to, (const char *)w->m->given[i] + at, bytes);
    return;
  }
  flush(w->ctx, w->m);
  need(w->ctx, d, d->cu->to_host(to, (CUdeviceptr)(uintptr_t)from, bytes, d->stream), "a value that the program asks for");
  need(w->ctx, d, d->cu->stream_wait(d->stream), "a value that the program asks for");
}

static void run_once(tn_ctx *ctx, rt_cuda_module *m) {
  m->runs++;
  if (m->p->walked) {
    walk_program(ctx, m);
    flush(ctx, m);
  } else if (m->nstretches) run_stretch(ctx, m, m->stretches);
}

static void ready(tn_ctx *ctx, rt_cuda_module *m) {
  need_alive(ctx, m->d);
  m->given = NULL; /* of a run that failed */
  need(ctx, m->d, m->d->cu->context_set(m->d->context), "a context");
}

/* Bytes of the caller's memory of an input or output: of the slot that hangs on the dims, where there is one, else of the whole, which
 * is a slot, too. *slot: one that is changed in place, else any. */
static size_t bytes_of(tn_ctx *ctx, const rt_cuda_module *m, ir_slot_kind kind, int index, const ir_slot **slot) {
  const ir_program *g = m->p->program;
  int64_t most = 0, sized = -1;
  for (int i = 0; i < g->nslots; i++) {
    const ir_slot *s = &g->slots[i];
    if (s->kind != kind || s->index != index) continue;
    if (!*slot || s->inout) *slot = s;
    if (s->offset + s->bytes > most) most = s->offset + s->bytes;
    if (!s->sizes || sized >= 0) continue;
    sized = (int64_t)ir_dtype_bytes(s->dtype);
    for (int a = 0; a < s->rank; a++) sized *= ir_extent_slot(g, s->sizes[a]) < 0 ? value_of(ctx, s->sizes[a], g->ndims, m->vars, m->dims) : s->dims[a];
  }
  return (size_t)(sized >= 0 ? sized : most);
}

void rt_cuda_run(tn_ctx *ctx, rt_cuda_module *m, const void *const in[], void *const out[], const int64_t dims[], int64_t out_dims[], void *state) {
  const rt_cuda_driver_table *cu = m->d->cu;
  const ir_program *g = m->p->program;
  if (rt_check_dims(g, dims)) ir_fail(ctx, TN_EUSAGE, "a dimension has no value, or one that the program was not made for");
  if (g->ndims) memcpy(m->dims, dims, sizeof *dims * (size_t)g->ndims);
  ready(ctx, m);
  CUstream s = m->d->stream;
  for (int i = 0; i < g->ninputs; i++) {
    const ir_slot *x = NULL;
    size_t n = bytes_of(ctx, m, IR_SLOT_INPUT, i, &x);
    m->given_bytes[i] = x && !x->inout ? n : 0;
    if (n) need(ctx, m->d, cu->to_device(m->in[i], in[i], n, s), x->name);
  }
  if (g->state_bytes) need(ctx, m->d, cu->to_device((CUdeviceptr)(uintptr_t)m->slots.state, state, (size_t)g->state_bytes, s), "states");
  m->given = in;
  run_once(ctx, m);
  rt_extents(ctx, g, &m->slots, &(walk){ctx, m}, out_dims);
  m->given = NULL;
  for (int i = 0; i < g->noutputs + g->ninputs; i++) {
    bool output = i < g->noutputs;
    int k = output ? i : i - g->noutputs;
    const ir_slot *x = NULL;
    size_t n = bytes_of(ctx, m, output ? IR_SLOT_OUTPUT : IR_SLOT_INPUT, k, &x);
    if (n && (output || x->inout)) need(ctx, m->d, cu->to_host(output ? out[k] : (void *)(uintptr_t)in[k], output ? m->out[k] : m->in[k], n, s), x->name);
  }
  if (g->state_bytes) need(ctx, m->d, cu->to_host(state, (CUdeviceptr)(uintptr_t)m->slots.state, (size_t)g->state_bytes, s), "states");
  need(ctx, m->d, cu->stream_wait(s), "a run"); /* where a kernel that traps shows */
}

static int by_value(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return x < y ? -1 : x > y;
}

typedef struct timing {
  rt_cuda_module *m;
  CUevent start, end;
  float ms;   /* of `runs` runs */
  int runs;
} timing;

static void time_once(tn_ctx *ctx, timing *t) {
  const rt_cuda_driver_table *cu = t->m->d->cu;
  rt_cuda_device *d = t->m->d;
  need(ctx, d, cu->event_record(t->start, d->stream), "a timed run");
  for (int i = 0; i < t->runs; i++) run_once(ctx, t->m);
  need(ctx, d, cu->event_record(t->end, d->stream), "a timed run");
  need(ctx, d, cu->event_wait(t->end), "a timed run");
  need(ctx, d, cu->event_elapsed(&t->ms, t->start, t->end), "a timed run");
}

static void free_events(void *arg) {
  timing *t = arg;
  const rt_cuda_driver_table *cu = t->m->d->cu;
  if (*t->m->d->lost || !t->m->d->open) return;
  if (t->start) cu->event_free(t->start);
  if (t->end) cu->event_free(t->end);
}

double rt_cuda_time(tn_ctx *ctx, rt_cuda_module *m, int runs) {
  float ms[64];
  if (runs < 1) runs = 1;
  if (runs > IR_COUNT(ms)) runs = IR_COUNT(ms);
  ready(ctx, m);
  timing *t = IR_NEW(ctx, timing);
  *t = (timing){.m = m, .runs = 1};
  ir_defer(ctx, free_events, t);
  need(ctx, m->d, m->d->cu->event_new(&t->start, CU_EVENT_DEFAULT), "an event");
  need(ctx, m->d, m->d->cu->event_new(&t->end, CU_EVENT_DEFAULT), "an event");
  time_once(ctx, t);
  /* between events lies what a launch takes to begin, too: short runs are timed many together */
  t->runs = t->ms >= 1 ? 1 : t->ms > 0.01f ? (int)(1 / t->ms) + 1 : 100;
  for (int i = 0; i < runs; i++) {
    time_once(ctx, t);
    ms[i] = t->ms / (float)t->runs;
  }
  ir_undefer(ctx, free_events, t);
  free_events(t);
  qsort(ms, (size_t)runs, sizeof *ms, by_value);
  return ms[runs / 2];
}
