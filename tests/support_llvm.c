/* support_llvm.c — see support_llvm.h. */
#include "support_llvm.h"
#include "codegen/jit.h"
#include "ir/interp.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef void (*kernel_fn)(void *const *args, int32_t task, int32_t worker);

enum { ZONE = 512 }; /* bytes around each buffer that must not change */

static uint64_t next(uint64_t *s) {
  *s += 0x9e3779b97f4a7c15u;
  uint64_t z = *s;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

typedef struct dim_values {
  const ir_kernel *k;
  tn_ctx *ctx;
  const int64_t *dims;
} dim_values;

static ix dim_value(void *user, ir_var *v) {
  dim_values *d = user;
  for (int i = 0; i < d->k->ndims; i++)
    if (d->k->dims[i] == v) return ix_index(d->ctx, d->dims[i]);
  return NULL;
}

static int64_t value_of(dim_values *d, ix e) { return ix_need_const(d->ctx, ix_subst(d->ctx, e, dim_value, d), "extent"); }

static void fill(const ir_buf *b, char *p, int64_t n, const llvm_check *how, uint64_t *s) {
  double range = how->range ? how->range : 4;
  int64_t lo = how->ilo, hi = how->ihi;
  if (!lo && !hi) lo = ir_is_unsigned(b->dtype) ? 0 : -100, hi = 100;
  size_t size = ir_dtype_bytes(b->dtype);
  for (int64_t i = 0; i < n; i++) {
    uint64_t r = next(s);
    ir_scalar v = {0};
    if (ir_is_float(b->dtype)) v.f = ir_round_float(b->dtype, ((double)(r >> 11) * 0x1p-52 - 1) * range);
    else if (b->dtype == TN_BOOL) v.i = r & 1;
    else v.i = ir_wrap_int(b->dtype, lo + (int64_t)(r % (uint64_t)(hi - lo + 1)));
    ir_scalar_store(b->dtype, p + (size_t)i * size, v);
  }
}

/* Makes alike in both what may differ: the padding of an axis' last block, which nobody reads. */
static void forget_padding(dim_values *d, const ir_buf *b, char *want, const char *have, int64_t n) {
  if (!b->layout || b->access == IR_IN) return;
  for (int i = 0; i < b->layout->nsteps; i++)
    if (b->layout->steps[i].kind == IR_LAYOUT_PAD) return;
  bool *used = IR_NEW_ARRAY(d->ctx, bool, n);
  int64_t extent[IR_MAX_RANK], at[IR_MAX_RANK] = {0}, total = 1;
  for (int i = 0; i < b->rank; i++) total *= extent[i] = value_of(d, b->shape[i]);
  for (int64_t e = 0; e < total; e++) {
    ix index[IR_MAX_RANK];
    for (int i = 0; i < b->rank; i++) index[i] = ix_index(d->ctx, at[i]);
    used[value_of(d, ir_buf_offset(d->ctx, b, index))] = true;
    for (int i = b->rank - 1; i >= 0 && ++at[i] == extent[i]; i--) at[i] = 0;
  }
  size_t size = ir_dtype_bytes(b->dtype);
  for (int64_t i = 0; i < n; i++)
    if (!used[i]) memcpy(want + (size_t)i * size, have + (size_t)i * size, size);
}

static const char *compare(tn_ctx *ctx, const ir_buf *b, const char *want, const char *have, int64_t n, double rtol) {
  size_t size = ir_dtype_bytes(b->dtype);
  double top = 0;
  bool real = ir_is_float(b->dtype);
  for (int64_t i = 0; real && i < n; i++) {
    double f = fabs(ir_scalar_load(b->dtype, want + (size_t)i * size).f);
    if (isfinite(f) && f > top) top = f;
  }
  for (int64_t i = 0; i < n; i++) {
    const char *p = want + (size_t)i * size, *q = have + (size_t)i * size;
    if (memcmp(p, q, size) == 0) continue;
    ir_scalar x = ir_scalar_load(b->dtype, p), y = ir_scalar_load(b->dtype, q);
    if (real && isnan(x.f) && isnan(y.f)) continue;
    if (real && rtol > 0 && fabs(x.f - y.f) <= rtol * top) continue;
    if (real) return ir_format(ctx, "%s[%lld]: %.17g, should be %.17g", b->name, (long long)i, y.f, x.f);
    return ir_format(ctx, "%s[%lld]: %lld, should be %lld", b->name, (long long)i, (long long)y.i, (long long)x.i);
  }
  return NULL;
}

const char *llvm_check_kernel(tn_ctx *ctx, const cg_target *t, const ir_kernel *k, const llvm_check *how) {
  llvm_check plain = {0};
  if (!how) how = &plain;
  uint64_t s = how->seed * 0x2545f4914f6cdd1du + 1;
  const char *wrong = ir_kernel_verify(ctx, k);
  if (wrong) return ir_format(ctx, "the kernel is not valid: %s", wrong);
  dim_values d = {k, ctx, how->dims};
  int64_t *count = IR_NEW_ARRAY(ctx, int64_t, k->nbufs + 1);
  char **want = IR_NEW_ARRAY(ctx, char *, k->nbufs + 1), **have = IR_NEW_ARRAY(ctx, char *, k->nbufs + 1);
  void **args = IR_NEW_ARRAY(ctx, void *, k->nbufs + 1 + k->ndims);
  for (int i = 0; i < k->nbufs; i++) {
    const ir_buf *b = k->bufs[i];
    count[i] = value_of(&d, ir_buf_elements(ctx, b));
    size_t bytes = (size_t)count[i] * ir_dtype_bytes(b->dtype);
    want[i] = ir_alloc(ctx, bytes + 16);
    if (b->access != IR_OUT) fill(b, want[i], count[i], how, &s);
    if (how->data && how->data[i]) memcpy(want[i], how->data[i], bytes);
    char *room = ir_alloc(ctx, bytes + 2 * ZONE + 64);
    room += 64 - ((uintptr_t)room & 63);
    memset(room, 0x5a, bytes + 2 * ZONE);
    have[i] = room + ZONE;
    memcpy(have[i], want[i], bytes);
    args[i] = have[i];
  }
  for (int i = 0; i < k->ndims; i++) args[k->nbufs + 1 + i] = (void *)&how->dims[i];
  ir_interp(ctx, k, (void *const *)want, how->dims);

  const cg_object *o = cg_compile_kernel(ctx, t, k, "kernel_under_test");
  cg_jit *jit = cg_jit_new(ctx);
  cg_jit_add(ctx, jit, o->bytes, o->size);
  kernel_fn run = (kernel_fn)cg_jit_symbol(ctx, jit, "kernel_under_test");
  const cg_kernel_info *info = &o->kernels[0];
  int64_t workers = 3, scratch = cg_kernel_scratch(info, (int)workers);
  char *room = ir_alloc(ctx, (size_t)scratch + 64);
  room += 64 - ((uintptr_t)room & 63);
  memset(room, 0xa5, (size_t)scratch);
  args[k->nbufs] = scratch ? room : NULL;
  int64_t tasks = value_of(&d, info->ntasks), first = 0;
  for (int p = 0; p < (info->nphases ? info->nphases : 1); p++) {
    int64_t n = info->nphases ? info->phase[p] : tasks;
    for (int64_t i = 0; i < n; i++) run(args, (int32_t)(first + (how->backwards ? n - 1 - i : i)), (int32_t)(i % workers));
    first += n;
  }
  cg_jit_free(ctx, jit);

  for (int i = 0; i < k->nbufs; i++) {
    const ir_buf *b = k->bufs[i];
    size_t bytes = (size_t)count[i] * ir_dtype_bytes(b->dtype);
    forget_padding(&d, b, want[i], have[i], count[i]);
    const char *diff = compare(ctx, b, want[i], have[i], count[i], how->rtol);
    if (diff) return ir_format(ctx, "%s: %s", t->cpu, diff);
    for (int j = 1; j <= ZONE; j++)
      if (have[i][-j] != 0x5a || have[i][(int64_t)bytes + j - 1] != 0x5a)
        return ir_format(ctx, "%s: bytes around %s changed", t->cpu, b->name);
  }
  return NULL;
}

const char *llvm_check_text(tn_ctx *ctx, const char *cpu, const char *text, const llvm_check *how) {
  return llvm_check_kernel(ctx, cg_target_find(ctx, cpu, NULL), ir_kernel_parse(ctx, text, "test"), how);
}
