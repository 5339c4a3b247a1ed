/* ops_softmax.c */
#include "lower/build.h"

const ir_op lw_ops_softmax[] = {{0}};
