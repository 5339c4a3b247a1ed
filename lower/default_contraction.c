/* default_contraction.c — the default schedule of matrix products and convolutions.
 *
 * By rules measured once on AVX-512 machines: a register tile of MR rows x NR vectors with
 * MR*NR + NR + 1 registers (more spills), the vector axis innermost in memory, constants
 * packed in the order they are read. */
#include "lower/default_schedule.h"
#include <string.h>

/* ---- register tiles ---- */

/* Cycles of one reduction step of an m x n-vector tile: two FMAs or two loads a cycle, and at
 * least the latency of 4 through a single accumulator, with one more: chains that only just
 * cover the latency lose every bubble for good (4x2 in a loop reaches 60 % of the peak, 6x2 95 %). */
static double tile_cycles(int64_t m, int64_t n) {
  /* loads cost a little more than two a cycle: lines split, banks collide */
  double fma = (double)(m * n) / 2, load = (double)(m + n) / 2 * 1.1;
  double c = fma > load ? fma : load;
  return c < 5 ? 5 : c;
}

/* Rows that fit beside nr vectors: a step holds the vectors and one row at a time or, `either`, the rows and one
 * vector at a time. `spare` registers are kept free in the first form. */
static int64_t most_rows(int64_t nr, int64_t regs, int64_t spare, bool either) {
  int64_t most = (regs - spare - 1 - nr) / nr, wide = (regs - 1) / (nr + 1);
  if (nr == 1 && most > regs - spare - 4) most = regs - spare - 4;
  return either && wide < nr && wide > most ? wide : most;
}

/* `more`: loads per FMA, 1/mr of vectors and 1/nr of rows, cost so much of its time although they hide behind it. */
static lw_tile best_tile(int64_t m, int64_t n, int64_t lanes, int64_t regs, int64_t spare, int64_t max_nr, bool either, const double more[2]) {
  lw_tile best = {1, 1, 1e300};
  int64_t vectors = (n + lanes - 1) / lanes;
  for (int64_t nr = 1; nr <= max_nr && nr <= vectors; nr++) {
    int64_t most = most_rows(nr, regs, spare, either);
    for (int64_t mr = 1; mr <= most && mr <= m; mr++) {
      double full = (double)(m / mr), rest = m % mr ? tile_cycles(m % mr, nr) : 0;
      double cost = (full * tile_cycles(mr, nr) + rest) * (double)((vectors + nr - 1) / nr);
      cost *= 1 + 0.25 / (double)(mr * nr) + more[0] / (double)mr + more[1] / (double)nr; /* prologue and epilogue of a tile; loads */
      if (mr > 1 && m % mr) cost *= 1.01;   /* a second loop body */
      if (nr == 1 && mr > 2 && mr < 8 && vectors > 1) cost *= 1.1; /* too few chains, and a load of weights for each row's few FMAs */
      if (cost < best.cost * 0.999 || (cost < best.cost * 1.001 && mr * nr > best.mr * best.nr)) best = (lw_tile){mr, nr, cost};
    }
  }
  return best;
}

lw_tile lw_best_tile(int64_t m, int64_t n, int64_t lanes, int64_t regs, int64_t max_nr) {
  return best_tile(m, n, lanes, regs, 0, max_nr, false, (double[]){0.4, 0}); /* vectors from the second cache */
}

lw_tile lw_window_tile(int64_t m, int64_t n, int64_t lanes, int64_t regs, int64_t max_nr, bool padded) {
  if (regs > 16) return lw_best_tile(m, n, lanes, regs - padded, max_nr); /* borders, unrolled, need one more */
  return best_tile(m, n, lanes, regs, padded, max_nr, true, (double[]){0.3, 0.3});
}

/* ---- the schedule ---- */

int lw_axis_of(ix load, const ir_var *v) {
  int axis = -1;
  for (int i = 0; i < load->nargs; i++) {
    int64_t c;
    if (!ix_uses_var(load->args[i], v)) continue;
    if (axis >= 0 || !ix_affine_in(load->args[i], v, &c) || c != 1) return -1;
    axis = i;
  }
  return axis;
}

static bool uses(ix load, const ir_var *v) { return ix_uses_var(load, v); }

