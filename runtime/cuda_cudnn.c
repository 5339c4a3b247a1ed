/* cuda_cudnn.c — see cuda_cudnn.h. */
#include "runtime/cuda_cudnn.h"
#include "runtime/cuda_lib.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the library: descriptors, attributes and types that are used, by their numbers ---- */

enum { POINTWISE = 0, CONVOLUTION = 1, ENGINE = 2, CONFIG = 3, HEURISTICS = 4, PLAN = 5, KNOB = 7, OP_CONV = 10, OP_POINTWISE = 13, GRAPH = 15, VARIANT = 16, TENSOR = 17, DEVICE = 38 };
enum { T_DATA_TYPE = 1, T_BOOLEAN = 2, T_INT64 = 3, T_FLOAT = 4, T_DOUBLE = 5, T_POINTER = 6, T_CONV_MODE = 7, T_HEUR_MODE = 8, T_KNOB = 9, T_NUMERICAL = 11, T_POINTWISE_MODE = 14, T_DESCRIPTOR = 15, T_BEHAVIOR = 19, T_CHAR = 24 };
enum { FAILED = -1, MODES = 3, MOST = 64, NOTES = 16 };

typedef struct dnn {
  tn_ctx *ctx;
  int (*create)(int type, void **d);
  int (*destroy)(void *d);
  int (*finalize)(void *d);
  int (*set)(void *d, int attribute, int type, int64_t n, const void *values);
  int (*get)(void *d, int attribute, int type, int64_t room, int64_t *n, void *values);
  void (*message)(char *text, size_t size);
  int n, room;
  void **made; /* all descriptors, destroyed at the end */
  int status;  /* of the first call that failed */
  int ntried;
  const char *tried[MODES * MOST]; /* texts of configurations, those left out as well */
  char why[256];
} dnn;

static bool open_dnn(dnn *l, const char **why) {
  const rt_cuda_lib *lib = rt_cuda_library(RT_CUDA_DNN);
  *why = lib->why;
  if (!lib->handle) return false;
  l->create = (int (*)(int, void **))rt_cuda_symbol(RT_CUDA_DNN, "cudnnBackendCreateDescriptor");
  l->destroy = (int (*)(void *))rt_cuda_symbol(RT_CUDA_DNN, "cudnnBackendDestroyDescriptor");
  l->finalize = (int (*)(void *))rt_cuda_symbol(RT_CUDA_DNN, "cudnnBackendFinalize");
  l->set = (int (*)(void *, int, int, int64_t, const void *))rt_cuda_symbol(RT_CUDA_DNN, "cudnnBackendSetAttribute");
  l->get = (int (*)(void *, int, int, int64_t, int64_t *, void *))rt_cuda_symbol(RT_CUDA_DNN, "cudnnBackendGetAttribute");
  l->message = (void (*)(char *, size_t))rt_cuda_symbol(RT_CUDA_DNN, "cudnnGetLastErrorString");
  if (l->create && l->destroy && l->finalize && l->set && l->get && lib->version >= 90800) return true;
  *why = ir_format(l->ctx, "cuDNN %d has no plans without a device: 9.8 and newer do", lib->version);
  return false;
}

static void failed(dnn *l, const char *what, int status) {
  if (l->status) return;
  l->status = status;
  char said[160] = "";
  if (l->message) l->message(said, sizeof said);
  said[sizeof said - 1] = 0;
  snprintf(l->why, sizeof l->why, "cuDNN: %s: status %d%s%s", what, status, *said ? ": " : "", said);
}

static void *make(dnn *l, int type) {
  void *d = NULL;
  int status = l->create(type, &d);
  if (status) return failed(l, "a descriptor", status), NULL;
  if (l->n == l->room) {
    void **more = IR_NEW_ARRAY(l->ctx, void *, l->room = l->room ? 2 * l->room : 64);
    if (l->n) memcpy(more, l->made, (size_t)l->n * sizeof *more);
    l->made = more;
  }
  return l->made[l->n++] = d;
}

