/* compare.h — is a result what it should be? */
#ifndef FE_COMPARE_H
#define FE_COMPARE_H
#include "frontend/file.h"

/* Floats: |got - want| <= atol + rtol * |want|, and NaN equals NaN; an infinity only itself.
 * Integers and booleans: equal. */
typedef struct fe_tolerance {
  double rtol, atol;
} fe_tolerance;

typedef struct fe_difference {
  bool equal;
  int64_t count, wrong;  /* elements, those out of tolerance */
  int64_t first, worst;  /* flat index of the first wrong and of the furthest element; -1: none */
  double got, want;      /* at `first`, or at `worst` when all are within tolerance */
  double max_abs;        /* largest |got - want| (NaN against a number: infinite) */
  double max_ref;        /* largest finite |want| */
  double max_rel;        /* max_abs / max_ref; 0 when both are 0 */
  double max_ulp;        /* largest distance in steps of the dtype (integers: of 1) */
} fe_difference;

/* Both arrays have `count` elements of dtype t, aligned to the element. */
fe_difference fe_compare(tn_dtype t, int64_t count, const void *got, const void *want, const fe_tolerance *tol);
/* One line about it: "3 of 10 differ, first at [0,2]: 1.5, should be 1 (max |diff| ...)"; dims may be null. */
const char *fe_difference_text(tn_ctx *ctx, const fe_difference *d, int rank, const int64_t *dims);
#endif
