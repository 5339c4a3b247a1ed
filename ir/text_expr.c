/* text_expr.c — expressions as text, and back.
 *
 * From loose to tight, all binary operators grouping to the left:
 *
 *   |   ^   &   == !=   < <= > >=   << >>   + -   * / %   - ! (unary)
 *
 * They stand for or, xor, and, eq, ne, lt, le, shl, shr, add, sub, mul, div, rem,
 * neg, not of the operands' dtype (so / and % of index are by floor, of data integers
 * truncate). All other operations are calls: max(a, b), select(c, a, b), fma(a, b, c),
 * cast<f32>(x), bitcast<i32>(x). A[i, j] is a load, A[] one of a rank-0 buffer.
 *
 * A literal without a dtype takes that of its sibling operand, or of what the
 * statement wants; without either a whole number is an index. 3i64, 1.5f32, nan:f32
 * and -inf:f16 say theirs; true and false are bool.
 *
 * A large expression with shared parts is printed with each part once:
 * (%1 := exp(x)) / (1.0 + %1). Numbers count within one expression. A part can also
 * be said ahead, (%1 := exp(x); %1 / (1.0 + %1)): very deep expressions are cut so.
 *
 * The law: reading what was printed gives the same node, in the same context with the
 * same variables and buffers, because the constructors are idempotent: making a node
 * again from its own operands gives that node. Some forms are rewritten for the eye
 * (index sums: a + -1*b as a - b, a + -5 as a - 5; constants go to the right), which
 * the constructors undo. */
#include "ir/text.h"
#include "ir/interp.h"
#include <math.h>
#include <string.h>

enum {
  MAX_HEIGHT = 4000,  /* of an expression that is read: later passes recurse over it */
  TREE_LIMIT = 2000,  /* nodes of a tree beyond which shared parts are named */
  NEST_LIMIT = 500    /* brackets in brackets beyond which parts are said ahead */
};

typedef struct infix {
  const char *text;
  int level;
  ir_opcode op;
  bool swap; /* a > b is b < a */
} infix;

static const infix infixes[] = {
    {"|", 1, IX_OR, false},  {"^", 2, IX_XOR, false}, {"&", 3, IX_AND, false}, {"==", 4, IX_EQ, false},
    {"!=", 4, IX_NE, false}, {"<", 5, IX_LT, false},  {"<=", 5, IX_LE, false}, {">", 5, IX_LT, true},
    {">=", 5, IX_LE, true},  {"<<", 6, IX_SHL, false}, {">>", 6, IX_SHR, false}, {"+", 7, IX_ADD, false},
    {"-", 7, IX_SUB, false}, {"*", 8, IX_MUL, false}, {"/", 8, IX_DIV, false}, {"%", 8, IX_REM, false},
};
enum { LEVEL_UNARY = 9, LEVEL_PRIMARY = 10 };

/* ============================================================ reading ==== */

/* What was read: an expression, or a literal whose dtype is not known yet. */
typedef struct operand {
  ix e; /* null: the literal below */
  const char *at;
  int height;
  ir_number literal;
  bool negative;
} operand;

typedef struct reader {
  ir_lexer *l;
  const ir_env *env;
  ir_map labels; /* %n, keyed by n as a pointer, to operand */
} reader;

static operand read_level(reader *r, int level);

static ix literal_as(const ir_lexer *l, const operand *o, tn_dtype t) {
  const ir_number *v = &o->literal;
  tn_ctx *ctx = l->ctx;
  if (ir_is_float(t)) return ix_float(ctx, t, o->negative ? -v->f : v->f);
  const char *name = ir_dtype_name(t);
  if (t == TN_BOOL) ir_lex_fail_at(l, o->at, "expected a bool, found a number (write true or false)");
  if (v->real) ir_lex_fail_at(l, o->at, "expected a whole number of dtype %s", name);
  int bits = ir_dtype_bits(t);
  bool is_signed = ir_is_signed(t);
  uint64_t most = is_signed ? ((uint64_t)1 << (bits - 1)) - !o->negative : o->negative ? 0 : UINT64_MAX >> (64 - bits);
  if (v->big || v->i > most) ir_lex_fail_at(l, o->at, "the number does not fit %s", name);
  int64_t i = (int64_t)(o->negative ? 0 - v->i : v->i);
  return t == TN_INDEX ? ix_index(ctx, i) : ix_int(ctx, t, i);
}

