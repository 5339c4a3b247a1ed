/* tpu_folds.h — matrix products on one array, fold by fold, as SCALE-Sim maps them
 * (Samajdar et al., ISPASS 2020): a network's layers as one program, a tag per layer.
 *
 *   dataflow            rows    columns   in time    kept in the array
 *   output stationary   M       N         K          the result
 *   weight stationary   K       N         M          B, K x N
 *   input stationary    K       M         N          A, M x K
 *
 * ceil(what lies along the rows / R) x ceil(what lies along the columns / C) folds, each a `weights` and a
 * `matmul`; loops of folds are `repeat`s, so the text of a layer is short however many they are.
 * The operand that streams and the result lie in the on-chip memories whole, as SCALE-Sim's
 * CALC mode supposes. Values are i8, sums i32: a byte is one of SCALE-Sim's words.
 */
#ifndef CG_TPU_FOLDS_H
#define CG_TPU_FOLDS_H
#include "codegen/tpu_isa.h"

typedef struct tpu_product { /* D[g] = A[g] * B[g] for each of the groups */
  const char *name;
  int64_t M, N, K, groups; /* each from 1 to INT32_MAX */
} tpu_product;

/* Inputs 2i and 2i + 1 are A [groups, M, K] and B [groups, K, N] of product i, output i is D [groups, M, N];
 * tag i + 1 is product i. Throws TN_ERESOURCE when an operand is more than 2^40 elements, or
 * all of them 2^60 bytes. */
tpu_program *tpu_folds(tn_ctx *ctx, const tpu_machine *m, int n, const tpu_product *products);
#endif
