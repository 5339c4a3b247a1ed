/* api_train.c — states, updates, losses, optimizers: what makes a graph a step of training. */
#include "frontend/eager.h"
#include <stdio.h>
#include <string.h>

tn_tensor *tn_state(tn_graph *g, const char *name, tn_dtype dtype, int rank, const int64_t dims[], const void *data) {
  return fe_state(g, name, dtype, rank, dims, data);
}

/* ---- updates ---- */

typedef struct update_args {
  tn_graph *g;
  tn_tensor *kept, *value;
} update_args;

static void update_make(tn_ctx *ctx, void *arg) {
  update_args *a = arg;
  tn_graph *g = a->g;
  ir_value *t = a->kept->v, *v = a->value->v;
  if (a->kept->graph != g || a->value->graph != g) ir_fail(ctx, TN_EUSAGE, "'%s' or '%s' belongs to another graph", t->name, v->name);
  if (t->kind != IR_VALUE_PARAM && t->kind != IR_VALUE_STATE) ir_fail(ctx, TN_EUSAGE, "'%s' is neither a parameter nor a state", t->name);
  for (int i = 0; i < g->g->nupdates; i++)
    if (g->g->updates[i] == t) ir_fail(ctx, TN_EUSAGE, "'%s' is updated already", t->name);
  bool same = t->dtype == v->dtype && t->rank == v->rank;
  for (int i = 0; same && i < t->rank; i++) same = t->dims[i] == v->dims[i] || !ix_is_const(v->dims[i]);
  if (!same) ir_fail(ctx, TN_EUSAGE, "'%s' is updated by '%s', which has another type or shape", t->name, v->name);
  ir_graph_update(g->g, t, v);
}

tn_status tn_update(tn_graph *g, tn_tensor *kept, tn_tensor *value) {
  if (!fe_alive(g)) return TN_EUSAGE;
  fe_mark m = fe_enter(g, "tn_update");
  update_args a = {g, kept, value};
  tn_status status;
  if (!kept || !value) status = fe_null(g, kept ? "the value" : "the state");
  else if (!kept->v || !value->v) status = fe_error(g, TN_EUSAGE, "tn_omit() is no tensor");
  else status = g->eager ? fe_eager_update(g, kept, value) : fe_protect(g, update_make, &a);
  fe_leave(g, &m, kept);
  return status;
}

tn_tensor *fe_step(tn_graph *g) {
  if (g->step) return g->step;
  tn_tensor *before = fe_state(g, "step", TN_I64, 0, NULL, NULL);
  tn_tensor *now = fe_op(g, NULL, "Add", NULL, 2, before, tn_scalar(g, TN_I64, 1));
  if (tn_update(g, before, now) != TN_OK) return NULL;
  return g->step = tn_retain(g, now);
}

void tn_training(tn_graph *g, int on) {
  if (g) g->training = on != 0;
}

/* ---- which parameters learn ---- */

/* Whether v is a running statistic of a BatchNormalization. */
static bool is_statistic(const tn_graph *g, const ir_value *v) {
  for (int i = 0; i < g->g->nnodes; i++) {
    const ir_node *n = g->g->nodes[i];
    for (int k = 3; k < n->nin && ir_node_is(n, "BatchNormalization"); k++)
      if (n->in[k] == v) return true;
  }
  return false;
}

static void trainable_one(tn_ctx *ctx, tn_graph *g, ir_value *v, bool on) {
  tn_tensor *t = fe_tensor(g, v);
  if (v->kind == IR_VALUE_CONST && on) { /* replaceable from now on: no pass may look at its data */
    v->kind = IR_VALUE_PARAM;
    v->raw = v->data;
    v->data = NULL;
  }
  if (v->kind != IR_VALUE_PARAM || !ir_is_float(v->dtype)) ir_fail(ctx, TN_EUSAGE, "'%s' is no parameter of floats", v->name);
  t->frozen = !on;
}

static void trainable_make(tn_ctx *ctx, void *arg) {
  update_args *a = arg;
  tn_graph *g = a->g;
  bool on = a->value != NULL;
  if (a->kept) {
    if (a->kept->graph != g) ir_fail(ctx, TN_EUSAGE, "'%s' belongs to another graph", a->kept->v->name);
    trainable_one(ctx, g, a->kept->v, on);
    return;
  }
  for (int i = 0; i < g->g->nparams; i++) {
    ir_value *v = g->g->params[i];
    bool kind = v->kind == IR_VALUE_PARAM || (v->kind == IR_VALUE_CONST && g->loaded);
    if (kind && ir_is_float(v->dtype) && v->rank > 0 && !is_statistic(g, v)) trainable_one(ctx, g, v, on);
  }
}

