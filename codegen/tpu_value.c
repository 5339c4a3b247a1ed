/* tpu_value.c — expressions become values of all lanes. See tpu_lower.h. */
#include "codegen/tpu_lower.h"
#include "ir/interp.h"
#include <string.h>

/* ---- memo of the running statement ---- */

typedef struct entry {
  ix e;
  uint32_t stamp;
  int uses; /* still to come */
  bool ready;
  tc_val v;
} entry;

struct tc_memo {
  entry *at;
  size_t cap, n;
  uint32_t stamp;
};

static entry *find(tc_memo *m, ix e) { /* its place, perhaps of an older stamp */
  size_t i = (e->id * 0x9e3779b1u) & (m->cap - 1);
  while (m->at[i].stamp == m->stamp && m->at[i].e != e) i = (i + 1) & (m->cap - 1);
  return &m->at[i];
}

static entry *enter(tc *c, ix e) {
  tc_memo *m = c->memo;
  if (m->n * 2 >= m->cap) {
    tc_memo old = *m;
    m->cap = old.cap ? old.cap * 2 : 256;
    m->at = IR_NEW_ARRAY(c->ctx, entry, m->cap);
    for (size_t i = 0; i < old.cap; i++)
      if (old.at[i].stamp == m->stamp) *find(m, old.at[i].e) = old.at[i];
  }
  entry *x = find(m, e);
  if (x->stamp == m->stamp) return x;
  *x = (entry){.e = e, .stamp = m->stamp};
  m->n++;
  return x;
}

enum { PINNED = 1 << 20 };

/* Uses within the statement. What indices are made of is kept until its end: places take physical indices, and
 * perhaps more than once. */
static void count(tc *c, ix e, int uses) {
  if (e->op == IX_CONST) return;
  entry *x = enter(c, e);
  int before = x->uses;
  x->uses += uses;
  if (before >= uses) return;
  const tc_bind *let = e->op == IX_VAR ? tc_bound(c, e->u.var) : NULL;
  if (let && let->kind == TC_EXPR) count(c, let->e, uses);
  if (e->op == IX_LOAD) uses = PINNED;
  for (int i = 0; i < e->nargs; i++) count(c, e->args[i], uses);
}

void tc_eval_begin(tc *c, int n, const ix *roots) {
  if (!c->memo) c->memo = IR_NEW(c->ctx, tc_memo);
  c->memo->stamp++;
  c->memo->n = 0;
  for (int i = 0; i < n; i++) count(c, roots[i], 1);
}

void tc_eval_end(tc *c) {
  tc_memo *m = c->memo;
  if (!m->n) return;
  for (size_t i = 0; i < m->cap; i++)
    if (m->at[i].stamp == m->stamp && m->at[i].ready) tc_release(c, &m->at[i].v);
  m->stamp++;
  m->n = 0;
}

bool tc_shared(tc *c, ix e) { return enter(c, e)->uses > 1; }
bool tc_ready(tc *c, ix e) { return enter(c, e)->ready; }

void tc_used(tc *c, ix e) {
  if (e->op == IX_CONST) return;
  entry *x = enter(c, e);
  if (--x->uses == 0 && x->ready) tc_release(c, &x->v);
}

void tc_keep(tc *c, ix e) { enter(c, e)->v.owned = 0; }

/* ---- memory ---- */

tc_val tc_imm(tn_dtype t, ir_scalar k) { return (tc_val){.t = t, .space = TPU_IMM, .k = k}; }

int64_t tc_alloc(tc *c, int64_t bytes, bool rotate) {
  int64_t at = tc_arena_get(&c->scratch, bytes, rotate);
  if (at < 0 && c->nlate) {
    tc_store_late(c);
    at = tc_arena_get(&c->scratch, bytes, rotate);
  }
  if (at < 0 && !c->full) ir_fail(c->ctx, TN_EUNSUPPORTED, "kernel '%s': its values exceed the memory of %s", c->k->name, c->m->name);
  if (at < 0) longjmp(*c->full, 1);
  return at;
}

