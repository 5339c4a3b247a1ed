/* tpu_compile.h — programs of kernels become programs of the systolic machine.
 *
 *   ir_program + machine ── tpu_compile ──> tpu_program
 *
 * Kernels are taken with their schedules, and every result has the bits that the interpreter gives for
 * them: sums in the order of the loops. Never refuses a kernel that the interpreter can run, but for: loops whose
 * unrolled body would exceed TPU_MAX_INSTS instructions, calls of other devices, and sizes known at run time alone.
 */
#ifndef CG_TPU_COMPILE_H
#define CG_TPU_COMPILE_H
#include "codegen/tpu_isa.h"

enum {
  TPU_MAX_INSTS = 1 << 22,
  TPU_COMPILER_VERSION = 2 /* of what is stored: to be raised when programs change */
};

/* What a tuner may vary; 0 leaves the choice to the model. */
typedef struct tpu_tunables {
  int64_t rows;     /* rows of A that a tile's accumulators take */
  int64_t columns;  /* columns of it: a multiple of the array's is best */
  int stationary;   /* 1: B rests in the array, 2: A */
  int64_t vector;   /* most lanes of a vector instruction's chunk */
} tpu_tunables;

typedef enum tpu_layout { /* of arrays on the chip */
  TPU_LAYOUT_ANY,   /* tiled where the machine has tiles; rt_tpu_program: the faster one */
  TPU_LAYOUT_DENSE,
  TPU_LAYOUT_TILED  /* rows of the last axis at multiples of tile_cols, where that takes at most eight times the memory */
} tpu_layout;

typedef struct tpu_options {
  const tpu_tunables *tile;     /* for all contractions; may be null */
  const tpu_tunables *tiles;    /* by kernel of the program, before `tile`; may be null */
  const uint8_t *weights;       /* the packed weights, offset 0; program->weights_bytes long */
  int cores;                    /* that share the work, at most the machine's; 0: one */
  tpu_layout layout;
  bool no_resident;             /* every buffer of the program lies in DRAM: for tests */
} tpu_options;

tpu_program *tpu_compile(tn_ctx *ctx, const ir_program *p, const tpu_machine *m, const tpu_options *o);
#endif
