/* onnx_write.c — graphs as ONNX files (onnx/onnx.proto; protobuf's wire format).
 *
 *   ModelProto ── GraphProto ─┬─ nodes, types of inputs and outputs: small, made in memory
 *                             └─ initialisers: their sizes are known, their bytes go straight to the file
 *
 * Beyond 2 GB, which a protobuf message cannot have, the bytes go into a file beside it, PATH.data. */
#include "frontend/api.h"
#include "frontend/file.h"
#include "lower/compose.h"
#include <string.h>

enum { VARINT = 0, BYTES = 2, FIXED32 = 5 };
/* What files are written in: for nodes made by C calls, whose forms have not changed since. */
enum { IR_VERSION = 10, OPSET = 21, NEWEST = 26, OPSET_F4 = 23, IR_VERSION_F4 = 11 }; /* _F4: with 4-bit floats */
static const int64_t LARGEST = (int64_t)2000 << 20;

/* ---- wire format ---- */

static void varint(ir_text *t, uint64_t v) {
  unsigned char b[10];
  size_t n = 0;
  do b[n++] = (unsigned char)(v & 127) | (v > 127 ? 128 : 0);
  while (v >>= 7);
  ir_put_bytes(t, (const char *)b, n);
}

static size_t varint_size(uint64_t v) {
  size_t n = 1;
  while (v >>= 7) n++;
  return n;
}

static void tag(ir_text *t, int field, int wire) { varint(t, (uint64_t)field << 3 | (unsigned)wire); }

static void put_int(ir_text *t, int field, int64_t v) {
  tag(t, field, VARINT);
  varint(t, (uint64_t)v);
}

static void put_float(ir_text *t, int field, double v) {
  float f = (float)v;
  tag(t, field, FIXED32);
  ir_put_bytes(t, (const char *)&f, 4);
}

static void put_data(ir_text *t, int field, const void *p, size_t n) {
  tag(t, field, BYTES);
  varint(t, n);
  if (n) ir_put_bytes(t, p, n);
}

static void put_text(ir_text *t, int field, const char *s) { put_data(t, field, s ? s : "", s ? strlen(s) : 0); }
static void put_message(ir_text *t, int field, const ir_text *m) { put_data(t, field, m->s, m->n); }

/* ---- the parts of a model ---- */

typedef struct writer {
  tn_ctx *ctx;
  int opset; /* of the file */
  bool microsoft;
  int ntensors;
  struct tensor { /* an initialiser */
    const ir_value *v;
    ir_text head; /* its message up to the bytes */
    const void *data;
    int64_t bytes;
  } *tensors;
} writer;

/* The elements as the file has them: 4-bit ones packed, the first in the lower half; null where there are none. */
static const void *data_of(writer *w, const ir_value *v, int64_t *bytes) {
  const uint8_t *all = v->kind == IR_VALUE_STATE ? v->start : ir_value_source(v);
  *bytes = ir_value_bytes(w->ctx, v);
  if (v->dtype != TN_F4E2M1 || !all) return all;
  int64_t n = *bytes;
  uint8_t *packed = ir_alloc(w->ctx, (size_t)(*bytes = (n + 1) / 2) + 1);
  for (int64_t i = 0; i < n; i += 2) packed[i / 2] = (uint8_t)((all[i] & 15) | (i + 1 < n ? all[i + 1] & 15 : 0) << 4);
  return packed;
}

static void tensor_head(writer *w, ir_text *t, const ir_value *v) {
  for (int i = 0; i < v->rank; i++) put_int(t, 1, ir_dim(w->ctx, v, i));
  put_int(t, 2, lw_number_of_type(w->ctx, v->dtype));
  put_text(t, 8, v->name);
}

