/* tenon.h — the public face of Tenon, a tensor compiler (TENsor tO Native).
 *
 * Context first: every call takes the context that owns what it makes. A context
 * is used by one thread at a time; different contexts are independent. Compiled
 * modules are immutable and may run from many threads at once.
 */
#ifndef TENON_H
#define TENON_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define TN_API __attribute__((visibility("default")))
#else
#define TN_API
#endif

/* Status of a call; the same numbers are the exit codes of the CLI. */
typedef enum tn_status {
  TN_OK = 0,
  TN_EWRONG = 1,        /* a comparison found a wrong result */
  TN_EUSAGE = 2,        /* bad arguments */
  TN_EUNSUPPORTED = 3,  /* valid input that Tenon does not handle; the message says why */
  TN_EINPUT = 4,        /* malformed input */
  TN_ERESOURCE = 5,     /* out of memory, disk, time, or a file that cannot be opened */
  TN_EINTERNAL = 70     /* a broken invariant inside Tenon */
} tn_status;

/* Element types. TN_INDEX exists only inside kernels: 64-bit, never overflows. */
typedef enum tn_dtype {
  TN_NONE = 0,
  TN_BOOL, TN_I8, TN_I16, TN_I32, TN_I64, TN_U8, TN_U16, TN_U32, TN_U64,
  TN_F16, TN_BF16, TN_F32, TN_F64, TN_INDEX,
  TN_DTYPE_COUNT
} tn_dtype;

typedef struct tn_ctx tn_ctx;

/* Callbacks of a context; any may be null. `alloc(user, 0, p)` frees p, as realloc does. */
typedef struct tn_config {
  void *user;
  void *(*alloc)(void *user, size_t bytes, void *old);
  void (*log)(void *user, const char *line);
} tn_config;

/* A new context, or null when memory is out. `config` may be null. */
TN_API tn_ctx *tn_ctx_new(const tn_config *config);
/* Frees the context and all that it owns. */
TN_API void tn_ctx_free(tn_ctx *ctx);
/* Message of the last failed call ("" if none); lives until the next failing call. */
TN_API const char *tn_error(const tn_ctx *ctx);

/* ---- graphs ----
 *
 * A graph is built from tensors by ops. A call that fails returns null and sets the
 * context's error; null tensors are accepted as inputs and pass on, so a chain of calls
 * needs one check at its end. Names may be null: one is made. Data given by pointer is
 * copied unless said otherwise. Tensors and graphs live as long as the context. */
typedef struct tn_graph tn_graph;
typedef struct tn_tensor tn_tensor;

TN_API tn_graph *tn_graph_new(tn_ctx *ctx, const char *name);
/* From an ONNX file (.onnx) or Tenon's own graph text. */
TN_API tn_graph *tn_graph_load(tn_ctx *ctx, const char *path);
/* Gives a symbolic dimension of the inputs its size. */
TN_API tn_status tn_graph_set_dim(tn_graph *g, const char *name, int64_t size);

TN_API tn_tensor *tn_input(tn_graph *g, const char *name, tn_dtype dtype, int rank, const int64_t dims[]);
/* A frozen constant, or a parameter whose data can be changed after compilation
 * (tn_module_set). data: dense row-major. Null data of a parameter: to be loaded
 * (tn_load_safetensors) before compiling. */
TN_API tn_tensor *tn_const(tn_graph *g, const char *name, tn_dtype dtype, int rank, const int64_t dims[], const void *data);
TN_API tn_tensor *tn_param(tn_graph *g, const char *name, tn_dtype dtype, int rank, const int64_t dims[], const void *data);
TN_API tn_tensor *tn_scalar(tn_graph *g, tn_dtype dtype, double value);
/* Marks an output; outputs are numbered in the order of these calls. */
TN_API tn_status tn_output(tn_graph *g, const char *name, tn_tensor *t);

TN_API const char *tn_name(const tn_tensor *t);
TN_API tn_dtype tn_type(const tn_tensor *t);
/* Rank; dims (may be null, room for 8) gets the extents, -1 where symbolic. */
TN_API int tn_shape(const tn_tensor *t, int64_t dims[]);

