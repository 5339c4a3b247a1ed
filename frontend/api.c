/* api.c — graphs by C calls: inputs, constants, nodes, names; see api.h. */
#include "frontend/eager.h"
#include "ir/interp.h"
#include "lower/fold.h"
#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* Results of this many elements are computed at once, so that shapes made from them are known. */
enum { FOLD_LIMIT = 1024 };

/* ---- calls ---- */

/* Where the calling thread's next call stands, as the macros of tenon.h say. */
static _Thread_local const char *here_file;
static _Thread_local int here_line;

void tn_here(const char *file, int line) { here_file = file, here_line = line; }

fe_mark fe_enter(tn_graph *g, const char *call) {
  fe_mark m = {.outermost = !g->call, .nnodes = g->g->nnodes, .nvalues = g->g->nvalues, .nparams = g->g->nparams,
               .ninputs = g->g->ninputs, .ninits = g->ninits, .nresults = ir_graph_results(g->g), .nupdates = g->g->nupdates, .step = g->step};
  if (m.outermost) {
    g->call = call;
    g->file = here_file, g->line = here_line;
    here_file = NULL;
  }
  return m;
}

static void take_back(tn_graph *g, const fe_mark *m) {
  for (int i = m->nvalues; i < g->g->nvalues; i++) {
    ir_value *v = g->g->values[i];
    /* replacing entries that exist cannot throw */
    if (ir_map_get(&g->names, v->name) == v) ir_map_set(&g->names, v->name, NULL);
    if (ir_map_get(&g->tensors, v)) ir_map_set(&g->tensors, v, NULL);
  }
  g->g->nnodes = m->nnodes;
  g->g->nvalues = m->nvalues;
  g->g->nparams = m->nparams;
  g->g->ninputs = m->ninputs;
  g->ninits = m->ninits;
  g->step = m->step;
  if (g->g->nupdates > m->nupdates) { /* they stand behind the outputs */
    g->g->noutputs = m->nresults + m->nupdates;
    g->g->nupdates = m->nupdates;
  }
}

tn_tensor *fe_leave(tn_graph *g, const fe_mark *m, tn_tensor *result) {
  if (!result && !g->eager) take_back(g, m); /* what an eager graph recorded is right whatever came after */
  if (m->outermost) g->call = NULL;
  if (m->outermost && g->eager) fe_eager_leave(g, result);
  return result;
}

static tn_status note(tn_graph *g, tn_status status) {
  if (g->status == TN_OK) g->status = status;
  return status;
}

/* Puts the place of the call before the message, unless it stands there. */
static void say_place(tn_graph *g, tn_status status) {
  char place[300], text[2048];
  if (!g->file) return;
  snprintf(place, sizeof place, "%.200s:%d: ", g->file, g->line);
  snprintf(text, sizeof text, "%s", tn_error(g->ctx));
  if (strncmp(text, place, strlen(place)) != 0) ir_error_set(g->ctx, status, "%s%s", place, text);
}

tn_status fe_error(tn_graph *g, tn_status status, const char *fmt, ...) {
  char text[1024];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  note(g, ir_error_set(g->ctx, status, "%s: %s", g->call ? g->call : "tenon", text));
  say_place(g, status);
  return status;
}

tn_status fe_protect(tn_graph *g, void (*fn)(tn_ctx *ctx, void *arg), void *arg) {
  fe_mark m = fe_enter(g, "tenon");
  ir_where(g->ctx, g->call);
  tn_status status = ir_protect(g->ctx, fn, arg);
  ir_where(g->ctx, NULL);
  if (status != TN_OK) {
    note(g, status);
    say_place(g, status);
    take_back(g, &m);
  }
  if (m.outermost) g->call = NULL;
  return status;
}

tn_status fe_null(tn_graph *g, const char *what) {
  if (g->status != TN_OK) return g->status;
  return fe_error(g, TN_EUSAGE, "%s is null", what);
}

/* ---- names ---- */

const char *fe_sub(char room[FE_NAME_ROOM], const char *name, const char *part) {
  snprintf(room, FE_NAME_ROOM, "%s%s%s", name, *name ? "." : "", part);
  return room;
}

static bool taken(tn_graph *g, const char *name) { return ir_map_get(&g->names, ir_intern(g->ctx, name)) != NULL; }

