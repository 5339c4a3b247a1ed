/* cli_sim_layers.c — layers of a topology as graphs, compiled as a model would be. */
#include "frontend/cli_sim.h"
#include "runtime/tpu_build.h"
#include <string.h>

tn_dtype sim_dtype(cli *c, const tpu_machine *m, const char *name) {
  static const tn_dtype order[] = {TN_F16, TN_BF16, TN_I8, TN_F32}; /* what a layer without a type is made of */
  if (!name) {
    for (int i = 0; i < IR_COUNT(order); i++)
      if (sim_row_cycles(m, order[i]) > 0) return order[i];
    ir_fail(c->ctx, TN_EUNSUPPORTED, "%s: an array of no type", m->name);
  }
  tn_dtype t = ir_dtype_parse(name, strlen(name));
  if (t != TN_F16 && t != TN_BF16 && t != TN_I8 && t != TN_F32) ir_fail(c->ctx, TN_EUSAGE, "--dtype: '%s' is none of f16, bf16, i8, f32", name);
  if (sim_row_cycles(m, t) <= 0) ir_fail(c->ctx, TN_EUNSUPPORTED, "--dtype: the array of %s does not take %s", m->name, name);
  return t;
}

double sim_row_cycles(const tpu_machine *m, tn_dtype t) {
  return (double)(t == TN_F16 ? m->f16 : t == TN_BF16 ? m->bf16 : t == TN_I8 ? m->int8 : t == TN_F32 ? m->f32 : 0);
}

static ir_value *input(tn_ctx *ctx, ir_graph *g, const char *name, tn_dtype t, int rank, const int64_t *dims) {
  ix d[4];
  for (int i = 0; i < rank; i++) d[i] = ix_index(ctx, dims[i]);
  return ir_graph_input(g, name, t, rank, d);
}

static ir_program *lowered(tn_ctx *ctx, const fe_topology_layer *l, tn_dtype t) {
  ir_graph *g = ir_graph_new(ctx, "layer");
  const fe_conv_dims *v = &l->conv;
  bool integer = t == TN_I8;
  ir_node *n;
  if (!v->h) {
    ir_value *in[2] = {input(ctx, g, "A", t, 2, (int64_t[]){l->M, l->K}), input(ctx, g, "B", t, 2, (int64_t[]){l->K, l->N})};
    n = ir_node_new(g, integer ? "MatMulInteger" : "MatMul", l->name, 2, in, 1);
  } else { /* sizes that make the last window whole */
    int64_t h = ((v->h - v->r + v->stride_h - 1) / v->stride_h) * v->stride_h + v->r, w = ((v->w - v->s + v->stride_w - 1) / v->stride_w) * v->stride_w + v->s;
    ir_value *in[2] = {input(ctx, g, "X", t, 4, (int64_t[]){v->batch, v->c, h, w}), input(ctx, g, "W", t, 4, (int64_t[]){l->N * l->groups, v->c / l->groups, v->r, v->s})};
    n = ir_node_new(g, integer ? "ConvInteger" : "Conv", l->name, 2, in, 1);
    ir_attr_ints(n, "strides", 2, (int64_t[]){v->stride_h, v->stride_w});
    ir_attr_int(n, "group", l->groups);
  }
  ir_graph_output(g, n->out[0]);
  return lw_compile(ctx, g, &(lw_options){.unscheduled = true});
}

tpu_program *sim_layer_program(tn_ctx *ctx, const tpu_machine *m, const fe_topology_layer *l, tn_dtype t, int cores) {
  return rt_tpu_program(ctx, lowered(ctx, l, t), m, &(tpu_options){.cores = cores});
}
