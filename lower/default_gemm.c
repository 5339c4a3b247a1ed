/* default_gemm.c — the default schedule of matrix products that do not stay in the first caches.
 *
 *   for vc:                   NC columns of C: panels of NR vectors
 *     for mc:                 MC rows
 *       for ko:               KC steps of the sum; C's block is an array in memory when there are several
 *         copy of B[KC, NC]   panels one after another (B dynamic)
 *         copy of A[MC, KC]   (rows that lie so far apart that they share cache sets)
 *         for vo: for ro:     a panel of B stays in the first cache, the block of A in the second
 *           the register tile
 *
 * after Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", ACM TOMS 34
 * (2008). With few rows there is nothing to keep: KC is so small that B is read as it lies in
 * memory, several rows at a time. Where A lies column by column (the gradient of weights), it is copied
 * tile by tile: of each line that a step of the sum brings, a tile needs a part. Steps that are refused
 * leave a simpler order. */
#include "lower/default_schedule.h"
#include <string.h>

enum {
  PAGE = 4096,
  LONG_SUM = 1024,  /* steps that one pass through the registers may take */
  STREAM_M = 24,    /* rows of A that do not pay for a copy of B */
  STREAM_ROWS = 32, /* rows of B read side by side */
  TURN_COLUMNS = 320 /* of C, for which turning A is a twentieth of the work */
};

typedef struct gemm {
  lw_plan *p;
  int v, r;             /* loops of vectors and rows among the outputs; r: -1 without one */
  const char *vec, *row;
  int64_t m, n, k, rows; /* rows: of all output loops that share a B */
  int64_t lanes, esize, mr, nr, nb;
  int64_t kc, group, mb; /* steps, panels, tiles of rows in a block */
  bool tiled, stream;   /* stream: B is read once, as it lies */
  bool turned;          /* A is [k, m] */
} gemm;

static bool uses(ix load, const ir_var *v) { return ix_uses_var(load, v); }

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
  if (!q->b->u.buf->constant && lw_stride(p->ctx, q->b, q->out[g->v]->var) != 1) return false;
  for (int i = q->nout; i-- > 0 && g->r < 0;)
    if (i != g->v && q->extent[i] > 1 && !uses(q->b, q->out[i]->var) && uses(q->a, q->out[i]->var)) g->r = i;
  g->vec = q->out[g->v]->var->name;
  g->row = g->r >= 0 ? q->out[g->r]->var->name : NULL;
  g->m = g->r >= 0 ? q->extent[g->r] : 1;
  g->n = q->extent[g->v];
  g->k = q->red_extent[0];
  g->esize = (int64_t)ir_dtype_bytes(q->b->u.buf->dtype);
  const ix a = q->a;
  g->turned = g->r >= 0 && !a->u.buf->constant && !q->b->u.buf->constant && a->u.buf->rank == 2 && lw_axis_of(a, q->out[g->r]->var) == 1 && lw_axis_of(a, q->red[0]->var) == 0;
  return true;
}

/* Loops around the rows that continue them in memory join them. */
static void join_rows(gemm *g) {
  lw_plan *p = g->p;
  lw_problem *q = &p->p;
  for (int i = g->r - 1; i >= 0 && i != g->v && !p->u.unfused; i--) {
    const char *above = q->out[i]->var->name;
    if (uses(q->b, q->out[i]->var)) break;
    const ir_kernel *before = p->k;
    size_t length = p->text.n;
    for (int j = i + 1; j < g->r; j++) /* loops of one iteration in between */
      if (lw_has_loop(p, q->out[j]->var->name)) lw_step(p, "fuse %s %s -> %s", above, q->out[j]->var->name, above);
    if (!lw_step(p, "fuse %s %s -> %s", above, g->row, g->row) || !lw_rows_linear(p, g->row)) {
      p->k = before;
      lw_cut(p, length);
      break;
    }
    g->m *= q->extent[i];
  }
  g->rows = g->m;
}

/* The largest divisor of n that is at most `most`, if it is above half of that; else `most`. */
static int64_t even(int64_t n, int64_t most) {
  if (most >= n) return n;
  for (int64_t d = most; d > most / 2; d--)
    if (n % d == 0) return d;
  return most;
}

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

