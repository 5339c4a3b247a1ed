/* text_graph_print.c — graphs as text; the grammar stands in text_graph.c. */
#include "ir/text.h"
#include "ir/interp.h"
#include <math.h>
#include <string.h>

enum { INLINE_ELEMENTS = 64 }; /* of constants whose values are printed */

/* Words that begin an item or follow a node, and the sign of what is omitted: quoted as names of values. */
static const char *const quoted[] = {"_", "as", "where", "opset", "group", "file", "dim", "input", "const", "param", "state", "output", "update"};

/* Four lanes of 8 bytes: a large model is hashed at memory speed. */
uint64_t ir_data_hash(const void *data, int64_t bytes) {
  const char *p = data;
  const uint64_t k = 0x9e3779b97f4a7c15u;
  uint64_t lane[4] = {k, k * 3, k * 5, k * 7}, w;
  int64_t i = 0;
  for (; i + 32 <= bytes; i += 32)
    for (int j = 0; j < 4; j++) {
      memcpy(&w, p + i + 8 * j, 8);
      lane[j] = (lane[j] ^ w) * 0xff51afd7ed558ccdu;
      lane[j] ^= lane[j] >> 31;
    }
  for (int j = 0; i < bytes; i += 8, j++) {
    w = 0;
    memcpy(&w, p + i, bytes - i < 8 ? (size_t)(bytes - i) : 8);
    lane[j & 3] = (lane[j & 3] ^ w) * 0xc4ceb9fe1a85ec53u;
  }
  uint64_t h = (uint64_t)bytes;
  for (int j = 0; j < 4; j++) {
    h = (h ^ lane[j]) * 0xff51afd7ed558ccdu;
    h ^= h >> 29;
  }
  return h;
}

typedef struct names { /* taken in a graph; those of outer graphs count as well */
  struct names *outer;
  ir_map taken;
} names;

typedef struct writer {
  ir_text *t;
  tn_ctx *ctx;
  ir_map names;    /* ir_value* and ir_var* to printed names */
  ir_map dims;     /* names of dimensions taken */
  ir_map attached; /* constants that a printed list of constants has */
} writer;

static const char *name_value(writer *w, names *in, ir_value *v) {
  const char *name = ir_map_get(&w->names, v);
  if (name) return name;
  const char *own = v->name && *v->name ? v->name : ir_format(w->ctx, "v%u", v->id);
  name = ir_intern(w->ctx, own);
  for (int i = 1;; i++) {
    const names *n = in;
    while (n && !ir_map_get(&n->taken, name)) n = n->outer;
    if (!n) break;
    name = ir_intern(w->ctx, ir_format(w->ctx, "%s.%d", own, i));
  }
  if (in) ir_map_set(&in->taken, name, (void *)(uintptr_t)1);
  ir_map_set(&w->names, v, (void *)(uintptr_t)name);
  return name;
}

static void put_value(writer *w, ir_value *v) {
  if (!v) {
    ir_put(w->t, "_");
    return;
  }
  const char *name = name_value(w, NULL, v); /* named before, unless the graph is broken */
  for (int i = 0; i < IR_COUNT(quoted); i++)
    if (strcmp(quoted[i], name) == 0) {
      ir_put_string(w->t, name);
      return;
    }
  ir_put_name(w->t, name);
}

static void put_vtype(writer *w, const ir_value *v) {
  if (v->dtype == TN_NONE) return;
  ir_put(w->t, ": ");
  if (v->rank < 0) {
    ir_put(w->t, "%s", ir_dtype_name(v->dtype));
    return;
  }
  ir_type t = {.dtype = v->dtype, .rank = v->rank, .layout = v->layout};
  memcpy(t.shape, v->dims, sizeof t.shape);
  ir_put_type(w->t, &t, &w->names);
}

static const void *bytes_of(const ir_value *v) { return v->kind == IR_VALUE_STATE ? v->start : ir_value_source(v); }

