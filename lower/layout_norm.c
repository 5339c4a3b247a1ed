/* layout_norm.c — see layout_norm.h.
 *
 *   mean = mean over pixels of x, per channel           then over the channels of a group, where that is several
 *   variance = mean over pixels of (x - mean)^2         the same
 *   y = (x - mean) (scale / sqrt(variance + epsilon)) + bias
 *
 * The kernel of the op as it is goes over one row, a channel or a group, after the other. In blocks of channels its
 * elements lie apart and several rows side by side, so each pass is a kernel of its own that takes a vector of channels:
 * two sums and what an epilogue does, which what follows joins. */
#include "lower/layout_norm.h"
#include "lower/compose.h"

typedef struct norm {
  tn_ctx *ctx;
  ir_graph *g;
  ir_node *n;      /* that is replaced */
  ir_value *x;     /* [N, C, pixels..] */
  int64_t images, channels, groups;
} norm;

static ir_value *two(const norm *m, const char *op, ir_value *a, ir_value *b) { return lw_op2(m->g, m->n, op, a, b); }

static ir_value *mean_over(const norm *m, ir_value *v, int first, int rank) {
  int64_t axes[IR_MAX_RANK];
  for (int i = first; i < rank; i++) axes[i - first] = i;
  return lw_op2_int(m->g, m->n, "ReduceMean", v, ir_graph_ints(m->g, NULL, rank - first, axes), "keepdims", 1);
}

/* [images, C, 1, ..], from as many elements or one for each group. */
static ir_value *per_channel(const norm *m, ir_value *v, int64_t images, bool by_group) {
  int64_t dims[IR_MAX_RANK] = {images, m->channels}, one[3] = {images, m->groups, 1}, each[3] = {images, m->groups, m->channels / m->groups};
  for (int i = 2; i < m->x->rank; i++) dims[i] = 1;
  if (by_group) v = two(m, "Expand", lw_reshape(m->g, m->n, v, 3, one), ir_graph_ints(m->g, NULL, 3, each));
  return lw_reshape(m->g, m->n, v, m->x->rank, dims);
}

/* The mean over pixels and the channels of a group, for each channel. */
static ir_value *mean_of(const norm *m, ir_value *v) {
  int64_t each[3] = {m->images, m->groups, m->channels / m->groups};
  v = mean_over(m, v, 2, m->x->rank);
  return m->groups == m->channels ? v : per_channel(m, mean_over(m, lw_reshape(m->g, m->n, v, 3, each), 2, 3), m->images, true);
}

static bool is_reshape_of(const ir_value *v, const ir_value *like) {
  const ir_node *n = v->nuses == 1 ? v->uses[0] : NULL;
  if (!n || !ir_node_is(n, "Reshape") || n->in[0] != v || n->out[0]->rank != like->rank) return false;
  for (int i = 0; i < like->rank; i++)
    if (n->out[0]->dims[i] != like->dims[i]) return false;
  return true;
}

/* What is normalised, and the node that gives the result in its shape. */
static bool find(norm *m, ir_node *n) {
  bool instance = ir_node_is(n, "InstanceNormalization");
  if (n->dead || (!instance && !ir_node_is(n, "GroupNormalization"))) return false;
  ir_value *x = n->in[0];
  m->n = n;
  if (instance && x->rank == 3 && !x->layout && x->def && ir_node_is(x->def, "Reshape") && is_reshape_of(n->out[0], x->def->in[0])) {
    m->groups = ir_dim(m->ctx, x, 1);
    m->x = x->def->in[0];
    m->n = n->out[0]->uses[0];
    if (!ir_static(x) || ir_dim(m->ctx, x, 0) != ir_dim(m->ctx, m->x, 0)) return false;
  } else m->x = x;
  if (!m->x->layout || m->x->rank < 3 || !ir_static(m->x) || (m->x->dtype != TN_F32 && m->x->dtype != TN_F64)) return false;
  m->images = ir_dim(m->ctx, m->x, 0);
  m->channels = ir_dim(m->ctx, m->x, 1);
  if (m->n == n) m->groups = instance ? m->channels : ir_attr_get_int(n, "num_groups", 1);
  return m->groups > 0 && m->channels % m->groups == 0;
}

ir_value *lw_norm_in_parts(tn_ctx *ctx, ir_graph *g, ir_node *n) {
  norm m = {.ctx = ctx, .g = g};
  if (!find(&m, n)) return NULL;
  bool each = ir_dim(ctx, n->in[1], 0) == m.channels; /* else one for a group */
  ir_value *x = m.x, *scale = per_channel(&m, n->in[1], 1, !each), *bias = per_channel(&m, n->in[2], 1, !each);
  ir_value *mean = mean_of(&m, x), *far = two(&m, "Sub", x, mean), *variance = mean_of(&m, two(&m, "Mul", far, far));
  ir_value *epsilon = lw_number(g, x, (float)ir_attr_get_float(n, "epsilon", 1e-5));
  ir_value *factor = two(&m, "Div", scale, lw_op1(g, m.n, "Sqrt", two(&m, "Add", variance, epsilon)));
  ir_value *y = two(&m, "Add", two(&m, "Mul", two(&m, "Sub", x, mean), factor), bias); /* the difference anew: it is never stored */
  lw_replace(g, m.n, 0, y);
  n->dead = true;
  return y;
}
