/* layout.c — a layout for every edge.
 *
 * Every kernel is correct in any layout (operands are read by logical index), so this
 * pass only chooses where data is fast. Convolutions want channels innermost in blocks
 * of one vector (NCHW16c on AVX-512: Georganas et al., "Anatomy of High-Performance Deep
 * Learning Convolutions on SIMD Architectures", 2018); what follows them elementwise, by
 * pooling or by concatenation keeps their layout, until an op that mixes axes or the
 * caller wants it plain. Inputs and outputs of the graph stay row-major. */
#include "lower/lower.h"
#include "ir/picked.h"
#include "lower/build.h"
#include "lower/layout_norm.h"
#include "lower/region.h"
#include <string.h>

/* ---- the op that copies into another layout ---- */

static void relayout_infer(tn_ctx *ctx, ir_node *n) {
  (void)ctx;
  lw_set_like(n, 0, n->in[0]->dtype, n->in[0]);
}
static ix relayout_value(lw_build *b, ir_node *n, int out, const ix *index) {
  (void)out;
  return lw_in(b, n, 0, index);
}
const ir_op lw_ops_layout[] = {
    {.name = "Relayout", .domain = "tenon", .kind = IR_OP_MOVEMENT, .since = 1, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
     .infer = relayout_infer, .value = relayout_value},
    {0}};

/* ---- the choice ---- */

enum { MIN_ACTIVATION = 3, MAX_ACTIVATION = 5 }; /* ranks of what convolutions of one to three dimensions read and write */

typedef struct chooser {
  tn_ctx *ctx;
  ir_graph *g;
  int64_t block;              /* channels in a block; 0: channels last */
  const ir_layout *layout[MAX_ACTIVATION + 1]; /* of activations, by rank; null: stays row-major */
  const ir_layout *picked;    /* of bytes and what is made of them, where convolutions pick channels from groups of 16 */
  bool free_io;
} chooser;

static bool is_output(const chooser *c, const ir_value *v) {
  if (c->free_io) return false;
  for (int i = 0; i < c->g->noutputs; i++)
    if (c->g->outputs[i] == v) return true;
  return false;
}

/* Floats, and what quantisation makes of them. */
static bool suits(tn_dtype t) { return ir_is_float(t) || t == TN_U8 || t == TN_I8 || t == TN_I16 || t == TN_I32; }

static const ir_layout *layout_of(const chooser *c, const ir_value *v) {
  if (c->picked && v->rank == 4 && !ir_is_float(v->dtype) && ir_static(v) && ir_dim(c->ctx, v, 1) % IR_PICKED_GROUP == 0) return c->picked;
  return v->rank <= MAX_ACTIVATION ? c->layout[v->rank] : NULL;
}

static bool has_blocks(const chooser *c, const ir_value *v) {
  return v && layout_of(c, v) && ir_static(v) && suits(v->dtype) && v->kind == IR_VALUE_NODE && !v->data &&
         ir_dim(c->ctx, v, 1) >= (c->block ? c->block : 4);
}
static bool eligible(const chooser *c, const ir_value *v) { return has_blocks(c, v) && !is_output(c, v); }

static bool same_dims(const ir_value *a, const ir_value *b) {
  if (a->rank != b->rank) return false;
  for (int i = 0; i < a->rank; i++)
    if (a->dims[i] != b->dims[i]) return false;
  return true;
}

static bool is_picked(const ir_node *n) { return strcmp(n->op->name, "ConvPicked") == 0; }

static bool is_conv(const ir_node *n) { return ir_node_is(n, "Conv") || strcmp(n->op->name, "ConvWide") == 0 || is_picked(n) || ir_node_is(n, "ConvInteger") || (ir_node_is(n, "ConvTranspose") && ir_attr_get_int(n, "group", 1) == 1); }

static bool is_unfold(const ir_node *n) { return strcmp(n->op->name, "Unfold") == 0; }

