/* cuda_blaslt.c — see cuda_blaslt.h. */
#include "runtime/cuda_blaslt.h"
#include "runtime/cuda_lib.h"
#include <stdlib.h>
#include <string.h>

/* ---- the library: types and attributes that are used, by their numbers ---- */

enum { COMPUTE_32F = 68, COMPUTE_64F = 70, COMPUTE_32I = 72, COMPUTE_TF32 = 77 };
enum { DESC_TURN_A = 3, DESC_TURN_B = 4, DESC_EPILOGUE = 7, DESC_BIAS = 8, DESC_SCALE_A = 17 /* then b */, DESC_FAST = 25, DESC_BIAS_TYPE = 26, DESC_SCALES_A = 31 /* how many: then b */ };
enum { SCALES_OF_ROWS = 3 };
enum { EPILOGUE_NONE = 1, EPILOGUE_RELU = 2, EPILOGUE_BIAS = 4, EPILOGUE_GELU = 32 };
enum { LAYOUT_BATCH = 5, LAYOUT_STEP = 6 };
enum { PREFER_WORKSPACE = 1, PREFER_REDUCTIONS = 3, PREFER_ALIGNMENT_A = 5 /* then b, c, d */ };
enum { REDUCTION_IN_PLACE = 1, REDUCTION_SUM_TYPE = 2, REDUCTION_RESULT_TYPE = 4 };
enum { CAP_NUMERICS = 15, ALIGNMENT = 16, MOST = 16, FAILED = -1 };

/* How an algorithm computes (CAP_NUMERICS). */
enum { BY_TENSOR_CORES = 0x0e, BY_DOUBLE_CORES = 0x08, SUMS_F16 = 0x100, INPUT_F16 = 0x10000, INPUT_BF16 = 0x20000, INPUT_TF32 = 0x40000 };

typedef struct algorithm {
  uint64_t data[8];
} algorithm;

typedef struct heuristic {
  algorithm algo;
  size_t workspace;
  int state;
  float waves;
  int reserved[4];
} heuristic;

/* What an algorithm is made of, in the order of its text; `size`: of the attribute, in bytes. */
static const struct {
  const char *name;
  int attribute;
  size_t size;
} config[] = {{"algo", 0, 4}, {"tile", 1, 4}, {"splitk", 2, 4}, {"reduction", 3, 4}, {"swizzle", 4, 4}, {"custom", 5, 4}, {"stages", 6, 4}, {"inner", 7, 2}, {"cluster", 8, 2}};

#define LT_ROWS(ROW)                                                                                                              \
  ROW(create, "cublasLtCreate", (void **handle))                                                                                  \
  ROW(destroy, "cublasLtDestroy", (void *handle))                                                                                 \
  ROW(desc_new, "cublasLtMatmulDescCreate", (void **desc, int compute, int scale))                                                \
  ROW(desc_free, "cublasLtMatmulDescDestroy", (void *desc))                                                                       \
  ROW(desc_set, "cublasLtMatmulDescSetAttribute", (void *desc, int attribute, const void *value, size_t size))                    \
  ROW(layout_new, "cublasLtMatrixLayoutCreate", (void **layout, int type, uint64_t rows, uint64_t cols, int64_t ld))              \
  ROW(layout_free, "cublasLtMatrixLayoutDestroy", (void *layout))                                                                 \
  ROW(layout_set, "cublasLtMatrixLayoutSetAttribute", (void *layout, int attribute, const void *value, size_t size))              \
  ROW(prefer_new, "cublasLtMatmulPreferenceCreate", (void **preference))                                                          \
  ROW(prefer_free, "cublasLtMatmulPreferenceDestroy", (void *preference))                                                         \
  ROW(prefer_set, "cublasLtMatmulPreferenceSetAttribute", (void *preference, int attribute, const void *value, size_t size))      \
  ROW(rank, "cublasLtMatmulAlgoGetHeuristic", (void *handle, void *desc, void *a, void *b, void *c, void *d, void *preference,    \
                                               int room, heuristic *found, int *n))                                               \
  ROW(algo_new, "cublasLtMatmulAlgoInit", (void *handle, int compute, int scale, int a, int b, int c, int d, int id, algorithm *algo)) \
  ROW(algo_check, "cublasLtMatmulAlgoCheck", (void *handle, void *desc, void *a, void *b, void *c, void *d, const algorithm *algo, heuristic *found)) \
  ROW(algo_get, "cublasLtMatmulAlgoConfigGetAttribute", (const algorithm *algo, int attribute, void *value, size_t size, size_t *written)) \
  ROW(algo_set, "cublasLtMatmulAlgoConfigSetAttribute", (algorithm * algo, int attribute, const void *value, size_t size))        \
  ROW(algo_cap, "cublasLtMatmulAlgoCapGetAttribute", (const algorithm *algo, int attribute, void *value, size_t size, size_t *written)) \
  ROW(multiply, "cublasLtMatmul", (void *handle, void *desc, const void *alpha, const void *pa, void *a, const void *pb, void *b, \
                                   const void *beta, const void *pc, void *c, void *pd, void *d, const algorithm *algo, void *workspace, size_t room, void *stream))

