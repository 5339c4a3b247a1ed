/* api_module.c — graphs become modules and objects.
 *
 *   graph ── copy into a context of its own ── passes ── program ─┬─ rt_module: tn_run
 *            (dimensions bound, parameters by pointer)            └─ object files
 *
 * A module owns that context, so it can be freed without its graph. It borrows the parameters'
 * bytes from the graph, whose context outlives it, until tn_module_set gives it its own. */
#include "autotune/lookup.h"
#include "frontend/api_module.h"
#include "lower/lower.h"
#include <stdlib.h>
#include <string.h>

/* ---- copies ---- */

/* Inputs that tn_fix_input gave a value become constants, and leave the list of inputs. */
static void fix_inputs(tn_ctx *ctx, const tn_graph *g, ir_graph *h, ir_value **map) {
  int n = 0;
  for (int i = 0; i < g->g->ninputs; i++) {
    const tn_tensor *t = ir_map_get(&g->tensors, g->g->inputs[i]);
    ir_value *v = map[g->g->inputs[i]->id];
    if (!t || !t->fixed) {
      h->inputs[n++] = v;
      continue;
    }
    v->kind = IR_VALUE_CONST;
    v->data_bytes = ir_value_bytes(ctx, v);
    v->data = t->fixed;
    IR_PUSH(ctx, h->params, h->nparams, v);
  }
  h->ninputs = n;
}

/* Constants and parameters that something reads must have data. */
static void check_data(tn_ctx *ctx, ir_graph *h) {
  ir_graph_analyse(h);
  for (int i = 0; i < h->nparams; i++) {
    const ir_value *v = h->params[i];
    if (v->kind != IR_VALUE_STATE && v->nuses && !ir_value_source(v) && v->data_bytes)
      ir_fail(ctx, TN_EUSAGE, "'%s' has no data", v->name);
  }
}

static bool several(const tn_graph *g) {
  for (int i = 0; i < g->ndims; i++)
    if (g->dims[i].several) return true;
  return false;
}

/* All dims that have sizes, for a program of several. */
static lw_dim *sizes_of(tn_ctx *ctx, const tn_graph *g, int *n) {
  lw_dim *d = IR_NEW_ARRAY(ctx, lw_dim, g->ndims + 1);
  *n = 0;
  for (int i = 0; i < g->ndims; i++) {
    const fe_dim *s = &g->dims[i];
    if (s->several) d[(*n)++] = *s->several;
    else if (s->size >= 0) d[(*n)++] = (lw_dim){.name = s->var->name, .lo = s->size, .hi = s->size, .n = 1, .sizes = &s->size};
  }
  return d;
}

static void bind_dims(tn_ctx *ctx, const tn_graph *g, ir_graph *h) {
  const char **names = IR_NEW_ARRAY(ctx, const char *, g->ndims + 1);
  int64_t *sizes = IR_NEW_ARRAY(ctx, int64_t, g->ndims + 1);
  int n = 0;
  if (several(g)) return; /* each program binds its own */
  for (int i = 0; i < g->ndims; i++)
    if (g->dims[i].size >= 0) names[n] = g->dims[i].var->name, sizes[n++] = g->dims[i].size;
  ir_text missing = {.ctx = ctx};
  for (int i = 0; i < g->ndims; i++) {
    const char *name = g->dims[i].var->name;
    bool used = false;
    for (int k = 0; k < h->ninputs; k++)
      for (int a = 0; a < h->inputs[k]->rank; a++) {
        ix d = h->inputs[k]->dims[a];
        used |= d->op == IX_VAR && strcmp(d->u.var->name, name) == 0;
      }
    if (used && g->dims[i].size < 0) ir_put(&missing, "%s%s", missing.n ? ", " : "", name);
  }
  if (missing.n) ir_fail(ctx, TN_EUSAGE, "dimensions without a size: %s (give them with tn_graph_set_dim)", missing.s);
  lw_bind_dims(ctx, h, n, names, sizes);
}

