/* extent.c — see extent.h. */
#include "lower/extent.h"
#include "lower/compose.h"
#include "lower/control.h"
#include "lower/list.h"
#include "lower/positions.h"
#include <math.h>
#include <string.h>

static bool is_named(const ir_node *n, const char *name) { return n && n->op->domain && strcmp(n->op->domain, "tenon") == 0 && strcmp(n->op->name, name) == 0; }

bool lw_is_sized(const ir_value *v) { return v && is_named(v->def, "Sized"); }

/* An operand with numbers that say how long the result is. */
static int count_operand(const ir_node *n) {
  static const char *const ops[] = {"TopK", "Expand", "Range", "Reshape"};
  for (int i = 0; i < IR_COUNT(ops); i++)
    if (ir_node_is(n, ops[i])) return n->nin > 1 ? 1 : -1;
  return ir_node_is(n, "ConstantOfShape") && n->nin ? 0 : -1;
}

/* The node that puts a shape together of single numbers, some of which a run finds; NULL: not made so. */
static const ir_node *parts_of_shape(const ir_value *v) {
  const ir_node *n = v->def;
  while (n && ir_node_is(n, "Identity")) n = n->in[0]->def;
  if (!n || v->data || v->rank != 1 || !ir_node_is(n, "Concat") || n->nin > IR_MAX_RANK) return NULL;
  for (int i = 0; i < n->nin; i++)
    if (n->in[i]->rank != 1 || !ix_is_int(n->in[i]->dims[0], 1)) return NULL;
  return n;
}

/* A number of such a shape, by a known place: the part itself, which may be known. */
static ir_value *part_of_shape(const ir_node *n) {
  int64_t i;
  if (!ir_node_is(n, "Gather") || !n->in[0] || !n->in[1] || !n->in[1]->data || !lw_known_int(n->in[1], &i)) return NULL;
  const ir_node *shape = parts_of_shape(n->in[0]);
  if (shape && i < 0) i += shape->nin;
  return shape && i >= 0 && i < shape->nin ? shape->in[i] : NULL;
}

/* A shape one number of which a run finds: the others, the most that can be in place of this one (INT64_MAX: not known), and its axis; else -1. */
static int counted_axis(const ir_value *shape, int64_t *dims, ir_value **length) {
  const ir_node *n = parts_of_shape(shape);
  int axis = -1;
  if (!n) {
    int64_t d;
    if (shape->rank != 1 || !ix_const_value(shape->dims[0], &d) || d != 1) return -1;
    dims[0] = lw_most(shape);
    *length = (ir_value *)(uintptr_t)shape;
    return 0;
  }
  for (int i = 0; i < n->nin; i++) {
    bool known = n->in[i]->data && lw_known_int(n->in[i], &dims[i]);
    if (!known) dims[i] = lw_most(n->in[i]);
    if (!known && axis >= 0) return -1;
    if (!known) axis = i, *length = n->in[i];
  }
  return axis;
}

/* Nodes whose results are as long as a number that a run finds says, of which the most is known. */
static bool is_counted(const ir_node *n) {
  int k = count_operand(n);
  double d;
  int64_t dims[IR_MAX_RANK];
  ir_value *length;
  if (k < 0 || !n->in[k] || n->in[k]->rank < 0 || n->in[k]->data || lw_is_sized(n->in[k])) return false;
  if (ir_node_is(n, "TopK")) return n->in[0]->rank > 0 && lw_most(n->in[1]) < INT64_MAX;
  if (ir_node_is(n, "Range")) return n->in[1]->dtype == TN_I64 && lw_most(n->in[1]) < INT64_MAX && n->in[0]->data && ir_known_float(n->in[0], &d) && d == 0 && n->in[2]->data && ir_known_float(n->in[2], &d) && d == 1;
  int axis = counted_axis(n->in[k], dims, &length);
  return axis >= 0 && (dims[axis] < INT64_MAX || ir_node_is(n, "Reshape"));
}

/* As many operands as the operator takes; ir_infer tells of others. */
static bool is_complete(const ir_node *n) {
  if (n->nin < n->op->min_in || (n->op->max_in >= 0 && n->nin > n->op->max_in)) return false;
  for (int i = 0; i < n->op->min_in; i++)
    if (!n->in[i]) return false;
  return true;
}

bool lw_reads_sized(const ir_node *n) {
  if (!is_complete(n)) return false;
  if (is_named(n, "Sized")) return lw_is_sized(n->in[0]);
  if (ir_node_is(n, "Scan")) return false; /* it asks itself */
  for (int k = 0; k < n->nin; k++)
    if (lw_is_sized(n->in[k])) return true;
  return is_counted(n) || part_of_shape(n);
}

ir_value *lw_sized(ir_graph *g, ir_node *n, ir_value *v, ir_value *length, int64_t axis) { return lw_later_int(g, n, "tenon:Sized", 2, (ir_value *[]){v, length}, "axis", axis); }

void lw_refuse_sized(tn_ctx *ctx, const ir_node *n, const ir_graph *body) {
  for (int k = 0; k < body->noutputs; k++)
    if (lw_is_sized(body->outputs[k])) lw_unsupported(ctx, n, "'%s', which a graph inside gives, is of a length that only a run finds", body->outputs[k]->name);
}

