/* entry.c — P_run and P_pack as an LLVM module. See entry.h.
 *
 * The module is compiled for the baseline of the architecture, whatever the kernels need: it runs
 * before (and does) the check that the CPU can run them.
 */
#include "codegen/cuda_object.h"
#include "codegen/entry.h"
#include "codegen/llvm.h"
#include <llvm-c/Core.h>
#include <string.h>

typedef struct binding { /* a let in scope */
  const ir_var *var;
  LLVMValueRef value, cell; /* as cg_op takes it; index lets: memory that holds it, for kernels */
} binding;

typedef struct gen {
  tn_ctx *ctx;
  const cg_target *t, *base; /* of the kernels; of the entry */
  const ir_program *p;
  const cg_kernel_info *infos;
  const cg_entry_options *o;
  LLVMContextRef lc;
  LLVMModuleRef module;
  LLVMBuilderRef b;
  LLVMTypeRef ptr, i8, i32, i64, kernel_type;
  cg_fn ops;              /* what cg_op needs, nothing else */
  LLVMValueRef dispatch, later; /* shared by both functions; made when first needed */
  /* The function under construction. */
  LLVMValueRef fn;
  LLVMBasicBlockRef top;  /* allocas go here */
  LLVMValueRef in, out, raw, weights, state, arena, scratch, threads, args;
  int nlets;
  binding *lets;
  LLVMValueRef session;   /* a launcher's: slots lie on its device; null: in this process's memory */
  int ncalls;             /* of the program's, so far */
  int nread;
  struct read { ix load; LLVMValueRef value; } *read; /* what the value under construction has from there */
} gen;

static LLVMValueRef i64_const(gen *g, int64_t v) { return LLVMConstInt(g->i64, (unsigned long long)v, 1); }
static LLVMValueRef i32_const(gen *g, int32_t v) { return LLVMConstInt(g->i32, (unsigned long long)(long long)v, 1); }
static LLVMValueRef null_ptr(gen *g) { return LLVMConstPointerNull(g->ptr); }

static LLVMBasicBlockRef block(gen *g, const char *name) { return LLVMAppendBasicBlockInContext(g->lc, g->fn, name); }
static void at(gen *g, LLVMBasicBlockRef b) { LLVMPositionBuilderAtEnd(g->b, b); }

static LLVMValueRef offset(gen *g, LLVMValueRef base, int64_t bytes) {
  if (bytes == 0) return base;
  LLVMValueRef i = i64_const(g, bytes);
  return LLVMBuildGEP2(g->b, g->i8, base, &i, 1, "");
}

static LLVMValueRef load(gen *g, LLVMTypeRef t, LLVMValueRef base, int64_t bytes, unsigned align) {
  LLVMValueRef v = LLVMBuildLoad2(g->b, t, offset(g, base, bytes), "");
  LLVMSetAlignment(v, align);
  return v;
}

static void store(gen *g, LLVMValueRef v, LLVMValueRef base, int64_t bytes, unsigned align) {
  LLVMSetAlignment(LLVMBuildStore(g->b, v, offset(g, base, bytes)), align);
}

static void attribute(gen *g, LLVMValueRef fn, const char *name) {
  unsigned kind = LLVMGetEnumAttributeKindForName(name, strlen(name));
  LLVMAddAttributeAtIndex(fn, (LLVMAttributeIndex)LLVMAttributeFunctionIndex, LLVMCreateEnumAttribute(g->lc, kind, 0));
}

/* A function of another input of the merger, or the existing declaration. */
static LLVMValueRef declared(gen *g, const char *name, LLVMTypeRef type) {
  LLVMValueRef f = LLVMGetNamedFunction(g->module, name);
  if (f) return f;
  f = LLVMAddFunction(g->module, name, type);
  LLVMSetVisibility(f, LLVMHiddenVisibility);
  attribute(g, f, "nounwind");
  return f;
}

/* Ends the block: returns `code` if cond, else goes on in a new one. */
static void fail_if(gen *g, LLVMValueRef cond, int code) {
  LLVMBasicBlockRef bad = block(g, "fail"), good = block(g, "");
  LLVMBuildCondBr(g->b, cond, bad, good);
  at(g, bad);
  LLVMBuildRet(g->b, i32_const(g, code));
  at(g, good);
}

static LLVMValueRef is_null(gen *g, LLVMValueRef p) { return LLVMBuildICmp(g->b, LLVMIntEQ, p, null_ptr(g), ""); }
static LLVMValueRef either(gen *g, LLVMValueRef a, LLVMValueRef b) { return a ? LLVMBuildOr(g->b, a, b, "") : b; }
static void fail_if_any(gen *g, LLVMValueRef cond, int code) {
  if (cond) fail_if(g, cond, code);
}
/* Bits of p that an alignment to `bytes` forbids, as i64. */
static LLVMValueRef misaligned(gen *g, LLVMValueRef p, int64_t bytes) {
  return LLVMBuildAnd(g->b, LLVMBuildPtrToInt(g->b, p, g->i64, ""), i64_const(g, bytes - 1), "");
}

/* ------------------------------------------------------- program values ---- */

static const binding *find_let(gen *g, const ir_var *var) {
  for (int i = g->nlets - 1; i >= 0; i--)
    if (g->lets[i].var == var) return &g->lets[i];
  return NULL;
}