static bool is_updated(const ir_graph *g, const ir_value *v) {
  for (int i = 0; i < g->nupdates; i++)
    if (g->updates[i] == v) return true;
  return false;
}

ir_graph *fe_copy(tn_ctx *ctx, const tn_graph *g, bool freeze, int nfetch, tn_tensor *const *fetch, ir_value ***map) {
  ir_graph *h = ir_graph_clone(ctx, g->g, map);
  for (int i = 0; i < h->nvalues; i++) { /* what was known with symbolic dimensions is found again */
    ir_value *v = h->values[i];
    if (v->kind == IR_VALUE_NODE) v->data = NULL, v->data_bytes = 0;
    if (v->kind != IR_VALUE_PARAM) continue;
    if (is_updated(h, v)) {
      if (!v->raw && v->data_bytes) ir_fail(ctx, TN_EUSAGE, "'%s' has no data", v->name);
      v->kind = IR_VALUE_STATE;
      v->start = v->raw;
      v->raw = NULL;
    }
    if (v->kind != IR_VALUE_PARAM || !freeze) continue;
    v->kind = IR_VALUE_CONST;
    v->data = v->raw;
    v->raw = NULL;
  }
  bind_dims(ctx, g, h);
  fix_inputs(ctx, g, h, *map);
  for (int i = 0; i < nfetch; i++) ir_graph_output(h, (*map)[fetch[i]->v->id]);
  return h;
}

/* ---- types of loaded graphs ---- */

typedef struct refresh_args {
  tn_graph *g;
  ir_graph *h;    /* the inferred copy, in a context of its own */
  ir_value **map;
} refresh_args;

static void refresh_infer(tn_ctx *ctx, void *arg) {
  refresh_args *a = arg;
  a->h = fe_copy(ctx, a->g, false, 0, NULL, &a->map);
  lw_pass_infer(ctx, a->h, &(lw_options){0});
}

static void refresh_apply(tn_ctx *ctx, void *arg) {
  refresh_args *a = arg;
  for (int i = 0; i < a->g->g->nvalues; i++) {
    ir_value *v = a->g->g->values[i];
    const ir_value *w = a->map[v->id];
    int64_t d;
    bool known = v->kind == IR_VALUE_NODE && w->dtype != TN_NONE && w->rank >= 0;
    for (int k = 0; k < w->rank && known; k++) known = ix_const_value(w->dims[k], &d);
    if (!known) continue;
    v->dtype = w->dtype;
    v->rank = w->rank;
    for (int k = 0; k < w->rank; k++) v->dims[k] = ix_index(ctx, w->dims[k]->u.i);
  }
}

void fe_refresh(tn_graph *g) {
  refresh_args a = {.g = g};
  tn_ctx *own = ir_ctx_like(g->ctx);
  if (!own) return;
  if (ir_protect(own, refresh_infer, &a) == TN_OK) (void)ir_protect(g->ctx, refresh_apply, &a);
  else ir_log(g->ctx, "types are not known yet: %s", ir_error(own));
  tn_ctx_free(own);
}

/* ---- modules ---- */

static void free_pool(void *pool) { rt_pool_free(pool); }
static void free_lock(void *lock) { pthread_rwlock_destroy(lock); }
static void free_module(void *m) { tn_ctx_free(((tn_module *)m)->ctx); }

typedef struct build_args {
  tn_graph *g;
  const tn_options *o;
  int nfetch;
  tn_tensor *const *fetch;
  tn_module *m;
} build_args;

static int thread_count(int n) { return n < 0 ? rt_cpu_count() : n ? n : 1; }

static double accuracy_of(tn_ctx *ctx, const tn_options *o) {
  if (!o->accuracy) return LW_ACCURACY;
  if (strcmp(o->accuracy, "strict") == 0) return 0;
  char *end;
  double v = strtod(o->accuracy, &end);
  if (end == o->accuracy || *end || !(v >= 0 && v < 1)) ir_fail(ctx, TN_EUSAGE, "accuracy '%s' is neither strict nor a number in [0, 1)", o->accuracy);
  return v;
}

