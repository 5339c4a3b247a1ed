/* cuda_ops.c — one scalar operation as CUDA C, with the meaning that ir/scalar_ops.h gives it.
 *
 * Compiled with -fmad=false, so plain + - * / are single IEEE operations. Values of narrow floats are floats
 * that hold them exactly; small integers are ints. What C leaves undefined goes through a helper function. */
#include "codegen/cuda_internal.h"
#include <math.h>
#include <string.h>

const char *cu_c_type(tn_dtype t) {
  static const char *const names[TN_DTYPE_COUNT] = {
      [TN_BOOL] = "bool", [TN_I8] = "int", [TN_I16] = "int", [TN_I32] = "int", [TN_I64] = "long long", [TN_U8] = "unsigned",
      [TN_U16] = "unsigned", [TN_U32] = "unsigned", [TN_U64] = "unsigned long long", [TN_F16] = "float", [TN_BF16] = "float",
      [TN_F32] = "float", [TN_F64] = "double", [TN_INDEX] = "long long"};
  return ir_is_byte_float(t) ? "float" : names[t];
}

const char *cu_storage_type(tn_dtype t) {
  static const char *const names[TN_DTYPE_COUNT] = {
      [TN_BOOL] = "unsigned char", [TN_I8] = "signed char", [TN_I16] = "short", [TN_I32] = "int", [TN_I64] = "long long",
      [TN_U8] = "unsigned char", [TN_U16] = "unsigned short", [TN_U32] = "unsigned", [TN_U64] = "unsigned long long",
      [TN_F16] = "unsigned short", [TN_BF16] = "unsigned short", [TN_F32] = "float", [TN_F64] = "double", [TN_INDEX] = "long long"};
  return ir_is_byte_float(t) ? "unsigned char" : names[t];
}

bool cu_narrow(ix e) { return e->dtype == TN_INDEX && e->lo >= INT32_MIN + 1 && e->hi <= INT32_MAX; }

static const char *type_of(ix e) { return cu_narrow(e) ? "int" : cu_c_type((tn_dtype)e->dtype); }

static const char *float_literal(tn_ctx *ctx, tn_dtype t, double v) {
  bool wide = t == TN_F64;
  if (isnan(v)) return wide ? "__longlong_as_double(0x7ff8000000000000ll)" : "__int_as_float(0x7fc00000)";
  if (isinf(v)) {
    if (wide) return v > 0 ? "__longlong_as_double(0x7ff0000000000000ll)" : "__longlong_as_double(0xfff0000000000000ll)";
    return v > 0 ? "__int_as_float(0x7f800000)" : "__int_as_float(0xff800000)";
  }
  char *s = ir_format(ctx, wide ? "%.17g" : "%.9g", v);
  if (!strpbrk(s, ".e")) s = ir_format(ctx, "%s.0", s);
  return ir_format(ctx, v < 0 || signbit(v) ? "(%s%s)" : "%s%s", s, wide ? "" : "f");
}

const char *cu_literal(tn_ctx *ctx, ix e) {
  tn_dtype t = (tn_dtype)e->dtype;
  if (ir_is_float(t)) return float_literal(ctx, t, e->u.f);
  long long v = (long long)e->u.i;
  if (t == TN_BOOL) return v ? "true" : "false";
  if (t == TN_U64) return ir_format(ctx, "%lluull", (unsigned long long)v);
  if (ir_is_unsigned(t)) return ir_format(ctx, "%lluu", (unsigned long long)v);
  bool narrow = t == TN_INDEX ? cu_narrow(e) : ir_dtype_bits(t) <= 32;
  if (v == INT64_MIN) return "(-9223372036854775807ll - 1)";
  if (narrow && v == INT32_MIN) return "(-2147483647 - 1)";
  return ir_format(ctx, v < 0 ? "(%lld%s)" : "%lld%s", v, narrow ? "" : "ll");
}

/* ---- helper functions ---- */

