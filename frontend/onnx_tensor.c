/* onnx_tensor.c — element types and TensorProto: raw, typed and external data. */
#include "frontend/onnx_read.h"
#include "ir/interp.h"
#include <limits.h>
#include <string.h>

/* ---- element types ---- */

/* data: the typed field that may hold the type's elements instead of raw_data. */
enum { FLOAT_DATA = 4, INT32_DATA = 5, STRING_DATA = 6, INT64_DATA = 7, DOUBLE_DATA = 10, UINT64_DATA = 11, RAW_DATA = 9 };

static const struct {
  const char *name;
  tn_dtype dtype;
  uint8_t bits, data;
} elems[FE_ONNX_ELEM_COUNT] = {
    [FE_ONNX_UNDEFINED] = {"UNDEFINED", TN_NONE, 0, 0},
    [FE_ONNX_FLOAT] = {"FLOAT", TN_F32, 32, FLOAT_DATA},
    [FE_ONNX_UINT8] = {"UINT8", TN_U8, 8, INT32_DATA},
    [FE_ONNX_INT8] = {"INT8", TN_I8, 8, INT32_DATA},
    [FE_ONNX_UINT16] = {"UINT16", TN_U16, 16, INT32_DATA},
    [FE_ONNX_INT16] = {"INT16", TN_I16, 16, INT32_DATA},
    [FE_ONNX_INT32] = {"INT32", TN_I32, 32, INT32_DATA},
    [FE_ONNX_INT64] = {"INT64", TN_I64, 64, INT64_DATA},
    [FE_ONNX_STRING] = {"STRING", TN_NONE, 0, STRING_DATA},
    [FE_ONNX_BOOL] = {"BOOL", TN_BOOL, 8, INT32_DATA},
    [FE_ONNX_FLOAT16] = {"FLOAT16", TN_F16, 16, INT32_DATA},
    [FE_ONNX_DOUBLE] = {"DOUBLE", TN_F64, 64, DOUBLE_DATA},
    [FE_ONNX_UINT32] = {"UINT32", TN_U32, 32, UINT64_DATA},
    [FE_ONNX_UINT64] = {"UINT64", TN_U64, 64, UINT64_DATA},
    [FE_ONNX_COMPLEX64] = {"COMPLEX64", TN_NONE, 64, FLOAT_DATA},
    [FE_ONNX_COMPLEX128] = {"COMPLEX128", TN_NONE, 128, DOUBLE_DATA},
    [FE_ONNX_BFLOAT16] = {"BFLOAT16", TN_BF16, 16, INT32_DATA},
    [FE_ONNX_FLOAT8E4M3FN] = {"FLOAT8E4M3FN", TN_F8E4M3FN, 8, INT32_DATA},
    [FE_ONNX_FLOAT8E4M3FNUZ] = {"FLOAT8E4M3FNUZ", TN_F8E4M3FNUZ, 8, INT32_DATA},
    [FE_ONNX_FLOAT8E5M2] = {"FLOAT8E5M2", TN_F8E5M2, 8, INT32_DATA},
    [FE_ONNX_FLOAT8E5M2FNUZ] = {"FLOAT8E5M2FNUZ", TN_F8E5M2FNUZ, 8, INT32_DATA},
    [FE_ONNX_UINT4] = {"UINT4", TN_NONE, 4, INT32_DATA},
    [FE_ONNX_INT4] = {"INT4", TN_NONE, 4, INT32_DATA},
    [FE_ONNX_FLOAT4E2M1] = {"FLOAT4E2M1", TN_F4E2M1, 4, INT32_DATA},
    [FE_ONNX_FLOAT8E8M0] = {"FLOAT8E8M0", TN_NONE, 8, INT32_DATA},
    [FE_ONNX_UINT2] = {"UINT2", TN_NONE, 2, INT32_DATA},
    [FE_ONNX_INT2] = {"INT2", TN_NONE, 2, INT32_DATA},
    [FE_ONNX_FLOAT6E2M3] = {"FLOAT6E2M3", TN_NONE, 6, INT32_DATA},
    [FE_ONNX_FLOAT6E3M2] = {"FLOAT6E3M2", TN_NONE, 6, INT32_DATA},
};

tn_dtype fe_onnx_dtype(int elem) { return elem > 0 && elem < FE_ONNX_ELEM_COUNT ? elems[elem].dtype : TN_NONE; }
const char *fe_onnx_elem_name(int elem) { return elem >= 0 && elem < FE_ONNX_ELEM_COUNT ? elems[elem].name : "?"; }

int fe_onnx_from_dtype(tn_dtype t) {
  for (int e = 1; t != TN_NONE && e < FE_ONNX_ELEM_COUNT; e++)
    if (elems[e].dtype == t) return e;
  return FE_ONNX_UNDEFINED;
}

