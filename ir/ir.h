/* ir.h — the four representations of Tenon and what they mean.
 *
 *   graph    tensor equations: nodes, values, types, layouts, weights
 *   program  what runs when: kernel calls at buffer offsets, lets, ifs, whiles
 *   kernel   loops around expressions over buffers
 *   schedule a list of named steps that rewrite a kernel
 *
 * All four print and parse; parse(print(x)) is x.
 *
 * Grammar of kernel text (# starts a comment; names are [A-Za-z_.$][A-Za-z0-9_.$]*
 * without "..", or any "quoted string"; those of programs and graphs stand at the head
 * of ir/text_program.c and ir/text_graph.c):
 *
 *   kernel  := "kernel" NAME "(" [param {"," param}] ")" block
 *   param   := ("in"|"const"|"out"|"inout") NAME ":" type
 *            | "dim" NAME [range]                               # before its use in shapes
 *   range   := "[" INT "," INT "]"                              # inclusive; a dim without: 0 and up
 *   type    := DTYPE "[" [expr {"," expr}] "]" ["layout" STRING]
 *   block   := "{" { stmt } "}"
 *   stmt    := "for" NAME [range] "in" expr ".." expr [kind] ["independent"] block   # hi excluded
 *            | "while" expr block
 *            | "if" expr block ["else" (block | if-stmt)]
 *            | "let" NAME [":" DTYPE [range]] "=" expr          # scope: rest of the block
 *            | "alloc" NAME ":" type SPACE                      # scope: rest of the block
 *            | NAME "[" [exprs] "]" ("=" | "+=" | "*=" | "max=" | "min=" | "|=" | "&=") expr
 *            | "tile" ATOM block                                # meaning: the block as plain loops
 *            | block                                            # ends the scopes opened inside
 *   kind    := "serial" | "parallel" | "vector" | "unroll" | "pipeline" "(" INT ")" | "grid"
 *            | "cluster" | "warpgroup" | "warp" | "lane"
 *   expr    := literal | NAME | NAME "[" [exprs] "]" | OP "(" exprs ")" | "cast<" DTYPE ">(" expr ")"
 *            | infix forms, see ir/text_expr.c
 *
 * Ranges of loop variables and of index lets follow from their bounds and values and are
 * said only where they differ. A variable or a buffer is named once in a kernel.
 * "independent" is a promise: ir_var.independent.
 *
 * Semantics: statements run in order; a loop body runs for var = lo, lo+1, ... < hi.
 * `parallel`, `vector`, `unroll`, `grid`... change no meaning: a legal kernel gives the
 * same result when every loop is serial (and, for parallel and vector, in any order of
 * iterations). Loads are evaluated in their statement, and never shared across stores.
 * An index out of a buffer's bounds is an error of the kernel (the interpreter reports
 * it); select(c, a, b) evaluates only the loads of the arm that is taken, and `if`
 * guards likewise. The contents of an alloc and of an `out` parameter start undefined:
 * the interpreter reports a load of what was not stored. Each loop, let and alloc binds
 * a variable or buffer of its own: a copy of a statement goes through ir_stmt_fresh().
 */
#ifndef IR_IR_H
#define IR_IR_H
#include "ir/ctx.h"
#include <stdio.h>

/* ======================================================== expressions ==== */

typedef enum ir_opcode {
#define ROW(e, text, arity, result, traits) IX_##e,
#include "ir/scalar_ops.h"
#undef ROW
  IX_OPCODE_COUNT
} ir_opcode;

typedef struct ir_opcode_info {
  const char *name;
  int arity;
  char result;        /* S, B, F or X, see scalar_ops.h */
  const char *traits;
} ir_opcode_info;
extern const ir_opcode_info ix_info[IX_OPCODE_COUNT];

typedef struct ir_var ir_var;
typedef struct ir_buf ir_buf;

/* An expression: immutable and hash-consed, so equal means same pointer (within
 * a context and its parents). */
typedef const struct tn_expr *ix;
struct tn_expr {
  uint8_t op;      /* ir_opcode */
  uint8_t dtype;   /* tn_dtype */
  uint8_t nargs;
  bool loads : 1;  /* a LOAD is inside */
  bool divides : 1; /* a division or remainder of dtype index is inside */
  uint32_t id;     /* creation order: a total order that is stable within a run */
  uint64_t hash;
  uint64_t vars;   /* bit id mod 64 of each variable inside: a quick "not in here" */
  int64_t lo, hi;  /* dtype index: proven inclusive bounds, else INT64_MIN / INT64_MAX */
  union {
    int64_t i;     /* CONST of integer, bool, index (sign- or zero-extended to 64 bits) */
    double f;      /* CONST of a float dtype, already rounded to that dtype */
    ir_var *var;   /* VAR */
    ir_buf *buf;   /* LOAD */
  } u;
  ix args[];
};

