/* program_interp.h — the reference execution of a program: every kernel by the interpreter. */
#ifndef RT_PROGRAM_INTERP_H
#define RT_PROGRAM_INTERP_H
#include "ir/ir.h"

typedef struct rt_interp_options {
  bool unscheduled; /* run the kernels as they were before their schedules */
  const int64_t *dims; /* of a program that has dims */
  int64_t *out_dims;   /* null, or room for the extents of all outputs in turn */
} rt_interp_options;

/* Runs pack, then run. in, out: as P_run takes them; state may be null when the program has
 * none. raw: the original tensors, null for those in the program. Arena and weights start poisoned with
 * a pattern, so that a read before a write shows. Throws what ir_interp throws, with the
 * call named. `options` may be null. */
void rt_program_interp(tn_ctx *ctx, const ir_program *p, const void *const in[], void *const out[], const void *const raw[],
                       void *state, const rt_interp_options *options);
#endif
