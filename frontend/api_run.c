/* api_run.c — runs of a module, and new weights for it.
 *
 * Runs share no context and may overlap: what they need is on their stack or their own. The lock
 * orders them with those that change the weights or the state. */
#include "frontend/api_module.h"
#include <stdlib.h>
#include <string.h>

static _Thread_local char run_message[512]; /* runs share no context */

const char *tn_run_error(void) { return run_message; }

tn_status fe_run_error(tn_status status, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(run_message, sizeof run_message, fmt, ap);
  va_end(ap);
  return status;
}

/* Puts each binding at its place. An input's second binding is its output, if it is one too. */
static tn_status place(const tn_module *m, int n, const tn_binding *b, const void **in, void **out) {
  for (int i = 0; i < n; i++) {
    const tn_tensor *t = b[i].tensor;
    if (!t) return fe_run_error(TN_EUSAGE, "tn_run: the tensor of binding %d is null", i);
    bool found = false, done = false;
    for (int k = 0; k < m->nin && !done; k++) {
      if (m->in[k].t != t) continue;
      found = true;
      if (in[k]) continue;
      if (!b[i].data && m->in[k].bytes) return fe_run_error(TN_EUSAGE, "tn_run: the data of input '%s' is null", m->in[k].name);
      in[k] = b[i].data ? b[i].data : "";
      done = true;
    }
    for (int k = 0; k < m->nout && !done; k++) {
      if (m->out[k].t != t) continue;
      found = true;
      if (out[k]) continue;
      if (!b[i].data && m->out[k].bytes) return fe_run_error(TN_EUSAGE, "tn_run: the data of output '%s' is null", m->out[k].name);
      static char nothing[64];
      out[k] = b[i].data ? b[i].data : nothing; /* no bytes: never touched */
      done = true;
    }
    if (!found) return fe_run_error(TN_EUSAGE, "tn_run: '%s' is no input, output or fetched tensor of this module", tn_name(t));
    if (!done) return fe_run_error(TN_EUSAGE, "tn_run: '%s' is bound twice", tn_name(t));
  }
  for (int k = 0; k < m->nin; k++)
    if (!in[k]) return fe_run_error(TN_EUSAGE, "tn_run: input '%s' is not bound", m->in[k].name);
  return TN_OK;
}

/* Memory for outputs that nobody asked for; null: there are none, or no memory. */
static char *spare(const tn_module *m, void **out, bool *failed) {
  size_t total = 0, at = 0;
  for (int k = 0; k < m->nout; k++)
    if (!out[k]) total += ((size_t)m->out[k].bytes + 64) & ~(size_t)63;
  if (!total) return NULL;
  char *p = malloc(total + 64);
  *failed = !p;
  if (!p) return NULL;
  at = (64 - (uintptr_t)p % 64) % 64;
  for (int k = 0; k < m->nout; k++)
    if (!out[k]) {
      out[k] = p + at;
      at += ((size_t)m->out[k].bytes + 64) & ~(size_t)63;
    }
  return p;
}

typedef struct run_args {
  tn_module *m;
  const void *const *in;
  void *const *out;
  const int64_t *dims;
  int64_t *extents; /* of all outputs in turn; null: not asked for */
} run_args;

static void run_cuda(tn_ctx *ctx, void *arg) {
  run_args *a = arg;
  rt_cuda_run(ctx, a->m->cuda->module, a->in, a->out, a->dims, a->extents, a->m->state);
}

/* With the lock held: for a GPU, and where runs update the state, by one thread alone. */
static tn_status run_locked(run_args *a) {
  tn_module *m = a->m;
  if (m->cuda) {
    tn_status status = ir_protect(m->ctx, run_cuda, a); /* the module's context: whoever holds the lock uses it */
    return status == TN_OK ? TN_OK : fe_run_error(status, "tn_run: %s", ir_error(m->ctx));
  }
  int code = rt_run_sized(m->module, a->in, a->out, a->dims, a->extents, m->state, m->threads);
  if (code == CG_RUN_DIMS) return fe_run_error(TN_EUSAGE, "tn_run_at: the module was not compiled for this size");
  if (code == RT_NO_MEMORY) return fe_run_error(TN_ERESOURCE, "tn_run: out of memory for the arena");
  return code ? fe_run_error(TN_EINTERNAL, "tn_run: %s", cg_run_error(code)) : TN_OK;
}

