/* layout.c — where logical indices live in memory: parsing, shapes, addresses.
 *
 * A layout is a list of invertible steps on the axis list of a tensor, outermost
 * axis first; the physical axes that come out are stored row-major.
 *
 *   split A F    axis A (extent E) becomes two, A: ceil(E / F) and A+1: F
 *   perm P..     new axis i is old axis P[i]; all axes are listed
 *   pad A B C    B elements before and C after the contents of axis A
 *   xor A B M    index[A] ^= index[B] mod M, M a power of two; the extent of A
 *                is rounded up to a multiple of M, so that it stays a permutation
 *
 * Steps are separated by ';'. The canonical text has one blank between words and
 * "; " between steps; neutral steps (split by 1 is not neutral: it adds an axis;
 * an identity perm, a pad by 0 and 0, a xor mod 1) are dropped.
 */
#include "ir/ctx_internal.h"
#include "ir/ir.h"
#include <string.h>

/* ---- parsing ---- */

enum { MAX_STEPS = 32 };

typedef struct scan {
  tn_ctx *ctx;
  const char *text, *p;
} scan;

static void IR_NORETURN bad(const scan *s, const char *what) {
  ir_fail(s->ctx, TN_EINPUT, "layout \"%.200s\", at character %d: %s", s->text, (int)(s->p - s->text) + 1, what);
}

static void blanks(scan *s) {
  while (*s->p == ' ' || *s->p == '\t') s->p++;
}

static bool at_number(scan *s) {
  blanks(s);
  return *s->p >= '0' && *s->p <= '9';
}

static int64_t number(scan *s, const char *what) {
  if (!at_number(s)) bad(s, what);
  int64_t v = 0;
  while (*s->p >= '0' && *s->p <= '9') {
    if (v > (int64_t)1 << 48) bad(s, "the number is too large");
    v = v * 10 + (*s->p++ - '0');
  }
  return v;
}

static int axis_number(scan *s) {
  int64_t v = number(s, "expected an axis number");
  if (v >= IR_MAX_RANK) bad(s, "the axis number is too large");
  return (int)v;
}

static bool word(scan *s, const char *w) {
  blanks(s);
  size_t n = strlen(w);
  if (strncmp(s->p, w, n) != 0 || (s->p[n] >= 'a' && s->p[n] <= 'z')) return false;
  s->p += n;
  return true;
}

/* What is known of the number of axes while steps are read: at least `least`; exactly
 * `least` once a perm was seen. */
typedef struct axes {
  int least;
  bool exact;
} axes;

static void need_axis(scan *s, axes *a, int axis) {
  if (axis < a->least) return;
  if (a->exact) bad(s, "there is no such axis");
  a->least = axis + 1;
}

static bool read_step(scan *s, axes *a, ir_layout_step *step) {
  memset(step, 0, sizeof *step);
  if (word(s, "split")) {
    step->kind = IR_LAYOUT_SPLIT;
    step->axis = axis_number(s);
    step->factor = number(s, "expected the extent of the inner part");
    if (step->factor < 1) bad(s, "a split needs an inner extent of at least 1");
    need_axis(s, a, step->axis);
    if (++a->least > IR_MAX_RANK) bad(s, "too many axes");
    return true;
  }
  if (word(s, "perm")) {
    step->kind = IR_LAYOUT_PERM;
    int n = 0;
    unsigned seen = 0;
    bool identity = true;
    while (at_number(s)) {
      int axis = axis_number(s);
      if (n == IR_MAX_RANK) bad(s, "too many axes");
      if (seen >> axis & 1) bad(s, "an axis is listed twice");
      seen |= 1u << axis;
      identity = identity && axis == n;
      step->perm[n++] = (int8_t)axis;
    }
    if (n == 0) bad(s, "expected the axes in their new order");
    if (seen != (1u << n) - 1) bad(s, "perm must list each axis once");
    if (n < a->least || (a->exact && n != a->least)) bad(s, "perm must list all axes");
    a->least = n;
    a->exact = true;
    step->axis = n;
    return !identity;
  }
  if (word(s, "pad")) {
    step->kind = IR_LAYOUT_PAD;
    step->axis = axis_number(s);
    step->before = number(s, "expected the padding before");
    step->after = number(s, "expected the padding after");
    need_axis(s, a, step->axis);
    return step->before || step->after;
  }
  if (word(s, "xor")) {
    step->kind = IR_LAYOUT_XOR;
    step->axis = axis_number(s);
    step->axis2 = axis_number(s);
    step->factor = number(s, "expected the modulus");
    if (step->axis == step->axis2) bad(s, "xor needs two different axes");
    if (step->factor < 1 || (step->factor & (step->factor - 1))) bad(s, "the modulus must be a power of two");
    need_axis(s, a, step->axis);
    need_axis(s, a, step->axis2);
    return step->factor > 1;
  }
  bad(s, "expected split, perm, pad or xor");
}

