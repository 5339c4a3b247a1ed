/* operands.c — see operands.h. */
#include "autotune/operands.h"
#include "ir/interp.h"
#include "runtime/exec.h"
#include "runtime/module.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { UNWRITTEN = 0xa5, CANARY = 0x5a, UNDEFINED_SCRATCH = 0xff, PAGE = 4096, CLOSED = 1 << 16 };

typedef struct operand {
  const ir_buf *buf;
  int64_t shape[IR_MAX_RANK], elements; /* logical */
  size_t size;                          /* of an element */
  void *data;                           /* dense, row-major; null for `out` */
  void *want;                           /* `out`, `inout`: the reference's result, dense */
  void *want_memory;                    /* the same as it lies in memory; null when only a sample is known */
} operand;

typedef struct region {
  char *map;       /* null: none */
  size_t map_bytes;
  char *p;         /* the buffer: 64-byte aligned, ends (rounded up to 64) at a closed page */
  size_t bytes;
  const char *name;
  struct region *next; /* all guarded regions of this process */
} region;

/* A constant as some candidates want it, so many times. */
typedef struct packed {
  struct packed *next;
  int buf, users, copies;
  const char *layout; /* text */
  size_t bytes;       /* of all copies */
  region r[];
} packed;

struct at_operands {
  tn_ctx *ctx;
  const ir_kernel *k;
  const cg_target *t;
  int n;
  operand *op;
  bool sampled;   /* `want` has holes (bytes UNWRITTEN) */
  bool exact;     /* sums are exact in any order */
  double terms;   /* of a reduction, about */
  double flops;   /* of a call */
  packed *packed;
  void **moving;  /* memory of what is no constant, for timing; null: none yet */
};

/* ---- memory ---- */

static region *regions; /* read by the signal handler of a worker, of which one thread changes them */

static void region_free(void *arg) {
  region *r = arg;
  for (region **at = &regions; *at; at = &(*at)->next)
    if (*at == r) {
      *at = r->next;
      break;
    }
  if (r->map) munmap(r->map, r->map_bytes);
  r->map = NULL;
}

