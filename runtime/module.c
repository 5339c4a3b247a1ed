/* module.c — see module.h. */
#include "runtime/module.h"
#include "codegen/jit.h"
#include "frontend/file.h"
#include "runtime/exec.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ------------------------------------------------------ packed weights ---- */

typedef int (*run_fn)(const void *const *in, void *const *out, const int64_t *dims, int64_t *out_dims, const void *weights,
                      void *state, void *arena, const rt_threads *threads);
static void free_pool(void *arg) {
  rt_pool **pool = arg;
  rt_pool_free(*pool);
  *pool = NULL;
}

/* The pack section into a new blob, or into `file`, `at` bytes from its start (null: none). The blob must outlive ctx' frame. */
static void pack_new(tn_ctx *ctx, rt_packing w, int jobs, rt_region *blob) {
  ir_defer(ctx, rt_region_free, blob); /* first: registering may itself throw */
  rt_pool **pool = IR_NEW(ctx, rt_pool *);
  ir_defer(ctx, free_pool, pool);
  if (jobs > 1) *pool = rt_pool_new(jobs);
  if (!rt_region_get(blob, cg_blob_bytes(w.p))) ir_fail(ctx, TN_ERESOURCE, "no memory for %lld bytes of weights", (long long)cg_blob_bytes(w.p));
  w.threads = rt_pool_threads(*pool), w.blob = blob->p;
  rt_pack(ctx, &w);
  ir_undefer(ctx, free_pool, pool);
  free_pool(pool);
}

static void link_parts(tn_ctx *ctx, cg_jit *jit, const cg_build *b) {
  for (int i = 0; i < b->nparts; i++)
    if (b->parts[i].bytes) cg_jit_add(ctx, jit, b->parts[i].bytes, b->parts[i].size);
}

/* Where the kernels lie, by program kernel; null where none is wanted. */
static const rt_kernel *kernels_of(tn_ctx *ctx, cg_jit *jit, const ir_program *p, const cg_build *b) {
  rt_kernel *k = IR_NEW_ARRAY(ctx, rt_kernel, p->nkernels + 1);
  for (int i = 0; i < p->nkernels; i++)
    if (b->infos[i].symbol) k[i] = (rt_kernel)cg_jit_symbol(ctx, jit, b->infos[i].symbol);
  return k;
}

static const cg_target *target_here(tn_ctx *ctx, const cg_target *t) {
  if (!t) return cg_target_find(ctx, NULL, NULL);
  const char *missing = NULL;
  if (!cg_target_runs_here(ctx, t, &missing)) ir_fail(ctx, TN_EUSAGE, "code for '%s' does not run here: no %s", t->name, missing);
  return t;
}

/* ------------------------------------------------------------- modules ---- */

typedef struct arena { /* memory of one run, in the module's pool while idle */
  struct arena *next;
  rt_region memory;
} arena;

struct rt_module {
  const ir_program *p;
  const cg_build *build;
  cg_jit *jit;
  run_fn run;
  const rt_kernel *kernels; /* per program kernel */
  rt_region blob;           /* weights, with room for packing again */
  pthread_mutex_t lock;  /* of the pool */
  arena *idle;
};

static void free_arenas(void *arg) {
  rt_module *m = arg;
  for (arena *a = m->idle; a;) {
    arena *next = a->next;
    rt_region_free(&a->memory);
    free(a);
    a = next;
  }
  m->idle = NULL;
}

/* With TN_PERF_MAP set, tells `perf report` the kernels' names, as JIT compilers do: lines
 * "address size name" in /tmp/perf-PID.map. */
static void perf_map(const rt_module *m) {
  if (!getenv("TN_PERF_MAP")) return;
  char path[64];
  snprintf(path, sizeof path, "/tmp/perf-%ld.map", (long)getpid());
  FILE *f = fopen(path, "a");
  if (!f) return;
  bool *done = calloc((size_t)m->build->nparts + 1, sizeof *done);
  for (int i = 0; done && i < m->p->nkernels; i++) {
    int part = m->build->part_of[i];
    if (part < 0 || done[part] || !m->build->parts[part].code_bytes) continue;
    done[part] = true;
    fprintf(f, "%lx %zx %s\n", (unsigned long)(uintptr_t)m->kernels[i], m->build->parts[part].code_bytes, m->build->parts[part].name);
  }
  free(done);
  fclose(f);
}