static void put_step(ir_text *t, const ir_layout_step *s) {
  if (t->n) ir_put(t, "; ");
  switch (s->kind) {
  case IR_LAYOUT_SPLIT: ir_put(t, "split %d %lld", s->axis, (long long)s->factor); break;
  case IR_LAYOUT_PERM:
    ir_put(t, "perm");
    for (int i = 0; i < s->axis; i++) ir_put(t, " %d", s->perm[i]);
    break;
  case IR_LAYOUT_PAD: ir_put(t, "pad %d %lld %lld", s->axis, (long long)s->before, (long long)s->after); break;
  case IR_LAYOUT_XOR: ir_put(t, "xor %d %d %lld", s->axis, s->axis2, (long long)s->factor); break;
  }
}

const ir_layout *ir_layout_parse(tn_ctx *ctx, const char *text) {
  scan s = {ctx, text, text};
  axes a = {1, false};
  ir_layout_step steps[MAX_STEPS];
  int n = 0;
  ir_text canonical = {.ctx = ctx};
  for (;;) {
    blanks(&s);
    if (*s.p == ';') {
      s.p++;
      continue;
    }
    if (*s.p == 0) break;
    if (n == MAX_STEPS) bad(&s, "too many steps");
    if (read_step(&s, &a, &steps[n])) put_step(&canonical, &steps[n++]);
    blanks(&s);
    if (*s.p && *s.p != ';') bad(&s, "expected ';' or the end");
  }
  if (n == 0) return NULL;
  for (const tn_ctx *c = ctx; c; c = c->parent)
    for (size_t i = 0; i < c->layouts_n; i++)
      if (strcmp(c->layouts[i]->text, canonical.s) == 0) return c->layouts[i];
  ir_layout *l = IR_NEW(ctx, ir_layout);
  ir_layout_step *kept = IR_NEW_ARRAY(ctx, ir_layout_step, n);
  memcpy(kept, steps, (size_t)n * sizeof *kept);
  l->text = ir_intern(ctx, canonical.s);
  l->nsteps = n;
  l->steps = kept;
  IR_PUSH(ctx, ctx->layouts, ctx->layouts_n, l);
  return l;
}

const ir_layout *ir_layout_blocked(tn_ctx *ctx, int rank, int axis, int64_t block) {
  ir_assert(ctx, rank >= 1 && rank < IR_MAX_RANK && axis >= 0 && axis < rank && block >= 1);
  ir_text t = {.ctx = ctx};
  ir_put(&t, "split %d %lld; perm", axis, (long long)block);
  for (int i = 0; i <= rank; i++)
    if (i != axis + 1) ir_put(&t, " %d", i);
  ir_put(&t, " %d", axis + 1);
  return ir_layout_parse(ctx, t.s);
}

/* ---- use ---- */

