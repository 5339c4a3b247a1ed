/* Text and files of TPU programs: print and parse are inverse, bad ones are refused with their place. */
#include "codegen/tpu_isa.h"
#include "tests/tpu_random.h"
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

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
                         .kw = (int32_t)tpu_between(r, 1, 3), .z0 = (int32_t)tpu_between(r, -3, 3), .depth = (int32_t)tpu_between(r, 0, 4),
                         .sz = (int32_t)tpu_between(r, 0, 2), .dz = 1, .kd = (int32_t)tpu_between(r, 1, 3)};
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

/* An instruction that tpu_inst_check accepts for any machine; its addresses mean nothing. */
static tpu_inst random_inst(tn_ctx *ctx, tpu_random *r) {
  for (;;) {
    tpu_inst i = attempt(r);
    if (!tpu_inst_check(ctx, NULL, &i)) return i;
  }
}

static tpu_program *random_program(tn_ctx *ctx, tpu_random *r) {
  tpu_program *p = tpu_program_new(ctx, "tpu-v1", (int)tpu_between(r, 1, 3));
  p->dram_bytes = 4096;
  for (int k = (int)tpu_between(r, 0, 3); k > 0; k--) tpu_program_tag(ctx, p, (tpu_tag){.name = "a \"layer\"", .M = 3, .N = 4, .K = k, .macs = 12 * k});
  tpu_program_segment(ctx, p, (tpu_segment){.name = "x", .kind = TPU_SEG_INPUT, .bytes = 24, .dtype = TN_F32, .rank = 2, .dims = {2, 3}});
  tpu_program_segment(ctx, p, (tpu_segment){.name = "y", .kind = TPU_SEG_OUTPUT, .addr = 64, .bytes = 1, .dtype = TN_I8});
  uint8_t *w = ir_alloc(ctx, 700);
  for (int k = 0; k < 700; k++) w[k] = (uint8_t)tpu_next(r);
  tpu_program_segment(ctx, p, (tpu_segment){.name = "w", .kind = TPU_SEG_WEIGHTS, .addr = 1024, .bytes = 700, .data = w});
  tpu_program_segment(ctx, p, (tpu_segment){.name = "", .kind = TPU_SEG_SCRATCH, .addr = 2048, .bytes = 64});
  for (int c = 0; c < p->ncores; c++)
    for (int k = (int)tpu_between(r, 0, 20); k > 0; k--) {
      tpu_inst i = random_inst(ctx, r);
      if (i.op != TPU_REPEAT && i.op != TPU_JUMP && i.op != TPU_TAG) tpu_emit(ctx, p, c, i); /* these have to fit together */
    }
  return p;
}

static void same_programs(const tpu_program *a, const tpu_program *b) {
  cr_assert_str_eq(a->machine, b->machine);
  cr_assert(a->ncores == b->ncores && a->nsegments == b->nsegments && a->ntags == b->ntags && a->dram_bytes == b->dram_bytes);
  for (int c = 0; c < a->ncores; c++) {
    cr_assert_eq(a->core[c].n, b->core[c].n);
    if (a->core[c].n) cr_assert_arr_eq(a->core[c].insts, b->core[c].insts, (size_t)a->core[c].n * sizeof(tpu_inst));
  }
  for (int k = 0; k < a->nsegments; k++) {
    const tpu_segment *s = &a->segments[k], *t = &b->segments[k];
    cr_assert_str_eq(s->name, t->name);
    cr_assert(s->kind == t->kind && s->index == t->index && s->addr == t->addr && s->bytes == t->bytes && s->dtype == t->dtype && s->rank == t->rank);
    cr_assert(memcmp(s->dims, t->dims, sizeof s->dims) == 0);
    if (s->data) cr_assert_arr_eq(s->data, t->data, (size_t)s->bytes);
  }
  for (int k = 0; k < a->ntags; k++) {
    cr_assert_str_eq(a->tags[k].name, b->tags[k].name);
    cr_assert_eq(a->tags[k].macs, b->tags[k].macs);
  }
}

static void inverse(tn_ctx *ctx, void *arg) {
  tpu_random *r = arg;
  tpu_program *p = random_program(ctx, r);
  const char *text = tpu_program_print(ctx, p);
  tpu_program *q = tpu_program_parse(ctx, text, "text");
  same_programs(p, q);
  cr_assert_str_eq(tpu_program_print(ctx, q), text);
  size_t n;
  const void *bytes = tpu_program_encode(ctx, p, &n);
  same_programs(p, tpu_program_decode(ctx, bytes, n, "bytes"));
}

Test(tpu_isa, text_and_bytes_come_back) {
  int seen[TPU_OPCODES] = {0};
  for (uint64_t seed = 1; seed <= 400; seed++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    tpu_random r = {seed};
    tn_status s = ir_protect(ctx, inverse, &r);
    cr_assert_eq(s, TN_OK, "seed %llu: %s", (unsigned long long)seed, tn_error(ctx));
    for (int k = 0; k < 100; k++) seen[random_inst(ctx, &r).op]++;
    tn_ctx_free(ctx);
  }
  for (int op = 0; op < TPU_OPCODES; op++) cr_assert(seen[op] > 5, "%s was made %d times", tpu_ops[op].name, seen[op]);
}

