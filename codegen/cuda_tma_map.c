/* cuda_tma_map.c — what the TMA unit copies: tensor maps of a product's operands and of its result, boxes of them as
 * coordinates. A tile of the sum is 128 bytes of its last loop; the outer loops of the sum, the rows and the batches are
 * axes of the map, or, for windows over images, the base pixels of im2col. */
#include "codegen/cuda_tma.h"
#include "lower/schedule.h"


#define REFUSE(text) return *reason = (text), false

static int64_t size_of(const cu_map *m) { return (int64_t)ir_dtype_bytes(m->dtype); }
static int64_t extent_of(const ir_stmt *loop) { return loop->var->hi - loop->var->lo + 1; }

/* ---- tensor maps ---- */

static bool start_map(const cu_product *g, const ir_buf *b, cu_map *m, const char **reason) {
  *m = (cu_map){.dtype = b->dtype, .param = -1};
  for (int i = 0; i < g->k->nbufs; i++)
    if (g->k->bufs[i] == b) m->param = i;
  if (m->param < 0) REFUSE("an operand that is no tensor of the kernel");
  return true;
}

static bool add_axis(cu_side *s, int64_t stride, int64_t extent, int64_t box, ix at, const char **reason) {
  cu_map *m = &s->map;
  if (m->rank == CU_MAP_RANK) REFUSE("more axes than a tensor map has");
  if (m->rank ? stride <= 0 || stride * size_of(m) % 16 || stride >= 1ll << 38 : stride != 1) REFUSE("strides that are no multiples of 16 bytes");
  if (extent > INT32_MAX) REFUSE("an axis that is too long");
  m->extent[m->rank] = extent;
  m->stride[m->rank] = stride;
  m->box[m->rank] = (int)box;
  m->step[m->rank] = 1;
  s->at[m->rank++] = at;
  return true;
}

/* The axes of the loops of `a` that move the operand, neighbours in memory counted as one; `rows`: they must be a single one. */
static bool add_loops(cu_product *g, cu_side *s, const cu_axis *a, ix offset, ix count, int64_t box, const char **reason) {
  tn_ctx *ctx = g->ctx;
  int before = s->map.rank;
  int64_t inner = 1, stride, next;
  for (int i = a->n - 1; i >= 0;) {
    int64_t n = extent_of(a->loops[i]), lo, first = inner;
    if (!ix_affine_in(offset, a->loops[i]->var, &stride) || !ix_const_value(a->loops[i]->lo, &lo)) REFUSE("addresses that are not affine");
    s->map.offset += stride * lo;
    inner *= n;
    for (i--; stride && i >= 0 && ix_affine_in(offset, a->loops[i]->var, &next) && (next == stride * n || extent_of(a->loops[i]) == 1); i--) {
      if (!ix_const_value(a->loops[i]->lo, &lo)) REFUSE("addresses that are not affine");
      s->map.offset += next * lo;
      n *= extent_of(a->loops[i]);
      inner *= extent_of(a->loops[i]);
    }
    if (n == 1 || !stride) continue;
    ix at = ix_divi(ctx, count, first);
    if (i >= 0) at = ix_remi(ctx, at, n);
    if (!add_axis(s, stride, n, box, at, reason)) return false;
  }
  if (box > 1 && s->map.rank != before + 1) REFUSE("rows that are not one axis in memory");
  return true;
}

static cu_axis outer_sum(const cu_product *g) {
  cu_axis a = g->sum;
  a.n--;
  return a;
}

static bool tiled_map(cu_product *g, const cu_operand *o, cu_side *s, const cu_place *p, const char **reason) {
  tn_ctx *ctx = g->ctx;
  const ir_stmt *last = g->sum.loops[g->sum.n - 1];
  ix offset = ir_buf_offset(ctx, o->value->u.buf, o->value->args), term[64];
  int64_t coef[64], stride;
  cu_axis outer = outer_sum(g);
  *s = (cu_side){0};
  if (o->guard) REFUSE("a guard");
  if (!start_map(g, o->value->u.buf, &s->map, reason)) return false;
  int n = ix_linear(offset, &s->map.offset, coef, term, 64);
  for (int i = 0; i < n; i++)
    if (term[i]->op != IX_VAR) REFUSE("addresses that are not affine");
  if (!ix_affine_in(offset, last->var, &stride) || stride != 1) REFUSE("operands that do not lie along the sum");
  if (!add_axis(s, 1, extent_of(last), g->bk, p->inner, reason) || !add_loops(g, s, &o->rows, offset, p->rows, p->box, reason) ||
      !add_loops(g, s, &outer, offset, p->outer, 1, reason) || !add_loops(g, s, &g->batch, offset, p->batch, 1, reason))
    return false;
  if (s->map.offset * size_of(&s->map) % 16) REFUSE("a tensor that does not start at a multiple of 16 bytes");
  return true;
}

