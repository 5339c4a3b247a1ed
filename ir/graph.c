/* graph.c — graphs: making, editing, ordering, checking. */
#include "ir/ir.h"
#include "ir/ctx_internal.h"
#include "ir/interp.h"
#include <string.h>

ir_graph *ir_graph_new(tn_ctx *ctx, const char *name) {
  ir_graph *g = IR_NEW(ctx, ir_graph);
  g->ctx = ctx;
  g->name = ir_intern(ctx, name ? name : "graph");
  return g;
}

static ir_value *value_new(ir_graph *g, const char *name, ir_value_kind kind) {
  ir_value *v = IR_NEW(g->ctx, ir_value);
  v->kind = kind;
  v->id = g->ctx->next_id++;
  v->name = name && *name ? ir_intern(g->ctx, name) : ir_intern(g->ctx, ir_format(g->ctx, "v%u", v->id));
  v->rank = -1;
  IR_PUSH(g->ctx, g->values, g->nvalues, v);
  return v;
}

ir_value *ir_graph_input(ir_graph *g, const char *name, tn_dtype t, int rank, const ix *dims) {
  ir_value *v = value_new(g, name, IR_VALUE_INPUT);
  v->dtype = t;
  v->rank = rank;
  for (int i = 0; i < rank; i++) v->dims[i] = dims[i];
  IR_PUSH(g->ctx, g->inputs, g->ninputs, v);
  return v;
}

ir_value *ir_graph_const(ir_graph *g, const char *name, tn_dtype t, int rank, const int64_t *dims, const void *data, bool copy) {
  if (rank > IR_MAX_RANK - 3) ir_fail(g->ctx, TN_EUNSUPPORTED, "tensor '%s' has rank %d; at most %d is supported", name ? name : "", rank, IR_MAX_RANK - 3);
  ir_value *v = value_new(g, name, IR_VALUE_CONST);
  v->dtype = t;
  v->rank = rank;
  int64_t bytes = (int64_t)ir_dtype_bytes(t);
  for (int i = 0; i < rank; i++) {
    v->dims[i] = ix_index(g->ctx, dims[i]);
    if (!ir_mul_size(bytes, dims[i], &bytes)) ir_fail(g->ctx, TN_EINPUT, "tensor '%s': its size overflows", v->name);
  }
  if (!ir_size_fits(v)) ir_fail(g->ctx, TN_EINPUT, "tensor '%s': its size overflows", v->name);
  v->data_bytes = bytes;
  v->data = data;
  if (copy) {
    void *p = ir_alloc(g->ctx, (size_t)bytes);
    if (bytes && data) memcpy(p, data, (size_t)bytes);
    v->data = p;
  }
  IR_PUSH(g->ctx, g->params, g->nparams, v);
  return v;
}

ir_value *ir_graph_ints(ir_graph *g, const char *name, int n, const int64_t *v) {
  return ir_graph_const(g, name, TN_I64, 1, (int64_t[]){n}, v, true);
}

ir_value *ir_graph_scalar(ir_graph *g, const char *name, tn_dtype t, double v) {
  unsigned char bytes[8];
  ir_scalar s;
  if (ir_is_float(t)) s.f = v; /* infinite, or beyond what integers have */
  else s.i = t == TN_BOOL ? v != 0 : t == TN_U64 ? (int64_t)(uint64_t)v : (int64_t)v;
  ir_scalar_store(t, bytes, s);
  return ir_graph_const(g, name, t, 0, NULL, bytes, true);
}

void ir_graph_output(ir_graph *g, ir_value *v) {
  IR_PUSH(g->ctx, g->outputs, g->noutputs, v);
  for (int i = g->noutputs - 1, stop = i - g->nupdates; i > stop; i--) /* updates stay behind */
    g->outputs[i] = g->outputs[i - 1], g->outputs[i - 1] = v;
}

void ir_graph_extent_of(ir_graph *g, int output, int axis, ir_value *v) {
  ir_graph_output(g, v);
  IR_PUSH(g->ctx, g->extents, g->nextents, ((ir_graph_extent){output, axis}));
}

void ir_graph_update(ir_graph *g, ir_value *target, ir_value *v) {
  IR_PUSH(g->ctx, g->updates, g->nupdates, target);
  IR_PUSH(g->ctx, g->outputs, g->noutputs, v);
}

ir_value *ir_graph_state(ir_graph *g, const char *name, tn_dtype t, int rank, const int64_t *dims, const void *start) {
  ir_value *v = ir_graph_const(g, name, t, rank, dims, NULL, false);
  v->kind = IR_VALUE_STATE;
  v->start = start;
  return v;
}

