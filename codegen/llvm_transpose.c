/* llvm_transpose.c — the atom "transpose": for a: for b: x[.. b .. a] = y[.. a .. b].
 *
 * Squares of n x n elements, n to a register: rows are read, turned in registers and written. Within 16 bytes
 * rows are interleaved, single elements, then pairs (unpcklps, unpcklpd; zip1, zip2); then the pieces of 16 bytes
 * change places between rows, halves first (vperm2f128, vshuff64x2): log2(n) shuffles a row, where moving element
 * by element takes n stores. Fewer rows than n are a square with rows that nobody reads; what is not laid out like
 * this is the loops that the atom means. */
#include "codegen/llvm.h"

#define B f->b

enum { PIECE = 16 }; /* bytes that interleaving stays within */

typedef struct square {
  cg_fn *f;
  const ir_stmt *a, *b, *store;
  int n, rows;   /* of the register; rows of y: of these, `rows` are there */
  int64_t a0, b0;
  bool over;     /* a row of x may be written beyond its end: the next one comes after it, or one after that */
} square;

/* Lanes of the one or the other, by `pick`: below n of v, from n on of w. */
static LLVMValueRef shuffle(cg_fn *f, LLVMValueRef v, LLVMValueRef w, const int *pick, int n) {
  LLVMValueRef index[CG_MAX_LANES];
  for (int i = 0; i < n; i++) index[i] = LLVMConstInt(f->i32, (unsigned)pick[i], 0);
  return LLVMBuildShuffleVector(B, v, w, LLVMConstVector(index, (unsigned)n), "");
}

/* Groups of g elements of v and w in turn: the lower (or upper) half of each piece of `piece` elements. */
static LLVMValueRef interleave(cg_fn *f, LLVMValueRef v, LLVMValueRef w, int n, int piece, int g, bool upper) {
  int pick[CG_MAX_LANES];
  for (int i = 0; i < n; i++) {
    int in = i % piece, group = in / g, from = i - in + (upper ? piece / 2 : 0) + group / 2 * g + in % g;
    pick[i] = group % 2 ? n + from : from;
  }
  return shuffle(f, v, w, pick, n);
}

/* Of blocks of h elements in pairs, the first (or second) of v's and w's. */
static LLVMValueRef exchange(cg_fn *f, LLVMValueRef v, LLVMValueRef w, int n, int h, bool second) {
  int pick[CG_MAX_LANES];
  for (int i = 0; i < n; i++) pick[i] = (i & h ? n + i - h : i) + (second ? h : 0);
  return shuffle(f, v, w, pick, n);
}

static void turn(cg_fn *f, LLVMValueRef *x, int n, int piece) {
  LLVMValueRef t[CG_MAX_LANES];
  for (int h = n / 2; h >= piece; h /= 2) /* rows h apart swap blocks of h */
    for (int i = 0; i < n; i++)
      if (!(i & h)) {
        LLVMValueRef v = x[i], w = x[i + h];
        x[i] = exchange(f, v, w, n, h, false);
        x[i + h] = exchange(f, v, w, n, h, true);
      }
  for (int g = 1; g < piece; g *= 2) { /* rows g apart; results in the order of the columns */
    for (int i = 0; i < n; i++) {
      int at = i % (2 * g), base = i - at;
      t[i] = interleave(f, x[base + at / 2], x[base + at / 2 + g], n, piece, g, at % 2);
    }
    for (int i = 0; i < n; i++) x[i] = t[i];
  }
}

/* Row i of the square, read along b. */
static LLVMValueRef read_row(const square *q, int i) {
  cg_fn *f = q->f;
  ir_var *lane = ir_var_new(f->ctx, "turn", TN_INDEX, 0, q->n - 1);
  ix e = ix_subst1(f->ctx, q->store->value, q->a->var, ix_index(f->ctx, q->a0 + i));
  e = ix_subst1(f->ctx, e, q->b->var, ix_addi(f->ctx, lane->expr, q->b0));
  f->lane = lane, f->lanes = q->n;
  cg_val v = cg_emit(f, e);
  LLVMValueRef all = cg_vector_of(f, e, &v);
  f->lane = NULL, f->lanes = 1;
  return all;
}

