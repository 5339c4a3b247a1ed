/* tpu_match.c — contractions that the matrix unit can do, read off the loops. See tpu_contract.h. */
#include "codegen/tpu_contract.h"
#include <string.h>

/* ---- the statement: acc = 0; for ... [if guard] acc = acc + a*b; rest ---- */

static bool is_zero(ix e) { return e->op == IX_CONST && (ir_is_float((tn_dtype)e->dtype) ? e->u.f == 0 && 1 / e->u.f > 0 : e->u.i == 0); }

static bool product(const ir_stmt *s, const ir_buf *acc, ix *a, ix *b) {
  if (s->kind != IR_STORE || s->buf != acc) return false;
  ix v = s->value;
  if (s->op == IR_ADD && !ir_is_float(acc->dtype) && v->op == IX_MUL) {
    *a = v->args[0];
    *b = v->args[1];
    return true;
  }
  if (s->op != IR_SET) return false;
  if (v->op == IX_FMA && v->args[2]->op == IX_LOAD && v->args[2]->u.buf == acc) {
    *a = v->args[0];
    *b = v->args[1];
    return true;
  }
  if (v->op != IX_ADD || ir_is_float(acc->dtype)) return false;
  for (int k = 0; k < 2; k++)
    if (v->args[k]->op == IX_LOAD && v->args[k]->u.buf == acc && v->args[1 - k]->op == IX_MUL) {
      *a = v->args[1 - k]->args[0];
      *b = v->args[1 - k]->args[1];
      return true;
    }
  return false;
}

/* An operand: cast(load) minus a number. */
static bool operand_of(tc *c, ix e, ct_operand *o) {
  int64_t zero = 0, k;
  if (!ir_is_float((tn_dtype)e->dtype) && (e->op == IX_SUB || e->op == IX_ADD)) {
    int at = e->op == IX_ADD && ix_const_value(e->args[0], &k) ? 0 : 1;
    if (!ix_const_value(e->args[at], &k)) return false;
    zero = e->op == IX_SUB ? k : -k;
    e = e->args[1 - at];
  }
  if (e->op == IX_CAST) e = e->args[0];
  if (e->op != IX_LOAD || zero < INT16_MIN || zero > INT16_MAX) return false;
  const tc_mem *m = ir_map_get(&c->mems, e->u.buf);
  if (!m || e->u.buf->space != IR_GLOBAL) return false;
  *o = (ct_operand){.load = e, .t = (tn_dtype)e->dtype, .zero = zero, .m = IR_NEW(c->ctx, tc_mem)};
  *o->m = *m; /* its own: what follows the reduction may hold another box of the buffer */
  return true;
}

/* Cycles that a row takes in the array; 0: the machine has no such product. */
static double row_cycles(const tpu_machine *m, tn_dtype a, tn_dtype b, tn_dtype acc) {
  bool bytes = (a == TN_I8 || a == TN_U8) && (b == TN_I8 || b == TN_U8);
  if (bytes) return acc == TN_I32 ? m->int8 : 0;
  if (a != b || acc != TN_F32) return 0;
  return a == TN_BF16 ? m->bf16 : a == TN_F16 ? m->f16 : a == TN_F32 ? m->f32 : 0;
}

static bool match_statement(tc *c, const tc_nest *nest, ct_match *x) {
  const ir_stmt *s = nest->body;
  if (!s || s->kind != IR_ALLOC || s->buf->rank || s->buf->space != IR_REGISTER) return false;
  x->acc = s->buf;
  s = s->body;
  if (!s || s->kind != IR_SEQ || s->n < 2) return false;
  const ir_stmt *init = s->items[0];
  if (init->kind != IR_STORE || init->buf != x->acc || init->op != IR_SET || !is_zero(init->value)) return false;
  x->rest = ir_seq(c->ctx, s->n - 2, s->items + 2);
  for (s = s->items[1]; s && s->kind == IR_FOR; s = s->body) {
    int64_t lo, n;
    if (!tc_uniform(c, s->lo) || !tc_uniform(c, s->hi) || (n = tc_trips(c, s, &lo)) <= 0) return false;
    if (n == 1) {
      tc_bind_const(c, s->var, lo);
      continue;
    }
    if (x->nred == CT_RED) return false;
    x->red_lo[x->nred] = lo;
    x->red_n[x->nred] = n;
    x->red[x->nred++] = s;
  }
  if (s && s->kind == IR_IF && !s->other) {
    x->guard = s->value;
    s = s->body;
  }
  ix a, b;
  if (!s || !product(s, x->acc, &a, &b)) return false;
  if (!operand_of(c, a, &x->a) || !operand_of(c, b, &x->b)) return false;
  x->row_cycles = row_cycles(c->m, x->a.t, x->b.t, x->acc->dtype);
  return x->row_cycles > 0;
}

/* ---- indices: affine in all loops, which are lanes for the time being ---- */

