/* ctx.h — context: arena, protected calls, errors, dtypes.
 *
 * Everything the compiler makes lives in the arena of its context and dies with
 * it; nobody frees a node. Inside the library an error is thrown with ir_fail()
 * and caught at a public call by ir_protect(): no internal function returns a
 * status. What lives outside the arena (maps, files, LLVM objects) is registered
 * with ir_defer() so that a throw, or the end of the context, releases it.
 */
#ifndef IR_CTX_H
#define IR_CTX_H
#include "frontend/tenon.h"
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IR_PRINTF(a, b) __attribute__((format(printf, a, b)))
#define IR_NORETURN __attribute__((noreturn))
#define IR_COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))
#define IR_MAX_RANK 12 /* logical and physical; ONNX models in the wild stay below 8 */

/* An independent context with the callbacks of this one. Null when memory is out. */
tn_ctx *ir_ctx_like(const tn_ctx *ctx);
/* A child context over a frozen parent: it reads the parent's nodes and interns
 * into its own table; it must be freed before the parent, which must not change
 * meanwhile. Used for tuning candidates. Null when memory is out. */
tn_ctx *ir_ctx_child(tn_ctx *parent);
tn_ctx *ir_ctx_parent(const tn_ctx *ctx);

/* Zeroed memory aligned to 16 bytes, freed with the context. Throws TN_ERESOURCE. */
void *ir_alloc(tn_ctx *ctx, size_t bytes);
/* count * size with overflow check. */
void *ir_alloc_array(tn_ctx *ctx, size_t count, size_t size);
#define IR_NEW(ctx, type) ((type *)ir_alloc((ctx), sizeof(type)))
#define IR_NEW_ARRAY(ctx, type, n) ((type *)ir_alloc_array((ctx), (size_t)(n), sizeof(type)))
/* Copy of `old_count` elements in room for `new_count`; the rest is zero. */
void *ir_grow(tn_ctx *ctx, const void *old, size_t old_count, size_t new_count, size_t size);
char *ir_strdup(tn_ctx *ctx, const char *s);
char *ir_strndup(tn_ctx *ctx, const char *s, size_t n);
char *ir_format(tn_ctx *ctx, const char *fmt, ...) IR_PRINTF(2, 3);
/* The same string pointer for equal strings: names compare by pointer. */
const char *ir_intern(tn_ctx *ctx, const char *s);
/* One more than the largest id given to expressions, values and nodes. */
uint32_t ir_next_id(const tn_ctx *ctx);
/* Bytes that the arena holds now. */
size_t ir_bytes(const tn_ctx *ctx);
/* Raw memory from the context's allocator, for buffers with a life of their own; throws. */
void *ir_raw_alloc(tn_ctx *ctx, size_t bytes);
void ir_raw_free(tn_ctx *ctx, void *p);

/* Push `item` on an arena array that doubles: IR_PUSH(ctx, v->items, v->n, item).
 * Capacity is implied: full whenever n is 0 or a power of two >= 4. */
#define IR_PUSH(ctx, items, n, ...)                                                        \
  do {                                                                                     \
    if ((n) == 0 || ((n) >= 4 && ((n) & ((n)-1)) == 0))                                    \
      (items) = ir_grow((ctx), (items), (size_t)(n), (n) < 4 ? 4 : 2 * (size_t)(n), sizeof *(items)); \
    (items)[(n)++] = __VA_ARGS__;                                                          \
  } while (0)

/* Growing text in the arena. */
typedef struct ir_text {
  tn_ctx *ctx;
  char *s; /* always zero-terminated once something was added; null before */
  size_t n, cap;
} ir_text;
void ir_put(ir_text *t, const char *fmt, ...) IR_PRINTF(2, 3);
void ir_put_bytes(ir_text *t, const char *s, size_t n);
const char *ir_text_str(ir_text *t); /* "" when empty */

/* Runs fn(ctx, arg). Returns TN_OK, or the status thrown inside; the message is
 * then in ir_error(ctx), and whatever was deferred inside has been released.
 * Calls nest. */
