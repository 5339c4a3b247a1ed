/* llvm_ops.c — one operation of ir/scalar_ops.h on scalars or on vectors.
 *
 * Every function takes values of `lanes` elements (scalars for 1) and emits at the
 * builder's position. No fast-math flag is ever set, nothing traps, and no call of
 * compiler-rt is made: wide and narrow conversions are spelled out. Narrow floats are
 * f32 values here; what an operation gives is rounded back to the narrow grid. */
#include "codegen/llvm.h"
#include <math.h>
#include <string.h>

/* ---- types and constants ---- */

LLVMTypeRef cg_lanes_of(LLVMTypeRef element, int lanes) {
  return lanes > 1 ? LLVMVectorType(element, (unsigned)lanes) : element;
}

static LLVMTypeRef element(cg_fn *f, tn_dtype t) {
  switch (t) {
  case TN_BOOL: return f->i1;
  case TN_I8: case TN_U8: return f->i8;
  case TN_I16: case TN_U16: return f->i16;
  case TN_I32: case TN_U32: return f->i32;
  case TN_I64: case TN_U64: case TN_INDEX: return f->i64;
  case TN_F64: return f->f64;
  default:
    if (ir_is_float(t)) return f->f32;
    ir_bug(f->ctx, "no type for dtype %s", ir_dtype_name(t));
  }
}

LLVMTypeRef cg_type(cg_fn *f, tn_dtype t, int lanes) { return cg_lanes_of(element(f, t), lanes); }

LLVMTypeRef cg_storage_type(cg_fn *f, tn_dtype t, int lanes) {
  if (t == TN_BOOL || ir_is_byte_float(t)) return cg_lanes_of(f->i8, lanes);
  if (t == TN_F16 || t == TN_BF16) return cg_lanes_of(f->i16, lanes);
  return cg_type(f, t, lanes);
}

static LLVMTypeRef scalar_of(LLVMTypeRef t) { return LLVMGetTypeKind(t) == LLVMVectorTypeKind ? LLVMGetElementType(t) : t; }

static LLVMValueRef spread(LLVMTypeRef t, LLVMValueRef c) {
  if (LLVMGetTypeKind(t) != LLVMVectorTypeKind) return c;
  LLVMValueRef items[CG_MAX_LANES];
  unsigned n = LLVMGetVectorSize(t);
  for (unsigned i = 0; i < n; i++) items[i] = c;
  return LLVMConstVector(items, n);
}

LLVMValueRef cg_int(cg_fn *f, LLVMTypeRef t, int64_t v) {
  (void)f;
  return spread(t, LLVMConstInt(scalar_of(t), (unsigned long long)v, 1));
}

LLVMValueRef cg_real(cg_fn *f, LLVMTypeRef t, double v) {
  (void)f;
  return spread(t, LLVMConstReal(scalar_of(t), v));
}

LLVMValueRef cg_const(cg_fn *f, ix e) {
  LLVMTypeRef t = cg_type(f, (tn_dtype)e->dtype, 1);
  if (!ir_is_float((tn_dtype)e->dtype)) return LLVMConstInt(t, (unsigned long long)e->u.i, 1);
  if (isnan(e->u.f)) { /* the one NaN, spelled by its bits */
    if (t == f->f64) return LLVMConstBitCast(LLVMConstInt(f->i64, 0x7ff8000000000000u, 0), t);
    return LLVMConstBitCast(LLVMConstInt(f->i32, 0x7fc00000u, 0), t);
  }
  return LLVMConstReal(t, e->u.f);
}

LLVMValueRef cg_intrinsic(cg_fn *f, const char *name, LLVMTypeRef overload, LLVMTypeRef overload2, int n,
                          LLVMValueRef *args) {
  unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
  if (!id) ir_bug(f->ctx, "LLVM has no intrinsic %s", name);
  LLVMTypeRef types[2] = {overload, overload2};
  size_t ntypes = overload2 ? 2 : 1;
  LLVMValueRef decl = LLVMGetIntrinsicDeclaration(f->module, id, types, ntypes);
  return LLVMBuildCall2(f->b, LLVMGlobalGetValueType(decl), decl, args, (unsigned)n, "");
}

static LLVMValueRef call1(cg_fn *f, const char *name, LLVMValueRef a) {
  return cg_intrinsic(f, name, LLVMTypeOf(a), NULL, 1, &a);
}

#define B f->b
#define SELECT(c, a, b) LLVMBuildSelect(B, c, a, b, "")
#define ICMP(pred, a, b) LLVMBuildICmp(B, LLVMInt##pred, a, b, "")
#define FCMP(pred, a, b) LLVMBuildFCmp(B, LLVMReal##pred, a, b, "")

static LLVMTypeRef like(LLVMTypeRef shape, LLVMTypeRef scalar) {
  return LLVMGetTypeKind(shape) == LLVMVectorTypeKind ? LLVMVectorType(scalar, LLVMGetVectorSize(shape)) : scalar;
}

static LLVMValueRef copysign_of(cg_fn *f, LLVMValueRef mag, LLVMValueRef sign) {
  return cg_intrinsic(f, "llvm.copysign", LLVMTypeOf(mag), NULL, 2, (LLVMValueRef[]){mag, sign});
}