/* Whether a node leaves a single number what it is. */
static bool is_same_number(const ir_node *n) {
  static const char *const same[] = {"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze"};
  for (int i = 0; i < IR_COUNT(same); i++)
    if (ir_node_is(n, same[i])) return true;
  return false;
}

static int64_t most_of(const ir_value *v, int *steps) {
  int64_t known;
  if (v->data && lw_known_int(v, &known)) return known < 0 ? 0 : known;
  const ir_node *n = v->def;
  if (!n || !n->nin || !n->in[0] || --*steps < 0) return INT64_MAX;
  int64_t room;
  if (is_named(n, "Positions") || is_named(n, "Suppress")) return v == n->out[1] && n->out[0]->rank > 0 && ix_const_value(n->out[0]->dims[0], &room) ? room : INT64_MAX; /* how many they gave */
  if (is_same_number(n)) return most_of(n->in[0], steps);
  if (ir_node_is(n, "ReduceMin") && n->in[0]->rank == 1 && n->in[0]->def && ir_node_is(n->in[0]->def, "Concat")) n = n->in[0]->def; /* the least of a vector */
  int64_t most = INT64_MAX;
  if (ir_node_is(n, "Clip") && n->nin > 2 && n->in[2]) return most_of(n->in[2], steps);
  for (int k = 0; k < n->nin && (ir_node_is(n, "Min") || (n != v->def && ir_node_is(n, "Concat"))); k++) {
    int64_t own = n->in[k] ? most_of(n->in[k], steps) : INT64_MAX;
    if (own < most) most = own;
  }
  return most;
}

int64_t lw_most(const ir_value *v) {
  int steps = 256; /* no more nodes are asked: minima of minima are reached in many ways */
  return most_of(v, &steps);
}

/* Whether two numbers are the same by the nodes that compute them, of which so many are looked at. */
static bool is_same(const ir_value *a, const ir_value *b, int *budget) {
  double x, y;
  while (a->def && is_same_number(a->def) && a->dtype == TN_I64 && a->def->in[0]->dtype == TN_I64) a = a->def->in[0];
  while (b->def && is_same_number(b->def) && b->dtype == TN_I64 && b->def->in[0]->dtype == TN_I64) b = b->def->in[0];
  if (a == b) return true;
  if (a->data && b->data && ir_known_float(a, &x) && ir_known_float(b, &y)) return x == y;
  const ir_node *m = a->def, *n = b->def;
  if (!m || !n || --*budget < 0 || m->op != n->op || m->nin != n->nin || m->nattrs || n->nattrs || m->nout != 1 || n->nout != 1) return false;
  for (int k = 0; k < m->nin; k++)
    if (!m->in[k] != !n->in[k] || (m->in[k] && !is_same(m->in[k], n->in[k], budget))) return false;
  return true;
}
static bool same_number(const ir_value *a, const ir_value *b) { return is_same(a, b, &(int){10000}); }
static bool is_as_long(const ir_value *sized, const ir_value *length, int64_t axis) { return ir_attr_get_int(sized->def, "axis", 0) == axis && same_number(sized->def->in[1], length); }

/* ---- what becomes of a length ---- */

typedef struct mover {
  tn_ctx *ctx;
  ir_graph *g;
  ir_node *n;
  ir_value *length;
  int in;   /* the operand that is read, the first that is Sized */
  int axis; /* of it; then of the result */
} mover;

static void refuse(const mover *m) IR_NORETURN;
static void refuse(const mover *m) {
  lw_unsupported(m->ctx, m->n, "how long input %d is along axis %d is found by a run (what a loop collects until a condition ends it), and the result depends on it", m->in, m->axis);
}

static ir_value *integer(const mover *m, int64_t v) { return ir_graph_scalar(m->g, NULL, TN_I64, (double)v); }
static ir_value *op2(const mover *m, const char *op, ir_value *a, ir_value *b) { return lw_op2(m->g, m->n, op, a, b); }

/* Operands broadcast against each other: those with the axis are as long, or 1. */
static void by_broadcast(mover *m) {
  int rank = 0;
  for (int k = 0; k < m->n->nin; k++)
    if (m->n->in[k] && m->n->in[k]->rank > rank) rank = m->n->in[k]->rank;
  int axis = m->axis + rank - m->n->in[m->in]->rank;
  for (int k = 0; k < m->n->nin; k++) {
    ir_value *v = m->n->in[k];
    int own = v ? axis - (rank - v->rank) : -1;
    if (!v || own < 0 || k == m->in) continue;
    if (lw_is_sized(v)) {
      if (!is_as_long(v, m->length, own)) refuse(m);
      m->n->in[k] = v->def->in[0];
    } else if (!ix_is_int(v->dims[own], 1) || ix_is_int(m->n->in[m->in]->dims[m->axis], 1)) refuse(m);
  }
  m->axis = axis;
}

