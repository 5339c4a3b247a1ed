/* import_values.c — which inputs of a graph must be known as numbers before it can be compiled,
 * because types and shapes inside depend on them, and making them so. */
#include "frontend/import.h"
#include "lower/extent.h"
#include <string.h>

/* Operands whose value decides the output's shape or the loops: bit k is operand k. */
static const struct {
  const char *op;
  unsigned operands;
} shape_operands[] = {
    {"AffineGrid", 1 << 1}, {"BlackmanWindow", 1 << 0}, {"CenterCropPad", 1 << 1}, {"Col2Im", 1 << 1 | 1 << 2},
    {"ConstantOfShape", 1 << 0}, {"CumProd", 1 << 1}, {"CumSum", 1 << 1}, {"DFT", 1 << 1 | 1 << 2}, {"Dropout", 1 << 1 | 1 << 2},
    {"Expand", 1 << 1}, {"GroupQueryAttention", 1 << 6}, {"HammingWindow", 1 << 0}, {"HannWindow", 1 << 0}, {"MaxUnpool", 1 << 2},
    {"MelWeightMatrix", 0x1f}, {"OneHot", 1 << 1}, {"Pad", 1 << 1 | 1 << 3},
    {"Range", 7}, {"ReduceL1", 1 << 1}, {"ReduceL2", 1 << 1}, {"ReduceLogSum", 1 << 1}, {"ReduceLogSumExp", 1 << 1},
    {"ReduceMax", 1 << 1}, {"ReduceMean", 1 << 1}, {"ReduceMin", 1 << 1}, {"ReduceProd", 1 << 1}, {"ReduceSum", 1 << 1},
    {"ReduceSumSquare", 1 << 1}, {"Reshape", 1 << 1}, {"Resize", 1 << 1 | 1 << 2 | 1 << 3}, {"STFT", 1 << 1 | 1 << 3},
    {"SequenceErase", 1 << 1}, {"SequenceInsert", 1 << 2}, {"Slice", 0x1e}, {"Split", 1 << 1}, {"SplitToSequence", 1 << 1}, {"Squeeze", 1 << 1}, {"Tile", 1 << 1 | 1 << 2}, {"TopK", 1 << 1},
    {"Unique", 1 << 0}, {"Unsqueeze", 1 << 1}, {"Upsample", 1 << 1},
};

/* Whether a loop has outputs of as many slices as it has turns. */
static bool collects(const ir_node *n) {
  const ir_attr *a = ir_attr_find(n, "body");
  return a && a->graph && a->graph->noutputs + 1 > a->graph->ninputs;
}

unsigned fe_shape_operands(const ir_node *n) {
  if (strcmp(n->op->name, "Loop") == 0) return collects(n) && n->nin && n->in[0] && lw_most(n->in[0]) == INT64_MAX ? 1 : 0; /* room for what it collects */
  for (int i = 0; i < IR_COUNT(shape_operands); i++)
    if (strcmp(n->op->name, shape_operands[i].op) == 0) return shape_operands[i].operands;
  return 0;
}

static void find_ids(const ir_graph *g, uint32_t *ids) {
  for (int i = 0; i < g->nvalues; i++)
    if (g->values[i]->id >= *ids) *ids = g->values[i]->id + 1;
  for (int i = 0; i < g->nnodes; i++)
    for (int k = 0; k < g->nodes[i]->nattrs; k++)
      if (g->nodes[i]->attrs[k].kind == IR_ATTR_GRAPH) find_ids(g->nodes[i]->attrs[k].graph, ids);
}

/* What a turn of a loop must know, those before it must, and how many there are. True: outputs of the body were marked. */
static bool mark_turns(const ir_node *n, const ir_graph *inside, bool *needed) {
  bool more = false;
  for (int o = 0; o < inside->ninputs && o < n->nin; o++) {
    if (!needed[inside->inputs[o]->id]) continue;
    for (int k = 0; k < 2; k++)
      if (n->in[k]) needed[n->in[k]->id] = true;
    if (n->in[o]) needed[n->in[o]->id] = true;
    if (o < 2 || o > inside->noutputs || needed[inside->outputs[o - 1]->id]) continue;
    needed[inside->outputs[o - 1]->id] = more = true;
  }
  return more;
}

/* Marks the values (by id) that must be known. Graphs inside nodes read values around them, and their
 * outputs are those of the node. */
static void mark(const ir_graph *g, bool *needed) {
  for (int i = g->nnodes; i-- > 0;) { /* topological order: consumers come first */
    const ir_node *n = g->nodes[i];
    bool whole = false; /* the value of an output is needed, so that of every operand */
    for (int k = 0; k < n->nout; k++) whole |= n->out[k] && needed[n->out[k]->id];
    if (strcmp(n->op->name, "Shape") == 0 || strcmp(n->op->name, "Size") == 0) continue; /* extents, not values */
    unsigned operands = fe_shape_operands(n);
    for (int k = 0; k < n->nin; k++)
      if (n->in[k] && (whole || (k < 32 && operands >> k & 1))) needed[n->in[k]->id] = true;
    for (int k = 0; k < n->nattrs; k++) {
      if (n->attrs[k].kind != IR_ATTR_GRAPH) continue;
      const ir_graph *inside = n->attrs[k].graph;
      for (int o = 0; whole && o < inside->noutputs; o++) needed[inside->outputs[o]->id] = true;
      mark(inside, needed);
      while (strcmp(n->op->name, "Loop") == 0 && mark_turns(n, inside, needed)) mark(inside, needed);
    }
  }
}

bool *fe_shape_inputs(tn_ctx *ctx, const ir_graph *g) {
  uint32_t ids = 0;
  find_ids(g, &ids);
  bool *needed = IR_NEW_ARRAY(ctx, bool, ids + 1), *result = IR_NEW_ARRAY(ctx, bool, g->ninputs + 1);
  mark(g, needed);
  for (int i = 0; i < g->ninputs; i++) result[i] = needed[g->inputs[i]->id];
  return result;
}

static void read_instead(ir_graph *g, const ir_value *old, ir_value *by) {
  for (int i = 0; i < g->nnodes; i++) {
    for (int j = 0; j < g->nodes[i]->nin; j++)
      if (g->nodes[i]->in[j] == old) g->nodes[i]->in[j] = by;
    for (int k = 0; k < g->nodes[i]->nattrs; k++)
      if (g->nodes[i]->attrs[k].kind == IR_ATTR_GRAPH) read_instead(g->nodes[i]->attrs[k].graph, old, by);
  }
}

void fe_freeze_input(tn_ctx *ctx, ir_graph *g, int k, const void *data) {
  ir_value *in = g->inputs[k];
  int64_t dims[IR_MAX_RANK];
  for (int i = 0; i < in->rank; i++) dims[i] = ir_dim(ctx, in, i);
  ir_value *c = ir_graph_const(g, in->name, in->dtype, in->rank, dims, data, true);
  read_instead(g, in, c);
}
