/* text_graph.c — the text of graphs, and reading it; text_graph_print.c writes it.
 *
 *   graph  := "graph" NAME "{" { item } "}"
 *   item   := "file" STRING | "opset" INT                      # of nodes that do not say theirs
 *           | "dim" NAME [range]
 *           | "input" NAME [":" vtype]
 *           | ("const" | "param" | "state") NAME ["packed"] ":" type [data]
 *           | "output" NAME {"," NAME}
 *           | "extent" INT INT "=" NAME                         # of an output, along an axis, what a run finds
 *           | "update" NAME "=" NAME                            # a state or input, and what it holds after a run
 *           | out {"," out} "=" OP "(" [in {"," in}] ")" ["{" attr {"," attr} "}"] { "as" NAME |
 *             "where" STRING | "opset" INT | "group" INT }
 *   out    := "_" | NAME ["packed"] [":" vtype ["known" values]] # "_": omitted
 *   in     := "_" | NAME
 *   vtype  := type | DTYPE                                      # the latter: rank not known
 *   OP     := NAME [":" NAME]                                   # domain:name
 *   data   := ["raw"] ("=" values | "data" INT "hash" INT)      # raw: replaceable, not looked into
 *   values := literal | "[" [literal {"," literal}] "]" | "bits" "[" INT {"," INT} "]"
 *   attr   := NAME "=" ( INT | real | STRING | list | ("ints" | "floats" | "strings") "[" "]"
 *           | "tensor" NAME [":" type [data]] | graph )
 *
 * Names reach into the graphs of attributes, not out of them; a use may come before
 * the definition. The name of a node is that of its first output when it says none.
 * Constants of at most 64 elements are printed with their values; of larger ones the
 * text gives the size and a content hash, and reading asks an ir_data_source. Elements
 * that decimals cannot say (NaN payloads) are printed as bits. Attributes that are
 * single floats carry f32 when they have such a value, as ONNX's do. */
#include "ir/text.h"
#include "ir/interp.h"
#include <string.h>

enum { MAX_GRAPH_DEPTH = 60 };

typedef struct pending { /* a use of a name, resolved when its graph ends */
  ir_value **place;
  const char *name, *at;
} pending;

typedef struct scope {
  struct scope *outer;
  ir_graph *g;
  ir_map values; /* name to ir_value */
  ir_map dims;   /* name to ir_var */
  pending *uses;
  int nuses;
  int opset;
} scope;

typedef struct late { /* an output or a tensor attribute: set when all names have a meaning */
  ir_value **place;
  ir_graph *g; /* output k of g, or */
  ir_node *n;  /* attribute k of n */
  int k;       /* outputs and updates: as they are numbered among their kind */
  bool update; /* the state or input that is updated */
} late;

typedef struct reader {
  ir_lexer *l;
  tn_ctx *ctx;
  const ir_data_source *data;
  scope *s;
  int depth;
  late *late;
  int nlate;
} reader;

static ir_var *find_dim(void *user, const char *name) {
  for (scope *s = ((reader *)user)->s; s; s = s->outer) {
    ir_var *v = ir_map_get(&s->dims, name);
    if (v) return v;
  }
  return NULL;
}

static void read_vtype(reader *r, ir_type *t) {
  ir_env env = {r, find_dim, NULL};
  ir_lexer after = *r->l; /* "f32" alone: rank not known */
  ir_lex_dtype(&after);
  if (ir_lex_at(&after, "[")) {
    ir_read_type(r->l, &env, t);
    if (t->rank > IR_MAX_RANK - 3) ir_lex_fail(r->l, "a tensor has at most %d axes", IR_MAX_RANK - 3);
    return;
  }
  *t = (ir_type){.dtype = ir_lex_dtype(r->l), .rank = -1};
}

static void define(reader *r, const char *at, const char *name, ir_value *v) {
  if (ir_map_get(&r->s->values, name)) ir_lex_fail_at(r->l, at, "'%.100s' is defined twice", name);
  v->name = name;
  ir_map_set(&r->s->values, name, v);
}

