/* target.h — the CPUs that code is made for, one row each; rows inherit.
 *
 * A target says what LLVM is asked for (triple, CPU, features), what the emitter
 * may rely on (vector width, registers, FMA, ...), what a cost model needs (cache
 * sizes) and what a running program has to check before it calls the code.
 */
#ifndef CG_TARGET_H
#define CG_TARGET_H
#include "ir/ctx.h"

typedef enum cg_arch { CG_X86_64, CG_AARCH64 } cg_arch;

/* One instruction-set extension that code may need, and where cpuid reports it.
 * reg: 0 eax, 1 ebx, 2 ecx, 3 edx of cpuid(leaf, subleaf). xcr0: the bits of
 * XCR0 that the operating system must have set (0: none). */
typedef struct cg_isa_bit {
  const char *name; /* LLVM's feature name, e.g. "avx512bw" */
  uint32_t leaf, subleaf;
  int reg, bit;
  uint32_t xcr0;
} cg_isa_bit;

typedef struct cg_target {
  const char *name;      /* the row: "x86-64-v3", "native", "aarch64", ... */
  cg_arch arch;
  const char *triple;    /* as LLVM takes it */
  const char *cpu;       /* LLVM's -mcpu */
  const char *features;  /* LLVM's -mattr, may be "" */
  int vector_bits;       /* widest vector worth using: 128, 256, 512 */
  int vector_regs;       /* 16 or 32 */
  bool fma;              /* fused multiply-add in one instruction */
  bool round;            /* floor, ceil, trunc, nearest-even in one instruction (SSE4.1) */
  bool half;             /* f16 <-> f32 conversion in one instruction (F16C) */
  bool masks;            /* masked loads and stores of any lane size (AVX-512) */
  bool vnni, bf16, fp16; /* dot products of bytes (x86: u8 x s8, AArch64: s8 x s8), of bf16; f16 arithmetic: for atoms */
  int64_t l1_bytes, l2_bytes; /* data caches of one core */
  int nisa;              /* what a program must check at run time; 0: nothing beyond the baseline */
  const cg_isa_bit *const *isa;
  const char *isa_text;  /* the same as names, "avx2 fma ..."; "" for none */
} cg_target;

/* The target named `cpu` ("native", a row of the table, or null for "native")
 * for `triple` (null: the host's). With a triple of another architecture, "native"
 * and null mean that architecture's baseline. Throws TN_EUSAGE for names that are
 * not in the table or do not fit the triple. Lives in the context. */
const cg_target *cg_target_find(tn_ctx *ctx, const char *cpu, const char *triple);
/* Names of the rows, null-terminated, for help texts. */
const char *const *cg_target_names(void);
/* True if this machine can run the target's code; else *missing (may be null) names
 * the first extension that is not there. */
bool cg_target_runs_here(tn_ctx *ctx, const cg_target *t, const char **missing);
/* A line that identifies what the target's code is and how fast it may be: the
 * fingerprint in the keys of the tuning store. */
const char *cg_target_fingerprint(tn_ctx *ctx, const cg_target *t);
/* What vnni takes beside s8. */
static inline tn_dtype cg_target_dot_byte(const cg_target *t) { return t->arch == CG_AARCH64 ? TN_I8 : TN_U8; }
/* Lanes of a dtype in one native vector (at least 1). */
int cg_target_lanes(const cg_target *t, tn_dtype dtype);
#endif
