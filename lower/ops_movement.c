/* ops_movement.c */
#include "lower/build.h"

const ir_op lw_ops_movement[] = {{0}};
