/* layout_copy.c — elements into a layout and out of it, by plain loops. The steps are those
 * of ir/layout.c. Without a xor step the address is a sum of one term per logical axis. */
#include "autotune/operands.h"
#include <string.h>

typedef struct shape {
  int rank;
  int64_t extent[2 * IR_MAX_RANK], at[2 * IR_MAX_RANK];
} shape;

static void apply(const ir_layout *l, shape *s) {
  for (int i = 0; l && i < l->nsteps; i++) {
    const ir_layout_step *st = &l->steps[i];
    int a = st->axis;
    switch (st->kind) {
    case IR_LAYOUT_SPLIT:
      for (int k = s->rank; k > a + 1; k--) s->extent[k] = s->extent[k - 1], s->at[k] = s->at[k - 1];
      s->extent[a + 1] = st->factor;
      s->at[a + 1] = s->at[a] % st->factor;
      s->extent[a] = (s->extent[a] + st->factor - 1) / st->factor;
      s->at[a] /= st->factor;
      s->rank++;
      break;
    case IR_LAYOUT_PERM: {
      shape old = *s;
      for (int k = 0; k < s->rank; k++) s->extent[k] = old.extent[st->perm[k]], s->at[k] = old.at[st->perm[k]];
      break;
    }
    case IR_LAYOUT_PAD:
      s->extent[a] += st->before + st->after;
      s->at[a] += st->before;
      break;
    case IR_LAYOUT_XOR:
      s->extent[a] = (s->extent[a] + st->factor - 1) / st->factor * st->factor;
      s->at[a] ^= s->at[st->axis2] % st->factor;
      break;
    }
  }
}

static int64_t offset(const ir_layout *l, int rank, const int64_t *extents, const int64_t *index, int64_t *elements) {
  shape s = {.rank = rank};
  for (int i = 0; i < rank; i++) s.extent[i] = extents[i], s.at[i] = index ? index[i] : 0;
  apply(l, &s);
  int64_t at = 0, all = 1;
  for (int i = 0; i < s.rank; i++) at = at * s.extent[i] + s.at[i], all *= s.extent[i];
  if (elements) *elements = all;
  return at;
}

int64_t at_layout_bytes(const ir_layout *l, int rank, const int64_t *extents, size_t size) {
  int64_t n;
  offset(l, rank, extents, NULL, &n);
  return n * (int64_t)size;
}

static void move(tn_ctx *ctx, const ir_layout *l, int rank, const int64_t *extents, size_t size, const char *from, char *to, bool pack) {
  int64_t n = 1, index[IR_MAX_RANK] = {0}, *term[IR_MAX_RANK] = {0}, zero = offset(l, rank, extents, index, NULL);
  for (int i = 0; i < rank; i++) n *= extents[i];
  if (pack) memset(to, 0, (size_t)at_layout_bytes(l, rank, extents, size));
  if (n == 0) return;
  bool mixed = false;
  for (int i = 0; l && i < l->nsteps; i++) mixed |= l->steps[i].kind == IR_LAYOUT_XOR;
  for (int a = 0; a < rank && !mixed; a++) {
    term[a] = IR_NEW_ARRAY(ctx, int64_t, extents[a]);
    for (int64_t i = 0; i < extents[a]; i++) {
      index[a] = i;
      term[a][i] = offset(l, rank, extents, index, NULL) - zero;
    }
    index[a] = 0;
  }
  for (int64_t i = 0; i < n; i++) {
    int64_t at = zero;
    if (mixed) at = offset(l, rank, extents, index, NULL);
    else
      for (int a = 0; a < rank; a++) at += term[a][index[a]];
    const char *s = from + (size_t)(pack ? i : at) * size;
    char *d = to + (size_t)(pack ? at : i) * size;
    if (size == 4) memcpy(d, s, 4);
    else memcpy(d, s, size);
    for (int a = rank; a-- > 0;) {
      if (++index[a] < extents[a]) break;
      index[a] = 0;
    }
  }
}

void at_pack(tn_ctx *ctx, const ir_layout *l, int rank, const int64_t *extents, size_t size, const void *dense, void *packed) {
  move(ctx, l, rank, extents, size, dense, packed, true);
}
void at_unpack(tn_ctx *ctx, const ir_layout *l, int rank, const int64_t *extents, size_t size, const void *packed, void *dense) {
  move(ctx, l, rank, extents, size, packed, dense, false);
}