/* A loop variable, a let or a dimension. Identity is the pointer. */
struct ir_var {
  const char *name; /* schedule handle of a loop; unique within a kernel */
  tn_dtype dtype;   /* TN_INDEX for loops and dims */
  uint32_t id;
  int64_t lo, hi;   /* proven inclusive bounds of an index variable */
  bool independent; /* of a loop: its iterations were proven independent before it was split or fused */
  ix expr;          /* the VAR expression */
};

ir_var *ir_var_new(tn_ctx *ctx, const char *name, tn_dtype dtype, int64_t lo, int64_t hi);

/* Constructors simplify (constants fold; index expressions go to a canonical sum of
 * products, with div/mod simplified by ranges) and check operand dtypes (ir_bug). */
ix ix_int(tn_ctx *ctx, tn_dtype t, int64_t v);     /* any integer, bool or index dtype; wraps */
ix ix_float(tn_ctx *ctx, tn_dtype t, double v);    /* rounds to the dtype */
ix ix_num(tn_ctx *ctx, tn_dtype t, double v);      /* either of the above by dtype */
ix ix_index(tn_ctx *ctx, int64_t v);
ix ix_bool(tn_ctx *ctx, bool v);
ix ix_load(tn_ctx *ctx, ir_buf *buf, const ix *index); /* index: buf->rank logical indices */
ix ix_make(tn_ctx *ctx, ir_opcode op, tn_dtype t, int nargs, const ix *args); /* any pure op; t is used by cast and bitcast */
ix ix_unary(tn_ctx *ctx, ir_opcode op, ix a);
ix ix_binary(tn_ctx *ctx, ir_opcode op, ix a, ix b);
ix ix_cast(tn_ctx *ctx, tn_dtype t, ix a);
ix ix_bitcast(tn_ctx *ctx, tn_dtype t, ix a);
ix ix_select(tn_ctx *ctx, ix cond, ix a, ix b);
ix ix_fma(tn_ctx *ctx, ix a, ix b, ix c);
static inline ix ix_add(tn_ctx *c, ix a, ix b) { return ix_binary(c, IX_ADD, a, b); }
static inline ix ix_sub(tn_ctx *c, ix a, ix b) { return ix_binary(c, IX_SUB, a, b); }
static inline ix ix_mul(tn_ctx *c, ix a, ix b) { return ix_binary(c, IX_MUL, a, b); }
static inline ix ix_div(tn_ctx *c, ix a, ix b) { return ix_binary(c, IX_DIV, a, b); }
static inline ix ix_rem(tn_ctx *c, ix a, ix b) { return ix_binary(c, IX_REM, a, b); } /* index: floor modulo */
static inline ix ix_min(tn_ctx *c, ix a, ix b) { return ix_binary(c, IX_MIN, a, b); }
static inline ix ix_max(tn_ctx *c, ix a, ix b) { return ix_binary(c, IX_MAX, a, b); }
static inline ix ix_and(tn_ctx *c, ix a, ix b) { return ix_binary(c, IX_AND, a, b); }
static inline ix ix_or(tn_ctx *c, ix a, ix b) { return ix_binary(c, IX_OR, a, b); }
static inline ix ix_not(tn_ctx *c, ix a) { return ix_unary(c, IX_NOT, a); }
static inline ix ix_lt(tn_ctx *c, ix a, ix b) { return ix_binary(c, IX_LT, a, b); }
static inline ix ix_le(tn_ctx *c, ix a, ix b) { return ix_binary(c, IX_LE, a, b); }
static inline ix ix_gt(tn_ctx *c, ix a, ix b) { return ix_binary(c, IX_LT, b, a); }
static inline ix ix_ge(tn_ctx *c, ix a, ix b) { return ix_binary(c, IX_LE, b, a); }
static inline ix ix_eq(tn_ctx *c, ix a, ix b) { return ix_binary(c, IX_EQ, a, b); }
static inline ix ix_ne(tn_ctx *c, ix a, ix b) { return ix_binary(c, IX_NE, a, b); }
static inline ix ix_addi(tn_ctx *c, ix a, int64_t v) { return ix_add(c, a, ix_index(c, v)); }
static inline ix ix_muli(tn_ctx *c, ix a, int64_t v) { return ix_mul(c, a, ix_index(c, v)); }
static inline ix ix_divi(tn_ctx *c, ix a, int64_t v) { return ix_div(c, a, ix_index(c, v)); }
static inline ix ix_remi(tn_ctx *c, ix a, int64_t v) { return ix_rem(c, a, ix_index(c, v)); }
/* lo <= a < hi for index expressions. */
ix ix_within(tn_ctx *ctx, ix a, ix lo, ix hi);
/* ceil(a / b), b > 0, index. */
ix ix_ceil_div(tn_ctx *ctx, ix a, int64_t b);

