/* cuda_sizes.c — graphs of several sizes as programs for GPUs: those of lower/sizes.h, parts of inputs and outputs that do not
 * lie as kernels and tensor maps want them, at multiples of 16 bytes, going through the arena. */
#include "lower/sizes.h"
#include "runtime/cuda_plan.h"
#include <string.h>

enum { ALIGNMENT = 16 };

typedef struct pass {
  tn_ctx *ctx;
  ir_program *p;
  int nslots;      /* those from before */
  int *copy;       /* by slot: the slot that stands for it; 0: none yet */
} pass;

/* Whether where the slot lies hangs on the part, and may be anywhere. */
static bool is_loose(const ir_slot *s) { return s->step % ALIGNMENT || (s->step && s->offset % ALIGNMENT); }

static int stand_in(pass *x, int slot) {
  if (x->copy[slot]) return x->copy[slot];
  ir_slot s = x->p->slots[slot];
  s.kind = IR_SLOT_ARENA;
  s.name = ir_format(x->ctx, "%s.part", s.name);
  s.index = 0;
  s.step = 0;
  s.inout = false;
  s.sizes = NULL;
  s.offset = x->p->arena_bytes;
  x->p->arena_bytes += (s.bytes + 63) / 64 * 64;
  IR_PUSH(x->ctx, x->p->slots, x->p->nslots, s);
  return x->copy[slot] = x->p->nslots - 1;
}

static ir_inst copy_of(tn_ctx *ctx, int to, int from) {
  ir_inst c = {.kind = IR_COPY_SLOT, .nargs = 2, .args = IR_NEW_ARRAY(ctx, int, 2)};
  c.args[0] = to;
  c.args[1] = from;
  return c;
}

static void align_calls(pass *x, int *n, ir_inst **insts) {
  ir_inst *out = NULL;
  int count = 0;
  for (int i = 0; i < *n; i++) {
    ir_inst c = (*insts)[i];
    align_calls(x, &c.nbody, &c.body);
    align_calls(x, &c.nother, &c.other);
    if (c.kind != IR_CALL) {
      IR_PUSH(x->ctx, out, count, c);
      continue;
    }
    const ir_program_kernel *pk = &x->p->kernels[c.kernel];
    const ir_kernel *k = pk->lowered ? pk->lowered : pk->kernel;
    int *args = IR_NEW_ARRAY(x->ctx, int, c.nargs + 1);
    for (int a = 0; a < c.nargs; a++) {
      args[a] = is_loose(&x->p->slots[c.args[a]]) ? stand_in(x, c.args[a]) : c.args[a];
      if (args[a] != c.args[a] && k->bufs[a]->access != IR_OUT) IR_PUSH(x->ctx, out, count, copy_of(x->ctx, args[a], c.args[a]));
    }
    const int *before = c.args;
    c.args = args;
    IR_PUSH(x->ctx, out, count, c);
    for (int a = 0; a < c.nargs; a++)
      if (args[a] != before[a] && k->bufs[a]->access != IR_IN) IR_PUSH(x->ctx, out, count, copy_of(x->ctx, before[a], args[a]));
  }
  *n = count;
  *insts = out;
}

ir_program *rt_cuda_lower_sizes(tn_ctx *ctx, const ir_graph *g, int n, const lw_dim *dims, const lw_options *o) {
  pass x = {.ctx = ctx, .p = lw_compile_sizes(ctx, g, n, dims, o)};
  x.nslots = x.p->nslots;
  x.copy = IR_NEW_ARRAY(ctx, int, x.nslots + 1);
  align_calls(&x, &x.p->nrun, &x.p->run);
  return x.p;
}
