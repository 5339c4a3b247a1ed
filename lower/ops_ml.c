/* ops_ml.c — TfIdfVectorizer, and what of ai.onnx.ml works on tensors of numbers. */
#include "lower/compose.h"
#include <string.h>

/* ---- TfIdfVectorizer: how often each n-gram of a pool occurs in a sequence of integers ----
 *
 * The pool holds all 1-grams, then all 2-grams, ..., each collection from ngram_counts[n - 1]
 * on; n-gram number i counts in column ngram_indexes[i]. Items of an n-gram stand s + 1
 * apart, s up to max_skip_count. */

typedef struct vectorizer {
  const int64_t *pool, *starts, *columns;
  int npool, nstarts, ngrams;
  int64_t least, most, skips, width;
  int mode; /* 0 TF, 1 IDF, 2 TFIDF */
} vectorizer;

static vectorizer vectorizer_of(tn_ctx *ctx, const ir_node *n) {
  vectorizer v = {.least = ir_attr_get_int(n, "min_gram_length", 1), .most = ir_attr_get_int(n, "max_gram_length", 1), .skips = ir_attr_get_int(n, "max_skip_count", 0), .width = 1};
  if (lw_has_attr(n, "pool_strings")) lw_unsupported(ctx, n, "pool_strings");
  v.npool = ir_attr_get_ints(n, "pool_int64s", &v.pool);
  v.nstarts = ir_attr_get_ints(n, "ngram_counts", &v.starts);
  v.ngrams = ir_attr_get_ints(n, "ngram_indexes", &v.columns);
  const char *mode = ir_attr_get_string(n, "mode", "");
  v.mode = strcmp(mode, "TF") == 0 ? 0 : strcmp(mode, "IDF") == 0 ? 1 : strcmp(mode, "TFIDF") == 0 ? 2 : -1;
  if (v.mode < 0) lw_bad(ctx, n, "mode '%s'", mode);
  if (v.npool < 0 || v.nstarts < 1 || v.ngrams < 0 || v.least < 1 || v.most < v.least || v.most > v.nstarts || v.most > 64 || v.skips < 0 || v.skips > INT32_MAX)
    lw_bad(ctx, n, "the attributes do not fit together");
  int64_t grams = 0;
  for (int i = 0; i < v.nstarts; i++) {
    int64_t end = i + 1 < v.nstarts ? v.starts[i + 1] : v.npool;
    if (v.starts[i] < 0 || end < v.starts[i] || end > v.npool || (end - v.starts[i]) % (i + 1)) lw_bad(ctx, n, "ngram_counts of %d-grams", i + 1);
    grams += (end - v.starts[i]) / (i + 1);
  }
  const ir_attr *w = ir_attr_find(n, "weights");
  if (v.starts[0] != 0 || grams != v.ngrams || (w && w->n != v.ngrams)) lw_bad(ctx, n, "%lld n-grams in the pool, %d columns", (long long)grams, v.ngrams);
  for (int i = 0; i < v.ngrams; i++) {
    if (v.columns[i] < 0 || v.columns[i] >= INT32_MAX) lw_bad(ctx, n, "column %lld", (long long)v.columns[i]);
    if (v.columns[i] >= v.width) v.width = v.columns[i] + 1;
  }
  return v;
}

static void tfidf_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  vectorizer v = vectorizer_of(ctx, n);
  if (x->dtype != TN_I32 && x->dtype != TN_I64) lw_bad(ctx, n, "an input of type %s", ir_dtype_name(x->dtype));
  if (x->rank != 1 && x->rank != 2) lw_bad(ctx, n, "the input has rank %d, not 1 or 2", x->rank);
  ix dims[2] = {x->dims[0], ix_index(ctx, v.width)};
  lw_set(n, 0, TN_F32, x->rank, dims + (x->rank == 1));
}