/* The same elements in row-major order: what is in front of the axis must be as many, and the extent a multiple. */
static void by_reshape(mover *m) {
  ir_node *n = m->n;
  const ir_value *x = n->in[0], *y = n->out[0];
  int64_t front = 1, to = 1, d = ir_dim(m->ctx, x, m->axis);
  for (int i = 0; i < m->axis; i++) front *= ir_dim(m->ctx, x, i);
  int a = 0;
  while (a < y->rank && (to < front || (ix_is_int(y->dims[a], 1) && d != 1))) to *= ir_dim(m->ctx, y, a++);
  int64_t shape[IR_MAX_RANK];
  int entries = n->nin > 1 && n->in[1] && n->in[1]->data && ir_node_is(n, "Reshape") ? ir_known_ints(m->ctx, n->in[1], shape, IR_MAX_RANK) : -1;
  bool says = entries == y->rank && a < y->rank && shape[a] > 0; /* a number of its own: right for one length alone */
  if (a == y->rank || to != front || d < 1 || ir_dim(m->ctx, y, a) % d || says) refuse(m);
  int64_t times = ir_dim(m->ctx, y, a) / d;
  if (times != 1) m->length = op2(m, "Mul", m->length, integer(m, times));
  m->axis = a;
}

/* Numbers alone are right for one length: for the most that there may be, which by_reshape tells apart, or for less. */
static void need_most(const mover *m) {
  const ir_node *n = m->n;
  int64_t shape[IR_MAX_RANK], all = 1;
  int count = ir_node_is(n, "Reshape") && n->nin > 1 && n->in[1] && n->in[1]->data ? ir_known_ints(m->ctx, n->in[1], shape, IR_MAX_RANK) : -1;
  bool zeros = ir_attr_get_int(n, "allowzero", 0) != 0;
  for (int i = 0; i < count; i++) {
    if (shape[i] < 0 || (!shape[i] && !zeros)) return;
    if (!ir_mul_size(all, shape[i], &all)) refuse(m);
  }
  if (count >= 0 && all != ir_value_elements(m->ctx, n->in[0])) refuse(m);
}

static void by_transpose(mover *m) {
  const int64_t *perm;
  int count = ir_attr_get_ints(m->n, "perm", &perm), rank = m->n->in[0]->rank;
  for (int i = 0; i < rank; i++)
    if ((count == rank ? perm[i] : rank - 1 - i) == m->axis) {
      m->axis = i;
      return;
    }
  refuse(m);
}

/* What the reduction of nothing gives stands where nothing is. */
static ir_value *masked(const mover *m, ir_value *v, double neutral) {
  ir_value *at = lw_op3(m->g, m->n, "Range", integer(m, 0), integer(m, ir_dim(m->ctx, v, m->axis)), integer(m, 1));
  int64_t shape[IR_MAX_RANK] = {ir_dim(m->ctx, v, m->axis)};
  for (int i = 1; i < v->rank - m->axis; i++) shape[i] = 1;
  ir_value *there = op2(m, "Less", lw_reshape(m->g, m->n, at, v->rank - m->axis, shape), m->length);
  return lw_op3(m->g, m->n, "Where", there, v, lw_number(m->g, v, neutral));
}

/* Of a condition what is not there is false. */
static void by_condition(mover *m) {
  ir_node *n = m->n;
  bool flat = !ir_attr_find(n, "axis");
  int axis = flat ? 0 : ir_axis(m->ctx, n, ir_attr_get_int(n, "axis", 0), n->in[0]->rank);
  if (n->in[1]->rank != 1 || (m->in == 0 && (axis != m->axis || (flat && n->in[0]->rank != 1)))) refuse(m);
  mover own = *m;
  m->axis = 0;
  if (m->in == 0 && lw_is_sized(n->in[1])) {
    own.axis = 0;
    own.length = n->in[1]->def->in[1];
    n->in[1] = masked(&own, n->in[1]->def->in[0], 0);
  }
  n->in[1] = masked(m, n->in[1], 0);
}

/* Reductions: over the axis itself what is not there is left out, and nothing of it is left. */
static bool by_reduction(mover *m) {
  ir_node *n = m->n;
  bool keep = ir_attr_get_int(n, "keepdims", 1) != 0, own = false;
  int axes[IR_MAX_RANK], rank = n->in[0]->rank, count = lw_axes(m->ctx, n, "axes", n->nin > 1 ? 1 : -1, rank, axes), before = 0;
  if (count <= 0 && ir_attr_get_int(n, "noop_with_empty_axes", 0)) return true;
  for (int i = 0; i < rank && count <= 0; i++) axes[i] = i;
  if (count <= 0) count = rank;
  for (int i = 0; i < count; i++) own |= axes[i] == m->axis, before += axes[i] < m->axis;
  if (!own) {
    if (!keep) m->axis -= before;
    return true;
  }
  static const struct { const char *op; double neutral; } known[] = {{"ReduceSum", 0}, {"ReduceSumSquare", 0}, {"ReduceL1", 0}, {"ReduceL2", 0}, {"ReduceProd", 1}, {"ReduceMax", -INFINITY}, {"ReduceMin", INFINITY}};
  for (int i = 0; i < IR_COUNT(known); i++)
    if (ir_node_is(n, known[i].op) && (ir_is_float(n->in[0]->dtype) || known[i].neutral == 0)) {
      n->in[0] = masked(m, n->in[0], known[i].neutral);
      return false;
    }
  if (!ir_node_is(n, "ReduceMean") || !ir_is_float(n->in[0]->dtype)) refuse(m);
  ir_value *most = lw_cast_node(m->g, n, integer(m, ir_dim(m->ctx, n->in[0], m->axis)), n->in[0]->dtype), *have = lw_cast_node(m->g, n, m->length, n->in[0]->dtype);
  n->in[0] = op2(m, "Mul", masked(m, n->in[0], 0), op2(m, "Div", most, have)); /* the mean of all, nothing included */
  return false;
}

