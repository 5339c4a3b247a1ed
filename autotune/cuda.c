/* cuda.c — see cuda.h. */
#include "autotune/cuda.h"
#include "autotune/lookup.h"
#include "autotune/tune.h"
#include "ir/interp.h"
#include "ir/text.h"
#include "lower/problem.h"
#include "runtime/cuda_lib.h"
#include "runtime/cuda_library.h"
#include "runtime/cuda_run.h"
#include "runtime/profile.h"
#include "runtime/threads.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SAMPLES = 5, RUNS = 9 /* of a sample: their median */, MOST_JOBS = 64 };

static const char PLAINEST[] = "threads 128 1";

/* From this rtol on f32 may be rounded for tensor cores. */
static bool rounds(double rtol) { return rtol >= 1e-3; }

typedef struct tuner {
  tn_ctx *ctx;
  const ir_program *p;
  const cu_target *t;
  const at_cuda_options *o;
  rt_cuda_device *d;
  at_run *run;
  at_cuda_result r;
  double start;
} tuner;

/* A winner is one for an architecture: which card it was and its driver stand with the run. */
static at_key key_for(tn_ctx *ctx, const cu_target *t, const char *text, const char *policy, double rtol) {
  return (at_key){text, ir_format(ctx, "cuda:%s", t->name), ir_format(ctx, rounds(rtol) ? "%s, rounded" : "%s", policy), ir_format(ctx, "cuda%d nvrtc%d", CU_VERSION, rt_cuda_library(RT_CUDA_NVRTC)->version)};
}

static at_key key_of(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, double rtol) { return key_for(ctx, t, ir_kernel_canonical(ctx, k), "warm, events", rtol); }

at_key at_cuda_layout_key(tn_ctx *ctx, const ir_graph *g, const cu_target *t, double rtol) { return key_for(ctx, t, at_graph_text(ctx, g), "whole runs", rtol); }

/* ---- one candidate ---- */

typedef struct trial {
  tuner *u;
  const ir_kernel *kernel;
  const char *choice;
  void **in, **want;      /* by parameter: what goes in, what must come out */
  bool finding;           /* `want` is what this run gives */
  double samples[SAMPLES], limit_ns; /* one sample is enough for what is slower than the limit; 0: none */
  int nsamples;
  const char *refused;    /* in the trial's context */
  bool wrong;
} trial;

/* A program that calls the kernel once on tensors of the caller. */
static const ir_program *alone(tn_ctx *ctx, const ir_kernel *k) {
  ir_program *p = IR_NEW(ctx, ir_program);
  p->name = k->name;
  p->slots = IR_NEW_ARRAY(ctx, ir_slot, k->nbufs + 1);
  p->kernels = IR_NEW(ctx, ir_program_kernel);
  *p->kernels = (ir_program_kernel){k, "", k};
  p->nkernels = p->nrun = 1;
  p->run = IR_NEW(ctx, ir_inst);
  *p->run = (ir_inst){.kind = IR_CALL, .nargs = k->nbufs, .args = IR_NEW_ARRAY(ctx, int, k->nbufs + 1), .name = k->name};
  for (int i = 0; i < k->nbufs; i++) {
    const ir_buf *b = k->bufs[i];
    bool out = b->access == IR_OUT;
    p->run->args[i] = p->nslots;
    p->slots[p->nslots++] = (ir_slot){.name = b->name, .kind = out ? IR_SLOT_OUTPUT : IR_SLOT_INPUT, .index = out ? p->noutputs++ : p->ninputs++, .dtype = b->dtype, .inout = b->access == IR_INOUT,
                                      .bytes = ix_need_const(ctx, ir_buf_elements(ctx, b), b->name) * (int64_t)ir_dtype_bytes(b->dtype)};
  }
  return p;
}

/* Of a large result every so manieth element, which comes by all places of a tile. */
static bool same(const ir_slot *s, const char *a, const char *b, double rtol) {
  double top = 0, off = 0, tolerance = ir_is_byte_float(s->dtype) ? ldexp(1.05, -ir_byte_format_of(s->dtype)->fraction) /* one step */ : s->dtype == TN_BF16 ? 3e-2 : s->dtype == TN_F16 ? 4e-3 : fmax(rtol, 1e-4);
  size_t size = ir_dtype_bytes(s->dtype);
  if (!ir_is_float(s->dtype)) return memcmp(a, b, (size_t)s->bytes) == 0;
  size_t n = (size_t)s->bytes / size, by = n >> 20 | 1;
  for (size_t e = 0; e < n; e += by) {
    double x = ir_scalar_load(s->dtype, a + e * size).f, y = ir_scalar_load(s->dtype, b + e * size).f;
    if (x == y || (isnan(x) && isnan(y))) continue;
    if (fabs(x) > top) top = fabs(x);
    if (!(fabs(x - y) <= off)) off = fabs(x - y);
  }
  return off <= tolerance * top;
}

