/* fake_cublaslt.c — a cuBLASLt for tests: products on the host, in the order of the fake driver's streams. Heuristics know two
 * algorithms, the second with tensor cores and the sum in two pieces, and a third that says it cannot. Numbers as in
 * NVIDIA's documentation of cuBLAS. FAKE_CUBLASLT: "nohandle", as without a device; "fail", products do not run. */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, NOT_INITIALIZED = 1, BAD = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum { F32 = 0, F64 = 1, F16 = 2, I8 = 3, I32 = 10, BF16 = 14, E4M3 = 28, E5M2 = 29, TILE = 20, BIAS = 4, RELU = 2, GELU = 32 };

typedef struct layout {
  int type, batch;
  uint64_t rows, cols;
  int64_t ld, step;
} layout;
typedef struct desc {
  int compute, scale, turn_a, turn_b, epilogue, bias_type, scale_mode[2];
  int8_t fast;
  const char *bias;
  const float *scales[2]; /* of 8-bit floats: one number, or with mode 3 one a row of the result's, one a column */
} desc;
typedef struct preference {
  uint64_t workspace;
} preference;
typedef struct algorithm {
  int32_t id, config[8];
  int32_t rest[7];
} algorithm;
typedef struct heuristic {
  algorithm algo;
  size_t workspace;
  int state;
  float waves;
  int reserved[4];
} heuristic;
_Static_assert(sizeof(algorithm) == 64 && sizeof(heuristic) == 96, "as cuBLASLt lays them out");

static int asked(const char *what) {
  const char *s = getenv("FAKE_CUBLASLT");
  return s && strcmp(s, what) == 0;
}

size_t cublasLtGetVersion(void) { return 130100; }
int cublasLtCreate(void **h) { return asked("nohandle") ? NOT_INITIALIZED : (*h = malloc(1), OK); }
int cublasLtDestroy(void *h) { return free(h), OK; }
int cublasLtMatmulDescCreate(desc **d, int compute, int scale) {
  *d = calloc(1, sizeof **d);
  **d = (desc){.compute = compute, .scale = scale, .epilogue = 1};
  return OK;
}
int cublasLtMatmulDescDestroy(desc *d) { return free(d), OK; }
int cublasLtMatmulDescSetAttribute(desc *d, int a, const void *v, size_t n) {
  bool pointer = a == 8 || a == 17 || a == 18;
  void *to = a == 3 ? &d->turn_a : a == 4 ? &d->turn_b : a == 7 ? &d->epilogue : a == 26 ? &d->bias_type : a == 8 ? (void *)&d->bias : a == 25 ? (void *)&d->fast : a == 31 || a == 32 ? &d->scale_mode[a - 31] : pointer ? (void *)&d->scales[a - 17] : NULL;
  return to && n == (pointer ? 8 : a == 25 ? 1 : 4) ? memcpy(to, v, n), OK : BAD;
}
int cublasLtMatrixLayoutCreate(layout **l, int type, uint64_t rows, uint64_t cols, int64_t ld) {
  *l = calloc(1, sizeof **l);
  **l = (layout){type, 1, rows, cols, ld, 0};
  return ld < (int64_t)rows ? BAD : OK;
}
int cublasLtMatrixLayoutDestroy(layout *l) { return free(l), OK; }
int cublasLtMatrixLayoutSetAttribute(layout *l, int a, const void *v, size_t n) {
  void *to = a == 5 ? (void *)&l->batch : a == 6 ? (void *)&l->step : NULL;
  return to && n == (a == 5 ? 4 : 8) ? memcpy(to, v, n), OK : BAD;
}
int cublasLtMatmulPreferenceCreate(preference **p) { return *p = calloc(1, sizeof **p), OK; }
int cublasLtMatmulPreferenceDestroy(preference *p) { return free(p), OK; }
int cublasLtMatmulPreferenceSetAttribute(preference *p, int a, const void *v, size_t n) {
  if (a == 1 && n == 8) memcpy(&p->workspace, v, 8);
  return a == 1 || ((a == 3 || (a >= 5 && a <= 8)) && n == 4) ? OK : BAD;
}

