/* probe.c — what the core can do at most: fused multiply-adds per second, bytes per second.
 *
 *   bench_probe [avx2]       commands of serve.h: "peak SECONDS [RUN]", "bandwidth SECONDS"
 *   bench_probe --print      measures once and prints
 *   bench_probe --run FILE COMMAND...   runs it; FILE gets its wall seconds and largest resident bytes
 *
 * peak: a loop without memory over independent chains of vector FMAs, as many as registers allow, the fastest of those
 * that fit into the time. A loop takes RUN seconds: what other processes and the machine's host take from a core is
 * missed by loops of microseconds, but not by a run of many milliseconds, which is to be compared with loops as long.
 * With SIMD extensions the widest that the CPU has; `lanes` floats each.
 * bandwidth: reading 256 MiB, far beyond the caches, in bytes per second.
 */
#include "bench/serve.h"
#include <math.h>
#include <sys/resource.h>
#include <sys/wait.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

enum { CHAINS = 12, STEPS = 20000 };

typedef float (*loop_fn)(int steps);

/* One variable per chain: an array would stay in memory. */
#define EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define BODY \
  EACH(START) \
  for (int k = 0; k < steps; k++) { EACH(STEP) } \
  float sum = 0; \
  EACH(SUM) \
  return sum;

#if defined(__x86_64__)
#define START(i) __m512 a##i = _mm512_set1_ps(i);
#define STEP(i) a##i = _mm512_fmadd_ps(a##i, m, c); __asm__("" : "+v"(a##i));
#define SUM(i) sum += _mm512_cvtss_f32(a##i);
__attribute__((target("avx512f"))) static float loop_avx512(int steps) {
  __m512 m = _mm512_set1_ps(0.5f), c = _mm512_set1_ps(0.25f);
  BODY
}
#undef START
#undef STEP
#undef SUM
#define START(i) __m256 a##i = _mm256_set1_ps(i);
#define STEP(i) a##i = _mm256_fmadd_ps(a##i, m, c); __asm__("" : "+x"(a##i));
#define SUM(i) sum += _mm256_cvtss_f32(a##i);
__attribute__((target("avx2,fma"))) static float loop_avx2(int steps) {
  __m256 m = _mm256_set1_ps(0.5f), c = _mm256_set1_ps(0.25f);
  BODY
}
#undef START
#undef STEP
#undef SUM
__attribute__((target("avx512f"))) static uint64_t read_avx512(const char *p, size_t n) {
  __m512i s0 = _mm512_setzero_si512(), s1 = s0, s2 = s0, s3 = s0;
  for (size_t i = 0; i < n; i += 256) {
    s0 = _mm512_xor_si512(s0, _mm512_load_si512((const void *)(p + i)));
    s1 = _mm512_xor_si512(s1, _mm512_load_si512((const void *)(p + i + 64)));
    s2 = _mm512_xor_si512(s2, _mm512_load_si512((const void *)(p + i + 128)));
    s3 = _mm512_xor_si512(s3, _mm512_load_si512((const void *)(p + i + 192)));
  }
  return (uint64_t)_mm512_reduce_add_epi64(_mm512_xor_si512(_mm512_xor_si512(s0, s1), _mm512_xor_si512(s2, s3)));
}
#endif

#if defined(__aarch64__)
typedef float32x4_t plain;
#define FMA(a, m, c) vfmaq_f32(c, a, m)
#define REGISTER "+w"
#elif defined(__x86_64__)
typedef float plain __attribute__((vector_size(16)));
#define FMA(a, m, c) ((a) * (m) + (c))
#define REGISTER "+x"
#else
typedef float plain __attribute__((vector_size(16)));
#define FMA(a, m, c) ((a) * (m) + (c))
#define REGISTER "+m"
#endif
#define START(i) plain a##i = {i, i, i, i};
#define STEP(i) a##i = FMA(a##i, m, c); __asm__("" : REGISTER(a##i));
#define SUM(i) sum += a##i[0];
static float loop_plain(int steps) {
  plain m = {0.5f, 0.5f, 0.5f, 0.5f}, c = {0.25f, 0.25f, 0.25f, 0.25f};
  BODY
}