static const binding *find_named(gen *g, const char *name) {
  for (int i = g->nlets - 1; i >= 0; i--)
    if (strcmp(g->lets[i].var->name, name) == 0) return &g->lets[i];
  return NULL;
}

static LLVMValueRef slot_address(gen *g, const ir_slot *s);
static LLVMValueRef read_slot(gen *g, const ir_slot *s, ix load_of, LLVMValueRef at_byte);
static LLVMValueRef cell(gen *g, LLVMTypeRef t);
static LLVMValueRef value_of(gen *g, ix e);

/* An element of the first slot that has the buffer's name. */
static LLVMValueRef load_slot(gen *g, ix e) {
  const ir_slot *s = NULL;
  for (int i = 0; i < g->p->nslots && !s; i++)
    if (strcmp(g->p->slots[i].name, e->u.buf->name) == 0) s = &g->p->slots[i];
  if (!s) ir_bug(g->ctx, "a program value reads '%s', which is no slot", e->u.buf->name);
  unsigned size = (unsigned)ir_dtype_bytes(s->dtype);
  LLVMValueRef at_element = value_of(g, ix_muli(g->ctx, ir_buf_offset(g->ctx, e->u.buf, e->args), size));
  if (g->session) return read_slot(g, s, e, at_element);
  LLVMValueRef p = LLVMBuildGEP2(g->b, g->i8, slot_address(g, s), &at_element, 1, "");
  return cg_from_storage(&g->ops, s->dtype, load(g, cg_storage_type(&g->ops, s->dtype, 1), p, 0, size), 1);
}

static LLVMValueRef value_of(gen *g, ix e) {
  if (e->op == IX_CONST) return cg_const(&g->ops, e);
  if (e->op == IX_LOAD) return load_slot(g, e);
  if (e->op == IX_VAR) { /* a let, or a kernel's dimension, known by the name of a let */
    const binding *l = find_let(g, e->u.var);
    if (!l) l = find_named(g, e->u.var->name);
    if (!l) ir_fail(g->ctx, TN_EUNSUPPORTED, "dimension '%s' has no value in the program", e->u.var->name);
    return l->value;
  }
  LLVMValueRef v[3];
  ir_assert(g->ctx, e->nargs >= 1 && e->nargs <= IR_COUNT(v));
  for (int i = 0; i < e->nargs; i++) v[i] = value_of(g, e->args[i]);
  return cg_op(&g->ops, e, v, 1);
}

/* The value of a let or a condition. */
static LLVMValueRef program_value(gen *g, ix e) {
  g->nread = 0;
  return value_of(g, ix_expand(g->ctx, e));
}

/* --------------------------------------------------------------- calls ---- */

/* dispatch(kernel, ntasks, args, threads): one after the other, or through parallel_for. */
static LLVMValueRef make_dispatch(gen *g) {
  if (g->dispatch) return g->dispatch;
  LLVMBasicBlockRef back = LLVMGetInsertBlock(g->b);
  LLVMValueRef outer = g->fn;
  LLVMTypeRef params[] = {g->ptr, g->i32, g->ptr, g->ptr};
  g->fn = g->dispatch = LLVMAddFunction(g->module, "dispatch", LLVMFunctionType(LLVMVoidTypeInContext(g->lc), params, 4, 0));
  LLVMSetLinkage(g->fn, LLVMInternalLinkage);
  attribute(g, g->fn, "nounwind");
  attribute(g, g->fn, "noinline");
  LLVMValueRef kernel = LLVMGetParam(g->fn, 0), n = LLVMGetParam(g->fn, 1), args = LLVMGetParam(g->fn, 2), threads = LLVMGetParam(g->fn, 3);
  LLVMBasicBlockRef start = block(g, "start"), serial = block(g, "serial"), loop = block(g, "loop"), share = block(g, "share"), end = block(g, "end");
  at(g, start);
  LLVMValueRef alone = LLVMBuildOr(g->b, is_null(g, threads), LLVMBuildICmp(g->b, LLVMIntSLE, n, i32_const(g, 1), ""), "");
  LLVMBuildCondBr(g->b, alone, serial, share);
  at(g, serial);
  LLVMBuildCondBr(g->b, LLVMBuildICmp(g->b, LLVMIntSGT, n, i32_const(g, 0), ""), loop, end);
  at(g, loop);
  LLVMValueRef i = LLVMBuildPhi(g->b, g->i32, "");
  LLVMValueRef call_args[] = {args, i, i32_const(g, 0)};
  LLVMBuildCall2(g->b, g->kernel_type, kernel, call_args, 3, "");
  LLVMValueRef next = LLVMBuildAdd(g->b, i, i32_const(g, 1), "");
  LLVMValueRef values[] = {i32_const(g, 0), next};
  LLVMBasicBlockRef from[] = {serial, loop};
  LLVMAddIncoming(i, values, from, 2);
  LLVMBuildCondBr(g->b, LLVMBuildICmp(g->b, LLVMIntSLT, next, n, ""), loop, end);
  at(g, share);
  LLVMTypeRef pf_params[] = {g->ptr, g->i32, g->ptr, g->ptr};
  LLVMTypeRef pf_type = LLVMFunctionType(LLVMVoidTypeInContext(g->lc), pf_params, 4, 0);
  LLVMValueRef pf_args[] = {load(g, g->ptr, threads, 0, 8), n, kernel, args};
  LLVMBuildCall2(g->b, pf_type, load(g, g->ptr, threads, 16, 8), pf_args, 4, "");
  LLVMBuildBr(g->b, end);
  at(g, end);
  LLVMBuildRetVoid(g->b);
  g->fn = outer;
  at(g, back);
  return g->dispatch;
}

