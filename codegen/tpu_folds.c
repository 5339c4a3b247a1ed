/* tpu_folds.c — see tpu_folds.h. */
#include "codegen/tpu_folds.h"

/* Registers: where the operands of this group begin, and how far the folds have come in each. */
enum { GROUP_A = 1, GROUP_B, GROUP_D, KEPT_OUTER, KEPT_INNER, STREAM_OUTER, STREAM_INNER, RESULT_OUTER, RESULT_INNER };

#define MOST ((int64_t)1 << 40) /* elements that an instruction may have */

typedef struct gen {
  tn_ctx *ctx;
  tpu_program *p;
  const tpu_product *l;
  int64_t a, b, d;    /* DRAM addresses of the operands */
  int64_t staged;     /* where D is gathered in the UB */
} gen;

/* How a dataflow walks its two spatial axes; steps are bytes per element of the axis. */
typedef struct walk {
  int64_t outer, inner, outer_tile, inner_tile; /* extents; what a fold takes of them */
  int64_t kept_outer, kept_inner, stream_outer, stream_inner, result_outer, result_inner;
  bool sums; /* the folds of the inner axis add up */
} walk;

static tpu_inst *emit(gen *g, tpu_inst i) { return tpu_emit(g->ctx, g->p, 0, i); }

static void control(gen *g, tpu_opcode op, int reg, int reg2, int64_t imm) {
  tpu_inst i = tpu_inst_of(op);
  i.reg = (uint8_t)reg, i.reg2 = (uint8_t)reg2, i.imm = imm;
  emit(g, i);
}
static void plain(gen *g, tpu_opcode op) { emit(g, tpu_inst_of(op)); }

/* `count` times what comes until end_repeat; the place of the instruction. */
static int64_t begin_repeat(gen *g, int64_t count) {
  control(g, TPU_REPEAT, 0, 0, count);
  return g->p->core[0].n - 1;
}
static void end_repeat(gen *g, int64_t at) {
  tpu_core_text *t = &g->p->core[0];
  t->insts[at].span = (int32_t)(t->n - 1 - at);
}

static void extents(tpu_inst *i, int64_t a, int64_t b) { i->extent[2] = (int32_t)a, i->extent[3] = (int32_t)b; }

/* A matrix moves as it is between the memories. */
static void dma(gen *g, tpu_opcode op, tpu_operand dst, tpu_operand src, int64_t rows, int64_t cols) {
  tpu_inst i = tpu_inst_of(op);
  extents(&i, rows, cols);
  i.dst = dst, i.src = src;
  emit(g, i);
}

static tpu_operand matrix(tpu_space space, tn_dtype t, int64_t addr, int64_t row, int64_t col, int reg, int reg2) {
  tpu_operand o = tpu_at(space, t, addr, 0, 0, (int32_t)row, (int32_t)col);
  o.reg = (uint8_t)reg, o.reg2 = (uint8_t)reg2;
  return o;
}

/* One fold of `outer` x `inner` elements of the spatial axes: the next tile, and the product. */
static void fold(gen *g, const tpu_machine *m, int64_t outer, int64_t inner, bool accumulate) {
  const tpu_product *l = g->l;
  tpu_inst w = tpu_inst_of(TPU_WEIGHTS), x = tpu_inst_of(TPU_MATMUL);
  x.flags = (uint8_t)(TPU_SWAP | (accumulate ? TPU_ACCUMULATE : 0));
  int64_t k = inner;
  switch ((tpu_dataflow)m->dataflow) {
  case TPU_WS:
    w.src = matrix(TPU_DRAM, TN_I8, g->b, l->N, 1, KEPT_OUTER, KEPT_INNER);
    x.src = matrix(TPU_UB, TN_I8, 0, l->K, 1, STREAM_OUTER, STREAM_INNER);
    x.dst = matrix(TPU_ACC, TN_I32, 0, l->N, 1, RESULT_OUTER, RESULT_INNER);
    extents(&w, inner, outer), extents(&x, l->M, outer);
    break;
  case TPU_IS: /* transposed: rows of the streamed operand are columns of B */
    w.src = matrix(TPU_DRAM, TN_I8, g->a, 1, l->K, KEPT_OUTER, KEPT_INNER);
    x.src = matrix(TPU_UB, TN_I8, 0, 1, l->N, STREAM_OUTER, STREAM_INNER);
    x.dst = matrix(TPU_ACC, TN_I32, 0, 1, l->N, RESULT_OUTER, RESULT_INNER);
    extents(&w, inner, outer), extents(&x, l->N, outer);
    break;
  case TPU_OS:
    k = l->K;
    w.src = matrix(TPU_DRAM, TN_I8, g->b, l->N, 1, KEPT_OUTER, KEPT_INNER);
    x.src = matrix(TPU_UB, TN_I8, 0, l->K, 1, STREAM_OUTER, STREAM_INNER);
    x.dst = matrix(TPU_ACC, TN_I32, 0, l->N, 1, RESULT_OUTER, RESULT_INNER);
    extents(&w, k, inner), extents(&x, outer, inner);
    break;
  }
  x.win.kd = x.win.kh = x.win.kw = 1;
  x.win.kc = x.win.k_count = (int32_t)k;
  emit(g, w);
  emit(g, x);
}

