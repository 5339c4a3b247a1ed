/* onnx_model.c — reads ModelProto into the structs of onnx_model.h.
 *
 * Each message is walked twice: once to count its fields (which also checks its framing), so
 * that every list is allocated once at its exact size, and once to fill. A submessage is
 * skipped in one step at the first walk, so the whole stays linear in the file. Names below
 * follow onnx.proto; the numbers are its field numbers.
 */
#include "frontend/onnx_read.h"
#include <limits.h>
#include <string.h>

void fe_onnx_tally(fe_wire *w, int count[FE_TALLY]) {
  fe_field f;
  memset(count, 0, FE_TALLY * sizeof *count);
  while (fe_wire_next(w, &f)) {
    if (f.number >= FE_TALLY) continue;
    if (count[f.number] == INT_MAX / 2) fe_wire_fail(w, f.at, TN_EINPUT, "field %u stands too often", f.number);
    count[f.number]++;
  }
  fe_wire_rewind(w);
}

void fe_onnx_once(fe_wire *w, const int count[FE_TALLY], int field, const char *name) {
  if (count[field] > 1) fe_wire_fail(w, w->begin, TN_EINPUT, "has %d fields '%s'", count[field], name);
}

static const char *domain_of(fe_wire *w, const fe_field *f) {
  const char *s = fe_wire_string(w, f);
  return strcmp(s, "ai.onnx") == 0 ? ir_intern(w->ctx, "") : s;
}

/* Arrays of strings are filled through a pointer to non-const. */
static const char **names(fe_wire *w, int n) { return n ? IR_NEW_ARRAY(w->ctx, const char *, n) : NULL; }

fe_onnx_pair fe_onnx_read_pair(fe_wire *w) {
  const char *empty = ir_intern(w->ctx, "");
  fe_onnx_pair pair = {empty, empty};
  fe_field f;
  while (fe_wire_next(w, &f)) {
    if (f.number == 1) pair.key = fe_wire_string(w, &f);
    if (f.number == 2) pair.value = fe_wire_string(w, &f);
  }
  return pair;
}

/* ---- types ---- */

static fe_onnx_dim read_dim(fe_wire *w) {
  fe_onnx_dim d = {-1, ir_intern(w->ctx, "")};
  fe_field f;
  while (fe_wire_next(w, &f)) {
    if (f.number == 1) { /* a oneof: the last one wins */
      int64_t v = fe_wire_int64(w, &f);
      d.value = v < 0 ? -1 : v; /* some exporters write -1 for unknown */
      d.param = ir_intern(w->ctx, "");
    } else if (f.number == 2) {
      d.value = -1;
      d.param = fe_wire_string(w, &f);
    }
  }
  return d;
}

static void read_shape(fe_wire *w, fe_onnx_type *t) {
  int count[FE_TALLY], i = 0;
  fe_onnx_tally(w, count);
  fe_onnx_dim *dims = count[1] ? IR_NEW_ARRAY(w->ctx, fe_onnx_dim, count[1]) : NULL;
  fe_field f;
  while (fe_wire_next(w, &f)) {
    if (f.number != 1) continue;
    fe_wire d = fe_wire_enter(w, &f, NULL, 0, 0);
    dims[i++] = read_dim(&d);
  }
  t->has_shape = true;
  t->rank = count[1];
  t->dims = dims;
}

static void read_type(fe_wire *w, fe_onnx_type *t);

/* TypeProto.Tensor, SparseTensor, Sequence, Optional, Map: an element (or key) type in
 * field 1, which is a number or a TypeProto, and a shape or value type in field 2. */
