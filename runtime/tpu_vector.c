/* tpu_vector.c — values of the vector unit: v and act.
 *
 * An instruction means its loops, one element after another. Where that makes no difference elements are
 * taken in blocks: adjacent axes are joined, the longest one becomes the innermost, and each block is
 * loaded, computed and stored. Three cases are told apart by how the destination aliases its sources:
 *   none       any order will do
 *   reduction  a source is the destination itself: updates of one element keep their order
 *   serial     anything else, and whatever reads lazily: element by element, with all checks
 */
#include "ir/interp.h"
#include "ir/text.h"
#include "runtime/tpu_internal.h"
#include <string.h>

enum { DST, A, B, C, MASK, OPERANDS };

/* ---- operations with an expansion: a list of block operations, made once for each op and dtype ---- */

typedef struct vstep {
  uint8_t op, result, nargs, types[3];
  int args[3], out;      /* blocks */
} vstep;

typedef struct expansion {
  int nsteps, nblocks, result;
  vstep *steps;
  tpu_block *blocks;     /* 0 and 1: the arguments; constants stay filled */
} expansion;

struct tpu_vector_cache { expansion *of[IX_OPCODE_COUNT][TN_DTYPE_COUNT]; };

typedef struct vconst { int block; tn_dtype t; int64_t bits; } vconst;
typedef struct builder {
  tn_ctx *ctx;
  expansion *e;
  ir_map place;          /* expression to block + 1 */
  int nconst;
  vconst *consts;
} builder;

static int place_of(builder *b, ix x) {
  intptr_t known = (intptr_t)ir_map_get(&b->place, x);
  if (known) return (int)known - 1;
  vstep s = {.op = x->op, .result = x->dtype, .nargs = (uint8_t)x->nargs};
  for (int k = 0; k < x->nargs; k++) {
    s.args[k] = place_of(b, x->args[k]);
    s.types[k] = x->args[k]->dtype;
  }
  s.out = b->e->nblocks++;
  if (ix_is_const(x)) {
    ir_scalar v = ir_is_float((tn_dtype)x->dtype) ? (ir_scalar){.f = x->u.f} : (ir_scalar){.i = x->u.i};
    IR_PUSH(b->ctx, b->consts, b->nconst, (vconst){s.out, (tn_dtype)x->dtype, tpu_imm_bits((tn_dtype)x->dtype, v)});
  } else IR_PUSH(b->ctx, b->e->steps, b->e->nsteps, s);
  ir_map_set(&b->place, x, (void *)(intptr_t)(s.out + 1));
  return s.out;
}

static expansion *expand(tn_ctx *ctx, ir_opcode op, tn_dtype t) {
  expansion *e = IR_NEW(ctx, expansion);
  builder b = {.ctx = ctx, .e = e, .place = {.ctx = ctx}};
  ix args[2] = {ir_var_new(ctx, "x", t, 0, 0)->expr, ir_var_new(ctx, "y", t, 0, 0)->expr};
  ir_map_set(&b.place, args[0], (void *)(intptr_t)1);
  ir_map_set(&b.place, args[1], (void *)(intptr_t)2);
  e->nblocks = 2;
  e->result = place_of(&b, ix_expand_op(ctx, op, args));
  e->blocks = IR_NEW_ARRAY(ctx, tpu_block, e->nblocks);
  for (int k = 0; k < b.nconst; k++) tpu_block_fill(b.consts[k].t, b.consts[k].bits, TPU_BLOCK, &e->blocks[b.consts[k].block]);
  return e;
}

static void run_expansion(tpu_sim *s, ir_opcode op, tn_dtype t, const tpu_block *const *args, tpu_block *out, int n) {
  if (!s->vector) s->vector = IR_NEW(s->ctx, struct tpu_vector_cache);
  expansion **slot = &s->vector->of[op][t];
  if (!*slot) *slot = expand(s->ctx, op, t);
  expansion *e = *slot;
  for (int k = 0; k < ix_info[op].arity; k++) memcpy(&e->blocks[k], args[k], (size_t)n * (t == TN_F64 ? 8 : 4));
  for (int k = 0; k < e->nsteps; k++) {
    const vstep *v = &e->steps[k];
    const tpu_block *x[3];
    tn_dtype types[3];
    for (int j = 0; j < v->nargs; j++) x[j] = &e->blocks[v->args[j]], types[j] = (tn_dtype)v->types[j];
    tpu_block_op(s->ctx, (ir_opcode)v->op, (tn_dtype)v->result, types, x, &e->blocks[v->out], n);
  }
  memcpy(out, &e->blocks[e->result], (size_t)n * (t == TN_F64 ? 8 : 4));
}