ir_node *ir_node_new(ir_graph *g, const char *op, const char *name, int nin, ir_value *const *in, int nout) {
  tn_ctx *ctx = g->ctx;
  const char *dot = strchr(op, ':'); /* "com.microsoft:Gelu" */
  const char *domain = dot ? ir_strndup(ctx, op, (size_t)(dot - op)) : "";
  const ir_op *row = ir_op_find(domain, dot ? dot + 1 : op);
  if (!row) ir_fail(ctx, TN_EUNSUPPORTED, "unknown op %s%s%s", op, name && *name ? " of node " : "", name ? name : "");
  ir_node *n = IR_NEW(ctx, ir_node);
  n->op = row;
  n->id = ctx->next_id++;
  n->name = name && *name ? ir_intern(ctx, name) : ir_intern(ctx, ir_format(ctx, "%s_%u", row->name, n->id));
  n->where = n->name;
  n->opset = 26;
  n->nin = nin;
  n->in = IR_NEW_ARRAY(ctx, ir_value *, nin);
  for (int i = 0; i < nin; i++) n->in[i] = in[i];
  n->nout = nout;
  n->out = IR_NEW_ARRAY(ctx, ir_value *, nout);
  for (int i = 0; i < nout; i++) {
    n->out[i] = value_new(g, i ? ir_format(ctx, "%s.%d", n->name, i) : n->name, IR_VALUE_NODE);
    n->out[i]->def = n;
    n->out[i]->def_index = i;
  }
  n->group = -1;
  n->graph = g;
  IR_PUSH(ctx, g->nodes, g->nnodes, n);
  return n;
}

bool ir_node_is(const ir_node *n, const char *name) {
  return strcmp(n->op->name, name) == 0 && (!n->op->domain || !*n->op->domain);
}

/* ---- attributes ---- */

static ir_attr *attr_new(ir_node *n, const char *name, ir_attr_kind kind) {
  tn_ctx *ctx = n->graph->ctx;
  for (int i = 0; i < n->nattrs; i++)
    if (strcmp(n->attrs[i].name, name) == 0) {
      n->attrs[i] = (ir_attr){.name = n->attrs[i].name, .kind = kind};
      return &n->attrs[i];
    }
  IR_PUSH(ctx, n->attrs, n->nattrs, (ir_attr){.name = ir_intern(ctx, name), .kind = kind});
  return &n->attrs[n->nattrs - 1];
}

void ir_attr_int(ir_node *n, const char *name, int64_t v) { attr_new(n, name, IR_ATTR_INT)->i = v; }
void ir_attr_float(ir_node *n, const char *name, double v) { attr_new(n, name, IR_ATTR_FLOAT)->f = v; }
void ir_attr_string(ir_node *n, const char *name, const char *v) {
  attr_new(n, name, IR_ATTR_STRING)->s = ir_strdup(n->graph->ctx, v);
}
void ir_attr_ints(ir_node *n, const char *name, int count, const int64_t *v) {
  ir_attr *a = attr_new(n, name, IR_ATTR_INTS);
  a->n = count;
  a->ints = ir_grow(n->graph->ctx, v, (size_t)count, (size_t)count, sizeof *v);
}
void ir_attr_floats(ir_node *n, const char *name, int count, const double *v) {
  ir_attr *a = attr_new(n, name, IR_ATTR_FLOATS);
  a->n = count;
  a->floats = ir_grow(n->graph->ctx, v, (size_t)count, (size_t)count, sizeof *v);
}

const ir_attr *ir_attr_find(const ir_node *n, const char *name) {
  for (int i = 0; i < n->nattrs; i++)
    if (strcmp(n->attrs[i].name, name) == 0) return &n->attrs[i];
  return NULL;
}

static const ir_attr *attr_need(const ir_node *n, const char *name, ir_attr_kind kind, const char *what) {
  const ir_attr *a = ir_attr_find(n, name);
  if (a && a->kind != kind)
    ir_fail(n->graph->ctx, TN_EINPUT, "%s: attribute '%s' is not %s", n->where, name, what);
  return a;
}

