/* random_kernel.c — see random_kernel.h.
 *
 * A kernel is a few nests. A nest loops over all axes of one output, whole, reversed or
 * tiled with a guard, in any order of axes; its body makes values (lets, reductions,
 * bounded whiles, local arrays, register tiles) and stores the one element that belongs
 * to the iteration. So iterations are independent by construction. */
#include "random_kernel.h"
#include "ir/interp.h"
#include <math.h>
#include <string.h>

enum { MAX_SCOPE = 128 };

typedef struct gen {
  tn_ctx *ctx;
  uint64_t state;
  unsigned flags;
  ir_builder *b;
  tn_dtype palette[4];
  int npalette;
  ir_buf *bufs[8]; /* parameters; inputs first */
  int nbufs, nin;
  ir_var *dims[2];
  int ndims;
  ix index[MAX_SCOPE]; /* index values in scope, 0 <= each */
  int nindex;
  ix value[MAX_SCOPE]; /* data values in scope */
  int nvalue;
  ir_buf *local[MAX_SCOPE]; /* defined rank-0 registers in scope */
  int nlocal;
  bool in_vector;
  struct { ir_var *v; ir_loop_kind kind; int stages; } kinds[MAX_SCOPE];
  int nkinds;
} gen;

static uint64_t next(uint64_t *s) { /* splitmix64 */
  uint64_t z = *s += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}
static int pick(gen *g, int n) { return (int)(next(&g->state) % (uint64_t)n); }
static bool chance(gen *g, int percent) { return pick(g, 100) < percent; }
static ix I(gen *g, int64_t v) { return ix_index(g->ctx, v); }
static tn_dtype some_type(gen *g) { return g->palette[pick(g, g->npalette)]; }

/* ---- expressions ---- */

static ix gen_expr(gen *g, tn_dtype t, int depth);

static ix clamp_index(gen *g, ix e, ix extent) {
  return ix_max(g->ctx, I(g, 0), ix_min(g->ctx, e, ix_addi(g->ctx, extent, -1)));
}

/* An index value >= 0, or any if not `low`. */
static ix some_index(gen *g) { return g->nindex && chance(g, 85) ? g->index[pick(g, g->nindex)] : I(g, pick(g, 5)); }

/* An index in [0, extent). */
static ix gen_index(gen *g, ix extent) {
  tn_ctx *c = g->ctx;
  int64_t n;
  switch (pick(g, 8)) {
    case 0: return ix_const_value(extent, &n) ? I(g, pick(g, (int)n)) : I(g, 0);
    case 1: return ix_rem(c, ix_addi(c, ix_muli(c, some_index(g), 1 + pick(g, 4)), pick(g, 5)), extent);
    case 2: return clamp_index(g, ix_divi(c, some_index(g), 1 + pick(g, 4)), extent);
    case 3: return clamp_index(g, ix_sub(c, some_index(g), some_index(g)), extent);
    case 4: { /* data-dependent */
      tn_dtype t = some_type(g);
      ix e = gen_expr(g, t, 1);
      return clamp_index(g, ix_cast(c, TN_INDEX, e), extent);
    }
    default: return clamp_index(g, some_index(g), extent);
  }
}

static ix gen_load(gen *g, ir_buf *b) {
  ix index[IR_MAX_RANK];
  for (int i = 0; i < b->rank; i++) index[i] = gen_index(g, b->shape[i]);
  return ix_load(g->ctx, b, index);
}

static ix gen_const(gen *g, tn_dtype t) {
  static const double floats[] = {0, 1, -1, 0.5, 2, 3.25, -7.125, 100, 1e-3, 65504};
  if (ir_is_float(t)) return ix_float(g->ctx, t, chance(g, 60) ? floats[pick(g, IR_COUNT(floats))] : pick(g, 2001) / 250.0 - 4);
  if (t == TN_BOOL) return ix_bool(g->ctx, chance(g, 50));
  return ix_int(g->ctx, t, chance(g, 80) ? pick(g, 21) - 10 : (int64_t)next(&g->state));
}

static ix as_type(gen *g, tn_dtype t, ix e) { return ix_cast(g->ctx, t, e); }