/* ---- narrow floats ---- */

/* f32 -> bits of bf16 in i32, rounded to nearest even; NaN stays NaN. */
static LLVMValueRef bf16_bits(cg_fn *f, LLVMValueRef v) {
  LLVMTypeRef i = like(LLVMTypeOf(v), f->i32);
  LLVMValueRef u = LLVMBuildBitCast(B, v, i, "");
  LLVMValueRef high = LLVMBuildLShr(B, u, cg_int(f, i, 16), "");
  LLVMValueRef odd = LLVMBuildAnd(B, high, cg_int(f, i, 1), "");
  LLVMValueRef r = LLVMBuildAdd(B, LLVMBuildAdd(B, u, cg_int(f, i, 0x7fff), ""), odd, "");
  r = LLVMBuildLShr(B, r, cg_int(f, i, 16), "");
  return SELECT(FCMP(UNO, v, v), LLVMBuildOr(B, high, cg_int(f, i, 0x40), ""), r);
}

/* f32 -> bits of f16 in i32, by integer arithmetic. */
static LLVMValueRef f16_bits_soft(cg_fn *f, LLVMValueRef v) {
  LLVMTypeRef ft = LLVMTypeOf(v), i = like(ft, f->i32);
  LLVMValueRef u = LLVMBuildBitCast(B, v, i, "");
  LLVMValueRef sign = LLVMBuildAnd(B, LLVMBuildLShr(B, u, cg_int(f, i, 16), ""), cg_int(f, i, 0x8000), "");
  LLVMValueRef a = LLVMBuildAnd(B, u, cg_int(f, i, 0x7fffffff), "");
  /* normal: move the exponent bias from 127 to 15, round the 13 bits that go */
  LLVMValueRef odd = LLVMBuildAnd(B, LLVMBuildLShr(B, a, cg_int(f, i, 13), ""), cg_int(f, i, 1), "");
  LLVMValueRef n = LLVMBuildAdd(B, LLVMBuildAdd(B, a, cg_int(f, i, (int32_t)0xc8000fff), ""), odd, "");
  n = LLVMBuildLShr(B, n, cg_int(f, i, 13), "");
  /* below 2^-14: adding 0.5 leaves the rounded multiple of 2^-24 in the low bits */
  LLVMValueRef s = LLVMBuildFAdd(B, LLVMBuildBitCast(B, a, ft, ""), cg_real(f, ft, 0.5), "");
  s = LLVMBuildSub(B, LLVMBuildBitCast(B, s, i, ""), cg_int(f, i, 0x3f000000), "");
  LLVMValueRef r = SELECT(ICMP(ULT, a, cg_int(f, i, 0x38800000)), s, n);
  r = SELECT(ICMP(UGE, a, cg_int(f, i, 0x477ff000)), cg_int(f, i, 0x7c00), r); /* 65520 and above */
  r = SELECT(ICMP(UGT, a, cg_int(f, i, 0x7f800000)), cg_int(f, i, 0x7e00), r);
  return LLVMBuildOr(B, r, sign, "");
}

static LLVMValueRef f16_value_soft(cg_fn *f, LLVMValueRef h) {
  LLVMTypeRef i = LLVMTypeOf(h), ft = like(i, f->f32);
  LLVMValueRef sign = LLVMBuildShl(B, LLVMBuildAnd(B, h, cg_int(f, i, 0x8000), ""), cg_int(f, i, 16), "");
  LLVMValueRef a = LLVMBuildAnd(B, h, cg_int(f, i, 0x7fff), "");
  LLVMValueRef m = LLVMBuildShl(B, a, cg_int(f, i, 13), "");
  LLVMValueRef n = LLVMBuildAdd(B, m, cg_int(f, i, 112 << 23), "");
  LLVMValueRef s = LLVMBuildFMul(B, LLVMBuildUIToFP(B, a, ft, ""), cg_real(f, ft, 0x1p-24), "");
  LLVMValueRef r = SELECT(ICMP(ULT, a, cg_int(f, i, 0x400)), LLVMBuildBitCast(B, s, i, ""), n);
  r = SELECT(ICMP(UGE, a, cg_int(f, i, 0x7c00)), LLVMBuildOr(B, m, cg_int(f, i, 0x7f800000), ""), r);
  return LLVMBuildBitCast(B, LLVMBuildOr(B, r, sign, ""), ft, "");
}

