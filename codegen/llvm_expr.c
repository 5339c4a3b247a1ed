/* llvm_expr.c — expressions to values: levels, the cache, guards.
 *
 * An expression is emitted at the lowest level at which its operands exist and
 * remembered there. A remembered value is good until a buffer it was loaded from is
 * stored to, or a let it depends on is bound anew; both are seen by clocks. */
#include "codegen/llvm.h"
#include <string.h>

/* ---- where code grows ---- */

void cg_at(cg_fn *f, int level) {
  if (level >= f->depth) LLVMPositionBuilderAtEnd(f->b, f->regions[f->depth].block);
  else LLVMPositionBuilderBefore(f->b, f->regions[level].term);
}

void cg_open(cg_fn *f, LLVMValueRef term, LLVMBasicBlockRef block, bool sure) {
  if (f->depth + 1 >= f->regions_cap) {
    f->regions = ir_grow(f->ctx, f->regions, (size_t)f->regions_cap, 2 * (size_t)f->regions_cap, sizeof *f->regions);
    f->regions_cap *= 2;
  }
  f->regions[f->depth].term = term;
  int safe = f->regions[f->depth].safe;
  f->depth++;
  f->regions[f->depth] = (cg_region){.block = block, .safe = sure ? safe : f->depth};
  cg_at(f, f->depth);
}

/* Vector registers of a value; scalars of x86 live there too when they are floats. */
static int registers_of(cg_fn *f, LLVMTypeRef t) {
  int lanes = 1;
  if (LLVMGetTypeKind(t) == LLVMVectorTypeKind) {
    lanes = (int)LLVMGetVectorSize(t);
    t = LLVMGetElementType(t);
  } else if (t != f->f32 && t != f->f64) return 0;
  int bits = t == f->f64 || t == f->i64 ? 64 : t == f->f32 || t == f->i32 ? 32 : t == f->i16 ? 16 : t == f->i8 ? 8 : 0;
  return (lanes * bits + f->t->vector_bits - 1) / f->t->vector_bits;
}

int cg_hold(cg_fn *f, int level, LLVMTypeRef t) {
  int n = registers_of(f, t), held = n;
  if (level >= f->depth || n == 0) return level;
  for (int i = 0; i < f->depth; i++) held += f->regions[i].held;
  for (int i = 0; i < f->plan->nbufs; i++) {
    const cg_buf *b = f->plan->bufs[i];
    if (b->where == CG_SSA && b->alive)
      held += b->nslots * registers_of(f, cg_type(f, b->buf->dtype, b->lanes > 1 ? b->lanes : b->group));
  }
  if (held > f->t->vector_regs - 3) return f->depth;
  f->regions[level].held += n;
  return level;
}

static size_t bucket_of(const cg_fn *f, ix e, int kind) {
  return (size_t)((e->hash + (uint64_t)kind * 0x9e3779b97f4a7c15u) >> 7) & (f->buckets_n - 1);
}

void cg_close(cg_fn *f) {
  for (cg_entry *e = f->regions[f->depth].entries; e; e = e->next_here) {
    cg_entry **at = &f->buckets[bucket_of(f, e->e, e->kind)];
    while (*at != e) at = &(*at)->next;
    *at = e->next;
  }
  f->depth--;
  f->regions[f->depth].term = NULL;
}

/* ---- the cache ---- */

void cg_join(cg_val *to, const cg_val *from) {
  if (from->level > to->level) to->level = from->level;
  to->varying |= from->varying;
  to->guarded |= from->guarded;
  to->bufs |= from->bufs;
  to->binds |= from->binds;
}

static bool fresh(const cg_fn *f, const cg_entry *e) {
  for (uint64_t m = e->val.bufs; m; m &= m - 1)
    if (e->stamp < f->buf_clock[__builtin_ctzll(m)]) return false;
  for (uint64_t m = e->val.binds; m; m &= m - 1)
    if (e->stamp < f->bind_clock[__builtin_ctzll(m)]) return false;
  return true;
}

