/* op_table.c — the op table: all rows, found by domain and name. */
#include "lower/build.h"
#include <string.h>

static const ir_op *const tables[] = {
    lw_ops_elementwise, lw_ops_reduce, lw_ops_softmax, lw_ops_norm, lw_ops_movement, lw_ops_rearrange, lw_ops_index, lw_ops_scatter,
    lw_ops_sort, lw_ops_image, lw_ops_resize, lw_ops_generate, lw_ops_signal, lw_ops_matmul, lw_ops_einsum, lw_ops_conv, lw_ops_pool,
    lw_ops_recurrent, lw_ops_layout, lw_ops_unfold, lw_ops_picked, lw_ops_quant, lw_ops_attention, lw_ops_attend, lw_ops_train, lw_ops_loss, lw_ops_contrib,
    lw_ops_contrib_attention, lw_ops_sequence, lw_ops_control, lw_ops_region, lw_ops_extent, lw_ops_positions, lw_ops_list, lw_ops_ml, lw_ops_grad};

const ir_op *ir_op_find(const char *domain, const char *name) {
  if (!domain || strcmp(domain, "ai.onnx") == 0) domain = "";
  for (int t = 0; t < IR_COUNT(tables); t++)
    for (const ir_op *op = tables[t]; op && op->name; op++)
      if (strcmp(op->name, name) == 0 && strcmp(op->domain ? op->domain : "", domain) == 0) return op;
  return NULL;
}

const ir_op *ir_op_at(int i) {
  for (int t = 0; t < IR_COUNT(tables); t++)
    for (const ir_op *op = tables[t]; op && op->name; op++)
      if (i-- == 0) return op;
  return NULL;
}
