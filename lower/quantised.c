/* quantised.c — graphs of quantised tensors become integer kernels.
 *
 *   DequantizeLinear(x) ─┐
 *   DequantizeLinear(w) ─┼ Conv, MatMul, Gemm ── QuantizeLinear    becomes    x - zero ─┐
 *   DequantizeLinear(b) ─┘                                                          w ─┴ product in i32 + b ── Requantize
 *
 * and the integer ops of ONNX (ConvInteger, MatMulInteger, what QLinear* expand to) the same product.
 * Two forms of it, by what the target multiplies best:
 *   bytes   u8 x s8 (AArch64: s8 x s8), four products a lane (VNNI, sdot): zero points leave the product, x zero * sum(w) is
 *           subtracted from the sums; padding is written out where the zero point is not 0;
 *   words   i16 x i16 or s8, two products a lane (pmaddwd): values are stored less their zero points, so
 *           padding is 0 and any zero point of the weights is exact. Also what no form of bytes fits.
 * What a product's float neighbours round differently in is the last bit before a quantum is chosen: the
 * scales are multiplied ahead, and division by a scale becomes a product. */
#include "lower/compose.h"
#include "lower/lower.h"
#include "lower/narrow.h"
#include "lower/picked.h"
#include <math.h>
#include <string.h>

typedef struct words { /* what has been made of a value: x - zero in i16 */
  const ir_value *of, *zero;
  ir_value *centred;
} words;

typedef struct pass {
  tn_ctx *ctx;
  ir_graph *g;
  const cg_target *t;
  int nmade;
  words *made;
} pass;

static bool bytes(const ir_value *v) { return v && (v->dtype == TN_U8 || v->dtype == TN_I8); }

static bool is_conv(const ir_node *n) { return ir_node_is(n, "Conv") || ir_node_is(n, "ConvInteger"); }

/* All elements of a known vector of bytes or i32 are equal to *value. */
static bool known_equal(const ir_value *v, int64_t *value) {
  double one[4096];
  int64_t n = lw_known_floats(v, one, IR_COUNT(one));
  if (n < 1) return false;
  for (int64_t i = 1; i < n; i++)
    if (one[i] != one[0]) return false;
  *value = (int64_t)one[0];
  return true;
}

/* A constant, or computed from constants alone. */
static bool known_ahead(const ir_value *v) {
  if (v->kind == IR_VALUE_CONST || ir_value_source(v)) return true;
  if (!v->def || !v->def->nin) return false;
  for (int k = 0; k < v->def->nin; k++)
    if (v->def->in[k] && !known_ahead(v->def->in[k])) return false;
  return true;
}

static bool known_zero(const ir_value *zero) {
  int64_t z;
  return !zero || (known_equal(zero, &z) && z == 0);
}

/* A vector along axis `axis` of a tensor of rank `rank`, or a single number, so that it broadcasts. */
static ir_value *along(pass *p, ir_node *n, ir_value *v, int axis, int rank) {
  if (lw_single(v)) return lw_reshape(p->g, n, v, 0, NULL);
  int64_t dims[IR_MAX_RANK];
  for (int i = 0; i < rank; i++) dims[i] = i == axis ? ir_dim(p->ctx, v, 0) : 1;
  return lw_reshape(p->g, n, v, rank, dims);
}

static ir_value *word(pass *p, ir_node *n, ir_value *v) { return lw_cast_node(p->g, n, v, TN_I16); }

/* x - zero in i16, made once. */
static ir_value *centred(pass *p, ir_node *n, ir_value *x, ir_value *zero) {
  for (int i = 0; i < p->nmade; i++)
    if (p->made[i].of == x && p->made[i].zero == zero) return p->made[i].centred;
  ir_value *c = word(p, n, x);
  if (!known_zero(zero)) c = lw_op2(p->g, n, "Sub", c, word(p, n, lw_reshape(p->g, n, zero, 0, NULL)));
  IR_PUSH(p->ctx, p->made, p->nmade, (words){x, zero, c});
  return c;
}

