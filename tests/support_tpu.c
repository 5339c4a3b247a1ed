/* support_tpu.c — see support_tpu.h. */
#include "tests/support_tpu.h"
#include "ir/interp.h"
#include <math.h>
#include <string.h>

uint64_t tpu_next(tpu_random *r) {
  uint64_t z = r->state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

int64_t tpu_between(tpu_random *r, int64_t lo, int64_t hi) { return lo + (int64_t)(tpu_next(r) % (uint64_t)(hi - lo + 1)); }

/* ---- random instructions ---- */

static tpu_operand random_operand(tpu_random *r, int spaces, tn_dtype t) {
  int space;
  do space = (int)tpu_between(r, TPU_NONE, TPU_IOTA);
  while (!(spaces >> space & 1));
  tpu_operand o = {.space = (uint8_t)space};
  if (space == TPU_NONE) return o;
  o.dtype = (uint8_t)t;
  o.addr = tpu_between(r, -1000, 100000);
  if (space == TPU_IMM && ir_is_float(t)) {
    double special[] = {0.0, -0.0, 1.5, 0.1, -INFINITY, 1e30, 1e-40};
    o.addr = tpu_imm_bits(t, (ir_scalar){.f = special[tpu_between(r, 0, 6)]});
    if (tpu_between(r, 0, 9) == 0) o.addr = (int64_t)(tpu_next(r) | 0x7ff0000000000001); /* some NaN */
  }
  for (int d = 0; d < 4; d++)
    if (tpu_next(r) & 1) o.stride[d] = (int32_t)tpu_between(r, -300, 300);
  if (space != TPU_IMM && !tpu_between(r, 0, 3)) o.reg = (uint8_t)tpu_between(r, 0, TPU_REGISTERS - 1);
  if (space != TPU_IMM && !tpu_between(r, 0, 3)) o.reg2 = (uint8_t)tpu_between(r, 0, TPU_REGISTERS - 1);
  return o;
}

static tn_dtype random_dtype(tpu_random *r) { return (tn_dtype)tpu_between(r, 1, TN_DTYPE_COUNT - 1); }
static tn_dtype pick(tpu_random *r, int n, const tn_dtype *t) { return t[tpu_between(r, 0, n - 1)]; }

/* Any bytes of the fields that the kind has; most are refused, and asked for again. */
static tpu_inst attempt(tpu_random *r) {
  enum { MEM = 1 << TPU_DRAM | 1 << TPU_UB, CHIP = 1 << TPU_UB | 1 << TPU_ACC, ANY = CHIP | 1 << TPU_IMM | 1 << TPU_IOTA };
  tpu_inst i = tpu_inst_of((tpu_opcode)tpu_between(r, 0, TPU_OPCODES - 1));
  tn_dtype t = random_dtype(r), acc = pick(r, 2, (tn_dtype[]){TN_F32, TN_I32});
  tn_dtype narrow = acc == TN_I32 ? pick(r, 2, (tn_dtype[]){TN_I8, TN_U8}) : pick(r, 3, (tn_dtype[]){TN_BF16, TN_F16, TN_F32});
  tpu_fields f = tpu_ops[i.op].fields;
  if (f >= TPU_FIELDS_DMA) for (int d = 0; d < 4; d++) i.extent[d] = (int32_t)tpu_between(r, 0, 40);
  for (int k = 0; k < 2; k++) {
    if (!tpu_between(r, 0, 3)) i.wait[k] = (uint8_t)tpu_between(r, 0, 255);
    if (!tpu_between(r, 0, 3)) i.signal[k] = (uint8_t)tpu_between(r, 0, 255);
  }
  for (int u = 1; u < TPU_UNITS; u++)
    if (!tpu_between(r, 0, 5)) i.after[u] = (uint16_t)tpu_between(r, 1, TPU_COUNT_MAX);
  switch (f) {
  case TPU_FIELDS_CONTROL:
    i.reg = (uint8_t)tpu_between(r, 0, 3);
    i.reg2 = (uint8_t)tpu_between(r, 0, 2);
    i.span = (int32_t)tpu_between(r, -2, 5);
    i.imm = tpu_between(r, -5, 500) * (tpu_next(r) & 1);
    i.src = random_operand(r, i.op == TPU_READ ? CHIP : 1, t);
    break;
  case TPU_FIELDS_SYNC: i.unit = (uint8_t)tpu_between(r, 0, TPU_UNITS); break;
  case TPU_FIELDS_DMA:
    i.dst = random_operand(r, MEM, t);
    i.src = random_operand(r, MEM, t);
    for (int d = 0; d < 4; d++) i.pad.first[d] = (int32_t)tpu_between(r, -5, 5), i.pad.size[d] = (int32_t)tpu_between(r, 0, 9);
    i.pad.fill = (int64_t)tpu_next(r);
    break;
  case TPU_FIELDS_INDEXED:
    i.dst = random_operand(r, MEM, t);
    i.src = random_operand(r, MEM, t);
    i.index = random_operand(r, CHIP, pick(r, 3, (tn_dtype[]){TN_I32, TN_INDEX, TN_U8}));
    if (i.op == TPU_SCATTER) i.fn = (uint8_t)(const int[]){0, IX_ADD, IX_MAX}[tpu_between(r, 0, 2)];
    if (i.op == TPU_GATHER || i.op == TPU_SCATTER) i.mask = random_operand(r, 1 << TPU_NONE | 1 << TPU_UB, TN_BOOL);
    break;
  case TPU_FIELDS_WEIGHTS: i.src = random_operand(r, MEM, narrow); break;
  case TPU_FIELDS_WINDOW:
    i.flags = (uint8_t)tpu_between(r, 0, 7);
    i.dst = random_operand(r, CHIP, acc);
    i.src = random_operand(r, CHIP, i.op == TPU_POOL ? acc : narrow);
    i.win = (tpu_window){.y0 = (int32_t)tpu_between(r, -3, 3), .x0 = (int32_t)tpu_between(r, -3, 3), .height = (int32_t)tpu_between(r, 0, 9),
                         .width = (int32_t)tpu_between(r, 0, 9), .sy = 1, .sx = (int32_t)tpu_between(r, 0, 3), .dy = 1, .dx = 2, .kh = (int32_t)tpu_between(r, 1, 3),
                         .kw = (int32_t)tpu_between(r, 1, 3)};
    if (i.op == TPU_POOL) i.fn = (uint8_t)(const int[]){IX_ADD, IX_MAX, IX_MIN}[tpu_between(r, 0, 2)], i.win.init = tpu_between(r, -5, 5);
    else i.win.kc = (int32_t)tpu_between(r, 1, 9), i.win.k_first = (int32_t)tpu_between(r, 0, 3), i.win.k_count = (int32_t)tpu_between(r, 1, 9);
    if (acc == TN_I32 && i.op == TPU_MATMUL) i.win.a_zero = (int16_t)tpu_between(r, -128, 255);
    break;
  case TPU_FIELDS_CHAIN: {
    i.dst = random_operand(r, 1 << TPU_UB, t = pick(r, 3, (tn_dtype[]){TN_I8, TN_BF16, TN_F32}));
    i.src = random_operand(r, CHIP, acc);
    i.b = random_operand(r, CHIP | 1 << TPU_NONE, TN_F32);
    i.imm = tpu_between(r, -5, 5);
    int n = 0;
    i.chain[n++] = (tpu_step_fn){IX_CAST, 0, TN_F32, 0};
    if (i.b.space) i.chain[n++] = (tpu_step_fn){IX_MUL, TPU_ARG_B | (tpu_next(r) & 1 ? TPU_CHAIN_SWAP : 0), TN_F32, 0};
    if (tpu_next(r) & 1) i.chain[n++] = (tpu_step_fn){IX_MAX, TPU_ARG_IMM0, TN_F32, 0};
    if (tpu_next(r) & 1) i.chain[n++] = (tpu_step_fn){IX_TANH, 0, TN_F32, 0};
    i.chain[n] = (tpu_step_fn){IX_CAST, 0, (uint8_t)t, 0};
    break;
  }
  case TPU_FIELDS_VECTOR: {
    i.fn = (uint8_t)tpu_between(r, IX_NEG, IX_OPCODE_COUNT - 1);
    const ir_opcode_info *op = &ix_info[i.fn];
    tn_dtype result = op->result == 'B' ? TN_BOOL : i.fn == IX_CAST ? random_dtype(r) : t;
    i.dst = random_operand(r, CHIP, result);
    i.src = random_operand(r, ANY, i.fn == IX_SELECT ? TN_BOOL : t);
    if (op->arity > 1) i.b = random_operand(r, ANY, t);
    if (op->arity > 2) i.c = random_operand(r, ANY, t);
    if (!tpu_between(r, 0, 3)) i.mask = random_operand(r, 1 << TPU_UB, TN_BOOL);
    break;
  }
  default: break;
  }
  return i;
}

tpu_inst tpu_random_inst(tn_ctx *ctx, tpu_random *r) {
  for (;;) {
    tpu_inst i = attempt(r);
    if (!tpu_inst_check(ctx, NULL, &i)) return i;
  }
}

/* ---- the reference ---- */

static int64_t at(const tpu_operand *o, const int64_t *x) {
  int64_t n = 0;
  for (int d = 0; d < 4; d++) n += x[d] * o->stride[d];
  return o->addr + n * (o->space == TPU_IOTA ? 1 : (int64_t)ir_dtype_bytes((tn_dtype)o->dtype));
}

static ir_scalar get(tpu_reference *r, const tpu_operand *o, const int64_t *x) {
  tn_dtype t = (tn_dtype)o->dtype;
  if (o->space == TPU_IMM) {
    ir_scalar v = {.i = o->addr};
    return v; /* bits of a double are a double */
  }
  if (o->space == TPU_IOTA) return (ir_scalar){.i = ir_wrap_int(t, at(o, x))};
  return ir_scalar_load(t, r->memory[o->space] + at(o, x));
}

static void put(tpu_reference *r, const tpu_operand *o, const int64_t *x, ir_scalar v) {
  ir_scalar_store((tn_dtype)o->dtype, r->memory[o->space] + at(o, x), v);
}

static bool step(const int32_t *e, int64_t *x) { /* the next place in row-major order */
  for (int d = 3; d >= 0; d--) {
    if (++x[d] < e[d]) return true;
    x[d] = 0;
  }
  return false;
}

static float number(tn_dtype t, ir_scalar v) { return ir_is_float(t) ? (float)v.f : (float)v.i; }

static void refer_dma(tpu_reference *r, const tpu_inst *i) {
  int64_t x[4] = {0};
  do {
    int64_t y[4];
    bool inside = true;
    for (int d = 0; d < 4; d++) {
      y[d] = i->pad.first[d] + x[d];
      inside &= !i->pad.size[d] || (y[d] >= 0 && y[d] < i->pad.size[d]);
    }
    void *to = r->memory[i->dst.space] + at(&i->dst, x);
    memcpy(to, inside ? (void *)(r->memory[i->src.space] + at(&i->src, y)) : (void *)&i->pad.fill, ir_dtype_bytes((tn_dtype)i->dst.dtype));
  } while (step(i->extent, x));
}

static void refer_indexed(tpu_reference *r, const tpu_inst *i) {
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
  } while (step(i->extent, x));
}