static void read_type_of(fe_wire *w, fe_onnx_type *t) {
  int count[FE_TALLY];
  fe_onnx_tally(w, count);
  fe_field f;
  bool tensor = t->kind == FE_ONNX_TENSOR || t->kind == FE_ONNX_SPARSE, map = t->kind == FE_ONNX_MAP;
  fe_onnx_once(w, count, 2, tensor ? "shape" : "value_type");
  if (!tensor && !map) fe_onnx_once(w, count, 1, "elem_type");
  while (fe_wire_next(w, &f)) {
    if (f.number == 1 && (tensor || map)) {
      t->elem = fe_wire_int32(w, &f);
      if (t->elem < 0 || t->elem >= FE_ONNX_ELEM_COUNT)
        fe_wire_fail(w, f.at, TN_EINPUT, "element type %d is unknown", t->elem);
      t->dtype = fe_onnx_dtype(t->elem);
    } else if (f.number == 2 && tensor) {
      fe_wire s = fe_wire_enter(w, &f, "shape", 0, 0);
      read_shape(&s, t);
    } else if ((f.number == 1 && !map && !tensor) || (f.number == 2 && map)) {
      fe_onnx_type *of = IR_NEW(w->ctx, fe_onnx_type);
      fe_wire s = fe_wire_enter(w, &f, NULL, 0, 0);
      read_type(&s, of);
      t->of = of;
    }
  }
}

static void read_type(fe_wire *w, fe_onnx_type *t) {
  fe_field f;
  *t = (fe_onnx_type){0};
  while (fe_wire_next(w, &f)) {
    fe_onnx_kind kind = f.number == 1   ? FE_ONNX_TENSOR
                        : f.number == 4 ? FE_ONNX_SEQUENCE
                        : f.number == 5 ? FE_ONNX_MAP
                        : f.number == 7 ? FE_ONNX_OPAQUE
                        : f.number == 8 ? FE_ONNX_SPARSE
                        : f.number == 9 ? FE_ONNX_OPTIONAL
                                        : FE_ONNX_NOTHING;
    if (kind == FE_ONNX_NOTHING) continue;
    if (t->kind != FE_ONNX_NOTHING) fe_wire_fail(w, f.at, TN_EINPUT, "a type is given twice");
    t->kind = kind;
    fe_wire s = fe_wire_enter(w, &f, "type", 0, 0);
    if (kind != FE_ONNX_OPAQUE) read_type_of(&s, t);
  }
}

static void read_value(fe_wire *w, fe_onnx_value *v) {
  int count[FE_TALLY];
  fe_onnx_tally(w, count);
  fe_onnx_once(w, count, 2, "type");
  v->name = ir_intern(w->ctx, "");
  fe_field f;
  while (fe_wire_next(w, &f)) {
    if (f.number == 1) v->name = fe_wire_string(w, &f);
    if (f.number == 2) {
      fe_wire s = fe_wire_enter(w, &f, NULL, 0, 0);
      read_type(&s, &v->type);
    }
  }
}

/* ---- attributes ---- */

static void read_graph(fe_wire *w, fe_onnx_graph *g);

static fe_onnx_str read_str(fe_wire *w, const fe_field *f) {
  const uint8_t *data;
  size_t n;
  fe_wire_bytes(w, f, &data, &n);
  return (fe_onnx_str){ir_strndup(w->ctx, (const char *)data, n), n};
}

/* kind, its field, for messages; in the order in which a missing `type` is guessed. */
static const struct {
  uint8_t kind, field;
  bool list;
  const char *name;
} attr_kinds[] = {
    {FE_ATTR_INT, 3, false, "i"},       {FE_ATTR_FLOAT, 2, false, "f"},      {FE_ATTR_STRING, 4, false, "s"},
    {FE_ATTR_TENSOR, 5, false, "t"},    {FE_ATTR_GRAPH, 6, false, "g"},      {FE_ATTR_INTS, 8, true, "ints"},
    {FE_ATTR_FLOATS, 7, true, "floats"}, {FE_ATTR_STRINGS, 9, true, "strings"}, {FE_ATTR_TENSORS, 10, true, "tensors"},
    {FE_ATTR_GRAPHS, 11, true, "graphs"}, {FE_ATTR_TYPE_PROTO, 14, false, "tp"}, {FE_ATTR_TYPE_PROTOS, 15, true, "type_protos"},
    {FE_ATTR_SPARSE_TENSOR, 22, false, "sparse_tensor"}, {FE_ATTR_SPARSE_TENSORS, 23, true, "sparse_tensors"},
};