/* The expression of an operand whose context wants dtype t (TN_NONE: does not say). */
static ix settle(const ir_lexer *l, operand *o, tn_dtype t) {
  if (o->e) return o->e;
  if (t == TN_NONE) {
    if (o->literal.real) ir_lex_fail_at(l, o->at, "the dtype of this number is not clear here; write it at its end, as in 1.5f32");
    t = TN_INDEX;
  }
  o->e = literal_as(l, o, t);
  return o->e;
}

static void same_dtypes(const ir_lexer *l, operand *o, int n, const char *op) {
  tn_dtype t = TN_NONE;
  for (int i = 0; i < n && t == TN_NONE; i++)
    if (o[i].e) t = (tn_dtype)o[i].e->dtype;
  for (int i = 0; i < n; i++) {
    ix e = settle(l, &o[i], t);
    if (t == TN_NONE) t = (tn_dtype)e->dtype;
    if (e->dtype != t)
      ir_lex_fail_at(l, o[i].at, "operands of '%s' have dtypes %s and %s", op, ir_dtype_name(t), ir_dtype_name((tn_dtype)e->dtype));
  }
}

/* What ix_make would refuse as a broken invariant is the writer's mistake here. */
static void check_op(const ir_lexer *l, ir_opcode op, const operand *o, const char *name) {
  tn_dtype t = (tn_dtype)o[0].e->dtype;
  bool wrong = ix_info[op].result == 'F' && !ir_is_float(t);
  switch (op) {
  case IX_ADD: case IX_SUB: case IX_MUL: case IX_DIV: case IX_REM: case IX_NEG: case IX_ABS: wrong = t == TN_BOOL; break;
  case IX_SHL: case IX_SHR: wrong = t == TN_BOOL || ir_is_float(t); break;
  case IX_AND: case IX_OR: case IX_XOR: case IX_NOT: wrong = ir_is_float(t); break;
  default: break;
  }
  if (wrong) ir_lex_fail_at(l, o[0].at, "'%s' does not work on %s", name, ir_dtype_name(t));
  if ((op == IX_DIV || op == IX_REM) && t == TN_INDEX && o[1].e->op == IX_CONST && o[1].e->u.i <= 0)
    ir_lex_fail_at(l, o[1].at, "an index can only be divided by a positive number");
}

static operand build(reader *r, const char *at, ir_opcode op, tn_dtype t, int n, operand *o) {
  operand out = {.at = at};
  ix args[3];
  for (int i = 0; i < n; i++) {
    args[i] = o[i].e;
    if (o[i].height > out.height) out.height = o[i].height;
  }
  if (++out.height > MAX_HEIGHT) ir_lex_fail_at(r->l, at, "the expression is more than %d operations high", MAX_HEIGHT);
  out.e = ix_make(r->l->ctx, op, t, n, args);
  return out;
}

static operand read_whole(reader *r) {
  ir_lex_enter(r->l);
  operand o = read_level(r, 1);
  ir_lex_leave(r->l);
  return o;
}

static operand read_load(reader *r, const char *at, const char *name) {
  ir_lexer *l = r->l;
  ir_buf *b = r->env && r->env->buf ? r->env->buf(r->env->user, name) : NULL;
  if (!b) ir_lex_fail_at(l, at, "there is no buffer '%s' here", name);
  ix index[IR_MAX_RANK];
  int n = 0, height = 0;
  ir_lex_expect(l, "[");
  while (!ir_lex_at(l, "]")) {
    if (n) ir_lex_expect(l, ",");
    operand o = read_whole(r);
    if (n == b->rank) ir_lex_fail_at(l, o.at, "'%s' has only %d axes", name, b->rank);
    index[n] = settle(l, &o, TN_INDEX);
    if (index[n]->dtype != TN_INDEX)
      ir_lex_fail_at(l, o.at, "an index must have dtype index, not %s", ir_dtype_name((tn_dtype)index[n]->dtype));
    if (o.height > height) height = o.height;
    n++;
  }
  if (n < b->rank) ir_lex_fail(l, "'%s' has %d axes, only %d are given", name, b->rank, n);
  ir_lex_next(l);
  return (operand){.e = ix_load(l->ctx, b, index), .at = at, .height = height + 1};
}