/* f32 -> the code of a float of a byte, in i32; as f16_bits_soft, for any format (ir_byte_format). */
static LLVMValueRef byte_bits(cg_fn *f, const ir_byte_format *b, LLVMValueRef v) {
  LLVMTypeRef ft = LLVMTypeOf(v), i = like(ft, f->i32);
  int drop = 23 - b->fraction;
  LLVMValueRef u = LLVMBuildBitCast(B, v, i, ""), a = LLVMBuildAnd(B, u, cg_int(f, i, 0x7fffffff), "");
  int sign_at = b->sign == 0x80 ? 7 : 3;
  LLVMValueRef sign = LLVMBuildAnd(B, LLVMBuildLShr(B, u, cg_int(f, i, 31 - sign_at), ""), cg_int(f, i, b->sign), "");
  LLVMValueRef odd = LLVMBuildAnd(B, LLVMBuildLShr(B, a, cg_int(f, i, drop), ""), cg_int(f, i, 1), "");
  LLVMValueRef n = LLVMBuildAdd(B, LLVMBuildAdd(B, a, cg_int(f, i, (int32_t)((uint32_t)(b->bias - 127) << 23) + (1 << (drop - 1)) - 1), ""), odd, "");
  n = LLVMBuildLShr(B, n, cg_int(f, i, drop), "");
  /* below the least normal: in the sum with 2^(24 - bias - fraction) the low bits count subnormals */
  double magic = ldexp(1, 24 - b->bias - b->fraction);
  int32_t magic_bits = (int32_t)((uint32_t)(127 + 24 - b->bias - b->fraction) << 23);
  LLVMValueRef s = LLVMBuildFAdd(B, LLVMBuildBitCast(B, a, ft, ""), cg_real(f, ft, magic), "");
  s = LLVMBuildSub(B, LLVMBuildBitCast(B, s, i, ""), cg_int(f, i, magic_bits), "");
  LLVMValueRef r = SELECT(ICMP(ULT, a, cg_int(f, i, (int32_t)((uint32_t)(128 - b->bias) << 23))), s, n);
  r = SELECT(ICMP(UGT, r, cg_int(f, i, b->top)), cg_int(f, i, b->over), r);
  if (b->unsigned_zero) sign = SELECT(ICMP(EQ, r, cg_int(f, i, 0)), r, sign);
  r = LLVMBuildOr(B, r, sign, "");
  return b->nan == b->over && b->sign == 0x80 ? r : SELECT(ICMP(UGT, a, cg_int(f, i, 0x7f800000)), cg_int(f, i, b->nan), r);
}

/* The code of a float of a byte, in i32 -> f32. */
static LLVMValueRef byte_value(cg_fn *f, const ir_byte_format *b, LLVMValueRef h) {
  LLVMTypeRef i = LLVMTypeOf(h), ft = like(i, f->f32);
  LLVMValueRef sign = LLVMBuildShl(B, LLVMBuildAnd(B, h, cg_int(f, i, b->sign), ""), cg_int(f, i, b->sign == 0x80 ? 24 : 28), "");
  LLVMValueRef a = LLVMBuildAnd(B, h, cg_int(f, i, b->sign - 1), "");
  LLVMValueRef n = LLVMBuildAdd(B, LLVMBuildShl(B, a, cg_int(f, i, 23 - b->fraction), ""), cg_int(f, i, (127 - b->bias) << 23), "");
  LLVMValueRef s = LLVMBuildFMul(B, LLVMBuildSIToFP(B, a, ft, ""), cg_real(f, ft, ldexp(1, 1 - b->bias - b->fraction)), "");
  LLVMValueRef r = SELECT(ICMP(ULT, a, cg_int(f, i, 1 << b->fraction)), LLVMBuildBitCast(B, s, i, ""), n);
  LLVMValueRef nan = cg_int(f, i, 0x7fc00000);
  if (b->unsigned_zero) r = SELECT(ICMP(EQ, h, cg_int(f, i, b->nan)), nan, r);
  else if (b->sign == 0x80) { /* codes above `top`; an infinity, where there is one, is the first of them */
    r = SELECT(ICMP(UGT, a, cg_int(f, i, b->top)), nan, r);
    if (b->over != b->nan) r = SELECT(ICMP(EQ, a, cg_int(f, i, b->over)), cg_int(f, i, 0x7f800000), r);
  }
  return LLVMBuildBitCast(B, LLVMBuildOr(B, r, sign, ""), ft, "");
}

LLVMValueRef cg_to_storage(cg_fn *f, tn_dtype t, LLVMValueRef v, int lanes) {
  if (t == TN_BOOL) return LLVMBuildZExt(B, v, cg_lanes_of(f->i8, lanes), "");
  if (t == TN_BF16) return LLVMBuildTrunc(B, bf16_bits(f, v), cg_lanes_of(f->i16, lanes), "");
  if (ir_is_byte_float(t)) return LLVMBuildTrunc(B, byte_bits(f, ir_byte_format_of(t), v), cg_lanes_of(f->i8, lanes), "");
  if (t == TN_F16) {
    if (f->t->half) {
      LLVMValueRef h = LLVMBuildFPTrunc(B, v, cg_lanes_of(f->half, lanes), "");
      return LLVMBuildBitCast(B, h, cg_lanes_of(f->i16, lanes), "");
    }
    return LLVMBuildTrunc(B, f16_bits_soft(f, v), cg_lanes_of(f->i16, lanes), "");
  }
  return v;
}