static const struct {
  const char *name, *text; /* text: its definition; needs only helpers further up in the table */
} helpers[] = {
    {"tn_f16", "__device__ __forceinline__ unsigned short tn_f16(float x) { unsigned short r; asm(\"cvt.rn.f16.f32 %0, %1;\" : \"=h\"(r) : \"f\"(x)); return r; }\n"},
    {"tn_from_f16", "__device__ __forceinline__ float tn_from_f16(unsigned short x) { float r; asm(\"cvt.f32.f16 %0, %1;\" : \"=f\"(r) : \"h\"(x)); return r; }\n"},
    {"tn_bf16", "__device__ __forceinline__ unsigned short tn_bf16(float x) { unsigned short r; asm(\"cvt.rn.bf16.f32 %0, %1;\" : \"=h\"(r) : \"f\"(x)); return r; }\n"},
    {"tn_from_bf16", "__device__ __forceinline__ float tn_from_bf16(unsigned short x) { return __uint_as_float((unsigned)x << 16); }\n"},
    {"tn_odd", /* to odd: what is rounded again afterwards is rounded once in all */
     "__device__ __forceinline__ float tn_odd(double x) { float f = __double2float_rz(x); return (double)f == x || x != x ? f : "
     "__uint_as_float(__float_as_uint(f) | 1u); }\n"},
    {"tn_f32_int",
     "__device__ __forceinline__ int tn_f32_int(float x, int lo, int hi) { int r = __float2int_rz(x); r = r < lo ? lo : r > hi ? hi : r; return x != x ? 0 : r; }\n"},
    {"tn_f64_int",
     "__device__ __forceinline__ int tn_f64_int(double x, int lo, int hi) { int r = __double2int_rz(x); r = r < lo ? lo : r > hi ? hi : r; return x != x ? 0 : r; }\n"},
    {"tn_f32_uint", "__device__ __forceinline__ unsigned tn_f32_uint(float x, unsigned hi) { unsigned r = __float2uint_rz(x); r = r > hi ? hi : r; return x > 0 ? r : 0u; }\n"},
    {"tn_f64_uint", "__device__ __forceinline__ unsigned tn_f64_uint(double x, unsigned hi) { unsigned r = __double2uint_rz(x); r = r > hi ? hi : r; return x > 0 ? r : 0u; }\n"},
    {"tn_f64_ll", "__device__ __forceinline__ long long tn_f64_ll(double x) { return x != x ? 0 : __double2ll_rz(x); }\n"},
    {"tn_f64_ull", "__device__ __forceinline__ unsigned long long tn_f64_ull(double x) { return x > 0 ? __double2ull_rz(x) : 0; }\n"},
    {"tn_sdiv", "__device__ __forceinline__ long long tn_sdiv(long long a, long long b) { return b == 0 ? 0 : b == -1 ? (long long)(0 - (unsigned long long)a) : a / b; }\n"},
    {"tn_srem", "__device__ __forceinline__ long long tn_srem(long long a, long long b) { return b == 0 ? a : b == -1 ? 0 : a % b; }\n"},
    {"tn_sdiv32", "__device__ __forceinline__ int tn_sdiv32(int a, int b) { return b == 0 ? 0 : b == -1 ? (int)(0u - (unsigned)a) : a / b; }\n"},
    {"tn_srem32", "__device__ __forceinline__ int tn_srem32(int a, int b) { return b == 0 ? a : b == -1 ? 0 : a % b; }\n"},
    {"tn_floor_div", "__device__ __forceinline__ long long tn_floor_div(long long a, long long b) { if (b == 0) return 0; if (b == -1) return (long long)(0 - (unsigned long long)a); "
                     "long long q = a / b; return a % b != 0 && (a < 0) != (b < 0) ? q - 1 : q; }\n"},
    {"tn_floor_rem", "__device__ __forceinline__ long long tn_floor_rem(long long a, long long b) { if (b == 0) return a; if (b == -1) return 0; "
                     "long long r = a % b; return r != 0 && (r < 0) != (b < 0) ? r + b : r; }\n"},
    {"tn_shl", "__device__ __forceinline__ unsigned long long tn_shl(unsigned long long a, unsigned long long n, unsigned bits) { return n >= bits ? 0 : a << n; }\n"},
    {"tn_shr", "__device__ __forceinline__ unsigned long long tn_shr(unsigned long long a, unsigned long long n, unsigned bits) { return n >= bits ? 0 : a >> n; }\n"},
    {"tn_sar", "__device__ __forceinline__ long long tn_sar(long long a, unsigned long long n, unsigned bits) { return a >> (n >= bits ? 63 : n); }\n"},
    {"tn_pack_f16", "__device__ __forceinline__ unsigned tn_pack_f16(float lo, float hi) { unsigned r; asm(\"cvt.rn.f16x2.f32 %0, %1, %2;\" : \"=r\"(r) : \"f\"(hi), \"f\"(lo)); return r; }\n"},
    {"tn_pack_bf16", "__device__ __forceinline__ unsigned tn_pack_bf16(float lo, float hi) { unsigned r; asm(\"cvt.rn.bf16x2.f32 %0, %1, %2;\" : \"=r\"(r) : \"f\"(hi), \"f\"(lo)); return r; }\n"},
    {"tn_load4", "__device__ __forceinline__ void tn_load4(void *to, const void *from) { unsigned v = *(const unsigned *)from; memcpy(to, &v, 4); }\n"},
    {"tn_store4", "__device__ __forceinline__ void tn_store4(void *to, const void *from) { unsigned v; memcpy(&v, from, 4); *(unsigned *)to = v; }\n"},
    {"tn_load8", "__device__ __forceinline__ void tn_load8(void *to, const void *from) { uint2 v = *(const uint2 *)from; memcpy(to, &v, 8); }\n"},
    {"tn_store8", "__device__ __forceinline__ void tn_store8(void *to, const void *from) { uint2 v; memcpy(&v, from, 8); *(uint2 *)to = v; }\n"},
    {"tn_load16", "__device__ __forceinline__ void tn_load16(void *to, const void *from) { uint4 v = *(const uint4 *)from; memcpy(to, &v, 16); }\n"},
    {"tn_store16", "__device__ __forceinline__ void tn_store16(void *to, const void *from) { uint4 v; memcpy(&v, from, 16); *(uint4 *)to = v; }\n"},
    {"tn_copy4", "__device__ __forceinline__ void tn_copy4(void *to, const void *from) { asm volatile(\"cp.async.ca.shared.global [%0], [%1], 4;\" :: \"r\"((unsigned)__cvta_generic_to_shared(to)), \"l\"(from) : \"memory\"); }\n"},
    {"tn_copy8", "__device__ __forceinline__ void tn_copy8(void *to, const void *from) { asm volatile(\"cp.async.ca.shared.global [%0], [%1], 8;\" :: \"r\"((unsigned)__cvta_generic_to_shared(to)), \"l\"(from) : \"memory\"); }\n"},
    {"tn_copy16", "__device__ __forceinline__ void tn_copy16(void *to, const void *from) { asm volatile(\"cp.async.cg.shared.global [%0], [%1], 16;\" :: \"r\"((unsigned)__cvta_generic_to_shared(to)), \"l\"(from) : \"memory\"); }\n"},
    {"tn_copy_commit", "__device__ __forceinline__ void tn_copy_commit() { asm volatile(\"cp.async.commit_group;\" ::: \"memory\"); }\n"},
    {"tn_copy_wait", "template <int N> __device__ __forceinline__ void tn_copy_wait() { asm volatile(\"cp.async.wait_group %0;\" :: \"n\"(N) : \"memory\"); }\n"},
    {"tn_ldmatrix4", "__device__ __forceinline__ void tn_ldmatrix4(unsigned *d, const void *p) { asm volatile(\"ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\" : "
     "\"=r\"(d[0]), \"=r\"(d[1]), \"=r\"(d[2]), \"=r\"(d[3]) : \"r\"((unsigned)__cvta_generic_to_shared(p)) : \"memory\"); }\n"},
    {"tn_ldmatrix4t", "__device__ __forceinline__ void tn_ldmatrix4t(unsigned *d, const void *p) { asm volatile(\"ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\" : "
     "\"=r\"(d[0]), \"=r\"(d[1]), \"=r\"(d[2]), \"=r\"(d[3]) : \"r\"((unsigned)__cvta_generic_to_shared(p)) : \"memory\"); }\n"},
    {"tn_stmatrix4", /* sm_90 on */
     "__device__ __forceinline__ void tn_stmatrix4(void *p, const unsigned short *v) { asm volatile(\"{ .reg .b32 a, b, c, d; mov.b32 a, {%1, %2}; mov.b32 b, {%3, %4}; mov.b32 c, {%5, %6}; mov.b32 d, {%7, %8}; "
     "stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {a, b, c, d}; }\" :: \"r\"((unsigned)__cvta_generic_to_shared(p)), \"h\"(v[0]), \"h\"(v[1]), \"h\"(v[2]), \"h\"(v[3]), \"h\"(v[4]), \"h\"(v[5]), \"h\"(v[6]), \"h\"(v[7]) : \"memory\"); }\n"},
    {"tn_mma_f16", "__device__ __forceinline__ void tn_mma_f16(float *c, const unsigned *a, const unsigned *b) { asm volatile(\"mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\" : "
     "\"+f\"(c[0]), \"+f\"(c[1]), \"+f\"(c[2]), \"+f\"(c[3]) : \"r\"(a[0]), \"r\"(a[1]), \"r\"(a[2]), \"r\"(a[3]), \"r\"(b[0]), \"r\"(b[1])); }\n"},
    {"tn_mma_bf16", "__device__ __forceinline__ void tn_mma_bf16(float *c, const unsigned *a, const unsigned *b) { asm volatile(\"mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\" : "
     "\"+f\"(c[0]), \"+f\"(c[1]), \"+f\"(c[2]), \"+f\"(c[3]) : \"r\"(a[0]), \"r\"(a[1]), \"r\"(a[2]), \"r\"(a[3]), \"r\"(b[0]), \"r\"(b[1])); }\n"},
    {"tn_mma_s8", "__device__ __forceinline__ void tn_mma_s8(int *c, const unsigned *a, const unsigned *b) { asm volatile(\"mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\" : "
     "\"+r\"(c[0]), \"+r\"(c[1]), \"+r\"(c[2]), \"+r\"(c[3]) : \"r\"(a[0]), \"r\"(a[1]), \"r\"(a[2]), \"r\"(a[3]), \"r\"(b[0]), \"r\"(b[1])); }\n"},
    {"tn_mma_tf32", /* operands rounded to nearest: the instruction would cut them off */
     "__device__ __forceinline__ unsigned tn_to_tf32(unsigned x) { unsigned r; asm(\"cvt.rna.tf32.f32 %0, %1;\" : \"=r\"(r) : \"f\"(__uint_as_float(x))); return r; }\n"
     "__device__ __forceinline__ void tn_mma_tf32(float *c, const unsigned *a, const unsigned *b) { asm volatile(\"mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\" : "
     "\"+f\"(c[0]), \"+f\"(c[1]), \"+f\"(c[2]), \"+f\"(c[3]) : \"r\"(tn_to_tf32(a[0])), \"r\"(tn_to_tf32(a[1])), \"r\"(tn_to_tf32(a[2])), \"r\"(tn_to_tf32(a[3])), \"r\"(tn_to_tf32(b[0])), \"r\"(tn_to_tf32(b[1]))); }\n"},
    {"tn_tile", /* 128-byte swizzle, rows of 128 bytes: eight of them 1024 bytes on */
     "__device__ __forceinline__ unsigned long long tn_tile(const void *p) { return (unsigned long long)(((unsigned)__cvta_generic_to_shared(p) & 0x3ffffu) >> 4) | 1ull << 16 | 64ull << 32 | 1ull << 62; }\n"},
    {"tn_tile_columns", /* the same, read across: eight rows 1024 bytes on, the next 64 columns so many */
     "__device__ __forceinline__ unsigned long long tn_tile_columns(const void *p, int next) { return (unsigned long long)(((unsigned)__cvta_generic_to_shared(p) & 0x3ffffu) >> 4) | (unsigned long long)(next >> 4) << 16 | 64ull << 32 | 1ull << 62; }\n"},
    {"tn_hold", "template <int N> __device__ __forceinline__ void tn_hold(float *c) {\n#pragma unroll\n  for (int i = 0; i < N; i++) asm volatile(\"\" : \"+f\"(c[i]) :: \"memory\");\n}\n"},
    {"tn_settle", /* ptxas counts conversions of sums that are stored at once as read before the wait, and serialises the products; behind a fence it does not */
     "__device__ __forceinline__ void tn_settle() { asm volatile(\"fence.acq_rel.cta;\" ::: \"memory\"); }\n"},
    {"tn_exp2", "__device__ __forceinline__ float tn_exp2(float x) { float r; asm(\"ex2.approx.ftz.f32 %0, %1;\" : \"=f\"(r) : \"f\"(x)); return r; }\n"},
    {"tn_wgmma_fence", "__device__ __forceinline__ void tn_wgmma_fence() { asm volatile(\"wgmma.fence.sync.aligned;\" ::: \"memory\"); }\n"},
    {"tn_wgmma_commit", "__device__ __forceinline__ void tn_wgmma_commit() { asm volatile(\"wgmma.commit_group.sync.aligned;\" ::: \"memory\"); }\n"},
    {"tn_wgmma_wait", "template <int N> __device__ __forceinline__ void tn_wgmma_wait() { asm volatile(\"wgmma.wait_group.sync.aligned %0;\" :: \"n\"(N) : \"memory\"); }\n"},
    {"tn_mbar_init", "__device__ __forceinline__ void tn_mbar_init(void *b, int n) { asm volatile(\"mbarrier.init.shared::cta.b64 [%0], %1;\" :: \"r\"((unsigned)__cvta_generic_to_shared(b)), \"r\"(n) : \"memory\"); }\n"},
    {"tn_mbar_expect", "__device__ __forceinline__ void tn_mbar_expect(void *b, int n) { asm volatile(\"mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\" :: \"r\"((unsigned)__cvta_generic_to_shared(b)), \"r\"(n) : \"memory\"); }\n"},
    {"tn_mbar_arrive", "__device__ __forceinline__ void tn_mbar_arrive(void *b) { asm volatile(\"mbarrier.arrive.shared::cta.b64 _, [%0];\" :: \"r\"((unsigned)__cvta_generic_to_shared(b)) : \"memory\"); }\n"},
    {"tn_mbar_wait", "__device__ __forceinline__ void tn_mbar_wait(void *b, int parity) { asm volatile(\"{ .reg .pred p; again: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1; @p bra over; bra again; over: }\" :: \"r\"((unsigned)__cvta_generic_to_shared(b)), \"r\"(parity) : \"memory\"); }\n"},
    {"tn_mbar_arrive_remote", "__device__ __forceinline__ void tn_mbar_arrive_remote(void *b, int block) { asm volatile(\"{ .reg .b32 a; mapa.shared::cluster.u32 a, %0, %1; mbarrier.arrive.release.cluster.shared::cluster.b64 _, [a]; }\" :: \"r\"((unsigned)__cvta_generic_to_shared(b)), \"r\"(block) : \"memory\"); }\n"},
    {"tn_cluster_sync", "__device__ __forceinline__ void tn_cluster_sync() { asm volatile(\"barrier.cluster.arrive.release; barrier.cluster.wait.acquire;\" ::: \"memory\"); }\n"},
    {"tn_fence_init", "__device__ __forceinline__ void tn_fence_init() { asm volatile(\"fence.mbarrier_init.release.cluster;\" ::: \"memory\"); }\n"},
    {"tn_registers_more", "template <int N> __device__ __forceinline__ void tn_registers_more() { asm volatile(\"setmaxnreg.inc.sync.aligned.u32 %0;\" :: \"n\"(N)); }\n"},
    {"tn_registers_less", "template <int N> __device__ __forceinline__ void tn_registers_less() { asm volatile(\"setmaxnreg.dec.sync.aligned.u32 %0;\" :: \"n\"(N)); }\n"},
    {"tn_group_sync", "__device__ __forceinline__ void tn_group_sync() { asm volatile(\"bar.sync %0, 128;\" :: \"r\"(threadIdx.x / 128u + 1u) : \"memory\"); }\n"},
    {"tn_bulk_commit", "__device__ __forceinline__ void tn_bulk_commit() { asm volatile(\"cp.async.bulk.commit_group;\" ::: \"memory\"); }\n"},
    {"tn_bulk_wait", "template <int N> __device__ __forceinline__ void tn_bulk_wait() { asm volatile(\"cp.async.bulk.wait_group %0;\" :: \"n\"(N) : \"memory\"); }\n"},
    {"tn_bulk_wait_read", "template <int N> __device__ __forceinline__ void tn_bulk_wait_read() { asm volatile(\"cp.async.bulk.wait_group.read %0;\" :: \"n\"(N) : \"memory\"); }\n"},
    {"tn_fence_proxy", "__device__ __forceinline__ void tn_fence_proxy() { asm volatile(\"fence.proxy.async.shared::cta;\" ::: \"memory\"); }\n"},
};

