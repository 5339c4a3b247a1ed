/* default_gemm.c — the default schedule of matrix products that do not stay in the first caches.
 *
 *   for vc:                   NC columns of C: panels of NR vectors    (B constant: mc outside vc,
 *     copy of B[K, NC]        in panels one after another (B dynamic)   where A's rows are copied)
 *     for mc:                 MC rows
 *       copy of A[MC, K]      (turned into the order of the tiles, where enough columns use it)
 *       for ko:               KC steps of the sum; C's block is an array in memory when there are several, and C
 *                             is stored tile by tile in the last
 *         for vo: for ro:     the blocks of A and C stay in the second cache
 *           the register tile, and a part of the next panel asked for
 *
 * Where a block of A's rows, all there are, stays in the second cache, a B at run time is not copied apart: the first tile
 * over a panel reads B and leaves the copy for the others ("fill"), its stores and what it waits for hidden under the multiply-adds;
 * the next panel's lines are asked for by all tiles (packing within the product: LibShalom, Yang, Fang and Dong, SC 2021):
 *
 *   for vc: for ko: for vo: for ro: the register tile
 *
 * Of larger products the first block of rows leaves the copies of a group's panels for the other blocks in the same way.
 * With tiles of few registers (AVX2: 6 x 2 vectors) both a tile's rows and a panel of B stream from the second cache, which
 * keeps up; so sums are up to 1024 steps long, of which the rows of A are read as they lie, and C passes seldom. Under
 * few rows a B at run time is copied in blocks that stay in the second cache beside A, the next one's rows asked for
 * while this one is used. The other way about, when asked for (order 1):
 *
 *   for vc: for ko: for ro: for vo: the register tile, and a part of the next block of B asked for
 *
 * after Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", ACM TOMS 34
 * (2008), and Van Zee and van de Geijn, "BLIS", ACM TOMS 41 (2015). With a single block of rows, B's
 * copy is made within ko, and ko is outside mc where a copy of all steps would be too large. With few
 * rows there is nothing to keep: some rows of B at a time pass, as they lie, under a block of C that stays in
 * the first cache. Where A lies column by column (the gradient of weights), it is copied tile by tile: of each
 * line that a step of the sum brings, a tile needs a part. Tasks are then parts of the rows, each with a copy
 * of B; a short sum takes its panels rows outside, so that what a step of training updates passes line by
 * line. Steps that are refused
 * leave a simpler order. */
#include "lower/default_schedule.h"
#include <string.h>

enum {
  PAGE = 4096,
  LINE = 64,
  WAYS = 8, /* of the second cache, at least */
  SHORT_SUM = 256, /* steps of a block of a B at run time that is copied for few rows: wide blocks, so that A passes seldom */
  LONG_SUM = 1024, /* steps that one pass through the registers may take where panels may stream from the second cache */
  STRICT_SUM = 256, /* the same where nothing may be lost for speed: errors grow with what is rounded together */
  PIECE = 2 * PAGE, /* of B's rows, read as they lie: shorter ones begin anew too often, C's block may as well stay in the second cache */
  FEW_TASKS = 6,   /* of which one more or less is seen */
  FEW_ROWS = 4,    /* rows of A that do not pay for panels of B */
  FILL_ROWS = 8,   /* rows of A that do not pay for a copy of B that is made within the first tile */
  STREAM_ROWS = 16, /* rows of A that do not pay for a copy of B: some of its rows pass under all of C instead */
  PANEL_ROWS = 64, /* rows of A under which a panel of B does not stay any longer */
  TURN_COLUMNS = 320, /* of C, for which turning A is a twentieth of the work */
  COPY_COLUMNS = 640, /* of C, for which copying A in turned squares is a fortieth of the work */
  TASK_ROWS = 192, /* of C, where A is turned: what a task has at least */
  TURN_STEPS = 8,  /* of the sum, that are copied of a tile or a panel together: whole lines on both sides */
  TASKS = 8,
  MANY_TASKS = 16, /* that products of enough rows are cut into, B at run time */
  PART_ROWS = 1024, /* of C, for which a copy of B of their own costs a fortieth of the work */
  GROUP_COLUMNS = 1024, /* of C, for which A's rows may be copied again */
  CAREFUL = 128,   /* steps of a sum that are rounded together where that costs nothing */
  MOST_BLOCK = 288 << 10, /* bytes of A in a block: larger ones save little of B's traffic, and were slower by a hundredth */
  MAX_COPY = 1 << 20, /* elements of a copy of all steps */
  STREAMS = 8,     /* of memory, read side by side: what hardware prefetchers follow */
  MOST_STREAMS = 16, /* rows of B that stay in the first cache beside C */
  ROW_STREAMS = 4  /* where one row has little to do with each: fewer leave less unfinished where pages end */
};

typedef struct gemm {
  lw_plan *p;
  int v, r;             /* loops of vectors and rows among the outputs; r: -1 without one */
  const char *vec, *row, *sum;
  int64_t m, n, k;
  int64_t lanes, esize, mr, nr, nb;
  int64_t kc, group, mb; /* steps, panels, tiles of rows in a block */
  int64_t ku, ahead;
  bool constant, tiled, stream; /* stream: B is read once, as it lies */
  bool fill;            /* B at run time is copied panel by panel while the first tile uses it */
  bool late;            /* the same for all panels of a group, by the first block of rows */
  bool turned;          /* A is [k, m] */
  bool across;          /* B at run time is [n, k]: turned while it is copied */
  bool copied;          /* blocks of A are copied, in the order in which tiles read them */
  bool rows_first;      /* a tile's rows stay in the first cache, not a panel of B */
  int64_t tasks;        /* parts of the rows, each with a copy of B */
} gemm;