/* ---- im2col ---- */

static const ir_stmt *loop_of(const cu_axis *a, const ir_var *v, int *number) {
  for (*number = 0; *number < a->n; ++*number)
    if (a->loops[*number]->var == v) return a->loops[*number];
  return NULL;
}

typedef struct window { /* an index: step * row + by * sum + start */
  const ir_stmt *row, *sum;
  int row_number, sum_number;
  int64_t step, by, start;
} window;

static bool window_of(const cu_product *g, const cu_operand *o, ix index, window *w) {
  int64_t coef[8], lo;
  ix term[8];
  if (index->op != IX_CONST && index->op != IX_VAR && index->op != IX_ADD && index->op != IX_SUB && index->op != IX_MUL) return false;
  cu_axis outer = outer_sum(g);
  *w = (window){0};
  int n = ix_linear(index, &w->start, coef, term, 8), number;
  for (int i = 0; i < n; i++) {
    if (term[i]->op != IX_VAR) return false;
    const ir_stmt *l = loop_of(&o->rows, term[i]->u.var, &number);
    if (l && !w->row) w->row = l, w->row_number = number, w->step = coef[i];
    else if ((l = loop_of(&outer, term[i]->u.var, &number)) && !w->sum) w->sum = l, w->sum_number = number, w->by = coef[i];
    else return false;
    if (!ix_const_value(l->lo, &lo) || lo) return false;
  }
  return true;
}

/* Whether the guard says no more than that indices lie within the tensor. */
static bool is_border(tn_ctx *ctx, ix guard, const ir_buf *b, const ix *args) {
  if (!guard) return true;
  if (guard->op == IX_AND) return is_border(ctx, guard->args[0], b, args) && is_border(ctx, guard->args[1], b, args);
  for (int d = 0; d < b->rank; d++)
    if (guard == ix_le(ctx, ix_index(ctx, 0), args[d]) || guard == ix_lt(ctx, args[d], b->shape[d])) return true;
  return false;
}

static int64_t stride_of(cu_product *g, const ir_buf *b, int axis) {
  ix args[IR_MAX_RANK], zero = ix_index(g->ctx, 0);
  ir_var *v = ir_var_new(g->ctx, "axis", TN_INDEX, 0, b->shape[axis]->hi > 0 ? b->shape[axis]->hi - 1 : 0);
  for (int d = 0; d < b->rank; d++) args[d] = d == axis ? v->expr : zero;
  int64_t stride;
  return ix_affine_in(ir_buf_offset(g->ctx, b, args), v, &stride) ? stride : -1;
}

static bool add_pixels(cu_product *g, const cu_operand *o, cu_side *s, const cu_place *p, int axis, const window *w, bool first_row, const char **reason) {
  tn_ctx *ctx = g->ctx;
  const ir_buf *b = o->value->u.buf;
  int64_t extent, base = w->row ? w->step * (extent_of(w->row) - 1) + w->start : w->start, limit = s->map.rank - 1;
  cu_axis outer = outer_sum(g);
  if (!ix_const_value(b->shape[axis], &extent)) REFUSE("sizes that are not known");
  if (!add_axis(s, stride_of(g, b, axis), extent, 1, NULL, reason)) return false;
  ix at = w->row ? cu_axis_at(ctx, &o->rows, w->row_number, p->rows) : ix_index(ctx, 0);
  if (w->row && first_row) at = ix_divi(ctx, p->rows, o->rows.extent / extent_of(w->row)); /* no remainder: rows past the end lie past the tensor */
  int r = s->map.rank - 1;
  s->at[r] = ix_addi(ctx, ix_muli(ctx, at, w->row ? w->step : 1), w->start);
  if (limit == 3) return true;
  s->map.step[r] = w->row ? (int)w->step : 1;
  s->shift[r - 1] = w->sum ? ix_muli(ctx, cu_axis_at(ctx, &outer, w->sum_number, p->outer), w->by) : ix_index(ctx, 0);
  s->map.lower[r - 1] = (int)w->start;
  s->map.upper[r - 1] = (int)(base - (extent - 1));
  if (s->map.step[r] < 1 || s->map.step[r] > 8 || (w->sum && (w->by < 1 || w->by * (extent_of(w->sum) - 1) > 255))) REFUSE("strides or windows that the TMA unit does not have");
  if (w->start < -128 || w->start > 127 || s->map.upper[r - 1] < -128 || s->map.upper[r - 1] > 127) REFUSE("borders that the TMA unit does not have");
  return true;
}

