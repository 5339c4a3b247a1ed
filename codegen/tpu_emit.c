/* tpu_emit.c — instructions over boxes of lanes. See tpu_lower.h. */
#include "codegen/tpu_lower.h"

/* ---- effects ---- */

/* Bytes that an operand touches under the extents. */
static void operand_range(const tpu_operand *o, const int32_t *extent, int64_t *lo, int64_t *hi) {
  int64_t width = (int64_t)ir_dtype_bytes((tn_dtype)o->dtype);
  *lo = o->addr;
  *hi = o->addr + width;
  for (int d = 0; d < 4; d++) {
    int64_t reach = ((int64_t)extent[d] - 1) * o->stride[d] * width;
    if (reach < 0) *lo += reach;
    else *hi += reach;
  }
}

void te_access(tc *c, tpu_unit unit, tpu_space space, int64_t lo, int64_t hi, bool write) {
  if (c->dry) return;
  if (space == TPU_DRAM && hi <= c->dram_written) return; /* inputs and weights: nobody writes there */
  if (space == TPU_DRAM || space == TPU_UB || space == TPU_ACC) tc_order_access(c->order[c->core], unit, space, lo, hi, write);
}

static void touch(tc *c, const tpu_inst *i, const tpu_operand *o, bool write) {
  int64_t lo, hi;
  if (!o->space) return;
  operand_range(o, i->extent, &lo, &hi);
  te_access(c, tpu_ops[i->op].unit, (tpu_space)o->space, lo, hi, write);
}

/* Positions from `at` that rows and taps of a window reach; within [0, size) if size is not 0: what lies outside is not touched. */
static void reached(int64_t at, int64_t rows, int64_t taps, int64_t size, int64_t *lo, int64_t *hi) {
  *lo = at + (rows < 0 ? rows : 0) + (taps < 0 ? taps : 0);
  *hi = at + (rows > 0 ? rows : 0) + (taps > 0 ? taps : 0);
  if (size && *lo < 0) *lo = 0;
  if (size && *hi > size - 1) *hi = size - 1;
}

static void touch_window(tc *c, const tpu_inst *i) {
  const tpu_window *w = &i->win;
  int64_t width = (int64_t)ir_dtype_bytes((tn_dtype)i->src.dtype), lo = i->src.addr, hi = lo + width;
  int64_t from[4] = {0}, to[4] = {0, 0, 0, w->kc - 1};
  reached(w->z0, (int64_t)(i->extent[0] - 1) * w->sz, (int64_t)(w->kd - 1) * w->dz, w->depth, &from[0], &to[0]);
  reached(w->y0, (int64_t)(i->extent[1] - 1) * w->sy, (int64_t)(w->kh - 1) * w->dy, w->height, &from[1], &to[1]);
  reached(w->x0, (int64_t)(i->extent[2] - 1) * w->sx, (int64_t)(w->kw - 1) * w->dx, w->width, &from[2], &to[2]);
  for (int d = 0; d < 4; d++) {
    int64_t a = from[d] * i->src.stride[d] * width, b = to[d] * i->src.stride[d] * width;
    if (to[d] < from[d]) return; /* nothing inside */
    lo += a < b ? a : b;
    hi += a < b ? b : a;
  }
  te_access(c, TPU_UNIT_MATRIX, (tpu_space)i->src.space, lo, hi, false);
}

void te_emit(tc *c, tpu_inst i) {
  if (c->dry) return;
  tpu_fields fields = tpu_ops[i.op].fields;
  bool picks = i.op == TPU_LOAD_ROWS || i.op == TPU_GATHER, puts = i.op == TPU_STORE_ROWS || i.op == TPU_SCATTER;
  if (fields == TPU_FIELDS_WINDOW) touch_window(c, &i);
  else if (!picks) touch(c, &i, &i.src, false); /* where it picks or puts, the caller has said */
  if (fields == TPU_FIELDS_INDEXED) touch(c, &i, &i.index, false);
  if (fields == TPU_FIELDS_CHAIN || fields == TPU_FIELDS_VECTOR) {
    touch(c, &i, &i.b, false);
    touch(c, &i, &i.c, false);
  }
  touch(c, &i, &i.mask, false);
  if (!puts) touch(c, &i, &i.dst, true);
  tc_order_emit(c->order[c->core], c->p, i);
}

/* ---- control ---- */