static ix gen_leaf(gen *g, tn_dtype t) {
  for (int tries = 0; tries < 4; tries++) switch (pick(g, 5)) {
      case 0:
        if (g->nvalue) {
          ix v = g->value[pick(g, g->nvalue)];
          if (v->dtype == t || tries > 0) return as_type(g, t, v);
        }
        break;
      case 1:
        if (g->nlocal) {
          ir_buf *b = g->local[pick(g, g->nlocal)];
          if (b->dtype == t || tries > 0) return as_type(g, t, ib_get(g->b, b));
        }
        break;
      case 2: return chance(g, 30) ? gen_const(g, t) : as_type(g, t, some_index(g));
      default: {
        ir_buf *b = g->bufs[pick(g, g->nin)];
        if (b->dtype == t || tries > 1) return as_type(g, t, gen_load(g, b));
      }
    }
  return gen_const(g, t);
}

static ix gen_bool(gen *g, int depth) {
  tn_ctx *c = g->ctx;
  static const ir_opcode compare[] = {IX_LT, IX_LE, IX_EQ, IX_NE}, logic[] = {IX_AND, IX_OR, IX_XOR, IX_EQ, IX_MIN, IX_MAX};
  if (depth <= 0) return gen_leaf(g, TN_BOOL);
  switch (pick(g, 6)) {
    case 0: return ix_not(c, gen_expr(g, TN_BOOL, depth - 1));
    case 1: {
      ix a = gen_expr(g, TN_BOOL, depth - 1);
      return ix_binary(c, logic[pick(g, IR_COUNT(logic))], a, gen_expr(g, TN_BOOL, depth - 1));
    }
    case 2: return ix_binary(c, compare[pick(g, 4)], some_index(g), ix_addi(c, some_index(g), pick(g, 3)));
    default: {
      tn_dtype t = some_type(g);
      ix a = gen_expr(g, t, depth - 1);
      return ix_binary(c, compare[pick(g, 4)], a, gen_expr(g, t, depth - 1));
    }
  }
}

static ix gen_float(gen *g, tn_dtype t, int depth) {
  tn_ctx *c = g->ctx;
  static const ir_opcode unary[] = {IX_NEG, IX_ABS, IX_SQRT, IX_FLOOR, IX_CEIL, IX_ROUND, IX_TRUNC};
  static const ir_opcode binary[] = {IX_ADD, IX_SUB, IX_MUL, IX_DIV, IX_MIN, IX_MAX, IX_ADD, IX_MUL};
  int way = pick(g, 12);
  ix a = gen_expr(g, t, depth - 1);
  if (way == 0) return ix_unary(c, unary[pick(g, IR_COUNT(unary))], a);
  if (way == 1) {
    if (g->flags & RANDOM_NO_EXPAND) return ix_unary(c, IX_NEG, a);
    ir_opcode op = chance(g, 10) ? IX_POW : (ir_opcode)(IX_EXP + pick(g, IX_SIGMOID - IX_EXP + 1));
    return op == IX_POW ? ix_binary(c, op, a, gen_expr(g, t, depth - 1)) : ix_unary(c, op, a);
  }
  ix b = gen_expr(g, t, depth - 1);
  if (way == 2) return ix_fma(c, a, b, gen_expr(g, t, depth - 1));
  if (way == 3 && !(g->flags & RANDOM_NO_REM)) return ix_rem(c, a, b);
  return ix_binary(c, binary[pick(g, IR_COUNT(binary))], a, b);
}

static tn_dtype same_width_int(gen *g, tn_dtype t) {
  bool s = chance(g, 50);
  switch (ir_dtype_bits(t)) {
    case 8: return s ? TN_I8 : TN_U8;
    case 16: return s ? TN_I16 : TN_U16;
    case 32: return s ? TN_I32 : TN_U32;
    default: return s ? TN_I64 : TN_U64;
  }
}