/* `before` and `after` more elements along each axis, of value `fill` (null: 0). */
static ir_value *padded(pass *p, ir_node *n, ir_value *v, const int64_t *before, const int64_t *after, ir_value *fill) {
  int64_t pads[2 * IR_MAX_RANK];
  bool any = false;
  for (int i = 0; i < v->rank; i++) {
    pads[i] = before[i];
    pads[v->rank + i] = after[i];
    any |= before[i] || after[i];
  }
  if (!any) return v;
  ir_value *in[3] = {v, ir_graph_ints(p->g, NULL, 2 * v->rank, pads), fill};
  return lw_node(p->g, n, "Pad", fill ? 3 : 2, in);
}

static ir_value *rounded_up(pass *p, ir_node *n, ir_value *v, int axis, int64_t unit) {
  int64_t none[IR_MAX_RANK] = {0}, after[IR_MAX_RANK] = {0}, extent = ir_dim(p->ctx, v, axis);
  after[axis] = (extent + unit - 1) / unit * unit - extent;
  return padded(p, n, v, none, after, NULL);
}

/* ---- the product in i32 ---- */

typedef struct operands {
  ir_value *x, *zx, *w, *zw; /* bytes; zero points one number, of w also one per output; null: 0 */
  bool conv;
} operands;

static ir_value *product_node(pass *p, ir_node *n, const char *op, int nin, ir_value *const *in, const int64_t *pads) {
  ir_node *m = lw_node_n(p->g, n, op, nin, in, 1);
  m->name = n->name;
  for (int i = 0; i < n->nattrs; i++)
    if (strcmp(n->attrs[i].name, "alpha") && strcmp(n->attrs[i].name, "beta") && strncmp(n->attrs[i].name, "trans", 5)) IR_PUSH(p->ctx, m->attrs, m->nattrs, n->attrs[i]);
  if (pads) {
    ir_attr_string(m, "auto_pad", "NOTSET");
    ir_attr_ints(m, "pads", 2 * (in[0]->rank - 2), pads);
  }
  ir_infer(p->ctx, m);
  return m->out[0];
}

static bool explicit_pads(const ir_node *n, int64_t *pads, int count) {
  const int64_t *given;
  int got = ir_attr_get_ints(n, "pads", &given);
  if (strcmp(ir_attr_get_string(n, "auto_pad", "NOTSET"), "NOTSET") != 0 || (got >= 0 && got != count)) return false;
  for (int i = 0; i < count; i++) pads[i] = got < 0 ? 0 : given[i];
  return true;
}

/* Channels of a convolution, the inner extent of a matrix product: axes of x and w. */
static int sum_axis(const operands *o, bool of_w) { return o->conv ? 1 : of_w ? o->w->rank - 2 : o->x->rank - 1; }

/* A 3x3 convolution of stride 1 of bytes is Winograd's F(2 x 2, 3 x 3) in integers, without loss (schedule_winograd.c):
 * 16 products for 36, where that saves more than it takes to read 32 bytes of weights for 9. */
static bool winograd_fits(const pass *p, const ir_node *n, const operands *o) {
  int64_t pads[4];
  const int64_t *given;
  if (!o->conv || p->t->arch != CG_X86_64 || o->x->dtype != TN_U8 || o->w->dtype != TN_I8 || !known_zero(o->zx) || !known_zero(o->zw) || !known_ahead(o->w)) return false;
  if (o->x->rank != 4 || !ir_static(o->x) || !ir_static(o->w) || ir_attr_get_int(n, "group", 1) != 1 || !explicit_pads(n, pads, 4)) return false;
  for (int i = 0; i < 2; i++) {
    if (ir_dim(p->ctx, o->w, i + 2) != 3) return false;
    for (int k = 0; k < 2; k++)
      if (ir_attr_get_ints(n, i ? "strides" : "dilations", &given) > k && given[k] != 1) return false;
  }
  int64_t k = ir_dim(p->ctx, o->w, 0), c = ir_dim(p->ctx, o->w, 1), h = ir_dim(p->ctx, o->x, 2) + pads[0] + pads[2] - 2, w = ir_dim(p->ctx, o->x, 3) + pads[1] + pads[3] - 2;
  int64_t images = ir_dim(p->ctx, o->x, 0), saved = images * (9 * h * w - 16 * ((h + 1) / 2) * ((w + 1) / 2));
  return c >= 32 && k >= 32 && c % 8 == 0 && k % 8 == 0 && c <= 1024 && h > 0 && w > 0 && saved > 256;
}

