/* cuda_cudnn.h — cuDNN's plans as rivals of generated convolutions and attention.
 *
 *   kernel ── rt_dnn_problem_of ──> problem ── operation graph ── heuristics ── engine configurations ── plans
 *
 * The problem is read off the kernel's loops (lower/problem.h, lower/attend.h), never off op names. No GPU is needed: a
 * descriptor of device properties stands for it. Descriptors, attributes and their values: NVIDIA's documentation of the cuDNN
 * backend API, version 9; how graphs of attention must look: the cuDNN frontend, which NVIDIA publishes. */
#ifndef RT_CUDA_CUDNN_H
#define RT_CUDA_CUDNN_H
#include "codegen/cuda.h"
#include "runtime/cuda_epilogue.h"

enum { RT_DNN_STEPS = RT_END_STEPS };

typedef enum rt_dnn_op { RT_DNN_ADD, RT_DNN_RELU } rt_dnn_op;

typedef struct rt_dnn_tensor { /* four axes, N C H W of pictures; strides in elements say how they lie */
  tn_dtype dtype;
  int64_t size[4], stride[4];
  int param;           /* of the kernel */
  int64_t at;          /* where the first element lies in it */
} rt_dnn_tensor;

/* y = steps(conv(x, w)): sums in f32; what stands between the steps is f32 too, so bf16 and f16 kernels that round
 * there come out no less accurate. Whole tensors are added before biases, the order that cuDNN fuses. Vectors of two: H, W. */
typedef struct rt_dnn_conv {
  rt_dnn_tensor x, w, y;
  int64_t stride[2], dilation[2], before[2], after[2];
  int nsteps;
  struct {
    rt_dnn_op op;
    rt_dnn_tensor other; /* add: broadcast where its sizes are 1 */
    double top;          /* relu: the upper clip; infinity for none */
  } steps[RT_DNN_STEPS];
} rt_dnn_conv;

/* False with *reason. Constant weights are taken to lie as the picture does, channels last or not: they are packed ahead. */
bool rt_dnn_conv_of(tn_ctx *ctx, const ir_kernel *k, rt_dnn_conv *c, const char **reason);

/* y = softmax(scale q k' + mask) v of f16 or bf16, softmax in f32. Axes: batch, head, place, column; heads may share keys and
 * values, of which there are then fewer: head h takes those of h / (heads / groups). Query i sees the keys from i + from to
 * i + to, both among them, each of which may be without a bound; it sees one at least. */
typedef struct rt_dnn_attention {
  rt_dnn_tensor q, k, v, y;
  double scale;
  bool has_from, has_to;
  int64_t from, to;
} rt_dnn_attention;

/* False with *reason. */
bool rt_dnn_attention_of(tn_ctx *ctx, const ir_kernel *k, rt_dnn_attention *a, const char **reason);

typedef struct rt_dnn_problem { /* one of both */
  bool attends;
  rt_dnn_conv conv;
  rt_dnn_attention attention;
} rt_dnn_problem;
bool rt_dnn_problem_of(tn_ctx *ctx, const ir_kernel *k, rt_dnn_problem *p, const char **reason);

typedef struct rt_cuda_candidate {
  const char *text;     /* "cudnn 9.19.0 engine 51 knobs 2=8 13=0", "cudnn 9.19.0 sdpa engine 9 knobs 24=7": names it for good */
  const char *notes;    /* "tensor cores, Winograd"; "" for none */
  int64_t workspace;    /* bytes */
} rt_cuda_candidate;

typedef struct rt_cuda_candidates {
  int n;
  rt_cuda_candidate *list; /* as the library's heuristics rank them: modes B, A, fallback; each once */
  int inexact, refused, large; /* left out: by numerical notes; no plan; above the workspace */
  const char *why;         /* null, or why there are none */
} rt_cuda_candidates;

typedef struct rt_cuda_candidate_options {
  bool ieee;            /* f32: no tensor cores, inputs or sums of less precision */
  int64_t workspace;    /* the most, in bytes; 0: any */
} rt_cuda_candidate_options;

/* Finalised plans for a problem. An absent library, or one too old (below 9.8), is no error: `why`. cuDNN compiles plans of
 * attention as it finalises them, and gives the code to the driver: where there is none, rt_cuda_stand_in is. */
rt_cuda_candidates rt_dnn_candidates(tn_ctx *ctx, const cu_target *t, const rt_dnn_problem *p, const rt_cuda_candidate_options *o);

/* A plan on the device whose context is current, issuing to a stream. */
typedef struct rt_dnn_plan rt_dnn_plan;
/* The one that a candidate's text names, in ctx; null with *why. */
rt_dnn_plan *rt_dnn_plan_new(tn_ctx *ctx, const cu_target *t, const rt_dnn_problem *p, const char *text, void *stream, const char **why);
void rt_dnn_plan_free(rt_dnn_plan *p);
int64_t rt_dnn_plan_workspace(const rt_dnn_plan *p);
/* `memory`: device addresses by parameter of the kernel. cuDNN's status: 0 is well. */
int rt_dnn_plan_run(rt_dnn_plan *p, const unsigned long long *memory, unsigned long long workspace);
/* Whether a schedule's text is a library's plan, and of the library that is there. */
bool rt_dnn_is_plan(const char *text);
bool rt_dnn_is_current(tn_ctx *ctx, const char *text);
#endif
