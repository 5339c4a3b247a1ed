/* api_function.c — one function in two styles: called operation by operation, or recorded once and
 * run whole. See eager.h.
 *
 *   eager     tn_begin, the function, its results computed, tn_end
 *   compiled  the first call with inputs of some types: the same without asking for values; what was
 *             to be computed is kept as a plan. Later ones: the plan, and nothing else. */
#include "frontend/eager.h"
#include <string.h>

typedef struct captured { /* for inputs of these types */
  struct captured *next;
  tn_dtype *dtypes;
  int *ranks;
  int64_t *dims; /* one after the other */
  fe_plan *plan;
  int *from;     /* per operand of the plan: the number of the input, -1: kept for ever */
  ir_value **out;
} captured;

struct tn_function {
  tn_graph *g;
  tn_fn fn;
  void *user;
  int nin, nout;
  bool compiled;
  captured *first;
  const char *where; /* of the call that made it */
};

typedef struct new_args {
  tn_function f, *made;
} new_args;

static void function_new(tn_ctx *ctx, void *arg) {
  new_args *a = arg;
  a->made = IR_NEW(ctx, tn_function);
  *a->made = a->f;
}

tn_function *tn_function_new(tn_graph *g, tn_fn fn, void *user, int nin, int nout) {
  if (!fe_alive(g)) return NULL;
  fe_mark m = fe_enter(g, "tn_function_new");
  new_args a = {.f = {.g = g, .fn = fn, .user = user, .nin = nin, .nout = nout}};
  if (!g->eager) fe_error(g, TN_EUSAGE, "the graph was not made by tn_eager");
  else if (!fn || nin < 0 || nout < 0 || nin > 1 << 16 || nout > 1 << 16) fe_error(g, TN_EUSAGE, "a null function, or %d inputs and %d results", nin, nout);
  else fe_protect(g, function_new, &a);
  fe_leave(g, &m, NULL);
  return a.made;
}

void tn_function_compiled(tn_function *f, int on) {
  if (f) f->compiled = on != 0;
}

static bool fits(const tn_function *f, const captured *c, tn_tensor *const in[]) {
  int64_t dims[TN_MAX_RANK];
  const int64_t *want = c->dims;
  for (int i = 0; i < f->nin; i++) {
    int rank = tn_shape(in[i], dims);
    if (rank != c->ranks[i] || tn_type(in[i]) != c->dtypes[i] || (rank && memcmp(dims, want, (size_t)rank * sizeof *dims) != 0)) return false;
    want += rank;
  }
  return true;
}

typedef struct call_args {
  tn_function *f;
  tn_tensor *const *in;
  tn_tensor **out;
  captured *c;
  fe_plan *plan;
  ir_value **leaves; /* what the inputs were while recording; null: not used */
} call_args;

static void remember(tn_ctx *ctx, void *arg) {
  call_args *a = arg;
  tn_function *f = a->f;
  captured *c = IR_NEW(ctx, captured);
  c->dtypes = IR_NEW_ARRAY(ctx, tn_dtype, f->nin + 1);
  c->ranks = IR_NEW_ARRAY(ctx, int, f->nin + 1);
  c->dims = IR_NEW_ARRAY(ctx, int64_t, f->nin * TN_MAX_RANK + 1);
  c->from = IR_NEW_ARRAY(ctx, int, a->plan->nin + 1);
  c->out = IR_NEW_ARRAY(ctx, ir_value *, f->nout + 1);
  c->plan = a->plan;
  int64_t *at = c->dims;
  for (int i = 0; i < f->nin; i++) c->dtypes[i] = tn_type(a->in[i]), c->ranks[i] = tn_shape(a->in[i], at), at += c->ranks[i];
  for (int k = 0; k < a->plan->nin; k++) {
    c->from[k] = -1;
    for (int i = 0; i < f->nin; i++)
      if (a->leaves[i] == a->plan->in[k]) c->from[k] = i;
    ir_value_kind kind = a->plan->in[k]->kind;
    if (c->from[k] < 0 && kind != IR_VALUE_PARAM && kind != IR_VALUE_STATE)
      ir_fail(ctx, TN_EUSAGE, "the function reads '%s', which is neither its input nor a parameter: it cannot be compiled whole", a->plan->in[k]->name);
  }
  for (int i = 0; i < f->nout; i++) {
    bool computed = false;
    for (int k = 0; k < a->plan->nout; k++) computed |= a->plan->out[k] == a->out[i]->v;
    if (!computed) ir_fail(ctx, TN_EUSAGE, "result %d is given, not computed: the function cannot be compiled whole", i);
    c->out[i] = a->out[i]->v;
  }
  a->plan->compiled->pinned = true;
  c->next = f->first;
  f->first = c;
}

