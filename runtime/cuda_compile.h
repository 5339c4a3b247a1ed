/* cuda_compile.h — CUDA C to cubins by NVRTC, in this process, and what its log says of them. */
#ifndef RT_CUDA_COMPILE_H
#define RT_CUDA_COMPILE_H
#include "codegen/build.h"
#include "codegen/cuda.h"

typedef struct rt_cuda_function { /* what ptxas reports of a global function */
  const char *symbol;
  int registers, stack_bytes, spill_stores, spill_loads; /* bytes of a thread */
  int64_t static_shared_bytes;
} rt_cuda_function;

typedef struct rt_cubin {
  const void *bytes;
  size_t size;
  int nfunctions;
  rt_cuda_function *functions;
  const char *report;      /* ptxas' lines */
  const char *warnings;    /* lines of the log that are more than reports, "" for none */
  double seconds;          /* 0 from the cache */
  bool cached;
} rt_cubin;

/* Compiles a source for the target. Throws TN_EUNSUPPORTED without NVRTC, TN_EINTERNAL with the log when the source
 * is refused. The cache (may be null) is keyed by source, options, NVRTC's version and architecture. Lives in ctx. */
const rt_cubin *rt_cuda_compile(tn_ctx *ctx, const cu_target *t, const char *source, const cg_cache *cache);
/* The parts of that: what the bytes depend on, as text; the cubin kept under it, null when there is none; keeping it. */
const char *rt_cuda_key(tn_ctx *ctx, const cu_target *t, const char *source);
const rt_cubin *rt_cuda_cached(tn_ctx *ctx, const cg_cache *cache, const char *key);
void rt_cuda_keep(tn_ctx *ctx, const cg_cache *cache, const char *key, const rt_cubin *c);
/* Static gates: null, or why a kernel must not be used: spills, wgmma that ptxas serialised, registers or shared
 * memory beyond what a block may have. */
const char *rt_cubin_gate(tn_ctx *ctx, const cu_target *t, const rt_cubin *c, const cu_code *code);
/* How often an instruction of this opcode (bits 0..11 of a 128-bit SASS word of sm_80 to sm_90) stands in the code. */
int rt_cubin_count(const rt_cubin *c, unsigned opcode);
#endif
