/* llvm_address.c — where accesses lie, and accesses of one value.
 *
 * An address is a base pointer plus terms added level by level (so that outer parts
 * leave the loops) plus a constant that ends in the addressing mode. */
#include "codegen/llvm_mem.h"
#include <string.h>

#define B f->b

int64_t cg_bytes_of(const cg_buf *b) { return (int64_t)ir_dtype_bytes(b->buf->dtype); }

/* ---- metadata and single accesses ---- */

static LLVMValueRef mark(cg_fn *f, const cg_buf *b, LLVMValueRef access, bool load) {
  if (b->scope) LLVMSetMetadata(access, f->kind_scope, b->scope);
  if (b->noalias) LLVMSetMetadata(access, f->kind_noalias, b->noalias);
  if (load && b->where == CG_PARAM && b->readonly) LLVMSetMetadata(access, f->kind_invariant, f->md_invariant);
  return access;
}

LLVMValueRef cg_load_at(cg_fn *f, const cg_buf *b, LLVMValueRef p, LLVMTypeRef t, unsigned align) {
  LLVMValueRef v = LLVMBuildLoad2(B, t, p, "");
  LLVMSetAlignment(v, align);
  return mark(f, b, v, true);
}

void cg_store_at(cg_fn *f, const cg_buf *b, LLVMValueRef p, LLVMValueRef v, unsigned align) {
  LLVMValueRef s = LLVMBuildStore(B, v, p);
  LLVMSetAlignment(s, align);
  mark(f, b, s, false);
}

/* Calls llvm.masked.NAME: LLVM 22 takes the alignment as an attribute of the pointer
 * (operand `at`), earlier versions as an i32 after it. */