int ir_layout_rank(const ir_layout *l, int rank) {
  if (!l) return rank;
  for (int i = 0; i < l->nsteps; i++) {
    const ir_layout_step *s = &l->steps[i];
    switch (s->kind) {
    case IR_LAYOUT_SPLIT:
      if (s->axis >= rank || rank == IR_MAX_RANK) return -1;
      rank++;
      break;
    case IR_LAYOUT_PERM:
      if (s->axis != rank) return -1;
      break;
    case IR_LAYOUT_PAD:
      if (s->axis >= rank) return -1;
      break;
    case IR_LAYOUT_XOR:
      if (s->axis >= rank || s->axis2 >= rank) return -1;
      break;
    }
  }
  return rank;
}

/* Both walks below share this; what is done to the entry of one axis differs. */
static int apply(tn_ctx *ctx, const ir_layout *l, int rank, const ix *in, ix *out, bool shape) {
  for (int i = 0; i < rank; i++) out[i] = in[i];
  if (!l) return rank;
  if (ir_layout_rank(l, rank) < 0) ir_fail(ctx, TN_EINPUT, "layout \"%s\" does not fit a tensor of rank %d", l->text, rank);
  for (int k = 0; k < l->nsteps; k++) {
    const ir_layout_step *s = &l->steps[k];
    switch (s->kind) {
    case IR_LAYOUT_SPLIT: {
      ix e = out[s->axis];
      memmove(out + s->axis + 1, out + s->axis, (size_t)(rank - s->axis) * sizeof *out);
      rank++;
      out[s->axis] = shape ? ix_ceil_div(ctx, e, s->factor) : ix_divi(ctx, e, s->factor);
      out[s->axis + 1] = shape ? ix_index(ctx, s->factor) : ix_remi(ctx, e, s->factor);
      break;
    }
    case IR_LAYOUT_PERM: {
      ix old[IR_MAX_RANK];
      memcpy(old, out, (size_t)rank * sizeof *out);
      for (int i = 0; i < rank; i++) out[i] = old[s->perm[i]];
      break;
    }
    case IR_LAYOUT_PAD: out[s->axis] = ix_addi(ctx, out[s->axis], shape ? s->before + s->after : s->before); break;
    case IR_LAYOUT_XOR:
      if (shape) out[s->axis] = ix_muli(ctx, ix_ceil_div(ctx, out[s->axis], s->factor), s->factor);
      else out[s->axis] = ix_binary(ctx, IX_XOR, out[s->axis], ix_remi(ctx, out[s->axis2], s->factor));
      break;
    }
  }
  return rank;
}

int ir_layout_shape(tn_ctx *ctx, const ir_layout *l, int rank, const ix *shape, ix *out) {
  return apply(ctx, l, rank, shape, out, true);
}

int ir_layout_index(tn_ctx *ctx, const ir_layout *l, int rank, const ix *index, ix *out) {
  return apply(ctx, l, rank, index, out, false);
}

ix ir_buf_offset(tn_ctx *ctx, const ir_buf *b, const ix *index) {
  ix extent[IR_MAX_RANK], at[IR_MAX_RANK];
  ir_layout_shape(ctx, b->layout, b->rank, b->shape, extent);
  int rank = ir_layout_index(ctx, b->layout, b->rank, index, at);
  if (rank == 0) return ix_index(ctx, 0);
  /* From the inside: the strides stay products of extents, so that the offset is
   * linear in the indices also when extents are symbolic. */
  ix offset = at[rank - 1], stride = extent[rank - 1];
  for (int i = rank - 2; i >= 0; i--) {
    offset = ix_add(ctx, ix_mul(ctx, at[i], stride), offset);
    if (i > 0) stride = ix_mul(ctx, stride, extent[i]);
  }
  return offset;
}

ix ir_buf_elements(tn_ctx *ctx, const ir_buf *b) {
  ix extent[IR_MAX_RANK];
  int rank = ir_layout_shape(ctx, b->layout, b->rank, b->shape, extent);
  ix n = ix_index(ctx, 1);
  for (int i = 0; i < rank; i++) n = ix_mul(ctx, n, extent[i]);
  return n;
}
