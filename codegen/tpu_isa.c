/* tpu_isa.c — tables of the instruction set, making and checking instructions and programs. */
#include "codegen/tpu_fields.h"
#include "ir/interp.h"
#include <stddef.h>
#include <string.h>

_Static_assert(sizeof(tpu_operand) == 32 && sizeof(tpu_window) == 96 && sizeof(tpu_pad) == 64 && sizeof(tpu_inst) == 256,
               "instructions are memory images in files");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files hold instructions as they lie in memory");

const tpu_op_info tpu_ops[TPU_OPCODES] = {
#define ROW(e, text, unit, fields) [TPU_##e] = {text, TPU_UNIT_##unit, TPU_FIELDS_##fields},
#include "codegen/tpu_ops.h"
#undef ROW
};
const char *const tpu_unit_names[TPU_UNITS] = {"sequencer", "host", "load", "store", "weights", "matrix", "vector"};
const char *const tpu_space_names[TPU_SPACES] = {"none", "dram", "ub", "acc", "imm", "iota"};

/* ---- the fields of each kind of instruction ---- */

#define AT(member) (uint16_t)offsetof(tpu_inst, member)
#define COMMON {"wait", TPU_F_U8, AT(wait), 2}, {"signal", TPU_F_U8, AT(signal), 2}, {"after", TPU_F_AFTER, AT(after), 8}
#define EXTENT {"n", TPU_F_I32, AT(extent), 4}
#define FN {"fn", TPU_F_FN, AT(fn), 1}
#define OPERAND(name, member) {name, TPU_F_OPERAND, AT(member), 1}

static const tpu_field none[] = {COMMON, {0}};
static const tpu_field control[] = {{"r", TPU_F_U8, AT(reg), 1}, {"s", TPU_F_U8, AT(reg2), 1}, {"span", TPU_F_I32, AT(span), 1},
                                    {"imm", TPU_F_I64, AT(imm), 1}, OPERAND("src", src), COMMON, {0}};
static const tpu_field sync[] = {{"unit", TPU_F_UNIT, AT(unit), 1}, COMMON, {0}};
static const tpu_field dma[] = {OPERAND("dst", dst), OPERAND("src", src), EXTENT, {"first", TPU_F_I32, AT(pad.first), 4},
                                {"size", TPU_F_I32, AT(pad.size), 4}, {"fill", TPU_F_I64, AT(pad.fill), 1}, COMMON, {0}};
static const tpu_field indexed[] = {FN, OPERAND("dst", dst), OPERAND("src", src), OPERAND("index", index), OPERAND("mask", mask),
                                    EXTENT, COMMON, {0}};
static const tpu_field weights[] = {OPERAND("src", src), EXTENT, COMMON, {0}};
static const tpu_field window[] = {FN, OPERAND("dst", dst), OPERAND("src", src), EXTENT, {"at", TPU_F_I32, AT(win.y0), 2},
                                   {"limit", TPU_F_I32, AT(win.height), 2}, {"step", TPU_F_I32, AT(win.sy), 2},
                                   {"dilate", TPU_F_I32, AT(win.dy), 2}, {"kernel", TPU_F_I32, AT(win.kh), 3},
                                   {"k", TPU_F_I32, AT(win.k_first), 2}, {"zero", TPU_F_I16, AT(win.a_zero), 2},
                                   {"init", TPU_F_I64, AT(win.init), 1},
                                   {"deep", TPU_F_I32, AT(win.z0), 5}, COMMON, {0}};
static const tpu_field chain[] = {OPERAND("dst", dst), OPERAND("a", src), OPERAND("b", b), OPERAND("c", c), OPERAND("mask", mask),
                                  EXTENT, {"imm0", TPU_F_I64, AT(imm), 1}, {"imm1", TPU_F_I64, AT(imm1), 1},
                                  {"chain", TPU_F_CHAIN, AT(chain), TPU_CHAIN}, COMMON, {0}};
