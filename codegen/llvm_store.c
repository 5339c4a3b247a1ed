/* llvm_store.c — stores to memory and to register buffers, reductions over lanes, prefetches. */
#include "codegen/llvm_mem.h"

#define B f->b

static LLVMValueRef sink(cg_fn *f) {
  if (f->sink) return f->sink;
  LLVMPositionBuilderBefore(B, f->entry_end);
  f->sink = LLVMBuildAlloca(B, f->i64, "sink");
  LLVMBuildStore(B, LLVMConstInt(f->i64, 0, 0), f->sink);
  cg_at(f, f->depth);
  return f->sink;
}

static const ir_opcode update_op[] = {[IR_SET] = IX_CONST, [IR_ADD] = IX_ADD, [IR_MUL] = IX_MUL, [IR_MAX] = IX_MAX,
                                      [IR_MIN] = IX_MIN,   [IR_OR] = IX_OR,   [IR_AND] = IX_AND};

static LLVMValueRef updated(cg_fn *f, ir_store_op op, tn_dtype t, LLVMValueRef old, LLVMValueRef v, int lanes) {
  if (op == IR_SET) return v;
  if (t == TN_BOOL && (op == IR_ADD || op == IR_MUL)) ir_bug(f->ctx, "arithmetic on bool");
  return cg_binary(f, update_op[op], t, old, v, lanes);
}

/* Combines all lanes of v (those that the guard allows) to one value, in any order. `old`
 * stands in for lanes that are off where the operation has no neutral element. */
static LLVMValueRef reduced(cg_fn *f, ir_store_op op, tn_dtype t, LLVMValueRef v, LLVMValueRef old) {
  int n = f->lanes;
  if (op == IR_SET) return cg_lane(f, v, n - 1);
  if (f->guard && f->guard->mask.varying) {
    LLVMTypeRef ty = LLVMTypeOf(v);
    LLVMValueRef idle = op == IR_ADD ? (ir_is_float(t) ? cg_real(f, ty, -0.0) : cg_int(f, ty, 0))
                        : op == IR_MUL ? (ir_is_float(t) ? cg_real(f, ty, 1) : cg_int(f, ty, 1))
                        : cg_splat(f, old, n); /* max, min, or, and: old op old = old */
    v = LLVMBuildSelect(B, f->guard->mask.v, v, idle, "");
  }
  while (n % 2 == 0) {
    n /= 2;
    v = cg_binary(f, update_op[op], t, cg_piece(f, v, 0, n), cg_piece(f, v, n, n), n);
  }
  if (n == 1) return v;
  LLVMValueRef r = cg_lane(f, v, 0);
  for (int i = 1; i < n; i++) r = cg_binary(f, update_op[op], t, r, cg_lane(f, v, i), 1);
  return r;
}

/* Do the lanes differ in what they do to one common place? */
static bool needs_reduction(cg_fn *f, ir_store_op op, const cg_val *v) {
  return f->lane && (v->varying || op != IR_SET || (f->guard && f->guard->mask.varying));
}

static void store_slot(cg_fn *f, cg_buf *b, const ir_stmt *s) {
  tn_dtype t = b->buf->dtype;
  int64_t base, stride;
  cg_slot_place(f, b, s->index, &base, &stride);
  cg_val v = cg_emit(f, s->value);
  LLVMValueRef mask = f->guard && f->guard->mask.varying ? f->guard->mask.v : NULL;
  if (b->lanes > 1 || stride != 0) {
    LLVMValueRef all = cg_vector_of(f, s->value, &v);
    if (LLVMGetElementType(LLVMTypeOf(all)) == f->i32 && t == TN_INDEX) all = LLVMBuildSExt(B, all, cg_type(f, t, f->lanes), "");
    int n = b->lanes > 1 ? 1 : f->lanes / b->group, group = b->lanes > 1 ? f->lanes : b->group;
    int64_t first = b->lanes > 1 ? base : base / b->group;
    for (int i = 0; i < n; i++) {
      LLVMValueRef *p = &b->slots[first + i], old = cg_slot(f, b, first + i);
      LLVMValueRef x = n == 1 ? all : cg_piece(f, all, i * group, group);
      x = updated(f, s->op, t, old, x, group);
      bool covered = b->cover[first + i] && !ix_is_int(b->cover[first + i], 0); /* the other lanes are nobody's */
      if (mask && !covered) x = LLVMBuildSelect(B, n == 1 ? mask : cg_piece(f, mask, i * group, group), x, old, "");
      *p = x;
    }
  } else {
    LLVMValueRef *p = &b->slots[base / b->group], whole = cg_slot(f, b, base / b->group), old = whole, x = v.v;
    int at = (int)(base % b->group);
    if (b->group > 1 && (s->op != IR_SET || mask)) old = cg_lane(f, whole, at);
    if (needs_reduction(f, s->op, &v)) {
      x = cg_vector_of(f, s->value, &v);
      if (LLVMGetElementType(LLVMTypeOf(x)) == f->i32 && t == TN_INDEX) x = LLVMBuildSExt(B, x, cg_type(f, t, f->lanes), "");
      x = reduced(f, s->op, t, x, old);
    }
    x = updated(f, s->op, t, old, x, 1);
    *p = b->group > 1 ? cg_with_lane(f, whole, x, at) : x;
  }
  cg_touch(f, b);
}

