/* ONNX models: good ones and every kind of bad one. */
#include "frontend/onnx_model.h"
#include "tests/reader_help.h"

/* ---- good models ---- */

#define ON(name) CORPUS "onnx/" name

static float f32_at(const fe_onnx_tensor *t, int i) {
  float x;
  memcpy(&x, (const char *)t->data + 4 * i, 4);
  return x;
}

static void plain(tn_ctx *ctx, void *arg) {
  const fe_onnx *m = fe_onnx_load(ctx, ON("plain.onnx"));
  cr_assert_eq(m->ir_version, 10);
  cr_assert_str_eq(m->producer, "make_onnx_cases");
  cr_assert_eq(m->n_opset, 2);
  cr_assert_eq(fe_onnx_opset_version(m->opset, m->n_opset, ""), 21);
  cr_assert_eq(fe_onnx_opset_version(m->opset, m->n_opset, "ai.onnx"), 21);
  cr_assert_eq(fe_onnx_opset_version(m->opset, m->n_opset, "local"), 1);
  cr_assert_eq(fe_onnx_opset_version(m->opset, m->n_opset, "other"), 0);
  cr_assert_eq(m->n_meta, 2);
  cr_assert_str_eq(m->meta[0].key, "author");
  cr_assert_str_eq(m->meta[0].value, "nobody");
  const fe_onnx_graph *g = m->graph;
  cr_assert_str_eq(g->name, "plain");
  cr_assert(g->n_node == 1 && g->n_init == 2 && g->n_in == 1 && g->n_out == 1 && g->n_value == 1);
  const fe_onnx_node *n = &g->node[0];
  cr_assert_str_eq(n->op, "Gemm");
  cr_assert(n->n_in == 3 && n->n_out == 1);
  cr_assert_eq(n->in[1], g->init[0].name); /* interned */
  cr_assert_eq(fe_onnx_float(ctx, n, "alpha", 1), 0.5f);
  cr_assert_eq(fe_onnx_float(ctx, n, "beta", 1), 1);
  cr_assert_eq(fe_onnx_int(ctx, n, "transB", 0), 1);
  cr_assert(fe_onnx_has(n, "transB") && !fe_onnx_has(n, "transA"));
  cr_assert_str_eq(fe_onnx_where(ctx, m, n), ON("plain.onnx") ": node 'fc' (Gemm)");
  const fe_onnx_tensor *w = &g->init[0];
  cr_assert(w->rank == 2 && w->dims[0] == 2 && w->dims[1] == 3 && w->count == 6 && w->bytes == 24);
  cr_assert(w->dtype == TN_F32 && w->elem == FE_ONNX_FLOAT && !w->external);
  for (int i = 0; i < 6; i++) cr_assert_eq(f32_at(w, i), (float)(i + 1));
  const fe_onnx_type *x = &g->in[0].type;
  cr_assert(x->kind == FE_ONNX_TENSOR && x->dtype == TN_F32 && x->has_shape && x->rank == 2);
  cr_assert(x->dims[0].value == -1 && x->dims[1].value == 3);
  cr_assert_str_eq(x->dims[0].param, "N");
  cr_assert_str_eq(x->dims[1].param, "");
  cr_assert(g->out[0].type.kind == FE_ONNX_TENSOR && !g->out[0].type.has_shape);
  cr_assert_eq(g->value[0].type.dtype, TN_F16);
}

static const fe_onnx_tensor *init_named(const fe_onnx_graph *g, const char *name) {
  for (int i = 0; i < g->n_init; i++)
    if (strcmp(g->init[i].name, name) == 0) return &g->init[i];
  cr_assert_fail("%s", name);
  return NULL;
}