static ix gen_int(gen *g, tn_dtype t, int depth) {
  tn_ctx *c = g->ctx;
  static const ir_opcode binary[] = {IX_ADD, IX_SUB, IX_MUL, IX_DIV, IX_REM, IX_MIN, IX_MAX, IX_AND, IX_OR, IX_XOR, IX_SHL, IX_SHR};
  int way = pick(g, 16);
  ix a = gen_expr(g, t, depth - 1);
  if (way == 0) return ix_unary(c, IX_NEG, a);
  if (way == 1) return ix_unary(c, IX_ABS, a);
  if (way == 2) return ix_unary(c, IX_NOT, a);
  if (way == 3) return ix_bitcast(c, t, gen_expr(g, same_width_int(g, t), depth - 1));
  if (way == 4) { /* bits of a float that is not NaN */
    tn_dtype f = ir_dtype_bits(t) == 32 ? TN_F32 : ir_dtype_bits(t) == 64 ? TN_F64 : TN_NONE;
    if (f) return ix_bitcast(c, t, ix_cast(c, f, a));
  }
  ix b = gen_expr(g, t, depth - 1);
  ir_opcode op = binary[pick(g, IR_COUNT(binary))];
  if ((op == IX_SHL || op == IX_SHR) && chance(g, 70)) b = ix_and(c, b, ix_int(c, t, 2 * ir_dtype_bits(t) - 1));
  return ix_binary(c, op, a, b);
}

static ix gen_expr(gen *g, tn_dtype t, int depth) {
  if (depth <= 0 || chance(g, 15)) return gen_leaf(g, t);
  if (chance(g, 12)) {
    ix c = gen_expr(g, TN_BOOL, depth - 1), a = gen_expr(g, t, depth - 1);
    return ix_select(g->ctx, c, a, gen_expr(g, t, depth - 1));
  }
  if (chance(g, 12)) return as_type(g, t, gen_expr(g, some_type(g), depth - 1));
  if (t == TN_BOOL) return gen_bool(g, depth);
  return ir_is_float(t) ? gen_float(g, t, depth) : gen_int(g, t, depth);
}

static ir_store_op update_op(gen *g, tn_dtype t) {
  static const ir_store_op real[] = {IR_ADD, IR_ADD, IR_MUL, IR_MAX, IR_MIN}, whole[] = {IR_ADD, IR_MUL, IR_MAX, IR_MIN, IR_OR, IR_AND},
                           logic[] = {IR_OR, IR_AND, IR_MAX, IR_MIN};
  if (t == TN_BOOL) return logic[pick(g, IR_COUNT(logic))];
  return ir_is_float(t) ? real[pick(g, IR_COUNT(real))] : whole[pick(g, IR_COUNT(whole))];
}

/* ---- scopes ---- */

typedef struct mark {
  int index, value, local;
} mark;
static mark scope_begin(const gen *g) { return (mark){g->nindex, g->nvalue, g->nlocal}; }
static void scope_end(gen *g, mark m) { g->nindex = m.index, g->nvalue = m.value, g->nlocal = m.local; }
static void add_index(gen *g, ix e) {
  if (g->nindex < MAX_SCOPE && e->lo >= 0) g->index[g->nindex++] = e;
}

static void set_kind(gen *g, ix v, ir_loop_kind kind) {
  if ((g->flags & RANDOM_SERIAL) || kind == IR_SERIAL || g->nkinds == MAX_SCOPE) return;
  g->kinds[g->nkinds].v = v->u.var;
  g->kinds[g->nkinds].stages = kind == IR_PIPELINE ? 1 + pick(g, 3) : 0;
  g->kinds[g->nkinds++].kind = kind;
}

static ix open_loop(gen *g, const char *name, ix extent, ir_loop_kind kind) {
  ix v = ib_loop(g->b, name, extent);
  set_kind(g, v, kind);
  add_index(g, v);
  return v;
}

/* ---- things that make values ---- */

static void gen_let(gen *g) {
  if (g->nvalue == MAX_SCOPE) return;
  if (chance(g, 25)) add_index(g, ib_let(g->b, "at", gen_index(g, I(g, 1 + pick(g, 9)))));
  else g->value[g->nvalue++] = ib_let(g->b, "v", gen_expr(g, some_type(g), 3));
}

static ix loop_extent(gen *g) { /* small; may be empty, may depend on what is around */
  if (g->ndims && chance(g, 25)) return g->dims[pick(g, g->ndims)]->expr;
  if (chance(g, 20)) return ix_min(g->ctx, some_index(g), I(g, 6));
  return I(g, pick(g, 6));
}