/* A later phase's tasks are numbered from `first` on: later(phase, task, worker) calls kernel(args, first + task, worker),
 * where phase is {kernel, args, first}. */
static LLVMValueRef make_later(gen *g) {
  if (g->later) return g->later;
  LLVMBasicBlockRef back = LLVMGetInsertBlock(g->b);
  LLVMValueRef outer = g->fn;
  g->fn = g->later = LLVMAddFunction(g->module, "later", g->kernel_type);
  LLVMSetLinkage(g->fn, LLVMInternalLinkage);
  attribute(g, g->fn, "nounwind");
  at(g, block(g, "start"));
  LLVMValueRef phase = LLVMGetParam(g->fn, 0), first = load(g, g->i32, phase, 16, 8);
  LLVMValueRef args[] = {load(g, g->ptr, phase, 8, 8), LLVMBuildAdd(g->b, first, LLVMGetParam(g->fn, 1), ""), LLVMGetParam(g->fn, 2)};
  LLVMBuildCall2(g->b, g->kernel_type, load(g, g->ptr, phase, 0, 8), args, 3, "");
  LLVMBuildRetVoid(g->b);
  g->fn = outer;
  at(g, back);
  return g->later;
}

static LLVMValueRef cell(gen *g, LLVMTypeRef t);

static void emit_phase(gen *g, LLVMValueRef dispatch, LLVMValueRef kernel, int32_t first, int32_t n) {
  if (n == 1) {
    LLVMValueRef one[] = {g->args, i32_const(g, first), i32_const(g, 0)};
    LLVMBuildCall2(g->b, g->kernel_type, kernel, one, 3, "");
    return;
  }
  LLVMValueRef args[] = {kernel, i32_const(g, n), g->args, g->threads};
  if (first) {
    LLVMValueRef phase = cell(g, LLVMArrayType2(g->ptr, 3));
    store(g, kernel, phase, 0, 8);
    store(g, g->args, phase, 8, 8);
    store(g, i32_const(g, first), phase, 16, 8);
    args[0] = make_later(g), args[2] = phase;
  }
  LLVMBuildCall2(g->b, LLVMGlobalGetValueType(dispatch), dispatch, args, 4, "");
}

static LLVMValueRef slot_address(gen *g, const ir_slot *s) {
  LLVMValueRef table = NULL;
  switch (s->kind) { /* inputs and others may be views: an offset into the caller's tensor */
  case IR_SLOT_INPUT: table = g->in; break;
  case IR_SLOT_OUTPUT: table = g->out; break;
  case IR_SLOT_RAW: table = g->raw; break;
  case IR_SLOT_WEIGHTS: return offset(g, g->weights, CG_BLOB_HEADER + s->offset);
  case IR_SLOT_STATE: return offset(g, g->state, s->offset);
  case IR_SLOT_ARENA: return offset(g, g->arena, s->offset);
  }
  if (!table) ir_bug(g->ctx, "slot '%s' is not of this section", s->name);
  LLVMValueRef p = offset(g, load(g, g->ptr, table, 8 * (int64_t)s->index, 8), s->offset);
  if (!s->step) return p;
  const binding *first = find_named(g, "first");
  if (!first) ir_bug(g->ctx, "slot '%s' is a part of nothing", s->name);
  LLVMValueRef further = LLVMBuildMul(g->b, first->value, i64_const(g, s->step), "");
  return LLVMBuildGEP2(g->b, g->i8, p, &further, 1, "");
}

/* The part of a batch that instructions here are for. */
static LLVMValueRef first_part(gen *g) {
  const binding *first = find_named(g, "first");
  return first ? first->value : i64_const(g, 0);
}

/* Ends the block: returns what a function of the launcher failed with, if it did. */
static void fail_with(gen *g, LLVMValueRef code) {
  LLVMBasicBlockRef bad = block(g, "fail"), good = block(g, "");
  LLVMBuildCondBr(g->b, LLVMBuildICmp(g->b, LLVMIntNE, code, i32_const(g, 0), ""), bad, good);
  at(g, bad);
  LLVMBuildRet(g->b, code);
  at(g, good);
}

/* An element of a slot on the device, asked for once in an expression. */
static LLVMValueRef read_slot(gen *g, const ir_slot *s, ix load_of, LLVMValueRef at_byte) {
  for (int i = 0; i < g->nread; i++)
    if (g->read[i].load == load_of) return g->read[i].value;
  unsigned size = (unsigned)ir_dtype_bytes(s->dtype);
  at_byte = LLVMBuildAdd(g->b, at_byte, i64_const(g, s->offset), "");
  if (s->step) at_byte = LLVMBuildAdd(g->b, at_byte, LLVMBuildMul(g->b, first_part(g), i64_const(g, s->step), ""), "");
  LLVMTypeRef params[] = {g->ptr, g->i32, g->i32, g->i64, g->i32, g->ptr}, type = LLVMFunctionType(g->i32, params, 6, 0);
  LLVMValueRef args[] = {g->session, i32_const(g, (int)cu_image_base_of(g->ctx, s)), i32_const(g, s->index), at_byte, i32_const(g, (int)size), cell(g, g->i64)};
  fail_with(g, LLVMBuildCall2(g->b, type, declared(g, "tn_cuda_read", type), args, 6, ""));
  struct read r = {load_of, cg_from_storage(&g->ops, s->dtype, load(g, cg_storage_type(&g->ops, s->dtype, 1), args[5], 0, 8), 1)};
  IR_PUSH(g->ctx, g->read, g->nread, r);
  return r.value;
}

