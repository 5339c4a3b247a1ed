/* ops_pool.c */
#include "lower/build.h"

const ir_op lw_ops_pool[] = {{0}};
