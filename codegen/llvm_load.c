/* llvm_load.c — loads from memory and from register buffers.
 *
 * Lane-wise loads are one vector where the lanes are contiguous, reversed or a small stride
 * apart, and pieces or gathers otherwise. A load whose indices are proven in bounds may be
 * made anywhere. Any other load is made where its region is certain to be reached, and under
 * a condition either as a masked load or from an address that the condition swaps for some
 * zeros. */
#include "codegen/llvm_mem.h"

#define B f->b

enum { ZEROS = 1024 }; /* bytes of zeros to read from: at least one longest vector */

static LLVMValueRef zeros(cg_fn *f) {
  if (f->zeros) return f->zeros;
  LLVMTypeRef t = LLVMArrayType2(f->i8, ZEROS);
  f->zeros = LLVMAddGlobal(f->module, t, "tn.zeros");
  LLVMSetInitializer(f->zeros, LLVMConstNull(t));
  LLVMSetGlobalConstant(f->zeros, 1);
  LLVMSetLinkage(f->zeros, LLVMPrivateLinkage);
  LLVMSetUnnamedAddress(f->zeros, LLVMGlobalUnnamedAddr);
  LLVMSetAlignment(f->zeros, 64);
  return f->zeros;
}

/* Every c-th element from p: c contiguous loads, the last one ending with the last
 * element that is wanted, and c-1 shuffles. */
static LLVMValueRef load_strided(cg_fn *f, const cg_buf *b, LLVMValueRef p, LLVMTypeRef t, int c, int64_t align) {
  int n = f->lanes, last = c * (n - 1) + 1 - n; /* first element of the last load */
  LLVMValueRef sum = NULL, index[CG_MAX_LANES];
  int64_t size = cg_bytes_of(b);
  for (int q = 0; q < c; q++) {
    int from = q == c - 1 ? last : q * n;
    LLVMValueRef v = cg_load_at(f, b, cg_offset_by(f, p, from * size), t, (unsigned)(from == 0 || (from * size) % align == 0 ? align : size));
    /* lane i wants element c*i, which this load has when from <= c*i < from+n */
    for (int i = 0; i < n; i++) {
      int at = c * i - from;
      bool here = at >= 0 && at < n && (q == c - 1 ? c * i >= q * n : 1);
      index[i] = LLVMConstInt(f->i32, (unsigned)(here ? (sum ? n + at : at) : sum ? i : 0), 0);
    }
    LLVMValueRef mask = LLVMConstVector(index, (unsigned)n);
    sum = sum ? LLVMBuildShuffleVector(B, sum, v, mask, "") : LLVMBuildShuffleVector(B, v, LLVMGetPoison(t), mask, "");
  }
  return sum;
}

/* Puts `parts` values of `group` elements each side by side. */
static LLVMValueRef concat(cg_fn *f, LLVMTypeRef element, const LLVMValueRef *v, int parts, int group) {
  if (parts == 1) return v[0];
  int n = parts * group;
  LLVMValueRef r = LLVMGetPoison(LLVMVectorType(element, (unsigned)n)), index[CG_MAX_LANES];
  for (int p = 0; p < parts; p++) {
    if (group == 1) {
      r = cg_with_lane(f, r, v[p], p);
      continue;
    }
    for (int i = 0; i < n; i++) index[i] = LLVMConstInt(f->i32, (unsigned)(i < group ? i : 0), 0);
    LLVMValueRef wide = LLVMBuildShuffleVector(B, v[p], LLVMGetPoison(LLVMTypeOf(v[p])), LLVMConstVector(index, (unsigned)n), "");
    for (int i = 0; i < n; i++) index[i] = LLVMConstInt(f->i32, (unsigned)(i / group == p ? n + i % group : i), 0);
    r = LLVMBuildShuffleVector(B, r, wide, LLVMConstVector(index, (unsigned)n), "");
  }
  return r;
}

static cg_val load_slot(cg_fn *f, cg_buf *b, ix e) {
  int64_t base, stride;
  cg_slot_place(f, b, e->args, &base, &stride);
  cg_val r = {.level = b->level, .bufs = cg_buf_bit(b), .varying = stride != 0 || b->lanes > 1};
  cg_at(f, r.level);
  if (b->lanes > 1) r.v = cg_slot(f, b, base);
  else if (stride == 0) {
    r.v = cg_slot(f, b, base / b->group);
    if (b->group > 1) r.v = cg_lane(f, r.v, (int)(base % b->group));
  } else {
    LLVMValueRef parts[CG_MAX_LANES];
    int n = f->lanes / b->group;
    for (int i = 0; i < n; i++) parts[i] = cg_slot(f, b, base / b->group + i);
    r.v = concat(f, cg_type(f, b->buf->dtype, 1), parts, n, b->group);
  }
  return r;
}

