/* cuda_run.c — see cuda_run.h. */
#include "runtime/cuda_run.h"
#include "runtime/cuda_copies.h"
#include "runtime/cuda_library.h"
#include "runtime/cuda_object.h"
#include "runtime/exec.h"
#include "runtime/module.h"
#include <stdlib.h>
#include <string.h>

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

typedef struct part { /* of a stretch: what is issued at once */
  int first, end;     /* steps */
  CUgraphExec graph;
  bool refused;       /* to be captured */
} part;

/* What a run calls and copies between two decisions of the program, with the addresses and sizes of that time. */
typedef struct stretch {
  tn_ctx *ctx;        /* all of it lies there */
  uint64_t *key;      /* by call: the instruction, addresses, dims; by copy: 0, to, from, bytes */
  int nkey, nsteps;
  step *steps;
  int *touched;       /* by input: the first step that touches it; nsteps: none */
  int *written;       /* by output, then by input: the last step that writes it; -1: none */
  int nparts;         /* more than one: copies to and from the host go on beside them */
  part parts[RT_CUDA_PARTS];
  int64_t runs, last; /* last: number of the run that it was part of */
} stretch;

typedef struct io { /* an input or output */
  const ir_slot *slot; /* one that is changed in place, else any; null: none */
  CUdeviceptr at, end; /* on the device, at its largest */
  size_t bytes;        /* of the caller's memory, in this run */
  bool done;           /* copied up, or down, in this run */
} io;

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
  CUdeviceptr weights, scratch, workspace;
  io *in, *out, *back; /* back: inputs as outputs, where they are changed in place */
  rt_memory slots;    /* the same as pointers, and what a run's slots need besides */
  int64_t *dims;      /* of the last run */
  ir_var **vars;      /* the program's dims */
  struct { /* the caller's memory, while a run is under way */
    bool on, split, decided; /* split: copies are beside the kernels; decided: it asked for a value */
    const void *const *in;
    void *const *out;
  } run;
  stretch stretches[STRETCHES];
  uint64_t *key;      /* of what was called since the last decision */
  int nkey, room;
  int64_t runs, bytes;
  bool alive;
};

int64_t rt_cuda_module_bytes(const rt_cuda_module *m) { return m->bytes; }

static void free_stretch(rt_cuda_module *m, stretch *s) {
  for (int i = 0; i < s->nparts; i++)
    if (s->parts[i].graph) m->d->cu->exec_free(s->parts[i].graph);
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
    rt_cuda_copies_drop(m->d);
  }
  for (int i = 0; i < m->nstretches; i++) {
    if (gone) m->stretches[i].nparts = 0;
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
  rt_cuda_need(m->ctx, m->d, m->d->cu->alloc(&p, (size_t)bytes), ir_format(m->ctx, "%lld bytes for %s, with %lld there already", (long long)bytes, what, (long long)m->bytes));
  IR_PUSH(m->ctx, m->memory, m->nmemory, p);
  m->bytes += bytes;
  return p;
}

