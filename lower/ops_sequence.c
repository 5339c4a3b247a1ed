/* ops_sequence.c */
#include "lower/build.h"

const ir_op lw_ops_sequence[] = {{0}};