static void apply(tpu_sim *s, ir_opcode op, tn_dtype result, const tn_dtype *types, const tpu_block *const *args, tpu_block *out, int n) {
  if (ix_info[op].traits[0] == 'E') run_expansion(s, op, result, args, out, n);
  else tpu_block_op(s->ctx, op, result, types, args, out, n);
}

/* ---- what an instruction computes from blocks of its sources ---- */

static void run_chain(tpu_sim *s, const tpu_inst *i, const tpu_block *const *x, tpu_block *out, int n) {
  tn_dtype t = (tn_dtype)i->src.dtype;
  tpu_block imm;
  if (out != x[0]) memcpy(out, x[0], sizeof(int64_t) * (size_t)n);
  for (int k = 0; k < TPU_CHAIN && i->chain[k].fn; k++) {
    const tpu_step_fn *f = &i->chain[k];
    int arg = f->arg & 7;
    const tpu_block *y = arg == TPU_ARG_B ? x[1] : arg == TPU_ARG_C ? x[2] : &imm;
    if (arg >= TPU_ARG_IMM0) tpu_block_fill(t, arg == TPU_ARG_IMM0 ? i->imm : i->imm1, n, &imm);
    const tpu_block *args[2] = {out, y};
    if (f->arg & TPU_CHAIN_SWAP) args[0] = y, args[1] = out;
    apply(s, (ir_opcode)f->fn, (tn_dtype)f->dtype, (const tn_dtype[]){t, t}, args, out, n);
    t = (tn_dtype)f->dtype;
  }
}

static void compute(tpu_sim *s, const tpu_inst *i, const tpu_block *const *x, tpu_block *out, int n) {
  if (i->op == TPU_ACT) {
    run_chain(s, i, x, out, n);
    return;
  }
  tn_dtype types[3] = {(tn_dtype)i->src.dtype, (tn_dtype)i->b.dtype, (tn_dtype)i->c.dtype};
  apply(s, (ir_opcode)i->fn, (tn_dtype)i->dst.dtype, types, x, out, n);
}

/* ---- the loops ---- */

typedef struct walk {
  tpu_core *c;
  const tpu_inst *i;
  int64_t number;
  const tpu_operand *o[OPERANDS];
  uint8_t *memory[OPERANDS];       /* null: not in a memory */
  int64_t size[OPERANDS];
  int64_t extent[4], stride[OPERANDS][4]; /* elements */
  bool is_dst[OPERANDS];           /* reduction: this source is the destination */
  bool reduces;
} walk;

static bool in_memory(const tpu_operand *o) { return o->space == TPU_UB || o->space == TPU_ACC; }

static void begin(walk *w, tpu_core *c, const tpu_inst *i, int64_t number) {
  *w = (walk){.c = c, .i = i, .number = number, .o = {&i->dst, &i->src, &i->b, &i->c, &i->mask}};
  for (int d = 0; d < 4; d++) {
    w->extent[d] = i->extent[d];
    for (int k = 0; k < OPERANDS; k++) w->stride[k][d] = i->extent[d] == 1 ? 0 : w->o[k]->stride[d];
  }
  for (int k = 0; k < OPERANDS; k++) {
    w->size[k] = (int64_t)ir_dtype_bytes((tn_dtype)w->o[k]->dtype);
    if (in_memory(w->o[k]) && w->o[k]->addr % w->size[k]) tpu_fault(c, i, number, "%s byte %lld is no multiple of %lld", tpu_space_names[w->o[k]->space],
                                                                    (long long)w->o[k]->addr, (long long)w->size[k]);
  }
}

