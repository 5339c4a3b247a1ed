/* build.c — compiles each distinct kernel of a program once. See build.h.
 *
 * A kernel is identified by its text without names, so the same convolution in twelve blocks is
 * compiled once, and its symbol says nothing about the model: bytes can be kept and used by
 * other programs. */
#include "codegen/build.h"
#include "codegen/entry.h"
#include "ir/text.h"
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

/* Kernels that LLVM gets as one module: each costs some 4 ms beside its kernels. Fixed, so that bytes do not depend on
 * the number of threads. */
enum { KERNELS_A_MODULE = 6 };

typedef struct work {
  const cg_target *target;
  const ir_kernel **kernels; /* per part */
  cg_part *parts;
  int n, each;               /* parts; of these in a module */
  const cg_build_options *o;
  atomic_int next;
  atomic_bool begun, stop; /* begun: what is done beside */
} work;

typedef struct worker {
  work *w;
  tn_ctx *ctx; /* a child of parent */
  tn_status status;
  pthread_t thread;
} worker;

static void compile_module(tn_ctx *ctx, work *w, int first, int n) {
  cg_part *part = &w->parts[first];
  const char **symbols = IR_NEW_ARRAY(ctx, const char *, n);
  for (int i = 0; i < n; i++) symbols[i] = part[i].symbol;
  const cg_object *o = cg_compile_kernels(ctx, w->target, n, w->kernels + first, symbols);
  part->bytes = o->bytes, part->size = o->size;
  for (int i = 0; i < n; i++) {
    part[i].code_bytes = o->kernels[i].code_bytes, part[i].abi = o->kernels[i];
    if (!ix_const_value(o->kernels[i].ntasks, &part[i].ntasks)) part[i].ntasks = 0;
  }
}

static void compile_some(tn_ctx *ctx, void *arg) {
  work *w = arg;
  if (w->o->beside && !atomic_exchange(&w->begun, true)) w->o->beside(ctx, w->o->user);
  for (;;) {
    int i = atomic_fetch_add(&w->next, 1) * w->each;
    if (i >= w->n || atomic_load(&w->stop)) return;
    if (!w->parts[i].bytes) compile_module(ctx, w, i, w->n - i < w->each ? w->n - i : w->each);
  }
}

static void *worker_main(void *arg) {
  worker *k = arg;
  k->status = ir_protect(k->ctx, compile_some, k->w);
  if (k->status != TN_OK) atomic_store(&k->w->stop, true);
  return NULL;
}

static void free_child(void *arg) {
  worker *k = arg;
  tn_ctx_free(k->ctx);
  k->ctx = NULL;
}

/* Children read the parent, which stays untouched until all are done; then their bytes are copied. */
static void compile_parallel(tn_ctx *ctx, work *w, int jobs) {
  worker *ks = IR_NEW_ARRAY(ctx, worker, jobs);
  int n = 0;
  for (; n < jobs; n++) {
    ir_defer(ctx, free_child, &ks[n]); /* first: registering may itself throw */
    ks[n] = (worker){.w = w, .ctx = ir_ctx_child(ctx)};
    if (!ks[n].ctx) break;
  }
  int started = 0;
  for (; started < n - 1; started++)
    if (pthread_create(&ks[started].thread, NULL, worker_main, &ks[started]) != 0) break;
  if (n > 0) worker_main(&ks[n - 1]); /* the caller works too */
  for (int i = 0; i < started; i++) pthread_join(ks[i].thread, NULL);
  tn_status status = n > 0 ? TN_OK : TN_ERESOURCE;
  const char *why = "out of memory";
  for (int i = 0; i < n; i++)
    if (ks[i].status != TN_OK) status = ks[i].status, why = ir_strdup(ctx, ir_error(ks[i].ctx));
  if (status != TN_OK) ir_fail(ctx, status, "%s", why);
  for (int i = 0; i < w->n; i++) {
    cg_part *part = &w->parts[i];
    if (!part->bytes) continue;
    void *own = ir_alloc(ctx, part->size);
    memcpy(own, part->bytes, part->size);
    part->bytes = own;
  }
  for (int i = n - 1; i >= 0; i--) {
    ir_undefer(ctx, free_child, &ks[i]);
    free_child(&ks[i]);
  }
}

