/* llvm_stmt.c — statements to blocks and phis.
 *
 *   for:   before: br (lo < hi), body, after      (no test where lo < hi is proven)
 *          body:   phi var, phi slots ... br (var+1 < hi), body, after
 *   while: head: phi slots, br cond, body, after     body: ... br head
 *   if:    then, else, merge with phis of the slots that differ
 *
 * A vector loop is its body once, with values that have lanes; an if whose condition
 * differs between lanes becomes a mask on what is inside. */
#include "codegen/llvm.h"
#include <string.h>

#define B f->b

static LLVMBasicBlockRef new_block(cg_fn *f, const char *name) { return LLVMAppendBasicBlockInContext(f->lc, f->fn, name); }

/* ---- what a statement writes ---- */

static uint64_t writes(cg_fn *f, const ir_stmt *s) {
  if (!s) return 0;
  if (s->kind == IR_STORE) return cg_buf_bit(cg_buf_of(f, s->buf));
  if (s->kind == IR_SEQ) {
    uint64_t m = 0;
    for (int i = 0; i < s->n; i++) m |= writes(f, s->items[i]);
    return m;
  }
  return writes(f, s->body) | writes(f, s->other);
}

/* Inside the region about to be opened these buffers change: their loads stay in it.
 * Returns the levels before, for leave(). */
static int *enter(cg_fn *f, uint64_t mask) {
  cg_plan *p = f->plan;
  int *old = IR_NEW_ARRAY(f->ctx, int, p->nbufs);
  for (int i = 0; i < p->nbufs; i++) {
    cg_buf *b = p->bufs[i];
    old[i] = b->level;
    if (cg_buf_bit(b) & mask) b->level = f->depth + 1;
  }
  return old;
}

static void leave(cg_fn *f, const int *old) {
  for (int i = 0; i < f->plan->nbufs; i++) f->plan->bufs[i]->level = old[i];
}

static void touch_all(cg_fn *f, uint64_t mask) {
  for (int i = 0; i < f->plan->nbufs; i++)
    if (cg_buf_bit(f->plan->bufs[i]) & mask) cg_touch(f, f->plan->bufs[i]);
}

/* ---- slots over blocks ---- */

static void mark_slots(cg_fn *f, const ir_stmt *s, const ir_var *lane, int lanes) {
  if (!s) return;
  if (s->kind == IR_STORE) {
    cg_buf *b = cg_buf_of(f, s->buf);
    int64_t base, stride;
    if (b->where != CG_SSA || !b->alive) return;
    if (!cg_slot_access(f->ctx, s->buf, s->index, lane, &base, &stride)) ir_bug(f->ctx, "register index of %s is not constant", s->buf->name);
    int64_t first = b->lanes > 1 ? base : base / b->group;
    int64_t last = b->lanes > 1 || stride == 0 ? first : (base + lanes - 1) / b->group;
    for (int64_t i = first; i <= last; i++) b->mark[i] = true;
    return;
  }
  if (s->kind == IR_SEQ) {
    for (int i = 0; i < s->n; i++) mark_slots(f, s->items[i], lane, lanes);
    return;
  }
  if (s->kind == IR_FOR && s->loop == IR_VECTOR) lane = s->var, lanes = (int)s->hi->u.i;
  mark_slots(f, s->body, lane, lanes);
  mark_slots(f, s->other, lane, lanes);
}

typedef struct slot_ref {
  cg_buf *buf;
  int i;
  LLVMValueRef before, phi;
} slot_ref;

typedef struct slot_list {
  int n;
  slot_ref *items;
} slot_list;

/* The slots in scope that the body stores to, with their values before it. */
static slot_list written_slots(cg_fn *f, const ir_stmt *body) {
  slot_list l = {0};
  int lanes = f->lane ? f->lanes : 1;
  mark_slots(f, body, f->lane, lanes);
  for (int k = 0; k < f->plan->nbufs; k++) {
    cg_buf *b = f->plan->bufs[k];
    if (b->where != CG_SSA || !b->alive) continue;
    for (int i = 0; i < b->nslots; i++) {
      if (!b->mark[i]) continue;
      b->mark[i] = false;
      IR_PUSH(f->ctx, l.items, l.n, (slot_ref){b, i, b->slots[i], NULL});
    }
  }
  return l;
}

static LLVMTypeRef slot_type(cg_fn *f, const cg_buf *b) { return cg_type(f, b->buf->dtype, b->lanes > 1 ? b->lanes : b->group); }

static LLVMValueRef or_undef(cg_fn *f, const cg_buf *b, LLVMValueRef v) { return v ? v : LLVMGetUndef(slot_type(f, b)); }

/* Phis at the start of a loop, which take the values from before; made at the builder. */
static void begin_phis(cg_fn *f, slot_list *l, LLVMBasicBlockRef from) {
  for (int i = 0; i < l->n; i++) {
    slot_ref *s = &l->items[i];
    s->phi = LLVMBuildPhi(B, slot_type(f, s->buf), "");
    LLVMValueRef v = or_undef(f, s->buf, s->before);
    LLVMAddIncoming(s->phi, &v, &from, 1);
    s->buf->slots[s->i] = s->phi;
  }
}

