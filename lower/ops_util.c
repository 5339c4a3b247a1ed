/* ops_util.c — small helpers shared by rows of the op table. */
#include "lower/ops_util.h"
#include "ir/interp.h"

void lw_need_rank(tn_ctx *ctx, const ir_node *n, int k, int rank) {
  if (n->in[k]->rank != rank) lw_bad(ctx, n, "input %d ('%s') has rank %d, not %d", k, n->in[k]->name, n->in[k]->rank, rank);
}
void lw_need_integer(tn_ctx *ctx, const ir_node *n, int k) {
  if (!ir_is_int(n->in[k]->dtype)) lw_bad(ctx, n, "input %d ('%s') is %s, not an integer tensor", k, n->in[k]->name, ir_dtype_name(n->in[k]->dtype));
}
void lw_need_single(tn_ctx *ctx, const ir_node *n, int k) {
  for (int i = 0; i < n->in[k]->rank; i++)
    if (!ix_is_int(n->in[k]->dims[i], 1)) lw_bad(ctx, n, "input %d ('%s') must have exactly one element", k, n->in[k]->name);
}
void lw_need_same_type(tn_ctx *ctx, const ir_node *n, int j, int k) {
  if (n->in[j]->dtype != n->in[k]->dtype)
    lw_bad(ctx, n, "inputs '%s' (%s) and '%s' (%s) must have one type", n->in[j]->name, ir_dtype_name(n->in[j]->dtype),
           n->in[k]->name, ir_dtype_name(n->in[k]->dtype));
}

int lw_need_ints(tn_ctx *ctx, const ir_node *n, int k, const char *what, int64_t *out, int max) {
  if (!lw_has(n, k)) lw_bad(ctx, n, "input %d (%s) is missing", k, what);
  const ir_value *v = n->in[k];
  if (v->rank > 1 || (v->dtype != TN_I64 && v->dtype != TN_I32))
    lw_bad(ctx, n, "input '%s' (%s) must be a 1-D i64 or i32 tensor", v->name, what);
  if (v->data && ir_static(v) && ir_value_elements(ctx, v) > max)
    lw_bad(ctx, n, "input '%s' (%s) has more than %d elements", v->name, what, max);
  int count = ir_known_ints(ctx, v, out, max);
  if (count < 0) lw_unsupported(ctx, n, "input '%s' (%s) must be known when compiling", v->name, what);
  return count;
}

int64_t lw_need_int(tn_ctx *ctx, const ir_node *n, int k, const char *what) {
  int64_t v;
  if (lw_need_ints(ctx, n, k, what, &v, 1) != 1) lw_bad(ctx, n, "input '%s' (%s) is empty", n->in[k]->name, what);
  return v;
}

int64_t lw_known_floats(const ir_value *v, double *out, int64_t max) {
  if (!v->data || !ir_static(v)) return -1;
  int64_t count = 1;
  for (int i = 0; i < v->rank; i++)
    if (!ir_mul_size(count, v->dims[i]->u.i, &count)) return -1;
  if (count > max) return -1;
  size_t size = ir_dtype_bytes(v->dtype);
  for (int64_t i = 0; i < count; i++) {
    ir_scalar s = ir_scalar_load(v->dtype, (const char *)v->data + (size_t)i * size);
    out[i] = ir_is_float(v->dtype) ? s.f : v->dtype == TN_U64 ? (double)(uint64_t)s.i : (double)s.i;
  }
  return count;
}

int lw_axes(tn_ctx *ctx, const ir_node *n, const char *attr, int k, int rank, int *axes) {
  int64_t raw[IR_MAX_RANK];
  const int64_t *list = raw;
  int count = attr ? ir_attr_get_ints(n, attr, &list) : -1;
  if (count < 0 && k >= 0 && lw_has(n, k)) count = lw_need_ints(ctx, n, k, "axes", raw, IR_MAX_RANK), list = raw;
  if (count < 0) return -1;
  if (count > IR_MAX_RANK) lw_bad(ctx, n, "%d axes given", count);
  for (int i = 0; i < count; i++) {
    axes[i] = ir_axis(ctx, n, list[i], rank);
    for (int j = 0; j < i; j++)
      if (axes[j] == axes[i]) lw_bad(ctx, n, "axis %d is given twice", axes[i]);
  }
  return count;
}