static tc_val temp(tc *c, tn_dtype t, unsigned lanes, bool dense) {
  tc_val v = {.t = t, .space = TPU_UB};
  int64_t bytes = (int64_t)ir_dtype_bytes(t);
  if (c->masked) lanes |= tc_lanes_of(c, &c->mask); /* where the mask is off nothing is there */
  for (int i = c->nlanes - 1; i >= 0; i--) {
    int l = c->lane_order[i];
    if (!(lanes >> l & 1) || c->box.n[l] <= 1) continue;
    v.stride[l] = bytes;
    bytes *= bytes == (int64_t)ir_dtype_bytes(t) && !dense ? tc_pitch(c, c->box.n[l]) : c->box.n[l];
  }
  v.owned = bytes;
  v.at = v.base = tc_alloc(c, bytes, false);
  for (int l = 0; l < c->nlanes; l++) v.base -= v.stride[l] * c->box.lo[l];
  return v;
}

tc_val tc_temp(tc *c, tn_dtype t, unsigned lanes) { return temp(c, t, lanes, t == TN_INDEX); }

void tc_release(tc *c, tc_val *v) {
  if (!v->owned) return;
  tc_arena_put(&c->scratch, v->at, v->owned);
  v->owned = 0;
}

unsigned tc_lanes_of(const tc *c, const tc_val *v) {
  unsigned lanes = 0;
  for (int l = 0; l < c->nlanes; l++) lanes |= (unsigned)(v->stride[l] != 0) << l;
  return lanes;
}

/* ---- places ---- */

const ix *tc_physical(tc *c, const ir_buf *b, const void *key, const ix *index) {
  if (!b->layout) return index;
  ix *p = ir_map_get(&c->physical, key);
  if (p) return p;
  p = IR_NEW_ARRAY(c->ctx, ix, IR_MAX_RANK);
  ir_layout_index(c->ctx, b->layout, b->rank, index, p);
  ir_map_set(&c->physical, key, p);
  return p;
}

static void add_affine(const tc *c, tc_val *view, const tc_affine *a, int64_t lo, int64_t stride) {
  view->base += (a->c0 - lo) * stride;
  for (int l = 0; l < c->nlanes; l++) view->stride[l] += a->coef[l] * stride;
}

/* The lanes for which lo <= a < lo + n, if they are a box. */
static bool clip(tc *c, const tc_affine *a, int64_t lo, int64_t n, tc_box *box) {
  int lane = -1;
  int64_t c0 = a->c0;
  for (int l = 0; l < c->nlanes; l++) {
    if (a->coef[l] && c->box.n[l] > 1) {
      if (lane >= 0) return false;
      lane = l;
    } else c0 += a->coef[l] * c->box.lo[l];
  }
  if (lane < 0) {
    if (c0 < lo || c0 >= lo + n) memset(box->n, 0, sizeof box->n);
    return c->nlanes > 0;
  }
  int64_t first = box->lo[lane], end = first + box->n[lane];
  for (; first < end && (c0 + a->coef[lane] * first < lo || c0 + a->coef[lane] * first >= lo + n); first++) continue;
  for (; end > first && (c0 + a->coef[lane] * (end - 1) < lo || c0 + a->coef[lane] * (end - 1) >= lo + n); end--) continue;
  box->lo[lane] = first;
  box->n[lane] = end - first;
  return true;
}

/* An index value within [lo, hi], a number of elements `scale` apart, added to `sum`. */
static tc_val add_index(tc *c, ix e, int64_t lo, int64_t hi, int64_t scale, tc_val sum) {
  int64_t a, b;
  tc_range(c, e, &a, &b);
  tc_val v = tc_eval(c, e);
  unsigned lanes = tc_lanes_of(c, &v);
  struct {
    ir_opcode op;
    int64_t k;
    bool needed;
  } steps[] = {{IX_MAX, lo, a < lo}, {IX_MIN, hi, b > hi}, {IX_SUB, lo, lo != 0}, {IX_MUL, scale, scale != 1}};
  bool mine = false;
  for (int i = 0; i < IR_COUNT(steps); i++) {
    if (!steps[i].needed) continue;
    tc_val args[2] = {v, tc_imm(TN_INDEX, (ir_scalar){.i = steps[i].k})};
    tc_val r = mine ? v : tc_temp(c, TN_INDEX, lanes);
    te_vector(c, steps[i].op, &r, 2, args, true);
    v = r;
    mine = true;
  }
  if (sum.space == TPU_NONE) {
    if (mine || v.space == TPU_UB) {
      if (!mine) v.owned = 0;
      return v;
    }
    tc_val r = tc_temp(c, TN_INDEX, lanes);
    te_copy(c, &r, &v, true);
    return r;
  }
  tc_val args[2] = {sum, v};
  tc_val r = tc_temp(c, TN_INDEX, tc_lanes_of(c, &sum) | lanes);
  te_vector(c, IX_ADD, &r, 2, args, true);
  tc_release(c, &sum);
  if (mine) tc_release(c, &v);
  return r;
}