static void refer_weights(tpu_reference *r, const tpu_inst *i) {
  int64_t x[4] = {0}, n = 0;
  float *v = IR_NEW_ARRAY(r->ctx, float, (int64_t)i->extent[0] * i->extent[1] * i->extent[2] * i->extent[3]);
  do v[n++] = number((tn_dtype)i->src.dtype, get(r, &i->src, x));
  while (step(i->extent, x));
  r->fifo[r->nfifo].values = v;
  r->fifo[r->nfifo].k = n / i->extent[3];
  r->fifo[r->nfifo++].n = i->extent[3];
}

static void refer_matmul(tpu_reference *r, const tpu_inst *i) {
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
      if (i->flags & TPU_CHANNELS_LAST) c = f % w->kc, col = f / w->kc % w->kw, row = f / w->kc / w->kw;
      else col = f % w->kw, row = f / w->kw % w->kh, c = f / w->kw / w->kh;
      int64_t y[4] = {x[0], w->y0 + x[1] * w->sy + row * w->dy, w->x0 + x[2] * w->sx + col * w->dx, c};
      if ((w->height && (y[1] < 0 || y[1] >= w->height)) || (w->width && (y[2] < 0 || y[2] >= w->width))) continue;
      float a = number((tn_dtype)i->src.dtype, get(r, &i->src, y)), b = r->tile[k * r->tile_n + x[3]];
      if (i->dst.dtype == TN_I32) acc.i = (int32_t)(acc.i + (int64_t)(a - w->a_zero) * (int64_t)(b - w->w_zero));
      else acc.f = fmaf(a, b, (float)acc.f);
    }
    put(r, &i->dst, x, acc);
  } while (step(i->extent, x));
}

