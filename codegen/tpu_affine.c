/* tpu_affine.c — index expressions over lanes: affine forms, ranges, conditions. See tpu_lower.h. */
#include "codegen/tpu_lower.h"

static int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }

void tc_affine_range(const tc *c, const tc_affine *a, int64_t *lo, int64_t *hi) {
  *lo = *hi = a->c0;
  for (int l = 0; l < c->nlanes; l++) {
    int64_t x = a->coef[l] * c->box.lo[l], y = a->coef[l] * (c->box.lo[l] + c->box.n[l] - 1);
    *lo += x < y ? x : y;
    *hi += x < y ? y : x;
  }
}

static bool is_constant(const tc *c, const tc_affine *a) {
  for (int l = 0; l < c->nlanes; l++)
    if (a->coef[l]) return false;
  return true;
}

static void add_scaled(const tc *c, tc_affine *a, const tc_affine *b, int64_t k) {
  a->c0 += k * b->c0;
  for (int l = 0; l < c->nlanes; l++) a->coef[l] += k * b->coef[l];
}

/* a div d or a mod d, d > 0. */
static bool divide(const tc *c, const tc_affine *a, int64_t d, bool quotient, tc_affine *out) {
  bool exact = true;
  int64_t lo, hi;
  for (int l = 0; l < c->nlanes; l++) exact &= a->coef[l] % d == 0;
  if (exact) {
    int64_t q = floor_div(a->c0, d);
    *out = (tc_affine){.c0 = quotient ? q : a->c0 - q * d};
    for (int l = 0; quotient && l < c->nlanes; l++) out->coef[l] = a->coef[l] / d;
    return true;
  }
  tc_affine_range(c, a, &lo, &hi);
  int64_t q = floor_div(lo, d);
  if (floor_div(hi, d) != q) return false;
  if (quotient) *out = (tc_affine){.c0 = q};
  else {
    *out = *a;
    out->c0 -= q * d;
  }
  return true;
}

bool tc_affine_of(tc *c, ix e, tc_affine *out) {
  tc_affine a, b;
  *out = (tc_affine){0};
  if (ir_is_float((tn_dtype)e->dtype) || e->op == IX_LOAD) return false;
  if (e->op == IX_CONST) {
    out->c0 = e->u.i;
    return true;
  }
  if (e->op == IX_VAR) {
    const tc_bind *v = tc_bound(c, e->u.var);
    if (!v && c->open) return false;
    if (!v) ir_bug(c->ctx, "kernel '%s': variable '%s' is not in scope", c->k->name, e->u.var->name);
    switch (v->kind) {
    case TC_CONST: out->c0 = v->k; return true;
    case TC_LANE:
      out->c0 = c->lane_lo[v->k];
      out->coef[v->k] = 1;
      return true;
    case TC_EXPR: return tc_affine_of(c, v->e, out);
    case TC_VAL: out->c0 = v->v.k.i; return v->v.space == TPU_IMM;
    case TC_UNBOUND: return false;
    }
  }
  if (e->dtype != TN_INDEX) return false; /* data integers wrap */
  switch (e->op) {
  case IX_CAST: return e->args[0]->dtype == TN_INDEX && tc_affine_of(c, e->args[0], out);
  case IX_NEG:
    if (!tc_affine_of(c, e->args[0], &a)) return false;
    add_scaled(c, out, &a, -1);
    return true;
  case IX_SELECT: {
    int yes = tc_decide(c, e->args[0]);
    return yes >= 0 && tc_affine_of(c, e->args[yes ? 1 : 2], out);
  }
  case IX_ADD: case IX_SUB: case IX_MUL: case IX_DIV: case IX_REM: case IX_MIN: case IX_MAX: break;
  default: return false;
  }
  if (!tc_affine_of(c, e->args[0], &a) || !tc_affine_of(c, e->args[1], &b)) return false;
  switch (e->op) {
  case IX_ADD: case IX_SUB:
    *out = a;
    add_scaled(c, out, &b, e->op == IX_ADD ? 1 : -1);
    return true;
  case IX_MUL:
    if (is_constant(c, &a)) add_scaled(c, out, &b, a.c0);
    else if (is_constant(c, &b)) add_scaled(c, out, &a, b.c0);
    else return false;
    return true;
  case IX_DIV: case IX_REM: return is_constant(c, &b) && b.c0 > 0 && divide(c, &a, b.c0, e->op == IX_DIV, out);
  default: {
    tc_affine d = a;
    int64_t lo, hi;
    add_scaled(c, &d, &b, -1);
    tc_affine_range(c, &d, &lo, &hi);
    if (hi > 0 && lo < 0) return false;
    *out = (hi <= 0) == (e->op == IX_MIN) ? a : b;
    return true;
  }
  }
}