bool cg_cached(cg_fn *f, ix e, int kind, cg_val *out) {
  ix guard = f->guard ? f->guard->key : NULL;
  for (cg_entry *n = f->buckets[bucket_of(f, e, kind)]; n; n = n->next)
    if (n->e == e && n->kind == kind && (!n->guard || n->guard == guard) && fresh(f, n)) {
      *out = n->val;
      return true;
    }
  return false;
}

/* A value computed under a wider guard than the current one: good here too. Loads are not taken, and
 * neither are their casts: under their own guard they are zero where it is off (zero_when_off). Without
 * this, selects within arms of selects would emit what they share once for each way to it. */
static bool cached_outside(cg_fn *f, ix e, cg_val *out) {
  if (!f->guard || e->op == IX_LOAD || e->op == IX_CAST) return false;
  for (cg_entry *n = f->buckets[bucket_of(f, e, CG_VALUE)]; n; n = n->next)
    if (n->e == e && n->kind == CG_VALUE && n->guard && fresh(f, n))
      for (const cg_guard *g = f->guard->outer; g; g = g->outer)
        if (n->guard == g->key) {
          *out = n->val;
          return true;
        }
  return false;
}

void cg_cache(cg_fn *f, ix e, int kind, cg_val v) {
  cg_entry *n = IR_NEW(f->ctx, cg_entry);
  size_t i = bucket_of(f, e, kind);
  n->e = e;
  n->kind = kind;
  n->guard = v.guarded && f->guard ? f->guard->key : NULL;
  n->stamp = f->clock;
  n->val = v;
  n->next = f->buckets[i];
  f->buckets[i] = n;
  n->next_here = f->regions[v.level].entries;
  f->regions[v.level].entries = n;
}

/* ---- variables and buffers ---- */

cg_binding *cg_find_var(cg_fn *f, const ir_var *v) {
  for (int i = 0; i < f->nvars; i++)
    if (f->vars[i].var == v) return &f->vars[i];
  return NULL;
}

void cg_bind(cg_fn *f, ir_var *v, cg_val val, bool let) {
  cg_binding *b = cg_find_var(f, v);
  if (!b) {
    int bit = let ? (f->nbits < 63 ? f->nbits : 63) : -1;
    if (let) f->nbits++;
    IR_PUSH(f->ctx, f->vars, f->nvars, (cg_binding){.var = v, .bit = bit});
    b = &f->vars[f->nvars - 1];
  } else if (b->val.v == val.v) return;
  b->val = val;
  b->val.bufs = 0; /* it keeps its value whatever is stored later */
  if (b->bit >= 0) {
    b->val.binds |= 1ull << b->bit;
    f->bind_clock[b->bit] = ++f->clock;
  }
}

cg_buf *cg_buf_of(cg_fn *f, const ir_buf *b) {
  cg_buf *r = cg_plan_buf(f->plan, b);
  if (!r) ir_bug(f->ctx, "buffer %s is not in the plan", b->name);
  return r;
}

uint64_t cg_buf_bit(const cg_buf *b) { return b->readonly ? 0 : 1ull << b->bit; }

void cg_touch(cg_fn *f, const cg_buf *b) { f->buf_clock[b->bit] = ++f->clock; }

bool cg_narrow(ix e) { return e->lo >= INT32_MIN && e->hi <= INT32_MAX; }

bool cg_varying(cg_fn *f, ix e) {
  if (!f->lane) return false;
  if (e->op == IX_VAR) {
    if (e->u.var == f->lane) return true;
    cg_binding *b = cg_find_var(f, e->u.var);
    return b && b->val.varying;
  }
  if (e->op == IX_LOAD && cg_buf_of(f, e->u.buf)->lanes > 1) return true;
  for (int i = 0; i < e->nargs; i++)
    if (cg_varying(f, e->args[i])) return true;
  return false;
}

/* ---- lanes ---- */

