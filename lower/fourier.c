/* fourier.c — Fourier transforms as products with constant matrices.
 *
 * A transform of length N is a product with an N x N matrix, which the kernels for products do at full speed. Long
 * ones are cut in steps of that kind (Bailey, "FFTs in external or hierarchical memory", 1990): with n = N2 n1 + n2 and
 * k = k1 + N1 k2,
 *
 *   X[k1 + N1 k2] = sum over n2 of W_N2^(n2 k2) W_N^(n2 k1) ( sum over n1 of W_N1^(n1 k1) x[N2 n1 + n2] )
 *
 * a transform of length N1 of rows (signal, n2), which may be cut again, a product with the factors between, and one
 * matrix on the left of a signal's columns k1. Lengths without small factors are convolutions with a chirp, by
 * transforms of a smooth length (Bluestein, "A linear filtering approach to the computation of DFT", 1970).
 *
 * Between steps the parts of a spectrum lie apart ("planar": [rows, part, k]), as what follows wants rows of numbers
 * of one kind; movements from and to ONNX's pairs are left out between two transforms. Of a real signal half of the
 * spectrum is computed, X[N - k] being the conjugate of X[k], also when a second axis is transformed. A window goes into
 * the matrix. */
#include "lower/fourier.h"
#include "lower/compose.h"
#include "lower/lower.h"
#include <math.h>
#include <string.h>

enum {
  SMALL = 256,         /* products of one transform that stays a sum per result, in f64; the same for all batches */
  MIRROR = 32,         /* lengths from which half a spectrum and its mirror image are less than all of it */
  MOST_LEFT = 128,     /* longest step on the left */
  MOST_DIRECT = 2048,  /* longest product where anything else is possible: 16 MiB of matrix */
  PASS = 96            /* products that take as long as an element in another pass over memory */
};

typedef struct transform {
  int64_t n;             /* length */
  int sign;              /* of the exponent: -1 forward */
  int ci;                /* parts of the input: 1, real, or 2 */
  int first, co;         /* parts of the result: [first, first + co) */
  bool half;             /* of the result 0 .. n / 2 only */
  const double *weights; /* of the samples, or null: 1 */
  double scale;
} transform;

typedef struct choice {
  int64_t n;
  bool real;
  double cost; /* in products */
  int64_t left; /* N2; 0: one product; -1: as a convolution */
} choice;

typedef struct spectrum { /* what is known of a value in pairs that was made here, along the axis before the pairs */
  const ir_value *pairs;
  ir_value *planar; /* [rows, 2, n or, half, n / 2 + 1] */
  int64_t n;
  bool half;
} spectrum;

typedef struct work {
  tn_ctx *ctx;
  ir_graph *g;
  ir_node *at;    /* the node that is replaced */
  tn_dtype type;  /* f32 or f64 */
  int nchoices, nspectra, nconstants;
  choice *choices;
  spectrum *spectra;
  ir_value **constants;
} work;

static int64_t out_of(const transform *t) { return t->half ? t->n / 2 + 1 : t->n; }

/* ---- numbers ---- */

/* e^(2 pi i j / n), exact at the quarter turns. */
static void turn(int64_t j, int64_t n, double *re, double *im) {
  j = (j % n + n) % n;
  int64_t quarter = 4 * j / n, rest = 4 * j % n;
  double a = 1.57079632679489661923 * (double)rest / (double)n, c = rest ? cos(a) : 1, s = rest ? sin(a) : 0;
  *re = quarter == 0 ? c : quarter == 1 ? -s : quarter == 2 ? -c : s;
  *im = quarter == 0 ? s : quarter == 1 ? c : quarter == 2 ? -s : -c;
}
/* a b mod n without overflow; all below 2^27. */
static int64_t times(int64_t a, int64_t b, int64_t n) { return a * b % n; }

