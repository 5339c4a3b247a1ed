/* ops_sequence.c — newer ops along sequences: LinearAttention, CausalConvWithState,
 * FlexAttention, SwiGLU. */
#include "lower/compose.h"
#include "lower/control.h"
#include <math.h>
#include <string.h>

static void need_equal(tn_ctx *ctx, const ir_node *n, const char *what, ix a, ix b) {
  if (a != b && ix_is_const(a) && ix_is_const(b)) lw_bad(ctx, n, "%s: %s and %s", what, ix_print(ctx, a), ix_print(ctx, b));
}
static void need_float(tn_ctx *ctx, const ir_node *n, int k) {
  if (!ir_is_float(n->in[k]->dtype)) lw_bad(ctx, n, "input '%s' of type %s", n->in[k]->name, ir_dtype_name(n->in[k]->dtype));
}

/* ---- LinearAttention ----
 *
 * query [B, T, H K], key [B, T, G K], value [B, T, G V], past [B, G, K, V], decay [B, T, G K or G],
 * beta [B, T, G or 1] -> output [B, T, H V], present [B, G, K, V]. Per batch and group a state
 * S [K, V] in f32, and for each t:
 *   S = exp(decay) S;  w = v or beta (v - S' k);  S = S + k w';  output = scale S' q */

typedef struct linear {
  ix batch, steps;
  int64_t heads, groups, depth, value_depth;
  bool gated, delta, per_depth; /* per_depth: a decay for every row of S */
  double scale;
} linear;

static linear linear_of(tn_ctx *ctx, const ir_node *n) {
  const ir_value *q = n->in[0], *k = n->in[1], *v = n->in[2];
  linear l = {.batch = q->dims[0], .steps = q->dims[1], .heads = ir_attr_get_int(n, "q_num_heads", 0), .groups = ir_attr_get_int(n, "kv_num_heads", 0)};
  const char *rule = ir_attr_get_string(n, "update_rule", "gated_delta");
  if (strcmp(rule, "linear") && strcmp(rule, "gated") && strcmp(rule, "delta") && strcmp(rule, "gated_delta")) lw_bad(ctx, n, "update_rule '%s'", rule);
  l.gated = strncmp(rule, "gated", 5) == 0;
  l.delta = strstr(rule, "delta") != NULL;
  if (l.groups < 1 || l.heads < 1 || l.heads % l.groups) lw_bad(ctx, n, "q_num_heads %lld, kv_num_heads %lld", (long long)l.heads, (long long)l.groups);
  if (l.gated != lw_has(n, 4) || l.delta != lw_has(n, 5)) lw_bad(ctx, n, "update_rule '%s' with%s decay and with%s beta", rule, lw_has(n, 4) ? "" : "out", lw_has(n, 5) ? "" : "out");
  int64_t columns[3] = {ir_dim(ctx, q, 2), ir_dim(ctx, k, 2), ir_dim(ctx, v, 2)};
  if (columns[0] % l.heads || columns[1] % l.groups || columns[2] % l.groups || columns[0] / l.heads != columns[1] / l.groups)
    lw_bad(ctx, n, "%lld, %lld and %lld columns do not fit the heads", (long long)columns[0], (long long)columns[1], (long long)columns[2]);
  l.depth = columns[1] / l.groups;
  l.value_depth = columns[2] / l.groups;
  l.scale = ir_attr_get_float(n, "scale", 0);
  if (l.scale == 0) l.scale = 1 / sqrt((double)l.depth);
  if (l.gated) {
    int64_t d = ir_dim(ctx, n->in[4], 2);
    l.per_depth = d != l.groups;
    if (d != l.groups && d != l.groups * l.depth) lw_bad(ctx, n, "%lld columns of decay", (long long)d);
  }
  return l;
}

