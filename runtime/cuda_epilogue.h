/* cuda_epilogue.h — what follows the sum of a product, as the steps that libraries fuse. */
#ifndef RT_CUDA_EPILOGUE_H
#define RT_CUDA_EPILOGUE_H
#include "lower/problem.h"

enum { RT_END_STEPS = 6 };
typedef enum rt_end_op { RT_END_SCALE, RT_END_DIVIDE, RT_END_ADD, RT_END_RELU, RT_END_GELU } rt_end_op;

/* In order. Casts between them are left out: roundings of f16 and bf16, without which results are no less accurate; so is what
 * keeps a result within its 8-bit float's range, as any conversion to such does. */
typedef struct rt_end {
  int n;
  struct {
    rt_end_op op;
    ix other;      /* add: the load; scale: the load that is the factor, or null: */
    double number; /* scale: the factor; divide: by what; relu: the upper clip, infinity for none */
    bool exact;    /* GELU: by tanh to the last bits; else only as close as the roundings of the kernel's dtype are */
  } steps[RT_END_STEPS];
} rt_end;

/* False: it is something else. `p`: a contraction with one store. */
bool rt_end_of(tn_ctx *ctx, const lw_problem *p, rt_end *e);
/* Number of a buffer among the kernel's parameters. */
int rt_param_of(const ir_kernel *k, const ir_buf *b);
#endif
