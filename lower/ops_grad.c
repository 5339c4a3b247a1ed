/* ops_grad.c — ops of the domain "tenon" that differentiation needs: what asks for a
 * gradient, what stops one, and what rules emit where ONNX has no op. */
#include "lower/grad.h"
#include <string.h>

/* ---- Gradient(y, seed, x..): for each x the gradient of sum(y * seed); seed may be omitted for one number.
 * memory: bytes that results on the way may take (grad.h) ---- */

static void gradient_infer(tn_ctx *ctx, ir_node *n) {
  if (ir_attr_get_int(n, "memory", 0) < 0) lw_bad(ctx, n, "memory is %lld", (long long)ir_attr_get_int(n, "memory", 0));
  if (n->nout != n->nin - 2) lw_bad(ctx, n, "%d gradients of %d values", n->nout, n->nin - 2);
  for (int k = 2; k < n->nin; k++) {
    if (!lw_has(n, k)) lw_bad(ctx, n, "input %d is omitted", k);
    lw_set_like(n, k - 2, n->in[k]->dtype, n->in[k]);
  }
  lw_gradients_check(ctx, n, n->in[0], n->in[1], n->nin - 2, n->in + 2);
}

static void gradient_expand(ir_graph *g, ir_node *n) {
  ir_value **dx = IR_NEW_ARRAY(g->ctx, ir_value *, n->nout);
  lw_gradients(g->ctx, g, n, n->in[0], n->in[1], n->nout, n->in + 2, ir_attr_get_int(n, "memory", 0), dx);
  for (int k = 0; k < n->nout; k++) {
    if (!n->out[k]) continue;
    for (int i = 0; i < g->noutputs; i++) /* an output has a value of its own */
      if (g->outputs[i] == n->out[k] && (!dx[k]->def || dx[k]->def->op->kind == IR_OP_GRADIENT)) dx[k] = lw_op1(g, n, "Identity", dx[k]);
    lw_replace(g, n, k, dx[k]);
  }
  n->dead = true;
}

/* ---- StopGradient, Checkpoint; Again(x, after): x, once `after` is there ---- */

static void same_infer(tn_ctx *ctx, ir_node *n) {
  (void)ctx;
  lw_set_like(n, 0, n->in[0]->dtype, n->in[0]);
}
static ix same_value(lw_build *b, ir_node *n, int out, const ix *index) {
  (void)out;
  return lw_in(b, n, 0, index);
}

/* ---- PutSlice: zeros of `shape`, but the input at starts + i * steps ---- */

static int put_numbers(tn_ctx *ctx, const ir_node *n, const int64_t **start, const int64_t **step, const int64_t **shape) {
  int rank = n->in[0]->rank;
  if (ir_attr_get_ints(n, "starts", start) != rank || ir_attr_get_ints(n, "steps", step) != rank || ir_attr_get_ints(n, "shape", shape) != rank)
    lw_bad(ctx, n, "starts, steps and shape need %d entries", rank);
  return rank;
}
static void put_slice_infer(tn_ctx *ctx, ir_node *n) {
  const int64_t *start, *step, *shape;
  int rank = put_numbers(ctx, n, &start, &step, &shape);
  ix dims[IR_MAX_RANK];
  for (int i = 0; i < rank; i++) {
    int64_t d = ir_dim(ctx, n->in[0], i), last = start[i] + (d - 1) * step[i];
    if (shape[i] < 0 || step[i] == 0 || (d > 0 && (start[i] < 0 || start[i] >= shape[i] || last < 0 || last >= shape[i])))
      lw_bad(ctx, n, "axis %d: %lld elements from %lld by %lld do not fit into %lld", i, (long long)d, (long long)start[i], (long long)step[i], (long long)shape[i]);
    dims[i] = ix_index(ctx, shape[i]);
  }
  lw_set(n, 0, n->in[0]->dtype, rank, dims);
}
static ix put_slice_value(lw_build *b, ir_node *n, int out, const ix *index) {
  (void)out;
  tn_ctx *ctx = lw_ctx(b);
  const int64_t *start, *step, *shape;
  int rank = put_numbers(ctx, n, &start, &step, &shape);
  ix at[IR_MAX_RANK], inside = ix_bool(ctx, true), zero = ix_index(ctx, 0);
  for (int i = 0; i < rank; i++) {
    const ir_value *x = n->in[0];
    if (ix_is_int(x->dims[i], 0)) return lw_zero(ctx, x->dtype);
    if (ix_is_int(x->dims[i], 1)) { /* no stride to carry around */
      inside = ix_and(ctx, inside, ix_eq(ctx, index[i], ix_index(ctx, start[i])));
      at[i] = zero;
      continue;
    }
    ix p = ix_addi(ctx, index[i], -start[i]);
    if (step[i] < 0) p = ix_sub(ctx, zero, p);
    int64_t by = step[i] < 0 ? -step[i] : step[i];
    at[i] = ix_divi(ctx, p, by);
    inside = ix_and(ctx, inside, ix_and(ctx, ix_eq(ctx, ix_remi(ctx, p, by), zero), ix_within(ctx, at[i], zero, x->dims[i])));
  }
  return ix_select(ctx, inside, lw_in(b, n, 0, at), lw_zero(ctx, n->in[0]->dtype));
}

#define MOVE(NAME, ATTRS, RULE, GRAD, GRAD_BUILD) \
  {.name = NAME, .domain = "tenon", .kind = IR_OP_MOVEMENT, .since = 1, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .attrs = ATTRS, .infer = RULE##_infer, .value = RULE##_value, .grad = GRAD, .grad_build = GRAD_BUILD}
const ir_op lw_ops_grad[] = {
    {.name = "Gradient", .domain = "tenon", .kind = IR_OP_GRADIENT, .since = 1, .min_in = 1, .max_in = -1, .min_out = 1, .max_out = -1, .attrs = "memory:i", .infer = gradient_infer, .expand = gradient_expand},
    MOVE("StopGradient", "", same, "", NULL),
    MOVE("Checkpoint", "", same, NULL, lw_grad_checkpoint),
    {.name = "Again", .domain = "tenon", .kind = IR_OP_MOVEMENT, .since = 1, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1, .infer = same_infer, .value = same_value, .grad = "da = dy"},
    {.name = "Inverse", .domain = "tenon", .kind = IR_OP_KERNEL, .since = 1, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .infer = lw_inverse_infer, .build = lw_inverse_build, .grad_build = lw_grad_inverse},
    MOVE("PutSlice", "starts:I steps:I shape:I", put_slice, NULL, lw_grad_put_slice),
    {0}};
