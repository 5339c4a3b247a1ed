/* api_weights.c — the data of parameters: how they start, how they are set, loaded and saved. */
#include "frontend/eager.h"
#include "frontend/safetensors.h"
#include "ir/interp.h"
#include <string.h>

/* ---- starting data ---- */

/* SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014. */
static uint64_t next(uint64_t *state) {
  uint64_t z = *state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

void fe_init_fill(const fe_init *init, const ir_value *v, void *data) {
  size_t size = ir_dtype_bytes(v->dtype), n = (size_t)v->data_bytes / size;
  char *p = data;
  uint64_t state = ir_hash_bytes(v->name, strlen(v->name), 0); /* the same whatever else is in the graph */
  for (size_t i = 0; i < n; i++) {
    double u = init->lo == init->hi ? 0 : (double)(next(&state) >> 11) * 0x1p-53;
    ir_scalar x = {.f = init->lo + u * (init->hi - init->lo)};
    ir_scalar_store(v->dtype, p + i * size, x); /* rounds */
  }
}

static void fill_one(tn_ctx *ctx, const fe_init *init) {
  ir_value *v = init->v;
  if (v->raw) return; /* somebody gave it data */
  void *p = ir_alloc(ctx, (size_t)v->data_bytes);
  fe_init_fill(init, v, p);
  v->raw = p;
}

void fe_fill(tn_ctx *ctx, tn_graph *g) {
  for (int i = 0; i < g->ninits; i++) fill_one(ctx, &g->inits[i]);
  g->ninits = 0;
}

/* ---- by pointer ---- */

typedef struct data_args {
  tn_tensor *t;
  const void *data;
} data_args;

static void data_get(tn_ctx *ctx, void *arg) {
  data_args *a = arg;
  tn_graph *g = a->t->graph;
  for (int i = 0; i < g->ninits; i++)
    if (g->inits[i].v == a->t->v) fill_one(ctx, &g->inits[i]);
  const ir_value *v = a->t->v;
  a->data = v->kind == IR_VALUE_STATE ? v->start : v->kind == IR_VALUE_CONST || v->kind == IR_VALUE_PARAM ? ir_value_source(v) : NULL;
}

const void *tn_data(const tn_tensor *t) {
  if (!t || !t->v) return NULL;
  if (t->kept) return t->buf->data;
  data_args a = {(tn_tensor *)t, NULL};
  fe_mark m = fe_enter(t->graph, "tn_data");
  tn_status status = fe_protect(t->graph, data_get, &a);
  if (m.outermost) t->graph->call = NULL;
  return status == TN_OK ? a.data : NULL;
}

static void data_set(tn_ctx *ctx, void *arg) {
  data_args *a = arg;
  ir_value *v = a->t->v;
  void *p = ir_alloc(ctx, (size_t)v->data_bytes); /* modules still hold the old bytes */
  if (v->data_bytes) memcpy(p, a->data, (size_t)v->data_bytes);
  v->raw = p;
}

tn_status tn_param_set(tn_tensor *param, const void *data) {
  if (!param || !param->v) return TN_EUSAGE;
  tn_graph *g = param->graph;
  fe_mark m = fe_enter(g, "tn_param_set");
  data_args a = {param, data};
  tn_status status;
  if (param->kept && data) {
    memcpy(param->buf->data, data, (size_t)param->v->data_bytes);
    status = TN_OK;
  } else if (param->v->kind != IR_VALUE_PARAM) status = fe_error(g, TN_EUSAGE, "'%s' is no parameter", param->v->name);
  else if (!data) status = fe_error(g, TN_EUSAGE, "'%s': data is null", param->v->name);
  else status = fe_protect(g, data_set, &a);
  if (m.outermost) g->call = NULL;
  return status;
}

/* ---- safetensors ---- */

typedef struct file_args {
  tn_graph *g;
  const char *path;
  const char *(*map)(void *user, const char *name);
  void *user;
  int *missing;
  bool states;
} file_args;

static const char *shape_text(tn_ctx *ctx, tn_dtype t, int rank, const int64_t *dims) {
  ir_text s = {.ctx = ctx};
  ir_put(&s, "%s[", ir_dtype_name(t));
  for (int i = 0; i < rank; i++) ir_put(&s, "%s%lld", i ? "," : "", (long long)dims[i]);
  ir_put(&s, "]");
  return s.s;
}

static void dims_of(tn_ctx *ctx, const ir_value *v, int64_t *dims) {
  for (int i = 0; i < v->rank; i++) dims[i] = ir_dim(ctx, v, i);
}

/* Where a parameter or state has its bytes. */
static const void **contents(ir_value *v) { return v->kind == IR_VALUE_STATE ? &v->start : &v->raw; }

static void load(tn_ctx *ctx, void *arg) {
  file_args *a = arg;
  ir_graph *g = a->g->g;
  const fe_safetensors *file = fe_safetensors_load(ctx, a->path);
  const void **found = IR_NEW_ARRAY(ctx, const void *, g->nparams + 1);
  ir_text names = {.ctx = ctx};
  int missing = 0;
  for (int i = 0; i < g->nparams; i++) {
    const ir_value *v = g->params[i];
    if (v->kind == IR_VALUE_CONST) continue;
    const char *name = a->map ? a->map(a->user, v->name) : v->name;
    if (!name) continue;
    if (!fe_safetensors_find(file, name)) {
      if (v->kind == IR_VALUE_STATE) continue; /* starts as it was made */
      if (++missing <= 5) ir_put(&names, "%s%s", names.n ? ", " : "", name);
      continue;
    }
    const fe_array *t = fe_safetensors_get(ctx, file, name);
    int64_t dims[IR_MAX_RANK];
    dims_of(ctx, v, dims);
    bool same = t->dtype == v->dtype && t->rank == v->rank;
    for (int k = 0; k < v->rank && same; k++) same = t->dims[k] == dims[k];
    if (!same)
      ir_fail(ctx, TN_EINPUT, "%s: tensor '%s' is %s, the parameter '%s' is %s", a->path, fe_show(ctx, name, strlen(name)),
              shape_text(ctx, t->dtype, t->rank, t->dims), v->name, shape_text(ctx, v->dtype, v->rank, dims));
    found[i] = t->data ? t->data : "";
    for (int k = 0; k < i && a->map; k++) /* two names for one tensor: each parameter has bytes of its own */
      if (found[k] == found[i] && v->data_bytes) found[i] = memcpy(ir_alloc(ctx, (size_t)v->data_bytes), t->data, (size_t)v->data_bytes);
  }
  if (missing && !a->missing)
    ir_fail(ctx, TN_EINPUT, "%s: %d parameters have no tensor in it: %s%s", a->path, missing, names.s, missing > 5 ? ", ..." : "");
  for (int i = 0; i < g->nparams; i++) /* all or nothing */
    if (found[i]) *contents(g->params[i]) = found[i];
  if (a->missing) *a->missing = missing;
}

tn_status tn_load_safetensors(tn_graph *g, const char *path, const char *(*map)(void *user, const char *name), void *user, int *missing) {
  if (!fe_alive(g)) return TN_EUSAGE;
  fe_mark m = fe_enter(g, "tn_load_safetensors");
  file_args a = {g, path, map, user, missing, true};
  tn_status status = path ? fe_protect(g, load, &a) : fe_error(g, TN_EUSAGE, "the path is null");
  if (g->eager) fe_eager_absorb(g);
  if (m.outermost) g->call = NULL;
  return status;
}

static void save(tn_ctx *ctx, void *arg) {
  file_args *a = arg;
  ir_graph *g = a->g->g;
  fe_fill(ctx, a->g);
  fe_array *items = IR_NEW_ARRAY(ctx, fe_array, g->nparams + 1);
  int n = 0;
  for (int i = 0; i < g->nparams; i++) {
    ir_value *v = g->params[i];
    if (v->kind != IR_VALUE_PARAM && !(v->kind == IR_VALUE_STATE && a->states)) continue;
    if (v->kind == IR_VALUE_STATE && !v->start) v->start = ir_alloc(ctx, (size_t)v->data_bytes);
    if (!*contents(v)) ir_fail(ctx, TN_EUSAGE, "parameter '%s' has no data", v->name);
    int64_t *dims = IR_NEW_ARRAY(ctx, int64_t, v->rank + 1);
    dims_of(ctx, v, dims);
    items[n++] = (fe_array){.name = v->name, .dtype = v->dtype, .rank = v->rank, .dims = dims, .count = ir_value_elements(ctx, v),
                            .data = *contents(v), .bytes = (size_t)v->data_bytes};
  }
  fe_safetensors_save(ctx, a->path, items, n, NULL, 0);
}

static tn_status save_call(tn_graph *g, const char *call, file_args a) {
  if (!fe_alive(g)) return TN_EUSAGE;
  fe_mark m = fe_enter(g, call);
  if (g->eager) fe_eager_expose(g);
  tn_status status = a.path ? fe_protect(g, save, &a) : fe_error(g, TN_EUSAGE, "the path is null");
  if (g->eager) fe_eager_absorb(g);
  if (m.outermost) g->call = NULL;
  return status;
}

tn_status tn_save_safetensors(tn_graph *g, const char *path) { return save_call(g, "tn_save_safetensors", (file_args){.g = g, .path = path}); }
tn_status tn_save_checkpoint(tn_graph *g, const char *path) {
  return save_call(g, "tn_save_checkpoint", (file_args){.g = g, .path = path, .states = true});
}