/* The next call or copy of the program; its dims are in g->args. */
static void ask_for_call(gen *g) {
  LLVMTypeRef params[] = {g->ptr, g->i32, g->i64, g->ptr}, type = LLVMFunctionType(g->i32, params, 4, 0);
  LLVMValueRef args[] = {g->session, i32_const(g, g->ncalls++), first_part(g), g->args};
  fail_with(g, LLVMBuildCall2(g->b, type, declared(g, "tn_cuda_call", type), args, 4, ""));
}

static void emit_device_call(gen *g, const ir_inst *c) {
  const ir_program_kernel *pk = &g->p->kernels[c->kernel];
  const ir_kernel *k = pk->lowered ? pk->lowered : pk->kernel;
  for (int d = 0; d < k->ndims; d++) {
    const binding *l = find_named(g, k->dims[d]->name);
    if (!l) ir_fail(g->ctx, TN_EUNSUPPORTED, "dimension '%s' of kernel '%s' has no value in the program", k->dims[d]->name, k->name);
    store(g, l->value, g->args, 8 * (int64_t)d, 8);
  }
  ask_for_call(g);
}

static void emit_call(gen *g, const ir_inst *c) {
  if (c->device) ir_fail(g->ctx, TN_EUNSUPPORTED, "a call on device '%s'", c->device);
  const ir_program_kernel *pk = &g->p->kernels[c->kernel];
  const ir_kernel *k = pk->lowered ? pk->lowered : pk->kernel;
  const cg_kernel_info *info = &g->infos[c->kernel];
  ir_assert(g->ctx, c->nargs == k->nbufs && info->symbol);
  for (int i = 0; i < c->nargs; i++) store(g, slot_address(g, &g->p->slots[c->args[i]]), g->args, 8 * (int64_t)i, 8);
  store(g, info->scratch_bytes || info->shared_bytes ? g->scratch : null_ptr(g), g->args, 8 * (int64_t)c->nargs, 8);
  for (int d = 0; d < k->ndims; d++) {
    const binding *l = find_named(g, k->dims[d]->name);
    if (!l || !l->cell) ir_fail(g->ctx, TN_EUNSUPPORTED, "dimension '%s' of kernel '%s' has no value in the program", k->dims[d]->name, k->name);
    store(g, l->cell, g->args, 8 * (int64_t)(c->nargs + 1 + d), 8);
  }
  LLVMValueRef kernel = declared(g, info->symbol, g->kernel_type);
  if (ix_is_int(info->ntasks, 1)) {
    LLVMValueRef one[] = {g->args, i32_const(g, 0), i32_const(g, 0)};
    LLVMBuildCall2(g->b, g->kernel_type, kernel, one, 3, "");
    return;
  }
  LLVMValueRef d = make_dispatch(g);
  int32_t first = 0;
  for (int i = 0; i < info->nphases; first += info->phase[i++]) emit_phase(g, d, kernel, first, info->phase[i]);
  if (info->nphases) return;
  LLVMValueRef n = LLVMBuildTrunc(g->b, program_value(g, info->ntasks), g->i32, "");
  LLVMValueRef args[] = {kernel, n, g->args, g->threads};
  LLVMBuildCall2(g->b, LLVMGlobalGetValueType(d), d, args, 4, "");
}

static void emit_all(gen *g, int n, const ir_inst *insts);

static void emit_if(gen *g, const ir_inst *c) {
  LLVMBasicBlockRef then = block(g, "then"), other = block(g, "else"), end = block(g, "endif");
  LLVMBuildCondBr(g->b, program_value(g, c->value), then, other);
  at(g, then);
  emit_all(g, c->nbody, c->body);
  LLVMBuildBr(g->b, end);
  at(g, other);
  emit_all(g, c->nother, c->other);
  LLVMBuildBr(g->b, end);
  at(g, end);
}

static void emit_while(gen *g, const ir_inst *c) {
  LLVMBasicBlockRef head = block(g, "while"), body = block(g, "body"), end = block(g, "endwhile");
  LLVMBuildBr(g->b, head);
  at(g, head);
  LLVMBuildCondBr(g->b, program_value(g, c->value), body, end);
  at(g, body);
  emit_all(g, c->nbody, c->body);
  LLVMBuildBr(g->b, head);
  at(g, end);
}

static void enter(gen *g, const ir_var *v, LLVMValueRef value, LLVMValueRef in_memory) {
  binding l = {.var = v, .value = value, .cell = in_memory};
  IR_PUSH(g->ctx, g->lets, g->nlets, l);
}

