/* llvm_mem.c — addresses, loads and stores; register buffers as SSA values.
 *
 * An address is a base pointer plus terms added level by level (so that outer parts
 * leave the loops) plus a constant that ends in the addressing mode. Lane-wise accesses
 * are one vector where the lanes are contiguous, reversed or a small stride apart, and
 * pieces or gathers otherwise.
 *
 * A load whose indices are proven in bounds may be made anywhere. Any other load is
 * made where its region is certain to be reached, and under a condition either as a
 * masked load or from an address that the condition swaps for some zeros. */
#include "codegen/llvm.h"
#include <string.h>

#define B f->b

enum { ZEROS = 1024 }; /* bytes of zeros to read from: at least one longest vector */

static int64_t size_of(const cg_buf *b) { return (int64_t)ir_dtype_bytes(b->buf->dtype); }

/* ---- metadata and single accesses ---- */

static LLVMValueRef mark(cg_fn *f, const cg_buf *b, LLVMValueRef access, bool load) {
  if (b->scope) LLVMSetMetadata(access, f->kind_scope, b->scope);
  if (b->noalias) LLVMSetMetadata(access, f->kind_noalias, b->noalias);
  if (load && b->where == CG_PARAM && b->readonly) LLVMSetMetadata(access, f->kind_invariant, f->md_invariant);
  return access;
}

static LLVMValueRef load_at(cg_fn *f, const cg_buf *b, LLVMValueRef p, LLVMTypeRef t, unsigned align) {
  LLVMValueRef v = LLVMBuildLoad2(B, t, p, "");
  LLVMSetAlignment(v, align);
  return mark(f, b, v, true);
}

static void store_at(cg_fn *f, const cg_buf *b, LLVMValueRef p, LLVMValueRef v, unsigned align) {
  LLVMValueRef s = LLVMBuildStore(B, v, p);
  LLVMSetAlignment(s, align);
  mark(f, b, s, false);
}

/* Calls llvm.masked.NAME: LLVM 22 takes the alignment as an attribute of the pointer
 * (operand `at`), earlier versions as an i32 after it. */
static LLVMValueRef masked(cg_fn *f, const cg_buf *b, const char *name, LLVMTypeRef data, int at, int n,
                           LLVMValueRef *args, unsigned align) {
  unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
  LLVMTypeRef types[2] = {data, LLVMTypeOf(args[at])};
  LLVMValueRef decl = LLVMGetIntrinsicDeclaration(f->module, id, types, 2);
  LLVMTypeRef fnty = LLVMGlobalGetValueType(decl);
  LLVMValueRef all[5];
  bool old = LLVMCountParamTypes(fnty) == (unsigned)n + 1;
  int m = 0;
  for (int i = 0; i < n; i++) {
    all[m++] = args[i];
    if (i == at && old) all[m++] = LLVMConstInt(f->i32, align, 0);
  }
  LLVMValueRef call = LLVMBuildCall2(B, fnty, decl, all, (unsigned)m, "");
  if (!old) {
    unsigned kind = LLVMGetEnumAttributeKindForName("align", 5);
    LLVMAddCallSiteAttribute(call, (LLVMAttributeIndex)(at + 1), LLVMCreateEnumAttribute(f->lc, kind, align));
  }
  return mark(f, b, call, strstr(name, "load") || strstr(name, "gather"));
}

static LLVMValueRef offset_by(cg_fn *f, LLVMValueRef p, int64_t bytes) {
  if (bytes == 0) return p;
  LLVMValueRef by = LLVMConstInt(f->i64, (unsigned long long)bytes, 1);
  return LLVMBuildGEP2(B, f->i8, p, &by, 1, "");
}

/* Lanes of a constant mask as bits; false when it is not constant. */
static bool mask_bits(LLVMValueRef mask, int lanes, uint64_t *bits) {
  *bits = 0;
  if (!LLVMIsConstant(mask)) return false;
  for (int i = 0; i < lanes; i++) {
    LLVMValueRef on = LLVMGetAggregateElement(mask, (unsigned)i);
    if (!on || !LLVMIsAConstantInt(on)) return false;
    if (LLVMConstIntGetZExtValue(on)) *bits |= 1ull << i;
  }
  return true;
}

