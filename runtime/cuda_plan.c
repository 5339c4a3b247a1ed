/* cuda_plan.c — see cuda_plan.h. */
#include "runtime/cuda_plan.h"
#include "lower/problem.h"
#include "runtime/cuda_emulate.h"
#include "runtime/cuda_library.h"
#include "runtime/exec.h"
#include "runtime/module.h"
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

/* ---- lowering ---- */

/* The loop of a sum along which an operand lies in memory; null: none. */
static const ir_var *along(tn_ctx *ctx, const lw_problem *p, ix load) {
  for (int i = 0; i < p->nred; i++)
    if (lw_stride(ctx, load, p->red[i]->var) == 1) return p->red[i]->var;
  return NULL;
}

/* A constant operand gets the axis last that the other operand reads along, so that both tiles fill by whole vectors. */
static const char *weights_layout(tn_ctx *ctx, const lw_problem *p, ix load, ix other) {
  const ir_buf *b = load->u.buf;
  const ir_var *v = along(ctx, p, other);
  if (!b->constant || b->layout || !v || lw_stride(ctx, load, v) == 1) return NULL;
  int axis = -1;
  for (int d = 0; d < b->rank; d++)
    if (load->args[d] == v->expr) axis = d;
  if (axis < 0) return NULL;
  ir_text t = {.ctx = ctx};
  ir_put(&t, "layout %s \"perm", b->name);
  for (int d = 0; d < b->rank; d++)
    if (d != axis) ir_put(&t, " %d", d);
  ir_put(&t, " %d\"\n", axis);
  return t.s;
}

static const char *schedule(void *user, tn_ctx *ctx, const ir_kernel *k) {
  (void)user;
  lw_problem p = lw_problem_of(ctx, k);
  if (p.kind != LW_CONTRACTION) return "";
  const char *a = weights_layout(ctx, &p, p.a, p.b), *b = weights_layout(ctx, &p, p.b, p.a);
  return a ? a : b ? b : "";
}

lw_options rt_cuda_lowering(tn_ctx *ctx, lw_layout_choice layout) {
  return (lw_options){.target = cg_target_find(ctx, NULL, NULL), .layout = layout == LW_LAYOUT_AUTO ? LW_LAYOUT_NHWC : layout, .schedule = schedule, .attention_apart = true, .byte_products = true};
}

ir_program *rt_cuda_lower(tn_ctx *ctx, ir_graph *g, lw_layout_choice layout) {
  lw_options o = rt_cuda_lowering(ctx, layout);
  return lw_compile(ctx, g, &o);
}

/* ---- kernels ---- */

typedef struct build {
  tn_ctx *ctx;
  rt_cuda_plan *plan;
  const rt_cuda_options *o;
  int n;
  int *todo;              /* kernels to compile */
} build;

static const char *key_of(tn_ctx *ctx, const rt_cuda_plan *p, const cu_code *code) { return rt_cuda_key(ctx, p->target, code->source); }

static void print_kernel(build *b, rt_cuda_kernel *k, const char *choice, const char *symbol) {
  const char *why = NULL;
  if (choice && rt_cuda_is_library(choice)) {
    if (!b->o->own) k->library = choice;
    choice = NULL;
  }
  k->tile = cu_schedule(b->ctx, b->plan->target, k->kernel, choice, &why);
  if (!k->tile) ir_fail(b->ctx, TN_EUNSUPPORTED, "kernel '%s': %s for %s: %s", k->kernel->name, choice ? choice : "no schedule", b->plan->target->name, why);
  k->code = cu_print(b->ctx, b->plan->target, k->tile, symbol);
}

