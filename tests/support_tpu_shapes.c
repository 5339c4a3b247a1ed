/* support_tpu_shapes.c — see support_tpu_shapes.h. */
#include "support_tpu_shapes.h"

static uint64_t next(uint64_t *s) { /* splitmix64 */
  uint64_t z = *s += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}
static int64_t upto(uint64_t *s, int64_t lo, int64_t hi) { return lo + (int64_t)(next(s) % (uint64_t)(hi - lo + 1)); }

typedef struct types {
  const char *a, *b, *acc, *zero;
  bool integer;
} types;

/* The update of the accumulator from operands x and y, with or without zero points. */
static const char *update(tn_ctx *ctx, const types *t, uint64_t *s, const char *x, const char *y) {
  const char *p = t->a == t->acc ? x : ir_format(ctx, "cast<%s>(%s)", t->acc, x), *q = t->b == t->acc ? y : ir_format(ctx, "cast<%s>(%s)", t->acc, y);
  if (!t->integer) return ir_format(ctx, "acc[] = fma(%s, %s, acc[])", p, q);
  if (upto(s, 0, 1)) p = ir_format(ctx, "(%s - %d)", p, (int)upto(s, 1, 128));
  if (upto(s, 0, 3) == 0) q = ir_format(ctx, "(%s - %d)", q, (int)upto(s, 1, 128));
  return ir_format(ctx, "acc[] = acc[] + %s * %s", p, q);
}

/* What happens to the sum: nothing, a bias, an activation, a residual, rounding to bytes. */
static const char *epilogue(tn_ctx *ctx, const types *t, uint64_t *s, const char *channel, const char *at, const char **extra, const char **out) {
  int64_t kind = upto(s, 0, 6);
  *out = t->acc;
  *extra = "";
  if (t->integer && kind >= 5) {
    *out = kind == 5 ? "i8" : "u8";
    *extra = ", in S: f32[K]";
    const char *lo = kind == 5 ? "-128.0" : "0.0", *hi = kind == 5 ? "127.0" : "255.0";
    return ir_format(ctx, "cast<%s>(cast<i32>(min(max(round(cast<f32>(acc[]) * S[%s]), %s), %s)))", *out, channel, lo, hi);
  }
  if (kind == 1 || kind == 2) *extra = ir_format(ctx, ", in S: %s[K]", t->acc);
  if (kind == 1) return ir_format(ctx, "acc[] + S[%s]", channel);
  if (kind == 2) return t->integer ? ir_format(ctx, "max(0, acc[] + S[%s])", channel) : ir_format(ctx, "max(0.0, acc[] + S[%s])", channel);
  if (kind == 3 && !t->integer) {
    *extra = ir_format(ctx, ", in R: %s[SHAPE]", t->acc);
    return ir_format(ctx, "max(0.0, acc[] * 0.5 + R[%s])", at);
  }
  if (kind == 4 && !t->integer) {
    *out = "bf16";
    return "cast<bf16>(acc[])";
  }
  if (kind == 5 && !t->integer) return "acc[] * sigmoid(acc[])";
  return "acc[]";
}

static const char *replace(tn_ctx *ctx, const char *text, const char *what, const char *by) {
  ir_text t = {.ctx = ctx};
  size_t n = strlen(what);
  while (*text) {
    if (strncmp(text, what, n) == 0) {
      ir_put(&t, "%s", by);
      text += n;
    } else ir_put(&t, "%c", *text++);
  }
  return ir_text_str(&t);
}

static types pick(uint64_t *s) {
  static const types all[] = {{"f32", "f32", "f32", NULL, false}, {"bf16", "bf16", "f32", NULL, false}, {"i8", "i8", "i32", NULL, true},
                              {"u8", "i8", "i32", NULL, true},    {"f16", "f16", "f32", NULL, false},   {"u8", "u8", "i32", NULL, true}};
  return all[upto(s, 0, IR_COUNT(all) - 1)];
}

static const char *product(tn_ctx *ctx, uint64_t *s) {
  types t = pick(s);
  int64_t batch = upto(s, 0, 3) ? 0 : upto(s, 1, 5), m = upto(s, 1, 45), n = upto(s, 1, 45), k = upto(s, 1, 60);
  bool ta = upto(s, 0, 3) == 0, tb = upto(s, 0, 2) == 0, shared = batch && upto(s, 0, 1);
  const char *b = batch ? "b, " : "", *extra, *out, *shape = batch ? ir_format(ctx, "%lld, ", (long long)batch) : "";
  const char *x = ir_format(ctx, "A[%s%s]", b, ta ? "k, m" : "m, k"), *y = ir_format(ctx, "B[%s%s]", shared ? "" : b, tb ? "n, k" : "k, n");
  const char *value = epilogue(ctx, &t, s, "n", ir_format(ctx, "%sm, n", b), &extra, &out);
  extra = replace(ctx, replace(ctx, extra, "[K]", ir_format(ctx, "[%lld]", (long long)n)), "SHAPE", ir_format(ctx, "%s%lld, %lld", shape, (long long)m, (long long)n));
  const char *head = ir_format(ctx, "kernel product(in A: %s[%s%lld, %lld], in B: %s[%s%lld, %lld]%s, out C: %s[%s%lld, %lld]) {", t.a, shape,
                               (long long)(ta ? k : m), (long long)(ta ? m : k), t.b, shared ? "" : shape, (long long)(tb ? n : k), (long long)(tb ? k : n),
                               extra, out, shape, (long long)m, (long long)n);
  return ir_format(ctx, "%s %s for m in 0 .. %lld { for n in 0 .. %lld { alloc acc: %s[] register acc[] = %s for k in 0 .. %lld { %s } C[%sm, n] = %s } } %s }", head,
                   batch ? ir_format(ctx, "for b in 0 .. %lld {", (long long)batch) : "", (long long)m, (long long)n, t.acc, t.integer ? "0" : "0.0", (long long)k,
                   update(ctx, &t, s, x, y), b, value, batch ? "}" : "");
}