static void emit_for(gen *g, const ir_inst *c) {
  LLVMBasicBlockRef head = block(g, "for"), body = block(g, "body"), end = block(g, "endfor");
  LLVMValueRef count = program_value(g, c->value), at_cell = cell(g, g->i64);
  store(g, i64_const(g, 0), at_cell, 0, 8);
  LLVMBuildBr(g->b, head);
  at(g, head);
  LLVMValueRef i = load(g, g->i64, at_cell, 0, 8);
  LLVMBuildCondBr(g->b, LLVMBuildICmp(g->b, LLVMIntSLT, i, count, ""), body, end);
  at(g, body);
  int outside = g->nlets;
  enter(g, c->var, i, at_cell);
  emit_all(g, c->nbody, c->body);
  g->nlets = outside;
  store(g, LLVMBuildAdd(g->b, i, i64_const(g, 1), ""), at_cell, 0, 8);
  LLVMBuildBr(g->b, head);
  at(g, end);
}

/* An alloca in the function's first block, wherever we are. */
static LLVMValueRef cell(gen *g, LLVMTypeRef t) {
  LLVMBasicBlockRef back = LLVMGetInsertBlock(g->b);
  LLVMValueRef last = LLVMGetBasicBlockTerminator(g->top);
  if (last) LLVMPositionBuilderBefore(g->b, last);
  else at(g, g->top);
  LLVMValueRef a = LLVMBuildAlloca(g->b, t, "");
  at(g, back);
  return a;
}

static void emit_let(gen *g, const ir_inst *c) {
  LLVMValueRef value = program_value(g, c->value), in_memory = NULL;
  if (c->value->dtype == TN_INDEX) {
    in_memory = cell(g, g->i64);
    store(g, value, in_memory, 0, 8);
  }
  enter(g, c->var, value, in_memory);
}

static void emit_all(gen *g, int n, const ir_inst *insts) {
  int scope = g->nlets;
  for (int i = 0; i < n; i++) {
    const ir_inst *c = &insts[i];
    switch (c->kind) {
    case IR_CALL: g->session ? emit_device_call(g, c) : emit_call(g, c); break;
    case IR_COPY_SLOT: {
      if (g->session) {
        ask_for_call(g);
        break;
      }
      const ir_slot *dst = &g->p->slots[c->args[0]], *src = &g->p->slots[c->args[1]];
      ir_assert(g->ctx, dst->bytes == src->bytes);
      if (dst->bytes) LLVMBuildMemMove(g->b, slot_address(g, dst), 1, slot_address(g, src), 1, i64_const(g, dst->bytes));
      break;
    }
    case IR_INST_LET: emit_let(g, c); break;
    case IR_INST_IF: emit_if(g, c); break;
    case IR_INST_WHILE: emit_while(g, c); break;
    case IR_INST_FOR: emit_for(g, c); break;
    }
  }
  g->nlets = scope;
}

static int most_args(gen *g, int n, const ir_inst *insts) {
  int most = 1;
  for (int i = 0; i < n; i++) {
    int a = 0;
    if (insts[i].kind == IR_CALL) {
      const ir_program_kernel *pk = &g->p->kernels[insts[i].kernel];
      a = insts[i].nargs + 1 + (pk->lowered ? pk->lowered : pk->kernel)->ndims;
    }
    int x = most_args(g, insts[i].nbody, insts[i].body), y = most_args(g, insts[i].nother, insts[i].other);
    if (x > a) a = x;
    if (y > a) a = y;
    if (a > most) most = a;
  }
  return most;
}

/* ----------------------------------------------------------- functions ---- */

static void begin(gen *g, const char *name, int nparams, LLVMTypeRef *params, int n, const ir_inst *insts) {
  g->fn = LLVMAddFunction(g->module, name, LLVMFunctionType(g->i32, params, (unsigned)nparams, 0));
  attribute(g, g->fn, "nounwind");
  g->in = g->out = g->raw = g->weights = g->state = g->arena = g->scratch = g->threads = g->session = NULL;
  g->nlets = 0;
  g->top = block(g, "entry");
  at(g, g->top);
  g->args = LLVMBuildAlloca(g->b, LLVMArrayType2(g->ptr, (uint64_t)most_args(g, n, insts)), "args");
}

static void check_isa(gen *g) {
  LLVMTypeRef type = LLVMFunctionType(g->i32, NULL, 0, 0);
  LLVMValueRef missing = LLVMBuildCall2(g->b, type, declared(g, g->o->isa, type), NULL, 0, "");
  fail_if(g, LLVMBuildICmp(g->b, LLVMIntNE, missing, i32_const(g, 0), ""), CG_RUN_ISA);
}

/* Asking the CPU takes tens of microseconds in a virtual machine, and there is no state to keep
 * the answer in; so a good answer leaves a stamp in the arena, a number made of the arena's address
 * and the instruction sets that were asked for. Memory that by chance holds it was stamped before. */
static void check_isa_once(gen *g) {
  int64_t at_stamp = cg_scratch_at(g->p) - CG_ALIGN;
  uint64_t mark = ir_hash_bytes(g->t->isa_text, strlen(g->t->isa_text), 0x7461726e6f6e6574) | 1;
  LLVMValueRef want = LLVMBuildXor(g->b, LLVMBuildPtrToInt(g->b, g->arena, g->i64, ""), i64_const(g, (int64_t)mark), "");
  LLVMBasicBlockRef ask = block(g, "ask"), go = block(g, "");
  LLVMBuildCondBr(g->b, LLVMBuildICmp(g->b, LLVMIntEQ, load(g, g->i64, g->arena, at_stamp, 8), want, ""), go, ask);
  at(g, ask);
  check_isa(g);
  store(g, want, g->arena, at_stamp, 8);
  LLVMBuildBr(g->b, go);
  at(g, go);
}