int64_t ir_attr_get_int(const ir_node *n, const char *name, int64_t otherwise) {
  const ir_attr *a = attr_need(n, name, IR_ATTR_INT, "an integer");
  return a ? a->i : otherwise;
}
double ir_attr_get_float(const ir_node *n, const char *name, double otherwise) {
  const ir_attr *a = ir_attr_find(n, name);
  if (a && a->kind == IR_ATTR_INT) return (double)a->i;
  a = attr_need(n, name, IR_ATTR_FLOAT, "a float");
  return a ? a->f : otherwise;
}
const char *ir_attr_get_string(const ir_node *n, const char *name, const char *otherwise) {
  const ir_attr *a = attr_need(n, name, IR_ATTR_STRING, "a string");
  return a ? a->s : otherwise;
}
int ir_attr_get_ints(const ir_node *n, const char *name, const int64_t **out) {
  const ir_attr *a = ir_attr_find(n, name);
  if (a && a->kind == IR_ATTR_INT) { /* a single integer serves as a list of one */
    *out = &a->i;
    return 1;
  }
  a = attr_need(n, name, IR_ATTR_INTS, "a list of integers");
  if (!a) return -1;
  *out = a->ints;
  return a->n;
}

/* ---- inference ---- */

bool ir_size_fits(const ir_value *v) {
  int64_t bytes = (int64_t)ir_dtype_bytes(v->dtype), d;
  for (int a = 0; a < v->rank; a++)
    if (ix_const_value(v->dims[a], &d) && (d > IR_MAX_BYTES || !ir_mul_size(bytes, d, &bytes) || bytes > IR_MAX_BYTES)) return false;
  return true;
}

static void check_arity(tn_ctx *ctx, const ir_node *n) {
  const ir_op *op = n->op;
  if (n->nin < op->min_in || (op->max_in >= 0 && n->nin > op->max_in))
    ir_fail(ctx, TN_EINPUT, "%s: %s takes %d to %d inputs, has %d", n->where, op->name, op->min_in, op->max_in, n->nin);
  if (n->nout < op->min_out || (op->max_out >= 0 && n->nout > op->max_out))
    ir_fail(ctx, TN_EINPUT, "%s: %s gives %d to %d outputs, has %d", n->where, op->name, op->min_out, op->max_out, n->nout);
  for (int i = 0; i < op->min_in; i++)
    if (!n->in[i]) ir_fail(ctx, TN_EINPUT, "%s: %s: input %d must not be omitted", n->where, op->name, i);
  for (int i = 0; i < op->min_out; i++)
    if (!n->out[i]) ir_fail(ctx, TN_EINPUT, "%s: %s: output %d must not be omitted", n->where, op->name, i);
  for (int i = 0; i < n->nattrs; i++) { /* op->attrs: "axis:i keepdims:i ..." */
    const char *name = n->attrs[i].name, *s = op->attrs ? op->attrs : "";
    size_t len = strlen(name);
    bool known = false;
    while (*s && !known) {
      known = strncmp(s, name, len) == 0 && s[len] == ':';
      s += strcspn(s, " ");
      s += strspn(s, " ");
    }
    if (!known) ir_fail(ctx, TN_EUNSUPPORTED, "%s: %s has no attribute '%s'", n->where, op->name, name);
  }
}

void ir_infer(tn_ctx *ctx, ir_node *n) {
  check_arity(ctx, n);
  for (int i = 0; i < n->nin; i++)
    if (n->in[i] && (n->in[i]->dtype == TN_NONE || n->in[i]->rank < 0))
      ir_fail(ctx, TN_EINPUT, "%s: %s: the type of input '%s' is not known", n->where, n->op->name, n->in[i]->name);
  n->op->infer(ctx, n);
  for (int i = 0; i < n->nout; i++) {
    ir_value *v = n->out[i];
    if (!v) continue;
    if (v->dtype == TN_NONE || v->rank < 0) ir_bug(ctx, "%s: %s set no type for output %d", n->where, n->op->name, i);
    if (v->rank > IR_MAX_RANK - 3)
      ir_fail(ctx, TN_EUNSUPPORTED, "%s: %s: output of rank %d; at most %d is supported", n->where, n->op->name, v->rank, IR_MAX_RANK - 3);
    if (!ir_size_fits(v)) ir_fail(ctx, TN_EINPUT, "%s: %s: the size of output %d overflows", n->where, n->op->name, i);
  }
}

/* ---- editing ---- */

