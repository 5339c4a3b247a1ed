/* grad_move.c — gradients of ops that only move elements. */
#include "lower/grad.h"
#include <string.h>

/* ---- the same elements in another shape or order ---- */

void lw_grad_reshape(lw_grad *d) {
  int64_t dims[IR_MAX_RANK];
  lw_grad_dims(d->ctx, d->n->in[0], dims);
  lw_grad_add(d, 0, lw_reshape(d->g, d->n, d->dy[0], d->n->in[0]->rank, dims));
}

void lw_grad_transpose(lw_grad *d) {
  const int64_t *p = NULL;
  int64_t back[IR_MAX_RANK];
  int rank = d->n->in[0]->rank, count = ir_attr_get_ints(d->n, "perm", &p);
  for (int i = 0; i < rank; i++) back[count < 0 ? rank - 1 - i : ir_axis(d->ctx, d->n, p[i], rank)] = i;
  lw_grad_add(d, 0, lw_transpose(d->g, d->n, d->dy[0], back));
}

/* ---- joins and cuts ---- */

void lw_grad_concat(lw_grad *d) {
  ir_node *n = d->n;
  int axis = ir_axis(d->ctx, n, ir_attr_get_int(n, "axis", 1), n->in[0]->rank);
  int64_t at = 0;
  for (int k = 0; k < n->nin; k++) {
    int64_t size = ir_dim(d->ctx, n->in[k], axis);
    if (d->wanted[k]) lw_grad_add(d, k, lw_slice(d->g, n, d->dy[0], axis, at, at + size));
    at += size;
  }
}

void lw_grad_split(lw_grad *d) {
  ir_node *n = d->n;
  ir_value **parts = IR_NEW_ARRAY(d->ctx, ir_value *, n->nout);
  for (int k = 0; k < n->nout; k++) {
    if (!n->out[k]) lw_unsupported(d->ctx, n, "the gradient of a split with omitted outputs");
    parts[k] = d->dy[k] ? d->dy[k] : lw_grad_zeros(d, n->out[k]);
  }
  lw_grad_add(d, 0, lw_concat(d->g, n, ir_axis(d->ctx, n, ir_attr_get_int(n, "axis", 0), n->in[0]->rank), n->nout, parts));
}

/* Zeros but for what was taken. */
void lw_grad_slice(lw_grad *d) {
  const ir_value *x = d->n->in[0];
  int64_t start[IR_MAX_RANK], step[IR_MAX_RANK], shape[IR_MAX_RANK];
  lw_slice_numbers(d->ctx, d->n, start, step);
  lw_grad_dims(d->ctx, x, shape);
  ir_node *m = lw_node_n(d->g, d->n, "tenon:PutSlice", 1, d->dy, 1);
  ir_attr_ints(m, "starts", x->rank, start);
  ir_attr_ints(m, "steps", x->rank, step);
  ir_attr_ints(m, "shape", x->rank, shape);
  ir_infer(d->ctx, m);
  lw_grad_add(d, 0, m->out[0]);
}

void lw_grad_put_slice(lw_grad *d) {
  ir_node *n = d->n;
  int rank = n->in[0]->rank;
  int64_t ends[IR_MAX_RANK], axes[IR_MAX_RANK];
  const int64_t *start, *step;
  ir_attr_get_ints(n, "starts", &start);
  ir_attr_get_ints(n, "steps", &step);
  for (int i = 0; i < rank; i++) {
    axes[i] = i;
    ends[i] = start[i] + step[i] * ir_dim(d->ctx, n->in[0], i);
    if (step[i] < 0 && ends[i] < 0) ends[i] = INT64_MIN; /* below the first element, not counted from the end */
  }
  ir_value *in[5] = {d->dy[0], ir_graph_ints(d->g, NULL, rank, start), ir_graph_ints(d->g, NULL, rank, ends),
                     ir_graph_ints(d->g, NULL, rank, axes), ir_graph_ints(d->g, NULL, rank, step)};
  lw_grad_add(d, 0, rank ? lw_node(d->g, n, "Slice", 5, in) : d->dy[0]);
}

/* ---- any other movement ----
 *
 * Applied to the numbers 0, 1, .. of the operand's elements, the op tells where each of its
 * results came from; the gradient goes back there. */
static ir_value *numbered(lw_grad *d, const ir_value *x, int64_t *count) {
  int64_t dims[IR_MAX_RANK];
  *count = ir_value_elements(d->ctx, x);
  lw_grad_dims(d->ctx, x, dims);
  ir_value *zero = ir_graph_scalar(d->g, NULL, TN_I64, 0), *one = ir_graph_scalar(d->g, NULL, TN_I64, 1), *end = ir_graph_scalar(d->g, NULL, TN_I64, (double)*count);
  return lw_reshape(d->g, d->n, lw_op3(d->g, d->n, "Range", zero, end, one), x->rank, dims);
}

