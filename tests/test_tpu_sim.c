/* Values of the simulated machine against a slow reference, instruction by instruction. */
#include "ir/interp.h"
#include "runtime/tpu_sim.h"
#include "tests/tpu_random.h"
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

/* ---- the reference: loops as the head of tpu_isa.h writes them, one element after another ---- */

typedef struct reference {
  tn_ctx *ctx;
  uint8_t *memory[TPU_SPACES];      /* DRAM, UB, ACC */
  float *tile;                      /* [k][n] */
  int64_t tile_k, tile_n;
  struct { float *values; int64_t k, n; } fifo[8];
  int nfifo;
} reference;

static int64_t address_of(const tpu_operand *o, const int64_t *x) {
  int64_t n = 0;
  for (int d = 0; d < 4; d++) n += x[d] * o->stride[d];
  return o->addr + n * (o->space == TPU_IOTA ? 1 : (int64_t)ir_dtype_bytes((tn_dtype)o->dtype));
}

static ir_scalar get(reference *r, const tpu_operand *o, const int64_t *x) {
  tn_dtype t = (tn_dtype)o->dtype;
  if (o->space == TPU_IMM) {
    ir_scalar v = {.i = o->addr};
    return v; /* bits of a double are a double */
  }
  if (o->space == TPU_IOTA) return (ir_scalar){.i = ir_wrap_int(t, address_of(o, x))};
  return ir_scalar_load(t, r->memory[o->space] + address_of(o, x));
}

static void put(reference *r, const tpu_operand *o, const int64_t *x, ir_scalar v) {
  ir_scalar_store((tn_dtype)o->dtype, r->memory[o->space] + address_of(o, x), v);
}

static bool next_place(const int32_t *e, int64_t *x) { /* the next place in row-major order */
  for (int d = 3; d >= 0; d--) {
    if (++x[d] < e[d]) return true;
    x[d] = 0;
  }
  return false;
}

static float number(tn_dtype t, ir_scalar v) { return ir_is_float(t) ? (float)v.f : (float)v.i; }

static void refer_dma(reference *r, const tpu_inst *i) {
  int64_t x[4] = {0};
  do {
    int64_t y[4];
    bool inside = true;
    for (int d = 0; d < 4; d++) {
      y[d] = i->pad.first[d] + x[d];
      inside &= !i->pad.size[d] || (y[d] >= 0 && y[d] < i->pad.size[d]);
    }
    void *to = r->memory[i->dst.space] + address_of(&i->dst, x);
    memcpy(to, inside ? (void *)(r->memory[i->src.space] + address_of(&i->src, y)) : (void *)&i->pad.fill, ir_dtype_bytes((tn_dtype)i->dst.dtype));
  } while (next_place(i->extent, x));
}

static void refer_indexed(reference *r, const tpu_inst *i) {
  int64_t x[4] = {0};
  tn_dtype t = (tn_dtype)i->dst.dtype;
  bool rows = i->op == TPU_LOAD_ROWS || i->op == TPU_STORE_ROWS, reads = i->op == TPU_LOAD_ROWS || i->op == TPU_GATHER;
  do {
    if (i->mask.space && !get(r, &i->mask, x).i) continue;
    int64_t first[4] = {x[0], 0, 0, 0}, there[4] = {x[0], x[1], x[2], x[3]}, j = get(r, &i->index, rows ? first : x).i;
    tpu_operand from = i->src, to = i->dst;
    if (rows) there[0] = j;
    else *(reads ? &from.addr : &to.addr) += j * (int64_t)ir_dtype_bytes(t);
    ir_scalar v = get(r, &from, reads ? there : x);
    if (i->fn) v = ir_eval_op(r->ctx, (ir_opcode)i->fn, t, 2, (tn_dtype[]){t, t}, (ir_scalar[]){get(r, &to, x), v});
    put(r, &to, reads ? x : there, v);
  } while (next_place(i->extent, x));
}

static void refer_weights(reference *r, const tpu_inst *i) {
  int64_t x[4] = {0}, n = 0;
  float *v = IR_NEW_ARRAY(r->ctx, float, (int64_t)i->extent[0] * i->extent[1] * i->extent[2] * i->extent[3]);
  do v[n++] = number((tn_dtype)i->src.dtype, get(r, &i->src, x));
  while (next_place(i->extent, x));
  r->fifo[r->nfifo].values = v;
  r->fifo[r->nfifo].k = n / i->extent[3];
  r->fifo[r->nfifo++].n = i->extent[3];
}

static bool outside(const tpu_window *w, const int64_t *at) {
  return (w->depth && (at[0] < 0 || at[0] >= w->depth)) || (w->height && (at[1] < 0 || at[1] >= w->height)) || (w->width && (at[2] < 0 || at[2] >= w->width));
}