static inline bool ix_is_const(ix e) { return e->op == IX_CONST; }
static inline bool ix_is_int(ix e, int64_t v) { return e->op == IX_CONST && !ir_is_float((tn_dtype)e->dtype) && e->u.i == v; }
/* The constant value of an integer or index expression; false if not constant. */
bool ix_const_value(ix e, int64_t *out);
/* As above, throws (unsupported: "needs a constant `what`") if not constant. */
int64_t ix_need_const(tn_ctx *ctx, ix e, const char *what);

/* Replaces variables: every VAR v with map(user, v) != NULL becomes that expression;
 * rebuilds (and re-simplifies) what changes. */
ix ix_subst(tn_ctx *ctx, ix e, ix (*map)(void *user, ir_var *v), void *user);
ix ix_subst1(tn_ctx *ctx, ix e, const ir_var *v, ix by);
/* The same for loads: `map` returns the replacement of a whole LOAD (its indices are
 * rewritten first), or NULL to keep it. */
ix ix_subst_loads(tn_ctx *ctx, ix e, ix (*map)(void *user, ix load), void *user);
bool ix_uses_var(ix e, const ir_var *v);
bool ix_uses_buf(ix e, const ir_buf *b);
/* Calls fn on each distinct sub-expression, operands first. */
void ix_walk(tn_ctx *ctx, ix e, void (*fn)(void *user, ix e), void *user);
/* e as c0 + sum coef[i] * term[i], terms in canonical order; index dtype only.
 * Returns the number of terms, at most `max` (ir_bug beyond). */
int ix_linear(ix e, int64_t *c0, int64_t *coef, ix *term, int max);
/* Coefficient of v if e is affine in v (v nowhere under div, mod, min, ...); false otherwise. */
bool ix_affine_in(ix e, const ir_var *v, int64_t *coef);

/* Polynomial expansion of an op with trait E into ops without it; f16, bf16 through
 * f32. Shared by the interpreter and all backends, so that they agree. ir/expand.c */
ix ix_expand(tn_ctx *ctx, ix e);     /* the whole expression, all E ops inside */

/* ============================================================ layouts ==== */

typedef enum ir_layout_kind { IR_LAYOUT_SPLIT, IR_LAYOUT_PERM, IR_LAYOUT_PAD, IR_LAYOUT_XOR } ir_layout_kind;
typedef struct ir_layout_step {
  ir_layout_kind kind;
  int axis, axis2;      /* split, pad: axis; perm: number of axes; xor: index[axis] ^= index[axis2] % mod */
  int64_t factor;       /* split: inner extent; xor: mod, a power of two */
  int64_t before, after; /* pad */
  int8_t perm[IR_MAX_RANK]; /* perm: new axis i is old axis perm[i] */
} ir_layout_step;

/* Where logical indices live in memory: steps applied in order to the axis list;
 * split a f: axis a becomes (a / f, a mod f) at positions a, a+1 (extent rounded up);
 * perm; pad a before after. Then row-major. Null means plain row-major.
 * Text: "split 1 16; perm 0 1 3 4 2; pad 2 1 1". Interned: equal is same pointer
 * for layouts made in one context. */
typedef struct ir_layout {
  const char *text;
  int nsteps;
  const ir_layout_step *steps;
} ir_layout;
const ir_layout *ir_layout_parse(tn_ctx *ctx, const char *text); /* throws; "" gives null */
/* Physical extents of a logical shape. Returns the physical rank. */
int ir_layout_shape(tn_ctx *ctx, const ir_layout *l, int rank, const ix *shape, ix *out);
/* Physical indices of a logical index. Returns the physical rank. */
int ir_layout_index(tn_ctx *ctx, const ir_layout *l, int rank, const ix *index, ix *out);
/* Physical rank of a logical rank; -1 when the layout does not fit it. */
int ir_layout_rank(const ir_layout *l, int rank);
/* "NCHW16c"-like layout of a rank-4 (or rank-3, rank-5) activation: axis 1 split by `block`, inner last. */
const ir_layout *ir_layout_blocked(tn_ctx *ctx, int rank, int axis, int64_t block);

/* ============================================================ buffers ==== */

typedef enum ir_space { IR_GLOBAL, IR_LOCAL, IR_REGISTER, IR_SHARED } ir_space;
/* IR_GLOBAL: a parameter. IR_LOCAL: scratch memory of one task. IR_REGISTER: values
 * that live in registers: every index is constant once unroll and vector loops are
 * expanded (rank 0: a mutable local variable). IR_SHARED: GPU shared memory, TPU
 * on-chip memory. Text names: "local", "register", "shared". */
typedef enum ir_access { IR_IN = 1, IR_OUT = 2, IR_INOUT = 3 } ir_access;

