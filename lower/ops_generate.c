/* ops_generate.c — tensors out of nothing: constants, ranges, windows, random numbers. */
#include "lower/ops_util.h"
#include "ir/interp.h"
#include <math.h>
#include <string.h>

/* ---- Constant ---- */

static void constant_infer(tn_ctx *ctx, ir_node *n) {
  const ir_attr *a;
  int64_t dims[IR_MAX_RANK];
  if ((a = ir_attr_find(n, "value")) && a->kind == IR_ATTR_TENSOR && a->tensor) {
    const ir_value *v = a->tensor;
    if (v->rank > IR_MAX_RANK) lw_unsupported(ctx, n, "a constant of rank %d", v->rank);
    for (int i = 0; i < v->rank; i++) dims[i] = ir_dim(ctx, v, i);
    lw_set_known(ctx, n, 0, v->dtype, v->rank, dims, v->data);
  } else if (lw_has_attr(n, "value_float")) {
    float *p = IR_NEW(ctx, float);
    *p = (float)ir_attr_get_float(n, "value_float", 0);
    lw_set_known(ctx, n, 0, TN_F32, 0, NULL, p);
  } else if (lw_has_attr(n, "value_int")) {
    int64_t *p = IR_NEW(ctx, int64_t);
    *p = ir_attr_get_int(n, "value_int", 0);
    lw_set_known(ctx, n, 0, TN_I64, 0, NULL, p);
  } else if ((a = ir_attr_find(n, "value_floats")) && a->kind == IR_ATTR_FLOATS) {
    float *p = IR_NEW_ARRAY(ctx, float, a->n + 1);
    for (int i = 0; i < a->n; i++) p[i] = (float)a->floats[i];
    lw_set_known(ctx, n, 0, TN_F32, 1, (int64_t[]){a->n}, p);
  } else if ((a = ir_attr_find(n, "value_ints")) && a->kind == IR_ATTR_INTS) {
    int64_t *p = IR_NEW_ARRAY(ctx, int64_t, a->n + 1);
    if (a->n) memcpy(p, a->ints, (size_t)a->n * sizeof *p);
    lw_set_known(ctx, n, 0, TN_I64, 1, (int64_t[]){a->n}, p);
  } else if (lw_has_attr(n, "sparse_value")) lw_unsupported(ctx, n, "sparse tensors");
  else if (lw_has_attr(n, "value_string") || lw_has_attr(n, "value_strings")) lw_unsupported(ctx, n, "string tensors");
  else lw_bad(ctx, n, "no value is given");
}

/* ---- ConstantOfShape ---- */

static void constant_of_shape_infer(tn_ctx *ctx, ir_node *n) {
  int64_t shape[IR_MAX_RANK];
  int rank = lw_need_ints(ctx, n, 0, "shape", shape, IR_MAX_RANK);
  const ir_attr *a = ir_attr_find(n, "value");
  if (a && (a->kind != IR_ATTR_TENSOR || !a->tensor || !a->tensor->data || ir_value_elements(ctx, a->tensor) != 1))
    lw_bad(ctx, n, "attribute 'value' must be a tensor of one element");
  ix dims[IR_MAX_RANK];
  for (int i = 0; i < rank; i++) {
    if (shape[i] < 0) lw_bad(ctx, n, "the shape has the extent %lld", (long long)shape[i]);
    dims[i] = ix_index(ctx, shape[i]);
  }
  lw_set(n, 0, a ? a->tensor->dtype : TN_F32, rank, dims);
}
static ix constant_of_shape_value(lw_build *b, ir_node *n, int out, const ix *index) {
  (void)out, (void)index;
  const ir_attr *a = ir_attr_find(n, "value");
  if (!a) return ix_float(lw_ctx(b), TN_F32, 0);
  ir_scalar s = ir_scalar_load(a->tensor->dtype, a->tensor->data);
  return ir_is_float(a->tensor->dtype) ? ix_float(lw_ctx(b), a->tensor->dtype, s.f) : ix_int(lw_ctx(b), a->tensor->dtype, s.i);
}

/* ---- Range ---- */

