/* ops_signal.c */
#include "lower/build.h"

const ir_op lw_ops_signal[] = {{0}};
