/* llvm.c — modules, target machines, bytes and dumps. */
#include "codegen/llvm.h"
#include <elf.h>
#include <llvm-c/Analysis.h>
#include <llvm-c/Error.h>
#include <llvm-c/Target.h>
#include <llvm-c/TargetMachine.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

/* ---- LLVM, once per process ---- */

static void init_once(void) {
  LLVMInitializeX86TargetInfo();
  LLVMInitializeX86Target();
  LLVMInitializeX86TargetMC();
  LLVMInitializeX86AsmPrinter();
  LLVMInitializeX86AsmParser(); /* inline assembly of the check of extensions */
  LLVMInitializeAArch64TargetInfo();
  LLVMInitializeAArch64Target();
  LLVMInitializeAArch64TargetMC();
  LLVMInitializeAArch64AsmPrinter();
  LLVMInitializeAArch64AsmParser();
}

void cg_llvm_init(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, init_once);
}

const char *cg_llvm_version(tn_ctx *ctx) {
  unsigned major, minor, patch;
  LLVMGetVersion(&major, &minor, &patch);
  return ir_format(ctx, "%u.%u.%u", major, minor, patch);
}

/* ---- a module and what it needs, released also when something throws ---- */

typedef struct session {
  LLVMContextRef lc;
  LLVMModuleRef module;
  LLVMBuilderRef builder;
  LLVMTargetMachineRef machine;
  LLVMMemoryBufferRef out;
  char *message;
  char problem[256]; /* the first error that the code generator reported */
} session;

static void session_close(void *arg) {
  session *s = arg;
  if (s->out) LLVMDisposeMemoryBuffer(s->out);
  if (s->message) LLVMDisposeMessage(s->message);
  if (s->builder) LLVMDisposeBuilder(s->builder);
  if (s->module) LLVMDisposeModule(s->module);
  if (s->machine) LLVMDisposeTargetMachine(s->machine);
  if (s->lc) LLVMContextDispose(s->lc);
  memset(s, 0, sizeof *s);
}

/* LLVM would print errors and leave the process. It may be deep in its own code here, so
 * nothing is thrown: session_emit() looks at what was noted. */
static void note_problem(LLVMDiagnosticInfoRef info, void *arg) {
  session *s = arg;
  if (LLVMGetDiagInfoSeverity(info) != LLVMDSError || s->problem[0]) return;
  char *text = LLVMGetDiagInfoDescription(info);
  strncpy(s->problem, *text ? text : "an error without a text", sizeof s->problem - 1);
  LLVMDisposeMessage(text);
}

static session *session_open_at(tn_ctx *ctx, const cg_target *t, const char *name, LLVMCodeGenOptLevel level) {
  cg_llvm_init();
  session *s = IR_NEW(ctx, session);
  ir_defer(ctx, session_close, s);
  LLVMTargetRef target;
  if (LLVMGetTargetFromTriple(t->triple, &target, &s->message))
    ir_fail(ctx, TN_EUNSUPPORTED, "triple '%s': %s", t->triple, ir_strdup(ctx, s->message));
  s->machine = LLVMCreateTargetMachine(target, t->triple, t->cpu, t->features, level, LLVMRelocPIC,
                                       LLVMCodeModelSmall);
  if (!s->machine) ir_fail(ctx, TN_EUNSUPPORTED, "LLVM makes no code for %s on '%s'", t->cpu, t->triple);
  s->lc = LLVMContextCreate();
  LLVMContextSetDiagnosticHandler(s->lc, note_problem, s);
  s->module = LLVMModuleCreateWithNameInContext(name, s->lc);
  s->builder = LLVMCreateBuilderInContext(s->lc);
  LLVMSetTarget(s->module, t->triple);
  LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(s->machine);
  LLVMSetModuleDataLayout(s->module, layout);
  LLVMDisposeTargetData(layout);
  return s;
}

static session *session_open(tn_ctx *ctx, const cg_target *t, const char *name) {
  return session_open_at(ctx, t, name, LLVMCodeGenLevelDefault);
}

static void session_end(tn_ctx *ctx, session *s) {
  ir_undefer(ctx, session_close, s);
  session_close(s);
}