static void gen_reduction(gen *g) {
  tn_dtype t = some_type(g);
  ir_buf *acc = ib_local(g->b, "acc", t, gen_expr(g, t, 1));
  mark m = scope_begin(g);
  ix extent = loop_extent(g);
  int64_t n;
  bool constant = ix_const_value(extent, &n);
  open_loop(g, "r", extent, constant && chance(g, 40) ? IR_UNROLL : chance(g, 15) ? IR_PIPELINE : IR_SERIAL);
  if (chance(g, 20)) gen_let(g);
  bool guard = chance(g, 25);
  if (guard) ib_if(g->b, gen_bool(g, 1));
  ib_update(g->b, acc, NULL, update_op(g, t), gen_expr(g, t, 2));
  if (guard && chance(g, 40)) {
    ib_else(g->b);
    ib_set(g->b, acc, gen_expr(g, t, 1));
  }
  if (guard) ib_end(g->b);
  ib_end(g->b);
  scope_end(g, m);
  g->local[g->nlocal++] = acc;
}

/* A while over a counter, or until data says so, at most a few rounds. */
static void gen_while(gen *g) {
  if (g->in_vector || (g->flags & RANDOM_NO_WHILE)) return;
  tn_ctx *c = g->ctx;
  tn_dtype t = some_type(g), ct = chance(g, 50) ? TN_INDEX : TN_I32;
  ir_buf *count = ib_local(g->b, "count", ct, ix_int(c, ct, 0)), *acc = ib_local(g->b, "acc", t, gen_expr(g, t, 1));
  ix more = ix_lt(c, ib_get(g->b, count), ix_int(c, ct, pick(g, 6)));
  mark m = scope_begin(g);
  g->local[g->nlocal++] = acc;
  if (chance(g, 50)) more = ix_and(c, more, gen_bool(g, 1));
  ib_while(g->b, more);
  ib_update(g->b, acc, NULL, chance(g, 50) ? IR_SET : update_op(g, t), gen_expr(g, t, 2));
  ib_update(g->b, count, NULL, IR_ADD, ix_int(c, ct, 1));
  ib_end(g->b);
  scope_end(g, m);
  g->local[g->nlocal++] = acc;
}

/* A local array, filled by one loop and read by another; sometimes with a layout. */
static void gen_array(gen *g) {
  tn_dtype t = some_type(g);
  ix shape[2] = {I(g, 1 + pick(g, 7)), I(g, 1 + pick(g, 4))};
  if (g->ndims && chance(g, 20)) shape[0] = g->dims[0]->expr;
  int rank = 1 + chance(g, 30);
  ir_buf *a = ib_alloc(g->b, "tmp", t, rank, shape, IR_LOCAL);
  mark m = scope_begin(g);
  ix at[2];
  for (int i = 0; i < rank; i++) at[i] = open_loop(g, "f", shape[i], i == 0 && rank == 1 && ix_is_const(shape[0]) && !g->in_vector && chance(g, 40) ? IR_VECTOR : IR_SERIAL);
  ib_store(g->b, a, at, gen_expr(g, t, 2));
  ib_end_n(g->b, rank);
  scope_end(g, m);
  ir_buf *acc = ib_local(g->b, "sum", t, gen_expr(g, t, 1));
  m = scope_begin(g);
  ix index[2];
  open_loop(g, "s", loop_extent(g), IR_SERIAL);
  for (int i = 0; i < rank; i++) index[i] = gen_index(g, shape[i]);
  ib_update(g->b, acc, NULL, update_op(g, t), ib_load(g->b, a, index));
  ib_end(g->b);
  scope_end(g, m);
  g->local[g->nlocal++] = acc;
}

static void gen_values(gen *g) {
  for (int n = pick(g, 3); n > 0; n--) switch (pick(g, 5)) {
      case 0: gen_reduction(g); break;
      case 1: gen_while(g); break;
      case 2: gen_array(g); break;
      default: gen_let(g);
    }
}

/* ---- nests ---- */

static void store_element(gen *g, ir_buf *out, const ix *index, ix value, bool may_update) {
  bool guard = chance(g, 15);
  if (guard) ib_if(g->b, gen_bool(g, 2));
  ib_update(g->b, out, index, may_update && chance(g, 50) ? update_op(g, out->dtype) : IR_SET, value);
  if (guard && chance(g, 50)) {
    ib_else(g->b);
    ib_store(g->b, out, index, gen_expr(g, out->dtype, 2));
  }
  if (guard) ib_end(g->b);
}

