/* control.c — If, Loop and Scan: their bodies become part of the graph.
 *
 * A condition that is known picks a branch; one that is not computes both and picks the
 * results, or stays one where that would take long. A loop whose trip count is known when compiling is unrolled, unless it is long; so
 * is one whose condition can be computed from constants, iteration by iteration. Others stay loops (region.c). */
#include "lower/control.h"
#include "lower/extent.h"
#include "lower/list.h"
#include "lower/region.h"
#include <math.h>
#include <string.h>

enum { MOST_NODES = 20000, MOST_UNROLLED = 4000 }; /* nodes of a graph after unrolling, of one loop that need not be */

ir_graph *lw_body(tn_ctx *ctx, const ir_node *n, const char *name) {
  const ir_attr *a = ir_attr_find(n, name);
  if (!a || a->kind != IR_ATTR_GRAPH || !a->graph) lw_bad(ctx, n, "the graph '%s' is missing", name);
  return a->graph;
}

ir_value *lw_later(ir_graph *g, ir_node *n, const char *op, int nin, ir_value *const *in) { return lw_node_n(g, n, op, nin, in, 1)->out[0]; }
ir_value *lw_later_int(ir_graph *g, ir_node *n, const char *op, int nin, ir_value *const *in, const char *attr, int64_t v) {
  ir_node *m = lw_node_n(g, n, op, nin, in, 1);
  ir_attr_int(m, attr, v);
  return m->out[0];
}

/* ---- copies of graphs ---- */

typedef struct copies { /* what stands for the values of a body; others, of graphs around it, stand for themselves */
  uint32_t first, count;
  ir_value **by;
  const struct copies *outer;
} copies;

static ir_value *copy_of(const copies *c, ir_value *v) {
  for (; v && c; c = c->outer)
    if (v->id >= c->first && v->id - c->first < c->count && c->by[v->id - c->first]) return c->by[v->id - c->first];
  return v;
}
static void set_copy(tn_ctx *ctx, copies *c, const ir_value *v, ir_value *by) {
  ir_assert(ctx, v->id >= c->first && v->id - c->first < c->count);
  c->by[v->id - c->first] = by;
}

static copies copies_for(tn_ctx *ctx, const ir_graph *body, const copies *outer) {
  copies c = {.first = UINT32_MAX, .outer = outer};
  uint32_t last = 0;
  for (int i = 0; i < body->nvalues; i++) {
    if (body->values[i]->id < c.first) c.first = body->values[i]->id;
    if (body->values[i]->id > last) last = body->values[i]->id;
  }
  c.count = body->nvalues ? last - c.first + 1 : 0;
  c.by = IR_NEW_ARRAY(ctx, ir_value *, c.count + 1);
  return c;
}

static void copy_nodes(ir_graph *g, const ir_graph *body, const char *label, copies *c);

/* A graph attribute for a copied node: what it reads from the copied graph is renamed inside. */
static ir_graph *copy_graph(tn_ctx *ctx, const ir_graph *from, ir_graph *outer, const char *label, const copies *around) {
  ir_graph *to = ir_graph_new(ctx, from->name);
  copies c = copies_for(ctx, from, around);
  to->file = from->file;
  to->outer = outer;
  for (int i = 0; i < from->ninputs; i++) {
    const ir_value *v = from->inputs[i];
    set_copy(ctx, &c, v, ir_graph_input(to, v->name, v->dtype, v->rank, v->dims));
  }
  for (int i = 0; i < from->nparams; i++) { /* constants are shared */
    IR_PUSH(ctx, to->values, to->nvalues, from->params[i]);
    IR_PUSH(ctx, to->params, to->nparams, from->params[i]);
  }
  copy_nodes(to, from, label, &c);
  for (int i = 0; i < from->noutputs; i++) ir_graph_output(to, copy_of(&c, from->outputs[i]));
  return to;
}

