/* attention.h — scaled dot-product attention as nodes, for all ops that are forms of it. */
#ifndef LW_ATTENTION_H
#define LW_ATTENTION_H
#include "lower/compose.h"

/* What the optional copy of the scores shows. */
typedef enum lw_scores { LW_SCORES_RAW, LW_SCORES_CAPPED, LW_SCORES_BIASED, LW_SCORES_SOFTMAX } lw_scores;

typedef struct lw_attention {
  ir_value *q, *k, *v;   /* [B, H, S, D], [B, G, T, D], [B, G, T, Dv], one dtype; H is a multiple of G */
  ir_value *mask;        /* or null: bool (true: attend) or a number that is added; broadcasts to [B, H, S, T] */
  ir_value *lengths;     /* or null: integers [B], the valid keys of each sequence */
  bool pads_mask;        /* a mask with fewer than T columns attends to none of the others */
  bool causal;           /* query i sees keys up to i + offset */
  int64_t offset;        /* of the first query among the keys; with `lengths`: lengths[b] - S instead, */
  bool fixed_offset;     /* unless this is set */
  int64_t left, right;   /* keys seen before and after its own place; -1: all */
  double scale, softcap; /* scores = softcap(scale * q k); softcap 0: none */
  tn_dtype precision;    /* of the softmax; TN_NONE: that of q */
  lw_scores show;
  bool wants_scores;
  ir_value *scores;      /* result: [B, H, S, T] when wanted */
} lw_attention;

/* softmax(softcap(scale * q k') + bias) v as [B, H, S, Dv]. A query that may see no key gives zeros. */
ir_value *lw_attend(ir_graph *g, ir_node *n, lw_attention *a);

/* [B, S, H * D] as [B, H, S, D] and back. */
ir_value *lw_split_heads(ir_graph *g, ir_node *n, ir_value *v, int64_t heads);
ir_value *lw_join_heads(ir_graph *g, ir_node *n, ir_value *v);
#endif
