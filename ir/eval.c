/* eval.c — the arithmetic of one scalar operation, exactly as ir/scalar_ops.h says.
 *
 * The only definition of it: constants fold through here, the interpreter calls
 * it, and every code generator is tested against it. Nothing traps and nothing
 * depends on the rounding mode, which is to nearest even.
 */
#include "ir/interp.h"
#include <math.h>
#include <string.h>

/* ---- representation ---- */

int64_t ir_wrap_int(tn_dtype t, int64_t v) {
  switch (t) {
    case TN_BOOL: return v != 0;
    case TN_I8: return (int8_t)v;
    case TN_I16: return (int16_t)v;
    case TN_I32: return (int32_t)v;
    case TN_U8: return (uint8_t)v;
    case TN_U16: return (uint16_t)v;
    case TN_U32: return (uint32_t)v;
    default: return v; /* i64, u64 as its bits, index */
  }
}

double ir_round_float(tn_dtype t, double v) {
  switch (t) {
    case TN_F16: return ir_f16_to_f32(ir_f64_to_f16(v));
    case TN_BF16: return ir_bf16_to_f32(ir_f64_to_bf16(v));
    case TN_F32: return (float)v;
    default: return ir_is_byte_float(t) ? (double)ir_byte_to_f32(t, ir_f64_to_byte(t, v)) : v;
  }
}

ir_scalar ir_scalar_load(tn_dtype t, const void *p) {
  ir_scalar r = {0};
  switch (t) {
    case TN_BOOL: r.i = *(const uint8_t *)p != 0; break;
    case TN_I8: r.i = *(const int8_t *)p; break;
    case TN_U8: r.i = *(const uint8_t *)p; break;
    case TN_I16: { int16_t v; memcpy(&v, p, 2); r.i = v; break; }
    case TN_U16: { uint16_t v; memcpy(&v, p, 2); r.i = v; break; }
    case TN_I32: { int32_t v; memcpy(&v, p, 4); r.i = v; break; }
    case TN_U32: { uint32_t v; memcpy(&v, p, 4); r.i = v; break; }
    case TN_F16: { uint16_t v; memcpy(&v, p, 2); r.f = ir_f16_to_f32(v); break; }
    case TN_BF16: { uint16_t v; memcpy(&v, p, 2); r.f = ir_bf16_to_f32(v); break; }
    case TN_F32: { float v; memcpy(&v, p, 4); r.f = v; break; }
    case TN_F64: memcpy(&r.f, p, 8); break;
    default:
      if (ir_is_byte_float(t)) r.f = ir_byte_to_f32(t, *(const uint8_t *)p);
      else memcpy(&r.i, p, 8);
  }
  return r;
}

void ir_scalar_store(tn_dtype t, void *p, ir_scalar v) {
  switch (t) {
    case TN_BOOL: *(uint8_t *)p = v.i != 0; break;
    case TN_I8: case TN_U8: *(uint8_t *)p = (uint8_t)v.i; break;
    case TN_I16: case TN_U16: { uint16_t u = (uint16_t)v.i; memcpy(p, &u, 2); break; }
    case TN_I32: case TN_U32: { uint32_t u = (uint32_t)v.i; memcpy(p, &u, 4); break; }
    case TN_F16: { uint16_t u = ir_f64_to_f16(v.f); memcpy(p, &u, 2); break; }
    case TN_BF16: { uint16_t u = ir_f64_to_bf16(v.f); memcpy(p, &u, 2); break; }
    case TN_F32: { float f = (float)v.f; memcpy(p, &f, 4); break; }
    case TN_F64: memcpy(p, &v.f, 8); break;
    default:
      if (ir_is_byte_float(t)) *(uint8_t *)p = ir_f64_to_byte(t, v.f);
      else memcpy(p, &v.i, 8);
  }
}

static ir_scalar of_int(tn_dtype t, int64_t v) { return (ir_scalar){.i = ir_wrap_int(t, v)}; }

/* ---- integers, bool and index ---- */

