/* elementwise.h — formulas over single elements, shared by the rows that need them. */
#ifndef LW_ELEMENTWISE_H
#define LW_ELEMENTWISE_H
#include "lower/ops_util.h"

/* The result of n's op (its attributes are read from n) on elements x[0..n->nin), which
 * have one dtype, a compute type; the result has that dtype, or bool. */
typedef ix lw_formula(tn_ctx *ctx, const ir_node *n, const ix *x);
lw_formula lw_f_reciprocal, lw_f_sign, lw_f_isnan, lw_f_isinf, lw_f_relu, lw_f_leaky_relu, lw_f_thresholded_relu,
    lw_f_elu, lw_f_selu, lw_f_celu, lw_f_gelu, lw_f_hard_sigmoid, lw_f_hard_swish, lw_f_swish, lw_f_mish,
    lw_f_softplus, lw_f_softsign, lw_f_shrink, lw_f_mod, lw_f_prelu, lw_f_bitshift, lw_f_greater,
    lw_f_greater_equal, lw_f_min, lw_f_max, lw_f_sum, lw_f_mean;

/* x to the power y; dtypes may differ. The result has x's dtype, or a wider float when
 * either is a float that needs it: cast it back. */
ix lw_f_pow(tn_ctx *ctx, ix x, ix y);
/* min and max that give NaN when either operand is NaN. */
ix lw_nan_min(tn_ctx *ctx, ix a, ix b);
ix lw_nan_max(tn_ctx *ctx, ix a, ix b);
#endif