static void tfidf_expand(ir_graph *g, ir_node *n) {
  tn_ctx *ctx = g->ctx;
  vectorizer v = vectorizer_of(ctx, n);
  int64_t rank = n->in[0]->rank, first = 0, rows = rank == 2 ? ir_dim(ctx, n->in[0], 0) : 1;
  const ir_attr *w = ir_attr_find(n, "weights");
  ir_value *x = lw_reshape(g, n, n->in[0], 2, (int64_t[]){rows, ir_dim(ctx, n->in[0], -1)}), *sum = NULL;
  for (int64_t size = 1; size <= v.most; size++) {
    int64_t end = size < v.nstarts ? v.starts[size] : v.npool, count = (end - v.starts[size - 1]) / size;
    if (size >= v.least && count) {
      float *weight = IR_NEW_ARRAY(ctx, float, count);
      for (int64_t i = 0; i < count; i++) weight[i] = w && v.mode ? (float)w->floats[first + i] : 1;
      ir_value *in[4] = {x, lw_cast_node(g, n, ir_graph_const(g, NULL, TN_I64, 2, (int64_t[]){count, size}, v.pool + v.starts[size - 1], true), x->dtype),
                         ir_graph_const(g, NULL, TN_I64, 1, &count, v.columns + first, true), ir_graph_const(g, NULL, TN_F32, 1, &count, weight, false)};
      ir_node *m = lw_node_n(g, n, "tenon:NGrams", 4, in, 1);
      ir_attr_int(m, "width", v.width);
      ir_attr_int(m, "skips", size == 1 ? 0 : v.skips);
      ir_attr_int(m, "once", v.mode == 1);
      ir_infer(ctx, m);
      sum = sum ? lw_op2(g, n, "Add", sum, m->out[0]) : m->out[0];
    }
    first += count;
  }
  if (!sum) sum = lw_op2(g, n, "Expand", ir_graph_scalar(g, NULL, TN_F32, 0), ir_graph_ints(g, NULL, 2, (int64_t[]){rows, v.width}));
  lw_replace(g, n, 0, lw_reshape(g, n, sum, (int)rank, rank == 1 ? &v.width : (int64_t[]){rows, v.width}));
}

/* tenon NGrams: X [N, C], pool [P, n], columns [P], weights [P] -> [N, width] */
static void ngrams_infer(tn_ctx *ctx, ir_node *n) {
  lw_set(n, 0, TN_F32, 2, (ix[]){n->in[0]->dims[0], ix_index(ctx, ir_attr_get_int(n, "width", 1))});
}
static void ngrams_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *ib = lw_b(b);
  const ir_value *x = n->in[0], *pool = n->in[1];
  int64_t size = ir_dim(ctx, pool, 1);
  ir_buf *out = lw_out_buf(b, n, 0);
  ix zero = ix_index(ctx, 0), last = ix_max(ctx, zero, ix_addi(ctx, x->dims[1], -1));
  ix at[2] = {ib_loop(ib, "row", x->dims[0]), NULL};
  at[1] = ib_loop(ib, "c", n->out[0]->dims[1]);
  ib_store(ib, out, at, ix_float(ctx, TN_F32, 0));
  ib_end(ib);
  ix p = ib_loop(ib, "p", pool->dims[0]);
  ir_buf *count = ib_local(ib, "count", TN_F32, ix_float(ctx, TN_F32, 0));
  ix step = ix_addi(ctx, ib_loop(ib, "s", ix_index(ctx, ir_attr_get_int(n, "skips", 0) + 1)), 1), i = ib_loop(ib, "i", x->dims[1]);
  ix found = ix_lt(ctx, ix_add(ctx, i, ix_muli(ctx, step, size - 1)), x->dims[1]);
  for (int64_t k = 0; k < size; k++) {
    ix place = ix_min(ctx, last, ix_add(ctx, i, ix_muli(ctx, step, k)));
    ix item = lw_in(b, n, 0, (ix[]){at[0], place}), want = lw_in(b, n, 1, (ix[]){p, ix_index(ctx, k)});
    found = ix_and(ctx, found, ix_eq(ctx, item, want));
  }
  ib_update(ib, count, NULL, IR_ADD, ix_cast(ctx, TN_F32, found));
  ib_end_n(ib, 2);
  ix v = ib_get(ib, count), one = ix_float(ctx, TN_F32, 1);
  if (ir_attr_get_int(n, "once", 0)) v = ix_min(ctx, v, one);
  at[1] = lw_data_index(ctx, lw_in(b, n, 2, &p), n->out[0]->dims[1]);
  ib_update(ib, out, at, IR_ADD, ix_mul(ctx, v, lw_in(b, n, 3, &p)));
  ib_end_n(ib, 2);
}

/* ---- Binarizer, Scaler, ArrayFeatureExtractor ---- */

static void binarizer_infer(tn_ctx *ctx, ir_node *n) {
  if (n->in[0]->dtype == TN_BOOL) lw_bad(ctx, n, "an input of type bool");
  lw_set_like(n, 0, n->in[0]->dtype, n->in[0]);
}
static ix binarizer_value(lw_build *b, ir_node *n, int out, const ix *index) {
  tn_ctx *ctx = lw_ctx(b);
  ix x = lw_in(b, n, 0, index), v = ir_is_float((tn_dtype)x->dtype) ? x : ix_cast(ctx, TN_F64, x);
  ix above = ix_lt(ctx, ix_float(ctx, (tn_dtype)v->dtype, (float)ir_attr_get_float(n, "threshold", 0)), v);
  return ix_cast(ctx, n->out[0]->dtype, above);
}

