/* ops_loss.c */
#include "lower/build.h"

const ir_op lw_ops_loss[] = {{0}};
