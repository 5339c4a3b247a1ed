/* cuda_compile.c — see cuda_compile.h.
 *
 * A cached cubin is the text of its report, a zero byte, then the bytes. */
#include "runtime/cuda_compile.h"
#include "runtime/cuda_lib.h"
#include "runtime/profile.h"
#include <stdlib.h>
#include <string.h>

typedef void *nvrtcProgram;
typedef struct nvrtc {
  int (*create)(nvrtcProgram *p, const char *source, const char *name, int headers, const char *const *texts, const char *const *names);
  int (*compile)(nvrtcProgram p, int n, const char *const *options);
  int (*log_size)(nvrtcProgram p, size_t *n);
  int (*log)(nvrtcProgram p, char *log);
  int (*cubin_size)(nvrtcProgram p, size_t *n);
  int (*cubin)(nvrtcProgram p, char *cubin);
  int (*destroy)(nvrtcProgram *p);
  const char *(*error)(int e);
} nvrtc;

static nvrtc functions(tn_ctx *ctx) {
  const rt_cuda_lib *l = rt_cuda_library(RT_CUDA_NVRTC);
  if (!l->handle) ir_fail(ctx, TN_EUNSUPPORTED, "NVRTC, which compiles for GPUs, is not there: %s", l->why);
  nvrtc n;
  struct { void **place; const char *symbol; } rows[] = {
      {(void **)&n.create, "nvrtcCreateProgram"}, {(void **)&n.compile, "nvrtcCompileProgram"}, {(void **)&n.log_size, "nvrtcGetProgramLogSize"},
      {(void **)&n.log, "nvrtcGetProgramLog"},    {(void **)&n.cubin_size, "nvrtcGetCUBINSize"}, {(void **)&n.cubin, "nvrtcGetCUBIN"},
      {(void **)&n.destroy, "nvrtcDestroyProgram"}, {(void **)&n.error, "nvrtcGetErrorString"}};
  for (int i = 0; i < IR_COUNT(rows); i++)
    if (!(*rows[i].place = rt_cuda_symbol(RT_CUDA_NVRTC, rows[i].symbol)))
      ir_fail(ctx, TN_EUNSUPPORTED, "%s has no function %s", l->path, rows[i].symbol);
  return n;
}

/* ---- the report ---- */

static int number_before(const char *line, const char *what) {
  const char *p = strstr(line, what);
  if (!p) return 0;
  while (p > line && p[-1] == ' ') p--;
  while (p > line && p[-1] >= '0' && p[-1] <= '9') p--;
  return atoi(p);
}

static void read_line(tn_ctx *ctx, rt_cubin *c, ir_text *warnings, const char *line) {
  const char *name = strstr(line, "Compiling entry function '");
  rt_cuda_function *f = c->nfunctions ? &c->functions[c->nfunctions - 1] : NULL;
  if (name) {
    name += strlen("Compiling entry function '");
    rt_cuda_function r = {.symbol = ir_strndup(ctx, name, strcspn(name, "'"))};
    IR_PUSH(ctx, c->functions, c->nfunctions, r);
  } else if (f && strstr(line, "bytes stack frame")) {
    f->stack_bytes = number_before(line, "bytes stack frame");
    f->spill_stores = number_before(line, "bytes spill stores");
    f->spill_loads = number_before(line, "bytes spill loads");
  } else if (f && strstr(line, "Used ")) {
    f->registers = number_before(line, "registers");
    f->static_shared_bytes = number_before(line, "bytes smem");
  } else if (strstr(line, "warning") || strstr(line, "(C7")) ir_put(warnings, "%s\n", line);
}

static void read_report(tn_ctx *ctx, rt_cubin *c, const char *log) {
  ir_text warnings = {.ctx = ctx};
  for (const char *p = log; *p;) {
    size_t n = strcspn(p, "\n");
    read_line(ctx, c, &warnings, ir_strndup(ctx, p, n));
    p += n + (p[n] == '\n');
  }
  c->warnings = ir_text_str(&warnings);
  c->report = log;
}

/* ---- compiling ---- */

typedef struct job {
  nvrtc n;
  nvrtcProgram p;
} job;

static void destroy(void *arg) {
  job *j = arg;
  if (j->p) j->n.destroy(&j->p);
}

static const char *log_of(tn_ctx *ctx, const job *j) {
  size_t n = 0;
  if (j->n.log_size(j->p, &n) || !n) return "";
  char *log = ir_alloc(ctx, n + 1);
  return j->n.log(j->p, log) ? "" : log;
}

static void need(tn_ctx *ctx, const job *j, int status, const char *what) {
  if (status) ir_fail(ctx, TN_EINTERNAL, "NVRTC: %s: %s\n%s", what, j->n.error(status), j->p ? log_of(ctx, j) : "");
}

static const char *const fixed_options[] = {"-minimal", "-default-device", "-std=c++17", "-fmad=false", "-Xptxas=-v", "-diag-suppress=177,186,550"};

