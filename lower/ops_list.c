/* ops_list.c — ONNX sequences: lists of tensors that are known as such when compiling, so that nothing of them is left in a program.
 *
 *   SequenceConstruct  what a list is: its operands. It has no type, and dies with its readers; all other ops here are replaced
 *   tenon:Rows         the list of a tensor's slices along axis 0, of which a run finds how many there are (what a loop appends)
 *
 * Loops carry lists as states while they are unrolled; one that appends to a list in each turn of a loop that stays collects
 * (lw_appends, control.c). */
#include "lower/compose.h"
#include "lower/control.h"
#include "lower/list.h"
#include <string.h>

enum { MOST_ELEMENTS = 1 << 14 };

static bool is_rows(const ir_node *n) { return n && n->op->domain && strcmp(n->op->domain, "tenon") == 0 && strcmp(n->op->name, "Rows") == 0; }

bool lw_is_list(const ir_value *v) { return v && v->def && (ir_node_is(v->def, "SequenceConstruct") || is_rows(v->def)); }

ir_value *lw_list(ir_graph *g, ir_node *n, int count, ir_value *const *v) { return lw_node_n(g, n, "SequenceConstruct", count, v, 1)->out[0]; }
ir_value *lw_list_of_rows(ir_graph *g, ir_node *n, ir_value *v) { return lw_node_n(g, n, "tenon:Rows", 1, &v, 1)->out[0]; }

static const ir_node *list_of(tn_ctx *ctx, const ir_node *n, int k) {
  if (k >= n->nin || !lw_is_list(n->in[k])) lw_unsupported(ctx, n, "input %d is a sequence whose elements are not known when compiling", k);
  if (is_rows(n->in[k]->def) && !ir_node_is(n, "SequenceAt") && !ir_node_is(n, "SequenceLength") && !ir_node_is(n, "ConcatFromSequence"))
    lw_unsupported(ctx, n, "a sequence that a loop appends to, of which only a run finds the length");
  return n->in[k]->def;
}

/* A place in the list; `end`: places behind the last are places too. */
static int place(tn_ctx *ctx, const ir_node *n, int k, int count, bool end) {
  int64_t at = lw_need_int(ctx, n, k, "position");
  if (at < 0) at += count;
  if (at < 0 || at >= count + end) lw_bad(ctx, n, "position %lld of a sequence of %d", (long long)(at < 0 ? at - count : at), count);
  return (int)at;
}

static void give(ir_graph *g, ir_node *n, ir_value *v) {
  lw_replace(g, n, 0, v);
  n->dead = true;
}

static void empty_expand(ir_graph *g, ir_node *n) { give(g, n, lw_list(g, n, 0, NULL)); }

static void insert_expand(ir_graph *g, ir_node *n) {
  const ir_node *l = list_of(g->ctx, n, 0);
  if (!lw_has(n, 1)) lw_bad(g->ctx, n, "the tensor is missing");
  int at = lw_has(n, 2) ? place(g->ctx, n, 2, l->nin, true) : l->nin;
  if (l->nin >= MOST_ELEMENTS) lw_unsupported(g->ctx, n, "a sequence of more than %d tensors", MOST_ELEMENTS);
  ir_value **v = IR_NEW_ARRAY(g->ctx, ir_value *, l->nin + 1);
  for (int i = 0; i <= l->nin; i++) v[i] = i == at ? n->in[1] : l->in[i - (i > at)];
  give(g, n, lw_list(g, n, l->nin + 1, v));
}

static void erase_expand(ir_graph *g, ir_node *n) {
  const ir_node *l = list_of(g->ctx, n, 0);
  if (!l->nin) lw_bad(g->ctx, n, "an empty sequence");
  int at = lw_has(n, 1) ? place(g->ctx, n, 1, l->nin, false) : l->nin - 1, count = 0;
  ir_value **v = IR_NEW_ARRAY(g->ctx, ir_value *, l->nin);
  for (int i = 0; i < l->nin; i++)
    if (i != at) v[count++] = l->in[i];
  give(g, n, lw_list(g, n, count, v));
}

/* All elements along an axis, as they are or each in a place of a new one. */
static ir_value *joined(ir_graph *g, ir_node *n, const ir_node *l, int64_t axis, bool fresh) {
  ir_value **v = IR_NEW_ARRAY(g->ctx, ir_value *, l->nin + 1);
  if (!l->nin) lw_bad(g->ctx, n, "an empty sequence");
  for (int i = 0; i < l->nin; i++) v[i] = fresh ? lw_later(g, n, "Unsqueeze", 2, (ir_value *[]){l->in[i], ir_graph_ints(g, NULL, 1, &axis)}) : l->in[i];
  return lw_later_int(g, n, "Concat", l->nin, v, "axis", axis);
}