typedef struct axis { /* of a convolution */
  int64_t in, out, taps, stride, dilation, pad;
} axis;

static axis pick_axis(uint64_t *s) {
  axis a = {.taps = upto(s, 1, 4), .stride = upto(s, 1, 3), .dilation = upto(s, 0, 2) ? 1 : upto(s, 1, 3)};
  int64_t reach = (a.taps - 1) * a.dilation + 1, after;
  a.in = upto(s, 1, 14);
  a.pad = upto(s, 0, 1) ? 0 : upto(s, 0, reach);
  after = upto(s, 0, 1) ? a.pad : upto(s, 0, reach);
  if (a.in + a.pad + after < reach) a.in = reach;
  a.out = (a.in + a.pad + after - reach) / a.stride + 1;
  return a;
}

static const char *window(tn_ctx *ctx, const axis *a, const char *o, const char *t) {
  return ir_format(ctx, "%s*%lld + %s*%lld - %lld", o, (long long)a->stride, t, (long long)a->dilation, (long long)a->pad);
}

static const char *convolution(tn_ctx *ctx, uint64_t *s) {
  types t = pick(s);
  axis y = pick_axis(s), x = pick_axis(s);
  int64_t groups = upto(s, 0, 2) ? 1 : upto(s, 2, 6), n = upto(s, 1, 3), c = upto(s, 0, 3) ? upto(s, 1, 12) : 1, k = upto(s, 0, 3) ? upto(s, 1, 20) : 1;
  if (groups > 1 && upto(s, 0, 1)) c = k = 1; /* depthwise */
  bool last = upto(s, 0, 1), rsck = upto(s, 0, 1); /* channels last; weights as taps, channels, filters */
  const char *layout = last ? " layout \"perm 0 2 3 1\"" : "", *wlayout = rsck ? " layout \"perm 2 3 1 0\"" : upto(s, 0, 1) ? " layout \"perm 1 2 3 0\"" : "";
  const char *channel = groups > 1 ? ir_format(ctx, "g*%lld + k", (long long)k) : "k", *extra, *out;
  const char *iy = window(ctx, &y, "y", "r"), *ix_ = window(ctx, &x, "x", "s");
  const char *load = ir_format(ctx, "X[n, %sc, %s, %s]", groups > 1 ? ir_format(ctx, "g*%lld + ", (long long)c) : "", iy, ix_);
  const char *weight = ir_format(ctx, "W[%s, c, r, s]", channel);
  const char *value = epilogue(ctx, &t, s, channel, ir_format(ctx, "n, %s, y, x", channel), &extra, &out);
  const char *shape = ir_format(ctx, "%lld, %lld, %lld, %lld", (long long)n, (long long)(k * groups), (long long)y.out, (long long)x.out);
  extra = replace(ctx, replace(ctx, extra, "[K]", ir_format(ctx, "[%lld]", (long long)(k * groups))), "[SHAPE]", ir_format(ctx, "[%s]%s", shape, layout));
  const char *head = ir_format(ctx, "kernel conv(in X: %s[%lld, %lld, %lld, %lld]%s, in W: %s[%lld, %lld, %lld, %lld]%s%s, out Y: %s[%s]%s) {", t.a, (long long)n,
                               (long long)(c * groups), (long long)y.in, (long long)x.in, layout, t.b, (long long)(k * groups), (long long)c, (long long)y.taps,
                               (long long)x.taps, wlayout, extra, out, shape, layout);
  const char *rs = ir_format(ctx, "for r in 0 .. %lld { for s in 0 .. %lld {", (long long)y.taps, (long long)x.taps), *cs = ir_format(ctx, "for c in 0 .. %lld {", (long long)c);
  return ir_format(ctx,
                   "%s for n in 0 .. %lld { %s for k in 0 .. %lld { for y in 0 .. %lld { for x in 0 .. %lld { alloc acc: %s[] register acc[] = %s "
                   "%s %s if 0 <= %s & %s < %lld & 0 <= %s & %s < %lld { %s } } } } Y[n, %s, y, x] = %s } } } } %s }",
                   head, (long long)n, groups > 1 ? ir_format(ctx, "for g in 0 .. %lld {", (long long)groups) : "", (long long)k, (long long)y.out, (long long)x.out,
                   t.acc, t.integer ? "0" : "0.0", rsck ? rs : cs, rsck ? cs : rs, iy, iy, (long long)y.in, ix_, ix_, (long long)x.in,
                   update(ctx, &t, s, load, weight), channel, value, groups > 1 ? "}" : "");
}