/* acc[T] in registers: set, reduced into, stored; T at the end of the last axis. */
static void register_tile(gen *g, ir_buf *out, ix *index, ix base, ix extent, int64_t t, bool may_update) {
  tn_ctx *c = g->ctx;
  int last = out->rank - 1;
  ix shape[2] = {I(g, 1 + pick(g, 3)), I(g, t)}, at[2];
  ir_buf *acc = ib_alloc(g->b, "block", out->dtype, 2, shape, IR_REGISTER);
  ir_loop_kind lanes = chance(g, 60) ? IR_VECTOR : IR_UNROLL;
  ir_store_op op = update_op(g, out->dtype);
  mark m = scope_begin(g);
  at[0] = open_loop(g, "a", shape[0], IR_UNROLL);
  at[1] = open_loop(g, "t", shape[1], lanes);
  ib_store(g->b, acc, at, gen_expr(g, out->dtype, 1));
  ib_end_n(g->b, 2);
  scope_end(g, m);
  open_loop(g, "r", loop_extent(g), IR_SERIAL);
  at[0] = open_loop(g, "a", shape[0], IR_UNROLL);
  at[1] = open_loop(g, "t", shape[1], lanes);
  bool was = g->in_vector;
  g->in_vector = was || lanes == IR_VECTOR;
  ib_update(g->b, acc, at, op, gen_expr(g, out->dtype, 2));
  g->in_vector = was;
  ib_end_n(g->b, 3);
  scope_end(g, m);
  at[0] = I(g, 0);
  at[1] = open_loop(g, "t", shape[1], lanes);
  index[last] = ix_add(c, base, at[1]);
  ib_if(g->b, ix_lt(c, index[last], extent));
  ib_update(g->b, out, index, may_update && chance(g, 50) ? update_op(g, out->dtype) : IR_SET, ib_load(g->b, acc, at));
  ib_end_n(g->b, 2);
  scope_end(g, m);
}

static void gen_nest(gen *g, ir_buf *out, bool may_update, bool may_parallel) {
  tn_ctx *c = g->ctx;
  mark m = scope_begin(g);
  int order[IR_MAX_RANK], open = 0;
  for (int i = 0; i < out->rank; i++) order[i] = i;
  for (int i = out->rank - 1; i > 0; i--) {
    int j = pick(g, i + 1), t = order[i];
    order[i] = order[j];
    order[j] = t;
  }
  bool registers = out->rank && !(g->flags & RANDOM_SERIAL) && chance(g, 25);
  bool was_vector = g->in_vector;
  ix index[IR_MAX_RANK], guard = ix_bool(c, true), base = NULL;
  ix inner_of[IR_MAX_RANK] = {NULL}, outer_of[IR_MAX_RANK];
  int64_t factor[IR_MAX_RANK], tile = 2 + pick(g, 7);
  for (int k = 0; k < out->rank; k++) { /* outer loops */
    int a = order[k];
    ix extent = out->shape[a];
    ir_loop_kind kind = open == 0 && may_parallel && chance(g, 40) ? IR_PARALLEL : IR_SERIAL;
    if (registers && a == out->rank - 1) {
      base = ix_muli(c, open_loop(g, "p", ix_ceil_div(c, extent, tile), kind), tile);
    } else if (chance(g, 25)) {
      factor[a] = 2 + pick(g, 7);
      outer_of[a] = open_loop(g, "o", ix_ceil_div(c, extent, factor[a]), kind);
      inner_of[a] = extent;
    } else {
      int64_t n;
      bool last = k == out->rank - 1 && !registers && ix_const_value(extent, &n);
      for (int j = 0; j < k; j++) last = last && !inner_of[order[j]];
      if (kind == IR_SERIAL && last && chance(g, 50)) kind = chance(g, 65) ? IR_VECTOR : IR_UNROLL;
      if (kind == IR_VECTOR) g->in_vector = !(g->flags & RANDOM_SERIAL);
      ix v = open_loop(g, "i", extent, kind);
      index[a] = chance(g, 15) ? ix_sub(c, ix_addi(c, extent, -1), v) : v;
    }
    open++;
  }
  int remaining = 0;
  for (int a = 0; a < out->rank; a++) remaining += inner_of[a] != NULL;
  for (int a = 0; a < out->rank; a++)
    if (inner_of[a]) { /* inner loops of tiled axes */
      ir_loop_kind kind = IR_SERIAL;
      if (--remaining == 0 && !registers && chance(g, 70)) kind = chance(g, 65) ? IR_VECTOR : IR_UNROLL;
      if (kind == IR_VECTOR) g->in_vector = !(g->flags & RANDOM_SERIAL);
      index[a] = ix_add(c, ix_muli(c, outer_of[a], factor[a]), open_loop(g, "q", I(g, factor[a]), kind));
      guard = ix_and(c, guard, ix_lt(c, index[a], inner_of[a]));
      add_index(g, index[a]);
      open++;
    }
  bool guarded = !ix_is_const(guard);
  if (guarded) ib_if(g->b, guard);
  gen_values(g);
  if (registers) register_tile(g, out, index, base, out->shape[out->rank - 1], tile, may_update);
  else {
    ix value = gen_expr(g, out->dtype, 4);
    if (g->nlocal > m.local && chance(g, 60)) /* what was computed should matter */
      value = ix_binary(c, out->dtype == TN_BOOL ? IX_XOR : IX_ADD, value, as_type(g, out->dtype, ib_get(g->b, g->local[g->nlocal - 1])));
    store_element(g, out, index, value, may_update);
  }
  if (guarded) ib_end(g->b);
  ib_end_n(g->b, open);
  g->in_vector = was_vector;
  scope_end(g, m);
}

