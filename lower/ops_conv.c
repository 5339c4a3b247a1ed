/* ops_conv.c */
#include "lower/build.h"

const ir_op lw_ops_conv[] = {{0}};
