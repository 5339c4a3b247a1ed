/* problem.h — the problem record of a kernel, read off its loops, never off op names. */
#ifndef LW_PROBLEM_H
#define LW_PROBLEM_H
#include "ir/ir.h"

typedef enum lw_problem_class {
  LW_POINTWISE,   /* a perfect nest around one store */
  LW_ACCUMULATE,  /* a perfect nest around { accumulators; reduction loops; store } */
  LW_CONTRACTION, /* of those: acc = fma(a, b, acc) of two loads */
  LW_OTHER
} lw_problem_class;

enum { LW_MAX_LOOPS = 16 };

typedef struct lw_problem {
  lw_problem_class kind;
  int nout;                              /* loops of the nest, outermost first */
  const ir_stmt *out[LW_MAX_LOOPS];
  int64_t extent[LW_MAX_LOOPS];          /* -1: not constant */
  int nred;                              /* reduction loops around the update, outermost first */
  const ir_stmt *red[LW_MAX_LOOPS];
  int64_t red_extent[LW_MAX_LOOPS];
  const ir_stmt *body;                   /* inside the nest */
  const ir_stmt *update;                 /* contraction: the fma store */
  ix a, b;                               /* contraction: the loads; b holds the vector axis where one does */
  const ir_stmt *store;                  /* pointwise: the store; else one store of an output, or null */
  bool attention;                        /* accumulate: scores, softmax and product, lower/attend.h */
  ix guard;                              /* conjunction of the ifs around the update, or null */
  tn_dtype dtype;                        /* of the accumulator, or of the store */
  double flops, bytes;                   /* of the whole kernel; bytes compulsory, each buffer once */
} lw_problem;

/* Never fails: what does not fit is LW_OTHER. */
lw_problem lw_problem_of(tn_ctx *ctx, const ir_kernel *k);
/* One line: "contraction f32 56x64x576 fma, 205.5 MFLOP". */
const char *lw_problem_print(tn_ctx *ctx, const lw_problem *p);
/* Coefficient of a loop variable in the element offset of a load (layout applied) when it is
 * affine in it, else INT64_MIN. */
int64_t lw_stride(tn_ctx *ctx, ix load, const ir_var *v);
#endif