/* Elements of a value whose bytes are all there; -1 when they are not. */
static int64_t elements(const ir_value *v) {
  int64_t n = 1, d, bytes;
  if (!bytes_of(v) || v->dtype == TN_NONE || v->rank < 0) return -1;
  for (int i = 0; i < v->rank; i++)
    if (!ix_const_value(v->dims[i], &d) || !ir_mul_size(n, d, &n)) return -1;
  return ir_mul_size(n, (int64_t)ir_dtype_bytes(v->dtype), &bytes) && bytes <= v->data_bytes ? n : -1;
}

static void put_values(writer *w, const ir_value *v, int64_t n) {
  ir_text *t = w->t;
  size_t size = ir_dtype_bytes(v->dtype);
  const char *p = bytes_of(v);
  bool bits = false;
  for (int64_t i = 0; i < n && !bits; i++) { /* what decimals cannot say: NaN payloads, bools that are not 0 or 1 */
    ir_scalar s = ir_scalar_load(v->dtype, p + (size_t)i * size);
    if (ir_is_float(v->dtype) && isnan(s.f)) s.f = (double)NAN;
    char back[8];
    ir_scalar_store(v->dtype, back, s);
    bits = memcmp(back, p + (size_t)i * size, size) != 0;
  }
  if (bits) ir_put(t, "bits ");
  if (bits || v->rank > 0) ir_put(t, "[");
  for (int64_t i = 0; i < n; i++) {
    if (i) ir_put(t, ", ");
    uint64_t raw = 0;
    memcpy(&raw, p + (size_t)i * size, size);
    if (bits) ir_put(t, "0x%llx", (unsigned long long)raw);
    else ir_put_scalar(t, v->dtype, ir_scalar_load(v->dtype, p + (size_t)i * size));
  }
  if (bits || v->rank > 0) ir_put(t, "]");
}

static void put_data(writer *w, const ir_value *v) {
  int64_t n = elements(v);
  if (n < 0) return;
  if (v->raw) ir_put(w->t, " raw");
  if (n <= INLINE_ELEMENTS) {
    ir_put(w->t, " = ");
    put_values(w, v, n);
  } else {
    ir_put(w->t, " data %lld hash 0x%016llx", (long long)v->data_bytes, (unsigned long long)ir_data_hash(bytes_of(v), v->data_bytes));
  }
}

static void put_real(ir_text *t, double v) {
  bool f32 = (double)(float)v == v;
  ir_put_float(t, f32 ? TN_F32 : TN_F64, v);
  if (!f32 || isinf(v) || isnan(v)) return;
  /* 0.5 is itself in either width; 0.1 rounded to f32 is not 0.1 */
  ir_text wide = {.ctx = t->ctx}, narrow = {.ctx = t->ctx};
  ir_put_float(&wide, TN_F64, v);
  ir_put_float(&narrow, TN_F32, v);
  if (strcmp(wide.s, narrow.s) != 0) ir_put(t, "f32");
}

static void put_graph(writer *w, const ir_graph *g, names *outer, int depth);

static void put_attr(writer *w, const ir_attr *a, names *in, int depth) {
  ir_text *t = w->t;
  ir_put_name(t, a->name);
  ir_put(t, " = ");
  switch (a->kind) {
  case IR_ATTR_INT: ir_put(t, "%lld", (long long)a->i); break;
  case IR_ATTR_FLOAT: put_real(t, a->f); break;
  case IR_ATTR_STRING: ir_put_string(t, a->s); break;
  case IR_ATTR_INTS:
  case IR_ATTR_FLOATS:
  case IR_ATTR_STRINGS:
    if (a->n == 0) ir_put(t, "%s ", a->kind == IR_ATTR_INTS ? "ints" : a->kind == IR_ATTR_FLOATS ? "floats" : "strings");
    ir_put(t, "[");
    for (int i = 0; i < a->n; i++) {
      if (i) ir_put(t, ", ");
      if (a->kind == IR_ATTR_INTS) ir_put(t, "%lld", (long long)a->ints[i]);
      else if (a->kind == IR_ATTR_FLOATS) put_real(t, a->floats[i]);
      else ir_put_string(t, a->strings[i]);
    }
    ir_put(t, "]");
    break;
  case IR_ATTR_TENSOR:
    ir_put(t, "tensor ");
    put_value(w, a->tensor);
    if (ir_map_get(&w->attached, a->tensor)) break;
    put_vtype(w, a->tensor);
    put_data(w, a->tensor);
    break;
  case IR_ATTR_GRAPH: put_graph(w, a->graph, in, depth + 1); break;
  }
}