static bool uses(ix load, const ir_var *v) { return ix_uses_var(load, v); }
static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* NAME, or a loop that came from it: NAME.i0, NAME.b, ... */
static bool is_copy(const ir_stmt *s, const char *base) {
  size_t n = strlen(base);
  return s->kind == IR_FOR && strncmp(s->var->name, base, n) == 0 && (!s->var->name[n] || s->var->name[n] == '.');
}

/* A step for each of the loops that came from `base`. */
static void each(gemm *g, const ir_stmt *s, const char *base, void (*step)(gemm *g, const ir_stmt *loop, const void *user), const void *user) {
  if (!s) return;
  if (is_copy(s, base)) step(g, s, user);
  for (int i = 0; i < s->n; i++) each(g, s->items[i], base, step, user);
  each(g, s->body, base, step, user);
  each(g, s->other, base, step, user);
}

static bool operands(gemm *g) {
  lw_plan *p = g->p;
  lw_problem *q = &p->p;
  if (q->nred != 1 || q->guard || !q->store || q->store->buf->layout || q->a->u.buf->layout || q->b->u.buf->layout) return false;
  g->lanes = cg_target_lanes(p->t, q->dtype);
  if (g->lanes < 2 || !ir_is_float(q->dtype) || q->red_extent[0] < 1) return false;
  g->v = g->r = -1;
  for (int i = 0; i < q->nout; i++) {
    if (q->extent[i] < 1) return false;
    const ir_var *x = q->out[i]->var;
    if (q->extent[i] >= g->lanes && uses(q->a, x) != uses(q->b, x) && lw_contiguous_out(p, x, g->lanes)) g->v = i;
  }
  if (g->v < 0) return false;
  if (uses(q->a, q->out[g->v]->var)) {
    ix t = q->a;
    q->a = q->b, q->b = t;
  }
  g->constant = q->b->u.buf->constant;
  g->across = !g->constant && lw_stride(p->ctx, q->b, q->out[g->v]->var) != 1;
  if (g->across && (lw_stride(p->ctx, q->b, q->red[0]->var) != 1 || lw_axis_of(q->b, q->out[g->v]->var) < 0)) return false;
  for (int i = q->nout; i-- > 0 && g->r < 0;)
    if (i != g->v && q->extent[i] > 1 && !uses(q->b, q->out[i]->var) && uses(q->a, q->out[i]->var)) g->r = i;
  g->vec = q->out[g->v]->var->name;
  g->row = g->r >= 0 ? q->out[g->r]->var->name : NULL;
  g->sum = q->red[0]->var->name;
  g->n = q->extent[g->v];
  g->k = q->red_extent[0];
  g->esize = (int64_t)ir_dtype_bytes(q->b->u.buf->dtype);
  const ix a = q->a;
  g->turned = g->r >= 0 && !a->u.buf->constant && !g->constant && a->u.buf->rank == 2 && lw_axis_of(a, q->out[g->r]->var) == 1 && lw_axis_of(a, q->red[0]->var) == 0;
  return true;
}

/* ---- sizes ---- */

/* n in parts of at most `most`: a divisor when one is above half of that, else parts of about one size. */
static int64_t even(int64_t n, int64_t most) {
  if (most < 1) most = 1;
  if (most >= n) return n;
  for (int64_t d = most; d > most / 2; d--)
    if (n % d == 0) return d;
  return ceil_div(n, ceil_div(n, most));
}

/* Steps of a chunk of k: near `want`, at most `most`; a divisor if there is one. */
static int64_t chunk_of(int64_t k, int64_t want, int64_t most) {
  if (k <= most) return k;
  int64_t best = 0;
  for (int64_t d = most; d >= want / 2 && d > 0; d--) {
    if (k % d || (d % 8 && best && best % 8 == 0)) continue;
    int64_t off = d > want ? d - want : want - d, least = best > want ? best - want : want - best;
    if (!best || off < least || (d % 8 == 0 && best % 8)) best = d;
  }
  if (best) return best;
  return (ceil_div(k, ceil_div(k, want)) + 7) / 8 * 8; /* the last is shorter */
}

/* Copying B takes longer than using it. */
static bool copy_bound(const gemm *g) { return !g->constant && !g->stream && !g->across && g->m <= 32; }

/* A panel that is turned for few rows is used up before the next one is made. */
static bool by_panels(const gemm *g) { return g->across && g->m <= PANEL_ROWS; }

/* Tiles of few registers: A and panels of B both stream from the second cache, so that a sum is as long as that allows. */
static bool long_sums(const gemm *g) { return g->tiled && g->mr < 12 && g->m > 2 * STREAM_ROWS && !g->turned && !by_panels(g); }

/* Whether a copy of A's rows in the order in which they are read pays: with enough columns, or for less where rows lie
 * a multiple of half a page apart: they fall on the same few sets of the caches, a copy does not. Long pieces of rows are
 * followed by hardware prefetchers as they lie; of them a copy pays where a block would be crowded in the second cache. */