struct ir_buf {
  const char *name;
  tn_dtype dtype;
  int rank;               /* logical */
  ix shape[IR_MAX_RANK];  /* logical extents */
  const ir_layout *layout;
  ir_space space;
  ir_access access;       /* of a parameter */
  bool constant;          /* a weight: packed ahead or by a call before, so a schedule may choose its layout; text "const NAME" */
  const struct ir_kernel *made; /* of a constant that a schedule put in place of the kernel's own: (in: that, out: this); else null */
  uint32_t id;
};
ir_buf *ir_buf_new(tn_ctx *ctx, const char *name, tn_dtype dtype, int rank, const ix *shape,
                   const ir_layout *layout, ir_space space);
/* Element offset of a logical index in memory (layout applied), an index expression. */
ix ir_buf_offset(tn_ctx *ctx, const ir_buf *b, const ix *index);
/* Elements of memory the buffer takes, layout padding included. */
ix ir_buf_elements(tn_ctx *ctx, const ir_buf *b);

/* ============================================================ kernels ==== */

typedef enum ir_stmt_kind {
  IR_FOR, IR_WHILE, IR_IF, IR_LET, IR_ALLOC, IR_STORE, IR_SEQ, IR_TILE
} ir_stmt_kind;
typedef enum ir_loop_kind {
  IR_SERIAL, IR_PARALLEL, IR_VECTOR, IR_UNROLL, IR_PIPELINE,
  IR_GRID, IR_CLUSTER, IR_WARPGROUP, IR_WARP, IR_LANE
} ir_loop_kind;
typedef enum ir_store_op { IR_SET, IR_ADD, IR_MUL, IR_MAX, IR_MIN, IR_OR, IR_AND } ir_store_op;
/* buf[i] op= v means buf[i] = op(buf[i], v), with max(old, v) as scalar_ops.h defines it. */

/* Statements are immutable once built: a rewrite copies the path to what it changes. */
typedef struct ir_stmt ir_stmt;
struct ir_stmt {
  ir_stmt_kind kind;
  ir_loop_kind loop;  /* FOR */
  int stages;         /* FOR pipeline(n) */
  ir_var *var;        /* FOR, LET */
  ix lo, hi;          /* FOR: lo <= var < hi */
  ix value;           /* LET, STORE; WHILE, IF: the condition (bool) */
  ir_buf *buf;        /* ALLOC, STORE */
  const ix *index;    /* STORE: buf->rank logical indices */
  ir_store_op op;     /* STORE */
  const char *atom;   /* TILE: interned name, a row of the target's atom table */
  const ir_stmt *body, *other; /* FOR, WHILE, TILE; LET and ALLOC: their scope; IF: then, else (or null) */
  int n;              /* SEQ */
  const ir_stmt *const *items;
};

typedef struct ir_kernel {
  const char *name;
  int nbufs;
  ir_buf **bufs;      /* parameters in call order */
  int ndims;
  ir_var **dims;      /* scalar parameters, index; none when all is static */
  const ir_stmt *body; /* may be null: does nothing */
} ir_kernel;

/* Constructors. ir_seq drops nulls, flattens nested SEQs, returns the item itself for one. */
const ir_stmt *ir_for(tn_ctx *ctx, ir_var *v, ix lo, ix hi, ir_loop_kind kind, const ir_stmt *body);
const ir_stmt *ir_while(tn_ctx *ctx, ix cond, const ir_stmt *body);
const ir_stmt *ir_if(tn_ctx *ctx, ix cond, const ir_stmt *then, const ir_stmt *other); /* constant cond folds */
const ir_stmt *ir_let(tn_ctx *ctx, ir_var *v, ix value, const ir_stmt *body);
const ir_stmt *ir_alloc_stmt(tn_ctx *ctx, ir_buf *b, const ir_stmt *body);
const ir_stmt *ir_store(tn_ctx *ctx, ir_buf *b, const ix *index, ir_store_op op, ix value);
const ir_stmt *ir_seq(tn_ctx *ctx, int n, const ir_stmt *const *items);
const ir_stmt *ir_tile(tn_ctx *ctx, const char *atom, const ir_stmt *body);
/* A copy of s with the expressions mapped (null map: kept), then children rebuilt by
 * `rewrite` (null: recursion with the same functions). See ir/stmt.c. */
