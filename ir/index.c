/* index.c — index arithmetic: ranges and the canonical form.
 *
 * An index expression is kept as  c1*t1 + c2*t2 + ... + c0  with the terms in the
 * order of ix_compare, nested to the left, where a term is a variable, a load, or
 * a div, mod, min, max, select, product of such. div and mod are by floor. With
 * x = c*q + r (q: the terms whose coefficient c divides):
 *   x div c = q + r div c              x mod c = r mod c
 *   (g*t + k) div (g*c) = (t + k div g) div c
 *   (a + b) div c = a div c, (a + b) mod c = a mod c + b
 *       when m divides c and every coefficient of a, and 0 <= b < m
 *   (x div a) div b = x div (a*b)      (x mod (a*c)) mod c = x mod c
 *   c*(x div c) + x mod c = x          c*((x div c) mod d) + x mod c = x mod (c*d)
 * all exact for floor division by positive constants. */
#include "ir/expr_internal.h"
#include <string.h>

typedef __int128 wide;

static int64_t clamp(wide v) { return v > INT64_MAX ? INT64_MAX : v < INT64_MIN ? INT64_MIN : (int64_t)v; }
static int64_t floor_div(int64_t a, int64_t b) {
  int64_t q = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? q - 1 : q;
}
static int64_t floor_mod(int64_t a, int64_t b) {
  int64_t r = a % b;
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
static int64_t gcd(int64_t a, int64_t b) {
  if (a < 0) a = -a;
  if (b < 0) b = -b;
  while (b) {
    int64_t t = a % b;
    a = b;
    b = t;
  }
  return a;
}

static bool open_lo(ix e) { return e->lo == INT64_MIN; }
static bool open_hi(ix e) { return e->hi == INT64_MAX; }

/* ---- ranges ---- */

static void range_scale(int64_t c, int64_t lo, int64_t hi, int64_t *out_lo, int64_t *out_hi) {
  bool no_lo = lo == INT64_MIN, no_hi = hi == INT64_MAX;
  if (c < 0) {
    *out_lo = no_hi ? INT64_MIN : clamp((wide)hi * c);
    *out_hi = no_lo ? INT64_MAX : clamp((wide)lo * c);
  } else {
    *out_lo = no_lo && c ? INT64_MIN : clamp((wide)lo * c);
    *out_hi = no_hi && c ? INT64_MAX : clamp((wide)hi * c);
  }
}

static void range_add(int64_t *lo, int64_t *hi, int64_t lo2, int64_t hi2) {
  *lo = *lo == INT64_MIN || lo2 == INT64_MIN ? INT64_MIN : clamp((wide)*lo + lo2);
  *hi = *hi == INT64_MAX || hi2 == INT64_MAX ? INT64_MAX : clamp((wide)*hi + hi2);
}

void ix_set_range(struct tn_expr *e) {
  int64_t lo = INT64_MIN, hi = INT64_MAX;
  ix a = e->nargs > 0 ? e->args[0] : NULL, b = e->nargs > 1 ? e->args[1] : NULL;
  switch ((ir_opcode)e->op) {
  case IX_CONST: lo = hi = e->u.i; break;
  case IX_VAR: lo = e->u.var->lo, hi = e->u.var->hi; break;
  case IX_ADD: lo = a->lo, hi = a->hi, range_add(&lo, &hi, b->lo, b->hi); break;
  case IX_MUL:
    if (b->op == IX_CONST) range_scale(b->u.i, a->lo, a->hi, &lo, &hi);
    else if (a->op == IX_CONST) range_scale(a->u.i, b->lo, b->hi, &lo, &hi);
    else if (a->lo >= 0 && b->lo >= 0) {
      lo = clamp((wide)a->lo * b->lo);
      hi = open_hi(a) || open_hi(b) ? INT64_MAX : clamp((wide)a->hi * b->hi);
    }
    break;
  case IX_DIV:
    if (b->op == IX_CONST && b->u.i > 0) {
      if (!open_lo(a)) lo = floor_div(a->lo, b->u.i);
      if (!open_hi(a)) hi = floor_div(a->hi, b->u.i);
    } else if (a->lo >= 0 && b->lo > 0) lo = 0, hi = a->hi;
    break;
  case IX_REM:
    if (!open_hi(b) && b->lo > 0) {
      lo = 0, hi = b->hi - 1;
      if (a->lo >= 0 && a->hi < hi) hi = a->hi;
    } else if (b->lo > 0) lo = 0;
    break;
  case IX_MIN: lo = a->lo < b->lo ? a->lo : b->lo, hi = a->hi < b->hi ? a->hi : b->hi; break;
  case IX_MAX: lo = a->lo > b->lo ? a->lo : b->lo, hi = a->hi > b->hi ? a->hi : b->hi; break;
  case IX_SELECT:
    a = e->args[1], b = e->args[2];
    lo = a->lo < b->lo ? a->lo : b->lo, hi = a->hi > b->hi ? a->hi : b->hi;
    break;
  case IX_ABS:
    if (!open_lo(a) && !open_hi(a)) {
      int64_t m = -a->lo > a->hi ? -a->lo : a->hi;
      lo = a->lo > 0 ? a->lo : a->hi < 0 ? -a->hi : 0, hi = m;
    } else lo = 0;
    break;
  case IX_CAST:
    switch ((tn_dtype)a->dtype) {
    case TN_BOOL: lo = 0, hi = 1; break;
    case TN_U8: lo = 0, hi = UINT8_MAX; break;
    case TN_U16: lo = 0, hi = UINT16_MAX; break;
    case TN_U32: lo = 0, hi = UINT32_MAX; break;
    case TN_I8: lo = INT8_MIN, hi = INT8_MAX; break;
    case TN_I16: lo = INT16_MIN, hi = INT16_MAX; break;
    case TN_I32: lo = INT32_MIN, hi = INT32_MAX; break;
    default: break;
    }
    break;
  default: break;
  }
  e->lo = lo;
  e->hi = hi;
}

/* ---- linear forms ---- */

typedef struct linear {
  tn_ctx *ctx;
  int n;
  int64_t c0;
  int64_t coef[IX_MAX_TERMS];
  ix term[IX_MAX_TERMS]; /* in order of ix_compare once normalised */
} linear;

/* INT64_MIN counts as an overflow: coefficients can then be negated. */
static int64_t safe_mul(tn_ctx *ctx, int64_t a, int64_t b) {
  int64_t r;
  if (__builtin_mul_overflow(a, b, &r) || r == INT64_MIN) ir_fail(ctx, TN_EUNSUPPORTED, "index arithmetic overflows 64 bits");
  return r;
}
static int64_t safe_add(tn_ctx *ctx, int64_t a, int64_t b) {
  int64_t r;
  if (__builtin_add_overflow(a, b, &r) || r == INT64_MIN) ir_fail(ctx, TN_EUNSUPPORTED, "index arithmetic overflows 64 bits");
  return r;
}

static void linear_add_term(linear *l, int64_t coef, ix term) {
  if (coef == 0) return;
  int at = 0;
  while (at < l->n) {
    int c = ix_compare(l->term[at], term);
    if (c == 0) {
      l->coef[at] = safe_add(l->ctx, l->coef[at], coef);
      if (l->coef[at] == 0) {
        l->n--;
        memmove(l->coef + at, l->coef + at + 1, (size_t)(l->n - at) * sizeof *l->coef);
        memmove(l->term + at, l->term + at + 1, (size_t)(l->n - at) * sizeof *l->term);
      }
      return;
    }
    if (c > 0) break;
    at++;
  }
  if (l->n == IX_MAX_TERMS) ir_fail(l->ctx, TN_EUNSUPPORTED, "an index expression has more than %d terms", IX_MAX_TERMS);
  memmove(l->coef + at + 1, l->coef + at, (size_t)(l->n - at) * sizeof *l->coef);
  memmove(l->term + at + 1, l->term + at, (size_t)(l->n - at) * sizeof *l->term);
  l->coef[at] = coef;
  l->term[at] = term;
  l->n++;
}

static void linear_add(linear *l, int64_t coef, ix e) {
  for (;;) {
    if (e->op == IX_CONST) {
      l->c0 = safe_add(l->ctx, l->c0, safe_mul(l->ctx, coef, e->u.i));
      return;
    }
    if (e->op == IX_VAR && e->lo == e->hi) { /* one value only: a constant */
      l->c0 = safe_add(l->ctx, l->c0, safe_mul(l->ctx, coef, e->lo));
      return;
    }
    if (e->op == IX_ADD) {
      linear_add(l, coef, e->args[1]);
      e = e->args[0];
      continue;
    }
    if (e->op == IX_MUL && e->args[1]->op == IX_CONST) {
      coef = safe_mul(l->ctx, coef, e->args[1]->u.i);
      e = e->args[0];
      continue;
    }
    linear_add_term(l, coef, e);
    return;
  }
}

static void linear_of(tn_ctx *ctx, linear *l, ix e) {
  l->ctx = ctx;
  l->n = 0;
  l->c0 = 0;
  linear_add(l, 1, e);
}

static void linear_drop(linear *l, int at) {
  l->n--;
  memmove(l->coef + at, l->coef + at + 1, (size_t)(l->n - at) * sizeof *l->coef);
  memmove(l->term + at, l->term + at + 1, (size_t)(l->n - at) * sizeof *l->term);
}

/* c*(x div c) + x mod c -> x, and the form with an outer mod. */
static bool linear_join(linear *l) {
  for (int i = 0; i < l->n; i++) {
    ix m = l->term[i];
    if (m->op != IX_REM || m->args[1]->op != IX_CONST) continue;
    ix x = m->args[0];
    int64_t c = m->args[1]->u.i, k = l->coef[i], kc;
    if (__builtin_mul_overflow(k, c, &kc)) continue;
    ix q = ix_divi(l->ctx, x, c); /* as the simplifier would have written it */
    /* x div c may itself be a sum; only a single term can be matched here */
    for (int j = 0; j < l->n; j++) {
      if (j == i || l->coef[j] != kc) continue;
      ix t = l->term[j], by = NULL;
      int64_t rest = 0;
      ix q0 = q;
      if (q->op == IX_ADD && q->args[1]->op == IX_CONST) q0 = q->args[0], rest = q->args[1]->u.i;
      if (t == q0) by = x;
      else if (t->op == IX_REM && t->args[1]->op == IX_CONST && t->args[0] == q) {
        by = ix_remi(l->ctx, x, safe_mul(l->ctx, c, t->args[1]->u.i));
        rest = 0;
      }
      if (!by) continue;
      linear_drop(l, i > j ? i : j);
      linear_drop(l, i > j ? j : i);
      linear_add(l, k, by);
      l->c0 = safe_add(l->ctx, l->c0, -safe_mul(l->ctx, rest, kc));
      return true;
    }
  }
  return false;
}

static ix linear_build(linear *l) {
  tn_ctx *ctx = l->ctx;
  while (linear_join(l)) continue;
  ix r = NULL;
  for (int i = 0; i < l->n; i++) {
    ix t = l->term[i];
    if (l->coef[i] != 1) t = ix_intern(ctx, IX_MUL, TN_INDEX, 0, 2, (ix[]){t, ix_index(ctx, l->coef[i])});
    r = r ? ix_intern(ctx, IX_ADD, TN_INDEX, 0, 2, (ix[]){r, t}) : t;
  }
  if (!r) return ix_index(ctx, l->c0);
  if (l->c0) r = ix_intern(ctx, IX_ADD, TN_INDEX, 0, 2, (ix[]){r, ix_index(ctx, l->c0)});
  return r;
}

static void linear_range(const linear *l, int64_t *lo, int64_t *hi) {
  *lo = *hi = l->c0;
  for (int i = 0; i < l->n; i++) {
    int64_t a, b;
    range_scale(l->coef[i], l->term[i]->lo, l->term[i]->hi, &a, &b);
    range_add(lo, hi, a, b);
  }
}

int ix_linear(ix e, int64_t *c0, int64_t *coef, ix *term, int max) {
  *c0 = 0;
  int n = 0;
  for (;;) { /* canonical already: peel the left-nested sum, then reverse */
    ix t = e;
    if (e->op == IX_ADD) t = e->args[1];
    if (t->op == IX_CONST) *c0 += t->u.i;
    else {
      if (n == max) return -1;
      bool scaled = t->op == IX_MUL && t->args[1]->op == IX_CONST;
      coef[n] = scaled ? t->args[1]->u.i : 1;
      term[n++] = scaled ? t->args[0] : t;
    }
    if (e->op != IX_ADD) break;
    e = e->args[0];
  }
  for (int i = 0; i < n / 2; i++) {
    int64_t c = coef[i];
    ix t = term[i];
    coef[i] = coef[n - 1 - i], term[i] = term[n - 1 - i];
    coef[n - 1 - i] = c, term[n - 1 - i] = t;
  }
  return n;
}

bool ix_affine_in(ix e, const ir_var *v, int64_t *coef) {
  int64_t c0, c[IX_MAX_TERMS];
  ix t[IX_MAX_TERMS];
  int n = ix_linear(e, &c0, c, t, IX_MAX_TERMS);
  *coef = 0;
  for (int i = 0; i < n; i++) {
    if (t[i]->op == IX_VAR && t[i]->u.var == v) *coef = c[i];
    else if (ix_uses_var(t[i], v)) return false;
  }
  return n >= 0;
}

/* ---- division ---- */

/* Splits l (without its multiples of c) by a modulus m that divides c: `a` gets what m
 * divides, `b` the rest; true when 0 <= b < m is proven and b is not empty. */
static bool split_small(const linear *l, int64_t c, linear *a, linear *b) {
  for (int i = 0; i < l->n; i++) {
    int64_t m = gcd(l->coef[i], c);
    if (m <= 1) continue;
    a->ctx = b->ctx = l->ctx;
    a->n = b->n = 0;
    b->c0 = floor_mod(l->c0, m);
    a->c0 = l->c0 - b->c0;
    for (int j = 0; j < l->n; j++) {
      linear *to = l->coef[j] % m == 0 ? a : b;
      to->coef[to->n] = l->coef[j];
      to->term[to->n++] = l->term[j];
    }
    int64_t lo, hi;
    linear_range(b, &lo, &hi);
    if ((b->n || b->c0) && lo >= 0 && hi < m) return true;
  }
  return false;
}

static ix divide(tn_ctx *ctx, ix x, int64_t c) {
  if (c == 1) return x;
  linear l, q = {.ctx = ctx}, a, b;
  linear_of(ctx, &l, x);
  int keep = 0;
  for (int i = 0; i < l.n; i++) {
    if (l.coef[i] % c == 0) linear_add_term(&q, l.coef[i] / c, l.term[i]);
    else l.coef[keep] = l.coef[i], l.term[keep++] = l.term[i];
  }
  l.n = keep;
  q.c0 = floor_div(l.c0, c);
  l.c0 = floor_mod(l.c0, c);
  int64_t lo, hi;
  linear_range(&l, &lo, &hi);
  if (lo != INT64_MIN && hi != INT64_MAX && floor_div(lo, c) == floor_div(hi, c)) {
    q.c0 = safe_add(ctx, q.c0, floor_div(lo, c));
    return linear_build(&q);
  }
  int64_t g = c;
  for (int i = 0; i < l.n; i++) g = gcd(g, l.coef[i]);
  if (g > 1) {
    for (int i = 0; i < l.n; i++) l.coef[i] /= g;
    l.c0 = floor_div(l.c0, g);
    linear_add(&q, 1, divide(ctx, linear_build(&l), c / g));
    return linear_build(&q);
  }
  if (split_small(&l, c, &a, &b)) {
    linear_add(&q, 1, divide(ctx, linear_build(&a), c));
    return linear_build(&q);
  }
  ix rest = linear_build(&l);
  if (rest->op == IX_DIV && rest->args[1]->op == IX_CONST) {
    int64_t product;
    if (!__builtin_mul_overflow(c, rest->args[1]->u.i, &product)) {
      linear_add(&q, 1, divide(ctx, rest->args[0], product));
      return linear_build(&q);
    }
  }
  linear_add(&q, 1, ix_intern(ctx, IX_DIV, TN_INDEX, 0, 2, (ix[]){rest, ix_index(ctx, c)}));
  return linear_build(&q);
}

static ix modulo(tn_ctx *ctx, ix x, int64_t c) {
  if (c == 1) return ix_index(ctx, 0);
  if (x->lo >= 0 && x->hi < c) return x;
  linear l, a, b;
  linear_of(ctx, &l, x);
  int keep = 0;
  for (int i = 0; i < l.n; i++) {
    int64_t k = floor_mod(l.coef[i], c);
    if (k == 0) continue;
    ix t = l.term[i];
    l.coef[keep] = k, l.term[keep++] = t;
  }
  l.n = keep;
  l.c0 = floor_mod(l.c0, c);
  int64_t lo, hi;
  linear_range(&l, &lo, &hi);
  if (lo >= 0 && hi < c) return linear_build(&l);
  int64_t g = gcd(c, l.c0);
  for (int i = 0; i < l.n; i++) g = gcd(g, l.coef[i]);
  if (g > 1) {
    for (int i = 0; i < l.n; i++) l.coef[i] /= g;
    l.c0 /= g;
    return ix_muli(ctx, modulo(ctx, linear_build(&l), c / g), g);
  }
  if (split_small(&l, c, &a, &b)) {
    linear r = {.ctx = ctx};
    linear_add(&r, 1, modulo(ctx, linear_build(&a), c));
    linear_add(&r, 1, linear_build(&b));
    return linear_build(&r);
  }
  ix rest = linear_build(&l);
  if (rest->op == IX_REM && rest->args[1]->op == IX_CONST && rest->args[1]->u.i % c == 0) return modulo(ctx, rest->args[0], c);
  return ix_intern(ctx, IX_REM, TN_INDEX, 0, 2, (ix[]){rest, ix_index(ctx, c)});
}

/* ---- entry ---- */

static ix sum(tn_ctx *ctx, ix a, int64_t k, ix b) {
  if (k == 1 && ix_is_int(b, 0)) return a;
  if (k == 1 && ix_is_int(a, 0)) return b;
  linear l;
  linear_of(ctx, &l, a);
  linear_add(&l, k, b);
  return linear_build(&l);
}

static ix product(tn_ctx *ctx, ix a, ix b) {
  if (a->op == IX_CONST) {
    ix t = a;
    a = b, b = t;
  }
  linear l;
  if (b->op == IX_CONST) {
    l = (linear){.ctx = ctx};
    linear_add(&l, b->u.i, a);
    return linear_build(&l);
  }
  /* (sum) * b: distribute, so that symbolic strides stay linear in the loop variables */
  if (a->op == IX_ADD || b->op == IX_ADD) {
    if (a->op != IX_ADD) {
      ix t = a;
      a = b, b = t;
    }
    return sum(ctx, product(ctx, a->args[0], b), 1, product(ctx, a->args[1], b));
  }
  if (a->op == IX_MUL && a->args[1]->op == IX_CONST) return product(ctx, product(ctx, a->args[0], b), a->args[1]);
  if (b->op == IX_MUL && b->args[1]->op == IX_CONST) return product(ctx, product(ctx, a, b->args[0]), b->args[1]);
  if (ix_compare(a, b) > 0) return ix_intern(ctx, IX_MUL, TN_INDEX, 0, 2, (ix[]){b, a});
  return ix_intern(ctx, IX_MUL, TN_INDEX, 0, 2, (ix[]){a, b});
}

ix ix_simplify_index(tn_ctx *ctx, ir_opcode op, const ix *args) {
  ix a = args[0], b = ix_info[op].arity > 1 ? args[1] : NULL;
  switch (op) {
  case IX_ADD: return sum(ctx, a, 1, b);
  case IX_SUB: return sum(ctx, a, -1, b);
  case IX_NEG: return sum(ctx, ix_index(ctx, 0), -1, a);
  case IX_MUL: return product(ctx, a, b);
  case IX_DIV:
  case IX_REM:
    if (b->op == IX_CONST) {
      if (b->u.i <= 0) ir_bug(ctx, "index %s by %lld", ix_info[op].name, (long long)b->u.i);
      return op == IX_DIV ? divide(ctx, a, b->u.i) : modulo(ctx, a, b->u.i);
    }
    if (a->lo >= 0 && a->hi != INT64_MAX && a->hi < b->lo) return op == IX_DIV ? ix_index(ctx, 0) : a;
    return NULL;
  case IX_MIN:
  case IX_MAX: {
    if (a->hi <= b->lo) return op == IX_MIN ? a : b; /* also keeps extremes out of the difference */
    if (b->hi <= a->lo) return op == IX_MIN ? b : a;
    ix d = sum(ctx, b, -1, a); /* b - a */
    if (d->lo >= 0) return op == IX_MIN ? a : b;
    if (d->hi <= 0) return op == IX_MIN ? b : a;
    if (ix_compare(a, b) > 0) return ix_intern(ctx, op, TN_INDEX, 0, 2, (ix[]){b, a});
    return ix_intern(ctx, op, TN_INDEX, 0, 2, (ix[]){a, b});
  }
  case IX_ABS:
    if (a->lo >= 0) return a;
    if (a->hi <= 0) return sum(ctx, ix_index(ctx, 0), -1, a);
    return NULL;
  case IX_LE: return ix_lt(ctx, a, sum(ctx, b, 1, ix_index(ctx, 1)));
  case IX_LT: { /* canonical: terms with positive coefficients keep their side */
    if (a->hi < b->lo) return ix_bool(ctx, true);
    if (b->hi <= a->lo) return ix_bool(ctx, false);
    ix d = sum(ctx, b, -1, a);
    if (d->lo > 0) return ix_bool(ctx, true);
    if (d->hi <= 0) return ix_bool(ctx, false);
    linear l, left = {.ctx = ctx}, right = {.ctx = ctx};
    linear_of(ctx, &l, d);
    int64_t g = 0;
    for (int i = 0; i < l.n; i++) g = gcd(g, l.coef[i]);
    /* 0 < g*t + c0  is  -c0 < g*t  is  floor(-c0 / g) < t */
    int64_t k = g > 1 ? floor_div(-l.c0, g) : -l.c0;
    if (g < 1) g = 1;
    for (int i = 0; i < l.n; i++) {
      if (l.coef[i] > 0) linear_add_term(&right, l.coef[i] / g, l.term[i]);
      else linear_add_term(&left, -(l.coef[i] / g), l.term[i]);
    }
    if (left.n == 0) left.c0 = k; /* k < right */
    else right.c0 = -k;           /* left < right - k */
    return ix_intern(ctx, IX_LT, TN_BOOL, 0, 2, (ix[]){linear_build(&left), linear_build(&right)});
  }
  case IX_EQ:
  case IX_NE: {
    if (a->hi < b->lo || b->hi < a->lo) return ix_bool(ctx, op == IX_NE);
    ix d = sum(ctx, b, -1, a);
    if (d->lo > 0 || d->hi < 0) return ix_bool(ctx, op == IX_NE);
    if (ix_is_int(d, 0)) return ix_bool(ctx, op == IX_EQ);
    return NULL;
  }
  default: return NULL;
  }
}