LLVMValueRef cg_splat(cg_fn *f, LLVMValueRef v, int lanes) {
  LLVMTypeRef t = LLVMVectorType(LLVMTypeOf(v), (unsigned)lanes);
  if (LLVMIsConstant(v)) {
    LLVMValueRef items[CG_MAX_LANES];
    for (int i = 0; i < lanes; i++) items[i] = v;
    return LLVMConstVector(items, (unsigned)lanes);
  }
  LLVMValueRef undef = LLVMGetPoison(t);
  LLVMValueRef first = LLVMBuildInsertElement(f->b, undef, v, LLVMConstInt(f->i32, 0, 0), "");
  return LLVMBuildShuffleVector(f->b, first, undef, LLVMConstNull(LLVMVectorType(f->i32, (unsigned)lanes)), "");
}

LLVMValueRef cg_vector_of(cg_fn *f, ix e, cg_val *v) {
  if (v->varying || f->lanes == 1) return v->v;
  bool small = e && e->dtype == TN_INDEX && cg_narrow(e);
  if (LLVMIsConstant(v->v) || !e) return cg_splat(f, small ? LLVMConstTrunc(v->v, f->i32) : v->v, f->lanes);
  int kind = CG_SPLAT | f->lanes << CG_KIND_BITS;
  cg_val r;
  if (!cg_cached(f, e, kind, &r)) {
    r = *v;
    r.level = cg_hold(f, v->level, LLVMVectorType(small ? f->i32 : LLVMTypeOf(v->v), (unsigned)f->lanes));
    cg_at(f, r.level);
    r.v = cg_splat(f, small ? LLVMBuildTrunc(f->b, v->v, f->i32, "") : v->v, f->lanes);
    cg_cache(f, e, kind, r);
    cg_at(f, f->depth);
  }
  v->level = r.level;
  return r.v;
}

static LLVMValueRef iota(cg_fn *f) {
  LLVMValueRef items[CG_MAX_LANES];
  for (int i = 0; i < f->lanes; i++) items[i] = LLVMConstInt(f->i32, (unsigned)i, 0);
  return LLVMConstVector(items, (unsigned)f->lanes);
}

/* ---- guards ---- */

/* Does the expression hold a load that is not proven to be in bounds? */
static bool unsafe_loads(cg_fn *f, ix e) {
  if (e->op == IX_CONST || e->op == IX_VAR) return false;
  if (f->facts_n * 2 >= f->facts_cap) {
    size_t cap = f->facts_cap ? f->facts_cap * 2 : 256;
    ix *old = f->facts;
    bool *old_value = f->facts_value;
    f->facts = IR_NEW_ARRAY(f->ctx, ix, cap);
    f->facts_value = IR_NEW_ARRAY(f->ctx, bool, cap);
    for (size_t i = 0; i < f->facts_cap; i++) {
      if (!old[i]) continue;
      size_t j = old[i]->hash & (cap - 1);
      while (f->facts[j]) j = (j + 1) & (cap - 1);
      f->facts[j] = old[i];
      f->facts_value[j] = old_value[i];
    }
    f->facts_cap = cap;
  }
  size_t i = e->hash & (f->facts_cap - 1);
  while (f->facts[i] && f->facts[i] != e) i = (i + 1) & (f->facts_cap - 1);
  if (f->facts[i]) return f->facts_value[i];
  bool unsafe = e->op == IX_LOAD && !cg_safe_load(f, e);
  for (int k = 0; k < e->nargs && !unsafe; k++) unsafe = unsafe_loads(f, e->args[k]);
  i = e->hash & (f->facts_cap - 1); /* the table may have grown */
  while (f->facts[i]) i = (i + 1) & (f->facts_cap - 1);
  f->facts[i] = e;
  f->facts_value[i] = unsafe;
  f->facts_n++;
  return unsafe;
}

static cg_val mask_and(cg_fn *f, cg_val a, cg_val b) {
  if (a.varying != b.varying) {
    cg_val *thin = a.varying ? &b : &a;
    cg_at(f, thin->level);
    thin->v = cg_splat(f, thin->v, f->lanes);
    thin->varying = true;
  }
  cg_val r = b;
  cg_join(&r, &a);
  cg_at(f, r.level);
  r.v = LLVMBuildAnd(f->b, a.v, b.v, "");
  return r;
}