static void types(tn_ctx *ctx, void *arg) {
  const fe_onnx_graph *g = fe_onnx_load(ctx, ON("types.onnx"))->graph;
  static const int elems[] = {1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13};
  for (int i = 0; i < IR_COUNT(elems); i++) {
    const fe_onnx_tensor *raw = init_named(g, ir_format(ctx, "raw%d", elems[i]));
    const fe_onnx_tensor *typed = init_named(g, ir_format(ctx, "typed%d", elems[i]));
    cr_assert(raw->elem == elems[i] && typed->elem == elems[i] && raw->dtype == fe_onnx_dtype(elems[i]));
    cr_assert_eq(fe_onnx_from_dtype(raw->dtype), elems[i]);
    cr_assert(raw->count == 4 && raw->bytes == 4 * ir_dtype_bytes(raw->dtype) && typed->bytes == raw->bytes);
    cr_assert_eq(memcmp(raw->data, typed->data, raw->bytes), 0, "%s", fe_onnx_elem_name(elems[i]));
    cr_assert_eq(fe_onnx_real_at(ctx, typed, 3), raw->dtype == TN_BOOL ? 1 : 100);
    if (!ir_is_float(raw->dtype)) cr_assert_eq(fe_onnx_int_at(ctx, raw, 1), 1);
  }
  const fe_onnx_tensor *t = init_named(g, "bf16");
  cr_assert(t->dtype == TN_BF16 && fe_onnx_real_at(ctx, t, 0) == 1 && fe_onnx_real_at(ctx, t, 1) == -2);
  t = init_named(g, "text");
  cr_assert(t->dtype == TN_NONE && t->count == 2 && !t->data);
  cr_assert(t->strings[1].n == 12 && memcmp(t->strings[1].s, "two and more", 12) == 0);
  t = init_named(g, "c64");
  cr_assert(t->dtype == TN_NONE && t->bytes == 8 && f32_at(t, 0) == 1 && f32_at(t, 1) == 2);
  t = init_named(g, "i4");
  cr_assert(t->bytes == 2 && ((const uint8_t *)t->data)[0] == 0xe1 && ((const uint8_t *)t->data)[1] == 3);
  t = init_named(g, "f8");
  cr_assert(t->dtype == TN_F8E5M2 && t->bytes == 2 && fe_onnx_real_at(ctx, t, 0) == 1 && fe_onnx_real_at(ctx, t, 1) == 2);
  t = init_named(g, "empty");
  cr_assert(t->count == 0 && t->bytes == 0 && !t->data && t->rank == 2);
  t = init_named(g, "scalar");
  cr_assert(t->rank == 0 && t->count == 1 && fe_onnx_int_at(ctx, t, 0) == -7);
  fe_array a = fe_onnx_array(ctx, t);
  cr_assert(a.dtype == TN_I64 && a.rank == 0 && a.count == 1 && a.bytes == 8);
}