static void read_numbers(fe_wire *w, fe_onnx_attr *a, int field, int wire, size_t width) {
  fe_field f;
  size_t n = 0;
  while (fe_wire_next(w, &f))
    if (f.number == (uint32_t)field) n += fe_wire_count(w, &f, wire);
  if (n > INT_MAX / 2) fe_wire_fail(w, w->begin, TN_EINPUT, "has too many values");
  a->n = (int)n;
  if (!n) return;
  char *out = ir_alloc_array(w->ctx, n, width), *p = out;
  fe_wire_rewind(w);
  while (fe_wire_next(w, &f))
    if (f.number == (uint32_t)field) p += width * fe_wire_get(w, &f, wire, width, p);
  if (wire == FE_WIRE_I32) a->floats = (const float *)out;
  else a->ints = (const int64_t *)out;
}

/* The value, or values, of a kind that is no number. */
static void read_items(fe_wire *w, fe_onnx_attr *a, int field, int n) {
  static const size_t sizes[FE_ATTR_KIND_COUNT] = {
      [FE_ATTR_TENSOR] = sizeof(fe_onnx_tensor), [FE_ATTR_TENSORS] = sizeof(fe_onnx_tensor),
      [FE_ATTR_GRAPH] = sizeof(fe_onnx_graph),   [FE_ATTR_GRAPHS] = sizeof(fe_onnx_graph),
      [FE_ATTR_STRINGS] = sizeof(fe_onnx_str),   [FE_ATTR_TYPE_PROTO] = sizeof(fe_onnx_type),
      [FE_ATTR_TYPE_PROTOS] = sizeof(fe_onnx_type)};
  a->n = n;
  if (!sizes[a->kind]) return; /* sparse: counted only */
  char *items = n ? ir_alloc_array(w->ctx, (size_t)n, sizes[a->kind]) : NULL;
  fe_field f;
  int i = 0;
  while (fe_wire_next(w, &f)) {
    if (f.number != (uint32_t)field) continue;
    void *item = items + (size_t)i++ * sizes[a->kind];
    if (a->kind == FE_ATTR_STRINGS) {
      *(fe_onnx_str *)item = read_str(w, &f);
    } else if (a->kind == FE_ATTR_TENSOR || a->kind == FE_ATTR_TENSORS) {
      fe_wire s = fe_wire_enter(w, &f, "tensor", 8, 0);
      fe_onnx_read_tensor(&s, item);
    } else if (a->kind == FE_ATTR_GRAPH || a->kind == FE_ATTR_GRAPHS) {
      fe_wire s = fe_wire_enter(w, &f, "graph", 2, 0);
      read_graph(&s, item);
    } else {
      fe_wire s = fe_wire_enter(w, &f, NULL, 0, 0);
      read_type(&s, item);
    }
  }
  a->t = (const void *)items; /* every pointer of the union */
}

static void read_attr(fe_wire *w, fe_onnx_attr *a) {
  int count[FE_TALLY], kind = FE_ATTR_UNDEFINED, k = 0;
  fe_onnx_tally(w, count);
  a->name = a->ref = ir_intern(w->ctx, "");
  a->s = (fe_onnx_str){a->name, 0};
  fe_onnx_str s = a->s;
  int64_t i = 0;
  float x = 0;
  fe_field f;
  while (fe_wire_next(w, &f)) switch (f.number) {
    case 1: a->name = fe_wire_string(w, &f); break;
    case 2: x = fe_wire_float(w, &f); break;
    case 3: i = fe_wire_int64(w, &f); break;
    case 4: s = read_str(w, &f); break;
    case 20: kind = fe_wire_int32(w, &f); break;
    case 21: a->ref = fe_wire_string(w, &f); break;
    }
  fe_wire_rewind(w);
  if (!*a->name) fe_wire_fail(w, w->begin, TN_EINPUT, "has no name");
  if (kind < 0 || kind >= FE_ATTR_KIND_COUNT) fe_wire_fail(w, w->begin, TN_EINPUT, "attribute type %d is unknown", kind);
  if (kind == FE_ATTR_UNDEFINED) { /* files before IR version 2 */
    while (k < IR_COUNT(attr_kinds) && !count[attr_kinds[k].field]) k++;
    kind = k < IR_COUNT(attr_kinds) ? attr_kinds[k].kind : FE_ATTR_UNDEFINED;
  }
  a->kind = (fe_onnx_attr_kind)kind;
  if (*a->ref || kind == FE_ATTR_UNDEFINED) return;
  for (k = 0; attr_kinds[k].kind != kind;) k++;
  int field = attr_kinds[k].field;
  a->n = 1;
  switch (kind) { /* a number or string that is absent has its default, 0 or "" */
  case FE_ATTR_INT: a->i = i; return;
  case FE_ATTR_FLOAT: a->f = x; return;
  case FE_ATTR_STRING: a->s = s; return;
  case FE_ATTR_INTS: a->ints = NULL, read_numbers(w, a, field, FE_WIRE_VARINT, 8); return;
  case FE_ATTR_FLOATS: a->floats = NULL, read_numbers(w, a, field, FE_WIRE_I32, 4); return;
  default:
    if (!attr_kinds[k].list && count[field] != 1)
      fe_wire_fail(w, w->begin, TN_EINPUT, "has %d fields '%s', needs one", count[field], attr_kinds[k].name);
    read_items(w, a, field, count[field]);
  }
}

