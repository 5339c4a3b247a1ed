/* ops_contrib.c */
#include "lower/build.h"

const ir_op lw_ops_contrib[] = {{0}};
