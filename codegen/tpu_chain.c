/* tpu_chain.c — runs of elementwise operations as one instruction of the activation unit. See tpu_lower.h.
 *
 * A chain is a path down an expression on which every other operand is a number or a plain view: what
 * follows a sum (scale, bias, residual, relu, rounding, casts) in one pass over the elements. */
#include "codegen/tpu_lower.h"

static bool in_chain(int op) { /* as the head of tpu_isa.h says */
  switch (op) {
  case IX_ADD: case IX_SUB: case IX_MUL: case IX_DIV: case IX_MIN: case IX_MAX: case IX_NEG: case IX_ABS: case IX_ROUND: case IX_FLOOR:
  case IX_CEIL: case IX_CAST: case IX_SQRT: case IX_EXP: case IX_TANH: case IX_SIGMOID: case IX_ERF: return true;
  default: return false;
  }
}

static ix through_lets(const tc *c, ix e) {
  while (e->op == IX_VAR) {
    const tc_bind *b = tc_bound(c, e->u.var);
    if (!b || b->kind != TC_EXPR) break;
    e = b->e;
  }
  return e;
}

/* A number, a value that is there, or an element of a buffer: no work of its own but perhaps a gather. */
static bool is_leaf(const tc *c, ix e) {
  e = through_lets(c, e);
  return e->op == IX_CONST || e->op == IX_VAR || e->op == IX_LOAD;
}

typedef struct chain {
  int n;
  ix node[TPU_CHAIN], other[TPU_CHAIN]; /* from the root down; the operand beside the path, or null */
  bool swap[TPU_CHAIN];
  ix leaf;
  int nothers;
} chain;

enum { OTHERS = 4 }; /* b, c and two numbers */

static void follow(tc *c, ix e, chain *h) {
  *h = (chain){.leaf = e};
  for (; h->n < TPU_CHAIN; h->n++) {
    ix at = through_lets(c, h->leaf);
    if (!in_chain(at->op) || at->dtype == TN_INDEX || at->dtype == TN_BOOL || (h->n && tc_shared(c, at)) || tc_ready(c, at)) return;
    if (at->nargs == 1 && at->args[0]->dtype == TN_INDEX) return; /* lane numbers are no memory */
    ix other = NULL, down = at->args[0];
    bool swap = false;
    if (at->nargs == 2) {
      if (h->nothers == OTHERS) return;
      if (is_leaf(c, at->args[1])) other = at->args[1];
      else if (is_leaf(c, at->args[0])) other = at->args[0], down = at->args[1], swap = true;
      else return;
      if (at->args[0] == at->args[1]) return;
      h->nothers++;
    }
    h->node[h->n] = at;
    h->other[h->n] = other;
    h->swap[h->n] = swap;
    h->leaf = down;
  }
}

/* Values of the operands beside the path into b, c and the two numbers; false: they do not fit. */
static bool place_others(const chain *h, const tc_val *value, tpu_inst *i, tc_val *beside, int *nbeside) {
  int numbers = 0;
  *nbeside = 0;
  for (int k = h->n - 1, s = 0; k >= 0; k--, s++) {
    tpu_step_fn *f = &i->chain[s];
    *f = (tpu_step_fn){.fn = h->node[k]->op, .dtype = h->node[k]->dtype};
    if (!h->other[k]) continue;
    const tc_val *v = &value[k];
    int arg;
    if (v->space == TPU_IOTA) return false;
    if (v->space == TPU_IMM && numbers < 2) {
      *(numbers ? &i->imm1 : &i->imm) = tpu_imm_bits(v->t, v->k);
      arg = numbers++ ? TPU_ARG_IMM1 : TPU_ARG_IMM0;
    } else {
      if (*nbeside == 2) return false;
      beside[*nbeside] = *v;
      arg = (*nbeside)++ ? TPU_ARG_C : TPU_ARG_B;
    }
    f->arg = (uint8_t)(arg | (h->swap[k] ? TPU_CHAIN_SWAP : 0));
  }
  return true;
}

bool tc_chain(tc *c, ix e, const tc_val *dst, tc_val *made) {
  chain h;
  follow(c, e, &h);
  if (h.n < 2) return false;
  tc_val value[TPU_CHAIN], leaf = tc_eval(c, h.leaf), beside[2];
  unsigned lanes = tc_lanes_of(c, &leaf);
  if (leaf.space != TPU_UB && leaf.space != TPU_ACC) return false;
  for (int k = 0; k < h.n; k++) {
    if (!h.other[k]) continue;
    value[k] = tc_eval(c, h.other[k]);
    lanes |= tc_lanes_of(c, &value[k]);
  }
  tpu_inst i = tpu_inst_of(TPU_ACT);
  int n;
  if (!place_others(&h, value, &i, beside, &n)) return false;
  if (dst) *made = *dst;
  else *made = tc_temp(c, (tn_dtype)e->dtype, lanes);
  te_chain(c, i, made, &leaf, n, beside);
  tc_used(c, h.leaf);
  for (int k = 0; k < h.n; k++)
    if (h.other[k]) tc_used(c, h.other[k]);
  return true;
}
