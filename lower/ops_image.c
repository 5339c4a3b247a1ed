/* ops_image.c */
#include "lower/build.h"

const ir_op lw_ops_image[] = {{0}};
