/* Fuzzes the texts and files of TPU programs and the simulator: whatever is accepted prints, reads back and
 * runs to an end or to an error. */
#include "codegen/tpu_isa.h"
#include "runtime/tpu_sim.h"
#include "tests/fuzz_limit.h"

typedef struct input {
  const uint8_t *data;
  size_t n;
} input;

static const tpu_program *same(tn_ctx *ctx, const tpu_program *p) {
  const char *text = tpu_program_print(ctx, p);
  if (strstr(text, " data omitted")) return p;
  const tpu_program *q = tpu_program_parse(ctx, text, "printed");
  ir_assert(ctx, strcmp(tpu_program_print(ctx, q), text) == 0);
  for (int c = 0; c < p->ncores; c++)
    ir_assert(ctx, p->core[c].n == q->core[c].n && (!p->core[c].n || memcmp(p->core[c].insts, q->core[c].insts, (size_t)p->core[c].n * sizeof(tpu_inst)) == 0));
  return q;
}

static void run(tn_ctx *ctx, const tpu_program *p, bool values) {
  tpu_machine m = *tpu_machine_find(ctx, "tpu-v4");
  m.cores = TPU_MAX_CORES;
  m.ub_bytes = m.acc_bytes = 1 << 16;
  if (p->dram_bytes > 1 << 16 || p->ncores > 4) return;
  const void *in[64] = {0};
  void *out[64];
  int ins = 0, outs = 0;
  for (int k = 0; k < p->nsegments; k++) {
    if (p->segments[k].kind == TPU_SEG_INPUT && ins < 64) in[ins++] = ir_alloc(ctx, (size_t)p->segments[k].bytes + 1);
    if (p->segments[k].kind == TPU_SEG_OUTPUT && outs < 64) out[outs++] = ir_alloc(ctx, (size_t)p->segments[k].bytes + 1);
  }
  if (ins == 64 || outs == 64) return;
  tpu_sim_options o = {.max_instructions = 300, .max_work = 20000, .no_values = !values, .timing = values ? TPU_TIMING_TPU : TPU_TIMING_SCALESIM};
  const tpu_result *r = tpu_simulate(ctx, &m, p, &o, in, out, NULL);
  int64_t total = 0;
  for (int t = 0; t < r->ntags; t++) total += r->tags[t].counts.cycles.total;
  ir_assert(ctx, total == r->cycles && r->cycles >= 0);
}

static void target(tn_ctx *ctx, void *arg) {
  input *in = arg;
  const tpu_program *p;
  if (tpu_is_program(in->data, in->n)) p = tpu_program_decode(ctx, in->data, in->n, "fuzz.tpu");
  else if (in->n && in->data[0] == 'n') { /* "name ...": a machine */
    const tpu_machine *m = tpu_machine_parse(ctx, ir_strndup(ctx, (const char *)in->data, in->n), "fuzz.machine");
    fuzz_touch_str(tpu_machine_print(ctx, tpu_machine_parse(ctx, tpu_machine_print(ctx, m), "printed")));
    return;
  } else p = tpu_program_parse(ctx, ir_strndup(ctx, (const char *)in->data, in->n), "fuzz.txt");
  p = same(ctx, p);
  run(ctx, p, in->n & 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  input in = {data, n};
  fuzz_run(64 << 20, target, &in, 1u << TN_OK | 1u << TN_EINPUT | 1u << TN_ERESOURCE);
  return 0;
}
