/* test_stmt.c — statement constructors, rewriting, the builder and the verifier. */
#include "ir/ir.h"
#include <criterion/criterion.h>
#include <string.h>

static tn_ctx *ctx;
static void setup(void) { ctx = tn_ctx_new(NULL); }
static void teardown(void) { tn_ctx_free(ctx); }
TestSuite(stmt, .init = setup, .fini = teardown);
TestSuite(verify, .init = setup, .fini = teardown);

static ix I(int64_t v) { return ix_index(ctx, v); }
static ir_buf *buffer(const char *name, tn_dtype t, int64_t n, ir_access access) {
  ix extent = I(n);
  ir_buf *b = ir_buf_new(ctx, name, t, 1, &extent, NULL, IR_GLOBAL);
  b->access = access;
  return b;
}

Test(stmt, constructors_fold) {
  ir_buf *x = buffer("x", TN_F32, 8, IR_INOUT);
  const ir_stmt *s = ir_store(ctx, x, (ix[]){I(0)}, IR_SET, ix_float(ctx, TN_F32, 1));
  ir_var *v = ir_var_new(ctx, "i", TN_INDEX, 0, 7);
  cr_assert_null(ir_for(ctx, v, I(3), I(3), IR_SERIAL, s));
  cr_assert_null(ir_for(ctx, v, I(0), I(3), IR_SERIAL, NULL));
  cr_assert_eq(ir_if(ctx, ix_bool(ctx, true), s, NULL), s);
  cr_assert_null(ir_if(ctx, ix_bool(ctx, false), s, NULL));
  cr_assert_null(ir_while(ctx, ix_bool(ctx, false), s));
  cr_assert_eq(ir_seq(ctx, 3, (const ir_stmt *[]){NULL, s, NULL}), s);
  cr_assert_null(ir_seq(ctx, 2, (const ir_stmt *[]){NULL, NULL}));
  const ir_stmt *two = ir_seq(ctx, 2, (const ir_stmt *[]){s, s});
  const ir_stmt *four = ir_seq(ctx, 3, (const ir_stmt *[]){two, NULL, two});
  cr_assert_eq(four->kind, IR_SEQ);
  cr_assert_eq(four->n, 4);
  ix cond = ix_lt(ctx, ix_load(ctx, x, (ix[]){I(0)}), ix_float(ctx, TN_F32, 0));
  const ir_stmt *inverted = ir_if(ctx, cond, NULL, s);
  cr_assert_eq(inverted->body, s);
  cr_assert_eq(inverted->value->op, IX_NOT);
}

static void store_wrong(tn_ctx *c, void *arg) {
  ir_store(c, arg, (ix[]){I(0)}, IR_SET, ix_int(c, TN_I32, 1));
}
Test(stmt, constructors_check) {
  cr_assert_eq(ir_protect(ctx, store_wrong, buffer("x", TN_F32, 8, IR_INOUT)), TN_EINTERNAL);
}

Test(stmt, builder_scopes) {
  ir_buf *x = buffer("x", TN_F32, 8, IR_INOUT);
  ir_builder *b = ir_builder_new(ctx);
  ix i = ib_loop(b, "i", I(8));
  ib_store(b, x, &i, ix_float(ctx, TN_F32, 1));
  ix v = ib_let(b, "v", ib_load(b, x, &i));
  ir_buf *acc = ib_local(b, "acc", TN_F32, v);
  ix j = ib_loop(b, "i", I(4));
  cr_assert_str_eq(j->u.var->name, "i1");
  ib_update(b, acc, NULL, IR_ADD, v);
  ib_end(b);
  ib_if(b, ix_lt(ctx, i, I(4)));
  ib_store(b, x, &i, ib_get(b, acc));
  ib_else(b);
  ib_store(b, x, &i, v);
  ib_end_n(b, 2);
  const ir_stmt *s = ib_finish(b);
  cr_assert_eq(s->kind, IR_FOR);
  cr_assert_eq(s->body->kind, IR_SEQ);
  cr_assert_eq(s->body->n, 2);
  const ir_stmt *let = s->body->items[1];
  cr_assert_eq(let->kind, IR_LET);
  cr_assert_eq(let->body->kind, IR_ALLOC);
  const ir_stmt *rest = let->body->body;
  cr_assert_eq(rest->kind, IR_SEQ);
  cr_assert_eq(rest->n, 3);
  cr_assert_eq(rest->items[2]->kind, IR_IF);
  cr_assert_not_null(rest->items[2]->other);
  cr_assert_not_null(ir_find_loop(s, "i1"));
  cr_assert_null(ir_find_loop(s, "i2"));
  ir_kernel k = {.name = "k", .nbufs = 1, .bufs = &x, .body = s};
  cr_assert_null(ir_kernel_verify(ctx, &k), "%s", ir_kernel_verify(ctx, &k));
}

