/* llvm.h — shared by the files of the LLVM emitter; nothing outside codegen/ needs it.
 *
 *   llvm.c          modules, target machines, bytes, dumps, attributes
 *   llvm_prepare.c  kernel -> plan: tasks, unrolled loops, vector loops, registers, scratch
 *   llvm_stmt.c     statements -> blocks and phis
 *   llvm_expr.c     expressions -> values, hoisted and cached
 *   llvm_address.c  addresses, single accesses, lanes and register slots (llvm_mem.h)
 *   llvm_load.c     loads
 *   llvm_store.c    stores, reductions over lanes, prefetches
 *   llvm_ops.c      one scalar operation on scalars or vectors
 *
 * Values. A value is `varying` when it differs between the lanes of the vector loop
 * being emitted: it is then an LLVM vector of `lanes` elements, else a scalar.
 *   bool        i1              integers   their width
 *   index       i64; varying: i32 where the range is proven, else i64
 *   narrow floats  f32 that holds a value of the narrow type exactly
 *
 * Regions. A region is code that is entered as a whole: the function, a loop's body,
 * an arm of an if. Regions nest; `level` counts them from 0. A value belongs to the
 * lowest level at which all that it depends on is known, and is emitted there: at the
 * end of the current block for the innermost region, else just before the branch that
 * enters the next one. So invariants leave loops without a pass over the IR.
 */
#ifndef CG_LLVM_H
#define CG_LLVM_H
#include "codegen/codegen.h"
#include <llvm-c/Core.h>

void cg_llvm_init(void); /* registers LLVM's targets once per process */
/* The object of a module that `fill` builds for the target (which may be a plainer one than
 * the kernels'). fill may throw. */
const cg_object *cg_compile_module(tn_ctx *ctx, const cg_target *t, const char *name,
                                   void (*fill)(void *user, LLVMContextRef lc, LLVMModuleRef module, LLVMBuilderRef b), void *user);
/* Defines `int32_t SYMBOL(void)` for cg_compile_entry's option isa, in the baseline's code. llvm.c */
void cg_emit_isa_check(tn_ctx *ctx, const cg_target *t, const cg_target *base, const char *symbol, LLVMContextRef lc, LLVMModuleRef module,
                       LLVMBuilderRef b);

enum {
  CG_MAX_LANES = 64,      /* longest vector loop kept as one vector */
  CG_MAX_SLOTS = 1024,    /* SSA values of one register buffer; larger ones go to memory */
  CG_STACK_BYTES = 4096,  /* local buffers up to this total live on the stack */
};

/* ------------------------------------------------------------- the plan ---- */

typedef enum cg_where { CG_PARAM, CG_SCRATCH, CG_SHARED, CG_SSA } cg_where;

/* A buffer of the kernel. */
typedef struct cg_buf {
  ir_buf *buf;
  cg_where where;
  int number;           /* in the plan */
  int bit;              /* in masks of written buffers; the last bit is shared by all that are left */
  int arg;              /* param: place in args */
  bool readonly;        /* never stored to by the kernel */
  int64_t offset;       /* scratch, shared: bytes from its base */
  int64_t elements;     /* of memory, or of the register buffer; -1 not constant */
  int group;            /* SSA: elements per slot */
  int lanes;            /* SSA: lanes of the vector loop it is private to, else 1 */
  int nslots;
  ix *cover;            /* SSA: the condition on the lanes under which every store to a slot stands (true:
                           all lanes; false: several). Lanes outside it never hold anything. */
  /* while emitting: */
  LLVMValueRef base;
  LLVMValueRef *slots;  /* SSA: current values; null: nothing stored yet */
  bool *mark;           /* SSA: slots stored to by the loop being opened */
  bool alive;           /* in scope */
  int level;            /* lowest level at which what it holds does not change */
  LLVMValueRef scope, noalias; /* metadata */
} cg_buf;

typedef struct cg_plan {
  const ir_kernel *kernel;
  const ir_stmt *body;  /* vector loops run from 0, their variables are the shared lane variables */
  ix ntasks;
  ir_var *task;         /* bound to the task number; null when there is one task */
  int nphases;          /* 0: one, of ntasks */
  int32_t phase[CG_MAX_PHASES];
  ir_var *phase_task[CG_MAX_PHASES]; /* bound to the task number within the phase, to one of its numbers in others; null: it has one task */
  int nbufs;
  cg_buf **bufs;        /* the parameters first */
  int64_t local_bytes;  /* of local buffers, a multiple of 64 */
  int nshared;
  ir_buf **shared;      /* local buffers that several phases use */
  int64_t shared_bytes; /* of those that several phases use, a multiple of 64 */
  bool on_stack;
} cg_plan;

