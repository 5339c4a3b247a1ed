/* grad.h — gradients: graph to graph, by the op table.
 *
 *   y = f(x)            lw_gradients adds the nodes of dx = (dy/dx)^T seed
 *
 * Reverse mode: nodes between the xs and y are passed from y back; each asks its row of the
 * op table for what its operands get from what its outputs got (Griewank and Walther,
 * "Evaluating Derivatives", 2nd ed. 2008, ch. 3). A row says it in one of three ways:
 *   grad        text, for what is the same for every node of the op (below)
 *   grad_build  a function over lw_grad, where shapes or attributes decide
 *   expand      neither: the node's parts are differentiated instead. So a row with a kernel
 *               of its own may add an `expand` for that purpose alone.
 * What rules emit are nodes again, so gradients of gradients need nothing more.
 *
 * Text: statements separated by ';'. "da = .." gives what operand 0 gets, "db" operand 1, ..;
 * any other name is a shorthand for the statements after it. Operands are a, b, c, ..;
 * y and dy are the first output and what it got. Numbers have dy's type; $alpha=0.01 is a
 * float attribute with its default. Operators + - * / and < > <= >= == bind as in C; calls are
 * nodes without attributes: "da = Where(a > 0, dy, dy * $alpha=0.01)". What has been broadcast is
 * summed back. "" says that the gradient is zero wherever there is one (Floor, Sign).
 *
 * tenon:Checkpoint(x) is x. Where such marks lie between the xs and y, the way back reads nothing else that
 * depends on the xs: what lies between the marks is computed again from them (Chen et al., "Training
 * deep nets with sublinear memory cost", 2016).
 *
 * With a budget of memory the marks are chosen: lw_grad_kept.
 *
 * Gradients flow through floats alone: an integer or bool result ends them without an error. */
#ifndef LW_GRAD_H
#define LW_GRAD_H
#include "lower/compose.h"

/* Adds nodes that compute the gradient of sum(y * seed) with respect to each of the n values
 * `wrt` (floats), and puts them into out: each of the dtype and shape of its wrt, zeros where
 * y does not depend on it. `seed`: shape of y; null when y has one element: 1. Shapes must be
 * numbers, and types known. `memory`: bytes that
 * results between the xs and y may take, as far as possible; 0: any. Throws TN_EUNSUPPORTED naming a node whose op has no rule,
 * TN_EUSAGE for integers and a missing seed. `n0`: the node that asks, for names and messages. */
void lw_gradients(tn_ctx *ctx, ir_graph *g, ir_node *n0, ir_value *y, ir_value *seed, int n, ir_value *const *wrt, int64_t memory, ir_value **out);
/* Which results of n nodes (operands first) the way back keeps, so that they and what is computed again from
 * them at once fit into `memory` bytes: their number, -1: all. Where nothing fits, the least. grad_memory.c */
int lw_grad_kept(tn_ctx *ctx, int n, ir_node *const *order, int64_t memory, ir_value ***kept);
/* The same throws, without making a node. */
void lw_gradients_check(tn_ctx *ctx, const ir_node *n0, const ir_value *y, const ir_value *seed, int n, ir_value *const *wrt);

/* ---- for rules ---- */

/* A node whose outputs got gradients; its rule calls lw_grad_add for what its operands get. */
struct lw_grad {
  tn_ctx *ctx;
  ir_graph *g;
  ir_node *n;
  ir_value **dy; /* by output: null where none arrived */
  bool *wanted;  /* by operand */
  ir_value **dx; /* by operand: the sum so far; null: nothing yet */
};
/* Adds v to what operand k gets, if that is wanted (v null: nothing). v's shape may be that of
 * any broadcast of the operand, or broadcast to it; another float type is cast. */
