/* pack.c — see pack.h. */
#include "runtime/pack.h"
#include "codegen/entry.h"
#include "frontend/file.h"
#include "runtime/exec.h"
#include <string.h>
#include <sys/mman.h>

/* -------------------------------------------------------------- regions ---- */

void rt_region_free(void *arg) {
  rt_region *r = arg;
  if (r->p) munmap(r->p, r->bytes);
  r->p = NULL;
}

bool rt_region_get(rt_region *r, int64_t bytes) {
  enum { HUGE_PAGE = 2 << 20 };
  bool huge = bytes >= HUGE_PAGE / 2;
  size_t want = bytes <= 0 ? 1 : huge ? ((size_t)bytes + HUGE_PAGE - 1) & ~(size_t)(HUGE_PAGE - 1) : (size_t)bytes, spare = huge ? HUGE_PAGE : 0;
  *r = (rt_region){.bytes = want};
  char *p = mmap(NULL, want + spare, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return false;
  size_t before = huge ? -(uintptr_t)p & (HUGE_PAGE - 1) : 0;
  if (before) munmap(p, before);
  if (spare > before) munmap(p + before + want, spare - before);
  r->p = p + before;
#ifdef MADV_HUGEPAGE
  if (huge) madvise(r->p, want, MADV_HUGEPAGE);
#endif
  return true;
}

/* -------------------------------------------------------------- packing ---- */

typedef struct packer {
  const rt_packing *w;
  tn_ctx *ctx;
  uint8_t *weights, *scratch, *buffer; /* buffer: of what a call leaves for the file */
  bool *leaves;                        /* by slot: weights that one instruction writes, and no other touches */
} packer;

static int64_t aligned(int64_t n) { return (n + CG_ALIGN - 1) & ~(int64_t)(CG_ALIGN - 1); }
static const ir_kernel *kernel_of(const ir_program *p, const ir_inst *c) {
  const ir_program_kernel *pk = &p->kernels[c->kernel];
  return pk->lowered ? pk->lowered : pk->kernel;
}

static void to_file(packer *x, const void *data, int64_t offset, int64_t bytes) {
  fe_write_at(x->w->file, x->w->at + CG_BLOB_HEADER + (size_t)offset, data, (size_t)bytes);
}

static bool overlap(const ir_slot *a, const ir_slot *b) {
  return a->kind == b->kind && a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes;
}

/* How often instructions name memory of the slot. */
static int uses(const ir_program *p, const ir_slot *s, int n, const ir_inst *insts) {
  int sum = 0;
  for (int i = 0; i < n; i++) {
    const ir_inst *c = &insts[i];
    int nargs = c->kind == IR_CALL ? c->nargs : c->kind == IR_COPY_SLOT ? 2 : 0;
    if (c->value && c->value->loads) sum += 2; /* a value may read any slot */
    for (int k = 0; k < nargs; k++) sum += overlap(&p->slots[c->args[k]], s);
    sum += 2 * (uses(p, s, c->nbody, c->body) + uses(p, s, c->nother, c->other)); /* perhaps more than once */
  }
  return sum;
}

static void find_leaves(packer *x) {
  const ir_program *p = x->w->p;
  x->leaves = IR_NEW_ARRAY(x->ctx, bool, p->nslots + 1);
  for (int i = 0; i < p->nslots && x->w->file; i++)
    x->leaves[i] = p->slots[i].kind == IR_SLOT_WEIGHTS && uses(p, &p->slots[i], p->npack, p->pack) == 1;
}

static bool leaves(const packer *x, const ir_inst *c, int k) {
  return x->leaves[c->args[k]] && kernel_of(x->w->p, c)->bufs[k]->access & IR_OUT;
}

/* Bytes of the buffer that a call fills. */
static int64_t left(const packer *x, const ir_inst *c) {
  int64_t sum = 0;
  for (int k = 0; c->kind == IR_CALL && k < c->nargs; k++)
    if (leaves(x, c, k)) sum += aligned(x->w->p->slots[c->args[k]].bytes);
  return sum;
}

static void run(packer *x, const ir_inst *c, void **args, const int64_t *dims) {
  const ir_kernel *k = kernel_of(x->w->p, c);
  ix tasks = x->w->infos[c->kernel].ntasks;
  for (int d = 0; d < k->ndims; d++) tasks = ix_subst1(x->ctx, tasks, k->dims[d], ix_index(x->ctx, dims[d]));
  int64_t n = ix_need_const(x->ctx, tasks, "number of tasks");
  rt_run_tasks(&x->w->infos[c->kernel], n, x->w->threads, x->w->kernels[c->kernel], args);
}

static void call(void *user, const ir_inst *c, void *const *args, const int64_t *dims) {
  packer *x = user;
  const ir_kernel *k = kernel_of(x->w->p, c);
  void **all = IR_NEW_ARRAY(x->ctx, void *, c->nargs + 1 + k->ndims);
  uint8_t *to = x->buffer;
  for (int i = 0; i < c->nargs; i++) {
    all[i] = args[i];
    if (!leaves(x, c, i)) continue;
    all[i] = to;
    to += aligned(x->w->p->slots[c->args[i]].bytes);
  }
  if (to > x->buffer) memset(x->buffer, 0, (size_t)(to - x->buffer)); /* padding, which nothing need write */
  all[c->nargs] = x->scratch;
  for (int d = 0; d < k->ndims; d++) all[c->nargs + 1 + d] = (void *)&dims[d];
  run(x, c, all, dims);
  for (int i = 0; i < c->nargs; i++)
    if (leaves(x, c, i)) to_file(x, all[i], x->w->p->slots[c->args[i]].offset, x->w->p->slots[c->args[i]].bytes);
}

/* Of slots: constants that runs read as they are. */
static void copy(void *user, void *to, const void *from, size_t bytes) {
  packer *x = user;
  const ir_program *p = x->w->p;
  for (int i = 0; i < p->nslots; i++)
    if (x->leaves[i] && to == x->weights + p->slots[i].offset) {
      to_file(x, from, p->slots[i].offset, (int64_t)bytes);
      return;
    }
  memmove(to, from, bytes);
}

static void read_here(void *user, void *to, const void *from, size_t bytes) {
  (void)user;
  memcpy(to, from, bytes);
}

/* The program's raw tensors, replaced where `raw` has one. */
static const void **raw_table(tn_ctx *ctx, const ir_program *p, const void *const raw[]) {
  const void **t = IR_NEW_ARRAY(ctx, const void *, p->nraw + 1);
  for (int i = 0; i < p->nslots; i++) {
    const ir_slot *s = &p->slots[i];
    if (s->kind != IR_SLOT_RAW) continue;
    t[s->index] = raw && raw[s->index] ? raw[s->index] : s->data;
    if (s->bytes && !t[s->index]) ir_fail(ctx, TN_EUSAGE, "packing the weights: %s", cg_run_error(CG_RUN_ARG));
  }
  return t;
}

static rt_region *memory(tn_ctx *ctx, int64_t bytes) {
  rt_region *r = IR_NEW(ctx, rt_region);
  ir_defer(ctx, rt_region_free, r); /* first: registering may itself throw */
  if (!rt_region_get(r, bytes)) ir_fail(ctx, TN_ERESOURCE, "no memory for %lld bytes of weights", (long long)bytes);
  return r;
}

/* Weights that were needed again: they are whole by now. */
static void write_rest(packer *x) {
  const ir_program *p = x->w->p;
  cg_blob_header h = cg_blob_header_of(x->ctx, p);
  fe_write_at(x->w->file, x->w->at, &h, sizeof h);
  for (int i = 0; i < p->nslots; i++)
    if (p->slots[i].kind == IR_SLOT_WEIGHTS && !x->leaves[i]) to_file(x, x->weights + p->slots[i].offset, p->slots[i].offset, p->slots[i].bytes);
}

void rt_pack(tn_ctx *ctx, const rt_packing *w) {
  const ir_program *p = w->p;
  packer x = {.w = w, .ctx = ctx, .weights = (uint8_t *)w->blob + CG_BLOB_HEADER};
  const void **raw = raw_table(ctx, p, w->raw);
  find_leaves(&x);
  int64_t most = 0, workers = w->threads ? w->threads->workers : 1, temporaries = aligned(p->pack_arena_bytes);
  for (int i = 0; i < p->npack; i++)
    if (left(&x, &p->pack[i]) > most) most = left(&x, &p->pack[i]);
  rt_region *own = memory(ctx, temporaries + cg_shared_bytes(p, true, w->infos) + workers * cg_scratch_bytes(p, true, w->infos)), *buffer = memory(ctx, most);
  x.scratch = (uint8_t *)own->p + temporaries, x.buffer = buffer->p;
  rt_elsewhere here = {copy, read_here};
  rt_memory m = {.raw = raw, .weights = x.weights, .arena = own->p, .elsewhere = w->file ? &here : NULL};
  rt_exec(ctx, p, p->npack, p->pack, &m, call, &x);
  if (w->file) write_rest(&x);
  else {
    cg_blob_header h = cg_blob_header_of(ctx, p);
    memcpy(w->blob, &h, sizeof h);
  }
  ir_undefer(ctx, rt_region_free, buffer);
  rt_region_free(buffer);
  ir_undefer(ctx, rt_region_free, own);
  rt_region_free(own);
}