/* From a constant place on, to a constant place or the end, one by one. */
static void by_slice(mover *m) {
  ir_node *n = m->n;
  int64_t at[4][IR_MAX_RANK];
  int count = -1, rank = n->in[0]->rank;
  for (int k = 1; k < 5 && n->nin > 1; k++) {
    int have = k < n->nin && n->in[k] ? ir_known_ints(m->ctx, n->in[k], at[k - 1], IR_MAX_RANK) : 0;
    if (k == 1) count = have;
    for (int i = 0; i < count && k > 2 && !have; i++) at[k - 1][i] = k == 3 ? i : 1;
    if (have < 0 || (have && have != count) || (!have && k < 3)) refuse(m);
  }
  if (count < 0) refuse(m);
  for (int i = 0; i < count; i++) {
    if (ir_axis(m->ctx, n, at[2][i], rank) != m->axis) continue;
    int64_t first = at[0][i], end = at[1][i];
    if (at[3][i] != 1 || first < 0 || end < 0) refuse(m);
    if (end < ir_dim(m->ctx, n->in[0], m->axis)) m->length = op2(m, "Min", m->length, integer(m, end));
    if (first) m->length = op2(m, "Max", op2(m, "Sub", m->length, integer(m, first)), integer(m, 0));
  }
}

/* True when the result has the axis still. */
static bool by_gather(mover *m) {
  ir_node *n = m->n;
  int axis = ir_axis(m->ctx, n, ir_attr_get_int(n, "axis", 0), n->in[0]->rank);
  if (m->in == 1) {
    m->axis += axis;
    return true;
  }
  ir_value *own = lw_is_sized(n->in[1]) ? n->in[1] : NULL; /* it is asked about again, when the other length is settled */
  if (own && axis != m->axis) refuse(m);
  if (own) n->in[1] = own->def->in[0];
  int extra = n->in[1]->rank - 1;
  if (axis != m->axis) {
    if (m->axis > axis) m->axis += extra;
    return true;
  }
  ir_value *at = lw_cast_node(m->g, n, n->in[1], TN_I64); /* the last are those before the length */
  n->in[1] = lw_op3(m->g, n, "Where", op2(m, "Less", at, integer(m, 0)), op2(m, "Add", at, m->length), at);
  if (own) n->in[1] = lw_sized(m->g, n, n->in[1], own->def->in[1], ir_attr_get_int(own->def, "axis", 0));
  return false;
}

/* Rows of indices: as many results. Of the first axes of what is as long as a run finds, the last are those before the length. */
static bool by_gather_nd(mover *m) {
  ir_node *n = m->n;
  int64_t batch = ir_attr_get_int(n, "batch_dims", 0);
  if (n->in[1]->rank < 1) refuse(m);
  if (m->in == 1) {
    if (batch || m->axis == n->in[1]->rank - 1) refuse(m);
    return true;
  }
  ir_value *own = lw_is_sized(n->in[1]) ? n->in[1] : NULL, *at = lw_cast_node(m->g, n, own ? own->def->in[0] : n->in[1], TN_I64);
  int64_t depth = ir_dim(m->ctx, at, -1), which[IR_MAX_RANK] = {0};
  if (batch || m->axis >= depth || depth > n->in[0]->rank) refuse(m);
  which[m->axis] = 1;
  ir_value *from = op2(m, "Mul", m->length, ir_graph_ints(m->g, NULL, (int)depth, which)), *end = op2(m, "And", op2(m, "Less", at, integer(m, 0)), op2(m, "Greater", ir_graph_ints(m->g, NULL, (int)depth, which), integer(m, 0)));
  n->in[1] = lw_op3(m->g, n, "Where", end, op2(m, "Add", at, from), at);
  if (own) n->in[1] = lw_sized(m->g, n, n->in[1], own->def->in[1], ir_attr_get_int(own->def, "axis", 0));
  return false;
}

/* The best of what is there: ONNX allows no more than that. */
static bool by_top_k(mover *m) {
  ir_node *n = m->n;
  if (ir_axis(m->ctx, n, ir_attr_get_int(n, "axis", -1), n->in[0]->rank) != m->axis) return true;
  if (m->in || !ir_is_float(n->in[0]->dtype)) refuse(m);
  n->in[0] = masked(m, n->in[0], ir_attr_get_int(n, "largest", 1) ? -INFINITY : INFINITY);
  return false;
}

