/* grad_help.h — gradients of graph text against differences, in f64, by the interpreter.
 *
 *   grad_check(&(grad_case){"Tanh", "input a: f64[2, 3] y = Tanh(a)"})
 *
 * The loss is the sum of the float outputs with random weights; its gradient by every f64 input,
 * and the gradient of a random sum of that, must agree with central differences. */
#ifndef GRAD_HELP_H
#define GRAD_HELP_H
#include "lower/grad.h"
#include "lower/lower.h"
#include "runtime/program_interp.h"
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

typedef struct grad_case {
  const char *op;   /* as the table says it, "domain:name" */
  const char *text; /* of a graph; output y unless it says others */
  double lo, hi;    /* of the f64 inputs; both 0: -1 to 1 */
  int order;        /* 1: no second derivative */
} grad_case;

enum { GRAD_INPUTS = 12 };
typedef struct grad_run {
  tn_ctx *ctx;
  const ir_program *p;
  int nx;
  const double *x[GRAD_INPUTS]; /* owned by the inputs */
  int64_t size[GRAD_INPUTS];
  void *in[GRAD_INPUTS], *out[2 + 2 * GRAD_INPUTS];
} grad_run;

static uint64_t grad_state;
static inline double grad_draw(double lo, double hi) {
  grad_state = grad_state * 6364136223846793005u + 1442695040888963407u;
  return lo + (hi - lo) * (double)(grad_state >> 11) / 9007199254740992.0;
}

/* sum of v * random */
static inline ir_value *grad_loss(ir_graph *g, ir_node *n, ir_value *v) {
  int64_t dims[IR_MAX_RANK], count = ir_value_elements(g->ctx, v);
  double *w = IR_NEW_ARRAY(g->ctx, double, count + 1);
  for (int64_t i = 0; i < count; i++) w[i] = grad_draw(-1, 1);
  lw_grad_dims(g->ctx, v, dims);
  ir_value *weights = ir_graph_const(g, NULL, TN_F64, v->rank, dims, w, true);
  return lw_reduce_all(g, n, "ReduceSum", lw_op2(g, n, "Mul", lw_cast_node(g, n, v, TN_F64), weights));
}

/* Outputs: loss, its gradients, a loss of those, its gradients. */
static inline void grad_build_graph(tn_ctx *ctx, ir_graph *g, const grad_case *c, grad_run *r, ir_value **xs) {
  lw_pass_infer(ctx, g, NULL);
  ir_value *loss[2] = {NULL, NULL}, *dx[2][GRAD_INPUTS];
  int order = c->order == 1 ? 1 : 2;
  ir_node *n = ir_node_new(g, "Identity", "test", 0, NULL, 1); /* whom rules name */
  n->dead = true;
  for (int o = 0; o < order; o++) {
    int count = o ? r->nx : g->noutputs;
    for (int i = 0; i < count; i++) {
      ir_value *v = o ? dx[0][i] : g->outputs[i];
      if (!ir_is_float(v->dtype)) continue;
      ir_value *l = grad_loss(g, n, v);
      loss[o] = loss[o] ? lw_op2(g, n, "Add", loss[o], l) : l;
    }
    lw_gradients(ctx, g, n, loss[o], NULL, r->nx, xs, 0, dx[o]);
  }
  g->noutputs = 0;
  g->outputs = NULL;
  for (int o = 0; o < order; o++) {
    ir_graph_output(g, lw_op1(g, n, "Identity", loss[o]));
    for (int i = 0; i < r->nx; i++) ir_graph_output(g, lw_op1(g, n, "Identity", dx[o][i]));
  }
}

static inline void grad_execute(grad_run *r) {
  rt_program_interp(r->ctx, r->p, (const void *const *)r->in, r->out, NULL, NULL, NULL);
}

static inline void grad_trial(tn_ctx *ctx, void *arg) {
  const grad_case *c = arg;
  const char *output = strstr(c->text, "output ") ? "" : " output y";
  ir_graph *g = ir_graph_parse(ctx, ir_format(ctx, "graph g { %s%s }", c->text, output), c->op);
  grad_run r = {.ctx = ctx};
  ir_value *xs[GRAD_INPUTS];
  int which[GRAD_INPUTS];
  grad_state = 1;
  for (const char *s = c->text; *s; s++) grad_state = grad_state * 31 + (unsigned char)*s;
  for (int i = 0; i < g->ninputs; i++) {
    ir_value *v = g->inputs[i];
    ir_assert(ctx, i < GRAD_INPUTS && v->dtype == TN_F64);
    int64_t count = ir_value_elements(ctx, v);
    double *p = IR_NEW_ARRAY(ctx, double, count + 8);
    for (int64_t k = 0; k < count; k++) p[k] = c->lo == c->hi ? grad_draw(-1, 1) : grad_draw(c->lo, c->hi);
    which[r.nx] = i;
    r.in[i] = p;
    r.size[r.nx] = count;
    xs[r.nx++] = v;
  }
  grad_build_graph(ctx, g, c, &r, xs);
  r.p = lw_compile(ctx, g, &(lw_options){.unscheduled = true});
  for (int i = 0; i < r.p->nslots; i++)
    if (r.p->slots[i].kind == IR_SLOT_OUTPUT) r.out[r.p->slots[i].index] = ir_alloc(ctx, (size_t)r.p->slots[i].bytes + 64);
  int order = c->order == 1 ? 1 : 2, step = 1 + r.nx;
  double *want[2][GRAD_INPUTS];
  grad_execute(&r);
  for (int o = 0; o < order; o++)
    for (int i = 0; i < r.nx; i++) {
      want[o][i] = IR_NEW_ARRAY(ctx, double, r.size[i] + 1);
      memcpy(want[o][i], r.out[o * step + 1 + i], (size_t)r.size[i] * 8);
    }
  const double h = 1e-5;
  for (int i = 0; i < r.nx; i++)
    for (int64_t k = 0; k < r.size[i]; k += 1 + r.size[i] / 40) {
      double *x = (double *)r.in[which[i]] + k, old = *x, high[2], low[2];
      *x = old + h;
      grad_execute(&r);
      for (int o = 0; o < order; o++) high[o] = *(double *)r.out[o * step];
      *x = old - h;
      grad_execute(&r);
      for (int o = 0; o < order; o++) low[o] = *(double *)r.out[o * step];
      *x = old;
      for (int o = 0; o < order; o++) {
        double d = (high[o] - low[o]) / (2 * h), got = want[o][i][k];
        if (!(fabs(d - got) <= 2e-6 * (1 + fabs(d))))
          ir_fail(ctx, TN_EWRONG, "order %d, input '%s', element %lld: the gradient is %.9g, the difference %.9g", o + 1, xs[i]->name, (long long)k, got, d);
      }
    }
}

static inline void grad_check(const grad_case *c) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_status s = ir_protect(ctx, grad_trial, (void *)(uintptr_t)c);
  cr_expect(s == TN_OK, "%s: %s: %.1500s", c->op, c->text, ir_error(ctx));
  tn_ctx_free(ctx);
}
#endif