static void copy_nodes(ir_graph *g, const ir_graph *body, const char *label, copies *c) {
  tn_ctx *ctx = g->ctx;
  if ((int64_t)g->nnodes + body->nnodes > MOST_NODES)
    ir_fail(ctx, TN_EUNSUPPORTED, "%s: the graph grows beyond %d nodes when its loops are unrolled", body->nnodes ? body->nodes[0]->where : g->name, MOST_NODES);
  for (int i = 0; i < body->nnodes; i++) {
    const ir_node *n = body->nodes[i];
    if (n->dead) continue;
    ir_value **in = IR_NEW_ARRAY(ctx, ir_value *, n->nin + 1);
    for (int k = 0; k < n->nin; k++) in[k] = copy_of(c, n->in[k]);
    const char *domain = n->op->domain ? n->op->domain : "";
    ir_node *m = ir_node_new(g, *domain ? ir_format(ctx, "%s:%s", domain, n->op->name) : n->op->name, ir_format(ctx, "%s/%s", label, n->name), n->nin, in, n->nout);
    m->where = n->where;
    m->opset = n->opset;
    m->nattrs = n->nattrs;
    m->attrs = ir_grow(ctx, n->attrs, (size_t)n->nattrs, (size_t)n->nattrs, sizeof *n->attrs);
    for (int k = 0; k < m->nattrs; k++)
      if (m->attrs[k].kind == IR_ATTR_GRAPH) m->attrs[k].graph = copy_graph(ctx, m->attrs[k].graph, g, label, c);
    for (int k = 0; k < n->nout; k++) {
      if (!n->out[k]) m->out[k] = NULL;
      else set_copy(ctx, c, n->out[k], m->out[k]);
    }
  }
}

/* The constants of a body belong to g from now on; copies share them. */
static void adopt_constants(ir_graph *g, const ir_graph *body) {
  for (int i = 0; i < body->nparams; i++) {
    ir_value *v = body->params[i];
    bool there = false;
    for (int k = g->nparams; k-- > 0 && !there;) there = g->params[k] == v;
    if (there) continue;
    IR_PUSH(g->ctx, g->values, g->nvalues, v);
    IR_PUSH(g->ctx, g->params, g->nparams, v);
  }
}

static void inline_within(ir_graph *g, ir_node *n, ir_graph *body, const char *label, int nargs, ir_value *const *args, const copies *around, ir_value **outs) {
  if (nargs != body->ninputs) lw_bad(g->ctx, n, "the graph '%s' has %d inputs, %d are given", body->name, body->ninputs, nargs);
  copies c = copies_for(g->ctx, body, around);
  for (int i = 0; i < nargs; i++) set_copy(g->ctx, &c, body->inputs[i], args[i]);
  adopt_constants(g, body);
  copy_nodes(g, body, ir_format(g->ctx, "%s/%s", n->name, label), &c);
  for (int i = 0; i < body->noutputs; i++) outs[i] = copy_of(&c, body->outputs[i]);
}

void lw_inline(ir_graph *g, ir_node *n, ir_graph *body, const char *label, int nargs, ir_value *const *args, ir_value **outs) { inline_within(g, n, body, label, nargs, args, NULL, outs); }

void lw_inline_apart(ir_graph *g, ir_node *n, ir_graph *body, const char *label, int nargs, ir_value *const *args, int nouter, ir_value *const *outer, ir_value *const *by, ir_value **outs) {
  copies around = {.first = UINT32_MAX};
  uint32_t last = 0;
  for (int i = 0; i < nouter; i++) {
    if (outer[i]->id < around.first) around.first = outer[i]->id;
    if (outer[i]->id > last) last = outer[i]->id;
  }
  around.count = nouter ? last - around.first + 1 : 0;
  around.by = IR_NEW_ARRAY(g->ctx, ir_value *, around.count + 1);
  for (int i = 0; i < nouter; i++) set_copy(g->ctx, &around, outer[i], by[i]);
  inline_within(g, n, body, label, nargs, args, &around, outs);
}

/* An output that is somebody else's value becomes one of its own. */
static void give(ir_graph *g, ir_node *n, int k, ir_value *v) {
  if (k < n->nout && n->out[k]) lw_replace(g, n, k, lw_later(g, n, "Identity", 1, &v));
}

bool lw_known_int(const ir_value *v, int64_t *out) {
  double d;
  if (!v->data || v->rank < 0 || !ir_known_float(v, &d)) return false;
  if (v->dtype == TN_I64) memcpy(out, v->data, sizeof *out); /* all of its bits */
  else *out = isnan(d) ? 0 : d >= 0x1p63 ? INT64_MAX : d < -0x1p63 ? INT64_MIN : (int64_t)d;
  return true;
}