void te_fence(tc *c) {
  if (!c->dry) tc_order_fence(c->order[c->core], c->p, false);
}

int64_t te_here(const tc *c) { return c->p->core[c->core].n; }

/* Jumps out, where te_land says, when the byte at an address of the chip is 0. */
int64_t te_exit_unless(tc *c, int64_t at) {
  if (c->dry) return 0;
  tpu_inst read = tpu_inst_of(TPU_READ), jump = tpu_inst_of(TPU_JUMP);
  read.reg = jump.reg2 = 1;
  read.imm = 1; /* without values: one turn of a loop, an arm that is taken */
  read.src = tpu_at(TPU_UB, TN_U8, at, 0, 0, 0, 0);
  te_access(c, TPU_UNIT_SEQ, TPU_UB, at, at + 1, false);
  tc_order_emit(c->order[c->core], c->p, read);
  tpu_emit(c->ctx, c->p, c->core, jump);
  return te_here(c) - 1;
}

void te_land(tc *c, int64_t jump) {
  if (!c->dry) c->p->core[c->core].insts[jump].span = (int32_t)(te_here(c) - jump);
}

void te_jump(tc *c, int64_t to) {
  tpu_inst jump = tpu_inst_of(TPU_JUMP);
  jump.span = (int32_t)(to - te_here(c));
  if (!c->dry) tpu_emit(c->ctx, c->p, c->core, jump);
}

/* ---- axes ---- */

static bool joins(const te_axes *a, int nops, int i) {
  for (int k = 0; k < nops; k++)
    if (a->stride[k][i] != a->stride[k][i + 1] * a->extent[i + 1]) return false;
  return true;
}

static void drop_axis(te_axes *a, int nops, int i) {
  for (int j = i; j + 1 < a->n; j++) {
    a->extent[j] = a->extent[j + 1];
    for (int k = 0; k < nops; k++) a->stride[k][j] = a->stride[k][j + 1];
  }
  a->n--;
}

/* Neighbouring axes that are one, from the inside; extents of 1 go. */
static void join_axes(te_axes *a, int nops) {
  for (int i = a->n - 1; i >= 0; i--)
    if (a->extent[i] == 1) drop_axis(a, nops, i);
  for (int i = a->n - 2; i >= 0; i--) {
    if (!joins(a, nops, i) || a->extent[i] * a->extent[i + 1] > INT32_MAX) continue;
    int64_t n = a->extent[i] * a->extent[i + 1];
    int64_t inner[TE_OPERANDS];
    for (int k = 0; k < nops; k++) inner[k] = a->stride[k][i + 1];
    drop_axis(a, nops, i);
    a->extent[i] = n;
    for (int k = 0; k < nops; k++) a->stride[k][i] = inner[k];
  }
}

static int64_t distance(int64_t v) { return v < 0 ? -v : v; }

static bool still(int nops, const tc_val *const *v, int lane) {
  for (int k = 0; k < nops; k++)
    if (v[k]->stride[lane]) return false;
  return true;
}

/* The box as axes of an instruction and the operands' addresses in it. Axes along which operand 0 moves come
 * first, by its distance; the others (reductions) stay in the order of their loops. */
static bool axes_of(tc *c, int nops, const tc_val *const *v, te_axes *a, int64_t *addr) {
  int lanes[TC_LANES], n = 0;
  for (int l = 0; l < c->nlanes; l++) {
    if (c->box.n[l] <= 0) return false;
    if (c->box.n[l] > 1 && (c->every || !still(nops, v, l))) lanes[n++] = l;
  }
  for (int i = 1; i < n; i++) /* insertion: stable */
    for (int j = i; j > 0; j--) {
      int64_t x = distance(v[0]->stride[lanes[j - 1]]), y = distance(v[0]->stride[lanes[j]]);
      if (y <= x) break;
      int t = lanes[j];
      lanes[j] = lanes[j - 1];
      lanes[j - 1] = t;
    }
  *a = (te_axes){.n = n};
  for (int k = 0; k < nops; k++) {
    addr[k] = v[k]->base;
    for (int l = 0; l < c->nlanes; l++) addr[k] += c->box.lo[l] * v[k]->stride[l];
    for (int i = 0; i < n; i++) a->stride[k][i] = v[k]->stride[lanes[i]];
  }
  for (int i = 0; i < n; i++) a->extent[i] = c->box.n[lanes[i]];
  join_axes(a, nops);
  return true;
}