static void put_node(writer *w, const ir_node *n, names *in, int opset, int depth) {
  ir_text *t = w->t;
  ir_put_indent(t, depth);
  for (int i = 0; i < n->nout; i++) {
    if (i) ir_put(t, ", ");
    put_value(w, n->out[i]);
    if (!n->out[i]) continue;
    if (n->out[i]->packed) ir_put(t, " packed");
    put_vtype(w, n->out[i]);
    int64_t count = n->out[i]->data ? elements(n->out[i]) : -1;
    if (count < 0 || count > INLINE_ELEMENTS) continue;
    ir_put(t, " known ");
    put_values(w, n->out[i], count);
  }
  ir_put(t, " = ");
  if (n->op->domain && *n->op->domain) {
    ir_put_name(t, n->op->domain);
    ir_put(t, ":");
  }
  ir_put_name(t, n->op->name);
  ir_put(t, "(");
  for (int i = 0; i < n->nin; i++) {
    if (i) ir_put(t, ", ");
    put_value(w, n->in[i]);
  }
  ir_put(t, ")");
  for (int i = 0; i < n->nattrs; i++) {
    ir_put(t, i ? ", " : " {");
    put_attr(w, &n->attrs[i], in, depth);
  }
  if (n->nattrs) ir_put(t, "}");
  const char *name = n->name ? n->name : "", *own = n->nout && n->out[0] ? name_value(w, NULL, n->out[0]) : NULL;
  if (!own || strcmp(own, name) != 0) {
    ir_put(t, " as ");
    ir_put_name(t, name);
  }
  if (n->opset != opset) ir_put(t, " opset %d", n->opset);
  if (n->group != -1) ir_put(t, " group %d", n->group);
  if (n->where && strcmp(n->where, name) != 0) {
    ir_put(t, " where ");
    ir_put_string(t, n->where);
  }
  ir_put(t, "\n");
}

static void collect_dim(void *user, ix e) {
  writer *w = user;
  if (e->op != IX_VAR || ir_map_get(&w->names, e->u.var)) return;
  const ir_var *v = e->u.var;
  const char *name = ir_intern(w->ctx, v->name);
  for (int i = 1; ir_map_get(&w->dims, name); i++) name = ir_intern(w->ctx, ir_format(w->ctx, "%s.%d", v->name, i));
  ir_map_set(&w->dims, name, (void *)(uintptr_t)1);
  ir_map_set(&w->names, v, (void *)(uintptr_t)name);
  ir_put(w->t, "  dim ");
  ir_put_name(w->t, name);
  if (v->lo != 0 || v->hi != INT64_MAX) ir_put(w->t, " [%lld, %lld]", (long long)v->lo, (long long)v->hi);
  ir_put(w->t, "\n");
}

/* Declares the variables of all extents, also of graphs inside, in the outermost. */
static void put_dims(writer *w, const ir_graph *g) {
  for (int i = 0; i < g->nvalues; i++)
    for (int a = 0; a < g->values[i]->rank; a++) ix_walk(w->ctx, g->values[i]->dims[a], collect_dim, w);
  for (int i = 0; i < g->nnodes; i++)
    for (int k = 0; k < g->nodes[i]->nattrs; k++)
      if (g->nodes[i]->attrs[k].kind == IR_ATTR_GRAPH) put_dims(w, g->nodes[i]->attrs[k].graph);
}