/* A convolution wants its input blocked when it reduces over channels or works on each. */
static bool wants_blocked(const chooser *c, const ir_node *n) {
  return (is_conv(n) || is_unfold(n)) && layout_of(c, n->in[0]) && ir_static(n->in[0]) && suits(n->in[0]->dtype) &&
         ir_dim(c->ctx, n->in[0], 1) >= (c->block ? c->block : 4);
}

/* Results of fewer channels than a block holds are made along the rows of the picture, by vectors of pixels: from rows, as
 * pixels of blocks would be gathered one by one. */
static bool few_results(const chooser *c, const ir_node *n) {
  const ir_value *x = n->in[0], *y = n->out[0];
  return c->block && ir_node_is(n, "Conv") && x->dtype == TN_F32 && layout_of(c, x) && ir_static(x) && ir_static(y) && ir_dim(c->ctx, y, 1) < c->block &&
         ir_dim(c->ctx, y, -1) >= c->block && ir_attr_get_int(n, "group", 1) == 1;
}

/* A convolution of bytes or words takes several channels at once: these lie side by side, however few. */
static bool few_integers(const chooser *c, const ir_node *n) {
  const ir_value *x = n->in[0];
  return c->block && n->out[0]->dtype == TN_I32 && x->rank == 4 && ir_static(x) && !x->layout && ir_attr_get_int(n, "group", 1) == 1 &&
         ir_dim(c->ctx, x, 1) < c->block && ir_dim(c->ctx, x, 1) % 2 == 0;
}

static ir_value *relayout(chooser *c, ir_node *before, ir_value *v, const ir_layout *layout) {
  for (int i = 0; i < v->nuses; i++) /* made already for another use */
    if (v->uses[i] && strcmp(v->uses[i]->op->name, "Relayout") == 0 && v->uses[i]->out[0]->layout == layout) return v->uses[i]->out[0];
  ir_node *n = lw_node_n(c->g, before, "tenon:Relayout", 1, &v, 1);
  ir_infer(c->ctx, n);
  n->out[0]->layout = layout;
  IR_PUSH(c->ctx, v->uses, v->nuses, n);
  return n->out[0];
}

/* A slice of channels that begins with a block. */
static bool whole_blocks(const chooser *c, const ir_node *n) {
  int64_t start, axis, step = 1;
  if (!c->block || n->nin < 4 || ir_known_ints(c->ctx, n->in[1], &start, 1) != 1 || ir_known_ints(c->ctx, n->in[3], &axis, 1) != 1) return false;
  if (lw_has(n, 4) && ir_known_ints(c->ctx, n->in[4], &step, 1) != 1) return false;
  return axis == 1 && step == 1 && start >= 0 && start % c->block == 0;
}

/* ---- channels last ---- */

/* Gives the values between v and what lies row-major the layouts that make the movements there aliases: channels last. Up
 * through the producers of v, or down through its only users; all as it was where that is not possible. */
static bool view_last(chooser *c, ir_value *v, bool up) {
  static const char *const last[] = {[3] = "perm 0 2 1", [4] = "perm 0 2 3 1"};
  int64_t at;
  if (v->rank < 3 || v->rank > 4 || v->layout || v->kind != IR_VALUE_NODE || v->packed || v->nuses != 1 || !v->uses[0] || !ir_static(v)) return false;
  v->layout = ir_layout_parse(c->ctx, last[v->rank]);
  ir_node *n = up ? v->def : v->uses[0];
  bool moves = n->op->kind == IR_OP_MOVEMENT && n->op->value && n->nin && n->nout == 1 && (up || n->in[0] == v);
  ir_value *next = !moves ? NULL : up ? n->in[0] : n->out[0];
  if (next && !next->layout && lw_is_alias(c->ctx, n, &at) && at == 0) return true;
  if (next && view_last(c, next, up)) {
    if (lw_is_alias(c->ctx, n, &at) && at == 0) return true;
    for (ir_value *w = next; w->layout; w = up ? w->def->in[0] : w->uses[0]->out[0]) w->layout = NULL;
  }
  v->layout = NULL;
  return false;
}

