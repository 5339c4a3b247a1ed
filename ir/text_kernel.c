/* text_kernel.c — kernels as text, and back; the canonical text that keys caches.
 *
 * The grammar stands in ir/ir.h. A block's `let` and `alloc` reach to its end; where
 * a scope ends earlier, it is printed as a block of its own in braces. */
#include "ir/text.h"
#include <stdio.h>
#include <string.h>

enum { MAX_OPEN_LETS = 5000 }; /* lets and allocs in scope at once: later passes recurse over them */

static const char *const loop_names[] = {"serial", "parallel", "vector", "unroll", "pipeline",
                                         "grid", "cluster", "warpgroup", "warp", "lane"};
static const char *const store_names[] = {"=", "+=", "*=", "max=", "min=", "|=", "&="};
static const char *const space_names[] = {"global", "local", "register", "shared"};
static const char *const access_names[] = {"", "in", "out", "inout", "const"}; /* const: in, constant */

void ir_loop_range(ix lo, ix hi, int64_t *var_lo, int64_t *var_hi) {
  *var_lo = lo->lo;
  *var_hi = hi->hi == INT64_MAX || hi->hi == INT64_MIN ? INT64_MAX : hi->hi - 1;
  if (*var_hi < *var_lo) *var_hi = *var_lo; /* never entered, or only when bounds allow: proves nothing wrong */
}

/* ============================================================ reading ==== */

typedef struct symbol {
  const char *name;
  ir_var *var; /* one of the two */
  ir_buf *buf;
  bool open;   /* in scope */
} symbol;

typedef struct item {
  const ir_stmt *stmt; /* null: a let or an alloc, whose scope is what follows */
  ir_var *var;
  ix value;
  ir_buf *buf;
} item;

typedef struct reader {
  ir_lexer *l;
  tn_ctx *ctx;
  ir_env env;
  ir_map vars, bufs; /* by name, to symbol; names are used once in a kernel */
  symbol **open;     /* in order of their declaration */
  int nopen, open_cap, nlets;
} reader;

static ir_var *find_var(void *user, const char *name) {
  symbol *s = ir_map_get(&((reader *)user)->vars, name);
  return s && s->open ? s->var : NULL;
}

static ir_buf *find_buf(void *user, const char *name) {
  symbol *s = ir_map_get(&((reader *)user)->bufs, name);
  return s && s->open ? s->buf : NULL;
}

static void declare(reader *r, const char *at, const char *name, ir_var *var, ir_buf *buf) {
  ir_map *m = var ? &r->vars : &r->bufs;
  if (ir_map_get(m, name))
    ir_lex_fail_at(r->l, at, "the name '%.100s' is used twice in this kernel", name);
  symbol *s = IR_NEW(r->ctx, symbol);
  *s = (symbol){name, var, buf, true};
  ir_map_set(m, name, s);
  if (r->nopen == r->open_cap) {
    int cap = r->open_cap ? 2 * r->open_cap : 16;
    r->open = ir_grow(r->ctx, r->open, (size_t)r->open_cap, (size_t)cap, sizeof *r->open);
    r->open_cap = cap;
  }
  r->open[r->nopen++] = s;
}

static void close_to(reader *r, int n) {
  while (r->nopen > n) r->open[--r->nopen]->open = false;
}

static const ir_stmt *read_block(reader *r);

static ir_buf *make_buf(reader *r, const char *name, const ir_type *t, ir_space space) {
  return ir_buf_new(r->ctx, name, t->dtype, t->rank, t->shape, t->layout, space);
}