static void attributes(tn_ctx *ctx, void *arg) {
  const fe_onnx *m = fe_onnx_load(ctx, ON("attributes.onnx"));
  const fe_onnx_graph *g = m->graph;
  const fe_onnx_node *n = &g->node[0];
  int k;
  cr_assert_str_eq(n->domain, "local");
  cr_assert_str_eq(n->overload, "v2");
  cr_assert_str_eq(n->in[1], "");
  cr_assert_str_eq(n->out[1], "");
  cr_assert_str_eq(fe_onnx_where(ctx, m, n), ON("attributes.onnx") ": node 'y' (Everything)");
  cr_assert_eq(fe_onnx_float(ctx, n, "f", 0), 1.5f);
  cr_assert_eq(fe_onnx_int(ctx, n, "i", 0), -3);
  cr_assert_str_eq(fe_onnx_string(ctx, n, "s", ""), "text");
  cr_assert_str_eq(fe_onnx_string(ctx, n, "absent", "otherwise"), "otherwise");
  const fe_onnx_tensor *t = fe_onnx_tensor_attr(ctx, n, "t");
  cr_assert(t->count == 2 && fe_onnx_int_at(ctx, t, 1) == 6);
  cr_assert_str_eq(fe_onnx_graph_attr(ctx, n, "g")->name, "then");
  const float *floats = fe_onnx_floats(ctx, n, "floats", &k);
  cr_assert(k == 2 && floats[1] == 2);
  const int64_t *ints = fe_onnx_ints(ctx, n, "ints", &k);
  cr_assert(k == 3 && ints[1] == -1 && ints[2] == 1L << 40);
  cr_assert(!fe_onnx_ints(ctx, n, "none", &k) && k == 0);
  cr_assert(!fe_onnx_ints(ctx, n, "absent", &k) && k == -1);
  const fe_onnx_str *strings = fe_onnx_strings(ctx, n, "strings", &k);
  cr_assert(k == 2 && strings[1].n == 2);
  cr_assert_str_eq(strings[1].s, "bc");
  const fe_onnx_attr *a = fe_onnx_find(n, "tensors");
  cr_assert(a->kind == FE_ATTR_TENSORS && a->n == 2 && fe_onnx_int_at(ctx, &a->tensors[1], 0) == 2);
  a = fe_onnx_find(n, "graphs");
  cr_assert(a->n == 2 && a->graphs[1].n_node == 1);
  a = fe_onnx_find(n, "tp");
  cr_assert(a->kind == FE_ATTR_TYPE_PROTO && a->type->kind == FE_ONNX_TENSOR && a->type->rank == 1);
  a = fe_onnx_find(n, "type_protos");
  cr_assert(a->n == 1 && a->type[0].kind == FE_ONNX_OPTIONAL && a->type[0].of->dtype == TN_I64);
  cr_assert_null(fe_onnx_tensor_attr(ctx, n, "absent"));
  cr_assert_null(fe_onnx_graph_attr(ctx, n, "absent"));
  cr_assert(g->in[1].type.kind == FE_ONNX_SEQUENCE && g->in[1].type.of->kind == FE_ONNX_TENSOR);
  cr_assert(g->in[2].type.kind == FE_ONNX_MAP && g->in[2].type.elem == FE_ONNX_INT64 && g->in[2].type.of);
  cr_assert(g->in[3].type.kind == FE_ONNX_SPARSE && g->in[3].type.dims[1].value == -1);
  cr_assert_eq(g->n_sparse, 1);
  cr_assert_str_eq(g->sparse[0], "sp");
}

static void wrong_kind(tn_ctx *ctx, void *arg) {
  fe_onnx_int(ctx, &fe_onnx_load(ctx, ON("attributes.onnx"))->graph->node[0], "s", 0);
}

static void function(tn_ctx *ctx, void *arg) {
  const fe_onnx *m = fe_onnx_load(ctx, ON("function.onnx"));
  cr_assert_eq(m->n_function, 1);
  const fe_onnx_function *f = &m->function[0];
  cr_assert_str_eq(f->name, "Bend");
  cr_assert_str_eq(f->domain, "local");
  cr_assert(f->n_in == 1 && f->n_out == 1 && f->n_attr == 1 && f->n_default == 1 && f->n_node == 1 && f->n_opset == 1);
  cr_assert_str_eq(f->attr[0], "must");
  cr_assert_str_eq(f->defaults[0].name, "slope");
  cr_assert_eq(f->defaults[0].f, 0.25f);
  const fe_onnx_attr *a = fe_onnx_find(&f->node[0], "alpha");
  cr_assert_str_eq(a->ref, "slope");
  cr_assert_eq(a->kind, FE_ATTR_FLOAT);
  fe_onnx_float(ctx, &f->node[0], "alpha", 0); /* throws: nobody replaced it */
}

static void external(tn_ctx *ctx, void *arg) {
  const fe_onnx_tensor *t = &fe_onnx_load(ctx, ON("external.onnx"))->graph->init[0];
  cr_assert(t->external && t->count == 4 && t->bytes == 16);
  for (int i = 0; i < 4; i++) cr_assert_eq(f32_at(t, i), (float)i);
}

static void nested(tn_ctx *ctx, void *arg) {
  const fe_onnx_graph *g = fe_onnx_load(ctx, ON("nested.onnx"))->graph;
  for (int i = 3; i >= 0; i--) {
    cr_assert_str_eq(g->name, ir_format(ctx, "level%d", i));
    g = fe_onnx_graph_attr(ctx, &g->node[0], "then_branch");
  }
  cr_assert_str_eq(g->name, "then");
}

static void tensor_file(tn_ctx *ctx, void *arg) {
  const fe_onnx_tensor *t = fe_onnx_tensor_load(ctx, ON("input_0.pb"), arg);
  cr_assert_str_eq(t->name, "x");
  cr_assert(t->rank == 2 && f32_at(t, 0) == 1.5f && f32_at(t, 1) == -2);
}