/* The sizes in the order of the program's dims. */
static tn_status take_sizes(const tn_module *m, int n, const tn_size *sizes, int64_t *dims) {
  const ir_program *p = m->cuda ? m->cuda->plan->program : rt_module_program(m->module);
  int known = p->ndims;
  if (n < 0 || (n && !sizes)) return fe_run_error(TN_EUSAGE, "tn_run_at: the sizes are null");
  if (known > TN_MAX_RANK) return fe_run_error(TN_EUNSUPPORTED, "tn_run_at: more than %d dimensions", TN_MAX_RANK);
  for (int i = 0; i < n; i++) {
    int k = 0;
    while (k < known && (!sizes[i].dim || strcmp(p->dims[k].var->name, sizes[i].dim) != 0)) k++;
    if (k == known) return fe_run_error(TN_EUSAGE, "tn_run_at: the module was not compiled for several sizes of '%s'", sizes[i].dim ? sizes[i].dim : "");
  }
  for (int k = 0; k < known; k++) {
    int i = 0;
    while (i < n && strcmp(p->dims[k].var->name, sizes[i].dim) != 0) i++;
    if (i == n) return fe_run_error(TN_EUSAGE, "tn_run: the module has several sizes of '%s', and none is given (tn_run_at)", p->dims[k].var->name);
    dims[k] = sizes[i].size;
  }
  return TN_OK;
}

tn_status tn_run(tn_module *m, int n, const tn_binding bindings[]) { return tn_run_at(m, 0, NULL, n, bindings); }

tn_status tn_run_at(tn_module *m, int nsizes, const tn_size sizes[], int n, const tn_binding bindings[]) { return tn_run_extents(m, nsizes, sizes, n, bindings, NULL); }

/* To each binding that is an output its part of `all`. */
static void give_extents(const tn_module *m, int n, const tn_binding *b, const int64_t *all, int64_t *const *extents) {
  const ir_program *p = m->cuda ? m->cuda->plan->program : rt_module_program(m->module);
  for (int k = 0; k < m->nout; k++) {
    int rank = fe_find_slot(p, IR_SLOT_OUTPUT, k)->rank;
    for (int i = 0; i < n; i++)
      if (extents[i] && b[i].tensor == m->out[k].t) memcpy(extents[i], all, (size_t)rank * sizeof *all);
    all += rank;
  }
}

tn_status tn_run_extents(tn_module *m, int nsizes, const tn_size sizes[], int n, const tn_binding bindings[], int64_t *const extents[]) {
  enum { FEW = 32 };
  void *few[2 * FEW];
  int64_t dims[TN_MAX_RANK];
  if (!m || n < 0 || (n && !bindings)) return fe_run_error(TN_EUSAGE, "tn_run: the module or the bindings are null");
  size_t slots = (size_t)m->nin + (size_t)m->nout;
  void **all = slots <= 2 * FEW ? few : malloc(slots * sizeof *all);
  if (!all) return fe_run_error(TN_ERESOURCE, "tn_run: out of memory");
  memset(all, 0, slots * sizeof *all);
  const void **in = (const void **)all;
  void **out = all + m->nin;
  bool failed = false;
  char *rest = NULL;
  tn_status status = take_sizes(m, nsizes, sizes, dims);
  if (status == TN_OK) status = place(m, n, bindings, in, out);
  if (status == TN_OK) {
    rest = spare(m, out, &failed);
    if (failed) status = fe_run_error(TN_ERESOURCE, "tn_run: out of memory for outputs that are not bound");
  }
  int64_t *found = extents && status == TN_OK ? calloc((size_t)m->nout + 1, IR_MAX_RANK * sizeof *found) : NULL;
  if (extents && status == TN_OK && !found) status = fe_run_error(TN_ERESOURCE, "tn_run: out of memory");
  if (status == TN_OK) {
    if (m->state || m->cuda) pthread_rwlock_wrlock(&m->lock);
    else pthread_rwlock_rdlock(&m->lock);
    status = run_locked(&(run_args){m, in, out, dims, found});
    pthread_rwlock_unlock(&m->lock);
  }
  if (status == TN_OK && found) give_extents(m, n, bindings, found, extents);
  free(found);
  free(rest);
  if (all != few) free(all);
  return status;
}

