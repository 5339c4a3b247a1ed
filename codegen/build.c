/* build.c — compiles each distinct kernel of a program once. See build.h.
 *
 * A kernel is identified by its canonical text (names left out), so the same convolution in
 * twelve blocks is compiled once, and its symbol says nothing about the model: bytes can
 * be kept and used by other programs. */
#include "codegen/build.h"
#include "codegen/entry.h"
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

typedef struct work {
  tn_ctx *parent;
  const cg_target *target;
  const ir_kernel **kernels; /* per part */
  cg_part *parts;
  int n;
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

static void compile_some(tn_ctx *ctx, void *arg) {
  work *w = arg;
  if (w->o->beside && !atomic_exchange(&w->begun, true)) w->o->beside(ctx, w->o->user);
  for (;;) {
    int i = atomic_fetch_add(&w->next, 1);
    if (i >= w->n || atomic_load(&w->stop)) return;
    cg_part *part = &w->parts[i];
    if (part->bytes) continue;
    const cg_object *o = cg_compile_kernel(ctx, w->target, w->kernels[i], part->symbol);
    part->bytes = o->bytes, part->size = o->size, part->code_bytes = o->code_bytes, part->seconds = o->seconds;
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
    void *own = ir_alloc(ctx, part->size ? part->size : 1);
    memcpy(own, part->bytes, part->size);
    part->bytes = own;
  }
  for (int i = n - 1; i >= 0; i--) {
    ir_undefer(ctx, free_child, &ks[i]);
    free_child(&ks[i]);
  }
}

static const char *part_key(tn_ctx *ctx, const cg_target *t, const char *canonical) {
  return ir_format(ctx, "tenon object %d\n%s\n%s", CG_VERSION, cg_target_fingerprint(ctx, t), canonical);
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
    const ir_kernel *k = p->kernels[i].lowered ? p->kernels[i].lowered : p->kernels[i].kernel;
    const char *text = ir_intern(ctx, ir_kernel_canonical(ctx, k));
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
    b->infos[i] = cg_kernel_abi(ctx, o->target, k);
    b->infos[i].symbol = b->parts[part].symbol;
  }

  if (o->together && b->nparts) {
    const char **symbols = IR_NEW_ARRAY(ctx, const char *, b->nparts);
    for (int i = 0; i < b->nparts; i++) symbols[i] = b->parts[i].symbol;
    const cg_object *all = cg_compile_kernels(ctx, o->target, b->nparts, kernels, symbols);
    b->parts[0].bytes = all->bytes, b->parts[0].size = all->size, b->parts[0].code_bytes = all->code_bytes, b->parts[0].seconds = all->seconds;
    return b;
  }
  int missing = 0;
  for (int i = 0; i < b->nparts; i++) {
    cg_part *part = &b->parts[i];
    if (o->cache && o->cache->find) part->bytes = o->cache->find(ctx, o->cache->user, part_key(ctx, o->target, texts[i]), &part->size);
    if (part->bytes) b->hits++;
    else missing++;
  }
  work w = {.parent = ctx, .target = o->target, .kernels = kernels, .parts = b->parts, .n = b->nparts, .o = o};
  int jobs = o->jobs < missing + (o->beside != NULL) ? o->jobs : missing + (o->beside != NULL);
  bool *fresh = IR_NEW_ARRAY(ctx, bool, n);
  for (int i = 0; i < b->nparts; i++) fresh[i] = !b->parts[i].bytes;
  if (jobs > 1) compile_parallel(ctx, &w, jobs);
  else compile_some(ctx, &w);
  if (o->cache && o->cache->keep)
    for (int i = 0; i < b->nparts; i++)
      if (fresh[i]) o->cache->keep(ctx, o->cache->user, part_key(ctx, o->target, texts[i]), b->parts[i].bytes, b->parts[i].size);
  return b;
}
