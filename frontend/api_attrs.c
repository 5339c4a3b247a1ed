/* api_attrs.c — attributes of a node from a text such as
 *
 *   axis=-1 pads=[1, 1, 1, 1] mode="linear" alpha=0.5 value=1i64
 *
 * separated by blanks or commas. The kinds come from the op's row ("axis:i pads:I mode:s ...",
 * see ir.h), so that 1 serves where a float is wanted and a bare word where a string is. */
#include "frontend/api.h"
#include "ir/interp.h"
#include <string.h>

/* The letter of attribute `name` of the op; 0: there is none. */
static char kind_of(const ir_op *op, const char *name) {
  size_t len = strlen(name);
  for (const char *s = op->attrs ? op->attrs : ""; *s;) {
    if (strncmp(s, name, len) == 0 && s[len] == ':') return s[len + 1];
    s += strcspn(s, " ");
    s += strspn(s, " ");
  }
  return 0;
}

/* "axis, keepdims" out of "axis:i keepdims:i". */
static const char *names_of(tn_ctx *ctx, const ir_op *op) {
  ir_text t = {.ctx = ctx};
  for (const char *s = op->attrs ? op->attrs : ""; *s;) {
    ir_put(&t, "%s%.*s", t.n ? ", " : "", (int)strcspn(s, ": "), s);
    s += strcspn(s, " ");
    s += strspn(s, " ");
  }
  return t.n ? t.s : "none";
}

static const char *read_word(ir_lexer *l) {
  return l->token == IR_T_NAME ? ir_lex_name(l, "a word") : ir_lex_string(l, "a string");
}

/* One number as a tensor of one element: its dtype is written after it, or i64, or f32. */
static ir_value *read_tensor(ir_lexer *l, const char *name) {
  ir_lexer after = *l;
  ir_lex_accept(&after, "-");
  tn_dtype t = TN_F32;
  if (after.token == IR_T_NUMBER)
    t = after.number.suffix != TN_NONE ? after.number.suffix : after.number.real ? TN_F32 : TN_I64;
  else if (ir_lex_at(l, "true") || ir_lex_at(l, "false")) t = TN_BOOL;
  ir_scalar v = ir_read_scalar(l, t);
  char bytes[8];
  ir_scalar_store(t, bytes, v);
  return ir_graph_const(ir_graph_new(l->ctx, "tensor"), name, t, 1, (int64_t[]){1}, bytes, true);
}

static void read_list(ir_lexer *l, ir_node *n, const char *name, char kind) {
  int64_t *ints = NULL;
  double *floats = NULL;
  const char **strings = NULL;
  int count = 0;
  bool list = ir_lex_accept(l, "[");
  while (list ? !ir_lex_at(l, "]") : count == 0) {
    if (count && ir_lex_at(l, ",")) ir_lex_next(l);
    int k = count;
    if (kind == 'I') {
      int64_t v = ir_lex_int(l, "a whole number");
      IR_PUSH(l->ctx, ints, k, v);
    } else if (kind == 'F') {
      double v = ir_read_scalar(l, TN_F64).f;
      IR_PUSH(l->ctx, floats, k, v);
    } else {
      const char *v = read_word(l);
      IR_PUSH(l->ctx, strings, k, v);
    }
    count = k;
  }
  if (list) ir_lex_expect(l, "]");
  if (kind == 'I') ir_attr_ints(n, name, count, ints);
  else if (kind == 'F') ir_attr_floats(n, name, count, floats);
  else {
    ir_attr a = {.name = name, .kind = IR_ATTR_STRINGS, .n = count, .strings = strings};
    IR_PUSH(l->ctx, n->attrs, n->nattrs, a);
  }
}

static void read_attrs(ir_lexer *l, void *arg) {
  ir_node *n = arg;
  while (l->token != IR_T_END) {
    const char *at = l->at, *name = ir_lex_name(l, "the name of an attribute");
    char kind = kind_of(n->op, name);
    if (!kind) ir_lex_fail_at(l, at, "%s has no attribute '%.60s'; it has: %s", n->op->name, name, names_of(l->ctx, n->op));
    if (ir_attr_find(n, name)) ir_lex_fail_at(l, at, "attribute '%.60s' is given twice", name);
    ir_lex_expect(l, "=");
    switch (kind) {
    case 'i': ir_attr_int(n, name, ir_lex_int(l, "a whole number")); break;
    case 'f': ir_attr_float(n, name, ir_read_scalar(l, TN_F64).f); break;
    case 's': ir_attr_string(n, name, read_word(l)); break;
    case 't': {
      ir_attr a = {.name = name, .kind = IR_ATTR_TENSOR, .tensor = read_tensor(l, name)};
      IR_PUSH(l->ctx, n->attrs, n->nattrs, a);
      break;
    }
    case 'I':
    case 'F':
    case 'S': read_list(l, n, name, kind); break;
    default: ir_lex_fail_at(l, at, "attribute '%.60s' cannot be given as text", name);
    }
    ir_lex_accept(l, ",");
  }
}

void fe_attrs(tn_ctx *ctx, ir_node *n, const char *text) {
  ir_lexer l;
  const char *own = ir_strdup(ctx, text);
  ir_lex_start(&l, ctx, own, ir_format(ctx, "attributes '%.200s'", own), false);
  ir_lex_run(&l, read_attrs, n);
}