/* ---- new weights ---- */

typedef struct set_args {
  tn_module *m;
  int index;
  const void *data;
} set_args;

static const fe_kept *find_kept(const tn_module *m, const tn_tensor *t) {
  for (int i = 0; i < m->nkept; i++)
    if (m->kept[i].t == t) return &m->kept[i];
  return NULL;
}

static void set(tn_ctx *ctx, void *arg) {
  set_args *a = arg;
  tn_module *m = a->m;
  fe_param *p = &m->params[a->index];
  if (!p->own) p->own = ir_alloc(ctx, (size_t)p->bytes);
  memcpy(p->own, a->data, (size_t)p->bytes);
  for (int i = 0; i < m->nraws; i++)
    if (m->raws[i].param == a->index) m->raw[m->raws[i].index] = p->own;
  if (m->cuda) rt_cuda_repack(ctx, m->cuda->module, m->raw);
  else rt_module_repack(ctx, m->module, m->raw);
}

tn_status tn_module_set(tn_module *m, const tn_tensor *t, const void *data) {
  if (!m || !t || !data) return fe_run_error(TN_EUSAGE, "tn_module_set: the module, the parameter or the data is null");
  const fe_kept *k = find_kept(m, t);
  if (k) {
    pthread_rwlock_wrlock(&m->lock);
    memcpy(m->state + k->offset, data, (size_t)k->bytes);
    pthread_rwlock_unlock(&m->lock);
    return TN_OK;
  }
  set_args a = {m, 0, data};
  while (a.index < m->nparams && m->params[a.index].t != t) a.index++;
  if (a.index == m->nparams) return fe_run_error(TN_EUSAGE, "tn_module_set: '%s' is no parameter of this module", tn_name(t));
  pthread_rwlock_wrlock(&m->lock);
  tn_status status = ir_protect(m->ctx, set, &a); /* the module's context: whoever holds the lock uses it */
  if (status != TN_OK) fe_run_error(status, "tn_module_set: %s", ir_error(m->ctx));
  pthread_rwlock_unlock(&m->lock);
  return status;
}

tn_status tn_module_get(tn_module *m, const tn_tensor *t, void *data) {
  if (!m || !t || !data) return fe_run_error(TN_EUSAGE, "tn_module_get: the module, the tensor or the data is null");
  const fe_kept *k = find_kept(m, t);
  const void *from = k ? m->state + k->offset : NULL;
  int64_t bytes = k ? k->bytes : 0;
  pthread_rwlock_rdlock(&m->lock);
  for (int i = 0; i < m->nparams && !from; i++)
    if (m->params[i].t == t) from = m->params[i].own ? m->params[i].own : ir_value_source(t->v), bytes = m->params[i].bytes;
  if (from) memcpy(data, from, (size_t)bytes);
  pthread_rwlock_unlock(&m->lock);
  return from ? TN_OK : fe_run_error(TN_EUSAGE, "tn_module_get: '%s' is no parameter or state of this module", tn_name(t));
}

typedef struct store_args {
  tn_module *m;
  const fe_kept *k;
} store_args;

static void store_one(tn_ctx *ctx, void *arg) {
  store_args *a = arg;
  tn_tensor *t = (tn_tensor *)a->k->t;
  ir_value *v = t->v;
  const void **at = v->kind == IR_VALUE_STATE ? &v->start : &v->raw;
  void *own = *at == t->stored && t->stored_for == t->graph->ncompiled ? t->stored : ir_alloc(ctx, (size_t)v->data_bytes);
  memcpy(own, a->m->state + a->k->offset, (size_t)a->k->bytes);
  *at = t->stored = own;
  t->stored_for = t->graph->ncompiled;
}

tn_status tn_module_store(tn_module *m) {
  if (!m) return fe_run_error(TN_EUSAGE, "tn_module_store: the module is null");
  tn_status status = TN_OK;
  pthread_rwlock_rdlock(&m->lock);
  for (int i = 0; i < m->nkept && status == TN_OK; i++) {
    store_args a = {m, &m->kept[i]};
    status = ir_protect(m->owner, store_one, &a);
  }
  pthread_rwlock_unlock(&m->lock);
  return status == TN_OK ? TN_OK : fe_run_error(status, "tn_module_store: %s", ir_error(m->owner));
}
