/* expr.c — expressions: interning, and the constructors that simplify.
 *
 * Data expressions get only what is exact for every input (constants fold through
 * ir_eval_op, neutral elements vanish). Index expressions are mathematical integers
 * and go to a canonical form: see index.c. */
#include "ir/expr_internal.h"
#include "ir/interp.h"
#include <math.h>
#include <string.h>

const ir_opcode_info ix_info[IX_OPCODE_COUNT] = {
#define ROW(e, text, arity, result, traits) {text, arity, #result[0], traits},
#include "ir/scalar_ops.h"
#undef ROW
};

/* ---- interning ---- */

static bool same_node(ix a, ix b) { /* of one hash */
  return a->op == b->op && a->dtype == b->dtype && a->nargs == b->nargs && a->u.i == b->u.i &&
         memcmp(a->args, b->args, a->nargs * sizeof(ix)) == 0;
}

static uint64_t node_hash(const tn_ctx *ctx, ix e) {
  uint64_t h = ir_mix(((uint64_t)e->op << 8 | e->dtype) ^ ctx->seed[0], (uint64_t)e->u.i ^ ctx->seed[1]);
  for (int i = 0; i < e->nargs; i++) h = ir_mix(h ^ ctx->seed[0], e->args[i]->hash ^ ctx->seed[1]);
  return h;
}

static ix table_find(const tn_ctx *ctx, ix e) {
  for (; ctx; ctx = ctx->parent) {
    size_t mask = ctx->exprs_cap - 1;
    if (!ctx->exprs_cap) continue;
    for (size_t i = e->hash & mask; ctx->exprs[i].e; i = (i + 1) & mask)
      if (ctx->exprs[i].hash == e->hash && same_node(ctx->exprs[i].e, e)) return ctx->exprs[i].e;
  }
  return NULL;
}

static void place(ir_expr_entry *table, size_t cap, ir_expr_entry entry) {
  size_t i = entry.hash & (cap - 1);
  while (table[i].e) i = (i + 1) & (cap - 1);
  table[i] = entry;
}

static void table_put(tn_ctx *ctx, ix e) {
  if (ctx->exprs_n * 2 >= ctx->exprs_cap) {
    size_t cap = ctx->exprs_cap ? ctx->exprs_cap * 2 : 1024;
    ir_expr_entry *table = IR_NEW_ARRAY(ctx, ir_expr_entry, cap);
    for (size_t i = 0; i < ctx->exprs_cap; i++)
      if (ctx->exprs[i].e) place(table, cap, ctx->exprs[i]);
    ctx->exprs = table;
    ctx->exprs_cap = cap;
  }
  place(ctx->exprs, ctx->exprs_cap, (ir_expr_entry){e->hash, e});
  ctx->exprs_n++;
}

ix ix_intern(tn_ctx *ctx, ir_opcode op, tn_dtype t, int64_t imm, int nargs, const ix *args) {
  struct {
    struct tn_expr e;
    ix args[IX_MAX_ARGS];
  } probe;
  ir_assert(ctx, nargs <= IX_MAX_ARGS);
  memset(&probe.e, 0, sizeof probe.e);
  struct tn_expr *e = &probe.e;
  e->op = (uint8_t)op;
  e->dtype = (uint8_t)t;
  e->nargs = (uint8_t)nargs;
  e->u.i = imm;
  if (nargs) memcpy((void *)e->args, args, (size_t)nargs * sizeof(ix));
  e->hash = node_hash(ctx, e);
  ix found = table_find(ctx, e);
  if (found) return found;
  struct tn_expr *made = ir_alloc(ctx, sizeof *made + (size_t)nargs * sizeof(ix));
  memcpy((void *)made, e, sizeof *made + (size_t)nargs * sizeof(ix));
  made->id = ctx->next_id++;
  made->loads = op == IX_LOAD;
  made->divides = t == TN_INDEX && (op == IX_DIV || op == IX_REM);
  for (int i = 0; i < nargs; i++) {
    made->vars |= args[i]->vars;
    made->loads |= args[i]->loads;
    made->divides |= args[i]->divides;
  }
  if (op == IX_VAR) made->vars = 1ull << (made->u.var->id & 63);
  if (t == TN_INDEX) ix_set_range(made);
  else made->lo = INT64_MIN, made->hi = INT64_MAX;
  table_put(ctx, made);
  return made;
}

