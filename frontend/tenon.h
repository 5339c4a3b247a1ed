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

/* Element types. The 8-bit floats are those of ONNX: E4M3FN (OCP E4M3: NaN, no infinities), E5M2 (IEEE-like), and the
 * two FNUZ (one NaN, no infinities, no -0). F4E2M1 has neither NaN nor infinities and takes a byte an element, the
 * code in its low 4 bits. TN_INDEX exists only inside kernels: 64-bit, never overflows. */
typedef enum tn_dtype {
  TN_NONE = 0,
  TN_BOOL, TN_I8, TN_I16, TN_I32, TN_I64, TN_U8, TN_U16, TN_U32, TN_U64,
  TN_F16, TN_BF16, TN_F32, TN_F64,
  TN_F8E4M3FN, TN_F8E5M2, TN_F8E4M3FNUZ, TN_F8E5M2FNUZ, TN_F4E2M1,
  TN_INDEX,
  TN_DTYPE_COUNT
} tn_dtype;

typedef struct tn_ctx tn_ctx;

/* Callbacks of a context; any may be null. `alloc(user, 0, p)` frees p, as realloc does; it is
 * called by the threads of a parallel compilation, too. */
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
 * A graph is built from tensors by ops. Each op is checked and its result's type and shape
 * are known at once. A call that fails returns null (or its status), sets the context's error
 * to "CALL: node 'NAME': reason" and leaves the graph as it was. Null tensors are accepted as
 * inputs and pass on without touching the error, so a chain of calls needs one check at its
 * end. Names may be null: one is made; they are unique within a graph. Data given by pointer
 * is copied. Tensors and graphs live as long as the context. */
typedef struct tn_graph tn_graph;
typedef struct tn_tensor tn_tensor;
enum { TN_MAX_RANK = 9 };

TN_API tn_graph *tn_graph_new(tn_ctx *ctx, const char *name);
/* From an ONNX file or Tenon's own graph text. Weights of a file stay mapped: do not change it
 * meanwhile. Types of inner tensors are known when all symbolic dimensions have sizes. */
TN_API tn_graph *tn_graph_load(tn_ctx *ctx, const char *path);

TN_API tn_tensor *tn_input(tn_graph *g, const char *name, tn_dtype dtype, int rank, const int64_t dims[]);
/* A symbolic dimension: the result may stand among the dims of tn_input. -1 when it fails. */
TN_API int64_t tn_dim(tn_graph *g, const char *name);
/* The size that a symbolic dimension has in what is compiled from now on (and in tn_shape).
 * May be given again, to compile one graph for several sizes. */
TN_API tn_status tn_graph_set_dim(tn_graph *g, const char *name, int64_t size);
/* Several instead: what is compiled from now on runs at each of n ascending sizes, or (a batch) at all from lo to hi;
 * tn_run_at says at which. In a range each part of the results must depend on its own part of the inputs alone, which
 * compiling proves or refuses. */
TN_API tn_status tn_graph_set_dim_sizes(tn_graph *g, const char *name, int n, const int64_t sizes[]);
TN_API tn_status tn_graph_set_dim_range(tn_graph *g, const char *name, int64_t lo, int64_t hi);
/* A frozen constant, or a parameter whose data can be changed, also after compilation
 * (tn_module_set). data: dense row-major, little-endian. Null data of a parameter: to be
 * given (tn_load_safetensors, tn_param_set) before compiling. */
TN_API tn_tensor *tn_const(tn_graph *g, const char *name, tn_dtype dtype, int rank, const int64_t dims[], const void *data);
TN_API tn_tensor *tn_param(tn_graph *g, const char *name, tn_dtype dtype, int rank, const int64_t dims[], const void *data);
TN_API tn_tensor *tn_scalar(tn_graph *g, tn_dtype dtype, double value);
/* Marks an output; outputs are numbered in the order of these calls. */
TN_API tn_status tn_output(tn_graph *g, const char *name, tn_tensor *t);
/* The input becomes a constant of everything compiled from now on: for inputs whose value
 * decides shapes. Its shape must be known. */
TN_API tn_status tn_fix_input(tn_graph *g, tn_tensor *input, const void *data);