static const ir_stmt *read_for(reader *r) {
  ir_lexer *l = r->l;
  const char *at = l->at, *name = ir_lex_name(l, "the name of the loop");
  int64_t min, max, said_min = 0, said_max = 0;
  bool said = ir_lex_at(l, "[");
  if (said) ir_read_range(l, &said_min, &said_max);
  ir_lex_expect(l, "in");
  ix lo = ir_read_expr(l, &r->env, TN_INDEX);
  ir_lex_expect(l, "..");
  ix hi = ir_read_expr(l, &r->env, TN_INDEX);
  ir_loop_range(lo, hi, &min, &max);
  if (said) min = said_min, max = said_max;
  int kind = IR_SERIAL, stages = 0;
  if (l->token == IR_T_NAME && !ir_lex_at(l, "independent")) {
    for (kind = 0; kind < IR_COUNT(loop_names) && strcmp(l->word, loop_names[kind]) != 0;) kind++;
    if (kind == IR_COUNT(loop_names)) ir_lex_expected(l, "a kind of loop or '{'");
    ir_lex_next(l);
    if (kind == IR_PIPELINE) {
      ir_lex_expect(l, "(");
      int64_t n = ir_lex_int(l, "the number of stages");
      if (n < 1 || n > 64) ir_lex_fail(l, "a pipeline has 1 to 64 stages");
      stages = (int)n;
      ir_lex_expect(l, ")");
    }
  }
  ir_var *v = ir_var_new(r->ctx, name, TN_INDEX, min, max);
  v->independent = ir_lex_accept(l, "independent");
  int mark = r->nopen;
  declare(r, at, name, v, NULL);
  const ir_stmt *body = read_block(r);
  close_to(r, mark);
  const ir_stmt *s = ir_for(r->ctx, v, lo, hi, (ir_loop_kind)kind, body);
  if (stages == 0 || !s) return s;
  ir_stmt *copy = IR_NEW(r->ctx, ir_stmt);
  *copy = *s;
  copy->stages = stages;
  return copy;
}

static const ir_stmt *read_if(reader *r) {
  ir_lexer *l = r->l;
  ir_lex_enter(l);
  ix cond = ir_read_expr(l, &r->env, TN_BOOL);
  const ir_stmt *then = read_block(r), *other = NULL;
  if (ir_lex_accept(l, "else")) other = ir_lex_accept(l, "if") ? read_if(r) : read_block(r);
  ir_lex_leave(l);
  return ir_if(r->ctx, cond, then, other);
}

static const ir_stmt *read_store(reader *r) {
  ir_lexer *l = r->l;
  const char *at = l->at, *name = ir_lex_name(l, "a statement");
  if (!ir_lex_at(l, "[")) ir_lex_fail_at(l, at, "'%.100s' does not begin a statement", name);
  ir_buf *b = find_buf(r, name);
  if (!b) ir_lex_fail_at(l, at, "there is no buffer '%.100s' here", name);
  ir_lex_next(l);
  ix index[IR_MAX_RANK];
  int n = 0;
  while (!ir_lex_at(l, "]")) {
    if (n) ir_lex_expect(l, ",");
    if (n == b->rank) ir_lex_fail(l, "'%s' has only %d axes", name, b->rank);
    index[n++] = ir_read_expr(l, &r->env, TN_INDEX);
  }
  if (n < b->rank) ir_lex_fail(l, "'%s' has %d axes, only %d are given", name, b->rank, n);
  ir_lex_next(l);
  int op = IR_SET;
  if (ir_lex_at(l, "max") || ir_lex_at(l, "min")) {
    op = ir_lex_at(l, "max") ? IR_MAX : IR_MIN;
    ir_lex_next(l);
    ir_lex_expect(l, "=");
  } else {
    for (op = 0; op < IR_COUNT(store_names) && !ir_lex_at(l, store_names[op]);) op++;
    if (op == IR_COUNT(store_names)) ir_lex_expected(l, "'=' or another store");
    bool bits = op == IR_OR || op == IR_AND, sum = op == IR_ADD || op == IR_MUL;
    if ((bits && ir_is_float(b->dtype)) || (sum && b->dtype == TN_BOOL))
      ir_lex_fail(l, "'%s' does not work on %s", store_names[op], ir_dtype_name(b->dtype));
    ir_lex_next(l);
  }
  return ir_store(r->ctx, b, index, (ir_store_op)op, ir_read_expr(l, &r->env, b->dtype));
}

static item read_let(reader *r) {
  ir_lexer *l = r->l;
  const char *at = l->at, *name = ir_lex_name(l, "the name of the variable");
  tn_dtype t = TN_NONE;
  int64_t lo = INT64_MIN, hi = INT64_MAX;
  bool range = false;
  if (ir_lex_accept(l, ":")) {
    t = ir_lex_dtype(l);
    range = t == TN_INDEX && ir_lex_at(l, "[");
    if (range) ir_read_range(l, &lo, &hi);
  }
  ir_lex_expect(l, "=");
  ix value = ir_read_expr(l, &r->env, t);
  if (value->dtype == TN_INDEX && !range) lo = value->lo, hi = value->hi;
  ir_var *v = ir_var_new(r->ctx, name, (tn_dtype)value->dtype, lo, hi);
  declare(r, at, name, v, NULL);
  return (item){.var = v, .value = value};
}