/* ---- variables and buffers ---- */

ir_var *ir_var_new(tn_ctx *ctx, const char *name, tn_dtype dtype, int64_t lo, int64_t hi) {
  ir_var *v = IR_NEW(ctx, ir_var);
  v->name = ir_intern(ctx, name);
  v->dtype = dtype;
  v->id = ctx->next_id++;
  v->lo = lo;
  v->hi = hi;
  v->expr = ix_intern(ctx, IX_VAR, dtype, (int64_t)(intptr_t)v, 0, NULL);
  return v;
}

ir_buf *ir_buf_new(tn_ctx *ctx, const char *name, tn_dtype dtype, int rank, const ix *shape,
                   const ir_layout *layout, ir_space space) {
  ir_assert(ctx, rank >= 0 && rank <= IR_MAX_RANK);
  ir_buf *b = IR_NEW(ctx, ir_buf);
  b->name = ir_intern(ctx, name);
  b->dtype = dtype;
  b->rank = rank;
  for (int i = 0; i < rank; i++) b->shape[i] = shape[i];
  b->layout = layout;
  b->space = space;
  b->access = IR_INOUT;
  b->id = ctx->next_id++;
  return b;
}

/* ---- constants ---- */

static int64_t wrap(tn_dtype t, int64_t v) {
  switch (t) {
  case TN_BOOL: return v != 0;
  case TN_I8: return (int8_t)v;
  case TN_I16: return (int16_t)v;
  case TN_I32: return (int32_t)v;
  case TN_U8: return (uint8_t)v;
  case TN_U16: return (uint16_t)v;
  case TN_U32: return (uint32_t)v;
  default: return v;
  }
}

ix ix_int(tn_ctx *ctx, tn_dtype t, int64_t v) {
  ir_assert(ctx, ir_is_int(t) || t == TN_BOOL);
  return ix_intern(ctx, IX_CONST, t, wrap(t, v), 0, NULL);
}

ix ix_float(tn_ctx *ctx, tn_dtype t, double v) {
  ir_assert(ctx, ir_is_float(t));
  v = isnan(v) && t != TN_F4E2M1 ? (double)NAN : ir_round_float(t, v); /* one NaN: payloads are not kept */
  int64_t bits;
  memcpy(&bits, &v, 8);
  return ix_intern(ctx, IX_CONST, t, bits, 0, NULL);
}

ix ix_num(tn_ctx *ctx, tn_dtype t, double v) {
  if (ir_is_float(t)) return ix_float(ctx, t, v);
  int64_t i = v >= 9223372036854775807.0 ? (t == TN_U64 && v < 18446744073709551615.0 ? (int64_t)(uint64_t)v
                                            : t == TN_U64 ? -1 : INT64_MAX)
              : v <= -9223372036854775808.0 ? INT64_MIN : (int64_t)v;
  return ix_int(ctx, t, i);
}
ix ix_index(tn_ctx *ctx, int64_t v) { return ix_intern(ctx, IX_CONST, TN_INDEX, v, 0, NULL); }
ix ix_bool(tn_ctx *ctx, bool v) { return ix_intern(ctx, IX_CONST, TN_BOOL, v, 0, NULL); }

bool ix_const_value(ix e, int64_t *out) {
  if (e->op != IX_CONST || ir_is_float((tn_dtype)e->dtype)) return false;
  *out = e->u.i;
  return true;
}

int64_t ix_need_const(tn_ctx *ctx, ix e, const char *what) {
  int64_t v;
  if (!ix_const_value(e, &v)) ir_fail(ctx, TN_EUNSUPPORTED, "needs a constant %s, got %s", what, ix_print(ctx, e));
  return v;
}