static void linear_infer(tn_ctx *ctx, ir_node *n) {
  for (int k = 0; k < n->nin; k++) {
    if (!lw_has(n, k)) continue;
    lw_need_rank(ctx, n, k, k == 3 ? 4 : 3);
    need_float(ctx, n, k);
    if (k != 3) lw_need_same_type(ctx, n, 0, k);
    need_equal(ctx, n, "batches", n->in[k]->dims[0], n->in[0]->dims[0]);
    if (k != 3) need_equal(ctx, n, "steps", n->in[k]->dims[1], n->in[0]->dims[1]);
  }
  linear l = linear_of(ctx, n);
  ix state[4] = {l.batch, ix_index(ctx, l.groups), ix_index(ctx, l.depth), ix_index(ctx, l.value_depth)};
  for (int i = 1; i < 4 && lw_has(n, 3); i++) need_equal(ctx, n, "extents of the past", n->in[3]->dims[i], state[i]);
  if (l.delta && !ix_is_int(n->in[5]->dims[2], 1)) need_equal(ctx, n, "columns of beta", n->in[5]->dims[2], state[1]);
  tn_dtype t = n->in[0]->dtype;
  lw_set(n, 0, t, 3, (ix[]){l.batch, l.steps, ix_index(ctx, l.heads * l.value_depth)});
  lw_set(n, 1, lw_has(n, 3) ? n->in[3]->dtype : t, 4, state);
}

static void linear_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *ib = lw_b(b);
  linear l = linear_of(ctx, n);
  tn_dtype t = n->in[0]->dtype, c = lw_compute_type(t);
  ix shape[2] = {ix_index(ctx, l.depth), ix_index(ctx, l.value_depth)}, zero = ix_float(ctx, c, 0), at[4], d, m;
  ix batch = at[0] = ib_loop(ib, "b", l.batch), group = at[1] = ib_loop(ib, "g", ix_index(ctx, l.groups));
  ir_buf *s = ib_alloc(ib, "state", c, 2, shape, IR_LOCAL), *w = ib_alloc(ib, "w", c, 1, shape + 1, IR_LOCAL), *o = ib_alloc(ib, "o", c, 1, shape + 1, IR_LOCAL);
  lw_loops(b, "dm", 2, shape, at + 2);
  ib_store(ib, s, at + 2, lw_has(n, 3) ? ix_cast(ctx, c, lw_in(b, n, 3, at)) : zero);
  ib_end_n(ib, 2);
  ix step = ib_loop(ib, "t", l.steps);
#define IN(K, COLUMN) ix_cast(ctx, c, lw_in(b, n, K, (ix[]){batch, step, COLUMN}))
  ix first = ix_muli(ctx, group, l.depth), first_value = ix_muli(ctx, group, l.value_depth);
  if (l.gated || l.delta) { /* decay, and what the state already says about k */
    m = ib_loop(ib, "m", shape[1]);
    ib_store(ib, w, &m, zero);
    ib_end(ib);
    ix decay = l.gated && !l.per_depth ? ib_let(ib, "decay", ix_unary(ctx, IX_EXP, IN(4, group))) : NULL;
    d = ib_loop(ib, "d", shape[0]);
    if (l.per_depth) decay = ib_let(ib, "decay", ix_unary(ctx, IX_EXP, IN(4, ix_add(ctx, first, d))));
    ix k = l.delta ? ib_let(ib, "k", IN(1, ix_add(ctx, first, d))) : NULL;
    m = ib_loop(ib, "m", shape[1]);
    ix x = ib_load(ib, s, (ix[]){d, m});
    if (decay) {
      x = ib_let(ib, "x", ix_mul(ctx, x, decay));
      ib_store(ib, s, (ix[]){d, m}, x);
    }
    if (k) ib_store(ib, w, &m, ix_fma(ctx, x, k, ib_load(ib, w, &m)));
    ib_end_n(ib, 2);
  }
  m = ib_loop(ib, "m", shape[1]);
  ix v = IN(2, ix_add(ctx, first_value, m));
  if (l.delta) {
    ix beta = IN(5, ix_is_int(n->in[5]->dims[2], 1) ? ix_index(ctx, 0) : group);
    v = ix_mul(ctx, beta, ix_sub(ctx, v, ib_load(ib, w, &m)));
  }
  ib_store(ib, w, &m, v);
  ib_end(ib);
  d = ib_loop(ib, "d", shape[0]);
  ix k = ib_let(ib, "k", IN(1, ix_add(ctx, first, d)));
  m = ib_loop(ib, "m", shape[1]);
  ib_store(ib, s, (ix[]){d, m}, ix_fma(ctx, k, ib_load(ib, w, &m), ib_load(ib, s, (ix[]){d, m})));
  ib_end_n(ib, 2);
  ix h = ix_add(ctx, ix_muli(ctx, group, l.heads / l.groups), ib_loop(ib, "h", ix_index(ctx, l.heads / l.groups)));
  m = ib_loop(ib, "m", shape[1]);
  ib_store(ib, o, &m, zero);
  ib_end(ib);
  d = ib_loop(ib, "d", shape[0]);
  ix q = ib_let(ib, "q", IN(0, ix_add(ctx, ix_muli(ctx, h, l.depth), d)));
