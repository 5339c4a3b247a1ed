/* cli_sim_layers.c — layers of a topology as graphs, compiled as a model would be. On a chip of several cores
 * each takes a share of the rows (output pixels), or of the columns (filters) where there are more of those;
 * their programs become the cores' texts of one program. */
#include "codegen/tpu_compile.h"
#include "frontend/cli_sim.h"
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

/* M x N x K, or the convolution with `rows` of output pixels and N filters in all. */
static ir_program *lowered(tn_ctx *ctx, const fe_topology_layer *l, tn_dtype t, int64_t M, int64_t N, int64_t rows) {
  ir_graph *g = ir_graph_new(ctx, "layer");
  const fe_conv_dims *v = &l->conv;
  bool integer = t == TN_I8;
  ir_node *n;
  if (!v->h) {
    ir_value *in[2] = {input(ctx, g, "A", t, 2, (int64_t[]){M, l->K}), input(ctx, g, "B", t, 2, (int64_t[]){l->K, N})};
    n = ir_node_new(g, integer ? "MatMulInteger" : "MatMul", l->name, 2, in, 1);
  } else { /* sizes that make the last window whole */
    int64_t h = (rows - 1) * v->stride_h + v->r, w = ((v->w - v->s + v->stride_w - 1) / v->stride_w) * v->stride_w + v->s;
    ir_value *in[2] = {input(ctx, g, "X", t, 4, (int64_t[]){v->batch, v->c, h, w}), input(ctx, g, "W", t, 4, (int64_t[]){N, v->c / l->groups, v->r, v->s})};
    n = ir_node_new(g, integer ? "ConvInteger" : "Conv", l->name, 2, in, 1);
    ir_attr_ints(n, "strides", 2, (int64_t[]){v->stride_h, v->stride_w});
    ir_attr_int(n, "group", l->groups);
  }
  ir_graph_output(g, n->out[0]);
  return lw_compile(ctx, g, &(lw_options){.unscheduled = true});
}

/* Part `i` of `n` of a size, in multiples of `unit`; *n is lowered when there are fewer parts than that. */
static int64_t share(int64_t size, int64_t unit, int n, int i) {
  int64_t units = (size + unit - 1) / unit, from = units * i / n * unit, to = units * (i + 1) / n * unit;
  return (to < size ? to : size) - (from < size ? from : size);
}

/* The programs become the texts of the cores; each keeps its own stretch of the DRAM. */
static tpu_program *joined(tn_ctx *ctx, int n, tpu_program *const *part) {
  if (n == 1) return part[0];
  tpu_program *p = tpu_program_new(ctx, part[0]->machine, n);
  p->ntags = part[0]->ntags, p->tags = part[0]->tags;
  for (int i = 0; i < n; i++) {
    int64_t by = p->dram_bytes;
    for (int k = 0; k < part[i]->nsegments; k++) {
      tpu_segment s = part[i]->segments[k];
      s.addr += by;
      s.kind = s.kind == TPU_SEG_INPUT || s.kind == TPU_SEG_OUTPUT ? TPU_SEG_SCRATCH : s.kind;
      tpu_program_segment(ctx, p, s);
    }
    p->core[i] = part[i]->core[0];
    for (int64_t k = 0; k < p->core[i].n; k++) {
      tpu_inst *x = &p->core[i].insts[k];
      if (x->dst.space == TPU_DRAM) x->dst.addr += by;
      if (x->src.space == TPU_DRAM) x->src.addr += by;
    }
    p->dram_bytes = by + ((part[i]->dram_bytes + 63) & -(int64_t)64);
  }
  return p;
}

tpu_program *sim_layer_program(tn_ctx *ctx, const tpu_machine *m, const fe_topology_layer *l, tn_dtype t, int cores) {
  enum { SUBLANES = 8 };
  int64_t lanes = m->cols, M = l->M, N = l->N * l->groups, rows = l->conv.h ? (l->conv.h - l->conv.r + l->conv.stride_h - 1) / l->conv.stride_h + 1 : 0;
  int64_t split_rows = l->conv.h ? rows : (M + SUBLANES - 1) / SUBLANES, split_columns = l->groups > 1 ? 1 : (N + lanes - 1) / lanes;
  bool by_rows = M >= N ? split_rows > 1 || split_columns == 1 : split_columns == 1;
  int64_t most = by_rows ? split_rows : split_columns;
  if (cores > most) cores = (int)most;
  tpu_program *part[TPU_MAX_CORES] = {0};
  for (int i = 0; i < cores; i++) {
    int64_t y = by_rows && l->conv.h ? share(rows, 1, cores, i) : rows;
    int64_t part_m = by_rows && !l->conv.h ? share(M, SUBLANES, cores, i) : M, part_n = by_rows ? N : share(N, lanes, cores, i);
    part[i] = tpu_compile(ctx, lowered(ctx, l, t, part_m, part_n, y), m, NULL);
  }
  return joined(ctx, cores, part);
}
