/* ops_sort.c */
#include "lower/build.h"

const ir_op lw_ops_sort[] = {{0}};
