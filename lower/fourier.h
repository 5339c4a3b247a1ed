/* fourier.h — what a node tenon:Fourier computes; the pass that makes products of it is in fourier.c. */
#ifndef LW_FOURIER_H
#define LW_FOURIER_H
#include "ir/ir.h"

typedef struct lw_fourier {
  int axis;
  bool inverse, onesided, real_in, real_out;
  int64_t length, have, used, out; /* of the transform; input extent; read of it; output extent */
} lw_fourier;

/* Of a node whose shapes are known; throws with the reason where it is none. */
void lw_fourier_of(tn_ctx *ctx, const ir_node *n, lw_fourier *f);
#endif
