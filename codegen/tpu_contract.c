/* tpu_contract.c — tiles of contractions: stage, weights, products, what follows. See tpu_contract.h. */
#include "codegen/tpu_contract.h"
#include <math.h>
#include <string.h>

typedef struct job {
  tc *c;
  const ct_match *x;
  const ct_plan *p;
  int order[TC_LANES];                  /* of the nest's loops, by the output */
  int64_t chunk[TC_LANES];              /* iterations of a tile, by loop of the nest */
  int64_t at[TC_LANES], n[TC_LANES];    /* of the running tile */
  int64_t half;                         /* bytes of accumulators that a tile may take */
  int turn;                             /* which half */
} job;

/* ---- the model ---- */

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

static int64_t most_steps(const tpu_machine *m) { return m->dataflow == TPU_OS ? INT32_MAX : m->rows; }

double ct_cycles(const tc *c, const ct_match *x, const ct_plan *p, double M, double N, double batch, bool fetched, int cores) {
  const tpu_machine *m = c->m;
  double cols = (double)tpu_tile_cols(m), width = N < cols ? N : cols, depth = (double)(p->K < m->rows ? p->K : m->rows);
  double row = x->row_cycles + (p->K <= m->window_depth ? m->window_cycles : 0);
  double rows = M * row, shift = (double)ceil_div(m->rows, m->shift_rows);
  double dram = (double)ir_dtype_bytes(p->resting->t) * width * depth / tpu_dram_bytes_per_cycle(m) * cores;
  if (shift > rows) rows = shift;
  if (fetched && dram > rows) rows = dram;
  ct_steps s = ct_steps_of(x, p->resting, most_steps(m));
  double tiles = (double)s.n[0];
  for (int k = 1; k < CT_RED; k++) tiles *= (double)ceil_div(s.n[k], s.part[k]);
  return batch * ceil(N / cols) * tiles * (rows + (double)m->matmul_overhead);
}

static double matrix_cycles(const tc *c, const ct_match *x, const ct_plan *p) {
  return ct_cycles(c, x, p, (double)p->M, (double)p->N, (double)p->batch, !p->resting->m->home.chip, 1);
}

static double vector_cycles(const tc *c, const ct_plan *p) {
  const tpu_machine *m = c->m;
  double macs = (double)p->batch * (double)p->M * (double)p->N * (double)p->K;
  double least = (double)p->K * m->vector_overhead;
  double cycles = macs * m->cost_simple / (double)(m->lanes > 0 ? m->lanes : 1), bytes = (double)ir_dtype_bytes(p->resting->t);
  for (int d = 0; d < p->resting->m->rank; d++) bytes *= (double)p->resting->m->extent[d];
  if (!p->resting->m->home.chip) least += bytes / tpu_dram_bytes_per_cycle(m); /* it is fetched before it is used */
  return cycles + least;
}

/* ---- sizes of tiles ---- */

static void halve_rows(const job *j, int64_t *chunk) { /* the outermost row loop that is not one iteration */
  for (int k = 0; k < 3; k++) {
    int l = j->p->row[k];
    if (l < 0 || chunk[l] == 1) continue;
    chunk[l] = ceil_div(chunk[l], 2);
    return;
  }
  if (j->p->column2 >= 0 && chunk[j->p->column2] > 1) chunk[j->p->column2] = ceil_div(chunk[j->p->column2], 2);
  else if (j->p->column >= 0) chunk[j->p->column] = ceil_div(chunk[j->p->column], 2);
}

static int64_t columns_of(const job *j, const int64_t *n) {
  return (j->p->column < 0 ? 1 : n[j->p->column]) * (j->p->column2 < 0 ? 1 : n[j->p->column2]);
}

static int64_t rows_of(const job *j, const int64_t *chunk) {
  int64_t n = 1;
  for (int k = 0; k < 3; k++)
    if (j->p->row[k] >= 0) n *= chunk[j->p->row[k]];
  return n;
}

