/* interp.h — scalar arithmetic and the interpreter, beyond what ir.h declares. */
#ifndef IR_INTERP_H
#define IR_INTERP_H
#include "ir/ir.h"

/* ---- scalars (ir/eval.c) ----
 * Integers, bool and index are kept sign- or zero-extended to 64 bits in .i,
 * floats of every width as an exactly converted double in .f. */

/* v wrapped to the width of an integer dtype, then extended again; bool: v != 0. */
int64_t ir_wrap_int(tn_dtype t, int64_t v);
/* v rounded once, to nearest even, to a float dtype. */
double ir_round_float(tn_dtype t, double v);
/* One element of memory; dtype index is stored as 64 bits, bool as one byte. */
ir_scalar ir_scalar_load(tn_dtype t, const void *p);
void ir_scalar_store(tn_dtype t, void *p, ir_scalar v);
/* Value of an expression without variables and loads. */
ir_scalar ir_eval_closed(tn_ctx *ctx, ix e);

/* ---- expansion (ir/expand.c) ---- */
/* The expansion of op(args), an op with trait E; args all of one float dtype. */
ix ix_expand_op(tn_ctx *ctx, ir_opcode op, const ix *args);

/* ---- running (ir/interp.c) ---- */
/* What a run does, as it does it: for checkers of programs in which many threads meet. Each may be null, and may
 * throw, with ir_fail in the context given, what it does not like. */
typedef struct ir_observer {
  void *user;
  /* An iteration of a loop of kind grid, cluster, warpgroup, warp or lane begins (enter) with the variable at
   * `value`, or is over. */
  void (*loop)(void *user, tn_ctx *ctx, const ir_stmt *s, int64_t value, bool enter);
  /* A tile statement begins or is over. */
  void (*tile)(void *user, tn_ctx *ctx, const ir_stmt *s, bool enter);
  /* An element is loaded or about to be stored; offset: in elements of memory; v: what was read or will be written. */
  void (*access)(void *user, tn_ctx *ctx, const ir_buf *b, int64_t offset, bool store, ir_scalar v);
  /* A buffer's scope opens, with at most so many elements of memory. */
  void (*scope)(void *user, tn_ctx *ctx, const ir_buf *b, int64_t elements);
} ir_observer;

typedef struct ir_interp_options {
  const ir_observer *observer; /* may be null */
  uint64_t seed;      /* not 0: iterations of parallel, vector and grid loops run in an order drawn from it */
  int64_t max_steps;  /* statements run before it gives up with TN_ERESOURCE; 0: 2^40 */
} ir_interp_options;
/* As ir_interp; null options are the defaults. `out` parameters must be stored
 * before they are loaded; to accumulate into given contents use `inout`. */
void ir_interp_opt(tn_ctx *ctx, const ir_kernel *k, void *const *args, const int64_t *dims,
                   const ir_interp_options *options);
#endif