static void put(dnn *l, void *d, int attribute, int type, int64_t n, const void *values) {
  int status = d ? l->set(d, attribute, type, n, values) : FAILED;
  if (status) failed(l, ir_format(l->ctx, "attribute %d", attribute), status);
}
static void put_enum(dnn *l, void *d, int attribute, int type, int value) { put(l, d, attribute, type, 1, &value); }
static void put_int(dnn *l, void *d, int attribute, int64_t value) { put(l, d, attribute, T_INT64, 1, &value); }
static void put_descriptor(dnn *l, void *d, int attribute, void *value) { put(l, d, attribute, T_DESCRIPTOR, 1, &value); }
static void finish(dnn *l, void *d, const char *what) {
  int status = d && !l->status ? l->finalize(d) : FAILED;
  if (status) failed(l, what, status);
}

static void close_dnn(dnn *l) {
  while (l->n) l->destroy(l->made[--l->n]);
}

/* ---- the device that is planned for ---- */

/* The properties as cuDNN serialises them. Clocks and memory are of the usual card: H200, A100. */
static void *device_of(dnn *l, const cu_target *t) {
  bool h = t->sm >= 90;
  const char *json = ir_format(l->ctx,
      "{\"deviceName\":\"%s\",\"cudaDeviceId\":0,\"deviceVer\":%d,\"driverVer\":13000,\"totalGlobalMem\":%lld,\"regsPerBlock\":%d,\"multiProcessorCount\":%d,"
      "\"smClockRateKHz\":%d,\"memClockRateKHz\":%d,\"l2CacheSize\":%d,\"warpSize\":32,\"maxSharedMemoryPerBlock\":49152,\"maxSharedMemoryPerBlockOptin\":%lld,"
      "\"reservedSharedMemoryPerBlock\":1024,\"maxRegistersPerSM\":%d,\"pciDeviceId\":0,\"maxCtasPerSM\":32,\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":2048,"
      "\"isTccDriver\":0,\"supportCoopLaunch\":1,\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64]}",
      h ? "NVIDIA H200" : "NVIDIA A100-SXM4-80GB", t->sm * 10, h ? 150000000000ll : 85000000000ll, t->registers, t->multiprocessors, h ? 1980000 : 1410000, h ? 3201000 : 1593000,
      h ? 62914560 : 41943040, (long long)t->shared_bytes, t->registers);
  void *d = make(l, DEVICE);
  put(l, d, 2702, T_CHAR, (int64_t)strlen(json), json);
  finish(l, d, "device properties");
  return d;
}

/* ---- the operation graph ---- */

static int data_type(tn_dtype t) { return t == TN_BF16 ? 9 : t == TN_F16 ? 2 : 0; }

enum { ID_X = 1, ID_W = 2, ID_OTHER = 10, ID_Y = 20 /* then one for each step */ };

static void *tensor(dnn *l, const rt_dnn_tensor *t, int id, bool between) {
  void *d = make(l, TENSOR);
  int64_t size[4];
  for (int i = 0; i < 4; i++) size[i] = t->size[i];
  put_enum(l, d, 901, T_DATA_TYPE, between ? 0 : data_type(t->dtype));
  put(l, d, 902, T_INT64, 4, size);
  put(l, d, 903, T_INT64, 4, t->stride);
  put_int(l, d, 906, id);
  put_int(l, d, 900, 16);
  if (between) put(l, d, 907, T_BOOLEAN, 1, &(bool){true});
  finish(l, d, "a tensor");
  return d;
}

static void *convolution(dnn *l, const rt_dnn_conv *c, void *x, void *w, void *y) {
  void *d = make(l, CONVOLUTION), *op = make(l, OP_CONV);
  put_enum(l, d, 100, T_DATA_TYPE, 0);
  put_enum(l, d, 101, T_CONV_MODE, 1); /* cross-correlation */
  put(l, d, 102, T_INT64, 2, c->dilation);
  put(l, d, 103, T_INT64, 2, c->stride);
  put(l, d, 104, T_INT64, 2, c->after);
  put(l, d, 105, T_INT64, 2, c->before);
  put_int(l, d, 106, 2);
  finish(l, d, "the convolution");
  put(l, op, 700, T_FLOAT, 1, &(float){1});
  put(l, op, 701, T_FLOAT, 1, &(float){0});
  put_descriptor(l, op, 702, d);
  put_descriptor(l, op, 703, w);
  put_descriptor(l, op, 704, x);
  put_descriptor(l, op, 705, y);
  finish(l, op, "the convolution's operation");
  return op;
}