static void name_outputs(ir_program *p, const char *const *names) {
  for (int i = 0; i < p->nslots; i++) /* passes replace values; outputs keep their names */
    if (p->slots[i].kind == IR_SLOT_OUTPUT) p->slots[i].name = names[p->slots[i].index];
}

static const char **check_outputs(tn_ctx *ctx, ir_graph *h) {
  const char **names = IR_NEW_ARRAY(ctx, const char *, h->noutputs + 1);
  for (int i = 0; i < h->noutputs; i++) names[i] = h->outputs[i]->name;
  if (!h->noutputs) ir_fail(ctx, TN_EUSAGE, "the graph has no output: mark one with tn_output");
  check_data(ctx, h);
  return names;
}

static ir_program *lower_cuda(tn_ctx *ctx, const tn_graph *of, ir_graph *h, const cu_target *t, const char *db, bool starts, double accuracy) {
  const char **names = check_outputs(ctx, h);
  int nsizes = 0;
  const lw_dim *sizes = several(of) ? sizes_of(ctx, of, &nsizes) : NULL;
  lw_options o = rt_cuda_lowering(ctx, sizes ? LW_LAYOUT_AUTO : fe_cuda_layout(ctx, h, t, db, accuracy));
  o.starts = starts;
  ir_program *p = sizes ? rt_cuda_lower_sizes(ctx, h, nsizes, sizes, &o) : lw_compile(ctx, h, &o);
  name_outputs(p, names);
  return p;
}

/* `of`: the graph that h is a copy of; null: of one size. */
static ir_program *lower(tn_ctx *ctx, const tn_graph *of, ir_graph *h, const cg_target *target, const char *db, int threads, bool starts, double accuracy) {
  const char **names = check_outputs(ctx, h);
  int nsizes = 0;
  const lw_dim *sizes = of && several(of) ? sizes_of(ctx, of, &nsizes) : NULL;
  lw_options o = {.target = target, .starts = starts, .accuracy = accuracy};
  at_store *store = at_store_open(ctx, db, AT_STORE_READONLY); /* null for "none" */
  if (store) {
    o.schedule = at_lookup_schedule;
    o.user = at_lookup_new(ctx, store, target, threads, NULL, NULL);
  }
  if (store && !sizes) {
    at_key key = at_layout_key(ctx, h, target, threads), whole = at_whole_key(ctx, h, target, threads), cut = at_cut_key(ctx, h, target, threads);
    if (at_lookup_untuned(o.user, &whole)) o.schedule = NULL;
    else o.layout = at_lookup_layout(o.user, &key), o.cut = at_listed_cut, o.cut_user = (void *)at_lookup_cuts(ctx, o.user, &cut);
  }
  ir_program *p = sizes ? lw_compile_sizes(ctx, h, nsizes, sizes, &o) : lw_compile(ctx, h, &o);
  at_store_close(store);
  name_outputs(p, names);
  return p;
}

rt_module *fe_build(tn_ctx *ctx, ir_graph *h, const tn_options *o) {
  double accuracy = accuracy_of(ctx, o);
  if (fe_cuda_arch(ctx, o->target)) ir_fail(ctx, TN_EUNSUPPORTED, "eager graphs run on the CPU, not on target '%s'", o->target);
  const cg_target *target = cg_target_find(ctx, o->cpu, o->triple);
  const ir_program *p = lower(ctx, NULL, h, target, o->db, thread_count(o->threads), false, accuracy);
  return rt_module_build(ctx, p, &(rt_options){.target = target, .jobs = thread_count(o->jobs)});
}

const ir_slot *fe_find_slot(const ir_program *p, ir_slot_kind kind, int index) {
  for (int i = 0; i < p->nslots; i++)
    if (p->slots[i].kind == kind && p->slots[i].index == index) return &p->slots[i];
  return NULL;
}

