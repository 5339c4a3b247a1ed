/* cuda_internal.h — shared by codegen/cuda_*.c.
 *
 *   cuda_ops.c    one scalar operation as C; the helper functions it needs
 *   cuda_expr.c   expressions → declarations of temporaries
 *   cuda_print.c  statements, loops bound to the grid, launches
 *   cuda_atoms.c  tile statements → inline PTX
 *   cuda_schedule.c, cuda_split.c, cuda_simt.c, cuda_rows.c, cuda_gemm.c, cuda_tma*.c, ...  kernel → tile program
 */
#ifndef CG_CUDA_INTERNAL_H
#define CG_CUDA_INTERNAL_H
#include "codegen/cuda.h"
#include "lower/problem.h"

/* Where in the hierarchy a statement stands: what runs it. */
typedef enum cu_level { CU_GRID, CU_BLOCK, CU_GROUP, CU_WARP, CU_THREAD } cu_level;

typedef struct cu_name { /* what is known of an expression, in the scope that made it */
  ix e;
  const char *text;
} cu_name;

typedef struct cu_memory { /* a buffer of the kernel */
  const ir_buf *buf;
  const char *name;
  bool per_thread;         /* an array of each thread whose first axis is the thread: declared per block */
  int64_t summed;          /* products of warpgroups are summed here, so many a thread; else 0 */
  bool packed;             /* a fragment: 32-bit words that only atoms touch */
  int64_t share;           /* elements of one block, where each block of a cluster has its own; else 0 */
  int64_t shared_at;       /* of what launches pass on: in the scratch */
} cu_memory;

typedef struct cu_fn {
  tn_ctx *ctx;
  const cu_target *t;
  const cu_tile *tile;
  ir_text out;
  int indent, temps;
  cu_level level;
  int cluster;             /* blocks of a cluster of this launch, 1 where it has none */
  ix rank;                 /* of the block in its cluster, within a loop over it */
  int lo, hi;              /* the threads of a block that run what is printed: a role's */
  int64_t registers;       /* of all roles together */
  cu_name *names;          /* a stack: scopes end by its height */
  int nnames;
  cu_memory *mems;
  int nmems;
  int64_t shared_bytes, scratch_bytes, passed_bytes;
} cu_fn;

/* cuda_ops.c */
const char *cu_c_type(tn_dtype t);                     /* of values */
const char *cu_storage_type(tn_dtype t);               /* in memory */
const char *cu_literal(tn_ctx *ctx, ix e);
bool cu_narrow(ix e);                                  /* an index that fits in 32 bits */
const char *cu_op(tn_ctx *ctx, ix e, const char *const *args); /* one operation on named operands */
const char *cu_from_storage(tn_ctx *ctx, tn_dtype t, const char *what);
const char *cu_to_storage(tn_ctx *ctx, tn_dtype t, const char *value);
const char *cu_helpers(tn_ctx *ctx, const char *body); /* definitions of the helper functions that the body names */
/* cuda_expr.c */
const char *cu_value(cu_fn *f, ix e);                  /* declares what is needed; the operand's text */
int cu_scope(const cu_fn *f);                          /* to be given back to cu_unscope */
void cu_unscope(cu_fn *f, int scope);
void cu_bind(cu_fn *f, ir_var *v, const char *text);
const char *cu_var_name(tn_ctx *ctx, const ir_var *v);
const cu_memory *cu_memory_of(cu_fn *f, const ir_buf *b);
/* "name[offset]", the thread's axis taken off where there is one. */
const char *cu_element(cu_fn *f, const ir_buf *b, const ix *index);
void cu_line(cu_fn *f, const char *fmt, ...) IR_PRINTF(2, 3);
void cu_open(cu_fn *f, const char *fmt, ...) IR_PRINTF(2, 3);   /* a line that ends in " {" */
void cu_brace(cu_fn *f);                                        /* a block of its own */
void cu_close(cu_fn *f);
/* cuda_print.c */
void cu_stmt(cu_fn *f, const ir_stmt *s);
/* cuda_atoms.c: prints the instruction; false: no such atom, its block is to be printed. */
bool cu_atom(cu_fn *f, const ir_stmt *tile);

/* Schedulers; null with *reason when the kernel is not of their class. `args`: the numbers of a choice, nargs 0: default. */
typedef enum cu_word { CU_STORE, CU_PERSIST, CU_PINGPONG, CU_CLUSTER, CU_STREAMK, CU_WORDS } cu_word; /* what may follow the numbers, of tma alone */
typedef struct cu_choice {
  int n;
  int64_t arg[8];
  struct {
    bool given;
    int64_t arg[2];
  } word[CU_WORDS];
} cu_choice;
const cu_tile *cu_schedule_threads(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *c, const char **reason);
const cu_tile *cu_schedule_attend(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *c, const char **reason);
const cu_tile *cu_schedule_attend_simt(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *c, const char **reason);
const cu_tile *cu_schedule_attend_tf32(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *c, const char **reason);
const cu_tile *cu_schedule_attend_group(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *c, const char **reason);
const cu_tile *cu_schedule_rows(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *c, const char **reason);
const cu_tile *cu_schedule_columns(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *c, const char **reason);
const cu_tile *cu_schedule_window(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *c, const char **reason);
const cu_tile *cu_schedule_transpose(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *c, const char **reason);
const cu_tile *cu_schedule_tile(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *c, const char **reason);
const cu_tile *cu_schedule_mma(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *c, const char **reason);
const cu_tile *cu_schedule_tf32(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *c, const char **reason);
const cu_tile *cu_schedule_tma(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *c, const char **reason);
const cu_tile *cu_schedule_wgmma(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *c, const char **reason);
const cu_tile *cu_schedule_serial(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *c, const char **reason);
/* The sum of a product in `parts` pieces, each by the schedule `choice`, then added up by a second launch. */
const cu_tile *cu_schedule_split(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, int64_t parts, const char *choice, const char **reason);
/* k with one parameter more and another body. */
const ir_kernel *cu_variant(tn_ctx *ctx, const ir_kernel *k, ir_buf *more, const ir_stmt *body);
/* A tile program with k's parameters. */
const cu_tile *cu_tile_new(tn_ctx *ctx, const ir_kernel *k, const ir_stmt *body, int threads, const char *choice);
#endif
