/* import.c — see import.h. Model-local functions are inlined at their calls. */
#include "frontend/import.h"
#include <string.h>

typedef struct names { /* name -> value of one scope; names are interned, so pointers are compared */
  const char **key;
  ir_value **value;
  size_t n, cap;
  struct names *outer; /* an enclosing graph, whose values a subgraph may read */
} names;

typedef struct importer {
  tn_ctx *ctx;
  const fe_onnx *m;
  fe_problems *problems;
  names dims; /* symbolic dimensions by name; value is an ir_var in disguise */
  int depth;
} importer;

enum { MAX_DEPTH = 32, COPY_BELOW = 4096, MAX_OPSET = 1000, MAX_ATTRS = 64 };

/* What a call of a function binds. */
typedef struct frame {
  const fe_onnx_node *call;
  const fe_onnx_function *function;
  const struct frame *outer;
  const char *prefix; /* of node names */
} frame;

static void names_put(tn_ctx *ctx, names *t, const char *key, void *value) {
  if (t->n * 2 >= t->cap) {
    size_t cap = t->cap ? t->cap * 2 : 64;
    const char **keys = IR_NEW_ARRAY(ctx, const char *, cap);
    ir_value **values = IR_NEW_ARRAY(ctx, ir_value *, cap);
    for (size_t i = 0; i < t->cap; i++) {
      if (!t->key[i]) continue;
      size_t j = ((uintptr_t)t->key[i] >> 4) & (cap - 1);
      while (keys[j]) j = (j + 1) & (cap - 1);
      keys[j] = t->key[i], values[j] = t->value[i];
    }
    t->key = keys, t->value = values, t->cap = cap;
  }
  size_t i = ((uintptr_t)key >> 4) & (t->cap - 1);
  while (t->key[i] && t->key[i] != key) i = (i + 1) & (t->cap - 1);
  if (!t->key[i]) t->n++;
  t->key[i] = key;
  t->value[i] = value;
}

static void *names_get_here(const names *t, const char *key) {
  if (!t->cap) return NULL;
  for (size_t i = ((uintptr_t)key >> 4) & (t->cap - 1); t->key[i]; i = (i + 1) & (t->cap - 1))
    if (t->key[i] == key) return t->value[i];
  return NULL;
}
static void *names_get(const names *t, const char *key) {
  for (; t; t = t->outer) {
    void *v = names_get_here(t, key);
    if (v) return v;
  }
  return NULL;
}

static const char *tensor_where(importer *im, const fe_onnx_tensor *t) {
  return ir_format(im->ctx, "%s: tensor '%s'", im->m->file, t->name);
}

static ir_value *constant(importer *im, ir_graph *g, const fe_onnx_tensor *t, const char *name) {
  if (t->dtype == TN_NONE)
    ir_fail(im->ctx, TN_EUNSUPPORTED, "%s: element type %s is not supported", tensor_where(im, t), fe_onnx_elem_name(t->elem));
  if (t->rank > IR_MAX_RANK - 3)
    ir_fail(im->ctx, TN_EUNSUPPORTED, "%s: rank %d; at most %d is supported", tensor_where(im, t), t->rank, IR_MAX_RANK - 3);
  /* Small tensors are copied: they are read while compiling, as numbers. Large ones stay in the map, at any
   * alignment: the interpreter and the code that packs weights do not mind. */
  ir_value *v = ir_graph_const(g, name, t->dtype, t->rank, t->dims, t->data, t->bytes <= COPY_BELOW);
  if (!v->data) v->data = ir_alloc(im->ctx, 1);
  if (t->dtype == TN_BOOL && v->data != t->data)
    for (size_t i = 0; i < t->bytes; i++) ((uint8_t *)(uintptr_t)v->data)[i] = ((const uint8_t *)v->data)[i] != 0;
  return v;
}

/* " (read by Op, opset N)": who is the first to read a value. */
static const char *reader_of(importer *im, const fe_onnx_graph *src, const char *name) {
  for (int i = 0; i < src->n_node; i++)
    for (int k = 0; k < src->node[i].n_in; k++)
      if (src->node[i].in[k] == name)
        return ir_format(im->ctx, " (read by %s, opset %lld)", src->node[i].op,
                         (long long)fe_onnx_opset_version(im->m->opset, im->m->n_opset, src->node[i].domain));
  return ir_format(im->ctx, " (read by no node, opset %lld)", (long long)fe_onnx_opset_version(im->m->opset, im->m->n_opset, ""));
}