static item read_alloc(reader *r) {
  ir_lexer *l = r->l;
  const char *at = l->at, *name = ir_lex_name(l, "the name of the buffer");
  ir_lex_expect(l, ":");
  ir_type t;
  ir_read_type(l, &r->env, &t);
  int space = IR_LOCAL;
  while (space < IR_COUNT(space_names) && !ir_lex_at(l, space_names[space])) space++;
  if (space == IR_COUNT(space_names)) ir_lex_expected(l, "local, register or shared");
  ir_lex_next(l);
  ir_buf *b = make_buf(r, name, &t, (ir_space)space);
  declare(r, at, name, NULL, b);
  return (item){.buf = b};
}

static item read_stmt(reader *r) {
  ir_lexer *l = r->l;
  tn_ctx *ctx = r->ctx;
  if (ir_lex_at(l, "{")) return (item){.stmt = read_block(r)};
  if (ir_lex_accept(l, "for")) return (item){.stmt = read_for(r)};
  if (ir_lex_accept(l, "if")) return (item){.stmt = read_if(r)};
  if (ir_lex_accept(l, "while")) {
    ix cond = ir_read_expr(l, &r->env, TN_BOOL);
    return (item){.stmt = ir_while(ctx, cond, read_block(r))};
  }
  if (ir_lex_accept(l, "tile")) {
    const char *atom = ir_lex_name(l, "the name of the atom");
    return (item){.stmt = ir_tile(ctx, atom, read_block(r))};
  }
  if (ir_lex_at(l, "let") || ir_lex_at(l, "alloc")) {
    if (++r->nlets > MAX_OPEN_LETS) ir_lex_fail(l, "more than %d lets and allocs in scope", MAX_OPEN_LETS);
    if (ir_lex_accept(l, "let")) return read_let(r);
    ir_lex_next(l);
    return read_alloc(r);
  }
  return (item){.stmt = read_store(r)};
}

/* items[0..n) as one statement: from the end, so that a let holds what follows it. */
static const ir_stmt *fold(reader *r, const item *items, int n) {
  const ir_stmt **run = IR_NEW_ARRAY(r->ctx, const ir_stmt *, n + 1);
  const ir_stmt *rest = NULL;
  int end = n;
  for (int i = n - 1; i >= -1; i--) {
    bool scope = i >= 0 && (items[i].var || items[i].buf);
    if (i >= 0 && !scope) continue;
    int count = 0;
    for (int j = i + 1; j < end; j++) run[count++] = items[j].stmt;
    run[count++] = rest;
    rest = ir_seq(r->ctx, count, run);
    if (i < 0) break;
    rest = items[i].var ? ir_let(r->ctx, items[i].var, items[i].value, rest) : ir_alloc_stmt(r->ctx, items[i].buf, rest);
    end = i;
  }
  return rest;
}

static const ir_stmt *read_block(reader *r) {
  ir_lexer *l = r->l;
  int mark = r->nopen, lets = r->nlets;
  ir_lex_expect(l, "{");
  ir_lex_enter(l);
  item *items = NULL;
  int n = 0;
  while (!ir_lex_at(l, "}")) {
    if (l->token == IR_T_END) ir_lex_expected(l, "a statement or '}'");
    item it = read_stmt(r);
    if (it.stmt || it.var || it.buf) IR_PUSH(r->ctx, items, n, it);
  }
  ir_lex_next(l);
  ir_lex_leave(l);
  close_to(r, mark);
  r->nlets = lets;
  return fold(r, items, n);
}

static void read_param(reader *r, ir_kernel *k) {
  ir_lexer *l = r->l;
  if (ir_lex_accept(l, "dim")) {
    const char *at = l->at, *name = ir_lex_name(l, "the name of the dimension");
    int64_t lo = 0, hi = INT64_MAX;
    if (ir_lex_at(l, "[")) ir_read_range(l, &lo, &hi);
    ir_var *v = ir_var_new(r->ctx, name, TN_INDEX, lo, hi);
    declare(r, at, name, v, NULL);
    IR_PUSH(r->ctx, k->dims, k->ndims, v);
    return;
  }
  int access = IR_IN;
  while (access < IR_COUNT(access_names) && !ir_lex_at(l, access_names[access])) access++;
  if (access == IR_COUNT(access_names)) ir_lex_expected(l, "in, out, inout, const or dim");
  ir_lex_next(l);
  const char *at = l->at, *name = ir_lex_name(l, "the name of the parameter");
  ir_lex_expect(l, ":");
  ir_type t;
  ir_read_type(l, &r->env, &t);
  ir_buf *b = make_buf(r, name, &t, IR_GLOBAL);
  b->constant = access == IR_INOUT + 1;
  b->access = b->constant ? IR_IN : (ir_access)access;
  declare(r, at, name, NULL, b);
  IR_PUSH(r->ctx, k->bufs, k->nbufs, b);
}