#undef IN
  m = ib_loop(ib, "m", shape[1]);
  ib_store(ib, o, &m, ix_fma(ctx, q, ib_load(ib, s, (ix[]){d, m}), ib_load(ib, o, &m)));
  ib_end_n(ib, 2);
  m = ib_loop(ib, "m", shape[1]);
  ix y = ix_mul(ctx, ix_float(ctx, c, (float)l.scale), ib_load(ib, o, &m));
  lw_out(b, n, 0, (ix[]){batch, step, ix_add(ctx, ix_muli(ctx, h, l.value_depth), m)}, ix_cast(ctx, t, y));
  ib_end_n(ib, 3);
  if (lw_wants(b, n, 1)) {
    lw_loops(b, "dm", 2, shape, at + 2);
    lw_out(b, n, 1, at, ix_cast(ctx, n->out[1]->dtype, ib_load(ib, s, at + 2)));
    ib_end_n(ib, 2);
  }
  ib_end_n(ib, 2);
}

/* Step by step, to be differentiated. */
static void linear_expand(ir_graph *g, ir_node *n) {
  tn_ctx *ctx = g->ctx;
  linear l = linear_of(ctx, n);
  int64_t batch = ir_dim(ctx, n->in[0], 0), count = ir_dim(ctx, n->in[0], 1), each = l.heads / l.groups;
  int64_t state[4] = {batch, l.groups, l.depth, l.value_depth};
  ir_value *s = n->in[3 < n->nin ? 3 : 0], **out = IR_NEW_ARRAY(ctx, ir_value *, count + 1);
  if (!lw_has(n, 3)) s = lw_op2(g, n, "Expand", lw_number(g, n->in[0], 0), ir_graph_ints(g, NULL, 4, state));
  s = lw_cast_node(g, n, s, n->in[0]->dtype);
#define STEP(K, ...) lw_reshape(g, n, lw_slice(g, n, n->in[K], 1, t, t + 1), 4, (int64_t[]){batch, l.groups, __VA_ARGS__})
  for (int64_t t = 0; t < count; t++) {
    ir_value *k = STEP(1, l.depth, 1), *w = STEP(2, 1, l.value_depth);
    if (l.gated) s = lw_op2(g, n, "Mul", s, lw_op1(g, n, "Exp", STEP(4, l.per_depth ? l.depth : 1, 1)));
    if (l.delta) {
      ir_value *beta = lw_slice(g, n, n->in[5], 1, t, t + 1);
      beta = lw_reshape(g, n, beta, 4, (int64_t[]){batch, ir_dim(ctx, beta, 2), 1, 1});
      w = lw_op2(g, n, "Mul", beta, lw_op2(g, n, "Sub", w, lw_op2(g, n, "MatMul", STEP(1, 1, l.depth), s)));
    }
    s = lw_op2(g, n, "Add", s, lw_op2(g, n, "Mul", k, w));
    ir_value *o = lw_op2(g, n, "MatMul", STEP(0, each, l.depth), s);
    o = lw_op2(g, n, "Mul", o, lw_number(g, o, l.scale));
    out[t] = lw_reshape(g, n, o, 3, (int64_t[]){batch, 1, l.heads * l.value_depth});
  }
#undef STEP
  if (n->out[0]) lw_replace(g, n, 0, count ? lw_concat(g, n, 1, (int)count, out) : lw_op2(g, n, "Expand", lw_number(g, n->in[0], 0), ir_graph_ints(g, NULL, 3, (int64_t[]){batch, 0, l.heads * l.value_depth})));
  if (n->nout > 1 && n->out[1]) lw_replace(g, n, 1, lw_cast_node(g, n, s, n->out[1]->dtype));
  n->dead = true;
}

/* ---- CausalConvWithState: X [B, C, L], W [C, 1, k], bias, past [B, C, k - 1] -> Y, last k - 1 of past and X ---- */

