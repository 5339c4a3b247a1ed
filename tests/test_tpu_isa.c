/* Text and files of TPU programs: print and parse are inverse, bad ones are refused with their place. */
#include "tests/support_tpu.h"
#include <criterion/criterion.h>
#include <string.h>

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
      tpu_inst i = tpu_random_inst(ctx, r);
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
    for (int k = 0; k < 100; k++) seen[tpu_random_inst(ctx, &r).op]++;
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