/* ---- general constructor ---- */

static ix fold_constants(tn_ctx *ctx, ir_opcode op, tn_dtype t, int nargs, const ix *args) {
  tn_dtype types[3];
  ir_scalar values[3];
  if (nargs < 1 || nargs > 3 || strchr(ix_info[op].traits, 'E')) return NULL;
  for (int i = 0; i < nargs; i++) {
    if (args[i]->op != IX_CONST) return NULL;
    types[i] = (tn_dtype)args[i]->dtype;
    values[i].i = args[i]->u.i;
  }
  if (op == IX_BITCAST && ir_is_float(t) != ir_is_float(types[0])) {
    /* NaN payloads are not kept in constants: leave such a bitcast alone. */
    if (ir_is_float(types[0]) && isnan(values[0].f)) return NULL;
  }
  ir_scalar r = ir_eval_op(ctx, op, t, nargs, types, values);
  if (op == IX_BITCAST && ir_is_float(t) && isnan(r.f)) return NULL;
  return ir_is_float(t) ? ix_float(ctx, t, r.f) : ix_int(ctx, t, r.i);
}

static bool is_num(ix e, double v) {
  if (e->op != IX_CONST) return false;
  return ir_is_float((tn_dtype)e->dtype) ? e->u.f == v && !signbit(e->u.f) : e->u.i == (int64_t)v;
}

/* Identities that hold for every value of a data dtype (and bool). */
static ix simplify_data(tn_ctx *ctx, ir_opcode op, tn_dtype t, const ix *a) {
  bool real = ir_is_float(t);
  switch (op) {
  case IX_ADD:
    if (!real && is_num(a[0], 0)) return a[1];
    if (!real && is_num(a[1], 0)) return a[0];
    if (real && a[1]->op == IX_CONST && a[1]->u.f == 0 && signbit(a[1]->u.f)) return a[0];
    break;
  case IX_SUB:
    if (is_num(a[1], 0)) return a[0];
    if (!real && a[0] == a[1]) return ix_int(ctx, t, 0);
    break;
  case IX_MUL:
    if (is_num(a[0], 1)) return a[1];
    if (is_num(a[1], 1)) return a[0];
    if (!real && (is_num(a[0], 0) || is_num(a[1], 0))) return ix_int(ctx, t, 0);
    break;
  case IX_DIV:
    if (is_num(a[1], 1)) return a[0];
    break;
  case IX_AND:
    if (a[0] == a[1]) return a[0];
    if (is_num(a[0], 0) || is_num(a[1], 0)) return ix_int(ctx, t, 0);
    if (t == TN_BOOL && is_num(a[0], 1)) return a[1];
    if (t == TN_BOOL && is_num(a[1], 1)) return a[0];
    break;
  case IX_OR:
    if (a[0] == a[1]) return a[0];
    if (is_num(a[0], 0)) return a[1];
    if (is_num(a[1], 0)) return a[0];
    if (t == TN_BOOL && (is_num(a[0], 1) || is_num(a[1], 1))) return ix_bool(ctx, true);
    break;
  case IX_NOT:
    if (a[0]->op == IX_NOT) return a[0]->args[0];
    if (t == TN_BOOL && a[0]->op == IX_LT && a[0]->args[0]->dtype == TN_INDEX) return ix_le(ctx, a[0]->args[1], a[0]->args[0]);
    break;
  case IX_MIN:
  case IX_MAX:
    if (a[0] == a[1]) return a[0];
    break;
  case IX_SHL:
  case IX_SHR:
    if (is_num(a[1], 0)) return a[0];
    break;
  case IX_SELECT: {
    int64_t c;
    if (ix_const_value(a[0], &c)) return c ? a[1] : a[2];
    if (a[1] == a[2]) return a[1];
    if (t == TN_BOOL && is_num(a[1], 1) && is_num(a[2], 0)) return a[0];
    break;
  }
  case IX_CAST:
    if (a[0]->dtype == t) return a[0];
    /* index and i64 hold the same values; a widening then the way back is nothing */
    if (a[0]->op == IX_CAST && t == (tn_dtype)a[0]->args[0]->dtype) {
      tn_dtype mid = (tn_dtype)a[0]->dtype;
      if (mid == TN_I64 && t == TN_INDEX) return a[0]->args[0];
      if (ir_is_int(t) && ir_is_int(mid) && ir_dtype_bits(mid) >= ir_dtype_bits(t) && mid != TN_INDEX && t != TN_INDEX) return a[0]->args[0];
      if (ir_is_float(t) && ir_is_float(mid) && ir_dtype_bits(mid) > ir_dtype_bits(t)) return a[0]->args[0];
      if (t == TN_BOOL) return a[0]->args[0];
    }
    break;
  case IX_BITCAST:
    if (a[0]->dtype == t) return a[0];
    if (a[0]->op == IX_BITCAST && a[0]->args[0]->dtype == t) return a[0]->args[0];
    break;
  default: break;
  }
  return NULL;
}