/* Numbers as a constant; equal ones are there once. */
static ir_value *numbers(work *w, int rank, const int64_t *dims, const double *v) {
  int64_t count = 1;
  for (int i = 0; i < rank; i++) count *= dims[i];
  void *data = ir_alloc_array(w->ctx, (size_t)count + 1, ir_dtype_bytes(w->type));
  for (int64_t i = 0; i < count; i++) {
    if (w->type == TN_F64) ((double *)data)[i] = v[i];
    else ((float *)data)[i] = (float)v[i];
  }
  for (int i = 0; i < w->nconstants; i++) {
    ir_value *c = w->constants[i];
    bool same = c->dtype == w->type && c->rank == rank;
    for (int k = 0; k < rank && same; k++) same = ix_is_int(c->dims[k], dims[k]);
    if (same && memcmp(c->data, data, (size_t)count * ir_dtype_bytes(w->type)) == 0) return c;
  }
  ir_value *c = ir_graph_const(w->g, NULL, w->type, rank, dims, data, false);
  IR_PUSH(w->ctx, w->constants, w->nconstants, c);
  return c;
}
static double *array(work *w, int64_t count) { return ir_alloc_array(w->ctx, (size_t)count + 1, sizeof(double)); }

/* What sample t's part p adds to result k's part q. */
static double entry(const transform *t, int64_t sample, int p, int64_t k, int q) {
  double c, s, by = t->scale * (t->weights ? t->weights[sample] : 1);
  turn(times(sample, k, t->n), t->n, &c, &s);
  s *= t->sign;
  return by * (p == q ? c : p ? -s : s);
}

/* In place, double precision, radix 2: the spectrum of the chirp. n is a power of two. */
static void transform_chirp(double (*x)[2], int64_t n) {
  for (int64_t i = 1, j = 0; i < n; i++) {
    int64_t bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j)
      for (int p = 0; p < 2; p++) {
        double s = x[i][p];
        x[i][p] = x[j][p];
        x[j][p] = s;
      }
  }
  for (int64_t span = 2; span <= n; span *= 2)
    for (int64_t k = 0; k < span / 2; k++) {
      double c, s;
      turn(-k, span, &c, &s);
      for (int64_t i = k; i < n; i += span) {
        double *a = x[i], *b = x[i + span / 2], re = b[0] * c - b[1] * s, im = b[0] * s + b[1] * c;
        b[0] = a[0] - re, b[1] = a[1] - im;
        a[0] += re, a[1] += im;
      }
    }
}

/* ---- how a length is taken ---- */

static int64_t smooth(int64_t least) {
  int64_t n = 1;
  while (n < least) n *= 2;
  return n;
}
static choice choose(work *w, int64_t n, bool real) {
  for (int i = 0; i < w->nchoices; i++)
    if (w->choices[i].n == n && w->choices[i].real == real) return w->choices[i];
  double h = real ? (double)(n / 2 + 1) : (double)n;
  choice best = {n, real, (real ? 2.0 : 4.0) * (double)n * h, 0};
  bool only = n > MOST_DIRECT;
  for (int64_t left = 2; left <= MOST_LEFT && left * 2 <= n; left++) {
    if (n % left) continue;
    double cost = (double)left * choose(w, n / left, real).cost + h * (double)(4 * left + PASS);
    if (only || cost < best.cost) best.cost = cost, best.left = left, only = false;
  }
  if (n > 64 && (n & (n - 1))) { /* where transforms of a power of two, there and back, are less */
    int64_t more = smooth(2 * n - 1);
    double cost = 2 * choose(w, more, false).cost + 4.0 * PASS * (double)more;
    if (only || cost < best.cost) best.cost = cost, best.left = -1;
  }
  IR_PUSH(w->ctx, w->choices, w->nchoices, best);
  return best;
}

/* ---- pieces ---- */

static ir_value *shaped(work *w, ir_value *v, int rank, const int64_t *dims) { return lw_reshape(w->g, w->at, v, rank, dims); }
static ir_value *op2(work *w, const char *op, ir_value *a, ir_value *b) { return lw_op2(w->g, w->at, op, a, b); }