static void refer_pool(tpu_reference *r, const tpu_inst *i) {
  const tpu_window *w = &i->win;
  tn_dtype t = (tn_dtype)i->dst.dtype;
  int64_t x[4] = {0};
  do {
    ir_scalar v = {.i = w->init};
    if (i->flags & TPU_ACCUMULATE) v = get(r, &i->dst, x);
    for (int64_t row = 0; row < w->kh; row++)
      for (int64_t col = 0; col < w->kw; col++) {
        int64_t y[4] = {x[0], w->y0 + x[1] * w->sy + row * w->dy, w->x0 + x[2] * w->sx + col * w->dx, x[3]};
        if ((w->height && (y[1] < 0 || y[1] >= w->height)) || (w->width && (y[2] < 0 || y[2] >= w->width))) continue;
        v = ir_eval_op(r->ctx, (ir_opcode)i->fn, t, 2, (tn_dtype[]){t, t}, (ir_scalar[]){v, get(r, &i->src, y)});
      }
    put(r, &i->dst, x, v);
  } while (step(i->extent, x));
}

static void refer_vector(tpu_reference *r, const tpu_inst *i) {
  int64_t x[4] = {0};
  const tpu_operand *o[3] = {&i->src, &i->b, &i->c};
  tn_dtype types[3] = {(tn_dtype)i->src.dtype, (tn_dtype)i->b.dtype, (tn_dtype)i->c.dtype};
  do {
    if (i->mask.space && !get(r, &i->mask, x).i) continue;
    ir_scalar v[3] = {{0}};
    for (int k = 0; k < ix_info[i->fn].arity; k++) v[k] = get(r, o[k], x);
    put(r, &i->dst, x, ir_eval_op(r->ctx, (ir_opcode)i->fn, (tn_dtype)i->dst.dtype, ix_info[i->fn].arity, types, v));
  } while (step(i->extent, x));
}

static void refer_chain(tpu_reference *r, const tpu_inst *i) {
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
  } while (step(i->extent, x));
}

void tpu_refer(tpu_reference *r, const tpu_inst *i) {
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