/* ---- nodes, graphs ---- */

static void read_node(fe_wire *w, fe_onnx_node *node) {
  int count[FE_TALLY], a = 0;
  fe_onnx_tally(w, count);
  const char *empty = ir_intern(w->ctx, "");
  *node = (fe_onnx_node){.name = empty, .op = empty, .domain = empty, .overload = empty,
                         .at = (size_t)(w->begin - w->base)};
  const char **in = names(w, count[1]), **out = names(w, count[2]);
  fe_onnx_attr *attr = count[5] ? IR_NEW_ARRAY(w->ctx, fe_onnx_attr, count[5]) : NULL;
  fe_field f;
  while (fe_wire_next(w, &f)) switch (f.number) {
    case 1: in[node->n_in++] = fe_wire_string(w, &f); break;
    case 2: out[node->n_out++] = fe_wire_string(w, &f); break;
    case 3: node->name = fe_wire_string(w, &f); break;
    case 4: node->op = fe_wire_string(w, &f); break;
    case 5: {
      fe_wire s = fe_wire_enter(w, &f, "attribute", 1, 0);
      read_attr(&s, &attr[a++]);
      break;
    }
    case 7: node->domain = domain_of(w, &f); break;
    case 8: node->overload = fe_wire_string(w, &f); break;
    }
  if (!*node->op) fe_wire_fail(w, w->begin, TN_EINPUT, "has no op_type");
  node->in = in;
  node->out = out;
  node->attr = attr;
  node->n_attr = a;
}

/* A sparse initializer is named by its values. */
static const char *read_sparse(fe_wire *w) {
  const char *name = ir_intern(w->ctx, "");
  fe_field f, g;
  while (fe_wire_next(w, &f)) {
    if (f.number != 1) continue;
    fe_wire s = fe_wire_enter(w, &f, NULL, 0, 0);
    while (fe_wire_next(&s, &g))
      if (g.number == 8) name = fe_wire_string(&s, &g);
  }
  return name;
}