void ir_graph_replace(ir_graph *g, ir_value *old, ir_value *by) {
  for (int i = 0; i < g->nnodes; i++) {
    for (int k = 0; k < g->nodes[i]->nin; k++)
      if (g->nodes[i]->in[k] == old) g->nodes[i]->in[k] = by;
    for (int k = 0; k < g->nodes[i]->nattrs; k++) /* graphs inside may read what is around them */
      if (g->nodes[i]->attrs[k].kind == IR_ATTR_GRAPH) ir_graph_replace(g->nodes[i]->attrs[k].graph, old, by);
  }
  for (int i = 0; i < g->noutputs; i++)
    if (g->outputs[i] == old) g->outputs[i] = by;
}

void ir_graph_sort(ir_graph *g) {
  tn_ctx *ctx = g->ctx;
  uint8_t *state = IR_NEW_ARRAY(ctx, uint8_t, ctx->next_id);
  ir_node **done = IR_NEW_ARRAY(ctx, ir_node *, g->nnodes), **stack = IR_NEW_ARRAY(ctx, ir_node *, g->nnodes + 1);
  int *next = IR_NEW_ARRAY(ctx, int, g->nnodes + 1), ndone = 0;
  for (int r = 0; r < g->nnodes; r++) {
    if (g->nodes[r]->dead || state[g->nodes[r]->id]) continue;
    int depth = 0;
    stack[0] = g->nodes[r];
    next[0] = 0;
    state[stack[0]->id] = 1;
    while (depth >= 0) {
      ir_node *n = stack[depth];
      if (next[depth] == n->nin) {
        state[n->id] = 2;
        done[ndone++] = n;
        depth--;
        continue;
      }
      ir_value *v = n->in[next[depth]++];
      ir_node *d = v ? v->def : NULL;
      if (!d || d->graph != g || state[d->id] == 2) continue;
      if (d->dead) ir_bug(ctx, "%s reads '%s' of a deleted node", n->where, v->name);
      if (state[d->id] == 1) ir_fail(ctx, TN_EINPUT, "%s: the graph has a cycle through '%s'", d->where, v->name);
      state[d->id] = 1;
      stack[++depth] = d;
      next[depth] = 0;
    }
  }
  g->nodes = NULL; /* pushed again: IR_PUSH derives the room from the count */
  g->nnodes = 0;
  for (int i = 0; i < ndone; i++) IR_PUSH(ctx, g->nodes, g->nnodes, done[i]);
}

void ir_graph_analyse(ir_graph *g) {
  for (int i = 0; i < g->nvalues; i++) g->values[i]->nuses = 0, g->values[i]->uses = NULL;
  for (int i = 0; i < g->nnodes; i++) {
    ir_node *n = g->nodes[i];
    if (n->dead) continue;
    for (int k = 0; k < n->nin; k++)
      if (n->in[k]) IR_PUSH(g->ctx, n->in[k]->uses, n->in[k]->nuses, n);
  }
  for (int i = 0; i < g->noutputs; i++) IR_PUSH(g->ctx, g->outputs[i]->uses, g->outputs[i]->nuses, NULL);
}

const char *ir_graph_verify(tn_ctx *ctx, const ir_graph *g) {
  uint8_t *seen = IR_NEW_ARRAY(ctx, uint8_t, ctx->next_id + 1);
  for (int i = 0; i < g->nnodes; i++) {
    const ir_node *n = g->nodes[i];
    if (n->dead) return ir_format(ctx, "node '%s' is dead but listed", n->name);
    if (n->graph != g) return ir_format(ctx, "node '%s' belongs to another graph", n->name);
    for (int k = 0; k < n->nin; k++) {
      const ir_value *v = n->in[k];
      if (v && v->kind == IR_VALUE_NODE && v->def && v->def->graph == g && !seen[v->def->id])
        return ir_format(ctx, "node '%s' reads '%s' before it is computed", n->name, v->name);
    }
    for (int k = 0; k < n->nout; k++)
      if (n->out[k] && (n->out[k]->def != n || n->out[k]->def_index != k))
        return ir_format(ctx, "output %d of node '%s' does not point back", k, n->name);
    seen[n->id] = 1;
  }
  for (int i = 0; i < g->noutputs; i++) {
    const ir_value *v = g->outputs[i];
    if (!v) return "an output is null";
    if (v->kind == IR_VALUE_NODE && v->def && v->def->graph == g && !seen[v->def->id])
      return ir_format(ctx, "output '%s' is not computed", v->name);
  }
  if (g->nupdates > g->noutputs) return "an update stores nothing";
  if (g->nextents > ir_graph_results(g)) return "an extent is of no output";
  for (int i = 0; i < g->nextents; i++) {
    const ir_graph_extent *e = &g->extents[i];
    int results = ir_graph_results(g) - g->nextents;
    const ir_value *v = g->outputs[results + i];
    if (e->output < 0 || e->output >= results || e->axis < 0 || e->axis >= IR_MAX_RANK) return "an extent is of no axis of an output";
    if (g->outputs[e->output]->rank >= 0 && e->axis >= g->outputs[e->output]->rank) return ir_format(ctx, "output '%s' has no axis %d to have an extent", g->outputs[e->output]->name, e->axis);
    if (v->dtype != TN_NONE && (v->dtype != TN_I64 || v->rank != 0)) return ir_format(ctx, "'%s', an extent, is no i64", v->name);
  }
  for (int i = 0; i < g->nupdates; i++) {
    const ir_value *t = g->updates[i], *v = g->outputs[ir_graph_results(g) + i];
    if (!t || (t->kind != IR_VALUE_STATE && t->kind != IR_VALUE_INPUT && t->kind != IR_VALUE_PARAM)) return "an update of what is neither state nor input";
    for (int k = 0; k < i; k++)
      if (g->updates[k] == t) return ir_format(ctx, "'%s' is updated twice", t->name);
    bool same = t->dtype == v->dtype && t->rank == v->rank;
    for (int a = 0; same && a < t->rank; a++) same = t->dims[a] == v->dims[a];
    if (!same && v->dtype != TN_NONE && t->dtype != TN_NONE) return ir_format(ctx, "'%s' is updated by '%s' of another type", t->name, v->name);
  }
  return NULL;
}