void tc_range(tc *c, ix e, int64_t *lo, int64_t *hi) {
  tc_affine a;
  int64_t x0, x1, y0, y1;
  if (tc_affine_of(c, e, &a)) {
    tc_affine_range(c, &a, lo, hi);
    return;
  }
  *lo = e->dtype == TN_INDEX ? e->lo : INT64_MIN;
  *hi = e->dtype == TN_INDEX ? e->hi : INT64_MAX;
  if (e->dtype != TN_INDEX || e->nargs < 2) {
    const tc_bind *v = e->op == IX_VAR ? tc_bound(c, e->u.var) : NULL;
    if (v && v->kind == TC_EXPR) tc_range(c, v->e, lo, hi);
    return;
  }
  bool select = e->op == IX_SELECT;
  tc_range(c, e->args[select], &x0, &x1);
  tc_range(c, e->args[select + 1], &y0, &y1);
  int64_t a0 = INT64_MIN, a1 = INT64_MAX;
  switch (e->op) {
  case IX_ADD:
    if (__builtin_add_overflow(x0, y0, &a0)) a0 = INT64_MIN;
    if (__builtin_add_overflow(x1, y1, &a1)) a1 = INT64_MAX;
    if (x0 == INT64_MIN || y0 == INT64_MIN) a0 = INT64_MIN;
    if (x1 == INT64_MAX || y1 == INT64_MAX) a1 = INT64_MAX;
    break;
  case IX_MIN: a0 = x0 < y0 ? x0 : y0, a1 = x1 < y1 ? x1 : y1; break;
  case IX_MAX: a0 = x0 > y0 ? x0 : y0, a1 = x1 > y1 ? x1 : y1; break;
  case IX_SELECT: a0 = x0 < y0 ? x0 : y0, a1 = x1 > y1 ? x1 : y1; break;
  case IX_MUL:
    if (y0 == y1 && y0 >= 0 && x0 > INT32_MIN && x1 < INT32_MAX && y1 < INT32_MAX) a0 = x0 * y0, a1 = x1 * y0;
    break;
  case IX_DIV:
    if (y0 == y1 && y0 > 0) a0 = x0 == INT64_MIN ? x0 : floor_div(x0, y0), a1 = x1 == INT64_MAX ? x1 : floor_div(x1, y0);
    break;
  case IX_REM:
    if (y0 == y1 && y0 > 0) a0 = 0, a1 = y0 - 1;
    break;
  default: break;
  }
  if (a0 > *lo) *lo = a0;
  if (a1 < *hi) *hi = a1;
}

/* a < b, a <= b over the box. */
static int compare(tc *c, ir_opcode op, ix x, ix y) {
  tc_affine a, b;
  int64_t lo, hi;
  if (tc_affine_of(c, x, &a) && tc_affine_of(c, y, &b)) {
    add_scaled(c, &a, &b, -1);
    tc_affine_range(c, &a, &lo, &hi);
  } else {
    int64_t x0, x1, y0, y1;
    tc_range(c, x, &x0, &x1);
    tc_range(c, y, &y0, &y1);
    if (x0 == INT64_MIN || y1 == INT64_MAX || __builtin_sub_overflow(x0, y1, &lo)) lo = INT64_MIN;
    if (x1 == INT64_MAX || y0 == INT64_MIN || __builtin_sub_overflow(x1, y0, &hi)) hi = INT64_MAX;
  }
  switch (op) {
  case IX_LT: return hi < 0 ? 1 : lo >= 0 ? 0 : -1;
  case IX_LE: return hi <= 0 ? 1 : lo > 0 ? 0 : -1;
  case IX_EQ: return lo == 0 && hi == 0 ? 1 : lo > 0 || hi < 0 ? 0 : -1;
  default: return lo == 0 && hi == 0 ? 0 : lo > 0 || hi < 0 ? 1 : -1;
  }
}

