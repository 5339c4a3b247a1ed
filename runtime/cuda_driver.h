/* cuda_driver.h — the part of the CUDA driver API that is called, declared here: facts of NVIDIA's documentation ("CUDA
 * Driver API", version 13), not its header. One row per function: the table is filled by rt_cuda_driver(). */
#ifndef RT_CUDA_DRIVER_H
#define RT_CUDA_DRIVER_H
#include "runtime/cuda_lib.h"

typedef int CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef struct CUgraph_st *CUgraph;
typedef struct CUgraphExec_st *CUgraphExec;

enum { /* CUresult */
  CUDA_SUCCESS = 0, CUDA_ERROR_INVALID_VALUE = 1, CUDA_ERROR_OUT_OF_MEMORY = 2, CUDA_ERROR_NO_DEVICE = 100, CUDA_ERROR_INVALID_IMAGE = 200,
  CUDA_ERROR_NO_BINARY_FOR_GPU = 209, CUDA_ERROR_ECC_UNCORRECTABLE = 214, CUDA_ERROR_ILLEGAL_ADDRESS = 700, CUDA_ERROR_LAUNCH_TIMEOUT = 702,
  CUDA_ERROR_ASSERT = 710, CUDA_ERROR_HARDWARE_STACK_ERROR = 714, CUDA_ERROR_ILLEGAL_INSTRUCTION = 715, CUDA_ERROR_MISALIGNED_ADDRESS = 716,
  CUDA_ERROR_INVALID_PC = 718, CUDA_ERROR_LAUNCH_FAILED = 719, CUDA_ERROR_UNKNOWN = 999
};
enum { CU_ATTRIBUTE_MULTIPROCESSORS = 16, CU_ATTRIBUTE_MAJOR = 75, CU_ATTRIBUTE_MINOR = 76 }; /* CUdevice_attribute */
enum { CU_FUNC_MAX_DYNAMIC_SHARED = 8, CU_STREAM_NON_BLOCKING = 1, CU_CAPTURE_RELAXED = 2, CU_EVENT_DEFAULT = 0, CU_EVENT_NO_TIMING = 2 };