static tpu_operand operand(const tc_val *v, int64_t addr, const te_axes *a, int k, int first) {
  tpu_operand o = {.addr = addr, .space = (uint8_t)v->space, .dtype = (uint8_t)v->t};
  if (v->space == TPU_IMM) {
    o.addr = tpu_imm_bits(v->t, v->k);
    return o;
  }
  int64_t width = v->space == TPU_IOTA ? 1 : (int64_t)ir_dtype_bytes(v->t);
  for (int d = 0; d < 4; d++)
    if (first + d >= 0 && first + d < a->n) o.stride[d] = (int32_t)(a->stride[k][first + d] / width);
  return o;
}

/* Calls put(user, inst-extents, addresses) for every part of the axes that one instruction takes. */
typedef struct parts {
  tc *c;
  const te_axes *a;
  int nops, first; /* axis of extent[0], perhaps negative */
  void (*put)(struct parts *p, const int32_t *extent, const int64_t *addr);
  void *user;
} parts;

static void each_part(parts *p, int axis, const int64_t *addr) {
  const te_axes *a = p->a;
  if (axis >= p->first) {
    int32_t extent[4];
    for (int d = 0; d < 4; d++) extent[d] = p->first + d >= 0 ? (int32_t)a->extent[p->first + d] : 1;
    p->put(p, extent, addr);
    return;
  }
  for (int64_t i = 0; i < a->extent[axis]; i++) {
    int64_t at[TE_OPERANDS];
    for (int k = 0; k < p->nops; k++) at[k] = addr[k] + i * a->stride[k][axis];
    each_part(p, axis + 1, at);
  }
}

static void split(tc *c, const te_axes *a, int nops, const int64_t *addr, void (*put)(parts *p, const int32_t *extent, const int64_t *addr), void *user) {
  parts p = {.c = c, .a = a, .nops = nops, .first = a->n - 4, .put = put, .user = user};
  each_part(&p, 0, addr);
}

/* ---- vector ---- */

typedef struct vector_job {
  tpu_inst i;
  const tc_val *v[TE_OPERANDS];
  int sources;          /* v: operands after the destination; the mask, if any, comes last */
  const tc_val *region; /* gather, scatter: what may be touched besides */
} vector_job;

static void put_vector(parts *p, const int32_t *extent, const int64_t *addr) {
  vector_job *j = p->user;
  tpu_inst i = j->i;
  tpu_operand *const at[] = {&i.dst, &i.src, &i.b, &i.c};
  for (int d = 0; d < 4; d++) i.extent[d] = extent[d];
  for (int k = 0; k < p->nops; k++) *(k <= j->sources ? at[k] : &i.mask) = operand(j->v[k], addr[k], p->a, k, p->first);
  te_emit(p->c, i);
}

void te_vector(tc *c, ir_opcode fn, const tc_val *dst, int n, const tc_val *args, bool masked) {
  vector_job j = {.i = tpu_inst_of(TPU_VECTOR), .v = {dst}, .sources = n};
  te_axes a;
  int64_t addr[TE_OPERANDS];
  int nops = 1;
  for (int k = 0; k < n; k++) j.v[nops++] = &args[k];
  if (masked && c->masked) j.v[nops++] = &c->mask;
  j.i.fn = (uint8_t)fn;
  if (axes_of(c, nops, j.v, &a, addr)) split(c, &a, nops, addr, put_vector, &j);
}

void te_chain(tc *c, tpu_inst i, const tc_val *dst, const tc_val *src, int n, const tc_val *beside) {
  vector_job j = {.i = i, .v = {dst, src}, .sources = n + 1};
  te_axes a;
  int64_t addr[TE_OPERANDS];
  int nops = 2;
  for (int k = 0; k < n; k++) j.v[nops++] = &beside[k];
  if (c->masked) j.v[nops++] = &c->mask;
  if (axes_of(c, nops, j.v, &a, addr)) split(c, &a, nops, addr, put_vector, &j);
}

void te_copy(tc *c, const tc_val *dst, const tc_val *src, bool masked) { te_vector(c, IX_CAST, dst, 1, src, masked); }