Test(onnx, plain) { expect_status(plain, NULL, TN_OK, NULL); }
Test(onnx, types) { expect_status(types, NULL, TN_OK, NULL); }
Test(onnx, attributes) { expect_status(attributes, NULL, TN_OK, NULL); }
Test(onnx, wrong_kind) { expect_status(wrong_kind, NULL, TN_EINPUT, "attribute 's' is a string, not an integer"); }
Test(onnx, function) { expect_status(function, NULL, TN_EINPUT, "refers to attribute 'slope'"); }
Test(onnx, external) { expect_status(external, NULL, TN_OK, NULL); }
Test(onnx, nested) { expect_status(nested, NULL, TN_OK, NULL); }
Test(onnx, tensor_file) {
  expect_status(tensor_file, NULL, TN_OK, NULL);
  expect_status(tensor_file, &(fe_onnx_type){.kind = FE_ONNX_TENSOR}, TN_OK, NULL);
  expect_status(tensor_file, &(fe_onnx_type){.kind = FE_ONNX_SEQUENCE}, TN_EUNSUPPORTED, "a sequence");
}

/* ---- bad models ---- */

/* A writer of wire format: put(&b, "1s", text) and so on would hide what is written, so the
 * cases spell out fields by these. */
typedef struct out {
  uint8_t b[4096];
  size_t n;
} out;

static void put_varint(out *o, uint64_t v) {
  for (; v >= 128; v >>= 7) o->b[o->n++] = (uint8_t)(v | 128);
  o->b[o->n++] = (uint8_t)v;
}
static void put_int(out *o, int field, int64_t v) { put_varint(o, (uint64_t)field << 3), put_varint(o, (uint64_t)v); }
static void put_bytes(out *o, int field, const void *p, size_t n) {
  put_varint(o, (uint64_t)field << 3 | 2), put_varint(o, n);
  memcpy(o->b + o->n, p, n);
  o->n += n;
}
static void put_str(out *o, int field, const char *s) { put_bytes(o, field, s, strlen(s)); }
static void put_msg(out *o, int field, const out *m) { put_bytes(o, field, m->b, m->n); }
static void put_pair(out *o, int field, const char *key, const char *value) {
  out p = {.n = 0};
  put_str(&p, 1, key), put_str(&p, 2, value);
  put_msg(o, field, &p);
}

static out in_graph(int field, const out *m) {
  out g = {.n = 0}, model = {.n = 0};
  put_str(&g, 2, "main");
  put_msg(&g, field, m);
  put_int(&model, 1, 8);
  put_msg(&model, 7, &g);
  return model;
}

static const char *bad_folder;

static void parse(tn_ctx *ctx, void *arg) {
  blob *b = arg;
  fe_onnx_parse(ctx, b->data, b->n, "bad.onnx", bad_folder);
}

static void expect_bad(const out *o, tn_status status, const char *part) {
  expect_status(parse, &(blob){o->b, o->n}, status, part);
}

static void expect_tensor(const out *t, tn_status status, const char *part) {
  out m = in_graph(5, t);
  if (part) expect_status(parse, &(blob){m.b, m.n}, status, "bad.onnx: graph 'main': initializer 'w': ");
  expect_status(parse, &(blob){m.b, m.n}, status, part);
}

static out tensor(int elem, int n_dims, const int64_t *dims) {
  out t = {.n = 0};
  for (int i = 0; i < n_dims; i++) put_int(&t, 1, dims[i]);
  if (elem >= 0) put_int(&t, 2, elem);
  put_str(&t, 8, "w");
  return t;
}
#define TENSOR(elem, ...) tensor(elem, sizeof((int64_t[]){__VA_ARGS__}) / 8, (int64_t[]){__VA_ARGS__})