/* Elements `from`, `from` - 1, .., `to` along an axis. */
static ir_value *backwards(work *w, ir_value *v, int axis, int64_t from, int64_t to) {
  int64_t a = axis, end = to ? to - 1 : -(ir_dim(w->ctx, v, axis) + 1), step = -1;
  ir_value *in[5] = {v, ir_graph_ints(w->g, NULL, 1, &from), ir_graph_ints(w->g, NULL, 1, &end), ir_graph_ints(w->g, NULL, 1, &a), ir_graph_ints(w->g, NULL, 1, &step)};
  return lw_node(w->g, w->at, "Slice", 5, in);
}
/* Imaginary parts with the other sign; the parts are axis `axis`, `after` axes behind it. */
static ir_value *conjugate(work *w, ir_value *v, const transform *t, int after) {
  double sign[2] = {t->first ? -1 : 1, -1};
  int64_t dims[IR_MAX_RANK] = {t->co};
  for (int i = 0; i < after; i++) dims[i + 1] = 1;
  return t->co == 1 && !t->first ? v : op2(w, "Mul", v, numbers(w, after + 1, dims, sign));
}
/* Complex numbers [r, rows, 2, m], planar, times factors [rows, m]. */
static ir_value *turned(work *w, ir_value *v, int64_t rows, int64_t m, const double (*f)[2]) {
  double *c = array(w, rows * m), *s = array(w, 2 * rows * m);
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < m; j++) {
      c[i * m + j] = f[i * m + j][0];
      s[2 * i * m + j] = -f[i * m + j][1];
      s[(2 * i + 1) * m + j] = f[i * m + j][1];
    }
  ir_value *re = numbers(w, 3, (int64_t[]){rows, 1, m}, c), *im = numbers(w, 3, (int64_t[]){rows, 2, m}, s);
  return op2(w, "Add", op2(w, "Mul", v, re), op2(w, "Mul", backwards(w, v, 2, 1, 0), im));
}

/* ---- a transform of rows: [rows, used, ci], or planar [rows, ci, used], to [rows, co, out] ---- */

static ir_value *rows_of(work *w, ir_value *x, int64_t rows, int64_t used, bool planar, const transform *t);

static ir_value *direct(work *w, ir_value *x, int64_t rows, int64_t used, bool planar, const transform *t) {
  int64_t K = out_of(t);
  double *m = array(w, used * t->ci * t->co * K);
  for (int64_t i = 0; i < used; i++)
    for (int p = 0; p < t->ci; p++)
      for (int q = 0; q < t->co; q++)
        for (int64_t k = 0; k < K; k++) m[((planar ? p * used + i : i * t->ci + p) * t->co + q) * K + k] = entry(t, i, p, k, t->first + q);
  x = shaped(w, x, 2, (int64_t[]){rows, used * t->ci});
  x = op2(w, "MatMul", x, numbers(w, 2, (int64_t[]){used * t->ci, t->co * K}, m));
  return shaped(w, x, 3, (int64_t[]){rows, t->co, K});
}

/* The matrix of a transform on the left: [(k, q) or, parts first, (q, k)] x [(sample, p)]. */
static ir_value *left_matrix(work *w, int64_t used, bool parts_first, const transform *t) {
  int64_t K = out_of(t), sums = used * t->ci;
  double *m = array(w, K * t->co * sums);
  for (int64_t k = 0; k < K; k++)
    for (int q = 0; q < t->co; q++)
      for (int64_t i = 0; i < used; i++)
        for (int p = 0; p < t->ci; p++) m[(parts_first ? q * K + k : k * t->co + q) * sums + i * t->ci + p] = entry(t, i, p, k, t->first + q);
  return numbers(w, 2, (int64_t[]){K * t->co, sums}, m);
}