static void put_indexed(parts *p, const int32_t *extent, const int64_t *addr) {
  vector_job *j = p->user;
  tpu_inst i = j->i;
  tpu_operand *const at[] = {&i.dst, &i.src, &i.index, &i.mask};
  for (int d = 0; d < 4; d++) i.extent[d] = extent[d];
  for (int k = 0; k < p->nops; k++) *at[k] = operand(j->v[k], addr[k], p->a, k, p->first);
  te_access(p->c, TPU_UNIT_VECTOR, TPU_UB, j->region->at, j->region->at + j->region->owned, i.op == TPU_SCATTER);
  te_emit(p->c, i);
}

static void indexed(tc *c, tpu_opcode op, ir_opcode fn, const tc_val *dst, const tc_val *src, const tc_val *index, const tc_val *region, bool masked) {
  int nops = masked && c->masked ? 4 : 3;
  vector_job j = {.i = tpu_inst_of(op), .v = {dst, src, index, &c->mask}, .region = region};
  j.i.fn = (uint8_t)fn;
  te_axes a;
  int64_t addr[TE_OPERANDS];
  if (axes_of(c, nops, j.v, &a, addr)) split(c, &a, nops, addr, put_indexed, &j);
}

void te_gather(tc *c, const tc_val *dst, const tc_val *src, const tc_val *index, const tc_val *region, bool masked) {
  indexed(c, TPU_GATHER, IX_CONST, dst, src, index, region, masked);
}

void te_scatter(tc *c, const tc_val *dst, const tc_val *src, const tc_val *index, const tc_val *region, ir_opcode fn, bool masked) {
  indexed(c, TPU_SCATTER, fn, dst, src, index, region, masked);
}

/* ---- DMA ---- */

static tn_dtype bits_of(int width) { return width == 1 ? TN_U8 : width == 2 ? TN_U16 : width == 4 ? TN_U32 : TN_U64; }

static void put_dma(parts *p, const int32_t *extent, const int64_t *addr) {
  vector_job *j = p->user;
  tpu_inst i = j->i;
  for (int d = 0; d < 4; d++) i.extent[d] = extent[d];
  i.dst = operand(j->v[0], addr[0], p->a, 0, p->first);
  i.src = operand(j->v[1], addr[1], p->a, 1, p->first);
  te_emit(p->c, i);
}

void te_dma(tc *c, bool load, int rank, const int64_t *n, int width, int64_t dram, const int64_t *dram_stride, int64_t chip, const int64_t *chip_stride) {
  tc_val far = {.t = bits_of(width), .space = TPU_DRAM}, near = {.t = bits_of(width), .space = TPU_UB};
  te_axes a = {.n = rank};
  for (int d = 0; d < rank; d++) {
    if (n[d] <= 0) return;
    a.extent[d] = n[d];
    a.stride[0][d] = load ? chip_stride[d] : dram_stride[d];
    a.stride[1][d] = load ? dram_stride[d] : chip_stride[d];
  }
  int64_t lo = dram, hi = dram + width;
  for (int d = 0; d < rank; d++) *(dram_stride[d] < 0 ? &lo : &hi) += dram_stride[d] * (n[d] - 1);
  bool meets = false; /* results in place of an operand */
  for (int i = 0; i < c->nlate && load; i++) meets |= c->late[i].lo < hi && lo < c->late[i].hi;
  if (meets) tc_store_late(c);
  join_axes(&a, 2);
  vector_job j = {.i = tpu_inst_of(load ? TPU_LOAD : TPU_STORE), .v = {load ? &near : &far, load ? &far : &near}};
  int64_t addr[TE_OPERANDS] = {load ? chip : dram, load ? dram : chip};
  split(c, &a, 2, addr, put_dma, &j);
}

/* Element `index[i]` of a far array for each of the lanes along which the index changes: n numbers, dense. */
void te_rows(tc *c, bool load, tn_dtype t, const tpu_operand *chip, const tpu_operand *dram, const tpu_operand *index, const int32_t *extent, int64_t lo, int64_t hi) {
  tpu_inst i = tpu_inst_of(load ? TPU_LOAD_ROWS : TPU_STORE_ROWS);
  for (int d = 0; d < 4; d++) i.extent[d] = extent[d];
  i.dst = load ? *chip : *dram;
  i.src = load ? *dram : *chip;
  i.index = *index;
  i.dst.dtype = i.src.dtype = (uint8_t)bits_of((int)ir_dtype_bytes(t));
  tc_store_late(c);
  te_access(c, tpu_ops[i.op].unit, TPU_DRAM, lo, hi, !load);
  te_emit(c, i);
}