typedef struct lt {
#define ROW(field, symbol, parameters) int(*field) parameters;
  LT_ROWS(ROW)
#undef ROW
  void *handle, *desc, *a, *b, *c, *d;
  int compute, scale;
  bool fast; /* sums of 8-bit floats as tensor cores keep them */
  int status; /* of the first call that failed, whose name is `what` */
  const char *what;
} lt;

static bool open_library(tn_ctx *ctx, lt *l, const char **why) {
  const rt_cuda_lib *lib = rt_cuda_library(RT_CUDA_BLASLT);
  if (!lib->handle) return *why = ir_format(ctx, "cuBLASLt: %s", lib->why), false;
  struct { void **place; const char *symbol; } rows[] = {
#define ROW(field, symbol, parameters) {(void **)&l->field, symbol},
      LT_ROWS(ROW)
#undef ROW
  };
  for (int i = 0; i < IR_COUNT(rows); i++)
    if (!(*rows[i].place = rt_cuda_symbol(RT_CUDA_BLASLT, rows[i].symbol))) return *why = ir_format(ctx, "cuBLASLt %d has no function %s", lib->version, rows[i].symbol), false;
  return true;
}

static void check(lt *l, int status, const char *what) {
  if (status && !l->status) l->status = status, l->what = what;
}

/* ---- descriptors ---- */

static int data_type(tn_dtype t) {
  static const struct { tn_dtype t; int number; } rows[] = {{TN_F64, 1}, {TN_F16, 2}, {TN_I8, 3}, {TN_I32, 10}, {TN_BF16, 14}, {TN_F8E4M3FN, 28}, {TN_F8E5M2, 29}};
  for (int i = 0; i < IR_COUNT(rows); i++)
    if (rows[i].t == t) return rows[i].number;
  return 0; /* f32 */
}

static void *layout_of(lt *l, const rt_lt_product *p, const rt_lt_matrix *m) {
  void *x = NULL;
  check(l, l->layout_new(&x, data_type(m->dtype), (uint64_t)m->rows, (uint64_t)m->cols, m->ld), "a layout");
  if (x && p->batch > 1) {
    check(l, l->layout_set(x, LAYOUT_BATCH, &(int32_t){(int32_t)p->batch}, 4), "a batch");
    check(l, l->layout_set(x, LAYOUT_STEP, &m->step, 8), "a batch");
  }
  return x;
}

static bool is_eight(tn_dtype t) { return t == TN_F8E4M3FN || t == TN_F8E5M2; }

static void describe(lt *l, const rt_lt_product *p, int compute) {
  int32_t epilogue = (p->bias >= 0 ? EPILOGUE_BIAS : 0) | (p->relu ? EPILOGUE_RELU : 0) | (p->gelu ? EPILOGUE_GELU : 0), turn_a = p->a.turned, turn_b = p->b.turned, type = data_type(p->bias_dtype);
  l->compute = compute;
  l->scale = data_type(p->sum);
  check(l, l->desc_new(&l->desc, compute, l->scale), "a descriptor");
  l->a = layout_of(l, p, &p->a);
  l->b = layout_of(l, p, &p->b);
  rt_lt_matrix c = p->c.param < 0 ? p->y : p->c;
  if (is_eight(c.dtype)) c.dtype = TN_BF16; /* what is added to such a result; here nothing */
  l->c = layout_of(l, p, &c);
  l->d = layout_of(l, p, &p->y);
  if (l->status) return;
  if (!epilogue) epilogue = EPILOGUE_NONE;
  check(l, l->desc_set(l->desc, DESC_TURN_A, &turn_a, 4), "a turned operand");
  check(l, l->desc_set(l->desc, DESC_TURN_B, &turn_b, 4), "a turned operand");
  check(l, l->desc_set(l->desc, DESC_EPILOGUE, &epilogue, 4), "an epilogue");
  void *aligned = (void *)(uintptr_t)ALIGNMENT; /* all that the heuristics look at */
  if (l->fast) check(l, l->desc_set(l->desc, DESC_FAST, &(int8_t){1}, 1), "sums in tensor cores");
  for (int i = 0; i < 2; i++) {
    if (p->vectors) check(l, l->desc_set(l->desc, DESC_SCALES_A + i, &(int32_t){SCALES_OF_ROWS}, 4), "scales of rows");
    if (p->scales[i].param >= 0) check(l, l->desc_set(l->desc, DESC_SCALE_A + i, &aligned, sizeof aligned), "a scale");
  }
  if (p->bias < 0) return;
  check(l, l->desc_set(l->desc, DESC_BIAS, &aligned, sizeof aligned), "a bias");
  check(l, l->desc_set(l->desc, DESC_BIAS_TYPE, &type, 4), "a bias");
}