/* Which parameter each raw slot's bytes belong to, so that they can be replaced. */
static void find_params(tn_ctx *ctx, tn_module *m, const tn_graph *g, const ir_program *p) {
  for (int i = 0; i < g->g->nparams; i++) {
    const ir_value *v = g->g->params[i];
    const tn_tensor *t = v->kind == IR_VALUE_PARAM ? ir_map_get(&g->tensors, v) : NULL;
    if (!t) continue; /* no handle: nobody can name it */
    fe_param q = {t, v->data_bytes, NULL};
    int index = m->nparams;
    IR_PUSH(ctx, m->params, m->nparams, q);
    for (int k = 0; k < p->nslots; k++) {
      const ir_slot *s = &p->slots[k];
      if (s->kind != IR_SLOT_RAW || !v->raw || !v->data_bytes) continue;
      fe_raw_slot r = {s->index, index};
      if (s->data == v->raw && !s->offset) IR_PUSH(ctx, m->raws, m->nraws, r);
    }
  }
  m->raw = IR_NEW_ARRAY(ctx, const void *, p->nraw + 1);
}

static void make_state(tn_ctx *ctx, tn_module *m, const tn_graph *g, const ir_program *p, ir_value **map) {
  bool any = false;
  for (int i = 0; i < p->nslots; i++) any |= p->slots[i].kind == IR_SLOT_STATE;
  if (!any) return;
  m->state = aligned_alloc(64, (size_t)p->state_bytes + 64); /* whole cache lines */
  if (!m->state) ir_fail(ctx, TN_ERESOURCE, "out of memory for %lld bytes of state", (long long)p->state_bytes);
  ir_defer(ctx, free, m->state);
  rt_state_start(p, m->state);
  for (int i = 0; i < g->g->nparams; i++) {
    const ir_value *v = g->g->params[i], *w = map[v->id];
    const tn_tensor *t = ir_map_get(&g->tensors, v);
    if (w->kind != IR_VALUE_STATE || !t) continue;
    for (int k = 0; k < p->nslots; k++)
      if (p->slots[k].kind == IR_SLOT_STATE && strcmp(p->slots[k].name, w->name) == 0) {
        fe_kept s = {t, p->slots[k].offset, p->slots[k].bytes};
        IR_PUSH(ctx, m->kept, m->nkept, s);
        break;
      }
  }
}