static const tpu_field vector[] = {FN, OPERAND("dst", dst), OPERAND("a", src), OPERAND("b", b), OPERAND("c", c),
                                   OPERAND("mask", mask), EXTENT, COMMON, {0}};

const tpu_field *const tpu_field_table[TPU_FIELD_KINDS] = {
    [TPU_FIELDS_NONE] = none,       [TPU_FIELDS_CONTROL] = control, [TPU_FIELDS_SYNC] = sync,
    [TPU_FIELDS_DMA] = dma,         [TPU_FIELDS_INDEXED] = indexed, [TPU_FIELDS_WEIGHTS] = weights,
    [TPU_FIELDS_WINDOW] = window,   [TPU_FIELDS_CHAIN] = chain,     [TPU_FIELDS_VECTOR] = vector,
};
const char *const tpu_flag_names[TPU_FLAG_COUNT] = {"accumulate", "swap", "channels_last"};

/* Flags that an op may carry. */
static int flags_of(int op) {
  return op == TPU_MATMUL ? TPU_ACCUMULATE | TPU_SWAP | TPU_CHANNELS_LAST : op == TPU_POOL ? TPU_ACCUMULATE : 0;
}

size_t tpu_field_bytes(const tpu_field *f) {
  static const uint8_t size[] = {[TPU_F_U8] = 1, [TPU_F_I16] = 2, [TPU_F_I32] = 4, [TPU_F_I64] = 8, [TPU_F_FN] = 1, [TPU_F_UNIT] = 1,
                                 [TPU_F_AFTER] = 2, [TPU_F_OPERAND] = sizeof(tpu_operand), [TPU_F_CHAIN] = sizeof(tpu_step_fn)};
  return (size_t)size[f->kind] * f->count;
}

tpu_inst tpu_inst_of(tpu_opcode op) {
  tpu_inst i = {.op = (uint8_t)op};
  tpu_fields fields = tpu_ops[op].fields;
  if (fields >= TPU_FIELDS_DMA) i.extent[0] = i.extent[1] = i.extent[2] = i.extent[3] = 1;
  if (fields == TPU_FIELDS_WINDOW) {
    tpu_window *w = &i.win;
    w->sz = w->sy = w->sx = w->dz = w->dy = w->dx = w->kd = w->kh = w->kw = 1;
    w->kc = op == TPU_MATMUL;
  }
  return i;
}

/* ---- immediates ---- */

int64_t tpu_imm_bits(tn_dtype t, ir_scalar v) {
  if (!ir_is_float(t)) return ir_wrap_int(t, v.i);
  double f = ir_round_float(t, v.f);
  int64_t bits;
  memcpy(&bits, &f, 8);
  return bits;
}

tpu_operand tpu_imm(tn_dtype t, double v) {
  ir_scalar s = {.f = v};
  if (!ir_is_float(t)) s.i = (int64_t)v;
  return tpu_at(TPU_IMM, t, tpu_imm_bits(t, s), 0, 0, 0, 0);
}

tpu_operand tpu_imm_int(tn_dtype t, int64_t v) {
  if (ir_is_float(t)) return tpu_imm(t, (double)v);
  return tpu_at(TPU_IMM, t, tpu_imm_bits(t, (ir_scalar){.i = v}), 0, 0, 0, 0);
}

/* ---- checking ---- */

/* Reasons are constant texts where nothing has to be named: a check is made for millions. */
static bool elements_fit(const tpu_inst *i) {
  int64_t n = 1;
  for (int d = 0; d < 4; d++)
    if (!ir_mul_size(n, i->extent[d], &n)) return false;
  return n < (int64_t)1 << 40;
}

enum { DRAM = 1 << TPU_DRAM, UB = 1 << TPU_UB, ACC = 1 << TPU_ACC, IMM = 1 << TPU_IMM, IOTA = 1 << TPU_IOTA, NONE = 1 << TPU_NONE };