static bool rows_pay(const gemm *g) {
  const lw_plan *p = g->p;
  ix a = p->p.a;
  int64_t size = (int64_t)ir_dtype_bytes(a->u.buf->dtype), far = lw_stride(p->ctx, a, p->p.out[g->r]->var) * size, apart = p->t->l2_bytes / WAYS;
  if (far <= 0 || g->k < 256) return false;
  if (!long_sums(g)) return g->n >= COPY_COLUMNS || (far % (PAGE / 2) == 0 && g->n >= 4 * g->nb);
  while (apart > 1 && far % apart) apart /= 2; /* within a way: pieces of rows begin so far apart */
  int64_t l2 = p->t->l2_bytes, piece = g->kc * size;
  return piece < apart && lw_min(g->m * piece, l2 * 3 / 8) > l2 * 7 / 8 / apart * piece;
}

/* Steps of a sum for which a tile's rows fill half of the first cache. */
static int64_t long_chunk(const gemm *g) {
  int64_t step = g->mr * g->esize, l1 = g->p->t->l1_bytes;
  return g->p->u.kc ? lw_min(g->p->u.kc, g->k) : chunk_of(g->k, l1 / 2 / step, l1 * 9 / 16 / step);
}

static bool rows_first(const gemm *g) { return g->constant && g->tiled && !g->p->u.mb && g->p->u.rows != 1 && g->p->u.order == 1; }

/* Rows of A that stay in the second cache beside blocks of a B at run time, which are copied for them alone. */
static bool single_block(const gemm *g) { return !g->constant && !g->fill && long_sums(g) && g->m * g->esize * SHORT_SUM <= g->p->t->l2_bytes * 3 / 8; }

/* Rows of a B that is read as it lies, of which a tile's columns stay in the first cache while all rows of A pass: in each
 * of its ways, a page, as many as begin at different places. Rows a page apart or more are streams of their own. */
static int64_t rows_at_once(const gemm *g) {
  int64_t pitch = lw_stride(g->p->ctx, g->p->p.b, g->p->p.red[0]->var) * g->esize, apart = PAGE;
  if (g->m <= g->mr || pitch <= 0 || pitch >= PAGE) return STREAMS;
  while (pitch % apart) apart /= 2;
  return lw_min(lw_min(g->p->t->l1_bytes / apart, MOST_STREAMS), g->k); /* the last chunk may be shorter */
}

/* Panels under which few rows pass together: C's block stays in the first cache, or B's rows are read in long pieces, of
 * a quarter of all columns at most, which are tasks. */
static int64_t few_columns(const gemm *g, int64_t panels) {
  int64_t line = g->nb * g->esize, near = g->p->t->l1_bytes * 3 / 4 / (g->m * line), far = lw_min(PIECE / line, ceil_div(panels, 4));
  return near > far ? near : far;
}

/* The most steps that are rounded together. */
static int64_t most_steps(const gemm *g) { return g->p->u.accuracy > 0 ? LONG_SUM : STRICT_SUM; }

/* All steps, or chunks of them: so long that C passes seldom, and under a B at run time as A stays beside it. */
static int64_t long_sum(const gemm *g) {
  if (single_block(g) && g->k > lw_min(LONG_SUM, g->p->t->l2_bytes * 5 / 8 / (g->m * g->esize))) return chunk_of(g->k, SHORT_SUM, SHORT_SUM * 3 / 2);
  return chunk_of(g->k, most_steps(g), most_steps(g));
}

/* Steps of the sum of which a panel is copied and used. Its rows in B, and those of the next that are asked for meanwhile, are
 * lines of the second cache, on few of its sets where they lie a large power of two apart. */
static int64_t fill_sum(const gemm *g) {
  int64_t way = g->p->t->l2_bytes / WAYS, apart = way, pitch = lw_stride(g->p->ctx, g->p->p.b, g->p->p.red[0]->var) * g->esize;
  while (apart > LINE && pitch % apart) apart /= 2;
  bool more = g->m > PANEL_ROWS && way / apart * WAYS >= 2 * SHORT_SUM;
  int64_t want = more ? SHORT_SUM * 3 / 2 : SHORT_SUM, most = lw_min(more ? SHORT_SUM * 2 : SHORT_SUM * 3 / 2, most_steps(g));
  int64_t kc = chunk_of(g->k, want = lw_min(want, most), most);
  return kc == g->k || kc % 8 == 0 ? kc : (ceil_div(g->k, ceil_div(g->k, want)) + 7) / 8 * 8; /* steps at a time in all but the last */
}

/* Panels that pass in a row between chunks of the sum, some groups of which are tasks: at the end of each there is none
 * to be asked for. */
static int64_t fill_columns(const gemm *g, int64_t panels) {
  enum { GROUPS = 4, LEAST = 8 };
  int64_t most = g->p->t->l2_bytes / 4 / (g->m * g->nb * g->esize);
  if (most > ceil_div(panels, GROUPS)) most = ceil_div(panels, GROUPS);
  return even(panels, most > LEAST ? most : LEAST);
}

/* The register tile. A constant's panels that are asked for ahead are whole lines wide, or some lines would be
 * asked for twice: with 4 x 3 vectors of 32 bytes that takes a fifth of the time. */