static void at_expand(ir_graph *g, ir_node *n) {
  const ir_node *l = list_of(g->ctx, n, 0);
  if (!lw_has(n, 1)) lw_bad(g->ctx, n, "the position is missing");
  if (!is_rows(l) && n->in[1]->data) {
    give(g, n, lw_later(g, n, "Identity", 1, &l->in[place(g->ctx, n, 1, l->nin, false)]));
    return;
  }
  ir_value *all = is_rows(l) ? l->in[0] : joined(g, n, l, 0, true); /* those of one shape */
  give(g, n, lw_later_int(g, n, "Gather", 2, (ir_value *[]){all, n->in[1]}, "axis", 0));
}

static void length_expand(ir_graph *g, ir_node *n) {
  const ir_node *l = list_of(g->ctx, n, 0);
  if (!is_rows(l)) give(g, n, ir_graph_scalar(g, NULL, TN_I64, l->nin));
  else give(g, n, lw_later_int(g, n, "Gather", 2, (ir_value *[]){lw_later(g, n, "Shape", 1, &l->in[0]), ir_graph_scalar(g, NULL, TN_I64, 0)}, "axis", 0));
}

static void concat_expand(ir_graph *g, ir_node *n) {
  tn_ctx *ctx = g->ctx;
  const ir_node *l = list_of(ctx, n, 0);
  bool fresh = ir_attr_get_int(n, "new_axis", 0) != 0;
  int64_t axis = ir_attr_get_int(n, "axis", 0), perm[IR_MAX_RANK], shape[IR_MAX_RANK];
  if (!is_rows(l)) {
    give(g, n, joined(g, n, l, axis, fresh));
    return;
  }
  const ir_value *v = l->in[0];
  int rank = v->rank - 1, to = ir_axis(ctx, n, axis, fresh ? rank + 1 : rank); /* of what an element is */
  for (int i = 0; i <= rank; i++) perm[i] = i < to ? i + 1 : i == to ? 0 : i;
  ir_node *t = lw_node_n(g, n, "Transpose", 1, l->in, 1);
  ir_attr_ints(t, "perm", rank + 1, perm);
  if (fresh) {
    give(g, n, t->out[0]);
    return;
  }
  for (int i = 0; i < rank; i++) shape[i] = i == to ? -1 : ir_dim(ctx, v, i + 1);
  give(g, n, lw_later(g, n, "Reshape", 2, (ir_value *[]){t->out[0], ir_graph_ints(g, NULL, rank, shape)}));
}

static void split_expand(ir_graph *g, ir_node *n) {
  tn_ctx *ctx = g->ctx;
  if (!lw_has(n, 0) || n->in[0]->rank < 1) lw_bad(ctx, n, "the input has no axis to be split along");
  ir_value *x = n->in[0], **v = NULL;
  int axis = ir_axis(ctx, n, ir_attr_get_int(n, "axis", 0), x->rank), count = 0, given = 0;
  int64_t extent = ir_dim(ctx, x, axis), at = 0, zero[1] = {axis};
  int64_t *sizes = IR_NEW_ARRAY(ctx, int64_t, MOST_ELEMENTS);
  bool keep = lw_has(n, 1) || ir_attr_get_int(n, "keepdims", 1) != 0;
  if (extent > MOST_ELEMENTS) lw_unsupported(ctx, n, "a sequence of more than %d tensors", MOST_ELEMENTS);
  if (lw_has(n, 1)) given = lw_need_ints(ctx, n, 1, "split", sizes, MOST_ELEMENTS);
  int64_t each = lw_has(n, 1) ? (n->in[1]->rank == 0 ? sizes[0] : 0) : 1, sum = 0;
  for (int i = 0; i < given && !each; i++) {
    if (sizes[i] < 0) lw_bad(ctx, n, "a part of %lld elements", (long long)sizes[i]);
    if (!ir_add_size(sum, sizes[i], &sum)) sum = INT64_MAX;
  }
  if (each < 0 || (!each && (sum != extent || (lw_has(n, 1) && n->in[1]->rank == 0)))) lw_bad(ctx, n, "the parts are not the %lld elements of axis %d", (long long)extent, axis);
  for (int i = 0; each ? at < extent : i < given; i++) {
    int64_t end = each ? (at + each < extent ? at + each : extent) : at + sizes[i];
    ir_value *part = lw_slice(g, n, x, axis, at, end);
    if (!keep) part = lw_later(g, n, "Squeeze", 2, (ir_value *[]){part, ir_graph_ints(g, NULL, 1, zero)});
    IR_PUSH(ctx, v, count, part);
    at = end;
  }
  give(g, n, lw_list(g, n, count, v));
}