LLVMValueRef cg_from_storage(cg_fn *f, tn_dtype t, LLVMValueRef v, int lanes) {
  if (t == TN_BOOL) return ICMP(NE, v, cg_int(f, LLVMTypeOf(v), 0));
  if (t == TN_BF16) {
    LLVMTypeRef i = cg_lanes_of(f->i32, lanes);
    LLVMValueRef u = LLVMBuildShl(B, LLVMBuildZExt(B, v, i, ""), cg_int(f, i, 16), "");
    return LLVMBuildBitCast(B, u, cg_lanes_of(f->f32, lanes), "");
  }
  if (t == TN_F16) {
    if (f->t->half) {
      LLVMValueRef h = LLVMBuildBitCast(B, v, cg_lanes_of(f->half, lanes), "");
      return LLVMBuildFPExt(B, h, cg_lanes_of(f->f32, lanes), "");
    }
    return f16_value_soft(f, LLVMBuildZExt(B, v, cg_lanes_of(f->i32, lanes), ""));
  }
  if (t == TN_F8E5M2 && f->t->half) { /* the upper half of an f16 */
    LLVMTypeRef i = cg_lanes_of(f->i16, lanes);
    return cg_from_storage(f, TN_F16, LLVMBuildShl(B, LLVMBuildZExt(B, v, i, ""), cg_int(f, i, 8), ""), lanes);
  }
  if ((t == TN_F8E4M3FN || t == TN_F8E4M3FNUZ) && f->t->half) { /* the fraction and exponent of an f16 of another bias */
    const ir_byte_format *b = ir_byte_format_of(t);
    LLVMTypeRef i = cg_lanes_of(f->i16, lanes);
    LLVMValueRef u = LLVMBuildZExt(B, v, i, ""), a = LLVMBuildShl(B, LLVMBuildAnd(B, u, cg_int(f, i, 0x7f), ""), cg_int(f, i, 7), "");
    LLVMValueRef sign = LLVMBuildShl(B, LLVMBuildAnd(B, u, cg_int(f, i, 0x80), ""), cg_int(f, i, 8), "");
    LLVMValueRef nan = b->unsigned_zero ? ICMP(EQ, u, cg_int(f, i, b->nan)) : ICMP(EQ, a, cg_int(f, i, b->nan << 7));
    LLVMValueRef h = LLVMBuildOr(B, SELECT(nan, cg_int(f, i, 0x7e00), a), sign, "");
    LLVMValueRef r = cg_from_storage(f, TN_F16, h, lanes);
    return LLVMBuildFMul(B, r, cg_real(f, LLVMTypeOf(r), ldexp(1, 15 - b->bias)), "");
  }
  if (ir_is_byte_float(t)) return byte_value(f, ir_byte_format_of(t), LLVMBuildZExt(B, v, cg_lanes_of(f->i32, lanes), ""));
  return v;
}

/* Rounds an f32 (or, for casts, an f64) to the grid of a float dtype, as f32 or f64 value. */
static LLVMValueRef to_grid(cg_fn *f, tn_dtype t, LLVMValueRef v, int lanes) {
  bool wide = scalar_of(LLVMTypeOf(v)) == f->f64;
  if (t == TN_F64) return wide ? v : LLVMBuildFPExt(B, v, cg_lanes_of(f->f64, lanes), "");
  if (t == TN_F32) return wide ? LLVMBuildFPTrunc(B, v, cg_lanes_of(f->f32, lanes), "") : v;
  if (wide) { /* to f32 rounded to odd, so that the second rounding gives what one would */
    LLVMTypeRef ft = cg_lanes_of(f->f32, lanes), i = cg_lanes_of(f->i32, lanes);
    LLVMValueRef n = LLVMBuildFPTrunc(B, v, ft, "");
    LLVMValueRef back = LLVMBuildFPExt(B, n, LLVMTypeOf(v), "");
    LLVMValueRef above = FCMP(OGT, call1(f, "llvm.fabs", back), call1(f, "llvm.fabs", v));
    LLVMValueRef u = LLVMBuildBitCast(B, n, i, "");
    LLVMValueRef odd = LLVMBuildSub(B, u, LLVMBuildZExt(B, above, i, ""), "");
    odd = LLVMBuildOr(B, odd, cg_int(f, i, 1), "");
    v = LLVMBuildBitCast(B, SELECT(FCMP(ONE, back, v), odd, u), ft, "");
  }
  if (t == TN_BF16) {
    LLVMTypeRef i = cg_lanes_of(f->i32, lanes);
    return LLVMBuildBitCast(B, LLVMBuildShl(B, bf16_bits(f, v), cg_int(f, i, 16), ""), cg_lanes_of(f->f32, lanes), "");
  }
  return cg_from_storage(f, t, cg_to_storage(f, t, v, lanes), lanes);
}

/* What an exact operation gave: on the grid, but for NaN and -0 of formats that have none. */
static LLVMValueRef tidy(cg_fn *f, tn_dtype t, LLVMValueRef v, int lanes) { return ir_is_byte_float(t) ? to_grid(f, t, v, lanes) : v; }

/* ---- rounding to integers without SSE4.1 ---- */

