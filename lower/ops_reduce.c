/* ops_reduce.c */
#include "lower/build.h"

const ir_op lw_ops_reduce[] = {{0}};
