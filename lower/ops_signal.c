/* ops_signal.c — DFT and STFT.
 *
 *   STFT  ->  Frames (overlapping pieces of the signal), Mul (window), Fourier
 *   DFT   ->  Fourier, with a table of cosines and sines made when compiling
 *
 * Sums run in f64 whatever the element type: outputs that cancel to nothing then do so. For inference on a target larger
 * transforms become products with matrices (fourier.c). */
#include "lower/fourier.h"
#include "lower/grad.h"
#include "lower/ops_util.h"
#include <math.h>

/* cos and sin of 2 pi j / length for all j; exact at the quarter turns. */
static ir_value *circle_table(ir_graph *g, const ir_node *n, int64_t length) {
  tn_ctx *ctx = g->ctx;
  if (length < 1 || length > (int64_t)1 << 26) lw_unsupported(ctx, n, "a transform of length %lld", (long long)length);
  double *t = IR_NEW_ARRAY(ctx, double, 2 * length);
  for (int64_t j = 0; j < length; j++) {
    int64_t quarter = 4 * j / length, rest = 4 * j % length; /* angle = quarter turns + (pi / 2) rest / length */
    double a = 1.57079632679489661923 * (double)rest / (double)length, c = cos(a), s = sin(a);
    t[2 * j] = quarter == 0 ? c : quarter == 1 ? -s : quarter == 2 ? -c : s;
    t[2 * j + 1] = quarter == 0 ? s : quarter == 1 ? c : quarter == 2 ? -s : -c;
    if (rest == 0) t[2 * j + (quarter % 2 ? 0 : 1)] = 0;
  }
  return ir_graph_const(g, NULL, TN_F64, 2, (int64_t[]){length, 2}, t, false);
}

/* ---- Fourier: x [.., n, .., 1 or 2] and the table -> [.., k, .., 2], or real when inverse and onesided ---- */

static void check_signal(tn_ctx *ctx, const ir_node *n, const ir_value *x) {
  if (!ir_is_float(x->dtype)) lw_bad(ctx, n, "the input is %s, not float", ir_dtype_name(x->dtype));
  if (x->rank < 2 || (!ix_is_int(x->dims[x->rank - 1], 1) && !ix_is_int(x->dims[x->rank - 1], 2)))
    lw_bad(ctx, n, "the last axis of the input must be 1 (real) or 2 (real and imaginary part)");
}
static void fourier_of(tn_ctx *ctx, const ir_node *n, int64_t axis, int64_t length, lw_fourier *f) {
  const ir_value *x = n->in[0];
  check_signal(ctx, n, x);
  f->axis = ir_axis(ctx, n, axis, x->rank);
  if (f->axis == x->rank - 1) lw_bad(ctx, n, "axis %d holds the real and imaginary parts", f->axis);
  f->inverse = ir_attr_get_int(n, "inverse", 0) != 0;
  f->onesided = ir_attr_get_int(n, "onesided", 0) != 0;
  f->real_in = ix_is_int(x->dims[x->rank - 1], 1);
  f->real_out = f->inverse && f->onesided;
  f->have = ir_dim(ctx, x, f->axis);
  f->length = length > 0 ? length : f->real_out ? 2 * (f->have - 1) : f->have;
  if (f->length < 1 || f->length > (int64_t)1 << 26) lw_bad(ctx, n, "a transform of length %lld", (long long)f->length);
  if (f->onesided && !f->inverse && !f->real_in) lw_bad(ctx, n, "onesided needs a real input");
  int64_t half = f->length / 2 + 1, most = f->real_out ? half : f->length;
  f->used = f->have < most ? f->have : most;
  f->out = f->onesided && !f->inverse ? half : f->length;
}
static void fourier_shape(tn_ctx *ctx, ir_node *n, const lw_fourier *f) {
  const ir_value *x = n->in[0];
  ix dims[IR_MAX_RANK];
  for (int i = 0; i < x->rank; i++) dims[i] = x->dims[i];
  dims[f->axis] = ix_index(ctx, f->out);
  dims[x->rank - 1] = ix_index(ctx, f->real_out ? 1 : 2);
  lw_set(n, 0, x->dtype, x->rank, dims);
}

