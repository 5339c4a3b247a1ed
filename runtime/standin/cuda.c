/* cuda.c — a libcuda for planning where there is none: it has no device, and code that is loaded becomes a handle that
 * nothing can launch.
 *
 * cuDNN 9 finalises plans for a described device, but its engines of attention then compile their code and load it by
 * cuLibraryLoadData; where libcuda.so.1 cannot be opened its heuristics name no configuration at all. All functions that
 * it looks up are here (9.10, 9.19, 9.26), as it takes none if one is missing. Built apart: no C library, embedded in Tenon
 * as bytes (CMakeLists.txt), loaded by rt_cuda_stand_in. */

enum { NO_DEVICE = 100 };

#define NONE(name) int name(void) { return NO_DEVICE; }
NONE(cuInit) NONE(cuDeviceGet) NONE(cuDeviceGetCount) NONE(cuDeviceGetAttribute)
NONE(cuDevicePrimaryCtxRetain) NONE(cuDevicePrimaryCtxRelease) NONE(cuDevicePrimaryCtxReset)
NONE(cuCtxGetCurrent) NONE(cuCtxGetDevice) NONE(cuCtxGetLimit) NONE(cuCtxPushCurrent) NONE(cuCtxPopCurrent)
NONE(cuStreamGetCtx) NONE(cuStreamGetGreenCtx) NONE(cuStreamSynchronize) NONE(cuMemcpyDtoH_v2)
NONE(cuModuleLoadData) NONE(cuModuleLoadDataEx) NONE(cuModuleLoadFatBinary) NONE(cuModuleUnload) NONE(cuModuleGetFunction) NONE(cuModuleGetGlobal_v2)
NONE(cuLinkCreate) NONE(cuLinkCreate_v2) NONE(cuLinkAddData) NONE(cuLinkAddData_v2) NONE(cuLinkAddFile_v2) NONE(cuLinkComplete) NONE(cuLinkDestroy)
NONE(cuLibraryLoadFromFile) NONE(cuFuncSetAttribute) NONE(cuFuncGetAttribute) NONE(cuTensorMapEncodeTiled)
NONE(cuLaunchKernel) NONE(cuLaunchKernelEx) NONE(cuLaunchCooperativeKernel)
NONE(cuOccupancyMaxActiveBlocksPerMultiprocessor) NONE(cuOccupancyMaxPotentialClusterSize)

int cuDriverGetVersion(int *version) { return *version = 13000, 0; }
int cuGetErrorName(int error, const char **text) { return (void)error, *text = "no device", 0; }
int cuGetErrorString(int error, const char **text) { return (void)error, *text = "plans alone: there is no driver", 0; }

static char code, kernel;
int cuLibraryLoadData(void **library, const void *image) { return (void)image, *library = &code, 0; }
int cuLibraryUnload(void *library) { return (void)library, 0; }
int cuLibraryGetKernel(void **k, void *library, const char *name) { return (void)library, (void)name, *k = &kernel, 0; }
int cuKernelGetFunction(void **function, void *k) { return *function = k, 0; }
int cuKernelGetAttribute(int *value, int attribute) { return (void)attribute, *value = 0, 0; }
int cuKernelSetAttribute(void) { return 0; }