static void check_name(tn_graph *g, const char *name) {
  if (!*name) ir_fail(g->ctx, TN_EUSAGE, "a name is empty");
  if (strlen(name) > FE_NAME_MAX) ir_fail(g->ctx, TN_EUSAGE, "the name '%.40s...' is longer than %d characters", name, FE_NAME_MAX);
  if (taken(g, name)) ir_fail(g->ctx, TN_EUSAGE, "the name '%s' is taken", name);
}

/* "matmul_7": free, and the same for the same sequence of calls. */
static const char *fresh_name(tn_graph *g, const char *kind) {
  char room[80];
  const char *colon = strchr(kind, ':');
  if (colon) kind = colon + 1;
  do {
    snprintf(room, sizeof room, "%.50s_%d", kind, ++g->serial);
    for (char *p = room; *p; p++) *p = (char)tolower((unsigned char)*p);
  } while (taken(g, room));
  return ir_intern(g->ctx, room);
}

typedef struct name_args {
  tn_graph *g;
  const char *kind, *name;
} name_args;

static void make_name(tn_ctx *ctx, void *arg) {
  (void)ctx;
  name_args *a = arg;
  a->name = fresh_name(a->g, a->kind);
}

const char *fe_layer_name(tn_graph *g, char room[FE_NAME_ROOM], const char *name, const char *kind) {
  name_args a = {g, kind, name};
  if (!name && g->eager) { /* by its place in the step, the same in each */
    snprintf(room, FE_NAME_ROOM, "%s_%d", kind, ++g->nlayers);
    return room;
  }
  if (!name && fe_protect(g, make_name, &a) != TN_OK) return "";
  snprintf(room, FE_NAME_ROOM, "%s", a.name);
  return room;
}

static void add_name(tn_graph *g, ir_value *v) { ir_map_set(&g->names, v->name, v); }

tn_tensor *fe_tensor(tn_graph *g, ir_value *v) {
  tn_tensor *t = ir_map_get(&g->tensors, v);
  if (t) return t;
  if (g->eager) return fe_eager_handle(g->ctx, g, v);
  t = IR_NEW(g->ctx, tn_tensor);
  t->graph = g;
  t->v = v;
  ir_map_set(&g->tensors, v, t);
  return t;
}

/* ---- inputs, constants, parameters ---- */

typedef struct value_args {
  tn_graph *g;
  const char *name;
  ir_value_kind kind;
  tn_dtype dtype;
  int rank;
  const int64_t *dims;
  const void *data;
  const fe_init *init;
  tn_tensor *t;
} value_args;

static void value_make(tn_ctx *ctx, void *arg) {
  value_args *a = arg;
  tn_graph *g = a->g;
  const char *kind = a->kind == IR_VALUE_INPUT ? "input" : a->kind == IR_VALUE_PARAM ? "param" : a->kind == IR_VALUE_STATE ? "state" : "const";
  const char *name = a->name;
  if (!name) name = fresh_name(g, kind);
  else if (!g->eager) check_name(g, name);
  if (a->dtype <= TN_NONE || a->dtype >= TN_INDEX) ir_fail(ctx, TN_EUSAGE, "'%s': dtype %d is none of tn_dtype's", name, (int)a->dtype);
  if (a->rank < 0 || a->rank > TN_MAX_RANK) ir_fail(ctx, TN_EUSAGE, "'%s': rank %d; 0 to %d are possible", name, a->rank, TN_MAX_RANK);
  if (a->rank && !a->dims) ir_fail(ctx, TN_EUSAGE, "'%s': dims are null", name);
  if (g->eager && a->kind == IR_VALUE_INPUT) ir_fail(ctx, TN_EUSAGE, "an eager graph has no inputs: tn_array makes a tensor of data");
  ix dims[IR_MAX_RANK];
  for (int i = 0; i < a->rank; i++) {
    int64_t d = a->dims[i], k = d <= -2 ? -2 - d : -1;
    bool symbol = a->kind == IR_VALUE_INPUT && k >= 0 && k < g->ndims;
    if (d < 0 && !symbol) ir_fail(ctx, TN_EUSAGE, "'%s': axis %d has extent %lld", name, i, (long long)d);
    dims[i] = symbol ? g->dims[k].var->expr : ix_index(ctx, d);
  }
  ir_value *v;
  if (a->kind == IR_VALUE_INPUT) {
    v = ir_graph_input(g->g, name, a->dtype, a->rank, dims);
    if (ir_static(v)) (void)ir_value_bytes(ctx, v); /* throws when the size overflows */
  } else if (g->eager && a->kind != IR_VALUE_CONST) {
    if (a->kind == IR_VALUE_PARAM && !a->data && !a->init && !ir_map_get(&g->names, ir_intern(ctx, name)))
      ir_fail(ctx, TN_EUSAGE, "'%s': data is null", name);
    a->t = fe_eager_kept(ctx, g, name, a->kind, a->dtype, a->rank, a->dims, a->data, a->init);
    return;
  } else {
    if (a->kind == IR_VALUE_CONST && !a->data) ir_fail(ctx, TN_EUSAGE, "'%s': data is null", name);
    if (g->eager) {
      a->t = fe_eager_const(ctx, g, a->dtype, a->rank, a->dims, a->data);
      return;
    }
    v = ir_graph_const(g->g, name, a->dtype, a->rank, a->dims, a->data, a->data != NULL);
    v->kind = a->kind;
    if (a->kind == IR_VALUE_PARAM) v->raw = v->data, v->data = NULL;
    if (a->kind == IR_VALUE_STATE) v->start = v->data, v->data = NULL;
    if (a->init) IR_PUSH(ctx, g->inits, g->ninits, (fe_init){v, a->init->lo, a->init->hi});
  }
  add_name(g, v);
  a->t = fe_tensor(g, v);
}