rt_module *rt_module_build(tn_ctx *ctx, const ir_program *p, const rt_options *options) {
  rt_options o = options ? *options : (rt_options){0};
  rt_module *m = IR_NEW(ctx, rt_module);
  bool weights = p->weights_bytes > 0;
  m->p = p;
  cg_build_options bo = {.target = target_here(ctx, o.target), .run = true, .pack = weights, .jobs = o.jobs, .cache = o.cache};
  m->build = cg_build_kernels(ctx, p, &bo);
  m->jit = cg_jit_new(ctx);
  cg_entry_options eo = {.run = "tn_program_run"};
  link_parts(ctx, m->jit, m->build);
  const cg_object *entry = cg_compile_entry(ctx, m->build->target, p, m->build->infos, &eo);
  cg_jit_add(ctx, m->jit, entry->bytes, entry->size);
  m->run = (run_fn)cg_jit_symbol(ctx, m->jit, eo.run);
  m->kernels = kernels_of(ctx, m->jit, p, m->build);
  if (weights) pack_new(ctx, (rt_packing){.p = p, .infos = m->build->infos, .kernels = m->kernels}, o.jobs, &m->blob);
  perf_map(m);
  pthread_mutex_init(&m->lock, NULL);
  ir_defer(ctx, free_arenas, m);
  return m;
}

void rt_module_free(tn_ctx *ctx, rt_module *m) {
  if (!m) return;
  ir_undefer(ctx, free_arenas, m);
  free_arenas(m);
  if (m->blob.p) {
    ir_undefer(ctx, rt_region_free, &m->blob);
    rt_region_free(&m->blob);
  }
  cg_jit_free(ctx, m->jit);
  m->jit = NULL;
}

void rt_module_repack(tn_ctx *ctx, rt_module *m, const void *const raw[]) {
  if (m->blob.p) rt_pack(ctx, &(rt_packing){.p = m->p, .infos = m->build->infos, .kernels = m->kernels, .raw = raw, .blob = m->blob.p});
}

/* An arena of at least `bytes`: an idle one, or a new one. Null when memory is out. */
static arena *take_arena(rt_module *m, int64_t bytes) {
  arena *found = NULL;
  pthread_mutex_lock(&m->lock);
  for (arena **a = &m->idle; *a; a = &(*a)->next)
    if ((*a)->memory.bytes >= (size_t)bytes) {
      found = *a, *a = found->next;
      break;
    }
  if (!found && m->idle) { /* all too small: the first one gives way */
    arena *small = m->idle;
    m->idle = small->next;
    rt_region_free(&small->memory);
    free(small);
  }
  pthread_mutex_unlock(&m->lock);
  if (found) return found;
  found = calloc(1, sizeof *found);
  if (found && rt_region_get(&found->memory, bytes)) return found;
  free(found);
  return NULL;
}

static void give_arena(rt_module *m, arena *a) {
  pthread_mutex_lock(&m->lock);
  a->next = m->idle;
  m->idle = a;
  pthread_mutex_unlock(&m->lock);
}

int rt_run(const rt_module *m, const void *const in[], void *const out[], void *state, const rt_threads *threads) {
  return rt_run_sized(m, in, out, NULL, NULL, state, threads);
}

int rt_run_sized(const rt_module *cm, const void *const in[], void *const out[], const int64_t dims[], int64_t out_dims[], void *state, const rt_threads *threads) {
  rt_module *m = (rt_module *)cm; /* the pool of arenas is behind a lock */
  int workers = threads ? threads->workers : 1;
  if (workers < 1) return CG_RUN_ARG;
  arena *a = take_arena(m, rt_module_arena_bytes(m, workers));
  if (!a) return RT_NO_MEMORY;
  int code = m->run(in, out, dims, out_dims, m->blob.p, state, a->memory.p, threads);
  give_arena(m, a);
  return code;
}

/* ------------------------------------------------------------ profiles ---- */

typedef struct share { /* what one worker did of one call; a cache line each */
  _Alignas(64) double start, end;
  int tasks;
} share;