static ir_value *product_of_words(pass *p, ir_node *n, const operands *o) {
  if (winograd_fits(p, n, o)) return product_node(p, n, "tenon:ConvWide", 2, (ir_value *[]){o->x, o->w}, NULL);
  ir_value *x = centred(p, n, o->x, o->zx), *w = o->w;
  if (!known_zero(o->zw)) w = lw_op2(p->g, n, "Sub", word(p, n, w), word(p, n, along(p, n, o->zw, o->conv ? 0 : w->rank - 1, w->rank)));
  else if (w->dtype == TN_U8) w = word(p, n, w);
  bool pairs = w->rank >= 2 && x->rank >= 2 && (!o->conv || ir_attr_get_int(n, "group", 1) == 1) && ir_static(x) && ir_static(w);
  if (pairs) {
    int ax = sum_axis(o, false), aw = sum_axis(o, true);
    x = rounded_up(p, n, x, ax, 2);
    w = rounded_up(p, n, w, aw, 2);
  }
  return product_node(p, n, o->conv ? "tenon:ConvWide" : "tenon:MatMulWide", 2, (ir_value *[]){x, w}, NULL);
}

/* The padding of a convolution written out, where the zero point is not 0: then pads are 0. */
static ir_value *padding_written(pass *p, ir_node *n, ir_value *x, ir_value *zx, int64_t *pads) {
  int spatial = x->rank - 2;
  int64_t before[IR_MAX_RANK] = {0}, after[IR_MAX_RANK] = {0};
  if (known_zero(zx)) return x;
  for (int i = 0; i < spatial; i++) before[i + 2] = pads[i], after[i + 2] = pads[spatial + i], pads[i] = pads[spatial + i] = 0;
  return padded(p, n, x, before, after, zx);
}

/* acc less zx times the sums of the weights of each output. */
static ir_value *less_zero(pass *p, ir_node *n, ir_value *acc, ir_value *w, ir_value *zx, bool conv) {
  ir_graph *g = p->g;
  int64_t sum[IR_MAX_RANK];
  int axes = 0;
  if (known_zero(zx)) return acc;
  for (int i = 0; i < w->rank; i++)
    if (i != (conv ? 0 : 1)) sum[axes++] = i;
  ir_value *all = lw_op2_int(g, n, "ReduceSum", lw_cast_node(g, n, w, TN_I32), ir_graph_ints(g, NULL, axes, sum), "keepdims", 0);
  all = along(p, n, lw_op2(g, n, "Mul", all, lw_cast_node(g, n, zx, TN_I32)), conv ? 1 : acc->rank - 1, acc->rank);
  return lw_op2(g, n, "Sub", acc, all);
}

/* Null when bytes do not fit: then words do. */
static ir_value *product_of_bytes(pass *p, ir_node *n, const operands *o) {
  ir_graph *g = p->g;
  int64_t zw = 0, pads[2 * IR_MAX_RANK] = {0};
  ir_value *x = o->x, *w = o->w, *zx = o->zx ? lw_reshape(g, n, o->zx, 0, NULL) : NULL;
  if (!p->t->vnni || !known_ahead(w) || w->rank < 2 || x->rank < 2 || !ir_static(x) || (o->zw && !known_equal(o->zw, &zw)) || zw != (w->dtype == TN_U8 ? 128 : 0)) return NULL;
  if (o->conv ? ir_attr_get_int(n, "group", 1) != 1 || !explicit_pads(n, pads, 2 * (x->rank - 2)) : w->rank != 2) return NULL;
  if (w->dtype == TN_U8) w = lw_cast_node(g, n, lw_op2(g, n, "Sub", word(p, n, w), ir_graph_scalar(g, NULL, TN_I16, 128)), TN_I8);
  tn_dtype one = cg_target_dot_byte(p->t);
  if (x->dtype != one) { /* an instruction takes one kind only: 128 more or less, of its zero point too */
    ir_value *more = ir_graph_scalar(g, NULL, TN_I16, one == TN_U8 ? 128 : -128);
    x = lw_cast_node(g, n, lw_op2(g, n, "Add", word(p, n, x), more), one);
    zx = zx ? lw_cast_node(g, n, lw_op2(g, n, "Add", word(p, n, zx), more), one) : ir_graph_scalar(g, NULL, one, one == TN_U8 ? 128 : -128);
  }
  if (o->conv) x = padding_written(p, n, x, zx, pads);
  x = rounded_up(p, n, x, sum_axis(o, false), 4);
  w = rounded_up(p, n, w, sum_axis(o, true), 4);
  return less_zero(p, n, product_node(p, n, o->conv ? "ConvInteger" : "MatMulInteger", 2, (ir_value *[]){x, w}, o->conv ? pads : NULL), w, zx, o->conv);
}