static lw_tile tile_of(const gemm *g) {
  int64_t regs = g->p->t->vector_regs, line = LINE / (g->lanes * g->esize);
  lw_tile best = lw_best_tile(g->m, g->n, g->lanes, regs, g->m <= 2 ? 8 : 6);
  if ((!g->constant && !g->fill) || g->m <= FEW_ROWS || line < 2 || best.nr < line || best.nr % line == 0) return best;
  int64_t whole = best.nr - best.nr % line;
  lw_tile t = lw_best_tile(g->m, g->n, g->lanes, regs, whole);
  if (t.nr != whole) t.mr = best.mr, t.nr = whole;
  return t;
}

/* Whether the rows of A, and of C between chunks, stay in the second cache while panels pass, each of which some tiles use. */
static bool fill_fits(gemm *g) {
  g->fill = true;
  lw_tile t = tile_of(g); /* whole lines */
  g->nb = t.nr * g->lanes;
  int64_t panels = ceil_div(g->n, g->nb), kc = fill_sum(g), l2 = g->p->t->l2_bytes;
  g->fill = false;
  if (t.mr >= g->m) return false;
  return kc == g->k ? g->m * kc * g->esize <= l2 * 7 / 8 : g->m * (kc + fill_columns(g, panels) * g->nb) * g->esize <= l2 / 2;
}

/* Few rows read a B as fast as it lies, up to STREAM_ROWS where its rows do not begin with lines. */
static bool fill_pays(const gemm *g) {
  bool lines = lw_stride(g->p->ctx, g->p->p.b, g->p->p.red[0]->var) * g->esize % LINE == 0;
  return g->m > (lines ? FILL_ROWS : STREAM_ROWS) && g->n >= 2 * g->lanes && g->k >= LINE;
}

/* Parts of the rows that are tasks, where groups of columns are too few of them: how many threads will run is not known.
 * Parts have as many blocks each, which are made smaller for it: a guard around blocks would stay in the tiles. */
static void part_rows(gemm *g, int64_t panels, int64_t tiles) {
  int64_t want = lw_min(ceil_div(MANY_TASKS, ceil_div(panels, g->group)), g->m / PART_ROWS), least = g->p->u.mb ? g->mb : g->mb / 2;
  for (int64_t mb = g->mb; mb > 0 && mb >= least && want > 1; mb--) {
    int64_t blocks = ceil_div(tiles, mb);
    for (int64_t part = blocks / want; part > 0 && 2 * (blocks / part) <= 3 * want; part--)
      if (blocks % part == 0) {
        g->mb = mb, g->tasks = blocks / part;
        return;
      }
  }
}

static void sizes(gemm *g) {
  lw_plan *p = g->p;
  lw_tile t = tile_of(g);
  g->mr = p->u.mr ? lw_min(p->u.mr, g->m) : t.mr;
  g->nr = p->u.nr ? p->u.nr : g->m == 1 ? ROW_STREAMS : t.nr;
  g->nb = g->nr * g->lanes;
  g->tiled = g->row && g->m > 1 && g->mr > 1;
  g->rows_first = rows_first(g);
  int64_t panels = ceil_div(g->n, g->nb), tiles = ceil_div(g->m, g->mr), line = g->nb * g->esize, l1 = p->t->l1_bytes, l2 = p->t->l2_bytes;
  bool few = tiles <= 4; /* that use a panel while it is near: it may as well pass through */
  if (g->stream) g->kc = g->m == 1 ? ROW_STREAMS : g->m <= FEW_ROWS ? STREAMS : rows_at_once(g);
  else if (g->fill) g->kc = fill_sum(g);
  else if (copy_bound(g)) g->kc = chunk_of(g->k, 64, 128); /* long pieces of B's rows instead */
  else if (by_panels(g)) g->kc = chunk_of(g->k, most_steps(g), most_steps(g));
  else if (long_sums(g)) g->kc = long_sum(g);
  else if (g->tiled && g->mr >= 12) g->kc = chunk_of(g->k, l1 / line, l1 * 2 / line); /* takes little of a panel's bytes at a time: the second cache can keep up */
  else g->kc = chunk_of(g->k, few && g->constant ? l1 / line : l1 / 2 / line, g->constant ? l1 / line : l1 * 3 / 4 / line);
  if (g->constant && g->mr >= 12 && g->k <= LONG_SUM) g->kc = g->k;
  if (p->u.kc) g->kc = lw_min(p->u.kc, g->k);
  if (g->rows_first) g->kc = long_chunk(g);
  g->copied = g->tiled && !g->stream && !g->fill && !by_panels(g) && !g->rows_first && (g->turned || (p->u.rows ? p->u.rows == 1 : rows_pay(g)));
  int64_t step = g->esize * g->mr, most = l2 / 4 / (g->kc * step), all = most * 2; /* tiles of rows in a block, and when one takes all of them */
  if (long_sums(g)) {
    most = lw_min(l2 * 3 / 8, MOST_BLOCK) / (g->kc * step), all = l2 * 5 / 8 / (g->kc * step);
    if (g->copied && g->constant) most = lw_min(most, l2 * 9 / 16 / (g->k * step)); /* copied with all their steps */
  }
  if (most < 1) most = 1;
  g->mb = g->stream || g->fill || g->rows_first || tiles <= all ? tiles : ceil_div(tiles, ceil_div(tiles, most));
  g->tasks = g->turned ? lw_min(TASKS, g->m / TASK_ROWS) : 1;
  if (g->turned) g->mb = even(g->tasks > 1 ? ceil_div(tiles, g->tasks) : tiles, most * 2);
  int64_t blocks = ceil_div(tiles, g->mb);
  if (g->constant && g->kc < g->k && blocks % 2 && blocks > 1 && blocks < FEW_TASKS) g->mb = ceil_div(tiles, blocks + 1); /* under chunks of the sum they are the tasks: two threads have as many each */
  if (p->u.mb) g->mb = lw_min(p->u.mb, tiles);
  int64_t rows = g->mb * g->mr, columns = (g->kc < g->k || (!g->constant && long_sums(g)) ? l2 / 4 : l2 / 2) / (rows * g->esize);
  if (!g->constant && g->mb == tiles) /* B's chunks are copied for all rows: by long pieces, and A's rows few times; some groups, to be tasks */
    columns = copy_bound(g) ? l2 / (g->kc * g->esize) : lw_min(MAX_COPY / g->kc, ceil_div(panels, g->n < 3 * GROUP_COLUMNS ? 2 : g->n / GROUP_COLUMNS) * g->nb);
  if (!g->constant && g->mb < tiles && columns < PAGE / 2 / g->esize) columns = PAGE / 2 / g->esize; /* long pieces of B's rows */
  g->group = g->stream ? lw_min(g->m > FEW_ROWS ? few_columns(g, panels) : panels, panels) : g->rows_first ? l2 * 3 / 8 / (g->kc * line) : columns / g->nb;
  if (single_block(g)) g->group = (l2 * 7 / 8 - g->m * g->kc * g->esize) / 2 / (g->kc * line); /* beside A: the copy of a block of B, and what is asked for of the next */
  if (g->fill) g->group = g->kc == g->k ? panels : fill_columns(g, panels);
  if (by_panels(g)) g->group = g->n % g->nb ? 4 : 1; /* a last panel that is not whole is set apart in a group */
  if (g->turned) g->group = g->tasks > 1 ? panels : ceil_div(panels, 1 + g->n / TURN_COLUMNS); /* all of B in panels, or enough groups to be tasks */
  if (g->constant && g->m <= FEW_ROWS) g->group = g->n % g->nb ? ceil_div(panels, TASKS) : panels; /* the tail inside of tasks */
  g->group = p->u.group ? lw_min(p->u.group, panels) : g->stream && g->m > FEW_ROWS ? ceil_div(panels, ceil_div(panels, g->group)) : even(panels, g->group);
  if (!g->turned && !g->constant && !g->stream && g->mb < tiles) part_rows(g, panels, tiles);
}