static void import_type(importer *im, ir_graph *g, const fe_onnx_graph *src, const fe_onnx_value *in, names *scope) {
  tn_ctx *ctx = im->ctx;
  const fe_onnx_type *t = &in->type;
  if (g->outer && (t->kind != FE_ONNX_TENSOR || t->dtype == TN_NONE || !t->has_shape)) { /* what is passed has a type */
    names_put(ctx, scope, in->name, ir_graph_input(g, in->name, TN_NONE, -1, NULL));
    return;
  }
  const char *where = ir_format(ctx, "%s: input '%s'%s", im->m->file, in->name,
                                t->kind != FE_ONNX_TENSOR || t->dtype == TN_NONE || !t->has_shape ? reader_of(im, src, in->name) : "");
  if (t->kind != FE_ONNX_TENSOR)
    ir_fail(ctx, t->kind == FE_ONNX_NOTHING ? TN_EINPUT : TN_EUNSUPPORTED, "%s: %s", where,
            t->kind == FE_ONNX_NOTHING ? "has no type" : "only tensors are supported, not sequences, optionals, maps or sparse tensors");
  if (t->dtype == TN_NONE) ir_fail(ctx, TN_EUNSUPPORTED, "%s: element type %s is not supported", where, fe_onnx_elem_name(t->elem));
  if (!t->has_shape) ir_fail(ctx, TN_EUNSUPPORTED, "%s: its rank is not known", where);
  if (t->rank > IR_MAX_RANK - 3) ir_fail(ctx, TN_EUNSUPPORTED, "%s: rank %d; at most %d is supported", where, t->rank, IR_MAX_RANK - 3);
  ix dims[IR_MAX_RANK];
  for (int i = 0; i < t->rank; i++) {
    if (t->dims[i].value >= 0) {
      dims[i] = ix_index(ctx, t->dims[i].value);
      continue;
    }
    const char *name = ir_intern(ctx, *t->dims[i].param ? t->dims[i].param : ir_format(ctx, "%s_%d", in->name, i));
    ir_var *v = names_get(&im->dims, name);
    if (!v) names_put(ctx, &im->dims, name, v = ir_var_new(ctx, name, TN_INDEX, 0, INT64_MAX));
    dims[i] = v->expr;
  }
  ir_value *v = ir_graph_input(g, in->name, t->dtype, t->rank, dims);
  if (!ir_size_fits(v)) ir_fail(ctx, TN_EINPUT, "%s: its size overflows", where);
  names_put(ctx, scope, in->name, v);
}

static void import_graph(importer *im, ir_graph *g, const fe_onnx_graph *src, names *scope);

static void import_attr(importer *im, ir_node *n, const fe_onnx_attr *a, names *scope) {
  tn_ctx *ctx = im->ctx;
  switch (a->kind) {
  case FE_ATTR_FLOAT: ir_attr_float(n, a->name, a->f); break;
  case FE_ATTR_INT: ir_attr_int(n, a->name, a->i); break;
  case FE_ATTR_STRING: ir_attr_string(n, a->name, a->s.s); break;
  case FE_ATTR_INTS: ir_attr_ints(n, a->name, a->n, a->ints); break;
  case FE_ATTR_FLOATS: {
    double *d = IR_NEW_ARRAY(ctx, double, a->n);
    for (int i = 0; i < a->n; i++) d[i] = a->floats[i];
    ir_attr_floats(n, a->name, a->n, d);
    break;
  }
  case FE_ATTR_STRINGS: {
    const char **s = IR_NEW_ARRAY(ctx, const char *, a->n);
    for (int i = 0; i < a->n; i++) s[i] = a->strings[i].s;
    ir_attr at = {.name = a->name, .kind = IR_ATTR_STRINGS, .n = a->n, .strings = s};
    IR_PUSH(ctx, n->attrs, n->nattrs, at);
    break;
  }
  case FE_ATTR_TENSOR: {
    ir_attr at = {.name = a->name, .kind = IR_ATTR_TENSOR};
    at.tensor = constant(im, n->graph, a->t, ir_format(ctx, "%s.%s", n->name, a->name));
    IR_PUSH(ctx, n->attrs, n->nattrs, at);
    break;
  }
  case FE_ATTR_GRAPH: {
    ir_attr at = {.name = a->name, .kind = IR_ATTR_GRAPH, .graph = ir_graph_new(ctx, a->g->name)};
    at.graph->outer = n->graph;
    at.graph->file = n->graph->file;
    names *inner = IR_NEW(ctx, names);
    inner->outer = scope;
    import_graph(im, at.graph, a->g, inner);
    IR_PUSH(ctx, n->attrs, n->nattrs, at);
    break;
  }
  default: ir_fail(ctx, TN_EUNSUPPORTED, "attribute '%s' has a kind that is not supported", a->name);
  }
}

