/* dtype.c — names and sizes of element types, half-precision conversion, hashing. */
#include "ir/ctx.h"
#include <math.h>
#include <string.h>

static const struct {
  const char *name;
  int bits;
} dtypes[TN_DTYPE_COUNT] = {
    [TN_NONE] = {"none", 0},  [TN_BOOL] = {"bool", 8},  [TN_I8] = {"i8", 8},    [TN_I16] = {"i16", 16},
    [TN_I32] = {"i32", 32},   [TN_I64] = {"i64", 64},   [TN_U8] = {"u8", 8},    [TN_U16] = {"u16", 16},
    [TN_U32] = {"u32", 32},   [TN_U64] = {"u64", 64},   [TN_F16] = {"f16", 16}, [TN_BF16] = {"bf16", 16},
    [TN_F32] = {"f32", 32},   [TN_F64] = {"f64", 64},   [TN_INDEX] = {"index", 64},
    [TN_F8E4M3FN] = {"f8e4m3fn", 8},         [TN_F8E5M2] = {"f8e5m2", 8},         [TN_F8E4M3FNUZ] = {"f8e4m3fnuz", 8},
    [TN_F8E5M2FNUZ] = {"f8e5m2fnuz", 8},     [TN_F4E2M1] = {"f4e2m1", 8},
};

int ir_dtype_bits(tn_dtype t) { return dtypes[t].bits; }
size_t ir_dtype_bytes(tn_dtype t) { return (size_t)dtypes[t].bits / 8; }
const char *ir_dtype_name(tn_dtype t) { return t >= 0 && t < TN_DTYPE_COUNT ? dtypes[t].name : "?"; }

tn_dtype ir_dtype_parse(const char *s, size_t n) {
  for (int t = 1; t < TN_DTYPE_COUNT; t++)
    if (strlen(dtypes[t].name) == n && memcmp(dtypes[t].name, s, n) == 0) return (tn_dtype)t;
  return TN_NONE;
}

float ir_bf16_to_f32(uint16_t h) {
  uint32_t u = (uint32_t)h << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}

uint16_t ir_f32_to_bf16(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 0x40); /* quiet NaN, sign kept */
  return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

float ir_f16_to_f32(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = h >> 10 & 31, man = h & 1023, u;
  if (exp == 31) u = sign | 0x7f800000 | man << 13;
  else if (exp) u = sign | (exp + 112) << 23 | man << 13;
  else {
    float f = (float)man * 0x1p-24f; /* exact: subnormals of f16 are normal in f32 */
    memcpy(&u, &f, 4);
    u |= sign;
  }
  float f;
  memcpy(&f, &u, 4);
  return f;
}

/* Rounds the f64 magnitude to the f16 grid once; a f32 converts to f64 exactly. */
uint16_t ir_f64_to_f16(double d) {
  uint16_t sign = signbit(d) ? 0x8000 : 0;
  if (isnan(d)) return sign | 0x7e00;
  double a = fabs(d);
  if (a >= 65520.0) return sign | 0x7c00;
  if (a < 0x1p-14) return sign | (uint16_t)nearbyint(a * 0x1p24); /* may carry into the first normal */
  int e;
  double m = frexp(a, &e); /* a = m * 2^e, m in [0.5, 1) */
  uint32_t man = (uint32_t)nearbyint(m * 2048.0);
  if (man == 2048) man = 1024, e++;
  return sign | (uint16_t)(((uint32_t)(e + 14) << 10) + (man - 1024));
}

uint16_t ir_f32_to_f16(float f) { return ir_f64_to_f16(f); }

uint16_t ir_f64_to_bf16(double d) {
  float f = (float)d;
  /* Round to odd in f32 first, so that the second rounding is exact. */
  if (isfinite(d) && (double)f != d) {
    uint32_t u;
    memcpy(&u, &f, 4);
    if (isinf(f)) return ir_f32_to_bf16(f);
    if (fabs((double)f) > fabs(d)) u--;
    u |= 1;
    memcpy(&f, &u, 4);
  }
  return ir_f32_to_bf16(f);
}

const ir_byte_format *ir_byte_format_of(tn_dtype t) {
  static const ir_byte_format formats[] = {
      {.fraction = 3, .bias = 7, .sign = 0x80, .top = 0x7e, .over = 0x7f, .nan = 0x7f},                          /* e4m3fn: 448 */
      {.fraction = 2, .bias = 15, .sign = 0x80, .top = 0x7b, .over = 0x7c, .nan = 0x7e},                         /* e5m2: 57344 */
      {.fraction = 3, .bias = 8, .sign = 0x80, .top = 0x7f, .over = 0x80, .nan = 0x80, .unsigned_zero = true},   /* e4m3fnuz: 240 */
      {.fraction = 2, .bias = 16, .sign = 0x80, .top = 0x7f, .over = 0x80, .nan = 0x80, .unsigned_zero = true},  /* e5m2fnuz: 57344 */
      {.fraction = 1, .bias = 1, .sign = 0x08, .top = 0x07, .over = 0x07, .nan = 0x08},                          /* e2m1: 6; NaN becomes -0, as in ml_dtypes */
  };
  return ir_is_byte_float(t) ? &formats[t - TN_F8E4M3FN] : NULL;
}

float ir_byte_to_f32(tn_dtype t, uint8_t code) {
  const ir_byte_format *b = ir_byte_format_of(t);
  if (b->unsigned_zero && code == b->nan) return NAN;
  int a = code & (b->sign - 1), e = a >> b->fraction, m = a & ((1 << b->fraction) - 1);
  double v = a <= b->top ? ldexp(e ? m + (1 << b->fraction) : m, (e ? e : 1) - b->bias - b->fraction) : b->over != b->nan && a == b->over ? INFINITY : NAN;
  return (float)(code & b->sign ? -v : v);
}

uint8_t ir_f64_to_byte(tn_dtype t, double v) {
  const ir_byte_format *b = ir_byte_format_of(t);
  if (isnan(v)) return b->nan;
  double a = fabs(v);
  int e, least = 1 - b->bias;
  frexp(a, &e);
  if (e-- == 0 && a == 0) e = least; /* a = 2^e times 1 to 2 */
  if (e < least) e = least;
  /* in units of the last place; 2^(fraction + 1) of them are the next power of two, whose code follows */
  int code = isinf(a) || e > 31 ? b->top + 1 : (int)nearbyint(ldexp(a, b->fraction - e)) + ((e - least) << b->fraction);
  if (code > b->top) code = b->over;
  return (uint8_t)(code | (signbit(v) && !(b->unsigned_zero && code == 0) ? b->sign : 0));
}

double ir_byte_max(tn_dtype t) { return ir_byte_to_f32(t, ir_byte_format_of(t)->top); }

bool ir_mul_size(int64_t a, int64_t b, int64_t *out) {
  return a >= 0 && b >= 0 && !__builtin_mul_overflow(a, b, out);
}
bool ir_add_size(int64_t a, int64_t b, int64_t *out) {
  return a >= 0 && b >= 0 && !__builtin_add_overflow(a, b, out);
}

uint64_t ir_hash_bytes(const void *p, size_t n, uint64_t seed) {
  const unsigned char *s = p;
  uint64_t h = 0xcbf29ce484222325u ^ (seed * 0x9e3779b97f4a7c15u);
  for (size_t i = 0; i < n; i++) h = (h ^ s[i]) * 0x100000001b3u;
  return h ^ h >> 32;
}