/* Bytes by pairs in 16 bits, where weights can be arranged so that none saturates (picked.h). Null where not, or where
 * there are too few pixels to gain. */
static ir_value *product_of_picked(pass *p, ir_node *n, const operands *o) {
  enum { LEAST_PIXELS = 16, LEAST_CHANNELS = 64 };
  int64_t pads[4] = {0};
  const ir_value *y = n->out[0];
  ir_value *in[4] = {o->x}, *zx = o->zx ? lw_reshape(p->g, n, o->zx, 0, NULL) : NULL;
  if (!o->conv || p->t->vnni || p->t->arch != CG_X86_64 || p->t->vector_bits != 256 || o->x->dtype != TN_U8 || o->w->dtype != TN_I8 || !o->w->data || o->w->kind != IR_VALUE_CONST) return NULL;
  if (o->x->rank != 4 || !ir_static(o->x) || !ir_static(o->w) || !ir_static(y) || !known_zero(o->zw) || ir_attr_get_int(n, "group", 1) != 1 || !explicit_pads(n, pads, 4)) return NULL;
  if (ir_dim(p->ctx, o->x, 1) < LEAST_CHANNELS || ir_dim(p->ctx, y, 0) * ir_dim(p->ctx, y, 2) * ir_dim(p->ctx, y, 3) < LEAST_PIXELS || !lw_pick(p->g, o->w, in)) return NULL;
  in[0] = padding_written(p, n, in[0], zx, pads);
  return less_zero(p, n, product_node(p, n, "tenon:ConvPicked", 4, in, pads), o->w, zx, true);
}

static ir_value *product(pass *p, ir_node *n, const operands *o) {
  ir_value *acc = product_of_bytes(p, n, o);
  if (!acc && !winograd_fits(p, n, o)) acc = product_of_picked(p, n, o);
  return acc ? acc : product_of_words(p, n, o);
}

/* ---- ConvInteger, MatMulInteger ---- */

static void integer_op(pass *p, ir_node *n) {
  operands o = {.x = n->in[0], .w = n->in[1], .zx = lw_has(n, 2) ? n->in[2] : NULL, .zw = lw_has(n, 3) ? n->in[3] : NULL, .conv = is_conv(n)};
  if ((o.zx && !lw_single(o.zx)) || (o.zw && !lw_single(o.zw) && o.zw->rank != 1) || o.w->rank < 2) return;
  lw_replace(p->g, n, 0, product(p, n, &o));
}

/* ---- float products of dequantised operands ---- */

/* The QuantizeLinear that alone takes v, also through a Relu or a Clip that its saturation does anyway. */
static ir_node *quantised_by(const ir_value *v) {
  ir_node *q = v->nuses == 1 ? v->uses[0] : NULL;
  double lo = -INFINITY, hi = INFINITY, scale, zero = 0;
  if (!q) return NULL; /* a result of the graph */
  if (ir_node_is(q, "Relu")) lo = 0;
  else if (ir_node_is(q, "Clip")) {
    if ((lw_has(q, 1) && !ir_known_float(q->in[1], &lo)) || (lw_has(q, 2) && !ir_known_float(q->in[2], &hi))) return NULL;
    if (!lw_has(q, 1)) lo = ir_attr_get_float(q, "min", lo);
    if (!lw_has(q, 2)) hi = ir_attr_get_float(q, "max", hi);
  }
  if (q->out[0] && (ir_node_is(q, "Relu") || ir_node_is(q, "Clip"))) {
    if (q->out[0]->nuses != 1 || !q->out[0]->uses[0]) return NULL;
    q = q->out[0]->uses[0];
  }
  if (q->dead || !ir_node_is(q, "QuantizeLinear") || q->in[0]->dtype != TN_F32 || q->in[1]->dtype != TN_F32 || !lw_single(q->in[1]) || !bytes(q->out[0])) return NULL;
  if (ir_attr_get_int(q, "block_size", 0) || ir_attr_get_int(q, "precision", 0) || !ir_known_float(q->in[1], &scale) || !(scale > 0)) return NULL;
  if (lw_has(q, 2) && (!lw_single(q->in[2]) || !ir_known_float(q->in[2], &zero))) return NULL;
  double least = q->out[0]->dtype == TN_U8 ? 0 : -128, most = least + 255;
  return (isinf(lo) || nearbyint(lo / scale) + zero <= least) && (isinf(hi) || nearbyint(hi / scale) + zero >= most) ? q : NULL;
}

