/* attend.h — attention as one kernel.
 *
 *   s = scores(MatMul(q, k'))      any elementwise nodes: a factor, a mask
 *   y = tenon:Attend(s, v)         softmax(s) v, rows of s being the last axis; with `zeros` a row that is -inf all along gives zeros
 *
 * What places hide (causality, windows, lengths) and the ops of attention do besides is one such node, tenon:AttentionScores.
 * Heads that share keys are an axis of q and s alone.
 *
 * Attend, the product and what is between are one group where each is used by the next alone: the scores then never
 * reach memory (schedule_attention.c). */
#ifndef LW_ATTEND_H
#define LW_ATTEND_H
#include "lower/build.h"

enum { LW_MAX_SCORE_NODES = 12 };

/* The nodes that compute v from a product and serve nothing else, the product first, the one that gives v last;
 * elementwise, all of v's shape. Returns their number; 0: v is nothing of the kind. */
int lw_score_nodes(const ir_value *v, ir_node *nodes[LW_MAX_SCORE_NODES]);
static inline bool lw_is_attend(const ir_node *n) { return n->op == lw_ops_attend; }
static inline bool lw_is_attention_softmax(const ir_node *n) { return n->op == lw_ops_attention; }
static inline bool lw_is_attention_scores(const ir_node *n) { return n->op == lw_ops_attention + 1; }

/* What the pass rewrites before Attend is there; n = MatMul(Softmax(s), v), `nodes` those of s. Uses are as analysed. */
/* A known mask that hides a triangle or a band becomes AttentionScores. What was computed for that is forgotten in the end. */
typedef struct lw_masks lw_masks;
lw_masks *lw_masks_new(tn_ctx *ctx);
void lw_attend_mask(lw_masks *known, ir_graph *g, ir_node *n, ir_node *const *nodes, int count);
void lw_masks_forget(lw_masks *known);
/* Keys and values that were repeated for heads: n becomes Attend of five axes. False: they were not. */
bool lw_attend_heads(tn_ctx *ctx, ir_graph *g, ir_node *n, ir_node *const *nodes, int count);
/* n = MatMul(AttentionSoftmax(..), v), which `fits` may take or not, becomes Attend. */
bool lw_attend_op(tn_ctx *ctx, ir_graph *g, ir_node *n, bool (*fits)(void *user, const ir_value *q, const ir_value *k, const ir_value *v, int64_t queries), void *user);

/* The accumulator of an element of MatMul n at o, the indices of its batch axes, row and column (those that it has;
 * in place of one that a vector lacks anything may stand): its loop is closed. */
ir_buf *lw_matmul_sum(lw_build *b, ir_node *n, const ix *o);
/* Gives MatMul's shape to output 0 of n, which has its operands. */
void lw_matmul_set(tn_ctx *ctx, ir_node *n, tn_dtype t);

/* The kernel of such a group, as ops_attend.c builds it, taken apart; see schedule_attention.c. */
typedef struct lw_attention_parts {
  int nbatch;
  const ir_stmt *batch[IR_MAX_RANK], *row; /* loops; the row is that of a query */
  int64_t extent[IR_MAX_RANK];             /* of the batch loops */
  int64_t queries, keys, depth, columns;
  const ir_var *key[3], *d, *n;            /* loop variables: keys in the three passes, depth, columns */
  ix q, k, v;                              /* loads below any cast, at (row, d), (d, key[0]) and (key[2], n) */
  ix score, top, scale;                    /* of `sum`; of `max`; of `total` */
  const ir_buf *sum, *max, *total, *acc;
  const ir_var *scale_var;
  const ir_stmt *after;                    /* of acc: stores the result */
} lw_attention_parts;
/* False: the kernel is none; *why says what is missing. */
bool lw_attention_of(tn_ctx *ctx, const ir_kernel *k, lw_attention_parts *parts, const char **why);

/* The keys outside which the score of a query is -inf for sure: [from, to), of the row's and the batches' variables, neither
 * falling from row to row; they may lie beyond the keys there are, and from beyond to. A score within is `inside`. */
typedef struct lw_attention_span {
  ix from, to, inside;
  bool whole; /* nothing is known to be hidden */
} lw_attention_span;
lw_attention_span lw_attention_span_of(tn_ctx *ctx, const lw_attention_parts *parts);
/* The blocks of so many keys, [begin, end) of the first ones, of which the queries first .. last see any. */
void lw_attention_blocks(tn_ctx *ctx, const lw_attention_parts *p, const lw_attention_span *s, ix first, ix last, int64_t block, ix *begin, ix *end);
/* Whether all of them see the whole block that begins with `key`. */
ix lw_attention_seen(tn_ctx *ctx, const lw_attention_parts *p, const lw_attention_span *s, ix first, ix last, ix key, int64_t block);
#endif