ix ix_make(tn_ctx *ctx, ir_opcode op, tn_dtype t, int nargs, const ix *args) {
  const ir_opcode_info *info = &ix_info[op];
  if (op == IX_CONST || op == IX_VAR || op == IX_LOAD) ir_bug(ctx, "ix_make cannot make %s", info->name);
  if (nargs != info->arity) ir_bug(ctx, "%s takes %d operands, not %d", info->name, info->arity, nargs);
  tn_dtype of = (tn_dtype)args[op == IX_SELECT ? 1 : 0]->dtype;
  for (int i = op == IX_SELECT ? 1 : 0; i < nargs; i++)
    if (args[i]->dtype != of)
      ir_bug(ctx, "%s: operands of dtype %s and %s", info->name, ir_dtype_name(of), ir_dtype_name((tn_dtype)args[i]->dtype));
  switch (info->result) {
  case 'S': t = of; break;
  case 'B': t = TN_BOOL; break;
  case 'F':
    if (!ir_is_float(of)) ir_bug(ctx, "%s of %s", info->name, ir_dtype_name(of));
    t = of;
    break;
  default:
    if (op == IX_SELECT) {
      if (args[0]->dtype != TN_BOOL) ir_bug(ctx, "select on %s", ir_dtype_name((tn_dtype)args[0]->dtype));
      t = of;
    }
    if (op == IX_BITCAST && (ir_dtype_bits(t) != ir_dtype_bits(of) || t == TN_INDEX || of == TN_INDEX || t == TN_BOOL || of == TN_BOOL))
      ir_bug(ctx, "bitcast of %s to %s", ir_dtype_name(of), ir_dtype_name(t));
  }
  if (t == TN_BOOL && of == TN_BOOL && (op == IX_ADD || op == IX_SUB || op == IX_MUL || op == IX_NEG || op == IX_ABS || op == IX_SHL || op == IX_SHR || op == IX_DIV || op == IX_REM))
    ir_bug(ctx, "%s of bool", info->name);
  ix r = NULL;
  if (of == TN_INDEX && op != IX_SELECT && op != IX_CAST) {
    r = ix_simplify_index(ctx, op, args);
    if (r) return r;
  }
  if ((r = simplify_data(ctx, op, t, args)) || (r = fold_constants(ctx, op, t, nargs, args))) return r;
  if (strchr(info->traits, 'C') && ix_compare(args[0], args[1]) > 0)
    return ix_intern(ctx, op, t, 0, 2, (ix[]){args[1], args[0]});
  return ix_intern(ctx, op, t, 0, nargs, args);
}

ix ix_load(tn_ctx *ctx, ir_buf *buf, const ix *index) {
  for (int i = 0; i < buf->rank; i++)
    if (index[i]->dtype != TN_INDEX)
      ir_bug(ctx, "load of %s: index %d has dtype %s", buf->name, i, ir_dtype_name((tn_dtype)index[i]->dtype));
  return ix_intern(ctx, IX_LOAD, buf->dtype, (int64_t)(intptr_t)buf, buf->rank, index);
}