/* Whether scale b is sx * sw to a few bits, as quantisers make biases. */
static bool scale_fits(const ir_value *sb, double sx, const ir_value *sw) {
  double b[4096], w[4096];
  int64_t nb = lw_known_floats(sb, b, IR_COUNT(b)), nw = lw_known_floats(sw, w, IR_COUNT(w));
  if (nb < 1 || nw < 1 || (nb != nw && nb != 1 && nw != 1)) return false;
  for (int64_t i = 0; i < (nb > nw ? nb : nw); i++)
    if (fabs(b[nb == 1 ? 0 : i] - sx * w[nw == 1 ? 0 : i]) > 1e-6 * fabs(b[nb == 1 ? 0 : i])) return false;
  return true;
}

/* The bias of n as i32 in units of the sums; null when it is no such tensor. */
static ir_value *integer_bias(const ir_node *n, const ir_node *x, const ir_value *sw) {
  ir_node *b = n->in[2]->def;
  double sx;
  if (!b || b->dead || !ir_node_is(b, "DequantizeLinear") || b->in[0]->dtype != TN_I32 || b->in[0]->rank != 1) return NULL;
  if ((lw_has(b, 2) && !known_zero(b->in[2])) || !ir_known_float(x->in[1], &sx) || !scale_fits(b->in[1], sx, sw)) return NULL;
  return b->in[0];
}

static bool plain_gemm(const ir_node *n) {
  return !ir_attr_get_int(n, "transA", 0) && ir_attr_get_float(n, "alpha", 1) == 1 && (!lw_has(n, 2) || (ir_attr_get_float(n, "beta", 1) == 1 && n->in[2]->rank == 1));
}

static void float_product(pass *p, ir_node *n) {
  static const int64_t turn[] = {1, 0};
  ir_graph *g = p->g;
  ir_node *x = lw_dequantised(n->in[0]), *w = lw_dequantised(n->in[1]);
  bool conv = is_conv(n), gemm = ir_node_is(n, "Gemm");
  if (!x || !w || !lw_single(x->in[1]) || (lw_has(x, 2) && !lw_single(x->in[2])) || x->in[1]->dtype != TN_F32 || w->in[1]->dtype != TN_F32) return;
  if (n->in[0]->dtype != TN_F32 || n->in[0]->rank < 2 || n->in[1]->rank < 2 || (gemm && !plain_gemm(n))) return;
  bool turned = gemm && ir_attr_get_int(n, "transB", 0);
  ir_value *sw = w->in[1], *zw = lw_has(w, 2) ? w->in[2] : NULL;
  if (!lw_single(sw) || (zw && !lw_single(zw))) {
    int axis = ir_axis(p->ctx, w, ir_attr_get_int(w, "axis", 1), w->in[0]->rank);
    if (axis != (conv || turned ? 0 : w->in[0]->rank - 1) || sw->rank != 1 || (zw && !lw_single(zw) && zw->rank != 1)) return;
  }
  operands o = {.x = x->in[0], .zx = lw_has(x, 2) ? x->in[2] : NULL, .w = turned ? lw_transpose(g, n, w->in[0], turn) : w->in[0], .zw = zw, .conv = conv};
  int rank = n->out[0]->rank, channel = conv ? 1 : rank - 1;
  ir_value *acc = product(p, n, &o), *bias = lw_has(n, 2) ? integer_bias(n, x, sw) : NULL;
  if (bias) acc = lw_op2(g, n, "Add", acc, along(p, n, bias, channel, rank));
  ir_value *by = lw_op2(g, n, "Mul", along(p, n, sw, channel, rank), lw_reshape(g, n, x->in[1], 0, NULL));
  ir_node *q = !lw_has(n, 2) || bias ? quantised_by(n->out[0]) : NULL;
  if (q) {
    ir_value *zero = lw_has(q, 2) ? lw_reshape(g, q, q->in[2], 0, NULL) : ir_graph_scalar(g, NULL, q->out[0]->dtype, 0);
    lw_replace(g, q, 0, lw_op3(g, q, "tenon:Requantize", acc, lw_op2(g, q, "Div", by, lw_reshape(g, q, q->in[1], 0, NULL)), zero));
    if (n->out[0]->uses[0] != q) n->out[0]->uses[0]->dead = true;
    n->dead = true;
    return;
  }
  ir_value *v = lw_op2(g, n, "Mul", lw_cast_node(g, n, acc, TN_F32), by);
  if (lw_has(n, 2) && !bias) v = lw_op2(g, n, "Add", v, along(p, n, n->in[2], channel, rank));
  lw_replace(g, n, 0, v);
}