static void refer_matmul(reference *r, const tpu_inst *i) {
  const tpu_window *w = &i->win;
  if (i->flags & TPU_SWAP) {
    r->tile = r->fifo[0].values;
    r->tile_k = r->fifo[0].k;
    r->tile_n = r->fifo[0].n;
    memmove(&r->fifo[0], &r->fifo[1], sizeof r->fifo[0] * (size_t)--r->nfifo);
  }
  int64_t x[4] = {0};
  do {
    ir_scalar acc = {0};
    if (i->flags & TPU_ACCUMULATE) acc = get(r, &i->dst, x);
    for (int64_t k = 0; k < w->k_count; k++) {
      int64_t f = w->k_first + k, c, row, col;
      int64_t deep;
      if (i->flags & TPU_CHANNELS_LAST) c = f % w->kc, col = f / w->kc % w->kw, row = f / w->kc / w->kw % w->kh, deep = f / w->kc / w->kw / w->kh;
      else col = f % w->kw, row = f / w->kw % w->kh, deep = f / w->kw / w->kh % w->kd, c = f / w->kw / w->kh / w->kd;
      int64_t y[4] = {w->z0 + x[0] * w->sz + deep * w->dz, w->y0 + x[1] * w->sy + row * w->dy, w->x0 + x[2] * w->sx + col * w->dx, c};
      if (outside(w, y)) continue;
      float a = number((tn_dtype)i->src.dtype, get(r, &i->src, y)), b = r->tile[k * r->tile_n + x[3]];
      if (i->dst.dtype == TN_I32) acc.i = (int32_t)(acc.i + (int64_t)(a - w->a_zero) * (int64_t)(b - w->w_zero));
      else acc.f = fmaf(a, b, (float)acc.f);
    }
    put(r, &i->dst, x, acc);
  } while (next_place(i->extent, x));
}

static void refer_pool(reference *r, const tpu_inst *i) {
  const tpu_window *w = &i->win;
  tn_dtype t = (tn_dtype)i->dst.dtype;
  int64_t x[4] = {0};
  do {
    ir_scalar v = {.i = w->init};
    if (i->flags & TPU_ACCUMULATE) v = get(r, &i->dst, x);
    for (int64_t deep = 0; deep < w->kd; deep++)
      for (int64_t row = 0; row < w->kh; row++)
        for (int64_t col = 0; col < w->kw; col++) {
          int64_t y[4] = {w->z0 + x[0] * w->sz + deep * w->dz, w->y0 + x[1] * w->sy + row * w->dy, w->x0 + x[2] * w->sx + col * w->dx, x[3]};
          if (outside(w, y)) continue;
          v = ir_eval_op(r->ctx, (ir_opcode)i->fn, t, 2, (tn_dtype[]){t, t}, (ir_scalar[]){v, get(r, &i->src, y)});
        }
    put(r, &i->dst, x, v);
  } while (next_place(i->extent, x));
}

static void refer_vector(reference *r, const tpu_inst *i) {
  int64_t x[4] = {0};
  const tpu_operand *o[3] = {&i->src, &i->b, &i->c};
  tn_dtype types[3] = {(tn_dtype)i->src.dtype, (tn_dtype)i->b.dtype, (tn_dtype)i->c.dtype};
  do {
    if (i->mask.space && !get(r, &i->mask, x).i) continue;
    ir_scalar v[3] = {{0}};
    for (int k = 0; k < ix_info[i->fn].arity; k++) v[k] = get(r, o[k], x);
    put(r, &i->dst, x, ir_eval_op(r->ctx, (ir_opcode)i->fn, (tn_dtype)i->dst.dtype, ix_info[i->fn].arity, types, v));
  } while (next_place(i->extent, x));
}

static void refer_chain(reference *r, const tpu_inst *i) {
  int64_t x[4] = {0};
  do {
    if (i->mask.space && !get(r, &i->mask, x).i) continue;
    ir_scalar v = get(r, &i->src, x);
    tn_dtype t = (tn_dtype)i->src.dtype;
    for (int k = 0; k < TPU_CHAIN && i->chain[k].fn; k++) {
      int arg = i->chain[k].arg & 7;
      ir_scalar y = {.i = arg == TPU_ARG_IMM0 ? i->imm : i->imm1}, args[2];
      if (arg == TPU_ARG_B || arg == TPU_ARG_C) y = get(r, arg == TPU_ARG_B ? &i->b : &i->c, x);
      bool swap = i->chain[k].arg & TPU_CHAIN_SWAP;
      args[swap] = v;
      args[!swap] = y;
      int fn = i->chain[k].fn;
      v = ir_eval_op(r->ctx, (ir_opcode)fn, (tn_dtype)i->chain[k].dtype, ix_info[fn].arity, (tn_dtype[]){t, t}, args);
      t = (tn_dtype)i->chain[k].dtype;
    }
    put(r, &i->dst, x, v);
  } while (next_place(i->extent, x));
}