static ir_value *by_steps(work *w, ir_value *x, int64_t rows, int64_t used, bool planar, const transform *t, int64_t n2) {
  int64_t n1 = t->n / n2, used1 = (used + n2 - 1) / n2;
  if (used1 * n2 > used) {
    int64_t pads[6] = {0};
    pads[planar ? 5 : 4] = used1 * n2 - used;
    x = op2(w, "Pad", x, ir_graph_ints(w->g, NULL, 6, pads));
  }
  if (planar) x = lw_transpose(w->g, w->at, shaped(w, x, 4, (int64_t[]){rows, t->ci, used1, n2}), (int64_t[]){0, 3, 1, 2});
  else x = lw_transpose(w->g, w->at, shaped(w, x, 4, (int64_t[]){rows, used1, n2, t->ci}), (int64_t[]){0, 2, 1, 3});
  if (t->weights) {
    double *v = array(w, used1 * n2);
    for (int64_t i = 0; i < n2 * used1; i++) {
      int64_t sample = i % used1 * n2 + i / used1;
      v[i] = sample < used ? t->weights[sample] : 0;
    }
    x = op2(w, "Mul", x, numbers(w, 3, planar ? (int64_t[]){n2, 1, used1} : (int64_t[]){n2, used1, 1}, v));
  }
  transform inner = {n1, t->sign, t->ci, 0, 2, t->ci == 1, NULL, 1};
  int64_t h = out_of(&inner);
  x = shaped(w, x, 3, planar ? (int64_t[]){rows * n2, t->ci, used1} : (int64_t[]){rows * n2, used1, t->ci});
  x = shaped(w, rows_of(w, x, rows * n2, used1, planar, &inner), 4, (int64_t[]){rows, n2, 2, h});
  double(*f)[2] = ir_alloc_array(w->ctx, (size_t)(n2 * h), sizeof *f);
  for (int64_t i = 0; i < n2; i++)
    for (int64_t k = 0; k < h; k++) {
      turn(times(i, k, t->n), t->n, &f[i * h + k][0], &f[i * h + k][1]);
      f[i * h + k][1] *= t->sign;
    }
  x = turned(w, x, n2, h, (const double(*)[2])f);
  transform outer = {n2, t->sign, 2, t->first, t->co, false, NULL, t->scale};
  x = op2(w, "MatMul", left_matrix(w, n2, true, &outer), shaped(w, x, 3, (int64_t[]){rows, 2 * n2, h}));
  x = shaped(w, x, 4, (int64_t[]){rows, t->co, n2, h});
  if (h < n1) { /* k1 from h on: the conjugate of (n1 - k1, n2 - 1 - k2) */
    ir_value *rest = backwards(w, backwards(w, x, 3, n1 - h, 1), 2, n2 - 1, 0);
    x = lw_concat(w->g, w->at, 3, 2, (ir_value *[]){x, conjugate(w, rest, t, 2)});
  }
  return lw_slice(w->g, w->at, shaped(w, x, 3, (int64_t[]){rows, t->co, t->n}), 2, 0, out_of(t));
}