/* The module as an object or as assembly, copied into the context. */
static const char *session_emit(tn_ctx *ctx, session *s, bool object, size_t *size) {
  if (LLVMVerifyModule(s->module, LLVMReturnStatusAction, &s->message)) {
    const char *text = ir_strdup(ctx, s->message);
    char *ir = LLVMPrintModuleToString(s->module);
    const char *copy = ir_strdup(ctx, ir);
    LLVMDisposeMessage(ir);
    ir_log(ctx, "%s", copy);
    ir_bug(ctx, "LLVM refuses the module: %s", text);
  }
  if (s->message) LLVMDisposeMessage(s->message);
  s->message = NULL;
  if (LLVMTargetMachineEmitToMemoryBuffer(s->machine, s->module, object ? LLVMObjectFile : LLVMAssemblyFile, &s->message, &s->out))
    ir_bug(ctx, "LLVM emits no code: %s", ir_strdup(ctx, s->message));
  if (s->problem[0]) ir_fail(ctx, TN_EUNSUPPORTED, "LLVM: %s", s->problem);
  *size = LLVMGetBufferSize(s->out);
  char *bytes = ir_alloc(ctx, *size + 1);
  memcpy(bytes, LLVMGetBufferStart(s->out), *size);
  return bytes;
}

/* ---- attributes and metadata ---- */

static void string_attr(session *s, LLVMValueRef fn, const char *key, const char *value) {
  LLVMAddAttributeAtIndex(fn, (LLVMAttributeIndex)LLVMAttributeFunctionIndex,
                          LLVMCreateStringAttribute(s->lc, key, (unsigned)strlen(key), value, (unsigned)strlen(value)));
}

static void enum_attr(session *s, LLVMValueRef fn, LLVMAttributeIndex at, const char *name, uint64_t value) {
  unsigned kind = LLVMGetEnumAttributeKindForName(name, strlen(name));
  LLVMAddAttributeAtIndex(fn, at, LLVMCreateEnumAttribute(s->lc, kind, value));
}

static void function_attrs(session *s, const cg_target *t, LLVMValueRef fn) {
  if (t->arch == CG_X86_64) {
    const char *bits = t->vector_bits == 512 ? "512" : t->vector_bits == 256 ? "256" : "128";
    string_attr(s, fn, "prefer-vector-width", bits);
    string_attr(s, fn, "min-legal-vector-width", bits);
  }
  string_attr(s, fn, "no-builtins", "");
  enum_attr(s, fn, (LLVMAttributeIndex)LLVMAttributeFunctionIndex, "nounwind", 0);
  LLVMSetVisibility(fn, LLVMHiddenVisibility);
}

static LLVMMetadataRef md_string(cg_fn *f, const char *text) { return LLVMMDStringInContext2(f->lc, text, strlen(text)); }

/* Distinct buffers never overlap: each has a scope, and its accesses are disjoint from
 * those of all other scopes. */
static void alias_metadata(cg_fn *f, const char *symbol) {
  enum { MOST = 64 }; /* lists are as long as there are buffers: past this, none */
  cg_plan *p = f->plan;
  if (p->nbufs > MOST) return;
  LLVMMetadataRef name = md_string(f, symbol), domain = LLVMMDNodeInContext2(f->lc, &name, 1), scope[MOST];
  for (int i = 0; i < p->nbufs; i++) {
    LLVMMetadataRef parts[2] = {md_string(f, ir_format(f->ctx, "%s.%d", symbol, i)), domain};
    scope[i] = LLVMMDNodeInContext2(f->lc, parts, 2);
  }
  for (int i = 0; i < p->nbufs; i++) {
    LLVMMetadataRef others[MOST];
    size_t n = 0;
    for (int j = 0; j < p->nbufs; j++)
      if (j != i) others[n++] = scope[j];
    p->bufs[i]->scope = LLVMMetadataAsValue(f->lc, LLVMMDNodeInContext2(f->lc, &scope[i], 1));
    p->bufs[i]->noalias = LLVMMetadataAsValue(f->lc, LLVMMDNodeInContext2(f->lc, others, n));
  }
}

static unsigned md_kind(cg_fn *f, const char *name) { return LLVMGetMDKindIDInContext(f->lc, name, (unsigned)strlen(name)); }