typedef struct timed {
  const rt_module *m;
  const rt_threads *threads;
  rt_profile *profile;
  uint8_t *scratch;
  share *shares; /* per worker */
  int nshares, calls;
  rt_kernel kernel; /* of the call that runs */
  void **args;
} timed;

static void timed_task(void *arg, int task, int worker) {
  timed *t = arg;
  share *s = &t->shares[worker];
  double before = rt_now();
  if (s->tasks++ == 0) s->start = before;
  t->kernel(t->args, task, worker);
  s->end = rt_now();
}

static void timed_call(void *user, const ir_inst *c, void *const *args, const int64_t *dims) {
  timed *t = user;
  const ir_program_kernel *pk = &t->m->p->kernels[c->kernel];
  const ir_kernel *k = pk->lowered ? pk->lowered : pk->kernel;
  const cg_kernel_info *info = &t->m->build->infos[c->kernel];
  tn_ctx *ctx = t->profile->ctx;
  void **all = malloc(sizeof *all * (size_t)(c->nargs + 1 + k->ndims));
  if (!all) ir_fail(ctx, TN_ERESOURCE, "out of memory");
  memcpy(all, args, sizeof *all * (size_t)c->nargs);
  all[c->nargs] = t->scratch;
  for (int d = 0; d < k->ndims; d++) all[c->nargs + 1 + d] = (void *)&dims[d];
  int64_t ntasks = 1;
  if (!ix_const_value(info->ntasks, &ntasks)) {
    free(all);
    ir_fail(ctx, TN_EUNSUPPORTED, "the number of tasks of kernel '%s' depends on a dimension", k->name);
  }
  t->kernel = t->m->kernels[c->kernel], t->args = all;
  memset(t->shares, 0, sizeof *t->shares * (size_t)t->nshares);
  rt_span span = {.name = c->name, .kernel = k->name, .run = t->profile->runs, .call = t->calls++, .worker = -1, .tasks = (int)ntasks};
  span.start = rt_now();
  rt_run_tasks(info, ntasks, t->threads, timed_task, t);
  span.end = rt_now();
  free(all);
  rt_profile_add(t->profile, span);
  for (int w = 0; w < t->nshares; w++) {
    if (t->shares[w].tasks == 0) continue;
    span.worker = w, span.tasks = t->shares[w].tasks, span.start = t->shares[w].start, span.end = t->shares[w].end;
    rt_profile_add(t->profile, span);
  }
}

typedef struct profiled {
  rt_module *m;
  rt_memory memory;
  timed t;
} profiled;

static void run_timed(tn_ctx *ctx, void *arg) {
  profiled *x = arg;
  rt_exec(ctx, x->m->p, x->m->p->nrun, x->m->p->run, &x->memory, timed_call, &x->t);
}

int rt_run_profiled(tn_ctx *ctx, const rt_module *cm, const void *const in[], void *const out[], const int64_t dims[], void *state,
                    const rt_threads *threads, rt_profile *profile) {
  rt_module *m = (rt_module *)cm;
  int workers = threads ? threads->workers : 1;
  if (workers < 1 || (m->p->ninputs && !in) || (m->p->noutputs && !out) || (m->p->state_bytes && !state)) return CG_RUN_ARG;
  int wrong = rt_check_dims(m->p, dims);
  if (wrong) return wrong;
  for (int i = 0; i < m->p->nslots; i++) {
    const ir_slot *s = &m->p->slots[i];
    if (s->bytes && s->kind == IR_SLOT_INPUT && !in[s->index]) return CG_RUN_ARG;
    if (s->bytes && s->kind == IR_SLOT_OUTPUT && !out[s->index]) return CG_RUN_ARG;
  }
  arena *a = take_arena(m, rt_module_arena_bytes(m, workers));
  share *shares = aligned_alloc(64, sizeof *shares * (size_t)workers);
  if (!a || !shares) {
    if (a) give_arena(m, a);
    free(shares);
    return RT_NO_MEMORY;
  }
  profiled x = {.m = m};
  x.memory = (rt_memory){.in = in, .out = out, .state = state, .arena = a->memory.p, .dims = dims,
                         .weights = m->blob.p ? (uint8_t *)m->blob.p + CG_BLOB_HEADER : NULL};
  x.t = (timed){.m = m, .threads = threads, .profile = profile, .shares = shares, .nshares = workers,
                .scratch = (uint8_t *)a->memory.p + cg_scratch_at(m->p)};
  tn_status status = ir_protect(ctx, run_timed, &x);
  profile->runs++;
  give_arena(m, a);
  free(shares);
  if (status != TN_OK) ir_fail(ctx, status, "%s", ir_strdup(ctx, ir_error(ctx)));
  return CG_RUN_OK;
}