static double known_scalar(tn_ctx *ctx, const ir_node *n, int k, const char *what) {
  double v;
  if (!ir_known_float(n->in[k], &v)) lw_unsupported(ctx, n, "input '%s' (%s) must be known when compiling", n->in[k]->name, what);
  return v;
}
static void range_infer(tn_ctx *ctx, ir_node *n) {
  lw_need_same_type(ctx, n, 0, 1);
  lw_need_same_type(ctx, n, 0, 2);
  int64_t start, limit, delta, count;
  if (n->in[0]->dtype == TN_I64 && ir_known_ints(ctx, n->in[0], &start, 1) == 1 && ir_known_ints(ctx, n->in[1], &limit, 1) == 1 &&
      ir_known_ints(ctx, n->in[2], &delta, 1) == 1) {
    if (delta == 0) lw_bad(ctx, n, "delta is 0");
    __int128 span = delta > 0 ? (__int128)limit - start : (__int128)start - limit, step = delta > 0 ? (__int128)delta : -(__int128)delta;
    span = span <= 0 ? 0 : (span + step - 1) / step;
    if (span > (__int128)1 << 46) lw_bad(ctx, n, "the range has too many elements");
    count = (int64_t)span;
  } else {
    double a = known_scalar(ctx, n, 0, "start"), z = known_scalar(ctx, n, 1, "limit"), d = known_scalar(ctx, n, 2, "delta");
    double c = d != 0 ? ceil((z - a) / d) : NAN;
    if (!(c < 0x1p46)) lw_bad(ctx, n, "from %g to %g by %g is no range", a, z, d);
    count = c > 0 ? (int64_t)c : 0;
  }
  lw_set(n, 0, n->in[0]->dtype, 1, (ix[]){ix_index(ctx, count)});
}
static ix range_value(lw_build *b, ir_node *n, int out, const ix *index) {
  (void)out;
  tn_ctx *ctx = lw_ctx(b);
  tn_dtype t = n->in[0]->dtype, c = lw_compute_type(t);
  ix start = ix_cast(ctx, c, lw_scalar_in(b, n, 0)), delta = ix_cast(ctx, c, lw_scalar_in(b, n, 2));
  return ix_cast(ctx, t, ix_add(ctx, start, ix_mul(ctx, ix_cast(ctx, c, index[0]), delta)));
}

/* ---- EyeLike ---- */

static void eye_like_infer(tn_ctx *ctx, ir_node *n) {
  lw_need_rank(ctx, n, 0, 2);
  lw_set_like(n, 0, lw_type_attr(ctx, n, "dtype", n->in[0]->dtype), n->in[0]);
}
static ix eye_like_value(lw_build *b, ir_node *n, int out, const ix *index) {
  tn_ctx *ctx = lw_ctx(b);
  int64_t k = ir_attr_get_int(n, "k", 0);
  if (k > INT32_MAX || k < INT32_MIN) k = INT32_MAX; /* outside any matrix, either way */
  return ix_cast(ctx, n->out[out]->dtype, ix_eq(ctx, ix_addi(ctx, index[0], k), index[1]));
}

/* ---- random numbers: a hash of the element's number, so that every element stands alone ---- */

