/* default_contraction.c — the default schedule of matrix products and convolutions.
 *
 * By rules measured once on AVX-512 machines: a register tile of MR rows x NR vectors with
 * MR*NR + NR + 1 registers (more spills), the vector axis innermost in memory, constants
 * packed in the order they are read. */
#include "lower/default_schedule.h"
#include <string.h>

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

/* What is decided, step by step, about one kernel. */
typedef struct contraction {
  lw_plan *p;
  lw_problem *q;
  int v, r;               /* loops of vectors and rows among the outputs; r: -1 without one */
  const char *vec, *row;
  int64_t rows, columns, lanes;
  int64_t cblock, nb;     /* channels of a block, columns of a tile */
  lw_tile t;
  lw_blocking by;
  const char *tile;       /* its loops, what a step holds in registers outside */
  bool depthwise, padded; /* both operands walk the vectors; there is a border */
  bool across;            /* B at run time is read across its rows: turned while copied */
  int across_axis;
  bool split_c, ragged;   /* channels in blocks; the last one not whole: apart */
  bool joined, shared;    /* rows are those of several axes; rows are shared out to groups of tiles, which are tasks */
  bool windows, by_windows, grouped; /* several taps; blocked by rows of the picture; there is a loop xo of groups */
  bool tiled, channels_inside;
  const char *order[LW_MAX_LOOPS]; /* of the reduction */
  int norder;
  int64_t bytes;          /* of B */
  bool pack;              /* panels of B are copied */
  bool vectors_first;     /* outside: panels, not pixels */
  bool batch[LW_MAX_LOOPS]; /* loops that have a copy of B each */
  bool ordered, chunked;
  bool uneven;            /* the last group has fewer rows */
  lw_sums sums;
} contraction;

/* Axes read in phases (transposed convolution: x / stride, x mod stride) split by the stride. */
static bool split_phases(lw_plan *p) {
  lw_problem *q = &p->p;
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
  return true;
}

/* The vector axis: an output loop that only one operand walks (then b), contiguous in the output;
 * failing that one that both walk (depthwise). */
static bool find_vectors(contraction *c) {
  lw_plan *p = c->p;
  lw_problem *q = c->q;
  int both = -1;
  c->v = -1;
  for (int i = 0; i < q->nout; i++) {
    const ir_var *x = q->out[i]->var;
    if (q->extent[i] < 2 || !lw_contiguous_out(p, x, c->lanes)) continue;
    bool ua = uses(q->a, x), ub = uses(q->b, x);
    if (ua != ub) {
      if (c->v < 0 || q->extent[i] >= c->lanes) c->v = i;
    } else if (ua && ub) both = i;
  }
  c->depthwise = c->v < 0;
  if (c->depthwise) c->v = both;
  if (c->v < 0) return false;
  const ir_var *v = q->out[c->v]->var;
  if (!c->depthwise && uses(q->a, v)) {
    ix t = q->a;
    q->a = q->b, q->b = t;
  }
  c->vec = v->name;
  c->columns = q->extent[c->v];
  c->across = !q->b->u.buf->constant && lw_stride(p->ctx, q->b, v) != 1 && !q->b->u.buf->layout;
  c->across_axis = c->across ? lw_axis_of(q->b, v) : -1;
  return !c->across || (!c->depthwise && c->across_axis >= 0); /* else it would gather */
}

/* The row axis: the innermost other output loop that b does not walk; neighbours that continue it in memory join it
 * (a 1x1 convolution is a GEMM over all pixels). */
static void find_rows(contraction *c) {
  const lw_problem *q = c->q;
  c->r = -1;
  for (int i = q->nout; i-- > 0 && c->r < 0;)
    if (i != c->v && q->extent[i] > 1 && !uses(q->b, q->out[i]->var) && uses(q->a, q->out[i]->var)) c->r = i;
  c->row = c->r >= 0 ? q->out[c->r]->var->name : NULL;
  int64_t alone = c->rows = c->r >= 0 ? q->extent[c->r] : 1;
  c->padded = q->guard != NULL;
  if (c->r >= 0 && !c->padded) c->rows = lw_join_rows(c->p, c->r, c->v);
  c->joined = c->r >= 0 && c->rows != alone;
}

