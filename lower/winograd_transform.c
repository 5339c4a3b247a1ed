/* winograd_transform.c — see winograd_transform.h. */
#include "lower/winograd_transform.h"

static ix coefficient(tn_ctx *ctx, ix like, double v) {
  tn_dtype t = (tn_dtype)like->dtype;
  return ir_is_float(t) ? ix_float(ctx, t, v) : ix_int(ctx, t, (int64_t)v);
}

static ix times_plus(tn_ctx *ctx, double c, ix term, ix sum) {
  ix f = coefficient(ctx, term, c);
  return ir_is_float((tn_dtype)term->dtype) ? ix_fma(ctx, f, term, sum) : c == -1 ? ix_sub(ctx, sum, term) : ix_add(ctx, ix_mul(ctx, f, term), sum);
}

/* sum of coef[i] * term[i] */
static ix linear(tn_ctx *ctx, int n, const double *coef, const ix *term) {
  ix sum = NULL;
  for (int pass = 0; pass < 2; pass++) /* a term of factor 1 first: it needs no product */
    for (int i = 0; i < n; i++) {
      bool one = coef[i] == 1;
      if (coef[i] == 0 || one != !pass) continue;
      if (!sum) sum = one ? term[i] : ix_mul(ctx, coefficient(ctx, term[i], coef[i]), term[i]);
      else if (one) sum = ix_add(ctx, sum, term[i]);
      else sum = times_plus(ctx, coef[i], term[i], sum);
    }
  return sum;
}

/* out = e + o and e - o: what p and -p make of the same. */
static void both(tn_ctx *ctx, ir_builder *b, ix e, ix o, ix *out) {
  e = ib_let(b, "e", e), o = ib_let(b, "o", o);
  out[0] = ix_add(ctx, e, o);
  out[1] = ix_sub(ctx, e, o);
}

void lw_wino_input(tn_ctx *ctx, ir_builder *b, const lw_winograd *f, const ix *d, ix *out) {
  ix even[LW_WINO_PAIRS + 1], odd[LW_WINO_PAIRS + 1];
  for (int j = 0; j <= f->pairs; j++) even[j] = d[2 * j], odd[j] = d[2 * j + 1];
  out[0] = linear(ctx, f->pairs + 1, f->r, even);
  out[f->a - 1] = linear(ctx, f->pairs + 1, f->r, odd);
  for (int q = 0; q < f->pairs; q++) { /* (x +- p) x R_q(x^2) */
    double scaled[LW_WINO_PAIRS];
    for (int j = 0; j < f->pairs; j++) scaled[j] = f->p[q] * f->rq[q][j];
    both(ctx, b, linear(ctx, f->pairs, f->rq[q], even + 1), linear(ctx, f->pairs, scaled, odd), out + 1 + 2 * q);
  }
}

void lw_wino_output(tn_ctx *ctx, ir_builder *b, const lw_winograd *f, const ix *v, ix *out) {
  ix sum[LW_WINO_PAIRS + 2], difference[LW_WINO_PAIRS + 2];
  double power[LW_WINO_PAIRS + 2];
  for (int q = 0; q < f->pairs; q++) {
    sum[q] = ib_let(b, "e", ix_add(ctx, v[1 + 2 * q], v[2 + 2 * q]));
    difference[q] = ib_let(b, "o", ix_sub(ctx, v[1 + 2 * q], v[2 + 2 * q]));
    power[q] = 1;
  }
  for (int k = 0; k < f->m; k++) {
    ix *part = k % 2 ? difference : sum;
    int n = f->pairs;
    if (k == 0) part[n] = v[0], power[n++] = 1;
    if (k == f->m - 1) part[n] = v[f->a - 1], power[n++] = 1;
    out[k] = linear(ctx, n, power, part);
    for (int q = 0; q < f->pairs; q++) power[q] *= f->p[q];
  }
}

void lw_wino_weights(tn_ctx *ctx, ir_builder *b, const lw_winograd *f, double scale, const ix *g, ix *out) {
  out[0] = linear(ctx, 1, (double[]){f->g[0][0] * scale}, g);
  out[f->a - 1] = linear(ctx, 1, (double[]){f->g[f->a - 1][2] * scale}, g + 2);
  for (int q = 0; q < f->pairs; q++) {
    const double *row = f->g[1 + 2 * q];
    both(ctx, b, linear(ctx, 2, (double[]){row[0] * scale, row[2] * scale}, (ix[]){g[0], g[2]}), linear(ctx, 1, (double[]){row[1] * scale}, g + 1), out + 1 + 2 * q);
  }
}

void lw_wino_spread(tn_ctx *ctx, ir_builder *b, const lw_winograd *f, const ix *y, ix *out) {
  out[0] = y[0];
  out[f->a - 1] = y[f->m - 1];
  for (int q = 0; q < f->pairs; q++) {
    double c[2][LW_WINO_A] = {0}, power = 1;
    for (int k = 0; k < f->m; k++, power *= f->p[q]) c[k % 2][k] = power;
    both(ctx, b, linear(ctx, f->m, c[0], y), linear(ctx, f->m, c[1], y), out + 1 + 2 * q);
  }
}

void lw_wino_gather(tn_ctx *ctx, ir_builder *b, const lw_winograd *f, const ix *v, ix *out) {
  ix sum[LW_WINO_PAIRS + 1], difference[LW_WINO_PAIRS];
  double c[3][LW_WINO_PAIRS + 1];
  for (int q = 0; q < f->pairs; q++) {
    sum[q] = ib_let(b, "e", ix_add(ctx, v[1 + 2 * q], v[2 + 2 * q]));
    difference[q] = ib_let(b, "o", ix_sub(ctx, v[1 + 2 * q], v[2 + 2 * q]));
    for (int s = 0; s < 3; s++) c[s][q] = f->g[1 + 2 * q][s];
  }
  c[0][f->pairs] = f->g[0][0];
  c[2][f->pairs] = f->g[f->a - 1][2];
  out[1] = linear(ctx, f->pairs, c[1], difference);
  sum[f->pairs] = v[0];
  out[0] = linear(ctx, f->pairs + 1, c[0], sum);
  sum[f->pairs] = v[f->a - 1];
  out[2] = linear(ctx, f->pairs + 1, c[2], sum);
}