typedef struct ir_rewriter {
  tn_ctx *ctx;
  void *user;
  ix (*expr)(struct ir_rewriter *r, ix e);                         /* may be null */
  const ir_stmt *(*stmt)(struct ir_rewriter *r, const ir_stmt *s); /* may be null; called first: result replaces s; return s itself to descend */
} ir_rewriter;
const ir_stmt *ir_rewrite(ir_rewriter *r, const ir_stmt *s);
/* Replaces a variable in a statement; loops and lets inside keep their own variables. */
const ir_stmt *ir_subst_var(tn_ctx *ctx, const ir_stmt *s, ir_var *v, ix by);
/* Replaces a buffer of the same rank and dtype in loads and stores (not in its alloc). */
const ir_stmt *ir_subst_buf(tn_ctx *ctx, const ir_stmt *s, const ir_buf *old, ir_buf *by);
/* A copy in which every loop variable, let and local buffer is fresh, `suffix` appended to names. */
const ir_stmt *ir_stmt_fresh(tn_ctx *ctx, const ir_stmt *s, const char *suffix);
const ir_stmt *ir_find_loop(const ir_stmt *s, const char *name); /* null if there is none */

/* Checks the invariants (scopes, dtypes, ranks, unique names, register indices,
 * write access). Returns null, or what is wrong. ir/verify.c */
const char *ir_kernel_verify(tn_ctx *ctx, const ir_kernel *k);
/* Text. ir/text*.c */
const char *ix_print(tn_ctx *ctx, ix e);
const char *ir_kernel_print(tn_ctx *ctx, const ir_kernel *k);
ir_kernel *ir_kernel_parse(tn_ctx *ctx, const char *text, const char *file); /* throws TN_EINPUT with file:line:column */
/* A name-independent text (names by order of appearance): the key of caches. */
const char *ir_kernel_canonical(tn_ctx *ctx, const ir_kernel *k);
/* The loops and buffers of k by its own names and by those of the canonical text, in order of appearance. */
typedef struct ir_named {
  const char *own, *canonical;
  bool buffer;
} ir_named;
const ir_named *ir_kernel_names(tn_ctx *ctx, const ir_kernel *k, int *n);

/* Runs a kernel on host memory, slowly and obviously: the specification.
 * args[i]: memory of bufs[i] (physical layout); dims[j]: value of dims[j].
 * Reports out-of-bounds and reads of undefined locals by throwing TN_EINTERNAL. ir/interp.c */
void ir_interp(tn_ctx *ctx, const ir_kernel *k, void *const *args, const int64_t *dims);
/* Value of a closed scalar expression in the interpreter's arithmetic (index and
 * integers in .i, floats in .f). */
typedef union ir_scalar { int64_t i; double f; } ir_scalar;
ir_scalar ir_eval_op(tn_ctx *ctx, ir_opcode op, tn_dtype result, int nargs, const tn_dtype *types, const ir_scalar *args);

/* ---- statement builder: open and close blocks in order ---- */
typedef struct ir_builder ir_builder;
ir_builder *ir_builder_new(tn_ctx *ctx);
ix ib_for(ir_builder *b, const char *name, ix lo, ix hi);   /* opens; name gets a number when taken */
ix ib_loop(ir_builder *b, const char *name, ix extent);     /* ib_for from 0 */
void ib_while(ir_builder *b, ix cond);                      /* opens */
void ib_if(ir_builder *b, ix cond);                         /* opens */
void ib_else(ir_builder *b);                                /* closes then, opens else */
void ib_end(ir_builder *b);                                 /* closes the innermost for/while/if */
void ib_end_n(ir_builder *b, int n);
ix ib_let(ir_builder *b, const char *name, ix value);       /* scope: to the end of the open block */
ir_buf *ib_alloc(ir_builder *b, const char *name, tn_dtype t, int rank, const ix *shape, ir_space space);
ir_buf *ib_local(ir_builder *b, const char *name, tn_dtype t, ix init); /* rank-0 register, stored init (null: none) */
void ib_store(ir_builder *b, ir_buf *buf, const ix *index, ix value);
void ib_update(ir_builder *b, ir_buf *buf, const ix *index, ir_store_op op, ix value);
void ib_set(ir_builder *b, ir_buf *local, ix value);        /* rank 0 */
ix ib_get(ir_builder *b, ir_buf *local);                    /* load of rank 0; evaluated where used */
ix ib_load(ir_builder *b, ir_buf *buf, const ix *index);
void ib_stmt(ir_builder *b, const ir_stmt *s);              /* appends a ready statement */
const ir_stmt *ib_finish(ir_builder *b);                    /* all blocks must be closed */

/* =========================================================== programs ==== */

typedef enum ir_slot_kind {
  IR_SLOT_INPUT,   /* in[index] of P_run */
  IR_SLOT_OUTPUT,  /* out[index] */
  IR_SLOT_RAW,     /* raw[index] of P_pack: an original constant tensor */
  IR_SLOT_WEIGHTS, /* packed blob + offset */
  IR_SLOT_ARENA,   /* arena + offset */
  IR_SLOT_STATE    /* state + offset */
} ir_slot_kind;