void lw_grad_add(lw_grad *d, int k, ir_value *v);
/* The rule in `text` for this node: for functions that choose between texts. */
void lw_grad_text(lw_grad *d, const char *text);
/* v summed over the axes along which `like` was broadcast, or broadcast itself, to like's shape. */
ir_value *lw_grad_unbroadcast(ir_graph *g, ir_node *n, ir_value *v, const ir_value *like);
/* Output k of the node, also where the graph had left it out. */
ir_value *lw_grad_output(lw_grad *d, int k);
/* A tensor of one number, of the dtype of `like` and the given shape / the shape of `like`. */
ir_value *lw_grad_full(lw_grad *d, const ir_value *like, int rank, const int64_t *dims, double number);
ir_value *lw_grad_zeros(lw_grad *d, const ir_value *like);
/* Extents as numbers. */
void lw_grad_dims(tn_ctx *ctx, const ir_value *v, int64_t *dims);
/* The sum over `count` axes, which stay with extent 1 if `keep`. */
ir_value *lw_grad_sum(ir_graph *g, ir_node *n, ir_value *v, int count, const int64_t *axes, bool keep);

/* First element and step per axis of a Slice node (ops_movement.c). */
void lw_slice_numbers(tn_ctx *ctx, const ir_node *n, int64_t *start, int64_t *step);

/* Elements added before and after each axis by a Pad node; how often a Tile node repeats each. */
void lw_pad_amounts(tn_ctx *ctx, const ir_node *n, int64_t *before, int64_t *after);
void lw_tile_repeats(tn_ctx *ctx, const ir_node *n, int64_t *repeats);
/* Which axes a Reduce* node reduces (ops_reduce.c). */
void lw_reduced_axes(tn_ctx *ctx, const ir_node *n, bool *reduced);

typedef void lw_grad_rule(lw_grad *d);
/* grad_math.c */
lw_grad_rule lw_grad_checkpoint, lw_grad_pow, lw_grad_clip, lw_grad_gelu, lw_grad_extreme, lw_grad_each;
/* grad_move.c */
lw_grad_rule lw_grad_reshape, lw_grad_transpose, lw_grad_concat, lw_grad_split, lw_grad_slice, lw_grad_put_slice, lw_grad_pad, lw_grad_tile, lw_grad_moved, lw_grad_unpool, lw_grad_top_k,
    lw_grad_gather, lw_grad_gather_elements, lw_grad_gather_nd, lw_grad_scatter_elements, lw_grad_scatter_nd;
/* grad_reduce.c */
lw_grad_rule lw_grad_reduce_sum, lw_grad_reduce_mean, lw_grad_reduce_extreme, lw_grad_reduce_prod, lw_grad_reduce_l1, lw_grad_reduce_l2,
    lw_grad_reduce_sum_square, lw_grad_reduce_log_sum, lw_grad_reduce_log_sum_exp, lw_grad_softmax, lw_grad_log_softmax, lw_grad_cum_sum, lw_grad_cum_prod;
/* grad_contract.c */
lw_grad_rule lw_grad_matmul, lw_grad_gemm;
/* grad_image.c: rules, and parts of what samples images */
lw_grad_rule lw_grad_affine_grid, lw_grad_col2im;
void lw_grid_sample_expand(ir_graph *g, ir_node *n), lw_roi_align_expand(ir_graph *g, ir_node *n), lw_max_roi_pool_expand(ir_graph *g, ir_node *n),
    lw_deform_samples_expand(ir_graph *g, ir_node *n);
/* grad_det.c: Det, and the op tenon:Inverse */
lw_grad_rule lw_grad_det, lw_grad_inverse;
void lw_inverse_infer(tn_ctx *ctx, ir_node *n), lw_inverse_build(lw_build *b, ir_node *n);
/* grad_norm.c: rules, and the parts that the others are differentiated through */
lw_grad_rule lw_grad_batch_norm, lw_grad_layer_norm;
void lw_batch_norm_expand(ir_graph *g, ir_node *n), lw_rms_norm_expand(ir_graph *g, ir_node *n), lw_instance_norm_expand(ir_graph *g, ir_node *n),
    lw_group_norm_expand(ir_graph *g, ir_node *n), lw_lp_norm_expand(ir_graph *g, ir_node *n), lw_mvn_expand(ir_graph *g, ir_node *n), lw_lrn_expand(ir_graph *g, ir_node *n);
#endif