/* wgmma of 64 rows, n columns and 32 bytes of k: n / 2 accumulators a thread. */
/* 8-bit floats, of A and of B. */
static void put_mma_bytes(ir_text *t, const char *type) {
  const char *second = strlen(type) > 4 ? type + 4 : type;
  ir_put(t, "__device__ __forceinline__ void tn_mma_%s(float *c, const unsigned *a, const unsigned *b) { asm volatile(\"mma.sync.aligned.m16n8k32.row.col.f32.%.4s.%s.f32 {%%0, %%1, %%2, %%3}, {%%4, %%5, %%6, %%7}, {%%8, %%9}, {%%0, %%1, %%2, %%3};\" : "
            "\"+f\"(c[0]), \"+f\"(c[1]), \"+f\"(c[2]), \"+f\"(c[3]) : \"r\"(a[0]), \"r\"(a[1]), \"r\"(a[2]), \"r\"(a[3]), \"r\"(b[0]), \"r\"(b[1])); }\n", type, type, second);
}

static void put_wgmma(ir_text *t, const char *type, int n) {
  bool bytes = type[0] == 'e'; /* those must lie along k: no operands to turn them */
  const char *second = strlen(type) > 4 ? type + 4 : type;
  ir_put(t, "__device__ __forceinline__ void tn_wgmma_%s_%d(float *c, unsigned long long a, unsigned long long b) { asm volatile(\"wgmma.mma_async.sync.aligned.m64n%dk%d.f32.%.4s.%s {", type, n, n, bytes ? 32 : 16, type, second);
  for (int i = 0; i < n / 2; i++) ir_put(t, "%s%%%d", i ? ", " : "", i);
  ir_put(t, "}, %%%d, %%%d, 1, 1, 1%s;\" : ", n / 2, n / 2 + 1, bytes ? "" : ", 0, 0");
  for (int i = 0; i < n / 2; i++) ir_put(t, "%s\"+f\"(c[%d])", i ? ", " : "", i);
  ir_put(t, " : \"l\"(a), \"l\"(b)); }\n");
}