static void leaves_of(tn_ctx *ctx, void *arg) {
  call_args *a = arg;
  a->leaves = IR_NEW_ARRAY(ctx, ir_value *, a->f->nin + 1);
  for (int i = 0; i < a->f->nin; i++) a->leaves[i] = fe_eager_value(ctx, a->f->g, a->in[i]);
}

/* Runs the function and computes its results. Null results of the function are an error of its own. */
static tn_status record_and_run(call_args *a, bool capture) {
  tn_function *f = a->f;
  tn_graph *g = f->g;
  const char *call = g->call;
  for (int i = 0; i < f->nout; i++) a->out[i] = NULL;
  g->call = NULL; /* what the function calls are calls of its own */
  tn_status status = tn_begin(g);
  if (status == TN_OK && capture) {
    if (g->eager->nscopes != 1 || g->eager->nupdates || g->eager->nleaves)
      status = fe_error(g, TN_EUSAGE, "tn_call: a function that is compiled whole cannot be called within a step");
    else status = fe_protect(g, leaves_of, a);
  }
  if (status == TN_OK) {
    g->eager->capturing = capture;
    f->fn(g, f->user, a->in, a->out);
    g->eager->capturing = false;
    status = g->status;
    for (int i = 0; i < f->nout && status == TN_OK; i++)
      if (!a->out[i]) status = g->status != TN_OK ? g->status : fe_error(g, TN_EUSAGE, "tn_call: the function gave no result %d", i);
  }
  if (status == TN_OK) status = fe_eager_eval(g, f->nout, a->out, true, &a->plan);
  if (status == TN_OK && capture && a->plan) status = fe_protect(g, remember, a);
  tn_status end = tn_end(g, status == TN_OK ? f->nout : 0, a->out);
  g->call = call;
  return status != TN_OK ? status : end;
}

static void run_captured(tn_ctx *ctx, void *arg) {
  call_args *a = arg;
  tn_function *f = a->f;
  const fe_plan *p = a->c->plan;
  fe_buffer *few[64], **bufs = p->nin + p->nout <= 64 ? few : IR_NEW_ARRAY(ctx, fe_buffer *, p->nin + p->nout);
  for (int k = 0; k < p->nin; k++) bufs[k] = a->c->from[k] < 0 ? fe_bound_get(f->g->eager, p->in[k]) : a->in[a->c->from[k]]->buf;
  fe_plan_run(ctx, f->g, p, bufs, bufs + p->nin);
  for (int i = 0; i < f->nout; i++) {
    tn_tensor *t = a->out[i] = fe_eager_handle(ctx, f->g, a->c->out[i]);
    t->trace = 0; /* known from here on, not a node of the running trace */
    for (int k = 0; k < p->nout; k++)
      if (p->out[k] == a->c->out[i]) t->buf = bufs[p->nin + k], t->buf->refs++;
  }
  for (int k = 0; k < p->nout; k++) fe_buffer_drop(ctx, f->g->eager, bufs[p->nin + k]);
}

tn_status tn_call(tn_function *f, tn_tensor *const in[], tn_tensor *out[]) {
  if (!f || !fe_alive(f->g)) return TN_EUSAGE;
  tn_graph *g = f->g;
  fe_mark m = fe_enter(g, "tn_call");
  call_args a = {.f = f, .in = in, .out = out};
  tn_status status = TN_OK;
  g->status = TN_OK; /* each call stands for itself */
  if ((f->nin && !in) || (f->nout && !out)) status = fe_error(g, TN_EUSAGE, "the inputs or the results are null");
  for (int i = 0; i < f->nin && status == TN_OK; i++) {
    if (!in[i] || in[i] == tn_omit() || in[i]->graph != g) status = fe_error(g, TN_EUSAGE, "input %d is no tensor of this graph", i);
    else if (f->compiled && !in[i]->buf) status = fe_eager_eval(g, 1, &in[i], true, NULL);
  }
  for (a.c = f->first; status == TN_OK && f->compiled && a.c; a.c = a.c->next)
    if (fits(f, a.c, in)) break;
  if (status == TN_OK && f->compiled && a.c) {
    status = fe_protect(g, run_captured, &a);
    if (status == TN_OK) fe_eager_keep(g, f->nout, out);
  } else if (status == TN_OK) status = record_and_run(&a, f->compiled);
  fe_leave(g, &m, NULL);
  return status;
}