/* ---- reading ---- */

/* "FLOAT of [2, 3]"; called for messages only. */
static const char *shape_text(const fe_wire *w, const fe_onnx_tensor *x) {
  ir_text t = {.ctx = w->ctx};
  ir_put(&t, "%s of [", fe_onnx_elem_name(x->elem));
  for (int i = 0; i < x->rank && i < 16; i++) ir_put(&t, "%s%lld", i ? ", " : "", (long long)x->dims[i]);
  ir_put(&t, "%s]", x->rank > 16 ? ", ..." : "");
  return ir_text_str(&t);
}

static const fe_map *external_map(fe_wire *w, const char *location) {
  fe_onnx_source *src = w->user;
  if (!src || !src->folder)
    fe_wire_fail(w, w->begin, TN_EINPUT, "its data lies in another file, but the model came without a folder");
  /* newest first: tensors of one file follow each other */
  for (int i = src->n_location; i-- > 0;)
    if (src->location[i] == location) return src->map[i];
  const fe_map *m = fe_map_inside(w->ctx, src->folder, location, fe_wire_place(w));
  IR_PUSH(w->ctx, src->location, src->n_location, location);
  IR_PUSH(w->ctx, src->map, src->n_map, m);
  return m;
}

/* A non-negative decimal number that fits int64. */
static uint64_t decimal(fe_wire *w, const char *key, const char *s) {
  uint64_t v = 0;
  for (const char *p = s; *p; p++) {
    if (*p < '0' || *p > '9' || v > (INT64_MAX - 9) / 10)
      fe_wire_fail(w, w->begin, TN_EINPUT, "external data: %s '%s' is no valid number", key, fe_show(w->ctx, s, strlen(s)));
    v = v * 10 + (uint64_t)(*p - '0');
  }
  if (!*s) fe_wire_fail(w, w->begin, TN_EINPUT, "external data: %s is empty", key);
  return v;
}

static void read_external(fe_wire *w, fe_onnx_tensor *t) {
  const char *location = "";
  uint64_t offset = 0, length = t->bytes;
  fe_field f;
  fe_wire_rewind(w);
  while (fe_wire_next(w, &f)) {
    if (f.number != 13) continue;
    fe_wire e = fe_wire_enter(w, &f, NULL, 0, 0);
    fe_onnx_pair pair = fe_onnx_read_pair(&e);
    if (strcmp(pair.key, "location") == 0) location = pair.value;
    else if (strcmp(pair.key, "offset") == 0) offset = decimal(w, "offset", pair.value);
    else if (strcmp(pair.key, "length") == 0) length = decimal(w, "length", pair.value);
  }
  if (t->elem == FE_ONNX_STRING) fe_wire_fail(w, w->begin, TN_EINPUT, "strings cannot lie in another file");
  if (length != t->bytes)
    fe_wire_fail(w, w->begin, TN_EINPUT, "external data has %llu bytes, %s needs %zu", (unsigned long long)length,
                 shape_text(w, t), t->bytes);
  t->external = true;
  const fe_map *m = external_map(w, location);
  if (offset > m->size || length > m->size - offset)
    fe_wire_fail(w, w->begin, TN_EINPUT, "external data '%s' has %zu bytes, wanted are %llu from %llu",
                 fe_show(w->ctx, location, strlen(location)), m->size, (unsigned long long)length,
                 (unsigned long long)offset);
  if (length) t->data = (const char *)m->data + offset;
}

static void read_raw(fe_wire *w, fe_onnx_tensor *t) {
  const uint8_t *raw = NULL;
  size_t n = 0;
  fe_field f;
  fe_wire_rewind(w);
  while (fe_wire_next(w, &f))
    if (f.number == RAW_DATA) fe_wire_bytes(w, &f, &raw, &n); /* the last one wins */
  if (t->elem == FE_ONNX_STRING) fe_wire_fail(w, w->begin, TN_EINPUT, "strings cannot be raw data");
  if (n != t->bytes)
    fe_wire_fail(w, w->begin, TN_EINPUT, "raw data has %zu bytes, %s needs %zu", n, shape_text(w, t), t->bytes);
  if (n) t->data = raw;
}

static void read_strings(fe_wire *w, fe_onnx_tensor *t, int found) {
  if (found != t->count)
    fe_wire_fail(w, w->begin, TN_EINPUT, "has %d strings, %s needs %lld", found, shape_text(w, t), (long long)t->count);
  fe_onnx_str *s = IR_NEW_ARRAY(w->ctx, fe_onnx_str, found);
  fe_field f;
  int i = 0;
  fe_wire_rewind(w);
  while (fe_wire_next(w, &f)) {
    if (f.number != STRING_DATA) continue;
    const uint8_t *data;
    fe_wire_bytes(w, &f, &data, &s[i].n);
    s[i++].s = (const char *)data;
  }
  t->strings = s;
}