static void choose_chunk(job *j) {
  const tpu_machine *m = j->c->m;
  const tpu_tunables *t = j->c->tile;
  const ct_plan *p = j->p;
  int64_t columns = t && t->columns ? t->columns : tpu_tile_cols(m), rows = t && t->rows ? t->rows : INT64_MAX;
  if (columns > tpu_tile_cols(m)) columns = tpu_tile_cols(m);
  for (int l = 0; l < j->x->nest->n; l++) j->chunk[l] = 1;
  for (int k = 0; k < 3; k++)
    if (p->row[k] >= 0) j->chunk[p->row[k]] = j->x->nest->extent[p->row[k]];
  if (p->column >= 0) j->chunk[p->column] = j->x->nest->extent[p->column] < columns ? j->x->nest->extent[p->column] : columns;
  if (p->column2 >= 0 && j->chunk[p->column] == j->x->nest->extent[p->column]) {
    int64_t n = columns / j->chunk[p->column], all = j->x->nest->extent[p->column2];
    j->chunk[p->column2] = n < all ? n : all;
  }
  int64_t width = tc_pitch(j->c, columns_of(j, j->chunk)), fit = j->half / (4 * width);
  if (fit < rows) rows = fit;
  if (m->dataflow == TPU_OS && m->rows < rows) rows = m->rows;
  for (int k = 0; k < 3; k++) { /* whole inner loops, a part of the first that does not fit */
    int l = p->row[k];
    if (l < 0) continue;
    int64_t inside = rows_of(j, j->chunk) / j->chunk[l], most = rows / inside;
    if (most < 1) most = 1;
    if (j->chunk[l] > most) j->chunk[l] = ceil_div(j->chunk[l], ceil_div(j->chunk[l], most));
  }
}

/* ---- addresses ---- */

/* Index d of an operand for the first element of the tile. */
static int64_t index_at(const job *j, const ct_operand *o, int d) {
  int64_t v = o->dim[d].c0;
  for (int l = 0; l < j->x->nest->n; l++) v += o->dim[d].coef[l] * j->at[l];
  return v;
}

static int64_t step_of(const ct_operand *o, int lane) { /* elements, in the box that is held */
  int64_t s = 0;
  for (int d = 0; lane >= 0 && d < o->m->rank; d++) s += o->dim[d].coef[lane] * (o->m->stride[d] / o->m->width);
  return s;
}

static int64_t red_extent(const job *j, int place) {
  int lane = j->p->step[place];
  return lane < 0 ? 1 : j->x->red_n[lane - j->x->nest->n];
}

