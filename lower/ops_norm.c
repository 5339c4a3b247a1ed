/* ops_norm.c */
#include "lower/build.h"

const ir_op lw_ops_norm[] = {{0}};