/* SequenceMap: the body for each element; operands that are tensors are the same for all. */
static void map_expand(ir_graph *g, ir_node *n) {
  tn_ctx *ctx = g->ctx;
  ir_graph *body = lw_body(ctx, n, "body");
  int count = list_of(ctx, n, 0)->nin;
  if (body->ninputs != n->nin || n->nout > body->noutputs) lw_bad(ctx, n, "%d inputs and %d outputs do not fit the body", n->nin, n->nout);
  ir_value **args = IR_NEW_ARRAY(ctx, ir_value *, n->nin), **outs = IR_NEW_ARRAY(ctx, ir_value *, body->noutputs + 1), **all = IR_NEW_ARRAY(ctx, ir_value *, (int64_t)count * body->noutputs + 1);
  for (int i = 0; i < count; i++) {
    for (int k = 0; k < n->nin; k++) {
      args[k] = n->in[k];
      if (!lw_is_list(n->in[k])) continue;
      const ir_node *l = list_of(ctx, n, k);
      if (l->nin < count) lw_bad(ctx, n, "input %d is a sequence of %d tensors, not of %d", k, l->nin, count);
      args[k] = l->in[i];
    }
    lw_inline(g, n, body, ir_format(ctx, "%d", i), n->nin, args, outs);
    for (int k = 0; k < body->noutputs; k++) all[k * count + i] = outs[k];
  }
  for (int k = n->nout; k-- > 0;)
    if (n->out[k]) lw_replace(g, n, k, lw_list(g, n, count, all + k * count));
  n->dead = true;
}

/* An optional that is known to hold something is that; an input that is missing is an empty one. */
static void get_expand(ir_graph *g, ir_node *n) { give(g, n, lw_later(g, n, "Identity", 1, n->in)); }
static void has_expand(ir_graph *g, ir_node *n) { give(g, n, ir_graph_const(g, NULL, TN_BOOL, 0, NULL, &(uint8_t){lw_has(n, 0)}, true)); }

/* Not asked: a list has no type. */
static void list_infer(tn_ctx *ctx, ir_node *n) { lw_unsupported(ctx, n, "a sequence, here"); }

#define ROW(NAME, SINCE, LEAST, MOST, OUTS, ATTRS, EXPAND) {.name = NAME, .kind = IR_OP_CONTROL, .since = SINCE, .min_in = LEAST, .max_in = MOST, .min_out = 1, .max_out = OUTS, .attrs = ATTRS, .infer = list_infer, .expand = EXPAND}
const ir_op lw_ops_list[] = {
    {.name = "SequenceConstruct", .kind = IR_OP_COMPOSITE, .since = 11, .min_in = 0, .max_in = -1, .min_out = 1, .max_out = 1, .attrs = "", .infer = list_infer},
    {.name = "Rows", .domain = "tenon", .kind = IR_OP_COMPOSITE, .since = 1, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .attrs = "", .infer = list_infer},
    ROW("SequenceEmpty", 11, 0, 0, 1, "dtype:i", empty_expand),
    ROW("SequenceInsert", 11, 2, 3, 1, "", insert_expand),
    ROW("SequenceErase", 11, 1, 2, 1, "", erase_expand),
    ROW("SequenceAt", 11, 2, 2, 1, "", at_expand),
    ROW("SequenceLength", 11, 1, 1, 1, "", length_expand),
    ROW("ConcatFromSequence", 11, 1, 1, 1, "axis:i new_axis:i", concat_expand),
    ROW("SplitToSequence", 11, 1, 2, 1, "axis:i keepdims:i", split_expand),
    ROW("SequenceMap", 17, 1, -1, -1, "body:g", map_expand),
    ROW("OptionalGetElement", 15, 1, 1, 1, "", get_expand),
    ROW("OptionalHasElement", 15, 0, 1, 1, "", has_expand),
    {0}};