static void read_graph(fe_wire *w, fe_onnx_graph *g) {
  int count[FE_TALLY];
  fe_onnx_tally(w, count);
  *g = (fe_onnx_graph){.name = ir_intern(w->ctx, "")};
  fe_onnx_node *node = count[1] ? IR_NEW_ARRAY(w->ctx, fe_onnx_node, count[1]) : NULL;
  fe_onnx_tensor *init = count[5] ? IR_NEW_ARRAY(w->ctx, fe_onnx_tensor, count[5]) : NULL;
  fe_onnx_value *in = count[11] ? IR_NEW_ARRAY(w->ctx, fe_onnx_value, count[11]) : NULL;
  fe_onnx_value *out = count[12] ? IR_NEW_ARRAY(w->ctx, fe_onnx_value, count[12]) : NULL;
  fe_onnx_value *value = count[13] ? IR_NEW_ARRAY(w->ctx, fe_onnx_value, count[13]) : NULL;
  const char **sparse = names(w, count[15]);
  fe_field f;
  while (fe_wire_next(w, &f)) switch (f.number) {
    case 1: {
      fe_wire s = fe_wire_enter(w, &f, "node", 3, 4);
      read_node(&s, &node[g->n_node++]);
      break;
    }
    case 2: g->name = fe_wire_string(w, &f); break;
    case 5: {
      fe_wire s = fe_wire_enter(w, &f, "initializer", 8, 0);
      fe_onnx_read_tensor(&s, &init[g->n_init++]);
      break;
    }
    case 11: {
      fe_wire s = fe_wire_enter(w, &f, "input", 1, 0);
      read_value(&s, &in[g->n_in++]);
      break;
    }
    case 12: {
      fe_wire s = fe_wire_enter(w, &f, "output", 1, 0);
      read_value(&s, &out[g->n_out++]);
      break;
    }
    case 13: {
      fe_wire s = fe_wire_enter(w, &f, "value_info", 1, 0);
      read_value(&s, &value[g->n_value++]);
      break;
    }
    case 15: {
      fe_wire s = fe_wire_enter(w, &f, "sparse initializer", 0, 0);
      sparse[g->n_sparse++] = read_sparse(&s);
      break;
    }
    }
  g->node = node;
  g->init = init;
  g->in = in;
  g->out = out;
  g->value = value;
  g->sparse = sparse;
}

/* ---- functions, models ---- */

static fe_onnx_opset read_opset(fe_wire *w) {
  fe_onnx_opset o = {ir_intern(w->ctx, ""), 0};
  fe_field f;
  while (fe_wire_next(w, &f)) {
    if (f.number == 1) o.domain = domain_of(w, &f);
    if (f.number == 2) o.version = fe_wire_int64(w, &f);
  }
  return o;
}

static void read_function(fe_wire *w, fe_onnx_function *fn) {
  int count[FE_TALLY];
  fe_onnx_tally(w, count);
  fn->name = fn->domain = fn->overload = ir_intern(w->ctx, "");
  const char **in = names(w, count[4]), **out = names(w, count[5]), **attr = names(w, count[6]);
  fe_onnx_node *node = count[7] ? IR_NEW_ARRAY(w->ctx, fe_onnx_node, count[7]) : NULL;
  fe_onnx_opset *opset = count[9] ? IR_NEW_ARRAY(w->ctx, fe_onnx_opset, count[9]) : NULL;
  fe_onnx_attr *defaults = count[11] ? IR_NEW_ARRAY(w->ctx, fe_onnx_attr, count[11]) : NULL;
  fe_onnx_value *value = count[12] ? IR_NEW_ARRAY(w->ctx, fe_onnx_value, count[12]) : NULL;
  fe_field f;
  while (fe_wire_next(w, &f)) switch (f.number) {
    case 1: fn->name = fe_wire_string(w, &f); break;
    case 4: in[fn->n_in++] = fe_wire_string(w, &f); break;
    case 5: out[fn->n_out++] = fe_wire_string(w, &f); break;
    case 6: attr[fn->n_attr++] = fe_wire_string(w, &f); break;
    case 7: {
      fe_wire s = fe_wire_enter(w, &f, "node", 3, 4);
      read_node(&s, &node[fn->n_node++]);
      break;
    }
    case 9: {
      fe_wire s = fe_wire_enter(w, &f, "opset_import", 1, 0);
      opset[fn->n_opset++] = read_opset(&s);
      break;
    }
    case 10: fn->domain = domain_of(w, &f); break;
    case 11: {
      fe_wire s = fe_wire_enter(w, &f, "attribute", 1, 0);
      read_attr(&s, &defaults[fn->n_default++]);
      break;
    }
    case 12: {
      fe_wire s = fe_wire_enter(w, &f, "value_info", 1, 0);
      read_value(&s, &value[fn->n_value++]);
      break;
    }
    case 13: fn->overload = fe_wire_string(w, &f); break;
    }
  if (!*fn->name) fe_wire_fail(w, w->begin, TN_EINPUT, "has no name");
  fn->in = in;
  fn->out = out;
  fn->attr = attr;
  fn->node = node;
  fn->opset = opset;
  fn->defaults = defaults;
  fn->value = value;
}