/* closed pages | canary ... buffer | up to 63 canary bytes | closed pages. False when memory is out. */
static bool region_map(region *r, size_t bytes, const char *name) {
  size_t used = (bytes + 63) & ~(size_t)63, inside = (used + 64 + PAGE - 1) & ~(size_t)(PAGE - 1);
  r->map_bytes = inside + 2 * CLOSED;
  r->map = mmap(NULL, r->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (r->map == MAP_FAILED) return r->map = NULL, false;
  r->bytes = bytes;
  r->name = name;
  r->p = r->map + CLOSED + inside - used;
#ifdef MADV_HUGEPAGE
  if (bytes >= 4 << 20) madvise(r->map, r->map_bytes, MADV_HUGEPAGE); /* as modules do */
#endif
  memset(r->map + CLOSED, CANARY, (size_t)(r->p - r->map) - CLOSED);
  memset(r->p + bytes, CANARY, used - bytes);
  mprotect(r->map, CLOSED, PROT_NONE);
  mprotect(r->map + CLOSED + inside, CLOSED, PROT_NONE);
  r->next = regions;
  regions = r;
  return true;
}

static region *region_new(tn_ctx *ctx, size_t bytes, const char *name) {
  region *r = IR_NEW(ctx, region);
  if (!region_map(r, bytes, name)) ir_fail(ctx, TN_ERESOURCE, "no memory for %zu bytes of %s", bytes, name);
  ir_defer(ctx, region_free, r);
  return r;
}

static void region_read_only(const region *r) { mprotect(r->map + CLOSED, r->map_bytes - 2 * CLOSED, PROT_READ); }

static const char *region_hit(tn_ctx *ctx, const region *r) {
  size_t used = (r->bytes + 63) & ~(size_t)63;
  for (const char *c = r->map + CLOSED; c < r->p; c++)
    if (*c != CANARY) return ir_format(ctx, "wrote %zd bytes before %s", r->p - c, r->name);
  for (size_t i = r->bytes; i < used; i++)
    if (r->p[i] != CANARY) return ir_format(ctx, "wrote %zu bytes past the end of %s", i - r->bytes + 1, r->name);
  return NULL;
}

const char *at_guard_at(const void *address) {
  static char text[96];
  const char *a = address;
  for (const region *r = regions; r; r = r->next) {
    if (!r->map || a < r->map || a >= r->map + r->map_bytes) continue;
    const char *where = a >= r->p + r->bytes ? "touched memory past the end of " : a < r->p ? "touched memory before " : "wrote to the input ";
    size_t n = 0; /* no printf in a signal handler */
    for (const char *s = where; *s && n < sizeof text - 1; s++) text[n++] = *s;
    for (const char *s = r->name; *s && n < sizeof text - 1; s++) text[n++] = *s;
    text[n] = 0;
    return text;
  }
  return NULL;
}

/* ---- data ---- */

static uint64_t mix(uint64_t z) {
  z = (z + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

static void draw(void *out, tn_dtype t, int64_t n, uint64_t seed) {
  size_t size = ir_dtype_bytes(t);
  if (t == TN_F32) {
    float *f = out;
    for (int64_t i = 0; i < n; i++) f[i] = (float)((int)(mix(seed + (uint64_t)i) >> 32) % 9) * 0.125f;
    return;
  }
  for (int64_t i = 0; i < n; i++) {
    uint64_t r = mix(seed + (uint64_t)i);
    ir_scalar v = {0};
    int eighths = (int)(r >> 32) % 9;
    if (ir_is_float(t)) v.f = eighths * 0.125;
    else if (t == TN_I8) v.i = eighths;
    else if (t == TN_U8) v.i = eighths + 8;
    else v.i = (int64_t)(r >> 63);
    ir_scalar_store(t, (char *)out + (size_t)i * size, v);
  }
}

static void free_all_packed(void *arg);

static void *memory(at_operands *o, int64_t bytes) { return ir_alloc(o->ctx, (size_t)bytes + 64); }

/* ---- how long sums are ---- */

enum { MAX_NEST = 64 };

typedef struct sums {
  const ir_stmt *loop[MAX_NEST];
  const ir_buf *buf[MAX_NEST]; /* allocs in scope, with the number of loops around them */
  int nloops, nbufs, depth_of[MAX_NEST];
  double most;
} sums;

static double trips_of(const ir_stmt *s) {
  int64_t lo, hi;
  if (ix_const_value(s->lo, &lo) && ix_const_value(s->hi, &hi)) return hi > lo ? (double)(hi - lo) : 1;
  return s->hi->hi != INT64_MAX && s->hi->hi > s->lo->lo ? (double)(s->hi->hi - s->lo->lo) : 16;
}

/* The most terms that meet in one element: iterations of the loops around an update that do not
 * choose the element, as far out as the element exists. */
static void find_sums(sums *f, const ir_stmt *s) {
  if (!s || f->nloops == MAX_NEST || f->nbufs == MAX_NEST) return;
  int nloops = f->nloops, nbufs = f->nbufs;
  if (s->kind == IR_FOR) f->loop[f->nloops++] = s;
  if (s->kind == IR_ALLOC) {
    f->depth_of[f->nbufs] = f->nloops;
    f->buf[f->nbufs++] = s->buf;
  }
  if (s->kind == IR_STORE && (s->op != IR_SET || ix_uses_buf(s->value, s->buf))) {
    double n = 1;
    int from = 0;
    for (int i = 0; i < f->nbufs; i++)
      if (f->buf[i] == s->buf) from = f->depth_of[i];
    for (int i = from; i < f->nloops; i++) {
      bool chooses = false;
      for (int a = 0; a < s->buf->rank; a++) chooses |= ix_uses_var(s->index[a], f->loop[i]->var);
      if (!chooses) n *= trips_of(f->loop[i]);
    }
    if (n > f->most) f->most = n;
  }
  for (int i = 0; i < s->n; i++) find_sums(f, s->items[i]);
  find_sums(f, s->body);
  find_sums(f, s->other);
  f->nloops = nloops, f->nbufs = nbufs;
}

at_operands *at_operands_new(tn_ctx *ctx, const ir_kernel *k, const cg_target *t, uint64_t seed) {
  at_operands *o = IR_NEW(ctx, at_operands);
  *o = (at_operands){.ctx = ctx, .k = k, .t = t, .n = k->nbufs, .op = IR_NEW_ARRAY(ctx, operand, k->nbufs + 1)};
  ir_defer(ctx, free_all_packed, o);
  if (k->ndims) ir_fail(ctx, TN_EUNSUPPORTED, "kernel %s has dimensions without sizes", k->name);
  for (int i = 0; i < o->n; i++) {
    operand *p = &o->op[i];
    p->buf = k->bufs[i];
    p->size = ir_dtype_bytes(p->buf->dtype);
    p->elements = 1;
    for (int a = 0; a < p->buf->rank; a++) {
      if (!ix_const_value(p->buf->shape[a], &p->shape[a])) ir_fail(ctx, TN_EUNSUPPORTED, "kernel %s has dimensions without sizes", k->name);
      if (!ir_mul_size(p->elements, p->shape[a], &p->elements)) ir_fail(ctx, TN_ERESOURCE, "kernel %s: a size overflows", k->name);
    }
    int64_t bytes;
    if (!ir_mul_size(p->elements, (int64_t)p->size, &bytes) || bytes > (int64_t)1 << 36) ir_fail(ctx, TN_ERESOURCE, "kernel %s: %s is too large", k->name, p->buf->name);
    if (p->buf->access == IR_OUT) continue;
    p->data = memory(o, bytes);
    draw(p->data, p->buf->dtype, p->elements, mix(seed) + ((uint64_t)i << 40));
  }
  lw_problem q = lw_problem_of(ctx, k);
  sums f = {.most = 1};
  find_sums(&f, k->body);
  o->terms = f.most;
  o->flops = q.flops;
  o->exact = q.kind == LW_POINTWISE || (q.kind == LW_CONTRACTION && (q.dtype == TN_F32 || q.dtype == TN_F64) && o->terms < 1 << 17);
  return o;
}

/* ---- constants ---- */

enum { MOST_PACKED = 256 << 20 }; /* bytes, beyond which layouts that nobody uses are given up */

static int64_t layout_bytes(const operand *p, const ir_layout *l) { return at_layout_bytes(l, p->buf->rank, p->shape, p->size); }

static void packed_free(packed *k) {
  for (int i = 0; i < k->copies; i++) region_free(&k->r[i]);
  free(k);
}

static void free_all_packed(void *arg) {
  at_operands *o = arg;
  while (o->packed) {
    packed *k = o->packed;
    o->packed = k->next;
    packed_free(k);
  }
}

static void make_room(at_operands *o) {
  size_t all = 0;
  for (packed **at = &o->packed; *at;) {
    packed *k = *at;
    all += k->bytes;
    if (all > MOST_PACKED && !k->users) {
      *at = k->next;
      packed_free(k);
    } else at = &k->next;
  }
}

static const at_made *made_of(const at_code *c, int i) { return c->made && c->made[i].text ? &c->made[i] : NULL; }
static int64_t constant_bytes(const at_operands *o, const at_code *c, int i) {
  const at_made *m = made_of(c, i);
  return m ? m->bytes : layout_bytes(&o->op[i], c->layouts[i]);
}

typedef struct one_run {
  at_kernel_fn fn;
  void *const *args;
} one_run;

static void one_task(void *arg, int task, int worker) {
  const one_run *r = arg;
  r->fn(r->args, task, worker);
}

void at_code_run(const at_code *c, void *const *args) {
  if (c->threads) rt_run_tasks(&c->phases, c->tasks, c->threads, one_task, &(one_run){c->fn, args});
  else
    for (int64_t i = 0; i < c->tasks; i++) c->fn(args, (int32_t)i, 0);
}

static void make_constant(at_operands *o, tn_ctx *ctx, const at_made *m, int i, void *to) {
  void *scratch = m->code.scratch_bytes ? ir_alloc(ctx, (size_t)m->code.scratch_bytes + 64) : NULL;
  scratch = scratch ? (void *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63) : NULL;
  at_code_run(&m->code, (void *[]){o->op[i].data, to, scratch});
}

/* At least so many copies of constant i as the code wants it. */
static packed *packed_get(at_operands *o, tn_ctx *ctx, int i, const at_code *code, int copies) {
  const ir_layout *l = code->layouts[i];
  const at_made *made = made_of(code, i);
  const char *text = made ? made->text : l ? l->text : "";
  for (packed **at = &o->packed; *at; at = &(*at)->next)
    if ((*at)->buf == i && (*at)->copies >= copies && strcmp((*at)->layout, text) == 0) return *at;
  const operand *p = &o->op[i];
  size_t bytes = (size_t)constant_bytes(o, code, i);
  make_room(o);
  packed *k = calloc(1, sizeof *k + (size_t)copies * sizeof(region));
  if (!k) ir_fail(ctx, TN_ERESOURCE, "out of memory");
  k->buf = i;
  k->layout = ir_intern(o->ctx, text);
  k->next = o->packed;
  o->packed = k;
  for (int c = 0; c < copies; c++) {
    if (!region_map(&k->r[c], bytes, p->buf->name)) ir_fail(ctx, TN_ERESOURCE, "no memory for %zu bytes of %s", bytes, p->buf->name);
    k->copies++;
    k->bytes += bytes;
    if (c) memcpy(k->r[c].p, k->r[0].p, bytes);
    else if (made) make_constant(o, ctx, made, i, k->r[0].p);
    else at_pack(ctx, l, p->buf->rank, p->shape, p->size, p->data, k->r[0].p);
    region_read_only(&k->r[c]);
  }
  return k;
}

/* Copies such that all constants together are larger than `cold` bytes, when one set is larger than `l1`. */
static int copies_wanted(const at_operands *o, const at_code *code, int64_t l1, int64_t cold) {
  enum { MOST_COPIES = 256 };
  int64_t fixed = 0;
  for (int i = 0; i < o->n; i++)
    if (o->op[i].buf->constant) fixed += constant_bytes(o, code, i);
  int64_t copies = fixed > l1 ? cold / fixed + 2 : 1;
  return copies > MOST_COPIES ? MOST_COPIES : (int)copies;
}

/* ---- one run on guarded memory ---- */

typedef struct guarded_run {
  region **r; /* per buffer */
  region *scratch;
} guarded_run;

static const char *guarded(at_operands *o, tn_ctx *ctx, const at_code *c, guarded_run *g, at_run_hook hook, void *user) {
  g->r = IR_NEW_ARRAY(ctx, region *, o->n + 1);
  void **args = IR_NEW_ARRAY(ctx, void *, o->n + 1);
  for (int i = 0; i < o->n; i++) {
    operand *p = &o->op[i];
    const ir_layout *l = c->layouts[i];
    if (p->buf->constant && p->data) {
      args[i] = packed_get(o, ctx, i, c, copies_wanted(o, c, o->t->l1_bytes, 2 * o->t->l2_bytes))->r[0].p;
      continue;
    }
    region *r = g->r[i] = region_new(ctx, (size_t)layout_bytes(p, l), p->buf->name);
    if (p->data) at_pack(ctx, l, p->buf->rank, p->shape, p->size, p->data, r->p);
    else memset(r->p, UNWRITTEN, r->bytes);
    if (p->buf->access == IR_IN) region_read_only(r);
    args[i] = r->p;
  }
  g->scratch = c->scratch_bytes ? region_new(ctx, (size_t)c->scratch_bytes, "the scratch memory") : NULL;
  if (g->scratch) memset(g->scratch->p, UNDEFINED_SCRATCH, g->scratch->bytes);
  args[o->n] = g->scratch ? g->scratch->p : NULL;
  if (hook) hook(user, 0, args, o->n);
  at_code_run(c, args);
  if (hook) hook(user, 1, args, o->n);
  for (int i = 0; i <= o->n; i++) {
    const region *r = i < o->n ? g->r[i] : g->scratch;
    const char *hit = r ? region_hit(ctx, r) : NULL;
    if (hit) return hit;
  }
  return NULL;
}

static void guarded_free(tn_ctx *ctx, at_operands *o, guarded_run *g) {
  for (int i = 0; i <= o->n; i++) {
    region *r = i < o->n ? g->r[i] : g->scratch;
    if (!r) continue;
    ir_undefer(ctx, region_free, r);
    region_free(r);
  }
}

const char *at_operands_reference(at_operands *o, const at_code *code, bool sampled) {
  guarded_run g;
  const char *why = guarded(o, o->ctx, code, &g, NULL, NULL);
  o->sampled = sampled;
  for (int i = 0; i < o->n && !why; i++) {
    operand *p = &o->op[i];
    if (p->buf->access == IR_IN) continue;
    int64_t bytes = layout_bytes(p, code->layouts[i]);
    p->want = memory(o, p->elements * (int64_t)p->size);
    at_unpack(o->ctx, code->layouts[i], p->buf->rank, p->shape, p->size, g.r[i]->p, p->want);
    if (sampled) continue;
    p->want_memory = memory(o, bytes);
    memcpy(p->want_memory, g.r[i]->p, (size_t)bytes);
  }
  guarded_free(o->ctx, o, &g);
  return why;
}

bool at_operands_export(const at_operands *o, void (*append)(void *user, const void *p, size_t n), void *user) {
  for (int i = 0; i < o->n; i++) {
    const operand *p = &o->op[i];
    if (p->buf->access == IR_IN) continue;
    if (!p->want) return false;
    append(user, p->want, (size_t)p->elements * p->size);
  }
  return true;
}

bool at_operands_import(at_operands *o, int n, const void *const *from, const size_t *bytes, bool sampled) {
  int k = 0;
  for (int i = 0; i < o->n; i++) {
    operand *p = &o->op[i];
    if (p->buf->access == IR_IN) continue;
    size_t size = (size_t)p->elements * p->size;
    if (k == n || bytes[k] != size) return false;
    p->want = memory(o, (int64_t)size);
    memcpy(p->want, from[k++], size);
    if (!sampled && !p->buf->layout) p->want_memory = p->want;
  }
  o->sampled = sampled;
  return k == n;
}

/* ---- the verdict ---- */

static double epsilon(tn_dtype t) {
  switch (t) {
  case TN_F16: return 0x1p-10;
  case TN_BF16: return 0x1p-7;
  case TN_F32: return 0x1p-23;
  default: return ir_is_byte_float(t) ? ldexp(1, -ir_byte_format_of(t)->fraction) : 0x1p-52;
  }
}

/* Where dense index i lies: "b2[3, 17]". */
static const char *place(tn_ctx *ctx, const operand *p, int64_t i) {
  int64_t at[IR_MAX_RANK];
  for (int a = p->buf->rank; a-- > 0;) at[a] = i % p->shape[a], i /= p->shape[a];
  ir_text t = {.ctx = ctx};
  ir_put(&t, "%s[", p->buf->name);
  for (int a = 0; a < p->buf->rank; a++) ir_put(&t, "%s%lld", a ? ", " : "", (long long)at[a]);
  ir_put(&t, "]");
  return t.s;
}

/* Both dense. Rounding of a reordered sum of n terms is a random walk: about sqrt(n) eps times the
 * size of the sums, for which the largest result stands in; 8 times that is allowed. `error`: what
 * the algorithm loses besides, relative to the largest result. */
static const char *compare(const at_operands *o, tn_ctx *ctx, const operand *p, const char *got, double error) {
  const char *want = p->want;
  tn_dtype t = p->buf->dtype;
  double top = 0, eps = epsilon(t), slack = 4 * eps, walk = 0;
  char hole[16];
  memset(hole, UNWRITTEN, sizeof hole);
  bool real = ir_is_float(t);
  if (real && (!o->exact || error > 0)) {
    for (int64_t i = 0; i < p->elements; i++) {
      double f = fabs(ir_scalar_load(t, want + (size_t)i * p->size).f);
      if (isfinite(f) && f > top) top = f;
    }
    walk = error + (o->exact ? 0 : 8) * sqrt(o->terms) * (eps > 0x1p-23 ? eps : t == TN_F64 ? eps : 0x1p-23);
  }
  for (int64_t i = 0; i < p->elements; i++) {
    const char *w = want + (size_t)i * p->size, *h = got + (size_t)i * p->size;
    if (memcmp(w, h, p->size) == 0) continue;
    if (o->sampled && memcmp(w, hole, p->size) == 0) continue;
    ir_scalar x = ir_scalar_load(t, w), y = ir_scalar_load(t, h);
    if (real) {
      if (isnan(x.f) && isnan(y.f)) continue;
      if (fabs(x.f - y.f) <= slack * fabs(x.f) + walk * (top + fabs(x.f))) continue;
      return ir_format(ctx, "%s is %.9g, should be %.9g", place(ctx, p, i), y.f, x.f);
    }
    return ir_format(ctx, "%s is %lld, should be %lld", place(ctx, p, i), (long long)y.i, (long long)x.i);
  }
  return NULL;
}

const char *at_operands_check(at_operands *o, tn_ctx *ctx, const at_code *code, at_run_hook hook, void *user) {
  guarded_run g;
  const char *why = guarded(o, ctx, code, &g, hook, user);
  bool adopt = o->sampled;
  for (int i = 0; i < o->n && !why; i++) {
    operand *p = &o->op[i];
    if (p->buf->access == IR_IN) continue;
    if (p->want_memory && memcmp(p->want_memory, g.r[i]->p, g.r[i]->bytes) == 0) continue;
    char *got = ir_alloc_array(ctx, (size_t)p->elements + 1, p->size);
    at_unpack(ctx, code->layouts[i], p->buf->rank, p->shape, p->size, g.r[i]->p, got);
    why = compare(o, ctx, p, got, code->error);
    if (!why && adopt) memcpy(p->want, got, (size_t)p->elements * p->size);
  }
  if (!why && adopt) o->sampled = false;
  guarded_free(ctx, o, &g);
  return why;
}

/* ---- a sample of the outputs ---- */

const ir_kernel *at_reference_kernel(tn_ctx *ctx, const ir_kernel *k, double most, bool *sampled) {
  *sampled = false;
  lw_problem q = lw_problem_of(ctx, k);
  if (q.flops <= most || q.kind == LW_OTHER || !q.nout) return k;
  for (int i = 0; i < q.nout; i++)
    if (q.extent[i] < 1) return k;
  /* the longest loops are thinned first */
  int64_t keep[LW_MAX_LOOPS];
  double work = q.flops;
  for (int i = 0; i < q.nout; i++) keep[i] = q.extent[i];
  while (work > most) {
    int longest = 0;
    for (int i = 1; i < q.nout; i++)
      if (keep[i] > keep[longest]) longest = i;
    if (keep[longest] < 4) break;
    int64_t half = (keep[longest] + 1) / 2;
    work *= (double)half / (double)keep[longest];
    keep[longest] = half;
  }
  const ir_stmt *body = q.body;
  for (int i = q.nout; i-- > 0;) {
    const ir_stmt *loop = q.out[i];
    if (keep[i] == q.extent[i]) {
      body = ir_for(ctx, loop->var, loop->lo, loop->hi, IR_SERIAL, body);
      continue;
    }
    ir_var *v = ir_var_new(ctx, ir_format(ctx, "%s.some", loop->var->name), TN_INDEX, 0, keep[i] - 1);
    ix at = ix_add(ctx, loop->lo, ix_divi(ctx, ix_muli(ctx, v->expr, q.extent[i] - 1), keep[i] - 1));
    body = ir_for(ctx, v, ix_index(ctx, 0), ix_index(ctx, keep[i]), IR_SERIAL, ir_subst_var(ctx, body, loop->var, at));
  }
  ir_kernel *r = IR_NEW(ctx, ir_kernel);
  *r = *k;
  r->body = body;
  *sampled = true;
  return r;
}

/* ---- memory for timing ---- */

/* Like the arena of a module. */
static char *plain(tn_ctx *ctx, size_t bytes) {
  rt_region *r = IR_NEW(ctx, rt_region);
  if (!rt_region_get(r, (int64_t)bytes)) ir_fail(ctx, TN_ERESOURCE, "no memory for %zu bytes", bytes);
  ir_defer(ctx, rt_region_free, r);
  return r->p;
}

static size_t up(int64_t bytes) { return ((size_t)bytes + 63) & ~(size_t)63; }

static void make_moving(at_operands *o, tn_ctx *ctx) {
  size_t all = 0;
  void **at = IR_NEW_ARRAY(o->ctx, void *, o->n + 1);
  for (int i = 0; i < o->n; i++)
    if (!o->op[i].buf->constant) all += up(layout_bytes(&o->op[i], o->op[i].buf->layout));
  (void)ctx;
  char *p = plain(o->ctx, all);
  for (int i = 0; i < o->n; i++) {
    const operand *q = &o->op[i];
    const ir_layout *l = q->buf->layout;
    if (q->buf->constant) continue;
    at[i] = p;
    if (q->data) at_pack(o->ctx, l, q->buf->rank, q->shape, q->size, q->data, p);
    p += up(layout_bytes(q, l));
  }
  o->moving = at;
}

typedef struct use {
  packed *of;
} use;

static void end_use(void *arg) { ((use *)arg)->of->users--; }

static const double SHORT = 2e7; /* operations: of longer calls one is a sample */

const at_arguments *at_operands_timing(at_operands *o, tn_ctx *ctx, const at_code *code) {
  if (!o->moving) make_moving(o, ctx);
  at_arguments *g = IR_NEW(ctx, at_arguments);
  g->copies = copies_wanted(o, code, o->t->l1_bytes, 2 * o->t->l2_bytes);
  void *scratch = code->scratch_bytes ? plain(ctx, (size_t)code->scratch_bytes) : NULL;
  void *const **lists = IR_NEW_ARRAY(ctx, void *const *, g->copies);
  packed **of = IR_NEW_ARRAY(ctx, packed *, o->n + 1);
  g->nbufs = o->n;
  g->uses = o->flops < SHORT ? 2 : 1;
  g->constant = IR_NEW_ARRAY(ctx, size_t, o->n + 1);
  for (int i = 0; i < o->n; i++) {
    if (!o->op[i].buf->constant) continue;
    use *u = IR_NEW(ctx, use);
    u->of = of[i] = packed_get(o, ctx, i, code, g->copies);
    g->constant[i] = (size_t)constant_bytes(o, code, i);
    u->of->users++;
    ir_defer(ctx, end_use, u);
  }
  for (int c = 0; c < g->copies; c++) {
    void **args = IR_NEW_ARRAY(ctx, void *, o->n + 1);
    for (int i = 0; i < o->n; i++) args[i] = of[i] ? of[i]->r[c].p : o->moving[i];
    args[o->n] = scratch;
    lists[c] = args;
  }
  g->args = lists;
  return g;
}

static void out_of_caches(const char *p, size_t bytes) {
  enum { LINE = 64 };
#if defined(__x86_64__)
  for (size_t i = 0; i < bytes; i += LINE) __asm__ volatile("clflush %0" : : "m"(p[i]));
  __asm__ volatile("mfence" : : : "memory");
#elif defined(__aarch64__)
  for (size_t i = 0; i < bytes; i += LINE) __asm__ volatile("dc civac, %0" : : "r"(p + i) : "memory");
  __asm__ volatile("dsb ish" : : : "memory");
#else
  (void)p, (void)bytes;
#endif
}

void at_arguments_cool(const at_arguments *g, int copy) {
  for (int i = 0; i < g->nbufs; i++)
    if (g->constant[i]) out_of_caches(g->args[copy][i], g->constant[i]);
}
