/* Modules: the sample program by interpreter and JIT, serial and threaded, profiled, repacked. */
#include "aot/sample.h"
#include "runtime/module.h"
#include "runtime/program_interp.h"
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>

typedef struct outputs {
  float y[ROWS * COLS], z[ROWS * COLS];
  int64_t top[ROWS], steps[3];
} outputs;

static float x[ROWS * INNER], w[INNER * COLS], b[COLS];
static outputs want;
static _Alignas(64) int64_t state[8];

static void setup(void) {
  sample_fill(x, ROWS * INNER, SEED_X), sample_fill(w, INNER * COLS, SEED_W), sample_fill(b, COLS, SEED_B);
  sample_reference(x, w, b, want.y, want.z, want.top);
  for (int i = 0; i < 3; i++) want.steps[i] = 5;
}

static void check(const outputs *o, const char *who) {
  cr_assert(memcmp(o->y, want.y, sizeof o->y) == 0, "%s: y", who);
  cr_assert(memcmp(o->z, want.z, sizeof o->z) == 0, "%s: z", who);
  cr_assert(memcmp(o->top, want.top, sizeof o->top) == 0, "%s: top", who);
  cr_assert(memcmp(o->steps, want.steps, sizeof o->steps) == 0, "%s: steps", who);
}

typedef struct io {
  outputs o;
  const void *in[1];
  void *out[4];
} io;

static void io_init(io *v) {
  memset(&v->o, 0xff, sizeof v->o);
  v->in[0] = x;
  v->out[0] = v->o.y, v->out[1] = v->o.z, v->out[2] = v->o.top, v->out[3] = v->o.steps;
}

/* Runs fn in a context and asserts that nothing was thrown. */
static void protected_by(void (*fn)(tn_ctx *ctx, void *arg), void *arg) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  cr_assert_not_null(ctx);
  tn_status st = ir_protect(ctx, fn, arg);
  cr_assert_eq(st, TN_OK, "%s", ir_error(ctx));
  tn_ctx_free(ctx);
}

static void interpreted(tn_ctx *ctx, void *arg) {
  io v;
  io_init(&v);
  memset(state, 0, sizeof state);
  rt_program_interp(ctx, sample_program(ctx, w, b), v.in, v.out, NULL, state, NULL);
  check(&v.o, "interpreter");
}

Test(module, interpreter, .init = setup) { protected_by(interpreted, NULL); }

static void jitted(tn_ctx *ctx, void *arg) {
  int jobs = *(int *)arg;
  rt_module *m = rt_module_build(ctx, sample_program(ctx, w, b), &(rt_options){.jobs = jobs});
  cr_assert_eq(rt_module_kernels(m)->nparts, 5, "relu and again are one kernel");
  for (int workers = 0; workers <= 4; workers++) {
    rt_pool *pool = workers ? rt_pool_new(workers) : NULL;
    io v;
    io_init(&v);
    memset(state, 0, sizeof state);
    cr_assert_eq(rt_run(m, v.in, v.out, state, rt_pool_threads(pool)), CG_RUN_OK);
    check(&v.o, "JIT");
    rt_pool_free(pool);
  }
  io v;
  io_init(&v);
  v.in[0] = NULL;
  cr_assert_eq(rt_run(m, v.in, v.out, state, NULL), CG_RUN_ARG);
  rt_module_free(ctx, m);
}

Test(module, jit, .init = setup) { protected_by(jitted, &(int){1}); }
Test(module, jit_compiled_by_two, .init = setup) { protected_by(jitted, &(int){2}); }

static void freed_with_context(tn_ctx *ctx, void *arg) { rt_module_build(ctx, sample_program(ctx, w, b), NULL); }
Test(module, freed_with_context, .init = setup) { protected_by(freed_with_context, NULL); }

/* ---- one module, many threads ---- */

typedef struct shared {
  const rt_module *m;
  const rt_threads *threads;
  int bad;
} shared;

static void *runner(void *arg) {
  shared *s = arg;
  int64_t *own = aligned_alloc(64, 64);
  for (int i = 0; i < 40; i++) {
    io v;
    io_init(&v);
    memset(own, 0, 64);
    int rc = rt_run(s->m, v.in, v.out, own, s->threads);
    if (rc != CG_RUN_OK || memcmp(&v.o, &want, sizeof want) != 0) s->bad++;
  }
  free(own);
  return NULL;
}

static void many_threads(tn_ctx *ctx, void *arg) {
  rt_module *m = rt_module_build(ctx, sample_program(ctx, w, b), NULL);
  rt_pool *pool = rt_pool_new(3);
  shared s[4];
  pthread_t t[4];
  for (int i = 0; i < 4; i++) {
    s[i] = (shared){m, i % 2 ? rt_pool_threads(pool) : NULL, 0};
    pthread_create(&t[i], NULL, runner, &s[i]);
  }
  for (int i = 0; i < 4; i++) {
    pthread_join(t[i], NULL);
    cr_assert_eq(s[i].bad, 0);
  }
  rt_pool_free(pool);
}
Test(module, many_threads, .init = setup) { protected_by(many_threads, NULL); }

