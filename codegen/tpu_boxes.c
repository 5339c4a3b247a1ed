/* tpu_boxes.c — which bytes an instruction touches. */
#include "codegen/tpu_isa.h"

enum { MAX_RUNS = 1 << 14 }; /* pieces looked at before a bounding box must do */

static bool in_memory(int space) { return space == TPU_DRAM || space == TPU_UB || space == TPU_ACC; }

/* A box of elements of `size` bytes; strides in bytes, of any sign. */
static tpu_box box_of(int space, bool write, int64_t addr, int size, const int64_t *extent, const int64_t *stride) {
  tpu_box b = {.space = (tpu_space)space, .write = write, .run = size};
  for (int d = 0; d < 4; d++)
    if (extent[d] <= 0) return b;
  int64_t span = size;
  for (int d = 0; d < 4; d++) {
    if (extent[d] == 1 || stride[d] == 0) continue;
    int64_t s = stride[d];
    if (s < 0) {
      addr += s * (extent[d] - 1);
      s = -s;
    }
    span += s * (extent[d] - 1);
    int k = b.n++;
    for (; k > 0 && b.stride[k - 1] < s; k--) { /* large strides outermost */
      b.stride[k] = b.stride[k - 1];
      b.extent[k] = b.extent[k - 1];
    }
    b.stride[k] = s;
    b.extent[k] = extent[d];
  }
  while (b.n && b.stride[b.n - 1] <= b.run) { /* dense or overlapping: one run */
    b.n--;
    b.run += b.stride[b.n] * (b.extent[b.n] - 1);
  }
  b.lo = addr;
  b.hi = addr + span;
  return b;
}

tpu_box tpu_operand_box(const tpu_operand *o, const int32_t *extent, bool write) {
  if (!in_memory(o->space)) return (tpu_box){0};
  int size = (int)ir_dtype_bytes((tn_dtype)o->dtype);
  int64_t e[4], s[4];
  for (int d = 0; d < 4; d++) {
    e[d] = extent[d];
    s[d] = (int64_t)o->stride[d] * size;
  }
  return box_of(o->space, write, o->addr, size, e, s);
}

static tpu_box dma_source(const tpu_inst *i) {
  const tpu_operand *o = &i->src;
  int size = (int)ir_dtype_bytes((tn_dtype)o->dtype);
  int64_t e[4], s[4], addr = o->addr;
  for (int d = 0; d < 4; d++) {
    int64_t lo = i->pad.first[d], hi = lo + i->extent[d];
    if (i->pad.size[d]) {
      if (lo < 0) lo = 0;
      if (hi > i->pad.size[d]) hi = i->pad.size[d];
    }
    e[d] = hi - lo;
    s[d] = (int64_t)o->stride[d] * size;
    addr += lo * s[d];
  }
  return box_of(o->space, false, addr, size, e, s);
}

/* Positions of one axis that a window reaches: first + [0, n) * step, clipped to [0, limit) if that is not 0. */
static int64_t reach(int64_t at, int64_t rows, int64_t step, int64_t taps, int64_t dilation, int64_t limit, int64_t *n, int64_t *pace) {
  int64_t last = at + (rows - 1) * step, first = at, span = (taps - 1) * dilation;
  *(span < 0 ? &first : &last) += span;
  *pace = taps == 1 && step ? step : 1;
  if (limit && first < 0) first += (-first + *pace - 1) / *pace * *pace;
  if (limit && last > limit - 1) last = limit - 1;
  *n = rows && last >= first ? (last - first) / *pace + 1 : 0;
  return first;
}

static tpu_box window_source(const tpu_inst *i) {
  const tpu_operand *o = &i->src;
  const tpu_window *w = &i->win;
  int size = (int)ir_dtype_bytes((tn_dtype)o->dtype);
  int64_t e[4] = {0}, s[4], pace, addr = o->addr;
  for (int d = 0; d < 4; d++) s[d] = (int64_t)o->stride[d] * size;
  addr += reach(w->z0, i->extent[0], w->sz, w->kd, w->dz, w->depth, &e[0], &pace) * s[0];
  s[0] *= pace;
  addr += reach(w->y0, i->extent[1], w->sy, w->kh, w->dy, w->height, &e[1], &pace) * s[1];
  s[1] *= pace;
  addr += reach(w->x0, i->extent[2], w->sx, w->kw, w->dx, w->width, &e[2], &pace) * s[2];
  s[2] *= pace;
  int64_t taps = (int64_t)w->kd * w->kh * w->kw, c0 = 0, c1 = i->op == TPU_POOL ? i->extent[3] : w->kc;
  if (i->op == TPU_MATMUL && (taps == 1 || !(i->flags & TPU_CHANNELS_LAST))) {
    c0 = w->k_first / taps;
    c1 = (w->k_first + w->k_count - 1) / taps + 1;
  }
  e[3] = c1 - c0;
  addr += c0 * s[3];
  return box_of(o->space, false, addr, size, e, s);
}