/* By the name of a tensor, or of a node (its first output); null when there is none. */
TN_API tn_tensor *tn_find(tn_graph *g, const char *name);
/* The first `max` of the inputs, outputs, parameters in order; the result is how many there are. */
TN_API int tn_inputs(tn_graph *g, int max, tn_tensor *out[]);
TN_API int tn_outputs(tn_graph *g, int max, tn_tensor *out[]);
TN_API int tn_params(tn_graph *g, int max, tn_tensor *out[]);

TN_API const char *tn_name(const tn_tensor *t);
TN_API tn_dtype tn_type(const tn_tensor *t); /* TN_NONE while it is not known */
/* Rank (-1 while it is not known); dims (may be null, room for TN_MAX_RANK) gets the extents, -1 where
 * symbolic without a size. */
TN_API int tn_shape(const tn_tensor *t, int64_t dims[]);
/* Bytes of the dense tensor; -1 unless its type and shape are known. */
TN_API int64_t tn_bytes(const tn_tensor *t);
/* Data of a constant or parameter as the graph has it, null if none. May lie at any address (a
 * mapped file): copy before reading wide elements. */
TN_API const void *tn_data(const tn_tensor *t);
/* New data (copied) for a parameter, in what is compiled from now on. */
TN_API tn_status tn_param_set(tn_tensor *param, const void *data);

/* Any op of the op table by its ONNX name ("Conv", "com.microsoft:Gelu"), newest opset.
 * attrs: "pads=[1,1,1,1] group=2 mode=\"linear\" alpha=0.5 value=1i64", or null. An optional
 * input that is left out: tn_omit(). Returns the first output; tn_op_n gives several. */
TN_API tn_tensor *tn_op(tn_graph *g, const char *op, int ninputs, tn_tensor *const inputs[], const char *attrs);
TN_API tn_status tn_op_n(tn_graph *g, const char *op, int ninputs, tn_tensor *const inputs[], const char *attrs,
                         int noutputs, tn_tensor *outputs[]);
TN_API tn_tensor *tn_omit(void);

/* Common ops. Shapes broadcast as NumPy's do; axes may be negative. */
TN_API tn_tensor *tn_add(tn_graph *g, tn_tensor *a, tn_tensor *b);
TN_API tn_tensor *tn_sub(tn_graph *g, tn_tensor *a, tn_tensor *b);
TN_API tn_tensor *tn_mul(tn_graph *g, tn_tensor *a, tn_tensor *b);
TN_API tn_tensor *tn_div(tn_graph *g, tn_tensor *a, tn_tensor *b);
TN_API tn_tensor *tn_matmul(tn_graph *g, tn_tensor *a, tn_tensor *b);
TN_API tn_tensor *tn_relu(tn_graph *g, tn_tensor *x);
TN_API tn_tensor *tn_gelu(tn_graph *g, tn_tensor *x); /* by erf */
TN_API tn_tensor *tn_sigmoid(tn_graph *g, tn_tensor *x);
TN_API tn_tensor *tn_tanh(tn_graph *g, tn_tensor *x);
TN_API tn_tensor *tn_softmax(tn_graph *g, tn_tensor *x, int axis);
TN_API tn_tensor *tn_reshape(tn_graph *g, tn_tensor *x, int rank, const int64_t dims[]); /* one -1 is inferred, 0 keeps x's extent */
TN_API tn_tensor *tn_transpose(tn_graph *g, tn_tensor *x, const int perm[]);             /* one entry per axis; null: reversed */
TN_API tn_tensor *tn_concat(tn_graph *g, int n, tn_tensor *const xs[], int axis);
TN_API tn_tensor *tn_slice(tn_graph *g, tn_tensor *x, int axis, int64_t start, int64_t end); /* negative: from the end; clamped */
TN_API tn_tensor *tn_flatten(tn_graph *g, tn_tensor *x, int axis);                       /* to rank 2, axis begins the second */
TN_API tn_tensor *tn_mean(tn_graph *g, tn_tensor *x, int axis, int keepdims);
TN_API tn_tensor *tn_sum(tn_graph *g, tn_tensor *x, int axis, int keepdims);

/* ---- gradients ----
 *
 * dxs[i] becomes the gradient of sum(y * seed) with respect to xs[i]: same type and shape, zeros where
 * y does not depend on it. xs are any tensors of the graph: inputs, parameters, results. `seed` has y's
 * shape; tn_omit() when y is one number. Gradients are tensors as any other, so they can be
 * differentiated again. They pass through floats alone. Errors: TN_EUSAGE for integers and a missing
 * seed; TN_EUNSUPPORTED naming a node on the way whose op has no rule (some are found when compiling). */