/* Null, or what is wrong with an operand that may live in `spaces`. */
static const char *operand_wrong(const tpu_operand *o, int spaces) {
  static const tpu_operand absent;
  if (o->space >= TPU_SPACES) return "no such space";
  if (!(spaces >> o->space & 1)) return "a space that it cannot be in";
  if (o->zero) return "a reserved byte that is not zero";
  if (o->space == TPU_NONE) return memcmp(o, &absent, sizeof absent) ? "no space, yet other parts" : NULL;
  if (o->dtype == TN_NONE || o->dtype >= TN_DTYPE_COUNT) return "no such dtype";
  if (o->reg >= TPU_REGISTERS || o->reg2 >= TPU_REGISTERS) return "no such register";
  if (o->space == TPU_ACC && o->dtype != TN_F32 && o->dtype != TN_I32) return "accumulators that are neither f32 nor i32";
  if (o->space <= TPU_ACC && (o->addr > TPU_ADDRESS_MAX || o->addr < -TPU_ADDRESS_MAX)) return "an address beyond 2^50";
  if (o->space == TPU_IMM && (o->reg || o->reg2)) return "an immediate with a register";
  if (o->space == TPU_IOTA && !ir_is_int((tn_dtype)o->dtype)) return "an iota that is no integer";
  return NULL;
}

/* Whether no element lies more than 2^48 elements away along any axis, whose coordinates stay below `reach`. */
static bool near(const tpu_operand *o, const int64_t *reach) {
  for (int d = 0; d < 4; d++)
    if ((o->stride[d] < 0 ? -(int64_t)o->stride[d] : o->stride[d]) * reach[d] > (int64_t)1 << 48) return false; /* 31 bits times 32 */
  return true;
}

static bool all_near(const tpu_inst *i, int n, const tpu_operand *const *o) {
  int64_t reach[4];
  for (int d = 0; d < 4; d++) reach[d] = i->extent[d];
  for (int k = 0; k < n; k++)
    if (!near(o[k], reach)) return false;
  return true;
}

static const char far_away[] = "a stride that leads more than 2^48 elements away";

typedef struct where { /* operands of an instruction and the spaces they may be in */
  const char *name;
  const tpu_operand *o;
  int spaces;
} where;

static const char *operands_wrong(tn_ctx *ctx, int n, const where *w) {
  for (int k = 0; k < n; k++) {
    const char *why = operand_wrong(w[k].o, w[k].spaces);
    if (why) return ir_format(ctx, "%s: %s", w[k].name, why);
  }
  return NULL;
}

static bool is_f32_like(int t) { return t == TN_F16 || t == TN_BF16 || t == TN_F32; }
static bool is_byte(int t) { return t == TN_I8 || t == TN_U8; }

static const char *control_wrong(tn_ctx *ctx, const tpu_inst *i) {
  if (i->reg >= TPU_REGISTERS || i->reg2 >= TPU_REGISTERS) return "no such register";
  bool sets = i->op == TPU_CONFIG || i->op == TPU_STEP || i->op == TPU_READ;
  if (sets != (i->reg != 0)) return sets ? "register 0 cannot be set" : "a register that it does not set";
  if (i->reg2 && i->op != TPU_STEP && i->op != TPU_REPEAT && i->op != TPU_JUMP) return "a register that it does not read";
  if (i->imm && i->op == TPU_JUMP) return "imm that it does not use";
  if (i->op == TPU_REPEAT ? i->span < 1 : i->op == TPU_JUMP ? i->span == 0 : i->span != 0) return "a span that it cannot have";
  if (i->op == TPU_READ && i->imm < 0) return "imm below 0";
  const char *why = operand_wrong(&i->src, i->op == TPU_READ ? UB | ACC : NONE);
  if (why) return ir_format(ctx, "src: %s", why);
  if (i->op == TPU_READ && (!ir_is_int((tn_dtype)i->src.dtype) && i->src.dtype != TN_BOOL)) return "src is no integer";
  return NULL;
}

