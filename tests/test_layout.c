/* Layouts: canonical text, shapes and addresses, refusals. */
#include "ir/interp.h"
#include "ir/ir.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

typedef void body_fn(tn_ctx *ctx, void *arg);

static void run(body_fn *fn, void *arg) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_status s = ir_protect(ctx, fn, arg);
  cr_assert_eq(s, TN_OK, "%s", tn_error(ctx));
  tn_ctx_free(ctx);
}

static void canonical(tn_ctx *ctx, void *arg) {
  static const char *const cases[][2] = {
      {"split 1 16", "split 1 16"},
      {"  split  1   16 ;perm 0 1 3 4 2", "split 1 16; perm 0 1 3 4 2"},
      {"pad 2 1 1;", "pad 2 1 1"},
      {"xor 0 1 8", "xor 0 1 8"},
      {"perm 0 1 2; pad 1 0 0; split 0 4; xor 0 1 1", "split 0 4"},
      {"split 0 1", "split 0 1"},
      {";;split 3 2;;", "split 3 2"}};
  for (int i = 0; i < IR_COUNT(cases); i++) {
    const ir_layout *l = ir_layout_parse(ctx, cases[i][0]);
    cr_assert(l, "%s", cases[i][0]);
    cr_assert_str_eq(l->text, cases[i][1]);
    cr_assert_eq(l, ir_layout_parse(ctx, cases[i][1]));
    tn_ctx *child = ir_ctx_child(ctx); /* a child finds its parent's */
    cr_assert_eq(l, ir_layout_parse(child, cases[i][0]));
    tn_ctx_free(child);
  }
  cr_assert_null(ir_layout_parse(ctx, ""));
  cr_assert_null(ir_layout_parse(ctx, " perm 0 1 2 ; "));
  const ir_layout *b = ir_layout_blocked(ctx, 4, 1, 16);
  cr_assert_str_eq(b->text, "split 1 16; perm 0 1 3 4 2");
  cr_assert_eq(ir_layout_rank(b, 4), 5);
  cr_assert_eq(ir_layout_rank(b, 3), -1);
}
Test(layout, canonical) { run(canonical, NULL); }

static void parse_arg(tn_ctx *ctx, void *arg) { ir_layout_parse(ctx, arg); }

Test(layout, refused) {
  static const char *const cases[][2] = {
      {"spilt 1 2", "character 1: expected split, perm, pad or xor"},
      {"split 1", "expected the extent"},
      {"split 1 0", "at least 1"},
      {"split 12 2", "axis number is too large"},
      {"split 0 99999999999999999999", "too large"},
      {"perm", "expected the axes"},
      {"perm 0 2", "each axis once"},
      {"perm 0 0", "listed twice"},
      {"split 3 2; perm 1 0", "must list all axes"},
      {"perm 1 0; split 2 4", "no such axis"},
      {"perm 1 0; split 1 4; perm 0 1", "must list all axes"},
      {"pad 0 1", "padding after"},
      {"xor 0 0 2", "two different axes"},
      {"xor 0 1 3", "power of two"},
      {"split 0 2 pad", "expected ';'"},
      {"split 0 2; split 0 2; split 0 2; split 0 2; split 0 2; split 0 2; split 0 2; split 0 2; split 0 2; split 0 2; "
       "split 0 2; split 0 2",
       "too many axes"}};
  for (int i = 0; i < IR_COUNT(cases); i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    cr_assert_eq(ir_protect(ctx, parse_arg, (void *)cases[i][0]), TN_EINPUT, "%s", cases[i][0]);
    cr_assert(strstr(tn_error(ctx), cases[i][1]), "%s: %s", cases[i][0], tn_error(ctx));
    tn_ctx_free(ctx);
  }
}

/* Addresses are distinct and inside the memory, for every index of a small tensor. */
static void bijective(tn_ctx *ctx, void *arg) {
  static const struct {
    const char *layout;
    int rank;
    int64_t shape[4], elements;
  } cases[] = {{"", 3, {3, 5, 7}, 105},
               {"split 1 4", 3, {3, 5, 7}, 3 * 2 * 4 * 7},
               {"split 1 4; perm 0 1 3 2", 3, {3, 5, 7}, 3 * 2 * 4 * 7},
               {"pad 0 1 2; pad 2 0 1", 3, {3, 5, 7}, 6 * 5 * 8},
               {"perm 2 0 1", 3, {3, 5, 7}, 105},
               {"xor 1 0 4", 2, {5, 6}, 5 * 8},
               {"split 0 2; split 3 4; perm 0 2 3 1 4", 3, {5, 2, 6}, 3 * 2 * 2 * 2 * 4},
               {"split 1 16; perm 0 1 3 4 2", 4, {2, 17, 3, 2}, 2 * 2 * 3 * 2 * 16},
               {"", 0, {0}, 1}};
  for (int c = 0; c < IR_COUNT(cases); c++) {
    ix shape[4], index[4];
    int64_t n = 1;
    for (int a = 0; a < cases[c].rank; a++) {
      shape[a] = ix_index(ctx, cases[c].shape[a]);
      n *= cases[c].shape[a];
    }
    ir_buf *b = ir_buf_new(ctx, "b", TN_F32, cases[c].rank, shape, ir_layout_parse(ctx, cases[c].layout), IR_GLOBAL);
    int64_t elements = ix_need_const(ctx, ir_buf_elements(ctx, b), "size");
    cr_assert_eq(elements, cases[c].elements, "%s: %lld", cases[c].layout, (long long)elements);
    char seen[4096] = {0};
    for (int64_t i = 0; i < n; i++) {
      int64_t rest = i;
      for (int a = cases[c].rank; a-- > 0; rest /= cases[c].shape[a]) index[a] = ix_index(ctx, rest % cases[c].shape[a]);
      int64_t at = ix_need_const(ctx, ir_buf_offset(ctx, b, index), "offset");
      cr_assert(at >= 0 && at < elements && !seen[at], "%s: element %lld at %lld", cases[c].layout, (long long)i, (long long)at);
      seen[at] = 1;
    }
  }
}
Test(layout, bijective) { run(bijective, NULL); }

static void symbolic(tn_ctx *ctx, void *arg) {
  ir_var *n = ir_var_new(ctx, "n", TN_INDEX, 1, 100);
  ir_var *i = ir_var_new(ctx, "i", TN_INDEX, 0, 99), *c = ir_var_new(ctx, "c", TN_INDEX, 0, 31);
  ix shape[2] = {n->expr, ix_index(ctx, 32)}, index[2] = {i->expr, c->expr};
  ir_buf *b = ir_buf_new(ctx, "b", TN_F32, 2, shape, ir_layout_parse(ctx, "split 1 16; perm 1 0 2"), IR_GLOBAL);
  cr_assert_eq(ir_buf_elements(ctx, b), ix_muli(ctx, n->expr, 32));
  ix want = ix_add(ctx, ix_add(ctx, ix_mul(ctx, ix_divi(ctx, c->expr, 16), ix_muli(ctx, n->expr, 16)), ix_muli(ctx, i->expr, 16)),
                   ix_remi(ctx, c->expr, 16));
  cr_assert_eq(ir_buf_offset(ctx, b, index), want, "%s", ix_print(ctx, ir_buf_offset(ctx, b, index)));
}
Test(layout, symbolic) { run(symbolic, NULL); }
