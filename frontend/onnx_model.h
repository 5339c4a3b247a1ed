/* onnx_model.h — an ONNX file as plain C structs.
 *
 *   bytes (mapped) --wire.c--> fields --onnx_model.c--> these structs --import*.c--> graph
 *
 * Nothing is interpreted here beyond what makes the structs safe to walk:
 *  - every pointer to a list is valid for its count (null when the count is 0);
 *  - every string is interned in the context (ir_intern: compare by pointer within the
 *    context, or strcmp), zero-terminated, "" when absent, never null;
 *  - a tensor's bytes match its dims and element type, already overflow-checked;
 *  - memory used is a small multiple of the file's size.
 * Graph-level rules (unique names, topological order, known ops) are the importer's.
 *
 * Raw tensor data and external data are not copied: `data` points into the map, aligned to
 * nothing. All lives as long as the context. Errors are thrown (ir_fail): TN_EINPUT for a
 * malformed file, TN_EUNSUPPORTED for what ONNX allows and Tenon does not read, naming file,
 * place and reason; TN_ERESOURCE when a file cannot be opened or memory is out.
 */
#ifndef FE_ONNX_MODEL_H
#define FE_ONNX_MODEL_H
#include "frontend/file.h"

/* TensorProto.DataType, by ONNX's numbers. */
typedef enum fe_onnx_elem {
  FE_ONNX_UNDEFINED = 0, FE_ONNX_FLOAT = 1, FE_ONNX_UINT8 = 2, FE_ONNX_INT8 = 3, FE_ONNX_UINT16 = 4,
  FE_ONNX_INT16 = 5, FE_ONNX_INT32 = 6, FE_ONNX_INT64 = 7, FE_ONNX_STRING = 8, FE_ONNX_BOOL = 9,
  FE_ONNX_FLOAT16 = 10, FE_ONNX_DOUBLE = 11, FE_ONNX_UINT32 = 12, FE_ONNX_UINT64 = 13,
  FE_ONNX_COMPLEX64 = 14, FE_ONNX_COMPLEX128 = 15, FE_ONNX_BFLOAT16 = 16, FE_ONNX_FLOAT8E4M3FN = 17,
  FE_ONNX_FLOAT8E4M3FNUZ = 18, FE_ONNX_FLOAT8E5M2 = 19, FE_ONNX_FLOAT8E5M2FNUZ = 20, FE_ONNX_UINT4 = 21,
  FE_ONNX_INT4 = 22, FE_ONNX_FLOAT4E2M1 = 23, FE_ONNX_FLOAT8E8M0 = 24, FE_ONNX_UINT2 = 25,
  FE_ONNX_INT2 = 26, FE_ONNX_FLOAT6E2M3 = 27, FE_ONNX_FLOAT6E3M2 = 28,
  FE_ONNX_ELEM_COUNT
} fe_onnx_elem;

tn_dtype fe_onnx_dtype(int elem);          /* TN_NONE where Tenon has none */
int fe_onnx_from_dtype(tn_dtype t);        /* FE_ONNX_UNDEFINED where ONNX has none */
const char *fe_onnx_elem_name(int elem);   /* "FLOAT", "INT64", ...; "?" when unknown */

typedef struct fe_onnx_str { /* bytes of any kind; s[n] is 0 unless it says "in the map" */
  const char *s;
  size_t n;
} fe_onnx_str;

typedef struct fe_onnx_tensor {
  const char *name;
  int elem;       /* fe_onnx_elem, never UNDEFINED */
  tn_dtype dtype; /* TN_NONE for strings, complex, 8-, 6-, 4- and 2-bit types */
  int rank;
  const int64_t *dims; /* each >= 0 */
  int64_t count;       /* product of dims; 1 when rank is 0 */
  const void *data;    /* little-endian, C order, unaligned; null when there are no bytes.
                          Elements below 8 bits are packed, the first in the low bits. */
  size_t bytes;
  const fe_onnx_str *strings; /* STRING: `count` of them, in the map (not terminated) */
  bool external;              /* data lies in another file */
  size_t at;                  /* byte offset of the message in the file */
} fe_onnx_tensor;

