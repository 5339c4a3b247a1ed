/* tpu_kernels.c — blocks of values: loads, stores, operations, and the inner loops of products.
 *
 * Operations are those of ir/eval.c element by element; what a vector unit does to many values is here
 * spelled as loops that a compiler can vectorise. On x86 the products are compiled twice, with
 * and without AVX2 and FMA, and chosen at run time.
 */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3") /* loops of unknown length are not vectorised below it */
#endif
#include "ir/interp.h"
#include "runtime/tpu_internal.h"
#include <math.h>
#include <string.h>

/* ---- loads and stores ---- */

/* Dense blocks are loops of their own, which vectorise. */
#define LOAD_AS(type, field, expr)                                      \
  if (stride == (int64_t)sizeof(type))                                  \
    for (int j = 0; j < n; j++) {                                       \
      type v;                                                           \
      memcpy(&v, p + (size_t)j * sizeof v, sizeof v);                   \
      to->field[j] = expr;                                              \
    }                                                                   \
  else                                                                  \
    for (int j = 0; j < n; j++) {                                       \
      type v;                                                           \
      memcpy(&v, p + j * stride, sizeof v);                             \
      to->field[j] = expr;                                              \
    }                                                                   \
  return

static float bf16_value(uint16_t h) {
  uint32_t u = (uint32_t)h << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}

static inline uint16_t bf16_of(float f) { /* ir_f32_to_bf16, where it can be inlined */
  uint32_t u;
  memcpy(&u, &f, 4);
  uint32_t nan = u >> 16 | 0x40, even = (u + 0x7fff + (u >> 16 & 1)) >> 16;
  return (uint16_t)((u & 0x7fffffff) > 0x7f800000 ? nan : even);
}

void tpu_block_load(tn_dtype t, const uint8_t *p, int64_t stride, int n, tpu_block *to) {
  switch (t) {
  case TN_BOOL: LOAD_AS(uint8_t, i, v != 0);
  case TN_I8: LOAD_AS(int8_t, i, v);
  case TN_U8: LOAD_AS(uint8_t, i, v);
  case TN_I16: LOAD_AS(int16_t, i, v);
  case TN_U16: LOAD_AS(uint16_t, i, v);
  case TN_I32: LOAD_AS(int32_t, i, v);
  case TN_U32: LOAD_AS(uint32_t, i, v);
  case TN_F16: LOAD_AS(uint16_t, f, ir_f16_to_f32(v));
  case TN_BF16: LOAD_AS(uint16_t, f, bf16_value(v));
  case TN_F32: LOAD_AS(float, f, v);
  case TN_F64: LOAD_AS(double, d, v);
  default:
    if (ir_is_byte_float(t)) { LOAD_AS(uint8_t, f, ir_byte_to_f32(t, v)); }
    LOAD_AS(int64_t, i, v);
  }
}

#define STORE_AS(type, expr)                                            \
  if (stride == (int64_t)sizeof(type))                                  \
    for (int j = 0; j < n; j++) {                                       \
      type v = (type)(expr);                                            \
      memcpy(p + (size_t)j * sizeof v, &v, sizeof v);                   \
    }                                                                   \
  else                                                                  \
    for (int j = 0; j < n; j++) {                                       \
      type v = (type)(expr);                                            \
      memcpy(p + j * stride, &v, sizeof v);                             \
    }                                                                   \
  return

void tpu_block_store(tn_dtype t, uint8_t *p, int64_t stride, int n, const tpu_block *from) {
  switch (t) {
  case TN_BOOL: STORE_AS(uint8_t, from->i[j] != 0);
  case TN_I8: case TN_U8: STORE_AS(uint8_t, from->i[j]);
  case TN_I16: case TN_U16: STORE_AS(uint16_t, from->i[j]);
  case TN_I32: case TN_U32: STORE_AS(uint32_t, from->i[j]);
  case TN_F16: STORE_AS(uint16_t, ir_f32_to_f16(from->f[j]));
  case TN_BF16: STORE_AS(uint16_t, bf16_of(from->f[j]));
  case TN_F32: STORE_AS(float, from->f[j]);
  case TN_F64: STORE_AS(double, from->d[j]);
  default:
    if (ir_is_byte_float(t)) { STORE_AS(uint8_t, ir_f64_to_byte(t, from->f[j])); }
    STORE_AS(int64_t, from->i[j]);
  }
}

