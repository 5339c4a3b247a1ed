/* tpu_build.h — from a graph to a program of the systolic machine.
 *
 *   graph ── infer, canon ── narrow ── lower (NHWC, no schedules but layouts of weights) ── pack ── tpu_compile
 */
#ifndef RT_TPU_BUILD_H
#define RT_TPU_BUILD_H
#include "codegen/tpu_compile.h"
#include "lower/lower.h"
#include "lower/narrow.h"

typedef struct rt_tpu_options {
  lw_precision precision;
  const tpu_tunables *tile;      /* may be null */
  int cores;                     /* that share the work; 0: all of the machine, or one where that is faster */
  tpu_layout layout;
  int jobs;                      /* threads that compile the packing of weights */
  /* int8: the inputs that ranges are measured with, dense, by number; null: random ones, floats in [-1, 1). */
  const void *const *sample;
} rt_tpu_options;

typedef struct rt_tpu_build {
  tpu_program *tpu;
  const uint8_t *weights;        /* packed, as tpu_options takes them; null when there are none */
  ir_program *program;           /* what it was made from: the same arithmetic for the CPU */
  double lower_s, pack_s, compile_s;
} rt_tpu_build;

/* The precision that suits a machine: what the graph says where it has f32, else bf16, else int8. */
lw_precision rt_tpu_precision(const tpu_machine *m);
/* As tpu_compile, but for o->cores: 0 is all of the machine, or one where that is faster; more than it has throws TN_EUSAGE.
 * And TPU_LAYOUT_ANY is the faster one. What was left open is then set in *o. */
tpu_program *rt_tpu_program(tn_ctx *ctx, const ir_program *p, const tpu_machine *m, tpu_options *o);
int64_t rt_tpu_cycles(tn_ctx *ctx, const tpu_machine *m, const tpu_program *p); /* by timing alone */
/* The rest of it: b->program becomes b->tpu. */
void rt_tpu_compile_program(tn_ctx *ctx, rt_tpu_build *b, const tpu_machine *m, const rt_tpu_options *o);
/* The graph's dimensions must be numbers; it is changed. The weights live as long as the context. */
rt_tpu_build rt_tpu_compile(tn_ctx *ctx, ir_graph *g, const tpu_machine *m, const rt_tpu_options *o);
#endif
