/* ops_quant.c */
#include "lower/build.h"

const ir_op lw_ops_quant[] = {{0}};