typedef enum fe_onnx_kind {
  FE_ONNX_NOTHING = 0, /* the type is absent */
  FE_ONNX_TENSOR, FE_ONNX_SPARSE, FE_ONNX_SEQUENCE, FE_ONNX_OPTIONAL, FE_ONNX_MAP, FE_ONNX_OPAQUE
} fe_onnx_kind;

typedef struct fe_onnx_dim {
  int64_t value;     /* >= 0, or -1: unknown (negative values in files count as unknown) */
  const char *param; /* name of a symbolic dimension; "" if none */
} fe_onnx_dim;

typedef struct fe_onnx_type {
  fe_onnx_kind kind;
  int elem;       /* TENSOR, SPARSE: fe_onnx_elem (0 if the file says none); MAP: of the key */
  tn_dtype dtype; /* of elem */
  bool has_shape; /* false: even the rank is unknown */
  int rank;
  const fe_onnx_dim *dims;
  const struct fe_onnx_type *of; /* SEQUENCE, OPTIONAL: element; MAP: value; may be null */
} fe_onnx_type;

typedef struct fe_onnx_value {
  const char *name;
  fe_onnx_type type; /* kind NOTHING when absent */
} fe_onnx_value;

/* AttributeProto.AttributeType, by ONNX's numbers. */
typedef enum fe_onnx_attr_kind {
  FE_ATTR_UNDEFINED = 0, FE_ATTR_FLOAT = 1, FE_ATTR_INT = 2, FE_ATTR_STRING = 3, FE_ATTR_TENSOR = 4,
  FE_ATTR_GRAPH = 5, FE_ATTR_FLOATS = 6, FE_ATTR_INTS = 7, FE_ATTR_STRINGS = 8, FE_ATTR_TENSORS = 9,
  FE_ATTR_GRAPHS = 10, FE_ATTR_SPARSE_TENSOR = 11, FE_ATTR_SPARSE_TENSORS = 12,
  FE_ATTR_TYPE_PROTO = 13, FE_ATTR_TYPE_PROTOS = 14,
  FE_ATTR_KIND_COUNT
} fe_onnx_attr_kind;

/* `kind` says which member of the union holds; lists have `n` elements. With `ref` not ""
 * the value is that attribute of the enclosing function's call, and no member holds. */
typedef struct fe_onnx_attr {
  const char *name;
  const char *ref; /* ref_attr_name; "" if none */
  fe_onnx_attr_kind kind;
  int n;
  union {
    float f;
    int64_t i;
    fe_onnx_str s; /* terminated copy */
    const fe_onnx_tensor *t;
    const struct fe_onnx_graph *g;
    const float *floats;
    const int64_t *ints;
    const fe_onnx_str *strings; /* terminated copies */
    const fe_onnx_tensor *tensors;
    const struct fe_onnx_graph *graphs;
    const fe_onnx_type *type; /* TYPE_PROTO: one; TYPE_PROTOS: n */
    /* SPARSE_TENSOR(S): n only */
  };
} fe_onnx_attr;

typedef struct fe_onnx_node {
  const char *name; /* often "" */
  const char *op;   /* op_type, never "" */
  const char *domain; /* "" for ai.onnx (both spellings) */
  const char *overload;
  int n_in, n_out, n_attr;
  const char *const *in;  /* "": an optional input left out */
  const char *const *out; /* "": an optional output left out */
  const fe_onnx_attr *attr;
  size_t at; /* byte offset of the message in the file */
} fe_onnx_node;

typedef struct fe_onnx_graph {
  const char *name;
  int n_node, n_init, n_sparse, n_in, n_out, n_value;
  const fe_onnx_node *node;
  const fe_onnx_tensor *init;
  const char *const *sparse; /* names of sparse initializers (their data is not read) */
  const fe_onnx_value *in, *out, *value;
} fe_onnx_graph;

typedef struct fe_onnx_opset {
  const char *domain; /* "" for ai.onnx */
  int64_t version;
} fe_onnx_opset;

typedef struct fe_onnx_pair {
  const char *key, *value;
} fe_onnx_pair;