/* The current guard and (not) a condition whose value is `mask`. */
cg_guard cg_guard_with(cg_fn *f, ix cond, cg_val mask, bool negate) {
  cg_guard g = {.outer = f->guard, .key = negate ? ix_not(f->ctx, cond) : cond};
  if (f->guard) g.key = ix_and(f->ctx, f->guard->key, g.key);
  if (cg_cached(f, g.key, CG_SPLAT, &g.mask)) return g;
  if (negate) {
    cg_at(f, mask.level);
    mask.v = LLVMBuildNot(f->b, mask.v, "");
  }
  if (f->guard) mask = mask_and(f, f->guard->mask, mask);
  g.mask = mask;
  cg_at(f, f->depth);
  cg_cache(f, g.key, CG_SPLAT, g.mask);
  return g;
}

/* ---- operations ---- */

static cg_val emit_op(cg_fn *f, ix e, const cg_val *vals) {
  cg_val r = {0};
  LLVMValueRef args[3];
  for (int i = 0; i < e->nargs; i++) cg_join(&r, &vals[i]);
  int lanes = r.varying ? f->lanes : 1;
  for (int i = 0; i < e->nargs; i++) {
    cg_val v = vals[i];
    args[i] = r.varying ? cg_vector_of(f, e->args[i], &v) : v.v;
    if (v.level > r.level) r.level = v.level;
  }
  cg_at(f, r.level);
  r.v = cg_op(f, e, args, lanes);
  return r;
}

/* select(c, x, 0) where x is 0 by itself when its loads read the zeros of a guard. */
static bool zero_when_off(cg_fn *f, ix x, ix other) {
  if (other->op != IX_CONST || other->u.i != 0) return false; /* +0.0 has no bits set */
  if (x->op == IX_CAST) x = x->args[0];
  if (x->op != IX_LOAD || cg_safe_load(f, x)) return false;
  for (int i = 0; i < x->nargs; i++)
    if (unsafe_loads(f, x->args[i])) return false;
  return true;
}

static cg_val emit_select(cg_fn *f, ix e) {
  cg_val vals[3];
  vals[0] = cg_emit(f, e->args[0]);
  for (int i = 1; i < 3; i++) {
    if (!unsafe_loads(f, e->args[i])) {
      vals[i] = cg_emit(f, e->args[i]);
      continue;
    }
    const cg_guard *outer = f->guard;
    cg_guard g = cg_guard_with(f, e->args[0], vals[0], i == 2);
    f->guard = &g;
    vals[i] = cg_emit(f, e->args[i]);
    f->guard = outer;
    bool zeros = vals[i].guarded && (vals[i].varying || !vals[0].varying);
    /* The outer guard decides about the whole; the inner one is a part of this value. */
    vals[i].guarded = outer != NULL;
    vals[i].bufs |= g.mask.bufs;
    vals[i].binds |= g.mask.binds;
    if (i == 1 && zeros && zero_when_off(f, e->args[1], e->args[2])) return vals[1];
  }
  return emit_op(f, e, vals);
}

cg_sum cg_sum_of(cg_fn *f, ix e) {
  int64_t coef[CG_MAX_TERMS];
  ix term[CG_MAX_TERMS];
  cg_sum s = {0};
  s.n = ix_linear(e, &s.c0, coef, term, CG_MAX_TERMS);
  if (s.n < 0) ir_fail(f->ctx, TN_EUNSUPPORTED, "kernel %s: an index expression has too many terms", f->plan->kernel->name);
  s.coef = IR_NEW_ARRAY(f->ctx, int64_t, s.n);
  s.term = IR_NEW_ARRAY(f->ctx, ix, s.n);
  s.val = IR_NEW_ARRAY(f->ctx, cg_val, s.n);
  if (s.n) memcpy(s.coef, coef, (size_t)s.n * sizeof *coef), memcpy(s.term, term, (size_t)s.n * sizeof *term);
  return s;
}