/* ROW(field, symbol, parameters) */
#define RT_CUDA_DRIVER_ROWS(ROW)                                                                                                        \
  ROW(init, "cuInit", (unsigned flags))                                                                                                 \
  ROW(device_count, "cuDeviceGetCount", (int *n))                                                                                       \
  ROW(device_get, "cuDeviceGet", (CUdevice *d, int i))                                                                                  \
  ROW(device_name, "cuDeviceGetName", (char *name, int n, CUdevice d))                                                                  \
  ROW(device_attribute, "cuDeviceGetAttribute", (int *v, int attribute, CUdevice d))                                                    \
  ROW(context_retain, "cuDevicePrimaryCtxRetain", (CUcontext *c, CUdevice d))                                                           \
  ROW(context_release, "cuDevicePrimaryCtxRelease_v2", (CUdevice d))                                                                    \
  ROW(context_reset, "cuDevicePrimaryCtxReset_v2", (CUdevice d))                                                                        \
  ROW(context_set, "cuCtxSetCurrent", (CUcontext c))                                                                                    \
  ROW(module_load, "cuModuleLoadData", (CUmodule *m, const void *image))                                                                \
  ROW(module_unload, "cuModuleUnload", (CUmodule m))                                                                                    \
  ROW(module_function, "cuModuleGetFunction", (CUfunction *f, CUmodule m, const char *name))                                            \
  ROW(function_set, "cuFuncSetAttribute", (CUfunction f, int attribute, int v))                                                         \
  ROW(alloc, "cuMemAlloc_v2", (CUdeviceptr *p, size_t n))                                                                               \
  ROW(free, "cuMemFree_v2", (CUdeviceptr p))                                                                                            \
  ROW(to_device, "cuMemcpyHtoDAsync_v2", (CUdeviceptr to, const void *from, size_t n, CUstream s))                                      \
  ROW(to_host, "cuMemcpyDtoHAsync_v2", (void *to, CUdeviceptr from, size_t n, CUstream s))                                              \
  ROW(copy, "cuMemcpyDtoDAsync_v2", (CUdeviceptr to, CUdeviceptr from, size_t n, CUstream s))                                           \
  ROW(fill, "cuMemsetD8Async", (CUdeviceptr p, unsigned char v, size_t n, CUstream s))                                                  \
  ROW(stream_new, "cuStreamCreate", (CUstream *s, unsigned flags))                                                                      \
  ROW(stream_free, "cuStreamDestroy_v2", (CUstream s))                                                                                  \
  ROW(stream_wait, "cuStreamSynchronize", (CUstream s))                                                                                 \
  ROW(stream_wait_event, "cuStreamWaitEvent", (CUstream s, CUevent e, unsigned flags))                                                  \
  ROW(host_alloc, "cuMemHostAlloc", (void **p, size_t n, unsigned flags))                                                               \
  ROW(host_free, "cuMemFreeHost", (void *p))                                                                                            \
  ROW(pointer_attribute, "cuPointerGetAttribute", (void *to, int attribute, CUdeviceptr p))                                             \
  ROW(launch, "cuLaunchKernel", (CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,            \
                                 unsigned shared, CUstream s, void **args, void **extra))                                               \
  ROW(event_new, "cuEventCreate", (CUevent *e, unsigned flags))                                                                         \
  ROW(event_free, "cuEventDestroy_v2", (CUevent e))                                                                                     \
  ROW(event_record, "cuEventRecord", (CUevent e, CUstream s))                                                                           \
  ROW(event_wait, "cuEventSynchronize", (CUevent e))                                                                                    \
  ROW(event_elapsed, "cuEventElapsedTime", (float *ms, CUevent a, CUevent b))                                                           \
  ROW(capture_begin, "cuStreamBeginCapture_v2", (CUstream s, int mode))                                                                 \
  ROW(capture_end, "cuStreamEndCapture", (CUstream s, CUgraph *g))                                                                      \
  ROW(graph_make, "cuGraphInstantiateWithFlags", (CUgraphExec *x, CUgraph g, unsigned long long flags))                                 \
  ROW(graph_launch, "cuGraphLaunch", (CUgraphExec x, CUstream s))                                                                       \
  ROW(graph_free, "cuGraphDestroy", (CUgraph g))                                                                                        \
  ROW(exec_free, "cuGraphExecDestroy", (CUgraphExec x))                                                                                 \
  ROW(error_name, "cuGetErrorName", (CUresult e, const char **name))                                                                    \
  ROW(error_text, "cuGetErrorString", (CUresult e, const char **text))

/* Newer ones: null where the driver lacks them. Enumerations as unsigned: cu_map_encode (codegen/cuda_image.h) has their values. */
#define RT_CUDA_DRIVER_NEWER(ROW)                                                                                                       \
  ROW(map_tiled, "cuTensorMapEncodeTiled", (void *map, unsigned type, unsigned rank, void *address, const uint64_t *extents,            \
       const uint64_t *strides, const uint32_t *box, const uint32_t *steps, unsigned interleave, unsigned swizzle, unsigned l2, unsigned fill)) \
  ROW(map_im2col, "cuTensorMapEncodeIm2col", (void *map, unsigned type, unsigned rank, void *address, const uint64_t *extents,          \
       const uint64_t *strides, const int *lower, const int *upper, unsigned channels, unsigned pixels, const uint32_t *steps,          \
       unsigned interleave, unsigned swizzle, unsigned l2, unsigned fill))

typedef struct rt_cuda_driver_table {
#define ROW(field, symbol, parameters) CUresult(*field) parameters;
  RT_CUDA_DRIVER_ROWS(ROW)
  RT_CUDA_DRIVER_NEWER(ROW)
#undef ROW
} rt_cuda_driver_table;

/* Null with *why (in ctx) when the driver is absent or lacks a function. */
const rt_cuda_driver_table *rt_cuda_driver(tn_ctx *ctx, const char **why);
#endif
