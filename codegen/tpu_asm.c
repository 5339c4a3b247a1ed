/* tpu_asm.c — text of TPU programs: an instruction a line, every field by its name.
 *
 *   program machine "tpu-v1" dram 8192
 *   segment input 0 "x" at 0 bytes 24 f32[2, 3]
 *   segment weights 0 "w" at 64 bytes 4 data "0a0b0c0d"
 *   tag "conv1" M 3136 N 64 K 147 macs 29503488
 *   core {
 *     load dst=ub:f32@0[0,0,3,1] src=dram:f32@0[0,0,3,1] n=[1,1,2,3] signal=[1]
 *     v fn=add dst=ub:f32@64[0,0,3,1] a=ub:f32@0[0,0,3,1] b=imm:f32@1.5 n=[1,1,2,3] wait=[1]
 *     matmul accumulate swap dst=... after=[load 1, vector 2]
 *     act ... chain=[cast f32, mul imm0 f32, round f32, max swap b f32, cast i8]
 *   }
 *
 * Fields that have their default (tpu_inst_of) are not written. Operands: space[+rN[+rM]]:dtype@
 * address[strides]; an immediate's "address" is its value (whole number: the bits, for a NaN that
 * no literal gives). Weights of more than 1 MiB are left out ("data omitted"): such a text
 * does not read back.
 */
#include "codegen/tpu_fields.h"
#include "ir/interp.h"
#include "ir/text.h"
#include <string.h>

enum { MAX_HEX = 1 << 20, HEX_LINE = 16384 };

static const char *const segment_names[TPU_SEG_KINDS] = {"input", "output", "weights", "scratch", "state"};
static const char *const arg_names[] = {"", "b", "c", "imm0", "imm1"};

/* ---- printing ---- */

static void put_bits(ir_text *t, tn_dtype dtype, int64_t bits) {
  double f;
  memcpy(&f, &bits, 8);
  if (ir_is_float(dtype) && tpu_imm_bits(dtype, (ir_scalar){.f = f}) == bits && f == f) ir_put_float(t, dtype, f);
  else ir_put(t, "%lld", (long long)bits);
}

static void put_operand(ir_text *t, const tpu_operand *o) {
  ir_put(t, "%s", tpu_space_names[o->space]);
  if (o->reg || o->reg2) ir_put(t, "+r%d", o->reg);
  if (o->reg2) ir_put(t, "+r%d", o->reg2);
  ir_put(t, ":%s@", ir_dtype_name((tn_dtype)o->dtype));
  if (o->space == TPU_IMM) put_bits(t, (tn_dtype)o->dtype, o->addr);
  else ir_put(t, "%lld", (long long)o->addr);
  const int32_t *s = o->stride;
  if (s[0] || s[1] || s[2] || s[3]) ir_put(t, "[%d,%d,%d,%d]", s[0], s[1], s[2], s[3]);
}

static void put_chain(ir_text *t, const tpu_step_fn *s) {
  ir_put(t, "[");
  for (int k = 0; k < TPU_CHAIN && s[k].fn; k++) {
    int arg = s[k].arg & 7;
    ir_put(t, "%s%s%s%s%s %s", k ? ", " : "", ix_info[s[k].fn].name, s[k].arg & TPU_CHAIN_SWAP ? " swap" : "", arg ? " " : "",
           arg_names[arg], ir_dtype_name((tn_dtype)s[k].dtype));
  }
  ir_put(t, "]");
}

static void put_after(ir_text *t, const uint16_t *after) {
  ir_put(t, "[");
  bool some = false;
  for (int u = 0; u < TPU_UNITS; u++)
    if (after[u]) {
      ir_put(t, "%s%s %d", some ? ", " : "", tpu_unit_names[u], after[u]);
      some = true;
    }
  ir_put(t, "]");
}

static int64_t number_at(const tpu_field *f, const char *at, int k) {
  switch (f->kind) {
  case TPU_F_U8: return ((const uint8_t *)at)[k];
  case TPU_F_I16: { int16_t v; memcpy(&v, at + 2 * k, 2); return v; }
  case TPU_F_I32: { int32_t v; memcpy(&v, at + 4 * k, 4); return v; }
  default: { int64_t v; memcpy(&v, at + 8 * k, 8); return v; }
  }
}