/* Of as many as that can be. False: the result is not longer for that. */
static bool by_count(mover *m) {
  ir_node *n = m->n;
  int64_t dims[IR_MAX_RANK];
  if (ir_node_is(n, "Reshape")) { /* what the others leave, or as many as there were */
    int axis = counted_axis(n->in[1], dims, &m->length), rank = (int)ir_dim(m->ctx, n->in[1], 0);
    bool rest = true;
    for (int i = 0; i < rank; i++) rest &= dims[i] != -1;
    if (!rest && !(lw_is_sized(n->in[0]) && is_as_long(n->in[0], m->length, axis))) refuse(m);
    dims[axis] = rest ? -1 : 0;
    n->in[1] = ir_graph_ints(m->g, NULL, rank, dims);
    return false;
  }
  if (ir_node_is(n, "Range")) {
    m->length = lw_reshape(m->g, n, n->in[1], 0, NULL);
    n->in[1] = integer(m, lw_most(n->in[1]));
    return true;
  }
  if (!ir_node_is(n, "TopK")) {
    int k = count_operand(n);
    m->axis = counted_axis(n->in[k], dims, &m->length);
    m->length = lw_reshape(m->g, n, m->length, 0, NULL);
    ir_value *shape = ir_graph_ints(m->g, NULL, (int)ir_dim(m->ctx, n->in[k], 0), dims);
    if (k && n->in[0]->rank > shape->dims[0]->u.i) refuse(m);
    n->in[k] = shape;
    return true;
  }
  m->axis = ir_axis(m->ctx, n, ir_attr_get_int(n, "axis", -1), n->in[0]->rank);
  int64_t most = lw_most(n->in[1]), d = ir_dim(m->ctx, n->in[0], m->axis);
  if (most > d) most = d;
  m->length = op2(m, "Min", lw_reshape(m->g, n, lw_cast_node(m->g, n, n->in[1], TN_I64), 0, NULL), integer(m, most));
  n->in[1] = ir_graph_ints(m->g, NULL, 1, &most);
  return true;
}

/* Boxes that are not there have no score. */
static void by_suppression(mover *m) {
  ir_node *n = m->n;
  if (m->in > 1 || m->axis != (m->in ? 2 : 1) || n->in[0]->rank != 3 || n->in[1]->rank != 3) refuse(m);
  m->axis = 2;
  n->in[1] = masked(m, lw_is_sized(n->in[1]) && is_as_long(n->in[1], m->length, 2) ? n->in[1]->def->in[0] : n->in[1], -INFINITY);
}

/* Parts one after another: of all that there may be, what is there, moved up. */
static void by_append(mover *m) {
  ir_node *n = m->n;
  ir_value **there = IR_NEW_ARRAY(m->ctx, ir_value *, n->nin), *sum = integer(m, 0), *count;
  for (int k = 0; k < n->nin; k++) {
    ir_value *v = n->in[k];
    bool sized = lw_is_sized(v);
    if (!v || v->rank != n->in[m->in]->rank) lw_bad(m->ctx, n, "input %d is not of the rank of input %d", k, m->in);
    if (sized && ir_attr_get_int(v->def, "axis", 0) != m->axis) refuse(m);
    if (sized) n->in[k] = v->def->in[0];
    int64_t d = ir_dim(m->ctx, v, m->axis);
    ir_value *at = lw_op3(m->g, n, "Range", integer(m, 0), integer(m, d), integer(m, 1));
    ir_value *length = sized ? lw_reshape(m->g, n, v->def->in[1], 0, NULL) : integer(m, d);
    there[k] = op2(m, "Less", at, length);
    sum = op2(m, "Add", sum, length);
  }
  ir_value *all = lw_concat(m->g, n, m->axis, n->nin, n->in), *at = lw_positions(m->g, n, lw_concat(m->g, n, 0, n->nin, there), &count);
  lw_replace(m->g, n, 0, lw_sized(m->g, n, lw_op2_int(m->g, n, "Gather", all, at, "axis", m->axis), sum, m->axis)); /* not the count, which nobody can tell to be another's */
}

/* An If of unknown condition, one branch of which gives more: memory for the most. */
static void by_choice(mover *m) {
  ir_node *n = m->n;
  ir_value *length[3] = {NULL};
  int64_t have[3] = {0}, most = 0, dims[IR_MAX_RANK];
  if (!m->in || n->in[1]->rank != n->in[2]->rank) refuse(m);
  for (int k = 1; k < 3; k++) {
    ir_value *v = n->in[k];
    if (lw_is_sized(v) && ir_attr_get_int(v->def, "axis", 0) != m->axis) refuse(m);
    have[k] = ir_dim(m->ctx, v, m->axis);
    length[k] = lw_is_sized(v) ? v->def->in[1] : integer(m, have[k]);
    if (have[k] > most) most = have[k];
    if (lw_is_sized(v)) n->in[k] = v->def->in[0];
  }
  for (int k = 1; k < 3; k++) {
    if (have[k] == most) continue;
    for (int i = 0; i < n->in[k]->rank; i++) dims[i] = i == m->axis ? most - have[k] : ir_dim(m->ctx, n->in[k], i);
    ir_value *parts[2] = {n->in[k], lw_op2(m->g, n, "Expand", lw_number(m->g, n->in[k], 0), ir_graph_ints(m->g, NULL, n->in[k]->rank, dims))};
    n->in[k] = lw_concat(m->g, n, m->axis, 2, parts);
  }
  for (int k = 1; k < 3; k++) length[k] = lw_reshape(m->g, n, length[k], 0, NULL);
  ir_value *cond = lw_reshape(m->g, n, lw_cast_node(m->g, n, n->in[0], TN_BOOL), 0, NULL);
  m->length = lw_op3(m->g, n, "Where", cond, length[1], length[2]);
}

