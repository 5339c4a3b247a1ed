/* llvm_dot.c — the atom "dot": acc[lane] += sum over d of i32(x[.. d]) * i32(w[.. lane, d]).
 *
 * x is the same for all lanes, and w's lanes lie d elements apart, as a schedule packs them. What one
 * instruction does with it:
 *   VNNI   vpdpbusd   four products of u8 and s8
 *   SSE2   pmaddwd    two products of words, and an addition; bytes are widened first
 *   AVX2   pmaddubsw  with pmaddwd by ones and an addition: four products of u8 and s8, where x is picked by a table
 *                     (ir/picked.h; vpshufb), or eight, two pmaddubsw added before: lower/picked.c makes the constants, and
 *                     sees to it that no sum leaves 16 bits and that the table holds numbers below 16
 *   NEON   sdot       four products of s8, where the CPU has it; else products of words, smlal
 * A product of two words that stands alone (a depthwise convolution) is pmaddwd too, the upper half of one
 * operand cleared: a product of i32 takes twice as long. Everything else is products of i32, element by element; and what is not laid out like this is the loop
 * that the atom means. */
#include "codegen/llvm.h"
#include "ir/picked.h"
#include <string.h>

#define B f->b

static int64_t bits_of(const ir_buf *b) { return 8 * (int64_t)ir_dtype_bytes(b->dtype); }

static bool is_signed(const ir_buf *b) { return b->dtype == TN_I8 || b->dtype == TN_I16; }

static LLVMValueRef widened(cg_fn *f, const ir_buf *b, LLVMValueRef v, LLVMTypeRef to) {
  return is_signed(b) ? LLVMBuildSExt(B, v, to, "") : LLVMBuildZExt(B, v, to, "");
}

/* Operand `load` (d = 0) as lanes x d elements of `width` bits, 8 or 16, in one vector; kept for other uses. */
static cg_val elements(cg_fn *f, ix load, bool safe, int d, int width) {
  const ir_buf *b = load->u.buf;
  int n = f->lanes, own = (int)bits_of(b), kind = CG_RUN | n << CG_KIND_BITS | width << 16 | d << 24;
  LLVMTypeRef run = LLVMIntTypeInContext(f->lc, (unsigned)(d * own)), unit = LLVMIntTypeInContext(f->lc, (unsigned)(d * width));
  LLVMTypeRef narrow = LLVMIntTypeInContext(f->lc, (unsigned)own), wide = LLVMIntTypeInContext(f->lc, (unsigned)width);
  cg_val r;
  if (cg_cached(f, load, kind, &r)) return r;
  bool varying = cg_varying(f, ir_buf_offset(f->ctx, b, load->args));
  r = cg_emit_run(f, load, varying ? LLVMVectorType(run, (unsigned)n) : run, (varying ? n : 1) * d * own / 8, safe);
  if (own != width) {
    unsigned count = (unsigned)(varying ? n * d : d);
    r.v = widened(f, b, LLVMBuildBitCast(B, r.v, LLVMVectorType(narrow, count), ""), LLVMVectorType(wide, count));
    if (!varying) r.v = LLVMBuildBitCast(B, r.v, unit, "");
  }
  LLVMTypeRef t = LLVMVectorType(wide, (unsigned)(n * d));
  if (!varying) {
    r.level = cg_hold(f, r.level, LLVMVectorType(f->i32, (unsigned)n));
    cg_at(f, r.level);
    r.v = cg_splat(f, r.v, n);
    r.varying = true;
  }
  r.v = LLVMBuildBitCast(B, r.v, t, "");
  cg_at(f, f->depth);
  cg_cache(f, load, kind, r);
  return r;
}

/* An intrinsic whose operands may be declared as other vectors of the same size. */
static LLVMValueRef call(cg_fn *f, const char *name, int n, LLVMValueRef *args) {
  unsigned id = LLVMLookupIntrinsicID(name, __builtin_strlen(name));
  if (!id) ir_bug(f->ctx, "LLVM has no intrinsic %s", name);
  LLVMValueRef decl = LLVMGetIntrinsicDeclaration(f->module, id, NULL, 0);
  LLVMTypeRef fn = LLVMGlobalGetValueType(decl), types[3];
  LLVMGetParamTypes(fn, types);
  for (int i = 0; i < n; i++) args[i] = LLVMBuildBitCast(B, args[i], types[i], "");
  return LLVMBuildCall2(B, fn, decl, args, (unsigned)n, "");
}