static void put_field(ir_text *t, const tpu_field *f, const char *at) {
  ir_put(t, " %s=", f->name);
  switch (f->kind) {
  case TPU_F_FN: ir_put(t, "%s", ix_info[*(const uint8_t *)at].name); return;
  case TPU_F_UNIT: ir_put(t, "%s", tpu_unit_names[*(const uint8_t *)at]); return;
  case TPU_F_AFTER: put_after(t, (const uint16_t *)(const void *)at); return;
  case TPU_F_OPERAND: put_operand(t, (const tpu_operand *)(const void *)at); return;
  case TPU_F_CHAIN: put_chain(t, (const tpu_step_fn *)(const void *)at); return;
  default: break;
  }
  int n = f->count; /* trailing zeros of a list of semaphores are not said */
  while (f->kind == TPU_F_U8 && n > 1 && !at[n - 1]) n--;
  if (f->count > 1) ir_put(t, "[");
  for (int k = 0; k < n; k++) ir_put(t, "%s%lld", k ? "," : "", (long long)number_at(f, at, k));
  if (f->count > 1) ir_put(t, "]");
}

static void put_inst(ir_text *t, const tpu_inst *i) {
  tpu_inst usual = tpu_inst_of((tpu_opcode)i->op);
  ir_put(t, "%s", tpu_ops[i->op].name);
  for (int k = 0; k < TPU_FLAG_COUNT; k++)
    if (i->flags >> k & 1) ir_put(t, " %s", tpu_flag_names[k]);
  for (const tpu_field *f = tpu_field_table[tpu_ops[i->op].fields]; f->name; f++)
    if (memcmp((const char *)i + f->offset, (const char *)&usual + f->offset, tpu_field_bytes(f))) put_field(t, f, (const char *)i + f->offset);
}

const char *tpu_inst_print(tn_ctx *ctx, const tpu_inst *i) {
  const char *why = tpu_inst_check(ctx, NULL, i);
  if (why) return ir_format(ctx, "(not an instruction: %s)", why);
  ir_text t = {.ctx = ctx};
  put_inst(&t, i);
  return ir_text_str(&t);
}

static void put_hex(ir_text *t, const uint8_t *bytes, int64_t n) {
  static const char digits[] = "0123456789abcdef";
  for (int64_t from = 0; from < n; from += HEX_LINE / 2) {
    int64_t to = from + HEX_LINE / 2 < n ? from + HEX_LINE / 2 : n;
    ir_put(t, " \"");
    for (int64_t k = from; k < to; k++) ir_put_bytes(t, (char[]){digits[bytes[k] >> 4], digits[bytes[k] & 15]}, 2);
    ir_put(t, "\"");
  }
}

static void put_segment(ir_text *t, const tpu_segment *s) {
  ir_put(t, "segment %s %d ", segment_names[s->kind], s->index);
  ir_put_string(t, s->name);
  ir_put(t, " at %lld bytes %lld", (long long)s->addr, (long long)s->bytes);
  if (s->dtype) {
    ir_put(t, " %s[", ir_dtype_name(s->dtype));
    for (int d = 0; d < s->rank; d++) ir_put(t, "%s%lld", d ? ", " : "", (long long)s->dims[d]);
    ir_put(t, "]");
  }
  if (s->kind == TPU_SEG_WEIGHTS) {
    ir_put(t, " data");
    if (s->bytes > MAX_HEX) ir_put(t, " omitted");
    else put_hex(t, s->data, s->bytes);
  }
  ir_put(t, "\n");
}

const char *tpu_program_print(tn_ctx *ctx, const tpu_program *p) {
  ir_text t = {.ctx = ctx};
  ir_put(&t, "program machine ");
  ir_put_string(&t, p->machine);
  ir_put(&t, " dram %lld\n", (long long)p->dram_bytes);
  for (int k = 0; k < p->nsegments; k++) put_segment(&t, &p->segments[k]);
  for (int k = 1; k < p->ntags; k++) {
    const tpu_tag *g = &p->tags[k];
    ir_put(&t, "tag ");
    ir_put_string(&t, g->name);
    ir_put(&t, " M %lld N %lld K %lld macs %lld\n", (long long)g->M, (long long)g->N, (long long)g->K, (long long)g->macs);
  }
  for (int c = 0; c < p->ncores; c++) {
    ir_put(&t, "core {\n");
    for (int64_t k = 0; k < p->core[c].n; k++) {
      ir_put(&t, "  ");
      put_inst(&t, &p->core[c].insts[k]);
      ir_put(&t, "\n");
    }
    ir_put(&t, "}\n");
  }
  return ir_text_str(&t);
}

