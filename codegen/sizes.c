/* sizes.c — what a program's entry needs: blob, arena and scratch bytes. See entry.h. */
#include "codegen/entry.h"
#include <string.h>

const char *cg_run_error(int code) {
  switch (code) {
  case CG_RUN_OK: return "";
  case CG_RUN_ARG: return "a needed pointer is null, or workers < 1";
  case CG_RUN_ALIGN: return "memory is not aligned as the header says";
  case CG_RUN_ISA: return "this CPU lacks an instruction set that the code needs";
  case CG_RUN_WEIGHTS: return "the weights are not the ones made for this code";
  case CG_RUN_DIMS: return "a dimension is out of its range";
  case CG_RUN_DRIVER: return "a function of the CUDA driver is missing";
  case CG_RUN_DEVICE: return "there is no such GPU, or the code is not for it";
  case CG_RUN_MEMORY: return "the GPU's memory is out";
  case CG_RUN_CALL: return "the CUDA driver failed, the error function tells how";
  default: return "unknown error";
  }
}

static void mark(int n, const ir_inst *insts, bool *marks) {
  for (int i = 0; i < n; i++) {
    if (insts[i].kind == IR_CALL) marks[insts[i].kernel] = true;
    mark(insts[i].nbody, insts[i].body, marks);
    mark(insts[i].nother, insts[i].other, marks);
  }
}

void cg_mark_kernels(const ir_program *p, bool pack, bool *marks) {
  if (pack) mark(p->npack, p->pack, marks);
  else mark(p->nrun, p->run, marks);
}

static int64_t most_scratch(int n, const ir_inst *insts, const cg_kernel_info *infos, bool shared) {
  int64_t most = 0;
  for (int i = 0; i < n; i++) {
    const cg_kernel_info *k = insts[i].kind == IR_CALL ? &infos[insts[i].kernel] : NULL;
    int64_t s = !k ? 0 : shared ? k->shared_bytes : k->scratch_bytes;
    int64_t body = most_scratch(insts[i].nbody, insts[i].body, infos, shared), other = most_scratch(insts[i].nother, insts[i].other, infos, shared);
    if (body > s) s = body;
    if (other > s) s = other;
    if (s > most) most = s;
  }
  return most;
}

static int64_t aligned(int64_t n) { return (n + CG_ALIGN - 1) & ~(int64_t)(CG_ALIGN - 1); }

int64_t cg_scratch_bytes(const ir_program *p, bool pack, const cg_kernel_info *infos) {
  return aligned(pack ? most_scratch(p->npack, p->pack, infos, false) : most_scratch(p->nrun, p->run, infos, false));
}

int64_t cg_shared_bytes(const ir_program *p, bool pack, const cg_kernel_info *infos) {
  return aligned(pack ? most_scratch(p->npack, p->pack, infos, true) : most_scratch(p->nrun, p->run, infos, true));
}

int64_t cg_scratch_at(const ir_program *p) { return aligned(p->arena_bytes) + CG_ALIGN; }

int64_t cg_arena_bytes(const ir_program *p, const cg_kernel_info *infos, int workers) {
  return cg_scratch_at(p) + cg_shared_bytes(p, false, infos) + workers * cg_scratch_bytes(p, false, infos);
}

int64_t cg_blob_bytes(const ir_program *p) { return p->weights_bytes > 0 ? CG_BLOB_HEADER + aligned(p->weights_bytes) : 0; }

int64_t cg_pack_bytes(const ir_program *p, const cg_kernel_info *infos) {
  return cg_blob_bytes(p) + aligned(p->pack_arena_bytes) + cg_shared_bytes(p, true, infos) + cg_scratch_bytes(p, true, infos);
}

uint64_t cg_weights_layout(tn_ctx *ctx, const ir_program *p) {
  ir_text t = {.ctx = ctx};
  ir_put(&t, "weights %lld\n", (long long)p->weights_bytes);
  for (int i = 0; i < p->nslots; i++) {
    const ir_slot *s = &p->slots[i];
    if (s->kind != IR_SLOT_WEIGHTS) continue;
    ir_put(&t, "%lld %s", (long long)s->offset, ir_dtype_name(s->dtype));
    for (int d = 0; d < s->rank; d++) ir_put(&t, " %lld", (long long)s->dims[d]);
    ir_put(&t, " '%s'\n", s->layout ? s->layout->text : "");
  }
  const char *text = ir_text_str(&t);
  return ir_hash_bytes(text, strlen(text), CG_BLOB_VERSION);
}

cg_blob_header cg_blob_header_of(tn_ctx *ctx, const ir_program *p) {
  cg_blob_header h = {.version = CG_BLOB_VERSION, .layout = cg_weights_layout(ctx, p), .bytes = (uint64_t)cg_blob_bytes(p)};
  memcpy(h.magic, CG_BLOB_MAGIC, sizeof h.magic);
  return h;
}