static void use(reader *r, ir_value **place) {
  pending p = {.place = place, .at = r->l->at};
  p.name = ir_lex_name(r->l, "the name of a value");
  IR_PUSH(r->ctx, r->s->uses, r->s->nuses, p);
}

static void resolve(reader *r) {
  scope *s = r->s;
  for (int i = 0; i < s->nuses; i++) {
    pending p = s->uses[i];
    ir_value *v = ir_map_get(&s->values, p.name);
    if (v) *p.place = v;
    else if (s->outer) IR_PUSH(r->ctx, s->outer->uses, s->outer->nuses, p);
    else ir_lex_fail_at(r->l, p.at, "there is no value '%.100s'", p.name);
  }
}

/* The elements of a tensor, n of them: bytes in the arena. */
static void *read_values(reader *r, tn_dtype t, int64_t n) {
  ir_lexer *l = r->l;
  size_t size = ir_dtype_bytes(t);
  const char *at = l->at;
  bool bits = ir_lex_accept(l, "bits"), list = bits || ir_lex_at(l, "[");
  if (list) ir_lex_expect(l, "[");
  char *bytes = NULL;
  int64_t have = 0, room = 0;
  while (list ? !ir_lex_at(l, "]") : have == 0) {
    if (have) ir_lex_expect(l, ",");
    if (have == room) { /* grows with the text: its claimed size may be absurd */
      int64_t more = room ? 2 * room : 16;
      bytes = ir_grow(r->ctx, bytes, (size_t)room * size, (size_t)more * size, 1);
      room = more;
    }
    void *to = bytes + (size_t)have * size;
    if (have == n) ir_lex_fail(l, "the tensor has %lld elements only", (long long)n);
    if (bits) {
      const ir_number *v = &l->number;
      if (l->token != IR_T_NUMBER || v->real || v->big || v->suffix != TN_NONE || (size < 8 && v->i >> (8 * size)))
        ir_lex_expected(l, "the bits of an element");
      memcpy(to, &v->i, size); /* little-endian host, as everywhere */
      ir_lex_next(l);
    } else {
      ir_scalar_store(t, to, ir_read_scalar(l, t));
    }
    have++;
  }
  if (list) ir_lex_next(l);
  if (have < n) ir_lex_fail_at(l, at, "the tensor has %lld elements, only %lld are given", (long long)n, (long long)have);
  return bytes ? bytes : ir_alloc(r->ctx, 1);
}

/* A constant after its name: type and data. `g` gets it. */
static ir_value *read_const(reader *r, ir_graph *g, const char *name) {
  ir_lexer *l = r->l;
  ir_type t;
  const char *at = l->at;
  ir_env env = {r, find_dim, NULL};
  ir_read_type(l, &env, &t);
  if (t.dtype == TN_INDEX) ir_lex_fail_at(l, at, "a tensor cannot have dtype index");
  int64_t dims[IR_MAX_RANK], n = 1;
  for (int i = 0; i < t.rank; i++)
    if (!ix_const_value(t.shape[i], &dims[i]) || !ir_mul_size(n, dims[i], &n))
      ir_lex_fail_at(l, at, "the extents of a constant must be numbers, and its size below 2^63");
  ir_value *v = ir_graph_const(g, name, t.dtype, t.rank, dims, NULL, false);
  v->layout = t.layout;
  bool raw = ir_lex_accept(l, "raw");
  if (ir_lex_accept(l, "=")) {
    v->data = read_values(r, t.dtype, n);
  } else if (ir_lex_accept(l, "data")) {
    const char *size_at = l->at;
    if (ir_lex_int(l, "the number of bytes") != v->data_bytes)
      ir_lex_fail_at(l, size_at, "a tensor of this type has %lld bytes", (long long)v->data_bytes);
    ir_lex_expect(l, "hash");
    if (l->token != IR_T_NUMBER || l->number.real || l->number.big || l->number.suffix != TN_NONE) ir_lex_expected(l, "the content hash");
    uint64_t hash = l->number.i;
    if (r->data) v->data = r->data->find(r->data->user, name, v->data_bytes, hash);
    if (v->data && ir_data_hash(v->data, v->data_bytes) != hash) ir_lex_fail(l, "the data of '%.100s' has another content hash", name);
    ir_lex_next(l);
  } else if (raw) {
    ir_lex_expected(l, "'=' or data");
  }
  if (raw) v->raw = v->data, v->data = NULL;
  return v;
}