static void load_functions(rt_cuda_module *m, int i) {
  const rt_cuda_kernel *k = &m->p->kernels[i];
  if (!k->cubin) ir_fail(m->ctx, TN_EUSAGE, "a plan that was not compiled cannot run");
  rt_cuda_need(m->ctx, m->d, m->d->cu->module_load(&m->modules[i], k->cubin->bytes), ir_format(m->ctx, "loading kernel '%s'", k->kernel->name));
  m->functions[i] = IR_NEW_ARRAY(m->ctx, CUfunction, k->code->nlaunches + 1);
  for (int l = 0; l < k->code->nlaunches; l++) {
    const cu_launch *from = &k->code->launches[l];
    rt_cuda_need(m->ctx, m->d, m->d->cu->module_function(&m->functions[i][l], m->modules[i], from->symbol), from->symbol);
    if (from->shared_bytes > 48 * 1024) rt_cuda_need(m->ctx, m->d, m->d->cu->function_set(m->functions[i][l], CU_FUNC_MAX_DYNAMIC_SHARED, (int)from->shared_bytes), "shared memory of a kernel");
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
  rt_cuda_up(ctx, m->d, m->d->up, m->weights, blob + (cg_blob_bytes(g) - g->weights_bytes), (size_t)g->weights_bytes, "copying the weights");
  rt_cuda_arrive(ctx, m->d);
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
  rt_cuda_need_alive(ctx, m->d);
  rt_cuda_need(ctx, m->d, m->d->cu->context_set(m->d->context), "a context");
  load_weights(ctx, m, raw);
}

static void *pointer(CUdeviceptr p) { return (void *)(uintptr_t)p; }

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

/* Bytes of the caller's memory of an input or output with the dims of now: of the slot that hangs on them, where there is one, else of the
 * whole, which is a slot, too. Of several slots some may be parts of it. */
static io io_of(tn_ctx *ctx, const rt_cuda_module *m, ir_slot_kind kind, int index) {
  const ir_program *g = m->p->program;
  int64_t most = 0, sized = -1;
  io r = {0};
  for (int i = 0; i < g->nslots; i++) {
    const ir_slot *s = &g->slots[i];
    if (s->kind != kind || s->index != index) continue;
    if (!r.slot || s->inout) r.slot = s;
    if (s->offset + s->bytes > most) most = s->offset + s->bytes;
    if (!s->sizes || sized >= 0) continue;
    sized = (int64_t)ir_dtype_bytes(s->dtype);
    for (int a = 0; a < s->rank; a++) sized *= ir_extent_slot(g, s->sizes[a]) < 0 ? value_of(ctx, s->sizes[a], g->ndims, m->vars, m->dims) : s->dims[a];
  }
  r.bytes = (size_t)(sized >= 0 ? sized : most);
  r.end = (CUdeviceptr)most;
  return r;
}

static io *load_io(rt_cuda_module *m, ir_slot_kind kind, int n) {
  io *all = IR_NEW_ARRAY(m->ctx, io, n + 1);
  for (int i = 0; i < n; i++) {
    all[i] = io_of(m->ctx, m, kind, i);
    if (!all[i].slot) continue;
    int64_t bytes = all[i].end ? (int64_t)all[i].end : 1;
    all[i].at = reserve(m, bytes, all[i].slot->name);
    all[i].end = all[i].at + (CUdeviceptr)bytes;
  }
  return all;
}

static void load_memory(rt_cuda_module *m) {
  const ir_program *g = m->p->program;
  m->weights = reserve(m, g->weights_bytes, "weights");
  m->slots.weights = pointer(m->weights);
  m->slots.arena = pointer(reserve(m, g->arena_bytes, "the arena"));
  m->slots.state = pointer(reserve(m, g->state_bytes, "states"));
  m->scratch = reserve(m, m->p->scratch_bytes, "scratch");
  m->slots.dims = m->dims = IR_NEW_ARRAY(m->ctx, int64_t, g->ndims + 1);
  m->vars = IR_NEW_ARRAY(m->ctx, ir_var *, g->ndims + 1);
  for (int i = 0; i < g->ndims; i++) m->vars[i] = g->dims[i].var;
  for (int i = 0; i < g->ndims; i++) m->dims[i] = g->dims[i].var->hi;
  m->in = load_io(m, IR_SLOT_INPUT, g->ninputs);
  m->out = load_io(m, IR_SLOT_OUTPUT, g->noutputs);
  m->back = memcpy(IR_NEW_ARRAY(m->ctx, io, g->ninputs + 1), m->in, sizeof *m->in * (size_t)g->ninputs);
  const void **in = IR_NEW_ARRAY(m->ctx, const void *, g->ninputs + 1);
  void **out = IR_NEW_ARRAY(m->ctx, void *, g->noutputs + 1);
  for (int i = 0; i < g->ninputs; i++) in[i] = pointer(m->in[i].at);
  for (int i = 0; i < g->noutputs; i++) out[i] = pointer(m->out[i].at);
  m->slots.in = in;
  m->slots.out = out;
  load_weights(m->ctx, m, NULL);
}

/* ---- stretches of a run ---- */

static void note(tn_ctx *ctx, rt_cuda_module *m, uint64_t word) {
  if (m->nkey == m->room) {
    int room = m->room ? 2 * m->room : 256;
    uint64_t *more = realloc(m->key, sizeof *more * (size_t)room);
    if (!more) ir_fail(ctx, TN_ERESOURCE, "out of memory");
    m->key = more;
    m->room = room; /* only now: a run may go on after the failure */
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
    rt_cuda_need(ctx, m->d, e, ir_format(ctx, "tensor map %d of kernel '%s'", i, s->name));
  }
  return maps;
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

static bool is_of(const io *x, CUdeviceptr p) { return p >= x->at && p < x->end; }

/* A step that begins at `first` and ends before `end` touches an address. */
static void touch(const rt_cuda_module *m, stretch *t, CUdeviceptr p, bool writes, int first, int end) {
  const ir_program *g = m->p->program;
  for (int i = 0; i < g->ninputs; i++) {
    if (!is_of(&m->in[i], p)) continue;
    if (first < t->touched[i]) t->touched[i] = first;
    if (writes) t->written[g->noutputs + i] = end - 1;
  }
  for (int i = 0; i < g->noutputs && writes; i++)
    if (is_of(&m->out[i], p)) t->written[i] = end - 1;
}

/* Cuts a stretch that is a whole run: where enough bytes are wanted for the first time, or are there for good. At least as many lie between cuts
 * as make no more parts than there may be. */
static void cut(tn_ctx *ctx, const rt_cuda_module *m, stretch *t, bool whole) {
  const ir_program *g = m->p->program;
  t->parts[0] = (part){.end = t->nsteps};
  t->nparts = 1;
  if (!whole || t->nsteps < 2) return;
  size_t *bytes = ir_alloc(t->ctx, sizeof *bytes * (size_t)(t->nsteps + 1)), total = 0, since = 0; /* by step: before it */
  memset(bytes, 0, sizeof *bytes * (size_t)(t->nsteps + 1));
  for (int i = 0; i < g->ninputs; i++) bytes[t->touched[i]] += m->in[i].bytes;
  for (int i = 0; i < g->noutputs; i++) bytes[t->written[i] + 1] += m->out[i].bytes;
  for (int i = 0; i < g->ninputs; i++) bytes[t->written[g->noutputs + i] + 1] += m->in[i].slot && m->in[i].slot->inout ? m->in[i].bytes : 0;
  for (int k = 1; k < t->nsteps; k++) total += bytes[k];
  size_t least = (size_t)m->p->cut_bytes > total / (RT_CUDA_PARTS - 1) ? (size_t)m->p->cut_bytes : total / (RT_CUDA_PARTS - 1);
  for (int k = 1; k < t->nsteps; k++) {
    since += bytes[k];
    if (since < least || !since || t->nparts == RT_CUDA_PARTS) continue;
    t->parts[t->nparts - 1].end = k;
    t->parts[t->nparts++] = (part){.first = k, .end = t->nsteps};
    since = 0;
  }
}

static void make_steps(tn_ctx *ctx, rt_cuda_module *m, stretch *t) {
  const ir_program *g = m->p->program;
  for (uint64_t *at = t->key; at < t->key + t->nkey;) {
    const ir_inst *c = (const ir_inst *)(uintptr_t)*at++;
    if (c) add_call(ctx, m, t, c, at);
    else {
      step s = {.args = (CUdeviceptr *)at, .bytes = (size_t)at[2], .name = "a copy"};
      IR_PUSH(t->ctx, t->steps, t->nsteps, s);
    }
    at += c ? c->nargs + m->p->kernels[c->kernel].kernel->ndims : 3;
  }
  t->touched = IR_NEW_ARRAY(t->ctx, int, g->ninputs + 1);
  t->written = IR_NEW_ARRAY(t->ctx, int, g->noutputs + g->ninputs + 1);
  for (int i = 0; i < g->ninputs; i++) t->touched[i] = t->nsteps;
  for (int i = 0; i < g->noutputs + g->ninputs; i++) t->written[i] = -1;
}

/* The steps again, call by call, with what each argument is for. */
static void find_touched(const rt_cuda_module *m, stretch *t) {
  int first = 0;
  for (const uint64_t *at = t->key; at < t->key + t->nkey;) {
    const ir_inst *c = (const ir_inst *)(uintptr_t)*at++;
    int end = first;
    while (end < t->nsteps && t->steps[end].args == (const CUdeviceptr *)at) end++;
    const ir_kernel *k = c ? m->p->kernels[c->kernel].kernel : NULL;
    for (int i = 0; i < (c ? c->nargs : 2) && end > first; i++) touch(m, t, at[i], c ? k->bufs[i]->access != IR_IN : i == 0, first, end);
    at += c ? c->nargs + k->ndims : 3;
    first = end;
  }
}

/* What was noted, as steps; where there is no room, in the place of what was not used for longest. `whole`: it is all of a run. */
static stretch *new_stretch(tn_ctx *ctx, rt_cuda_module *m, bool whole) {
  stretch t = {.ctx = ir_ctx_like(m->ctx), .nkey = m->nkey}, *place = m->stretches;
  if (!t.ctx) ir_fail(ctx, TN_ERESOURCE, "out of memory");
  for (int i = 1; i < m->nstretches; i++)
    if (m->stretches[i].last < place->last) place = &m->stretches[i];
  if (m->nstretches < STRETCHES) place = &m->stretches[m->nstretches++];
  else {
    rt_cuda_need(ctx, m->d, m->d->cu->stream_wait(m->d->stream), "a run");
    free_stretch(m, place);
  }
  t.key = memcpy(ir_alloc(t.ctx, sizeof *t.key * (size_t)(t.nkey + 1)), m->key, sizeof *t.key * (size_t)t.nkey);
  *place = (stretch){.ctx = t.ctx, .key = t.key}; /* of no key that is looked for, until it is whole */
  make_steps(ctx, m, &t);
  find_touched(m, &t);
  cut(ctx, m, &t, whole);
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
  rt_cuda_need_alive(ctx, d);
  rt_cuda_module *m = IR_NEW(ctx, rt_cuda_module);
  *m = (rt_cuda_module){.ctx = ctx, .d = d, .p = p, .alive = true};
  ir_defer(ctx, free_module, m);
  rt_cuda_need(ctx, d, d->cu->context_set(d->context), "a context");
  load_kernels(m);
  load_memory(m);
  if (p->walked) return m;
  walk_program(ctx, m); /* nothing is decided: one stretch */
  if (m->nkey) new_stretch(ctx, m, true);
  m->nkey = 0;
  return m;
}

/* ---- runs ---- */

static CUresult issue(rt_cuda_module *m, const step *s) {
  const rt_cuda_driver_table *cu = m->d->cu;
  if (s->library) return rt_cuda_step_run(s->library, s->args, m->workspace) ? CUDA_ERROR_UNKNOWN : CUDA_SUCCESS;
  if (!s->f) return cu->copy(s->args[0], s->args[1], s->bytes, m->d->stream);
  return cu->launch(s->f, s->grid, 1, 1, s->threads, 1, 1, s->shared, m->d->stream, s->pointers, NULL);
}

/* The steps of a part as one graph. Where capturing is refused they are issued one by one for ever. */
static void capture(rt_cuda_module *m, const stretch *t, part *p) {
  const rt_cuda_driver_table *cu = m->d->cu;
  CUgraph g = NULL;
  p->refused = true;
  if (cu->capture_begin(m->d->stream, CU_CAPTURE_RELAXED)) return;
  CUresult e = 0;
  for (int i = p->first; i < p->end && !e; i++) e = issue(m, &t->steps[i]);
  if (cu->capture_end(m->d->stream, &g) == 0 && !e && g && cu->graph_make(&p->graph, g, 0)) p->graph = NULL;
  if (g) cu->graph_free(g);
}

/* A program that decides nothing is captured at once, others when they come by the same way again. */
static void run_part(tn_ctx *ctx, rt_cuda_module *m, stretch *t, part *p) {
  if (!p->graph && !p->refused && p->end - p->first > 1 && (t->runs || !m->p->walked)) capture(m, t, p);
  if (p->graph) rt_cuda_need(ctx, m->d, m->d->cu->graph_launch(p->graph, m->d->stream), "a run");
  else
    for (int i = p->first; i < p->end; i++) rt_cuda_need(ctx, m->d, issue(m, &t->steps[i]), t->steps[i].name);
}

/* An input to the device, unless it is there; whether it was not. */
static bool bring(tn_ctx *ctx, rt_cuda_module *m, int i) {
  io *x = &m->in[i];
  if (!m->run.on || x->done) return false;
  x->done = true;
  if (x->bytes) rt_cuda_up(ctx, m->d, m->run.split ? m->d->up : m->d->stream, x->at, m->run.in[i], x->bytes, x->slot->name);
  return x->bytes > 0;
}

/* Output i, of those behind them an input that is changed, to the host once a part is over. */
static void send(tn_ctx *ctx, rt_cuda_module *m, int i, int part) {
  int n = m->p->program->noutputs;
  io *x = i < n ? &m->out[i] : &m->back[i - n];
  if (x->done) return;
  x->done = true;
  if (i >= n && (!x->slot || !x->slot->inout || !m->in[i - n].done)) return;
  rt_cuda_down(ctx, m->d, part, i < n ? m->run.out[i] : (void *)(uintptr_t)m->run.in[i - n], x->at, x->bytes, x->bytes ? x->slot->name : "");
}

/* `end`: nothing follows in this run. */
static void run_stretch(tn_ctx *ctx, rt_cuda_module *m, stretch *t, bool end) {
  const ir_program *g = m->p->program;
  m->run.split = m->run.on && end && !m->run.decided && t->nparts > 1;
  for (part *p = t->parts; p < t->parts + t->nparts; p++) {
    int number = (int)(p - t->parts);
    bool brought = false, left = false;
    for (int i = 0; i < g->ninputs; i++)
      if (t->touched[i] < p->end) brought |= bring(ctx, m, i);
    if (brought && m->run.split) rt_cuda_arrive(ctx, m->d);
    run_part(ctx, m, t, p);
    for (int i = 0; i < g->noutputs + g->ninputs && m->run.split; i++) {
      if (t->written[i] < p->first || t->written[i] >= p->end) continue;
      if (!left) rt_cuda_leave(ctx, m->d, number);
      left = true;
      send(ctx, m, i, number);
    }
  }
  t->runs++;
  t->last = m->runs;
}

/* Issues what was noted. */
static void flush(tn_ctx *ctx, rt_cuda_module *m, bool end) {
  if (!m->nkey) return;
  stretch *t = NULL;
  for (int i = 0; i < m->nstretches && !t; i++)
    if (m->stretches[i].nkey == m->nkey && memcmp(m->stretches[i].key, m->key, sizeof *m->key * (size_t)m->nkey) == 0) t = &m->stretches[i];
  if (!t) t = new_stretch(ctx, m, end && !m->run.decided);
  m->nkey = 0;
  run_stretch(ctx, m, t, end);
}

static void read_value(void *user, void *to, const void *from, size_t bytes) {
  walk *w = user;
  rt_cuda_module *m = w->m;
  CUdeviceptr p = (CUdeviceptr)(uintptr_t)from;
  int input = 0;
  while (input < m->p->program->ninputs && !is_of(&m->in[input], p)) input++;
  const io *x = input < m->p->program->ninputs ? &m->in[input] : NULL;
  if (x && m->run.on && !x->slot->inout && p - x->at + bytes <= x->bytes) { /* what the caller gave is here, too: nothing to wait for */
    memcpy(to, (const char *)m->run.in[input] + (p - x->at), bytes);
    return;
  }
  m->run.decided = true;
  flush(w->ctx, m, false);
  if (x && bring(w->ctx, m, input) && m->run.split) rt_cuda_arrive(w->ctx, m->d);
  rt_cuda_need(w->ctx, m->d, m->d->cu->to_host(to, p, bytes, m->d->stream), "a value that the program asks for");
  rt_cuda_need(w->ctx, m->d, m->d->cu->stream_wait(m->d->stream), "a value that the program asks for");
}

static void run_once(tn_ctx *ctx, rt_cuda_module *m) {
  m->runs++;
  m->run.decided = false;
  if (m->p->walked) {
    walk_program(ctx, m);
    flush(ctx, m, true);
  } else if (m->nstretches) run_stretch(ctx, m, m->stretches, true);
}

static void ready(tn_ctx *ctx, rt_cuda_module *m) {
  rt_cuda_need_alive(ctx, m->d);
  rt_cuda_need(ctx, m->d, m->d->cu->context_set(m->d->context), "a context");
}

/* What a run needs to know of inputs or outputs, anew. */
static void start_io(tn_ctx *ctx, rt_cuda_module *m, io *all, ir_slot_kind kind, int n) {
  for (int i = 0; i < n; i++) {
    all[i].done = false;
    if (m->p->program->ndims) all[i].bytes = io_of(ctx, m, kind, i).bytes;
  }
}

/* After a failure: copies under way are waited for, the caller's memory is its own again. */
static void end_run(void *arg) {
  rt_cuda_module *m = arg;
  if (m->run.on) rt_cuda_copies_drop(m->d);
  m->run.on = false;
}

void rt_cuda_run(tn_ctx *ctx, rt_cuda_module *m, const void *const in[], void *const out[], const int64_t dims[], int64_t out_dims[], void *state) {
  const ir_program *g = m->p->program;
  if (rt_check_dims(g, dims)) ir_fail(ctx, TN_EUSAGE, "a dimension has no value, or one that the program was not made for");
  if (g->ndims) memcpy(m->dims, dims, sizeof *dims * (size_t)g->ndims);
  ready(ctx, m);
  start_io(ctx, m, m->in, IR_SLOT_INPUT, g->ninputs);
  start_io(ctx, m, m->out, IR_SLOT_OUTPUT, g->noutputs);
  start_io(ctx, m, m->back, IR_SLOT_INPUT, g->ninputs);
  m->run.on = true;
  m->run.split = false;
  m->run.in = in;
  m->run.out = out;
  ir_defer(ctx, end_run, m);
  CUdeviceptr at = (CUdeviceptr)(uintptr_t)m->slots.state;
  rt_cuda_up(ctx, m->d, m->d->stream, at, state, (size_t)g->state_bytes, "states");
  run_once(ctx, m);
  rt_extents(ctx, g, &m->slots, &(walk){ctx, m}, out_dims);
  int part = m->run.split ? RT_CUDA_PARTS : -1;
  if (m->run.split) rt_cuda_leave(ctx, m->d, part);
  for (int i = 0; i < g->noutputs + g->ninputs; i++) send(ctx, m, i, part);
  rt_cuda_down(ctx, m->d, part, state, at, (size_t)g->state_bytes, "states");
  rt_cuda_down_end(ctx, m->d);
  m->run.on = false;
  ir_undefer(ctx, end_run, m);
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
  rt_cuda_need(ctx, d, cu->event_record(t->start, d->stream), "a timed run");
  for (int i = 0; i < t->runs; i++) run_once(ctx, t->m);
  rt_cuda_need(ctx, d, cu->event_record(t->end, d->stream), "a timed run");
  rt_cuda_need(ctx, d, cu->event_wait(t->end), "a timed run");
  rt_cuda_need(ctx, d, cu->event_elapsed(&t->ms, t->start, t->end), "a timed run");
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
  rt_cuda_need(ctx, m->d, m->d->cu->event_new(&t->start, CU_EVENT_DEFAULT), "an event");
  rt_cuda_need(ctx, m->d, m->d->cu->event_new(&t->end, CU_EVENT_DEFAULT), "an event");
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