/* What lies in padding is nobody's: a load may read it where it is guarded to leave it out. */
bool cg_safe_load(cg_fn *f, ix e) {
  const ir_buf *buf = e->u.buf;
  return cg_buf_of(f, buf)->where == CG_SSA || cg_in_memory(f, buf, e->args);
}

/* Where to load `bytes` from under a guard: the element, or zeros where the guard is off.
 * The choice is made as far out as the guard is known, if what is added further in cannot
 * lead out of the zeros. r is joined with what the address depends on. */
static LLVMValueRef guarded_place(cg_fn *f, const cg_buf *b, ix offset, const cg_guard *g, int64_t bytes, cg_val *r) {
  cg_sum s = cg_sum_of(f, offset);
  int64_t lo = 0, hi = bytes, size = cg_bytes_of(b);
  bool *inner = IR_NEW_ARRAY(f->ctx, bool, s.n), some = false;
  ix outer = offset;
  for (int i = 0; i < s.n; i++) {
    cg_val v = s.val[i] = cg_emit(f, s.term[i]);
    if (v.level <= g->mask.level || v.bufs || v.guarded) continue;
    int64_t a = s.term[i]->lo, z = s.term[i]->hi, c = s.coef[i] * size;
    if (a < -ZEROS || z > ZEROS || c < -ZEROS || c > ZEROS) continue;
    int64_t least = c < 0 ? c * z : c * a, most = c < 0 ? c * a : c * z;
    if (hi + most - lo - least > ZEROS) continue;
    lo += least;
    hi += most;
    inner[i] = some = true;
    cg_join(r, &v);
    outer = ix_sub(f->ctx, outer, ix_muli(f->ctx, s.term[i], s.coef[i]));
  }
  /* the place in the zeros is a part of the key; it is small, see above */
  int kind = CG_GUARDED | b->number << CG_KIND_BITS | (int)(-lo + ZEROS) << 20;
  cg_val p;
  if (!cg_cached(f, outer, kind, &p)) {
    cg_address a = cg_address_of(f, b, outer);
    p = a.at;
    cg_join(&p, &g->mask);
    p.varying = false;
    p.guarded = true;
    cg_at(f, p.level);
    p.v = LLVMBuildSelect(B, cg_any_lane(f, g->mask.v), cg_offset_by(f, a.at.v, a.disp), cg_offset_by(f, zeros(f), -lo), "");
    cg_cache(f, outer, kind, p);
  }
  cg_join(r, &p);
  cg_at(f, r->level);
  if (!some) return p.v;
  LLVMValueRef by = cg_byte_sum(f, b, &s, inner);
  return LLVMBuildGEP2(B, f->i8, p.v, &by, 1, "");
}

/* Where to load from, as above, or without a guard; the builder is then where the load goes. */
static LLVMValueRef load_place(cg_fn *f, const cg_buf *b, ix offset, const cg_guard *g, int64_t bytes, cg_val *r, int64_t *align) {
  *align = cg_bytes_of(b);
  if (g) return guarded_place(f, b, offset, g, bytes, r);
  cg_address a = cg_address_of(f, b, offset);
  *align = a.align;
  cg_join(r, &a.at);
  cg_at(f, r->level);
  return cg_offset_by(f, a.at.v, a.disp);
}

static LLVMValueRef gather(cg_fn *f, const cg_buf *b, LLVMValueRef ptrs, LLVMTypeRef t, const cg_guard *g) {
  LLVMTypeRef mt = LLVMVectorType(f->i1, (unsigned)f->lanes);
  LLVMValueRef mask = !g ? LLVMConstAllOnes(mt) : g->mask.varying ? g->mask.v : cg_splat(f, g->mask.v, f->lanes);
  LLVMValueRef args[] = {ptrs, mask, LLVMConstNull(t)};
  return cg_masked(f, b, "llvm.masked.gather", t, 0, 3, args, (unsigned)cg_bytes_of(b));
}

/* Whether an access at `base` may lie a page and more outside b, as one of several parts does where others are meant. A masked load
 * from pages that are not there takes hundreds of cycles on some CPUs, although all of its lanes are off. */
static bool far_outside(cg_fn *f, const cg_buf *b, ix base) {
  enum { PAGE = 4096 };
  int64_t elements, size = cg_bytes_of(b), far = PAGE / size;
  return !ix_const_value(ir_buf_elements(f->ctx, b->buf), &elements) || base->lo < -far || base->hi >= elements + far;
}