/* ---- steps ---- */

/* Guards of the elements that are not there stay with the last copied rows and vectors. */
static void whole_copies(lw_plan *p, const char *rows, const char *vectors) {
  lw_kind(p, "narrow", rows);
  lw_kind(p, "tail", vectors);
}

/* B, or the copy of its block, in panels: [chunk of the sum][panel][..., step][column]. What one chunk reads lies in
 * one piece: panels a whole sum apart share the sets of a cache. */
static bool chunked_panels(gemm *g, const char *name) {
  ix b = g->p->p.b;
  int va = lw_axis_of(b, g->p->p.out[g->v]->var), ka = lw_axis_of(b, g->p->p.red[0]->var);
  if (va < 0 || ka < 0) return false;
  int first = lw_min(va, ka), second = va + ka - first; /* each becomes two, the second one further on */
  int64_t size[2] = {first == va ? g->nb : g->kc, first == va ? g->kc : g->nb};
  int vo = va == first ? va : va + 1, ko = ka == first ? ka : ka + 1;
  ir_text perm = {.ctx = g->p->ctx};
  for (int i = 0; i < b->u.buf->rank; i++)
    if (i != va && i != ka) ir_put(&perm, "%d ", i + (i > first) + (i > second));
  return lw_step(g->p, "layout %s \"split %d %lld; split %d %lld; perm %s%d %d %d %d\"", name, second, (long long)size[1], first, (long long)size[0], ir_text_str(&perm), ko, vo, ko + 1,
                 vo + 1);
}

/* Squares of a panel, of so many of its columns as it has and a vector of steps; turn_squares() completes them. */
static void copy_across(lw_plan *p, int va, int ka, int64_t columns, int64_t lanes) {
  lw_step(p, "split panel.%d %lld -> panel.o panel.i", va, (long long)columns);
  lw_step(p, "split panel.%d %lld -> panel.s panel.v", ka, (long long)lanes);
  lw_step(p, "reorder panel.o panel.s panel.i panel.v");
}

/* The loops that copy B's rows to panels. */
static void copy_along(gemm *g, const char *at, int va, int ka) {
  lw_plan *p = g->p;
  if (copy_bound(g)) lw_step(p, "prefetch %s panel.%d 4 panel.%d -> panel.ahead", p->p.b->u.buf->name, ka, ka);
  if (!lw_step(p, "split panel.%d %lld -> panel.o panel.i", va, (long long)g->nb) || !lw_step(p, "split panel.i %lld -> panel.c panel.v", (long long)g->lanes)) return;
  /* some rows of a panel at a time: one row of all panels would write one line to each, on the same few sets of the caches */
  int64_t steps = strcmp(at, "ko") == 0 ? g->kc : g->k;
  bool some = !copy_bound(g) && ka < va && steps % TURN_STEPS == 0 && g->k % steps == 0 && lw_step(p, "split panel.%d %d -> panel.p panel.r", ka, TURN_STEPS) &&
              lw_step(p, "reorder panel.p panel.o panel.r");
  whole_copies(p, some ? "panel.p" : ir_format(p->ctx, "panel.%d", ka), "panel.o");
  if (some) lw_kind(p, "unroll", "panel.r");
  lw_kind(p, "unroll", "panel.c");
  lw_kind(p, "vectorize", "panel.v");
}

