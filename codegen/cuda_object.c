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

cu_image_base cu_image_base_of(tn_ctx *ctx, const ir_slot *s) {
  switch (s->kind) {
  case IR_SLOT_INPUT: return CU_IMAGE_IN;
  case IR_SLOT_OUTPUT: return CU_IMAGE_OUT;
  case IR_SLOT_WEIGHTS: return CU_IMAGE_WEIGHTS;
  case IR_SLOT_ARENA: return CU_IMAGE_ARENA;
  case IR_SLOT_STATE: return CU_IMAGE_STATE;
  default: ir_bug(ctx, "slot '%s' has no place on a device", s->name);
  }
}

typedef struct gen {
  tn_ctx *ctx;
  const char *prefix;
  const cg_entry_options *e;
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

/* The address of something of another part of the object; null for none. */
static LLVMValueRef address_of(gen *g, const char *symbol) {
  if (!symbol) return LLVMConstPointerNull(g->ptr);
  LLVMValueRef v = LLVMAddGlobal(g->module, LLVMInt8TypeInContext(g->lc), symbol);
  LLVMSetGlobalConstant(v, 1);
  LLVMSetVisibility(v, LLVMHiddenVisibility);
  return v;
}

static void fill(void *user, LLVMContextRef lc, LLVMModuleRef module, LLVMBuilderRef b) {
  gen *g = user;
  g->lc = lc, g->module = module, g->b = b;
  g->ptr = LLVMPointerTypeInContext(lc, 0);
  LLVMTypeRef i32 = LLVMInt32TypeInContext(lc);
  LLVMValueRef bytes = LLVMConstStringInContext(lc, g->part->image, (unsigned)g->part->image_bytes, 1);
  LLVMValueRef first[] = {LLVMAddGlobal(module, LLVMTypeOf(bytes), ir_format(g->ctx, "%s_image", g->prefix)), address_of(g, g->e->weights), address_of(g, g->e->walk), address_of(g, g->e->number)};
  LLVMSetInitializer(first[0], bytes);
  LLVMSetGlobalConstant(first[0], 1);
  LLVMSetLinkage(first[0], LLVMInternalLinkage);
  LLVMSetAlignment(first[0], 64);
  forward(g, "run", "tn_cuda_run", i32, IR_COUNT(first), first, 8);
  forward(g, "close", "tn_cuda_close", LLVMVoidTypeInContext(lc), 1, first, 1);
  forward(g, "error", "tn_cuda_error", i32, 0, NULL, 1);
}

const cg_object *cu_compile_entry(tn_ctx *ctx, const cg_target *t, const char *prefix, const cg_entry_options *e, const cg_cuda_part *part) {
  if (part->image_bytes > 1u << 30) ir_fail(ctx, TN_ERESOURCE, "%zu bytes of GPU code are too many for an object", part->image_bytes);
  gen g = {.ctx = ctx, .prefix = prefix, .e = e, .part = part};
  cg_target base = *t;
  if (t->arch == CG_X86_64) base.cpu = "x86-64", base.features = "", base.vector_bits = 128;
  else base.cpu = "generic", base.features = "";
  return cg_compile_module(ctx, &base, "tenon.cuda", fill, &g);
}
