/* random_kernel.h — random legal kernels and contents for their buffers.
 *
 * The same seed and flags give the same kernel on every machine. Each is accepted by
 * ir_kernel_verify, never leaves a buffer, reads nothing undefined, ends, and gives the
 * same bits whatever the order of its parallel and vector iterations; a NaN may appear,
 * but its bits are never looked at. */
#ifndef TESTS_RANDOM_KERNEL_H
#define TESTS_RANDOM_KERNEL_H
#include "ir/ir.h"

enum {
  RANDOM_SERIAL = 1,     /* only serial loops */
  RANDOM_STATIC = 2,     /* no dims: constant extents */
  RANDOM_PLAIN = 4,      /* no layouts */
  RANDOM_NO_EXPAND = 8,  /* no ops with trait E */
  RANDOM_NO_WHILE = 16,
  RANDOM_NO_HALF = 32,   /* no floats narrower than f32 */
  RANDOM_F32 = 64,       /* f32 and i32 data only */
  RANDOM_NO_REM = 128,   /* no rem of floats */
  RANDOM_TILES = 256     /* some tile statements around loops, atom "any" */
};
ir_kernel *random_kernel(tn_ctx *ctx, uint64_t seed, unsigned flags);

/* Values of dims within their ranges, and memory for each parameter in the arena: floats
 * in [-4, 4) with a few specials, integers mostly small, padding of layouts included. */
typedef struct random_args {
  int64_t *dims;
  void **args;
  int64_t *bytes;
} random_args;
random_args random_args_new(tn_ctx *ctx, const ir_kernel *k, uint64_t seed);
/* The same contents in fresh memory. */
random_args random_args_copy(tn_ctx *ctx, const ir_kernel *k, const random_args *from);
/* Of parameter i: which elements of its memory are elements of the buffer; the others are padding, which is nobody's: a
 * vector may be stored whole at its end. */
bool *random_args_places(tn_ctx *ctx, const ir_kernel *k, const random_args *a, int i);
/* Null, or which parameter differs where outside of padding; NaNs are equal to each other. */
const char *random_args_differ(tn_ctx *ctx, const ir_kernel *k, const random_args *want, const random_args *got);
#endif
