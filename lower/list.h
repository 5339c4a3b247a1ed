/* list.h — sequences of tensors, which are there while compiling alone: ops_list.c. */
#ifndef LW_LIST_H
#define LW_LIST_H
#include "ir/ir.h"

bool lw_is_list(const ir_value *v);
ir_value *lw_list(ir_graph *g, ir_node *n, int count, ir_value *const *v);
/* Of the slices of v along axis 0. */
ir_value *lw_list_of_rows(ir_graph *g, ir_node *n, ir_value *v);
#endif
