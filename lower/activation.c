/* activation.c — activations that exporters write as chains of nodes, as the one node they are: its formula needs less.
 *
 *   x * 0.5 * (1 + Erf(x / sqrt(2)))   Gelu, in any order of the factors
 *   x * Tanh(Softplus(x))              Mish */
#include "lower/build.h"
#include "lower/compose.h"
#include "lower/lower.h"
#include <math.h>

/* The node that makes v for one reader alone, if it is an `op` of two operands (or one); else null. */
static ir_node *only(const ir_value *v, const char *op) {
  return v->def && !v->def->dead && v->nuses == 1 && ir_node_is(v->def, op) ? v->def : NULL;
}

static bool number(const ir_value *v, double want) {
  double d;
  return ir_known_float(v, &d) && fabs(d - want) <= 1e-6 * want;
}

/* The operand of n beside a number; null if there is none. */
static ir_value *beside(const ir_node *n, double want) {
  for (int k = 0; k < 2; k++)
    if (number(n->in[k], want)) return n->in[1 - k];
  return NULL;
}

/* Factors of the product that n is, through products that only it reads; -1: more than three. */
static int factors(ir_node *n, ir_value **f, int count) {
  for (int k = 0; k < 2; k++) {
    ir_node *m = only(n->in[k], "Mul");
    if (m) count = factors(m, f, count);
    else if (count < 3) f[count++] = n->in[k];
    else count = -1;
    if (count < 0) break;
  }
  return count;
}

/* x of Erf(x / sqrt(2)) + 1, else null. */
static const ir_value *gelu_of(const ir_value *v) {
  ir_node *add = only(v, "Add");
  ir_value *e = add ? beside(add, 1) : NULL;
  ir_node *erf = e ? only(e, "Erf") : NULL, *scaled = erf ? only(erf->in[0], "Div") : NULL;
  if (scaled) return number(scaled->in[1], sqrt(2)) ? scaled->in[0] : NULL;
  scaled = erf ? only(erf->in[0], "Mul") : NULL;
  return scaled ? beside(scaled, sqrt(0.5)) : NULL;
}

static const ir_value *mish_of(const ir_value *v) {
  ir_node *t = only(v, "Tanh"), *s = t ? only(t->in[0], "Softplus") : NULL;
  return s ? s->in[0] : NULL;
}

void lw_activation(ir_graph *g, ir_node *n) {
  ir_value *f[3], *x = NULL;
  int count = n->out[0]->dtype == TN_F32 ? factors(n, f, 0) : -1;
  const char *op = count == 3 ? "Gelu" : "Mish";
  if (count < 2) return;
  for (int a = 0; a < count; a++) {
    const ir_value *of = count == 3 ? gelu_of(f[a]) : mish_of(f[a]);
    for (int b = 0; b < count && of; b++)
      if (f[b] == of && (count == 2 || number(f[3 - a - b], 0.5))) x = f[b];
  }
  if (!x || x->rank != n->out[0]->rank) return;
  for (int i = 0; i < x->rank; i++)
    if (x->dims[i] != n->out[0]->dims[i]) return;
  lw_replace(g, n, 0, lw_node(g, n, op, 1, &x));
}