static operand read_call(reader *r, const char *at, const char *name) {
  ir_lexer *l = r->l;
  int op = IX_NEG;
  while (op < IX_OPCODE_COUNT && strcmp(ix_info[op].name, name) != 0) op++;
  if (op == IX_OPCODE_COUNT) ir_lex_fail_at(l, at, "there is no operation '%s'", name);
  tn_dtype t = TN_NONE;
  if (op == IX_CAST || op == IX_BITCAST) {
    ir_lex_expect(l, "<");
    t = ir_lex_dtype(l);
    ir_lex_expect(l, ">");
  }
  operand o[3];
  int n = 0, arity = ix_info[op].arity;
  ir_lex_expect(l, "(");
  while (!ir_lex_at(l, ")")) {
    if (n) ir_lex_expect(l, ",");
    if (n == arity) ir_lex_fail(l, "'%s' takes %d operands", name, arity);
    o[n++] = read_whole(r);
  }
  if (n < arity) ir_lex_fail(l, "'%s' takes %d operands, only %d are given", name, arity, n);
  ir_lex_next(l);
  if (op == IX_SELECT) {
    if (settle(l, &o[0], TN_BOOL)->dtype != TN_BOOL) ir_lex_fail_at(l, o[0].at, "the condition of a select must be a bool");
    same_dtypes(l, o + 1, 2, name);
  } else {
    same_dtypes(l, o, n, name);
  }
  if (op == IX_BITCAST) {
    tn_dtype from = (tn_dtype)o[0].e->dtype;
    if (ir_dtype_bits(t) != ir_dtype_bits(from) || t == TN_INDEX || from == TN_INDEX || t == TN_BOOL || from == TN_BOOL)
      ir_lex_fail_at(l, at, "no bitcast of %s to %s", ir_dtype_name(from), ir_dtype_name(t));
  }
  check_op(l, (ir_opcode)op, o, name);
  return build(r, at, (ir_opcode)op, t, n, o);
}

static bool at_inf_or_nan(const ir_lexer *l) { return ir_lex_at(l, "inf") || ir_lex_at(l, "nan"); }

/* A number, inf or nan at the current token. */
static operand read_literal(ir_lexer *l, const char *at, bool negative) {
  operand o = {.at = at, .negative = negative};
  if (l->token == IR_T_NUMBER) {
    o.literal = l->number;
    ir_lex_next(l);
  } else {
    o.literal = (ir_number){.real = true, .f = ir_lex_at(l, "inf") ? (double)INFINITY : (double)NAN};
    ir_lex_next(l);
    if (ir_lex_accept(l, ":")) {
      tn_dtype t = ir_lex_dtype(l);
      if (!ir_is_float(t)) ir_lex_fail_at(l, at, "%s has no inf or nan", ir_dtype_name(t));
      o.literal.suffix = t;
    }
  }
  if (o.literal.suffix != TN_NONE) o.e = literal_as(l, &o, o.literal.suffix);
  return o;
}

/* The key of %n in the map of labels, at n. */
static const void *label_key(const ir_lexer *l) {
  const ir_number *v = &l->number;
  if (l->token != IR_T_NUMBER || v->real || v->big || v->suffix != TN_NONE || v->i < 1 || v->i > INT32_MAX)
    ir_lex_expected(l, "the number of a shared part, from 1");
  return (const void *)(uintptr_t)v->i;
}

/* Whether "%n :=" is what comes; looks ahead on a copy of the lexer. */
static bool at_label_definition(ir_lexer l) {
  if (!ir_lex_accept(&l, "%") || l.token != IR_T_NUMBER) return false;
  ir_lex_next(&l);
  return ir_lex_at(&l, ":=");
}