int cublasLtMatmulAlgoInit(void *h, int compute, int scale, int a, int b, int c, int d, int id, algorithm *x) {
  (void)compute, (void)scale, (void)b, (void)c, (void)d, (void)a;
  if (!h || id < 0 || id > 1) return NOT_SUPPORTED;
  *x = (algorithm){.id = id, .config = {0, 1}};
  return OK;
}
int cublasLtMatmulAlgoConfigSetAttribute(algorithm *x, int a, const void *v, size_t n) {
  if (a < 1 || a > 8 || n != (a > 6 ? 2 : 4)) return BAD;
  x->config[a - 1] = 0;
  return memcpy(&x->config[a - 1], v, n), OK;
}
int cublasLtMatmulAlgoConfigGetAttribute(const algorithm *x, int a, void *v, size_t n, size_t *written) {
  if (a < 0 || a > 8 || n != (a > 6 ? 2 : 4)) return BAD;
  *written = n;
  return memcpy(v, a ? &x->config[a - 1] : &x->id, n), OK;
}
int cublasLtMatmulAlgoCapGetAttribute(const algorithm *x, int a, void *v, size_t n, size_t *written) {
  uint64_t how = x->id ? 0x40202 : 0x80201; /* tensor cores of TF32; plain multiply-adds */
  if (a != 15 || n != 8) return BAD;
  *written = 8;
  return memcpy(v, &how, 8), OK;
}
static bool is_eight(int type) { return type == E4M3 || type == E5M2; }
int cublasLtMatmulAlgoCheck(void *h, const desc *d, const layout *a, const layout *b, const layout *c, const layout *y, const algorithm *x, heuristic *r) {
  uint64_t m = d->turn_a ? a->cols : a->rows, k = d->turn_a ? a->rows : a->cols, n = d->turn_b ? b->rows : b->cols;
  if (!h || m != y->rows || n != y->cols || (d->turn_b ? b->cols : b->rows) != k || c->rows != m || c->cols != n || a->batch != y->batch || b->batch != y->batch || c->batch != y->batch) return BAD;
  bool eight = is_eight(a->type);
  if (eight != is_eight(b->type) || (!eight && (a->type != b->type || d->scales[0] || d->scales[1] || d->fast))) return BAD;
  if (is_eight(y->type) ? !eight || c->type != BF16 || (y->type == E5M2 && a->type != E5M2 && b->type != E5M2) : c->type != y->type) return NOT_SUPPORTED;
  if ((d->epilogue & BIAS) && d->bias_type != (eight && y->type == F32 ? BF16 : y->type)) return NOT_SUPPORTED;
  if ((a->type == E5M2 && b->type == E5M2) || d->scale_mode[0] != d->scale_mode[1] || (d->scale_mode[0] && (d->scale_mode[0] != 3 || !d->scales[0] || !d->scales[1]))) return NOT_SUPPORTED;
  if (x->config[0] != TILE || x->config[1] != x->id + 1 || ((a->type == I8 || eight) && (!d->turn_a || d->turn_b))) return NOT_SUPPORTED;
  *r = (heuristic){.algo = *x, .workspace = 1024 * (size_t)x->id, .waves = 1};
  return OK;
}
int cublasLtMatmulAlgoGetHeuristic(void *h, const desc *d, const layout *a, const layout *b, const layout *c, const layout *y, const preference *p, int room, heuristic *r, int *n) {
  if ((d->epilogue & BIAS) && (!d->bias || (uintptr_t)d->bias % 16)) return BAD;
  *n = 0;
  for (int id = 0; id < 3 && *n < room; id++) {
    algorithm x = {.id = id, .config = {TILE, id + 1, id ? 2 : 0, 0, 0, 7}};
    heuristic *to = &r[(*n)++];
    int status = id == 2 ? NOT_SUPPORTED : cublasLtMatmulAlgoCheck(h, d, a, b, c, y, &x, to);
    if (status == NOT_SUPPORTED) to->state = status;
    else if (status) return status;
    else if (to->workspace > p->workspace) --*n;
  }
  return OK;
}

/* ---- running ---- */

