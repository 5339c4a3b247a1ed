/* tpu_matmul.c — values of matmul and pool: window-addressed rows times the resident tile.
 *
 * Rows are gathered as floats (bytes minus their zero point are exact there) in groups of six and
 * multiplied panel by panel, k ascending for every result. A row of which some taps lie
 * outside takes only the steps inside; of integers a zero does the same. Integer sums stay exact in
 * floats over 256 steps of at most 255 * 255, and are then added in i32.
 */
#include "runtime/tpu_internal.h"
#include <string.h>

enum { GROUP = 6, EXACT = 256 };

typedef struct product {
  tpu_core *c;
  const tpu_inst *i;
  int64_t number;
  const uint8_t *memory, *undefined; /* of src; undefined: null when all of the window is defined */
  int dtype;
  int64_t size, depth, n, panels;
  bool integers;
  int32_t *dz, *dy, *dx; /* per step: place in the window, */
  int64_t *offset;       /* bytes from the address of the row's first tap and channel 0 */
  float *a;              /* [GROUP][depth] */
  int32_t *steps;        /* of a row with taps outside: which are inside, */
  float *chosen;         /* and their values */
  float *sum;            /* [GROUP][panels * 16] */
} product;

static void plan_steps(product *p) {
  const tpu_window *w = &p->i->win;
  const int32_t *s = p->i->src.stride;
  int64_t plane = (int64_t)w->kh * w->kw, taps = plane * w->kd;
  for (int64_t k = 0; k < p->depth; k++) {
    int64_t at = w->k_first + k, tap, c;
    if (p->i->flags & TPU_CHANNELS_LAST) tap = at / w->kc, c = at % w->kc;
    else tap = at % taps, c = at / taps;
    int64_t z = tap / plane * w->dz, y = tap % plane / w->kw * w->dy, x = tap % w->kw * w->dx;
    p->dz[k] = (int32_t)z;
    p->dy[k] = (int32_t)y;
    p->dx[k] = (int32_t)x;
    p->offset[k] = (z * s[0] + y * s[1] + x * s[2] + c * s[3]) * p->size;
  }
}

/* One element at `at`, minus the zero point. */
static inline float element(int dtype, const uint8_t *at, int zero) {
  switch (dtype) {
  case TN_I8: return (float)((int8_t)*at - zero);
  case TN_U8: return (float)(*at - zero);
  case TN_F32: { float f; memcpy(&f, at, 4); return f; }
  case TN_BF16: { uint16_t h; memcpy(&h, at, 2); return ir_bf16_to_f32(h); }
  default: { uint16_t h; memcpy(&h, at, 2); return ir_f16_to_f32(h); }
  }
}

static void need(const product *p, int64_t addr) {
  if (!p->undefined) return;
  tpu_need_defined(p->c, p->i, p->number, tpu_mem_of(p->c, p->i->src.space), addr, p->size);
}

#define GATHER(value)                                                   \
  for (int64_t k = 0; k < p->depth; k++) {                              \
    const uint8_t *at = from + p->offset[k];                            \
    a[k] = value;                                                       \
  }                                                                     \
  return

/* A row all of whose taps are inside, at byte `base` of the memory. */
static void gather_row(const product *p, int64_t base, float *a) {
  const uint8_t *from = p->memory + base;
  int zero = p->i->win.a_zero;
  if (p->undefined) for (int64_t k = 0; k < p->depth; k++) need(p, base + p->offset[k]);
  switch (p->dtype) {
  case TN_I8: GATHER((float)((int8_t)*at - zero));
  case TN_U8: GATHER((float)(*at - zero));
  case TN_F32: GATHER(element(TN_F32, at, 0));
  case TN_BF16: GATHER(element(TN_BF16, at, 0));
  default: GATHER(element(TN_F16, at, 0));
  }
}

typedef struct row { int64_t z, y, x, base; } row;

static row row_at(const product *p, int64_t r) {
  const int32_t *e = p->i->extent, *s = p->i->src.stride;
  const tpu_window *w = &p->i->win;
  int64_t x = r % e[2], y = r / e[2] % e[1], z = r / ((int64_t)e[1] * e[2]);
  row v = {w->z0 + z * w->sz, w->y0 + y * w->sy, w->x0 + x * w->sx, 0};
  v.base = p->i->src.addr + (v.z * s[0] + v.y * s[1] + v.x * s[2]) * p->size;
  return v;
}

