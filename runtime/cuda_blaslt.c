/* cuda_blaslt.c — see cuda_blaslt.h. */
#include "runtime/cuda_blaslt.h"
#include "runtime/cuda_lib.h"

const char *rt_blaslt_why(tn_ctx *ctx) {
  const rt_cuda_lib *lib = rt_cuda_library(RT_CUDA_BLASLT);
  if (lib->why) return ir_format(ctx, "cuBLASLt: %s", lib->why);
  int (*create)(void **handle) = (int (*)(void **))rt_cuda_symbol(RT_CUDA_BLASLT, "cublasLtCreate");
  int (*destroy)(void *handle) = (int (*)(void *))rt_cuda_symbol(RT_CUDA_BLASLT, "cublasLtDestroy");
  void *handle = NULL;
  int status = create && destroy ? create(&handle) : -1;
  if (status) return ir_format(ctx, "cuBLASLt: no handle without a device (status %d)", status);
  destroy(handle);
  return "cuBLASLt: its plans are not listed";
}

rt_cuda_candidates rt_cuda_library_candidates(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const rt_cuda_candidate_options *o) {
  rt_dnn_conv c;
  rt_cuda_candidates none = {0};
  if (rt_dnn_conv_of(ctx, k, &c, &none.why)) return rt_dnn_candidates(ctx, t, &c, o);
  none.why = ir_format(ctx, "cuDNN: %s; %s", none.why, rt_blaslt_why(ctx));
  return none;
}