void tpu_block_fill(tn_dtype t, int64_t bits, int n, tpu_block *to) {
  double f;
  memcpy(&f, &bits, 8);
  if (t == TN_F64) for (int j = 0; j < n; j++) to->d[j] = f;
  else if (ir_is_float(t)) for (int j = 0; j < n; j++) to->f[j] = (float)f;
  else for (int j = 0; j < n; j++) to->i[j] = bits;
}

/* ---- operations ---- */

static void round_floats(tn_dtype t, tpu_block *out, int n) {
  if (t == TN_BF16) for (int j = 0; j < n; j++) out->f[j] = bf16_value(bf16_of(out->f[j]));
  if (t == TN_F16) for (int j = 0; j < n; j++) out->f[j] = ir_f16_to_f32(ir_f32_to_f16(out->f[j]));
  if (ir_is_byte_float(t)) for (int j = 0; j < n; j++) out->f[j] = ir_byte_to_f32(t, ir_f64_to_byte(t, out->f[j]));
}

static void wrap_ints(tn_dtype t, tpu_block *out, int n) {
#define WRAP(type) for (int j = 0; j < n; j++) out->i[j] = (type)out->i[j]; return
  switch (t) {
  case TN_BOOL: for (int j = 0; j < n; j++) out->i[j] = out->i[j] != 0; return;
  case TN_I8: WRAP(int8_t);
  case TN_U8: WRAP(uint8_t);
  case TN_I16: WRAP(int16_t);
  case TN_U16: WRAP(uint16_t);
  case TN_I32: WRAP(int32_t);
  case TN_U32: WRAP(uint32_t);
  default: return;
  }
}

#define EACH(field, expr) for (int j = 0; j < n; j++) out->field[j] = (expr); break

/* Both widths of floats; false: an op that is none of theirs. */
#define FLOAT_OPS(name, field, FN)                                                                              \
  static inline __attribute__((always_inline)) bool name(ir_opcode op, const tpu_block *a, const tpu_block *b, const tpu_block *c, tpu_block *out, int n) { \
    switch (op) {                                                                                               \
    case IX_NEG: EACH(field, -a->field[j]);                                                                     \
    case IX_ABS: EACH(field, FN(fabs)(a->field[j]));                                                            \
    case IX_SQRT: EACH(field, FN(sqrt)(a->field[j]));                                                           \
    case IX_FLOOR: EACH(field, FN(floor)(a->field[j]));                                                         \
    case IX_CEIL: EACH(field, FN(ceil)(a->field[j]));                                                           \
    case IX_ROUND: EACH(field, FN(nearbyint)(a->field[j]));                                                     \
    case IX_TRUNC: EACH(field, FN(trunc)(a->field[j]));                                                         \
    case IX_ADD: EACH(field, a->field[j] + b->field[j]);                                                        \
    case IX_SUB: EACH(field, a->field[j] - b->field[j]);                                                        \
    case IX_MUL: EACH(field, a->field[j] * b->field[j]);                                                        \
    case IX_DIV: EACH(field, a->field[j] / b->field[j]);                                                        \
    case IX_REM: EACH(field, FN(fmod)(a->field[j], b->field[j]));                                               \
    case IX_MIN: EACH(field, a->field[j] < b->field[j] ? a->field[j] : b->field[j]);                            \
    case IX_MAX: EACH(field, a->field[j] > b->field[j] ? a->field[j] : b->field[j]);                            \
    case IX_FMA: EACH(field, FN(fma)(a->field[j], b->field[j], c->field[j]));                                   \
    default: return false;                                                                                      \
    }                                                                                                           \
    return true;                                                                                                \
  }