void lw_fourier_of(tn_ctx *ctx, const ir_node *n, lw_fourier *f) { fourier_of(ctx, n, ir_attr_get_int(n, "axis", -2), ir_dim(ctx, n->in[1], 0), f); }

static void fourier_infer(tn_ctx *ctx, ir_node *n) {
  lw_fourier f;
  lw_need_rank(ctx, n, 1, 2);
  if (n->in[1]->dtype != TN_F64 || !ix_is_int(n->in[1]->dims[1], 2)) lw_bad(ctx, n, "needs an f64 table [length, 2]");
  lw_fourier_of(ctx, n, &f);
  fourier_shape(ctx, n, &f);
}
static void fourier_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *s = lw_b(b);
  const ir_value *x = n->in[0], *y = n->out[0];
  lw_fourier f;
  lw_fourier_of(ctx, n, &f);
  int last = x->rank - 1;
  ix at[IR_MAX_RANK], from[IR_MAX_RANK], zero = ix_float(ctx, TN_F64, 0);
  lw_loops(b, NULL, last, y->dims, at);
  for (int i = 0; i < last; i++) from[i] = at[i];
  ir_buf *re = ib_local(s, "re", TN_F64, zero), *im = f.real_out ? NULL : ib_local(s, "im", TN_F64, zero);
  ix k = at[f.axis], t = from[f.axis] = ib_loop(s, "t", ix_index(ctx, f.used));
  ix turn = ib_let(s, "turn", ix_remi(ctx, ix_mul(ctx, k, t), f.length)); /* angle in units of 2 pi / length */
  ix c = ib_let(s, "c", lw_in(b, n, 1, (ix[]){turn, ix_index(ctx, 0)})), d = ib_let(s, "s", lw_in(b, n, 1, (ix[]){turn, ix_index(ctx, 1)}));
  if (!f.inverse) d = ix_unary(ctx, IX_NEG, d);
  from[last] = ix_index(ctx, 0);
  ix xr = ix_cast(ctx, TN_F64, lw_in(b, n, 0, from)), xi = NULL;
  from[last] = ix_index(ctx, 1);
  if (!f.real_in) xi = ix_cast(ctx, TN_F64, lw_in(b, n, 0, from));
  ix r = ix_mul(ctx, xr, c), i = ix_mul(ctx, xr, d);
  if (xi) {
    r = ix_sub(ctx, r, ix_mul(ctx, xi, d));
    i = ix_add(ctx, i, ix_mul(ctx, xi, c));
  }
  if (f.real_out) { /* the missing half is the mirror image of this one */
    ix alone = ix_or(ctx, ix_eq(ctx, t, ix_index(ctx, 0)), ix_eq(ctx, ix_muli(ctx, t, 2), ix_index(ctx, f.length)));
    r = ix_mul(ctx, ix_select(ctx, alone, ix_float(ctx, TN_F64, 1), ix_float(ctx, TN_F64, 2)), r);
  }
  ib_update(s, re, NULL, IR_ADD, r);
  if (im) ib_update(s, im, NULL, IR_ADD, i);
  ib_end(s);
  for (int part = 0; part < (im ? 2 : 1); part++) {
    ix v = ib_get(s, part ? im : re);
    if (f.inverse) v = ix_div(ctx, v, ix_float(ctx, TN_F64, (double)f.length));
    at[last] = ix_index(ctx, part);
    lw_out(b, n, 0, at, ix_cast(ctx, y->dtype, v));
  }
  ib_end_n(s, last);
}

/* ---- DFT ---- */

static void dft_of(tn_ctx *ctx, const ir_node *n, lw_fourier *f) {
  int64_t axis = n->opset >= 20 ? -2 : ir_attr_get_int(n, "axis", 1), length = 0;
  if (n->opset >= 20 && lw_has(n, 2)) axis = lw_need_int(ctx, n, 2, "axis");
  if (lw_has(n, 1) && (length = lw_need_int(ctx, n, 1, "dft_length")) < 1) lw_bad(ctx, n, "dft_length is %lld", (long long)length);
  fourier_of(ctx, n, axis, length, f);
}
static void dft_infer(tn_ctx *ctx, ir_node *n) {
  lw_fourier f;
  dft_of(ctx, n, &f);
  fourier_shape(ctx, n, &f);
}
static void dft_expand(ir_graph *g, ir_node *n) {
  lw_fourier f;
  dft_of(g->ctx, n, &f);
  ir_node *m = lw_node_n(g, n, "tenon:Fourier", 2, (ir_value *[]){n->in[0], circle_table(g, n, f.length)}, 1);
  ir_attr_int(m, "axis", f.axis);
  ir_attr_int(m, "inverse", f.inverse);
  ir_attr_int(m, "onesided", f.onesided);
  ir_infer(g->ctx, m);
  lw_replace(g, n, 0, m->out[0]);
}