static const ir_attr *features(tn_ctx *ctx, const ir_node *n, const char *name) {
  const ir_attr *a = ir_attr_find(n, name);
  const ir_value *x = n->in[0];
  if (!a || a->kind != IR_ATTR_FLOATS || a->n < 1) return NULL;
  if (a->n != 1 && (x->rank < 1 || !ix_is_int(x->dims[x->rank - 1], a->n))) lw_bad(ctx, n, "%d entries of '%s'", a->n, name);
  return a;
}
static void scaler_infer(tn_ctx *ctx, ir_node *n) {
  if (n->in[0]->dtype == TN_BOOL) lw_bad(ctx, n, "an input of type bool");
  features(ctx, n, "offset");
  features(ctx, n, "scale");
  lw_set_like(n, 0, TN_F32, n->in[0]);
}
static void scaler_expand(ir_graph *g, ir_node *n) {
  static const char *const names[] = {"offset", "scale"}, *const ops[] = {"Sub", "Mul"};
  ir_value *v = lw_cast_node(g, n, n->in[0], TN_F32);
  for (int i = 0; i < 2; i++) {
    const ir_attr *a = features(g->ctx, n, names[i]);
    if (!a) continue;
    float *f = IR_NEW_ARRAY(g->ctx, float, a->n);
    for (int k = 0; k < a->n; k++) f[k] = (float)a->floats[k];
    v = lw_op2(g, n, ops[i], v, ir_graph_const(g, NULL, TN_F32, a->n == 1 ? 0 : 1, (int64_t[]){a->n}, f, false));
  }
  lw_replace(g, n, 0, lw_op1(g, n, "Identity", v));
}

static void extractor_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0], *y = n->in[1];
  lw_need_integer(ctx, n, 1);
  if (x->rank < 1) lw_bad(ctx, n, "the input has rank 0");
  ix count = ix_index(ctx, 1), dims[IR_MAX_RANK] = {ix_index(ctx, 1)};
  for (int i = 0; i < y->rank; i++) count = ix_mul(ctx, count, y->dims[i]);
  int rank = x->rank == 1 ? 2 : x->rank; /* a vector counts as one row */
  for (int i = 0; i < x->rank - 1; i++) dims[i] = x->dims[i];
  dims[rank - 1] = count;
  lw_set(n, 0, x->dtype, rank, dims);
}
static void extractor_expand(ir_graph *g, ir_node *n) {
  ir_value *x = n->in[0], *at = lw_reshape(g, n, n->in[1], 1, (int64_t[]){ir_value_elements(g->ctx, n->in[1])});
  ir_value *v = lw_op2_int(g, n, "Gather", x, at, "axis", x->rank - 1);
  if (x->rank == 1) v = lw_reshape(g, n, v, 2, (int64_t[]){1, ir_dim(g->ctx, v, 0)});
  lw_replace(g, n, 0, v);
}

#define ML "ai.onnx.ml"
const ir_op lw_ops_ml[] = {
    {.name = "TfIdfVectorizer", .kind = IR_OP_COMPOSITE, .since = 9, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
     .attrs = "max_gram_length:i max_skip_count:i min_gram_length:i mode:s ngram_counts:I ngram_indexes:I pool_int64s:I pool_strings:S weights:F", .infer = tfidf_infer, .expand = tfidf_expand},
    {.name = "NGrams", .domain = "tenon", .kind = IR_OP_KERNEL, .since = 1, .min_in = 4, .max_in = 4, .min_out = 1, .max_out = 1, .attrs = "once:i skips:i width:i", .infer = ngrams_infer, .build = ngrams_build},
    {.name = "Binarizer", .domain = ML, .kind = IR_OP_ELEMENTWISE, .since = 1, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .attrs = "threshold:f", .infer = binarizer_infer, .value = binarizer_value},
    {.name = "Scaler", .domain = ML, .kind = IR_OP_COMPOSITE, .since = 1, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .attrs = "offset:F scale:F", .infer = scaler_infer, .expand = scaler_expand},
    {.name = "ArrayFeatureExtractor", .domain = ML, .kind = IR_OP_COMPOSITE, .since = 1, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1, .infer = extractor_infer, .expand = extractor_expand},
    {0}};