/* ---- kernels ---- */

static const ir_layout *gen_layout(gen *g, int rank) {
  if ((g->flags & RANDOM_PLAIN) || rank == 0 || chance(g, 65)) return NULL;
  ir_text t = {.ctx = g->ctx};
  int now = rank;
  for (int n = 1 + pick(g, 2); n > 0; n--) {
    ir_put(&t, "%s", t.n ? "; " : "");
    switch (pick(g, now > 1 ? 4 : 2)) {
      case 0: ir_put(&t, "split %d %d", pick(g, now++), 2 + pick(g, 7)); break;
      case 1: {
        int before = pick(g, 3);
        ir_put(&t, "pad %d %d %d", pick(g, now), before, 1 + pick(g, 3));
        break;
      }
      case 2: {
        int a = pick(g, now);
        ir_put(&t, "xor %d %d %d", a, (a + 1 + pick(g, now - 1)) % now, 2 << pick(g, 3));
        break;
      }
      default: {
        ir_put(&t, "perm");
        int first = pick(g, now);
        for (int i = 0; i < now; i++) ir_put(&t, " %d", (first + i) % now);
      }
    }
  }
  return ir_layout_parse(g->ctx, ir_text_str(&t));
}

static ir_buf *gen_buffer(gen *g, const char *name, tn_dtype t, ir_access access) {
  ix shape[4];
  int rank = chance(g, 8) ? 0 : 1 + pick(g, 3);
  for (int i = 0; i < rank; i++) {
    shape[i] = I(g, chance(g, 10) ? 16 + pick(g, 20) : 1 + pick(g, 8));
    if (g->ndims && chance(g, 25)) shape[i] = g->dims[pick(g, g->ndims)]->expr;
  }
  ir_buf *b = ir_buf_new(g->ctx, name, t, rank, shape, gen_layout(g, rank), IR_GLOBAL);
  b->access = access;
  g->bufs[g->nbufs++] = b;
  return b;
}

static const ir_stmt *apply_kind(ir_rewriter *r, const ir_stmt *s) {
  gen *g = r->user;
  if (s->kind != IR_FOR) return s;
  ir_loop_kind kind = s->loop;
  int stages = 0;
  for (int i = 0; i < g->nkinds; i++)
    if (g->kinds[i].v == s->var) kind = g->kinds[i].kind, stages = g->kinds[i].stages;
  const ir_stmt *made = ir_for(r->ctx, s->var, s->lo, s->hi, kind, ir_rewrite(r, s->body));
  if (made && stages) {
    ir_stmt *copy = IR_NEW(r->ctx, ir_stmt);
    *copy = *made;
    copy->stages = stages;
    made = copy;
  }
  if (made && (g->flags & RANDOM_TILES) && chance(g, 10)) return ir_tile(r->ctx, "any", made);
  return made;
}

