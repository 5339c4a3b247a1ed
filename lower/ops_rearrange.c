/* ops_rearrange.c — movement ops with a pattern of their own, and shapes as data. */
#include "lower/grad.h"
#include <string.h>

/* ---- DepthToSpace, SpaceToDepth ---- */

/* Checks rank 4 and the attributes; returns the block size and whether the mode is CRD. */
static int64_t depth_block(tn_ctx *ctx, const ir_node *n, bool *crd) {
  lw_need_rank(ctx, n, 0, 4);
  const char *mode = ir_attr_get_string(n, "mode", "DCR");
  *crd = strcmp(mode, "CRD") == 0;
  if (!*crd && strcmp(mode, "DCR") != 0) lw_bad(ctx, n, "unknown mode '%s'", mode);
  int64_t block = ir_attr_get_int(n, "blocksize", 0);
  if (block < 1 || block > 1 << 20) lw_bad(ctx, n, "blocksize is %lld", (long long)block);
  return block;
}
static ix divided(tn_ctx *ctx, const ir_node *n, int axis, int64_t by) {
  ix d = n->in[0]->dims[axis];
  if (ix_is_const(d) && d->u.i % by != 0) lw_bad(ctx, n, "axis %d has extent %lld, no multiple of %lld", axis, (long long)d->u.i, (long long)by);
  return ix_divi(ctx, d, by);
}

static void depth_to_space_infer(tn_ctx *ctx, ir_node *n) {
  bool crd;
  int64_t s = depth_block(ctx, n, &crd);
  const ir_value *x = n->in[0];
  lw_set(n, 0, x->dtype, 4, (ix[]){x->dims[0], divided(ctx, n, 1, s * s), ix_muli(ctx, x->dims[2], s), ix_muli(ctx, x->dims[3], s)});
}
static ix depth_to_space_value(lw_build *b, ir_node *n, int out, const ix *index) {
  tn_ctx *ctx = lw_ctx(b);
  bool crd;
  int64_t s = depth_block(ctx, n, &crd);
  ix block = ix_add(ctx, ix_muli(ctx, ix_remi(ctx, index[2], s), s), ix_remi(ctx, index[3], s)); /* within s*s */
  ix c = crd ? ix_add(ctx, ix_muli(ctx, index[1], s * s), block) : ix_add(ctx, ix_mul(ctx, block, n->out[out]->dims[1]), index[1]);
  return lw_in(b, n, 0, (ix[]){index[0], c, ix_divi(ctx, index[2], s), ix_divi(ctx, index[3], s)});
}

static void space_to_depth_infer(tn_ctx *ctx, ir_node *n) {
  bool crd;
  int64_t s = depth_block(ctx, n, &crd);
  const ir_value *x = n->in[0];
  lw_set(n, 0, x->dtype, 4, (ix[]){x->dims[0], ix_muli(ctx, x->dims[1], s * s), divided(ctx, n, 2, s), divided(ctx, n, 3, s)});
}
static ix space_to_depth_value(lw_build *b, ir_node *n, int out, const ix *index) {
  (void)out;
  tn_ctx *ctx = lw_ctx(b);
  bool crd;
  int64_t s = depth_block(ctx, n, &crd);
  ix channels = n->in[0]->dims[1], block, c;
  if (ix_is_int(channels, 0)) return lw_zero(ctx, n->in[0]->dtype); /* empty: never evaluated */
  if (crd) block = ix_remi(ctx, index[1], s * s), c = ix_divi(ctx, index[1], s * s);
  else block = ix_div(ctx, index[1], channels), c = ix_rem(ctx, index[1], channels);
  ix h = ix_add(ctx, ix_muli(ctx, index[2], s), ix_divi(ctx, block, s));
  ix w = ix_add(ctx, ix_muli(ctx, index[3], s), ix_remi(ctx, block, s));
  return lw_in(b, n, 0, (ix[]){index[0], c, h, w});
}

/* ---- Trilu ---- */

static void trilu_infer(tn_ctx *ctx, ir_node *n) {
  if (n->in[0]->rank < 2) lw_bad(ctx, n, "the input has rank %d, needs 2 or more", n->in[0]->rank);
  if (lw_has(n, 1)) {
    lw_need_integer(ctx, n, 1);
    lw_need_single(ctx, n, 1);
  }
  lw_set_like(n, 0, n->in[0]->dtype, n->in[0]);
}
static ix trilu_value(lw_build *b, ir_node *n, int out, const ix *index) {
  (void)out;
  tn_ctx *ctx = lw_ctx(b);
  int r = n->in[0]->rank;
  /* k beyond the matrix means the same as at its edge */
  ix far = ix_add(ctx, n->in[0]->dims[r - 2], n->in[0]->dims[r - 1]), k = ix_index(ctx, 0);
  int64_t known;
  if (lw_has(n, 1)) {
    if (ir_known_ints(ctx, n->in[1], &known, 1) == 1) k = ix_index(ctx, known > INT32_MAX ? INT32_MAX : known < INT32_MIN ? INT32_MIN : known);
    else k = ix_cast(ctx, TN_INDEX, lw_scalar_in(b, n, 1));
  }
  k = lw_clamp(ctx, k, ix_muli(ctx, far, -1), far);
  ix diagonal = ix_add(ctx, index[r - 2], k), column = index[r - 1];
  ix keep = ir_attr_get_int(n, "upper", 1) ? ix_ge(ctx, column, diagonal) : ix_le(ctx, column, diagonal);
  return ix_select(ctx, keep, lw_in(b, n, 0, index), lw_zero(ctx, n->in[0]->dtype));
}