static bool pack_dynamic(gemm *g, const char *at) {
  lw_plan *p = g->p;
  ix b = p->p.b;
  int va = lw_axis_of(b, p->p.out[g->v]->var), ka = lw_axis_of(b, p->p.red[0]->var);
  if (va < 0 || ka < 0 || !lw_step(p, "cache %s %s -> panel", b->u.buf->name, at)) return false;
  chunked_panels(g, "panel");
  if (g->across) copy_across(p, va, ka, g->nb, g->lanes);
  else if (!g->fill && !g->late) copy_along(g, at, va, ka);
  return true;
}

/* The copy of a panel is made step by step of the sum in its first tile, whose multiply-adds hide it. */
static void fill_panels(gemm *g, const char *at) {
  lw_plan *p = g->p;
  int va = lw_axis_of(p->p.b, p->p.out[g->v]->var), ka = lw_axis_of(p->p.b, p->p.red[0]->var);
  if (!lw_step(p, "fill panel ro %s -> put", g->sum)) {
    copy_along(g, at, va, ka);
    return;
  }
  lw_step(p, "split put.%d %lld -> put.c put.v", va, (long long)g->lanes);
  if (g->late) g->late = lw_step(p, "peel mc 1 0");
}

/* A's columns, tile by tile: [tile][k][row]. */
static void copy_columns(gemm *g) {
  lw_plan *p = g->p;
  if (!lw_step(p, "layout rows \"split 1 %lld; perm 1 0 2\"", (long long)g->mr) || !lw_step(p, "split rows.1 %lld -> rows.o rows.i", (long long)g->mr)) return;
  if (lw_step(p, "split rows.0 %d -> rows.p rows.q", TURN_STEPS)) lw_step(p, "reorder rows.p rows.o rows.q");
  whole_copies(p, "rows.p", "rows.o");
  lw_kind(p, "vectorize", "rows.i");
}

/* A block of A in the order in which tiles read it: [chunk of the sum][tile][step][row], so that it lies in one piece
 * that hardware prefetchers follow. Turned in registers; turn_squares() completes it. */
static void copy_rows(gemm *g, const char *at) {
  lw_plan *p = g->p;
  int last = p->p.a->u.buf->rank - 1;
  if (!lw_step(p, "cache %s %s -> rows", p->p.a->u.buf->name, at)) return;
  while (last > 0 && !lw_has_loop(p, ir_format(p->ctx, "rows.%d", last))) last--; /* joined rows are one axis */
  if (g->turned) copy_columns(g);
  if (g->turned || last < 1) return;
  bool chunks = g->kc < g->k && g->k % g->kc == 0;
  ir_text perm = {.ctx = p->ctx};
  if (chunks) ir_put(&perm, "%d", last + 1);
  for (int i = 0; i < last; i++) ir_put(&perm, " %d", i);
  lw_step(p, "layout rows \"%ssplit %d %lld; perm %s %d %d\"", chunks ? ir_format(p->ctx, "split %d %lld; ", last, (long long)g->kc) : "", last - 1, (long long)g->mr, ir_text_str(&perm),
          last + 1 + chunks, last);
  lw_step(p, "split rows.%d %lld -> rows.t rows.i", last - 1, (long long)g->mr);
  lw_step(p, "split rows.%d %lld -> rows.o rows.v", last, (long long)g->lanes);
  lw_step(p, "reorder rows.t rows.o rows.i rows.v");
}

/* Whole squares in registers; what is left at the ends goes element by element. */
static void turn_squares(gemm *g) {
  lw_plan *p = g->p;
  if (lw_has_loop(p, "rows.t")) {
    if (g->m % (g->mr * g->mb)) lw_kind(p, "tail", "rows.t");
    if (g->k % g->lanes) lw_kind(p, "tail", "rows.o");
    lw_kind(p, "tensorize transpose", "rows.i");
  }
  if (!lw_has_loop(p, "panel.s")) return;
  if (g->k % g->lanes || g->k % g->kc) lw_kind(p, "tail", "panel.s");
  if (g->n % (g->nb * g->group)) lw_kind(p, "tail", "panel.o");
  lw_kind(p, "narrow", "panel.i");
  lw_kind(p, "tensorize transpose", "panel.i");
}

/* A constant B. With few rows it is read once, from memory: panels of one line of the cache, or of one
 * vector, one after another, so that several streams run side by side. */
static void pack_panels(gemm *g) {
  int64_t line = LINE / g->esize > g->lanes ? LINE / g->esize : g->lanes, few = g->nb % line || g->nb == line ? g->lanes : line;
  if (g->m > FEW_ROWS && g->kc < g->k && chunked_panels(g, g->p->p.b->u.buf->name)) return;
  lw_pack_constant(g->p, g->p->p.b, g->p->p.out[g->v]->var, g->m <= FEW_ROWS ? few : g->nb, &g->sum, 1);
}