static ir_graph *read_graph(reader *r);

static void read_list(reader *r, ir_node *n, const char *name, int kind) {
  ir_lexer *l = r->l;
  const char *at = l->at;
  int64_t *ints = NULL;
  double *floats = NULL;
  const char **strings = NULL;
  int nints = 0, nfloats = 0, nstrings = 0, total = 0;
  ir_lex_expect(l, "[");
  while (!ir_lex_at(l, "]")) {
    if (total++) ir_lex_expect(l, ",");
    if (l->token == IR_T_STRING) {
      const char *s = ir_lex_string(l, "a string");
      IR_PUSH(r->ctx, strings, nstrings, s);
      continue;
    }
    ir_lexer after = *l;
    ir_lex_accept(&after, "-");
    if (after.token == IR_T_NUMBER && !after.number.real && after.number.suffix == TN_NONE) {
      int64_t v = ir_lex_int(l, "a number");
      IR_PUSH(r->ctx, ints, nints, v);
    } else {
      bool f32 = after.token == IR_T_NUMBER && after.number.suffix == TN_F32;
      double v = ir_read_scalar(l, f32 ? TN_F32 : TN_F64).f;
      IR_PUSH(r->ctx, floats, nfloats, v);
    }
  }
  ir_lex_next(l);
  if (total == 0 && kind < 0) ir_lex_fail_at(l, at, "an empty list needs its kind: ints [], floats [] or strings []");
  if (total && kind < 0) kind = nints ? IR_ATTR_INTS : nfloats ? IR_ATTR_FLOATS : IR_ATTR_STRINGS;
  int good = kind == IR_ATTR_INTS ? nints : kind == IR_ATTR_FLOATS ? nfloats : nstrings;
  if (good != total) ir_lex_fail_at(l, at, "the items of a list must be of one kind");
  if (kind == IR_ATTR_INTS) ir_attr_ints(n, name, total, ints);
  else if (kind == IR_ATTR_FLOATS) ir_attr_floats(n, name, total, floats);
  else {
    ir_attr a = {.name = name, .kind = IR_ATTR_STRINGS, .n = total, .strings = strings};
    IR_PUSH(r->ctx, n->attrs, n->nattrs, a);
  }
}

static void read_attr(reader *r, ir_node *n) {
  ir_lexer *l = r->l;
  const char *at = l->at, *name = ir_lex_name(l, "the name of an attribute");
  if (ir_attr_find(n, name)) ir_lex_fail_at(l, at, "attribute '%.100s' is given twice", name);
  ir_lex_expect(l, "=");
  if (ir_lex_at(l, "[")) {
    read_list(r, n, name, -1);
  } else if (ir_lex_accept(l, "ints")) {
    read_list(r, n, name, IR_ATTR_INTS);
  } else if (ir_lex_accept(l, "floats")) {
    read_list(r, n, name, IR_ATTR_FLOATS);
  } else if (ir_lex_accept(l, "strings")) {
    read_list(r, n, name, IR_ATTR_STRINGS);
  } else if (l->token == IR_T_STRING) {
    ir_attr_string(n, name, ir_lex_string(l, "a string"));
  } else if (ir_lex_at(l, "graph") || ir_lex_at(l, "tensor")) {
    ir_attr a = {.name = name, .kind = ir_lex_at(l, "graph") ? IR_ATTR_GRAPH : IR_ATTR_TENSOR};
    ir_attr_int(n, name, 0); /* its place in the list */
    if (a.kind == IR_ATTR_GRAPH) {
      a.graph = read_graph(r);
    } else {
      ir_lex_next(l);
      ir_lexer after = *l;
      ir_lex_name(&after, "the name of the tensor");
      if (ir_lex_at(&after, ":")) { /* a graph of its own: it is not one of the graph's constants */
        const char *own = ir_lex_name(l, "the name of the tensor");
        ir_lex_next(l);
        a.tensor = read_const(r, ir_graph_new(r->ctx, "tensor"), own);
        a.tensor->name = own;
      } else {
        late t = {IR_NEW(r->ctx, ir_value *), NULL, n, n->nattrs - 1, false};
        use(r, t.place);
        IR_PUSH(r->ctx, r->late, r->nlate, t);
      }
    }
    n->attrs[n->nattrs - 1] = a;
  } else {
    ir_lexer after = *l;
    ir_lex_accept(&after, "-");
    if (after.token == IR_T_NUMBER && !after.number.real && after.number.suffix == TN_NONE) {
      ir_attr_int(n, name, ir_lex_int(l, "a number"));
    } else {
      bool f32 = after.token == IR_T_NUMBER && after.number.suffix == TN_F32;
      ir_attr_float(n, name, ir_read_scalar(l, f32 ? TN_F32 : TN_F64).f);
    }
  }
}