static bool tap_inside(const tpu_window *w, int64_t z, int64_t y, int64_t x) {
  return (!w->depth || (z >= 0 && z < w->depth)) && (!w->height || (y >= 0 && y < w->height)) && (!w->width || (x >= 0 && x < w->width));
}

/* Whether the row's window lies inside altogether (the steps of this instruction may be fewer). */
static bool all_inside(const tpu_window *w, const row *v) {
  return tap_inside(w, v->z, v->y, v->x) && tap_inside(w, v->z + (int64_t)(w->kd - 1) * w->dz, v->y + (int64_t)(w->kh - 1) * w->dy, v->x + (int64_t)(w->kw - 1) * w->dx);
}

/* Steps of a row that are inside, in order; their number. */
static int64_t choose_steps(const product *p, const row *v) {
  int64_t n = 0;
  for (int64_t k = 0; k < p->depth; k++) {
    if (!tap_inside(&p->i->win, v->z + p->dz[k], v->y + p->dy[k], v->x + p->dx[k])) continue;
    int64_t at = v->base + p->offset[k];
    need(p, at);
    p->chosen[n] = element(p->dtype, p->memory + at, p->i->win.a_zero);
    p->steps[n++] = (int32_t)k;
  }
  return n;
}

static int64_t row_place(const tpu_inst *i, int64_t r) { /* of the result, bytes */
  const int32_t *e = i->extent, *s = i->dst.stride;
  int64_t x = r % e[2], y = r / e[2] % e[1], n = r / ((int64_t)e[1] * e[2]);
  return i->dst.addr + (n * s[0] + y * s[1] + x * s[2]) * 4;
}

static void load_sums(const product *p, const uint8_t *acc, int64_t r, float *sum) {
  const uint8_t *at = acc + row_place(p->i, r);
  int64_t stride = (int64_t)p->i->dst.stride[3] * 4;
  if (stride == 4) memcpy(sum, at, (size_t)p->n * 4);
  else for (int64_t j = 0; j < p->n; j++) memcpy(sum + j, at + j * stride, 4);
}

static void store_sums(const product *p, uint8_t *acc, int64_t r, const float *sum) {
  uint8_t *at = acc + row_place(p->i, r);
  int64_t stride = (int64_t)p->i->dst.stride[3] * 4;
  if (stride == 4) memcpy(at, sum, (size_t)p->n * 4);
  else for (int64_t j = 0; j < p->n; j++) memcpy(at + j * stride, sum + j, 4);
}

/* acc += sum in i32, or = sum for the first steps of a product that does not accumulate. */
static void add_integers(const product *p, uint8_t *acc, int64_t r, const float *sum, bool add) {
  uint8_t *at = acc + row_place(p->i, r);
  int64_t stride = (int64_t)p->i->dst.stride[3] * 4;
  for (int64_t j = 0; j < p->n; j++) {
    uint32_t v = 0;
    if (add) memcpy(&v, at + j * stride, 4);
    v += (uint32_t)(int32_t)sum[j];
    memcpy(at + j * stride, &v, 4);
  }
}

/* Rows [r, r + rows), of which `whole` says that every step is taken. */
static void multiply_group(product *p, uint8_t *acc, int64_t r, int rows, bool accumulate) {
  const tpu_tile *t = &p->c->active;
  int64_t pitch = p->panels * 16;
  if (!p->integers) {
    memset(p->sum, 0, (size_t)(rows * pitch) * 4);
    for (int m = 0; m < rows && accumulate; m++) load_sums(p, acc, r + m, p->sum + m * pitch);
    for (int64_t j = 0; j < p->panels; j++)
      tpu_panel_product(rows, p->depth, p->a, p->depth, t->values + j * t->k * 16, p->sum + j * 16, pitch);
    for (int m = 0; m < rows; m++) store_sums(p, acc, r + m, p->sum + m * pitch);
    return;
  }
  for (int64_t k = 0; k < p->depth; k += EXACT) {
    int64_t depth = p->depth - k < EXACT ? p->depth - k : EXACT;
    memset(p->sum, 0, (size_t)(rows * pitch) * 4);
    for (int64_t j = 0; j < p->panels; j++)
      tpu_panel_product(rows, depth, p->a + k, p->depth, t->values + (j * t->k + k) * 16, p->sum + j * 16, pitch);
    for (int m = 0; m < rows; m++) add_integers(p, acc, r + m, p->sum + m * pitch, accumulate || k);
  }
}