typedef struct ir_slot { /* memory that kernels are called on */
  const char *name;
  ir_slot_kind kind;
  int index;          /* input, output, raw */
  int64_t offset;     /* weights, arena, state: bytes, multiple of 64 */
  tn_dtype dtype;
  int rank;
  int64_t dims[IR_MAX_RANK];
  const ir_layout *layout;
  int64_t bytes;      /* size in memory, layout padding included */
  const ix *sizes;    /* input, output: extents in a run, of the program's dims, dims[] being the most; null: dims[]. Of an output
                       * one may be what the run finds: ir_extent_slot */
  int64_t step;       /* input, output: bytes by which it lies further for each of the let "first" in scope: part of a batch */
  bool inout;         /* input: changed in place */
  const void *data;   /* raw: the original bytes (mapped or in the arena); state: what it starts with, null: zeros */
  const char *file;   /* raw: null, or the external file it came from, for messages */
} ir_slot;

typedef enum ir_inst_kind { IR_CALL, IR_COPY_SLOT, IR_INST_LET, IR_INST_IF, IR_INST_WHILE, IR_INST_FOR } ir_inst_kind;
typedef struct ir_inst {
  ir_inst_kind kind;
  int kernel;          /* call: index in program->kernels */
  int nargs;
  int *args;           /* call: slot per kernel parameter; copy: {dst, src} */
  const char *name;    /* call: for profiles and explain: the nodes it covers */
  const char *device;  /* null: the CPU */
  ix value;            /* let: value; if, while: condition; for: how often */
  ir_var *var;         /* let; for: from 0 up */
  struct ir_inst *body, *other;
  int nbody, nother;
} ir_inst;

typedef struct ir_program_kernel {
  const ir_kernel *kernel;   /* unscheduled */
  const char *schedule;      /* text of steps, "" for none */
  const ir_kernel *lowered;  /* scheduled; equals kernel when there are no steps */
} ir_program_kernel;

typedef struct ir_program_dim { /* a size that is known when the program runs, in scope of its run section */
  ir_var *var;          /* its range is what may be given */
  int nsizes;           /* 0: all of the range; else these alone, ascending */
  const int64_t *sizes;
} ir_program_dim;

typedef struct ir_program {
  const char *name;
  int ndims; ir_program_dim *dims; /* as P_run takes their values */
  int nslots; ir_slot *slots;
  int ninputs, noutputs, nraw;  /* slots of those kinds are numbered 0.. within their kind */
  int nkernels; ir_program_kernel *kernels;
  int npack; ir_inst *pack;     /* raw -> weights (may use the arena) */
  int nrun; ir_inst *run;
  int ninit; ir_inst *init;     /* weights -> state, before the first run: for objects, which start by themselves */
  int64_t weights_bytes, arena_bytes, state_bytes; /* without the scratch of workers */
  int64_t pack_arena_bytes;
  int64_t live_peak_bytes;      /* of run: the lower bound of the arena */
} ir_program;
const char *ir_program_print(tn_ctx *ctx, const ir_program *p);
ir_program *ir_program_parse(tn_ctx *ctx, const char *text, const char *file);
const char *ir_program_verify(tn_ctx *ctx, const ir_program *p);
/* An extent of an output that the run itself finds, 0 to `most`: what the only element (i64) of that slot is behind the last
 * instruction, clamped. */
ix ir_extent_new(tn_ctx *ctx, const char *slot, int64_t most);
/* The number of that slot; -1: the extent is a number or depends on dims alone. */
int ir_extent_slot(const ir_program *p, ix size);

/* ============================================================= graphs ==== */

typedef struct ir_graph ir_graph;
typedef struct ir_node ir_node;
typedef struct ir_value ir_value;

typedef enum ir_value_kind {
  IR_VALUE_NODE,   /* output of a node */
  IR_VALUE_INPUT,  /* graph input */
  IR_VALUE_CONST,  /* data known and frozen */
  IR_VALUE_PARAM,  /* trainable or replaceable constant: packed again after an update */
  IR_VALUE_STATE   /* kept from run to run: an update of the graph gives it its next contents */
} ir_value_kind;

struct ir_value {
  const char *name;
  ir_value_kind kind;
  uint32_t id;
  tn_dtype dtype;         /* TN_NONE before inference */
  int rank;               /* -1 before inference */
  ix dims[IR_MAX_RANK];   /* index expressions; constants once specialised */
  const ir_layout *layout; /* of the memory; null row-major */
  const void *data;       /* const, param: dense row-major host bytes; also known small node outputs */
  int64_t data_bytes;
  const void *raw;        /* param: its bytes while they may still be replaced, `data` being null then: weights are packed
                              from here, and no pass may look inside */
  const void *start;      /* state: what it holds before the first run; null: zeros */
  bool packed;            /* known before run: a constant, or computed from constants alone (lw_mark_packed) */
  ir_node *def;           /* node outputs */
  int def_index;
  int nuses;              /* by live nodes and graph outputs; kept by ir_graph_analyse */
  ir_node **uses;
};

