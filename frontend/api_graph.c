/* api_graph.c — graphs, their symbolic dimensions, and looking into them; see api.h. */
#include "frontend/eager.h"
#include "frontend/import.h"
#include <string.h>

/* ---- graphs ---- */

typedef struct graph_args {
  const char *name, *path;
  tn_graph *g;
} graph_args;

static void graph_make(tn_ctx *ctx, graph_args *a, ir_graph *ig) {
  tn_graph *g = IR_NEW(ctx, tn_graph);
  g->ctx = ctx;
  g->names.ctx = g->tensors.ctx = ctx;
  g->g = ig;
  fe_live_add(ctx, g);
  a->g = g;
}

static void graph_new(tn_ctx *ctx, void *arg) {
  graph_args *a = arg;
  graph_make(ctx, a, ir_graph_new(ctx, a->name && *a->name ? a->name : "graph"));
}

tn_graph *tn_graph_new(tn_ctx *ctx, const char *name) {
  if (!ctx) return NULL;
  graph_args a = {.name = name};
  ir_where(ctx, "tn_graph_new");
  tn_status status = ir_protect(ctx, graph_new, &a);
  ir_where(ctx, NULL);
  return status == TN_OK ? a.g : NULL;
}

/* Whether a file is text that begins with the word "graph", after blanks and # comments. */
static bool is_graph_text(const fe_map *m) {
  const char *p = m->data, *end = p + m->size;
  while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t' || *p == '#')) {
    if (*p == '#')
      while (p < end && *p != '\n') p++;
    else p++;
  }
  return end - p > 6 && memcmp(p, "graph", 5) == 0 && (p[5] == ' ' || p[5] == '\n');
}

static void note_dims(tn_ctx *ctx, tn_graph *g) {
  for (int i = 0; i < g->g->ninputs; i++)
    for (int k = 0; k < g->g->inputs[i]->rank; k++) {
      ix d = g->g->inputs[i]->dims[k];
      bool known = d->op != IX_VAR;
      for (int j = 0; j < g->ndims && !known; j++) known = g->dims[j].var == d->u.var;
      if (!known) IR_PUSH(ctx, g->dims, g->ndims, (fe_dim){d->u.var, -1, NULL});
    }
}

static void graph_load(tn_ctx *ctx, void *arg) {
  graph_args *a = arg;
  const fe_map *m = fe_map_file(ctx, a->path);
  bool text = is_graph_text(m);
  graph_make(ctx, a, text ? ir_graph_parse(ctx, ir_strndup(ctx, m->data, m->size), a->path) : fe_import(ctx, a->path, NULL));
  tn_graph *g = a->g;
  ir_graph_sort(g->g);
  g->loaded = true;
  for (int i = 0; i < g->g->nvalues; i++) {
    ir_value *v = g->g->values[i];
    ir_map_set(&g->names, v->name, v);
    if (v->kind != IR_VALUE_PARAM) continue;
    v->raw = v->data; /* replaceable: no pass may look at it */
    v->data = NULL;
  }
  for (int i = 0; i < g->g->noutputs; i++) {
    tn_tensor *t = fe_tensor(g, g->g->outputs[i]);
    IR_PUSH(ctx, g->outputs, g->noutputs, t);
  }
  note_dims(ctx, g);
}

tn_graph *tn_graph_load(tn_ctx *ctx, const char *path) {
  if (!ctx) return NULL;
  if (!path) {
    ir_error_set(ctx, TN_EUSAGE, "tn_graph_load: the path is null");
    return NULL;
  }
  graph_args a = {.path = path};
  ir_where(ctx, "tn_graph_load");
  tn_status status = ir_protect(ctx, graph_load, &a);
  ir_where(ctx, NULL);
  if (status != TN_OK) return NULL;
  fe_refresh(a.g);
  return a.g;
}

/* ---- symbolic dimensions ---- */

typedef struct dim_args {
  tn_graph *g;
  const char *name;
  int index;
} dim_args;

static int find_dim(const tn_graph *g, const char *name) {
  for (int i = 0; i < g->ndims; i++)
    if (strcmp(g->dims[i].var->name, name) == 0) return i;
  return -1;
}

static void dim_make(tn_ctx *ctx, void *arg) {
  dim_args *a = arg;
  tn_graph *g = a->g;
  if (!a->name || !*a->name) ir_fail(ctx, TN_EUSAGE, "a dimension needs a name");
  a->index = find_dim(g, a->name);
  if (a->index >= 0) return;
  ir_var *v = ir_var_new(ctx, ir_intern(ctx, a->name), TN_INDEX, 0, (int64_t)1 << 31);
  a->index = g->ndims;
  IR_PUSH(ctx, g->dims, g->ndims, (fe_dim){v, -1, NULL});
}

