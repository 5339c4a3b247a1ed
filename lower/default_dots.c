/* default_dots.c — the default schedule of matrix times vector, where memory runs along the sums: rows of
 * dot products. Vectors lie along the sum, each lane with a sum of its own (so long sums round less, too);
 * several rows at a time share the vector's elements, hide the latency of the additions, and are read as
 * several streams. */
#include "lower/default_schedule.h"

enum { CHAINS = 8 }; /* sums side by side: more than the latency of an addition times two a cycle, less than half of the registers */

/* The innermost loop of outputs, if it goes through rows of one operand and no loop through the other alone; -1: no such. */
static int rows_of(lw_problem *q) {
  int r = -1;
  for (int i = 0; i < q->nout; i++)
    if (q->extent[i] != 1) r = i;
  if (r < 0 || q->extent[r] < 1) return -1;
  if (!ix_uses_var(q->a, q->out[r]->var)) {
    ix t = q->a;
    q->a = q->b, q->b = t;
  }
  for (int i = 0; i <= r; i++)
    if (q->extent[i] != 1 && (!ix_uses_var(q->a, q->out[i]->var) || (i == r && ix_uses_var(q->b, q->out[i]->var)))) return -1;
  return r;
}

/* Loops of one iteration go outside the tile. */
static bool inside(lw_plan *p, int r) {
  ir_text order = {.ctx = p->ctx};
  ir_put(&order, "reorder ro");
  int n = 0;
  for (int i = r + 1; i < p->p.nout; i++)
    if (lw_has_loop(p, p->p.out[i]->var->name)) ir_put(&order, " %s", p->p.out[i]->var->name), n++;
  return !n || lw_step(p, "%s ri", ir_text_str(&order));
}

bool lw_default_dots(lw_plan *p) {
  lw_problem *q = &p->p;
  int64_t lanes = cg_target_lanes(p->t, q->dtype);
  if (q->nred != 1 || q->guard || !q->store || !ir_is_float(q->dtype) || lanes < 2 || q->red_extent[0] < 2 * lanes) return false;
  int r = rows_of(q);
  if (r < 0 || q->a->u.buf->constant || q->a->u.buf->layout || q->b->u.buf->layout) return false; /* constants are packed */
  const ir_var *sum = q->red[0]->var;
  if (lw_stride(p->ctx, q->a, sum) != 1 || lw_stride(p->ctx, q->b, sum) != 1) return false;
  const char *row = q->out[r]->var->name;
  int64_t m = q->extent[r], mr = p->u.mr ? lw_min(p->u.mr, m) : lw_min(CHAINS, m), k = q->red_extent[0];
  int64_t nr = p->u.nr ? p->u.nr : lw_min(CHAINS / mr > 1 ? CHAINS / mr : 1, k / lanes), wide = nr * lanes;
  if (wide > 64) wide = 64;
  if (!lw_step(p, "rfactor %s %lld -> ko kv", sum->name, (long long)wide)) return false;
  bool tiled = mr > 1;
  if (tiled && !(lw_step(p, "split %s %lld -> ro ri", row, (long long)mr) && inside(p, r) && lw_step(p, "distribute ri") && lw_step(p, "distribute ri.i1") && lw_step(p, "reorder ri.i1 kv.z") &&
                 lw_step(p, "reorder ri.i1.i0 kv") && lw_step(p, "reorder ri.i1.i1 kv.r")))
    return false;
  if (tiled && m % mr) { /* the last tile has fewer rows, and no guards around its sums */
    lw_kind(p, "tail", "ro");
    lw_kind(p, "narrow", "ri");
  }
  if (tiled) lw_kind(p, "unroll", "ri");
  lw_kind(p, "vectorize", "kv");
  if (k % wide) lw_kind(p, "tail", "ko");
  if (ir_kernel_verify(p->ctx, p->k)) return false; /* a guard that stayed: a part that is no vector still indexes the sums */
  lw_parallel_outside(p);
  p->got = (lw_tunables){.mr = (int)mr, .nr = (int)nr, .unfused = p->u.unfused};
  return true;
}