static const fe_onnx_function *find_function(const fe_onnx *m, const fe_onnx_node *n) {
  for (int i = 0; i < m->n_function; i++) {
    const fe_onnx_function *f = &m->function[i];
    if (strcmp(f->name, n->op) == 0 && strcmp(f->domain, n->domain) == 0 && strcmp(f->overload, n->overload) == 0) return f;
  }
  return NULL;
}

/* The attribute that a ref means in this call; null when the call leaves it out. */
static const fe_onnx_attr *resolve(const frame *f, const fe_onnx_attr *a) {
  while (a && *a->ref) {
    if (!f) return NULL;
    const fe_onnx_attr *given = fe_onnx_find(f->call, a->ref);
    for (int i = 0; !given && i < f->function->n_default; i++)
      if (strcmp(f->function->defaults[i].name, a->ref) == 0) return &f->function->defaults[i];
    a = given;
    f = f->outer;
  }
  return a;
}

static void import_node(importer *im, ir_graph *g, const fe_onnx_node *src, names *scope, const fe_onnx_opset *opsets,
                        int nopsets, const frame *f);

static void inline_function(importer *im, ir_graph *g, const fe_onnx_node *call, const fe_onnx_function *fn, names *scope, const frame *outer) {
  tn_ctx *ctx = im->ctx;
  if (++im->depth > MAX_DEPTH) ir_fail(ctx, TN_EINPUT, "function '%s' calls itself", fn->name);
  names inner = {0};
  if (call->n_in > fn->n_in || call->n_out > fn->n_out) ir_fail(ctx, TN_EINPUT, "function '%s' takes %d inputs and gives %d outputs", fn->name, fn->n_in, fn->n_out);
  for (int i = 0; i < call->n_in; i++) {
    ir_value *v = *call->in[i] ? names_get(scope, call->in[i]) : NULL;
    if (*call->in[i] && !v) ir_fail(ctx, TN_EINPUT, "input '%s' is not defined before it", call->in[i]);
    if (v) names_put(ctx, &inner, fn->in[i], v);
  }
  frame f = {call, fn, outer, ir_format(ctx, "%s/", *call->name ? call->name : call->op)};
  for (int i = 0; i < fn->n_node; i++) import_node(im, g, &fn->node[i], &inner, fn->opset, fn->n_opset, &f);
  for (int i = 0; i < call->n_out; i++) {
    if (!*call->out[i]) continue;
    ir_value *v = names_get(&inner, fn->out[i]);
    if (!v) ir_fail(ctx, TN_EINPUT, "function '%s' does not compute its output '%s'", fn->name, fn->out[i]);
    names_put(ctx, scope, call->out[i], v);
  }
  im->depth--;
}