#define WITH_F(name) name##f
#define AS_IS(name) name

/* Comparisons leave booleans in .i. */
#define COMPARE(field)                                                  \
  switch (op) {                                                         \
  case IX_LT: EACH(i, a->field[j] < b->field[j]);                       \
  case IX_LE: EACH(i, a->field[j] <= b->field[j]);                      \
  case IX_EQ: EACH(i, a->field[j] == b->field[j]);                      \
  case IX_NE: EACH(i, a->field[j] != b->field[j]);                      \
  default: return false;                                                \
  }                                                                     \
  return true

FLOAT_OPS(f32_ops, f, WITH_F)
FLOAT_OPS(f64_ops, d, AS_IS)
static bool f32_compare(ir_opcode op, const tpu_block *a, const tpu_block *b, tpu_block *out, int n) { COMPARE(f); }
static bool f64_compare(ir_opcode op, const tpu_block *a, const tpu_block *b, tpu_block *out, int n) { COMPARE(d); }
static bool int_compare(ir_opcode op, const tpu_block *a, const tpu_block *b, tpu_block *out, int n) { COMPARE(i); }

static bool f32_any(ir_opcode op, const tpu_block *a, const tpu_block *b, const tpu_block *c, tpu_block *out, int n) { return f32_ops(op, a, b, c, out, n); }
#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) static bool f32_avx2(ir_opcode op, const tpu_block *a, const tpu_block *b, const tpu_block *c, tpu_block *out, int n) {
  return f32_ops(op, a, b, c, out, n);
}
static bool has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#else
#define f32_avx2 f32_any
static bool has_avx2(void) { return false; }
#endif

/* Integers whose result is that of 64 bits, wrapped; the rest goes element by element. */
static bool int_ops(ir_opcode op, const tpu_block *a, const tpu_block *b, tpu_block *out, int n) {
  switch (op) {
  case IX_ADD: EACH(i, (int64_t)((uint64_t)a->i[j] + (uint64_t)b->i[j]));
  case IX_SUB: EACH(i, (int64_t)((uint64_t)a->i[j] - (uint64_t)b->i[j]));
  case IX_MUL: EACH(i, (int64_t)((uint64_t)a->i[j] * (uint64_t)b->i[j]));
  case IX_AND: EACH(i, a->i[j] & b->i[j]);
  case IX_OR: EACH(i, a->i[j] | b->i[j]);
  case IX_XOR: EACH(i, a->i[j] ^ b->i[j]);
  case IX_NEG: EACH(i, (int64_t)(0 - (uint64_t)a->i[j]));
  default: return false;
  }
  return true;
}

/* A count is unsigned: one beyond the width gives 0, or the sign. */
static bool int_shifts(ir_opcode op, tn_dtype t, const tpu_block *a, const tpu_block *b, tpu_block *out, int n) {
  uint64_t bits = (uint64_t)ir_dtype_bits(t);
  if (op == IX_SHL)
    for (int j = 0; j < n; j++) out->i[j] = (uint64_t)b->i[j] < bits ? (int64_t)((uint64_t)a->i[j] << (b->i[j] & 63)) : 0;
  else if (op == IX_SHR && ir_is_signed(t))
    for (int j = 0; j < n; j++) out->i[j] = a->i[j] >> ((uint64_t)b->i[j] < bits ? b->i[j] & 63 : 63);
  else if (op == IX_SHR)
    for (int j = 0; j < n; j++) out->i[j] = (uint64_t)b->i[j] < bits ? (int64_t)((uint64_t)a->i[j] >> (b->i[j] & 63)) : 0;
  else return false;
  wrap_ints(t, out, n);
  return true;
}