static void multiply_some(product *p, uint8_t *acc, int64_t r, const row *v, bool accumulate) {
  const tpu_tile *t = &p->c->active;
  int64_t n = choose_steps(p, v), pitch = p->panels * 16;
  memset(p->sum, 0, (size_t)pitch * 4);
  if (accumulate) load_sums(p, acc, r, p->sum);
  tpu_row_product(n, p->chosen, p->steps, t->values, t->k * 16, p->panels, p->sum);
  store_sums(p, acc, r, p->sum);
}

static void multiply(product *p, uint8_t *acc, int64_t rows, int64_t group, bool accumulate) {
  const tpu_window *w = &p->i->win;
  for (int64_t r = 0; r < rows;) {
    int m = 0; /* rows gathered */
    row v;
    bool some = false; /* the next row takes some steps alone */
    while (m < group && r + m < rows && !some) {
      v = row_at(p, r + m);
      if (all_inside(w, &v)) gather_row(p, v.base, p->a + m++ * p->depth);
      else if (p->integers) { /* zeros outside */
        float *a = p->a + m++ * p->depth;
        int64_t n = choose_steps(p, &v);
        memset(a, 0, (size_t)p->depth * 4);
        for (int64_t k = 0; k < n; k++) a[p->steps[k]] = p->chosen[k];
      } else some = true;
    }
    if (m) multiply_group(p, acc, r, m, accumulate);
    r += m;
    if (some) multiply_some(p, acc, r++, &v, accumulate);
  }
}

/* The tile's values without the zero point that the instruction names. */
static void take_off_zero(tpu_tile *t, int zero) {
  if (t->zero == zero) return;
  float change = (float)(t->zero - zero);
  for (int64_t k = 0; k < (t->n + 15) / 16 * t->k * 16; k++) t->values[k] += change;
  t->zero = zero;
}

static void *part(char **at, int64_t bytes) {
  char *p = *at;
  *at += (bytes + 63) / 64 * 64;
  return p;
}

void tpu_matmul(tpu_core *c, const tpu_inst *i, int64_t number) {
  int64_t rows = (int64_t)i->extent[0] * i->extent[1] * i->extent[2];
  tpu_work(c, rows * i->extent[3] + rows * i->extent[3] / 16 * i->win.k_count);
  product p = {.c = c, .i = i, .number = number, .dtype = i->src.dtype, .size = (int64_t)ir_dtype_bytes((tn_dtype)i->src.dtype),
               .depth = i->win.k_count, .n = i->extent[3], .integers = i->dst.dtype == TN_I32};
  p.panels = (p.n + 15) / 16;
  if (!rows) return;
  tpu_box box[TPU_BOXES], read, write = tpu_operand_box(&i->dst, i->extent, true);
  int boxes = tpu_boxes(i, box);
  read = boxes > 1 ? box[1] : (tpu_box){.space = TPU_UB};
  if (i->src.addr % p.size || i->dst.addr % 4) tpu_fault(c, i, number, "an address that is not aligned");
  tpu_reach(c, i, number, TPU_UB, read.lo, read.hi);
  bool accumulate = i->flags & TPU_ACCUMULATE;
  write.write = !accumulate; /* seeds must be defined */
  tpu_operand_bytes(c, i, number, &i->dst, &write);
  const tpu_mem *ub = &c->mem[TPU_UB];
  p.memory = ub->bytes;
  p.undefined = boxes > 1 && tpu_box_defined(c, &read) ? NULL : ub->undefined;
  int64_t d = p.depth;
  char *at = tpu_scratch(c, (size_t)(d * (8 + 4 + 4 + 4 + 4 + 4 + 4 * GROUP) + GROUP * p.panels * 64 + 11 * 64));
  p.offset = part(&at, d * 8);
  p.dz = part(&at, d * 4);
  p.dy = part(&at, d * 4);
  p.dx = part(&at, d * 4);
  p.steps = part(&at, d * 4);
  p.chosen = part(&at, d * 4);
  p.a = part(&at, d * 4 * GROUP);
  p.sum = part(&at, GROUP * p.panels * 64);
  plan_steps(&p);
  take_off_zero(&c->active, p.integers ? i->win.w_zero : 0);
  /* rows whose results meet (a stride of 0) take one another's sums: one at a time */
  int64_t distinct = write.run;
  for (int k = 0; k < write.n; k++) distinct *= write.extent[k];
  multiply(&p, c->mem[TPU_ACC].bytes, rows, distinct == rows * p.n * 4 ? GROUP : 1, accumulate);
}