/* Each entry of a table of pointers: not null, aligned to its element. Empty tensors may be null. */
static void check_table(gen *g, ir_slot_kind kind, LLVMValueRef table) {
  LLVMValueRef null = NULL, bits = NULL;
  bool *seen = IR_NEW_ARRAY(g->ctx, bool, g->p->nslots + 1); /* by index */
  for (int i = 0; i < g->p->nslots; i++) {
    const ir_slot *s = &g->p->slots[i];
    if (s->kind != kind || s->bytes == 0 || seen[s->index]) continue;
    seen[s->index] = true; /* the others are views of it */
    LLVMValueRef p = load(g, g->ptr, table, 8 * (int64_t)s->index, 8);
    int64_t align = (int64_t)ir_dtype_bytes(s->dtype);
    null = either(g, null, is_null(g, p));
    if (align > 1) bits = either(g, bits, misaligned(g, p, align));
  }
  fail_if_any(g, null, CG_RUN_ARG);
  if (bits) fail_if(g, LLVMBuildICmp(g->b, LLVMIntNE, bits, i64_const(g, 0), ""), CG_RUN_ALIGN);
}

/* The embedded blob's address: a 64-bit distance in read-only data, so that it may lie farther
 * than 2 GiB away and needs no relocation when loaded. */
static LLVMValueRef embedded(gen *g) {
  LLVMValueRef far = LLVMGetNamedGlobal(g->module, "weights_distance");
  if (!far) {
    LLVMTypeRef none = LLVMArrayType2(g->i8, 0);
    LLVMValueRef blob = LLVMAddGlobal(g->module, none, g->o->weights);
    LLVMSetVisibility(blob, LLVMHiddenVisibility);
    far = LLVMAddGlobal(g->module, g->i64, "weights_distance");
    LLVMSetLinkage(far, LLVMPrivateLinkage);
    LLVMSetGlobalConstant(far, 1);
    LLVMSetInitializer(far, LLVMConstSub(LLVMConstPtrToInt(blob, g->i64), LLVMConstPtrToInt(far, g->i64)));
  }
  LLVMValueRef d = load(g, g->i64, far, 0, 8);
  return LLVMBuildGEP2(g->b, g->i8, far, &d, 1, "");
}

/* Fields of the blob's header that differ from the program's. */
static void check_header(gen *g) {
  cg_blob_header h = cg_blob_header_of(g->ctx, g->p);
  uint64_t words[4];
  memcpy(words, &h, sizeof words);
  LLVMValueRef differ = NULL;
  for (int i = 0; i < 4; i++)
    differ = either(g, differ, LLVMBuildXor(g->b, load(g, g->i64, g->weights, 8 * i, 8), i64_const(g, (int64_t)words[i]), ""));
  fail_if(g, LLVMBuildICmp(g->b, LLVMIntNE, differ, i64_const(g, 0), ""), CG_RUN_WEIGHTS);
}

/* Behind the run, which may have found some of them. */
static void fill_out_dims(gen *g, LLVMValueRef out_dims) {
  LLVMBasicBlockRef fill = block(g, "dims"), go = block(g, "go");
  LLVMBuildCondBr(g->b, is_null(g, out_dims), go, fill);
  at(g, fill);
  int64_t n = 0;
  for (int o = 0; o < g->p->noutputs; o++)
    for (int i = 0; i < g->p->nslots; i++) {
      const ir_slot *s = &g->p->slots[i];
      if (s->kind != IR_SLOT_OUTPUT || s->index != o) continue;
      for (int d = 0; d < s->rank; d++) store(g, s->sizes ? program_value(g, s->sizes[d]) : i64_const(g, s->dims[d]), out_dims, 8 * n++, 8);
      break;
    }
  LLVMBuildBr(g->b, go);
  at(g, go);
}

/* Values of the dims, each within what it may be. */
static void take_dims(gen *g, LLVMValueRef dims) {
  LLVMValueRef wrong = NULL;
  for (int i = 0; i < g->p->ndims; i++) {
    const ir_program_dim *d = &g->p->dims[i];
    LLVMValueRef v = load(g, g->i64, dims, 8 * i, 8), none = NULL;
    wrong = either(g, wrong, LLVMBuildICmp(g->b, LLVMIntSLT, v, i64_const(g, d->var->lo), ""));
    wrong = either(g, wrong, LLVMBuildICmp(g->b, LLVMIntSGT, v, i64_const(g, d->var->hi), ""));
    for (int k = 0; k < d->nsizes; k++) {
      LLVMValueRef other = LLVMBuildICmp(g->b, LLVMIntNE, v, i64_const(g, d->sizes[k]), "");
      none = none ? LLVMBuildAnd(g->b, none, other, "") : other;
    }
    if (none) wrong = either(g, wrong, none);
    LLVMValueRef in_memory = cell(g, g->i64);
    store(g, v, in_memory, 0, 8);
    enter(g, d->var, v, in_memory);
  }
  fail_if_any(g, wrong, CG_RUN_DIMS);
}