static const char *const pmaddwd[] = {"llvm.x86.sse2.pmadd.wd", "llvm.x86.avx2.pmadd.wd", "llvm.x86.avx512.pmaddw.d.512"};

/* Which of three sizes of register `lanes` lanes of i32 fill; -1: none that the target has. */
static int register_size(const cg_fn *f, int lanes) {
  if (f->t->arch != CG_X86_64 || lanes * 32 > f->t->vector_bits) return -1;
  return lanes == 4 ? 0 : lanes == 8 ? 1 : lanes == 16 ? 2 : -1;
}

LLVMValueRef cg_mul_words(cg_fn *f, ix e, LLVMValueRef *args, int lanes) {
  int size = register_size(f, lanes), thin = 1;
  if (e->op != IX_MUL || e->dtype != TN_I32 || size < 0) return NULL;
  for (int i = 0; i < 2; i++) {
    ix a = e->args[i];
    if (a->op != IX_CAST || (a->args[0]->dtype != TN_U8 && a->args[0]->dtype != TN_I8 && a->args[0]->dtype != TN_I16)) return NULL;
    if (a->args[0]->op == IX_LOAD && a->args[0]->u.buf->constant) thin = i;
  }
  LLVMTypeRef t = LLVMTypeOf(args[0]), half = LLVMVectorType(f->i16, (unsigned)(2 * lanes));
  LLVMValueRef v[2] = {args[0], args[1]};
  v[thin] = LLVMBuildAnd(B, v[thin], cg_int(f, t, 0xffff), "");
  for (int i = 0; i < 2; i++) v[i] = LLVMBuildBitCast(B, v[i], half, "");
  return call(f, pmaddwd[size], 2, v);
}

/* Element `d` of every group of `of`, as i32. */
static LLVMValueRef nth(cg_fn *f, const ir_buf *b, LLVMValueRef v, int d, int of) {
  LLVMValueRef index[CG_MAX_LANES];
  for (int i = 0; i < f->lanes; i++) index[i] = LLVMConstInt(f->i32, (unsigned)(i * of + d), 0);
  LLVMValueRef x = LLVMBuildShuffleVector(B, v, LLVMGetPoison(LLVMTypeOf(v)), LLVMConstVector(index, (unsigned)f->lanes), "");
  return widened(f, b, x, LLVMVectorType(f->i32, (unsigned)f->lanes));
}

/* v as it is, but nothing that LLVM would put other sums in its place for: it turns (acc + p) + q into acc + (p + q),
 * which needs a register more for every sum, and so spills. */
static LLVMValueRef as_added(cg_fn *f, LLVMValueRef v) {
  LLVMTypeRef t = LLVMTypeOf(v);
  const char *same = f->t->masks ? "=v,0" : "=x,0";
  LLVMTypeRef fn = LLVMFunctionType(t, &t, 1, false);
  LLVMValueRef nothing = LLVMGetInlineAsm(fn, "", 0, same, strlen(same), false, false, LLVMInlineAsmDialectATT, false);
  return LLVMBuildCall2(B, fn, nothing, &v, 1, "");
}