/* Contiguous lanes under a mask. Constant masks of no, one or all lanes are spelled out:
 * LLVM (19 to 22) writes too many bytes for one lane of a truncated vector. */
static LLVMValueRef masked_load(cg_fn *f, const cg_buf *b, LLVMValueRef p, LLVMTypeRef t, LLVMValueRef mask, unsigned align) {
  int n = f->lanes;
  uint64_t bits, all = n == 64 ? ~0ull : (1ull << n) - 1;
  if (mask_bits(mask, n, &bits)) {
    if (bits == all) return load_at(f, b, p, t, align);
    if (bits == 0) return LLVMConstNull(t);
    if ((bits & (bits - 1)) == 0) {
      int i = __builtin_ctzll(bits);
      unsigned size = (unsigned)size_of(b);
      LLVMValueRef x = load_at(f, b, offset_by(f, p, i * (int64_t)size), LLVMGetElementType(t), size);
      return LLVMBuildInsertElement(B, LLVMConstNull(t), x, LLVMConstInt(f->i32, (unsigned)i, 0), "");
    }
  }
  return masked(f, b, "llvm.masked.load", t, 0, 3, (LLVMValueRef[]){p, mask, LLVMConstNull(t)}, align);
}

static void masked_store(cg_fn *f, const cg_buf *b, LLVMValueRef p, LLVMValueRef v, LLVMValueRef mask, unsigned align) {
  int n = f->lanes;
  uint64_t bits, all = n == 64 ? ~0ull : (1ull << n) - 1;
  if (mask_bits(mask, n, &bits)) {
    if (bits == 0) return;
    if (bits == all) {
      store_at(f, b, p, v, align);
      return;
    }
    if ((bits & (bits - 1)) == 0) {
      int i = __builtin_ctzll(bits);
      unsigned size = (unsigned)size_of(b);
      LLVMValueRef x = LLVMBuildExtractElement(B, v, LLVMConstInt(f->i32, (unsigned)i, 0), "");
      store_at(f, b, offset_by(f, p, i * (int64_t)size), x, size);
      return;
    }
  }
  masked(f, b, "llvm.masked.store", LLVMTypeOf(v), 1, 3, (LLVMValueRef[]){v, p, mask}, align);
}

/* Any lane on? A scalar condition is itself. */
static LLVMValueRef any(cg_fn *f, LLVMValueRef mask) {
  LLVMTypeRef t = LLVMTypeOf(mask);
  if (LLVMGetTypeKind(t) != LLVMVectorTypeKind) return mask;
  LLVMTypeRef bits = LLVMIntTypeInContext(f->lc, LLVMGetVectorSize(t));
  return LLVMBuildICmp(B, LLVMIntNE, LLVMBuildBitCast(B, mask, bits, ""), LLVMConstNull(bits), "");
}

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

static LLVMValueRef sink(cg_fn *f) {
  if (f->sink) return f->sink;
  LLVMPositionBuilderBefore(B, f->entry_end);
  f->sink = LLVMBuildAlloca(B, f->i64, "sink");
  LLVMBuildStore(B, LLVMConstInt(f->i64, 0, 0), f->sink);
  cg_at(f, f->depth);
  return f->sink;
}

/* ---- addresses ---- */

/* Parameters are only trusted to be aligned to their elements: callers of a model bring
 * memory of their own, and unaligned vectors cost nothing where the data is aligned. */
static int64_t align_of(const cg_buf *b, const cg_sum *s) {
  int64_t bits = b->where == CG_PARAM ? size_of(b) : 64;
  bits |= s->c0 * size_of(b);
  for (int i = 0; i < s->n; i++) bits |= s->coef[i] * size_of(b);
  return bits & -bits;
}

/* Sum of coef * size of element * term over the terms that `use` allows (null: all). */
static LLVMValueRef byte_sum(cg_fn *f, const cg_buf *b, const cg_sum *s, const bool *use) {
  LLVMValueRef sum = NULL;
  for (int i = 0; i < s->n; i++) {
    if (use && !use[i]) continue;
    LLVMValueRef v = LLVMBuildMul(B, s->val[i].v, LLVMConstInt(f->i64, (unsigned long long)(s->coef[i] * size_of(b)), 1), "");
    sum = sum ? LLVMBuildAdd(B, sum, v, "") : v;
  }
  return sum;
}