/* Full tiles without guards, the last one apart. */
static void tails(const gemm *g) {
  lw_plan *p = g->p;
  if (g->kc < g->k && g->k % g->kc) {
    lw_step(p, "peel ko 0 1");
    lw_kind(p, "narrow", g->sum);
  }
  if (g->n % (g->nb * g->group)) lw_kind(p, "tail", "vo");
  if (g->tiled && g->m % (g->mr * g->mb)) lw_kind(p, "tail", "ro");
}

/* Some steps of the sum at a time; a part of the next panel is asked for in each. */
static void unroll_steps(gemm *g, const ir_stmt *s, const void *user) {
  (void)user;
  lw_plan *p = g->p;
  const char *name = s->var->name;
  int64_t lo, hi, ku = p->u.ku ? p->u.ku : lw_steps_at_once(g->mr, g->nr);
  if (name[strlen(g->sum)] == '.' && (name[strlen(name) - 1] == 'o' || name[strlen(name) - 1] == 'u')) return; /* made here */
  if (!ix_const_value(s->lo, &lo) || !ix_const_value(s->hi, &hi)) return;
  while ((hi - lo) % ku) ku /= 2;
  g->ku = ku;
  if (ku > 1 && lw_step(p, "split %s %lld -> %s.o %s.u", name, (long long)ku, name, name)) lw_step(p, "unroll %s.u", name);
}

static void ask_ahead(gemm *g, const ir_stmt *s, const void *operand) {
  const ir_stmt *k = NULL;
  if (g->late && strncmp(s->var->name, "vo.a", 4) == 0) return; /* by ask_origin */
  for (const char *const *n = (const char *const[]){".o", "", ".b.o", ".b", NULL}; *n && !k; n++) k = ir_find_loop(s->body, ir_format(g->p->ctx, "%s%s", g->sum, *n));
  /* a full file of 32 registers: a branch between steps would spill a sum, so the lines are asked for before the tile */
  int64_t regs = g->p->t->vector_regs;
  if (g->tiled && regs > 16 && g->mr * g->nr + g->nr + 2 >= regs && ir_find_loop(s->body, "ro")) k = ir_find_loop(s->body, "ro");
  if (k && k->loop == IR_SERIAL) lw_step(g->p, "prefetch %s %s %lld %s -> %s.ahead", (const char *)operand, s->var->name, (long long)g->ahead, k->var->name, s->var->name);
}

/* The next panel's part of B, as it lies, is asked for by all whole tiles of this one; a panel further where rows do not begin
 * with a line, as the next one's second lines are then what the one behind it begins with. */
static void ask_within(gemm *g, const ir_stmt *s, const char *panels, int64_t ahead) {
  if (!s) return;
  if (is_copy(s, g->sum)) {
    lw_step(g->p, "prefetch %s %s %lld %s -> %s.ahead.%s", g->p->p.b->u.buf->name, panels, (long long)ahead, s->var->name, panels, s->var->name);
    return;
  }
  for (int i = 0; i < s->n; i++) ask_within(g, s->items[i], panels, ahead);
  ask_within(g, s->body, panels, ahead);
  ask_within(g, s->other, panels, ahead);
}
static void ask_from_tile(gemm *g, const ir_stmt *s, const void *panels) {
  int64_t pitch = lw_stride(g->p->ctx, g->p->p.b, g->p->p.red[0]->var) * g->esize;
  ask_within(g, s->body, panels, g->p->u.ahead || pitch % LINE == 0 ? g->ahead : g->ahead + 1);
}
static void ask_origin(gemm *g, const ir_stmt *s, const void *user) {
  (void)user;
  if (g->ahead) each(g, s->body, "ro", ask_from_tile, s->var->name);
}

/* Memory of the next tile's results, while this one's are computed. */
static void ask_results(gemm *g, const ir_stmt *s, const void *user) {
  (void)user;
  const ir_stmt *inner = g->rows_first ? ir_find_loop(s->body, "vo") : s;
  if (inner) lw_step(g->p, "prefetch %s %s 1 %s -> %s.ready", g->p->p.store->buf->name, s->var->name, inner->var->name, s->var->name);
}