/* The operands of block [x0, x1, x2, x3 .. x3 + n). */
static void load_block(const walk *w, int k, const int64_t *x, int n, tpu_block *to) {
  const tpu_operand *o = w->o[k];
  const int64_t *s = w->stride[k];
  int64_t at = x[0] * s[0] + x[1] * s[1] + x[2] * s[2] + x[3] * s[3];
  tn_dtype t = (tn_dtype)o->dtype;
  if (o->space == TPU_IMM) tpu_block_fill(t, o->addr, n, to);
  else if (o->space == TPU_IOTA)
    for (int j = 0; j < n; j++) to->i[j] = ir_wrap_int(t, (int64_t)((uint64_t)o->addr + (uint64_t)at + (uint64_t)(j * s[3])));
  else tpu_block_load(t, w->memory[k] + o->addr + at * w->size[k], s[3] * w->size[k], n, to);
}

static int64_t dst_at(const walk *w, const int64_t *x) {
  const int64_t *s = w->stride[DST];
  return w->o[DST]->addr + (x[0] * s[0] + x[1] * s[1] + x[2] * s[2] + x[3] * s[3]) * w->size[DST];
}

/* Elements whose mask is set; they become defined. */
static void store_masked(walk *w, int64_t at, int n, const tpu_block *mask, const tpu_block *from) {
  int64_t stride = w->stride[DST][3] * w->size[DST];
  tn_dtype t = (tn_dtype)w->o[DST]->dtype;
  size_t width = t == TN_F64 || !ir_is_float(t) ? 8 : 4;
  for (int j = 0; j < n; j++) {
    if (!mask->i[j]) continue;
    tpu_block one;
    memcpy(&one, (const char *)from + (size_t)j * width, width);
    tpu_block_store(t, w->memory[DST] + at + j * stride, stride, 1, &one);
    tpu_define(&w->c->mem[w->o[DST]->space], at + j * stride, w->size[DST]);
  }
}

/* Chains with a loop of their own, of dense sources. */
static bool quick_chain(const walk *w) {
  const tpu_inst *i = w->i;
  if (i->op != TPU_VECTOR || i->dst.dtype != TN_F32 || i->mask.space) return false;
  if (i->fn == IX_FMA) return w->is_dst[C] && !w->is_dst[A] && !w->is_dst[B] && w->stride[A][3] == 1;
  return (i->fn == IX_ADD || i->fn == IX_MAX) && w->is_dst[A] && !w->is_dst[B] && w->stride[B][3] == 1;
}

/* acc = op(.., acc, ..) over a block, in order: the innermost axis is reduced. */
static void chain_block(walk *w, const tpu_block *const *x, const tpu_block *mask, int n, tpu_block *acc) {
  const tpu_inst *i = w->i;
  bool first = w->is_dst[A] && !w->is_dst[B], third = w->is_dst[C] && !w->is_dst[A] && !w->is_dst[B];
  if (i->op == TPU_VECTOR && i->dst.dtype == TN_F32 && !mask) {
    float v = acc->f[0];
    if (first && i->fn == IX_ADD) { for (int j = 0; j < n; j++) v += x[1]->f[j]; acc->f[0] = v; return; }
    if (first && i->fn == IX_MAX) { for (int j = 0; j < n; j++) v = v > x[1]->f[j] ? v : x[1]->f[j]; acc->f[0] = v; return; }
    if (third && i->fn == IX_FMA) { for (int j = 0; j < n; j++) v = __builtin_fmaf(x[0]->f[j], x[1]->f[j], v); acc->f[0] = v; return; }
  }
  for (int j = 0; j < n; j++) {
    if (mask && !mask->i[j]) continue;
    tpu_block one[3];
    const tpu_block *args[3];
    for (int k = A; k <= C; k++) {
      tn_dtype t = (tn_dtype)w->o[k]->dtype;
      size_t width = t == TN_F64 || !ir_is_float(t) ? 8 : 4;
      args[k - A] = w->is_dst[k] ? acc : &one[k - A];
      if (!w->is_dst[k] && w->o[k]->space) memcpy(&one[k - A], (const char *)x[k - A] + (size_t)j * width, width);
    }
    compute(w->c->sim, i, args, acc, 1);
  }
}