/* wgmma that starts from zeros; wgmma with A from registers and B across its rows. */
static void put_wgmma_set(ir_text *t, const char *type, int n, bool registers) {
  ir_put(t, "__device__ __forceinline__ void tn_wgmma_%s_%s_%d(float *c, %s, unsigned long long b) { asm volatile(\"wgmma.mma_async.sync.aligned.m64n%dk16.f32.%s.%s {", registers ? "rs" : "set", type, n, registers ? "const unsigned *a" : "unsigned long long a", n, type, type);
  for (int i = 0; i < n / 2; i++) ir_put(t, "%s%%%d", i ? ", " : "", i);
  if (registers) ir_put(t, "}, {%%%d, %%%d, %%%d, %%%d}, %%%d, 1, 1, 1, 1;\" : ", n / 2, n / 2 + 1, n / 2 + 2, n / 2 + 3, n / 2 + 4);
  else ir_put(t, "}, %%%d, %%%d, 0, 1, 1, 0, 0;\" : ", n / 2, n / 2 + 1);
  for (int i = 0; i < n / 2; i++) ir_put(t, "%s\"+f\"(c[%d])", i ? ", " : "", i);
  ir_put(t, registers ? " : \"r\"(a[0]), \"r\"(a[1]), \"r\"(a[2]), \"r\"(a[3]), \"l\"(b)); }\n" : " : \"l\"(a), \"l\"(b)); }\n");
}