Test(onnx, bad_tensors) {
  static const char zeros[64];
  out t = TENSOR(1, 2, 2);
  expect_tensor(&t, TN_EINPUT, "has 0 numbers, FLOAT of [2, 2] needs 4");
  put_bytes(&t, 9, zeros, 15);
  expect_tensor(&t, TN_EINPUT, "raw data has 15 bytes, FLOAT of [2, 2] needs 16");
  put_bytes(&t, 9, zeros, 16); /* the last one wins */
  expect_tensor(&t, TN_OK, NULL);
  put_bytes(&t, 4, zeros, 16);
  expect_tensor(&t, TN_EINPUT, "both raw and typed");
  t = TENSOR(1, 2, 2);
  put_bytes(&t, 4, zeros, 15);
  expect_tensor(&t, TN_EINPUT, "no multiple of 4");
  t = TENSOR(1, 4);
  put_bytes(&t, 4, zeros, 8);
  put_bytes(&t, 4, zeros, 8); /* two packed pieces */
  expect_tensor(&t, TN_OK, NULL);
  t = TENSOR(7, 1);
  put_bytes(&t, 4, zeros, 4);
  expect_tensor(&t, TN_EINPUT, "INT64 data in field 4");
  t = TENSOR(6, 1);
  put_str(&t, 5, "\x80");
  expect_tensor(&t, TN_EINPUT, "inside a number");
  t = TENSOR(6, 1);
  put_bytes(&t, 5, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 10);
  expect_tensor(&t, TN_EINPUT, "64 bits");
  t = TENSOR(-1, 1);
  expect_tensor(&t, TN_EINPUT, "element type 0");
  t = TENSOR(99, 1);
  expect_tensor(&t, TN_EINPUT, "element type 99");
  t = TENSOR(1, -1);
  expect_tensor(&t, TN_EINPUT, "negative or too large");
  t = TENSOR(1, 1L << 31, 1L << 31, 4);
  expect_tensor(&t, TN_EINPUT, "too large");
  t = TENSOR(1, INT64_MAX);
  expect_tensor(&t, TN_EINPUT, "too large");
  t = TENSOR(1, 1L << 40);
  expect_tensor(&t, TN_EINPUT, "needs 1099511627776");
  t = TENSOR(1, INT64_MAX, 0);
  expect_tensor(&t, TN_OK, NULL);
  t = TENSOR(8, 2);
  put_str(&t, 6, "only one");
  expect_tensor(&t, TN_EINPUT, "has 1 strings, STRING of [2] needs 2");
  t = TENSOR(8, 1);
  put_str(&t, 9, "raw");
  expect_tensor(&t, TN_EINPUT, "strings cannot be raw");
  t = TENSOR(1, 1);
  put_str(&t, 3, "");
  expect_tensor(&t, TN_EUNSUPPORTED, "segments");
  t = TENSOR(27, 1);
  put_int(&t, 5, 1);
  expect_tensor(&t, TN_EUNSUPPORTED, "FLOAT6E2M3");
  t = TENSOR(1, 1);
  put_int(&t, 14, 2);
  expect_tensor(&t, TN_EINPUT, "data location 2");
  t = TENSOR(1, 1);
  put_int(&t, 4, 1); /* a varint where a float should be */
  expect_tensor(&t, TN_EINPUT, "field 4 is no list of numbers");
}

static void bools(tn_ctx *ctx, void *arg) {
  out t = TENSOR(9, 3);
  if (arg) put_bytes(&t, 9, "\x00\x02\xff", 3);
  else put_bytes(&t, 5, "\x00\x80\x02\x01", 4); /* 0, 256, 1 */
  const fe_onnx_tensor *x = fe_onnx_tensor_parse(ctx, t.b, t.n, "b.pb", NULL);
  cr_assert_eq(memcmp(x->data, "\x00\x01\x01", 3), 0);
}

Test(onnx, bools) {
  expect_status(bools, NULL, TN_OK, NULL);
  expect_status(bools, "raw", TN_OK, NULL);
}

static out external_tensor(const char *location, const char *offset, const char *length) {
  out t = TENSOR(1, 2);
  if (location) put_pair(&t, 13, "location", location);
  if (offset) put_pair(&t, 13, "offset", offset);
  if (length) put_pair(&t, 13, "length", length);
  put_pair(&t, 13, "checksum", "ignored");
  put_int(&t, 14, 1);
  return t;
}