ix ix_unary(tn_ctx *ctx, ir_opcode op, ix a) { return ix_make(ctx, op, (tn_dtype)a->dtype, 1, &a); }
ix ix_binary(tn_ctx *ctx, ir_opcode op, ix a, ix b) { return ix_make(ctx, op, (tn_dtype)a->dtype, 2, (ix[]){a, b}); }
ix ix_cast(tn_ctx *ctx, tn_dtype t, ix a) { return ix_make(ctx, IX_CAST, t, 1, &a); }
ix ix_bitcast(tn_ctx *ctx, tn_dtype t, ix a) { return ix_make(ctx, IX_BITCAST, t, 1, &a); }
ix ix_select(tn_ctx *ctx, ix cond, ix a, ix b) { return ix_make(ctx, IX_SELECT, TN_NONE, 3, (ix[]){cond, a, b}); }
ix ix_fma(tn_ctx *ctx, ix a, ix b, ix c) { return ix_make(ctx, IX_FMA, TN_NONE, 3, (ix[]){a, b, c}); }
ix ix_within(tn_ctx *ctx, ix a, ix lo, ix hi) { return ix_and(ctx, ix_le(ctx, lo, a), ix_lt(ctx, a, hi)); }
ix ix_ceil_div(tn_ctx *ctx, ix a, int64_t b) { return ix_divi(ctx, ix_addi(ctx, a, b - 1), b); }

/* ---- a total order that does not depend on creation: names, then structure ---- */

int ix_compare(ix a, ix b) {
  if (a == b) return 0;
  if (a->op != b->op) return a->op < b->op ? -1 : 1;
  if (a->dtype != b->dtype) return a->dtype < b->dtype ? -1 : 1;
  if (a->op == IX_VAR) {
    int c = strcmp(a->u.var->name, b->u.var->name);
    return c ? c : a->u.var->id < b->u.var->id ? -1 : 1;
  }
  if (a->op == IX_LOAD && a->u.buf != b->u.buf) {
    int c = strcmp(a->u.buf->name, b->u.buf->name);
    return c ? c : a->u.buf->id < b->u.buf->id ? -1 : 1;
  }
  if (a->op == IX_CONST) return a->u.i < b->u.i ? -1 : 1;
  if (a->nargs != b->nargs) return a->nargs < b->nargs ? -1 : 1;
  for (int i = 0; i < a->nargs; i++) {
    int c = ix_compare(a->args[i], b->args[i]);
    if (c) return c;
  }
  return a->id < b->id ? -1 : 1; /* not reached: equal structure is the same node */
}

/* ---- walks ---- */

typedef struct walk {
  tn_ctx *ctx;
  uint32_t *stamp, now;
  const void **value;
  bool own;
} walk;

static walk walk_begin(tn_ctx *ctx) {
  walk w = {.ctx = ctx};
  if (ctx->memo.busy) {
    w.own = true;
    w.stamp = IR_NEW_ARRAY(ctx, uint32_t, ctx->next_id);
    w.value = IR_NEW_ARRAY(ctx, const void *, ctx->next_id);
    w.now = 1;
    return w;
  }
  if (ctx->memo.cap < ctx->next_id) {
    size_t cap = ctx->memo.cap ? ctx->memo.cap : 1024;
    while (cap < ctx->next_id) cap *= 2;
    ctx->memo.stamp = IR_NEW_ARRAY(ctx, uint32_t, cap);
    ctx->memo.value = IR_NEW_ARRAY(ctx, const void *, cap);
    ctx->memo.cap = cap;
    ctx->memo.now = 0;
  }
  if (++ctx->memo.now == 0) {
    memset(ctx->memo.stamp, 0, ctx->memo.cap * sizeof *ctx->memo.stamp);
    ctx->memo.now = 1;
  }
  ctx->memo.busy = true;
  w.stamp = ctx->memo.stamp;
  w.value = ctx->memo.value;
  w.now = ctx->memo.now;
  return w;
}