cg_plan *cg_prepare(tn_ctx *ctx, const cg_target *t, const ir_kernel *k);
cg_kernel_info cg_plan_info(const cg_plan *p, const char *symbol); /* code_bytes left open */
/* The atoms "prefetch" (into the first-level cache) and "prefetch.l2": their meaning is to
 * load into registers that nobody reads, so all that is left is the hint. Locality as
 * LLVM counts it; 0: another atom. */
int cg_prefetch_of(const char *atom);
cg_buf *cg_plan_buf(const cg_plan *p, const ir_buf *b);
/* Elements of a register buffer's access: offset (constant) of lane 0 and its stride in
 * the lane variable `lane` (null: none). False when it is not constant. */
bool cg_slot_access(tn_ctx *ctx, const ir_buf *b, const ix *index, const ir_var *lane, int64_t *base, int64_t *stride);

/* ---------------------------------------------------------- the emitter ---- */

typedef struct cg_val {
  LLVMValueRef v;
  int level;
  bool varying;
  bool guarded;    /* holds loads that are good under the current guard only */
  uint64_t bufs;   /* written buffers whose contents it depends on */
  uint64_t binds;  /* lets it depends on */
} cg_val;

/* What is cached for an expression, in the low bits of a key; above them the lanes of a
 * splat, or the number of the buffer of a pointer (guarded: one that is replaced by
 * zeros where the guard is off), or the elements of a run. */
typedef enum cg_kind { CG_VALUE, CG_SPLAT, CG_RAW, CG_POINTER, CG_GUARDED, CG_RUN, CG_KIND_BITS = 3 } cg_kind;

typedef struct cg_entry {
  struct cg_entry *next, *next_here;
  ix e, guard;
  int kind;
  uint32_t stamp;
  cg_val val;
} cg_entry;

typedef struct cg_region {
  LLVMBasicBlockRef block; /* current block */
  LLVMValueRef term;       /* the branch that enters the next region, null for the innermost */
  int safe;                /* lowest level from which this region is reached for sure */
  int held;                /* vector registers of values put here for deeper regions */
  cg_entry *entries;
} cg_region;

typedef struct cg_binding {
  ir_var *var;
  cg_val val;
  int bit;        /* in cg_val.binds; -1 for variables of loops */
  uint32_t stamp; /* clock of the last change */
} cg_binding;

/* What must hold for a load to be legal: the conjunction of conditions around it. */
typedef struct cg_guard {
  const struct cg_guard *outer;
  ix key;
  cg_val mask;
} cg_guard;

typedef struct cg_fn {
  tn_ctx *ctx;
  const cg_target *t;
  cg_plan *plan;
  LLVMContextRef lc;
  LLVMModuleRef module;
  LLVMBuilderRef b;
  LLVMValueRef fn;
  LLVMValueRef zeros; /* constant bytes that a load may read when its condition is false */
  LLVMValueRef sink;  /* stack bytes that a store may hit when its condition is false */
  LLVMValueRef entry_end; /* the branch out of the entry block, where allocas go before */
  LLVMTypeRef i1, i8, i16, i32, i64, f32, f64, half, ptr;
  ir_var *lane;       /* of the vector loop being emitted, else null */
  int lanes;
  const cg_guard *guard;
  int nesting;        /* calls of cg_emit() open */
  int prefetch;       /* inside a prefetch atom: its locality */
  int depth;          /* level of the innermost region */
  int regions_cap;
  cg_region *regions;
  size_t buckets_n;
  cg_entry **buckets;
  int nvars;
  cg_binding *vars;
  int nbits;          /* lets numbered so far */
  size_t facts_n, facts_cap;
  ix *facts;          /* expressions known to hold (even slot) or not to hold unsafe loads */
  bool *facts_value;
  uint32_t clock, buf_clock[64], bind_clock[64];
  LLVMValueRef md_invariant;
  unsigned kind_invariant, kind_scope, kind_noalias;
} cg_fn;

/* A sum of index terms, in the arena: frames of the recursive emitters stay small. */
typedef struct cg_sum {
  int n;
  int64_t c0;
  int64_t *coef;
  ix *term;
  cg_val *val; /* room for the terms' values */
} cg_sum;
enum { CG_MAX_TERMS = 128, CG_MAX_DEPTH = 3000 };