static const char *dma_wrong(tn_ctx *ctx, const tpu_inst *i) {
  const char *why = operands_wrong(ctx, 2, (where[]){{"dst", &i->dst, DRAM | UB}, {"src", &i->src, DRAM | UB}});
  if (why) return why;
  if (i->dst.dtype != i->src.dtype) return "dst and src differ in dtype";
  int64_t reach[4];
  for (int d = 0; d < 4; d++) {
    if (i->pad.size[d] < 0) return "a negative size";
    reach[d] = (int64_t)i->extent[d] + (i->pad.first[d] < 0 ? -(int64_t)i->pad.first[d] : i->pad.first[d]);
  }
  if (!near(&i->src, reach) || !all_near(i, 1, (const tpu_operand *[]){&i->dst})) return far_away;
  if (i->pad.zero[0] || i->pad.zero[1] || i->pad.zero[2]) return "a reserved byte that is not zero";
  return NULL;
}

static const char *indexed_wrong(tn_ctx *ctx, const tpu_inst *i) {
  bool rows = i->op == TPU_LOAD_ROWS || i->op == TPU_STORE_ROWS;
  const char *why = operands_wrong(ctx, 4, (where[]){{"dst", &i->dst, rows ? DRAM | UB : UB | ACC},
                                                     {"src", &i->src, rows ? DRAM | UB : UB | ACC | (i->op == TPU_SCATTER ? IMM : 0)},
                                                     {"index", &i->index, UB},
                                                     {"mask", &i->mask, rows ? NONE : NONE | UB}});
  if (why) return why;
  if (!all_near(i, 4, (const tpu_operand *[]){&i->dst, &i->src, &i->index, &i->mask})) return far_away;
  if (!ir_is_int((tn_dtype)i->index.dtype)) return "index is no integer";
  if (i->mask.space && i->mask.dtype != TN_BOOL) return "mask is not bool";
  if (i->dst.dtype != i->src.dtype) return "dst and src differ in dtype";
  if (i->fn && i->op != TPU_SCATTER) return "fn that it does not use";
  if (i->fn && (ix_info[i->fn].arity != 2 || ix_info[i->fn].result != 'S')) return "fn is not one of two arguments";
  return NULL;
}

static const char *weights_wrong(tn_ctx *ctx, const tpu_machine *m, const tpu_inst *i) {
  const char *why = operands_wrong(ctx, 1, (where[]){{"src", &i->src, DRAM | UB}});
  if (why) return why;
  if (!is_f32_like(i->src.dtype) && !is_byte(i->src.dtype)) return "weights are i8, u8, f16, bf16 or f32";
  int64_t k = (int64_t)i->extent[0] * i->extent[1] * i->extent[2];
  if (k < 1 || i->extent[3] < 1) return "an empty tile";
  if (!all_near(i, 1, (const tpu_operand *[]){&i->src})) return far_away;
  if (!m) return NULL;
  if (i->extent[3] > tpu_tile_cols(m)) return ir_format(ctx, "%d columns in an array of %lld", i->extent[3], (long long)tpu_tile_cols(m));
  if (m->dataflow != TPU_OS && k > m->rows) return ir_format(ctx, "%lld rows in an array of %lld", (long long)k, (long long)m->rows);
  return NULL;
}

static int64_t magnitude(int32_t v) { return v < 0 ? -(int64_t)v : v; }

static const char *window_wrong(const tpu_inst *i) {
  const tpu_window *w = &i->win;
  if (w->kd < 1 || w->kh < 1 || w->kw < 1 || w->depth < 0 || w->height < 0 || w->width < 0) return "an empty window or a negative limit";
  if (w->sz < 0 || w->sy < 0 || w->sx < 0) return "a negative step";
  int64_t z = magnitude(w->z0) + (int64_t)i->extent[0] * w->sz + w->kd * magnitude(w->dz);
  int64_t y = magnitude(w->y0) + (int64_t)i->extent[1] * w->sy + w->kh * magnitude(w->dy);
  int64_t x = magnitude(w->x0) + (int64_t)i->extent[2] * w->sx + w->kw * magnitude(w->dx);
  if (z > INT32_MAX || y > INT32_MAX || x > INT32_MAX) return "a window beyond 2^31";
  int64_t reach[4] = {z, y, x, w->kc > i->extent[3] ? w->kc : i->extent[3]};
  return near(&i->src, reach) && all_near(i, 1, (const tpu_operand *[]){&i->dst}) ? NULL : far_away;
}