tn_status tn_trainable(tn_graph *g, tn_tensor *param, int on) {
  if (!fe_alive(g)) return TN_EUSAGE;
  fe_mark m = fe_enter(g, "tn_trainable");
  update_args a = {g, param, on ? tn_omit() : NULL};
  tn_status status = param && !param->v ? fe_error(g, TN_EUSAGE, "tn_omit() is no tensor") : fe_protect(g, trainable_make, &a);
  if (m.outermost) g->call = NULL;
  return status;
}

/* ---- losses, dropout ---- */

tn_tensor *tn_cross_entropy(tn_graph *g, tn_tensor *logits, tn_tensor *labels) {
  if (!fe_alive(g)) return NULL;
  fe_mark m = fe_enter(g, "tn_cross_entropy");
  return fe_leave(g, &m, fe_op(g, NULL, "SoftmaxCrossEntropyLoss", NULL, 2, logits, labels));
}

tn_tensor *tn_mse(tn_graph *g, tn_tensor *y, tn_tensor *target) {
  if (!fe_alive(g)) return NULL;
  fe_mark m = fe_enter(g, "tn_mse");
  tn_tensor *d = fe_op(g, NULL, "Sub", NULL, 2, y, target);
  return fe_leave(g, &m, fe_op(g, NULL, "ReduceMean", "keepdims=0", 1, fe_op(g, NULL, "Mul", NULL, 2, d, d)));
}

tn_tensor *tn_dropout(tn_graph *g, tn_tensor *x, double p) {
  if (!fe_alive(g)) return NULL;
  fe_mark m = fe_enter(g, "tn_dropout");
  tn_tensor *y = NULL;
  char attrs[32];
  if (!x) fe_null(g, "x");
  else if (!x->v || !ir_is_float(x->v->dtype)) fe_error(g, TN_EUSAGE, "'%s' has dtype %s; dropout works on floats", tn_name(x), ir_dtype_name(tn_type(x)));
  else if (!(p >= 0 && p < 1)) fe_error(g, TN_EUSAGE, "the probability %g is not in [0, 1)", p);
  else if (!g->training || p == 0) y = x;
  else {
    snprintf(attrs, sizeof attrs, "seed=%d", g->ndropouts++);
    tn_tensor *u = fe_op(g, NULL, "tenon:Uniform", attrs, 2, fe_step(g), x);
    tn_tensor *keep = fe_op(g, NULL, "GreaterOrEqual", NULL, 2, u, tn_scalar(g, TN_F32, p));
    tn_tensor *scaled = fe_op(g, NULL, "Mul", NULL, 2, x, tn_scalar(g, x->v->dtype, 1 / (1 - p)));
    y = fe_op(g, NULL, "Where", NULL, 3, keep, scaled, tn_scalar(g, x->v->dtype, 0));
  }
  return fe_leave(g, &m, y);
}

/* ---- optimizers ---- */

static int states_of(const tn_optimizer *o) { return o->kind != TN_SGD ? 2 : o->momentum != 0; }

static bool check_optimizer(tn_graph *g, const tn_optimizer *o) {
  if (!o) return fe_null(g, "the optimizer"), false;
  const double must[] = {o->rate, o->decay, o->clip, o->momentum, o->beta1, o->beta2, o->epsilon};
  for (int i = 0; i < IR_COUNT(must); i++)
    if (!(must[i] >= 0 && must[i] < 1e30)) return fe_error(g, TN_EUSAGE, "a number of the optimizer is %g", must[i]), false;
  if ((int)o->kind < 0 || o->kind > TN_ADAMW) return fe_error(g, TN_EUSAGE, "optimizer %d is none of tn_optimizer_kind", (int)o->kind), false;
  if (o->momentum >= 1 || o->beta1 >= 1 || o->beta2 >= 1) return fe_error(g, TN_EUSAGE, "momentum and betas must be below 1"), false;
  if (o->nesterov && o->momentum == 0) return fe_error(g, TN_EUSAGE, "nesterov needs a momentum"), false;
  return true;
}