typedef struct output { /* of a node, before the node exists */
  const char *name, *at; /* null: omitted */
  ir_type type;          /* dtype TN_NONE: not known */
  const void *data;      /* null, or known values */
  int64_t bytes;
  bool packed;
} output;

static output read_output(reader *r) {
  ir_lexer *l = r->l;
  output o = {.at = l->at, .type = {.rank = -1}};
  if (l->token == IR_T_NAME && strcmp(l->word, "_") == 0) {
    ir_lex_next(l);
    return o;
  }
  o.name = ir_lex_name(l, "the name of a value");
  o.packed = ir_lex_accept(l, "packed");
  if (!ir_lex_accept(l, ":")) return o;
  read_vtype(r, &o.type);
  if (ir_lex_accept(l, "known")) {
    int64_t n = 1, d;
    for (int i = 0; i < o.type.rank; i++)
      if (!ix_const_value(o.type.shape[i], &d) || !ir_mul_size(n, d, &n)) ir_lex_fail(l, "known values need a known shape");
    if (o.type.rank < 0 || o.type.dtype == TN_INDEX) ir_lex_fail(l, "known values need a known shape and dtype");
    o.data = read_values(r, o.type.dtype, n);
    o.bytes = n * (int64_t)ir_dtype_bytes(o.type.dtype);
  }
  return o;
}

static void read_node(reader *r) {
  ir_lexer *l = r->l;
  tn_ctx *ctx = r->ctx;
  output *outs = NULL;
  int nout = 0, nin = 0;
  do {
    output o = read_output(r);
    IR_PUSH(ctx, outs, nout, o);
  } while (ir_lex_accept(l, ","));
  ir_lex_expect(l, "=");
  const char *at = l->at, *op = ir_lex_name(l, "an operator"), *domain = "";
  if (ir_lex_accept(l, ":")) {
    domain = op;
    op = ir_lex_name(l, "the name of the operator");
  }
  if (!ir_op_find(domain, op)) ir_lex_fail_at(l, at, "there is no operator '%.100s'%s%.60s", op, *domain ? " of domain " : "", domain);
  ir_value **in = NULL;
  pending *uses = NULL; /* place is set once the node exists */
  ir_lex_expect(l, "(");
  while (!ir_lex_at(l, ")")) {
    if (nin) ir_lex_expect(l, ",");
    pending p = {.at = l->at};
    if (l->token == IR_T_NAME && strcmp(l->word, "_") == 0) ir_lex_next(l);
    else p.name = ir_lex_name(l, "the name of a value");
    int k = nin;
    IR_PUSH(ctx, uses, k, p);
    IR_PUSH(ctx, in, nin, NULL);
  }
  ir_lex_next(l);
  const char *own = nout && outs[0].name ? outs[0].name : NULL;
  ir_node *n = ir_node_new(r->s->g, *domain ? ir_format(ctx, "%s:%s", domain, op) : op, own, nin, in, nout);
  for (int i = 0; i < nin; i++)
    if (uses[i].name) {
      uses[i].place = &n->in[i];
      IR_PUSH(ctx, r->s->uses, r->s->nuses, uses[i]);
    }
  for (int i = 0; i < nout; i++) {
    if (!outs[i].name) {
      n->out[i] = NULL;
      continue;
    }
    ir_value *v = n->out[i];
    define(r, outs[i].at, outs[i].name, v);
    v->dtype = outs[i].type.dtype;
    v->rank = outs[i].type.rank;
    v->layout = outs[i].type.layout;
    for (int a = 0; a < v->rank; a++) v->dims[a] = outs[i].type.shape[a];
    v->data = outs[i].data;
    v->data_bytes = outs[i].bytes;
    v->packed = outs[i].packed;
  }
  n->opset = r->s->opset;
  if (ir_lex_accept(l, "{")) {
    do read_attr(r, n);
    while (ir_lex_accept(l, ","));
    ir_lex_expect(l, "}");
  }
  for (;;) {
    if (ir_lex_accept(l, "as")) {
      n->name = ir_lex_name(l, "the name of the node");
      n->where = n->name;
    } else if (ir_lex_accept(l, "where")) {
      n->where = ir_lex_string(l, "a place");
    } else if (ir_lex_accept(l, "opset")) {
      int64_t v = ir_lex_int(l, "a number");
      if (v < 0 || v > 1 << 20) ir_lex_fail(l, "an opset number is at least 0");
      n->opset = (int)v;
    } else if (ir_lex_accept(l, "group")) {
      int64_t v = ir_lex_int(l, "a number");
      if (v < -2 || v > INT32_MAX) ir_lex_fail(l, "this is no number of a group");
      n->group = (int)v;
    } else {
      return;
    }
  }
}