static void advance(gen *g, int reg, int64_t bytes) {
  if (bytes) control(g, TPU_STEP, reg, 0, bytes);
}

static void folds_of(gen *g, const tpu_machine *m, const walk *w, int64_t times, int64_t outer, int64_t inner, bool accumulate) {
  if (times <= 0 || inner <= 0) return;
  int64_t at = times > 1 ? begin_repeat(g, times) : -1;
  fold(g, m, outer, inner, accumulate);
  advance(g, KEPT_INNER, w->kept_inner * inner);
  advance(g, STREAM_INNER, w->stream_inner * inner);
  advance(g, RESULT_INNER, w->result_inner * inner);
  if (at >= 0) end_repeat(g, at);
}

/* The inner axis once: the first fold of a sum overwrites, the others add. */
static void inner_axis(gen *g, const tpu_machine *m, const walk *w, int64_t times, int64_t outer) {
  if (times <= 0 || outer <= 0) return;
  int64_t at = times > 1 ? begin_repeat(g, times) : -1;
  control(g, TPU_CONFIG, KEPT_INNER, 0, 0);
  control(g, TPU_CONFIG, STREAM_INNER, 0, 0);
  control(g, TPU_CONFIG, RESULT_INNER, 0, 0);
  int64_t whole = w->inner / w->inner_tile, rest = w->inner % w->inner_tile;
  if (w->sums && whole) folds_of(g, m, w, 1, outer, w->inner_tile, false);
  folds_of(g, m, w, w->sums ? whole - 1 : whole, outer, w->inner_tile, w->sums);
  folds_of(g, m, w, 1, outer, rest, w->sums && whole);
  advance(g, KEPT_OUTER, w->kept_outer * outer);
  advance(g, STREAM_OUTER, w->stream_outer * outer);
  advance(g, RESULT_OUTER, w->result_outer * outer);
  if (at >= 0) end_repeat(g, at);
}

static walk walk_of(const tpu_machine *m, const tpu_product *l) {
  int64_t C = tpu_tile_cols(m);
  switch ((tpu_dataflow)m->dataflow) {
  case TPU_OS: return (walk){l->M, l->N, m->rows, C, 0, 1, l->K, 0, 4 * l->N, 4, false};
  case TPU_IS: return (walk){l->M, l->K, C, m->rows, l->K, 1, 0, l->N, 4 * l->N, 0, true};
  default: return (walk){l->N, l->K, C, m->rows, 1, l->N, 0, 1, 4, 0, true};
  }
}

