/* ops_util.h — small helpers shared by rows of the op table. */
#ifndef LW_OPS_UTIL_H
#define LW_OPS_UTIL_H
#include "lower/build.h"

/* Whether attribute `name` is present. */
static inline bool lw_has_attr(const ir_node *n, const char *name) { return ir_attr_find(n, name) != NULL; }
/* Throws TN_EINPUT unless the value has that rank / an integer dtype. */
void lw_need_rank(tn_ctx *ctx, const ir_node *n, int k, int rank);
void lw_need_integer(tn_ctx *ctx, const ir_node *n, int k);
/* Throws TN_EINPUT unless input k has exactly one element. */
void lw_need_single(tn_ctx *ctx, const ir_node *n, int k);
/* Throws TN_EINPUT unless inputs j and k have one dtype. */
void lw_need_same_type(tn_ctx *ctx, const ir_node *n, int j, int k);

/* The contents of input k, which must be known: a 0-D or 1-D i32 or i64 tensor of at
 * most `max` elements. Returns the count; throws TN_EUNSUPPORTED naming `what`. */
int lw_need_ints(tn_ctx *ctx, const ir_node *n, int k, const char *what, int64_t *out, int max);
int64_t lw_need_int(tn_ctx *ctx, const ir_node *n, int k, const char *what);
/* Known contents of a value of any dtype and shape as doubles; -1 when not known or more than max. */
int64_t lw_known_floats(const ir_value *v, double *out, int64_t max);
/* Axes from attribute `attr` or, when the op has it, from input k (-1: none): normalised,
 * distinct, in the order given. Returns -1 when neither is there. */
int lw_axes(tn_ctx *ctx, const ir_node *n, const char *attr, int k, int rank, int *axes);

/* The element type that an ONNX data type number (TensorProto.DataType) means; throws for strings etc. */
tn_dtype lw_type_of_number(tn_ctx *ctx, const ir_node *n, int64_t number);
int64_t lw_number_of_type(tn_ctx *ctx, tn_dtype t); /* the reverse */
tn_dtype lw_type_attr(tn_ctx *ctx, const ir_node *n, const char *attr, tn_dtype otherwise);

/* The single element of input k (rank 0, or every extent 1). */
ix lw_scalar_in(lw_build *b, ir_node *n, int k);
/* A data element as an index into an axis: i64 to index, negative counts from the end, clamped. */
ix lw_data_index(tn_ctx *ctx, ix element, ix extent);
/* v as the dtype of n's result; one of a byte takes what is beyond its largest number as that, unless n's attribute
 * `saturate` is 0 (ONNX Cast, QuantizeLinear). */
ix lw_cast_value(tn_ctx *ctx, const ir_node *n, ix v);
ix lw_zero(tn_ctx *ctx, tn_dtype t);
ix lw_clamp(tn_ctx *ctx, ix a, ix lo, ix hi); /* lo <= hi */

/* Index into a row-major tensor of `in_dims` that holds the same element as `index` in
 * `out_dims` (equal element counts): groups of axes with equal products map apart. */
void lw_relinear(tn_ctx *ctx, int in_rank, const ix *in_dims, int out_rank, const ix *out_dims, const ix *index, ix *in_index);

/* Output k is fully known: sets its type and its data (row-major, living in the arena). */
void lw_set_known(tn_ctx *ctx, ir_node *n, int k, tn_dtype t, int rank, const int64_t *dims, const void *data);
/* The `expand` of an op whose outputs are all known after inference. */
void lw_expand_known(ir_graph *g, ir_node *n);
#endif