static void compile(tn_ctx *ctx, const cu_target *t, const char *source, rt_cubin *c, const char **log) {
  job *j = IR_NEW(ctx, job);
  j->n = functions(ctx);
  ir_defer(ctx, destroy, j);
  need(ctx, j, j->n.create(&j->p, source, "kernel.cu", 0, NULL, NULL), "a program");
  const char *options[IR_COUNT(fixed_options) + 1];
  memcpy(options, fixed_options, sizeof fixed_options);
  options[IR_COUNT(fixed_options)] = ir_format(ctx, "-arch=%s", t->name);
  need(ctx, j, j->n.compile(j->p, IR_COUNT(options), options), "the source is refused");
  size_t n = 0;
  need(ctx, j, j->n.cubin_size(j->p, &n), "the cubin");
  char *bytes = ir_alloc(ctx, n);
  need(ctx, j, j->n.cubin(j->p, bytes), "the cubin");
  *log = log_of(ctx, j);
  c->bytes = bytes;
  c->size = n;
  ir_undefer(ctx, destroy, j);
  destroy(j);
}

const char *rt_cuda_key(tn_ctx *ctx, const cu_target *t, const char *source) {
  ir_text k = {.ctx = ctx};
  ir_put(&k, "cuda %d %s nvrtc %d", CU_VERSION, t->name, rt_cuda_library(RT_CUDA_NVRTC)->version);
  for (int i = 0; i < IR_COUNT(fixed_options); i++) ir_put(&k, " %s", fixed_options[i]);
  ir_put(&k, "\n%s", source);
  return k.s;
}

const rt_cubin *rt_cuda_cached(tn_ctx *ctx, const cg_cache *cache, const char *key) {
  size_t size;
  const char *kept = cache->find(ctx, cache->user, key, &size);
  const char *end = kept ? memchr(kept, 0, size) : NULL;
  if (!end) return NULL;
  rt_cubin *c = IR_NEW(ctx, rt_cubin);
  read_report(ctx, c, kept);
  c->bytes = end + 1;
  c->size = size - (size_t)(end + 1 - kept);
  c->cached = true;
  return c;
}

void rt_cuda_keep(tn_ctx *ctx, const cg_cache *cache, const char *key, const rt_cubin *c) {
  size_t n = strlen(c->report) + 1;
  char *both = ir_alloc(ctx, n + c->size);
  memcpy(both, c->report, n);
  memcpy(both + n, c->bytes, c->size);
  cache->keep(ctx, cache->user, key, both, n + c->size);
}

const rt_cubin *rt_cuda_compile(tn_ctx *ctx, const cu_target *t, const char *source, const cg_cache *cache) {
  const char *key = cache ? rt_cuda_key(ctx, t, source) : NULL, *log;
  const rt_cubin *kept = cache ? rt_cuda_cached(ctx, cache, key) : NULL;
  if (kept) return kept;
  rt_cubin *c = IR_NEW(ctx, rt_cubin);
  double start = rt_now();
  compile(ctx, t, source, c, &log);
  c->seconds = rt_now() - start;
  read_report(ctx, c, log);
  if (cache) rt_cuda_keep(ctx, cache, key, c);
  return c;
}

const char *rt_cubin_gate(tn_ctx *ctx, const cu_target *t, const rt_cubin *c, const cu_code *code) {
  if (strstr(c->warnings, "C75")) return ir_format(ctx, "ptxas warns: %s", c->warnings); /* wgmma serialised, setmaxnreg ignored */
  for (int i = 0; i < c->nfunctions; i++) {
    const rt_cuda_function *f = &c->functions[i];
    if (f->spill_stores || f->spill_loads) return ir_format(ctx, "%s spills %d bytes", f->symbol, f->spill_stores + f->spill_loads);
    for (int k = 0; k < code->nlaunches; k++) {
      const cu_launch *l = &code->launches[k];
      if (strcmp(l->symbol, f->symbol)) continue;
      if (l->shared_bytes + f->static_shared_bytes > t->shared_bytes)
        return ir_format(ctx, "%s needs %lld bytes of shared memory, a block has %lld", f->symbol, (long long)(l->shared_bytes + f->static_shared_bytes), (long long)t->shared_bytes);
      if (l->registers > (int64_t)f->registers * l->threads)
        return ir_format(ctx, "the roles of %s ask for %lld registers, its block starts with %lld", f->symbol, (long long)l->registers, (long long)f->registers * l->threads);
      if ((int64_t)f->registers * l->threads > t->registers)
        return ir_format(ctx, "%s needs %d registers for each of %d threads", f->symbol, f->registers, l->threads);
    }
  }
  return NULL;
}

int rt_cubin_count(const rt_cubin *c, unsigned opcode) {
  int n = 0;
  const unsigned char *p = c->bytes;
  for (size_t i = 0; i + 16 <= c->size; i += 16) n += (p[i] | (unsigned)(p[i + 1] & 15) << 8) == opcode;
  return n;
}
