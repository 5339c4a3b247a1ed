/* build.h — how an op says what it means: expressions and loops over its operands.
 *
 * A row of the op table has one of
 *   value   the element of output `out` at a logical index, as an expression. It may be
 *           inlined into any consumer, so it must be pure and may be asked for any
 *           index inside the output's bounds, any number of times.
 *   build   statements (through lw_b(b), the statement builder of ir.h) that store every
 *           element of every output exactly once with lw_out().
 *   expand  other nodes in place of this one.
 *
 * Operands are read with lw_in(): the operand may be a buffer, a constant, or the inlined
 * value of its producer; the op cannot tell and must not care. Results are written with
 * lw_out(): elementwise consumers fused as an epilogue are applied there, so a REDUCTION,
 * CONTRACTION or WINDOW op calls lw_out once per element and never reads its output back.
 * An op of kind IR_OP_KERNEL is never given an epilogue and may use lw_out_buf().
 *
 * Conventions that schedules rely on:
 *  - loops over output axes come first, in logical order, each from 0, step 1, extent
 *    the axis extent; reduction loops are inside;
 *  - an accumulator is a rank-0 register local (ib_local) updated with ib_update, in f32
 *    for f16/bf16 operands, in i32/i64 as ONNX says for integers;
 *  - padding is `ib_if(within bounds)` around the update, never an out-of-bounds load;
 *  - data-dependent indices are clamped into bounds (objects must never fault);
 *  - index arithmetic has dtype index; an i64 element becomes one by ix_cast(TN_INDEX).
 */
#ifndef LW_BUILD_H
#define LW_BUILD_H
#include "ir/ir.h"

/* The open context of one kernel under construction. */
tn_ctx *lw_ctx(lw_build *b);
ir_builder *lw_b(lw_build *b);

/* For a node alone, to look at what its `value` reads; and the value that a buffer of such an expression stands for. */
lw_build *lw_build_new(tn_ctx *ctx, bool (*stored)(void *user, const ir_value *v));
ir_value *lw_build_operand(const lw_build *b, const ir_buf *buf);

/* Operand k of n at a logical index (n->in[k]->rank expressions of dtype index).
 * ir_bug when the operand is omitted: ask lw_has first. */
ix lw_in(lw_build *b, ir_node *n, int k, const ix *index);
/* The same where v, of operand k's shape and what it is computed from in this group, has `value` at that index. */
ix lw_in_given(lw_build *b, ir_node *n, int k, const ix *index, const ir_value *v, ix value);
/* The same with multidirectional broadcasting: `index` has out_rank entries, aligned right;
 * axes of extent 1 read at 0. */
ix lw_in_bcast(lw_build *b, ir_node *n, int k, int out_rank, const ix *index);
static inline bool lw_has(const ir_node *n, int k) { return k < n->nin && n->in[k] != NULL; }
/* Whether output k is wanted (present and used, or a graph output). */
bool lw_wants(lw_build *b, const ir_node *n, int k);
/* Stores output k at a logical index; the epilogue, if any, is applied. */
void lw_out(lw_build *b, ir_node *n, int k, const ix *index, ix value);
/* IR_OP_KERNEL only: the buffer of output k, to be read and written freely. */
ir_buf *lw_out_buf(lw_build *b, ir_node *n, int k);
/* Opens one loop per axis of a value ("n0".. or the given one-letter names), fills idx. */
void lw_loops(lw_build *b, const char *names, int rank, const ix *dims, ix *idx);

/* Float dtype in which a value of dtype t is computed: f32 for narrower floats, else t. */
tn_dtype lw_compute_type(tn_dtype t);

/* Shape-rule helpers. */
void lw_set(ir_node *n, int out, tn_dtype t, int rank, const ix *dims);      /* no-op for an omitted output */
void lw_set_like(ir_node *n, int out, tn_dtype t, const ir_value *shape_of);
/* Numpy broadcasting of `count` inputs starting at `first`; throws when they do not match. */
int lw_broadcast(tn_ctx *ctx, const ir_node *n, int first, int count, ix *dims);
/* Throws TN_EINPUT / TN_EUNSUPPORTED naming the node ("where: Op: ..."). */
void lw_bad(tn_ctx *ctx, const ir_node *n, const char *fmt, ...) IR_PRINTF(3, 4) IR_NORETURN;
void lw_unsupported(tn_ctx *ctx, const ir_node *n, const char *fmt, ...) IR_PRINTF(3, 4) IR_NORETURN;

/* Node making inside expand(): a node of op `op` placed before n, outputs inferred at once. */
ir_value *lw_node(ir_graph *g, ir_node *n, const char *op, int nin, ir_value *const *in);
ir_node *lw_node_n(ir_graph *g, ir_node *n, const char *op, int nin, ir_value *const *in, int nout); /* set attributes, then ir_infer */
/* Infers, expands and folds the nodes from number `first` on, as the infer pass does: for an
 * expand() that must know what its own nodes compute. lower/passes.c */
void lw_settle(tn_ctx *ctx, ir_graph *g, int first);
void lw_settle_node(tn_ctx *ctx, ir_graph *g, ir_node *n); /* this one, wherever it stands */
void lw_replace(ir_graph *g, ir_node *n, int out, ir_value *by); /* and marks n dead when all outputs are replaced */

/* Tables of rows, ended by a row with a null name; one per file, listed in op_table.c. */
extern const ir_op lw_ops_elementwise[], lw_ops_reduce[], lw_ops_softmax[], lw_ops_norm[],
    lw_ops_movement[], lw_ops_rearrange[], lw_ops_index[], lw_ops_scatter[], lw_ops_sort[], lw_ops_image[], lw_ops_resize[], lw_ops_generate[], lw_ops_signal[],
    lw_ops_matmul[], lw_ops_einsum[], lw_ops_conv[], lw_ops_pool[], lw_ops_recurrent[], lw_ops_quant[], lw_ops_attention[], lw_ops_attend[],
    lw_ops_train[], lw_ops_loss[], lw_ops_contrib[], lw_ops_contrib_attention[], lw_ops_sequence[], lw_ops_control[], lw_ops_region[], lw_ops_extent[], lw_ops_positions[], lw_ops_list[], lw_ops_ml[], lw_ops_layout[], lw_ops_unfold[], lw_ops_picked[], lw_ops_grad[];
#endif