int tc_decide(tc *c, ix e) {
  int a, b;
  switch (e->op) {
  case IX_CONST: return e->u.i != 0;
  case IX_VAR: {
    const tc_bind *v = tc_bound(c, e->u.var);
    if (v && v->kind == TC_EXPR) return tc_decide(c, v->e);
    return v && v->kind == TC_VAL && v->v.space == TPU_IMM ? v->v.k.i != 0 : -1;
  }
  case IX_AND: case IX_OR:
    if (e->dtype != TN_BOOL) return -1;
    a = tc_decide(c, e->args[0]);
    b = tc_decide(c, e->args[1]);
    if (e->op == IX_AND) return a == 0 || b == 0 ? 0 : a == 1 && b == 1 ? 1 : -1;
    return a == 1 || b == 1 ? 1 : a == 0 && b == 0 ? 0 : -1;
  case IX_NOT:
    if (e->dtype != TN_BOOL) return -1;
    a = tc_decide(c, e->args[0]);
    return a < 0 ? -1 : !a;
  case IX_LT: case IX_LE: case IX_EQ: case IX_NE:
    return e->args[0]->dtype == TN_INDEX ? compare(c, (ir_opcode)e->op, e->args[0], e->args[1]) : -1;
  default: return -1;
  }
}

/* Keeps lanes of the box with f <= 0, f over one lane alone. */
static bool bound_lane(tc *c, const tc_affine *f, tc_box *box) {
  int lane = -1;
  for (int l = 0; l < c->nlanes; l++)
    if (f->coef[l] && c->box.n[l] > 1) {
      if (lane >= 0) return false;
      lane = l;
    }
  int64_t c0 = f->c0;
  for (int l = 0; l < c->nlanes; l++)
    if (l != lane) c0 += f->coef[l] * c->box.lo[l];
  if (lane < 0) {
    if (c0 > 0)
      for (int l = 0; l < TC_LANES; l++) box->n[l] = 0;
    return c->nlanes > 0 || c0 <= 0;
  }
  int64_t k = f->coef[lane], lo = box->lo[lane], end = lo + box->n[lane];
  if (k > 0) { /* i <= -c0 / k */
    int64_t last = floor_div(-c0, k) + 1;
    if (last < end) end = last;
  } else { /* i >= c0 / -k */
    int64_t first = -floor_div(-c0, -k);
    if (first > lo) lo = first;
  }
  box->lo[lane] = lo;
  box->n[lane] = end > lo ? end - lo : 0;
  return true;
}

bool tc_restrict(tc *c, ix e, tc_box *box) {
  int known = tc_decide(c, e);
  if (known == 1) return true;
  if (known == 0) {
    for (int l = 0; l < TC_LANES; l++) box->n[l] = 0;
    return c->nlanes > 0;
  }
  tc_affine a, b;
  switch (e->op) {
  case IX_VAR: {
    const tc_bind *v = tc_bound(c, e->u.var);
    return v && v->kind == TC_EXPR && tc_restrict(c, v->e, box);
  }
  case IX_AND: return tc_restrict(c, e->args[0], box) && tc_restrict(c, e->args[1], box);
  case IX_LT: case IX_LE: case IX_EQ:
    if (e->args[0]->dtype != TN_INDEX || !tc_affine_of(c, e->args[0], &a) || !tc_affine_of(c, e->args[1], &b)) return false;
    add_scaled(c, &a, &b, -1);
    if (e->op == IX_LT) a.c0 += 1;
    if (!bound_lane(c, &a, box)) return false;
    if (e->op != IX_EQ) return true;
    b = (tc_affine){0};
    add_scaled(c, &b, &a, -1);
    return bound_lane(c, &b, box);
  default: return false;
  }
}