tc_place tc_place_of(tc *c, const tc_mem *m, const void *key, const ix *index) {
  tc_place p = {.view = {.t = m->buf->dtype, .space = m->acc ? TPU_ACC : TPU_UB, .base = m->base}, .inside = c->box};
  p.dims = tc_physical(c, m->buf, key, index);
  for (int l = 0; l < c->nlanes; l++) p.view.stride[l] = m->lane[l];
  bool general[IR_MAX_RANK] = {false};
  for (int d = 0; d < m->rank; d++) {
    tc_affine a;
    int64_t lo, hi;
    general[d] = !tc_affine_of(c, p.dims[d], &a);
    if (!general[d]) {
      tc_affine_range(c, &a, &lo, &hi);
      if (lo < m->lo[d] || hi >= m->lo[d] + m->n[d]) {
        if (clip(c, &a, m->lo[d], m->n[d], &p.inside)) p.kind = TC_CLIPPED;
        else general[d] = true;
      }
    }
    if (!general[d]) add_affine(c, &p.view, &a, m->lo[d], m->stride[d]);
  }
  for (int d = 0; d < m->rank; d++) {
    if (!general[d]) continue;
    p.index = add_index(c, p.dims[d], m->lo[d], m->lo[d] + m->n[d] - 1, m->stride[d] / m->width, p.index);
  }
  if (p.index.space) {
    /* a clipped axis as well: its lanes outside must not be read */
    if (p.kind == TC_CLIPPED) {
      tc_val none = {0};
      tc_release(c, &p.index);
      p.index = none;
      p.view.base = m->base;
      for (int l = 0; l < c->nlanes; l++) p.view.stride[l] = m->lane[l];
      for (int d = 0; d < m->rank; d++)
        p.index = add_index(c, p.dims[d], m->lo[d], m->lo[d] + m->n[d] - 1, m->stride[d] / m->width, p.index);
      p.inside = c->box;
    }
    p.kind = TC_INDEXED;
    p.region = (tc_val){.at = m->at, .owned = m->bytes};
  }
  return p;
}

/* ---- memory that stays in DRAM ---- */

static void dram_strides(const tc_mem *m, int64_t *stride) {
  int64_t s = m->width;
  for (int d = m->rank - 1; d >= 0; d--) {
    stride[d] = s;
    s *= m->extent[d];
  }
}

/* A far memory as if it were on the chip: places in it are addresses in DRAM. */
static tc_mem far_view(const tc_mem *m) {
  tc_mem f = *m;
  f.base = f.at = m->home.address;
  f.bytes = m->width;
  dram_strides(m, f.stride);
  for (int d = 0; d < m->rank; d++) {
    f.lo[d] = 0;
    f.n[d] = m->extent[d];
    f.bytes *= m->extent[d];
  }
  return f;
}

static void far_box(tc *c, bool load, const tc_val *far, const tc_val *near, const tc_box *box) {
  int64_t n[TC_LANES], ds[TC_LANES], cs[TC_LANES], dram = far->base, chip = near->base;
  int rank = 0;
  for (int l = 0; l < c->nlanes; l++) {
    dram += box->lo[l] * far->stride[l];
    chip += box->lo[l] * near->stride[l];
    if (box->n[l] <= 0) return;
    if (near->stride[l] == 0 && far->stride[l] == 0) continue;
    n[rank] = box->n[l];
    ds[rank] = far->stride[l];
    cs[rank++] = near->stride[l];
  }
  te_dma(c, load, rank, n, (int)ir_dtype_bytes(near->t), dram, ds, chip, cs);
}