LLVMValueRef cg_masked(cg_fn *f, const cg_buf *b, const char *name, LLVMTypeRef data, int at, int n,
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

LLVMValueRef cg_offset_by(cg_fn *f, LLVMValueRef p, int64_t bytes) {
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
LLVMValueRef cg_masked_load(cg_fn *f, const cg_buf *b, LLVMValueRef p, LLVMTypeRef t, LLVMValueRef mask, unsigned align) {
  int n = f->lanes;
  uint64_t bits, all = n == 64 ? ~0ull : (1ull << n) - 1;
  if (mask_bits(mask, n, &bits)) {
    if (bits == all) return cg_load_at(f, b, p, t, align);
    if (bits == 0) return LLVMConstNull(t);
    if ((bits & (bits - 1)) == 0) {
      int i = __builtin_ctzll(bits);
      unsigned size = (unsigned)cg_bytes_of(b);
      LLVMValueRef x = cg_load_at(f, b, cg_offset_by(f, p, i * (int64_t)size), LLVMGetElementType(t), size);
      return LLVMBuildInsertElement(B, LLVMConstNull(t), x, LLVMConstInt(f->i32, (unsigned)i, 0), "");
    }
  }
  return cg_masked(f, b, "llvm.masked.load", t, 0, 3, (LLVMValueRef[]){p, mask, LLVMConstNull(t)}, align);
}

void cg_masked_store(cg_fn *f, const cg_buf *b, LLVMValueRef p, LLVMValueRef v, LLVMValueRef mask, unsigned align) {
  int n = f->lanes;
  uint64_t bits, all = n == 64 ? ~0ull : (1ull << n) - 1;
  if (mask_bits(mask, n, &bits)) {
    if (bits == 0) return;
    if (bits == all) {
      cg_store_at(f, b, p, v, align);
      return;
    }
    if ((bits & (bits - 1)) == 0) {
      int i = __builtin_ctzll(bits);
      unsigned size = (unsigned)cg_bytes_of(b);
      LLVMValueRef x = LLVMBuildExtractElement(B, v, LLVMConstInt(f->i32, (unsigned)i, 0), "");
      cg_store_at(f, b, cg_offset_by(f, p, i * (int64_t)size), x, size);
      return;
    }
  }
  cg_masked(f, b, "llvm.masked.store", LLVMTypeOf(v), 1, 3, (LLVMValueRef[]){v, p, mask}, align);
}

/* Any lane on? A scalar condition is itself. */
LLVMValueRef cg_any_lane(cg_fn *f, LLVMValueRef mask) {
  LLVMTypeRef t = LLVMTypeOf(mask);
  if (LLVMGetTypeKind(t) != LLVMVectorTypeKind) return mask;
  LLVMTypeRef bits = LLVMIntTypeInContext(f->lc, LLVMGetVectorSize(t));
  return LLVMBuildICmp(B, LLVMIntNE, LLVMBuildBitCast(B, mask, bits, ""), LLVMConstNull(bits), "");
}

/* ---- addresses ---- */

/* Parameters are only trusted to be aligned to their elements: callers of a model bring
 * memory of their own, and unaligned vectors cost nothing where the data is aligned. */
static int64_t align_of(const cg_buf *b, const cg_sum *s) {
  int64_t bits = b->where == CG_PARAM ? cg_bytes_of(b) : 64;
  bits |= s->c0 * cg_bytes_of(b);
  for (int i = 0; i < s->n; i++) bits |= s->coef[i] * cg_bytes_of(b);
  return bits & -bits;
}

/* Sum of coef * size of element * term over the terms that `use` allows (null: all). */
LLVMValueRef cg_byte_sum(cg_fn *f, const cg_buf *b, const cg_sum *s, const bool *use) {
  LLVMValueRef sum = NULL;
  for (int i = 0; i < s->n; i++) {
    if (use && !use[i]) continue;
    LLVMValueRef v = LLVMBuildMul(B, s->val[i].v, LLVMConstInt(f->i64, (unsigned long long)(s->coef[i] * cg_bytes_of(b)), 1), "");
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
  LLVMValueRef by = cg_byte_sum(f, b, &s, here);
  /* frozen, loop strength reduction sees this pointer move and not each access beside it: a fifth of LLVM's time less,
   * and no pointers of its own making, which made products and convolutions 3 to 10 % slower */
  r.v = LLVMBuildFreeze(B, LLVMBuildGEP2(B, f->i8, base, &by, 1, ""), "");
  cg_at(f, f->depth);
  cg_cache(f, rest, kind, r);
  return r;
}

cg_address cg_address_of(cg_fn *f, const cg_buf *b, ix offset) {
  cg_sum s = cg_sum_of(f, offset);
  return (cg_address){pointer(f, b, s.c0 ? ix_addi(f->ctx, offset, -s.c0) : offset), s.c0 * cg_bytes_of(b), align_of(b, &s)};
}

static bool in_bounds(int rank, const ix *index, const ix *shape) {
  for (int i = 0; i < rank; i++)
    if (index[i]->lo < 0 || index[i]->hi >= shape[i]->lo) return false;
  return true;
}

/* Does every value of the index name an element of the buffer, or else padding that its layout adds? */
bool cg_in_memory(cg_fn *f, const ir_buf *buf, const ix *index) {
  if (in_bounds(buf->rank, index, buf->shape)) return true;
  if (!buf->layout) return false;
  ix at[IR_MAX_RANK], extent[IR_MAX_RANK];
  ir_layout_shape(f->ctx, buf->layout, buf->rank, buf->shape, extent);
  return in_bounds(ir_layout_index(f->ctx, buf->layout, buf->rank, index, at), at, extent);
}

/* ---- lanes ---- */

/* How the lanes' offsets lie, relative to *base, the offset of lane 0; d[i] in elements
 * for all patterns but CG_LANES_GENERAL. */
cg_lane_pattern cg_lane_pattern_of(cg_fn *f, ix offset, ix *base, int64_t *d) {
  tn_ctx *ctx = f->ctx;
  int64_t c;
  int n = f->lanes;
  *base = ix_subst1(ctx, offset, f->lane, ix_index(ctx, 0));
  if (cg_varying(f, *base)) return CG_LANES_GENERAL;
  if (ix_affine_in(offset, f->lane, &c)) {
    for (int i = 0; i < n; i++) d[i] = c * i;
  } else {
    for (int i = 0; i < n; i++)
      if (!ix_const_value(ix_sub(ctx, ix_subst1(ctx, offset, f->lane, ix_index(ctx, i)), *base), &d[i])) return CG_LANES_GENERAL;
    c = d[1];
    for (int i = 2; i < n; i++)
      if (d[i] - d[i - 1] != c) return CG_LANES_CONSTANT;
  }
  return c == 1 ? CG_LANES_CONTIGUOUS : c == -1 ? CG_LANES_REVERSED : c >= 2 && c <= 4 ? CG_LANES_STRIDED : CG_LANES_CONSTANT;
}

LLVMValueRef cg_lane_constants(cg_fn *f, const int64_t *d, int64_t scale) {
  LLVMValueRef items[CG_MAX_LANES];
  for (int i = 0; i < f->lanes; i++) items[i] = LLVMConstInt(f->i64, (unsigned long long)(d[i] * scale), 1);
  return LLVMConstVector(items, (unsigned)f->lanes);
}

/* Pointers of all lanes for a general pattern; *level is raised to where they are. */
LLVMValueRef cg_lane_pointers(cg_fn *f, const cg_buf *b, ix offset, cg_val *r) {
  cg_val v = cg_emit(f, offset);
  LLVMValueRef index = cg_vector_of(f, offset, &v);
  cg_join(r, &v);
  cg_at(f, r->level);
  LLVMTypeRef t = LLVMVectorType(f->i64, (unsigned)f->lanes);
  if (LLVMGetElementType(LLVMTypeOf(index)) != f->i64) index = LLVMBuildSExt(B, index, t, "");
  return LLVMBuildGEP2(B, cg_storage_type(f, b->buf->dtype, 1), b->base, &index, 1, "");
}

LLVMValueRef cg_reverse(cg_fn *f, LLVMValueRef v) {
  LLVMValueRef index[CG_MAX_LANES];
  for (int i = 0; i < f->lanes; i++) index[i] = LLVMConstInt(f->i32, (unsigned)(f->lanes - 1 - i), 0);
  return LLVMBuildShuffleVector(B, v, LLVMGetPoison(LLVMTypeOf(v)), LLVMConstVector(index, (unsigned)f->lanes), "");
}

LLVMValueRef cg_lane(cg_fn *f, LLVMValueRef v, int i) {
  return LLVMBuildExtractElement(B, v, LLVMConstInt(f->i32, (unsigned)i, 0), "");
}

LLVMValueRef cg_with_lane(cg_fn *f, LLVMValueRef v, LLVMValueRef x, int i) {
  return LLVMBuildInsertElement(B, v, x, LLVMConstInt(f->i32, (unsigned)i, 0), "");
}

LLVMValueRef cg_piece(cg_fn *f, LLVMValueRef v, int from, int n) {
  LLVMValueRef index[CG_MAX_LANES];
  if (n == 1) return cg_lane(f, v, from);
  for (int i = 0; i < n; i++) index[i] = LLVMConstInt(f->i32, (unsigned)(from + i), 0);
  return LLVMBuildShuffleVector(B, v, LLVMGetPoison(LLVMTypeOf(v)), LLVMConstVector(index, (unsigned)n), "");
}

/* ---- register buffers ---- */

static LLVMTypeRef slot_type(cg_fn *f, const cg_buf *b) { return cg_type(f, b->buf->dtype, b->lanes > 1 ? b->lanes : b->group); }

LLVMValueRef cg_slot(cg_fn *f, cg_buf *b, int64_t i) {
  return b->slots[i] ? b->slots[i] : LLVMConstNull(slot_type(f, b));
}

void cg_slot_place(cg_fn *f, const cg_buf *b, const ix *index, int64_t *base, int64_t *stride) {
  if (!cg_slot_access(f->ctx, b->buf, index, f->lane, base, stride) || *base < 0 || *base >= b->elements)
    ir_bug(f->ctx, "kernel %s: register buffer %s has no constant index here", f->plan->kernel->name, b->buf->name);
}