/* Any op of the op table by its ONNX name ("Conv", "com.microsoft:Gelu"), newest opset.
 * attrs: "pads=[1,1,1,1] group=2 mode=\"linear\" alpha=0.5", or null. Returns the first
 * output; tn_op_n gives all of them. */
TN_API tn_tensor *tn_op(tn_graph *g, const char *op, int ninputs, tn_tensor *const inputs[], const char *attrs);
TN_API tn_status tn_op_n(tn_graph *g, const char *op, int ninputs, tn_tensor *const inputs[], const char *attrs,
                         int noutputs, tn_tensor *outputs[]);

/* Common ops. Shapes broadcast as NumPy's do. */
TN_API tn_tensor *tn_add(tn_graph *g, tn_tensor *a, tn_tensor *b);
TN_API tn_tensor *tn_sub(tn_graph *g, tn_tensor *a, tn_tensor *b);
TN_API tn_tensor *tn_mul(tn_graph *g, tn_tensor *a, tn_tensor *b);
TN_API tn_tensor *tn_div(tn_graph *g, tn_tensor *a, tn_tensor *b);
TN_API tn_tensor *tn_matmul(tn_graph *g, tn_tensor *a, tn_tensor *b);
TN_API tn_tensor *tn_relu(tn_graph *g, tn_tensor *x);
TN_API tn_tensor *tn_gelu(tn_graph *g, tn_tensor *x);
TN_API tn_tensor *tn_sigmoid(tn_graph *g, tn_tensor *x);
TN_API tn_tensor *tn_tanh(tn_graph *g, tn_tensor *x);
TN_API tn_tensor *tn_softmax(tn_graph *g, tn_tensor *x, int axis);
TN_API tn_tensor *tn_reshape(tn_graph *g, tn_tensor *x, int rank, const int64_t dims[]); /* one -1 is inferred */
TN_API tn_tensor *tn_transpose(tn_graph *g, tn_tensor *x, const int perm[]);             /* one entry per axis */
TN_API tn_tensor *tn_concat(tn_graph *g, int n, tn_tensor *const xs[], int axis);
TN_API tn_tensor *tn_slice(tn_graph *g, tn_tensor *x, int axis, int64_t start, int64_t end);
TN_API tn_tensor *tn_flatten(tn_graph *g, tn_tensor *x, int axis);
TN_API tn_tensor *tn_mean(tn_graph *g, tn_tensor *x, int axis, int keepdims);
TN_API tn_tensor *tn_sum(tn_graph *g, tn_tensor *x, int axis, int keepdims);

/* ---- layers: ops with parameters of their own, named "NAME.weight", "NAME.bias", ...
 * as PyTorch names them, so that state dicts load. New parameters start from a seeded
 * uniform distribution (Glorot); load or set them for anything real. */
typedef struct tn_conv_options { /* zero means the default: stride 1, dilation 1, groups 1 */
  int kernel[3], stride[3], pad[3], dilation[3]; /* per spatial axis; pad on both sides */
  int groups, no_bias;
} tn_conv_options;
TN_API tn_tensor *tn_dense(tn_graph *g, tn_tensor *x, int64_t units, const char *name);        /* x W^T + b, W [units, in] */
TN_API tn_tensor *tn_conv(tn_graph *g, tn_tensor *x, int64_t channels, const tn_conv_options *o, const char *name); /* [N,C,spatial..] */
TN_API tn_tensor *tn_conv2d(tn_graph *g, tn_tensor *x, int64_t channels, int kernel, int stride, int pad, const char *name);
TN_API tn_tensor *tn_max_pool(tn_graph *g, tn_tensor *x, int kernel, int stride, int pad);
TN_API tn_tensor *tn_avg_pool(tn_graph *g, tn_tensor *x, int kernel, int stride, int pad);
TN_API tn_tensor *tn_global_avg_pool(tn_graph *g, tn_tensor *x);
TN_API tn_tensor *tn_batch_norm(tn_graph *g, tn_tensor *x, double epsilon, const char *name);  /* inference form */
TN_API tn_tensor *tn_layer_norm(tn_graph *g, tn_tensor *x, double epsilon, const char *name);  /* over the last axis */
TN_API tn_tensor *tn_embedding(tn_graph *g, tn_tensor *ids, int64_t count, int64_t width, const char *name);
/* Multi-head attention with separate projections NAME.query, .key, .value (no output
 * projection); mask: added to the scores, broadcast to [N, heads, T, S], or null. x [N,T,E]. */