static const char *asked(void *user, const ir_kernel *k) {
  (void)k;
  return user;
}

static void tell(const tuner *u, const char *kernel, const char *choice) {
  if (u->o->starts) u->o->starts(u->o->user, kernel, choice);
}

static const void *find(tn_ctx *ctx, void *user, const char *key, size_t *size) { return at_store_object_get(user, key, size); }
static void put(tn_ctx *ctx, void *user, const char *key, const void *bytes, size_t size) { at_store_object_put(user, key, bytes, size); }

static void time_it(tn_ctx *ctx, trial *x, rt_cuda_module *m) {
  x->samples[0] = rt_cuda_time(ctx, m, 1) * 1e6;
  x->nsamples = 1;
  if (x->limit_ns && x->samples[0] > x->limit_ns) return;
  for (x->nsamples = 0; x->nsamples < SAMPLES; x->nsamples++) x->samples[x->nsamples] = rt_cuda_time(ctx, m, RUNS) * 1e6;
}

static void try_it(tn_ctx *ctx, void *arg) {
  trial *x = arg;
  const ir_kernel *k = x->kernel;
  const ir_program *p = alone(ctx, k);
  cg_cache cache = {x->u->o->store, find, put};
  const rt_cuda_plan *plan = rt_cuda_plan_make(ctx, p, x->u->t, &(rt_cuda_options){.choice = asked, .user = (void *)x->choice, .as_asked = true, .cache = x->u->o->store ? &cache : NULL});
  const char *gate = plan->kernels[0].library ? NULL : rt_cubin_gate(ctx, x->u->t, plan->kernels[0].cubin, plan->kernels[0].code);
  if (gate) {
    x->refused = gate;
    return;
  }
  const void **in = IR_NEW_ARRAY(ctx, const void *, k->nbufs + 1);
  void **out = IR_NEW_ARRAY(ctx, void *, k->nbufs + 1);
  for (int i = 0; i < p->nslots; i++) {
    const ir_slot *s = &p->slots[i];
    bool written = s->kind == IR_SLOT_OUTPUT || s->inout;
    void *memory = !written ? x->in[i] : x->finding ? x->want[i] : ir_alloc(ctx, (size_t)s->bytes + 1);
    if (s->inout) memcpy(memory, x->in[i], (size_t)s->bytes);
    if (s->kind == IR_SLOT_OUTPUT) out[s->index] = memory;
    else in[s->index] = memory;
  }
  tell(x->u, k->name, x->choice);
  rt_cuda_module *m = rt_cuda_module_new(ctx, x->u->d, plan);
  rt_cuda_run(ctx, m, in, out, NULL, NULL, NULL);
  double rtol = x->u->o->rtol;
  for (int i = 0; i < p->nslots; i++) /* Hopper keeps sums of their products with some 13 bits of fraction: DeepSeek-V3 Technical Report, 3.3.2 */
    if (ir_is_byte_float(p->slots[i].dtype)) rtol = fmax(rtol, 2e-2);
  for (int i = 0; i < p->nslots; i++) {
    const ir_slot *s = &p->slots[i];
    if (s->kind == IR_SLOT_OUTPUT || s->inout) x->wrong |= !same(s, x->want[i], s->inout ? in[s->index] : out[s->index], rtol);
  }
  if (!x->wrong && !x->finding) time_it(ctx, x, m);
  rt_cuda_module_free(m);
}

static at_status status_of(const tuner *u, tn_status s, const trial *x) {
  if (rt_cuda_device_lost(u->d)) return AT_CRASH;
  if (s == TN_ERESOURCE) return AT_OOM;
  if (s) return s == TN_EUNSUPPORTED ? AT_COMPILE_ERROR : AT_CRASH;
  return x->refused ? AT_REFUSED : x->wrong ? AT_WRONG : AT_OK;
}

