/* winograd_transform.h — Winograd's transforms of one dimension as expressions, with lets where a part is used twice.
 *
 * Forward (winograd.h): Y = A' [(G g G') . (B' d B)] A. Of the gradient by g, which is linear in both others, the
 * adjoint: dg = G' [(B' d B) . (A dY A')] G. */
#ifndef LW_WINOGRAD_TRANSFORM_H
#define LW_WINOGRAD_TRANSFORM_H
#include "ir/ir.h"
#include "lower/winograd.h"

void lw_wino_input(tn_ctx *ctx, ir_builder *b, const lw_winograd *f, const ix *d, ix *out);                 /* B' d: a values each */
void lw_wino_output(tn_ctx *ctx, ir_builder *b, const lw_winograd *f, const ix *v, ix *out);                /* A' v: a to m */
void lw_wino_weights(tn_ctx *ctx, ir_builder *b, const lw_winograd *f, double scale, const ix *g, ix *out); /* scale G g: 3 to a */
void lw_wino_spread(tn_ctx *ctx, ir_builder *b, const lw_winograd *f, const ix *y, ix *out);                /* A y: m to a */
void lw_wino_gather(tn_ctx *ctx, ir_builder *b, const lw_winograd *f, const ix *v, ix *out);                /* G' v: a to 3 */
#endif