Test(stmt, builder_drops_empty) {
  ir_builder *b = ir_builder_new(ctx);
  ib_loop(b, "i", I(8));
  ib_let(b, "v", I(1));
  ib_end(b);
  ib_alloc(b, "a", TN_F32, 0, NULL, IR_LOCAL);
  cr_assert_null(ib_finish(b));
}

static const ir_stmt *sum_loop(ir_buf *x, ir_buf *y) {
  ir_builder *b = ir_builder_new(ctx);
  ix i = ib_loop(b, "i", I(8));
  ix shape = ix_add(ctx, i, I(1));
  ir_buf *t = ib_alloc(b, "t", TN_F32, 1, &shape, IR_LOCAL);
  ix j = ib_loop(b, "j", shape);
  ix w = ib_let(b, "w", ib_load(b, x, &j));
  ib_store(b, t, &j, ix_add(ctx, w, w));
  ib_end(b);
  ib_store(b, y, &i, ib_load(b, t, &i));
  ib_end(b);
  return ib_finish(b);
}

Test(stmt, substitution_reaches_everything) {
  ir_buf *bufs[] = {buffer("x", TN_F32, 8, IR_IN), buffer("y", TN_F32, 8, IR_INOUT)};
  const ir_stmt *s = sum_loop(bufs[0], bufs[1]);
  const ir_stmt *body = ir_subst_var(ctx, s->body, s->var, I(5));
  cr_assert_eq(body->kind, IR_ALLOC);
  cr_assert(ix_is_int(body->buf->shape[0], 6));
  const ir_stmt *loop = ir_find_loop(body, "j");
  cr_assert(ix_is_int(loop->hi, 6));
  cr_assert_neq(body->buf, s->body->buf);
  ir_kernel k = {.name = "k", .nbufs = 2, .bufs = bufs, .body = body};
  cr_assert_null(ir_kernel_verify(ctx, &k), "%s", ir_kernel_verify(ctx, &k));
  cr_assert_eq(ir_subst_var(ctx, body, s->var, I(5)), body, "nothing left to replace");
}

Test(stmt, fresh_copies_are_apart) {
  ir_buf *bufs[] = {buffer("x", TN_F32, 8, IR_IN), buffer("y", TN_F32, 8, IR_INOUT)};
  const ir_stmt *s = sum_loop(bufs[0], bufs[1]);
  const ir_stmt *copy = ir_stmt_fresh(ctx, s, "_b");
  cr_assert_not_null(ir_find_loop(copy, "i_b"));
  cr_assert_not_null(ir_find_loop(copy, "j_b"));
  cr_assert_null(ir_find_loop(copy, "i"));
  const ir_stmt *both = ir_seq(ctx, 2, (const ir_stmt *[]){s, copy});
  ir_kernel k = {.name = "k", .nbufs = 2, .bufs = bufs, .body = both};
  cr_assert_null(ir_kernel_verify(ctx, &k), "%s", ir_kernel_verify(ctx, &k));
  k.body = ir_seq(ctx, 2, (const ir_stmt *[]){s, s});
  cr_assert_not_null(ir_kernel_verify(ctx, &k));
}

static const ir_stmt *drop_loop_j(ir_rewriter *r, const ir_stmt *s) {
  return s->kind == IR_FOR && strcmp(s->var->name, "j") == 0 ? NULL : s;
}
Test(stmt, rewrite_drops) {
  ir_buf *bufs[] = {buffer("x", TN_F32, 8, IR_IN), buffer("y", TN_F32, 8, IR_INOUT)};
  const ir_stmt *s = sum_loop(bufs[0], bufs[1]);
  const ir_stmt *t = ir_rewrite(&(ir_rewriter){.ctx = ctx, .stmt = drop_loop_j}, s);
  cr_assert_null(ir_find_loop(t, "j"));
  cr_assert_eq(t->body->body->kind, IR_STORE);
  cr_assert_eq(ir_rewrite(&(ir_rewriter){.ctx = ctx}, s), s);
}

/* ---- the verifier: one kernel per rule ---- */

static void wrong(const ir_stmt *body, int nbufs, ir_buf **bufs, const char *part) {
  ir_kernel k = {.name = "k", .nbufs = nbufs, .bufs = bufs, .body = body};
  const char *said = ir_kernel_verify(ctx, &k);
  cr_expect_not_null(said, "accepted; expected: %s", part);
  if (said) cr_expect_not_null(strstr(said, part), "said '%s', expected '%s'", said, part);
}

static const ir_stmt *as_kind(const ir_stmt *loop, ir_loop_kind kind) {
  return ir_for(ctx, loop->var, loop->lo, loop->hi, kind, loop->body);
}

