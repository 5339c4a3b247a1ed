/* support_tpu_shapes.h — random contractions as kernel text: products and convolutions of all dtypes, ragged, strided,
 * dilated, padded, grouped, depthwise, in several layouts, with what may follow the sum. */
#ifndef TESTS_TPU_SHAPES_H
#define TESTS_TPU_SHAPES_H
#include "ir/ir.h"
#include <string.h>

const char *tpu_shape(tn_ctx *ctx, uint64_t seed);
#endif