/* `n` elements of v, the first of them `from`, to row j of x; only `there` of them have places in it. */
static void write_piece(const square *q, int j, LLVMValueRef v, int from, int n, int there) {
  cg_fn *f = q->f;
  tn_ctx *ctx = f->ctx;
  ir_var *lane = ir_var_new(ctx, "turn", TN_INDEX, 0, there - 1), *value = ir_var_new(ctx, "turned", q->store->buf->dtype, 0, 0);
  ix *index = IR_NEW_ARRAY(ctx, ix, q->store->buf->rank), along = ix_index(ctx, q->a0 + from);
  if (n > 1) along = ix_add(ctx, along, lane->expr);
  for (int d = 0; d < q->store->buf->rank; d++)
    index[d] = ix_subst1(ctx, ix_subst1(ctx, q->store->index[d], q->b->var, ix_index(ctx, q->b0 + j)), q->a->var, along);
  int pick[CG_MAX_LANES];
  for (int i = 0; i < n; i++) pick[i] = from + i;
  cg_at(f, f->depth);
  if (n == 1) v = LLVMBuildExtractElement(B, v, LLVMConstInt(f->i32, (unsigned)from, 0), "");
  else if (n < q->n) v = shuffle(f, v, LLVMGetPoison(LLVMTypeOf(v)), pick, n);
  if (n > 1) f->lane = lane, f->lanes = n;
  cg_bind(f, value, (cg_val){.v = v, .level = f->depth, .varying = n > 1}, false);
  cg_emit_store(f, ir_store(ctx, q->store->buf, index, IR_SET, value->expr));
  f->lane = NULL, f->lanes = 1;
}

static void emit_square(const square *q, bool last) {
  cg_fn *f = q->f;
  LLVMValueRef x[CG_MAX_LANES];
  for (int i = 0; i < q->rows; i++) x[i] = read_row(q, i);
  for (int i = q->rows; i < q->n; i++) x[i] = LLVMGetPoison(LLVMTypeOf(x[0]));
  cg_at(f, f->depth);
  turn(f, x, q->n, PIECE / (int)ir_dtype_bytes(q->store->buf->dtype));
  for (int j = 0; j < q->n; j++) {
    if (q->rows == q->n || (q->over && !(last && j == q->n - 1))) {
      write_piece(q, j, x[j], 0, q->n, q->rows);
      continue;
    }
    for (int at = 0, n = q->n / 2; at < q->rows; at += n) {
      while (n > q->rows - at) n /= 2;
      write_piece(q, j, x[j], at, n, n);
    }
  }
}

void cg_emit_transpose(cg_fn *f, const ir_stmt *loop) {
  const ir_stmt *inner = loop->body, *st = inner->body;
  int64_t size = (int64_t)ir_dtype_bytes(st->buf->dtype), n = f->t->vector_bits / 8 / size, rows = loop->hi->u.i, columns = inner->hi->u.i, apart = 0;
  bool wide = size == 4 || size == 8;
  if (f->lane || f->guard || !wide || n < 2 || n * size < PIECE || n > CG_MAX_LANES || columns % n || rows < 2) {
    cg_emit_stmt(f, loop);
    return;
  }
  ix_affine_in(ir_buf_offset(f->ctx, st->buf, st->index), inner->var, &apart);
  for (int64_t a0 = 0; a0 < rows; a0 += n)
    for (int64_t b0 = 0; b0 < columns; b0 += n) {
      int left = (int)(rows - a0 < n ? rows - a0 : n);
      square q = {.f = f, .a = loop, .b = inner, .store = st, .n = (int)n, .rows = left, .a0 = a0, .b0 = b0, .over = apart == rows && rows < n && n <= 2 * rows};
      emit_square(&q, b0 + n == columns);
    }
}
