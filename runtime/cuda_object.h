/* cuda_object.h — plans as model.o and model.h: cubins of several architectures, a launcher, the weights. */
#ifndef RT_CUDA_OBJECT_H
#define RT_CUDA_OBJECT_H
#include "codegen/cuda_image.h"
#include "runtime/cuda_plan.h"
#include "runtime/module.h"

/* Plans of one program, each compiled, for different targets; the later of two that fit a device is the one that runs.
 * o->target: the host, null: this machine. Throws TN_EUNSUPPORTED for foreign hosts. */
void rt_cuda_write_object(tn_ctx *ctx, int n, const rt_cuda_plan *const plans[], const rt_object_options *o);
/* The image of codegen/cuda_image.h. */
cg_cuda_part rt_cuda_image(tn_ctx *ctx, int n, const rt_cuda_plan *const plans[]);
/* A tensor map as the driver takes it, all but its tensor; the map's first byte in that. */
uint64_t rt_cuda_map_of(const cu_map *m, cu_image_map *to);
#endif
