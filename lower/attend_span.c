/* attend_span.c — the keys that queries see, read off the score of an attention kernel: what blocks of keys may be left out,
 * and in which no score has to be hidden. See attend.h. */
#include "lower/attend.h"
#include <math.h>

/* The condition e: 1 where it holds for keys from *bound on, whatever else, -1 for keys before *bound; 0: of another kind. */
static int bound_of(tn_ctx *ctx, ix e, const ir_var *key, const ir_var *row, ix *bound) {
  int64_t k, r;
  if ((e->op != IX_LT && e->op != IX_LE) || e->args[0]->dtype != TN_INDEX) return 0;
  ix d = ix_sub(ctx, e->args[1], e->args[0]); /* > 0, or >= 0 */
  bool strict = e->op == IX_LT;
  if (!ix_affine_in(d, key, &k) || (k != 1 && k != -1)) return 0;
  d = ix_subst1(ctx, d, key, ix_index(ctx, 0));
  *bound = k < 0 ? ix_addi(ctx, d, !strict) : ix_sub(ctx, ix_index(ctx, strict), d);
  return ix_affine_in(*bound, row, &r) && r >= 0 && r <= 1 ? (int)k : 0;
}

/* What is left of the condition e when the span has been narrowed by it. */
static ix narrow(tn_ctx *ctx, ix e, const ir_var *key, const ir_var *row, lw_attention_span *span) {
  ix bound;
  if (e->op == IX_AND) return ix_and(ctx, narrow(ctx, e->args[0], key, row, span), narrow(ctx, e->args[1], key, row, span));
  int kind = bound_of(ctx, e, key, row, &bound);
  if (kind > 0) span->from = ix_max(ctx, span->from, bound);
  if (kind < 0) span->to = ix_min(ctx, span->to, bound);
  return kind ? ix_bool(ctx, true) : e;
}

lw_attention_span lw_attention_span_of(tn_ctx *ctx, const lw_attention_parts *p) {
  ix none = ix_index(ctx, 0), all = ix_index(ctx, p->keys), e = p->score;
  lw_attention_span span = {none, all, p->score, true};
  tn_dtype casts[4];
  int n = 0;
  for (; e->op == IX_CAST && n < IR_COUNT(casts); e = e->args[0]) casts[n++] = (tn_dtype)e->dtype;
  if (e->op != IX_SELECT || !ix_is_const(e->args[2]) || e->args[2]->u.f != -INFINITY) return span;
  ix inside = ix_select(ctx, narrow(ctx, e->args[0], p->key[0], p->row->var, &span), e->args[1], e->args[2]);
  while (n > 0) inside = ix_cast(ctx, casts[--n], inside);
  span.inside = inside;
  span.whole = span.from == none && span.to == all;
  return span;
}

static ix of_row(tn_ctx *ctx, const lw_attention_parts *p, ix e, ix row) { return ix_subst1(ctx, e, p->row->var, row); }

void lw_attention_blocks(tn_ctx *ctx, const lw_attention_parts *p, const lw_attention_span *s, ix first, ix last, int64_t block, ix *begin, ix *end) {
  ix none = ix_index(ctx, 0), from = ix_max(ctx, none, of_row(ctx, p, s->from, first)), to = ix_min(ctx, ix_index(ctx, p->keys), of_row(ctx, p, s->to, last));
  *begin = ix_divi(ctx, from, block);
  *end = ix_max(ctx, *begin, ix_ceil_div(ctx, ix_max(ctx, none, to), block));
}

ix lw_attention_seen(tn_ctx *ctx, const lw_attention_parts *p, const lw_attention_span *s, ix first, ix last, ix key, int64_t block) {
  return ix_and(ctx, ix_le(ctx, of_row(ctx, p, s->from, last), key), ix_le(ctx, ix_addi(ctx, key, block), of_row(ctx, p, s->to, first)));
}
