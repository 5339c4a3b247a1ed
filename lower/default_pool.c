/* default_pool.c — the default schedule of sums and maxima over a window: pooling.
 *
 *   for vo y ro { acc[ri, vv] = start; for r s: acc[ri, vv] max= x[.., y + r, ro ri + s, vv]; out = acc }
 *
 * Some pixels of a row at a time, a vector of channels each: as many accumulators, none of which waits for another.
 * Borders are apart, as those of depthwise convolutions. */
#include "lower/default_schedule.h"
#include <string.h>

enum { MAX_TAPS = 16 }; /* along a row: unrolled at the borders */

typedef struct pool {
  ix load;                     /* what is accumulated, maybe cast */
  const char *taps[LW_MAX_LOOPS]; /* loops, outermost first */
  int64_t last;                /* taps of the innermost */
  int ntaps;
  ix guard;                    /* conjunction of what stands around it, or null */
} pool;

/* The one accumulation below s, with the loops and guards above it. */
static bool find_taps(tn_ctx *ctx, pool *q, const ir_stmt *s) {
  int64_t lo, hi;
  if (!s) return false;
  switch (s->kind) {
  case IR_ALLOC:
  case IR_LET: return find_taps(ctx, q, s->body);
  case IR_SEQ:
    for (int i = 0; i < s->n; i++)
      if (find_taps(ctx, q, s->items[i])) return true;
    return false;
  case IR_FOR:
    if (q->ntaps == LW_MAX_LOOPS || !ix_const_value(s->lo, &lo) || !ix_const_value(s->hi, &hi)) return false;
    q->taps[q->ntaps++] = s->var->name;
    q->last = hi - lo;
    return find_taps(ctx, q, s->body);
  case IR_IF:
    q->guard = q->guard ? ix_and(ctx, q->guard, s->value) : s->value;
    return !s->other && find_taps(ctx, q, s->body);
  case IR_STORE: {
    ix e = s->value->op == IX_CAST ? s->value->args[0] : s->value;
    if (!q->ntaps || s->buf->space != IR_REGISTER || s->buf->rank || (s->op != IR_ADD && s->op != IR_MAX) || e->op != IX_LOAD) return false;
    q->load = e;
    return true;
  }
  default: return false;
  }
}

static bool guarded(const lw_plan *p, const pool *q, const char *tap) {
  const ir_stmt *loop = ir_find_loop(p->start->body, tap);
  return q->guard && loop && ix_uses_var(q->guard, loop->var);
}

bool lw_default_pool(lw_plan *p) {
  const lw_problem *q = &p->p;
  pool w = {0};
  int64_t lanes = p->u.lanes ? p->u.lanes : cg_target_lanes(p->t, TN_F32);
  if (q->attention || !find_taps(p->ctx, &w, q->body) || w.last > MAX_TAPS) return false;
  int v = -1, r = q->nout - 1;
  for (int i = 0; i < r && v < 0; i++)
    if (q->extent[i] >= lanes && q->extent[i] % lanes == 0 && lw_contiguous_out(p, q->out[i]->var, lanes)) v = i;
  int64_t c, m = r >= 0 ? q->extent[r] : 0;
  if (v < 0 || m < 2 || !ix_uses_var(w.load, q->out[r]->var)) return false;
  if (!lw_step(p, "split %s %lld -> vo vv", q->out[v]->var->name, (long long)lanes)) return false;
  ix offset = ir_buf_offset(p->ctx, w.load->u.buf, w.load->args), o = ir_find_loop(p->k->body, "vo")->var->expr, i = ir_find_loop(p->k->body, "vv")->var->expr;
  offset = ix_subst1(p->ctx, offset, q->out[v]->var, ix_add(p->ctx, ix_muli(p->ctx, o, lanes), i));
  if (!ix_affine_in(offset, i->u.var, &c) || c != 1) return false;
  int64_t mr = lw_min(m, p->t->vector_regs - 6);
  for (int64_t d = mr; d > mr / 2; d--)
    if (m % d == 0) {
      mr = d;
      break;
    }
  const char *row = q->out[r]->var->name;
  ir_text order = {.ctx = p->ctx};
  for (int k = v + 1; k < r; k++) ir_put(&order, " %s", q->out[k]->var->name);
  if (!lw_step(p, "split %s %lld -> ro ri", row, (long long)mr) || !lw_step(p, "reorder vo%s ro ri vv", ir_text_str(&order)) || !lw_step(p, "distribute ri vv")) return false;
  lw_kind(p, "unroll", "ri");
  lw_kind(p, "vectorize", "vv");
  for (int k = 0; k + 1 < w.ntaps; k++)
    if (guarded(p, &w, w.taps[k])) lw_step(p, "narrow %s", w.taps[k]);
  const char *last = w.taps[w.ntaps - 1];
  bool columns = guarded(p, &w, last);
  if (columns && m <= mr) lw_step(p, "unroll %s", last);
  else if (columns && lw_step(p, "peel ro 1 1")) lw_step(p, "unroll %s.a", last), lw_step(p, "unroll %s.b", last);
  else if (m % mr) lw_step(p, "peel ro 0 1");
  if (ir_kernel_verify(p->ctx, p->k)) return false; /* a part that is no vector still indexes the accumulators */
  lw_parallel_outside(p);
  return true;
}