/* Where descriptors are made, which takes no device: what the handle, which does, is for. */
static bool open_handle(tn_ctx *ctx, lt *l, const char **why) {
  int status = l->status ? FAILED : l->create(&l->handle);
  if (l->status) *why = ir_format(ctx, "cuBLASLt: %s: status %d", l->what, l->status);
  else if (status) *why = ir_format(ctx, "cuBLASLt: no handle without a device (status %d)", status);
  return !status;
}

static void forget(lt *l) {
  void **layouts[] = {&l->a, &l->b, &l->c, &l->d};
  for (int i = 0; i < IR_COUNT(layouts); i++) {
    if (*layouts[i]) l->layout_free(*layouts[i]);
    *layouts[i] = NULL;
  }
  if (l->desc) l->desc_free(l->desc);
  l->desc = NULL;
}

static void close_library(lt *l) {
  forget(l);
  if (l->handle) l->destroy(l->handle);
  l->handle = NULL;
}

/* ---- texts ---- */

#define FAST " fast"

static const char *name_of(tn_ctx *ctx) {
  int version = rt_cuda_library(RT_CUDA_BLASLT)->version;
  return ir_format(ctx, "cublaslt %d.%d.%d compute ", version / 10000, version / 100 % 100, version % 100);
}

bool rt_lt_is_plan(const char *text) { return strncmp(text, "cublaslt ", 9) == 0; }

bool rt_lt_is_current(tn_ctx *ctx, const char *text) {
  const char *name = name_of(ctx);
  return rt_cuda_library(RT_CUDA_BLASLT)->handle && strncmp(text, name, strlen(name)) == 0;
}

static const char *text_of(tn_ctx *ctx, const lt *l, const algorithm *a) {
  ir_text t = {.ctx = ctx};
  ir_put(&t, "%s%d", name_of(ctx), l->compute);
  for (int i = 0; i < IR_COUNT(config); i++) {
    union { uint32_t word; uint16_t half; } v = {0};
    size_t written;
    if (l->algo_get(a, config[i].attribute, &v, config[i].size, &written)) v.word = 0; /* one that this algorithm, or version, does not have */
    ir_put(&t, " %s %u", config[i].name, config[i].size == 2 ? v.half : v.word);
  }
  if (l->fast) ir_put(&t, FAST);
  return ir_text_str(&t);
}

/* The algorithm of a text; false when the library makes none of it. */
static bool algorithm_of(tn_ctx *ctx, lt *l, const rt_lt_product *p, const char *text, algorithm *a) {
  const char *s = text + strlen(name_of(ctx));
  s += strspn(s, "0123456789");
  for (int i = 0; i < IR_COUNT(config); i++) {
    size_t n = strlen(config[i].name);
    if (*s != ' ' || strncmp(s + 1, config[i].name, n) || s[n + 1] != ' ') return false;
    char *end;
    unsigned long v = strtoul(s + n + 2, &end, 10);
    if (end == s + n + 2) return false;
    s = end;
    uint32_t word = (uint32_t)v;
    uint16_t half = (uint16_t)v;
    int failed = i == 0 ? l->algo_new(l->handle, l->compute, l->scale, data_type(p->a.dtype), data_type(p->b.dtype), data_type(p->y.dtype), data_type(p->y.dtype), (int)v, a)
                        : l->algo_set(a, config[i].attribute, config[i].size == 2 ? (const void *)&half : &word, config[i].size);
    if (failed && (i == 0 || v)) return false;
  }
  return strcmp(s, l->fast ? FAST : "") == 0;
}

/* ---- the list ---- */

