/* inputs.h — what a model is fed with: arrays from files, test-data sets, random numbers.
 *
 * Random inputs are the same everywhere, so that another program can repeat them. Element i of
 * graph input k comes from the 64-bit counter c = S * 2^56 + k * 2^40 + i (S: the seed, 0 by
 * default) by the SplitMix64 finaliser, all modulo 2^64:
 *
 *   z = (c + 1) * 0x9e3779b97f4a7c15
 *   z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9
 *   z = (z ^ z >> 27) * 0x94d049bb133111eb
 *   z =  z ^ z >> 31
 *
 *   f32, f64  (z >> 40) / 2^23 - 1      in [-1, 1), all exact
 *   f16       (z >> 53) / 2^10 - 1
 *   bf16      (z >> 56) / 2^7 - 1
 *   f8*, f4*  the same, rounded to the dtype
 *   integers, booleans   z >> 63        0 or 1
 */
#ifndef FE_INPUTS_H
#define FE_INPUTS_H
#include "frontend/onnx_model.h"
#include "ir/ir.h"

/* Fills `count` elements at `out` as said above; `input` is k. */
void fe_random(void *out, tn_dtype t, int64_t count, uint64_t seed, int input);
/* The value of one element as double, for reports; any dtype but TN_NONE. */
double fe_element(tn_dtype t, const void *data, int64_t i);

/* An array from a file: ".pb" (one TensorProto), else ".npy". `type` is the declared type of a
 * .pb file, null if unknown. Data is aligned to 64 bytes. Throws as the readers do. */
fe_array fe_array_load(tn_ctx *ctx, const char *path, const fe_onnx_type *type);
/* Zeroed memory for an array, aligned to 64 bytes; `bytes` may be 0. */
void *fe_buffer(tn_ctx *ctx, int64_t bytes);

/* The arrays DIR/STEM_0.pb, DIR/STEM_1.pb, ... (or .npy), as many as follow one another;
 * stem is "input" or "output". types[i] for i < ntypes: declared types (may be null). */
int fe_test_data(tn_ctx *ctx, const char *dir, const char *stem, int ntypes, const fe_onnx_type *const *types, fe_array **out);

/* Gives graph input k the shape of `a` before inference: symbolic dimensions take their sizes,
 * in all inputs that have the same name; fixed ones must agree. Throws TN_EINPUT naming the input. */
void fe_bind_input(tn_ctx *ctx, ir_graph *g, int k, const fe_array *a);
/* Index of the graph input of that name; -1 if there is none. */
int fe_find_input(const ir_graph *g, const char *name);
/* "f32[1,3,224,224]" */
const char *fe_shape_text(tn_ctx *ctx, tn_dtype t, int rank, const int64_t *dims);
#endif