static void sizes(gemm *g) {
  lw_plan *p = g->p;
  lw_tile t = lw_best_tile(g->m, g->n, g->lanes, p->t->vector_regs, g->m <= 2 ? 8 : 6);
  g->mr = p->u.mr ? lw_min(p->u.mr, g->m) : t.mr;
  g->nr = p->u.nr ? p->u.nr : t.nr;
  g->nb = g->nr * g->lanes;
  g->tiled = g->row && g->m > 1 && g->mr > 1;
  int64_t panels = ceil_div(g->n, g->nb), tiles = ceil_div(g->m, g->mr), least = g->stream ? 8 : 256;
  g->kc = g->stream ? STREAM_ROWS / (g->m > 1 ? 1 : 4) : p->t->l1_bytes / 2 / (g->nb * g->esize);
  if (g->kc < least) g->kc = least;
  g->kc = p->u.kc ? p->u.kc : even(g->k, ceil_div(g->k, ceil_div(g->k, g->kc)));
  g->mb = g->stream ? tiles : p->t->l2_bytes / 4 / (g->kc * g->esize * g->mr);
  g->mb = p->u.mb ? lw_min(p->u.mb, tiles) : even(tiles, g->mb < 1 ? 1 : g->mb);
  g->group = g->stream ? ceil_div(panels, 4) : p->t->l2_bytes / 4 / (g->mb * g->mr * g->nb * g->esize);
  if (g->turned) { /* all of B in panels, but enough groups to be tasks */
    int64_t most = p->t->l1_bytes / (g->nb * g->esize);
    if (g->k <= most && !p->u.kc) g->kc = g->k;
    g->group = ceil_div(panels, 1 + g->n / TURN_COLUMNS);
  }
  if (g->stream && g->group * g->nb * g->esize < PAGE) g->group = PAGE / (g->nb * g->esize);
  if (p->u.group) g->group = p->u.group;
  g->group = g->group >= panels ? panels : p->u.group ? g->group : even(panels, g->group < 1 ? 1 : g->group);
}

/* The block of B in panels: [panel][..., k][column]. */
static void pack_dynamic(gemm *g, const char *at) {
  lw_plan *p = g->p;
  ix b = p->p.b;
  int va = lw_axis_of(b, p->p.out[g->v]->var), rank = b->u.buf->rank;
  if (va < 0 || !lw_step(p, "cache %s %s -> panel", b->u.buf->name, at)) return;
  ir_text perm = {.ctx = p->ctx};
  ir_put(&perm, "%d", va);
  for (int i = 0; i <= rank; i++)
    if (i != va && i != va + 1) ir_put(&perm, " %d", i);
  lw_step(p, "layout panel \"split %d %lld; perm %s %d\"", va, (long long)g->nb, ir_text_str(&perm), va + 1);
  if (!lw_step(p, "split panel.%d %lld -> panel.o panel.i", va, (long long)g->nb) || !lw_step(p, "split panel.i %lld -> panel.c panel.v", (long long)g->lanes)) return;
  lw_step(p, "unroll panel.c");
  lw_step(p, "vectorize panel.v");
}

/* Rows a multiple of half a page apart fall on the same few sets of the caches; a copy does not. Columns
 * become [tile][k][row]. */
static bool copy_rows(gemm *g, const char *at) {
  lw_plan *p = g->p;
  ix a = p->p.a;
  if (g->turned) {
    if (!lw_step(p, "cache %s %s -> rows", a->u.buf->name, at) || !lw_step(p, "layout rows \"split 1 %lld; perm 1 0 2\"", (long long)g->mr)) return false;
    if (lw_step(p, "split rows.1 %lld -> rows.o rows.i", (long long)g->mr)) lw_step(p, "unroll rows.i");
    return true;
  }
  int64_t far = lw_stride(p->ctx, a, p->p.out[g->r]->var) * (int64_t)ir_dtype_bytes(a->u.buf->dtype);
  if (p->u.rows ? p->u.rows != 1 : far <= 0 || far % (PAGE / 2)) return false;
  if (!lw_step(p, "cache %s %s -> rows", a->u.buf->name, at)) return false;
  if (lw_step(p, "split rows.%d %lld -> rows.o rows.v", a->u.buf->rank - 1, (long long)g->lanes)) lw_step(p, "vectorize rows.v");
  return true;
}

/* Full tiles without guards: the last block of rows, and the last tile in it, apart. */
static void tails(gemm *g, bool vc, bool mc) {
  lw_plan *p = g->p;
  bool ragged = g->tiled && g->m % g->mr;
  if (mc && ragged) lw_step(p, "peel mc 0 1");
  if (mc) lw_kind(p, "narrow", "ro");
  if (vc) lw_kind(p, "narrow", "vo");
  int64_t tiles = ceil_div(g->m, g->mr), none = mc ? ceil_div(tiles, g->mb) * g->mb - tiles : 0;
  if (ragged && none) lw_step(p, "peel ro.b 0 %lld", (long long)none); /* of tiles beyond the last row nothing is left */
  if (ragged) lw_step(p, "peel %s 0 1", mc ? "ro.b" : "ro");
}