/* A copy by the TMA unit: coordinates innermost first, of im2col then the places in the window; `all`: to several blocks. */
static void put_tma(ir_text *t, int rank, bool im2col, bool all) {
  int shifts = im2col ? rank - 2 : 0;
  ir_put(t, "__device__ __forceinline__ void tn_tma_%s%s%d(void *to, void *bar, const tn_map &map%s", all ? "all_" : "", im2col ? "im2col" : "load", rank, all ? ", unsigned short blocks" : "");
  for (int i = 0; i < rank + shifts; i++) ir_put(t, ", %s%d", i < rank ? "int c" : "unsigned short s", i);
  ir_put(t, ") { asm volatile(\"cp.async.bulk.tensor.%dd.shared::cluster.global%s.mbarrier::complete_tx::bytes%s [%%0], [%%1, {", rank, im2col ? ".im2col" : "", all ? ".multicast::cluster" : "");
  for (int i = 0; i < rank; i++) ir_put(t, "%s%%%d", i ? ", " : "", i + 3);
  ir_put(t, "}], [%%2]");
  for (int i = 0; i < shifts; i++) ir_put(t, "%s%%%d", i ? ", " : ", {", i + 3 + rank);
  if (shifts) ir_put(t, "}");
  if (all) ir_put(t, ", %%%d", 3 + rank + shifts);
  ir_put(t, ";\" :: \"r\"((unsigned)__cvta_generic_to_shared(to)), \"l\"(&map), \"r\"((unsigned)__cvta_generic_to_shared(bar))");
  for (int i = 0; i < rank + shifts; i++) ir_put(t, i < rank ? ", \"r\"(c%d)" : ", \"h\"(s%d)", i);
  ir_put(t, "%s : \"memory\"); }\n", all ? ", \"h\"(blocks)" : "");
}

static void put_tma_store(ir_text *t, int rank) {
  ir_put(t, "__device__ __forceinline__ void tn_tma_store%d(const void *from, const tn_map &map", rank);
  for (int i = 0; i < rank; i++) ir_put(t, ", int c%d", i);
  ir_put(t, ") { asm volatile(\"cp.async.bulk.tensor.%dd.global.shared::cta.bulk_group [%%1, {", rank);
  for (int i = 0; i < rank; i++) ir_put(t, "%s%%%d", i ? ", " : "", i + 2);
  ir_put(t, "}], [%%0];\" :: \"r\"((unsigned)__cvta_generic_to_shared(from)), \"l\"(&map)");
  for (int i = 0; i < rank; i++) ir_put(t, ", \"r\"(c%d)", i);
  ir_put(t, " : \"memory\"); }\n");
}

/* Conversions of a float of a byte, as codegen/llvm_ops.c spells them out; by the instruction where the GPU has one,
 * which saturates. */