static const char *notes_of(tn_ctx *ctx, const lt *l, const rt_lt_product *p, uint64_t how, uint32_t pieces) {
  ir_text t = {.ctx = ctx};
  if (how & BY_TENSOR_CORES) ir_put(&t, "tensor cores");
  if (how & INPUT_TF32) ir_put(&t, "%sinputs rounded", t.n ? ", " : "");
  if (pieces > 1) ir_put(&t, "%ssum in %u pieces", t.n ? ", " : "", pieces);
  if (l->fast) ir_put(&t, "%ssums of 13 bits", t.n ? ", " : "");
  if (p->inexact) ir_put(&t, "%sGELU by tanh", t.n ? ", " : "");
  return ir_text_str(&t);
}

static void add_one(tn_ctx *ctx, const lt *l, const rt_lt_product *p, const heuristic *h, const rt_cuda_candidate_options *o, rt_cuda_candidates *r) {
  uint64_t how = 0;
  uint32_t pieces = 1;
  size_t written;
  if (h->state) {
    r->refused++;
    return;
  }
  l->algo_cap(&h->algo, CAP_NUMERICS, &how, sizeof how, &written);
  l->algo_get(&h->algo, 2, &pieces, sizeof pieces, &written);
  bool rounds = how & (INPUT_F16 | INPUT_BF16 | INPUT_TF32 | SUMS_F16) || (how & BY_TENSOR_CORES & ~(uint64_t)BY_DOUBLE_CORES);
  if (o->ieee && p->sum == TN_F32 && p->a.dtype == TN_F32 && (rounds || p->inexact)) {
    r->inexact++;
    return;
  }
  if (o->workspace && (int64_t)h->workspace > o->workspace) {
    r->large++;
    return;
  }
  const char *text = text_of(ctx, l, &h->algo);
  for (int i = 0; i < r->n; i++)
    if (strcmp(r->list[i].text, text) == 0) return;
  r->list[r->n++] = (rt_cuda_candidate){.text = text, .notes = notes_of(ctx, l, p, how, pieces), .workspace = (int64_t)h->workspace};
}

static void *preference_of(lt *l, const rt_lt_product *p, const rt_cuda_candidate_options *o) {
  void *x = NULL;
  uint64_t room = o->workspace ? (uint64_t)o->workspace : 64u << 20;
  bool wide = p->y.dtype == p->sum; /* what is added up in the result's type is no less precise then */
  uint32_t reductions = REDUCTION_SUM_TYPE | (wide ? REDUCTION_IN_PLACE | REDUCTION_RESULT_TYPE : 0);
  check(l, l->prefer_new(&x), "a preference");
  if (l->status) return x;
  check(l, l->prefer_set(x, PREFER_WORKSPACE, &room, sizeof room), "a workspace");
  check(l, l->prefer_set(x, PREFER_REDUCTIONS, &reductions, sizeof reductions), "reductions");
  for (int i = 0; i < 4; i++) check(l, l->prefer_set(x, PREFER_ALIGNMENT_A + i, &(uint32_t){ALIGNMENT}, 4), "an alignment");
  return x;
}

static void list_for(tn_ctx *ctx, lt *l, const rt_lt_product *p, int compute, const rt_cuda_candidate_options *o, rt_cuda_candidates *r) {
  heuristic found[MOST] = {0};
  int n = 0;
  describe(l, p, compute);
  if (!l->handle && !open_handle(ctx, l, &r->why)) {
    forget(l);
    return;
  }
  void *preference = preference_of(l, p, o);
  if (!l->status) check(l, l->rank(l->handle, l->desc, l->a, l->b, l->c, l->d, preference, MOST, found, &n), "heuristics");
  for (int i = 0; i < n && i < MOST; i++) add_one(ctx, l, p, &found[i], o, r);
  if (preference) l->prefer_free(preference);
  forget(l);
}

static int compute_of(const rt_lt_product *p) { return p->sum == TN_F64 ? COMPUTE_64F : p->sum == TN_I32 ? COMPUTE_32I : COMPUTE_32F; }