/* ---- reading ---- */

static int word_in(ir_lexer *l, int n, const char *const *names, const char *what) {
  const char *at = l->at, *word = ir_lex_name(l, what);
  for (int k = 0; k < n; k++)
    if (names[k] && strcmp(names[k], word) == 0) return k;
  ir_lex_fail_at(l, at, "'%s' is no %s", word, what);
}

static int64_t read_in(ir_lexer *l, int64_t lo, int64_t hi, const char *what) {
  const char *at = l->at;
  int64_t v = ir_lex_int(l, what);
  if (v < lo || v > hi) ir_lex_fail_at(l, at, "%s is between %lld and %lld", what, (long long)lo, (long long)hi);
  return v;
}

static uint8_t read_register(ir_lexer *l) {
  if (l->token == IR_T_NAME && l->word[0] == 'r' && l->word[1] && strlen(l->word) <= 3) {
    int n = 0, k = 1;
    for (; l->word[k] >= '0' && l->word[k] <= '9'; k++) n = n * 10 + l->word[k] - '0';
    if (!l->word[k] && n < TPU_REGISTERS) {
      ir_lex_next(l);
      return (uint8_t)n;
    }
  }
  ir_lex_expected(l, "a register (r1, ...)");
}

static int64_t read_imm(ir_lexer *l, tn_dtype t) {
  bool negative = l->token == IR_T_PUNCT && l->word[0] == '-' && !l->word[1];
  ir_lexer ahead = *l;
  if (negative) ir_lex_next(&ahead);
  bool real = (ahead.token == IR_T_NUMBER && ahead.number.real) || ir_lex_at(&ahead, "inf") || ir_lex_at(&ahead, "nan");
  if (!real || !ir_is_float(t)) return ir_lex_int(l, "a value");
  double v = ahead.token == IR_T_NUMBER ? ahead.number.f : ir_lex_at(&ahead, "inf") ? __builtin_inf() : __builtin_nan("");
  ir_lex_next(&ahead);
  *l = ahead;
  return tpu_imm_bits(t, (ir_scalar){.f = negative ? -v : v});
}

static void read_list(ir_lexer *l, const tpu_field *f, char *at);

static void read_operand(ir_lexer *l, tpu_operand *o) {
  *o = (tpu_operand){.space = (uint8_t)word_in(l, TPU_SPACES, tpu_space_names, "memory space")};
  if (ir_lex_accept(l, "+")) {
    o->reg = read_register(l);
    if (ir_lex_accept(l, "+")) o->reg2 = read_register(l);
  }
  ir_lex_expect(l, ":");
  o->dtype = (uint8_t)ir_lex_dtype(l);
  ir_lex_expect(l, "@");
  o->addr = o->space == TPU_IMM ? read_imm(l, (tn_dtype)o->dtype) : ir_lex_int(l, "an address");
  if (ir_lex_at(l, "[")) {
    char strides[16];
    read_list(l, &(tpu_field){"strides", TPU_F_I32, 0, 4}, strides);
    memcpy(o->stride, strides, 16);
  }
}

static void read_number(ir_lexer *l, const tpu_field *f, char *at, int k) {
  switch (f->kind) {
  case TPU_F_U8: at[k] = (char)read_in(l, 0, 255, f->name); return;
  case TPU_F_I16: { int16_t v = (int16_t)read_in(l, INT16_MIN, INT16_MAX, f->name); memcpy(at + 2 * k, &v, 2); return; }
  case TPU_F_I32: { int32_t v = (int32_t)read_in(l, INT32_MIN, INT32_MAX, f->name); memcpy(at + 4 * k, &v, 4); return; }
  default: { int64_t v = ir_lex_int(l, f->name); memcpy(at + 8 * k, &v, 8); return; }
  }
}

/* A list of exactly f->count numbers; of semaphores: at most. */
static void read_list(ir_lexer *l, const tpu_field *f, char *at) {
  ir_lex_expect(l, "[");
  int k = 0;
  do {
    if (k == f->count) ir_lex_fail(l, "%s has %d parts", f->name, f->count);
    read_number(l, f, at, k++);
  } while (ir_lex_accept(l, ","));
  ir_lex_expect(l, "]");
  if (k < f->count && f->kind != TPU_F_U8) ir_lex_fail(l, "%s has %d parts, not %d", f->name, f->count, k);
}

