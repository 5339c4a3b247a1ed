/* cuda.c — see cuda.h. */
#include "frontend/cuda.h"
#include "autotune/cuda.h"
#include "autotune/lookup.h"
#include "runtime/cuda_lib.h"
#include <string.h>

const char *fe_cuda_arch(tn_ctx *ctx, const char *text) {
  if (!text || strcmp(text, "cpu") == 0) return NULL;
  if (strcmp(text, "cuda") == 0) return "";
  if (strncmp(text, "cuda:", 5) == 0) return text + 5;
  ir_fail(ctx, TN_EUSAGE, "target '%s' is none of cpu, cuda, cuda:ARCH", text);
}

const cu_target *fe_cuda_target(tn_ctx *ctx, const char *archs) {
  return *archs ? cu_target_find(ctx, ir_strndup(ctx, archs, strcspn(archs, ","))) : rt_cuda_device_target(ctx, 0, NULL);
}

static const void *find(tn_ctx *ctx, void *user, const char *key, size_t *size) { return at_store_object_get(user, key, size); }
static void keep(tn_ctx *ctx, void *user, const char *key, const void *bytes, size_t size) { at_store_object_put(user, key, bytes, size); }

typedef struct winners {
  tn_ctx *ctx;
  at_store *store;
  const cu_target *t;
  double rtol;
} winners;

static const char *winner(void *user, const ir_kernel *k) {
  const winners *w = user;
  return at_cuda_lookup(w->ctx, w->store, w->t, k, w->rtol);
}

static const rt_cuda_plan *make_plan(tn_ctx *ctx, const ir_program *p, const cu_target *t, const char *db, double rtol, int jobs, bool maybe, bool own) {
  at_store *store = at_store_open(ctx, db, 0);
  cg_cache cache = {store, find, keep};
  winners w = {ctx, store, t, rtol};
  rt_cuda_options o = {.jobs = jobs, .cache = store ? &cache : NULL, .choice = winner, .user = &w, .no_compile = maybe && !rt_cuda_library(RT_CUDA_NVRTC)->handle, .own = own};
  return rt_cuda_plan_make(ctx, p, t, &o);
}

const rt_cuda_plan *fe_cuda_plan(tn_ctx *ctx, const ir_program *p, const cu_target *t, const char *db, double rtol, int jobs, bool maybe) { return make_plan(ctx, p, t, db, rtol, jobs, maybe, false); }

lw_layout_choice fe_cuda_layout(tn_ctx *ctx, const ir_graph *g, const cu_target *t, const char *db, double rtol) {
  at_store *store = at_store_open(ctx, db, AT_STORE_READONLY);
  if (!store) return LW_LAYOUT_AUTO;
  at_key key = at_cuda_layout_key(ctx, g, t, rtol);
  lw_layout_choice layout = at_layout_won(store, &key);
  at_store_close(store);
  return layout;
}

fe_cuda *fe_cuda_open(tn_ctx *ctx, const char *arch) {
  fe_cuda *c = IR_NEW(ctx, fe_cuda);
  c->target = fe_cuda_target(ctx, arch);
  c->device = rt_cuda_device_open(ctx, c->target, 0);
  const rt_cuda_lib *nvrtc = rt_cuda_library(RT_CUDA_NVRTC);
  if (!nvrtc->handle) ir_fail(ctx, TN_EUNSUPPORTED, "NVRTC, which compiles for GPUs, is not there: %s", nvrtc->why);
  return c;
}

void fe_cuda_load(tn_ctx *ctx, fe_cuda *c, const ir_program *p, const char *db, double rtol, int jobs) {
  c->plan = fe_cuda_plan(ctx, p, c->target, db, rtol, jobs, false);
  c->module = rt_cuda_module_new(ctx, c->device, c->plan);
}

void fe_cuda_close(fe_cuda *c) {
  if (c->module) rt_cuda_module_free(c->module);
  rt_cuda_device_close(c->device);
}

void fe_cuda_object(tn_ctx *ctx, const ir_program *p, const char *archs, const char *db, double rtol, const rt_object_options *o) {
  const rt_cuda_plan *plans[8];
  int n = 0;
  if (!*archs) archs = rt_cuda_device_target(ctx, 0, NULL)->name;
  for (const char *a = archs; *a || !n; a += *a == ',') {
    size_t length = strcspn(a, ",");
    if (n == IR_COUNT(plans)) ir_fail(ctx, TN_EUSAGE, "target 'cuda:%s': at most %d architectures", archs, IR_COUNT(plans));
    const cu_target *t = cu_target_find(ctx, ir_strndup(ctx, a, length));
    plans[n++] = make_plan(ctx, p, t, db, rtol, o->jobs, false, true);
    a += length;
  }
  rt_cuda_write_object(ctx, n, plans, o);
}