/* May the value be moved as bits, without a trip through f32? */
static bool movable(cg_fn *f, ix e) {
  if (e->op == IX_LOAD) return cg_buf_of(f, e->u.buf)->where != CG_SSA;
  return false;
}

static cg_val stored_value(cg_fn *f, const ir_stmt *s, bool *raw) {
  tn_dtype t = s->buf->dtype;
  *raw = s->op == IR_SET && (ir_is_narrow_float(t) || t == TN_BOOL) && movable(f, s->value);
  if (!*raw) return cg_emit(f, s->value);
  if (t == TN_BOOL) { /* memory may hold any byte: normalise */
    *raw = false;
    return cg_emit(f, s->value);
  }
  cg_val r;
  if (cg_cached(f, s->value, CG_RAW, &r)) return r;
  r = cg_emit_load(f, s->value, true);
  cg_at(f, f->depth);
  cg_cache(f, s->value, CG_RAW, r);
  return r;
}

static void store_uniform(cg_fn *f, cg_buf *b, const ir_stmt *s, ix offset, cg_val v, bool raw) {
  tn_dtype t = b->buf->dtype;
  cg_address a = cg_address_of(f, b, offset);
  cg_at(f, f->depth);
  LLVMValueRef p = cg_offset_by(f, a.at.v, a.disp), x = v.v, old = NULL;
  const cg_guard *g = f->guard;
  if (g) p = LLVMBuildSelect(B, cg_any_lane(f, g->mask.v), p, sink(f), "");
  if (s->op != IR_SET) old = cg_from_storage(f, t, cg_load_at(f, b, p, cg_storage_type(f, t, 1), (unsigned)cg_bytes_of(b)), 1);
  if (needs_reduction(f, s->op, &v)) {
    x = v.varying ? v.v : cg_splat(f, v.v, f->lanes);
    if (t == TN_INDEX && LLVMGetElementType(LLVMTypeOf(x)) == f->i32) x = LLVMBuildSExt(B, x, cg_type(f, t, f->lanes), "");
    x = reduced(f, s->op, t, x, old);
  }
  x = updated(f, s->op, t, old, x, 1);
  if (!raw) x = cg_to_storage(f, t, x, 1);
  cg_store_at(f, b, p, x, (unsigned)cg_bytes_of(b));
}

/* One lane after the other: lanes of an update may meet in one place. */
static void store_pieces(cg_fn *f, cg_buf *b, const ir_stmt *s, LLVMValueRef ptrs, LLVMValueRef all, bool raw) {
  tn_dtype t = b->buf->dtype;
  for (int i = 0; i < f->lanes; i++) {
    LLVMValueRef p = cg_lane(f, ptrs, i), x = cg_lane(f, all, i);
    if (f->guard) {
      LLVMValueRef on = f->guard->mask.varying ? cg_lane(f, f->guard->mask.v, i) : f->guard->mask.v;
      p = LLVMBuildSelect(B, on, p, sink(f), "");
    }
    if (s->op != IR_SET) {
      LLVMValueRef old = cg_from_storage(f, t, cg_load_at(f, b, p, cg_storage_type(f, t, 1), (unsigned)cg_bytes_of(b)), 1);
      x = updated(f, s->op, t, old, x, 1);
    }
    if (!raw) x = cg_to_storage(f, t, x, 1);
    cg_store_at(f, b, p, x, (unsigned)cg_bytes_of(b));
  }
}

/* Does the condition only keep index i below shape i, for some of the axes? */
static bool is_bound(const ir_buf *b, const ix *index, ix cond) {
  if (cond->op == IX_AND) return is_bound(b, index, cond->args[0]) && is_bound(b, index, cond->args[1]);
  if (cond->op != IX_LT) return false;
  for (int i = 0; i < b->rank; i++)
    if (cond->args[0] == index[i] && cond->args[1] == b->shape[i]) return true;
  return false;
}

/* May a whole vector be stored, since the lanes that the guard leaves out come to lie in the padding of
 * the last block of an axis? Padding that a layout asks for by name is left as it is. */