/* Elements one by one through a vector of indices over the box; `near` and `index` dense over `lanes`. */
static void far_elements(tc *c, bool load, const tc_mem *f, const tc_val *far, const tc_val *near, const tc_val *index, unsigned lanes) {
  int64_t n = 1, chip = near->base, at = index->base;
  for (int l = 0; l < c->nlanes; l++) {
    if (lanes >> l & 1) n *= c->box.n[l];
    chip += near->stride[l] * c->box.lo[l];
    at += index->stride[l] * c->box.lo[l];
  }
  if (n <= 0) return;
  tpu_operand near_o = tpu_at(TPU_UB, near->t, chip, 1, 0, 0, 0), far_o = tpu_at(TPU_DRAM, near->t, far->base, 1, 0, 0, 0);
  tpu_operand index_o = tpu_at(TPU_UB, TN_I64, at, 1, 0, 0, 0);
  te_rows(c, load, near->t, &near_o, &far_o, &index_o, (int32_t[]){(int32_t)n, 1, 1, 1}, f->at, f->at + f->bytes);
}

/* All of a place as one index over its lanes, dense. */
static tc_val whole_index(tc *c, tc_place *p, unsigned *lanes) {
  *lanes = tc_lanes_of(c, &p->index) | tc_lanes_of(c, &p->view) | (c->masked ? tc_lanes_of(c, &c->mask) : 0);
  tc_val iota = {.t = TN_INDEX, .space = TPU_IOTA}, sum = tc_temp(c, TN_INDEX, *lanes), zero = tc_imm(TN_INDEX, (ir_scalar){0});
  if (c->masked) te_copy(c, &sum, &zero, false);
  int64_t width = (int64_t)ir_dtype_bytes(p->view.t);
  for (int l = 0; l < c->nlanes; l++) iota.stride[l] = p->view.stride[l] / width;
  te_vector(c, IX_ADD, &sum, 2, (tc_val[]){p->index, iota}, true);
  tc_release(c, &p->index);
  return sum;
}

/* Rows of DRAM picked by one index: lanes of the index apart from lanes of the rest. */
static bool far_rows(tc *c, const tc_mem *f, const tc_place *p, const tc_val *near) {
  unsigned by = tc_lanes_of(c, &p->index), rest = tc_lanes_of(c, &p->view);
  if ((by & rest) || c->masked) return false;
  int64_t rows = 1, chip = near->base, dram = p->view.base, at = p->index.base, row_stride = 0;
  int64_t width = (int64_t)ir_dtype_bytes(near->t);
  int32_t extent[4] = {1, 1, 1, 1};
  tpu_operand n = tpu_at(TPU_UB, near->t, 0, 0, 0, 0, 0), d = tpu_at(TPU_DRAM, near->t, 0, 1, 0, 0, 0);
  int axes = 1;
  for (int i = c->nlanes - 1; i >= 0; i--) {
    int l = c->lane_order[i];
    chip += near->stride[l] * c->box.lo[l];
    dram += p->view.stride[l] * c->box.lo[l];
    at += p->index.stride[l] * c->box.lo[l];
    if (c->box.n[l] <= 1) continue;
    if (by >> l & 1) { /* the picking lanes must be one dense run on the chip */
      if (p->index.stride[l] != rows * 8 || (row_stride && near->stride[l] != row_stride * rows)) return false;
      if (!row_stride) row_stride = near->stride[l];
      rows *= c->box.n[l];
    } else if (rest >> l & 1) {
      if (axes == 4) return false;
      extent[axes] = (int32_t)c->box.n[l];
      n.stride[axes] = (int32_t)(near->stride[l] / width);
      d.stride[axes++] = (int32_t)(p->view.stride[l] / width);
    }
  }
  for (int a = 1, b = axes - 1; a < b; a++, b--) { /* innermost last */
    int32_t t = extent[a]; extent[a] = extent[b]; extent[b] = t;
    t = n.stride[a]; n.stride[a] = n.stride[b]; n.stride[b] = t;
    t = d.stride[a]; d.stride[a] = d.stride[b]; d.stride[b] = t;
  }
  if (rows > INT32_MAX) return false;
  extent[0] = (int32_t)rows;
  n.stride[0] = (int32_t)(row_stride / width);
  n.addr = chip;
  d.addr = dram;
  tpu_operand index = tpu_at(TPU_UB, TN_I64, at, 1, 0, 0, 0);
  te_rows(c, true, near->t, &n, &d, &index, extent, f->at, f->at + f->bytes);
  return true;
}

