/* cuda_cudnn.c — see cuda_cudnn.h. */
#include "runtime/cuda_cudnn_internal.h"
#include "runtime/cuda_lib.h"
#include <stdlib.h>
#include <string.h>

enum { NOTES = 16 };

/* ---- the library ---- */

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
  l->version = lib->version;
  if (l->create && l->destroy && l->finalize && l->set && l->get && lib->version >= 90800) return true;
  *why = ir_format(l->ctx, "cuDNN %d has no plans without a device: 9.8 and newer do", lib->version);
  return false;
}

/* What it says of the call before. */
static void ask(const dnn *l, char *said, size_t size) {
  *said = 0;
  if (l->message) l->message(said, size);
  said[size - 1] = 0;
}

static void failed(dnn *l, const char *what, int status) {
  if (l->status) return;
  l->status = status;
  char said[160];
  ask(l, said, sizeof said);
  snprintf(l->why, sizeof l->why, "cuDNN: %s: status %d%s%s", what, status, *said ? ": " : "", said);
}

void *dnn_make(dnn *l, int type) {
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

void dnn_put(dnn *l, void *d, int attribute, int type, int64_t n, const void *values) {
  int status = d ? l->set(d, attribute, type, n, values) : DNN_FAILED;
  if (status) failed(l, ir_format(l->ctx, "attribute %d", attribute), status);
}
void dnn_put_enum(dnn *l, void *d, int attribute, int type, int value) { dnn_put(l, d, attribute, type, 1, &value); }
void dnn_put_int(dnn *l, void *d, int attribute, int64_t value) { dnn_put(l, d, attribute, DNN_T_INT64, 1, &value); }
void dnn_put_descriptor(dnn *l, void *d, int attribute, void *value) { dnn_put(l, d, attribute, DNN_T_DESCRIPTOR, 1, &value); }
void dnn_finish(dnn *l, void *d, const char *what) {
  int status = d && !l->status ? l->finalize(d) : DNN_FAILED;
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
  void *d = dnn_make(l, DNN_DEVICE);
  dnn_put(l, d, 2702, DNN_T_CHAR, (int64_t)strlen(json), json);
  dnn_finish(l, d, "device properties");
  return d;
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
  return ir_format(ctx, "cudnn %d.%d.%d ", version / 10000, version / 100 % 100, version % 100);
}

static const char *text_of(dnn *l, const dnn_graph *g, void *config, int64_t engine) {
  ir_text t = {.ctx = l->ctx};
  ir_put(&t, "%s%sengine %lld", name_of(l->ctx), g->form, (long long)engine);
  void *knobs[32];
  int64_t n = 0, one;
  for (int i = 0; i < IR_COUNT(knobs); i++) knobs[i] = dnn_make(l, DNN_KNOB);
  if (l->status || l->get(config, 302, DNN_T_DESCRIPTOR, IR_COUNT(knobs), &n, knobs)) return t.s;
  for (int i = 0; i < n && i < IR_COUNT(knobs); i++) {
    int type = 0;
    int64_t value = 0;
    if (l->get(knobs[i], 600, DNN_T_KNOB, 1, &one, &type) || l->get(knobs[i], 601, DNN_T_INT64, 1, &one, &value)) continue;
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
static void plan_one(dnn *l, void *device, const dnn_graph *g, void *config, bool ieee, int64_t most, rt_cuda_candidates *r) {
  void *engine = dnn_make(l, DNN_ENGINE), *plan = dnn_make(l, DNN_PLAN);
  int64_t n = 0, number = 0;
  rt_cuda_candidate x = {0};
  ir_text notes = {.ctx = l->ctx};
  bool inexact = false;
  if (l->status || l->get(config, 300, DNN_T_DESCRIPTOR, 1, &n, &engine) || l->get(engine, 1301, DNN_T_INT64, 1, &n, &number)) return;
  x.text = text_of(l, g, config, number);
  if (seen(l, x.text)) return;
  put_notes(l, engine, 1303, DNN_T_NUMERICAL, numerical, IR_COUNT(numerical), &notes, &inexact);
  put_notes(l, engine, 1305, DNN_T_BEHAVIOR, behavior, IR_COUNT(behavior), &notes, NULL);
  if (ieee && inexact) {
    r->inexact++;
    return;
  }
  if (l->set(plan, 401, DNN_T_DESCRIPTOR, 1, &config) || l->set(plan, 407, DNN_T_DESCRIPTOR, 1, &device) || l->finalize(plan) ||
      l->get(plan, 402, DNN_T_INT64, 1, &n, &x.workspace)) {
    ask(l, l->refusal, sizeof l->refusal);
    r->refused++;
    return;
  }
  if (most && x.workspace > most) {
    r->large++;
    return;
  }
  x.notes = notes.s ? notes.s : "";
  r->list[r->n++] = x;
}

static int configs_of(dnn *l, int mode, void *graph, void *device, void **configs) {
  void *h = dnn_make(l, DNN_HEURISTICS);
  dnn_put_descriptor(l, h, 201, graph);
  dnn_put_enum(l, h, 200, DNN_T_HEUR_MODE, mode);
  dnn_put_descriptor(l, h, 204, device);
  int64_t n = 0;
  if (l->status || l->finalize(h)) return 0; /* a mode that knows nothing of this graph */
  for (int i = 0; i < DNN_MOST; i++) configs[i] = dnn_make(l, DNN_CONFIG);
  if (l->status || l->get(h, 202, DNN_T_DESCRIPTOR, DNN_MOST, &n, configs)) return 0;
  return n < DNN_MOST ? (int)n : DNN_MOST;
}

static const int modes[DNN_MODES] = {1, 3, 2}; /* B, A, fallback */

rt_cuda_candidates rt_dnn_candidates(tn_ctx *ctx, const cu_target *t, const rt_dnn_problem *p, const rt_cuda_candidate_options *o) {
  rt_cuda_candidates r = {.list = IR_NEW_ARRAY(ctx, rt_cuda_candidate, IR_COUNT(((dnn *)0)->tried))};
  dnn l = {.ctx = ctx};
  if (!open_dnn(&l, &r.why)) return r;
  if (p->attends) rt_cuda_stand_in();
  bool ieee = o->ieee && !p->attends && p->conv.x.dtype == TN_F32;
  void *device = device_of(&l, t), *configs[DNN_MOST];
  for (int form = 0; form < DNN_FORMS; form++, l.status = 0) { /* what this version does not take in one form it may take in the other */
    dnn_graph g;
    if (l.status || !dnn_graph_of(&l, p, form, &g)) continue;
    int before = l.ntried;
    for (int i = 0; i < DNN_MODES && !l.status; i++) {
      if (p->attends && i == DNN_MODES - 1 && l.ntried > before) break; /* the same engines again, all knobs left open */
      int n = configs_of(&l, modes[i], g.graph, device, configs);
      for (int k = 0; k < n; k++) plan_one(&l, device, &g, configs[k], ieee, o->workspace, &r);
    }
  }
  close_dnn(&l);
  if (r.n) return r;
  if (*l.why && !l.ntried) r.why = ir_strdup(ctx, l.why);
  else r.why = ir_format(ctx, "cuDNN: no plan (%d of less precision, %d refused, %d above the workspace)%s%s", r.inexact, r.refused, r.large, *l.refusal ? ": " : "", l.refusal);
  return r;
}

/* ---- a plan that runs ---- */

struct rt_dnn_plan {
  dnn l;
  void *handle, *plan;
  int64_t workspace;
  dnn_graph g;
  int (*destroy_handle)(void *handle);
  int (*execute)(void *handle, void *plan, void *variant);
};

bool rt_dnn_is_plan(const char *text) { return strncmp(text, "cudnn ", 6) == 0; }

bool rt_dnn_is_current(tn_ctx *ctx, const char *text) {
  const char *name = name_of(ctx);
  return rt_cuda_library(RT_CUDA_DNN)->handle && strncmp(text, name, strlen(name)) == 0;
}

static bool find_in(rt_dnn_plan *p, void *device, const char *text) {
  dnn *l = &p->l;
  for (int i = 0; i < DNN_MODES && !l->status; i++) {
    void *configs[DNN_MOST];
    int count = configs_of(l, modes[i], p->g.graph, device, configs);
    for (int k = 0; k < count; k++) {
      void *engine = dnn_make(l, DNN_ENGINE);
      int64_t n = 0, number = 0;
      if (l->status || l->get(configs[k], 300, DNN_T_DESCRIPTOR, 1, &n, &engine) || l->get(engine, 1301, DNN_T_INT64, 1, &n, &number)) return false;
      if (strcmp(text_of(l, &p->g, configs[k], number), text)) continue;
      p->plan = dnn_make(l, DNN_PLAN);
      dnn_put_descriptor(l, p->plan, 401, configs[k]);
      dnn_put_descriptor(l, p->plan, 407, device);
      dnn_finish(l, p->plan, "a plan");
      return !l->status && l->get(p->plan, 402, DNN_T_INT64, 1, &n, &p->workspace) == 0;
    }
  }
  return false;
}

static bool find_plan(rt_dnn_plan *p, const cu_target *t, const rt_dnn_problem *problem, const char *text) {
  void *device = device_of(&p->l, t);
  const char *form = text + strlen(name_of(p->l.ctx));
  for (int i = 0; i < DNN_FORMS; i++, p->l.status = 0)
    if (!p->l.status && dnn_graph_of(&p->l, problem, i, &p->g) && strncmp(form, ir_format(p->l.ctx, "%sengine ", p->g.form), strlen(p->g.form) + 7) == 0) return find_in(p, device, text);
  return false;
}

rt_dnn_plan *rt_dnn_plan_new(tn_ctx *ctx, const cu_target *t, const rt_dnn_problem *problem, const char *text, void *stream, const char **why) {
  rt_dnn_plan *p = IR_NEW(ctx, rt_dnn_plan);
  p->l.ctx = ctx;
  if (!open_dnn(&p->l, why)) return NULL;
  int (*create)(void **handle) = (int (*)(void **))rt_cuda_symbol(RT_CUDA_DNN, "cudnnCreate");
  int (*stream_of)(void *handle, void *stream) = (int (*)(void *, void *))rt_cuda_symbol(RT_CUDA_DNN, "cudnnSetStream");
  p->destroy_handle = (int (*)(void *))rt_cuda_symbol(RT_CUDA_DNN, "cudnnDestroy");
  p->execute = (int (*)(void *, void *, void *))rt_cuda_symbol(RT_CUDA_DNN, "cudnnBackendExecute");
  int status = create && stream_of && p->destroy_handle && p->execute ? create(&p->handle) : DNN_FAILED;
  if (!status) status = stream_of(p->handle, stream);
  if (!status && rt_dnn_is_current(ctx, text) && find_plan(p, t, problem, text)) return p;
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
  const dnn_graph *g = &p->g;
  void *variant = NULL, *at[DNN_OPERANDS], *room = (void *)(uintptr_t)workspace;
  for (int i = 0; i < g->n; i++) at[i] = g->host[i] ? (void *)g->host[i] : (void *)(uintptr_t)(memory[g->param[i]] + (unsigned long long)g->at[i]);
  int status = p->l.create(DNN_VARIANT, &variant);
  if (!status) status = p->l.set(variant, 1000, DNN_T_INT64, g->n, g->id);
  if (!status) status = p->l.set(variant, 1001, DNN_T_POINTER, g->n, at);
  if (!status) status = p->l.set(variant, 1003, DNN_T_POINTER, 1, &room);
  if (!status) status = p->l.finalize(variant);
  if (!status) status = p->execute(p->handle, p->plan, variant);
  if (variant) p->l.destroy(variant);
  return status;
}