static operand read_primary(reader *r) {
  ir_lexer *l = r->l;
  const char *at = l->at;
  if (l->token == IR_T_NUMBER || at_inf_or_nan(l)) return read_literal(l, at, false);
  if (ir_lex_at(l, "true") || ir_lex_at(l, "false")) {
    operand o = {.e = ix_bool(l->ctx, ir_lex_at(l, "true")), .at = at};
    ir_lex_next(l);
    return o;
  }
  if (l->token == IR_T_NAME || l->token == IR_T_STRING) {
    bool quoted = l->token == IR_T_STRING;
    const char *name = l->word;
    ir_lex_next(l);
    if (ir_lex_at(l, "[")) return read_load(r, at, name);
    if (!quoted && (ir_lex_at(l, "(") || strcmp(name, "cast") == 0 || strcmp(name, "bitcast") == 0)) return read_call(r, at, name);
    ir_var *v = r->env && r->env->var ? r->env->var(r->env->user, name) : NULL;
    if (!v) ir_lex_fail_at(l, at, "there is no variable '%.100s' here", name);
    return (operand){.e = v->expr, .at = at};
  }
  if (ir_lex_accept(l, "%")) {
    operand *known = ir_map_get(&r->labels, label_key(l));
    if (!known) ir_lex_fail_at(l, at, "this shared part was not given a meaning before");
    ir_lex_next(l);
    return *known;
  }
  bool open = ir_lex_accept(l, "(");
  while (open && at_label_definition(*l)) {
    ir_lex_next(l);
    const void *key = label_key(l);
    if (ir_map_get(&r->labels, key)) ir_lex_fail_at(l, at, "this shared part has a meaning already");
    ir_lex_next(l);
    ir_lex_expect(l, ":=");
    operand *known = IR_NEW(l->ctx, operand);
    *known = read_whole(r);
    settle(l, known, TN_NONE);
    ir_map_set(&r->labels, key, known);
    if (ir_lex_accept(l, ";")) continue;
    ir_lex_expect(l, ")");
    return *known;
  }
  if (!open) ir_lex_expected(l, "an expression");
  operand o = read_whole(r);
  ir_lex_expect(l, ")");
  o.at = at;
  return o;
}

static operand read_unary(reader *r) {
  ir_lexer *l = r->l;
  const char *at = l->at;
  bool minus = ir_lex_accept(l, "-");
  if (minus && (l->token == IR_T_NUMBER || at_inf_or_nan(l))) return read_literal(l, at, true);
  if (!minus && !ir_lex_accept(l, "!")) return read_primary(r);
  ir_lex_enter(l);
  operand o = read_unary(r);
  ir_lex_leave(l);
  same_dtypes(l, &o, 1, minus ? "-" : "!");
  ir_opcode op = minus ? IX_NEG : IX_NOT;
  check_op(l, op, &o, minus ? "-" : "!");
  return build(r, at, op, TN_NONE, 1, &o);
}

static const infix *at_infix(const ir_lexer *l) {
  if (l->token != IR_T_PUNCT) return NULL;
  for (int i = 0; i < IR_COUNT(infixes); i++)
    if (strcmp(infixes[i].text, l->word) == 0) return &infixes[i];
  return NULL;
}

/* Operators of at least `level`. */
static operand read_level(reader *r, int level) {
  ir_lexer *l = r->l;
  operand left = read_unary(r);
  for (;;) {
    const infix *in = at_infix(l);
    if (!in || in->level < level) return left;
    ir_lex_next(l);
    operand right = read_level(r, in->level + 1);
    operand o[2] = {in->swap ? right : left, in->swap ? left : right};
    same_dtypes(l, o, 2, in->text);
    check_op(l, in->op, o, in->text);
    left = build(r, left.at, in->op, TN_NONE, 2, o);
  }
}

ix ir_read_expr(ir_lexer *l, const ir_env *env, tn_dtype want) {
  reader r = {.l = l, .env = env, .labels = {.ctx = l->ctx}};
  int depth = l->depth; /* counted apart from the statements around */
  l->depth = 0;
  operand o = read_whole(&r);
  l->depth = depth;
  ix e = settle(l, &o, want);
  if (want != TN_NONE && e->dtype != want)
    ir_lex_fail_at(l, o.at, "expected an expression of dtype %s, found one of %s", ir_dtype_name(want), ir_dtype_name((tn_dtype)e->dtype));
  return e;
}

typedef struct parse_job {
  const ir_env *env;
  tn_dtype want;
  ix result;
} parse_job;

static void parse_all(ir_lexer *l, void *arg) {
  parse_job *job = arg;
  job->result = ir_read_expr(l, job->env, job->want);
  if (l->token != IR_T_END) ir_lex_expected(l, "an operator or the end");
}