static void walk_end(walk *w) {
  if (!w->own) w->ctx->memo.busy = false;
}

typedef struct subst {
  walk w;
  ix (*var)(void *user, ir_var *v);
  ix (*load)(void *user, ix load);
  void *user;
  uint64_t mask; /* variables that can be replaced, as in tn_expr.vars */
} subst;

static ix subst_visit(subst *s, ix e) {
  if ((e->vars & s->mask) == 0 && !s->load) return e;
  if (e->op == IX_CONST) return e;
  if (e->op == IX_VAR) {
    ix by = s->var ? s->var(s->user, e->u.var) : NULL;
    return by ? by : e;
  }
  if (s->w.stamp[e->id] == s->w.now) return s->w.value[e->id];
  tn_ctx *ctx = s->w.ctx;
  ix args[IX_MAX_ARGS], r = e;
  bool changed = false;
  for (int i = 0; i < e->nargs; i++) {
    args[i] = subst_visit(s, e->args[i]);
    changed |= args[i] != e->args[i];
  }
  if (changed)
    r = e->op == IX_LOAD ? ix_load(ctx, e->u.buf, args) : ix_make(ctx, (ir_opcode)e->op, (tn_dtype)e->dtype, e->nargs, args);
  if (s->load && r->op == IX_LOAD && e->op == IX_LOAD) {
    ix by = s->load(s->user, r);
    if (by) r = by;
  }
  s->w.stamp[e->id] = s->w.now;
  s->w.value[e->id] = r;
  return r;
}

static ix subst_run(tn_ctx *ctx, ix e, subst s) {
  if ((e->vars & s.mask) == 0 && !s.load) return e;
  s.w = walk_begin(ctx);
  ix r = subst_visit(&s, e);
  walk_end(&s.w);
  return r;
}

ix ix_subst(tn_ctx *ctx, ix e, ix (*map)(void *user, ir_var *v), void *user) {
  return subst_run(ctx, e, (subst){.var = map, .user = user, .mask = ~0ull});
}
ix ix_subst_loads(tn_ctx *ctx, ix e, ix (*map)(void *user, ix load), void *user) {
  return subst_run(ctx, e, (subst){.load = map, .user = user, .mask = ~0ull});
}

typedef struct one_var {
  const ir_var *v;
  ix by;
} one_var;
static ix map_one(void *user, ir_var *v) { return v == ((one_var *)user)->v ? ((one_var *)user)->by : NULL; }
ix ix_subst1(tn_ctx *ctx, ix e, const ir_var *v, ix by) {
  return subst_run(ctx, e, (subst){.var = map_one, .user = &(one_var){v, by}, .mask = 1ull << (v->id & 63)});
}

bool ix_uses_var(ix e, const ir_var *v) {
  if ((e->vars & 1ull << (v->id & 63)) == 0) return false;
  if (e->op == IX_VAR) return e->u.var == v;
  for (int i = 0; i < e->nargs; i++)
    if (ix_uses_var(e->args[i], v)) return true;
  return false;
}

bool ix_uses_buf(ix e, const ir_buf *b) {
  if (!e->loads) return false;
  if (e->op == IX_LOAD && e->u.buf == b) return true;
  for (int i = 0; i < e->nargs; i++)
    if (ix_uses_buf(e->args[i], b)) return true;
  return false;
}

static void walk_visit(walk *w, ix e, void (*fn)(void *user, ix e), void *user) {
  if (w->stamp[e->id] == w->now) return;
  w->stamp[e->id] = w->now;
  for (int i = 0; i < e->nargs; i++) walk_visit(w, e->args[i], fn, user);
  fn(user, e);
}

void ix_walk(tn_ctx *ctx, ix e, void (*fn)(void *user, ix e), void *user) {
  walk w = walk_begin(ctx);
  walk_visit(&w, e, fn, user);
  walk_end(&w);
}