/* Groups of pixels or rows of the picture, chunks of channels. */
static void choose_blocking(contraction *c) {
  lw_plan *p = c->p;
  const lw_problem *q = c->q;
  lw_blocking *by = &c->by;
  c->cblock = cg_target_lanes(p->t, TN_F32);
  c->split_c = q->nred > 1 && strcmp(q->red[0]->var->name, "c") == 0 && q->red_extent[0] > c->cblock && q->a->u.buf->layout;
  c->ragged = c->split_c && q->red_extent[0] % c->cblock;
  c->windows = c->split_c && c->row && !one_tap(q);
  bool choose = c->split_c && !c->ragged && c->row && !p->u.order && !p->u.unfused;
  if (choose && !c->padded && !c->windows) {
    *by = lw_pixel_blocking(p, c->rows, c->columns, c->lanes, c->cblock);
    if (by->rows < c->rows && lw_step(p, "split %s %lld -> xo %s", c->row, (long long)by->rows, c->row)) c->grouped = true, c->uneven = c->rows % by->rows, c->rows = by->rows;
  } else if (choose && !c->across && !p->u.height && lw_window_blocking(p, c->v, c->r, c->cblock, c->padded, by)) { /* weights that are turned pass once, outside the images */
    c->by_windows = true;
    const char *y = q->out[c->r - 1]->var->name;
    if (by->rows > 1 && by->rows < q->extent[c->r - 1]) c->grouped = lw_step(p, "split %s %lld -> xo %s", y, (long long)by->rows, y);
  }
  if (by->tile.mr && !c->by_windows) p->got.mb = (int)((by->rows + by->tile.mr - 1) / by->tile.mr);
  if (by->tile.mr) p->got.kc = (int)(by->kc ? by->kc : q->red_extent[0]), p->got.group = (int)by->panels;
  for (int i = c->r - 1; i >= 0 && p->u.height && c->row && !c->grouped; i--) {
    const char *name = q->out[i]->var->name;
    if (i == c->v || uses(q->b, q->out[i]->var) || q->extent[i] <= p->u.height || q->extent[i] % p->u.height || !lw_has_loop(p, name)) continue;
    c->grouped = lw_step(p, "split %s %d -> xo %s", name, p->u.height, name);
    if (c->grouped) p->got.height = p->u.height;
    else break;
  }
}

static void choose_tile(contraction *c) {
  lw_plan *p = c->p;
  int64_t m = c->rows, n = c->columns, regs = p->t->vector_regs;
  lw_tile *t = &c->t;
  *t = c->by.kc || c->by_windows ? c->by.tile
       : c->windows && !c->across ? lw_window_tile(m, n, c->lanes, regs, 6, c->padded, c->q->red_extent[c->q->nred - 1])
                                  : lw_best_tile(m, c->depthwise ? c->lanes : n, c->lanes, regs - c->padded, m <= 2 ? 8 : 6); /* borders, unrolled, need one more */
  if (c->depthwise) { /* two loads an FMA: rows share the weights */
    t->nr = 1;
    t->mr = lw_min(m, regs - 6);
    for (int64_t d = t->mr; d > t->mr / 2; d--)
      if (m % d == 0) {
        t->mr = d;
        break;
      }
  }
  if (p->u.mr) t->mr = lw_min(p->u.mr, m);
  if (p->u.nr && !c->depthwise) t->nr = p->u.nr;
  c->nb = t->nr * c->lanes;
  c->tiled = c->row && m > 1 && t->mr > 1;
  c->tile = c->windows && t->nr > t->mr ? "vb ri vv" : "ri vb vv";
  p->got.mr = c->tiled ? (int)t->mr : 1, p->got.nr = (int)t->nr, p->got.unfused = p->u.unfused;
}

/* Vectors of pixels, of a picture in rows: the next channel is a picture away, in the same sets of the first cache, the next
 * tap beside this one. */
static bool along_rows(const contraction *c) {
  const lw_problem *q = c->q;
  return q->nred > 2 && !q->b->u.buf->constant && !q->b->u.buf->layout && lw_stride(c->p->ctx, q->b, q->out[c->v]->var) == 1;
}

/* Of the reduction: channels in blocks outside the taps, inside them again. */
static void choose_order(contraction *c) {
  const lw_problem *q = c->q;
  bool channels = q->nred > 1 && strcmp(q->red[0]->var->name, "c") == 0;
  int inner = c->p->u.inner;
  c->channels_inside = c->split_c || (channels && (inner ? inner == 1 : q->red_extent[0] >= 8 && !along_rows(c)));
  for (int i = c->channels_inside; i < q->nred; i++) c->order[c->norder++] = q->red[i]->var->name;
  if (c->channels_inside) c->order[c->norder++] = q->red[0]->var->name;
}