/* Over one axis or three: loops, indices and the guard are lists. */
static const char *volume(tn_ctx *ctx, uint64_t *s) {
  types t = pick(s);
  int rank = upto(s, 0, 2) ? 3 : 1;
  int64_t groups = upto(s, 0, 3) ? 1 : upto(s, 2, 3), n = upto(s, 1, 2), c = upto(s, 1, rank == 3 ? 6 : 20), k = upto(s, 1, 10);
  bool rsck = upto(s, 0, 1);
  ir_text in = {.ctx = ctx}, out = in, taps = in, at = in, from = in, tap = in, guard = in, over = in, across = in;
  for (int a = 0; a < rank; a++) {
    axis x = pick_axis(s);
    if (rank == 3 && x.in > 7) {
      x.in = 7;
      x.pad = 1;
      x.out = (7 + 2 - ((x.taps - 1) * x.dilation + 1)) / x.stride + 1;
      if (x.out < 1) x = (axis){7, 6, 2, 1, 1, 0};
    }
    const char *o = ir_format(ctx, "o%d", a), *r = ir_format(ctx, "r%d", a), *i = window(ctx, &x, o, r);
    ir_put(&in, ", %lld", (long long)x.in);
    ir_put(&out, ", %lld", (long long)x.out);
    ir_put(&taps, ", %lld", (long long)x.taps);
    ir_put(&at, ", %s", o);
    ir_put(&from, ", %s", i);
    ir_put(&tap, ", %s", r);
    ir_put(&guard, "%s0 <= %s & %s < %lld", a ? " & " : "", i, i, (long long)x.in);
    ir_put(&over, "for %s in 0 .. %lld { ", o, (long long)x.out);
    ir_put(&across, "for %s in 0 .. %lld { ", r, (long long)x.taps);
  }
  const char *layout = upto(s, 0, 1) ? rank == 3 ? " layout \"perm 0 2 3 4 1\"" : " layout \"perm 0 2 1\"" : "";
  const char *wlayout = rsck ? rank == 3 ? " layout \"perm 2 3 4 1 0\"" : " layout \"perm 2 1 0\"" : "";
  const char *channel = ir_format(ctx, "g*%lld + k", (long long)k), *extra, *result;
  const char *value = epilogue(ctx, &t, s, channel, ir_format(ctx, "n, %s%s", channel, ir_text_str(&at)), &extra, &result);
  const char *shape = ir_format(ctx, "%lld, %lld%s", (long long)n, (long long)(k * groups), ir_text_str(&out));
  extra = replace(ctx, replace(ctx, extra, "[K]", ir_format(ctx, "[%lld]", (long long)(k * groups))), "[SHAPE]", ir_format(ctx, "[%s]%s", shape, layout));
  const char *load = ir_format(ctx, "X[n, g*%lld + c%s]", (long long)c, ir_text_str(&from)), *weight = ir_format(ctx, "W[%s, c%s]", channel, ir_text_str(&tap));
  const char *cs = ir_format(ctx, "for c in 0 .. %lld { ", (long long)c), *close = rank == 3 ? "} } }" : "}";
  const char *head = ir_format(ctx, "kernel volume(in X: %s[%lld, %lld%s]%s, in W: %s[%lld, %lld%s]%s%s, out Y: %s[%s]%s) {", t.a, (long long)n, (long long)(c * groups),
                               ir_text_str(&in), layout, t.b, (long long)(k * groups), (long long)c, ir_text_str(&taps), wlayout, extra, result, shape, layout);
  return ir_format(ctx,
                   "%s for n in 0 .. %lld { for g in 0 .. %lld { for k in 0 .. %lld { %s alloc acc: %s[] register acc[] = %s %s%s if %s { %s } %s } "
                   "Y[n, %s%s] = %s %s } } } }",
                   head, (long long)n, (long long)groups, (long long)k, ir_text_str(&over), t.acc, t.integer ? "0" : "0.0", rsck ? ir_text_str(&across) : cs,
                   rsck ? cs : ir_text_str(&across), ir_text_str(&guard), update(ctx, &t, s, load, weight), close, channel, ir_text_str(&at), value, close);
}

const char *tpu_shape(tn_ctx *ctx, uint64_t seed) {
  uint64_t s = seed;
  next(&s);
  if (seed % 4 == 2) return volume(ctx, &s);
  return upto(&s, 0, 1) ? product(ctx, &s) : convolution(ctx, &s);
}