static void read_after(ir_lexer *l, uint16_t *after) {
  ir_lex_expect(l, "[");
  do {
    int u = word_in(l, TPU_UNITS, tpu_unit_names, "unit");
    after[u] = (uint16_t)read_in(l, 1, TPU_COUNT_MAX, "a count of instructions");
  } while (ir_lex_accept(l, ","));
  ir_lex_expect(l, "]");
}

static int opcode_of(ir_lexer *l) {
  const char *at = l->at, *word = ir_lex_name(l, "an operation");
  for (int k = 0; k < IX_OPCODE_COUNT; k++)
    if (strcmp(ix_info[k].name, word) == 0) return k;
  ir_lex_fail_at(l, at, "'%s' is no operation", word);
}

static void read_chain(ir_lexer *l, tpu_step_fn *steps) {
  memset(steps, 0, TPU_CHAIN * sizeof *steps);
  ir_lex_expect(l, "[");
  int k = 0;
  do {
    if (k == TPU_CHAIN) ir_lex_fail(l, "a chain has at most %d steps", TPU_CHAIN);
    tpu_step_fn *s = &steps[k++];
    s->fn = (uint8_t)opcode_of(l);
    if (ir_lex_accept(l, "swap")) s->arg = TPU_CHAIN_SWAP;
    for (int a = 1; a < IR_COUNT(arg_names); a++)
      if (ir_lex_accept(l, arg_names[a])) s->arg |= (uint8_t)a;
    s->dtype = (uint8_t)ir_lex_dtype(l);
  } while (ir_lex_accept(l, ","));
  ir_lex_expect(l, "]");
}

static void read_field(ir_lexer *l, const tpu_field *f, tpu_inst *i) {
  char *at = (char *)i + f->offset;
  switch (f->kind) {
  case TPU_F_FN: *(uint8_t *)at = (uint8_t)opcode_of(l); return;
  case TPU_F_UNIT: *(uint8_t *)at = (uint8_t)word_in(l, TPU_UNITS, tpu_unit_names, "unit"); return;
  case TPU_F_AFTER: read_after(l, i->after); return;
  case TPU_F_OPERAND: read_operand(l, (tpu_operand *)(void *)at); return;
  case TPU_F_CHAIN: read_chain(l, i->chain); return;
  default: break;
  }
  if (f->count > 1) read_list(l, f, at);
  else read_number(l, f, at, 0);
}

static const tpu_field *field_named(ir_lexer *l, const tpu_inst *i, const char *at, const char *word) {
  for (const tpu_field *f = tpu_field_table[tpu_ops[i->op].fields]; f->name; f++)
    if (strcmp(f->name, word) == 0) return f;
  ir_lex_fail_at(l, at, "'%s' has no '%s'", tpu_ops[i->op].name, word);
}

static tpu_inst read_inst(ir_lexer *l) {
  const char *at = l->at, *word = ir_lex_name(l, "an instruction");
  int op = 0;
  while (op < TPU_OPCODES && strcmp(tpu_ops[op].name, word) != 0) op++;
  if (op == TPU_OPCODES) ir_lex_fail_at(l, at, "there is no instruction '%s'", word);
  tpu_inst i = tpu_inst_of((tpu_opcode)op);
  while (l->token == IR_T_NAME) {
    const char *where = l->at, *name = ir_lex_name(l, "a field");
    if (ir_lex_accept(l, "=")) {
      read_field(l, field_named(l, &i, where, name), &i);
      continue;
    }
    int k = 0;
    while (k < TPU_FLAG_COUNT && strcmp(tpu_flag_names[k], name) != 0) k++;
    if (k == TPU_FLAG_COUNT) ir_lex_fail_at(l, where, "'%s' is no flag; fields are written name=value", name);
    i.flags |= (uint8_t)(1 << k);
  }
  const char *why = tpu_inst_check(l->ctx, NULL, &i);
  if (why) ir_lex_fail_at(l, at, "%s: %s", word, why);
  if (l->token != IR_T_LINE && l->token != IR_T_END) ir_lex_expected(l, "a field or the end of the line");
  return i;
}