bool lw_default_gemm(lw_plan *p) {
  gemm g = {.p = p, .ku = 1, .ahead = p->u.ahead ? p->u.ahead - 1 : 1};
  lw_problem *q = &p->p;
  if (!operands(&g)) return false;
  g.m = lw_join_rows(p, g.r, g.v);
  bool fills = (!p->u.order || p->u.order == 3) && !g.constant && !g.across && !g.turned && g.row && g.m > 1;
  g.fill = fills && fill_fits(&g) && (p->u.order || fill_pays(&g));
  if (g.n * g.k * g.esize <= p->t->l2_bytes / 2 && !g.turned && !g.fill && !p->u.kc && !p->u.mb) return false;
  if (g.across && g.m <= FEW_ROWS) return false;
  g.stream = !g.constant && !g.across && !g.fill && (g.m <= FEW_ROWS || (g.m <= 2 * STREAM_ROWS && !g.turned && (p->u.order ? p->u.order == 1 : g.m <= STREAM_ROWS)));
  sizes(&g);
  if (g.m > FEW_ROWS && !g.tiled) return false;
  if (g.constant && g.mr >= 12 && g.kc == g.k && !p->u.mb) return false; /* panels stream from the second cache: rows outside them */
  int64_t panels = ceil_div(g.n, g.nb), tiles = ceil_div(g.m, g.mr);
  if (g.constant) pack_panels(&g);
  if (!lw_step(p, "split %s %lld -> vo vi", g.vec, (long long)g.nb) || !lw_step(p, "split vi %lld -> vb vv", (long long)g.lanes)) return false;
  if (g.tiled && !lw_step(p, "split %s %lld -> ro ri", g.row, (long long)g.mr)) return false;
  bool chunks = g.kc < g.k && (g.stream || g.m > FEW_ROWS), pack = !g.constant && !g.stream, mc = g.tiled && (g.mb < tiles || g.turned);
  bool vc = (g.group < panels || (pack && !chunks && !g.fill) || (pack && mc)) && lw_step(p, "split vo %lld -> vc vo", (long long)g.group);
  if (mc) mc = lw_step(p, "split ro %lld -> mc ro", (long long)g.mb);
  int64_t all = g.mb > 0 ? ceil_div(tiles, g.mb) : 1, part = g.tasks < 2 ? all : g.turned ? ceil_div(all, g.tasks) : all / g.tasks; /* no blocks: rows that are no tiles */
  bool mp = mc && g.tasks > 1 && lw_step(p, "split mc %lld -> mp mc", (long long)(part > 1 ? part : 1));
  ir_text outer = {.ctx = p->ctx};
  for (int i = 0; i < q->nout; i++) {
    const char *name = q->out[i]->var->name;
    if (i != g.v && (i != g.r || !g.tiled) && lw_has_loop(p, name)) ir_put(&outer, " %s", name);
  }
  bool rows_outside = mc && g.constant && g.copied, sum_outside = mc && pack && chunks && (g.turned || g.k * lw_min(g.n, g.group * g.nb) > MAX_COPY || g.k * g.mb * g.mr > MAX_COPY);
  const char *tile = g.tiled ? "ri vb vv" : "vb vv", *block = sum_outside ? "mc vo ro" : g.rows_first || (g.turned && !chunks) ? "ro vo" : g.tiled ? "vo ro" : "vo";
  const char *blocks = ir_format(p->ctx, "%s%s%s%s", mp ? " mp" : "", rows_outside ? " mc" : "", vc ? " vc" : "", mc && !rows_outside && !sum_outside ? " mc" : "");
  if (!lw_step(p, "reorder%s%s %s %s", ir_text_str(&outer), blocks, block, tile)) return false;
  if (chunks && !lw_step(p, "chunk %s %lld -> ko %s", g.sum, (long long)g.kc, g.sum)) return false;
  if (chunks && !(g.tiled ? lw_step(p, "distribute %s", tile) && lw_step(p, "raise ko %s", block) : lw_step(p, "distribute %s %s", block, tile))) return false;
  /* one row: a long sum in chunks rounds less, and a B that streams from memory leaves time for it */
  bool careful = !chunks && (p->u.accuracy > 0 ? !g.tiled && g.k >= 4 * CAREFUL : g.k >= 2 * STRICT_SUM);
  if (careful) g.kc = chunk_of(g.k, CAREFUL, CAREFUL * 3 / 2);
  if (careful && (!lw_step(p, "chunk %s %lld -> ko %s", g.sum, (long long)g.kc, g.sum) || !lw_step(p, "distribute %s", tile))) return false;
  const char *panel_at = g.fill ? "vo" : chunks && (!mc || sum_outside) ? "ko" : "vc", *rows_at = mc ? "mc" : chunks ? "ko" : NULL;
  g.late = fills && pack && mc && !g.fill && !sum_outside;
  if (pack) pack = pack_dynamic(&g, panel_at);
  if (g.copied && rows_at) copy_rows(&g, rows_at);
  if (!lw_step(p, "distribute %s", tile)) return false;
  if (pack && (g.fill || g.late)) fill_panels(&g, panel_at);
  tails(&g);
  turn_squares(&g);
  if (g.tiled) lw_kind(p, "unroll", "ri");
  lw_kind(p, "unroll", "vb");
  lw_kind(p, "vectorize", "vv");
  lw_kind(p, "unroll", "put.c");
  lw_kind(p, "vectorize", "put.v");
  each(&g, p->k->body, g.sum, unroll_steps, NULL);
  bool whole = single_block(&g), asks = g.ahead && g.m > FEW_ROWS && !g.fill && (g.constant || (pack && (whole || g.n % g.nb == 0)));
  if (asks) each(&g, p->k->body, !g.rows_first && !whole ? "vo" : chunks ? "ko" : "vc", ask_ahead, g.constant || whole ? q->b->u.buf->name : "panel");
  if (g.fill || g.late) each(&g, p->k->body, g.late ? "vo.a" : "vo", ask_origin, NULL);
  if (g.tiled) each(&g, p->k->body, "ro", ask_results, NULL);
  lw_parallel_outside(p);
  p->got = (lw_tunables){.mr = g.tiled ? (int)g.mr : 1, .nr = (int)g.nr, .ku = (int)g.ku, .order = g.fill || g.late ? 3 : g.rows_first || g.stream ? 1 : 2, .kc = (int)lw_min(g.kc, g.k), .mb = (int)g.mb,
                         .group = (int)g.group, .ahead = asks ? (int)g.ahead + 1 : 1, .rows = g.copied ? 1 : 2, .unfused = p->u.unfused};
  return true;
}