static void pack_weights(contraction *c) {
  lw_plan *p = c->p;
  const lw_problem *q = c->q;
  const ir_buf *b = q->b->u.buf;
  if (!b->constant || b->layout) return;
  if (!c->split_c) {
    lw_pack_constant(p, q->b, q->out[c->v]->var, c->nb, c->order, c->norder);
    return;
  }
  /* [vo][co][r][s][ci][v] */
  int va = lw_axis_of(q->b, q->out[c->v]->var), ca = lw_axis_of(q->b, q->red[0]->var);
  if (va < 0 || va > 1 || ca != 1 - va || b->rank != q->nred + 1) return;
  ir_text perm = {.ctx = p->ctx};
  for (int i = 0; i < q->nred - 1; i++) ir_put(&perm, " %d", 4 + i);
  lw_step(p, "layout %s \"split 0 %lld; split 2 %lld; perm %d %d%s %d %d\"", b->name, (long long)(va ? c->cblock : c->nb), (long long)(va ? c->nb : c->cblock), 2 * va, 2 * ca,
          ir_text_str(&perm), 2 * ca + 1, 2 * va + 1);
}

/* Outside: pixels first when the weights stay in L2, else vectors first. */
static void choose_outside(contraction *c) {
  lw_plan *p = c->p;
  const lw_problem *q = c->q;
  const ir_buf *b = q->b->u.buf;
  c->bytes = 1;
  ix_const_value(ir_buf_elements(p->ctx, b), &c->bytes);
  c->bytes *= (int64_t)ir_dtype_bytes(b->dtype);
  /* a dynamic operand whose rows lie far apart is copied panel by panel, when enough rows use it */
  c->pack = c->across || (!b->constant && !b->layout && !c->depthwise && c->bytes > p->t->l1_bytes * 2 && c->rows >= 8 && p->u.order != 1);
  int64_t rows = 1; /* of all output loops: what one panel of vectors is used for */
  for (int i = 0; i < q->nout; i++)
    if (i != c->v && q->extent[i] > 0 && !uses(q->b, q->out[i]->var)) rows *= q->extent[i];
  c->vectors_first = p->got.height ? p->u.order != 1
                     : c->pack || c->grouped || (c->by_windows ? c->by.rows > 1 : p->u.order ? p->u.order == 2 : c->bytes > p->t->l2_bytes / 2 && rows > c->t.mr);
  int64_t step; /* channels in blocks: the pictures of a block's lie together, apart from those of others */
  if (c->depthwise && c->tiled && !p->u.order && q->store && ix_affine_in(ir_buf_offset(p->ctx, q->store->buf, q->store->index), q->out[c->r]->var, &step) && step == c->nb)
    c->vectors_first = true;
  for (int i = 0; i < q->nout && c->pack && q->nred == 1; i++)
    c->batch[i] = i != c->v && i != c->r && uses(q->b, q->out[i]->var) && lw_has_loop(p, q->out[i]->var->name);
}

/* Rows outside everything, and a last tile of fewer: the last tile is set apart within one of some groups, so that there
 * is a loop of tasks. */
static void share_rows(contraction *c) {
  enum { TASKS = 16 };
  lw_plan *p = c->p;
  const lw_problem *q = c->q;
  int64_t tiles = (c->rows + c->t.mr - 1) / c->t.mr;
  if (!c->tiled || q->nred != 1 || c->vectors_first || c->grouped || c->padded || c->rows % c->t.mr == 0 || tiles < TASKS) return;
  for (int i = 0; i < q->nout; i++)
    if (i != c->v && i != c->r && q->extent[i] > 1 && lw_has_loop(p, q->out[i]->var->name)) return;
  c->shared = lw_step(p, "split %s %lld -> rg %s", c->row, (long long)((tiles + TASKS - 1) / TASKS * c->t.mr), c->row);
}

/* Channels of one pixel behind those of the one before: a row is read and written as it lies, all channels of a few pixels. */
static bool channels_last(const contraction *c) {
  const lw_problem *q = c->q;
  if (!c->depthwise || !c->tiled || c->vectors_first || q->a->op != IX_LOAD) return false;
  int64_t step = lw_stride(c->p->ctx, q->a, q->out[c->r]->var);
  return step != INT64_MIN && step >= 2 * c->nb;
}

