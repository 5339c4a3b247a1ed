/* support_cuda_device.c — see support_cuda_device.h. */
#include "support_cuda_device.h"
#include "ir/interp.h"
#include "runtime/program_interp.h"
#include "support_cuda.h"
#include <math.h>
#include <string.h>

const char *cuda_choice_of_case(void *user, const ir_kernel *k) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  const char *choice = cuda_choice_for(ctx, user, k);
  tn_ctx_free(ctx);
  return choice;
}

static void compare(tn_ctx *ctx, const ir_slot *s, const char *want, const char *have, double rtol) {
  size_t size = ir_dtype_bytes(s->dtype);
  bool real = ir_is_float(s->dtype);
  double top = 0, off = 0, tolerance = real ? cuda_tolerance(s->dtype) : 0;
  for (int64_t e = 0; e < s->bytes / (int64_t)size; e++) {
    ir_scalar a = ir_scalar_load(s->dtype, want + (size_t)e * size), b = ir_scalar_load(s->dtype, have + (size_t)e * size);
    double x = real ? a.f : (double)a.i, y = real ? b.f : (double)b.i;
    if (x == y || (isnan(x) && isnan(y))) {
      if (fabs(x) > top && isfinite(x)) top = fabs(x);
      continue;
    }
    if (fabs(x) > top) top = fabs(x);
    if (!(fabs(x - y) <= off)) off = fabs(x - y);
  }
  if (rtol > tolerance) tolerance = rtol;
  if (!(off <= tolerance * top)) ir_fail(ctx, TN_EWRONG, "output '%s' is off by %g of %g", s->name, off, top);
}

void cuda_on_device(tn_ctx *ctx, rt_cuda_device *d, const ir_program *p, const rt_cuda_plan *plan, double rtol) {
  rt_cuda_module *m = rt_cuda_module_new(ctx, d, plan);
  const void **in = IR_NEW_ARRAY(ctx, const void *, p->ninputs + 1);
  void **want = IR_NEW_ARRAY(ctx, void *, p->noutputs + 1), **have = IR_NEW_ARRAY(ctx, void *, p->noutputs + 1);
  const ir_slot **outs = IR_NEW_ARRAY(ctx, const ir_slot *, p->noutputs + 1);
  uint64_t s = 99;
  for (int i = 0; i < p->nslots; i++) {
    const ir_slot *x = &p->slots[i];
    if (x->kind == IR_SLOT_INPUT) in[x->index] = cuda_random(ctx, x, &s, 1, 3);
    if (x->kind != IR_SLOT_OUTPUT) continue;
    outs[x->index] = x;
    want[x->index] = ir_alloc(ctx, (size_t)x->bytes + 1);
    have[x->index] = ir_alloc(ctx, (size_t)x->bytes + 1);
  }
  rt_program_interp(ctx, p, in, want, NULL, NULL, NULL);
  for (int turn = 0; turn < 2; turn++) {
    for (int o = 0; o < p->noutputs; o++) memset(have[o], 0xff, (size_t)outs[o]->bytes);
    rt_cuda_run(ctx, m, in, have, NULL, NULL, NULL);
    for (int o = 0; o < p->noutputs; o++) compare(ctx, outs[o], want[o], have[o], rtol);
  }
  if (!(rt_cuda_time(ctx, m, 3) > 0)) ir_fail(ctx, TN_EWRONG, "no time");
  rt_cuda_module_free(m);
}