static void read_typed(fe_wire *w, fe_onnx_tensor *t) {
  int number = elems[t->elem].data, bits = elems[t->elem].bits;
  int wire = number == FLOAT_DATA ? FE_WIRE_I32 : number == DOUBLE_DATA ? FE_WIRE_I64 : FE_WIRE_VARINT;
  if (bits == 6) fe_wire_fail(w, w->begin, TN_EUNSUPPORTED, "%s as int32_data is not read", fe_onnx_elem_name(t->elem));
  size_t width = number == FLOAT_DATA ? 4 : number == DOUBLE_DATA ? 8 : bits < 8 ? 1 : (size_t)bits / 8;
  size_t wanted = t->bytes / width, found = 0, chunks = 0;
  const uint8_t *chunk = NULL;
  fe_field f;
  fe_wire_rewind(w);
  while (fe_wire_next(w, &f)) {
    if (f.number != (uint32_t)number) continue;
    found += fe_wire_count(w, &f, wire);
    chunks++;
    chunk = f.type == FE_WIRE_LEN ? f.data : NULL;
  }
  if (found != wanted)
    fe_wire_fail(w, w->begin, TN_EINPUT, "has %zu numbers, %s needs %zu", found, shape_text(w, t), wanted);
  if (!found) return;
  if (wire != FE_WIRE_VARINT && chunks == 1 && chunk) { /* a packed list is raw data */
    t->data = chunk;
    return;
  }
  bool is_bool = t->elem == FE_ONNX_BOOL; /* any nonzero int32 is true, also 256 */
  if (is_bool) width = 4;
  char *out = ir_alloc_array(w->ctx, found, width), *p = out;
  fe_wire_rewind(w);
  while (fe_wire_next(w, &f))
    if (f.number == (uint32_t)number) p += width * fe_wire_get(w, &f, wire, width, p);
  if (is_bool)
    for (size_t i = 0; i < found; i++) {
      int32_t v;
      memcpy(&v, out + 4 * i, 4);
      out[i] = v != 0; /* written behind what is read */
    }
  t->data = out;
}

/* Tenon has a byte an element: packed ones, the first in the lowest bits, are taken apart. */
static void unpack(fe_wire *w, fe_onnx_tensor *t) {
  int bits = elems[t->elem].bits, each = 8 / bits;
  const uint8_t *packed = t->data;
  uint8_t *out = ir_alloc(w->ctx, (size_t)t->count);
  for (int64_t i = 0; i < t->count; i++) out[i] = (uint8_t)(packed[i / each] >> i % each * bits & ((1 << bits) - 1));
  t->data = out;
  t->bytes = (size_t)t->count;
}

void fe_onnx_read_tensor(fe_wire *w, fe_onnx_tensor *t) {
  int count[FE_TALLY];
  fe_onnx_tally(w, count);
  *t = (fe_onnx_tensor){.name = ir_intern(w->ctx, ""), .at = (size_t)(w->begin - w->base)};
  fe_field f;
  size_t rank = 0;
  int location = 0;
  while (fe_wire_next(w, &f)) switch (f.number) {
    case 1: rank += fe_wire_count(w, &f, FE_WIRE_VARINT); break;
    case 2: t->elem = fe_wire_int32(w, &f); break;
    case 8: t->name = fe_wire_string(w, &f); break;
    case 14: location = fe_wire_int32(w, &f); break;
    }
  if (t->elem <= 0 || t->elem >= FE_ONNX_ELEM_COUNT)
    fe_wire_fail(w, w->begin, TN_EINPUT, "element type %d is unknown", t->elem);
  if (count[3]) fe_wire_fail(w, w->begin, TN_EUNSUPPORTED, "tensors in segments are not read");
  if (rank > INT_MAX / 2) fe_wire_fail(w, w->begin, TN_EINPUT, "%zu dimensions are too many", rank);
  t->dtype = elems[t->elem].dtype;
  if (rank) {
    int64_t *dims = IR_NEW_ARRAY(w->ctx, int64_t, rank), *d = dims;
    fe_wire_rewind(w);
    while (fe_wire_next(w, &f))
      if (f.number == 1) d += fe_wire_get(w, &f, FE_WIRE_VARINT, 8, d);
    t->dims = dims;
    t->rank = (int)rank;
  }
  int64_t bits;
  if (!fe_dims_count(t->dims, t->rank, &t->count) || !ir_mul_size(t->count, elems[t->elem].bits, &bits) ||
      !ir_add_size(bits, 7, &bits))
    fe_wire_fail(w, w->begin, TN_EINPUT, "%s: dimensions are negative or too large", shape_text(w, t));
  t->bytes = (size_t)bits / 8;

  int typed = 0; /* the typed field that is there */
  static const uint8_t fields[] = {FLOAT_DATA, INT32_DATA, STRING_DATA, INT64_DATA, DOUBLE_DATA, UINT64_DATA};
  for (int i = 0; i < IR_COUNT(fields); i++)
    if (count[fields[i]]) {
      if (fields[i] != elems[t->elem].data)
        fe_wire_fail(w, w->begin, TN_EINPUT, "%s data in field %d, which holds other types", fe_onnx_elem_name(t->elem), fields[i]);
      typed = fields[i];
    }
  if (location == 1) {
    if (typed || count[RAW_DATA]) fe_wire_fail(w, w->begin, TN_EINPUT, "has data of its own beside external data");
    read_external(w, t);
  } else if (location != 0) {
    fe_wire_fail(w, w->begin, TN_EINPUT, "data location %d is unknown", location);
  } else if (count[RAW_DATA]) {
    if (typed) fe_wire_fail(w, w->begin, TN_EINPUT, "has both raw and typed data");
    read_raw(w, t);
  } else if (t->elem == FE_ONNX_STRING) {
    read_strings(w, t, count[STRING_DATA]);
  } else {
    read_typed(w, t);
  }
  if (t->dtype != TN_NONE && elems[t->elem].bits < 8 && t->data) unpack(w, t);
  if (t->elem == FE_ONNX_BOOL && t->data) t->data = fe_clean_bools(w->ctx, t->data, t->bytes);
}

