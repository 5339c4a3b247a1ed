/* window.c — see window.h. */
#include "lower/window.h"
#include <string.h>

const char *lw_axis_names(int rank) { return rank == 1 ? "x" : rank == 2 ? "yx" : rank == 3 ? "zyx" : NULL; }
const char *lw_tap_names(int rank) { return rank == 1 ? "s" : rank == 2 ? "rs" : rank == 3 ? "qrs" : NULL; }

void lw_spatial_attr(tn_ctx *ctx, const ir_node *n, const char *name, int rank, int64_t least, int64_t otherwise, int64_t *out) {
  const int64_t *v;
  int count = ir_attr_get_ints(n, name, &v);
  if (count >= 0 && count != rank) lw_bad(ctx, n, "'%s' has %d entries; the input has %d spatial axes", name, count, rank);
  for (int i = 0; i < rank; i++) {
    out[i] = count < 0 ? otherwise : v[i];
    if (out[i] < least || out[i] > INT32_MAX) lw_bad(ctx, n, "'%s' holds %lld", name, (long long)out[i]);
  }
}

void lw_kernel_shape(tn_ctx *ctx, const ir_node *n, int rank, ix *taps) {
  int64_t v[LW_MAX_SPATIAL];
  if (!lw_has_attr(n, "kernel_shape")) lw_bad(ctx, n, "'kernel_shape' is missing");
  lw_spatial_attr(ctx, n, "kernel_shape", rank, 1, 1, v);
  for (int i = 0; i < rank; i++) taps[i] = ix_index(ctx, v[i]);
}

void lw_window_of(tn_ctx *ctx, const ir_node *n, const ix *taps, lw_window *w) {
  const ir_value *x = n->in[0];
  int rank = x->rank - 2;
  if (rank < 1) lw_bad(ctx, n, "the input has rank %d; N, C and at least one spatial axis are needed", x->rank);
  *w = (lw_window){.rank = rank};
  lw_spatial_attr(ctx, n, "strides", rank, 1, 1, w->stride);
  lw_spatial_attr(ctx, n, "dilations", rank, 1, 1, w->dilation);
  const char *mode = ir_attr_get_string(n, "auto_pad", "NOTSET");
  const int64_t *pads;
  int npads = ir_attr_get_ints(n, "pads", &pads);
  if (npads >= 0 && npads != 2 * rank) lw_bad(ctx, n, "'pads' has %d entries, not %d", npads, 2 * rank);
  for (int i = 0; i < npads; i++)
    if (pads[i] < 0 || pads[i] > INT32_MAX) lw_bad(ctx, n, "'pads' holds %lld", (long long)pads[i]);
  bool ceil_mode = ir_attr_get_int(n, "ceil_mode", 0) != 0;
  bool upper = strcmp(mode, "SAME_UPPER") == 0, lower = strcmp(mode, "SAME_LOWER") == 0, valid = strcmp(mode, "VALID") == 0;
  if (!upper && !lower && !valid && strcmp(mode, "NOTSET") != 0 && *mode) lw_bad(ctx, n, "auto_pad '%s'", mode);
  ix zero = ix_index(ctx, 0);
  for (int i = 0; i < rank; i++) {
    int64_t s = w->stride[i];
    ix in = w->in[i] = x->dims[i + 2];
    w->taps[i] = taps[i];
    ix reach = ix_addi(ctx, ix_muli(ctx, ix_addi(ctx, taps[i], -1), w->dilation[i]), 1); /* extent that the taps span */
    if (upper || lower) {
      w->out[i] = ix_ceil_div(ctx, in, s);
      ix total = ix_add(ctx, ix_muli(ctx, ix_addi(ctx, w->out[i], -1), s), ix_sub(ctx, reach, in));
      total = ix_max(ctx, total, zero);
      ix less = ix_divi(ctx, total, 2), more = ix_sub(ctx, total, less);
      w->begin[i] = upper ? less : more;
      w->end[i] = upper ? more : less;
      continue;
    }
    w->begin[i] = ix_index(ctx, valid || npads < 0 ? 0 : pads[i]);
    w->end[i] = ix_index(ctx, valid || npads < 0 ? 0 : pads[rank + i]);
    ix room = ix_sub(ctx, ix_add(ctx, in, ix_add(ctx, w->begin[i], w->end[i])), reach);
    ix out = ix_addi(ctx, ceil_mode ? ix_ceil_div(ctx, room, s) : ix_divi(ctx, room, s), 1);
    int64_t extent;
    if (ix_const_value(out, &extent) && extent < 1 && !ix_is_int(in, 0))
      lw_bad(ctx, n, "the window (%s) is larger than the padded input along spatial axis %d", ix_print(ctx, reach), i);
    /* a last window that would start in the padding behind the input does not count */
    if (ceil_mode) out = ix_min(ctx, out, ix_ceil_div(ctx, ix_add(ctx, in, w->begin[i]), s));
    w->out[i] = ix_max(ctx, out, zero);
  }
}

void lw_window_at(tn_ctx *ctx, const lw_window *w, const ix *o, const ix *t, ix *at) {
  for (int i = 0; i < w->rank; i++)
    at[i] = ix_sub(ctx, ix_add(ctx, ix_muli(ctx, o[i], w->stride[i]), ix_muli(ctx, t[i], w->dilation[i])), w->begin[i]);
}

ix lw_window_inside(tn_ctx *ctx, const lw_window *w, const ix *at) {
  ix all = ix_bool(ctx, true);
  for (int i = 0; i < w->rank; i++) all = ix_and(ctx, all, ix_within(ctx, at[i], ix_index(ctx, 0), w->in[i]));
  return all;
}

void lw_accumulate(lw_build *b, ir_buf *acc, ix a, ix w) {
  tn_ctx *ctx = lw_ctx(b);
  a = ix_cast(ctx, acc->dtype, a);
  w = ix_cast(ctx, acc->dtype, w);
  ix old = ib_get(lw_b(b), acc);
  ib_set(lw_b(b), acc, ir_is_float(acc->dtype) ? ix_fma(ctx, a, w, old) : ix_add(ctx, old, ix_mul(ctx, a, w)));
}

ir_buf *lw_accumulator(lw_build *b, tn_dtype t) {
  t = lw_compute_type(t);
  return ib_local(lw_b(b), "acc", t, lw_zero(lw_ctx(b), t));
}