/* Runs it in a context of its own; *why (in the tuner's context) unless all went well. */
static at_status run_trial(tuner *u, trial *x, const char **why) {
  tn_ctx *child = ir_ctx_child(u->ctx);
  if (!child) ir_fail(u->ctx, TN_ERESOURCE, "out of memory");
  tn_status s = ir_protect(child, try_it, x);
  at_status status = status_of(u, s, x);
  const char *message = s ? ir_error(child) : x->refused ? x->refused : "other results than the plainest schedule";
  char text[512];
  snprintf(text, sizeof text, "%s", message);
  tn_ctx_free(child);
  *why = status == AT_OK ? NULL : ir_strdup(u->ctx, text);
  if (rt_cuda_device_lost(u->d)) {
    rt_cuda_device_close(u->d);
    u->d = rt_cuda_device_open(u->ctx, u->t, 0);
    u->r.reopened++;
  }
  return status;
}

static bool is_stuck(const tuner *u, const trial *x) {
  for (int i = 0; i < u->o->nstuck; i++)
    if (strcmp(u->o->stuck[i].kernel, x->kernel->name) == 0 && strcmp(u->o->stuck[i].choice, x->choice) == 0) return true;
  return false;
}

static at_status watched_trial(tuner *u, trial *x, const char **why) {
  if (is_stuck(u, x)) {
    *why = "no end: it was stopped";
    return AT_HANG;
  }
  at_status status = run_trial(u, x, why);
  tell(u, "", "");
  return status;
}

/* ---- a kernel ---- */

static bool spent(const tuner *u) { return (u->o->stop && *u->o->stop) || (u->o->budget_s > 0 && rt_now() - u->start > u->o->budget_s); }

/* Random numbers; a large tensor is the same million over and over, in steps that no row of it has. */
static void fill(const ir_kernel *k, int i, char *p, int64_t n, uint64_t *s) {
  const ir_buf *b = k->bufs[i];
  const int64_t period = 1000003;
  size_t size = ir_dtype_bytes(b->dtype);
  for (int64_t e = 0; e < n && e < period; e++) {
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    ir_scalar v = {0};
    if (ir_is_float(b->dtype)) v.f = ir_round_float(b->dtype, (double)(int64_t)(*s >> 11) * 0x1p-52 - 1);
    else v.i = (int64_t)(*s >> 63);
    ir_scalar_store(b->dtype, p + (size_t)e * size, v);
  }
  for (int64_t e = period; e < n; e += period) memcpy(p + (size_t)e * size, p, size * (size_t)(n - e < period ? n - e : period));
}

/* Random inputs, and what comes of them by the plainest schedule; where that fails, or takes too long, by the usual one. */
static bool reference(tuner *u, trial *x, const char *usual) {
  const ir_kernel *k = x->kernel;
  uint64_t seed = 1;
  x->in = IR_NEW_ARRAY(u->ctx, void *, k->nbufs + 1);
  x->want = IR_NEW_ARRAY(u->ctx, void *, k->nbufs + 1);
  const ir_program *p = alone(u->ctx, k);
  for (int i = 0; i < k->nbufs; i++) {
    int64_t bytes = p->slots[i].bytes, n = bytes / (int64_t)ir_dtype_bytes(k->bufs[i]->dtype);
    if (k->bufs[i]->access != IR_OUT) fill(k, i, x->in[i] = ir_alloc(u->ctx, (size_t)bytes + 1), n, &seed);
    if (k->bufs[i]->access != IR_IN) x->want[i] = ir_alloc(u->ctx, (size_t)bytes + 1);
  }
  const char *all[] = {PLAINEST, usual}, *why = NULL;
  for (int i = 0; i < IR_COUNT(all); i++) {
    trial plain = *x;
    plain.choice = all[i];
    plain.finding = true;
    at_status status = watched_trial(u, &plain, &why);
    if (why) u->r.trouble = ir_format(u->ctx, "%s: %s: %s", k->name, plain.choice, why);
    if (status == AT_OK) return true;
  }
  return false;
}

static void keep(tuner *u, const at_key *key, const trial *x, const char *origin, at_status status, const char *why) {
  at_trial row = {.key = *key, .klass = at_class(u->ctx, x->kernel), .name = x->kernel->name, .schedule = x->choice, .status = status, .origin = origin, .reason = why};
  if (status == AT_OK) row.samples = x->samples, row.n = x->nsamples;
  at_store_add_trials(u->o->store, u->run, &row, 1);
}

static double cost_of(tuner *u, const at_key *key, trial *x, const at_seen *seen, int nseen, const char *origin) {
  const at_seen *s = at_seen_find(seen, nseen, x->choice);
  if (s) {
    u->r.known++;
    return s->status == AT_OK ? s->cost_ns : INFINITY;
  }
  const char *why;
  at_status status = watched_trial(u, x, &why);
  u->r.trials++;
  u->r.failed += status != AT_OK;
  if (why) u->r.trouble = ir_format(u->ctx, "%s: %s: %s", x->kernel->name, x->choice, why);
  keep(u, key, x, origin, status, why);
  return status == AT_OK ? at_cost(x->samples, x->nsamples) : INFINITY;
}

