/* jit.c — links object bytes into the process with LLVM's ORC. */
#include "codegen/jit.h"
#include "codegen/llvm.h"
#include <llvm-c/Core.h>
#include <llvm-c/Error.h>
#include <llvm-c/LLJIT.h>
#include <llvm-c/Orc.h>
#include <stdlib.h>
#include <string.h>

struct cg_jit {
  LLVMOrcLLJITRef lljit;
};

static void release(void *arg) {
  cg_jit *jit = arg;
  if (!jit->lljit) return;
  LLVMErrorRef err = LLVMOrcDisposeLLJIT(jit->lljit);
  jit->lljit = NULL;
  if (err) LLVMConsumeError(err);
}

static void check(tn_ctx *ctx, LLVMErrorRef err, const char *what) {
  if (!err) return;
  char *message = LLVMGetErrorMessage(err);
  char *copy = ir_strdup(ctx, message);
  LLVMDisposeErrorMessage(message);
  ir_fail(ctx, TN_EINTERNAL, "%s: %s", what, copy);
}

cg_jit *cg_jit_new(tn_ctx *ctx) {
  cg_llvm_init();
  cg_jit *jit = IR_NEW(ctx, cg_jit);
  ir_defer(ctx, release, jit); /* first: registering may itself throw */
  check(ctx, LLVMOrcCreateLLJIT(&jit->lljit, NULL), "the JIT cannot start");
  /* libc and libm come from the process. */
  LLVMOrcDefinitionGeneratorRef generator = NULL;
  check(ctx,
        LLVMOrcCreateDynamicLibrarySearchGeneratorForProcess(&generator, LLVMOrcLLJITGetGlobalPrefix(jit->lljit),
                                                             NULL, NULL),
        "the JIT cannot see the process");
  LLVMOrcJITDylibAddGenerator(LLVMOrcLLJITGetMainJITDylib(jit->lljit), generator);
  return jit;
}

void cg_jit_free(tn_ctx *ctx, cg_jit *jit) {
  if (!jit) return;
  ir_undefer(ctx, release, jit);
  release(jit);
}

void cg_jit_add(tn_ctx *ctx, cg_jit *jit, const void *bytes, size_t size) {
  /* The buffer passes to the JIT, also when adding fails. */
  LLVMMemoryBufferRef buffer = LLVMCreateMemoryBufferWithMemoryRangeCopy(bytes, size, "kernels.o");
  check(ctx, LLVMOrcLLJITAddObjectFile(jit->lljit, LLVMOrcLLJITGetMainJITDylib(jit->lljit), buffer),
        "an object cannot be linked");
}

void *cg_jit_symbol(tn_ctx *ctx, cg_jit *jit, const char *name) {
  LLVMOrcExecutorAddress address = 0;
  check(ctx, LLVMOrcLLJITLookup(jit->lljit, &address, name), name);
  return (void *)(uintptr_t)address;
}