/* ---- tensors in files of their own ---- */

static void check_type(tn_ctx *ctx, const char *name, const fe_onnx_type *type) {
  static const char *const kinds[] = {"nothing", "a tensor", "a sparse tensor", "a sequence", "an optional", "a map", "an opaque value"};
  if (type && type->kind != FE_ONNX_NOTHING && type->kind != FE_ONNX_TENSOR)
    ir_fail(ctx, TN_EUNSUPPORTED, "%s: holds %s; only tensors are read", name, kinds[type->kind]);
}

const fe_onnx_tensor *fe_onnx_tensor_parse(tn_ctx *ctx, const void *bytes, size_t n, const char *name,
                                           const fe_onnx_type *type) {
  check_type(ctx, name, type);
  fe_wire w = fe_wire_open(ctx, name, bytes, n, "tensor");
  w.name_field = 8;
  fe_onnx_tensor *t = IR_NEW(ctx, fe_onnx_tensor);
  fe_onnx_read_tensor(&w, t);
  return t;
}

const fe_onnx_tensor *fe_onnx_tensor_load(tn_ctx *ctx, const char *path, const fe_onnx_type *type) {
  const fe_map *m = fe_map_file(ctx, path);
  fe_onnx_source source = {.folder = fe_path_folder(ctx, path)};
  check_type(ctx, path, type);
  fe_wire w = fe_wire_open(ctx, m->path, m->data, m->size, "tensor");
  w.name_field = 8;
  w.user = &source;
  fe_onnx_tensor *t = IR_NEW(ctx, fe_onnx_tensor);
  fe_onnx_read_tensor(&w, t);
  return t;
}

fe_array fe_onnx_array(tn_ctx *ctx, const fe_onnx_tensor *t) {
  if (t->dtype == TN_NONE)
    ir_fail(ctx, TN_EUNSUPPORTED, "tensor '%s' has elements of type %s, which Tenon has not", t->name, fe_onnx_elem_name(t->elem));
  return (fe_array){.name = t->name, .dtype = t->dtype, .rank = t->rank, .dims = t->dims, .count = t->count, .data = t->data, .bytes = t->bytes};
}

/* ---- single elements ---- */

int64_t fe_onnx_int_at(tn_ctx *ctx, const fe_onnx_tensor *t, int64_t i) {
  ir_assert(ctx, i >= 0 && i < t->count && t->dtype != TN_NONE && !ir_is_float(t->dtype));
  size_t n = ir_dtype_bytes(t->dtype);
  uint64_t u = 0;
  memcpy(&u, (const char *)t->data + (size_t)i * n, n);
  if (ir_is_signed(t->dtype) && n < 8) {
    uint64_t sign = (uint64_t)1 << (8 * n - 1);
    u = (u ^ sign) - sign;
  }
  return (int64_t)u;
}

double fe_onnx_real_at(tn_ctx *ctx, const fe_onnx_tensor *t, int64_t i) {
  if (!ir_is_float(t->dtype)) {
    int64_t v = fe_onnx_int_at(ctx, t, i);
    return t->dtype == TN_U64 ? (double)(uint64_t)v : (double)v;
  }
  ir_assert(ctx, i >= 0 && i < t->count);
  return ir_scalar_load(t->dtype, (const char *)t->data + (size_t)i * ir_dtype_bytes(t->dtype)).f;
}