/* The step that puts all loops in order. Returns the outermost one below those of groups and batches. */
static const char *put_order(contraction *c, ir_text *ro) {
  lw_plan *p = c->p;
  const lw_problem *q = c->q;
  const char *outer = NULL;
  ir_put(ro, "reorder%s", c->grouped ? " xo" : "");
  for (int i = 0; i < q->nout; i++)
    if (c->batch[i]) ir_put(ro, " %s", q->out[i]->var->name);
  if (c->vectors_first) ir_put(ro, " vo"), outer = "vo";
  for (int i = 0; i < q->nout; i++) {
    const char *name = q->out[i]->var->name;
    if (c->batch[i] || i == c->v || (strcmp(name, "n") == 0 && q->extent[i] == 1 && i == 0) || !lw_has_loop(p, name)) continue;
    if (c->row && strcmp(name, c->row) == 0 && c->tiled) continue;
    ir_put(ro, " %s", name);
    if (!outer) outer = name;
  }
  if (!c->vectors_first) {
    if (channels_last(c)) {
      ir_put(ro, " ro vo %s", c->tile);
      return outer ? outer : "ro";
    }
    ir_put(ro, " vo");
    if (!outer) outer = c->tiled && q->nred == 1 ? "ro" : "vo";
  }
  ir_put(ro, " %s%s", c->tiled ? "ro " : "", c->tiled ? c->tile : "vb vv");
  return outer;
}

/* Panels that fill half of L2 together, all rows over them (Goto and van de Geijn, 2008). `list`: the loops behind vo. */
static bool group_panels(contraction *c, const char *list) {
  lw_plan *p = c->p;
  const char *rows_at = strstr(list, " ro ri");
  int64_t panel = c->nb * c->q->red_extent[0] * (int64_t)ir_dtype_bytes(c->q->b->u.buf->dtype), group = panel > 0 ? p->t->l2_bytes / 2 / panel : 1;
  int64_t panels = (c->columns + c->nb - 1) / c->nb;
  if (p->u.group) group = p->u.group;
  if (group > panels) group = panels;
  for (int64_t g = group; g > group / 2 && !p->u.group; g--) /* groups of one size where that costs little */
    if (panels % g == 0) {
      group = g;
      break;
    }
  if (group < 2 || !rows_at || !lw_step(p, "split vo %lld -> vc vo", (long long)group)) return false;
  p->got.group = (int)group;
  if (!lw_step(p, "reorder vc%.*s ro vo ri vb vv", (int)(rows_at - list), list)) return false;
  if (panels % group) lw_step(p, "narrow vo"); /* the guard of the last group out of the inner loops */
  return true;
}

/* The loops for chunks of the sum, outside those of a tile. */
static bool chunk_sums(contraction *c, const char *rows) {
  lw_plan *p = c->p;
  const lw_problem *q = c->q;
  const lw_blocking *by = &c->by;
  const ir_kernel *before = p->k;
  size_t length = p->text.n;
  bool images = strcmp(q->out[0]->var->name, "n") == 0 && q->extent[0] > 1 && lw_has_loop(p, "n");
  if ((!by->panels || lw_step(p, "split vo %lld -> vc vo", (long long)by->panels)) &&
      lw_step(p, "reorder%s%s%s vo%s ro %s", images ? " n" : "", c->grouped ? " xo" : "", by->panels ? " vc" : "", rows, c->tile) &&
      lw_step(p, "chunk c %lld -> ko c", (long long)by->kc) && lw_step(p, "distribute vo%s ro %s", rows, c->tile))
    return true;
  p->k = before;
  lw_cut(p, length);
  return false;
}

static bool arrange(contraction *c) {
  lw_plan *p = c->p;
  bool product = c->tiled && c->q->nred == 1;
  ir_text ro = {.ctx = p->ctx};
  const char *outer = put_order(c, &ro);
  if (product && strcmp(outer, "ro") == 0) c->ordered = lw_step(p, "reorder ro vo ri vb vv"); /* a GEMM: rows outside, panels inside */
  else if (product && c->vectors_first && !c->pack) c->ordered = group_panels(c, strstr(ir_text_str(&ro), " vo") + 3);
  if (!c->ordered && c->by.kc && c->tiled) c->ordered = chunk_sums(c, c->by_windows ? ir_format(p->ctx, " %s", c->q->out[c->r - 1]->var->name) : "");
  c->chunked = c->ordered && c->by.kc;
  return c->ordered || lw_step(p, "%s", ir_text_str(&ro));
}

