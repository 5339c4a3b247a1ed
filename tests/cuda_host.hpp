// cuda_host.hpp — CUDA C of the code generator on a CPU: stands before the printed kernels in place of their helper
// functions. Each thread of a block is a fiber; barriers, shuffles, ldmatrix and mma.sync meet the fibers of a block
// or warp. Built by tests/test_cuda_run.c with the C++ compiler at hand, called by tests/fake_cuda.c.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n)
#define __shared__
#define __cluster_dims__(x, y, z)
#define __grid_constant__ & /* fake_cuda.c passes tensor maps by address */
#define tn_memory (*tn_memory_at())
typedef unsigned char tn_bytes[256 * 1024];

namespace host {
struct number { unsigned x; };
enum { MAX_THREADS = 1024, MAX_BLOCKS = 4 /* of a cluster */, MAX_CLUSTERED = 16 /* kernels */, STACK = 128 * 1024 };
struct fiber { ucontext_t at; bool over; };
static fiber *fibers;
static char *stacks;
static ucontext_t home;
static unsigned char room[MAX_BLOCKS * 256 * 1024 + 1024];
static unsigned threads, blocks, now; /* of a block; of a cluster; the thread of the cluster that runs */
static unsigned block_phase[MAX_BLOCKS], block_in[MAX_BLOCKS], cluster_phase, cluster_in;
static unsigned warp_phase[32], warp_in[32], group_phase[8], group_in[8];
static unsigned char *memory_of(unsigned block) { return room + (1024 - (uintptr_t)room % 1024) % 1024 + block * sizeof(tn_bytes); }
static struct { void *f; unsigned blocks; } clustered[MAX_CLUSTERED]; /* kernels that are launched as clusters */
static unsigned nclustered;
struct of_cluster { of_cluster(void *f, unsigned n) { clustered[nclustered].f = f; clustered[nclustered++].blocks = n; } };
static uint64_t slot[MAX_THREADS][8];
typedef void (*kernel)(void *, void *, void *, void *, void *, void *, void *, void *, void *, void *, void *, void *, void *, void *, void *, void *);
static kernel fn;
static void **values;
static void turn() { swapcontext(&fibers[now].at, &home); }
static void meet(unsigned &phase, unsigned &in, unsigned all) {
  unsigned mine = phase;
  if (++in == all) { in = 0; phase++; }
  else while (phase == mine) turn();
}
static void meet_warp() { unsigned w = now / 32, left = threads * blocks - w * 32; meet(warp_phase[w], warp_in[w], left < 32 ? left : 32); }
static void body() {
  void **v = values;
  fn(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9], v[10], v[11], v[12], v[13], v[14], v[15]);
  fibers[now].over = true;
  for (;;) turn();
}
} // namespace host
static host::number threadIdx, blockIdx;

