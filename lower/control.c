/* control.c */
#include "lower/build.h"

const ir_op lw_ops_control[] = {{0}};
