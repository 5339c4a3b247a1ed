/* cuda_cudnn_internal.h — what cuda_cudnn.c (plans) and cuda_cudnn_graph.c (operation graphs) share. */
#ifndef RT_CUDA_CUDNN_INTERNAL_H
#define RT_CUDA_CUDNN_INTERNAL_H
#include "runtime/cuda_cudnn.h"

/* Types of descriptors and of attributes' values, by cuDNN's numbers. */
enum {
  DNN_POINTWISE = 0, DNN_CONVOLUTION = 1, DNN_ENGINE = 2, DNN_CONFIG = 3, DNN_HEURISTICS = 4, DNN_PLAN = 5, DNN_KNOB = 7, DNN_OP_CONV = 10, DNN_OP_POINTWISE = 13, DNN_GRAPH = 15, DNN_VARIANT = 16,
  DNN_TENSOR = 17, DNN_MATMUL = 18, DNN_OP_MATMUL = 19, DNN_REDUCTION = 21, DNN_OP_REDUCTION = 22, DNN_DEVICE = 38, DNN_OP_ATTENTION = 41, DNN_OP_BAND = 44
};
enum {
  DNN_T_DATA_TYPE = 1, DNN_T_BOOLEAN = 2, DNN_T_INT64 = 3, DNN_T_FLOAT = 4, DNN_T_DOUBLE = 5, DNN_T_POINTER = 6, DNN_T_CONV_MODE = 7, DNN_T_HEUR_MODE = 8, DNN_T_KNOB = 9, DNN_T_NUMERICAL = 11,
  DNN_T_POINTWISE_MODE = 14, DNN_T_DESCRIPTOR = 15, DNN_T_REDUCTION = 18, DNN_T_BEHAVIOR = 19, DNN_T_CHAR = 24
};
enum { DNN_FAILED = -1, DNN_FORMS = 2, DNN_MODES = 3, DNN_MOST = 64, DNN_OPERANDS = 3 + RT_DNN_STEPS };

typedef struct dnn { /* the library in use: descriptors are kept, and destroyed together */
  tn_ctx *ctx;
  int version;
  int (*create)(int type, void **d);
  int (*destroy)(void *d);
  int (*finalize)(void *d);
  int (*set)(void *d, int attribute, int type, int64_t n, const void *values);
  int (*get)(void *d, int attribute, int type, int64_t room, int64_t *n, void *values);
  void (*message)(char *text, size_t size);
  int n, room;
  void **made;
  int status;  /* of the first call that failed; calls after it do nothing */
  int ntried;
  const char *tried[DNN_FORMS * DNN_MODES * DNN_MOST]; /* texts of configurations, those left out as well */
  char why[256], refusal[160]; /* of that call; of the last plan refused */
} dnn;

/* Null, and l->status, where it fails. */
void *dnn_make(dnn *l, int type);
void dnn_put(dnn *l, void *d, int attribute, int type, int64_t n, const void *values);
void dnn_put_enum(dnn *l, void *d, int attribute, int type, int value);
void dnn_put_int(dnn *l, void *d, int attribute, int64_t value);
void dnn_put_descriptor(dnn *l, void *d, int attribute, void *value);
void dnn_finish(dnn *l, void *d, const char *what);

/* An operation graph, and what its tensors take: memory of a parameter, `at` bytes behind its start, or a number on the host. */
typedef struct dnn_graph {
  void *graph;
  const char *form; /* of several graphs for a problem: stands in names of plans */
  int n;
  int64_t id[DNN_OPERANDS], at[DNN_OPERANDS];
  int param[DNN_OPERANDS];
  const void *host[DNN_OPERANDS]; /* or null; in l->ctx */
} dnn_graph;
/* Form 0 <= i < DNN_FORMS of p's graph; false where this version has none such, or l->status. */
bool dnn_graph_of(dnn *l, const rt_dnn_problem *p, int i, dnn_graph *g);
#endif
