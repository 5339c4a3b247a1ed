/* cuda_epilogue.c — see cuda_epilogue.h. */
#include "runtime/cuda_epilogue.h"
#include "ir/interp.h"
#include <math.h>

int rt_param_of(const ir_kernel *k, const ir_buf *b) {
  int i = 0;
  while (i < k->nbufs && k->bufs[i] != b) i++;
  return i;
}

typedef struct lets {
  int n;
  const ir_stmt *s[16];
} lets;

/* The lets around the store. */
static bool reach_store(const ir_stmt *s, const ir_stmt *store, lets *l) {
  if (!s) return false;
  if (s == store) return true;
  if (s->kind == IR_SEQ) {
    for (int i = 0; i < s->n; i++)
      if (reach_store(s->items[i], store, l)) return true;
    return false;
  }
  if (s->kind != IR_LET && s->kind != IR_ALLOC) return false;
  int n = l->n;
  if (s->kind == IR_LET && l->n < IR_COUNT(l->s)) l->s[l->n++] = s;
  if (reach_store(s->body, store, l)) return true;
  l->n = n;
  return false;
}

typedef struct tail {
  tn_ctx *ctx;
  const lw_problem *p;
  lets lets;
  rt_end *e;
} tail;

static const ir_stmt *let_of(const tail *t, ix e) {
  for (int i = 0; e->op == IX_VAR && i < t->lets.n; i++)
    if (t->lets.s[i]->var == e->u.var) return t->lets.s[i];
  return NULL;
}

static bool step(tail *t, rt_end_op op, ix other, double number) {
  if (t->e->n == RT_END_STEPS) return false;
  int i = t->e->n++;
  t->e->steps[i].op = op;
  t->e->steps[i].other = other;
  t->e->steps[i].number = number;
  return true;
}

/* ---- GELU: whatever formula it is, by what it gives ---- */

/* The one let that an expression without loads is a function of; null: none, or several. */
static const ir_stmt *argument_of(const tail *t, ix e, const ir_stmt *found) {
  if (e->op == IX_VAR) {
    const ir_stmt *l = let_of(t, e);
    return l && (!found || found == l) ? l : NULL;
  }
  if (e->op == IX_LOAD) return NULL;
  for (int i = 0; i < e->nargs; i++)
    if (e->args[i]->op != IX_CONST && !(found = argument_of(t, e->args[i], found))) return NULL;
  return found;
}

enum { SAMPLES = 49 };

/* e at [-6, 6], `by` being its argument. */
static void sample(tn_ctx *ctx, ix e, const ir_stmt *by, double *at, double *value) {
  tn_dtype from = by->var->dtype, to = (tn_dtype)e->dtype;
  ix n = ix_index(ctx, SAMPLES);
  ir_var *i = ir_var_new(ctx, "i", TN_INDEX, 0, SAMPLES - 1);
  ir_buf *x = ir_buf_new(ctx, "x", from, 1, &n, NULL, IR_GLOBAL), *y = ir_buf_new(ctx, "y", to, 1, &n, NULL, IR_GLOBAL);
  x->access = IR_IN;
  y->access = IR_OUT;
  ir_buf *bufs[2] = {x, y};
  ix value_of = ix_subst1(ctx, e, by->var, ix_load(ctx, x, &i->expr));
  const ir_stmt *body = ir_for(ctx, i, ix_index(ctx, 0), n, IR_SERIAL, ir_store(ctx, y, &i->expr, IR_SET, value_of));
  ir_kernel k = {.name = "sample", .nbufs = 2, .bufs = bufs, .body = body};
  double in[SAMPLES], out[SAMPLES]; /* room for any dtype */
  size_t size = ir_dtype_bytes(from), size_out = ir_dtype_bytes(to);
  for (int s = 0; s < SAMPLES; s++) {
    at[s] = (s - SAMPLES / 2) * 0.25;
    ir_scalar_store(from, (char *)in + (size_t)s * size, (ir_scalar){.f = at[s]});
  }
  ir_interp(ctx, &k, (void *[]){in, out}, NULL);
  for (int s = 0; s < SAMPLES; s++) value[s] = ir_scalar_load(to, (char *)out + (size_t)s * size_out).f;
}

static bool is_gelu(tail *t, ix e, const ir_stmt *by, bool *exact) {
  double at[SAMPLES], value[SAMPLES];
  tn_dtype d = t->p->store->buf->dtype;
  double rough = d == TN_BF16 ? 0x1p-7 : d == TN_F16 ? 0x1p-10 : 3e-4;
  if (!ir_is_float(by->var->dtype) || !ir_is_float((tn_dtype)e->dtype)) return false;
  sample(t->ctx, e, by, at, value);
  *exact = true;
  for (int s = 0; s < SAMPLES; s++) {
    double x = at[s], gelu = 0.5 * x * (1 + tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x))), off = fabs(value[s] - gelu);
    if (!(off <= rough * fabs(x))) return false;
    if (off > 1e-6 * fabs(x) && d == TN_F32) *exact = false;
  }
  return true;
}