static void value_info(writer *w, ir_text *out, int field, const ir_value *v) {
  ir_text shape = {.ctx = w->ctx}, tensor = {.ctx = w->ctx}, type = {.ctx = w->ctx}, info = {.ctx = w->ctx};
  for (int i = 0; i < v->rank; i++) {
    ir_text dim = {.ctx = w->ctx};
    int64_t d;
    if (ix_const_value(v->dims[i], &d)) put_int(&dim, 1, d);
    else put_text(&dim, 2, ix_print(w->ctx, v->dims[i]));
    put_message(&shape, 1, &dim);
  }
  put_int(&tensor, 1, lw_number_of_type(w->ctx, v->dtype));
  if (v->rank >= 0) put_message(&tensor, 2, &shape);
  put_message(&type, 1, &tensor);
  put_text(&info, 1, v->name);
  if (v->dtype != TN_NONE) put_message(&info, 2, &type);
  put_message(out, field, &info);
}

static void graph_body(writer *w, ir_text *t, const ir_graph *g, int nin, ir_value *const *in, int nout, ir_value *const *out, const bool *needed);

static void attribute(writer *w, ir_text *out, const ir_attr *a) {
  enum { FLOAT = 1, INT, STRING, TENSOR, GRAPH, FLOATS, INTS, STRINGS };
  ir_text t = {.ctx = w->ctx}, inner = {.ctx = w->ctx};
  int type = 0;
  put_text(&t, 1, a->name);
  switch (a->kind) {
  case IR_ATTR_INT: type = INT, put_int(&t, 3, a->i); break;
  case IR_ATTR_FLOAT: type = FLOAT, put_float(&t, 2, a->f); break;
  case IR_ATTR_STRING: type = STRING, put_text(&t, 4, a->s); break;
  case IR_ATTR_INTS:
    type = INTS;
    for (int i = 0; i < a->n; i++) put_int(&t, 8, a->ints[i]);
    break;
  case IR_ATTR_FLOATS:
    type = FLOATS;
    for (int i = 0; i < a->n; i++) put_float(&t, 7, a->floats[i]);
    break;
  case IR_ATTR_STRINGS:
    type = STRINGS;
    for (int i = 0; i < a->n; i++) put_text(&t, 9, a->strings[i]);
    break;
  case IR_ATTR_TENSOR: {
    type = TENSOR;
    tensor_head(w, &inner, a->tensor);
    int64_t bytes;
    const void *data = data_of(w, a->tensor, &bytes);
    put_data(&inner, 9, data, (size_t)bytes);
    put_message(&t, 5, &inner);
    break;
  }
  case IR_ATTR_GRAPH:
    type = GRAPH;
    graph_body(w, &inner, a->graph, a->graph->ninputs, a->graph->inputs, a->graph->noutputs, a->graph->outputs, NULL);
    put_message(&t, 6, &inner);
    break;
  }
  put_int(&t, 20, type);
  put_message(out, 5, &t);
}

/* Whether n means the same in a file of that opset. C calls make ops in their newest form: of those that
 * are made, only reductions took their axes otherwise before 18. */
static bool fits(const ir_node *n, int opset) {
  if (n->opset < NEWEST) return n->opset == opset;
  bool axes = strncmp(n->op->name, "Reduce", 6) == 0 && strcmp(n->op->name, "ReduceSum") != 0 && n->nin > 1;
  return n->op->since <= opset && opset >= (axes ? 18 : 13);
}

static void node(writer *w, ir_text *out, const ir_node *n) {
  const char *op = n->op->name, *domain = n->op->domain ? n->op->domain : "";
  if (strcmp(domain, "tenon") == 0) {
    if (strcmp(op, "StopGradient") == 0) op = "Identity";
    else if (strcmp(op, "BatchNormalizationTraining") == 0) op = "BatchNormalization";
    else ir_fail(w->ctx, TN_EUNSUPPORTED, "%s: %s is an op of Tenon alone, which ONNX does not have", n->where, op);
    domain = "";
  }
  w->microsoft |= strcmp(domain, "com.microsoft") == 0;
  if (!*domain && !fits(n, w->opset)) ir_fail(w->ctx, TN_EUNSUPPORTED, "%s: %s in this form is not of opset %d, which the file has", n->where, op, w->opset);
  ir_text t = {.ctx = w->ctx};
  for (int i = 0; i < n->nin; i++) put_text(&t, 1, n->in[i] ? n->in[i]->name : "");
  for (int i = 0; i < n->nout; i++) put_text(&t, 2, n->out[i] ? n->out[i]->name : "");
  put_text(&t, 3, n->name);
  put_text(&t, 4, op);
  if (*domain) put_text(&t, 7, domain);
  for (int i = 0; i < n->nattrs; i++) attribute(w, &t, &n->attrs[i]);
  put_message(out, 1, &t);
}