ir_kernel *ir_read_kernel(ir_lexer *l) {
  reader r = {.l = l, .ctx = l->ctx, .vars = {.ctx = l->ctx}, .bufs = {.ctx = l->ctx}};
  r.env = (ir_env){&r, find_var, find_buf};
  ir_lex_expect(l, "kernel");
  ir_kernel *k = IR_NEW(l->ctx, ir_kernel);
  k->name = ir_lex_name(l, "the name of the kernel");
  ir_lex_expect(l, "(");
  while (!ir_lex_at(l, ")")) {
    if (k->nbufs + k->ndims) ir_lex_expect(l, ",");
    read_param(&r, k);
  }
  ir_lex_next(l);
  k->body = read_block(&r);
  return k;
}

static void parse_kernel(ir_lexer *l, void *arg) {
  *(ir_kernel **)arg = ir_read_kernel(l);
  if (l->token != IR_T_END) ir_lex_expected(l, "the end of the text");
}

ir_kernel *ir_kernel_parse(tn_ctx *ctx, const char *text, const char *file) {
  ir_lexer l;
  ir_kernel *k = NULL;
  ir_lex_start(&l, ctx, text, file, false);
  ir_lex_run(&l, parse_kernel, &k);
  return k;
}

/* ============================================================ writing ==== */

/* Printed names: those of the kernel, made different where they are not; or, for the
 * canonical text, numbers in order of appearance. */
typedef struct namer {
  tn_ctx *ctx;
  ir_map names; /* ir_var*, ir_buf* to the name */
  ir_map vars, bufs; /* names taken */
  bool canonical;
  int count[3];
  ir_named *list; /* what was named, in this order */
  int n;
} namer;

static void name_it(namer *n, const void *key, const char *own, int kind) {
  if (ir_map_get(&n->names, key)) return;
  ir_map *taken = kind == 'b' ? &n->bufs : &n->vars;
  const char *name = ir_intern(n->ctx, own ? own : "v");
  if (n->canonical) name = ir_format(n->ctx, "%c%d", kind, n->count[kind == 'b' ? 0 : kind == 'd' ? 1 : 2]++);
  else
    for (int i = 1; ir_map_get(taken, name); i++) name = ir_intern(n->ctx, ir_format(n->ctx, "%s.%d", own ? own : "v", i));
  ir_map_set(taken, name, (void *)(uintptr_t)1);
  ir_map_set(&n->names, key, (void *)(uintptr_t)name);
  ir_named both = {own ? own : "v", name, kind == 'b'};
  IR_PUSH(n->ctx, n->list, n->n, both);
}

static void name_stmt(namer *n, const ir_stmt *s) {
  for (; s; s = s->body) {
    if (s->kind == IR_FOR || s->kind == IR_LET) name_it(n, s->var, s->var->name, 'v');
    if (s->kind == IR_ALLOC) name_it(n, s->buf, s->buf->name, 'b');
    for (int i = 0; i < s->n; i++) name_stmt(n, s->items[i]);
    if (s->kind == IR_IF) {
      name_stmt(n, s->body);
      s = s->other;
      if (!s) return;
      name_stmt(n, s);
      return;
    }
  }
}

typedef struct writer {
  ir_text *t;
  const ir_map *names;
} writer;

static void put_expr(writer *w, ix e, tn_dtype want) { ir_put_expr(w->t, e, w->names, want); }

static void put_symbol(writer *w, const void *key, const char *own) {
  const char *name = ir_map_get(w->names, key);
  ir_put_name(w->t, name ? name : own ? own : "v");
}

static void put_buf_type(writer *w, const ir_buf *b) {
  ir_type t = {.dtype = b->dtype, .rank = b->rank, .layout = b->layout};
  memcpy(t.shape, b->shape, sizeof t.shape);
  ir_put_type(w->t, &t, w->names);
}