/* ---- If ---- */

static void if_expand(ir_graph *g, ir_node *n) {
  tn_ctx *ctx = g->ctx;
  if (n->nin != 1 || !n->in[0]) lw_bad(ctx, n, "the condition is missing");
  ir_graph *branch[2] = {lw_body(ctx, n, "else_branch"), lw_body(ctx, n, "then_branch")};
  ir_value **outs[2];
  int64_t cond;
  for (int i = 0; i < 2; i++)
    if (branch[i]->noutputs < n->nout) lw_bad(ctx, n, "a branch gives %d outputs, not %d", branch[i]->noutputs, n->nout);
  bool known = lw_known_int(n->in[0], &cond);
  if (!known && (lw_is_heavy(branch[0]) || lw_is_heavy(branch[1]))) {
    lw_keep_if(g, n, branch[1], branch[0]);
    return;
  }
  for (int i = 0; i < 2; i++) {
    outs[i] = IR_NEW_ARRAY(ctx, ir_value *, branch[i]->noutputs + 1);
    if (!known || i == (cond != 0)) lw_inline(g, n, branch[i], i ? "then" : "else", 0, NULL, outs[i]);
  }
  for (int k = n->nout; k-- > 0;) {
    if (!n->out[k]) continue;
    if (known) give(g, n, k, outs[cond != 0][k]);
    else lw_replace(g, n, k, lw_later(g, n, "tenon:Either", 3, (ir_value *[]){n->in[0], outs[1][k], outs[0][k]}));
  }
  n->dead = true;
}

/* tenon Either: condition, then, else. Both have been computed. */
static void either_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *a = n->in[1], *b = n->in[2];
  lw_need_single(ctx, n, 0);
  bool same = a->dtype == b->dtype && a->rank == b->rank;
  for (int i = 0; i < a->rank && same; i++) same = a->dims[i] == b->dims[i];
  if (!same) lw_unsupported(ctx, n, "the branches of an If differ in type or shape, and its condition is not known when compiling");
  lw_set_like(n, 0, a->dtype, a);
}
static ix either_value(lw_build *b, ir_node *n, int out, const ix *index) {
  ix cond = lw_scalar_in(b, n, 0), x = lw_in(b, n, 1, index), y = lw_in(b, n, 2, index);
  return ix_select(lw_ctx(b), ix_cast(lw_ctx(b), TN_BOOL, cond), x, y);
}

/* ---- Loop: trip count, condition, states.. -> states.., scan outputs..
 *      body: iteration, condition, states.. -> condition, states.., scan outputs.. ---- */

/* A scalar for input k of the body, as a vector of one when that is how it is declared. */
static ir_value *loop_scalar(ir_graph *g, const ir_graph *body, int k, tn_dtype t, const void *data) {
  int rank = k < body->ninputs && body->inputs[k]->rank == 1 ? 1 : 0;
  return ir_graph_const(g, NULL, t, rank, (int64_t[]){1}, data, true);
}

/* Slice i of a scan output for every iteration, stacked along a new axis. */
static ir_value *stacked(ir_graph *g, ir_node *n, int64_t count, ir_value *const *slices, int64_t axis, bool backwards) {
  ir_value **in = IR_NEW_ARRAY(g->ctx, ir_value *, count + 1), *at = ir_graph_ints(g, NULL, 1, &axis);
  for (int64_t i = 0; i < count; i++) in[backwards ? count - 1 - i : i] = lw_later(g, n, "Unsqueeze", 2, (ir_value *[]){slices[i], at});
  return lw_later_int(g, n, "Concat", (int)count, in, "axis", axis);
}

/* One run of the body, settled: its outputs with types, and with data where that is known. */
static void iterate(ir_graph *g, ir_node *n, ir_graph *body, int64_t i, int nargs, ir_value *const *args, ir_value **outs) {
  int first = g->nnodes, before = g->noutputs;
  lw_inline(g, n, body, ir_format(g->ctx, "%lld", (long long)i), nargs, args, outs);
  /* settling may put another value in the place of an output: among those of the graph it is replaced */
  for (int k = 0; k < body->noutputs; k++) {
    ir_value *v = lw_later(g, n, "Identity", 1, &outs[k]);
    IR_PUSH(g->ctx, g->outputs, g->noutputs, v);
  }
  lw_settle(g->ctx, g, first);
  memcpy(outs, g->outputs + before, (size_t)body->noutputs * sizeof *outs);
  g->noutputs = before;
}