void lw_grad_moved(lw_grad *d) {
  ir_node *n = d->n;
  ir_graph *g = d->g;
  int64_t dims[IR_MAX_RANK], count, all = 1;
  ir_node *m = lw_node_n(g, n, "Identity", n->nin, n->in, 1);
  m->op = n->op;
  m->opset = n->opset;
  m->nattrs = n->nattrs;
  m->attrs = n->attrs;
  m->in[0] = numbered(d, n->in[0], &count);
  ir_infer(d->ctx, m);
  for (int i = 0; i < m->out[0]->rank; i++) all *= ir_dim(d->ctx, m->out[0], i);
  ir_value *from = lw_reshape(g, n, m->out[0], 1, &all), *dy = lw_reshape(g, n, d->dy[0], 1, &all);
  ir_node *put = lw_node_n(g, n, "ScatterElements", 3, (ir_value *[]){lw_grad_full(d, dy, 1, &count, 0), from, dy}, 1);
  ir_attr_string(put, "reduction", "add");
  ir_infer(d->ctx, put);
  lw_grad_dims(d->ctx, n->in[0], dims);
  lw_grad_add(d, 0, lw_reshape(g, n, put->out[0], n->in[0]->rank, dims));
}

/* A border of one number: cut it off (and put back what had been cut). It gets all that x does not. */
void lw_grad_pad(lw_grad *d) {
  ir_node *n = d->n;
  int rank = n->in[0]->rank;
  int64_t before[IR_MAX_RANK], after[IR_MAX_RANK], pads[2 * IR_MAX_RANK];
  if (ir_attr_get_string(n, "mode", "constant")[0] != 'c') {
    lw_grad_moved(d);
    return;
  }
  lw_pad_amounts(d->ctx, n, before, after);
  for (int i = 0; i < rank; i++) pads[i] = -before[i], pads[rank + i] = -after[i];
  ir_value *dx = lw_op2(d->g, n, "Pad", d->dy[0], ir_graph_ints(d->g, NULL, 2 * rank, pads));
  lw_grad_add(d, 0, dx);
  if (!lw_has(n, 2) || !d->wanted[2]) return;
  ir_value *rest = lw_op2(d->g, n, "Sub", lw_reduce_all(d->g, n, "ReduceSum", d->dy[0]), lw_reduce_all(d->g, n, "ReduceSum", dx));
  int64_t dims[IR_MAX_RANK];
  lw_grad_dims(d->ctx, n->in[2], dims);
  lw_grad_add(d, 2, lw_reshape(d->g, n, rest, n->in[2]->rank, dims));
}

/* [r0 d0, r1 d1, ..] as [r0, d0, r1, d1, ..], summed over what repeats. */
void lw_grad_tile(lw_grad *d) {
  const ir_value *x = d->n->in[0];
  int64_t repeats[IR_MAX_RANK], dims[2 * IR_MAX_RANK], axes[IR_MAX_RANK], own[IR_MAX_RANK];
  int rank = 0, count = 0;
  lw_tile_repeats(d->ctx, d->n, repeats);
  lw_grad_dims(d->ctx, x, own);
  for (int i = 0; i < x->rank; i++) {
    if (repeats[i] != 1) axes[count++] = rank, dims[rank++] = repeats[i];
    dims[rank++] = own[i];
  }
  if (rank > IR_MAX_RANK - 3) {
    lw_grad_moved(d);
    return;
  }
  ir_value *v = lw_grad_sum(d->g, d->n, lw_reshape(d->g, d->n, d->dy[0], rank, dims), count, axes, false);
  lw_grad_add(d, 0, v);
}

/* MaxUnpool puts each element where Indices say, counting the whole result: from there it is fetched. */
void lw_grad_unpool(lw_grad *d) {
  int64_t all = 1;
  if (lw_has(d->n, 2)) lw_unsupported(d->ctx, d->n, "the gradient with an output_shape");
  for (int i = 0; i < d->dy[0]->rank; i++) all *= ir_dim(d->ctx, d->dy[0], i);
  lw_grad_add(d, 0, lw_op2_int(d->g, d->n, "Gather", lw_reshape(d->g, d->n, d->dy[0], 1, &all), d->n->in[1], "axis", 0));
}

/* ---- where data says: what was gathered is scattered, adding up, and the other way ---- */

static ir_value *scatter(lw_grad *d, const char *op, ir_value *data, ir_value *at, ir_value *updates, int axis, const char *reduction) {
  ir_node *m = lw_node_n(d->g, d->n, op, 3, (ir_value *[]){data, at, updates}, 1);
  if (axis >= 0) ir_attr_int(m, "axis", axis);
  ir_attr_string(m, "reduction", reduction);
  ir_infer(d->ctx, m);
  return m->out[0];
}