/* ---- CenterCropPad ---- */

/* Extents of the result; shift[i]: input index minus output index. */
static void crop_pad(tn_ctx *ctx, const ir_node *n, ix *dims, int64_t *shift) {
  const ir_value *x = n->in[0];
  int64_t shape[IR_MAX_RANK];
  int axes[IR_MAX_RANK], naxes = lw_axes(ctx, n, "axes", -1, x->rank, axes);
  int count = lw_need_ints(ctx, n, 1, "shape", shape, IR_MAX_RANK), over = naxes >= 0 ? naxes : x->rank;
  if (count != over) lw_bad(ctx, n, "shape has %d entries for %d axes", count, over);
  for (int i = 0; i < x->rank; i++) dims[i] = x->dims[i], shift[i] = 0;
  for (int i = 0; i < over; i++) {
    int a = naxes >= 0 ? axes[i] : i;
    int64_t from = ir_dim(ctx, x, a), to = shape[i];
    if (to < 0) lw_bad(ctx, n, "shape has the extent %lld", (long long)to);
    dims[a] = ix_index(ctx, to);
    shift[a] = to < from ? (from - to) / 2 : -((to - from) / 2);
  }
}
static void crop_pad_infer(tn_ctx *ctx, ir_node *n) {
  ix dims[IR_MAX_RANK];
  int64_t shift[IR_MAX_RANK];
  crop_pad(ctx, n, dims, shift);
  lw_set(n, 0, n->in[0]->dtype, n->in[0]->rank, dims);
}
static ix crop_pad_value(lw_build *b, ir_node *n, int out, const ix *index) {
  (void)out;
  tn_ctx *ctx = lw_ctx(b);
  ix dims[IR_MAX_RANK], at[IR_MAX_RANK], inside = ix_bool(ctx, true);
  int64_t shift[IR_MAX_RANK];
  crop_pad(ctx, n, dims, shift);
  for (int i = 0; i < n->in[0]->rank; i++) {
    at[i] = ix_addi(ctx, index[i], shift[i]);
    inside = ix_and(ctx, inside, ix_within(ctx, at[i], ix_index(ctx, 0), n->in[0]->dims[i]));
  }
  return ix_select(ctx, inside, lw_in(b, n, 0, at), lw_zero(ctx, n->in[0]->dtype));
}

/* ---- ReverseSequence ---- */

static void reverse_sequence_axes(tn_ctx *ctx, const ir_node *n, int *batch, int *time) {
  if (n->in[0]->rank < 2) lw_bad(ctx, n, "the input has rank %d, needs 2 or more", n->in[0]->rank);
  *batch = ir_axis(ctx, n, ir_attr_get_int(n, "batch_axis", 1), n->in[0]->rank);
  *time = ir_axis(ctx, n, ir_attr_get_int(n, "time_axis", 0), n->in[0]->rank);
  if (*batch == *time) lw_bad(ctx, n, "batch_axis and time_axis are both %d", *batch);
}
static void reverse_sequence_infer(tn_ctx *ctx, ir_node *n) {
  int batch, time;
  reverse_sequence_axes(ctx, n, &batch, &time);
  lw_need_rank(ctx, n, 1, 1);
  lw_need_integer(ctx, n, 1);
  ix have = n->in[1]->dims[0], want = n->in[0]->dims[batch];
  if (ix_is_const(have) && ix_is_const(want) && have != want)
    lw_bad(ctx, n, "%lld lengths for a batch of %lld", (long long)have->u.i, (long long)want->u.i);
  lw_set_like(n, 0, n->in[0]->dtype, n->in[0]);
}
static ix reverse_sequence_value(lw_build *b, ir_node *n, int out, const ix *index) {
  (void)out;
  tn_ctx *ctx = lw_ctx(b);
  int batch, time;
  reverse_sequence_axes(ctx, n, &batch, &time);
  ix length = ix_cast(ctx, TN_INDEX, lw_in(b, n, 1, &index[batch])), at[IR_MAX_RANK];
  length = lw_clamp(ctx, length, ix_index(ctx, 0), n->in[0]->dims[time]);
  for (int i = 0; i < n->in[0]->rank; i++) at[i] = index[i];
  at[time] = ix_select(ctx, ix_lt(ctx, index[time], length), ix_sub(ctx, ix_addi(ctx, length, -1), index[time]), index[time]);
  return lw_in(b, n, 0, at);
}

/* ---- Shape, Size ---- */