static void import_node_strict(importer *im, ir_graph *g, const fe_onnx_node *src, names *scope,
                               const fe_onnx_opset *opsets, int nopsets, const frame *f) {
  tn_ctx *ctx = im->ctx;
  const fe_onnx_function *fn = find_function(im->m, src);
  const ir_op *op = ir_op_find(src->domain, src->op);
  if (fn && (!op || *src->domain)) {
    inline_function(im, g, src, fn, scope, f);
    return;
  }
  int64_t opset = fe_onnx_opset_version(opsets, nopsets, src->domain);
  if (opset < 0 || opset > MAX_OPSET) ir_fail(ctx, TN_EINPUT, "there is no version %lld of operator set '%s'", (long long)opset, *src->domain ? src->domain : "ai.onnx");
  if (!op)
    ir_fail(ctx, TN_EUNSUPPORTED, "op %s%s%s (opset %lld) is not supported", src->domain, *src->domain ? ":" : "", src->op, (long long)opset);
  ir_value **in = IR_NEW_ARRAY(ctx, ir_value *, src->n_in);
  int nin = 0, nout = 0;
  for (int i = 0; i < src->n_in; i++) {
    if (*src->in[i]) {
      in[i] = names_get(scope, src->in[i]);
      if (!in[i] && !(f && i >= op->min_in)) /* a function's optional parameter may be unbound */
        ir_fail(ctx, TN_EINPUT, "input '%s' is not defined before it", src->in[i]);
      if (in[i]) nin = i + 1;
    }
  }
  for (int i = 0; i < src->n_out; i++)
    if (*src->out[i]) nout = i + 1;
  ir_node *n = ir_node_new(g, *src->domain ? ir_format(ctx, "%s:%s", src->domain, src->op) : src->op,
                           ir_format(ctx, "%s%s", f ? f->prefix : "", *src->name ? src->name : src->n_out ? src->out[0] : src->op), nin, in, nout);
  n->where = fe_onnx_where(ctx, im->m, src);
  n->opset = (int)(opset ? opset : 1);
  if (src->n_attr > MAX_ATTRS) ir_fail(ctx, TN_EINPUT, "%d attributes; no op has more than %d", src->n_attr, MAX_ATTRS);
  for (int i = 0; i < src->n_attr; i++) {
    const fe_onnx_attr *a = resolve(f, &src->attr[i]);
    if (!a) continue;
    for (int k = 0; k < i; k++)
      if (src->attr[k].name == src->attr[i].name) ir_fail(ctx, TN_EINPUT, "attribute '%s' is given twice", src->attr[i].name);
    fe_onnx_attr named = *a;
    named.name = src->attr[i].name;
    import_attr(im, n, &named, scope);
  }
  for (int i = 0; i < nout; i++) {
    if (!*src->out[i]) {
      if (i >= op->min_out) n->out[i] = NULL; /* else a value that nobody reads */
      continue;
    }
    if (names_get_here(scope, src->out[i])) ir_fail(ctx, TN_EINPUT, "'%s' is defined twice", src->out[i]);
    n->out[i]->name = f ? ir_intern(ctx, ir_format(ctx, "%s%s", f->prefix, src->out[i])) : src->out[i];
    names_put(ctx, scope, src->out[i], n->out[i]);
  }
}

typedef struct node_call {
  importer *im;
  ir_graph *g;
  const fe_onnx_node *src;
  names *scope;
  const fe_onnx_opset *opsets;
  int nopsets;
  const frame *f;
} node_call;

static void import_node_call(tn_ctx *ctx, void *arg) {
  (void)ctx;
  node_call *c = arg;
  import_node_strict(c->im, c->g, c->src, c->scope, c->opsets, c->nopsets, c->f);
}

static void import_node(importer *im, ir_graph *g, const fe_onnx_node *src, names *scope, const fe_onnx_opset *opsets,
                        int nopsets, const frame *f) {
  tn_ctx *ctx = im->ctx;
  const char *where = fe_onnx_where(ctx, im->m, src);
  if (!im->problems) {
    ir_where(ctx, where);
    import_node_strict(im, g, src, scope, opsets, nopsets, f);
    ir_where(ctx, NULL);
    return;
  }
  int depth = im->depth;
  node_call c = {im, g, src, scope, opsets, nopsets, f};
  tn_status s = ir_protect(ctx, import_node_call, &c);
  if (s == TN_OK) return;
  if (s == TN_ERESOURCE || s == TN_EINTERNAL) ir_fail(ctx, s, "%s", ir_strdup(ctx, ir_error(ctx)));
  im->depth = depth;
  fe_problem p = {where, ir_intern(ctx, src->op), (int)fe_onnx_opset_version(opsets, nopsets, src->domain), s, ir_strdup(ctx, ir_error(ctx))};
  IR_PUSH(ctx, im->problems->items, im->problems->n, p);
  for (int i = 0; i < src->n_out; i++) /* stands for what is missing, so that later nodes are looked at */
    if (*src->out[i] && !names_get_here(scope, src->out[i]))
      names_put(ctx, scope, src->out[i], ir_graph_input(g, src->out[i], TN_NONE, -1, NULL));
}

