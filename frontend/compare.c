/* compare.c — see compare.h. */
#include "frontend/compare.h"
#include "frontend/inputs.h"
#include <math.h>
#include <string.h>

/* Floats of every width as integers in the order of their values, so that neighbours differ by 1. */
static int64_t ordered(tn_dtype t, const void *data, int64_t i) {
  int64_t bits, low;
  switch (t) {
  case TN_F64: memcpy(&bits, (const char *)data + 8 * i, 8); low = INT64_MIN; break;
  case TN_F32: bits = ((const int32_t *)data)[i]; low = INT32_MIN; break;
  case TN_F16: case TN_BF16: bits = ((const int16_t *)data)[i]; low = INT16_MIN; break;
  default: bits = t == TN_F4E2M1 ? (int8_t)(((const uint8_t *)data)[i] << 4) / 16 : ((const int8_t *)data)[i]; low = t == TN_F4E2M1 ? -8 : INT8_MIN; break;
  }
  return bits < 0 ? low - bits : bits;
}

static double ulps(tn_dtype t, const void *a, const void *b, int64_t i) {
  return fabs((double)ordered(t, a, i) - (double)ordered(t, b, i));
}

fe_difference fe_compare(tn_dtype t, int64_t count, const void *got, const void *want, const fe_tolerance *tol) {
  fe_difference d = {.count = count, .first = -1, .worst = -1};
  size_t size = ir_dtype_bytes(t);
  for (int64_t i = 0; i < count; i++) {
    double a = fe_element(t, got, i), b = fe_element(t, want, i), diff = 0, ulp = 0;
    bool ok;
    if (ir_is_float(t)) {
      if (isnan(a) || isnan(b)) {
        ok = isnan(a) && isnan(b);
        diff = ulp = ok ? 0 : INFINITY;
      } else if (isinf(a) || isinf(b)) {
        ok = a == b;
        diff = ulp = ok ? 0 : INFINITY;
      } else {
        diff = fabs(a - b);
        ok = diff <= tol->atol + tol->rtol * fabs(b);
        ulp = diff ? ulps(t, got, want, i) : 0;
        if (fabs(b) > d.max_ref) d.max_ref = fabs(b);
      }
    } else {
      ok = memcmp((const char *)got + (size_t)i * size, (const char *)want + (size_t)i * size, size) == 0;
      diff = ulp = ok ? 0 : a == b ? 1 : fabs(a - b);
      if (fabs(b) > d.max_ref) d.max_ref = fabs(b);
    }
    if (diff > d.max_abs || (d.worst < 0 && d.first < 0 && !ok)) {
      d.max_abs = diff;
      d.worst = i;
      if (d.first < 0) d.got = a, d.want = b;
    }
    if (ulp > d.max_ulp) d.max_ulp = ulp;
    if (!ok && d.wrong++ == 0) d.first = i, d.got = a, d.want = b;
  }
  d.equal = d.wrong == 0;
  d.max_rel = d.max_abs == 0 ? 0 : d.max_abs / d.max_ref;
  return d;
}

const char *fe_difference_text(tn_ctx *ctx, const fe_difference *d, int rank, const int64_t *dims) {
  ir_text s = {.ctx = ctx};
  if (d->wrong) {
    ir_put(&s, "%lld of %lld differ, first at [", (long long)d->wrong, (long long)d->count);
    if (dims && rank <= IR_MAX_RANK) {
      int64_t at[IR_MAX_RANK], rest = d->first;
      for (int i = rank; i-- > 0; rest /= dims[i]) at[i] = rest % dims[i];
      for (int i = 0; i < rank; i++) ir_put(&s, "%s%lld", i ? "," : "", (long long)at[i]);
    } else ir_put(&s, "%lld", (long long)d->first);
    ir_put(&s, "]: %.9g, should be %.9g; ", d->got, d->want);
  }
  ir_put(&s, "max |difference| %.3g, of max |reference| %.3g (%.2e), %.4g ulp", d->max_abs, d->max_ref, d->max_rel, d->max_ulp);
  return s.s;
}