static void unroll_steps(gemm *g, const ir_stmt *s, const char *k, int64_t ku) {
  if (!s || ku < 2) return;
  size_t n = strlen(k);
  if (s->kind == IR_FOR && strncmp(s->var->name, k, n) == 0 && (!s->var->name[n] || s->var->name[n] == '.')) {
    const char *name = s->var->name;
    if (lw_step(g->p, "split %s %lld -> %s.o %s.u", name, (long long)ku, name, name)) lw_step(g->p, "unroll %s.u", name);
    return;
  }
  for (int i = 0; i < s->n; i++) unroll_steps(g, s->items[i], k, ku);
  unroll_steps(g, s->body, k, ku);
  unroll_steps(g, s->other, k, ku);
}

bool lw_default_gemm(lw_plan *p) {
  gemm g = {.p = p};
  lw_problem *q = &p->p;
  if (!operands(&g)) return false;
  join_rows(&g);
  bool constant = q->b->u.buf->constant;
  int64_t bytes = g.n * g.k * g.esize;
  if (bytes <= p->t->l2_bytes / 2 && !p->u.kc && !p->u.mb) return false;
  g.stream = !constant && g.m <= STREAM_M;
  if (!g.stream && !g.turned && !p->u.kc && !p->u.mb && (constant ? g.k <= LONG_SUM : g.m > 512 && g.k <= LONG_SUM)) return false;
  sizes(&g);
  if (!g.stream && !g.tiled) return false;
  int64_t panels = ceil_div(g.n, g.nb), tiles = ceil_div(g.m, g.mr);
  const char *k = q->red[0]->var->name;
  if (constant) lw_pack_constant(p, q->b, q->out[g.v]->var, g.nb, &k, 1);
  if (!lw_step(p, "split %s %lld -> vo vi", g.vec, (long long)g.nb) || !lw_step(p, "split vi %lld -> vb vv", (long long)g.lanes)) return false;
  if (g.tiled && !lw_step(p, "split %s %lld -> ro ri", g.row, (long long)g.mr)) return false;
  bool vc = (g.group < panels || g.turned) && lw_step(p, "split vo %lld -> vc vo", (long long)g.group);
  bool mc = g.tiled && (g.mb < tiles || g.turned) && lw_step(p, "split ro %lld -> mc ro", (long long)g.mb);
  ir_text outer = {.ctx = p->ctx};
  for (int i = 0; i < q->nout; i++) {
    const char *name = q->out[i]->var->name;
    if (i != g.v && (i != g.r || !g.tiled) && q->extent[i] > 1 && lw_has_loop(p, name)) ir_put(&outer, " %s", name);
  }
  const char *tile = g.tiled ? "ri vb vv" : "vb vv", *block = ir_format(p->ctx, "%svo%s", mc ? "mc " : "", g.tiled ? " ro" : "");
  if (!lw_step(p, "reorder%s%s %s %s", ir_text_str(&outer), vc ? " vc" : "", block, tile)) return false;
  const char *at = vc ? "vc" : NULL;
  if (g.kc < g.k) {
    if (!lw_step(p, "chunk %s %lld -> ko %s", k, (long long)g.kc, k) || !lw_step(p, "distribute %s %s", block, tile)) return false;
    at = "ko";
  }
  if (at && !constant && !g.stream) pack_dynamic(&g, at);
  if (mc) at = "mc";
  bool copied = at && g.tiled && !g.stream && copy_rows(&g, at);
  if (!lw_step(p, "distribute %s", tile)) return false;
  tails(&g, vc, mc);
  int ahead = p->u.ahead ? p->u.ahead - 1 : 1;
  if (!constant || !ahead || !lw_step(p, "prefetch %s vo %d ro -> ahead", q->b->u.buf->name, ahead)) ahead = 0;
  if (g.tiled) lw_kind(p, "unroll", "ri");
  lw_kind(p, "unroll", "vb");
  lw_kind(p, "vectorize", "vv");
  int64_t ku = p->u.ku ? p->u.ku : g.mr * g.nr * 8 <= 160 ? 8 : 4;
  while (g.kc % ku) ku /= 2;
  unroll_steps(&g, p->k->body, k, ku);
  lw_parallel_outside(p);
  p->got = (lw_tunables){.mr = g.tiled ? (int)g.mr : 1, .nr = (int)g.nr, .ku = (int)ku, .order = 2, .kc = (int)lw_min(g.kc, g.k), .mb = (int)g.mb,
                         .group = (int)g.group, .ahead = ahead + 1, .rows = copied ? 1 : 2, .unfused = p->u.unfused};
  return true;
}
