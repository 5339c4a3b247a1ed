/* cuda_emulate.h — a tile program as many threads might run it, on the CPU.
 *
 * The interpreter runs the program's loops one after another; beside it goes a vector clock per thread. What two
 * threads touch without a barrier between them is an error whatever order they came in, so one run stands for all
 * orders of warps. Copies and products that run on by themselves are pending from their issue until a wait: any
 * touch of their bytes before is an error, so they may as well be early or late. Checked besides: barriers that not
 * all threads reach, private arrays of other threads, two threads that write one element of global memory, phases of
 * mbarriers that nothing completes. codegen/GPU.md tells more. */
#ifndef RT_CUDA_EMULATE_H
#define RT_CUDA_EMULATE_H
#include "codegen/cuda.h"

/* args, dims as ir_interp takes them. Throws TN_EWRONG naming what is wrong. Seed: the order of blocks and threads. */
void rt_cuda_emulate(tn_ctx *ctx, const cu_tile *tile, void *const *args, const int64_t *dims, uint64_t seed);
#endif