/* Bytes from one row of A to the next; 0: not one distance. */
static int64_t row_distance(const contraction *c) {
  const lw_problem *q = c->q;
  const ir_stmt *loop = c->row ? ir_find_loop(c->p->start->body, c->row) : NULL;
  int64_t far = c->row ? lw_stride(c->p->ctx, q->a, loop ? loop->var : q->out[c->r]->var) : 0;
  return far > 0 ? far * (int64_t)ir_dtype_bytes(q->a->u.buf->dtype) : 0;
}

/* Rows whose distance is a large power of two fall on the same few sets of L1. Where a tile's rows leave fewer than two
 * of their ways, they are copied. */
static bool rows_collide(const contraction *c) {
  enum { PAGE = 4096 }; /* bytes of one way */
  int64_t far = row_distance(c), sets = 1, ways = c->p->t->l1_bytes / PAGE;
  while (far && far * sets % PAGE) sets++;
  return far && (c->t.mr + sets - 1) / sets > ways - 2 && c->columns >= 4 * c->nb && c->q->red_extent[0] >= 256;
}

static void copy_rows(contraction *c) {
  lw_plan *p = c->p;
  const ir_buf *a = c->q->a->u.buf;
  if (!c->ordered || !(p->u.rows ? p->u.rows == 1 : rows_collide(c))) return;
  p->got.rows = 1;
  if (lw_step(p, "cache %s ro -> rows", a->name) && lw_step(p, "split rows.%d %lld -> rows.o rows.v", a->rank - 1, (long long)c->lanes)) lw_step(p, "vectorize rows.v");
}

static bool copy_panels(contraction *c) {
  lw_plan *p = c->p;
  const ir_buf *b = c->q->b->u.buf;
  if (c->across) { /* a few elements of each row at a time: lines are read whole, written while in L1 */
    if (!lw_step(p, "turn %s vo %d -> panel", b->name, c->across_axis)) return false;
    if (lw_step(p, "split panel.%d %lld -> panel.o panel.v", b->rank - 1, (long long)c->lanes)) lw_step(p, "reorder panel.o panel.%d panel.v", c->across_axis);
  } else if (c->pack && lw_step(p, "cache %s vo -> panel", b->name)) {
    if (lw_step(p, "split panel.%d %lld -> panel.o panel.v", b->rank - 1, (long long)c->lanes)) lw_step(p, "vectorize panel.v");
  }
  return true;
}

/* What is read across is turned in squares of registers; where it is not whole squares, element by element. */
static void turn_squares(contraction *c) {
  lw_plan *p = c->p;
  if (!c->across || !lw_has_loop(p, "panel.v")) return;
  const char *columns = ir_format(p->ctx, "panel.%d", c->across_axis);
  lw_kind(p, "tail", "panel.o");
  lw_kind(p, "narrow", columns);
  const ir_kernel *before = p->k;
  lw_kind(p, "tensorize transpose", columns);
  if (p->k == before) lw_kind(p, "vectorize", "panel.v");
}

/* The accumulators, and the loops of a tile. */
static bool make_tile(contraction *c) {
  lw_plan *p = c->p;
  const lw_problem *q = c->q;
  const char *sum = q->red[0]->var->name, *tile = c->tiled ? c->tile : "vb vv";
  if (!c->chunked) lw_sums_in_parts(p, c->split_c ? c->cblock : 1, tile, &c->sums);
  /* one row: a long sum in chunks rounds less, and weights that stream from memory leave time for it */
  bool careful = !c->sums.parts && !c->tiled && q->nred == 1 && ir_is_float(q->dtype) && q->red_extent[0] >= 4 * CHUNK;
  if (careful && lw_step(p, "chunk %s %d -> ko %s", sum, CHUNK, sum) && !lw_step(p, "distribute vb vv")) return false;
  if (!c->sums.parts && !lw_step(p, "distribute %s", tile)) return false;
  if (c->tiled) lw_kind(p, "unroll", "ri");
  lw_kind(p, "unroll", "vb");
  lw_kind(p, "vectorize", "vv");
  return true;
}

static const char *red_name(const contraction *c, int i) { return i < c->q->nred ? c->q->red[i]->var->name : ""; }

/* The loops of taps inside loop `sum` of the sum, with its ending; others of the sum. */
static const char *taps_of(const contraction *c, const char *sum) {
  const char *end = sum + strlen(red_name(c, 0));
  ir_text taps = {.ctx = c->p->ctx};
  for (int i = 1; i < c->q->nred; i++) ir_put(&taps, "%s%s%s", i > 1 ? " " : "", red_name(c, i), end);
  return ir_text_str(&taps);
}