static void put_byte_float(ir_text *t, tn_dtype d, bool to) {
  const ir_byte_format *b = ir_byte_format_of(d);
  const char *name = ir_dtype_name(d), *ptx = d == TN_F8E4M3FN ? "e4m3x2" : d == TN_F8E5M2 ? "e5m2x2" : NULL;
  int drop = 23 - b->fraction, magic = 24 - b->bias - b->fraction;
  if (ptx) ir_put(t, "#if __CUDA_ARCH__ >= 890\n");
  if (ptx && to) {
    double tie = ir_byte_max(d) * (1 + 0.5 / ((b->top & ((1 << b->fraction) - 1)) | (1 << b->fraction)));
    ir_put(t, "__device__ __forceinline__ unsigned char tn_%s(float x) { unsigned short r; asm(\"cvt.rn.satfinite.%s.f32 %%0, %%1, %%2;\" : \"=h\"(r) : \"f\"(0.0f), \"f\"(x)); "
              "return (unsigned char)(fabsf(x) %s %.1ff ? 0x%xu | (__float_as_uint(x) >> 24 & 0x80u) : r); }\n", name, ptx, b->top & 1 ? ">=" : ">", tie, b->over);
  } else if (ptx) {
    ir_put(t, "__device__ __forceinline__ float tn_from_%s(unsigned char x) { float r; asm(\"{ .reg .b16 lo, hi; .reg .b32 both; cvt.rn.f16x2.%s both, %%1; mov.b32 {lo, hi}, both; "
              "cvt.f32.f16 %%0, lo; }\" : \"=f\"(r) : \"h\"((unsigned short)x)); return r; }\n", name, ptx);
  }
  if (ptx) ir_put(t, "#else\n");
  int sign_at = b->sign == 0x80 ? 7 : 3;
  if (to) {
    ir_put(t, "__device__ __forceinline__ unsigned char tn_%s(float x) {\n  unsigned u = __float_as_uint(x), a = u & 0x7fffffffu;\n", name);
    ir_put(t, "  unsigned r = a < 0x%xu ? __float_as_uint(__uint_as_float(a) + __uint_as_float(0x%xu)) - 0x%xu : (a + 0x%xu + (a >> %d & 1u)) >> %d;\n",
           (uint32_t)(128 - b->bias) << 23, (uint32_t)(127 + magic) << 23, (uint32_t)(127 + magic) << 23, ((uint32_t)(b->bias - 127) << 23) + (1u << (drop - 1)) - 1, drop, drop);
    ir_put(t, "  r = a > 0x7f800000u ? 0x%xu : r > 0x%xu ? 0x%xu : r;\n", b->nan, b->top, b->over);
    ir_put(t, "  return (unsigned char)(r | %s(u >> %d & 0x%xu)%s);\n}\n", b->unsigned_zero ? "(r == 0 ? 0u : " : "", 31 - sign_at, b->sign, b->unsigned_zero ? ")" : "");
  } else {
    ir_put(t, "__device__ __forceinline__ float tn_from_%s(unsigned char x) {\n  unsigned a = x & 0x%xu;\n", name, b->sign - 1u);
    ir_put(t, "  unsigned r = a < %uu ? __float_as_uint((float)a * __uint_as_float(0x%xu)) : (a << %d) + 0x%xu;\n", 1u << b->fraction, (uint32_t)(127 + 1 - b->bias - b->fraction) << 23, drop,
           (uint32_t)(127 - b->bias) << 23);
    if (b->unsigned_zero) ir_put(t, "  if (x == 0x%xu) r = 0x7fc00000u;\n", b->nan);
    else if (b->sign == 0x80) ir_put(t, "  if (a > 0x%xu) r = 0x%xu;\n", b->top, 0x7fc00000u);
    if (b->sign == 0x80 && b->over != b->nan) ir_put(t, "  if (a == 0x%xu) r = 0x7f800000u;\n", b->over);
    ir_put(t, "  return __uint_as_float(r | (x & 0x%xu) << %d);\n}\n", b->sign, 31 - sign_at);
  }
  if (ptx) ir_put(t, "#endif\n");
}

const char *cu_helpers(tn_ctx *ctx, const char *body) {
  ir_text t = {.ctx = ctx};
  if (strstr(body, "const tn_map ")) ir_put(&t, "struct __align__(64) tn_map { unsigned long long words[16]; };\n");
  for (int rank = 1; rank <= CU_MAP_RANK; rank++)
    for (int kind = 0; kind < 4; kind++)
      if (strstr(body, ir_format(ctx, "tn_tma_%s%s%d(", kind > 1 ? "all_" : "", kind % 2 ? "im2col" : "load", rank))) put_tma(&t, rank, kind % 2, kind > 1);
  for (int rank = 1; rank <= CU_MAP_RANK; rank++)
    if (strstr(body, ir_format(ctx, "tn_tma_store%d(", rank))) put_tma_store(&t, rank);
  static const char *const narrow[] = {"f16", "bf16", "e4m3", "e5m2", "e4m3e5m2", "e5m2e4m3"};
  for (int h = 2; h < IR_COUNT(narrow); h++)
    if (strstr(body, ir_format(ctx, "tn_mma_%s(", narrow[h]))) put_mma_bytes(&t, narrow[h]);
  for (int h = 0; h < IR_COUNT(narrow); h++)
    for (int n = 16; n <= 256; n += 16)
      if (strstr(body, ir_format(ctx, "tn_wgmma_%s_%d(", narrow[h], n))) put_wgmma(&t, narrow[h], n);
  for (int h = 0; h < 2; h++)
    for (int n = 16; n <= 256; n += 16)
      for (int rs = 0; rs < 2; rs++)
        if (strstr(body, ir_format(ctx, "tn_wgmma_%s_%s_%d(", rs ? "rs" : "set", narrow[h], n))) put_wgmma_set(&t, narrow[h], n, rs);
  for (int d = TN_F8E4M3FN; d <= TN_F4E2M1; d++)
    for (int to = 0; to < 2; to++)
      if (strstr(body, ir_format(ctx, "tn_%s%s(", to ? "" : "from_", ir_dtype_name((tn_dtype)d)))) put_byte_float(&t, (tn_dtype)d, to);
  for (int i = 0; i < IR_COUNT(helpers); i++)
    if (strstr(body, ir_format(ctx, "%s(", helpers[i].name)) || strstr(body, ir_format(ctx, "%s<", helpers[i].name))) ir_put(&t, "%s", helpers[i].text);
  return ir_text_str(&t);
}

/* ---- memory ---- */

const char *cu_from_storage(tn_ctx *ctx, tn_dtype t, const char *what) {
  if (ir_is_narrow_float(t)) return ir_format(ctx, "tn_from_%s(%s)", ir_dtype_name(t), what);
  if (t == TN_BOOL) return ir_format(ctx, "(%s != 0)", what);
  return what;
}

const char *cu_to_storage(tn_ctx *ctx, tn_dtype t, const char *v) {
  if (t == TN_BF16) return ir_format(ctx, "(unsigned short)(__float_as_uint(%s) >> 16)", v); /* of values that are one exactly */
  if (ir_is_narrow_float(t)) return ir_format(ctx, "tn_%s(%s)", ir_dtype_name(t), v);
  return ir_format(ctx, "(%s)(%s)", cu_storage_type(t), v);
}

/* ---- operations ---- */

