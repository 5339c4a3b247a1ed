/* op_table.c — the op table: all rows, found by domain and name. */
#include "lower/build.h"
#include <string.h>

/* Weak: a table whose file is not linked (a slimmer build) is simply absent. */
#define TABLE(name) extern const ir_op name[] __attribute__((weak))
TABLE(lw_ops_elementwise); TABLE(lw_ops_reduce); TABLE(lw_ops_softmax); TABLE(lw_ops_norm);
TABLE(lw_ops_movement); TABLE(lw_ops_index); TABLE(lw_ops_sort); TABLE(lw_ops_image);
TABLE(lw_ops_generate); TABLE(lw_ops_signal); TABLE(lw_ops_matmul); TABLE(lw_ops_conv);
TABLE(lw_ops_pool); TABLE(lw_ops_recurrent); TABLE(lw_ops_quant); TABLE(lw_ops_attention);
TABLE(lw_ops_loss); TABLE(lw_ops_contrib);

const ir_op *ir_op_find(const char *domain, const char *name) {
  const ir_op *const tables[] = {
      lw_ops_elementwise, lw_ops_reduce, lw_ops_softmax, lw_ops_norm, lw_ops_movement, lw_ops_index,
      lw_ops_sort, lw_ops_image, lw_ops_generate, lw_ops_signal, lw_ops_matmul, lw_ops_conv, lw_ops_pool,
      lw_ops_recurrent, lw_ops_quant, lw_ops_attention, lw_ops_loss, lw_ops_contrib};
  if (!domain || strcmp(domain, "ai.onnx") == 0) domain = "";
  for (int t = 0; t < IR_COUNT(tables); t++)
    for (const ir_op *op = tables[t]; op && op->name; op++)
      if (strcmp(op->name, name) == 0 && strcmp(op->domain ? op->domain : "", domain) == 0) return op;
  return NULL;
}
