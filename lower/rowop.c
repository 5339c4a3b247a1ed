/* rowop.c — see rowop.h. */
#include "lower/rowop.h"
#include <stdio.h>

/* Whether an element costs no more than its load. */
static bool is_cheap(ix e) {
  while (e->op == IX_CAST) e = e->args[0];
  return e->op == IX_LOAD || e->op == IX_CONST || e->op == IX_VAR;
}

static ix operand(lw_rows *r) {
  ix e = r->load ? r->load(r) : lw_in(r->b, r->n, 0, r->index);
  return ix_cast(lw_ctx(r->b), r->type, e);
}

static int row_axes(const lw_rows *r, ix *of, const ix *from) {
  int k = 0;
  for (int i = 0; i < r->rank; i++)
    if (r->in_row[i]) of[k++] = from[i];
  return k;
}

void lw_rows_open(lw_rows *r, bool keep_always) {
  tn_ctx *ctx = lw_ctx(r->b);
  ix shape[IR_MAX_RANK];
  for (int i = 0; i < r->rank; i++) {
    char name[16];
    snprintf(name, sizeof name, "i%d", i);
    r->index[i] = r->in_row[i] ? ix_index(ctx, 0) : ib_loop(lw_b(r->b), name, r->dims[i]);
  }
  r->kept = NULL;
  r->filled = false;
  int axes = row_axes(r, shape, r->dims);
  int64_t elements = 1, d;
  for (int i = 0; i < axes; i++)
    if (!ix_const_value(shape[i], &d) || !ir_mul_size(elements, d, &elements) || elements > LW_ROW_ELEMENTS) return;
  if (elements > 0 && (keep_always || !is_cheap(operand(r)))) r->kept = ib_alloc(lw_b(r->b), "row", r->type, axes, shape, IR_LOCAL);
}

void lw_rows_close(lw_rows *r) {
  for (int i = 0; i < r->rank; i++)
    if (!r->in_row[i]) ib_end(lw_b(r->b));
}

void lw_rows_pass(lw_rows *r) {
  for (int i = 0; i < r->rank; i++)
    if (r->in_row[i]) r->index[i] = ib_loop(lw_b(r->b), "r", r->dims[i]);
}

void lw_rows_pass_end(lw_rows *r) {
  for (int i = 0; i < r->rank; i++)
    if (r->in_row[i]) {
      ib_end(lw_b(r->b));
      r->index[i] = ix_index(lw_ctx(r->b), 0);
    }
}

bool lw_rows_put(lw_rows *r, ix v) {
  ix at[IR_MAX_RANK];
  if (!r->kept) return false;
  row_axes(r, at, r->index);
  ib_store(lw_b(r->b), r->kept, at, v);
  r->filled = true;
  return true;
}

ix lw_rows_x(lw_rows *r) {
  ix at[IR_MAX_RANK];
  if (r->filled) {
    row_axes(r, at, r->index);
    return ib_load(lw_b(r->b), r->kept, at);
  }
  ix e = operand(r);
  if (is_cheap(e)) return e;
  e = ib_let(lw_b(r->b), "v", e);
  if (r->kept) lw_rows_put(r, e);
  return e;
}

ix lw_rows_count(lw_rows *r) {
  ix all = ix_index(lw_ctx(r->b), 1);
  for (int i = 0; i < r->rank; i++)
    if (r->in_row[i]) all = ix_mul(lw_ctx(r->b), all, r->dims[i]);
  return all;
}

ix lw_rows_mean(lw_rows *r) {
  tn_ctx *ctx = lw_ctx(r->b);
  ir_builder *ib = lw_b(r->b);
  ir_buf *sum = ib_local(ib, "sum", r->type, lw_zero(ctx, r->type));
  lw_rows_pass(r);
  ib_update(ib, sum, NULL, IR_ADD, lw_rows_x(r));
  lw_rows_pass_end(r);
  return ib_let(ib, "mean", ix_div(ctx, ib_get(ib, sum), ix_cast(ctx, r->type, lw_rows_count(r))));
}

ix lw_rows_variance(lw_rows *r, ix mean) {
  tn_ctx *ctx = lw_ctx(r->b);
  ir_builder *ib = lw_b(r->b);
  ir_buf *sum = ib_local(ib, "squares", r->type, lw_zero(ctx, r->type));
  lw_rows_pass(r);
  ix d = lw_rows_x(r);
  if (mean) d = ix_sub(ctx, d, mean);
  ib_update(ib, sum, NULL, IR_ADD, ix_mul(ctx, d, d));
  lw_rows_pass_end(r);
  return ib_let(ib, "variance", ix_div(ctx, ib_get(ib, sum), ix_cast(ctx, r->type, lw_rows_count(r))));
}
