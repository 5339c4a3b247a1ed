/* cuda_blaslt.h — cuBLASLt's algorithms as rivals of generated products.
 *
 *   kernel ── rt_lt_product_of ──> problem ── descriptors ── heuristics ── algorithms
 *
 * The problem is read off the kernel's loops (lower/problem.h): any layout that is a column-major matrix, or one turned.
 * Heuristics take a handle, and a handle takes a device: without one there is no list (cublasLtCreate of 13.1 answers 1, "the
 * library was not initialized"). Descriptors, attributes and their values: NVIDIA's documentation of cuBLAS 13. */
#ifndef RT_CUDA_BLASLT_H
#define RT_CUDA_BLASLT_H
#include "runtime/cuda_cudnn.h"

typedef struct rt_lt_matrix { /* column-major: element (i, j) lies at `at` + i + j ld elements */
  tn_dtype dtype;
  int param;           /* of the kernel; -1: there is none */
  int64_t rows, cols, ld, at;
  int64_t step;        /* from one of the batch to the next */
  bool turned;         /* the product takes its transpose */
} rt_lt_matrix;

/* y = end(scale a b + c + bias), `batch` of them; a m x k, b k x n, y and c m x n, bias one value a row. Whichever side of the
 * kernel's product runs along the memory of its result is a. Sums in f32, f64 or i32, and so all that follows them. Operands of
 * 8-bit floats have scales on the device: one number each, or one for each row of a and each column of b. */
typedef struct rt_lt_product {
  int64_t m, n, k, batch;
  rt_lt_matrix a, b, c, y;
  tn_dtype sum, bias_dtype;
  int bias;            /* parameter; -1: none */
  int64_t bias_at;
  double scale;
  struct {
    int param;         /* -1: none */
    int64_t at;
  } scales[2];         /* of a, b: f32 */
  bool vectors;        /* both are vectors */
  bool relu, gelu;     /* cuBLASLt's GELU is the one by tanh */
  bool inexact;        /* the kernel's is another, by no more than f16 or bf16 round */
} rt_lt_product;

/* False with *reason. */
bool rt_lt_product_of(tn_ctx *ctx, const ir_kernel *k, rt_lt_product *p, const char **reason);
/* Algorithms for a problem, as the heuristics rank them; o->workspace 0: 64 MiB. An absent library, or no device, is no
 * error: `why`. Reductions of pieces in less precision than the sum's are left out. */
rt_cuda_candidates rt_lt_candidates(tn_ctx *ctx, const rt_lt_product *p, const rt_cuda_candidate_options *o);

/* "cublaslt 13.1.0 compute 68 algo 66 tile 20 splitk 1 reduction 0 swizzle 0 custom 0 stages 37 inner 0 cluster 2": the
 * numbers of an algorithm's configuration, from which it is made again. " fast" behind it: sums of 8-bit floats stay in the tensor
 * cores, with some 13 bits of fraction. */
typedef struct rt_lt_plan rt_lt_plan;
/* As rt_dnn_plan_new and those that follow it. */
rt_lt_plan *rt_lt_plan_new(tn_ctx *ctx, const rt_lt_product *p, const char *text, void *stream, const char **why);
void rt_lt_plan_free(rt_lt_plan *p);
int64_t rt_lt_plan_workspace(const rt_lt_plan *p);
int rt_lt_plan_run(rt_lt_plan *p, const unsigned long long *memory, unsigned long long workspace);
bool rt_lt_is_plan(const char *text);
bool rt_lt_is_current(tn_ctx *ctx, const char *text);
#endif
