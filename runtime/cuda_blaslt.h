/* cuda_blaslt.h — libraries as candidates of the tuner: cuDNN's plans, cuBLASLt's where there is a device. */
#ifndef RT_CUDA_BLASLT_H
#define RT_CUDA_BLASLT_H
#include "runtime/cuda_cudnn.h"

/* What libraries offer in place of a kernel: the tuner's list. None is no error: `why`. */
rt_cuda_candidates rt_cuda_library_candidates(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const rt_cuda_candidate_options *o);
/* Why cuBLASLt offers nothing. Its heuristics take a handle, and a handle takes a device: without one there is no list
 * (cublasLtCreate of 13.1 answers 1, "the library was not initialized"). */
const char *rt_blaslt_why(tn_ctx *ctx);
#endif