static cg_val load_lanes(cg_fn *f, cg_buf *b, ix offset, const cg_guard *g, cg_val r) {
  LLVMTypeRef element = cg_storage_type(f, b->buf->dtype, 1), t = LLVMVectorType(element, (unsigned)f->lanes);
  int64_t d[CG_MAX_LANES], size = cg_bytes_of(b);
  ix base;
  cg_lane_pattern how = cg_lane_pattern_of(f, offset, &base, d);
  bool masks = g && g->mask.varying;
  r.varying = true;
  if (how == CG_LANES_GENERAL) {
    LLVMValueRef ptrs = cg_lane_pointers(f, b, offset, &r);
    r.v = gather(f, b, ptrs, t, g);
    return r;
  }
  if (how == CG_LANES_REVERSED) base = ix_addi(f->ctx, base, -(f->lanes - 1));
  if (how == CG_LANES_CONTIGUOUS || how == CG_LANES_REVERSED) {
    int64_t align;
    LLVMValueRef p = load_place(f, b, base, masks && !far_outside(f, b, base) ? NULL : g, size * f->lanes, &r, &align);
    r.varying = true;
    r.level = cg_hold(f, r.level, t);
    cg_at(f, r.level);
    if (masks) {
      LLVMValueRef mask = how == CG_LANES_REVERSED ? cg_reverse(f, g->mask.v) : g->mask.v;
      r.v = cg_masked_load(f, b, p, t, mask, (unsigned)align);
    } else r.v = cg_load_at(f, b, p, t, (unsigned)align);
    if (how == CG_LANES_REVERSED) r.v = cg_reverse(f, r.v);
    return r;
  }
  cg_address a = cg_address_of(f, b, base);
  cg_join(&r, &a.at);
  r.varying = true;
  cg_at(f, r.level);
  LLVMValueRef p = cg_offset_by(f, a.at.v, a.disp);
  if (g) {
    LLVMValueRef by = cg_lane_constants(f, d, size);
    r.v = gather(f, b, LLVMBuildGEP2(B, f->i8, p, &by, 1, ""), t, g);
    return r;
  }
  if (how == CG_LANES_STRIDED) {
    r.v = load_strided(f, b, p, t, (int)d[1], a.align);
    return r;
  }
  r.v = LLVMGetPoison(t);
  for (int i = 0; i < f->lanes; i++) {
    int64_t first = 0; /* a repeated offset is loaded once */
    while (d[first] != d[i]) first++;
    LLVMValueRef x = first < i ? cg_lane(f, r.v, (int)first) : cg_load_at(f, b, cg_offset_by(f, a.at.v, a.disp + d[i] * size), element, (unsigned)size);
    r.v = cg_with_lane(f, r.v, x, i);
  }
  return r;
}

cg_val cg_emit_load(cg_fn *f, ix e, bool raw) {
  cg_buf *b = cg_buf_of(f, e->u.buf);
  tn_dtype t = b->buf->dtype;
  if (b->where == CG_SSA) return load_slot(f, b, e);
  ix offset = ir_buf_offset(f->ctx, b->buf, e->args);
  bool safe = cg_safe_load(f, e);
  const cg_guard *g = safe ? NULL : f->guard;
  cg_val r = {.level = b->readonly ? 0 : b->level, .bufs = cg_buf_bit(b), .guarded = g != NULL};
  if (!safe && r.level < f->regions[f->depth].safe) r.level = f->regions[f->depth].safe;
  if (g) {
    cg_join(&r, &g->mask);
    r.varying = false;
  }
  if (cg_varying(f, offset)) r = load_lanes(f, b, offset, g, r);
  else {
    int64_t align;
    LLVMValueRef p = load_place(f, b, offset, g, cg_bytes_of(b), &r, &align);
    r.varying = false;
    r.level = cg_hold(f, r.level, cg_type(f, t, 1));
    cg_at(f, r.level);
    r.v = cg_load_at(f, b, p, cg_storage_type(f, t, 1), (unsigned)cg_bytes_of(b));
  }
  if (!raw) r.v = cg_from_storage(f, t, r.v, r.varying ? f->lanes : 1);
  return r;
}

cg_val cg_emit_run(cg_fn *f, ix e, LLVMTypeRef t, int64_t bytes, bool safe) {
  cg_buf *b = cg_buf_of(f, e->u.buf);
  ix offset = ir_buf_offset(f->ctx, b->buf, e->args);
  const cg_guard *g = safe ? NULL : f->guard;
  bool varying = cg_varying(f, offset), masks = varying && g && g->mask.varying;
  cg_val r = {.level = b->readonly ? 0 : b->level, .bufs = cg_buf_bit(b), .guarded = g != NULL};
  if (!safe && r.level < f->regions[f->depth].safe) r.level = f->regions[f->depth].safe;
  if (g) cg_join(&r, &g->mask);
  if (varying) offset = ix_subst1(f->ctx, offset, f->lane, ix_index(f->ctx, 0));
  int64_t align;
  LLVMValueRef p = load_place(f, b, offset, masks ? NULL : g, bytes, &r, &align);
  r.varying = varying;
  r.level = cg_hold(f, r.level, t);
  cg_at(f, r.level);
  r.v = masks ? cg_masked(f, b, "llvm.masked.load", t, 0, 3, (LLVMValueRef[]){p, g->mask.v, LLVMConstNull(t)}, (unsigned)align) : cg_load_at(f, b, p, t, (unsigned)align);
  return r;
}