static uint32_t seed_of(const ir_node *n) {
  const ir_attr *a = ir_attr_find(n, "seed");
  float seed = (float)ir_attr_get_float(n, "seed", 0);
  return (uint32_t)(a ? ir_hash_bytes(&seed, sizeof seed, 1) : ir_hash_bytes(n->name, strlen(n->name), 2));
}
/* 32 well mixed bits of a counter and a seed (the finaliser of MurmurHash3, twice). */
static ix mixed(tn_ctx *ctx, ix counter, ix seed) {
  ix h = ix_binary(ctx, IX_XOR, ix_mul(ctx, counter, ix_int(ctx, TN_U32, 0x9e3779b9)), seed);
  for (int round = 0; round < 2; round++) {
    h = ix_binary(ctx, IX_XOR, h, ix_binary(ctx, IX_SHR, h, ix_int(ctx, TN_U32, 16)));
    h = ix_mul(ctx, h, ix_int(ctx, TN_U32, 0x85ebca6b));
    h = ix_binary(ctx, IX_XOR, h, ix_binary(ctx, IX_SHR, h, ix_int(ctx, TN_U32, 13)));
    h = ix_mul(ctx, h, ix_int(ctx, TN_U32, 0xc2b2ae35));
    h = ix_binary(ctx, IX_XOR, h, ix_binary(ctx, IX_SHR, h, ix_int(ctx, TN_U32, 16)));
    if (round == 0) h = ix_add(ctx, h, ix_binary(ctx, IX_XOR, seed, ix_int(ctx, TN_U32, 0x5bd1e995)));
  }
  return h;
}
/* Uniform in [0, 1): 24 bits, exact in f32. */
static ix uniform_of(tn_ctx *ctx, ix counter, ix seed) {
  ix bits = ix_binary(ctx, IX_SHR, mixed(ctx, counter, seed), ix_int(ctx, TN_U32, 8));
  return ix_mul(ctx, ix_cast(ctx, TN_F32, bits), ix_float(ctx, TN_F32, 0x1p-24));
}
static ix uniform01(tn_ctx *ctx, ix counter, uint32_t seed) { return uniform_of(ctx, counter, ix_int(ctx, TN_U32, seed)); }
static ix counter_of(tn_ctx *ctx, const ir_value *v, const ix *index) {
  ix linear = ix_index(ctx, 0);
  for (int i = 0; i < v->rank; i++) linear = ix_add(ctx, ix_mul(ctx, linear, v->dims[i]), index[i]);
  return ix_cast(ctx, TN_U32, linear);
}
static tn_dtype float_type(tn_ctx *ctx, const ir_node *n, tn_dtype t) {
  if (!ir_is_float(t)) lw_bad(ctx, n, "the element type %s is no float", ir_dtype_name(t));
  return t;
}

static void random_infer(tn_ctx *ctx, ir_node *n) {
  const int64_t *shape = NULL;
  int rank = ir_attr_get_ints(n, "shape", &shape);
  if (rank < 0) lw_bad(ctx, n, "attribute 'shape' is missing");
  if (rank > IR_MAX_RANK) lw_unsupported(ctx, n, "a shape of rank %d", rank);
  ix dims[IR_MAX_RANK];
  for (int i = 0; i < rank; i++) {
    if (shape[i] < 0) lw_bad(ctx, n, "the shape has the extent %lld", (long long)shape[i]);
    dims[i] = ix_index(ctx, shape[i]);
  }
  lw_set(n, 0, float_type(ctx, n, lw_type_attr(ctx, n, "dtype", TN_F32)), rank, dims);
}
static void random_like_infer(tn_ctx *ctx, ir_node *n) {
  lw_set_like(n, 0, float_type(ctx, n, lw_type_attr(ctx, n, "dtype", n->in[0]->dtype)), n->in[0]);
}
static ix random_uniform_value(lw_build *b, ir_node *n, int out, const ix *index) {
  tn_ctx *ctx = lw_ctx(b);
  float low = (float)ir_attr_get_float(n, "low", 0), high = (float)ir_attr_get_float(n, "high", 1);
  ix u = uniform01(ctx, counter_of(ctx, n->out[out], index), seed_of(n));
  u = ix_add(ctx, ix_mul(ctx, u, ix_float(ctx, TN_F32, high - low)), ix_float(ctx, TN_F32, low));
  return ix_cast(ctx, n->out[out]->dtype, u);
}
static ix random_normal_value(lw_build *b, ir_node *n, int out, const ix *index) {
  tn_ctx *ctx = lw_ctx(b);
  uint32_t seed = seed_of(n);
  ix counter = counter_of(ctx, n->out[out], index), one = ix_float(ctx, TN_F32, 1);
  /* Box and Muller: sqrt(-2 log u) cos(2 pi v), u in (0, 1] */
  ix u = ix_sub(ctx, one, uniform01(ctx, counter, seed)), v = uniform01(ctx, counter, seed ^ 0xa511e9b3);
  ix r = ix_unary(ctx, IX_SQRT, ix_mul(ctx, ix_unary(ctx, IX_LOG, u), ix_float(ctx, TN_F32, -2)));
  ix z = ix_mul(ctx, r, ix_unary(ctx, IX_COS, ix_mul(ctx, v, ix_float(ctx, TN_F32, 6.283185307179586))));
  z = ix_mul(ctx, z, ix_float(ctx, TN_F32, ir_attr_get_float(n, "scale", 1)));
  return ix_cast(ctx, n->out[out]->dtype, ix_add(ctx, z, ix_float(ctx, TN_F32, ir_attr_get_float(n, "mean", 0))));
}