/* An integer result brought back to its width. */
static const char *wrapped(tn_ctx *ctx, tn_dtype t, const char *v) {
  return ir_dtype_bits(t) < 32 && t != TN_BOOL ? ir_format(ctx, "((%s)(%s)%s)", cu_c_type(t), cu_storage_type(t), v) : v;
}

static const char *rounded(tn_ctx *ctx, tn_dtype t, const char *v) {
  return ir_is_narrow_float(t) ? cu_from_storage(ctx, t, ir_format(ctx, "tn_%s(%s)", ir_dtype_name(t), v)) : v;
}

static const char *float_op(tn_ctx *ctx, ir_opcode op, tn_dtype t, const char *a, const char *b, const char *c) {
  const char *s = t == TN_F64 ? "" : "f", *r = NULL;
  switch (op) {
    case IX_NEG: r = ir_format(ctx, "(-%s)", a); break;
    case IX_ABS: return ir_format(ctx, "fabs%s(%s)", s, a);
    case IX_SQRT: r = ir_format(ctx, "sqrt%s(%s)", s, a); break;
    case IX_FLOOR: r = ir_format(ctx, "floor%s(%s)", s, a); break;
    case IX_CEIL: r = ir_format(ctx, "ceil%s(%s)", s, a); break;
    case IX_ROUND: r = ir_format(ctx, "rint%s(%s)", s, a); break;
    case IX_TRUNC: r = ir_format(ctx, "trunc%s(%s)", s, a); break;
    case IX_ADD: r = ir_format(ctx, "(%s + %s)", a, b); break;
    case IX_SUB: r = ir_format(ctx, "(%s - %s)", a, b); break;
    case IX_MUL: r = ir_format(ctx, "(%s * %s)", a, b); break;
    case IX_DIV: r = ir_format(ctx, "(%s / %s)", a, b); break;
    case IX_REM: r = ir_format(ctx, "fmod%s(%s, %s)", s, a, b); break;
    case IX_FMA: r = ir_format(ctx, t == TN_F64 ? "__fma_rn(%s, %s, %s)" : "__fmaf_rn(%s, %s, %s)", a, b, c); break;
    case IX_MIN: return ir_format(ctx, "(%s < %s ? %s : %s)", a, b, a, b);
    case IX_MAX: return ir_format(ctx, "(%s > %s ? %s : %s)", a, b, a, b);
    default: ir_bug(ctx, "%s is not spelled in CUDA C", ix_info[op].name);
  }
  return op == IX_NEG && !ir_is_byte_float(t) ? r : rounded(ctx, t, r);
}

static const char *int_div(tn_ctx *ctx, ir_opcode op, ix e, const char *a, const char *b) {
  tn_dtype t = (tn_dtype)e->dtype;
  bool div = op == IX_DIV;
  int64_t d;
  if (t == TN_INDEX) {
    ix n = e->args[0];
    if (n->lo >= 0 && ix_const_value(e->args[1], &d) && d > 0) {
      const char *type = n->hi <= INT32_MAX && d <= INT32_MAX ? "unsigned" : "unsigned long long";
      return ir_format(ctx, "((%s)((%s)%s %c (%s)%s))", type_of(e), type, a, div ? '/' : '%', type, b);
    }
    return ir_format(ctx, "((%s)%s(%s, %s))", type_of(e), div ? "tn_floor_div" : "tn_floor_rem", a, b);
  }
  if (ir_is_unsigned(t)) return ir_format(ctx, "(%s == 0 ? %s : %s %c %s)", b, div ? "0" : a, a, div ? '/' : '%', b);
  return wrapped(ctx, t, ir_format(ctx, "%s%s(%s, %s)", div ? "tn_sdiv" : "tn_srem", ir_dtype_bits(t) <= 32 ? "32" : "", a, b));
}

static const char *int_shift(tn_ctx *ctx, ir_opcode op, tn_dtype t, const char *a, const char *b) {
  int bits = ir_dtype_bits(t);
  const char *count = ir_is_signed(t) ? ir_format(ctx, "(unsigned long long)(long long)%s", b) : b;
  const char *fn = op == IX_SHL ? "tn_shl" : ir_is_signed(t) ? "tn_sar" : "tn_shr";
  return wrapped(ctx, t, ir_format(ctx, "((%s)%s(%s, %s, %du))", cu_c_type(t), fn, a, count, bits));
}

static const char *int_op(tn_ctx *ctx, ir_opcode op, ix e, const char *a, const char *b) {
  tn_dtype t = (tn_dtype)e->dtype;
  const char *type = type_of(e), *word = t == TN_I64 || t == TN_U64 ? "unsigned long long" : "unsigned";
  if (t == TN_BOOL && op == IX_NOT) return ir_format(ctx, "(!%s)", a);
  switch (op) {
    case IX_NEG: return wrapped(ctx, t, t == TN_INDEX ? ir_format(ctx, "((%s)-%s)", type, a) : ir_format(ctx, "((%s)(0 - (%s)%s))", type, word, a));
    case IX_ABS:
      if (!ir_is_signed(t)) return a;
      return wrapped(ctx, t, ir_format(ctx, "(%s < 0 ? (%s)(0 - (%s)%s) : (%s)%s)", a, type, t == TN_INDEX ? "unsigned long long" : word, a, type, a));
    case IX_NOT: return wrapped(ctx, t, ir_format(ctx, "(~%s)", a));
    case IX_ADD: case IX_SUB: case IX_MUL: {
      char sign = op == IX_ADD ? '+' : op == IX_SUB ? '-' : '*';
      if (t != TN_INDEX) return wrapped(ctx, t, ir_format(ctx, "((%s)((%s)%s %c (%s)%s))", type, word, a, sign, word, b));
      bool narrow = cu_narrow(e) && cu_narrow(e->args[0]) && cu_narrow(e->args[1]);
      if (narrow) return ir_format(ctx, "(%s %c %s)", a, sign, b);
      return ir_format(ctx, "((%s)((long long)%s %c (long long)%s))", type, a, sign, b);
    }
    case IX_DIV: case IX_REM: return int_div(ctx, op, e, a, b);
    case IX_MIN: case IX_MAX: {
      const char *sign = op == IX_MIN ? "<" : ">";
      if (t == TN_INDEX && !(cu_narrow(e->args[0]) && cu_narrow(e->args[1])))
        return ir_format(ctx, "((%s)((long long)%s %s (long long)%s ? (long long)%s : (long long)%s))", type, a, sign, b, a, b);
      return ir_format(ctx, "(%s %s %s ? %s : %s)", a, sign, b, a, b);
    }
    case IX_AND: return ir_format(ctx, t == TN_BOOL ? "(%s && %s)" : "(%s & %s)", a, b);
    case IX_OR: return ir_format(ctx, t == TN_BOOL ? "(%s || %s)" : "(%s | %s)", a, b);
    case IX_XOR: return ir_format(ctx, t == TN_BOOL ? "(%s != %s)" : "(%s ^ %s)", a, b);
    case IX_SHL: case IX_SHR: return int_shift(ctx, op, t == TN_INDEX ? TN_I64 : t, a, b);
    default: ir_bug(ctx, "%s is not spelled in CUDA C", ix_info[op].name);
  }
}