static void *pointwise(dnn *l, const rt_dnn_conv *c, int i, void *from, void *to) {
  bool add = c->steps[i].op == RT_DNN_ADD;
  void *d = make(l, POINTWISE), *op = make(l, OP_POINTWISE);
  put_enum(l, d, 0, T_POINTWISE_MODE, add ? 0 : 100);
  put_enum(l, d, 1, T_DATA_TYPE, 0);
  if (!add && isfinite(c->steps[i].top)) put(l, d, 4, T_DOUBLE, 1, &c->steps[i].top);
  finish(l, d, "a step");
  put_descriptor(l, op, 750, d);
  put_descriptor(l, op, 751, from);
  if (add) put_descriptor(l, op, 752, tensor(l, &c->steps[i].other, ID_OTHER + i, false));
  put_descriptor(l, op, 753, to);
  finish(l, op, "a step's operation");
  return op;
}

static void *graph_of(dnn *l, const rt_dnn_conv *c) {
  void *ops[RT_DNN_STEPS + 1], *at = tensor(l, &c->y, ID_Y, c->nsteps > 0);
  ops[0] = convolution(l, c, tensor(l, &c->x, ID_X, false), tensor(l, &c->w, ID_W, false), at);
  for (int i = 0; i < c->nsteps; i++) {
    void *to = tensor(l, &c->y, ID_Y + 1 + i, i + 1 < c->nsteps);
    ops[i + 1] = pointwise(l, c, i, at, to);
    at = to;
  }
  void *g = make(l, GRAPH);
  put(l, g, 801, T_DESCRIPTOR, c->nsteps + 1, ops);
  finish(l, g, "the graph of operations");
  return g;
}

/* ---- plans ---- */

static const char *const numerical[] = {"tensor cores", "inputs rounded", "sums of less precision", "FFT", "order of sums varies", "Winograd", "Winograd 4x4", "Winograd 6x6", "Winograd 13x13", "NaN kept"};
static const char *const behavior[] = {"compiled at run time", "filter reordered", "bias reordered", "CUDA graph native", "needs cuBLASLt"};

static void put_notes(dnn *l, void *engine, int attribute, int type, const char *const *names, int nnames, ir_text *t, bool *inexact) {
  int notes[NOTES];
  int64_t n = 0;
  if (l->get(engine, attribute, type, NOTES, &n, notes)) return;
  for (int i = 0; i < n && i < NOTES; i++) {
    if (t->n) ir_put(t, ", ");
    if (notes[i] >= 0 && notes[i] < nnames) ir_put(t, "%s", names[notes[i]]);
    else ir_put(t, "note %d", notes[i]);
    if (inexact && notes[i] >= 0 && notes[i] <= 2) *inexact = true;
  }
}

static const char *name_of(tn_ctx *ctx) {
  int version = rt_cuda_library(RT_CUDA_DNN)->version;
  return ir_format(ctx, "cudnn %d.%d.%d engine ", version / 10000, version / 100 % 100, version % 100);
}

static const char *text_of(dnn *l, void *config, int64_t engine) {
  ir_text t = {.ctx = l->ctx};
  ir_put(&t, "%s%lld", name_of(l->ctx), (long long)engine);
  void *knobs[32];
  int64_t n = 0, one;
  for (int i = 0; i < IR_COUNT(knobs); i++) knobs[i] = make(l, KNOB);
  if (l->status || l->get(config, 302, T_DESCRIPTOR, IR_COUNT(knobs), &n, knobs)) return t.s;
  for (int i = 0; i < n && i < IR_COUNT(knobs); i++) {
    int type = 0;
    int64_t value = 0;
    if (l->get(knobs[i], 600, T_KNOB, 1, &one, &type) || l->get(knobs[i], 601, T_INT64, 1, &one, &value)) continue;
    ir_put(&t, "%s%d=%lld", i ? " " : " knobs ", type, (long long)value);
  }
  return t.s;
}

static bool seen(dnn *l, const char *text) {
  for (int i = 0; i < l->ntried; i++)
    if (strcmp(l->tried[i], text) == 0) return true;
  l->tried[l->ntried++] = text;
  return false;
}