static const struct {
  tn_dtype t;
  const char *name; /* as ONNX calls it */
} numbers[] = {{TN_NONE, "undefined"}, {TN_F32, "float"}, {TN_U8, "uint8"}, {TN_I8, "int8"}, {TN_U16, "uint16"}, {TN_I16, "int16"}, {TN_I32, "int32"},
               {TN_I64, "int64"}, {TN_NONE, "string"}, {TN_BOOL, "bool"}, {TN_F16, "float16"}, {TN_F64, "double"}, {TN_U32, "uint32"}, {TN_U64, "uint64"},
               {TN_NONE, "complex64"}, {TN_NONE, "complex128"}, {TN_BF16, "bfloat16"}, {TN_F8E4M3FN, "float8e4m3fn"}, {TN_F8E4M3FNUZ, "float8e4m3fnuz"},
               {TN_F8E5M2, "float8e5m2"}, {TN_F8E5M2FNUZ, "float8e5m2fnuz"}, {TN_NONE, "uint4"}, {TN_NONE, "int4"}, {TN_F4E2M1, "float4e2m1"},
               {TN_NONE, "float8e8m0"}, {TN_NONE, "uint2"}, {TN_NONE, "int2"}};

tn_dtype lw_type_of_number(tn_ctx *ctx, const ir_node *n, int64_t number) {
  bool known = number > 0 && number < IR_COUNT(numbers);
  if (!known) lw_unsupported(ctx, n, "element type number %lld", (long long)number);
  if (numbers[number].t == TN_NONE) lw_unsupported(ctx, n, "the element type %s", numbers[number].name);
  return numbers[number].t;
}

int64_t lw_number_of_type(tn_ctx *ctx, tn_dtype t) {
  for (int i = 1; i < IR_COUNT(numbers); i++)
    if (numbers[i].t == t) return i;
  ir_bug(ctx, "dtype %s has no ONNX number", ir_dtype_name(t));
}

tn_dtype lw_type_attr(tn_ctx *ctx, const ir_node *n, const char *attr, tn_dtype otherwise) {
  return lw_has_attr(n, attr) ? lw_type_of_number(ctx, n, ir_attr_get_int(n, attr, 0)) : otherwise;
}

ix lw_scalar_in(lw_build *b, ir_node *n, int k) {
  lw_need_single(lw_ctx(b), n, k);
  ix zero[IR_MAX_RANK];
  for (int i = 0; i < n->in[k]->rank; i++) zero[i] = ix_index(lw_ctx(b), 0);
  return lw_in(b, n, k, zero);
}

ix lw_clamp(tn_ctx *ctx, ix a, ix lo, ix hi) { return ix_max(ctx, ix_min(ctx, a, hi), lo); }

ix lw_data_index(tn_ctx *ctx, ix element, ix extent) {
  ix zero = ix_index(ctx, 0), i = ix_cast(ctx, TN_INDEX, element);
  i = ix_select(ctx, ix_lt(ctx, i, zero), ix_add(ctx, i, extent), i);
  return lw_clamp(ctx, i, zero, ix_addi(ctx, extent, -1));
}

ix lw_cast_value(tn_ctx *ctx, const ir_node *n, ix v) {
  tn_dtype t = n->out[0]->dtype;
  if (ir_is_byte_float(t) && v->dtype != t && ir_attr_get_int(n, "saturate", 1)) {
    if (v->dtype != TN_F64) v = ix_cast(ctx, TN_F32, v);
    double most = ir_byte_max(t);
    v = ix_min(ctx, ix_float(ctx, (tn_dtype)v->dtype, most), ix_max(ctx, ix_float(ctx, (tn_dtype)v->dtype, -most), v)); /* NaN stays */
  }
  return ix_cast(ctx, t, v);
}