/* The code of dimension k among the extents of tn_input; -1 is kept for "inferred" elsewhere. */
static int64_t dim_code(int k) { return -2 - (int64_t)k; }

int64_t tn_dim(tn_graph *g, const char *name) {
  if (!fe_alive(g)) return -1;
  dim_args a = {g, name, 0};
  fe_mark m = fe_enter(g, "tn_dim");
  tn_status status = fe_protect(g, dim_make, &a);
  if (m.outermost) g->call = NULL;
  return status == TN_OK ? dim_code(a.index) : -1;
}

tn_status tn_graph_set_dim(tn_graph *g, const char *name, int64_t size) {
  if (!fe_alive(g)) return TN_EUSAGE;
  fe_mark m = fe_enter(g, "tn_graph_set_dim");
  int k = name ? find_dim(g, name) : -1;
  tn_status status = TN_OK;
  if (k < 0) status = fe_error(g, TN_EUSAGE, "the graph has no dimension '%s'", name ? name : "");
  else if (size < 0 || size > (int64_t)1 << 31) status = fe_error(g, TN_EUSAGE, "dimension '%s' cannot be %lld", name, (long long)size);
  else g->dims[k].size = size, g->dims[k].several = NULL;
  if (m.outermost) g->call = NULL;
  if (status == TN_OK && g->loaded) fe_refresh(g);
  return status;
}

typedef struct several_args {
  tn_graph *g;
  const char *name;
  int64_t lo, hi;
  int n;
  const int64_t *sizes; /* null: lo to hi */
} several_args;

static void set_several(tn_ctx *ctx, void *arg) {
  const several_args *a = arg;
  int k = a->name ? find_dim(a->g, a->name) : -1;
  if (k < 0) ir_fail(ctx, TN_EUSAGE, "the graph has no dimension '%s'", a->name ? a->name : "");
  bool fits = a->sizes ? a->n > 0 : a->lo >= 1 && a->lo <= a->hi && a->hi <= INT32_MAX;
  for (int i = 0; i < a->n && fits; i++) fits = a->sizes[i] >= (i ? a->sizes[i - 1] + 1 : 1) && a->sizes[i] <= INT32_MAX;
  if (!fits) ir_fail(ctx, TN_EUSAGE, "dimension '%s': sizes begin with 1 and ascend", a->name);
  lw_dim *d = IR_NEW(ctx, lw_dim);
  if (a->sizes) *d = (lw_dim){.lo = a->sizes[0], .hi = a->sizes[a->n - 1], .n = a->n, .sizes = memcpy(IR_NEW_ARRAY(ctx, int64_t, a->n), a->sizes, (size_t)a->n * sizeof *a->sizes)};
  else *d = lw_dim_range(ctx, NULL, a->lo, a->hi);
  d->name = a->g->dims[k].var->name;
  a->g->dims[k].several = lw_dim_fixed(d) ? NULL : d;
  a->g->dims[k].size = lw_dim_fixed(d) ? d->lo : -1;
}

static tn_status several(const char *call, several_args a) {
  if (!fe_alive(a.g)) return TN_EUSAGE;
  fe_mark m = fe_enter(a.g, call);
  tn_status status = fe_protect(a.g, set_several, &a);
  if (m.outermost) a.g->call = NULL;
  if (status == TN_OK && a.g->loaded) fe_refresh(a.g);
  return status;
}

tn_status tn_graph_set_dim_sizes(tn_graph *g, const char *name, int n, const int64_t sizes[]) {
  static const int64_t none[1] = {0};
  return several("tn_graph_set_dim_sizes", (several_args){.g = g, .name = name, .n = sizes ? n : 0, .sizes = sizes ? sizes : none});
}

tn_status tn_graph_set_dim_range(tn_graph *g, const char *name, int64_t lo, int64_t hi) {
  return several("tn_graph_set_dim_range", (several_args){.g = g, .name = name, .lo = lo, .hi = hi});
}

/* ---- looking ---- */

typedef struct find_args {
  tn_graph *g;
  const char *name;
  tn_tensor *t;
} find_args;

static void find_value(tn_ctx *ctx, void *arg) {
  find_args *a = arg;
  tn_graph *g = a->g;
  ir_value *v = ir_map_get(&g->names, ir_intern(ctx, a->name));
  for (int i = 0; i < g->g->nnodes && !v; i++)
    if (strcmp(g->g->nodes[i]->name, a->name) == 0 && g->g->nodes[i]->nout) v = g->g->nodes[i]->out[0];
  a->t = v ? fe_tensor(g, v) : NULL;
}