static const rt_cubin *copy_cubin(tn_ctx *ctx, const rt_cubin *c) {
  rt_cubin *r = IR_NEW(ctx, rt_cubin);
  *r = *c;
  r->bytes = memcpy(ir_alloc(ctx, c->size + 1), c->bytes, c->size);
  r->warnings = ir_strdup(ctx, c->warnings);
  r->functions = IR_NEW_ARRAY(ctx, rt_cuda_function, c->nfunctions + 1);
  for (int i = 0; i < c->nfunctions; i++) {
    r->functions[i] = c->functions[i];
    r->functions[i].symbol = ir_strdup(ctx, c->functions[i].symbol);
  }
  r->report = ir_strdup(ctx, c->report);
  return r;
}

/* ---- several compilations at once ---- */

typedef struct batch {
  const cu_target *t;
  const rt_cuda_options *o;
  int n;
  atomic_int next;
  const cu_code *const *codes;
  tn_ctx **ctxs;          /* of each one */
  const rt_cubin **cubins; /* in those */
} batch;

typedef struct one {
  batch *b;
  int i;
} one;

static void compile_one(tn_ctx *ctx, void *arg) {
  one *x = arg;
  const batch *b = x->b;
  b->cubins[x->i] = b->o->compile ? b->o->compile(ctx, b->t, b->codes[x->i], b->o->user) : rt_cuda_compile(ctx, b->t, b->codes[x->i]->source, NULL);
}

static void *worker(void *arg) {
  batch *b = arg;
  for (int i; (i = atomic_fetch_add(&b->next, 1)) < b->n;) {
    one x = {b, i};
    if (b->ctxs[i]) ir_protect(b->ctxs[i], compile_one, &x); /* a failure shows as no cubin, its message in the context */
  }
  return NULL;
}

static void free_contexts(void *arg) {
  batch *b = arg;
  for (int i = 0; i < b->n; i++)
    if (b->ctxs[i]) tn_ctx_free(b->ctxs[i]);
  b->n = 0;
}

/* Cubins of n codes, kept in the cache; null with why[i] for those that fail. */
static void compile_batch(tn_ctx *ctx, const cu_target *t, const rt_cuda_options *o, int n, const cu_code *const *codes, const rt_cubin **cubins, const char **why) {
  pthread_t threads[16];
  int jobs = o->jobs < n ? o->jobs : n, started = 0;
  batch *b = IR_NEW(ctx, batch);
  *b = (batch){.t = t, .o = o, .n = n, .codes = codes, .ctxs = IR_NEW_ARRAY(ctx, tn_ctx *, n + 1), .cubins = IR_NEW_ARRAY(ctx, const rt_cubin *, n + 1)};
  ir_defer(ctx, free_contexts, b);
  for (int i = 0; i < n; i++) b->ctxs[i] = ir_ctx_like(ctx);
  for (; started < jobs - 1 && started < IR_COUNT(threads); started++)
    if (pthread_create(&threads[started], NULL, worker, b)) break;
  worker(b);
  for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
  for (int i = 0; i < n; i++) {
    cubins[i] = b->cubins[i] ? copy_cubin(ctx, b->cubins[i]) : NULL;
    why[i] = cubins[i] ? NULL : b->ctxs[i] ? ir_strdup(ctx, ir_error(b->ctxs[i])) : "out of memory";
    if (cubins[i] && o->cache && !o->compile) rt_cuda_keep(ctx, o->cache, rt_cuda_key(ctx, t, codes[i]->source), cubins[i]);
  }
  ir_undefer(ctx, free_contexts, b);
  free_contexts(b);
}

/* Compiles those of todo. */
static void compile_all(build *b) {
  const cu_code **codes = IR_NEW_ARRAY(b->ctx, const cu_code *, b->n + 1);
  const rt_cubin **cubins = IR_NEW_ARRAY(b->ctx, const rt_cubin *, b->n + 1);
  const char **why = IR_NEW_ARRAY(b->ctx, const char *, b->n + 1);
  for (int i = 0; i < b->n; i++) codes[i] = b->plan->kernels[b->todo[i]].code;
  compile_batch(b->ctx, b->plan->target, b->o, b->n, codes, cubins, why);
  for (int i = 0; i < b->n; i++) {
    rt_cuda_kernel *k = &b->plan->kernels[b->todo[i]];
    if (!cubins[i]) ir_fail(b->ctx, TN_EUNSUPPORTED, "kernel '%s' (%s): %s", k->kernel->name, k->tile->choice, why[i]);
    k->cubin = cubins[i];
  }
  b->n = 0;
}