static void put_stmts(writer *w, const ir_stmt *s, int depth);

/* " {" statements "}" without the line end. */
static void put_block(writer *w, const ir_stmt *s, int depth) {
  ir_put(w->t, "{\n");
  put_stmts(w, s, depth + 1);
  ir_put_indent(w->t, depth);
  ir_put(w->t, "}");
}

static void put_for(writer *w, const ir_stmt *s, int depth) {
  ir_text *t = w->t;
  int64_t lo, hi;
  ir_put(t, "for ");
  put_symbol(w, s->var, s->var->name);
  ir_loop_range(s->lo, s->hi, &lo, &hi);
  if (lo != s->var->lo || hi != s->var->hi) ir_put(t, " [%lld, %lld]", (long long)s->var->lo, (long long)s->var->hi);
  ir_put(t, " in ");
  put_expr(w, s->lo, TN_INDEX);
  ir_put(t, " .. ");
  put_expr(w, s->hi, TN_INDEX);
  ir_put(t, " ");
  if (s->loop == IR_PIPELINE) ir_put(t, "pipeline(%d) ", s->stages > 0 ? s->stages : 1);
  else if (s->loop != IR_SERIAL) ir_put(t, "%s ", loop_names[s->loop]);
  if (s->var->independent) ir_put(t, "independent ");
  put_block(w, s->body, depth);
}

static void put_if(writer *w, const ir_stmt *s, int depth) {
  for (;;) {
    ir_put(w->t, "if ");
    put_expr(w, s->value, TN_BOOL);
    ir_put(w->t, " ");
    put_block(w, s->body, depth);
    if (!s->other) return;
    ir_put(w->t, " else ");
    if (s->other->kind != IR_IF) {
      put_block(w, s->other, depth);
      return;
    }
    s = s->other;
  }
}

static void put_one(writer *w, const ir_stmt *s, int depth) {
  ir_text *t = w->t;
  ir_put_indent(t, depth);
  switch (s->kind) {
  case IR_FOR: put_for(w, s, depth); break;
  case IR_IF: put_if(w, s, depth); break;
  case IR_WHILE:
    ir_put(t, "while ");
    put_expr(w, s->value, TN_BOOL);
    ir_put(t, " ");
    put_block(w, s->body, depth);
    break;
  case IR_TILE:
    ir_put(t, "tile ");
    ir_put_name(t, s->atom);
    ir_put(t, " ");
    put_block(w, s->body, depth);
    break;
  case IR_LET:
    ir_put(t, "let ");
    put_symbol(w, s->var, s->var->name);
    if (s->var->dtype == TN_INDEX && (s->var->lo != s->value->lo || s->var->hi != s->value->hi))
      ir_put(t, ": index[%lld, %lld]", (long long)s->var->lo, (long long)s->var->hi);
    ir_put(t, " = ");
    put_expr(w, s->value, TN_NONE);
    break;
  case IR_ALLOC:
    ir_put(t, "alloc ");
    put_symbol(w, s->buf, s->buf->name);
    ir_put(t, ": ");
    put_buf_type(w, s->buf);
    ir_put(t, " %s", space_names[s->buf->space]);
    break;
  case IR_STORE:
    put_symbol(w, s->buf, s->buf->name);
    ir_put(t, "[");
    for (int i = 0; i < s->buf->rank; i++) {
      if (i) ir_put(t, ", ");
      put_expr(w, s->index[i], TN_INDEX);
    }
    ir_put(t, "] %s ", store_names[s->op]);
    put_expr(w, s->value, s->buf->dtype);
    break;
  case IR_SEQ: break;
  }
  ir_put(t, "\n");
}

static void put_stmts(writer *w, const ir_stmt *s, int depth) {
  while (s) {
    if (s->kind == IR_SEQ) {
      for (int i = 0; i < s->n - 1; i++) {
        const ir_stmt *item = s->items[i];
        if (item->kind != IR_LET && item->kind != IR_ALLOC && item->kind != IR_SEQ) {
          put_one(w, item, depth);
          continue;
        }
        ir_put_indent(w->t, depth); /* its scope ends before the block does */
        put_block(w, item, depth);
        ir_put(w->t, "\n");
      }
      s = s->n ? s->items[s->n - 1] : NULL;
      continue;
    }
    put_one(w, s, depth);
    s = s->kind == IR_LET || s->kind == IR_ALLOC ? s->body : NULL;
  }
}