/* Between f32 and integers of its width. */
static bool bitcast_block(tn_dtype to, tn_dtype from, const tpu_block *a, tpu_block *out, int n) {
  if (from == TN_F32 && to == TN_I32)
    for (int j = 0; j < n; j++) { int32_t v; memcpy(&v, &a->f[j], 4); out->i[j] = v; }
  else if ((from == TN_I32 || from == TN_U32) && to == TN_F32)
    for (int j = 0; j < n; j++) { int32_t v = (int32_t)a->i[j]; memcpy(&out->f[j], &v, 4); }
  else return false;
  return true;
}

static bool int_extremes(ir_opcode op, const tpu_block *a, const tpu_block *b, tpu_block *out, int n) {
  switch (op) {
  case IX_MIN: EACH(i, a->i[j] < b->i[j] ? a->i[j] : b->i[j]);
  case IX_MAX: EACH(i, a->i[j] > b->i[j] ? a->i[j] : b->i[j]);
  default: return int_compare(op, a, b, out, n);
  }
  return true;
}

typedef enum { AS_F32, AS_F64, AS_INT } form;
static form form_of(tn_dtype t) { return t == TN_F64 ? AS_F64 : ir_is_float(t) ? AS_F32 : AS_INT; }

static ir_scalar scalar_at(form f, const tpu_block *b, int j) {
  return f == AS_F32 ? (ir_scalar){.f = b->f[j]} : f == AS_F64 ? (ir_scalar){.f = b->d[j]} : (ir_scalar){.i = b->i[j]};
}

static void set_scalar(form f, tpu_block *b, int j, ir_scalar v) {
  if (f == AS_F32) b->f[j] = (float)v.f;
  else if (f == AS_F64) b->d[j] = v.f;
  else b->i[j] = v.i;
}

static bool cast_block(tn_dtype to, tn_dtype from, const tpu_block *a, tpu_block *out, int n) {
  form f = form_of(from), t = form_of(to);
  if (f == AS_F32 && t == AS_F32) {
    if (out != a) memcpy(out->f, a->f, (size_t)n * 4);
    round_floats(to, out, n);
  } else if (f == AS_INT && t == AS_INT) {
    if (out != a) memcpy(out->i, a->i, (size_t)n * 8);
    wrap_ints(to, out, n);
  } else if (f == AS_INT && t == AS_F32 && from != TN_U64) {
    for (int j = 0; j < n; j++) out->f[j] = (float)a->i[j];
    round_floats(to, out, n);
  } else if (f == AS_F32 && (to == TN_I8 || to == TN_U8 || to == TN_I32)) {
    float lo = to == TN_I8 ? -128.0f : to == TN_U8 ? 0.0f : -0x1p31f, hi = to == TN_I8 ? 127.0f : to == TN_U8 ? 255.0f : 0x1.fffffep30f;
    for (int j = 0; j < n; j++) {
      float v = a->f[j];
      out->i[j] = v != v ? 0 : v < lo ? (int64_t)lo : v > hi ? (to == TN_I32 ? INT32_MAX : (int64_t)hi) : (int64_t)v;
    }
  } else return false;
  return true;
}

static void one_by_one(tn_ctx *ctx, ir_opcode op, tn_dtype result, const tn_dtype *types, const tpu_block *const *args, tpu_block *out, int n) {
  int count = ix_info[op].arity;
  for (int j = 0; j < n; j++) {
    ir_scalar x[3];
    for (int k = 0; k < count; k++) x[k] = scalar_at(form_of(types[k]), args[k], j);
    set_scalar(form_of(result), out, j, ir_eval_op(ctx, op, result, count, types, x));
  }
}

