/* positions.h — positions of the elements that data marks, as many as a run finds. */
#ifndef LW_POSITIONS_H
#define LW_POSITIONS_H
#include "lower/build.h"

/* Nodes in place of n, inferred: the places where `condition` (bool, or a number that is not 0; static shape) is true, in row-major
 * order, i64 [elements], zeros behind them. *count: how many, an i64 scalar. */
ir_value *lw_positions(ir_graph *g, ir_node *n, ir_value *condition, ir_value **count);
#endif