/* A function of what n makes, behind aliases, goes before them: into n's kernel. */
static void function_first(chooser *c, ir_node *n) {
  ir_value *y = n->out[0], *end = y->uses[0]->out[0];
  ir_node *first = y->uses[0];
  while (end->layout) end = end->uses[0]->out[0];
  ir_node *u = end->nuses == 1 ? end->uses[0] : NULL;
  if (!u || u->op->kind != IR_OP_ELEMENTWISE || u->nin != 1 || u->nout != 1 || u->out[0]->dtype != y->dtype || u->out[0]->layout || is_output(c, u->out[0])) return;
  ir_graph_replace(c->g, u->out[0], end);
  u->in[0] = y;
  first->in[0] = u->out[0];
  lw_set_like(u, 0, y->dtype, y);
  u->out[0]->layout = y->layout;
  ir_graph_analyse(c->g);
}

/* A depthwise convolution between movements from and to channels that lie last, as those between the layers of a
 * transformer, takes them so: as fast as blocks, and nothing moves. */
static bool channels_last(chooser *c, ir_node *n) {
  ir_value *x = n->in[0], *y = n->out[0];
  if (!c->block || c->free_io || !ir_node_is(n, "Conv") || x->rank != 4 || x->dtype != TN_F32 || !ir_static(x) || !n->in[1]->packed || is_output(c, y)) return false;
  int64_t channels = ir_dim(c->ctx, x, 1);
  if (channels % c->block || ir_attr_get_int(n, "group", 1) != channels || ir_dim(c->ctx, y, 1) != channels) return false;
  if (!view_last(c, x, true)) return false;
  if (view_last(c, y, false)) {
    function_first(c, n);
    return true;
  }
  for (ir_value *w = x; w->layout; w = w->def->in[0]) w->layout = NULL;
  return false;
}

/* ---- the pass ---- */

/* What a convolution makes for the caller is made in blocks and turned by a kernel of its own: as vectors along its rows
 * it would be gathered from the operand's blocks, or weights, for each of its channels. */
static void results_apart(chooser *c) {
  ir_graph *g = c->g;
  for (int i = 0; i < g->noutputs && !c->free_io && !g->nupdates; i++) {
    ir_value *v = g->outputs[i];
    if (!has_blocks(c, v) || v->layout || v->packed || !is_conv(v->def) || !wants_blocked(c, v->def)) continue;
    ir_node *n = ir_node_new(g, "tenon:Relayout", "plain", 1, &v, 1);
    ir_infer(c->ctx, n);
    for (int k = i; k < g->noutputs; k++)
      if (g->outputs[k] == v) g->outputs[k] = n->out[0];
    n->out[0]->name = v->name;
  }
  ir_graph_analyse(g);
}

static bool keeps_layout(const chooser *c, const ir_node *n) {
  switch (n->op->kind) {
  case IR_OP_ELEMENTWISE: return true;
  case IR_OP_WINDOW: return !is_conv(n); /* pooling, resizing */
  case IR_OP_MOVEMENT: {
    if (strcmp(n->op->name, "Pad") == 0) return n->in[0]->rank > 1 && n->in[0]->dims[0] == n->out[0]->dims[0] && n->in[0]->dims[1] == n->out[0]->dims[1];
    if (strcmp(n->op->name, "Slice") == 0) return n->in[0]->rank > 1 && (n->in[0]->dims[1] == n->out[0]->dims[1] /* of pixels */ || whole_blocks(c, n));
    if (strcmp(n->op->name, "Concat") != 0) return false;
    int64_t axis = ir_attr_get_int(n, "axis", 1);
    return axis == 1 || axis == 1 - n->out[0]->rank;
  }
  case IR_OP_KERNEL: return strcmp(n->op->name, "BatchNormalizationTraining") == 0;
  case IR_OP_REDUCTION: return strcmp(n->op->name, "GlobalAveragePool") == 0 || strcmp(n->op->name, "GlobalMaxPool") == 0;
  default: return false;
  }
}

/* A normalisation over pixels goes by its parts, which keep the layout. */
static bool norm_in_parts(chooser *c, ir_node *n) {
  int first = c->g->nnodes;
  const ir_value *y = lw_norm_in_parts(c->ctx, c->g, n);
  if (!y) return false;
  for (int i = first; i < c->g->nnodes; i++) {
    ir_value *v = c->g->nodes[i]->out[0];
    if (same_dims(v, y) && eligible(c, v)) v->layout = layout_of(c, v);
  }
  ir_graph_analyse(c->g);
  return true;
}