static tn_tensor *value_call(tn_graph *g, const char *call, value_args a) {
  if (!fe_alive(g)) return NULL;
  a.g = g;
  fe_mark m = fe_enter(g, call);
  tn_status status = fe_protect(g, value_make, &a);
  return fe_leave(g, &m, status == TN_OK ? a.t : NULL);
}

tn_tensor *tn_input(tn_graph *g, const char *name, tn_dtype dtype, int rank, const int64_t dims[]) {
  return value_call(g, "tn_input", (value_args){.name = name, .kind = IR_VALUE_INPUT, .dtype = dtype, .rank = rank, .dims = dims});
}

tn_tensor *tn_const(tn_graph *g, const char *name, tn_dtype dtype, int rank, const int64_t dims[], const void *data) {
  return value_call(g, "tn_const", (value_args){.name = name, .kind = IR_VALUE_CONST, .dtype = dtype, .rank = rank, .dims = dims, .data = data});
}

tn_tensor *tn_param(tn_graph *g, const char *name, tn_dtype dtype, int rank, const int64_t dims[], const void *data) {
  return value_call(g, "tn_param", (value_args){.name = name, .kind = IR_VALUE_PARAM, .dtype = dtype, .rank = rank, .dims = dims, .data = data});
}

tn_tensor *fe_state(tn_graph *g, const char *name, tn_dtype t, int rank, const int64_t *dims, const void *data) {
  return value_call(g, "tn_state", (value_args){.name = name, .kind = IR_VALUE_STATE, .dtype = t, .rank = rank, .dims = dims, .data = data});
}

tn_tensor *fe_param_init(tn_graph *g, const char *name, tn_dtype t, int rank, const int64_t *dims, double lo, double hi) {
  fe_init init = {NULL, lo, hi};
  return value_call(g, "tn_param", (value_args){.name = name, .kind = IR_VALUE_PARAM, .dtype = t, .rank = rank, .dims = dims, .init = &init});
}

tn_tensor *fe_ints(tn_graph *g, int n, const int64_t *v) {
  return value_call(g, "tn_const", (value_args){.kind = IR_VALUE_CONST, .dtype = TN_I64, .rank = 1, .dims = (int64_t[]){n}, .data = v});
}

typedef struct scalar_args {
  tn_graph *g;
  tn_dtype dtype;
  double value;
  tn_tensor *t;
} scalar_args;

static void scalar_make(tn_ctx *ctx, void *arg) {
  scalar_args *a = arg;
  if (a->dtype <= TN_NONE || a->dtype >= TN_INDEX) ir_fail(ctx, TN_EUSAGE, "dtype %d is none of tn_dtype's", (int)a->dtype);
  if (a->g->eager) {
    char bytes[8];
    ir_scalar s = {.i = (int64_t)a->value};
    if (ir_is_float(a->dtype)) s.f = a->value;
    ir_scalar_store(a->dtype, bytes, s);
    a->t = fe_eager_const(ctx, a->g, a->dtype, 0, NULL, bytes);
    return;
  }
  ir_value *v = ir_graph_scalar(a->g->g, fresh_name(a->g, "scalar"), a->dtype, a->value);
  add_name(a->g, v);
  a->t = fe_tensor(a->g, v);
}

