/* ops_elementwise.c */
#include "lower/build.h"

const ir_op lw_ops_elementwise[] = {{0}};