static const char *matmul_wrong(tn_ctx *ctx, const tpu_machine *m, const tpu_inst *i) {
  const char *why = operands_wrong(ctx, 2, (where[]){{"dst", &i->dst, ACC}, {"src", &i->src, UB}});
  if (!why) why = window_wrong(i);
  if (why) return why;
  const tpu_window *w = &i->win;
  bool bytes = is_byte(i->src.dtype);
  if (!bytes && !is_f32_like(i->src.dtype)) return "src is not i8, u8, f16, bf16 or f32";
  if (i->dst.dtype != (bytes ? TN_I32 : TN_F32)) return "dst is not f32 (of integers: i32)";
  if (!bytes && (w->a_zero || w->w_zero)) return "a zero point of floats";
  if (w->a_zero < -128 || w->a_zero > 255 || w->w_zero < -128 || w->w_zero > 255) return "a zero point that is no byte";
  if (i->fn || w->init) return "fn or init, which it does not use";
  if (w->kc < 1 || w->k_first < 0 || w->k_count < 1 || i->extent[3] < 1) return "no columns or no k";
  int64_t k;
  if (!ir_mul_size((int64_t)w->kh * w->kw, w->kc, &k) || !ir_mul_size(k, w->kd, &k) || (int64_t)w->k_first + w->k_count > k) return "k beyond the window";
  if (!m) return NULL;
  if (tpu_row_cycles(m, (tn_dtype)i->src.dtype) <= 0) return ir_format(ctx, "%s cannot multiply %s", m->name, ir_dtype_name((tn_dtype)i->src.dtype));
  if (i->extent[3] > tpu_tile_cols(m)) return ir_format(ctx, "%d columns in an array of %lld", i->extent[3], (long long)tpu_tile_cols(m));
  int64_t rows = (int64_t)i->extent[0] * i->extent[1] * i->extent[2];
  if (m->dataflow == TPU_OS ? rows > m->rows : w->k_count > m->rows)
    return ir_format(ctx, "%lld rows in an array of %lld", (long long)(m->dataflow == TPU_OS ? rows : w->k_count), (long long)m->rows);
  return NULL;
}

static const char *pool_wrong(tn_ctx *ctx, const tpu_inst *i) {
  const char *why = operands_wrong(ctx, 2, (where[]){{"dst", &i->dst, UB | ACC}, {"src", &i->src, UB | ACC}});
  if (!why) why = window_wrong(i);
  if (why) return why;
  if (i->win.kc || i->win.k_first || i->win.k_count || i->win.a_zero || i->win.w_zero) return "parts of the window that it does not use";
  if (i->fn != IX_ADD && i->fn != IX_MAX && i->fn != IX_MIN) return "fn is not add, min or max";
  if (i->dst.dtype != i->src.dtype || i->src.dtype == TN_BOOL) return "dst and src differ in dtype, or are bool";
  return NULL;
}

/* Whether fn takes these dtypes to `result`: the rules of ix_make. */
static bool types_fit(int fn, tn_dtype result, const tn_dtype *t, int n) {
  const ir_opcode_info *op = &ix_info[fn];
  if (fn <= IX_LOAD || fn >= IX_OPCODE_COUNT || op->arity != n) return false;
  if (fn == IX_CAST) return true;
  if (fn == IX_BITCAST) return ir_dtype_bits(t[0]) == ir_dtype_bits(result) && (t[0] == TN_BOOL) == (result == TN_BOOL);
  if (fn == IX_SELECT) return t[0] == TN_BOOL && t[1] == result && t[2] == result;
  for (int k = 1; k < n; k++)
    if (t[k] != t[0]) return false;
  bool is_float = ir_is_float(t[0]);
  switch (fn) {
  case IX_NOT: case IX_AND: case IX_OR: case IX_XOR: if (is_float) return false; break;
  case IX_SHL: case IX_SHR: if (is_float || t[0] == TN_BOOL) return false; break;
  case IX_MIN: case IX_MAX: break;
  default:
    if (op->result != 'B' && t[0] == TN_BOOL) return false;
    if ((op->result == 'F' || op->traits[0] == 'E') && !is_float) return false;
  }
  return result == (op->result == 'B' ? TN_BOOL : t[0]);
}