static LLVMValueRef round_soft(cg_fn *f, ir_opcode op, LLVMValueRef x) {
  LLVMTypeRef t = LLVMTypeOf(x);
  LLVMValueRef big = cg_real(f, t, scalar_of(t) == f->f64 ? 0x1p52 : 0x1p23), one = cg_real(f, t, 1);
  LLVMValueRef a = call1(f, "llvm.fabs", x);
  LLVMValueRef r = LLVMBuildFSub(B, LLVMBuildFAdd(B, a, big, ""), big, ""); /* nearest even */
  if (op == IX_TRUNC) r = SELECT(FCMP(OGT, r, a), LLVMBuildFSub(B, r, one, ""), r);
  r = copysign_of(f, r, x);
  if (op == IX_FLOOR) r = copysign_of(f, SELECT(FCMP(OGT, r, x), LLVMBuildFSub(B, r, one, ""), r), x);
  if (op == IX_CEIL) r = copysign_of(f, SELECT(FCMP(OLT, r, x), LLVMBuildFAdd(B, r, one, ""), r), x);
  return SELECT(FCMP(OLT, a, big), r, x);
}

static LLVMValueRef round_op(cg_fn *f, ir_opcode op, LLVMValueRef x) {
  if (!f->t->round) return round_soft(f, op, x);
  return call1(f, op == IX_FLOOR ? "llvm.floor" : op == IX_CEIL ? "llvm.ceil" : op == IX_TRUNC ? "llvm.trunc" : "llvm.roundeven", x);
}

/* ---- fma without the instruction ---- */

/* The product of two f32 is exact in f64; the sum is rounded to odd there (the error
 * of the addition by Knuth's TwoSum), so that the last rounding is the only one. */
static LLVMValueRef fma_soft(cg_fn *f, LLVMValueRef a, LLVMValueRef b, LLVMValueRef c) {
  LLVMTypeRef t = LLVMTypeOf(a), d = like(t, f->f64), i = like(t, f->i64);
  LLVMValueRef p = LLVMBuildFMul(B, LLVMBuildFPExt(B, a, d, ""), LLVMBuildFPExt(B, b, d, ""), "");
  LLVMValueRef z = LLVMBuildFPExt(B, c, d, ""), s = LLVMBuildFAdd(B, p, z, "");
  LLVMValueRef zz = LLVMBuildFSub(B, s, p, "");
  LLVMValueRef e1 = LLVMBuildFSub(B, p, LLVMBuildFSub(B, s, zz, ""), ""), e2 = LLVMBuildFSub(B, z, zz, "");
  LLVMValueRef err = LLVMBuildFAdd(B, e1, e2, ""), zero = cg_real(f, d, 0);
  LLVMValueRef u = LLVMBuildBitCast(B, s, i, "");
  /* the exact sum lies towards zero of s when the error's sign differs from that of s */
  LLVMValueRef opposite = LLVMBuildXor(B, FCMP(OLT, err, zero), FCMP(OLT, s, zero), "");
  LLVMValueRef even = ICMP(EQ, LLVMBuildAnd(B, u, cg_int(f, i, 1), ""), cg_int(f, i, 0));
  LLVMValueRef odd = LLVMBuildSub(B, u, LLVMBuildZExt(B, opposite, i, ""), "");
  odd = LLVMBuildOr(B, odd, cg_int(f, i, 1), "");
  LLVMValueRef inexact = LLVMBuildAnd(B, FCMP(ONE, err, zero), even, "");
  return LLVMBuildFPTrunc(B, LLVMBuildBitCast(B, SELECT(inexact, odd, u), d, ""), t, "");
}

static LLVMValueRef fma_op(cg_fn *f, LLVMValueRef *a) {
  if (!f->t->fma && scalar_of(LLVMTypeOf(a[0])) == f->f32) return fma_soft(f, a[0], a[1], a[2]);
  return cg_intrinsic(f, "llvm.fma", LLVMTypeOf(a[0]), NULL, 3, a);
}

/* ---- integers ---- */

static bool const_int(LLVMValueRef v, int64_t *out) {
  if (LLVMIsAConstantInt(v)) {
    *out = LLVMConstIntGetSExtValue(v);
    return true;
  }
  if (LLVMGetTypeKind(LLVMTypeOf(v)) != LLVMVectorTypeKind || !LLVMIsConstant(v)) return false;
  int64_t first = 0, x;
  for (unsigned i = 0; i < LLVMGetVectorSize(LLVMTypeOf(v)); i++) {
    LLVMValueRef item = LLVMGetAggregateElement(v, i);
    if (!item || !LLVMIsAConstantInt(item)) return false;
    x = LLVMConstIntGetSExtValue(item);
    if (i && x != first) return false;
    first = x;
  }
  *out = first;
  return true;
}

/* Division by truncation, total: x div 0 = 0, x rem 0 = x, MIN div -1 = MIN. */
static LLVMValueRef divide(cg_fn *f, bool rem, bool sign, LLVMValueRef a, LLVMValueRef b) {
  LLVMTypeRef t = LLVMTypeOf(a);
  LLVMValueRef zero = cg_int(f, t, 0), one = cg_int(f, t, 1), minus = cg_int(f, t, -1);
  int64_t k;
  bool known = const_int(b, &k);
  if (known && k == 0) return rem ? a : zero;
  if (known && sign && k == -1) return rem ? zero : LLVMBuildSub(B, zero, a, "");
  LLVMValueRef is0 = NULL, is1 = NULL, by = b;
  if (!known) {
    is0 = ICMP(EQ, b, zero);
    LLVMValueRef bad = is0;
    if (sign) {
      is1 = ICMP(EQ, b, minus);
      bad = LLVMBuildOr(B, is0, is1, "");
    }
    by = SELECT(bad, one, b);
  }
  LLVMValueRef r = sign ? (rem ? LLVMBuildSRem(B, a, by, "") : LLVMBuildSDiv(B, a, by, ""))
                        : (rem ? LLVMBuildURem(B, a, by, "") : LLVMBuildUDiv(B, a, by, ""));
  if (is1 && !rem) r = SELECT(is1, LLVMBuildSub(B, zero, a, ""), r); /* rem 1 = 0 = rem -1 */
  if (is0) r = SELECT(is0, rem ? a : zero, r);
  return r;
}