static void end_phis(cg_fn *f, slot_list *l, LLVMBasicBlockRef from) {
  for (int i = 0; i < l->n; i++) {
    slot_ref *s = &l->items[i];
    LLVMValueRef v = or_undef(f, s->buf, s->buf->slots[s->i]);
    LLVMAddIncoming(s->phi, &v, &from, 1);
  }
}

/* Closes the region; the parent goes on in `block`. */
static void resume(cg_fn *f, LLVMBasicBlockRef block) {
  cg_close(f);
  f->regions[f->depth].block = block;
  cg_at(f, f->depth);
}

/* ---- loops ---- */

static void emit_for(cg_fn *f, const ir_stmt *s) {
  cg_val lo = cg_emit(f, s->lo), hi = cg_emit(f, s->hi);
  bool sure = s->lo->hi < s->hi->lo;
  uint64_t mask = writes(f, s->body);
  slot_list slots = written_slots(f, s->body);
  cg_at(f, f->depth);
  LLVMBasicBlockRef before = f->regions[f->depth].block, body = new_block(f, s->var->name), after = new_block(f, "");
  LLVMValueRef term = sure ? LLVMBuildBr(B, body)
                           : LLVMBuildCondBr(B, LLVMBuildICmp(B, LLVMIntSLT, lo.v, hi.v, ""), body, after);
  int *levels = enter(f, mask);
  touch_all(f, mask);
  cg_open(f, term, body, sure);
  LLVMValueRef var = LLVMBuildPhi(B, f->i64, s->var->name);
  LLVMAddIncoming(var, &lo.v, &before, 1);
  begin_phis(f, &slots, before);
  cg_bind(f, s->var, (cg_val){.v = var, .level = f->depth}, false);
  cg_emit_stmt(f, s->body);
  cg_at(f, f->depth);
  LLVMBasicBlockRef latch = f->regions[f->depth].block;
  LLVMValueRef next = LLVMBuildNSWAdd(B, var, LLVMConstInt(f->i64, 1, 0), "");
  LLVMBuildCondBr(B, LLVMBuildICmp(B, LLVMIntSLT, next, hi.v, ""), body, after);
  LLVMAddIncoming(var, &next, &latch, 1);
  end_phis(f, &slots, latch);
  resume(f, after);
  leave(f, levels);
  touch_all(f, mask);
  for (int i = 0; i < slots.n && !sure; i++) {
    slot_ref *r = &slots.items[i];
    LLVMValueRef phi = LLVMBuildPhi(B, slot_type(f, r->buf), "");
    LLVMValueRef in[2] = {or_undef(f, r->buf, r->before), or_undef(f, r->buf, r->buf->slots[r->i])};
    LLVMBasicBlockRef from[2] = {before, latch};
    LLVMAddIncoming(phi, in, from, 2);
    r->buf->slots[r->i] = phi;
  }
}

static void emit_while(cg_fn *f, const ir_stmt *s) {
  uint64_t mask = writes(f, s->body);
  slot_list slots = written_slots(f, s->body);
  cg_at(f, f->depth);
  LLVMBasicBlockRef before = f->regions[f->depth].block, head = new_block(f, "while"), body = new_block(f, ""), after = new_block(f, "");
  LLVMValueRef term = LLVMBuildBr(B, head);
  int *levels = enter(f, mask);
  touch_all(f, mask);
  cg_open(f, term, head, true);
  begin_phis(f, &slots, before);
  cg_val cond = cg_emit(f, s->value);
  cg_at(f, f->depth);
  LLVMBasicBlockRef test = f->regions[f->depth].block;
  LLVMValueRef inner = LLVMBuildCondBr(B, cond.v, body, after);
  int *inner_levels = enter(f, mask);
  cg_open(f, inner, body, false);
  cg_emit_stmt(f, s->body);
  cg_at(f, f->depth);
  LLVMBasicBlockRef latch = f->regions[f->depth].block;
  LLVMBuildBr(B, head);
  end_phis(f, &slots, latch);
  cg_close(f);
  leave(f, inner_levels);
  f->regions[f->depth].block = test;
  resume(f, after);
  leave(f, levels);
  touch_all(f, mask);
  for (int i = 0; i < slots.n; i++) slots.items[i].buf->slots[slots.items[i].i] = slots.items[i].phi;
}

static void emit_vector(cg_fn *f, const ir_stmt *s) {
  ir_assert(f->ctx, !f->lane && ix_is_int(s->lo, 0) && ix_is_const(s->hi));
  f->lane = s->var;
  f->lanes = (int)s->hi->u.i;
  cg_emit_stmt(f, s->body);
  f->lane = NULL;
  f->lanes = 1;
}

/* ---- conditions ---- */

/* The condition is what it was before the arms ran: if they may change it, the guards
 * get a name of their own, so that nobody takes them for the condition as it is then. */