static const char *vector_wrong(tn_ctx *ctx, const tpu_inst *i) {
  int any = UB | ACC | IMM | IOTA;
  if (i->fn <= IX_LOAD || i->fn >= IX_OPCODE_COUNT) return "fn is no operation";
  int n = ix_info[i->fn].arity;
  const char *why = operands_wrong(ctx, 5, (where[]){{"dst", &i->dst, UB | ACC}, {"a", &i->src, any}, {"b", &i->b, n > 1 ? any : NONE},
                                                     {"c", &i->c, n > 2 ? any : NONE}, {"mask", &i->mask, NONE | UB}});
  if (why) return why;
  if (!all_near(i, 5, (const tpu_operand *[]){&i->dst, &i->src, &i->b, &i->c, &i->mask})) return far_away;
  if (i->mask.space && i->mask.dtype != TN_BOOL) return "mask is not bool";
  tn_dtype t[3] = {(tn_dtype)i->src.dtype, (tn_dtype)i->b.dtype, (tn_dtype)i->c.dtype};
  if (!types_fit(i->fn, (tn_dtype)i->dst.dtype, t, n)) return ir_format(ctx, "the dtypes do not fit %s", ix_info[i->fn].name);
  return NULL;
}

static bool in_chain(int fn) {
  static const uint8_t ops[] = {IX_ADD, IX_SUB, IX_MUL, IX_DIV, IX_MIN, IX_MAX, IX_NEG, IX_ABS, IX_ROUND, IX_FLOOR, IX_CEIL,
                                IX_CAST, IX_SQRT, IX_EXP, IX_TANH, IX_SIGMOID, IX_ERF};
  return memchr(ops, fn, sizeof ops) != NULL;
}

static const char *chain_wrong(tn_ctx *ctx, const tpu_inst *i) {
  int any = UB | ACC | IMM | NONE;
  const char *why = operands_wrong(ctx, 5, (where[]){{"dst", &i->dst, UB | ACC}, {"a", &i->src, UB | ACC}, {"b", &i->b, any},
                                                     {"c", &i->c, any}, {"mask", &i->mask, NONE | UB}});
  if (why) return why;
  if (!all_near(i, 5, (const tpu_operand *[]){&i->dst, &i->src, &i->b, &i->c, &i->mask})) return far_away;
  if (i->mask.space && i->mask.dtype != TN_BOOL) return "mask is not bool";
  tn_dtype t = (tn_dtype)i->src.dtype;
  bool ended = false;
  for (int k = 0; k < TPU_CHAIN; k++) {
    const tpu_step_fn *s = &i->chain[k];
    if (s->zero) return "a reserved byte that is not zero";
    if (!s->fn) {
      ended = true;
      if (s->arg || s->dtype) return "the end of the chain has parts";
      continue;
    }
    if (ended) return "a step behind the end of the chain";
    if (!in_chain(s->fn)) return ir_format(ctx, "step %d is none of the activation unit", k);
    int arg = s->arg & 7, n = ix_info[s->fn].arity;
    if (s->arg & ~15 || arg > TPU_ARG_IMM1 || (n == 1 ? s->arg != 0 : arg == 0)) return ir_format(ctx, "step %d: its argument", k);
    const tpu_operand *o = arg == TPU_ARG_B ? &i->b : arg == TPU_ARG_C ? &i->c : NULL;
    if (o && !o->space) return ir_format(ctx, "step %d: its argument is not there", k);
    tn_dtype types[2] = {t, o ? (tn_dtype)o->dtype : t};
    if (s->dtype == TN_NONE || s->dtype >= TN_DTYPE_COUNT || !types_fit(s->fn, (tn_dtype)s->dtype, types, n))
      return ir_format(ctx, "step %d: the dtypes do not fit", k);
    t = (tn_dtype)s->dtype;
  }
  return t == (tn_dtype)i->dst.dtype ? NULL : "dst is not what the chain makes";
}