/* First axis of the result; `count` gets how many. */
static int shape_window(const ir_node *n, int *count) {
  int64_t rank = n->in[0]->rank, start = ir_attr_get_int(n, "start", 0), end = ir_attr_get_int(n, "end", rank);
  if (start < 0) start += rank;
  if (end < 0) end += rank;
  start = start < 0 ? 0 : start > rank ? rank : start;
  end = end < 0 ? 0 : end > rank ? rank : end;
  *count = end > start ? (int)(end - start) : 0;
  return (int)start;
}
static void shape_infer(tn_ctx *ctx, ir_node *n) {
  int count, first = shape_window(n, &count);
  int64_t *data = IR_NEW_ARRAY(ctx, int64_t, count + 1);
  bool known = true;
  for (int i = 0; i < count; i++) known &= ix_const_value(n->in[0]->dims[first + i], &data[i]);
  if (known) lw_set_known(ctx, n, 0, TN_I64, 1, (int64_t[]){count}, data);
  else lw_set(n, 0, TN_I64, 1, (ix[]){ix_index(ctx, count)});
}
static ix shape_value(lw_build *b, ir_node *n, int out, const ix *index) {
  (void)out;
  tn_ctx *ctx = lw_ctx(b);
  int count, first = shape_window(n, &count);
  ix e = ix_int(ctx, TN_I64, 0);
  for (int i = count - 1; i >= 0; i--) {
    ix d = ix_cast(ctx, TN_I64, n->in[0]->dims[first + i]);
    e = i == count - 1 ? d : ix_select(ctx, ix_eq(ctx, index[0], ix_index(ctx, i)), d, e);
  }
  return e;
}

static ix size_expr(tn_ctx *ctx, const ir_node *n) {
  ix e = ix_index(ctx, 1);
  for (int i = 0; i < n->in[0]->rank; i++) e = ix_mul(ctx, e, n->in[0]->dims[i]);
  return e;
}
static void size_infer(tn_ctx *ctx, ir_node *n) {
  int64_t *size = IR_NEW(ctx, int64_t);
  if (ix_const_value(size_expr(ctx, n), size)) lw_set_known(ctx, n, 0, TN_I64, 0, NULL, size);
  else lw_set(n, 0, TN_I64, 0, NULL);
}
static ix size_value(lw_build *b, ir_node *n, int out, const ix *index) {
  (void)out, (void)index;
  return ix_cast(lw_ctx(b), TN_I64, size_expr(lw_ctx(b), n));
}

/* ---- gradients: each is its own inverse, or keeps what it kept ---- */

static ir_value *again(lw_grad *d, ir_value *v) { /* the same op on another operand */
  ir_node *n = d->n, *m = lw_node_n(d->g, n, n->op->name, n->nin, n->in, 1);
  m->in[0] = v;
  m->opset = n->opset;
  m->nattrs = n->nattrs;
  m->attrs = n->attrs;
  ir_infer(d->ctx, m);
  return m->out[0];
}
static void trilu_grad(lw_grad *d) { lw_grad_add(d, 0, again(d, d->dy[0])); }
static void reverse_sequence_grad(lw_grad *d) { lw_grad_add(d, 0, again(d, d->dy[0])); }

static void crop_pad_grad(lw_grad *d) {
  ix dims[IR_MAX_RANK];
  int64_t shift[IR_MAX_RANK], pads[2 * IR_MAX_RANK];
  int rank = d->n->in[0]->rank;
  crop_pad(d->ctx, d->n, dims, shift);
  for (int i = 0; i < rank; i++) {
    pads[i] = shift[i]; /* cropped before, or padded if negative */
    pads[rank + i] = ir_dim(d->ctx, d->n->in[0], i) - ir_dim(d->ctx, d->n->out[0], i) - shift[i];
  }
  lw_grad_add(d, 0, lw_op2(d->g, d->n, "Pad", d->dy[0], ir_graph_ints(d->g, NULL, 2 * rank, pads)));
}

#define ROW(name, since, nin, max_in, attrs, rule, grad) \
  {name, "", IR_OP_MOVEMENT, since, nin, max_in, 1, 1, attrs, rule##_infer, rule##_value, NULL, NULL, NULL, grad}

const ir_op lw_ops_rearrange[] = {
    ROW("DepthToSpace", 1, 1, 1, "blocksize:i mode:s", depth_to_space, lw_grad_moved),
    ROW("SpaceToDepth", 1, 1, 1, "blocksize:i mode:s", space_to_depth, lw_grad_moved),
    ROW("Trilu", 14, 1, 2, "upper:i", trilu, trilu_grad),
    ROW("CenterCropPad", 18, 2, 2, "axes:I", crop_pad, crop_pad_grad),
    ROW("ReverseSequence", 10, 2, 2, "batch_axis:i time_axis:i", reverse_sequence, reverse_sequence_grad),
    ROW("Shape", 1, 1, 1, "start:i end:i", shape, NULL),
    ROW("Size", 1, 1, 1, "", size, NULL),
    {0}};