void lw_pass_layout(tn_ctx *ctx, ir_graph *g, const lw_options *options) {
  if (!options->target || options->unscheduled || options->layout == LW_LAYOUT_NCHW) return;
  chooser c = {.ctx = ctx, .g = g, .free_io = options->free_io};
  if (options->layout == LW_LAYOUT_NHWC) {
    static const char *const last[] = {[3] = "perm 0 2 1", [4] = "perm 0 2 3 1", [5] = "perm 0 2 3 4 1"};
    for (int rank = MIN_ACTIVATION; rank <= MAX_ACTIVATION; rank++) c.layout[rank] = ir_layout_parse(ctx, last[rank]);
  } else {
    c.block = cg_target_lanes(options->target, TN_F32);
    if (c.block < 4) return;
    for (int rank = MIN_ACTIVATION; rank <= MAX_ACTIVATION; rank++) c.layout[rank] = ir_layout_blocked(ctx, rank, 1, c.block);
    for (int i = 0; i < g->nnodes && !c.picked; i++)
      if (!g->nodes[i]->dead && is_picked(g->nodes[i])) c.picked = ir_layout_blocked(ctx, 4, 1, IR_PICKED_GROUP);
  }
  ir_graph_analyse(g);
  lw_mark_packed(g);
  if (!options->attention_apart) results_apart(&c);
  int count = g->nnodes;
  for (int i = 0; i < count; i++) {
    ir_node *n = g->nodes[i];
    if (n->nout && n->out[0] && n->out[0]->packed) continue;
    if (options->layout == LW_LAYOUT_AUTO && channels_last(&c, n)) continue;
    if (!options->attention_apart && norm_in_parts(&c, n)) continue;
    if (is_conv(n) || is_unfold(n)) {
      /* a result without blocks is made along its rows: from rows, unless weights can be packed for it */
      if (!options->attention_apart && few_results(&c, n)) {
        if (n->in[0]->layout) n->in[0] = relayout(&c, n, n->in[0], NULL);
        continue;
      }
      bool fits = is_unfold(n) || n->in[1]->packed || eligible(&c, n->out[0]);
      if (wants_blocked(&c, n) && fits && !n->in[0]->layout) {
        if (c.free_io && n->in[0]->kind == IR_VALUE_INPUT) n->in[0]->layout = layout_of(&c, n->in[0]);
        else n->in[0] = relayout(&c, n, n->in[0], layout_of(&c, n->in[0]));
      } else if (few_integers(&c, n) && fits) {
        n->in[0] = relayout(&c, n, n->in[0], ir_layout_blocked(ctx, 4, 1, ir_dim(ctx, n->in[0], 1)));
      }
      if (eligible(&c, n->out[0])) n->out[0]->layout = layout_of(&c, n->out[0]);
      continue;
    }
    if (lw_is_region(n)) { /* what is inside takes tensors as rows */
      for (int k = 0; k < n->nin; k++)
        if (n->in[k] && n->in[k]->layout) n->in[k] = relayout(&c, n, n->in[k], NULL);
      continue;
    }
    if (!keeps_layout(&c, n)) continue;
    bool any = false, all = true;
    for (int k = 0; k < n->nin; k++) {
      const ir_value *v = n->in[k];
      if (!v || ir_value_source(v)) continue;
      bool full = n->op->kind != IR_OP_ELEMENTWISE || same_dims(v, n->out[0]);
      any |= v->layout && full;
      all &= v->layout || !full;
    }
    if (!any || (n->op->kind == IR_OP_MOVEMENT && !all)) continue;
    for (int k = 0; k < n->nout; k++)
      if (eligible(&c, n->out[k]) && !n->out[k]->layout) n->out[k]->layout = layout_of(&c, n->out[k]);
  }
  ir_graph_sort(g);
  ir_graph_analyse(g);
}