/* The groups of a product, one after another, with nothing overlapping. */
static void product(gen *g, const tpu_machine *m) {
  const tpu_product *l = g->l;
  walk w = walk_of(m, l);
  bool a_kept = m->dataflow == TPU_IS;
  for (int r = GROUP_A; r <= GROUP_D; r++) control(g, TPU_CONFIG, r, 0, 0);
  int64_t at = l->groups > 1 ? begin_repeat(g, l->groups) : -1;
  int64_t rows = a_kept ? l->K : l->M, cols = a_kept ? l->N : l->K;
  dma(g, TPU_LOAD, matrix(TPU_UB, TN_I8, 0, cols, 1, 0, 0), matrix(TPU_DRAM, TN_I8, a_kept ? g->b : g->a, cols, 1, a_kept ? GROUP_B : GROUP_A, 0), rows, cols);
  plain(g, TPU_FENCE);
  control(g, TPU_CONFIG, KEPT_OUTER, 0, 0);
  control(g, TPU_STEP, KEPT_OUTER, a_kept ? GROUP_A : GROUP_B, 1);
  control(g, TPU_CONFIG, STREAM_OUTER, 0, 0);
  control(g, TPU_CONFIG, RESULT_OUTER, 0, 0);
  inner_axis(g, m, &w, w.outer / w.outer_tile, w.outer_tile);
  inner_axis(g, m, &w, 1, w.outer % w.outer_tile);
  plain(g, TPU_FENCE);
  tpu_inst move = tpu_inst_of(TPU_VECTOR);
  move.fn = IX_CAST;
  extents(&move, l->M, l->N);
  move.dst = matrix(TPU_UB, TN_I32, g->staged, l->N, 1, 0, 0);
  move.src = matrix(TPU_ACC, TN_I32, 0, l->N, 1, 0, 0);
  emit(g, move);
  plain(g, TPU_FENCE);
  dma(g, TPU_STORE, matrix(TPU_DRAM, TN_I32, g->d, l->N, 1, GROUP_D, 0), matrix(TPU_UB, TN_I32, g->staged, l->N, 1, 0, 0), l->M, l->N);
  plain(g, TPU_FENCE);
  if (at < 0) return;
  advance(g, GROUP_A, l->M * l->K), advance(g, GROUP_B, l->K * l->N), advance(g, GROUP_D, 4 * l->M * l->N);
  end_repeat(g, at);
}

/* Room in the DRAM for [groups, rows, cols]. */
static int64_t segment(gen *g, const char *what, tpu_segment_kind kind, int index, tn_dtype t, int64_t rows, int64_t cols) {
  int64_t at = g->p->dram_bytes, bytes = ir_dtype_bytes(t), most = (int64_t)1 << 60;
  if (rows > MOST / cols) ir_fail(g->ctx, TN_ERESOURCE, "layer '%s': an operand of more than 2^40 elements", g->l->name);
  if (__builtin_mul_overflow(bytes, rows, &bytes) || __builtin_mul_overflow(bytes, cols, &bytes) || __builtin_mul_overflow(bytes, g->l->groups, &bytes) ||
      bytes > most - at)
    ir_fail(g->ctx, TN_ERESOURCE, "layer '%s': the operands are more than 2^60 bytes", g->l->name);
  tpu_segment s = {.name = ir_format(g->ctx, "%s.%s", g->l->name, what), .kind = kind, .index = index, .addr = at, .bytes = bytes, .dtype = t, .rank = 3,
                   .dims = {g->l->groups, rows, cols}};
  tpu_program_segment(g->ctx, g->p, s);
  g->p->dram_bytes = (at + bytes + 63) & -(int64_t)64;
  return at;
}

tpu_program *tpu_folds(tn_ctx *ctx, const tpu_machine *m, int n, const tpu_product *products) {
  gen g = {.ctx = ctx, .p = tpu_program_new(ctx, m->name, 1)};
  for (int i = 0; i < n; i++) {
    const tpu_product *l = g.l = &products[i];
    g.a = segment(&g, "a", TPU_SEG_INPUT, 2 * i, TN_I8, l->M, l->K);
    g.b = segment(&g, "b", TPU_SEG_INPUT, 2 * i + 1, TN_I8, l->K, l->N);
    g.d = segment(&g, "d", TPU_SEG_OUTPUT, i, TN_I32, l->M, l->N);
    int64_t streamed = m->dataflow == TPU_IS ? l->K * l->N : l->M * l->K;
    g.staged = (streamed + 63) & -(int64_t)64;
    control(&g, TPU_TAG, 0, 0, tpu_program_tag(ctx, g.p, (tpu_tag){l->name, l->M, l->N, l->K, l->M * l->N * l->K * l->groups}));
    product(&g, m);
  }
  plain(&g, TPU_HALT);
  return g.p;
}