ix ix_parse(tn_ctx *ctx, const char *text, const char *file, const ir_env *env, tn_dtype want) {
  ir_lexer l;
  parse_job job = {env, want, NULL};
  l = (ir_lexer){.ctx = ctx};
  ir_lex_start(&l, ctx, text, file, false);
  ir_lex_run(&l, parse_all, &job);
  return job.result;
}

ir_scalar ir_read_scalar(ir_lexer *l, tn_dtype t) {
  const char *at = l->at;
  ix e;
  if (t == TN_BOOL && (ir_lex_at(l, "true") || ir_lex_at(l, "false"))) {
    e = ix_bool(l->ctx, ir_lex_at(l, "true"));
    ir_lex_next(l);
  } else {
    bool minus = ir_lex_accept(l, "-");
    if (l->token != IR_T_NUMBER && !at_inf_or_nan(l)) ir_lex_expected(l, t == TN_BOOL ? "true or false" : "a number");
    operand o = read_literal(l, at, minus);
    e = settle(l, &o, t);
    if (e->dtype != t) ir_lex_fail_at(l, at, "expected a number of dtype %s", ir_dtype_name(t));
  }
  return (ir_scalar){.i = e->u.i};
}

/* ============================================================ writing ==== */

typedef struct node_info {
  int64_t size; /* nodes of the tree, saturating */
  int parents, label;
  int nest;     /* brackets in brackets when printed */
} node_info;

typedef struct writer {
  ir_text *t;
  const ir_map *names;
  ir_map *info; /* null: print as a tree */
  bool share;   /* parts that occur twice get labels */
  int nlabels;
  ix *cuts;     /* parts to be said ahead, inner ones first */
  int ncuts;
} writer;

static const char *name_of(const writer *w, const void *key, const char *otherwise) {
  const char *s = ir_map_get(w->names, key);
  return s ? s : otherwise;
}

/* Nodes of the tree up to a limit, counted by walking: cheap while small. */
static int tree_size(ix e, int limit) {
  int n = 1;
  for (int i = 0; i < e->nargs && n < limit; i++) n += tree_size(e->args[i], limit - n);
  return n;
}

static bool is_infix(ix e) {
  for (int i = 0; i < IR_COUNT(infixes); i++)
    if (infixes[i].op == (ir_opcode)e->op) return true;
  return false;
}

static node_info *measure(writer *w, ix e) {
  node_info *i = ir_map_get(w->info, e);
  if (i) return i;
  i = IR_NEW(w->info->ctx, node_info);
  i->size = 1;
  for (int k = 0; k < e->nargs; k++) {
    node_info *a = measure(w, e->args[k]);
    a->parents++;
    i->size += a->size;
    if (i->size > INT64_MAX / 16) i->size = INT64_MAX / 16;
    /* the left side of an operator is mostly of the same operator, and needs no brackets */
    int nest = a->nest + !(k == 0 && e->args[0]->op == e->op && is_infix(e));
    if (e->args[k]->nargs && nest > i->nest) i->nest = nest;
  }
  ir_map_set(w->info, e, i);
  if (i->nest > NEST_LIMIT) {
    i->nest = 0;
    i->label = -1; /* a cut, not yet printed */
    IR_PUSH(w->info->ctx, w->cuts, w->ncuts, e);
  }
  return i;
}

void ir_put_scalar(ir_text *t, tn_dtype dtype, ir_scalar v) {
  if (ir_is_float(dtype)) ir_put_float(t, dtype, v.f);
  else if (dtype == TN_BOOL) ir_put(t, "%s", v.i ? "true" : "false");
  else if (dtype == TN_U64) ir_put(t, "%llu", (unsigned long long)v.i);
  else ir_put(t, "%lld", (long long)v.i);
}

static void put_const(writer *w, ix e, bool bare) {
  tn_dtype t = (tn_dtype)e->dtype;
  ir_put_scalar(w->t, t, (ir_scalar){.i = e->u.i});
  if (bare || t == TN_BOOL || t == TN_INDEX) return;
  bool word = ir_is_float(t) && (isnan(e->u.f) || isinf(e->u.f));
  ir_put(w->t, "%s%s", word ? ":" : "", ir_dtype_name(t));
}