/* tenon Uniform: in [0, 1), a function of the number in operand 0, of the seed and of the element's place in the
 * shape of operand 1: the same step of a training draws the same numbers, wherever and how often it is computed. */
static void uniform_infer(tn_ctx *ctx, ir_node *n) {
  if (n->in[0]->dtype != TN_I64) lw_bad(ctx, n, "a step of type %s, not i64", ir_dtype_name(n->in[0]->dtype));
  lw_need_single(ctx, n, 0);
  lw_set_like(n, 0, TN_F32, n->in[1]);
}
static ix uniform_value(lw_build *b, ir_node *n, int out, const ix *index) {
  tn_ctx *ctx = lw_ctx(b);
  ix step = ix_cast(ctx, TN_U32, lw_scalar_in(b, n, 0)), seed = ix_int(ctx, TN_U32, (uint32_t)ir_attr_get_int(n, "seed", 0));
  return uniform_of(ctx, counter_of(ctx, n->out[out], index), mixed(ctx, step, seed));
}

static void bernoulli_infer(tn_ctx *ctx, ir_node *n) {
  float_type(ctx, n, n->in[0]->dtype);
  lw_set_like(n, 0, lw_type_attr(ctx, n, "dtype", n->in[0]->dtype), n->in[0]);
}
static ix bernoulli_value(lw_build *b, ir_node *n, int out, const ix *index) {
  tn_ctx *ctx = lw_ctx(b);
  ix p = lw_in(b, n, 0, index), u = uniform01(ctx, counter_of(ctx, n->out[out], index), seed_of(n));
  if (p->dtype == TN_F64) u = ix_cast(ctx, TN_F64, u);
  else p = ix_cast(ctx, TN_F32, p);
  return ix_cast(ctx, n->out[out]->dtype, ix_lt(ctx, u, p));
}

static void multinomial_infer(tn_ctx *ctx, ir_node *n) {
  lw_need_rank(ctx, n, 0, 2);
  float_type(ctx, n, n->in[0]->dtype);
  tn_dtype t = lw_type_attr(ctx, n, "dtype", TN_I32);
  if (t != TN_I32 && t != TN_I64) lw_bad(ctx, n, "the output type %s is neither i32 nor i64", ir_dtype_name(t));
  int64_t count = ir_attr_get_int(n, "sample_size", 1);
  if (count < 0) lw_bad(ctx, n, "sample_size is %lld", (long long)count);
  if (ix_is_int(n->in[0]->dims[1], 0)) lw_bad(ctx, n, "there are no classes");
  lw_set(n, 0, t, 2, (ix[]){n->in[0]->dims[0], ix_index(ctx, count)});
}
/* Inverts the running sum of exp(logit - largest) at u times its total. */
static void multinomial_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *s = lw_b(b);
  ix at[2], c, classes = n->in[0]->dims[1];
  lw_loops(b, NULL, 2, n->out[0]->dims, at);
