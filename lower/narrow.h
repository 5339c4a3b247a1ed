/* narrow.h — convolutions and products on narrower operands: bf16 or 8-bit floats with f32 sums, or bytes with i32 sums.
 *
 * For machines whose arrays multiply such operands alone. A graph pass between inference and
 * layout: run lw_pass_infer and lw_pass_canon before, lw_compile after. */
#ifndef LW_NARROW_H
#define LW_NARROW_H
#include "ir/ir.h"

typedef enum lw_precision { LW_PRECISION_F32, LW_PRECISION_BF16, LW_PRECISION_INT8 } lw_precision;
const char *lw_precision_name(lw_precision p);
lw_precision lw_precision_parse(tn_ctx *ctx, const char *s); /* "fp32", "bf16", "int8"; else throws TN_EUSAGE */

/* Operands of Conv, MatMul and Gemm of f32 are rounded to bf16; sums, biases and results stay f32. */
void lw_narrow_bf16(tn_ctx *ctx, ir_graph *g);
/* The f32 operands of Conv, MatMul and Gemm that are no constants: what lw_narrow_int8 needs ranges of. */
int lw_narrow_operands(tn_ctx *ctx, const ir_graph *g, ir_value ***out);
/* Symmetric quantisation: an activation q = round(x * 127 / range) by its largest magnitude `range(user, v)`, a
 * constant per output channel by its own; sums in i32, scaled back to f32. */
void lw_narrow_int8(tn_ctx *ctx, ir_graph *g, float (*range)(void *user, const ir_value *v), void *user);
/* Conv and MatMul of values that come from DequantizeLinear become integer products of what was quantised. */
void lw_narrow_quantised(tn_ctx *ctx, ir_graph *g);

/* Conv, MatMul and Gemm of values that were cast or dequantised from 8-bit floats of one dtype, E4M3FN or E5M2, take those
 * as they are, with sums in f32; scales (one for all, or one for each row or column that is not summed over) are
 * multiplied behind, where they end in the product's kernel. For machines with such products. */
void lw_narrow_byte_floats(tn_ctx *ctx, ir_graph *g);
/* MatMul and Gemm of one or two rows of f32 by a large constant that comes from floats of a byte read that as it is: such
 * a product takes the time of reading it. For CPUs; more rows read the constant widened ahead. */
void lw_keep_byte_weights(tn_ctx *ctx, ir_graph *g);

/* The DequantizeLinear of bytes that v comes from, without blocks; else null. */
ir_node *lw_dequantised(const ir_value *v);
/* All extents are 1. */
bool lw_single(const ir_value *v);
#endif