static int64_t steps_of(const lw_plan *p, const char *loop) {
  const ir_stmt *l = ir_find_loop(p->k->body, loop);
  int64_t lo, hi;
  return l && ix_const_value(l->lo, &lo) && ix_const_value(l->hi, &hi) ? hi - lo : 1;
}

static void order_sums(contraction *c, bool taps_inside) {
  lw_plan *p = c->p;
  const lw_problem *q = c->q;
  for (int i = 0; i < (c->sums.parts ? c->sums.n : 1); i++) {
    const char *sum = c->sums.parts ? c->sums.name[i] : red_name(c, 0), *taps = taps_of(c, sum), *blocks = ir_format(p->ctx, "co%s", sum + strlen(red_name(c, 0)));
    if (c->split_c && !(c->sums.parts && steps_of(p, sum) % c->cblock) && lw_step(p, "split %s %lld -> %s %s", sum, (long long)c->cblock, blocks, sum)) {
      bool ragged = c->ragged && !c->sums.parts;
      if (ragged) lw_step(p, "narrow %s", sum);
      lw_step(p, "reorder %s %s %s", blocks, taps_inside ? sum : taps, taps_inside ? taps : sum);
      if (ragged) lw_step(p, "peel %s 0 1", blocks);
    } else if (c->channels_inside && q->nred > 1)
      lw_step(p, "reorder %s %s", taps, sum);
  }
}

/* Weights from beyond the second-level cache: the next panel is asked for while the pixels pass over this one. */
static bool far_weights(const contraction *c) {
  const ir_stmt *panel = ir_find_loop(c->p->k->body, "vo");
  return c->q->b->u.buf->constant && c->bytes > c->p->t->l2_bytes / 2 && c->tiled && (c->chunked || (c->vectors_first && !c->ordered)) && panel && panel->body->kind == IR_FOR &&
         strcmp(panel->body->var->name, "ro") == 0;
}

/* Whether the conjuncts of the guard over loop `tap` hold for all taps at v = x. */
static bool inside(const contraction *c, ix guard, const ir_var *tap, const ir_var *v, int64_t x) {
  tn_ctx *ctx = c->p->ctx;
  if (guard->op == IX_AND) return inside(c, guard->args[0], tap, v, x) && inside(c, guard->args[1], tap, v, x);
  int64_t holds;
  return !ix_uses_var(guard, tap) || (ix_const_value(ix_subst1(ctx, guard, v, ix_index(ctx, x)), &holds) && holds);
}

/* Blocks of `block` iterations of output loop i that columns of padding reach from each end; one at each where they leave
 * none between (or nothing is known). */
static void border_blocks(const contraction *c, int i, int64_t count, int64_t block, int64_t *first, int64_t *last) {
  const lw_problem *q = c->q;
  const ir_var *v = q->out[i]->var, *tap = NULL;
  int64_t blocks = (count + block - 1) / block, lo = 0, hi = count;
  for (int k = 0; k < q->nred; k++)
    if (strcmp(q->red[k]->var->name, "s") == 0) tap = q->red[k]->var;
  *first = *last = 1;
  if (!tap || count != q->extent[i] || !inside(c, q->guard, tap, v, count / 2)) return;
  for (int64_t known = count / 2; lo < known;) { /* the least iteration from which on all are inside, */
    int64_t x = (lo + known) / 2;
    if (inside(c, q->guard, tap, v, x)) known = x;
    else lo = x + 1;
  }
  for (int64_t known = count / 2; known + 1 < hi;) { /* and the first behind that is not */
    int64_t x = (known + hi) / 2;
    if (inside(c, q->guard, tap, v, x)) known = x;
    else hi = x;
  }
  int64_t f = (lo + block - 1) / block, l = blocks - hi / block;
  if (f + l < blocks) *first = f, *last = l;
}

enum { COPIES = 32 };

static int find_copies(const ir_stmt *s, const char *base, const char *names[COPIES], int n) {
  if (!s) return n;
  size_t length = strlen(base);
  if (s->kind == IR_FOR && n < COPIES && strncmp(s->var->name, base, length) == 0 && (!s->var->name[length] || s->var->name[length] == '.')) names[n++] = s->var->name;
  for (int i = 0; i < s->n; i++) n = find_copies(s->items[i], base, names, n);
  return find_copies(s->other, base, names, find_copies(s->body, base, names, n));
}