/* ---- weights changed between runs ---- */

static void repacked(tn_ctx *ctx, void *arg) {
  rt_module *m = rt_module_build(ctx, sample_program(ctx, w, b), NULL);
  static float w2[INNER * COLS];
  sample_fill(w2, INNER * COLS, 77);
  rt_module_repack(ctx, m, (const void *[]){w2, NULL});
  sample_reference(x, w2, b, want.y, want.z, want.top);
  io v;
  io_init(&v);
  memset(state, 0, sizeof state);
  cr_assert_eq(rt_run(m, v.in, v.out, state, NULL), CG_RUN_OK);
  check(&v.o, "repacked");
}
Test(module, repack, .init = setup) { protected_by(repacked, NULL); }

/* ---- profile ---- */

static void profiled(tn_ctx *ctx, void *arg) {
  rt_module *m = rt_module_build(ctx, sample_program(ctx, w, b), NULL);
  rt_pool *pool = rt_pool_new(2);
  rt_profile *p = rt_profile_new(ctx);
  for (int i = 0; i < 3; i++) {
    io v;
    io_init(&v);
    memset(state, 0, sizeof state);
    cr_assert_eq(rt_run_profiled(ctx, m, v.in, v.out, NULL, state, i ? rt_pool_threads(pool) : NULL, p), CG_RUN_OK);
    check(&v.o, "profiled");
  }
  rt_pool_free(pool);
  rt_profile_row *rows;
  cr_assert_eq(rt_profile_rows(ctx, p, &rows), 9);
  cr_assert_str_eq(rows[0].name, "dense (Gemm)");
  cr_assert_eq(rows[0].tasks, ROWS);
  for (int i = 0; i < 9; i++) cr_assert(rows[i].min >= 0 && rows[i].median >= rows[i].min);
  const char *table = rt_profile_table(ctx, p, 0);
  cr_assert_not_null(strstr(table, "top (ArgMax)"), "%s", table);
  const char *trace = rt_profile_trace(ctx, p, "a \"model\"\n");
  cr_assert_not_null(strstr(trace, "\"a \\\"model\\\"\\u000a\""), "%.300s", trace);
  FILE *f = popen("python3 -c 'import json,sys; t=json.load(sys.stdin); assert len(t[\"traceEvents\"]) > 20' 2>/dev/null || [ $? -eq 127 ]", "w");
  fputs(trace, f);
  cr_assert_eq(pclose(f), 0, "the trace is no JSON");
}
Test(module, profile, .init = setup) { protected_by(profiled, NULL); }

/* ---- cache of kernel bytes ---- */

typedef struct memory_cache {
  int n, finds, hits;
  char *keys[16];
  void *bytes[16];
  size_t sizes[16];
} memory_cache;

static const void *cache_find(tn_ctx *ctx, void *user, const char *key, size_t *size) {
  memory_cache *c = user;
  c->finds++;
  for (int i = 0; i < c->n; i++)
    if (strcmp(c->keys[i], key) == 0) {
      c->hits++, *size = c->sizes[i];
      return c->bytes[i];
    }
  return NULL;
}

static void cache_keep(tn_ctx *ctx, void *user, const char *key, const void *bytes, size_t size) {
  memory_cache *c = user;
  c->keys[c->n] = strdup(key), c->bytes[c->n] = memcpy(malloc(size), bytes, size), c->sizes[c->n++] = size;
}

static void cached(tn_ctx *ctx, void *arg) {
  cg_cache cache = {arg, cache_find, cache_keep};
  rt_module *m = rt_module_build(ctx, sample_program(ctx, w, b), &(rt_options){.cache = &cache});
  io v;
  io_init(&v);
  memset(state, 0, sizeof state);
  cr_assert_eq(rt_run(m, v.in, v.out, state, NULL), CG_RUN_OK);
  check(&v.o, "cached");
}

Test(module, cache, .init = setup) {
  memory_cache c = {0};
  protected_by(cached, &c);
  cr_assert(c.n == 5 && c.finds == 5 && c.hits == 0);
  protected_by(cached, &c);
  cr_assert(c.n == 5 && c.finds == 10 && c.hits == 5);
  for (int i = 0; i < c.n; i++) free(c.keys[i]), free(c.bytes[i]);
}

/* ---- refusals ---- */

static void wrong_target(tn_ctx *ctx, void *arg) {
  rt_module_build(ctx, sample_program(ctx, w, b), &(rt_options){.target = cg_target_find(ctx, NULL, arg)});
}

Test(module, target_that_does_not_run_here, .init = setup) {
  tn_ctx *ctx = tn_ctx_new(NULL);
#if defined(__x86_64__)
  char *other = "aarch64-unknown-linux-gnu";
#else
  char *other = "x86_64-unknown-linux-gnu";
#endif
  cr_assert_eq(ir_protect(ctx, wrong_target, other), TN_EUSAGE);
  cr_assert_not_null(strstr(ir_error(ctx), "does not run here"), "%s", ir_error(ctx));
  tn_ctx_free(ctx);
}
