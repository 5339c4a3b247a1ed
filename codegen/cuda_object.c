/* cuda_object.c — see cuda_object.h. */
#include "codegen/cuda_object.h"
#include "codegen/llvm.h"
#include <string.h>

/* codegen/launcher/cuda.c as bytes: tn_launcher.c, which the build makes. */
extern const unsigned char tn_launcher_bytes[], tn_launcher_end[];

const cg_object *cu_launcher(tn_ctx *ctx, const cg_target *t) {
#if defined(__x86_64__)
  bool fits = t->arch == CG_X86_64;
#else
  bool fits = t->arch == CG_AARCH64;
#endif
  if (!fits) ir_fail(ctx, TN_EUNSUPPORTED, "objects for GPUs are made for the kind of host that Tenon was built for, not for %s", t->triple);
  cg_object *o = IR_NEW(ctx, cg_object);
  *o = (cg_object){.bytes = tn_launcher_bytes, .size = (size_t)(tn_launcher_end - tn_launcher_bytes)};
  return o;
}

typedef struct gen {
  tn_ctx *ctx;
  const char *prefix, *weights;
  const cg_cuda_part *part;
  LLVMContextRef lc;
  LLVMModuleRef module;
  LLVMBuilderRef b;
  LLVMTypeRef ptr;
} gen;

/* PREFIX_what(own n pointers) is callee(first..., own n pointers). */
static void forward(gen *g, const char *what, const char *callee, LLVMTypeRef result, int nfirst, const LLVMValueRef *first, int n) {
  LLVMTypeRef types[16];
  LLVMValueRef args[16];
  for (int i = 0; i < nfirst + n; i++) types[i] = g->ptr;
  LLVMTypeRef outer = LLVMFunctionType(result, types, (unsigned)n, 0), inner = LLVMFunctionType(result, types, (unsigned)(nfirst + n), 0);
  LLVMValueRef fn = LLVMAddFunction(g->module, ir_format(g->ctx, "%s_%s", g->prefix, what), outer), to = LLVMAddFunction(g->module, callee, inner);
  LLVMSetVisibility(to, LLVMHiddenVisibility);
  LLVMPositionBuilderAtEnd(g->b, LLVMAppendBasicBlockInContext(g->lc, fn, ""));
  for (int i = 0; i < nfirst; i++) args[i] = first[i];
  for (int i = 0; i < n; i++) args[nfirst + i] = LLVMGetParam(fn, (unsigned)i);
  LLVMValueRef v = LLVMBuildCall2(g->b, inner, to, args, (unsigned)(nfirst + n), "");
  if (LLVMGetTypeKind(result) == LLVMVoidTypeKind) LLVMBuildRetVoid(g->b);
  else LLVMBuildRet(g->b, v);
}

static void fill(void *user, LLVMContextRef lc, LLVMModuleRef module, LLVMBuilderRef b) {
  gen *g = user;
  g->lc = lc, g->module = module, g->b = b;
  g->ptr = LLVMPointerTypeInContext(lc, 0);
  LLVMTypeRef i8 = LLVMInt8TypeInContext(lc), i32 = LLVMInt32TypeInContext(lc);
  LLVMValueRef bytes = LLVMConstStringInContext(lc, g->part->image, (unsigned)g->part->image_bytes, 1);
  LLVMValueRef first[2] = {LLVMAddGlobal(module, LLVMTypeOf(bytes), ir_format(g->ctx, "%s_image", g->prefix)), LLVMConstPointerNull(g->ptr)};
  LLVMSetInitializer(first[0], bytes);
  LLVMSetGlobalConstant(first[0], 1);
  LLVMSetLinkage(first[0], LLVMInternalLinkage);
  LLVMSetAlignment(first[0], 64);
  if (g->weights) {
    first[1] = LLVMAddGlobal(module, i8, g->weights);
    LLVMSetGlobalConstant(first[1], 1);
    LLVMSetVisibility(first[1], LLVMHiddenVisibility);
  }
  forward(g, "run", "tn_cuda_run", i32, 2, first, 8);
  forward(g, "close", "tn_cuda_close", LLVMVoidTypeInContext(lc), 1, first, 1);
  forward(g, "error", "tn_cuda_error", i32, 0, NULL, 1);
}

const cg_object *cu_compile_entry(tn_ctx *ctx, const cg_target *t, const char *prefix, const char *weights, const cg_cuda_part *part) {
  if (part->image_bytes > 1u << 30) ir_fail(ctx, TN_ERESOURCE, "%zu bytes of GPU code are too many for an object", part->image_bytes);
  gen g = {.ctx = ctx, .prefix = prefix, .weights = weights, .part = part};
  cg_target base = *t;
  if (t->arch == CG_X86_64) base.cpu = "x86-64", base.features = "", base.vector_bits = 128;
  else base.cpu = "generic", base.features = "";
  return cg_compile_module(ctx, &base, "tenon.cuda", fill, &g);
}