/* Pointer to the element `rest` (uniform, no constant part). */
static cg_val pointer(cg_fn *f, const cg_buf *b, ix rest) {
  cg_val r = {.v = b->base};
  if (ix_is_int(rest, 0)) return r;
  int kind = CG_POINTER | b->number << CG_KIND_BITS;
  if (cg_cached(f, rest, kind, &r)) return r;
  cg_sum s = cg_sum_of(f, rest);
  bool *here = IR_NEW_ARRAY(f->ctx, bool, s.n);
  ix low = ix_index(f->ctx, 0);
  r = (cg_val){0};
  for (int i = 0; i < s.n; i++) {
    s.val[i] = cg_emit(f, s.term[i]);
    cg_join(&r, &s.val[i]);
  }
  for (int i = 0; i < s.n; i++) {
    here[i] = s.val[i].level >= r.level;
    if (!here[i]) low = ix_add(f->ctx, low, ix_muli(f->ctx, s.term[i], s.coef[i]));
  }
  LLVMValueRef base = pointer(f, b, low).v;
  cg_at(f, r.level);
  LLVMValueRef by = byte_sum(f, b, &s, here);
  /* frozen, loop strength reduction sees this pointer move and not each access beside it: a fifth of LLVM's time less,
   * and no pointers of its own making, which made products and convolutions 3 to 10 % slower */
  r.v = LLVMBuildFreeze(B, LLVMBuildGEP2(B, f->i8, base, &by, 1, ""), "");
  cg_at(f, f->depth);
  cg_cache(f, rest, kind, r);
  return r;
}

typedef struct address {
  cg_val at;     /* pointer without the displacement */
  int64_t disp;  /* bytes */
  int64_t align; /* of the sum; a power of two, at most 64 */
} address;

static address address_of(cg_fn *f, const cg_buf *b, ix offset) {
  cg_sum s = cg_sum_of(f, offset);
  return (address){pointer(f, b, s.c0 ? ix_addi(f->ctx, offset, -s.c0) : offset), s.c0 * size_of(b), align_of(b, &s)};
}

/* ---- where lanes lie ---- */

typedef enum pattern { CONTIGUOUS, REVERSED, STRIDED, CONSTANT, GENERAL } pattern;

/* How the lanes' offsets lie, relative to *base, the offset of lane 0; d[i] in elements
 * for all patterns but GENERAL. */
static pattern lanes_of(cg_fn *f, ix offset, ix *base, int64_t *d) {
  tn_ctx *ctx = f->ctx;
  int64_t c;
  int n = f->lanes;
  *base = ix_subst1(ctx, offset, f->lane, ix_index(ctx, 0));
  if (cg_varying(f, *base)) return GENERAL;
  if (ix_affine_in(offset, f->lane, &c)) {
    for (int i = 0; i < n; i++) d[i] = c * i;
  } else {
    for (int i = 0; i < n; i++)
      if (!ix_const_value(ix_sub(ctx, ix_subst1(ctx, offset, f->lane, ix_index(ctx, i)), *base), &d[i])) return GENERAL;
    c = d[1];
    for (int i = 2; i < n; i++)
      if (d[i] - d[i - 1] != c) return CONSTANT;
  }
  return c == 1 ? CONTIGUOUS : c == -1 ? REVERSED : c >= 2 && c <= 4 ? STRIDED : CONSTANT;
}

static LLVMValueRef reverse(cg_fn *f, LLVMValueRef v) {
  LLVMValueRef index[CG_MAX_LANES];
  for (int i = 0; i < f->lanes; i++) index[i] = LLVMConstInt(f->i32, (unsigned)(f->lanes - 1 - i), 0);
  return LLVMBuildShuffleVector(B, v, LLVMGetPoison(LLVMTypeOf(v)), LLVMConstVector(index, (unsigned)f->lanes), "");
}