static uint64_t read_plain(const char *p, size_t n) {
  uint64_t s[8] = {0};
  for (size_t i = 0; i < n; i += 64)
    for (int j = 0; j < 8; j++) s[j] ^= ((const uint64_t *)(const void *)(p + i))[j];
  return s[0] ^ s[1] ^ s[2] ^ s[3] ^ s[4] ^ s[5] ^ s[6] ^ s[7];
}

static volatile double sink;

static bool no_avx512; /* asked for by name */

static void best_loop(loop_fn *fn, int *lanes) {
  *fn = loop_plain;
  *lanes = 4;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && !no_avx512) {
    *fn = loop_avx512;
    *lanes = 16;
  } else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    *fn = loop_avx2;
    *lanes = 8;
  }
#endif
}

/* FLOP per second of the fastest of the loops that fit into the time, at least three; each takes about `run` seconds. */
static double peak(double seconds, double run, int *lanes) {
  loop_fn fn;
  best_loop(&fn, lanes);
  double begin = serve_now(), once = 1e30, best = 1e30;
  for (int i = 0; i < 5; i++) {
    double start = serve_now();
    sink = fn(STEPS);
    once = fmin(once, serve_now() - start);
  }
  double loops = fmax(1, round(run / once));
  for (int i = 0; i < 3 || serve_now() - begin < seconds; i++) {
    double start = serve_now();
    for (double k = 0; k < loops; k++) sink = fn(STEPS);
    best = fmin(best, serve_now() - start);
  }
  return 2.0 * CHAINS * *lanes * STEPS * loops / best;
}

static double bandwidth(double seconds) {
  static char *memory;
  const size_t bytes = (size_t)256 << 20;
  if (!memory && (memory = aligned_alloc(4096, bytes))) memset(memory, 1, bytes);
  if (!memory) return 0;
  uint64_t (*fn)(const char *, size_t) = read_plain;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) fn = read_avx512;
#endif
  double begin = serve_now(), best = 1e30;
  for (int run = 0; run < 2 || serve_now() - begin < seconds; run++) {
    double start = serve_now();
    sink = (double)fn(memory, bytes);
    double t = serve_now() - start;
    if (t < best) best = t;
  }
  return (double)bytes / best;
}

static void handle(int n, char **word) {
  double seconds = n > 1 ? atof(word[1]) : 0;
  int lanes;
  if (strcmp(word[0], "peak") == 0) {
    double p = peak(seconds, n > 2 ? atof(word[2]) : 0, &lanes);
    serve_ok("\"flops\": %.6g, \"lanes\": %d", p, lanes);
  } else if (strcmp(word[0], "bandwidth") == 0) serve_ok("\"bytes\": %.6g", bandwidth(seconds));
  else serve_error("unknown command");
}

/* A small process as parent: the system counts a child's memory from what its parent had at the fork. */
static int watch(const char *file, char **argv) {
  double start = serve_now();
  pid_t pid = fork();
  if (pid == 0) {
    execvp(argv[0], argv);
    _exit(127);
  }
  int status = 1;
  struct rusage used = {0};
  FILE *f = fopen(file, "w");
  if (pid < 0 || !f || wait4(pid, &status, 0, &used) != pid) return 1;
  fprintf(f, "{\"wall_s\": %.6g, \"peak_rss\": %lld}\n", serve_now() - start, (long long)used.ru_maxrss * 1024);
  fclose(f);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(int argc, char **argv) {
  if (argc > 3 && strcmp(argv[1], "--run") == 0) return watch(argv[2], argv + 3);
  if (argc > 1 && strcmp(argv[1], "--print") == 0) {
    int lanes;
    double p = peak(0.5, 0, &lanes);
    printf("multiply-add peak %.1f GFLOP/s (%d lanes), reading %.1f GB/s\n", p * 1e-9, lanes, bandwidth(0.5) * 1e-9);
    return 0;
  }
  no_avx512 = argc > 1 && strcmp(argv[1], "avx2") == 0;
  serve(handle);
  return 0;
}