/* The plan of one configuration goes to the list; what is refused is counted. */
static void plan_one(dnn *l, void *device, void *config, const rt_dnn_conv *c, const rt_cuda_candidate_options *o, rt_cuda_candidates *r) {
  void *engine = make(l, ENGINE), *plan = make(l, PLAN);
  int64_t n = 0, number = 0;
  rt_cuda_candidate x = {0};
  ir_text notes = {.ctx = l->ctx};
  bool inexact = false;
  if (l->status || l->get(config, 300, T_DESCRIPTOR, 1, &n, &engine) || l->get(engine, 1301, T_INT64, 1, &n, &number)) return;
  x.text = text_of(l, config, number);
  if (seen(l, x.text)) return;
  put_notes(l, engine, 1303, T_NUMERICAL, numerical, IR_COUNT(numerical), &notes, &inexact);
  put_notes(l, engine, 1305, T_BEHAVIOR, behavior, IR_COUNT(behavior), &notes, NULL);
  if (o->ieee && c->x.dtype == TN_F32 && inexact) {
    r->inexact++;
    return;
  }
  if (l->set(plan, 401, T_DESCRIPTOR, 1, &config) || l->set(plan, 407, T_DESCRIPTOR, 1, &device) || l->finalize(plan) ||
      l->get(plan, 402, T_INT64, 1, &n, &x.workspace)) {
    r->refused++;
    return;
  }
  if (o->workspace && x.workspace > o->workspace) {
    r->large++;
    return;
  }
  x.notes = notes.s ? notes.s : "";
  r->list[r->n++] = x;
}

static int configs_of(dnn *l, int mode, void *graph, void *device, void **configs) {
  void *h = make(l, HEURISTICS);
  put_descriptor(l, h, 201, graph);
  put_enum(l, h, 200, T_HEUR_MODE, mode);
  put_descriptor(l, h, 204, device);
  int64_t n = 0;
  if (l->status || l->finalize(h)) return 0; /* a mode that knows nothing of this graph */
  for (int i = 0; i < MOST; i++) configs[i] = make(l, CONFIG);
  if (l->status || l->get(h, 202, T_DESCRIPTOR, MOST, &n, configs)) return 0;
  return n < MOST ? (int)n : MOST;
}

static const int modes[MODES] = {1, 3, 2}; /* B, A, fallback */

rt_cuda_candidates rt_dnn_candidates(tn_ctx *ctx, const cu_target *t, const rt_dnn_conv *c, const rt_cuda_candidate_options *o) {
  rt_cuda_candidates r = {.list = IR_NEW_ARRAY(ctx, rt_cuda_candidate, MODES * MOST)};
  dnn l = {.ctx = ctx};
  if (!open_dnn(&l, &r.why)) return r;
  void *device = device_of(&l, t), *graph = graph_of(&l, c);
  for (int i = 0; i < MODES && !l.status; i++) {
    void *configs[MOST];
    int n = configs_of(&l, modes[i], graph, device, configs);
    for (int k = 0; k < n; k++) plan_one(&l, device, configs[k], c, o, &r);
  }
  close_dnn(&l);
  if (l.status && !r.n) r.why = ir_strdup(ctx, l.why);
  else if (!r.n) r.why = ir_format(ctx, "cuDNN: no plan (%d of less precision, %d refused, %d above the workspace)", r.inexact, r.refused, r.large);
  return r;
}

/* ---- a plan that runs ---- */

struct rt_dnn_plan {
  dnn l;
  void *handle, *plan;
  int64_t workspace;
  int n;               /* tensors: their numbers in the graph, and of the kernel's parameters */
  int64_t id[3 + RT_DNN_STEPS];
  int param[3 + RT_DNN_STEPS];
  int (*destroy_handle)(void *handle);
  int (*execute)(void *handle, void *plan, void *variant);
};

bool rt_dnn_is_plan(const char *text) { return strncmp(text, "cudnn ", 6) == 0; }

bool rt_dnn_is_current(tn_ctx *ctx, const char *text) {
  const char *name = name_of(ctx);
  return rt_cuda_library(RT_CUDA_DNN)->handle && strncmp(text, name, strlen(name)) == 0;
}