static const char *symbol_of(tn_ctx *ctx, int kernel) { return ir_format(ctx, "tn_k%d", kernel); }

void rt_cuda_compile_ahead(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, int n, const char *const choices[], int jobs, const cg_cache *cache) {
  rt_cuda_options o = {.jobs = jobs, .cache = cache};
  const cu_code **codes = IR_NEW_ARRAY(ctx, const cu_code *, n + 1);
  const rt_cubin **cubins = IR_NEW_ARRAY(ctx, const rt_cubin *, n + 1);
  const char **why = IR_NEW_ARRAY(ctx, const char *, n + 1);
  int wanted = 0;
  for (int i = 0; i < n; i++) {
    const cu_tile *tile = rt_cuda_is_library(choices[i]) ? NULL : cu_schedule(ctx, t, k, choices[i], NULL);
    if (!tile) continue;
    codes[wanted] = cu_print(ctx, t, tile, symbol_of(ctx, 0));
    if (!rt_cuda_cached(ctx, cache, rt_cuda_key(ctx, t, codes[wanted]->source))) wanted++;
  }
  compile_batch(ctx, t, &o, wanted, codes, cubins, why);
}

/* From the cache, or onto the list. */
static void want(build *b, int i) {
  rt_cuda_kernel *k = &b->plan->kernels[i];
  k->cubin = b->o->cache && !b->o->compile ? rt_cuda_cached(b->ctx, b->o->cache, key_of(b->ctx, b->plan, k->code)) : NULL;
  if (k->cubin) b->plan->hits++;
  else IR_PUSH(b->ctx, b->todo, b->n, i);
}

/* Plainer choices, for what the gates refuse. */
static const char *const plainer[] = {"threads 128 1", "serial"};

static void compile_gated(build *b, const char *const *symbols) {
  for (int turn = 0; turn <= IR_COUNT(plainer); turn++) {
    compile_all(b);
    int again = 0;
    if (b->o->as_asked) return;
    for (int i = 0; i < b->plan->nkernels; i++) {
      rt_cuda_kernel *k = &b->plan->kernels[i];
      const char *why = k->cubin ? rt_cubin_gate(b->ctx, b->plan->target, k->cubin, k->code) : NULL;
      if (!why || turn == IR_COUNT(plainer)) continue;
      k->left = ir_format(b->ctx, "%s%s: %s\n", k->left, k->tile->choice, why);
      print_kernel(b, k, plainer[turn], symbols[i]);
      want(b, i);
      again++;
    }
    if (!again) return;
  }
}

static void plan_calls(tn_ctx *ctx, rt_cuda_plan *p, const ir_program *g, int n, const ir_inst *insts) {
  for (int i = 0; i < n; i++) {
    const ir_inst *c = &insts[i];
    p->walked |= c->kind != IR_CALL && c->kind != IR_COPY_SLOT;
    plan_calls(ctx, p, g, c->nbody, c->body);
    plan_calls(ctx, p, g, c->nother, c->other);
    if (c->kind != IR_CALL) continue;
    rt_cuda_kernel *k = &p->kernels[c->kernel];
    const ir_program_kernel *pk = &g->kernels[c->kernel];
    k->kernel = pk->lowered ? pk->lowered : pk->kernel;
    k->left = "";
  }
}

/* Scratch of a launch: where its blocks are not known yet, of the most there may be. */
static int64_t scratch_of(tn_ctx *ctx, const cu_launch *l) {
  int64_t blocks = 0;
  if (!ix_const_value(l->grid, &blocks)) blocks = l->grid->hi;
  if (l->scratch_bytes && blocks > 1 << 20) ir_fail(ctx, TN_EUNSUPPORTED, "launch %s: %lld bytes of scratch for each of its blocks, of which there is no bound", l->symbol, (long long)l->scratch_bytes);
  return cu_launch_scratch(l, l->scratch_bytes ? blocks : 0);
}