static void put(writer *w, ix e, int level, bool bare);

static void put_infix(writer *w, ix e, const infix *in, int level) {
  ix a = e->args[0], b = e->args[1];
  const char *text = in->text;
  bool index = a->dtype == TN_INDEX, negate = false;
  int64_t c = 0;
  if (a->op == IX_CONST && b->op != IX_CONST) { /* constants to the right, where that reads back as the same */
    bool commutes = ix_info[in->op].traits[0] == 'C';
    /* x + -0.0 is x, while -0.0 + x is kept as it is */
    if (in->op == IX_ADD && ir_is_float((tn_dtype)a->dtype) && a->u.f == 0 && signbit(a->u.f)) commutes = false;
    if (in->op == IX_LT) text = ">";
    if (in->op == IX_LE) text = ">=";
    if (commutes || in->op == IX_LT || in->op == IX_LE) {
      ix other = a;
      a = b, b = other;
    }
  }
  if (in->op == IX_ADD && index) { /* a + -5 as a - 5, a + b*-3 as a - b*3 */
    if (ix_const_value(b, &c)) negate = c < 0 && c > INT64_MIN;
    else if (b->op == IX_MUL && ix_const_value(b->args[1], &c)) negate = c < 0 && c > INT64_MIN && b->args[0]->op != IX_CONST;
    node_info *i = w->info ? ir_map_get(w->info, b) : NULL;
    if (i && i->label > 0) negate = false; /* printed by its label */
  }
  if (in->level < level) ir_put(w->t, "(");
  put(w, a, in->level, b->op != IX_CONST);
  ir_put(w->t, index && in->level == 8 ? "%s" : " %s ", negate ? "-" : text);
  if (!negate) put(w, b, in->level + 1, a->op != IX_CONST);
  else if (b->op == IX_CONST) ir_put(w->t, "%lld", (long long)-c);
  else {
    put(w, b->args[0], c == -1 ? in->level + 1 : 8, true);
    if (c != -1) ir_put(w->t, "*%lld", (long long)-c);
  }
  if (in->level < level) ir_put(w->t, ")");
}

static void put_node(writer *w, ix e, int level, bool bare) {
  ir_opcode op = (ir_opcode)e->op;
  switch (op) {
  case IX_CONST: put_const(w, e, bare); return;
  case IX_VAR: ir_put_name(w->t, name_of(w, e->u.var, e->u.var->name)); return;
  case IX_LOAD:
    ir_put_name(w->t, name_of(w, e->u.buf, e->u.buf->name));
    ir_put(w->t, "[");
    for (int i = 0; i < e->nargs; i++) {
      if (i) ir_put(w->t, ", ");
      put(w, e->args[i], 0, true);
    }
    ir_put(w->t, "]");
    return;
  case IX_NEG:
  case IX_NOT:
    if (e->args[0]->op == IX_CONST) break; /* -5 would be read as a literal */
    if (level > LEVEL_UNARY) ir_put(w->t, "(");
    ir_put(w->t, op == IX_NEG ? "-" : "!");
    put(w, e->args[0], LEVEL_UNARY, false);
    if (level > LEVEL_UNARY) ir_put(w->t, ")");
    return;
  default:
    for (int i = 0; i < IR_COUNT(infixes); i++)
      if (infixes[i].op == op && !infixes[i].swap) {
        put_infix(w, e, &infixes[i], level);
        return;
      }
  }
  ir_put(w->t, "%s", ix_info[op].name);
  if (op == IX_CAST || op == IX_BITCAST) ir_put(w->t, "<%s>", ir_dtype_name((tn_dtype)e->dtype));
  ir_put(w->t, "(");
  int first = op == IX_SELECT; /* the condition is no sibling of the arms */
  bool typed = false;
  for (int i = first; i < e->nargs; i++) typed |= e->args[i]->op != IX_CONST;
  for (int i = 0; i < e->nargs; i++) {
    if (i) ir_put(w->t, ", ");
    put(w, e->args[i], 0, i >= first && typed);
  }
  ir_put(w->t, ")");
}

/* level: parentheses are needed around operators looser than this. bare: a literal
 * needs no dtype here. */