/* Terms are added in the order of their levels, so that outer parts leave the loops. */
static cg_val emit_sum(cg_fn *f, ix e) {
  cg_sum s = cg_sum_of(f, e);
  cg_val r = {0};
  tn_ctx *ctx = f->ctx;
  for (int i = 0; i < s.n; i++) {
    s.val[i] = cg_emit(f, s.term[i]);
    cg_join(&r, &s.val[i]);
  }
  ix low = ix_index(ctx, 0); /* what can be had earlier, or for all lanes at once */
  for (int i = 0; i < s.n; i++)
    if (r.varying ? !s.val[i].varying : s.val[i].level < r.level) low = ix_add(ctx, low, ix_muli(ctx, s.term[i], s.coef[i]));
  bool split = !ix_is_int(low, 0);
  int64_t c0 = s.c0;
  if (split) {
    low = ix_addi(ctx, low, c0);
    c0 = 0;
  }
  LLVMTypeRef t = f->i64, element = f->i64;
  LLVMValueRef sum = NULL;
  if (r.varying) {
    if (cg_narrow(e)) element = f->i32; /* sums and products are right modulo 2^32 */
    t = LLVMVectorType(element, (unsigned)f->lanes);
  }
  if (split) {
    cg_val v = cg_emit(f, low);
    if (r.varying) {
      cg_at(f, v.level);
      if (element == f->i32) v.v = LLVMBuildTrunc(f->b, v.v, f->i32, "");
      v.v = cg_splat(f, v.v, f->lanes);
    }
    sum = v.v;
  }
  cg_at(f, r.level);
  for (int i = 0; i < s.n; i++) {
    if (split && (r.varying ? !s.val[i].varying : s.val[i].level < r.level)) continue;
    LLVMValueRef v = s.val[i].v;
    if (r.varying) {
      bool have32 = LLVMGetElementType(LLVMTypeOf(v)) == f->i32;
      if (have32 && element == f->i64) v = LLVMBuildSExt(f->b, v, t, "");
      if (!have32 && element == f->i32) v = LLVMBuildTrunc(f->b, v, t, "");
    }
    if (s.coef[i] == -1 && sum) {
      sum = LLVMBuildSub(f->b, sum, v, "");
      continue;
    }
    if (s.coef[i] != 1) v = LLVMBuildMul(f->b, v, cg_int(f, t, s.coef[i]), "");
    sum = sum ? LLVMBuildAdd(f->b, sum, v, "") : v;
  }
  if (c0) sum = LLVMBuildAdd(f->b, sum, cg_int(f, t, c0), "");
  r.v = sum;
  return r;
}

cg_val cg_emit(cg_fn *f, ix e) {
  cg_val r = {0}, vals[3];
  if (e->op == IX_CONST) {
    r.v = cg_const(f, e);
    return r;
  }
  if (e->op == IX_VAR) {
    if (e->u.var == f->lane) return (cg_val){.v = iota(f), .varying = true};
    cg_binding *b = cg_find_var(f, e->u.var);
    if (!b) ir_bug(f->ctx, "kernel %s: variable '%s' has no value here", f->plan->kernel->name, e->u.var->name);
    return b->val;
  }
  if (cg_cached(f, e, CG_VALUE, &r) || cached_outside(f, e, &r)) return r;
  if (++f->nesting > CG_MAX_DEPTH)
    ir_fail(f->ctx, TN_EUNSUPPORTED, "kernel %s: an expression is nested more than %d deep", f->plan->kernel->name, CG_MAX_DEPTH);
  if (e->op == IX_LOAD) r = cg_emit_load(f, e, false);
  else if (e->op == IX_SELECT) r = emit_select(f, e);
  else if (e->dtype == TN_INDEX && e->op == IX_ADD) r = emit_sum(f, e);
  else {
    ir_assert(f->ctx, e->nargs <= 3);
    for (int i = 0; i < e->nargs; i++) vals[i] = cg_emit(f, e->args[i]);
    r = emit_op(f, e, vals);
  }
  f->nesting--;
  cg_at(f, f->depth);
  cg_cache(f, e, CG_VALUE, r);
  return r;
}