/* Carries out an instruction without registers; of the sequencer: nothing. */
static void refer(reference *r, const tpu_inst *i) {
  if (tpu_ops[i->op].fields >= TPU_FIELDS_DMA && (!i->extent[0] || !i->extent[1] || !i->extent[2] || !i->extent[3])) return;
  switch (tpu_ops[i->op].fields) {
  case TPU_FIELDS_DMA: refer_dma(r, i); return;
  case TPU_FIELDS_INDEXED: refer_indexed(r, i); return;
  case TPU_FIELDS_WEIGHTS: refer_weights(r, i); return;
  case TPU_FIELDS_WINDOW: (i->op == TPU_MATMUL ? refer_matmul : refer_pool)(r, i); return;
  case TPU_FIELDS_CHAIN: refer_chain(r, i); return;
  case TPU_FIELDS_VECTOR: refer_vector(r, i); return;
  default: return;
  }
}

/* ---- random operands ---- */

enum { UB_BYTES = 1 << 16, ACC_BYTES = 1 << 14, DRAM_BYTES = 1 << 16 };

/* A machine with small memories, so that all of them can be compared. */
static tpu_machine small_machine(tn_ctx *ctx, int64_t rows, int64_t cols) {
  tpu_machine m = *tpu_machine_find(ctx, "tpu-v4-core");
  m.rows = rows;
  m.cols = cols;
  m.arrays = 1;
  m.ub_bytes = UB_BYTES;
  m.acc_bytes = ACC_BYTES;
  return m;
}

/* Values that behave: no NaN payloads to compare, but infinities, zeros of both signs and denormals. */
static ir_scalar random_value(tpu_random *r, tn_dtype t) {
  static const double odd[] = {0.0, -0.0, INFINITY, -INFINITY, 1e-41, -3e-39, 65504, 0x1p-126, 127.5, -128.5, 2147483648.0, 1e20};
  if (t == TN_BOOL) return (ir_scalar){.i = (int64_t)(tpu_next(r) & 1)};
  if (!ir_is_float(t)) return (ir_scalar){.i = ir_wrap_int(t, tpu_between(r, 0, 9) ? tpu_between(r, -200, 300) : (int64_t)tpu_next(r))};
  double v = tpu_between(r, 0, 15) ? (double)tpu_between(r, -4096, 4096) / 512 : odd[tpu_between(r, 0, 11)];
  return (ir_scalar){.f = ir_round_float(t, v)};
}

typedef struct layout { int64_t next[TPU_SPACES]; } layout;

/* A place for an operand: `first` elements before its address may be reached, `elements` from it. */
static tpu_operand place(tn_ctx *ctx, layout *l, int space, tn_dtype t, int64_t first, int64_t elements) {
  int64_t size = (int64_t)ir_dtype_bytes(t), *next = &l->next[space];
  *next = (*next + 7) / 8 * 8 + first * size;
  tpu_operand o = tpu_at((tpu_space)space, t, *next, 0, 0, 0, 0);
  *next += elements * size;
  return o;
}

/* Strides over extents in some order of the axes, perhaps with gaps, perhaps 0 on some; the span in elements. */
static int64_t random_strides(tpu_random *r, const int32_t *e, int32_t *stride, bool broadcasts, int64_t *first) {
  int order[4] = {0, 1, 2, 3};
  for (int k = 3; k > 0 && !tpu_between(r, 0, 2); k--) {
    int j = (int)tpu_between(r, 0, k), t = order[k];
    order[k] = order[j];
    order[j] = t;
  }
  int64_t span = 1;
  *first = 0;
  for (int k = 3; k >= 0; k--) {
    int d = order[k];
    int64_t gap = tpu_between(r, 0, 5) ? 0 : tpu_between(r, 1, 3);
    stride[d] = (int32_t)(span + gap);
    if (broadcasts && !tpu_between(r, 0, 3)) stride[d] = 0;
    else span = (span + gap) * (e[d] ? e[d] : 1);
    if (!tpu_between(r, 0, 7)) {
      stride[d] = -stride[d];
      if (e[d]) *first -= (int64_t)stride[d] * (e[d] - 1);
    }
  }
  return span;
}

static tpu_operand random_tensor(tn_ctx *ctx, tpu_random *r, layout *l, int space, tn_dtype t, const int32_t *e, bool broadcasts) {
  int32_t s[4];
  int64_t first, span = random_strides(r, e, s, broadcasts, &first);
  tpu_operand o = place(ctx, l, space, t, first, span);
  memcpy(o.stride, s, sizeof s);
  return o;
}

static tn_dtype any_dtype(tpu_random *r) { return (tn_dtype)tpu_between(r, 1, TN_DTYPE_COUNT - 1); }
static int chip(tpu_random *r, tn_dtype t) { return (t == TN_F32 || t == TN_I32) && tpu_next(r) & 1 ? TPU_ACC : TPU_UB; }

typedef struct trial {
  uint64_t seed;
  int kind;          /* which generator */
} trial;

/* ---- generators: each returns an instruction whose operands lie in the layout ---- */