TN_API tn_status tn_gradient(tn_graph *g, tn_tensor *y, tn_tensor *seed, int n, tn_tensor *const xs[], tn_tensor *dxs[]);
/* Gradients that are asked for from here on may keep at most so many bytes of results on the way to y, as far as
 * possible: the rest is computed again (first all but products and convolutions; then whole segments, between
 * the narrowest places; tn_checkpoint chooses by hand). 0, to begin with: all are kept. */
TN_API void tn_gradient_memory(tn_graph *g, int64_t bytes);
/* x, kept for gradients. Where a graph has such marks, all else between them that gradients need is computed
 * again from them instead of being kept: less memory for more time. */
TN_API tn_tensor *tn_checkpoint(tn_graph *g, tn_tensor *x);
/* x; gradients end here. */
TN_API tn_tensor *tn_stop_gradient(tn_graph *g, tn_tensor *x);

/* ---- layers: ops with parameters of their own, named "NAME.weight", "NAME.bias", ...
 * as PyTorch names them and in its layouts, so that state dicts load; the result is named NAME.
 * New weights start from a uniform distribution (Glorot) seeded by their name, biases from 0,
 * scales from 1; load or set them for anything real. */
typedef struct tn_conv_options { /* per spatial axis; zero means the default, 1 (no padding) */
  int kernel[3], stride[3], pad[3], dilation[3]; /* pad: on both sides */
  int groups, no_bias;
} tn_conv_options;
TN_API tn_tensor *tn_dense(tn_graph *g, tn_tensor *x, int64_t units, const char *name);        /* x W^T + b over the last axis, W [units, in] */
/* x [N, C, spatial...], one to three spatial axes; weight [channels, C / groups, kernel...]. */
TN_API tn_tensor *tn_conv(tn_graph *g, tn_tensor *x, int64_t channels, const tn_conv_options *o, const char *name);
TN_API tn_tensor *tn_conv2d(tn_graph *g, tn_tensor *x, int64_t channels, int kernel, int stride, int pad, const char *name);
/* Pools over all spatial axes; averages are of the elements inside, padding not counted. */
TN_API tn_tensor *tn_max_pool(tn_graph *g, tn_tensor *x, int kernel, int stride, int pad);
TN_API tn_tensor *tn_avg_pool(tn_graph *g, tn_tensor *x, int kernel, int stride, int pad);
TN_API tn_tensor *tn_global_avg_pool(tn_graph *g, tn_tensor *x);                               /* [N, C, 1, ...] */
TN_API tn_tensor *tn_batch_norm(tn_graph *g, tn_tensor *x, double epsilon, const char *name);  /* over axis 1; see tn_training */
TN_API tn_tensor *tn_layer_norm(tn_graph *g, tn_tensor *x, double epsilon, const char *name);  /* over the last axis */
TN_API tn_tensor *tn_embedding(tn_graph *g, tn_tensor *ids, int64_t count, int64_t width, const char *name); /* ids [...] i32 or i64 -> [..., width] */
/* Multi-head attention with separate projections NAME.query, .key, .value (no output
 * projection): query [N, T, E], key and value [N, S, E'] -> [N, T, E]. mask: added to the
 * scores, broadcast to [N, heads, T, S]; tn_omit() for none. */
TN_API tn_tensor *tn_attention(tn_graph *g, tn_tensor *query, tn_tensor *key, tn_tensor *value, int heads, tn_tensor *mask, const char *name);
/* Recurrent layers over [N, T, F], from zero states; all outputs are returned [N, T, H].
 * NAME.weight_ih_l0 [G*H, F], .weight_hh_l0 [G*H, H], .bias_ih_l0, .bias_hh_l0 [G*H] with PyTorch's gate order. */
TN_API tn_tensor *tn_lstm(tn_graph *g, tn_tensor *x, int64_t hidden, const char *name);
TN_API tn_tensor *tn_gru(tn_graph *g, tn_tensor *x, int64_t hidden, const char *name);

/* Sequential style: layers applied in order, named NAME.0, NAME.1, ... (0, 1, ... for a null NAME):
 *   tn_layer net[] = {{.fn = tn_layer_conv, .units = 16, .kernel = 3, .pad = 1}, {.fn = tn_layer_relu}, ...};
 *   y = tn_sequential(g, x, 2, net, "net");                    */