static bool operand_indices(tc *c, ct_operand *o) {
  const ix *p = tc_physical(c, o->load->u.buf, o->load, o->load->args);
  int64_t s = 1;
  for (int d = o->m->rank - 1; d >= 0; d--) {
    if (!tc_affine_of(c, p[d], &o->dim[d])) return false;
    o->stride[d] = o->m->home.chip ? o->m->stride[d] / o->m->width : s;
    s *= o->m->extent[d];
  }
  for (int l = 0; l < c->nlanes; l++)
    for (int d = 0; d < o->m->rank; d++) {
      o->step[l] += o->dim[d].coef[l] * o->stride[d];
      o->uses[l] |= o->dim[d].coef[l] != 0;
    }
  return true;
}

/* Notes for a term f <= 0 of the guard which bound of which axis of operand o it is. */
static bool bounds_axis(tc *c, ct_operand *o, const tc_affine *f) {
  for (int d = 0; d < o->m->rank; d++) {
    int64_t sign = 0;
    bool same = true;
    for (int l = 0; l < c->nlanes; l++) {
      int64_t k = o->dim[d].coef[l], g = f->coef[l];
      if (!sign && k) sign = g == k ? 1 : -1;
      same &= g == sign * k;
    }
    if (!sign || !same) continue;
    if (sign > 0 && f->c0 == o->dim[d].c0 - (o->m->extent[d] - 1)) return o->checked[d] = true; /* index <= extent - 1 */
    if (sign < 0 && f->c0 == -o->dim[d].c0) return o->checked[d] = true;                        /* -index <= 0 */
  }
  return false;
}

/* A term f <= 0 of one reduction alone that ends it early. */
static bool shortens(tc *c, ct_match *x, const tc_affine *f) {
  int lane = -1;
  for (int l = 0; l < c->nlanes; l++) {
    if (!f->coef[l]) continue;
    if (lane >= 0) return false;
    lane = l;
  }
  int i = lane - x->nest->n;
  if (lane < 0 || i < 0 || f->coef[lane] < 0 || f->c0 > 0) return false; /* f->c0 counts from the first step */
  int64_t n = -f->c0 / f->coef[lane] + 1;
  if (n < x->red_n[i]) x->red_n[i] = c->box.n[lane] = n;
  return true;
}

static bool match_guard(tc *c, ct_match *x, ix e) {
  if (e->op == IX_AND) return match_guard(c, x, e->args[0]) && match_guard(c, x, e->args[1]);
  if (tc_decide(c, e) == 1) return true;
  tc_affine a, b;
  if ((e->op != IX_LT && e->op != IX_LE) || e->args[0]->dtype != TN_INDEX || !tc_affine_of(c, e->args[0], &a) || !tc_affine_of(c, e->args[1], &b))
    return false;
  a.c0 += (e->op == IX_LT) - b.c0;
  for (int l = 0; l < c->nlanes; l++) a.coef[l] -= b.coef[l];
  return bounds_axis(c, &x->a, &a) || bounds_axis(c, &x->b, &a) || shortens(c, x, &a);
}

/* Axes that leave their extent must be checked by the guard. */
static bool in_bounds(tc *c, const ct_operand *o) {
  for (int d = 0; d < o->m->rank; d++) {
    int64_t lo, hi;
    tc_affine_range(c, &o->dim[d], &lo, &hi);
    if ((lo < 0 || hi >= o->m->extent[d]) && !o->checked[d]) return false;
  }
  return true;
}

bool ct_match_nest(tc *c, const tc_nest *nest, ct_match *x) {
  *x = (ct_match){.nest = nest};
  c->open = true;
  bool matches = match_statement(c, nest, x);
  c->open = false;
  if (!matches || nest->n + x->nred > TC_LANES) return false;
  tc_box box = c->box;
  int trail = c->ntrail;
  for (int i = 0; i < nest->n; i++) tc_push_lane(c, nest->loop[i]->var, nest->lo[i], nest->extent[i]);
  for (int i = 0; i < x->nred; i++) tc_push_lane(c, x->red[i]->var, x->red_lo[i], x->red_n[i]);
  bool ok = operand_indices(c, &x->a) && operand_indices(c, &x->b) && (!x->guard || match_guard(c, x, x->guard)) && in_bounds(c, &x->a) && in_bounds(c, &x->b);
  while (c->nlanes) tc_pop_lane(c);
  tc_unbind(c, trail);
  c->box = box;
  return ok;
}

/* ---- the window ---- */

/* Axes of the window for the checked indices, from `first` on. */
static bool place_checked(const ct_match *x, const ct_operand *o, int first, ct_plan *p) {
  int axis = first;
  for (int a = 0; a < 3; a++) p->axis_dim[a] = p->axis_row[a] = p->axis_step[a] = -1;
  for (int d = 0; d < o->m->rank; d++) {
    if (!o->checked[d]) continue;
    if (axis > 2) return false;
    p->axis_dim[axis] = d;
    for (int l = 0; l < x->nest->n + x->nred; l++) {
      if (!o->dim[d].coef[l]) continue;
      int *which = l < x->nest->n ? &p->axis_row[axis] : &p->axis_step[axis];
      if (*which >= 0 || o->step[l] != o->dim[d].coef[l] * o->stride[d]) return false; /* two loops; or it moves along another axis as well */
      *which = l;
    }
    if (p->axis_row[axis] >= 0 && o->dim[d].coef[p->axis_row[axis]] < 0) return false;
    axis++;
  }
  return true;
}