/* ---- pooling ---- */

static void pool_row(tpu_core *c, const tpu_inst *i, int64_t number, int64_t z, int64_t y, int64_t x, int64_t from, int count) {
  const tpu_window *w = &i->win;
  tn_dtype t = (tn_dtype)i->dst.dtype;
  int64_t size = (int64_t)ir_dtype_bytes(t);
  const int32_t *s = i->src.stride, *d = i->dst.stride;
  tpu_block value, tap;
  int64_t to = i->dst.addr + (z * d[0] + y * d[1] + x * d[2] + from * d[3]) * size, row_bytes = ((count - 1) * (int64_t)d[3]) * size;
  int64_t lo = row_bytes < 0 ? to + row_bytes : to, bytes = (row_bytes < 0 ? -row_bytes : row_bytes) + size;
  if (i->flags & TPU_ACCUMULATE) {
    tpu_touch(c, i, number, i->dst.space, lo, bytes, false);
    tpu_block_load(t, tpu_mem_of(c, i->dst.space)->bytes + to, d[3] * size, count, &value);
  } else tpu_block_fill(t, w->init, count, &value);
  int64_t plane = (int64_t)w->kh * w->kw;
  for (int64_t k = 0; k < plane * w->kd; k++) {
    int64_t Z = w->z0 + z * w->sz + k / plane * w->dz, Y = w->y0 + y * w->sy + k % plane / w->kw * w->dy, X = w->x0 + x * w->sx + k % w->kw * w->dx;
    if (!tap_inside(w, Z, Y, X)) continue;
    tpu_operand one = i->src;
    one.addr += (Z * s[0] + Y * s[1] + X * s[2] + from * s[3]) * size;
    tpu_box read = tpu_operand_box(&one, (const int32_t[]){1, 1, 1, count}, false);
    tpu_block_load(t, tpu_operand_bytes(c, i, number, &one, &read) + one.addr, s[3] * size, count, &tap);
    tpu_block_op(c->sim->ctx, (ir_opcode)i->fn, t, (const tn_dtype[]){t, t}, (const tpu_block *const[]){&value, &tap}, &value, count);
  }
  tpu_operand one = i->dst;
  one.addr = to;
  tpu_box write = tpu_operand_box(&one, (const int32_t[]){1, 1, 1, count}, true);
  tpu_block_store(t, tpu_operand_bytes(c, i, number, &one, &write) + to, d[3] * size, count, &value);
}

void tpu_pool(tpu_core *c, const tpu_inst *i, int64_t number) {
  tpu_work(c, tpu_elements(i->extent) + tpu_elements(i->extent) / 4 * i->win.kd * i->win.kh * i->win.kw);
  const int32_t *e = i->extent;
  tpu_box box[TPU_BOXES];
  /* one destination for many channels, or results that are read again: in order */
  bool serial = i->dst.stride[3] == 0 || (tpu_boxes(i, box) > 1 && tpu_boxes_meet(&box[0], &box[1], true));
  int step = serial ? 1 : TPU_BLOCK;
  for (int64_t z = 0; z < e[0]; z++)
    for (int64_t y = 0; y < e[1]; y++)
      for (int64_t x = 0; x < e[2]; x++)
        for (int64_t k = 0; k < e[3]; k += step) pool_row(c, i, number, z, y, x, k, (int)(e[3] - k < step ? e[3] - k : step));
}