static void count_launches(tn_ctx *ctx, rt_cuda_plan *p, int n, const ir_inst *insts) {
  for (int i = 0; i < n; i++) {
    count_launches(ctx, p, insts[i].nbody, insts[i].body);
    count_launches(ctx, p, insts[i].nother, insts[i].other);
    if (insts[i].kind != IR_CALL) continue;
    const cu_code *c = p->kernels[insts[i].kernel].code;
    p->nlaunches += c->nlaunches;
    for (int l = 0; l < c->nlaunches; l++) {
      int64_t bytes = scratch_of(ctx, &c->launches[l]);
      if (bytes > p->scratch_bytes) p->scratch_bytes = bytes;
    }
  }
}

rt_cuda_plan *rt_cuda_plan_make(tn_ctx *ctx, const ir_program *g, const cu_target *t, const rt_cuda_options *o) {
  static const rt_cuda_options none;
  if (!o) o = &none;
  double start = rt_now();
  rt_cuda_plan *p = IR_NEW(ctx, rt_cuda_plan);
  *p = (rt_cuda_plan){.program = g, .target = t, .nkernels = g->nkernels, .kernels = IR_NEW_ARRAY(ctx, rt_cuda_kernel, g->nkernels + 1), .cut_bytes = RT_CUDA_CUT_BYTES};
  p->walked = g->ndims > 0;
  plan_calls(ctx, p, g, g->nrun, g->run);
  build *b = IR_NEW(ctx, build);
  b->ctx = ctx;
  b->plan = p;
  b->o = o;
  const char **symbols = IR_NEW_ARRAY(ctx, const char *, g->nkernels + 1);
  for (int i = 0; i < g->nkernels; i++) {
    if (!p->kernels[i].kernel) continue;
    symbols[i] = symbol_of(ctx, i);
    print_kernel(b, &p->kernels[i], o->choice ? o->choice(o->user, p->kernels[i].kernel) : NULL, symbols[i]);
    if (!o->no_compile && !p->kernels[i].library) want(b, i);
  }
  if (!o->no_compile) compile_gated(b, symbols);
  count_launches(ctx, p, g->nrun, g->run);
  p->compile_s = rt_now() - start;
  return p;
}

/* ---- the emulator ---- */

typedef struct emulation {
  tn_ctx *ctx;
  const rt_cuda_plan *p;
  uint64_t seed;
} emulation;

static void call(void *user, const ir_inst *c, void *const *args, const int64_t *dims) {
  emulation *e = user;
  rt_cuda_emulate(e->ctx, e->p->kernels[c->kernel].tile, args, dims, e->seed);
}

void rt_cuda_plan_emulate(tn_ctx *ctx, const rt_cuda_plan *p, const void *const in[], void *const out[], const int64_t dims[], void *state, uint64_t seed) {
  emulation e = {ctx, p, seed};
  const ir_program *g = p->program;
  uint8_t *blob = (uint8_t *)(uintptr_t)rt_pack_weights(ctx, g, NULL, 1), *arena = ir_alloc(ctx, (size_t)g->arena_bytes + 64);
  arena += -(uintptr_t)arena & 63;
  memset(arena, 0xff, (size_t)g->arena_bytes);
  rt_memory m = {.in = in, .out = out, .weights = blob ? blob + (cg_blob_bytes(g) - g->weights_bytes) : NULL, .state = state, .arena = arena, .dims = dims};
  if (rt_check_dims(g, dims)) ir_fail(ctx, TN_EUSAGE, "a dimension has no value, or one out of its range");
  rt_exec(ctx, g, g->nrun, g->run, &m, call, &e);
}