/* Whether a text of cu_candidate is to be tried beside the usual schedule. Large products by one thread a result would take all
 * the time there is. */
static bool worth_trying(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const char *text, const cu_tile *usual, double rtol) {
  lw_problem p = lw_problem_of(ctx, k);
  bool plain = strncmp(text, "threads ", 8) == 0 || strncmp(text, "rows ", 5) == 0;
  if (strcmp(text, usual->choice) == 0 || ((strncmp(text, "tf32 ", 5) == 0 || strncmp(text, "attend.tf32 ", 12) == 0) && !rounds(rtol))) return false;
  if (plain && p.kind == LW_CONTRACTION && p.flops > 1e9 && strncmp(usual->choice, "threads ", 8)) return false;
  return cu_schedule(ctx, t, k, text, NULL) != NULL;
}

static const char *next_text(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_tile *usual, double rtol, int *at) {
  for (const char *text; usual && (text = cu_candidate(*at));) {
    ++*at;
    if (worth_trying(ctx, t, k, text, usual, rtol)) return text;
  }
  return NULL;
}

const at_cuda_candidate *at_cuda_candidates(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, double rtol, int *n, const char **why) {
  at_cuda_candidate *list = NULL;
  const cu_tile *usual = cu_schedule(ctx, t, k, NULL, NULL);
  const char *text = "";
  *n = 0;
  if (usual) IR_PUSH(ctx, list, *n, ((at_cuda_candidate){usual->choice, NULL}));
  rt_cuda_candidates libraries = rt_cuda_library_candidates(ctx, t, k, &(rt_cuda_candidate_options){.ieee = !rounds(rtol)});
  for (int i = 0, at = 0; i < libraries.n || text; i++) {
    if (i < libraries.n) IR_PUSH(ctx, list, *n, ((at_cuda_candidate){libraries.list[i].text, &libraries.list[i]}));
    if ((text = next_text(ctx, t, k, usual, rtol, &at))) IR_PUSH(ctx, list, *n, ((at_cuda_candidate){text, NULL}));
  }
  if (why) *why = libraries.why;
  return list;
}

typedef struct ahead {
  at_store *store;
  const cu_target *t;
  const ir_kernel *k;
  int n;
  const char *choices[MOST_JOBS];
} ahead;

static void compile_some(tn_ctx *ctx, void *arg) {
  ahead *a = arg;
  cg_cache cache = {a->store, find, put};
  rt_cuda_compile_ahead(ctx, a->t, a->k, a->n, a->choices, a->n, &cache);
}

/* As many of the next candidates as there are processors, compiled side by side into the store: how many were passed. */
static int compile_ahead(tn_ctx *ctx, at_store *store, const cu_target *t, const ir_kernel *k, int n, const at_cuda_candidate *all, const at_seen *seen, int nseen) {
  int jobs = rt_cpu_count(), i = 0;
  ahead a = {.store = store, .t = t, .k = k};
  for (; i < n && a.n < jobs && a.n < MOST_JOBS; i++)
    if (!all[i].library && !at_seen_find(seen, nseen, all[i].choice)) a.choices[a.n++] = all[i].choice;
  tn_ctx *child = store && a.n ? ir_ctx_child(ctx) : NULL;
  if (child) ir_protect(child, compile_some, &a); /* what fails, fails again as a trial, and is told then */
  if (child) tn_ctx_free(child);
  return i;
}

int at_cuda_compile(tn_ctx *ctx, at_store *store, const cu_target *t, const ir_kernel *k, double rtol) {
  int n;
  const at_cuda_candidate *all = at_cuda_candidates(ctx, t, k, rtol, &n, NULL);
  for (int i = 0; i < n;) i += compile_ahead(ctx, store, t, k, n - i, all + i, NULL, 0);
  ahead plain = {.store = store, .t = t, .k = k, .n = 1, .choices = {PLAINEST}}; /* what all are compared with */
  tn_ctx *child = ir_ctx_child(ctx);
  if (child) ir_protect(child, compile_some, &plain);
  if (child) tn_ctx_free(child);
  return n;
}

static void take(const trial *x, const rt_cuda_candidate *library, double cost, at_cuda_kernel *r) {
  double *ns = library ? &r->library_ns : &r->own_ns;
  if (!*ns || cost < *ns) {
    *ns = cost;
    *(library ? &r->library : &r->own) = x->choice;
  }
  if (r->choice && cost >= r->best_ns) return;
  r->best_ns = cost;
  r->choice = x->choice;
}