static tpu_inst vector_case(tn_ctx *ctx, tpu_random *r, layout *l) {
  for (;;) {
    tpu_inst i = tpu_inst_of(TPU_VECTOR);
    layout at = *l;
    for (int d = 0; d < 4; d++) i.extent[d] = (int32_t)tpu_between(r, !tpu_between(r, 0, 19) ? 0 : 1, d == 3 ? 12 : 4);
    if (!tpu_between(r, 0, 4)) i.extent[0] = 1, i.extent[tpu_between(r, 2, 3)] = (int32_t)tpu_between(r, 200, 600), i.extent[1] = 1;
    i.fn = (uint8_t)tpu_between(r, IX_NEG, IX_OPCODE_COUNT - 1);
    const ir_opcode_info *op = &ix_info[i.fn];
    tn_dtype t = tpu_between(r, 0, 1) ? TN_F32 : any_dtype(r), result = op->result == 'B' ? TN_BOOL : i.fn == IX_CAST || i.fn == IX_BITCAST ? any_dtype(r) : t;
    tpu_operand *source[3] = {&i.src, &i.b, &i.c};
    i.dst = random_tensor(ctx, r, &at, chip(r, result), result, i.extent, false);
    for (int k = 0; k < op->arity; k++) {
      tn_dtype own = i.fn == IX_SELECT && k == 0 ? TN_BOOL : t;
      int how = (int)tpu_between(r, 0, 9);
      if (how == 0) *source[k] = (tpu_operand){.space = TPU_IMM, .dtype = (uint8_t)own, .addr = tpu_imm_bits(own, random_value(r, own))};
      else if (how == 1 && ir_is_int(own)) *source[k] = tpu_at(TPU_IOTA, own, tpu_between(r, -9, 9), 100, 7, (int32_t)tpu_between(r, -1, 1), 1);
      else *source[k] = random_tensor(ctx, r, &at, chip(r, own), own, i.extent, true);
    }
    if (!tpu_between(r, 0, 3) && result == t && op->arity > 1 && i.fn != IX_SELECT) { /* a reduction, or in place */
      for (int d = 0; d < 4; d++)
        if (tpu_next(r) & 1) i.dst.stride[d] = 0;
      *source[tpu_between(r, 0, op->arity - 1)] = i.dst;
    } else if (!tpu_between(r, 0, 9) && result == t) { /* an alias that is none of these */
      i.src = i.dst;
      i.src.addr += (int64_t)ir_dtype_bytes(t) * tpu_between(r, 0, 2);
    }
    if (!tpu_between(r, 0, 4)) i.mask = random_tensor(ctx, r, &at, TPU_UB, TN_BOOL, i.extent, true);
    if (tpu_inst_check(ctx, NULL, &i)) continue;
    for (int k = 0; k < TPU_SPACES; k++) l->next[k] = at.next[k] + 32; /* an alias may lie a little behind */
    return i;
  }
}

static tpu_inst chain_case(tn_ctx *ctx, tpu_random *r, layout *l) {
  tpu_inst i = tpu_inst_of(TPU_ACT);
  for (int d = 0; d < 4; d++) i.extent[d] = (int32_t)tpu_between(r, 1, d == 3 ? 20 : 4);
  static const tn_dtype outs[] = {TN_I8, TN_U8, TN_BF16, TN_F32};
  tn_dtype from = tpu_next(r) & 1 ? TN_I32 : TN_F32, to = outs[tpu_between(r, 0, 3)];
  i.dst = random_tensor(ctx, r, l, TPU_UB, to, i.extent, false);
  i.src = random_tensor(ctx, r, l, TPU_ACC, from, i.extent, true);
  i.b = random_tensor(ctx, r, l, TPU_UB, TN_F32, i.extent, true);
  i.c = random_tensor(ctx, r, l, TPU_UB, TN_F32, i.extent, true);
  i.imm = tpu_imm_bits(TN_F32, random_value(r, TN_F32));
  if (!tpu_between(r, 0, 4)) i.mask = random_tensor(ctx, r, l, TPU_UB, TN_BOOL, i.extent, true);
  int n = 0;
  i.chain[n++] = (tpu_step_fn){IX_CAST, 0, TN_F32, 0};
  static const uint8_t two[] = {IX_ADD, IX_SUB, IX_MUL, IX_DIV, IX_MIN, IX_MAX}, one[] = {IX_NEG, IX_ABS, IX_ROUND, IX_TANH, IX_SIGMOID, IX_EXP, IX_ERF, IX_SQRT};
  for (int k = (int)tpu_between(r, 0, 5); k > 0; k--) {
    if (tpu_next(r) & 1) i.chain[n++] = (tpu_step_fn){one[tpu_between(r, 0, 7)], 0, TN_F32, 0};
    else i.chain[n++] = (tpu_step_fn){two[tpu_between(r, 0, 5)], (uint8_t)(tpu_between(r, 1, 3) | (tpu_next(r) & 1 ? TPU_CHAIN_SWAP : 0)), TN_F32, 0};
  }
  i.chain[n] = (tpu_step_fn){IX_CAST, 0, (uint8_t)to, 0};
  return i;
}