static int uses_of(const ir_graph *g, const ir_value *v) {
  int n = 0;
  for (int i = 0; i < g->noutputs; i++) n += g->outputs[i] == v;
  for (int i = 0; i < g->nnodes; i++) {
    for (int k = 0; k < g->nodes[i]->nin; k++) n += g->nodes[i]->in[k] == v;
    for (int k = 0; k < g->nodes[i]->nattrs; k++)
      if (g->nodes[i]->attrs[k].kind == IR_ATTR_GRAPH) n += uses_of(g->nodes[i]->attrs[k].graph, v);
  }
  return n;
}

/* A loop that stays cannot carry a list. One that begins empty and to which each turn appends a tensor is what the loop collects: true when
 * there was one, and another Loop without it stands for n. */
static bool collect_list(ir_graph *g, ir_node *n, ir_graph *body) {
  tn_ctx *ctx = g->ctx;
  int states = body->ninputs - 2, at = 0;
  for (; at < states; at++) {
    const ir_node *add = body->outputs[1 + at]->def;
    bool begins_empty = lw_is_list(n->in[2 + at]) && ir_node_is(n->in[2 + at]->def, "SequenceConstruct") && n->in[2 + at]->def->nin == 0;
    bool appends = add && ir_node_is(add, "SequenceInsert") && add->in[0] == body->inputs[2 + at] && (add->nin < 3 || !add->in[2]);
    if (begins_empty && appends && uses_of(body, add->in[0]) == 1 && uses_of(body, add->out[0]) == 1) break;
  }
  if (at >= states) return false;
  ir_node *add = body->outputs[1 + at]->def;
  ir_value **in = IR_NEW_ARRAY(ctx, ir_value *, n->nin), *collected = add->in[1];
  for (int k = 0, to = 0; k < n->nin; k++)
    if (k != 2 + at) in[to++] = n->in[k];
  add->dead = true;
  for (int k = 2 + at; k + 1 < body->ninputs; k++) body->inputs[k] = body->inputs[k + 1];
  for (int k = 1 + at; k + 1 < body->noutputs; k++) body->outputs[k] = body->outputs[k + 1];
  body->ninputs--;
  body->outputs[body->noutputs - 1] = collected; /* behind all else: the last that is collected */
  int count = body->noutputs - 1;
  ir_node *m = lw_node_n(g, n, "Loop", n->nin - 1, in, count);
  m->opset = n->opset;
  ir_attr a = {.name = ir_intern(ctx, "body"), .kind = IR_ATTR_GRAPH, .graph = body};
  IR_PUSH(ctx, m->attrs, m->nattrs, a);
  for (int k = 0; k < n->nout; k++)
    if (n->out[k]) lw_replace(g, n, k, k == at ? lw_list_of_rows(g, n, m->out[count - 1]) : m->out[k - (k > at)]);
  n->dead = true;
  return true;
}

static void keep(ir_graph *g, ir_node *n, ir_graph *body, int64_t done, ir_value *cond, ir_value *const *states) {
  if (!collect_list(g, n, body)) lw_keep_loop(g, n, body, done, cond, states);
}