static void emit_run(gen *g) {
  const ir_program *p = g->p;
  LLVMTypeRef params[] = {g->ptr, g->ptr, g->ptr, g->ptr, g->ptr, g->ptr, g->ptr, g->ptr};
  begin(g, g->o->run, 8, params, p->nrun, p->run);
  g->in = LLVMGetParam(g->fn, 0), g->out = LLVMGetParam(g->fn, 1);
  LLVMValueRef out_dims = LLVMGetParam(g->fn, 3);
  g->weights = LLVMGetParam(g->fn, 4), g->state = LLVMGetParam(g->fn, 5), g->arena = LLVMGetParam(g->fn, 6), g->threads = LLVMGetParam(g->fn, 7);
  bool has_weights = p->weights_bytes > 0, has_state = p->state_bytes > 0;
  if (has_weights && g->o->weights)
    g->weights = LLVMBuildSelect(g->b, is_null(g, g->weights), embedded(g), g->weights, "");
  LLVMValueRef null = NULL, bits = NULL;
  if (p->ninputs) null = either(g, null, is_null(g, g->in));
  if (p->noutputs) null = either(g, null, is_null(g, g->out));
  if (p->ndims) null = either(g, null, is_null(g, LLVMGetParam(g->fn, 2)));
  struct { bool used; LLVMValueRef p; } memory[] = {{has_weights, g->weights}, {has_state, g->state}, {true, g->arena}};
  for (int i = 0; i < IR_COUNT(memory); i++) {
    if (!memory[i].used) continue;
    null = either(g, null, is_null(g, memory[i].p));
    bits = either(g, bits, misaligned(g, memory[i].p, CG_ALIGN));
  }
  fail_if_any(g, null, CG_RUN_ARG);
  if (bits) fail_if(g, LLVMBuildICmp(g->b, LLVMIntNE, bits, i64_const(g, 0), ""), CG_RUN_ALIGN);
  take_dims(g, LLVMGetParam(g->fn, 2));
  if (p->ninputs) check_table(g, IR_SLOT_INPUT, g->in);
  if (p->noutputs) check_table(g, IR_SLOT_OUTPUT, g->out);
  LLVMBasicBlockRef given = block(g, "threads"), go = block(g, "");
  LLVMBuildCondBr(g->b, is_null(g, g->threads), go, given);
  at(g, given);
  LLVMValueRef few = LLVMBuildICmp(g->b, LLVMIntSLT, load(g, g->i32, g->threads, 8, 4), i32_const(g, 1), "");
  fail_if(g, LLVMBuildOr(g->b, few, is_null(g, load(g, g->ptr, g->threads, 16, 8)), ""), CG_RUN_ARG);
  LLVMBuildBr(g->b, go);
  at(g, go);
  if (g->o->isa) check_isa_once(g);
  if (has_weights) check_header(g);
  g->scratch = offset(g, g->arena, cg_scratch_at(p));
  emit_all(g, p->nrun, p->run);
  fill_out_dims(g, out_dims);
  LLVMBuildRet(g->b, i32_const(g, CG_RUN_OK));
}

static void emit_pack(gen *g) {
  const ir_program *p = g->p;
  LLVMTypeRef params[] = {g->ptr, g->ptr};
  begin(g, g->o->pack, 2, params, p->npack, p->pack);
  g->raw = LLVMGetParam(g->fn, 0), g->weights = LLVMGetParam(g->fn, 1);
  g->threads = null_ptr(g);
  if (g->o->isa) check_isa(g);
  LLVMValueRef null = NULL;
  if (p->nraw) null = either(g, null, is_null(g, g->raw));
  if (cg_pack_bytes(p, g->infos)) null = either(g, null, is_null(g, g->weights));
  fail_if_any(g, null, CG_RUN_ARG);
  if (null) fail_if(g, LLVMBuildICmp(g->b, LLVMIntNE, misaligned(g, g->weights, CG_ALIGN), i64_const(g, 0), ""), CG_RUN_ALIGN);
  if (p->nraw) check_table(g, IR_SLOT_RAW, g->raw);
  if (p->weights_bytes > 0) {
    cg_blob_header h = cg_blob_header_of(g->ctx, p);
    uint64_t words[CG_BLOB_HEADER / 8];
    memcpy(words, &h, sizeof words);
    for (int i = 0; i < IR_COUNT(words); i++) store(g, i64_const(g, (int64_t)words[i]), g->weights, 8 * i, 8);
  }
  g->arena = offset(g, g->weights, cg_blob_bytes(p));
  g->scratch = offset(g, g->weights, cg_pack_bytes(p, g->infos) - cg_scratch_bytes(p, true, g->infos) - cg_shared_bytes(p, true, g->infos));
  emit_all(g, p->npack, p->pack);
  LLVMBuildRet(g->b, i32_const(g, CG_RUN_OK));
}