ix lw_zero(tn_ctx *ctx, tn_dtype t) { return ix_num(ctx, t, 0); }

/* Compares extents: 0 equal, -1 or 1 when both are numbers, 2 when it cannot be told. */
static int compare_extents(ix a, ix b) {
  if (a == b) return 0;
  if (!ix_is_const(a) || !ix_is_const(b)) return 2;
  return a->u.i < b->u.i ? -1 : 1;
}

void lw_relinear(tn_ctx *ctx, int in_rank, const ix *in_dims, int out_rank, const ix *out_dims, const ix *index, ix *in_index) {
  for (int i = 0; i < in_rank; i++) in_index[i] = ix_index(ctx, 0);
  for (int i = 0; i < in_rank; i++)
    if (ix_is_int(in_dims[i], 0)) return; /* empty: never evaluated */
  int i = 0, o = 0;
  while (i < in_rank) {
    if (ix_is_int(in_dims[i], 1)) {
      i++;
      continue;
    }
    if (o < out_rank && ix_is_int(out_dims[o], 1)) {
      o++;
      continue;
    }
    int i0 = i, o0 = o, c;
    ix pi = in_dims[i++], po = o < out_rank ? out_dims[o++] : ix_index(ctx, 1);
    while ((c = compare_extents(pi, po)) != 0) {
      if (c != 1 && i < in_rank) pi = ix_mul(ctx, pi, in_dims[i++]);
      else if (c != -1 && o < out_rank) po = ix_mul(ctx, po, out_dims[o++]);
      else if (i < in_rank) pi = ix_mul(ctx, pi, in_dims[i++]);
      else if (o < out_rank) po = ix_mul(ctx, po, out_dims[o++]);
      else break; /* equal by the shape rule, though not visibly */
    }
    ix linear = ix_index(ctx, 0);
    for (int k = o0; k < o; k++) linear = ix_add(ctx, ix_mul(ctx, linear, out_dims[k]), index[k]);
    int first = i0;
    while (first < i && ix_is_int(in_dims[first], 1)) first++;
    for (int k = i - 1; k >= i0; k--) {
      if (ix_is_int(in_dims[k], 1)) continue;
      in_index[k] = k == first ? linear : ix_rem(ctx, linear, in_dims[k]);
      if (k != first) linear = ix_div(ctx, linear, in_dims[k]);
    }
  }
}

void lw_set_known(tn_ctx *ctx, ir_node *n, int k, tn_dtype t, int rank, const int64_t *dims, const void *data) {
  if (k >= n->nout || !n->out[k]) return;
  ix shape[IR_MAX_RANK];
  int64_t bytes = (int64_t)ir_dtype_bytes(t);
  for (int i = 0; i < rank && i < IR_MAX_RANK; i++) {
    shape[i] = ix_index(ctx, dims[i]);
    if (!ir_mul_size(bytes, dims[i], &bytes)) lw_bad(ctx, n, "the size of output %d overflows", k);
  }
  lw_set(n, k, t, rank, shape);
  n->out[k]->data = data;
  n->out[k]->data_bytes = bytes;
}

void lw_expand_known(ir_graph *g, ir_node *n) {
  for (int k = 0; k < n->nout; k++) {
    const ir_value *v = n->out[k];
    if (!v) continue;
    int64_t dims[IR_MAX_RANK];
    if (!v->data) ir_bug(g->ctx, "%s: %s has no data to become a constant", n->where, n->op->name);
    for (int i = 0; i < v->rank; i++) dims[i] = ir_dim(g->ctx, v, i);
    lw_replace(g, n, k, ir_graph_const(g, v->name, v->dtype, v->rank, dims, v->data, false));
  }
}