typedef struct tn_layer tn_layer;
typedef tn_tensor *(*tn_layer_fn)(tn_graph *g, tn_tensor *x, const tn_layer *l, const char *name);
struct tn_layer {
  tn_layer_fn fn;          /* one of those below, or the caller's own */
  int64_t units;           /* dense: outputs; conv: channels; lstm, gru: width of the state */
  int kernel, stride, pad; /* conv, pools; the same on every spatial axis */
  double epsilon;          /* norms; 0: 1e-5 */
  const void *options;     /* for the caller's own functions */
};
TN_API tn_tensor *tn_sequential(tn_graph *g, tn_tensor *x, int n, const tn_layer layers[], const char *name);
TN_API tn_tensor *tn_layer_dense(tn_graph *g, tn_tensor *x, const tn_layer *l, const char *name);
TN_API tn_tensor *tn_layer_conv(tn_graph *g, tn_tensor *x, const tn_layer *l, const char *name);
TN_API tn_tensor *tn_layer_max_pool(tn_graph *g, tn_tensor *x, const tn_layer *l, const char *name);
TN_API tn_tensor *tn_layer_avg_pool(tn_graph *g, tn_tensor *x, const tn_layer *l, const char *name);
TN_API tn_tensor *tn_layer_global_avg_pool(tn_graph *g, tn_tensor *x, const tn_layer *l, const char *name);
TN_API tn_tensor *tn_layer_batch_norm(tn_graph *g, tn_tensor *x, const tn_layer *l, const char *name);
TN_API tn_tensor *tn_layer_layer_norm(tn_graph *g, tn_tensor *x, const tn_layer *l, const char *name);
TN_API tn_tensor *tn_layer_lstm(tn_graph *g, tn_tensor *x, const tn_layer *l, const char *name);
TN_API tn_tensor *tn_layer_gru(tn_graph *g, tn_tensor *x, const tn_layer *l, const char *name);
TN_API tn_tensor *tn_layer_relu(tn_graph *g, tn_tensor *x, const tn_layer *l, const char *name);
TN_API tn_tensor *tn_layer_gelu(tn_graph *g, tn_tensor *x, const tn_layer *l, const char *name);
TN_API tn_tensor *tn_layer_sigmoid(tn_graph *g, tn_tensor *x, const tn_layer *l, const char *name);
TN_API tn_tensor *tn_layer_tanh(tn_graph *g, tn_tensor *x, const tn_layer *l, const char *name);
TN_API tn_tensor *tn_layer_softmax(tn_graph *g, tn_tensor *x, const tn_layer *l, const char *name); /* last axis */
TN_API tn_tensor *tn_layer_flatten(tn_graph *g, tn_tensor *x, const tn_layer *l, const char *name); /* [N, rest] */

/* ---- training: what runs keep and change ----
 *
 *   tn_training(g, 1);
 *   tn_tensor *loss = tn_cross_entropy(g, net(g, x), labels);
 *   tn_minimize(g, loss, &(tn_optimizer){.kind = TN_ADAM, .rate = 1e-3}, 0, NULL);
 *   tn_output(g, "loss", loss);
 *   m = tn_compile(g, ...);       each tn_run is one step; tn_module_store(m) brings the weights back into g
 *
 * Updates take effect together, at the end of a run: everything in the run reads the old contents.
 * Runs of a module with updates happen one at a time. */

/* A tensor that a module keeps from run to run, starting from data (null: zeros), for tn_update. */
TN_API tn_tensor *tn_state(tn_graph *g, const char *name, tn_dtype dtype, int rank, const int64_t dims[], const void *data);
/* After each run `kept`, a state or a parameter, holds `value`, of the same type and shape. Once per tensor. */
TN_API tn_status tn_update(tn_graph *g, tn_tensor *kept, tn_tensor *value);
/* Layers that are added from now on take their training form: tn_dropout drops, tn_batch_norm
 * normalises by the batch and moves its running statistics. Off to begin with. */
TN_API void tn_training(tn_graph *g, int on);
/* Whether tn_minimize changes a parameter when it is given no list: all but running statistics to begin
 * with. A constant of a loaded graph becomes a parameter when it is switched on; a null `param` stands for
 * all constants that a file holds, floats of rank 1 or more, but running statistics. */
