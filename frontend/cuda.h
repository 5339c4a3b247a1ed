/* cuda.h — models for GPUs, as the tool and the C API ask for them: "cuda" or "cuda:ARCH". */
#ifndef FE_CUDA_H
#define FE_CUDA_H
#include "lower/lower.h"
#include "runtime/cuda_object.h"
#include "runtime/cuda_run.h"

/* The architecture of a target's text: "" for "cuda" alone, null for null and "cpu". Throws TN_EUSAGE for other texts. */
const char *fe_cuda_arch(tn_ctx *ctx, const char *text);
/* The first of "sm_90a,sm_80"; "": what device 0 is. Throws TN_EUSAGE for a name that is none, and as rt_cuda_device_open. */
const cu_target *fe_cuda_target(tn_ctx *ctx, const char *archs);
/* A plan with cubins kept in a store (`db` as everywhere), by its winners for an accuracy (rtol, as lw_options.accuracy). Without NVRTC: TN_EUNSUPPORTED, or with `maybe` no cubins. */
const rt_cuda_plan *fe_cuda_plan(tn_ctx *ctx, const ir_program *p, const cu_target *t, const char *db, double rtol, int jobs, bool maybe);

/* The layout in which the store's whole runs of a graph (before the passes) were the fastest; AUTO: none are known. */
lw_layout_choice fe_cuda_layout(tn_ctx *ctx, const ir_graph *g, const cu_target *t, const char *db, double rtol);

typedef struct fe_cuda { /* a program on a device */
  const cu_target *target;
  rt_cuda_device *device;
  const rt_cuda_plan *plan;
  rt_cuda_module *module;
} fe_cuda;
/* The device, before anything is compiled for it; arch "": what device 0 is. Throws what rt_cuda_device_open throws, and
 * TN_EUNSUPPORTED without NVRTC. */
fe_cuda *fe_cuda_open(tn_ctx *ctx, const char *arch);
/* The plan of a program (of rt_cuda_lower), and the program on the device. */
void fe_cuda_load(tn_ctx *ctx, fe_cuda *c, const ir_program *p, const char *db, double rtol, int jobs);
/* The program as an object with code for each of "sm_80,sm_90a"; "": for device 0. */
void fe_cuda_object(tn_ctx *ctx, const ir_program *p, const char *archs, const char *db, double rtol, const rt_object_options *o);
/* Takes it off. Once. */
void fe_cuda_close(fe_cuda *c);
#endif