static LLVMValueRef shift(cg_fn *f, tn_dtype t, bool left, LLVMValueRef a, LLVMValueRef n) {
  LLVMTypeRef ty = LLVMTypeOf(a);
  int bits = ir_dtype_bits(t);
  LLVMValueRef in = ICMP(ULT, n, cg_int(f, ty, bits)), last = cg_int(f, ty, bits - 1);
  if (!left && ir_is_signed(t)) return LLVMBuildAShr(B, a, SELECT(in, n, last), "");
  LLVMValueRef by = LLVMBuildAnd(B, n, last, "");
  LLVMValueRef r = left ? LLVMBuildShl(B, a, by, "") : LLVMBuildLShr(B, a, by, "");
  return SELECT(in, r, cg_int(f, ty, 0));
}

LLVMValueRef cg_binary(cg_fn *f, ir_opcode op, tn_dtype t, LLVMValueRef a, LLVMValueRef b, int lanes) {
  if (ir_is_float(t)) {
    LLVMValueRef r;
    switch (op) {
    case IX_ADD: r = LLVMBuildFAdd(B, a, b, ""); break;
    case IX_SUB: r = LLVMBuildFSub(B, a, b, ""); break;
    case IX_MUL: r = LLVMBuildFMul(B, a, b, ""); break;
    case IX_DIV: r = LLVMBuildFDiv(B, a, b, ""); break;
    case IX_REM: return tidy(f, t, LLVMBuildFRem(B, a, b, ""), lanes); /* exact; fmod of libm */
    case IX_MIN: return SELECT(FCMP(OLT, a, b), a, b);
    case IX_MAX: return SELECT(FCMP(OGT, a, b), a, b);
    case IX_LT: return FCMP(OLT, a, b);
    case IX_LE: return FCMP(OLE, a, b);
    case IX_EQ: return FCMP(OEQ, a, b);
    case IX_NE: return FCMP(UNE, a, b);
    default: ir_bug(f->ctx, "%s is not defined on %s", ix_info[op].name, ir_dtype_name(t));
    }
    return ir_is_narrow_float(t) ? to_grid(f, t, r, lanes) : r;
  }
  bool sign = ir_is_signed(t);
  switch (op) {
  case IX_ADD: return LLVMBuildAdd(B, a, b, "");
  case IX_SUB: return LLVMBuildSub(B, a, b, "");
  case IX_MUL: return LLVMBuildMul(B, a, b, "");
  case IX_DIV: return divide(f, false, sign, a, b);
  case IX_REM: return divide(f, true, sign, a, b);
  case IX_MIN: return SELECT(sign ? ICMP(SLT, a, b) : ICMP(ULT, a, b), a, b);
  case IX_MAX: return SELECT(sign ? ICMP(SGT, a, b) : ICMP(UGT, a, b), a, b);
  case IX_AND: return LLVMBuildAnd(B, a, b, "");
  case IX_OR: return LLVMBuildOr(B, a, b, "");
  case IX_XOR: return LLVMBuildXor(B, a, b, "");
  case IX_SHL: return shift(f, t, true, a, b);
  case IX_SHR: return shift(f, t, false, a, b);
  case IX_LT: return sign ? ICMP(SLT, a, b) : ICMP(ULT, a, b);
  case IX_LE: return sign ? ICMP(SLE, a, b) : ICMP(ULE, a, b);
  case IX_EQ: return ICMP(EQ, a, b);
  case IX_NE: return ICMP(NE, a, b);
  default: ir_bug(f->ctx, "%s is not defined on %s", ix_info[op].name, ir_dtype_name(t));
  }
}

/* Floor division and modulo of index values; both operands have the type of `a`. */
static LLVMValueRef index_divide(cg_fn *f, ix e, LLVMValueRef a, LLVMValueRef b) {
  bool rem = e->op == IX_REM;
  LLVMTypeRef t = LLVMTypeOf(a);
  int64_t k;
  if (const_int(b, &k) && k > 0 && (k & (k - 1)) == 0) {
    if (rem) return LLVMBuildAnd(B, a, cg_int(f, t, k - 1), "");
    return LLVMBuildAShr(B, a, cg_int(f, t, __builtin_ctzll((unsigned long long)k)), "");
  }
  if (e->args[0]->lo >= 0 && e->args[1]->lo > 0) return divide(f, rem, false, a, b);
  LLVMValueRef zero = cg_int(f, t, 0), r = divide(f, true, true, a, b);
  /* adjust where the remainder is not 0 and its sign is not the divisor's */
  LLVMValueRef off = LLVMBuildAnd(B, ICMP(NE, r, zero), ICMP(SLT, LLVMBuildXor(B, r, b, ""), zero), "");
  off = LLVMBuildAnd(B, off, ICMP(NE, b, zero), "");
  if (rem) return SELECT(off, LLVMBuildAdd(B, r, b, ""), r);
  LLVMValueRef q = divide(f, false, true, a, b);
  return SELECT(off, LLVMBuildSub(B, q, cg_int(f, t, 1), ""), q);
}