/* The loops that came from one: NAME, NAME.b, ... */
static int copies_of(const lw_plan *p, const char *base, const char *names[COPIES]) { return find_copies(p->k->body, base, names, 0); }

static bool is_in(const char *name, const char *const *names, int n) {
  while (n > 0 && strcmp(names[n - 1], name) != 0) n--;
  return n > 0;
}

/* The last tile apart, or the first and the last that meet padding, also where sums are set and stored. */
static void peel_tiles(contraction *c, bool first) {
  lw_plan *p = c->p;
  int64_t f = 0, l = 1;
  const char *before[COPIES], *names[COPIES];
  int nbefore = copies_of(p, "s", before);
  if (first) border_blocks(c, c->r, c->rows, c->t.mr, &f, &l);
  if (!lw_step(p, "peel ro %lld %lld", (long long)f, (long long)l) && first) return;
  for (int i = 0; first && i < copies_of(p, "s", names); i++)
    if (!is_in(names[i], before, nbefore)) lw_step(p, "unroll %s", names[i]);
  if (c->chunked && c->rows % c->t.mr) lw_step(p, "peel ro.i0 0 1"), lw_step(p, "peel ro.i1 0 1");
}

/* The same where vectors go along the picture's rows, so that padding is lanes of the first and the last of them. */
static void peel_vectors(contraction *c) {
  int64_t f, l;
  border_blocks(c, c->v, c->columns, c->nb, &f, &l);
  if (c->columns % c->nb && l == 0) l = 1;
  lw_step(c->p, "peel vo %lld %lld", (long long)f, (long long)l);
  if (c->tiled && c->rows % c->t.mr) peel_tiles(c, false);
}

/* Rows outside, few panels inside: a tile's rows are used up soon, so the next ones, from beyond the second-level cache,
 * are asked for meanwhile. (Those of joined axes are no box: all rows would be asked for each time.) */
static bool ask_rows(contraction *c, const char *sum) {
  const lw_plan *p = c->p;
  const ir_stmt *tiles = ir_find_loop(p->k->body, "ro");
  bool far = row_distance(c) * c->rows > p->t->l2_bytes / 2;
  if (!c->ordered || c->vectors_first || c->pack || c->joined || p->got.rows == 1 || !tiles || (p->u.ahead ? p->u.ahead == 1 : !far)) return false;
  const char *steps = ir_format(p->ctx, "%s.o", sum), *at = ir_find_loop(tiles->body, steps) ? steps : sum;
  if (p->t->vector_regs > 16) at = "vo"; /* tiles of 28 sums leave no register for a condition among their steps: two sums would be spilled */
  return lw_step(c->p, "prefetch %s ro 1 %s -> next", c->q->a->u.buf->name, at);
}

/* The last iteration apart, also where chunks of sums are set and stored. */
static void tail_all(contraction *c, const char *loop) {
  static const char *const parts[] = {".i0", "", ".i1"};
  for (int i = 0; i < IR_COUNT(parts); i++)
    if (c->chunked || !*parts[i]) lw_step(c->p, "tail %s%s", loop, parts[i]);
}

/* Guards: rows of taps by bounds, columns by apart first and last tiles. */
static void part_borders(contraction *c) {
  lw_plan *p = c->p;
  const lw_problem *q = c->q;
  if (c->padded && q->nred > 2 && lw_guard_uses(q, "r")) lw_kind(p, "narrow", "r");
  if (c->padded && lw_guard_uses(q, "q")) lw_kind(p, "narrow", "q");
  bool columns = c->padded && lw_guard_uses(q, "s"), across = columns && ix_uses_var(q->guard, q->out[c->v]->var);
  if (across && c->columns > c->nb) peel_vectors(c);
  else if (columns && c->tiled && c->rows > c->t.mr) peel_tiles(c, true);
  else if (columns && c->tiled) lw_kind(p, "unroll", "s");
  else if (c->shared) lw_step(p, "tail ro");
  else if (!columns && c->tiled && c->rows % c->t.mr) peel_tiles(c, false);
  if (c->pack && c->columns % c->nb) lw_step(p, "tail vo");
  if (c->uneven) tail_all(c, "ro");
  if (c->chunked && c->columns % c->nb) tail_all(c, "vo"); /* the last panel */
}