tn_tensor *tn_scalar(tn_graph *g, tn_dtype dtype, double value) {
  if (!fe_alive(g)) return NULL;
  scalar_args a = {g, dtype, value, NULL};
  fe_mark m = fe_enter(g, "tn_scalar");
  tn_status status = fe_protect(g, scalar_make, &a);
  return fe_leave(g, &m, status == TN_OK ? a.t : NULL);
}

/* ---- nodes ---- */

static tn_tensor omitted; /* never written: its address says it */
tn_tensor *tn_omit(void) { return &omitted; }

typedef struct node_args {
  tn_graph *g;
  const char *name, *op, *attrs;
  int nin;
  tn_tensor *const *in;
  int nout;
  tn_tensor **out;
} node_args;

ir_node *fe_make_node(tn_ctx *ctx, tn_graph *g, const char *name, const char *op, const char *attrs, int nin, ir_value **in, int nout) {
  if (!name) name = fresh_name(g, op);
  ir_node *n = ir_node_new(g->g, op, name, nin, in, nout);
  const char *place = g->file ? ir_format(ctx, "%.200s:%d: ", g->file, g->line) : "";
  n->where = ir_format(ctx, "%s%s: node '%s'", place, g->call, name);
  if (attrs) fe_attrs(ctx, n, attrs);
  ir_where(ctx, NULL); /* n->where says it from here */
  ir_infer(ctx, n);
  bool known = n->nin > 0;
  for (int i = 0; i < n->nin; i++) known &= !n->in[i] || n->in[i]->data;
  for (int i = 0; i < n->nout; i++) known &= !n->out[i]->data;
  if (known) lw_fold_node(ctx, n, FOLD_LIMIT);
  for (int i = 0; i < nout; i++) {
    if (taken(g, n->out[i]->name)) n->out[i]->name = fresh_name(g, op);
    add_name(g, n->out[i]);
  }
  return n;
}

static void node_make(tn_ctx *ctx, void *arg) {
  node_args *a = arg;
  tn_graph *g = a->g;
  if (!a->op) ir_fail(ctx, TN_EUSAGE, "the op's name is null");
  if (a->nin < 0 || a->nin > 1 << 20 || a->nout < 1 || a->nout > 1 << 20) ir_fail(ctx, TN_EUSAGE, "%s with %d inputs and %d outputs", a->op, a->nin, a->nout);
  if (a->name) check_name(g, a->name);
  const char *name = a->name ? a->name : fresh_name(g, a->op);
  ir_value **in = IR_NEW_ARRAY(ctx, ir_value *, a->nin);
  for (int i = 0; i < a->nin; i++) {
    if (a->in[i] == &omitted) continue;
    if (a->in[i]->graph != g) ir_fail(ctx, TN_EUSAGE, "node '%s': input %d ('%s') belongs to another graph", name, i, a->in[i]->v->name);
    in[i] = a->in[i]->v;
  }
  ir_node *n = fe_make_node(ctx, g, name, a->op, a->attrs, a->nin, in, a->nout);
  for (int i = 0; i < a->nout; i++) a->out[i] = fe_tensor(g, n->out[i]);
}

tn_status fe_node(tn_graph *g, const char *name, const char *op, const char *attrs, int nin, tn_tensor *const *in, int nout, tn_tensor **out) {
  for (int i = 0; i < nout; i++) out[i] = NULL;
  for (int i = 0; i < nin; i++)
    if (!in || !in[i]) {
      char what[80];
      snprintf(what, sizeof what, "input %d of %.40s", i, op ? op : "the op");
      return fe_null(g, what);
    }
  if (g->eager) return fe_eager_node(g, op, attrs, nin, in, nout, out);
  node_args a = {g, name, op, attrs, nin, in, nout, out};
  tn_status status = fe_protect(g, node_make, &a);
  if (status != TN_OK)
    for (int i = 0; i < nout; i++) out[i] = NULL;
  return status;
}

tn_tensor *fe_op(tn_graph *g, const char *name, const char *op, const char *attrs, int n, ...) {
  tn_tensor *in[8], *out;
  va_list ap;
  va_start(ap, n);
  for (int i = 0; i < n && i < IR_COUNT(in); i++) in[i] = va_arg(ap, tn_tensor *);
  va_end(ap);
  fe_node(g, name, op, attrs, n, in, 1, &out);
  return out;
}