static tpu_inst product_of(const job *j, int64_t acc) {
  const ct_plan *p = j->p;
  const ct_operand *o = p->moving;
  tpu_inst i = tpu_inst_of(TPU_MATMUL);
  tpu_window *w = &i.win;
  int64_t stride[3], start[3] = {0}, by_row[3], by_step[3], size[3] = {0};
  int64_t base = o->m->base;
  for (int d = 0; d < o->m->rank; d++) {
    bool checked = p->axis_dim[0] == d || p->axis_dim[1] == d || p->axis_dim[2] == d;
    base += ((checked ? 0 : index_at(j, o, d)) - o->m->lo[d]) * o->m->stride[d];
  }
  for (int a = 0; a < 3; a++) {
    int d = p->axis_dim[a], tap = p->step[1 + a];
    by_row[a] = d < 0 ? step_of(o, p->row[a]) : p->row[a] < 0 ? 0 : o->dim[d].coef[p->row[a]];
    by_step[a] = d < 0 ? step_of(o, tap) : tap < 0 ? 0 : o->dim[d].coef[tap];
    stride[a] = 1;
    if (d < 0 && by_row[a] < 0) { /* steps of rows have no sign */
      stride[a] = -1;
      by_row[a] = -by_row[a];
      by_step[a] = -by_step[a];
    }
    if (d < 0) continue;
    stride[a] = o->m->stride[d] / o->m->width;
    start[a] = index_at(j, o, d);
    size[a] = o->m->extent[d];
  }
  w->z0 = (int32_t)start[0], w->y0 = (int32_t)start[1], w->x0 = (int32_t)start[2];
  w->depth = (int32_t)size[0], w->height = (int32_t)size[1], w->width = (int32_t)size[2];
  w->sz = (int32_t)by_row[0], w->sy = (int32_t)by_row[1], w->sx = (int32_t)by_row[2];
  w->dz = (int32_t)by_step[0], w->dy = (int32_t)by_step[1], w->dx = (int32_t)by_step[2];
  w->kc = (int32_t)red_extent(j, 0), w->kd = (int32_t)red_extent(j, 1), w->kh = (int32_t)red_extent(j, 2), w->kw = (int32_t)red_extent(j, 3);
  w->a_zero = (int16_t)o->zero, w->w_zero = (int16_t)p->resting->zero;
  int64_t columns = columns_of(j, j->n), pitch = tc_pitch(j->c, columns), rows[3];
  for (int k = 0; k < 3; k++) rows[k] = p->row[k] < 0 ? 1 : j->n[p->row[k]];
  for (int k = 0; k < 3; k++) i.extent[k] = (int32_t)rows[k];
  i.extent[3] = (int32_t)columns;
  i.src = tpu_at(TPU_UB, o->t, base, (int32_t)stride[0], (int32_t)stride[1], (int32_t)stride[2], (int32_t)step_of(o, p->step[0]));
  i.dst = tpu_at(TPU_ACC, j->x->acc->dtype, acc, (int32_t)(rows[1] * rows[2] * pitch), (int32_t)(rows[2] * pitch), (int32_t)pitch, 1);
  i.flags = p->channels_last ? TPU_CHANNELS_LAST : 0;
  return i;
}

static tpu_inst tile_of(const job *j) {
  const ct_plan *p = j->p;
  const ct_operand *o = p->resting;
  tpu_inst i = tpu_inst_of(TPU_WEIGHTS);
  int64_t base = o->m->home.address;
  for (int d = 0; d < o->m->rank; d++) base += index_at(j, o, d) * o->stride[d] * o->m->width;
  i.extent[3] = (int32_t)columns_of(j, j->n);
  i.src = tpu_at(o->m->home.chip ? TPU_UB : TPU_DRAM, o->t, base, 0, 0, 0, p->column < 0 ? 0 : (int32_t)o->step[p->column]);
  return i;
}

/* ---- products of a tile ---- */

static void one_product(job *j, tpu_inst tile, tpu_inst product, int64_t first, const int64_t *n, const int64_t *step, const int64_t *at) {
  for (int k = 0; k < CT_RED; k++) {
    tile.src.addr += at[k] * step[k] * j->p->resting->m->width;
    if (!k) continue; /* one iteration */
    tile.extent[k - 1] = (int32_t)n[k];
    tile.src.stride[k - 1] = (int32_t)step[k];
  }
  product.win.k_first = (int32_t)first;
  product.win.k_count = (int32_t)(n[1] * n[2] * n[3]);
  product.flags |= TPU_SWAP | (first ? TPU_ACCUMULATE : 0);
  te_emit(j->c, tile);
  te_emit(j->c, product);
}

static void products(job *j, int64_t acc) {
  ct_steps s = ct_steps_of(j->x, j->p->resting, most_steps(j->c->m));
  const int64_t *n = s.n;
  tpu_inst tile = tile_of(j), product = product_of(j, acc);
  int64_t at[CT_RED], len[CT_RED];
  for (at[0] = 0; at[0] < n[0]; at[0]++)
    for (at[1] = 0; at[1] < n[1]; at[1] += s.part[1])
      for (at[2] = 0; at[2] < n[2]; at[2] += s.part[2])
        for (at[3] = 0; at[3] < n[3]; at[3] += s.part[3]) {
          for (int k = 0; k < CT_RED; k++) len[k] = n[k] - at[k] < s.part[k] ? n[k] - at[k] : s.part[k];
          one_product(j, tile, product, ((at[0] * n[1] + at[1]) * n[2] + at[2]) * n[3] + at[3], len, s.step, at);
        }
}