static void put_graph(writer *w, const ir_graph *g, names *outer, int depth) {
  ir_text *t = w->t;
  names *in = IR_NEW(w->ctx, names);
  in->outer = outer;
  in->taken.ctx = w->ctx;
  for (int i = 0; i < g->ninputs; i++) name_value(w, in, g->inputs[i]);
  for (int i = 0; i < g->nparams; i++) {
    name_value(w, in, g->params[i]);
    ir_map_set(&w->attached, g->params[i], (void *)(uintptr_t)1);
  }
  int opset = -1;
  for (int i = 0; i < g->nnodes; i++) {
    const ir_node *n = g->nodes[i];
    if (n->dead) continue;
    if (opset < 0) opset = n->opset;
    for (int k = 0; k < n->nout; k++)
      if (n->out[k]) name_value(w, in, n->out[k]);
  }
  ir_put(t, "graph ");
  ir_put_name(t, g->name ? g->name : "graph");
  ir_put(t, " {\n");
  if (g->file && (!g->outer || g->outer->file != g->file)) {
    ir_put_indent(t, depth + 1);
    ir_put(t, "file ");
    ir_put_string(t, g->file);
    ir_put(t, "\n");
  }
  if (opset >= 0) {
    ir_put_indent(t, depth + 1);
    ir_put(t, "opset %d\n", opset);
  }
  if (!outer) put_dims(w, g);
  for (int i = 0; i < g->ninputs; i++) {
    ir_put_indent(t, depth + 1);
    ir_put(t, "input ");
    put_value(w, g->inputs[i]);
    put_vtype(w, g->inputs[i]);
    ir_put(t, "\n");
  }
  for (int i = 0; i < g->nparams; i++) {
    ir_value *v = g->params[i];
    ir_put_indent(t, depth + 1);
    ir_put(t, "%s ", v->kind == IR_VALUE_PARAM ? "param" : v->kind == IR_VALUE_STATE ? "state" : "const");
    put_value(w, v);
    if (v->packed) ir_put(t, " packed");
    put_vtype(w, v);
    put_data(w, v);
    ir_put(t, "\n");
  }
  for (int i = 0; i < g->nnodes; i++)
    if (!g->nodes[i]->dead) put_node(w, g->nodes[i], in, opset, depth + 1);
  int results = ir_graph_results(g) - g->nextents;
  for (int i = 0; i < results; i++) {
    if (i) ir_put(t, ", ");
    else {
      ir_put_indent(t, depth + 1);
      ir_put(t, "output ");
    }
    put_value(w, g->outputs[i]);
  }
  if (results) ir_put(t, "\n");
  for (int i = 0; i < g->nextents; i++) {
    ir_put_indent(t, depth + 1);
    ir_put(t, "extent %d %d = ", g->extents[i].output, g->extents[i].axis);
    put_value(w, g->outputs[results + i]);
    ir_put(t, "\n");
  }
  for (int i = 0; i < g->nupdates; i++) {
    ir_put_indent(t, depth + 1);
    ir_put(t, "update ");
    put_value(w, g->updates[i]);
    ir_put(t, " = ");
    put_value(w, g->outputs[results + g->nextents + i]);
    ir_put(t, "\n");
  }
  ir_put_indent(t, depth);
  ir_put(t, "}");
}

const char *ir_graph_print(tn_ctx *ctx, const ir_graph *g) {
  ir_text t = {.ctx = ctx};
  writer w = {.t = &t, .ctx = ctx, .names = {.ctx = ctx}, .dims = {.ctx = ctx}, .attached = {.ctx = ctx}};
  put_graph(&w, g, NULL, 0);
  ir_put(&t, "\n");
  return ir_text_str(&t);
}