/* ---- one kernel ---- */

static LLVMValueRef arg_pointer(cg_fn *f, int i) {
  LLVMValueRef at = LLVMConstInt(f->i64, (unsigned)i, 0);
  LLVMValueRef p = LLVMBuildGEP2(f->b, f->ptr, LLVMGetParam(f->fn, 0), &at, 1, "");
  LLVMValueRef v = LLVMBuildLoad2(f->b, f->ptr, p, "");
  LLVMSetAlignment(v, 8);
  LLVMSetMetadata(v, f->kind_invariant, f->md_invariant);
  return v;
}

/* The entry block: memory of the buffers, dims, the task. */
static void emit_entry(cg_fn *f) {
  cg_plan *p = f->plan;
  const ir_kernel *k = p->kernel;
  for (int i = 0; i < k->nbufs; i++) p->bufs[i]->base = arg_pointer(f, i);
  LLVMValueRef scratch = p->shared_bytes || (p->local_bytes && !p->on_stack) ? arg_pointer(f, k->nbufs) : NULL;
  for (int i = k->nbufs; i < p->nbufs; i++) {
    LLVMValueRef at = LLVMConstInt(f->i64, (uint64_t)p->bufs[i]->offset, 0);
    if (p->bufs[i]->where == CG_SHARED) p->bufs[i]->base = LLVMBuildGEP2(f->b, f->i8, scratch, &at, 1, p->bufs[i]->buf->name);
  }
  if (p->local_bytes) {
    LLVMValueRef local;
    if (p->on_stack) {
      local = LLVMBuildAlloca(f->b, LLVMArrayType2(f->i8, (uint64_t)p->local_bytes), "local");
      LLVMSetAlignment(local, 64);
    } else {
      LLVMValueRef worker = LLVMBuildSExt(f->b, LLVMGetParam(f->fn, 2), f->i64, "");
      LLVMValueRef at = LLVMBuildMul(f->b, worker, LLVMConstInt(f->i64, (uint64_t)p->local_bytes, 0), "");
      if (p->shared_bytes) at = LLVMBuildAdd(f->b, at, LLVMConstInt(f->i64, (uint64_t)p->shared_bytes, 0), "");
      local = LLVMBuildGEP2(f->b, f->i8, scratch, &at, 1, "scratch");
    }
    for (int i = k->nbufs; i < p->nbufs; i++) {
      LLVMValueRef at = LLVMConstInt(f->i64, (uint64_t)p->bufs[i]->offset, 0);
      if (p->bufs[i]->where == CG_SCRATCH) p->bufs[i]->base = LLVMBuildGEP2(f->b, f->i8, local, &at, 1, p->bufs[i]->buf->name);
    }
  }
  for (int i = 0; i < k->ndims; i++) {
    LLVMValueRef v = LLVMBuildLoad2(f->b, f->i64, arg_pointer(f, k->nbufs + 1 + i), k->dims[i]->name);
    LLVMSetMetadata(v, f->kind_invariant, f->md_invariant);
    cg_bind(f, k->dims[i], (cg_val){.v = v}, false);
  }
  if (!p->task) return;
  LLVMValueRef task = LLVMBuildSExt(f->b, LLVMGetParam(f->fn, 1), f->i64, "task");
  cg_bind(f, p->task, (cg_val){.v = task}, false);
  int64_t first = 0;
  for (int i = 0; i < p->nphases; first += p->phase[i++]) { /* within range also in other phases: what depends on it may be computed there, too */
    if (!p->phase_task[i]) continue;
    LLVMValueRef own = LLVMBuildSub(f->b, task, LLVMConstInt(f->i64, (uint64_t)first, 0), ""), last = LLVMConstInt(f->i64, (uint64_t)(p->phase[i] - 1), 0);
    LLVMValueRef low[] = {own, LLVMConstInt(f->i64, 0, 0)};
    own = cg_intrinsic(f, "llvm.smax", f->i64, NULL, 2, low);
    LLVMValueRef high[] = {own, last};
    cg_bind(f, p->phase_task[i], (cg_val){.v = cg_intrinsic(f, "llvm.smin", f->i64, NULL, 2, high)}, false);
  }
}