static tpu_inst dma_case(tn_ctx *ctx, tpu_random *r, layout *l) {
  tpu_inst i = tpu_inst_of(tpu_next(r) & 1 ? TPU_LOAD : TPU_STORE);
  tn_dtype t = any_dtype(r);
  int32_t whole[4];
  for (int d = 0; d < 4; d++) {
    whole[d] = (int32_t)tpu_between(r, 1, 6);
    i.extent[d] = (int32_t)tpu_between(r, !tpu_between(r, 0, 19) ? 0 : 1, 9);
    i.pad.first[d] = (int32_t)tpu_between(r, -4, 4);
    i.pad.size[d] = whole[d];
    if (!tpu_between(r, 0, 2)) i.extent[d] = whole[d], i.pad.first[d] = i.pad.size[d] = 0;
  }
  i.src = random_tensor(ctx, r, l, tpu_next(r) & 1 ? TPU_UB : TPU_DRAM, t, whole, false);
  i.dst = random_tensor(ctx, r, l, tpu_next(r) & 1 ? TPU_UB : TPU_DRAM, t, i.extent, false);
  i.pad.fill = (int64_t)tpu_next(r);
  return i;
}

/* Perhaps a window over the outermost axis as well; how far the source reaches along it. */
static int32_t deepen(tpu_random *r, tpu_inst *i) {
  tpu_window *w = &i->win;
  if (tpu_next(r) & 1) return i->extent[0];
  w->depth = (int32_t)tpu_between(r, 1, 4), w->kd = (int32_t)tpu_between(r, 1, 3);
  w->sz = (int32_t)tpu_between(r, 0, 2), w->dz = (int32_t)tpu_between(r, -1, 2), w->z0 = (int32_t)tpu_between(r, -2, 2);
  return w->depth;
}

static tpu_inst pool_case(tn_ctx *ctx, tpu_random *r, layout *l) {
  tpu_inst i = tpu_inst_of(TPU_POOL);
  static const tn_dtype kinds[] = {TN_F32, TN_BF16, TN_I8, TN_I32};
  tn_dtype t = kinds[tpu_between(r, 0, 3)];
  tpu_window *w = &i.win;
  w->height = (int32_t)tpu_between(r, 1, 8), w->width = (int32_t)tpu_between(r, 1, 8);
  w->kh = (int32_t)tpu_between(r, 1, 3), w->kw = (int32_t)tpu_between(r, 1, 3);
  w->sy = (int32_t)tpu_between(r, 1, 3), w->sx = (int32_t)tpu_between(r, 1, 3), w->dy = (int32_t)tpu_between(r, 1, 2), w->dx = (int32_t)tpu_between(r, 1, 2);
  w->y0 = (int32_t)tpu_between(r, -2, 1), w->x0 = (int32_t)tpu_between(r, -2, 1);
  for (int d = 0; d < 4; d++) i.extent[d] = (int32_t)tpu_between(r, 1, d ? 5 : 3);
  int32_t images = deepen(r, &i);
  i.src = random_tensor(ctx, r, l, chip(r, t), t, (int32_t[]){images, w->height, w->width, i.extent[3]}, false);
  i.dst = random_tensor(ctx, r, l, chip(r, t), t, i.extent, false);
  i.fn = (const uint8_t[]){IX_ADD, IX_MAX, IX_MIN}[tpu_between(r, 0, 2)];
  i.win.init = tpu_imm_bits(t, random_value(r, t));
  if (tpu_next(r) & 1) i.flags = TPU_ACCUMULATE;
  return i;
}

static tpu_inst indexed_case(tn_ctx *ctx, tpu_random *r, layout *l) {
  static const tpu_opcode ops[] = {TPU_GATHER, TPU_SCATTER, TPU_LOAD_ROWS, TPU_STORE_ROWS};
  tpu_inst i = tpu_inst_of(ops[tpu_between(r, 0, 3)]);
  bool rows = i.op == TPU_LOAD_ROWS || i.op == TPU_STORE_ROWS, reads = i.op == TPU_LOAD_ROWS || i.op == TPU_GATHER;
  tn_dtype t = any_dtype(r);
  for (int d = 0; d < 4; d++) i.extent[d] = (int32_t)tpu_between(r, 1, 5);
  int32_t whole[4] = {16, i.extent[1], i.extent[2], i.extent[3]};
  int there = rows ? TPU_DRAM : TPU_UB;
  tpu_operand big = rows ? random_tensor(ctx, r, l, there, t, whole, false) : place(ctx, l, there, t, 0, 32);
  tpu_operand other = random_tensor(ctx, r, l, TPU_UB, t, i.extent, reads ? false : true);
  if (!rows) memset(big.stride, 0, sizeof big.stride);
  i.src = reads ? big : other;
  i.dst = reads ? other : big;
  i.index = place(ctx, l, TPU_UB, TN_U8, 0, 2000);
  for (int d = 0; d < 4; d++) i.index.stride[d] = (int32_t)tpu_between(r, 0, 9);
  if (i.op == TPU_SCATTER && tpu_next(r) & 1 && t != TN_BOOL) i.fn = IX_ADD;
  if (!rows && tpu_next(r) & 1) i.mask = random_tensor(ctx, r, l, TPU_UB, TN_BOOL, i.extent, true);
  return i;
}