static void do_block(walk *w, const int64_t *x, int n) {
  tpu_block in[3], mask, out;
  const tpu_block *args[3] = {&in[0], &in[1], &in[2]};
  bool chain = w->reduces && w->stride[DST][3] == 0 && w->extent[3] > 1, masked = w->o[MASK]->space;
  for (int k = A; k <= C; k++)
    if (w->o[k]->space && !(chain && w->is_dst[k])) load_block(w, k, x, n, &in[k - A]);
  if (masked) load_block(w, MASK, x, n, &mask);
  int64_t at = dst_at(w, x), stride = w->stride[DST][3] * w->size[DST];
  tn_dtype t = (tn_dtype)w->o[DST]->dtype;
  if (chain) {
    tpu_block_load(t, w->memory[DST] + at, 0, 1, &out);
    chain_block(w, args, masked ? &mask : NULL, n, &out);
    tpu_block_store(t, w->memory[DST] + at, 0, 1, &out);
    return;
  }
  compute(w->c->sim, w->i, args, &out, n);
  if (masked) store_masked(w, at, n, &mask, &out);
  else tpu_block_store(t, w->memory[DST] + at, stride, n, &out);
}

static void swap_axes(walk *w, int d) { /* axis d becomes the innermost, the others keep their order */
  for (; d < 3; d++) {
    int64_t e = w->extent[d];
    w->extent[d] = w->extent[d + 1];
    w->extent[d + 1] = e;
    for (int k = 0; k < OPERANDS; k++) {
      int64_t s = w->stride[k][d];
      w->stride[k][d] = w->stride[k][d + 1];
      w->stride[k][d + 1] = s;
    }
  }
}

/* Axis d + 1 continues axis d in every operand: together they are one. */
static bool joined(const walk *w, int d) {
  for (int k = 0; k < OPERANDS; k++)
    if (w->stride[k][d] != w->stride[k][d + 1] * w->extent[d + 1]) return false;
  return true;
}

/* Drops axis d; an outermost one of extent 1 is left instead. */
static void drop_axis(walk *w, int d) {
  for (; d > 0; d--) {
    w->extent[d] = w->extent[d - 1];
    for (int k = 0; k < OPERANDS; k++) w->stride[k][d] = w->stride[k][d - 1];
  }
  w->extent[0] = 1;
  for (int k = 0; k < OPERANDS; k++) w->stride[k][0] = 0;
}

static void join_axes(walk *w) {
  for (int d = 3, left = 4; left > 0; left--) {
    if (w->extent[d] == 1) drop_axis(w, d);
    else d--;
  }
  for (int d = 2; d >= 0; d--)
    if (w->extent[d] > 1 && joined(w, d)) {
      w->extent[d + 1] *= w->extent[d];
      drop_axis(w, d);
      d++; /* another one has moved here */
    }
}

/* Puts the axis innermost that makes the longest blocks; of a reduction, one that is not reduced. */
static void choose_axis(walk *w, bool any_order) {
  if (!any_order && !w->reduces) return;
  int best = -1;
  for (int d = 0; d < 4; d++) {
    if (w->extent[d] == 1 || (w->reduces && w->stride[DST][d] == 0)) continue;
    if (best < 0 || w->extent[d] > w->extent[best] || (d == 3 && w->extent[3] >= TPU_BLOCK)) best = d;
  }
  /* a chain is faster than tiny blocks, and than blocks across rows that are dense along the chain */
  if (w->reduces && w->stride[DST][3] == 0 && (best < 0 || w->extent[best] < 8 || (quick_chain(w) && w->extent[3] >= 8))) return;
  if (best >= 0 && w->extent[best] > 1) swap_axes(w, best);
}

static void walk_blocks(walk *w) {
  int64_t x[4];
  for (x[0] = 0; x[0] < w->extent[0]; x[0]++)
    for (x[1] = 0; x[1] < w->extent[1]; x[1]++)
      for (x[2] = 0; x[2] < w->extent[2]; x[2]++)
        for (x[3] = 0; x[3] < w->extent[3]; x[3] += TPU_BLOCK)
          do_block(w, x, (int)(w->extent[3] - x[3] < TPU_BLOCK ? w->extent[3] - x[3] : TPU_BLOCK));
}

/* ---- one element after another ---- */