static inline void __syncthreads() { unsigned b = host::now / host::threads; host::meet(host::block_phase[b], host::block_in[b], host::threads); }
static inline void tn_cluster_sync() { host::meet(host::cluster_phase, host::cluster_in, host::threads * host::blocks); }
static inline void tn_fence_init() {}
static inline void __syncwarp() { host::meet_warp(); }
template <class T> static inline T __shfl_sync(unsigned, T v, int lane) {
  memcpy(host::slot[host::now], &v, sizeof v);
  host::meet_warp();
  T r;
  memcpy(&r, host::slot[host::now / 32 * 32 + (unsigned)lane % 32], sizeof r);
  host::meet_warp();
  return r;
}
static inline float __int_as_float(int x) { float f; memcpy(&f, &x, 4); return f; }
static inline float __uint_as_float(unsigned x) { float f; memcpy(&f, &x, 4); return f; }
static inline unsigned __float_as_uint(float x) { unsigned u; memcpy(&u, &x, 4); return u; }
static inline double __longlong_as_double(long long x) { double f; memcpy(&f, &x, 8); return f; }
static inline long long __double_as_longlong(double x) { long long u; memcpy(&u, &x, 8); return u; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
static inline float __double2float_rn(double x) { return (float)x; }
template <class T> static inline T to_int(double x, double lo, double hi, T least, T most) { return x != x ? 0 : x <= lo ? least : x >= hi ? most : (T)x; }
static inline int __float2int_rz(float x) { return to_int<int>(x, -0x1p31, 0x1p31, INT32_MIN, INT32_MAX); }
static inline int __double2int_rz(double x) { return to_int<int>(x, -0x1p31, 0x1p31 - 1, INT32_MIN, INT32_MAX); }
static inline unsigned __float2uint_rz(float x) { return to_int<unsigned>(x, 0, 0x1p32, 0, UINT32_MAX); }
static inline unsigned __double2uint_rz(double x) { return to_int<unsigned>(x, 0, 0x1p32 - 1, 0, UINT32_MAX); }
static inline long long __double2ll_rz(double x) { return to_int<long long>(x, -0x1p63, 0x1p63, INT64_MIN, INT64_MAX); }
static inline unsigned long long __double2ull_rz(double x) { return to_int<unsigned long long>(x, 0, 0x1p64, 0, UINT64_MAX); }
static inline float __double2float_rz(double x) {
  float f = (float)x;
  return std::isfinite(x) && fabs((double)f) > fabs(x) ? nextafterf(f, 0) : f;
}

static inline unsigned short tn_bf16(float x) {
  unsigned u = __float_as_uint(x);
  return x != x ? 0x7fc0 : (unsigned short)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
static inline float tn_from_bf16(unsigned short x) { return __uint_as_float((unsigned)x << 16); }
static inline float tn_from_f16(unsigned short h) {
  int e = h >> 10 & 31, m = h & 1023;
  float f = e == 31 ? (m ? NAN : INFINITY) : e ? ldexpf((float)(m + 1024), e - 25) : ldexpf((float)m, -24);
  return h >> 15 ? -f : f;
}
static inline unsigned short tn_f16(float x) {
  unsigned short s = __float_as_uint(x) >> 31 ? 0x8000 : 0;
  float a = fabsf(x);
  if (a != a) return 0x7e00;
  if (a >= 65520) return s | 0x7c00;
  if (a < 0x1p-14f) return s | (unsigned short)nearbyintf(ldexpf(a, 24));
  int e;
  frexpf(a, &e);
  unsigned m = (unsigned)nearbyintf(ldexpf(a, 11 - e)); /* 1024 .. 2048 */
  return s | (unsigned short)(((unsigned)(e + 13) << 10) + m); /* the leading bit of m counts one exponent */
}
static inline unsigned tn_pack_f16(float lo, float hi) { return tn_f16(lo) | (unsigned)tn_f16(hi) << 16; }
static inline unsigned tn_pack_bf16(float lo, float hi) { return tn_bf16(lo) | (unsigned)tn_bf16(hi) << 16; }
static inline float tn_exp2(float x) { return exp2f(x); }
#define TN_MOVE(n) \
  static inline void tn_load##n(void *to, const void *from) { if ((uintptr_t)from % n) abort(); memcpy(to, from, n); } \
  static inline void tn_store##n(void *to, const void *from) { if ((uintptr_t)to % n) abort(); memcpy(to, from, n); }
TN_MOVE(4) TN_MOVE(8) TN_MOVE(16)
static inline void tn_copy4(void *to, const void *from) { memcpy(to, from, 4); }
static inline void tn_copy8(void *to, const void *from) { if ((uintptr_t)from % 8 || (uintptr_t)to % 8) abort(); memcpy(to, from, 8); }
static inline void tn_copy16(void *to, const void *from) { if ((uintptr_t)from % 16 || (uintptr_t)to % 16) abort(); memcpy(to, from, 16); }
static inline void tn_copy_commit() {}
template <int N> static inline void tn_copy_wait() {}

static inline const char *given(unsigned lane) { return (const char *)host::slot[host::now / 32 * 32 + lane][0]; }
static inline void tn_ldmatrix4(unsigned *d, const void *p) {
  if ((uintptr_t)p % 16) abort();
  host::slot[host::now][0] = (uint64_t)p;
  host::meet_warp();
  unsigned l = host::now % 32;
  for (unsigned r = 0; r < 4; r++) memcpy(d + r, given(r * 8 + l / 4) + l % 4 * 4, 4);
  host::meet_warp();
}
static inline void tn_ldmatrix4t(unsigned *d, const void *p) {
  if ((uintptr_t)p % 16) abort();
  host::slot[host::now][0] = (uint64_t)p;
  host::meet_warp();
  unsigned l = host::now % 32;
  for (unsigned r = 0; r < 4; r++)
    for (unsigned e = 0; e < 2; e++) memcpy((char *)(d + r) + 2 * e, given(r * 8 + l % 4 * 2 + e) + l / 4 * 2, 2);
  host::meet_warp();
}
static inline void tn_stmatrix4(void *p, const unsigned short *v) {
  if ((uintptr_t)p % 16) abort();
  host::slot[host::now][0] = (uint64_t)p;
  host::meet_warp();
  unsigned l = host::now % 32;
  for (unsigned r = 0; r < 4; r++) memcpy((char *)given(r * 8 + l / 4) + l % 4 * 4, v + r * 2, 4);
  host::meet_warp();
}
template <class A, int PACK, class F> static inline void multiply(A *c, const unsigned *a, const unsigned *b, F element) {
  memcpy(host::slot[host::now], a, 16);
  memcpy(host::slot[host::now] + 2, b, 8);
  host::meet_warp();
  unsigned l = host::now % 32, base = host::now / 32 * 32;
  for (unsigned e = 0; e < 4; e++) {
    unsigned i = l / 4 + e / 2 * 8, j = l % 4 * 2 + e % 2;
    for (unsigned k = 0; k < 8 * PACK; k++) {
      unsigned half = k / (4 * PACK), lane = k % (4 * PACK) / PACK;
      const char *x = (const char *)host::slot[base + i % 8 * 4 + lane], *y = (const char *)(host::slot[base + j * 4 + lane] + 2);
      c[e] = element(c[e], x + 4 * (half * 2 + i / 8), y + 4 * half, k % PACK);
    }
  }
  host::meet_warp();
}
static inline unsigned short half_at(const char *p, unsigned i) { unsigned short h; memcpy(&h, p + 2 * i, 2); return h; }
static inline void tn_mma_f16(float *c, const unsigned *a, const unsigned *b) {
  multiply<float, 2>(c, a, b, [](float s, const char *x, const char *y, unsigned k) { return fmaf(tn_from_f16(half_at(x, k)), tn_from_f16(half_at(y, k)), s); });
}
static inline void tn_mma_bf16(float *c, const unsigned *a, const unsigned *b) {
  multiply<float, 2>(c, a, b, [](float s, const char *x, const char *y, unsigned k) { return fmaf(tn_from_bf16(half_at(x, k)), tn_from_bf16(half_at(y, k)), s); });
}
static inline void tn_mma_s8(int *c, const unsigned *a, const unsigned *b) {
  multiply<int, 4>(c, a, b, [](int s, const char *x, const char *y, unsigned k) { return s + (signed char)x[k] * (signed char)y[k]; });
}
namespace host {
static float e5m2(unsigned char x) { return tn_from_f16((unsigned short)(x << 8)); }
static float e4m3(unsigned char x) {
  int e = x >> 3 & 15, m = x & 7;
  float f = (x & 127) == 127 ? NAN : e ? ldexpf((float)(m + 8), e - 10) : ldexpf((float)m, -9);
  return x >> 7 ? -f : f;
}
} // namespace host
static inline void tn_mma_e4m3(float *c, const unsigned *a, const unsigned *b) {
  multiply<float, 4>(c, a, b, [](float s, const char *x, const char *y, unsigned k) { return fmaf(host::e4m3((unsigned char)x[k]), host::e4m3((unsigned char)y[k]), s); });
}
static inline void tn_mma_e5m2(float *c, const unsigned *a, const unsigned *b) {
  multiply<float, 4>(c, a, b, [](float s, const char *x, const char *y, unsigned k) { return fmaf(host::e5m2((unsigned char)x[k]), host::e5m2((unsigned char)y[k]), s); });
}
static inline void tn_mma_e4m3e5m2(float *c, const unsigned *a, const unsigned *b) {
  multiply<float, 4>(c, a, b, [](float s, const char *x, const char *y, unsigned k) { return fmaf(host::e4m3((unsigned char)x[k]), host::e5m2((unsigned char)y[k]), s); });
}
static inline void tn_mma_e5m2e4m3(float *c, const unsigned *a, const unsigned *b) {
  multiply<float, 4>(c, a, b, [](float s, const char *x, const char *y, unsigned k) { return fmaf(host::e5m2((unsigned char)x[k]), host::e4m3((unsigned char)y[k]), s); });
}
static inline float tf32_at(const char *p) { unsigned u; memcpy(&u, p, 4); return __uint_as_float((u + 0x1000) & 0xffffe000u); }
static inline void tn_mma_tf32(float *c, const unsigned *a, const unsigned *b) {
  multiply<float, 1>(c, a, b, [](float s, const char *x, const char *y, unsigned) { return fmaf(tf32_at(x), tf32_at(y), s); });
}

// ---- warpgroups, mbarriers, the TMA unit ----

static inline unsigned long long tn_tile(const void *p) { return (unsigned long long)(uintptr_t)p; }
static inline void tn_fence_proxy() {}
static inline void tn_wgmma_fence() {}
static inline void tn_wgmma_commit() {}
static inline void tn_settle() {}
template <int N> static inline void tn_wgmma_wait() {}
template <int N> static inline void tn_registers_more() {}
template <int N> static inline void tn_registers_less() {}
namespace host {
static uintptr_t swizzled(uintptr_t at) { return at ^ (at >> 7 & 7) << 4; }
template <int N, class T, class F, class G> static void products(float *c, unsigned long long a, unsigned long long b, F value, G second) {
  unsigned t = now % 128;
  for (int e = 0; e < N / 2; e++) {
    unsigned i = t / 32 * 16 + t % 32 / 4 + e / 2 % 2 * 8, j = (unsigned)e / 4 * 8 + t % 4 * 2 + e % 2;
    for (unsigned k = 0; k < 32 / sizeof(T); k++) {
      T x, y;
      memcpy(&x, (const void *)swizzled((uintptr_t)a + i * 128 + k * sizeof x), sizeof x);
      memcpy(&y, (const void *)swizzled((uintptr_t)b + j * 128 + k * sizeof y), sizeof y);
      c[e] = fmaf(value(x), second(y), c[e]);
    }
  }
}
template <int N, class T, class F> static void products(float *c, unsigned long long a, unsigned long long b, F value) { products<N, T>(c, a, b, value, value); }
/* A is what the lanes of a quad have in registers; rows of B run along j, 64 columns, then the next 64. */
template <int N, class F> static void products_of_registers(float *c, const unsigned *a, unsigned long long b, F value) {
  unsigned t = now % 128;
  for (unsigned r = 0; r < 4; r++) slot[now][r] = a[r];
  meet_warp();
  for (int e = 0; e < N / 2; e++) {
    unsigned half = e / 2 % 2, j = (unsigned)e / 4 * 8 + t % 4 * 2 + e % 2;
    for (unsigned k = 0; k < 16; k++) {
      unsigned short x = (unsigned short)(slot[now / 4 * 4 + k % 8 / 2][k / 8 * 2 + half] >> k % 2 * 16), y;
      memcpy(&y, (const void *)swizzled((uintptr_t)(b & 0xffffffffffff) + j / 64 * (b >> 48) * 128 + k * 128 + j % 64 * 2), 2);
      c[e] = fmaf(value(x), value(y), c[e]);
    }
  }
  meet_warp();
}
struct mbar { unsigned short expected, pending; int bytes : 31; unsigned phase : 1; };
static void settle(mbar *b) {
  if (b->pending || b->bytes) return;
  b->phase ^= 1;
  b->pending = b->expected;
}
struct map { /* of fake_cuda.c */
  uint64_t magic, address;
  uint32_t extents[5], strides[4];
  uint16_t rank, pixels, channels, box[5], size;
  uint8_t steps[5];
  int8_t lower[3], upper[3];
};
struct copy { char *to; mbar *bar; const map *m; int c[5], s[3]; };
static copy copies[64];
static unsigned waiting;
static void store(const copy &x, unsigned i, bool inside, uint64_t at) {
  unsigned short v = 0, n = x.m->size;
  if (inside) memcpy(&v, (const void *)(uintptr_t)(x.m->address + at), n);
  memcpy((void *)swizzled((uintptr_t)x.to + i * n), &v, n);
}
static unsigned tiled(const copy &x) {
  const map &m = *x.m;
  unsigned all = 1;
  for (int d = 0; d < m.rank; d++) all *= m.box[d];
  for (unsigned i = 0; i < all; i++) {
    bool inside = true;
    uint64_t at = 0;
    unsigned rest = i;
    for (int d = 0; d < m.rank; rest /= m.box[d++]) {
      int64_t p = x.c[d] + (int64_t)(rest % m.box[d]);
      inside &= p >= 0 && p < m.extents[d];
      at += (uint64_t)p * (d ? m.strides[d - 1] * 16ull : m.size);
    }
    store(x, i, inside, at);
  }
  return all;
}
static unsigned im2col(const copy &x) { /* walks the base pixels one by one */
  const map &m = *x.m;
  int64_t base[5];
  for (int d = 0; d < m.rank; d++) base[d] = x.c[d];
  for (unsigned p = 0; p < m.pixels; p++) {
    for (unsigned c = 0; c < m.channels; c++) {
      int64_t first = x.c[0] + (int64_t)c;
      bool inside = first >= 0 && first < m.extents[0];
      uint64_t at = (uint64_t)first * m.size;
      for (int d = 1; d < m.rank; d++) {
        int64_t q = base[d] + (d < m.rank - 1 ? x.s[d - 1] : 0);
        inside &= q >= 0 && q < m.extents[d];
        at += (uint64_t)q * m.strides[d - 1] * 16;
      }
      store(x, p * m.channels + c, inside, at);
    }
    for (int d = 1; d < m.rank; d++) {
      base[d] += d < m.rank - 1 ? m.steps[d] : 1;
      if (d == m.rank - 1 || base[d] <= (int64_t)m.extents[d] - 1 + m.upper[d - 1]) break;
      base[d] = m.lower[d - 1];
    }
  }
  return m.pixels * m.channels;
}
/* The unit takes its time: copies are done between the turns of the fibers, the last one first. */
static void copy_one() {
  if (!waiting) return;
  copy x = copies[--waiting];
  x.bar->bytes -= x.m->size * (int)(x.m->pixels ? im2col(x) : tiled(x));
  settle(x.bar);
}
/* What leaves does so in order, as late as it may: when its thread waits, or the block is over. */
struct leaving { const char *from; const map *m; int c[5]; unsigned thread, group; };
static leaving leave[1024];
static unsigned leaves, groups[MAX_THREADS];
static void leave_one(unsigned which) {
  leaving x = leave[which];
  memmove(leave + which, leave + which + 1, (--leaves - which) * sizeof x);
  unsigned all = 1;
  for (int d = 0; d < x.m->rank; d++) all *= x.m->box[d];
  for (unsigned i = 0, rest; i < all; i++) {
    bool inside = true;
    uint64_t at = 0;
    rest = i;
    for (int d = 0; d < x.m->rank; rest /= x.m->box[d++]) {
      int64_t p = x.c[d] + (int64_t)(rest % x.m->box[d]);
      inside &= p >= 0 && p < x.m->extents[d];
      at += (uint64_t)p * (d ? x.m->strides[d - 1] * 16ull : x.m->size);
    }
    if (inside) memcpy((void *)(uintptr_t)(x.m->address + at), (const void *)swizzled((uintptr_t)x.from + i * x.m->size), x.m->size);
  }
}
static void leave_until(unsigned left) {
  for (unsigned i = 0; i < leaves;)
    if (leave[i].thread == now && leave[i].group + left < groups[now]) leave_one(i);
    else i++;
}
template <class... T> static void take(const void *from, const void *m, T... c) {
  if ((uintptr_t)from % 1024 || ((const map *)m)->magic != 0x70616d || leaves == 1024) abort();
  leaving x = {(const char *)from, (const map *)m, {(int)c...}, now, groups[now]};
  leave[leaves++] = x;
}
template <class... T> static void ask(void *to, void *bar, const void *m, T... c) {
  if ((uintptr_t)to % 1024 || ((const map *)m)->magic != 0x70616d || waiting == 64) abort();
  copy x = {(char *)to, (mbar *)bar, (const map *)m};
  int all[] = {(int)c...};
  for (unsigned i = 0; i < sizeof all / sizeof *all; i++) *(i < x.m->rank ? &x.c[i] : &x.s[i - x.m->rank]) = all[i];
  copies[waiting++] = x;
}
static void *in_block(void *p, unsigned block) { return memory_of(block) + ((unsigned char *)p - memory_of(now / threads)); }
template <class... T> static void ask_all(void *to, void *bar, const void *m, unsigned mask, T... c) {
  for (unsigned b = 0; b < blocks; b++)
    if (mask >> b & 1) ask(in_block(to, b), in_block(bar, b), m, c...);
}
} // namespace host
struct tn_map { unsigned long long words[16]; };
static inline void tn_mbar_init(void *b, int n) { *(host::mbar *)b = {(unsigned short)n, (unsigned short)n, 0, 0}; }
static inline void tn_mbar_expect(void *p, int n) { host::mbar *b = (host::mbar *)p; b->bytes += n; b->pending--; host::settle(b); }
static inline void tn_mbar_arrive(void *p) { host::mbar *b = (host::mbar *)p; b->pending--; host::settle(b); }
static inline void tn_mbar_arrive_remote(void *p, int block) { tn_mbar_arrive(host::in_block(p, (unsigned)block)); }
static inline void tn_mbar_wait(void *p, int parity) { while (((volatile host::mbar *)p)->phase == (unsigned)parity) host::turn(); }
#define TN_TMA(name) template <class... T> static inline void tn_tma_##name(void *to, void *bar, const tn_map &m, T... c) { host::ask(to, bar, &m, c...); } \
  template <class... T> static inline void tn_tma_all_##name(void *to, void *bar, const tn_map &m, unsigned blocks, T... c) { host::ask_all(to, bar, &m, blocks, c...); }
#define TN_STORE(rank) template <class... T> static inline void tn_tma_store##rank(const void *from, const tn_map &m, T... c) { host::take(from, &m, c...); }
TN_STORE(1) TN_STORE(2) TN_STORE(3) TN_STORE(4) TN_STORE(5)
static inline void tn_bulk_commit() { host::groups[host::now]++; }
template <int N> static inline void tn_bulk_wait() { host::leave_until(N); }
template <int N> static inline void tn_bulk_wait_read() { host::leave_until(N); }
static inline void tn_group_sync() { unsigned g = host::now / 128; host::meet(host::group_phase[g], host::group_in[g], 128); }
TN_TMA(load1) TN_TMA(load2) TN_TMA(load3) TN_TMA(load4) TN_TMA(load5) TN_TMA(im2col3) TN_TMA(im2col4) TN_TMA(im2col5)
#define TN_WGMMA(n)                                                                                                                      \
  static inline void tn_wgmma_f16_##n(float *c, unsigned long long a, unsigned long long b) { host::products<n, unsigned short>(c, a, b, tn_from_f16); } \
  static inline void tn_wgmma_bf16_##n(float *c, unsigned long long a, unsigned long long b) { host::products<n, unsigned short>(c, a, b, tn_from_bf16); } \
  static inline void tn_wgmma_e4m3_##n(float *c, unsigned long long a, unsigned long long b) { host::products<n, unsigned char>(c, a, b, host::e4m3); } \
  static inline void tn_wgmma_e5m2_##n(float *c, unsigned long long a, unsigned long long b) { host::products<n, unsigned char>(c, a, b, host::e5m2); } \
  static inline void tn_wgmma_e4m3e5m2_##n(float *c, unsigned long long a, unsigned long long b) { host::products<n, unsigned char>(c, a, b, host::e4m3, host::e5m2); } \
  static inline void tn_wgmma_e5m2e4m3_##n(float *c, unsigned long long a, unsigned long long b) { host::products<n, unsigned char>(c, a, b, host::e5m2, host::e4m3); }
#define TN_WGMMA_RS(n)                                                                                                                                                     \
  static inline void tn_wgmma_rs_f16_##n(float *c, const unsigned *a, unsigned long long b) { host::products_of_registers<n>(c, a, b, tn_from_f16); }                      \
  static inline void tn_wgmma_rs_bf16_##n(float *c, const unsigned *a, unsigned long long b) { host::products_of_registers<n>(c, a, b, tn_from_bf16); }                    \
  static inline void tn_wgmma_set_f16_##n(float *c, unsigned long long a, unsigned long long b) { memset(c, 0, n / 2 * sizeof *c); host::products<n, unsigned short>(c, a, b, tn_from_f16); } \
  static inline void tn_wgmma_set_bf16_##n(float *c, unsigned long long a, unsigned long long b) { memset(c, 0, n / 2 * sizeof *c); host::products<n, unsigned short>(c, a, b, tn_from_bf16); }
TN_WGMMA_RS(32) TN_WGMMA_RS(48) TN_WGMMA_RS(64) TN_WGMMA_RS(80) TN_WGMMA_RS(128) TN_WGMMA_RS(144)
TN_WGMMA(16) TN_WGMMA(32) TN_WGMMA(64) TN_WGMMA(128) TN_WGMMA(192) TN_WGMMA(256)

static inline unsigned long long tn_tile_columns(const void *p, int next) { return (unsigned long long)(uintptr_t)p | (unsigned long long)(next / 128) << 48; }

static inline tn_bytes *tn_memory_at() { return (tn_bytes *)host::memory_of(host::now / host::threads); }

/* All clusters of a launch (mostly of one block), one after another; the fibers of a cluster take turns in an order that differs. */
extern "C" int tn_host_launch(void *f, unsigned grid, unsigned threads, int nargs, void **args) {
  unsigned blocks = 1;
  for (unsigned i = 0; i < host::nclustered; i++)
    if (host::clustered[i].f == f) blocks = host::clustered[i].blocks;
  unsigned all = threads * blocks;
  if (all > host::MAX_THREADS || blocks > host::MAX_BLOCKS || grid % blocks || nargs > 16) return 1;
  if (!host::fibers) {
    host::fibers = (host::fiber *)calloc(host::MAX_THREADS, sizeof(host::fiber));
    host::stacks = (char *)malloc((size_t)host::MAX_THREADS * host::STACK);
  }
  void *values[16] = {};
  for (int i = 0; i < nargs; i++) values[i] = *(void **)args[i];
  host::values = values;
  host::fn = (host::kernel)f;
  host::threads = threads;
  host::blocks = blocks;
  for (unsigned first = 0; first < grid; first += blocks) {
    memset(host::block_in, 0, sizeof host::block_in);
    memset(host::warp_in, 0, sizeof host::warp_in);
    host::waiting = 0;
    memset(host::memory_of(0), 0xff, blocks * sizeof(tn_bytes));
    for (unsigned t = 0; t < all; t++) {
      host::fiber *x = &host::fibers[t];
      x->over = false;
      getcontext(&x->at);
      x->at.uc_stack.ss_sp = host::stacks + (size_t)t * host::STACK;
      x->at.uc_stack.ss_size = host::STACK;
      makecontext(&x->at, host::body, 0);
    }
    for (unsigned left = all, turns = 0; left; turns++) {
      if (turns > 1000000) return 2; /* a barrier that nobody opens */
      if (turns % 3 == 2) host::copy_one();
      for (unsigned i = 0; i < all; i++) {
        unsigned t = first / blocks % 2 ? all - 1 - i : i;
        if (host::fibers[t].over) continue;
        host::now = t;
        threadIdx.x = t % threads;
        blockIdx.x = first + t / threads;
        swapcontext(&host::home, &host::fibers[t].at);
        left -= host::fibers[t].over;
      }
    }
    while (host::leaves) host::leave_one(0);
  }
  return 0;
}