void lw_pack_constant(lw_plan *p, ix b, const ir_var *v, int64_t block, const char *const *order, int norder) {
  tn_ctx *ctx = p->ctx;
  ir_buf *buf = b->u.buf;
  int va = lw_axis_of(b, v);
  if (!buf->constant || buf->layout || va < 0) return;
  /* after "split va block": axes 0..va-1, va (outer), va+1 (inner), ... */
  ir_text t = {.ctx = ctx};
  ir_put(&t, "split %d %lld; perm %d", va, (long long)block, va);
  bool used[IR_MAX_RANK] = {false};
  used[va] = true;
  for (int k = 0; k < norder; k++)
    for (int i = 0; i < p->p.nred; i++)
      if (strcmp(p->p.red[i]->var->name, order[k]) == 0) {
        int a = lw_axis_of(b, p->p.red[i]->var);
        if (a < 0 || used[a]) continue;
        used[a] = true;
        ir_put(&t, " %d", a > va ? a + 1 : a);
      }
  /* axes of other loops (batch) go before: rebuild with them first */
  ir_text first = {.ctx = ctx};
  for (int a = 0; a < buf->rank; a++)
    if (!used[a]) ir_put(&first, "%d ", a > va ? a + 1 : a);
  const char *perm = strstr(ir_text_str(&t), "perm ") + 5;
  lw_step(p, "layout %s \"split %d %lld; perm %s%s %d\"", buf->name, va, (long long)block, ir_text_str(&first), perm, va + 1);
}

bool lw_guard_uses(const lw_problem *p, const char *name) {
  if (!p->guard) return false;
  for (int i = 0; i < p->nred; i++)
    if (strcmp(p->red[i]->var->name, name) == 0) return ix_uses_var(p->guard, p->red[i]->var);
  for (int i = 0; i < p->nout; i++)
    if (strcmp(p->out[i]->var->name, name) == 0) return ix_uses_var(p->guard, p->out[i]->var);
  return false;
}

bool lw_rows_linear(lw_plan *p, const char *row) {
  const ir_stmt *l = ir_find_loop(p->k->body, row);
  lw_problem q = lw_problem_of(p->ctx, p->k);
  int64_t c;
  if (!l || q.kind != LW_CONTRACTION || !q.store) return false;
  ix a = uses(q.a, l->var) ? q.a : q.b;
  return lw_stride(p->ctx, a, l->var) != INT64_MIN && ix_affine_in(ir_buf_offset(p->ctx, q.store->buf, q.store->index), l->var, &c);
}

int64_t lw_join_rows(lw_plan *p, int r, int v) {
  const lw_problem *q = &p->p;
  if (r < 0) return 1;
  const char *row = q->out[r]->var->name;
  int64_t m = q->extent[r];
  for (int i = r - 1; i >= 0 && i != v && !p->u.unfused; i--) {
    const char *above = q->out[i]->var->name;
    if (uses(q->b, q->out[i]->var) || q->extent[i] < 1) break;
    const ir_kernel *before = p->k;
    size_t length = p->text.n;
    for (int j = i + 1; j < r; j++) /* loops of one iteration in between */
      if (lw_has_loop(p, q->out[j]->var->name)) lw_step(p, "fuse %s %s -> %s", above, q->out[j]->var->name, above);
    if (!lw_step(p, "fuse %s %s -> %s", above, row, row) || !lw_rows_linear(p, row)) {
      p->k = before;
      lw_cut(p, length);
      break;
    }
    m *= q->extent[i];
  }
  return m;
}

/* The constant that v is divided by inside an index of e; 0: none. */
static int64_t divisor_of(ix e, const ir_var *v) {
  if ((e->op == IX_DIV || e->op == IX_REM) && e->dtype == TN_INDEX && e->args[1]->op == IX_CONST && ix_uses_var(e->args[0], v)) return e->args[1]->u.i;
  for (int i = 0; i < e->nargs; i++) {
    int64_t d = divisor_of(e->args[i], v);
    if (d) return d;
  }
  return 0;
}

static bool one_tap(const lw_problem *q) {
  for (int i = 1; i < q->nred; i++)
    if (q->red_extent[i] != 1) return false;
  return true;
}