/* ---- the walk, from the store back to the sum ---- */

/* Numbers and loads of floats, multiplied. */
static bool is_factor(ix e, bool *loads) {
  if (e->op == IX_CAST) return is_factor(e->args[0], loads);
  if (e->op == IX_MUL) return is_factor(e->args[0], loads) && is_factor(e->args[1], loads);
  if (e->op == IX_LOAD) return *loads = true, e->u.buf->space == IR_GLOBAL && ir_is_float(e->u.buf->dtype);
  return e->op == IX_CONST && ir_is_float((tn_dtype)e->dtype);
}

static bool factor_steps(tail *t, ix e) {
  if (e->op == IX_CAST) return factor_steps(t, e->args[0]);
  if (e->op == IX_MUL) return factor_steps(t, e->args[0]) && factor_steps(t, e->args[1]);
  return step(t, RT_END_SCALE, e->op == IX_LOAD ? e : NULL, e->op == IX_LOAD ? 1 : e->u.f);
}

/* Below min(top, max(-top, ..)), top the largest number of the 8-bit float that is stored; else null. */
static ix within_range(const tail *t, ix e) {
  tn_dtype d = t->p->store->buf->dtype;
  if (e->op != IX_MIN || !ir_is_byte_float(d)) return NULL;
  for (int side = 0; side < 2; side++) {
    ix top = e->args[side], low = e->args[!side];
    for (int other = 0; other < 2 && low->op == IX_MAX && top->op == IX_CONST; other++)
      if (low->args[other]->op == IX_CONST && low->args[other]->u.f == -top->u.f && top->u.f == ir_byte_max(d)) return low->args[!other];
  }
  return NULL;
}

static bool is_zero(ix e) { return e->op == IX_CONST && e->u.f == 0; }

static bool steps_of(tail *t, ix e) {
  if (e->op == IX_CAST) return steps_of(t, e->args[0]);
  if (e->op == IX_LOAD) return e->u.buf == t->p->update->buf;
  if (e->op == IX_VAR) {
    const ir_stmt *l = let_of(t, e);
    return l && steps_of(t, l->value);
  }
  if (!ir_is_float((tn_dtype)e->dtype)) return false;
  if (within_range(t, e)) return steps_of(t, within_range(t, e));
  if (e->op == IX_DIV && e->args[1]->op == IX_CONST && e->args[1]->u.f > 0) return steps_of(t, e->args[0]) && step(t, RT_END_DIVIDE, NULL, e->args[1]->u.f);
  for (int side = 0; side < 2 && e->op == IX_ADD; side++) {
    ix other = e->args[side];
    while (other->op == IX_CAST) other = other->args[0];
    if (other->op == IX_LOAD && other->u.buf->space == IR_GLOBAL && ir_is_float(other->u.buf->dtype)) return steps_of(t, e->args[!side]) && step(t, RT_END_ADD, other, 0);
  }
  for (int side = 0; side < 2 && e->op == IX_MAX; side++)
    if (is_zero(e->args[side])) return steps_of(t, e->args[!side]) && step(t, RT_END_RELU, NULL, INFINITY);
  for (int side = 0; side < 2 && e->op == IX_MIN; side++) {
    ix top = e->args[side];
    if (top->op != IX_CONST || !(top->u.f > 0)) continue;
    if (!steps_of(t, e->args[!side]) || !t->e->n || t->e->steps[t->e->n - 1].op != RT_END_RELU) return false;
    t->e->steps[t->e->n - 1].number = fmin(top->u.f, t->e->steps[t->e->n - 1].number);
    return true;
  }
  for (int side = 0; side < 2 && e->op == IX_MUL; side++) {
    bool loads = false;
    if (is_factor(e->args[side], &loads) && loads) return steps_of(t, e->args[!side]) && factor_steps(t, e->args[side]);
  }
  for (int side = 0; side < 2 && e->op == IX_MUL; side++)
    if (e->args[side]->op == IX_CONST && (e->args[!side]->op == IX_VAR || e->args[!side]->op == IX_LOAD || e->args[!side]->op == IX_CAST))
      return steps_of(t, e->args[!side]) && step(t, RT_END_SCALE, NULL, e->args[side]->u.f);
  bool exact;
  const ir_stmt *by = argument_of(t, e, NULL);
  if (!by || !is_gelu(t, e, by, &exact) || !steps_of(t, by->value) || !step(t, RT_END_GELU, NULL, 0)) return false;
  t->e->steps[t->e->n - 1].exact = exact;
  return true;
}

bool rt_end_of(tn_ctx *ctx, const lw_problem *p, rt_end *e) {
  *e = (rt_end){0};
  tail t = {.ctx = ctx, .p = p, .e = e};
  return p->store && p->store->kind == IR_STORE && p->store->op == IR_SET && reach_store(p->body, p->store, &t.lets) && steps_of(&t, p->store->value);
}
