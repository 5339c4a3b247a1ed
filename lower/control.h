/* control.h — graphs inside nodes, put in place of the nodes. */
#ifndef LW_CONTROL_H
#define LW_CONTROL_H
#include "lower/compose.h"

/* Copies the nodes of `body` into g, its inputs being args[0..nargs), and gives its outputs:
 * not yet inferred. `label` tells copies apart in names. Throws when the copies grow
 * beyond what compiling should take. */
void lw_inline(ir_graph *g, ir_node *n, ir_graph *body, const char *label, int nargs, ir_value *const *args, ir_value **outs);
/* The same into another graph than the body's: by[i] stands for outer[i], what the body reads from around it. */
void lw_inline_apart(ir_graph *g, ir_node *n, ir_graph *body, const char *label, int nargs, ir_value *const *args, int nouter, ir_value *const *outer, ir_value *const *by, ir_value **outs);
/* The graph attribute `name`; throws when it is missing. */
ir_graph *lw_body(tn_ctx *ctx, const ir_node *n, const char *name);
/* A node that is inferred later: for operands whose type is not known yet. */
ir_value *lw_later(ir_graph *g, ir_node *n, const char *op, int nin, ir_value *const *in);
ir_value *lw_later_int(ir_graph *g, ir_node *n, const char *op, int nin, ir_value *const *in, const char *attr, int64_t v);
/* A single element that is known, of any type: floats without their fraction, the nearest that there is, NaN as 0. */
bool lw_known_int(const ir_value *v, int64_t *out);
#endif