static void causal_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0], *w = n->in[1];
  const char *f = ir_attr_get_string(n, "activation", "none");
  if (strcmp(f, "none") && strcmp(f, "silu") && strcmp(f, "swish")) lw_bad(ctx, n, "activation '%s'", f);
  lw_need_rank(ctx, n, 0, 3);
  lw_need_rank(ctx, n, 1, 3);
  need_float(ctx, n, 0);
  for (int k = 1; k < n->nin; k++)
    if (lw_has(n, k)) lw_need_same_type(ctx, n, 0, k);
  need_equal(ctx, n, "channels of the input and the weights", x->dims[1], w->dims[0]);
  if (!ix_is_int(w->dims[1], 1)) lw_bad(ctx, n, "axis 1 of the weights has extent %s, not 1", ix_print(ctx, w->dims[1]));
  if (ix_is_int(w->dims[2], 0)) lw_bad(ctx, n, "a kernel without taps");
  ix state[3] = {x->dims[0], x->dims[1], ix_addi(ctx, w->dims[2], -1)};
  if (lw_has(n, 2)) {
    lw_need_rank(ctx, n, 2, 1);
    need_equal(ctx, n, "channels of the bias", n->in[2]->dims[0], x->dims[1]);
  }
  if (lw_has(n, 3)) {
    lw_need_rank(ctx, n, 3, 3);
    for (int i = 0; i < 3; i++) need_equal(ctx, n, "extents of the past", n->in[3]->dims[i], state[i]);
  }
  lw_set_like(n, 0, x->dtype, x);
  lw_set(n, 1, x->dtype, 3, state);
}
static void causal_expand(ir_graph *g, ir_node *n) {
  tn_ctx *ctx = g->ctx;
  ir_value *x = n->in[0], *past = lw_has(n, 3) ? n->in[3] : NULL;
  int64_t keep = ir_dim(ctx, n->in[1], 2) - 1, length = ir_dim(ctx, x, 2), channels = ir_dim(ctx, x, 1);
  bool wants_state = n->nout > 1 && n->out[1];
  ir_value *all = x; /* with what came before it: only where it is needed */
  if (past) all = lw_concat(g, n, 2, 2, (ir_value *[]){past, x});
  else if (wants_state && length < keep) {
    ir_value *zeros = lw_op2(g, n, "Expand", lw_number(g, x, 0), ir_graph_ints(g, NULL, 3, (int64_t[]){ir_dim(ctx, x, 0), channels, keep}));
    all = lw_concat(g, n, 2, 2, (ir_value *[]){zeros, x});
  }
  ir_node *conv = lw_node_n(g, n, "Conv", 3, (ir_value *[]){past ? all : x, n->in[1], lw_has(n, 2) ? n->in[2] : NULL}, 1);
  ir_attr_int(conv, "group", channels);
  if (!past) ir_attr_ints(conv, "pads", 2, (int64_t[]){keep, 0});
  ir_infer(ctx, conv);
  ir_value *y = conv->out[0];
  if (strcmp(ir_attr_get_string(n, "activation", "none"), "none") != 0) y = lw_op1(g, n, "Swish", y);
  if (wants_state) {
    int64_t end = ir_dim(ctx, all, 2);
    lw_replace(g, n, 1, lw_op1(g, n, "Identity", lw_slice(g, n, all, 2, end - keep, end)));
  }
  if (n->out[0]) lw_replace(g, n, 0, y);
}

/* ---- FlexAttention: softmax(score_mod(scale Q K')), prob_mod, times V ---- */