TN_API tn_status tn_trainable(tn_graph *g, tn_tensor *param, int on);

/* Losses: one number, the mean over the batch. */
TN_API tn_tensor *tn_cross_entropy(tn_graph *g, tn_tensor *logits, tn_tensor *labels); /* [N, C, ...], the classes [N, ...] as i32 or i64 */
TN_API tn_tensor *tn_mse(tn_graph *g, tn_tensor *y, tn_tensor *target);
/* Zero with probability p, else x / (1 - p). Which, is a function of the number of the run, of the place
 * of the call in the graph and of the element's; the identity when tn_training is off. */
TN_API tn_tensor *tn_dropout(tn_graph *g, tn_tensor *x, double p);

typedef enum tn_optimizer_kind { TN_SGD, TN_ADAM, TN_ADAMW } tn_optimizer_kind;
typedef struct tn_optimizer { /* formulas and defaults are PyTorch's */
  tn_optimizer_kind kind;
  double rate;            /* of learning */
  tn_tensor *rate_from;   /* one f32, such as an input: instead of rate */
  double decay;           /* of weights: added to the gradient; TN_ADAMW: apart from it */
  double clip;            /* largest norm of all gradients together; 0: not clipped */
  double momentum;        /* TN_SGD */
  int nesterov;           /* TN_SGD */
  double beta1, beta2;    /* TN_ADAM, TN_ADAMW; 0: 0.9 and 0.999 */
  double epsilon;         /* TN_ADAM, TN_ADAMW; 0: 1e-8 */
} tn_optimizer;
/* Each run makes one step of the optimizer down the gradient of loss, by the n parameters or, with
 * n 0, by all that are trainable. Its states are named "PARAM.momentum", "PARAM.variance". */
TN_API tn_status tn_minimize(tn_graph *g, tn_tensor *loss, const tn_optimizer *o, int n, tn_tensor *const params[]);

/* Fills the parameters from a safetensors file, by name; dtypes and shapes must agree. The file
 * stays mapped. `map` turns a parameter's name into the file's (null: the same; returning null
 * skips it). `missing` gets the number of parameters that the file does not have; with null
 * there, any such is an error that names some. */
TN_API tn_status tn_load_safetensors(tn_graph *g, const char *path, const char *(*map)(void *user, const char *name), void *user, int *missing);
/* Writes the parameters as the graph has them, under their names. */
TN_API tn_status tn_save_safetensors(tn_graph *g, const char *path);
/* The same with the states (of optimizers), so that training can go on from there: tn_load_safetensors
 * fills those that the file has. */
TN_API tn_status tn_save_checkpoint(tn_graph *g, const char *path);

/* Writes the graph with its parameters as an ONNX file (opset 21, or that of the file the graph came from); data of
 * more than 2 GB lies beside it in PATH.data. Updates are left out; ops that ONNX does not have are an
 * error, dropout in training for one. */
TN_API tn_status tn_save_onnx(tn_graph *g, const char *path);

/* ---- compiling and running ---- */

typedef struct tn_options { /* zero: the defaults; also for a null pointer */
  const char *cpu;      /* "native" (default), "x86-64-v3", ... */
  const char *triple;   /* for objects of another machine */
  const char *db;       /* tuning store: null the default one, "none" none */
  const char *accuracy; /* "strict" or a tolerance as text; null "1e-4" (error / largest output of the whole model) */
  int threads;          /* of runs by tn_run; 0 and 1: the caller alone; -1: as many as there are CPUs */
  int jobs;             /* threads of compilation, likewise */
  const char *target;   /* "cpu" (default); "cuda" or "cuda:sm_90a", ...: the first GPU, TN_EUNSUPPORTED where there is
                         * none, no driver or no NVRTC. Buffers stay on the host, runs of a module take turns, and its
                         * parameters cannot be set */
} tn_options;

typedef struct tn_module tn_module;
/* Compiles in memory. `fetch`: further tensors that runs may ask for, beside the outputs.
 * The graph is left as it was, and may be changed and compiled again. The module belongs to the
 * graph's context and dies with it if it is not freed before. */