/* ---- Frames: signal [batch, samples, parts] -> [batch, frames, length, parts] ---- */

static void frames_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0];
  lw_need_rank(ctx, n, 0, 3);
  int64_t step = ir_attr_get_int(n, "step", 0), length = ir_attr_get_int(n, "length", 0), have = ir_dim(ctx, x, 1);
  if (step < 1 || length < 1 || length > have) lw_bad(ctx, n, "frames of %lld samples every %lld of a signal of %lld", (long long)length, (long long)step, (long long)have);
  lw_set(n, 0, x->dtype, 4, (ix[]){x->dims[0], ix_index(ctx, (have - length) / step + 1), ix_index(ctx, length), x->dims[2]});
}
static ix frames_value(lw_build *b, ir_node *n, int out, const ix *index) {
  (void)out;
  tn_ctx *ctx = lw_ctx(b);
  ix at = ix_add(ctx, ix_muli(ctx, index[1], ir_attr_get_int(n, "step", 0)), index[2]);
  return lw_in(b, n, 0, (ix[]){index[0], at, index[3]});
}

/* ---- STFT ---- */

typedef struct stft {
  int64_t step, length, window; /* length: of the transform; window: samples that enter it */
  bool onesided;
} stft;

static void stft_of(tn_ctx *ctx, const ir_node *n, stft *f) {
  const ir_value *x = n->in[0];
  check_signal(ctx, n, x);
  if (x->rank != 3) lw_bad(ctx, n, "the signal has rank %d, not 3", x->rank);
  f->step = lw_need_int(ctx, n, 1, "frame_step");
  f->window = 0;
  if (lw_has(n, 2)) {
    lw_need_rank(ctx, n, 2, 1);
    lw_need_same_type(ctx, n, 0, 2);
    f->window = ir_dim(ctx, n->in[2], 0);
  }
  f->length = lw_has(n, 3) ? lw_need_int(ctx, n, 3, "frame_length") : f->window ? f->window : ir_dim(ctx, x, 1);
  if (!f->window || f->window > f->length) {
    if (f->window > f->length) lw_bad(ctx, n, "the window has %lld samples, the frame %lld", (long long)f->window, (long long)f->length);
    f->window = f->length;
  }
  f->onesided = ir_attr_get_int(n, "onesided", 1) != 0;
  if (f->step < 1 || f->length < 1 || f->length > ir_dim(ctx, x, 1))
    lw_bad(ctx, n, "frames of %lld samples every %lld of a signal of %lld", (long long)f->length, (long long)f->step, (long long)ir_dim(ctx, x, 1));
  if (f->onesided && !ix_is_int(x->dims[2], 1)) lw_bad(ctx, n, "onesided needs a real signal");
}
static void stft_infer(tn_ctx *ctx, ir_node *n) {
  stft f;
  stft_of(ctx, n, &f);
  int64_t frames = (ir_dim(ctx, n->in[0], 1) - f.length) / f.step + 1;
  lw_set(n, 0, n->in[0]->dtype, 4, (ix[]){n->in[0]->dims[0], ix_index(ctx, frames), ix_index(ctx, f.onesided ? f.length / 2 + 1 : f.length), ix_index(ctx, 2)});
}
static void stft_expand(ir_graph *g, ir_node *n) {
  tn_ctx *ctx = g->ctx;
  stft f;
  stft_of(ctx, n, &f);
  ir_node *m = lw_node_n(g, n, "tenon:Frames", 1, n->in, 1);
  ir_attr_int(m, "step", f.step);
  ir_attr_int(m, "length", f.length);
  ir_infer(ctx, m);
  ir_value *x = m->out[0];
  if (lw_has(n, 2)) {
    ir_value *w = n->in[2];
    if (f.window < f.length) { /* a short window: the rest of the frame is silent */
      ir_value *pads = ir_graph_ints(g, NULL, 2, (int64_t[]){0, f.length - f.window});
      w = lw_node(g, n, "Pad", 2, (ir_value *[]){w, pads});
    }
    w = lw_node(g, n, "Reshape", 2, (ir_value *[]){w, ir_graph_ints(g, NULL, 2, (int64_t[]){f.length, 1})});
    x = lw_node(g, n, "Mul", 2, (ir_value *[]){x, w});
  }
  m = lw_node_n(g, n, "tenon:Fourier", 2, (ir_value *[]){x, circle_table(g, n, f.length)}, 1);
  ir_attr_int(m, "axis", 2);
  ir_attr_int(m, "onesided", f.onesided);
  ir_infer(ctx, m);
  lw_replace(g, n, 0, m->out[0]);
}