static void read_item(reader *r) {
  ir_lexer *l = r->l;
  scope *s = r->s;
  const char *at = l->at;
  ir_lexer after = *l; /* an item's word is followed by a name, a string or a number, an output by : , or = */
  ir_lex_next(&after);
  bool word = l->token == IR_T_NAME && after.token != IR_T_PUNCT && after.token != IR_T_END;
  if (word && ir_lex_accept(l, "file")) {
    s->g->file = ir_lex_string(l, "the name of the file");
  } else if (word && ir_lex_accept(l, "opset")) {
    int64_t v = ir_lex_int(l, "a number");
    if (v < 0 || v > 1 << 20) ir_lex_fail_at(l, at, "an opset number is at least 0");
    s->opset = (int)v;
  } else if (word && ir_lex_accept(l, "dim")) {
    at = l->at;
    const char *name = ir_lex_name(l, "the name of a dimension");
    int64_t lo = 0, hi = INT64_MAX;
    if (ir_lex_at(l, "[")) ir_read_range(l, &lo, &hi);
    if (ir_map_get(&s->dims, name)) ir_lex_fail_at(l, at, "dimension '%.100s' is defined twice", name);
    ir_map_set(&s->dims, name, ir_var_new(r->ctx, name, TN_INDEX, lo, hi));
  } else if (word && ir_lex_accept(l, "input")) {
    at = l->at;
    const char *name = ir_lex_name(l, "the name of the input");
    ir_type t = {.rank = -1};
    if (ir_lex_accept(l, ":")) read_vtype(r, &t);
    ir_value *v = ir_graph_input(s->g, name, t.dtype, t.rank, t.shape);
    v->layout = t.layout;
    define(r, at, name, v);
  } else if (word && (ir_lex_at(l, "const") || ir_lex_at(l, "param") || ir_lex_at(l, "state"))) {
    ir_value_kind kind = ir_lex_at(l, "const") ? IR_VALUE_CONST : ir_lex_at(l, "param") ? IR_VALUE_PARAM : IR_VALUE_STATE;
    ir_lex_next(l);
    at = l->at;
    const char *name = ir_lex_name(l, "the name of the constant");
    bool packed = ir_lex_accept(l, "packed");
    ir_lex_expect(l, ":");
    ir_value *v = read_const(r, s->g, name);
    v->kind = kind;
    v->packed = packed;
    if (kind == IR_VALUE_STATE) v->start = ir_value_source(v), v->data = v->raw = NULL;
    define(r, at, name, v);
  } else if (word && ir_lex_accept(l, "output")) {
    do {
      if (s->g->nupdates || s->g->nextents) ir_lex_fail_at(l, at, "outputs come before extents and updates");
      late t = {IR_NEW(r->ctx, ir_value *), s->g, NULL, s->g->noutputs, false};
      use(r, t.place);
      ir_graph_output(s->g, NULL);
      IR_PUSH(r->ctx, r->late, r->nlate, t);
    } while (ir_lex_accept(l, ","));
  } else if (word && ir_lex_accept(l, "extent")) {
    if (s->g->nupdates || s->outer) ir_lex_fail_at(l, at, "extents are those of the outermost graph, and come before updates");
    int64_t output = ir_lex_int(l, "the number of an output"), axis = ir_lex_int(l, "the number of an axis");
    if (output < 0 || output >= s->g->noutputs - s->g->nextents || axis < 0 || axis >= IR_MAX_RANK) ir_lex_fail_at(l, at, "there is no such axis of an output");
    ir_lex_expect(l, "=");
    late t = {IR_NEW(r->ctx, ir_value *), s->g, NULL, s->g->noutputs, false};
    use(r, t.place);
    ir_graph_extent_of(s->g, (int)output, (int)axis, NULL);
    IR_PUSH(r->ctx, r->late, r->nlate, t);
  } else if (word && ir_lex_accept(l, "update")) {
    late t = {IR_NEW(r->ctx, ir_value *), s->g, NULL, s->g->nupdates, true}, v = {IR_NEW(r->ctx, ir_value *), s->g, NULL, s->g->noutputs, false};
    use(r, t.place);
    ir_lex_expect(l, "=");
    use(r, v.place);
    ir_graph_update(s->g, NULL, NULL);
    IR_PUSH(r->ctx, r->late, r->nlate, t);
    IR_PUSH(r->ctx, r->late, r->nlate, v);
  } else {
    read_node(r);
  }
}

