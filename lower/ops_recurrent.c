/* ops_recurrent.c */
#include "lower/build.h"

const ir_op lw_ops_recurrent[] = {{0}};
