/* support_cuda_device.h — plans on a device, the fake one or a real one, against the interpreter. */
#ifndef SUPPORT_CUDA_DEVICE_H
#define SUPPORT_CUDA_DEVICE_H
#include "runtime/cuda_run.h"

/* The plan of p on random inputs, run twice, against the interpreter. rtol: relative to the largest magnitude; 0, or less than the
 * dtype has: by dtype. Throws TN_EWRONG. */
void cuda_on_device(tn_ctx *ctx, rt_cuda_device *d, const ir_program *p, const rt_cuda_plan *plan, double rtol);
/* As rt_cuda_options.choice: the text `user` where cuda_choice_for gives it. */
const char *cuda_choice_of_case(void *user, const ir_kernel *k);
#endif
