/* cost.h — what a scheduled kernel should take, from its loops alone.
 *
 * Nothing is run. The loops say how often each instruction is issued (vector loops count in
 * vectors, what does not change is hoisted, tails have loops of their own) and which addresses
 * each access walks; from those follow the ports' cycles, the latency of accumulators, the
 * overhead of loops, and the lines that each cache level has to fetch: data is reused across
 * the iterations of a loop when one iteration's footprint fits the level.
 */
#ifndef AT_COST_H
#define AT_COST_H
#include "autotune/measure.h"

typedef struct at_cost_parts { /* nanoseconds; the whole is less than their sum: they overlap */
  double total;
  double compute;    /* ports, latency and loops */
  double l2, l3, memory; /* moving lines from there */
} at_cost_parts;

/* `k` is scheduled (or not). `m` with zeros: 3 GHz. Constants come from beyond the second-level
 * cache when they do not fit the first, as they are measured. */
at_cost_parts at_predict(tn_ctx *ctx, const ir_kernel *k, const cg_target *t, const at_machine *m);
#endif