/* Reductions to places of the steps, in the order of the kernel; seq lists the places outermost first. */
static bool place_steps(const ct_match *x, ct_plan *p, const int *seq) {
  int at = 0;
  for (int k = 0; k < CT_RED; k++) p->step[k] = -1;
  for (int i = 0; i < x->nred; i++) {
    int lane = x->nest->n + i;
    bool checked = p->axis_step[0] == lane || p->axis_step[1] == lane || p->axis_step[2] == lane;
    for (; at < CT_RED; at++) { /* a checked axis takes its own loop alone, and that goes nowhere else */
      int place = seq[at];
      bool axis = place > 0 && p->axis_dim[place - 1] >= 0;
      if (axis ? p->axis_step[place - 1] == lane : !checked) break;
    }
    if (at == CT_RED) return false;
    p->step[seq[at++]] = lane;
  }
  return true;
}

static bool goes_on(const ct_match *x, const ct_operand *w, int inner, int outer) { /* outer continues inner */
  return w->step[outer] == w->step[inner] * x->nest->extent[inner];
}

static bool place_rows(const ct_match *x, ct_plan *p) {
  const ct_operand *o = p->moving, *w = p->resting;
  bool free[3];
  for (int k = 0; k < 3; k++) {
    free[k] = p->axis_dim[k] < 0;
    p->row[k] = free[k] ? -1 : p->axis_row[k];
  }
  for (int l = x->nest->n - 1; l >= 0; l--) {
    bool placed = p->row[0] == l || p->row[1] == l || p->row[2] == l;
    if (placed && w->uses[l]) return false;
    if (w->uses[l] && !o->uses[l] && (p->column < 0 || x->nest->extent[l] > x->nest->extent[p->column] || goes_on(x, w, l, p->column))) p->column = l;
    if (placed || !o->uses[l] || w->uses[l]) continue;
    for (int k = 2; k >= 0 && !placed; k--)
      if (free[k]) {
        p->row[k] = l;
        free[k] = false;
        placed = true;
      }
  }
  return true;
}

ct_steps ct_steps_of(const ct_match *x, const ct_operand *w, int64_t most) {
  ct_steps s;
  int k = CT_RED;
  for (int i = 0; i < CT_RED; i++) s.n[i] = s.part[i] = 1, s.step[i] = 0;
  for (int i = x->nred - 1; i >= 0; i--) {
    int64_t extent = x->red_n[i], by = w->step[x->nest->n + i];
    if (extent == 1) continue;
    if (k < CT_RED && by == s.step[k] * s.n[k]) s.n[k] *= extent;
    else {
      s.n[--k] = extent;
      s.step[k] = by;
    }
  }
  for (k = CT_RED - 1; k > 0; k--) { /* the outermost goes one by one: instructions for weights have three axes of steps */
    s.part[k] = s.n[k] < most ? s.n[k] : most;
    if (s.part[k] < s.n[k]) break;
    most /= s.n[k];
  }
  return s;
}

bool ct_plan_window(const ct_match *x, bool swapped, ct_plan *p) {
  static const int first[CT_RED] = {0, 1, 2, 3}, last[CT_RED] = {1, 2, 3, 0}, axes[3] = {1, 2, 0};
  const ct_operand *o = swapped ? &x->b : &x->a, *w = swapped ? &x->a : &x->b;
  *p = (ct_plan){.moving = o, .resting = w, .column = -1, .column2 = -1};
  for (int d = 0; d < w->m->rank; d++)
    if (w->checked[d]) return false;
  bool placed = false;
  for (int a = 0; a < 3 && !placed; a++) {
    if (!place_checked(x, o, axes[a], p)) continue;
    p->channels_last = false;
    placed = place_steps(x, p, first);
    if (placed) continue;
    p->channels_last = true;
    placed = place_steps(x, p, last);
  }
  if (!placed || !place_rows(x, p)) return false;
  for (int l = 0; l < x->nest->n && p->column >= 0; l++) {
    if (l != p->column && w->uses[l] && !o->uses[l] && goes_on(x, w, p->column, l)) p->column2 = l;
  }
  for (int l = 0; l < x->nest->n; l++)
    if (l != p->column && l != p->column2 && l != p->row[0] && l != p->row[1] && l != p->row[2]) p->outer[p->nouter++] = l;
  p->M = p->K = p->batch = 1;
  for (int k = 0; k < 3; k++) p->M *= p->row[k] < 0 ? 1 : x->nest->extent[p->row[k]];
  for (int i = 0; i < x->nred; i++) p->K *= x->red_n[i];
  for (int i = 0; i < p->nouter; i++) p->batch *= x->nest->extent[p->outer[i]];
  p->N = (p->column < 0 ? 1 : x->nest->extent[p->column]) * (p->column2 < 0 ? 1 : x->nest->extent[p->column2]);
  return true;
}