typedef enum ir_attr_kind {
  IR_ATTR_INT, IR_ATTR_FLOAT, IR_ATTR_STRING, IR_ATTR_INTS, IR_ATTR_FLOATS, IR_ATTR_STRINGS,
  IR_ATTR_TENSOR, IR_ATTR_GRAPH
} ir_attr_kind;
typedef struct ir_attr {
  const char *name;
  ir_attr_kind kind;
  int64_t i;
  double f;
  const char *s;
  int n;                  /* ints, floats, strings */
  const int64_t *ints;
  const double *floats;
  const char *const *strings;
  ir_value *tensor;       /* kind const */
  ir_graph *graph;
} ir_attr;

typedef struct ir_op ir_op;
struct ir_node {
  const ir_op *op;
  const char *name;
  const char *where;      /* "file: node 'name' (Op)" or the C call's place; for messages */
  int opset;              /* version of the operator set the node was written in */
  int nin, nout;
  ir_value **in;          /* null: an omitted optional input */
  ir_value **out;         /* null: an omitted optional output */
  int nattrs;
  ir_attr *attrs;
  ir_graph *graph;        /* that it belongs to */
  uint32_t id;
  int group;              /* kernel group given by fusion, else -1 */
  bool opaque;            /* never folded, though its operands may be known: a gradient is taken by its outputs */
  bool dead;
};

typedef struct ir_graph_extent {
  int output, axis; /* of that result: its first so many elements along the axis are there */
} ir_graph_extent;

struct ir_graph {
  tn_ctx *ctx;
  const char *name;
  const char *file;
  ir_graph *outer;        /* of a subgraph attribute */
  int nnodes; ir_node **nodes;       /* topological order once ir_graph_sort has run */
  int ninputs; ir_value **inputs;
  int noutputs; ir_value **outputs;  /* the last nupdates of them are what updates store */
  int nupdates; ir_value **updates;  /* states, or inputs that runs change in place: updates[i] becomes
                                        outputs[noutputs - nupdates + i] once all is computed from its old contents */
  int nextents; ir_graph_extent *extents; /* extents that a run finds: extents[i] is what outputs[ir_graph_results - nextents + i], a
                                        single i64, says behind the run; such outputs are none of the caller's */
  int nvalues; ir_value **values;    /* all, by creation */
  int nparams; ir_value **params;    /* parameters and constants with names */
};

ir_graph *ir_graph_new(tn_ctx *ctx, const char *name);
ir_value *ir_graph_input(ir_graph *g, const char *name, tn_dtype t, int rank, const ix *dims);
/* Bytes that packing starts from, known or replaceable; null: computed, or given at run time. */
static inline const void *ir_value_source(const ir_value *v) { return v->data ? v->data : v->raw; }
/* A copy of the graph and of the graphs in its attributes, in `ctx` (the graph's own or any other).
 * Bytes and rows of the op table are shared: they must outlive the copy. `map`, if not null, becomes
 * an array of the copies by the id of the original value. ir/clone.c */
ir_graph *ir_graph_clone(tn_ctx *ctx, const ir_graph *g, ir_value ***map);
ir_value *ir_graph_const(ir_graph *g, const char *name, tn_dtype t, int rank, const int64_t *dims, const void *data, bool copy);
ir_value *ir_graph_ints(ir_graph *g, const char *name, int n, const int64_t *v); /* 1-D i64 constant */
ir_value *ir_graph_scalar(ir_graph *g, const char *name, tn_dtype t, double v);   /* rank 0 constant */
void ir_graph_output(ir_graph *g, ir_value *v);
/* After a run `target` (state or input, of v's type) holds v. Outputs may still be added. */
void ir_graph_update(ir_graph *g, ir_value *target, ir_value *v);
ir_value *ir_graph_state(ir_graph *g, const char *name, tn_dtype t, int rank, const int64_t *dims, const void *start); /* start is not copied */
/* `v` tells an extent of result `output`: see ir_graph.extents. All outputs must be there. */
void ir_graph_extent_of(ir_graph *g, int output, int axis, ir_value *v);
/* Outputs without the updates; without extents too, they are those that a run gives its caller. */
static inline int ir_graph_results(const ir_graph *g) { return g->noutputs - g->nupdates; }
/* A node with fresh outputs (nout of them); op by name, throws when unknown. Not yet inferred. */
ir_node *ir_node_new(ir_graph *g, const char *op, const char *name, int nin, ir_value *const *in, int nout);
void ir_attr_int(ir_node *n, const char *name, int64_t v);
void ir_attr_float(ir_node *n, const char *name, double v);
void ir_attr_string(ir_node *n, const char *name, const char *v);
void ir_attr_ints(ir_node *n, const char *name, int count, const int64_t *v);
void ir_attr_floats(ir_node *n, const char *name, int count, const double *v);
const ir_attr *ir_attr_find(const ir_node *n, const char *name);
int64_t ir_attr_get_int(const ir_node *n, const char *name, int64_t otherwise);
double ir_attr_get_float(const ir_node *n, const char *name, double otherwise);
const char *ir_attr_get_string(const ir_node *n, const char *name, const char *otherwise);
int ir_attr_get_ints(const ir_node *n, const char *name, const int64_t **out); /* count; -1 when absent */
/* Infers dtypes and shapes of the node's outputs by its op's rule (throws with node->where). */
void ir_infer(tn_ctx *ctx, ir_node *n);
void ir_graph_replace(ir_graph *g, ir_value *old, ir_value *by); /* in all uses and outputs */
void ir_graph_sort(ir_graph *g);     /* drops dead nodes, topological order; throws on a cycle, naming it */
void ir_graph_analyse(ir_graph *g);  /* fills nuses/uses */
const char *ir_graph_verify(tn_ctx *ctx, const ir_graph *g);
const char *ir_graph_print(tn_ctx *ctx, const ir_graph *g);
ir_graph *ir_graph_parse(tn_ctx *ctx, const char *text, const char *file);