static void build(tn_ctx *ctx, void *arg) {
  build_args *a = arg;
  const tn_graph *g = a->g;
  const tn_options o = a->o ? *a->o : (tn_options){0};
  tn_module *m = IR_NEW(ctx, tn_module);
  m->ctx = ctx;
  m->owner = g->ctx;
  double accuracy = accuracy_of(ctx, &o);
  const cg_target *target = cg_target_find(ctx, o.cpu, o.triple);
  const char *arch = fe_cuda_arch(ctx, o.target);
  if (arch) m->cuda = fe_cuda_open(ctx, arch);
  tn_tensor **more = IR_NEW_ARRAY(ctx, tn_tensor *, a->nfetch + 1); /* fetched, and no outputs anyway */
  int nmore = 0;
  for (int i = 0; i < a->nfetch; i++) {
    bool already = false;
    for (int k = 0; k < g->noutputs; k++) already |= g->outputs[k] == a->fetch[i];
    for (int k = 0; k < nmore; k++) already |= more[k] == a->fetch[i];
    if (!already) more[nmore++] = a->fetch[i];
  }
  ir_value **map;
  ir_graph *h = fe_copy(ctx, g, false, nmore, more, &map);
  /* the handles of ports: what the user calls them */
  m->nin = h->ninputs;
  m->nout = ir_graph_results(h);
  m->in = IR_NEW_ARRAY(ctx, fe_port, m->nin + 1);
  m->out = IR_NEW_ARRAY(ctx, fe_port, m->nout + 1);
  int n = 0;
  for (int i = 0; i < g->g->ninputs; i++) {
    const tn_tensor *t = ir_map_get(&g->tensors, g->g->inputs[i]);
    if (!t || !t->fixed) m->in[n++].t = t;
  }
  for (int i = 0; i < g->noutputs; i++) m->out[i].t = g->outputs[i];
  for (int i = 0; i < nmore; i++) m->out[g->noutputs + i].t = more[i];
  const ir_program *p = arch ? lower_cuda(ctx, g, h, m->cuda->target, o.db, false, accuracy) : lower(ctx, g, h, target, o.db, thread_count(o.threads), false, accuracy);
  for (int i = 0; i < m->nin; i++) {
    const ir_slot *s = fe_find_slot(p, IR_SLOT_INPUT, i);
    m->in[i].name = s->name, m->in[i].bytes = s->bytes;
  }
  for (int i = 0; i < m->nout; i++) {
    const ir_slot *s = fe_find_slot(p, IR_SLOT_OUTPUT, i);
    m->out[i].name = s->name, m->out[i].bytes = s->bytes;
  }
  find_params(ctx, m, g, p);
  make_state(ctx, m, g, p, map);
  if (arch) fe_cuda_load(ctx, m->cuda, p, o.db, accuracy, thread_count(o.jobs));
  else m->module = rt_module_build(ctx, p, &(rt_options){.target = target, .jobs = thread_count(o.jobs)});
  if (!arch && thread_count(o.threads) > 1) {
    m->pool = rt_pool_new(thread_count(o.threads));
    if (!m->pool) ir_fail(ctx, TN_ERESOURCE, "threads cannot be started");
    ir_defer(ctx, free_pool, m->pool);
    m->threads = rt_pool_threads(m->pool);
  }
  pthread_rwlockattr_t attr;
  pthread_rwlockattr_init(&attr);
#ifdef PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP
  pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP); /* runs in a stream must not starve a writer */
#endif
  pthread_rwlock_init(&m->lock, &attr);
  pthread_rwlockattr_destroy(&attr);
  ir_defer(ctx, free_lock, &m->lock);
  a->m = m;
}

/* What a compilation needs from the graph, in the graph's own context: parameters that start by
 * themselves get their data, inputs and parameters their handles. */
static void prepare(tn_ctx *ctx, void *arg) {
  build_args *a = arg;
  tn_graph *g = a->g;
  g->ncompiled++;
  fe_fill(ctx, g);
  for (int i = 0; i < g->g->ninputs; i++) fe_tensor(g, g->g->inputs[i]);
  for (int i = 0; i < g->g->nparams; i++)
    if (g->g->params[i]->kind != IR_VALUE_CONST) fe_tensor(g, g->g->params[i]);
  for (int i = 0; i < a->nfetch; i++)
    if (a->fetch[i]->graph != g) ir_fail(ctx, TN_EUSAGE, "fetched tensor %d ('%s') belongs to another graph", i, tn_name(a->fetch[i]));
}

static void hold(tn_ctx *ctx, void *arg) { ir_defer(ctx, free_module, arg); }

/* Runs `fn` in a context of its own; a failure there becomes the graph's. Null when it failed. */
static tn_ctx *in_own_context(tn_graph *g, void (*fn)(tn_ctx *ctx, void *arg), build_args *a) {
  if (fe_protect(g, prepare, a) != TN_OK) return NULL;
  tn_ctx *own = ir_ctx_like(g->ctx);
  if (!own) return fe_error(g, TN_ERESOURCE, "out of memory"), NULL;
  tn_status status = ir_protect(own, fn, a);
  if (status == TN_OK) return own;
  fe_error(g, status, "%s", ir_error(own));
  tn_ctx_free(own);
  return NULL;
}