int tpu_boxes(const tpu_inst *i, tpu_box *out) {
  int n = 0;
  const int32_t *e = i->extent;
  switch (tpu_ops[i->op].fields) {
  case TPU_FIELDS_DMA:
    out[n++] = tpu_operand_box(&i->dst, e, true);
    out[n++] = dma_source(i);
    break;
  case TPU_FIELDS_INDEXED: { /* the side whose place is in the data is not known here */
    bool rows = i->op == TPU_LOAD_ROWS || i->op == TPU_STORE_ROWS, reads = i->op == TPU_LOAD_ROWS || i->op == TPU_GATHER;
    out[n++] = reads ? tpu_operand_box(&i->dst, e, true) : tpu_operand_box(&i->src, e, false);
    out[n++] = tpu_operand_box(&i->index, rows ? (const int32_t[]){e[0], 1, 1, 1} : e, false);
    out[n++] = tpu_operand_box(&i->mask, e, false);
    break;
  }
  case TPU_FIELDS_WEIGHTS: out[n++] = tpu_operand_box(&i->src, e, false); break;
  case TPU_FIELDS_WINDOW:
    out[n++] = tpu_operand_box(&i->dst, e, true);
    out[n++] = window_source(i);
    break;
  case TPU_FIELDS_CHAIN: case TPU_FIELDS_VECTOR:
    out[n++] = tpu_operand_box(&i->dst, e, true);
    out[n++] = tpu_operand_box(&i->src, e, false);
    out[n++] = tpu_operand_box(&i->b, e, false);
    out[n++] = tpu_operand_box(&i->c, e, false);
    out[n++] = tpu_operand_box(&i->mask, e, false);
    break;
  case TPU_FIELDS_CONTROL:
    if (i->op == TPU_READ) out[n++] = tpu_operand_box(&i->src, e, false);
    break;
  default: break;
  }
  int kept = 0;
  for (int k = 0; k < n; k++)
    if (out[k].lo < out[k].hi) out[kept++] = out[k];
  return kept;
}

/* Whether bytes [lo, hi) meet a run of the box, whose axis d and further in are left, at `base`. */
static bool meets(const tpu_box *b, int d, int64_t base, int64_t lo, int64_t hi, int *budget) {
  if (--*budget < 0) return true;
  if (d == b->n) return lo < base + b->run && hi > base;
  int64_t inner = b->run; /* span of what is further in */
  for (int k = d + 1; k < b->n; k++) inner += b->stride[k] * (b->extent[k] - 1);
  int64_t s = b->stride[d], first = lo - base - inner, last = hi - base - 1;
  first = first < 0 ? 0 : first / s; /* indices before it end below lo */
  last = last < 0 ? -1 : last / s;
  if (last > b->extent[d] - 1) last = b->extent[d] - 1;
  for (int64_t k = first; k <= last; k++)
    if (meets(b, d + 1, base + k * s, lo, hi, budget)) return true;
  return false;
}

static bool runs_meet(const tpu_box *a, int d, int64_t base, const tpu_box *b, int *budget) {
  if (d == a->n) return meets(b, 0, b->lo, base, base + a->run, budget);
  for (int64_t k = 0; k < a->extent[d]; k++)
    if (runs_meet(a, d + 1, base + k * a->stride[d], b, budget)) return true;
  return false;
}

bool tpu_boxes_meet(const tpu_box *a, const tpu_box *b, bool doubt) {
  if (a->lo >= b->hi || b->lo >= a->hi) return false;
  int budget = MAX_RUNS;
  bool meet = runs_meet(a, 0, a->lo, b, &budget);
  return budget < 0 ? doubt : meet;
}