Test(verify, scopes_and_access) {
  ir_buf *x = buffer("x", TN_F32, 8, IR_IN), *y = buffer("y", TN_F32, 8, IR_OUT), *z = buffer("z", TN_F32, 8, IR_IN);
  ir_buf *bufs[] = {x, y};
  ir_var *v = ir_var_new(ctx, "i", TN_INDEX, 0, 7);
  ix one = ix_float(ctx, TN_F32, 1);
  wrong(ir_store(ctx, x, (ix[]){I(0)}, IR_SET, one), 2, bufs, "it is an input");
  wrong(ir_store(ctx, y, (ix[]){v->expr}, IR_SET, one), 2, bufs, "'i' is not in scope");
  wrong(ir_store(ctx, y, (ix[]){I(0)}, IR_SET, ix_load(ctx, z, (ix[]){I(0)})), 2, bufs, "'z' is not in scope");
  wrong(ir_store(ctx, z, (ix[]){I(0)}, IR_SET, one), 2, bufs, "not in scope");
  wrong(ir_for(ctx, v, I(0), I(9), IR_SERIAL, ir_store(ctx, y, &v->expr, IR_SET, one)), 2, bufs, "proven bound");
  ir_buf *twice[] = {y, y};
  wrong(NULL, 2, twice, "hides another");
  ir_buf *odd[] = {buffer("a b", TN_F32, 8, IR_IN)};
  wrong(NULL, 1, odd, "not an identifier");
}

Test(verify, names_of_loops) {
  ir_buf *y = buffer("y", TN_F32, 8, IR_OUT);
  ir_var *a = ir_var_new(ctx, "i", TN_INDEX, 0, 7), *b = ir_var_new(ctx, "i", TN_INDEX, 0, 7);
  ix one = ix_float(ctx, TN_F32, 1);
  const ir_stmt *s1 = ir_for(ctx, a, I(0), I(8), IR_SERIAL, ir_store(ctx, y, &a->expr, IR_SET, one));
  const ir_stmt *s2 = ir_for(ctx, b, I(0), I(8), IR_SERIAL, ir_store(ctx, y, &b->expr, IR_SET, one));
  wrong(ir_seq(ctx, 2, (const ir_stmt *[]){s1, s2}), 1, &y, "two loops are called 'i'");
  wrong(ir_for(ctx, b, I(0), I(8), IR_SERIAL, s1), 1, &y, "'i'");
}

Test(verify, parallel_and_vector) {
  ir_buf *y = buffer("y", TN_F32, 8, IR_INOUT);
  ix one = ix_float(ctx, TN_F32, 1);
  ir_var *a = ir_var_new(ctx, "i", TN_INDEX, 0, 7), *b = ir_var_new(ctx, "j", TN_INDEX, 0, 7);
  const ir_stmt *store = ir_store(ctx, y, &b->expr, IR_SET, one);
  const ir_stmt *inner = ir_for(ctx, b, I(0), I(8), IR_PARALLEL, store);
  wrong(ir_for(ctx, a, I(0), I(2), IR_SERIAL, inner), 1, &y, "outermost");
  wrong(ir_for(ctx, a, I(0), I(2), IR_VECTOR, as_kind(inner, IR_VECTOR)), 1, &y, "inside of vector loop 'i'");
  ix more = ix_lt(ctx, ix_load(ctx, y, (ix[]){I(0)}), one);
  wrong(ir_for(ctx, a, I(0), I(2), IR_VECTOR, ir_while(ctx, more, ir_store(ctx, y, &a->expr, IR_SET, one))), 1, &y, "while inside");
  wrong(ir_for(ctx, a, I(0), I(8), IR_SERIAL, ir_for(ctx, b, I(0), ix_add(ctx, a->expr, I(1)), IR_UNROLL, store)), 1, &y, "constant trip count");
  ir_kernel k = {.name = "k", .nbufs = 1, .bufs = &y, .body = inner};
  cr_assert_null(ir_kernel_verify(ctx, &k));
}

Test(verify, registers) {
  ir_buf *y = buffer("y", TN_F32, 8, IR_INOUT);
  ix four = I(4), one = ix_float(ctx, TN_F32, 1);
  ir_buf *r = ir_buf_new(ctx, "r", TN_F32, 1, &four, NULL, IR_REGISTER);
  ir_var *a = ir_var_new(ctx, "i", TN_INDEX, 0, 3);
  const ir_stmt *set = ir_store(ctx, r, &a->expr, IR_SET, one);
  wrong(ir_alloc_stmt(ctx, r, ir_for(ctx, a, I(0), I(4), IR_SERIAL, set)), 1, &y, "does not become constant");
  wrong(ir_alloc_stmt(ctx, r, ir_for(ctx, a, I(0), I(4), IR_PARALLEL, set)), 1, &y, "outside of the parallel loop");
  ir_kernel k = {.name = "k", .nbufs = 1, .bufs = &y, .body = ir_alloc_stmt(ctx, r, ir_for(ctx, a, I(0), I(4), IR_UNROLL, set))};
  cr_assert_null(ir_kernel_verify(ctx, &k), "%s", ir_kernel_verify(ctx, &k));
  k.body = ir_alloc_stmt(ctx, r, ir_for(ctx, a, I(0), I(4), IR_VECTOR, set));
  cr_assert_null(ir_kernel_verify(ctx, &k), "%s", ir_kernel_verify(ctx, &k));
}