/* Whether the extents that are numbers, and the bytes they make, stay within IR_MAX_BYTES: inputs,
 * constants and results do, so that sums and small products of sizes need no checks of their own. */
#define IR_MAX_BYTES ((int64_t)1 << 46)
bool ir_size_fits(const ir_value *v);

/* Small helpers for rules. Static extents throw "dimension ... is not known" otherwise. */
int64_t ir_dim(tn_ctx *ctx, const ir_value *v, int axis);   /* axis may be negative */
bool ir_static(const ir_value *v);                          /* all extents constant */
int64_t ir_value_elements(tn_ctx *ctx, const ir_value *v);  /* static; overflow-checked */
int64_t ir_value_bytes(tn_ctx *ctx, const ir_value *v);     /* memory with layout padding */
int ir_axis(tn_ctx *ctx, const ir_node *n, int64_t axis, int rank); /* normalises a negative axis, throws */
/* Known integer contents of a 0-D/1-D i64 or i32 value; returns the count or -1 when not known. */
int ir_known_ints(tn_ctx *ctx, const ir_value *v, int64_t *out, int max);
bool ir_known_float(const ir_value *v, double *out);        /* single element, any dtype */

/* ---- the op table's row; rows live in lower/ops_*.c ---- */
typedef enum ir_op_kind {
  IR_OP_ELEMENTWISE, IR_OP_REDUCTION, IR_OP_CONTRACTION, IR_OP_WINDOW, IR_OP_MOVEMENT,
  IR_OP_KERNEL,    /* loops of its own: TopK, recurrences, scatter */
  IR_OP_COMPOSITE, /* always replaced by other nodes (expand) */
  IR_OP_CONTROL,
  IR_OP_GRADIENT   /* composite; what it differentiates by is never folded into what depends on it */
} ir_op_kind;

typedef struct lw_build lw_build; /* lower/build.h */
typedef struct lw_grad lw_grad;   /* lower/grad.h */
struct ir_op {
  const char *name;       /* ONNX op_type where there is one */
  const char *domain;     /* "" ONNX, "com.microsoft", "tenon" */
  ir_op_kind kind;
  int since;              /* first opset that has it */
  int min_in, max_in;     /* max -1: any number */
  int min_out, max_out;
  /* Space-separated attribute names with kinds "axis:i keepdims:i pads:I alpha:f mode:s"; others are an error. */
  const char *attrs;
  void (*infer)(tn_ctx *ctx, ir_node *n);
  /* One of these says what the op means: */
  ix (*value)(lw_build *b, ir_node *n, int out, const ix *index); /* element of an output: can be inlined anywhere */
  void (*build)(lw_build *b, ir_node *n);                          /* statements that store all outputs */
  void (*expand)(ir_graph *g, ir_node *n);                         /* other nodes; may look at known inputs */
  /* How gradients pass from outputs to operands, see lower/grad.h: statements, or a function where fixed text
   * cannot say it. With neither they pass through the parts of `expand`; without that too: not differentiable. */
  const char *grad;
  void (*grad_build)(lw_grad *d);
};
/* Whether n is the ONNX op `name` (default domain). */
bool ir_node_is(const ir_node *n, const char *name);
const ir_op *ir_op_find(const char *domain, const char *name); /* null when unknown; lower/op_table.c */
const ir_op *ir_op_at(int i); /* row i of the whole table; null behind the last */
#endif