static LLVMValueRef dot(cg_fn *f, LLVMValueRef acc, ix x, ix w, bool safe_x, bool safe_w, int d) {
  static const char *const bytes[] = {"llvm.x86.avx512.vpdpbusd.128", "llvm.x86.avx512.vpdpbusd.256", "llvm.x86.avx512.vpdpbusd.512"};
  const ir_buf *bx = x->u.buf, *bw = w->u.buf;
  int size = register_size(f, f->lanes);
  if (size >= 0 && f->t->vnni && d == 4 && bx->dtype == TN_U8 && bw->dtype == TN_I8) {
    LLVMValueRef args[3] = {acc, elements(f, x, safe_x, d, 8).v, elements(f, w, safe_w, d, 8).v};
    return call(f, bytes[size], 3, args);
  }
  if (f->t->arch == CG_AARCH64 && f->t->vnni && d == 4 && f->lanes == 4 && bx->dtype == TN_I8 && bw->dtype == TN_I8) {
    LLVMValueRef args[3] = {acc, elements(f, x, safe_x, d, 8).v, elements(f, w, safe_w, d, 8).v};
    LLVMTypeRef types[2] = {LLVMTypeOf(acc), LLVMTypeOf(args[1])};
    unsigned id = LLVMLookupIntrinsicID("llvm.aarch64.neon.sdot", 22);
    LLVMValueRef decl = LLVMGetIntrinsicDeclaration(f->module, id, types, 2);
    return LLVMBuildCall2(B, LLVMGlobalGetValueType(decl), decl, args, 3, "");
  }
  if (size >= 0 && d == 2) {
    LLVMValueRef args[2] = {elements(f, x, safe_x, d, 16).v, elements(f, w, safe_w, d, 16).v};
    return as_added(f, LLVMBuildAdd(B, acc, call(f, pmaddwd[size], 2, args), ""));
  }
  LLVMValueRef vx = elements(f, x, safe_x, d, (int)bits_of(bx)).v, vw = elements(f, w, safe_w, d, (int)bits_of(bw)).v;
  for (int i = 0; i < d; i++) acc = LLVMBuildAdd(B, acc, LLVMBuildMul(B, nth(f, bx, vx, i, d), nth(f, bw, vw, i, d), ""), "");
  return acc;
}

/* Whether `load` can be read as runs of d elements: the same for all lanes, or one run after another. */
static bool runs(cg_fn *f, ix load, int d, bool *varying) {
  int64_t c;
  ix offset = ir_buf_offset(f->ctx, load->u.buf, load->args);
  *varying = cg_varying(f, offset);
  if (cg_buf_of(f, load->u.buf)->where == CG_SSA || d * bits_of(load->u.buf) > 32) return false;
  return !*varying || (ix_affine_in(offset, f->lane, &c) && c == d);
}

typedef struct product { /* of an atom, with 0 for its variable */
  ix x, w, from;             /* from: as ir_picked_step tells; null: x lies side by side */
  ix four[2], by[2], with[2]; /* then, of each four: x, its table, w */
  bool safe_x, safe_w;
  int d;
} product;

static bool fits_picked(cg_fn *f, const ir_stmt *loop, product *p) {
  bool varying;
  const ir_var *i = ir_var_new(f->ctx, "i", TN_INDEX, 0, IR_PICKED_STEP - 1);
  ix zero = ix_index(f->ctx, 0), from;
  if (!ir_picked_step(f->ctx, p->x, loop->var, p->d, i, p->four, p->by, &from)) return false;
  if (f->lanes != IR_PICKED_LANES || register_size(f, f->lanes) != 1 || p->x->dtype != TN_U8 || p->w->dtype != TN_I8 || !runs(f, from, IR_PICKED_STEP, &varying) || varying) return false;
  for (int h = 0; h < p->d / IR_PICKED_STEP; h++) {
    ix w = ix_subst1(f->ctx, p->w, loop->var, ix_addi(f->ctx, i->expr, h * IR_PICKED_STEP));
    if (!runs(f, p->by[h], IR_PICKED_STEP, &varying) || !varying || !runs(f, w, IR_PICKED_STEP, &varying) || !varying) return false;
    p->four[h] = ix_subst1(f->ctx, p->four[h], i, zero), p->by[h] = ix_subst1(f->ctx, p->by[h], i, zero), p->with[h] = ix_subst1(f->ctx, w, i, zero);
  }
  p->from = from;
  return true;
}

/* Whether one instruction takes them; x becomes the operand that is the same for all lanes. */
static bool fits(cg_fn *f, const ir_stmt *loop, product *p) {
  bool vx, vw;
  if (!f->lane || f->lanes * p->d > CG_MAX_LANES) return false;
  if (fits_picked(f, loop, p)) return true;
  if (!runs(f, p->x, p->d, &vx) || !runs(f, p->w, p->d, &vw) || vx == vw) return false;
  if (vx) {
    ix t = p->x;
    p->x = p->w, p->w = t;
  }
  return true;
}