static void by_product(mover *m) {
  const ir_value *by = m->n->in[1 - m->in];
  int rank = m->n->in[m->in]->rank, own = m->axis - (rank - by->rank); /* its place in the other operand */
  bool batch = m->axis < rank - 2 && (own < 0 || ix_is_int(by->dims[own], 1));
  if (lw_is_sized(by) || by->rank < 2 || !(batch || (rank >= 2 && m->axis == (m->in ? rank - 1 : rank - 2)))) refuse(m); /* rows of the first, columns of the second */
  if (by->rank > rank) m->axis += by->rank - rank;
}

static void by_gemm(mover *m) {
  const ir_node *n = m->n;
  const ir_value *c = n->nin > 2 ? n->in[2] : NULL;
  if (m->in || m->axis || ir_attr_get_int(n, "transA", 0) || lw_is_sized(n->in[1]) || lw_is_sized(c) || (c && c->rank == 2 && !ix_is_int(c->dims[0], 1))) refuse(m);
}

/* To a shape of numbers: as many along the axis as there may be. */
static void by_expand(mover *m) {
  int64_t shape[IR_MAX_RANK], most = ir_dim(m->ctx, m->n->in[0], m->axis);
  int rank = m->n->in[0]->rank, count = m->in ? -1 : ir_known_ints(m->ctx, m->n->in[1], shape, IR_MAX_RANK), own = m->axis - (rank - count);
  if (count < 0 || (own >= 0 && (most == 1 || (shape[own] != 1 && shape[own] != most)))) refuse(m);
  if (count > rank) m->axis = own;
}

/* Ops along axes of their own, which leave the others alone. */
static bool is_apart(const mover *m) {
  const ir_node *n = m->n;
  int rank = n->in[0]->rank;
  static const char *const along[] = {"Softmax", "LogSoftmax", "Hardmax", "LpNormalization"};
  for (int i = 0; i < IR_COUNT(along); i++)
    if (ir_node_is(n, along[i]) && (n->opset >= 13 || i == 3)) return m->in == 0 && ir_axis(m->ctx, n, ir_attr_get_int(n, "axis", -1), rank) != m->axis;
  if (ir_node_is(n, "Split")) return m->in == 0 && ir_axis(m->ctx, n, ir_attr_get_int(n, "axis", 0), rank) != m->axis;
  if (ir_node_is(n, "LayerNormalization") || ir_node_is(n, "RMSNormalization")) return m->in == 0 && n->nout == 1 && m->axis < ir_axis(m->ctx, n, ir_attr_get_int(n, "axis", -1), rank);
  return false;
}

static void by_concat(mover *m) {
  ir_node *n = m->n;
  for (int k = 0; k < n->nin; k++) {
    if (k == m->in) continue;
    if (!lw_is_sized(n->in[k]) || !is_as_long(n->in[k], m->length, m->axis)) refuse(m);
    n->in[k] = n->in[k]->def->in[0];
  }
}

/* Its shape is numbers and the length. */
static void give_shape(mover *m) {
  ir_node *n = m->n;
  ir_value *x = n->in[0], *parts[IR_MAX_RANK] = {0}, *y;
  int rank = x->rank, first = (int)ir_attr_get_int(n, "start", 0), end = (int)ir_attr_get_int(n, "end", rank), count = 0;
  if (ir_node_is(n, "Size")) {
    int64_t others = 1;
    for (int i = 0; i < rank; i++) others *= i == m->axis ? 1 : ir_dim(m->ctx, x, i);
    y = op2(m, "Mul", m->length, integer(m, others));
  } else {
    if (first < 0) first += rank;
    if (end < 0) end += rank;
    for (int i = first < 0 ? 0 : first; i < end && i < rank; i++) {
      int64_t d = ir_dim(m->ctx, x, i);
      parts[count++] = i == m->axis ? lw_reshape(m->g, n, m->length, 1, (int64_t[]){1}) : ir_graph_ints(m->g, NULL, 1, &d);
    }
    if (!count) refuse(m);
    y = lw_concat(m->g, n, 0, count, parts);
  }
  lw_replace(m->g, n, 0, lw_op1(m->g, n, "Identity", y));
  n->dead = true;
}