static void loop_expand(ir_graph *g, ir_node *n) {
  tn_ctx *ctx = g->ctx;
  ir_graph *body = lw_body(ctx, n, "body");
  int64_t trips = INT64_MAX, cond = 1, done = 0;
  int states = body->ninputs - 2, scans = body->noutputs - 1 - states, nslices = 0;
  if (states < 0 || scans < 0 || n->nin != 2 + states || n->nout > states + scans) lw_bad(ctx, n, "%d inputs and %d outputs do not fit the body", n->nin, n->nout);
  bool counted = !n->in[0] || lw_known_int(n->in[0], &trips), begun = !n->in[1] || lw_known_int(n->in[1], &cond);
  bool long_one = begun && cond && n->in[0] && trips < INT64_MAX && trips > MOST_UNROLLED / (body->nnodes + 1) && lw_goes_on(body);
  ir_value **args = IR_NEW_ARRAY(ctx, ir_value *, 2 + states), **outs = IR_NEW_ARRAY(ctx, ir_value *, body->noutputs + 1);
  ir_value **slices = NULL; /* [iteration][scan output] */
  for (int k = 2; k < n->nin; k++) {
    if (!n->in[k]) lw_bad(ctx, n, "input %d is omitted", k);
    args[k] = n->in[k];
  }
  if (!counted || !begun || long_one) {
    keep(g, n, body, 0, begun && cond ? NULL : n->in[1], args + 2);
    return;
  }
  bool empty = (!cond || trips <= 0) && scans > 0; /* an iteration that only tells shapes */
  uint8_t yes = 1;
  while (empty || (done < trips && cond)) {
    args[0] = loop_scalar(g, body, 0, TN_I64, &done);
    args[1] = loop_scalar(g, body, 1, TN_BOOL, &yes);
    iterate(g, n, body, done, n->nin, args, outs);
    for (int k = 0; k < scans; k++) IR_PUSH(ctx, slices, nslices, outs[1 + states + k]);
    if (empty) break;
    for (int k = 0; k < states; k++) args[2 + k] = outs[1 + k];
    done++;
    if (done < trips && !lw_known_int(outs[0], &cond)) { /* the one that is done stays before the loop */
      bool lists = false;
      for (int k = 2; k < n->nin; k++) lists |= lw_is_list(n->in[k]);
      if (done == 1 && !scans && !lists) lw_keep_loop(g, n, body, done, outs[0], args + 2);
      else keep(g, n, body, 0, NULL, n->in + 2); /* what was unrolled nobody reads */
      return;
    }
  }
  int64_t count = empty ? 1 : done, zero = 0;
  for (int k = 0; k < n->nout; k++) {
    if (!n->out[k]) continue;
    if (k < states) {
      give(g, n, k, args[2 + k]);
      continue;
    }
    ir_value **mine = IR_NEW_ARRAY(ctx, ir_value *, count + 1), *none = ir_graph_ints(g, NULL, 1, &zero), *v;
    for (int64_t i = 0; i < count; i++) mine[i] = slices[i * scans + k - states];
    v = stacked(g, n, count, mine, 0, false);
    lw_replace(g, n, k, empty ? lw_later(g, n, "Slice", 4, (ir_value *[]){v, none, none, none}) : v);
  }
  n->dead = true;
}

/* ---- Scan (since 9): states.., sequences.. -> states.., sequences.. ---- */

static int64_t entry(tn_ctx *ctx, const ir_node *n, const char *attr, int i, int count) {
  const int64_t *list;
  int have = ir_attr_get_ints(n, attr, &list);
  if (have >= 0 && have != count) lw_bad(ctx, n, "%s has %d entries, not %d", attr, have, count);
  return have < 0 ? 0 : list[i];
}

