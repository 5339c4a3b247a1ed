/* layout_norm.h — instance and group normalisation of pictures in the layouts of convolutions. */
#ifndef LW_LAYOUT_NORM_H
#define LW_LAYOUT_NORM_H
#include "lower/build.h"

/* n = InstanceNormalization or GroupNormalization of a value that has a layout becomes sums per channel and elementwise
 * nodes, as does an InstanceNormalization of [n, groups, rest] between two reshapes, which is what exporters make of
 * GroupNormalization. Returns the value that stands for the result, of the picture's shape and not yet with a layout;
 * null: n is nothing of the kind. Uses are as analysed. */
ir_value *lw_norm_in_parts(tn_ctx *ctx, ir_graph *g, ir_node *n);
#endif