static bool is_alike(const ir_node *n) { /* every element by those at its place */
  static const char *const ops[] = {"Identity", "Gelu", "PRelu", "QuantizeLinear", "DequantizeLinear"};
  for (int i = 0; i < IR_COUNT(ops); i++)
    if (ir_node_is(n, ops[i])) return true;
  return n->op->kind == IR_OP_ELEMENTWISE;
}

/* Nodes that depend on how many there are read them so; the result is then an ordinary one: false. */
static bool move(mover *m) {
  ir_node *n = m->n;
  if (is_named(n, "Either")) return by_choice(m), true;
  if (is_alike(n)) return by_broadcast(m), true;
  if (strncmp(n->op->name, "Reduce", 6) == 0 && n->op->kind == IR_OP_REDUCTION) return by_reduction(m);
  if (ir_node_is(n, "Gather")) return by_gather(m);
  if (ir_node_is(n, "GatherND")) return by_gather_nd(m);
  if (ir_node_is(n, "TopK")) return by_top_k(m);
  if (ir_node_is(n, "Expand")) return by_expand(m), true;
  if (ir_node_is(n, "NonMaxSuppression")) return by_suppression(m), false;
  if (ir_node_is(n, "Compress")) return by_condition(m), false;
  if (ir_node_is(n, "NonZero")) return n->in[0] = masked(m, n->in[0], 0), false;
  if (ir_node_is(n, "Slice")) return by_slice(m), true;
  if (ir_node_is(n, "Transpose")) return by_transpose(m), true;
  if (ir_node_is(n, "MatMul")) return by_product(m), true;
  if (ir_node_is(n, "Gemm")) return by_gemm(m), true;
  if (ir_node_is(n, "Concat")) return by_concat(m), true;
  if (is_apart(m)) return true;
  refuse(m);
}

static bool reshapes(const ir_node *n) { return ir_node_is(n, "Reshape") || ir_node_is(n, "Flatten") || ir_node_is(n, "Squeeze") || ir_node_is(n, "Unsqueeze"); }

void lw_move_sized(tn_ctx *ctx, ir_graph *g, ir_node *n) {
  mover m = {.ctx = ctx, .g = g, .n = n};
  int first = g->nnodes; /* nodes that the result is computed from come behind n in the list, and are inferred already */
  bool still = true;
  ir_value *part = part_of_shape(n);
  if (part) {
    lw_replace(g, n, 0, lw_op1(g, n, "Identity", n->in[1]->rank ? part : lw_reshape(g, n, part, 0, NULL)));
    lw_settle(ctx, g, first);
    return;
  }
  if (is_counted(n)) still = by_count(&m);
  else {
    while (!lw_is_sized(n->in[m.in])) m.in++;
    const ir_node *from = n->in[m.in]->def;
    m.length = from->in[1];
    m.axis = (int)ir_attr_get_int(from, "axis", 0);
    if (is_named(n, "Sized") && ir_attr_get_int(n, "axis", 0) == m.axis) { /* twice: the shorter */
      n->in[0] = from->in[0];
      if (!same_number(n->in[1], m.length)) n->in[1] = op2(&m, "Min", lw_reshape(g, n, n->in[1], 0, NULL), lw_reshape(g, n, m.length, 0, NULL));
      lw_settle(ctx, g, first);
      return;
    }
    if (n->op->kind == IR_OP_CONTROL || is_named(n, "Sized")) refuse(&m);
    if (from->in[0]->rank < 0) ir_infer(ctx, n->in[m.in]->def);
    if (ir_node_is(n, "Concat") && ir_axis(ctx, n, ir_attr_get_int(n, "axis", 0), n->in[m.in]->rank) == m.axis) {
      by_append(&m);
      lw_settle(ctx, g, first);
      return;
    }
    if (!is_named(n, "Either")) n->in[m.in] = from->in[0];
    if (ir_node_is(n, "Shape") || ir_node_is(n, "Size")) {
      give_shape(&m);
      return;
    }
    still = reshapes(n);
    if (still && m.in) refuse(&m);
    if (still) need_most(&m), ir_infer(ctx, n), by_reshape(&m);
    else still = move(&m);
  }
  ir_node **behind = IR_NEW_ARRAY(ctx, ir_node *, n->nout + 1);
  for (int k = 0; k < n->nout && still; k++) {
    if (!n->out[k]) continue;
    ir_value *s = lw_sized(g, n, n->out[k], m.length, m.axis);
    behind[k] = s->def;
    for (int i = 0; i < g->noutputs; i++)
      if (g->outputs[i] == n->out[k]) s->name = n->out[k]->name;
    ir_graph_replace(g, n->out[k], s);
    s->def->in[0] = n->out[k];
  }
  lw_settle_node(ctx, g, n);
  lw_settle(ctx, g, first);
}