static bool spills_into_padding(cg_fn *f, const ir_stmt *s) {
  const ir_buf *b = s->buf;
  if (!b->layout || s->op != IR_SET || !is_bound(b, s->index, f->guard->key)) return false;
  for (int i = 0; i < b->layout->nsteps; i++)
    if (b->layout->steps[i].kind == IR_LAYOUT_PAD) return false;
  return cg_in_memory(f, b, s->index);
}

static void store_lanes(cg_fn *f, cg_buf *b, const ir_stmt *s, ix offset, cg_val v, bool raw) {
  tn_dtype t = b->buf->dtype;
  int64_t d[CG_MAX_LANES], size = cg_bytes_of(b);
  ix base;
  LLVMValueRef all = raw && !v.varying ? cg_splat(f, v.v, f->lanes) : cg_vector_of(f, s->value, &v);
  if (t == TN_INDEX && LLVMGetElementType(LLVMTypeOf(all)) == f->i32) all = LLVMBuildSExt(B, all, cg_type(f, t, f->lanes), "");
  cg_lane_pattern how = cg_lane_pattern_of(f, offset, &base, d);
  cg_val deps = {.level = f->depth};
  if (how == CG_LANES_GENERAL) {
    LLVMValueRef ptrs = cg_lane_pointers(f, b, offset, &deps);
    cg_at(f, f->depth);
    store_pieces(f, b, s, ptrs, all, raw);
    return;
  }
  if (how == CG_LANES_REVERSED) base = ix_addi(f->ctx, base, -(f->lanes - 1));
  cg_address a = cg_address_of(f, b, base);
  cg_at(f, f->depth);
  LLVMValueRef p = cg_offset_by(f, a.at.v, a.disp);
  if (how != CG_LANES_CONTIGUOUS && how != CG_LANES_REVERSED) {
    LLVMValueRef by = cg_lane_constants(f, d, size);
    store_pieces(f, b, s, LLVMBuildGEP2(B, f->i8, p, &by, 1, ""), all, raw);
    return;
  }
  LLVMTypeRef vt = cg_storage_type(f, t, f->lanes);
  LLVMValueRef mask = f->guard && !spills_into_padding(f, s) ? f->guard->mask.v : NULL;
  if (how == CG_LANES_REVERSED) {
    all = cg_reverse(f, all);
    if (mask) mask = cg_reverse(f, mask);
  }
  if (s->op != IR_SET) {
    LLVMValueRef old = mask ? cg_masked_load(f, b, p, vt, mask, (unsigned)a.align)
                            : cg_load_at(f, b, p, vt, (unsigned)a.align);
    all = updated(f, s->op, t, cg_from_storage(f, t, old, f->lanes), all, f->lanes);
  }
  if (!raw) all = cg_to_storage(f, t, all, f->lanes);
  if (mask) cg_masked_store(f, b, p, all, mask, (unsigned)a.align);
  else cg_store_at(f, b, p, all, (unsigned)a.align);
}

void cg_emit_store(cg_fn *f, const ir_stmt *s) {
  cg_buf *b = cg_buf_of(f, s->buf);
  cg_at(f, f->depth);
  if (b->where == CG_SSA) {
    store_slot(f, b, s);
    return;
  }
  bool raw;
  cg_val v = stored_value(f, s, &raw);
  ix offset = ir_buf_offset(f->ctx, b->buf, s->index);
  cg_at(f, f->depth);
  if (cg_varying(f, offset)) store_lanes(f, b, s, offset, v, raw);
  else store_uniform(f, b, s, offset, v, raw);
  cg_touch(f, b);
}

/* ---- prefetches ---- */

/* The line of lane 0: a hint cannot fault, so no guard and no bound is looked at. */
static void prefetch_loads(cg_fn *f, ix e) {
  if (e->op != IX_LOAD) {
    for (int i = 0; i < e->nargs; i++) prefetch_loads(f, e->args[i]);
    return;
  }
  cg_buf *b = cg_buf_of(f, e->u.buf);
  if (b->where == CG_SSA) return;
  ix offset = ir_buf_offset(f->ctx, b->buf, e->args);
  if (f->lane) offset = ix_subst1(f->ctx, offset, f->lane, ix_index(f->ctx, 0));
  if (cg_varying(f, offset)) return;
  cg_address a = cg_address_of(f, b, offset);
  cg_at(f, f->depth);
  LLVMValueRef args[] = {cg_offset_by(f, a.at.v, a.disp), LLVMConstInt(f->i32, b->buf->access == IR_OUT, 0), LLVMConstInt(f->i32, (unsigned)f->prefetch, 0), LLVMConstInt(f->i32, 1, 0)};
  cg_intrinsic(f, "llvm.prefetch", f->ptr, NULL, 4, args);
}

void cg_emit_prefetch(cg_fn *f, const ir_stmt *s) { prefetch_loads(f, s->value); }