/* ---- what stands between products ---- */

static bool same_contents(const ir_value *a, const ir_value *b) {
  double x, y;
  return a == b || (a && b && a->dtype == b->dtype && lw_single(a) && lw_single(b) && ir_known_float(a, &x) && ir_known_float(b, &y) && x == y);
}

/* Ops that pick elements commute with a scale that is positive: they are done on the bytes. */
static void pick(pass *p, ir_node *n) {
  ir_node *d = lw_dequantised(n->in[0]);
  double scale;
  if (!d || !lw_single(d->in[1]) || !ir_known_float(d->in[1], &scale) || !(scale > 0) || n->nout != 1) return;
  ir_value **in = ir_grow(p->ctx, n->in, (size_t)n->nin, (size_t)n->nin, sizeof *in);
  in[0] = d->in[0];
  ir_node *m = lw_node_n(p->g, n, n->op->name, n->nin, in, 1);
  m->opset = n->opset;
  m->nattrs = n->nattrs;
  m->attrs = n->attrs;
  ir_infer(p->ctx, m);
  ir_value *again[3] = {m->out[0], d->in[1], lw_has(d, 2) ? d->in[2] : NULL};
  ir_node *e = lw_node_n(p->g, n, "DequantizeLinear", again[2] ? 3 : 2, again, 1);
  ir_infer(p->ctx, e);
  lw_replace(p->g, n, 0, e->out[0]);
}

static void quantise_again(pass *p, ir_node *n) {
  ir_node *d = lw_dequantised(n->in[0]);
  if (!d || d->in[0]->dtype != n->out[0]->dtype || !same_contents(d->in[1], n->in[1])) return;
  ir_value *zd = lw_has(d, 2) ? d->in[2] : NULL, *zq = lw_has(n, 2) ? n->in[2] : NULL;
  if (!same_contents(zd, zq) && !(known_zero(zd) && known_zero(zq))) return;
  lw_replace(p->g, n, 0, d->in[0]);
}

/* Of values that are there without their zero points. */
static void dequantise_words(pass *p, ir_node *n) {
  ir_value *zero = lw_has(n, 2) ? n->in[2] : NULL;
  for (int i = 0; i < p->nmade; i++)
    if (p->made[i].of == n->in[0] && p->made[i].zero == zero && n->out[0]->dtype == TN_F32 && lw_single(n->in[1]))
      lw_replace(p->g, n, 0, lw_op2(p->g, n, "DequantizeLinear", p->made[i].centred, n->in[1]));
}

/* The DequantizeLinear of one scale that v is; also of words. */
static ir_node *dequantised_by_one(const ir_value *v) {
  ir_node *d = v->def;
  if (!d || d->dead || !ir_node_is(d, "DequantizeLinear") || v->dtype != TN_F32 || ir_attr_get_int(d, "block_size", 0)) return NULL;
  bool known = bytes(d->in[0]) || d->in[0]->dtype == TN_I16;
  return known && d->in[1]->dtype == TN_F32 && lw_single(d->in[1]) && (!lw_has(d, 2) || lw_single(d->in[2])) ? d : NULL;
}

