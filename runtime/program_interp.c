/* program_interp.c — see program_interp.h. */
#include "runtime/program_interp.h"
#include "runtime/exec.h"
#include <string.h>

typedef struct interp {
  tn_ctx *ctx;
  const ir_program *p;
  bool unscheduled;
} interp;

static void call(void *user, const ir_inst *c, void *const *args, const int64_t *dims) {
  interp *x = user;
  const ir_program_kernel *pk = &x->p->kernels[c->kernel];
  const ir_kernel *k = pk->lowered && !x->unscheduled ? pk->lowered : pk->kernel;
  if (c->name) ir_where(x->ctx, c->name);
  ir_interp(x->ctx, k, args, dims);
  ir_where(x->ctx, NULL);
}

/* Memory aligned to 64 bytes, poisoned: as f32 the bytes are a NaN. */
static uint8_t *poisoned(tn_ctx *ctx, int64_t bytes) {
  uint8_t *p = ir_alloc(ctx, (size_t)bytes + 64);
  p += -(uintptr_t)p & 63;
  memset(p, 0xff, (size_t)bytes);
  return p;
}

void rt_program_interp(tn_ctx *ctx, const ir_program *p, const void *const in[], void *const out[], const void *const raw[],
                       void *state, const rt_interp_options *options) {
  interp x = {.ctx = ctx, .p = p, .unscheduled = options && options->unscheduled};
  const void **tensors = IR_NEW_ARRAY(ctx, const void *, p->nraw + 1);
  for (int i = 0; i < p->nslots; i++)
    if (p->slots[i].kind == IR_SLOT_RAW) tensors[p->slots[i].index] = raw ? raw[p->slots[i].index] : p->slots[i].data;
  int64_t arena = p->arena_bytes > p->pack_arena_bytes ? p->arena_bytes : p->pack_arena_bytes;
  rt_memory m = {.in = in, .out = out, .raw = tensors, .weights = poisoned(ctx, p->weights_bytes), .state = state,
                 .arena = poisoned(ctx, arena), .dims = options ? options->dims : NULL};
  if (rt_check_dims(p, m.dims)) ir_fail(ctx, TN_EUSAGE, "a dimension has no value, or one out of its range");
  rt_exec(ctx, p, p->npack, p->pack, &m, call, &x);
  memset(m.arena, 0xff, (size_t)arena);
  rt_exec(ctx, p, p->nrun, p->run, &m, call, &x);
  rt_extents(ctx, p, &m, &x, options ? options->out_dims : NULL);
}