static LLVMValueRef lane(cg_fn *f, LLVMValueRef v, int i) {
  return LLVMBuildExtractElement(B, v, LLVMConstInt(f->i32, (unsigned)i, 0), "");
}

static LLVMValueRef with_lane(cg_fn *f, LLVMValueRef v, LLVMValueRef x, int i) {
  return LLVMBuildInsertElement(B, v, x, LLVMConstInt(f->i32, (unsigned)i, 0), "");
}

/* Every c-th element from p: c contiguous loads, the last one ending with the last
 * element that is wanted, and c-1 shuffles. */
static LLVMValueRef load_strided(cg_fn *f, const cg_buf *b, LLVMValueRef p, LLVMTypeRef t, int c, int64_t align) {
  int n = f->lanes, last = c * (n - 1) + 1 - n; /* first element of the last load */
  LLVMValueRef sum = NULL, index[CG_MAX_LANES];
  int64_t size = size_of(b);
  for (int q = 0; q < c; q++) {
    int from = q == c - 1 ? last : q * n;
    LLVMValueRef v = load_at(f, b, offset_by(f, p, from * size), t, (unsigned)(from == 0 || (from * size) % align == 0 ? align : size));
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

/* ---- register buffers ---- */

static LLVMTypeRef slot_type(cg_fn *f, const cg_buf *b) { return cg_type(f, b->buf->dtype, b->lanes > 1 ? b->lanes : b->group); }

static LLVMValueRef slot(cg_fn *f, cg_buf *b, int64_t i) {
  return b->slots[i] ? b->slots[i] : LLVMConstNull(slot_type(f, b));
}

static void slot_place(cg_fn *f, const cg_buf *b, const ix *index, int64_t *base, int64_t *stride) {
  if (!cg_slot_access(f->ctx, b->buf, index, f->lane, base, stride) || *base < 0 || *base >= b->elements)
    ir_bug(f->ctx, "kernel %s: register buffer %s has no constant index here", f->plan->kernel->name, b->buf->name);
}

static LLVMValueRef piece(cg_fn *f, LLVMValueRef v, int from, int n) {
  LLVMValueRef index[CG_MAX_LANES];
  if (n == 1) return lane(f, v, from);
  for (int i = 0; i < n; i++) index[i] = LLVMConstInt(f->i32, (unsigned)(from + i), 0);
  return LLVMBuildShuffleVector(B, v, LLVMGetPoison(LLVMTypeOf(v)), LLVMConstVector(index, (unsigned)n), "");
}

/* Puts `parts` values of `group` elements each side by side. */
static LLVMValueRef concat(cg_fn *f, LLVMTypeRef element, const LLVMValueRef *v, int parts, int group) {
  if (parts == 1) return v[0];
  int n = parts * group;
  LLVMValueRef r = LLVMGetPoison(LLVMVectorType(element, (unsigned)n)), index[CG_MAX_LANES];
  for (int p = 0; p < parts; p++) {
    if (group == 1) {
      r = with_lane(f, r, v[p], p);
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
  slot_place(f, b, e->args, &base, &stride);
  cg_val r = {.level = b->level, .bufs = cg_buf_bit(b), .varying = stride != 0 || b->lanes > 1};
  cg_at(f, r.level);
  if (b->lanes > 1) r.v = slot(f, b, base);
  else if (stride == 0) {
    r.v = slot(f, b, base / b->group);
    if (b->group > 1) r.v = lane(f, r.v, (int)(base % b->group));
  } else {
    LLVMValueRef parts[CG_MAX_LANES];
    int n = f->lanes / b->group;
    for (int i = 0; i < n; i++) parts[i] = slot(f, b, base / b->group + i);
    r.v = concat(f, cg_type(f, b->buf->dtype, 1), parts, n, b->group);
  }
  return r;
}

/* ---- loads ---- */

static bool in_bounds(int rank, const ix *index, const ix *shape) {
  for (int i = 0; i < rank; i++)
    if (index[i]->lo < 0 || index[i]->hi >= shape[i]->lo) return false;
  return true;
}

/* Does every value of the index name an element of the buffer, or else padding that its layout adds? */
static bool in_memory(cg_fn *f, const ir_buf *buf, const ix *index) {
  if (in_bounds(buf->rank, index, buf->shape)) return true;
  if (!buf->layout) return false;
  ix at[IR_MAX_RANK], extent[IR_MAX_RANK];
  ir_layout_shape(f->ctx, buf->layout, buf->rank, buf->shape, extent);
  return in_bounds(ir_layout_index(f->ctx, buf->layout, buf->rank, index, at), at, extent);
}

/* What lies in padding is nobody's: a load may read it where it is guarded to leave it out. */
bool cg_safe_load(cg_fn *f, ix e) {
  const ir_buf *buf = e->u.buf;
  return cg_buf_of(f, buf)->where == CG_SSA || in_memory(f, buf, e->args);
}

/* Where to load `bytes` from under a guard: the element, or zeros where the guard is off.
 * The choice is made as far out as the guard is known, if what is added further in cannot
 * lead out of the zeros. r is joined with what the address depends on. */
static LLVMValueRef guarded_place(cg_fn *f, const cg_buf *b, ix offset, const cg_guard *g, int64_t bytes, cg_val *r) {
  cg_sum s = cg_sum_of(f, offset);
  int64_t lo = 0, hi = bytes, size = size_of(b);
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
    address a = address_of(f, b, outer);
    p = a.at;
    cg_join(&p, &g->mask);
    p.varying = false;
    p.guarded = true;
    cg_at(f, p.level);
    p.v = LLVMBuildSelect(B, any(f, g->mask.v), offset_by(f, a.at.v, a.disp), offset_by(f, zeros(f), -lo), "");
    cg_cache(f, outer, kind, p);
  }
  cg_join(r, &p);
  cg_at(f, r->level);
  if (!some) return p.v;
  LLVMValueRef by = byte_sum(f, b, &s, inner);
  return LLVMBuildGEP2(B, f->i8, p.v, &by, 1, "");
}

/* Where to load from, as above, or without a guard; the builder is then where the load goes. */
static LLVMValueRef load_place(cg_fn *f, const cg_buf *b, ix offset, const cg_guard *g, int64_t bytes, cg_val *r, int64_t *align) {
  *align = size_of(b);
  if (g) return guarded_place(f, b, offset, g, bytes, r);
  address a = address_of(f, b, offset);
  *align = a.align;
  cg_join(r, &a.at);
  cg_at(f, r->level);
  return offset_by(f, a.at.v, a.disp);
}

static LLVMValueRef gather(cg_fn *f, const cg_buf *b, LLVMValueRef ptrs, LLVMTypeRef t, const cg_guard *g) {
  LLVMTypeRef mt = LLVMVectorType(f->i1, (unsigned)f->lanes);
  LLVMValueRef mask = !g ? LLVMConstAllOnes(mt) : g->mask.varying ? g->mask.v : cg_splat(f, g->mask.v, f->lanes);
  LLVMValueRef args[] = {ptrs, mask, LLVMConstNull(t)};
  return masked(f, b, "llvm.masked.gather", t, 0, 3, args, (unsigned)size_of(b));
}

static LLVMValueRef lane_constants(cg_fn *f, const int64_t *d, int64_t scale) {
  LLVMValueRef items[CG_MAX_LANES];
  for (int i = 0; i < f->lanes; i++) items[i] = LLVMConstInt(f->i64, (unsigned long long)(d[i] * scale), 1);
  return LLVMConstVector(items, (unsigned)f->lanes);
}

/* Pointers of all lanes for a general pattern; *level is raised to where they are. */
static LLVMValueRef general_pointers(cg_fn *f, const cg_buf *b, ix offset, cg_val *r) {
  cg_val v = cg_emit(f, offset);
  LLVMValueRef index = cg_vector_of(f, offset, &v);
  cg_join(r, &v);
  cg_at(f, r->level);
  LLVMTypeRef t = LLVMVectorType(f->i64, (unsigned)f->lanes);
  if (LLVMGetElementType(LLVMTypeOf(index)) != f->i64) index = LLVMBuildSExt(B, index, t, "");
  return LLVMBuildGEP2(B, cg_storage_type(f, b->buf->dtype, 1), b->base, &index, 1, "");
}

/* Whether an access at `base` may lie a page and more outside b, as one of several parts does where others are meant. A masked load
 * from pages that are not there takes hundreds of cycles on some CPUs, although all of its lanes are off. */
static bool far_outside(cg_fn *f, const cg_buf *b, ix base) {
  enum { PAGE = 4096 };
  int64_t elements, size = size_of(b), far = PAGE / size;
  return !ix_const_value(ir_buf_elements(f->ctx, b->buf), &elements) || base->lo < -far || base->hi >= elements + far;
}

static cg_val load_lanes(cg_fn *f, cg_buf *b, ix offset, const cg_guard *g, cg_val r) {
  LLVMTypeRef element = cg_storage_type(f, b->buf->dtype, 1), t = LLVMVectorType(element, (unsigned)f->lanes);
  int64_t d[CG_MAX_LANES], size = size_of(b);
  ix base;
  pattern how = lanes_of(f, offset, &base, d);
  bool masks = g && g->mask.varying;
  r.varying = true;
  if (how == GENERAL) {
    LLVMValueRef ptrs = general_pointers(f, b, offset, &r);
    r.v = gather(f, b, ptrs, t, g);
    return r;
  }
  if (how == REVERSED) base = ix_addi(f->ctx, base, -(f->lanes - 1));
  if (how == CONTIGUOUS || how == REVERSED) {
    int64_t align;
    LLVMValueRef p = load_place(f, b, base, masks && !far_outside(f, b, base) ? NULL : g, size * f->lanes, &r, &align);
    r.varying = true;
    r.level = cg_hold(f, r.level, t);
    cg_at(f, r.level);
    if (masks) {
      LLVMValueRef mask = how == REVERSED ? reverse(f, g->mask.v) : g->mask.v;
      r.v = masked_load(f, b, p, t, mask, (unsigned)align);
    } else r.v = load_at(f, b, p, t, (unsigned)align);
    if (how == REVERSED) r.v = reverse(f, r.v);
    return r;
  }
  address a = address_of(f, b, base);
  cg_join(&r, &a.at);
  r.varying = true;
  cg_at(f, r.level);
  LLVMValueRef p = offset_by(f, a.at.v, a.disp);
  if (g) {
    LLVMValueRef by = lane_constants(f, d, size);
    r.v = gather(f, b, LLVMBuildGEP2(B, f->i8, p, &by, 1, ""), t, g);
    return r;
  }
  if (how == STRIDED) {
    r.v = load_strided(f, b, p, t, (int)d[1], a.align);
    return r;
  }
  r.v = LLVMGetPoison(t);
  for (int i = 0; i < f->lanes; i++) {
    int64_t first = 0; /* a repeated offset is loaded once */
    while (d[first] != d[i]) first++;
    LLVMValueRef x = first < i ? lane(f, r.v, (int)first) : load_at(f, b, offset_by(f, a.at.v, a.disp + d[i] * size), element, (unsigned)size);
    r.v = with_lane(f, r.v, x, i);
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
    LLVMValueRef p = load_place(f, b, offset, g, size_of(b), &r, &align);
    r.varying = false;
    r.level = cg_hold(f, r.level, cg_type(f, t, 1));
    cg_at(f, r.level);
    r.v = load_at(f, b, p, cg_storage_type(f, t, 1), (unsigned)size_of(b));
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
  r.v = masks ? masked(f, b, "llvm.masked.load", t, 0, 3, (LLVMValueRef[]){p, g->mask.v, LLVMConstNull(t)}, (unsigned)align) : load_at(f, b, p, t, (unsigned)align);
  return r;
}

/* ---- stores ---- */

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
  if (op == IR_SET) return lane(f, v, n - 1);
  if (f->guard && f->guard->mask.varying) {
    LLVMTypeRef ty = LLVMTypeOf(v);
    LLVMValueRef idle = op == IR_ADD ? (ir_is_float(t) ? cg_real(f, ty, -0.0) : cg_int(f, ty, 0))
                        : op == IR_MUL ? (ir_is_float(t) ? cg_real(f, ty, 1) : cg_int(f, ty, 1))
                        : cg_splat(f, old, n); /* max, min, or, and: old op old = old */
    v = LLVMBuildSelect(B, f->guard->mask.v, v, idle, "");
  }
  while (n % 2 == 0) {
    n /= 2;
    v = cg_binary(f, update_op[op], t, piece(f, v, 0, n), piece(f, v, n, n), n);
  }
  if (n == 1) return v;
  LLVMValueRef r = lane(f, v, 0);
  for (int i = 1; i < n; i++) r = cg_binary(f, update_op[op], t, r, lane(f, v, i), 1);
  return r;
}

/* Do the lanes differ in what they do to one common place? */
static bool needs_reduction(cg_fn *f, ir_store_op op, const cg_val *v) {
  return f->lane && (v->varying || op != IR_SET || (f->guard && f->guard->mask.varying));
}

static void store_slot(cg_fn *f, cg_buf *b, const ir_stmt *s) {
  tn_dtype t = b->buf->dtype;
  int64_t base, stride;
  slot_place(f, b, s->index, &base, &stride);
  cg_val v = cg_emit(f, s->value);
  LLVMValueRef mask = f->guard && f->guard->mask.varying ? f->guard->mask.v : NULL;
  if (b->lanes > 1 || stride != 0) {
    LLVMValueRef all = cg_vector_of(f, s->value, &v);
    if (LLVMGetElementType(LLVMTypeOf(all)) == f->i32 && t == TN_INDEX) all = LLVMBuildSExt(B, all, cg_type(f, t, f->lanes), "");
    int n = b->lanes > 1 ? 1 : f->lanes / b->group, group = b->lanes > 1 ? f->lanes : b->group;
    int64_t first = b->lanes > 1 ? base : base / b->group;
    for (int i = 0; i < n; i++) {
      LLVMValueRef *p = &b->slots[first + i], old = slot(f, b, first + i);
      LLVMValueRef x = n == 1 ? all : piece(f, all, i * group, group);
      x = updated(f, s->op, t, old, x, group);
      bool covered = b->cover[first + i] && !ix_is_int(b->cover[first + i], 0); /* the other lanes are nobody's */
      if (mask && !covered) x = LLVMBuildSelect(B, n == 1 ? mask : piece(f, mask, i * group, group), x, old, "");
      *p = x;
    }
  } else {
    LLVMValueRef *p = &b->slots[base / b->group], whole = slot(f, b, base / b->group), old = whole, x = v.v;
    int at = (int)(base % b->group);
    if (b->group > 1 && (s->op != IR_SET || mask)) old = lane(f, whole, at);
    if (needs_reduction(f, s->op, &v)) {
      x = cg_vector_of(f, s->value, &v);
      if (LLVMGetElementType(LLVMTypeOf(x)) == f->i32 && t == TN_INDEX) x = LLVMBuildSExt(B, x, cg_type(f, t, f->lanes), "");
      x = reduced(f, s->op, t, x, old);
    }
    x = updated(f, s->op, t, old, x, 1);
    *p = b->group > 1 ? with_lane(f, whole, x, at) : x;
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
  address a = address_of(f, b, offset);
  cg_at(f, f->depth);
  LLVMValueRef p = offset_by(f, a.at.v, a.disp), x = v.v, old = NULL;
  const cg_guard *g = f->guard;
  if (g) p = LLVMBuildSelect(B, any(f, g->mask.v), p, sink(f), "");
  if (s->op != IR_SET) old = cg_from_storage(f, t, load_at(f, b, p, cg_storage_type(f, t, 1), (unsigned)size_of(b)), 1);
  if (needs_reduction(f, s->op, &v)) {
    x = v.varying ? v.v : cg_splat(f, v.v, f->lanes);
    if (t == TN_INDEX && LLVMGetElementType(LLVMTypeOf(x)) == f->i32) x = LLVMBuildSExt(B, x, cg_type(f, t, f->lanes), "");
    x = reduced(f, s->op, t, x, old);
  }
  x = updated(f, s->op, t, old, x, 1);
  if (!raw) x = cg_to_storage(f, t, x, 1);
  store_at(f, b, p, x, (unsigned)size_of(b));
}

/* One lane after the other: lanes of an update may meet in one place. */
static void store_pieces(cg_fn *f, cg_buf *b, const ir_stmt *s, LLVMValueRef ptrs, LLVMValueRef all, bool raw) {
  tn_dtype t = b->buf->dtype;
  for (int i = 0; i < f->lanes; i++) {
    LLVMValueRef p = lane(f, ptrs, i), x = lane(f, all, i);
    if (f->guard) {
      LLVMValueRef on = f->guard->mask.varying ? lane(f, f->guard->mask.v, i) : f->guard->mask.v;
      p = LLVMBuildSelect(B, on, p, sink(f), "");
    }
    if (s->op != IR_SET) {
      LLVMValueRef old = cg_from_storage(f, t, load_at(f, b, p, cg_storage_type(f, t, 1), (unsigned)size_of(b)), 1);
      x = updated(f, s->op, t, old, x, 1);
    }
    if (!raw) x = cg_to_storage(f, t, x, 1);
    store_at(f, b, p, x, (unsigned)size_of(b));
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
  return in_memory(f, b, s->index);
}

static void store_lanes(cg_fn *f, cg_buf *b, const ir_stmt *s, ix offset, cg_val v, bool raw) {
  tn_dtype t = b->buf->dtype;
  int64_t d[CG_MAX_LANES], size = size_of(b);
  ix base;
  LLVMValueRef all = raw && !v.varying ? cg_splat(f, v.v, f->lanes) : cg_vector_of(f, s->value, &v);
  if (t == TN_INDEX && LLVMGetElementType(LLVMTypeOf(all)) == f->i32) all = LLVMBuildSExt(B, all, cg_type(f, t, f->lanes), "");
  pattern how = lanes_of(f, offset, &base, d);
  cg_val deps = {.level = f->depth};
  if (how == GENERAL) {
    LLVMValueRef ptrs = general_pointers(f, b, offset, &deps);
    cg_at(f, f->depth);
    store_pieces(f, b, s, ptrs, all, raw);
    return;
  }
  if (how == REVERSED) base = ix_addi(f->ctx, base, -(f->lanes - 1));
  address a = address_of(f, b, base);
  cg_at(f, f->depth);
  LLVMValueRef p = offset_by(f, a.at.v, a.disp);
  if (how != CONTIGUOUS && how != REVERSED) {
    LLVMValueRef by = lane_constants(f, d, size);
    store_pieces(f, b, s, LLVMBuildGEP2(B, f->i8, p, &by, 1, ""), all, raw);
    return;
  }
  LLVMTypeRef vt = cg_storage_type(f, t, f->lanes);
  LLVMValueRef mask = f->guard && !spills_into_padding(f, s) ? f->guard->mask.v : NULL;
  if (how == REVERSED) {
    all = reverse(f, all);
    if (mask) mask = reverse(f, mask);
  }
  if (s->op != IR_SET) {
    LLVMValueRef old = mask ? masked_load(f, b, p, vt, mask, (unsigned)a.align)
                            : load_at(f, b, p, vt, (unsigned)a.align);
    all = updated(f, s->op, t, cg_from_storage(f, t, old, f->lanes), all, f->lanes);
  }
  if (!raw) all = cg_to_storage(f, t, all, f->lanes);
  if (mask) masked_store(f, b, p, all, mask, (unsigned)a.align);
  else store_at(f, b, p, all, (unsigned)a.align);
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
  address a = address_of(f, b, offset);
  cg_at(f, f->depth);
  LLVMValueRef args[] = {offset_by(f, a.at.v, a.disp), LLVMConstInt(f->i32, b->buf->access == IR_OUT, 0), LLVMConstInt(f->i32, (unsigned)f->prefetch, 0), LLVMConstInt(f->i32, 1, 0)};
  cg_intrinsic(f, "llvm.prefetch", f->ptr, NULL, 4, args);
}

void cg_emit_prefetch(cg_fn *f, const ir_stmt *s) { prefetch_loads(f, s->value); }