/* With c[m] = e^(sign i pi m^2 / n): X[k] = c[k] sum over j of (x[j] c[j]) conj(c[k - j]). */
static ir_value *by_chirp(work *w, ir_value *x, int64_t rows, int64_t used, bool planar, const transform *t) {
  int64_t K = out_of(t), most = used > K ? used : K, n = smooth(used + K - 1);
  if (t->weights) x = op2(w, "Mul", x, numbers(w, 2, planar ? (int64_t[]){1, used} : (int64_t[]){used, 1}, t->weights));
  if (!planar && t->ci == 2) x = lw_transpose(w->g, w->at, x, (int64_t[]){0, 2, 1});
  x = shaped(w, x, 4, (int64_t[]){rows, 1, t->ci, used});
  double(*c)[2] = ir_alloc_array(w->ctx, (size_t)most, sizeof *c), (*b)[2] = ir_alloc_array(w->ctx, (size_t)n, sizeof *b);
  memset(b, 0, (size_t)n * sizeof *b);
  for (int64_t j = 0; j < most; j++) {
    turn(times(j, j, 2 * t->n), 2 * t->n, &c[j][0], &c[j][1]);
    c[j][1] *= t->sign;
    for (int side = 0; side < 2; side++)
      if (j < (side ? used : K)) {
        int64_t place = side && j ? n - j : j;
        b[place][0] = c[j][0], b[place][1] = -c[j][1];
      }
  }
  if (t->ci == 2) x = turned(w, x, 1, used, (const double(*)[2])c);
  else {
    double *both = array(w, 2 * used);
    for (int64_t j = 0; j < used; j++) both[j] = c[j][0], both[used + j] = c[j][1];
    x = op2(w, "Mul", x, numbers(w, 2, (int64_t[]){2, used}, both));
  }
  transform there = {n, -1, 2, 0, 2, false, NULL, 1}, back = {n, 1, 2, 0, 2, false, NULL, 1};
  x = rows_of(w, shaped(w, x, 3, (int64_t[]){rows, 2, used}), rows, used, true, &there);
  transform_chirp(b, n);
  for (int64_t j = 0; j < n; j++)
    for (int p = 0; p < 2; p++) b[j][p] *= t->scale / (double)n;
  x = turned(w, shaped(w, x, 4, (int64_t[]){rows, 1, 2, n}), 1, n, (const double(*)[2])b);
  x = rows_of(w, shaped(w, x, 3, (int64_t[]){rows, 2, n}), rows, n, true, &back);
  x = shaped(w, lw_slice(w->g, w->at, x, 2, 0, K), 4, (int64_t[]){rows, 1, 2, K});
  x = lw_slice(w->g, w->at, turned(w, x, 1, K, (const double(*)[2])c), 2, t->first, t->first + t->co);
  return shaped(w, x, 3, (int64_t[]){rows, t->co, K});
}

static ir_value *rows_of(work *w, ir_value *x, int64_t rows, int64_t used, bool planar, const transform *t) {
  choice c = choose(w, t->n, t->ci == 1);
  if (c.left < 0) return by_chirp(w, x, rows, used, planar, t);
  if (c.left) return by_steps(w, x, rows, used, planar, t, c.left);
  return direct(w, x, rows, used, planar, t);
}

/* [rows, co, n / 2 + 1] as all of the spectrum, the frequencies along `axis`, after the parts or before them. */
static ir_value *mirrored(work *w, ir_value *x, int axis, int parts_axis, const transform *t) {
  int64_t h = t->n / 2 + 1;
  return lw_concat(w->g, w->at, axis, 2, (ir_value *[]){x, conjugate(w, backwards(w, x, axis, t->n - h, 1), t, x->rank - 1 - parts_axis)});
}

/* ---- a node ---- */

/* x = Concat(real, zeros) along its last axis: the real part; else x. */
static ir_value *real_part(tn_ctx *ctx, ir_value *x) {
  const ir_node *n = x->def;
  if (!n || n->dead || !ir_node_is(n, "Concat") || n->nin != 2 || ir_axis(ctx, n, ir_attr_get_int(n, "axis", 0), x->rank) != x->rank - 1) return x;
  const ir_value *zero = n->in[1];
  if (!ix_is_int(n->in[0]->dims[x->rank - 1], 1) || !zero->data || !ir_static(zero)) return x;
  const unsigned char *bytes = zero->data;
  for (int64_t i = 0, count = ir_value_bytes(ctx, zero); i < count; i++)
    if (bytes[i]) return x;
  return n->in[0];
}