static bool find_plan(rt_dnn_plan *p, void *graph, void *device, const char *text) {
  dnn *l = &p->l;
  for (int i = 0; i < MODES && !l->status; i++) {
    void *configs[MOST];
    int count = configs_of(l, modes[i], graph, device, configs);
    for (int k = 0; k < count; k++) {
      void *engine = make(l, ENGINE);
      int64_t n = 0, number = 0;
      if (l->status || l->get(configs[k], 300, T_DESCRIPTOR, 1, &n, &engine) || l->get(engine, 1301, T_INT64, 1, &n, &number)) return false;
      if (strcmp(text_of(l, configs[k], number), text)) continue;
      p->plan = make(l, PLAN);
      put_descriptor(l, p->plan, 401, configs[k]);
      put_descriptor(l, p->plan, 407, device);
      finish(l, p->plan, "a plan");
      return !l->status && l->get(p->plan, 402, T_INT64, 1, &n, &p->workspace) == 0;
    }
  }
  return false;
}

static void takes(rt_dnn_plan *p, int64_t id, const rt_dnn_tensor *t) {
  p->id[p->n] = id;
  p->param[p->n++] = t->param;
}

rt_dnn_plan *rt_dnn_plan_new(tn_ctx *ctx, const cu_target *t, const rt_dnn_conv *c, const char *text, void *stream, const char **why) {
  rt_dnn_plan *p = IR_NEW(ctx, rt_dnn_plan);
  p->l.ctx = ctx;
  if (!open_dnn(&p->l, why)) return NULL;
  int (*create)(void **handle) = (int (*)(void **))rt_cuda_symbol(RT_CUDA_DNN, "cudnnCreate");
  int (*stream_of)(void *handle, void *stream) = (int (*)(void *, void *))rt_cuda_symbol(RT_CUDA_DNN, "cudnnSetStream");
  p->destroy_handle = (int (*)(void *))rt_cuda_symbol(RT_CUDA_DNN, "cudnnDestroy");
  p->execute = (int (*)(void *, void *, void *))rt_cuda_symbol(RT_CUDA_DNN, "cudnnBackendExecute");
  int status = create && stream_of && p->destroy_handle && p->execute ? create(&p->handle) : FAILED;
  if (!status) status = stream_of(p->handle, stream);
  if (!status) {
    takes(p, ID_X, &c->x);
    takes(p, ID_W, &c->w);
    takes(p, ID_Y + c->nsteps, &c->y);
    for (int i = 0; i < c->nsteps; i++)
      if (c->steps[i].op == RT_DNN_ADD) takes(p, ID_OTHER + i, &c->steps[i].other);
    if (find_plan(p, graph_of(&p->l, c), device_of(&p->l, t), text)) return p;
  }
  *why = ir_format(ctx, "%s: %s", text, status ? ir_format(ctx, "cuDNN gives no handle: status %d", status) : *p->l.why ? p->l.why : "cuDNN offers no such plan");
  rt_dnn_plan_free(p);
  return NULL;
}

void rt_dnn_plan_free(rt_dnn_plan *p) {
  close_dnn(&p->l);
  if (p->handle) p->destroy_handle(p->handle);
  p->handle = NULL;
}

int64_t rt_dnn_plan_workspace(const rt_dnn_plan *p) { return p->workspace; }

int rt_dnn_plan_run(rt_dnn_plan *p, const unsigned long long *memory, unsigned long long workspace) {
  void *variant = NULL, *at[3 + RT_DNN_STEPS], *room = (void *)(uintptr_t)workspace;
  for (int i = 0; i < p->n; i++) at[i] = (void *)(uintptr_t)memory[p->param[i]];
  int status = p->l.create(VARIANT, &variant);
  if (!status) status = p->l.set(variant, 1000, T_INT64, p->n, p->id);
  if (!status) status = p->l.set(variant, 1001, T_POINTER, p->n, at);
  if (!status) status = p->l.set(variant, 1003, T_POINTER, 1, &room);
  if (!status) status = p->l.finalize(variant);
  if (!status) status = p->execute(p->handle, p->plan, variant);
  if (variant) p->l.destroy(variant);
  return status;
}