/* llvm_stmt.c */
void cg_emit_stmt(cg_fn *f, const ir_stmt *s);
/* llvm_expr.c */
cg_val cg_emit(cg_fn *f, ix e);
/* The value with all lanes; e is its key, may be null. Raises v->level to where that is. */
LLVMValueRef cg_vector_of(cg_fn *f, ix e, cg_val *v);
LLVMValueRef cg_splat(cg_fn *f, LLVMValueRef v, int lanes);
bool cg_varying(cg_fn *f, ix e);
cg_sum cg_sum_of(cg_fn *f, ix e);
bool cg_narrow(ix e);                                  /* index: kept in 32 bits when varying */
void cg_at(cg_fn *f, int level);                       /* moves the builder to where a level grows */
void cg_join(cg_val *to, const cg_val *from);          /* dependences of an operand */
bool cg_cached(cg_fn *f, ix e, int kind, cg_val *out);
void cg_cache(cg_fn *f, ix e, int kind, cg_val v);
cg_binding *cg_find_var(cg_fn *f, const ir_var *v);
void cg_bind(cg_fn *f, ir_var *v, cg_val val, bool let);
cg_guard cg_guard_with(cg_fn *f, ix cond, cg_val mask, bool negate);
cg_buf *cg_buf_of(cg_fn *f, const ir_buf *b);
uint64_t cg_buf_bit(const cg_buf *b);                  /* 0 for a buffer that is never written */
void cg_touch(cg_fn *f, const cg_buf *b);              /* the buffer's contents change here */
void cg_open(cg_fn *f, LLVMValueRef term, LLVMBasicBlockRef block, bool sure);
void cg_close(cg_fn *f);
/* `level`, or the innermost one when values of type t, held in registers from there on,
 * would leave too few for the loops inside. Counts what it lets pass. */
int cg_hold(cg_fn *f, int level, LLVMTypeRef t);
/* llvm_load.c, llvm_store.c */
bool cg_safe_load(cg_fn *f, ix load);                   /* in memory for every value of its variables */
cg_val cg_emit_load(cg_fn *f, ix e, bool raw);
void cg_emit_store(cg_fn *f, const ir_stmt *s);
void cg_emit_prefetch(cg_fn *f, const ir_stmt *s);     /* of what the store's value loads */
/* The bytes from `load` (lane 0 of a varying one) on as one value of type t, which is a vector of as many lanes
 * as the vector loop has when the load varies. `safe`: they are in bounds whatever the guards say. */
cg_val cg_emit_run(cg_fn *f, ix load, LLVMTypeRef t, int64_t bytes, bool safe);
/* llvm_dot.c: the loop inside the atom "dot" */
void cg_emit_dot(cg_fn *f, const ir_stmt *loop);
/* llvm_transpose.c: the loops inside the atom "transpose" */
void cg_emit_transpose(cg_fn *f, const ir_stmt *loop);
/* i32(a) * i32(b) of bytes or words as one instruction; null: e is no such product, or there is none. */
LLVMValueRef cg_mul_words(cg_fn *f, ix e, LLVMValueRef *args, int lanes);
/* llvm_ops.c; operands and result have `lanes` elements */
LLVMTypeRef cg_type(cg_fn *f, tn_dtype t, int lanes);
LLVMTypeRef cg_storage_type(cg_fn *f, tn_dtype t, int lanes);
LLVMTypeRef cg_lanes_of(LLVMTypeRef element, int lanes);
LLVMValueRef cg_const(cg_fn *f, ix e);
LLVMValueRef cg_op(cg_fn *f, ix e, LLVMValueRef *args, int lanes);
LLVMValueRef cg_binary(cg_fn *f, ir_opcode op, tn_dtype t, LLVMValueRef a, LLVMValueRef b, int lanes);
LLVMValueRef cg_from_storage(cg_fn *f, tn_dtype t, LLVMValueRef v, int lanes);
LLVMValueRef cg_to_storage(cg_fn *f, tn_dtype t, LLVMValueRef v, int lanes);
LLVMValueRef cg_intrinsic(cg_fn *f, const char *name, LLVMTypeRef overload, LLVMTypeRef overload2, int n, LLVMValueRef *args);
LLVMValueRef cg_int(cg_fn *f, LLVMTypeRef t, int64_t v);   /* scalar or splat of a vector type */
LLVMValueRef cg_real(cg_fn *f, LLVMTypeRef t, double v);
#endif