ir_kernel *random_kernel(tn_ctx *ctx, uint64_t seed, unsigned flags) {
  gen *g = IR_NEW(ctx, gen);
  g->ctx = ctx;
  g->state = seed * 0xd1342543de82ef95u + 1;
  g->flags = flags;
  g->b = ir_builder_new(ctx);
  static const tn_dtype all[] = {TN_F32, TN_F32, TN_F32, TN_F64, TN_F16, TN_BF16, TN_I8, TN_I16, TN_I32, TN_I64, TN_U8, TN_U16, TN_U32, TN_U64, TN_BOOL, TN_F8E4M3FN, TN_F8E5M2, TN_F8E5M2FNUZ};
  g->npalette = 1 + pick(g, 3);
  for (int i = 0; i < g->npalette; i++) {
    do g->palette[i] = flags & RANDOM_F32 ? (i ? TN_I32 : TN_F32) : all[pick(g, IR_COUNT(all))];
    while ((flags & RANDOM_NO_HALF) && ir_is_narrow_float(g->palette[i]));
  }
  if (!(flags & RANDOM_STATIC) && chance(g, 30)) {
    g->ndims = 1 + chance(g, 40);
    for (int i = 0; i < g->ndims; i++) g->dims[i] = ir_var_new(ctx, i ? "m" : "n", TN_INDEX, 1, 6 + 3 * i);
    for (int i = 0; i < g->ndims; i++) add_index(g, g->dims[i]->expr);
  }
  g->nin = 1 + pick(g, 3);
  static const char *const ins[] = {"x", "y", "z"}, *const outs[] = {"out", "more", "last"};
  for (int i = 0; i < g->nin; i++) gen_buffer(g, ins[i], some_type(g), IR_IN);
  int nout = 1 + pick(g, 3);
  for (int i = 0; i < nout; i++) {
    ir_buf *out = gen_buffer(g, outs[i], some_type(g), chance(g, 30) ? IR_INOUT : IR_OUT);
    if (chance(g, 25)) gen_let(g);
    gen_nest(g, out, out->access == IR_INOUT, true);
    if (chance(g, 20)) gen_nest(g, out, out->access == IR_INOUT, true);
  }
  ir_kernel *k = IR_NEW(ctx, ir_kernel);
  k->name = "random";
  k->nbufs = g->nbufs;
  k->bufs = IR_NEW_ARRAY(ctx, ir_buf *, g->nbufs);
  memcpy(k->bufs, g->bufs, (size_t)g->nbufs * sizeof *k->bufs);
  k->ndims = g->ndims;
  k->dims = IR_NEW_ARRAY(ctx, ir_var *, g->ndims + 1);
  memcpy(k->dims, g->dims, (size_t)g->ndims * sizeof *k->dims);
  k->body = ir_rewrite(&(ir_rewriter){.ctx = ctx, .user = g, .stmt = apply_kind}, ib_finish(g->b));
  return k;
}

/* ---- contents ---- */

typedef struct dim_values {
  tn_ctx *ctx;
  const ir_kernel *k;
  const int64_t *dims;
} dim_values;

static ix dim_value(void *user, ir_var *v) {
  dim_values *d = user;
  for (int i = 0; i < d->k->ndims; i++)
    if (d->k->dims[i] == v) return ix_index(d->ctx, d->dims[i]);
  return NULL;
}

static random_args args_alloc(tn_ctx *ctx, const ir_kernel *k, const int64_t *dims) {
  random_args a = {IR_NEW_ARRAY(ctx, int64_t, k->ndims + 1), IR_NEW_ARRAY(ctx, void *, k->nbufs + 1), IR_NEW_ARRAY(ctx, int64_t, k->nbufs + 1)};
  memcpy(a.dims, dims, (size_t)k->ndims * sizeof *dims);
  dim_values d = {ctx, k, a.dims};
  for (int i = 0; i < k->nbufs; i++) {
    ix n = ix_subst(ctx, ir_buf_elements(ctx, k->bufs[i]), dim_value, &d);
    a.bytes[i] = ix_need_const(ctx, n, "size") * (int64_t)ir_dtype_bytes(k->bufs[i]->dtype);
    char *p = ir_alloc(ctx, (size_t)a.bytes[i] + 128);
    a.args[i] = p + (-(uintptr_t)p & 63); /* buffers are aligned to 64 bytes */
  }
  return a;
}