static tc_val load_far(tc *c, const tc_mem *m, ix e) {
  tc_mem f = far_view(m);
  tc_place p = tc_place_of(c, &f, e, e->args);
  unsigned lanes = tc_lanes_of(c, &p.view) | tc_lanes_of(c, &p.index) | (c->masked ? tc_lanes_of(c, &c->mask) : 0);
  tc_val v = temp(c, m->buf->dtype, lanes, true);
  if (p.kind == TC_CLIPPED) {
    tc_val zero = tc_imm(v.t, (ir_scalar){0});
    te_copy(c, &v, &zero, false);
  }
  if (p.kind != TC_INDEXED) {
    far_box(c, true, &p.view, &v, &p.inside);
    return v;
  }
  if (far_rows(c, &f, &p, &v)) {
    tc_release(c, &p.index);
    return v;
  }
  tc_val index = whole_index(c, &p, &lanes), far = {.base = m->home.address};
  far.base = p.view.base;
  far_elements(c, true, &f, &far, &v, &index, lanes);
  tc_release(c, &index);
  return v;
}

void tc_store_far(tc *c, const tc_mem *m, const void *key, const ix *index, const tc_val *value) {
  tc_mem f = far_view(m);
  tc_place p = tc_place_of(c, &f, key, index);
  unsigned lanes = 0;
  for (int l = 0; l < c->nlanes; l++) lanes |= 1u << l;
  tc_val v = temp(c, m->buf->dtype, lanes, true);
  if (c->masked) {
    tc_val zero = tc_imm(v.t, (ir_scalar){0});
    te_copy(c, &v, &zero, false);
  }
  te_copy(c, &v, value, true);
  if (p.kind != TC_INDEXED && !c->masked) far_box(c, false, &p.view, &v, &p.inside);
  else {
    if (p.kind != TC_INDEXED) p.index = tc_imm(TN_INDEX, (ir_scalar){0});
    tc_val at = tc_temp(c, TN_INDEX, lanes), iota = {.t = TN_INDEX, .space = TPU_IOTA};
    for (int l = 0; l < c->nlanes; l++) iota.stride[l] = p.view.stride[l] / m->width;
    te_vector(c, IX_ADD, &at, 2, (tc_val[]){p.index, iota}, true);
    tc_release(c, &p.index);
    if (c->masked) { /* lanes that are off write where nobody looks */
      tc_val nowhere = tc_imm(TN_INDEX, (ir_scalar){.i = (c->dram_dummy - p.view.base) / m->width});
      te_vector(c, IX_SELECT, &at, 3, (tc_val[]){c->mask, at, nowhere}, false);
      te_access(c, TPU_UNIT_STORE, TPU_DRAM, c->dram_dummy, c->dram_dummy + 64, true);
    }
    tc_val far = {.base = p.view.base};
    far_elements(c, false, &f, &far, &v, &at, lanes);
    tc_release(c, &at);
  }
  tc_release(c, &v);
}

/* ---- expressions ---- */

static tc_val load(tc *c, ix e) {
  const tc_mem *m = ir_map_get(&c->mems, e->u.buf);
  if (!m) ir_bug(c->ctx, "kernel '%s': buffer '%s' is not in scope", c->k->name, e->u.buf->name);
  if (m->far) return load_far(c, m, e);
  tc_place p = tc_place_of(c, m, e, e->args);
  if (p.kind == TC_PLAIN) return p.view;
  tc_val v = tc_temp(c, m->buf->dtype, tc_lanes_of(c, &p.view) | tc_lanes_of(c, &p.index));
  if (p.kind == TC_CLIPPED) {
    tc_val zero = tc_imm(v.t, (ir_scalar){0});
    te_copy(c, &v, &zero, false);
    tc_box box = c->box;
    c->box = p.inside;
    te_copy(c, &v, &p.view, false);
    c->box = box;
    return v;
  }
  te_gather(c, &v, &p.view, &p.index, &p.region, true);
  tc_release(c, &p.index);
  return v;
}