static void flex_expand(ir_graph *g, ir_node *n) {
  tn_ctx *ctx = g->ctx;
  if (n->nin != 3 || n->nout != 1 || !n->in[0] || !n->in[1] || !n->in[2] || !n->out[0]) lw_bad(ctx, n, "Q, K, V and Y are needed");
  for (int k = 0; k < 3; k++) {
    need_float(ctx, n, k);
    lw_need_rank(ctx, n, k, 4);
    lw_need_same_type(ctx, n, 0, k);
  }
  ir_value *q = n->in[0], *k = n->in[1], *v = n->in[2];
  tn_dtype t = q->dtype, p = lw_type_attr(ctx, n, "softmax_precision", t == TN_F64 ? TN_F64 : TN_F32);
  if (!ir_is_float(p)) lw_bad(ctx, n, "softmax_precision %s", ir_dtype_name(p));
  int64_t B = ir_dim(ctx, q, 0), H = ir_dim(ctx, q, 1), S = ir_dim(ctx, q, 2), D = ir_dim(ctx, q, 3), G = ir_dim(ctx, k, 1), T = ir_dim(ctx, k, 2), V = ir_dim(ctx, v, 3);
  if (G < 1 || H % G || ir_dim(ctx, v, 1) != G || ir_dim(ctx, v, 2) != T || ir_dim(ctx, k, 3) != D || ir_dim(ctx, k, 0) != B || ir_dim(ctx, v, 0) != B)
    lw_bad(ctx, n, "the shapes of Q, K and V do not fit together");
  double scale = sqrt(ir_attr_get_float(n, "scale", 1 / sqrt((double)D)));
  q = lw_reshape(g, n, lw_op2(g, n, "Mul", q, lw_number(g, q, scale)), 4, (int64_t[]){B, G, H / G * S, D});
  k = lw_transpose(g, n, lw_op2(g, n, "Mul", k, lw_number(g, k, scale)), (int64_t[]){0, 1, 3, 2});
  ir_value *s = lw_cast_node(g, n, lw_reshape(g, n, lw_op2(g, n, "MatMul", q, k), 4, (int64_t[]){B, H, S, T}), p), *got;
  v = lw_cast_node(g, n, v, p);
  for (int i = 0; i < 2; i++) { /* from here on types are known once the bodies are settled */
    const char *name = i ? "prob_mod" : "score_mod";
    if (i) s = lw_later_int(g, n, "Softmax", 1, &s, "axis", 3);
    if (!lw_has_attr(n, name)) continue;
    ir_graph *body = lw_body(ctx, n, name);
    if (body->noutputs != 1) lw_bad(ctx, n, "%s gives %d outputs", name, body->noutputs);
    lw_inline(g, n, body, name, 1, &s, &got);
    s = got;
  }
  s = lw_later(g, n, "Reshape", 2, (ir_value *[]){s, ir_graph_ints(g, NULL, 4, (int64_t[]){B, G, H / G * S, T})});
  ir_value *y = lw_later(g, n, "MatMul", 2, (ir_value *[]){s, v});
  y = lw_later(g, n, "Reshape", 2, (ir_value *[]){y, ir_graph_ints(g, NULL, 4, (int64_t[]){B, H, S, V})});
  lw_replace(g, n, 0, lw_later_int(g, n, "Cast", 1, &y, "to", lw_number_of_type(ctx, t)));
}
static void flex_infer(tn_ctx *ctx, ir_node *n) { /* asked by none but tools: the pass calls expand() first */
  ix dims[4];
  for (int i = 0; i < 4; i++) dims[i] = n->in[i == 3 ? 2 : 0]->dims[i];
  lw_set(n, 0, n->in[0]->dtype, 4, dims);
}

/* ---- SwiGLU: Swish(A) B ---- */

static void swiglu_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *a = n->in[0], *b = n->in[1];
  need_float(ctx, n, 0);
  lw_need_same_type(ctx, n, 0, 1);
  lw_need_rank(ctx, n, 1, a->rank);
  for (int i = 0; i < a->rank; i++) need_equal(ctx, n, "extents of A and B", a->dims[i], b->dims[i]);
  lw_set_like(n, 0, a->dtype, a);
}
static void swiglu_expand(ir_graph *g, ir_node *n) {
  ir_node *m = lw_node_n(g, n, "Swish", 1, n->in, 1);
  m->nattrs = n->nattrs;
  m->attrs = n->attrs;
  ir_infer(g->ctx, m);
  lw_replace(g, n, 0, lw_op2(g, n, "Mul", m->out[0], n->in[1]));
}

const ir_op lw_ops_sequence[] = {
    {.name = "LinearAttention", .kind = IR_OP_KERNEL, .since = 27, .min_in = 3, .max_in = 6, .min_out = 1, .max_out = 2,
     .attrs = "chunk_size:i kv_num_heads:i q_num_heads:i scale:f update_rule:s", .infer = linear_infer, .build = linear_build, .expand = linear_expand},
    {.name = "CausalConvWithState", .kind = IR_OP_COMPOSITE, .since = 27, .min_in = 2, .max_in = 4, .min_out = 1, .max_out = 2, .attrs = "activation:s", .infer = causal_infer, .expand = causal_expand},
    {.name = "FlexAttention", .domain = "ai.onnx.preview", .kind = IR_OP_CONTROL, .since = 1, .min_in = 3, .max_in = 3, .min_out = 1, .max_out = 1,
     .attrs = "prob_mod:g scale:f score_mod:g softmax_precision:i", .infer = flex_infer, .expand = flex_expand},
    {.name = "SwiGLU", .kind = IR_OP_COMPOSITE, .since = 28, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1, .attrs = "alpha:f", .infer = swiglu_infer, .expand = swiglu_expand},
    {0}};