static void put(writer *w, ix e, int level, bool bare) {
  node_info *i = w->info && e->nargs ? ir_map_get(w->info, e) : NULL;
  if (i && i->label > 0) {
    ir_put(w->t, "%%%d", i->label);
  } else if (!i || !w->share || i->parents < 2 || i->size < 4) {
    put_node(w, e, level, bare);
  } else {
    int label = ++w->nlabels;
    ir_put(w->t, "(%%%d := ", label);
    put_node(w, e, 0, bare);
    ir_put(w->t, ")");
    i->label = label;
  }
}

void ir_put_expr(ir_text *t, ix e, const ir_map *names, tn_dtype want) {
  writer w = {.t = t, .names = names};
  ir_map info = {.ctx = t->ctx};
  int size = tree_size(e, TREE_LIMIT + 1);
  if (size > NEST_LIMIT) { /* else there is nothing to be found */
    w.info = &info;
    measure(&w, e);
    w.share = size > TREE_LIMIT;
    if (!w.share && !w.ncuts) w.info = NULL;
  }
  for (int k = 0; k < w.ncuts; k++) {
    node_info *i = ir_map_get(&info, w.cuts[k]);
    int label = ++w.nlabels;
    ir_put(t, "%s%%%d := ", k ? "" : "(", label);
    put_node(&w, w.cuts[k], 0, false);
    ir_put(t, "; ");
    i->label = label;
  }
  put(&w, e, 0, want != TN_NONE && want == (tn_dtype)e->dtype);
  if (w.ncuts) ir_put(t, ")");
}

const char *ix_print(tn_ctx *ctx, ix e) {
  if (!e) return "null";
  ir_text t = {.ctx = ctx};
  ir_put_expr(&t, e, NULL, TN_NONE);
  return ir_text_str(&t);
}

/* ============================================================== types ==== */

void ir_read_range(ir_lexer *l, int64_t *lo, int64_t *hi) {
  ir_lex_expect(l, "[");
  *lo = ir_lex_int(l, "the least value");
  ir_lex_expect(l, ",");
  *hi = ir_lex_int(l, "the greatest value");
  if (*lo > *hi) ir_lex_fail(l, "the least value is greater than the greatest");
  ir_lex_expect(l, "]");
}

typedef struct layout_job {
  const char *text;
  const ir_layout *result;
} layout_job;

static void parse_layout(tn_ctx *ctx, void *arg) {
  layout_job *job = arg;
  job->result = ir_layout_parse(ctx, job->text);
}

void ir_read_type(ir_lexer *l, const ir_env *env, ir_type *out) {
  *out = (ir_type){0};
  out->dtype = ir_lex_dtype(l);
  ir_lex_expect(l, "[");
  while (!ir_lex_at(l, "]")) {
    if (out->rank) ir_lex_expect(l, ",");
    if (out->rank == IR_MAX_RANK) ir_lex_fail(l, "a tensor has at most %d axes", IR_MAX_RANK);
    const char *at = l->at;
    ix e = ir_read_expr(l, env, TN_INDEX);
    int64_t v;
    if (ix_const_value(e, &v) && v < 0) ir_lex_fail_at(l, at, "an extent cannot be negative");
    out->shape[out->rank++] = e;
  }
  ir_lex_next(l);
  if (ir_lex_accept(l, "layout")) {
    const char *at = l->at;
    layout_job job = {ir_lex_string(l, "the layout as a string"), NULL};
    if (ir_protect(l->ctx, parse_layout, &job) != TN_OK) { /* says nothing of our place in the text */
      char message[500];
      snprintf(message, sizeof message, "%s", ir_error(l->ctx));
      ir_lex_fail_at(l, at, "%s", message);
    }
    out->layout = job.result;
    if (ir_layout_rank(out->layout, out->rank) < 0)
      ir_lex_fail_at(l, at, "this layout does not fit a tensor of %d axes", out->rank);
  }
}

void ir_put_type(ir_text *t, const ir_type *type, const ir_map *names) {
  ir_put(t, "%s[", ir_dtype_name(type->dtype));
  for (int i = 0; i < type->rank; i++) {
    if (i) ir_put(t, ", ");
    ir_put_expr(t, type->shape[i], names, TN_INDEX);
  }
  ir_put(t, "]");
  if (type->layout) {
    ir_put(t, " layout ");
    ir_put_string(t, type->layout->text);
  }
}