/* ---- conversions ---- */

static LLVMValueRef resize(cg_fn *f, LLVMValueRef v, LLVMTypeRef to, bool sign) {
  unsigned from = LLVMGetIntTypeWidth(scalar_of(LLVMTypeOf(v))), n = LLVMGetIntTypeWidth(scalar_of(to));
  if (n == from) return v;
  if (n < from) return LLVMBuildTrunc(B, v, to, "");
  return sign ? LLVMBuildSExt(B, v, to, "") : LLVMBuildZExt(B, v, to, "");
}

/* min(max(x, lo), hi) between constants that an i32 can be: never NaN, so it needs no saturation. */
static bool fits_i32(ix e) {
  if (e->op != IX_MIN || e->args[0]->op != IX_MAX || e->args[1]->op != IX_CONST || e->args[0]->args[1]->op != IX_CONST) return false;
  double lo = e->args[0]->args[1]->u.f, hi = e->args[1]->u.f;
  return lo >= INT32_MIN && hi <= INT32_MAX && lo <= hi;
}

/* f32 -> i32, saturating, NaN -> 0: LLVM takes vectors apart for its intrinsic. */
static LLVMValueRef saturated(cg_fn *f, LLVMValueRef v, LLVMTypeRef want) {
  LLVMTypeRef have = LLVMTypeOf(v);
  LLVMValueRef r = LLVMBuildFPToSI(B, v, want, "");
  r = SELECT(FCMP(OLT, v, cg_real(f, have, -0x1p31)), cg_int(f, want, INT32_MIN), r);
  r = SELECT(FCMP(OGE, v, cg_real(f, have, 0x1p31)), cg_int(f, want, INT32_MAX), r);
  return SELECT(FCMP(UNO, v, v), cg_int(f, want, 0), r);
}

static LLVMValueRef cast(cg_fn *f, tn_dtype to, tn_dtype from, LLVMValueRef v, LLVMTypeRef want, int lanes) {
  LLVMTypeRef have = LLVMTypeOf(v);
  if (to == TN_BOOL)
    return ir_is_float(from) ? FCMP(UNE, v, cg_real(f, have, 0)) : from == TN_BOOL ? v : ICMP(NE, v, cg_int(f, have, 0));
  if (ir_is_float(to)) {
    if (ir_is_float(from)) return to_grid(f, to, v, lanes);
    LLVMTypeRef ft = cg_lanes_of(to == TN_F64 ? f->f64 : f->f32, lanes);
    if (from == TN_BOOL) return SELECT(v, cg_real(f, ft, 1), cg_real(f, ft, 0));
    LLVMValueRef r = ir_is_signed(from) ? LLVMBuildSIToFP(B, v, ft, "") : LLVMBuildUIToFP(B, v, ft, "");
    return to_grid(f, to, r, lanes);
  }
  if (ir_is_float(from))
    return cg_intrinsic(f, ir_is_signed(to) ? "llvm.fptosi.sat" : "llvm.fptoui.sat", want, have, 1, &v);
  return resize(f, v, want, ir_is_signed(from));
}

static LLVMValueRef bitcast(cg_fn *f, tn_dtype to, tn_dtype from, LLVMValueRef v, int lanes) {
  v = cg_to_storage(f, from, v, lanes);
  return cg_from_storage(f, to, LLVMBuildBitCast(B, v, cg_storage_type(f, to, lanes), ""), lanes);
}

/* ---- one node ---- */

static LLVMValueRef index_op(cg_fn *f, ix e, LLVMValueRef *args, int lanes) {
  LLVMTypeRef t = f->i64;
  if (lanes > 1) {
    bool small = e->dtype != TN_INDEX || cg_narrow(e);
    for (int i = e->op == IX_SELECT; i < e->nargs; i++) small = small && cg_narrow(e->args[i]);
    if (small) t = f->i32;
  }
  t = cg_lanes_of(t, lanes);
  for (int i = e->op == IX_SELECT; i < e->nargs; i++) args[i] = resize(f, args[i], t, true);
  switch ((ir_opcode)e->op) {
  case IX_NEG: return LLVMBuildSub(B, cg_int(f, t, 0), args[0], "");
  case IX_ABS: return SELECT(ICMP(SLT, args[0], cg_int(f, t, 0)), LLVMBuildSub(B, cg_int(f, t, 0), args[0], ""), args[0]);
  case IX_NOT: return LLVMBuildNot(B, args[0], "");
  case IX_DIV: case IX_REM: return index_divide(f, e, args[0], args[1]);
  case IX_SELECT: return SELECT(args[0], args[1], args[2]);
  case IX_SHL: case IX_SHR: { /* the width is 64 whatever the lanes are held in */
    LLVMTypeRef wide = cg_lanes_of(f->i64, lanes);
    return shift(f, TN_INDEX, e->op == IX_SHL, resize(f, args[0], wide, true), resize(f, args[1], wide, true));
  }
  default: return cg_binary(f, (ir_opcode)e->op, TN_INDEX, args[0], args[1], lanes);
  }
}