static bool int_less(tn_dtype t, int64_t a, int64_t b) {
  return t == TN_U64 ? (uint64_t)a < (uint64_t)b : a < b;
}

static int64_t int_div(tn_dtype t, int64_t a, int64_t b) {
  if (b == 0) return 0;
  if (t == TN_U64) return (int64_t)((uint64_t)a / (uint64_t)b);
  if (b == -1) return (int64_t)(0 - (uint64_t)a); /* MIN div -1 = MIN, without the trap */
  int64_t q = a / b;
  return t == TN_INDEX && a % b != 0 && (a < 0) != (b < 0) ? q - 1 : q;
}

static int64_t int_rem(tn_dtype t, int64_t a, int64_t b) {
  if (b == 0) return a;
  if (t == TN_U64) return (int64_t)((uint64_t)a % (uint64_t)b);
  if (b == -1) return 0;
  int64_t r = a % b;
  return t == TN_INDEX && r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

static int64_t int_shift(tn_dtype t, bool left, int64_t a, int64_t count) {
  int bits = ir_dtype_bits(t);
  bool over = count < 0 || count >= bits; /* a negative count of a signed type is a huge one */
  if (left) return over ? 0 : (int64_t)((uint64_t)a << count);
  if (ir_is_signed(t)) return a >> (over ? 63 : count);
  return over ? 0 : (int64_t)((uint64_t)a >> count);
}

static ir_scalar eval_int(tn_ctx *ctx, ir_opcode op, tn_dtype t, int64_t a, int64_t b) {
  uint64_t ua = (uint64_t)a, ub = (uint64_t)b;
  if (t == TN_BOOL) switch (op) { /* no arithmetic on bool */
      case IX_NOT: return of_int(t, !a);
      case IX_MIN: case IX_MAX: case IX_AND: case IX_OR: case IX_XOR:
      case IX_LT: case IX_LE: case IX_EQ: case IX_NE: break;
      default: ir_bug(ctx, "%s is not defined on bool", ix_info[op].name);
    }
  switch (op) {
    case IX_NEG: return of_int(t, (int64_t)(0 - ua));
    case IX_ABS: return of_int(t, ir_is_signed(t) && a < 0 ? (int64_t)(0 - ua) : a);
    case IX_NOT: return of_int(t, (int64_t)~ua);
    case IX_ADD: return of_int(t, (int64_t)(ua + ub));
    case IX_SUB: return of_int(t, (int64_t)(ua - ub));
    case IX_MUL: return of_int(t, (int64_t)(ua * ub));
    case IX_DIV: return of_int(t, int_div(t, a, b));
    case IX_REM: return of_int(t, int_rem(t, a, b));
    case IX_MIN: return of_int(t, int_less(t, a, b) ? a : b);
    case IX_MAX: return of_int(t, int_less(t, b, a) ? a : b);
    case IX_AND: return of_int(t, a & b);
    case IX_OR: return of_int(t, a | b);
    case IX_XOR: return of_int(t, a ^ b);
    case IX_SHL: return of_int(t, int_shift(t, true, a, b));
    case IX_SHR: return of_int(t, int_shift(t, false, a, b));
    case IX_LT: return of_int(TN_BOOL, int_less(t, a, b));
    case IX_LE: return of_int(TN_BOOL, !int_less(t, b, a));
    case IX_EQ: return of_int(TN_BOOL, a == b);
    case IX_NE: return of_int(TN_BOOL, a != b);
    default: ir_bug(ctx, "%s is not defined on %s", ix_info[op].name, ir_dtype_name(t));
  }
}

/* ---- floats: f64 in f64, all others in f32 ---- */

/* One body for both widths. FN(f) names libm's function of the width; only exact
 * or correctly rounded ones are used. */
#define FLOAT_BODY(type, FN)                                                     \
  switch (op) {                                                                  \
    case IX_NEG: return -a;                                                      \
    case IX_ABS: return FN(fabs)(a);                                             \
    case IX_SQRT: return FN(sqrt)(a);                                            \
    case IX_FLOOR: return FN(floor)(a);                                          \
    case IX_CEIL: return FN(ceil)(a);                                            \
    case IX_ROUND: return FN(nearbyint)(a);                                      \
    case IX_TRUNC: return FN(trunc)(a);                                          \
    case IX_ADD: return a + b;                                                   \
    case IX_SUB: return a - b;                                                   \
    case IX_MUL: return a * b;                                                   \
    case IX_DIV: return a / b;                                                   \
    case IX_REM: return FN(fmod)(a, b);                                          \
    case IX_MIN: return a < b ? a : b;                                           \
    case IX_MAX: return a > b ? a : b;                                           \
    case IX_FMA: return FN(fma)(a, b, c);                                        \
    default: ir_bug(ctx, "%s is not defined on floats", ix_info[op].name);       \
  }
#define F32_NAME(name) name##f
#define F64_NAME(name) name
static float eval_f32(tn_ctx *ctx, ir_opcode op, float a, float b, float c) { FLOAT_BODY(float, F32_NAME) }
static double eval_f64(tn_ctx *ctx, ir_opcode op, double a, double b, double c) { FLOAT_BODY(double, F64_NAME) }

static ir_scalar eval_float(tn_ctx *ctx, ir_opcode op, tn_dtype t, int nargs, const ir_scalar *x) {
  double a = x[0].f, b = nargs > 1 ? x[1].f : 0, c = nargs > 2 ? x[2].f : 0;
  switch (op) {
    case IX_LT: return of_int(TN_BOOL, a < b);
    case IX_LE: return of_int(TN_BOOL, a <= b);
    case IX_EQ: return of_int(TN_BOOL, a == b);
    case IX_NE: return of_int(TN_BOOL, a != b);
    default: break;
  }
  if (t == TN_F64) return (ir_scalar){.f = eval_f64(ctx, op, a, b, c)};
  float r = eval_f32(ctx, op, (float)a, (float)b, (float)c);
  return (ir_scalar){.f = ir_round_float(t, r)};
}

/* ---- conversions ---- */

/* Truncates, saturates at the ends of the dtype; NaN gives 0. */
static int64_t float_to_int(tn_dtype to, double v) {
  if (isnan(v)) return 0;
  v = trunc(v);
  if (ir_is_unsigned(to)) {
    int bits = ir_dtype_bits(to);
    if (v <= 0) return 0;
    if (v >= ldexp(1, bits)) return ir_wrap_int(to, -1);
    return (int64_t)(uint64_t)v;
  }
  double end = ldexp(1, ir_dtype_bits(to) - 1); /* exact: 2^(bits-1) */
  if (v >= end) return to == TN_I64 || to == TN_INDEX ? INT64_MAX : (int64_t)end - 1;
  if (v < -end) return to == TN_I64 || to == TN_INDEX ? INT64_MIN : -(int64_t)end;
  return (int64_t)v;
}

static double int_to_float(tn_dtype to, tn_dtype from, int64_t v) {
  if (to == TN_F64) return from == TN_U64 ? (double)(uint64_t)v : (double)v;
  float f = from == TN_U64 ? (float)(uint64_t)v : (float)v; /* narrow floats by way of f32 */
  return ir_round_float(to, f);
}

static ir_scalar eval_cast(tn_dtype to, tn_dtype from, ir_scalar v) {
  bool from_float = ir_is_float(from);
  if (to == TN_BOOL) return of_int(TN_BOOL, from_float ? v.f != 0 : v.i != 0);
  if (ir_is_float(to))
    return (ir_scalar){.f = from_float ? ir_round_float(to, v.f) : int_to_float(to, from, v.i)};
  return of_int(to, from_float ? float_to_int(to, v.f) : v.i);
}

static ir_scalar eval_bitcast(tn_ctx *ctx, tn_dtype to, tn_dtype from, ir_scalar v) {
  if (ir_dtype_bits(to) != ir_dtype_bits(from) || (to == TN_BOOL) != (from == TN_BOOL))
    ir_bug(ctx, "bitcast of %s to %s", ir_dtype_name(from), ir_dtype_name(to));
  unsigned char bytes[8] = {0};
  ir_scalar_store(from, bytes, v);
  return ir_scalar_load(to, bytes);
}

/* ---- ops with an expansion, and closed expressions ---- */

static ir_scalar const_value(ix e) {
  return ir_is_float((tn_dtype)e->dtype) ? (ir_scalar){.f = e->u.f} : (ir_scalar){.i = e->u.i};
}

typedef struct closed_memo { /* open addressing by node, for shared sub-expressions */
  ix *keys;
  ir_scalar *values;
  size_t n, cap;
} closed_memo;

static size_t memo_slot(const closed_memo *m, ix e) {
  size_t i = (e->id * 0x9e3779b1u) & (m->cap - 1);
  while (m->keys[i] && m->keys[i] != e) i = (i + 1) & (m->cap - 1);
  return i;
}

static ir_scalar eval_node(tn_ctx *ctx, closed_memo *m, ix e) {
  if (ix_is_const(e)) return const_value(e);
  if (e->op == IX_VAR || e->op == IX_LOAD) ir_bug(ctx, "the expression is not closed");
  if (m->cap) {
    size_t i = memo_slot(m, e);
    if (m->keys[i]) return m->values[i];
  }
  ir_scalar r, args[3] = {{0}, {0}, {0}};
  tn_dtype types[3] = {TN_NONE, TN_NONE, TN_NONE};
  if (e->op == IX_SELECT) r = eval_node(ctx, m, e->args[eval_node(ctx, m, e->args[0]).i ? 1 : 2]);
  else {
    for (int k = 0; k < e->nargs; k++) {
      args[k] = eval_node(ctx, m, e->args[k]);
      types[k] = (tn_dtype)e->args[k]->dtype;
    }
    r = ir_eval_op(ctx, (ir_opcode)e->op, (tn_dtype)e->dtype, e->nargs, types, args);
  }
  if (m->n * 2 >= m->cap) {
    closed_memo old = *m;
    m->cap = old.cap ? old.cap * 2 : 64;
    m->keys = IR_NEW_ARRAY(ctx, ix, m->cap);
    m->values = IR_NEW_ARRAY(ctx, ir_scalar, m->cap);
    for (size_t i = 0; i < old.cap; i++)
      if (old.keys[i]) {
        size_t j = memo_slot(m, old.keys[i]);
        m->keys[j] = old.keys[i];
        m->values[j] = old.values[i];
      }
  }
  size_t i = memo_slot(m, e);
  m->keys[i] = e;
  m->values[i] = r;
  m->n++;
  return r;
}

ir_scalar ir_eval_closed(tn_ctx *ctx, ix e) {
  closed_memo m = {0};
  return eval_node(ctx, &m, e);
}

/* The expansion of an op on constants folds to a constant as it is built. */
static ir_scalar eval_expansion(tn_ctx *ctx, ir_opcode op, tn_dtype t, int nargs, const ir_scalar *x) {
  ix args[2] = {NULL, NULL};
  for (int i = 0; i < nargs; i++) args[i] = ix_float(ctx, t, x[i].f);
  return ir_eval_closed(ctx, ix_expand_op(ctx, op, args));
}

ir_scalar ir_eval_op(tn_ctx *ctx, ir_opcode op, tn_dtype result, int nargs, const tn_dtype *types,
                     const ir_scalar *args) {
  tn_dtype t = nargs ? types[0] : result;
  switch (op) {
    case IX_CONST: case IX_VAR: case IX_LOAD: ir_bug(ctx, "%s is not an operation", ix_info[op].name);
    case IX_CAST: return eval_cast(result, t, args[0]);
    case IX_BITCAST: return eval_bitcast(ctx, result, t, args[0]);
    case IX_SELECT: return args[args[0].i ? 1 : 2];
    default: break;
  }
  if (ix_info[op].traits[0] == 'E') return eval_expansion(ctx, op, t, nargs, args);
  if (ir_is_float(t)) return eval_float(ctx, op, t, nargs, args);
  return eval_int(ctx, op, t, args[0].i, nargs > 1 ? args[1].i : 0);
}
