/* support_cuda.h — kernels for GPUs on a machine without one: a set of programs, and what each must pass. */
#ifndef SUPPORT_CUDA_H
#define SUPPORT_CUDA_H
#include "codegen/cuda.h"

typedef struct cuda_case {
  const char *family, *text; /* a graph */
  const char *choice;        /* schedule of its products, or of its sums over outer axes; null: the default */
  bool lowered;              /* as models are, in NHWC; else as written, NCHW */
  double rtol;               /* 0: by dtype */
} cuda_case;
/* The set: kernel classes, dtypes, ragged sizes. False behind the last. */
bool cuda_case_at(tn_ctx *ctx, int i, cuda_case *c);
/* The case's choice where it is for such a kernel, else null. */
const char *cuda_choice_for(tn_ctx *ctx, const char *choice, const ir_kernel *k);
/* The kernels of a graph text, unscheduled. */
ir_program *cuda_program(tn_ctx *ctx, const char *text);
/* As models are lowered for GPUs; constants in the text: "data BYTES hash HASH", of f16 or bf16. */
ir_program *cuda_program_nhwc(tn_ctx *ctx, const char *text);

typedef struct cuda_check {
  uint64_t seed;
  double rtol;       /* relative to the largest magnitude; 0: by dtype */
  bool compile;      /* with NVRTC, for sm_80 and sm_90a, and the static gates */
} cuda_check;
/* The emulated run of the tile program against the interpreter on the kernel; then the compiler. Null, or what is wrong. */
const char *cuda_check_tile(tn_ctx *ctx, const ir_kernel *k, const cu_tile *tile, const cu_target *t, const cuda_check *how);
/* Of a float dtype, relative to the largest magnitude. */
double cuda_tolerance(tn_dtype t);
bool cuda_have_nvrtc(void);
/* Data for a slot, in the context: floats from [-range, range), integers from 0 .. most - 1; *seed goes on. */
void *cuda_random(tn_ctx *ctx, const ir_slot *s, uint64_t *seed, double range, int most);
/* The tile program without its sync statement number `which` (`weaker`: a wait that leaves one group more); null behind
 * the last. *what: the statement. */
const cu_tile *cuda_mutant(tn_ctx *ctx, const cu_tile *tile, int which, bool weaker, const char **what);
#endif