static void tune_kernel(tuner *u, const ir_kernel *k, at_cuda_kernel *r) {
  at_key key = key_of(u->ctx, u->t, k, u->o->rtol);
  int nseen = 0, before = u->r.trials;
  const at_seen *seen = at_store_seen(u->o->store, &key, &nseen);
  int n = 0, compiled = 0;
  const at_cuda_candidate *all = at_cuda_candidates(u->ctx, u->t, k, u->o->rtol, &n, NULL);
  trial x = {.u = u, .kernel = k};
  if (!n || !reference(u, &x, all[0].choice)) return;
  for (int i = 0; i < n; i++) {
    if (spent(u) || (u->o->trials && u->r.trials - before >= u->o->trials)) {
      u->r.stopped |= spent(u);
      return;
    }
    int most = u->o->trials ? u->o->trials - (u->r.trials - before) : n;
    if (i >= compiled) compiled = i + compile_ahead(u->ctx, u->o->store, u->t, k, n - i < most ? n - i : most, all + i, seen, nseen);
    x.choice = all[i].choice;
    x.wrong = false;
    x.refused = NULL;
    x.limit_ns = 3 * r->best_ns;
    double cost = cost_of(u, &key, &x, seen, nseen, i == 0 ? "default" : all[i].library ? "library" : "table");
    if (isinf(cost)) continue;
    if (i == 0) r->default_ns = cost;
    take(&x, all[i].library, cost, r);
  }
}

/* Kernels of dimensions that a run decides have no tensors to be timed on. */
static void tune_calls(tuner *u, int n, const ir_inst *insts) {
  for (int i = 0; i < n && !u->r.stopped; i++) {
    const ir_inst *c = &insts[i];
    tune_calls(u, c->nbody, c->body);
    tune_calls(u, c->nother, c->other);
    if (c->kind != IR_CALL || u->r.stopped) continue;
    const ir_program_kernel *pk = &u->p->kernels[c->kernel];
    const ir_kernel *k = pk->lowered ? pk->lowered : pk->kernel;
    if (!k->ndims && !u->r.kernels[c->kernel].choice) tune_kernel(u, k, &u->r.kernels[c->kernel]);
  }
}

at_cuda_result at_cuda_tune(tn_ctx *ctx, const ir_program *p, const cu_target *t, const at_cuda_options *o) {
  tuner u = {.ctx = ctx, .p = p, .t = t, .o = o, .start = rt_now(), .d = rt_cuda_device_open(ctx, t, 0)};
  u.r.kernels = IR_NEW_ARRAY(ctx, at_cuda_kernel, p->nkernels + 1);
  at_run_info info = {.env = {.target = rt_cuda_device_name(u.d), .library = ir_format(ctx, "tenon cuda%d", CU_VERSION)}, .budget_s = o->budget_s, .budget_trials = o->trials, .label = o->label};
  at_env_read(ctx, &info.env);
  u.run = o->store ? at_run_begin(o->store, &info) : NULL;
  tune_calls(&u, p->nrun, p->run);
  if (u.run) at_run_end(o->store, u.run, NULL, 0);
  rt_cuda_device_close(u.d);
  return u.r;
}

/* ---- winners ---- */

typedef struct fit {
  const cu_target *t;
  const ir_kernel *k;
  const char *choice;
  bool fits;
} fit;

static void try_fit(tn_ctx *ctx, void *arg) {
  fit *f = arg;
  if (rt_cuda_is_library(f->choice)) f->fits = rt_cuda_library_fits(ctx, f->k, f->choice);
  else f->fits = cu_schedule(ctx, f->t, f->k, f->choice, NULL) != NULL;
}

const char *at_cuda_lookup(tn_ctx *ctx, at_store *store, const cu_target *t, const ir_kernel *k, double rtol) {
  at_key key = key_of(ctx, t, k, rtol);
  at_winner w;
  if (!store || !at_store_best(store, &key, &w)) return NULL;
  fit f = {t, k, w.schedule, false};
  tn_ctx *child = ir_ctx_child(ctx);
  bool read = child && ir_protect(child, try_fit, &f) == TN_OK;
  if (child) tn_ctx_free(child);
  if (read && f.fits) return w.schedule;
  ir_log(ctx, "the store's schedule '%s' does not fit kernel '%s': the usual one is taken", w.schedule, k->name);
  return NULL;
}