static void read_model(fe_wire *w, fe_onnx *m) {
  int count[FE_TALLY];
  fe_onnx_tally(w, count);
  if (!count[7]) fe_wire_fail(w, w->begin, TN_EINPUT, "holds no graph: is this an ONNX file?");
  fe_onnx_once(w, count, 7, "graph");
  m->producer = m->producer_version = m->domain = ir_intern(w->ctx, "");
  m->n_training = count[20];
  fe_onnx_opset *opset = count[8] ? IR_NEW_ARRAY(w->ctx, fe_onnx_opset, count[8]) : NULL;
  fe_onnx_pair *meta = count[14] ? IR_NEW_ARRAY(w->ctx, fe_onnx_pair, count[14]) : NULL;
  fe_onnx_function *function = count[25] ? IR_NEW_ARRAY(w->ctx, fe_onnx_function, count[25]) : NULL;
  fe_onnx_graph *graph = IR_NEW(w->ctx, fe_onnx_graph);
  fe_field f;
  while (fe_wire_next(w, &f)) switch (f.number) {
    case 1: m->ir_version = fe_wire_int64(w, &f); break;
    case 2: m->producer = fe_wire_string(w, &f); break;
    case 3: m->producer_version = fe_wire_string(w, &f); break;
    case 4: m->domain = fe_wire_string(w, &f); break;
    case 5: m->model_version = fe_wire_int64(w, &f); break;
    case 7: {
      fe_wire s = fe_wire_enter(w, &f, "graph", 2, 0);
      read_graph(&s, graph);
      break;
    }
    case 8: {
      fe_wire s = fe_wire_enter(w, &f, "opset_import", 1, 0);
      opset[m->n_opset++] = read_opset(&s);
      break;
    }
    case 14: {
      fe_wire s = fe_wire_enter(w, &f, "metadata", 1, 0);
      meta[m->n_meta++] = fe_onnx_read_pair(&s);
      break;
    }
    case 25: {
      fe_wire s = fe_wire_enter(w, &f, "function", 1, 0);
      read_function(&s, &function[m->n_function++]);
      break;
    }
    }
  m->opset = opset;
  m->meta = meta;
  m->function = function;
  m->graph = graph;
}

const fe_onnx *fe_onnx_parse(tn_ctx *ctx, const void *bytes, size_t n, const char *name, const char *folder) {
  fe_onnx *m = IR_NEW(ctx, fe_onnx);
  m->file = ir_strdup(ctx, name);
  m->folder = folder ? ir_strdup(ctx, folder) : NULL;
  static const char lfs[] = "version https://git-lfs", annex[] = "/annex/objects/";
  if (n == 0) ir_fail(ctx, TN_EINPUT, "%s: is empty", name);
  if ((n >= sizeof lfs && memcmp(bytes, lfs, sizeof lfs - 1) == 0) ||
      (n >= sizeof annex && memcmp(bytes, annex, sizeof annex - 1) == 0))
    ir_fail(ctx, TN_EINPUT, "%s: is a pointer to a large file that was not fetched, not a model", name);
  fe_onnx_source source = {.folder = m->folder};
  fe_wire w = fe_wire_open(ctx, m->file, bytes, n, NULL);
  w.user = &source;
  read_model(&w, m);
  return m;
}

const fe_onnx *fe_onnx_load(tn_ctx *ctx, const char *path) {
  const fe_map *m = fe_map_file(ctx, path);
  return fe_onnx_parse(ctx, m->data, m->size, path, fe_path_folder(ctx, path));
}

/* ---- comfort for the importer ---- */

int64_t fe_onnx_opset_version(const fe_onnx_opset *opset, int n, const char *domain) {
  if (strcmp(domain, "ai.onnx") == 0) domain = "";
  for (int i = 0; i < n; i++)
    if (strcmp(opset[i].domain, domain) == 0) return opset[i].version;
  return 0;
}