#define LOGIT ix_cast(ctx, TN_F32, lw_in(b, n, 0, (ix[]){at[0], c}))
  ir_buf *most = ib_local(s, "most", TN_F32, ix_float(ctx, TN_F32, -INFINITY));
  c = ib_loop(s, "c", classes);
  ib_update(s, most, NULL, IR_MAX, LOGIT);
  ib_end(s);
  ir_buf *total = ib_local(s, "total", TN_F32, ix_float(ctx, TN_F32, 0));
  c = ib_loop(s, "c", classes);
  ib_update(s, total, NULL, IR_ADD, ix_unary(ctx, IX_EXP, ix_sub(ctx, LOGIT, ib_get(s, most))));
  ib_end(s);
  ix u = ib_let(s, "u", ix_mul(ctx, uniform01(ctx, counter_of(ctx, n->out[0], at), seed_of(n)), ib_get(s, total)));
  ir_buf *sum = ib_local(s, "sum", TN_F32, ix_float(ctx, TN_F32, 0)), *pick = ib_local(s, "pick", TN_I64, ix_int(ctx, TN_I64, 0));
  c = ib_loop(s, "c", classes);
  ib_update(s, sum, NULL, IR_ADD, ix_unary(ctx, IX_EXP, ix_sub(ctx, LOGIT, ib_get(s, most))));
  ib_update(s, pick, NULL, IR_ADD, ix_cast(ctx, TN_I64, ix_le(ctx, ib_get(s, sum), u))); /* classes passed */
  ib_end(s);
#undef LOGIT
  ix last = ix_cast(ctx, TN_I64, ix_addi(ctx, classes, -1)); /* when rounding passes all */
  lw_out(b, n, 0, at, ix_cast(ctx, n->out[0]->dtype, ix_min(ctx, ib_get(s, pick), last)));
  ib_end_n(s, 2);
}

/* ---- windows: sums of cosines over one period ---- */

static void window_infer(tn_ctx *ctx, ir_node *n) {
  int64_t size = lw_need_int(ctx, n, 0, "size");
  if (size < 0) lw_bad(ctx, n, "size is %lld", (long long)size);
  lw_set(n, 0, lw_type_attr(ctx, n, "output_datatype", TN_F32), 1, (ix[]){ix_index(ctx, size)});
}
static ix cosine_window(lw_build *b, ir_node *n, const ix *index, double a0, double a1, double a2) {
  tn_ctx *ctx = lw_ctx(b);
  int64_t size = lw_need_int(ctx, n, 0, "size"), period = ir_attr_get_int(n, "periodic", 1) ? size : size - 1;
  if (period < 1) period = 1;
  ix x = ix_mul(ctx, ix_cast(ctx, TN_F64, index[0]), ix_float(ctx, TN_F64, 2 * 3.14159265358979323846));
  x = ix_div(ctx, x, ix_float(ctx, TN_F64, (double)period));
  ix w = ix_sub(ctx, ix_float(ctx, TN_F64, a0), ix_mul(ctx, ix_float(ctx, TN_F64, a1), ix_unary(ctx, IX_COS, x)));
  if (a2 != 0) {
    ix twice = ix_unary(ctx, IX_COS, ix_mul(ctx, x, ix_float(ctx, TN_F64, 2)));
    w = ix_add(ctx, w, ix_mul(ctx, ix_float(ctx, TN_F64, a2), twice));
  }
  return ix_cast(ctx, n->out[0]->dtype, w);
}
static ix hann_value(lw_build *b, ir_node *n, int out, const ix *index) { return (void)out, cosine_window(b, n, index, 0.5, 0.5, 0); }
static ix hamming_value(lw_build *b, ir_node *n, int out, const ix *index) {
  return (void)out, cosine_window(b, n, index, 25.0 / 46, 21.0 / 46, 0);
}
static ix blackman_value(lw_build *b, ir_node *n, int out, const ix *index) { return (void)out, cosine_window(b, n, index, 0.42, 0.5, 0.08); }

/* ---- MelWeightMatrix ---- */