/* Four bytes for each lane, picked from the 16 that start at p->from. */
static cg_val picked(cg_fn *f, const product *p, int h) {
  int kind = CG_RUN | f->lanes << CG_KIND_BITS | 8 << 16 | IR_PICKED_STEP << 24;
  LLVMTypeRef group = LLVMVectorType(f->i8, IR_PICKED_GROUP);
  LLVMValueRef twice[2 * IR_PICKED_GROUP], args[2];
  cg_val r;
  if (cg_cached(f, p->four[h], kind, &r)) return r;
  r = cg_emit_run(f, p->from, group, IR_PICKED_GROUP, p->safe_x);
  cg_val choice = elements(f, p->by[h], cg_safe_load(f, p->by[h]), IR_PICKED_STEP, 8);
  cg_join(&r, &choice);
  cg_at(f, r.level);
  for (int i = 0; i < IR_COUNT(twice); i++) twice[i] = LLVMConstInt(f->i32, (unsigned)(i % IR_PICKED_GROUP), 0);
  args[0] = LLVMBuildShuffleVector(B, r.v, LLVMGetPoison(group), LLVMConstVector(twice, IR_COUNT(twice)), "");
  args[1] = choice.v;
  r.v = call(f, "llvm.x86.avx2.pshuf.b", 2, args);
  r.varying = true;
  cg_at(f, f->depth);
  cg_cache(f, p->four[h], kind, r);
  return r;
}

static LLVMValueRef picked_dot(cg_fn *f, LLVMValueRef acc, const product *p) {
  LLVMTypeRef words = LLVMVectorType(f->i16, 2 * IR_PICKED_LANES);
  LLVMValueRef args[2], sum = NULL;
  for (int h = 0; h < p->d / IR_PICKED_STEP; h++) {
    args[0] = picked(f, p, h).v, args[1] = elements(f, p->with[h], p->safe_w, IR_PICKED_STEP, 8).v;
    LLVMValueRef two = LLVMBuildBitCast(B, call(f, "llvm.x86.avx2.pmadd.ub.sw", 2, args), words, "");
    sum = sum ? LLVMBuildAdd(B, sum, two, "") : two;
  }
  args[0] = sum, args[1] = cg_int(f, words, 1);
  return as_added(f, LLVMBuildAdd(B, acc, call(f, "llvm.x86.avx2.pmadd.wd", 2, args), ""));
}

void cg_emit_dot(cg_fn *f, const ir_stmt *loop) {
  tn_ctx *ctx = f->ctx;
  const ir_stmt *s = loop->body;
  ix acc = ix_load(ctx, s->buf, s->index), both = s->value->args[s->value->args[0] == acc], zero = ix_index(ctx, 0);
  product p = {.x = both->args[0]->args[0], .w = both->args[1]->args[0], .d = (int)loop->hi->u.i};
  if (p.x->u.buf->constant) { /* x first: a product of integers stands in any order */
    ix t = p.x;
    p.x = p.w, p.w = t;
  }
  if (!fits(f, loop, &p)) {
    cg_emit_stmt(f, loop);
    return;
  }
  p.safe_x = cg_safe_load(f, p.x), p.safe_w = cg_safe_load(f, p.w);
  p.x = ix_subst1(ctx, p.x, loop->var, zero), p.w = ix_subst1(ctx, p.w, loop->var, zero);
  cg_val old = cg_emit(f, acc), sum = {.level = f->depth, .varying = true};
  LLVMValueRef all = cg_vector_of(f, acc, &old);
  sum.v = p.from ? picked_dot(f, all, &p) : dot(f, all, p.x, p.w, p.safe_x, p.safe_w, p.d);
  ir_var *v = ir_var_new(ctx, "dot", TN_I32, 0, 0);
  cg_bind(f, v, sum, false);
  cg_emit_store(f, ir_store(ctx, s->buf, s->index, IR_SET, v->expr));
}