static void parse_body(reader *r, scope *s) {
  ir_lexer *l = r->l;
  s->g->name = ir_lex_name(l, "the name of the graph");
  ir_lex_expect(l, "{");
  while (!ir_lex_at(l, "}")) {
    if (l->token == IR_T_END) ir_lex_expected(l, "a node or '}'");
    read_item(r);
  }
  ir_lex_next(l);
  resolve(r);
}

static ir_graph *read_graph(reader *r) {
  ir_lexer *l = r->l;
  ir_lex_expect(l, "graph");
  if (++r->depth > MAX_GRAPH_DEPTH) ir_lex_fail(l, "graphs nested more than %d deep", MAX_GRAPH_DEPTH);
  scope s = {.outer = r->s, .values = {.ctx = r->ctx}, .dims = {.ctx = r->ctx}, .opset = r->s ? r->s->opset : 26};
  s.g = ir_graph_new(r->ctx, "graph");
  if (r->s) s.g->outer = r->s->g, s.g->file = r->s->g->file;
  r->s = &s;
  parse_body(r, &s);
  r->s = s.outer;
  r->depth--;
  for (int i = 0; !s.outer && i < r->nlate; i++) {
    late t = r->late[i];
    if (t.g) (t.update ? t.g->updates : t.g->outputs)[t.k] = *t.place;
    else t.n->attrs[t.k].tensor = *t.place;
  }
  return s.g;
}

typedef struct job {
  const ir_data_source *data;
  ir_graph *g;
} job;

static void parse_graph(ir_lexer *l, void *arg) {
  job *j = arg;
  reader r = {.l = l, .ctx = l->ctx, .data = j->data};
  j->g = read_graph(&r);
  if (l->token != IR_T_END) ir_lex_expected(l, "the end of the text");
}

ir_graph *ir_graph_parse_with(tn_ctx *ctx, const char *text, const char *file, const ir_data_source *data) {
  ir_lexer l;
  job j = {data, NULL};
  ir_lex_start(&l, ctx, text, file, false);
  ir_lex_run(&l, parse_graph, &j);
  return j.g;
}

ir_graph *ir_graph_parse(tn_ctx *ctx, const char *text, const char *file) { return ir_graph_parse_with(ctx, text, file, NULL); }