/* Before opset 9: the operands are batches of what it is now, behind the lengths of their sequences. */
static void scan_of_batch(ir_graph *g, ir_node *n) {
  tn_ctx *ctx = g->ctx;
  ir_graph *body = lw_body(ctx, n, "body");
  int64_t sequences = ir_attr_get_int(n, "num_scan_inputs", 0), zero = 0;
  if (n->nin < 2 || !n->in[1] || n->nin - 1 != body->ninputs || n->nout > body->noutputs) lw_bad(ctx, n, "%d inputs and %d outputs do not fit the body", n->nin, n->nout);
  if (n->in[0]) lw_unsupported(ctx, n, "sequences of several lengths (sequence_lens)");
  int64_t batch = -1;
  for (int k = 1; k < n->nin; k++) {
    if (!n->in[k] || n->in[k]->rank < 1) lw_bad(ctx, n, "input %d is no batch", k);
    int64_t d = ir_dim(ctx, n->in[k], 0);
    if (batch >= 0 && d != batch) lw_bad(ctx, n, "batches of %lld and %lld", (long long)batch, (long long)d);
    batch = d;
  }
  if (batch < 1) lw_unsupported(ctx, n, "an empty batch");
  ir_value **in = IR_NEW_ARRAY(ctx, ir_value *, n->nin), **part = IR_NEW_ARRAY(ctx, ir_value *, n->nout * batch + 1);
  const int64_t *directions;
  int given = ir_attr_get_ints(n, "directions", &directions);
  for (int64_t i = 0; i < batch; i++) {
    ir_value *at = ir_graph_scalar(g, NULL, TN_I64, (double)i);
    for (int k = 1; k < n->nin; k++) in[k - 1] = lw_later_int(g, n, "Gather", 2, (ir_value *[]){n->in[k], at}, "axis", 0);
    ir_node *m = lw_node_n(g, n, "Scan", n->nin - 1, in, n->nout);
    ir_attr_int(m, "num_scan_inputs", sequences);
    if (given >= 0) ir_attr_ints(m, "scan_input_directions", given, directions);
    ir_attr a = {.name = ir_intern(ctx, "body"), .kind = IR_ATTR_GRAPH, .graph = body};
    IR_PUSH(ctx, m->attrs, m->nattrs, a);
    for (int k = 0; k < n->nout; k++) part[k * batch + i] = lw_later(g, n, "Unsqueeze", 2, (ir_value *[]){m->out[k], ir_graph_ints(g, NULL, 1, &zero)});
  }
  for (int k = n->nout; k-- > 0;)
    if (n->out[k]) lw_replace(g, n, k, lw_later_int(g, n, "Concat", (int)batch, part + k * batch, "axis", 0));
  n->dead = true;
}

/* The length of the sequences: of those that a run finds the nodes that tell it, which must be the same; the operands are then what
 * they lie in, and the result the most. */
static int64_t scan_length(tn_ctx *ctx, ir_node *n, int states, const int64_t *axis, ir_value **sized) {
  int64_t length = -1;
  *sized = NULL;
  for (int k = states; k < n->nin; k++) {
    bool is = lw_is_sized(n->in[k]);
    ir_value *own = is ? n->in[k]->def->in[1] : NULL;
    if ((is && ir_attr_get_int(n->in[k]->def, "axis", 0) != axis[k - states]) || (k > states && own != *sized))
      lw_unsupported(ctx, n, "sequence %d has a length that a run finds, and not the same as the others", k - states);
    *sized = own;
    int64_t d = ir_dim(ctx, n->in[k], (int)axis[k - states]);
    if (length >= 0 && d != length) lw_bad(ctx, n, "sequences of %lld and %lld elements", (long long)length, (long long)d);
    length = d;
    if (is) n->in[k] = n->in[k]->def->in[0];
  }
  return length;
}

/* An element of sequence k at turn t; of empty ones a zero of its type, to know what the body makes of it. */
static ir_value *scan_element(ir_graph *g, ir_node *n, int k, int64_t axis, int64_t at, bool empty) {
  if (!empty) return lw_later_int(g, n, "Gather", 2, (ir_value *[]){n->in[k], ir_graph_scalar(g, NULL, TN_I64, (double)at)}, "axis", axis);
  const ir_value *v = n->in[k];
  int64_t dims[IR_MAX_RANK];
  for (int i = 0, r = 0; i < v->rank; i++)
    if (i != axis) dims[r++] = ir_dim(g->ctx, v, i);
  return lw_later(g, n, "Expand", 2, (ir_value *[]){lw_number(g, v, 0), ir_graph_ints(g, NULL, v->rank - 1, dims)});
}