typedef struct fe_onnx_function {
  const char *name, *domain, *overload;
  int n_in, n_out, n_attr, n_default, n_node, n_opset, n_value;
  const char *const *in, *const *out;
  const char *const *attr;      /* names of attributes without a default: the call must give them */
  const fe_onnx_attr *defaults; /* attributes with their defaults */
  const fe_onnx_node *node;
  const fe_onnx_opset *opset;
  const fe_onnx_value *value;
} fe_onnx_function;

typedef struct fe_onnx {
  const char *file;   /* as given; for messages */
  const char *folder; /* where external data is looked for; null: nowhere */
  int64_t ir_version, model_version;
  const char *producer, *producer_version, *domain;
  int n_opset, n_meta, n_function, n_training;
  const fe_onnx_opset *opset;
  const fe_onnx_pair *meta;
  const fe_onnx_function *function;
  const fe_onnx_graph *graph; /* never null */
  /* n_training: training_info entries, not read */
} fe_onnx;

/* Maps and reads a model file. */
const fe_onnx *fe_onnx_load(tn_ctx *ctx, const char *path);
/* Reads a model from bytes that must outlive the context. `name` is for messages; `folder`
 * holds external data (null: external data is an error). */
const fe_onnx *fe_onnx_parse(tn_ctx *ctx, const void *bytes, size_t n, const char *name, const char *folder);

/* A file that holds one bare TensorProto (input_K.pb of a test-data set). `type` is the
 * declared type of the value, null if unknown: a sequence, optional or map throws
 * TN_EUNSUPPORTED, because its file holds another message. */
const fe_onnx_tensor *fe_onnx_tensor_load(tn_ctx *ctx, const char *path, const fe_onnx_type *type);
const fe_onnx_tensor *fe_onnx_tensor_parse(tn_ctx *ctx, const void *bytes, size_t n, const char *name,
                                           const fe_onnx_type *type);
/* The same tensor as an array (dtype NONE throws TN_EUNSUPPORTED naming the ONNX type). */
fe_array fe_onnx_array(tn_ctx *ctx, const fe_onnx_tensor *t);

/* ---- comfort for the importer ---- */

/* Version of the operator set of `domain` ("" is ai.onnx); 0 if the model imports none. */
int64_t fe_onnx_opset_version(const fe_onnx_opset *opset, int n, const char *domain);
/* Attribute by name, or null. */
const fe_onnx_attr *fe_onnx_find(const fe_onnx_node *node, const char *name);
bool fe_onnx_has(const fe_onnx_node *node, const char *name);
/* Typed access: the default when the attribute is absent, throws TN_EINPUT when it has
 * another kind (or still refers to a function's attribute). */
int64_t fe_onnx_int(tn_ctx *ctx, const fe_onnx_node *node, const char *name, int64_t otherwise);
float fe_onnx_float(tn_ctx *ctx, const fe_onnx_node *node, const char *name, float otherwise);
const char *fe_onnx_string(tn_ctx *ctx, const fe_onnx_node *node, const char *name, const char *otherwise);
/* *n is -1 and the result null when absent. */
const int64_t *fe_onnx_ints(tn_ctx *ctx, const fe_onnx_node *node, const char *name, int *n);
const float *fe_onnx_floats(tn_ctx *ctx, const fe_onnx_node *node, const char *name, int *n);
const fe_onnx_str *fe_onnx_strings(tn_ctx *ctx, const fe_onnx_node *node, const char *name, int *n);
const fe_onnx_tensor *fe_onnx_tensor_attr(tn_ctx *ctx, const fe_onnx_node *node, const char *name); /* or null */
const fe_onnx_graph *fe_onnx_graph_attr(tn_ctx *ctx, const fe_onnx_node *node, const char *name);   /* or null */
/* Element i (< count) of an integer or boolean tensor; of a real tensor as double. The
 * caller checks the dtype (another one is a bug). */
int64_t fe_onnx_int_at(tn_ctx *ctx, const fe_onnx_tensor *t, int64_t i);
double fe_onnx_real_at(tn_ctx *ctx, const fe_onnx_tensor *t, int64_t i);
/* "file: node 'name' (Op)", for ir_where; an unnamed node is shown by its first output. */
const char *fe_onnx_where(tn_ctx *ctx, const fe_onnx *m, const fe_onnx_node *node);
#endif