/* Bounds of a rounded number between constants, also moved by a constant: whether e is one. */
static bool rounded_range(ix e, double *lo, double *hi) {
  for (int k = 0; k < 2 && e->op == IX_ADD && e->dtype == TN_I32; k++)
    if (e->args[k]->op == IX_CONST && rounded_range(e->args[!k], lo, hi)) {
      *lo += (double)e->args[k]->u.i, *hi += (double)e->args[k]->u.i;
      return *lo >= INT32_MIN && *hi <= INT32_MAX;
    }
  if (e->op != IX_CAST || e->dtype != TN_I32 || e->args[0]->op != IX_ROUND || !fits_i32(e->args[0]->args[0])) return false;
  ix most = e->args[0]->args[0];
  *lo = nearbyint(most->args[0]->args[1]->u.f), *hi = nearbyint(most->args[1]->u.f);
  return true;
}

/* Rounded numbers that are known to fit the narrower type, seen through u8: LLVM is told, and packs with saturation. */
static LLVMValueRef narrowed(cg_fn *f, ix e, LLVMValueRef v, LLVMTypeRef want) {
  double lo, hi;
  ix from = e->args[0], whole = from->op == IX_CAST && from->dtype == TN_U8 ? from->args[0] : from;
  if ((e->dtype != TN_U8 && e->dtype != TN_I16) || !rounded_range(whole, &lo, &hi) || lo < 0 || hi > 255) return NULL;
  if (whole != from) {
    if (!LLVMIsATruncInst(v)) return NULL;
    v = LLVMGetOperand(v, 0);
  }
  LLVMValueRef r = LLVMBuildTrunc(B, v, want, "");
  if (LLVMIsAInstruction(r)) LLVMSetNUW(r, true), LLVMSetNSW(r, e->dtype == TN_I16);
  return r;
}

LLVMValueRef cg_op(cg_fn *f, ix e, LLVMValueRef *args, int lanes) {
  tn_dtype to = (tn_dtype)e->dtype, t = (tn_dtype)e->args[e->op == IX_SELECT]->dtype;
  if (e->op == IX_CAST) {
    LLVMTypeRef want = cg_lanes_of(to == TN_INDEX && lanes > 1 && cg_narrow(e) && !ir_is_float(t) ? f->i32 : element(f, to), lanes);
    ix rounded = e->args[0]->op == IX_ROUND ? e->args[0]->args[0] : NULL;
    if (t == TN_F32 && to == TN_I32 && fits_i32(rounded ? rounded : e->args[0])) {
      bool one = rounded && lanes > 1 && f->t->arch == CG_X86_64 && LLVMIsACallInst(args[0]); /* cvtps2dq rounds by itself */
      LLVMValueRef x = one ? LLVMGetOperand(args[0], 0) : NULL;
      return one ? cg_intrinsic(f, "llvm.lrint", want, LLVMTypeOf(x), 1, &x) : LLVMBuildFPToSI(B, args[0], want, "");
    }
    LLVMValueRef narrow = lanes > 1 ? narrowed(f, e, args[0], want) : NULL;
    if (narrow) return narrow;
    return t == TN_F32 && to == TN_I32 && lanes > 1 ? saturated(f, args[0], want) : cast(f, to, t, args[0], want, lanes);
  }
  if (e->op == IX_BITCAST) return bitcast(f, to, t, args[0], lanes);
  if (t == TN_INDEX) return index_op(f, e, args, lanes);
  LLVMTypeRef ty = LLVMTypeOf(args[0]);
  switch ((ir_opcode)e->op) {
  case IX_SELECT: return SELECT(args[0], args[1], args[2]);
  case IX_NEG: return ir_is_float(t) ? tidy(f, t, LLVMBuildFNeg(B, args[0], ""), lanes) : LLVMBuildNeg(B, args[0], "");
  case IX_ABS:
    if (ir_is_float(t)) return call1(f, "llvm.fabs", args[0]);
    if (!ir_is_signed(t)) return args[0];
    return SELECT(ICMP(SLT, args[0], cg_int(f, ty, 0)), LLVMBuildNeg(B, args[0], ""), args[0]);
  case IX_NOT: return LLVMBuildNot(B, args[0], "");
  case IX_SQRT: return to_grid(f, t, call1(f, "llvm.sqrt", args[0]), lanes);
  case IX_FLOOR: case IX_CEIL: case IX_ROUND: case IX_TRUNC: return tidy(f, t, round_op(f, (ir_opcode)e->op, args[0]), lanes);
  case IX_FMA: return to_grid(f, t, fma_op(f, args), lanes);
  default: {
    LLVMValueRef words = cg_mul_words(f, e, args, lanes);
    if (words) return words;
    if (e->nargs == 2) return cg_binary(f, (ir_opcode)e->op, t, args[0], args[1], lanes);
    ir_bug(f->ctx, "%s has no emission", ix_info[e->op].name);
  }
  }
}