static bool select_block(tn_dtype t, const tpu_block *const *x, tpu_block *out, int n) {
  switch (form_of(t)) {
  case AS_F32: for (int j = 0; j < n; j++) out->f[j] = x[0]->i[j] ? x[1]->f[j] : x[2]->f[j]; break;
  case AS_F64: for (int j = 0; j < n; j++) out->d[j] = x[0]->i[j] ? x[1]->d[j] : x[2]->d[j]; break;
  default: for (int j = 0; j < n; j++) out->i[j] = x[0]->i[j] ? x[1]->i[j] : x[2]->i[j]; break;
  }
  return true;
}

static bool fast(ir_opcode op, tn_dtype result, tn_dtype t, const tpu_block *const *x, tpu_block *out, int n) {
  const tpu_block *a = x[0], *b = ix_info[op].arity > 1 ? x[1] : NULL, *c = ix_info[op].arity > 2 ? x[2] : NULL;
  bool compares = ix_info[op].result == 'B';
  if (op == IX_CAST) return cast_block(result, t, a, out, n);
  if (op == IX_BITCAST) return bitcast_block(result, t, a, out, n);
  if (op == IX_SELECT) return select_block(result, x, out, n);
  switch (form_of(t)) {
  case AS_F32:
    if (compares) return f32_compare(op, a, b, out, n);
    if (!(has_avx2() ? f32_avx2 : f32_any)(op, a, b, c, out, n)) return false;
    round_floats(t, out, n);
    return true;
  case AS_F64: return compares ? f64_compare(op, a, b, out, n) : f64_ops(op, a, b, c, out, n);
  default:
    if (t != TN_U64 && int_extremes(op, a, b, out, n)) return true;
    if (t == TN_BOOL && ix_info[op].arity < 2) return false;
    if (!int_ops(op, a, b, out, n)) return int_shifts(op, t, a, b, out, n);
    wrap_ints(t, out, n);
    return true;
  }
}

void tpu_block_op(tn_ctx *ctx, ir_opcode op, tn_dtype result, const tn_dtype *types, const tpu_block *const *args, tpu_block *out, int n) {
  tpu_block copy;
  bool widths = false; /* of an argument that is also the result, and of another form: not in place */
  for (int k = 0; k < ix_info[op].arity; k++) widths |= args[k] == out && form_of(types[k]) != form_of(result);
  tpu_block *to = widths ? &copy : out;
  if (!fast(op, result, types[op == IX_SELECT ? 1 : 0], args, to, n)) one_by_one(ctx, op, result, types, args, to, n);
  if (widths) memcpy(out, &copy, (size_t)n * 8);
}

/* ---- products ---- */

static void panel_any(int rows, int64_t depth, const float *a, int64_t a_pitch, const float *panel, float *c, int64_t c_pitch) {
  for (int m = 0; m < rows; m++)
    for (int64_t k = 0; k < depth; k++)
      for (int j = 0; j < 16; j++) c[m * c_pitch + j] = fmaf(a[m * a_pitch + k], panel[k * 16 + j], c[m * c_pitch + j]);
}

static void row_any(int64_t n, const float *a, const int32_t *k, const float *panel, int64_t pitch, int64_t panels, float *c) {
  for (int64_t p = 0; p < panels; p++)
    for (int64_t j = 0; j < n; j++)
      for (int x = 0; x < 16; x++) c[p * 16 + x] = fmaf(a[j], panel[p * pitch + k[j] * 16 + x], c[p * 16 + x]);
}

#if defined(__x86_64__)
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2,fma")))

/* R rows of 16 columns in 2 R registers, each a variable: an array would go by way of the stack. R is a
 * constant where it is called. */
#define ROWS(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5)
#define DECLARE(m) __m256 x##m = _mm256_setzero_ps(), y##m = x##m;
#define FETCH(m) if (R > m) x##m = _mm256_loadu_ps(c + m * c_pitch), y##m = _mm256_loadu_ps(c + m * c_pitch + 8);
#define MULTIPLY(m)                                           \
  if (R > m) {                                                \
    __m256 s = _mm256_broadcast_ss(a + m * a_pitch + k);      \
    x##m = _mm256_fmadd_ps(s, u, x##m);                       \
    y##m = _mm256_fmadd_ps(s, v, y##m);                       \
  }