/* ---- tiles ---- */

static bool inside(const ct_plan *p, int l) { return l == p->column || l == p->column2 || l == p->row[0] || l == p->row[1] || l == p->row[2]; }

/* The loops of the tile are lanes, the accumulator is a memory of theirs. */
static void open_tile(job *j, int64_t acc) {
  tc *c = j->c;
  const ct_plan *p = j->p;
  int lane[TC_LANES];
  for (int l = 0; l < j->x->nest->n; l++) {
    const ir_stmt *s = j->x->nest->loop[l];
    if (inside(p, l)) lane[l] = tc_push_lane(c, s->var, j->x->nest->lo[l] + j->at[l], j->n[l]);
    else tc_bind_const(c, s->var, j->x->nest->lo[l] + j->at[l]);
  }
  int count = 0;
  for (int i = 0; i < j->x->nest->n; i++)
    if (inside(p, j->order[i])) c->lane_order[count++] = lane[j->order[i]];
  tc_mem *m = ir_map_get(&c->mems, j->x->acc);
  if (!m) ir_map_set(&c->mems, j->x->acc, m = IR_NEW(c->ctx, tc_mem));
  *m = (tc_mem){.buf = j->x->acc, .width = 4, .acc = true, .base = acc, .at = acc, .bytes = 4};
  int places[] = {p->column, p->column2, p->row[2], p->row[1], p->row[0]};
  for (int k = 0; k < IR_COUNT(places); k++) {
    if (k == 2) m->bytes = 4 * tc_pitch(c, columns_of(j, j->n));
    if (places[k] < 0) continue;
    m->lane[lane[places[k]]] = m->bytes;
    m->bytes *= j->n[places[k]];
  }
}

static void run_tile(job *j) {
  tc *c = j->c;
  int64_t acc = j->turn ? j->half : 0;
  j->turn = !j->turn;
  int trail = c->ntrail;
  open_tile(j, acc);
  tc_stage(c, j->x->rest);
  products(j, acc);
  tc_store_late(c);
  tc_exec(c, j->x->rest);
  tc_unstage(c);
  while (c->nlanes) tc_pop_lane(c);
  tc_unbind(c, trail);
  memset(&c->box, 0, sizeof c->box);
}

/* Bytes of the moving operand's box in the largest tile: that in the middle may be cut by an edge
 * of the operand where others are not. */
static int64_t moving_bytes(const job *j) {
  const ct_operand *o = j->p->moving;
  const tc_mem *m = o->m;
  int64_t bytes = m->width;
  for (int d = 0; d < m->rank; d++) {
    int64_t n = 1;
    for (int l = 0; l < j->x->nest->n + j->x->nred; l++) {
      int64_t reach = o->dim[d].coef[l] * ((l < j->x->nest->n ? j->chunk[l] : j->x->red_n[l - j->x->nest->n]) - 1);
      n += reach < 0 ? -reach : reach;
    }
    if (n > m->extent[d]) n = m->extent[d];
    bytes *= d == m->rank - 1 ? tc_pitch(j->c, n) : n;
  }
  return bytes;
}

/* The moving operand's box for the rows of a tile, on the chip. */
static void stage_moving(job *j) {
  const ct_operand *o = j->p->moving;
  tc_mem *m = o->m;
  if (m->home.chip) return;
  int64_t bytes = m->width;
  for (int d = m->rank - 1; d >= 0; d--) {
    int64_t lo = index_at(j, o, d), hi = lo;
    for (int l = 0; l < j->x->nest->n + j->x->nred; l++) {
      int64_t reach = o->dim[d].coef[l] * ((l < j->x->nest->n ? j->n[l] : j->x->red_n[l - j->x->nest->n]) - 1);
      if (reach < 0) lo += reach;
      else hi += reach;
    }
    if (lo < 0) lo = 0;
    if (hi > m->extent[d] - 1) hi = m->extent[d] - 1;
    m->lo[d] = lo;
    m->n[d] = hi >= lo ? hi - lo + 1 : 0;
    m->stride[d] = bytes;
    bytes *= d == m->rank - 1 ? tc_pitch(j->c, m->n[d]) : m->n[d];
  }
  m->bytes = bytes;
  m->at = m->base = 0;
  if (!bytes) return; /* all of it is padding */
  m->at = m->base = tc_alloc(j->c, bytes, true);
  tc_move_box(j->c, true, m);
}

