/* support_llvm.h — a kernel's machine code against the interpreter. */
#ifndef SUPPORT_LLVM_H
#define SUPPORT_LLVM_H
#include "codegen/codegen.h"

typedef struct llvm_check {
  uint64_t seed;        /* of the data; 0 is fine */
  const int64_t *dims;  /* values of the kernel's dims */
  double rtol;          /* floats: 0 compares bits (all NaN alike), else relative to the largest magnitude */
  double range;         /* floats are drawn from [-range, range); 0: 4 */
  int64_t ilo, ihi;     /* integers are drawn from [ilo, ihi]; both 0: -100 .. 100 (unsigned: 0 .. 100) */
  const void *const *data; /* null, or per parameter: null, or its initial contents */
  bool backwards;       /* tasks from the last to the first */
} llvm_check;

/* Compiles for the target, runs all tasks, runs the interpreter on the same data, compares
 * every parameter and the bytes around it. Null, or what differs (in the context). */
const char *llvm_check_kernel(tn_ctx *ctx, const cg_target *t, const ir_kernel *k, const llvm_check *how);
const char *llvm_check_text(tn_ctx *ctx, const char *cpu, const char *text, const llvm_check *how);
#endif