/* The state before the first run: zeros, then what the init section copies from the weights. */
static void emit_init(gen *g) {
  const ir_program *p = g->p;
  LLVMTypeRef params[] = {g->ptr, g->ptr};
  begin(g, g->o->init, 2, params, p->ninit, p->init);
  g->state = LLVMGetParam(g->fn, 0), g->weights = LLVMGetParam(g->fn, 1), g->threads = null_ptr(g);
  if (g->o->weights) g->weights = LLVMBuildSelect(g->b, is_null(g, g->weights), embedded(g), g->weights, "");
  bool from_weights = p->weights_bytes > 0;
  LLVMValueRef null = is_null(g, g->state), bits = misaligned(g, g->state, CG_ALIGN);
  if (from_weights) null = either(g, null, is_null(g, g->weights)), bits = either(g, bits, misaligned(g, g->weights, CG_ALIGN));
  fail_if(g, null, CG_RUN_ARG);
  fail_if(g, LLVMBuildICmp(g->b, LLVMIntNE, bits, i64_const(g, 0), ""), CG_RUN_ALIGN);
  if (from_weights) check_header(g);
  LLVMBuildMemSet(g->b, g->state, LLVMConstInt(g->i8, 0, 0), i64_const(g, p->state_bytes), CG_ALIGN);
  emit_all(g, p->ninit, p->init);
  LLVMBuildRet(g->b, i32_const(g, CG_RUN_OK));
}

/* The run section for a launcher: what it decides. */
static void emit_walk(gen *g) {
  const ir_program *p = g->p;
  LLVMTypeRef params[] = {g->ptr, g->ptr};
  begin(g, g->o->walk, 2, params, p->nrun, p->run);
  LLVMSetVisibility(g->fn, LLVMHiddenVisibility);
  g->session = LLVMGetParam(g->fn, 0);
  take_dims(g, LLVMGetParam(g->fn, 1));
  fail_if(g, is_null(g, g->session), CG_RUN_OK);
  emit_all(g, p->nrun, p->run);
  LLVMBuildRet(g->b, i32_const(g, CG_RUN_OK));
}

/* number(which, values) */
static void emit_numbers(gen *g) {
  LLVMTypeRef params[] = {g->i32, g->ptr};
  g->fn = LLVMAddFunction(g->module, g->o->number, LLVMFunctionType(g->i64, params, 2, 0));
  attribute(g, g->fn, "nounwind");
  LLVMSetVisibility(g->fn, LLVMHiddenVisibility);
  g->session = NULL;
  g->top = block(g, "entry");
  LLVMBasicBlockRef next = block(g, "");
  at(g, g->top);
  LLVMBuildBr(g->b, next);
  for (int i = 0; i < g->o->nnumbers; i++) {
    const cg_number *n = &g->o->numbers[i];
    LLVMBasicBlockRef this = block(g, "");
    at(g, next);
    next = block(g, "");
    LLVMBuildCondBr(g->b, LLVMBuildICmp(g->b, LLVMIntEQ, LLVMGetParam(g->fn, 0), i32_const(g, i + 1), ""), this, next);
    at(g, this);
    g->nlets = 0;
    for (int v = 0; v < n->nvars; v++) enter(g, n->vars[v], load(g, g->i64, LLVMGetParam(g->fn, 1), 8 * v, 8), NULL);
    LLVMBuildRet(g->b, value_of(g, n->value));
  }
  at(g, next);
  LLVMBuildRet(g->b, i64_const(g, 0));
}

static void fill(void *user, LLVMContextRef lc, LLVMModuleRef module, LLVMBuilderRef b) {
  gen *g = user;
  g->lc = lc, g->module = module, g->b = b;
  g->ptr = LLVMPointerTypeInContext(lc, 0);
  g->i8 = LLVMInt8TypeInContext(lc);
  g->i32 = LLVMInt32TypeInContext(lc), g->i64 = LLVMInt64TypeInContext(lc);
  cg_fn *f = &g->ops;
  *f = (cg_fn){.ctx = g->ctx, .t = g->base, .lc = lc, .module = module, .b = b, .lanes = 1, .i8 = g->i8, .i32 = g->i32, .i64 = g->i64, .ptr = g->ptr};
  f->i1 = LLVMInt1TypeInContext(lc), f->i16 = LLVMInt16TypeInContext(lc), f->half = LLVMHalfTypeInContext(lc);
  f->f32 = LLVMFloatTypeInContext(lc), f->f64 = LLVMDoubleTypeInContext(lc);
  LLVMTypeRef params[] = {g->ptr, g->i32, g->i32};
  g->kernel_type = LLVMFunctionType(LLVMVoidTypeInContext(lc), params, 3, 0);
  if (g->o->isa) cg_emit_isa_check(g->ctx, g->t, g->base, g->o->isa, lc, module, b);
  if (g->o->run) emit_run(g);
  if (g->o->pack) emit_pack(g);
  if (g->o->init) emit_init(g);
  if (g->o->walk) emit_walk(g);
  if (g->o->number) emit_numbers(g);
}

const cg_object *cg_compile_entry(tn_ctx *ctx, const cg_target *t, const ir_program *p, const cg_kernel_info *infos,
                                  const cg_entry_options *o) {
  cg_target base = *t;
  if (t->arch == CG_X86_64) base.cpu = "x86-64", base.features = "", base.vector_bits = 128, base.fma = base.round = base.half = base.masks = false;
  else base.cpu = "generic", base.features = "";
  gen g = {.ctx = ctx, .t = t, .base = &base, .p = p, .infos = infos, .o = o};
  return cg_compile_module(ctx, &base, "tenon.entry", fill, &g);
}