Test(onnx, bad_external) {
  char *dir = make_folder();
  write_bytes(in_folder(dir, "data"), "0123456789", 10);
  cr_assert_eq(symlink("/etc/passwd", in_folder(dir, "link")), 0);
  static const struct {
    const char *location, *offset, *length;
    tn_status status;
    const char *message;
  } cases[] = {
      {"data", "2", "8", TN_OK, NULL},
      {"data", NULL, NULL, TN_OK, NULL},
      {"data", "3", NULL, TN_EINPUT, "'data' has 10 bytes, wanted are 8 from 3"},
      {"data", "9223372036854775808", "8", TN_EINPUT, "no valid number"},
      {"data", "9000000000000000000", "8", TN_EINPUT, "wanted are 8 from 9000000000000000000"},
      {"data", "-1", "8", TN_EINPUT, "offset '-1' is no valid number"},
      {"data", "0x1", "8", TN_EINPUT, "no valid number"},
      {"data", "", "8", TN_EINPUT, "offset is empty"},
      {"data", "0", "9", TN_EINPUT, "external data has 9 bytes, FLOAT of [2] needs 8"},
      {NULL, "0", "8", TN_EINPUT, "location is empty"},
      {"none", "0", "8", TN_ERESOURCE, "initializer 'w': external data 'none': cannot be opened"},
      {"/etc/passwd", "0", "8", TN_EINPUT, "absolute"},
      {"../data", "0", "8", TN_EINPUT, "'..'"},
      {"link", "0", "8", TN_EINPUT, "symbolic link"},
      {".", "0", "8", TN_EINPUT, NULL},
  };
  bad_folder = dir;
  for (int i = 0; i < IR_COUNT(cases); i++) {
    out t = external_tensor(cases[i].location, cases[i].offset, cases[i].length);
    expect_tensor(&t, cases[i].status, cases[i].message);
  }
  out t = external_tensor("data", "0", "8");
  put_bytes(&t, 9, "12345678", 8);
  expect_tensor(&t, TN_EINPUT, "beside external data");
  bad_folder = NULL;
  t = external_tensor("data", "0", "8");
  expect_tensor(&t, TN_EINPUT, "without a folder");
  drop_folder(dir);
}

Test(onnx, bad_structure) {
  out o = {.n = 0};
  expect_bad(&o, TN_EINPUT, "bad.onnx: is empty");
  put_int(&o, 1, 8);
  expect_bad(&o, TN_EINPUT, "bad.onnx: holds no graph");
  put_str(&o, 7, "");
  expect_bad(&o, TN_OK, NULL);
  put_int(&o, 1000, 8);
  put_str(&o, 999, "unknown fields are skipped");
  expect_bad(&o, TN_OK, NULL);
  put_str(&o, 7, "");
  expect_bad(&o, TN_EINPUT, "2 fields 'graph'");
  o.n = 0;
  put_int(&o, 7, 1);
  expect_bad(&o, TN_EINPUT, "field 7 is no message");
  expect_status(parse, &(blob){BYTES("version https://git-lfs.github.com/spec/v1\noid ")}, TN_EINPUT, "not fetched");
  expect_status(parse, &(blob){BYTES("<html><body>Not found</body></html>")}, TN_EINPUT, "bad.onnx: ");

  out n = {.n = 0};
  put_str(&n, 3, "n1");
  o = in_graph(1, &n);
  expect_bad(&o, TN_EINPUT, "graph 'main': node 'n1': has no op_type");
  put_str(&n, 4, "Conv");
  put_int(&n, 1, 5);
  o = in_graph(1, &n);
  expect_bad(&o, TN_EINPUT, "node 'n1' (Conv): field 1 is no string");
  n.n = 0;
  put_str(&n, 4, "Conv");
  put_bytes(&n, 1, "a\0b", 3);
  o = in_graph(1, &n);
  expect_bad(&o, TN_EINPUT, "zero byte");

  out v = {.n = 0}, type = {.n = 0};
  put_str(&v, 1, "x");
  put_str(&type, 1, "");
  put_str(&type, 4, "");
  put_msg(&v, 2, &type);
  o = in_graph(11, &v);
  expect_bad(&o, TN_EINPUT, "input 'x': a type is given twice");
}