static void unstage_moving(job *j) {
  tc_mem *m = j->p->moving->m;
  if (m->home.chip || !m->bytes) return;
  tc_arena_put(&j->c->scratch, m->at, m->bytes);
  m->bytes = 0;
}

static void set_part(job *j, int l, int64_t at) {
  int64_t rest = j->x->nest->extent[l] - at;
  j->at[l] = at;
  j->n[l] = j->chunk[l] < rest ? j->chunk[l] : rest;
}

static void column_tiles(job *j, int l) {
  for (int64_t at = 0; at < j->x->nest->extent[l]; at += j->chunk[l]) {
    set_part(j, l, at);
    run_tile(j);
  }
}

static void columns(job *j) {
  int l = j->p->column, l2 = j->p->column2;
  stage_moving(j);
  if (l < 0) run_tile(j);
  else if (l2 < 0) column_tiles(j, l);
  else
    for (int64_t at = 0; at < j->x->nest->extent[l2]; at += j->chunk[l2]) {
      set_part(j, l2, at);
      column_tiles(j, l);
    }
  unstage_moving(j);
}

static void rows(job *j, int k) {
  if (k == 3) {
    columns(j);
    return;
  }
  int l = j->p->row[k];
  if (l < 0) {
    rows(j, k + 1);
    return;
  }
  for (int64_t at = 0; at < j->x->nest->extent[l]; at += j->chunk[l]) {
    set_part(j, l, at);
    rows(j, k + 1);
  }
}

static void outer(job *j, int i) {
  if (i == j->p->nouter) {
    rows(j, 0);
    return;
  }
  int l = j->p->outer[i];
  for (int64_t at = 0; at < j->x->nest->extent[l]; at++) {
    set_part(j, l, at);
    outer(j, i + 1);
  }
}

/* A tile from the middle, with its staging: for its memory. */
static void one_tile(tc *c, void *arg) {
  job *j = arg;
  if (!j->p->moving->m->home.chip && moving_bytes(j) > c->scratch_bytes / 3) longjmp(*c->full, 1);
  for (int l = 0; l < j->x->nest->n; l++) set_part(j, l, (j->x->nest->extent[l] / j->chunk[l]) / 2 * j->chunk[l]);
  stage_moving(j);
  run_tile(j);
  unstage_moving(j);
}

bool tc_contract(tc *c, const tc_nest *nest) {
  ct_match *x = IR_NEW(c->ctx, ct_match);
  ct_plan plans[2];
  const ct_plan *best = NULL;
  if (!ct_match_nest(c, nest, x)) return false;
  int want = c->tile ? c->tile->stationary : 0;
  for (int k = 0; k < 2; k++) {
    if (want && want != k + 1) continue;
    if (!ct_plan_window(x, k == 1, &plans[k])) continue;
    if (!best || matrix_cycles(c, x, &plans[k]) < matrix_cycles(c, x, best)) best = &plans[k];
  }
  if (!best || (!want && matrix_cycles(c, x, best) > vector_cycles(c, best))) return false;
  job j = {.c = c, .x = x, .p = best, .half = c->m->acc_bytes / 2 & ~(int64_t)63};
  tc_nest_order(c, nest, j.order);
  choose_chunk(&j);
  c->limit = INT32_MAX;
  while (!tc_try(c, one_tile, &j)) {
    int64_t before = rows_of(&j, j.chunk) * columns_of(&j, j.chunk);
    halve_rows(&j, j.chunk);
    if (rows_of(&j, j.chunk) * columns_of(&j, j.chunk) == before) return false;
  }
  j.turn = 0;
  outer(&j, 0);
  tc_store_late(c);
  return true;
}