static cg_kernel_info emit_kernel(tn_ctx *ctx, session *s, const cg_target *t, const ir_kernel *k, const char *symbol) {
  cg_fn fn = {.ctx = ctx, .t = t, .lc = s->lc, .module = s->module, .b = s->builder, .lanes = 1}, *f = &fn;
  f->plan = cg_prepare(ctx, t, k);
  f->i1 = LLVMInt1TypeInContext(f->lc);
  f->i8 = LLVMInt8TypeInContext(f->lc);
  f->i16 = LLVMInt16TypeInContext(f->lc);
  f->i32 = LLVMInt32TypeInContext(f->lc);
  f->i64 = LLVMInt64TypeInContext(f->lc);
  f->half = LLVMHalfTypeInContext(f->lc);
  f->f32 = LLVMFloatTypeInContext(f->lc);
  f->f64 = LLVMDoubleTypeInContext(f->lc);
  f->ptr = LLVMPointerTypeInContext(f->lc, 0);
  f->kind_invariant = md_kind(f, "invariant.load");
  f->kind_scope = md_kind(f, "alias.scope");
  f->kind_noalias = md_kind(f, "noalias");
  f->md_invariant = LLVMMetadataAsValue(f->lc, LLVMMDNodeInContext2(f->lc, NULL, 0));
  f->zeros = LLVMGetNamedGlobal(f->module, "tn.zeros");
  alias_metadata(f, symbol);
  f->buckets_n = 4096;
  f->buckets = IR_NEW_ARRAY(ctx, cg_entry *, f->buckets_n);
  f->regions_cap = 16;
  f->regions = IR_NEW_ARRAY(ctx, cg_region, f->regions_cap);

  LLVMTypeRef params[3] = {f->ptr, f->i32, f->i32};
  LLVMTypeRef type = LLVMFunctionType(LLVMVoidTypeInContext(f->lc), params, 3, 0);
  if (LLVMGetNamedFunction(f->module, symbol)) ir_bug(ctx, "two kernels have the symbol %s", symbol);
  f->fn = LLVMAddFunction(f->module, symbol, type);
  LLVMSetAlignment(f->fn, 64); /* wherever it comes to lie it is as fast: at 48 beyond a line inner loops were 3 % slower */
  function_attrs(s, t, f->fn);
  enum_attr(s, f->fn, 1, "noundef", 0);
  LLVMBasicBlockRef entry = LLVMAppendBasicBlockInContext(f->lc, f->fn, "entry");
  LLVMBasicBlockRef start = LLVMAppendBasicBlockInContext(f->lc, f->fn, "start");
  LLVMPositionBuilderAtEnd(f->b, entry);
  f->entry_end = LLVMBuildBr(f->b, start);
  LLVMPositionBuilderBefore(f->b, f->entry_end);
  emit_entry(f);
  f->regions[0] = (cg_region){.block = start};
  cg_at(f, 0);
  cg_emit_stmt(f, f->plan->body);
  cg_at(f, 0);
  LLVMBuildRetVoid(f->b);
  return cg_plan_info(f->plan, ir_strdup(ctx, symbol));
}

/* ---- objects ---- */