static double half(uint16_t u) {
  int e = u >> 10 & 31, f = u & 1023;
  double v = e == 31 ? (f ? NAN : INFINITY) : e ? ldexp(1024 + f, e - 25) : ldexp(f, -24);
  return u >> 15 ? -v : v;
}
static double e4m3(uint32_t u) { return (u & 127) == 127 ? NAN : (u >> 7 ? -1 : 1) * (u >> 3 & 15 ? ldexp(8 + (u & 7), (int)(u >> 3 & 15) - 10) : ldexp(u & 7, -9)); }
static double load(int type, const char *p, int64_t at) {
  float f;
  uint32_t u;
  switch (type) {
  case F32: return ((const float *)p)[at];
  case F64: return ((const double *)p)[at];
  case I8: return ((const int8_t *)p)[at];
  case I32: return ((const int32_t *)p)[at];
  case F16: return half(((const uint16_t *)p)[at]);
  case E4M3: return e4m3((uint8_t)p[at]);
  case E5M2: return half((uint16_t)((uint8_t)p[at] << 8)); /* f16 without its last byte */
  default:
    u = (uint32_t)((const uint16_t *)p)[at] << 16;
    memcpy(&f, &u, 4);
    return f;
  }
}
static uint16_t to_half(double v) { /* to nearest even, by search: it is slow and short */
  uint16_t lo = 0, hi = 0x7c00, sign = signbit(v) ? 0x8000 : 0;
  v = fabs(v);
  while (hi - lo > 1) {
    uint16_t mid = (uint16_t)((lo + hi) / 2);
    if (half(mid) <= v) lo = mid;
    else hi = mid;
  }
  double middle = hi == 0x7c00 ? 65520 : (half(lo) + half(hi)) / 2;
  return sign | (isnan(v) ? 0x7e00 : v > middle || (v == middle && lo & 1) ? hi : lo);
}
/* To nearest even, by search, within the range. */
static uint8_t to_eight(int type, double v) {
  uint8_t lo = 0, hi = type == E4M3 ? 0x7e : 0x7b, top = hi, sign = signbit(v) ? 0x80 : 0;
  double (*value)(uint32_t u) = type == E4M3 ? e4m3 : NULL;
  v = fabs(v);
  if (isnan(v)) return 0x7f;
  while (hi - lo > 1) {
    uint8_t mid = (uint8_t)((lo + hi) / 2);
    if ((value ? value(mid) : half((uint16_t)(mid << 8))) <= v) lo = mid;
    else hi = mid;
  }
  double a = value ? value(lo) : half((uint16_t)(lo << 8)), b = value ? value(hi) : half((uint16_t)(hi << 8)), middle = (a + b) / 2;
  if (hi == top && v >= b) return sign | top;
  return sign | (v > middle || (v == middle && lo & 1) ? hi : lo);
}
static void store(int type, char *p, int64_t at, double v) {
  float f = (float)v;
  uint32_t u;
  memcpy(&u, &f, 4);
  switch (type) {
  case F32: ((float *)p)[at] = f; break;
  case F64: ((double *)p)[at] = v; break;
  case I32: ((int32_t *)p)[at] = (int32_t)v; break;
  case F16: ((uint16_t *)p)[at] = to_half(v); break;
  case E4M3:
  case E5M2: ((uint8_t *)p)[at] = to_eight(type, v); break;
  default: ((uint16_t *)p)[at] = (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
  }
}

typedef struct work {
  desc d;
  layout a, b, c, y;
  double alpha, beta;
  const char *pa, *pb, *pc;
  char *py;
} work;

static double element(const layout *l, const char *p, int turned, int64_t i, int64_t j, int64_t batch) { return load(l->type, p, batch * l->step + (turned ? j + i * l->ld : i + j * l->ld)); }

static void run(void *arg) {
  const work *w = arg;
  int64_t depth = (int64_t)(w->d.turn_a ? w->a.rows : w->a.cols);
  for (int64_t s = 0; s < w->y.batch; s++)
    for (int64_t j = 0; j < (int64_t)w->y.cols; j++)
      for (int64_t i = 0; i < (int64_t)w->y.rows; i++) {
        double sum = 0;
        for (int64_t k = 0; k < depth; k++) sum += element(&w->a, w->pa, w->d.turn_a, i, k, s) * element(&w->b, w->pb, w->d.turn_b, k, j, s);
        sum *= w->alpha;
        if (w->d.scales[0]) sum *= w->d.scales[0][w->d.scale_mode[0] ? i : 0];
        if (w->d.scales[1]) sum *= w->d.scales[1][w->d.scale_mode[1] ? j : 0];
        if (w->beta) sum += w->beta * element(&w->c, w->pc, 0, i, j, s);
        if (w->d.epilogue & BIAS) sum += load(w->d.bias_type, w->d.bias, i);
        if (w->d.epilogue & RELU) sum = fmax(sum, 0);
        if (w->d.epilogue & GELU) sum = 0.5 * sum * (1 + tanh(0.79788456080286535588 * (sum + 0.044715 * sum * sum * sum)));
        store(w->y.type, w->py, s * w->y.step + i + j * w->y.ld, sum);
      }
}

int cublasLtMatmul(void *h, const desc *d, const void *alpha, const char *pa, const layout *a, const char *pb, const layout *b, const void *beta, const char *pc, const layout *c, char *py, const layout *y,
                   const algorithm *x, void *workspace, size_t room, int (**stream)(void *stream, void (*f)(void *), const void *arg, size_t size)) {
  heuristic needs;
  if (cublasLtMatmulAlgoCheck(h, d, a, b, c, y, x, &needs) || needs.workspace > room || (room && !workspace) || asked("fail")) return EXECUTION_FAILED;
  work w = {*d, *a, *b, *c, *y, load(d->scale, alpha, 0), load(d->scale, beta, 0), pa, pb, pc, py};
  return (*stream)(stream, run, &w, sizeof w);
}