/* All of a GraphProto but initialisers of the outermost graph, which are noted. `needed`: by node id; null: all. */
static void graph_body(writer *w, ir_text *t, const ir_graph *g, int nin, ir_value *const *in, int nout, ir_value *const *out, const bool *needed) {
  put_text(t, 2, g->name);
  for (int i = 0; i < g->nnodes; i++)
    if (!g->nodes[i]->dead && (!needed || needed[g->nodes[i]->id])) node(w, t, g->nodes[i]);
  for (int i = 0; i < nin; i++) value_info(w, t, 11, in[i]);
  for (int i = 0; i < nout; i++) value_info(w, t, 12, out[i]);
  for (int i = 0; i < g->nparams; i++) {
    const ir_value *v = g->params[i];
    if (!v->nuses) continue;
    struct tensor x = {.v = v, .head = {.ctx = w->ctx}};
    x.data = data_of(w, v, &x.bytes);
    if (x.bytes && !x.data) ir_fail(w->ctx, TN_EUSAGE, "'%s' has no data", v->name);
    tensor_head(w, &x.head, v);
    if (!needed) { /* within an attribute */
      put_data(&x.head, 9, x.data, (size_t)x.bytes);
      put_message(t, 5, &x.head);
    } else IR_PUSH(w->ctx, w->tensors, w->ntensors, x);
  }
}

/* Which nodes the first n outputs need; counts uses in nuses of values. */
static bool *mark(tn_ctx *ctx, ir_graph *g, int n) {
  bool *needed = IR_NEW_ARRAY(ctx, bool, ir_next_id(g->ctx) + 1);
  ir_graph_sort(g);
  for (int i = 0; i < g->nvalues; i++) g->values[i]->nuses = 0;
  for (int i = 0; i < n; i++) {
    g->outputs[i]->nuses++;
    if (g->outputs[i]->def) needed[g->outputs[i]->def->id] = true;
  }
  for (int i = g->nnodes; i-- > 0;) {
    const ir_node *m = g->nodes[i];
    for (int k = 0; k < m->nin && needed[m->id]; k++) {
      if (!m->in[k]) continue;
      m->in[k]->nuses++;
      if (m->in[k]->def) needed[m->in[k]->def->id] = true;
    }
    for (int k = 0; k < m->nattrs; k++) /* graphs inside may read anything around them */
      if (m->attrs[k].kind == IR_ATTR_GRAPH)
        for (int v = 0; v < g->nvalues; v++) g->values[v]->nuses++;
  }
  return needed;
}

static void external(writer *w, ir_text *t, const char *file, int64_t offset, int64_t bytes) {
  const char *pairs[3][2] = {{"location", file}, {"offset", ir_format(w->ctx, "%lld", (long long)offset)}, {"length", ir_format(w->ctx, "%lld", (long long)bytes)}};
  for (int i = 0; i < 3; i++) {
    ir_text pair = {.ctx = w->ctx};
    put_text(&pair, 1, pairs[i][0]);
    put_text(&pair, 2, pairs[i][1]);
    put_message(t, 13, &pair);
  }
  put_int(t, 14, 1);
}