static const char *part_key(tn_ctx *ctx, const cg_target *t, const char *text) {
  return ir_format(ctx, "tenon object %d\n%s\n%s", CG_VERSION, cg_target_fingerprint(ctx, t), text);
}

static const ir_kernel *lowered(const ir_program_kernel *k) { return k->lowered ? k->lowered : k->kernel; }

/* As it was compiled; a number of tasks that depends on dims names those of each kernel. */
static cg_kernel_info info_of(tn_ctx *ctx, const cg_target *t, const ir_kernel *k, const cg_part *part) {
  cg_kernel_info info = part->ntasks ? part->abi : cg_kernel_abi(ctx, t, k);
  if (part->ntasks) info.ntasks = ix_index(ctx, part->ntasks);
  info.symbol = part->symbol, info.code_bytes = part->code_bytes;
  return info;
}

const cg_build *cg_build_kernels(tn_ctx *ctx, const ir_program *p, const cg_build_options *o) {
  int n = p->nkernels > 0 ? p->nkernels : 1;
  cg_build *b = IR_NEW(ctx, cg_build);
  b->target = o->target;
  b->parts = IR_NEW_ARRAY(ctx, cg_part, n);
  b->part_of = IR_NEW_ARRAY(ctx, int, n);
  b->infos = IR_NEW_ARRAY(ctx, cg_kernel_info, n);
  bool *wanted = IR_NEW_ARRAY(ctx, bool, n);
  if (o->run) cg_mark_kernels(p, false, wanted);
  if (o->pack) cg_mark_kernels(p, true, wanted);

  const char **texts = IR_NEW_ARRAY(ctx, const char *, n); /* interned: compared by pointer */
  const ir_kernel **kernels = IR_NEW_ARRAY(ctx, const ir_kernel *, n);
  for (int i = 0; i < p->nkernels; i++) {
    b->part_of[i] = -1;
    if (!wanted[i]) continue;
    const ir_kernel *k = lowered(&p->kernels[i]);
    const char *text = ir_intern(ctx, ir_kernel_unnamed(ctx, k));
    int part = 0;
    while (part < b->nparts && texts[part] != text) part++;
    if (part == b->nparts) {
      size_t len = strlen(text);
      texts[part] = text, kernels[part] = k;
      b->parts[part].name = k->name;
      b->parts[part].symbol = ir_format(ctx, "tk_%016llx%016llx", (unsigned long long)ir_hash_bytes(text, len, 1),
                                        (unsigned long long)ir_hash_bytes(text, len, 2));
      b->nparts++;
    }
    b->part_of[i] = part;
  }

  int missing = 0;
  for (int i = 0; i < b->nparts; i++) {
    cg_part *part = &b->parts[i];
    if (o->cache && o->cache->find) part->bytes = o->cache->find(ctx, o->cache->user, part_key(ctx, o->target, texts[i]), &part->size);
    if (part->bytes) b->hits++;
    else missing++;
  }
  work w = {.target = o->target, .kernels = kernels, .parts = b->parts, .n = b->nparts, .o = o};
  w.each = o->cache ? 1 : o->together ? n : KERNELS_A_MODULE;
  int modules = o->cache ? missing : (missing + w.each - 1) / w.each, most = modules + (o->beside != NULL), jobs = o->jobs < most ? o->jobs : most;
  bool *fresh = IR_NEW_ARRAY(ctx, bool, n);
  for (int i = 0; i < b->nparts; i++) fresh[i] = !b->parts[i].bytes;
  if (jobs > 1) compile_parallel(ctx, &w, jobs);
  else compile_some(ctx, &w);
  if (o->cache && o->cache->keep)
    for (int i = 0; i < b->nparts; i++)
      if (fresh[i]) o->cache->keep(ctx, o->cache->user, part_key(ctx, o->target, texts[i]), b->parts[i].bytes, b->parts[i].size);
  for (int i = 0; i < p->nkernels; i++)
    if (wanted[i]) b->infos[i] = info_of(ctx, o->target, lowered(&p->kernels[i]), &b->parts[b->part_of[i]]);
  return b;
}