static out attribute(int kind, const char *name) {
  out a = {.n = 0};
  if (name) put_str(&a, 1, name);
  if (kind) put_int(&a, 20, kind);
  return a;
}

static out in_node(const out *a) {
  out n = {.n = 0};
  put_str(&n, 4, "Op");
  put_msg(&n, 5, a);
  return in_graph(1, &n);
}

static void guessed(tn_ctx *ctx, void *arg) {
  blob *b = arg;
  const fe_onnx_node *n = fe_onnx_parse(ctx, b->data, b->n, "old.onnx", NULL)->graph->node;
  cr_assert_eq(fe_onnx_int(ctx, n, "a", 0), 7);
}

Test(onnx, bad_attributes) {
  out a = attribute(2, NULL), o = in_node(&a);
  expect_bad(&o, TN_EINPUT, "has no name");
  a = attribute(44, "a"), o = in_node(&a);
  expect_bad(&o, TN_EINPUT, "attribute type 44");
  a = attribute(4, "a"), o = in_node(&a);
  expect_bad(&o, TN_EINPUT, "node (Op): attribute 'a': has 0 fields 't', needs one");
  a = attribute(5, "a");
  put_str(&a, 6, ""), put_str(&a, 6, "");
  o = in_node(&a);
  expect_bad(&o, TN_EINPUT, "has 2 fields 'g'");
  a = attribute(1, "a");
  put_int(&a, 2, 1);
  o = in_node(&a);
  expect_bad(&o, TN_EINPUT, "field 2 is no float");
  a = attribute(0, "a");
  put_int(&a, 3, 7); /* files before IR version 2 give no type */
  o = in_node(&a);
  expect_status(guessed, &(blob){o.b, o.n}, TN_OK, NULL);
}

/* Sequences of sequences ... of tensors, and If in If in If: the limit must hold before the stack. */
Test(onnx, deep) {
  out v = {.n = 0}, type = {.n = 0}, o;
  for (int i = 0; i < 200; i++) {
    out s = {.n = 0}, outer = {.n = 0};
    put_msg(&s, 1, &type);
    put_msg(&outer, 4, &s);
    type = outer;
  }
  put_msg(&v, 2, &type);
  o = in_graph(11, &v);
  expect_bad(&o, TN_EINPUT, "nested more than 100 deep");
  out g = {.n = 0};
  for (int i = 0; i < 60; i++) {
    out a = attribute(5, "g"), n = {.n = 0}, outer = {.n = 0};
    put_msg(&a, 6, &g);
    put_str(&n, 4, "If");
    put_msg(&n, 5, &a);
    put_msg(&outer, 1, &n);
    g = outer;
  }
  out m = {.n = 0};
  put_msg(&m, 7, &g);
  expect_bad(&m, TN_EINPUT, "nested more than 100 deep");
}

static void parse_touching(tn_ctx *ctx, void *arg) {
  blob *b = arg;
  const fe_onnx *m = fe_onnx_parse(ctx, b->data, b->n, "mauled.onnx", CORPUS "onnx");
  cr_assert_leq(ir_bytes(ctx), 64 * b->n + (64 << 10));
  for (int i = 0; i < m->graph->n_init; i++) {
    const fe_onnx_tensor *t = &m->graph->init[i];
    for (int64_t k = 0; t->dtype != TN_NONE && k < t->count; k++) (void)fe_onnx_real_at(ctx, t, k);
  }
}

Test(onnx, mauled) {
  static const char *const names[] = {"plain", "types", "attributes", "function", "external", "nested"};
  char path[1024];
  for (int i = 0; i < IR_COUNT(names); i++) {
    snprintf(path, sizeof path, CORPUS "onnx/%s.onnx", names[i]);
    cr_assert_gt(maul(path, parse_touching), 100);
  }
}

static void load(tn_ctx *ctx, void *path) { fe_onnx_load(ctx, path); }

Test(onnx, starved) {
  starve(load, (void *)ON("attributes.onnx"));
  starve(load, (void *)ON("external.onnx"));
  expect_status(load, (void *)ON("none.onnx"), TN_ERESOURCE, "none.onnx: cannot be opened");
}
