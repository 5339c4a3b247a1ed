/* rowop.h — ops that pass several times over the same rows: softmax, normalisations.
 *
 * A row is all elements that share their index on the axes that are not `in_row`.
 *
 *   lw_rows_open            for the axes outside the row
 *     lw_rows_pass            for the axes of the row ("r", "r1", ..)
 *       x = lw_rows_x           the operand's element, in the compute type
 *     lw_rows_pass_end
 *     ...                     more passes, lw_out in the last
 *   lw_rows_close
 *
 * An operand that is expensive to compute (producers are inlined) is kept in a local row
 * by the first pass that asks for it, when the row is small enough. */
#ifndef LW_ROWOP_H
#define LW_ROWOP_H
#include "lower/ops_util.h"

enum { LW_ROW_ELEMENTS = 1 << 16 }; /* longest row kept in a local buffer: 256 KiB of f32, within L2 */

typedef struct lw_rows {
  lw_build *b;
  ir_node *n;
  int rank;
  tn_dtype type;            /* compute type */
  const ix *dims;           /* extents: of input 0, or other ones of the op */
  bool in_row[IR_MAX_RANK];
  ix index[IR_MAX_RANK];    /* the current element; 0 on the axes of the row outside of a pass */
  ir_buf *kept;             /* the row's elements, or null */
  bool filled;              /* kept holds the operand: set after the first pass */
  ix (*load)(struct lw_rows *r); /* the operand's element at `index`; null: input 0 there */
} lw_rows;

/* `keep_always`: the op wants the row buffer for values of its own. */
void lw_rows_open(lw_rows *r, bool keep_always);
void lw_rows_close(lw_rows *r);
void lw_rows_pass(lw_rows *r);
void lw_rows_pass_end(lw_rows *r);
ix lw_rows_x(lw_rows *r);
/* Replaces the current element of the row buffer, for later passes; false when there is none. */
bool lw_rows_put(lw_rows *r, ix v);
/* Number of elements of a row, as an index expression. */
ix lw_rows_count(lw_rows *r);
/* In a pass of their own: the sum of the row over its count; the mean of (x - mean)^2
 * (mean null: of x^2). Both as lets. */
ix lw_rows_mean(lw_rows *r);
ix lw_rows_variance(lw_rows *r, ix mean);
#endif