TN_API tn_module *tn_compile(tn_graph *g, const tn_options *o, int nfetch, tn_tensor *const fetch[]);
/* A buffer for a run: dense row-major memory of the tensor's type, at any alignment of its element. */
typedef struct tn_binding {
  const tn_tensor *tensor; /* an input (data is read), or an output or fetched tensor (data is written) */
  void *data;
} tn_binding;
/* Bindings in any order. Every input must be bound; outputs not bound are computed and dropped.
 * A tensor that is input and output: its second binding is the output. Buffers must not overlap.
 * Any number of threads may run one module at the same time. */
TN_API tn_status tn_run(tn_module *m, int n, const tn_binding bindings[]);
/* The same at these sizes, of a module that was compiled for several: of each such dimension one. Buffers have the
 * extents that follow from them. */
typedef struct tn_size {
  const char *dim;
  int64_t size;
} tn_size;
TN_API tn_status tn_run_at(tn_module *m, int nsizes, const tn_size sizes[], int n, const tn_binding bindings[]);
/* The same (nsizes 0: of a module of one size), telling the extents of outputs too: extents[i] is null, or room for as many numbers as
 * the rank of bindings[i].tensor. Extents that a run finds, as of what a loop collects until a condition ends it, are at most those of
 * tn_shape, for which the buffer has room; what the run gave lies dense at its beginning. */
TN_API tn_status tn_run_extents(tn_module *m, int nsizes, const tn_size sizes[], int n, const tn_binding bindings[], int64_t *const extents[]);
/* New data for a parameter of a compiled module; takes effect for runs that start later (waits
 * for runs that go on). The graph keeps its own. May be called by any thread. */
TN_API tn_status tn_module_set(tn_module *m, const tn_tensor *param, const void *data);
/* The contents that a parameter or state has in the module now. */
TN_API tn_status tn_module_get(tn_module *m, const tn_tensor *kept, void *data);
/* The graph takes over what runs have made of its parameters and states: for saving, and for what is
 * compiled from now on. By the thread that uses the context. */
TN_API tn_status tn_module_store(tn_module *m);
/* Message of the calling thread's last failed tn_run or tn_module_set: threads share modules, so the
 * context's error is not theirs to write. */
TN_API const char *tn_run_error(void);
/* By the thread that uses the context. No run may be going on. Null is allowed. */
TN_API void tn_module_free(tn_module *m);

typedef enum tn_weights { TN_WEIGHTS_EMBED, TN_WEIGHTS_FILE, TN_WEIGHTS_POINTER } tn_weights;
/* Writes PREFIX_run as an object and its header (null: beside the object, .h). Weights: in the
 * object; in a file beside it (.weights); or packed by the caller from the original tensors. A graph with
 * updates gets PREFIX_init, too, which fills the state that runs change. With a target such as "cuda:sm_80,sm_90a"
 * the object holds the kernels of each architecture and takes the driver's functions from the caller: its header tells. */
TN_API tn_status tn_save_object(tn_graph *g, const tn_options *o, const char *object_path, const char *header_path,
                                const char *prefix, tn_weights weights);

/* ---- define by run ----
 *
 *   tn_graph *g = tn_eager(ctx, "net", NULL);
 *   for (;;) {
 *     tn_begin(g);
 *     tn_tensor *y = tn_tanh(g, tn_dense(g, tn_array(g, TN_F32, 2, dims, data), 10, "fc"));
 *     const float *v = tn_value(g, y);     computes what y needs; C decides what comes next
 *     tn_end(g, 0, NULL);                  releases the tensors of the step
 *   }
 *
 * The calls are those that build graphs, on a graph whose tensors have values. They record; asking for a
 * value compiles what is pending and runs it. A step that was seen before is recognised and compiles
 * nothing; shapes and control flow may change from step to step, each variant is compiled once.
 * Layers find their parameters by name, in each step the same; without a name, by their place in the
 * step. tn_scalar, tn_const and attributes are part of what is compiled: numbers that change are arrays.
 * tn_update and tn_minimize take effect when the next value is asked for, or at tn_end; tensors of the step
 * that were not computed by then cannot be any more. */
TN_API tn_graph *tn_eager(tn_ctx *ctx, const char *name, const tn_options *o);
/* A tensor of data, which is copied. */
TN_API tn_tensor *tn_array(tn_graph *g, tn_dtype dtype, int rank, const int64_t dims[], const void *data);
/* Computes tensors, together; tn_value gives the contents of one: dense, row-major, valid until the tensor is
 * released (a parameter's: until it is updated). */