/* ---- running one against the reference ---- */

static bool same_bytes_or_nan(tn_dtype t, const uint8_t *a, const uint8_t *b) {
  size_t size = ir_dtype_bytes(t);
  if (memcmp(a, b, size) == 0) return true;
  return ir_is_float(t) && isnan(ir_scalar_load(t, a).f) && isnan(ir_scalar_load(t, b).f);
}

static void compare(const tpu_inst *text, int n, tn_ctx *ctx, const uint8_t *have, const uint8_t *want, int64_t bytes, tn_dtype t, const char *what, uint64_t seed) {
  for (int64_t k = 0; k < bytes; k += (int64_t)ir_dtype_bytes(t))
    cr_assert(same_bytes_or_nan(t, have + k, want + k), "seed %llu, %s byte %lld: %02x%02x%02x%02x, not %02x%02x%02x%02x\n%s", (unsigned long long)seed, what, (long long)k,
              have[k], have[k + 1], have[k + 2], have[k + 3], want[k], want[k + 1], want[k + 2], want[k + 3], tpu_inst_print(ctx, &text[n - 1]));
}

/* The program: fills the memories from the image (input 0), runs the instructions, stores all memories (output 0). */
static void run_case(tn_ctx *ctx, const tpu_machine *m, const tpu_inst *text, int n, tpu_random *r, uint64_t seed) {
  enum { IMAGE = UB_BYTES + ACC_BYTES };
  uint8_t *image = ir_alloc(ctx, IMAGE + DRAM_BYTES), *out = ir_alloc(ctx, IMAGE + DRAM_BYTES);
  for (int64_t k = 0; k < IMAGE + DRAM_BYTES; k++) image[k] = (uint8_t)tpu_next(r);
  /* operands hold values of their dtype where they can */
  for (int k = 0; k < n; k++) {
    const tpu_operand *o[] = {&text[k].src, &text[k].b, &text[k].c, &text[k].dst, &text[k].mask};
    bool three = tpu_ops[text[k].op].fields == TPU_FIELDS_VECTOR || tpu_ops[text[k].op].fields == TPU_FIELDS_CHAIN;
    for (int j = 0; j < 5; j++) {
      if (!three && (j == 1 || j == 2)) continue;
      if (o[j]->space != TPU_DRAM && o[j]->space != TPU_UB && o[j]->space != TPU_ACC) continue;
      tpu_box b = tpu_operand_box(o[j], text[k].extent, false);
      int64_t lo = b.lo - 512, size = (int64_t)ir_dtype_bytes((tn_dtype)o[j]->dtype), hi = b.hi + 512;
      int64_t limit = o[j]->space == TPU_UB ? UB_BYTES : o[j]->space == TPU_ACC ? ACC_BYTES : DRAM_BYTES;
      if (text[k].op == TPU_MATMUL && j == 0) lo = o[j]->addr - 512, hi = limit;
      lo = lo < 0 ? 0 : lo / 8 * 8;
      if (hi > limit) hi = limit;
      uint8_t *base = image + (o[j]->space == TPU_UB ? 0 : o[j]->space == TPU_ACC ? UB_BYTES : IMAGE);
      for (int64_t x = lo; x + size <= hi; x += size) ir_scalar_store((tn_dtype)o[j]->dtype, base + x, random_value(r, (tn_dtype)o[j]->dtype));
    }
    if (tpu_ops[text[k].op].fields == TPU_FIELDS_INDEXED)
      for (int64_t x = 0; x < 2000; x++) image[text[k].index.addr + x] &= 15;
    if (text[k].mask.space) {
      tpu_box b = tpu_operand_box(&text[k].mask, text[k].extent, false);
      for (int64_t x = b.lo; x < b.hi; x++) image[x] &= 1;
    }
  }
  tpu_program *p = tpu_program_new(ctx, m->name, 1);
  p->dram_bytes = DRAM_BYTES + 2 * IMAGE;
  tpu_program_segment(ctx, p, (tpu_segment){.name = "dram", .kind = TPU_SEG_STATE, .bytes = DRAM_BYTES});
  tpu_program_segment(ctx, p, (tpu_segment){.name = "in", .kind = TPU_SEG_INPUT, .addr = DRAM_BYTES, .bytes = IMAGE, .dtype = TN_U8, .rank = 1, .dims = {IMAGE}});
  tpu_program_segment(ctx, p, (tpu_segment){.name = "out", .kind = TPU_SEG_OUTPUT, .addr = DRAM_BYTES + IMAGE, .bytes = IMAGE, .dtype = TN_U8, .rank = 1, .dims = {IMAGE}});
  tpu_inst load = tpu_inst_of(TPU_LOAD);
  load.extent[3] = UB_BYTES;
  load.dst = tpu_at(TPU_UB, TN_U8, 0, 0, 0, 0, 1);
  load.src = tpu_at(TPU_DRAM, TN_U8, DRAM_BYTES, 0, 0, 0, 1);
  tpu_emit(ctx, p, 0, load);
  /* the accumulators are filled by way of the buffer, whose part is then loaded again */
  tpu_inst half = load;
  half.extent[3] = ACC_BYTES;
  half.src.addr = DRAM_BYTES + UB_BYTES;
  tpu_emit(ctx, p, 0, half);
  tpu_inst move = tpu_inst_of(TPU_VECTOR);
  move.fn = IX_CAST;
  move.extent[3] = ACC_BYTES / 4;
  move.dst = tpu_at(TPU_ACC, TN_I32, 0, 0, 0, 0, 1);
  move.src = tpu_at(TPU_UB, TN_I32, 0, 0, 0, 0, 1);
  move.after[TPU_UNIT_LOAD] = 1;
  tpu_emit(ctx, p, 0, move);
  half.src.addr = DRAM_BYTES;
  half.after[TPU_UNIT_VECTOR] = 1;
  tpu_emit(ctx, p, 0, half);
  tpu_emit(ctx, p, 0, tpu_inst_of(TPU_FENCE));
  for (int k = 0; k < n; k++) {
    tpu_emit(ctx, p, 0, text[k]);
    tpu_emit(ctx, p, 0, tpu_inst_of(TPU_FENCE));
  }
  tpu_inst store = load;
  store.op = TPU_STORE;
  store.dst = tpu_at(TPU_DRAM, TN_U8, DRAM_BYTES + IMAGE, 0, 0, 0, 1);
  store.src = load.dst;
  tpu_emit(ctx, p, 0, store);
  tpu_inst back = move;
  back.dst = move.src;
  back.src = move.dst;
  memset(back.after, 0, sizeof back.after);
  back.after[TPU_UNIT_STORE] = 1;
  tpu_emit(ctx, p, 0, back);
  store.extent[3] = ACC_BYTES;
  store.dst.addr += UB_BYTES;
  store.after[TPU_UNIT_VECTOR] = 1;
  tpu_emit(ctx, p, 0, store);

  reference ref = {.ctx = ctx};
  uint8_t *copy = ir_alloc(ctx, IMAGE + DRAM_BYTES);
  memcpy(copy, image, IMAGE + DRAM_BYTES);
  ref.memory[TPU_UB] = copy;
  ref.memory[TPU_ACC] = copy + UB_BYTES;
  ref.memory[TPU_DRAM] = copy + IMAGE;
  for (int k = 0; k < n; k++) refer(&ref, &text[k]);
  tpu_simulate(ctx, m, p, NULL, (const void *[]){image}, (void *[]){out}, image + IMAGE);
  /* results of the last instruction compare as their dtype, bytes elsewhere exactly: NaN may differ in payload */
  const tpu_operand *d = &text[n - 1].dst;
  const char *names[] = {"ub", "acc", "dram"};
  int spaces[] = {TPU_UB, TPU_ACC, TPU_DRAM};
  const uint8_t *have[] = {out, out + UB_BYTES, image + IMAGE}, *want[] = {copy, copy + UB_BYTES, copy + IMAGE};
  int64_t bytes[] = {UB_BYTES, ACC_BYTES, DRAM_BYTES};
  for (int k = 0; k < 3; k++)
    compare(text, n, ctx, have[k], want[k], bytes[k], d->space == spaces[k] ? (tn_dtype)d->dtype : TN_U8, names[k], seed);
}