static void read_hex(ir_lexer *l, tpu_segment *s) {
  if (ir_lex_accept(l, "omitted")) ir_lex_fail(l, "the bytes of '%s' are not in the text", s->name);
  ir_text t = {.ctx = l->ctx};
  while (l->token == IR_T_STRING) {
    const char *w = l->word;
    for (; w[0] && w[1]; w += 2) {
      static const char digits[] = "0123456789abcdef";
      const char *hi = strchr(digits, w[0]), *lo = strchr(digits, w[1]);
      if (!hi || !lo) break;
      ir_put_bytes(&t, (char[]){(char)((hi - digits) << 4 | (lo - digits))}, 1);
    }
    if (*w) ir_lex_fail(l, "the data are pairs of the digits 0-9a-f");
    ir_lex_next(l);
  }
  if ((int64_t)t.n != s->bytes) ir_lex_fail(l, "'%s' has %lld bytes, the data %zu", s->name, (long long)s->bytes, t.n);
  s->data = t.n ? t.s : "";
}

static void read_segment(ir_lexer *l, tpu_program *p) {
  tpu_segment s = {.kind = (tpu_segment_kind)word_in(l, TPU_SEG_KINDS, segment_names, "kind of segment")};
  s.index = (int)read_in(l, 0, INT32_MAX, "a number");
  s.name = ir_lex_string(l, "a name in quotes");
  ir_lex_expect(l, "at");
  s.addr = ir_lex_int(l, "an address");
  ir_lex_expect(l, "bytes");
  s.bytes = ir_lex_int(l, "a size");
  if (ir_lex_at_dtype(l)) {
    s.dtype = ir_lex_dtype(l);
    ir_lex_expect(l, "[");
    while (!ir_lex_at(l, "]")) {
      if (s.rank == IR_MAX_RANK) ir_lex_fail(l, "more than %d axes", IR_MAX_RANK);
      s.dims[s.rank++] = ir_lex_int(l, "an extent");
      if (!ir_lex_accept(l, ",")) break;
    }
    ir_lex_expect(l, "]");
  }
  if (ir_lex_accept(l, "data")) read_hex(l, &s);
  tpu_program_segment(l->ctx, p, s);
}

static void read_tag(ir_lexer *l, tpu_program *p) {
  static const char *const parts[] = {"M", "N", "K", "macs"};
  tpu_tag g = {.name = ir_lex_string(l, "a name in quotes")};
  int64_t *to[] = {&g.M, &g.N, &g.K, &g.macs};
  for (int k = 0; k < 4; k++) {
    ir_lex_expect(l, parts[k]);
    *to[k] = read_in(l, 0, INT64_MAX, parts[k]);
  }
  tpu_program_tag(l->ctx, p, g);
}

static void read_core(ir_lexer *l, tpu_program *p) {
  if (p->ncores == TPU_MAX_CORES) ir_lex_fail(l, "more than %d cores", TPU_MAX_CORES);
  int core = p->ncores++;
  ir_lex_expect(l, "{");
  while (!ir_lex_accept(l, "}")) {
    if (l->token == IR_T_LINE) ir_lex_next(l);
    else tpu_emit(l->ctx, p, core, read_inst(l));
  }
}

static void read_program(ir_lexer *l, void *arg) {
  while (l->token == IR_T_LINE) ir_lex_next(l);
  ir_lex_expect(l, "program");
  ir_lex_expect(l, "machine");
  tpu_program *p = tpu_program_new(l->ctx, ir_lex_string(l, "a machine's name in quotes"), 1);
  p->ncores = 0;
  ir_lex_expect(l, "dram");
  p->dram_bytes = read_in(l, 0, IR_MAX_BYTES, "bytes of the image");
  while (l->token != IR_T_END) {
    if (l->token == IR_T_LINE) ir_lex_next(l);
    else if (ir_lex_accept(l, "segment")) read_segment(l, p);
    else if (ir_lex_accept(l, "tag")) read_tag(l, p);
    else if (ir_lex_accept(l, "core")) read_core(l, p);
    else ir_lex_expected(l, "segment, tag or core");
  }
  const char *why = tpu_program_check(l->ctx, NULL, p);
  if (why) ir_lex_fail(l, "%s", why);
  *(tpu_program **)arg = p;
}

tpu_program *tpu_program_parse(tn_ctx *ctx, const char *text, const char *file) {
  tpu_program *p = NULL;
  ir_lexer l;
  ir_lex_start(&l, ctx, text, file, true);
  ir_lex_run(&l, read_program, &p);
  return p;
}