static void mel_infer(tn_ctx *ctx, ir_node *n) {
  int64_t bins = lw_need_int(ctx, n, 0, "num_mel_bins"), dft = lw_need_int(ctx, n, 1, "dft_length"), rate = lw_need_int(ctx, n, 2, "sample_rate");
  double low = known_scalar(ctx, n, 3, "lower_edge_hertz"), high = known_scalar(ctx, n, 4, "upper_edge_hertz");
  tn_dtype t = lw_type_attr(ctx, n, "output_datatype", TN_F32);
  int64_t rows = dft / 2 + 1, elements, *edge;
  if (bins < 1 || dft < 1 || rate < 1 || bins > 1 << 20 || dft > 1 << 24 || !ir_mul_size(rows, bins, &elements))
    lw_bad(ctx, n, "%lld mel bins, length %lld, rate %lld", (long long)bins, (long long)dft, (long long)rate);
  edge = IR_NEW_ARRAY(ctx, int64_t, bins + 2);
  double from = 2595 * log10(1 + low / 700), step = (2595 * log10(1 + high / 700) - from) / (double)(bins + 2);
  for (int64_t i = 0; i < bins + 2; i++) {
    double hertz = 700 * (pow(10, ((double)i * step + from) / 2595) - 1), bin = floor((double)(dft + 1) * hertz / (double)rate);
    if (!(bin >= 0 && bin < (double)rows)) lw_bad(ctx, n, "the edges reach beyond half of the sample rate");
    edge[i] = (int64_t)bin;
  }
  size_t size = ir_dtype_bytes(t);
  char *data = ir_alloc_array(ctx, (size_t)elements, size);
  for (int64_t i = 0; i < bins; i++) {
    int64_t a = edge[i], c = edge[i + 1], z = edge[i + 2];
    for (int64_t j = a; j <= z; j++) {
      double v = j < c ? (double)(j - a) / (double)(c - a) : j < z ? (double)(z - j) / (double)(z - c) : j == c ? 1 : 0;
      if (j == c) v = 1;
      ir_scalar s = {.f = v};
      if (!ir_is_float(t)) s.i = (int64_t)v;
      ir_scalar_store(t, data + (size_t)(j * bins + i) * size, s);
    }
  }
  lw_set_known(ctx, n, 0, t, 2, (int64_t[]){rows, bins}, data);
}

#define VALUE(name, since, nin, attrs, infer, value) {name, "", IR_OP_MOVEMENT, since, nin, nin, 1, 1, attrs, infer, value, NULL, NULL, "", NULL}

const ir_op lw_ops_generate[] = {
    {"Constant", "", IR_OP_COMPOSITE, 1, 0, 0, 1, 1,
     "value:t sparse_value:t value_float:f value_floats:F value_int:i value_ints:I value_string:s value_strings:S",
     constant_infer, NULL, NULL, lw_expand_known, NULL, NULL},
    VALUE("ConstantOfShape", 9, 1, "value:t", constant_of_shape_infer, constant_of_shape_value),
    VALUE("Range", 11, 3, "stash_type:i", range_infer, range_value),
    VALUE("EyeLike", 9, 1, "dtype:i k:i", eye_like_infer, eye_like_value),
    VALUE("RandomUniform", 1, 0, "dtype:i shape:I seed:f low:f high:f", random_infer, random_uniform_value),
    VALUE("RandomUniformLike", 1, 1, "dtype:i seed:f low:f high:f", random_like_infer, random_uniform_value),
    VALUE("RandomNormal", 1, 0, "dtype:i shape:I seed:f mean:f scale:f", random_infer, random_normal_value),
    VALUE("RandomNormalLike", 1, 1, "dtype:i seed:f mean:f scale:f", random_like_infer, random_normal_value),
    VALUE("Bernoulli", 15, 1, "dtype:i seed:f", bernoulli_infer, bernoulli_value),
    {.name = "Uniform", .domain = "tenon", .kind = IR_OP_MOVEMENT, .since = 1, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
     .attrs = "seed:i", .infer = uniform_infer, .value = uniform_value, .grad = ""},
    {"Multinomial", "", IR_OP_KERNEL, 7, 1, 1, 1, 1, "dtype:i sample_size:i seed:f", multinomial_infer, NULL, multinomial_build, NULL, NULL, NULL},
    VALUE("HannWindow", 17, 1, "periodic:i output_datatype:i", window_infer, hann_value),
    VALUE("HammingWindow", 17, 1, "periodic:i output_datatype:i", window_infer, hamming_value),
    VALUE("BlackmanWindow", 17, 1, "periodic:i output_datatype:i", window_infer, blackman_value),
    {"MelWeightMatrix", "", IR_OP_COMPOSITE, 17, 5, 5, 1, 1, "output_datatype:i", mel_infer, NULL, NULL, lw_expand_known, NULL, NULL},
    {0}};