static const char *compare(tn_ctx *ctx, ir_opcode op, const char *a, const char *b) {
  static const struct { ir_opcode op; const char *sign; } signs[] = {{IX_LT, "<"}, {IX_LE, "<="}, {IX_EQ, "=="}, {IX_NE, "!="}};
  const char *sign = NULL;
  for (int i = 0; i < IR_COUNT(signs); i++)
    if (signs[i].op == op) sign = signs[i].sign;
  return ir_format(ctx, "(%s %s %s)", a, sign, b);
}

static const char *to_int(tn_ctx *ctx, tn_dtype to, tn_dtype from, const char *a) {
  const char *w = from == TN_F64 ? "f64" : "f32";
  int bits = ir_dtype_bits(to);
  if (to == TN_U64) return ir_format(ctx, "tn_f64_ull(%s)", a);
  if (bits == 64) return ir_format(ctx, "tn_f64_ll(%s)", a);
  if (ir_is_unsigned(to)) return ir_format(ctx, "tn_%s_uint(%s, %uu)", w, a, bits == 32 ? 0xffffffffu : (1u << bits) - 1);
  if (bits == 32) return ir_format(ctx, "tn_%s_int(%s, (-2147483647 - 1), 2147483647)", w, a);
  return ir_format(ctx, "tn_%s_int(%s, %d, %d)", w, a, -(1 << (bits - 1)), (1 << (bits - 1)) - 1);
}

static const char *cast(tn_ctx *ctx, ix e, const char *a) {
  tn_dtype to = (tn_dtype)e->dtype, from = (tn_dtype)e->args[0]->dtype;
  if (to == TN_BOOL) return ir_format(ctx, "(%s != 0)", a);
  if (ir_is_float(to)) {
    if (!ir_is_float(from)) return rounded(ctx, to, ir_format(ctx, "((%s)%s)", cu_c_type(to), a));
    if (to == TN_F64 || (to == TN_F32 && from != TN_F64)) return ir_format(ctx, "((%s)%s)", cu_c_type(to), a);
    if (to == TN_F32) return ir_format(ctx, "__double2float_rn(%s)", a);
    return rounded(ctx, to, from == TN_F64 ? ir_format(ctx, "tn_odd(%s)", a) : a);
  }
  if (ir_is_float(from)) return ir_format(ctx, "((%s)%s)", type_of(e), to_int(ctx, to, from, a));
  if (to == TN_INDEX) return ir_format(ctx, "((%s)%s)", type_of(e), a);
  if (ir_dtype_bits(to) < 32) return wrapped(ctx, to, a);
  return ir_format(ctx, "((%s)%s)", cu_c_type(to), a);
}

static const char *bitcast(tn_ctx *ctx, ix e, const char *a) {
  tn_dtype to = (tn_dtype)e->dtype, from = (tn_dtype)e->args[0]->dtype;
  if (to == TN_F32) return ir_format(ctx, "__uint_as_float((unsigned)%s)", a);
  if (to == TN_F64) return ir_format(ctx, "__longlong_as_double((long long)%s)", a);
  if (ir_is_narrow_float(from)) a = cu_to_storage(ctx, from, a);
  if (ir_is_narrow_float(to)) return cu_from_storage(ctx, to, ir_format(ctx, "(%s)%s", cu_storage_type(to), a));
  if (from == TN_F32) a = ir_format(ctx, "__float_as_uint(%s)", a);
  if (from == TN_F64) a = ir_format(ctx, "__double_as_longlong(%s)", a);
  return wrapped(ctx, to, ir_format(ctx, "((%s)%s)", cu_c_type(to), a));
}

const char *cu_op(tn_ctx *ctx, ix e, const char *const *x) {
  ir_opcode op = (ir_opcode)e->op;
  switch (op) {
    case IX_CAST: return cast(ctx, e, x[0]);
    case IX_BITCAST: return bitcast(ctx, e, x[0]);
    case IX_SELECT: return ir_format(ctx, "(%s ? (%s)%s : (%s)%s)", x[0], type_of(e), x[1], type_of(e), x[2]);
    case IX_LT: case IX_LE: case IX_EQ: case IX_NE: return compare(ctx, op, x[0], x[1]);
    default: break;
  }
  if (ir_is_float((tn_dtype)e->dtype)) return float_op(ctx, op, (tn_dtype)e->dtype, x[0], e->nargs > 1 ? x[1] : NULL, e->nargs > 2 ? x[2] : NULL);
  return int_op(ctx, op, e, x[0], e->nargs > 1 ? x[1] : NULL);
}
