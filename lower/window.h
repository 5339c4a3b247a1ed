/* window.h — sliding windows: what convolutions and pools have in common. */
#ifndef LW_WINDOW_H
#define LW_WINDOW_H
#include "lower/ops_util.h"

enum { LW_MAX_SPATIAL = IR_MAX_RANK - 5 }; /* a value has at most IR_MAX_RANK - 3 axes, two of them N and C */

/* Geometry of a window over the spatial axes; axis i of it is axis i + 2 of the input.
 * Input coordinate of output coordinate o and tap t: o * stride + t * dilation - begin. */
typedef struct lw_window {
  int rank;
  int64_t stride[LW_MAX_SPATIAL], dilation[LW_MAX_SPATIAL];
  ix in[LW_MAX_SPATIAL], out[LW_MAX_SPATIAL], taps[LW_MAX_SPATIAL];
  ix begin[LW_MAX_SPATIAL], end[LW_MAX_SPATIAL]; /* padding; at run time below zero: cropping */
} lw_window;

/* Loop names of the spatial output axes and of the taps: "x" / "yx" / "zyx", "s" / "rs" / "qrs". */
const char *lw_axis_names(int rank);
const char *lw_tap_names(int rank);

/* Reads strides, dilations, pads, auto_pad and ceil_mode; `taps`: extents of the kernel.
 * The input is input 0 of the node. Checks everything; fills all of w. */
void lw_window_of(tn_ctx *ctx, const ir_node *n, const ix *taps, lw_window *w);
/* The extents of kernel_shape; throws when the attribute is missing or of another length. */
void lw_kernel_shape(tn_ctx *ctx, const ir_node *n, int rank, ix *taps);
/* The spatial list attribute `name` (rank entries, each at least `least`); `otherwise` when absent. */
void lw_spatial_attr(tn_ctx *ctx, const ir_node *n, const char *name, int rank, int64_t least, int64_t otherwise, int64_t *out);

/* Input coordinates of output coordinates `o` and taps `t`. */
void lw_window_at(tn_ctx *ctx, const lw_window *w, const ix *o, const ix *t, ix *at);
/* Whether all of them are inside the input: constant true where padding cannot be touched. */
ix lw_window_inside(tn_ctx *ctx, const lw_window *w, const ix *at);

/* Puts a convolution and a movement in place of a transposed one of fewer than `lanes` output channels and a stride, where
 * sizes are known, nothing is dilated and there is one group. `strict`: and where that needs no taps of zeros, which times
 * infinity are NaN. */
void lw_subpixel(tn_ctx *ctx, ir_graph *g, ir_node *n, int lanes, bool strict);

/* acc = acc + a * b, as one fma in floats; operands are cast to the accumulator's dtype. */
void lw_accumulate(lw_build *b, ir_buf *acc, ix a, ix w);
/* A register accumulator of the dtype in which values of dtype t are summed, set to zero. */
ir_buf *lw_accumulator(lw_build *b, tn_dtype t);
#endif
