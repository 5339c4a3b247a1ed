/* codegen.h — kernels to object bytes, through LLVM.
 *
 *   kernel ── prepare (unroll, vector loops, registers) ── emit LLVM IR ── object bytes
 *
 * One path: the bytes are linked into the process (jit.h), merged into an object
 * file or kept in a store. No LLVM IR pass runs: the emitter hoists, unrolls and
 * makes SSA form itself. Every call has an LLVM context of its own, so calls on
 * different tn_ctx may run at the same time.
 *
 * ABI of a kernel:
 *
 *   void SYMBOL(void *const *args, int32_t task, int32_t worker);
 *
 *   args[0 .. nbufs)        memory of the parameters, aligned to their element, never overlapping
 *   args[nbufs]             scratch, 64-byte aligned: shared_bytes that all tasks see, then
 *                           scratch_bytes of each worker; may be null when both are 0
 *   args[nbufs+1 .. +ndims) pointers to int64_t: the values of the dims
 *
 * task is in [0, ntasks). A kernel whose body is one `parallel` loop (inside lets and
 * allocs only) runs the iteration lo + task; one whose body is a sequence (inside allocs
 * only) with `parallel` loops of constant extents in it runs them in phases: the tasks of
 * the first are 0, 1, ..., then come those of the next, and what is between loops is a phase
 * of one task. Any other kernel has one task. Tasks of a phase are independent; they need
 * all that the phases before them do. The code calls nothing but memcpy, memset, memmove and libm,
 * has no writable data and needs no relocation at load time beyond its own sections.
 */
#ifndef CG_CODEGEN_H
#define CG_CODEGEN_H
#include "codegen/target.h"
#include "ir/ir.h"

enum { CG_MAX_PHASES = 4 };

typedef struct cg_kernel_info {
  const char *symbol;
  ix ntasks;             /* index expression of the kernel's dims; mostly constant */
  int64_t scratch_bytes; /* of one worker, a multiple of 64 */
  int64_t shared_bytes;  /* of all together, before theirs: what one phase leaves for another */
  int nphases;           /* 0: one, of ntasks */
  int32_t phase[CG_MAX_PHASES]; /* tasks of each */
  size_t code_bytes;     /* 0 when it is not compiled, or not as ELF64 */
} cg_kernel_info;

/* Bytes that args[nbufs] must have for so many workers. */
static inline int64_t cg_kernel_scratch(const cg_kernel_info *k, int workers) { return k->shared_bytes + workers * k->scratch_bytes; }

typedef struct cg_object {
  const void *bytes;     /* relocatable object (ELF64 on Linux), in the context's arena */
  size_t size;
  double seconds;        /* wall time of the compilation */
  int nkernels;
  const cg_kernel_info *kernels; /* in the order given */
} cg_object;

/* Bump when emitted code may change: part of the keys of stores. */
#define CG_VERSION 9
/* The version of LLVM that runs, as "22.1.0"; in the context. */
const char *cg_llvm_version(tn_ctx *ctx);

/* One kernel, or n kernels as one module: symbols[i] is the (global, hidden) symbol of
 * kernels[i]. The kernels must pass ir_kernel_verify. Throws TN_EUNSUPPORTED for what
 * the target cannot do, TN_EINTERNAL when LLVM refuses the module. */
const cg_object *cg_compile_kernel(tn_ctx *ctx, const cg_target *t, const ir_kernel *k, const char *symbol);
const cg_object *cg_compile_kernels(tn_ctx *ctx, const cg_target *t, int n, const ir_kernel *const *kernels,
                                    const char *const *symbols);
/* What a kernel's code will ask for, without compiling it. */
cg_kernel_info cg_kernel_abi(tn_ctx *ctx, const cg_target *t, const ir_kernel *k);

/* LLVM IR and assembly as text, for dumps. */
const char *cg_kernel_ir(tn_ctx *ctx, const cg_target *t, const ir_kernel *k, const char *symbol);
const char *cg_kernel_asm(tn_ctx *ctx, const cg_target *t, const ir_kernel *k, const char *symbol);
/* Reloads from and spills to the stack of vector registers in a text of cg_kernel_asm. */
int cg_count_spills(const char *assembly);
#endif