tn_tensor *tn_op(tn_graph *g, const char *op, int ninputs, tn_tensor *const inputs[], const char *attrs) {
  if (!fe_alive(g)) return NULL;
  tn_tensor *out;
  fe_mark m = fe_enter(g, "tn_op");
  fe_node(g, NULL, op, attrs, ninputs, inputs, 1, &out);
  return fe_leave(g, &m, out);
}

tn_status tn_op_n(tn_graph *g, const char *op, int ninputs, tn_tensor *const inputs[], const char *attrs, int noutputs, tn_tensor *outputs[]) {
  if (!fe_alive(g)) return TN_EUSAGE;
  fe_mark m = fe_enter(g, "tn_op_n");
  tn_status status = !outputs || noutputs < 1 ? fe_error(g, TN_EUSAGE, "there is no room for outputs")
                                              : fe_node(g, NULL, op, attrs, ninputs, inputs, noutputs, outputs);
  if (status == TN_OK) fe_eager_keep(g, noutputs, outputs);
  fe_leave(g, &m, status == TN_OK ? outputs[0] : NULL);
  return status;
}

/* ---- outputs ---- */

typedef struct output_args {
  tn_graph *g;
  const char *name;
  tn_tensor *t;
} output_args;

static void output_make(tn_ctx *ctx, void *arg) {
  output_args *a = arg;
  tn_graph *g = a->g;
  ir_value *v = a->t->v;
  if (g->eager) ir_fail(ctx, TN_EUSAGE, "an eager graph has no outputs: tn_value computes a tensor");
  if (a->t->graph != g) ir_fail(ctx, TN_EUSAGE, "'%s' belongs to another graph", v->name);
  bool already = false;
  for (int i = 0; i < g->g->noutputs; i++) already |= g->g->outputs[i] == v;
  for (int i = 0; i < g->noutputs; i++)
    if (g->outputs[i] == a->t) ir_fail(ctx, TN_EUSAGE, "'%s' is an output already", v->name);
  if (a->name && strcmp(a->name, v->name) != 0) {
    check_name(g, a->name);
    const char *name = ir_intern(ctx, a->name);
    if (v->kind == IR_VALUE_NODE && !already) { /* the tensor takes the output's name */
      ir_map_set(&g->names, name, v);
      ir_map_set(&g->names, v->name, NULL);
      v->name = name;
    } else { /* inputs and weights keep theirs */
      ir_node *n = ir_node_new(g->g, "Identity", name, 1, &v, 1);
      n->where = ir_format(ctx, "tn_output: node '%s'", name);
      ir_infer(ctx, n);
      v = n->out[0];
      add_name(g, v);
    }
  }
  IR_PUSH(ctx, g->outputs, g->noutputs, a->t);
  ir_graph_output(g->g, v);
}

tn_status tn_output(tn_graph *g, const char *name, tn_tensor *t) {
  if (!fe_alive(g)) return TN_EUSAGE;
  fe_mark m = fe_enter(g, "tn_output");
  output_args a = {g, name, t};
  int before = g->noutputs;
  tn_status status = t && t != &omitted ? fe_protect(g, output_make, &a) : fe_null(g, "the tensor");
  if (status != TN_OK) g->noutputs = before;
  if (m.outermost) g->call = NULL;
  return status;
}

static void fix_input(tn_ctx *ctx, void *arg) {
  output_args *a = arg; /* name: the data */
  int64_t bytes = tn_bytes(a->t);
  if (bytes < 0) ir_fail(ctx, TN_EUSAGE, "the shape of '%s' is not known: give its dimensions sizes first", a->t->v->name);
  void *p = ir_alloc(ctx, (size_t)bytes);
  if (bytes) memcpy(p, a->name, (size_t)bytes);
  a->t->fixed = p;
}

tn_status tn_fix_input(tn_graph *g, tn_tensor *input, const void *data) {
  if (!fe_alive(g)) return TN_EUSAGE;
  fe_mark m = fe_enter(g, "tn_fix_input");
  output_args a = {g, data, input};
  tn_status status;
  if (!input || !data) status = fe_null(g, input ? "the data" : "the tensor");
  else if (input->graph != g || input->v->kind != IR_VALUE_INPUT) status = fe_error(g, TN_EUSAGE, "the tensor is no input of this graph");
  else status = fe_protect(g, fix_input, &a);
  if (m.outermost) g->call = NULL;
  if (status == TN_OK && g->loaded) fe_refresh(g);
  return status;
}