tn_status ir_protect(tn_ctx *ctx, void (*fn)(tn_ctx *ctx, void *arg), void *arg);
/* Throws to the innermost ir_protect. The message names file, node and reason. */
void ir_fail(tn_ctx *ctx, tn_status status, const char *fmt, ...) IR_PRINTF(3, 4) IR_NORETURN;
/* Sets the message and returns the status, without throwing. */
tn_status ir_error_set(tn_ctx *ctx, tn_status status, const char *fmt, ...) IR_PRINTF(3, 4);
const char *ir_error(const tn_ctx *ctx);
/* Where we are, prefixed to messages ("model.onnx: node 'conv1' (Conv)"); null clears. */
void ir_where(tn_ctx *ctx, const char *where);
/* A broken invariant: throws TN_EINTERNAL with file and line. */
#define ir_bug(ctx, ...) ir_bug_at((ctx), __FILE__, __LINE__, __VA_ARGS__)
void ir_bug_at(tn_ctx *ctx, const char *file, int line, const char *fmt, ...) IR_PRINTF(4, 5) IR_NORETURN;
#define ir_assert(ctx, cond) ((cond) ? (void)0 : ir_bug((ctx), "assertion failed: %s", #cond))
void ir_log(tn_ctx *ctx, const char *fmt, ...) IR_PRINTF(2, 3);

/* Calls fn(arg) when an enclosing ir_protect unwinds by a throw, or when the
 * context is freed. ir_undefer drops the newest registration of (fn, arg) and
 * does not call it. */
void ir_defer(tn_ctx *ctx, void (*fn)(void *arg), void *arg);
void ir_undefer(tn_ctx *ctx, void (*fn)(void *arg), void *arg);

/* For tests: the allocation number `n` from now on fails (0: never). */
void ir_fail_alloc_after(tn_ctx *ctx, long n);

/* ---- dtypes ---- */
int ir_dtype_bits(tn_dtype t);
size_t ir_dtype_bytes(tn_dtype t);       /* bool is one byte */
const char *ir_dtype_name(tn_dtype t);   /* "f32", "i64", "bool", "index", ... */
tn_dtype ir_dtype_parse(const char *s, size_t n); /* TN_NONE if unknown */
static inline bool ir_is_float(tn_dtype t) { return t >= TN_F16 && t <= TN_F4E2M1; }
static inline bool ir_is_byte_float(tn_dtype t) { return t >= TN_F8E4M3FN && t <= TN_F4E2M1; }
/* Floats whose values are computed as f32 and rounded after each operation. */
static inline bool ir_is_narrow_float(tn_dtype t) { return t == TN_F16 || t == TN_BF16 || ir_is_byte_float(t); }
static inline bool ir_is_signed(tn_dtype t) { return (t >= TN_I8 && t <= TN_I64) || t == TN_INDEX; }
static inline bool ir_is_unsigned(tn_dtype t) { return t >= TN_U8 && t <= TN_U64; }
static inline bool ir_is_int(tn_dtype t) { return ir_is_signed(t) || ir_is_unsigned(t); }
/* Conversions of one storage element; round to nearest even. */
float ir_f16_to_f32(uint16_t h);
uint16_t ir_f32_to_f16(float f);
uint16_t ir_f64_to_f16(double f);
float ir_bf16_to_f32(uint16_t h);
uint16_t ir_f32_to_bf16(float f);
uint16_t ir_f64_to_bf16(double f);

/* Floats of a byte: a sign, exponent and fraction, by a row each. OCP 8-bit Floating Point Specification (E4M3, E5M2),
 * OCP Microscaling Formats (E2M1); the FNUZ types: Noune et al., "8-bit Numerical Formats for Deep Neural Networks",
 * 2022. What rounds to more than the largest value becomes `over` of its sign. */
typedef struct ir_byte_format {
  int fraction, bias;  /* bits; value = 2^(e - bias) (1 + m / 2^fraction), e = 0: 2^(1 - bias) m / 2^fraction */
  uint8_t sign;        /* the sign's bit */
  uint8_t top;         /* code of the largest number */
  uint8_t over, nan;   /* codes of what is beyond it, and of NaN */
  bool unsigned_zero;  /* no -0: its code is the NaN */
} ir_byte_format;
const ir_byte_format *ir_byte_format_of(tn_dtype t); /* null: no float of a byte */
float ir_byte_to_f32(tn_dtype t, uint8_t code);
uint8_t ir_f64_to_byte(tn_dtype t, double v);
double ir_byte_max(tn_dtype t); /* the largest number */

/* a * b and a + b on sizes; false on overflow of int64 or a negative operand. */
bool ir_mul_size(int64_t a, int64_t b, int64_t *out);
bool ir_add_size(int64_t a, int64_t b, int64_t *out);
uint64_t ir_hash_bytes(const void *p, size_t n, uint64_t seed); /* FNV-1a folded; not for security */
#endif