/* x = Mul(signal, window) with known numbers along the axis alone: the signal, and the window in `weights`; else x. */
static ir_value *unwindowed(work *w, ir_value *x, int axis, int64_t used, double *weights) {
  const ir_node *n = x->def;
  if (!n || n->dead || !ir_node_is(n, "Mul")) return x;
  for (int k = 0; k < 2; k++) {
    const ir_value *window = n->in[k];
    int64_t length = ir_dim(w->ctx, x, axis);
    int behind = x->rank - 1 - axis, at = window->rank - 1 - behind;
    bool fits = ir_static(window) && at >= 0 && n->in[1 - k]->rank == x->rank;
    for (int i = 0; i < window->rank && fits; i++) fits = ix_is_int(window->dims[i], i == at ? length : 1);
    for (int i = 0; i < x->rank && fits; i++) fits = n->in[1 - k]->dims[i] == x->dims[i];
    double *all = fits ? array(w, length) : NULL;
    if (!fits || lw_known_floats(window, all, length) != length) continue;
    bool finite = true;
    for (int64_t i = 0; i < length; i++) finite &= isfinite(all[i]) != 0;
    if (!finite) continue;
    for (int64_t i = 0; i < used; i++) weights[i] *= all[i];
    return n->in[1 - k];
  }
  return x;
}

/* The one part that all users gather; -1: some want both. */
static int wanted_part(tn_ctx *ctx, const ir_graph *g, const ir_value *y) {
  int part = -1;
  for (int i = 0; i < g->noutputs; i++)
    if (g->outputs[i] == y) return -1;
  for (int i = 0; i < y->nuses; i++) {
    const ir_node *u = y->uses[i];
    double which;
    if (!u || !ir_node_is(u, "Gather") || u->in[0] != y || ir_axis(ctx, u, ir_attr_get_int(u, "axis", 0), y->rank) != y->rank - 1) return -1;
    if (lw_known_floats(u->in[1], &which, 1) != 1 || (which != 0 && which != 1) || (part >= 0 && part != (int)which)) return -1;
    part = (int)which;
  }
  return part;
}