static tc_val fold(tc *c, ix e, const tc_val *args) {
  tn_dtype types[3];
  ir_scalar k[3];
  for (int i = 0; i < e->nargs; i++) types[i] = args[i].t, k[i] = args[i].k;
  return tc_imm((tn_dtype)e->dtype, ir_eval_op(c->ctx, (ir_opcode)e->op, (tn_dtype)e->dtype, e->nargs, types, k));
}

static tc_val bound(tc *c, ix e) {
  const tc_bind *b = tc_bound(c, e->u.var);
  if (!b) ir_bug(c->ctx, "kernel '%s': variable '%s' is not in scope", c->k->name, e->u.var->name);
  tc_val v = b->kind == TC_EXPR ? tc_eval(c, b->e) : b->v;
  v.owned = 0;
  return v;
}

/* Operands of an op; false: all are numbers, and *v is the result. */
static bool operands(tc *c, ix e, tc_val *args, tc_val *v) {
  bool known = true;
  for (int i = 0; i < e->nargs; i++) {
    args[i] = tc_eval(c, e->args[i]);
    known &= args[i].space == TPU_IMM;
  }
  if (known) *v = fold(c, e, args);
  return !known;
}

static void operands_used(tc *c, ix e) {
  for (int i = 0; i < e->nargs; i++) tc_used(c, e->args[i]);
}

static tc_val compute(tc *c, ix e) {
  if (e->op == IX_CONST) return tc_imm((tn_dtype)e->dtype, ir_is_float((tn_dtype)e->dtype) ? (ir_scalar){.f = e->u.f} : (ir_scalar){.i = e->u.i});
  tc_affine a;
  if (e->dtype == TN_INDEX && tc_affine_of(c, e, &a)) {
    tc_val v = {.t = TN_INDEX, .space = TPU_IOTA, .base = a.c0};
    bool constant = true;
    for (int l = 0; l < c->nlanes; l++) {
      v.stride[l] = a.coef[l];
      constant &= !a.coef[l];
    }
    return constant ? tc_imm(TN_INDEX, (ir_scalar){.i = a.c0}) : v;
  }
  if (e->op == IX_VAR) return bound(c, e);
  if (e->op == IX_LOAD) return load(c, e);
  if (e->dtype == TN_BOOL) {
    int known = tc_decide(c, e);
    if (known >= 0) return tc_imm(TN_BOOL, (ir_scalar){.i = known});
  }
  if (e->op == IX_SELECT) {
    int yes = tc_decide(c, e->args[0]);
    if (yes >= 0) {
      tc_val v = tc_eval(c, e->args[yes ? 1 : 2]);
      v.owned = 0;
      return v;
    }
  }
  tc_val args[3], v;
  if (tc_chain(c, e, NULL, &v)) return v;
  if (!operands(c, e, args, &v)) return v;
  unsigned lanes = 0;
  for (int i = 0; i < e->nargs; i++) lanes |= tc_lanes_of(c, &args[i]);
  v = tc_temp(c, (tn_dtype)e->dtype, lanes);
  te_vector(c, (ir_opcode)e->op, &v, e->nargs, args, true);
  operands_used(c, e);
  return v;
}

tc_val tc_eval(tc *c, ix e) {
  if (e->op == IX_CONST) return compute(c, e);
  entry *x = enter(c, e);
  if (x->ready) return x->v;
  tc_val v = compute(c, e);
  x = enter(c, e); /* the table may have grown */
  if (!x->uses) x->uses = PINNED; /* made on the way: kept until the statement ends */
  x->v = v;
  x->ready = true;
  return v;
}

void tc_eval_into(tc *c, ix e, const tc_val *dst) {
  bool plain = e->op == IX_CONST || e->op == IX_VAR || e->op == IX_LOAD || e->dtype == TN_INDEX;
  int known = e->dtype == TN_BOOL ? tc_decide(c, e) : e->op == IX_SELECT ? tc_decide(c, e->args[0]) : -1;
  entry *x = plain ? NULL : enter(c, e);
  if (!plain && known < 0 && !x->ready) {
    tc_val args[3], v;
    if (tc_chain(c, e, dst, &v)) return;
    if (operands(c, e, args, &v)) {
      te_vector(c, (ir_opcode)e->op, dst, e->nargs, args, true);
      operands_used(c, e);
    } else te_copy(c, dst, &v, true);
    return;
  }
  tc_val v = tc_eval(c, e);
  te_copy(c, dst, &v, true);
}
