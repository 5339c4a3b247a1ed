/* tpu.h — the best tiles of a program on the systolic machine, by trial. A time is exact and takes no machine, so the
 * search is deterministic and each candidate is timed once: the store remembers the others.
 *
 *   kernel by kernel: candidates ── the whole program compiled and timed ── trial ──> store ── winners ──> next compile
 */
#ifndef AT_TPU_H
#define AT_TPU_H
#include "autotune/store.h"
#include "runtime/tpu_build.h"

typedef struct at_tpu_task {
  const ir_program *program;
  const tpu_machine *machine;
  const char *precision;   /* of its products, for the key; may be null */
  const uint8_t *weights;  /* packed, may be null */
  int cores;               /* 0: all of the machine, or one where that is faster */
} at_tpu_task;

typedef struct at_tpu_options {
  at_store *store;         /* null: nothing is kept */
  int trials;              /* most of a kernel; 0: all candidates */
  double budget_s;         /* no new candidate after that; 0: no limit */
  const volatile int *stop; /* not 0: as if the budget were spent; may be null */
  const char *label;       /* of the run, may be null */
} at_tpu_options;

typedef struct at_tpu_result {
  tpu_tunables *tiles;     /* by kernel of the program; zeros: the model's choice */
  int64_t *cycles;         /* by kernel: of the whole program with that kernel's winner alone; 0: not tuned */
  int64_t first, last;     /* cycles of the whole program: with the model's choices, with the winners */
  int trials, known, changed; /* programs timed; candidates that the store knew; kernels with other tiles than the model's */
  bool stopped;            /* by budget or stop */
} at_tpu_result;

/* One kernel after another, the others as the model chose: so a time means the same whenever it was taken. The fewest cycles
 * win, the earlier candidate where they are equal. Cores and layout stay what the model's choices are fastest with. Contractions: rows, columns and which operand rests; all else: lanes of an instruction. */
at_tpu_result at_tpu_tune(tn_ctx *ctx, const at_tpu_task *t, const at_tpu_options *o);
/* What the store knows of the kernels of a program: by kernel, or null when there is nothing but the model's choices. */
tpu_tunables *at_tpu_lookup(tn_ctx *ctx, const at_tpu_task *t, at_store *store);

/* "rows 64 columns 512 rests b lanes 0"; "" for zeros. Reading: false when malformed. */
const char *at_tpu_tiles_print(tn_ctx *ctx, const tpu_tunables *t);
bool at_tpu_tiles_parse(const char *s, tpu_tunables *t);
#endif