tn_tensor *tn_find(tn_graph *g, const char *name) {
  if (!g || !name) return NULL;
  find_args a = {g, name, NULL};
  fe_mark m = fe_enter(g, "tn_find");
  tn_status status = fe_protect(g, find_value, &a);
  if (m.outermost) g->call = NULL;
  return status == TN_OK ? a.t : NULL;
}

typedef struct list_args {
  tn_graph *g;
  ir_value **values;
  int n, max;
  tn_tensor **out;
  bool params; /* skip what is none */
} list_args;

static void list_make(tn_ctx *ctx, void *arg) {
  (void)ctx;
  list_args *a = arg;
  int n = 0;
  for (int i = 0; i < a->n; i++) {
    if (a->params && a->values[i]->kind != IR_VALUE_PARAM) continue;
    if (n < a->max && a->out) a->out[n] = fe_tensor(a->g, a->values[i]);
    n++;
  }
  a->n = n;
}

static int list_call(tn_graph *g, const char *call, list_args a) {
  if (!fe_alive(g)) return 0;
  a.g = g;
  fe_mark m = fe_enter(g, call);
  tn_status status = fe_protect(g, list_make, &a);
  if (m.outermost) g->call = NULL;
  return status == TN_OK ? a.n : 0;
}

int tn_inputs(tn_graph *g, int max, tn_tensor *out[]) {
  return g ? list_call(g, "tn_inputs", (list_args){.values = g->g->inputs, .n = g->g->ninputs, .max = max, .out = out}) : 0;
}

int tn_outputs(tn_graph *g, int max, tn_tensor *out[]) {
  if (!fe_alive(g)) return 0;
  for (int i = 0; i < g->noutputs && i < max && out; i++) out[i] = g->outputs[i];
  return g->noutputs;
}

int tn_params(tn_graph *g, int max, tn_tensor *out[]) {
  return g ? list_call(g, "tn_params", (list_args){.values = g->g->params, .n = g->g->nparams, .max = max, .out = out, .params = true}) : 0;
}

const char *tn_name(const tn_tensor *t) { return t && t->v ? t->v->name : ""; }
tn_dtype tn_type(const tn_tensor *t) { return t && t->v ? t->v->dtype : TN_NONE; }

/* An extent with the sizes that dimensions have now; -1 when one is missing. */
typedef struct extent_args {
  const tn_graph *g;
  ix e;
  int64_t value;
} extent_args;

static void extent_eval(tn_ctx *ctx, void *arg) {
  extent_args *a = arg;
  ix e = a->e;
  for (int i = 0; i < a->g->ndims; i++)
    if (a->g->dims[i].size >= 0) e = ix_subst1(ctx, e, a->g->dims[i].var, ix_index(ctx, a->g->dims[i].size));
  if (!ix_const_value(e, &a->value)) a->value = -1;
}

int tn_shape(const tn_tensor *t, int64_t dims[]) {
  if (!t || !t->v || t->v->rank < 0) return -1;
  for (int i = 0; dims && i < t->v->rank; i++) {
    extent_args a = {t->graph, t->v->dims[i], -1};
    if (!ix_const_value(a.e, &dims[i])) dims[i] = ir_protect(t->graph->ctx, extent_eval, &a) == TN_OK ? a.value : -1;
  }
  return t->v->rank;
}

int64_t tn_bytes(const tn_tensor *t) {
  int64_t dims[IR_MAX_RANK], bytes = (int64_t)ir_dtype_bytes(tn_type(t));
  int rank = tn_shape(t, dims);
  if (rank < 0 || tn_type(t) == TN_NONE) return -1;
  for (int i = 0; i < rank; i++)
    if (dims[i] < 0 || !ir_mul_size(bytes, dims[i], &bytes)) return -1;
  return bytes;
}

int64_t fe_extent(tn_graph *g, const tn_tensor *x, int axis, const char *what) {
  int64_t dims[IR_MAX_RANK];
  if (!x || !x->v) {
    fe_null(g, what);
    return -1;
  }
  if (x->graph != g) {
    fe_error(g, TN_EUSAGE, "%s '%s' belongs to another graph", what, x->v->name);
    return -1;
  }
  int rank = tn_shape(x, dims);
  if (axis < 0) axis += rank;
  if (axis < 0 || axis >= rank) {
    fe_error(g, TN_EUSAGE, "%s '%s' has rank %d, which is too small", what, x->v->name, rank);
    return -1;
  }
  if (!ix_is_const(x->v->dims[axis])) {
    fe_error(g, TN_EUSAGE, "axis %d of '%s' (%s) must be known, it is symbolic", axis, x->v->name, what);
    return -1;
  }
  return dims[axis];
}