/* Size of a function that the object defines; 0: not found, or not ELF64. The object is LLVM's own. */
static size_t code_bytes(const void *object, size_t size, const char *symbol) {
  const Elf64_Ehdr *h = object;
  if (size < sizeof *h || memcmp(h->e_ident, ELFMAG, SELFMAG) != 0 || h->e_ident[EI_CLASS] != ELFCLASS64) return 0;
  const Elf64_Shdr *sections = (const Elf64_Shdr *)((const char *)object + h->e_shoff);
  for (int i = 0; i < h->e_shnum; i++) {
    if (sections[i].sh_type != SHT_SYMTAB) continue;
    const Elf64_Sym *s = (const Elf64_Sym *)((const char *)object + sections[i].sh_offset);
    const char *names = (const char *)object + sections[sections[i].sh_link].sh_offset;
    for (size_t k = 0; k < sections[i].sh_size / sizeof *s; k++)
      if (strcmp(names + s[k].st_name, symbol) == 0) return s[k].st_size;
  }
  return 0;
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static cg_object *finish_object(tn_ctx *ctx, session *s, double start) {
  cg_object *o = IR_NEW(ctx, cg_object);
  o->bytes = session_emit(ctx, s, true, &o->size);
  o->seconds = seconds() - start;
  session_end(ctx, s);
  return o;
}

const cg_object *cg_compile_module(tn_ctx *ctx, const cg_target *t, const char *name,
                                   void (*fill)(void *user, LLVMContextRef lc, LLVMModuleRef module, LLVMBuilderRef b), void *user) {
  double start = seconds();
  session *s = session_open_at(ctx, t, name, LLVMCodeGenLevelNone); /* much straight code, each line run once */
  fill(user, s->lc, s->module, s->builder);
  return finish_object(ctx, s, start);
}

const cg_object *cg_compile_kernels(tn_ctx *ctx, const cg_target *t, int n, const ir_kernel *const *kernels,
                                    const char *const *symbols) {
  double start = seconds();
  session *s = session_open(ctx, t, "tenon");
  cg_kernel_info *infos = IR_NEW_ARRAY(ctx, cg_kernel_info, n);
  for (int i = 0; i < n; i++) infos[i] = emit_kernel(ctx, s, t, kernels[i], symbols[i]);
  cg_object *o = finish_object(ctx, s, start);
  for (int i = 0; i < n; i++) infos[i].code_bytes = code_bytes(o->bytes, o->size, symbols[i]);
  o->nkernels = n;
  o->kernels = infos;
  return o;
}

const cg_object *cg_compile_kernel(tn_ctx *ctx, const cg_target *t, const ir_kernel *k, const char *symbol) {
  return cg_compile_kernels(ctx, t, 1, &k, &symbol);
}

const char *cg_kernel_ir(tn_ctx *ctx, const cg_target *t, const ir_kernel *k, const char *symbol) {
  session *s = session_open(ctx, t, "tenon");
  emit_kernel(ctx, s, t, k, symbol);
  char *text = LLVMPrintModuleToString(s->module);
  const char *copy = ir_strdup(ctx, text);
  LLVMDisposeMessage(text);
  session_end(ctx, s);
  return copy;
}

const char *cg_kernel_asm(tn_ctx *ctx, const cg_target *t, const ir_kernel *k, const char *symbol) {
  session *s = session_open(ctx, t, "tenon");
  size_t size;
  LLVMSetTargetMachineAsmVerbosity(s->machine, 1);
  emit_kernel(ctx, s, t, k, symbol);
  const char *text = session_emit(ctx, s, false, &size);
  session_end(ctx, s);
  return text;
}

int cg_count_spills(const char *assembly) {
  int n = 0;
  for (const char *s = assembly; (s = strstr(s, "-byte ")); s += 6) {
    bool vector = s - assembly >= 2 && strchr("246", s[-1]) && s[-2] >= '1' && s[-2] <= '6'; /* 16-, 32-, 64- */
    n += vector && (strncmp(s + 6, "Spill", 5) == 0 || strncmp(s + 6, "Folded Spill", 12) == 0 ||
                    strncmp(s + 6, "Reload", 6) == 0 || strncmp(s + 6, "Folded Reload", 13) == 0);
  }
  return n;
}

/* ---- does this CPU have what the code needs? ---- */

static LLVMValueRef asm_call(session *s, const char *text, const char *constraints, LLVMTypeRef type, int n, LLVMValueRef *args) {
  LLVMValueRef v = LLVMGetInlineAsm(type, (char *)text, strlen(text), (char *)constraints, strlen(constraints), 1, 0,
                                    LLVMInlineAsmDialectATT, 0);
  return LLVMBuildCall2(s->builder, type, v, args, (unsigned)n, "");
}

void cg_emit_isa_check(tn_ctx *ctx, const cg_target *t, const cg_target *base, const char *symbol, LLVMContextRef lc, LLVMModuleRef module,
                       LLVMBuilderRef b) {
  session own = {.lc = lc, .module = module, .builder = b}, *s = &own;
  LLVMTypeRef i32 = LLVMInt32TypeInContext(s->lc);
  LLVMValueRef fn = LLVMAddFunction(s->module, symbol, LLVMFunctionType(i32, NULL, 0, 0));
  function_attrs(s, base, fn);
  LLVMPositionBuilderAtEnd(b, LLVMAppendBasicBlockInContext(s->lc, fn, "entry"));
  LLVMTypeRef four[4] = {i32, i32, i32, i32}, two[2] = {i32, i32};
  LLVMTypeRef cpuid = LLVMFunctionType(LLVMStructTypeInContext(s->lc, four, 4, 0), two, 2, 0);
  LLVMTypeRef xgetbv = LLVMFunctionType(LLVMStructTypeInContext(s->lc, two, 2, 0), two, 1, 0);
#define I32(v) LLVMConstInt(i32, (unsigned)(v), 0)
#define CPUID(leaf, sub)                                                                                          \
  asm_call(s, "xchg %rbx, %rsi; cpuid; xchg %rbx, %rsi", "={ax},={si},={cx},={dx},{ax},{cx},~{dirflag},~{fpsr},~{flags}", \
           cpuid, 2, (LLVMValueRef[]){I32(leaf), I32(sub)})
#define GET(v, i) LLVMBuildExtractValue(b, v, (unsigned)(i), "")
  LLVMValueRef result = I32(0), words[16] = {NULL}, largest[2] = {NULL}, xcr0 = NULL;
  const cg_isa_bit first = {"", 1, 0, 0, 0, 0}, *leaves[16];
  int nleaves = 0;
  if (t->nisa) { /* cpuid is slow in a virtual machine: each leaf is asked once */
    LLVMBasicBlockRef from = LLVMGetInsertBlock(b), on = LLVMAppendBasicBlockInContext(s->lc, fn, "xgetbv");
    LLVMBasicBlockRef done = LLVMAppendBasicBlockInContext(s->lc, fn, "");
    largest[0] = GET(CPUID(0, 0), 0);
    largest[1] = GET(CPUID(0x80000000u, 0), 0);
    leaves[nleaves] = &first;
    words[nleaves++] = CPUID(1, 0);
    LLVMValueRef osxsave = LLVMBuildAnd(b, GET(words[0], 2), I32(1u << 27), ""), zero = I32(0);
    LLVMBuildCondBr(b, LLVMBuildICmp(b, LLVMIntNE, osxsave, zero, ""), on, done);
    LLVMPositionBuilderAtEnd(b, on);
    LLVMValueRef low = GET(asm_call(s, "xgetbv", "={ax},={dx},{cx},~{dirflag},~{fpsr},~{flags}", xgetbv, 1, &zero), 0);
    LLVMBuildBr(b, done);
    LLVMPositionBuilderAtEnd(b, done);
    xcr0 = LLVMBuildPhi(b, i32, "");
    LLVMAddIncoming(xcr0, (LLVMValueRef[]){zero, low}, (LLVMBasicBlockRef[]){from, on}, 2);
  }
  for (int i = t->nisa - 1; i >= 0; i--) { /* the first missing one is looked at last, and wins */
    const cg_isa_bit *bit = t->isa[i];
    int at = 0;
    while (at < nleaves && (leaves[at]->leaf != bit->leaf || leaves[at]->subleaf != bit->subleaf)) at++;
    if (at == nleaves) {
      ir_assert(ctx, nleaves < IR_COUNT(leaves));
      leaves[nleaves] = bit;
      words[nleaves++] = CPUID(bit->leaf, bit->subleaf);
    }
    /* leaves above the largest one answer with data of that one */
    LLVMValueRef ok = LLVMBuildICmp(b, LLVMIntUGE, largest[bit->leaf >> 31], I32(bit->leaf), "");
    LLVMValueRef has = LLVMBuildAnd(b, GET(words[at], bit->reg), I32(1u << bit->bit), "");
    ok = LLVMBuildAnd(b, ok, LLVMBuildICmp(b, LLVMIntNE, has, I32(0), ""), "");
    LLVMValueRef on = LLVMBuildICmp(b, LLVMIntEQ, LLVMBuildAnd(b, xcr0, I32(bit->xcr0), ""), I32(bit->xcr0), "");
    result = LLVMBuildSelect(b, LLVMBuildAnd(b, ok, on, ""), result, I32(i + 1), "");
  }
  LLVMBuildRet(b, result);
}