const fe_onnx_attr *fe_onnx_find(const fe_onnx_node *node, const char *name) {
  for (int i = 0; i < node->n_attr; i++)
    if (strcmp(node->attr[i].name, name) == 0) return &node->attr[i];
  return NULL;
}

bool fe_onnx_has(const fe_onnx_node *node, const char *name) { return fe_onnx_find(node, name) != NULL; }

static const fe_onnx_attr *find_kind(tn_ctx *ctx, const fe_onnx_node *node, const char *name, fe_onnx_attr_kind kind) {
  static const char *const kinds[FE_ATTR_KIND_COUNT] = {
      "undefined", "a float", "an integer", "a string", "a tensor", "a graph", "floats", "integers", "strings",
      "tensors", "graphs", "a sparse tensor", "sparse tensors", "a type", "types"};
  const fe_onnx_attr *a = fe_onnx_find(node, name);
  if (!a) return NULL;
  if (*a->ref)
    ir_fail(ctx, TN_EINPUT, "attribute '%s' refers to attribute '%s' of a function that is not there", name,
            fe_show(ctx, a->ref, strlen(a->ref)));
  if (a->kind != kind) ir_fail(ctx, TN_EINPUT, "attribute '%s' is %s, not %s", name, kinds[a->kind], kinds[kind]);
  return a;
}

int64_t fe_onnx_int(tn_ctx *ctx, const fe_onnx_node *node, const char *name, int64_t otherwise) {
  const fe_onnx_attr *a = find_kind(ctx, node, name, FE_ATTR_INT);
  return a ? a->i : otherwise;
}

float fe_onnx_float(tn_ctx *ctx, const fe_onnx_node *node, const char *name, float otherwise) {
  const fe_onnx_attr *a = find_kind(ctx, node, name, FE_ATTR_FLOAT);
  return a ? a->f : otherwise;
}

const char *fe_onnx_string(tn_ctx *ctx, const fe_onnx_node *node, const char *name, const char *otherwise) {
  const fe_onnx_attr *a = find_kind(ctx, node, name, FE_ATTR_STRING);
  return a ? a->s.s : otherwise;
}

const int64_t *fe_onnx_ints(tn_ctx *ctx, const fe_onnx_node *node, const char *name, int *n) {
  const fe_onnx_attr *a = find_kind(ctx, node, name, FE_ATTR_INTS);
  *n = a ? a->n : -1;
  return a ? a->ints : NULL;
}

const float *fe_onnx_floats(tn_ctx *ctx, const fe_onnx_node *node, const char *name, int *n) {
  const fe_onnx_attr *a = find_kind(ctx, node, name, FE_ATTR_FLOATS);
  *n = a ? a->n : -1;
  return a ? a->floats : NULL;
}

const fe_onnx_str *fe_onnx_strings(tn_ctx *ctx, const fe_onnx_node *node, const char *name, int *n) {
  const fe_onnx_attr *a = find_kind(ctx, node, name, FE_ATTR_STRINGS);
  *n = a ? a->n : -1;
  return a ? a->strings : NULL;
}

const fe_onnx_tensor *fe_onnx_tensor_attr(tn_ctx *ctx, const fe_onnx_node *node, const char *name) {
  const fe_onnx_attr *a = find_kind(ctx, node, name, FE_ATTR_TENSOR);
  return a ? a->t : NULL;
}

const fe_onnx_graph *fe_onnx_graph_attr(tn_ctx *ctx, const fe_onnx_node *node, const char *name) {
  const fe_onnx_attr *a = find_kind(ctx, node, name, FE_ATTR_GRAPH);
  return a ? a->g : NULL;
}

const char *fe_onnx_where(tn_ctx *ctx, const fe_onnx *m, const fe_onnx_node *node) {
  const char *name = node->name;
  for (int i = 0; !*name && i < node->n_out; i++) name = node->out[i];
  return ir_format(ctx, "%s: node '%s' (%s)", m->file, fe_show(ctx, name, strlen(name)),
                   fe_show(ctx, node->op, strlen(node->op)));
}