TN_API tn_status tn_eval(tn_graph *g, int n, tn_tensor *const ts[]);
TN_API const void *tn_value(tn_graph *g, tn_tensor *t);
/* Scopes: what is made after tn_begin is released at its tn_end, but `keep`, which is computed first and then
 * belongs to the scope around, or to the caller. Without scopes: tn_release each. tn_retain asks for one
 * more release. */
TN_API tn_status tn_begin(tn_graph *g);
TN_API tn_status tn_end(tn_graph *g, int nkeep, tn_tensor *const keep[]);
TN_API void tn_release(tn_graph *g, tn_tensor *t);
TN_API tn_tensor *tn_retain(tn_graph *g, tn_tensor *t);
/* To look into a program: name, shape and the first elements on standard output (also from a debugger);
 * and whether each operation runs at once, one at a time, which is slow. */
TN_API tn_status tn_print(tn_graph *g, tn_tensor *t);
TN_API void tn_eager_each(tn_graph *g, int on);
/* An eager graph keeps what it compiled: at most so many modules (1000 to begin with; at least one), then the one
 * that ran longest ago goes and is compiled again when it is needed. Those of compiled functions stay. */
TN_API void tn_eager_limit(tn_graph *g, int modules);
/* How often an eager graph has compiled and run something; either may be null. */
TN_API void tn_eager_counts(tn_graph *g, int *compiled, int *runs);

/* A function in two styles. It makes nout results of nin inputs by calls on g; eagerly it is called each
 * time, and may ask for values. Compiled, it is called once for inputs of some types and shapes, and
 * what it recorded runs whole from then on. The results have their values; in both styles the same. */
typedef struct tn_function tn_function;
typedef void (*tn_fn)(tn_graph *g, void *user, tn_tensor *const in[], tn_tensor *out[]);
TN_API tn_function *tn_function_new(tn_graph *g, tn_fn fn, void *user, int nin, int nout);
TN_API void tn_function_compiled(tn_function *f, int on); /* off to begin with */
TN_API tn_status tn_call(tn_function *f, tn_tensor *const in[], tn_tensor *out[]);

/* ---- DLPack: tensors of other frameworks, without copying (dlpack.h, v0.8 layout) ---- */
struct DLManagedTensor;
/* Binds memory that another framework owns; CPU, dense, dtype and shape must match. Released by
 * the caller, after the run. */
TN_API tn_status tn_bind_dlpack(tn_ctx *ctx, tn_binding *b, const tn_tensor *t, struct DLManagedTensor *dl);
/* Zeroed memory for a tensor, aligned to 64 bytes, owned by the result: its deleter frees it, also
 * after the context is gone and on any thread (the context's allocator is used). */
TN_API struct DLManagedTensor *tn_alloc_dlpack(tn_ctx *ctx, const tn_tensor *t);