random_args random_args_new(tn_ctx *ctx, const ir_kernel *k, uint64_t seed) {
  static const double specials[] = {0, -0.0, INFINITY, -INFINITY, NAN, 1e30, -1e-30, 1e-40};
  uint64_t s = seed * 0x9fb21c651e98df25u + 7;
  int64_t dims[16];
  for (int i = 0; i < k->ndims && i < 16; i++) {
    int64_t lo = k->dims[i]->lo < 0 ? 0 : k->dims[i]->lo, hi = k->dims[i]->hi > lo + 16 ? lo + 16 : k->dims[i]->hi;
    dims[i] = lo + (int64_t)(next(&s) % (uint64_t)(hi - lo + 1));
  }
  random_args a = args_alloc(ctx, k, dims);
  for (int i = 0; i < k->nbufs; i++) {
    tn_dtype t = k->bufs[i]->dtype;
    int64_t w = (int64_t)ir_dtype_bytes(t);
    for (int64_t at = 0; at < a.bytes[i]; at += w) {
      uint64_t r = next(&s);
      ir_scalar v;
      if (ir_is_float(t)) v.f = ir_round_float(t, r % 64 == 0 ? specials[r >> 8 & 7] : (double)(r >> 11) * 0x1p-50 - 4);
      else v.i = ir_wrap_int(t, t == TN_BOOL ? (int64_t)(r >> 9 & 1) : r % 16 == 0 ? (int64_t)next(&s) : (int64_t)(r >> 8 & 31) - 16);
      ir_scalar_store(t, (char *)a.args[i] + at, v);
    }
  }
  return a;
}

random_args random_args_copy(tn_ctx *ctx, const ir_kernel *k, const random_args *from) {
  random_args a = args_alloc(ctx, k, from->dims);
  for (int i = 0; i < k->nbufs; i++) memcpy(a.args[i], from->args[i], (size_t)a.bytes[i]);
  return a;
}

bool *random_args_places(tn_ctx *ctx, const ir_kernel *k, const random_args *a, int i) {
  const ir_buf *b = k->bufs[i];
  dim_values d = {ctx, k, a->dims};
  int64_t extent[IR_MAX_RANK], at[IR_MAX_RANK] = {0}, all = 1;
  bool *places = IR_NEW_ARRAY(ctx, bool, a->bytes[i] / (int64_t)ir_dtype_bytes(b->dtype) + 1);
  for (int x = 0; x < b->rank; x++) all *= extent[x] = ix_need_const(ctx, ix_subst(ctx, b->shape[x], dim_value, &d), "extent");
  for (int64_t n = 0; n < all; n++) {
    ix index[IR_MAX_RANK];
    int64_t left = n;
    for (int x = b->rank; x-- > 0; left /= extent[x]) at[x] = left % extent[x], index[x] = ix_index(ctx, at[x]);
    places[ix_need_const(ctx, ix_subst(ctx, ir_buf_offset(ctx, b, index), dim_value, &d), "offset")] = true;
  }
  return places;
}

const char *random_args_differ(tn_ctx *ctx, const ir_kernel *k, const random_args *want, const random_args *got) {
  for (int i = 0; i < k->nbufs; i++) {
    tn_dtype t = k->bufs[i]->dtype;
    int64_t w = (int64_t)ir_dtype_bytes(t);
    const bool *places = NULL;
    for (int64_t at = 0; at < want->bytes[i]; at += w) {
      const char *p = (const char *)want->args[i] + at, *q = (const char *)got->args[i] + at;
      if (memcmp(p, q, (size_t)w) == 0) continue;
      if (k->bufs[i]->layout && !places) places = random_args_places(ctx, k, want, i);
      if (places && !places[at / w]) continue;
      ir_scalar x = ir_scalar_load(t, p), y = ir_scalar_load(t, q);
      if (ir_is_float(t) && isnan(x.f) && isnan(y.f)) continue;
      if (ir_is_float(t)) return ir_format(ctx, "'%s' element %lld: %.17g, should be %.17g", k->bufs[i]->name, (long long)(at / w), y.f, x.f);
      return ir_format(ctx, "'%s' element %lld: %lld, should be %lld", k->bufs[i]->name, (long long)(at / w), (long long)y.i, (long long)x.i);
    }
  }
  return NULL;
}
