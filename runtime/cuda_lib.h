/* cuda_lib.h — NVIDIA's libraries, opened at run time: NVRTC, the driver, cuBLASLt, cuDNN.
 *
 * Nothing is linked and no header of NVIDIA is read: the few prototypes that are called are declared here and in
 * cuda_driver.h (from NVIDIA's public documentation). A library that is absent is no error: `why` says so.
 *
 * Looked for, in this order: the folders of $TENON_CUDA_PATH (a ':' between two; '-' at the end: nowhere else), each also
 * as a folder of Python packages with NVIDIA's wheels (nvidia/NAME/lib); the loader's own places; CUDA toolkits' usual
 * folders; the wheels of the Python environment in $VIRTUAL_ENV. */
#ifndef RT_CUDA_LIB_H
#define RT_CUDA_LIB_H
#include "ir/ctx.h"

typedef enum rt_cuda_which { RT_CUDA_NVRTC, RT_CUDA_DRIVER, RT_CUDA_BLASLT, RT_CUDA_DNN, RT_CUDA_LIBS } rt_cuda_which;

typedef struct rt_cuda_lib {
  const char *name;    /* "NVRTC", "CUDA driver", "cuBLASLt", "cuDNN" */
  void *handle;        /* of dlopen; null: not there */
  const char *path;    /* as it was opened */
  const char *why;     /* null when it is there, else what was looked for and the first error */
  int version;         /* major * 1000 + minor * 10 as NVIDIA counts; 0 not known */
} rt_cuda_lib;

/* Opened once per process, kept for ever; may be called from any thread. */
const rt_cuda_lib *rt_cuda_library(rt_cuda_which which);
/* A function of it; null when the library or the symbol is not there. */
void *rt_cuda_symbol(rt_cuda_which which, const char *symbol);
/* Where there is no driver: loads one that has no device and keeps code as handles, under the driver's name (libcuda.so.1), for
 * libraries that compile plans for a described device and hand them to a driver (runtime/standin/cuda.c). It is never
 * rt_cuda_library's. False where there is a driver, which is then initialised, or memory cannot be a file. */
bool rt_cuda_stand_in(void);
/* For tests: forgets what was opened, so that $TENON_CUDA_PATH is read again. No call may be under way. */
void rt_cuda_forget(void);
#endif
