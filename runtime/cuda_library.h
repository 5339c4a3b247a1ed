/* cuda_library.h — libraries in place of generated kernels: cuDNN's convolutions and attention, cuBLASLt's products. One face for both. */
#ifndef RT_CUDA_LIBRARY_H
#define RT_CUDA_LIBRARY_H
#include "runtime/cuda_blaslt.h"
#include "runtime/cuda_cudnn.h"

/* What libraries offer in place of a kernel: the tuner's list. None is no error: `why`. cuBLASLt lists only where a device's
 * context is current. */
rt_cuda_candidates rt_cuda_library_candidates(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const rt_cuda_candidate_options *o);
/* Whether a schedule's text is a library's plan. */
bool rt_cuda_is_library(const char *text);
/* Whether it is one of the libraries that are there, and for a problem as this kernel's. */
bool rt_cuda_library_fits(tn_ctx *ctx, const ir_kernel *k, const char *text);

/* A plan on the device whose context is current, issuing to a stream. */
typedef struct rt_cuda_step rt_cuda_step;
/* The one that a candidate's text names, in ctx; null with *why. */
rt_cuda_step *rt_cuda_step_new(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const char *text, void *stream, const char **why);
void rt_cuda_step_free(rt_cuda_step *s);
int64_t rt_cuda_step_workspace(const rt_cuda_step *s);
/* `memory`: device addresses by parameter of the kernel. The library's status: 0 is well. */
int rt_cuda_step_run(rt_cuda_step *s, const unsigned long long *memory, unsigned long long workspace);
#endif