static bool fits(const layout *l) {
  return l->next[TPU_UB] < UB_BYTES && l->next[TPU_ACC] < ACC_BYTES && l->next[TPU_DRAM] < DRAM_BYTES;
}

static void one_trial(tn_ctx *ctx, void *arg) {
  const trial *t = arg;
  tpu_random r = {t->seed};
  tpu_machine m = small_machine(ctx, 16, 16);
  tpu_inst (*const kinds[])(tn_ctx *, tpu_random *, layout *) = {vector_case, chain_case, dma_case, pool_case, indexed_case};
  tpu_inst i;
  layout l;
  do {
    l = (layout){{0}};
    i = kinds[t->kind](ctx, &r, &l);
  } while (!fits(&l));
  run_case(ctx, &m, &i, 1, &r, t->seed);
}

static void many(int kind, int count) {
  for (int k = 1; k <= count; k++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    trial t = {(uint64_t)k * 1000 + (uint64_t)kind, kind};
    cr_assert_eq(ir_protect(ctx, one_trial, &t), TN_OK, "kind %d, trial %d: %s", kind, k, tn_error(ctx));
    tn_ctx_free(ctx);
  }
}

Test(tpu_sim, vector) { many(0, 3000); }
Test(tpu_sim, chain) { many(1, 600); }
Test(tpu_sim, dma) { many(2, 600); }
Test(tpu_sim, pool) { many(3, 600); }
Test(tpu_sim, indexed) { many(4, 600); }