/* ---- helpers for rules ---- */

int64_t ir_dim(tn_ctx *ctx, const ir_value *v, int axis) {
  if (axis < 0) axis += v->rank;
  ir_assert(ctx, axis >= 0 && axis < v->rank);
  int64_t d;
  if (!ix_const_value(v->dims[axis], &d))
    ir_fail(ctx, TN_EUSAGE, "dimension %d of '%s' is %s, not a number: give it a size (--dim NAME=N, tn_graph_set_dim)", axis, v->name, ix_print(ctx, v->dims[axis]));
  return d;
}

bool ir_static(const ir_value *v) {
  for (int i = 0; i < v->rank; i++)
    if (v->dims[i]->op != IX_CONST) return false;
  return v->rank >= 0;
}

int64_t ir_value_elements(tn_ctx *ctx, const ir_value *v) {
  int64_t n = 1;
  for (int i = 0; i < v->rank; i++)
    if (!ir_mul_size(n, ir_dim(ctx, v, i), &n)) ir_fail(ctx, TN_EINPUT, "the size of '%s' overflows", v->name);
  return n;
}

int64_t ir_value_bytes(tn_ctx *ctx, const ir_value *v) {
  ix shape[IR_MAX_RANK];
  int rank = ir_layout_shape(ctx, v->layout, v->rank, v->dims, shape);
  int64_t n = (int64_t)ir_dtype_bytes(v->dtype);
  for (int i = 0; i < rank; i++)
    if (!ir_mul_size(n, ix_need_const(ctx, shape[i], "extent"), &n)) ir_fail(ctx, TN_EINPUT, "the size of '%s' overflows", v->name);
  return n;
}

int ir_axis(tn_ctx *ctx, const ir_node *n, int64_t axis, int rank) {
  int64_t a = axis < 0 ? axis + rank : axis;
  if (a < 0 || a >= rank)
    ir_fail(ctx, TN_EINPUT, "%s: %s: axis %lld is outside a tensor of rank %d", n->where, n->op->name, (long long)axis, rank);
  return (int)a;
}

int ir_known_ints(tn_ctx *ctx, const ir_value *v, int64_t *out, int max) {
  int64_t n;
  if (!v->data || v->rank > 1 || !ir_static(v) || (n = ir_value_elements(ctx, v)) > max) return -1;
  for (int64_t i = 0; i < n; i++) {
    if (v->dtype == TN_I64) out[i] = ((const int64_t *)v->data)[i];
    else if (v->dtype == TN_I32) out[i] = ((const int32_t *)v->data)[i];
    else return -1;
  }
  return (int)n;
}

bool ir_known_float(const ir_value *v, double *out) {
  if (!v->data) return false;
  for (int i = 0; i < v->rank; i++)
    if (!ix_is_int(v->dims[i], 1)) return false;
  ir_scalar s = ir_scalar_load(v->dtype, v->data);
  *out = ir_is_float(v->dtype) ? s.f : v->dtype == TN_U64 ? (double)(uint64_t)s.i : (double)s.i;
  return true;
}
