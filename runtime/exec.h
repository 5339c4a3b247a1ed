/* exec.h — walks the instructions of a program; who calls kernels, and how, is a function.
 * The reference execution and the profiled run share it. Generated code (codegen/entry.c) does the same
 * in machine code. */
#ifndef RT_EXEC_H
#define RT_EXEC_H
#include "codegen/codegen.h"
#include "ir/ir.h"
#include "runtime/threads.h"

/* Memory that this process cannot touch, a device's: what is done with it besides calls, in their order. */
typedef struct rt_elsewhere {
  void (*copy)(void *user, void *to, const void *from, size_t bytes);
  void (*read)(void *user, void *to, const void *from, size_t bytes); /* what a value of the program loads, to memory here */
} rt_elsewhere;

typedef struct rt_memory { /* where the slots are */
  const void *const *in;
  void *const *out;
  const void *const *raw;
  uint8_t *weights;      /* first byte after the blob's header: slot offset 0 */
  uint8_t *state, *arena;
  const rt_elsewhere *elsewhere; /* null: all of it is this process's; else `user` of the run is its user, too */
  const int64_t *dims;   /* values of the program's dims, for its run section; null elsewhere */
} rt_memory;

/* One kernel call: args[i] is the memory of parameter i, dims[j] the value of dimension j. */
typedef void (*rt_call)(void *user, const ir_inst *call, void *const *args, const int64_t *dims);

/* Runs the instructions in order. Dimensions of a kernel are the lets in scope of the same
 * name; a load in a value is one of the first slot of the buffer's name. */
void rt_exec(tn_ctx *ctx, const ir_program *p, int n, const ir_inst *insts, const rt_memory *m, rt_call call, void *user);
/* The extents of all outputs in turn, behind a run: as P_run's out_dims. `out_dims` null: none are wanted. */
void rt_extents(tn_ctx *ctx, const ir_program *p, const rt_memory *m, void *user, int64_t *out_dims);
/* body(arg, task, worker) for the ntasks tasks of a kernel, phase after phase; `threads` may be null. */
void rt_run_tasks(const cg_kernel_info *k, int64_t ntasks, const rt_threads *threads, void (*body)(void *arg, int task, int worker), void *arg);
/* Whether the program may be run with these values: CG_RUN_OK, CG_RUN_ARG (null though it has dims), CG_RUN_DIMS. */
int rt_check_dims(const ir_program *p, const int64_t *dims);
/* Fills a state (program->state_bytes) with what it holds before the first run. */
void rt_state_start(const ir_program *p, void *state);
#endif
