/* cli_sim_layers.c — layers of a topology as programs for --timing tpu. */
#include "frontend/cli_sim.h"

double sim_row_cycles(const tpu_machine *m, tn_dtype t) { return tpu_row_cycles(m, t); }

tn_dtype sim_dtype(cli *c, const tpu_machine *m, const char *name) {
  (void)name;
  ir_fail(c->ctx, TN_EUNSUPPORTED, "%s: layers with --timing tpu are not there yet", m->name);
}

tpu_program *sim_layer_program(tn_ctx *ctx, const tpu_machine *m, const fe_topology_layer *l, tn_dtype t, int cores) {
  (void)l, (void)t, (void)cores;
  ir_fail(ctx, TN_EUNSUPPORTED, "%s: layers with --timing tpu are not there yet", m->name);
}