/* Rows are (image, y, x); the operand is [image, y, x, c] in memory, in whatever order its axes are named. */
static bool im2col_map(cu_product *g, const cu_operand *o, cu_side *s, const cu_place *p, const char **reason) {
  const ir_buf *b = o->value->u.buf;
  const ix *args = o->value->args;
  const ir_stmt *last = g->sum.loops[g->sum.n - 1];
  int axis[4] = {-1, -1, -1, -1}; /* c, x, y, image */
  window w[4] = {0};
  *s = (cu_side){0};
  if (b->rank != 4 || !start_map(g, o->value->u.buf, &s->map, reason)) REFUSE("no tensor of images");
  for (int d = 0; d < 4; d++) { /* by stride: the order in memory */
    int at = 0;
    int64_t mine = stride_of(g, b, d);
    for (int e = 0; e < 4; e++) at += e != d && (stride_of(g, b, e) < mine || (stride_of(g, b, e) == mine && e > d));
    axis[at] = d;
  }
  int64_t coef, channels, lo;
  if (!ix_const_value(b->shape[axis[0]], &channels) || !ix_const_value(last->lo, &lo) || lo) REFUSE("sizes that are not known");
  if (!ix_affine_in(args[axis[0]], last->var, &coef) || coef != 1) REFUSE("operands that do not lie along the sum");
  if (args[axis[0]] != last->var->expr || channels != extent_of(last)) REFUSE("groups of channels");
  if (!add_axis(s, stride_of(g, b, axis[0]), channels, 1, p->inner, reason)) return false;
  int expected = o->rows.n;
  for (int i = 1; i < 4; i++) { /* x, y, image run over the rows in this order */
    if (!window_of(g, o, args[axis[i]], &w[i]) || (i == 3 && (w[i].sum || (w[i].row ? w[i].step != 1 || w[i].start : 0)))) REFUSE("no window over images");
    if (w[i].row) {
      if (w[i].row_number >= expected) REFUSE("rows that are not pixels in order");
      for (int k = w[i].row_number + 1; k < expected; k++)
        if (extent_of(o->rows.loops[k]) != 1) REFUSE("rows that are not pixels in order");
      expected = w[i].row_number;
    }
  }
  for (int k = 0; k < expected; k++)
    if (extent_of(o->rows.loops[k]) != 1) REFUSE("rows that are not pixels in order");
  for (int i = 1; i < 4; i++)
    if (!add_pixels(g, o, s, p, axis[i], &w[i], i == 3, reason)) return false;
  if (!w[3].row) s->at[3] = ix_divi(g->ctx, p->rows, o->rows.extent); /* a single image */
  if (!is_border(g->ctx, o->guard, b, args)) REFUSE("a guard that is not the tensor's border");
  s->map.channels = (int)g->bk;
  s->map.pixels = (int)p->box;
  return true;
}

bool cu_tma_operand(cu_product *g, const cu_operand *o, cu_side *s, const cu_place *p, const char **reason) {
  return tiled_map(g, o, s, p, reason) || im2col_map(g, o, s, p, reason);
}

/* ---- the result ---- */

static bool of_loops(const cu_axis *a, const ir_var *v) {
  for (int i = 0; i < a->n; i++)
    if (a->loops[i]->var == v) return true;
  return false;
}

bool cu_tma_result(cu_product *g, const ir_stmt *store, cu_side *s, ix m, ix n, int64_t rows, int64_t columns, const char **reason) {
  ix offset = ir_buf_offset(g->ctx, store->buf, store->index), term[64];
  int64_t coef[64];
  *s = (cu_side){0};
  if (!start_map(g, store->buf, &s->map, reason)) return false;
  int terms = ix_linear(offset, &s->map.offset, coef, term, 64);
  for (int i = 0; i < terms; i++)
    if (term[i]->op != IX_VAR || !(of_loops(&g->a.rows, term[i]->u.var) || of_loops(&g->b.rows, term[i]->u.var) || of_loops(&g->batch, term[i]->u.var))) REFUSE("results whose addresses are not affine");
  if (!add_loops(g, s, &g->b.rows, offset, n, columns, reason) || !add_loops(g, s, &g->a.rows, offset, m, rows, reason) ||
      !add_loops(g, s, &g->batch, offset, g->at_b, 1, reason))
    return false;
  if (s->map.offset * size_of(&s->map) % 16) REFUSE("a tensor that does not start at a multiple of 16 bytes");
  return true;
}