/* Products of any window, tile and dtype, split along K as the second instruction accumulates. */
static int product_case(tn_ctx *ctx, tpu_random *r, layout *l, tpu_inst *text) {
  static const tn_dtype kinds[] = {TN_I8, TN_U8, TN_BF16, TN_F16, TN_F32};
  tn_dtype a = kinds[tpu_between(r, 0, 4)], b = a == TN_I8 || a == TN_U8 ? kinds[tpu_between(r, 0, 1)] : a, acc = b <= TN_I8 || a == TN_U8 || a == TN_I8 ? TN_I32 : TN_F32;
  tpu_inst i = tpu_inst_of(TPU_MATMUL);
  tpu_window *w = &i.win;
  bool plain = !tpu_between(r, 0, 3);
  if (!plain) {
    w->height = (int32_t)tpu_between(r, 1, 7), w->width = (int32_t)tpu_between(r, 1, 7);
    w->kh = (int32_t)tpu_between(r, 1, 3), w->kw = (int32_t)tpu_between(r, 1, 3);
    w->sy = (int32_t)tpu_between(r, 1, 2), w->sx = (int32_t)tpu_between(r, 1, 3), w->dy = (int32_t)tpu_between(r, 1, 2), w->dx = (int32_t)tpu_between(r, 1, 2);
    w->y0 = (int32_t)tpu_between(r, -3, 2), w->x0 = (int32_t)tpu_between(r, -3, 2);
  }
  w->kc = (int32_t)tpu_between(r, 1, plain && tpu_next(r) & 1 ? 280 : 12);
  i.extent[0] = plain ? 1 : (int32_t)tpu_between(r, 1, 2);
  int32_t images = plain ? 1 : deepen(r, &i);
  int32_t all = w->kd * w->kh * w->kw * w->kc, first = (int32_t)tpu_between(r, 0, all - 1);
  i.extent[1] = plain ? 1 : (int32_t)tpu_between(r, 1, 5);
  i.extent[2] = (int32_t)tpu_between(r, 0, plain ? 20 : 5);
  i.extent[3] = (int32_t)tpu_between(r, 1, 40);
  int32_t whole[4] = {images, plain ? 1 : w->height, plain ? (i.extent[2] ? i.extent[2] : 1) : w->width, w->kc};
  i.src = random_tensor(ctx, r, l, TPU_UB, a, whole, false);
  i.dst = random_tensor(ctx, r, l, TPU_ACC, acc, i.extent, false);
  if (!tpu_between(r, 0, 9)) i.dst.stride[1] = 0;
  i.flags = (uint8_t)(TPU_SWAP | (tpu_next(r) & 1 ? TPU_CHANNELS_LAST : 0) | (tpu_next(r) & 1 ? TPU_ACCUMULATE : 0));
  if (acc == TN_I32) w->a_zero = (int16_t)tpu_between(r, a == TN_I8 ? -128 : 0, a == TN_I8 ? 127 : 255), w->w_zero = (int16_t)tpu_between(r, -128, 255);
  int n = 0;
  for (int part = 0; part < 2; part++) { /* steps [0, first) and [first, all) */
    w->k_first = part ? first : 0;
    w->k_count = part ? all - first : first;
    if (w->k_count == 0) continue;
    tpu_inst tile = tpu_inst_of(TPU_WEIGHTS);
    tile.extent[2] = w->k_count;
    tile.extent[3] = i.extent[3];
    tile.src = random_tensor(ctx, r, l, tpu_next(r) & 1 ? TPU_UB : TPU_DRAM, b, tile.extent, false);
    text[n++] = tile;
    text[n++] = i;
    i.flags |= TPU_ACCUMULATE;
  }
  return n;
}

static void product_trial(tn_ctx *ctx, void *arg) {
  const trial *t = arg;
  tpu_random r = {t->seed};
  tpu_machine m = small_machine(ctx, 330, 40);
  tpu_inst text[4];
  layout l;
  int n;
  do {
    l = (layout){{0}};
    n = product_case(ctx, &r, &l, text);
  } while (!fits(&l));
  run_case(ctx, &m, text, n, &r, t->seed);
}

Test(tpu_sim, products) {
  for (int k = 1; k <= 1500; k++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    trial t = {(uint64_t)k, 0};
    cr_assert_eq(ir_protect(ctx, product_trial, &t), TN_OK, "trial %d: %s", k, tn_error(ctx));
    tn_ctx_free(ctx);
  }
}