static void load_one(walk *w, int k, const int64_t *x, tpu_block *to) {
  const tpu_operand *o = w->o[k];
  if (in_memory(o)) {
    const int64_t *s = w->stride[k];
    int64_t at = o->addr + (x[0] * s[0] + x[1] * s[1] + x[2] * s[2] + x[3] * s[3]) * w->size[k];
    tpu_block_load((tn_dtype)o->dtype, tpu_touch(w->c, w->i, w->number, o->space, at, w->size[k], false), 0, 1, to);
  } else load_block(w, k, x, 1, to);
}

static void do_one(walk *w, const int64_t *x) {
  tpu_block in[3], out;
  const tpu_block *args[3] = {&in[0], &in[1], &in[2]};
  if (w->o[MASK]->space) {
    load_one(w, MASK, x, &out);
    if (!out.i[0]) return;
  }
  bool lazy = w->i->op == TPU_VECTOR && w->i->fn == IX_SELECT;
  for (int k = A; k <= C; k++) {
    if (!w->o[k]->space) continue;
    if (lazy && k != A && k != (in[0].i[0] ? B : C)) in[k - A].i[0] = 0;
    else load_one(w, k, x, &in[k - A]);
  }
  compute(w->c->sim, w->i, args, &out, 1);
  uint8_t *to = tpu_touch(w->c, w->i, w->number, w->o[DST]->space, dst_at(w, x), w->size[DST], true);
  tpu_block_store((tn_dtype)w->o[DST]->dtype, to, 0, 1, &out);
}

static void walk_serially(walk *w) {
  int64_t x[4];
  for (x[0] = 0; x[0] < w->extent[0]; x[0]++)
    for (x[1] = 0; x[1] < w->extent[1]; x[1]++)
      for (x[2] = 0; x[2] < w->extent[2]; x[2]++)
        for (x[3] = 0; x[3] < w->extent[3]; x[3]++) do_one(w, x);
}

/* ---- which way ---- */

static bool same_place(const tpu_operand *a, const tpu_operand *b) {
  return a->space == b->space && a->addr == b->addr && a->dtype == b->dtype && memcmp(a->stride, b->stride, sizeof a->stride) == 0;
}

/* Whether the elements that an operand names are as many as its strides that are not 0 say. */
static bool distinct(const walk *w, int k, const tpu_box *b) {
  int64_t n = w->size[k], have = b->run;
  for (int d = 0; d < 4; d++)
    if (w->stride[k][d]) n *= w->extent[d];
  for (int d = 0; d < b->n; d++) have *= b->extent[d];
  return n == have;
}

/* Whether all of a box exists and, if read, is defined. Never faults. */
static bool safe(tpu_core *c, const tpu_inst *i, int64_t number, const tpu_box *b) {
  if (b->lo < 0 || b->hi > tpu_mem_of(c, b->space)->limit) return false;
  tpu_reach(c, i, number, b->space, b->lo, b->hi);
  return b->write || tpu_box_defined(c, b);
}

void tpu_vector(tpu_core *c, const tpu_inst *i, int64_t number) {
  int64_t elements = tpu_elements(i->extent);
  tpu_work(c, elements);
  if (!elements) return;
  walk w;
  begin(&w, c, i, number);
  tpu_box dst = tpu_operand_box(&i->dst, i->extent, true);
  bool blocks = safe(c, i, number, &dst), overwrites = !distinct(&w, DST, &dst);
  for (int k = A; k <= MASK && blocks; k++) {
    if (!in_memory(w.o[k])) continue;
    tpu_box box = tpu_operand_box(w.o[k], i->extent, false);
    blocks = safe(c, i, number, &box);
    if (!blocks || !tpu_boxes_meet(&dst, &box, true)) continue;
    w.is_dst[k] = k != MASK && same_place(w.o[DST], w.o[k]);
    if (!w.is_dst[k] || overwrites) blocks = false;
    w.reduces = true;
  }
  if (!blocks) {
    walk_serially(&w);
    return;
  }
  for (int k = DST; k < OPERANDS; k++)
    if (in_memory(w.o[k])) w.memory[k] = c->mem[w.o[k]->space].bytes;
  bool repeated = overwrites; /* several elements to one place: the last one stays */
  for (int d = 0; d < 4; d++) repeated |= w.extent[d] > 1 && w.stride[DST][d] == 0;
  join_axes(&w);
  choose_axis(&w, !w.reduces && !repeated);
  walk_blocks(&w);
  if (!i->mask.space) tpu_box_define(c, &dst);
}