static namer name_kernel(tn_ctx *ctx, const ir_kernel *k, bool canonical) {
  namer n = {.ctx = ctx, .names = {.ctx = ctx}, .vars = {.ctx = ctx}, .bufs = {.ctx = ctx}, .canonical = canonical};
  for (int i = 0; i < k->ndims; i++) name_it(&n, k->dims[i], k->dims[i]->name, 'd');
  for (int i = 0; i < k->nbufs; i++) name_it(&n, k->bufs[i], k->bufs[i]->name, 'b');
  name_stmt(&n, k->body);
  return n;
}

const ir_named *ir_kernel_names(tn_ctx *ctx, const ir_kernel *k, int *n) {
  namer all = name_kernel(ctx, k, true);
  *n = all.n;
  return all.list;
}

static void put_kernel(ir_text *t, const ir_kernel *k, int depth, bool canonical) {
  namer n = name_kernel(t->ctx, k, canonical);
  writer w = {t, &n.names};
  ir_put_indent(t, depth);
  ir_put(t, "kernel ");
  ir_put_name(t, canonical ? "k" : k->name ? k->name : "kernel");
  ir_put(t, "(");
  for (int i = 0; i < k->ndims; i++) { /* first: shapes speak of them */
    const ir_var *v = k->dims[i];
    ir_put(t, i ? ", dim " : "dim ");
    put_symbol(&w, v, v->name);
    if (v->lo != 0 || v->hi != INT64_MAX) ir_put(t, " [%lld, %lld]", (long long)v->lo, (long long)v->hi);
  }
  for (int i = 0; i < k->nbufs; i++) {
    const ir_buf *b = k->bufs[i];
    if (i || k->ndims) ir_put(t, ",");
    if (k->nbufs > 2) {
      ir_put(t, "\n");
      ir_put_indent(t, depth + 2);
    } else if (i || k->ndims) {
      ir_put(t, " ");
    }
    ir_put(t, "%s ", b->constant ? "const" : access_names[b->access & 3 ? b->access & 3 : IR_INOUT]);
    put_symbol(&w, b, b->name);
    ir_put(t, ": ");
    put_buf_type(&w, b);
  }
  ir_put(t, ") ");
  put_block(&w, k->body, depth);
  ir_put(t, "\n");
}

void ir_put_kernel(ir_text *t, const ir_kernel *k, int depth) { put_kernel(t, k, depth, false); }

const char *ir_kernel_print(tn_ctx *ctx, const ir_kernel *k) {
  ir_text t = {.ctx = ctx};
  put_kernel(&t, k, 0, false);
  return ir_text_str(&t);
}

typedef struct canonical_job {
  const char *text;
  const char *result;
} canonical_job;

static void recanonise(tn_ctx *ctx, void *arg) {
  canonical_job *job = arg;
  job->result = ir_kernel_unnamed(ctx, ir_kernel_parse(ctx, job->text, "canonical"));
}

static void drop_scratch(void *arg) { tn_ctx_free(*(tn_ctx **)arg); }

const char *ir_kernel_unnamed(tn_ctx *ctx, const ir_kernel *k) {
  ir_text t = {.ctx = ctx};
  put_kernel(&t, k, 0, true);
  return ir_text_str(&t);
}

/* Operands of sums are ordered by names: only when the kernel is made again under the
 * canonical names does the order depend on them alone. */
const char *ir_kernel_canonical(tn_ctx *ctx, const ir_kernel *k) {
  canonical_job job = {ir_kernel_unnamed(ctx, k), NULL};
  tn_ctx **scratch = IR_NEW(ctx, tn_ctx *);
  ir_defer(ctx, drop_scratch, scratch);
  *scratch = ir_ctx_child(ctx);
  tn_status s = *scratch ? ir_protect(*scratch, recanonise, &job) : TN_ERESOURCE;
  if (s == TN_ERESOURCE) ir_fail(ctx, s, "%s", *scratch ? ir_error(*scratch) : "out of memory");
  /* a kernel that cannot be read back (a variable from nowhere) keeps its first text */
  const char *text = s == TN_OK ? ir_strdup(ctx, job.result) : job.text;
  ir_undefer(ctx, drop_scratch, scratch);
  drop_scratch(scratch);
  return text;
}
