/* cuda_library.c — see cuda_library.h. */
#include "runtime/cuda_library.h"
#include <string.h>

struct rt_cuda_step {
  rt_dnn_plan *dnn; /* one of both */
  rt_lt_plan *lt;
};

rt_cuda_candidates rt_cuda_library_candidates(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const rt_cuda_candidate_options *o) {
  rt_dnn_problem d;
  rt_lt_product p;
  const char *no_problem = NULL, *no_product = NULL;
  rt_cuda_candidates dnn = {0}, lt = {0};
  if (rt_dnn_problem_of(ctx, k, &d, &no_problem)) dnn = rt_dnn_candidates(ctx, t, &d, o);
  else dnn.why = ir_format(ctx, "cuDNN: %s", no_problem);
  if (rt_lt_product_of(ctx, k, &p, &no_product)) lt = rt_lt_candidates(ctx, &p, o);
  else lt.why = ir_format(ctx, "cuBLASLt: %s", no_product);
  rt_cuda_candidates r = {.n = dnn.n + lt.n, .list = IR_NEW_ARRAY(ctx, rt_cuda_candidate, dnn.n + lt.n + 1)};
  if (dnn.n) memcpy(r.list, dnn.list, (size_t)dnn.n * sizeof *r.list);
  if (lt.n) memcpy(r.list + dnn.n, lt.list, (size_t)lt.n * sizeof *r.list);
  r.inexact = dnn.inexact + lt.inexact;
  r.refused = dnn.refused + lt.refused;
  r.large = dnn.large + lt.large;
  if (!r.n) r.why = ir_format(ctx, "%s; %s", dnn.why, lt.why);
  return r;
}

bool rt_cuda_is_library(const char *text) { return rt_dnn_is_plan(text) || rt_lt_is_plan(text); }

bool rt_cuda_library_fits(tn_ctx *ctx, const ir_kernel *k, const char *text) {
  rt_dnn_problem d;
  rt_lt_product p;
  const char *why;
  return rt_dnn_is_plan(text) ? rt_dnn_is_current(ctx, text) && rt_dnn_problem_of(ctx, k, &d, &why) : rt_lt_is_current(ctx, text) && rt_lt_product_of(ctx, k, &p, &why);
}

rt_cuda_step *rt_cuda_step_new(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const char *text, void *stream, const char **why) {
  rt_cuda_step *s = IR_NEW(ctx, rt_cuda_step);
  rt_dnn_problem d;
  rt_lt_product p;
  *s = (rt_cuda_step){0};
  if (rt_dnn_is_plan(text) && rt_dnn_problem_of(ctx, k, &d, why)) s->dnn = rt_dnn_plan_new(ctx, t, &d, text, stream, why);
  else if (rt_lt_is_plan(text) && rt_lt_product_of(ctx, k, &p, why)) s->lt = rt_lt_plan_new(ctx, &p, text, stream, why);
  return s->dnn || s->lt ? s : NULL;
}

void rt_cuda_step_free(rt_cuda_step *s) {
  if (s->dnn) rt_dnn_plan_free(s->dnn);
  if (s->lt) rt_lt_plan_free(s->lt);
}

int64_t rt_cuda_step_workspace(const rt_cuda_step *s) { return s->dnn ? rt_dnn_plan_workspace(s->dnn) : rt_lt_plan_workspace(s->lt); }

int rt_cuda_step_run(rt_cuda_step *s, const unsigned long long *memory, unsigned long long workspace) {
  return s->dnn ? rt_dnn_plan_run(s->dnn, memory, workspace) : rt_lt_plan_run(s->lt, memory, workspace);
}