static void put_attrs(char *at, size_t room, const tn_optimizer *o) {
  static const char *const kinds[] = {"sgd", "adam", "adamw"};
  size_t n = (size_t)snprintf(at, room, "kind=\"%s\" decay=%.17g clip=%.17g", kinds[o->kind], o->decay, o->clip);
  if (o->kind == TN_SGD) snprintf(at + n, room - n, " momentum=%.17g nesterov=%d", o->momentum, o->nesterov != 0);
  else
    snprintf(at + n, room - n, " beta1=%.17g beta2=%.17g epsilon=%.17g", o->beta1 > 0 ? o->beta1 : 0.9, o->beta2 > 0 ? o->beta2 : 0.999,
             o->epsilon > 0 ? o->epsilon : 1e-8);
}

/* Operands and results of the node Optimize, in its order. */
typedef struct lists {
  tn_graph *g;
  int n, nstates;
  tn_tensor *const *given;
  tn_tensor **in, **out;
} lists;

static void make_lists(tn_ctx *ctx, void *arg) {
  lists *l = arg;
  tn_graph *g = l->g;
  int most = l->n ? l->n : g->g->nparams;
  l->in = IR_NEW_ARRAY(ctx, tn_tensor *, 2 + most * (2 + l->nstates));
  l->out = IR_NEW_ARRAY(ctx, tn_tensor *, most * (1 + l->nstates) + 1);
  for (int i = 0; i < l->n; i++) {
    tn_tensor *p = l->given[i];
    if (!p) ir_fail(ctx, TN_EUSAGE, "parameter %d is null", i);
    if (!p->v || p->v->kind != IR_VALUE_PARAM) ir_fail(ctx, TN_EUSAGE, "'%s' is no parameter", tn_name(p));
    l->in[2 + i] = p;
  }
  for (int i = 0; i < g->g->nparams && !l->given; i++) {
    ir_value *v = g->g->params[i];
    if (v->kind != IR_VALUE_PARAM || !ir_is_float(v->dtype) || fe_tensor(g, v)->frozen) continue;
    l->in[2 + l->n++] = fe_tensor(g, v);
  }
  if (!l->n) ir_fail(ctx, TN_EUSAGE, "there is no parameter to train");
}

static tn_status minimize(tn_graph *g, tn_tensor *loss, const tn_optimizer *o, int n, tn_tensor *const params[]) {
  if (!check_optimizer(g, o)) return g->status;
  lists l = {.g = g, .n = n, .nstates = states_of(o), .given = n ? params : NULL};
  if (!loss) return fe_null(g, "the loss");
  tn_status status = fe_protect(g, make_lists, &l);
  if (status == TN_OK) status = tn_gradient(g, loss, tn_omit(), l.n, l.in + 2, l.in + 2 + l.n);
  static const char *const names[2][2] = {{"momentum", ""}, {"momentum", "variance"}};
  for (int s = 0; s < l.nstates && status == TN_OK; s++)
    for (int i = 0; i < l.n && status == TN_OK; i++) {
      char room[FE_NAME_ROOM];
      int64_t dims[TN_MAX_RANK];
      const tn_tensor *p = l.in[2 + i];
      int rank = tn_shape(p, dims);
      tn_tensor *t = fe_state(g, fe_sub(room, tn_name(p), names[o->kind != TN_SGD][s]), tn_type(p), rank, dims, NULL);
      l.in[2 + (2 + s) * l.n + i] = t;
      if (!t) status = g->status;
    }
  if (status != TN_OK) return status;
  l.in[0] = o->rate_from ? o->rate_from : tn_scalar(g, TN_F32, o->rate);
  l.in[1] = o->kind == TN_SGD ? tn_omit() : fe_step(g);
  char attrs[320];
  put_attrs(attrs, sizeof attrs, o);
  int nout = l.n * (1 + l.nstates);
  status = fe_node(g, NULL, "tenon:Optimize", attrs, 2 + l.n * (2 + l.nstates), l.in, nout, l.out);
  for (int i = 0; i < nout && status == TN_OK; i++) status = tn_update(g, i < l.n ? l.in[2 + i] : l.in[2 + l.n + i], l.out[i]);
  return status;
}

tn_status tn_minimize(tn_graph *g, tn_tensor *loss, const tn_optimizer *o, int n, tn_tensor *const params[]) {
  if (!fe_alive(g)) return TN_EUSAGE;
  fe_mark m = fe_enter(g, "tn_minimize");
  tn_status status = n < 0 || (n && !params) ? fe_error(g, TN_EUSAGE, "%d parameters, or null", n) : minimize(g, loss, o, n, params);
  fe_leave(g, &m, status == TN_OK ? loss : NULL);
  return status;
}