rt_cuda_candidates rt_lt_candidates(tn_ctx *ctx, const rt_lt_product *p, const rt_cuda_candidate_options *o) {
  rt_cuda_candidates r = {.list = IR_NEW_ARRAY(ctx, rt_cuda_candidate, 2 * MOST)};
  lt l = {0};
  if (!open_library(ctx, &l, &r.why)) return r;
  list_for(ctx, &l, p, compute_of(p), o, &r);
  l.fast = is_eight(p->a.dtype) && l.handle && !l.status;
  if (l.fast) list_for(ctx, &l, p, compute_of(p), o, &r);
  l.fast = false;
  if (p->sum == TN_F32 && p->a.dtype == TN_F32 && !o->ieee && l.handle && !l.status) list_for(ctx, &l, p, COMPUTE_TF32, o, &r);
  close_library(&l);
  if (r.n || r.why) return r;
  r.why = l.status ? ir_format(ctx, "cuBLASLt: %s: status %d", l.what, l.status) : ir_format(ctx, "cuBLASLt: no algorithm (%d of less precision, %d refused, %d above the workspace)", r.inexact, r.refused, r.large);
  return r;
}

/* ---- a plan that runs ---- */

struct rt_lt_plan {
  lt l;
  rt_lt_product p;
  algorithm algo;
  size_t workspace;
  void *stream;
};

rt_lt_plan *rt_lt_plan_new(tn_ctx *ctx, const rt_lt_product *p, const char *text, void *stream, const char **why) {
  rt_lt_plan *x = IR_NEW(ctx, rt_lt_plan);
  heuristic h = {0};
  *x = (rt_lt_plan){.p = *p, .stream = stream};
  if (!rt_lt_is_current(ctx, text)) return *why = ir_format(ctx, "%s: another version of cuBLASLt is there", text), NULL;
  if (!open_library(ctx, &x->l, why)) return NULL;
  size_t n = strlen(text), more = strlen(FAST);
  x->l.fast = n > more && strcmp(text + n - more, FAST) == 0;
  describe(&x->l, p, atoi(text + strlen(name_of(ctx))));
  if (!open_handle(ctx, &x->l, why)) {
    rt_lt_plan_free(x);
    return NULL;
  }
  bool made = algorithm_of(ctx, &x->l, p, text, &x->algo);
  if (made) check(&x->l, x->l.algo_check(x->l.handle, x->l.desc, x->l.a, x->l.b, x->l.c, x->l.d, &x->algo, &h), "checking it");
  if (made && !x->l.status && !h.state) {
    x->workspace = h.workspace;
    return x;
  }
  *why = x->l.status ? ir_format(ctx, "%s: %s: status %d", text, x->l.what, x->l.status) : ir_format(ctx, "%s: cuBLASLt offers no such algorithm", text);
  rt_lt_plan_free(x);
  return NULL;
}

void rt_lt_plan_free(rt_lt_plan *p) { close_library(&p->l); }

int64_t rt_lt_plan_workspace(const rt_lt_plan *p) { return (int64_t)p->workspace; }

static void *address(const rt_lt_matrix *m, const unsigned long long *memory) { return (void *)(uintptr_t)(memory[m->param] + (unsigned long long)m->at * ir_dtype_bytes(m->dtype)); }

typedef union number { /* in the type of the sum */
  float f;
  double d;
  int32_t i;
} number;

static number number_of(tn_dtype t, double v) { return t == TN_F64 ? (number){.d = v} : t == TN_I32 ? (number){.i = (int32_t)v} : (number){.f = (float)v}; }

int rt_lt_plan_run(rt_lt_plan *x, const unsigned long long *memory, unsigned long long workspace) {
  lt *l = &x->l;
  const rt_lt_product *p = &x->p;
  bool adds = p->c.param >= 0;
  number alpha = number_of(p->sum, p->scale), beta = number_of(p->sum, adds);
  const struct {
    int param, attribute;
    unsigned long long at;
  } vectors[] = {{p->bias, DESC_BIAS, (unsigned long long)p->bias_at * ir_dtype_bytes(p->bias_dtype)}, {p->scales[0].param, DESC_SCALE_A, 4ull * p->scales[0].at}, {p->scales[1].param, DESC_SCALE_A + 1, 4ull * p->scales[1].at}};
  for (int i = 0; i < IR_COUNT(vectors); i++) {
    if (vectors[i].param < 0) continue;
    void *at = (void *)(uintptr_t)(memory[vectors[i].param] + vectors[i].at);
    int status = l->desc_set(l->desc, vectors[i].attribute, &at, sizeof at);
    if (status) return status;
  }
  return l->multiply(l->handle, l->desc, &alpha, address(&p->a, memory), l->a, address(&p->b, memory), l->b, &beta, address(adds ? &p->c : &p->y, memory), l->c, address(&p->y, memory), l->d, &x->algo,
                     (void *)(uintptr_t)workspace, x->workspace, x->stream);
}
