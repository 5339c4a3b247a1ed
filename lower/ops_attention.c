/* ops_attention.c */
#include "lower/build.h"

const ir_op lw_ops_attention[] = {{0}};
