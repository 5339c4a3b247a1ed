/* ops_matmul.c */
#include "lower/build.h"

const ir_op lw_ops_matmul[] = {{0}};
