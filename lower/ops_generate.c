/* ops_generate.c */
#include "lower/build.h"

const ir_op lw_ops_generate[] = {{0}};