/* ---- places: messages name the file and line of the call. Define TN_NO_PLACES to do without. ---- */
TN_API void tn_here(const char *file, int line); /* of the thread's next call */
#ifndef TN_NO_PLACES
#define TN_AT(call) (tn_here(__FILE__, __LINE__), call)
#define tn_input(...) TN_AT(tn_input(__VA_ARGS__))
#define tn_dim(...) TN_AT(tn_dim(__VA_ARGS__))
#define tn_graph_set_dim(...) TN_AT(tn_graph_set_dim(__VA_ARGS__))
#define tn_graph_set_dim_sizes(...) TN_AT(tn_graph_set_dim_sizes(__VA_ARGS__))
#define tn_graph_set_dim_range(...) TN_AT(tn_graph_set_dim_range(__VA_ARGS__))
#define tn_const(...) TN_AT(tn_const(__VA_ARGS__))
#define tn_param(...) TN_AT(tn_param(__VA_ARGS__))
#define tn_scalar(...) TN_AT(tn_scalar(__VA_ARGS__))
#define tn_output(...) TN_AT(tn_output(__VA_ARGS__))
#define tn_fix_input(...) TN_AT(tn_fix_input(__VA_ARGS__))
#define tn_op(...) TN_AT(tn_op(__VA_ARGS__))
#define tn_op_n(...) TN_AT(tn_op_n(__VA_ARGS__))
#define tn_add(...) TN_AT(tn_add(__VA_ARGS__))
#define tn_sub(...) TN_AT(tn_sub(__VA_ARGS__))
#define tn_mul(...) TN_AT(tn_mul(__VA_ARGS__))
#define tn_div(...) TN_AT(tn_div(__VA_ARGS__))
#define tn_matmul(...) TN_AT(tn_matmul(__VA_ARGS__))
#define tn_relu(...) TN_AT(tn_relu(__VA_ARGS__))
#define tn_gelu(...) TN_AT(tn_gelu(__VA_ARGS__))
#define tn_sigmoid(...) TN_AT(tn_sigmoid(__VA_ARGS__))
#define tn_tanh(...) TN_AT(tn_tanh(__VA_ARGS__))
#define tn_softmax(...) TN_AT(tn_softmax(__VA_ARGS__))
#define tn_reshape(...) TN_AT(tn_reshape(__VA_ARGS__))
#define tn_transpose(...) TN_AT(tn_transpose(__VA_ARGS__))
#define tn_concat(...) TN_AT(tn_concat(__VA_ARGS__))
#define tn_slice(...) TN_AT(tn_slice(__VA_ARGS__))
#define tn_flatten(...) TN_AT(tn_flatten(__VA_ARGS__))
#define tn_mean(...) TN_AT(tn_mean(__VA_ARGS__))
#define tn_sum(...) TN_AT(tn_sum(__VA_ARGS__))
#define tn_gradient(...) TN_AT(tn_gradient(__VA_ARGS__))
#define tn_stop_gradient(...) TN_AT(tn_stop_gradient(__VA_ARGS__))
#define tn_dense(...) TN_AT(tn_dense(__VA_ARGS__))
#define tn_conv(...) TN_AT(tn_conv(__VA_ARGS__))
#define tn_conv2d(...) TN_AT(tn_conv2d(__VA_ARGS__))
#define tn_max_pool(...) TN_AT(tn_max_pool(__VA_ARGS__))
#define tn_avg_pool(...) TN_AT(tn_avg_pool(__VA_ARGS__))
#define tn_global_avg_pool(...) TN_AT(tn_global_avg_pool(__VA_ARGS__))
#define tn_batch_norm(...) TN_AT(tn_batch_norm(__VA_ARGS__))
#define tn_embedding(...) TN_AT(tn_embedding(__VA_ARGS__))
#define tn_attention(...) TN_AT(tn_attention(__VA_ARGS__))
#define tn_lstm(...) TN_AT(tn_lstm(__VA_ARGS__))
#define tn_gru(...) TN_AT(tn_gru(__VA_ARGS__))
#define tn_sequential(...) TN_AT(tn_sequential(__VA_ARGS__))
#define tn_state(...) TN_AT(tn_state(__VA_ARGS__))
#define tn_update(...) TN_AT(tn_update(__VA_ARGS__))
#define tn_trainable(...) TN_AT(tn_trainable(__VA_ARGS__))
#define tn_cross_entropy(...) TN_AT(tn_cross_entropy(__VA_ARGS__))
#define tn_mse(...) TN_AT(tn_mse(__VA_ARGS__))
#define tn_dropout(...) TN_AT(tn_dropout(__VA_ARGS__))
#define tn_minimize(...) TN_AT(tn_minimize(__VA_ARGS__))
#define tn_load_safetensors(...) TN_AT(tn_load_safetensors(__VA_ARGS__))
#define tn_save_safetensors(...) TN_AT(tn_save_safetensors(__VA_ARGS__))
#define tn_save_checkpoint(...) TN_AT(tn_save_checkpoint(__VA_ARGS__))
#define tn_save_onnx(...) TN_AT(tn_save_onnx(__VA_ARGS__))
#define tn_compile(...) TN_AT(tn_compile(__VA_ARGS__))
#define tn_save_object(...) TN_AT(tn_save_object(__VA_ARGS__))
#define tn_array(...) TN_AT(tn_array(__VA_ARGS__))
#define tn_eval(...) TN_AT(tn_eval(__VA_ARGS__))
#define tn_value(...) TN_AT(tn_value(__VA_ARGS__))
#define tn_begin(...) TN_AT(tn_begin(__VA_ARGS__))
#define tn_end(...) TN_AT(tn_end(__VA_ARGS__))
#define tn_print(...) TN_AT(tn_print(__VA_ARGS__))
#define tn_function_new(...) TN_AT(tn_function_new(__VA_ARGS__))
#endif

#ifdef __cplusplus
}
#endif
#endif