/* Of the sum of two dequantised tensors, as residual layers end: scales divided ahead. */
static void quantise_sum(pass *p, ir_node *n) {
  ir_graph *g = p->g;
  ir_node *sum = n->in[0]->def;
  double scale;
  if (!p->t->fma || !sum || !ir_node_is(sum, "Add") || sum->out[0]->nuses != 1 || n->in[0]->dtype != TN_F32 || n->in[1]->dtype != TN_F32 || !lw_single(n->in[1])) return;
  if (!ir_known_float(n->in[1], &scale) || !(scale > 0) || !bytes(n->out[0]) || ir_attr_get_int(n, "precision", 0) || (lw_has(n, 2) && !lw_single(n->in[2]))) return;
  ir_value *in[7] = {NULL};
  for (int i = 0; i < 2; i++) {
    ir_node *d = dequantised_by_one(sum->in[i]);
    if (!d) return;
    in[2 * i] = d->in[0];
    in[2 * i + 1] = lw_op2(g, n, "Div", lw_reshape(g, n, d->in[1], 0, NULL), lw_reshape(g, n, n->in[1], 0, NULL));
    if (lw_has(d, 2)) in[5 + i] = lw_reshape(g, n, d->in[2], 0, NULL);
  }
  in[4] = lw_has(n, 2) ? lw_reshape(g, n, n->in[2], 0, NULL) : ir_graph_scalar(g, NULL, n->out[0]->dtype, 0);
  lw_replace(g, n, 0, lw_node(g, n, "tenon:RequantizeSum", 7, in));
}

/* Of a computed value, by a known scale: a product instead of a division. */
static void quantise_product(pass *p, ir_node *n) {
  double scale;
  if (!n->in[0]->def || n->in[0]->dtype != TN_F32 || n->in[1]->dtype != TN_F32 || !lw_single(n->in[1]) || !ir_known_float(n->in[1], &scale) || !(scale > 0)) return;
  if (!bytes(n->out[0]) || ir_attr_get_int(n, "precision", 0) || (lw_has(n, 2) && !lw_single(n->in[2]))) return;
  ir_value *zero = lw_has(n, 2) ? lw_reshape(p->g, n, n->in[2], 0, NULL) : ir_graph_scalar(p->g, NULL, n->out[0]->dtype, 0);
  lw_replace(p->g, n, 0, lw_op3(p->g, n, "tenon:Requantize", n->in[0], ir_graph_scalar(p->g, NULL, TN_F32, 1 / scale), zero));
}

static void each(pass *p, void (*fn)(pass *p, ir_node *n), const char *const *ops) {
  ir_graph_sort(p->g);
  ir_graph_analyse(p->g);
  int count = p->g->nnodes;
  for (int i = 0; i < count; i++)
    for (int k = 0; ops[k]; k++)
      if (!p->g->nodes[i]->dead && ir_node_is(p->g->nodes[i], ops[k])) {
        fn(p, p->g->nodes[i]);
        break;
      }
  lw_settle(p->ctx, p->g, count);
}

void lw_pass_quantised(tn_ctx *ctx, ir_graph *g, const lw_options *options) {
  if (options->byte_products && !options->unscheduled) lw_narrow_byte_floats(ctx, g);
  else if (options->target && !options->unscheduled) lw_keep_byte_weights(ctx, g);
  pass p = {.ctx = ctx, .g = g, .t = options->target};
  bool any = false;
  for (int i = 0; i < g->nnodes; i++)
    any |= ir_node_is(g->nodes[i], "DequantizeLinear") || ir_node_is(g->nodes[i], "ConvInteger") || ir_node_is(g->nodes[i], "MatMulInteger");
  if (!any || !options->target || options->unscheduled) return;
  each(&p, pick, (const char *const[]){"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", NULL});
  each(&p, quantise_again, (const char *const[]){"QuantizeLinear", NULL});
  each(&p, float_product, (const char *const[]){"Conv", "MatMul", "Gemm", NULL});
  each(&p, integer_op, (const char *const[]){"ConvInteger", "MatMulInteger", NULL});
  each(&p, dequantise_words, (const char *const[]){"DequantizeLinear", NULL});
  each(&p, quantise_sum, (const char *const[]){"QuantizeLinear", NULL});
  each(&p, quantise_product, (const char *const[]){"QuantizeLinear", NULL});
  ir_graph_sort(g);
  ir_graph_analyse(g);
}