tn_module *tn_compile(tn_graph *g, const tn_options *o, int nfetch, tn_tensor *const fetch[]) {
  if (!fe_alive(g)) return NULL;
  fe_mark mark = fe_enter(g, "tn_compile");
  build_args a = {g, o, nfetch, fetch, NULL};
  tn_ctx *own = NULL;
  bool null = nfetch > 0 && !fetch;
  for (int i = 0; i < nfetch && !null; i++) null = !fetch[i];
  if (g->eager) fe_error(g, TN_EUSAGE, "an eager graph compiles by itself: tn_value, or tn_call");
  else if (null) fe_null(g, "a fetched tensor");
  else own = in_own_context(g, build, &a);
  if (own && fe_protect(g, hold, a.m) != TN_OK) {
    tn_ctx_free(own);
    own = NULL;
  }
  if (mark.outermost) g->call = NULL;
  return own ? a.m : NULL;
}

void tn_module_free(tn_module *m) {
  if (!m) return;
  ir_undefer(m->owner, free_module, m);
  free_module(m);
}

/* ---- objects ---- */

typedef struct object_args {
  build_args b; /* first: prepare() takes it */
  const char *object, *header, *prefix;
  tn_weights weights;
} object_args;

static void write_object(tn_ctx *ctx, void *arg) {
  object_args *a = arg;
  const tn_options o = a->b.o ? *a->b.o : (tn_options){0};
  double accuracy = accuracy_of(ctx, &o);
  const cg_target *target = cg_target_find(ctx, o.cpu, o.triple);
  const char *header = a->header;
  if (!header) {
    size_t n = strlen(a->object);
    if (n > 2 && strcmp(a->object + n - 2, ".o") == 0) n -= 2;
    header = ir_format(ctx, "%.*s.h", (int)n, a->object);
  }
  cg_check_prefix(ctx, a->prefix);
  const char *archs = fe_cuda_arch(ctx, o.target);
  ir_value **map;
  /* weights that the caller packs stay tensors; else they are frozen, and may be folded */
  ir_graph *h = fe_copy(ctx, a->b.g, a->weights != TN_WEIGHTS_POINTER, 0, NULL, &map);
  const ir_program *p = archs ? lower_cuda(ctx, a->b.g, h, fe_cuda_target(ctx, archs), o.db, true, accuracy) : lower(ctx, a->b.g, h, target, o.db, thread_count(o.threads), true, accuracy);
  rt_object_options ro = {.target = target, .jobs = thread_count(o.jobs)};
  ro.files = (cg_object_options){.path = a->object, .header = header, .prefix = a->prefix, .weights = (cg_weights_mode)a->weights};
  if (archs) fe_cuda_object(ctx, p, archs, o.db, accuracy, &ro);
  else rt_write_object(ctx, p, &ro);
}

tn_status tn_save_object(tn_graph *g, const tn_options *o, const char *object_path, const char *header_path, const char *prefix, tn_weights weights) {
  if (!fe_alive(g)) return TN_EUSAGE;
  _Static_assert((int)TN_WEIGHTS_EMBED == (int)CG_WEIGHTS_EMBED && (int)TN_WEIGHTS_FILE == (int)CG_WEIGHTS_FILE &&
                 (int)TN_WEIGHTS_POINTER == (int)CG_WEIGHTS_POINTER, "the same numbers");
  fe_mark mark = fe_enter(g, "tn_save_object");
  object_args a = {.b = {.g = g, .o = o}, .object = object_path, .header = header_path, .prefix = prefix, .weights = weights};
  tn_status before = g->status, status = TN_OK;
  g->status = TN_OK;
  if (g->eager) status = fe_error(g, TN_EUSAGE, "an eager graph has no object: call the same functions on a graph of tn_graph_new");
  else if (!object_path || !prefix) status = fe_error(g, TN_EUSAGE, "the path or the prefix is null");
  else if ((int)weights < 0 || weights > TN_WEIGHTS_POINTER) status = fe_error(g, TN_EUSAGE, "weights %d is none of tn_weights", (int)weights);
  else {
    tn_ctx *own = in_own_context(g, write_object, &a.b);
    status = own ? TN_OK : g->status;
    tn_ctx_free(own);
  }
  if (before != TN_OK) g->status = before;
  if (mark.outermost) g->call = NULL;
  return status;
}
