/* tpu_program.c — making TPU programs, and what has to hold in them. */
#include "codegen/tpu_fields.h"
#include <stdlib.h>
#include <string.h>

tpu_program *tpu_program_new(tn_ctx *ctx, const char *machine, int ncores) {
  ir_assert(ctx, ncores >= 1 && ncores <= TPU_MAX_CORES);
  tpu_program *p = IR_NEW(ctx, tpu_program);
  p->machine = ir_intern(ctx, machine);
  p->ncores = ncores;
  tpu_program_tag(ctx, p, (tpu_tag){.name = ""});
  return p;
}

tpu_inst *tpu_emit(tn_ctx *ctx, tpu_program *p, int core, tpu_inst i) {
  tpu_core_text *t = &p->core[core];
  IR_PUSH(ctx, t->insts, t->n, i);
  return &t->insts[t->n - 1];
}

int tpu_program_tag(tn_ctx *ctx, tpu_program *p, tpu_tag tag) {
  tag.name = ir_intern(ctx, tag.name);
  IR_PUSH(ctx, p->tags, p->ntags, tag);
  return p->ntags - 1;
}

tpu_segment *tpu_program_segment(tn_ctx *ctx, tpu_program *p, tpu_segment s) {
  s.name = ir_intern(ctx, s.name);
  IR_PUSH(ctx, p->segments, p->nsegments, s);
  return &p->segments[p->nsegments - 1];
}

/* ---- checks ---- */

static int by_address(const void *a, const void *b) {
  const tpu_segment *x = *(const tpu_segment *const *)a, *y = *(const tpu_segment *const *)b;
  return x->addr < y->addr ? -1 : x->addr > y->addr ? 1 : x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static const char *tensor_wrong(const tpu_segment *s) {
  if (s->dtype == TN_NONE || s->dtype >= TN_DTYPE_COUNT || s->rank < 0 || s->rank > IR_MAX_RANK) return "no dtype or rank";
  int64_t n = (int64_t)ir_dtype_bytes(s->dtype);
  for (int d = 0; d < s->rank; d++)
    if (!ir_mul_size(n, s->dims[d], &n)) return "its size";
  return n == s->bytes ? NULL : "its bytes are not those of its shape";
}

static const char *segments_wrong(tn_ctx *ctx, const tpu_program *p) {
  if (p->dram_bytes < 0 || p->dram_bytes > IR_MAX_BYTES) return "the DRAM image's size";
  const tpu_segment **sorted = IR_NEW_ARRAY(ctx, const tpu_segment *, p->nsegments ? p->nsegments : 1);
  int count[TPU_SEG_KINDS] = {0};
  for (int k = 0; k < p->nsegments; k++) {
    const tpu_segment *s = sorted[k] = &p->segments[k];
    const char *why = NULL;
    int64_t end;
    if (s->kind >= TPU_SEG_KINDS) why = "no such kind";
    else if (s->addr < 0 || s->addr % 64) why = "its address is no multiple of 64";
    else if (s->bytes < 0 || !ir_add_size(s->addr, s->bytes, &end) || end > p->dram_bytes) why = "outside the DRAM image";
    else if (s->kind == TPU_SEG_INPUT || s->kind == TPU_SEG_OUTPUT) {
      if (s->index != count[s->kind]) why = "its number is not the next one"; /* in order: 0, 1, ... */
      else why = tensor_wrong(s);
    } else if (s->kind == TPU_SEG_WEIGHTS && !s->data && s->bytes) why = "weights without bytes";
    if (why) return ir_format(ctx, "segment %d '%s': %s", k, s->name, why);
    count[s->kind]++;
  }
  qsort(sorted, (size_t)p->nsegments, sizeof *sorted, by_address);
  for (int k = 1; k < p->nsegments; k++)
    if (sorted[k - 1]->addr + sorted[k - 1]->bytes > sorted[k]->addr && sorted[k]->bytes)
      return ir_format(ctx, "segments '%s' and '%s' overlap", sorted[k - 1]->name, sorted[k]->name);
  return NULL;
}

/* Bodies of repeats nest, jumps stay in theirs. `body` gets the innermost repeat of each instruction, -1: none. */
static const char *flow_wrong(tn_ctx *ctx, const tpu_core_text *t, int64_t *body, int64_t *at) {
  int64_t open[TPU_MAX_NESTING], end[TPU_MAX_NESTING];
  int depth = 0;
  for (int64_t k = 0; k < t->n; k++) {
    while (depth && end[depth - 1] <= k) depth--;
    body[k] = depth ? open[depth - 1] : -1;
    const tpu_inst *i = &t->insts[k];
    *at = k;
    if (i->op == TPU_REPEAT) {
      int64_t last = k + 1 + i->span;
      if (last > (depth ? end[depth - 1] : t->n)) return "its body ends outside the body around it";
      if (depth == TPU_MAX_NESTING) return ir_format(ctx, "repeats nested more than %d deep", TPU_MAX_NESTING);
      open[depth] = k;
      end[depth++] = last;
    }
  }
  for (int64_t k = 0; k < t->n; k++) {
    const tpu_inst *i = &t->insts[k];
    if (i->op != TPU_JUMP) continue;
    *at = k;
    int64_t to = k + i->span, last = body[k] < 0 ? t->n : body[k] + 1 + t->insts[body[k]].span;
    if (to < 0 || to > last || (to < last && body[to] != body[k])) return "it jumps out of its body";
  }
  return NULL;
}

static const char *text_wrong(tn_ctx *ctx, const tpu_machine *m, const tpu_program *p, int core) {
  const tpu_core_text *t = &p->core[core];
  int64_t at;
  const char *why = tpu_insts_check(ctx, m, t->insts, t->n, &at);
  for (int64_t k = 0; k < t->n && !why; k++)
    if (t->insts[k].op == TPU_TAG && (t->insts[k].imm < 0 || t->insts[k].imm >= p->ntags)) {
      why = "no such tag";
      at = k;
    }
  if (!why && t->n) why = flow_wrong(ctx, t, IR_NEW_ARRAY(ctx, int64_t, t->n), &at);
  if (!why) return NULL;
  int op = t->insts[at].op;
  return ir_format(ctx, "core %d, instruction %lld (%s): %s", core, (long long)at, op < TPU_OPCODES ? tpu_ops[op].name : "?", why);
}

const char *tpu_program_check(tn_ctx *ctx, const tpu_machine *m, const tpu_program *p) {
  if (p->ncores < 1 || p->ncores > TPU_MAX_CORES) return "the number of cores";
  if (m && p->ncores > m->cores) return ir_format(ctx, "the program has %d cores, %s %lld", p->ncores, m->name, (long long)m->cores);
  if (p->ntags < 1) return "no tag 0";
  for (int k = 0; k < p->ntags; k++) {
    const tpu_tag *t = &p->tags[k];
    if (t->M < 0 || t->N < 0 || t->K < 0 || t->macs < 0) return ir_format(ctx, "tag %d '%s': a negative size", k, t->name);
  }
  const char *why = segments_wrong(ctx, p);
  for (int core = 0; core < p->ncores && !why; core++) why = text_wrong(ctx, m, p, core);
  return why;
}