/* Rows along one axis, added up by place: ScatterND where that is the first axis. */
void lw_grad_gather(lw_grad *d) {
  ir_node *n = d->n;
  const ir_value *x = n->in[0], *at = n->in[1];
  int axis = ir_axis(d->ctx, n, ir_attr_get_int(n, "axis", 0), x->rank);
  int64_t dims[IR_MAX_RANK], to_front[IR_MAX_RANK], back[IR_MAX_RANK], shape[IR_MAX_RANK];
  ir_value *dy = d->dy[0];
  if (at->rank + 1 > IR_MAX_RANK - 3) lw_unsupported(d->ctx, n, "the gradient for indices of rank %d", at->rank);
  if (axis > 0) { /* the axes of the indices first */
    int k = 0;
    for (int i = axis; i < axis + at->rank; i++) to_front[k++] = i;
    for (int i = 0; i < dy->rank; i++)
      if (i < axis || i >= axis + at->rank) to_front[k++] = i;
    dy = lw_transpose(d->g, n, dy, to_front);
  }
  for (int i = 0; i < at->rank; i++) dims[i] = ir_dim(d->ctx, at, i);
  dims[at->rank] = 1;
  ir_value *rows = lw_reshape(d->g, n, n->in[1], at->rank + 1, dims);
  for (int i = 0; i < x->rank; i++) shape[i] = ir_dim(d->ctx, x, i == 0 ? axis : i <= axis ? i - 1 : i);
  ir_value *dx = scatter(d, "ScatterND", lw_grad_full(d, x, x->rank, shape, 0), rows, dy, -1, "add");
  if (axis > 0) {
    for (int i = 0; i < x->rank; i++) back[i] = i < axis ? i + 1 : i == axis ? 0 : i;
    dx = lw_transpose(d->g, n, dx, back);
  }
  lw_grad_add(d, 0, dx);
}

static int axis_of(lw_grad *d, int64_t otherwise) { return ir_axis(d->ctx, d->n, ir_attr_get_int(d->n, "axis", otherwise), d->n->in[0]->rank); }

void lw_grad_gather_elements(lw_grad *d) {
  lw_grad_add(d, 0, scatter(d, "ScatterElements", lw_grad_zeros(d, d->n->in[0]), d->n->in[1], d->dy[0], axis_of(d, 0), "add"));
}

void lw_grad_gather_nd(lw_grad *d) {
  if (ir_attr_get_int(d->n, "batch_dims", 0)) lw_grad_moved(d);
  else lw_grad_add(d, 0, scatter(d, "ScatterND", lw_grad_zeros(d, d->n->in[0]), d->n->in[1], d->dy[0], -1, "add"));
}

/* Both scatters, by `fetch`, which reads at their indices. Without a reduction the data loses the places
 * written to; "add" leaves all to both; a factor gets the product of the others (none of them zero);
 * equal extremes share. */
static void scattered(lw_grad *d, const char *op, int axis, ir_value *(*fetch)(lw_grad *d, ir_value *from)) {
  ir_graph *g = d->g;
  ir_node *n = d->n;
  ir_value *x = n->in[0], *at = n->in[1], *u = n->in[2], *y = n->out[0], *dy = d->dy[0], *zero = lw_number(g, x, 0);
  const char *how = ir_attr_get_string(n, "reduction", "none");
  if (strcmp(how, "none") == 0) {
    if (d->wanted[0]) lw_grad_add(d, 0, scatter(d, op, dy, at, lw_grad_zeros(d, u), axis, "none"));
    if (d->wanted[2]) lw_grad_add(d, 2, fetch(d, dy));
  } else if (strcmp(how, "add") == 0) {
    lw_grad_add(d, 0, dy);
    if (d->wanted[2]) lw_grad_add(d, 2, fetch(d, dy));
  } else if (strcmp(how, "mul") == 0) {
    ir_value *v = lw_op2(g, n, "Mul", dy, y);
    if (d->wanted[0]) lw_grad_add(d, 0, lw_op2(g, n, "Div", v, x));
    if (d->wanted[2]) lw_grad_add(d, 2, lw_op2(g, n, "Div", fetch(d, v), u));
  } else {
    ir_value *mine = lw_op2(g, n, "Equal", x, y), *theirs = lw_op2(g, n, "Equal", u, fetch(d, y));
    ir_value *count = scatter(d, op, lw_cast_node(g, n, mine, x->dtype), at, lw_cast_node(g, n, theirs, x->dtype), axis, "add");
    ir_value *share = lw_op2(g, n, "Div", dy, count);
    if (d->wanted[0]) lw_grad_add(d, 0, lw_op3(g, n, "Where", mine, share, zero));
    if (d->wanted[2]) lw_grad_add(d, 2, lw_op3(g, n, "Where", theirs, fetch(d, share), zero));
  }
}
static ir_value *fetch_elements(lw_grad *d, ir_value *from) { return lw_op2_int(d->g, d->n, "GatherElements", from, d->n->in[1], "axis", axis_of(d, 0)); }
static ir_value *fetch_nd(lw_grad *d, ir_value *from) { return lw_op2(d->g, d->n, "GatherND", from, d->n->in[1]); }
void lw_grad_scatter_elements(lw_grad *d) { scattered(d, "ScatterElements", axis_of(d, 0), fetch_elements); }
void lw_grad_scatter_nd(lw_grad *d) { scattered(d, "ScatterND", -1, fetch_nd); }

/* TopK: the values go back to where Indices say they came from. */
void lw_grad_top_k(lw_grad *d) {
  if (d->dy[0]) lw_grad_add(d, 0, scatter(d, "ScatterElements", lw_grad_zeros(d, d->n->in[0]), lw_grad_output(d, 1), d->dy[0], axis_of(d, -1), "add"));
}