TN_API tn_tensor *tn_attention(tn_graph *g, tn_tensor *query, tn_tensor *key, tn_tensor *value, int heads, tn_tensor *mask, const char *name);
/* Recurrent layers over [N, T, F], all states returned [N, T, H]; PyTorch's parameter names and gate order. */
TN_API tn_tensor *tn_lstm(tn_graph *g, tn_tensor *x, int64_t hidden, const char *name);
TN_API tn_tensor *tn_gru(tn_graph *g, tn_tensor *x, int64_t hidden, const char *name);

/* Sequential style: layers applied in order; a layer is a function with its options. */
typedef tn_tensor *(*tn_layer_fn)(tn_graph *g, tn_tensor *x, const void *options, const char *name);
typedef struct tn_layer {
  tn_layer_fn fn;
  const void *options;
} tn_layer;
TN_API tn_tensor *tn_sequential(tn_graph *g, tn_tensor *x, int n, const tn_layer layers[], const char *name); /* NAME.0, NAME.1, ... */

/* Fills parameters of the same name, dtype and shape from a safetensors file. `map` turns a
 * parameter's name into the file's (null: the same; returning null skips it). `missing`
 * (may be null) gets the number of parameters without data. */
TN_API tn_status tn_load_safetensors(tn_graph *g, const char *path, const char *(*map)(void *user, const char *name), void *user, int *missing);
/* Weights of a compiled module's graph, as they are now. */
TN_API tn_status tn_save_safetensors(tn_graph *g, const char *path);

/* ---- compiling and running ---- */

typedef struct tn_options { /* zero: the defaults */
  const char *cpu;      /* "native" (default), "x86-64-v3", ... */
  const char *triple;   /* for objects of another machine */
  const char *db;       /* tuning store: null the default one, "none" none */
  const char *accuracy; /* "strict" or a tolerance as text; null "1e-4" */
  int threads;          /* of runs by tn_run; 0 and 1: the caller alone */
  int jobs;             /* of compilation */
} tn_options;

typedef struct tn_module tn_module;
/* Compiles in memory. `fetch`: further tensors that runs may ask for, beside the outputs.
 * The graph is left as it was. */
TN_API tn_module *tn_compile(tn_graph *g, const tn_options *o, int nfetch, tn_tensor *const fetch[]);
/* A buffer for a run: dense row-major memory of the tensor's type. */
typedef struct tn_binding {
  const tn_tensor *tensor; /* an input (data is read), or an output or fetched tensor (data is written) */
  void *data;
} tn_binding;
/* Every input must be bound; outputs not bound are computed and dropped. Thread-safe. */
TN_API tn_status tn_run(tn_module *m, int n, const tn_binding bindings[]);
/* New data for a parameter of a compiled module; takes effect for runs that start later. */
TN_API tn_status tn_module_set(tn_module *m, const tn_tensor *param, const void *data);
TN_API void tn_module_free(tn_module *m);

typedef enum tn_weights { TN_WEIGHTS_EMBED, TN_WEIGHTS_FILE, TN_WEIGHTS_POINTER } tn_weights;
/* Writes PREFIX_run as an object and its header (null: beside the object). */
TN_API tn_status tn_save_object(tn_graph *g, const tn_options *o, const char *object_path, const char *header_path,
                                const char *prefix, tn_weights weights);

/* ---- DLPack: tensors of other frameworks, without copying (dlpack.h, v0.8 layout) ---- */
struct DLManagedTensor;
/* Binds memory that another framework owns; dtype and shape must match; released by the caller. */
TN_API tn_status tn_bind_dlpack(tn_binding *b, const tn_tensor *t, const struct DLManagedTensor *dl, tn_ctx *ctx);
/* Memory owned by the returned tensor (its deleter frees it), for outputs. */
TN_API struct DLManagedTensor *tn_alloc_dlpack(tn_ctx *ctx, const tn_tensor *t);

#ifdef __cplusplus
}
#endif
#endif