typedef uint64_t inst_words[sizeof(tpu_inst) / 8];

/* Bits that instructions with these fields may have. */
static void used_mask(tpu_fields fields, inst_words mask) {
  tpu_inst m = {.op = 0xff, .flags = 0xff};
  for (const tpu_field *f = tpu_field_table[fields]; f->name; f++) memset((char *)&m + f->offset, 0xff, tpu_field_bytes(f));
  if (fields == TPU_FIELDS_DMA) memset(m.pad.zero, 0xff, sizeof m.pad.zero); /* checked by itself */
  memcpy(mask, &m, sizeof m);
}

/* Null, or what is wrong with the parts that every instruction has. */
static const char *common_wrong(const tpu_inst *i, const inst_words mask) {
  if (i->flags & ~flags_of(i->op)) return "a flag that it does not have";
  if (i->after[0] || i->after[7]) return "a reserved byte that is not zero";
  inst_words words;
  uint64_t extra = 0;
  memcpy(words, i, sizeof words);
  for (int k = 0; k < IR_COUNT(words); k++) extra |= words[k] & ~mask[k];
  if (extra) return "a part that it does not use is not zero";
  for (int d = 0; d < 4; d++)
    if (i->extent[d] < 0) return "a negative extent";
  return elements_fit(i) ? NULL : "more than 2^40 elements";
}

static const char *inst_wrong(tn_ctx *ctx, const tpu_machine *m, const tpu_inst *i, const inst_words mask) {
  const char *why = common_wrong(i, mask);
  if (why) return why;
  switch (tpu_ops[i->op].fields) {
  case TPU_FIELDS_CONTROL: return control_wrong(ctx, i);
  case TPU_FIELDS_SYNC: return i->unit == TPU_UNIT_SEQ || i->unit >= TPU_UNITS ? "unit: one with a queue is needed" : NULL;
  case TPU_FIELDS_DMA: return dma_wrong(ctx, i);
  case TPU_FIELDS_INDEXED: return indexed_wrong(ctx, i);
  case TPU_FIELDS_WEIGHTS: return weights_wrong(ctx, m, i);
  case TPU_FIELDS_WINDOW: return i->op == TPU_MATMUL ? matmul_wrong(ctx, m, i) : pool_wrong(ctx, i);
  case TPU_FIELDS_CHAIN: return chain_wrong(ctx, i);
  case TPU_FIELDS_VECTOR: return vector_wrong(ctx, i);
  default: return NULL;
  }
}

const char *tpu_inst_check(tn_ctx *ctx, const tpu_machine *m, const tpu_inst *i) {
  return tpu_insts_check(ctx, m, i, 1, &(int64_t){0});
}

const char *tpu_insts_check(tn_ctx *ctx, const tpu_machine *m, const tpu_inst *insts, int64_t n, int64_t *at) {
  inst_words mask[TPU_FIELD_KINDS];
  if (n > 1) for (int f = 0; f < TPU_FIELD_KINDS; f++) used_mask((tpu_fields)f, mask[f]);
  for (*at = 0; *at < n; ++*at) {
    const tpu_inst *i = &insts[*at];
    if (i->op >= TPU_OPCODES) return "no such instruction";
    tpu_fields f = tpu_ops[i->op].fields;
    if (n == 1) used_mask(f, mask[f]);
    const char *why = inst_wrong(ctx, m, i, mask[f]);
    if (why) return why;
  }
  return NULL;
}
