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

ir_program *rt_cuda_lower(tn_ctx *ctx, ir_graph *g, lw_layout_choice layout) {
  lw_options o = {.target = cg_target_find(ctx, NULL, NULL), .layout = layout == LW_LAYOUT_AUTO ? LW_LAYOUT_NHWC : layout, .schedule = schedule, .attention_apart = true, .byte_products = true};
  return lw_compile(ctx, g, &o);
}

/* ---- kernels ---- */

typedef struct build {
  tn_ctx *ctx;
  rt_cuda_plan *plan;
  const rt_cuda_options *o;
  int n;
  int *todo;              /* kernels to compile */
  atomic_int next;
  tn_ctx **ctxs;          /* of the compilations, by place in todo */
  const rt_cubin **cubins;
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

typedef struct one {
  build *b;
  int i;
} one;

static void compile_one(tn_ctx *ctx, void *arg) {
  one *x = arg;
  const rt_cuda_kernel *k = &x->b->plan->kernels[x->b->todo[x->i]];
  x->b->cubins[x->i] = x->b->o->compile ? x->b->o->compile(ctx, x->b->plan->target, k->code, x->b->o->user) : rt_cuda_compile(ctx, x->b->plan->target, k->code->source, NULL);
}

static void *worker(void *arg) {
  build *b = arg;
  for (int i; (i = atomic_fetch_add(&b->next, 1)) < b->n;) {
    one x = {b, i};
    if (b->ctxs[i]) ir_protect(b->ctxs[i], compile_one, &x); /* a failure shows as no cubin, its message in the context */
  }
  return NULL;
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

static void free_contexts(void *arg) {
  build *b = arg;
  for (int i = 0; i < b->n; i++)
    if (b->ctxs[i]) tn_ctx_free(b->ctxs[i]);
  b->n = 0;
}

/* Compiles those of todo, several at once. */
static void compile_all(build *b) {
  pthread_t threads[16];
  int jobs = b->o->jobs < b->n ? b->o->jobs : b->n, started = 0;
  b->ctxs = IR_NEW_ARRAY(b->ctx, tn_ctx *, b->n + 1);
  b->cubins = IR_NEW_ARRAY(b->ctx, const rt_cubin *, b->n + 1);
  atomic_store(&b->next, 0);
  ir_defer(b->ctx, free_contexts, b);
  for (int i = 0; i < b->n; i++) b->ctxs[i] = ir_ctx_like(b->ctx);
  for (; started < jobs - 1 && started < IR_COUNT(threads); started++)
    if (pthread_create(&threads[started], NULL, worker, b)) break;
  worker(b);
  for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
  for (int i = 0; i < b->n; i++) {
    rt_cuda_kernel *k = &b->plan->kernels[b->todo[i]];
    if (!b->cubins[i]) ir_fail(b->ctx, TN_EUNSUPPORTED, "kernel '%s' (%s): %s", k->kernel->name, k->tile->choice, b->ctxs[i] ? ir_error(b->ctxs[i]) : "out of memory");
    k->cubin = copy_cubin(b->ctx, b->cubins[i]);
    if (b->o->cache && !b->o->compile) rt_cuda_keep(b->ctx, b->o->cache, key_of(b->ctx, b->plan, k->code), k->cubin);
  }
  ir_undefer(b->ctx, free_contexts, b);
  free_contexts(b);
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

static void compile_gated(build *b, char *const *symbols) {
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
  *p = (rt_cuda_plan){.program = g, .target = t, .nkernels = g->nkernels, .kernels = IR_NEW_ARRAY(ctx, rt_cuda_kernel, g->nkernels + 1)};
  plan_calls(ctx, p, g, g->nrun, g->run);
  build *b = IR_NEW(ctx, build);
  b->ctx = ctx;
  b->plan = p;
  b->o = o;
  char **symbols = IR_NEW_ARRAY(ctx, char *, g->nkernels + 1);
  for (int i = 0; i < g->nkernels; i++) {
    if (!p->kernels[i].kernel) continue;
    symbols[i] = ir_format(ctx, "tn_k%d", i);
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

void rt_cuda_plan_emulate(tn_ctx *ctx, const rt_cuda_plan *p, const void *const in[], void *const out[], void *state, uint64_t seed) {
  emulation e = {ctx, p, seed};
  const ir_program *g = p->program;
  uint8_t *blob = (uint8_t *)(uintptr_t)rt_pack_weights(ctx, g, NULL, 1), *arena = ir_alloc(ctx, (size_t)g->arena_bytes + 64);
  arena += -(uintptr_t)arena & 63;
  memset(arena, 0xff, (size_t)g->arena_bytes);
  rt_memory m = {.in = in, .out = out, .weights = blob ? blob + (cg_blob_bytes(g) - g->weights_bytes) : NULL, .state = state, .arena = arena};
  rt_exec(ctx, g, g->nrun, g->run, &m, call, &e);
}