static void emit_masked(cg_fn *f, const ir_stmt *s, cg_val cond) {
  const cg_guard *outer = f->guard;
  ix name = cond.bufs & writes(f, s) ? ir_var_new(f->ctx, "mask", TN_BOOL, 0, 1)->expr : s->value;
  for (int arm = 0; arm < 2; arm++) {
    const ir_stmt *body = arm ? s->other : s->body;
    if (!body) continue;
    cg_guard g = cg_guard_with(f, name, cond, arm);
    f->guard = &g;
    cg_emit_stmt(f, body);
    f->guard = outer;
  }
}

static void emit_if(cg_fn *f, const ir_stmt *s) {
  cg_val cond = cg_emit(f, s->value);
  if (cond.varying) {
    emit_masked(f, s, cond);
    return;
  }
  uint64_t mask = writes(f, s);
  slot_list slots = written_slots(f, s);
  cg_at(f, f->depth);
  LLVMBasicBlockRef arms[2] = {new_block(f, "then"), s->other ? new_block(f, "else") : NULL}, after = new_block(f, "");
  LLVMBasicBlockRef before = f->regions[f->depth].block, from[2] = {before, before};
  LLVMValueRef term = LLVMBuildCondBr(B, cond.v, arms[0], arms[1] ? arms[1] : after);
  LLVMValueRef *last[2];
  for (int arm = 0; arm < 2; arm++) {
    last[arm] = IR_NEW_ARRAY(f->ctx, LLVMValueRef, slots.n);
    for (int i = 0; i < slots.n; i++) slots.items[i].buf->slots[slots.items[i].i] = last[arm][i] = slots.items[i].before;
    if (!arms[arm]) continue;
    int *levels = enter(f, mask);
    if (arm) touch_all(f, mask); /* what the other arm stored is not there */
    cg_open(f, term, arms[arm], false);
    cg_emit_stmt(f, arm ? s->other : s->body);
    cg_at(f, f->depth);
    from[arm] = f->regions[f->depth].block;
    LLVMBuildBr(B, after);
    for (int i = 0; i < slots.n; i++) last[arm][i] = slots.items[i].buf->slots[slots.items[i].i];
    cg_close(f);
    leave(f, levels);
    f->regions[f->depth].block = before;
  }
  f->regions[f->depth].block = after;
  cg_at(f, f->depth);
  touch_all(f, mask);
  for (int i = 0; i < slots.n; i++) {
    slot_ref *r = &slots.items[i];
    LLVMValueRef v = last[0][i];
    if (last[0][i] != last[1][i]) {
      v = LLVMBuildPhi(B, slot_type(f, r->buf), "");
      LLVMValueRef in[2] = {or_undef(f, r->buf, last[0][i]), or_undef(f, r->buf, last[1][i])};
      LLVMAddIncoming(v, in, from, 2);
    }
    r->buf->slots[r->i] = v;
  }
}

/* ---- scopes ---- */

static void emit_alloc(cg_fn *f, const ir_stmt *s) {
  cg_buf *b = cg_buf_of(f, s->buf);
  int level = b->level;
  if (b->where == CG_SSA) {
    if (!b->slots) {
      b->slots = IR_NEW_ARRAY(f->ctx, LLVMValueRef, b->nslots);
      b->mark = IR_NEW_ARRAY(f->ctx, bool, b->nslots);
    }
    memset(b->slots, 0, (size_t)b->nslots * sizeof *b->slots);
  }
  b->alive = true;
  b->level = f->depth;
  if (!b->readonly) cg_touch(f, b);
  cg_emit_stmt(f, s->body);
  b->alive = false;
  b->level = level;
}

void cg_emit_stmt(cg_fn *f, const ir_stmt *s) {
  if (!s) return;
  cg_at(f, f->depth);
  switch (s->kind) {
  case IR_SEQ:
    for (int i = 0; i < s->n; i++) cg_emit_stmt(f, s->items[i]);
    break;
  case IR_STORE:
    if (f->prefetch) cg_emit_prefetch(f, s);
    else cg_emit_store(f, s);
    break;
  case IR_LET: {
    cg_val v = cg_emit(f, s->value);
    cg_bind(f, s->var, v, true);
    cg_emit_stmt(f, s->body);
    break;
  }
  case IR_ALLOC: emit_alloc(f, s); break;
  case IR_IF: emit_if(f, s); break;
  case IR_WHILE: emit_while(f, s); break;
  case IR_FOR:
    if (s->loop == IR_VECTOR) emit_vector(f, s);
    else emit_for(f, s);
    break;
  case IR_TILE: { /* only prefetches, dot products and transpositions are left */
    if (strcmp(s->atom, "dot") == 0 || strcmp(s->atom, "transpose") == 0) {
      (*s->atom == 'd' ? cg_emit_dot : cg_emit_transpose)(f, s->body);
      break;
    }
    int outer = f->prefetch;
    f->prefetch = cg_prefetch_of(s->atom);
    cg_emit_stmt(f, s->body);
    f->prefetch = outer;
    break;
  }
  }
}
