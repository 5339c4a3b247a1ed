/* tpu_tune.h — the best tiles of a program on the systolic machine, by trial: timing is exact and takes no
 * machine, so the search is deterministic. */
#ifndef RT_TPU_TUNE_H
#define RT_TPU_TUNE_H
#include "codegen/tpu_compile.h"

typedef struct rt_tpu_tuning {
  tpu_tunables *tiles;     /* by kernel of the program */
  int64_t before, after;   /* cycles of the whole program */
  int trials, changed;     /* programs timed; kernels that got other tiles than the model's */
} rt_tpu_tuning;

/* One contraction after another: each candidate is compiled into the whole program and timed; the fewest cycles
 * win, the earlier candidate where they are equal. `max_trials` 0: all candidates. `o`: as for tpu_compile. */
rt_tpu_tuning rt_tpu_tune(tn_ctx *ctx, const ir_program *p, const tpu_machine *m, const tpu_options *o, int max_trials);
#endif
