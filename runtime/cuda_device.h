/* cuda_device.h — a GPU that is open: its context, its streams, what its driver's errors mean.
 *
 * After a sticky error (a kernel that trapped, an illegal address) the device's context is lost: the device says so at every later
 * call, everything on it is gone, and rt_cuda_device_open gives a fresh one. The process lives on. */
#ifndef RT_CUDA_DEVICE_H
#define RT_CUDA_DEVICE_H
#include "codegen/cuda.h"
#include "runtime/cuda_driver.h"

typedef struct rt_cuda_device rt_cuda_device;

/* The newest target whose code device number `index` runs; *name (may be null): what it calls itself. Throws as rt_cuda_device_open. */
const cu_target *rt_cuda_device_target(tn_ctx *ctx, int index, const char **name);
/* Device number `index` for code of a target. Throws TN_EUNSUPPORTED: no driver, one too old for cubins of this NVRTC, no
 * such device, one of another architecture. The context closes it at the latest. */
rt_cuda_device *rt_cuda_device_open(tn_ctx *ctx, const cu_target *t, int index);
void rt_cuda_device_close(rt_cuda_device *d);
const char *rt_cuda_device_name(const rt_cuda_device *d); /* "NVIDIA H200, sm_90, 132 multiprocessors, driver 13.0" */
const char *rt_cuda_device_lost(const rt_cuda_device *d); /* null while it works */

/* Throws unless e is success, with what was being done; a sticky error loses the device. */
void rt_cuda_need(tn_ctx *ctx, rt_cuda_device *d, CUresult e, const char *what);
void rt_cuda_need_alive(tn_ctx *ctx, const rt_cuda_device *d); /* throws once it is lost */
#endif
