/* extent.h — tensors of which a run finds out how long they are.
 *
 *   tenon:Sized    in: v, length (one i64)      out: v, of which the first `length` elements along `axis` are there
 *   tenon:Collect  in: all, at, slice           out: all, with slice in place number `at` of `axis`
 *   tenon:Compact  in: v, length                out: v's first `length` elements along `axis`, dense, in front; what follows is anything
 *
 * All memory is that of the most there can be, so that shapes stay numbers. Inference moves Sized behind the nodes that read it, whose
 * results are as long or longer in a way that is told by their op, until it is the last node before an output; others are
 * refused, by name. Then the output has an extent (ir_graph.extents). */
#ifndef LW_EXTENT_H
#define LW_EXTENT_H
#include "lower/lower.h"

/* v with a length that a run finds. length: one i64 of any rank, of the graph g, which may get its nodes later. */
ir_value *lw_sized(ir_graph *g, ir_node *n, ir_value *v, ir_value *length, int64_t axis);
bool lw_is_sized(const ir_value *v);
/* Whether n reads one, or is as long as a number says that a run finds and of which the most is known, and can only be inferred by
 * lw_move_sized: n is settled then, and what read its outputs reads them Sized.
 * Throws TN_EUNSUPPORTED for an op whose result's length this does not know. */
bool lw_reads_sized(const ir_node *n);
void lw_move_sized(tn_ctx *ctx, ir_graph *g, ir_node *n);
/* Throws TN_EUNSUPPORTED where an output of a graph inside node n is Sized. */
void lw_refuse_sized(tn_ctx *ctx, const ir_node *n, const ir_graph *body);
/* The most that an integer scalar can be, told by the nodes that compute it (Min, Clip, counts); INT64_MAX: not known. */
int64_t lw_most(const ir_value *v);
void lw_pass_extents(tn_ctx *ctx, ir_graph *g, const lw_options *options); /* outputs that are Sized get extents */
#endif