static void lower(work *w, ir_node *n) {
  tn_ctx *ctx = w->ctx;
  ir_graph *g = w->g;
  ir_value *x = n->in[0], *y = n->out[0];
  if (!ir_static(x) || !ir_static(y) || !ir_value_elements(ctx, x)) return;
  lw_fourier f;
  lw_fourier_of(ctx, n, &f);
  int last = x->rank - 1, part = f.real_out ? -1 : wanted_part(ctx, g, y);
  int64_t outer = 1, inner = 1, dims[IR_MAX_RANK];
  for (int i = 0; i < f.axis; i++) outer *= ir_dim(ctx, x, i);
  for (int i = f.axis + 1; i < last; i++) inner *= ir_dim(ctx, x, i);
  w->at = n;
  w->type = x->dtype == TN_F64 ? TN_F64 : TN_F32;
  x = real_part(ctx, x);
  transform t = {f.length, f.inverse ? 1 : -1, ix_is_int(x->dims[last], 1) ? 1 : 2, part > 0, f.real_out || part >= 0 ? 1 : 2, f.out < f.length, NULL, f.inverse ? 1 / (double)f.length : 1};
  if (f.used * f.out * t.ci * t.co <= SMALL) return;
  double *weights = array(w, f.used);
  for (int64_t i = 0; i < f.used; i++) weights[i] = f.real_out && i && 2 * i != f.length ? 2 : 1;
  ir_value *signal = unwindowed(w, x, f.axis, f.used, weights);
  if (signal != x || f.real_out) t.weights = weights;
  spectrum *before = NULL;
  for (int i = 0; i < w->nspectra; i++)
    if (w->spectra[i].pairs == x && f.axis == last - 2) before = &w->spectra[i];
  bool all = t.ci == 1 && !t.half && f.length >= MIRROR; /* of a real signal, half of it computed */
  t.half |= all;
  bool left = inner > 1 && choose(w, f.length, t.ci == 1).left == 0;
  x = lw_cast_node(g, n, lw_slice(g, n, signal, f.axis, 0, f.used), w->type);
  if (left) { /* [outer, samples, ci, inner] -> [outer, k, co, inner] */
    bool halves = before && before->half;
    if (before) {
      inner = halves ? before->n / 2 + 1 : before->n;
      x = lw_slice(g, n, shaped(w, before->planar, 4, (int64_t[]){outer, f.have, 2, inner}), 1, 0, f.used);
    } else if (t.ci == 2)
      x = lw_transpose(g, n, shaped(w, x, 4, (int64_t[]){outer, f.used, inner, 2}), (int64_t[]){0, 1, 3, 2});
    x = shaped(w, x, 3, (int64_t[]){outer, f.used * t.ci, inner});
    x = op2(w, "MatMul", left_matrix(w, f.used, false, &t), x);
    x = shaped(w, x, 4, (int64_t[]){outer, out_of(&t), t.co, inner});
    if (all) x = mirrored(w, x, 1, 2, &t);
    if (halves) { /* the rest is the conjugate at minus both frequencies */
      ir_value *rest = lw_slice(g, n, x, 1, 0, 1);
      if (f.out > 1) rest = lw_concat(g, n, 1, 2, (ir_value *[]){rest, backwards(w, x, 1, f.length - 1, 1)});
      rest = conjugate(w, backwards(w, rest, 3, before->n - inner, 1), &t, 1);
      x = lw_concat(g, n, 3, 2, (ir_value *[]){x, rest});
    }
    x = lw_transpose(g, n, x, (int64_t[]){0, 1, 3, 2});
  } else {
    bool turned_round = inner > 1; /* to the end, and back */
    if (turned_round) {
      x = lw_transpose(g, n, shaped(w, x, 4, (int64_t[]){outer, f.used, inner, t.ci}), (int64_t[]){0, 2, 1, 3});
      outer *= inner;
    }
    ir_value *half = x = rows_of(w, shaped(w, x, 3, (int64_t[]){outer, f.used, t.ci}), outer, f.used, false, &t);
    if (all) x = mirrored(w, x, 2, 1, &t);
    ir_value *planar = x;
    x = lw_transpose(g, n, x, (int64_t[]){0, 2, 1});
    if (turned_round) x = lw_transpose(g, n, shaped(w, x, 4, (int64_t[]){outer / inner, inner, f.out, t.co}), (int64_t[]){0, 2, 1, 3});
    else if (t.co == 2 && f.axis == last - 1 && f.out == f.length && w->type == y->dtype)
      IR_PUSH(ctx, w->spectra, w->nspectra, ((spectrum){NULL, all ? half : planar, f.length, all}));
  }
  x = lw_cast_node(g, n, x, y->dtype);
  for (int i = 0; i <= last; i++) dims[i] = ir_dim(ctx, y, i);
  if (part < 0) {
    x = shaped(w, x, y->rank, dims);
    if (w->nspectra && !w->spectra[w->nspectra - 1].pairs) w->spectra[w->nspectra - 1].pairs = x;
    lw_replace(g, n, 0, x);
    return;
  }
  for (int i = 0; i < y->nuses; i++) { /* the part is all there is */
    ir_node *u = y->uses[i];
    const ir_value *z = u->out[0];
    int64_t to[IR_MAX_RANK];
    for (int k = 0; k < z->rank; k++) to[k] = ir_dim(ctx, z, k);
    lw_replace(g, u, 0, shaped(w, x, z->rank, to));
  }
  n->dead = true;
}

void lw_pass_fourier(tn_ctx *ctx, ir_graph *g, const lw_options *options) {
  if (!options->target || options->unscheduled) return;
  work w = {.ctx = ctx, .g = g};
  int count = g->nnodes;
  for (int i = 0; i < count; i++)
    if (!g->nodes[i]->dead && strcmp(g->nodes[i]->op->name, "Fourier") == 0) lower(&w, g->nodes[i]);
  if (g->nnodes == count) return;
  ir_graph_sort(g);
  ir_graph_analyse(g);
}