/* The transform as a product with M[t, part in, k, part out], for gradients. What runs is made by fourier.c. */
static void fourier_expand(ir_graph *g, ir_node *n) {
  tn_ctx *ctx = g->ctx;
  ir_value *x = n->in[0];
  const ir_value *y = n->out[0];
  lw_fourier f;
  lw_fourier_of(ctx, n, &f);
  int last = x->rank - 1;
  int64_t ci = ir_dim(ctx, x, last), co = ir_dim(ctx, y, last), K = ir_dim(ctx, y, f.axis), dims[4] = {f.used, ci, K, co}, count = f.used * K;
  double *m = ir_alloc_array(ctx, (size_t)(count * ci * co) + 1, sizeof *m);
  for (int64_t i = 0; i < count; i++) {
    int64_t t = i / K, k = i % K;
    double a = 2 * 3.14159265358979323846 * (double)(k * t % f.length) / (double)f.length, c = cos(a), s = f.inverse ? sin(a) : -sin(a);
    double by = f.inverse ? 1 / (double)f.length : 1;
    if (f.real_out && t && 2 * t != f.length) by *= 2;
    double part[2][2] = {{c, s}, {-s, c}};
    for (int64_t p = 0; p < ci; p++)
      for (int64_t q = 0; q < co; q++) m[((t * ci + p) * K + k) * co + q] = by * part[p][q];
  }
  ir_value *matrix = lw_cast_node(g, n, ir_graph_const(g, NULL, TN_F64, 4, dims, m, false), x->dtype);
  x = lw_slice(g, n, x, f.axis, 0, f.used);
  char equation[64], from[16] = {0}, to[16] = {0};
  for (int i = 0; i <= last; i++) from[i] = i == f.axis ? 'w' : i == last ? 'x' : (char)('a' + i), to[i] = i == f.axis ? 'y' : i == last ? 'z' : from[i];
  snprintf(equation, sizeof equation, "%s,wxyz->%s", from, to);
  ir_node *e = lw_node_n(g, n, "Einsum", 2, (ir_value *[]){x, matrix}, 1);
  ir_attr_string(e, "equation", equation);
  ir_infer(ctx, e);
  lw_replace(g, n, 0, e->out[0]);
}

const ir_op lw_ops_signal[] = {
    {"DFT", "", IR_OP_COMPOSITE, 17, 1, 3, 1, 1, "axis:i inverse:i onesided:i", dft_infer, NULL, NULL, dft_expand, NULL, NULL},
    {"STFT", "", IR_OP_COMPOSITE, 17, 2, 4, 1, 1, "onesided:i", stft_infer, NULL, NULL, stft_expand, NULL, NULL},
    {"Fourier", "tenon", IR_OP_KERNEL, 1, 2, 2, 1, 1, "axis:i inverse:i onesided:i", fourier_infer, NULL, fourier_build, fourier_expand, NULL, NULL},
    {"Frames", "tenon", IR_OP_MOVEMENT, 1, 1, 1, 1, 1, "step:i length:i", frames_infer, frames_value, NULL, NULL, NULL, lw_grad_moved},
    {0}};
