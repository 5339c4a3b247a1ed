/* ops_index.c */
#include "lower/build.h"

const ir_op lw_ops_index[] = {{0}};