enum { CHUNK = 128 };

/* The loops for it, outside those of a tile. */
static bool chunk_sums(lw_plan *p, const lw_blocking *by, bool grouped, const char *rows, const char *tile) {
  const lw_problem *q = &p->p;
  const ir_kernel *before = p->k;
  size_t length = p->text.n;
  bool images = strcmp(q->out[0]->var->name, "n") == 0 && q->extent[0] > 1 && lw_has_loop(p, "n");
  if ((!by->panels || lw_step(p, "split vo %lld -> vc vo", (long long)by->panels)) &&
      lw_step(p, "reorder%s%s%s vo%s ro %s", images ? " n" : "", grouped ? " xo" : "", by->panels ? " vc" : "", rows, tile) &&
      lw_step(p, "chunk c %lld -> ko c", (long long)by->kc) && lw_step(p, "distribute vo%s ro %s", rows, tile))
    return true;
  p->k = before;
  lw_cut(p, length);
  return false;
}

bool lw_default_contraction(lw_plan *p) {
  lw_problem *q = &p->p;
  /* axes read in phases (transposed convolution: x / stride, x mod stride) split by the stride */
  for (int i = 0; i < q->nout; i++) {
    int64_t d = divisor_of(q->a, q->out[i]->var);
    if (!d) d = divisor_of(q->b, q->out[i]->var);
    const char *name = q->out[i]->var->name;
    if (d > 1 && d <= 8 && q->extent[i] % d == 0 && lw_step(p, "split %s %lld -> %s.q %s.p", name, (long long)d, name, name)) {
      *q = lw_problem_of(p->ctx, p->k);
      if (q->kind != LW_CONTRACTION) return false;
      i++;
    }
  }
  int64_t lanes = cg_target_lanes(p->t, q->dtype);
  if (lanes < 2 || !(ir_is_float(q->dtype) || q->dtype == TN_I32)) return false;
  /* the vector axis: an output loop that only one operand walks, contiguous in the output;
   * failing that one that both walk (depthwise) */
  int v = -1, both = -1;
  for (int i = 0; i < q->nout; i++) {
    const ir_var *x = q->out[i]->var;
    if (q->extent[i] < 2 || !lw_contiguous_out(p, x, lanes)) continue;
    bool ua = uses(q->a, x), ub = uses(q->b, x);
    if (ua != ub) {
      if (v < 0 || q->extent[i] >= lanes) v = i;
      /* the operand that is contiguous (or can be packed) along it */
    } else if (ua && ub) both = i;
  }
  bool depthwise = v < 0;
  if (depthwise) v = both;
  if (v < 0) return false;
  if (!depthwise && uses(q->a, q->out[v]->var)) {
    ix t = q->a;
    q->a = q->b, q->b = t;
  }
  int64_t sb = lw_stride(p->ctx, q->b, q->out[v]->var);
  bool across = !q->b->u.buf->constant && sb != 1 && !q->b->u.buf->layout; /* read across its rows: turned while copied */
  int across_axis = across ? lw_axis_of(q->b, q->out[v]->var) : -1;
  if (across && (depthwise || across_axis < 0)) return false; /* would gather */
  /* the row axis: the innermost other output loop that b does not walk; neighbours that
   * continue it in memory join it (a 1x1 convolution is a GEMM over all pixels) */
  int r = -1;
  for (int i = q->nout; i-- > 0;)
    if (i != v && q->extent[i] > 1 && !uses(q->b, q->out[i]->var) && uses(q->a, q->out[i]->var)) {
      r = i;
      break;
    }
  const char *vec = q->out[v]->var->name, *row = r >= 0 ? q->out[r]->var->name : NULL;
  int64_t M = r >= 0 ? q->extent[r] : 1, N = q->extent[v];
  bool padded = q->guard != NULL;
  if (r >= 0 && !padded) M = lw_join_rows(p, r, v);
  int64_t cblock = cg_target_lanes(p->t, TN_F32);
  bool split_c = q->nred > 1 && strcmp(q->red[0]->var->name, "c") == 0 && q->red_extent[0] > cblock && q->a->u.buf->layout;
  bool ragged = split_c && q->red_extent[0] % cblock; /* the last block of channels is not whole: apart */
  bool grouped = false;
  lw_blocking by = {0};
  bool choose = split_c && !ragged && row && !p->u.order && !p->u.unfused, windows = split_c && row && !one_tap(q), by_windows = false;
  if (choose && !padded && !windows) {
    by = lw_pixel_blocking(p, M, N, lanes, cblock);
    if (by.rows < M && lw_step(p, "split %s %lld -> xo %s", row, (long long)by.rows, row)) grouped = true, M = by.rows;
  } else if (choose && !across && !p->u.height && lw_window_blocking(p, v, r, cblock, padded, &by)) { /* weights that are turned pass once, outside the images */
    by_windows = true;
    const char *y = q->out[r - 1]->var->name;
    if (by.rows > 1 && by.rows < q->extent[r - 1]) grouped = lw_step(p, "split %s %lld -> xo %s", y, (long long)by.rows, y);
  }
  if (by.tile.mr && !by_windows) p->got.mb = (int)((by.rows + by.tile.mr - 1) / by.tile.mr);
  if (by.tile.mr) p->got.kc = (int)(by.kc ? by.kc : q->red_extent[0]), p->got.group = (int)by.panels;
  for (int i = r - 1; i >= 0 && p->u.height && row && !grouped; i--) {
    const char *name = q->out[i]->var->name;
    if (i == v || uses(q->b, q->out[i]->var) || q->extent[i] <= p->u.height || q->extent[i] % p->u.height || !lw_has_loop(p, name)) continue;
    grouped = lw_step(p, "split %s %d -> xo %s", name, p->u.height, name);
    if (grouped) p->got.height = p->u.height;
    else break;
  }
  lw_tile t = by.kc || by_windows ? by.tile
              : windows && !across ? lw_window_tile(M, N, lanes, p->t->vector_regs, 6, padded)
                        : lw_best_tile(M, depthwise ? lanes : N, lanes, p->t->vector_regs - padded, M <= 2 ? 8 : 6); /* borders, unrolled, need one more */
  if (depthwise) { /* two loads an FMA: rows share the weights */
    t.nr = 1;
    t.mr = lw_min(M, p->t->vector_regs - 6);
    for (int64_t m = t.mr; m > t.mr / 2; m--)
      if (M % m == 0) {
        t.mr = m;
        break;
      }
  }
  if (p->u.mr) t.mr = lw_min(p->u.mr, M);
  if (p->u.nr && !depthwise) t.nr = p->u.nr;
  int64_t nb = t.nr * lanes;
  bool tiled_rows = row && M > 1 && t.mr > 1;
  const char *tile = windows && t.nr > t.mr ? "vb ri vv" : "ri vb vv"; /* what a step holds in registers, outside */
  p->got.mr = tiled_rows ? (int)t.mr : 1, p->got.nr = (int)t.nr, p->got.unfused = p->u.unfused;

  /* order of the reduction: channels in blocks outside the taps, inside them again */
  const char *order[LW_MAX_LOOPS];
  int norder = 0;
  bool channels_first = q->nred > 1 && strcmp(q->red[0]->var->name, "c") == 0;
  bool channels_inside = split_c || (channels_first && (p->u.inner ? p->u.inner == 1 : q->red_extent[0] >= 8));
  if (channels_inside) {
    for (int i = 1; i < q->nred; i++) order[norder++] = q->red[i]->var->name;
    order[norder++] = q->red[0]->var->name;
  } else
    for (int i = 0; i < q->nred; i++) order[norder++] = q->red[i]->var->name;

  if (q->b->u.buf->constant && !q->b->u.buf->layout) {
    if (split_c) { /* [vo][co][r][s][ci][v] */
      int va = lw_axis_of(q->b, q->out[v]->var), ca = lw_axis_of(q->b, q->red[0]->var);
      if (va >= 0 && va < 2 && ca == 1 - va && q->b->u.buf->rank == q->nred + 1) {
        ir_text perm = {.ctx = p->ctx};
        for (int i = 0; i < q->nred - 1; i++) ir_put(&perm, " %d", 4 + i);
        lw_step(p, "layout %s \"split 0 %lld; split 2 %lld; perm %d %d%s %d %d\"", q->b->u.buf->name, (long long)(va ? cblock : nb), (long long)(va ? nb : cblock),
                2 * va, 2 * ca, ir_text_str(&perm), 2 * ca + 1, 2 * va + 1);
      }
    } else
      lw_pack_constant(p, q->b, q->out[v]->var, nb, order, norder);
  }

  /* loops */
  if (!lw_step(p, "split %s %lld -> vo vi", vec, (long long)nb)) return false;
  lw_step(p, "split vi %lld -> vb vv", (long long)lanes);
  if (tiled_rows && !lw_step(p, "split %s %lld -> ro ri", row, (long long)t.mr)) return false;
  /* outside: pixels first when the weights stay in L2, else vectors first */
  int64_t wbytes = 1;
  ix_const_value(ir_buf_elements(p->ctx, q->b->u.buf), &wbytes);
  wbytes *= (int64_t)ir_dtype_bytes(q->b->u.buf->dtype);
  /* a dynamic operand whose rows lie far apart is copied panel by panel, when enough rows use it */
  bool pack = across || (!q->b->u.buf->constant && !q->b->u.buf->layout && !depthwise && wbytes > p->t->l1_bytes * 2 && M >= 8 && p->u.order != 1);
  int64_t rows = 1; /* of all output loops: what one panel of vectors is used for */
  for (int i = 0; i < q->nout; i++)
    if (i != v && q->extent[i] > 0 && !uses(q->b, q->out[i]->var)) rows *= q->extent[i];
  bool vectors_first = p->got.height ? p->u.order != 1 : pack || grouped || (by_windows ? by.rows > 1 : p->u.order ? p->u.order == 2 : wbytes > p->t->l2_bytes / 2 && rows > t.mr);
  ir_text ro = {.ctx = p->ctx};
  ir_put(&ro, "reorder");
  const char *outer = NULL;
  int first = vectors_first ? 1 : 0;
  if (grouped) ir_put(&ro, " xo");
  bool batch[LW_MAX_LOOPS] = {false}; /* loops that have a copy of B each */
  for (int i = 0; i < q->nout && pack && !across && q->nred == 1; i++) {
    batch[i] = i != v && i != r && uses(q->b, q->out[i]->var) && lw_has_loop(p, q->out[i]->var->name);
    if (batch[i]) ir_put(&ro, " %s", q->out[i]->var->name);
  }
  if (first) ir_put(&ro, " vo"), outer = "vo";
  for (int i = 0; i < q->nout; i++) {
    const char *name = q->out[i]->var->name;
    if (batch[i] || i == v || (strcmp(name, "n") == 0 && q->extent[i] == 1 && i == 0) || !lw_has_loop(p, name)) continue;
    if (row && strcmp(name, row) == 0 && tiled_rows) continue;
    ir_put(&ro, " %s", name);
    if (!outer) outer = name;
  }
  if (!first) {
    ir_put(&ro, " vo");
    if (!outer) outer = tiled_rows && q->nred == 1 ? "ro" : "vo";
  }
  ir_put(&ro, " %s%s", tiled_rows ? "ro " : "", tiled_rows ? tile : "vb vv");
  bool ordered = false;
  if (tiled_rows && q->nred == 1 && strcmp(outer, "ro") == 0) ordered = lw_step(p, "reorder ro vo ri vb vv"); /* a GEMM: rows outside, panels inside */
  else if (tiled_rows && q->nred == 1 && first && !pack) {
    /* panels that fill half of L2 together, all rows over them (Goto and van de Geijn, 2008) */
    int64_t panel = nb * q->red_extent[0] * (int64_t)ir_dtype_bytes(q->b->u.buf->dtype), group = panel > 0 ? p->t->l2_bytes / 2 / panel : 1;
    const char *list = strstr(ir_text_str(&ro), " vo") + 3, *rows_at = strstr(list, " ro ri");
    int64_t panels = (N + nb - 1) / nb;
    if (p->u.group) group = p->u.group;
    if (group > panels) group = panels;
    for (int64_t g = group; g > group / 2 && !p->u.group; g--) /* groups of one size where that costs little */
      if (panels % g == 0) {
        group = g;
        break;
      }
    if (group > 1 && rows_at && lw_step(p, "split vo %lld -> vc vo", (long long)group)) {
      p->got.group = (int)group;
      ordered = lw_step(p, "reorder vc%.*s ro vo ri vb vv", (int)(rows_at - list), list);
      if (ordered && panels % group) lw_step(p, "narrow vo"); /* the guard of the last group out of the inner loops */
    }
  }
  if (!ordered && by.kc && tiled_rows) ordered = chunk_sums(p, &by, grouped, by_windows ? ir_format(p->ctx, " %s", q->out[r - 1]->var->name) : "", tile);
  bool chunked = ordered && by.kc;
  if (!ordered && !lw_step(p, "%s", ir_text_str(&ro))) return false;
  int64_t far = row ? lw_stride(p->ctx, q->a, ir_find_loop(p->start->body, row) ? ir_find_loop(p->start->body, row)->var : q->out[r]->var) : 0;
  far *= far > 0 ? (int64_t)ir_dtype_bytes(q->a->u.buf->dtype) : 0;
  bool collide = far > 0 && far % 2048 == 0 && t.mr > 4 && N >= 4 * nb && q->red_extent[0] >= 256;
  if (ordered && (p->u.rows ? p->u.rows == 1 : collide)) {
    /* rows a multiple of half a page apart fall on the same few sets of L1: a copy of the tile's rows does not */
    const char *in = ir_format(p->ctx, "rows.%d", q->a->u.buf->rank - 1);
    p->got.rows = 1;
    if (lw_step(p, "cache %s ro -> rows", q->a->u.buf->name) && lw_step(p, "split %s %lld -> rows.o rows.v", in, (long long)lanes)) lw_step(p, "vectorize rows.v");
  }
  if (across) { /* a few elements of each row at a time: lines are read whole, written while in L1 */
    if (!lw_step(p, "turn %s vo %d -> panel", q->b->u.buf->name, across_axis)) return false;
    if (lw_step(p, "split panel.%d %lld -> panel.o panel.v", q->b->u.buf->rank - 1, (long long)lanes)) {
      lw_step(p, "reorder panel.o panel.%d panel.v", across_axis);
      lw_step(p, "vectorize panel.v");
    }
  } else if (pack && lw_step(p, "cache %s vo -> panel", q->b->u.buf->name)) {
    const char *in = ir_format(p->ctx, "panel.%d", q->b->u.buf->rank - 1);
    if (lw_step(p, "split %s %lld -> panel.o panel.v", in, (long long)lanes)) lw_step(p, "vectorize panel.v");
  }
  /* one row: a long sum in chunks rounds less, and weights that stream from memory leave time for it */
  bool careful = !tiled_rows && q->nred == 1 && ir_is_float(q->dtype) && q->red_extent[0] >= 4 * CHUNK;
  if (careful && lw_step(p, "chunk %s %d -> ko %s", q->red[0]->var->name, CHUNK, q->red[0]->var->name) && !lw_step(p, "distribute vb vv")) return false;
  if (!lw_step(p, "distribute %s", tiled_rows ? tile : "vb vv")) return false;
  if (tiled_rows) lw_kind(p, "unroll", "ri");
  lw_kind(p, "unroll", "vb");
  lw_kind(p, "vectorize", "vv");
  bool taps_inside = split_c && p->u.inner == 2 && !one_tap(q);
  if (split_c) {
    lw_step(p, "split c %lld -> co c", (long long)cblock);
    const char *taps = ir_format(p->ctx, "%s%s", q->nred > 1 ? q->red[1]->var->name : "",
         q->nred > 2 ? ir_format(p->ctx, " %s%s%s", q->red[2]->var->name, q->nred > 3 ? " " : "", q->nred > 3 ? q->red[3]->var->name : "") : "");
    if (ragged) lw_step(p, "narrow c");
    lw_step(p, taps_inside ? "reorder co c %s" : "reorder co %s c", taps);
    if (ragged) lw_step(p, "peel co 0 1");
  } else if (channels_inside)
    lw_step(p, "reorder %s%s%s c", q->red[1]->var->name, q->nred > 2 ? " " : "", q->nred > 2 ? q->red[2]->var->name : "");
  /* weights from beyond the second-level cache: the next panel is asked for while the pixels pass over this one */
  const ir_stmt *panel_loop = ir_find_loop(p->k->body, "vo");
  bool far_weights = q->b->u.buf->constant && wbytes > p->t->l2_bytes / 2 && tiled_rows && (chunked || (vectors_first && !ordered));
  far_weights = far_weights && panel_loop && panel_loop->body->kind == IR_FOR && strcmp(panel_loop->body->var->name, "ro") == 0;
  /* guards: rows of taps by bounds, columns by apart first and last tiles */
  const char *tap_row = q->nred > 2 ? "r" : NULL;
  if (padded && tap_row && lw_guard_uses(q, "r")) lw_step(p, "narrow r");
  if (padded && lw_guard_uses(q, "q")) lw_step(p, "narrow q");
  bool columns = padded && lw_guard_uses(q, "s");
  int64_t tiles = tiled_rows ? (M + t.mr - 1) / t.mr : M;
  if (columns) {
    if (tiled_rows && tiles > 1) {
      if (lw_step(p, "peel ro 1 1")) {
        lw_step(p, "unroll s.a");
        lw_step(p, "unroll s.b");
        if (lw_has_loop(p, "s") && tiles == 1) lw_step(p, "unroll s");
        if (chunked && M % t.mr) lw_step(p, "peel ro.i0 0 1"), lw_step(p, "peel ro.i1 0 1");
      }
    } else if (tiled_rows) lw_step(p, "unroll s");
  } else if (tiled_rows && M % t.mr) {
    lw_step(p, "peel ro 0 1");
    if (chunked) lw_step(p, "peel ro.i0 0 1"), lw_step(p, "peel ro.i1 0 1");
  }
  if (pack && !across && N % nb) lw_step(p, "tail vo");
  if (far_weights) lw_step(p, "prefetch %s vo 1 ro -> ahead", q->b->u.buf->name);
  const char *k = taps_inside ? q->red[q->nred - 1]->var->name : order[norder - 1]; /* the innermost reduction loop, some steps at a time */
  int64_t steps = 1, ku = 1;
  for (int i = 0; i < q->nred; i++)
    if (strcmp(q->red[i]->var->name, k) == 0) steps = split_c && i == 0 && !taps_inside ? cblock : q->red_extent[i];
  if (p->u.ku) ku = steps % p->u.ku == 0 ? p->u.ku : 1;
  else if (one_tap(q))
    for (ku = lw_steps_at_once(t.mr, t.nr); steps % ku;) ku /= 2;
  else /* two steps of a small tile hide the loop's own work; with borders apart there are several copies of each */
    while (ku < 8 && steps % (2 * ku) == 0 && t.mr * t.nr * ku < 24) ku *= 2;
  static const char *const copies[] = {"", ".b", ".a"}; /* not .e: borders are few */
  for (int i = 0; i < IR_COUNT(copies) && ku > 1; i++) {
    const char *name = ir_format(p->ctx, "%s%s", k, copies[i]);
    if (lw_has_loop(p, name) && lw_step(p, "split %s %lld -> %s.o %s.u", name, (long long)ku, name, name)) lw_step(p, "unroll %s.u", name);
  }
  for (int i = q->nred - 1; i > 0 && p->u.taps >= q->nred - i; i--) /* windows: the inner taps without a loop */
    if (q->red_extent[i] > 1 && lw_has_loop(p, q->red[i]->var->name) && lw_step(p, "unroll %s", q->red[i]->var->name)) p->got.taps = q->nred - i;
  if (p->u.ahead > 1 && vectors_first && tiled_rows && q->b->u.buf->constant && lw_step(p, "prefetch %s vo %d ro -> ahead", q->b->u.buf->name, p->u.ahead - 1))
    p->got.ahead = p->u.ahead;
  lw_parallel_outside(p);
  p->got.ku = (int)ku, p->got.order = vectors_first ? 2 : 1, p->got.inner = q->nred > 1 ? channels_inside && !taps_inside ? 1 : 2 : 0;
  if (by_windows) p->got.height = (int)by.rows;
  if (!p->got.rows) p->got.rows = 2;
  if (!p->got.ahead) p->got.ahead = 1;
  return true;
}