typedef struct bytes { uint8_t *p; size_t n; } bytes;
static void decode(tn_ctx *ctx, void *arg) {
  bytes *b = arg;
  tpu_program_decode(ctx, b->p, b->n, "damaged");
}

Test(tpu_isa, damage_is_found) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tpu_random r = {7};
  size_t n;
  const void *good = tpu_program_encode(ctx, random_program(ctx, &r), &n);
  for (int k = 0; k < 2000; k++) {
    bytes b = {ir_alloc(ctx, n), n};
    memcpy(b.p, good, n);
    if (k & 1) b.n = (size_t)tpu_between(&r, 0, (int64_t)n - 1);
    else b.p[tpu_between(&r, 0, (int64_t)n - 1)] ^= (uint8_t)(1 << tpu_between(&r, 0, 7));
    cr_assert_eq(ir_protect(ctx, decode, &b), TN_EINPUT);
    cr_assert(strstr(tn_error(ctx), "damaged: "), "%s", tn_error(ctx));
  }
  tn_ctx_free(ctx);
}

static void parse(tn_ctx *ctx, void *arg) { tpu_program_parse(ctx, arg, "p.tpu"); }

Test(tpu_isa, errors_say_where) {
  static const struct { const char *text, *wants; } cases[] = {
      {"program machine \"m\" dram 64\ncore {\n  halt\n  hlt\n}\n", "p.tpu:4:3: there is no instruction 'hlt'"},
      {"program machine \"m\" dram 64\ncore {\n  load dst=ub:f32@0 source=ub:f32@0\n}\n", "p.tpu:3:21: 'load' has no 'source'"},
      {"program machine \"m\" dram 64\ncore {\n  v fn=add dst=ub:f32@0 a=ub:f32@0 b=ub:i32@0\n}\n", "the dtypes do not fit add"},
      {"program machine \"m\" dram 64\ncore {\n  load dst=ub:f32@0[1,2] src=ub:f32@0\n}\n", "strides has 4 parts, not 2"},
      {"program machine \"m\" dram 64\ncore {\n  matmul dst=ub:f32@0 src=ub:f32@0 k=[0,1]\n}\n", "dst: a space that it cannot be in"},
      {"program machine \"m\" dram 64\ncore {\n  jump span=5\n}\n", "it jumps out of its body"},
      {"program machine \"m\" dram 64\ncore {\n  repeat imm=2 span=2\n}\n", "its body ends outside"},
      {"program machine \"m\" dram 64\ncore {\n  tag imm=1\n}\n", "no such tag"},
      {"program machine \"m\" dram 64\nsegment scratch 0 \"s\" at 0 bytes 65\ncore {\n}\n", "outside the DRAM image"},
  };
  for (int k = 0; k < IR_COUNT(cases); k++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    cr_assert_eq(ir_protect(ctx, parse, (void *)(uintptr_t)cases[k].text), TN_EINPUT, "case %d", k);
    cr_assert(strstr(tn_error(ctx), cases[k].wants), "case %d: %s", k, tn_error(ctx));
    tn_ctx_free(ctx);
  }
}

static void find_machine(tn_ctx *ctx, void *arg) { tpu_machine_find(ctx, arg); }

static void machines(tn_ctx *ctx, void *arg) {
  static const char *const names[] = {"tpu-v1", "tpu-v4", "tpu-v4-core", "tpu-v6e", "scalesim-os-32x16", "scalesim-ws-1x60000", "scalesim-is-8x8"};
  for (int k = 0; k < IR_COUNT(names); k++) {
    const tpu_machine *m = tpu_machine_find(ctx, names[k]);
    cr_assert_str_eq(m->name, names[k]);
    cr_assert_null(tpu_machine_check(ctx, m));
    const char *text = tpu_machine_print(ctx, m);
    cr_assert_str_eq(tpu_machine_print(ctx, tpu_machine_parse(ctx, text, "text")), text);
  }
  const tpu_machine *m = tpu_machine_parse(ctx, "like tpu-v1\nname mine # a comment\nrows 512\ncols 512\n", "f");
  cr_assert(m->rows == 512 && m->clock_mhz == 700 && strcmp(m->name, "mine") == 0);
  cr_assert_eq(tpu_machine_find(ctx, "scalesim-os-32x16")->dataflow, TPU_OS);
}

Test(tpu_isa, machines) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  cr_assert_eq(ir_protect(ctx, machines, NULL), TN_OK, "%s", tn_error(ctx));
  cr_assert_eq(ir_protect(ctx, find_machine, "tpu-v9"), TN_EUSAGE);
  cr_assert(strstr(tn_error(ctx), "tpu-v4-core"));
  cr_assert_eq(ir_protect(ctx, find_machine, "scalesim-os-0x4"), TN_EUSAGE);
  tn_ctx_free(ctx);
}