#define KEEP(m) if (R > m) _mm256_storeu_ps(c + m * c_pitch, x##m), _mm256_storeu_ps(c + m * c_pitch + 8, y##m);

AVX2 static inline __attribute__((always_inline)) void panel_tile(int R, int64_t depth, const float *a, int64_t a_pitch, const float *panel, float *c, int64_t c_pitch) {
  ROWS(DECLARE)
  ROWS(FETCH)
  for (int64_t k = 0; k < depth; k++) {
    __m256 u = _mm256_loadu_ps(panel + 16 * k), v = _mm256_loadu_ps(panel + 16 * k + 8);
    ROWS(MULTIPLY)
  }
  ROWS(KEEP)
}

AVX2 static void panel_avx2(int rows, int64_t depth, const float *a, int64_t a_pitch, const float *panel, float *c, int64_t c_pitch) {
  switch (rows) {
  case 6: panel_tile(6, depth, a, a_pitch, panel, c, c_pitch); return;
  case 5: panel_tile(5, depth, a, a_pitch, panel, c, c_pitch); return;
  case 4: panel_tile(4, depth, a, a_pitch, panel, c, c_pitch); return;
  case 3: panel_tile(3, depth, a, a_pitch, panel, c, c_pitch); return;
  case 2: panel_tile(2, depth, a, a_pitch, panel, c, c_pitch); return;
  default: panel_tile(1, depth, a, a_pitch, panel, c, c_pitch); return;
  }
}

/* P panels of one row. */
#define PANELS(DO) DO(0) DO(1) DO(2) DO(3)
#define FETCH_P(p) if (P > p) x##p = _mm256_loadu_ps(c + 16 * p), y##p = _mm256_loadu_ps(c + 16 * p + 8);
#define MULTIPLY_P(p) if (P > p) x##p = _mm256_fmadd_ps(s, _mm256_loadu_ps(w + p * pitch), x##p), y##p = _mm256_fmadd_ps(s, _mm256_loadu_ps(w + p * pitch + 8), y##p);
#define KEEP_P(p) if (P > p) _mm256_storeu_ps(c + 16 * p, x##p), _mm256_storeu_ps(c + 16 * p + 8, y##p);

AVX2 static inline __attribute__((always_inline)) void row_tile(int P, int64_t n, const float *a, const int32_t *k, const float *panel, int64_t pitch, float *c) {
  PANELS(DECLARE)
  PANELS(FETCH_P)
  for (int64_t j = 0; j < n; j++) {
    __m256 s = _mm256_broadcast_ss(a + j);
    const float *w = panel + 16 * (int64_t)k[j];
    PANELS(MULTIPLY_P)
  }
  PANELS(KEEP_P)
}

AVX2 static void row_avx2(int64_t n, const float *a, const int32_t *k, const float *panel, int64_t pitch, int64_t panels, float *c) {
  for (; panels >= 4; panels -= 4, panel += 4 * pitch, c += 64) row_tile(4, n, a, k, panel, pitch, c);
  for (; panels > 0; panels--, panel += pitch, c += 16) row_tile(1, n, a, k, panel, pitch, c);
}
#else
#define panel_avx2 panel_any
#define row_avx2 row_any
#endif

void tpu_panel_product(int rows, int64_t depth, const float *a, int64_t a_pitch, const float *panel, float *c, int64_t c_pitch) {
  (has_avx2() ? panel_avx2 : panel_any)(rows, depth, a, a_pitch, panel, c, c_pitch);
}

void tpu_row_product(int64_t n, const float *a, const int32_t *k, const float *panel, int64_t panel_pitch, int64_t panels, float *c) {
  (has_avx2() ? row_avx2 : row_any)(n, a, k, panel, panel_pitch, panels, c);
}