const ir_program *rt_module_program(const rt_module *m) { return m->p; }
const cg_build *rt_module_kernels(const rt_module *m) { return m->build; }
const cg_target *rt_module_target(const rt_module *m) { return m->build->target; }
int64_t rt_module_arena_bytes(const rt_module *m, int workers) { return cg_arena_bytes(m->p, m->build->infos, workers); }
const void *rt_module_weights(const rt_module *m) { return m->blob.p; }

/* -------------------------------------------------------------- objects ---- */

/* Packing with code for this machine, which is gone afterwards. */
typedef struct packing {
  const ir_program *p;
  const void *const *raw; /* as rt_packing has it */
  int jobs;
  const cg_cache *cache;
  fe_writer *file; /* packed into it, `at` bytes from its start; null: into the blob */
  int64_t at;
  rt_region *blob; /* outlives the context that packs */
} packing;

static void pack_here(tn_ctx *ctx, void *arg) {
  packing *w = arg;
  /* one thread has nothing of many objects, but what each of them costs; a cache keeps kernels one by one */
  cg_build_options bo = {.target = cg_target_find(ctx, NULL, NULL), .pack = true, .together = w->jobs <= 1 && !w->cache, .jobs = w->jobs, .cache = w->cache};
  const cg_build *b = cg_build_kernels(ctx, w->p, &bo);
  cg_jit *jit = cg_jit_new(ctx);
  link_parts(ctx, jit, b);
  rt_packing r = {.p = w->p, .infos = b->infos, .kernels = kernels_of(ctx, jit, w->p, b), .raw = w->raw, .at = (size_t)w->at};
  r.file = w->file && fe_write_ahead(w->file, r.at, (size_t)cg_blob_bytes(w->p)) ? w->file : NULL;
  pack_new(ctx, r, w->jobs, w->blob);
  ir_undefer(ctx, rt_region_free, w->blob);
  cg_jit_free(ctx, jit);
}

const void *rt_pack_weights(tn_ctx *ctx, const ir_program *p, const void *const raw[], int jobs) {
  packing w = {.p = p, .raw = raw, .jobs = jobs, .blob = IR_NEW(ctx, rt_region)};
  ir_defer(ctx, rt_region_free, w.blob);
  if (p->weights_bytes > 0) pack_here(ctx, &w);
  return w.blob->p;
}

void rt_write_object(tn_ctx *ctx, const ir_program *p, const rt_object_options *o) {
  cg_check_prefix(ctx, o->files.prefix);
  bool pointer = o->files.weights == CG_WEIGHTS_POINTER, packs = !pointer && p->weights_bytes > 0;
  const cg_target *t = o->target ? o->target : cg_target_find(ctx, NULL, NULL);
  cg_object_files *files = cg_object_begin(ctx, p, &o->files);
  packing w = {.p = p, .jobs = o->jobs, .cache = o->cache, .blob = IR_NEW(ctx, rt_region)};
  ir_defer(ctx, rt_region_free, w.blob);
  cg_build_options bo = {.target = t, .run = !o->files.cuda, .pack = pointer, .jobs = o->jobs, .cache = o->cache};
  bool beside = packs && o->jobs > 1 && bo.run && !o->cache; /* a cache is for one thread */
  if (packs) w.file = cg_object_weights(files, &w.at);
  if (beside) w.jobs = 1, bo.beside = pack_here, bo.user = &w;
  const cg_build *b = cg_build_kernels(ctx, p, &bo);
  if (packs && !beside) pack_here(ctx, &w);
  cg_object_end(ctx, files, b, w.blob->p);
  ir_undefer(ctx, rt_region_free, w.blob);
  rt_region_free(w.blob);
}