void fe_onnx_write(tn_ctx *ctx, ir_graph *g, const char *path, int64_t largest) {
  writer room = {.ctx = ctx}, *w = &room;
  int nout = ir_graph_results(g), nin = 0;
  const bool *needed = mark(ctx, g, nout);
  ir_value **in = IR_NEW_ARRAY(ctx, ir_value *, g->ninputs + 1);
  for (int i = 0; i < g->ninputs; i++)
    if (g->inputs[i]->nuses) in[nin++] = g->inputs[i];
  ir_text body = {.ctx = ctx}, model = {.ctx = ctx};
  w->opset = OPSET;
  for (int i = 0; i < g->nvalues; i++)
    if (g->values[i]->dtype == TN_F4E2M1) w->opset = OPSET_F4;
  for (int i = 0; i < g->nnodes; i++) /* of the file that the graph came from, if from one */
    if (needed[g->nodes[i]->id] && g->nodes[i]->opset < NEWEST && !(g->nodes[i]->op->domain && *g->nodes[i]->op->domain)) w->opset = g->nodes[i]->opset;
  graph_body(w, &body, g, nin, in, nout, g->outputs, needed);
  int64_t total = (int64_t)body.n, offset = 0;
  for (int i = 0; i < w->ntensors; i++) total += w->tensors[i].bytes + (int64_t)w->tensors[i].head.n + 32;
  bool beside = total > (largest > 0 ? largest : LARGEST);
  const char *slash = strrchr(path, '/'), *file = ir_format(ctx, "%s.data", slash ? slash + 1 : path);
  size_t size = body.n;
  for (int i = 0; i < w->ntensors; i++) {
    struct tensor *x = &w->tensors[i];
    size_t inner = x->head.n;
    if (beside) {
      external(w, &x->head, file, offset, x->bytes);
      offset += (x->bytes + 63) & ~(int64_t)63;
      inner = x->head.n;
    } else {
      tag(&x->head, 9, BYTES);
      varint(&x->head, (uint64_t)x->bytes);
      inner = x->head.n + (size_t)x->bytes;
    }
    size += 1 + varint_size(inner) + inner;
  }
  put_int(&model, 1, w->opset >= OPSET_F4 ? IR_VERSION_F4 : IR_VERSION);
  put_text(&model, 2, "tenon");
  for (int i = 0; i < 1 + w->microsoft; i++) {
    ir_text set = {.ctx = ctx};
    if (i) put_text(&set, 1, "com.microsoft");
    put_int(&set, 2, i ? 1 : w->opset);
    put_message(&model, 8, &set);
  }
  tag(&model, 7, BYTES);
  varint(&model, size);
  ir_put_bytes(&model, body.s, body.n);
  fe_writer *out = fe_write_begin(ctx, path), *data = beside ? fe_write_begin(ctx, ir_format(ctx, "%s.data", path)) : NULL;
  fe_write(out, model.s, model.n);
  for (int i = 0; i < w->ntensors; i++) {
    struct tensor *x = &w->tensors[i];
    ir_text head = {.ctx = ctx};
    tag(&head, 5, BYTES);
    varint(&head, x->head.n + (beside ? 0 : (size_t)x->bytes));
    fe_write(out, head.s, head.n);
    fe_write(out, x->head.s, x->head.n);
    if (x->bytes) fe_write(beside ? data : out, x->data, (size_t)x->bytes);
    static const char zeros[64];
    if (beside && x->bytes % 64) fe_write(data, zeros, 64 - (size_t)(x->bytes % 64));
  }
  fe_write_settle(out);
  if (data) fe_write_settle(data);
  if (data) fe_write_end(data);
  fe_write_end(out);
}

typedef struct save_args {
  tn_graph *g;
  const char *path;
} save_args;

static void save(tn_ctx *ctx, void *arg) {
  save_args *a = arg;
  fe_fill(ctx, a->g);
  fe_onnx_write(ctx, a->g->g, a->path, 0);
}

tn_status tn_save_onnx(tn_graph *g, const char *path) {
  if (!fe_alive(g)) return TN_EUSAGE;
  fe_mark m = fe_enter(g, "tn_save_onnx");
  save_args a = {g, path};
  tn_status status;
  if (!path) status = fe_error(g, TN_EUSAGE, "the path is null");
  else if (g->eager || !g->noutputs) status = fe_error(g, TN_EUSAGE, g->eager ? "an eager graph has no outputs: call the same functions on a graph of tn_graph_new" : "the graph has no output: mark one with tn_output");
  else status = fe_protect(g, save, &a);
  if (m.outermost) g->call = NULL;
  return status;
}