/* The innermost reduction loop, some steps at a time; the inner taps of a window without a loop. */
static void unroll_sums(contraction *c, bool taps_inside) {
  static const char *const copies[] = {"", ".b", ".a"}; /* not .e: borders are few */
  lw_plan *p = c->p;
  const lw_problem *q = c->q;
  const char *k = taps_inside ? q->red[q->nred - 1]->var->name : c->order[c->norder - 1];
  int64_t steps = 1, ku = 1;
  for (int i = 0; i < q->nred; i++)
    if (strcmp(q->red[i]->var->name, k) == 0) steps = c->split_c && i == 0 && !taps_inside ? c->cblock : c->sums.parts ? steps_of(p, k) : q->red_extent[i];
  if (p->u.ku) ku = steps % p->u.ku == 0 ? p->u.ku : 1;
  else if (one_tap(q))
    for (ku = lw_steps_at_once(c->t.mr, c->t.nr); steps % ku;) ku /= 2;
  else /* two steps of a small tile hide the loop's own work; with borders apart there are several copies of each */
    while (ku < 8 && steps % (2 * ku) == 0 && c->t.mr * c->t.nr * ku < 24) ku *= 2;
  const char *names[COPIES];
  for (int i = 0, n = c->sums.parts ? copies_of(p, k, names) : 0; i < n; i++) { /* what is left of a sum has steps of its own */
    int64_t some = ku;
    while (steps_of(p, names[i]) % some) some /= 2;
    if (some > 1 && lw_step(p, "split %s %lld -> %s.o %s.u", names[i], (long long)some, names[i], names[i])) lw_step(p, "unroll %s.u", names[i]);
  }
  for (int i = 0; i < IR_COUNT(copies) && ku > 1 && !c->sums.parts; i++) {
    const char *name = ir_format(p->ctx, "%s%s", k, copies[i]);
    if (lw_has_loop(p, name) && lw_step(p, "split %s %lld -> %s.o %s.u", name, (long long)ku, name, name)) lw_step(p, "unroll %s.u", name);
  }
  p->got.ku = (int)ku;
  for (int i = q->nred - 1; i > 0 && p->u.taps >= q->nred - i; i--)
    if (q->red_extent[i] > 1 && lw_has_loop(p, q->red[i]->var->name) && lw_step(p, "unroll %s", q->red[i]->var->name)) p->got.taps = q->nred - i;
}

bool lw_default_contraction(lw_plan *p) {
  lw_problem *q = &p->p;
  contraction c = {.p = p, .q = q};
  if (!split_phases(p)) return false;
  c.lanes = cg_target_lanes(p->t, q->dtype);
  if (c.lanes < 2 || !(ir_is_float(q->dtype) || q->dtype == TN_I32) || !find_vectors(&c)) return false;
  find_rows(&c);
  choose_blocking(&c);
  choose_tile(&c);
  choose_order(&c);
  pack_weights(&c);
  choose_outside(&c);
  share_rows(&c);
  if (!lw_step(p, "split %s %lld -> vo vi", c.vec, (long long)c.nb)) return false;
  lw_step(p, "split vi %lld -> vb vv", (long long)c.lanes);
  if (c.tiled && !lw_step(p, "split %s %lld -> ro ri", c.row, (long long)c.t.mr)) return false;
  if (!arrange(&c)) return false;
  copy_rows(&c);
  if (!copy_panels(&c) || !make_tile(&c)) return false;
  bool taps_inside = c.split_c && p->u.inner == 2 && !one_tap(q);
  order_sums(&c, taps_inside);
  bool ask = far_weights(&c);
  part_borders(&c);
  const char *b = q->b->u.buf->name;
  if (ask) lw_step(p, "prefetch %s vo 1 ro -> ahead", b);
  turn_squares(&c);
  unroll_sums(&c, taps_inside);
  bool asked = p->u.ahead > 1 && c.vectors_first && c.tiled && q->b->u.buf->constant && lw_step(p, "prefetch %s vo %d ro -> ahead", b, p->u.ahead - 1);
  bool rows_asked = ask_rows(&c, q->red[0]->var->name);
  lw_parallel_outside(p);
  p->got.ahead = asked ? p->u.ahead : rows_asked ? 2 : 1;
  p->got.order = c.vectors_first ? 2 : 1, p->got.inner = q->nred > 1 ? c.channels_inside && !taps_inside ? 1 : 2 : 0;
  if (c.by_windows) p->got.height = (int)c.by.rows;
  if (!p->got.rows) p->got.rows = 2;
  return true;
}
