/* cuda_run.h — a plan on a device: memory, launches, CUDA graphs, copies beside them.
 *
 * Errors are thrown with what the driver calls them and what was being done; what a sticky one leaves: cuda_device.h. */
#ifndef RT_CUDA_RUN_H
#define RT_CUDA_RUN_H
#include "runtime/cuda_device.h"
#include "runtime/cuda_plan.h"

typedef struct rt_cuda_module rt_cuda_module;
/* Loads the cubins, packs the weights here and copies them over, reserves the arena. Throws TN_ERESOURCE when the device's
 * memory is out, with how much was asked for; nothing stays behind then. */
rt_cuda_module *rt_cuda_module_new(tn_ctx *ctx, rt_cuda_device *d, const rt_cuda_plan *p);
void rt_cuda_module_free(rt_cuda_module *m);
/* Packs the weights again, from other raw tensors: as rt_module_repack. No run may be under way. */
void rt_cuda_repack(tn_ctx *ctx, rt_cuda_module *m, const void *const raw[]);
/* One run on host memory: in, out, dims, out_dims, state as rt_run_sized. The launches are a CUDA graph, captured at the first run, or several
 * one behind the other: it is cut where inputs are read late, or outputs are there early, of rt_cuda_plan.cut_bytes or more, so that they
 * are copied beside what goes on (cuda_copies.h). Of a
 * program with dims it is one for each choice of them, captured when that comes again. A program that
 * decides at run time is walked by the host, which waits for each value that it asks for; what lies between is a graph
 * of its own, kept for the addresses and sizes that it was captured with. */
void rt_cuda_run(tn_ctx *ctx, rt_cuda_module *m, const void *const in[], void *const out[], const int64_t dims[], int64_t out_dims[], void *state);
/* Milliseconds of one run on the device, without copies to and from the host, with the dims of the run before: the median of `runs`, of short ones of as many
 * times several in a row. */
double rt_cuda_time(tn_ctx *ctx, rt_cuda_module *m, int runs);
int64_t rt_cuda_module_bytes(const rt_cuda_module *m);
#endif
