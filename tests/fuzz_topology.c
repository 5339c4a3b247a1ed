/* Fuzzes the reader of SCALE-Sim topologies. */
#include "frontend/topology.h"
#include "tests/fuzz_limit.h"

typedef struct input {
  const char *data;
  size_t n;
} input;

static void target(tn_ctx *ctx, void *arg) {
  input *in = arg;
  fe_topology *t = fe_topology_parse(ctx, in->data, in->n, "fuzz.csv");
  ir_assert(ctx, t->n > 0);
  for (int i = 0; i < t->n; i++) {
    const fe_topology_layer *l = &t->layers[i];
    ir_assert(ctx, l->M > 0 && l->N > 0 && l->K > 0 && l->groups > 0 && l->copies >= 0 && l->line > 0);
    ir_assert(ctx, l->M <= FE_TOPOLOGY_MOST && l->N <= FE_TOPOLOGY_MOST && l->K <= FE_TOPOLOGY_MOST);
    ir_assert(ctx, (double)l->M * (double)l->N * (double)l->K * (double)l->groups <= FE_TOPOLOGY_MACS);
    fuzz_touch_str(fe_topology_name(ctx, l, 0));
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  input in = {(const char *)data, n};
  fuzz_run(64 * n + (64 << 10), target, &in, 1u << TN_OK | 1u << TN_EINPUT);
  return 0;
}
