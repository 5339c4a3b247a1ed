/* support_tpu.h — the systolic machine in tests: random instructions, and a slow reference of what they mean. */
#ifndef SUPPORT_TPU_H
#define SUPPORT_TPU_H
#include "codegen/tpu_isa.h"
#include "runtime/tpu_sim.h"

typedef struct tpu_random { uint64_t state; } tpu_random;
uint64_t tpu_next(tpu_random *r);
int64_t tpu_between(tpu_random *r, int64_t lo, int64_t hi); /* both included */

/* An instruction that tpu_inst_check accepts for any machine; its addresses mean nothing. */
tpu_inst tpu_random_inst(tn_ctx *ctx, tpu_random *r);

/* Memories of the reference: one after another, loops as the head of tpu_isa.h writes them. */
typedef struct tpu_reference {
  tn_ctx *ctx;
  uint8_t *memory[TPU_SPACES];      /* DRAM, UB, ACC */
  float *tile;                      /* [k][n] */
  int64_t tile_k, tile_n;
  struct { float *values; int64_t k, n; } fifo[8];
  int nfifo;
} tpu_reference;
/* Carries out an instruction without registers; of the sequencer: nothing. */
void tpu_refer(tpu_reference *r, const tpu_inst *i);
#endif