/* An input or an initializer; with a list of problems, what is wrong with it is noted there and a
 * value without a type stands in its place. */
typedef struct value_call {
  importer *im;
  ir_graph *g;
  const fe_onnx_graph *src;
  const fe_onnx_value *in;   /* either */
  const fe_onnx_tensor *init;
  names *scope;
} value_call;

static void import_value_call(tn_ctx *ctx, void *arg) {
  value_call *c = arg;
  if (c->in) import_type(c->im, c->g, c->src, c->in, c->scope);
  else names_put(ctx, c->scope, c->init->name, constant(c->im, c->g, c->init, c->init->name));
}

static void import_value(value_call c) {
  tn_ctx *ctx = c.im->ctx;
  if (!c.im->problems) {
    import_value_call(ctx, &c);
    return;
  }
  tn_status s = ir_protect(ctx, import_value_call, &c);
  if (s == TN_OK) return;
  const char *reason = ir_strdup(ctx, ir_error(ctx)), *name = c.in ? c.in->name : c.init->name;
  if (s == TN_ERESOURCE || s == TN_EINTERNAL) ir_fail(ctx, s, "%s", reason);
  size_t n = strlen(c.im->m->file);
  if (strncmp(reason, c.im->m->file, n) == 0 && reason[n] == ':') reason += n + 2;
  fe_problem p = {c.im->m->file, "", 0, s, reason};
  IR_PUSH(ctx, c.im->problems->items, c.im->problems->n, p);
  names_put(ctx, c.scope, name, ir_graph_input(c.g, name, TN_NONE, -1, NULL));
}

static void import_graph(importer *im, ir_graph *g, const fe_onnx_graph *src, names *scope) {
  tn_ctx *ctx = im->ctx;
  if (++im->depth > MAX_DEPTH) ir_fail(ctx, TN_EINPUT, "graphs nest deeper than %d", MAX_DEPTH);
  if (src->n_sparse) ir_fail(ctx, TN_EUNSUPPORTED, "%s: sparse initializer '%s'", im->m->file, src->sparse[0]);
  for (int i = 0; i < src->n_init; i++) {
    if (names_get_here(scope, src->init[i].name)) ir_fail(ctx, TN_EINPUT, "%s: tensor '%s' is defined twice", im->m->file, src->init[i].name);
    import_value((value_call){.im = im, .g = g, .src = src, .init = &src->init[i], .scope = scope});
  }
  for (int i = 0; i < src->n_in; i++) {
    ir_value *v = names_get_here(scope, src->in[i].name);
    if (v && (v->kind == IR_VALUE_CONST || v->dtype == TN_NONE)) continue; /* an input with a default: the default is taken */
    if (v) ir_fail(ctx, TN_EINPUT, "%s: input '%s' is defined twice", im->m->file, src->in[i].name);
    import_value((value_call){.im = im, .g = g, .src = src, .in = &src->in[i], .scope = scope});
  }
  for (int i = 0; i < src->n_node; i++) import_node(im, g, &src->node[i], scope, im->m->opset, im->m->n_opset, NULL);
  for (int i = 0; i < src->n_out; i++) {
    ir_value *v = names_get(scope, src->out[i].name);
    if (!v) ir_fail(ctx, TN_EINPUT, "%s: output '%s' is not computed", im->m->file, src->out[i].name);
    ir_graph_output(g, v);
  }
  im->depth--;
}

ir_graph *fe_import_model(tn_ctx *ctx, const fe_onnx *model, fe_problems *problems) {
  importer im = {.ctx = ctx, .m = model, .problems = problems};
  ir_graph *g = ir_graph_new(ctx, *model->graph->name ? model->graph->name : "model");
  g->file = model->file;
  names *scope = IR_NEW(ctx, names);
  import_graph(&im, g, model->graph, scope);
  if (!problems) ir_graph_sort(g);
  return g;
}

ir_graph *fe_import(tn_ctx *ctx, const char *path, fe_problems *problems) {
  return fe_import_model(ctx, fe_onnx_load(ctx, path), problems);
}