static void scan_expand(ir_graph *g, ir_node *n) {
  tn_ctx *ctx = g->ctx;
  if (n->opset < 9) {
    scan_of_batch(g, n);
    return;
  }
  ir_graph *body = lw_body(ctx, n, "body");
  int64_t sequences = ir_attr_get_int(n, "num_scan_inputs", 0);
  if (sequences < 1 || sequences > n->nin) lw_bad(ctx, n, "num_scan_inputs is %lld; there are %d inputs", (long long)sequences, n->nin);
  int states = n->nin - (int)sequences, scans = body->noutputs - states;
  if (scans < 0 || body->ninputs != n->nin || n->nout > body->noutputs)
    lw_bad(ctx, n, "%d inputs, %d of them sequences, and %d outputs do not fit the body", n->nin, (int)sequences, n->nout);
  int64_t axis[64];
  if (sequences > 64 || scans > 64) lw_unsupported(ctx, n, "more than 64 sequences");
  for (int k = 0; k < n->nin; k++) {
    if (!n->in[k]) lw_bad(ctx, n, "input %d is omitted", k);
    if (n->in[k]->rank < 0) ir_bug(ctx, "%s: the type of input %d is not known", n->where, k);
    if (k < states && lw_is_sized(n->in[k])) lw_unsupported(ctx, n, "state %d is of a length that only a run finds", k);
    if (k >= states) axis[k - states] = ir_axis(ctx, n, entry(ctx, n, "scan_input_axes", k - states, (int)sequences), n->in[k]->rank);
  }
  for (int s = 0; s < sequences; s++) entry(ctx, n, "scan_input_directions", s, (int)sequences);
  for (int s = 0; s < scans; s++) entry(ctx, n, "scan_output_axes", s, scans), entry(ctx, n, "scan_output_directions", s, scans);
  ir_value *sized;
  int64_t length = scan_length(ctx, n, states, axis, &sized), zero = 0;
  if (length > 0 && (sized || length > MOST_UNROLLED / (body->nnodes + 1))) {
    lw_keep_scan(g, n, body, states, axis, length, sized);
    return;
  }
  bool empty = length == 0;
  int64_t count = empty && scans ? 1 : length; /* a turn that only tells shapes */
  ir_value **args = IR_NEW_ARRAY(ctx, ir_value *, n->nin), **outs = IR_NEW_ARRAY(ctx, ir_value *, body->noutputs + 1);
  ir_value **slices = IR_NEW_ARRAY(ctx, ir_value *, (count + 1) * (scans + 1));
  for (int k = 0; k < states; k++) args[k] = n->in[k];
  for (int64_t t = 0; t < count; t++) {
    for (int k = states; k < n->nin; k++) {
      bool backwards = entry(ctx, n, "scan_input_directions", k - states, (int)sequences) != 0;
      args[k] = scan_element(g, n, k, axis[k - states], backwards ? length - 1 - t : t, empty);
    }
    lw_inline(g, n, body, ir_format(ctx, "%lld", (long long)t), n->nin, args, outs);
    for (int k = 0; k < states && !empty; k++) args[k] = outs[k];
    for (int k = 0; k < scans; k++) slices[k * count + t] = outs[states + k];
  }
  for (int k = 0; k < n->nout; k++) {
    if (!n->out[k]) continue;
    int s = k - states;
    if (s < 0) {
      give(g, n, k, args[k]);
      continue;
    }
    int64_t to = entry(ctx, n, "scan_output_axes", s, scans);
    ir_value *none = ir_graph_ints(g, NULL, 1, &zero), *v = stacked(g, n, count, slices + s * count, to, entry(ctx, n, "scan_output_directions", s, scans) != 0);
    lw_replace(g, n, k, empty ? lw_later(g, n, "Slice", 4, (ir_value *[]){v, none, none, ir_graph_ints(g, NULL, 1, &to)}) : v);
  }
  n->dead = true;
}

/* Not asked by the pass: expand() comes first, and its nodes know their types. */
static void control_infer(tn_ctx *ctx, ir_node *n) { lw_unsupported(ctx, n, "a graph inside a node, here"); }

#define CONTROL(NAME, ATTRS, EXPAND) \
  {.name = NAME, .kind = IR_OP_CONTROL, .since = 1, .min_in = 0, .max_in = -1, .min_out = 0, .max_out = -1, .attrs = ATTRS, .infer = control_infer, .expand = EXPAND}
const ir_op lw_ops_control[] = {
    CONTROL("If", "then_branch:g else_branch:g", if_expand),
    CONTROL("Loop", "body:g peeled:i", loop_expand),
    CONTROL("Scan", "body:g num_scan_inputs:i scan_input_axes:I scan_input_directions:I scan_output_axes:I scan_output_directions:I directions:I", scan_expand),
    {.name = "Either", .domain = "tenon", .kind = IR_OP_ELEMENTWISE, .since = 1, .min_in = 3, .max_in = 3, .min_out = 1, .max_out = 1, .infer = either_infer, .value = either_value},
    {0}};