void lw_pass_extents(tn_ctx *ctx, ir_graph *g, const lw_options *options) {
  (void)options;
  int results = ir_graph_results(g);
  for (int o = 0; o < results; o++) {
    ir_value *v = g->outputs[o];
    if (lw_is_list(v)) lw_unsupported(ctx, v->def, "'%s', an output, is a sequence: its tensors can be outputs", v->name);
    if (!lw_is_sized(v)) continue;
    ir_node *n = v->def;
    ir_value *all = n->in[0], *length = n->in[1];
    int axis = (int)ir_attr_get_int(n, "axis", 0);
    bool leading = true;
    for (int i = 0; i < axis; i++) leading &= ix_is_int(all->dims[i], 1);
    if (!leading) { /* dense in the caller's memory */
      int64_t dims[IR_MAX_RANK];
      for (int i = 0; i < all->rank; i++) dims[i] = ir_dim(ctx, all, i);
      all = lw_op2_int(g, n, "tenon:Compact", all, length, "axis", axis);
      all = lw_reshape(g, n, all, v->rank, dims);
    }
    all = lw_op1(g, n, "Identity", all); /* of its own: others may read it, too, and outputs have names */
    all->name = v->name;
    g->outputs[o] = all;
    ir_graph_extent_of(g, o, axis, length);
  }
  ir_graph_sort(g);
  for (int i = 0; i < g->nnodes; i++) /* what is left of them, and of lists, nobody reads */
    if (is_named(g->nodes[i], "Sized") || (g->nodes[i]->nout && lw_is_list(g->nodes[i]->out[0]))) g->nodes[i]->dead = true;
  ir_graph_sort(g);
}

/* ---- the ops ---- */

static int axis_of(tn_ctx *ctx, const ir_node *n, int rank) { return ir_axis(ctx, n, ir_attr_get_int(n, "axis", 0), rank); }

static void sized_infer(tn_ctx *ctx, ir_node *n) {
  lw_need_single(ctx, n, 1);
  axis_of(ctx, n, n->in[0]->rank);
  lw_set_like(n, 0, n->in[0]->dtype, n->in[0]);
}
static ix sized_value(lw_build *b, ir_node *n, int out, const ix *index) { return (void)out, lw_in(b, n, 0, index); }

static void collect_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *all = n->in[0], *slice = n->in[2];
  lw_need_single(ctx, n, 1);
  lw_need_same_type(ctx, n, 0, 2);
  lw_need_rank(ctx, n, 2, all->rank - 1);
  int axis = axis_of(ctx, n, all->rank);
  for (int i = 0; i < slice->rank; i++)
    if (slice->dims[i] != all->dims[i + (i >= axis)]) lw_bad(ctx, n, "a slice of extent %s where %s is collected", ix_print(ctx, slice->dims[i]), ix_print(ctx, all->dims[i + (i >= axis)]));
  lw_set_like(n, 0, all->dtype, all);
}
static void collect_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  int rank = n->in[0]->rank, axis = axis_of(ctx, n, rank);
  ix to = ib_let(lw_b(b), "to", ix_cast(ctx, TN_INDEX, lw_scalar_in(b, n, 1))), at[IR_MAX_RANK], in[IR_MAX_RANK];
  lw_loops(b, NULL, rank, n->in[0]->dims, at);
  for (int i = 0; i < rank - 1; i++) in[i] = at[i + (i >= axis)];
  /* in place it stores the slice alone: lw_kernel_in_place */
  lw_out(b, n, 0, at, ix_select(ctx, ix_eq(ctx, at[axis], to), lw_in(b, n, 2, in), lw_in(b, n, 0, at)));
  ib_end_n(lw_b(b), rank);
}

static void compact_infer(tn_ctx *ctx, ir_node *n) {
  lw_need_single(ctx, n, 1);
  axis_of(ctx, n, n->in[0]->rank);
  lw_set(n, 0, n->in[0]->dtype, 1, (ix[]){ix_index(ctx, ir_value_elements(ctx, n->in[0]))});
}
static void compact_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *ib = lw_b(b);
  const ir_value *x = n->in[0];
  int axis = axis_of(ctx, n, x->rank);
  ix have = ib_let(ib, "have", lw_clamp(ctx, ix_cast(ctx, TN_INDEX, lw_scalar_in(b, n, 1)), ix_index(ctx, 0), x->dims[axis])), at[IR_MAX_RANK], to = ix_index(ctx, 0);
  ir_buf *y = lw_out_buf(b, n, 0);
  lw_loops(b, NULL, x->rank, x->dims, at);
  for (int i = 0; i < x->rank; i++) to = ix_add(ctx, ix_mul(ctx, to, i == axis ? have : x->dims[i]), at[i]);
  ib_if(ib, ix_lt(ctx, at[axis], have));
  ib_store(ib, y, &to, lw_in(b, n, 0, at));
  ib_end(ib);
  ib_end_n(ib, x->rank);
}

#define ROW(NAME, KIND, NIN) .name = NAME, .domain = "tenon", .kind = KIND, .since = 1, .min_in = NIN, .max_in = NIN, .min_out = 1, .max_out = 1, .attrs = "axis:i"
const ir_op lw_ops_extent[] = {
    {ROW("Sized", IR_OP_MOVEMENT, 2), .infer = sized_infer, .value = sized_value},
    {ROW("Collect", IR_OP_KERNEL, 3), .infer = collect_infer, .build = collect_build},
    {ROW("Compact", IR_OP_KERNEL, 2), .infer = compact_infer, .build = compact_build},
    {0}};
